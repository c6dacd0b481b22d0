"""The request of a reduction: what is written is read again, and nothing else is taken."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.core.blocks import checksum_seed
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.reduce_request import ReduceRequest, Working, reduction_digest
from caterva2_jupyter.core.selection import AxisRange, Selection
from caterva2_jupyter.core.wire import ReduceParser, encode_end, encode_preamble, encode_working
from caterva2_jupyter.errors import Caterva2Error, IntegrityError, RequestError

REQUESTS = [
    ReduceRequest("foo", "x.b2nd", "sum"),
    ReduceRequest("foo", "x.b2nd", "mean", "v", [[0, 5, 2]], axis=(0, 2), dtype="<f4", keepdims=True),
    ReduceRequest("foo", "x.b2nd", "std", ddof=1.5, skip=(-9999, 1e20, math.inf, -math.inf)),
    ReduceRequest("foo", "x.b2nd", "minmax", steps=(1, 1000)),
    ReduceRequest("foo", "x.b2nd", "prod", axis=(1,), field=("a", "b c")),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_is_read_as_it_was_written(request_: ReduceRequest) -> None:
    assert ReduceRequest.from_bytes(json.dumps(request_.to_json()).encode()) == request_


@pytest.mark.parametrize(
    "change",
    [
        {"op": "median"},
        {"op": None},
        {"op": "stride"},
        {"axis": [1, 0]},
        {"axis": [0, 0]},
        {"axis": [-1]},
        {"axis": [True]},
        {"axis": 0},
        {"steps": [0]},
        {"steps": [1], "axis": [0]},
        {"steps": [1], "keepdims": True},
        {"keepdims": 1},
        {"ddof": "1"},
        {"ddof": True},
        {"skip": 5},
        {"skip": ["old"]},
        {"skip": [None]},
        {"skip": [2**70]},
        {"skip": [0] * 17},
        {"dtype": 4},
        {"dtype": "f" * 50},
        {"path": 5},
        {"version": 5},
        {"where": "x > 5"},
        {"field": "a"},
        {"field": [1]},
        {"field": ["a"] * 17},
    ],
)
def test_what_is_malformed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refusal:
        ReduceRequest.from_json({"path": "foo/x", "op": "sum", **change})
    assert "\n" not in str(refusal.value)


@given(
    st.binary(max_size=60)
    | st.sampled_from([b'{"path":"foo/x","op":"sum","skip":[NaN]}', b"[" * 5000, b'{"op":1,"op":1}'])
)
def test_garbage_is_refused(body: bytes) -> None:
    with pytest.raises(Caterva2Error):
        ReduceRequest.from_bytes(body)


def test_digests_tell_reductions_apart() -> None:
    whole, part = Selection((AxisRange(0, 9),)), Selection((AxisRange(0, 8),))
    digests = {reduction_digest(r, s) for r in REQUESTS for s in (whole, part)}
    assert len(digests) == 2 * len(REQUESTS)
    assert reduction_digest(REQUESTS[0], whole) == reduction_digest(ReduceRequest("bar", "y", "sum"), whole)


def test_being_at_work_is_told_before_the_result_only() -> None:
    entry, digest = Entry("x", "array", id="a", version="v"), "0" * 32
    seed = checksum_seed("a", "v")
    begin = encode_preamble(entry, False, digest)
    parser = ReduceParser(digest)
    items = parser.feed_reduced(begin + encode_working(Working(3, 10), seed) + encode_end(0, seed))
    assert items[1] == Working(3, 10)
    with pytest.raises(IntegrityError, match="another reduction"):
        ReduceParser("1" * 32).feed_reduced(begin)
    damaged = bytearray(begin + encode_working(Working(3, 10), seed))
    damaged[-1] ^= 1
    with pytest.raises(IntegrityError):
        ReduceParser(digest).feed_reduced(bytes(damaged))
