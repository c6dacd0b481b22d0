"""Reductions through a cache: asked for once, kept, shared, made here when the source is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caterva2_jupyter.core.blocks import BlockRecord
from caterva2_jupyter.core.reduce_request import ReduceRequest, Working
from caterva2_jupyter.core.source import ReducedStream, Source
from caterva2_jupyter.errors import IntegrityError, NotCachedError, SourceUnavailableError
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.subscriber import cached_reductions
from caterva2_jupyter.subscriber.sources import CachedSource
from caterva2_jupyter.testing import open_origin, read_array, reduce_array
from caterva2_jupyter.web.compute_pool import ComputePool

GRID = np.random.default_rng(1).normal(size=(240, 200)).astype("f4")


class Upstream:
    """A source that counts reductions, and is away or waits when it is told to."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.is_away = False
        self.gate: asyncio.Event | None = None
        self.cancelled = self.asked = 0
        self.wrong_digest = self.at_gate = False

    def __getattr__(self, name: str) -> Any:
        if self.is_away and name in ("entry", "read_blocks"):
            raise SourceUnavailableError("away")
        return getattr(self._source, name)

    async def reduce(self, request: ReduceRequest) -> ReducedStream:
        if self.is_away:
            raise SourceUnavailableError("away")
        self.asked += 1
        stream = await self._source.reduce(request)
        digest = "0" * 32 if self.wrong_digest else stream.digest
        return ReducedStream(stream.entry, self._waiting(stream.records), digest)

    async def _waiting(self, records: AsyncIterator[BlockRecord | Working]) -> AsyncIterator[BlockRecord | Working]:
        yield Working(1, 480)
        try:
            self.at_gate = True
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        async for record in records:
            yield record


def play(tmp_path: Path, scenario: Callable[[CachedSource, Upstream], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30), open_origin({}) as origin:
            await origin.put("grid.b2nd", GRID, chunks=(60, 50), blocks=(10, 10))
            await origin.put("constant.b2nd", np.full((50, 50), 3.0), chunks=(20, 20), blocks=(7, 7))
            upstream, compute = Upstream(origin.source), ComputePool()
            with ThreadPoolExecutor(4) as executor, BlockCache(tmp_path / "cache", 1 << 30) as cache:
                cached = CachedSource(upstream, cache, executor, origin.store.resolve, compute=compute)
                try:
                    await scenario(cached, upstream)
                finally:
                    await cached.aclose()
                    await compute.stop()

    asyncio.run(run())


def test_a_reduction_is_asked_for_once_and_survives_an_outage(tmp_path: Path) -> None:
    async def first(cached: CachedSource, upstream: Upstream) -> None:
        for _ in range(3):
            np.testing.assert_allclose(await reduce_array(cached, "grid", "mean", axis=(0,)), GRID.mean(0), rtol=1e-4)
        assert upstream.asked == 1

    async def second(cached: CachedSource, upstream: Upstream) -> None:
        entry = await cached.entry("grid")
        upstream.is_away = True
        stream = await cached.reduce(ReduceRequest("foo", "grid", "mean", entry.version, axis=(0,)))
        assert len([record async for record in stream.records]) == 1

    play(tmp_path, first)
    play(tmp_path, second)


def test_a_reduction_is_made_of_held_blocks_while_the_source_is_away(tmp_path: Path) -> None:
    async def scenario(cached: CachedSource, upstream: Upstream) -> None:
        entry = await cached.entry("grid")
        await read_array(cached, "grid")
        await read_array(cached, "constant")
        cached.entry = _known(cached)  # type: ignore[method-assign]
        upstream.is_away = True
        assert entry.version
        np.testing.assert_allclose(await reduce_array(cached, "grid", "std", axis=(1,)), GRID.std(1), rtol=1e-4)
        part = [[5, 100, 3], {"at": [0, 99, 150]}]
        got = await reduce_array(cached, "grid", "max", selection=part)
        assert got == GRID[5:100:3, [0, 99, 150]].max()
        got = await reduce_array(cached, "grid", "stride", steps=(7, 40))
        np.testing.assert_array_equal(got, GRID[::7, ::40])
        assert await reduce_array(cached, "constant", "sum") == 7500

    play(tmp_path, scenario)


def _known(cached: CachedSource) -> Callable[[str], Awaitable[Any]]:
    async def entry(path: str) -> Any:
        assert cached._lookup is not None
        return cached._lookup(path)

    return entry


def test_what_is_neither_held_nor_reachable_is_said_with_the_cure(tmp_path: Path) -> None:
    async def scenario(cached: CachedSource, upstream: Upstream) -> None:
        cached.entry = _known(cached)  # type: ignore[method-assign]
        upstream.is_away = True
        with pytest.raises(NotCachedError, match=r"grid\.b2nd cannot be reduced.*480 of its blocks.*prefetch"):
            await reduce_array(cached, "grid", "sum")

    play(tmp_path, scenario)


def test_those_who_wait_share_a_reduction_and_hear_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_reductions, "WORKING_S", 0.01)

    async def scenario(cached: CachedSource, upstream: Upstream) -> None:
        upstream.gate = asyncio.Event()
        entry = await cached.entry("grid")
        request = ReduceRequest("foo", "grid", "sum", entry.version)
        streams = [await cached.reduce(request) for _ in range(50)]
        heard = Working(0, 0)
        while heard != Working(1, 480):
            item = await anext(streams[0].records)
            assert isinstance(item, Working)
            heard = item
        upstream.gate.set()
        for stream in streams:
            assert [item async for item in stream.records if not isinstance(item, Working)]
            await stream.records.aclose()  # type: ignore[attr-defined]
        assert upstream.asked == 1

    play(tmp_path, scenario)


def test_a_reduction_that_nobody_waits_for_is_stopped(tmp_path: Path) -> None:
    async def scenario(cached: CachedSource, upstream: Upstream) -> None:
        upstream.gate = asyncio.Event()
        entry = await cached.entry("grid")
        stream = await cached.reduce(ReduceRequest("foo", "grid", "sum", entry.version))
        while not upstream.at_gate:
            await asyncio.sleep(0.001)
        await stream.records.aclose()  # type: ignore[attr-defined]
        while not upstream.cancelled:
            await asyncio.sleep(0.001)

    play(tmp_path, scenario)


def test_the_result_of_another_reduction_is_refused(tmp_path: Path) -> None:
    async def scenario(cached: CachedSource, upstream: Upstream) -> None:
        upstream.wrong_digest = True
        with pytest.raises(IntegrityError, match="another reduction"):
            await reduce_array(cached, "grid", "sum")

    play(tmp_path, scenario)
