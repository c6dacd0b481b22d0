"""A broker, links and a bad network, all in the test's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from caterva2_jupyter.broker.app import BrokerService
from caterva2_jupyter.config import Address, BrokerConfig, NetworkConfig
from caterva2_jupyter.core.catalog import Cursor
from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.errors import ResyncError
from caterva2_jupyter.subscriber.broker_link import BrokerLink as SubscriberLink
from caterva2_jupyter.subscriber.broker_link import BrokerLost, EventsLost, LinkMessage, RootsKnown
from caterva2_jupyter.web.publishing_link import BrokerLink as PublisherLink
from caterva2_jupyter.web.serve import Listener, listen

HEARTBEAT_S = 0.3
OPEN = NetworkConfig()
ANY_PORT = Address("127.0.0.1", 0)


async def until(condition: Callable[[], object], deadline_s: float = 25.0) -> None:
    """Wait until it holds; fail after a deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not hold in time"
        await asyncio.sleep(0.005)


class RunningBroker:
    """A broker that listens."""

    def __init__(self, service: BrokerService, listener: Listener) -> None:
        self.service = service
        self.listener = listener

    @property
    def address(self) -> Address:
        return self.listener.address

    @property
    def url(self) -> str:
        return self.listener.url

    def is_online(self, name: str) -> bool:
        return any(r.online for r in self.service.broker.roots() if r.name == name)


@asynccontextmanager
async def broker_at(
    statedir: Path, address: Address = ANY_PORT, network: NetworkConfig = OPEN, heartbeat_s: float = HEARTBEAT_S
) -> AsyncIterator[RunningBroker]:
    config = BrokerConfig(address, statedir, "warning", heartbeat_s, network)
    service = BrokerService(config)
    listener = listen(service.application(), address, network)
    await service.start(listener)
    try:
        yield RunningBroker(service, listener)
    finally:
        await listener.close()
        await service.stop()


class Catalog:
    """What a publisher has to tell: the two callables that a link wants."""

    def __init__(self, root: str = "foo", epoch: str = "life") -> None:
        self.root = root
        self.cursor = Cursor(epoch, 0)
        self.batches: list[EventBatch] = []
        self.lose_events = False
        self.error: Exception | None = None

    def put(self, path: str) -> EventBatch:
        number = self.cursor.seq + 1
        batch = EventBatch(self.root, self.cursor.epoch, number, number, (Event("delete", path),))
        self.cursor = batch.cursor
        self.batches.append(batch)
        return batch

    async def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        told = since.seq if since else self.cursor.seq
        while True:
            await asyncio.sleep(0.005)
            if self.error is not None:
                error, self.error = self.error, None
                raise error
            if self.lose_events:
                self.lose_events = False
                self.batches.clear()
                raise ResyncError("lost")
            for batch in [b for b in self.batches if b.seq > told]:
                told = batch.seq
                yield batch


@asynccontextmanager
async def publishing(
    broker: Address, catalog: Catalog, *, owner_id: str = "alice" * 4, url: str = "http://here:8001", network=OPEN
) -> AsyncIterator[PublisherLink]:
    link = PublisherLink(
        broker=broker,
        network=network,
        name=catalog.root,
        owner_id=owner_id,
        advertise_url=url,
        cursor=lambda: catalog.cursor,
        events=catalog.events,
    )
    async with _running(link.run()):
        yield link


class Heard:
    """What a subscriber's link has told so far."""

    def __init__(self, link: SubscriberLink) -> None:
        self.link = link
        self.messages: list[LinkMessage] = []

    def of(self, kind: type) -> list:
        return [m for m in self.messages if isinstance(m, kind)]

    @property
    def roots(self) -> dict[str, bool]:
        """Name -> online, as last told."""
        known = self.of(RootsKnown)
        return {r.name: r.online for r in known[-1].roots} if known else {}

    @property
    def paths(self) -> list[str]:
        """Paths of the events told, in order."""
        return [e.path for batch in self.of(EventBatch) for e in batch.events]

    @property
    def seqs(self) -> list[int]:
        return [b.seq for b in self.of(EventBatch)]

    @property
    def losses(self) -> list[str]:
        return [m.reason for m in self.of(BrokerLost)]

    @property
    def resyncs(self) -> list[str]:
        return [m.root for m in self.of(EventsLost)]


@asynccontextmanager
async def subscribing(broker: Address, follow: set[str] = frozenset(), network=OPEN) -> AsyncIterator[Heard]:
    link = SubscriberLink(broker, network)
    link.follow(follow)
    heard = Heard(link)

    async def listen_to_it() -> None:
        async for message in link.messages():
            heard.messages.append(message)

    async with _running(listen_to_it()):
        yield heard


@asynccontextmanager
async def _running(coroutine) -> AsyncIterator[None]:
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Wire:
    """A TCP connection between two sides that can be cut, or go silent while it stays open."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Address]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def go_silent(self) -> None:
        self._flowing.clear()

    def heal(self) -> None:
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection(self._target.host, self._target.port)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):  # streams report a task that ends by cancellation
            writer.close()
        finally:
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(65536):
                await self._flowing.wait()
                writer.write(part)
                await writer.drain()
        finally:
            writer.close()
