"""Bodies of requests that are stored as they come, in bounded memory; refused before they have come where that can be.

`StreamedBody` is for answers that take such a body; `MultipartFile` finds the one file in a form that browsers, and
the older system's clients, send. Neither knows what is done with the bytes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, ClassVar

from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler, stream_request_body

from ..errors import Caterva2Error, RequestError

__all__ = ["MultipartFile", "StreamedBody"]

log = logging.getLogger("caterva2_jupyter.web")

MAX_UPLOAD_NBYTES = 1 << 50
STALL_S = 60.0
# A client that is sending does not read an answer: one that has this much left to send is listened to until the end.
MAX_DRAINED_NBYTES = 64 << 20
MAX_PART_HEADER_NBYTES = 16 << 10
WRITTEN_AT_ONCE_NBYTES = 1 << 20


@stream_request_body
class StreamedBody(RequestHandler):
    """A handler whose requests' bodies are handed on as they come.

    Who derives from it says what is done with them: ``begin_body``, ``take_body`` and ``drop_body``; the verb is
    called when all has come.
    """

    streamed_methods: ClassVar[tuple[str, ...]] = ("PUT", "POST")
    _refusal: Caterva2Error | None = None
    _nreceived = 0
    _stalled: asyncio.TimerHandle | None = None
    _turn: asyncio.Lock | None = None
    _is_over = False

    async def begin_body(self) -> None:
        """The headers are there: refuse the request, or get ready."""
        raise NotImplementedError

    async def take_body(self, data: bytes) -> None:
        """More of the body has come."""
        raise NotImplementedError

    async def drop_body(self) -> None:
        """The request ended, in whatever way: let go of what is left of it."""
        raise NotImplementedError

    @property
    def body_nbytes(self) -> int | None:
        """The body's length, if it was told."""
        text = self.request.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None

    async def prepare(self) -> None:
        prepared: Any = super().prepare()
        if prepared is not None:
            await prepared
        if self._finished or self.request.method not in self.streamed_methods:
            return
        connection: Any = self.request.connection
        self._turn, self._waiting = asyncio.Lock(), bytearray()
        try:
            await self.begin_body()
        except Caterva2Error as error:
            self._refuse(error)
            return
        connection.set_max_body_size(MAX_UPLOAD_NBYTES)
        connection.set_body_timeout(None)  # it may take long, but not stand still
        self._expect_more()

    async def data_received(self, chunk: bytes) -> None:
        self._nreceived += len(chunk)
        if self._turn is None or self._refusal is not None or self._is_over:
            return
        self._expect_more()
        self._waiting += chunk
        if len(self._waiting) >= WRITTEN_AT_ONCE_NBYTES:
            await self._hand_on()

    async def _hand_on(self) -> None:
        assert self._turn is not None
        data, self._waiting = bytes(self._waiting), bytearray()
        try:
            async with self._turn:
                if data and not self._is_over:
                    await self.take_body(data)
        except Caterva2Error as error:
            self._refuse(error)

    async def end_body(self) -> None:
        """All of the body has come; for the verb, before anything else.

        Raises
        ------
        Caterva2Error
            Why the request is refused.
        """
        self._expect_more(nothing=True)
        if self._refusal is None:
            await self._hand_on()
        if self._refusal is not None:
            raise self._refusal

    def _refuse(self, error: Caterva2Error) -> None:
        nbytes = self.body_nbytes
        self._expect_more(nothing=True)
        if nbytes is not None and nbytes - self._nreceived <= MAX_DRAINED_NBYTES:
            self._refusal = error
            connection: Any = self.request.connection
            connection.set_max_body_size(max(nbytes, 1))
        elif self._nreceived == 0:
            raise error
        else:
            self._refusal = error
            self._handle_request_exception(error)

    def _expect_more(self, *, nothing: bool = False) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if not nothing:
            self._stalled = asyncio.get_running_loop().call_later(STALL_S, self._give_up)

    def _give_up(self) -> None:
        log.info("%s %s stands still: closed", self.request.method, self.request.path)
        connection: Any = self.request.connection
        connection.stream.close()

    def on_connection_close(self) -> None:
        self._end()
        super().on_connection_close()

    def on_finish(self) -> None:
        self._end()
        super().on_finish()

    def _end(self) -> None:
        if self._turn is None or self._is_over:
            return
        self._is_over = True
        self._expect_more(nothing=True)
        self._dropping = asyncio.ensure_future(self._drop())

    async def _drop(self) -> None:
        assert self._turn is not None
        async with self._turn:
            await self.drop_body()

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if isinstance(value, StreamClosedError):
            log.debug("the client of %s went away", self.request.path)
            return
        super().log_exception(typ, value, tb)


