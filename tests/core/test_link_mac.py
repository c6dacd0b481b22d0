"""Codes over answers: what is proved comes out, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.core import link_mac
from caterva2_jupyter.core.link_mac import FrameReader, FrameWriter, answer_digest, bearer_of, is_nonce, key_of
from caterva2_jupyter.errors import IntegrityError

KEY, NONCE = key_of("token"), "0" * 32
HEAD = {"Content-Type": "text/plain"}
ABOUT = answer_digest(NONCE, "GET", "/api/v1/meta?path=foo", b"", 200, HEAD)


def read(data: bytes, key: bytes = KEY, about: bytes = ABOUT, step: int = 1 << 30) -> bytes:
    reader = FrameReader(key, about)
    came = b"".join(reader.feed(data[i : i + step]) for i in range(0, len(data), step))
    reader.close()
    return came


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 400), st.integers(1, 100))
def test_what_was_written_is_read_however_it_is_cut(pieces: list[bytes], step: int, most: int) -> None:
    before, link_mac.MAX_FRAME_NBYTES = link_mac.MAX_FRAME_NBYTES, most
    try:
        writer = FrameWriter(KEY, ABOUT)
        framed = b"".join(writer.frames(piece, last=False) for piece in pieces) + writer.frames(b"", last=True)
        assert read(framed, step=step) == b"".join(pieces)
    finally:
        link_mac.MAX_FRAME_NBYTES = before


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_flipped_bit_or_a_missing_end_is_always_noticed(data: bytes, draw: st.DataObject) -> None:
    writer = FrameWriter(KEY, ABOUT)
    framed = bytearray(writer.frames(data, last=False) + writer.frames(data, last=True))
    bit = draw.draw(st.integers(0, 8 * len(framed) - 1))
    cut = draw.draw(st.integers(0, len(framed) - 1))
    with pytest.raises(IntegrityError):
        read(bytes(framed[:cut]))
    framed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError):
        read(bytes(framed))


def test_frames_that_are_swapped_repeated_dropped_or_added_are_noticed() -> None:
    writer = FrameWriter(KEY, ABOUT)
    one, two, end = writer.frames(b"1", last=False), writer.frames(b"2", last=False), writer.frames(b"", last=True)
    assert read(one + two + end) == b"12"
    for wrong in (two + one + end, one + one + two + end, two + end, one + end, one + two, one + two + end + end):
        with pytest.raises(IntegrityError):
            read(wrong)


@pytest.mark.parametrize(
    "about",
    [
        answer_digest("1" * 32, "GET", "/api/v1/meta?path=foo", b"", 200, HEAD),
        answer_digest(NONCE, "POST", "/api/v1/meta?path=foo", b"", 200, HEAD),
        answer_digest(NONCE, "GET", "/api/v1/meta?path=bar", b"", 200, HEAD),
        answer_digest(NONCE, "GET", "/api/v1/meta?path=foo", b"x", 200, HEAD),
        answer_digest(NONCE, "GET", "/api/v1/meta?path=foo", b"", 404, HEAD),
        answer_digest(NONCE, "GET", "/api/v1/meta?path=foo", b"", 200, HEAD | {"ETag": '"x"'}),
    ],
)
def test_an_answer_to_another_request_is_no_answer(about: bytes) -> None:
    with pytest.raises(IntegrityError):
        read(FrameWriter(KEY, about).frames(b"data", last=True))


def test_what_is_before_the_routes_may_differ_at_both_ends() -> None:
    assert answer_digest(NONCE, "GET", "/prefix/api/v1/meta?path=foo", b"", 200, HEAD) == ABOUT


def test_what_is_sent_tells_neither_token_nor_key() -> None:
    assert len({"token", bearer_of("token"), key_of("token").hex()}) == 3
    with pytest.raises(IntegrityError):
        read(FrameWriter(key_of(bearer_of("token")), ABOUT).frames(b"data", last=True))


def test_a_length_of_gigabytes_is_no_reason_to_wait_for_them() -> None:
    with pytest.raises(IntegrityError):
        FrameReader(KEY, ABOUT).feed(b"\x7f\xff\xff\xff")


def test_nonces() -> None:
    assert is_nonce(NONCE)
    assert not any(is_nonce(text) for text in ("", "0" * 31, "0" * 33, "g" * 32, "0" * 32 + "\n"))
