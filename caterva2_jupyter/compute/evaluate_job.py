"""An expression in a worker process: it asks for its operands' blocks as it needs them, and answers with records.

Operands may be expressions themselves: those are evaluated along with it, so that one worker does it all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.codec import encode_blocks
from ..core.exact_slice import encode_pieces, piece_geometry
from ..core.metadata import Geometry
from ..core.reduce_request import ReduceRequest
from ..core.selection import AxisItems, AxisRange, AxisSelection, Selection
from ..errors import IntegrityError
from .boxes import Answer
from .evaluation import BoundExpression, Fetch, KeptBoxes, Signature, bind
from .expression import parse
from .records import BoxBuilder, Buffer, pack_records, unpack_records
from .reduction import Reduction

__all__ = ["ASKING", "Ask", "AskingJob", "block_selection", "evaluate"]

Array = npt.NDArray[Any]
Ask = Callable[[Any], Sequence[Buffer]]
"""Asks for what JSON says, and waits for the buffers."""
AskingJob = Callable[[Mapping[str, Any], Ask], Answer]


def evaluate(arguments: Mapping[str, Any], ask: Ask) -> Answer:
    """Values of an expression as packed records, or what they are reduced to.

    Parameters
    ----------
    arguments : mapping
        ``expression``: text; ``operands``: by name ``{"geometry", "leaf"}`` of an array, where ``leaf`` is what it is
        asked for by, or ``{"expression", "operands"}``; ``geometry`` of the result; ``seed`` of its checksums; and
        either ``selection`` and ``fast`` for an exact slice, or ``nchunk`` and ``ids`` for blocks, or ``reduce``, the
        JSON form of a ``ReduceRequest``.
    ask : callable
        Told ``{"leaf", "selection"}``, it gives the digest of the answer and its packed records.
    """
    bound, fetch = _bound(arguments, ask)
    geometry = Geometry.from_json(arguments["geometry"])
    if bound.shape != geometry.shape or bound.dtype != geometry.dtype.newbyteorder("="):
        raise IntegrityError("an expression of another shape or dtype than was announced")
    seed = int(arguments["seed"])
    if "selection" in arguments:
        selection = Selection.from_json(arguments["selection"], geometry.shape)
        box = bound.box(selection, fetch)
        return {}, pack_records(encode_pieces(seed, box, piece_geometry(geometry, selection), bool(arguments["fast"])))
    if "reduce" in arguments:
        reduction = Reduction(geometry, ReduceRequest.from_json(arguments["reduce"]))
        values = _reduced(bound, fetch, reduction)
        return {}, pack_records(encode_pieces(seed, values, reduction.pieces) if values.size else [])
    nchunk, ids = int(arguments["nchunk"]), [int(i) for i in arguments["ids"]]
    raw = _blocks(bound, fetch, geometry, nchunk, ids)
    return {}, pack_records([encode_blocks(seed, nchunk, ids, raw, geometry)])


def _reduced(bound: BoundExpression, fetch: Fetch, reduction: Reduction) -> Array:
    """A reduction of an expression's values, tile by tile: no more of them than a tile are there at once."""
    if not reduction.selection.size:
        return reduction.of_nothing()
    if reduction.taken is not None:
        return reduction.items(bound.box(reduction.taken, fetch))
    state = reduction.begin()
    for projection in reduction.plan:
        for tile in reduction.tiles(projection):
            reduction.add(state, [reduction.partial(bound.box(tile.selection, fetch), tile.start)])
    return reduction.finish(state=state)


