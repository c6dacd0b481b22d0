"""A reduction in a worker process: records in, tile by tile, the bytes of the result out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.assembly import Assembler
from ..core.metadata import Geometry
from ..core.reduce_request import ReduceRequest
from ..errors import IntegrityError
from .records import Buffer, unpack_records
from .reduction import Reduction

__all__ = ["reduce_records"]


def reduce_records(
    arguments: Mapping[str, Any], parts: Iterator[Sequence[Buffer]]
) -> tuple[dict[str, Any], list[Buffer]]:
    """Reduce the records of ``Reduction.parts``: ``geometry`` and ``request`` are JSON forms.

    Raises
    ------
    IntegrityError
        When records are missing, or do not decode.
    """
    reduction = Reduction(Geometry.from_json(arguments["geometry"]), ReduceRequest.from_json(arguments["request"]))
    state = reduction.begin() if reduction.taken is None else ()
    taken = None if reduction.taken is None else Assembler(reduction.geometry, reduction.taken)
    tiles = reduction.parts()
    part = next(tiles, None)
    while part is not None:
        tile, projection = part
        records = list(unpack_records(next(parts, ())))
        was_whole = any(record.is_whole for record in records)
        came = set().union(*(record.ids.tolist() for record in records))
        if not was_whole and not came.issuperset(tile.projection.blocks.tolist()):
            raise IntegrityError("blocks are missing for a reduction")
        if was_whole:
            tile = reduction.whole_chunk(projection)
        box = Assembler(reduction.geometry, tile.selection) if taken is None else taken
        for record in records:
            box.add(tile.projection if taken is None else projection, record)
        if taken is None:
            reduction.add(state, [reduction.partial(box.out, tile.start)])
        try:
            part = tiles.send(was_whole)
        except StopIteration:
            part = None
    values = reduction.items(taken.out) if taken is not None else reduction.finish(state=state)
    raw: Buffer = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data if values.nbytes else b""
    return {"shape": list(values.shape)}, [raw]
