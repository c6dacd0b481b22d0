"""One chunk's records, cut again so that the answer depends on the geometry alone.

What is at an immutable URL has to be the same bytes each time, however the source happened to read, fetch or
keep the blocks. Nothing is decoded, and no checksum is made anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .blocks import BlockRecord

__all__ = ["ChunkRuns"]

RUN_NBYTES = 1 << 20
"""Decoded bytes of a run of blocks (one block at least)."""

_Block = tuple[bytes, int, memoryview]  # head, checksum, bytes


class ChunkRuns:
    """Takes records of one chunk in any cut, and gives them in runs of consecutive wanted blocks.

    Parameters
    ----------
    blocks : sequence of int
        Numbers of the wanted blocks, ascending.
    block_nbytes : int
        Decoded bytes of a block.

    Examples
    --------
    >>> from .blocks import make_record
    >>> runs = ChunkRuns([0, 1], 100)
    >>> [runs.add(make_record(0, 7, b"", [b], [b"x"])) for b in (1, 0)][1][0].ids.tolist()
    [0, 1]
    >>> runs.is_complete
    True
    """

    def __init__(self, blocks: Sequence[int], block_nbytes: int) -> None:
        self._most = max(1, RUN_NBYTES // max(block_nbytes, 1))
        self._blocks = list(blocks)
        self._wanted = frozenset(self._blocks)
        self._first = 0  # position in ``_blocks`` of the run that is awaited
        self._waiting: dict[int, _Block] = {}

    @property
    def is_complete(self) -> bool:
        return self._first >= len(self._blocks)

    def add(self, record: BlockRecord) -> list[BlockRecord]:
        """The runs that became complete."""
        if self.is_complete:
            return []
        if record.is_whole:
            self._first = len(self._blocks)
            self._waiting.clear()
            return [record]
        if not self._waiting and record.ids.tolist() == self._run():
            self._first += self._most
            return [record]
        next_block = self._blocks[self._first]
        for block, crc, data in record.blocks():
            if block >= next_block and block in self._wanted:
                self._waiting.setdefault(block, (record.head, crc, data))
        runs: list[BlockRecord] = []
        while (run := self._run()) and all(block in self._waiting for block in run):
            runs += _records(record.nchunk, run, [self._waiting.pop(block) for block in run])
            self._first += self._most
        return runs

    def _run(self) -> list[int]:
        return self._blocks[self._first : self._first + self._most]


def _records(nchunk: int, ids: list[int], blocks: list[_Block]) -> list[BlockRecord]:
    """A record per stretch of blocks that share a head."""
    records: list[BlockRecord] = []
    first = 0
    for stop in range(1, len(ids) + 1):
        if stop < len(ids) and blocks[stop][0] == blocks[first][0]:
            continue
        some = blocks[first:stop]
        records.append(
            BlockRecord(
                nchunk,
                some[0][0],
                np.array(ids[first:stop], np.uint32),
                np.array([len(data) for _, _, data in some], np.uint32),
                np.array([crc for _, crc, _ in some], np.uint32),
                b"".join(data for _, _, data in some),
            )
        )
        first = stop
    return records
