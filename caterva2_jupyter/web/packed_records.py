"""What a source answers, packed in parts for a worker process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from ..compute.records import Buffer, pack_records
from ..core.blocks import BlockRecord
from ..core.selection import Selection
from ..core.source import BlockStream
from ..errors import UnsupportedDatasetError

__all__ = ["box_arguments", "packed_parts"]

# The first part is taken before a worker is: one that waits for a slow source is of no use to others.
FIRST_NBYTES = 8 << 20
PART_NBYTES = 4 << 20


def box_arguments(stream: BlockStream, selection: Selection) -> dict[str, Any]:
    """What ``compute.boxes.read_box`` has to know of an answer."""
    geometry = stream.entry.geometry
    if geometry is None:
        raise UnsupportedDatasetError(f"{stream.entry.path!r} has no data to read")
    return {"geometry": geometry.to_json(), "selection": selection.to_json(), "digest": stream.digest}


async def packed_parts(stream: BlockStream) -> AsyncIterator[list[Buffer]]:
    """The records of a stream, some at a time; closing it closes the stream."""
    batch: list[BlockRecord] = []
    nbytes, most = 0, FIRST_NBYTES
    async with aclosing(stream.records) as records:  # type: ignore[type-var]
        async for record in records:
            batch.append(record)
            nbytes += len(record.body)
            if nbytes >= most:
                yield pack_records(batch)
                batch, nbytes, most = [], 0, PART_NBYTES
    yield pack_records(batch)
