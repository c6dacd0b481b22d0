"""Announcing followed roots at the broker, so that others read them from here, through the cache.

A root keeps its name, its ids and its versions; what the broker gets besides is whose it is and the way that
it has come. It is announced only while it is live here: who reads it elsewhere has to know when it is stale.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from ..config import Address, NetworkConfig
from ..core.catalog import Cursor
from ..core.events import EventBatch
from ..core.roots import AnnouncedRoot
from ..errors import ConfigError, RootNotFoundError
from ..web.publishing_link import BrokerLink
from .followed_root import FollowedRoot
from .subscriber import Subscriber

__all__ = ["Republisher", "read_owner"]

CHECK_S = 0.5

logger = logging.getLogger(__name__)


class Republisher:
    """Registers roots for as long as they are followed and live.

    Parameters
    ----------
    subscriber : Subscriber
    roots : iterable of str
        Names of the roots to announce.
    broker, network
        Where, and with which publish token.
    owner_id : str
        Secret by which the names that were taken are known to be ours (``read_owner``).
    url : str
        By which others reach this subscriber, its prefix included.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        roots: Iterable[str],
        broker: Address,
        network: NetworkConfig,
        owner_id: str,
        url: str,
    ) -> None:
        self._subscriber, self._roots = subscriber, tuple(roots)
        self._broker, self._network = broker, network
        self._owner_id, self._url = owner_id, url
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep(root)) for root in self._roots]
        for task in self._tasks:
            task.add_done_callback(_look_at_error)

    async def stop(self) -> None:
        """The broker then shows the roots as offline."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, root: str) -> None:
        announced: AnnouncedRoot | None = None
        telling_of: FollowedRoot | None = None
        running: asyncio.Task[None] | None = None
        try:
            while True:
                followed = self._subscriber.followed_root(root)
                wanted = self._announcement(root, followed)
                if wanted != announced or (wanted is not None and followed is not telling_of):
                    announced, telling_of = wanted, followed
                    await _end(running)
                    running = None
                    if wanted is not None and followed is not None:
                        running = asyncio.create_task(self._link(followed, wanted).run())
                await asyncio.sleep(CHECK_S)
        finally:
            await _end(running)

    def _announcement(self, root: str, followed: FollowedRoot | None) -> AnnouncedRoot | None:
        """What to tell the broker, apart from where the root's catalog is; None while there is nothing to tell."""
        if followed is None or not followed.freshness.live:
            return None
        try:
            origin = self._subscriber.origin(root)
        except RootNotFoundError:
            return None
        via = (*origin.via, self._subscriber.ident)
        return AnnouncedRoot(root, self._url, via=via, origin=origin.origin or origin.owner)

    def _link(self, followed: FollowedRoot, announced: AnnouncedRoot) -> BrokerLink:
        async def events(since: Cursor | None) -> AsyncIterator[EventBatch]:
            async for batch in followed.events(since):
                yield batch

        return BrokerLink(
            broker=self._broker,
            network=self._network,
            name=announced.name,
            owner_id=self._owner_id,
            advertise_url=announced.http,
            cursor=lambda: followed.cursor or Cursor("none", 0),
            events=events,
            via=announced.via,
            origin=announced.origin,
        )


def _look_at_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("a root is not announced any more", exc_info=task.exception())


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def read_owner(path: Path) -> str:
    """The secret by which a broker knows this subscriber; made when there is none.

    Raises
    ------
    ConfigError
    """
    try:
        text = path.read_text().strip() if path.exists() else ""
        if len(text) >= 16:
            return text
        text = secrets.token_hex(16)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.touch(0o600)
        part.write_text(text + "\n")
        part.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot keep an identity in {path} ({error}): choose another --statedir") from None
    return text
