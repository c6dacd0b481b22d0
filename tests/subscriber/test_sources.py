"""Sources over HTTP and with a cache: the contract of sources, one request per block, and what goes wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caterva2_jupyter.core.blocks import BlockRecord, checksum_seed, whole_record
from caterva2_jupyter.core.codec import encode_blocks
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.selection import AxisItems, AxisRange, Selection
from caterva2_jupyter.core.source import BlockStream, Source
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import (
    DatasetChangedError,
    DatasetNotFoundError,
    IntegrityError,
    NotCachedError,
    SourceUnavailableError,
)
from caterva2_jupyter.storage import block_cache
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.subscriber import segments, sources
from caterva2_jupyter.subscriber.flights import Flights
from caterva2_jupyter.subscriber.sources import CachedSource, RemoteSource
from caterva2_jupyter.testing import Origin, SourceContract, open_origin, read_array
from caterva2_jupyter.web.outgoing_session import open_session

from .serving import CountingSource, serve

QUOTA = 1 << 30
DEADLINE_S = 30


@asynccontextmanager
async def remote_source(origin: Origin, address: str = "127.0.0.1:0") -> AsyncIterator[RemoteSource]:
    async with serve(origin.source, address) as url, open_session(url) as session:
        yield RemoteSource(origin.source.root, url, session)


@asynccontextmanager
async def cached_source(
    source: Source,
    directory: Path,
    quota_nbytes: int = QUOTA,
    lookup: Callable[[str], Entry | None] | None = None,
) -> AsyncIterator[CachedSource]:
    with ThreadPoolExecutor(4) as executor, BlockCache(directory, quota_nbytes) as cache:
        cached = CachedSource(source, cache, executor, lookup)
        yield cached
        await cached.aclose()


class TestRemoteSource(SourceContract):
    def wrap(self, origin: Origin, tmp_path: Path) -> AbstractAsyncContextManager[Source]:
        return remote_source(origin)


class TestRemoteSourceOverAUnixSocket(SourceContract):
    def wrap(self, origin: Origin, tmp_path: Path) -> AbstractAsyncContextManager[Source]:
        return remote_source(origin, str(tmp_path / "socket"))


class TestCachedSource(SourceContract):
    def wrap(self, origin: Origin, tmp_path: Path) -> AbstractAsyncContextManager[Source]:
        return cached_source(origin.source, tmp_path / "cache")


class TestCachedSourceWithATinyQuota(SourceContract):
    def wrap(self, origin: Origin, tmp_path: Path) -> AbstractAsyncContextManager[Source]:
        return cached_source(origin.source, tmp_path / "cache", quota_nbytes=200_000)


class TestCachedSourceOverHttp(SourceContract):
    @asynccontextmanager
    async def wrap(self, origin: Origin, tmp_path: Path) -> AsyncIterator[Source]:
        async with remote_source(origin) as source, cached_source(source, tmp_path / "cache") as cached:
            yield cached


class TestCascade(SourceContract):
    """A subscriber of a subscriber of a publisher."""

    @asynccontextmanager
    async def wrap(self, origin: Origin, tmp_path: Path) -> AsyncIterator[Source]:
        async with AsyncExitStack() as stack:
            source: Source = origin.source
            for name in ("near", "far"):
                url = await stack.enter_async_context(serve(source))
                session = await stack.enter_async_context(open_session(url))
                remote = RemoteSource(origin.source.root, url, session)
                source = await stack.enter_async_context(cached_source(remote, tmp_path / name))
            yield source


# What is asked upstream

GRID = np.random.default_rng(1).integers(0, 2**62, (240, 200))
"""4 x 4 chunks of 6 x 5 blocks of 10 x 10 items, which do not compress: 800 bytes a block."""


class Network:
    """An origin of ``GRID`` and a cached source over it that counts what is asked."""

    def __init__(self, origin: Origin, upstream: CountingSource, cached: CachedSource, cache: BlockCache) -> None:
        self.origin, self.upstream, self.cached, self.cache = origin, upstream, cached, cache

    async def read(self, *key: slice, path: str = "grid.b2nd") -> Any:
        axes = tuple(AxisRange(k.start, k.stop) for k in key)
        return await read_array(self.cached, path, Selection(axes) if axes else None)

    async def stream(self, **how: Any) -> BlockStream:
        return await self.cached.read_blocks(ReadRequest("foo", "grid.b2nd", **how))


def play(tmp_path: Path, scenario: Callable[[Network], Awaitable[None]], quota_nbytes: int = QUOTA) -> None:
    """Run a scenario; a second call finds the cache of the first."""

    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S), open_origin({}) as origin:
            await origin.put("grid.b2nd", GRID, chunks=(60, 50), blocks=(10, 10))
            upstream = CountingSource(origin.source)
            # What a subscriber's replica of the catalog knows, publisher or not.
            with ThreadPoolExecutor(4) as executor, BlockCache(tmp_path / "cache", quota_nbytes) as cache:
                cached = CachedSource(upstream, cache, executor, origin.store.resolve)
                await scenario(Network(origin, upstream, cached, cache))
                await cached.aclose()

    asyncio.run(run())


def test_what_was_read_is_not_asked_again(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        for _ in range(3):
            assert np.array_equal(await net.read(), GRID)
        assert len(net.upstream.sent) == len(set(net.upstream.sent)) == 16 * 30

    play(tmp_path, scenario)


def test_a_slice_is_one_request_for_its_missing_blocks(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        assert np.array_equal(await net.read(slice(55, 65), slice(0, 10)), GRID[55:65, 0:10])
        assert (len(net.upstream.reads), sorted(net.upstream.sent)) == (1, [(0, 25), (4, 0)])
        assert np.array_equal(await net.read(slice(45, 75), slice(5, 15)), GRID[45:75, 5:15])
        assert len(net.upstream.reads) == 2
        assert len(net.upstream.sent) == len(set(net.upstream.sent)) == 8

    play(tmp_path, scenario)


def test_blocks_survive_a_restart(tmp_path: Path) -> None:
    async def first(net: Network) -> None:
        await net.read()

    async def second(net: Network) -> None:
        assert np.array_equal(await net.read(), GRID)
        assert net.upstream.reads == []

    play(tmp_path, first)
    play(tmp_path, second)


def test_a_thousand_readers_of_a_missing_block_cause_one_request(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        got = await asyncio.gather(*(net.read(slice(3, 7), slice(2, 5)) for _ in range(1000)))
        assert all(np.array_equal(g, GRID[3:7, 2:5]) for g in got)
        assert len(net.upstream.reads) == 1
        assert net.upstream.sent == [(0, 0)]

    play(tmp_path, scenario)


def test_readers_that_overlap_share_what_they_have_in_common(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        rng = random.Random(3)
        keys = []
        for _ in range(60):
            a, b = sorted(rng.sample(range(241), 2))
            c, d = sorted(rng.sample(range(201), 2))
            keys.append((slice(a, b), slice(c, d)))
        got = await asyncio.gather(*(net.read(*key) for key in keys))
        assert all(np.array_equal(g, GRID[key]) for g, key in zip(got, keys, strict=True))
        assert len(net.upstream.sent) == len(set(net.upstream.sent))

    play(tmp_path, scenario)


def test_a_large_read_is_fetched_in_windows_some_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "WINDOW_NBYTES", 8_000)

    async def scenario(net: Network) -> None:
        assert np.array_equal(await net.read(), GRID)
        assert 16 * 30 // 12 <= len(net.upstream.reads) <= 16 * 30 // 8
        assert len(net.upstream.sent) == len(set(net.upstream.sent)) == 16 * 30
        assert net.cached._ahead_nbytes == 0

    play(tmp_path, scenario)


def test_a_slow_consumer_holds_upstream_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "WINDOW_NBYTES", 8_000)
    monkeypatch.setattr(sources, "AHEAD_NBYTES", 30_000)

    async def scenario(net: Network) -> None:
        stream = await net.stream()
        await anext(stream.records)
        await until_quiet(lambda: len(net.upstream.sent))
        assert len(net.upstream.sent) * 800 <= 60_000
        assert 0 < net.cached._ahead_nbytes <= 40_000
        rest = [record async for record in stream.records]
        assert len(rest) > 30
        assert net.cached._ahead_nbytes == 0

    play(tmp_path, scenario)


async def until_quiet(value: Callable[[], object]) -> None:
    """Wait until a value stays the same."""
    last = None
    while last != (last := value()):
        await asyncio.sleep(0.2)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


class Halting:
    """A source that sends one record of each read, and the others when it is told to."""

    def __init__(self, source: Source, go_on: asyncio.Event) -> None:
        self._source, self._go_on = source, go_on

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        stream = await self._source.read_blocks(request)
        return BlockStream(stream.entry, self._halting(stream))

    async def _halting(self, stream: BlockStream) -> AsyncIterator[BlockRecord]:
        async for record in stream.records:
            yield record
            await self._go_on.wait()


def test_what_has_come_is_handed_on_while_the_rest_is_on_its_way(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        go_on = asyncio.Event()
        net.cached._source = Halting(net.origin.source, go_on)  # type: ignore[assignment]
        async with asyncio.timeout(20):
            stream = await net.stream()
            came = [await anext(stream.records)]
            assert not go_on.is_set()
            go_on.set()
            came += [record async for record in stream.records]
        assert sum(len(record.ids) for record in came) == 16 * 30
        assert [record.nchunk for record in came] == sorted(record.nchunk for record in came)
        net.cached._source, net.upstream.error = net.upstream, SourceUnavailableError("away")
        assert np.array_equal(await net.read(), GRID)  # all of it was kept

    play(tmp_path, scenario)


def test_long_lists_of_positions_are_not_sent_with_every_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "MAX_REPEATED_ITEMS", 20)
    monkeypatch.setattr(segments, "WINDOW_NBYTES", 8_000)

    async def scenario(net: Network) -> None:
        rng = np.random.default_rng(4)
        for _ in range(10):
            rows = np.unique(rng.integers(0, 240, 150))
            columns = AxisRange(int(rng.integers(0, 60)), int(rng.integers(60, 200)), int(rng.integers(1, 70)))
            got = await read_array(net.cached, "grid.b2nd", Selection((AxisItems(rows), columns)))
            assert np.array_equal(got, GRID[rows][:, columns.start : columns.stop : columns.step])
        assert len(net.upstream.sent) == len(set(net.upstream.sent))
        assert max(len(read.selection[0]["at"]) for read in net.upstream.reads) <= 60

    play(tmp_path, scenario)


class WholeChunks:
    """A source whose chunks cannot be cut: each comes complete, whatever is asked of it."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        stream = await self._source.read_blocks(request)
        return BlockStream(stream.entry, self._whole(stream))

    async def _whole(self, stream: BlockStream) -> AsyncIterator[BlockRecord]:
        seen = set()
        async for record in stream.records:
            if record.nchunk not in seen:
                seen.add(record.nchunk)
                seed = checksum_seed(stream.entry.id, stream.entry.version)
                yield whole_record(seed, record.nchunk, b"chunk %d" % record.nchunk)


