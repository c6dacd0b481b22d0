"""Frames stay open for reads to come, and a change is told all the same."""

from __future__ import annotations

import os
from pathlib import Path

import blosc2
import numpy as np
import pytest

from caterva2_jupyter.core.blocks import checksum_seed
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.errors import DatasetChangedError
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.open_frames import MAX_AGE_S, MAX_FRAMES, OpenFrames
from caterva2_jupyter.storage.safe_open import read_cached_at


def write(path: Path, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 50, (40, 30)).astype("i4")
    part = path.with_suffix(".tmp")
    blosc2.asarray(values, chunks=(20, 30), blocks=(5, 10), urlpath=str(part), mode="w")
    part.rename(path)
    return values


@pytest.fixture
def root(tmp_path: Path) -> DirectoryRoot:
    return DirectoryRoot(tmp_path, "owner")


def entry_of(root: DirectoryRoot) -> Entry:
    return next(entry for entry, _ in root.scan([]) if entry.kind == "array")


def read(root: DirectoryRoot, entry: Entry, blocks: list[int]) -> list[bytes]:
    with root.reading(entry) as read_chunk:
        from caterva2_jupyter.core.chunk_grid import BlockPlan
        from caterva2_jupyter.core.selection import parse_basic

        assert entry.geometry is not None
        projection = next(iter(BlockPlan(entry.geometry, parse_basic((), entry.geometry.shape).selection)))
        return [bytes(record.body) for record in read_chunk(projection, blocks)]


def nopen(path: Path) -> int:
    links = (os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd"))
    return sum(os.path.exists(link) and os.readlink(link).removesuffix(" (deleted)") == str(path) for link in links)


def test_a_read_at_once_gives_what_a_read_gives(root: DirectoryRoot, tmp_path: Path) -> None:
    write(tmp_path / "a.b2nd")
    entry = entry_of(root)
    assert root.read_at_once(entry, 0, [3, 4], 1 << 20) is None  # nothing is open yet
    expected = read(root, entry, [3, 4])
    record = root.read_at_once(entry, 0, [3, 4], 1 << 20)
    if record is None:
        pytest.skip("this file system does not tell what is in memory")
    assert [bytes(record.body)] == expected
    record.verify(checksum_seed(entry.id, entry.version))
    assert root.read_at_once(entry, 0, [3, 4], 10) is None
    assert root.read_at_once(entry, 1, [0], 1 << 20) is None  # its layout was not read yet


@pytest.mark.parametrize("change", ["write", "replace", "remove", "chmod"])
def test_an_open_frame_that_changed_is_told(root: DirectoryRoot, tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.b2nd"
    write(path)
    entry = entry_of(root)
    read(root, entry, [0])
    if change == "write":
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")
    elif change == "replace":
        write(path, 1)
    elif change == "remove":
        path.unlink()
    else:
        path.chmod(0o640)
    with pytest.raises(DatasetChangedError):
        root.read_at_once(entry, 0, [0], 1 << 20) or read(root, entry, [0])
    with pytest.raises(DatasetChangedError):
        read(root, entry, [0])
    assert nopen(path) == 0


def test_frames_are_closed_after_a_while_and_when_there_are_many(tmp_path: Path) -> None:
    now = [0.0]
    frames = OpenFrames(lambda: now[0])
    root = DirectoryRoot(tmp_path, "owner")
    root._files._open_frames = frames
    for number in range(MAX_FRAMES + 3):
        write(tmp_path / f"{number:02}.b2nd")
    for entry in [entry for entry, _ in root.scan([]) if entry.kind == "array"]:
        read(root, entry, [0])
    assert sum(nopen(path) for path in tmp_path.iterdir()) == MAX_FRAMES
    assert root.close_idle()
    now[0] = MAX_AGE_S + 1
    assert not root.close_idle()
    assert sum(nopen(path) for path in tmp_path.iterdir()) == 0


def test_what_is_reached_by_a_link_does_not_stay_open(root: DirectoryRoot, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    write(tmp_path / "there" / "a.b2nd")
    (tmp_path / "link.b2nd").symlink_to("there/a.b2nd")
    entry = next(entry for entry, _ in root.scan([]) if entry.path == "link.b2nd")
    read(root, entry, [0])
    assert nopen(tmp_path / "there" / "a.b2nd") == 0


def test_reading_what_is_in_memory_ends_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abcdef")
    with open(path, "rb") as file:
        assert read_cached_at(file.fileno(), 10, 0) is None
        found = read_cached_at(file.fileno(), 3, 2)
        assert found is None or bytes(found) == b"cde"
