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
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

from tornado.web import RequestHandler

from ..errors import AuthenticationError, TooManyRequestsError
from ..web.access import AccessPolicy, Open
from ..web.caps import ClientCap
from ..web.service import Route, ServiceHandler
from .users import User, UserStore

__all__ = ["COOKIE", "Logins", "login_routes", "read_token", "sign_token"]

COOKIE = "c2subauth"
AUDIENCE = "fastapi-users:auth"
LIFETIME_S = 12 * 3600
MAX_TOKEN_CHARS = 4096
MAX_FAILURES = 10
FAILURES_WINDOW_S = 60.0
MAX_CLIENTS_REMEMBERED = 10_000
LOGINS_AT_ONCE, LOGINS_PER_CLIENT = 16, 4


def sign_token(claims: Mapping[str, Any], secret: str) -> str:
    """A JSON Web Token with these claims."""
    signed = ".".join(_encode(json.dumps(part, separators=(",", ":")).encode()) for part in (_HEADER, claims))
    return f"{signed}.{_encode(_signature(signed, secret))}"


def read_token(text: str, secret: str, now: float) -> dict[str, Any] | None:
    """The claims of a token of ours; None when it is forged, not for logins, or expired."""
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
    if form != _HEADER or not isinstance(claims, dict) or claims.get("aud") != [AUDIENCE]:
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
    """Failed logins of late, by client: guessing is slowed down."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, client: str, now: float) -> None:
        """Let a client try, or not.

        Raises
        ------
        TooManyRequestsError
        """
        recent = [t for t in self._times.get(client, ()) if now - t < FAILURES_WINDOW_S]
        if len(recent) >= MAX_FAILURES:
            raise TooManyRequestsError("too many failed logins: wait a minute")

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
        self._cap = ClientCap("logins", LOGINS_PER_CLIENT, LOGINS_AT_ONCE)

    def user(self, handler: RequestHandler) -> str | None:
        """Id of the user whose cookie came with the request."""
        user = self.user_of(handler.get_cookie(COOKIE, ""), time.time())
        return user.id if user else None

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
        with self._cap.hold(client):
            loop = asyncio.get_running_loop()
            user = await loop.run_in_executor(self._executor, self.users.check_password, email, password)
        if user is None:
            self._failures.add(failing, time.monotonic())
            return None
        return self.token(user, time.time())

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
            loop = asyncio.get_running_loop()
            revoked = str(claims.get("jti")), int(claims["exp"]), int(now)
            await loop.run_in_executor(self._executor, self.users.revoke, *revoked)


def login_routes(logins: Logins, prefix: str = "") -> list[Route]:
    """``/auth/jwt/login`` and ``/auth/jwt/logout`` under a prefix."""
    return [
        (f"{prefix}/auth/jwt/login", _LoginHandler, {"logins": logins, "policy": Open()}),
        (f"{prefix}/auth/jwt/logout", _LogoutHandler, {"logins": logins, "policy": logins}),
    ]


class _AuthHandler(ServiceHandler):
    def initialize(self, logins: Logins, policy: AccessPolicy) -> None:  # type: ignore[override]
        super().initialize(policy=policy)
        self.logins = logins

    def set_login_cookie(self, value: str, max_age_s: int | None) -> None:
        self.set_cookie(
            COOKIE, value, path="/", httponly=True, samesite="lax", secure=self.logins.is_https, max_age=max_age_s
        )


class _LoginHandler(_AuthHandler):
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
        token = await self.logins.log_in(texts["username"], texts["password"], str(self.request.remote_ip))
        if token is None:
            self.set_status(400)
            self.write_json({"detail": "LOGIN_BAD_CREDENTIALS"})
            return
        self.set_login_cookie(token, None)
        self.set_status(204)


class _LogoutHandler(_AuthHandler):
    async def post(self) -> None:
        token = self.get_cookie(COOKIE)
        if token is None:
            raise AuthenticationError("Unauthorized")
        await self.logins.log_out(token, time.time())
        self.set_login_cookie("", 0)
        self.set_status(204)
