"""The broker over HTTP: the old REST, ours, who may, and what a hostile peer gets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from caterva2_jupyter.broker import handlers
from caterva2_jupyter.broker.handlers import make_routes
from caterva2_jupyter.config import NetworkConfig

from .running import OPEN, Catalog, RunningBroker, broker_at, publishing, subscribing, until

TOKENS = NetworkConfig(publish_token="publish-it", read_token="read-it")
FOO = {"name": "foo", "http": "localhost:8001"}
REGISTRATION = {"type": "register", "name": "foo", "owner": "o" * 20, "http": "http://h:1", "epoch": "e", "seq": 0}


async def ask(broker: RunningBroker, method: str, path: str, **options) -> tuple[int, object]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, broker.url + path, **options) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text) if text else None


def with_broker(scenario, statedir: Path, network: NetworkConfig = OPEN) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), broker_at(statedir, network=network) as broker:
            await scenario(broker)

    asyncio.run(run())


def test_the_old_rest_registers_and_lists(tmp_path: Path):
    async def scenario(broker: RunningBroker) -> None:
        assert await ask(broker, "GET", "/api/roots") == (200, {})
        assert await ask(broker, "POST", "/api/roots", json=FOO) == (200, FOO | {"subscribed": None})
        assert await ask(broker, "POST", "/api/roots", json=FOO | {"subscribed": True}) == (
            200,
            FOO | {"subscribed": None},
        )
        assert await ask(broker, "GET", "/api/roots") == (200, {"foo": FOO})
        async with subscribing(broker.address) as heard:
            await until(lambda: heard.roots == {"foo": True})
            await ask(broker, "POST", "/api/roots", json={"name": "bar", "http": "/run/pub.sock"})
            await until(lambda: heard.roots == {"foo": True, "bar": True})

    with_broker(scenario, tmp_path)


def test_the_old_rest_survives_a_restart(tmp_path: Path):
    async def first(broker: RunningBroker) -> None:
        await ask(broker, "POST", "/api/roots", json=FOO)

    async def second(broker: RunningBroker) -> None:
        assert await ask(broker, "GET", "/api/roots") == (200, {"foo": FOO})

    with_broker(first, tmp_path)
    with_broker(second, tmp_path)


def test_a_name_cannot_be_taken_over_by_the_old_rest(tmp_path: Path):
    async def scenario(broker: RunningBroker) -> None:
        async with publishing(broker.address, Catalog()):
            await until(lambda: broker.is_online("foo"))
            status, body = await ask(broker, "POST", "/api/roots", json={"name": "foo", "http": "evil:1"})
            assert (status, body["error"]) == (409, "RootTakenError")
            assert await ask(broker, "GET", "/api/roots") == (200, {"foo": {"name": "foo", "http": "here:8001"}})

    with_broker(scenario, tmp_path)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"not json", []),
        (b"[]", []),
        (b"{}", ["name"]),
        (b'{"name": "foo"}', ["http"]),
        (b'{"name": 1, "http": "h:1"}', ["name"]),
        (b'{"name": "../x", "http": "h:1"}', ["name"]),
        (b'{"name": "@public", "http": "h:1"}', ["name"]),
        (b'{"name": "-", "http": "h:1"}', ["name"]),
        (b'{"name": "a/b", "http": "h:1"}', ["name"]),
        (b'{"name": "foo", "http": "file:///etc/passwd"}', ["http"]),
        (b'{"name": "foo", "http": "http://user:pw@h:1"}', ["http"]),
        (b'{"name": "foo", "http": "h:99999"}', ["http"]),
        (b"[" * 100_000, []),
    ],
)
def test_a_registration_that_makes_no_sense_is_422(tmp_path: Path, body: bytes, where: list[str]):
    async def scenario(broker: RunningBroker) -> None:
        status, answer = await ask(broker, "POST", "/api/roots", data=body)
        assert status == 422
        assert answer["detail"][0]["loc"] == ["body", *where]
        assert broker.service.broker.roots() == ()

    with_broker(scenario, tmp_path)


def test_roots_are_listed_with_what_is_known_of_them(tmp_path: Path):
    async def scenario(broker: RunningBroker) -> None:
        async with publishing(broker.address, Catalog()):
            await until(lambda: broker.is_online("foo"))
            status, body = await ask(broker, "GET", "/api/v1/roots")
            assert status == 200
            (root,) = body["roots"]
            assert root.pop("owner")
            assert root == {"name": "foo", "http": "http://here:8001", "online": True, "epoch": "life", "seq": 0}

    with_broker(scenario, tmp_path)


def test_a_root_is_removed_when_its_publisher_has_stopped(tmp_path: Path):
    async def scenario(broker: RunningBroker) -> None:
        async with subscribing(broker.address) as heard:
            async with publishing(broker.address, Catalog()):
                await until(lambda: broker.is_online("foo"))
                status, body = await ask(broker, "DELETE", "/api/v1/roots/foo")
                assert (status, body["error"]) == (409, "ConflictError")
            await until(lambda: not broker.is_online("foo"))
            assert await ask(broker, "DELETE", "/api/v1/roots/foo") == (204, None)
            await until(lambda: heard.roots == {} and len(heard.messages) > 1)
            assert (await ask(broker, "DELETE", "/api/v1/roots/foo"))[0] == 404
            async with publishing(broker.address, Catalog(), owner_id="bob" * 8) as link:
                await until(lambda: link.status.state == "online")

    with_broker(scenario, tmp_path)


def test_health_tells_no_more_than_that_it_lives(tmp_path: Path):
    async def scenario(broker: RunningBroker) -> None:
        assert await ask(broker, "GET", "/api/v1/health") == (200, {"status": "ok", "service": "broker"})
        assert (await ask(broker, "GET", "/api/nothing"))[0] == 404

    with_broker(scenario, tmp_path, TOKENS)


ACCESS = [
    ("GET", "/api/roots", "read"),
    ("POST", "/api/roots", "publish"),
    ("GET", "/api/v1/roots", "read"),
    ("DELETE", "/api/v1/roots/foo", "publish"),
    ("GET", "/api/v1/publish", "publish"),
    ("GET", "/api/v1/subscribe", "read"),
    ("GET", "/pubsub", "publish"),
]


def test_the_older_websocket_is_not_there_for_plain_requests(tmp_path: Path):
    async def scenario(broker: RunningBroker) -> None:
        status, body = (await ask(broker, "GET", "/pubsub"))[:2]
        assert (status, body) == (404, {"detail": "Not Found"})

    with_broker(scenario, tmp_path)


def test_every_route_is_in_the_matrix_of_access(tmp_path: Path):
    async def scenario(broker: RunningBroker) -> None:
        routes = {pattern.replace("([^/]+)", "foo") for pattern, _, _ in make_routes(broker.service.broker, TOKENS)}
        assert routes == {path for _, path, _ in ACCESS} | {"/api/v1/health"}

    with_broker(scenario, tmp_path)


@pytest.mark.parametrize(("method", "path", "scope"), ACCESS)
def test_only_the_right_token_opens_a_route(tmp_path: Path, method: str, path: str, scope: str):
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "x" * 22 + "==",
    }
    is_socket = path.endswith(("publish", "subscribe", "pubsub"))

    async def status_with(broker: RunningBroker, authorization: str | None, suffix: str = "") -> int:
        headers = {"Authorization": authorization} if authorization is not None else {}
        if is_socket:
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.ws_connect(broker.url + path + suffix, headers=headers),
                ):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status
        return (await ask(broker, method, path + suffix, headers=headers, data=b"{}"))[0]

    async def scenario(broker: RunningBroker) -> None:
        right, other = ("publish-it", "read-it") if scope == "publish" else ("read-it", "publish-it")
        for missing in (None, "", "Bearer", "Bearer ", "Bearer forged", f"Basic {right}", f"Bearer {right}x", right):
            assert await status_with(broker, missing) == 401, missing
        assert await status_with(broker, f"Bearer {other}") == 403
        for suffix in (f"?token={right}", f"?access_token={right}"):
            assert await status_with(broker, None, suffix) == 401
        assert await status_with(broker, f"Bearer {right}") not in (401, 403)
        plain = await ask(broker, "GET", path, headers=upgrade if is_socket else {})
        assert right not in str(plain)

    with_broker(scenario, tmp_path, TOKENS)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Host": "evil.example"},
        {"Host": "evil.example:80", "Origin": "http://evil.example:80"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_web_page_cannot_use_a_browser_against_the_broker(tmp_path: Path, headers: dict[str, str]):
    async def scenario(broker: RunningBroker) -> None:
        assert (await ask(broker, "POST", "/api/roots", json=FOO, headers=headers))[0] == 403
        async with aiohttp.ClientSession() as session:
            for path in ("/api/v1/publish", "/api/v1/subscribe"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(broker.url + path, headers=headers)
                assert refused.value.status == 403
        assert broker.service.broker.roots() == ()

    with_broker(scenario, tmp_path)


@pytest.mark.parametrize("path", ["/api/v1/publish", "/api/v1/subscribe"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "1",
        "{}",
        "[" * 100_000,
        '{"type": "follow", "roots": "foo"}',
        '{"type": "follow", "roots": ["../x"]}',
        '{"type": "follow", "roots": ["\ud800"]}'.encode("ascii", "backslashreplace").decode(),
        '{"type": "register"}',
        json.dumps(REGISTRATION | {"name": "@public"}),
        json.dumps(REGISTRATION | {"name": "a/../b"}),
        json.dumps(REGISTRATION | {"owner": ""}),
        json.dumps(REGISTRATION | {"owner": ["o"] * 20}),
        json.dumps(REGISTRATION | {"http": "javascript:alert(1)"}),
        json.dumps(REGISTRATION | {"epoch": ""}),
        json.dumps(REGISTRATION | {"seq": -1}),
        json.dumps(REGISTRATION | {"seq": True}),
        json.dumps(REGISTRATION | {"seq": 1e300}),
    ],
)
def test_a_message_that_makes_no_sense_ends_the_connection_and_nothing_else(tmp_path: Path, path: str, text: str):
    async def scenario(broker: RunningBroker) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(broker.url + path) as socket:
            await socket.send_str(text)
            answers = [json.loads(m.data) async for m in socket if m.type is aiohttp.WSMsgType.TEXT]
            told = [answer for answer in answers if answer["type"] != "heartbeat"]
            assert told[-1]["type"] == "error"
            assert 400 <= told[-1]["status"] < 600
            assert "Traceback" not in told[-1]["detail"]
        assert broker.service.broker.roots() == ()
        assert (await ask(broker, "GET", "/api/roots"))[0] == 200

    with_broker(scenario, tmp_path)


def test_an_error_of_the_broker_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def scenario(broker: RunningBroker) -> None:
        monkeypatch.setattr(broker.service.broker, "register", None)
        async with aiohttp.ClientSession() as session, session.ws_connect(broker.url + "/api/v1/publish") as socket:
            await socket.send_json(REGISTRATION)
            assert [m async for m in socket] == []
            assert socket.close_code == 1011

    with_broker(scenario, tmp_path)


def test_a_publisher_that_never_registers_is_shown_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(handlers, "REGISTRATION_TIMEOUT_S", 0.1)

    async def scenario(broker: RunningBroker) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(broker.url + "/api/v1/publish") as socket:
            message = await socket.receive(5)
            assert message.type is aiohttp.WSMsgType.CLOSE

    with_broker(scenario, tmp_path)


def test_one_client_may_hold_so_many_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(handlers, "MAX_CONNECTIONS_PER_CLIENT", 2)

    async def scenario(broker: RunningBroker) -> None:
        async with aiohttp.ClientSession() as session:
            held = [await session.ws_connect(broker.url + "/api/v1/subscribe") for _ in range(2)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(broker.url + "/api/v1/subscribe")
            assert refused.value.status == 429
            for socket in held:
                await socket.close()
            await until(lambda: not broker.service.broker._connections)
            async with session.ws_connect(broker.url + "/api/v1/subscribe"):
                pass

    with_broker(scenario, tmp_path)
