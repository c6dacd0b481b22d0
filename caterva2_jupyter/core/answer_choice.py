"""Which answer to a read is the smaller one: the blocks that are missing, or the exact slice.

Pure arithmetic on predicted bytes, the same wherever the choice is made: at the source, in a cache, in a
client. It reads nothing and remembers nothing (``fill_policy`` does).

A slice answers one read; blocks answer all that come back to them. Who takes a slice and comes back pays ``slice +
blocks`` where ``blocks`` would have done; who takes blocks and never comes back pays ``blocks`` where ``slice`` would
have done. With ``m = blocks / slice`` these are ``1 + 1 / m`` and ``m`` times too much, of which the worse one is least
where they are equal: at the golden ratio, 1.62 times. So a slice is asked for where it is smaller by that much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .chunk_grid import BlockPlan
from .dtypes import is_vlen
from .metadata import Entry, Geometry
from .selection import Selection

__all__ = [
    "MAX_SLICE_NBYTES",
    "MODES",
    "Answer",
    "Mode",
    "Prediction",
    "can_slice",
    "choose_answer",
    "predict",
    "predict_block_cbytes",
]

Mode = Literal["auto", "blocks", "slice"]
"""What whoever asks wants: the smaller answer, blocks only, or the slice wherever there can be one."""
Answer = Literal["blocks", "slice"]
MODES: tuple[str, ...] = get_args(Mode)

MAX_SLICE_NBYTES = 16 << 20
"""Decoded bytes of the largest exact slice: it is made in memory."""
MAX_DECODED_NBYTES = 512 << 20
"""Decoded bytes of the blocks behind it: a slice costs its source that much work."""
MARGIN = (1 + 5**0.5) / 2
"""How many times smaller a slice has to be: the least regret, whether reads come back or not (see above)."""

# A slice is compressed lightly, and neighbours in it may be strangers: worse than the blocks it is taken from.
_SLICE_RATIO = 1.5
_RECORD_NBYTES = 72
_BLOCK_NBYTES = 12
_PIECE_NBYTES = 84
_PREAMBLE_NBYTES = 150


@dataclass(frozen=True, slots=True)
class Prediction:
    """Bytes that the two answers are expected to have on the wire.

    Attributes
    ----------
    blocks_cbytes : float
        Of the missing blocks.
    slice_cbytes : float
        Of the exact slice.
    decoded_nbytes : int
        Decoded bytes of all blocks that the selection touches.
    can_slice : bool
    """

    blocks_cbytes: float
    slice_cbytes: float
    decoded_nbytes: int
    can_slice: bool


def can_slice(geometry: Geometry, selection: Selection) -> bool:
    """Can a selection be answered by an exact slice at all?"""
    if is_vlen(geometry.dtype) or not geometry.itemsize:
        return False
    return 0 < selection.size * geometry.itemsize <= MAX_SLICE_NBYTES


def predict_block_cbytes(entry: Entry, geometry: Geometry) -> float:
    """Compressed bytes of a block, by the ratio that the dataset has as a whole."""
    return geometry.block_nbytes * _ratio(entry)


def _ratio(entry: Entry) -> float:
    return min(1.0, entry.cbytes / entry.nbytes) if entry.cbytes and entry.nbytes else 1.0


def predict(entry: Entry, plan: BlockPlan, nmissing: int) -> Prediction:
    """The bytes of both answers to a read.

    Parameters
    ----------
    entry : Entry
    plan : BlockPlan
        Of the whole selection.
    nmissing : int
        Blocks of it that are not held.
    """
    geometry = plan.geometry
    records = min(plan.nchunks, nmissing) * _RECORD_NBYTES + nmissing * _BLOCK_NBYTES
    slice_nbytes = plan.selection.size * geometry.itemsize
    pieces = 1 + slice_nbytes // (1 << 20)
    return Prediction(
        blocks_cbytes=nmissing * predict_block_cbytes(entry, geometry) + records,
        slice_cbytes=slice_nbytes * min(1.0, _SLICE_RATIO * _ratio(entry)) + pieces * _PIECE_NBYTES + _PREAMBLE_NBYTES,
        decoded_nbytes=plan.nblocks * geometry.block_nbytes,
        can_slice=can_slice(geometry, plan.selection),
    )


def choose_answer(mode: Mode, prediction: Prediction) -> Answer:
    """The answer to give.

    Examples
    --------
    >>> choose_answer("auto", Prediction(2e6, 1300, 10 << 20, True))
    'slice'
    >>> choose_answer("auto", Prediction(2e6, 1.9e6, 10 << 20, True))
    'blocks'
    >>> choose_answer("slice", Prediction(2e6, 1.9e6, 10 << 20, True))
    'slice'
    """
    if mode == "blocks" or not prediction.can_slice or prediction.decoded_nbytes > MAX_DECODED_NBYTES:
        return "blocks"
    if mode == "slice" or prediction.slice_cbytes * MARGIN < prediction.blocks_cbytes:
        return "slice"
    return "blocks"
