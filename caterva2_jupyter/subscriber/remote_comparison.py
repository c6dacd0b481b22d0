"""What another service says of blocks of an older version, over HTTP.

A comparison is small and gives the same answer each time: when the connection breaks it is asked for again,
and what has come already is passed over.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator

from ..core.revalidation import SameRecord
from ..core.wire import RECORDS_TYPE, End, Preamble, ReadRequest, SameParser
from ..errors import Caterva2Error, IntegrityError
from .link import Answer, BrokenLinkError, Link, peer_error

__all__ = ["RemoteComparison"]


class RemoteComparison:
    """What is said of each chunk of one request with ``known``, as it comes."""

    def __init__(self, link: Link, request: ReadRequest) -> None:
        self._link, self._request = link, request
        self._attempts = link.attempts()
        self._answer: Answer | None = None
        self._parser = SameParser()
        self._ready: deque[SameRecord] = deque()
        self._preamble: Preamble | None = None
        self._came = self._again = 0
        self._ended = False

    def __aiter__(self) -> AsyncIterator[SameRecord]:
        return self

    async def start(self) -> Preamble:
        """Wait for what the answer is about."""
        while self._preamble is None:
            await self._advance()
        return self._preamble

    async def __anext__(self) -> SameRecord:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            await self._advance()
        return self._ready.popleft()

    async def aclose(self) -> None:
        self._ended = True
        self._ready.clear()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def _advance(self) -> None:
        try:
            if self._answer is None:
                self._parser, self._again = SameParser(), 0
                body = json.dumps(self._request.to_json()).encode()
                self._answer = await self._link.ask("POST", "read", body=body, media_type=RECORDS_TYPE)
            data = await self._answer.next_bytes()
            for item in self._parse(data):
                self._take(item)
            if not data:
                self._ended = True
                self._hang_up()
        except BrokenLinkError as broken:
            self._hang_up()
            await self._attempts.again(broken)
        except BaseException:
            self._ended = True
            self._hang_up()
            raise

    def _parse(self, data: bytes) -> list[Preamble | SameRecord | End]:
        try:
            items = self._parser.feed_same(data)
            if not data:
                self._parser.close()
        except IntegrityError as error:
            # Damaged on the way, or cut short by a proxy: once more may be right.
            raise BrokenLinkError(IntegrityError(f"{self._link.peer}: {error}")) from None
        except Caterva2Error as error:
            raise peer_error(self._link.peer, error) from None
        return items

    def _take(self, item: Preamble | SameRecord | End) -> None:
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
