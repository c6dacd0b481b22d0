"""The services that a subscriber reads from, over HTTP: one pool of connections for each of them.

Which roots they serve, and what is done with what they answer, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import aiohttp

from ..config import NetworkConfig
from ..core.source import Source
from ..web.outgoing_websocket import client_ssl_context
from .link import BrokenLinkError, Link, open_session
from .sources import RemoteSource

__all__ = ["HttpUpstreams"]

MAX_ANSWER_NBYTES = 64 << 20


class HttpUpstreams:
    """Sources by address. To be used, and closed, in one event loop.

    Parameters
    ----------
    network : NetworkConfig
        Its tokens and certificates are used, for addresses that the broker or the configuration vouches for.

    Raises
    ------
    ConfigError
        When its certificates cannot be used.
    """

    def __init__(self, network: NetworkConfig) -> None:
        self._token = network.read_token
        self._change_token = network.publish_token or network.read_token
        self._ssl_context = client_ssl_context(network)
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._sources: dict[tuple[str, str], RemoteSource] = {}

    def _session(self, url: str) -> aiohttp.ClientSession:
        session = self._sessions.get(url)
        if session is None:
            session = self._sessions[url] = open_session(url, self._ssl_context)
        return session

    def source(self, url: str, root: str) -> Source:
        source = self._sources.get((url, root))
        if source is None:
            source = self._sources[url, root] = RemoteSource(root, url, self._session(url), self._token)
        return source

    async def list_roots(self, url: str) -> Any:
        """The JSON of its ``GET roots``."""
        return await Link(url, self._session(url), self._token).get_json("roots", {}, MAX_ANSWER_NBYTES)

    async def announce(self, url: str, root: str, path: str) -> None:
        link = Link(url, self._session(url), self._change_token)
        body = json.dumps({"path": path}).encode()
        try:
            answer = await link.ask("POST", f"roots/{quote(root, safe='@')}/announce", body=body)
        except BrokenLinkError as broken:
            raise broken.error from None
        answer.close()

    async def forget(self, url: str) -> None:
        self._sources = {key: source for key, source in self._sources.items() if key[0] != url}
        session = self._sessions.pop(url, None)
        if session is not None:
            await session.close()

    async def close(self) -> None:
        sessions = list(self._sessions.values())
        self._sessions.clear()
        self._sources.clear()
        await asyncio.gather(*(session.close() for session in sessions))
