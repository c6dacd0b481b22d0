"""Comparing what a source has with digests of what somebody holds of an older version.

It goes over the records that the source reads anyway, and forgets their bytes; what is equal is decided by
``core/revalidation``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Protocol

import numpy as np

from ..core.blocks import BlockRecord
from ..core.chunk_grid import BlockPlan
from ..core.metadata import Entry
from ..core.revalidation import Comparison, SameRecord, runs_of
from ..core.selection import Selection
from ..core.source import BlockStream, ComparedStream
from ..core.wire import ReadRequest
from ..errors import Caterva2Error, IntegrityError, RequestError
from .closing import close_stream

__all__ = ["compare_blocks"]

BATCH_NBYTES = 1 << 20


class _Reads(Protocol):
    async def read_blocks(self, request: ReadRequest) -> BlockStream: ...


async def compare_blocks(source: _Reads, request: ReadRequest, executor: Executor) -> ComparedStream:
    """The answer of a source that can read blocks to a request with ``known``."""
    if request.known is None:
        raise RequestError("this read compares nothing")
    stream = await source.read_blocks(request.of_known())
    if stream.digest:
        raise IntegrityError("a slice came where blocks are to be compared")
    runs: list[list[int]] | None = None
    if request.known.in_runs:
        runs = await asyncio.get_running_loop().run_in_executor(executor, _runs, stream.entry, request)
    return ComparedStream(stream.entry, _Compared(stream.records, Comparison(request.known.digests, runs), executor))


def _runs(entry: Entry, request: ReadRequest) -> list[list[int]]:
    """The chunks that are compared together, as whoever asks has counted them."""
    assert entry.geometry is not None
    assert request.known is not None
    plan = BlockPlan(entry.geometry, Selection.from_json(request.selection, entry.geometry.shape))
    bits, position = request.known.blocks, 0
    counts: list[tuple[int, int]] = []
    for projection in plan.window(*(request.window or (0, plan.nblocks))):
        stop = position + len(projection.blocks)
        counts.append((projection.nchunk, int(np.count_nonzero(bits[position:stop]))))
        position = stop
    return runs_of(counts)


class _Compared:
    """What is said of each chunk, as the blocks of it come."""

    def __init__(self, records: AsyncIterator[BlockRecord], comparison: Comparison, executor: Executor) -> None:
        self._records, self._comparison, self._executor = records, comparison, executor
        self._said: deque[SameRecord] = deque()
        self._ended = False

    def __aiter__(self) -> AsyncIterator[SameRecord]:
        return self

    async def __anext__(self) -> SameRecord:
        while not self._said:
            if self._ended:
                raise StopAsyncIteration
            await self._advance()
        return self._said.popleft()

    async def _advance(self) -> None:
        batch: list[BlockRecord] = []
        nbytes = 0
        while nbytes < BATCH_NBYTES:
            record = await anext(self._records, None)
            if record is None:
                self._ended = True
                break
            batch.append(record)
            nbytes += len(record.body)
        self._said += await asyncio.get_running_loop().run_in_executor(self._executor, self._compare, batch)

    def _compare(self, batch: Iterable[BlockRecord]) -> list[SameRecord]:
        said = self._comparison.add(batch)
        return said + self._comparison.finish() if self._ended else said

    async def aclose(self) -> None:
        self._ended = True
        self._said.clear()
        with suppress(Caterva2Error):
            await close_stream(self._records)
