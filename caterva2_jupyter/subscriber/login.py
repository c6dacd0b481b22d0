"""Logging in to a stand-alone subscriber: a signed cookie, the policy that asks for it, and its routes.

The cookie is a JSON Web Token signed by HMAC-SHA256, and no other kind is accepted. Who the users are is in
``users``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from ipaddress import ip_address
from typing import Any, TypeVar

from tornado.web import RequestHandler

from ..errors import AuthenticationError, TooManyRequestsError
from ..web.access import AccessPolicy, Open
from ..web.caps import ClientCap
from ..web.service import Route, ServiceHandler
from .permissions import SignedIn
from .users import User, UserStore

__all__ = ["COOKIE", "AuthHandler", "Logins", "login_routes", "read_token", "sign_token"]

T = TypeVar("T")

COOKIE = "c2subauth"
AUDIENCE = "fastapi-users:auth"
RESET_AUDIENCE = "fastapi-users:reset"
LIFETIME_S = 12 * 3600
RESET_LIFETIME_S = 3600
MAX_TOKEN_CHARS = 4096
MAX_FAILURES = 10
MAX_CLIENT_FAILURES = 100
MAX_REGISTRATIONS = 20
FAILURES_WINDOW_S = 60.0
MAX_CLIENTS_REMEMBERED = 10_000
LOGINS_AT_ONCE, LOGINS_PER_CLIENT = 16, 4


def sign_token(claims: Mapping[str, Any], secret: str) -> str:
    """A JSON Web Token with these claims."""
    signed = ".".join(_encode(json.dumps(part, separators=(",", ":")).encode()) for part in (_HEADER, claims))
    return f"{signed}.{_encode(_signature(signed, secret))}"


def read_token(text: str, secret: str, now: float, audience: str = AUDIENCE) -> dict[str, Any] | None:
    """The claims of a token of ours; None when it is forged, for something else, or expired."""
    signed, _, signature = text.rpartition(".")
    header, _, payload = signed.partition(".")
    if len(text) > MAX_TOKEN_CHARS or not text.isascii():
        return None
    try:
        if not hmac.compare_digest(_decode(signature), _signature(signed, secret)):
            return None
        form, claims = json.loads(_decode(header)), json.loads(_decode(payload))
    except (ValueError, RecursionError):
        return None
    # The kind that a token claims to have is never a choice: there is one.
    if form != _HEADER or not isinstance(claims, dict) or claims.get("aud") != [audience]:
        return None
    expires_at = claims.get("exp")
    return claims if isinstance(expires_at, int) and now < expires_at else None


_HEADER = {"alg": "HS256", "typ": "JWT"}


def _signature(signed: str, secret: str) -> bytes:
    return hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Failures:
    """What clients did of late that they may do so many times a minute: guessing is slowed down.

    Parameters
    ----------
    limit : int
    text : str
        Of what there was too much.
    """

    def __init__(self, limit: int = MAX_FAILURES, text: str = "failed logins") -> None:
        self._limit, self._text = limit, text
        self._times: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, client: str, now: float) -> None:
        """Let a client try, or not.

        Raises
        ------
        TooManyRequestsError
        """
        recent = [t for t in self._times.get(client, ()) if now - t < FAILURES_WINDOW_S]
        if len(recent) >= self._limit:
            raise TooManyRequestsError(f"too many {self._text}: wait a minute")

    def add(self, client: str, now: float) -> None:
        recent = [t for t in self._times.pop(client, []) if now - t < FAILURES_WINDOW_S]
        self._times[client] = [*recent, now]
        while len(self._times) > MAX_CLIENTS_REMEMBERED:
            self._times.popitem(last=False)


class Logins:
    """Gives and checks cookies; as an ``AccessPolicy`` it lets in who is logged in.

    Parameters
    ----------
    users : UserStore
    secret : str
        Signs the cookies; another secret makes all of them worthless.
    executor : Executor
        For hashing.
    is_https : bool
        Clients reach the service by https: the cookie is for nothing else.
    """

    def __init__(self, users: UserStore, secret: str, executor: Executor, *, is_https: bool) -> None:
        self.users = users
        self.is_https = is_https
        self._secret = secret
        self._executor = executor
        self._failures = Failures()
        self._client_failures = Failures(MAX_CLIENT_FAILURES)
        self._registrations = Failures(MAX_REGISTRATIONS, "registrations and forgotten passwords")
        self._cap = ClientCap("logins", LOGINS_PER_CLIENT, LOGINS_AT_ONCE)

    def user(self, handler: RequestHandler) -> str | None:
        """Id of the user whose cookie came with the request."""
        user = self.user_of(handler.get_cookie(COOKIE, ""), time.time())
        if user is None:
            return None
        return SignedIn(user.id, user.email, is_superuser=user.is_superuser, owns_email=user.owns_email)

    def user_of(self, token: str | None, now: float) -> User | None:
        """The user who holds that token."""
        claims = read_token(token or "", self._secret, now)
        if claims is None or self.users.is_revoked(str(claims.get("jti"))):
            return None
        user = self.users.get(str(claims.get("sub")))
        return user if user and claims.get("pwd") == user.password_tag else None

    async def log_in(self, email: str, password: str, client: str) -> str | None:
        """A token; None for wrong credentials.

        Raises
        ------
        TooManyRequestsError
            After too many failures for that e-mail from that client.
        """
        # By name too: people behind one proxy do not lock each other out.
        failing = f"{client} {email.lower()[:320]}"
        self._failures.check(failing, time.monotonic())
        self._client_failures.check(client, time.monotonic())
        with self._cap.hold(client):
            user = await self.run(self.users.check_password, email, password)
        if user is None:
            for failures, key in ((self._failures, failing), (self._client_failures, client)):
                failures.add(key, time.monotonic())
            return None
        return self.token(user, time.time())

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run what hashes, or writes to the table, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    async def register(self, email: str, password: str, client: str) -> User:
        """Add somebody who asks for it.

        Raises
        ------
        EmailError, PasswordError, UserLimitError, ConflictError, TooManyRequestsError
        """
        self._count_registration(client)
        with self._cap.hold(client):
            return await self.run(lambda: self.users.add(email, password, is_self_registered=True))

    def _count_registration(self, client: str) -> None:
        self._registrations.check(client, time.monotonic())
        self._registrations.add(client, time.monotonic())

    async def reset_token(self, email: str, client: str) -> str | None:
        """What lets the user of an e-mail set another password within the hour; None when there is none.

        Raises
        ------
        TooManyRequestsError
        """
        self._count_registration(client)
        user = await self.run(self.users.find, email)
        if user is None:
            return None
        claims = {
            "sub": user.id,
            "aud": [RESET_AUDIENCE],
            "exp": int(time.time()) + RESET_LIFETIME_S,
            "pwd": user.password_tag,
        }
        return sign_token(claims, self._secret)

    async def reset_password(self, token: str, password: str) -> bool:
        """Set a password by such a token, which is worth nothing from then on.

        Returns
        -------
        bool
            Was it a token that is still worth something?

        Raises
        ------
        PasswordError
        """
        claims = read_token(token, self._secret, time.time(), RESET_AUDIENCE)
        if claims is None:
            return False
        ident, tag = str(claims.get("sub")), str(claims.get("pwd"))
        return await self.run(lambda: self.users.set_password(ident, password, was_mailed=True, old_tag=tag))

    def token(self, user: User, now: float) -> str:
        claims = {
            "sub": user.id,
            "aud": [AUDIENCE],
            "exp": int(now) + LIFETIME_S,
            "jti": secrets.token_hex(12),
            "pwd": user.password_tag,
        }
        return sign_token(claims, self._secret)

    async def log_out(self, token: str, now: float) -> None:
        """Make a token worthless."""
        claims = read_token(token, self._secret, now)
        if claims is not None:
            await self.run(self.users.revoke, str(claims.get("jti")), int(claims["exp"]), int(now))


def login_routes(logins: Logins, prefix: str = "") -> list[Route]:
    """``/auth/jwt/login`` and ``/auth/jwt/logout`` under a prefix."""
    return [
        (f"{prefix}/auth/jwt/login", _LoginHandler, {"logins": logins, "policy": Open()}),
        (f"{prefix}/auth/jwt/logout", _LogoutHandler, {"logins": logins, "policy": logins}),
    ]


def _is_local(address: str) -> bool:
    try:
        # Of a unix socket Tornado says 0.0.0.0.
        return address == "0.0.0.0" or ip_address(address).is_loopback  # noqa: S104
    except ValueError:
        return False


class AuthHandler(ServiceHandler):
    """Base of handlers that know the logins."""

    def initialize(self, logins: Logins, policy: AccessPolicy) -> None:  # type: ignore[override]
        super().initialize(policy=policy)
        self.logins = logins

    @property
    def remote_key(self) -> str:
        """Whom attempts are counted for: an address; behind a proxy on this machine, the one that the proxy saw."""
        address = str(self.request.remote_ip)
        seen = self.request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        return seen[:64] if seen and _is_local(address) else address

    def set_login_cookie(self, value: str, max_age_s: int | None) -> None:
        self.set_cookie(
            COOKIE, value, path="/", httponly=True, samesite="lax", secure=self.logins.is_https, max_age=max_age_s
        )


class _LoginHandler(AuthHandler):
    async def post(self) -> None:
        texts = {
            name: self.request.body_arguments.get(name, [b""])[0].decode("utf-8", "replace")
            for name in ("username", "password")
        }
        missing = [name for name, text in texts.items() if not text]
        if missing:
            self.set_status(422)
            details = [{"type": "missing", "loc": ["body", name], "msg": "Field required"} for name in missing]
            self.write_json({"detail": details})
            return
        token = await self.logins.log_in(texts["username"], texts["password"], self.remote_key)
        if token is None:
            self.set_status(400)
            self.write_json({"detail": "LOGIN_BAD_CREDENTIALS"})
            return
        self.set_login_cookie(token, None)
        self.set_status(204)


class _LogoutHandler(AuthHandler):
    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if not isinstance(error, AuthenticationError):
            super().write_error(status_code, **kwargs)
            return
        self.set_status(error.status)
        self.write_json({"detail": "Unauthorized"})
        self.finish()

    async def post(self) -> None:
        token = self.get_cookie(COOKIE)
        if token is None:
            raise AuthenticationError("Unauthorized")
        await self.logins.log_out(token, time.time())
        self.set_login_cookie("", 0)
        self.set_status(204)
