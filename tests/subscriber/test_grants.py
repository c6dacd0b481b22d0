"""Roots that not everybody may see: to whom they are hidden they are absent, on every route, cached data included."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from argon2 import PasswordHasher
from tornado.routing import PathMatches
from tornado.web import Application

from caterva2_jupyter.config import Grant, load_config
from caterva2_jupyter.subscriber import users as users_module
from caterva2_jupyter.subscriber.app import StandaloneSubscriber
from caterva2_jupyter.subscriber.grants_file import GrantsFile
from caterva2_jupyter.subscriber.permissions import ANONYMOUS, Permissions, Visitor, visitor_of
from caterva2_jupyter.subscriber.seen_roots import AllRoots
from tests.processes import Network, wait_for
from tests.web.serving import Answer, Served

ADA, BOB, CARL, BOSS = (f"{name}@example.org" for name in ("ada", "bob", "carl", "boss"))
PASSWORD = "correct horse"
CONFIG = """
[subscriber]
login = true
secret = "a long random text for tests"
publishers = [{urls}]
[subscriber.groups]
modellers = ["ADA@example.org"]
[[subscriber.grants]]
roots = ["h?dden", "h?dde2"]
groups = ["modellers"]
access = "write"
[[subscriber.grants]]
roots = ["opened"]
users = ["*"]
[[subscriber.grants]]
roots = ["hidden"]
users = ["carl@example.org"]
[[subscriber.grants]]
roots = ["@shared"]
users = ["ada@example.org"]
access = "write"
"""


@dataclass
class Subscriber:
    served: Served
    application: Application
    cookies: dict[str, str]
    directory: AllRoots

    def ask(self, who: str, method: str, target: str, body: object = None, **headers: str) -> Answer:
        sent = {"Cookie": self.cookies[who]} if who else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return self.served.request(method, target, sent, data)

    def log_in(self, email: str) -> str:
        answer = self.served.request(
            "POST",
            "/auth/jwt/login",
            {"Content-Type": "application/x-www-form-urlencoded"},
            f"username={quote(email)}&password={quote(PASSWORD)}",
        )
        assert answer.status == 204, answer.body
        return str(answer.headers["Set-Cookie"]).partition(";")[0]


@pytest.fixture(scope="module")
def subscriber(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subscriber]:
    import blosc2

    directory = tmp_path_factory.mktemp("grants")
    network = Network(directory)
    hasher, users_module.PasswordHasher = users_module.PasswordHasher, lambda: PasswordHasher(1, 8, 1)  # type: ignore
    try:
        publishers = []
        for name in ("hidden", "opened"):
            (directory / "data" / name).mkdir(parents=True)
            blosc2.asarray(np.arange(100.0), urlpath=str(directory / "data" / name / "x.b2nd"))
            publishers.append(network.start_publisher(name, directory / "data" / name))
        urls = ", ".join(f'"{publisher.url}"' for publisher in publishers)
        (directory / "c.toml").write_text(CONFIG.format(urls=urls))
        config = load_config(directory / "c.toml", {}).subscriber(
            http="localhost:0", broker="", statedir=str(directory / "sub")
        )
        made: list[StandaloneSubscriber] = []
        applications: list[Application] = []

        async def make() -> Application:
            made.append(StandaloneSubscriber(config))
            applications.append(made[0].application())
            users = made[0]._users
            assert users is not None
            for email in (ADA, BOB, CARL, BOSS):
                users.add(email, PASSWORD, is_superuser=email == BOSS)
            await made[0].service.start()
            return applications[0]

        async def stop() -> None:
            await made[0].stop()

        with Served(make, stop) as served:
            sub = Subscriber(served, applications[0], {}, made[0].service.all_roots)
            sub.cookies |= {email: sub.log_in(email) for email in (ADA, BOB, CARL, BOSS)}
            for root in ("hidden", "opened"):
                wait_for(lambda root=root: sub.ask(BOSS, "POST", f"/api/v1/roots/{root}/follow").status == 200)
                wait_for(lambda root=root: sub.ask(BOSS, "GET", f"/api/v1/meta?path={root}/x.b2nd").status == 200)
                assert sub.ask(BOSS, "GET", f"/api/v1/values?path={root}/x").status == 200  # kept from now on
            yield sub
    finally:
        users_module.PasswordHasher = hasher  # type: ignore[misc]
        network.close()


READ = {"path": "hidden/x.b2nd"}
REDUCE = {"path": "hidden/x.b2nd", "op": "sum"}
# Every route that a root or path can be named on, and how; "hidden" stands for it.
ASKED: list[tuple[str, str, object]] = [
    ("GET", "/api/v1/roots/hidden/catalog", None),
    ("GET", "/api/v1/meta?path=hidden/x.b2nd", None),
    ("GET", "/api/v1/meta?path=hidden", None),
    ("POST", "/api/v1/read", READ),
    ("POST", "/api/v1/read-many", {"reads": [READ]}),
    ("POST", "/api/v1/read-many", {"reads": [{"path": "opened/x.b2nd"}, READ]}),
    ("POST", "/api/v1/reduce", REDUCE),
    ("GET", "/api/v1/file?path=hidden/x.b2nd", None),
    ("HEAD", "/api/v1/file?path=hidden/x.b2nd", None),
    ("GET", "/api/v1/files/hidden/x.b2nd", None),
    ("HEAD", "/api/v1/files/hidden/x.b2nd", None),
    ("PUT", "/api/v1/files/hidden/x.b2nd", b"x"),
    ("DELETE", "/api/v1/files/hidden/x.b2nd", None),
    ("GET", "/api/v1/events?root=hidden", None),
    ("GET", "/api/v1/event-lines?root=hidden", None),
    ("POST", "/api/v1/roots/hidden/announce", {"path": "x.b2nd"}),
    ("POST", "/api/v1/roots/hidden/follow", {}),
    ("DELETE", "/api/v1/roots/hidden/follow", None),
    ("POST", "/api/v1/cache/uses", {"uses": [{"root": "hidden", "id": "x", "version": "v", "chunks": [[0, [0]]]}]}),
    ("GET", "/api/v1/cache?path=hidden", None),
    ("GET", "/api/v1/cache?path=hidden/x.b2nd", None),
    ("POST", "/api/v1/cache/estimate", READ),
    ("POST", "/api/v1/cache/prefetch", READ),
    ("POST", "/api/v1/cache/verify", READ),
    ("POST", "/api/v1/cache/clear", READ),
    ("POST", "/api/v1/cache/pin", READ),
    ("POST", "/api/v1/cache/unpin", READ),
    ("GET", "/api/v1/cache/sealed?path=hidden/x.b2nd", None),
    ("GET", "/api/v1/values?path=hidden/x.b2nd", None),
    ("GET", "/api/v1/overview?path=hidden/x.b2nd", None),
    ("GET", "/api/v1/displays?path=hidden/x.b2nd", None),
    ("GET", "/zarr/hidden/zarr.json", None),
    ("GET", "/zarr/hidden/x/zarr.json", None),
    ("GET", "/zarr/hidden/x/c/0", None),
    ("HEAD", "/zarr/hidden/x/c/0", None),
    ("POST", "/api/v1/areas/copy", {"src": "hidden/x.b2nd", "dst": "@personal/y.b2nd"}),
    ("POST", "/api/v1/areas/copy", {"src": "hidden", "dst": "@personal/y"}),
    ("POST", "/api/v1/areas/move", {"src": "hidden/x.b2nd", "dst": "@personal/y.b2nd"}),
    ("POST", "/api/v1/areas/mkdir", {"path": "hidden/y"}),
    (
        "POST",
        "/api/v1/expressions",
        {"path": "@personal/e", "expression": "a + 1", "operands": {"a": "hidden/x.b2nd"}},
    ),
    ("POST", "/api/v1/publishers", {"url": "http://localhost:1", "root": "hidden"}),
    ("POST", "/api/subscribe/hidden", {}),
    ("GET", "/api/list/hidden", None),
    ("GET", "/api/list/hidden/x.b2nd", None),
    ("GET", "/api/info/hidden/x.b2nd", None),
    ("GET", "/api/fetch/hidden/x.b2nd", None),
    ("GET", "/api/fetch/hidden/x.b2nd?slice_=0:2", None),
    ("GET", "/api/chunk/hidden/x.b2nd?nchunk=0", None),
    ("GET", "/api/download/hidden/x.b2nd", None),
    ("POST", "/api/remove/hidden/x.b2nd", {}),
    ("POST", "/api/move/", {"src": "hidden/x.b2nd", "dst": "@personal/y.b2nd"}),
    ("POST", "/api/copy/", {"src": "hidden", "dst": "@personal/y"}),
    ("POST", "/api/copy/", {"src": "hidden/x.b2nd", "dst": "@personal/"}),
    ("POST", "/api/lazyexpr/", {"name": "e", "expression": "a + 1", "operands": {"a": "hidden/x.b2nd"}}),
]
# Routes on which none is named, and those of other tests.
NAMELESS = re.compile(
    r"/api/v1/(health|roots|user|users.*|areas|chunks/.*|cache/(summary|location))\$?|/api/(roots|adduser/|deluser/.*|"
    r"listusers/|upload/.*)\$?|/(auth/.*|login|logout|forgot-password|reset-password.*|register)\$?|/\?\$?|/roots/\(\.\*\)\$?|"
    r"/static/.*|/displays/.*|/(docs|redoc|openapi.json)\$?"
)
SOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
}


def told(answer: Answer, name: str) -> tuple[int, bytes, set[str]]:
    return answer.status, answer.body.replace(name.encode(), b"NAME"), {header.lower() for header in answer.headers}


def renamed(asked: tuple[str, str, object], name: str) -> tuple[str, str, object]:
    method, target, body = asked
    text = body if isinstance(body, bytes) or body is None else json.loads(json.dumps(body).replace("hidden", name))
    return method, target.replace("hidden", name), text


@pytest.mark.parametrize("who", [BOB, ""])
def test_what_is_hidden_is_answered_like_what_is_absent_on_every_route(subscriber: Subscriber, who: str) -> None:
    """FAULTS A7, aiohttp's CVE-2025-69226: nothing tells whether it exists."""
    for asked in ASKED:
        headers = SOCKET if "/events?" in asked[1] else {}
        method, target, body = renamed(asked, "hidden")
        hidden = subscriber.ask(who, method, target, body, **headers)
        assert 400 <= hidden.status < 500 or "uses" in target, (asked, hidden.status, hidden.body)
        method, target, body = renamed(asked, "absent")
        absent = subscriber.ask(who, method, target, body, **headers)
        assert told(hidden, "hidden") == told(absent, "absent"), asked


