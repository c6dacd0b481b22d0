"""Users of a stand-alone subscriber: who is let in, and with what."""

from __future__ import annotations

import base64
import json
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st
from tornado.testing import AsyncHTTPTestCase, gen_test
from tornado.web import Application

from caterva2_jupyter.errors import ConfigError, ConflictError, RequestError
from caterva2_jupyter.subscriber import users as users_module
from caterva2_jupyter.subscriber.add_user import main as add_user
from caterva2_jupyter.subscriber.login import COOKIE, LIFETIME_S, Logins, login_routes, read_token, sign_token
from caterva2_jupyter.subscriber.users import UserStore
from caterva2_jupyter.web.access import RequestGuard
from caterva2_jupyter.web.service import ServiceHandler, make_application

EMAIL, PASSWORD, SECRET = "ada@example.org", "correct horse", "a long random secret"
NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_module, "PasswordHasher", lambda: PasswordHasher(1, 8, 1))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[UserStore]:
    store = UserStore(tmp_path / "sub" / "db.sqlite")
    yield store
    store.close()


@pytest.fixture
def logins(store: UserStore) -> Iterator[Logins]:
    with ThreadPoolExecutor(1) as executor:
        yield Logins(store, SECRET, executor, is_https=False)


def test_the_right_password_of_an_active_user_is_accepted(store: UserStore):
    user = store.add(EMAIL, PASSWORD)
    assert store.check_password(EMAIL, PASSWORD) == user
    assert store.check_password(EMAIL.upper(), PASSWORD) == user
    assert store.check_password(EMAIL, PASSWORD + "!") is None
    assert store.check_password("nobody@example.org", PASSWORD) is None


def test_an_e_mail_is_one_user(store: UserStore):
    store.add(EMAIL, PASSWORD)
    with pytest.raises(ConflictError, match="exists already"):
        store.add(EMAIL.title(), PASSWORD)


@pytest.mark.parametrize(("email", "password"), [("ada", PASSWORD), ("a b@c", PASSWORD), (EMAIL, "short")])
def test_what_cannot_be_an_account_is_refused(store: UserStore, email: str, password: str):
    with pytest.raises(RequestError):
        store.add(email, password)


def test_no_more_users_than_the_limit(tmp_path: Path):
    store = UserStore(tmp_path / "db.sqlite", max_users=1)
    store.add(EMAIL, PASSWORD)
    with pytest.raises(RequestError, match="Only a maximum of 1 users are allowed"):
        store.add("bob@example.org", PASSWORD)
    store.close()


def test_the_table_is_the_older_systems_and_rows_may_come_from_outside(store: UserStore, tmp_path: Path):
    path = tmp_path / "sub" / "db.sqlite"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    hashed = PasswordHasher(1, 8, 1).hash(PASSWORD)
    row = ("0b5e8a0e-6d0a-4a4c-9f6e-2b8e1c4d3f5a", EMAIL, hashed, True, True, False)
    with sqlite3.connect(path) as db:
        db.execute(
            "INSERT INTO user (id, email, hashed_password, is_active, is_superuser, is_verified)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            row,
        )
    db.close()
    user = store.check_password(EMAIL, PASSWORD)
    assert user is not None
    assert user.id == row[0]
    assert user.is_superuser


def test_a_hash_that_is_none_lets_nobody_in(store: UserStore, tmp_path: Path):
    store.add(EMAIL, PASSWORD)
    with sqlite3.connect(tmp_path / "sub" / "db.sqlite") as db:
        db.execute("UPDATE user SET hashed_password = 'plain text'")
    db.close()
    assert store.check_password(EMAIL, "plain text") is None


def test_a_file_that_is_no_table_of_users_is_named(tmp_path: Path):
    (tmp_path / "db.sqlite").write_text("not a database at all, but text\n" * 100)
    with pytest.raises(ConfigError, match=r"cannot use the table of users .*db\.sqlite"):
        UserStore(tmp_path / "db.sqlite")


def test_a_token_says_who_holds_it_until_it_expires(store: UserStore, logins: Logins):
    user = store.add(EMAIL, PASSWORD)
    token = logins.token(user, NOW)
    assert logins.user_of(token, NOW) == user
    assert logins.user_of(token, NOW + LIFETIME_S + 1) is None


def test_a_new_password_ends_the_tokens_of_the_old(store: UserStore, logins: Logins):
    user = store.add(EMAIL, PASSWORD)
    token = logins.token(user, NOW)
    store.set_password(user.id, "another password")
    assert logins.user_of(token, NOW) is None


def test_a_user_who_is_deactivated_or_gone_is_not_let_in(store: UserStore, logins: Logins, tmp_path: Path):
    token = logins.token(store.add(EMAIL, PASSWORD), NOW)
    for change in ("UPDATE user SET is_active = 0", "DELETE FROM user"):
        with sqlite3.connect(tmp_path / "sub" / "db.sqlite") as db:
            db.execute(change)
        db.close()
        assert logins.user_of(token, NOW) is None
        assert store.check_password(EMAIL, PASSWORD) is None


def unsigned(header: dict, claims: dict) -> str:
    def encode(form: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(form).encode()).rstrip(b"=").decode()

    return f"{encode(header)}.{encode(claims)}."


