"""Reductions through a subscriber: asked for once, kept like exact slices, and made here when the source is away.

What is made here is made by a worker process, from blocks that are held. What is asked of whom is ``sources``'.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..compute.records import Buffer, pack_records
from ..compute.reduction import Reduction, next_part
from ..core.blocks import BlockRecord
from ..core.exact_slice import encode_pieces, slice_seed
from ..core.metadata import Entry
from ..core.reduce_request import ReduceRequest, Working
from ..core.source import ReducedStream, Source
from ..errors import DeadlineError, IntegrityError, NotCachedError, SourceUnavailableError
from ..storage.block_cache import CachedVersion
from ..storage.closing import close_stream
from ..web.compute_pool import ComputePool
from .exact_answers import ExactAnswers, WantedSlice, listed
from .flights import Flight, Flights

__all__ = ["CachedReductions"]

WORKING_S = 2.0
REDUCTIONS = 8
"""Reductions that are asked for at once."""

T = TypeVar("T")


class CachedReductions:
    """Answers of one source to reductions.

    Parameters
    ----------
    source : callable
        Gives the source that is asked.
    exact : ExactAnswers
        Where results are kept.
    flights : Flights
        So that a second one who asks waits for the first.
    executor : Executor
    compute : ComputePool or None
        Makes reductions while the source is away; None: they fail then.
    """

    def __init__(
        self,
        source: Callable[[], Source],
        exact: ExactAnswers,
        flights: Flights,
        executor: Executor,
        compute: ComputePool | None = None,
    ) -> None:
        self._source, self._exact, self._flights = source, exact, flights
        self._executor, self._compute = executor, compute
        self._slots = asyncio.Semaphore(REDUCTIONS)
        self._works: dict[tuple[str, str], Working] = {}

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def reduce(self, version: CachedVersion, entry: Entry, request: ReduceRequest) -> ReducedStream:
        """The answer to a reduction of a version (``request`` names it)."""
        reduction = await self._run(Reduction, version.geometry, request)
        digest = reduction.digest
        wanted = WantedSlice(digest, slice_seed(version.seed, digest), reduction.pieces, {}, [])
        kept = await self._run(self._exact.kept, version, wanted) if reduction.nbytes else []
        if kept:
            return ReducedStream(entry, listed(kept), digest)
        flight = self._flights.join_slice(version, digest)
        if flight is None:
            fetch = self._fetch(version, request, reduction, wanted)
            flight = self._flights.start_slice(version, digest, fetch)
        key = (version.key, digest)
        return ReducedStream(entry, _Shared(flight, self._flights, lambda: self._works.get(key, Working(0, 0))), digest)

    async def _fetch(
        self, version: CachedVersion, request: ReduceRequest, reduction: Reduction, wanted: WantedSlice
    ) -> list[BlockRecord]:
        async with self._slots:
            try:
                records = await self._ask(version, request, wanted)
            except (SourceUnavailableError, DeadlineError) as error:
                records = await self._make_here(version, request, reduction, wanted, error)
            finally:
                self._works.pop((version.key, wanted.digest), None)
        if records:
            await self._run(self._exact.keep, version, wanted, records)
        return records

    async def _ask(self, version: CachedVersion, request: ReduceRequest, wanted: WantedSlice) -> list[BlockRecord]:
        stream = await self._source().reduce(request)
        records: list[BlockRecord] = []
        try:
            if (stream.entry.id, stream.entry.version, stream.digest) != (version.id, version.version, wanted.digest):
                raise IntegrityError(f"root {version.root!r} answers another reduction than that of {version.path!r}")
            async for item in stream.records:
                if isinstance(item, Working):
                    self._works[version.key, wanted.digest] = item
                    continue
                records.append(item)
                if len(records) > wanted.pieces.nchunks:
                    break
        finally:
            await close_stream(stream.records)
        return records

    async def _make_here(
        self,
        version: CachedVersion,
        request: ReduceRequest,
        reduction: Reduction,
        wanted: WantedSlice,
        why: SourceUnavailableError | DeadlineError,
    ) -> list[BlockRecord]:
        """The result from the blocks that are held."""
        nmissing = await self._run(_count_missing, version, reduction)
        if nmissing or self._compute is None:
            held = f"{nmissing} of its blocks are not in the cache" if nmissing else "nothing is computed here"
            raise NotCachedError(
                f"{version.root}/{version.path} cannot be reduced: its source is away, and {held}: prefetch() it while "
                f"the source is there ({why})"
            ) from why
        arguments = {"geometry": version.geometry.to_json(), "request": request.to_json()}
        _, (raw,) = await self._compute.run("reduce", arguments, self._parts(version, reduction))
        return await self._run(_encoded, raw, reduction, wanted)

    async def _parts(self, version: CachedVersion, reduction: Reduction) -> AsyncIterator[Sequence[Buffer]]:
        """Held records, tile by tile, in the order of ``Reduction.parts``."""
        parts = reduction.parts()
        part = await self._run(next, parts, None)
        total = reduction.plan.nblocks
        done = 0
        while part is not None:
            tile, _ = part
            records = await self._run(version.get, tile.projection.nchunk, tile.projection.blocks)
            yield pack_records(records)
            done += len(tile.projection.blocks)
            self._works[version.key, reduction.digest] = Working(done, total)
            was_whole = any(record.is_whole for record in records)
            part = await self._run(next_part, parts, was_whole)


def _count_missing(version: CachedVersion, reduction: Reduction) -> int:
    return sum(int(np.count_nonzero(~version.held(p.nchunk, p.blocks))) for p in reduction.plan)


def _encoded(raw: bytes, reduction: Reduction, wanted: WantedSlice) -> list[BlockRecord]:
    values: npt.NDArray[Any] = np.frombuffer(raw, reduction.dtype)
    if values.size != reduction.pieces.size:
        raise IntegrityError("a worker made another result than it was asked for")
    return encode_pieces(wanted.seed, values, reduction.pieces) if values.size else []


class _Shared:
    """The result of a flight, for one of those who wait for it; until it is there, how far it is."""

    def __init__(self, flight: Flight, flights: Flights, working: Callable[[], Working]) -> None:
        self._flight, self._flights, self._working = flight, flights, working
        self._ready: deque[BlockRecord] | None = None
        self._left = False

    def __aiter__(self) -> AsyncIterator[BlockRecord | Working]:
        return self

    async def __anext__(self) -> BlockRecord | Working:
        if self._ready is None:
            done, _ = await asyncio.wait([self._flight.task], timeout=WORKING_S)
            if not done:
                return self._working()
            self._ready = deque(await self._flight.wait())
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def aclose(self) -> None:
        if not self._left:
            self._left = True
            self._ready = deque()
            self._flights.leave(self._flight)