def test_chunks_that_cannot_be_cut_come_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "WINDOW_NBYTES", 8_000)

    async def scenario(net: Network) -> None:
        upstream = CountingSource(WholeChunks(net.origin.source))  # type: ignore[arg-type]
        net.cached._source = upstream
        for _ in range(2):
            streams = await asyncio.gather(*(net.stream() for _ in range(5)))
            for stream in streams:
                came = [record.nchunk async for record in stream.records]
                assert came == list(range(16))
        assert sorted(upstream.sent) == [(n, 0xFFFFFFFF) for n in range(16)]

    play(tmp_path, scenario)


def test_what_a_catalog_says_of_chunks_is_believed_until_one_was_seen(tmp_path: Path) -> None:
    """Else a cold read would wait for the first chunk before it asks for more of it."""

    async def scenario(net: Network) -> None:
        entry = await net.cached.entry("grid.b2nd")
        version = net.cached._cache.open(entry, "foo")
        for filters, is_cut in (["shuffle"], True), ([], True), (["delta"], False), (None, False):
            storage = {"codec": "zstd"} | ({} if filters is None else {"filters": filters})
            flights = Flights()
            flights.expect(version, replace(entry, storage=storage))
            assert flights.is_cut(version) == is_cut
            flights.learn(version, whole_record(0, 0, b"a chunk"))
            flights.expect(version, replace(entry, storage=storage))
            assert not flights.is_cut(version)

    play(tmp_path, scenario)


