"""``cat2sub``: a subscriber as a program of its own."""

from __future__ import annotations

import argparse
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from tornado.web import Application, RequestHandler

from ..config import SubscriberConfig, load_config
from ..errors import AccessDeniedError, ConfigError
from ..web.access import AccessPolicy, Open, RequestGuard, network_policy
from ..web.mac_answers import mac_settings
from ..web.openapi import openapi_routes
from ..web.serve import Listener, add_service_options, check_statedir, configure_logging, run_service
from ..web.service import HealthHandler, Route, ServiceHandler, make_application
from ..web.source_handlers import bind
from .account_pages import account_routes
from .login import COOKIE, Logins, login_routes
from .pages import ASSET_ROUTES, DISPLAYS_ROUTE, PAGE_ROUTES, DisplaysAnswers, PageHandler
from .routes import subscriber_routes
from .service import SubscriberService
from .user_answers import USER_ROUTE, UserAnswers
from .user_handlers import Accounts, user_routes
from .users import UserStore

__all__ = ["StandaloneSubscriber", "main", "make_app"]


log = logging.getLogger("caterva2_jupyter.subscriber")

HASHING_THREADS = 2


class AnyOf:
    """Lets in whom any of several policies lets in."""

    def __init__(self, *policies: AccessPolicy) -> None:
        self._policies = policies

    def user(self, handler: RequestHandler) -> str | None:
        denied: AccessDeniedError | None = None
        for policy in self._policies:
            try:
                user = policy.user(handler)
            except AccessDeniedError as error:
                denied = error
            else:
                if user is not None:
                    return user
        if denied is not None:
            raise denied
        return None


class OrStranger:
    """Lets in everybody: as who they are, or as strangers.

    Parameters
    ----------
    policy : AccessPolicy
    is_for_programs : bool
        Whose login has ended is told so, and not taken for a stranger who sees less: programs log in again.
    """

    def __init__(self, policy: AccessPolicy, *, is_for_programs: bool = False) -> None:
        self._policy, self._is_for_programs = policy, is_for_programs

    def user(self, handler: RequestHandler) -> str | None:
        user = self._policy.user(handler)
        if user is None and self._is_for_programs and handler.get_cookie(COOKIE):
            return None
        return user or "anonymous"


class StandaloneSubscriber:
    """A subscriber with its routes and users; ``web.serve`` runs it.

    Raises
    ------
    ConfigError
    """

    def __init__(self, config: SubscriberConfig) -> None:
        self.config = config
        check_statedir(config.statedir, f"subscriber.{config.id}" if config.id else "subscriber")
        self.service = SubscriberService(config)
        self._users: UserStore | None = None
        # Its own threads: whoever tries passwords keeps nobody from reading.
        self._hashing = ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="caterva2-hashing")

    def application(self) -> Application:
        config = self.config
        if not config.login:
            return make_app(self.service)
        if config.grants and not config.network.read_token:
            log.warning(
                "grants hide roots here, but publishers answer whoever reaches them: set CATERVA2_NETWORK_TOKEN"
            )
        self._users = UserStore(config.statedir / "db.sqlite", config.max_users)
        is_https = config.urlbase.startswith("https:") or bool(config.network.tls_cert)
        return make_app(self.service, Logins(self._users, config.secret, self._hashing, is_https=is_https))

    async def start(self, listener: Listener) -> None:
        await self.service.start(self._reachable_url(listener))

    def _reachable_url(self, listener: Listener) -> str:
        """What others call it: ``urlbase`` if that was set, else where it really listens."""
        given, own = urlsplit(self.config.urlbase), urlsplit(self.config.http.url)
        if given.netloc != own.netloc:
            return self.config.urlbase
        return listener.reachable_url + given.path

    async def stop(self) -> None:
        await self.service.stop()
        self._hashing.shutdown(wait=False, cancel_futures=True)
        if self._users is not None:
            self._users.close()


