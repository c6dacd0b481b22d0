"""What changed below a directory, found by looking again and again: for file systems that do not tell."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..storage.generation import Generation

__all__ = ["file_state", "poll_changes"]

MAX_SHARE = 0.1
"""Of the time, that is spent on looking: a large directory is looked at more seldom than was asked for."""


def file_state(path: Path, *, follow_links: bool = False) -> Generation | None:
    """The state of a file now; None when there is none."""
    try:
        return Generation.from_stat(os.stat(path, follow_symlinks=follow_links))
    except (OSError, ValueError):
        return None


def poll_changes(watched: Path, poll_s: float, tick_s: float, stop: threading.Event) -> Iterator[frozenset[Path]]:
    """Paths that changed, or none, at least every ``tick_s``; what is there when it begins is no change.

    Parameters
    ----------
    watched : Path
        A directory, with all below it, or a file.
    poll_s : float
        From one look to the next, unless looking takes long.
    """
    begun_s = time.monotonic()
    before = _snapshot(watched)
    ended_s = time.monotonic()
    yield frozenset()
    while not stop.wait(min(tick_s, poll_s)):
        if time.monotonic() < ended_s + max(poll_s, (ended_s - begun_s) / MAX_SHARE):
            yield frozenset()
            continue
        begun_s = time.monotonic()
        after = _snapshot(watched)
        ended_s = time.monotonic()
        changed = {p for p, state in after.items() if before.get(p) != state} | (before.keys() - after.keys())
        before = after
        yield frozenset(changed)


def _snapshot(watched: Path) -> dict[Path, Generation]:
    """States of all files below; of directories too, without their times, which only repeat the rest."""
    found: dict[Path, Generation] = {}
    if not watched.is_dir():
        state = file_state(watched, follow_links=True)
        return {} if state is None else {watched: state}
    waiting = [watched]
    while waiting:
        for item in _items(waiting.pop()):
            path = Path(item.path)
            with suppress(OSError):  # gone meanwhile
                status = item.stat(follow_symlinks=False)
                if item.is_dir(follow_symlinks=False):
                    waiting.append(path)
                    found[path] = Generation(status.st_dev, status.st_ino, 0, 0, 0)
                else:
                    found[path] = Generation.from_stat(status)
    return found


def _items(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as items:
            return list(items)
    except OSError:
        return []  # gone meanwhile, or not ours to read
