"""REST v1 over any source, under ``{base}/api/v1``: the same code for Tornado's handlers and for Jupyter's.

Each class here *answers* verbs: it has ``answer_get``, ``answer_post``... but no ``get`` or ``post``, so that it
serves nothing until `bind` gives it a base and a guard for every verb.

Stand-alone, the base is `ServiceHandler`, which asks the route's policy before anything else::

    routes = [
        (prefix + pattern, bind(answers, ServiceHandler), {"sources": sources, "limits": limits, "policy": policy})
        for pattern, answers in SOURCE_ROUTES
    ]

Inside Jupyter, the base is Jupyter's and the guard puts its decorators around every verb, anew for each (Jupyter's
``authorized`` keeps the first resource it sees)::

    class _Base(ExtensionHandlerMixin, APIHandler):
        def finish(self, *args, **kwargs):  # APIHandler would make everything application/json
            kwargs.setdefault("set_content_type", self._headers.get("Content-Type", "application/json"))
            return super().finish(*args, **kwargs)

    class _Socket(ExtensionHandlerMixin, WebSocketMixin, WebSocketHandler, JupyterHandler): ...

    def guard(verb):        # one of {"get": "read", "head": "read", "post": ...} is in verb.__name__
        return web.authenticated(authorized(verb, action="read", resource="caterva2"))

    kwargs = {"sources": sources, "limits": limits}
    handlers = [
        (pattern, bind(answers, _Socket if is_socket(answers) else _Base, guard), kwargs)
        for pattern, answers in SOURCE_ROUTES
    ]

(for sockets the guard is ``ws_authenticated`` with ``authorized`` inside). ``POST read`` reads, whatever its verb says.
``limits`` is one `Limits` for all of a service's routes.
Nothing here decodes blocks or reads files: that is the source's, which does it elsewhere than on the event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, cast, runtime_checkable
from urllib.parse import quote

from tornado.http1connection import HTTP1Connection
from tornado.httputil import format_timestamp
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from ..core.catalog import CatalogPage, CatalogQuery
from ..core.metadata import Entry
from ..core.paths import name as last_name
from ..core.paths import parse_path, parse_root_name, split_address
from ..core.source import Source
from ..errors import (
    Caterva2Error,
    DatasetChangedError,
)
from ..storage.closing import close_stream
from .byte_range import UnsatisfiableRange, first_guess, parse_byte_range
from .caps import ClientCap
from .service import JsonAnswers, ServiceHandler, etag_matches, strong_etag

__all__ = [
    "AnnounceAnswers",
    "Announcer",
    "CatalogAnswers",
    "ChangingDirectory",
    "FileAnswers",
    "IdLookup",
    "Limits",
    "MetaAnswers",
    "PlainFileAnswers",
    "RootsAnswers",
    "SourceAnswers",
    "SourceDirectory",
    "StatusDirectory",
    "StoredAnswers",
    "VisitedDirectory",
    "attachment",
    "bind",
    "is_socket",
]

log = logging.getLogger("caterva2_jupyter.web")

PIECE_NBYTES = 256 << 10
READS_AHEAD = 16  # of several in one request, each with at most a piece of it in memory
YEAR_S = 365 * 24 * 3600
MAX_READ_REQUEST_NBYTES = 16 << 20
MIN_GZIP_NBYTES = 1400
MIN_UNCOPIED_NBYTES = 16 << 10
STALLED_S = 60.0
"""A client that takes less than ``PIECE_NBYTES`` of an answer in that time gives its place to others."""

R = TypeVar("R")
Part = bytes | bytearray | memoryview
Encoded = tuple[bytes, Part]
ASKER_HEADER = "Caterva2-Subscriber"


class SourceDirectory(Protocol):
    """The roots that a service serves."""

    async def roots(self) -> list[dict[str, Any]]:
        """What is known of each root: at least ``name``; ``http``, ``online``, ``epoch``, ``seq``..."""
        ...

    def source(self, root: str) -> Source:
        """The source of a root.

        Raises
        ------
        RootNotFoundError
        """
        ...


@runtime_checkable
class VisitedDirectory(Protocol):
    """Roots that not everybody sees."""

    def seen_by(self, user: object) -> SourceDirectory:
        """The roots as a handler's ``current_user`` sees them."""
        ...


@runtime_checkable
class StatusDirectory(Protocol):
    """A directory whose roots can be away; told to those who listen to events."""

    def status(self, root: str) -> AsyncIterator[bool]:
        """Is the root online: now, and again at each change, without end."""
        ...


@runtime_checkable
class ChangingDirectory(Protocol):
    """A directory whose roots come and go; told to those who listen to no root in particular."""

    def changes(self) -> AsyncIterator[None]:
        """It may be time to look at ``roots``: now, and again at each change and every few seconds, without end."""
        ...


