"""How a read is cut in segments, and which of their blocks are asked for: decided here, done in ``sources``.

Values in, values out; blocks are counted in the plan's order (``core/chunk_grid``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..core.blocks import BlockRecord
from ..core.chunk_grid import BlockPlan
from ..core.dtypes import is_vlen
from ..core.metadata import Entry, Geometry
from ..core.selection import AxisItems, AxisRange, AxisSelection, Selection
from ..core.windows import STREAMS, WINDOW_NBYTES, blocks_per_request
from ..core.wire import ReadRequest
from ..errors import RequestError

__all__ = ["Segment", "Segments"]

MAX_WINDOW_BLOCKS = 16_384
MAX_REPEATED_ITEMS = 1000
MIN_RATIO = 1 / 16

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Segment:
    """A run of a plan's order: blocks ``first`` to ``stop``, by chunk, and which of them are not wanted."""

    first: int
    stop: int
    chunks: list[tuple[int, Ints, Bits | None]]
    cbytes: int

    def wanted(self) -> dict[int, Ints]:
        return {
            n: ids if held is None else ids[~held] for n, ids, held in self.chunks if held is None or not held.all()
        }

    def request(self, geometry: Geometry, request: ReadRequest, wanted: Mapping[int, Ints]) -> ReadRequest:
        """The request for some of its blocks alone."""
        chunks: Iterable[tuple[int, Ints]] = ((n, ids) for n, ids, _ in self.chunks)
        first = self.first
        selection = request.selection
        if any(isinstance(axis, Mapping) and len(axis["at"]) > MAX_REPEATED_ITEMS for axis in selection or ()):
            # Millions of positions are not sent again with every segment: just those of its chunks.
            narrow = _narrowed(geometry, Selection.from_json(selection, geometry.shape), [n for n, _, _ in self.chunks])
            chunks, first = ((p.nchunk, p.blocks) for p in BlockPlan(geometry, narrow)), 0
            selection = narrow.to_json()
        asked = np.concatenate([_asked(ids, wanted.get(n)) for n, ids in chunks])
        places = np.flatnonzero(asked)
        start, stop = int(places[0]), int(places[-1]) + 1
        held = ~asked[start:stop]
        window = (first + start, first + stop)
        return replace(request, selection=selection, window=window, held=held if held.any() else None)


def _asked(blocks: Ints, wanted: Ints | None) -> Bits:
    """Which of a chunk's blocks are among those that are wanted."""
    if wanted is None or len(wanted) == len(blocks):
        return np.full(len(blocks), wanted is not None)
    return np.isin(blocks, wanted)


