"""Nothing outside of a root is ever opened, whatever is swapped in and whenever."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from caterva2_jupyter.errors import AccessDeniedError, DatasetNotFoundError
from caterva2_jupyter.storage.safe_open import open_directory, open_file, read_at


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a secret beside it, and a sibling whose name begins with the root's."""
    base = tmp_path / "data"
    (base / "dir").mkdir(parents=True)
    (base / "dir" / "file").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "data-secret").mkdir()
    (tmp_path / "data-secret" / "file").write_bytes(b"outside")
    return base


def content(root: Path, path: str) -> bytes:
    with open_file(root, path) as opened:
        return read_at(opened.fd, 100, 0)


def test_a_file_is_opened_and_says_where_it_is(root: Path) -> None:
    with open_file(root, "dir/file") as opened:
        assert (opened.path, opened.status.st_size, read_at(opened.fd, 3, 2)) == ("dir/file", 6, b"sid")


@pytest.mark.parametrize("target", ["dir/file", "{root}/dir/file", "./dir/../dir/file", "{root}/./dir//file"])
def test_a_link_that_stays_inside_is_followed(root: Path, target: str) -> None:
    os.symlink(target.format(root=root), root / "link")
    with open_file(root, "link") as opened:
        assert (opened.path, read_at(opened.fd, 6, 0)) == ("dir/file", b"inside")


def test_a_root_may_be_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    os.symlink(root, tmp_path / "alias")
    os.symlink(tmp_path / "alias" / "dir" / "file", root / "link")
    assert content(tmp_path / "alias", "link") == b"inside"
    assert content(tmp_path / "alias", "dir/file") == b"inside"


@pytest.mark.parametrize(
    "target",
    [
        "../secret",
        "../data-secret/file",
        "{parent}/secret",
        "{root}-secret/file",
        "{root}/../secret",
        "/etc/passwd",
        "/proc/self/environ",
        "/",
        "dir/../../secret",
        "..",
    ],
)
def test_a_link_that_leaves_the_root_is_refused(root: Path, target: str) -> None:
    os.symlink(target.format(root=root, parent=root.parent), root / "link")
    for path in ("link", "link/file", "link/secret", "link/etc/passwd"):
        with pytest.raises(DatasetNotFoundError):
            open_file(root, path)
        with pytest.raises(DatasetNotFoundError):
            open_directory(root, path)


@pytest.mark.parametrize(
    "path", ["../secret", "dir/../../secret", "..", "dir/file/x", "nope", "dir", "", "a\0b", "x" * 300]
)
def test_what_is_no_file_of_the_root_is_not_found(root: Path, path: str) -> None:
    with pytest.raises(DatasetNotFoundError):
        open_file(root, path)


def test_links_in_a_circle_are_cut(root: Path) -> None:
    os.symlink("b", root / "a")
    os.symlink("a", root / "b")
    os.symlink("self/self", root / "self")
    for path in ("a", "self", "self/x"):
        with pytest.raises(DatasetNotFoundError, match="leads back to itself"):
            open_file(root, path)


def test_a_pipe_or_socket_neither_blocks_nor_opens(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe")
    monkeypatch.chdir(root)  # the name of a socket has at most about 100 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path in ("pipe", "socket"):
            with pytest.raises(DatasetNotFoundError, match="not a regular file"):
                open_file(root, path)
    os.symlink("/dev/zero", root / "device")
    with pytest.raises(DatasetNotFoundError):
        open_file(root, "device")


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """As a user with no privileges, where tests run as one who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_denied(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "dir" / "file").chmod(0)
    for folder in (root, root / "dir"):
        folder.chmod(0o755)
    monkeypatch.chdir(root)  # directories above it may be closed to others
    with as_somebody_else(), pytest.raises(AccessDeniedError, match="permission denied"):
        open_file(Path(), "dir/file")


@pytest.mark.parametrize("is_directory", [False, True])
def test_a_link_that_is_swapped_in_at_any_moment_never_leads_out(root: Path, is_directory: bool) -> None:
    place = root / "dir" if is_directory else root / "dir" / "file"
    target = root.parent / "data-secret" if is_directory else root.parent / "secret"
    os.symlink(target, root / "evil")
    kept = place.with_name("kept")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.rename(place, kept)
            os.rename(root / "evil", place)
            os.rename(place, root / "evil")
            os.rename(kept, place)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(4000):
            try:
                seen.add(content(root, "dir/file"))
            except DatasetNotFoundError:
                seen.add(b"refused")
    finally:
        done.set()
        swapper.join()
    assert b"outside" not in seen


def test_no_file_stays_open(root: Path) -> None:
    os.symlink("../secret", root / "out")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(20):
        for path in ("dir/file", "out", "nope", "dir/nope", "dir"):
            try:
                open_file(root, path).close()
            except DatasetNotFoundError:
                continue
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before
