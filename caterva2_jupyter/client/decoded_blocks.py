"""Decoded blocks in memory, those longest unused going first. Bounded in bytes, safe to share by threads.

Memory is taken in slabs, which the system fills with zeros far faster than as many small pieces; what goes is
the slab that was used longest ago. It neither reads nor decodes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

__all__ = ["DecodedBlocks"]

ALIGNED_NBYTES = 64

Bytes = npt.NDArray[np.uint8]


class _Slab:
    """A piece of memory, and the blocks that are in it."""

    def __init__(self, nbytes: int) -> None:
        self.memory = np.empty(nbytes, np.uint8)
        self.used_nbytes = 0
        self.keys: list[Hashable] = []


class DecodedBlocks:
    """A cache in memory.

    Parameters
    ----------
    max_nbytes : int
        Upper bound on the memory that is kept.
    slab_nbytes : int
        How much is taken at once.

    Examples
    --------
    >>> blocks = DecodedBlocks(max_nbytes=256, slab_nbytes=128)
    >>> for number in range(6):
    ...     memory = blocks.room(64)
    ...     memory[:] = number
    ...     _ = blocks.put([("version", 0, number)], memory)
    >>> [blocks.get(("version", 0, number)) is not None for number in range(6)]
    [False, False, True, True, True, True]
    """

    def __init__(self, max_nbytes: int, slab_nbytes: int = 8 << 20) -> None:
        self.max_nbytes = max_nbytes
        self._slab_nbytes = min(slab_nbytes, max_nbytes)
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._slabs: OrderedDict[int, _Slab] = OrderedDict()  # by identity, longest unused first
            self._blocks: dict[Hashable, tuple[Bytes, _Slab]] = {}
            self._open: _Slab | None = None
            self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory that are kept."""
        return self._nbytes

    def room(self, nbytes: int) -> Bytes:
        """Memory to decode to, for ``put``. It belongs to the caller alone until then."""
        with self._lock:
            slab = self._open
            if slab is None or slab.used_nbytes + nbytes > len(slab.memory):
                slab = self._add_slab(nbytes)
            start = slab.used_nbytes
            slab.used_nbytes += -(-nbytes // ALIGNED_NBYTES) * ALIGNED_NBYTES
            return slab.memory[start : start + nbytes]

    def _add_slab(self, nbytes: int) -> _Slab:
        is_large = nbytes > self._slab_nbytes // 2
        slab = _Slab(nbytes if is_large else self._slab_nbytes)
        # Those who read what goes still hold it: memory is freed when the last of them is done.
        while self._slabs and self._nbytes + len(slab.memory) > self.max_nbytes:
            _, gone = self._slabs.popitem(last=False)
            self._nbytes -= len(gone.memory)
            for key in gone.keys:
                if key in self._blocks and self._blocks[key][1] is gone:
                    del self._blocks[key]
            if gone is self._open:
                self._open = None
        if self._nbytes + len(slab.memory) <= self.max_nbytes:
            self._slabs[id(slab)] = slab
            self._nbytes += len(slab.memory)
            if not is_large:
                self._open = slab
        return slab

    def get(self, key: Hashable) -> Bytes | None:
        """A block, not to be written to; None when it is not kept."""
        with self._lock:
            found = self._blocks.get(key)
            if found is None:
                return None
            block, slab = found
            self._slabs.move_to_end(id(slab))
            return block

    def get_all(self, keys: list[Hashable]) -> list[Bytes] | None:
        """Blocks, not to be written to; None when one of them is not kept."""
        with self._lock:
            found = [self._blocks.get(key) for key in keys]
            for item in found:
                if item is None:
                    return None
                self._slabs.move_to_end(id(item[1]))
            return [item[0] for item in found if item is not None]

    def put(self, keys: list[Hashable], memory: Bytes) -> list[Bytes]:
        """Keep blocks of one length that were decoded to ``room``, which nobody may write to from now on.

        Returns
        -------
        list of ndarray of uint8
            The blocks.
        """
        blocks = list(memory.reshape(len(keys), -1))
        with self._lock:
            base = memory.base
            slab = next((s for s in reversed(self._slabs.values()) if s.memory is base), None)
            if slab is not None:
                slab.keys += keys
                for key, block in zip(keys, blocks, strict=True):
                    self._blocks[key] = block, slab
        return blocks
