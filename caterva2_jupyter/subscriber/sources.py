"""The source that a subscriber is: one around another, which keeps what it has seen.

``CachedSource(RemoteSource(...))`` answers as the publisher does, asks it once for each block, and goes on answering
from disk when it is away; it asks for an exact slice where ``exact_answers`` says so. Blocks are never decoded here.
How a read is cut is decided in ``segments``, who fetches what in ``flights``; how blocks lie on disk is
``storage/block_cache``'s.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..core.blocks import BlockRecord
from ..core.catalog import CatalogPage, CatalogQuery, Cursor
from ..core.events import EventBatch
from ..core.fill_policy import Due
from ..core.metadata import Entry, Geometry
from ..core.reduce_request import ReduceRequest
from ..core.source import BlockStream, ComparedStream, FileStream, ReducedStream, Source
from ..core.windows import STREAMS
from ..core.wire import ReadRequest
from ..errors import (
    Caterva2Error,
    DatasetChangedError,
    DeadlineError,
    IntegrityError,
    NotCachedError,
    SourceUnavailableError,
    UnsupportedDatasetError,
)
from ..storage.block_cache import BlockCache, CachedVersion
from ..storage.closing import close_stream
from ..storage.comparison import compare_blocks
from ..web.compute_pool import ComputePool
from .adoption import Adoption, Adoptions
from .arrivals import Arrivals
from .cached_reductions import CachedReductions
from .exact_answers import ExactAnswers, WantedSlice, listed
from .fills import Fills
from .flights import Flights, look_at_error
from .read_counts import ReadCounts
from .remote_source import RemoteSource
from .segments import Segment, Segments

__all__ = ["CachedSource", "RemoteSource"]

REMEMBERED_ENTRIES = 1000
FETCHES = STREAMS
SMALL_FETCHES = 32
"""Exact slices and small reads fetched at once: who waits for one waits for a round trip."""
AHEAD_NBYTES = 64 << 20
"""Compressed bytes that all readers of a source together hold ahead of their consumers, about."""
PUT_NBYTES = 4 << 20
SMALL_NBYTES = 64 << 10
"""Bytes of a read that goes upstream together with others, about: longer ones would keep those behind them waiting."""
FEW_CHUNKS = 16
"""Of a segment whose request is made on the event loop."""

Ints = npt.NDArray[np.int64]
T = TypeVar("T")


class CachedSource:
    """A source whose blocks are kept, and asked for once however many want them.

    Listings, entries and events are those of ``source``.

    Parameters
    ----------
    source : Source
    cache : BlockCache
    executor : Executor
        Where files are read and written; its owner closes it.
    lookup : callable, optional
        The entry at a path (exactly or with ``.b2nd`` added) as last known here, None when there is none;
        called in the executor. Without it ``source.entry`` is asked, and its answers remembered.
    counts : ReadCounts, optional
        Told what was kept and what was fetched.
    compute : ComputePool, optional
        Makes reductions of what is held while the source is away.

    Notes
    -----
    A read is cut in segments of some MiB, of which up to 8 are fetched at once and handed out in order.
    What comes is handed out as it came, and kept on the way: a full disk costs the cache, not the read.
    """

    def __init__(
        self,
        source: Source,
        cache: BlockCache,
        executor: Executor,
        lookup: Callable[[str], Entry | None] | None = None,
        counts: ReadCounts | None = None,
        compute: ComputePool | None = None,
    ) -> None:
        self._counts = counts if counts is not None else ReadCounts()
        self._source, self._cache, self._executor, self._lookup = source, cache, executor, lookup
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._exact = ExactAnswers(cache)
        self._flights = Flights()
        self.fills = Fills()
        self._reductions = CachedReductions(lambda: self._source, self._exact, self._flights, executor, compute)
        self._adoptions = Adoptions(lambda: self._source, cache, executor)
        self._slots = asyncio.Semaphore(FETCHES)
        self._small_slots = asyncio.Semaphore(SMALL_FETCHES)
        self._ahead_nbytes = 0

    @property
    def root(self) -> str:
        return self._source.root

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        return await self._source.catalog(query)

    async def entry(self, path: str) -> Entry:
        entry = await self._source.entry(path)
        if self._lookup is None:
            for name in {path, entry.path}:
                self._entries[name] = entry
                self._entries.move_to_end(name)
            while len(self._entries) > REMEMBERED_ENTRIES:
                self._entries.popitem(last=False)
        return entry

    async def compare_blocks(self, request: ReadRequest) -> ComparedStream:
        return await compare_blocks(self, request, self._executor)

    async def reduce(self, request: ReduceRequest) -> ReducedStream:
        entry = await self._entry(request)
        if entry.geometry is None:
            raise _no_data(self.root, entry)
        version = self._cache.open(entry, self.root)
        request = replace(request, root=self.root, path=entry.path, version=entry.version)
        return await self._reductions.reduce(version, entry, request)

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        return await self._source.read_file(path, start, stop)

    def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        return self._source.events(since)

    async def aclose(self) -> None:
        """Stop all fetches."""
        await self.fills.aclose()
        await self._adoptions.aclose()
        await self._flights.aclose()

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        # What is known here is enough for most reads: one call in a thread says all that is to be done.
        nlanded = self._flights.nlanded
        begun = await self._run(self._begin_known, request) if self._lookup is not None else None
        entry = begun.entry if begun is not None else await self._entry(request)
        try:
            return await self._start(entry, request, begun, nlanded)
        except DatasetChangedError:
            if request.version is not None:
                raise
            # The one who asked does not care for the version: what was known here was just too old.
            newer = await self.entry(request.path)
            if newer.version == entry.version:
                raise
            return await self._start(newer, request)

    def _begin_known(self, request: ReadRequest) -> _Begun | None:
        assert self._lookup is not None
        known = self._lookup(request.path)
        if known is None or request.version not in (None, known.version):
            return None
        return self._begin(known, request)

    def _begin(self, entry: Entry, request: ReadRequest) -> _Begun:
        """What answers a read: its exact slice, or segments of blocks, of which the first is looked up at once."""
        if entry.geometry is None:
            raise _no_data(self.root, entry)
        version = self._cache.open(entry, self.root)
        request = replace(request, path=entry.path, version=entry.version)
        wanted = self._exact.weigh(version, entry, request)
        if wanted is not None:
            return _Begun(entry, request, version, wanted)
        request = replace(request, mode="blocks")
        segments = Segments(entry, request)
        first = segments.next()
        found, missing = _read_cached(version, first.wanted()) if first is not None else ({}, {})
        return _Begun(entry, request, version, None, segments, first, found, missing)

    async def _start(
        self, entry: Entry, request: ReadRequest, begun: _Begun | None = None, nlanded: int = -1
    ) -> BlockStream:
        is_newest = begun is not None or request.version is None
        if begun is None:
            nlanded = self._flights.nlanded
            begun = await self._run(self._begin, entry, request)
        version = begun.version
        if is_newest:
            self.fills.end_others(version)
        self._flights.expect(version, entry)
        adoption = await self._adoptions.begin(version, entry, begun.request)
        if begun.wanted is not None and not begun.wanted.kept and adoption is not None and request.mode == "auto":
            # What an older version has of these blocks is cheaper than any answer.
            await self._reach(adoption, version, adoption.nblocks, begun.wanted.missing)
            nlanded = self._flights.nlanded
            begun = await self._run(self._begin, entry, request)
        if begun.wanted is not None:
            stream = await self._slice(version, entry, begun.request, begun.wanted)
            if stream is not None:
                return stream
            nlanded = self._flights.nlanded
            begun = await self._run(self._begin, entry, replace(request, mode="blocks"))
        records = _CachedRecords(self, begun, adoption, nlanded)
        try:
            await records.start()
        except BaseException:
            await records.aclose()
            raise
        return BlockStream(entry, records)

    async def _reach(self, adoption: Adoption, version: CachedVersion, stop: int, missing: Mapping[int, Ints]) -> None:
        """Take over what older versions have, up to a block of the plan."""
        try:
            await adoption.reach(stop)
        except NotCachedError:
            raise
        except (SourceUnavailableError, DeadlineError) as error:
            raise _not_cached(version, missing, error) from error

    async def _entry(self, request: ReadRequest | ReduceRequest) -> Entry:
        """The entry of the version that is asked for, as well as it is known here."""
        known = await self._run(self._lookup, request.path) if self._lookup is not None else None
        if known is None:
            known = await self._remembered_entry(request)
        if request.version is None or request.version == known.version:
            return known
        # A pinned version: what is kept of it stays readable.
        geometry = await self._run(self._kept_geometry, known, request.version)
        if geometry is not None:
            return replace(known, version=request.version, geometry=geometry)
        newest = await self.entry(request.path)
        if newest.version != request.version:
            raise DatasetChangedError(
                f"dataset {newest.path!r} in root {self.root!r} changed: version {request.version} is gone"
            )
        return newest

    def _kept_geometry(self, known: Entry, version: str) -> Geometry | None:
        """Of a version that blocks or slices are kept of."""
        geometry = self._cache.geometry(self.root, known.id, version)
        return geometry if geometry is not None else self._exact.geometry(self.root, known, version)

    async def _remembered_entry(self, request: ReadRequest | ReduceRequest) -> Entry:
        remembered = self._entries.get(request.path)
        if remembered is not None and request.version == remembered.version:
            return remembered
        try:
            return await self.entry(request.path)
        except (SourceUnavailableError, DeadlineError):
            if remembered is None:
                raise
            return remembered

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def _slice(
        self, version: CachedVersion, entry: Entry, request: ReadRequest, wanted: WantedSlice
    ) -> BlockStream | None:
        """The answer to a read by its exact slice; None when it came to be answered by blocks."""
        if wanted.kept:
            self._counts.note_held(wanted.kept)
            return BlockStream(entry, listed(wanted.kept), wanted.digest)
        flight = self._flights.join_slice(version, wanted.digest)
        if flight is None:
            fetch = self._fetch_slice(version, entry, request, wanted)
            flight = self._flights.start_slice(version, wanted.digest, fetch)
        try:
            with self.fills.reading():
                records = await flight.wait()
        except NotCachedError:
            raise
        except (SourceUnavailableError, DeadlineError) as error:
            raise _not_cached(version, wanted.missing, error) from error
        finally:
            self._flights.leave(flight)
        return BlockStream(entry, listed(records), wanted.digest) if records else None

    async def _fill(self, version: CachedVersion, entry: Entry, request: ReadRequest) -> None:
        """Fetch the blocks behind a slice: a read whose records nobody takes, one request at a time."""
        request = replace(request, mode="blocks")
        segments = await self._run(Segments, entry, request)
        while (segment := await self._run(segments.next)) is not None:
            await self.fills.let_readers_go_first()
            came = Arrivals()
            await self._segment(version, request, segment, None, came, reading=nullcontext())
            segments.learn(came.records)

    async def _fetch_slice(
        self, version: CachedVersion, entry: Entry, request: ReadRequest, wanted: WantedSlice
    ) -> list[BlockRecord]:
        """Ask upstream for an exact slice, and keep it; empty when blocks are the answer: due, or what upstream has."""

        def begin() -> tuple[list[BlockRecord], Due]:
            kept = self._exact.kept(version, wanted)
            return kept, "no" if kept else self._exact.pay(version, entry, wanted, request.mode)

        kept, due = await self._run(begin)
        if kept:
            return kept
        if due == "now" or (due == "behind" and not self.fills.has_room(wanted.blocks_cbytes)):
            return []
        async with self._small_slots:
            upstream = replace(request, root=self.root, mode="slice", held=None, fast=False)
            stream = await self._ask(upstream, wanted.nbytes)
            try:
                self._check_answer(stream, version)
                if not stream.digest:
                    return []
                if stream.digest != wanted.digest:
                    raise IntegrityError(f"root {self.root!r} answers with another slice of {version.path!r}")
                records: list[BlockRecord] = []
                async for record in stream.records:
                    records.append(record)
                    if len(records) > wanted.pieces.nchunks:
                        break
            finally:
                await _close(stream.records)
        self._counts.note_fetched(records)
        await self._run(self._exact.keep, version, wanted, records)
        if due == "behind":
            self.fills.start(version, wanted.blocks_cbytes, partial(self._fill, version, entry, request))
        return records

    async def _ask(self, request: ReadRequest, nbytes: int) -> BlockStream:
        """Read upstream; small reads go together where the source can do that."""
        read = getattr(self._source, "read_small", None) if nbytes <= SMALL_NBYTES else None
        return await (read or self._source.read_blocks)(request)

    def _check_answer(self, stream: BlockStream, version: CachedVersion) -> None:
        if (stream.entry.id, stream.entry.version) != (version.id, version.version):
            raise IntegrityError(f"root {self.root!r} answers about another dataset than {version.path!r}")

    async def _segment(
        self,
        version: CachedVersion,
        request: ReadRequest,
        segment: Segment,
        adoption: Adoption | None,
        came: Arrivals,
        looked_up: _LookedUp | None = None,
        reading: AbstractContextManager[None] | None = None,
    ) -> None:
        """Add the records of a segment to ``came``, in the plan's order: as they come, where all are fetched."""
        wanted = segment.wanted()
        if looked_up is None:
            nlanded = self._flights.nlanded
            looked_up = (*await self._run(_read_cached, version, wanted), nlanded)
        found, missing, nlanded = looked_up
        for records in found.values():
            self._counts.note_held(records)
            self._flights.learn(version, records[0])
        if missing and adoption is not None:
            await self._take_over(version, segment, adoption, missing, found)
        while missing:
            flights, own = self._flights.join(version, missing)
            is_all = not flights and not found
            if own:
                fetch = self._fetch(version, request, segment, own, nlanded, came if is_all else None)
                flights.append(self._flights.start(version, own, fetch))
            try:
                with reading or self.fills.reading():
                    for flight in flights:
                        for record in await flight.wait():
                            _take(record, missing, found)
            except NotCachedError:
                raise
            except (SourceUnavailableError, DeadlineError) as error:
                raise _not_cached(version, missing, error) from error
            finally:
                for flight in flights:
                    self._flights.leave(flight)
            if is_all:
                return
        came.add([record for nchunk in wanted for record in found.get(nchunk, ())])

    async def _take_over(
        self,
        version: CachedVersion,
        segment: Segment,
        adoption: Adoption,
        missing: dict[int, Ints],
        found: dict[int, list[BlockRecord]],
    ) -> None:
        """Move what is the same in an older version from ``missing`` to ``found``."""
        await self._reach(adoption, version, segment.stop, missing)
        taken, _ = await self._run(_read_cached, version, dict(missing))
        for records in taken.values():
            self._counts.note_held(records)
            for record in records:
                _take(record, missing, found)

    async def _fetch(
        self,
        version: CachedVersion,
        request: ReadRequest,
        segment: Segment,
        wanted: dict[int, Ints],
        nlanded: int,
        came: Arrivals | None,
    ) -> list[BlockRecord]:
        """Ask upstream for blocks, and keep them.

        Parameters
        ----------
        nlanded : int
            When they were seen to be missing.
        came : Arrivals, optional
            Whoever wants these blocks and no others, and need not wait for the last of them.
        """
        found: dict[int, list[BlockRecord]] = {}
        missing = dict(wanted)
        if self._flights.nlanded != nlanded:
            # Whoever fetched them last put them in the cache before the flight ended.
            found, missing = await self._run(_read_cached, version, wanted)
        at_once = came if not found else None  # what is kept may have its place among what comes
        if missing:
            await self._receive(version, request, segment, missing, found, at_once)
        records = [record for nchunk in wanted for record in found.get(nchunk, ())]
        if came is not None and at_once is None:
            came.add(records)
        return records

    async def _receive(
        self,
        version: CachedVersion,
        request: ReadRequest,
        segment: Segment,
        missing: dict[int, Ints],
        found: dict[int, list[BlockRecord]],
        came: Arrivals | None,
    ) -> None:
        """Move what comes from upstream from ``missing`` to ``found``, and keep it."""
        if len(segment.chunks) <= FEW_CHUNKS:
            narrow = segment.request(version.geometry, request, missing)
        else:
            narrow = await self._run(segment.request, version.geometry, request, missing)
        async with self._slots if segment.cbytes > SMALL_NBYTES else self._small_slots:
            stream = await self._ask(replace(narrow, root=self.root), segment.cbytes)
            fresh: list[BlockRecord] = []
            nbytes = 0
            try:
                self._check_answer(stream, version)
                async for record in stream.records:
                    taken = _take(record, missing, found)
                    if came is not None and taken is not None:
                        came.add([taken])
                    self._flights.learn(version, record)
                    self._counts.note_fetched([record])
                    fresh.append(record)
                    nbytes += len(record.body)
                    if nbytes >= PUT_NBYTES:
                        await self._run(version.put_verified, *fresh)
                        fresh, nbytes = [], 0
            finally:
                await _close(stream.records)
                if fresh:
                    # What has come whole is good, whatever happened after it.
                    await asyncio.shield(self._run(version.put_verified, *fresh))
        if missing:
            raise IntegrityError(
                f"root {self.root!r} did not send all blocks of {version.path!r} that it was asked for"
            )


