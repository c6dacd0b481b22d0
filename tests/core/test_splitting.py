"""Reads of very many chunks in parts: together they are the whole, none touches too many."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.core.selection import AxisItems, AxisRange, AxisSelection, Selection
from caterva2_jupyter.core.splitting import split_selection


@st.composite
def axes(draw: st.DrawFn, length: int) -> AxisSelection:
    if draw(st.booleans()):
        items = draw(st.sets(st.integers(0, length - 1), min_size=1))
        return AxisItems(np.array(sorted(items)))
    start = draw(st.integers(0, length - 1))
    return AxisRange(start, draw(st.integers(start + 1, length)), draw(st.integers(1, 5)))


@given(st.data(), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_parts_are_the_whole_and_touch_few_chunks(data: st.DataObject, max_chunks: int) -> None:
    shape = (23, 17, 9)
    chunks = tuple(data.draw(st.integers(1, n)) for n in shape)
    selection = Selection(tuple(data.draw(axes(n)) for n in shape))
    geometry = Geometry(shape, chunks, chunks, np.dtype("i4"))
    values = np.arange(np.prod(shape)).reshape(shape)

    def take(part: Selection) -> np.ndarray:
        lists = [a.items if isinstance(a, AxisItems) else np.arange(a.start, a.stop, a.step) for a in part.axes]
        return values[np.ix_(*lists)]

    box = np.full(selection.shape, -1)
    for part, place in split_selection(geometry, selection, max_chunks):
        assert BlockPlan(geometry, part).nchunks <= max_chunks
        assert (box[place] == -1).all()
        box[place] = take(part)
    assert np.array_equal(box, take(selection))
