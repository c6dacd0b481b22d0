"""Blocks kept on disk: one data log and one journal per dataset version (``core/cache_format``).

A crash may cost the last blocks written, never a wrong byte: what is read is checked against the
checksum that the block's origin made, and what fails is dropped, counted and missing. When the disk
says no, nothing is kept and nothing fails. It fetches nothing (``subscriber/sources`` does), and it
evicts whole dataset versions, the longest unused first.

Files are only ever appended to, or removed whole, so that a reader in another process that follows the
journal needs no lock.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.blocks import WHOLE, BlockRecord, checksum_seed
from ..core.cache_format import BLOCK, FORMAT, JOURNAL_DTYPE, Journal, block_entries, replay, tombstone_entries
from ..core.metadata import Entry, Geometry
from ..errors import IntegrityError

__all__ = ["BlockCache", "CacheCounters", "CachedVersion"]

_logger = logging.getLogger(__name__)

_META, _DATA, _JOURNAL, _LOCK = "meta.json", "data", "journal", "lock"
_TRASH, _PART = "trash-", ".part"
_MAX_DIRECTORIES = 9
_NO_BLOCKS = np.zeros(0, JOURNAL_DTYPE)

Blocks = Sequence[int] | npt.NDArray[np.integer[Any]]


@dataclass(slots=True)
class CacheCounters:
    """What happened since the start.

    Attributes
    ----------
    corrupt : int
        Blocks that failed their checksum when they were read from disk.
    evicted : int
        Dataset versions removed for the quota.
    refused : int
        Blocks that were not written: no room, or the disk failed.
    dropped : int
        Dataset versions set aside because their files were not what they have to be.
    """

    corrupt: int = 0
    evicted: int = 0
    refused: int = 0
    dropped: int = 0


class BlockCache:
    """All cached blocks of one process.

    Parameters
    ----------
    directory : path
        Made with mode 0700. When another process has it, ``DIRECTORY-2`` and so on is taken instead.
    quota_nbytes : int
        Upper bound on the bytes of all files.
    max_open : int
        Dataset versions whose files are held open at once.

    Attributes
    ----------
    directory : Path
        The one that was taken.
    counters : CacheCounters

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory, BlockCache(Path(directory), 1 << 20) as cache:
    ...     cache.usage_nbytes
    0
    """

    def __init__(self, directory: Path, quota_nbytes: int, *, max_open: int = 128) -> None:
        self.quota_nbytes = quota_nbytes
        self.counters = CacheCounters()
        self._max_open = max_open
        self._lock = threading.Lock()  # a leaf: nothing else is acquired while it is held
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        self._sizes: OrderedDict[str, int] = OrderedDict()  # of everything on disk, longest unused first
        self._usage = 0
        self._serial = 0
        self._failing = self._closed = False
        self.directory, self._lock_fd = _take_directory(Path(directory))
        self._scan()
        self._reserve(0, None)

    def __enter__(self) -> BlockCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def usage_nbytes(self) -> int:
        """Bytes of all files, as they are on disk."""
        return self._usage

    def open(self, entry: Entry, root: str) -> CachedVersion:
        """What is kept of the version of a dataset that ``entry`` describes. Touches no file yet."""
        if entry.geometry is None:
            raise ValueError(f"{entry.path!r} has no data to keep")
        return CachedVersion(self, root, entry.path, entry.id, entry.version, entry.geometry)

    def geometry(self, root: str, dataset_id: str, version: str) -> Geometry | None:
        """The geometry of a version that something is kept of, however old; None when nothing is."""
        meta = _read_meta(self.directory / _key(root, dataset_id, version) / _META)
        if meta is None or (meta.get("root"), meta.get("id"), meta.get("version")) != (root, dataset_id, version):
            return None
        try:
            return Geometry.from_json(meta["geometry"])
        except (KeyError, TypeError, IntegrityError):
            return None

    def close(self) -> None:
        """Close all files and let another process have the directory."""
        with self._lock:
            self._closed = True
            logs = [log for log in self._logs.values() if log.users == 0]  # the others: by their last user
            self._logs.clear()
            lock_fd, self._lock_fd = self._lock_fd, -1
        for log in logs:
            log.close()
        if lock_fd >= 0:
            os.close(lock_fd)

    @contextmanager
    def _using(self, version: CachedVersion) -> Iterator[_Log]:
        key = version.key
        with self._lock:
            if self._closed:
                raise OSError(errno.ESHUTDOWN, "the cache is closed")
            log = self._logs.get(key)
            if log is None:
                log = self._logs[key] = _Log(self.directory / key, version)
            log.users += 1
            self._logs.move_to_end(key)
            if key in self._sizes:
                self._sizes.move_to_end(key)
        try:
            yield log
        finally:
            with self._lock:
                log.users -= 1
                idle = self._idle_logs()
                if log.users == 0 and self._logs.get(key) is not log:
                    idle.append(log)
            for other in idle:
                other.close()

    def _idle_logs(self) -> list[_Log]:
        """Take out what is over the number of open files; the caller closes it."""
        surplus = len(self._logs) - self._max_open
        if surplus <= 0:
            return []
        keys = [k for k, log in self._logs.items() if log.users == 0][:surplus]
        return [self._logs.pop(k) for k in keys]

    def _resized(self, key: str, log: _Log, reserved_nbytes: int = 0) -> None:
        """Account a version by what its files are now, in place of what was reserved for it."""
        with self._lock:
            self._usage -= reserved_nbytes
            if self._logs.get(key) is log:  # one that was evicted meanwhile is on disk no more
                self._usage += log.nbytes - self._sizes.pop(key, 0)
                if log.nbytes:
                    self._sizes[key] = log.nbytes

    def _reserve(self, nbytes: int, own: str | None) -> bool:
        """Make room for ``nbytes``.

        Returns
        -------
        bool
            False when they are over the quota, or when version ``own`` itself had to go: the last of all.
        """
        if nbytes > self.quota_nbytes:
            return False
        trash: list[Path] = []
        idle: list[_Log] = []
        went = False
        with self._lock:
            while not went and self._usage + nbytes > self.quota_nbytes:
                key = next((k for k in self._sizes if k != own and self._may_go(k)), own)
                if key is None or key not in self._sizes:
                    break
                went = key == own
                self._usage -= self._sizes.pop(key)
                log = self._logs.pop(key, None)
                if log is not None and log.users == 0:
                    idle.append(log)  # others are closed by their last user; their files are unlinked then
                self.counters.evicted += 1
                self._serial += 1
                goal = self.directory / f"{_TRASH}{os.getpid()}-{self._serial}"
                with suppress(OSError):
                    os.rename(self.directory / key, goal)
                    trash.append(goal)
            has_room = not went and self._usage + nbytes <= self.quota_nbytes
            if has_room:
                self._usage += nbytes
        for log in idle:
            log.close()
        for path in trash:
            shutil.rmtree(path, ignore_errors=True)
        return has_room

    def _may_go(self, key: str) -> bool:
        # Files that are being opened at this moment must stay what they are.
        log = self._logs.get(key)
        return log is None or log.users == 0 or log.is_open

    def _drop(self, path: Path) -> None:
        self.counters.dropped += 1
        shutil.rmtree(path, ignore_errors=True)

    def _failed(self, error: OSError) -> None:
        """One warning until a write succeeds again, however many fail."""
        if not self._failing:
            self._failing = True
            _logger.warning("the cache in %s cannot be used (%s): reading on without it", self.directory, error)

    def _recovered(self) -> None:
        self._failing = False

    def _scan(self) -> None:
        """Count what is there, remove what an earlier process left unfinished."""
        found: list[tuple[int, str, int]] = []
        try:
            datasets = [e for e in os.scandir(self.directory) if e.is_dir(follow_symlinks=False)]
        except OSError as error:
            self._failed(error)
            return
        for dataset in datasets:
            if dataset.name.startswith(_TRASH):
                shutil.rmtree(dataset.path, ignore_errors=True)
                continue
            with suppress(OSError):
                os.rmdir(dataset.path)  # nothing is in it
            with suppress(OSError):
                for version in os.scandir(dataset.path):
                    files = {f.name: f.stat() for f in os.scandir(version.path)}
                    if not {_META, _DATA, _JOURNAL} <= set(files):
                        self._drop(Path(version.path))
                        continue
                    nbytes = sum(s.st_size for s in files.values())
                    found.append((files[_META].st_mtime_ns, f"{dataset.name}/{version.name}", nbytes))
        for _, key, nbytes in sorted(found):
            self._sizes[key] = nbytes
            self._usage += nbytes


class CachedVersion:
    """What is kept of one version of one dataset. Thread safe; methods read and write files.

    Attributes
    ----------
    root, path, id, version : str
    geometry : Geometry
    key : str
        Where it is, below the cache's directory.
    """

    def __init__(
        self, cache: BlockCache, root: str, path: str, dataset_id: str, version: str, geometry: Geometry
    ) -> None:
        self.root, self.path, self.id, self.version, self.geometry = root, path, dataset_id, version, geometry
        self.key = _key(root, dataset_id, version)
        self.seed = checksum_seed(dataset_id, version)
        self._cache = cache

    def held(self, nchunk: int, blocks: Blocks) -> npt.NDArray[np.bool_]:
        """Which blocks of a chunk are kept (by the journal: ``get`` has the last word).

        Parameters
        ----------
        blocks : sequence of int
            Block numbers of chunk ``nchunk``.
        """
        wanted = np.asarray(blocks, np.int64)
        try:
            with self._cache._using(self) as log:
                entries = log.load(self._cache).chunk(nchunk)
        except OSError as error:
            self._cache._failed(error)
            entries = _NO_BLOCKS
        return _positions(entries, wanted) >= 0

    def get(self, nchunk: int, blocks: Blocks) -> list[BlockRecord]:
        """Those of the blocks that are kept and whose checksums hold.

        Returns
        -------
        list of BlockRecord
            One per chunk header that they decode with; one of a whole chunk when it is kept so.
        """
        wanted = np.asarray(blocks, np.int64)
        try:
            with self._cache._using(self) as log:
                entries = log.load(self._cache).chunk(nchunk)
                positions = _positions(entries, wanted)
                rows = entries[np.unique(positions[positions >= 0])]
                records, bad = log.read(nchunk, rows)
                if bad:
                    self._cache.counters.corrupt += len(bad)
                    log.forget(nchunk, rows[np.isin(rows["block"], bad)])
                    self._cache._resized(self.key, log)
                    if WHOLE in bad:
                        records = self.get(nchunk, blocks)
                return records
        except OSError as error:
            self._cache._failed(error)
            return []

    def put(self, *records: BlockRecord) -> int:
        """Keep blocks; those that are kept already stay as they are.

        Returns
        -------
        int
            Number of blocks written; less than asked when there is no room or the disk fails.

        Raises
        ------
        IntegrityError
            When a record is damaged or does not fit the geometry; nothing is kept then.
        """
        for record in records:
            self._check(record)
        asked = sum(len(r.ids) for r in records)
        try:
            for _ in range(2):  # twice when this version itself had to go to make room
                with self._cache._using(self) as log, log.lock:
                    index = log.load(self._cache)
                    fresh = [r for r in (_unknown(r, index.chunk(r.nchunk)) for r in records) if r is not None]
                    if not fresh:
                        return 0
                    reserved = log.cost(fresh)
                    if not self._cache._reserve(reserved, self.key):
                        continue
                    try:
                        log.load(self._cache, create=True)
                        log.append(fresh)
                    finally:
                        self._cache._resized(self.key, log, reserved)
                    self._cache._recovered()
                    return sum(len(r.ids) for r in fresh)
        except OSError as error:
            self._cache._failed(error)
        self._cache.counters.refused += asked
        return 0

    def _check(self, record: BlockRecord) -> None:
        ids = record.ids
        if record.nchunk >= self.geometry.nchunks or len(ids) == 0:
            raise IntegrityError(f"no chunk {record.nchunk} with {len(ids)} blocks in {self.path!r}")
        if not record.is_whole and (
            int(ids[-1]) >= self.geometry.chunk_nblocks(record.nchunk) or bool(np.any(ids[1:] <= ids[:-1]))
        ):
            raise IntegrityError(f"chunk {record.nchunk} of {self.path!r} has no such blocks")
        record.verify(self.seed)

    def _meta(self) -> dict[str, Any]:
        names = ("root", "path", "id", "version")
        return {"format": FORMAT, **{n: getattr(self, n) for n in names}, "geometry": self.geometry.to_json()}


class _Index:
    """Journal records by chunk and block; lookups need no lock beside one writer.

    Most of it is one sorted table (56 bytes a block); chunks that changed since lie over it.
    """

    def __init__(self, entries: Journal) -> None:
        order = np.lexsort((np.arange(len(entries)), entries["block"], entries["nchunk"]))
        table = entries[order]
        last = np.ones(len(table), np.bool_)
        last[:-1] = (table["nchunk"][1:] != table["nchunk"][:-1]) | (table["block"][1:] != table["block"][:-1])
        self._set(table[last & (table["kind"] == BLOCK)])

    def _set(self, table: Journal) -> None:
        self._state: tuple[Journal, npt.NDArray[np.uint64], dict[int, Journal]]
        self._state = table, np.ascontiguousarray(table["nchunk"]), {}

    def chunk(self, nchunk: int) -> Journal:
        """The records of a chunk's blocks, ascending."""
        table, nchunks, changed = self._state
        entries = changed.get(nchunk)
        if entries is None:
            first, stop = np.searchsorted(nchunks, np.array([nchunk, nchunk + 1], np.uint64))
            entries = table[first:stop]
        return entries

    def replace(self, nchunk: int, entries: Journal) -> None:
        """Set the records of a chunk (ascending)."""
        table, nchunks, changed = self._state
        changed[nchunk] = entries
        if len(changed) > 4096 + len(table) // 8:
            kept = table[~np.isin(nchunks, np.fromiter(changed, np.uint64, len(changed)))]
            merged = np.concatenate([kept, *changed.values()])
            self._set(merged[np.lexsort((merged["block"], merged["nchunk"]))])


