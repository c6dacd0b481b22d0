"""Several reads in one request: what is refused, and answers cut, mixed up or tampered with."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.core.blocks import BlockRecord, checksum_seed
from caterva2_jupyter.core.codec import encode_blocks
from caterva2_jupyter.core.many_reads import MAX_READS, ManyParser, encode_failure, many_to_json, parse_many
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.core.wire import (
    End,
    Preamble,
    ReadRequest,
    encode_end,
    encode_error,
    encode_preamble,
    encode_record,
)
from caterva2_jupyter.errors import (
    Caterva2Error,
    DatasetChangedError,
    IntegrityError,
    InvalidPathError,
    RequestError,
    TooLargeError,
)

GEOMETRY = Geometry((4,), (4,), (4,), np.dtype("<i4"))


def answer(name: str) -> bytes:
    """The answer to a read of one block."""
    entry = Entry(f"{name}.b2nd", "array", id=name, version="v", geometry=GEOMETRY)
    seed = checksum_seed(entry.id, entry.version)
    record = encode_blocks(seed, 0, [0], np.arange(4, dtype="<i4").tobytes(), GEOMETRY)
    head, body = encode_record(record, seed)
    return encode_preamble(entry, with_entry=False) + head + bytes(body) + encode_end(1, seed)


def test_requests_come_back_from_their_json() -> None:
    requests = [ReadRequest("foo", "a.b2nd", "v", [[0, 1, 1]]), ReadRequest("@public", "b.b2nd", mode="auto")]
    assert parse_many(json.dumps(many_to_json(requests)).encode()) == requests


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ([], RequestError),
        ({}, RequestError),
        ({"reads": []}, RequestError),
        ({"reads": {}}, RequestError),
        ({"reads": ["foo/a"]}, RequestError),
        ({"reads": [{"path": "foo/a"}], "mode": "auto"}, RequestError),
        ({"reads": [{"path": "foo/../a"}]}, InvalidPathError),
        ({"reads": [{"path": "foo/a"}] * (MAX_READS + 1)}, TooLargeError),
        ({"reads": [{"path": "foo/a", "version": "v", "known": {"blocks": "AA==", "digests": ""}}]}, RequestError),
    ],
)
def test_a_bad_request_is_refused(form: Any, error: type[Caterva2Error]) -> None:
    with pytest.raises(error):
        parse_many(json.dumps(form).encode())


@given(st.data())
def test_answers_are_told_apart_however_the_bytes_come(data: st.DataObject) -> None:
    raw = answer("a") + answer("b") + answer("c")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    parser = ManyParser(3)
    items = [i for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) for i in parser.feed(raw[a:b])]
    parser.close()
    assert [type(i) for i in items] == [Preamble, BlockRecord, End] * 3
    assert [i.id for i in items if isinstance(i, Preamble)] == ["a", "b", "c"]


def parse(raw: bytes, count: int) -> None:
    parser = ManyParser(count)
    list(parser.feed(raw))
    parser.close()


@given(st.data())
def test_a_flipped_bit_is_never_taken(data: st.DataObject) -> None:
    raw = bytearray(answer("a") + answer("b"))
    place = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[place // 8] ^= 1 << (place % 8)
    with pytest.raises(IntegrityError):
        parse(bytes(raw), 2)


@pytest.mark.parametrize(("count", "raw"), [(2, answer("a")), (1, answer("a")[:-1]), (1, b"")])
def test_an_answer_that_is_missing_is_missed(count: int, raw: bytes) -> None:
    parser = ManyParser(count)
    list(parser.feed(raw))
    with pytest.raises(IntegrityError, match="did not come"):
        parser.close()


def test_an_answer_too_many_is_refused() -> None:
    with pytest.raises(IntegrityError, match="after the last"):
        list(ManyParser(1).feed(answer("a") + answer("b")))


def test_an_error_comes_after_what_was_complete() -> None:
    for failure in (
        encode_failure(DatasetChangedError("gone")),
        answer("b")[: len(encode_preamble(Entry("b.b2nd", "array", id="b", version="v"), False))]
        + encode_error(DatasetChangedError("gone"), checksum_seed("b", "v")),
    ):
        items: list[object] = []
        with pytest.raises(DatasetChangedError, match="gone"):
            items.extend(ManyParser(3).feed(answer("a") + failure))
        assert [type(i) for i in items][:3] == [Preamble, BlockRecord, End]
