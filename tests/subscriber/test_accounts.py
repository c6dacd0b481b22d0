"""Registering, forgotten passwords, superusers and the pages where people log in, over HTTP."""

from __future__ import annotations

import json
import logging
import re
import smtplib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from argon2 import PasswordHasher

import caterva2_jupyter as cat2
from caterva2_jupyter.cli.main import main as cat2cli
from caterva2_jupyter.config import Address, Config
from caterva2_jupyter.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    RequestError,
    UnsupportedDatasetError,
)
from caterva2_jupyter.subscriber import mail
from caterva2_jupyter.subscriber import users as users_module
from caterva2_jupyter.subscriber.account_pages import own_path
from caterva2_jupyter.subscriber.app import StandaloneSubscriber
from caterva2_jupyter.subscriber.permissions import SignedIn, visitor_of
from caterva2_jupyter.subscriber.users import UserStore
from tests.processes import wait_for
from tests.web.serving import Answer, Served

ADA, BOSS, NEW, PASSWORD = "ada@example.org", "boss@example.org", "new@example.org", "correct horse"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_module, "PasswordHasher", lambda: PasswordHasher(1, 8, 1))


class Site:
    """A subscriber with logins, and what a browser or a program does with it."""

    def __init__(self, served: Served, made: StandaloneSubscriber) -> None:
        self.served, self.made = served, made

    @property
    def users(self) -> UserStore:
        assert self.made._users is not None
        return self.made._users

    def ask(self, method: str, target: str, form: object = None, cookie: str = "", **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if cookie:
            sent["Cookie"] = cookie
        return self.served.request(method, target, sent, None if form is None else json.dumps(form))

    def send_form(self, target: str, cookie: str = "", headers: dict[str, str] | None = None, **fields: str) -> Answer:
        sent = FORM | ({"Cookie": cookie} if cookie else {}) | (headers or {})
        return self.served.request("POST", target, sent, urlencode(fields))

    def log_in(self, email: str, password: str = PASSWORD) -> str:
        answer = self.send_form("/auth/jwt/login", username=email, password=password)
        return cookie_of(answer) if answer.status == 204 else ""

    def name_of(self, cookie: str) -> Any:
        return self.ask("GET", "/api/v1/user", cookie=cookie).json()["name"]


def cookie_of(answer: Answer) -> str:
    return str(answer.headers["Set-Cookie"]).partition(";")[0]


def sites(directory: Path, **settings: object) -> Iterator[Site]:
    tables = {"subscriber": settings}
    config = Config(tables, "c.toml", {"CATERVA2_SECRET": "a long random text"}).subscriber(
        http="localhost:0", broker="", statedir=str(directory / "sub")
    )
    made: list[StandaloneSubscriber] = []

    async def make() -> Any:
        made.append(StandaloneSubscriber(config))
        application = made[0].application()
        await made[0].service.start()
        return application

    async def stop() -> None:
        await made[0].stop()

    with Served(make, stop) as served:
        site = Site(served, made[0])
        site.users.add(ADA, PASSWORD)
        site.users.add(BOSS, PASSWORD, is_superuser=True)
        yield site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from sites(tmp_path, register=True, maxusers=4)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Site]:
    yield from sites(tmp_path)


