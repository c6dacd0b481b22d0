"""HTTP to one service, synchronous: one pool of connections, credentials, deadlines, typed errors.

Everything that goes wrong on the way comes out as a class of ``errors``, mapped in this module alone. Safe to
use from several threads and after a fork. It knows no routes (``service`` does) and decodes no records.
"""

from __future__ import annotations

import json
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    HTTPError,
    LocationValueError,
    NewConnectionError,
    ProtocolError,
    SSLError,
)
from urllib3.exceptions import (
    TimeoutError as Urllib3TimeoutError,
)

from ..errors import (
    AuthenticationError,
    Caterva2Error,
    ConfigError,
    DeadlineError,
    NotCachedError,
    SourceUnavailableError,
    TooLargeError,
    TooManyRequestsError,
    error_from_json,
)

__all__ = ["Answer", "Credentials", "NoSuchRouteError", "Timeouts", "Transport"]

MAX_JSON_NBYTES = 256 << 20
MAX_ERROR_NBYTES = 1 << 20
PART_NBYTES = 1 << 18
POOL_SIZE = 8
_BUSY = (429, 502, 503, 504)
_Body = bytes | Callable[[], Iterable[bytes]] | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks: a token, or a name and password for services with users of their own. Never shown."""

    token: str = field(default="", repr=False)
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines.

    Attributes
    ----------
    connect_s : float
        Seconds until a connection stands.
    progress_s : float
        Longest silence, in seconds, in the midst of an answer or before it.
    retries : int
        How often a request that changes nothing is sent again.
    """

    connect_s: float = 5.0
    progress_s: float = 60.0
    retries: int = 2


class NoSuchRouteError(SourceUnavailableError):
    """Something answers there that does not know the route: another kind of service, or another base path."""


