"""When a change of files is told: half-written files are not announced, growing ones seldom.

Decided from what is shown and from the time that is given: it asks no file system and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..storage.generation import Generation

__all__ = ["Changes", "Debouncer"]

GROWING_S = 5.0
STORM_PATHS = 1000


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
    state: Generation | None
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
    >>> state = Generation(1, 2, 10, 0, 0)
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

    def saw(self, path: Path, state: Generation | None, now_s: float, age_s: float) -> None:
        """Note a change.

        Parameters
        ----------
        state : Generation or None
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
            self.lost(now_s)

    def lost(self, now_s: float) -> None:
        """Anything may have changed: there were more changes than are told apart."""
        self._busy.clear()
        if self._storm is None:
            self._storm = _Busy(None, now_s + self.quiet_s, now_s + GROWING_S)
        self._storm.due_s = now_s + self.quiet_s

    def _wait_s(self, age_s: float, *, is_new: bool) -> float:
        if age_s < 0:  # another clock than ours
            return self.quiet_s
        if age_s < self.quiet_s:
            return self.quiet_s - age_s
        # Busy files whose time was set back (`cp -p` at its end) are waited for like any other.
        return 0.0 if is_new else self.quiet_s

    def due(self, now_s: float, state_of: Callable[[Path], Generation | None]) -> Changes:
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
