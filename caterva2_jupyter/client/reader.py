"""Reads of a selection: one request, or several at once for a large one; every block accounted for.

``plan_windows`` decides, from predicted bytes; ``Reader`` acts: requests, parses, decodes, and asks again for
what did not come when a connection broke. It does not know what the user indexed with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..core.answer_choice import Answer, Mode, can_slice, choose_answer, predict
from ..core.blocks import BlockRecord
from ..core.chunk_grid import BlockPlan, ChunkProjection
from ..core.dtypes import is_vlen
from ..core.exact_slice import PieceAssembler, selection_digest
from ..core.many_reads import MAX_READS, ManyParser
from ..core.metadata import Entry, Geometry
from ..core.selection import Selection
from ..core.splitting import MAX_SLICE_CHUNKS, split_selection
from ..core.windows import STREAMS, WINDOW_NBYTES, blocks_per_request
from ..core.wire import End, Preamble, ReadRequest, RecordParser
from ..errors import Caterva2Error, DatasetChangedError, IntegrityError, NotCachedError, SourceUnavailableError
from .cache_policy import CachePolicy, is_near, read_mode
from .decoded_blocks import DecodedBlocks
from .progress import Progress
from .service import Service

if TYPE_CHECKING:
    from ..core.assembly import Assembler
    from .local_cache import LocalCache

__all__ = ["Reader", "load_decoders", "plan_windows"]

MAX_WINDOWS = 4096
KEPT_VALUES_NBYTES = 4 << 20

Place = Callable[[ChunkProjection, BlockRecord], None]


def plan_windows(nblocks: int, block_cbytes: float, window_cbytes: int = WINDOW_NBYTES) -> list[tuple[int, int]]:
    """Runs of a plan's blocks to be asked for at once.

    Parameters
    ----------
    nblocks : int
        Blocks in the plan.
    block_cbytes : float
        Compressed bytes that a block is expected to have.
    window_cbytes : int
        Compressed bytes that a request should bring at most.

    Returns
    -------
    list of (first, stop)
        One run when everything fits one request.

    Examples
    --------
    >>> plan_windows(10, 1000, 4000)
    [(0, 4), (4, 8), (8, 10)]
    """
    per_window = max(blocks_per_request(nblocks, block_cbytes, window_cbytes), -(-nblocks // MAX_WINDOWS))
    return [(first, min(first + per_window, nblocks)) for first in range(0, nblocks, per_window)]


def _block_cbytes(entry: Entry, geometry: Geometry) -> float:
    """Compressed bytes of a block, by the ratio that the dataset has as a whole."""
    if is_vlen(geometry.dtype):
        return float(entry.cbytes or geometry.size * 16) / max(geometry.nchunks, 1)
    ratio = min(entry.cbytes / geometry.nbytes, 1.0) if entry.cbytes and geometry.nbytes else 1.0
    return geometry.block_nbytes * ratio


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a plan, and the number of its first block in the plan's order."""

    first: int
    stop: int


class _Receiver:
    """Checks that the records of one piece are those of its plan, in order and without gap."""

    def __init__(self, plan: BlockPlan, piece: _Piece, place: Place) -> None:
        self._projections = plan.window(piece.first, piece.stop)
        self._place = place
        self._current: ChunkProjection | None = None
        self._missing: npt.NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._done = 0
        self.begun = False

    def take(self, record: BlockRecord) -> None:
        while self._current is None or self._current.nchunk != record.nchunk:
            self._advance(record.nchunk)
        self._place(self._current, record)
        # After it was placed: what does not decode has not come.
        if record.is_whole or np.array_equal(record.ids, self._current.blocks):
            self._missing[:] = False
        else:
            self._missing &= ~np.isin(self._current.blocks, record.ids.astype(np.int64), assume_unique=True)

    def _advance(self, nchunk: int) -> None:
        self._check_current()
        if self._current is not None:
            self._done += len(self._current.blocks)
            self._current = None
        projection = next(self._projections, None)
        if projection is None or projection.nchunk > nchunk:
            raise IntegrityError(f"a record of chunk {nchunk} was not asked for, or is out of order")
        self._current = projection
        self._missing = np.ones(len(projection.blocks), dtype=bool)

    def _check_current(self) -> None:
        if self._missing.any():
            assert self._current is not None
            raise IntegrityError(f"{int(self._missing.sum())} blocks of chunk {self._current.nchunk} did not come")

    def finish(self) -> None:
        """Say that the answer is at its end."""
        self._check_current()
        if next(self._projections, None) is not None:
            raise IntegrityError("the answer ends before the selection does")

    @property
    def received(self) -> int:
        """How many blocks, from the piece's first on, are there without a gap."""
        if self._current is None:
            return self._done
        if not self._missing.any():
            return self._done + len(self._current.blocks)
        return self._done + int(np.argmax(self._missing))


