"""The files of one cached dataset version: data log, journal, uses, and the index of what is in them.

Blocks are appended, removed by tombstones and holes, and moved to new files when most of the old ones is
dead. Formats are ``core/cache_format``'s; who may write when, how much, and what goes, is ``block_cache``'s.

Readers take no lock: an index, its rows and the file that they point into belong together and stay as they
are for as long as somebody holds them. A block that is evicted while it is read fails its checksum.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..core.blocks import WHOLE, BlockRecord
from ..core.cache_format import BLOCK, JOURNAL_DTYPE, Journal, block_entries, replay, tombstone_entries
from ..core.cache_location import DATA, JOURNAL, META
from ..errors import IntegrityError
from .cache_directory import PART, USES_NAME, read_meta
from .hole_punching import punch_hole

__all__ = ["BlockLog", "LogIndex", "LogOwner", "Rows", "positions", "read_last_tick", "stored_nbytes"]

_ROW = np.dtype(
    [
        ("nchunk", "<u8"),
        ("offset", "<u8"),
        ("head_offset", "<u8"),
        ("tick", "<i8"),  # when it was used last
        ("block", "<u4"),
        ("size", "<u4"),
        ("crc", "<u4"),
        ("head_size", "<u4"),
    ]
)
_KEPT_FIELDS = ("nchunk", "offset", "head_offset", "block", "size", "crc", "head_size")
_NO_ROWS = np.zeros(0, _ROW)
_USES = struct.Struct("<4sIq")
_USE_DTYPE = np.dtype([("nchunk", "<u8"), ("block", "<u4"), ("tick", "<i8")])
_USES_MAGIC = b"C2U1"
_MOVED_NBYTES = 4 << 20
_MAX_PARTS = 512  # of one call: systems take 1024 at most

Rows = npt.NDArray[np.void]
Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


class LogOwner(Protocol):
    """Whoever accounts for the files."""

    def dropped(self, log: BlockLog) -> None:
        """Its files were damaged, or another dataset's, and have to be removed."""
        ...

    def resized(self, log: BlockLog) -> None:
        """Its files are not as long as they were."""
        ...


