"""How contracts of sources run: a source is made over an origin, and a scenario played against it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import numpy.typing as npt

from ..core.source import Source
from .arrays import source_content
from .origin import Origin, open_origin

__all__ = ["Scenario", "SourceCase"]

Scenario = Callable[[Source, Origin], Awaitable[None]]


class SourceCase(ABC):
    """A source under test.

    Attributes
    ----------
    tells_events : bool
        False: the source under test leaves ``events`` to another one.
    """

    tells_events = True

    @abstractmethod
    def wrap(self, origin: Origin, tmp_path: Path) -> AbstractAsyncContextManager[Source]:
        """The source under test, which gets its data from ``origin.source``."""

    def run(
        self, scenario: Scenario, tmp_path: Path, arrays: Mapping[str, npt.ArrayLike | bytes] | None = None
    ) -> None:
        """Run a scenario against the source under test."""

        async def play() -> None:
            content = source_content() if arrays is None else arrays
            async with (
                asyncio.timeout(60),
                open_origin(content, heartbeat_s=0.2) as origin,
                self.wrap(origin, tmp_path) as source,
            ):
                await scenario(source, origin)

        asyncio.run(play())
