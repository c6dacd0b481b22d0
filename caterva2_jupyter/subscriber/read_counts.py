"""How much of what was read of a subscriber was there already. It counts; nothing is decided by it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from ..core.blocks import BlockRecord

__all__ = ["ReadCounts"]


@dataclass(slots=True)
class ReadCounts:
    """Blocks that readers were given since the start. For one thread: the event loop's.

    Attributes
    ----------
    held_blocks, held_nbytes : int
        That were kept here; bytes are compressed ones. Kernels that read the cache's files themselves tell of it
        later, in batches.
    fetched_blocks, fetched_nbytes : int
        That came from upstream.
    since : float
        Time of the start, in seconds of the epoch.

    Examples
    --------
    >>> counts = ReadCounts(since=0.0)
    >>> counts.note_uses(3, 1000)
    >>> counts.to_json()["held_blocks"]
    3
    """

    held_blocks: int = 0
    held_nbytes: int = 0
    fetched_blocks: int = 0
    fetched_nbytes: int = 0
    since: float = field(default_factory=time.time)

    def note_held(self, records: Iterable[BlockRecord]) -> None:
        """Count records that were kept here."""
        for record in records:
            self.held_blocks += len(record.ids)
            self.held_nbytes += len(record.body)

    def note_fetched(self, records: Iterable[BlockRecord]) -> None:
        """Count records that came from upstream."""
        for record in records:
            self.fetched_blocks += len(record.ids)
            self.fetched_nbytes += len(record.body)

    def note_uses(self, nblocks: int, nbytes: int) -> None:
        """Count blocks that were read from the files, past this service."""
        self.held_blocks += nblocks
        self.held_nbytes += nbytes

    def to_json(self) -> dict[str, float]:
        return asdict(self)
