"""Blocks that are kept of older versions, taken over into a new one: asked about first, fetched only if changed.

A read of a new version goes over its selection in batches, some way ahead of what is fetched: what is kept of
older versions there is compared upstream by digests (``core/revalidation``), and what is the same is put in
the cache under the new version. Older versions stay as they are, for who is pinned to them. What is
fetched, and handed out, is ``sources``' business.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..core.answer_choice import predict_block_cbytes
from ..core.blocks import BlockRecord
from ..core.chunk_grid import BlockPlan
from ..core.metadata import Entry
from ..core.revalidation import (
    ChunkMap,
    KnownBlocks,
    SameRecord,
    adopt,
    adopt_run,
    chunk_digest,
    first_of_each,
    is_same_grid,
    joined_digest,
    runs_of,
)
from ..core.selection import Selection
from ..core.source import Source
from ..core.wire import ReadRequest
from ..errors import Caterva2Error, DatasetChangedError, DeadlineError, IntegrityError, SourceUnavailableError
from ..storage.block_cache import BlockCache, CachedVersion
from ..storage.closing import close_stream
from .flights import Flights

__all__ = ["Adoption", "Adoptions"]

FIRST_BATCH_NBYTES, MAX_BATCH_NBYTES = 1 << 20, 64 << 20
"""Compressed bytes that one comparison is about, of the first one of a read and of later ones."""
MAX_BATCH_CHUNKS, MAX_BATCH_BLOCKS = 4096, 1 << 17
MAX_OLDER_VERSIONS = 4
REMEMBERED_VERSIONS = 1000
ADOPTED_AT_ONCE = 16

Ints = npt.NDArray[np.int64]
T = TypeVar("T")

_logger = logging.getLogger(__name__)


class _OlderBlocks:
    """Blocks of a version that are kept of older ones. Reads files."""

    def __init__(self, newer: CachedVersion, older: Iterable[CachedVersion]) -> None:
        self.newer = newer
        self._older = [(version, ChunkMap(version.geometry, newer.geometry)) for version in older]

    def known(self, nchunk: int, ids: Ints) -> Ints:
        """Those of the blocks that older versions have and the newer one has not (by their journals)."""
        ids = ids[~self.newer.held(nchunk, ids)]
        has = np.zeros(len(ids), np.bool_)
        for version, chunks in self._older:
            number = chunks.older(nchunk)
            if number is not None and not has.all():
                has |= version.held(number, ids)
        return ids[has]

    def first(self, nchunk: int, ids: Ints) -> list[BlockRecord]:
        """The blocks, verified and each once, of the version used last that has them."""
        found: list[BlockRecord] = []
        for version, chunks in self._older:
            number = chunks.older(nchunk)
            if number is None or not len(ids):
                continue
            for record in version.get(number, ids):
                found.append(record)
                ids = ids[:0] if record.is_whole else ids[~np.isin(ids, record.ids)]
        return first_of_each(found)

    def all(self, nchunk: int, ids: Ints) -> list[BlockRecord]:
        """The blocks, verified, of every version that has them."""
        numbers = [(version, chunks.older(nchunk)) for version, chunks in self._older]
        return [record for version, number in numbers if number is not None for record in version.get(number, ids)]


@dataclass(slots=True)
class _Batch:
    """A run of a plan's order, and what is known of it by chunk."""

    first: int
    stop: int
    known: dict[int, Ints]


