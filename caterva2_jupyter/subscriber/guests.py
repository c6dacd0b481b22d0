"""Publishers that a program on this machine asks to have followed while it runs, such as ``publish`` in a notebook.

Only who is on this machine may ask, and only for a publisher that is on it too: a subscriber must not be made to
connect to addresses of somebody's choice. No token of the network is ever sent there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from ..config import NetworkConfig
from ..core.paths import parse_root_name
from ..core.roots import parse_service_url
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    ConflictError,
    IntegrityError,
    RequestError,
    SourceUnavailableError,
    TooManyRequestsError,
)
from ..web.source_handlers import Limits, SourceAnswers
from .cache_access import is_near
from .handlers import seen_by
from .publisher_link import PublisherLink, parse_roots
from .seen_roots import AllRoots
from .subscriber import Subscriber

__all__ = ["Guests", "guest_routes"]

MAX_GUESTS = 64


class Guests:
    """The publishers that are followed for somebody on this machine.

    Parameters
    ----------
    subscriber : Subscriber
    list_roots : callable
        Asks a service for its roots.
    make_link : callable
        Makes the link to a publisher.
    network : NetworkConfig
    """

    def __init__(
        self,
        subscriber: Subscriber,
        list_roots: Callable[[str], Awaitable[Any]],
        make_link: Callable[[str], PublisherLink],
        network: NetworkConfig,
    ) -> None:
        self._subscriber, self._list_roots, self._make_link = subscriber, list_roots, make_link
        self._has_token = bool(network.read_token)
        self._links: dict[str, PublisherLink] = {}

    async def follow(self, url: str, root: str) -> None:
        """Follow a root of a publisher on this machine.

        Raises
        ------
        AccessDeniedError
            When it is elsewhere, or the network has tokens: publishers make themselves known at its broker then.
        ConflictError
            When there is another root of that name.
        SourceUnavailableError, TooManyRequestsError
        """
        url = _local_url(url)
        if self._has_token:
            raise AccessDeniedError("this network has tokens, which are not sent to just any publisher: give a broker")
        if self._subscriber.told_by_others(root, self._links.get(url)):
            raise ConflictError(f"there is another root {root!r} here: publish yours under another name")
        offered = parse_roots(await self._list_roots(url), url)
        if root not in {announced.name for announced in offered}:
            raise SourceUnavailableError(f"{url} has no root {root!r}")
        if url not in self._links:
            if len(self._links) >= MAX_GUESTS:
                raise TooManyRequestsError(f"at most {MAX_GUESTS} publishers are followed for programs on this machine")
            link = self._links[url] = self._make_link(url)
            await self._subscriber.add_guest(link)
        await self._subscriber.follow(root)

    async def forget(self, url: str) -> None:
        """Follow nothing of that publisher any more; fine when nothing was."""
        link = self._links.pop(_local_url(url), None)
        if link is not None:
            await self._subscriber.remove_guest(link)


def _local_url(text: str) -> str:
    """The URL of a service on this machine.

    Raises
    ------
    RequestError, AccessDeniedError
    """
    try:
        url = parse_service_url(text)
    except IntegrityError as error:
        raise RequestError(str(error)) from None
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_local = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if not is_local or parts.scheme != "http" or parts.port is None or parts.path:
        raise AccessDeniedError(f"{url} is not a publisher on this machine: have it announced by a broker")
    return url


class PublishersAnswers(SourceAnswers):
    """``POST publishers`` with ``{"url", "root"}``, ``DELETE publishers`` with ``{"url"}``."""

    changes_state = True

    def initialize(self, guests: Guests, **kwargs: Any) -> None:  # type: ignore[override]
        self.guests = guests
        super().initialize(**kwargs)

    def _checked(self, *names: str) -> tuple[str, ...]:
        if not is_near(self.request):
            raise AccessDeniedError("publishers are followed for programs on the subscriber's own machine only")
        seen = seen_by(self)
        if seen.permissions.has_users and not seen.visitor.is_person:
            raise AuthenticationError("a login is needed")
        form = self.json_body()
        values = tuple(form.get(name) for name in names)
        if not all(isinstance(value, str) for value in values):
            raise RequestError(f"the body is a JSON object with the texts {', '.join(names)}")
        return values  # type: ignore[return-value]

    async def answer_post(self) -> None:
        url, root = self._checked("url", "root")
        seen = seen_by(self)
        # By the name alone, whether there is such a root or not.
        if not seen.sees(parse_root_name(root)):
            raise AccessDeniedError(f"you may not see a root {root!r} yourself: publish under another name")
        await self.guests.follow(url, parse_root_name(root))
        self.write_json({"root": root, "followed": True})

    async def answer_delete(self) -> None:
        (url,) = self._checked("url")
        await self.guests.forget(url)
        self.write_json({"url": url})


def guest_routes(
    all_roots: AllRoots, guests: Guests, limits: Limits
) -> list[tuple[str, type[SourceAnswers], dict[str, Any]]]:
    """The route of publishers that are followed for a while."""
    return [(r"/api/v1/publishers", PublishersAnswers, {"sources": all_roots, "limits": limits, "guests": guests})]
