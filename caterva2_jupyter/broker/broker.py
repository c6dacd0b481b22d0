"""The broker at work: connections, fan-out and heartbeats around the pure registry.

Everything runs in one event loop; only the state file is written in a thread. It keeps no events: what a
subscriber missed it asks from the publisher, by cursor.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import count
from typing import Any

from ..core.catalog import Cursor
from ..core.events import EventBatch
from ..core.paths import parse_path, parse_root_name
from ..core.roots import AnnouncedRoot, owner_tag, parse_service_url, parse_via
from ..errors import InvalidPathError, RequestError, RootNotFoundError, SourceUnavailableError, TooLargeError
from .old_topics import OldTopics
from .outbox import Outbox
from .registry import MAX_ROOTS, url_of
from .state_file import StateFile

__all__ = ["Broker", "Connection", "parse_published_name"]

MAX_EPOCH_CHARS = MAX_TAG_CHARS = 100
TELL_DELAY_S = 0.03

logger = logging.getLogger(__name__)


class Connection:
    """One peer: what waits for it, and the task that sends it.

    Parameters
    ----------
    send : callable
        Sends a text; done when the peer's side has taken it. Raises ``SourceUnavailableError``.
    close : callable
        Closes the peer's socket with a reason.
    """

    def __init__(self, number: int, send: Callable[[str], Awaitable[None]], close: Callable[[str], None]) -> None:
        self.number = number
        self.close = close
        self.root = ""
        self.is_listener = False
        self.outbox = Outbox()
        self._send = send
        self._something = asyncio.Event()
        self._sending = asyncio.create_task(self._send_all())

    def wake(self) -> None:
        """Something was put in the outbox."""
        self._something.set()

    def stop(self) -> None:
        self._sending.cancel()

    async def _send_all(self) -> None:
        try:
            while True:
                await self._something.wait()
                self._something.clear()
                while (text := self.outbox.pop()) is not None:
                    await self._send(text)
        except SourceUnavailableError:
            self.close("gone")


class Broker:
    """Which roots there are, and who is told of them.

    Parameters
    ----------
    state : StateFile
    heartbeat_s : float
        Interval of heartbeats in both directions. A publisher that is silent for two is offline.
    """

    def __init__(self, state: StateFile, heartbeat_s: float) -> None:
        self.heartbeat_s = heartbeat_s
        self._state = state
        self._registry = state.load()
        self._connections: dict[int, Connection] = {}
        self._numbers = count(1)
        self._saving = asyncio.Lock()
        self._changes = self._saved = 0
        self._telling: asyncio.TimerHandle | None = None
        self.old_topics = OldTopics(self._heard_of_old)
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._beating = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Close all connections; publishers and subscribers will look for the next broker."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        for connection in list(self._connections.values()):
            connection.close("the broker stops")
            self.leave(connection)
        if self._telling is not None:
            self._telling.cancel()
        self.old_topics.stop()
        await self._save()

    def roots(self) -> tuple[AnnouncedRoot, ...]:
        return self._registry.roots()

    def connect(self, send: Callable[[str], Awaitable[None]], close: Callable[[str], None]) -> Connection:
        """A peer has opened a connection; it says later what it is."""
        connection = Connection(next(self._numbers), send, close)
        self._connections[connection.number] = connection
        return connection

    def leave(self, connection: Connection) -> None:
        """A connection is closed, by either side."""
        if self._connections.pop(connection.number, None) is None:
            return
        connection.stop()
        self._registry.leave(connection.number)
        if connection.root and self._registry.disconnect(connection.root, connection.number):
            logger.info("root %r is offline: its publisher is gone", connection.root)
            self._tell_roots()

    async def register(self, connection: Connection, form: dict[str, Any]) -> None:
        """Take a publisher's first message, and answer it.

        Raises
        ------
        RootTakenError
        RequestError, InvalidPathError, IntegrityError
            When it is not a registration.
        """
        owner, name = form.get("owner"), parse_published_name(str(form.get("name")))
        if form.get("type") != "register" or not isinstance(owner, str) or not 16 <= len(owner) <= 200:
            raise RequestError("a publisher's first message has to be its registration")
        cursor = _parse_cursor(form)
        http = parse_service_url(url_of(str(form.get("http"))))
        origin, via = form.get("origin", ""), parse_via(form.get("via"))
        if not isinstance(origin, str) or len(origin) > MAX_TAG_CHARS:
            raise RequestError("the origin of a root is the tag of its owner")
        changed = self._registry.register(name, http, owner_tag(owner), origin, via)
        if changed:
            # Before it is answered: a name must not be free again after a crash.
            await self._save()
        if connection.number not in self._connections:
            return
        connection.root = name
        replaced = self._registry.connect(name, connection.number, cursor, asyncio.get_running_loop().time())
        if replaced is not None:
            self._connections[replaced].close("the publisher has connected anew")
        logger.info("root %r is online", name)
        connection.outbox.put(name, json.dumps({"type": "registered", "heartbeat_s": self.heartbeat_s}))
        connection.wake()
        self._tell_roots()
        self._fan_out(name, _position_text(name, cursor))

    def hear(self, connection: Connection, form: dict[str, Any], text: str) -> None:
        """Pass a publisher's events or heartbeat on to the root's followers.

        Raises
        ------
        RequestError
            When it is about another root than the one registered, or not a batch of events.
        """
        if form.get("type") != "events" or form.get("root") != connection.root or not connection.root:
            raise RequestError(f"only events of root {connection.root!r} are taken here")
        if not isinstance(form.get("events"), list) or type(form.get("first_seq")) is not int:
            raise RequestError("malformed batch of events")
        now = asyncio.get_running_loop().time()
        if self._registry.hear(connection.root, connection.number, _parse_cursor(form), now):
            self._fan_out(connection.root, text)
            if form["events"]:
                self.old_topics.events(form)

    async def announce(self, name: str, http: str) -> None:
        """Register a root whose publisher does not connect (old REST).

        Raises
        ------
        RootTakenError
        """
        if self._registry.register(name, http, ""):
            await self._save()
            self._tell_roots()

    async def remove(self, name: str) -> None:
        """Forget a root.

        Raises
        ------
        RootNotFoundError, ConflictError
        """
        self._registry.remove(name)
        await self._save()
        self._tell_roots()

    def listen(self, connection: Connection) -> None:
        """A subscriber is there: it is told the roots now and whenever they change."""
        connection.is_listener = True
        connection.outbox.put_roots(self._roots_text())
        connection.wake()

    def follow(self, connection: Connection, form: dict[str, Any]) -> None:
        """Take a subscriber's wish for events.

        Raises
        ------
        RequestError, InvalidPathError, TooLargeError
        """
        names = form.get("roots")
        if form.get("type") != "follow" or not isinstance(names, list):
            raise RequestError("a subscriber's messages have to be of type 'follow', with a list of roots")
        if len(names) > MAX_ROOTS:
            raise TooLargeError(f"at most {MAX_ROOTS} roots can be followed")
        if connection.number not in self._connections:
            return
        added = self._registry.follow(connection.number, [parse_root_name(str(n)) for n in names])
        for root in self._registry.roots():
            # Where they are now, so that what was missed before following shows at once.
            if root.name in added and root.online and root.cursor is not None:
                connection.outbox.put(root.name, _position_text(root.name, root.cursor))
        connection.wake()

    def _fan_out(self, name: str, text: str) -> None:
        for number in self._registry.followers(name):
            connection = self._connections[number]
            connection.outbox.put(name, text)
            connection.wake()

    def _heard_of_old(self, name: str, path: str) -> None:
        """A publisher of the older system says that something happened; its followers here look at it themselves."""
        with suppress(RootNotFoundError, InvalidPathError):
            if not self._registry.root(name).owner:
                self._fan_out(name, json.dumps({"type": "look", "root": name, "path": parse_path(path)}))

    def _tell_roots(self) -> None:
        """Tell all subscribers the list, soon: when a broker returns, its publishers come all at once."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_DELAY_S, self._tell_roots_now)

    def _tell_roots_now(self) -> None:
        self._telling = None
        self.old_topics.roots_changed(self.roots())
        text = self._roots_text()
        for connection in self._listeners():
            connection.outbox.put_roots(text)
            connection.wake()

    def _listeners(self) -> Iterable[Connection]:
        return [c for c in self._connections.values() if c.is_listener]

    def _roots_text(self) -> str:
        roots = [root.to_json() for root in self.roots()]
        return json.dumps({"type": "roots", "heartbeat_s": self.heartbeat_s, "roots": roots})

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        tick_s = self.heartbeat_s / 10
        next_beat = now = loop.time()
        while True:
            before = now
            await asyncio.sleep(tick_s)
            now = loop.time()
            # Stopped for a while, or on a machine that was: that is nobody's silence.
            if (held_up_s := now - before - tick_s) > tick_s:
                self._registry.excuse(held_up_s, now)
            # One tick early, so that silence shows within two intervals of the last word.
            for number in self._registry.expire(now, 2 * self.heartbeat_s - tick_s):
                connection = self._connections[number]
                logger.warning("root %r is offline: its publisher is silent", connection.root)
                connection.close("no heartbeat")
                self.leave(connection)
                self._tell_roots()
            if now < next_beat:
                continue
            next_beat = now + self.heartbeat_s
            for connection in self._connections.values():
                if connection.root or connection.is_listener:
                    connection.outbox.put_heartbeat()
                    connection.wake()

    async def _save(self) -> None:
        self._changes += 1
        wanted = self._changes
        async with self._saving:
            if self._saved >= wanted:
                return  # many register at once when a broker returns: one file has them all
            saving = self._changes
            form = self._registry.to_json()
            try:
                await asyncio.to_thread(self._state.save, form)
            except OSError as error:
                logger.warning("cannot save %s: %s; roots are kept in memory", self._state.path, error.strerror)
            self._saved = saving


def parse_published_name(text: str) -> str:
    """The name of a root that a publisher may take.

    Raises
    ------
    InvalidPathError
        When it cannot name a root, or names an area of subscribers.
    """
    if text.startswith("@"):
        raise InvalidPathError(f"{text[:100]!r} cannot be published: names with @ are areas of subscribers")
    return parse_root_name(text)


def _parse_cursor(form: dict[str, Any]) -> Cursor:
    epoch, seq = form.get("epoch"), form.get("seq")
    if not isinstance(epoch, str) or not 0 < len(epoch) <= MAX_EPOCH_CHARS or type(seq) is not int or seq < 0:
        raise RequestError("the message has no usable epoch and seq")
    return Cursor(epoch, seq)


def _position_text(root: str, cursor: Cursor) -> str:
    """Where a root is, as a batch without events."""
    return json.dumps(EventBatch(root, cursor.epoch, cursor.seq + 1, cursor.seq).to_json())
