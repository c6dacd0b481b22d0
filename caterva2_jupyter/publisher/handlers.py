"""The old REST of publishers (``/api/list``, ``/api/info``, ``/api/download``), as older subscribers ask it.

Handlers parse, make one call and encode. What the old REST cannot carry is listed in REST v1 alone.
"""

from __future__ import annotations

import asyncio
import json
import re
from concurrent.futures import Executor
from typing import Any

from ..core.blocks import BlockRecord
from ..core.catalog import MAX_PAGE, CatalogQuery
from ..core.legacy import chunk_bytes, chunk_selection, info_json
from ..core.paths import parse_path
from ..core.source import Source
from ..core.wire import ReadRequest
from ..errors import DatasetNotFoundError, RequestError
from ..web.service import JsonAnswers

__all__ = ["OLD_ROUTES", "OldDownloadAnswers", "OldInfoAnswers", "OldListAnswers"]


class _OldAnswers(JsonAnswers):
    def initialize(self, source: Source, executor: Executor, **kwargs: Any) -> None:
        self.source, self.executor = source, executor
        super().initialize(**kwargs)


class OldListAnswers(_OldAnswers):
    """``GET /api/list`` -> paths of all datasets."""

    async def answer_get(self) -> None:
        paths: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await self.source.catalog(CatalogQuery(after=after, limit=MAX_PAGE))
            for text in page.items:
                form = json.loads(text)
                if form["kind"] in ("array", "file") and form["geometry"]["dtype"] != "vlen-utf8":
                    paths.append(form["path"])
            after = page.next
        self.write_json(paths)


class OldInfoAnswers(_OldAnswers):
    """``GET /api/info/PATH`` -> metadata; the ETag is the version, as the older system writes it (no quotes)."""

    async def answer_get(self, path: str) -> None:
        entry = await self.source.entry(parse_path(path))
        if entry.geometry is None:
            raise DatasetNotFoundError(f"no dataset {path!r} in root {self.source.root!r}")
        self.set_header("ETag", entry.version)
        if self.request.headers.get("If-None-Match") == entry.version:
            self.set_status(304)
            return
        self.write_json(info_json(entry, f"{self.source.root}/{entry.path}"))


class OldDownloadAnswers(_OldAnswers):
    """``GET /api/download/PATH?nchunk=N`` -> one compressed Blosc2 chunk."""

    async def answer_get(self, path: str) -> None:
        text = self.query_texts().get("nchunk", "-1")
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            self.set_status(422)
            told = {"type": "int_parsing", "loc": ["query", "nchunk"], "msg": "nchunk is a number", "input": text}
            self.write_json({"detail": [told]})
            return
        if int(text) < 0:
            raise RequestError("Chunk number required")
        entry = await self.source.entry(parse_path(path))
        geometry = entry.geometry
        if geometry is None:
            raise DatasetNotFoundError(f"no dataset {path!r} in root {self.source.root!r}")
        nchunk = int(text)
        if nchunk >= geometry.nchunks:
            raise RequestError(f"no chunk {nchunk}: {entry.path!r} has {geometry.nchunks}")
        request = ReadRequest(self.source.root, entry.path, entry.version, chunk_selection(geometry, nchunk))
        stream = await self.source.read_blocks(request)
        records: list[BlockRecord] = [record async for record in stream.records]
        loop = asyncio.get_running_loop()
        chunk = await loop.run_in_executor(self.executor, chunk_bytes, entry, nchunk, records)
        self.set_header("Content-Type", "application/octet-stream")
        self.write(chunk)


OLD_ROUTES: tuple[tuple[str, type[_OldAnswers]], ...] = (
    (r"/api/list", OldListAnswers),
    (r"/api/info/(.*)", OldInfoAnswers),
    (r"/api/download/(.*)", OldDownloadAnswers),
)