def _narrowed(geometry: Geometry, selection: Selection, nchunks: list[int]) -> Selection:
    """The part of a selection that lies in the smallest box of chunks around some chunks."""
    coords = np.array([geometry.chunk_coords(n) for n in nchunks])
    axes: list[AxisSelection] = []
    for axis, low, high, length in zip(
        selection.axes, coords.min(axis=0), coords.max(axis=0) + 1, geometry.chunks, strict=True
    ):
        start, stop = int(low) * length, int(high) * length
        if isinstance(axis, AxisItems):
            axes.append(AxisItems(axis.items[np.searchsorted(axis.items, start) : np.searchsorted(axis.items, stop)]))
        else:
            skipped = max(0, -(-(start - axis.start) // axis.step))
            axes.append(AxisRange(axis.start + skipped * axis.step, min(stop, axis.stop), axis.step))
    return Selection(tuple(axes))


class Segments:
    """Cuts a read in segments, of ``WINDOW_NBYTES`` compressed at most, about. Used in one thread at a time."""

    def __init__(self, entry: Entry, request: ReadRequest) -> None:
        geometry = entry.geometry
        assert geometry is not None
        plan = BlockPlan(geometry, Selection.from_json(request.selection, geometry.shape))
        first, stop = request.window or (0, plan.nblocks)
        if stop > plan.nblocks:
            raise RequestError(f"window [{first}, {stop}] is outside of the {plan.nblocks} blocks of the selection")
        if request.held is not None and not 0 <= len(request.held) - (stop - first) < 8:
            raise RequestError(f"held has {len(request.held)} bits for a window of {stop - first} blocks")
        self._held = request.held
        self._first = self._position = first
        self._stop = stop
        self._projections = plan.window(first, stop) if request.window else iter(plan)
        self._rest: tuple[int, Ints] | None = None
        self._whole = -1
        # A window is a share already: whoever asks for it has others under way.
        self._nshared = plan.nblocks * STREAMS if request.window else plan.nblocks
        self._block_nbytes = _block_nbytes(geometry, entry)
        self._block_cbytes = float(self._block_nbytes)
        if entry.cbytes and entry.nbytes:
            self._expect(self._block_nbytes * entry.cbytes / entry.nbytes)

    @property
    def in_chunk(self) -> bool:
        """Is the rest of a chunk next, whose beginning is in the segment before?"""
        return self._rest is not None

    @property
    def is_at_end(self) -> bool:
        """Was all of the plan passed? (When not, what is left may still be held.)"""
        return self._position >= self._stop

    def learn(self, records: list[BlockRecord]) -> list[BlockRecord]:
        """See what came: what was guessed from the whole dataset gives way to it.

        Returns
        -------
        list of BlockRecord
            Without a whole chunk that an earlier segment had.
        """
        fresh: list[BlockRecord] = []
        for record in records:
            if record.is_whole:
                if record.nchunk == self._whole:
                    continue
                self._whole = record.nchunk
            fresh.append(record)
        nblocks = sum(len(r.ids) for r in records)
        if nblocks:
            self._expect((self._block_cbytes + sum(len(r.body) for r in records) / nblocks) / 2)
        return fresh

    def _expect(self, block_cbytes: float) -> None:
        # However well it compresses, what comes may not: the bound is on that.
        self._block_cbytes = max(1.0, min(block_cbytes, self._block_nbytes), self._block_nbytes * MIN_RATIO)

    def next(self) -> Segment | None:
        """The next segment that has something wanted in it."""
        chunks: list[tuple[int, Ints, Bits | None]] = []
        most = min(blocks_per_request(self._nshared, self._block_cbytes, WINDOW_NBYTES), MAX_WINDOW_BLOCKS)
        nwanted = 0
        first = self._position
        for nchunk, ids in self._runs():
            held = self._held_of(nchunk, len(ids))
            wanted = np.arange(len(ids)) if held is None else np.flatnonzero(~held)
            if len(wanted) > most - nwanted:
                cut = int(wanted[most - nwanted])
                self._rest = nchunk, ids[cut:]
                ids, held = ids[:cut], None if held is None else held[:cut]
            self._position += len(ids)
            nwanted = min(most, nwanted + len(wanted))
            if nwanted:
                chunks.append((nchunk, ids, held))
            else:
                first = self._position
            if nwanted == most or len(chunks) >= MAX_WINDOW_BLOCKS:
                break
        if not chunks:
            return None
        return Segment(first, self._position, chunks, int(nwanted * self._block_cbytes))

    def _held_of(self, nchunk: int, nblocks: int) -> Bits | None:
        if nchunk == self._whole:
            return np.ones(nblocks, np.bool_)
        if self._held is None:
            return None
        start = self._position - self._first
        return self._held[start : start + nblocks]

    def _runs(self) -> Iterator[tuple[int, Ints]]:
        if self._rest is not None:
            rest, self._rest = self._rest, None
            yield rest
        for projection in self._projections:
            yield projection.nchunk, projection.blocks


def _block_nbytes(geometry: Geometry, entry: Entry) -> int:
    if is_vlen(geometry.dtype):
        return max(1, (entry.cbytes or WINDOW_NBYTES) // max(geometry.nchunks, 1))
    return geometry.block_nbytes