def _no_data(root: str, entry: Entry) -> UnsupportedDatasetError:
    why = entry.reason or f"it is a {entry.kind}"
    return UnsupportedDatasetError(f"{entry.path!r} in root {root!r} has no data to read: {why}")


def _not_cached(
    version: CachedVersion, missing: Mapping[int, Ints], error: SourceUnavailableError | DeadlineError
) -> NotCachedError:
    nblocks = sum(len(ids) for ids in missing.values())
    return NotCachedError(
        f"{nblocks} of the blocks asked for of {version.root}/{version.path} are not in the cache, "
        f"and its source is away: {error}"
    )


def _read_cached(
    version: CachedVersion, wanted: Mapping[int, Ints]
) -> tuple[dict[int, list[BlockRecord]], dict[int, Ints]]:
    """What is kept of some blocks, and those that are not, by chunk."""
    found: dict[int, list[BlockRecord]] = {}
    missing = dict(wanted)
    for nchunk, ids in wanted.items():
        for record in version.get(nchunk, ids):
            _take(record, missing, found)
    return found, missing


def _take(record: BlockRecord, missing: dict[int, Ints], found: dict[int, list[BlockRecord]]) -> BlockRecord | None:
    """Move what a record has from ``missing`` to ``found``; that part of the record, if it has any."""
    wanted = missing.get(record.nchunk)
    if wanted is None:
        return None
    ids = record.ids
    if record.is_whole or (len(ids) == len(wanted) and bool((ids == wanted).all())):
        del missing[record.nchunk]
    else:
        has = np.isin(wanted, ids)
        if not has.any():
            return None
        record = record.pick(wanted[has].tolist())
        if has.all():
            del missing[record.nchunk]
        else:
            missing[record.nchunk] = wanted[~has]
    found.setdefault(record.nchunk, []).append(record)
    return record


