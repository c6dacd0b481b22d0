"""Asking another service over HTTP: one pool of connections, deadlines on progress, few retries.

Foreign exceptions (aiohttp, sockets, TLS) end here and become ours. A request is tried again only when it
reads; a service that asks for quiet (429, 503 with ``Retry-After``) gets it; a storm of failures is never
answered with more than a tenth more requests. What the answers mean is ``sources``' business.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from yarl import URL

from ..core.link_mac import HEADER as MAC_HEADER
from ..core.link_mac import LENGTH_HEADER, FrameReader, answer_digest
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    Caterva2Error,
    DeadlineError,
    IntegrityError,
    SourceUnavailableError,
    TooManyRequestsError,
    error_from_json,
)
from ..web.outgoing_session import READ_BUFFER_NBYTES, base_of, peer_of, tls_error

__all__ = ["Answer", "Attempts", "BrokenLinkError", "Link"]

MAX_ERROR_NBYTES = 64 << 10
MAX_ATTEMPTS = 3
RETRY_LOW_S, RETRY_HIGH_S = 0.1, 2.0
MAX_QUIET_S = 60.0
RETRY_RATIO, RETRY_BURST = 0.1, 10.0
_RETRIED = (429, 502, 503, 504)
_UNPROVED = "answers without proof: has it [network] mac = true and the same token, and is there no proxy in between?"


class BrokenLinkError(Exception):
    """A failure after which the same request may well succeed; ``error`` is what it is for others."""

    def __init__(self, error: Caterva2Error, quiet_s: float = 0.0) -> None:
        super().__init__(str(error))
        self.error, self.quiet_s = error, quiet_s


class Link:
    """The way to one service.

    Parameters
    ----------
    url : str
        Of the service, its prefix included.
    session : aiohttp.ClientSession
        Its pool (``outgoing_session.open_session``), which the caller closes.
    token : str
        Sent as Bearer when there is one.
    connect_s, stall_s : float
        Deadlines: for a connection, and for any progress of an answer (also of its first byte).
    min_rate : float
        Bytes per second under which, over ``stall_s``, an answer is not progress.
    patience_s : float
        How long a request waits when the service asked for quiet; it fails at once when that is longer.
    mac_key : bytes
        Every answer has to prove itself with codes of that key (``core.link_mac``); empty: none has to.
    prefix : str
        Of all its routes, below ``url``.
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        token: str = "",
        *,
        prefix: str = "api/v1",
        connect_s: float = 5.0,
        stall_s: float = 30.0,
        min_rate: float = 1024.0,
        patience_s: float = 10.0,
        mac_key: bytes = b"",
        rng: random.Random | None = None,
    ) -> None:
        self.peer = peer_of(url)
        self._base = f"{base_of(url)}/{prefix}"
        self._session = session
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
        self.stall_s, self.min_rate = stall_s, min_rate
        self._patient_stall_s = stall_s
        self._patience_s = patience_s
        self._rng = rng or random.Random()  # noqa: S311  (jitter is no secret)
        self._connect_s = connect_s
        self._quiet_until = self._unreachable_until = 0.0
        self._tokens = RETRY_BURST
        self._mac_key = mac_key

    def attempts(self) -> Attempts:
        """The budget of one operation."""
        return Attempts(self)

    def hurry(self, stall_s: float | None) -> None:
        """Give answers no longer than that, as the service is said to be away (None: as long as ever)."""
        self.stall_s = self._patient_stall_s if stall_s is None else min(stall_s, self._patient_stall_s)

    async def get_json(self, path: str, params: Mapping[str, str], max_nbytes: int) -> Any:
        """The JSON that a GET answers, tried again when that may help.

        Raises
        ------
        Caterva2Error
            What the service answered, or why it did not.
        """
        attempts = self.attempts()
        while True:
            try:
                answer = await self.ask("GET", path, params=params, media_type="application/json")
                try:
                    body = await answer.read(max_nbytes)
                finally:
                    answer.close()
            except BrokenLinkError as broken:
                await attempts.again(broken)
                continue
            # A page of 10,000 entries takes a tenth of a second: not on the event loop.
            return await asyncio.to_thread(_parse_json, body, self.peer)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        media_type: str = "",
        statuses: tuple[int, ...] = (200,),
    ) -> Answer:
        """Send one request and wait for the head of its answer.

        Raises
        ------
        BrokenLinkError
            When another attempt may help.
        Caterva2Error
            The error that the service answered.
        """
        await self._wait_for_quiet()
        self._tokens = min(self._tokens + RETRY_RATIO, RETRY_BURST)
        url = self._url(path).extend_query(params or {})
        # Compressed blocks do not shrink; and what is not decompressed cannot blow up. Nor is it proved yet.
        gzip = media_type == "application/json" and not self._mac_key
        sent = {**self._headers, "Accept-Encoding": "gzip" if gzip else "identity"}
        nonce = secrets.token_hex(16)
        if self._mac_key:
            sent[MAC_HEADER] = nonce
        if body is not None:
            sent["Content-Type"] = "application/json"
        with self._mapped(), self._deadline():
            async with asyncio.timeout(self.stall_s):
                response = await self._session.request(
                    method,
                    url,
                    data=body,
                    headers={**sent, **(headers or {})},
                    allow_redirects=False,
                    timeout=self._timeout,
                )
        _read_in_large_parts(response)
        proof: FrameReader | None = None
        if self._mac_key and response.headers.get(MAC_HEADER) == "1":
            about = answer_digest(nonce, method, url.raw_path_qs, body or b"", response.status, response.headers)
            proof = FrameReader(self._mac_key, about)
        answer = Answer(self, response, proof)
        try:
            if self._mac_key and proof is None and response.status not in _RETRIED:
                raise BrokenLinkError(IntegrityError(f"{self.peer} {_UNPROVED}"))
            if response.status not in statuses:
                raise await self._refusal(answer)
            if media_type and response.content_type != media_type:
                # A captive portal or a proxy's page: whoever answered, it is not the service.
                raise SourceUnavailableError(
                    f"{self.peer} answers {response.content_type or 'nothing'} in place of {media_type}: "
                    "is there a proxy or a login page in between?"
                )
        except BaseException:
            answer.close()
            raise
        return answer

    @asynccontextmanager
    async def websocket(self, path: str, params: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """An open WebSocket.

        Raises
        ------
        SourceUnavailableError, DeadlineError
        """
        try:
            with self._mapped(), self._deadline():
                async with asyncio.timeout(self._patient_stall_s):
                    socket = await self._session.ws_connect(
                        self._url(path), params=params, headers=self._headers, max_msg_size=64 << 20
                    )
        except BrokenLinkError as broken:
            raise broken.error from None
        try:
            yield socket
        finally:
            await socket.close()

    async def next_text(self, socket: aiohttp.ClientWebSocketResponse, silence_s: float) -> str:
        """The next message.

        Raises
        ------
        SourceUnavailableError
            When the connection is lost, or nothing comes for that long.
        """
        try:
            with self._mapped():
                message = await socket.receive(timeout=silence_s)
        except BrokenLinkError as broken:
            raise SourceUnavailableError(str(broken)) from None
        except TimeoutError:
            raise SourceUnavailableError(f"{self.peer} is silent: nothing came in {silence_s:g} s") from None
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise SourceUnavailableError(f"{self.peer} closed the connection")
        return str(message.data)

    def _url(self, path: str) -> URL:
        return URL(f"{self._base}/{path}", encoded=True)

    async def _wait_for_quiet(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._unreachable_until:
            raise self._unreachable()
        wait_s = self._quiet_until - now
        if wait_s > self._patience_s:
            raise SourceUnavailableError(f"{self.peer} is busy and asked to be left alone for {math.ceil(wait_s)} s")
        if wait_s > 0:
            await asyncio.sleep(wait_s + self._rng.uniform(0, 0.1 * wait_s))

    def _unreachable(self) -> SourceUnavailableError:
        return SourceUnavailableError(f"cannot reach {self.peer}: no connection in {self._connect_s:g} s")

    async def _refusal(self, answer: Answer) -> Exception:
        """What an unwanted status means here."""
        status = answer.status
        if 300 <= status < 400:
            return SourceUnavailableError(f"{self.peer} answers with a redirection, which is not followed")
        form: object = None
        if answer.media_type == "application/json":
            try:
                form = json.loads(await answer.read(MAX_ERROR_NBYTES))
            except (BrokenLinkError, Caterva2Error, ValueError, RecursionError):
                form = None
        detail = str(form.get("detail", ""))[:1000] if isinstance(form, Mapping) else ""
        if status in _RETRIED:
            quiet_s = _retry_after_s(answer.header("Retry-After"))
            if quiet_s:
                now = asyncio.get_running_loop().time()
                self._quiet_until = max(self._quiet_until, now + min(quiet_s, MAX_QUIET_S))
            return BrokenLinkError(
                SourceUnavailableError(detail or f"{self.peer} cannot answer now (HTTP status {status})"), quiet_s
            )
        if form is None and status in (400, 404, 409, 410, 422):
            return SourceUnavailableError(f"{self.peer} is no such service: it answers with HTTP status {status}")
        return peer_error(self.peer, error_from_json(form, status))

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            if isinstance(error, (Caterva2Error, aiohttp.ClientError)):
                raise
            raise DeadlineError(f"{self.peer} does not answer: nothing came in {self.stall_s:g} s") from None

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.WSServerHandshakeError as error:
            refused = error_from_json({"detail": f"{self.peer} answers with HTTP status {error.status}"}, error.status)
            raise peer_error(self.peer, refused) from None
        except aiohttp.ClientSSLError as error:
            raise tls_error(self.peer, error) from None
        except aiohttp.ServerTimeoutError:
            # Nothing says no, nothing says yes: whoever asks next should not wait as long.
            self._unreachable_until = asyncio.get_running_loop().time() + self._connect_s
            raise self._unreachable() from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise SourceUnavailableError(f"cannot reach {self.peer}: {error}") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as error:
            raise BrokenLinkError(SourceUnavailableError(f"cannot reach {self.peer}: {_reason(error)}")) from None
        except OSError as error:
            if isinstance(error, (Caterva2Error, TimeoutError)):
                raise
            raise BrokenLinkError(SourceUnavailableError(f"cannot reach {self.peer}: {_reason(error)}")) from None


class Attempts:
    """How often one operation is tried again, and after how long."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._left = MAX_ATTEMPTS - 1
        self._delay_s = RETRY_LOW_S
        self._progress = False

    def progressed(self) -> None:
        """Part of the answer came: the next failure is a first one again."""
        self._left, self._delay_s, self._progress = MAX_ATTEMPTS - 1, RETRY_LOW_S, True

    async def again(self, broken: BrokenLinkError) -> None:
        """Wait until the next attempt.

        Raises
        ------
        Caterva2Error
            ``broken.error``, when there is to be none.
        """
        link = self._link
        free, self._progress = self._progress, False
        if self._left == 0 or (not free and link._tokens < 1):
            raise broken.error
        self._left -= 1
        if not free:
            link._tokens -= 1
        if not broken.quiet_s:
            await asyncio.sleep(self._delay_s * link._rng.uniform(0.5, 1.0))
            self._delay_s = min(self._delay_s * 4, RETRY_HIGH_S)


class Answer:
    """The body of an answer as it comes."""

    def __init__(self, link: Link, response: aiohttp.ClientResponse, proof: FrameReader | None = None) -> None:
        self._link, self._response, self._proof = link, response, proof
        self._waited_s, self._came = 0.0, 0

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def media_type(self) -> str:
        return self._response.content_type

    def header(self, name: str) -> str:
        if self._proof is not None and name == "Content-Length":
            name = LENGTH_HEADER  # of what is in the frames
        return self._response.headers.get(name, "")

    async def next_bytes(self) -> bytes:
        """What came; empty at the end.

        Raises
        ------
        BrokenLinkError
            When the connection breaks, or the body is shorter than was said.
        DeadlineError
            When it is not progress (only the time waited here counts, not that of a slow consumer).
        """
        if self._proof is None:
            return await self._next_bytes()
        try:
            while data := await self._next_bytes():
                if proved := self._proof.feed(data):
                    return proved
            self._proof.close()
        except IntegrityError as error:
            raise BrokenLinkError(IntegrityError(f"{self._link.peer}: {error}")) from None
        return b""

    async def _next_bytes(self) -> bytes:
        link, content = self._link, self._response.content
        if content.exception() is None and (data := content.read_nowait()):
            self._count(data)  # it was here already
            return data
        clock = asyncio.get_running_loop().time
        begun = clock()
        with link._mapped(), link._deadline():
            # A trickle is not progress: what is left of the time that those few bytes had.
            async with asyncio.timeout(max(link.stall_s - self._waited_s, 0.001)):
                data = await content.readany()
        self._waited_s += clock() - begun
        self._count(data)
        return data

    def _count(self, data: bytes) -> None:
        self._came += len(data)
        if self._came >= self._link.stall_s * self._link.min_rate:
            self._waited_s, self._came = 0.0, 0

    def progressed(self) -> None:
        """Say that what came last is progress, however few bytes it has."""
        self._waited_s, self._came = 0.0, 0

    async def read(self, max_nbytes: int) -> bytes:
        """All of a body that may not be longer.

        Raises
        ------
        IntegrityError
            When it is.
        """
        body = bytearray()
        while data := await self.next_bytes():
            body += data
            if len(body) > max_nbytes:
                raise IntegrityError(f"{self._link.peer} answers with more than {max_nbytes} bytes")
        return bytes(body)

    def close(self) -> None:
        """Give the connection back when the answer was read to its end; cut it otherwise."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def peer_error(peer: str, error: Caterva2Error) -> Caterva2Error:
    """What another service's error is for our own clients: its quarrel with us is not theirs."""
    if isinstance(error, (AuthenticationError, AccessDeniedError)):
        return SourceUnavailableError(
            f"{peer} refuses this service: give both the same [network] token (CATERVA2_NETWORK_TOKEN)"
        )
    if isinstance(error, TooManyRequestsError):
        return SourceUnavailableError(str(error))
    return error


def _read_in_large_parts(response: aiohttp.ClientResponse) -> None:
    """Let one call bring more than asyncio's 256 KiB: each costs as much as copying some 300 kB."""
    transport = response.connection.transport if response.connection is not None else None
    if transport is not None and hasattr(transport, "max_size"):
        transport.max_size = READ_BUFFER_NBYTES


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    return str(error) or type(error).__name__


def _retry_after_s(text: str) -> float:
    """Seconds of a ``Retry-After`` header; 0 when there is none that can be understood."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:6])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _parse_json(body: bytes, peer: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise IntegrityError(f"{peer} answers with something that is not JSON") from None
