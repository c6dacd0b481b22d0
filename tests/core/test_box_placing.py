import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.box_placing import BlockBox, find_box
from caterva2_jupyter.core.selection import AxisItems, AxisRange


@st.composite
def boxes_and_runs(draw):
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    firsts = draw(st.lists(st.integers(0, 3), min_size=len(counts), max_size=len(counts)))
    first = draw(st.integers(0, math.prod(counts) - 1))
    stop = draw(st.integers(first + 1, math.prod(counts)))
    return BlockBox(tuple(firsts), tuple(counts)), first, stop


def coords_of(box):
    return list(itertools.product(*[range(f, f + n) for f, n in zip(box.firsts, box.counts, strict=True)]))


@given(boxes_and_runs(), st.integers(1, 30))
@settings(max_examples=500, deadline=None)
def test_runs_of_a_box_are_boxes_of_the_same_blocks_in_order(case, most):
    box, first, stop = case
    ends = box.split(first, stop, most)
    parts = [box.part(a, b) for a, b in zip([first, *ends], ends, strict=False)]
    assert all(math.prod(part.counts) <= most for part in parts)
    assert [c for part in parts for c in coords_of(part)] == coords_of(box)[first:stop]


def test_a_box_of_whole_rows_is_taken_at_once():
    assert BlockBox((0, 0, 0), (4, 4, 4)).split(0, 64, 64) == [64]
    assert BlockBox((0, 0, 0), (4, 4, 4)).split(9, 64, 64) == [12, 16, 64]


def test_only_dense_selections_have_a_box():
    ids = np.array([5, 6], np.uint32)
    dense = AxisRange(10, 20), AxisRange(10, 30)
    assert find_box(dense, (4, 4), (10, 10), ids, ids.astype(np.int64)) == (BlockBox((1, 1), (1, 2)), 0)
    assert find_box(dense, (4, 4), (10, 10), ids[1:], ids.astype(np.int64)) == (BlockBox((1, 1), (1, 2)), 1)
    assert find_box(dense, (4, 4), (10, 10), ids, np.array([5])) is None
    assert find_box((AxisRange(10, 20, 2), dense[1]), (4, 4), (10, 10), ids, ids) is None
    assert find_box((dense[0], AxisItems(np.array([10, 25]))), (4, 4), (10, 10), ids, ids) is None
