"""Exact slices through a cache: asked for where they are smaller, kept, given up for blocks where reads come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caterva2_jupyter.core.answer_choice import Mode
from caterva2_jupyter.core.blocks import BlockRecord
from caterva2_jupyter.core.exact_slice import PieceAssembler
from caterva2_jupyter.core.selection import AxisItems, AxisRange, AxisSelection, Selection
from caterva2_jupyter.core.source import BlockStream, Source
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import DatasetChangedError, IntegrityError, NotCachedError, SourceUnavailableError
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.subscriber import fills
from caterva2_jupyter.subscriber.exact_answers import listed
from caterva2_jupyter.subscriber.sources import CachedSource
from caterva2_jupyter.testing import Origin, open_origin, read_array

DEADLINE_S = 30
GRID = np.random.default_rng(1).integers(0, 2**62, (240, 200))
"""4 x 4 chunks of 6 x 5 blocks of 10 x 10 items, which do not compress: 800 bytes a block."""
REQUEST_NBYTES = 600


class Upstream:
    """A source that counts what it is asked and what it sends, and fails or lies when it is told to."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.is_away = False
        self.change: Callable[[BlockStream], Awaitable[BlockStream]] | None = None
        self.gate: asyncio.Event | None = None
        self.block_gate: asyncio.Event | None = None
        self.answers: list[str] = []
        self.nbytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def entry(self, path: str) -> Any:
        if self.is_away:
            raise SourceUnavailableError("away")
        return await self._source.entry(path)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        if self.is_away:
            raise SourceUnavailableError("away")
        stream = await self._source.read_blocks(request)
        self.answers.append(stream.answer)
        self.nbytes += REQUEST_NBYTES
        if self.block_gate is not None and stream.answer == "blocks":
            await self.block_gate.wait()
        if self.gate is not None:
            await self.gate.wait()
        if self.change is not None:
            stream = await self.change(stream)
        return replace(stream, records=self._counted(stream.records))

    async def _counted(self, records: AsyncIterator[BlockRecord]) -> AsyncIterator[BlockRecord]:
        async for record in records:
            self.nbytes += len(record.body) + len(record.head) + 40 + 12 * len(record.ids)
            yield record


class Network:
    def __init__(self, origin: Origin, upstream: Upstream, cached: CachedSource) -> None:
        self.origin, self.upstream, self.cached = origin, upstream, cached

    async def read(self, *axes: AxisSelection, mode: Mode = "auto", path: str = "grid.b2nd") -> Any:
        return await read_array(self.cached, path, Selection(axes), mode)

    async def filled(self) -> None:
        """Wait until what is fetched behind slices is there."""
        await self.cached.fills.settle()

    async def column(self, x: int, mode: Mode = "auto") -> None:
        """Read a column, and see that it is right."""
        assert np.array_equal(await self.read(AxisRange(0, 240), AxisRange(x, x + 1), mode=mode), GRID[:, x : x + 1])


def play(tmp_path: Path, scenario: Callable[[Network], Awaitable[None]]) -> None:
    """Run a scenario; a second call finds the cache of the first."""

    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S), open_origin({}) as origin:
            await origin.put("grid.b2nd", GRID, chunks=(60, 50), blocks=(10, 10))
            upstream = Upstream(origin.source)
            with ThreadPoolExecutor(4) as executor, BlockCache(tmp_path / "cache", 1 << 30) as cache:
                cached = CachedSource(upstream, cache, executor, origin.store.resolve)
                await scenario(Network(origin, upstream, cached))
                await cached.aclose()

    asyncio.run(run())


