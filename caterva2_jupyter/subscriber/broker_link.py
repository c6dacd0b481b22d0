"""Hearing from the broker which roots there are and what changes in those that are followed.

The link opens itself again for as long as it is iterated, and says so: what was missed meanwhile has to be
asked from each root's publisher (``subscriber/catalog`` decides that). It keeps no data and no catalogs.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ..config import Address, NetworkConfig
from ..core.events import EventBatch
from ..core.paths import parse_path, parse_root_name
from ..core.roots import AnnouncedRoot
from ..errors import AccessDeniedError, AuthenticationError, Caterva2Error, IntegrityError
from ..web.outgoing_session import client_ssl_context, service_url
from ..web.outgoing_websocket import Backoff, OutgoingWebSocket, open_websocket, parse_heartbeat

__all__ = ["BrokerLink", "BrokerLost", "EventsLost", "LinkMessage", "LookWanted", "RootsKnown"]

DEFAULT_HEARTBEAT_S = 5.0
REFUSED_RETRY_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RootsKnown:
    """All roots that the broker knows: first after each connection, then on each change of the list.

    A root that is missing from it may come back (a broker that lost its state hears from its publishers
    within a heartbeat), so nothing has to be dropped for it.
    """

    roots: tuple[AnnouncedRoot, ...]


@dataclass(frozen=True, slots=True)
class EventsLost:
    """Events of that root were dropped, as this side was too slow: ask its publisher what changed."""

    root: str


@dataclass(frozen=True, slots=True)
class BrokerLost:
    """The broker cannot be reached now, and why; the link goes on trying. Told once per loss.

    ``is_source``: it is not a broker, but the service that the roots are read from itself.
    """

    reason: str
    is_source: bool = False


@dataclass(frozen=True, slots=True)
class LookWanted:
    """Something happened at a path of a root whose publisher is one of the older system, which says no more."""

    root: str
    path: str


LinkMessage = RootsKnown | EventBatch | EventsLost | BrokerLost | LookWanted


class BrokerLink:
    """A subscriber's connection to its broker.

    Parameters
    ----------
    broker : Address
    network : NetworkConfig
        Its read token and certificates are used.

    Examples
    --------
    ::

        link = BrokerLink(config.broker, config.network)
        link.follow({"foo"})                        # at any time, also before it is connected
        async for message in link.messages():       # until the task is cancelled
            match message:
                case RootsKnown(roots): ...
                case EventBatch(): ...              # of followed roots, heartbeats included
                case EventsLost(root): ...
                case BrokerLost(reason): ...

    Messages are taken from the connection as they are asked for: a consumer that is slow holds the
    broker back, which then drops events of a root as a whole and says so (``EventsLost``).
    """

    def __init__(self, broker: Address, network: NetworkConfig) -> None:
        self._url = service_url(broker, network)
        self._token = network.read_bearer
        self._ssl_context = client_ssl_context(network)
        self._backoff = Backoff()
        self._heartbeat_s = DEFAULT_HEARTBEAT_S
        self._followed: frozenset[str] = frozenset()
        self._follow_changed = asyncio.Event()
        self.is_online = False

    def follow(self, roots: Iterable[str]) -> None:
        """Set which roots' events are wanted, in place of those before."""
        self._followed = frozenset(roots)
        self._follow_changed.set()

    async def messages(self) -> AsyncGenerator[LinkMessage, None]:
        """What the broker says, without end. Errors of the network never leave it."""
        was_told = False
        while True:
            try:
                async with (
                    open_websocket(
                        self._url,
                        "/api/v1/subscribe",
                        token=self._token,
                        ssl_context=self._ssl_context,
                        timeout_s=max(self._heartbeat_s, DEFAULT_HEARTBEAT_S),
                    ) as websocket,
                    aclosing(self._listen(websocket)) as heard,
                ):
                    async for message in heard:
                        was_told = False
                        yield message
            except Caterva2Error as error:
                self.is_online = False
                if not was_told:
                    was_told = True
                    logger.warning("no connection to the broker: %s", error)
                    yield BrokerLost(str(error))
                refused = isinstance(error, (AuthenticationError, AccessDeniedError))
                await asyncio.sleep(REFUSED_RETRY_S if refused else self._backoff.next_s())
            finally:
                self.is_online = False

    async def _listen(self, websocket: OutgoingWebSocket) -> AsyncGenerator[LinkMessage, None]:
        connected_at = asyncio.get_running_loop().time()
        self._follow_changed.set()
        telling = asyncio.create_task(self._tell_followed(websocket))
        try:
            first = await websocket.receive(2 * self._heartbeat_s)
            self._heartbeat_s = parse_heartbeat(first, "roots")
            # Back within one heartbeat of the broker's return.
            self._backoff.limit(self._heartbeat_s / 2)
            self.is_online = True
            logger.info("connected to the broker at %s", self._url)
            yield _parse(first)
            while True:
                form = await websocket.receive(2 * self._heartbeat_s)
                if asyncio.get_running_loop().time() - connected_at >= self._heartbeat_s:
                    self._backoff.reset()
                if form.get("type") != "heartbeat":
                    yield _parse(form)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell_followed(self, websocket: OutgoingWebSocket) -> None:
        # A failure to send shows in receive, too, which is where it is reported.
        while True:
            await self._follow_changed.wait()
            self._follow_changed.clear()
            text = json.dumps({"type": "follow", "roots": sorted(self._followed)})
            await websocket.send(text, 2 * self._heartbeat_s)


def _parse(form: dict[str, Any]) -> LinkMessage:
    match form.get("type"):
        case "roots":
            roots = form.get("roots")
            if not isinstance(roots, list):
                raise IntegrityError("the broker sent a malformed list of roots")
            return RootsKnown(tuple(AnnouncedRoot.from_json(r) for r in roots))
        case "events":
            try:
                return EventBatch.from_json(form)
            except IntegrityError:
                # One publisher that talks nonsense must not cost the connection that all roots share.
                return EventsLost(parse_root_name(str(form.get("root"))))
        case "resync":
            return EventsLost(parse_root_name(str(form.get("root"))))
        case "look":
            return LookWanted(parse_root_name(str(form.get("root"))), parse_path(str(form.get("path"))))
        case kind:
            raise IntegrityError(f"the broker sent an unknown message {str(kind)[:40]!r}")
