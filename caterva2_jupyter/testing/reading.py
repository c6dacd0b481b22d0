"""Reads through a source, put together: what a client gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from ..compute.reduction import Reduction
from ..core.answer_choice import Mode
from ..core.assembly import Assembler
from ..core.blocks import BlockRecord, checksum_seed
from ..core.chunk_grid import BlockPlan, ChunkProjection
from ..core.exact_slice import PieceAssembler, selection_digest, slice_seed
from ..core.metadata import Entry
from ..core.reduce_request import Operation, ReduceRequest, Working
from ..core.selection import Selection
from ..core.source import BlockStream, Source
from ..core.wire import ReadRequest
from ..storage.closing import close_stream
from .arrays import Array

__all__ = ["assemble", "collect", "plan_blocks", "read_array", "reduce_array"]


async def collect(stream: AsyncIterator[BlockRecord]) -> list[BlockRecord]:
    return [record async for record in stream]


def assemble(entry: Entry, selection: Selection, records: Iterable[BlockRecord]) -> Array:
    assert entry.geometry is not None
    assembler = Assembler(entry.geometry, selection)
    projections = {p.nchunk: p for p in BlockPlan(entry.geometry, selection)}
    for record in records:
        record.verify(checksum_seed(entry.id, entry.version))
        assembler.add(projections[record.nchunk], record)
    return assembler.out


async def read_array(
    source: Source, path: str, selection: Selection | None = None, mode: Mode = "blocks", fast: bool = False
) -> Array:
    """Read a selection (None: all) of a dataset, every record verified, whichever answer comes.

    Parameters
    ----------
    source : Source
    path : str
    mode : {"blocks", "auto", "slice"}

    Returns
    -------
    ndarray
        The box; no axis is dropped.
    """
    form = None if selection is None else selection.to_json()
    stream = await source.read_blocks(ReadRequest(source.root, path, selection=form, mode=mode, fast=fast))
    assert stream.entry.geometry is not None
    selection = selection or Selection.whole(stream.entry.geometry.shape)
    records = await collect(stream.records)
    return _join(stream, selection, records) if stream.digest else assemble(stream.entry, selection, records)


def _join(stream: BlockStream, selection: Selection, pieces: Iterable[BlockRecord]) -> Array:
    """The box of an exact slice."""
    entry = stream.entry
    assert entry.geometry is not None
    assert stream.digest == selection_digest(selection)
    assembler = PieceAssembler(entry.geometry, selection)
    for piece in pieces:
        piece.verify(slice_seed(checksum_seed(entry.id, entry.version), stream.digest))
        assembler.add(piece)
    assembler.finish()
    return assembler.out


async def reduce_array(source: Source, path: str, op: Operation, **how: Any) -> Array:
    """The result of a reduction (fields of ``ReduceRequest``), every record verified."""
    entry = await source.entry(path)
    assert entry.geometry is not None
    request = ReduceRequest(source.root, path, op, version=entry.version, **how)
    stream = await source.reduce(request)
    reduction = Reduction(entry.geometry, request)
    assert (stream.entry.id, stream.entry.version, stream.digest) == (entry.id, entry.version, reduction.digest)
    result = reduction.result
    assembler = PieceAssembler(result, Selection.whole(result.shape))
    try:
        async for item in stream.records:
            if not isinstance(item, Working):
                item.verify(slice_seed(checksum_seed(entry.id, entry.version), stream.digest))
                assembler.add(item)
    finally:
        await close_stream(stream.records)
    if result.size:
        assembler.finish()
    return assembler.out


def plan_blocks(entry: Entry) -> list[tuple[int, int]]:
    """(chunk, block) of a whole dataset in the plan's order."""
    assert entry.geometry is not None
    plan: Iterable[ChunkProjection] = BlockPlan(entry.geometry, Selection.whole(entry.geometry.shape))
    return [(p.nchunk, block) for p in plan for block in p.blocks.tolist()]
