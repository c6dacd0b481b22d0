"""Which blocks of which chunks a selection touches: the plan of a read, as data.

The order of a plan is normative, both ends of a request count by it: chunks by number, then blocks by
number in their chunk. ``window`` is a run of that order, ``held`` one bit per block of it.
It does not say where blocks are stored, nor who has them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .metadata import Geometry
from .once import once
from .selection import AxisItems, AxisRange, AxisSelection, Selection

__all__ = ["BlockPlan", "ChunkProjection"]

Ints = npt.NDArray[np.int64]

MAX_POSITIONS = 10_000_000
"""Positions along one axis that are looked at all at once."""


@dataclass(frozen=True, slots=True)
class _AxisProjection:
    """What a selection takes from one chunk index along one axis."""

    chunk: int
    local: AxisSelection  # positions inside the chunk
    out: slice  # positions in the box


@dataclass(frozen=True, slots=True)
class ChunkProjection:
    """What a selection takes from one chunk.

    Attributes
    ----------
    nchunk : int
    coords : tuple of int
        Grid position.
    local : tuple of AxisRange or AxisItems
        Per axis, the positions inside the chunk.
    out : tuple of slice
        Per axis, where they go in the box.
    blocks : ndarray of int64
        Numbers of the touched blocks, ascending.
    """

    nchunk: int
    coords: tuple[int, ...]
    local: tuple[AxisSelection, ...]
    out: tuple[slice, ...]
    blocks: Ints


class BlockPlan:
    """The blocks that ``selection`` touches in a dataset of ``geometry``, chunk by chunk.

    Costs nothing per block until it is iterated; an array of 10^6 chunks takes a few MB.

    Examples
    --------
    >>> from .selection import Selection
    >>> g = Geometry((4, 4), (2, 4), (1, 2), np.dtype("i4"))
    >>> plan = BlockPlan(g, Selection.from_json([[1, 2, 1], [0, 3, 1]], g.shape))
    >>> [(p.nchunk, p.blocks.tolist()) for p in plan]
    [(0, [2, 3])]
    """

    def __init__(self, geometry: Geometry, selection: Selection) -> None:
        self.geometry = geometry
        self.selection = selection

    @once
    def _axes(self) -> tuple[_AxisGrid, ...]:
        g = self.geometry
        blocks = g.blocks if g.layout == "nd" else g.chunks
        return tuple(
            _AxisGrid(s, n, c, b) for s, n, c, b in zip(self.selection.axes, g.shape, g.chunks, blocks, strict=True)
        )

    @property
    def nchunks(self) -> int:
        """Number of chunks touched."""
        return math.prod(len(a.chunks) for a in self._axes)

    @once
    def chunk_counts(self) -> Ints:
        """Blocks touched in each touched chunk, in order."""
        if self.geometry.layout == "flat":
            counts, kinds = self._flat_counts
            return counts[np.ix_(*kinds)].ravel() if kinds else counts.ravel()
        counts = np.ones(1, dtype=np.int64)
        for axis in self._axes:
            counts = np.multiply.outer(counts, axis.block_counts).ravel()
        return counts

    @once
    def _flat_counts(self) -> tuple[Ints, list[Ints]]:
        """Blocks touched per kind of chunk, and the kind of each chunk along each axis.

        Chunks that are cut alike along every axis are of one kind: a plan of 10^6 chunks has few.
        """
        g, axes = self.geometry, self._axes
        kinds = [axis.kinds(n, g.padded) for axis, n in zip(axes, g.shape, strict=True)]
        counts = np.empty([len(firsts) for firsts, _ in kinds], dtype=np.int64)
        for index in np.ndindex(counts.shape):
            parts = [axis.project(int(firsts[i])) for axis, (firsts, _), i in zip(axes, kinds, index, strict=True)]
            counts[index] = len(self._blocks(tuple(p.chunk for p in parts), tuple(p.local for p in parts)))
        return counts, [kind for _, kind in kinds]

    @property
    def nblocks(self) -> int:
        """Number of blocks touched."""
        if self.geometry.layout == "nd":
            return math.prod(a.nblocks for a in self._axes)
        counts, kinds = self._flat_counts
        for kind in kinds:
            counts = np.tensordot(np.bincount(kind, minlength=counts.shape[0]), counts, axes=1)
        return int(counts)

    def __iter__(self) -> Iterator[ChunkProjection]:
        return self._projections(0)

    def _projections(self, first: int) -> Iterator[ChunkProjection]:
        """Projections from the ``first``-th touched chunk on."""
        grid = self.geometry.grid
        axes = self._axes
        if not axes:
            yield ChunkProjection(0, (), (), (), np.zeros(1, dtype=np.int64))
            return
        shape = [len(a.chunks) for a in axes]
        if 0 in shape:
            return
        for index in _product_from(shape, first):
            parts = [a.project(i) for a, i in zip(axes, index, strict=True)]
            coords = tuple(p.chunk for p in parts)
            nchunk = 0
            for c, n in zip(coords, grid, strict=True):
                nchunk = nchunk * n + c
            local = tuple(p.local for p in parts)
            yield ChunkProjection(nchunk, coords, local, tuple(p.out for p in parts), self._blocks(coords, local))

    def _blocks(self, coords: tuple[int, ...], local: tuple[AxisSelection, ...]) -> Ints:
        g = self.geometry
        extent = g.chunk_extent(coords)
        if g.layout == "flat":
            return _flat_blocks(extent, local, g.blocks[0])
        number = 0
        for axis, size, block in zip(local, extent, g.blocks, strict=True):
            if not isinstance(axis, AxisRange):
                break
            first = axis.start // block
            if axis.last // block != first:
                break
            number = number * -(-size // block) + first
        else:  # one block, as most small reads touch: arrays would cost more than it does
            return np.array([number], dtype=np.int64)
        blocks = np.zeros(1, dtype=np.int64)
        for axis, size, block in zip(local, extent, g.blocks, strict=True):
            blocks = np.add.outer(blocks * -(-size // block), _touched(axis, block)).ravel()
        return blocks

    def window(self, first: int, stop: int) -> Iterator[ChunkProjection]:
        """The projections of blocks number ``first`` to ``stop`` (exclusive) of the plan's order.

        A chunk that lies across an edge comes with the blocks inside the window only.
        """
        if first >= stop:
            return
        ends = np.cumsum(self.chunk_counts)
        chunk = int(np.searchsorted(ends, first, side="right"))
        position = int(ends[chunk - 1]) if chunk else 0
        for projection in self._projections(chunk):
            count = len(projection.blocks)
            low, high = max(first - position, 0), min(stop - position, count)
            if (low, high) == (0, count):
                yield projection
            elif low < high:
                p = projection
                yield ChunkProjection(p.nchunk, p.coords, p.local, p.out, p.blocks[low:high])
            position += count
            if position >= stop:
                return


class _AxisGrid:
    """A selection along one axis, split at chunk bounds."""

    def __init__(self, selection: AxisSelection, length: int, chunk: int, block: int) -> None:
        self.selection, self.chunk, self.block = selection, chunk, block
        if len(selection) == 0:
            self.chunks: Ints = np.empty(0, dtype=np.int64)
            self._firsts: Ints = self.chunks
        elif isinstance(selection, AxisItems):
            self.chunks, firsts = np.unique(selection.items // chunk, return_index=True)
            self._firsts = firsts.astype(np.int64)
        elif selection.step >= chunk:
            items = np.arange(selection.start, selection.stop, selection.step, dtype=np.int64)
            self.chunks, self._firsts = items // chunk, np.arange(len(items), dtype=np.int64)
            self.chunks, index = np.unique(self.chunks, return_index=True)
            self._firsts = self._firsts[index]
        elif selection.start // chunk == selection.last // chunk:
            self.chunks = np.array([selection.start // chunk], dtype=np.int64)
            self._firsts = np.zeros(1, dtype=np.int64)
        else:
            self.chunks = np.arange(selection.start // chunk, selection.last // chunk + 1, dtype=np.int64)
            # Number of the first selected item at or after each chunk's start.
            self._firsts = np.maximum(0, -((selection.start - self.chunks * chunk) // selection.step))
        self._stops = np.empty_like(self._firsts)
        self._stops[:-1] = self._firsts[1:]
        self._stops[-1:] = len(selection)

    @property
    def nblocks(self) -> int:
        """Blocks touched along this axis, in all chunks."""
        s = self.selection
        if isinstance(s, AxisRange) and s.step <= self.block and len(self.chunks) == 1:
            base = int(self.chunks[0]) * self.chunk
            return (s.last - base) // self.block - (s.start - base) // self.block + 1
        return int(self.block_counts.sum())

    @once
    def block_counts(self) -> Ints:
        """Blocks touched along this axis, per touched chunk."""
        s = self.selection
        if isinstance(s, AxisRange) and s.step <= self.block:
            first = s.start + self._firsts * s.step - self.chunks * self.chunk
            last = s.start + (self._stops - 1) * s.step - self.chunks * self.chunk
            return last // self.block - first // self.block + 1
        if len(s) > MAX_POSITIONS:
            blocks = (_touched(self.project(i).local, self.block) for i in range(len(self.chunks)))
            return np.fromiter((len(b) for b in blocks), np.int64, len(self.chunks))
        items = _positions(s)
        chunk = items // self.chunk
        block = (items - chunk * self.chunk) // self.block
        is_new = np.ones(len(items), np.int64)
        is_new[1:] = (chunk[1:] != chunk[:-1]) | (block[1:] != block[:-1])
        return np.add.reduceat(is_new, self._firsts) if len(items) else is_new

    def kinds(self, length: int, padded: bool) -> tuple[Ints, Ints]:
        """Touched chunks of which the same is taken: the index of the first of each kind, and each chunk's kind."""
        extents = np.full(len(self.chunks), self.chunk) if padded else length - self.chunks * self.chunk
        is_short = extents < self.chunk
        s = self.selection
        if isinstance(s, AxisRange):
            starts = s.start + self._firsts * s.step - self.chunks * self.chunk
            cuts = np.stack([starts, self._stops - self._firsts, is_short], axis=1)
            if self.chunk < 1 << 30:
                cuts = (cuts[:, 0] * (self.chunk + 1) + cuts[:, 1]) * 2 + cuts[:, 2]
            _, firsts, kinds = np.unique(cuts, axis=0, return_index=True, return_inverse=True)
            return firsts.astype(np.int64), kinds.reshape(-1).astype(np.int64)
        local = s.items - np.repeat(self.chunks * self.chunk, self._stops - self._firsts)
        known: dict[tuple[bytes, bool], int] = {}
        found: list[int] = []
        kinds = np.empty(len(self.chunks), np.int64)
        for i, (first, stop) in enumerate(zip(self._firsts.tolist(), self._stops.tolist(), strict=True)):
            kinds[i] = known.setdefault((local[first:stop].tobytes(), bool(is_short[i])), len(known))
            if len(found) < len(known):
                found.append(i)
        return np.array(found, dtype=np.int64), kinds

    def project(self, index: int) -> _AxisProjection:
        chunk = int(self.chunks[index])
        first, stop = int(self._firsts[index]), int(self._stops[index])
        base = chunk * self.chunk
        s = self.selection
        if isinstance(s, AxisItems):
            local: AxisSelection = AxisItems(s.items[first:stop] - base)
        else:
            start = s.start + first * s.step - base
            local = AxisRange(start, start + (stop - first - 1) * s.step + 1, s.step)
        return _AxisProjection(chunk, local, slice(first, stop))


