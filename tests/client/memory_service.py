"""A service over roots in memory, in a thread of the test: real sockets, real handlers, no files."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from caterva2_jupyter.config import Address, NetworkConfig
from caterva2_jupyter.core.source import Source
from caterva2_jupyter.errors import RootNotFoundError
from caterva2_jupyter.storage.catalog_store import CatalogStore
from caterva2_jupyter.storage.event_hub import EventHub
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.storage.threaded_source import ThreadedSource
from caterva2_jupyter.web.access import NetworkToken, Open, RequestGuard
from caterva2_jupyter.web.serve import listen
from caterva2_jupyter.web.service import HealthHandler, ServiceHandler, make_application
from caterva2_jupyter.web.source_handlers import AnnounceAnswers, Limits, bind
from caterva2_jupyter.web.source_routes import ANNOUNCE_ROUTE, SOURCE_ROUTES


class Directory:
    """Roots by name, with the status that a test gives them."""

    def __init__(self, sources: Mapping[str, ThreadedSource]) -> None:
        self.sources = sources
        self.statuses: dict[str, dict[str, Any]] = {name: {"online": True} for name in sources}
        self.announced: list[tuple[str, str]] = []

    async def roots(self) -> list[dict[str, Any]]:
        return [{"name": name, **status} for name, status in self.statuses.items()]

    def source(self, root: str) -> Source:
        if root not in self.sources:
            raise RootNotFoundError(f"no root {root!r}")
        return self.sources[root]

    async def announce(self, root: str, path: str) -> None:
        self.source(root)
        self.announced.append((root, path))


class _Noting(ServiceHandler):
    """Writes down what is asked for, before it is answered."""

    def prepare(self) -> None:
        self.settings["requests"].append(f"{self.request.method} {self.request.path.rpartition('/api/v1/')[2]}")
        super().prepare()


class _FollowHandler(_Noting):
    def initialize(self, directory: Directory, policy: Any) -> None:  # type: ignore[override]
        self.directory = directory
        super().initialize(policy)

    def post(self, root: str) -> None:
        self.directory.source(root)
        self.directory.statuses[root]["followed"] = True
        self.write({})

    def delete(self, root: str) -> None:
        self.directory.statuses[root]["followed"] = False
        self.set_status(204)


class MemoryService:
    """Serves ``MemoryRoot`` objects until it is closed.

    ``requests`` has the method and route of each request so far.
    """

    def __init__(
        self,
        roots: Mapping[str, MemoryRoot],
        *,
        base: str = "",
        token: str = "",
        address: str = "127.0.0.1:0",
        network: NetworkConfig | None = None,
    ) -> None:
        self.requests: list[str] = []
        self._roots = roots
        self._executor = ThreadPoolExecutor(4)
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._arguments = (base, token, Address.parse(address), network or NetworkConfig())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(20)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._listener.close())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _start(self) -> None:
        base, token, address, network = self._arguments
        hub = EventHub()
        self._sources = {
            name: ThreadedSource(name, root, CatalogStore(None), hub, self._executor)
            for name, root in self._roots.items()
        }
        for source in self._sources.values():
            await source.scan()
        self.directory = Directory(self._sources)
        policy = NetworkToken([token]) if token else Open()
        common = {"sources": self.directory, "limits": Limits(), "policy": policy}
        routes: list[Any] = [(base + p, bind(answers, _Noting), common) for p, answers in SOURCE_ROUTES]
        routes += [
            (base + ANNOUNCE_ROUTE, bind(AnnounceAnswers, _Noting), common | {"announcer": self.directory}),
            (base + r"/api/v1/roots/([^/]+)/follow", _FollowHandler, {"directory": self.directory, "policy": policy}),
            (base + "/api/v1/health", HealthHandler, {"service": "subscriber"}),
        ]
        application = make_application(routes, RequestGuard.for_service(address), {"requests": self.requests})
        self._listener = listen(application, address, network)
        self.url = self._listener.url + base

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run on the service's event loop, and wait."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def rescan(self) -> None:
        """Have what was set in the roots since then listed."""
        for source in self._sources.values():
            self.run(source.scan())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._executor.shutdown()

    def __enter__(self) -> MemoryService:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()
