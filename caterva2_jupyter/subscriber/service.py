"""A subscriber with all that it owns: threads, cache, connections, frames. Both servers start and stop this.

It chooses directories and makes the parts; what they do is theirs.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..config import Grant, SubscriberConfig
from ..core.metadata import Entry
from ..core.source import Source
from ..storage.block_cache import BlockCache
from ..web.compute_pool import ComputePool
from ..web.source_handlers import Limits
from .areas import Areas
from .broker_link import BrokerLink
from .cache_access import CacheAccess
from .cache_keeper import CacheKeeper
from .displays import Displays, installed_displays
from .followed_state import FollowedState
from .frames import FrameMaker
from .grants_file import GrantsFile
from .guests import Guests
from .older_link import OlderLink
from .pages import Assets
from .permissions import Permissions
from .publisher_link import PublisherLink
from .read_counts import ReadCounts
from .republisher import Republisher, read_owner
from .seen_roots import AllRoots
from .sources import CachedSource
from .subscriber import Link, Subscriber
from .upstreams import HttpUpstreams

__all__ = ["SubscriberService"]

WORKERS = 8

log = logging.getLogger("caterva2_jupyter.subscriber")


class SubscriberService:
    """The parts of a subscriber, put together as the configuration says.

    Parameters
    ----------
    config : SubscriberConfig

    Attributes
    ----------
    subscriber : Subscriber
    compute : ComputePool
        Where bytes from elsewhere are decoded.
    frames : FrameMaker
    limits : Limits
    areas : Areas
    all_roots : AllRoots
        The subscriber's roots and the areas, as each visitor may see them.
    assets : Assets
        What browsers load.
    cache_access : CacheAccess
    cache_keeper : CacheKeeper
    executor : ThreadPoolExecutor

    Raises
    ------
    ConfigError
        When certificates cannot be used.
    """

    def __init__(self, config: SubscriberConfig) -> None:
        self.config = config
        self.executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="caterva2-subscriber")
        self.compute = ComputePool()
        self.frames = FrameMaker(self.compute)
        self.limits = Limits()
        self.assets = Assets(Displays(installed_displays()))
        self._counts = ReadCounts()
        self.cache_access = CacheAccess(self.executor, self._counts)
        ident = secrets.token_hex(8)
        self._upstreams = HttpUpstreams(config.network, ident, self.compute)
        self._republisher: Republisher | None = None
        self._cache: BlockCache | None = None
        self.subscriber = Subscriber(
            self._upstreams,
            self._links(),
            self._cached,
            FollowedState(config.statedir / "db.json"),
            self.executor,
            (*config.follow, *config.republish),
            ident=ident,
            trusts_events=not config.network.mac,
            accepts_rollbacks=config.rollbacks == "accept",
        )
        self.cache_keeper = CacheKeeper(self.subscriber, self.executor, self._counts)
        self.guests = Guests(self.subscriber, self._upstreams.list_roots, self._publisher_link, config.network)
        self.areas = Areas(config.statedir, config.quota_nbytes, self.executor, self.compute)
        # Processes of their own: one that waits for an operand keeps nobody from values.
        self._expressions = ComputePool()
        permissions = Permissions(config.login, config.anonymous, config.grants, config.groups)
        self.all_roots = AllRoots(self.subscriber, self.areas, permissions, self._expressions)
        self._following: asyncio.Task[None] | None = None

    def _links(self) -> list[Link]:
        links: list[Link] = []
        if self.config.broker is not None:
            broker = BrokerLink(self.config.broker, self.config.network)
            links.append(OlderLink(broker, self._upstreams.older_source))
        for url in self.config.publishers:
            links.append(self._publisher_link(url))
        for url in self.config.upstreams:
            links.append(self._publisher_link(url, asks_to_follow=True))
        return links

    def _publisher_link(self, url: str, *, asks_to_follow: bool = False) -> PublisherLink:
        return PublisherLink(
            url,
            lambda: self._upstreams.list_roots(url),
            lambda root: self._upstreams.source(url, root),
            ask_to_follow=(lambda root: self._upstreams.ask_to_follow(url, root)) if asks_to_follow else None,
        )

    def _cached(self, source: Source, lookup: Callable[[str], Entry | None]) -> Source:
        assert self._cache is not None
        return CachedSource(source, self._cache, self.executor, lookup, self._counts, self.compute)

    async def start(self, url: str = "") -> None:
        """Open the cache, and begin to listen.

        Parameters
        ----------
        url : str
            By which other services reach this one; without it no root can be announced again.
        """
        config = self.config
        cache = await self.subscriber.run(BlockCache, config.cachedir / "blocks", config.cache_quota_nbytes)
        self._cache = cache
        self.cache_keeper.open(cache)
        await self.subscriber.run(self.cache_access.open, cache)
        # Of two processes with one cache directory, the second takes another one, and replicas beside it.
        catalogs = cache.directory.with_name(cache.directory.name.replace("blocks", "catalogs", 1))
        owner_id = await self.subscriber.run(read_owner, config.statedir / "owner")
        await self.subscriber.run(self.areas.start, catalogs, owner_id)
        await self.subscriber.start(catalogs)
        if config.login and config.file is not None:
            grants = GrantsFile(config.file, config.id, self._grant)
            self._following = asyncio.create_task(grants.follow())
        if url and config.republish and config.broker is not None:
            self._republisher = Republisher(
                self.subscriber, config.republish, config.broker, config.network, owner_id, url
            )
            self._republisher.start()

    def _grant(self, grants: tuple[Grant, ...], groups: Mapping[str, tuple[str, ...]]) -> None:
        before = self.all_roots.permissions
        if (grants, groups) != (before.grants, before.groups):
            self.all_roots.permissions = replace(before, grants=grants, groups=groups)
            log.warning("grants are those that %s has now", self.config.file)

    async def stop(self) -> None:
        """Stop, and let another process have the cache."""
        if self._following is not None:
            self._following.cancel()
        if self._republisher is not None:
            await self._republisher.stop()
        await self.subscriber.stop()
        await self.areas.stop()
        await self.compute.stop()
        await self._expressions.stop()
        self.executor.shutdown(wait=False, cancel_futures=True)
        if self._cache is not None:
            self._cache.close()