def test_the_routes_that_are_asked_are_all_that_there_are(subscriber: Subscriber) -> None:
    patterns = []
    for rule in subscriber.application.wildcard_router.rules:
        assert isinstance(rule.matcher, PathMatches)
        patterns.append(rule.matcher.regex.pattern)
    targets = [target.partition("?")[0] for _, target, _ in ASKED]
    for pattern in patterns:
        assert NAMELESS.fullmatch(pattern) or any(re.fullmatch(pattern, target) for target in targets), pattern


GARBAGE = [
    b"",
    b"[",
    b"null",
    b"[]",
    b"{}",
    b'{"path": 1}',
    b'{"path": "\\ud800"}',
    b"[" * 100_000,
    b"\xff\xfe",
    b'{"a": 1e999}',
]

QUERIES = ("", "&path=%ff", "&path=@public/..", "&version=%00", "&sel=[[", "&limit=x", "&q=" + "x" * 5000)


@pytest.mark.parametrize("who", [BOSS, BOB, ""])
def test_garbage_is_refused_by_every_route(subscriber: Subscriber, who: str) -> None:
    for method, target, _ in ASKED:
        if method == "PUT" or "events" in target or "event-lines" in target:
            continue
        for body in GARBAGE if method == "POST" else [None]:
            for query in QUERIES:
                if method == "POST" and query:
                    continue
                asked = target.replace("hidden", "nowhere") + query
                assert subscriber.ask(who, method, asked, body).status < 500, (method, asked, body)
    for target in ("/api/adduser/", "/api/v1/users", "/auth/forgot-password", "/auth/reset-password", "/login"):
        for body in GARBAGE:
            assert subscriber.ask(who, "POST", target, body).status < 500, (target, body)
    for target in ("/api/deluser/%ff", "/api/deluser/%00", "/api/listusers/?username=%ff", "/api/v1/users/%2e%2e"):
        assert subscriber.ask(who, "GET", target).status < 500, target


