"""Small reads that several readers want of one service at the same time, asked for in one request.

Each request costs both services about as much as a small answer does. So a read that comes while others are
on their way waits a moment for more of its kind; one that comes alone does not wait. What cannot be answered
so is left to be asked for by itself (``remote_source``), which tries again, and tells what is wrong.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ..core.blocks import BlockRecord
from ..core.many_reads import ManyParser, many_to_json
from ..core.wire import RECORDS_TYPE, Preamble, ReadRequest
from ..errors import Caterva2Error, IntegrityError
from .flights import look_at_error
from .link import Answer, BrokenLinkError, Link

__all__ = ["JoinedAnswer", "JoinedReads"]

WAIT_S = 0.001
"""How long a read waits for others, when others are under way."""
PATIENCE_S = 2.0
"""How long a read that was joined waits for those before it."""
MAX_JOINED = 64
MAX_ERROR_NBYTES = 64 << 10
_ABOUT_DATA = ("DatasetNotFoundError", "RootNotFoundError", "InvalidPathError")
MAX_ANSWERS_NBYTES = 64 << 20
"""Of all answers to one request: who joined them took them to be small."""


@dataclass(slots=True)
class JoinedAnswer:
    """The answer to one of several reads, complete."""

    preamble: Preamble
    records: list[BlockRecord] = field(default_factory=list)


@dataclass(slots=True)
class _Waiting:
    request: ReadRequest
    answer: asyncio.Future[JoinedAnswer | None]


class JoinedReads:
    """Joins the small reads of one service. Used on the event loop only.

    Parameters
    ----------
    link : Link
    wait_s, patience_s : float
        For others to come; for an answer, before it is asked for by itself.
    """

    def __init__(self, link: Link, wait_s: float = WAIT_S, patience_s: float = PATIENCE_S) -> None:
        self._link, self._wait_s, self._patience_s = link, wait_s, patience_s
        self._nunder_way = 0
        self._waiting: list[_Waiting] = []
        self._is_refused = False
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Small reads that come meanwhile are joined."""
        self._nunder_way += 1
        try:
            yield
        finally:
            self._nunder_way -= 1

    async def read(self, request: ReadRequest) -> JoinedAnswer | None:
        """The answer to a small read of a pinned version; None where it has to be asked for by itself."""
        if self._is_refused or not self._nunder_way or request.known is not None or request.version is None:
            return None
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future())
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            loop.call_later(self._wait_s, self._send_waiting)
        elif len(self._waiting) >= MAX_JOINED:
            self._send_waiting()
        # One that is slow must not hold up those behind it.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                return await waiting.answer
        return None

    def _send_waiting(self) -> None:
        batch = [w for w in self._waiting if not w.answer.done()]
        self._waiting.clear()
        if len(batch) < 2:
            _leave(batch)
            return
        task = asyncio.create_task(self._answer_all(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(look_at_error)

        def look(_: object) -> None:
            if all(w.answer.cancelled() for w in batch):
                task.cancel()  # nobody waits any more

        for waiting in batch:
            waiting.answer.add_done_callback(look)

    async def _answer_all(self, batch: list[_Waiting]) -> None:
        try:
            with self.under_way():
                await self._ask(batch)
        except (BrokenLinkError, Caterva2Error):
            pass  # each of those that were not answered asks by itself, and is told
        finally:
            _leave(batch)

    async def _ask(self, batch: Sequence[_Waiting]) -> None:
        body = json.dumps(many_to_json([waiting.request for waiting in batch])).encode()
        answer = await self._link.ask("POST", "read-many", body=body, statuses=(200, 404, 405))
        try:
            if answer.status == 200 and answer.media_type == RECORDS_TYPE:
                await self._take(answer, batch)
            elif answer.status != 200:
                self._is_refused = not await _is_about_data(answer)
        finally:
            answer.close()

    async def _take(self, answer: Answer, batch: Sequence[_Waiting]) -> None:
        parser = ManyParser(len(batch))
        left = iter(batch)
        current: JoinedAnswer | None = None
        nbytes = 0
        while data := await answer.next_bytes():
            nbytes += len(data)
            if nbytes > MAX_ANSWERS_NBYTES:
                raise IntegrityError(f"{self._link.peer} answers small reads with much")
            for item in parser.feed(data):
                if isinstance(item, Preamble):
                    current = JoinedAnswer(item)
                elif current is not None and isinstance(item, BlockRecord):
                    current.records.append(item)
                elif current is not None:
                    waiting = next(left)
                    if not waiting.answer.done():
                        is_right = current.preamble.version == waiting.request.version
                        waiting.answer.set_result(current if is_right else None)
        parser.close()


async def _is_about_data(answer: Answer) -> bool:
    """Is it a dataset that is not there, and not this kind of request?"""
    if answer.media_type != "application/json":
        return False
    try:
        form = json.loads(await answer.read(MAX_ERROR_NBYTES))
    except (ValueError, RecursionError):
        return False
    return isinstance(form, dict) and form.get("error") in _ABOUT_DATA


def _leave(batch: Sequence[_Waiting]) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_result(None)
