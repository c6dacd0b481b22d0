"""Which cached blocks go when room is needed: the least recently used ones. Decided here, done in ``block_cache``.

Values in, values out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["UNIT_NBYTES", "Candidate", "choose_victims"]

UNIT_NBYTES = 32 << 10
"""Blocks that begin in the same run of this many bytes go together: holes smaller than some pages free nothing."""

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Blocks of one dataset version that may go.

    Attributes
    ----------
    key : str
        Of the version.
    ticks : ndarray of int64
        When each block was used last; larger is later.
    offsets : ndarray of int64
        Where each is in the data log.
    nbytes : ndarray of int64
        What is free when it has gone, about.
    """

    key: str
    ticks: Ints
    offsets: Ints
    nbytes: Ints

    @classmethod
    def as_a_whole(cls, key: str, tick: int, nbytes: int) -> Candidate:
        """A version whose blocks are not known: it goes as one."""
        return cls(key, np.array([tick]), np.zeros(1, np.int64), np.array([nbytes]))


def choose_victims(candidates: Sequence[Candidate], goal_nbytes: int) -> dict[str, Bits]:
    """The blocks to evict so that ``goal_nbytes`` are free, by version.

    A run of small neighbours was used when any of them was.

    Returns
    -------
    dict
        A mask over the blocks of each candidate that has to give some; less than the goal when there is no more.

    Examples
    --------
    >>> old = Candidate("a", np.array([1, 9]), np.array([0, 100_000]), np.array([50_000, 50_000]))
    >>> new = Candidate.as_a_whole("b", 5, 70_000)
    >>> {key: mask.tolist() for key, mask in choose_victims([old, new], 60_000).items()}
    {'a': [True, False], 'b': [True]}
    """
    ticks, nbytes, owners, inverses = [], [], [], []
    for number, candidate in enumerate(candidates):
        if not len(candidate.ticks):
            inverses.append(np.zeros(0, np.int64))
            continue
        units, inverse = np.unique(_units(candidate), return_inverse=True)
        unit_ticks = np.full(len(units), np.iinfo(np.int64).min, np.int64)
        np.maximum.at(unit_ticks, inverse, candidate.ticks)
        ticks.append(unit_ticks)
        nbytes.append(np.bincount(inverse, candidate.nbytes, len(units)).astype(np.int64))
        owners.append(np.full(len(units), number))
        inverses.append(inverse)
    if not ticks:
        return {}
    order = np.argsort(np.concatenate(ticks), kind="stable")
    freed = np.cumsum(np.concatenate(nbytes)[order])
    chosen = np.zeros(len(order), np.bool_)
    chosen[order[: int(np.searchsorted(freed, goal_nbytes)) + 1]] = True
    owner = np.concatenate(owners)
    victims: dict[str, Bits] = {}
    for number, candidate in enumerate(candidates):
        mask = chosen[owner == number][inverses[number]] if len(inverses[number]) else np.zeros(0, np.bool_)
        if mask.any():
            victims[candidate.key] = mask
    return victims


def _units(candidate: Candidate) -> Ints:
    """Which blocks go together; a short rest goes with those before it."""
    units = candidate.offsets // UNIT_NBYTES
    end = int((candidate.offsets + candidate.nbytes).max())
    last = max(0, end // UNIT_NBYTES - 1)
    rest: Ints = np.where((units > last) & (candidate.nbytes < UNIT_NBYTES), last, units)
    return rest