class _UnixConnection(HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, *args: Any, socket_path: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._socket_path = socket_path

    def _new_conn(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout if isinstance(self.timeout, (int, float)) else None)
        try:
            sock.connect(self._socket_path)
        except OSError as error:
            sock.close()
            raise NewConnectionError(self, f"{self._socket_path}: {error.strerror or error}") from error
        return sock


class _UnixPool(HTTPConnectionPool):
    ConnectionCls = _UnixConnection


class _Busy(Exception):
    """A service that answered, but not now."""

    def __init__(self, error: Caterva2Error, after_s: float) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_s = after_s


class _PerProcess:
    """What must not be shared with a forked child: sockets, and the cookie of a login."""

    def __init__(self, pool: HTTPConnectionPool, parent: _PerProcess | None) -> None:
        self.pid = os.getpid()
        self.pool = pool
        self.cookie = ""
        # Collecting the parent's pool here would close it under locks that another thread may have held at the fork.
        self.parent = parent


class Answer:
    """A response whose body is still to come. Use in a ``with`` block.

    Attributes
    ----------
    status : int
    headers : mapping
    """

    def __init__(self, transport: Transport, response: urllib3.BaseHTTPResponse) -> None:
        self._transport = transport
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._complete = False

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *args: object) -> None:
        # A connection in the midst of a body cannot be used again.
        if self._complete:
            self._response.release_conn()
        else:
            self._response.close()

    def parts(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises
        ------
        DeadlineError, SourceUnavailableError
        """
        with self._transport.mapped_errors():
            while part := self._response.read1(PART_NBYTES):
                yield part
            self._complete = True

    def read(self, max_nbytes: int) -> bytes:
        """The whole body.

        Raises
        ------
        TooLargeError
            When it is longer than ``max_nbytes``.
        """
        parts: list[bytes] = []
        total = 0
        for part in self.parts():
            total += len(part)
            if total > max_nbytes:
                raise TooLargeError(f"an answer of {self._transport.url} is over {max_nbytes} bytes")
            parts.append(part)
        return b"".join(parts)

    def json(self, max_nbytes: int = MAX_JSON_NBYTES) -> Any:
        """The body as JSON.

        Raises
        ------
        SourceUnavailableError
            When it is something else: another program, or a proxy's page, answers there.
        """
        kind = self.headers.get("Content-Type", "")
        body = self.read(max_nbytes)
        if not kind.startswith("application/json"):
            raise self._transport.stranger(kind)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise SourceUnavailableError(f"{self._transport.url} answered something that is not JSON") from None


class Transport:
    """Requests to one service.

    Parameters
    ----------
    url : str
        Base URL: ``http(s)://host:port/base`` or ``http+unix://%2Fsocket/base``.
    credentials : Credentials
    timeouts : Timeouts
    tls_ca : str
        File with certificates (PEM) to trust besides the system's.

    Examples
    --------
    >>> transport = Transport("http://localhost:8002", Credentials(token="secret"))
    >>> transport
    <Transport http://localhost:8002>
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials | None = None,
        timeouts: Timeouts | None = None,
        tls_ca: str = "",
    ) -> None:
        self.url = url.rstrip("/")
        self.credentials = credentials or Credentials()
        self.timeouts = timeouts or Timeouts()
        self.tls_ca = tls_ca
        self._base = urlsplit(self.url).path.rstrip("/")
        self._state = _PerProcess(self._make_pool(), None)

    def __repr__(self) -> str:
        return f"<Transport {self.url}>"

    def _make_pool(self) -> HTTPConnectionPool:
        parts = urlsplit(self.url)
        timeout = urllib3.Timeout(connect=self.timeouts.connect_s, read=self.timeouts.progress_s)
        if parts.scheme == "http+unix":
            return _UnixPool("localhost", timeout=timeout, maxsize=POOL_SIZE, socket_path=unquote(parts.netloc))
        if parts.hostname is None:
            raise ConfigError(f"{self.url!r} is not the URL of a service: write http://host:port")
        if parts.scheme == "http":
            return HTTPConnectionPool(parts.hostname, parts.port or 80, timeout=timeout, maxsize=POOL_SIZE)
        context = ssl.create_default_context()
        if self.tls_ca:
            try:
                context.load_verify_locations(self.tls_ca)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"cannot use the certificates in {self.tls_ca}: {error}") from None
        return HTTPSConnectionPool(
            parts.hostname, parts.port or 443, timeout=timeout, maxsize=POOL_SIZE, ssl_context=context
        )

    def _own(self) -> _PerProcess:
        """The state of this process (a new one after a fork)."""
        if self._state.pid != os.getpid():
            self._state = _PerProcess(self._make_pool(), self._state)
        return self._state

    def close(self) -> None:
        """Close all idle connections; the next request opens new ones."""
        state = self._own()
        state.pool.close()
        self._state = _PerProcess(self._make_pool(), None)

    def request(
        self,
        method: str,
        route: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, and give its answer when the status is 2xx.

        It may be sent more than once: every request of v1 with a body in memory may be.

        Parameters
        ----------
        method : str
        route : str
            Below the base URL, starting with ``/``, already percent-encoded.
        params : mapping, optional
            Of the query, not encoded.
        body : bytes, optional
            JSON, unless ``headers`` say otherwise.

        Raises
        ------
        Caterva2Error
            The error that the service answered with.
        SourceUnavailableError, DeadlineError
            When the service cannot be reached, or is too slow.
        """
        return self._request(method, route, params, body, headers, self.timeouts.retries)

    def send(
        self,
        method: str,
        route: str,
        parts: Callable[[], Iterable[bytes]],
        headers: Mapping[str, str],
        *,
        can_repeat: bool,
    ) -> Answer:
        """As ``request``, with a body that is made while it is sent.

        Parameters
        ----------
        parts : callable
            The body from its start; called again when the request is sent again.
        can_repeat : bool
            Can it be called again?

        Raises
        ------
        As ``request``.
        """
        if not can_repeat and self.credentials.username and not self._own().cookie:
            self._own().cookie = self._log_in(self._own())
        return self._request(method, route, None, parts, headers, self.timeouts.retries if can_repeat else 0)

    def _request(
        self,
        method: str,
        route: str,
        params: Mapping[str, str] | None,
        body: _Body,
        headers: Mapping[str, str] | None,
        tries: int,
    ) -> Answer:
        attempt, logged_in = 0, False
        while True:
            pause_s = 0.0
            try:
                return self._once(method, route, params, body, headers)
            except AuthenticationError:
                # The session may have run out: log in once more, with what a person gave.
                if logged_in or not self._own().cookie or not tries:
                    raise
                logged_in = True
                self._own().cookie = ""
                continue
            except _Busy as busy:
                pause_s = busy.after_s
                if attempt >= tries or not (pause_s or isinstance(busy.error, TooManyRequestsError)):
                    raise busy.error from None
            except SourceUnavailableError as error:
                if attempt >= tries or not isinstance(error.__cause__, (NewConnectionError, ProtocolError)):
                    raise
            # Jitter, so that many kernels do not come back at once.
            time.sleep(pause_s + random.uniform(0.05, 0.15) * 2**attempt)  # noqa: S311
            attempt += 1

    def _once(
        self,
        method: str,
        route: str,
        params: Mapping[str, str] | None,
        body: _Body,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        state = self._own()
        if self.credentials.username and not state.cookie and not self.credentials.token:
            state.cookie = self._log_in(state)
        sent = {"User-Agent": "caterva2-jupyter", "Accept-Encoding": "gzip"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if self.credentials.token:
            sent["Authorization"] = f"Bearer {self.credentials.token}"
        if state.cookie:
            sent["Cookie"] = state.cookie
        sent |= headers or {}
        target = f"{self._base}{route}" + (f"?{urlencode(params, quote_via=quote, safe='/')}" if params else "")
        return self._checked(self._send(state, method, target, body, sent))

    def _send(
        self, state: _PerProcess, method: str, target: str, body: _Body, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        with self.mapped_errors():
            return state.pool.urlopen(
                method,
                target,
                body=body() if callable(body) else body,
                headers=headers,
                redirect=False,  # credentials go to this address and to no other
                retries=False,
                preload_content=False,
                assert_same_host=False,
            )

    def _checked(self, response: urllib3.BaseHTTPResponse) -> Answer:
        answer = Answer(self, response)
        if 200 <= response.status < 300:
            return answer
        with answer:
            if 300 <= response.status < 400:
                raise self._redirected(response.headers.get("Location", ""))
            error = self._refused(answer)
            if response.status in _BUSY and not isinstance(error, NotCachedError):
                raise _Busy(error, _seconds(response.headers.get("Retry-After", "")))
            raise error

    def _redirected(self, location: str) -> Caterva2Error:
        if "login" in urlsplit(location).path:
            return AuthenticationError(f"{self.url} wants a login: give a token, or username and password")
        where = location.partition("?")[0][:200]
        return SourceUnavailableError(
            f"{self.url} sends requests on to {where!r}, which is not followed: connect to that address if you trust it"
        )

    def _refused(self, answer: Answer) -> Caterva2Error:
        """The error that a status of 400 or more stands for."""
        form: object = None
        try:
            body = answer.read(MAX_ERROR_NBYTES)
            if answer.headers.get("Content-Type", "").startswith("application/json"):
                form = json.loads(body)
        except (ValueError, RecursionError, TooLargeError):
            form = None
        is_ours = isinstance(form, Mapping) and "error" in form
        status = answer.status
        if not is_ours and status in (401, 403):
            detail = form.get("detail") or form.get("message") if isinstance(form, Mapping) else ""
            return AuthenticationError(
                f"{self.url} refuses: {detail or 'no valid credentials'}; log in with a token (CATERVA2_TOKEN) "
                "or with username and password"
            )
        if not is_ours and status in (404, 405):
            return NoSuchRouteError(
                f"{self.url} answers ({status}), but not as a Caterva2 service that can do that: check its port and "
                "base path (a broker has no data: connect to a subscriber)"
            )
        if not isinstance(form, Mapping):
            form = {"detail": f"{self.url} answered with status {status}"}
        return error_from_json(form, status)

    def stranger(self, kind: str) -> SourceUnavailableError:
        """The error for an answer of a content type that no service of ours gives."""
        return SourceUnavailableError(
            f"{self.url} answered {kind.partition(';')[0][:80] or 'no content type'!r}: another program or a proxy "
            "listens there, or the base path is wrong"
        )

    @contextmanager
    def mapped_errors(self) -> Iterator[None]:
        """Foreign exceptions come out as ours."""
        try:
            yield
        except SSLError as error:
            raise SourceUnavailableError(f"TLS to {self.url} failed: {_reason(error)}") from error
        except NewConnectionError as error:
            raise SourceUnavailableError(
                f"cannot reach {self.url}: {_reason(error)}; is the service running?"
            ) from error
        except Urllib3TimeoutError as error:
            raise DeadlineError(
                f"{self.url} made no progress: {self.timeouts.connect_s:g} s to connect, "
                f"{self.timeouts.progress_s:g} s between bytes"
                + ("; does it speak https?" if self.url.startswith("https:") else "")
            ) from error
        except (ProtocolError, HTTPError, LocationValueError, OSError) as error:
            if isinstance(error, Caterva2Error):
                raise
            raise SourceUnavailableError(f"the connection to {self.url} broke: {_reason(error)}") from error

    def _log_in(self, state: _PerProcess) -> str:
        """The cookie of a session, ``name=value``."""
        form = urlencode({"username": self.credentials.username, "password": self.credentials.password})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = self._send(state, "POST", f"{self._base}/auth/jwt/login", form.encode(), headers)
        with Answer(self, response) as answer:
            answer.read(MAX_ERROR_NBYTES)
            if answer.status in (400, 401, 403, 422):
                raise AuthenticationError(f"{self.url} refuses that user name and password")
            if answer.status == 404:
                raise AuthenticationError(f"{self.url} has no users of its own: give a token, or no credentials")
            cookie = answer.headers.get("Set-Cookie", "").partition(";")[0]
            if answer.status not in (200, 204) or "=" not in cookie:
                raise AuthenticationError(f"{self.url} answered a login with status {answer.status} and no session")
            return cookie


def _reason(error: BaseException) -> str:
    """The innermost cause, as a person would say it."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None and not isinstance(cause, Caterva2Error):
        inner = cause
    if isinstance(inner, OSError) and inner.strerror:
        return str(inner.strerror)
    return str(inner) or type(inner).__name__


def _seconds(text: str) -> float:
    return min(float(text), 30.0) if text.isascii() and text.isdigit() else 0.0
