"""An area as a source in which stored expressions are arrays: evaluated where they are asked for, as far as they are.

Its operands are looked up as whoever asks sees them (``sources``: the one place where that is checked), at each
request. A worker process evaluates; it gets the operands' blocks that it needs, and nothing else moves. Everything that
is not an expression is the area's own answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..compute.evaluation import BoundExpression, Signature, bind
from ..compute.expression import parse
from ..compute.records import Buffer, pack_records, unpack_records
from ..compute.reduction import Reduction
from ..compute.stored_expression import EXPRESSION_KEY, StoredExpression, checked_operands, expression_of
from ..core.answer_choice import can_slice, choose_answer, predict
from ..core.blocks import BlockRecord, checksum_seed
from ..core.catalog import CatalogPage, CatalogQuery, Cursor
from ..core.chunk_grid import BlockPlan
from ..core.events import EventBatch
from ..core.exact_slice import selection_digest, slice_seed
from ..core.metadata import Entry, Geometry
from ..core.paths import split_address
from ..core.reduce_request import ReduceRequest, Working
from ..core.selection import Selection
from ..core.source import BlockStream, ComparedStream, FileStream, ReducedStream, Source
from ..core.wire import ReadRequest
from ..errors import (
    Caterva2Error,
    DatasetChangedError,
    DatasetNotFoundError,
    NotFoundError,
    RequestError,
    TooLargeError,
    UnsupportedDatasetError,
)
from ..storage.comparison import compare_blocks
from ..storage.reducing import while_made
from ..storage.threaded_source import wanted_blocks
from ..web.compute_pool import ComputePool
from .areas import AreaSource

__all__ = ["ExpressionSource", "Sources", "area_of"]

MAX_DEPTH = 8
_MARK = f'"{EXPRESSION_KEY}"'
MAX_PARTS = 4096
GROUP_NBYTES = 8 << 20
"""Decoded bytes of the blocks that are evaluated at once, about."""
MAX_OPERAND_CBYTES = 256 << 20
MAX_LISTED = 200
"""Expressions of one page of a listing whose operands are looked at."""

Sources = Callable[[str], Source]
"""The source of a root, for whoever asks.

