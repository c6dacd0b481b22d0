"""Where decoded blocks go in the result.

``Assembler`` owns the output array and takes records in any order, from any thread as long as two do
not hold the same block. It fetches nothing and checks no checksum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError
from .blocks import BlockRecord
from .chunk_grid import ChunkProjection
from .codec import decode_record, decode_strings
from .dtypes import is_vlen
from .metadata import Geometry
from .selection import AxisItems, AxisRange, AxisSelection, Selection

__all__ = ["Assembler", "local_index", "take_flat"]


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
        raw = decode_record(record, g)
        place: Any = (*projection.out, ...)
        target = self.out[place]
        if is_vlen(g.dtype):
            extent = g.chunk_extent(projection.coords)
            strings = decode_strings(raw, math.prod(extent)).reshape(extent)
            target[...] = strings[local_index(projection.local)]
            return
        ids = np.arange(g.chunk_nblocks(record.nchunk)) if record.is_whole else record.ids.astype(np.int64)
        items = raw.view(g.dtype) if g.itemsize else np.zeros(len(raw), g.dtype)
        if g.layout == "flat":
            self._add_flat(target, projection, ids, items)
        else:
            self._add_nd(target, projection, ids, items)

    def _add_flat(
        self, target: npt.NDArray[Any], p: ChunkProjection, ids: npt.NDArray[np.int64], items: npt.NDArray[Any]
    ) -> None:
        extent = self.geometry.chunk_extent(p.coords)
        take_flat(target, extent, p.local, ids, items, self.geometry.blocks[0], p.blocks)

    def _add_nd(
        self, target: npt.NDArray[Any], p: ChunkProjection, ids: npt.NDArray[np.int64], items: npt.NDArray[Any]
    ) -> None:
        g = self.geometry
        extent = g.chunk_extent(p.coords)
        if g.ndim == 0:
            target[...] = items[0]
            return
        grid = tuple(-(-e // b) for e, b in zip(extent, g.blocks, strict=True))
        if not g.padded:  # a 1-d frame: its last block is short, as in the flat layout
            take_flat(target, extent, p.local, ids, items, g.blocks[0], p.blocks)
            return
        coords = np.unravel_index(ids, grid)
        per_axis = [np.unique(c) for c in coords]
        if math.prod(len(c) for c in per_axis) == len(ids):
            region = _join(items, [len(c) for c in per_axis], g.blocks)
            _copy(target, region, p.local, per_axis, g.blocks)
            return
        blocks = items.reshape(len(ids), *g.blocks)
        for i, block in enumerate(blocks):
            _copy(target, block, p.local, [c[i : i + 1] for c in coords], g.blocks)


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