def test_listings_tell_each_what_is_theirs(subscriber: Subscriber) -> None:
    def seen(who: str) -> set[str]:
        forms = subscriber.ask(who, "GET", "/api/v1/roots").json()["roots"]
        assert set(subscriber.ask(who, "GET", "/api/roots").json()) == {form["name"] for form in forms}
        return {form["name"] for form in forms}

    assert seen(BOSS) == {"hidden", "opened", "@public", "@shared", "@personal"}
    assert seen(ADA) == {"hidden", "opened", "@public", "@shared", "@personal"}
    assert seen(CARL) == {"hidden", "opened", "@public", "@personal"}
    assert seen(BOB) == {"opened", "@public", "@personal"}
    assert seen("") == {"@public"}
    for who, sees in ((BOSS, True), (CARL, True), (BOB, False)):
        for route in ("/api/v1/cache", "/api/v1/cache/summary"):
            answer = subscriber.ask(who, "GET", route)
            assert answer.status == 200
            assert (b"hidden" in answer.body) == sees, (who, route, answer.body)
            told = answer.json()
            assert bool(told["directory"]) == (who == BOSS)
    assert {"name": "@shared", "writable": True} in subscriber.ask(ADA, "GET", "/api/v1/areas").json()["areas"]


def test_who_may_see_it_reads_it(subscriber: Subscriber) -> None:
    for who in (ADA, CARL, BOSS):
        values = subscriber.ask(who, "GET", "/api/v1/values?path=hidden/x.b2nd")
        assert np.frombuffer(values.body, "<f8").tolist() == list(range(100))
        assert subscriber.ask(who, "GET", "/api/info/hidden/x.b2nd").status == 200


