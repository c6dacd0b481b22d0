"""What waits for a slow subscriber is bounded and in order."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.broker.outbox import Outbox

RESYNC_FOO = {"type": "resync", "root": "foo"}


def drain(outbox: Outbox) -> list[str]:
    texts = []
    while (text := outbox.pop()) is not None:
        texts.append(text)
    return texts


def test_messages_leave_in_the_order_they_came():
    outbox = Outbox()
    outbox.put("foo", "1")
    outbox.put_roots("roots")
    outbox.put("bar", "2")
    assert drain(outbox) == ["1", "roots", "2"]


def test_only_the_newest_list_of_roots_is_sent_and_not_before_older_events():
    outbox = Outbox()
    outbox.put_roots("old roots")
    outbox.put("foo", "1")
    outbox.put_roots("new roots")
    assert drain(outbox) == ["1", "new roots"]


def test_events_that_do_not_fit_become_one_word_for_each_root():
    outbox = Outbox(max_messages=4)
    outbox.put_roots("roots")
    for text in "1234":
        outbox.put("foo" if text < "4" else "bar", text)
    outbox.put("foo", "5")
    assert [json.loads(t) if t != "roots" else t for t in drain(outbox)] == [
        RESYNC_FOO,
        {"type": "resync", "root": "bar"},
        "roots",
    ]


def test_after_the_word_events_are_told_again():
    outbox = Outbox(max_messages=1)
    outbox.put("foo", "1")
    outbox.put("foo", "2")
    assert json.loads(outbox.pop() or "") == RESYNC_FOO
    outbox.put("foo", "3")
    assert drain(outbox) == ["3"]


def test_one_message_may_be_longer_than_the_bound():
    outbox = Outbox(max_nchars=10)
    outbox.put("foo", "x" * 100)
    assert drain(outbox) == ["x" * 100]


def test_a_heartbeat_is_sent_only_when_nothing_else_is():
    outbox = Outbox()
    outbox.put_heartbeat()
    assert [json.loads(t) for t in drain(outbox)] == [{"type": "heartbeat"}]
    outbox.put("foo", "1")
    outbox.put_heartbeat()
    assert drain(outbox) == ["1"]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 40), st.booleans())))
def test_each_root_gets_its_last_event_or_a_resync_and_the_bound_holds(puts):
    outbox = Outbox(max_messages=5, max_nchars=100)
    sent: dict[str, list[str]] = {}
    last: dict[str, str] = {}

    def send() -> bool:
        text = outbox.pop()
        if text is None:
            return False
        root = json.loads(text)["root"] if text.startswith("{") else text[0]
        sent.setdefault(root, []).append(text)
        return True

    for number, (root, length, read) in enumerate(puts):
        last[root] = f"{root}{number}" + "x" * length
        outbox.put(root, last[root])
        assert outbox._nchars <= 100
        assert len(outbox._waiting) <= 5
        if read:
            send()
    while send():
        pass
    for root, text in last.items():
        assert sent[root][-1] == text or "resync" in sent[root][-1]
