"""Reductions over the files of a root, in threads: chunk after chunk, a few at a time, merged in order.

Memory is bounded by the result, a few tiles and the partial results of a few chunks; between two tiles other reads
get their turn. What is computed is ``compute/reduction``'s business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..compute.reduction import TILE_NBYTES, Partial, Reduction, Tile
from ..core.assembly import Assembler
from ..core.blocks import BlockRecord, checksum_seed
from ..core.chunk_grid import ChunkProjection
from ..core.exact_slice import encode_pieces, slice_seed
from ..core.metadata import Entry
from ..core.reduce_request import Working
from .root import ReadChunk, Root

__all__ = ["REDUCTIONS_AT_ONCE", "WORKING_S", "reduce_stored", "while_made"]

REDUCTIONS_AT_ONCE = 2
"""Reductions that are computed at the same time; others wait."""
WORKING_S = 2.0
"""Seconds between words that it is still being worked on: less than any deadline on progress."""
CHUNKS_AT_ONCE = 2
MAX_CHUNKS_PER_BATCH = 64
BATCHES_PLANNED = 16

Array = npt.NDArray[Any]
T = TypeVar("T")


def reduce_stored(
    files: Root, entry: Entry, reduction: Reduction, executor: Executor, turn: asyncio.Semaphore, fast: bool = False
) -> AsyncIterator[BlockRecord | Working]:
    """The pieces of the result; before them, now and then, how far it is. Close it to stop the work.

    Raises
    ------
    DatasetChangedError, IntegrityError
    """
    return _Reducing(_Work(files, entry, reduction, executor, fast), turn)


async def while_made(
    make: Callable[[], Coroutine[Any, Any, list[BlockRecord]]], working: Callable[[], Working]
) -> AsyncIterator[BlockRecord | Working]:
    """The pieces of a result that is made elsewhere; before them, now and then, how far it is. Close it to stop."""
    task = asyncio.create_task(make())
    try:
        while not (await asyncio.wait([task], timeout=WORKING_S))[0]:
            yield working()
        for record in task.result():
            yield record
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at


class _Reducing:
    """The stream: a task that works, and says so while it does."""

    def __init__(self, work: _Work, turn: asyncio.Semaphore) -> None:
        self._work, self._turn = work, turn
        self._task: asyncio.Task[list[BlockRecord]] | None = None
        self._ready: deque[BlockRecord] | None = None

    def __aiter__(self) -> AsyncIterator[BlockRecord | Working]:
        return self

    async def __anext__(self) -> BlockRecord | Working:
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        if self._ready is None:
            done, _ = await asyncio.wait([self._task], timeout=WORKING_S)
            if not done:
                return Working(self._work.done, self._work.total)
            self._ready = deque(self._task.result())
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def _run(self) -> list[BlockRecord]:
        async with self._turn:
            return await self._work.run()

    async def aclose(self) -> None:
        self._ready = deque()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._task is not None and not self._task.cancelled():
            self._task.exception()  # looked at


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one chunk, or some small ones, are; ``tiles`` of a chunk that is large."""

    projections: list[ChunkProjection]
    is_large: bool


