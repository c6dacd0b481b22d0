"""What a subscriber is, whichever server it lives in: roots that it knows, those it follows, and their sources.

It puts the parts together: links tell which roots there are and what changes, a followed root keeps its
catalog, a cache lies over it. Handlers ask it for sources and statuses; it knows no HTTP of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..core.events import EventBatch
from ..core.metadata import Entry
from ..core.paths import parse_root_name
from ..core.roots import AnnouncedRoot
from ..core.source import Source
from ..errors import Caterva2Error, DatasetNotFoundError, RootNotFoundError, SourceUnavailableError
from ..storage.catalog_store import CatalogStore
from .broker_link import BrokerLost, EventsLost, LinkMessage, LookWanted, RootsKnown
from .catalog import Announced, LinkLost, Told
from .catalog import EventsLost as EventsOfRootLost
from .followed_root import FollowedRoot
from .followed_state import FollowedState

__all__ = ["CachedSourceMaker", "Link", "Subscriber", "Upstreams"]

T = TypeVar("T")

FIRST_CONTACT_S = 2.0
MAX_HOPS = 16
LISTING_S = 4.0  # clients of the old REST give up after 5 s

logger = logging.getLogger(__name__)


class Link(Protocol):
    """Whoever tells of roots: a broker, or a publisher itself."""

    def follow(self, roots: Iterable[str]) -> None:
        """Set which roots' events are wanted."""
        ...

    def messages(self) -> AsyncIterator[LinkMessage]:
        """What it tells, without end."""
        ...


class Upstreams(Protocol):
    """The services that roots are read from."""

    def source(self, url: str, root: str, *, is_older: bool = False) -> Source:
        """The source of a root that is served at ``url``, maybe by a publisher of the older system."""
        ...

    def expect(self, url: str, root: str, *, online: bool, nhops: int) -> None:
        """Is a root said to be there, or not worth a long wait? ``nhops`` subscribers are on the way to it."""
        ...

    async def announce(self, url: str, root: str, path: str, *, is_publisher: bool = True) -> None:
        """Have the service look at a path of a root now, or have it done by the publisher that it knows."""
        ...

    async def forget(self, url: str) -> None:
        """Nothing is read from there any more."""
        ...

    async def close(self) -> None: ...


class CachedSourceMaker(Protocol):
    """Puts the block cache over a source."""

    def __call__(self, source: Source, lookup: Callable[[str], Entry | None]) -> Source:
        """``lookup`` is the entry at a path as last known here; it is called in a thread."""
        ...


@dataclass(slots=True)
class _KnownRoot:
    """A root that a link told of (``link`` is None: only remembered from an earlier run)."""

    announced: AnnouncedRoot
    link: Link | None = None
    is_online: bool = False