def _touched(axis: AxisSelection, block: int) -> Ints:
    """Numbers of the blocks, along one axis of a chunk, that hold a selected item."""
    if isinstance(axis, AxisItems):
        return np.unique(axis.items // block)
    if axis.step <= block:
        return np.arange(axis.start // block, axis.last // block + 1, dtype=np.int64)
    return np.arange(axis.start, axis.stop, axis.step, dtype=np.int64) // block


def _flat_blocks(extent: tuple[int, ...], local: tuple[AxisSelection, ...], block: int) -> Ints:
    """Numbers of the runs of ``block`` items, in C order, that hold a selected item."""
    nblocks = -(-math.prod(extent) // block)
    if all(isinstance(a, AxisRange) and len(a) == n for a, n in zip(local, extent, strict=True)):
        return np.arange(nblocks, dtype=np.int64)
    # Trailing axes that are taken whole are one run; the axis before them spans first to last
    # when it is dense, and every other selected position starts a run of its own.
    inner, axis = 1, len(extent)
    while axis and isinstance(a := local[axis - 1], AxisRange) and len(a) == extent[axis - 1]:
        axis -= 1
        inner *= extent[axis]
    starts: Ints = np.zeros(1, dtype=np.int64)
    for i in range(axis - 1):
        starts = np.add.outer(starts * extent[i], _positions(local[i])).ravel()
    a = local[axis - 1]
    length = extent[axis - 1]
    if isinstance(a, AxisRange) and a.step * inner <= block:
        lows = starts * (length * inner) + a.start * inner
        highs = starts * (length * inner) + (a.last + 1) * inner - 1
    else:
        lows = np.add.outer(starts * (length * inner), _positions(a) * inner).ravel()
        highs = lows + inner - 1
    # Mark with a difference array: + at the first block of a run, - after its last.
    marks = np.zeros(nblocks + 1, dtype=np.int64)
    np.add.at(marks, lows // block, 1)
    np.add.at(marks, highs // block + 1, -1)
    return np.flatnonzero(np.cumsum(marks[:-1])).astype(np.int64)


def _positions(axis: AxisSelection) -> Ints:
    if isinstance(axis, AxisItems):
        return axis.items
    return np.arange(axis.start, axis.stop, axis.step, dtype=np.int64)


def _product_from(shape: Sequence[int], first: int) -> Iterator[tuple[int, ...]]:
    """``itertools.product`` of ranges, from the ``first``-th tuple on, without passing the others."""
    if first == 0:
        yield from itertools.product(*map(range, shape))
        return
    if first >= math.prod(shape):
        return
    index = [int(i) for i in np.unravel_index(first, shape)]
    while True:
        yield tuple(index)
        axis = len(shape) - 1
        while axis >= 0 and index[axis] == shape[axis] - 1:
            index[axis] = 0
            axis -= 1
        if axis < 0:
            return
        index[axis] += 1
