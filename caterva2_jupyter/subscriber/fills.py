"""Blocks that are fetched behind reads which exact slices have answered: how many at once, and when not.

It bounds, delays and ends fills; what a fill does is given by the caller (``sources``), and what is worth filling
is decided in ``exact_answers``. A fill that fails is no accident: who reads next pays for a slice again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..storage.block_cache import CachedVersion
from .flights import look_at_error

__all__ = ["Fills"]

MAX_FILLS = 2
"""Under way at once, each of one request at a time: readers have the other connections."""
MAX_FILL_NBYTES = 256 << 20
"""Predicted compressed bytes of all that are under way or wait for their turn."""
PATIENCE_S = 1.0
"""How long one request of a fill waits for readers to be done: some read all the time."""


class Fills:
    """The fills of one source. Used on the event loop only.

    Parameters
    ----------
    patience_s : float
        How long each request of a fill lets readers go first.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._slots = asyncio.Semaphore(MAX_FILLS)
        self._tasks: dict[asyncio.Task[None], CachedVersion] = {}
        self._nbytes = 0
        self._nreaders = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, version: CachedVersion, cbytes: float, fill: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Begin to fill behind a read; False when too much is under way, and the reader had better wait for the blocks.

        Parameters
        ----------
        version : CachedVersion
        cbytes : float
            Predicted bytes of what it fetches.
        fill : callable
            Makes the coroutine that fetches.
        """
        if self._is_closed or not self.has_room(cbytes):
            return False
        self._nbytes += int(cbytes)
        task = asyncio.create_task(self._fill(fill))
        self._tasks[task] = version

        def end(task: asyncio.Task[None]) -> None:
            del self._tasks[task]
            self._nbytes -= int(cbytes)

        task.add_done_callback(end)
        task.add_done_callback(look_at_error)
        return True

    def has_room(self, cbytes: float) -> bool:
        """Would so many bytes be taken now?"""
        return self._nbytes + int(cbytes) <= MAX_FILL_NBYTES

    async def _fill(self, fill: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with self._slots:
            await fill()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Whoever fetches for a reader goes before fills."""
        self._nreaders += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._nreaders -= 1
            if not self._nreaders:
                self._idle.set()

    async def let_readers_go_first(self) -> None:
        """Wait until nothing is fetched for readers, within bounds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                await self._idle.wait()

    def end_others(self, version: CachedVersion) -> None:
        """End the fills of other versions of a dataset: what they would bring is of the past."""
        for task, other in list(self._tasks.items()):
            if other.id == version.id and other.version != version.version:
                task.cancel()

    async def settle(self) -> None:
        """Wait until nothing is being filled."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def aclose(self) -> None:
        """End all fills, and take no more."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
