"""``GET overview``: a selection in few values, made where the data is, for previews.

A worker process decodes what comes; here is only what is asked for, and how it is sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compute.boxes import values_answer
from ..compute.overview import OverviewPlan, plan_overview
from ..compute.records import Buffer, pack_records
from ..compute.reduction import Reduction, fills_of
from ..core.blocks import BlockRecord
from ..core.dtypes import dtype_from_json
from ..core.exact_slice import selection_digest
from ..core.metadata import Entry
from ..core.paths import split_address
from ..core.reduce_request import ReduceRequest
from ..core.selection import ParsedKey, Selection, parse_basic, parse_key_text
from ..core.source import Source
from ..errors import DatasetChangedError, RequestError, SelectionError
from ..storage.closing import close_stream
from ..web.compute_pool import ComputePool
from ..web.source_handlers import SourceAnswers
from .frames import readable_geometry

__all__ = ["OverviewAnswers", "overview_routes"]

DEFAULT_PIXELS = 1000


class OverviewAnswers(SourceAnswers):
    """``GET overview?path=&sel=&max_pixels=&method=[&version=]`` -> as ``GET values``, of fewer values."""

    def initialize(self, compute: ComputePool, **kwargs: Any) -> None:  # type: ignore[override]
        self.compute = compute
        super().initialize(**kwargs)

    async def answer_get(self) -> None:
        root, path = split_address(self.required_query_text("path"))
        source = self.source_of(root)
        with self.limits.reductions.hold(self.client_key()):
            await self.while_connected(self._answer(source, path))

    async def _answer(self, source: Source, path: str) -> None:
        texts = self.query_texts()
        entry = await source.entry(path)
        version = texts.get("version", entry.version)
        if version != entry.version:
            raise DatasetChangedError(
                f"dataset {entry.path!r} in root {source.root!r} changed: version {version[:40]} is gone"
            )
        geometry = readable_geometry(entry)
        text = texts.get("sel", "").strip()
        parsed = _parsed(geometry.shape, "" if text == "()" else text)
        of = ReduceRequest(source.root, entry.path, "stride", entry.version, parsed.selection.to_json())
        plan = plan_overview(geometry, of, _pixels(texts), texts.get("method", "stride"), fills_of(entry))
        reduction = Reduction(geometry, plan.request)
        self.set_header("Cache-Control", "private, no-cache")
        if self.not_modified(_etag(entry, reduction, parsed)):
            return
        try:
            values = await self._values(source, reduction)
        except BaseException:
            self.clear_header("ETag")
            raise
        form, (body,) = values_answer(np.asarray(parsed.apply(values)))
        dtype = form["dtype"]
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Caterva2-Dtype", dtype if isinstance(dtype, str) else json.dumps(dtype))
        self.set_header("X-Caterva2-Shape", json.dumps(form["shape"]))
        self.set_header("X-Caterva2-Overview", json.dumps(_told(plan, parsed)))
        self.set_header("Content-Length", str(len(body)))
        self.write(bytes(body))

    async def _values(self, source: Source, reduction: Reduction) -> npt.NDArray[Any]:
        result = reduction.result
        whole = Selection.whole(result.shape)
        arguments = {
            "geometry": result.to_json(),
            "selection": whole.to_json(),
            "digest": selection_digest(whole),
            "max_nbytes": reduction.nbytes,
        }
        form, (body,) = await self.compute.run("values", arguments, _parts(source, reduction))
        return np.frombuffer(body, dtype_from_json(form["dtype"])).reshape(result.shape)


async def _parts(source: Source, reduction: Reduction) -> AsyncIterator[list[Buffer]]:
    """The pieces of the result, all of them: nobody takes a worker while they are made."""
    stream = await source.reduce(reduction.request)
    records = stream.records
    try:
        pieces = [record async for record in records if isinstance(record, BlockRecord)]
    finally:
        await close_stream(records)
    yield pack_records(pieces)


def _parsed(shape: tuple[int, ...], text: str) -> ParsedKey:
    try:
        return parse_basic(parse_key_text(text), shape)
    except (IndexError, ValueError, TypeError) as error:
        raise SelectionError(f"sel={text[:100]} does not fit shape {shape}: {error}") from None


def _pixels(texts: dict[str, str]) -> int:
    text = texts.get("max_pixels", str(DEFAULT_PIXELS))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RequestError("max_pixels is a number of values along each axis")
    return int(text)


def _etag(entry: Entry, reduction: Reduction, parsed: ParsedKey) -> str:
    what = f"{entry.id}|{entry.version}|{reduction.digest}|{parsed.box_keys}"
    return f'"{hashlib.blake2b(what.encode(), digest_size=16).hexdigest()}"'


def _told(plan: OverviewPlan, parsed: ParsedKey) -> dict[str, Any]:
    """What is said of the overview; steps are those of the axes that are left."""
    along = iter(plan.steps)
    steps: list[int] = []
    (key,) = parsed.box_keys
    for item in key:
        if item is None:
            steps.append(1)
        elif item is not Ellipsis:
            step = next(along)
            if isinstance(item, slice):
                steps.append(step)
    return plan.to_json() | {"steps": steps}


def overview_routes(compute: ComputePool) -> list[tuple[str, type[SourceAnswers], dict[str, Any]]]:
    """Pattern, answers and what they need besides sources and limits."""
    return [(r"/api/v1/overview", OverviewAnswers, {"compute": compute})]
