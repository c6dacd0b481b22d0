"""The broker over HTTP: the old REST, our own, and the two WebSockets.

Handlers parse, make one call and encode; what it means is decided in ``broker`` and ``registry``.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..config import NetworkConfig
from ..core.paths import parse_root_name
from ..core.roots import host_and_port, parse_service_url
from ..errors import (
    Caterva2Error,
    IntegrityError,
    InvalidPathError,
    RequestError,
    SourceUnavailableError,
    error_to_json,
)
from ..web.access import AccessPolicy, network_policy
from ..web.caps import ClientCap
from ..web.service import HealthHandler, Route, ServiceHandler
from .broker import Broker, Connection, parse_published_name
from .old_topics import Peer
from .registry import url_of

__all__ = ["make_routes"]

MAX_MESSAGE_NBYTES = 4 * 1024 * 1024
REGISTRATION_TIMEOUT_S = 10.0
MAX_CONNECTIONS_PER_CLIENT = 1000
MAX_CONNECTIONS = 5000


def make_routes(broker: Broker, network: NetworkConfig) -> list[Route]:
    """All routes; what changes the list of roots needs the publish token, the rest the read token."""
    read, change = network_policy(network, "read"), network_policy(network, "publish")
    by_method = _ByMethod(read, change)
    cap = ClientCap("connections", MAX_CONNECTIONS_PER_CLIENT, MAX_CONNECTIONS)
    return [
        (r"/api/roots", _OldRootsHandler, {"broker": broker, "policy": by_method}),
        (r"/api/v1/roots", _RootsHandler, {"broker": broker, "policy": by_method}),
        (r"/api/v1/roots/([^/]+)", _RootHandler, {"broker": broker, "policy": by_method}),
        (r"/api/v1/health", HealthHandler, {"service": "broker"}),
        (r"/api/v1/publish", _PublishSocket, {"broker": broker, "policy": change, "cap": cap}),
        (r"/api/v1/subscribe", _SubscribeSocket, {"broker": broker, "policy": read, "cap": cap}),
        # Whoever is connected there may publish.
        (r"/pubsub", _OldPubsubSocket, {"broker": broker, "policy": change, "cap": cap}),
    ]


class _ByMethod:
    """One policy to read, another for all else."""

    def __init__(self, read: AccessPolicy, change: AccessPolicy) -> None:
        self._read, self._change = read, change

    def user(self, handler: RequestHandler) -> str | None:
        is_read = handler.request.method in ("GET", "HEAD")
        return (self._read if is_read else self._change).user(handler)


class _BrokerHandler(ServiceHandler):
    def initialize(self, broker: Broker, policy: AccessPolicy) -> None:  # type: ignore[override]
        super().initialize(policy=policy)
        self.broker = broker


class _OldRootsHandler(_BrokerHandler):
    async def get(self) -> None:
        self.write_json({r.name: {"name": r.name, "http": host_and_port(r.http)} for r in self.broker.roots()})

    async def post(self) -> None:
        try:
            form = self.json_body()
        except RequestError as error:
            self._refuse([], "json_invalid", str(error))
            return
        for field in ("name", "http"):
            if not isinstance(form.get(field), str):
                kind = "string_type" if field in form else "missing"
                self._refuse([field], kind, "Input should be a valid string" if field in form else "Field required")
                return
        try:
            name, url = parse_published_name(form["name"]), parse_service_url(url_of(form["http"]))
        except (InvalidPathError, IntegrityError) as error:
            self._refuse(["name" if isinstance(error, InvalidPathError) else "http"], "value_error", str(error))
            return
        await self.broker.announce(name, url)
        self.write_json({"name": name, "http": form["http"], "subscribed": None})

    def _refuse(self, where: list[str], kind: str, message: str) -> None:
        # As the older system says it, which its publishers may show.
        self.set_status(422)
        self.write_json({"detail": [{"type": kind, "loc": ["body", *where], "msg": message}]})


class _RootsHandler(_BrokerHandler):
    async def get(self) -> None:
        self.write_json({"roots": [root.to_json() for root in self.broker.roots()]})


class _RootHandler(_BrokerHandler):
    async def delete(self, name: str) -> None:
        await self.broker.remove(parse_root_name(name))
        self.set_status(204)


class _Socket(_BrokerHandler, WebSocketHandler):
    """A peer's connection; messages are taken one after the other."""

    is_socket = True
    connection: Connection | None = None

    def initialize(self, broker: Broker, policy: AccessPolicy, cap: ClientCap) -> None:  # type: ignore[override]
        super().initialize(broker=broker, policy=policy)
        self._cap = cap

    async def get(self, *args: Any, **kwargs: Any) -> None:
        # ``get`` lasts as long as the connection does.
        with self._cap.hold(self.client_key()):
            await super().get(*args, **kwargs)

    @property
    def max_message_size(self) -> int:
        return MAX_MESSAGE_NBYTES

    @property
    def ping_interval(self) -> float:
        # Finds half-open subscribers; publishers are missed by their heartbeats before. A subscriber that is
        # busy for a while answers no pings either, so there is some patience.
        return 2 * self.broker.heartbeat_s

    @property
    def ping_timeout(self) -> float:
        return 2 * self.broker.heartbeat_s

    async def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)
        self.connection = self.broker.connect(self._send, self._close)

    async def on_message(self, message: str | bytes) -> None:
        connection = self.connection
        if connection is None:
            return
        try:
            await self.take(connection, _parse(message), str(message))
        except Caterva2Error as error:
            await self._send(json.dumps({"type": "error", "status": error.status, **error_to_json(error)}))
            self._close("refused")
        except BaseException:
            # Tornado would log it and leave the connection open, with nobody who reads it.
            self.close(1011, "an error of the broker")
            raise

    async def take(self, connection: Connection, form: dict[str, Any], text: str) -> None:
        raise NotImplementedError

    def on_close(self) -> None:
        if self.connection is not None:
            self.broker.leave(self.connection)

    async def _send(self, text: str) -> None:
        try:
            await self.write_message(text)
        except WebSocketClosedError:
            raise SourceUnavailableError("the connection is closed") from None

    def _close(self, reason: str) -> None:
        self.close(1000, reason)