class TestRegistering:
    def test_somebody_registers_and_logs_in(self, site: Site) -> None:
        form = {"email": NEW, "password": PASSWORD, "is_superuser": True, "is_verified": True}
        answer = site.ask("POST", "/auth/register", form)
        assert answer.status == 201
        told = answer.json()
        assert list(told) == ["id", "email", "is_active", "is_superuser", "is_verified"]
        assert (told["email"], told["is_superuser"], told["is_verified"]) == (NEW, False, False)
        assert site.name_of(site.log_in(NEW)) == NEW

    def test_refusals_are_the_older_systems(self, site: Site) -> None:
        def refused(**form: object) -> tuple[int, Any]:
            answer = site.ask("POST", "/auth/register", form)
            return answer.status, answer.json()["detail"]

        assert refused(email=ADA, password=PASSWORD) == (400, "REGISTER_USER_ALREADY_EXISTS")
        reason = "Password should be at least 8 characters"
        assert refused(email=NEW, password="short") == (
            400,
            {"code": "REGISTER_INVALID_PASSWORD", "reason": reason},
        )
        for email in ("nobody", "<script>alert(1)</script>@example.org", '"x"@example.org', "a,b@example.org", "a@b;c"):
            assert refused(email=email, password=PASSWORD)[0] == 422, email
        assert refused(email=NEW)[0] == 422
        assert refused(email=f"a\r\nBcc: b{NEW}", password=PASSWORD)[0] == 422
        assert site.served.request("POST", "/auth/register", {}, "[").status == 422

    def test_no_more_than_maxusers_register(self, site: Site) -> None:
        for name in ("a", "b"):
            assert site.ask("POST", "/auth/register", {"email": f"{name}@x.org", "password": PASSWORD}).status == 201
        answer = site.ask("POST", "/auth/register", {"email": "c@x.org", "password": PASSWORD})
        assert (answer.status, answer.json()) == (400, {"detail": "Only a maximum of 4 users are allowed"})

    def test_registering_in_a_flood_is_slowed_down(self, site: Site) -> None:
        form = {"email": ADA, "password": PASSWORD}
        assert {site.ask("POST", "/auth/register", form).status for _ in range(20)} == {400}
        assert site.ask("POST", "/auth/register", form).status == 429

    def test_nobody_registers_where_that_is_not_allowed(self, closed: Site) -> None:
        assert closed.ask("POST", "/auth/register", {"email": NEW, "password": PASSWORD}).status == 404
        assert closed.ask("GET", "/register").status == 404
        assert b"/register" not in closed.ask("GET", "/login").body

    def test_an_e_mail_that_somebody_claims_is_granted_nothing_until_a_mail_is_answered(self, tmp_path: Path) -> None:
        grants = [{"roots": ["foo"], "users": [NEW, ADA]}, {"roots": ["all"], "users": ["*"]}]
        for site in sites(tmp_path, register=True, grants=grants):
            permissions = site.made.service.all_roots.permissions

            def sees(email: str, site: Site = site, permissions: Any = permissions) -> list[bool]:
                (user,) = site.users.listed(email)
                visitor = visitor_of(SignedIn(user.id, user.email, owns_email=user.owns_email))
                return [permissions.may_see(visitor, root) for root in ("foo", "all")]

            assert site.ask("POST", "/auth/register", {"email": NEW, "password": PASSWORD}).status == 201
            assert sees(ADA) == [True, True]
            assert sees(NEW) == [False, True]
            token = reset_token(site, NEW)
            assert site.ask("POST", "/auth/reset-password", {"token": token, "password": PASSWORD + "!"}).status == 200
            assert sees(NEW) == [True, True]


def reset_token(site: Site, email: str) -> str:
    logins = next(
        arguments["accounts"].logins
        for rule in site.served.listener._server.request_callback.wildcard_router.rules  # type: ignore[union-attr]
        if "accounts" in (arguments := rule.target_kwargs)
    )
    token = site.served.call(logins.reset_token(email, "test"))
    assert token
    return str(token)


