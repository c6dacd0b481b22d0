"""A process that serves a root whose index another process keeps (``python -m caterva2_jupyter.publisher.worker``).

It is started by ``workers`` with the numbers of its sockets: the one to its parent, then those to accept from. It
ends when the parent does. It reads the index and the files by itself, and writes neither.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ..config import PublisherConfig
from ..core.events import EventBatch
from ..core.roots import AnnouncedRoot, owner_tag
from ..core.source import Source
from ..errors import RootNotFoundError, SourceUnavailableError, error_from_json
from ..storage.catalog_store import CatalogStore
from ..storage.event_hub import EventHub
from ..storage.threaded_source import ThreadedSource
from ..web.allocator import keep_buffers
from ..web.serve import configure_logging, serve_on
from .app import make_app
from .messages import Channel, config_from_json
from .publisher import CATALOG, HEARTBEAT_S, OWNER, READERS, open_root

__all__ = ["Worker", "main"]


class Worker:
    """Answers for one root from the index of its parent.

    Parameters
    ----------
    config : PublisherConfig
    url : str
        By which others reach the publisher.
    parent : Channel
    """

    def __init__(self, config: PublisherConfig, url: str, parent: Channel) -> None:
        self.config, self.name, self.url = config, config.name, url
        self._parent = parent
        statedir = Path(os.path.abspath(config.statedir))
        self.owner_id = (statedir / OWNER).read_text().strip()
        with ExitStack() as opened:
            root = open_root(config.root, self.owner_id, opened)
            opened.callback(root.close)
            self.store = CatalogStore(statedir / CATALOG, config.name, is_replica=True)
            opened.callback(self.store.close)
            self._opened = opened.pop_all()
        self.hub = EventHub()
        self.executor = ThreadPoolExecutor(READERS, "publisher")
        self.threaded_source = ThreadedSource(
            self.name, root, self.store, self.hub, self.executor, HEARTBEAT_S, partial(self.announce, self.name)
        )
        self._numbers = itertools.count()
        self._announcing: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def roots(self) -> list[dict[str, Any]]:
        cursor = await asyncio.get_running_loop().run_in_executor(self.executor, lambda: self.store.cursor)
        return [AnnouncedRoot(self.name, self.url, owner_tag(self.owner_id), True, cursor.epoch, cursor.seq).to_json()]

    def source(self, root: str) -> Source:
        if root != self.name:
            raise RootNotFoundError(f"no root {root!r} here; this publisher serves {self.name!r}")
        return self.threaded_source

    async def announce(self, root: str, path: str) -> None:
        number = next(self._numbers)
        answer = self._announcing[number] = asyncio.get_running_loop().create_future()
        try:
            await self._parent.send({"type": "announce", "id": number, "root": root, "path": path})
            told = await answer
        finally:
            del self._announcing[number]
        if told["error"] is not None:
            raise error_from_json(told["error"], told["status"])

    async def listen(self) -> None:
        """Take what the parent tells, until it is gone."""
        while (message := await self._parent.receive()) is not None:
            if message["type"] == "announced":
                answer = self._announcing.get(message["id"])
                if answer is not None and not answer.done():
                    answer.set_result(message)
            elif message["type"] == "resync":
                self.hub.resync()
            elif message["type"] == "events":
                self.hub.publish(EventBatch.from_json(message))

    async def stop(self) -> None:
        for answer in self._announcing.values():
            if not answer.done():
                answer.set_exception(SourceUnavailableError("the publisher is stopping"))
        self.threaded_source.close()
        await asyncio.to_thread(self.executor.shutdown, wait=True, cancel_futures=True)
        await asyncio.to_thread(self._opened.close)


async def _run(link: int, listening: Sequence[int]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl+C is for the parent, which ends this one
    parent = Channel(*await asyncio.open_connection(sock=socket.socket(fileno=link)))
    message = await parent.receive()
    if message is None:
        return
    config = config_from_json(message["config"])
    configure_logging(config.loglevel)
    worker = Worker(config, message["url"], parent)
    server = serve_on(make_app(worker), [socket.socket(fileno=fd) for fd in listening], config.network)
    told = asyncio.create_task(worker.listen())
    loop.add_signal_handler(signal.SIGTERM, told.cancel)
    try:
        await parent.send({"type": "serving"})
        with suppress(asyncio.CancelledError):
            await told
    finally:
        server.stop()
        await server.close_all_connections()
        await worker.stop()
        parent.close()


def main(arguments: Sequence[str]) -> int:
    """Serve until the parent ends; ``arguments`` are numbers of open sockets."""
    link, *listening = map(int, arguments)
    keep_buffers()
    asyncio.run(_run(link, listening))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
