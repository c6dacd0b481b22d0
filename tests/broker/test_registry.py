"""The broker's decisions: whose a name is, who is there, who follows what."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.broker import registry as registry_module
from caterva2_jupyter.broker.registry import Registry
from caterva2_jupyter.core.catalog import Cursor
from caterva2_jupyter.errors import (
    ConflictError,
    IntegrityError,
    RootNotFoundError,
    RootTakenError,
    TooManyRequestsError,
)

HERE, ELSEWHERE = "http://here:8001", "http://elsewhere:8001"
START = Cursor("life", 0)


def online(registry: Registry, name: str = "foo") -> bool:
    return registry.root(name).online


def registered(name: str = "foo", owner: str = "alice", http: str = HERE) -> Registry:
    registry = Registry()
    registry.register(name, http, owner)
    return registry


def test_a_name_belongs_to_the_owner_that_took_it():
    registry = registered()
    with pytest.raises(RootTakenError, match="'foo' belongs to another publisher, at here:8001"):
        registry.register("foo", ELSEWHERE, "mallory")
    assert registry.root("foo").http == HERE


def test_a_name_stays_its_owners_while_it_is_offline():
    registry = registered()
    registry.connect("foo", 1, START, 0.0)
    registry.disconnect("foo", 1)
    with pytest.raises(RootTakenError):
        registry.register("foo", HERE, "mallory")


def test_an_owner_may_move_to_another_address():
    registry = registered()
    assert registry.register("foo", ELSEWHERE, "alice")
    assert registry.root("foo").http == ELSEWHERE


def test_registering_again_changes_nothing():
    registry = registered()
    assert not registry.register("foo", HERE, "alice")


def test_an_ownerless_registration_cannot_take_an_owned_name():
    with pytest.raises(RootTakenError):
        registered().register("foo", ELSEWHERE, "")


def test_an_ownerless_registration_of_the_same_address_leaves_the_owner():
    registry = registered()
    assert not registry.register("foo", HERE, "")
    assert registry.root("foo").owner == "alice"


def test_an_ownerless_name_belongs_to_its_address():
    registry = registered(owner="")
    assert not registry.register("foo", HERE, "")
    with pytest.raises(RootTakenError):
        registry.register("foo", ELSEWHERE, "")
    with pytest.raises(RootTakenError):
        registry.register("foo", ELSEWHERE, "mallory")


def test_the_publisher_at_an_ownerless_address_may_own_the_name():
    registry = registered(owner="")
    assert registry.register("foo", HERE, "alice")
    assert registry.root("foo").owner == "alice"
    assert not online(registry)


def test_a_removed_name_is_free():
    registry = registered()
    registry.remove("foo")
    assert registry.register("foo", ELSEWHERE, "bob")


def test_a_root_that_is_online_cannot_be_removed():
    registry = registered()
    registry.connect("foo", 1, START, 0.0)
    with pytest.raises(ConflictError, match="stop its publisher first"):
        registry.remove("foo")


def test_removing_an_unknown_root_says_so():
    with pytest.raises(RootNotFoundError, match="no root 'foo'"):
        Registry().remove("foo")


def test_more_roots_than_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(registry_module, "MAX_ROOTS", 2)
    registry = registered("a")
    registry.register("b", HERE, "alice")
    with pytest.raises(TooManyRequestsError):
        registry.register("c", HERE, "alice")


def test_a_root_is_online_while_its_publisher_is_connected():
    registry = registered()
    assert not online(registry)
    registry.connect("foo", 1, Cursor("life", 7), 0.0)
    assert online(registry)
    assert registry.root("foo").cursor == Cursor("life", 7)
    assert registry.disconnect("foo", 1)
    assert not online(registry)


def test_an_ownerless_root_counts_as_online():
    assert online(registered(owner=""))


def test_silence_takes_a_root_offline():
    registry = registered()
    registry.connect("foo", 1, START, 0.0)
    assert registry.expire(9.0, 10.0) == ()
    registry.hear("foo", 1, START, 9.0)
    assert registry.expire(18.0, 10.0) == ()
    assert registry.expire(19.0, 10.0) == (1,)
    assert not online(registry)


def test_who_was_not_listened_to_is_not_silent():
    registry = registered()
    registry.connect("foo", 1, START, now=100.0)
    registry.excuse(30.0, now=131.0)
    assert registry.expire(139.0, 10.0) == ()
    registry.excuse(30.0, now=139.0)  # heard meanwhile, or never: nobody is heard in the future
    assert registry.expire(148.0, 10.0) == ()
    assert registry.expire(149.0, 10.0) == (1,)


def test_a_new_connection_replaces_one_that_may_be_half_open():
    registry = registered()
    assert registry.connect("foo", 1, START, 0.0) is None
    assert registry.connect("foo", 2, Cursor("life", 5), 1.0) == 1
    assert not registry.hear("foo", 1, Cursor("life", 99), 2.0)
    assert not registry.disconnect("foo", 1)
    assert online(registry)
    assert registry.root("foo").seq == 5


def test_followers_are_told_apart_by_root():
    registry = Registry()
    assert registry.follow(1, ["foo", "bar"]) == {"foo", "bar"}
    assert registry.follow(2, ["foo"]) == {"foo"}
    assert registry.follow(1, ["bar", "new"]) == {"new"}
    assert registry.followers("foo") == {2}
    assert registry.followers("bar") == {1}
    registry.leave(1)
    assert registry.followers("bar") == frozenset()


def test_state_survives_a_restart_with_owners_offline():
    registry = registered()
    registry.connect("foo", 1, START, 0.0)
    registry.register("old", "http://old:8001", "")
    registry.register("socket", "http+unix://%2Ftmp%2Fpub", "alice")
    again = Registry.from_json(json.loads(json.dumps(registry.to_json())))
    assert {r.name: (r.http, r.owner, r.online) for r in again.roots()} == {
        "foo": (HERE, "alice", False),
        "old": ("http://old:8001", "", True),
        "socket": ("http+unix://%2Ftmp%2Fpub", "alice", False),
    }


def test_the_state_of_the_older_system_is_read():
    form = {"roots": {"foo": {"name": "foo", "http": "localhost:8001"}, "u": {"name": "u", "http": "/run/pub.sock"}}}
    assert [r.http for r in Registry.from_json(form).roots()] == [
        "http://localhost:8001",
        "http+unix://%2Frun%2Fpub.sock",
    ]


@pytest.mark.parametrize(
    "form", [None, [], {}, {"roots": []}, {"roots": {"foo": 1}}, {"roots": {"foo": {"name": "../x", "http": "h:1"}}}]
)
def test_a_state_that_makes_no_sense_is_refused(form):
    with pytest.raises((IntegrityError, ValueError)):
        Registry.from_json(form)


steps = st.lists(
    st.tuples(
        st.sampled_from(["register", "connect", "hear", "disconnect", "expire", "remove"]),
        st.sampled_from(["foo", "bar"]),
        st.sampled_from(["alice", "mallory", ""]),
        st.sampled_from([HERE, ELSEWHERE]),
        st.integers(1, 3),
    ),
    max_size=30,
)


@given(steps)
def test_no_sequence_of_requests_moves_a_name_to_another_owner(sequence):
    registry = Registry()
    now = 0.0
    for step, name, owner, http, connection in sequence:
        now += 1.0
        before = {r.name: r.owner for r in registry.roots()}
        try:
            if step == "register":
                registry.register(name, http, owner)
            elif step == "connect":
                registry.connect(name, connection, START, now)
            elif step == "hear":
                registry.hear(name, connection, START, now)
            elif step == "disconnect":
                registry.disconnect(name, connection)
            elif step == "expire":
                registry.expire(now, 3.0)
            else:
                registry.remove(name)
                before.pop(name)
        except (RootTakenError, RootNotFoundError, ConflictError):
            pass
        after = {r.name: r.owner for r in registry.roots()}
        assert all(after[name] == owner for name, owner in before.items() if owner)


def test_the_origin_of_a_root_gets_its_name_from_who_announced_it_meanwhile():
    registry = Registry()
    registry.register("foo", ELSEWHERE, "minder", origin="alice", via=("a" * 16,))
    registry.connect("foo", 1, START, 0.0)
    with pytest.raises(RootTakenError):
        registry.register("foo", HERE, "mallory")
    with pytest.raises(RootTakenError):
        registry.register("foo", HERE, "")
    registry = Registry.from_json(json.loads(json.dumps(registry.to_json())))
    assert registry.register("foo", HERE, "alice")
    root = registry.root("foo")
    assert (root.http, root.owner, root.origin, root.via, root.online) == (HERE, "alice", "", (), False)
    with pytest.raises(RootTakenError):
        registry.register("foo", ELSEWHERE, "minder", origin="alice")
