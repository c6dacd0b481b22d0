"""A source over files: the one place where blocking work crosses from an event loop to threads.

Reads run ahead of whoever consumes them, by a few pieces of bounded size. Blocks pass as they are stored; they
are decoded only where the exact slice is the smaller answer. It knows no sockets; what is where is the root's
business, what is there the catalog's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..compute.reduction import Reduction
from ..core.answer_choice import Answer, can_slice, choose_answer, predict
from ..core.assembly import Assembler
from ..core.blocks import BlockRecord, checksum_seed
from ..core.catalog import CatalogPage, CatalogQuery, Cursor
from ..core.chunk_grid import BlockPlan, ChunkProjection
from ..core.events import Event, EventBatch
from ..core.exact_slice import encode_pieces, piece_geometry, selection_digest, slice_seed
from ..core.metadata import Entry, Geometry
from ..core.paths import parent
from ..core.reduce_request import ReduceRequest, Working
from ..core.selection import Selection
from ..core.source import BlockStream, ComparedStream, FileStream, ReducedStream
from ..core.wire import ReadRequest
from ..errors import (
    Caterva2Error,
    DatasetChangedError,
    RequestError,
    SourceUnavailableError,
    TooLargeError,
    UnsupportedDatasetError,
)
from .catalog_store import CatalogStore
from .comparison import compare_blocks
from .event_hub import EventHub
from .reducing import REDUCTIONS_AT_ONCE, reduce_stored
from .root import Root

__all__ = ["ThreadedSource", "wanted_blocks"]

PIECE_NBYTES = 1 << 20
"""Decoded bytes of what the first call in a thread reads (one block at least): the answer begins soon."""
LATER_PIECE_NBYTES = 8 << 20
"""The same of the calls after it at most: a call costs about as much as reading 100 kB."""
LATER_PIECE_CBYTES = 2 << 20
"""Compressed bytes of what they read, as the dataset compresses as a whole."""
MAX_CHUNKS_PER_PIECE = 256
PIECES_AHEAD = 2
PIECES_PLANNED = 64
MAX_WINDOWED_CHUNKS = 10_000_000
AT_ONCE_NBYTES = 64 << 10
"""Compressed bytes of a read that is answered on the event loop: less work than handing it to a thread."""
AT_ONCE_BLOCKS, AT_ONCE_CHUNKS = 16, 4
TIDY_S = 6.0
SLICES_AT_ONCE = 6
"""Exact slices in the making: each may take ``MAX_SLICE_NBYTES`` of memory."""

Ints = npt.NDArray[np.int64]
T = TypeVar("T")


_logger = logging.getLogger(__name__)


class ThreadedSource:
    """Answers of a ``Source`` from a root of files and its catalog.

    Parameters
    ----------
    name : str
        Of the root.
    root : Root
    store : CatalogStore
        The root's catalog; one that was made without a name takes this one.
    hub : EventHub
        Where changes are told; it may be shared by several roots.
    executor : Executor
        Where blocking work runs, with more than one thread (a scan keeps one busy). Its owner closes it.
    heartbeat_s : float
        Seconds between heartbeats when nothing happens.
    look_again : callable, optional
        Has the dataset at a path looked at: it is not the one in the catalog, though no change was told. A new hard
        link is such a change: it alters the file's generation, and no watcher of its directory hears of it.
    """

    def __init__(
        self,
        name: str,
        root: Root,
        store: CatalogStore,
        hub: EventHub,
        executor: Executor,
        heartbeat_s: float = 5,
        look_again: Callable[[str], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._name, self._files, self._store, self._hub = name, root, store, hub
        self._executor, self._heartbeat_s = executor, heartbeat_s
        self._look_again = look_again
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()
        self._closed = threading.Event()
        self._slicing = asyncio.Semaphore(SLICES_AT_ONCE)
        self._reducing = asyncio.Semaphore(REDUCTIONS_AT_ONCE)
        self._tidying: asyncio.TimerHandle | None = None
        store.root = store.root or name

    @property
    def root(self) -> str:
        return self._name

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    # What is there

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        return await self._run(self._store.page, query)

    async def entry(self, path: str) -> Entry:
        return await self._run(self._entry, path)

    def _entry(self, path: str) -> Entry:
        entry = self._store.resolve(path)
        return entry if entry.attrs_inline else self._files.attributes(entry)

    async def entries_with_id(self, dataset_id: str) -> list[Entry]:
        """The entries of a dataset's id."""
        return await self._run(self._store.with_id, dataset_id)

    # What is in it

    def read_at_once(self, request: ReadRequest) -> tuple[Entry, list[BlockRecord]] | None:
        """The blocks of a small read of what is in memory; None where it has to be read as any other.

        For event loops: it waits for no disk and no thread, and does little.
        """
        entry = self._store.recall(request.path, request.version)
        if entry is None or (geometry := entry.geometry) is None or request.known is not None:
            return None
        if not _touches_few_chunks(request.selection, geometry):
            return None
        plan = BlockPlan(geometry, Selection.from_json(request.selection, geometry.shape))
        if plan.nblocks > AT_ONCE_BLOCKS or self._answer_to(request, entry, plan) == "slice":
            return None
        records: list[BlockRecord] = []
        left = AT_ONCE_NBYTES
        for projection, blocks in wanted_blocks(plan, request):
            try:
                record = self._files.read_at_once(entry, projection.nchunk, blocks.tolist(), left)
            except Caterva2Error:
                return None  # what is wrong is told by those who can do something about it
            if record is None:
                return None
            records.append(record)
            left -= len(record.body)
        return entry, records

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        self._tidy_later()
        try:
            return await self._read(request)
        except DatasetChangedError:
            await self._suspect(request)
            raise

    def _tidy_later(self) -> None:
        if self._tidying is None and not self._closed.is_set():
            self._tidying = asyncio.get_running_loop().call_later(TIDY_S, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        if self._files.close_idle():
            self._tidy_later()

    async def _suspect(self, request: ReadRequest | ReduceRequest) -> None:
        """Have a dataset looked at that is not what the catalog says, once at a time."""
        if self._look_again is None:
            return
        entry = await self._run(self._store.resolve, request.path)
        if request.version not in (None, entry.version) or entry.path in self._looking:
            return
        task = self._looking[entry.path] = asyncio.create_task(self._look_again(entry.path))
        task.add_done_callback(partial(self._looked, entry.path))

    def _looked(self, path: str, task: asyncio.Task[None]) -> None:
        del self._looking[path]
        if not task.cancelled() and task.exception() is not None:
            _logger.warning("cannot look again at %r in root %r: %s", path, self._name, task.exception())

    async def _read(self, request: ReadRequest) -> BlockStream:
        planned, first, done = await self._run(self._begin, request)
        if planned.answer == "slice":
            async with self._slicing:
                return await self._slice(planned, request.fast)
        entry = planned.entry
        read = partial(_read_piece, self._files, entry)
        records = _RecordStream(entry, planned.pieces, self._executor, read, first, done)
        try:
            # A dataset that changed is told before the answer begins.
            await records.start()
        except BaseException:
            await records.aclose()
            raise
        return BlockStream(entry, records)

    def _begin(self, request: ReadRequest) -> tuple[_Planned, list[_Piece], _PieceRecords | None]:
        """The plan with its first pieces; a read of one piece is done at once, in this one call of a thread."""
        planned = self._plan(request)
        if planned.answer == "slice":
            return planned, [], None
        first = list(islice(planned.pieces, PIECES_PLANNED))
        if len(first) != 1:
            return planned, first, None
        return planned, [], _read_piece(self._files, planned.entry, first[0])

    async def _slice(self, planned: _Planned, fast: bool) -> BlockStream:
        """The exact slice, made before the answer begins: it is small (``answer_choice``)."""
        entry, selection = planned.entry, planned.plan.selection
        box = await self._box(planned)
        digest = selection_digest(selection)
        seed = slice_seed(checksum_seed(entry.id, entry.version), digest)
        pieces = piece_geometry(planned.plan.geometry, selection)
        records = await self._run(encode_pieces, seed, box, pieces, fast)
        return BlockStream(entry, _listed(records), digest)

    async def _box(self, planned: _Planned) -> npt.NDArray[Any]:
        """The values of a selection, decoded here."""
        assembler = Assembler(planned.plan.geometry, planned.plan.selection)
        place = partial(_place_piece, self._files, planned.entry, assembler)
        async with aclosing(_RecordStream(planned.entry, planned.pieces, self._executor, place)) as placed:
            async for _ in placed:
                raise AssertionError("all records are placed")
        return assembler.out

    def _stored(self, planned: _Planned) -> BlockStream:
        """The blocks of a selection, as they are stored."""
        read = partial(_read_piece, self._files, planned.entry)
        return BlockStream(planned.entry, _RecordStream(planned.entry, planned.pieces, self._executor, read))

    def _readable(self, path: str, version: str | None) -> tuple[Entry, Geometry]:
        entry = self._store.resolve(path)
        if entry.geometry is None:
            why = f": {entry.reason}" if entry.reason else f" ({entry.kind})"
            raise UnsupportedDatasetError(f"{entry.path!r} in root {self._name!r} cannot be read{why}")
        if version not in (None, entry.version):
            raise DatasetChangedError(
                f"dataset {entry.path!r} in root {self._name!r} changed: version {version} is gone"
            )
        return entry, entry.geometry

    async def reduce(self, request: ReduceRequest) -> ReducedStream:
        def begin() -> tuple[Entry, Reduction]:
            entry, geometry = self._readable(request.path, request.version)
            return entry, Reduction(geometry, request)

        try:
            entry, reduction = await self._run(begin)
        except DatasetChangedError:
            await self._suspect(request)
            raise
        return ReducedStream(entry, self._reduced(entry, reduction, request), reduction.digest)

    def _reduced(
        self, entry: Entry, reduction: Reduction, request: ReduceRequest
    ) -> AsyncIterator[BlockRecord | Working]:
        """The result of a reduction, computed here."""
        return reduce_stored(self._files, entry, reduction, self._executor, self._reducing)

    def _plan(self, request: ReadRequest) -> _Planned:
        entry, geometry = self._readable(request.path, request.version)
        plan = BlockPlan(geometry, Selection.from_json(request.selection, geometry.shape))
        answer = self._answer_to(request, entry, plan)
        wanted = wanted_blocks(plan, request)  # what does not fit the plan is refused, whichever the answer
        if answer == "slice":
            wanted = ((p, p.blocks) for p in plan)
        ratio = min(1.0, entry.cbytes / entry.nbytes) if entry.cbytes and entry.nbytes and answer == "blocks" else 1.0
        return _Planned(entry, plan, answer, _pieces(wanted, geometry.block_nbytes, ratio))

    def _answer_to(self, request: ReadRequest, entry: Entry, plan: BlockPlan) -> Answer:
        if request.mode == "blocks" or request.window is not None or not can_slice(plan.geometry, plan.selection):
            return "blocks"
        nheld = 0 if request.held is None else int(np.count_nonzero(request.held[: plan.nblocks]))
        return choose_answer(request.mode, predict(entry, plan, plan.nblocks - nheld))

    async def compare_blocks(self, request: ReadRequest) -> ComparedStream:
        return await compare_blocks(self, request, self._executor)

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        if start < 0 or (stop is not None and stop < start):
            raise RequestError(f"not a range of bytes: {start} to {stop}")

        def begin() -> tuple[FileStream, Iterator[bytes], bytes | None]:
            entry = self._store.resolve(path)
            if not entry.version:
                raise UnsupportedDatasetError(f"{entry.path!r} in root {self._name!r} is not a file ({entry.kind})")
            stored = self._files.read_file(entry, start, stop)
            first = next(stored.parts, None)
            return FileStream(stored.nbytes, stored.version, stored.mtime_ns, _no_parts()), stored.parts, first

        stream, parts, first = await self._run(begin)
        stream.parts = self._parts(parts, first)
        return stream

    async def _parts(self, parts: Iterator[bytes], part: bytes | None) -> AsyncIterator[bytes]:
        try:
            while part is not None:
                yield part
                part = await self._run(next, parts, None)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                # In a thread, and not waited for: who was cancelled may not await.
                with suppress(RuntimeError):  # the executor is closed: the garbage collector does it
                    self._executor.submit(_close_quietly, close)

    # What changed

    async def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        with self._hub.listen() as listener:
            cursor = since
            if cursor is None:
                cursor = await self._run(lambda: self._store.cursor)
            for batch in await self._run(self._store.events_since, cursor):
                cursor = batch.cursor
                yield replace(batch, root=self._name)
            yield self._heartbeat(cursor)
            while True:
                told = await listener.get(self._heartbeat_s)
                if told is None:
                    yield self._heartbeat(cursor)
                elif told.root == self._name and (told.epoch != cursor.epoch or told.seq > cursor.seq):
                    cursor = told.cursor
                    yield told

    def _heartbeat(self, cursor: Cursor) -> EventBatch:
        return EventBatch(self._name, cursor.epoch, cursor.seq + 1, cursor.seq)

    async def scan(self) -> int:
        """Bring the catalog up to date with all files, and tell what changed.

        Returns
        -------
        int
            Number of events.
        """
        return await self._change(lambda: self._store.replacing(self._going_on(self._files.scan(self._store.known()))))

    async def rescan(self, paths: Iterable[Path]) -> int:
        """Bring the catalog up to date with what is at (and below) these paths, and tell what changed.

        Parameters
        ----------
        paths : iterable of Path
            As the watcher names them: ``watched`` of the root, or below it.
        """
        looked_at = list(paths)

        def changes() -> Iterator[EventBatch]:
            prefixes = _outermost({self._prefix(path) for path in looked_at})
            known = (k for prefix in prefixes for k in self._store.known(prefix))
            return self._store.applying(self._going_on(self._files.rescan(looked_at, known)))

        return await self._change(changes)

    async def apply(self, changes: Sequence[tuple[Event, str]]) -> int:
        """Apply changes (with stamps) to the catalog, and tell them."""
        return await self._change(lambda: self._store.applying(changes))

    def _prefix(self, path: Path) -> str:
        prefix = path.relative_to(self._files.watched).as_posix()
        prefix = os.fsencode(prefix).decode("utf-8", "backslashreplace")  # as catalogs list names that are no text
        return "" if prefix == "." else prefix

    async def _change(self, changes: Callable[[], Iterator[EventBatch]]) -> int:
        loop = asyncio.get_running_loop()

        def work() -> int:
            nevents = 0
            for batch in changes():
                loop.call_soon_threadsafe(self._hub.publish, replace(batch, root=self._name))
                nevents += len(batch.events)
            return nevents

        # A scan that read a file before a change would undo what a rescan after it put in the catalog.
        async with self._changing:
            working = loop.run_in_executor(self._executor, work)
            try:
                return await asyncio.shield(working)
            finally:
                # Who asked may not wait any more; the thread goes on, and nobody else is to begin.
                await asyncio.wait([working])

    def _going_on(self, items: Iterable[T]) -> Iterator[T]:
        """The items, until the source is closed: a scan that stopped there would look like deletions."""
        for item in items:
            if self._closed.is_set():
                raise SourceUnavailableError(f"root {self._name!r} is closing")
            yield item

    def close(self) -> None:
        """Stop scans that are under way. Root, store and executor are closed by their owner."""
        for task in self._looking.values():
            task.cancel()
        if self._tidying is not None:
            self._tidying.cancel()
        self._closed.set()


@dataclass(frozen=True, slots=True)
class _Planned:
    """What answers a request: the pieces are to be sent, or to be decoded for the exact slice."""

    entry: Entry
    plan: BlockPlan
    answer: Answer
    pieces: Iterator[_Piece]


@dataclass(slots=True)
class _Part:
    """Blocks to read of one chunk, and those that may be sent if more come."""

    projection: ChunkProjection
    blocks: Ints
    welcome: Ints


@dataclass(slots=True)
class _Piece:
    """What one call in a thread reads; ``is_rest``: more of the chunk that a piece before it began."""

    parts: list[_Part]
    is_rest: bool = False


@dataclass(slots=True)
class _PieceRecords:
    records: list[BlockRecord]
    sent: Ints | None  # blocks of the last part's chunk; None: all of it


def _touches_few_chunks(selection: Any, geometry: Geometry) -> bool:
    """May a plan be made on an event loop? (What is malformed is refused elsewhere.)"""
    if selection is None:
        return geometry.nchunks <= AT_ONCE_CHUNKS
    if not isinstance(selection, list) or len(selection) != len(geometry.chunks):
        return False
    for axis, length in zip(selection, geometry.chunks, strict=True):
        if not isinstance(axis, list) or len(axis) != 3 or not all(type(n) is int for n in axis):
            return False
        if (axis[1] - axis[0]) // length > AT_ONCE_CHUNKS:
            return False
    return True


def wanted_blocks(plan: BlockPlan, request: ReadRequest) -> Iterator[tuple[ChunkProjection, Ints]]:
    """Chunks of a request with the blocks that are wanted, in the plan's order.

    Raises
    ------
    RequestError, TooLargeError
        When the window or the held blocks do not fit the plan.
    """
    window, held = request.window, request.held
    if window is None and held is None:
        return ((p, p.blocks) for p in plan)
    if plan.nchunks > MAX_WINDOWED_CHUNKS:
        raise TooLargeError(
            f"the selection touches {plan.nchunks} chunks, over the {MAX_WINDOWED_CHUNKS} of one read: select less"
        )
    first, stop = window if window is not None else (0, plan.nblocks)
    if stop > plan.nblocks:
        raise RequestError(f"window [{first}, {stop}] is outside of the {plan.nblocks} blocks of the selection")
    if held is not None and not 0 <= len(held) - (stop - first) < 8:
        raise RequestError(f"held has {len(held)} bits for a window of {stop - first} blocks")
    projections = iter(plan) if window is None else plan.window(first, stop)
    return _not_held(projections, held) if held is not None else ((p, p.blocks) for p in projections)


def _not_held(
    projections: Iterable[ChunkProjection], held: npt.NDArray[np.bool_]
) -> Iterator[tuple[ChunkProjection, Ints]]:
    position = 0
    for projection in projections:
        count = len(projection.blocks)
        blocks = projection.blocks[~held[position : position + count]]
        position += count
        if len(blocks):
            yield projection, blocks


def _pieces(wanted: Iterable[tuple[ChunkProjection, Ints]], block_nbytes: int, ratio: float) -> Iterator[_Piece]:
    """Group small chunks, and split large ones, in pieces of about ``PIECE_NBYTES``, larger ones later."""
    most = max(1, PIECE_NBYTES // max(block_nbytes, 1))
    later = max(1, int(min(LATER_PIECE_NBYTES, LATER_PIECE_CBYTES / ratio)) // max(block_nbytes, 1))
    group: list[_Part] = []
    count = 0
    for projection, blocks in wanted:
        if group and (count + len(blocks) > most or len(group) >= MAX_CHUNKS_PER_PIECE):
            yield _Piece(group)
            group, count, most = [], 0, later
        if len(blocks) <= most:
            group.append(_Part(projection, blocks, blocks))
            count += len(blocks)
            continue
        yield _Piece([_Part(projection, blocks[:most], blocks)])
        start, most = most, later
        while start < len(blocks):
            some = blocks[start : start + most]
            yield _Piece([_Part(projection, some, some)], is_rest=True)
            start += most
    if group:
        yield _Piece(group)


class _RecordStream:
    """Records of a read in order, a few pieces ahead of their consumer."""

    def __init__(
        self,
        entry: Entry,
        pieces: Iterator[_Piece],
        executor: Executor,
        read: Callable[[_Piece], _PieceRecords],
        planned: Sequence[_Piece] | None = None,
        done: _PieceRecords | None = None,
    ) -> None:
        self._entry, self._pieces, self._executor, self._read = entry, pieces, executor, read
        self._planned: deque[_Piece] = deque(planned or ())
        self._all_planned = planned is not None and len(planned) < PIECES_PLANNED
        self._pending: deque[asyncio.Future[_PieceRecords]] = deque()
        self._begun: asyncio.Future[_PieceRecords] | None = None  # the first piece of a split chunk
        self._ready: deque[BlockRecord] = deque(done.records if done is not None else ())

    def __aiter__(self) -> AsyncIterator[BlockRecord]:
        return self

    async def __anext__(self) -> BlockRecord:
        while not self._ready:
            if not await self._advance():
                raise StopAsyncIteration
        return self._ready.popleft()

    async def start(self) -> None:
        """Wait for the first records."""
        await self._advance()

    async def aclose(self) -> None:
        """Stop: what has not begun is not read."""
        self._pieces = iter(())
        self._planned.clear()
        self._all_planned = True
        for future in self._pending:
            future.cancel()
            # Nobody will ask for the errors of pieces that were read ahead.
            future.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._pending.clear()
        self._ready.clear()

    async def _advance(self) -> bool:
        await self._fill()
        if not self._pending:
            return False
        try:
            done = await self._pending[0]
        except BaseException:
            await self.aclose()
            raise
        if self._pending:
            self._pending.popleft()
        self._ready.extend(done.records)
        await self._fill()
        return True

    async def _fill(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._pending) < PIECES_AHEAD:
            if not self._planned and not self._all_planned:
                some = await loop.run_in_executor(self._executor, list, islice(self._pieces, PIECES_PLANNED))
                self._planned.extend(some)
                self._all_planned = len(some) < PIECES_PLANNED
            if not self._planned:
                return
            piece = self._planned[0]
            if piece.is_rest:
                # A chunk that cannot be cut came complete with its first piece: wait to know.
                assert self._begun is not None
                if not self._begun.done() or self._begun.cancelled() or self._begun.exception():
                    return
                piece = _without(piece, self._begun.result().sent)
            self._planned.popleft()
            if not piece.parts:
                continue
            future = loop.run_in_executor(self._executor, self._read, piece)
            self._pending.append(future)
            if not piece.is_rest:
                self._begun = future


def _without(piece: _Piece, sent: Ints | None) -> _Piece:
    """A rest without the blocks that came already."""
    if sent is None:
        return _Piece([], is_rest=True)
    if not len(sent) or all(sent[-1] < part.blocks[0] for part in piece.parts):
        return piece  # the common case: exactly what was asked for came, and the rest lies behind it
    parts = [
        _Part(part.projection, blocks, blocks)
        for part in piece.parts
        if len(blocks := np.setdiff1d(part.blocks, sent, assume_unique=True))
    ]
    return _Piece(parts, is_rest=True)


def _read_piece(root: Root, entry: Entry, piece: _Piece) -> _PieceRecords:
    records: list[BlockRecord] = []
    sent: Ints | None = np.empty(0, np.int64)
    with root.reading(entry) as read_chunk:
        for part in piece.parts:
            sent = np.empty(0, np.int64)
            wanted = part.blocks.tolist()
            for record in read_chunk(part.projection, wanted):
                if record.is_whole:
                    records.append(record)
                    sent = None
                    break
                ids = record.ids.astype(np.int64)
                if len(ids) != len(part.blocks) or not np.array_equal(ids, part.blocks):
                    ids = np.intersect1d(ids, part.welcome, assume_unique=True)
                    record = record.pick(ids.tolist()) if len(ids) else record
                if len(ids):
                    records.append(record)
                    sent = np.union1d(sent, ids) if len(sent) else ids
    return _PieceRecords(records, sent)


def _place_piece(root: Root, entry: Entry, assembler: Assembler, piece: _Piece) -> _PieceRecords:
    """Decode what is read into its place; nothing of it is sent."""
    done = _read_piece(root, entry, piece)
    projections = {part.projection.nchunk: part.projection for part in piece.parts}
    for record in done.records:
        assembler.add(projections[record.nchunk], record)
    return _PieceRecords([], done.sent)


async def _listed(records: list[BlockRecord]) -> AsyncIterator[BlockRecord]:
    for record in records:
        yield record


def _outermost(prefixes: set[str]) -> list[str]:
    """The paths that are not below another one."""

    def is_below_another(path: str) -> bool:
        while path:
            path = parent(path)
            if path in prefixes:
                return True
        return False

    return sorted(path for path in prefixes if not is_below_another(path))


async def _no_parts() -> AsyncIterator[bytes]:
    return
    yield b""


def _close_quietly(close: Callable[[], None]) -> None:
    try:
        close()
    except ValueError:  # it runs at this moment in another thread, and is dropped after it
        return