class _OldPubsubSocket(_Socket):
    """``WS /pubsub``: what services of the older system connect to."""

    peer: Peer | None = None

    async def get(self, *args: Any, **kwargs: Any) -> None:
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            raise HTTPError(404)
        await super().get(*args, **kwargs)

    async def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)
        self.peer = Peer(self._send, lambda: self._close("no answer"))
        self.broker.old_topics.join(self.peer)

    async def on_message(self, message: str | bytes) -> None:
        if self.peer is None:
            return
        try:
            is_known = await self.broker.old_topics.take(self.peer, _parse(message))
        except Caterva2Error:
            is_known = False
        if not is_known:
            self._close("refused")

    def on_close(self) -> None:
        if self.peer is not None:
            self.broker.old_topics.leave(self.peer)


def _parse(message: str | bytes) -> dict[str, Any]:
    try:
        form = json.loads(message) if isinstance(message, str) else None
    except (ValueError, RecursionError):
        form = None
    if not isinstance(form, dict):
        raise RequestError("a message has to be a JSON object")
    return form


class _PublishSocket(_Socket):
    async def open(self, *args: str, **kwargs: str) -> None:
        await super().open(*args, **kwargs)
        asyncio.get_running_loop().call_later(REGISTRATION_TIMEOUT_S, self._close_unless_registered)

    def _close_unless_registered(self) -> None:
        if self.connection is not None and not self.connection.root:
            self._close("no registration")

    async def take(self, connection: Connection, form: dict[str, Any], text: str) -> None:
        if connection.root:
            self.broker.hear(connection, form, text)
        else:
            await self.broker.register(connection, form)


class _SubscribeSocket(_Socket):
    async def open(self, *args: str, **kwargs: str) -> None:
        await super().open(*args, **kwargs)
        assert self.connection is not None
        self.broker.listen(self.connection)

    async def take(self, connection: Connection, form: dict[str, Any], text: str) -> None:
        self.broker.follow(connection, form)
