"""Small reads of what is in memory, answered before Tornado has made a handler: that takes as long as all the rest.

A request is let in by the guard and the policy of its route, as it would be there, and answered with the same headers.
Whatever is not answered here (larger, refused, malformed, from a web page) goes the usual way from its beginning, which
tells what is wrong. Nothing here waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
    format_timestamp,
)

from ..core.metadata import Entry
from ..core.wire import RECORDS_TYPE, ReadRequest, encode_answer, encode_preamble
from ..errors import AccessDeniedError, Caterva2Error
from ..storage.threaded_source import ThreadedSource
from .access import SERVICE_HEADERS, HasHeaders, NetworkToken, Open, RequestGuard

__all__ = ["DirectRead", "DirectReads"]

log = logging.getLogger("caterva2_jupyter.web")

MAX_BODY_NBYTES = 64 << 10
MAX_PREAMBLES = 64
_UNUSUAL = ("Origin", "Sec-Fetch-Site", "Cookie", "Transfer-Encoding", "Expect")
_OK = ResponseStartLine("HTTP/1.1", 200, "OK")

Usual = Callable[[], HTTPMessageDelegate]


class DirectReads:
    """Answers ``POST read`` of one root, where that takes next to nothing.

    Parameters
    ----------
    source : ThreadedSource
    guard : RequestGuard
    policy : Open or NetworkToken
        Of the route.
    """

    path = "/api/v1/read"

    def __init__(self, source: ThreadedSource, guard: RequestGuard, policy: Open | NetworkToken) -> None:
        self._source, self._guard, self._policy = source, guard, policy
        self._date = 0, ""
        self._preambles: dict[tuple[int, bool], tuple[Entry, bytes]] = {}

    def is_let_in(self, request: HasHeaders) -> bool:
        """May this request be answered here?"""
        headers = request.headers
        if any(name in headers for name in _UNUSUAL) or "," in headers.get("Host", ","):
            return False
        try:
            self._guard.check(request, changes_state=True)
            return self._policy.named_by(request) is not None
        except AccessDeniedError:
            return False

    def answer(self, body: bytes) -> bytes | None:
        """The body of the answer."""
        try:
            request = ReadRequest.from_bytes(body)
            found = self._source.read_at_once(request) if request.root == self._source.root else None
        except Caterva2Error:
            return None
        if found is None:
            return None
        entry, records = found
        return encode_answer(entry, self._preamble(entry, request.version is None), records)

    def _preamble(self, entry: Entry, with_entry: bool) -> bytes:
        """The beginning of an answer, kept: it says the same in all of them, and takes as long as the rest."""
        key = id(entry), with_entry
        known = self._preambles.get(key)
        if known is not None and known[0] is entry:
            return known[1]
        if len(self._preambles) >= MAX_PREAMBLES:
            self._preambles.clear()
        preamble = encode_preamble(entry, with_entry)
        self._preambles[key] = entry, preamble
        return preamble

    def headers(self, nbytes: int) -> HTTPHeaders:
        """Of an answer of that length."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = now, format_timestamp(now)
        return HTTPHeaders(
            {
                **SERVICE_HEADERS,
                "Content-Type": RECORDS_TYPE,
                "Cache-Control": "no-store",
                "Date": self._date[1],
                "Content-Length": str(nbytes),
            }
        )


class DirectRead(HTTPMessageDelegate):
    """One request: answered here, or handed on as it came.

    Parameters
    ----------
    reads : DirectReads
    connection : HTTPConnection
        That it came by.
    usual : callable
        Makes the delegate that it is handed on to.
    """

    def __init__(self, reads: DirectReads, connection: HTTPConnection, usual: Usual) -> None:
        self._reads, self._connection, self._usual = reads, connection, usual
        self._next: HTTPMessageDelegate | None = None
        self._body = b""

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        self._start_line, self.headers = start_line, headers
        is_read = start_line.path == self._reads.path and start_line.method == "POST"
        if is_read and start_line.version == "HTTP/1.1" and self._reads.is_let_in(self):
            return None
        return self._hand_on()

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if self._next is not None:
            return self._next.data_received(chunk)
        self._body += chunk
        return self._hand_on() if len(self._body) > MAX_BODY_NBYTES else None

    def finish(self) -> None:
        if self._next is None:
            answer = self._reads.answer(self._body)
            if answer is not None:
                log.debug("200 POST %s, at once", self._start_line.path)
                self._connection.write_headers(_OK, self._reads.headers(len(answer)), answer)
                self._connection.finish()
                return
            self._hand_on()
        assert self._next is not None
        self._next.finish()

    def on_connection_close(self) -> None:
        if self._next is not None:
            self._next.on_connection_close()

    def _hand_on(self) -> Awaitable[None] | None:
        self._next = self._usual()
        waiting = self._next.headers_received(self._start_line, self.headers)
        if self._body:
            self._next.data_received(self._body)
        return waiting