def test_chunks_by_their_ids_are_hidden_with_their_root(subscriber: Subscriber) -> None:
    entry = subscriber.ask(ADA, "GET", "/api/v1/meta?path=hidden/x.b2nd").json()
    url = f"/api/v1/chunks/{entry['id']}/{entry['version']}/0"
    assert subscriber.ask(ADA, "GET", url).status == 200
    other = "f" * len(entry["id"])
    for who in (BOB, ""):
        hidden = subscriber.ask(who, "GET", url)
        absent = subscriber.ask(who, "GET", url.replace(entry["id"], other))
        assert told(hidden, entry["id"]) == told(absent, other)
        assert hidden.status == 404


def test_the_cache_files_are_for_who_may_see_every_root(subscriber: Subscriber) -> None:
    for who, status in ((BOSS, 200), (ADA, 404), (CARL, 404), (BOB, 404), ("", 401)):
        assert subscriber.ask(who, "GET", "/api/v1/cache/location").status == status, who


def test_who_may_only_read_does_not_manage_it_for_others(subscriber: Subscriber) -> None:
    body = {"path": "hidden/x.b2nd"}
    for method, target, form in (
        ("POST", "/api/v1/cache/clear", body),
        ("POST", "/api/v1/cache/pin", body),
        ("POST", "/api/v1/cache/unpin", body),
        ("POST", "/api/v1/cache/clear", {"path": ""}),
        ("DELETE", "/api/v1/roots/hidden/follow", None),
    ):
        assert subscriber.ask(CARL, method, target, form).status == 403, target
    assert subscriber.ask(ADA, "POST", "/api/v1/cache/clear", {"path": ""}).status == 403
    assert subscriber.ask(ADA, "POST", "/api/v1/cache/pin", body).status == 200
    assert subscriber.ask(ADA, "POST", "/api/v1/cache/unpin", body).status == 200
    assert subscriber.ask(BOSS, "POST", "/api/v1/cache/clear", {"path": ""}).status == 200


