"""The cache by root and path: over sources in memory, so that they can be away, or break, at will."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caterva2_jupyter.core.blocks import BlockRecord
from caterva2_jupyter.core.source import BlockStream
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import (
    ConflictError,
    DatasetChangedError,
    DatasetNotFoundError,
    NotCachedError,
    RootNotFoundError,
    SourceUnavailableError,
    UnsupportedDatasetError,
)
from caterva2_jupyter.subscriber.cache_keeper import CacheKeeper
from tests.subscriber.running import Running, running
from tests.subscriber.test_handlers import served

NOISE = np.random.default_rng(3).integers(0, 255, 4_000_000, dtype="u1")


def with_keeper(
    test: Callable[[Running, CacheKeeper], Awaitable[None]], directory: Path, quota_nbytes: int = 1 << 30
) -> None:
    """Run a test over a subscriber that follows ``foo``, with 40 chunks of 10 blocks, a group and a text in it."""

    async def run() -> None:
        async with running(directory, "foo", "bar") as run:
            run.cache.quota_nbytes = quota_nbytes
            files = run.publishers["foo"].files
            files.set("noise.b2nd", NOISE, chunks=(100_000,), blocks=(10_000,), attrs={"units": "m"})
            files.set("dir/a.b2nd", np.arange(100))
            files.set("dir/b.txt", b"text")
            await run.start()
            await run.subscriber.follow("foo")
            keeper = CacheKeeper(run.subscriber, run.executor)
            keeper.open(run.cache)
            await test(run, keeper)

    asyncio.run(run())


async def listed(forms: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [form async for form in forms]


def test_a_broken_prefetch_goes_on_where_it_broke(tmp_path: Path) -> None:
    async def test(run: Running, keeper: CacheKeeper) -> None:
        publisher = run.publishers["foo"]
        sent: list[tuple[int, int]] = []
        real = publisher.source.read_blocks

        async def breaking(request: ReadRequest) -> BlockStream:
            stream = await real(request)

            async def records() -> AsyncIterator[BlockRecord]:
                async for record in stream.records:
                    if len(sent) >= 15 and not publisher.is_away:
                        raise SourceUnavailableError("the cable was pulled")
                    sent.append((record.nchunk, len(record.ids)))
                    yield record

            return replace(stream, records=records())

        publisher.source.read_blocks = breaking  # type: ignore[method-assign]
        with pytest.raises(SourceUnavailableError):
            await listed(keeper.prefetch("foo", "noise", None, None))
        estimate = await keeper.estimate("foo", "noise", None, None)
        assert 0 < estimate["held_blocks"] < 400
        before = sum(n for _, n in sent)
        publisher.source.read_blocks = real  # type: ignore[method-assign]
        told = await listed(keeper.prefetch("foo", "noise", None, None))
        assert told[0]["held_blocks"] == estimate["held_blocks"]
        assert told[-1]["done"]
        assert told[-1]["held_blocks"] == told[-1]["blocks"] == 400
        # Only what was missing came.
        missing = 400 - estimate["held_blocks"]
        assert told[-1]["done_cbytes"] == pytest.approx(missing * 10_000, rel=0.02)
        assert before >= estimate["held_blocks"]
        nreads = publisher.nreads
        assert (await listed(keeper.prefetch("foo", "noise", None, None)))[-1]["done_cbytes"] == 0
        assert publisher.nreads == nreads

    with_keeper(test, tmp_path)


def test_a_prefetch_that_is_given_up_stops(tmp_path: Path) -> None:
    async def test(run: Running, keeper: CacheKeeper) -> None:
        forms = keeper.prefetch("foo", "noise", None, None)
        await anext(forms)
        task = asyncio.ensure_future(anext(forms))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await forms.aclose()  # type: ignore[attr-defined]
        assert (await keeper.estimate("foo", "noise", None, None))["held_blocks"] < 400

    with_keeper(test, tmp_path)


def test_estimates_are_about_what_is_missing_of_a_selection(tmp_path: Path) -> None:
    async def test(run: Running, keeper: CacheKeeper) -> None:
        first = [[0, 200_000, 1]]
        cold = await keeper.estimate("foo", "noise", None, first)
        assert (cold["blocks"], cold["held_blocks"]) == (20, 0)
        assert cold["requests"] == 1
        whole = await keeper.estimate("foo", "noise", None, None)
        assert whole["requests"] > 1
        nreads = run.publishers["foo"].nreads
        assert nreads == 0
        await listed(keeper.prefetch("foo", "noise", cold["version"], first))
        warm = await keeper.estimate("foo", "noise", None, first)
        assert (warm["held_blocks"], warm["cbytes"], warm["requests"]) == (20, 0, 0)
        with pytest.raises(DatasetChangedError):
            await keeper.estimate("foo", "noise", "0123", None)
        with pytest.raises(UnsupportedDatasetError):
            await keeper.estimate("foo", "dir", None, None)
        with pytest.raises(DatasetNotFoundError):
            await keeper.estimate("foo", "absent", None, None)
        with pytest.raises(RootNotFoundError):
            await keeper.estimate("absent", "x", None, None)
        # Of a version that is gone, what was kept can still be asked about.
        run.publishers["foo"].files.set("noise.b2nd", NOISE[:1_000_000], chunks=(100_000,), blocks=(10_000,))
        await run.publishers["foo"].changed()
        async with asyncio.timeout(60):
            while (await keeper.estimate("foo", "noise", None, None))["version"] == cold["version"]:
                await asyncio.sleep(0.005)
        assert (await keeper.estimate("foo", "noise", cold["version"], first))["held_blocks"] == 20

    with_keeper(test, tmp_path)


def test_what_is_not_followed_cannot_be_prefetched(tmp_path: Path) -> None:
    async def test(run: Running, keeper: CacheKeeper) -> None:
        with pytest.raises(ConflictError, match="follow"):
            await listed(keeper.prefetch("bar", "x", None, None))

    with_keeper(test, tmp_path)


def test_a_quota_that_is_too_small_shows_in_what_is_held(tmp_path: Path) -> None:
    async def test(run: Running, keeper: CacheKeeper) -> None:
        last = (await listed(keeper.prefetch("foo", "noise", None, None)))[-1]
        assert last["done"]
        assert 0 < last["held_blocks"] < last["blocks"]
        assert run.cache.usage_nbytes <= 1_000_000

    with_keeper(test, tmp_path, quota_nbytes=1_000_000)


def test_status_clear_and_pins_go_by_path(tmp_path: Path) -> None:
    async def test(run: Running, keeper: CacheKeeper) -> None:
        for path in ("noise", "dir/a", "dir/b.txt"):
            await listed(keeper.prefetch("foo", path, None, None))

        async def paths(root: str = "", path: str = "") -> list[str]:
            return sorted(dataset["path"] for dataset in (await keeper.status(root, path))["datasets"])

        assert await paths() == ["foo/dir/a.b2nd", "foo/dir/b.txt", "foo/noise.b2nd"]
        assert await paths("foo", "dir") == ["foo/dir/a.b2nd", "foo/dir/b.txt"]
        assert await paths("foo", "dir/a") == ["foo/dir/a.b2nd"]
        assert await paths("foo", "di") == await paths("bar") == []
        assert (await keeper.pin("foo", "dir"))["pinned"] == ["foo/dir/a.b2nd", "foo/dir/b.txt"]
        assert (await keeper.pin("foo", "noise"))["pinned"] == ["foo/noise.b2nd"]
        assert (await keeper.unpin("foo", "dir"))["unpinned"] == ["foo/dir/a.b2nd", "foo/dir/b.txt"]
        assert (await keeper.status("foo", ""))["pins"] == ["foo/noise.b2nd"]
        cleared = await keeper.clear("foo", "noise")
        assert cleared["datasets"] == 1
        assert cleared["nbytes"] > 4_000_000
        assert await paths() == ["foo/dir/a.b2nd", "foo/dir/b.txt"]
        assert (await keeper.clear("", ""))["datasets"] == 2
        assert run.cache.usage_nbytes == 0
        with pytest.raises(DatasetNotFoundError):
            await keeper.pin("foo", "absent")

    with_keeper(test, tmp_path)


def test_verifying_tells_how_far_it_is_and_what_was_bad(tmp_path: Path) -> None:
    async def test(run: Running, keeper: CacheKeeper) -> None:
        for path in ("noise", "dir/a"):
            await listed(keeper.prefetch("foo", path, None, None))
        (data,) = [p for p in run.cache.directory.rglob("data") if p.stat().st_size > 1_000_000]
        with data.open("r+b") as file:
            file.seek(2_000_000)
            file.write(b"\0" * 100)
        told = await listed(keeper.verify("foo", ""))
        assert told[-1]["done"]
        assert told[-1]["bad"] == 1
        assert told[-1]["blocks"] > 400
        assert (await listed(keeper.verify("foo", "")))[-1]["bad"] == 0
        with pytest.raises(NotCachedError):
            await keeper.seal("foo", "noise", None)
        assert (await listed(keeper.verify("bar", "")))[-1]["blocks"] == 0

    with_keeper(test, tmp_path)


def test_before_its_cache_is_open_it_says_so(tmp_path: Path) -> None:
    async def test(run: Running, _: CacheKeeper) -> None:
        with pytest.raises(SourceUnavailableError, match="starting"):
            await CacheKeeper(run.subscriber, run.executor).status("", "")

    with_keeper(test, tmp_path)


def test_a_sealed_file_leaves_nothing_behind(tmp_path: Path) -> None:
    async def test(run: Running, keeper: CacheKeeper) -> None:
        await listed(keeper.prefetch("foo", "noise", None, None))
        run.publishers["foo"].is_away = True
        fd = await keeper.seal("foo", "noise", None)
        assert len(await keeper.read_part(fd, 100, 0)) == 100
        assert [p.name for p in run.cache.directory.iterdir() if p.name.startswith("trash")] == []
        await keeper.close_file(fd)
        with pytest.raises(UnsupportedDatasetError):
            await keeper.seal("foo", "dir/b.txt", None)

    with_keeper(test, tmp_path)


def test_what_is_asked_wrongly_is_refused_in_one_line(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, "foo") as sub:
            await sub.run.start()
            for route, body, status in (
                ("estimate", {}, 400),
                ("estimate", {"path": 3}, 400),
                ("estimate", {"path": "foo/x", "version": 3}, 400),
                ("estimate", {"path": "../x"}, 404),
                ("estimate", {"path": "absent/x"}, 404),
                ("prefetch", {"path": ""}, 400),
                ("prefetch", {"path": "foo/x"}, 409),  # it is not followed
                ("clear", {}, 400),
                ("clear", {"path": []}, 400),
                ("pin", {}, 400),
                ("unpin", {"path": ""}, 400),
                ("verify", {"path": "foo/../x"}, 404),
            ):
                answer = await sub.fetch(f"/api/v1/cache/{route}", method="POST", body=json.dumps(body))
                assert answer.code == status, (route, body, answer.body)
                assert "\n" not in json.loads(answer.body)["detail"]
            answer = await sub.fetch("/api/v1/cache")
            assert answer.code == 200
            assert json.loads(answer.body)["datasets"] == []
            assert (await sub.fetch("/api/v1/cache/sealed?path=foo/x")).code == 404

    asyncio.run(run())