def test_forged_tokens_are_refused(store: UserStore, logins: Logins):
    user = store.add(EMAIL, PASSWORD)
    claims = read_token(logins.token(user, NOW), SECRET, NOW)
    assert claims is not None
    forged = [
        sign_token(claims, "another secret"),
        sign_token({**claims, "aud": ["fastapi-users:reset"]}, SECRET),
        sign_token({**claims, "exp": "never"}, SECRET),
        sign_token({k: v for k, v in claims.items() if k != "exp"}, SECRET),
        sign_token({**claims, "sub": "somebody else"}, SECRET),
        unsigned({"alg": "none", "typ": "JWT"}, claims),
        unsigned({"alg": "HS256", "typ": "JWT"}, claims),
        "",
        "a.b.c",
        "." * 5000,
        None,
    ]
    assert [logins.user_of(token, NOW) for token in forged] == [None] * len(forged)


@given(st.data())
def test_no_changed_character_of_a_token_is_accepted(data: st.DataObject):
    claims = {"sub": "x", "aud": ["fastapi-users:auth"], "exp": int(NOW) + 100}
    token = sign_token(claims, SECRET)
    signature = token.rpartition(".")[2]
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != token[place]))
    changed = token[:place] + other + token[place + 1 :]
    # The last character of base64 has bits that stand for nothing.
    if base64.urlsafe_b64decode(signature + "=") and place == len(token) - 1:
        return
    assert read_token(changed, SECRET, NOW) is None


@given(st.text())
def test_garbage_is_no_token(text: str):
    assert read_token(text, SECRET, NOW) is None


class _Private(ServiceHandler):
    async def get(self) -> None:
        self.write_json({"user": self.current_user})


class TestLoginOverHttp(AsyncHTTPTestCase):
    @pytest.fixture(autouse=True)
    def _service(self, store: UserStore, logins: Logins) -> None:
        self.user_id = store.add(EMAIL, PASSWORD).id
        self.logins = logins

    def get_app(self) -> Application:
        routes = [*login_routes(self.logins), (r"/private", _Private, {"policy": self.logins})]
        return make_application(routes, RequestGuard())

    def log_in(self, password: str = PASSWORD, headers: dict[str, str] | None = None):
        body = urlencode({"username": EMAIL, "password": password})
        return self.fetch("/auth/jwt/login", method="POST", body=body, headers=headers)

    def get_private(self, cookie: str | None):
        return self.fetch("/private", headers={"Cookie": f"{COOKIE}={cookie}"} if cookie else {})

    def cookie(self) -> str:
        return self.log_in().headers["Set-Cookie"].split(";")[0].partition("=")[2]

    def test_logging_in_gives_a_cookie_that_opens_what_is_private(self):
        answer = self.log_in()
        assert (answer.code, answer.body) == (204, b"")
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("c2subauth=")
        assert {p.strip().lower() for p in cookie.split(";")[1:]} == {"httponly", "path=/", "samesite=lax"}
        assert json.loads(self.get_private(self.cookie()).body) == {"user": self.user_id}

    def test_nothing_private_without_a_cookie_of_ours(self):
        forged = sign_token({"sub": self.user_id, "aud": ["fastapi-users:auth"], "exp": 1 << 40}, "guessed")
        for cookie in (None, "", "x", forged):
            assert self.get_private(cookie).code == 401

    def test_wrong_credentials_are_refused_in_the_older_systems_words(self):
        answer = self.log_in("wrong")
        assert answer.code == 400
        assert json.loads(answer.body) == {"detail": "LOGIN_BAD_CREDENTIALS"}
        assert "Set-Cookie" not in answer.headers

    def test_a_form_without_fields_is_422(self):
        answer = self.fetch("/auth/jwt/login", method="POST", body="username=x")
        assert answer.code == 422
        assert json.loads(answer.body)["detail"][0]["loc"] == ["body", "password"]

    def test_logging_out_makes_the_cookie_worthless(self):
        cookie = self.cookie()
        answer = self.fetch("/auth/jwt/logout", method="POST", body="", headers={"Cookie": f"{COOKIE}={cookie}"})
        assert answer.code == 204
        assert self.get_private(cookie).code == 401
        answer = self.fetch("/auth/jwt/logout", method="POST", body="")
        assert (answer.code, json.loads(answer.body)) == (401, {"detail": "Unauthorized"})

    def test_guessing_is_slowed_down(self):
        codes = {self.log_in("wrong").code for _ in range(10)}
        assert codes == {400}
        assert self.log_in().code == 429

    def test_a_foreign_page_cannot_log_anybody_in_or_use_the_cookie(self):
        foreign = {"Origin": "http://evil.example"}
        assert self.log_in(headers=foreign).code == 403
        cookie = {"Cookie": f"{COOKIE}={self.cookie()}"}
        assert self.fetch("/private", headers=cookie | foreign).code == 403

    @gen_test
    async def test_the_cookie_is_secure_where_clients_use_https(self):
        self.logins.is_https = True
        body = urlencode({"username": EMAIL, "password": PASSWORD})
        answer = await self.http_client.fetch(self.get_url("/auth/jwt/login"), method="POST", body=body)
        assert "secure" in answer.headers["Set-Cookie"].lower()


def test_a_user_is_added_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "c.toml").write_text("[subscriber]\nmaxusers = 2\n")
    options = ["--conf", str(tmp_path / "c.toml"), "--statedir", str(tmp_path)]
    assert add_user([*options, EMAIL]) == 0
    password = capsys.readouterr().out.removeprefix("Password: ").strip()
    assert add_user([*options, EMAIL, PASSWORD]) == 1
    assert "exists already" in capsys.readouterr().err
    assert add_user([*options, "-S", "root@example.org", PASSWORD]) == 0
    store = UserStore(tmp_path / "db.sqlite")
    assert store.check_password(EMAIL, password) is not None
    root = store.check_password("root@example.org", PASSWORD)
    assert root is not None
    assert root.is_superuser
    store.close()
