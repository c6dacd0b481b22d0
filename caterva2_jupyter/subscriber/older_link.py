"""A broker's link that tells, too, what happens in roots of publishers of the older system.

Their events do not come by our broker: it only passes on at which path something happened. The sources of these
roots find out what, and their events join what the broker says. Whether such a publisher is there shows in whether
it answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from ..core.source import Source
from ..errors import Caterva2Error
from ..web.outgoing_websocket import Backoff
from .broker_link import BrokerLink, LinkMessage, LookWanted, RootsKnown

__all__ = ["Lookable", "OlderLink"]

MAX_WAITING_MESSAGES = 1_000
MAX_RETRY_S = 30.0
MAX_LOOKS = 1_000
LOOKS_S = (0.0, 0.2, 1.0, 3.0)
"""It tells of a change before it answers accordingly."""

logger = logging.getLogger(__name__)


class Lookable(Source, Protocol):
    """A source that can be told where something happened."""

    async def look_at(self, path: str) -> bool:
        """Look at a path; was there a change?"""
        ...


class OlderLink:
    """See the module.

    Parameters
    ----------
    broker : BrokerLink
    source : callable
        The source of a root, by the URL of its publisher and its name.
    """

    def __init__(self, broker: BrokerLink, source: Callable[[str, str], Lookable]) -> None:
        self._broker, self._source = broker, source
        self._roots = RootsKnown(())
        self._older: dict[str, str] = {}
        self._followed: frozenset[str] = frozenset()
        self._streams: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._away: set[str] = set()
        self._messages: asyncio.Queue[LinkMessage] = asyncio.Queue(MAX_WAITING_MESSAGES)
        self._looks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._is_listening = False

    def follow(self, roots: Iterable[str]) -> None:
        """Set which roots' events are wanted, in place of those before."""
        self._followed = frozenset(roots)
        self._broker.follow(self._followed)
        self._set_streams()

    async def messages(self) -> AsyncIterator[LinkMessage]:
        """What the broker and the publishers say, without end."""
        self._is_listening = True
        hearing = asyncio.create_task(self._hear())
        try:
            while True:
                yield await self._messages.get()
        finally:
            self._is_listening = False
            tasks = [hearing, *self._streams.values(), *self._looks.values()]
            self._streams.clear()
            self._looks.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self) -> None:
        async with aclosing(self._broker.messages()) as heard:
            async for message in heard:
                match message:
                    case LookWanted(root, path):
                        self._start_look(root, path)
                    case RootsKnown(roots):
                        self._roots = message
                        self._older = {root.name: root.http for root in roots if root.is_older}
                        self._away &= set(self._older)
                        self._set_streams()
                        await self._tell_roots()
                    case _:
                        await self._messages.put(message)

    def _start_look(self, root: str, path: str) -> None:
        http = self._older.get(root)
        if http is None or (root, http) not in self._streams:
            return
        if (root, path) in self._looks:
            self._looks.pop((root, path)).cancel()
        elif len(self._looks) >= MAX_LOOKS:
            return  # it looks at everything now and then
        task = self._looks[root, path] = asyncio.create_task(self._look(http, root, path))
        task.add_done_callback(lambda done: self._looks.get((root, path)) is done and self._looks.pop((root, path)))

    async def _look(self, http: str, root: str, path: str) -> None:
        for wait_s in LOOKS_S:
            await asyncio.sleep(wait_s)
            try:
                if await self._source(http, root).look_at(path):
                    return
            except Caterva2Error as error:
                logger.debug("cannot look at %r in root %s: %s", path, root, error)

    async def _tell_roots(self) -> None:
        roots = (replace(root, online=root.online and root.name not in self._away) for root in self._roots.roots)
        await self._messages.put(RootsKnown(tuple(roots)))

    def _set_streams(self) -> None:
        if not self._is_listening:
            return
        wanted = {(name, http) for name, http in self._older.items() if name in self._followed}
        for key in set(self._streams) - wanted:
            self._streams.pop(key).cancel()
        for key in wanted - set(self._streams):
            self._streams[key] = asyncio.create_task(self._stream(*key))

    async def _stream(self, name: str, http: str) -> None:
        backoff = Backoff(high_s=MAX_RETRY_S)
        while True:
            try:
                async with aclosing(self._source(http, name).events(None)) as batches:  # type: ignore[type-var]
                    async for batch in batches:
                        backoff.reset()
                        await self._is_there(name, there=True)
                        await self._messages.put(batch)
            except Caterva2Error as error:
                logger.warning("no answer from the publisher of root %s at %s: %s", name, http, error)
                await self._is_there(name, there=False)
            await asyncio.sleep(backoff.next_s())

    async def _is_there(self, name: str, *, there: bool) -> None:
        if there == (name not in self._away):
            return
        if there:
            self._away.discard(name)
        else:
            self._away.add(name)
        await self._tell_roots()
