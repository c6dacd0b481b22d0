"""What every ``Source`` has to do about changes: told in order, none lost."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from ..core.catalog import CatalogQuery, Cursor
from ..core.events import Event
from ..core.source import Source
from ..errors import (
    ResyncError,
)
from .origin import Origin, next_batch, next_change
from .source_case import SourceCase

__all__ = ["EventContract"]


class EventContract(SourceCase):
    """``events``."""

    def _needs_events(self) -> None:
        if not self.tells_events:
            pytest.skip("this source leaves events to another one")

    def test_changes_are_told_as_they_happen(self, tmp_path: Path) -> None:
        self._needs_events()

        async def scenario(source: Source, origin: Origin) -> None:
            async with aclosing(source.events(None)) as events:  # type: ignore[type-var]
                start = await next_batch(events)
                assert start.events == ()
                await origin.put("fresh.b2nd", np.arange(4))
                told = await next_change(events)
                assert told.follows(start.cursor)
                assert [(event.change, event.path) for event in told.events] == [("put", "fresh.b2nd")]
                assert told.events[0].entry == await source.entry("fresh.b2nd")
                await origin.delete("fresh.b2nd")
                gone = await next_change(events)
                assert gone.follows(told.cursor)
                assert gone.events == (Event("delete", "fresh.b2nd"),)

        self.run(scenario, tmp_path)

    def test_changes_since_a_cursor_are_told_first(self, tmp_path: Path) -> None:
        self._needs_events()

        async def scenario(source: Source, origin: Origin) -> None:
            before = (await source.catalog(CatalogQuery())).cursor
            await origin.put("fresh.b2nd", np.arange(4))
            await origin.delete("bool.b2nd")
            async with aclosing(source.events(before)) as events:  # type: ignore[type-var]
                paths: list[str] = []
                cursor = before
                while len(paths) < 2:
                    told = await next_change(events)
                    assert told.follows(cursor)
                    cursor = told.cursor
                    paths += [event.path for event in told.events]
                assert sorted(paths) == ["bool.b2nd", "fresh.b2nd"]
                assert cursor == (await source.catalog(CatalogQuery())).cursor

        self.run(scenario, tmp_path)

    def test_heartbeats_tell_the_cursor(self, tmp_path: Path) -> None:
        self._needs_events()

        async def scenario(source: Source, origin: Origin) -> None:
            cursor = (await source.catalog(CatalogQuery())).cursor
            async with aclosing(source.events(cursor)) as events:  # type: ignore[type-var]
                for _ in range(3):
                    heartbeat = await next_batch(events)
                    assert (heartbeat.cursor, heartbeat.events) == (cursor, ())
                    assert heartbeat.follows(cursor)
                    assert not heartbeat.follows(Cursor(cursor.epoch, cursor.seq - 1))

        self.run(scenario, tmp_path)

    def test_events_since_another_epoch_need_a_resync(self, tmp_path: Path) -> None:
        self._needs_events()

        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(ResyncError):
                await next_change(source.events(Cursor("another", 1)))

        self.run(scenario, tmp_path)
