"""Records as buffers for another process, and the box of a selection built from them there.

What packs trusts the records to be verified; what unpacks checks only that a buffer is not misread. Decoding checks
the rest against the geometry.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.assembly import Assembler
from ..core.blocks import BlockRecord
from ..core.chunk_grid import BlockPlan, ChunkProjection
from ..core.exact_slice import PieceAssembler, selection_digest
from ..core.metadata import Geometry
from ..core.selection import Selection
from ..errors import IntegrityError

__all__ = ["BoxBuilder", "Buffer", "pack_records", "unpack_records"]

Buffer = bytes | bytearray | memoryview

_HEAD = struct.Struct("<QII")


def pack_records(records: Iterable[BlockRecord]) -> list[Buffer]:
    """Records as buffers, two for each.

    Examples
    --------
    >>> from ..core.blocks import make_record
    >>> record = make_record(0, 7, bytes(32), [0, 2], [b"ab", b"c"])
    >>> (again,) = unpack_records(pack_records([record]))
    >>> again.nchunk, again.ids.tolist(), bytes(again.body)
    (7, [0, 2], b'abc')
    """
    buffers: list[Buffer] = []
    for record in records:
        table = np.concatenate([record.ids, record.sizes, record.crcs]).astype("<u4", copy=False)
        buffers.append(_HEAD.pack(record.nchunk, len(record.ids), len(record.head)) + table.tobytes() + record.head)
        buffers.append(record.body)
    return buffers


def unpack_records(buffers: Sequence[Buffer]) -> Iterator[BlockRecord]:
    """The records of ``pack_records``."""
    for first, body in zip(buffers[::2], buffers[1::2], strict=True):
        nchunk, nblocks, head_nbytes = _HEAD.unpack_from(first)
        if len(first) != _HEAD.size + 12 * nblocks + head_nbytes:
            raise IntegrityError("not a record")
        table = np.frombuffer(first, "<u4", 3 * nblocks, _HEAD.size).reshape(3, nblocks)
        yield BlockRecord(nchunk, bytes(first[_HEAD.size + 12 * nblocks :]), table[0], table[1], table[2], body)


class BoxBuilder:
    """Decodes the records of one answer, in order, into the box of its selection.

    Parameters
    ----------
    geometry : Geometry
    selection : Selection
    digest : str
        Of the answer: not empty when its records are the pieces of an exact slice.

    Raises
    ------
    IntegrityError
        When the answer is that of another selection.
    """

    def __init__(self, geometry: Geometry, selection: Selection, digest: str = "") -> None:
        if digest and digest != selection_digest(selection):
            raise IntegrityError("a slice of another selection came")
        self._pieces = PieceAssembler(geometry, selection) if digest else None
        self._assembler = None if digest else Assembler(geometry, selection)
        self._projections = iter(() if digest else BlockPlan(geometry, selection))
        self._now: ChunkProjection | None = None
        self._missing: set[int] = set()
        if not digest:
            self._next_chunk()

    def _next_chunk(self) -> None:
        if self._missing:
            raise IntegrityError("blocks are missing in the answer of the source")
        self._now = next(self._projections, None)
        self._missing = set(self._now.blocks.tolist()) if self._now is not None else set()

    def add(self, record: BlockRecord) -> None:
        """Take the next record.

        Raises
        ------
        IntegrityError
            When it is not the next one, or does not decode.
        """
        if self._pieces is not None:
            self._pieces.add(record)
            return
        assert self._assembler is not None
        while self._now is not None and self._now.nchunk != record.nchunk:
            self._next_chunk()
        if self._now is None:
            raise IntegrityError(f"the source sent chunk {record.nchunk}, which was not asked for")
        self._assembler.add(self._now, record)
        self._missing = set() if record.is_whole else self._missing.difference(record.ids.tolist())

    def finish(self) -> npt.NDArray[Any]:
        """The box, shape ``selection.shape``, dtype of the dataset (object for strings of variable length).

        Raises
        ------
        IntegrityError
            When something of it did not come.
        """
        if self._pieces is not None:
            self._pieces.finish()
            return self._pieces.out
        assert self._assembler is not None
        while self._now is not None:
            self._next_chunk()
        return self._assembler.out
