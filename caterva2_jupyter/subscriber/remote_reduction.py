"""A reduction that another service makes, as it comes: that it is at work, then the pieces of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..compute.reduction import Reduction
from ..core.blocks import BlockRecord
from ..core.metadata import Entry
from ..core.reduce_request import ReduceRequest, Working
from ..core.wire import End, Preamble, ReduceParser
from ..errors import IntegrityError, UnsupportedDatasetError
from .link import Link
from .resumed_answer import ResumedAnswer

__all__ = ["RemoteReduction"]


class RemoteReduction(ResumedAnswer[BlockRecord | Working]):
    """The answer to one reduction; when the connection breaks, it is asked for again as a whole.

    Parameters
    ----------
    link : Link
    entry : Entry
        Of the version that is reduced.
    request : ReduceRequest
    """

    route = "reduce"

    def __init__(self, link: Link, entry: Entry, request: ReduceRequest) -> None:
        super().__init__(link)
        if entry.geometry is None:
            raise UnsupportedDatasetError(f"{entry.path!r} has no data to reduce: {entry.reason or entry.kind}")
        self._entry = entry
        # Of a version that is named: what comes again after a break is of the same one.
        self._request = replace(request, path=entry.path, version=entry.version)
        reduction = Reduction(entry.geometry, self._request)
        self.digest, self._npieces = reduction.digest, reduction.pieces.nchunks if reduction.nbytes else 0
        self._taken = 0
        self._parser = ReduceParser(self.digest)

    async def start(self) -> None:
        """Wait until it is known that there will be an answer."""
        await self._until_preamble()

    async def _ask(self) -> Mapping[str, Any]:
        self._parser = ReduceParser(self.digest)
        return self._request.to_json()

    def _feed(self, data: bytes) -> Sequence[object]:
        items = self._parser.feed_reduced(data)
        if not data:
            self._parser.close()
        return items

    def _take(self, item: object) -> None:
        if isinstance(item, Preamble):
            if (item.id, item.version) != (self._entry.id, self._entry.version):
                raise IntegrityError(f"{self._link.peer} answers about another version than it was asked for")
            self._preamble = item
        elif isinstance(item, Working):
            if self._answer is not None:
                self._answer.progressed()
            self._ready.append(item)
        elif isinstance(item, BlockRecord):
            if item.nchunk >= self._npieces:
                raise IntegrityError(f"{self._link.peer} sends more than the result of a reduction")
            if item.nchunk >= self._taken:
                self._taken = item.nchunk + 1
                self._ready.append(item)
                self._attempts.progressed()
        elif isinstance(item, End) and self._taken != self._npieces:
            raise IntegrityError(f"{self._link.peer} did not send all of the result of a reduction")