class _Log:
    """The open files of one version, and the index of what is in them.

    ``lock`` is for writers; ``users`` belongs to the cache's lock.
    """

    def __init__(self, path: Path, version: CachedVersion) -> None:
        self.path, self._version = path, version
        self.lock = threading.RLock()
        self.users = 0
        self._index: _Index | None = None
        self._data_fd = self._journal_fd = -1
        self._data_end = self._journal_end = self._meta_nbytes = 0

    @property
    def is_open(self) -> bool:
        return self._index is not None

    @property
    def nbytes(self) -> int:
        return self._data_end + self._journal_end + self._meta_nbytes

    def load(self, cache: BlockCache, create: bool = False) -> _Index:
        """The index, replayed at first; an empty one when there are no files and none are to be made."""
        index = self._index
        if index is not None:
            return index
        with self.lock:
            if self._index is None:
                expected = self._version._meta()
                meta = _read_meta(self.path / _META)
                if meta is not None and not _same_meta(meta, expected):
                    meta = None
                if meta is None and self.path.exists():
                    cache._drop(self.path)  # damaged, from another format, or another dataset's
                    cache._resized(self._version.key, self)
                if meta is None and not create:
                    return _Index(_NO_BLOCKS)
                if meta is None:
                    _make_version(self.path, expected)
                self._replay()
                cache._resized(self._version.key, self)
            assert self._index is not None
            return self._index

    def _replay(self) -> None:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._data_fd = os.open(self.path / _DATA, flags, 0o600)
            self._journal_fd = os.open(self.path / _JOURNAL, flags, 0o600)
            journal = _pread(self._journal_fd, os.fstat(self._journal_fd).st_size, 0)
            entries = replay(journal, self._version.seed, os.fstat(self._data_fd).st_size)
            self._journal_end = len(entries) * JOURNAL_DTYPE.itemsize
            blocks = entries[entries["kind"] == BLOCK]
            ends = [blocks["offset"] + blocks["size"], blocks["head_offset"] + blocks["head_size"]]
            self._data_end = int(np.concatenate(ends).max()) if len(blocks) else 0
            os.ftruncate(self._journal_fd, self._journal_end)
            os.ftruncate(self._data_fd, self._data_end)
            self._meta_nbytes = os.stat(self.path / _META).st_size
            os.utime(self.path / _META)  # the order of use, for the next process
            self._index = _Index(entries)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        with self.lock:
            self._index = None
            for fd in (self._data_fd, self._journal_fd):
                if fd >= 0:
                    os.close(fd)
            self._data_fd = self._journal_fd = -1

    def cost(self, records: Sequence[BlockRecord]) -> int:
        """Bytes that ``append`` may need, and those of the files as they are made."""
        bodies = sum(len(r.head) + len(r.body) + len(r.ids) * JOURNAL_DTYPE.itemsize for r in records)
        return bodies + (0 if self.is_open else len(json.dumps(self._version._meta())))

    def append(self, records: Sequence[BlockRecord]) -> None:
        """Write blocks, then the journal records that make them count."""
        assert self._index is not None
        parts: list[bytes | bytearray | memoryview] = []
        journal: list[tuple[int, Journal]] = []
        end = self._data_end
        heads: dict[tuple[int, bytes], int] = {}
        for record in records:
            head_offset = heads.get((record.nchunk, record.head), self._head_offset(record))
            if head_offset < 0:
                head_offset = end
                parts.append(record.head)
                end += len(record.head)
            heads[record.nchunk, record.head] = head_offset
            rows = zip(record.ids.tolist(), record.sizes.tolist(), record.crcs.tolist(), strict=True)
            entries = block_entries(self._version.seed, record.nchunk, rows, end, head_offset, len(record.head))
            journal.append((record.nchunk, entries))
            parts.append(record.body)
            end += len(record.body)
        _pwrite(self._data_fd, b"".join(parts), self._data_end)
        self._write_journal(np.concatenate([entries for _, entries in journal]))
        self._data_end = end
        for nchunk, entries in journal:
            known = self._index.chunk(nchunk)
            merged = np.concatenate([known[~np.isin(known["block"], entries["block"])], entries])
            self._index.replace(nchunk, merged[np.argsort(merged["block"], kind="stable")])

    def _head_offset(self, record: BlockRecord) -> int:
        """Where the record's head is in the log already; -1 when it is not."""
        assert self._index is not None
        known = self._index.chunk(record.nchunk)
        if len(known) and int(known[-1]["head_size"]) == len(record.head):
            offset = int(known[-1]["head_offset"])
            if _pread(self._data_fd, len(record.head), offset) == record.head:
                return offset
        return -1

    def _write_journal(self, entries: Journal) -> None:
        try:
            _pwrite(self._journal_fd, entries.tobytes(), self._journal_end)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._journal_fd, self._journal_end)
            raise
        self._journal_end += entries.nbytes

    def forget(self, nchunk: int, rows: Journal) -> None:
        """Take blocks out, unless they were written again meanwhile."""
        with self.lock:
            if self._index is None:
                return
            known = self._index.chunk(nchunk)
            gone = np.isin(known["block"], rows["block"]) & np.isin(known["offset"], rows["offset"])
            with suppress(OSError):  # at the next start they fail their checksum again
                self._write_journal(tombstone_entries(self._version.seed, nchunk, known["block"][gone].tolist()))
            self._index.replace(nchunk, known[~gone])

    def read(self, nchunk: int, rows: Journal) -> tuple[list[BlockRecord], list[int]]:
        """The blocks of these journal records, checked, and the numbers of those that failed."""
        records: list[BlockRecord] = []
        bad: list[int] = []
        heads = np.unique(rows[["head_offset", "head_size"]])
        for offset, size in heads.tolist():
            head = _pread(self._data_fd, size, offset)
            group = rows[(rows["head_offset"] == offset) & (rows["head_size"] == size)]
            record = BlockRecord(nchunk, head, group["block"], group["size"], group["crc"], self._bodies(group))
            try:
                record.verify(self._version.seed)
                records.append(record)
            except IntegrityError:
                good = [int(row["block"]) for row in group if self._is_good(nchunk, head, row)]
                bad += sorted(set(group["block"].tolist()) - set(good))
                if good:
                    records.append(record.pick(good))
        return records, bad

    def _is_good(self, nchunk: int, head: bytes, row: np.void) -> bool:
        one = np.array([row])
        body = _pread(self._data_fd, int(row["size"]), int(row["offset"]))
        try:
            BlockRecord(nchunk, head, one["block"], one["size"], one["crc"], body).verify(self._version.seed)
        except IntegrityError:
            return False
        return True

    def _bodies(self, rows: Journal) -> bytes:
        """The bytes of blocks, one after another, read in runs; short where the file is cut."""
        offsets, sizes = rows["offset"].astype(np.int64), rows["size"].astype(np.int64)
        if len(rows) == 0:
            return b""
        breaks = np.flatnonzero(offsets[1:] != offsets[:-1] + sizes[:-1]) + 1
        starts = np.concatenate([[0], breaks])
        totals = np.add.reduceat(sizes, starts)
        parts = [_pread(self._data_fd, n, o) for n, o in zip(totals.tolist(), offsets[starts].tolist(), strict=True)]
        # A short part would shift those after it: zeros keep every block in its place, to fail on its own.
        parts = [p.ljust(n, b"\0") for p, n in zip(parts, totals.tolist(), strict=True)]
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _positions(entries: Journal, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where in a chunk's records each wanted block is; -1 for none. A whole chunk has them all."""
    numbers = entries["block"].astype(np.int64)
    if len(numbers) == 0:
        return np.full(len(wanted), -1, np.int64)
    if numbers[-1] == WHOLE:
        return np.full(len(wanted), len(numbers) - 1, np.int64)
    at = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1).astype(np.int64)
    return np.where(numbers[at] == wanted, at, -1)


