"""The short circuit: blocks straight from the subscriber's cache files, where they lie on this machine.

The subscriber is asked once where its cache is, and that it is the same file system is proved by a file in it. After
that a read of cached blocks is `pread`, checksum and decompression in this process: no HTTP, no second copy.
Every block is verified as its origin made it; whatever is missing, damaged, of another version or not
readable is *not here*, and the caller asks the service, which knows. Nothing is ever written to the files.

The format is ``core.cache_format``; keeping, evicting and repairing are the subscriber's (``storage.block_cache``).
"""

from __future__ import annotations

import json
import os
import platform
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..core.assembly import RUN_NBYTES, Assembler
from ..core.block_index import BlockIndex
from ..core.blocks import BlockRecord, checksum_seed
from ..core.cache_format import FORMAT, JOURNAL_DTYPE, Journal, replay
from ..core.cache_location import DATA, JOURNAL, META, CacheLocation, version_directory
from ..core.chunk_grid import BlockPlan, ChunkProjection
from ..core.codec import decode_runs, even_runs
from ..core.dtypes import is_vlen
from ..core.exact_slice import PieceAssembler, piece_geometry, selection_digest, slice_seed
from ..core.kept_slices import piece_place, slices_entry, unpack_piece
from ..core.metadata import Entry
from ..core.selection import Selection
from ..errors import Caterva2Error, IntegrityError
from .cache_policy import is_near
from .decoded_blocks import DecodedBlocks

__all__ = ["CacheService", "LocalCache", "NotHere"]

MAX_OPEN = 32
DECODED_NBYTES = 64 << 20
KEPT_READ_NBYTES = 32 << 20  # a larger read would only push out what is read again and again
KEPT_BLOCK_NBYTES = 4 << 10  # of smaller ones many are decoded at once faster than they are found one by one
KEPT_SMALL_BLOCKS = 1024
MAX_SEEN = 1 << 17
MAX_CHUNKS_AT_ONCE = 1 << 16
PARALLEL_NBYTES = 1 << 20
TASKS = max(2, min(4, os.cpu_count() or 1))
ASK_AGAIN_S = 60.0
REPORT_EVERY_S = 10.0
MAX_REPORTED = 4096
MAX_META_NBYTES = 1 << 20

_WHOLE_ONE = np.zeros(1, np.int64)

T = TypeVar("T")
_Key = tuple[str, str, str]  # root, dataset id, version
Blocks = npt.NDArray[np.int64]


class NotHere(LookupError):
    """The files do not have it, or cannot be trusted with it: ask the service."""


class CacheService(Protocol):
    """The service whose cache it is."""

    @property
    def url(self) -> str: ...

    def cache_location(self) -> CacheLocation:
        """Where its cache is; any ``Caterva2Error`` means that it does not say."""
        ...

    def report_uses(self, uses: Sequence[dict[str, Any]]) -> None:
        """Tell it which blocks were read past it."""
        ...


