"""Blocks of older versions that stay: what is asked, what moves, and that no answer mixes versions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caterva2_jupyter.core import revalidation
from caterva2_jupyter.core.revalidation import SameRecord
from caterva2_jupyter.core.selection import AxisRange, Selection
from caterva2_jupyter.core.source import Source
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import (
    DatasetChangedError,
    NotCachedError,
    RequestError,
    SourceUnavailableError,
)
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.subscriber import adoption
from caterva2_jupyter.subscriber.sources import CachedSource, RemoteSource
from caterva2_jupyter.testing import Origin, open_origin, read_array
from caterva2_jupyter.web.outgoing_session import open_session

from .comparing import Upstream
from .serving import serve

QUOTA = 1 << 30
DEADLINE_S = 30
GRID = np.random.default_rng(1).integers(0, 2**62, (240, 200))
"""4 x 4 chunks of 6 x 5 blocks of 10 x 10 items, which do not compress."""
HOW: dict[str, Any] = {"chunks": (60, 50), "blocks": (10, 10)}


@pytest.fixture(autouse=True)
def each_chunk_is_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of which chunk shows best when no chunks are compared together."""
    monkeypatch.setattr(revalidation, "MAX_RUN_BLOCKS", 1)


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
        self.upstream.forget()


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


def test_equal_content_in_a_new_version_moves_nothing(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        taller = np.vstack([GRID, GRID[:60]])
        await net.change(taller)
        assert np.array_equal(await net.read(slice(0, 240), slice(0, 200)), GRID)
        assert net.upstream.reads == []
        assert [len(same.rows) for same in net.upstream.told] == [0] * 16

    play(tmp_path, scenario)


def test_a_comparison_has_a_few_bytes_per_chunk_however_many_blocks_it_has(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        await net.change(np.vstack([GRID, GRID[:60]]))
        await net.read(slice(0, 240), slice(0, 200))
        for request in net.upstream.compared:
            assert request.known is not None
            assert len(request.known.digests) == 8 * 16
        assert all((len(same.proof), len(same.rows)) == (8, 0) for same in net.upstream.told)
        assert len(net.upstream.compared) == 1

    play(tmp_path, scenario)


@pytest.mark.parametrize("grown", [(300, 200), (240, 260), (310, 333), (250, 190), (100, 100)])
def test_chunks_that_got_another_number_are_found(tmp_path: Path, grown: tuple[int, int]) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        newer = np.random.default_rng(2).integers(0, 2**62, grown)
        rows, columns = (min(n, m) for n, m in zip(grown, GRID.shape, strict=True))
        newer[:rows, :columns] = GRID[:rows, :columns]
        await net.change(newer)
        assert np.array_equal(await net.read(), newer)
        unchanged = (rows // 60) * (columns // 50)
        assert sum(bool(same.proof) for same in net.upstream.told) >= unchanged
        nblocks = 30 * -(-grown[0] // 60) * -(-grown[1] // 50)
        assert len(net.upstream.sent) <= nblocks - unchanged * 30

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("newer", "how"),
    [
        (GRID.view("<f8"), HOW),
        (GRID, {"chunks": (60, 50), "blocks": (20, 10)}),
        (GRID, {"chunks": (50, 50), "blocks": (10, 10)}),
        (GRID.reshape(-1), {"chunks": (3000,), "blocks": (100,)}),
    ],
)
def test_v4_another_dtype_or_partition_under_the_same_name_is_kept_apart(
    tmp_path: Path, newer: np.ndarray, how: dict[str, Any]
) -> None:
    async def scenario(net: Network) -> None:
        old = await net.origin.source.entry("grid.b2nd")
        await net.read()
        await net.change(newer, **how)
        got = await net.read()
        assert (got.dtype, got.tobytes()) == (newer.dtype, newer.tobytes())
        assert net.upstream.compared == []
        stream = await net.cached.read_blocks(ReadRequest("foo", "grid.b2nd", old.version))
        assert sum([len(record.ids) async for record in stream.records]) == 16 * 30

    play(tmp_path, scenario)


def test_parts_of_several_versions_are_put_together(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read(slice(0, 60), slice(0, 200))
        second = changed((0, 0))
        await net.change(second)
        await net.read(slice(60, 120), slice(0, 200))
        third = changed((0, 0), (119, 0))
        await net.change(third)
        assert np.array_equal(await net.read(slice(0, 120), slice(0, 200)), third[:120])
        # (0, 0) is new since the first version, which alone has its chunk.
        assert sorted(net.upstream.sent) == [(0, 0), (4, 25)]

    play(tmp_path, scenario)


def test_v7_what_was_restored_is_found_in_the_version_before_the_last(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        await net.change(changed(*((row, column) for row in range(0, 240, 10) for column in range(0, 200, 10))))
        await net.read()
        assert len(net.upstream.sent) == 16 * 30
        # The content of the first version in a version of its own, as a backup gives it: one block is new.
        restored = changed((5, 5))
        await net.change(restored)
        assert np.array_equal(await net.read(), restored)
        assert net.upstream.sent == [(0, 0)]

    play(tmp_path, scenario)


def test_older_versions_stay_for_who_is_pinned_to_them(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        old = await net.origin.source.entry("grid.b2nd")
        await net.read()
        await net.change(changed((0, 0)))
        await net.read()
        stream = await net.cached.read_blocks(ReadRequest("foo", "grid.b2nd", old.version))
        assert stream.entry.version == old.version
        assert sum([len(record.ids) async for record in stream.records]) == 16 * 30

    play(tmp_path, scenario)


def test_many_readers_of_a_new_version_ask_once(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        newer = changed((0, 0))
        await net.change(newer)
        for got in await asyncio.gather(*(net.read() for _ in range(20))):
            assert np.array_equal(got, newer)
        asked = [same.nchunk for same in net.upstream.told]
        assert len(asked) <= 16 + 1, "the chunk that changed may be asked about again until it is here"
        assert net.upstream.sent == [(0, 0)]

    play(tmp_path, scenario)


def test_batches_grow_and_cover_the_selection_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "FIRST_BATCH_NBYTES", 8_000)
    monkeypatch.setattr(adoption, "MAX_BATCH_NBYTES", 100_000)
    monkeypatch.setattr(adoption, "ADOPTED_AT_ONCE", 2)

    async def scenario(net: Network) -> None:
        await net.read(slice(0, 200), slice(10, 190))
        newer = changed((30, 30), (100, 100))
        await net.change(newer)
        assert np.array_equal(await net.read(), newer)
        windows = [request.window for request in net.upstream.compared]
        assert len(windows) >= 4
        assert all(a is not None and b is not None and a[1] <= b[0] for a, b in itertools.pairwise(windows))
        assert len(net.upstream.sent) == 16 * 30 - 20 * 18 + 2
        assert len(set(net.upstream.sent)) == len(net.upstream.sent)

    play(tmp_path, scenario)


def test_windows_and_held_blocks_of_a_request_are_kept_to(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        await net.change(changed((0, 0)))
        held = np.zeros(60, np.bool_)
        held[10:] = True
        stream = await net.cached.read_blocks(ReadRequest("foo", "grid.b2nd", window=(20, 80), held=held))
        records = [record async for record in stream.records]
        assert [(r.nchunk, r.ids.tolist()) for r in records] == [(0, list(range(20, 30)))]
        (request,) = net.upstream.compared
        assert request.known is not None
        assert int(request.known.blocks.sum()) == 10
        assert net.upstream.sent == []

    play(tmp_path, scenario)


# What goes wrong


def test_without_its_source_a_new_version_is_not_read_from_an_old_one(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        await net.change(changed((0, 0)))
        net.upstream.error = SourceUnavailableError("away")
        with pytest.raises(NotCachedError):
            await net.read()
        net.upstream.error = None
        assert np.array_equal(await net.read(), changed((0, 0)))
        assert net.upstream.sent == [(0, 0)]

    play(tmp_path, scenario)


def test_a_source_that_does_not_compare_is_read_from(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        newer = changed((0, 0))
        await net.change(newer)
        net.upstream.compare_error = RequestError("unknown key in a read request: 'known'")
        assert np.array_equal(await net.read(), newer)
        assert len(net.upstream.sent) == 16 * 30
        assert len(net.upstream.compared) == 1

    play(tmp_path, scenario)


def wrong_proof(same: SameRecord) -> SameRecord:
    return replace(same, proof=b"12345678", rows=same.rows[:0])


def wrong_checksums(same: SameRecord) -> SameRecord:
    rows = same.rows.copy()
    rows["crc"] ^= 1
    return replace(same, rows=rows)


def another_chunk(same: SameRecord) -> SameRecord:
    return replace(same, nchunk=same.nchunk + 1)


@pytest.mark.parametrize("lie", [wrong_proof, wrong_checksums, another_chunk])
def test_blocks_whose_new_checksum_does_not_hold_are_fetched(
    tmp_path: Path, lie: Callable[[SameRecord], SameRecord]
) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        newer = changed(*((60 * i, 50 * j) for i in range(4) for j in range(4)))
        await net.change(newer)
        net.upstream.lie = lie
        assert np.array_equal(await net.read(), newer)
        assert len(net.upstream.sent) == 16 * 30
        assert np.array_equal(await net.read(), newer)

    play(tmp_path, scenario)


def test_an_older_block_that_is_damaged_on_disk_is_not_adopted(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        (data,) = net.cache.directory.rglob("data")
        with data.open("r+b") as file:
            for place in range(0, data.stat().st_size, 20_000):
                file.seek(place)
                file.write(b"damage")
        newer = changed((0, 0))
        await net.change(newer)
        assert np.array_equal(await net.read(), newer)
        assert 2 <= len(net.upstream.sent) < 100
        assert net.cache.counters.corrupt > 0

    play(tmp_path, scenario)


def test_a_tiny_quota_costs_adoption_and_nothing_else(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        for number in range(3):
            newer = changed((number, 0))
            await net.change(newer)
            assert np.array_equal(await net.read(), newer)
        assert net.cache.usage_nbytes <= 100_000

    play(tmp_path, scenario, quota_nbytes=100_000)


def test_v1_a_change_while_a_new_version_is_compared_is_told_and_never_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "FIRST_BATCH_NBYTES", 8_000)
    monkeypatch.setattr(adoption, "MAX_BATCH_NBYTES", 8_000)

    async def scenario(net: Network) -> None:
        await net.read()
        for step in range(1, 12, 3):
            net.upstream.before = None
            await net.change(GRID + step)
            count = 0

            async def change_again(at: int = step) -> None:
                nonlocal count
                count += 1
                if count == at:
                    await net.origin.put("grid.b2nd", GRID + 100 + at, **HOW)

            net.upstream.before = change_again
            try:
                got = await net.read()
            except DatasetChangedError:
                got = None
            assert got is None or np.array_equal(got, GRID + step) or np.array_equal(got, GRID + 100 + step)
            assert count >= step
            assert np.array_equal(await net.read(), GRID + 100 + step)

    play(tmp_path, scenario)


def test_readers_that_give_up_leave_nothing_behind(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        newer = changed((0, 0))
        await net.change(newer)
        go = asyncio.Event()
        waiting = asyncio.Event()

        async def wait() -> None:
            waiting.set()
            await go.wait()

        net.upstream.before = wait
        readers = [asyncio.create_task(net.read()) for _ in range(3)]
        await waiting.wait()
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        go.set()
        net.upstream.before = None
        assert np.array_equal(await net.read(), newer)
        assert net.cached._ahead_nbytes == 0

    play(tmp_path, scenario)


def test_of_several_older_versions_that_have_a_block_one_is_read(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        for number in range(3):
            await net.change(changed((number, 0)))
            await net.read()
        # Every bit of what only the oldest versions would be read for is lost: nobody notices.
        files = sorted(net.cache.directory.rglob("data"), key=lambda path: path.stat().st_mtime_ns)
        assert len(files) == 4
        for data in files[:-1]:
            data.write_bytes(bytes(data.stat().st_size))
        before = net.cache.counters.corrupt
        newer = np.vstack([changed((2, 0)), GRID[:60]])
        await net.change(newer)
        assert np.array_equal(await net.read(slice(0, 240), slice(0, 200)), newer[:240])
        assert net.upstream.sent == []
        assert net.cache.counters.corrupt == before

    play(tmp_path, scenario)


@pytest.mark.parametrize("link", [directly, over_http])
def test_chunks_that_are_compared_together_are_adopted_together(
    tmp_path: Path, link: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revalidation, "MAX_RUN_BLOCKS", 64)  # two chunks of 30 blocks

    async def scenario(net: Network) -> None:
        await net.read()
        newer = GRID.copy()
        newer[25, 120] += 1  # in chunk 2
        await net.change(newer)
        assert np.array_equal(await net.read(), newer)
        assert [(same.nchunk, bool(same.proof)) for same in net.upstream.told] == [
            (0, True), (2, False), (3, False), *((n, True) for n in range(4, 16, 2))
        ]  # fmt: skip
        assert len(net.upstream.sent) == 1

    play(tmp_path, scenario, link=link)


def test_auto_takes_what_an_older_version_has_before_it_asks_for_a_slice(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        await net.change(np.vstack([GRID, GRID[:60]]))
        axes = (AxisRange(0, 240), AxisRange(7, 8))
        got = await read_array(net.cached, "grid.b2nd", Selection(axes), mode="auto")
        assert np.array_equal(got, GRID[:, 7:8])
        assert net.upstream.compared
        assert not net.upstream.reads  # neither a block nor a slice moved

    play(tmp_path, scenario)
