"""A source over files that were uploaded: what has to be decoded for an answer is decoded by worker processes.

Blocks pass as they are stored, so most answers decode nothing. Exact slices, reductions and the bytes of packed files
are made from the same blocks in a process that may die of them; this one only reads files and encodes results.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compute.records import Buffer, pack_records
from ..compute.reduction import Reduction, Tile, next_part
from ..core.blocks import BlockRecord, checksum_seed
from ..core.exact_slice import encode_pieces, slice_seed
from ..core.metadata import Entry
from ..core.reduce_request import ReduceRequest, Working
from ..core.selection import AxisRange, Selection
from ..core.source import FileStream
from ..core.wire import ReadRequest
from ..errors import IntegrityError
from ..storage.plain_file import PART_NBYTES
from ..storage.reducing import while_made
from ..storage.threaded_source import ThreadedSource, _Planned
from ..web.compute_pool import ComputePool
from ..web.packed_records import box_arguments, packed_parts

__all__ = ["PooledSource"]

_UNPACKED_NBYTES = 4 << 20

Array = npt.NDArray[Any]


class PooledSource(ThreadedSource):
    """See the module; ``compute`` has to be set before anything is decoded."""

    compute: ComputePool

    async def _box(self, planned: _Planned) -> Array:
        geometry, selection = planned.plan.geometry, planned.plan.selection
        stream = self._stored(planned)
        _, (raw,) = await self.compute.run("box", box_arguments(stream, selection), packed_parts(stream))
        if len(raw) != selection.size * geometry.itemsize:
            raise IntegrityError("a worker made another slice than it was asked for")
        if not raw:
            return np.zeros(selection.shape, geometry.dtype)
        return np.frombuffer(raw, geometry.dtype).reshape(selection.shape)

    async def unpacked(self, entry: Entry, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes in a file of bytes, from ``start`` to ``stop``, some at a time."""
        itemsize = max(entry.geometry.itemsize, 1) if entry.geometry is not None else 1
        while start < stop:
            end = min(stop, start + _UNPACKED_NBYTES)
            first, last = start // itemsize, -(-end // itemsize)
            wanted = Selection((AxisRange(first, last),)).to_json()
            request = ReadRequest(self.root, entry.path, entry.version, wanted, mode="blocks")
            planned = await self._run(self._plan, request)
            raw = memoryview((await self._box(planned)).tobytes())[start - first * itemsize : end - first * itemsize]
            for position in range(0, len(raw), PART_NBYTES):
                yield bytes(raw[position : position + PART_NBYTES])
            start = end

    def unpacked_stream(self, entry: Entry, start: int, stop: int | None) -> FileStream:
        """The same as what ``read_file`` answers."""
        nbytes = entry.geometry.nbytes if entry.geometry is not None else 0
        stop = nbytes if stop is None else min(stop, nbytes)
        return FileStream(nbytes, entry.version, entry.mtime_ns, self.unpacked(entry, start, stop))

    # Reductions

    def _reduced(
        self, entry: Entry, reduction: Reduction, request: ReduceRequest
    ) -> AsyncIterator[BlockRecord | Working]:
        working = Working(0, reduction.plan.nblocks)

        async def tiles() -> AsyncIterator[Sequence[Buffer]]:
            nonlocal working
            parts = reduction.parts()
            part = await self._run(next, parts, None)
            while part is not None:
                tile, _ = part
                records = await self._run(self._tile, entry, tile)
                yield pack_records(records)
                working = Working(working.done + len(tile.projection.blocks), working.total)
                part = await self._run(next_part, parts, any(record.is_whole for record in records))

        return while_made(lambda: self._reduce_there(entry, reduction, request, tiles()), lambda: working)

    async def _reduce_there(
        self, entry: Entry, reduction: Reduction, request: ReduceRequest, tiles: AsyncIterator[Sequence[Buffer]]
    ) -> list[BlockRecord]:
        async with self._reducing:
            if not reduction.selection.size:
                values: Array = await self._run(reduction.of_nothing)
            else:
                arguments = {"geometry": reduction.geometry.to_json(), "request": request.to_json()}
                _, (raw,) = await self.compute.run("reduce", arguments, tiles)
                values = np.frombuffer(raw, reduction.dtype) if raw else np.zeros(0, reduction.dtype)
                if values.size != reduction.pieces.size:
                    raise IntegrityError("a worker made another result than it was asked for")
        if not values.size:
            return []
        seed = slice_seed(checksum_seed(entry.id, entry.version), reduction.digest)
        return await self._run(encode_pieces, seed, values.reshape(reduction.pieces.shape), reduction.pieces)

    def _tile(self, entry: Entry, tile: Tile) -> list[BlockRecord]:
        blocks = tile.projection.blocks
        picked: list[BlockRecord] = []
        with self._files.reading(entry) as read_chunk:
            for record in read_chunk(tile.projection, blocks.tolist()):
                if record.is_whole:
                    return [record]
                ids = np.intersect1d(record.ids.astype(np.int64), blocks, assume_unique=True)
                picked.append(record.pick(ids.tolist()) if 0 < len(ids) < len(record.ids) else record)
        return picked