class Adoptions:
    """What is kept of older versions, for all reads of a source.

    Parameters
    ----------
    source : callable
        Gives the source to ask.
    cache : BlockCache
    executor : Executor
        Where files are read and written.
    """

    def __init__(self, source: Callable[[], Source], cache: BlockCache, executor: Executor) -> None:
        self._source, self._cache, self._executor = source, cache, executor
        self._flights = Flights(always_cut=True)
        self._older: OrderedDict[str, _OlderBlocks | None] = OrderedDict()

    async def begin(self, version: CachedVersion, entry: Entry, request: ReadRequest) -> Adoption | None:
        """What a read of a version can take over; None when nothing is kept of other versions."""
        if version.key not in self._older:
            older = await self.run(self._find, version)
            self._older[version.key] = _OlderBlocks(version, older) if older else None
            if len(self._older) > REMEMBERED_VERSIONS:
                self._older.popitem(last=False)
        known = self._older[version.key]
        return None if known is None else Adoption(self, known, entry, request)

    def _find(self, version: CachedVersion) -> list[CachedVersion]:
        kept = self._cache.versions(version.root, version.id)
        fitting = (v for v in kept if v.version != version.version and is_same_grid(v.geometry, version.geometry))
        return list(fitting)[:MAX_OLDER_VERSIONS]

    async def run(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def take_over(self, older: _OlderBlocks, plan: BlockPlan, request: ReadRequest, batch: _Batch) -> None:
        """Ask about a batch, except for what another read is asking about, and wait for both."""
        flights, own = self._flights.join(older.newer, batch.known)
        if own:
            asking = self._ask(older, plan, request, replace(batch, known=own))
            flights.append(self._flights.start(older.newer, own, asking))
        try:
            for flight in flights:
                await flight.wait()
        finally:
            for flight in flights:
                self._flights.leave(flight)

    async def _ask(
        self, older: _OlderBlocks, plan: BlockPlan, request: ReadRequest, batch: _Batch
    ) -> list[BlockRecord]:
        """Ask upstream what is the same, and keep that; brings no records itself."""
        source, newer = self._source(), older.newer
        known, runs = await self.run(_digested, older, plan, batch)
        if not known.digests:
            return []
        window = (batch.first, batch.stop)
        asked = replace(request, root=source.root, window=window, held=None, mode="blocks", fast=False, known=known)
        stream = await source.compare_blocks(asked)
        try:
            if (stream.entry.id, stream.entry.version) != (newer.id, newer.version):
                raise IntegrityError(f"root {source.root!r} answers about another dataset than {newer.path!r}")
            said: list[SameRecord] = []
            async for same in stream.records:
                said.append(same)
                if len(said) >= ADOPTED_AT_ONCE:
                    await self.run(_adopt, older, batch.known, runs, said)
                    said = []
            if said:
                await self.run(_adopt, older, batch.known, runs, said)
        finally:
            with suppress(Caterva2Error):
                await close_stream(stream.records)
        return []

    async def aclose(self) -> None:
        """Stop asking."""
        await self._flights.aclose()


def _digested(older: _OlderBlocks, plan: BlockPlan, batch: _Batch) -> tuple[KnownBlocks, dict[int, list[int]]]:
    """What is known, and the runs of chunks that are compared together, by their first one."""
    bits: list[npt.NDArray[np.bool_]] = []
    counts: list[tuple[int, int]] = []
    digests: dict[int, bytes] = {}
    for projection in plan.window(batch.first, batch.stop):
        ids = batch.known.get(projection.nchunk)
        if ids is not None and older.newer.held(projection.nchunk, ids).all():
            ids = None  # another read asked while this one looked
        bits.append(np.zeros(len(projection.blocks), np.bool_))
        records = [] if ids is None else older.first(projection.nchunk, ids)
        if not records:
            continue  # a journal said more than the disk has
        assert ids is not None
        has = ids if records[0].is_whole else np.concatenate([record.ids for record in records])
        bits[-1] |= np.isin(projection.blocks, has)
        counts.append((projection.nchunk, int(np.count_nonzero(bits[-1]))))
        digests[projection.nchunk] = chunk_digest(records)
    runs = runs_of(counts)
    joined = b"".join(joined_digest([digests[nchunk] for nchunk in run]) for run in runs)
    known = KnownBlocks(np.concatenate(bits) if bits else np.zeros(0, np.bool_), joined, in_runs=True)
    return known, {run[0]: run for run in runs}


def _adopt(
    older: _OlderBlocks, known: Mapping[int, Ints], runs: Mapping[int, Sequence[int]], said: Iterable[SameRecord]
) -> None:
    newer = older.newer
    for same in said:
        if same.proof:
            held_of = [(n, older.first(n, known[n])) for n in runs.get(same.nchunk, ())]
            if held_of and (renewed := adopt_run(same, held_of, newer.seed)):
                newer.put_verified(*renewed)
            continue
        ids = known.get(same.nchunk)
        if ids is None:
            continue  # nobody asked
        records = adopt(same, older.all(same.nchunk, ids), newer.seed)
        if records:
            newer.put(*records)


class Adoption:
    """One read of a new version: how far its selection has been asked about."""

    def __init__(self, adoptions: Adoptions, older: _OlderBlocks, entry: Entry, request: ReadRequest) -> None:
        geometry = older.newer.geometry
        self._adoptions, self._older, self._request = adoptions, older, request
        self._plan = BlockPlan(geometry, Selection.from_json(request.selection, geometry.shape))
        self._block_cbytes = max(1.0, predict_block_cbytes(entry, geometry))
        self._covered = request.window[0] if request.window else 0
        self._batch_nbytes = FIRST_BATCH_NBYTES
        self._lock = asyncio.Lock()

    @property
    def nblocks(self) -> int:
        """Of its selection."""
        return self._plan.nblocks

    async def reach(self, stop: int) -> None:
        """Take over what can be of the plan's order up to block ``stop``.

        Raises
        ------
        DatasetChangedError, SourceUnavailableError, DeadlineError
        """
        async with self._lock:
            while self._covered < stop:
                batch = await self._adoptions.run(self._next, self._covered, stop)
                if batch.known:
                    await self._take_over(batch)
                self._covered = batch.stop

    async def _take_over(self, batch: _Batch) -> None:
        self._batch_nbytes = min(4 * self._batch_nbytes, MAX_BATCH_NBYTES)
        try:
            await self._adoptions.take_over(self._older, self._plan, self._request, batch)
        except (DatasetChangedError, SourceUnavailableError, DeadlineError):
            raise
        except Caterva2Error as error:
            # An older service that does not compare, for one: everything can still be fetched.
            _logger.info("blocks of older versions are not reused: %s", error)
            batch.stop = self._plan.nblocks

    def _next(self, first: int, stop: int) -> _Batch:
        """What to ask about next: at least up to ``stop`` where that is not too much."""
        most = int(min(max(1, self._batch_nbytes / self._block_cbytes), MAX_BATCH_BLOCKS))
        held, window = self._request.held, self._request.window or (0, self._plan.nblocks)
        end = min(max(stop, first + most), first + MAX_BATCH_BLOCKS, window[1])
        position, nknown = first, 0
        known: dict[int, Ints] = {}
        for nchunks, projection in enumerate(self._plan.window(first, end)):
            if nknown >= most or nchunks >= MAX_BATCH_CHUNKS:
                break
            ids = projection.blocks
            start = position - window[0]
            position += len(ids)
            if held is not None:
                ids = ids[~held[start : start + len(ids)]]
            ids = self._older.known(projection.nchunk, ids)
            if len(ids):
                known[projection.nchunk] = ids
                nknown += len(ids)
        return _Batch(first, position, known)
