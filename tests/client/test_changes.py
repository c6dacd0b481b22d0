"""Changes are told while they happen, over broken connections too."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.client.changes import Change, changes_of
from caterva2_jupyter.errors import RootNotFoundError
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.memory_service import MemoryService
from tests.processes import wait_for


@pytest.fixture
def root() -> MemoryRoot:
    return MemoryRoot({"dir/a.b2nd": np.arange(3), "b.b2nd": np.arange(4)})


@pytest.fixture
def service(root: MemoryRoot) -> Iterator[MemoryService]:
    with MemoryService({"foo": root}) as running:
        yield running


def started(service: MemoryService) -> bool:
    return any("event-lines" in request for request in service.requests)


def test_a_watch_hears_of_changes_below_its_path(service: MemoryService, root: MemoryRoot) -> None:
    heard: list[Change] = []
    with cat2.connect(service.url) as client, client.watch("foo/dir", heard.append) as watch:
        wait_for(lambda: started(service))
        root.set("b.b2nd", np.arange(5))
        root.set("dir/a.b2nd", np.arange(6))
        root.set("dir/new.b2nd", np.arange(7))
        service.rescan()
        wait_for(lambda: {c.path for c in heard} >= {"dir/a.b2nd", "dir/new.b2nd"})
        root.delete("dir/new.b2nd")
        service.rescan()
        wait_for(lambda: Change("delete", "dir/new.b2nd") in heard)
        assert not any(c.path == "b.b2nd" for c in heard)
        assert watch.is_running
    assert not watch.is_running


def test_an_unknown_root_is_an_error(service: MemoryService) -> None:
    with cat2.connect(service.url) as client, pytest.raises(RootNotFoundError):
        next(client.changes("nothing"))


def test_what_the_callback_raises_ends_the_watch_and_is_kept(service: MemoryService, root: MemoryRoot) -> None:
    def fail(change: Change) -> None:
        raise ValueError(change.path)

    with cat2.connect(service.url) as client:
        watch = client.watch("foo", fail)
        wait_for(lambda: started(service))
        root.set("b.b2nd", np.arange(9))
        service.rescan()
        wait_for(lambda: watch.error is not None)
        assert not watch.is_running
        assert "ended" in repr(watch)


def test_an_iterator_ends_when_it_is_told_to(service: MemoryService) -> None:
    stop = threading.Event()
    with cat2.connect(service.url) as client:
        stop.set()
        assert list(changes_of(client._session.service, "foo", stop=stop)) == []


@pytest.mark.parametrize(
    ("change", "path", "concerns"),
    [
        (Change("put", "a/b"), "", True),
        (Change("put", "a/b"), "a/b", True),
        (Change("put", "a/bc"), "a/b", False),
        (Change("delete", "a"), "a/b", True),
        (Change("listed"), "a/b", True),
    ],
)
def test_what_a_change_concerns(change: Change, path: str, concerns: bool) -> None:
    assert change.concerns(path) == concerns
