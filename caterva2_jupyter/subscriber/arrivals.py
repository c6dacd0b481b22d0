"""Records of a segment as they come, so that whoever wants them need not wait for the last one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ..core.blocks import BlockRecord

__all__ = ["Arrivals"]


class Arrivals:
    """What has come so far, for one consumer.

    Attributes
    ----------
    records : list of BlockRecord
        In the order of their coming.
    """

    def __init__(self) -> None:
        self.records: list[BlockRecord] = []
        self._waiting: asyncio.Future[None] | None = None

    def add(self, records: Sequence[BlockRecord]) -> None:
        """Add records."""
        self.records += records
        self.tell()

    def tell(self, _: object = None) -> None:
        """Wake the consumer: there are more records, or the task is done."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def more_than(self, count: int, task: asyncio.Task[Any]) -> None:
        """Wait for more records than so many, or for the end of the task that adds them (and tells when it is done)."""
        while len(self.records) <= count and not task.done():
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
