"""Small reads that go upstream together: fewer requests, the same answers, errors of each its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caterva2_jupyter.core.many_reads import ManyParser
from caterva2_jupyter.core.selection import AxisRange, Selection
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import Caterva2Error, DatasetChangedError, DatasetNotFoundError, IntegrityError
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.subscriber import joined_reads
from caterva2_jupyter.subscriber.remote_source import RemoteSource
from caterva2_jupyter.subscriber.sources import CachedSource
from caterva2_jupyter.testing import Origin, open_origin, read_array
from caterva2_jupyter.web.outgoing_session import open_session
from tests.subscriber.serving import serve

DEADLINE_S = 30
GRID = np.random.default_rng(1).integers(0, 2**62, (240, 200))


class Net:
    """A publisher, a remote source, and what it was asked."""

    def __init__(self, origin: Origin, remote: RemoteSource, version: str) -> None:
        self.origin, self.remote, self.version = origin, remote, version
        self.asked: list[tuple[str, int]] = []
        self.refuses = False
        ask = remote._link.ask

        async def noted(method: str, path: str, **how: Any) -> Any:
            reads = json.loads(how["body"]).get("reads", [0]) if how.get("body") else []
            self.asked.append((path, len(reads)))
            return await ask(method, "no-such-route" if self.refuses and path == "read-many" else path, **how)

        remote._link.ask = noted  # type: ignore[method-assign]

    def request(self, row: int, **how: Any) -> ReadRequest:
        form: dict[str, Any] = {"path": "grid.b2nd", "version": self.version} | how
        return ReadRequest("foo", selection=[[row, row + 1, 1], [0, 200, 1]], mode="slice", **form)

    async def small(self, row: int, **how: Any) -> tuple[str, int]:
        stream = await self.remote.read_small(self.request(row, **how))
        return stream.digest, sum([len(record.body) async for record in stream.records])


def play(scenario: Callable[[Net], Awaitable[None]], **service: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
            origin = await stack.enter_async_context(open_origin({}))
            await origin.put("grid.b2nd", GRID, chunks=(60, 50), blocks=(10, 10))
            url = await stack.enter_async_context(serve(origin.source))
            session = await stack.enter_async_context(open_session(url))
            version = (await origin.source.entry("grid.b2nd")).version
            await scenario(Net(origin, RemoteSource("foo", url, session), version))

    asyncio.run(run())


def test_reads_at_the_same_time_are_two_requests_and_one_alone_is_as_ever() -> None:
    async def scenario(net: Net) -> None:
        alone = [await net.small(row) for row in range(3)]
        assert net.asked == [("read", 1)] * 3
        net.asked.clear()
        together = await asyncio.gather(*(net.small(row) for row in range(20)))
        assert net.asked == [("read", 1), ("read-many", 19)]
        assert together[:3] == alone
        assert len({digest for digest, _ in together}) == 20

    play(scenario)


def test_more_than_go_together_are_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_reads, "MAX_JOINED", 10)

    async def scenario(net: Net) -> None:
        await asyncio.gather(*(net.small(row) for row in range(31)))
        assert net.asked.count(("read-many", 10)) == 3

    play(scenario)


def test_each_is_told_its_own_error() -> None:
    async def scenario(net: Net) -> None:
        ways: list[dict[str, Any]] = [{} for _ in range(12)]
        ways[4], ways[7] = {"path": "none.b2nd"}, {"version": "0" * 32}
        got = await asyncio.gather(*(net.small(row, **how) for row, how in enumerate(ways)), return_exceptions=True)
        assert isinstance(got[4], DatasetNotFoundError)
        assert isinstance(got[7], DatasetChangedError)
        assert sum(isinstance(answer, Caterva2Error) for answer in got) == 2

    play(scenario)


def test_a_service_without_such_requests_is_asked_for_each_and_not_tried_again() -> None:
    async def scenario(net: Net) -> None:
        net.refuses = True
        for _ in range(2):
            await asyncio.gather(*(net.small(row) for row in range(8)))
        assert net.asked.count(("read-many", 7)) == 1
        assert net.asked.count(("read", 1)) == 16

    play(scenario)


def test_who_gives_up_does_not_disturb_the_others_and_all_who_do_stop_the_request() -> None:
    async def scenario(net: Net) -> None:
        with net.remote._joined.under_way():
            readers = [asyncio.create_task(net.small(row)) for row in range(6)]
            await asyncio.sleep(0)
            readers[2].cancel()
            got = await asyncio.gather(*readers, return_exceptions=True)
            assert [isinstance(answer, asyncio.CancelledError) for answer in got] == [row == 2 for row in range(6)]
            assert net.asked == [("read-many", 5)]
            readers = [asyncio.create_task(net.small(row)) for row in range(6)]
            while len(net.asked) < 2:
                await asyncio.sleep(0)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            while net.remote._joined._tasks:
                await asyncio.sleep(0)

    play(scenario)


def test_a_connection_that_breaks_in_an_answer_costs_nobody_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(net: Net) -> None:
        def damaged(self: ManyParser, data: bytes) -> Any:
            raise IntegrityError("damaged")

        monkeypatch.setattr(ManyParser, "feed", damaged)
        got = await asyncio.gather(*(net.small(row) for row in range(5)))
        assert len({digest for digest, _ in got}) == 5

    play(scenario)


def test_one_that_is_slow_does_not_hold_up_those_behind_it() -> None:
    async def scenario(net: Net) -> None:
        net.remote._joined._patience_s = 0.05
        never, ask = asyncio.Event(), net.remote._link.ask

        async def stalled(method: str, path: str, **how: Any) -> Any:
            if path == "read-many":
                await never.wait()
            return await ask(method, path, **how)

        net.remote._link.ask = stalled  # type: ignore[method-assign]
        got = await asyncio.gather(*(net.small(row) for row in range(6)))
        assert len({digest for digest, _ in got}) == 6
        while net.remote._joined._tasks:
            await asyncio.sleep(0)

    play(scenario)


def test_a_cache_reads_right_values_through_them(tmp_path: Path) -> None:
    async def scenario(net: Net) -> None:
        with ThreadPoolExecutor(4) as executor, BlockCache(tmp_path / "cache", 1 << 30) as cache:
            cached = CachedSource(net.remote, cache, executor, net.origin.store.resolve)

            async def read(row: int, mode: Any) -> None:
                box = Selection((AxisRange(row, row + 1), AxisRange(row, row + 3)))
                assert np.array_equal(await read_array(cached, "grid.b2nd", box, mode), GRID[box_of(row)])

            await asyncio.gather(*(read(row, mode) for row in range(0, 190, 5) for mode in ("slice", "blocks")))
            await cached.aclose()
        assert any(path == "read-many" for path, _ in net.asked)

    play(scenario)


def box_of(row: int) -> tuple[slice, slice]:
    return slice(row, row + 1), slice(row, row + 3)