Raises RootNotFoundError for what they may not see.
"""


@dataclass(frozen=True, slots=True)
class _Leaf:
    """An operand that is an array: which version of it is read."""

    source: Source
    entry: Entry


@dataclass(frozen=True, slots=True)
class _Resolved:
    """An expression whose operands are found.

    Attributes
    ----------
    entry : Entry
        With the version, shape and dtype that follow from them.
    form : dict
        What a worker is told (``compute.evaluate_job``).
    parts : int
        Nodes in all, those of inner expressions included, as often as they occur.
    """

    entry: Entry
    bound: BoundExpression
    form: dict[str, Any]
    parts: int


class ExpressionSource:
    """An area, with its expressions evaluated for one visitor.

    Parameters
    ----------
    area : Source
    sources : callable
        The source of a root as the visitor sees it.
    compute : ComputePool
        Where expressions are evaluated.
    executor : Executor
        For comparing blocks.
    """

    def __init__(self, area: Source, sources: Sources, compute: ComputePool, executor: Executor) -> None:
        self.area = area
        self._sources, self._compute, self._executor = sources, compute, executor

    @property
    def root(self) -> str:
        return self.area.root

    # What is there

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        page = await self.area.catalog(query)
        if not any(_MARK in item for item in page.items):
            return page
        items = []
        looked_at = 0
        for item in page.items:
            if _MARK in item and looked_at < MAX_LISTED:
                looked_at += 1
                entry = await self._listed(Entry.from_json(json.loads(item)))
                item = json.dumps(entry.to_json(), separators=(",", ":"))
            items.append(item)
        return replace(page, items=tuple(items))

    async def _listed(self, entry: Entry) -> Entry:
        """The entry of an expression as it is listed; as it was stored, where its operands are not there now."""
        if expression_of(entry) is None:
            return entry
        try:
            return (await self._resolve(entry, _Leaves())).entry
        except Caterva2Error as error:
            return replace(entry, storage={**entry.storage, "problem": str(error)[:500]})

    async def entry(self, path: str) -> Entry:
        return await self._listed(await self.area.entry(path))

    async def entries_with_id(self, dataset_id: str) -> list[Entry]:
        """The entries of a dataset's id."""
        lookup = getattr(self.area, "entries_with_id", None)
        entries: list[Entry] = await lookup(dataset_id) if lookup is not None else []
        return [await self._listed(entry) for entry in entries]

    def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        return self.area.events(since)

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        return await self.area.read_file(path, start, stop)

    # Operands

    async def define(self, text: object, operands: object, address: str) -> StoredExpression:
        """An expression to be stored, when its operands are there and go together.

        Parameters
        ----------
        text : str
        operands : mapping
            ``ROOT/PATH`` by name.
        address : str
            Where it will be stored.

        Raises
        ------
        RequestError
        NotFoundError
            When an operand is not there, or hidden.
        """
        checked = checked_operands(text, operands)
        assert isinstance(text, str)
        _, geometry, _, _, _ = await self._bind(text, checked, _Leaves(), (address,))
        return StoredExpression(text, checked, geometry)

    async def _resolve(self, entry: Entry, leaves: _Leaves, trail: tuple[str, ...] = ()) -> _Resolved:
        address = f"{self.root}/{entry.path}"
        if address in trail:
            raise RequestError(f"expression {address} is defined by itself")
        if len(trail) >= MAX_DEPTH:
            raise RequestError(f"expressions over expressions go {MAX_DEPTH} deep at most: store one as an array")
        found = expression_of(entry)
        if found is None:
            raise UnsupportedDatasetError(f"{address} is not an expression")
        text, operands = found
        bound, geometry, form, versions, parts = await self._bind(text, operands, leaves, (*trail, address))
        what = json.dumps([entry.version, text, versions, geometry.to_json()], sort_keys=True)
        version = hashlib.blake2b(what.encode(), digest_size=16).hexdigest()
        return _Resolved(replace(entry, version=version, geometry=geometry), bound, form, parts)

    async def _bind(
        self, text: str, operands: Mapping[str, str], leaves: _Leaves, trail: tuple[str, ...]
    ) -> tuple[BoundExpression, Geometry, dict[str, Any], dict[str, list[str]], int]:
        expression = parse(text)
        signatures: dict[str, Signature] = {}
        geometries: dict[str, Geometry] = {}
        forms: dict[str, Any] = {}
        versions: dict[str, list[str]] = {}
        parts = len(text) // 2 + 1
        for name in expression.names:
            root, path = split_address(operands[name])
            try:
                source = self._sources(root)
                if isinstance(source, ExpressionSource):
                    entry = await source.area.entry(path)
                    if expression_of(entry) is not None:
                        inner = await source._resolve(entry, leaves, trail)
                        entry = inner.entry
                        forms[name] = inner.form
                        parts += inner.parts * text.count(name)
                else:
                    entry = await source.entry(path)
            except NotFoundError as error:
                raise DatasetNotFoundError(f"operand {name} is not there: {error}") from None
            if entry.geometry is None:
                reason = f": {entry.reason}" if entry.reason else ""
                raise UnsupportedDatasetError(f"operand {name}: {operands[name]} is of kind {entry.kind}{reason}")
            if name not in forms:
                forms[name] = {"geometry": entry.geometry.to_json(), "leaf": leaves.add(source, entry)}
            if parts > MAX_PARTS:
                raise RequestError(f"an expression has at most {MAX_PARTS} parts in all: store some of it as an array")
            signatures[name] = Signature(entry.geometry.shape, entry.geometry.dtype)
            geometries[name] = entry.geometry
            versions[name] = [entry.id, entry.version]
        bound = bind(expression, signatures)
        return bound, bound.partition(geometries), {"expression": text, "operands": forms}, versions, parts

    # What is in it

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        entry = await self.area.entry(request.path)
        if expression_of(entry) is None:
            return await self.area.read_blocks(request)
        leaves = _Leaves()
        resolved, geometry = await self._current(entry, request.version, leaves)
        entry = resolved.entry
        plan = BlockPlan(geometry, Selection.from_json(request.selection, geometry.shape))
        wanted = wanted_blocks(plan, request)
        if request.mode != "blocks" and request.window is None and can_slice(geometry, plan.selection):
            nheld = 0 if request.held is None else int(np.count_nonzero(request.held[: plan.nblocks]))
            if choose_answer(request.mode, predict(entry, plan, plan.nblocks - nheld)) == "slice":
                return await self._slice(resolved, leaves, plan.selection, fast=request.fast)
        groups = _groups(((p.nchunk, blocks.tolist()) for p, blocks in wanted), geometry.block_nbytes)
        records = self._records(resolved, leaves, groups)
        first = await anext(records, None)  # what fails at once is told before the answer begins
        return BlockStream(entry, _after(first, records))

    async def _current(self, entry: Entry, version: str | None, leaves: _Leaves) -> tuple[_Resolved, Geometry]:
        """An expression whose version is the one that is asked for."""
        resolved = await self._resolve(entry, leaves)
        geometry = resolved.entry.geometry
        assert geometry is not None
        if version not in (None, resolved.entry.version):
            raise DatasetChangedError(
                f"expression {entry.path!r} in root {self.root!r}, or an operand of it, changed: "
                f"version {str(version)[:40]} is gone"
            )
        return resolved, geometry

    async def _slice(self, resolved: _Resolved, leaves: _Leaves, selection: Selection, *, fast: bool) -> BlockStream:
        digest = selection_digest(selection)
        entry = resolved.entry
        seed = slice_seed(checksum_seed(entry.id, entry.version), digest)
        records = await self._evaluate(resolved, leaves, {"seed": seed, "selection": selection.to_json(), "fast": fast})
        return BlockStream(entry, _listed(records), digest)

    async def _records(
        self, resolved: _Resolved, leaves: _Leaves, groups: Iterable[tuple[int, list[int]]]
    ) -> AsyncIterator[BlockRecord]:
        seed = checksum_seed(resolved.entry.id, resolved.entry.version)
        for nchunk, ids in groups:
            for record in await self._evaluate(resolved, leaves, {"seed": seed, "nchunk": nchunk, "ids": ids}):
                yield record

    async def _evaluate(self, resolved: _Resolved, leaves: _Leaves, want: dict[str, Any]) -> list[BlockRecord]:
        geometry = resolved.entry.geometry
        assert geometry is not None
        arguments = {**resolved.form, "geometry": geometry.to_json(), **want}
        _, buffers = await self._compute.converse("evaluate", arguments, leaves.read)
        return list(unpack_records(buffers))

    async def compare_blocks(self, request: ReadRequest) -> ComparedStream:
        if expression_of(await self.area.entry(request.path)) is None:
            return await self.area.compare_blocks(request)
        return await compare_blocks(self, request, self._executor)

    async def reduce(self, request: ReduceRequest) -> ReducedStream:
        entry = await self.area.entry(request.path)
        if expression_of(entry) is None:
            return await self.area.reduce(request)
        leaves = _Leaves()
        resolved, geometry = await self._current(entry, request.version, leaves)
        reduction = Reduction(geometry, request)
        seed = slice_seed(checksum_seed(resolved.entry.id, resolved.entry.version), reduction.digest)
        want = {"seed": seed, "reduce": request.to_json()}
        working = Working(0, reduction.plan.nblocks)
        made = while_made(lambda: self._evaluate(resolved, leaves, want), lambda: working)
        return ReducedStream(resolved.entry, made, reduction.digest)


