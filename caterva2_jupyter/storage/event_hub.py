"""Changes of roots, told to listeners in this process: each has a bounded queue of its own.

A sender never waits: a listener that is too slow loses its queue and is told to list again. It keeps no
history (``catalog_store`` does) and knows no sockets. To be used from one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from ..core.events import EventBatch
from ..errors import ResyncError

__all__ = ["EventHub", "Listener"]


class EventHub:
    """Fans batches of events out to listeners.

    Parameters
    ----------
    max_batches, max_events : int
        What a listener may have waiting.
    """

    def __init__(self, max_batches: int = 1000, max_events: int = 20_000) -> None:
        self.max_batches, self.max_events = max_batches, max_events
        self._listeners: set[Listener] = set()

    @property
    def nlisteners(self) -> int:
        return len(self._listeners)

    def publish(self, batch: EventBatch) -> None:
        """Hand a batch to every listener."""
        for listener in self._listeners:
            listener._put(batch)

    def resync(self) -> None:
        """Tell every listener to list again."""
        for listener in self._listeners:
            listener._overflow()

    def listen(self) -> Listener:
        """A listener to what is published from now on, to be closed (``with``)."""
        listener = Listener(self)
        self._listeners.add(listener)
        return listener

    def _forget(self, listener: Listener) -> None:
        self._listeners.discard(listener)


class Listener:
    """What one listener has waiting. Made by ``EventHub.listen``."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._waiting: deque[EventBatch] = deque()
        self._nevents = 0
        self._lost = False
        self._something = asyncio.Event()

    def _put(self, batch: EventBatch) -> None:
        if self._lost:
            return
        if len(self._waiting) >= self._hub.max_batches or self._nevents + len(batch.events) > self._hub.max_events:
            self._overflow()
            return
        self._waiting.append(batch)
        self._nevents += len(batch.events)
        self._something.set()

    def _overflow(self) -> None:
        self._waiting.clear()
        self._nevents = 0
        self._lost = True
        self._something.set()

    async def get(self, timeout_s: float | None = None) -> EventBatch | None:
        """The next batch; None when there was none in that time.

        Raises
        ------
        ResyncError
            Once, when batches were lost; listening goes on from there.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._something.wait()
        except TimeoutError:
            return None
        if self._lost:
            self._lost = False
            self._something.clear()
            raise ResyncError("changes came faster than they were read: list again")
        batch = self._waiting.popleft()
        self._nevents -= len(batch.events)
        if not self._waiting:
            self._something.clear()
        return batch

    def close(self) -> None:
        self._hub._forget(self)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