class _File:
    """An open file, closed when nobody refers to it any more."""

    fd = -1

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def read(self, nbytes: int, offset: int) -> bytes:
        """Up to ``nbytes``; less only at the end of the file."""
        if nbytes <= 0:
            return b""
        first = os.pread(self.fd, nbytes, offset)
        if len(first) in (0, nbytes):
            return first
        parts, done = [first], len(first)
        while done < nbytes and (part := os.pread(self.fd, nbytes - done, offset + done)):
            parts.append(part)
            done += len(part)
        return b"".join(parts)

    def write(self, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
        """Write parts one after another, as they are."""
        _write_parts(self.fd, parts, offset)

    @property
    def nbytes(self) -> int:
        return os.fstat(self.fd).st_size


class LogIndex:
    """Rows by chunk and block, and the file that they point into; lookups need no lock beside one writer.

    Most of it is one sorted table (56 bytes a block); chunks that changed since lie over it.
    """

    def __init__(self, rows: Rows, data: _File | None) -> None:
        self.data = data
        self._set(rows[np.lexsort((rows["block"], rows["nchunk"]))])

    def _set(self, table: Rows) -> None:
        self._state: tuple[Rows, npt.NDArray[np.uint64], dict[int, Rows]]
        self._state = table, np.ascontiguousarray(table["nchunk"]), {}

    def chunk(self, nchunk: int) -> Rows:
        """The rows of a chunk's blocks, ascending; their ticks may be set in place."""
        table, nchunks, changed = self._state
        rows = changed.get(nchunk)
        if rows is not None:
            return rows
        key = np.uint64(nchunk)
        first = nchunks.searchsorted(key)
        if first == len(nchunks) or nchunks[first] != key:
            return _NO_ROWS
        return table[first : nchunks.searchsorted(key, "right")]

    def replace(self, nchunk: int, rows: Rows) -> None:
        """Set the rows of a chunk (ascending). For the writer alone."""
        table, _, changed = self._state
        changed[nchunk] = rows
        if len(changed) > 4096 + len(table) // 8:
            self.fold()

    def fold(self) -> Rows:
        """All rows as one sorted table, not to be changed. For the writer alone."""
        table, nchunks, changed = self._state
        if changed:
            kept = table[~np.isin(nchunks, np.fromiter(changed, np.uint64, len(changed)))]
            merged = np.concatenate([kept, *changed.values()])
            self._set(merged[np.lexsort((merged["block"], merged["nchunk"]))])
        return self._state[0]

    def keep(self, mask: Bits) -> None:
        """Drop the rows of ``fold()`` that are not in the mask. For the writer alone."""
        self._set(self.fold()[mask])


class BlockLog:
    """One version's files, opened and replayed at first use.

    Parameters
    ----------
    path : Path
        Their directory.
    key : str
        Of the version, for the owner.
    meta : mapping
        What ``meta.json`` has to say.
    seed : int
        Of checksums.
    tick : int
        When the version was used last, for blocks of which nothing better is known.
    owner : LogOwner

    Attributes
    ----------
    lock : RLock
        For writers.
    users : int
        Belongs to the owner.
    """

    def __init__(self, path: Path, key: str, meta: Mapping[str, Any], seed: int, tick: int, owner: LogOwner) -> None:
        self.path, self.key = path, key
        self._meta, self._seed, self._tick, self._owner = meta, seed, tick, owner
        self.lock = threading.RLock()
        self.users = 0
        self.touched = 0
        self._index: LogIndex | None = None
        self._journal: _File | None = None
        self._data_end = self._journal_end = self._meta_nbytes = self._uses_nbytes = self._hole_nbytes = 0

    @property
    def is_open(self) -> bool:
        return self._index is not None

    @property
    def nbytes(self) -> int:
        """Bytes that its files take, holes left out."""
        return self._data_end - self._hole_nbytes + self._journal_end + self._meta_nbytes + self._uses_nbytes

    @property
    def journal_length(self) -> int:
        """Number of journal records: as many blocks, or more."""
        return self._journal_end // JOURNAL_DTYPE.itemsize

    def load(self, create: bool = False) -> LogIndex:
        """The index, replayed at first; an empty one when there are no files and none are to be made."""
        index = self._index
        if index is not None:
            return index
        with self.lock:
            if self._index is None:
                meta = read_meta(self.path / META)
                if meta is not None and not _same_meta(meta, self._meta):
                    meta = None
                if meta is None and self.path.exists():
                    self._owner.dropped(self)  # damaged, from another format, or another dataset's
                if meta is None and not create:
                    return LogIndex(_NO_ROWS, None)
                if meta is None:
                    self._make_files(self.path)
                self._replay()
                self._owner.resized(self)
            assert self._index is not None
            return self._index

    def close(self) -> None:
        """Forget the index; files are closed when the last who reads them is done."""
        with self.lock:
            self._index = self._journal = None

    # Files

    def _make_files(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        _write_whole(path / META, json.dumps(self._meta).encode())

    def _replay(self) -> None:
        try:
            data, self._journal = _File(self.path / DATA), _File(self.path / JOURNAL)
            journal = self._journal.read(self._journal.nbytes, 0)
            entries = replay(journal, self._seed, data.nbytes)
            self._journal_end = len(entries) * JOURNAL_DTYPE.itemsize
            blocks = entries[entries["kind"] == BLOCK]
            ends = [blocks["offset"] + blocks["size"], blocks["head_offset"] + blocks["head_size"]]
            self._data_end = int(np.concatenate(ends).max()) if len(blocks) else 0
            os.ftruncate(self._journal.fd, self._journal_end)
            os.ftruncate(data.fd, self._data_end)
            self._meta_nbytes = os.stat(self.path / META).st_size
            os.utime(self.path / META)  # the order of use where nothing better is known
            index = LogIndex(_newest(entries), data)
            self._read_uses(index)
            self._recount_holes(index)
            self._index = index
        except OSError:
            self.close()
            raise

    def _read_uses(self, index: LogIndex) -> None:
        """Take up when blocks were used; what is missing or damaged was used when the version was."""
        rows = index.fold()
        rows["tick"] = self._tick
        raw = b""
        with suppress(OSError):
            raw = (self.path / USES_NAME).read_bytes()
        self._uses_nbytes = len(raw)
        if len(raw) < _USES.size or (len(raw) - _USES.size) % _USE_DTYPE.itemsize:
            return
        magic, crc, _ = _USES.unpack_from(raw)
        if magic != _USES_MAGIC or zlib.crc32(raw[8:]) != crc:
            return
        uses = np.frombuffer(raw, _USE_DTYPE, offset=_USES.size)
        keys, order = np.unique(_row_keys(uses), return_index=True)
        if len(keys):
            wanted = _row_keys(rows)
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            rows["tick"] = np.where(keys[at] == wanted, uses["tick"][order][at], self._tick)

    def _recount_holes(self, index: LogIndex) -> None:
        """Find what is dead, and give it back where a process died before it did so."""
        assert index.data is not None
        status = os.fstat(index.data.fd)
        page = status.st_blksize
        missing = max(0, -(-self._data_end // page) * page - status.st_blocks * 512)
        starts, stops = _dead_pages(index.fold(), self._data_end, page)
        holes = int((stops - starts).sum())
        if missing < holes and not self._punch(index.data, starts, stops):
            holes = missing
        self._hole_nbytes = holes

    def _punch(self, data: _File, starts: Ints, stops: Ints) -> bool:
        ranges = zip(starts.tolist(), stops.tolist(), strict=True)
        return all(punch_hole(data.fd, start, stop - start) for start, stop in ranges)

    def _give_back(self, index: LogIndex, victims: Rows) -> None:
        """Make holes where rows were that are in the index no more."""
        assert index.data is not None
        starts, stops = _dead_pages(index.fold(), self._data_end, os.fstat(index.data.fd).st_blksize)
        if not len(starts):
            return
        # Those with a victim in them: the others are holes already.
        ends = [victims["offset"] + victims["size"], victims["head_offset"] + victims["head_size"]]
        at = np.searchsorted(starts, np.concatenate(ends).astype(np.int64), side="right") - 1
        fresh = np.unique(at[at >= 0])
        if self._punch(index.data, starts[fresh], stops[fresh]):
            self._hole_nbytes = int((stops - starts).sum())

    def save_uses(self) -> None:
        """Write down when blocks were used. Not atomic with anything: it only decides what goes first."""
        with self.lock:
            if self._index is None or not self.touched:
                return
            self._write_uses(self.path, self._index.fold())

    @property
    def uses_nbytes(self) -> int:
        """How much longer ``save_uses`` would make the files."""
        with self.lock:
            if self._index is None:
                return 0
            return _USES.size + len(self._index.fold()) * _USE_DTYPE.itemsize - self._uses_nbytes

    def _write_uses(self, path: Path, rows: Rows) -> None:
        uses = np.zeros(len(rows), _USE_DTYPE)
        for name in _USE_DTYPE.names or ():
            uses[name] = rows[name]
        last = int(rows["tick"].max()) if len(rows) else self._tick
        rest = struct.pack("<q", last) + uses.tobytes()
        raw = _USES_MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest
        _write_whole(path / USES_NAME, raw)
        self._uses_nbytes, self.touched = len(raw), 0

    # Writing

    def cost(self, records: Sequence[BlockRecord]) -> int:
        """Upper bound on the bytes that ``append`` needs, those of new files included."""
        bodies = sum(len(r.head) + len(r.body) + len(r.ids) * JOURNAL_DTYPE.itemsize for r in records)
        return bodies + len(json.dumps(self._meta))

    def append(self, records: Sequence[BlockRecord], tick: int) -> None:
        """Write blocks, then the journal records that make them count."""
        index = self._index
        assert index is not None
        assert index.data is not None
        parts: list[bytes | bytearray | memoryview] = []
        places: list[tuple[int, int, int, int]] = []
        end = self._data_end
        heads: dict[tuple[int, bytes], int] = {}
        for record in records:
            head_offset = heads.get((record.nchunk, record.head), -1)
            if head_offset < 0:
                head_offset = _head_offset(index, record)
            if head_offset < 0:
                head_offset = end
                parts.append(record.head)
                end += len(record.head)
            heads[record.nchunk, record.head] = head_offset
            places.append((record.nchunk, end, head_offset, len(record.head)))
            parts.append(record.body)
            end += len(record.body)
        entries = self._entries(records, places)
        try:
            index.data.write(parts, self._data_end)
            self._write_journal(entries)
        except OSError:
            with suppress(OSError):  # nothing refers to it, and it would not be counted
                os.ftruncate(index.data.fd, self._data_end)
            raise
        self._data_end = end
        self.touched += 1
        first, fresh = 0, _rows(entries, tick)
        for record in records:
            rows = fresh[first : first + len(record.ids)]
            first += len(rows)
            known = index.chunk(record.nchunk)
            if len(known):
                rows = np.concatenate([known[~np.isin(known["block"], rows["block"])], rows])
                rows = rows[np.argsort(rows["block"], kind="stable")]
            index.replace(record.nchunk, rows)

    def _entries(self, records: Sequence[BlockRecord], places: Sequence[tuple[int, int, int, int]]) -> Journal:
        """Records of the journal; ``places``: chunk, offset, and offset and size of the head of each of ``records``."""
        counts = [len(record.ids) for record in records]
        table = np.empty((sum(counts), 3), np.int64)
        for column, name in enumerate(("ids", "sizes", "crcs")):
            np.concatenate([getattr(record, name) for record in records], out=table[:, column])
        nchunk, offset, head_offset, head_size = np.repeat(np.array(places, np.uint64).reshape(-1, 4), counts, axis=0).T
        before = np.cumsum(table[:, 1]) - table[:, 1]
        firsts = np.cumsum(counts) - counts
        offset += (before - np.repeat(before[firsts], counts)).astype(np.uint64)
        return block_entries(self._seed, nchunk, table, offset, head_offset, head_size)

    def _write_journal(self, entries: Journal) -> None:
        assert self._journal is not None
        try:
            self._journal.write([entries.tobytes()], self._journal_end)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._journal.fd, self._journal_end)
            raise
        self._journal_end += entries.nbytes

    def forget(self, nchunk: int, rows: Rows) -> int:
        """Take blocks of a chunk out, unless they were written again, moved or evicted meanwhile; how many."""
        with self.lock:
            if self._index is None:
                return 0
            known = self._index.chunk(nchunk)
            gone = np.isin(known["block"], rows["block"]) & np.isin(known["offset"], rows["offset"])
            with suppress(OSError):  # at the next start they fail their checksum again
                self._write_journal(tombstone_entries(self._seed, nchunk, known["block"][gone].tolist()))
            self._index.replace(nchunk, known[~gone])
            if gone.any() and self._index.data is not None:
                self._give_back(self._index, known[gone])
            return int(gone.sum())

    def evict(self, rows: Rows) -> int:
        """Take blocks out and give their bytes back; how many there were."""
        with self.lock:
            index = self._index
            if index is None or index.data is None:
                return 0
            table = index.fold()
            gone = np.isin(_row_keys(table), _row_keys(rows))
            victims = table[gone]
            self._write_journal(tombstone_entries(self._seed, victims["nchunk"], victims["block"].tolist()))
            index.keep(~gone)
            self._give_back(index, victims)
            return len(victims)

    def rows(self) -> Rows | None:
        """All rows, sorted, not to be changed; None when it is not open."""
        with self.lock:
            return None if self._index is None else self._index.fold()

    @property
    def dead_nbytes(self) -> int:
        """Bytes that its files take for nothing."""
        with self.lock:
            if self._index is None:
                return 0
            rows = self._index.fold()
            live = int(rows["size"].sum(dtype=np.int64)) + int(_heads(rows)[1].sum())
            live += len(rows) * JOURNAL_DTYPE.itemsize + self._meta_nbytes + self._uses_nbytes
            return max(0, self.nbytes - live)

    def compact(self, graveyard: Path, *, in_place: bool) -> None:
        """Move what is alive to new files, and the old ones to ``graveyard``.

        Parameters
        ----------
        in_place : bool
            Give back what has been copied on the way, so that no room is needed. Dying meanwhile loses it.
        """
        with self.lock:
            old = self._index
            if old is None or old.data is None:
                return
            part = self.path.with_name(self.path.name + PART)
            shutil.rmtree(part, ignore_errors=True)
            try:
                self._make_files(part)
                data, journal = _File(part / DATA), _File(part / JOURNAL)
                table = old.fold()
                moved = table[np.argsort(table["offset"], kind="stable")]
                ends = self._copy(moved, old.data, data, journal, in_place)
                self._write_uses(part, moved)
            except OSError:
                shutil.rmtree(part, ignore_errors=True)
                if in_place:
                    self.close()  # parts of it are gone: read again, they fail their checksums
                raise
            os.rename(self.path, graveyard)
            try:
                os.rename(part, self.path)
            except OSError:
                self.close()
                raise
            self._data_end, self._journal_end = ends
            self._hole_nbytes = 0
            self._journal = journal
            self._index = LogIndex(moved, data)

    def _copy(self, rows: Rows, source: _File, data: _File, journal: _File, in_place: bool) -> tuple[int, int]:
        """Copy blocks in the order of their offsets, and set these anew; the length of the new files."""
        heads, inverse = np.unique(rows[["head_offset", "head_size"]], return_inverse=True)
        raw = [source.read(size, offset).ljust(size, b"\0") for offset, size in heads.tolist()]
        head_offsets = np.concatenate([[0], np.cumsum([len(head) for head in raw])]).astype(np.uint64)
        data.write(raw, 0)
        end, journal_end, done = int(head_offsets[-1]), 0, 0
        page = os.fstat(source.fd).st_blksize
        bounds = np.cumsum(rows["size"].astype(np.int64))
        first = 0
        while first < len(rows):
            before = int(bounds[first - 1]) if first else 0
            stop = max(first + 1, int(np.searchsorted(bounds, before + _MOVED_NBYTES, side="right")))
            batch = rows[first:stop]
            bodies = read_bodies(source, batch)
            copied = (int(batch["offset"][-1]) + int(batch["size"][-1])) // page * page
            batch["head_offset"] = head_offsets[inverse[first:stop]]
            listed = zip(batch["block"].tolist(), batch["size"].tolist(), batch["crc"].tolist(), strict=True)
            entries = block_entries(self._seed, batch["nchunk"], listed, end, batch["head_offset"], batch["head_size"])
            batch["offset"] = entries["offset"]
            data.write([bodies], end)
            journal.write([entries.tobytes()], journal_end)
            end, journal_end = end + len(bodies), journal_end + entries.nbytes
            if in_place and copied > done:
                punch_hole(source.fd, done, copied - done)
                done = copied
            first = stop
        return end, journal_end

    # Reading

    def read(self, index: LogIndex, nchunk: int, rows: Rows) -> tuple[list[BlockRecord], list[int]]:
        """The blocks of these rows of an index, checked, and the numbers of those that failed."""
        records: list[BlockRecord] = []
        bad: list[int] = []
        if index.data is None or not len(rows):
            return records, bad
        for group in _by_head(rows):
            head = index.data.read(int(group["head_size"][0]), int(group["head_offset"][0]))
            bodies = read_bodies(index.data, group)
            record = BlockRecord(nchunk, head, group["block"], group["size"], group["crc"], bodies)
            try:
                record.verify(self._seed)
                records.append(record)
            except IntegrityError:
                good = [int(row["block"]) for row in group if self._is_good(index.data, nchunk, head, row)]
                bad += sorted(set(group["block"].tolist()) - set(good))
                if good:
                    records.append(record.pick(good))
        return records, bad

    def _is_good(self, data: _File, nchunk: int, head: bytes, row: np.void) -> bool:
        one = np.array([row])
        body = data.read(int(row["size"]), int(row["offset"]))
        try:
            BlockRecord(nchunk, head, one["block"], one["size"], one["crc"], body).verify(self._seed)
        except IntegrityError:
            return False
        return True


def read_bodies(data: _File, rows: Rows) -> bytes:
    """The bytes of blocks, one after another, read in runs; zeros where the file is cut."""
    if len(rows) == 0:
        return b""
    if len(rows) == 1:
        size = int(rows["size"][0])
        return data.read(size, int(rows["offset"][0])).ljust(size, b"\0")
    offsets, sizes = rows["offset"].astype(np.int64), rows["size"].astype(np.int64)
    breaks = np.flatnonzero(offsets[1:] != offsets[:-1] + sizes[:-1]) + 1
    starts = np.concatenate([[0], breaks])
    totals = np.add.reduceat(sizes, starts)
    parts = [data.read(n, o) for n, o in zip(totals.tolist(), offsets[starts].tolist(), strict=True)]
    # A short part would shift those after it: zeros keep every block in its place, to fail on its own.
    parts = [p.ljust(n, b"\0") for p, n in zip(parts, totals.tolist(), strict=True)]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _by_head(rows: Rows) -> list[Rows]:
    """Rows of one chunk in groups, by the head that they decode with: nearly always one."""
    offsets = rows["head_offset"]
    if (offsets == offsets[0]).all() and (rows["head_size"] == rows["head_size"][0]).all():
        return [rows]
    heads = np.unique(rows[["head_offset", "head_size"]])
    return [rows[(offsets == offset) & (rows["head_size"] == size)] for offset, size in heads.tolist()]


def positions(rows: Rows, wanted: npt.NDArray[np.int64]) -> Ints:
    """Where in a chunk's rows each wanted block is; -1 for none. A whole chunk has them all."""
    if len(rows) == 0:
        return np.full(len(wanted), -1, np.int64)
    numbers = rows["block"].astype(np.int64)
    if len(numbers) == len(wanted) and (numbers == wanted).all():
        return np.arange(len(numbers))
    if numbers[-1] == WHOLE:
        return np.full(len(wanted), len(numbers) - 1, np.int64)
    at = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1).astype(np.int64)
    return np.where(numbers[at] == wanted, at, -1)


def read_last_tick(path: Path) -> int | None:
    """When a version was used last, by its file of uses; None when there is none."""
    try:
        with (path / USES_NAME).open("rb") as file:
            raw = file.read(_USES.size)
    except OSError:
        return None
    if len(raw) < _USES.size or not raw.startswith(_USES_MAGIC):
        return None
    tick = int(_USES.unpack(raw)[2])
    return tick if 0 <= tick < 1 << 60 else None


def stored_nbytes(stats: Mapping[str, os.stat_result]) -> int:
    """Bytes that a version's files take, holes left out."""
    nbytes = sum(s.st_size for s in stats.values())
    data = stats.get(DATA)
    if data is not None and data.st_size >= data.st_blksize:
        page = data.st_blksize
        nbytes -= max(0, -(-data.st_size // page) * page - data.st_blocks * 512)
    return nbytes


def _newest(entries: Journal) -> Rows:
    """Rows of the blocks that are there after all these journal records."""
    order = np.lexsort((np.arange(len(entries)), entries["block"], entries["nchunk"]))
    table = entries[order]
    last = np.ones(len(table), np.bool_)
    last[:-1] = (table["nchunk"][1:] != table["nchunk"][:-1]) | (table["block"][1:] != table["block"][:-1])
    return _rows(table[last & (table["kind"] == BLOCK)], 0)


def _rows(entries: Journal, tick: int) -> Rows:
    rows = np.zeros(len(entries), _ROW)
    for name in _KEPT_FIELDS:
        rows[name] = entries[name]
    rows["tick"] = tick
    return rows


def _row_keys(rows: Rows) -> npt.NDArray[np.uint64]:
    """One number per block; should two ever share one, both are evicted together, no more."""
    keys: npt.NDArray[np.uint64] = (rows["nchunk"] << np.uint64(32)) ^ rows["block"].astype(np.uint64)
    return keys


def _head_offset(index: LogIndex, record: BlockRecord) -> int:
    """Where the record's head is in the log already; -1 when it is not."""
    known = index.chunk(record.nchunk)
    if index.data is not None and len(known) and int(known[-1]["head_size"]) == len(record.head):
        offset = int(known[-1]["head_offset"])
        if index.data.read(len(record.head), offset) == record.head:
            return offset
    return -1


def _heads(rows: Rows) -> tuple[Ints, Ints]:
    """Offsets and sizes of the heads that rows refer to, each once."""
    if not len(rows):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.argsort(rows["head_offset"], kind="stable")
    offsets = rows["head_offset"][order].astype(np.int64)
    firsts = np.flatnonzero(np.concatenate([[True], offsets[1:] != offsets[:-1]]))
    return offsets[firsts], np.maximum.reduceat(rows["head_size"][order].astype(np.int64), firsts)


def _dead_pages(rows: Rows, end: int, page: int) -> tuple[Ints, Ints]:
    """Starts and stops of the runs of pages in which nothing is alive."""
    head_offsets, head_sizes = _heads(rows)
    starts = np.concatenate([rows["offset"].astype(np.int64), head_offsets])
    stops = starts + np.concatenate([rows["size"].astype(np.int64), head_sizes])
    order = np.argsort(starts, kind="stable")
    gap_starts = np.concatenate([[0], np.maximum.accumulate(stops[order])]).astype(np.int64)
    gap_stops = np.concatenate([starts[order], [end]]).astype(np.int64)
    gap_starts = -(-gap_starts // page) * page
    gap_stops = gap_stops // page * page
    real = gap_stops > gap_starts
    return gap_starts[real], gap_stops[real]


def _same_meta(meta: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    # Links to one dataset share its cache, so the path may be another.
    return all(meta.get(name) == expected[name] for name in expected if name != "path")


def _write_parts(fd: int, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
    for first in range(0, len(parts), _MAX_PARTS):
        left = [memoryview(part) for part in parts[first : first + _MAX_PARTS] if len(part)]
        while left:
            written = os.pwritev(fd, left, offset)
            offset += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]


def _write_whole(path: Path, raw: bytes) -> None:
    """Write a small file beside its goal, and rename it there."""
    part = path.with_name(path.name + PART)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(part, flags, 0o600)
    try:
        _write_parts(fd, [raw], 0)
    finally:
        os.close(fd)
    os.rename(part, path)