@runtime_checkable
class IdLookup(Protocol):
    """A source that finds its datasets by their ids."""

    async def entries_with_id(self, dataset_id: str) -> list[Entry]:
        """The entries of an id; several where links share their target's."""
        ...


@runtime_checkable
class LoopGuard(Protocol):
    """A directory whose roots come from services that may read from this one in turn."""

    def check_asker(self, root: str, asker: str) -> None:
        """Refuse a subscriber (``Caterva2-Subscriber``) that the root comes from.

        Raises
        ------
        SourceUnavailableError
        """
        ...


@runtime_checkable
class Announcer(Protocol):
    """A service that can be told of a change that its file system does not tell."""

    async def announce(self, root: str, path: str) -> None:
        """Look at ``path`` (and below) again; returns when listeners have been told.

        Raises
        ------
        RootNotFoundError, DatasetNotFoundError
        """
        ...


@dataclass(frozen=True)
class Limits:
    """Caps of one service, per kind of request."""

    events: ClientCap = field(default_factory=lambda: ClientCap("listeners", 128, 20_000))
    reads: ClientCap = field(default_factory=lambda: ClientCap("reads", 256, 4_000))
    reductions: ClientCap = field(default_factory=lambda: ClientCap("reductions", 16, 400))


class SourceAnswers(JsonAnswers):
    """Base of all answers about sources."""

    changes_state: ClassVar[bool] = False

    def initialize(self, sources: SourceDirectory | VisitedDirectory, limits: Limits, **kwargs: Any) -> None:
        self._directory = sources
        self._seen: SourceDirectory | None = None
        self.limits = limits
        super().initialize(**kwargs)

    @property
    def sources(self) -> SourceDirectory:
        """The roots, as whoever sent the request sees them."""
        if self._seen is None:
            directory = self._directory
            # ``isinstance`` of a protocol looks at all that it has, each time.
            if hasattr(directory, "seen_by"):
                directory = cast("VisitedDirectory", directory).seen_by(self.current_user)
            self._seen = directory
        return self._seen

    def source_of(self, root: str) -> Source:
        name = parse_root_name(root)
        asker = self.request.headers.get(ASKER_HEADER)
        if asker and (check_asker := getattr(self.sources, "check_asker", None)) is not None:
            check_asker(name, asker)
        return self.sources.source(name)

    def not_modified(self, etag: str) -> bool:
        """Send the ETag; 304 when the client has that already."""
        self.set_header("ETag", etag)
        if not etag_matches(self.request.headers.get("If-None-Match"), etag):
            return False
        self.set_status(304)
        return True

    _working: asyncio.Future[None] | None = None

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Do some work, which is cancelled when the client goes, wherever it waits."""
        self._working = asyncio.ensure_future(work)
        try:
            await self._working
        except StreamClosedError:
            log.debug("the client of %s went away", self.request.path)
        except asyncio.CancelledError:
            if not self.request.connection.stream.closed():  # type: ignore[union-attr]
                self._working.cancel()
                raise

    def on_connection_close(self) -> None:
        if self._working is not None:
            self._working.cancel()
        super().on_connection_close()

    async def send_parts(self, parts: Sequence[Part], nbytes: int) -> None:
        """Send parts of a body, ``nbytes`` in all, and wait until the socket has taken them.

        Tornado's own way copies them twice, which costs as much as reading them: where nothing else is done to the
        body, they go to the stream as they are.
        """
        connection = self.request.connection
        if nbytes >= PIECE_NBYTES and not self._headers_written and not self._transforms:
            self.flush()  # the head by itself: what goes with it is copied
        is_chunked = isinstance(connection, HTTP1Connection) and connection._chunking_output
        if not is_chunked or self._transforms or self._write_buffer:
            self.write(b"".join(parts))
            await self.until_taken(self.flush(), nbytes)
            return
        stream = cast("HTTP1Connection", connection).stream
        small = [b"%x\r\n" % nbytes]
        for part in parts:
            if len(part) < MIN_UNCOPIED_NBYTES:
                small.append(bytes(part))
                continue
            if small:
                stream.write(b"".join(small))
                small = []
            stream.write(part if isinstance(part, bytes) else memoryview(part))
        await self.until_taken(stream.write(b"".join([*small, b"\r\n"])), nbytes)

    async def until_taken(self, written: Awaitable[None], nbytes: int) -> None:
        """Wait until the client has taken what was written; one that takes next to nothing is cut off.

        Raises
        ------
        StreamClosedError
        """
        try:
            async with asyncio.timeout(STALLED_S * max(1.0, nbytes / PIECE_NBYTES)):
                await written
        except TimeoutError:
            connection = self.request.connection
            log.info("the client of %s takes nothing: cut off", self.request.path)
            if isinstance(connection, HTTP1Connection):
                connection.stream.close()
            raise StreamClosedError from None

    async def write_pieces(self, body: bytes) -> None:
        """A JSON body that may be megabytes: piece by piece, compressed where that is accepted."""
        self.set_header("Content-Type", "application/json")
        self.set_header("Vary", "Accept-Encoding")
        if len(body) < MIN_GZIP_NBYTES or not _accepts_gzip(self.request.headers.get("Accept-Encoding", "")):
            self.write(body)
            return
        self.set_header("Content-Encoding", "gzip")
        gzip = zlib.compressobj(1, wbits=31)
        # In pieces, so that others' requests are answered between them.
        for start in range(0, len(body), PIECE_NBYTES):
            self.write(gzip.compress(body[start : start + PIECE_NBYTES]))
            if len(body) > PIECE_NBYTES:
                await self.flush()
        self.write(gzip.flush())


def _accepts_gzip(header: str) -> bool:
    for item in header.lower().split(","):
        coding, _, weight = item.partition(";")
        if coding.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


class RootsAnswers(SourceAnswers):
    """``GET roots`` -> ``{"roots": [{"name": ...}, ...]}``."""

    async def answer_get(self) -> None:
        self.write_json({"roots": await self.sources.roots()})


class CatalogAnswers(SourceAnswers):
    """``GET roots/R/catalog?under=&depth=&after=&limit=&since=&q=`` -> a page."""

    async def answer_get(self, root: str) -> None:
        source = self.source_of(root)
        query = CatalogQuery.from_params(self.query_texts())
        if self.request.headers.get("If-None-Match"):
            # The cursor is told by any page: the shortest one spares making the one asked for.
            probe = await source.catalog(CatalogQuery(limit=1))
            if self.not_modified(_page_etag(probe, query)):
                return
        page = await source.catalog(query)
        self.set_header("ETag", _page_etag(page, query))
        await self.write_pieces(page.to_json_text().encode())


def _page_etag(page: CatalogPage, query: CatalogQuery) -> str:
    tag = strong_etag(json.dumps(query.to_params(), sort_keys=True).encode()).strip('"')
    return f'W/"{page.cursor}:{tag}"'


class MetaAnswers(SourceAnswers):
    """``GET meta?path=ROOT/PATH`` -> the entry, with all its attributes, and ``root``."""

    async def answer_get(self) -> None:
        root, path = split_address(self.required_query_text("path"))
        entry = await self.source_of(root).entry(path)
        body = json.dumps({"root": root, **entry.to_json()}, separators=(",", ":")).encode()
        if not self.not_modified(strong_etag(body)):
            await self.write_pieces(body)


class StoredAnswers(SourceAnswers):
    """Base of answers with stored bytes: one ``Range``, ``If-None-Match``, ``If-Range``."""

    async def send_stored(self, source: Source, path: str, filename: str, *, with_body: bool = True) -> None:
        """Answer with the stored bytes at a path, to be saved under ``filename``."""
        with self.limits.reads.hold(self.client_key()):
            await self.while_connected(self._answer_stored(source, path, filename, with_body))

    async def _answer_stored(self, source: Source, path: str, filename: str, with_body: bool) -> None:
        headers = self.request.headers
        wanted, if_range = headers.get("Range"), headers.get("If-Range")
        # The bytes are asked for at once where it is clear which: a source may be a round trip away.
        start, stop = first_guess(wanted) if with_body and "If-None-Match" not in headers else (0, 0)
        stored = await source.read_file(path, start, stop)
        try:
            etag = f'"{stored.version}"'
            self.set_header("Accept-Ranges", "bytes")
            self.set_header("Last-Modified", format_timestamp(stored.mtime_ns // 10**9))
            if self.not_modified(etag):
                return
            try:
                byte_range = parse_byte_range(wanted if if_range in (None, etag) else None, stored.nbytes)
            except UnsatisfiableRange:
                self.set_status(416)
                self.set_header("Content-Range", f"bytes */{stored.nbytes}")
                self.write_json({"detail": f"the file has {stored.nbytes} bytes", "error": "RequestError"})
                return
            # It is a download whatever it holds: publisher's HTML must not run as a page of this server.
            self.set_header("Content-Type", "application/octet-stream")
            self.set_header("X-Content-Type-Options", "nosniff")
            self.set_header("Content-Security-Policy", "sandbox; default-src 'none'")
            self.set_header("Content-Disposition", attachment(filename))
            first, end = byte_range or (0, stored.nbytes)
            if byte_range is not None:
                self.set_status(206)
                self.set_header("Content-Range", f"bytes {first}-{end - 1}/{stored.nbytes}")
            self.set_header("Content-Length", str(end - first))
            if not with_body or first == end:
                return
            if (first, end) != (start, stored.nbytes if stop is None else min(stop, stored.nbytes)):
                await close_stream(stored.parts)
                version, stored = stored.version, await source.read_file(path, first, end)
                if stored.version != version:
                    raise DatasetChangedError(f"{path!r} changed while it was asked for: ask again")
            await self._send(stored.parts)
        except Caterva2Error:
            if not self._headers_written:
                for name in ("Content-Length", "Content-Range", "ETag", "Accept-Ranges", "Last-Modified"):
                    self.clear_header(name)
                raise
            # The status is out: only a cut connection says that the rest is missing.
            self.detach().close()
        finally:
            await close_stream(stored.parts)

    async def _send(self, parts: AsyncIterator[bytes]) -> None:
        async for part in parts:
            self.write(part)
            await self.until_taken(self.flush(), PIECE_NBYTES)


class FileAnswers(StoredAnswers):
    """``GET file?path=ROOT/PATH`` -> the stored bytes; one ``Range``, ``If-None-Match``, ``If-Range``."""

    async def answer_head(self) -> None:
        await self._answer(self.required_query_text("path"), with_body=False)

    async def answer_get(self) -> None:
        await self._answer(self.required_query_text("path"), with_body=True)

    async def _answer(self, address: str, *, with_body: bool) -> None:
        root, path = split_address(address)
        await self.send_stored(self.source_of(root), path, last_name(path) or root, with_body=with_body)


class PlainFileAnswers(FileAnswers):
    """``GET files/ROOT/PATH`` -> the same at a URL that ends in the file's name, for readers that go by it."""

    async def answer_head(self, address: str) -> None:  # type: ignore[override]
        await self._answer(address, with_body=False)

    async def answer_get(self, address: str) -> None:  # type: ignore[override]
        await self._answer(address, with_body=True)


