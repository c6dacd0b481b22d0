"""What another service says of blocks of an older version, over HTTP.

A comparison is small and gives the same answer each time: when the connection breaks it is asked for again,
and what has come already is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.revalidation import SameRecord
from ..core.wire import Preamble, ReadRequest, SameParser
from ..errors import IntegrityError
from .link import Link
from .resumed_answer import ResumedAnswer

__all__ = ["RemoteComparison"]


class RemoteComparison(ResumedAnswer[SameRecord]):
    """What is said of each chunk of one request with ``known``, as it comes."""

    def __init__(self, link: Link, request: ReadRequest) -> None:
        super().__init__(link)
        self._request = request
        self._parser = SameParser()
        self._came = self._again = 0

    async def start(self) -> Preamble:
        """Wait for what the answer is about."""
        return await self._until_preamble()

    async def _ask(self) -> Mapping[str, Any]:
        self._parser, self._again = SameParser(), 0
        return self._request.to_json()

    def _feed(self, data: bytes) -> Sequence[object]:
        items = self._parser.feed_same(data)
        if not data:
            self._parser.close()
        return items

    def _take(self, item: object) -> None:
        if isinstance(item, Preamble):
            if item.version != self._request.version or (self._preamble is not None and item.id != self._preamble.id):
                raise IntegrityError(f"{self._link.peer} answers about another version than it was asked for")
            self._preamble = item
        elif isinstance(item, SameRecord):
            self._again += 1
            if self._again > self._came:
                self._came = self._again
                self._ready.append(item)
                self._attempts.progressed()
