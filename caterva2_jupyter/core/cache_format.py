"""How blocks look in the cache's files: an append-only data log and a journal of checksummed records.

Per dataset version, one directory with three files:

``meta.json``
    ``{"format": 1, "root", "path", "id", "version", "geometry"}``.
``data``
    Heads and block bodies in the order of arrival. Nothing in it says what it is.
``journal``
    ``JOURNAL_DTYPE`` records. A block's record is appended after its bytes were written, and is the only
    thing that makes them count. Later records of a block replace earlier ones; a tombstone removes.

Replay stops at the first record that fails its own checksum (a torn tail after a crash); the bytes of
a block are checked against ``crc``, the checksum that its origin made (``blocks``), whenever they are
read. So a cache may lose its tail, but never lies. No file is opened here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "FORMAT", "JOURNAL_DTYPE", "TOMBSTONE", "block_entries", "replay", "tombstone_entries"]

FORMAT = 1
BLOCK, TOMBSTONE = 1, 2
_MAGIC = 0xC2B1

JOURNAL_DTYPE = np.dtype(
    [
        ("magic", "<u2"),
        ("kind", "u1"),
        ("zero", "u1"),
        ("block", "<u4"),
        ("nchunk", "<u8"),
        ("offset", "<u8"),  # of the block's bytes in the data log
        ("size", "<u4"),
        ("crc", "<u4"),  # of the block, as its origin made it
        ("head_offset", "<u8"),  # of the chunk header that it decodes with
        ("head_size", "<u4"),
        ("record_crc", "<u4"),  # of the 44 bytes before it, seeded with the dataset's seed
    ]
)

Journal = npt.NDArray[np.void]
Column = npt.NDArray[np.unsignedinteger[Any]]


def _seal(entries: Journal, seed: int) -> Journal:
    raw, size = entries.tobytes(), JOURNAL_DTYPE.itemsize
    entries["record_crc"] = [zlib.crc32(raw[at : at + size - 4], seed) for at in range(0, len(raw), size)]
    return entries


def block_entries(
    seed: int,
    nchunk: int | Column,
    blocks: Iterable[tuple[int, int, int]] | npt.NDArray[np.int64],
    offset: int | Column,
    head_offset: int | Column,
    head_size: int | Column,
) -> Journal:
    """Journal records of blocks that lie one after another in the data log from ``offset``, or at one each.

    Parameters
    ----------
    nchunk, head_offset, head_size : int or array
        Of all the blocks, or of each.
    blocks : iterable of (block number, size in bytes, checksum), or ndarray of int64, shape (n, 3)
    """
    table = np.array(blocks if isinstance(blocks, np.ndarray) else list(blocks), dtype=np.int64).reshape(-1, 3)
    entries = np.zeros(len(table), JOURNAL_DTYPE)
    entries["magic"], entries["kind"], entries["nchunk"] = _MAGIC, BLOCK, nchunk
    entries["block"], entries["size"], entries["crc"] = table[:, 0], table[:, 1], table[:, 2]
    if isinstance(offset, int):
        offset = offset + np.concatenate([[0], np.cumsum(table[:-1, 1])])
    entries["offset"] = offset
    entries["head_offset"], entries["head_size"] = head_offset, head_size
    return _seal(entries, seed)


def tombstone_entries(seed: int, nchunk: int | Column, blocks: Iterable[int]) -> Journal:
    """Journal records that remove blocks."""
    numbers = list(blocks)
    entries = np.zeros(len(numbers), JOURNAL_DTYPE)
    entries["magic"], entries["kind"], entries["nchunk"], entries["block"] = _MAGIC, TOMBSTONE, nchunk, numbers
    return _seal(entries, seed)


def _lies_within(entries: Journal, offset: str, size: str, data_nbytes: int) -> npt.NDArray[np.bool_]:
    """Which records' bytes end before the data log does (in steps: the sum of the two could overflow)."""
    end = np.uint64(data_nbytes)
    starts: npt.NDArray[np.uint64] = entries[offset]
    within: npt.NDArray[np.bool_] = (starts <= end) & (entries[size] <= end - np.minimum(starts, end))
    return within


def replay(journal: bytes, seed: int, data_nbytes: int) -> Journal:
    """The valid records at the start of a journal.

    Parameters
    ----------
    journal : bytes
        The whole file; a torn last record is ignored.
    data_nbytes : int
        Length of the data log: a record that points past it ends the replay.
    """
    count = len(journal) // JOURNAL_DTYPE.itemsize
    entries = np.frombuffer(journal, JOURNAL_DTYPE, count)
    within = _lies_within(entries, "offset", "size", data_nbytes)
    within &= _lies_within(entries, "head_offset", "head_size", data_nbytes)
    fine = (entries["magic"] == _MAGIC) & within & ((entries["kind"] == BLOCK) | (entries["kind"] == TOMBSTONE))
    good = int(np.argmin(fine)) if not fine.all() else count
    size = JOURNAL_DTYPE.itemsize
    crcs = entries["record_crc"].tolist()
    for i in range(good):
        if zlib.crc32(journal[i * size : (i + 1) * size - 4], seed) != crcs[i]:
            return entries[:i]
    return entries[:good]
