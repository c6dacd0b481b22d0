"""A box of decoded blocks copied to its place at once: one assignment for whole blocks, one for each cut edge.

Where a selection is dense and its blocks are all there, this takes the place of a copy per block. It decodes nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .selection import AxisRange, AxisSelection

__all__ = ["BlockBox", "find_box"]


@dataclass(frozen=True, slots=True)
class BlockBox:
    """Neighbouring blocks of a chunk.

    Attributes
    ----------
    firsts, counts : tuple of int
        Along each axis, the first block's position in the chunk and the number of blocks.
    """

    firsts: tuple[int, ...]
    counts: tuple[int, ...]

    def part(self, first: int, stop: int) -> BlockBox:
        """The box of the blocks number ``first`` to ``stop`` (exclusive), where those are one (``split``)."""
        rest, firsts, counts = stop - first, list(self.firsts), list(self.counts)
        for axis in range(len(counts) - 1, -1, -1):
            first, position = divmod(first, self.counts[axis])
            firsts[axis] += position
            counts[axis] = min(counts[axis], rest)
            rest //= counts[axis]
        return BlockBox(tuple(firsts), tuple(counts))

    def split(self, first: int, stop: int, most: int) -> list[int]:
        """Ends of runs that are boxes, in the blocks number ``first`` to ``stop`` (exclusive).

        Parameters
        ----------
        most : int
            Blocks that a run may have; it has one at least.

        Examples
        --------
        >>> BlockBox((0, 0), (3, 4)).split(2, 12, 8)
        [4, 12]
        >>> BlockBox((0, 0), (3, 4)).split(0, 12, 2)
        [2, 4, 6, 8, 10, 12]
        """
        ends: list[int] = []
        while first < stop:
            taken, inner = 1, 1
            for count in reversed(self.counts):
                if first % inner or inner > min(most, stop - first):
                    break
                here = count - first // inner % count
                taken = inner * max(1, min(here, (stop - first) // inner, most // inner))
                inner *= count
            first += taken
            ends.append(first)
        return ends

    def place(
        self,
        target: npt.NDArray[Any],
        items: npt.NDArray[Any],
        local: tuple[AxisSelection, ...],
        blocks: tuple[int, ...],
    ) -> None:
        """Copy what is selected of the box to its place.

        Parameters
        ----------
        target : ndarray
            The selection's part of the chunk.
        items : ndarray
            The blocks one after another, in C order of the box.
        local : tuple of AxisRange
            What is selected of the chunk, every item of it (``find_box``).
        blocks : tuple of int
            Shape of a block.
        """
        ndim = len(blocks)
        source = items.reshape(*self.counts, *blocks)
        order = [axis for i in range(ndim) for axis in (i, ndim + i)]
        along = [
            _segments(a.start, a.stop, first, count, block)
            for a, first, count, block in zip(local, self.firsts, self.counts, blocks, strict=True)
            if isinstance(a, AxisRange)
        ]
        for parts in itertools.product(*along):
            region = source[(*[p.blocks for p in parts], *[p.inside for p in parts])].transpose(order)
            # Axes are only split here, so it is a view, however the target lies in memory.
            target[tuple([p.goal for p in parts])].reshape(region.shape)[...] = region


@dataclass(frozen=True, slots=True)
class _Segment:
    """Blocks along one axis that are taken alike: which, what of each, and where in the target they go."""

    blocks: slice
    inside: slice
    goal: slice


def _segments(start: int, stop: int, first: int, count: int, block: int) -> list[_Segment]:
    """A cut block before, whole blocks, and a cut block after."""
    low, high = max(start, first * block), min(stop, (first + count) * block)
    segments = []
    while low < high:
        number, offset = divmod(low, block)
        n = (high - low) // block if offset == 0 else 0
        end = low + n * block if n else min((number + 1) * block, high)
        inside = slice(0, block) if n else slice(offset, offset + end - low)
        number -= first
        segments.append(_Segment(slice(number, number + max(n, 1)), inside, slice(low - start, end - start)))
        low = end
    return segments


def find_box(
    local: tuple[AxisSelection, ...],
    grid: tuple[int, ...],
    blocks: tuple[int, ...],
    ids: npt.NDArray[np.integer[Any]],
    wanted: npt.NDArray[np.integer[Any]],
) -> tuple[BlockBox, int] | None:
    """The box that a dense selection touches, and which block of it ``ids[0]`` is, when the others follow that one.

    Parameters
    ----------
    local : tuple
        What is selected of the chunk.
    grid, blocks : tuple of int
        How many blocks a chunk has along each axis, and their shape.
    ids, wanted : ndarray of int
        Numbers of the blocks that are there, and of those that are asked for: of all that the selection touches, or
        of some that follow one another.
    """
    firsts, counts = [], []
    for axis, block in zip(local, blocks, strict=True):
        if not isinstance(axis, AxisRange) or (axis.step != 1 and len(axis) > 1):
            return None
        firsts.append(axis.start // block)
        counts.append(axis.last // block - firsts[-1] + 1)
    start = int(np.searchsorted(wanted, ids[0]))
    if not np.array_equal(ids, wanted[start : start + len(ids)]):
        return None
    rest, number, stride = int(ids[0]), 0, 1
    for n, first, count in zip(reversed(grid), reversed(firsts), reversed(counts), strict=True):
        rest, position = divmod(rest, n)
        number += (position - first) * stride
        stride *= count
    return BlockBox(tuple(firsts), tuple(counts)), number
