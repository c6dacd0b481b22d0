"""The older system's WebSocket ``/pubsub``, message by message."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.websocket import WebSocketClientConnection, websocket_connect

from caterva2_jupyter.broker.app import make_app
from caterva2_jupyter.broker.broker import Broker
from caterva2_jupyter.broker.old_topics import ALL_TOPICS
from caterva2_jupyter.broker.state_file import StateFile
from caterva2_jupyter.config import load_config
from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.core.metadata import Entry, Geometry

ENTRY = Entry("x.b2nd", "array", id="a", version="b", geometry=Geometry((4, 5), (2, 5), (1, 5), np.dtype("i4")))


class Client:
    """A connection that asks and answers as the older system's does."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self.socket = socket

    async def send(self, method: str, **arguments: Any) -> None:
        request = {"method": method, "arguments": arguments, "call_id": "c" * 32}
        await self.socket.write_message(json.dumps({"request": request, "response": None}))

    async def next(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self.socket.read_message(), 30)
        assert text is not None, "closed"
        form = json.loads(text)
        assert set(form) == {"request", "response"}
        return dict(form)

    async def call(self, method: str, **arguments: Any) -> Any:
        await self.send(method, **arguments)
        response = (await self.next())["response"]
        assert response["call_id"] == "c" * 32
        assert response["result_type"] == type(response["result"]).__name__
        return response["result"]

    async def notified(self) -> tuple[str, Any]:
        request = (await self.next())["request"]
        assert request["method"] == "notify"
        subscription = request["arguments"]["subscription"]
        assert len(subscription["id"]) == len(subscription["subscriber_id"]) == 32
        assert subscription["notifier_id"] is None
        response = {"result": "None", "result_type": "str", "call_id": request["call_id"]}
        await self.socket.write_message(json.dumps({"request": None, "response": response}))
        return subscription["topic"], request["arguments"]["data"]


def with_broker(test: Any, directory: Path) -> None:
    async def main() -> None:
        config = load_config(None, {}).broker(http="127.0.0.1:0")
        broker = Broker(StateFile(directory), 5)
        sockets = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(make_app(broker, config))
        server.add_sockets(sockets)
        url = f"ws://127.0.0.1:{sockets[0].getsockname()[1]}/pubsub"
        await broker.start()
        clients: list[Client] = []

        async def new() -> Client:
            clients.append(Client(await websocket_connect(url)))
            return clients[-1]

        try:
            await test(broker, new)
        finally:
            for client in clients:
                client.socket.close()
            await broker.stop()
            server.stop()
            await server.close_all_connections()

    asyncio.run(main())


def test_calls_are_answered(tmp_path: Path) -> None:
    async def test(broker: Broker, new: Any) -> None:
        client = await new()
        assert await client.call("_ping_") == "pong"
        assert await client.call("ping") == "pong"
        assert len(await client.call("_get_channel_id_")) == 32
        assert await client.call("subscribe", topics=["foo", "@new"]) is True
        assert await client.call("unsubscribe", topics=["foo"]) is True
        await client.send("_private")  # ignored
        assert await client.call("_ping_") == "pong"

    with_broker(test, tmp_path)


def test_what_is_published_reaches_others_before_a_synchronous_publisher_is_answered(tmp_path: Path) -> None:
    async def test(broker: Broker, new: Any) -> None:
        publisher, one, everything = await new(), await new(), await new()
        assert await one.call("subscribe", topics=["foo"]) is True
        assert await everything.call("subscribe", topics=[ALL_TOPICS]) is True
        data = {"path": "x.b2nd", "metadata": {"shape": [3]}}
        await publisher.send("publish", topics="foo", data=data, sync=True, notifier_id=None)
        answering = asyncio.create_task(publisher.next())
        assert await one.notified() == ("foo", data)
        assert not answering.done()  # one more has to answer
        assert await everything.notified() == ("foo", data)
        assert (await answering)["response"]["result"] is True

    with_broker(test, tmp_path)


def test_what_our_services_tell_is_told_in_the_older_form(tmp_path: Path) -> None:
    async def test(broker: Broker, new: Any) -> None:
        client = await new()
        assert await client.call("subscribe", topics=["@new", "foo"]) is True
        await broker.announce("foo", "http://127.0.0.1:9")
        assert await client.notified() == ("@new", {"name": "foo", "http": "127.0.0.1:9", "subscribed": None})
        events = (Event("put", "x.b2nd", ENTRY), Event("put", "dir", Entry("dir", "group")), Event("delete", "y.b2nd"))
        broker.old_topics.events(EventBatch("foo", "epoch", 1, 3, events).to_json())
        topic, data = await client.notified()
        assert (topic, data["path"], data["metadata"]["shape"]) == ("foo", "x.b2nd", [4, 5])
        assert await client.notified() == ("foo", {"path": "y.b2nd"})

    with_broker(test, tmp_path)


def test_nonsense_ends_the_connection_and_nothing_else(tmp_path: Path) -> None:
    async def test(broker: Broker, new: Any) -> None:
        for text in ("", "[]", "{", '{"request": {"method": "evil"}}', '{"request": {"method": 3}}',
                     '{"request": {"method": "subscribe", "arguments": {"topics": 3}}}'):  # fmt: skip
            client = await new()
            await client.socket.write_message(text)
            assert await asyncio.wait_for(client.socket.read_message(), 30) is None
        assert await (await new()).call("_ping_") == "pong"

    with_broker(test, tmp_path)
