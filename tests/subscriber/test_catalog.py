"""The pure state machine of a followed root, alone and against a random network (FAULTS N9, N10)."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.catalog import CatalogPage, Cursor
from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.errors import IntegrityError, ResyncError, SourceUnavailableError, TooLargeError
from caterva2_jupyter.subscriber import catalog
from caterva2_jupyter.subscriber.catalog import (
    Announced,
    ApplyBatch,
    EventsLost,
    Fetch,
    FetchFailed,
    LinkLost,
    PageArrived,
    ReplaceReplica,
    RetryDue,
    RetryLater,
    RootState,
    StoreFailed,
    TellStatus,
    Told,
    UpdateReplica,
)


def page(seq: int, paths: str = "", *, epoch: str = "e", next_path: str | None = None) -> CatalogPage:
    items = tuple(json.dumps({"path": p, "kind": "group"}) for p in paths.split())
    return CatalogPage(epoch, seq, items, next=next_path)


def batch(first: int, seq: int, *paths: str, epoch: str = "e") -> EventBatch:
    return EventBatch("r", epoch, first, seq, tuple(Event("put", p, Entry(p, "group")) for p in paths))


def live_at(seq: int) -> RootState:
    state = RootState(None)
    (fetch,) = state.apply(Announced(True, Cursor("e", seq)), 0.0)
    assert isinstance(fetch, Fetch)
    state.apply(PageArrived(fetch.ticket, page(seq)), 0.0)
    assert state.is_live
    return state


def only_fetch(actions: list[catalog.Action]) -> Fetch:
    fetches = [a for a in actions if isinstance(a, Fetch)]
    assert len(fetches) == 1
    return fetches[0]


def test_a_new_root_is_listed_once_it_is_announced() -> None:
    state = RootState(None)
    fetch = only_fetch(state.apply(Announced(True), 0.0))
    assert fetch.query.since is None
    actions = state.apply(PageArrived(fetch.ticket, page(3, "a b")), 0.0)
    assert actions == [ReplaceReplica((page(3, "a b"),), Cursor("e", 3)), TellStatus(True)]
    assert state.freshness.live


def test_a_listing_of_several_pages_replaces_the_replica_only_when_complete() -> None:
    state = RootState(None)
    first = only_fetch(state.apply(Announced(True), 0.0))
    second = only_fetch(state.apply(PageArrived(first.ticket, page(3, "a", next_path="a")), 0.0))
    assert second.query.after == "a"
    actions = state.apply(PageArrived(second.ticket, page(3, "b")), 0.0)
    assert actions[0] == ReplaceReplica((page(3, "a", next_path="a"), page(3, "b")), Cursor("e", 3))


def test_changes_between_two_pages_are_asked_for_again() -> None:
    state = RootState(None)
    first = only_fetch(state.apply(Announced(True), 0.0))
    second = only_fetch(state.apply(PageArrived(first.ticket, page(3, "a", next_path="a")), 0.0))
    actions = state.apply(PageArrived(second.ticket, page(5, "b")), 0.0)
    assert only_fetch(actions).query.since == Cursor("e", 3)


def test_a_root_known_from_an_earlier_run_asks_only_for_what_changed() -> None:
    state = RootState(Cursor("e", 7))
    assert not state.is_live
    assert only_fetch(state.apply(Announced(True, Cursor("e", 9)), 0.0)).query.since == Cursor("e", 7)


def test_a_root_known_from_an_earlier_run_and_unchanged_costs_no_request() -> None:
    state = RootState(Cursor("e", 7))
    assert state.apply(Announced(True, Cursor("e", 7)), 0.0) == [TellStatus(True)]


def test_the_next_batch_is_applied() -> None:
    state = live_at(7)
    assert state.apply(Told(batch(8, 9, "a")), 0.0) == [ApplyBatch(batch(8, 9, "a"))]
    assert state.cursor == Cursor("e", 9)


def test_a_repeated_batch_does_nothing() -> None:
    state = live_at(7)
    assert state.apply(Told(batch(6, 7, "a")), 0.0) == []


def test_a_batch_that_overlaps_is_applied() -> None:
    state = live_at(7)
    assert state.apply(Told(batch(6, 8, "a")), 0.0) == [ApplyBatch(batch(6, 8, "a"))]


def test_a_gap_is_seen_and_what_changed_is_asked_for() -> None:
    state = live_at(7)
    assert only_fetch(state.apply(Told(batch(9, 9, "a")), 0.0)).query.since == Cursor("e", 7)


def test_a_heartbeat_tells_of_a_lost_batch() -> None:
    state = live_at(7)
    assert state.apply(Told(batch(8, 7)), 0.0) == []
    assert only_fetch(state.apply(Told(batch(9, 8)), 0.0)).query.since == Cursor("e", 7)


def test_a_heartbeat_that_claims_to_follow_a_lost_batch_is_not_believed() -> None:
    state = live_at(7)
    assert only_fetch(state.apply(Told(batch(8, 8)), 0.0)).query.since == Cursor("e", 7)


def test_an_entry_too_large_to_be_told_is_asked_for() -> None:
    state = live_at(7)
    large = EventBatch("r", "e", 8, 8, (Event("put", "a", None),))
    assert only_fetch(state.apply(Told(large), 0.0)).query.since == Cursor("e", 7)
    gone = EventBatch("r", "e", 8, 8, (Event("delete", "a"),))
    assert live_at(7).apply(Told(gone), 0.0) == [ApplyBatch(gone)]


def test_another_epoch_is_listed_from_the_start() -> None:
    state = live_at(7)
    fetch = only_fetch(state.apply(Told(batch(1, 1, "a", epoch="f")), 0.0))
    # The source answers a cursor of another life with 410.
    again = only_fetch(state.apply(FetchFailed(fetch.ticket, ResyncError("other epoch")), 0.0))
    assert again.query.since is None
    actions = state.apply(PageArrived(again.ticket, page(1, "a", epoch="f")), 0.0)
    assert ReplaceReplica((page(1, "a", epoch="f"),), Cursor("f", 1)) in actions


def test_a_change_of_epoch_between_two_pages_starts_again() -> None:
    state = RootState(None)
    first = only_fetch(state.apply(Announced(True), 0.0))
    second = only_fetch(state.apply(PageArrived(first.ticket, page(3, "a", next_path="a")), 0.0))
    again = only_fetch(state.apply(PageArrived(second.ticket, page(1, "b", epoch="f")), 0.0))
    assert again.query.since is None
    assert again.query.after == ""


def test_events_during_a_listing_are_asked_for_after_it() -> None:
    state = RootState(None)
    fetch = only_fetch(state.apply(Announced(True), 0.0))
    assert state.apply(Told(batch(4, 4, "x")), 0.0) == []
    actions = state.apply(PageArrived(fetch.ticket, page(3, "a")), 0.0)
    assert only_fetch(actions).query.since == Cursor("e", 3)


def test_answers_to_a_listing_given_up_are_ignored() -> None:
    state = RootState(None)
    fetch = only_fetch(state.apply(Announced(True), 0.0))
    state.apply(Announced(False), 0.0)
    assert state.apply(PageArrived(fetch.ticket, page(3, "a")), 0.0) == []
    assert state.apply(FetchFailed(fetch.ticket, SourceUnavailableError("away")), 0.0) == []


def test_a_publisher_that_goes_away_leaves_the_root_offline_since_then() -> None:
    state = live_at(7)
    assert state.apply(Announced(False, Cursor("e", 7)), 42.0) == [TellStatus(False)]
    assert state.freshness == catalog.Freshness(False, 42.0, "its publisher is away")
    assert state.apply(Announced(True, Cursor("e", 7)), 50.0) == [TellStatus(True)]


def test_a_lost_link_leaves_the_root_offline_until_a_heartbeat() -> None:
    state = live_at(7)
    assert state.apply(LinkLost(), 42.0) == [TellStatus(False)]
    assert state.apply(Told(batch(8, 7)), 43.0) == [TellStatus(True)]


def test_failed_fetches_are_tried_again_later_and_later() -> None:
    state = RootState(None)
    fetch = only_fetch(state.apply(Announced(True), 0.0))
    delays = []
    for _ in range(12):
        (later,) = state.apply(FetchFailed(fetch.ticket, SourceUnavailableError("refused")), 0.0)
        assert isinstance(later, RetryLater)
        delays.append(later.delay_s)
        fetch = only_fetch(state.apply(RetryDue(), 0.0))
    assert delays == sorted(delays)
    assert delays[0] <= 1
    assert delays[-1] == 30
    assert state.freshness.reason == "refused"


def test_a_retry_that_is_not_needed_any_more_does_nothing() -> None:
    assert live_at(7).apply(RetryDue(), 0.0) == []


def test_a_replica_that_cannot_take_a_page_is_listed_again_later() -> None:
    state = live_at(7)
    actions = state.apply(StoreFailed(IntegrityError("malformed entry"), None), 0.0)
    assert [type(a) for a in actions] == [RetryLater, TellStatus]
    assert only_fetch(state.apply(RetryDue(), 0.0)).query.since is None
    assert state.freshness.reason == "malformed entry"


def test_dropped_events_are_asked_for() -> None:
    assert only_fetch(live_at(7).apply(EventsLost(), 0.0)).query.since == Cursor("e", 7)


def test_an_endless_catalog_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "MAX_ENTRIES", 3)
    state = RootState(None)
    fetch = only_fetch(state.apply(Announced(True), 0.0))
    fetch = only_fetch(state.apply(PageArrived(fetch.ticket, page(1, "a b", next_path="b")), 0.0))
    (later,) = state.apply(PageArrived(fetch.ticket, page(1, "c d", next_path="d")), 0.0)
    assert isinstance(later, RetryLater)
    assert "3 entries" in state.freshness.reason
    assert issubclass(TooLargeError, ValueError)


class Origin:
    """A source's catalog, its event log and what it says over a network that loses, repeats and reorders."""

    def __init__(self) -> None:
        self.epoch = 0
        self.seq = 0
        self.paths: dict[str, int] = {}
        self.deleted: dict[str, int] = {}
        self.sent: list[EventBatch] = []

    def change(self, path: str) -> None:
        self.seq += 1
        if path in self.paths:
            del self.paths[path]
            self.deleted[path] = self.seq
            event = Event("delete", path)
        else:
            self.paths[path] = self.seq
            self.deleted.pop(path, None)
            event = Event("put", path, Entry(path, "group"))
        self.sent.append(EventBatch("r", str(self.epoch), self.seq, self.seq, (event,)))

    def forget(self) -> None:
        self.epoch += 1
        self.seq = 1
        self.paths = {p: 1 for p in self.paths if p != "a"}
        self.deleted = {}

    @property
    def cursor(self) -> Cursor:
        return Cursor(str(self.epoch), self.seq)

    def answer(self, fetch: Fetch) -> PageArrived | FetchFailed:
        since = fetch.query.since
        if since is not None and (since.epoch != str(self.epoch) or since.seq > self.seq):
            return FetchFailed(fetch.ticket, ResyncError("list again"))
        low = since.seq if since else 0
        known = sorted(p for p, s in self.paths.items() if s > low and p > fetch.query.after)
        deleted = tuple(p for p, s in self.deleted.items() if s > low) if since else ()
        items = tuple(json.dumps({"path": p, "kind": "group"}) for p in known[:2])
        more = known[1] if len(known) > 2 else None
        return PageArrived(fetch.ticket, CatalogPage(str(self.epoch), self.seq, items, deleted, more))


