"""Hearing of roots from a publisher (or another subscriber) itself, with no broker.

It says the same as ``broker_link``: which roots there are, what changes in those that are followed, that
contact was lost. It asks for the list every few seconds, which is also how a publisher that is gone, or is
back, is noticed; changes come over one event stream per followed root.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

from ..core.roots import AnnouncedRoot
from ..core.source import Source
from ..errors import Caterva2Error, IntegrityError, ResyncError
from ..web.outgoing_websocket import Backoff
from .broker_link import BrokerLost, EventsLost, LinkMessage, RootsKnown

__all__ = ["PublisherLink"]

MAX_ROOTS = 10_000
MAX_WAITING_MESSAGES = 1_000

logger = logging.getLogger(__name__)


class PublisherLink:
    """What a service at a known address has to tell.

    Parameters
    ----------
    url : str
        Of the service.
    list_roots : callable
        Asks it for ``GET roots``: the decoded JSON.
    source : callable
        Gives the source of one of its roots, for its events.
    poll_s : float
        Seconds between two looks at the list of roots.
    ask_to_follow : callable, optional
        Has the service follow one of its roots itself, where it is a subscriber: it then keeps what passes.
    """

    def __init__(
        self,
        url: str,
        list_roots: Callable[[], Awaitable[Any]],
        source: Callable[[str], Source],
        poll_s: float = 5.0,
        ask_to_follow: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self.url = url
        self._ask_to_follow = ask_to_follow
        self._online: frozenset[str] = frozenset()
        self._list_roots = list_roots
        self._source = source
        self._poll_s = poll_s
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._followed: frozenset[str] = frozenset()
        self._messages: asyncio.Queue[LinkMessage] = asyncio.Queue(MAX_WAITING_MESSAGES)
        self._is_listening = False

    def follow(self, roots: Iterable[str]) -> None:
        """Set which roots' events are wanted, in place of those before."""
        self._followed = frozenset(roots)
        if self._is_listening:
            self._set_streams()

    async def messages(self) -> AsyncIterator[LinkMessage]:
        """What the service says, without end. Errors of the network never leave it."""
        self._is_listening = True
        self._set_streams()
        polling = asyncio.create_task(self._poll())
        try:
            while True:
                yield await self._messages.get()
        finally:
            self._is_listening = False
            tasks = [polling, *self._streams.values()]
            self._streams.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll(self) -> None:
        backoff = Backoff(high_s=self._poll_s)
        was_lost = False
        while True:
            try:
                roots = parse_roots(await self._list_roots(), self.url)
            except Caterva2Error as error:
                if not was_lost:
                    logger.warning("no answer from the publisher at %s: %s", self.url, error)
                    await self._messages.put(BrokerLost(str(error), is_source=True))
                was_lost = True
                await asyncio.sleep(backoff.next_s())
                continue
            was_lost = False
            backoff.reset()
            self._online = frozenset(root.name for root in roots if root.online)
            await self._messages.put(RootsKnown(roots))
            await asyncio.sleep(self._poll_s)

    def _set_streams(self) -> None:
        for name in set(self._streams) - self._followed:
            self._streams.pop(name).cancel()
        for name in self._followed - set(self._streams):
            self._streams[name] = asyncio.create_task(self._stream(name))

    async def _stream(self, name: str) -> None:
        backoff = Backoff(high_s=self._poll_s)
        while True:
            try:
                if self._ask_to_follow is not None:
                    await self._ask_to_follow(name)
                async with aclosing(self._source(name).events(None)) as batches:  # type: ignore[type-var]
                    async for batch in batches:
                        backoff.reset()
                        # A subscriber tells where a root is while its publisher is away, too: no sign of life.
                        if batch.events or name in self._online:
                            await self._messages.put(batch)
            except ResyncError:
                await self._messages.put(EventsLost(name))
            except Caterva2Error as error:
                # Whether it is gone, the list of roots tells; a stream alone may break for less.
                logger.debug("no events of root %s from %s: %s", name, self.url, error)
            await asyncio.sleep(backoff.next_s())


def parse_roots(form: Any, url: str) -> tuple[AnnouncedRoot, ...]:
    """The roots of a ``GET roots``, as if a broker had announced them at ``url``.

    Raises
    ------
    IntegrityError
    """
    listed = form.get("roots") if isinstance(form, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_ROOTS:
        raise IntegrityError(f"{url} answers with something that is not a list of roots")
    try:
        # Where it has them from is its business; for us it is where they are.
        return tuple(AnnouncedRoot.from_json({"online": True, **root, "http": url}) for root in listed)
    except TypeError as error:
        raise IntegrityError(f"{url} answers with something that is not a list of roots") from error