_LookedUp = tuple[dict[int, list[BlockRecord]], dict[int, Ints], int]
"""What was found in the cache, what was missing, and how many flights had landed before it was looked for."""


@dataclass(slots=True)
class _Begun:
    """How a read is answered: by an exact slice, or by blocks, those of the first segment being looked up."""

    entry: Entry
    request: ReadRequest
    version: CachedVersion
    wanted: WantedSlice | None = None
    segments: Segments | None = None
    first: Segment | None = None
    found: dict[int, list[BlockRecord]] = field(default_factory=dict)
    missing: dict[int, Ints] = field(default_factory=dict)


class _CachedRecords:
    """Records of one read, some segments ahead of its consumer."""

    def __init__(self, source: CachedSource, begun: _Begun, adoption: Adoption | None, nlanded: int) -> None:
        assert begun.segments is not None
        self._source, self._version, self._request = source, begun.version, begun.request
        self._segments, self._adoption = begun.segments, adoption
        self._first: tuple[Segment, _LookedUp] | None = None
        if begun.first is not None:
            self._first = begun.first, (begun.found, begun.missing, nlanded)
        self._pending: deque[tuple[asyncio.Task[None], int, Arrivals]] = deque()
        self._ntaken = 0  # records of the first segment
        self._ready: deque[BlockRecord] = deque()
        self._planned = begun.first is None

    def __aiter__(self) -> AsyncIterator[BlockRecord]:
        return self

    async def start(self) -> None:
        """Wait for the first segment: what cannot be answered is told before the answer begins."""
        await self._advance()

    async def __anext__(self) -> BlockRecord:
        while not self._ready:
            if not await self._advance():
                raise StopAsyncIteration
        return self._ready.popleft()

    async def aclose(self) -> None:
        self._planned = True
        self._ready.clear()
        tasks = [task for task, _, _ in self._pending]
        for task in tasks:
            task.cancel()
        while self._pending:
            self._source._ahead_nbytes -= self._pending.popleft()[1]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _advance(self) -> bool:
        await self._fill()
        if not self._pending:
            return False
        task, cbytes, came = self._pending[0]
        try:
            await came.more_than(self._ntaken, task)
            if task.done():
                task.result()
        except BaseException:
            await self.aclose()
            raise
        records = came.records[self._ntaken :]
        self._ntaken += len(records)
        if task.done() and self._pending:
            self._pending.popleft()
            self._source._ahead_nbytes -= cbytes
            self._ntaken = 0
        self._ready.extend(self._segments.learn(records))
        await self._fill()
        return True

    async def _fill(self) -> None:
        source = self._source
        while not self._planned and len(self._pending) < FETCHES:
            if self._pending and source._ahead_nbytes >= AHEAD_NBYTES:
                return
            if self._pending and self._segments.in_chunk and not source._flights.is_cut(self._version):
                return  # a chunk that cannot be cut would come once with each segment
            looked_up: _LookedUp | None = None
            segment: Segment | None
            if self._first is not None:
                (segment, looked_up), self._first = self._first, None
            else:
                segment = await source._run(self._segments.next)
            self._planned = segment is None or self._segments.is_at_end
            if segment is None:
                return
            came = Arrivals()
            task = asyncio.create_task(
                source._segment(self._version, self._request, segment, self._adoption, came, looked_up)
            )
            task.add_done_callback(look_at_error)
            task.add_done_callback(came.tell)
            self._pending.append((task, segment.cbytes, came))
            source._ahead_nbytes += segment.cbytes


async def _close(records: AsyncIterator[BlockRecord]) -> None:
    with suppress(Caterva2Error):
        await close_stream(records)