class Subscriber:
    """A directory of sources: every root that is followed, and every other one that is known.

    Parameters
    ----------
    upstreams : Upstreams
        Closed by ``stop``.
    links : sequence of Link
        Of several that tell of one root, the first counts.
    cached : CachedSourceMaker
    state : FollowedState
        Remembers which roots are followed.
    executor : Executor
        For files and databases; closed by its owner.
    follow : iterable of str
        Roots to follow as soon as they are known.
    heartbeat_s : float
        Interval of heartbeats to listeners.
    ident : str
        Id of this subscriber among those that read from one another; a new one by default.
    trusts_events : bool
        Are entries taken from events? Otherwise events only say that it is time to ask the source.
    accepts_rollbacks : bool
        Are datasets that went back to an older state taken?

    Attributes
    ----------
    ident : str

    Notes
    -----
    Two subscribers may name each other. Every root is told with the way that it comes (``via``): one that has
    come through here already is not taken, and none is given to a subscriber that it comes from.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        links: Sequence[Link],
        cached: CachedSourceMaker,
        state: FollowedState,
        executor: Executor,
        follow: Iterable[str] = (),
        heartbeat_s: float = 5.0,
        ident: str = "",
        trusts_events: bool = True,
        accepts_rollbacks: bool = True,
    ) -> None:
        self.ident = ident or secrets.token_hex(8)
        self._trusts_events, self._accepts_rollbacks = trusts_events, accepts_rollbacks
        self._upstreams, self._links, self._cached = upstreams, tuple(links), cached
        self._state, self._executor = state, executor
        self._catalogs = Path()
        self._wanted = frozenset(follow)
        self._heartbeat_s = heartbeat_s
        self._known: dict[str, _KnownRoot] = {}
        self._followed: dict[str, FollowedRoot] = {}
        self._changing = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._nchanges = 0
        self._heard: set[int] = set()
        self._guests: dict[Link, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # Life

    async def start(self, catalogs: Path) -> None:
        """Take up what was followed in an earlier run, and begin to listen.

        Parameters
        ----------
        catalogs : Path
            Directory of the replicas of catalogs, which no other process uses.
        """
        self._catalogs = catalogs
        remembered = await self.run(self._state.load)
        for announced in remembered:
            self._known.setdefault(announced.name, _KnownRoot(announced))
            try:
                await self._begin(announced.name)
            except Caterva2Error as error:
                logger.warning("root %s cannot be taken up: %s", announced.name, error)
        self._tell_links()
        for link in self._links:
            self._spawn(self._listen(link))

    async def stop(self) -> None:
        """Stop listening, close replicas and connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        followed = list(self._followed.values())
        self._followed.clear()
        await asyncio.gather(*(root.close() for root in followed), return_exceptions=True)
        await self._upstreams.close()

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run blocking work in the subscriber's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the subscriber ended", exc_info=task.exception())

    # What handlers ask

    async def roots(self) -> list[dict[str, Any]]:
        """Every root that is known, by name: where it is served, is it followed, is it online."""
        if not self._known:
            await self._first_contact(lambda: bool(self._known))
        return [self._status(name) for name in sorted(self._known)]

    def _status(self, name: str) -> dict[str, Any]:
        known, followed = self._known[name], self._followed.get(name)
        form: dict[str, Any] = {
            "name": name,
            "http": known.announced.http,
            "owner": known.announced.owner,
            "followed": followed is not None,
            "online": known.is_online,
            "via": [*known.announced.via, self.ident],
        }
        cursor = known.announced.cursor
        if followed is not None:
            freshness, cursor = followed.freshness, followed.cursor
            form["online"] = freshness.live
            if freshness.since is not None:
                form["since"] = datetime.fromtimestamp(freshness.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            if freshness.reason:
                form["reason"] = freshness.reason
            if followed.nwent_back:
                form["went_back"] = followed.nwent_back
        if cursor is not None:
            form |= {"epoch": cursor.epoch, "seq": cursor.seq}
        return form

    def is_followed(self, root: str) -> bool:
        return root in self._followed

    def followed_root(self, root: str) -> FollowedRoot | None:
        """A root that is followed."""
        return self._followed.get(root)

    def source(self, root: str) -> Source:
        """The source of a root; one that is not followed is read from its publisher, and nothing kept.

        Raises
        ------
        RootNotFoundError
        """
        followed = self._followed.get(root)
        if followed is not None:
            return followed
        announced = self._find(root).announced
        return self._upstreams.source(announced.http, root, is_older=announced.is_older)

    def _find(self, root: str) -> _KnownRoot:
        known = self._known.get(root)
        if known is None:
            raise RootNotFoundError(f"no root {root!r} is known here: is its publisher running?")
        return known

    def check_asker(self, root: str, asker: str) -> None:
        """Refuse to read from a subscriber what that one reads from here: neither would ever have it.

        Parameters
        ----------
        asker : str
            Its id.

        Raises
        ------
        SourceUnavailableError
        """
        known = self._known.get(root)
        if asker == self.ident or (known is not None and asker in known.announced.via):
            raise SourceUnavailableError(f"root {root!r} comes from the subscriber that asks for it")

    def origin(self, root: str) -> AnnouncedRoot:
        """Where a root is read from, as it was announced.

        Raises
        ------
        RootNotFoundError
        """
        return self._find(root).announced

    async def status(self, root: str) -> AsyncIterator[bool]:
        """Is a root online: now, and at each change, without end."""
        told: bool | None = None
        while root not in self._followed:
            async with self._changed:
                while root not in self._followed and self._find(root).is_online == told:
                    await self._changed.wait()
            if root not in self._followed:
                told = self._find(root).is_online
                yield told
        async for online in self._followed[root].status():
            if online != told:
                told = online
                yield online

    async def changes(self) -> AsyncIterator[None]:
        """Now, whenever a root came, went or stands otherwise, and with each heartbeat, without end."""
        while True:
            seen = self._nchanges
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s), self._changed:
                    while self._nchanges == seen:
                        await self._changed.wait()

    async def follow(self, root: str) -> None:
        """Follow a root, and wait a moment for its listing; fine too when its publisher is away.

        Raises
        ------
        RootNotFoundError
        """
        if root not in self._followed:
            parse_root_name(root)
            await self._first_contact(lambda: root in self._known)
            async with self._changing:
                self._find(root)
                if root not in self._followed:
                    await self._begin(root)
                    self._tell_links()
                    await self._remember()
        followed = self._followed.get(root)
        if followed is not None:
            await followed.wait_settled(LISTING_S)

    async def unfollow(self, root: str) -> None:
        """Follow a root no more, and drop its catalog; what is cached of it goes when room is needed.

        Raises
        ------
        RootNotFoundError
            When it is not followed.
        """
        async with self._changing:
            followed = self._followed.pop(root, None)
            if followed is None:
                raise RootNotFoundError(f"root {root!r} is not followed")
            if self._known[root].link is None:
                del self._known[root]
            self._tell_links()
            await followed.close()
            await self.run(_remove_replica, self._replica_path(root))
            await self._remember()
        await self._notify()

    async def announce(self, root: str, path: str) -> None:
        """Have the publisher of a root look at a path now.

        Raises
        ------
        RootNotFoundError, DatasetNotFoundError, SourceUnavailableError
        """
        announced = self._find(root).announced
        await self._upstreams.announce(announced.http, root, path, is_publisher=not announced.via)

    # Guests: publishers that are there for a while, such as notebooks

    async def add_guest(self, link: Link) -> None:
        """Listen to one more link, for as long as it is wanted. It takes no root that another one tells of."""
        if link not in self._links:
            self._links = (*self._links, link)
            self._tell_links()
            self._guests[link] = self._spawn(self._listen(link))

    async def remove_guest(self, link: Link) -> None:
        """Listen to it no more; its roots are neither known nor followed any more."""
        task = self._guests.pop(link, None)
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._links = tuple(other for other in self._links if other is not link)
        self._heard.discard(id(link))
        for name, known in list(self._known.items()):
            if known.link is link:
                self._set_online(known, False)
                known.link = None
                if name in self._followed:
                    await self.unfollow(name)
                else:
                    del self._known[name]
        self._tell_links()

    def told_by_others(self, root: str, link: Link | None) -> bool:
        """Is a root known from another link than this one?"""
        known = self._known.get(root)
        return known is not None and known.link not in (None, link)

    # Following

    async def _begin(self, root: str) -> None:
        known = self._known[root]
        path = self._replica_path(root)

        def open_store() -> CatalogStore:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return CatalogStore(path, root)

        store = await self.run(open_store)
        upstream = self._upstream(known.announced, store)
        followed = FollowedRoot(
            root,
            upstream,
            store,
            self._executor,
            self._heartbeat_s,
            self._notify,
            accepts_rollbacks=self._accepts_rollbacks,
        )
        await followed.start()
        self._followed[root] = followed
        if known.link is not None:
            followed.tell(Announced(known.is_online, known.announced.cursor, bool(known.announced.via)))
        await self._notify()

    def _upstream(self, root: AnnouncedRoot, store: CatalogStore) -> Source:
        def lookup(path: str) -> Entry | None:
            try:
                return store.resolve(path)
            except DatasetNotFoundError:
                return None

        return self._cached(self._upstreams.source(root.http, root.name, is_older=root.is_older), lookup)

    def _replica_path(self, root: str) -> Path:
        # A root's name may be any text, and two names one on a file system that folds cases.
        return self._catalogs / f"{hashlib.blake2b(root.encode(), digest_size=12).hexdigest()}.sqlite"

    async def _remember(self) -> None:
        followed = [self._known[name].announced for name in sorted(self._followed)]
        await self.run(self._state.save, followed)

    async def _first_contact(self, is_enough: Callable[[], bool]) -> None:
        """Just after the start, wait a moment until every link has said what there is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_CONTACT_S), self._changed:
                while self._tasks and len(self._heard) < len(self._links) and not is_enough():
                    await self._changed.wait()

    async def _notify(self) -> None:
        self._nchanges += 1
        async with self._changed:
            self._changed.notify_all()

    # Listening

    def _tell_links(self) -> None:
        for link in self._links:
            link.follow([name for name in self._followed if self._known[name].link in (link, None)])

    async def _listen(self, link: Link) -> None:
        asking: asyncio.Task[None] | None = None
        async for message in link.messages():
            if asking is not None:
                asking.cancel()
                asking = None
            match message:
                case RootsKnown(roots):
                    self._roots_known(link, roots)
                    self._heard.add(id(link))
                    await self._notify()
                case EventBatch():
                    if not self._trusts_events:
                        message = replace(message, first_seq=message.seq + 1, events=())
                    if (followed := self._of_link(message.root, link)) is not None:
                        followed.tell(Told(message))
                case LookWanted():
                    pass  # for links that can look (``older_link``)
                case EventsLost(root):
                    if (followed := self._of_link(root, link)) is not None:
                        followed.tell(EventsOfRootLost())
                case BrokerLost(is_source=is_source):
                    if is_source:
                        self._lost(link)
                    else:
                        asking = self._spawn(self._ask_sources(link))
                    self._heard.add(id(link))
                    await self._notify()

    def _of_link(self, root: str, link: Link) -> FollowedRoot | None:
        known = self._known.get(root)
        return self._followed.get(root) if known is not None and known.link is link else None

    def _roots_known(self, link: Link, roots: Sequence[AnnouncedRoot]) -> None:
        # Areas are of the subscriber that has them: here the names stand for its own.
        ours = [root for root in roots if not root.name.startswith("@")]
        told = {root.name: root for root in ours if self.ident not in root.via and len(root.via) < MAX_HOPS}
        for name, announced in told.items():
            known = self._known.setdefault(name, _KnownRoot(announced))
            if known.link not in (None, link) and (known.is_online or not announced.online or link in self._guests):
                continue  # two tell of it: the first that has it online
            before = known.announced
            known.announced, known.link = announced, link
            self._set_online(known, announced.online)
            if (before.http, before.is_older) != (announced.http, announced.is_older):
                self._spawn(self._move(name, before.http))
            followed = self._followed.get(name)
            if followed is not None:
                followed.tell(Announced(announced.online, announced.cursor, bool(announced.via)))
            elif name in self._wanted:
                self._spawn(self.follow(name))
        for name, known in list(self._known.items()):
            if known.link is link and name not in told:
                self._set_online(known, False)
                if (followed := self._followed.get(name)) is not None:
                    followed.tell(Announced(False))
                else:
                    del self._known[name]
        self._tell_links()

    async def _move(self, root: str, before: str) -> None:
        """The root is served elsewhere than before."""
        followed = self._followed.get(root)
        if followed is not None:
            await followed.set_upstream(lambda store: self._upstream(self._known[root].announced, store))
            await self._remember()
        if all(known.announced.http != before for known in self._known.values()):
            await self._upstreams.forget(before)

    def _set_online(self, known: _KnownRoot, online: bool) -> None:
        known.is_online = online
        root = known.announced
        self._upstreams.expect(root.http, root.name, online=online, nhops=len(root.via))

    async def _ask_sources(self, link: Link) -> None:
        """While a broker is away, ask publishers themselves what changed: that shows, too, whether they are there."""
        while True:
            for name in list(self._followed):
                if (followed := self._of_link(name, link)) is not None and self._known[name].is_online:
                    followed.tell(EventsOfRootLost())
            await asyncio.sleep(self._heartbeat_s)

    def _lost(self, link: Link) -> None:
        for name, known in self._known.items():
            if known.link is link:
                self._set_online(known, False)
                if (followed := self._followed.get(name)) is not None:
                    followed.tell(LinkLost())


def _remove_replica(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
