import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.catalog import Cursor
from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.errors import IntegrityError

BATCH = EventBatch(
    "foo",
    "e",
    3,
    5,
    (Event("put", "dir", Entry("dir", "group")), Event("put", "big.b2nd"), Event("delete", "dir/é.b2nd")),
)


def test_a_batch_survives_the_wire():
    assert EventBatch.from_json(json.loads(json.dumps(BATCH.to_json()))) == BATCH
    assert BATCH.to_json()["type"] == "events"


@pytest.mark.parametrize(
    ("epoch", "seq", "expected"),
    [("e", 1, False), ("e", 2, True), ("e", 3, True), ("e", 5, True), ("e", 6, False), ("f", 2, False)],
)
def test_a_batch_follows_where_nothing_is_missing(epoch, seq, expected):
    """N9: a gap, a repeat and another life are seen."""
    assert BATCH.follows(Cursor(epoch, seq)) is expected


def test_a_heartbeat_follows_only_its_own_cursor():
    heartbeat = EventBatch("foo", "e", 6, 5)
    assert [heartbeat.follows(Cursor("e", seq)) for seq in (4, 5, 6)] == [False, True, False]
    assert heartbeat.cursor == Cursor("e", 5)


@pytest.mark.parametrize(
    "change",
    [
        {"root": "../x"}, {"root": "-"}, {"root": None, "epoch": None, "seq": None}, {"seq": "x"}, {"seq": None},
        {"first_seq": []},
        {"seq": float("inf")}, {"events": 7}, {"events": [7]}, {"events": [None]}, {"events": [{}]},
        {"events": {"a": 1}},
        {"events": [{"change": "move", "path": "a"}]}, {"events": [{"change": "put", "path": "../a"}]},
        {"events": [{"change": "put", "path": "a", "entry": {"path": "b", "kind": "group"}}]},
        {"events": [{"change": "put", "path": "a", "entry": 7}]}, {"events": [{"change": ["put"], "path": "a"}]},
    ],
    ids=repr,
)  # fmt: skip
def test_a_malformed_batch_is_refused(change):
    """A3: paths and names of a hostile peer included."""
    with pytest.raises(IntegrityError):
        EventBatch.from_json(BATCH.to_json() | change)


@pytest.mark.parametrize("form", [None, 7, "x", [], {}, {"root": "foo"}])
def test_what_is_no_batch_is_refused(form):
    with pytest.raises(IntegrityError):
        EventBatch.from_json(form)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["change", "path", "entry", "kind"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["root", "epoch", "first_seq", "seq", "events"]), json_values))
@settings(max_examples=300, deadline=None)
def test_any_json_is_a_batch_or_refused(change):
    """I10."""
    try:
        EventBatch.from_json(BATCH.to_json() | change)
    except IntegrityError:
        return
