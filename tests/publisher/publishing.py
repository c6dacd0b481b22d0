"""A publisher of a directory in this process, and what it tells its listeners."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from caterva2_jupyter.config import Config, PublisherConfig
from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.publisher.publisher import Publisher
from caterva2_jupyter.storage.root import Root

DEADLINE_S = 60


def publisher_config(root: Path, statedir: Path, **settings: object) -> PublisherConfig:
    tables = {"publisher": settings}
    config = Config(tables, "test.toml", {})
    return config.publisher(name="foo", root=str(root), http="localhost:0", statedir=str(statedir))


@dataclass
class Published:
    """A running publisher and a listener of it."""

    publisher: Publisher
    batches: AsyncIterator[EventBatch]

    async def next_events(self) -> list[Event]:
        """The next change (heartbeats passed over)."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                batch = await anext(self.batches)
                if batch.events:
                    return list(batch.events)

    async def until(self, path: str, change: str = "put") -> tuple[Event, float]:
        """The event of that path, and when it came (monotonic)."""
        while True:
            for event in await self.next_events():
                if (event.path, event.change) == (path, change):
                    return event, time.monotonic()

    def paths(self) -> list[str]:
        return [known.entry.path for known in self.publisher.store.known()]


@asynccontextmanager
async def publishing(config: PublisherConfig, root: Root | None = None) -> AsyncIterator[Published]:
    publisher = Publisher(config, root)
    await publisher.start(watch=root is None)
    async with asyncio.timeout(DEADLINE_S):
        await publisher.scanned.wait()
    batches = publisher.threaded_source.events(None)
    await anext(batches)
    try:
        yield Published(publisher, batches)
    finally:
        await batches.aclose()  # type: ignore[attr-defined]
        await publisher.stop()


def overflow(directory: Path) -> None:
    """More changes than the kernel keeps for a watcher that does not read them."""
    names = [directory / "one", directory / "other"]
    for path in names:
        path.touch()
    # The same change twice in a row would be told once.
    for number in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) + 10):
        os.utime(names[number % 2])
