"""What worker processes are asked to do: tables of jobs by name, each a function of JSON and buffers.

``JOBS`` have all their buffers at once; ``STREAMED`` ones take them part by part, so that what they read may be far
larger than what they keep. Every job checks what it is given and raises errors of ``errors``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.codec import decode_chunk_bytes
from .boxes import Answer, keyed, read_box, values_answer
from .frames import chunk, frame
from .records import Buffer
from .reduce_job import reduce_records
from .zarr_chunk import zarr_chunk

__all__ = ["JOBS", "STREAMED", "Answer", "Job", "StreamedJob", "values"]

Job = Callable[[Mapping[str, Any], Sequence[Buffer]], Answer]
StreamedJob = Callable[[Mapping[str, Any], Iterator[Sequence[Buffer]]], Answer]


def values(arguments: Mapping[str, Any], parts: Iterator[Sequence[Buffer]]) -> Answer:
    """Decoded values of a selection: arguments of ``boxes.read_box`` and ``boxes.keyed``, and ``max_nbytes``."""
    geometry, box = read_box(arguments, parts)
    return values_answer(keyed(arguments, geometry, box), arguments.get("max_nbytes"))


def box(arguments: Mapping[str, Any], parts: Iterator[Sequence[Buffer]]) -> Answer:
    """The values of a selection as they are in memory, in C order and the dataset's byte order."""
    _, values = read_box(arguments, parts)
    plain = np.ascontiguousarray(values)
    raw: Buffer = plain.reshape(-1).view(np.uint8).data if plain.nbytes else b""
    return {"shape": list(values.shape)}, [raw]


def chunk_bytes(arguments: Mapping[str, Any], buffers: Sequence[Buffer]) -> Answer:
    """What is in a chunk that is not part of an array, of ``max_nbytes`` at most."""
    (data,) = buffers
    return {}, [decode_chunk_bytes(bytes(data), int(arguments["max_nbytes"])).data]


JOBS: Mapping[str, Job] = {"chunk": chunk, "chunk_bytes": chunk_bytes}
STREAMED: Mapping[str, StreamedJob] = {
    "box": box,
    "frame": frame,
    "reduce": reduce_records,
    "values": values,
    "zarr_chunk": zarr_chunk,
}
