"""What the kernel tells of directories, and that none is left unwatched."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from caterva2_jupyter.publisher.inotify import Inotify
from tests.publisher.publishing import overflow

DEADLINE_S = 30.0


@pytest.fixture
def top(tmp_path: Path) -> Path:
    path = tmp_path / "top"
    path.mkdir()
    return path


@pytest.fixture
def inotify(top: Path) -> Iterator[Inotify]:
    with Inotify([top]) as watching:
        yield watching


def told(inotify: Inotify, path: Path) -> None:
    """Read on until a path is told."""
    end = time.monotonic() + DEADLINE_S
    while path not in inotify.read(0.1).paths:
        assert time.monotonic() < end, f"{path} was not told"


def read_all(inotify: Inotify) -> set[Path]:
    paths: set[Path] = set()
    while seen := inotify.read(0).paths:
        paths |= seen
    return paths


def check_watched(inotify: Inotify, top: Path) -> None:
    """Every directory that is there is watched, under its path, and nothing else."""
    read_all(inotify)
    there = {str(top), *(str(path) for path in top.rglob("*") if path.is_dir() and not path.is_symlink())}
    assert inotify.watched == there
    for directory in sorted(there):
        path = Path(directory, "probe")
        path.write_text("x")
        told(inotify, path)
        path.unlink()
        told(inotify, path)


def test_what_happens_to_a_file_is_told(inotify: Inotify, top: Path) -> None:
    assert not inotify.read(0).paths
    path = top / "a"
    path.write_text("1")
    told(inotify, path)
    path.write_text("2")
    told(inotify, path)
    os.utime(path)
    told(inotify, path)
    path.chmod(0o600)
    told(inotify, path)
    path.rename(top / "b")
    assert read_all(inotify) == {path, top / "b"}
    (top / "b").unlink()
    assert read_all(inotify) == {top / "b"}
    assert not read_all(inotify)


def test_names_of_any_kind_are_told(inotify: Inotify, top: Path) -> None:
    name = os.fsdecode(b"\xff\xfe not text\n")
    (top / name).mkdir()
    told(inotify, top / name)
    (top / name / name).write_text("x")
    told(inotify, top / name / name)


def test_a_file_that_is_mapped_is_told_when_it_is_closed(inotify: Inotify, top: Path) -> None:
    import mmap

    path = top / "a"
    path.write_bytes(bytes(4096))
    read_all(inotify)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0] = 1
    told(inotify, path)


def test_directories_that_come_go_and_move_are_watched_where_they_are(inotify: Inotify, top: Path) -> None:
    outside = top.with_name("outside")
    (outside / "x" / "y").mkdir(parents=True)
    (top / "a" / "b" / "c").mkdir(parents=True)
    check_watched(inotify, top)
    (top / "a" / "b").rename(top / "moved")
    check_watched(inotify, top)
    outside.rename(top / "in")
    check_watched(inotify, top)
    (top / "in" / "x").rename(outside)
    check_watched(inotify, top)
    (outside / "y" / "nobody's").write_text("x")
    assert not read_all(inotify)
    shutil.rmtree(top / "a")
    (top / "a").mkdir()
    check_watched(inotify, top)
    shutil.rmtree(top / "a")
    (top / "moved").rename(top / "a")
    check_watched(inotify, top)


def test_names_that_change_faster_than_they_are_told_are_watched_in_the_end(inotify: Inotify, top: Path) -> None:
    for name in "abc":
        (top / name / "below" / name).mkdir(parents=True)
    check_watched(inotify, top)
    for first, second, third in ("abc", "bca", "acb"):
        # They change places, and none is read of in between.
        (top / first).rename(top / "away")
        (top / second).rename(top / first)
        (top / third).rename(top / second)
        (top / "away").rename(top / third)
        check_watched(inotify, top)


def test_two_directories_that_are_exchanged_at_once_are_watched(inotify: Inotify, top: Path) -> None:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        pytest.skip("this C library does not exchange names")
    for name in "ab":
        (top / name / f"in {name}").mkdir(parents=True)
    check_watched(inotify, top)
    at_cwd, exchange = -100, 2
    if renameat2(at_cwd, os.fsencode(top / "a"), at_cwd, os.fsencode(top / "b"), exchange):
        pytest.skip("this file system does not exchange names")
    check_watched(inotify, top)


def test_links_to_directories_are_not_followed(inotify: Inotify, top: Path) -> None:
    (top / "a").mkdir()
    (top / "loop").symlink_to(top, target_is_directory=True)
    check_watched(inotify, top)


def test_a_link_may_be_what_is_watched(top: Path) -> None:
    link = top.with_name("link")
    link.symlink_to(top, target_is_directory=True)
    (top / "a").mkdir()
    with Inotify([link]) as inotify:
        (top / "a" / "b").write_text("x")
        told(inotify, link / "a" / "b")


def test_a_directory_that_was_refused_is_watched_when_its_permissions_change(top: Path, monkeypatch: Any) -> None:
    # Injected: nothing is refused to root.
    add, refused = Inotify._add_watch, {str(top / "a")}

    def add_unless_refused(self: Inotify, path: str, mask: int) -> int:
        if path in refused:
            raise PermissionError(errno.EACCES, "", path)
        return add(self, path, mask)

    monkeypatch.setattr(Inotify, "_add_watch", add_unless_refused)
    (top / "a" / "b").mkdir(parents=True)
    with Inotify([top]) as inotify:
        assert inotify.watched == {str(top)}
        refused.clear()
        (top / "a").chmod(0o700)
        told(inotify, top / "a")
        check_watched(inotify, top)


def test_that_the_directory_itself_went_is_told(inotify: Inotify, top: Path) -> None:
    (top / "a").mkdir()
    assert not inotify.read(1).is_gone
    shutil.rmtree(top / "a")
    assert not inotify.read(1).is_gone
    top.rmdir()
    assert inotify.read(DEADLINE_S).is_gone


def test_changes_that_the_kernel_dropped_are_told_as_lost(inotify: Inotify, top: Path) -> None:
    overflow(top)
    (top / "unheard").write_text("x")
    paths: set[Path] = set()
    while not (seen := inotify.read(1)).is_lost:
        assert seen.paths
        paths |= seen.paths
    assert top / "unheard" not in paths | read_all(inotify)


def test_more_directories_than_may_be_watched_are_an_error_with_the_cure(
    inotify: Inotify, top: Path, monkeypatch: Any
) -> None:
    def refuse(*args: object) -> int:
        ctypes.set_errno(errno.ENOSPC)
        return -1

    monkeypatch.setattr(inotify, "_add", refuse)
    (top / "a").mkdir()
    with pytest.raises(OSError, match="max_user_watches"):
        inotify.read(1)


def test_what_cannot_be_watched_leaves_nothing_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Inotify([tmp_path / "none"])
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Inotify([tmp_path / "file"])
    assert len(os.listdir("/proc/self/fd")) == before