# What was kept, and what is away


def test_what_is_kept_is_read_when_the_source_is_away(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read(slice(0, 60), slice(0, 50))
        for error in [SourceUnavailableError("no route"), SourceUnavailableError("refused")]:
            net.upstream.error = error
            assert np.array_equal(await net.read(slice(5, 60), slice(7, 50)), GRID[5:60, 7:50])
            # Not zeros, not the part that is there.
            with pytest.raises(NotCachedError, match=r"foo/grid\.b2nd are not in the cache, and its source is away: "):
                await net.read(slice(5, 61), slice(7, 50))
        net.upstream.error = None
        assert np.array_equal(await net.read(), GRID)

    play(tmp_path, scenario)


def test_a_source_that_goes_away_in_the_midst_ends_the_read_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "WINDOW_NBYTES", 8_000)
    monkeypatch.setattr(sources, "AHEAD_NBYTES", 8_000)

    async def scenario(net: Network) -> None:
        stream = await net.stream()
        await anext(stream.records)
        net.upstream.error = SourceUnavailableError("gone")
        with pytest.raises(NotCachedError):
            [record async for record in stream.records]
        assert net.cached._ahead_nbytes == 0
        net.upstream.error = None
        assert np.array_equal(await net.read(), GRID)

    play(tmp_path, scenario)


