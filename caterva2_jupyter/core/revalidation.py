"""Which blocks of an older version are those of a new one: digests to send, answers to check.

Who holds blocks of an older version sends one digest per chunk of them; the source answers in one word that
the chunk's blocks are the same in the new version, or tells each block's digest. Equality is judged over the
bytes (head and body), because a block's checksum depends on the version. What is the same is taken over
only when the new version's checksum, as its source made it, holds over the bytes that are held.

Values in, values out: nothing is read, kept or sent here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from .blocks import BlockRecord, make_record
from .metadata import Geometry

__all__ = [
    "DIGEST_NBYTES",
    "SAME_DTYPE",
    "ChunkMap",
    "Comparison",
    "KnownBlocks",
    "SameRecord",
    "adopt",
    "adopt_run",
    "chunk_digest",
    "first_of_each",
    "is_same_grid",
    "joined_digest",
    "runs_of",
]

DIGEST_NBYTES = 8
MAX_RUN_BLOCKS = 64
"""Known blocks of chunks that one digest is about: what has to be told of each when one of them changed."""
SAME_DTYPE = np.dtype([("block", "<u4"), ("size", "<u4"), ("crc", "<u4"), ("digest", f"V{DIGEST_NBYTES}")])
"""One row per block: its number, bytes, checksum under the new version, digest of head and body."""

Rows = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class KnownBlocks:
    """Blocks of which whoever asks has the bytes of an older version.

    Attributes
    ----------
    blocks : ndarray of bool
        One per block of the request's window.
    digests : bytes
        One ``chunk_digest`` per chunk that has such blocks, in the plan's order.
    in_runs : bool
        One per run of such chunks (``runs_of``), joined (``joined_digest``).
    """

    blocks: npt.NDArray[np.bool_]
    digests: bytes
    in_runs: bool = False


@dataclass(frozen=True, slots=True)
class SameRecord:
    """What a source says of one chunk's known blocks.

    Attributes
    ----------
    nchunk : int
    proof : bytes
        Of a chunk whose known blocks are all the same: digest of their numbers, sizes and new checksums
        (``SAME_DTYPE``, without the digests). Empty for others.
    rows : ndarray of ``SAME_DTYPE``
        Of others: every known block as it is now, for whoever asks to compare.
    """

    nchunk: int
    proof: bytes
    rows: Rows


def _rows(records: Iterable[BlockRecord], with_digests: bool = True) -> Rows:
    """Rows of all blocks, ascending; of a block that is there twice, the first."""
    tables = [np.zeros(0, SAME_DTYPE)]
    for record in records:
        table = np.zeros(len(record.ids), SAME_DTYPE)
        table["block"], table["size"], table["crc"] = record.ids, record.sizes, record.crcs
        if with_digests:
            table["digest"] = np.frombuffer(_block_digests(record), SAME_DTYPE["digest"])
        tables.append(table)
    return _first_rows(np.concatenate(tables))


def _first_rows(rows: Rows) -> Rows:
    first: Rows = rows[np.unique(rows["block"], return_index=True)[1]]
    return first


def _block_digests(record: BlockRecord) -> bytes:
    begun = hashlib.blake2b(len(record.head).to_bytes(4, "little") + record.head, digest_size=DIGEST_NBYTES)
    digests: list[bytes] = []
    for _, _, body in record.blocks():
        digest = begun.copy()
        digest.update(body)
        digests.append(digest.digest())
    return b"".join(digests)


def _digest_of(rows: Rows, *fields: str) -> bytes:
    columns = np.empty(len(rows), [(name, SAME_DTYPE[name]) for name in fields])
    for name in fields:
        columns[name] = rows[name]
    return hashlib.blake2b(columns.tobytes(), digest_size=DIGEST_NBYTES).digest()


def chunk_digest(records: Iterable[BlockRecord]) -> bytes:
    """Digest of some blocks of one chunk, whatever their version.

    Examples
    --------
    >>> one, other = (make_record(seed, 3, b"head", [1, 4], [b"a", b"b"]) for seed in (5, 6))
    >>> chunk_digest([one]) == chunk_digest([other.pick([1]), other.pick([4])])
    True
    """
    return _digest_of(_rows(records), "block", "digest")


def _proof(rows: Rows) -> bytes:
    return _digest_of(rows, "block", "size", "crc")


def first_of_each(records: Iterable[BlockRecord]) -> list[BlockRecord]:
    """The records of one chunk with each block once: where several have it, that of the first.

    Either a whole chunk or blocks: whichever the first record is.
    """
    found: list[BlockRecord] = []
    seen: set[int] = set()
    for record in records:
        if found and (record.is_whole or found[0].is_whole):
            continue
        fresh = [int(block) for block in record.ids if int(block) not in seen]
        if fresh:
            found.append(record.pick(fresh))
            seen.update(fresh)
    return found


def runs_of(counts: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Chunks that are compared together: as many, one after another, as have 64 known blocks in all.

    Parameters
    ----------
    counts : iterable of (chunk number, count of known blocks)
        In the plan's order; chunks without such blocks do not count.

    Examples
    --------
    >>> runs_of([(3, 40), (4, 0), (5, 24), (6, 1), (7, 400)])
    [[3, 5], [6], [7]]
    """
    runs: list[list[int]] = []
    total = 0
    for nchunk, count in counts:
        if not count:
            continue
        if runs and total + count <= MAX_RUN_BLOCKS:
            runs[-1].append(nchunk)
        else:
            runs.append([nchunk])
            total = 0
        total += count
    return runs