class LocalCache:
    """Reads of what a subscriber on this machine has in its cache.

    Parameters
    ----------
    service : CacheService
    clock : callable
        Seconds, monotonic.

    Attributes
    ----------
    decoded : DecodedBlocks
    """

    def __init__(self, service: CacheService, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._clock = clock
        self._is_near = is_near(service.url)
        self._begin()

    def _begin(self) -> None:
        """Begin anew: in a forked child locks may be held by threads that are not there."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._versions: OrderedDict[_Key, _CachedFiles] = OrderedDict()
        self._directory: Path | None = None
        self._ask_at = float("-inf")
        self._uses: list[tuple[_Key, int, Blocks]] = []
        self._report_at = self._clock() + REPORT_EVERY_S
        self._report_task: Future[None] | None = None
        self.decoded = DecodedBlocks(DECODED_NBYTES)

    def close(self) -> None:
        """Report uses, close all files and let go of memory."""
        if self._pid == os.getpid():
            self._report()
        self._begin()

    # Reading

    def read(self, root: str, entry: Entry, plan: BlockPlan, assembler: Assembler, pool: Executor) -> None:
        """Place all blocks of a plan; those of a small one are kept decoded when they come back.

        Raises
        ------
        NotHere
            When one of them is not to be had, or the plan is very large: see `records`.
        """
        if plan.nchunks > MAX_CHUNKS_AT_ONCE:
            raise NotHere
        geometry, nblocks = plan.geometry, plan.nblocks
        nbytes = nblocks * geometry.block_nbytes
        is_kept = (
            not is_vlen(geometry.dtype)
            and geometry.itemsize > 0
            and nbytes <= KEPT_READ_NBYTES
            and (geometry.block_nbytes >= KEPT_BLOCK_NBYTES or nblocks <= KEPT_SMALL_BLOCKS)
        )
        files = self._follow(root, entry)
        decoded = self.decoded
        todo: list[tuple[ChunkProjection, Journal, bool]] = []
        for projection in plan:
            nchunk, numbers = projection.nchunk, projection.blocks
            blocks: list[npt.NDArray[np.uint8]] | None = None
            listed: list[int] = []
            if is_kept:
                listed = numbers.tolist()
                blocks = decoded.get_all([(files.key, nchunk, block) for block in listed])
            if blocks is not None:
                assembler.place_blocks(projection, numbers, blocks)
            else:
                # To decode to memory that stays costs more: for blocks that come back only.
                todo.append((projection, files.find(nchunk, numbers), is_kept and files.seen_before(nchunk, listed)))
            self._uses.append((files.key, nchunk, numbers))

        def act(item: tuple[ChunkProjection, Journal, bool]) -> None:
            projection, rows, is_back = item
            for record in self._checked(files, projection.nchunk, rows):
                if is_back:
                    self._decode(files, assembler, projection, record)
                else:
                    assembler.add(projection, record)

        if todo:
            self._in_parallel(pool, todo, nbytes, act)
        self._report_in(pool)

    def _decode(
        self, files: _CachedFiles, assembler: Assembler, projection: ChunkProjection, record: BlockRecord
    ) -> None:
        """Place the blocks of a record, and keep them."""
        geometry = assembler.geometry
        block_nbytes = geometry.block_nbytes
        full = geometry.chunk_nbytes(projection.nchunk) // block_nbytes
        if record.is_whole or int(record.ids[-1]) >= full:  # with a short block at its end
            assembler.add(projection, record)
            return

        def memory(first: int, stop: int) -> npt.NDArray[np.uint8]:
            return self.decoded.room((stop - first) * block_nbytes)

        runs = even_runs(len(record.ids), max(1, RUN_NBYTES // block_nbytes))
        for first, stop, raw in decode_runs(record, geometry, runs, memory):
            ids = record.ids[first:stop]
            room = raw
            if not raw.flags.writeable:  # a view of the record, which was stored uncompressed
                room = memory(first, stop)
                room[:] = raw
            keys: list[Hashable] = [(files.key, record.nchunk, block) for block in ids.tolist()]
            assembler.place_blocks(projection, ids.astype(np.int64), self.decoded.put(keys, room))

    def read_slice(self, root: str, entry: Entry, selection: Selection) -> npt.NDArray[Any]:
        """The box of a selection, where its exact slice is kept.

        Raises
        ------
        NotHere
            When it is not, or not all of it.
        """
        geometry = entry.geometry
        assert geometry is not None
        digest = selection_digest(selection)
        seed = slice_seed(checksum_seed(entry.id, entry.version), digest)
        files = self._follow(root, slices_entry(entry.path, entry.id, entry.version))
        assembler = PieceAssembler(geometry, selection)
        try:
            for number in range(piece_geometry(geometry, selection).nchunks):
                place = piece_place(digest, number)
                for kept in self._checked(files, place, files.find(place, _WHOLE_ONE)):
                    piece = unpack_piece(kept, digest, number)
                    if piece is None:
                        raise NotHere
                    piece.verify(seed)
                    assembler.add(piece)
            assembler.finish()
        except IntegrityError:
            raise NotHere from None
        return assembler.out

    def records(
        self, root: str, entry: Entry, plan: BlockPlan, first: int, stop: int
    ) -> Iterator[tuple[ChunkProjection, BlockRecord]]:
        """Records of a window of a plan, verified.

        Raises
        ------
        NotHere
            Before the first one when not all are here; in their midst when one fails its checksum.
        """
        files = self._follow(root, entry)
        found = [(p, files.find(p.nchunk, p.blocks)) for p in plan.window(first, stop)]
        for projection, rows in found:
            self._uses.append((files.key, projection.nchunk, projection.blocks))
            for record in self._checked(files, projection.nchunk, rows):
                yield projection, record

    def _checked(self, files: _CachedFiles, nchunk: int, rows: Journal) -> Iterator[BlockRecord]:
        try:
            yield from files.records(nchunk, rows)
        except (OSError, IntegrityError):
            # Damaged, or the files were replaced between two looks: the next read opens them anew.
            with self._lock:
                if self._versions.get(files.key) is files:
                    del self._versions[files.key]
            raise NotHere from None

    @staticmethod
    def _in_parallel(pool: Executor, items: Sequence[T], nbytes: int, act: Callable[[T], None]) -> None:
        """Act on all items, in several threads when it is worth it; nothing goes on when this returns."""
        count = min(TASKS, len(items)) if nbytes >= PARALLEL_NBYTES else 1

        def act_on(number: int) -> None:
            for item in items[number::count]:
                act(item)

        tasks = [pool.submit(act_on, number) for number in range(1, count)]
        try:
            act_on(0)
        finally:
            wait(tasks)
        for task in tasks:
            task.result()

    # Where the files are

    def _follow(self, root: str, entry: Entry) -> _CachedFiles:
        """The files of a version, as they are now."""
        if not self._is_near:
            raise NotHere
        if self._pid != os.getpid():
            self._begin()
        key = (root, entry.id, entry.version)
        directory = self._directory or self._locate()
        with self._lock:
            files = self._versions.get(key)
            if files is not None:
                self._versions.move_to_end(key)
        try:
            if files is None:
                files = _CachedFiles(directory / version_directory(*key), key, entry)
                with self._lock:
                    self._versions[key] = files
                    if len(self._versions) > MAX_OPEN:
                        self._versions.popitem(last=False)
            files.follow()
        except (OSError, IntegrityError):
            with self._lock:
                self._versions.pop(key, None)
            if self._clock() >= self._ask_at:
                self._directory = None  # the service may have another directory by now
            raise NotHere from None
        return files

    def _locate(self) -> Path:
        if self._clock() < self._ask_at:
            raise NotHere
        self._ask_at = self._clock() + ASK_AGAIN_S
        try:
            location = self._service.cache_location()
            directory = _proved(location)
        except (Caterva2Error, OSError):
            raise NotHere from None
        self._directory = directory
        return directory

    # Telling what was used

    def _report_in(self, pool: Executor) -> None:
        if len(self._uses) < MAX_REPORTED and self._clock() < self._report_at:
            return
        if self._report_task is not None and not self._report_task.done():
            del self._uses[:-MAX_REPORTED]  # a service that does not answer must not take memory, nor more threads
            return
        self._report_at = self._clock() + REPORT_EVERY_S
        self._report_task = pool.submit(self._report)

    def _report(self) -> None:
        """Tell the service which blocks were read, so that they are not the first to go; it may fail."""
        uses, self._uses = self._uses, []
        if not uses:
            return
        blocks: dict[_Key, dict[int, set[int]]] = {}
        for key, nchunk, numbers in uses:
            blocks.setdefault(key, {}).setdefault(nchunk, set()).update(numbers.tolist())
        forms = [
            {"root": root, "id": dataset, "version": version, "chunks": [[n, sorted(b)] for n, b in chunks.items()]}
            for (root, dataset, version), chunks in blocks.items()
        ]
        with suppress(Caterva2Error):
            self._service.report_uses(forms)


class _CachedFiles:
    """The files of one version, open for reading.

    Raises
    ------
    OSError, IntegrityError
        When there are none, or they are not those of this version.
    """

    def __init__(self, path: Path, key: _Key, entry: Entry) -> None:
        self.key = key
        self._seed = checksum_seed(entry.id, entry.version)
        self._lock = threading.Lock()
        self._journal_path = path / JOURNAL
        geometry = entry.geometry
        meta = _OpenFile(path / META)
        try:
            form = json.loads(meta.read(MAX_META_NBYTES, 0))
        except (ValueError, RecursionError):
            raise IntegrityError(f"{path} has no readable description") from None
        expected = {"format": FORMAT, "root": key[0], "id": entry.id, "version": entry.version}
        if (
            not isinstance(form, dict)
            or geometry is None
            or form.get("geometry") != geometry.to_json()
            or any(form.get(name) != value for name, value in expected.items())
        ):
            raise IntegrityError(f"{path} is not the cache of this version")
        self._journal = _OpenFile(self._journal_path)
        self._data = _OpenFile(path / DATA)
        self._end = 0
        self._index = BlockIndex(np.zeros(0, JOURNAL_DTYPE))
        self._seen: set[int] = set()

    def follow(self) -> None:
        """Take up what the journal has grown by."""
        status = os.stat(self._journal_path)
        if (status.st_dev, status.st_ino) != self._journal.identity or status.st_size < self._end:
            raise IntegrityError(f"{self._journal_path} was replaced")
        if status.st_size - self._end < JOURNAL_DTYPE.itemsize:
            return
        with self._lock:
            grown = self._journal.read(status.st_size - self._end, self._end)
            # Bytes come before the records that make them count, so the data's length is asked for after.
            entries = replay(grown, self._seed, self._data.nbytes)
            if len(entries) and self._end:
                self._index.update(entries)
            elif len(entries):
                self._index = BlockIndex(entries)
            self._end += entries.nbytes

    def seen_before(self, nchunk: int, blocks: list[int]) -> bool:
        """Was one of these blocks asked about lately? From now on they all were."""
        seen = self._seen
        if len(seen) > MAX_SEEN:
            seen = self._seen = set()
        keys = [nchunk << 32 | block for block in blocks]
        is_back = not seen.isdisjoint(keys)
        seen.update(keys)
        return is_back

    def find(self, nchunk: int, blocks: Blocks) -> Journal:
        """The journal's records of blocks.

        Raises
        ------
        NotHere
            When one is missing.
        """
        rows = self._index.find(nchunk, blocks)
        if rows is None:
            raise NotHere
        return rows

    def records(self, nchunk: int, rows: Journal) -> Iterator[BlockRecord]:
        """Verified records of blocks, one per head that they decode with.

        Raises
        ------
        IntegrityError, OSError
        """
        first = rows[0]
        if (rows["head_offset"] == first["head_offset"]).all():
            groups = [rows]
        else:
            groups = [rows[rows["head_offset"] == offset] for offset in np.unique(rows["head_offset"])]
        for group in groups:
            head = self._data.read(int(group[0]["head_size"]), int(group[0]["head_offset"]))
            sizes = np.ascontiguousarray(group["size"])
            ids, crcs = np.ascontiguousarray(group["block"]), np.ascontiguousarray(group["crc"])
            record = BlockRecord(nchunk, head, ids, sizes, crcs, self._bodies(group["offset"], sizes))
            record.verify(self._seed)
            yield record

    def _bodies(self, offsets: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint32]) -> bytes:
        """The bytes of blocks, one after another, read in runs; short where the file is cut."""
        if len(sizes) == 1:
            return self._data.read(int(sizes[0]), int(offsets[0]))
        if (offsets[1:] == offsets[:-1] + sizes[:-1]).all():
            return self._data.read(int(sizes.sum(dtype=np.int64)), int(offsets[0]))
        starts, lengths = offsets.astype(np.int64), sizes.astype(np.int64)
        first = np.concatenate([[0], np.flatnonzero(starts[1:] != starts[:-1] + lengths[:-1]) + 1])
        totals = np.add.reduceat(lengths, first)
        parts = [self._data.read(n, o) for n, o in zip(totals.tolist(), starts[first].tolist(), strict=True)]
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _OpenFile:
    """A regular file of this user, closed when nobody refers to it any more: threads may be reading it until then."""

    def __init__(self, path: Path) -> None:
        self._fd = -1
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise IntegrityError(f"{path} is not a file of this user")
        self.identity = status.st_dev, status.st_ino

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Modules may be gone when the interpreter ends: what is called is bound before.
        if self._fd >= 0:
            close(self._fd)

    @property
    def nbytes(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, nbytes: int, offset: int) -> bytes:
        """Up to ``nbytes``; less only at the end of the file."""
        part = os.pread(self._fd, nbytes, offset)
        if len(part) == nbytes or not part:
            return part
        return part + self.read(nbytes - len(part), offset + len(part))


def _proved(location: CacheLocation) -> Path:
    """The cache's directory, when this process sees the file system that the service sees, as the same user.

    A tunnel makes another machine look near; a directory that others may write to could be made by anybody.
    """
    if location.host != platform.node():
        raise IntegrityError("the cache is on another machine")
    directory = Path(location.directory)
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise IntegrityError(f"{directory} is not a directory of this user alone")
    content = _OpenFile(directory / location.proof).read(MAX_META_NBYTES, 0)
    if not location.is_proved_by(content):
        raise IntegrityError(f"{directory} is not the directory that the service means")
    return directory
