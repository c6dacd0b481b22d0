"""Ends what streams: async iterators are closed where they can be, which stops the work behind them."""

from __future__ import annotations

__all__ = ["close_stream"]


async def close_stream(stream: object) -> None:
    """Close an async iterator, or a source, that may or may not have ``aclose``."""
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
