"""The subscriber inside a Jupyter server: its settings, its life, and Jupyter's guard around every route.

Who somebody is and what they may do is Jupyter's to say (kernels on this machine have a token of their own, which
opens nothing else). What is missing or wrong never harms the server: it is said in one line, and every
route answers with that line.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jupyter_core.paths import jupyter_data_dir
from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import allow_unauthenticated, authorized, ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.extension.handler import ExtensionHandlerMixin
from jupyter_server.serverapp import ServerApp
from platformdirs import user_cache_path
from tornado import web
from tornado.websocket import WebSocketHandler
from traitlets import List, Unicode

from ..config import Address, SubscriberConfig, load_config, parse_nbytes
from ..errors import ConfigError, SourceUnavailableError
from ..web.access import bearer_token
from ..web.openapi import openapi_routes
from ..web.service import JsonAnswers
from ..web.source_handlers import SourceAnswers, bind, is_socket
from .connection_file import ConnectionFile
from .jupyter_owner import ServerOwner

if TYPE_CHECKING:
    from .service import SubscriberService

__all__ = ["SubscriberApp"]

PREFIX = "/caterva2"
RESOURCE = "caterva2"

Verb = Callable[..., Any]


class _Guarded(ExtensionHandlerMixin, JupyterHandler):
    """Lets in whom Jupyter lets in, and this server's kernels by their token."""

    auth_resource = RESOURCE

    async def prepare(self, *args: Any, **kwargs: Any) -> None:
        token = bearer_token(self.request)
        if token is None or not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._kernel_token()):
            await super().prepare(*args, **kwargs)
            self._owner.note(self.current_user)
            return
        if not self.check_host():
            raise web.HTTPError(403)
        self.current_user = self._jupyter_current_user = self._owner.kernel_user()
        # As for Jupyter's own token: a page of another site cannot send it, so origins do not matter.
        self._token_authenticated = True

    @property
    def _owner(self) -> ServerOwner:
        owner = self.settings["caterva2_owner"]
        assert isinstance(owner, ServerOwner)
        return owner

    def _kernel_token(self) -> bytes:
        return str(self.settings["caterva2_kernel_token"]).encode()


class _Base(_Guarded, APIHandler):
    async def check_authorized(self, action: str) -> None:
        """What a verb's guard asks, for bodies that are stored before the verb is called."""
        if self.current_user is None:
            raise web.HTTPError(403)
        allowed = await ensure_async(self.authorizer.is_authorized(self, self.current_user, action, RESOURCE))
        if not allowed:
            raise web.HTTPError(403)

    def finish(self, *args: Any, **kwargs: Any) -> Any:
        # APIHandler would make everything application/json.
        kwargs.setdefault("set_content_type", self._headers.get("Content-Type", "application/json"))
        return super().finish(*args, **kwargs)


class _Socket(_Guarded, WebSocketMixin, WebSocketHandler, JupyterHandler):
    pass


class _Page(_Guarded):
    """The page, to which those who are not logged in come by Jupyter's own login."""


class _Health(JsonAnswers, _Base):
    _track_activity = False  # a probe must not keep an idle server alive

    def initialize(self, name: str, status: str) -> None:
        self._status = status
        super().initialize(name=name)

    @allow_unauthenticated
    async def get(self) -> None:
        self.write_json({"status": self._status, "service": "subscriber"})


class _Refusing(JsonAnswers, _Base):
    """Every route of a subscriber that cannot run, or all that one does not have."""

    def initialize(self, name: str, error: Callable[[], Exception]) -> None:
        self._error = error
        super().initialize(name=name)

    @web.authenticated
    @authorized(action="read", resource=RESOURCE)  # type: ignore[untyped-decorator]
    async def get(self, *args: str) -> None:
        raise self._error()

    @web.authenticated
    @authorized(action="write", resource=RESOURCE)  # type: ignore[untyped-decorator]
    async def post(self, *args: str) -> None:
        raise self._error()

    @web.authenticated
    @authorized(action="write", resource=RESOURCE)  # type: ignore[untyped-decorator]
    async def put(self, *args: str) -> None:
        raise self._error()

    @web.authenticated
    @authorized(action="write", resource=RESOURCE)  # type: ignore[untyped-decorator]
    async def delete(self, *args: str) -> None:
        raise self._error()


