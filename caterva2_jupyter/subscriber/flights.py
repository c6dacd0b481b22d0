"""Which blocks are being fetched, so that many who want one cause one request.

It starts, shares and cancels fetches; what a fetch does is given by the caller (``sources``).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.blocks import WHOLE, BlockRecord
from ..core.metadata import Entry
from ..errors import SourceUnavailableError
from ..storage.block_cache import CachedVersion

__all__ = ["Flight", "Flights", "look_at_error"]

REMEMBERED_VERSIONS = 1000

Ints = npt.NDArray[np.int64]


class Flight:
    """One upstream request that is under way, and how many wait for it."""

    def __init__(self, task: asyncio.Task[list[BlockRecord]], keys: list[tuple[str, int, int]]) -> None:
        self.task, self.keys, self.waiters = task, keys, 1

    async def wait(self) -> list[BlockRecord]:
        """What it brings.

        Raises
        ------
        SourceUnavailableError
            When all fetches were stopped.
        """
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if not self.task.cancelled() or (waiting is not None and waiting.cancelling()):
                raise
            raise SourceUnavailableError("the service that fetches it is stopping") from None


class Flights:
    """Which blocks are being fetched, and by whom: a second reader waits for the first one's request.

    Until a dataset's chunks are known to come in blocks, one request per chunk is under way at a time: a
    chunk that cannot be cut comes whole, whichever of its blocks is asked for.

    Parameters
    ----------
    always_cut : bool
        Nothing is fetched that could come whole.
    """

    def __init__(self, *, always_cut: bool = False) -> None:
        self._always_cut = always_cut
        self._flights: dict[tuple[str, int, int], Flight] = {}
        self._cut: OrderedDict[str, bool] = OrderedDict()
        # Flights that have ended: what was missing before the last one did may be there now.
        self.nlanded = 0

    def join(self, version: CachedVersion, wanted: Mapping[int, Ints]) -> tuple[list[Flight], dict[int, Ints]]:
        """The flights that bring some of these blocks, and the blocks that none brings."""
        flights: dict[int, Flight] = {}
        own: dict[int, Ints] = {}
        cut = self.is_cut(version)
        for nchunk, ids in wanted.items():
            whole = self._flights.get((version.key, nchunk, WHOLE))
            if whole is not None and not cut:
                flights[id(whole)] = whole
                continue
            under_way = [self._flights.get((version.key, nchunk, block)) for block in ids.tolist()]
            flights |= {id(f): f for f in under_way if f is not None}
            alone = ids[[f is None for f in under_way]]
            if len(alone):
                own[nchunk] = alone
        for flight in flights.values():
            flight.waiters += 1
        return list(flights.values()), own

    def start(
        self, version: CachedVersion, own: Mapping[int, Ints], fetch: Coroutine[Any, Any, list[BlockRecord]]
    ) -> Flight:
        """Begin to fetch blocks."""
        return self._start(
            [(version.key, n, block) for n, ids in own.items() for block in (*ids.tolist(), WHOLE)], fetch
        )

    def join_slice(self, version: CachedVersion, digest: str) -> Flight | None:
        """The flight that brings the exact slice of a selection."""
        flight = self._flights.get(_slice_key(version, digest))
        if flight is not None:
            flight.waiters += 1
        return flight

    def start_slice(self, version: CachedVersion, digest: str, fetch: Coroutine[Any, Any, list[BlockRecord]]) -> Flight:
        """Begin to fetch the exact slice of a selection."""
        return self._start([_slice_key(version, digest)], fetch)

    def _start(self, keys: list[tuple[str, int, int]], fetch: Coroutine[Any, Any, list[BlockRecord]]) -> Flight:
        flight = Flight(asyncio.create_task(fetch), keys)
        self._flights |= dict.fromkeys(keys, flight)
        flight.task.add_done_callback(lambda task: self._land(flight))
        flight.task.add_done_callback(look_at_error)
        return flight

    def leave(self, flight: Flight) -> None:
        """One waits no more; nobody waiting means that nobody needs it."""
        flight.waiters -= 1
        if flight.waiters == 0 and not flight.task.done():
            self._land(flight)
            flight.task.cancel()

    def expect(self, version: CachedVersion, entry: Entry) -> None:
        """Go by what the entry of a version says of its chunks, until one was seen."""
        if version.key not in self._cut and _has_blocks(entry):
            self._cut[version.key] = True

    def is_cut(self, version: CachedVersion) -> bool:
        """Are chunks of this version known to come in blocks?"""
        return self._always_cut or self._cut.get(version.key, False)

    def learn(self, version: CachedVersion, record: BlockRecord) -> None:
        """Do chunks of this version come in blocks?"""
        self._cut[version.key] = not record.is_whole
        self._cut.move_to_end(version.key)
        if len(self._cut) > REMEMBERED_VERSIONS:
            self._cut.popitem(last=False)

    def _land(self, flight: Flight) -> None:
        self.nlanded += 1
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]

    async def aclose(self) -> None:
        flights = set(self._flights.values())
        for flight in flights:
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in flights), return_exceptions=True)


def _has_blocks(entry: Entry) -> bool:
    """Do chunks of a dataset come in blocks, as far as its entry tells? If they do not, some come twice at first."""
    filters = entry.storage.get("filters")
    return "codec" in entry.storage and isinstance(filters, list) and "delta" not in filters


def _slice_key(version: CachedVersion, digest: str) -> tuple[str, int, int]:
    return (f"{version.key}#{digest}", 0, WHOLE)


def look_at_error(task: asyncio.Task[Any]) -> None:
    """An error that nobody waits for any more is no accident."""
    if not task.cancelled():
        task.exception()