class MultipartFile:
    """Finds one file in a form (RFC 7578) that comes bit by bit; keeps no more than a part's header.

    Parameters
    ----------
    content_type : str
        The request's header.
    field : str
        Name of the file's field. Other fields are passed over.

    Raises
    ------
    RequestError
        When the body is no form, or malformed.

    Attributes
    ----------
    filename : str or None
        As the client called it; None as long as the file has not begun.

    Examples
    --------
    >>> form = MultipartFile("multipart/form-data; boundary=X", "file")
    >>> head = b'Content-Disposition: form-data; name="file"; filename="a.txt"'
    >>> body = b"--X\\r\\n" + head + b"\\r\\n\\r\\nhello\\r\\n--X--\\r\\n"
    >>> b"".join(form.feed(body[i : i + 1]) for i in range(len(body))), form.filename, form.is_complete
    (b'hello', 'a.txt', True)
    """

    def __init__(self, content_type: str, field: str) -> None:
        match = re.match(r"multipart/form-data\s*;(.*)", content_type, re.IGNORECASE | re.DOTALL)
        boundary = _parameters(match[1]).get("boundary", "") if match else ""
        if not 0 < len(boundary) <= 200:
            raise RequestError("the body is not a form (multipart/form-data) with a boundary")
        self._mark = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._field = field
        # The first boundary has no line end before it; with one, all are alike.
        self._waiting = bytearray(b"\r\n")
        self._state = "between"
        self.filename: str | None = None
        self.is_complete = False

    def feed(self, data: bytes) -> bytes:
        """More of the body; what of it belongs to the file."""
        self._waiting += data
        found: list[bytes] = []
        while True:
            if self._state == "done":
                self._waiting.clear()
                return b"".join(found)
            if self._state == "header":
                if not self._read_header():
                    return b"".join(found)
                continue
            end = self._waiting.find(self._mark)
            if end < 0:
                # The mark may have begun.
                keep = len(self._mark) - 1
                ready = max(0, len(self._waiting) - keep)
                if self._state == "file":
                    found.append(bytes(memoryview(self._waiting)[:ready]))
                del self._waiting[:ready]
                return b"".join(found)
            after = end + len(self._mark)
            if len(self._waiting) < after + 2:
                return b"".join(found)
            if self._state == "file":
                found.append(bytes(memoryview(self._waiting)[:end]))
                self.is_complete = True
            is_last = self._waiting[after : after + 2] == b"--"
            self._state = "done" if is_last or self.is_complete else "header"
            del self._waiting[:after]

    def _read_header(self) -> bool:
        end = self._waiting.find(b"\r\n\r\n")
        if end < 0:
            if len(self._waiting) > MAX_PART_HEADER_NBYTES:
                raise RequestError("a part of the form has no end of its header")
            return False
        header = bytes(self._waiting[:end]).decode("utf-8", "replace")
        del self._waiting[: end + 4]
        parameters: dict[str, str] = {}
        for line in header.split("\r\n"):
            key, _, value = line.partition(":")
            if key.strip().lower() == "content-disposition":
                parameters = _parameters(value.partition(";")[2])
        is_wanted = parameters.get("name") == self._field and "filename" in parameters
        if is_wanted:
            self.filename = parameters["filename"].replace("%22", '"')
        self._state = "file" if is_wanted else "between"
        return True


_PARAMETER = re.compile(r';?\s*([\w!#$%&+^`|~*.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))', re.DOTALL)


def _parameters(text: str) -> dict[str, str]:
    """``a=1; b="2"`` as a mapping."""
    found: dict[str, str] = {}
    for key, quoted, plain in _PARAMETER.findall(text):
        found.setdefault(key.lower(), re.sub(r'\\(["\\])', r"\1", quoted) if quoted else plain)
    return found
