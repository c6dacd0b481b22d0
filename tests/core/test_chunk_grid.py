"""Plans against brute force: every item asked where it lies."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.core.selection import AxisRange, Selection

from .cases import geometries_and_selections, positions

cases = geometries_and_selections(min_side=0, dtypes=["<i4"])


def touched_blocks(geometry, selection):
    """(chunk, block) of every selected item, each once, in the plan's order."""
    touched = set()
    for item in itertools.product(*(p.tolist() for p in positions(selection))):
        coords = tuple(i // c for i, c in zip(item, geometry.chunks, strict=True))
        local = tuple(i % c for i, c in zip(item, geometry.chunks, strict=True))
        extent = geometry.chunk_extent(coords)
        nchunk = int(np.ravel_multi_index(coords, geometry.grid)) if item else 0
        if geometry.layout == "flat":
            block = int(np.ravel_multi_index(local, extent)) // geometry.blocks[0]
        elif item:
            grid = tuple(-(-e // b) for e, b in zip(extent, geometry.blocks, strict=True))
            block = int(np.ravel_multi_index([i // b for i, b in zip(local, geometry.blocks, strict=True)], grid))
        else:
            block = 0
        touched.add((nchunk, block))
    return sorted(touched)


def listed(projections):
    return [(p.nchunk, block) for p in projections for block in p.blocks.tolist()]


@given(cases)
@settings(max_examples=400, deadline=None)
def test_a_plan_has_the_blocks_of_every_item_and_no_other(case):
    geometry, selection = case
    plan = BlockPlan(geometry, selection)
    want = touched_blocks(geometry, selection)
    assert listed(plan) == want
    assert plan.nblocks == len(want)
    assert plan.nchunks == len({nchunk for nchunk, _ in want})
    assert plan.chunk_counts.tolist() == [len(list(g)) for _, g in itertools.groupby(want, key=lambda b: b[0])]


@given(cases)
@settings(max_examples=200, deadline=None)
def test_projections_fill_the_box_exactly_once_with_the_right_items(case):
    geometry, selection = case
    array = np.arange(geometry.size).reshape(geometry.shape)
    box = np.zeros(selection.shape, int)
    filled = np.zeros(selection.shape, int)
    for p in BlockPlan(geometry, selection):
        start = [i * c for i, c in zip(p.coords, geometry.chunks, strict=True)]
        index = [where + s for where, s in zip(positions(Selection(p.local)), start, strict=True)]
        filled[p.out] += 1
        box[p.out] = array[np.ix_(*index)] if index else array
    assert np.all(filled == 1)
    assert np.array_equal(box, array[np.ix_(*positions(selection))] if geometry.ndim else array)


@given(cases, st.data())
@settings(max_examples=200, deadline=None)
def test_a_window_is_a_run_of_the_plan(case, data):
    plan = BlockPlan(*case)
    blocks = listed(plan)
    first = data.draw(st.integers(0, len(blocks)))
    stop = data.draw(st.integers(first, len(blocks)))
    assert listed(plan.window(first, stop)) == blocks[first:stop]


def test_a_plan_costs_nothing_before_it_is_iterated():
    """I2: 10^12 chunks of 8 TiB."""
    geometry = Geometry((1_000_000, 1_000_000), (1, 1), (1, 1), np.dtype("f8"))
    begin = time.process_time()
    plan = BlockPlan(geometry, Selection.whole(geometry.shape))
    assert plan.nchunks == plan.nblocks == 10**12
    assert [p.nchunk for p in itertools.islice(plan, 3)] == [0, 1, 2]
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("layout", ["nd", "flat"])
def test_a_sparse_selection_of_a_long_axis_is_planned_quickly(layout):
    geometry = Geometry((10**9,), (10**5,), (10**3,), np.dtype("i1"), layout, layout == "nd")
    begin = time.process_time()
    plan = BlockPlan(geometry, Selection((AxisRange(0, 10**9, 10**6),)))
    assert plan.nblocks == len(listed(plan)) == 1000
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("selection", [AxisRange(0, 16 * 10**6, 1), AxisRange(5, 16 * 10**6 - 3, 7)])
def test_a_window_of_a_million_flat_chunks_looks_at_few_of_them(monkeypatch, selection):
    geometry = Geometry((16 * 10**6,), (16,), (4,), np.dtype("i4"), "flat", False)
    looked_at = []
    real = BlockPlan._blocks
    monkeypatch.setattr(BlockPlan, "_blocks", lambda self, *args: looked_at.append(1) or real(self, *args))
    plan = BlockPlan(geometry, Selection((selection,)))
    middle = plan.nblocks // 2
    assert len(listed(plan.window(middle, middle + 400))) == 400
    assert len(looked_at) < 1000


def test_a_flat_plan_of_a_trillion_chunks_is_counted():
    geometry = Geometry((10**7, 10**7), (10, 10), (25,), np.dtype("i1"), "flat", False)
    assert BlockPlan(geometry, Selection.whole(geometry.shape)).nblocks == 4 * 10**12
