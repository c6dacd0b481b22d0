"""Opening a WebSocket to another service, and saying in one line why it cannot be opened.

Foreign exceptions (aiohttp, ssl, sockets) end here. Opening it again, and what is said over it, is the
business of the links (``publishing_link``, ``subscriber/broker_link``).
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp

from ..errors import (
    AuthenticationError,
    Caterva2Error,
    DeadlineError,
    IntegrityError,
    SourceUnavailableError,
    error_from_json,
)
from .outgoing_session import base_of, open_session, peer_of, tls_error

__all__ = ["Backoff", "OutgoingWebSocket", "open_websocket", "parse_heartbeat"]

MAX_MESSAGE_NBYTES = 16 * 1024 * 1024
CLOSE_TIMEOUT_S = 1.0


class Backoff:
    """How long to wait before the next attempt: doubling, with jitter, between two bounds.

    Jitter keeps a hundred subscribers from coming back in the same instant.
    """

    def __init__(self, low_s: float = 0.1, high_s: float = 10.0) -> None:
        self._low_s = low_s
        self._high_s = high_s
        self._next_s = low_s

    def limit(self, high_s: float) -> None:
        """Never wait longer than that from now on."""
        self._high_s = max(self._low_s, high_s)

    def reset(self) -> None:
        """The attempt was a success."""
        self._next_s = self._low_s

    def next_s(self) -> float:
        """Seconds to wait now."""
        delay_s = min(self._next_s, self._high_s)
        self._next_s = min(self._next_s * 2, self._high_s)
        return delay_s * random.uniform(0.5, 1.0)  # noqa: S311  (jitter is no secret)


class OutgoingWebSocket:
    """An open connection: texts out, JSON objects in."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse, peer: str) -> None:
        self._websocket = websocket
        self._peer = peer

    async def send(self, text: str, timeout_s: float) -> None:
        """Send a text.

        Raises
        ------
        SourceUnavailableError
        DeadlineError
            When the other side takes nothing for that long.
        """
        # Not ``wait_for``, which loses a cancellation that comes as it ends (Python 3.11).
        with _map_exceptions(self._peer):
            async with asyncio.timeout(timeout_s):
                await self._websocket.send_str(text)

    async def receive(self, timeout_s: float) -> dict[str, Any]:
        """The next message.

        Raises
        ------
        SourceUnavailableError
            When the connection is closed.
        DeadlineError
            When nothing comes for that long.
        IntegrityError
            When it is not a JSON object.
        """
        with _map_exceptions(self._peer):
            message = await self._websocket.receive(timeout_s)
        if message.type is not aiohttp.WSMsgType.TEXT:
            reason = str(message.extra or "") if message.type is aiohttp.WSMsgType.CLOSE else ""
            raise SourceUnavailableError(f"{self._peer} closed the connection{': ' if reason else ''}{reason}")
        try:
            form = json.loads(message.data)
        except (ValueError, RecursionError):
            form = None
        if not isinstance(form, dict):
            raise IntegrityError(f"{self._peer} sent something that is not a message")
        if form.get("type") == "error":
            status = form.get("status")
            raise error_from_json(form, status if isinstance(status, int) else 500)
        return form


@asynccontextmanager
async def open_websocket(
    url: str, path: str, *, token: str, ssl_context: ssl.SSLContext, timeout_s: float
) -> AsyncIterator[OutgoingWebSocket]:
    """Open a WebSocket to ``url`` + ``path``; redirections are not followed, cookies not kept.

    Parameters
    ----------
    url : str
        ``http://``, ``https://`` or ``http+unix://%2Fpath``.
    token : str
        Sent as Bearer when there is one.
    timeout_s : float
        For the whole of connecting and the handshake.

    Raises
    ------
    SourceUnavailableError, DeadlineError
        When nobody answers, or not as a service of ours does.
    AuthenticationError, AccessDeniedError, TooManyRequestsError
        When it answers that we may not.
    """
    peer = f"the service at {peer_of(url)}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with open_session(url, ssl_context) as session:
        with _map_exceptions(peer):
            async with asyncio.timeout(timeout_s):
                websocket = await session.ws_connect(
                    base_of(url) + path,
                    headers=headers,
                    max_msg_size=MAX_MESSAGE_NBYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                )
        try:
            yield OutgoingWebSocket(websocket, peer)
        finally:
            await websocket.close()


@contextmanager
def _map_exceptions(peer: str) -> Iterator[None]:
    try:
        yield
    except aiohttp.WSServerHandshakeError as error:
        if error.status == 401:
            raise AuthenticationError(
                f"{peer} wants another network token: set CATERVA2_NETWORK_TOKEN or [network] token_file as it has it"
            ) from None
        raise _handshake_error(peer, error.status) from None
    except aiohttp.ClientSSLError as error:
        raise tls_error(peer, error) from None
    except TimeoutError as error:
        if isinstance(error, Caterva2Error):
            raise
        raise DeadlineError(f"{peer} does not answer in time") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error, Caterva2Error):
            raise
        raise SourceUnavailableError(f"cannot reach {peer}: {error}") from None


def _handshake_error(peer: str, status: int) -> Caterva2Error:
    answer = {"detail": f"{peer} refuses the connection (HTTP status {status})"}
    return error_from_json(answer, status) if status in (403, 429) else SourceUnavailableError(answer["detail"])


def parse_heartbeat(form: dict[str, Any], kind: str) -> float:
    """The interval that the broker's first message tells."""
    heartbeat_s = form.get("heartbeat_s")
    if form.get("type") != kind or not isinstance(heartbeat_s, (int, float)) or not 0.01 <= heartbeat_s <= 3600:
        raise IntegrityError(f"the broker's first message is {str(form)[:100]!r}, not {kind!r}")
    return float(heartbeat_s)
