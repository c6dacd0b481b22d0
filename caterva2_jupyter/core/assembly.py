"""Where decoded blocks go in the result.

``Assembler`` owns the output array and takes records in any order, from any thread as long as two do
not hold the same block. It fetches nothing and checks no checksum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError
from .blocks import BlockRecord
from .box_placing import find_box
from .chunk_grid import ChunkProjection
from .codec import decode_record, decode_runs, decode_strings, even_runs
from .dtypes import is_vlen
from .metadata import Geometry
from .selection import AxisItems, AxisRange, AxisSelection, Selection

__all__ = ["Assembler", "local_index", "take_flat"]

RUN_NBYTES = 512 << 10  # half of a core's second-level cache: decoded blocks are copied from it
SMALL_BLOCK_NBYTES = 16 << 10  # below it, a call per block costs more than joining blocks first


class Assembler:
    """Builds the box of a selection from block records.

    Parameters
    ----------
    geometry : Geometry
    selection : Selection

    Attributes
    ----------
    out : ndarray, shape ``selection.shape``, dtype of the dataset
        The box; what no record covered is undefined until ``missing`` is empty.
    """

    def __init__(self, geometry: Geometry, selection: Selection) -> None:
        self.geometry = geometry
        dtype = np.dtype(object) if is_vlen(geometry.dtype) else geometry.dtype
        self.out: npt.NDArray[Any] = np.empty(selection.shape, dtype)
        self._spare: list[npt.NDArray[np.uint8]] = []  # memory for decoded blocks, one per thread that is at it

    def add(self, projection: ChunkProjection, record: BlockRecord) -> None:
        """Place the blocks of ``record`` that the projection of its chunk wants.

        Raises
        ------
        IntegrityError
            When the record does not fit or does not decode.
        """
        g = self.geometry
        if record.nchunk != projection.nchunk:
            raise IntegrityError(f"record of chunk {record.nchunk} in place of chunk {projection.nchunk}")
        if len(record.ids) == 0:
            raise IntegrityError(f"a record of chunk {record.nchunk} with no blocks")
        place: Any = (*projection.out, ...)  # a view also where it is one item
        target = self.out[place]
        if is_vlen(g.dtype):
            extent = g.chunk_extent(projection.coords)
            strings = decode_strings(decode_record(record, g), math.prod(extent)).reshape(extent)
            target[...] = strings[local_index(projection.local)]
        elif record.is_whole or g.layout == "flat" or not g.padded or g.ndim == 0 or g.itemsize == 0:
            if record.is_whole or not self._decode_line(target, projection, record):
                ids = np.arange(g.chunk_nblocks(record.nchunk)) if record.is_whole else record.ids.astype(np.int64)
                self.place(projection, ids, decode_record(record, g))
        else:
            self._decode_in_place(target, projection, record)

    def place(self, projection: ChunkProjection, ids: npt.NDArray[np.int64], raw: npt.NDArray[np.uint8]) -> None:
        """Place decoded blocks.

        Parameters
        ----------
        projection : ChunkProjection
            Of their chunk.
        ids : ndarray of int64
            Block numbers, ascending.
        raw : ndarray of uint8
            What ``codec.decode_record`` gives for them.
        """
        g, p = self.geometry, projection
        place: Any = (*p.out, ...)
        target = self.out[place]
        items = raw.view(g.dtype) if g.itemsize else np.zeros(len(raw), g.dtype)
        if g.ndim == 0:
            target[...] = items[0]
        elif g.layout == "flat" or not g.padded:  # a 1-d frame ends in a short block, as the flat layout does
            take_flat(target, g.chunk_extent(p.coords), p.local, ids, items, g.blocks[0], p.blocks)
        else:
            coords = np.unravel_index(ids, g.block_grid)
            per_axis = [np.unique(c) for c in coords]
            if math.prod(len(c) for c in per_axis) == len(ids):
                _copy(target, _join(items, [len(c) for c in per_axis], g.blocks), p.local, per_axis, g.blocks)
            else:
                _place_each(target, items.reshape(len(ids), *g.blocks), p.local, ids, g.block_grid, g.blocks)

    def place_blocks(
        self, projection: ChunkProjection, ids: npt.NDArray[np.int64], blocks: Sequence[npt.NDArray[np.uint8]]
    ) -> None:
        """Place blocks that were decoded one by one; see ``place``."""
        g, p = self.geometry, projection
        few = len(blocks) <= 4 or g.block_nbytes >= SMALL_BLOCK_NBYTES
        if few and g.layout == "nd" and g.padded and g.ndim and _all_ranges(p.local):
            place: Any = (*p.out, ...)
            items = [block.view(g.dtype).reshape(g.blocks) for block in blocks]
            _place_each(self.out[place], items, p.local, ids, g.block_grid, g.blocks)
        else:
            self.place(p, ids, blocks[0] if len(blocks) == 1 else np.concatenate(blocks))

    def _decode_line(self, target: npt.NDArray[Any], p: ChunkProjection, record: BlockRecord) -> bool:
        """Decode consecutive runs of items straight into ``target`` when it is their whole chunk in C order."""
        ids, size = record.ids, self.geometry.block_nbytes
        if (
            size == 0
            or target.shape != self.geometry.chunk_extent(p.coords)
            or not target.flags.c_contiguous
            or int(ids[-1]) - int(ids[0]) + 1 != len(ids)
        ):
            return False
        line = target.reshape(-1).view(np.uint8)
        low = int(ids[0])

        def memory(first: int, stop: int) -> npt.NDArray[np.uint8]:
            return line[(low + first) * size : (low + stop) * size]

        ends = even_runs(len(ids), max(1, RUN_NBYTES // size))
        for first, stop, raw in decode_runs(record, self.geometry, ends, memory):
            if not np.may_share_memory(raw, goal := memory(first, stop)):
                goal[:] = raw
        return True

    def _decode_in_place(self, target: npt.NDArray[Any], p: ChunkProjection, record: BlockRecord) -> None:
        """Decode blocks of the padded layout some at a time, straight to where they belong if they lie there so."""
        g = self.geometry
        grid, blocks = g.block_grid, g.blocks
        if int(record.ids[-1]) >= math.prod(grid):
            raise IntegrityError(f"record of chunk {record.nchunk} has impossible block numbers")
        run_blocks = max(1, RUN_NBYTES // g.block_nbytes)
        per_axis: list[npt.NDArray[np.int64]] = []
        row = 0
        found = find_box(p.local, grid, blocks, record.ids, p.blocks) if len(record.ids) > 1 else None
        if found is not None:
            box, offset = found
            ends = [end - offset for end in box.split(offset, offset + len(record.ids), run_blocks)]
        elif g.block_nbytes < SMALL_BLOCK_NBYTES or not _all_ranges(p.local):
            if len(record.ids) == math.prod(grid):
                per_axis = [np.arange(n, dtype=np.int64) for n in grid]
            else:
                coords = np.unravel_index(record.ids.astype(np.int64), grid)
                per_axis = [np.unique(c) for c in coords]
            if math.prod(len(c) for c in per_axis) == len(record.ids):  # a box, decoded in rows along its first axis
                row = math.prod(len(c) for c in per_axis[1:])
                run_blocks = max(1, run_blocks // row) * row
        if found is None:
            ends = even_runs(len(record.ids), run_blocks)
        placed = False
        most = max(stop - first for first, stop in zip([0, *ends], ends, strict=False))
        scratch = self._scratch(most * g.block_nbytes)

        def memory(first: int, stop: int) -> npt.NDArray[np.uint8]:
            nonlocal placed
            straight = _straight(target, p.local, record.ids[first:stop], grid, blocks)
            placed = straight is not None
            return scratch if straight is None else straight

        for first, stop, raw in decode_runs(record, g, ends, memory):
            if placed:
                straight = memory(first, stop)
                if not np.may_share_memory(raw, straight):
                    straight[:] = raw
            elif found is not None:
                box.part(offset + first, offset + stop).place(target, raw.view(g.dtype), p.local, blocks)
            elif row:
                rows = per_axis[0][first // row : stop // row]
                region = _join(raw.view(g.dtype), [len(rows), *map(len, per_axis[1:])], blocks)
                _copy(target, region, p.local, [rows, *per_axis[1:]], blocks)
            else:
                items = raw.view(g.dtype).reshape(stop - first, *blocks)
                _place_each(target, items, p.local, record.ids[first:stop], grid, blocks)
        self._spare.append(scratch)

    def _scratch(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Memory for decoded blocks, which no other thread has."""
        try:
            memory = self._spare.pop()  # a list gives an item to one thread only
        except IndexError:
            memory = np.empty(0, np.uint8)
        return memory if len(memory) >= nbytes else np.empty(nbytes, np.uint8)