class _Work:
    """One reduction."""

    def __init__(self, files: Root, entry: Entry, reduction: Reduction, executor: Executor, fast: bool) -> None:
        self._files, self._entry, self._reduction = files, entry, reduction
        self._executor, self._fast = executor, fast
        self._plan = reduction.plan
        self.done, self.total = 0, self._plan.nblocks

    async def _call(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def run(self) -> list[BlockRecord]:
        reduction = self._reduction
        if not reduction.selection.size:
            values = await self._call(reduction.of_nothing)
        elif reduction.taken is not None:
            values = await self._take()
        else:
            state = await self._call(reduction.begin)
            async for partials in self._in_order():
                await self._call(reduction.add, state, partials)
            values = await self._call(lambda: reduction.finish(state=state))
        return await self._call(self._encode, values)

    def _encode(self, values: Array) -> list[BlockRecord]:
        if not values.size:
            return []
        seed = slice_seed(checksum_seed(self._entry.id, self._entry.version), self._reduction.digest)
        return encode_pieces(seed, values, self._reduction.pieces, self._fast)

    async def _in_order(self) -> AsyncIterator[list[Partial]]:
        """Partial results of batches, a few being made at a time."""
        batches = _batches(iter(self._plan), self._reduction)
        planned: deque[_Batch] = deque()
        pending: deque[asyncio.Task[list[Partial]]] = deque()
        ended = False
        try:
            while True:
                while len(pending) < CHUNKS_AT_ONCE:
                    if not planned and not ended:
                        planned.extend(await self._call(list, islice(batches, BATCHES_PLANNED)))
                        ended = len(planned) < BATCHES_PLANNED
                    if not planned:
                        break
                    pending.append(asyncio.create_task(self._batch(planned.popleft())))
                if not pending:
                    return
                yield await pending[0]
                pending.popleft()
        finally:
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)
                for task in pending:
                    if not task.cancelled():
                        task.exception()

    async def _batch(self, batch: _Batch) -> list[Partial]:
        if not batch.is_large:
            partials = await self._call(self._small_chunks, batch.projections)
            self.done += sum(len(p.blocks) for p in batch.projections)
            return partials
        (projection,) = batch.projections
        made: list[Partial] = []
        tiles = await self._call(lambda: deque(self._reduction.tiles(projection)))
        while tiles:
            tile = tiles.popleft()
            partial, was_whole = await self._call(self._tile, tile, projection)
            if was_whole:
                # A chunk that cannot be cut came complete: all of it was reduced.
                self.done += len(projection.blocks)
                return [partial]
            made = await self._call(self._reduction.merge, [*made, partial])
            self.done += len(tile.projection.blocks)
        return made

    def _small_chunks(self, projections: list[ChunkProjection]) -> list[Partial]:
        partials: list[Partial] = []
        with self._files.reading(self._entry) as read_chunk:
            for projection in projections:
                tile = self._reduction.whole_chunk(projection)
                records = read_chunk(tile.projection, tile.projection.blocks.tolist())
                partials.append(self._reduce(tile, records))
        return self._reduction.merge(partials)

    def _tile(self, tile: Tile, projection: ChunkProjection) -> tuple[Partial, bool]:
        with self._files.reading(self._entry) as read_chunk:
            records = read_chunk(tile.projection, tile.projection.blocks.tolist())
        was_whole = any(record.is_whole for record in records)
        return self._reduce(self._reduction.whole_chunk(projection) if was_whole else tile, records), was_whole

    def _reduce(self, tile: Tile, records: list[BlockRecord]) -> Partial:
        assembler = Assembler(self._reduction.geometry, tile.selection)
        for record in records:
            assembler.add(tile.projection, _wanted(record, tile.projection))
        return self._reduction.partial(assembler.out, tile.start)

    async def _take(self) -> Array:
        """What is given as it is stored: the first item of each bin."""
        reduction = self._reduction
        taken = reduction.taken
        assert taken is not None
        assembler = Assembler(reduction.geometry, taken)
        projections = iter(self._plan)
        block_nbytes = max(reduction.geometry.block_nbytes, 1)
        while some := await self._call(_next_projections, projections, block_nbytes):
            await self._call(self._place, some, assembler)
            self.done += sum(len(p.blocks) for p in some)
        return reduction.items(assembler.out)

    def _place(self, projections: list[ChunkProjection], assembler: Assembler) -> None:
        with self._files.reading(self._entry) as read_chunk:
            for projection in projections:
                _place_chunk(read_chunk, projection, assembler)


def _place_chunk(read_chunk: ReadChunk, projection: ChunkProjection, assembler: Assembler) -> None:
    """Read what is wanted of a chunk into its place, some blocks at a time."""
    most = max(1, 4 * TILE_NBYTES // max(assembler.geometry.block_nbytes, 1))
    blocks = projection.blocks
    for first in range(0, len(blocks), most):
        for record in read_chunk(projection, blocks[first : first + most].tolist()):
            assembler.add(projection, _wanted(record, projection))
            if record.is_whole:
                return


def _wanted(record: BlockRecord, projection: ChunkProjection) -> BlockRecord:
    """Of a record that has more blocks than were asked for, those that were."""
    if record.is_whole or len(record.ids) <= len(projection.blocks):
        return record
    ids = np.intersect1d(record.ids.astype(np.int64), projection.blocks, assume_unique=True)
    return record.pick(ids.tolist()) if 0 < len(ids) < len(record.ids) else record


def _batches(projections: Iterator[ChunkProjection], reduction: Reduction) -> Iterator[_Batch]:
    block_nbytes = max(reduction.geometry.block_nbytes, 1)
    group: list[ChunkProjection] = []
    nbytes = 0
    for projection in projections:
        size = len(projection.blocks) * block_nbytes
        if group and (nbytes + size > TILE_NBYTES or len(group) >= MAX_CHUNKS_PER_BATCH):
            yield _Batch(group, is_large=False)
            group, nbytes = [], 0
        if size > TILE_NBYTES:
            yield _Batch([projection], is_large=True)
        else:
            group.append(projection)
            nbytes += size
    if group:
        yield _Batch(group, is_large=False)


def _next_projections(projections: Iterator[ChunkProjection], block_nbytes: int) -> list[ChunkProjection]:
    some: list[ChunkProjection] = []
    nbytes = 0
    for projection in projections:
        some.append(projection)
        nbytes += len(projection.blocks) * block_nbytes
        if nbytes >= TILE_NBYTES or len(some) >= MAX_CHUNKS_PER_BATCH:
            break
    return some