class Replica:
    """Performs actions as ``followed_root`` does, on a set of paths."""

    def __init__(self, origin: Origin) -> None:
        self.state = RootState(None)
        self.origin = origin
        self.paths: set[str] = set()
        self.fetches: list[Fetch] = []
        self.online = False

    def tell(self, stimulus: catalog.Stimulus) -> None:
        for action in self.state.apply(stimulus, 0.0):
            match action:
                case Fetch():
                    self.fetches.append(action)
                case ReplaceReplica(pages):
                    self.paths = {e.path for p in pages for e in p.entries()}
                case UpdateReplica(pages):
                    for p in pages:
                        self.paths -= set(p.deleted)
                        self.paths |= {e.path for e in p.entries()}
                case ApplyBatch(told):
                    for event in told.events:
                        (self.paths.add if event.change == "put" else self.paths.discard)(event.path)
                case TellStatus(online):
                    assert online != self.online
                    self.online = online
                case RetryLater():
                    pass

    def answer_one(self, fail: bool = False) -> None:
        fetch = self.fetches.pop(0)
        if fail:
            self.tell(FetchFailed(fetch.ticket, SourceUnavailableError("lost")))
        else:
            self.tell(self.origin.answer(fetch))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(5, 60))
def test_the_replica_becomes_the_truth_whatever_the_network_does(seed: int, steps: int) -> None:
    random_ = random.Random(seed)
    origin = Origin()
    replica = Replica(origin)
    for _ in range(steps):
        dice = random_.random()
        if dice < 0.35:
            origin.change(random_.choice("abcdefg"))
        elif dice < 0.38:
            origin.forget()
        elif dice < 0.65 and origin.sent:  # any batch: late, twice, or never
            replica.tell(Told(random_.choice(origin.sent)))
        elif dice < 0.72:
            replica.tell(Told(EventBatch("r", str(origin.epoch), origin.seq + 1, origin.seq)))
        elif dice < 0.76:
            replica.tell(random_.choice([LinkLost(), Announced(False), EventsLost(), RetryDue()]))
        elif dice < 0.80:
            replica.tell(Announced(True, random_.choice([None, origin.cursor])))
        elif replica.fetches:
            replica.answer_one(fail=random_.random() < 0.2)
        if replica.state.is_live and not replica.fetches and replica.state.cursor == origin.cursor:
            assert replica.paths == set(origin.paths)
    # The network heals: one heartbeat is enough, two if the first is spent on noticing the source.
    for _ in range(2):
        replica.tell(Announced(True, origin.cursor))
        replica.tell(Told(EventBatch("r", str(origin.epoch), origin.seq + 1, origin.seq)))
        while replica.fetches:
            replica.answer_one()
    assert replica.paths == set(origin.paths)
    assert replica.state.cursor == origin.cursor
    assert replica.state.is_live
