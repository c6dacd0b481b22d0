"""Topics as the older system's broker has them: who listens to which, and what its messages look like.

A topic is a root's name, ``@new`` for roots that are announced, or all of them. What our publishers tell is told here
in the older system's form; what its publishers tell is passed on as it is. Sockets are ``handlers``'.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from ..core.events import EventBatch
from ..core.legacy import info_json, is_listed
from ..core.roots import AnnouncedRoot, host_and_port
from ..errors import Caterva2Error, RequestError

__all__ = ["ALL_TOPICS", "NEW_ROOTS", "OldTopics", "Peer"]

NEW_ROOTS = "@new"
ALL_TOPICS = "__EventNotifier_ALL_TOPICS__"
MAX_TOPICS = 2000
MAX_TOPIC_CHARS = 300
MAX_WAITING = 1000
MAX_MESSAGE_CHARS = 1 << 20
"""Its clients refuse longer ones."""
ANSWER_TIMEOUT_S = 10.0


class Peer:
    """One connection of the older system.

    Parameters
    ----------
    send : callable
        Sends a text.
    close : callable
    """

    def __init__(self, send: Callable[[str], Awaitable[None]], close: Callable[[], None]) -> None:
        self.ident = secrets.token_hex(16)
        self.topics: dict[str, str] = {}
        """Ids of its subscriptions."""
        self._send, self._close = send, close
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def answer(self, call_id: object, result: object) -> None:
        kind = type(result).__name__
        response = {"result": result, "result_type": kind, "call_id": call_id}
        await self._send(json.dumps({"request": None, "response": response}))

    async def notify(self, topic: str, subscription_id: str, data: object) -> None:
        """Tell something, and wait until it is answered; one that does not answer is closed."""
        if len(self._waiting) >= MAX_WAITING:
            self._close()
            return
        call_id = secrets.token_hex(16)
        subscription = {"id": subscription_id, "subscriber_id": self.ident, "topic": topic, "notifier_id": None}
        request = {
            "method": "notify",
            "arguments": {"subscription": subscription, "data": data},
            "call_id": call_id,
        }
        text = json.dumps({"request": request, "response": None})
        if len(text) > MAX_MESSAGE_CHARS:
            return
        answered = self._waiting[call_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._send(text)
                await answered
        except (TimeoutError, Caterva2Error):
            self._close()
        finally:
            del self._waiting[call_id]

    def answered(self, call_id: object) -> None:
        future = self._waiting.get(str(call_id))
        if future is not None and not future.done():
            future.set_result(None)

    def leave(self) -> None:
        for future in self._waiting.values():
            future.cancel()


class OldTopics:
    """All peers, and what they are told.

    Parameters
    ----------
    heard : callable, optional
        Told of a topic and a path, when a publisher of the older system says that something happened there.
    """

    def __init__(self, heard: Callable[[str, str], None] = lambda topic, path: None) -> None:
        self._heard = heard
        self._peers: dict[str, Peer] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._known: dict[str, str] = {}
        self._turn = asyncio.Lock()

    def join(self, peer: Peer) -> None:
        self._peers[peer.ident] = peer

    def leave(self, peer: Peer) -> None:
        self._peers.pop(peer.ident, None)
        peer.leave()

    async def take(self, peer: Peer, form: Mapping[str, Any]) -> bool:
        """Do what a message asks for.

        Returns
        -------
        bool
            False when the connection is to be closed: the method is not known.

        Raises
        ------
        RequestError
        """
        response, request = form.get("response"), form.get("request")
        if isinstance(response, Mapping):
            peer.answered(response.get("call_id"))
        if not isinstance(request, Mapping):
            return True
        method, arguments = request.get("method"), request.get("arguments") or {}
        if not isinstance(method, str) or not isinstance(arguments, Mapping):
            raise RequestError("a request has a method and arguments")
        call_id = request.get("call_id")
        if method in ("_ping_", "ping"):
            await peer.answer(call_id, "pong")
        elif method == "_get_channel_id_":
            await peer.answer(call_id, peer.ident)
        elif method == "subscribe":
            for topic in _topics(arguments):
                peer.topics.setdefault(topic, secrets.token_hex(16))
            if len(peer.topics) > MAX_TOPICS:
                raise RequestError(f"more than {MAX_TOPICS} topics")
            await peer.answer(call_id, True)
        elif method == "unsubscribe":
            for topic in _topics(arguments):
                peer.topics.pop(topic, None)
            await peer.answer(call_id, True)
        elif method == "publish":
            telling = self._publish(_topics(arguments), arguments.get("data"), peer)
            data = arguments.get("data")
            if isinstance(data, Mapping) and isinstance(path := data.get("path"), str):
                for topic in _topics(arguments):
                    self._heard(topic, path)
            if arguments.get("sync"):
                # Its answer comes by another message of the same connection: nobody waits here.
                self._later(_then(telling, peer.answer(call_id, True)))
            else:
                self._later(telling)
                await peer.answer(call_id, True)
        elif not method.startswith("_"):
            return False
        return True

    async def _publish(self, topics: Iterable[str], data: object, sender: Peer | None = None) -> None:
        told = [
            peer.notify(topic, peer.topics.get(topic) or peer.topics[ALL_TOPICS], data)
            for topic in topics
            for peer in list(self._peers.values())
            if peer is not sender and (topic in peer.topics or ALL_TOPICS in peer.topics)
        ]
        await asyncio.gather(*told)

    def _later(self, telling: Awaitable[None]) -> None:
        task = asyncio.ensure_future(telling)
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        if not task.cancelled():
            with suppress(Caterva2Error):  # the connection was closed
                task.result()

    def stop(self) -> None:
        for task in self._telling:
            task.cancel()

    # What our own services tell

    def roots_changed(self, roots: Iterable[AnnouncedRoot]) -> None:
        """Tell of roots that are new, or somewhere else."""
        known = {root.name: host_and_port(root.http) for root in roots}
        for name, http in known.items():
            if self._known.get(name) != http and self._peers:
                self._later(self._publish([NEW_ROOTS], {"name": name, "http": http, "subscribed": None}))
        self._known = known

    def events(self, form: Mapping[str, Any]) -> None:
        """Tell of a batch of events of a root, to those who follow it."""
        root = str(form.get("root"))
        if not any(root in peer.topics or ALL_TOPICS in peer.topics for peer in self._peers.values()):
            return
        with suppress(Caterva2Error):  # for our own subscribers to judge
            batch = EventBatch.from_json(form)
            self._later(self._in_order(root, batch))

    async def _in_order(self, root: str, batch: EventBatch) -> None:
        async with self._turn:
            for event in batch.events:
                entry = event.entry
                if event.change == "delete":
                    await self._publish([root], {"path": event.path})
                elif entry is not None and is_listed(entry):
                    metadata = info_json(entry, f"{root}/{event.path}")
                    await self._publish([root], {"path": event.path, "metadata": metadata})


async def _then(first: Awaitable[None], second: Awaitable[None]) -> None:
    await first
    await second


def _topics(arguments: Mapping[str, Any]) -> list[str]:
    topics = arguments.get("topics")
    listed = [topics] if isinstance(topics, str) else topics
    if not isinstance(listed, list) or len(listed) > MAX_TOPICS:
        raise RequestError("topics are a text or a list of texts")
    if not all(isinstance(topic, str) and len(topic) <= MAX_TOPIC_CHARS for topic in listed):
        raise RequestError(f"a topic is a text of at most {MAX_TOPIC_CHARS} characters")
    return listed