def joined_digest(digests: Sequence[bytes]) -> bytes:
    """The digest of a run of chunks, of their digests (or proofs); of a single one, that is it."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.blake2b(b"".join(digests), digest_size=DIGEST_NBYTES).digest()


class Comparison:
    """At the source: compares the known blocks of a request, run by run.

    Parameters
    ----------
    digests : bytes
        Of ``KnownBlocks``.
    runs : sequence of sequences of int, optional
        Chunks that a digest is about; each is a run of its own when not given.
    """

    def __init__(self, digests: bytes, runs: Sequence[Sequence[int]] | None = None) -> None:
        self._digests = digests
        self._ends = None if runs is None else {run[-1] for run in runs}
        self._run: list[tuple[int, Rows]] = []
        self._position = 0
        self._nchunk = -1
        self._begun: list[Rows] = []

    def add(self, records: Iterable[BlockRecord]) -> list[SameRecord]:
        """Take the next blocks, in the plan's order; what is said of the chunks that they complete.

        Raises
        ------
        RequestError
            When the request has fewer digests than chunks.
        """
        said: list[SameRecord] = []
        for record in records:
            if record.nchunk != self._nchunk:
                said += self._complete()
                self._nchunk = record.nchunk
            self._begun.append(_rows([record]))
        return said

    def finish(self) -> list[SameRecord]:
        """Say that no more blocks come; what is said of the last chunk.

        Raises
        ------
        RequestError
            When the request has not one digest per chunk.
        """
        said = self._complete() + self._complete_run()
        if self._position != len(self._digests):
            raise RequestError("known has more digests than chunks with such blocks")
        return said

    def _complete(self) -> list[SameRecord]:
        if not self._begun:
            return []
        self._run.append((self._nchunk, _first_rows(np.concatenate(self._begun))))
        self._begun = []
        return self._complete_run() if self._ends is None or self._nchunk in self._ends else []

    def _complete_run(self) -> list[SameRecord]:
        run, self._run = self._run, []
        if not run:
            return []
        start, self._position = self._position, self._position + DIGEST_NBYTES
        if self._position > len(self._digests):
            raise RequestError("known has fewer digests than chunks with such blocks")
        digest = joined_digest([_digest_of(rows, "block", "digest") for _, rows in run])
        if digest == self._digests[start : self._position]:
            first, rows = run[0]
            return [SameRecord(first, joined_digest([_proof(rows) for _, rows in run]), rows[:0])]
        return [SameRecord(nchunk, b"", rows) for nchunk, rows in run]


def adopt(same: SameRecord, held: Sequence[BlockRecord], seed: int) -> list[BlockRecord]:
    """Held blocks as records of the new version: those of which the source says that they are the same.

    Parameters
    ----------
    same : SameRecord
    held : sequence of BlockRecord
        Verified blocks of older versions of that chunk. A block may be in several; when all are said to be
        the same, the first counts (``first_of_each``).
    seed : int
        ``checksum_seed`` of the new version.

    Returns
    -------
    list of BlockRecord
        None of which the source's new checksum does not hold: those are to be fetched.
    """
    if same.proof:
        return adopt_run(same, [(same.nchunk, held)], seed)
    told = {int(row["block"]): row.tobytes() for row in same.rows}
    adopted: list[BlockRecord] = []
    for record in held:
        asked = [int(block) for block in record.ids if int(block) in told]
        if not asked:
            continue
        renewed = _renewed(record.pick(asked), same.nchunk, seed)
        equal = [int(row["block"]) for row in _rows([renewed]) if told[int(row["block"])] == row.tobytes()]
        if equal:
            adopted.append(renewed.pick(equal))
            for block in equal:
                del told[block]
    return adopted


def adopt_run(same: SameRecord, held: Sequence[tuple[int, Sequence[BlockRecord]]], seed: int) -> list[BlockRecord]:
    """As ``adopt``, of a run of chunks that are all the same, by number."""
    renewed = [[_renewed(record, nchunk, seed) for record in first_of_each(records)] for nchunk, records in held]
    proof = joined_digest([_proof(_rows(records, with_digests=False)) for records in renewed])
    return [record for records in renewed for record in records] if proof == same.proof else []


def _renewed(record: BlockRecord, nchunk: int, seed: int) -> BlockRecord:
    bodies = [body for _, _, body in record.blocks()]
    return make_record(seed, nchunk, record.head, record.ids.tolist(), bodies)


def is_same_grid(older: Geometry, newer: Geometry) -> bool:
    """Can blocks of one be blocks of the other? Only the lengths of axes may differ."""
    return older.ndim == newer.ndim and all(
        getattr(older, name) == getattr(newer, name) for name in ("chunks", "blocks", "dtype", "layout", "padded")
    )


class ChunkMap:
    """Where the chunks of a new version were in an older one, whose grid may have had another shape.

    Examples
    --------
    >>> old, new = (Geometry((4, n), (2, 2), (1, 2), np.dtype("i4")) for n in (4, 6))
    >>> [ChunkMap(old, new).older(nchunk) for nchunk in range(6)]
    [0, 1, None, 2, 3, None]
    """

    def __init__(self, older: Geometry, newer: Geometry) -> None:
        self._newer, self._grid = newer, older.grid
        self._nchunks = older.nchunks
        # Numbers stay what they are where only the first axis grew.
        self._is_identity = older.grid[1:] == newer.grid[1:]

    def older(self, nchunk: int) -> int | None:
        """The number that a chunk had; None when it was not there."""
        if self._is_identity:
            return nchunk if nchunk < self._nchunks else None
        number = 0
        for at, length in zip(self._newer.chunk_coords(nchunk), self._grid, strict=True):
            if at >= length:
                return None
            number = number * length + at
        return number
