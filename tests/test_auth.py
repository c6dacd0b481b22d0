"""Every route of every service: who is let in, and what a browser that was led astray can do (FAULTS A1, A7, A8).

Routes are read from the applications themselves, so that a new one without a guard fails here.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from jupyter_server.auth import User
from tornado.httpclient import HTTPClientError
from tornado.routing import PathMatches
from tornado.web import Application, RequestHandler
from tornado.websocket import websocket_connect

from caterva2_jupyter.broker.app import BrokerService
from caterva2_jupyter.config import Config
from caterva2_jupyter.publisher.app import make_app as make_publisher_app
from caterva2_jupyter.publisher.publisher import Publisher
from caterva2_jupyter.subscriber.app import StandaloneSubscriber
from caterva2_jupyter.web.access import RequestGuard
from caterva2_jupyter.web.service import make_application
from tests.subscriber.test_handlers import with_foo
from tests.web.serving import Served

PUBLISH, READ = "publish-token-0123456789", "read-token-0123456789"
TOKENS = {"CATERVA2_NETWORK_TOKEN": f"publish={PUBLISH},read={READ}"}
PUBLIC = {"/api/v1/health", "/auth/jwt/login", "/openapi.json", "/docs"}
# The page leads to where one logs in, where there are users; what it is made of is the same for everybody.
PAGES = re.compile(r"(/caterva2)?(/\?|/roots/\(\.\*\))\$?")
ASSETS = re.compile(r"(/caterva2)?/(static|displays)/\(\[\^/\]\+\)(\\\.js)?\$?")
VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")
NEEDS_A_USER = re.compile(r"/api/(upload|remove|move|copy|lazyexpr)/|/api/v1/(areas/|expressions)")
# Seen by strangers where there are users: the public area, and that others are not there or need a login.
FOR_STRANGERS = re.compile(
    r"/api/v1/(user|roots|areas|read|read-many|reduce|chunks/.*|meta|values|overview|displays|file|files/.*|events|"
    r"event-lines|roots/.*/catalog)\$?|/zarr/.*|/api/(roots|subscribe/.*|list/.*|info/.*|fetch/.*|chunk/.*|download/.*)\$?"
)
# Where one logs in, registers, or says that one forgot the password.
ACCOUNTS = re.compile(r"/(login|logout|register|(auth/)?forgot-password|(auth/)?reset-password.*|auth/register)\$?")
READING = {"/api/v1/read", "/api/v1/read-many", "/api/v1/reduce", "/api/v1/cache/estimate"}
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
TRAVERSALS = [
    "..",
    "../x",
    "../../etc/passwd",
    "%2e%2e/x",
    "%2e%2e%2fx",
    "%252e%252e%252fx",
    "..%5cx",
    "..%5c..%5cx",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "x%00",
    "x/../../y",
    "x/./y",
    "x//y",
    "%ff%fe",
    "../foo-secret/x",
    "x" * 5000,
]


@dataclass(frozen=True)
class Verb:
    """One verb of one route, as it is asked for."""

    method: str
    pattern: str

    def target(self, path: str = "foo") -> str:
        return re.sub(r"\([^)]*\)", path, self.pattern.rstrip("$"))

    @property
    def has_path(self) -> bool:
        return "(" in self.pattern


def verbs_of(application: Application) -> list[Verb]:
    found = []
    for rule in application.wildcard_router.rules:
        assert isinstance(rule.matcher, PathMatches)
        for method in VERBS:
            verb = getattr(rule.target, method.lower())
            if verb is not RequestHandler._unimplemented_method:
                found.append(Verb(method, rule.matcher.regex.pattern))
    assert found
    return found


@dataclass
class Made:
    service: Served
    application: Application

    @property
    def verbs(self) -> list[Verb]:
        return verbs_of(self.application)

    def ask(self, verb: Verb, target: str | None = None, **headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        is_socket = verb.pattern.rstrip("$").endswith(("/events", "/publish", "/subscribe", "/pubsub"))
        body = "{}" if verb.method in ("POST", "PUT", "PATCH") else None
        answer = self.service.request(
            verb.method, target or verb.target(), {**(UPGRADE if is_socket else {}), **sent}, body
        )
        return answer.status


def _broker(directory: Path, environ: dict[str, str]) -> tuple[Callable[[], Application], Callable[[], Any]]:
    service = BrokerService(Config({}, "", environ).broker(http="localhost:0", statedir=str(directory)))

    def make() -> Application:
        return service.application()

    return make, service.stop


def _publisher(directory: Path, environ: dict[str, str]) -> tuple[Callable[[], Application], Callable[[], Any]]:
    root = directory / "root"
    root.mkdir(parents=True)
    (root / "x.txt").write_text("x")
    config = Config({}, "", environ).publisher(
        name="foo", root=str(root), http="localhost:0", statedir=str(directory / "state"), broker=""
    )
    made: list[Publisher] = []

    def make() -> Application:
        made.append(Publisher(config))
        return make_publisher_app(made[0])

    async def stop() -> None:
        await made[0].stop()

    return make, stop


def _subscriber(directory: Path, environ: dict[str, str]) -> tuple[Callable[[], Application], Callable[[], Any]]:
    config = Config({}, "", environ).subscriber(http="localhost:0", statedir=str(directory), broker="")
    made: list[StandaloneSubscriber] = []

    def make() -> Application:
        made.append(StandaloneSubscriber(config))
        return made[0].application()

    async def stop() -> None:
        await made[0].stop()

    return make, stop


SERVICES = {"broker": _broker, "publisher": _publisher, "subscriber": _subscriber}


def serve(name: str, directory: Path, environ: dict[str, str]) -> Iterator[Made]:
    make, stop = SERVICES[name](directory / name, environ)
    made: list[Application] = []

    async def make_in_loop() -> Application:
        made.append(make())
        return made[0]

    with Served(make_in_loop, stop) as service:
        yield Made(service, made[0])


@pytest.fixture(params=SERVICES)
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    """Each service with network tokens."""
    yield from serve(request.param, tmp_path, TOKENS)


@pytest.fixture(params=SERVICES)
def unguarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    """Each service as it is by default, on the loopback interface."""
    yield from serve(request.param, tmp_path, {})


@pytest.fixture
def with_login(tmp_path: Path) -> Iterator[Made]:
    """A subscriber with users."""
    yield from serve("subscriber", tmp_path, {"CATERVA2_SECRET": "a long random text"})


def is_public(verb: Verb) -> bool:
    return verb.target() in PUBLIC or is_of_the_page(verb) or ACCOUNTS.fullmatch(verb.pattern) is not None


def is_of_the_page(verb: Verb) -> bool:
    return bool(PAGES.fullmatch(verb.pattern) or ASSETS.fullmatch(verb.pattern))


def test_without_a_token_every_route_is_closed(guarded: Made) -> None:
    for verb in guarded.verbs:
        status = guarded.ask(verb)
        assert (status != 401) == is_public(verb), (verb, status)


def test_wrong_tokens_are_refused_wherever_they_stand(guarded: Made) -> None:
    for verb in guarded.verbs:
        if is_public(verb):
            continue
        for header in ("Bearer wrong", "token wrong", "Bearer", f"Basic {READ}", f"Bearer {READ}x", "Bearer \xff\xfe"):
            assert guarded.ask(verb, Authorization=header) == 401, (verb, header)
        # A token in a URL would stand in logs and histories.
        for query in (f"token={READ}", f"access_token={READ}"):
            assert guarded.ask(verb, f"{verb.target()}?{query}") == 401, verb


def test_a_token_opens_only_what_it_is_for(guarded: Made) -> None:
    for verb in guarded.verbs:
        if is_public(verb) or NEEDS_A_USER.match(verb.pattern):
            continue
        if verb.method in ("PUT", "DELETE") and "/files/" in verb.pattern:
            continue  # areas are written to by users
        statuses = {guarded.ask(verb, Authorization=f"Bearer {token}") for token in (READ, PUBLISH)}
        assert 401 not in statuses, verb
        assert 403 in statuses, (verb, "one of the two tokens may not")
        assert statuses != {403}, verb


def test_with_users_every_route_needs_a_login(with_login: Made) -> None:
    expired = (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ4IiwiYXVkIjpbImZhc3RhcGktdXNlcnM6YXV0aCJdLCJleHAiOjF9.AAAA"
    )
    for verb in with_login.verbs:
        if is_public(verb):
            continue
        for cookie in ("", "c2subauth=", "c2subauth=x.y.z", f"c2subauth={expired}"):
            status = with_login.ask(verb, **({"Cookie": cookie} if cookie else {}))
            if FOR_STRANGERS.fullmatch(verb.pattern) and verb.method not in ("PUT", "DELETE"):
                # What a request is about has to be read before it is known whether that is the public area.
                known = (101, 200, 400, 401, 404, 422) if verb.method in ("GET", "HEAD") else (400, 401, 404)
                assert status in known, (verb, cookie)
            else:
                assert status == 401, (verb, cookie, status)


def test_with_users_the_page_leads_to_the_login(with_login: Made) -> None:
    pages = [verb for verb in with_login.verbs if PAGES.fullmatch(verb.pattern)]
    assert len(pages) == 2
    for verb in pages:
        answer = with_login.service.request(verb.method, verb.target())
        assert answer.status == 302
        assert answer.headers["Location"].startswith("/login?next=/")


def test_pages_of_other_sites_cannot_make_a_browser_change_anything(unguarded: Made) -> None:
    port = unguarded.service.port
    for verb in unguarded.verbs:
        is_socket = verb.pattern.rstrip("$").endswith(("/events", "/publish", "/subscribe", "/pubsub"))
        if verb.method in ("GET", "HEAD") and not is_socket:
            continue
        for origin in (
            "https://evil.example",
            f"http://localhost.evil.example:{port}",
            f"http://evil-localhost:{port}",
            f"http://localhost:{port}.evil.example",
            "http://localhost:1",
            "null",
        ):
            assert unguarded.ask(verb, Origin=origin) == 403, (verb, origin)
        assert unguarded.ask(verb, Sec_Fetch_Site="cross-site") == 403, verb
        assert unguarded.ask(verb, Sec_Fetch_Site="same-site") == 403, verb


def test_a_page_whose_name_was_bound_to_this_machine_reads_nothing(unguarded: Made) -> None:
    for verb in unguarded.verbs:
        for host in ("evil.example", "localhost.evil.example", f"evil.example:{unguarded.service.port}", ""):
            assert unguarded.ask(verb, Host=host) == 403, (verb, host)


def test_no_get_changes_state(unguarded: Made) -> None:
    """What changes state is not there as a GET."""
    changing = {verb.pattern for verb in unguarded.verbs if verb.method in ("POST", "PUT", "DELETE")}
    changing = {p for p in changing if p.rstrip("$") not in READING}
    shared = {verb.pattern for verb in unguarded.verbs if verb.method == "GET"} & changing
    # The broker's registry is read and written at one path, by different verbs.
    # So are files of areas.
    allowed = {"/api/roots", "/api/v1/roots/([^/]+)", "/api/v1/files/(.+)"}
    assert {p.rstrip("$") for p in shared} <= allowed


def test_paths_that_lead_out_are_absent(unguarded: Made) -> None:
    for text in TRAVERSALS:
        for verb in unguarded.verbs:
            if verb.has_path:
                absent = unguarded.ask(verb, verb.target("foo/absent"))
                for address in (text, f"foo/{text}"):
                    status = unguarded.ask(verb, verb.target(address))
                    assert status in (absent, 404, 405), (verb, address, status)
        for route in (f"meta?path=foo/{text}", f"file?path=foo/{text}", f"meta?path={text}"):
            status = unguarded.ask(Verb("GET", ""), f"/api/v1/{route}")
            assert status in ((400, 404) if text == "%ff%fe" else (404,)), route
        body = json.dumps({"path": f"foo/{unquote(text)}"})
        status = unguarded.service.post("/api/v1/read", body).status
        assert status in (404, 405), (text, status)


class TestInsideJupyter:
    """The same routes behind Jupyter's identity provider."""

    @pytest.fixture
    def jp_server_config(self, jp_server_config, tmp_path):
        return {**jp_server_config, "SubscriberApp": {"cachedir": str(tmp_path / "cache")}}

    @pytest.fixture
    def verbs(self, jp_serverapp) -> list[Verb]:
        app = jp_serverapp.extension_manager.extension_points["caterva2_jupyter"].app
        found = []
        for pattern, handler, *_ in app.handlers:
            for method in VERBS:
                verb = getattr(handler, method.lower())
                if verb is not RequestHandler._unimplemented_method:
                    found.append(Verb(method, pattern))
        return found

    @pytest.fixture
    def ask(self, jp_base_url, http_server_client) -> Callable[..., Any]:
        async def ask(verb: Verb, target: str, headers: dict[str, str]) -> int:
            is_socket = verb.pattern.endswith("/events")
            answer = await http_server_client.fetch(
                jp_base_url.rstrip("/") + target,
                method=verb.method,
                headers={**(UPGRADE if is_socket else {}), **headers},
                body="{}" if verb.method in ("POST", "PUT", "PATCH") else None,
                raise_error=False,
                follow_redirects=False,
            )
            return answer.code

        return ask

    async def test_every_verb_is_closed_to_strangers(self, verbs, ask):
        assert len(verbs) > 15
        for verb in verbs:
            for headers in ({}, {"Authorization": "token wrong"}, {"Authorization": "Bearer wrong"}):
                status = await ask(verb, verb.target(), headers)
                is_open = verb.target() == "/caterva2/api/v1/health"
                if PAGES.fullmatch(verb.pattern):
                    assert status == 302, verb  # to Jupyter's login
                elif ASSETS.fullmatch(verb.pattern):
                    assert status == 404, verb  # no such file
                else:
                    assert status == (200 if is_open else 403), (verb, status)

    async def test_every_verb_asks_the_authorizer(self, verbs, ask, jp_serverapp, jp_auth_header):
        asked = []

        class Nobody:
            async def is_authorized(self, handler, user, action, resource):
                asked.append((action, resource))
                return False

        jp_serverapp.web_app.settings["authorizer"] = Nobody()
        for verb in verbs:
            if verb.target() == "/caterva2/api/v1/health" or ASSETS.fullmatch(verb.pattern):
                continue
            assert await ask(verb, verb.target(), jp_auth_header) == 403, verb
            action, resource = asked.pop()
            is_read = verb.method in ("GET", "HEAD") or verb.pattern.rstrip("$").removeprefix("/caterva2") in READING
            assert (action, resource) == ("read" if is_read else "write", "caterva2"), verb

    async def test_paths_that_lead_out_are_absent(self, verbs, ask, jp_auth_header):
        for verb in verbs:
            if not verb.has_path:
                continue
            absent = await ask(verb, verb.target("foo/absent"), jp_auth_header)
            for text in TRAVERSALS:
                status = await ask(verb, verb.target(text), jp_auth_header)
                assert status in (absent, 404, 405), (verb, text, status)

    async def test_a_foreign_origin_is_refused(self, verbs, ask, jp_serverapp):
        jp_serverapp.identity_provider.get_user = lambda handler: User("somebody with a cookie")
        for verb in verbs:
            if verb.target() == "/caterva2/api/v1/health" or is_of_the_page(verb):
                continue
            for origin in ("https://evil.example", "http://localhost.evil.example"):
                status = await ask(verb, verb.target(), {"Origin": origin})
                assert status in (403, 404), (verb, status)
            if verb.method not in ("GET", "HEAD"):
                assert await ask(verb, verb.target(), {}) == 403, (verb, "no XSRF token")


def test_no_route_can_be_made_without_a_policy() -> None:
    class Stray(RequestHandler):
        pass

    with pytest.raises(TypeError):
        make_application([("/x", Stray, {})], RequestGuard())


def test_one_client_cannot_hold_all_listeners(tmp_path: Path) -> None:
    """FAULTS A11: the next WebSocket of a client that has its share is 429."""

    async def test(sub: Any) -> None:
        sub.limits.events.per_client = 3
        url = f"{sub.url.replace('http:', 'ws:')}/api/v1/events?root=foo"
        sockets = [await websocket_connect(url) for _ in range(3)]
        with pytest.raises(HTTPClientError) as caught:
            await websocket_connect(url)
        assert caught.value.code == 429
        sockets.pop().close()
        async with asyncio.timeout(10):
            while True:
                try:
                    sockets.append(await websocket_connect(url))
                    break
                except HTTPClientError:
                    await asyncio.sleep(0.01)
        for socket in sockets:
            socket.close()

    with_foo(test, tmp_path)
