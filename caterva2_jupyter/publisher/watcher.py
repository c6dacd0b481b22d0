"""Which files below a directory changed, told in an event loop when they are quiet.

`Watcher` asks the file system in a thread of its own, by notification or by looking again and again. It does not
open files: whether one can be read is found out by the root. What is worth telling is the `Debouncer`'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from .debouncer import Changes, Debouncer
from .inotify import Inotify, Seen
from .polling import file_state, poll_changes

__all__ = ["Watcher"]

log = logging.getLogger("caterva2_jupyter.publisher")

TICK_S = 0.05
GATHER_S = 0.02
FALLBACK_POLL_S = 2.0
IDENTITY_CHECK_S = 1.0


class _CannotWatchError(Exception):
    """The operating system does not tell of changes there."""


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
            try:
                self._watch(identity, is_first)
            except _CannotWatchError as error:
                # Not so when it was only removed before the watch began.
                if self._poll_s == 0 and identity is not None and _identity(self._watched) == identity:
                    log.warning("cannot be told of changes of %s (%s): looking every %g s instead",
                                self._watched, error, FALLBACK_POLL_S)  # fmt: skip
                    self._poll_s = FALLBACK_POLL_S
            except Exception:
                # A catalog that cannot be read now, say: that nobody watches any more would be noticed by nobody.
                log.exception("watching %s has failed: it is begun again", self._watched)
                self._stop.wait(IDENTITY_CHECK_S)
            is_first = False
            self._call(self._ready.set)
            while not self._stop.is_set() and _identity(self._watched) is None:
                self._stop.wait(IDENTITY_CHECK_S)

    def _watch(self, identity: object, is_first: bool) -> None:
        """Tell changes until what is watched is not what is there, or more has to be watched."""
        is_lost = is_watching = False
        with closing(self._observe()) as observed:
            for seen in observed:
                if not (is_first or is_watching):
                    # What happened while nobody watched is not known. Told from within the new watch:
                    # what happens while everything is looked at is told of as well.
                    self._tell(Changes(everything=True))
                is_watching = True
                self._call(self._ready.set)
                is_lost = is_lost or seen.is_lost
                changes = self._step(seen)
                # Replaced or unmounted.
                if seen.is_gone or _identity(self._watched) != identity:
                    return
                if changes.everything and is_lost:
                    return  # there may be directories that are not watched
                if changes:
                    self._tell(changes)

    def _step(self, seen: Seen) -> Changes:
        is_file = not self._watched.is_dir()
        state_of = partial(file_state, follow_links=is_file)
        now_s, wall_ns = time.monotonic(), time.time_ns()
        for path in seen.paths:
            state = state_of(path)
            age_s = 0.0 if state is None else (wall_ns - state.mtime_ns) / 1e9
            self._debouncer.saw(path, state, now_s, age_s)
        if seen.is_lost:
            self._debouncer.lost(now_s)
        return self._debouncer.due(now_s, state_of)

    def _observe(self) -> Generator[Seen]:
        """What happens, or nothing, at least every ``TICK_S``; from the first answer on, nothing is missed."""
        if self._poll_s > 0:
            yield from map(Seen, poll_changes(self._watched, self._poll_s, TICK_S, self._stop))
            return
        try:
            yield from self._be_told()
        except OSError as error:
            raise _CannotWatchError(error.strerror) from error

    def _be_told(self) -> Iterator[Seen]:
        is_file = not self._watched.is_dir()
        # A file is replaced by renaming, and so is a link to it: that is told to their directories.
        places = {self._watched, Path(os.path.realpath(self._watched))} if is_file else {self._watched}
        directories = sorted({path.parent for path in places} if is_file else places)
        with Inotify(directories, recursive=not is_file) as inotify:
            yield Seen()
            while not self._stop.is_set():
                seen = inotify.read(TICK_S)
                if is_file and seen.paths:
                    seen = Seen(frozenset({self._watched} if seen.paths & places else ()), seen.is_lost, seen.is_gone)
                yield seen
                if seen.paths:
                    self._stop.wait(GATHER_S)  # changes come in numbers


def _identity(path: Path) -> object:
    """Which directory it is, or where the file is that a path leads to (it may be replaced); None: nothing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if path.is_dir() else os.path.realpath(path)