def make_app(service: SubscriberService, logins: Logins | None = None) -> Application:
    """The routes of a stand-alone subscriber, under the path of ``urlbase``, guarded as the configuration says.

    With ``logins``, who is logged in may; where a network token is set, who knows it may; otherwise everybody.
    """
    config = service.config
    prefix = urlsplit(config.urlbase).path.rstrip("/")
    routes: list[Route] = [(f"{prefix}/api/v1/health", HealthHandler, {"service": "subscriber"})]
    policy: AccessPolicy = network_policy(config.network, "read")
    if logins is not None:
        policy = AnyOf(logins, policy) if config.network.read_token else logins
        accounts = Accounts(logins, service.areas, config)
        routes += [
            *login_routes(logins, prefix),
            *user_routes(accounts, Open(), prefix),
            *account_routes(accounts, prefix),
        ]
    # Where users log in, those who did not see what permissions show to anybody.
    strangers: AccessPolicy = policy if logins is None else OrStranger(policy)
    programs: AccessPolicy = policy if logins is None else OrStranger(policy, is_for_programs=True)

    def for_all(pattern: str) -> AccessPolicy:
        # Of the older routes, clients expect that a login that has ended is none.
        return programs if pattern.startswith(("/api/v1/", "/zarr/")) else strangers

    whoever = {"sources": service.all_roots, "limits": service.limits, "policy": strangers}
    has_logins = {"can_log_in": logins is not None, "can_register": logins is not None and config.register}
    routes.append((prefix + USER_ROUTE, bind(UserAnswers, ServiceHandler), {**whoever, **has_logins}))
    routes += [
        (
            prefix + route.pattern,
            bind(route.answers, ServiceHandler),
            {**route.arguments, "policy": for_all(route.pattern) if route.for_strangers else policy},
        )
        for route in subscriber_routes(service)
    ]
    pages = {"assets": service.assets}
    routes.append((prefix + DISPLAYS_ROUTE, bind(DisplaysAnswers, ServiceHandler), {**whoever, **pages}))
    # What is in the page is no secret; where users log in, they are led there before they see it empty.
    viewers: AccessPolicy = logins if logins is not None and not config.anonymous else Open()
    routes += [
        (prefix + pattern, bind(answers, PageHandler), {**pages, "policy": viewers}) for pattern, answers in PAGE_ROUTES
    ]
    routes += [
        (prefix + pattern, bind(answers, ServiceHandler), {**pages, "policy": Open()})
        for pattern, answers in ASSET_ROUTES
    ]
    routes += openapi_routes("subscriber", routes, prefix)
    guard = RequestGuard.for_service(config.http, config.urlbase)
    return make_application(routes, guard, mac_settings(config.network))


def main(argv: list[str] | None = None) -> int:
    """Command line.

    Returns
    -------
    int
        0 after SIGINT or SIGTERM, 1 when a setting cannot be used, 2 for wrong usage.
    """
    parser = argparse.ArgumentParser(
        prog="cat2sub", description="Follow roots, cache what is read of them, and serve clients."
    )
    add_service_options(parser, "state and cache are", "subscriber")
    parser.add_argument(
        "--publisher",
        metavar="URL",
        action="append",
        default=[],
        help="a publisher to follow with no broker; may be repeated",
    )
    parser.add_argument(
        "--upstream",
        metavar="URL",
        action="append",
        default=[],
        help="another subscriber to follow roots of; may be repeated",
    )
    parser.add_argument(
        "--republish",
        metavar="ROOT",
        action="append",
        default=[],
        help="announce a followed root at the broker; may be repeated",
    )
    options = parser.parse_args(argv)
    try:
        config = load_config(options.conf).subscriber(
            ident=options.id,
            http=options.http,
            broker=options.broker,
            publishers=tuple(options.publisher),
            upstreams=tuple(options.upstream),
            republish=tuple(options.republish),
            statedir=options.statedir,
            loglevel=options.loglevel,
        )
    except ConfigError as error:
        print(f"cat2sub: {error}", file=sys.stderr)
        return 1
    configure_logging(config.loglevel)
    label = "stand-alone subscriber" if config.broker is None else f"subscriber of the broker at {config.broker}"
    return run_service("cat2sub", label, config.http, config.network, lambda: StandaloneSubscriber(config))


if __name__ == "__main__":
    sys.exit(main())
