"""Any other file as a virtual dataset: its bytes in chunks of 4 MiB, compressed when they are asked for.

Nothing is copied or kept, so a file of any size takes the memory of the blocks that are being read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..core.blocks import BlockRecord
from ..core.codec import encode_blocks
from ..core.metadata import Geometry
from ..errors import DatasetChangedError
from .safe_open import read_at

__all__ = ["BLOCK_NBYTES", "CHUNK_NBYTES", "PART_NBYTES", "plain_geometry", "read_parts", "read_plain_blocks"]

CHUNK_NBYTES = 4 << 20
BLOCK_NBYTES = 64 << 10
PART_NBYTES = 256 << 10


def plain_geometry(nbytes: int) -> Geometry:
    """The geometry of a file of that many bytes.

    >>> plain_geometry(5 << 20).nchunks
    2
    """
    return Geometry((nbytes,), (CHUNK_NBYTES,), (BLOCK_NBYTES,), np.dtype("u1"), layout="flat", padded=False)


def read_plain_blocks(fd: int, geometry: Geometry, seed: int, nchunk: int, wanted: Sequence[int]) -> list[BlockRecord]:
    """Records of blocks of a chunk of an open file.

    Raises
    ------
    DatasetChangedError
        When the file is shorter than its geometry.
    """
    start, chunk_nbytes = nchunk * CHUNK_NBYTES, geometry.chunk_nbytes(nchunk)
    parts: list[bytes] = []
    for first, stop in _runs(wanted):
        begin, end = first * BLOCK_NBYTES, min(stop * BLOCK_NBYTES, chunk_nbytes)
        data = read_at(fd, end - begin, start + begin)
        if len(data) < end - begin:
            raise DatasetChangedError("the file was truncated")
        parts.append(data)
    raw = parts[0] if len(parts) == 1 else b"".join(parts)
    return [encode_blocks(seed, nchunk, wanted, raw, geometry)]


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Consecutive numbers as ``(first, stop)``."""
    first = previous = numbers[0]
    for number in numbers[1:]:
        if number != previous + 1:
            yield first, previous + 1
            first = number
        previous = number
    yield first, previous + 1


def read_parts(fd: int, start: int, stop: int) -> Iterator[bytes]:
    """The bytes of an open file from ``start`` to ``stop``, in parts.

    Raises
    ------
    DatasetChangedError
        When the file ends before.
    """
    while start < stop:
        data = read_at(fd, min(PART_NBYTES, stop - start), start)
        if not data:
            raise DatasetChangedError("the file was truncated")
        yield data
        start += len(data)
