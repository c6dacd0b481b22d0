"""Which files changed, told when they are quiet: half-written files are not announced, growing ones seldom.

`Debouncer` decides, from what it is shown and the time it is given; `Watcher` asks the file system in a thread
of its own, by notification or by looking again and again. It does not open files: whether one can be read is
found out by the root.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import watchfiles

__all__ = ["Changes", "Debouncer", "FileState", "Watcher", "file_state"]

log = logging.getLogger("caterva2_jupyter.publisher")

GROWING_S = 5.0
STORM_PATHS = 1000
TICK_S = 0.05
FALLBACK_POLL_S = 2.0
IDENTITY_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells that a file was written to."""

    inode: int
    nbytes: int
    mtime_ns: int


def file_state(path: Path) -> FileState | None:
    """The state of a file now; None when there is none."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return FileState(status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Changes:
    """What to look at again.

    Attributes
    ----------
    paths : frozenset of Path
    everything : bool
        More changed than is worth telling apart, or changes may have been lost.
    """

    paths: frozenset[Path] = frozenset()
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or bool(self.paths)

    def __or__(self, other: Changes) -> Changes:
        everything = self.everything or other.everything
        return Changes(frozenset() if everything else self.paths | other.paths, everything)


@dataclass(slots=True)
class _Busy:
    state: FileState | None
    due_s: float
    growing_due_s: float
    look_due_s: float = 0.0


class Debouncer:
    """Decides when a change is told.

    Parameters
    ----------
    quiet_s : float
        How long a file has to be left alone.
    may_grow : callable
        May this path be told while it is still being written to (every `GROWING_S`)? Not so for files that
        nobody has heard of: those are most likely being copied here.
    is_open_to_readers : callable
        Is it a file that nobody has heard of, and that can be read although it is written to? It is told at once.
    storm_paths : int
        With more busy paths than that, everything is looked at, once it is quiet.

    Examples
    --------
    >>> debouncer = Debouncer(quiet_s=0.2)
    >>> state = FileState(1, 10, 0)
    >>> debouncer.saw(Path("x"), state, now_s=100.0, age_s=0.05)
    >>> debouncer.due(100.1, lambda path: state), debouncer.due(100.2, lambda path: state).paths == {Path("x")}
    (Changes(paths=frozenset(), everything=False), True)
    """

    def __init__(
        self,
        quiet_s: float,
        may_grow: Callable[[Path], bool] = lambda path: True,
        storm_paths: int = STORM_PATHS,
        is_open_to_readers: Callable[[Path], bool] = lambda path: False,
    ) -> None:
        self.quiet_s = quiet_s
        self._may_grow = may_grow
        self._is_open_to_readers = is_open_to_readers
        self._storm_paths = storm_paths
        self._busy: dict[Path, _Busy] = {}
        self._storm: _Busy | None = None

    def __len__(self) -> int:
        return len(self._busy)

    def saw(self, path: Path, state: FileState | None, now_s: float, age_s: float) -> None:
        """Note a change.

        Parameters
        ----------
        state : FileState or None
            Of the file, after the change was told.
        now_s : float
            Monotonic.
        age_s : float
            Time since the file's modification time. A file that appears with an old one was moved here
            complete, and is told at once.
        """
        if self._storm is not None:
            self._storm.due_s = now_s + self.quiet_s
            return
        busy = self._busy.get(path)
        due_s = now_s + self._wait_s(age_s, is_new=busy is None)
        if busy is None:
            self._busy[path] = _Busy(state, due_s, now_s + GROWING_S)
        else:
            busy.state, busy.due_s = state, due_s
        if len(self._busy) > self._storm_paths:
            self._busy.clear()
            self._storm = _Busy(None, now_s + self.quiet_s, now_s + GROWING_S)

    def _wait_s(self, age_s: float, *, is_new: bool) -> float:
        if age_s < 0:  # another clock than ours
            return self.quiet_s
        if age_s < self.quiet_s:
            return self.quiet_s - age_s
        # Busy files whose time was set back (`cp -p` at its end) are waited for like any other.
        return 0.0 if is_new else self.quiet_s

    def due(self, now_s: float, state_of: Callable[[Path], FileState | None]) -> Changes:
        """What is to be told now."""
        if self._storm is not None:
            if now_s < min(self._storm.due_s, self._storm.growing_due_s):
                return Changes()
            # While it goes on, everything is looked at every `GROWING_S`, and once more at its end.
            if now_s >= self._storm.due_s:
                self._storm = None
            else:
                self._storm.growing_due_s = now_s + GROWING_S
            return Changes(everything=True)
        told: set[Path] = set()
        for path, busy in list(self._busy.items()):
            if now_s >= busy.due_s:
                # Not every write is told of (memory maps): ask again before calling it quiet.
                state = state_of(path)
                if state == busy.state:
                    told.add(path)
                    del self._busy[path]
                    continue
                busy.state, busy.due_s = state, now_s + self.quiet_s
            if now_s >= busy.growing_due_s:
                busy.growing_due_s = now_s + GROWING_S
                if self._may_grow(path):
                    told.add(path)
            elif now_s >= busy.look_due_s:
                is_open = self._is_open_to_readers(path)
                # Once is enough; otherwise not more often than others are told.
                busy.look_due_s = math.inf if is_open else now_s + self.quiet_s
                if is_open:
                    told.add(path)
        return Changes(frozenset(told))


class Watcher:
    """Watches a directory (recursively) or a file.

    Parameters
    ----------
    watched : Path
    quiet_s : float
    poll_s : float
        Look again and again after that time; 0: be told by the operating system.
    may_grow, is_open_to_readers : callable
        See `Debouncer`.
    """

    def __init__(
        self,
        watched: Path,
        quiet_s: float = 0.2,
        poll_s: float = 0.0,
        may_grow: Callable[[Path], bool] = lambda path: True,
        is_open_to_readers: Callable[[Path], bool] = lambda path: False,
    ) -> None:
        self._watched = Path(os.path.abspath(watched))
        self._poll_s = poll_s
        self._debouncer = Debouncer(quiet_s, may_grow, is_open_to_readers=is_open_to_readers)
        self._stop = threading.Event()
        self._is_gone = False
        self._ready = asyncio.Event()
        self._wake = asyncio.Event()
        self._waiting = Changes()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    async def start(self) -> None:
        """Begin to watch; changes from the return on are not missed."""
        self._thread.start()
        await self._ready.wait()

    async def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 5)

    async def next_changes(self) -> Changes:
        """Wait for changes since those given last; they add up while nobody asks."""
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        changes, self._waiting = self._waiting, Changes()
        return changes

    # In the thread

    def _tell(self, changes: Changes) -> None:
        def put() -> None:
            self._waiting |= changes
            self._wake.set()

        self._call(put)

    def _call(self, callback: Callable[[], object]) -> None:
        if not self._stop.is_set() and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(callback)
            except RuntimeError:
                self._stop.set()  # the loop was closed meanwhile

    def _run(self) -> None:
        is_first = True
        while not self._stop.is_set():
            identity = _identity(self._watched)
            self._is_gone = is_watching = False
            try:
                for paths in self._observe():
                    if not (is_first or is_watching):
                        # What happened while nobody watched is not known. Told from within the new watch:
                        # what happens while everything is looked at is told of as well.
                        self._tell(Changes(everything=True))
                    is_watching = True
                    self._call(self._ready.set)
                    self._step(paths)
                    # Replaced or unmounted: what is watched is not what is there.
                    if self._is_gone or _identity(self._watched) != identity:
                        break
            except (OSError, RuntimeError) as error:
                # Not so when it was only removed before the watch began.
                if self._poll_s == 0 and identity is not None and _identity(self._watched) == identity:
                    log.warning("cannot be told of changes of %s (%s): looking every %g s instead",
                                self._watched, error, FALLBACK_POLL_S)  # fmt: skip
                    self._poll_s = FALLBACK_POLL_S
            is_first = False
            self._call(self._ready.set)
            while not self._stop.is_set() and _identity(self._watched) is None:
                self._stop.wait(IDENTITY_CHECK_S)

    def _step(self, paths: set[Path]) -> None:
        now_s, wall_ns = time.monotonic(), time.time_ns()
        for path in paths:
            state = file_state(path)
            age_s = 0.0 if state is None else (wall_ns - state.mtime_ns) / 1e9
            self._debouncer.saw(path, state, now_s, age_s)
        changes = self._debouncer.due(now_s, file_state)
        if changes:
            self._tell(changes)

    def _observe(self) -> Iterator[set[Path]]:
        """Paths that changed, or nothing, at least every `TICK_S`."""
        if self._poll_s > 0:
            yield from _poll(self._watched, self._poll_s, self._stop)
            return
        is_file = not self._watched.is_dir()
        # A file is replaced by renaming: that is told to its directory.
        directory = self._watched.parent if is_file else self._watched
        for changes in watchfiles.watch(
            directory,
            watch_filter=None,
            debounce=100,
            step=25,
            rust_timeout=int(TICK_S * 1000),
            yield_on_timeout=True,
            stop_event=self._stop,
            raise_interrupt=False,
            force_polling=False,
            recursive=not is_file,
            ignore_permission_denied=True,
        ):
            # A new directory may have the inode of the one that was removed.
            self._is_gone = (watchfiles.Change.deleted, str(directory)) in changes
            paths = {Path(path) for _, path in changes}
            yield paths & {self._watched} if is_file else paths - {directory}


def _identity(path: Path) -> tuple[int, int] | None:
    """Which directory it is; for files, that there is one (they may be replaced)."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if path.is_dir() else (0, 0)


def _poll(watched: Path, poll_s: float, stop: threading.Event) -> Iterator[set[Path]]:
    before = _snapshot(watched)
    looked_s = time.monotonic()
    yield set()
    while not stop.wait(min(TICK_S, poll_s)):
        if time.monotonic() - looked_s < poll_s:
            yield set()
            continue
        after = _snapshot(watched)
        looked_s = time.monotonic()
        changed = {p for p, state in after.items() if before.get(p) != state} | (before.keys() - after.keys())
        before = after
        yield changed


def _snapshot(watched: Path) -> dict[Path, FileState]:
    """States of all files below; of directories too, without their times, which only repeat the rest."""
    found: dict[Path, FileState] = {}
    if not watched.is_dir():
        state = file_state(watched)
        return {} if state is None else {watched: state}
    waiting = [watched]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as items:
                for item in items:
                    status = item.stat(follow_symlinks=False)
                    if item.is_dir(follow_symlinks=False):
                        waiting.append(Path(item.path))
                        found[Path(item.path)] = FileState(status.st_ino, 0, 0)
                    else:
                        found[Path(item.path)] = FileState(status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:
            continue  # gone meanwhile, or not ours to read
    return found
