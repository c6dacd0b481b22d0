"""Telling the broker that a root is here, and what changes in it, for as long as its service lives.

A publisher tells of its own root, a subscriber of one that it follows and announces in its turn.
A broker that is away, restarts or forgets costs nothing but time: the link opens itself again with
back-off and registers again. What changes is told from the catalog's cursor on, so nothing is kept here.
It does not serve data; subscribers get that from the publisher itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from ..config import Address, NetworkConfig
from ..core.catalog import Cursor
from ..core.events import EventBatch
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    Caterva2Error,
    ResyncError,
    RootTakenError,
)
from ..storage.closing import close_stream
from .outgoing_session import client_ssl_context, service_url
from .outgoing_websocket import Backoff, OutgoingWebSocket, open_websocket, parse_heartbeat

__all__ = ["BrokerLink", "LinkStatus"]

MAX_EVENTS = 1000
MAX_MESSAGE_NCHARS = 1024 * 1024
DEFAULT_HEARTBEAT_S = 5.0
REFUSED_RETRY_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """How the link is.

    Attributes
    ----------
    state : {"connecting", "online", "refused"}
        ``refused``: the broker answers and says no (the name is taken, the token is wrong); it is asked
        again every 10 s, since somebody may free the name.
    reason : str
        Why it is not online.
    """

    state: Literal["connecting", "online", "refused"]
    reason: str = ""


class BrokerLink:
    """A publisher's connection to its broker.

    Parameters
    ----------
    broker : Address
    network : NetworkConfig
        Its publish token and certificates are used.
    name : str
        Name of the root.
    owner_id : str
        The publisher's secret id, kept in its state directory: it proves that the name is its own.
    advertise_url : str
        URL by which subscribers reach the publisher.
    cursor : callable
        Gives the catalog's cursor now (``CatalogStore.cursor``).
    events : callable
        Gives batches of events since a cursor, without end (``ThreadedSource.events``); a ``ResyncError``
        out of it is answered by telling the cursor alone.
    on_status : callable, optional
        Called in the event loop with each new ``LinkStatus``.
    via : sequence of str
        Ids of the subscribers that the root comes through, the one that announces it the last.
    origin : str
        ``owner_tag`` of the root's own publisher, when another announces it: that one may take the name back.

    Examples
    --------
    >>> link = BrokerLink(
    ...     broker=Address("localhost", 8000), network=NetworkConfig(), name="foo", owner_id="0" * 32,
    ...     advertise_url="http://localhost:8001", cursor=lambda: Cursor("e", 0), events=None,
    ... )
    >>> link.status.state
    'connecting'

    ``asyncio.create_task(link.run())`` then runs it; cancel the task to take the root offline.
    """

    def __init__(
        self,
        *,
        broker: Address,
        network: NetworkConfig,
        name: str,
        owner_id: str,
        advertise_url: str,
        cursor: Callable[[], Cursor],
        events: Callable[[Cursor | None], AsyncIterator[EventBatch]],
        on_status: Callable[[LinkStatus], None] = lambda status: None,
        via: Sequence[str] = (),
        origin: str = "",
    ) -> None:
        self._url = service_url(broker, network)
        self._token = network.publish_bearer
        self._ssl_context = client_ssl_context(network)
        self._name = name
        self._owner_id = owner_id
        self._advertise_url = advertise_url
        self._cursor = cursor
        self._events = events
        self._on_status = on_status
        self._way = ({"via": list(via)} if via else {}) | ({"origin": origin} if origin else {})
        self._backoff = Backoff()
        self._heartbeat_s = DEFAULT_HEARTBEAT_S
        self.status = LinkStatus("connecting")

    async def run(self) -> None:
        """Keep the root registered until cancelled; no error leaves it."""
        while True:
            try:
                async with open_websocket(
                    self._url,
                    "/api/v1/publish",
                    token=self._token,
                    ssl_context=self._ssl_context,
                    timeout_s=max(self._heartbeat_s, DEFAULT_HEARTBEAT_S),
                ) as websocket:
                    await self._publish(websocket)
            except (RootTakenError, AuthenticationError, AccessDeniedError) as error:
                self._set_status(LinkStatus("refused", str(error)))
                await asyncio.sleep(REFUSED_RETRY_S)
            except Caterva2Error as error:
                self._set_status(LinkStatus("connecting", str(error)))
                await asyncio.sleep(self._backoff.next_s())
            except Exception:
                # A catalog that cannot be read now must not take the root offline for good.
                logger.exception("the link of root %r to the broker failed; it is opened again", self._name)
                self._set_status(LinkStatus("connecting", "an error that is in the log"))
                await asyncio.sleep(self._backoff.next_s())

    def _set_status(self, status: LinkStatus) -> None:
        if status == self.status:
            return
        if status.state == "online":
            logger.info("root %r is registered at %s", self._name, self._url)
        elif status.state != self.status.state or status.state == "refused":
            logger.warning("root %r is not registered at the broker: %s", self._name, status.reason)
        self.status = status
        self._on_status(status)

    async def _publish(self, websocket: OutgoingWebSocket) -> None:
        cursor = self._cursor()
        registration = {
            "type": "register",
            "name": self._name,
            "owner": self._owner_id,
            "http": self._advertise_url,
            "epoch": cursor.epoch,
            "seq": cursor.seq,
            **self._way,
        }
        await websocket.send(json.dumps(registration), self._heartbeat_s)
        answer = await websocket.receive(2 * self._heartbeat_s)
        self._heartbeat_s = parse_heartbeat(answer, "registered")
        # Back within one heartbeat of the broker's return.
        self._backoff.limit(self._heartbeat_s / 2)
        self._set_status(LinkStatus("online"))
        registered_at = asyncio.get_running_loop().time()
        conversation = _Conversation(websocket, self._name, cursor, self._heartbeat_s)
        failures: list[BaseException] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(conversation.tell(self._events, self._cursor))
                tasks.create_task(conversation.beat())
                tasks.create_task(conversation.listen())
        except* Caterva2Error as group:
            failures.extend(group.exceptions)
        # Two publishers with one identity would take the name from each other without a pause.
        if asyncio.get_running_loop().time() - registered_at >= self._heartbeat_s:
            self._backoff.reset()
        raise failures[0]


class _Conversation:
    """One registered connection: events and heartbeats out, the broker's heartbeats in."""

    def __init__(self, websocket: OutgoingWebSocket, name: str, cursor: Cursor, heartbeat_s: float) -> None:
        self._websocket = websocket
        self._name = name
        self._told = cursor
        self._heartbeat_s = heartbeat_s
        self._is_quiet = True

    async def tell(
        self, events: Callable[[Cursor | None], AsyncIterator[EventBatch]], cursor: Callable[[], Cursor]
    ) -> None:
        while True:
            try:
                async with aclosing(_closable(events(self._told))) as batches:
                    async for batch in batches:
                        self._told = batch.cursor
                        await self._send(_bounded_text(batch))
            except ResyncError:
                self._told = cursor()
                await self._send(_position_text(self._name, self._told))

    async def beat(self) -> None:
        """Tell the cursor whenever a heartbeat passes without events."""
        while True:
            self._is_quiet = True
            await asyncio.sleep(self._heartbeat_s)
            if self._is_quiet:
                await self._send(_position_text(self._name, self._told))

    async def listen(self) -> None:
        """Nothing but heartbeats comes from the broker; silence means that it is gone."""
        while True:
            await self._websocket.receive(2 * self._heartbeat_s)

    async def _send(self, text: str) -> None:
        self._is_quiet = False
        await self._websocket.send(text, 2 * self._heartbeat_s)


async def _closable(batches: AsyncIterator[EventBatch]) -> AsyncGenerator[EventBatch, None]:
    """The same batches, from a generator that can be closed."""
    try:
        async for batch in batches:
            yield batch
    finally:
        await close_stream(batches)


def _bounded_text(batch: EventBatch) -> str:
    """A batch as text; its number alone when it is too large to be told: listeners then ask for the rest."""
    if len(batch.events) <= MAX_EVENTS:
        text = json.dumps(batch.to_json(), separators=(",", ":"))
        if len(text) <= MAX_MESSAGE_NCHARS:
            return text
    return _position_text(batch.root, batch.cursor)


def _position_text(root: str, cursor: Cursor) -> str:
    return json.dumps(EventBatch(root, cursor.epoch, cursor.seq + 1, cursor.seq).to_json(), separators=(",", ":"))
