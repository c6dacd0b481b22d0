"""Where the data of a source under test comes from: a root in memory, changed at will, and the source over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ..core.catalog import CatalogPage, CatalogQuery, Cursor
from ..core.events import EventBatch
from ..core.source import Source
from ..errors import (
    DatasetNotFoundError,
)
from ..storage.catalog_store import CatalogStore
from ..storage.event_hub import EventHub
from ..storage.memory_root import MemoryRoot
from ..storage.threaded_source import ThreadedSource

__all__ = ["Origin", "changed_page", "eventually", "next_batch", "next_change", "open_origin"]

DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the data of a source under test is: a ``MemoryRoot`` and the source over it."""

    root: MemoryRoot
    source: ThreadedSource
    store: CatalogStore
    hub: EventHub

    async def put(self, path: str, array: npt.ArrayLike | bytes, **how: Any) -> None:
        """Set a dataset and announce it."""
        self.root.set(path, array, **how)
        await self.source.rescan([self.root.watched / path, self.root.watched / path.rpartition("/")[0]])

    async def delete(self, path: str) -> None:
        """Remove a dataset and announce it."""
        self.root.delete(path)
        await self.source.rescan([self.root.watched / path])


@asynccontextmanager
async def open_origin(
    arrays: Mapping[str, npt.ArrayLike | bytes], name: str = "foo", heartbeat_s: float = 5
) -> AsyncIterator[Origin]:
    """A source over arrays in memory, its catalog up to date."""
    root, store, hub = MemoryRoot(arrays), CatalogStore(None, name), EventHub()
    with ThreadPoolExecutor(4) as executor:
        source = ThreadedSource(name, root, store, hub, executor, heartbeat_s)
        await source.scan()
        yield Origin(root, source, store, hub)
        source.close()
    store.close()


async def next_batch(events: AsyncIterator[EventBatch]) -> EventBatch:
    async with asyncio.timeout(DEADLINE_S):
        return await anext(events)


async def next_change(events: AsyncIterator[EventBatch]) -> EventBatch:
    """The next batch that is no heartbeat."""
    async with asyncio.timeout(DEADLINE_S):
        async for batch in events:
            if batch.events:
                return batch
    raise AssertionError("the events ended")


async def changed_page(source: Source, since: Cursor, count: int) -> CatalogPage:
    """The changes since a cursor, once there are so many (a copy follows its origin in its own time)."""
    page: CatalogPage = await eventually(
        lambda: source.catalog(CatalogQuery(since=since)), lambda page: len(page.items) + len(page.deleted) >= count
    )
    return page


async def eventually(ask: Callable[[], Awaitable[Any]], is_right: Callable[[Any], bool]) -> Any:
    """Ask until the answer is right; its errors of things that are not there yet are waited out."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                answer = await ask()
            except DatasetNotFoundError:
                answer = None
            if answer is not None and is_right(answer):
                return answer
            await asyncio.sleep(0.01)
