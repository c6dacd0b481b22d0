"""``GET values``: decoded values of a slice, for whoever has no decoder: pages, the viewer, other languages.

A worker process decodes; here is only what is asked for, and how it is sent.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from tornado.iostream import StreamClosedError

from ..core.dtypes import is_vlen
from ..core.metadata import Entry
from ..core.paths import split_address
from ..core.selection import ParsedKey, parse_basic, parse_key_text
from ..core.source import Source
from ..core.wire import ReadRequest
from ..errors import DatasetChangedError, SelectionError, TooLargeError
from ..web.caps import ClientCap
from ..web.compute_pool import ComputePool
from ..web.packed_records import box_arguments, packed_parts
from ..web.source_handlers import SourceAnswers
from .frames import readable_geometry

__all__ = ["VALUES_LIMIT_NBYTES", "ValuesAnswers", "values_routes"]

VALUES_LIMIT_NBYTES = 64 << 20
PIECE_NBYTES = 1 << 20
_STRING_NBYTES = 3
"""The least that a string takes in a JSON list."""


class ValuesAnswers(SourceAnswers):
    """``GET values?path=ROOT/PATH&sel=0,:,5:10[&version=]`` -> values in C order, little endian; strings as JSON."""

    def initialize(  # type: ignore[override]
        self, compute: ComputePool, cap: ClientCap, values_limit: int = VALUES_LIMIT_NBYTES, **kwargs: Any
    ) -> None:
        self.compute, self.cap, self.values_limit = compute, cap, values_limit
        super().initialize(**kwargs)

    async def answer_get(self) -> None:
        texts = self.query_texts()
        root, path = split_address(self.required_query_text("path"))
        source = self.source_of(root)
        with self.cap.hold(self.client_key()):
            await self.while_connected(self._answer(source, path, texts.get("sel", ""), texts.get("version")))

    async def _answer(self, source: Source, path: str, text: str, version: str | None) -> None:
        entry = await source.entry(path)
        parsed = self._parsed(entry, text)
        if version is not None and version != entry.version:
            raise DatasetChangedError(
                f"dataset {entry.path!r} in root {source.root!r} changed: version {version[:40]} is gone"
            )
        self.set_header("Cache-Control", "private, no-cache")
        if self.not_modified(_etag(entry, parsed)):
            return
        try:
            form, body = await self._values(source, entry, parsed, text)
        except BaseException:
            self.clear_header("ETag")
            raise
        is_json = form["dtype"] == "vlen-utf8"
        self.set_header("Content-Type", "application/json" if is_json else "application/octet-stream")
        self.set_header("X-Content-Type-Options", "nosniff")
        dtype = form["dtype"]
        self.set_header("X-Caterva2-Dtype", dtype if isinstance(dtype, str) else json.dumps(dtype))
        self.set_header("X-Caterva2-Shape", json.dumps(form["shape"]))
        self.set_header("Content-Length", str(len(body)))
        await self._send(body)

    def _parsed(self, entry: Entry, text: str) -> ParsedKey:
        geometry = readable_geometry(entry)
        # "()" is how a scalar is asked for.
        key = () if text.strip() == "()" else parse_key_text(text)
        try:
            parsed = parse_basic(key, geometry.shape)
        except (IndexError, ValueError, TypeError) as error:
            raise SelectionError(f"sel={text.strip()[:100]} does not fit shape {geometry.shape}: {error}") from None
        itemsize = _STRING_NBYTES if is_vlen(geometry.dtype) else geometry.itemsize
        nbytes = math.prod(parsed.result_shape) * itemsize
        if nbytes > self.values_limit:
            raise TooLargeError(
                f"these values have {nbytes} bytes, over the {self.values_limit} of one answer: ask for less with sel, "
                "for an overview, or for blocks with POST read"
            )
        return parsed

    async def _values(self, source: Source, entry: Entry, parsed: ParsedKey, text: str) -> tuple[dict[str, Any], bytes]:
        selection = parsed.selection
        request = ReadRequest(source.root, entry.path, entry.version, selection.to_json(), mode="auto")
        stream = await source.read_blocks(request)
        arguments = box_arguments(stream, selection)
        arguments |= {"key": "" if text.strip() == "()" else text, "max_nbytes": self.values_limit}
        form, (body,) = await self.compute.run("values", arguments, packed_parts(stream))
        return form, body

    async def _send(self, body: bytes) -> None:
        if len(body) <= PIECE_NBYTES:
            self.write(body)
            return
        view = memoryview(body)
        try:
            for start in range(0, len(body), PIECE_NBYTES):
                self.write(bytes(view[start : start + PIECE_NBYTES]))
                await self.flush()
        except StreamClosedError:
            return


def _etag(entry: Entry, parsed: ParsedKey) -> str:
    """Of a dataset's version and what is selected of it, however that is written."""
    what = f"{entry.id}|{entry.version}|{parsed.selection.to_json()}|{parsed.box_keys}|{parsed.result_shape}"
    return f'"{hashlib.blake2b(what.encode(), digest_size=16).hexdigest()}"'


def values_routes(compute: ComputePool) -> list[tuple[str, type[SourceAnswers], dict[str, Any]]]:
    """Pattern, answers and what they need besides sources and limits."""
    cap = ClientCap("reads of values", 64, 256)
    return [(r"/api/v1/values", ValuesAnswers, {"compute": compute, "cap": cap})]