def _bound(form: Mapping[str, Any], ask: Ask) -> tuple[BoundExpression, Fetch]:
    signatures: dict[str, Signature] = {}
    arrays: dict[str, tuple[Geometry, int]] = {}
    inner: dict[str, tuple[BoundExpression, Fetch]] = {}
    for name, operand in form["operands"].items():
        if "expression" in operand:
            inner[name] = _bound(operand, ask)
            signatures[name] = Signature(inner[name][0].shape, inner[name][0].dtype)
        else:
            geometry = Geometry.from_json(operand["geometry"])
            arrays[name] = geometry, operand["leaf"]
            signatures[name] = Signature(geometry.shape, geometry.dtype)

    def fetch(name: str, selection: Selection) -> Array:
        if name in inner:
            bound, fetch_inner = inner[name]
            return bound.box(selection, fetch_inner)
        geometry, leaf = arrays[name]
        digest, *packed = ask({"leaf": leaf, "selection": selection.to_json()})
        builder = BoxBuilder(geometry, selection, bytes(digest).decode())
        for record in unpack_records(packed):
            builder.add(record)
        return builder.finish()

    return bind(parse(form["expression"]), signatures), KeptBoxes(fetch)


def _blocks(bound: BoundExpression, fetch: Fetch, geometry: Geometry, nchunk: int, ids: Sequence[int]) -> bytes:
    """Decoded blocks of a chunk, one after another, filled up with zeros where they reach over the edge."""
    out = np.zeros((len(ids), *geometry.blocks), geometry.dtype)
    for group in _groups(geometry, ids):
        selection, starts = block_selection(geometry, nchunk, [ids[i] for i in group])
        box = bound.box(selection, fetch)
        for i in group:
            # Where a block's items are in the box, and how many there are of them along each axis.
            coords = np.unravel_index(ids[i], geometry.block_grid) if geometry.ndim else ()
            places = [begins[int(c)] for begins, c in zip(starts, coords, strict=True)]
            part = box[tuple(slice(first, first + count) for first, count in places)]
            out[i][tuple(slice(0, count) for _, count in places)] = part
    return out.tobytes()


def _groups(geometry: Geometry, ids: Sequence[int]) -> list[list[int]]:
    """Positions of blocks that are computed together: all, where they make up about a box."""
    if not geometry.ndim:
        return [[0]]
    coords = np.unravel_index(np.asarray(ids, np.int64), geometry.block_grid)
    if math.prod(len(np.unique(c)) for c in coords) <= 2 * len(ids):
        return [list(range(len(ids)))]
    return [[i] for i in range(len(ids))]


def block_selection(
    geometry: Geometry, nchunk: int, ids: Sequence[int]
) -> tuple[Selection, list[dict[int, tuple[int, int]]]]:
    """The box that some blocks of a chunk lie in, and by block position along each axis, first and number of its items.

    Examples
    --------
    >>> geometry = Geometry((10,), (6,), (2,), np.dtype("f8"))
    >>> selection, starts = block_selection(geometry, 1, [0, 1])
    >>> selection.to_json(), starts
    ([[6, 10, 1]], [{0: (0, 2), 1: (2, 2)}])
    """
    axes: list[AxisSelection] = []
    starts: list[dict[int, tuple[int, int]]] = []
    if geometry.ndim:
        per_axis = np.unravel_index(np.asarray(ids, np.int64), geometry.block_grid)
        sizes = zip(geometry.shape, geometry.chunks, geometry.blocks, geometry.chunk_coords(nchunk), strict=True)
        for found, (n, chunk, block, coord) in zip(per_axis, sizes, strict=True):
            begins: dict[int, tuple[int, int]] = {}
            runs: list[Array] = []
            position = 0
            for b in np.unique(found).tolist():
                first = coord * chunk + b * block
                count = max(0, min(first + block, (coord + 1) * chunk, n) - first)
                begins[b] = (position, count)
                runs.append(np.arange(first, first + count, dtype=np.int64))
                position += count
            items = np.concatenate(runs)
            dense = len(items) > 0 and int(items[-1]) - int(items[0]) + 1 == len(items)
            axes.append(AxisRange(int(items[0]), int(items[-1]) + 1) if dense else AxisItems(items))
            starts.append(begins)
    return Selection(tuple(axes)), starts


ASKING: Mapping[str, AskingJob] = {"evaluate": evaluate}
