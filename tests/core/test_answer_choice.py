"""The smaller answer, and when renting slices turns into buying blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.answer_choice import (
    MARGIN,
    MAX_DECODED_NBYTES,
    MAX_SLICE_NBYTES,
    Prediction,
    can_slice,
    choose_answer,
    predict,
    predict_block_cbytes,
)
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.dtypes import VLEN_UTF8
from caterva2_jupyter.core.fill_policy import BEHIND, REQUEST_NBYTES, FillLedger
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.core.selection import AxisRange, Selection

FIELD = Geometry((480, 720, 1440), (20, 240, 360), (5, 60, 90), np.dtype("<f4"))
"""The field of the benchmarks: 1.99 GB, 325 MB compressed."""
ENTRY = Entry("field.b2nd", "array", id="a", version="v", geometry=FIELD, cbytes=325_000_000)


def box(*bounds: tuple[int, int]) -> Selection:
    return Selection(tuple(AxisRange(*b) for b in bounds))


POINT = box((0, 480), (37, 38), (53, 54))


def prediction(selection: Selection, nmissing: int | None = None) -> Prediction:
    plan = BlockPlan(FIELD, selection)
    return predict(ENTRY, plan, plan.nblocks if nmissing is None else nmissing)


@pytest.mark.parametrize(
    ("selection", "answer"),
    [
        (POINT, "slice"),  # 2 kB of values in 1.7 MB of blocks
        (box((0, 1), (0, 1), (0, 1)), "slice"),
        (box((470, 471), (0, 720), (0, 1440)), "slice"),  # a map takes a fifth of each block
        (box((5, 10), (60, 120), (90, 180)), "blocks"),  # one block, whole
        (box((0, 60), (0, 720), (0, 576)), "blocks"),  # 100 MB
        (box((0, 10), (0, 720), (0, 1440)), "blocks"),
    ],
)
def test_the_smaller_answer_is_chosen_for_the_reads_that_people_do(selection: Selection, answer: str) -> None:
    assert choose_answer("auto", prediction(selection)) == answer


def test_what_is_held_makes_blocks_cheaper() -> None:
    assert choose_answer("auto", prediction(POINT, 96)) == "slice"
    assert choose_answer("auto", prediction(POINT, 0)) == "blocks"


def test_whoever_asks_may_decide() -> None:
    assert choose_answer("blocks", prediction(POINT)) == "blocks"
    assert choose_answer("slice", prediction(box((5, 10), (60, 120), (90, 180)))) == "slice"


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 1 << 40), st.booleans())
def test_a_slice_is_smaller_by_the_margin_and_within_the_limits(
    blocks: float, exact: float, decoded: int, possible: bool
) -> None:
    expected = Prediction(blocks, exact, decoded, possible)
    if choose_answer("auto", expected) == "slice":
        assert exact * MARGIN < blocks
    for mode in ("auto", "slice"):
        if choose_answer(mode, expected) == "slice":  # type: ignore[arg-type]
            assert possible
            assert decoded <= MAX_DECODED_NBYTES


@pytest.mark.parametrize(
    ("geometry", "is_possible"),
    [
        (FIELD, False),
        (Geometry((9,), (4,), (2,), np.dtype("<i4")), True),
        (Geometry((0, 9), (4, 4), (2, 2), np.dtype("<i4")), False),
        (Geometry((9,), (4,), (1,), VLEN_UTF8, padded=False), False),
        (Geometry((MAX_SLICE_NBYTES,), (1 << 20,), (1 << 16,), np.dtype("u1")), True),
        (Geometry((MAX_SLICE_NBYTES + 1,), (1 << 20,), (1 << 16,), np.dtype("u1")), False),
    ],
)
def test_some_selections_have_no_exact_slice(geometry: Geometry, is_possible: bool) -> None:
    assert can_slice(geometry, Selection.whole(geometry.shape)) == is_possible


# Rent, then buy


@dataclass(frozen=True)
class Played:
    """Bytes of the policy, of always slices and of always blocks; and how often the policy bought."""

    total: float
    slices: float
    blocks: float
    purchases: int

    @property
    def regret(self) -> float:
        return (self.total - self.purchases * REQUEST_NBYTES) / min(self.slices, self.blocks)


def play(reads: Iterable[tuple[dict[int, np.ndarray], float]], block_cbytes: float) -> Played:
    """Reads of blocks, each with the bytes of its slice; nothing is read twice, so that no kept slice helps anybody."""
    ledger = FillLedger()
    held: set[tuple[int, int]] = set()
    fetched: set[tuple[int, int]] = set()
    total = slices = blocks = 0.0
    purchases = 0
    for read, slice_cbytes in reads:
        rent = slice_cbytes + REQUEST_NBYTES
        slices += rent
        new = {(n, b) for n, ids in read.items() for b in ids.tolist()} - fetched
        fetched |= new
        blocks += len(new) * block_cbytes + (REQUEST_NBYTES if new else 0)
        missing = {n: np.array([b for b in ids.tolist() if (n, b) not in held]) for n, ids in read.items()}
        missing = {n: ids for n, ids in missing.items() if len(ids)}
        if not missing:
            continue
        price = sum(map(len, missing.values())) * block_cbytes
        due = "now"
        if choose_answer("auto", Prediction(price, slice_cbytes, 0, True)) == "slice":
            due = ledger.due("key", missing, slice_cbytes, block_cbytes)
        if due != "now":
            total += rent
        if due == "no":
            ledger.charge("key", missing, slice_cbytes, block_cbytes)
            continue
        total += price + REQUEST_NBYTES
        purchases += 1
        held |= {(n, b) for n, ids in missing.items() for b in ids.tolist()}
        ledger.settle("key", missing)
    return Played(total, slices, blocks, purchases)


def column(x: int) -> dict[int, np.ndarray]:
    """The blocks of a point's time series: 24 chunks of 4 blocks, one column of blocks per 90 points."""
    return {chunk: np.arange(4) * 100 + x // 90 for chunk in range(24)}


BLOCK = predict_block_cbytes(ENTRY, FIELD)


LEAST = 1.0001
"""Rents are kept as 32-bit floats."""


def test_regret_is_at_most_twofold_for_the_reads_of_the_benchmark() -> None:
    rng = np.random.default_rng(1)
    point = [column(37)]
    sweep = [column(x) for x in range(500)]
    again = [column(37 + i % 50) for i in range(3000)]
    anywhere = [{int(n): np.array([int(b)])} for n, b in rng.integers(0, 60, (5000, 2))]
    for reads, size in [(point, 1300.0), (sweep, 1300.0), (again, 1300.0), (anywhere, 250.0)]:
        assert play([(read, size) for read in reads], BLOCK).regret <= (2 + BEHIND) * LEAST


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.integers(0, 3), st.sets(st.integers(0, 9), min_size=1), min_size=1),
            st.floats(0.0001, 1.5),
        ),
        min_size=1,
        max_size=200,
    ),
    st.floats(10_000, 100_000),
)
@settings(max_examples=200, deadline=None)
def test_regret_is_at_most_twofold_whatever_is_read_in_whatever_order(
    reads: list[tuple[dict[int, set[int]], float]], block_cbytes: float
) -> None:
    """Of always slices and of always blocks, the better one; blocks of one read may be parts of any others."""
    sized = [
        ({n: np.array(sorted(ids)) for n, ids in read.items()}, part * sum(map(len, read.values())) * block_cbytes)
        for read, part in reads
    ]
    assert play(sized, block_cbytes).regret <= (2 + BEHIND) * LEAST