def area_of(source: Source) -> AreaSource | None:
    """The area behind a source, if there is one."""
    inner = source.area if isinstance(source, ExpressionSource) else source
    return inner if isinstance(inner, AreaSource) else None


class _Leaves:
    """The arrays behind an expression, by number, as a worker asks for them."""

    def __init__(self) -> None:
        self._leaves: list[_Leaf] = []
        self._numbers: dict[tuple[str, str], int] = {}

    def add(self, source: Source, entry: Entry) -> int:
        key = source.root, entry.path
        if key in self._numbers and self._leaves[self._numbers[key]].entry.version != entry.version:
            raise DatasetChangedError(f"{source.root}/{entry.path} changed while it was looked at: ask again")
        if key not in self._numbers:
            self._numbers[key] = len(self._leaves)
            self._leaves.append(_Leaf(source, entry))
        return self._numbers[key]

    async def read(self, want: Any) -> Sequence[Buffer]:
        """The digest of an answer, and its packed records.

        Raises
        ------
        DatasetChangedError
            When the operand is not any more what the expression was bound to.
        """
        leaf = self._leaves[want["leaf"]]
        entry = leaf.entry
        request = ReadRequest(leaf.source.root, entry.path, entry.version, want["selection"], mode="auto")
        stream = await leaf.source.read_blocks(request)
        records: list[BlockRecord] = []
        nbytes = 0
        async with aclosing(stream.records) as coming:
            async for record in coming:
                records.append(record)
                nbytes += len(record.body)
                if nbytes > MAX_OPERAND_CBYTES:
                    raise TooLargeError(f"too much of {leaf.source.root}/{entry.path} is behind this: ask for less")
        return [stream.digest.encode(), *pack_records(records)]


def _groups(wanted: Iterable[tuple[int, list[int]]], block_nbytes: int) -> Iterable[tuple[int, list[int]]]:
    """Blocks that are evaluated at once, chunk by chunk."""
    most = max(1, GROUP_NBYTES // max(block_nbytes, 1))
    for nchunk, ids in wanted:
        for start in range(0, len(ids), most):
            yield nchunk, ids[start : start + most]


async def _after(first: BlockRecord | None, records: AsyncIterator[BlockRecord]) -> AsyncIterator[BlockRecord]:
    async with aclosing(records) as rest:  # type: ignore[type-var]
        if first is not None:
            yield first
            async for record in rest:
                yield record


async def _listed(records: list[BlockRecord]) -> AsyncIterator[BlockRecord]:
    for record in records:
        yield record