def test_an_expression_shows_nobody_what_they_do_not_see(subscriber: Subscriber) -> None:
    form = {"path": "@public/twice", "expression": "a * 2", "operands": {"a": "hidden/x.b2nd"}}
    assert subscriber.ask(ADA, "POST", "/api/v1/expressions", form).status == 201
    route = "/api/v1/values?path=@public/twice.b2nd"
    assert np.frombuffer(subscriber.ask(ADA, "GET", route).body, "<f8")[-1] == 198
    doubled = np.float64(198).tobytes()
    for who in (BOB, ""):
        for target in (
            route,
            "/api/v1/overview?path=@public/twice.b2nd",
            "/api/fetch/@public/twice.b2nd",
            "/api/chunk/@public/twice.b2nd?nchunk=0",
            "/zarr/@public/twice/c/0",
        ):
            answer = subscriber.ask(who, "GET", target)
            assert answer.status >= 400, (who, target)
            assert doubled not in answer.body
        assert subscriber.ask(who, "POST", "/api/v1/read", {"path": "@public/twice.b2nd"}).status >= 400
        assert subscriber.ask(who, "POST", "/api/v1/reduce", {"path": "@public/twice.b2nd", "op": "sum"}).status >= 400


def test_areas_that_are_granted_are_for_those_alone(subscriber: Subscriber) -> None:
    assert subscriber.ask(ADA, "PUT", "/api/v1/files/@shared/a.txt", b"a").status == 201
    for who in (BOB, CARL):
        assert subscriber.ask(who, "GET", "/api/v1/files/@shared/a.txt").status == 404
        assert subscriber.ask(who, "PUT", "/api/v1/files/@shared/b.txt", b"b").status == 404
        assert subscriber.ask(who, "PUT", "/api/v1/files/@public/b.txt", b"b").status == 201
    assert subscriber.ask(BOSS, "GET", "/api/v1/files/@shared/a.txt").body == b"a"


def test_what_is_personal_is_hidden_from_superusers_too(subscriber: Subscriber) -> None:
    assert subscriber.ask(ADA, "PUT", "/api/v1/files/@personal/diary.txt", b"dear").status == 201
    ident = next(iter(p for p in subscriber.ask(BOSS, "GET", f"/api/listusers/?username={ADA}").json()))["id"]
    for target in ("@personal/diary.txt", f"@personal/{ident}/diary.txt", f"@personal/../{ident}/diary.txt"):
        assert subscriber.ask(BOSS, "GET", f"/api/v1/files/{target}").status == 404


def test_events_end_when_the_listener_is_logged_out(subscriber: Subscriber) -> None:
    cookie = subscriber.log_in(ADA)
    connection = http.client.HTTPConnection("localhost", subscriber.served.port, timeout=30)
    connection.request("GET", "/api/v1/event-lines?root=@shared", headers={"Cookie": cookie})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.readline()
    assert subscriber.served.request("POST", "/auth/jwt/logout", {"Cookie": cookie}, "").status == 204
    assert subscriber.ask(ADA, "PUT", "/api/v1/files/@shared/secret-name.txt", b"a").status == 201
    assert b"secret-name" not in answer.read()  # to its end
    connection.close()


