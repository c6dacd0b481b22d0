"""A subscriber over sources in memory: no sockets, no publisher, the real replica and cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from caterva2_jupyter.core.catalog import CatalogPage, CatalogQuery, Cursor
from caterva2_jupyter.core.events import EventBatch
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.reduce_request import ReduceRequest
from caterva2_jupyter.core.roots import AnnouncedRoot
from caterva2_jupyter.core.source import BlockStream, FileStream, ReducedStream, Source
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import SourceUnavailableError
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.storage.catalog_store import CatalogStore
from caterva2_jupyter.storage.event_hub import EventHub
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.storage.threaded_source import ThreadedSource
from caterva2_jupyter.subscriber.broker_link import BrokerLost, LinkMessage, RootsKnown
from caterva2_jupyter.subscriber.followed_state import FollowedState
from caterva2_jupyter.subscriber.read_counts import ReadCounts
from caterva2_jupyter.subscriber.sources import CachedSource
from caterva2_jupyter.subscriber.subscriber import Subscriber


class Publisher:
    """A publisher's source in this process, which can be away, and tells its changes to a link."""

    def __init__(self, name: str, executor: ThreadPoolExecutor, heartbeat_s: float = 0.2) -> None:
        self.name, self.url = name, f"http://{name}.test"
        self.files = MemoryRoot(owner_id=name)
        self.store = CatalogStore(None, name)
        self.source = ThreadedSource(name, self.files, self.store, EventHub(), executor, heartbeat_s)
        self.is_away = False
        self.ncatalog = self.nreads = 0
        self.modes: list[str] = []
        self.announced: list[str] = []

    async def changed(self) -> None:
        """Tell what was set or deleted in ``files``."""
        await self.source.scan()

    @property
    def root(self) -> str:
        return self.name

    def _check(self) -> None:
        if self.is_away:
            raise SourceUnavailableError(f"cannot reach {self.url}")

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        self._check()
        self.ncatalog += 1
        return await self.source.catalog(query)

    async def entry(self, path: str) -> Entry:
        self._check()
        return await self.source.entry(path)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        self._check()
        self.nreads += 1
        self.modes.append(request.mode)
        return await self.source.read_blocks(request)

    async def reduce(self, request: ReduceRequest) -> ReducedStream:
        self._check()
        return await self.source.reduce(request)

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        self._check()
        return await self.source.read_file(path, start, stop)

    def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        self._check()
        return self.source.events(since)


class MemoryLink:
    """A broker in this process: what is put in ``queue`` is told; events come straight from publishers."""

    def __init__(self, publishers: dict[str, Publisher]) -> None:
        self.publishers = publishers
        self.queue: asyncio.Queue[LinkMessage] = asyncio.Queue()
        self.followed: frozenset[str] = frozenset()
        self._pumps: dict[str, asyncio.Task[None]] = {}
        self.drops_events = False

    def tell_roots(self, **online: bool) -> None:
        """Announce all publishers' roots; ``foo=False`` is offline."""
        roots = []
        for name, publisher in self.publishers.items():
            cursor = publisher.store.cursor
            is_online = online.get(name, True)
            roots.append(AnnouncedRoot(name, publisher.url, "owner", is_online, cursor.epoch, cursor.seq))
        self.queue.put_nowait(RootsKnown(tuple(roots)))

    def lose(self) -> None:
        self.queue.put_nowait(BrokerLost("the broker is away"))

    def follow(self, roots: Iterable[str]) -> None:
        self.followed = frozenset(roots)
        for name in self.followed - set(self._pumps):
            if name in self.publishers:
                self._pumps[name] = asyncio.create_task(self._pump(self.publishers[name]))

    async def _pump(self, publisher: Publisher) -> None:
        async for batch in publisher.source.events(None):
            if publisher.name in self.followed and not self.drops_events:
                self.queue.put_nowait(batch)

    async def messages(self) -> AsyncIterator[LinkMessage]:
        try:
            while True:
                yield await self.queue.get()
        finally:
            for task in self._pumps.values():
                task.cancel()
            await asyncio.gather(*self._pumps.values(), return_exceptions=True)


class MemoryUpstreams:
    def __init__(self, publishers: dict[str, Publisher]) -> None:
        self.publishers = publishers
        self.forgotten: list[str] = []
        self.expected: dict[str, bool] = {}

    def source(self, url: str, root: str, *, is_older: bool = False) -> Source:
        return self.publishers[root]

    async def announce(self, url: str, root: str, path: str, *, is_publisher: bool = True) -> None:
        self.publishers[root].announced.append(path)

    def expect(self, url: str, root: str, *, online: bool, nhops: int) -> None:
        self.expected[root] = online

    async def forget(self, url: str) -> None:
        self.forgotten.append(url)

    async def close(self) -> None:
        pass


class Running:
    """A subscriber with its publishers, link and executor."""

    def __init__(
        self,
        directory: Path,
        *names: str,
        follow: tuple[str, ...] = (),
        publishers: dict[str, Publisher] | None = None,
    ) -> None:
        self.directory = directory
        self.executor = ThreadPoolExecutor(8)
        self.owns_publishers = publishers is None
        self.publishers = publishers or {name: Publisher(name, self.executor) for name in names}
        self.link = MemoryLink(self.publishers)
        self.upstreams = MemoryUpstreams(self.publishers)
        self.cache = BlockCache(directory / "blocks", 1 << 30)
        self.counts = ReadCounts()
        self.subscriber = Subscriber(
            self.upstreams,
            [self.link],
            self._cached,
            FollowedState(directory / "db.json"),
            self.executor,
            follow,
            heartbeat_s=0.2,
        )

    def _cached(self, source: Source, lookup: Callable[[str], Entry | None]) -> Source:
        return CachedSource(source, self.cache, self.executor, lookup, self.counts)

    async def start(self) -> None:
        for publisher in self.publishers.values():
            await publisher.changed()
        await self.subscriber.start(self.directory / "catalogs")
        self.link.tell_roots()

    async def stop(self) -> None:
        await self.subscriber.stop()
        self.cache.close()
        if self.owns_publishers:
            for publisher in self.publishers.values():
                publisher.store.close()
        self.executor.shutdown()


@asynccontextmanager
async def running(
    directory: Path, *names: str, follow: tuple[str, ...] = (), publishers: dict[str, Publisher] | None = None
) -> AsyncIterator[Running]:
    """A subscriber that knows the roots ``names``, or those of ``publishers`` of another run."""
    run = Running(directory, *names, follow=follow, publishers=publishers)
    try:
        yield run
    finally:
        await run.stop()


async def eventually(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    """Wait until a condition holds; fails after a deadline."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)
