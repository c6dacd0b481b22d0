"""When a cache stops asking for exact slices and fetches the blocks: rent, then buy.

A slice is rent, paid anew at each read; blocks are bought once. Each block remembers how much of its price was paid as
rent. What a slice costs is shared among the blocks that it spares, by what each still lacks, so that none of it is lost
on a block that was paid for already. A read that would pay as much as its blocks lack buys them: behind its slice
where that is a small part of their price, else in the slice's place. Hence, whatever is read in whatever order:

- all rent is at most the price of the blocks that were read, and each is bought once: no more than twice of what
  blocks alone would have cost;
- what is bought was paid as rent before, but for the read that buys, whose slice is saved: no more than twice of what
  slices alone would have cost.

It fetches nothing and knows no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["REQUEST_NBYTES", "Due", "FillLedger"]

REQUEST_NBYTES = 600
"""What a request costs besides its answer's records: headers both ways."""

Due = Literal["no", "behind", "now"]
"""Are blocks to be bought: not yet, behind the slice that answers a read, or in its place?"""
BEHIND = 0.05
"""Which part of the price a slice may be for blocks to be bought behind it: by so much both bounds are exceeded."""

_CHUNK_COUNTERS = 64

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class FillLedger:
    """Rent paid at each block.

    Parameters
    ----------
    max_counters : int
        Blocks that are remembered (4 bytes each; a chunk takes the room of 64); chunks that nobody read for longest
        are forgotten, which costs a cache some more rent and nothing else.

    Examples
    --------
    >>> ledger, point = FillLedger(), {0: np.array([3])}
    >>> reads = 0
    >>> while (due := ledger.due("climate/t", point, 400, 18_000)) == "no":
    ...     ledger.charge("climate/t", point, 400, 18_000)
    ...     reads += 1
    >>> reads, due
    (18, 'behind')
    """

    def __init__(self, max_counters: int = 1 << 22) -> None:
        self._max_counters = max_counters
        self._rents: OrderedDict[tuple[str, int], npt.NDArray[np.float32]] = OrderedDict()
        self._ncounters = 0

    def due(self, key: str, missing: Mapping[int, Ints], slice_cbytes: float, block_cbytes: float) -> Due:
        """Would this read pay as much as the missing blocks still lack of their price?

        Parameters
        ----------
        key : str
            Of the version of a dataset.
        missing : mapping of chunk number to block numbers
        slice_cbytes, block_cbytes : float
            Predicted bytes of the exact slice, and of one block.

        Returns
        -------
        {"no", "behind", "now"}
            ``"now"`` where a slice that is paid and thrown in as well would be too much.
        """
        if slice_cbytes < sum(float(lack.sum()) for lack in self._lacking(key, missing, block_cbytes).values()):
            return "no"
        price = sum(len(ids) for ids in missing.values()) * block_cbytes
        return "behind" if slice_cbytes <= BEHIND * price else "now"

    def _lacking(self, key: str, missing: Mapping[int, Ints], block_cbytes: float) -> dict[int, Floats]:
        """What is still to be paid for each block."""
        lacking: dict[int, Floats] = {}
        for nchunk, ids in missing.items():
            lack = lacking[nchunk] = np.full(len(ids), block_cbytes)
            rents = self._rents.get((key, nchunk))
            if rents is not None:
                known = ids < len(rents)
                lack[known] = np.maximum(block_cbytes - rents[ids[known]], 0)
        return lacking

    def charge(self, key: str, missing: Mapping[int, Ints], slice_cbytes: float, block_cbytes: float) -> None:
        """Note that an exact slice is fetched where these blocks are missing: each bears its part."""
        lacking = self._lacking(key, missing, block_cbytes)
        lack_nbytes = sum(float(lack.sum()) for lack in lacking.values())
        if not lack_nbytes:
            return
        part = min(1.0, (slice_cbytes + REQUEST_NBYTES) / lack_nbytes)
        for nchunk, ids in missing.items():
            self._counters(key, nchunk, int(ids.max()) + 1)[ids] += part * lacking[nchunk]
        while self._ncounters > self._max_counters:
            self._ncounters -= len(self._rents.popitem(last=False)[1]) + _CHUNK_COUNTERS

    def settle(self, key: str, missing: Mapping[int, Ints]) -> None:
        """Note that these blocks were bought: should they be evicted, they have to be paid for again."""
        for nchunk, ids in missing.items():
            rents = self._rents.get((key, nchunk))
            if rents is not None:
                rents[ids[ids < len(rents)]] = 0

    def _counters(self, key: str, nchunk: int, length: int) -> npt.NDArray[np.float32]:
        place = (key, nchunk)
        rents = self._rents.get(place)
        if rents is None or len(rents) < length:
            longer = np.zeros(length, np.float32)
            if rents is not None:
                longer[: len(rents)] = rents
                self._ncounters -= len(rents) + _CHUNK_COUNTERS
            self._ncounters += length + _CHUNK_COUNTERS
            rents = self._rents[place] = longer
        self._rents.move_to_end(place)
        return rents