@pytest.mark.parametrize("part", [0.5, 0.55, 0.61, 0.625, 0.7, 0.9, 0.99])
def test_large_slices_are_regretted_least_whether_reads_come_back_or_not(part: float) -> None:
    """One slice before the blocks, or none: whichever has the smaller worst case."""
    read = {0: np.arange(10)}
    worst = max(play([(read, part * 1e7)] * count, 1e6).regret for count in range(1, 10))
    assert worst == pytest.approx(min(1 + part, 1 / part), rel=1e-3)
    assert worst <= MARGIN * LEAST


def test_a_block_that_is_read_with_ever_other_ones_is_paid_for_once() -> None:
    """What a slice costs is not lost on blocks that were paid for: others that it spares bear it."""
    ledger = FillLedger()
    for other in range(1, 100):
        ledger.charge("a", {0: np.array([0, other])}, 10_000, 18_000)
    left = sum(ledger.due("a", {0: np.array([other])}, 12_000, 18_000) != "no" for other in range(1, 100))
    assert ledger.due("a", {0: np.array([0])}, 1, 18_000) == "behind"
    assert left >= 95


def test_versions_are_paid_for_apart_and_bought_blocks_start_anew() -> None:
    ledger, point = FillLedger(), {0: np.array([3])}
    for _ in range(20):
        ledger.charge("a", point, 400, 18_000)
    assert ledger.due("a", point, 400, 18_000) != "no"
    assert ledger.due("b", point, 400, 18_000) == "no"
    ledger.settle("a", point)
    assert ledger.due("a", point, 400, 18_000) == "no"


def test_small_slices_are_given_before_their_blocks_are_bought_and_large_ones_are_not() -> None:
    def dues(slice_cbytes: float) -> list[str]:
        ledger, point = FillLedger(), {0: np.arange(10)}
        found = []
        while not found or found[-1] == "no":
            found.append(ledger.due("a", point, slice_cbytes, 18_000))
            ledger.charge("a", point, slice_cbytes, 18_000)
        return found

    assert dues(400) == ["no"] * 180 + ["behind"]
    assert dues(80_000) == ["no"] * 2 + ["now"]


def test_what_is_remembered_is_bounded() -> None:
    ledger = FillLedger(max_counters=1000)
    for chunk in range(500):
        ledger.charge("a", {chunk: np.arange(100)}, 1e9, 18_000)
    remembered = [chunk for chunk in range(500) if ledger.due("a", {chunk: np.arange(100)}, 0, 18_000) != "no"]
    assert remembered == list(range(494, 500))