def attachment(filename: str) -> str:
    """A ``Content-Disposition`` that no name can break out of."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._- +@=,~()") else "_" for c in filename)
    if plain == filename:
        return f'attachment; filename="{plain}"'  # all that older clients understand
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


class AnnounceAnswers(SourceAnswers):
    """``POST roots/R/announce`` with ``{"path": ...}``: look at that path again."""

    changes_state = True

    def initialize(self, announcer: Announcer, **kwargs: Any) -> None:  # type: ignore[override]
        self.announcer = announcer
        super().initialize(**kwargs)

    async def answer_post(self, root: str) -> None:
        path = parse_path(str(self.json_body().get("path", "")))
        # Where there are visitors, what one does not see cannot be looked at either.
        announcer = self.sources if isinstance(self.sources, Announcer) else self.announcer
        await announcer.announce(parse_root_name(root), path)
        self.write_json({"root": root, "path": path})


Verb = Callable[..., Any]
Guard = Callable[[Verb], Verb]
_Handler = TypeVar("_Handler", bound=RequestHandler)


def is_socket(answers: type[RequestHandler]) -> bool:
    """Do these answers speak WebSocket (and so need a base that does)?"""
    return issubclass(answers, WebSocketHandler)


def bind(answers: type[RequestHandler], base: type[_Handler], guard: Guard | None = None) -> type[_Handler]:
    """A handler that can be mounted: ``answers`` on ``base``, every verb inside ``guard``.

    Parameters
    ----------
    answers : type
        Has ``answer_get``, ``answer_head``, ``answer_post``, ``answer_put`` or ``answer_delete``.
    base : type
        `ServiceHandler`, or a handler of Jupyter's.
    guard : callable, optional
        Decorator for verbs. Without one, ``base`` has to be a `ServiceHandler`, which guards by itself.

    Raises
    ------
    TypeError
        When nothing would guard the verbs.
    """
    if guard is None and not issubclass(base, ServiceHandler):
        raise TypeError(f"{base.__name__} does not guard its verbs: a guard is needed")
    verbs: dict[str, Verb] = {}
    for name in ("get", "head", "post", "put", "delete"):
        answer = getattr(answers, f"answer_{name}", None)
        if answer is not None:
            verb = _verb(name, answer)
            verbs[name] = guard(verb) if guard is not None else verb
    bound = type(answers.__name__.replace("Answers", "Handler"), (answers, base), verbs)
    return cast("type[_Handler]", bound)


def _verb(name: str, answer: Verb) -> Verb:
    async def verb(self: RequestHandler, *args: str, **kwargs: str) -> None:
        await answer(self, *args, **kwargs)

    verb.__name__ = verb.__qualname__ = name
    return verb
