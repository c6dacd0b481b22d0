"""Files that change under a subscriber: appends, attributes, rewrites in place, restored backups."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import h5py
import numpy as np
import pytest

from caterva2_jupyter.core.selection import AxisRange, Selection
from caterva2_jupyter.errors import DatasetChangedError, DatasetNotFoundError
from caterva2_jupyter.publisher.publisher import open_root
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.storage.catalog_store import CatalogStore
from caterva2_jupyter.storage.event_hub import EventHub
from caterva2_jupyter.storage.threaded_source import ThreadedSource
from caterva2_jupyter.subscriber.sources import CachedSource, RemoteSource
from caterva2_jupyter.testing import read_array
from caterva2_jupyter.web.outgoing_session import open_session

from .comparing import Upstream
from .serving import serve

DEADLINE_S = 60
NFRAMES = 1000


@dataclass
class Network:
    """A directory that is published, and a subscriber's cache over HTTP."""

    directory: Path
    source: ThreadedSource
    upstream: Upstream
    cached: CachedSource

    async def read(self, path: str, rows: tuple[int, int] | None = None) -> np.ndarray:
        if rows is None:
            return await read_array(self.cached, path)
        entry = await self.source.entry(path)
        assert entry.geometry is not None
        axes = (AxisRange(*rows), *(AxisRange(0, n) for n in entry.geometry.shape[1:]))
        return await read_array(self.cached, path, Selection(axes))

    async def rescan(self) -> None:
        await self.source.rescan([self.directory])
        self.upstream.forget()


def play(tmp_path: Path, scenario: Callable[[Network], Awaitable[None]]) -> None:
    directory = tmp_path / "root"
    directory.mkdir(exist_ok=True)

    async def run() -> None:
        with (
            ExitStack() as opened,
            ThreadPoolExecutor(4) as executor,
            BlockCache(tmp_path / "cache", 1 << 30) as cache,
        ):
            root, store = open_root(directory, "owner", opened), CatalogStore(None)
            source = ThreadedSource("foo", root, store, EventHub(), executor)
            try:
                await source.scan()
                async with asyncio.timeout(DEADLINE_S), serve(source) as url, open_session(url) as session:
                    upstream = Upstream(RemoteSource("foo", url, session))
                    cached = CachedSource(upstream, cache, executor, store.resolve)  # type: ignore[arg-type]
                    await scenario(Network(directory, source, upstream, cached))
                    await cached.aclose()
            finally:
                source.close()
                root.close()
                store.close()

    asyncio.run(run())


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 1000, (count, 64, 80)).astype("<i4")


def write_blosc2(path: Path, array: np.ndarray, clevel: int = 5) -> None:
    how = {"chunks": (1, 64, 80), "blocks": (1, 16, 80), "cparams": {"clevel": clevel}}
    blosc2.asarray(array, urlpath=str(path), mode="w", **how)


def write_hdf5(path: Path, array: np.ndarray, **how: Any) -> None:
    how = how or {"compression": "gzip", "shuffle": True}
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset(
            "frames", data=array, chunks=(1, *array.shape[1:]), maxshape=(None, *array.shape[1:]), **how
        )


def append_blosc2(path: Path, frame: np.ndarray) -> None:
    array = blosc2.open(str(path), mode="a")
    count = array.shape[0]
    array.resize((count + 1, *array.shape[1:]))
    array[count] = frame


def append_hdf5(path: Path, frame: np.ndarray) -> None:
    with h5py.File(path, "a", libver="latest") as file:
        dataset = file["frames"]
        dataset.resize(len(dataset) + 1, axis=0)
        dataset[-1] = frame


def chunks_sent(net: Network) -> set[int]:
    return {nchunk for nchunk, _ in net.upstream.sent}


@pytest.mark.parametrize(
    ("name", "path", "write", "append", "small"),
    [
        ("a.b2nd", "a.b2nd", write_blosc2, append_blosc2, False),
        ("a.h5", "a.h5/frames.b2nd", write_hdf5, append_hdf5, False),
        ("a.h5", "a.h5/frames.b2nd", write_hdf5, append_hdf5, True),
    ],
)
def test_an_append_to_1000_chunks_moves_the_new_one(
    tmp_path: Path, name: str, path: str, write: Any, append: Any, small: bool
) -> None:
    array = frames(NFRAMES + 1)
    array = array[:, :24, :20].copy() if small else array
    (tmp_path / "root").mkdir()
    write(tmp_path / "root" / name, array[:-1])

    async def scenario(net: Network) -> None:
        assert np.array_equal(await net.read(path), array[:-1])
        nblocks = len(net.upstream.sent)
        append(net.directory / name, array[-1])
        await net.rescan()
        assert np.array_equal(await net.read(path), array)
        if small:  # many frames share a chunk, and some of them a block
            assert len(chunks_sent(net)) == 1
            assert len(net.upstream.sent) <= 2
            return
        assert nblocks >= NFRAMES
        assert chunks_sent(net) == {NFRAMES}
        assert net.upstream.compared_nbytes < 8 * NFRAMES  # frames of one block are compared in runs

    play(tmp_path, scenario)


def edit_blosc2(path: Path) -> None:
    array = blosc2.open(str(path), mode="a")
    array.schunk.vlmeta["note"] = "edited"


def edit_hdf5(path: Path) -> None:
    with h5py.File(path, "a", libver="latest") as file:
        file["frames"].attrs["note"] = "edited" * 100