def test_changed_grants_count_for_requests_and_for_who_listens(subscriber: Subscriber) -> None:
    permissions = subscriber.directory.permissions
    connection = http.client.HTTPConnection("localhost", subscriber.served.port, timeout=30)
    connection.request("GET", "/api/v1/event-lines?root=hidden", headers={"Cookie": subscriber.cookies[CARL]})
    answer = connection.getresponse()
    assert answer.readline()
    without = tuple(grant for grant in permissions.grants if CARL not in grant.users)
    try:
        subscriber.directory.permissions = replace(permissions, grants=without)
        assert subscriber.ask(CARL, "GET", "/api/v1/values?path=hidden/x.b2nd").status == 404
        answer.read()  # to its end
    finally:
        subscriber.directory.permissions = permissions
        connection.close()
    assert subscriber.ask(CARL, "GET", "/api/v1/values?path=hidden/x.b2nd").status == 200


def test_a_deleted_user_sees_nothing_any_more(subscriber: Subscriber) -> None:
    eve = {"email": "eve@example.org", "password": PASSWORD, "is_superuser": True}
    assert subscriber.ask(BOSS, "POST", "/api/v1/users", eve).status == 201
    subscriber.cookies["eve"] = subscriber.log_in("eve@example.org")
    assert subscriber.ask("eve", "GET", "/api/v1/values?path=hidden/x.b2nd").status == 200
    assert subscriber.ask(BOSS, "DELETE", "/api/v1/users/eve@example.org").status == 200
    assert subscriber.ask("eve", "GET", "/api/v1/values?path=hidden/x.b2nd").status == 401


