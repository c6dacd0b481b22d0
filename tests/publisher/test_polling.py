"""Looking again and again: what it sees, and how often it looks."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from caterva2_jupyter.publisher import polling
from caterva2_jupyter.publisher.polling import poll_changes


class Clock(threading.Event):
    """Time that passes while somebody waits, or works."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now_s += timeout or 0
        return self.is_set()


@pytest.fixture
def clock(monkeypatch: Any) -> Clock:
    clock = Clock()
    monkeypatch.setattr(polling, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def until_something(changes: Iterator[frozenset[Path]]) -> frozenset[Path]:
    return next(paths for paths in changes if paths)


def test_what_size_and_time_do_not_show_is_seen(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "d" / "a"
    path.parent.mkdir()
    path.write_bytes(b"one")
    status = path.stat()
    changes = poll_changes(tmp_path, 2.0, 0.05, clock)
    assert next(changes) == frozenset()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert until_something(changes) == {path}
    path.unlink()
    path.parent.rmdir()
    assert until_something(changes) == {path, path.parent}


def test_a_directory_that_takes_long_to_look_at_is_looked_at_seldom(
    tmp_path: Path, clock: Clock, monkeypatch: Any
) -> None:
    looks: list[float] = []

    def look(watched: Path) -> dict[Path, Any]:
        looks.append(clock.now_s)
        clock.now_s += 3
        return {}

    monkeypatch.setattr(polling, "_snapshot", look)
    for _ in poll_changes(tmp_path, 2.0, 0.05, clock):
        if len(looks) == 4:
            break
    assert all(33 <= after - before < 34 for before, after in itertools.pairwise(looks))
