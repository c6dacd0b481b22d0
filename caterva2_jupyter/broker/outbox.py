"""What one subscriber still has to be told: bounded, whatever its connection can carry.

Pure. Events of a root that would not fit are replaced by one word, ``resync``: the subscriber then asks
the root's publisher what changed. The list of roots is kept once, in its newest form.
"""

from __future__ import annotations

import json
from collections import deque

__all__ = ["Outbox"]

MAX_MESSAGES = 1000
MAX_NCHARS = 4 * 1024 * 1024
_ROOTS = ""  # no root has that name


class Outbox:
    """Messages in the order in which they are to be sent.

    Parameters
    ----------
    max_messages, max_nchars : int
        Bounds on what waits; one message alone may be as long as the broker accepts messages.
    """

    def __init__(self, max_messages: int = MAX_MESSAGES, max_nchars: int = MAX_NCHARS) -> None:
        self._max_messages = max_messages
        self._max_nchars = max_nchars
        self._resync: dict[str, None] = {}
        self._waiting: deque[tuple[str, str]] = deque()
        self._roots: str | None = None
        self._nchars = 0
        self._heartbeat = False

    def put_roots(self, text: str) -> None:
        """The list of roots, in place of an older one that still waits, after all events told so far."""
        if self._roots is not None:
            self._waiting.remove((_ROOTS, self._roots))
        self._roots = text
        self._waiting.append((_ROOTS, text))

    def put(self, root: str, text: str) -> None:
        """A message about a root; dropped when the root is to be listed again anyway."""
        if root in self._resync:
            return
        fits = len(self._waiting) < self._max_messages and self._nchars + len(text) <= self._max_nchars
        if self._nchars and not fits:
            self._drop_events()
            self._resync[root] = None
            return
        self._waiting.append((root, text))
        self._nchars += len(text)

    def put_heartbeat(self) -> None:
        """A sign of life, if nothing else waits to be one."""
        self._heartbeat = not (self._waiting or self._resync)

    def _drop_events(self) -> None:
        self._resync |= dict.fromkeys(root for root, _ in self._waiting if root != _ROOTS)
        self._waiting = deque(item for item in self._waiting if item[0] == _ROOTS)
        self._nchars = 0

    def pop(self) -> str | None:
        """The next message; None when there is none."""
        if self._resync:
            root = next(iter(self._resync))
            del self._resync[root]
            return json.dumps({"type": "resync", "root": root})
        if self._waiting:
            root, text = self._waiting.popleft()
            if root == _ROOTS:
                self._roots = None
            else:
                self._nchars -= len(text)
            return text
        if self._heartbeat:
            self._heartbeat = False
            return json.dumps({"type": "heartbeat"})
        return None