def test_grants_that_change_in_the_file_count_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "c.toml"
    taken: list[tuple[tuple[Grant, ...], Mapping[str, tuple[str, ...]]]] = []
    head = '[subscriber]\n[subscriber.groups]\nmodellers = ["ada"]\n'
    texts = [
        head + '[[subscriber.grants]]\nroots = ["a"]\nusers = ["ada"]\n',
        head + '[[subscriber.grants]]\nroots = ["a"]\nusers = ["bob"]\n',
        "[subscriber]\nnonsense = 1\n",
        head + '[[subscriber.grants]]\nroots = ["b"]\ngroups = ["modellers"]\n',
    ]

    async def until(is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_so():
                await asyncio.sleep(0.005)

    async def go() -> None:
        file.write_text(texts[0])
        following = asyncio.create_task(GrantsFile(file, "", lambda *args: taken.append(args), 0.01).follow())
        for text in texts:
            ntaken = len(taken)
            file.write_text(text)
            if "nonsense" in text:
                await until(lambda: "nonsense" in caplog.text)
            else:
                await until(lambda n=ntaken: len(taken) > n)
        file.unlink()
        await until(lambda: "cannot read" in caplog.text)
        following.cancel()

    asyncio.run(go())
    assert taken[0][0] == (Grant(("a",), ("ada",)),)
    assert taken[-1] == ((Grant(("b",), groups=("modellers",)),), {"modellers": ("ada",)})
    assert all(grants for grants, _ in taken), "what cannot be read takes no grant away"
    assert "grants stay as they are" in caplog.text


@pytest.mark.parametrize(
    ("user", "sees"),
    [
        ("ada@example.org", True),
        ("ADA@EXAMPLE.ORG", True),
        ("ad\u00e4@example.org", False),
        ("", False),
        ("ada", False),
    ],
)
def test_an_e_mail_is_matched_whatever_its_case(user: str, sees: bool) -> None:
    permissions = Permissions(True, grants=(Grant(("climate",), ("Ada@example.org",)),))
    assert permissions.may_see(Visitor("1", name=user), "climate") is sees


def test_no_other_letter_passes_for_one_of_a_name() -> None:
    permissions = Permissions(True, grants=(Grant(("climate",), ("kim@example.org", "kim")),))
    assert not permissions.may_see(Visitor("1", name="\u212aim@example.org"), "climate")
    assert not permissions.may_see(Visitor("1", name="KIM"), "climate"), "names in Jupyter are exact"
    assert permissions.may_see(Visitor("1", name="kim"), "climate")


def test_a_star_means_no_area_and_strangers_only_where_they_may() -> None:
    grants = (Grant(("*",), ("*",)),)
    somebody = Visitor("1", name="x")
    assert Permissions(True, grants=grants).may_see(somebody, "any")
    assert not Permissions(True, grants=grants).may_see(ANONYMOUS, "any")
    assert Permissions(True, anonymous=True, grants=grants).may_see(ANONYMOUS, "any")
    assert Permissions(True, anonymous=True).may_see(ANONYMOUS, "any")
    for permissions in (Permissions(True, anonymous=True, grants=grants), Permissions(True, anonymous=True)):
        assert not permissions.may_see(ANONYMOUS, "@shared")
        assert not permissions.may_see(ANONYMOUS, "@personal")
        assert not permissions.may_write(ANONYMOUS, "@public")
        assert not permissions.may_manage(ANONYMOUS, "any")
    limited = Permissions(True, grants=(Grant(("@public",), ("boss",), is_write=True),))
    assert limited.may_see(ANONYMOUS, "@public")
    assert not limited.may_write(somebody, "@public")
    assert limited.may_write(Visitor("1", name="boss"), "@public")
    assert limited.may_write(somebody, "@personal")


def test_groups_are_those_that_jupyterhub_knows() -> None:
    class HubUser:
        username = "ada"

        def __init__(self) -> None:
            self.hub_user = {"name": "ada", "groups": ["modellers", 3], "admin": True}

    class Plain:
        username = "bob"

    permissions = Permissions(True, grants=(Grant(("climate",), groups=("modellers",)),))
    assert permissions.may_see(visitor_of(HubUser()), "climate")
    assert not permissions.may_see(visitor_of(Plain()), "climate")
    assert not visitor_of(HubUser()).is_superuser


class TestInsideJupyter:
    """Who somebody is, Jupyter says; grants go by its names and groups."""

    @pytest.fixture
    def jp_server_config(self, jp_server_config, tmp_path, monkeypatch):
        (tmp_path / "c.toml").write_text(
            "[[subscriber.grants]]\nroots = ['@shared']\nusers = ['ada']\ngroups = ['modellers']\naccess = 'write'\n"
        )
        monkeypatch.setenv("JUPYTERHUB_USER", "carl")
        app = {"cachedir": str(tmp_path / "cache"), "conf": str(tmp_path / "c.toml")}
        return {**jp_server_config, "SubscriberApp": app}

    @pytest.fixture
    def seen_by(self, jp_serverapp, jp_base_url, http_server_client):
        async def seen(user: object = None, token: str = "") -> tuple[set[str], str]:
            if user is not None:
                jp_serverapp.identity_provider.get_user = lambda handler: user
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answers = [
                await http_server_client.fetch(f"{jp_base_url}caterva2/api/v1/{route}", headers=headers)
                for route in ("roots", "user")
            ]
            roots, told = (json.loads(answer.body) for answer in answers)
            return {root["name"] for root in roots["roots"]}, told["name"]

        return seen

    async def test_names_and_groups_of_its_identities_count(self, seen_by, jp_serverapp):
        from jupyter_server.auth import User

        with_groups = User("carl")
        with_groups.hub_user = {"name": "carl", "groups": ["modellers"]}
        others = {"@public", "@personal"}
        kernel = jp_serverapp.web_app.settings["caterva2_kernel_token"]
        assert await seen_by(token=kernel) == (others, "carl"), "the groups of its user are not known yet"
        assert await seen_by(User("ada")) == (others | {"@shared"}, "ada")
        assert await seen_by(User("bob")) == (others, "bob")
        assert await seen_by(with_groups) == (others | {"@shared"}, "carl")
        assert await seen_by(token=kernel) == (others | {"@shared"}, "carl"), "a kernel acts for whose server it is"
        assert await seen_by(User("carl")) == (others, "carl")
        assert await seen_by(token=kernel) == (others, "carl"), "and has what that one has now"
