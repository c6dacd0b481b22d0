"""How a read is cut in requests."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.client.reader import MAX_WINDOWS, plan_windows


@given(st.integers(1, 10**7), st.floats(0, 1e9), st.integers(1, 1 << 24))
def test_windows_cover_the_plan_once_in_order(nblocks: int, block_cbytes: float, window_cbytes: int) -> None:
    windows = plan_windows(nblocks, block_cbytes, window_cbytes)
    assert windows[0][0] == 0
    assert windows[-1][1] == nblocks
    assert all(a[1] == b[0] for a, b in pairwise(windows))
    assert all(first < stop for first, stop in windows)
    assert len(windows) <= MAX_WINDOWS


def test_what_fits_one_request_is_one() -> None:
    assert plan_windows(100, 1000) == [(0, 100)]
    assert plan_windows(1, 1e12) == [(0, 1)]