def test_a_point_series_is_one_small_answer_and_kept(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        await network.column(7)
        assert network.upstream.answers == ["slice"]
        assert network.upstream.nbytes < GRID[:, 7].nbytes + 1000
        await network.column(7)
        await network.column(7, mode="slice")
        assert network.upstream.answers == ["slice"]

    play(tmp_path, scenario)


def test_what_was_seen_survives_a_restart_and_an_outage(tmp_path: Path) -> None:
    async def first(network: Network) -> None:
        await network.column(7)

    async def second(network: Network) -> None:
        network.upstream.is_away = True
        await network.column(7)
        for mode in ("auto", "slice"):
            with pytest.raises(NotCachedError, match="24 of the blocks asked for of foo/grid"):
                await network.column(8, mode=mode)

    play(tmp_path, first)
    play(tmp_path, second)


def test_reads_that_come_back_to_a_place_fetch_its_blocks(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        reads = 0
        while "blocks" not in network.upstream.answers:
            await network.column(reads)
            await network.filled()
            reads += 1
        assert 3 <= reads <= 10
        asked = len(network.upstream.answers)
        for x in range(10):
            await network.column(x)
        assert len(network.upstream.answers) == asked
        await network.column(150)
        assert network.upstream.answers[-1] == "slice"

    play(tmp_path, scenario)


def test_regret_is_at_most_twofold(tmp_path: Path) -> None:
    """Against always slices and always blocks: a point again and again, a sweep, points anywhere."""
    rng = np.random.default_rng(2)
    points = [(AxisRange(y, y + 1), AxisRange(x, x + 1)) for y, x in rng.integers(0, 200, (300, 2)).tolist()]
    sweep = [(AxisRange(0, 240), AxisRange(x, x + 1)) for x in range(100)]
    one = [(AxisRange(0, 240), AxisRange(7, 8))] * 20

    def spent(name: str, reads: list[tuple[AxisRange, AxisRange]], mode: Mode) -> int:
        nbytes: list[int] = []

        async def scenario(network: Network) -> None:
            for axes in reads:
                await network.read(*axes, mode=mode)
            await network.filled()
            nbytes.append(network.upstream.nbytes)

        play(tmp_path / name / mode, scenario)
        return nbytes[0]

    for name, reads in {"points": points, "sweep": sweep, "one": one}.items():
        least = min(spent(name, reads, "slice"), spent(name, reads, "blocks"))
        assert spent(name, reads, "auto") <= 2.1 * least, name


def test_whoever_decides_is_obeyed(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        for x in range(30):
            await network.column(x % 10, mode="slice")
        assert set(network.upstream.answers) == {"slice"}
        await network.column(20, mode="blocks")
        assert network.upstream.answers[-1] == "blocks"
        # What is held answers every mode, and asks for nothing.
        asked = len(network.upstream.answers)
        for mode in ("auto", "slice"):
            await network.column(21, mode=mode)
        assert len(network.upstream.answers) == asked

    play(tmp_path, scenario)


def test_lists_of_positions_have_slices_of_their_own(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        rows = np.arange(0, 240, 7)
        for items in ([3, 77, 190], [3, 78, 190]):
            got = await network.read(AxisItems(rows), AxisItems(np.array(items)))
            assert np.array_equal(got, GRID[np.ix_(rows, items)])
        assert network.upstream.answers == ["slice", "slice"]

    play(tmp_path, scenario)


def test_a_thousand_readers_of_a_slice_cause_one_request(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        await asyncio.gather(*(network.column(7) for _ in range(1000)))
        assert network.upstream.answers == ["slice"]

    play(tmp_path, scenario)


def test_a_slice_damaged_on_disk_is_asked_for_again(tmp_path: Path) -> None:
    async def read(network: Network) -> None:
        await network.column(7)
        assert network.upstream.answers == ["slice"]

    play(tmp_path, read)
    for data in (tmp_path / "cache").rglob("data"):
        damaged = bytearray(data.read_bytes())
        damaged[len(damaged) // 2] ^= 4
        data.write_bytes(damaged)
    play(tmp_path, read)


def test_a_new_version_has_slices_of_its_own(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        before = await network.cached.entry("grid.b2nd")
        await network.column(7)
        await network.origin.put("grid.b2nd", GRID + 1, chunks=(60, 50), blocks=(10, 10))
        got = await network.read(AxisRange(0, 240), AxisRange(7, 8))
        assert np.array_equal(got, GRID[:, 7:8] + 1)
        # Who is pinned to the old version reads what was seen of it, and no more.
        pinned = ReadRequest("foo", "grid.b2nd", before.version, [[0, 240, 1], [7, 8, 1]], mode="auto")
        stream = await network.cached.read_blocks(pinned)
        box = PieceAssembler(before.geometry, Selection((AxisRange(0, 240), AxisRange(7, 8))))
        for piece in await _records(stream):
            box.add(piece)
        assert np.array_equal(box.out, GRID[:, 7:8])
        with pytest.raises(DatasetChangedError):
            await network.cached.read_blocks(replace(pinned, selection=[[0, 240, 1], [8, 9, 1]]))

    play(tmp_path, scenario)


def test_a_source_that_has_blocks_for_an_answer_is_asked_for_them(tmp_path: Path) -> None:
    """A subscriber that holds them all, or one that makes no slices."""

    async def scenario(network: Network) -> None:
        async def blocks(stream: BlockStream) -> BlockStream:
            return await network.origin.source.read_blocks(ReadRequest("foo", "grid.b2nd", stream.entry.version))

        network.upstream.change = blocks
        await network.column(7)

    play(tmp_path, scenario)


async def _records(stream: BlockStream) -> list[BlockRecord]:
    return [record async for record in stream.records]


async def _none(network: Network, stream: BlockStream) -> BlockStream:
    return replace(stream, records=listed([]))


async def _twice(network: Network, stream: BlockStream) -> BlockStream:
    return replace(stream, records=listed(await _records(stream) * 2))


async def _other_selection(network: Network, stream: BlockStream) -> BlockStream:
    request = ReadRequest("foo", "grid.b2nd", None, [[0, 240, 1], [9, 10, 1]], mode="slice")
    return await network.origin.source.read_blocks(request)


async def _relabelled(network: Network, stream: BlockStream) -> BlockStream:
    return replace(await _other_selection(network, stream), digest=stream.digest)


async def _damaged(network: Network, stream: BlockStream) -> BlockStream:
    (record,) = await _records(stream)
    body = bytearray(record.body)
    body[-1] ^= 1
    return replace(stream, records=listed([replace(record, body=bytes(body))]))


async def _other_dataset(network: Network, stream: BlockStream) -> BlockStream:
    return replace(stream, entry=replace(stream.entry, id="other"))


@pytest.mark.parametrize("lie", [_none, _twice, _other_selection, _relabelled, _damaged, _other_dataset])
def test_a_slice_that_is_not_what_was_asked_for_is_refused_and_not_kept(
    tmp_path: Path, lie: Callable[[Network, BlockStream], Awaitable[BlockStream]]
) -> None:
    async def scenario(network: Network) -> None:
        network.upstream.change = lambda stream: lie(network, stream)
        with pytest.raises(IntegrityError):
            await network.column(7)
        network.upstream.change = None
        await network.column(7)

    play(tmp_path, scenario)


def test_all_who_wait_for_a_failed_slice_are_told_and_the_next_one_tries_again(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        network.upstream.is_away = True
        told = await asyncio.gather(*(network.column(7) for _ in range(10)), return_exceptions=True)
        assert all(isinstance(error, NotCachedError) for error in told)
        network.upstream.is_away = False
        await network.column(7)

    play(tmp_path, scenario)


def test_a_reader_that_gives_up_does_not_disturb_the_others(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        network.upstream.gate = asyncio.Event()
        readers = [asyncio.create_task(network.column(7)) for _ in range(3)]
        while not network.upstream.answers:
            await asyncio.sleep(0)
        readers[0].cancel()
        await asyncio.sleep(0)
        network.upstream.gate.set()
        await asyncio.gather(*readers[1:])
        assert network.upstream.answers == ["slice"]
        assert readers[0].cancelled()

    play(tmp_path, scenario)


# Blocks that are fetched behind slices


async def grid_points(network: Network, y: int, x: int, mode: Mode = "auto") -> None:
    """Read one item of every block: 4 kB of 384 kB."""
    got = await network.read(AxisRange(y, 240, 10), AxisRange(x, 200, 10), mode=mode)
    assert np.array_equal(got, GRID[y::10, x::10])


async def rows(network: Network, start: int) -> None:
    """Read four rows in ten, two fifths of each of their blocks."""
    got = await network.read(AxisRange(start, start + 4), AxisRange(0, 200))
    assert np.array_equal(got, GRID[start : start + 4])


def test_slices_that_are_on_their_way_are_paid_for(tmp_path: Path) -> None:
    """Who asks at the same time goes by what the others pay."""

    async def scenario(network: Network) -> None:
        network.upstream.gate = asyncio.Event()
        readers = []
        for start, answers in ((0, ["slice"]), (3, ["slice"] * 2), (6, ["slice"] * 2 + ["blocks"])):
            readers.append(asyncio.create_task(rows(network, start)))
            while len(network.upstream.answers) < len(answers):
                await asyncio.sleep(0)
            assert network.upstream.answers == answers
        network.upstream.gate.set()
        await asyncio.gather(*readers)

    play(tmp_path, scenario)


async def pay_for_all_blocks(network: Network) -> int:
    """Read slices until their blocks are being fetched behind one of them; how many it took."""
    for count, (y, x) in enumerate(np.ndindex(10, 10), 1):
        await grid_points(network, y, x)
        if len(network.cached.fills):
            return count
    raise AssertionError("nothing was ever fetched behind a slice")


def test_the_read_that_pays_for_blocks_does_not_wait_for_them(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        network.upstream.block_gate = asyncio.Event()
        count = await pay_for_all_blocks(network)
        assert 70 <= count <= 95
        # Who comes meanwhile gets a slice, too.
        await grid_points(network, 9, 9)
        assert network.upstream.answers.count("slice") == count + 1
        network.upstream.block_gate.set()
        await network.filled()
        network.upstream.is_away = True
        assert np.array_equal(await network.read(AxisRange(0, 240), AxisRange(0, 200)), GRID)

    play(tmp_path, scenario)


def test_who_wants_blocks_that_are_fetched_behind_a_slice_waits_for_the_same_ones(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        gate = network.upstream.block_gate = asyncio.Event()
        await pay_for_all_blocks(network)
        while "blocks" not in network.upstream.answers:
            await asyncio.sleep(0)
        reader = asyncio.create_task(network.read(AxisRange(0, 240), AxisRange(0, 200), mode="blocks"))
        asked = len(network.upstream.answers)
        gate.set()
        assert np.array_equal(await reader, GRID)
        await network.filled()
        assert len(network.upstream.answers) == asked == network.upstream.answers.count("slice") + 1

    play(tmp_path, scenario)


def test_a_source_that_is_closed_fills_no_more(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        network.upstream.block_gate = asyncio.Event()
        await pay_for_all_blocks(network)
        await network.cached.aclose()
        assert not len(network.cached.fills)

    play(tmp_path, scenario)


def test_a_new_version_ends_what_is_fetched_of_the_old_one(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        network.upstream.block_gate = asyncio.Event()
        await pay_for_all_blocks(network)
        await network.origin.put("grid.b2nd", GRID + 1, chunks=(60, 50), blocks=(10, 10))
        assert (await network.read(AxisRange(0, 1), AxisRange(0, 1))).item() == GRID[0, 0] + 1
        await network.filled()
        # Nothing but the new version's slice is there.
        network.upstream.is_away = True
        with pytest.raises(NotCachedError):
            await network.read(AxisRange(0, 240), AxisRange(0, 200))

    play(tmp_path, scenario)


def test_a_fill_that_fails_is_told_to_nobody_and_paid_for_again(tmp_path: Path) -> None:
    async def scenario(network: Network) -> None:
        gate = network.upstream.block_gate = asyncio.Event()
        await pay_for_all_blocks(network)

        async def fail(stream: BlockStream) -> BlockStream:
            raise SourceUnavailableError("away")

        network.upstream.change = fail
        gate.set()
        await network.filled()
        network.upstream.change = None
        await grid_points(network, 9, 9)
        assert network.upstream.answers[-1] == "slice"

    play(tmp_path, scenario)


def test_where_too_much_is_being_filled_the_reader_waits_for_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fills, "MAX_FILL_NBYTES", 300_000)

    async def scenario(network: Network) -> None:
        for y, x in np.ndindex(10, 10):
            await grid_points(network, y, x)
            assert not len(network.cached.fills)
        assert network.upstream.answers.count("blocks") == 1

    play(tmp_path, scenario)
