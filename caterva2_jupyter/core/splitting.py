"""Splitting a read that touches very many chunks in reads that touch fewer. Pure arithmetic; nothing is read.

Each chunk costs its source some time, however little is taken of it. An exact slice is made before its answer begins,
so one that touches a million chunks would keep whoever waits past every deadline on progress.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from .metadata import Geometry
from .selection import AxisItems, AxisRange, AxisSelection, Selection

__all__ = ["MAX_SLICE_CHUNKS", "split_selection"]

MAX_SLICE_CHUNKS = 1 << 15
"""Chunks that one exact slice should touch: some seconds of work for its source."""


def split_selection(
    geometry: Geometry, selection: Selection, max_chunks: int = MAX_SLICE_CHUNKS
) -> Iterator[tuple[Selection, tuple[slice, ...]]]:
    """Parts of a selection that touch fewer chunks each, and their places in its box.

    Parameters
    ----------
    geometry : Geometry
    selection : Selection
        Not empty.
    max_chunks : int

    Examples
    --------
    >>> rows = Geometry((100, 10), (1, 10), (1, 10), np.dtype("f4"))
    >>> for part, place in split_selection(rows, Selection((AxisRange(0, 100), AxisRange(3, 4))), 40):
    ...     print(part.axes[0], place[0])
    AxisRange(start=0, stop=40, step=1) slice(0, 40, None)
    AxisRange(start=40, stop=80, step=1) slice(40, 80, None)
    AxisRange(start=80, stop=100, step=1) slice(80, 100, None)
    """
    firsts = [_first_of_chunks(axis, length) for axis, length in zip(selection.axes, geometry.chunks, strict=True)]
    # The first axis is split first, so that parts follow one another as the chunks do.
    most, lengths = max_chunks, [1] * len(firsts)
    for i in reversed(range(len(firsts))):
        lengths[i] = max(1, min(len(firsts[i]), most))
        most //= lengths[i]
    yield from _parts(selection.axes, firsts, lengths, (), ())


def _parts(
    axes: tuple[AxisSelection, ...],
    firsts: list[list[int]],
    lengths: list[int],
    done: tuple[AxisSelection, ...],
    places: tuple[slice, ...],
) -> Iterator[tuple[Selection, tuple[slice, ...]]]:
    i = len(done)
    if i == len(axes):
        yield Selection(done), places
        return
    axis, bounds = axes[i], [*firsts[i][:: lengths[i]], len(axes[i])]
    for start, stop in itertools.pairwise(bounds):
        yield from _parts(axes, firsts, lengths, (*done, _taken(axis, start, stop)), (*places, slice(start, stop)))


def _first_of_chunks(axis: AxisSelection, chunk: int) -> list[int]:
    """Of each chunk that is touched along an axis, the index of the first item taken."""
    positions = axis.items if isinstance(axis, AxisItems) else np.arange(axis.start, axis.stop, axis.step)
    numbers = positions // max(chunk, 1)
    return [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist()]


def _taken(axis: AxisSelection, start: int, stop: int) -> AxisSelection:
    if isinstance(axis, AxisItems):
        return AxisItems(axis.items[start:stop])
    first = axis.start + start * axis.step
    return AxisRange(first, axis.start + (stop - 1) * axis.step + 1, axis.step)
