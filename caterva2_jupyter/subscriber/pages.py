"""What browsers load from a subscriber: the page, the viewer, the modules of displays.

All of it is our own code, or that of installed plugins, the same for everybody; what publishers made comes by REST
and never as a page. Files are named with the digest of their content and then never change.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..core.paths import split_address
from ..errors import NotFoundError
from ..web.access import RequestGuard
from ..web.service import JsonAnswers, ServiceHandler, etag_matches
from ..web.source_handlers import SourceAnswers
from .displays import STATIC, DisplayPlugin, Displays

__all__ = [
    "ASSET_ROUTES",
    "DISPLAYS_ROUTE",
    "PAGE_POLICY",
    "PAGE_ROUTES",
    "AssetAnswers",
    "Assets",
    "DisplaysAnswers",
    "ModuleAnswers",
    "OldPageAnswers",
    "PageAnswers",
    "PageHandler",
]

log = logging.getLogger("caterva2_jupyter.subscriber")

# Scripts come from here alone. H5Web compiles its loops over arrays (`new Function`) and styles single elements.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
DISPLAYS_ROUTE = r"/api/v1/displays"
NOT_BUILT = "the front end is not built: run make assets, or install a released package"


@dataclass
class Asset:
    """A file that browsers load, as it is sent."""

    body: bytes
    media_type: str
    digest: str = field(init=False)
    _packed: bytes | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.digest = hashlib.blake2b(self.body, digest_size=12).hexdigest()

    def packed(self) -> bytes:
        """Compressed; made once."""
        if self._packed is None:
            self._packed = gzip.compress(self.body, 6, mtime=0)
        return self._packed


class Assets:
    """Built files, read when they are first asked for and again when they have changed.

    Parameters
    ----------
    displays : Displays
    directory : Path
        Where the build is.
    """

    def __init__(self, displays: Displays, directory: Path = STATIC) -> None:
        self.displays = displays
        self._directory = directory
        self._read: dict[Path, tuple[tuple[int, int], Asset]] = {}

    def get(self, name: str) -> Asset:
        """The asset of a file of the build.

        Raises
        ------
        NotFoundError
        """
        # No path is made of what came from outside: it has to be the name of a file that is there.
        for path in sorted(self._directory.glob("*")):
            if path.name == name and path.suffix in _TYPES:
                return self._asset(path)
        raise NotFoundError(f"no file {name[:100]!r} here" if self._directory.is_dir() else NOT_BUILT)

    def module(self, name: str) -> Asset:
        """The module of a display.

        Raises
        ------
        NotFoundError
        """
        plugin = self.displays.get(name)
        if plugin is None:
            raise NotFoundError(f"no display {name[:100]!r}")
        return self._asset(plugin.module)

    def page(self) -> bytes:
        """The page, which names everything that it loads by digest.

        Raises
        ------
        NotFoundError
            When nothing was built.
        """
        try:
            text = (self._directory / "index.html").read_text(encoding="utf-8")
        except OSError:
            raise NotFoundError(NOT_BUILT) from None
        for name in ("page.js", "page.css", "viewer.js"):
            text = text.replace(f"static/{name}", self.url(name))
        return text.encode()

    def url(self, name: str) -> str:
        """Where a file of the build is, relative to the service's base."""
        return f"static/{name}?v={self.get(name).digest}"

    def module_url(self, name: str) -> str:
        return f"displays/{name}.js?v={self.module(name).digest}"

    def listing(self, displays: Sequence[DisplayPlugin]) -> dict[str, Any]:
        """Displays with the URLs of their modules, and the viewer's."""
        found: list[dict[str, str]] = []
        for display in displays:
            try:
                url = self.module_url(display.name)
            except NotFoundError as error:
                log.warning("display plugin %s is left out: %s", display.name, error)
            else:
                found.append({"name": display.name, "title": display.title, "module": url})
        return {"displays": found, "viewer": self.url("viewer.js")}

    def _asset(self, path: Path) -> Asset:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            known = self._read.get(path)
            if known is None or known[0] != stamp:
                known = (stamp, Asset(path.read_bytes(), _TYPES.get(path.suffix, _TYPES[".js"])))
                self._read[path] = known
        except OSError:
            raise NotFoundError(f"the file {path.name!r} cannot be read") from None
        return known[1]


