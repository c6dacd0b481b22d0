"""Blocks kept on disk, within a quota: which are here, whose turn it is to go, what is pinned.

A crash may cost the last blocks written, never a wrong byte: what is read is checked against the
checksum that the block's origin made, and what fails is dropped, counted and missing. When the disk
says no, nothing is kept and nothing fails. It fetches nothing (``subscriber/sources`` does).

Files are appended to, have holes punched into them where blocks were evicted, are replaced whole by shorter
ones, or removed: a reader in another process needs no lock, only the checksums (``block_log``). What was used least
recently goes first, counted by ticks and not by a clock (``eviction``).
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.blocks import WHOLE, BlockRecord, checksum_seed
from ..core.cache_format import FORMAT, JOURNAL_DTYPE
from ..core.cache_location import DATA, JOURNAL, META, dataset_directory, version_directory
from ..core.metadata import Entry, Geometry
from ..errors import IntegrityError
from .block_log import BlockLog, Rows, positions, read_last_tick, stored_nbytes
from .cache_directory import (
    LEFTOVER,
    PART,
    read_meta,
    take_directory,
)
from .eviction import Candidate, choose_victims
from .hole_punching import can_punch_holes

__all__ = ["BlockCache", "CacheCounters", "CachedVersion", "Pin"]

_logger = logging.getLogger(__name__)

_PINS = "pins.json"
_SLACK = 32
"""Of the quota, one part in so many is freed when room is needed, so that it is not looked for at each write."""
_BATCHES = 8
"""At most one part in so many of the quota is put at once: room is made for what is put, by what was put before it."""
COMPACT_NBYTES = 256 << 10
TOUCHES_BETWEEN_SAVES = 4096
_ROUNDS = 16

Blocks = Sequence[int] | npt.NDArray[np.integer[Any]]


@dataclass(slots=True)
class CacheCounters:
    """What happened since the start.

    Attributes
    ----------
    corrupt : int
        Blocks that failed their checksum when they were read from disk.
    evicted : int
        Dataset versions removed whole for the quota.
    evicted_blocks : int
        Blocks removed for the quota from versions that stay.
    compacted : int
        Times that a version's files were written anew because most of them was dead.
    refused : int
        Blocks that were not written: no room, or the disk failed.
    dropped : int
        Dataset versions set aside because their files were not what they have to be.
    """

    corrupt: int = 0
    evicted: int = 0
    evicted_blocks: int = 0
    compacted: int = 0
    refused: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Pin:
    """A dataset that stays, whatever the quota: the version of it that was used last."""

    root: str
    id: str
    path: str


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
        self._evicting = threading.Lock()  # acquired before a log's lock, never after
        self._logs: OrderedDict[str, BlockLog] = OrderedDict()
        self._sizes: OrderedDict[str, int] = OrderedDict()  # of everything on disk, longest unused first
        self._last: dict[str, int] = {}  # tick of each version's last use
        self._names: dict[str, str] = {}  # of versions that were used since the start, or are pinned
        self._usage = 0
        self._serial = itertools.count(1)
        self._failing = self._closed = False
        self.directory, self._lock_fd = take_directory(Path(directory))
        self._can_punch = can_punch_holes(self.directory)
        self._pins = _read_pins(self.directory / _PINS)
        self._ticks = itertools.count(self._scan() + 1)
        self._learn_names(self._pins.values())
        self._reserve(0)

    def __enter__(self) -> BlockCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def usage_nbytes(self) -> int:
        """Bytes of all blocks' files, as they are on disk."""
        return self._usage

    def open(self, entry: Entry, root: str) -> CachedVersion:
        """What is kept of the version of a dataset that ``entry`` describes. Touches no file yet."""
        if entry.geometry is None:
            raise ValueError(f"{entry.path!r} has no data to keep")
        return CachedVersion(self, root, entry.path, entry.id, entry.version, entry.geometry)

    def geometry(self, root: str, dataset_id: str, version: str) -> Geometry | None:
        """The geometry of a version that something is kept of, however old; None when nothing is."""
        stored = self._stored(version_directory(root, dataset_id, version))
        if stored is None or (stored.root, stored.id, stored.version) != (root, dataset_id, version):
            return None
        return stored.geometry

    def versions(self, root: str, dataset_id: str) -> list[CachedVersion]:
        """The versions of a dataset that something is kept of, the one used last first."""
        prefix = dataset_directory(root, dataset_id) + "/"
        with self._lock:
            keys = [key for key in reversed(self._sizes) if key.startswith(prefix)]
        return [stored for key in keys if (stored := self._stored(key)) is not None]

    def stored(self) -> list[CachedVersion]:
        """Every version that something is kept of, the one used last first."""
        with self._lock:
            keys = list(reversed(self._sizes))
        return [stored for key in keys if (stored := self._stored(key)) is not None]

    def _stored(self, key: str) -> CachedVersion | None:
        meta = read_meta(self.directory / key / META)
        if meta is None:
            return None
        try:
            root, path, dataset_id, version = (str(meta[name]) for name in ("root", "path", "id", "version"))
            geometry = Geometry.from_json(meta["geometry"])
        except (KeyError, TypeError, IntegrityError):
            return None
        stored = CachedVersion(self, root, path, dataset_id, version, geometry)
        return stored if stored.key == key else None

    def remove(self, version: CachedVersion) -> int:
        """Forget a version; the bytes that are free now."""
        with self._evicting:
            with self._lock:
                nbytes = self._sizes.get(version.key, 0)
                if not nbytes or not self._may_go(version.key):
                    return 0
            self._discard(version.key)
        return nbytes

    def close(self) -> None:
        """Close all files and let another process have the directory."""
        with self._lock:
            logs = [] if self._closed else list(self._logs.values())
        for log in logs:
            self._save_uses(log)
        with self._lock:
            self._closed = True
            logs = [log for log in self._logs.values() if log.users == 0]  # the others: by their last user
            self._logs.clear()
            lock_fd, self._lock_fd = self._lock_fd, -1
        for log in logs:
            log.close()
        if lock_fd >= 0:
            os.close(lock_fd)

    # Pins

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The datasets that stay, in the order in which they were pinned."""
        with self._lock:
            return tuple(self._pins.values())

    def pin(self, root: str, dataset_id: str, path: str) -> None:
        """Let a dataset stay, whatever the quota.

        Raises
        ------
        OSError
            When that cannot be written down.
        """
        with self._evicting:
            pins = {**self._pins, dataset_directory(root, dataset_id): Pin(root, dataset_id, path)}
            self._set_pins(pins)

    def unpin(self, root: str, dataset_id: str) -> bool:
        """Let a dataset go in its turn again; was it pinned?"""
        with self._evicting:
            pins = dict(self._pins)
            was_pinned = pins.pop(dataset_directory(root, dataset_id), None) is not None
            if was_pinned:
                self._set_pins(pins)
        return was_pinned

    def _set_pins(self, pins: dict[str, Pin]) -> None:
        form = [{"root": pin.root, "id": pin.id, "path": pin.path} for pin in pins.values()]
        part = self.directory / f"{_PINS}{PART}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(part, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, "pins": form}, file)
        os.replace(part, self.directory / _PINS)
        self._learn_names(pins.values())
        with self._lock:
            self._pins = pins

    def _protected(self) -> set[str]:
        """Keys of the versions that are pinned. To be called with the lock held."""
        newest: dict[str, str] = {}
        found: set[str] = set()
        for key in reversed(self._sizes):
            dataset = key.partition("/")[0]
            if dataset in self._pins:
                # What is kept beside a version's blocks (its exact slices) goes by its name and a suffix.
                name = self._names.get(key, "").partition("#")[0]
                if newest.setdefault(dataset, name) == name:
                    found.add(key)
        return found

    def _learn_names(self, pins: Iterable[Pin]) -> None:
        """Look up the versions of pinned datasets: their keys do not tell."""
        names = {stored.key: stored.version for pin in pins for stored in self.versions(pin.root, pin.id)}
        with self._lock:
            self._names |= names

    # Open files

    @contextmanager
    def _using(self, version: CachedVersion, *, is_use: bool = True) -> Iterator[BlockLog]:
        key = version.key
        with self._lock:
            if self._closed:
                raise OSError(errno.ESHUTDOWN, "the cache is closed")
            log = self._logs.get(key)
            if log is None:
                tick = self._last.get(key, 0)
                log = self._logs[key] = BlockLog(self.directory / key, key, version._meta(), version.seed, tick, self)
            log.users += 1
            self._names[key] = version.version
            self._logs.move_to_end(key)
            if is_use and key in self._sizes:
                self._sizes.move_to_end(key)
        try:
            yield log
        finally:
            with self._lock:
                surplus = self._idle_logs()
                for other in surplus:
                    other.users += 1  # until its uses are saved
                log.users -= 1
                is_stray = log.users == 0 and self._logs.get(key) is not log
            for other in surplus:
                self._save_uses(other)
            with self._lock:
                for other in surplus:
                    other.users -= 1
                    if self._logs.get(other.key) is other and other.users == 0:
                        del self._logs[other.key]
                surplus = [other for other in surplus if other.users == 0]
            for other in [*surplus, log] if is_stray else surplus:
                other.close()
            if log.touched >= max(TOUCHES_BETWEEN_SAVES, log.journal_length // 8):
                self._save_uses(log)

    def _idle_logs(self) -> list[BlockLog]:
        """What is over the number of open files."""
        surplus = len(self._logs) - self._max_open
        if surplus <= 0:
            return []
        return [log for log in self._logs.values() if log.users == 0][:surplus]

    def _save_uses(self, log: BlockLog) -> None:
        with log.lock:
            with self._lock:
                has_room = self._usage + log.uses_nbytes <= self.quota_nbytes if log.is_open else False
            if has_room:
                with suppress(OSError):  # it only decides what goes first
                    log.save_uses()
                self.resized(log)

    def _tick(self, key: str) -> int:
        tick = next(self._ticks)
        self._last[key] = tick
        return tick

    # Accounts

    def resized(self, log: BlockLog, reserved_nbytes: int = 0) -> None:
        """Account a version by what its files are now, in place of what was reserved for it."""
        with self._lock:
            self._usage -= reserved_nbytes
            if self._logs.get(log.key) is log:  # one that was evicted meanwhile is on disk no more
                before = self._sizes.get(log.key)
                nbytes = log.nbytes
                self._usage += nbytes - (before or 0)
                if nbytes:
                    self._sizes[log.key] = nbytes  # at its place in the order of use, or at the end
                elif before is not None:
                    del self._sizes[log.key]

    def dropped(self, log: BlockLog) -> None:
        """Remove files that are damaged, or another dataset's."""
        self._drop(log.path)
        self.resized(log)

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

    def _reserve(self, nbytes: int) -> bool:
        """Make room for ``nbytes``, and account them. Not to be called with a log's lock held.

        Returns
        -------
        bool
            False when there is not so much room, or what there is is pinned.
        """
        if nbytes > self._budget_nbytes or self._closed:
            return False
        if self._take(nbytes):
            return True
        with self._evicting:
            for number in range(_ROUNDS):
                if self._take(nbytes):
                    return True
                # More each time: holes between small blocks may free less than was in them.
                slack = (self.quota_nbytes // _SLACK) << number
                if not self._evict(self._usage + nbytes - self._budget_nbytes + slack):
                    return False
        return self._take(nbytes)

    @property
    def _budget_nbytes(self) -> int:
        # The rest is for what has to be written to make room: tombstones.
        return self.quota_nbytes - self.quota_nbytes // 64

    def _take(self, nbytes: int) -> bool:
        with self._lock:
            has_room = self._usage + nbytes <= self._budget_nbytes
            if has_room:
                self._usage += nbytes
        return has_room

    # Eviction

    def _evict(self, goal: int) -> bool:
        """Free some bytes, ``goal`` if that can be at once; False when nothing may go."""
        candidates = self._candidates()
        victims = choose_victims(candidates, goal)
        went = False
        for candidate in candidates:
            mask = victims.get(candidate.key)
            if mask is None:
                continue
            with self._lock:
                if not self._may_go(candidate.key):
                    continue
                log = self._logs.get(candidate.key)
                is_known = log is not None and log.is_open
                size = self._sizes.get(candidate.key, 0)
            if self._can_punch and not is_known and size > max(goal, COMPACT_NBYTES):
                went |= self._look_into(candidate.key)  # the next round knows its blocks
            elif mask.all() and len(mask):
                self._discard(candidate.key)
                self.counters.evicted += 1
                went = True
            elif log is not None:
                went |= self._evict_blocks(log, mask)
        return went

    def _candidates(self) -> list[Candidate]:
        with self._lock:
            protected = self._protected()
            keys = [key for key in self._sizes if key not in protected and self._may_go(key)]
            logs = {key: self._logs.get(key) for key in keys}
            sizes = {key: self._sizes[key] for key in keys}
        candidates: list[Candidate] = []
        for key in keys:
            log = logs[key]
            rows = log.rows() if log is not None and self._can_punch else None
            if rows is None or not len(rows):
                candidates.append(Candidate.as_a_whole(key, self._last.get(key, 0), sizes[key]))
            else:
                nbytes = rows["size"].astype(np.int64) + JOURNAL_DTYPE.itemsize
                candidates.append(Candidate(key, rows["tick"], rows["offset"].astype(np.int64), nbytes))
        return candidates

    def _may_go(self, key: str) -> bool:
        # Files that are being opened at this moment must stay what they are.
        log = self._logs.get(key)
        return log is None or log.users == 0 or log.is_open

    def _look_into(self, key: str) -> bool:
        stored = self._stored(key)
        try:
            if stored is not None:
                with self._using(stored, is_use=False) as log:
                    if len(log.load().fold()):
                        return True
        except OSError as error:
            self._failed(error)
        self._discard(key)
        self.counters.evicted += 1
        return True

    def _evict_blocks(self, log: BlockLog, mask: npt.NDArray[np.bool_]) -> bool:
        try:
            with log.lock:
                rows = log.rows()
                if rows is None or len(rows) != len(mask):
                    return True  # it has changed meanwhile: look again
                self.counters.evicted_blocks += log.evict(rows[mask])
                if log.dead_nbytes > max(log.nbytes // 2, COMPACT_NBYTES):
                    self._compact(log)
                self.resized(log)
        except OSError as error:
            self._failed(error)
            self._discard(log.key)
            self.counters.evicted += 1
        return True

    def _compact(self, log: BlockLog) -> None:
        with self._lock:
            has_room = self._usage + log.nbytes <= self.quota_nbytes
        graveyard = self._graveyard()
        try:
            log.compact(graveyard, in_place=not has_room)
            self.counters.compacted += 1
        finally:
            shutil.rmtree(graveyard, ignore_errors=True)

    def _graveyard(self) -> Path:
        return self.directory / f"{LEFTOVER}{os.getpid()}-{next(self._serial)}"

    def _discard(self, key: str) -> None:
        """Remove a version; who reads it has the files still, and finds nothing of it from now on."""
        graveyard = self._graveyard()
        with self._lock:
            self._usage -= self._sizes.pop(key, 0)
            log = self._logs.pop(key, None)
            self._last.pop(key, None)
            self._names.pop(key, None)
            if log is not None and log.users:
                log = None  # closed by its last user
            with suppress(OSError):
                os.rename(self.directory / key, graveyard)
        if log is not None:
            log.close()
        shutil.rmtree(graveyard, ignore_errors=True)

    def _scan(self) -> int:
        """Count what is there, remove what an earlier process left unfinished; the last tick."""
        found: list[tuple[int, int, str, int]] = []
        unknown: list[tuple[int, str, int]] = []
        try:
            datasets = [e for e in os.scandir(self.directory) if e.is_dir(follow_symlinks=False)]
        except OSError as error:
            self._failed(error)
            return 0
        for dataset in datasets:
            if dataset.name.startswith(LEFTOVER):
                shutil.rmtree(dataset.path, ignore_errors=True)
                continue
            with suppress(OSError):
                os.rmdir(dataset.path)  # nothing is in it
            with suppress(OSError):
                for version in list(os.scandir(dataset.path)):
                    if version.name.endswith(PART):
                        shutil.rmtree(version.path, ignore_errors=True)
                        continue
                    files = {f.name: f.stat() for f in os.scandir(version.path)}
                    if not {META, DATA, JOURNAL} <= set(files):
                        self._drop(Path(version.path))
                        continue
                    key, nbytes = f"{dataset.name}/{version.name}", stored_nbytes(files)
                    tick = read_last_tick(Path(version.path))
                    if tick is None:
                        unknown.append((files[META].st_mtime_ns, key, nbytes))
                    else:
                        found.append((tick, files[META].st_mtime_ns, key, nbytes))
        last = max((tick for tick, *_ in found), default=0)
        # A process that was killed has not said when it used what: that was after all that it had said.
        found += [(last + number, mtime, key, size) for number, (mtime, key, size) in enumerate(sorted(unknown), 1)]
        for tick, _, key, nbytes in sorted(found):
            self._sizes[key], self._last[key] = nbytes, tick
            self._usage += nbytes
            last = max(last, tick)
        return last


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
        self.key = version_directory(root, dataset_id, version)
        self.seed = checksum_seed(dataset_id, version)
        self._cache = cache

    @property
    def nbytes(self) -> int:
        """Bytes that its files take."""
        return self._cache._sizes.get(self.key, 0)

    def held(self, nchunk: int, blocks: Blocks) -> npt.NDArray[np.bool_]:
        """Which blocks of a chunk are kept (by the journal: ``get`` has the last word).

        Parameters
        ----------
        blocks : sequence of int
            Block numbers of chunk ``nchunk``.
        """
        return self.held_all([(nchunk, blocks)])

    def held_all(self, wanted: Iterable[tuple[int, Blocks]]) -> npt.NDArray[np.bool_]:
        """Which blocks of several chunks are kept, one after another. No use of them is counted."""
        wanted = list(wanted)
        try:
            with self._cache._using(self, is_use=False) as log:
                index = log.load()
                masks = [positions(index.chunk(n), np.asarray(blocks, np.int64)) >= 0 for n, blocks in wanted]
        except OSError as error:
            self._cache._failed(error)
            masks = [np.zeros(len(blocks), np.bool_) for _, blocks in wanted]
        return np.concatenate(masks) if masks else np.zeros(0, np.bool_)

    def touch(self, nchunk: int, blocks: Blocks) -> int:
        """Count a use of blocks that somebody else has read from the files; the bytes that they take."""
        wanted = np.asarray(blocks, np.int64)
        with suppress(OSError), self._cache._using(self) as log:
            rows = log.load().chunk(nchunk)
            at = positions(rows, wanted)
            self._used(log, rows, at)
            return int(rows["size"][at[at >= 0]].sum())
        return 0

    def get(self, nchunk: int, blocks: Blocks) -> list[BlockRecord]:
        """Those of the blocks that are kept and whose checksums hold.

        Returns
        -------
        list of BlockRecord
            One per chunk header that they decode with; one of a whole chunk when it is kept so.
        """
        wanted = np.asarray(blocks, np.int64)
        records: list[BlockRecord] = []
        try:
            for _ in range(4):
                records, was_changed = self._get(nchunk, wanted)
                if not was_changed:
                    break
        except OSError as error:
            self._cache._failed(error)
            return []
        return records

    def _get(self, nchunk: int, wanted: npt.NDArray[np.int64]) -> tuple[list[BlockRecord], bool]:
        """Blocks, and whether there may be more of them by now: they moved or went while they were read."""
        cache = self._cache
        with cache._using(self) as log:
            index = log.load()
            rows = index.chunk(nchunk)
            if not len(rows):
                return [], False
            at = positions(rows, wanted)
            self._used(log, rows, at)
            at = at[at >= 0]
            chosen = rows if len(at) == len(rows) and rows["block"][-1] != WHOLE else rows[np.unique(at)]
            records, bad = log.read(index, nchunk, chosen)
            if not bad:
                return records, False
            ncorrupt = log.forget(nchunk, chosen[np.isin(chosen["block"], bad)])
            cache.counters.corrupt += ncorrupt
            cache.resized(log)
        cache._reserve(0)
        return records, ncorrupt < len(bad) or WHOLE in bad

    def _used(self, log: BlockLog, rows: Rows, at: npt.NDArray[np.int64]) -> None:
        rows["tick"][at[at >= 0]] = self._cache._tick(self.key)
        log.touched += 1

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
            record.verify(self.seed)
        return self.put_verified(*records)

    def put_verified(self, *records: BlockRecord) -> int:
        """As ``put``, of records whose checksums were checked when they came."""
        for record in records:
            self._check(record)
        nput = 0
        for batch in _batches(records, self._cache.quota_nbytes // _BATCHES):
            try:
                nput += self._put(batch)
            except OSError as error:
                self._cache._failed(error)
                self._cache.counters.refused += sum(len(r.ids) for r in batch)
        return nput

    def _put(self, records: Sequence[BlockRecord]) -> int:
        cache = self._cache
        with cache._using(self) as log:
            fresh = _unknown(records, log)
            reserved = log.cost(fresh)
        if not fresh:
            return 0
        if not cache._reserve(reserved):
            cache.counters.refused += sum(len(r.ids) for r in fresh)
            return 0
        is_accounted = False
        try:
            with cache._using(self) as log, log.lock:
                fresh = _unknown(fresh, log)  # others may have put them meanwhile
                try:
                    if fresh:
                        log.load(create=True)
                        log.append(fresh, cache._tick(self.key))
                finally:
                    is_accounted = True
                    cache.resized(log, reserved)
        finally:
            if not is_accounted:
                with cache._lock:
                    cache._usage -= reserved
        cache._recovered()
        return sum(len(r.ids) for r in fresh)

    def chunks(self) -> list[int]:
        """Numbers of the chunks that something is kept of."""
        try:
            with self._cache._using(self, is_use=False) as log, log.lock:
                numbers: list[int] = np.unique(log.load().fold()["nchunk"]).tolist()
        except OSError as error:
            self._cache._failed(error)
            return []
        return numbers

    def verify(self, nchunk: int) -> tuple[int, int, int]:
        """Read all that is kept of a chunk; what fails its checksum is dropped. Counts as no use.

        Returns
        -------
        nblocks, nbytes, nbad : int
        """
        cache = self._cache
        try:
            with cache._using(self, is_use=False) as log:
                index = log.load()
                rows = index.chunk(nchunk)
                _, bad = log.read(index, nchunk, rows)
                nbad = log.forget(nchunk, rows[np.isin(rows["block"], bad)]) if bad else 0
                if nbad:
                    cache.counters.corrupt += nbad
                    cache.resized(log)
        except OSError as error:
            cache._failed(error)
            return 0, 0, 0
        return len(rows), int(rows["size"].sum(dtype=np.int64)), nbad

    def _check(self, record: BlockRecord) -> None:
        ids = record.ids
        if record.nchunk >= self.geometry.nchunks or len(ids) == 0:
            raise IntegrityError(f"no chunk {record.nchunk} with {len(ids)} blocks in {self.path!r}")
        if not record.is_whole and (
            int(ids[-1]) >= self.geometry.chunk_nblocks(record.nchunk) or bool(np.any(ids[1:] <= ids[:-1]))
        ):
            raise IntegrityError(f"chunk {record.nchunk} of {self.path!r} has no such blocks")

    def _meta(self) -> dict[str, Any]:
        names = ("root", "path", "id", "version")
        return {"format": FORMAT, **{n: getattr(self, n) for n in names}, "geometry": self.geometry.to_json()}


def _batches(records: Sequence[BlockRecord], max_nbytes: int) -> Iterator[Sequence[BlockRecord]]:
    """Records to put at once: of that many bytes at most, but for single ones."""
    first = nbytes = 0
    for number, record in enumerate(records):
        size = len(record.head) + len(record.body)
        if number > first and nbytes + size > max_nbytes:
            yield records[first:number]
            first, nbytes = number, 0
        nbytes += size
    yield records[first:]


def _unknown(records: Iterable[BlockRecord], log: BlockLog) -> list[BlockRecord]:
    """The parts of records that are not kept yet."""
    index = log.load()
    parts: list[BlockRecord] = []
    for record in records:
        rows = index.chunk(record.nchunk)
        if not len(rows):
            parts.append(record)
            continue
        fresh = record.ids[positions(rows, record.ids.astype(np.int64)) < 0]
        if len(fresh):
            parts.append(record.pick(fresh.tolist()))
    return parts


def _read_pins(path: Path) -> dict[str, Pin]:
    """The pins that were written down; none when that cannot be read."""
    try:
        form = json.loads(path.read_bytes())
        pins = [Pin(str(item["root"]), str(item["id"]), str(item["path"])) for item in form["pins"]]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _logger.warning("%s cannot be read (%s): nothing is pinned", path, error)
        return {}
    return {dataset_directory(pin.root, pin.id): pin for pin in pins}