def _unknown(record: BlockRecord, known: Journal) -> BlockRecord | None:
    """The part of a record that is not kept yet."""
    fresh = record.ids[_positions(known, record.ids.astype(np.int64)) < 0]
    return record.pick(fresh.tolist()) if len(fresh) else None


def _key(root: str, dataset_id: str, version: str) -> str:
    """Directory of a version. The root is part of it: ids are what a publisher says they are."""
    dataset = hashlib.blake2b(f"{root}\0{dataset_id}".encode("utf-8", "surrogatepass"), digest_size=16)
    return f"{dataset.hexdigest()}/{hashlib.blake2b(version.encode(), digest_size=16).hexdigest()}"


def _read_meta(path: Path) -> dict[str, Any] | None:
    try:
        meta = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return None
    return meta if isinstance(meta, dict) else None


def _same_meta(meta: dict[str, Any], expected: dict[str, Any]) -> bool:
    # Links to one dataset share its cache, so the path may be another.
    return all(meta.get(name) == expected[name] for name in expected if name != "path")


def _make_version(path: Path, meta: dict[str, Any]) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    part = path / f"{_META}{_PART}"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _pwrite(fd, json.dumps(meta).encode(), 0)
    finally:
        os.close(fd)
    os.rename(part, path / _META)


def _take_directory(directory: Path) -> tuple[Path, int]:
    """The directory, or the first of its namesakes that no other process has, and the lock on it."""
    taken = ""
    for number in range(1, _MAX_DIRECTORIES + 1):
        path = directory if number == 1 else directory.with_name(f"{directory.name}-{number}")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
            fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            _logger.warning("the cache directory %s cannot be used (%s): reading without a cache", path, error)
            return path, -1
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                taken = taken or os.pread(fd, 20, 0).decode("ascii", "replace").strip()
                os.close(fd)
                continue
            # A file system with no locks: checksums still keep every answer right.
            _logger.warning("%s cannot be locked (%s): let no other server use it", path, error)
        if number > 1:
            _logger.warning("%s is in use by process %s: this one keeps its cache in %s", directory, taken, path)
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return path, fd
    path = directory.with_name(f"{directory.name}-{os.getpid()}")
    _logger.warning("%s and its namesakes are all in use: this process keeps its cache in %s", directory, path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path, -1


def _pread(fd: int, nbytes: int, offset: int) -> bytes:
    """Up to ``nbytes``; less only at the end of the file."""
    if nbytes <= 0:
        return b""
    first = os.pread(fd, nbytes, offset)
    if len(first) in (0, nbytes):
        return first
    parts, done = [first], len(first)
    while done < nbytes and (part := os.pread(fd, nbytes - done, offset + done)):
        parts.append(part)
        done += len(part)
    return b"".join(parts)


def _pwrite(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