def _all_ranges(local: tuple[AxisSelection, ...]) -> bool:
    return all(isinstance(axis, AxisRange) for axis in local)


def _straight(
    target: npt.NDArray[Any],
    local: tuple[AxisSelection, ...],
    ids: npt.NDArray[np.integer[Any]],
    grid: tuple[int, ...],
    blocks: tuple[int, ...],
) -> npt.NDArray[np.uint8] | None:
    """The bytes of ``target`` that are what these blocks decode to, one after another; None if there are none."""
    column, low, high = math.prod(grid[1:]), int(ids[0]), int(ids[-1])
    count = (high - low) // column + 1
    if (high - low) % column or count != len(ids):
        return None  # not one on another along the first axis
    goal: list[slice] = []
    for axis, position, block in zip(local, _position(low, grid), blocks, strict=True):
        base, length = position * block, block if goal else count * block
        if (
            not isinstance(axis, AxisRange)
            or (axis.step != 1 and length > 1)
            or axis.start > base
            or axis.stop < base + length
            or (base - axis.start) % axis.step
        ):
            return None
        start = (base - axis.start) // axis.step
        goal.append(slice(start, start + length))
    region = target[tuple(goal)]
    return region.reshape(-1).view(np.uint8) if region.flags.c_contiguous else None


