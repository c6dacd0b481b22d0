"""Exact slices in a subscriber: when one is asked for in place of blocks, and those that were seen, kept.

Kept slices lie in the block cache, beside the blocks of their version and under the same quota, by a digest of
their selection; they are checked when they are read, as blocks are. When reads come back to a place, blocks
are fetched instead (``core/fill_policy``). Nothing is asked of other services here (``sources`` does).
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.answer_choice import Mode, can_slice, choose_answer, predict, predict_block_cbytes
from ..core.blocks import WHOLE, BlockRecord, make_record
from ..core.chunk_grid import BlockPlan
from ..core.exact_slice import piece_geometry, selection_digest, slice_seed
from ..core.fill_policy import Due, FillLedger
from ..core.kept_slices import MAX_PIECES, pack_piece, piece_place, slices_entry, unpack_piece
from ..core.metadata import Entry, Geometry
from ..core.selection import Selection
from ..core.wire import ReadRequest
from ..errors import IntegrityError, RequestError
from ..storage.block_cache import BlockCache, CachedVersion

__all__ = ["ExactAnswers", "WantedSlice", "listed"]

Ints = npt.NDArray[np.int64]

_GEOMETRY_PLACE = 1 << 61


@dataclass(frozen=True, slots=True)
class WantedSlice:
    """An exact slice that answers a read.

    Attributes
    ----------
    digest : str
        Of its selection.
    seed : int
        Of its checksums.
    pieces : Geometry
        As an array of one axis.
    missing : dict of int to ndarray
        Blocks that are not held, by chunk: what it spares.
    kept : list of BlockRecord
        Its pieces, when it was seen before; else empty.
    slice_cbytes, blocks_cbytes : float
        Predicted bytes of it, and of the missing blocks.
    """

    digest: str
    seed: int
    pieces: Geometry
    missing: dict[int, Ints]
    kept: list[BlockRecord]
    slice_cbytes: float = 0.0
    blocks_cbytes: float = 0.0

    @property
    def nbytes(self) -> int:
        """Of its values."""
        return self.pieces.nbytes

    def check(self, records: Sequence[BlockRecord]) -> None:
        """Are these all of its pieces?

        Raises
        ------
        IntegrityError
        """
        if [r.nchunk for r in records] != list(range(self.pieces.nchunks)):
            raise IntegrityError(f"{len(records)} of the {self.pieces.nchunks} pieces of a slice came, or not in order")
        for record in records:
            if record.ids.tolist() != [0]:
                raise IntegrityError(f"piece {record.nchunk} of a slice is not one")
            record.verify(self.seed)


class ExactAnswers:
    """Decides on exact slices for one source, and keeps them. Thread safe; methods read and write files.

    Parameters
    ----------
    cache : BlockCache
    """

    def __init__(self, cache: BlockCache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._ledger = FillLedger()

    def weigh(self, version: CachedVersion, entry: Entry, request: ReadRequest) -> WantedSlice | None:
        """The exact slice to answer a read with; None when blocks are the answer.

        Raises
        ------
        SelectionError, RequestError
            When the request does not fit the dataset.
        """
        geometry = version.geometry
        if request.mode == "blocks" or request.window is not None:
            return None
        plan = BlockPlan(geometry, Selection.from_json(request.selection, geometry.shape))
        if not can_slice(geometry, plan.selection):
            return None
        nblocks = plan.nblocks
        if request.held is not None and not 0 <= len(request.held) - nblocks < 8:
            raise RequestError(f"held has {len(request.held)} bits for {nblocks} blocks")
        if choose_answer(request.mode, predict(entry, plan, nblocks)) == "blocks":
            return None
        digest = selection_digest(plan.selection)
        seed = slice_seed(version.seed, digest)
        wanted = WantedSlice(digest, seed, piece_geometry(geometry, plan.selection), {}, [])
        kept = self.kept(version, wanted)
        if kept:
            return WantedSlice(digest, seed, wanted.pieces, {}, kept)
        missing = _missing(version, plan, request.held)
        expected = predict(entry, plan, sum(len(ids) for ids in missing.values()))
        if not missing or choose_answer(request.mode, expected) == "blocks":
            return None
        return WantedSlice(digest, seed, wanted.pieces, missing, [], expected.slice_cbytes, expected.blocks_cbytes)

    def pay(self, version: CachedVersion, entry: Entry, wanted: WantedSlice, mode: Mode) -> Due:
        """Note that a slice is about to be asked for, unless its blocks are due: bought behind it, or in its place.

        As it is noted before the slice comes, others that want the same blocks meanwhile go by it.
        """
        block_cbytes = predict_block_cbytes(entry, version.geometry)
        with self._lock:
            due = (
                "no"
                if mode != "auto"
                else self._ledger.due(version.key, wanted.missing, wanted.slice_cbytes, block_cbytes)
            )
            if due == "no":
                self._ledger.charge(version.key, wanted.missing, wanted.slice_cbytes, block_cbytes)
            else:
                self._ledger.settle(version.key, wanted.missing)
        return due

    def kept(self, version: CachedVersion, wanted: WantedSlice) -> list[BlockRecord]:
        """The pieces of a slice that was seen before; none when it was not, or not all of it is there."""
        store = self._store(version)
        pieces: list[BlockRecord] = []
        for number in range(wanted.pieces.nchunks):
            found = store.get(piece_place(wanted.digest, number), [0])
            piece = unpack_piece(found[0], wanted.digest, number) if len(found) == 1 else None
            if piece is None:
                return []
            pieces.append(piece)
        try:
            wanted.check(pieces)
        except IntegrityError:
            return []
        return pieces

    def keep(self, version: CachedVersion, wanted: WantedSlice, records: Sequence[BlockRecord]) -> None:
        """Keep a slice that came.

        Raises
        ------
        IntegrityError
            When it is not the slice that was asked for.
        """
        wanted.check(records)
        store = self._store(version)
        if len(records) <= MAX_PIECES:
            store.put_verified(
                _geometry_record(store, version.geometry),
                *(pack_piece(store.seed, wanted.digest, record) for record in records),
            )

    def geometry(self, root: str, entry: Entry, version: str) -> Geometry | None:
        """The geometry of a version of a dataset that slices are kept of, however old; None when none are."""
        found = self._open(root, entry.path, entry.id, version).get(_GEOMETRY_PLACE, [0])
        try:
            return Geometry.from_json(json.loads(bytes(found[0].body))) if found else None
        except (ValueError, TypeError, IntegrityError):
            return None

    def _store(self, version: CachedVersion) -> CachedVersion:
        return self._open(version.root, version.path, version.id, version.version)

    def _open(self, root: str, path: str, dataset_id: str, version: str) -> CachedVersion:
        return self._cache.open(slices_entry(path, dataset_id, version), root)


def _geometry_record(store: CachedVersion, geometry: Geometry) -> BlockRecord:
    # A version of which nothing but slices is kept has to be told when it is asked for after a change.
    return make_record(store.seed, _GEOMETRY_PLACE, b"", [WHOLE], [json.dumps(geometry.to_json()).encode()])


def _missing(version: CachedVersion, plan: BlockPlan, held: npt.NDArray[np.bool_] | None) -> dict[int, Ints]:
    """Blocks of a plan that neither whoever asks nor the cache has, by chunk."""
    missing: dict[int, Ints] = {}
    position = 0
    for projection in plan:
        blocks = projection.blocks
        if held is not None:
            blocks = blocks[~held[position : position + len(blocks)]]
            position += len(projection.blocks)
        blocks = blocks[~version.held(projection.nchunk, blocks)]
        if len(blocks):
            missing[projection.nchunk] = blocks
    return missing


async def listed(records: Sequence[BlockRecord]) -> AsyncIterator[BlockRecord]:
    """Records that are all there, as a stream."""
    for record in records:
        yield record
