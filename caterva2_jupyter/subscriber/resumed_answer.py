"""An answer to ``POST read`` that goes on over connections that break: what is common to all of its kinds.

What is asked for, and what is made of what comes, is its subclasses' business (``remote_source``,
``remote_comparison``).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ..core.wire import RECORDS_TYPE, Preamble
from ..errors import Caterva2Error, IntegrityError
from .link import Answer, BrokenLinkError, Link, peer_error

__all__ = ["ResumedAnswer"]

T = TypeVar("T")


class ResumedAnswer(ABC, Generic[T]):
    """An iterator over the records of one read; it asks again when the connection breaks.

    Parameters
    ----------
    link : Link
    """

    route = "read"

    def __init__(self, link: Link) -> None:
        self._link = link
        self._attempts = link.attempts()
        self._answer: Answer | None = None
        self._ready: deque[T] = deque()
        self._preamble: Preamble | None = None
        self._ended = False

    @abstractmethod
    async def _ask(self) -> Mapping[str, Any]:
        """Begin anew: the request for what has not come yet, its answer to a fresh parser."""

    @abstractmethod
    def _feed(self, data: bytes) -> Sequence[object]:
        """What became complete with ``data``; no data is the end."""

    @abstractmethod
    def _take(self, item: object) -> None:
        """Make of an item what it is: the preamble, or something for ``_ready``."""

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            await self._advance()
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Stop; the connection is dropped in the midst of the answer."""
        self._ended = True
        self._ready.clear()
        self._hang_up()

    async def _until_preamble(self) -> Preamble:
        """Wait for what the answer is about."""
        while self._preamble is None:
            await self._advance()
        return self._preamble

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def _advance(self) -> None:
        try:
            if self._answer is None:
                body = json.dumps(await self._ask()).encode()
                self._answer = await self._link.ask("POST", self.route, body=body, media_type=RECORDS_TYPE)
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

    def _parse(self, data: bytes) -> Sequence[object]:
        try:
            return self._feed(data)
        except IntegrityError as error:
            # Bytes that were changed or lost on their way: once more may be right.
            raise BrokenLinkError(IntegrityError(f"{self._link.peer}: {error}")) from None
        except Caterva2Error as error:
            raise peer_error(self._link.peer, error) from None
