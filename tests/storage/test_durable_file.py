"""A file that is replaced is whole at every moment, and on disk when it is said to be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from caterva2_jupyter.storage.durable_file import replace_durably


def test_a_file_is_made_and_replaced_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"other"):
        replace_durably(path, data)
        assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    replace_durably(path, b"before")

    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="full"):
            replace_durably(path, b"after")
    assert path.read_bytes() == b"before"
    replace_durably(path, b"after")
    assert path.read_bytes() == b"after"


def test_the_file_is_on_disk_before_its_name_and_its_name_before_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(fd: int) -> None:
        steps.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        sync(fd)

    def note_replace(path: Path, goal: Path) -> Path:
        steps.append(f"replace {goal.name}")
        return replace(path, goal)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    replace_durably(tmp_path / "file", b"data")
    assert steps == ["sync file.new", "replace file", f"sync {tmp_path.name}"]
