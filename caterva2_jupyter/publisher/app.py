"""``cat2pub``: a publisher as a program."""

from __future__ import annotations

import argparse
import asyncio
import sys
from concurrent.futures import Executor
from contextlib import suppress
from typing import Protocol

from tornado.web import Application

from ..config import PublisherConfig, load_config
from ..errors import ConfigError
from ..storage.threaded_source import ThreadedSource
from ..web.access import RequestGuard, network_policy
from ..web.direct_reads import DirectReads
from ..web.mac_answers import mac_settings
from ..web.openapi import openapi_routes
from ..web.publishing_link import BrokerLink
from ..web.serve import Listener, add_service_options, configure_logging, run_service
from ..web.service import HealthHandler, Route, ServiceHandler, make_application
from ..web.source_handlers import AnnounceAnswers, Announcer, Limits, SourceDirectory, bind
from ..web.source_routes import ANNOUNCE_ROUTE, SOURCE_ROUTES
from .handlers import OLD_ROUTES
from .publisher import Publisher
from .workers import WorkerPool

__all__ = ["PublisherService", "main", "make_app"]


class ServedRoot(SourceDirectory, Announcer, Protocol):
    """What the routes are over: the publisher, or one of its workers."""

    @property
    def config(self) -> PublisherConfig: ...
    @property
    def threaded_source(self) -> ThreadedSource: ...
    @property
    def executor(self) -> Executor: ...


def make_app(publisher: ServedRoot) -> Application:
    """The routes of a publisher, guarded as its configuration says."""
    config = publisher.config
    read, change = network_policy(config.network, "read"), network_policy(config.network, "publish")
    directory = {"sources": publisher, "limits": Limits()}
    old = {"source": publisher.threaded_source, "executor": publisher.executor, "policy": read}
    routes: list[Route] = [(r"/api/v1/health", HealthHandler, {"service": "publisher"})]
    routes += [(p, bind(answers, ServiceHandler), {**directory, "policy": read}) for p, answers in SOURCE_ROUTES]
    routes += [(p, bind(answers, ServiceHandler), old) for p, answers in OLD_ROUTES]
    announce = {**directory, "announcer": publisher, "policy": change}
    routes.append((ANNOUNCE_ROUTE, bind(AnnounceAnswers, ServiceHandler), announce))
    routes += openapi_routes("publisher", routes)
    guard = RequestGuard.for_service(config.http, config.advertise)
    direct_reads = DirectReads(publisher.threaded_source, guard, read)
    return make_application(routes, guard, mac_settings(config.network), direct_reads)


FIRST_SCAN_S = 5.0
"""A root that takes longer to be listed for the first time is told of all the same."""


class PublisherService:
    """A publisher with its link to the broker; ``web.serve`` runs it.

    Raises
    ------
    ConfigError
        When there is nothing to serve, or the state directory cannot be used.
    """

    def __init__(self, config: PublisherConfig) -> None:
        self._config = config
        self.publisher = Publisher(config)
        self.link: BrokerLink | None = None
        self._linking: asyncio.Task[None] | None = None
        self._workers: WorkerPool | None = None

    def application(self) -> Application:
        return make_app(self.publisher)

    async def start(self, listener: Listener) -> None:
        config = self._config
        self.publisher.url = config.advertise or listener.reachable_url
        await self.publisher.start()
        if config.workers > 1:
            publisher = self.publisher
            self._workers = WorkerPool(config, publisher.url, listener.sockets, publisher, publisher.hub)
            await self._workers.start()
        if config.broker is None:
            return
        self.link = BrokerLink(
            broker=config.broker,
            network=config.network,
            name=config.name,
            owner_id=self.publisher.owner_id,
            advertise_url=self.publisher.url,
            cursor=lambda: self.publisher.store.cursor,
            events=self.publisher.threaded_source.events,
        )
        self._linking = asyncio.create_task(self._announce(self.link), name="broker link")

    async def _announce(self, link: BrokerLink) -> None:
        """Tell the broker of the root, the first time when there is something to list: empty, it would be a lie."""
        if not len(self.publisher.store):
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_SCAN_S):
                    await self.publisher.scanned.wait()
        await link.run()

    async def stop(self) -> None:
        if self._linking is not None:
            self._linking.cancel()
            await asyncio.gather(self._linking, return_exceptions=True)
        if self._workers is not None:
            await self._workers.stop()
        await self.publisher.stop()


def main(argv: list[str] | None = None) -> int:
    """Command line.

    Returns
    -------
    int
        0 after SIGINT or SIGTERM, 1 when a setting cannot be used, 2 for wrong usage.
    """
    parser = argparse.ArgumentParser(prog="cat2pub", description="Serve a directory of datasets, or an HDF5 file.")
    add_service_options(parser, "the index and the identity are", "publisher")
    parser.add_argument("--workers", metavar="N", type=int, help="processes that serve, on one port (default: 1)")
    parser.add_argument("name", nargs="?", help="name of the root")
    parser.add_argument("root", nargs="?", help="directory or HDF5 file to serve (default: data)")
    options = parser.parse_args(argv)
    try:
        config = load_config(options.conf).publisher(
            ident=options.id,
            name=options.name,
            root=options.root,
            http=options.http,
            broker=options.broker,
            statedir=options.statedir,
            loglevel=options.loglevel,
            workers=options.workers,
        )
    except ConfigError as error:
        print(f"cat2pub: {error}", file=sys.stderr)
        return 1
    configure_logging(config.loglevel)
    label = f"publisher of {config.name!r}"
    return run_service("cat2pub", label, config.http, config.network, lambda: PublisherService(config))


if __name__ == "__main__":
    sys.exit(main())