def test_all_who_wait_for_a_failed_fetch_are_told_and_the_next_one_tries_again(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        net.upstream.error = SourceUnavailableError("gone")
        told = await asyncio.gather(*(net.read() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(error, NotCachedError) for error in told)
        assert len(net.upstream.reads) < 20
        net.upstream.error = None
        assert np.array_equal(await net.read(), GRID)

    play(tmp_path, scenario)


def test_a_block_damaged_on_disk_is_fetched_again(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.read()
        before = len(net.upstream.sent)
        (data,) = net.cache.directory.rglob("data")
        with data.open("r+b") as file:
            file.seek(data.stat().st_size // 3)
            file.write(b"damage")
        assert np.array_equal(await net.read(), GRID)
        assert 1 <= len(net.upstream.sent) - before <= 2
        assert net.cache.counters.corrupt == len(net.upstream.sent) - before
        net.upstream.error = SourceUnavailableError("away")
        assert np.array_equal(await net.read(), GRID)

    play(tmp_path, scenario)


def test_a_full_disk_costs_the_cache_and_not_the_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, parts: list[memoryview], offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def scenario(net: Network) -> None:
        monkeypatch.setattr(block_cache.os, "pwritev", full)
        for _ in range(2):
            assert np.array_equal(await net.read(), GRID)
        assert len(net.upstream.sent) == 2 * 16 * 30

    play(tmp_path, scenario)


def test_many_readers_of_more_than_the_quota_get_all_of_it(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        for got in await asyncio.gather(*(net.read() for _ in range(8))):
            assert np.array_equal(got, GRID)
        assert net.cache.usage_nbytes <= 100_000

    play(tmp_path, scenario, quota_nbytes=100_000)


# Versions


def test_a_pinned_version_is_readable_as_far_as_it_is_kept(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        old = await net.origin.source.entry("grid.b2nd")
        await net.read(slice(0, 60), slice(0, 200))
        await net.origin.put("grid.b2nd", GRID + 1, chunks=(60, 50), blocks=(10, 10))

        async def pinned(rows: int) -> Any:
            form = [[0, rows, 1], [0, 200, 1]]
            stream = await net.stream(version=old.version, selection=form)
            assert (stream.entry.version, stream.entry.geometry) == (old.version, old.geometry)
            return [record async for record in stream.records]

        assert sum(len(record.ids) for record in await pinned(60)) == 4 * 30
        with pytest.raises(DatasetChangedError):
            await pinned(61)
        assert np.array_equal(await net.read(), GRID + 1)

    play(tmp_path, scenario)


def test_a_reader_that_names_no_version_gets_the_one_that_is_there(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        stale = await net.origin.source.entry("grid.b2nd")
        net.cached._lookup = lambda path: stale  # a replica that has not heard yet
        await net.origin.put("grid.b2nd", GRID + 1, chunks=(60, 50), blocks=(10, 10))
        assert np.array_equal(await net.read(), GRID + 1)

    play(tmp_path, scenario)


def test_a_change_in_the_midst_of_a_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "WINDOW_NBYTES", 8_000)
    monkeypatch.setattr(sources, "AHEAD_NBYTES", 8_000)

    async def scenario(net: Network) -> None:
        stream = await net.stream()
        await anext(stream.records)
        await net.origin.put("grid.b2nd", GRID + 1, chunks=(60, 50), blocks=(10, 10))
        with pytest.raises(DatasetChangedError):
            [record async for record in stream.records]

    play(tmp_path, scenario)


def test_without_a_replica_a_read_asks_what_the_version_is(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        net.cached._lookup = None
        assert np.array_equal(await net.read(), GRID)
        await net.origin.put("grid.b2nd", GRID + 1, chunks=(60, 50), blocks=(10, 10))
        assert np.array_equal(await net.read(), GRID + 1)
        net.upstream.error = SourceUnavailableError("away")
        assert np.array_equal(await net.read(), GRID + 1)
        with pytest.raises(SourceUnavailableError):
            await net.read(path="another.b2nd")
        net.upstream.error = None
        with pytest.raises(DatasetNotFoundError):
            await net.read(path="another.b2nd")

    play(tmp_path, scenario)


# A source that does not keep to the protocol


class Answering:
    """A source that answers reads as it likes."""

    def __init__(self, source: Source, answer: Callable[[Entry, list[BlockRecord]], tuple[Entry, list[Any]]]) -> None:
        self._source, self._answer = source, answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        stream = await self._source.read_blocks(request)
        entry, records = self._answer(stream.entry, [record async for record in stream.records])

        async def answer() -> AsyncIterator[BlockRecord]:
            for record in records:
                yield record

        return BlockStream(entry, answer())


def lie(entry: Entry, nchunk: int, blocks: list[int]) -> BlockRecord:
    """A record that verifies, of blocks that were not asked for."""
    assert entry.geometry is not None
    raw = bytes(entry.geometry.block_nbytes * len(blocks))
    return encode_blocks(checksum_seed(entry.id, entry.version), nchunk, blocks, raw, entry.geometry)


@pytest.mark.parametrize(
    "answer",
    [
        lambda entry, records: (entry, records[:-1]),
        lambda entry, records: (entry, []),
        lambda entry, records: (Entry(entry.path, "array", id="other", version=entry.version), records),
        lambda entry, records: (Entry(entry.path, "array", id=entry.id, version="other"), records),
        lambda entry, records: (
            entry,
            [BlockRecord(r.nchunk, r.head, r.ids, r.sizes, r.crcs, bytes(len(r.body))) for r in records],
        ),
        lambda entry, records: (
            entry,
            [BlockRecord(r.nchunk + 1, r.head, r.ids, r.sizes, r.crcs, r.body) for r in records],
        ),
        lambda entry, records: (entry, [whole_record(checksum_seed(entry.id, entry.version), 10**6, b"far")]),
    ],
)
def test_answers_that_are_not_what_was_asked_for_are_refused(tmp_path: Path, answer: Any) -> None:
    async def scenario(net: Network) -> None:
        net.cached._source = Answering(net.origin.source, answer)  # type: ignore[assignment]
        with pytest.raises(IntegrityError):
            await net.read()
        net.cached._source = net.upstream  # type: ignore[assignment]
        assert np.array_equal(await net.read(), GRID)

    play(tmp_path, scenario)


def test_blocks_that_were_not_asked_for_are_not_handed_on(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        net.cached._source = Answering(  # type: ignore[assignment]
            net.origin.source, lambda entry, records: (entry, [lie(entry, 15, [0, 3]), *records])
        )
        stream = await net.stream(selection=[[0, 1, 1], [0, 1, 1]])
        assert [(r.nchunk, r.ids.tolist()) for r in [record async for record in stream.records]] == [(0, [0])]

    play(tmp_path, scenario)


# Readers that give up


class Held:
    """A source whose reads wait until they are let go."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.go = asyncio.Event()
        self.waiting = self.cancelled = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        self.waiting += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await self._source.read_blocks(request)


def test_a_fetch_that_nobody_waits_for_any_more_is_cancelled(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        held = Held(net.upstream)  # type: ignore[arg-type]
        net.cached._source = held  # type: ignore[assignment]
        readers = [asyncio.create_task(net.read(slice(0, 5), slice(0, 5))) for _ in range(3)]
        await until(lambda: held.waiting == 1)
        for reader in readers[:2]:
            reader.cancel()
        await asyncio.gather(*readers[:2], return_exceptions=True)
        assert held.cancelled == 0
        readers[2].cancel()
        await asyncio.gather(readers[2], return_exceptions=True)
        await until(lambda: held.cancelled == 1)
        held.go.set()
        assert np.array_equal(await net.read(slice(0, 5), slice(0, 5)), GRID[0:5, 0:5])

    play(tmp_path, scenario)


def test_a_reader_that_gives_up_does_not_disturb_the_others(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        held = Held(net.upstream)  # type: ignore[arg-type]
        net.cached._source = held  # type: ignore[assignment]
        readers = [asyncio.create_task(net.read(slice(0, 5), slice(0, 5))) for _ in range(5)]
        await until(lambda: held.waiting == 1)
        readers[0].cancel()  # the one that began the fetch
        held.go.set()
        for got in await asyncio.gather(*readers[1:]):
            assert np.array_equal(got, GRID[0:5, 0:5])
        assert net.upstream.sent == [(0, 0)]

    play(tmp_path, scenario)


def test_giving_up_a_read_closes_what_is_open_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "WINDOW_NBYTES", 8_000)

    async def scenario(net: Network) -> None:
        stream = await net.stream()
        await anext(stream.records)
        await stream.records.aclose()  # type: ignore[attr-defined]
        assert net.cached._ahead_nbytes == 0
        await until(lambda: net.upstream.closed == net.upstream.opened > 0)
        assert len(net.upstream.sent) < 16 * 30
        assert [record async for record in stream.records] == []

    play(tmp_path, scenario)


def test_a_closed_source_leaves_no_tasks(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        held = Held(net.upstream)  # type: ignore[arg-type]
        net.cached._source = held  # type: ignore[assignment]
        reader = asyncio.create_task(net.read())
        await until(lambda: held.waiting > 0)
        await net.cached.aclose()
        with pytest.raises(SourceUnavailableError, match="stopping"):
            await reader
        assert len(asyncio.all_tasks()) == 1

    play(tmp_path, scenario)
