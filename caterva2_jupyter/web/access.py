"""Who may: policies that name the user of a request, and the checks of its Host and Origin.

A policy is chosen per route when an application is put together, and a route of a stand-alone service
cannot be made without one. Nothing here reads requests' bodies or decides what exists.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

from tornado.httputil import HTTPHeaders
from tornado.web import RequestHandler

from ..config import Address, NetworkConfig
from ..errors import AccessDeniedError

__all__ = ["SERVICE_HEADERS", "AccessPolicy", "NetworkToken", "Open", "RequestGuard", "bearer_token", "network_policy"]

Scope = Literal["publish", "read"]
SERVICE_HEADERS = {
    "Server": "caterva2-jupyter",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer of a stand-alone service has."""


class HasHeaders(Protocol):
    """A request, as far as it is looked at here."""

    @property
    def headers(self) -> HTTPHeaders: ...


class AccessPolicy(Protocol):
    """Says who sent a request."""

    def user(self, handler: RequestHandler) -> str | None:
        """Name of the user; None when nobody is known (the answer is then 401).

        Raises
        ------
        AccessDeniedError
            When the user is known, but may not (403).
        """
        ...


class Open:
    """Everybody may."""

    def user(self, handler: RequestHandler) -> str | None:
        return self.named_by(handler.request)

    def named_by(self, request: HasHeaders) -> str | None:
        """As ``user``, of a request that has no handler yet."""
        return "anonymous"


class NetworkToken:
    """Those who know a token may (``Authorization: Bearer TOKEN``, or ``token TOKEN``).

    Parameters
    ----------
    accepted : iterable of str
        Tokens that open the route.
    known : iterable of str
        Tokens of the same network that do not: their owner is told so (403), others get 401.
    """

    def __init__(self, accepted: Iterable[str], known: Iterable[str] = ()) -> None:
        self._accepted = tuple(t for t in accepted if t)
        self._known = tuple(t for t in known if t and t not in self._accepted)

    def user(self, handler: RequestHandler) -> str | None:
        return self.named_by(handler.request)

    def named_by(self, request: HasHeaders) -> str | None:
        """As ``user``, of a request that has no handler yet."""
        token = bearer_token(request)
        if token is None:
            return None
        if _is_one_of(token, self._accepted):
            return "network"
        if _is_one_of(token, self._known):
            raise AccessDeniedError("this token does not allow that")
        return None


def network_policy(network: NetworkConfig, scope: Scope) -> Open | NetworkToken:
    """The policy of a route between services: open when no token is set for that scope."""
    token = network.publish_token if scope == "publish" else network.read_token
    if not token:
        return Open()
    bearers = {"publish": network.publish_bearer, "read": network.read_bearer}
    known = [network.publish_token, network.read_token, *bearers.values()]
    return NetworkToken([token, bearers[scope]], known)


def bearer_token(request: HasHeaders) -> str | None:
    """The token in the ``Authorization`` header; never one from the URL, which would be logged."""
    kind, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    token = token.strip()
    return token if kind.lower() in ("bearer", "token") and token else None


def _is_one_of(token: str, tokens: Iterable[str]) -> bool:
    given = token.encode("utf-8", "surrogateescape")
    # All are compared, each in constant time: the time tells nothing.
    return any([hmac.compare_digest(given, t.encode()) for t in tokens])


@dataclass(frozen=True, slots=True)
class RequestGuard:
    """Refuses what a foreign web page makes a browser send.

    Attributes
    ----------
    hosts : frozenset of str or None
        Host names (no port, lower case) that requests may name: a page whose name was re-bound to this
        machine names its own. None: any, for services that others reach under names not known here.
    origins : frozenset of str
        Origins (``https://host:port``) that may send requests besides the service's own.
    """

    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()

    @classmethod
    def for_service(cls, address: Address, *urls: str) -> RequestGuard:
        """The guard of a service that listens at ``address`` and is also known under ``urls``."""
        parsed = [urlsplit(url) for url in urls if url]
        origins = frozenset(f"{u.scheme}://{u.netloc}".lower() for u in parsed if u.scheme in ("http", "https"))
        if address.socket_path or not address.is_loopback:
            return cls(None, origins)
        names = {"localhost", "127.0.0.1", "::1", address.host.lower()}
        return cls(frozenset(names | {u.hostname for u in parsed if u.hostname}), origins)

    def check(self, request: HasHeaders, *, changes_state: bool) -> None:
        """Let the request pass, or not.

        Parameters
        ----------
        changes_state : bool
            Of methods other than GET and HEAD, and of WebSockets.

        Raises
        ------
        AccessDeniedError
        """
        if self.hosts is not None and _hostname(request.headers.get("Host", "")) not in self.hosts:
            raise AccessDeniedError("this service is not known under the name in the Host header")
        origin = request.headers.get("Origin")
        if origin is not None:
            own = urlsplit(origin.lower()).netloc == request.headers.get("Host", "").lower()
            if not own and origin.lower() not in self.origins:
                raise AccessDeniedError("requests from other origins are refused")
        elif changes_state and request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise AccessDeniedError("requests from other sites are refused")


_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@/\[\]]+))(?::\d*)?", re.ASCII)


def _hostname(host: str) -> str:
    match = _HOST.fullmatch(host.lower())
    return (match.group(1) or match.group(2)).rstrip(".") if match else ""
