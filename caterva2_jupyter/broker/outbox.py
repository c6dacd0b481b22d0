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
        self._roots: str | None = None
        self._resync: dict[str, None] = {}
        self._waiting: deque[tuple[str, str]] = deque()
        self._nchars = 0

    def put_roots(self, text: str) -> None:
        """The list of roots, in place of an older one that still waits."""
        self._roots = text

    def put(self, root: str, text: str) -> None:
        """A message about a root; dropped when the root is to be listed again anyway."""
        if root in self._resync:
            return
        fits = len(self._waiting) < self._max_messages and self._nchars + len(text) <= self._max_nchars
        if self._waiting and not fits:
            self._resync |= dict.fromkeys([*(r for r, _ in self._waiting), root])
            self._waiting.clear()
            self._nchars = 0
            return
        self._waiting.append((root, text))
        self._nchars += len(text)

    def pop(self) -> str | None:
        """The next message; None when there is none."""
        if self._roots is not None:
            text, self._roots = self._roots, None
            return text
        if self._resync:
            root = next(iter(self._resync))
            del self._resync[root]
            return json.dumps({"type": "resync", "root": root})
        if self._waiting:
            _, text = self._waiting.popleft()
            self._nchars -= len(text)
            return text
        return None
