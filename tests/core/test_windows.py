"""How much of a large read one request brings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.core.windows import MIN_WINDOW_NBYTES, STREAMS, WINDOW_NBYTES, blocks_per_request


@given(st.integers(1, 10**7), st.floats(0, 1e8))
def test_a_large_read_keeps_all_streams_busy_with_answers_of_bounded_length(nblocks: int, block_cbytes: float) -> None:
    count = blocks_per_request(nblocks, block_cbytes)
    assert count >= 1
    assert count == 1 or count * block_cbytes <= WINDOW_NBYTES
    if nblocks * block_cbytes >= STREAMS * (MIN_WINDOW_NBYTES + block_cbytes) and nblocks % STREAMS == 0:
        assert -(-nblocks // count) >= STREAMS


def test_a_short_read_is_one_request() -> None:
    assert blocks_per_request(50, 18_000) >= 50


def test_windows_of_a_read_are_not_shared_out_again() -> None:
    """The client asks for an eighth of its read: its subscriber asks for that by one request."""
    share = blocks_per_request(1444, 18_000)
    assert blocks_per_request(1444 * STREAMS, 18_000) >= share


def test_a_read_is_not_cut_in_one_part_and_a_small_rest() -> None:
    assert blocks_per_request(64, 17_700) == 64
    assert blocks_per_request(130, 17_700) == 65