class _PageAnswers(JsonAnswers):
    def initialize(self, assets: Assets, **kwargs: Any) -> None:
        self.assets = assets
        super().initialize(**kwargs)

    async def off_loop(self, work: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)

    async def send(self, find: Callable[..., Asset], *arguments: object) -> None:
        asset: Asset = await self.off_loop(find, *arguments)
        etag = f'"{asset.digest}"'
        is_named = self.query_texts().get("v") == asset.digest
        self.set_header("Cache-Control", "public, max-age=31536000, immutable" if is_named else "no-cache")
        self.set_header("ETag", etag)
        self.set_header("Vary", "Accept-Encoding")
        self.set_header("Content-Type", asset.media_type)
        self.set_header("X-Content-Type-Options", "nosniff")
        if etag_matches(self.request.headers.get("If-None-Match"), etag):
            self.set_status(304)
        elif "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
            self.write(await self.off_loop(asset.packed))
        else:
            self.write(asset.body)


class PageAnswers(_PageAnswers):
    """``GET {base}/``: the page."""

    async def answer_get(self) -> None:
        if not self.request.path.endswith("/"):
            self.redirect(f"{self.request.path}/")  # what the page loads is relative to it
            return
        body = await self.off_loop(self.assets.page)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", PAGE_POLICY)
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")
        self.write(body)


class OldPageAnswers(_PageAnswers):
    """``GET roots/PATH``, the page's addresses in the older system: on to ours."""

    async def answer_get(self, address: str) -> None:
        base = self.request.path.split("/roots/", 1)[0]
        self.redirect(f"{base}/#/{quote(address)}")


class AssetAnswers(_PageAnswers):
    """``GET static/NAME``."""

    async def answer_get(self, name: str) -> None:
        await self.send(self.assets.get, name)


class ModuleAnswers(_PageAnswers):
    """``GET displays/NAME.js``."""

    async def answer_get(self, name: str) -> None:
        await self.send(self.assets.module, name)


class DisplaysAnswers(SourceAnswers):
    """``GET api/v1/displays[?path=ROOT/PATH]``: all displays, or those that show a dataset, and the viewer's URL."""

    def initialize(self, assets: Assets, **kwargs: Any) -> None:  # type: ignore[override]
        self.assets = assets
        super().initialize(**kwargs)

    async def answer_get(self) -> None:
        address = self.query_texts().get("path")
        displays = self.assets.displays
        found = list(displays)
        if address is not None:
            root, path = split_address(address)
            entry = await self.source_of(root).entry(path)
            found = displays.matching({"root": root, **entry.to_json()})
        loop = asyncio.get_running_loop()
        self.write_json(await loop.run_in_executor(None, self.assets.listing, found))


class PageHandler(ServiceHandler):
    """The page of a stand-alone service: who is not logged in goes where one logs in."""

    def prepare(self) -> None:
        guard: RequestGuard = self.settings["request_guard"]
        guard.check(self.request, changes_state=False)
        if self.current_user is None:
            base = self.request.path.split("/roots/", 1)[0].rstrip("/")
            self.redirect(f"{base}/login?next={quote(self.request.path)}")


PAGE_ROUTES: tuple[tuple[str, type[_PageAnswers]], ...] = (
    (r"/?", PageAnswers),
    (r"/roots/(.*)", OldPageAnswers),
)
ASSET_ROUTES: tuple[tuple[str, type[_PageAnswers]], ...] = (
    (r"/static/([^/]+)", AssetAnswers),
    (r"/displays/([^/]+)\.js", ModuleAnswers),
)