class TestForgottenPasswords:
    def test_the_answer_is_the_same_whether_there_is_such_a_user_or_not(self, site: Site) -> None:
        for email in (ADA, "nobody@example.org"):
            answer = site.ask("POST", "/auth/forgot-password", {"email": email})
            assert (answer.status, answer.body) == (202, b"null")
        assert site.ask("POST", "/auth/forgot-password", {"email": "x"}).status == 422
        assert site.ask("POST", "/auth/forgot-password", {}).status == 422

    def test_on_this_machine_the_link_is_logged(self, site: Site, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "caterva2_jupyter.subscriber"):
            site.ask("POST", "/auth/forgot-password", {"email": ADA})
            found = wait_for(lambda: re.search(r"http://localhost:\d+(/reset-password/\S+)", caplog.text))
        before = site.log_in(ADA)
        assert site.ask("GET", found[1]).status == 200
        assert site.send_form(found[1], password="short").status == 400
        assert site.name_of(before) == ADA
        assert site.send_form(found[1], password="another horse").status == 200
        assert site.name_of(before) is None, "sessions of the old password are over"
        assert not site.log_in(ADA)
        assert site.name_of(site.log_in(ADA, "another horse")) == ADA
        answer = site.send_form(found[1], password="a third horse")
        assert answer.status == 400, "a link works once"
        assert b"used already" in answer.body

    def test_a_token_is_for_one_use_and_forged_ones_for_none(self, site: Site) -> None:
        token = reset_token(site, ADA)
        bad = {"detail": "RESET_PASSWORD_BAD_TOKEN"}
        login = site.log_in(ADA).partition("=")[2]
        for other in ("", "x", token[:-2] + "xx", login, "a.b.c"):
            answer = site.ask("POST", "/auth/reset-password", {"token": other, "password": PASSWORD})
            assert (answer.status, answer.json()) == (400, bad)
        assert site.name_of(f"c2subauth={token}") is None, "it logs nobody in"
        form = {"token": token, "password": "another horse"}
        assert site.ask("POST", "/auth/reset-password", {**form, "password": "x"}).status == 400
        assert site.ask("POST", "/auth/reset-password", form).body == b"null"
        assert site.ask("POST", "/auth/reset-password", form).json() == bad

    def test_elsewhere_a_mail_is_sent(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        sent = []

        class Server:
            def __init__(self, host: str, port: int, timeout: float) -> None:
                if host == "down":
                    raise ConnectionRefusedError("nobody there")

            def __enter__(self) -> Server:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def send_message(self, message: Any) -> None:
                sent.append(message)

        monkeypatch.setattr(smtplib, "SMTP", Server)
        mail.tell_reset(ADA, "https://data.example.org/cat2", "reset-password/T", Address("localhost", 25))
        (message,) = sent
        assert message["To"] == ADA
        assert "https://data.example.org/cat2/reset-password/T" in message.get_content()
        mail.tell_reset(ADA, "https://data.example.org", "reset-password/T", Address("down", 25))
        assert "no mail" in caplog.text
        assert "/T" not in caplog.text


class TestSuperusers:
    def test_they_add_list_and_delete_users_in_the_older_systems_words(self, site: Site) -> None:
        boss, ada = site.log_in(BOSS), site.log_in(ADA)

        def add(cookie: str = boss, **form: object) -> tuple[int, Any]:
            answer = site.ask(
                "POST", "/api/adduser/", {"username": NEW, "password": PASSWORD, "superuser": False, **form}, cookie
            )
            return answer.status, answer.json()

        assert add(ada) == (401, {"detail": "Only superusers can add users"})
        assert add("") == (401, {"detail": "Unauthorized"})
        text = f"User added: username='{NEW}' password='{PASSWORD}' superuser=False"
        assert add() == (200, text)
        assert add() == (200, text), "an existing user also gives 200"
        assert add(username="x")[0] == 400
        status, form = add(username="x@y.org", password="short")
        assert (status, form["detail"][:17]) == (400, "Error in adding x")
        assert "InvalidPasswordException" in form["detail"]
        assert add(superuser="yes")[0] == 422
        status, told = add(username="made@up.org", password=None)
        assert status == 200
        made_up = re.search("password='([^']+)'", told)
        assert made_up
        assert site.log_in("made@up.org", made_up[1])
        assert add(username="one@more.org") == (400, {"detail": "Only a maximum of 4 users are allowed"})

        listed = site.ask("GET", "/api/listusers/", cookie=ada).json()
        assert [user["email"] for user in listed] == sorted([ADA, BOSS, NEW, "made@up.org"])
        assert {user["hashed_password"] for user in listed} == {None}
        one = site.ask("GET", f"/api/listusers/?username={NEW}", cookie=ada).json()
        assert [user["email"] for user in one] == [NEW]
        assert site.ask("GET", "/api/listusers/").status == 401

        cookie = site.log_in(NEW)
        assert site.served.request("PUT", "/api/v1/files/@personal/x.txt", {"Cookie": cookie}, "x").status == 201
        personal = site.made.config.statedir / "personal" / one[0]["id"]
        assert personal.is_dir()
        answer = site.ask("GET", f"/api/deluser/{NEW}", cookie=ada)
        assert (answer.status, answer.json()) == (401, {"detail": "Only superusers can delete users"})
        answer = site.ask("GET", f"/api/deluser/{quote(NEW)}", cookie=boss)
        assert (answer.status, answer.json()) == (200, f"User deleted: {NEW}")
        assert not (personal / "x.txt").exists()
        assert not (personal / "x.txt.b2").exists()
        assert site.name_of(cookie) is None
        answer = site.ask("GET", f"/api/deluser/{NEW}", cookie=boss)
        assert (answer.status, answer.json()) == (400, {"detail": f"Error in deleting {NEW}: UserNotExists"})

    def test_a_link_that_a_superuser_follows_deletes_nobody(self, site: Site) -> None:
        boss = site.log_in(BOSS)
        browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
        for headers in (
            browser,
            {"Origin": "https://evil.example"},
            {"Referer": "https://evil.example/"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Mode": "no-cors"},
        ):
            sent = {"Cookie": boss, **headers}
            assert site.served.request("GET", f"/api/deluser/{ADA}", sent).status == 403, headers
        assert site.log_in(ADA)

    def test_v1_and_the_client(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        with cat2.connect(site.served.url, username=BOSS, password=PASSWORD) as client:
            assert client.users.current() == {
                "name": BOSS,
                "is_superuser": True,
                "groups": [],
                "login": True,
                "register": True,
            }
            made = client.users.add(NEW)
            assert site.log_in(NEW, made["password"])
            with pytest.raises(ConflictError, match="exists already"):
                client.users.add(NEW.upper(), PASSWORD)
            with pytest.raises(RequestError, match="at least 8 characters"):
                client.users.add("x@y.org", "short")
            assert [user["email"] for user in client.users.list(NEW)] == [NEW]
            client.users.remove(NEW)
            with pytest.raises(NotFoundError, match="no user"):
                client.users.remove(NEW)
        with cat2.connect(site.served.url, username=ADA, password=PASSWORD) as client:
            with pytest.raises(AccessDeniedError, match="only superusers"):
                client.users.add(NEW, PASSWORD)
            with pytest.raises(AccessDeniedError, match="only superusers"):
                client.users.remove(BOSS)
        ada = site.log_in(ADA)
        listed = site.ask("GET", "/api/v1/users", cookie=ada).json()["users"]
        assert [user["email"] for user in listed] == [ADA], "v1 tells others to superusers alone"
        assert site.ask("POST", "/api/v1/users", {"email": NEW, "extra": 1}, site.log_in(BOSS)).status == 400

    def test_a_client_whose_login_has_ended_logs_in_again_and_is_no_stranger(self, site: Site) -> None:
        with cat2.connect(site.served.url, username=ADA, password=PASSWORD) as client:
            assert "@personal" in client.roots
            transport = client._session.service.transport
            for _ in range(2):
                cookie = transport._own().cookie
                site.ask("POST", "/auth/jwt/logout", cookie=cookie)
                assert site.ask("GET", "/api/v1/roots", cookie=cookie).status == 401
                assert "@personal" in client.roots
            assert list(site.ask("GET", "/api/roots", cookie=cookie).json()) == ["@public"]

    def test_the_command_line(
        self, site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CATERVA2_URL", raising=False)
        monkeypatch.setenv("CATERVA2_USERNAME", BOSS)
        monkeypatch.setenv("CATERVA2_PASSWORD", PASSWORD)

        def run(*arguments: str) -> tuple[int, str, str]:
            code = cat2cli(["--subscriber", site.served.url, *arguments])
            out, err = capsys.readouterr()
            return code, out, err

        assert run("adduser", NEW, PASSWORD) == (
            0,
            f"User added: username='{NEW}' password='{PASSWORD}' superuser=False\n",
            "",
        )
        code, out, _ = run("lsu", "--json", NEW)
        assert (code, [user["email"] for user in json.loads(out)]) == (0, [NEW])
        assert NEW in run("listusers")[1]
        assert run("--user", ADA, "--pass", PASSWORD, "deluser", NEW)[0] == 1
        assert run("deluser", NEW) == (0, f"User deleted: {NEW}\n", "")
        code, out, err = run("deluser", NEW)
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1
        code, _, err = run("--user", ADA, "--pass", "wrong pass", "listusers")
        assert code == 1
        assert "refuses that user name and password" in err

    def test_without_logins_there_are_no_users(self, tmp_path: Path) -> None:
        config = Config({}, "", {}).subscriber(http="localhost:0", broker="", statedir=str(tmp_path))
        made: list[StandaloneSubscriber] = []

        async def make() -> Any:
            made.append(StandaloneSubscriber(config))
            return made[0].application()

        async def stop() -> None:
            await made[0].stop()

        with Served(make, stop) as served:
            for method, target in (
                ("POST", "/api/adduser/"),
                ("GET", "/api/deluser/x"),
                ("GET", "/api/listusers/"),
                ("POST", "/auth/jwt/login"),
                ("POST", "/auth/register"),
                ("GET", "/login"),
                ("GET", "/api/v1/users"),
            ):
                assert served.request(method, target, {}, "{}" if method == "POST" else None).status == 404
            told = json.loads(served.get("/api/v1/user").body)
            assert (told["name"], told["login"]) == (None, False)
            with cat2.connect(served.url) as client, pytest.raises(UnsupportedDatasetError, match="CATERVA2_SECRET"):
                client.users.list()


class TestPages:
    def test_somebody_logs_in_by_the_page_and_goes_on_where_they_were(self, site: Site) -> None:
        answer = site.ask("GET", "/roots/foo")
        assert answer.status == 302
        page = str(answer.headers["Location"])
        assert page == "/login?next=/roots/foo"
        shown = site.ask("GET", page)
        assert shown.status == 200
        assert b'<form method="post">' in shown.body
        wrong = site.send_form(page, username=ADA, password="wrong horse")
        assert wrong.status == 400
        assert b"There is no user of that e-mail with that password" in wrong.body
        assert "Set-Cookie" not in wrong.headers
        answer = site.send_form(page, username=ADA, password=PASSWORD)
        assert (answer.status, answer.headers["Location"]) == (303, "/roots/foo")
        assert "HttpOnly" in str(answer.headers["Set-Cookie"])
        cookie = cookie_of(answer)
        assert site.name_of(cookie) == ADA
        again = site.ask("GET", page, cookie=cookie)
        assert (again.status, again.headers["Location"]) == (302, "/roots/foo")
        assert site.ask("GET", "/", cookie=cookie).status == 200

    def test_they_log_out_by_the_page(self, site: Site) -> None:
        cookie = site.log_in(ADA)
        shown = site.ask("GET", "/logout", cookie=cookie)
        assert ADA.encode() in shown.body
        assert site.name_of(cookie) == ADA, "looking at the page does nothing"
        answer = site.send_form("/logout", cookie)
        assert (answer.status, answer.headers["Location"]) == (303, "/login")
        assert site.name_of(cookie) is None
        assert site.ask("GET", "/logout").status == 302

    def test_they_register_by_the_page(self, site: Site) -> None:
        assert site.ask("GET", "/register").status == 200
        for fields, text in (
            ({"email": ADA, "password": PASSWORD}, b"a user of that e-mail already"),
            ({"email": NEW, "password": "short"}, b"at least 8 characters"),
            ({"email": "x", "password": PASSWORD}, b"not an e-mail"),
            ({"email": NEW}, b"fill in"),
        ):
            answer = site.send_form("/register", **fields)
            assert answer.status in (400, 409)
            assert text in answer.body
        answer = site.send_form("/register", email=NEW, password=PASSWORD)
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        assert site.name_of(cookie_of(answer)) == NEW

    def test_the_page_of_forgotten_passwords_tells_nothing(self, site: Site) -> None:
        pages = [site.send_form("/forgot-password", email=e) for e in (ADA, "you@example.org")]
        assert {page.status for page in pages} == {202}
        assert pages[0].body.replace(ADA.encode(), b"X") == pages[1].body.replace(b"you@example.org", b"X")

    def test_no_script_runs_in_them_and_nothing_is_loaded(self, site: Site) -> None:
        for page in ("/login", "/register", "/forgot-password", "/reset-password/x"):
            answer = site.ask("GET", page)
            policy = str(answer.headers["Content-Security-Policy"])
            assert policy.startswith("default-src 'none'; style-src 'sha256-")
            assert "script-src" not in policy
            assert "frame-ancestors 'none'" in policy
            assert "form-action 'self'" in policy
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert b"<script" not in answer.body

    def test_texts_of_others_stay_text(self, site: Site) -> None:
        """FAULTS A9"""
        evil = '"><script>alert(1)</script>@x.org'
        for answer in (
            site.ask("GET", f"/login?next={quote(evil)}"),
            site.send_form("/forgot-password", email=evil),
            site.send_form("/register", email=evil, password=PASSWORD),
            site.send_form(f"/login?next={quote(evil)}", username=evil, password=evil),
            site.ask("GET", f"/reset-password/{quote(evil, safe='')}"),
            site.send_form(f"/reset-password/{quote(evil, safe='')}", password=PASSWORD),
        ):
            assert b"<script" not in answer.body
        cookie = cookie_of(site.send_form("/register", email="<b>x</b>@x.org", password=PASSWORD))
        assert b"<b>" not in site.ask("GET", "/logout", cookie=cookie).body

    @pytest.mark.parametrize(
        "goal",
        [
            "//evil.example/",
            "/\\evil.example",
            "https://evil.example/",
            "javascript:alert(1)",
            "\\\\evil.example",
            "/\t/evil.example",
            "/ok\r\nSet-Cookie: x=y",
            "/../../x",
            "evil",
            "",
        ],
    )
    def test_one_goes_on_to_this_service_only(self, site: Site, goal: str) -> None:
        answer = site.send_form(f"/login?next={quote(goal, safe='')}", username=ADA, password=PASSWORD)
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        assert own_path(goal, "/cat2") == "/cat2/"

    @pytest.mark.parametrize("query", ["next=/a&next=/b", "next=%ff", "next=", "x=%ff", "next[]=/a"])
    def test_an_odd_address_is_shown_the_form_all_the_same(self, site: Site, query: str) -> None:
        assert site.ask("GET", f"/login?{query}").status == 200
        assert site.send_form(f"/login?{query}", username=ADA, password="wrong").status == 400
        assert site.send_form(f"/login?{query}", username=ADA, password=PASSWORD).status == 303

    def test_forms_of_other_sites_are_refused(self, site: Site) -> None:
        cookie = site.log_in(ADA)
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Referer": "https://evil.example/"},
        ):
            answer = site.send_form("/login", "", headers, username=ADA, password=PASSWORD)
            assert answer.status == 403, headers
            assert "Set-Cookie" not in answer.headers
            assert site.send_form("/logout", cookie, headers).status == 403
            assert site.send_form("/register", "", headers, email=NEW, password=PASSWORD).status == 403
        assert site.name_of(cookie) == ADA

    def test_guessing_by_the_page_is_slowed_down_for_the_other_way_too(self, site: Site) -> None:
        for _ in range(10):
            assert site.send_form("/login", username=ADA, password="wrong").status == 400
        answer = site.send_form("/login", username=ADA, password=PASSWORD)
        assert answer.status == 429
        assert b"wait a minute" in answer.body
        assert site.send_form("/auth/jwt/login", username=ADA, password=PASSWORD).status == 429

    def test_behind_a_proxy_attempts_are_counted_for_whom_the_proxy_saw(self, site: Site) -> None:
        def attempt(password: str, forwarded: str) -> int:
            headers = {"X-Forwarded-For": forwarded}
            return site.send_form("/auth/jwt/login", "", headers, username=ADA, password=password).status

        for i in range(10):
            assert attempt("wrong", f"10.0.0.{i}, 192.0.2.1") == 400, "what a client says itself counts for nothing"
        assert attempt(PASSWORD, "192.0.2.1") == 429
        assert attempt(PASSWORD, "192.0.2.1, 192.0.2.2") == 204

    def test_one_password_is_not_tried_on_everybody(self, site: Site) -> None:
        statuses = [
            site.send_form("/auth/jwt/login", username=f"u{i}@x.org", password="123456").status for i in range(101)
        ]
        assert set(statuses[:100]) == {400}
        assert statuses[100] == 429


def test_no_proxy_keeps_for_others_what_users_were_told(site: Site) -> None:
    cookie = site.log_in(ADA)
    for route in (
        "/api/v1/roots",
        "/api/v1/user",
        "/api/roots",
        "/api/v1/users",
        "/login",
        "/api/v1/roots/@public/catalog",
    ):
        answer = site.ask("GET", route, cookie=cookie)
        directives = str(answer.headers["Cache-Control"])
        assert answer.status in (200, 302), (route, answer.body)
        assert "private" in directives or "no-store" in directives, route


def test_where_strangers_may_read_the_page_is_shown_to_them(tmp_path: Path) -> None:
    for site in sites(tmp_path, anonymous=True):
        assert site.ask("GET", "/").status == 200
        assert site.ask("GET", "/api/v1/meta?path=foo/x").status == 404
        assert site.ask("POST", "/api/v1/cache/clear", {"path": ""}).status == 401
        assert site.ask("DELETE", "/api/v1/roots/foo/follow").status == 401


def test_the_event_loop_answers_while_passwords_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_hashing, is_answered = threading.Event(), threading.Event()

    class Slow(PasswordHasher):
        def verify(self, hashed: str | bytes, password: str | bytes) -> Any:
            is_hashing.set()
            assert is_answered.wait(30), "nothing was answered meanwhile"
            return super().verify(hashed, password)

    monkeypatch.setattr(users_module, "PasswordHasher", lambda: Slow(1, 8, 1))
    for site in sites(tmp_path):
        with ThreadPoolExecutor(3) as pool:
            is_hashing.clear()
            is_answered.clear()
            begun = [pool.submit(site.log_in, ADA) for _ in range(3)]
            assert is_hashing.wait(30)
            assert site.ask("GET", "/api/v1/health").status == 200
            is_answered.set()
            assert all(login.result() for login in begun)
