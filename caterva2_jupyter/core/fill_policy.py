"""When a cache stops asking for exact slices and fetches the blocks: rent, then buy.

A slice is rent, paid anew at each read; blocks are bought once. Each block remembers how much rent was paid
at it; a read whose blocks have together been paid for buys them: behind its slice where that is a small part of
their price, else in the slice's place. So the bytes that move are at most about twice those of who had known what
will be read. It fetches nothing and knows no clock.
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
MARGIN = 0.05
"""How far over the price the rent may be, a slice included, for blocks to be bought behind that slice."""

_CHUNK_COUNTERS = 64

Ints = npt.NDArray[np.int64]


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
        """Has as much been paid, this read included, as the missing blocks cost?

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
        nblocks = sum(len(ids) for ids in missing.values())
        price = nblocks * block_cbytes + REQUEST_NBYTES
        paid = sum(self._paid(key, nchunk, ids, block_cbytes) for nchunk, ids in missing.items())
        paid += slice_cbytes + REQUEST_NBYTES
        if paid < price:
            return "no"
        if paid <= (1 + MARGIN) * price:
            return "behind"
        return "now"

    def _paid(self, key: str, nchunk: int, ids: Ints, block_cbytes: float) -> float:
        rents = self._rents.get((key, nchunk))
        if rents is None:
            return 0.0
        # What was paid over a block's price was paid for others beside it.
        return float(np.minimum(rents[ids[ids < len(rents)]], block_cbytes).sum())

    def charge(self, key: str, missing: Mapping[int, Ints], slice_cbytes: float, block_cbytes: float) -> None:
        """Note that an exact slice was fetched where these blocks were missing: each bears its part."""
        nblocks = sum(len(ids) for ids in missing.values())
        if not nblocks:
            return
        share = (slice_cbytes + REQUEST_NBYTES) / nblocks
        for nchunk, ids in missing.items():
            rents = self._counters(key, nchunk, int(ids.max()) + 1)
            rents[ids] = np.minimum(rents[ids] + share, max(block_cbytes, share))
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
