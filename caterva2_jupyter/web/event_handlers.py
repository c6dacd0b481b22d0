"""What changes, told as it happens: by WebSocket, or as lines of an answer without end.

See ``source_handlers`` for how these are mounted.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..core.catalog import Cursor
from ..core.paths import parse_root_name
from ..errors import (
    AuthenticationError,
    Caterva2Error,
)
from .event_teller import tell_events, tell_roots, tell_status
from .service import ServiceHandler
from .source_handlers import (
    PIECE_NBYTES,
    ChangingDirectory,
    SourceAnswers,
    SourceDirectory,
    StatusDirectory,
    VisitedDirectory,
)

__all__ = ["EventLinesAnswers", "EventsAnswers"]

log = logging.getLogger("caterva2_jupyter.web")


class _ListenedAnswers(SourceAnswers):
    """Base of what is told as it happens; its cap is that of listeners."""

    tells_roots: ClassVar[bool] = False
    """Is there something to tell to who names no root: which there are?"""
    _root = ""

    def parse_listening(self) -> None:
        """Which root, from where on."""
        texts = self.query_texts()
        if self.tells_roots and "root" not in texts and isinstance(self.sources, ChangingDirectory):
            return
        self._root = parse_root_name(texts.get("root", ""))
        self._source = self.source_of(self._root)
        self._since = Cursor.parse(texts["since"]) if texts.get("since") else None

    async def tell(self, message: Mapping[str, Any]) -> None:
        seen = self.seen_now()
        if self._root and seen is not self.sources:
            seen.source(self._root)
        await self.send(message)

    async def send(self, message: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def seen_now(self) -> SourceDirectory:
        """The roots as who listens sees them by now: logins end, and users go, while they listen.

        Raises
        ------
        AuthenticationError, AccessDeniedError
        """
        # Jupyter lets in once; what somebody may see can change all the same.
        user = self.user_now() if isinstance(self, ServiceHandler) else self.current_user
        if user is None:
            raise AuthenticationError("the login has ended")
        return self._directory.seen_by(user) if isinstance(self._directory, VisitedDirectory) else self.sources

    async def tell_all(self) -> None:
        """Tell events, and whether the root is online, until there is nobody to tell."""
        sources = self.sources
        try:
            async with asyncio.TaskGroup() as tasks:
                if not self._root and isinstance(sources, ChangingDirectory):
                    tasks.create_task(tell_roots(sources.changes(), self._roots_now, self.tell))
                    return
                if isinstance(sources, StatusDirectory):
                    tasks.create_task(tell_status(self._root, sources.status(self._root), self.tell))
                tasks.create_task(self._tell_events())
        except* (WebSocketClosedError, StreamClosedError, _NothingMore):
            pass
        except* Caterva2Error as errors:
            log.debug("events of %s end: %s", self._root, errors.exceptions[0])
        except* Exception:
            log.exception("events of %s fail", self._root)

    async def _roots_now(self) -> list[dict[str, Any]]:
        return await self.seen_now().roots()

    async def _tell_events(self) -> None:
        await tell_events(self._source, self._since, self.tell)
        raise _NothingMore


class _NothingMore(Exception):
    """A source has ended its events."""


class EventsAnswers(_ListenedAnswers, WebSocketHandler):
    """``WS events?root=R&since=EPOCH:SEQ``: messages of ``event_teller`` as texts. What clients send is ignored.

    Without ``root``, where roots come and go: which there are.
    """

    is_socket = True
    tells_roots = True
    _telling: asyncio.Task[None] | None = None

    async def answer_get(self) -> None:
        self.parse_listening()
        # The connection's whole life is in here.
        with self.limits.events.hold(self.client_key()):
            try:
                await WebSocketHandler.get(self)
            finally:
                self._stop()

    async def open(self, *args: str, **kwargs: str) -> None:
        opened = super().open(*args, **kwargs)
        if opened is not None:
            await opened
        self._telling = asyncio.create_task(self._tell_until_closed())

    def on_message(self, message: str | bytes) -> None:
        pass

    def on_close(self) -> None:
        self._stop()
        super().on_close()

    def _stop(self) -> None:
        if self._telling is not None:
            self._telling.cancel()

    async def _tell_until_closed(self) -> None:
        await self.tell_all()
        self.close(1011)

    async def send(self, message: Mapping[str, Any]) -> None:
        await self.write_message(json.dumps(message, separators=(",", ":")))


class EventLinesAnswers(_ListenedAnswers):
    """``GET event-lines?root=R&since=EPOCH:SEQ``: the same as lines of an answer without end."""

    async def answer_get(self) -> None:
        self.parse_listening()
        with self.limits.events.hold(self.client_key()):
            self.set_header("Content-Type", "application/x-ndjson")
            self.set_header("Cache-Control", "no-store")
            self.set_header("X-Accel-Buffering", "no")  # proxies hand on what there is
            self._line = asyncio.Lock()
            await self.while_connected(self.tell_all())

    async def send(self, message: Mapping[str, Any]) -> None:
        async with self._line:
            self.write(json.dumps(message, separators=(",", ":")) + "\n")
            await self.until_taken(self.flush(), PIECE_NBYTES)
