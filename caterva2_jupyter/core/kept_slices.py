"""Exact slices as they are kept in a cache: as complete chunks of an array that is as long as there are digests.

They lie beside the blocks of their version, in files of the same format (``cache_format``), so that whoever may read
these (``client/local_cache``) may read slices, too. When a slice is asked for is not decided here.
"""

from __future__ import annotations

import struct

import numpy as np

from .blocks import WHOLE, BlockRecord, make_record
from .metadata import Entry, Geometry

__all__ = ["MAX_PIECES", "pack_piece", "piece_place", "slices_entry", "unpack_piece"]

MAX_PIECES = 256
"""Of a slice that is kept."""
_STORE = Geometry((1 << 62,), (1,), (1,), np.dtype("u1"), padded=False)
_DIGEST_NBYTES = 16
_CRC = struct.Struct("<I")


def slices_entry(path: str, dataset_id: str, version: str) -> Entry:
    """What the slices of a version are kept as."""
    return Entry(path, "array", id=dataset_id, version=f"{version}#slices", geometry=_STORE)


def piece_place(digest: str, number: int) -> int:
    """The chunk that a piece of a slice is kept as, by the digest of its selection."""
    return int(digest[:12], 16) * MAX_PIECES + number


def pack_piece(store_seed: int, digest: str, piece: BlockRecord) -> BlockRecord:
    """A piece as it is kept."""
    head = bytes.fromhex(digest) + _CRC.pack(int(piece.crcs[0])) + piece.head
    return make_record(store_seed, piece_place(digest, piece.nchunk), head, [WHOLE], [memoryview(piece.body)])


def unpack_piece(kept: BlockRecord, digest: str, number: int) -> BlockRecord | None:
    """A piece as it came, not verified; None when what is kept there is another slice's.

    Selections whose digests begin alike share a place.
    """
    start = _DIGEST_NBYTES + _CRC.size
    if not kept.is_whole or len(kept.head) < start or kept.head[:_DIGEST_NBYTES] != bytes.fromhex(digest):
        return None
    (crc,) = _CRC.unpack_from(kept.head, _DIGEST_NBYTES)
    sizes = np.array([len(kept.body)], np.uint32)
    return BlockRecord(number, kept.head[start:], np.zeros(1, np.uint32), sizes, np.array([crc], np.uint32), kept.body)
