"""What a subscriber answers besides REST v1 over its sources: following, and the old REST.

As in ``web.source_handlers``, classes here answer verbs and serve nothing until ``bind`` gives them a base and a
guard. Shapes, statuses and texts of ``/api/...`` are those that the older system's clients know; its defects
are not kept, and what failed there with 500 is a 4xx, or 502 when a source is the cause.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from ..compute.stored_expression import expression_of
from ..core.catalog import MAX_PAGE, CatalogQuery
from ..core.legacy import info_json
from ..core.metadata import Entry
from ..core.paths import name as last_name
from ..core.paths import parse_path, parse_root_name
from ..core.roots import host_and_port
from ..core.source import Source
from ..errors import (
    AuthenticationError,
    Caterva2Error,
    DatasetNotFoundError,
    NotFoundError,
    RequestError,
    RootNotFoundError,
    SourceUnavailableError,
    TooLargeError,
    UnsupportedDatasetError,
)
from ..web.source_handlers import (
    SourceAnswers,
    StoredAnswers,
    attachment,
)
from .expression_source import area_of
from .frames import FrameMaker, parse_slice
from .permissions import AREAS
from .seen_roots import SeenRoots

__all__ = ["FOLLOW_ROUTE", "OLD_ROUTES", "FollowAnswers", "OldAnswers", "OldNotFoundError", "OldRefusalError"]

_FRAME_MAGIC = b"b2frame\0"
_FRAME_SUFFIXES = (".b2nd", ".b2frame", ".b2f")
_PLAIN_FRAME_SUFFIX = ".b2"
READY_S = 4.5
"""Seconds in which an answer to an older client has to begin: it waits for 5."""


class FollowAnswers(SourceAnswers):
    """``POST roots/R/follow`` and ``DELETE roots/R/follow``."""

    changes_state = True

    async def answer_post(self, root: str) -> None:
        await seen_by(self).follow(parse_root_name(root))
        self.write_json({"root": root, "followed": True})

    async def answer_delete(self, root: str) -> None:
        await seen_by(self).unfollow(parse_root_name(root))
        self.write_json({"root": root, "followed": False})


def seen_by(answers: SourceAnswers) -> SeenRoots:
    """The roots as whoever sent a request sees them."""
    seen = answers.sources
    assert isinstance(seen, SeenRoots)
    return seen


class OldAnswers(StoredAnswers):
    """Base of the old REST: ``{"detail": TEXT}`` for errors, with the old statuses."""

    def initialize(self, frames: FrameMaker, **kwargs: Any) -> None:  # type: ignore[override]
        self.frames = frames
        super().initialize(**kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if not isinstance(error, Caterva2Error):
            super().write_error(status_code, **kwargs)
            return
        status = error.status if error.status < 500 else 502
        # Of 401 and 404 old clients know one text each, but where this module says otherwise.
        texts = {} if isinstance(error, (OldNotFoundError, OldRefusalError)) else _OLD_TEXTS
        self.set_status(status)
        self.write_json({"detail": texts.get(status, str(error))})
        self.finish()

    def fields(self, **kinds: type) -> dict[str, Any] | None:
        """Values of the body; None when some are missing or of another kind, which has been answered then."""
        try:
            form = self.json_body()
        except RequestError:
            form = {}
        wrong = [name for name, kind in kinds.items() if not isinstance(form.get(name), kind)]
        if wrong:
            self.refuse_missing(*wrong)
            return None
        return {name: form[name] for name in kinds}

    def refuse_missing(self, *names: str) -> None:
        """422: fields of the body are missing."""
        self.set_status(422)
        self.write_json({"detail": [{"type": "missing", "loc": ["body", n], "msg": "Field required"} for n in names]})

    def followed(self, address: str) -> tuple[Source, str]:
        """Source and path of ``ROOT/PATH``; what is not followed is not there.

        Raises
        ------
        NotFoundError
        """
        root, _, path = address.partition("/")
        seen = seen_by(self)
        if not path or not seen.is_followed(root):
            raise RootNotFoundError(f"root {root!r} is not followed")
        return seen.source(root), parse_path(path)

    async def dataset(self, address: str) -> tuple[Source, Entry]:
        source, path = self.followed(address)
        entry = await source.entry(path)
        if entry.kind in ("group", "link"):
            raise DatasetNotFoundError(f"no dataset {path!r} in root {source.root!r}")
        return source, entry

    async def send_whole(self, source: Source, entry: Entry, deadline: asyncio.Timeout | None = None) -> None:
        """A dataset as one frame: the stored one where there is one; plain files are packed as ``NAME.b2``.

        ``deadline`` is until a stored one begins, or another one is made.
        """
        filename = last_name(entry.path)
        area = area_of(source)
        if area is not None and area.packed.has(entry):
            _begin(deadline)
            await self.send_stored(cast("Source", area.packed), entry.path, filename + _PLAIN_FRAME_SUFFIX)
            return
        if expression_of(entry) is None and filename.endswith(_FRAME_SUFFIXES):
            if await _is_stored_frame(source, entry):
                _begin(deadline)
                await self.send_stored(source, entry.path, filename)
                return
        elif entry.kind == "file":
            filename += _PLAIN_FRAME_SUFFIX
        self.send_frame(await self.frames.whole_frame(source, entry), filename)

    def send_frame(self, frame: bytes, filename: str = "") -> None:
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("X-Content-Type-Options", "nosniff")
        if filename:
            self.set_header("Content-Disposition", attachment(filename))
        self.write(frame)


class OldNotFoundError(NotFoundError):
    """404 with a text that old clients show."""


class OldRefusalError(AuthenticationError):
    """401 with a text that old clients show."""


_OLD_TEXTS = {401: "Unauthorized", 404: "Not Found"}


def _begin(deadline: asyncio.Timeout | None) -> None:
    if deadline is not None:
        deadline.reschedule(None)


async def _is_stored_frame(source: Source, entry: Entry) -> bool:
    """Is the dataset a file of its own that is one contiguous frame?"""
    try:
        stored = await source.read_file(entry.path, 0, 16)
        head = b"".join([part async for part in stored.parts])
    except (UnsupportedDatasetError, SourceUnavailableError):
        return False  # inside another file, or away: made from blocks, which may be cached
    return head[2:10] == _FRAME_MAGIC


class OldRootsAnswers(OldAnswers):
    """``GET /api/roots``: by name, areas included."""

    async def answer_get(self) -> None:
        roots = await seen_by(self).roots()
        form: dict[str, Any] = {
            root["name"]: {
                "name": root["name"],
                "http": host_and_port(root["http"]) if root["http"] else "",
                "subscribed": True if root["followed"] else None,
            }
            for root in sorted(roots, key=lambda root: root["name"] in AREAS)  # areas come last
        }
        self.write_json(form)


class OldSubscribeAnswers(OldAnswers):
    """``POST /api/subscribe/ROOT`` -> ``"Ok"``, with its publisher away, too."""

    changes_state = True

    async def answer_post(self, root: str) -> None:
        try:
            await seen_by(self).follow(root)
        except (NotFoundError, AuthenticationError):
            if root in AREAS:
                raise OldRefusalError(f"Subscribing to {root} requires authentication") from None
            raise OldNotFoundError(f"{root} not known by the broker") from None
        self.write_json("Ok")


class OldListAnswers(OldAnswers):
    """``GET /api/list/PATH``: datasets below a path, relative to it."""

    async def answer_get(self, address: str) -> None:
        root, _, path = address.partition("/")
        seen = seen_by(self)
        if root in AREAS and not seen.sees(root):
            raise OldNotFoundError(f"{root} needs authentication")
        path = parse_path(path)
        if root not in {r["name"] for r in await seen.roots()}:
            raise OldNotFoundError(f"{root} not known by the broker")
        paths: list[str] = []
        if seen.is_followed(root):
            try:
                paths = await self._below(seen.source(root), path)
            except SourceUnavailableError:
                paths = []  # as the older system: nothing is known of it yet
        self.write_json(paths)

    async def _below(self, source: Source, path: str) -> list[str]:
        paths: list[str] = []
        after: str | None = ""
        try:
            while after is not None:
                page = await source.catalog(CatalogQuery(under=path, after=after, limit=MAX_PAGE))
                paths += await asyncio.get_running_loop().run_in_executor(None, _listed, page.items)
                after = page.next
        except DatasetNotFoundError:
            return await self._itself(source, path)
        start = len(path) + 1 if path else 0
        return sorted(p[start:] for p in paths)

    async def _itself(self, source: Source, path: str) -> list[str]:
        try:
            entry = await source.entry(path)
        except DatasetNotFoundError:
            return []
        return [last_name(entry.path)] if entry.has_data else []


def _listed(items: tuple[str, ...]) -> list[str]:
    """Paths of the entries that the old REST can carry."""
    forms = [json.loads(text) for text in items]
    return [f["path"] for f in forms if f["kind"] in ("array", "file") and f["geometry"]["dtype"] != "vlen-utf8"]


class OldInfoAnswers(OldAnswers):
    """``GET /api/info/PATH``: metadata."""

    async def answer_get(self, address: str) -> None:
        source, entry = await self.dataset(address)
        self.write_json(info_json(entry, f"{source.root}/{entry.path}"))


class OldFetchAnswers(OldAnswers):
    """``GET /api/fetch/PATH?slice_=S``: a contiguous frame of a slice, or of all."""

    async def answer_get(self, address: str) -> None:
        source, entry = await self.dataset(address)
        text = self.query_texts().get("slice_", "")
        parsed = parse_slice(text, entry)
        deadline = asyncio.timeout(READY_S)
        try:
            async with deadline:
                if parsed is None:
                    await self.send_whole(source, entry, deadline)
                else:
                    self.send_frame(await self.frames.slice_frame(source, entry, parsed.selection, text))
        except TimeoutError:
            if not deadline.expired():
                raise  # a source's
            raise TooLargeError(
                f"{address} could not be made ready within {READY_S:g} s, which is what older clients wait: ask again "
                "(what came is kept), ask for smaller slices, or read with caterva2_jupyter, which waits"
            ) from None


class OldChunkAnswers(OldAnswers):
    """``GET /api/chunk/PATH?nchunk=N``: one compressed chunk."""

    async def answer_get(self, address: str) -> None:
        text = self.query_texts().get("nchunk", "")
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            self.set_status(422)
            detail = {"type": "int_parsing", "loc": ["query", "nchunk"], "msg": "nchunk has to be a number from 0"}
            self.write_json({"detail": [{**detail, "input": text[:40]}]})
            return
        source, entry = await self.dataset(address)
        self.send_frame(await self.frames.chunk(source, entry, int(text)))


class OldDownloadAnswers(OldAnswers):
    """``GET /api/download/PATH``: a file as it is, a dataset as a frame; always to be saved, never shown."""

    async def answer_get(self, address: str) -> None:
        source, path = self.followed(address)
        entry = await source.entry(path)
        if entry.kind == "array" or last_name(entry.path).endswith(_FRAME_SUFFIXES):
            await self.send_whole(source, entry)
        elif entry.version:
            await self.send_stored(source, entry.path, last_name(entry.path))
        else:
            raise DatasetNotFoundError(f"no dataset {path!r} in root {source.root!r}")


FOLLOW_ROUTE = r"/api/v1/roots/([^/]+)/follow"
OLD_ROUTES: tuple[tuple[str, type[OldAnswers]], ...] = (
    (r"/api/roots", OldRootsAnswers),
    (r"/api/subscribe/([^/]*)", OldSubscribeAnswers),
    (r"/api/list/(.*)", OldListAnswers),
    (r"/api/info/(.*)", OldInfoAnswers),
    (r"/api/fetch/(.*)", OldFetchAnswers),
    (r"/api/chunk/(.*)", OldChunkAnswers),
    (r"/api/download/(.*)", OldDownloadAnswers),
)
