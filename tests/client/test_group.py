"""Groups are mappings of their direct children; a client's addresses reach below."""

from __future__ import annotations

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.conftest import ARRAYS
from tests.client.memory_service import MemoryService


def test_a_root_is_a_mapping_of_its_direct_children(client: cat2.Client) -> None:
    root = client["foo"]
    assert isinstance(root, cat2.Group)
    expected = sorted([*ARRAYS, "README.md", "big-attrs.b2nd", "dir1"])
    assert list(root) == expected
    assert len(root) == len(expected)
    assert list(root.keys()) == expected
    assert (root.name, root.path, root.root) == ("foo", "", "foo")
    assert root.attrs == {"title": "the root"}
    assert isinstance(root["dir1"], cat2.Group)
    assert isinstance(root["README.md"], cat2.RemoteFile)
    assert isinstance(root["cube.b2nd"], cat2.RemoteArray)


def test_items_and_values_come_from_one_listing(client: cat2.Client, memory_service: MemoryService) -> None:
    root = client["foo"]
    before = len(memory_service.requests)
    items = {name: type(thing).__name__ for name, thing in root.items()}
    assert memory_service.requests[before:] == ["GET roots/foo/catalog"]
    assert items["dir1"] == "Group"
    assert items["cube.b2nd"] == "RemoteArray"
    assert [type(v).__name__ for v in root.values()] == list(items.values())


def test_addresses_reach_below_and_the_suffix_may_be_left_out(client: cat2.Client) -> None:
    for thing in (
        client["foo/dir1/dir2/deep.b2nd"],
        client["foo/dir1/dir2/deep"],
        client["foo"]["dir1/dir2/deep"],
        client["foo"]["dir1"]["dir2"]["deep.b2nd"],
        client["foo/"]["dir1/"]["dir2/deep"],
    ):
        assert thing.path == "dir1/dir2/deep.b2nd"
        assert thing[1, 1] == 4
    group = client["foo/dir1"]
    assert group.attrs == {"title": "a group"}
    assert list(group) == ["dir2", "notes.txt", "pickled.b2nd"]
    assert "dir2/deep" in group
    assert "dir2/shallow" not in group
    assert 7 not in group
    assert "foo" in client
    assert "foo/dir1" in client
    assert "bar" not in client
    assert "bar/x" not in client


def test_walk_gives_every_dataset_below_relative_to_the_group(client: cat2.Client) -> None:
    assert list(client["foo/dir1"].walk()) == ["dir2/deep.b2nd", "notes.txt", "pickled.b2nd"]
    assert "dir1/dir2/deep.b2nd" in list(client["foo"].walk())
    assert "dir1" not in list(client["foo"].walk())


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["dir2", "notes.txt", "pickled.b2nd"]),
        ("**/*.b2nd", ["dir2/deep.b2nd", "pickled.b2nd"]),
        ("*/*.b2nd", ["dir2/deep.b2nd"]),
        ("n*.txt", ["notes.txt"]),
        ("nothing", []),
    ],
)
def test_glob(client: cat2.Client, pattern: str, expected: list[str]) -> None:
    assert list(client["foo/dir1"].glob(pattern)) == expected


def test_a_listing_of_many_pages_is_complete() -> None:
    root = MemoryRoot()
    names = [f"{i:05}.txt" for i in range(2500)]
    for name in names:
        root.set(f"dir/{name}", b"x")
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        assert list(client["foo/dir"]) == names
        assert service.requests.count("GET roots/foo/catalog") > 2


def test_what_is_not_there_is_the_error_that_the_service_raised(client: cat2.Client) -> None:
    with pytest.raises(cat2.DatasetNotFoundError, match=r"nothing\.b2nd") as raised:
        client["foo/nothing.b2nd"]
    assert isinstance(raised.value, FileNotFoundError)
    assert type(raised.value) is cat2.DatasetNotFoundError
    assert str(raised.value).count("\n") == 0
    with pytest.raises(cat2.RootNotFoundError, match="bar"):
        client["bar"]
    with pytest.raises(cat2.RootNotFoundError):
        client["bar/x"]
    assert client["foo"].get("nothing") is None
    assert client["foo"].get("..", 7) == 7
    assert client["foo"].get("dir1/notes.txt").read() == b"notes"
    for path in ("", "..", "a/../b", "/a", "a\0"):
        with pytest.raises(cat2.InvalidPathError):
            client["foo"][path]


def test_what_cannot_be_served_is_listed_and_says_why_when_read(client: cat2.Client) -> None:
    thing = client["foo/dir1/pickled"]
    assert isinstance(thing, cat2.UnsupportedDataset)
    assert "object" in thing.reason
    assert thing.reason in repr(thing)
    for read in (lambda: thing[0], lambda: np.asarray(thing), lambda: thing[...]):
        with pytest.raises(cat2.UnsupportedDatasetError, match="object") as raised:
            read()
        assert isinstance(raised.value, TypeError)
    assert dict(client["foo/dir1"].items())["pickled.b2nd"].reason == thing.reason


def test_roots_have_a_status(client: cat2.Client) -> None:
    assert list(client.roots) == ["foo"]
    status = client.roots["foo"]
    assert (status.name, status.online) == ("foo", True)


def test_a_root_is_followed_once_when_it_is_opened() -> None:
    root = MemoryRoot({"a.txt": b"a"})
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        assert not client.roots["foo"].followed
        client["foo"]
        client["foo/a.txt"]
        assert client.roots["foo"].followed
        assert service.requests.count("POST roots/foo/follow") == 1
        client.unfollow("foo")
        assert not client.roots["foo"].followed
        client["foo/a.txt"]
        assert client.roots["foo"].followed
        client.follow("foo")
        with pytest.raises(cat2.RootNotFoundError):
            client.follow("bar")


def test_what_the_command_line_needs(client: cat2.Client, memory_service: MemoryService) -> None:
    entry = client.entry("foo/cube")
    assert entry.path == "cube.b2nd"
    assert client.metadata("foo/cube")["geometry"]["shape"] == [7, 11, 5]
    assert [e.path for e in client.entries("foo/dir1", depth=1)] == ["dir1/dir2", "dir1/notes.txt", "dir1/pickled.b2nd"]
    assert [e.path for e in client.entries("foo", q="deep kind:array")] == ["dir1/dir2/deep.b2nd"]
    assert client.url("foo/README.md") == f"{memory_service.url}/api/fetch/foo/README.md"
    assert client.health() == {"status": "ok", "service": "subscriber"}
    client.announce("foo/dir1")
    assert memory_service.directory.announced == [("foo", "dir1")]
    with pytest.raises(cat2.DatasetNotFoundError):
        list(client.entries("foo/nothing"))
