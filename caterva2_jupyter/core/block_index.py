"""Where each cached block is: the records of a cache's journal, looked up by chunk and block.

For readers that follow a journal as it grows; no file is opened here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .blocks import WHOLE
from .cache_format import BLOCK, Journal

__all__ = ["BlockIndex"]


class BlockIndex:
    """Where each block of a version is: the journal's records, by chunk and block.

    One writer may ``update`` it while others look things up. Most of it is one sorted table (the records, and 8 bytes
    each); chunks that changed since lie over it.

    Parameters
    ----------
    entries : ndarray of JOURNAL_DTYPE
        In the journal's order, as ``replay`` gives them.

    Examples
    --------
    >>> from .cache_format import block_entries
    >>> index = BlockIndex(block_entries(0, 3, [(0, 10, 7), (2, 20, 8)], 32, 0, 32))
    >>> index.find(3, np.array([0, 2]))["offset"].tolist()
    [32, 42]
    >>> index.find(3, np.array([0, 1])) is None
    True
    """

    def __init__(self, entries: Journal) -> None:
        self._set(_newest(entries))

    def _set(self, table: Journal) -> None:
        nchunks = np.ascontiguousarray(table["nchunk"])
        self._state: tuple[Journal, npt.NDArray[np.uint64], dict[int, Journal]] = table, nchunks, {}

    def chunk(self, nchunk: int) -> Journal:
        """The records of a chunk's blocks, ascending."""
        table, nchunks, changed = self._state
        entries = changed.get(nchunk)
        if entries is None:
            # Numbers of another type than the table's would have it converted at each look.
            first = nchunks.searchsorted(np.uint64(nchunk))
            entries = table[first : nchunks.searchsorted(np.uint64(nchunk + 1))]
        return entries

    def find(self, nchunk: int, blocks: npt.NDArray[np.int64]) -> Journal | None:
        """The records of blocks (ascending); that of the whole chunk if it is kept so; None if one is missing."""
        entries = self.chunk(nchunk)
        if len(entries) == 0:
            return None
        numbers = entries["block"]
        if numbers[-1] == WHOLE:
            return entries[-1:]
        if len(blocks) == len(entries) and (numbers == blocks).all():
            return entries
        at = numbers.searchsorted(blocks.astype(np.uint32))
        if at[-1] >= len(numbers) or not (numbers[at] == blocks).all():
            return None
        return entries[at]

    def update(self, entries: Journal) -> None:
        """Take up records that the journal has grown by."""
        table, nchunks, changed = self._state
        ordered = entries[np.argsort(entries["nchunk"], kind="stable")]
        numbers, firsts = np.unique(ordered["nchunk"], return_index=True)
        for nchunk, grown in zip(numbers.tolist(), np.split(ordered, firsts[1:]), strict=True):
            changed[nchunk] = _newest(np.concatenate([self.chunk(nchunk), grown]))
        if len(changed) > 4096 + len(table) // 8:
            kept = table[~np.isin(nchunks, np.fromiter(changed, np.uint64, len(changed)))]
            self._set(_newest(np.concatenate([kept, *changed.values()])))


def _newest(entries: Journal) -> Journal:
    """The last record of each block, without those that say that it is gone, by chunk and block."""
    order = np.lexsort((entries["block"], entries["nchunk"]))  # stable: the journal's order for each block
    table = entries[order]
    last = np.ones(len(table), np.bool_)
    last[:-1] = (table["nchunk"][1:] != table["nchunk"][:-1]) | (table["block"][1:] != table["block"][:-1])
    newest: Journal = table[last & (table["kind"] == BLOCK)]
    return newest
