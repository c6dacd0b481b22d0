"""REST over the cache of a subscriber, under ``api/v1/cache``; bound where it is mounted.

What takes long answers line by line (``application/x-ndjson``), the last line with ``"done": true``, or with an
error. Where the cache is, and who reads its files, is told by ``cache_access``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

from tornado.iostream import StreamClosedError

from ..core.paths import name as last_name
from ..core.paths import split_address
from ..errors import AccessDeniedError, Caterva2Error, RequestError, TooLargeError, error_to_json
from ..web.source_handlers import MAX_READ_REQUEST_NBYTES, PIECE_NBYTES, SourceAnswers, attachment
from .cache_keeper import CacheKeeper
from .seen_roots import SeenRoots

__all__ = ["CACHE_ROUTES"]

LINES_TYPE = "application/x-ndjson"

log = logging.getLogger("caterva2_jupyter.subscriber")


class CacheAnswers(SourceAnswers):
    """Base of all answers about the cache."""

    def initialize(self, keeper: CacheKeeper, **kwargs: Any) -> None:  # type: ignore[override]
        self.keeper = keeper
        super().initialize(**kwargs)

    @property
    def seen(self) -> SeenRoots:
        """The roots as whoever sent the request sees them: what is kept of others is not told or touched."""
        seen = self.sources
        assert isinstance(seen, SeenRoots)
        return seen

    def managed_path(self, *, needs_one: bool = False) -> tuple[str, str]:
        """As ``asked_path``, of what may be managed for all.

        Raises
        ------
        AccessDeniedError, RootNotFoundError
        """
        root, path = self.asked_path(needs_one=needs_one)
        if root:
            self.seen.check_manager(root)
        elif not self.seen.permissions.manages_all(self.seen.visitor):
            raise AccessDeniedError("that would concern roots that you may not manage: name one")
        return root, path

    def asked_path(self, *, needs_one: bool = False) -> tuple[str, str]:
        """Root and path that the body names; two empty texts for all that there is."""
        path = self.json_body().get("path", "")
        if not isinstance(path, str) or (needs_one and not path):
            raise RequestError('the body names a path: {"path": "ROOT/PATH"}')
        root, below = split_address(path) if path else ("", "")
        if root:
            self.seen.check(root)
        return root, below

    def asked_read(self) -> tuple[str, str, str | None, Any]:
        """Root, path, version and selection that the body names."""
        if len(self.request.body) > MAX_READ_REQUEST_NBYTES:
            raise TooLargeError(f"a request has at most {MAX_READ_REQUEST_NBYTES} bytes: ask for fewer positions")
        form = self.json_body()
        root, path = self.asked_path(needs_one=True)
        version = form.get("version")
        if not (version is None or isinstance(version, str)):
            raise RequestError("a version is a text")
        return root, path, version, form.get("selection")


class LinesAnswers(CacheAnswers):
    """Base of answers that come line by line."""

    changes_state = True
    _telling: asyncio.Future[None] | None = None

    def on_connection_close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        super().on_connection_close()

    async def write_lines(self, forms: AsyncIterator[dict[str, Any]]) -> None:
        """Write each as it comes; given up when the client goes."""
        with self.limits.reads.hold(self.client_key()):
            self._telling = asyncio.ensure_future(self._tell(forms))
            try:
                await self._telling
            except StreamClosedError:
                log.debug("the client of a long answer went away")
            except asyncio.CancelledError:
                if not self.request.connection.stream.closed():  # type: ignore[union-attr]
                    self._telling.cancel()
                    raise

    async def _tell(self, forms: AsyncIterator[dict[str, Any]]) -> None:
        first = await anext(forms, None)  # what cannot be begun is an HTTP error
        self.set_header("Content-Type", LINES_TYPE)
        self.set_header("Cache-Control", "no-store")
        try:
            if first is not None:
                await self._write_line(first)
            async for form in forms:
                await self._write_line(form)
        except Caterva2Error as error:
            await self._write_line({**error_to_json(error), "status": error.status})

    async def _write_line(self, form: dict[str, Any]) -> None:
        self.write(json.dumps(form, separators=(",", ":")) + "\n")
        await self.flush()


class StatusAnswers(CacheAnswers):
    """``GET cache?path=[ROOT[/PATH]]``: what is kept."""

    async def answer_get(self) -> None:
        path = self.query_texts().get("path", "")
        root, below = split_address(path) if path else ("", "")
        if root:
            self.seen.check(root)
        form = await self.keeper.status(root, below)
        if not self.seen.permissions.sees_all(self.seen.visitor):
            form = await asyncio.get_running_loop().run_in_executor(None, self._seen_part, form)
        await self.write_pieces(json.dumps(form, separators=(",", ":")).encode())

    def _seen_part(self, form: dict[str, Any]) -> dict[str, Any]:
        """Of a status, what concerns the roots that the visitor sees."""
        datasets = [kept for kept in form["datasets"] if self.seen.sees(kept["path"].partition("/")[0])]
        pins = [pin for pin in form["pins"] if self.seen.sees(pin.partition("/")[0])]
        usage = sum(kept["nbytes"] for kept in datasets)
        return {**_without_totals(form, usage), "pins": pins, "datasets": datasets}


class SummaryAnswers(CacheAnswers):
    """``GET cache/summary``: the running state, in an answer whose size goes with the number of roots."""

    async def answer_get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        form = await self.keeper.summary.status()
        if not self.seen.permissions.sees_all(self.seen.visitor):
            form["roots"] = [root for root in form["roots"] if self.seen.sees(root["root"])]
            form = _without_totals(form, sum(root["kept_nbytes"] for root in form["roots"]))
            form["reads"] = dict.fromkeys(form["reads"], 0)
        await self.write_pieces(json.dumps(form, separators=(",", ":")).encode())


def _without_totals(form: dict[str, Any], usage_nbytes: int) -> dict[str, Any]:
    """What is told of the whole cache, without what tells of roots that a visitor does not see."""
    counters = dict.fromkeys(form["counters"], 0)
    return {**form, "directory": "", "usage_nbytes": usage_nbytes, "counters": counters}


class EstimateAnswers(CacheAnswers):
    """``POST cache/estimate`` with ``{"path", "version", "selection"}``: what a read would cost."""

    async def answer_post(self) -> None:
        self.write_json(await self.keeper.estimate(*self.asked_read()))


class PrefetchAnswers(LinesAnswers):
    """``POST cache/prefetch`` with ``{"path", "version", "selection"}``: fetch what is not kept yet."""

    async def answer_post(self) -> None:
        await self.write_lines(self.keeper.prefetch(*self.asked_read()))


class VerifyAnswers(LinesAnswers):
    """``POST cache/verify`` with ``{"path"}``: check all checksums, drop what fails."""

    async def answer_post(self) -> None:
        await self.write_lines(self.keeper.verify(*self.managed_path()))


class ClearAnswers(CacheAnswers):
    """``POST cache/clear`` with ``{"path"}``: forget what is kept."""

    changes_state = True

    async def answer_post(self) -> None:
        if "path" not in self.json_body():
            raise RequestError('the body names what to clear: {"path": ""} for everything')
        self.write_json(await self.keeper.clear(*self.managed_path()))


class PinAnswers(CacheAnswers):
    """``POST cache/pin`` with ``{"path"}``: let it stay."""

    changes_state = True

    async def answer_post(self) -> None:
        self.write_json(await self.keeper.pin(*self.managed_path(needs_one=True)))


class UnpinAnswers(CacheAnswers):
    """``POST cache/unpin`` with ``{"path"}``: let it go in its turn."""

    changes_state = True

    async def answer_post(self) -> None:
        self.write_json(await self.keeper.unpin(*self.managed_path(needs_one=True)))


class SealedAnswers(CacheAnswers):
    """``GET cache/sealed?path=ROOT/PATH&version=``: what is kept as a ``.b2nd``, if it is complete."""

    async def answer_get(self) -> None:
        root, path = split_address(self.required_query_text("path"))
        self.seen.check(root)
        version = self.query_texts().get("version") or None
        with self.limits.reads.hold(self.client_key()):
            fd = await self.keeper.seal(root, path, version)
            try:
                await self._send(fd, last_name(path).removesuffix(".b2nd") + ".b2nd")
            except StreamClosedError:
                log.debug("the client of a sealed file went away")
            finally:
                await self.keeper.close_file(fd)

    async def _send(self, fd: int, filename: str) -> None:
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Disposition", attachment(filename))
        self.set_header("Content-Length", str(os.fstat(fd).st_size))
        position = 0
        while part := await self.keeper.read_part(fd, PIECE_NBYTES, position):
            self.write(part)
            await self.flush()
            position += len(part)


CACHE_ROUTES: tuple[tuple[str, type[SourceAnswers]], ...] = (
    (r"/api/v1/cache", StatusAnswers),
    (r"/api/v1/cache/summary", SummaryAnswers),
    (r"/api/v1/cache/estimate", EstimateAnswers),
    (r"/api/v1/cache/prefetch", PrefetchAnswers),
    (r"/api/v1/cache/verify", VerifyAnswers),
    (r"/api/v1/cache/clear", ClearAnswers),
    (r"/api/v1/cache/pin", PinAnswers),
    (r"/api/v1/cache/unpin", UnpinAnswers),
    (r"/api/v1/cache/sealed", SealedAnswers),
)
