"""The base handler of stand-alone services, and what every handler of ours does, inside Jupyter too.

``JsonAnswers`` says how errors look and reads parameters strictly; it sits on any ``RequestHandler``.
``ServiceHandler`` adds what Jupyter's own base does there: who may (a policy per route), the checks of Host
and Origin, security headers. ``make_application`` puts routes of it together.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any

from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.web import Application, HTTPError, RequestHandler

from ..errors import (
    AuthenticationError,
    Caterva2Error,
    InvalidPathError,
    RequestError,
    SourceUnavailableError,
    TooManyRequestsError,
    error_to_json,
)
from .access import SERVICE_HEADERS, AccessPolicy, Open, RequestGuard
from .direct_reads import DirectRead, DirectReads

__all__ = ["HealthHandler", "JsonAnswers", "Route", "ServiceHandler", "make_application", "strong_etag"]

log = logging.getLogger("caterva2_jupyter.web")

Route = tuple[str, type[RequestHandler], dict[str, Any]]

PING_INTERVAL_S = 5


def strong_etag(body: bytes) -> str:
    """An ETag of content."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def etag_matches(header: str | None, etag: str) -> bool:
    """Does an ``If-None-Match`` header name that ETag? (The weak comparison, as the RFC says.)"""
    if not header:
        return False
    tags = re.findall(r'\*|(?:W/)?"[^"]*"', header)
    return any(t == "*" or t.removeprefix("W/") == etag.removeprefix("W/") for t in tags)


class JsonAnswers(RequestHandler):
    """Errors as JSON with their status, parameters checked, no ETag by hashing whole bodies."""

    def compute_etag(self) -> str | None:
        return None

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        # Of a path that is not UTF-8 nothing can exist; Tornado would answer 400 here.
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidPathError("not a path: it is not UTF-8") from None

    def query_texts(self) -> dict[str, str]:
        """Parameters of the URL, as sent: nothing stripped or replaced.

        Raises
        ------
        RequestError
            When one occurs twice or is not UTF-8.
        """
        texts: dict[str, str] = {}
        for name, values in self.request.query_arguments.items():
            if len(values) > 1:
                raise RequestError(f"parameter {name[:40]!r} occurs twice")
            try:
                texts[name] = values[0].decode("utf-8")
            except UnicodeDecodeError:
                raise RequestError(f"parameter {name[:40]!r} is not UTF-8") from None
        return texts

    def required_query_text(self, name: str) -> str:
        texts = self.query_texts()
        if name not in texts:
            raise RequestError(f"parameter {name!r} is missing")
        return texts[name]

    def json_body(self) -> dict[str, Any]:
        """The request's body, which has to be a JSON object."""
        try:
            form = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise RequestError("the body is not JSON") from None
        if not isinstance(form, dict):
            raise RequestError("the body is not a JSON object")
        return form

    def write_json(self, form: object) -> None:
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps(form, separators=(",", ":")))

    def client_key(self) -> str:
        """Whom caps are counted for."""
        user = self.current_user
        name = user if isinstance(user, str) else str(getattr(user, "username", ""))
        return f"{self.request.remote_ip} {name}"

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if isinstance(error, Caterva2Error):
            status_code, body = error.status, error_to_json(error)
            self.set_status(status_code)
        else:
            reason = error.reason if isinstance(error, HTTPError) else None
            body = {"detail": reason or _phrase(status_code)}
        if status_code == AuthenticationError.status:
            self.set_header("WWW-Authenticate", "Bearer")
        if isinstance(error, (TooManyRequestsError, SourceUnavailableError)):
            self.set_header("Retry-After", "1")
        self.write_json(body)
        self.finish()

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if isinstance(value, (Caterva2Error, HTTPError)):
            log.debug("%s %s: %s", self.request.method, self.request.path, value)
        elif typ is not None and value is not None:
            log.error("%s %s failed", self.request.method, self.request.path, exc_info=(typ, value, tb))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP status {status}"


class ServiceHandler(JsonAnswers):
    """Base of the handlers of stand-alone services. A route without a policy cannot be made."""

    is_socket = False

    def initialize(self, policy: AccessPolicy) -> None:
        self._policy = policy

    def set_default_headers(self) -> None:
        for name, value in SERVICE_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-cache")

    def prepare(self) -> None:
        guard: RequestGuard = self.settings["request_guard"]
        is_read = self.request.method in ("GET", "HEAD") and not self.is_socket
        guard.check(self.request, changes_state=not is_read)
        if self.current_user is None:
            raise AuthenticationError("a valid token or login is needed")
        if not self.is_open and self._headers.get("Cache-Control") == "no-cache":
            self.set_header("Cache-Control", "private, no-cache")  # no proxy may keep it for others

    def get_current_user(self) -> str | None:
        return self._policy.user(self)

    def user_now(self) -> str | None:
        """Who sent the request, if they are let in still: a connection may outlive a login."""
        return self._policy.user(self)

    @property
    def is_open(self) -> bool:
        """May everybody have what is here?"""
        return isinstance(self._policy, Open)

    def check_origin(self, origin: str) -> bool:
        """For WebSockets: ``prepare`` has checked it."""
        return True


class HealthHandler(ServiceHandler):
    """``GET health``: alive, and what it is. Open to all, so it says no more."""

    def initialize(self, service: str) -> None:  # type: ignore[override]
        super().initialize(policy=Open())
        self._service = service

    async def get(self) -> None:
        self.write_json({"status": "ok", "service": self._service})


class _NoSuchRoute(ServiceHandler):
    def prepare(self) -> None:
        raise HTTPError(404)


def _log_request(handler: RequestHandler) -> None:
    request = handler.request
    # Without the query, which may hold what its sender should not have put there.
    log.debug(
        "%d %s %s %s %.1f ms",
        handler.get_status(), request.remote_ip, request.method, request.path, 1000 * request.request_time(),
    )  # fmt: skip


class _Application(Application):
    """Routes, and reads that are answered before one is looked for."""

    direct_reads: DirectReads | None = None

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        usual = partial(super().start_request, server_conn, request_conn)
        return usual() if self.direct_reads is None else DirectRead(self.direct_reads, request_conn, usual)


def make_application(
    routes: Sequence[Route],
    guard: RequestGuard,
    settings: Mapping[str, Any] = {},
    direct_reads: DirectReads | None = None,
) -> Application:
    """The application of a stand-alone service.

    Parameters
    ----------
    routes : sequence of Route
        ``(pattern, handler class, arguments of its initialize)``; every handler is a `ServiceHandler`.
    guard : RequestGuard
    settings : mapping
        More settings of Tornado's, or others than ours.
    direct_reads : DirectReads, optional
        Answers small reads by itself; not where settings have transforms, which it does not know.
    """
    for pattern, handler, _ in routes:
        if not issubclass(handler, ServiceHandler):
            raise TypeError(f"the handler of {pattern} is not a ServiceHandler")
    defaults: dict[str, Any] = {
        "default_handler_class": _NoSuchRoute,
        "default_handler_args": {"policy": Open()},
        "log_function": _log_request,
        "request_guard": guard,
        # Half-open connections are noticed within two intervals.
        "websocket_ping_interval": PING_INTERVAL_S,
        "websocket_ping_timeout": PING_INTERVAL_S,
        "websocket_max_message_size": 64 << 20,
    }
    application = _Application(list(routes), **{**defaults, **settings})
    if "transforms" not in settings:
        application.direct_reads = direct_reads
    return application
