"""The running state of a subscriber: what it counts, and that it stays small."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import SourceUnavailableError
from caterva2_jupyter.subscriber.cache_keeper import CacheKeeper
from tests.subscriber.running import Running, eventually, running

NOISE = np.random.default_rng(3).integers(0, 255, 1_000_000, dtype="u1")


async def _read(run: Running, path: str) -> None:
    stream = await run.subscriber.source("foo").read_blocks(ReadRequest("foo", path, None, None))
    async for _ in stream.records:
        pass


def test_it_counts_what_was_held_and_what_was_fetched_and_what_is_kept_of_each_root(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, "foo", "bar") as run:
            files = run.publishers["foo"].files
            files.set("noise.b2nd", NOISE, chunks=(100_000,), blocks=(10_000,))
            files.set("more.b2nd", NOISE, chunks=(100_000,), blocks=(10_000,))
            await run.start()
            await run.subscriber.follow("foo")
            keeper = CacheKeeper(run.subscriber, run.executor, run.counts)
            with pytest.raises(SourceUnavailableError, match="starting"):
                await keeper.summary.status()
            keeper.open(run.cache)

            before = await keeper.summary.status()
            await _read(run, "noise")
            fetched = await keeper.summary.status()
            await _read(run, "noise")
            await _read(run, "noise")
            held = await keeper.summary.status()

            (bar, foo) = before["roots"]
            assert (bar["root"], bar["followed"], bar["kept_nbytes"], bar["total_nbytes"]) == ("bar", False, 0, 0)
            assert foo["kept_nbytes"] == 0
            assert foo["total_nbytes"] >= 2_000_000
            assert fetched["reads"]["fetched_blocks"] == 100
            assert fetched["reads"]["fetched_nbytes"] >= 1_000_000
            assert fetched["reads"]["held_blocks"] == 0
            assert held["reads"]["held_blocks"] == 200
            assert held["reads"]["held_nbytes"] == 2 * fetched["reads"]["fetched_nbytes"]
            assert held["reads"]["fetched_blocks"] == 100
            kept = fetched["roots"][1]
            assert kept["kept_nbytes"] == kept["total_nbytes"] // 2
            assert held["usage_nbytes"] == run.cache.usage_nbytes

            run.publishers["foo"].is_away = True
            run.link.tell_roots(foo=False)
            await eventually(lambda: not run.subscriber.followed_root("foo").freshness.live)  # type: ignore[union-attr]
            away = await keeper.summary.status()
            assert [root["online"] for root in away["roots"] if root["root"] == "foo"] == [False]

    asyncio.run(test())
