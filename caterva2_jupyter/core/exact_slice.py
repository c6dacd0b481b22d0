"""The exact slice of a selection as records: the box in C order, cut in pieces, each a block of its own.

To codecs and checksums such an answer is a dataset of one axis, whose chunks are the pieces; its checksums
also cover a digest of the selection, so that the values of another selection fail like damaged ones.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError
from .blocks import BlockRecord
from .metadata import Geometry
from .selection import AxisItems, Selection

__all__ = ["PIECE_NBYTES", "PieceAssembler", "encode_pieces", "piece_geometry", "selection_digest", "slice_seed"]

PIECE_NBYTES = 1 << 20
"""Decoded bytes of a piece; the last one is shorter."""


def selection_digest(selection: Selection) -> str:
    """What names a selection, however its ranges are written (32 hex digits).

    Examples
    --------
    >>> from .selection import AxisRange
    >>> selection_digest(Selection((AxisRange(0, 5, 2),))) == selection_digest(Selection((AxisRange(0, 6, 2),)))
    True
    """
    digest = hashlib.blake2b(digest_size=16)
    for axis in selection.axes:
        if isinstance(axis, AxisItems):
            digest.update(b"i%d:" % len(axis))
            digest.update(axis.items.astype("<i8").tobytes())
        else:
            step = axis.step if len(axis) > 1 else 1
            digest.update(b"r%d:%d:%d:" % (axis.start, len(axis), step))
    return digest.hexdigest()


def slice_seed(seed: int, digest: str) -> int:
    """What the checksums of an exact slice are begun with.

    Parameters
    ----------
    seed : int
        ``checksum_seed`` of the dataset's version.
    digest : str
        ``selection_digest``.
    """
    return zlib.crc32(f"slice\0{digest}".encode(), seed)


def piece_geometry(geometry: Geometry, selection: Selection) -> Geometry:
    """The pieces of a slice as the chunks of an array of one axis, one block each."""
    items = max(1, PIECE_NBYTES // max(geometry.itemsize, 1))
    return Geometry((selection.size,), (items,), (items,), geometry.dtype, padded=False)


def encode_pieces(seed: int, box: npt.NDArray[Any], pieces: Geometry, fast: bool = False) -> list[BlockRecord]:
    """Compress a box piece by piece, ZSTD level 1 with shuffle (``fast``: LZ4).

    Parameters
    ----------
    seed : int
        ``slice_seed``.
    box : ndarray
    pieces : Geometry
        ``piece_geometry`` of the selection.
    """
    from .codec import encode_blocks

    raw = memoryview(box.tobytes())
    size = pieces.block_nbytes
    return [
        encode_blocks(seed, number, [0], raw[number * size : (number + 1) * size], pieces, fast)
        for number in range(pieces.nchunks)
    ]


class PieceAssembler:
    """Builds the box of a selection from the pieces of an exact slice, in order.

    Parameters
    ----------
    geometry : Geometry
        Of the dataset.
    selection : Selection

    Attributes
    ----------
    out : ndarray, shape ``selection.shape``, dtype of the dataset
        The box, once ``finish`` has returned.
    """

    def __init__(self, geometry: Geometry, selection: Selection) -> None:
        self._pieces = piece_geometry(geometry, selection)
        self.out: npt.NDArray[Any] = np.empty(selection.shape, geometry.dtype)
        self._raw = self.out.reshape(-1).view(np.uint8)
        self._next = 0

    def add(self, record: BlockRecord) -> None:
        """Take the next piece.

        Raises
        ------
        IntegrityError
            When it is not the next one, or does not decode.
        """
        from .codec import decode_record

        if record.nchunk != self._next or record.ids.tolist() != [0]:
            raise IntegrityError(f"piece {record.nchunk} of a slice came in place of piece {self._next}")
        raw = decode_record(record, self._pieces)
        start = record.nchunk * self._pieces.block_nbytes
        if len(raw) != min(self._pieces.block_nbytes, len(self._raw) - start):
            raise IntegrityError(f"piece {record.nchunk} of a slice has the wrong length")
        self._raw[start : start + len(raw)] = raw
        self._next += 1

    def finish(self) -> None:
        """Say that no more pieces come.

        Raises
        ------
        IntegrityError
            When some are missing.
        """
        if self._next != self._pieces.nchunks:
            raise IntegrityError(f"{self._next} of the {self._pieces.nchunks} pieces of a slice came")