def _guard(answers: type[SourceAnswers]) -> Callable[[Verb], Verb]:
    """Jupyter's decorators for a verb, made anew for each: ``authorized`` keeps the first resource it sees."""

    def guard(verb: Verb) -> Verb:
        action = "write" if answers.changes_state or verb.__name__ in ("put", "delete") else "read"
        allowed: Verb = authorized(action=action, resource=RESOURCE)(verb)
        return ws_authenticated(allowed) if is_socket(answers) else web.authenticated(allowed)

    return guard


def _reading(verb: Verb) -> Verb:
    allowed: Verb = authorized(action="read", resource=RESOURCE)(verb)
    return web.authenticated(allowed)


def _bind_to_read(answers: type[JsonAnswers]) -> type[web.RequestHandler]:
    return bind(answers, _Base, _reading)


class SubscriberApp(ExtensionApp):
    """The subscriber as a Jupyter server extension."""

    name = "caterva2_jupyter"
    description = "Follow roots of remote arrays, cache what is read of them, and serve kernels and pages."
    extension_url = f"{PREFIX}/api/v1/health"
    load_other_extensions = True

    conf = Unicode("", help="A caterva2.toml; by default the one in the current directory, if there is one.").tag(
        config=True
    )
    broker = Unicode("", help="Where the broker listens: host:port or the path of a unix socket.").tag(config=True)
    publishers = List(Unicode(), help="URLs of publishers to follow with no broker.").tag(config=True)
    upstreams = List(Unicode(), help="URLs of other subscribers to follow roots of.").tag(config=True)
    follow = List(Unicode(), help="Roots to follow from the start.").tag(config=True)
    cachedir = Unicode("", help="Where blocks are cached; by default in the user's cache directory.").tag(config=True)
    cachequota = Unicode("", help="Bytes that cached blocks may take, such as 500M; 10G by default.").tag(config=True)

    service: SubscriberService | None = None

    def initialize_settings(self) -> None:
        self._problem = ""
        assert self.serverapp is not None
        self._connection_file = ConnectionFile(Path(self.serverapp.runtime_dir))
        self.settings["caterva2_kernel_token"] = self._connection_file.token
        self.settings["caterva2_owner"] = ServerOwner(os.environ)
        try:
            from .service import SubscriberService

            self.service = SubscriberService(self.make_config())
        except ConfigError as error:
            self._problem = f"the subscriber is not running: {error}"
        except ImportError as error:
            self._problem = (
                f"the subscriber is not running: it needs {error.name}; "
                "run pip install 'caterva2-jupyter[lab]' in the environment that runs Jupyter"
            )
        if self._problem:
            self.log.error(self._problem)

    def make_config(self) -> SubscriberConfig:
        """Settings by precedence: traits, environment, file; what Jupyter itself decides is not asked for.

        Raises
        ------
        ConfigError
        """
        # Logins are Jupyter's business: no secret is needed, whatever a file for cat2sub says.
        environ = {**os.environ, "CATERVA2_SECRET": "not used"}
        file = load_config(self.conf or None, environ)
        settings = file.subscriber(
            http="localhost:8002",
            # No file is no broker here: nobody may wait for one who never heard of it.
            broker=self.broker or (None if file.has_file else ""),
            publishers=tuple(self.publishers),
            upstreams=tuple(self.upstreams),
            statedir=str(Path(jupyter_data_dir()) / "caterva2"),
        )
        if settings.republish:
            # Other services have network tokens, and Jupyter lets in by its own.
            self.log.warning("no root is republished from inside Jupyter: run cat2sub for that")
        # A directory that the file names is meant for cat2sub as well; "beside its state" is not for Jupyter.
        default = settings.statedir / "cache"
        cachedir = settings.cachedir if settings.cachedir != default else user_cache_path("caterva2-jupyter")
        return replace(
            settings,
            cachedir=Path(self.cachedir).expanduser() if self.cachedir else cachedir,
            cache_quota_nbytes=parse_nbytes(self.cachequota) if self.cachequota else settings.cache_quota_nbytes,
            follow=tuple(self.follow) or settings.follow,
            republish=(),
        )

    def initialize_handlers(self) -> None:
        health = {"status": "unavailable" if self._problem else "ok"}
        self.handlers.append((rf"{PREFIX}/api/v1/health", _Health, health))
        if self.service is None:
            problem = {"error": lambda: SourceUnavailableError(self._problem)}
            self.handlers.append((rf"{PREFIX}/(.*)", _Refusing, problem))
            return
        from .routes import subscriber_routes

        for route in subscriber_routes(self.service):
            base = _Socket if is_socket(route.answers) else _Base
            bound = bind(route.answers, base, _guard(route.answers))
            self.handlers.append((PREFIX + route.pattern, bound, route.arguments))
        self._add_pages(self.service)
        self.handlers += openapi_routes("subscriber", self.handlers, PREFIX, _bind_to_read, {})
        # Jupyter would redirect what ends with a slash, as some of the older routes do: here they are not there.
        self.handlers.append((rf"{PREFIX}/(.*)", _Refusing, {"error": lambda: web.HTTPError(404)}))

    def _add_pages(self, service: SubscriberService) -> None:
        from .pages import ASSET_ROUTES, DISPLAYS_ROUTE, PAGE_ROUTES, DisplaysAnswers
        from .user_answers import USER_ROUTE, UserAnswers

        pages = {"assets": service.assets}
        sources = {"sources": service.all_roots, "limits": service.limits}
        arguments = {**sources, **pages}
        user = {**sources, "can_log_in": False, "can_register": False}
        self.handlers.append((PREFIX + USER_ROUTE, bind(UserAnswers, _Base, _guard(UserAnswers)), user))
        self.handlers.append(
            (PREFIX + DISPLAYS_ROUTE, bind(DisplaysAnswers, _Base, _guard(DisplaysAnswers)), arguments)
        )
        for pattern, page in PAGE_ROUTES:
            self.handlers.append((PREFIX + pattern, bind(page, _Page, _reading), pages))
        # As Jupyter's own static files: the same for everybody, and asked for by imports, which carry no token.
        for pattern, asset in ASSET_ROUTES:
            self.handlers.append((PREFIX + pattern, bind(asset, _Page, allow_unauthenticated), pages))

    async def _start_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        if self.service is None:
            return
        await self.service.subscriber.run(_make_cache_private, self.service.config.cachedir)
        await self.service.start()
        try:
            self._connection_file.write(self._local_url(serverapp))
        except OSError as error:
            self.log.warning("kernels have to be told where the subscriber is (set CATERVA2_URL): %s", error)

    def _local_url(self, serverapp: ServerApp) -> str:
        """Where kernels on this machine reach the subscriber."""
        base = serverapp.base_url.rstrip("/") + PREFIX
        if serverapp.sock:
            return Address(socket_path=serverapp.sock).url + base
        everywhere = serverapp.ip in ("", "*", "0.0.0.0", "::")  # noqa: S104
        parts = urlsplit(serverapp.local_url if everywhere else serverapp.connection_url)
        return f"{parts.scheme}://{parts.netloc}{base}"

    async def stop_extension(self) -> None:
        self._connection_file.remove()
        if self.service is not None:
            await self.service.stop()


def _make_cache_private(cachedir: Path) -> None:
    """The user's cache directory is ours alone; one that was chosen may hold other things."""
    if cachedir != user_cache_path("caterva2-jupyter"):
        return
    from ..storage.cache_directory import make_private

    try:
        make_private(cachedir)
    except OSError:
        return  # the cache says why it cannot be used


main = launch_new_instance = SubscriberApp.launch_instance
