"""``cat2bro``: the broker as a program."""

from __future__ import annotations

import argparse
import sys

from tornado.web import Application

from ..config import BrokerConfig, load_config
from ..errors import ConfigError
from ..web.access import RequestGuard
from ..web.openapi import openapi_routes
from ..web.serve import Listener, add_service_options, check_statedir, configure_logging, run_service
from ..web.service import make_application
from .broker import Broker
from .handlers import make_routes
from .state_file import StateFile

__all__ = ["BrokerService", "main", "make_app"]


def make_app(broker: Broker, config: BrokerConfig) -> Application:
    """The routes of a broker, guarded as ``config`` says."""
    routes = make_routes(broker, config.network)
    routes += openapi_routes("broker", routes)
    return make_application(routes, RequestGuard.for_service(config.http))


class BrokerService:
    """A broker with all that belongs to it; ``web.serve`` runs it.

    Raises
    ------
    ConfigError
        When its state directory cannot be used.
    """

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        check_statedir(config.statedir, "broker")
        self.broker = Broker(StateFile(config.statedir), config.heartbeat_s)

    def application(self) -> Application:
        return make_app(self.broker, self._config)

    async def start(self, listener: Listener) -> None:
        await self.broker.start()

    async def stop(self) -> None:
        await self.broker.stop()


def main(argv: list[str] | None = None) -> int:
    """Command line.

    Returns
    -------
    int
        0 after SIGINT or SIGTERM, 1 when a setting cannot be used, 2 for wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="cat2bro", description="Tell subscribers which roots there are, and what changes in them."
    )
    add_service_options(parser, "the state is")
    options = parser.parse_args(argv)
    try:
        config = load_config(options.conf).broker(
            http=options.http, statedir=options.statedir, loglevel=options.loglevel
        )
    except ConfigError as error:
        print(f"cat2bro: {error}", file=sys.stderr)
        return 1
    configure_logging(config.loglevel)
    return run_service("cat2bro", "broker", config.http, config.network, lambda: BrokerService(config))


if __name__ == "__main__":
    sys.exit(main())