class _ExactReceiver:
    """Takes an answer of either kind: the exact slice, or blocks for an assembler."""

    def __init__(self, entry: Entry, plan: BlockPlan, assembler: Assembler) -> None:
        self._entry, self._plan, self._box = entry, plan, assembler
        self._blocks = _Receiver(plan, _Piece(0, plan.nblocks), assembler.add)
        self._pieces: PieceAssembler | None = None
        self.answer: Answer | None = None

    def take(self, item: Preamble | BlockRecord | End) -> None:
        if isinstance(item, Preamble):
            self.answer = item.answer
            if (item.id, item.version) != (self._entry.id, self._entry.version):
                raise IntegrityError(f"the answer is about another dataset than {self._entry.path}")
            if item.digest:
                if item.digest != selection_digest(self._plan.selection):
                    raise IntegrityError(f"the answer is another slice of {self._entry.path}")
                self._pieces = PieceAssembler(self._plan.geometry, self._plan.selection)
        elif isinstance(item, BlockRecord):
            if self._pieces is not None:
                self._pieces.add(item)
            else:
                self._blocks.take(item)

    @property
    def received(self) -> int:
        """How many blocks, from the first on, are in their place."""
        return self._blocks.received

    def finish(self) -> npt.NDArray[Any]:
        """The box, when all of it came."""
        if self._pieces is None:
            self._blocks.finish()
            return self._box.out
        self._pieces.finish()
        return self._pieces.out


def load_decoders() -> None:
    """Import what reading takes, when a dataset is opened: in a process that forks amid an import, its lock stays held.

    Listing does without; the package itself is imported without any of it.
    """
    from ..core import assembly  # noqa: F401
    from . import local_cache  # noqa: F401