@pytest.mark.parametrize(
    ("name", "path", "write", "edit"),
    [
        ("a.b2nd", "a.b2nd", write_blosc2, edit_blosc2),
        ("a.h5", "a.h5/frames.b2nd", write_hdf5, edit_hdf5),
        ("lzf.h5", "lzf.h5/frames.b2nd", lambda p, a: write_hdf5(p, a, compression="lzf"), edit_hdf5),
        ("flat.h5", "flat.h5/frames.b2nd", lambda p, a: _write_contiguous(p, a), edit_hdf5),
    ],
)
def test_an_edited_attribute_moves_nothing(tmp_path: Path, name: str, path: str, write: Any, edit: Any) -> None:
    array = frames(100)
    (tmp_path / "root").mkdir()
    write(tmp_path / "root" / name, array)

    async def scenario(net: Network) -> None:
        before = await net.source.entry(path)
        # In parts: a block is the same whichever others it came with.
        await net.read(path, (0, 3))
        await net.read(path, (50, 70))
        await net.read(path)
        edit(net.directory / name)
        await net.rescan()
        after = await net.source.entry(path)
        assert "note" in after.attrs
        assert (after.id, after.version) != (before.id, before.version)
        assert np.array_equal(await net.read(path), array)
        assert net.upstream.sent == []

    play(tmp_path, scenario)


def _write_contiguous(path: Path, array: np.ndarray) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("frames", data=array)


def test_an_append_to_a_plain_file_moves_its_end(tmp_path: Path) -> None:
    text = np.random.default_rng(1).bytes(9 << 20)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "log.bin").write_bytes(text)

    async def scenario(net: Network) -> None:
        assert (await net.read("log.bin")).tobytes() == text
        with (net.directory / "log.bin").open("ab") as file:
            file.write(b"more")
        await net.rescan()
        assert (await net.read("log.bin")).tobytes() == text + b"more"
        assert chunks_sent(net) <= {2}

    play(tmp_path, scenario)


def test_p2_a_rewrite_with_the_same_length_and_time_is_noticed(tmp_path: Path) -> None:
    array = frames(50)
    path = tmp_path / "root" / "a.b2nd"
    path.parent.mkdir()
    write_blosc2(path, array, clevel=0)
    newer = array.copy()
    newer[7] = newer[7, ::-1]

    async def scenario(net: Network) -> None:
        assert np.array_equal(await net.read("a.b2nd"), array)
        status = path.stat()
        write_blosc2(tmp_path / "other.b2nd", newer, clevel=0)
        stored = (tmp_path / "other.b2nd").read_bytes()
        with path.open("r+b") as file:  # in place: the same inode
            file.write(stored)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
        await net.rescan()
        assert np.array_equal(await net.read("a.b2nd"), newer)
        assert chunks_sent(net) == {7}

    play(tmp_path, scenario)


def test_v2_a_reader_of_a_growing_file_sees_what_is_there_or_is_told(tmp_path: Path) -> None:
    array = frames(120)
    path = tmp_path / "root" / "a.h5"
    path.parent.mkdir()
    write_hdf5(path, array[:20])

    async def scenario(net: Network) -> None:
        done = asyncio.Event()

        async def grow() -> None:
            for frame in array[20:60]:
                await asyncio.to_thread(append_hdf5, path, frame)
                await net.source.rescan([net.directory])
            done.set()

        async def follow() -> int:
            nread = 0
            while not done.is_set():
                try:
                    got = await read_array(net.cached, "a.h5/frames.b2nd")
                except (DatasetChangedError, DatasetNotFoundError):  # it cannot be opened while it is written
                    await asyncio.sleep(0)
                    continue
                assert np.array_equal(got, array[: len(got)])
                nread += 1
            return nread

        await asyncio.gather(grow(), follow())
        assert np.array_equal(await net.read("a.h5/frames.b2nd"), array[:60])
        assert len(net.upstream.sent) <= 4 * 60, "most of it stays from one version to the next"

    play(tmp_path, scenario)


def test_v2_a_file_that_is_cut_and_written_again_is_never_mixed(tmp_path: Path) -> None:
    path = tmp_path / "root" / "a.b2nd"
    path.parent.mkdir()
    arrays = [frames(30) + step for step in range(4)]
    write_blosc2(path, arrays[0])

    async def scenario(net: Network) -> None:
        for array in arrays:
            write_blosc2(tmp_path / "next.b2nd", array)
            stored = (tmp_path / "next.b2nd").read_bytes()
            os.truncate(path, 100)
            await net.source.rescan([net.directory])
            path.write_bytes(stored)
            await net.source.rescan([net.directory])
            assert np.array_equal(await net.read("a.b2nd"), array)

    play(tmp_path, scenario)


def test_v7_a_restored_backup_is_read_as_it_is_and_its_blocks_are_found(tmp_path: Path) -> None:
    path = tmp_path / "root" / "a.b2nd"
    path.parent.mkdir()
    array = frames(50)
    write_blosc2(path, array)
    shutil.copy2(path, tmp_path / "backup.b2nd")

    async def scenario(net: Network) -> None:
        first = await net.source.entry("a.b2nd")
        await net.read("a.b2nd")
        write_blosc2(path, array[::-1].copy())
        await net.rescan()
        second = await net.source.entry("a.b2nd")
        await net.read("a.b2nd")
        shutil.copy2(tmp_path / "backup.b2nd", path)
        await net.rescan()
        third = await net.source.entry("a.b2nd")
        assert len({first.version, second.version, third.version}) == 3
        assert np.array_equal(await net.read("a.b2nd"), array)
        assert net.upstream.sent == []

    play(tmp_path, scenario)