def _position(block: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Grid position of a block in its chunk (NumPy's function costs more than a small block does)."""
    position: list[int] = []
    for n in reversed(grid):
        block, index = divmod(block, n)
        position.append(index)
    return tuple(reversed(position))


def _place_each(
    target: npt.NDArray[Any],
    items: Sequence[npt.NDArray[Any]] | npt.NDArray[Any],
    local: tuple[AxisSelection, ...],
    ids: npt.NDArray[np.integer[Any]],
    grid: tuple[int, ...],
    blocks: tuple[int, ...],
) -> None:
    """Place blocks one by one."""
    if not _all_ranges(local):
        for i, block in enumerate(items):
            coords = np.unravel_index(ids[i : i + 1], grid)
            _copy(target, block, local, list(coords), blocks)
        return
    places = [_Places(a, b) for a, b in zip(local, blocks, strict=True) if isinstance(a, AxisRange)]
    for block, number in zip(items, ids.tolist(), strict=True):
        found = [along[c] for along, c in zip(places, _position(number, grid), strict=True)]
        target[tuple([goal for _, goal in found])] = block[tuple([source for source, _ in found])]


class _Places(dict[int, tuple[slice, slice]]):
    """By a block's position along an axis: what is selected of it, and where in the box that goes."""

    def __init__(self, axis: AxisRange, block: int) -> None:
        super().__init__()
        self._axis, self._block = axis, block

    def __missing__(self, position: int) -> tuple[slice, slice]:
        axis, base = self._axis, position * self._block
        first = max(0, -((axis.start - base) // axis.step))
        start = axis.start + first * axis.step
        count = max(0, -(-(min(axis.stop, base + self._block) - start) // axis.step))
        start -= base
        place = slice(start, start + (count - 1) * axis.step + 1, axis.step), slice(first, first + count)
        if count == 0:
            place = slice(0), slice(0)
        self[position] = place
        return place


def _join(items: npt.NDArray[Any], counts: list[int], blocks: tuple[int, ...]) -> npt.NDArray[Any]:
    """Block-major items as one region, its axes interleaved (a view where one block wide)."""
    ndim = len(blocks)
    split = items.reshape(*counts, *blocks)
    order = [axis for i in range(ndim) for axis in (i, ndim + i)]
    return split.transpose(order).reshape([n * b for n, b in zip(counts, blocks, strict=True)])


def _copy(
    target: npt.NDArray[Any],
    region: npt.NDArray[Any],
    local: tuple[AxisSelection, ...],
    per_axis: list[npt.NDArray[np.int64]],
    blocks: tuple[int, ...],
) -> None:
    """Copy what is selected, and lies in a region of the blocks ``per_axis``, to its place."""
    source: list[Any] = []
    goal: list[Any] = []
    for axis, present, block in zip(local, per_axis, blocks, strict=True):
        if isinstance(axis, AxisRange) and len(present) == int(present[-1]) - int(present[0]) + 1:
            base = int(present[0]) * block
            end = base + len(present) * block
            first = max(0, -((axis.start - base) // axis.step)) if axis.start < base else 0
            start = axis.start + first * axis.step
            count = max(0, -(-(min(axis.stop, end) - start) // axis.step))
            if count == 0:
                return
            source.append(slice(start - base, start - base + (count - 1) * axis.step + 1, axis.step))
            goal.append(slice(first, first + count))
            continue
        positions = axis.items if isinstance(axis, AxisItems) else np.arange(axis.start, axis.stop, axis.step)
        slot = np.searchsorted(present, positions // block)
        slot = np.minimum(slot, len(present) - 1)
        here = np.flatnonzero(present[slot] == positions // block)
        if len(here) == 0:
            return
        source.append(slot[here] * block + positions[here] % block)
        goal.append(slice(int(here[0]), int(here[-1]) + 1) if len(here) == here[-1] - here[0] + 1 else here)
    if all(isinstance(g, slice) for g in goal):
        target[tuple(goal)] = _orthogonal(region, source)
    else:
        lists = [np.arange(n)[g] if isinstance(g, slice) else g for g, n in zip(goal, target.shape, strict=True)]
        target[np.ix_(*lists)] = _orthogonal(region, source)


def _orthogonal(array: npt.NDArray[Any], index: list[Any]) -> npt.NDArray[Any]:
    for axis, key in enumerate(index):
        array = array[(*[slice(None)] * axis, key)]
    return array


def local_index(local: tuple[AxisSelection, ...]) -> Any:
    """A NumPy key that selects a projection's items from a whole decoded chunk."""
    if all(isinstance(a, AxisRange) for a in local):
        return tuple(slice(a.start, a.stop, a.step) for a in local if isinstance(a, AxisRange))
    return np.ix_(*[a.items if isinstance(a, AxisItems) else np.arange(a.start, a.stop, a.step) for a in local])


def take_flat(
    target: npt.NDArray[Any],
    extent: tuple[int, ...],
    local: tuple[AxisSelection, ...],
    ids: npt.NDArray[np.int64],
    items: npt.NDArray[Any],
    block: int,
    wanted: npt.NDArray[np.int64],
) -> None:
    """Place runs of ``block`` items (C order of a chunk of shape ``extent``) in ``target``."""
    size = math.prod(extent)
    if len(ids) * block >= size and len(ids) == -(-size // block):
        target[...] = items.reshape(extent)[local_index(local)]
        return
    # The pages of a chunk-sized buffer that nothing is written to are never allocated by the system.
    chunk = np.empty(size, items.dtype)
    known = np.zeros(-(-size // block), dtype=bool)
    position = 0
    for i in ids.tolist():
        count = min(block, size - i * block)
        chunk[i * block : i * block + count] = items[position : position + count]
        known[i] = True
        position += count
    if bool(np.all(known[wanted])):
        target[...] = chunk.reshape(extent)[local_index(local)]
        return
    # A record with only some of the wanted blocks: place only the items that it has.
    mask = np.repeat(known, block)[:size].reshape(extent)[local_index(local)]
    target[mask] = chunk.reshape(extent)[local_index(local)][mask]
