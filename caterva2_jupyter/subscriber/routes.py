"""All routes of a subscriber's data: patterns, what answers them, what that needs, and whether strangers may ask.

Stand-alone and in Jupyter they are the same; what is around them (health, logins, pages) is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..web.source_handlers import AnnounceAnswers, PlainFileAnswers, SourceAnswers
from ..web.source_routes import ANNOUNCE_ROUTE, SOURCE_ROUTES
from .area_handlers import area_routes
from .cache_access import CACHE_ACCESS_ROUTES
from .cache_handlers import CACHE_ROUTES
from .guests import guest_routes
from .handlers import FOLLOW_ROUTE, OLD_ROUTES, FollowAnswers
from .overview_handlers import overview_routes
from .service import SubscriberService
from .values_handlers import values_routes
from .zarr_handlers import zarr_routes

__all__ = ["SubscriberRoute", "subscriber_routes"]


@dataclass(frozen=True, slots=True)
class SubscriberRoute:
    """A route below the prefix of the service.

    Attributes
    ----------
    pattern : str
    answers : type
        To be bound to a base and a guard.
    arguments : dict
    for_strangers : bool
        It asks ``SeenRoots`` for all that it tells: those who are not logged in may have what that shows them.
    """

    pattern: str
    answers: type[SourceAnswers]
    arguments: dict[str, Any] = field(repr=False)
    for_strangers: bool = False


def subscriber_routes(service: SubscriberService) -> list[SubscriberRoute]:
    """The routes of a service."""
    sources: dict[str, Any] = {"sources": service.all_roots, "limits": service.limits}
    decoded = [
        *values_routes(service.compute),
        *overview_routes(service.compute),
        *zarr_routes(service.subscriber.run, service.compute),
    ]
    for_strangers = [
        # Areas have more verbs for plain files.
        *((pattern, answers, sources) for pattern, answers in SOURCE_ROUTES if answers is not PlainFileAnswers),
        *((pattern, answers, {**sources, **needed}) for pattern, answers, needed in decoded),
        *((pattern, answers, {**sources, "frames": service.frames}) for pattern, answers in OLD_ROUTES),
        *area_routes(service.all_roots, service.frames, service.limits),
    ]
    for_users = [
        (ANNOUNCE_ROUTE, AnnounceAnswers, {**sources, "announcer": service.subscriber}),
        (FOLLOW_ROUTE, FollowAnswers, sources),
        *((pattern, answers, {**sources, "access": service.cache_access}) for pattern, answers in CACHE_ACCESS_ROUTES),
        *((pattern, answers, {**sources, "keeper": service.cache_keeper}) for pattern, answers in CACHE_ROUTES),
        *guest_routes(service.all_roots, service.guests, service.limits),
    ]
    return [
        *(SubscriberRoute(*route, for_strangers=True) for route in for_strangers),
        *(SubscriberRoute(*route) for route in for_users),
    ]
