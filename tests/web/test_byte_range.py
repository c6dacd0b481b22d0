from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.web.byte_range import UnsatisfiableRange, parse_byte_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-4", (2, 5)),
        ("bytes=2-", (2, 10)),
        ("bytes=2-100", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-100", (0, 10)),
        ("Bytes = 1 - 2", (1, 3)),
        # All of it, where it is not one range of bytes:
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("bytes=4-2", None),
        ("bytes=0-1,5-6", None),
        ("bytes=" + ",".join("0-" for _ in range(10_000)), None),
        ("items=0-1", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        ("bytes=-1-", None),
        ("bytes=٣-٤", None),
    ],
)
def test_a_range_of_ten_bytes(header: str | None, expected: tuple[int, int] | None) -> None:
    assert parse_byte_range(header, 10) == expected


@pytest.mark.parametrize(
    ("header", "nbytes"), [("bytes=10-", 10), ("bytes=99-100", 10), ("bytes=-0", 10), ("bytes=-1", 0)]
)
def test_a_range_without_a_byte_is_unsatisfiable(header: str, nbytes: int) -> None:
    with pytest.raises(UnsatisfiableRange):
        parse_byte_range(header, nbytes)


@given(st.text(max_size=40), st.integers(0, 2**62))
def test_no_header_gives_bytes_that_do_not_exist(text: str, nbytes: int) -> None:
    for header in (text, f"bytes={text}"):
        try:
            found = parse_byte_range(header, nbytes)
        except UnsatisfiableRange:
            continue
        if found is not None:
            assert 0 <= found[0] < found[1] <= nbytes