class Reader:
    """Reads selections of datasets from a service.

    Parameters
    ----------
    service : Service
    may_be_local : bool
        Read the service's cache files where they are on this machine.
    """

    def __init__(self, service: Service, may_be_local: bool = True) -> None:
        self.service = service
        self._may_be_local = may_be_local
        self._local: LocalCache | None = None
        self._values: tuple[int, DecodedBlocks] = 0, DecodedBlocks(0)
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def close(self) -> None:
        """Let the worker threads go."""
        if self._local is not None:
            self._local.close()
        self._values = 0, DecodedBlocks(0)
        pool, self._pool = self._pool, None
        if pool is not None and pool[0] == os.getpid():
            pool[1].shutdown(wait=False, cancel_futures=True)

    def read(
        self,
        root: str,
        entry: Entry,
        selection: Selection,
        progress: Progress | None = None,
        cache: CachePolicy = "auto",
    ) -> npt.NDArray[Any]:
        """The box of a selection of ``entry``'s version.

        Returns
        -------
        ndarray, shape ``selection.shape``, dtype of the dataset

        Raises
        ------
        DatasetChangedError
            When that version is not served any more.
        SourceUnavailableError, NotCachedError, DeadlineError, IntegrityError
        """
        # Blosc2 takes longer to import than everything else, and who only lists needs none of it.
        from ..core.assembly import Assembler

        geometry = entry.geometry
        assert geometry is not None
        assembler = Assembler(geometry, selection)
        if selection.size:
            plan = BlockPlan(geometry, selection)
            if self._read_here(root, entry, plan, assembler):
                if progress is not None:
                    progress(assembler.out.nbytes, assembler.out.nbytes)
            elif (box := self._read_exact(root, entry, plan, assembler, read_mode(cache), progress)) is not None:
                return box
            else:
                self.receive(root, entry, selection, assembler.add, progress)
        return assembler.out

    def read_many(
        self, reads: Sequence[tuple[str, Entry, Selection]], cache: CachePolicy = "auto"
    ) -> list[npt.NDArray[Any]]:
        """The boxes of selections of several datasets, by one request for all that is not on this machine.

        Parameters
        ----------
        reads : sequence of (root, entry, selection)
            As for ``read``. They are to be small: coordinates, single items.

        Raises
        ------
        As ``read``.
        """
        from ..core.assembly import Assembler

        boxes: list[npt.NDArray[Any] | None] = [None] * len(reads)
        far: list[tuple[int, _ExactReceiver, ReadRequest]] = []
        for number, (root, entry, selection) in enumerate(reads):
            geometry = entry.geometry
            assert geometry is not None
            assembler = Assembler(geometry, selection)
            plan = BlockPlan(geometry, selection)
            if not selection.size or self._read_here(root, entry, plan, assembler):
                boxes[number] = assembler.out
                continue
            mode = read_mode(cache) if can_slice(geometry, selection) else "blocks"
            request = ReadRequest(root, entry.path, entry.version, selection.to_json(), mode=mode)
            far.append((number, _ExactReceiver(entry, plan, assembler), request))
        for start in range(0, len(far) if len(far) > 1 else 0, MAX_READS):
            self._receive_many(far[start : start + MAX_READS], boxes)
        return [self.read(*read, cache=cache) if box is None else box for read, box in zip(reads, boxes, strict=True)]

    def _receive_many(
        self, far: Sequence[tuple[int, _ExactReceiver, ReadRequest]], boxes: list[npt.NDArray[Any] | None]
    ) -> None:
        """Fill in what comes; what does not come is left to be read by itself, which tells why."""
        try:
            with self.service.read_many([request for _, _, request in far]) as answer:
                parser, waiting = ManyParser(len(far)), iter(far)
                number, receiver, _ = next(waiting)
                for part in answer.parts():
                    for item in parser.feed(part):
                        receiver.take(item)
                        if isinstance(item, End):
                            boxes[number] = receiver.finish()
                            number, receiver, _ = next(waiting, (number, receiver, None))
                parser.close()
        except Caterva2Error:
            return

    def _read_exact(
        self,
        root: str,
        entry: Entry,
        plan: BlockPlan,
        assembler: Assembler,
        mode: Mode,
        progress: Progress | None,
    ) -> npt.NDArray[Any] | None:
        """The box by one request that may be answered with the exact slice; None where blocks are to be asked for."""
        if mode == "blocks" or not can_slice(plan.geometry, plan.selection):
            return None
        if choose_answer(mode, predict(entry, plan, plan.nblocks)) == "blocks":
            return None
        key = (root, entry.id, entry.version, selection_digest(plan.selection))
        kept = self._kept_values().get(key)
        if kept is not None:
            values: npt.NDArray[Any] = kept.view(assembler.out.dtype).reshape(assembler.out.shape).copy()
            return values
        if (here := self._slice_here(root, entry, plan.selection)) is not None:
            self._keep_values(key, here)
            return here
        if plan.nchunks > MAX_SLICE_CHUNKS:
            self._read_parts(root, entry, plan, assembler.out, mode, progress)
            self._keep_values(key, assembler.out)
            return assembler.out
        request = ReadRequest(
            root,
            entry.path,
            entry.version,
            plan.selection.to_json(),
            mode=mode,
            fast=is_near(self.service.url),
        )
        for _ in range(self.service.transport.timeouts.retries + 1):
            receiver = _ExactReceiver(entry, plan, assembler)
            begun = False
            try:
                with self.service.read(request) as answer:
                    begun = True
                    for item in _parsed(answer.parts(), Event()):
                        receiver.take(item)
                box = receiver.finish()
            except DatasetChangedError:
                raise changed(root, entry) from None
            except (SourceUnavailableError, IntegrityError) as error:
                # Before the answer began, the transport has tried again already; NotCached is an answer, not a fault.
                if not begun or isinstance(error, NotCachedError):
                    raise
                if receiver.answer != "blocks":
                    continue
                rest = _Piece(receiver.received, plan.nblocks)
                if rest.first < rest.stop:
                    self._fetch(root, entry, plan, rest, assembler.add, Event())
                box = assembler.out
            if receiver.answer == "slice":
                self._keep_values(key, box)
            if progress is not None:
                progress(box.nbytes, box.nbytes)
            return box
        return None

    def _read_parts(
        self,
        root: str,
        entry: Entry,
        plan: BlockPlan,
        out: npt.NDArray[Any],
        mode: Mode,
        progress: Progress | None,
    ) -> None:
        """Fill a box by several requests, each of which is soon answered: the whole touches very many chunks."""
        from ..core.assembly import Assembler

        done = 0
        for selection, place in split_selection(plan.geometry, plan.selection, MAX_SLICE_CHUNKS):
            assembler, part = Assembler(plan.geometry, selection), BlockPlan(plan.geometry, selection)
            box = self._read_exact(root, entry, part, assembler, mode, None)
            if box is None:
                self.receive(root, entry, selection, assembler.add)
                box = assembler.out
            out[place] = box
            done += box.nbytes
            if progress is not None:
                progress(done, out.nbytes)

    def _keep_values(self, key: tuple[str, str, str, str], box: npt.NDArray[Any]) -> None:
        if 0 < box.nbytes <= KEPT_VALUES_NBYTES // 8:
            room = self._kept_values().room(box.nbytes)
            room[:] = np.ascontiguousarray(box).reshape(-1).view(np.uint8)
            self._kept_values().put([key], room)

    def _slice_here(self, root: str, entry: Entry, selection: Selection) -> npt.NDArray[Any] | None:
        """The exact slice from files on this machine, where it is kept."""
        if (local := self.local) is None:
            return None
        from .local_cache import NotHere

        try:
            return local.read_slice(root, entry, selection)
        except NotHere:
            return None

    def _kept_values(self) -> DecodedBlocks:
        """Exact slices that came, by version and selection: the same values need not come twice."""
        if self._values[0] != os.getpid():  # a lock in it may have been held at the fork
            self._values = os.getpid(), DecodedBlocks(KEPT_VALUES_NBYTES, KEPT_VALUES_NBYTES // 4)
        return self._values[1]

    @property
    def local(self) -> LocalCache | None:
        """The service's cache, when it may be read past the service."""
        if self._local is None and self._may_be_local:
            from .local_cache import LocalCache

            self._local = LocalCache(self.service)
        return self._local

    def _read_here(self, root: str, entry: Entry, plan: BlockPlan, assembler: Assembler) -> bool:
        """Read a plan that is not large from files on this machine, if all of it is in them."""
        if (local := self.local) is None:
            return False
        from .local_cache import NotHere

        try:
            local.read(root, entry, plan, assembler, self._workers())
        except NotHere:
            return False
        return True

    def _receive_here(self, root: str, entry: Entry, plan: BlockPlan, piece: _Piece, place: Place) -> bool:
        """Take a piece from files on this machine, if all of it is in them."""
        if (local := self.local) is None:
            return False
        from .local_cache import NotHere

        try:
            for projection, record in local.records(root, entry, plan, piece.first, piece.stop):
                place(projection, record)
        except (NotHere, IntegrityError):
            return False  # what was placed already comes again
        return True

    def receive(
        self, root: str, entry: Entry, selection: Selection, place: Place, progress: Progress | None = None
    ) -> None:
        """Give each record of a selection to ``place``, from several threads at once if it is large."""
        geometry = entry.geometry
        assert geometry is not None
        plan = BlockPlan(geometry, selection)
        nblocks = plan.nblocks
        pieces = [_Piece(*w) for w in plan_windows(nblocks, _block_cbytes(entry, geometry))]
        stopped = Event()
        counted = _Counter(progress, nblocks, selection.size * geometry.itemsize)
        if len(pieces) == 1:
            self._fetch(root, entry, plan, pieces[0], place, stopped)
            counted.add(nblocks)
            return
        pool = self._workers()
        waiting: set[Future[int]] = set()
        todo = iter(pieces)
        try:
            while True:
                for piece in todo:
                    waiting.add(pool.submit(self._fetch, root, entry, plan, piece, place, stopped))
                    if len(waiting) >= STREAMS:
                        break
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    counted.add(future.result())
        finally:
            # After an error or Ctrl+C nobody waits for what is on its way: it ends at its next part.
            stopped.set()
            for future in waiting:
                future.cancel()

    def _workers(self) -> ThreadPoolExecutor:
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = (os.getpid(), ThreadPoolExecutor(STREAMS, thread_name_prefix="caterva2-read"))
        return self._pool[1]

    def _fetch(self, root: str, entry: Entry, plan: BlockPlan, piece: _Piece, place: Place, stopped: Event) -> int:
        """Receive one piece, going on where a broken connection ended; its number of blocks."""
        count = piece.stop - piece.first
        if self._receive_here(root, entry, plan, piece, place):
            return count
        retries = self.service.transport.timeouts.retries
        whole = piece.first == 0 and piece.stop == plan.nblocks
        while True:
            receiver = _Receiver(plan, piece, place)
            try:
                self._fetch_once(root, entry, plan, piece, receiver, stopped, whole)
            except (SourceUnavailableError, IntegrityError) as error:
                # Before the answer began, the transport has tried again already; NotCached is an answer, not a fault.
                if retries <= 0 or stopped.is_set() or not receiver.begun or isinstance(error, NotCachedError):
                    raise
                retries -= 1
                received = receiver.received
                if received:
                    piece, whole = _Piece(piece.first + received, piece.stop), False
                if piece.first == piece.stop:
                    return count
            else:
                return count

    def _fetch_once(
        self,
        root: str,
        entry: Entry,
        plan: BlockPlan,
        piece: _Piece,
        receiver: _Receiver,
        stopped: Event,
        whole: bool,
    ) -> None:
        request = ReadRequest(
            root,
            entry.path,
            entry.version,
            plan.selection.to_json(),
            window=None if whole else (piece.first, piece.stop),
        )
        try:
            answer = self.service.read(request)
        except DatasetChangedError:
            raise changed(root, entry) from None
        receiver.begun = True
        with answer:
            try:
                for item in _parsed(answer.parts(), stopped):
                    if isinstance(item, Preamble):
                        if (item.id, item.version) != (entry.id, entry.version):
                            raise IntegrityError(f"the answer is about another dataset than {root}/{entry.path}")
                    elif isinstance(item, BlockRecord):
                        receiver.take(item)
            except DatasetChangedError:
                raise changed(root, entry) from None
        receiver.finish()


def _parsed(parts: Iterable[bytes], stopped: Event) -> Iterator[Preamble | BlockRecord | End]:
    parser = RecordParser()
    for part in parts:
        if stopped.is_set():
            raise SourceUnavailableError("the read was given up")
        yield from parser.feed(part)
    parser.close()


def changed(root: str, entry: Entry) -> DatasetChangedError:
    """The error for a version that is gone."""
    return DatasetChangedError(
        f"{root}/{entry.path} has changed since it was opened (version {entry.version}): "
        "call refresh() on it, or open it again"
    )


class _Counter:
    """Turns finished blocks into decoded bytes for a progress callback."""

    def __init__(self, progress: Progress | None, nblocks: int, nbytes: int) -> None:
        self._progress, self._nblocks, self._nbytes = progress, max(nblocks, 1), nbytes
        self._done = 0

    def add(self, nblocks: int) -> None:
        self._done += nblocks
        if self._progress is not None:
            self._progress(self._nbytes * self._done // self._nblocks, self._nbytes)
