"""Blocks of older versions that stay: what is asked, what moves, and that no answer mixes versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caterva2_jupyter.core.revalidation import SameRecord
from caterva2_jupyter.core.selection import AxisRange, Selection
from caterva2_jupyter.core.source import ComparedStream, Source
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import (
    DatasetChangedError,
    NotCachedError,
    RequestError,
    SourceUnavailableError,
)
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.subscriber import adoption
from caterva2_jupyter.subscriber.link import open_session
from caterva2_jupyter.subscriber.sources import CachedSource, RemoteSource
from caterva2_jupyter.testing import Origin, open_origin, read_array

from .serving import CountingSource, serve

QUOTA = 1 << 30
DEADLINE_S = 30
GRID = np.random.default_rng(1).integers(0, 2**62, (240, 200))
"""4 x 4 chunks of 6 x 5 blocks of 10 x 10 items, which do not compress."""
HOW: dict[str, Any] = {"chunks": (60, 50), "blocks": (10, 10)}


class Upstream(CountingSource):
    """Counts comparisons too, and may change what they say."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.compared: list[ReadRequest] = []
        self.told: list[SameRecord] = []
        self.lie: Callable[[SameRecord], SameRecord] = lambda same: same
        self.compare_error: Exception | None = None
        self.before: Callable[[], Awaitable[None]] | None = None

    async def compare_blocks(self, request: ReadRequest) -> ComparedStream:
        self.compared.append(request)
        if self.before is not None:
            await self.before()
        error = self.compare_error or self.error
        if error is not None:
            raise error
        stream = await self._source.compare_blocks(request)

        async def records() -> AsyncIterator[SameRecord]:
            async for same in stream.records:
                self.told.append(same)
                yield self.lie(same)

        return ComparedStream(stream.entry, records())


@dataclass
class Network:
    origin: Origin
    upstream: Upstream
    cached: CachedSource
    cache: BlockCache

    async def read(self, *key: slice, path: str = "grid.b2nd") -> Any:
        axes = tuple(AxisRange(k.start, k.stop, k.step or 1) for k in key)
        return await read_array(self.cached, path, Selection(axes) if axes else None)

    async def change(self, array: np.ndarray, **how: Any) -> None:
        await self.origin.put("grid.b2nd", array, **(how or HOW))
        self.upstream.reads.clear()
        self.upstream.sent.clear()
        self.upstream.compared.clear()
        self.upstream.told.clear()


@asynccontextmanager
async def over_http(origin: Origin) -> AsyncIterator[Source]:
    async with serve(origin.source) as url, open_session(url) as session:
        yield RemoteSource("foo", url, session)


@asynccontextmanager
async def directly(origin: Origin) -> AsyncIterator[Source]:
    yield origin.source


def play(
    tmp_path: Path, scenario: Callable[[Network], Awaitable[None]], quota_nbytes: int = QUOTA, link: Any = directly
) -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S), open_origin({}) as origin, link(origin) as source:
            await origin.put("grid.b2nd", GRID, **HOW)
            upstream = Upstream(source)
            with ThreadPoolExecutor(4) as executor, BlockCache(tmp_path / "cache", quota_nbytes) as cache:
                cached = CachedSource(upstream, cache, executor, origin.store.resolve)  # type: ignore[arg-type]
                await scenario(Network(origin, upstream, cached, cache))
                await cached.aclose()

    asyncio.run(run())


def changed(*places: tuple[int, int]) -> np.ndarray:
    array = GRID.copy()
    for place in places:
        array[place] += 1
    return array


@pytest.mark.parametrize("link", [directly, over_http])
def test_only_changed_blocks_move(tmp_path: Path, link: Any) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        newer = changed((0, 0), (0, 1), (239, 199))
        await net.change(newer)
        assert np.array_equal(await net.read(), newer)
        assert sorted(net.upstream.sent) == [(0, 0), (15, 29)]
        assert sorted(same.nchunk for same in net.upstream.told if not same.proof) == [0, 15]
        assert np.array_equal(await net.read(), newer)
        assert len(net.upstream.sent) == 2

    play(tmp_path, scenario, link=link)
