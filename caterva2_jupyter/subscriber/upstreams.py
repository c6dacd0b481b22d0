"""The services that a subscriber reads from, over HTTP: one pool of connections for each of them.

Which roots they serve, and what is done with what they answer, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import aiohttp

from ..config import NetworkConfig
from ..core.source import Source
from ..errors import Caterva2Error
from ..web.compute_pool import ComputePool
from ..web.outgoing_session import client_ssl_context, open_session
from ..web.source_handlers import ASKER_HEADER
from .link import BrokenLinkError, Link
from .older_publisher import OlderSource
from .sources import RemoteSource

__all__ = ["HttpUpstreams"]

MAX_ANSWER_NBYTES = 64 << 20
STALL_S = 30.0
AWAY_STALL_S = 2.0  # a publisher that is frozen accepts requests, and says nothing
OLDER_THREADS = 8
LIST_STALL_S = 10.0  # asked for every 5 s: that is how a connection that is half open shows

logger = logging.getLogger(__name__)


class HttpUpstreams:
    """Sources by address. To be used, and closed, in one event loop.

    Parameters
    ----------
    network : NetworkConfig
        Its tokens and certificates are used, for addresses that the broker or the configuration vouches for.
    ident : str
        Id of the subscriber, told with every request: who reads from us has to know.
    compute : ComputePool
        Where chunks of publishers of the older system are decoded, for answers that are not blocks.

    Raises
    ------
    ConfigError
        When its certificates cannot be used.
    """

    def __init__(self, network: NetworkConfig, ident: str = "", compute: ComputePool | None = None) -> None:
        self._headers = {ASKER_HEADER: ident} if ident else {}
        self._token = network.read_bearer
        self._change_token = network.publish_bearer or network.read_bearer
        self._mac_key = network.mac_key
        self._ssl_context = client_ssl_context(network)
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._sources: dict[tuple[str, str], RemoteSource] = {}
        self._away: dict[tuple[str, str], float] = {}
        self._compute = compute or ComputePool()
        self._older: dict[tuple[str, str], OlderSource] = {}
        self._waiting: ThreadPoolExecutor | None = None

    def _session(self, url: str) -> aiohttp.ClientSession:
        session = self._sessions.get(url)
        if session is None:
            session = self._sessions[url] = open_session(url, self._ssl_context, self._headers)
        return session

    def source(self, url: str, root: str, *, is_older: bool = False) -> Source:
        if is_older:
            return self.older_source(url, root)
        source = self._sources.get((url, root))
        if source is None:
            source = RemoteSource(root, url, self._session(url), self._token, mac_key=self._mac_key)
            source.hurry(self._away.get((url, root)))
            self._sources[url, root] = source
        return source

    def older_source(self, url: str, root: str) -> OlderSource:
        """The source of a root whose publisher is one of the older system; no token is sent there."""
        source = self._older.get((url, root))
        if source is None:
            if self._waiting is None:
                self._waiting = ThreadPoolExecutor(OLDER_THREADS, thread_name_prefix="caterva2-older")
            link = Link(url, self._session(url), prefix="api", mac_key=self._mac_key)
            source = self._older[url, root] = OlderSource(root, url, link, self._waiting, self._compute)
        return source

    def expect(self, url: str, root: str, *, online: bool, nhops: int) -> None:
        """Wait shortly for a root that is said to be offline; each subscriber on the way to it has its own wait."""
        if online:
            self._away.pop((url, root), None)
        else:
            self._away[url, root] = AWAY_STALL_S * (1 + nhops)
        if (source := self._sources.get((url, root))) is not None:
            source.hurry(self._away.get((url, root)))

    def _link(self, url: str, token: str, stall_s: float = STALL_S) -> Link:
        return Link(url, self._session(url), token, stall_s=stall_s, mac_key=self._mac_key)

    async def list_roots(self, url: str) -> Any:
        """The JSON of its ``GET roots``."""
        return await self._link(url, self._token, LIST_STALL_S).get_json("roots", {}, MAX_ANSWER_NBYTES)

    async def announce(self, url: str, root: str, path: str, *, is_publisher: bool = True) -> None:
        if (url, root) in self._older:
            await self._older[url, root].look(path)
            return
        # Who may read through a subscriber may have it say so; it has its own token for its publisher.
        token = self._change_token if is_publisher else self._token
        await self._change(url, root, "announce", {"path": path}, token)

    async def ask_to_follow(self, url: str, root: str) -> None:
        """Have a subscriber follow a root, so that it keeps what is read through it; nothing is lost if it does not."""
        try:
            await self._change(url, root, "follow", {}, self._token)
        except Caterva2Error as error:
            logger.debug("%s does not follow root %s: %s", url, root, error)

    async def _change(self, url: str, root: str, what: str, form: dict[str, str], token: str) -> None:
        link = self._link(url, token)
        try:
            answer = await link.ask("POST", f"roots/{quote(root, safe='@')}/{what}", body=json.dumps(form).encode())
        except BrokenLinkError as broken:
            raise broken.error from None
        answer.close()

    async def forget(self, url: str) -> None:
        for key in [key for key in self._older if key[0] == url]:
            self._older.pop(key).close()
        self._sources = {key: source for key, source in self._sources.items() if key[0] != url}
        self._away = {key: stall_s for key, stall_s in self._away.items() if key[0] != url}
        session = self._sessions.pop(url, None)
        if session is not None:
            await session.close()

    async def close(self) -> None:
        for older in self._older.values():
            older.close()
        self._older.clear()
        if self._waiting is not None:
            self._waiting.shutdown(wait=False, cancel_futures=True)
        sessions = list(self._sessions.values())
        self._sessions.clear()
        self._sources.clear()
        await asyncio.gather(*(session.close() for session in sessions))
