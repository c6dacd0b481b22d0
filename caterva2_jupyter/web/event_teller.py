"""What listeners of a root are told, as JSON messages, however these travel: as a WebSocket's texts, or as lines.

``EventBatch.to_json()``, heartbeats among them; ``{"type": "resync", "root": R}``: list again, what follows is from now
on; and where roots can be away ``{"type": "status", "root": R, "online": bool}``. Who names no root is told which
roots there are: ``{"type": "roots", "roots": [...]}``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from ..core.catalog import Cursor
from ..core.events import EventBatch
from ..core.source import Source
from ..errors import ResyncError
from ..storage.closing import close_stream

__all__ = ["tell_events", "tell_roots", "tell_status"]

ROOTS_EVERY_S = 20.0
"""Roots are told at least so often: a listener knows then that it is still heard, and proxies keep the connection."""

Tell = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Sends a message, and waits until it is taken: a slow listener falls behind in the hub, not in memory here."""


async def tell_events(source: Source, since: Cursor | None, tell: Tell) -> None:
    """Tell what happens in a root from a cursor on (None: from now on); ends when the source ends or ``tell`` fails.

    Raises
    ------
    Caterva2Error
        What the source raises, but `ResyncError`.
    """
    told = since

    async def tell_batch(batch: EventBatch) -> None:
        nonlocal told
        told = batch.cursor
        await tell(batch.to_json())

    while True:
        batches = source.events(since)
        try:
            if since is None and told is not None:
                # Listening begins before the client is told to list, so that nothing falls between.
                first = asyncio.ensure_future(anext(batches))
                try:
                    await asyncio.sleep(0)
                    await tell({"type": "resync", "root": source.root})
                    await tell_batch(await first)
                finally:
                    # A client that left meanwhile: what is awaited cannot be closed.
                    first.cancel()
                    await asyncio.wait([first])
            async for batch in batches:
                await tell_batch(batch)
            return
        except ResyncError:
            since = None
        finally:
            await close_stream(batches)


async def tell_status(root: str, status: AsyncIterator[bool], tell: Tell) -> None:
    """Tell whether a root is online: now, and at each change."""
    try:
        async for online in status:
            await tell({"type": "status", "root": root, "online": online})
    finally:
        await close_stream(status)


async def tell_roots(
    changes: AsyncIterator[None], roots: Callable[[], Awaitable[list[dict[str, Any]]]], tell: Tell
) -> None:
    """Tell which roots there are: now, at each change of more than their cursors, and from time to time.

    Parameters
    ----------
    changes : async iterator
        Gives something when it may be time to look: at once, at changes, and every few seconds.
    roots : callable
        Looks.
    tell : callable
    """
    told: list[dict[str, Any]] | None = None
    told_s = 0.0
    loop = asyncio.get_running_loop()
    try:
        async for _ in changes:
            listed = await roots()
            standing = [{k: v for k, v in form.items() if k not in ("epoch", "seq")} for form in listed]
            if standing != told or loop.time() - told_s > ROOTS_EVERY_S:
                told, told_s = standing, loop.time()
                await tell({"type": "roots", "roots": listed})
    finally:
        await close_stream(changes)
