"""Downloads: whole or not at all, byte for byte or as a native file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.client.download import _boxes
from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.conftest import ARRAYS
from tests.client.hostile_server import HostileServer, response
from tests.client.memory_service import MemoryService


@pytest.mark.parametrize("path", sorted(ARRAYS))
def test_an_array_becomes_a_native_file_with_its_attributes(client: cat2.Client, tmp_path: Path, path: str) -> None:
    goal = tmp_path / "new" / path
    assert client["foo"][path].download(goal) == goal
    saved = blosc2.open(str(goal))
    expected = ARRAYS[path]
    assert saved.shape == expected.shape
    if expected.dtype == object:
        assert saved.dtype.kind == "U"
    else:
        assert saved.dtype == expected.dtype
    assert np.array_equal(saved[...], expected.astype(saved.dtype))
    assert saved.schunk.vlmeta[:] == {"units": "K", "n": 1.5}
    assert [p.name for p in goal.parent.iterdir()] == [path]


def test_chunks_blocks_and_dims_are_kept(client: cat2.Client, tmp_path: Path) -> None:
    saved = blosc2.open(str(client.download("foo/cube", tmp_path / "cube.b2nd")))
    assert (saved.chunks, saved.blocks) == ((3, 4, 5), (2, 3, 2))
    saved = blosc2.open(str(client.download("foo/dir1/dir2/deep", tmp_path / "deep.b2nd")))
    assert saved.schunk.vlmeta["dims"] == ["y", "x"]


def test_the_name_is_the_datasets_unless_given(
    client: cat2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert client["foo/dir1/notes.txt"].download() == Path("notes.txt")
    assert (tmp_path / "notes.txt").read_bytes() == b"notes"
    assert client["foo/dir1/notes.txt"].download(tmp_path) == tmp_path / "notes.txt"
    assert client.download("foo/dir1/notes.txt", f"{tmp_path}/sub/") == tmp_path / "sub" / "notes.txt"
    assert client.download("foo/cube", tmp_path / "any.name") == tmp_path / "any.name"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["any.name", "notes.txt", "sub"]


def test_a_file_that_was_there_is_replaced_only_when_all_has_come(client: cat2.Client, tmp_path: Path) -> None:
    goal = tmp_path / "a.txt"
    goal.write_text("old")
    with pytest.raises(cat2.UnsupportedDatasetError):
        client["foo/dir1/pickled"].download(goal)
    with pytest.raises(cat2.UnsupportedDatasetError, match="directory"):
        client.download("foo/dir1", goal)
    assert goal.read_text() == "old"
    client.download("foo/dir1/notes.txt", goal)
    assert goal.read_text() == "notes"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_progress_is_told_up_to_the_end(client: cat2.Client, tmp_path: Path) -> None:
    for address in ("foo/README.md", "foo/cube"):
        told: list[tuple[int, int]] = []
        client.download(address, tmp_path / "x", progress=lambda done, total, told=told: told.append((done, total)))
        nbytes = client[address].nbytes
        assert told[-1] == (nbytes, nbytes)
        assert told == sorted(told)


def test_a_file_goes_on_where_a_broken_connection_ended(client: cat2.Client, tmp_path: Path) -> None:
    body = np.random.default_rng(0).bytes(500_000)
    form = client.metadata("foo/README.md")
    etag = f'ETag: "{form["version"]}"'
    import json

    def answer(connection: Any, line: str, number: int) -> None:
        if "/file" not in line:
            connection.sendall(response(json.dumps(form).encode()))
        elif "Range: bytes=" in server.requests[-1]:
            start = int(server.requests[-1].partition("Range: bytes=")[2].partition("-")[0])
            assert f'If-Range: "{form["version"]}"' in server.requests[-1]
            part = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
            whole = response(body[start:], "application/octet-stream", "206 Partial Content", etag, part)
            connection.sendall(whole if start > 300_000 else whole[:-100_000])
        else:
            connection.sendall(response(body, "application/octet-stream", "200 OK", etag)[:-300_000])

    with HostileServer(answer) as server:
        goal = cat2.connect(server.url).download("foo/README.md", tmp_path / "x")
        assert goal.read_bytes() == body
        assert sum("/file" in line for line in server.lines) == 3


@pytest.mark.parametrize("fault", ["whole", "shifted", "version"])
def test_a_part_that_is_not_the_one_asked_for_is_refused(client: cat2.Client, tmp_path: Path, fault: str) -> None:
    import json

    body = b"0123456789" * 1000
    form = client.metadata("foo/README.md")
    etag = f'ETag: "{form["version"]}"'

    def answer(connection: Any, line: str, number: int) -> None:
        if "/file" not in line:
            connection.sendall(response(json.dumps(form).encode()))
        elif "Range: bytes=" not in server.requests[-1]:
            connection.sendall(response(body, "application/octet-stream", "200 OK", etag)[:-5000])
        elif fault == "whole":  # N4: a server that takes no notice of the range
            connection.sendall(response(body, "application/octet-stream", "200 OK", etag))
        elif fault == "shifted":
            part = f"Content-Range: bytes 0-{len(body) - 1}/{len(body)}"
            connection.sendall(response(body, "application/octet-stream", "206 Partial Content", etag, part))
        else:
            start = server.requests[-1].partition("Range: bytes=")[2].partition("-")[0]
            part = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
            connection.sendall(response(body[int(start) :], "x/y", "206 Partial Content", 'ETag: "new"', part))

    with HostileServer(answer) as server, pytest.raises(cat2.Caterva2Error):
        cat2.connect(server.url).download("foo/README.md", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_changed_is_not_downloaded(tmp_path: Path) -> None:
    root = MemoryRoot({"a.b2nd": np.arange(10), "a.txt": b"old"})
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        array, file = client["foo/a"], client["foo/a.txt"]
        root.set("a.b2nd", np.arange(20))
        root.set("a.txt", b"new one")
        service.rescan()
        for thing in (array, file):
            with pytest.raises(cat2.DatasetChangedError, match="refresh"):
                thing.download(tmp_path / "x")
        assert list(tmp_path.iterdir()) == []
        file.refresh().download(tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == b"new one"


def test_boxes_cover_an_array_once_in_whole_chunks() -> None:
    for shape, chunks in (
        ((7, 9, 4), (3, 2, 4)),
        ((5,), (7,)),
        ((), ()),
        ((3, 0), (2, 1)),
        ((4000, 70, 70), (3, 60, 70)),
    ):
        geometry = Geometry(shape, chunks, chunks, np.dtype("f8"))
        seen = np.zeros(shape, dtype=int)
        for box in _boxes(geometry):
            place = tuple(slice(a.start, a.stop) for a in box)
            seen[place] += 1
            assert all(a.start % c == 0 for a, c in zip(box, chunks, strict=True))
            assert seen[place].nbytes <= 64 << 20
        assert (seen == 1).all()
