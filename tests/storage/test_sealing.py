"""Sealed files against plain Blosc2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2
import h5py
import numpy as np
import pytest

from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.codec import encode_blocks
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.selection import Selection
from caterva2_jupyter.errors import NotCachedError, UnsupportedDatasetError
from caterva2_jupyter.storage.block_cache import BlockCache, CachedVersion
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.hdf5_root import Hdf5Root
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.storage.root import Root
from caterva2_jupyter.storage.sealing import seal


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlockCache]:
    with BlockCache(tmp_path / "cache", 1 << 28) as cache:
        yield cache


def entry_of(root: Root, path: str) -> Entry:
    return next(entry for entry, _ in root.scan(()) if entry.path == path)


def cached(cache: BlockCache, root: Root, path: str) -> CachedVersion:
    """A dataset with all its blocks in the cache, put there in two halves."""
    entry = entry_of(root, path)
    assert entry.geometry is not None
    version = cache.open(entry, "foo")
    for projection in BlockPlan(entry.geometry, Selection.whole(entry.geometry.shape)):
        for start in (1, 0):
            blocks = projection.blocks[start::2]
            if len(blocks):
                version.put(*root.read_chunk(entry, projection, blocks))
    return version


ARRAYS = {
    "plain": np.arange(60 * 70, dtype="<f4").reshape(60, 70),
    "big-endian": np.arange(1000, dtype=">i2"),
    "constant": np.full((50, 50), 7, "u1"),
    "noise": np.random.default_rng(1).integers(0, 2**60, (40, 30)),
    "records": np.array([(i, i / 3) for i in range(500)], dtype=[("a", "<i4"), ("b", "<f8")]),
}
CPARAMS: dict[str, Any] = {
    "zstd": {},
    "delta": {"filters": [blosc2.Filter.DELTA, blosc2.Filter.SHUFFLE]},
    "stored": {"clevel": 0},
    "lz4": {"codec": blosc2.Codec.LZ4, "filters": [blosc2.Filter.BITSHUFFLE]},
}


@pytest.mark.parametrize("cparams", CPARAMS)
@pytest.mark.parametrize("name", ARRAYS)
def test_a_sealed_file_is_the_array_for_plain_blosc2(
    cache: BlockCache, tmp_path: Path, name: str, cparams: str
) -> None:
    array = ARRAYS[name]
    (tmp_path / "root").mkdir()
    chunks = tuple(min(n, 17) for n in array.shape)
    blocks = tuple(min(n, 5) for n in array.shape)
    blosc2.asarray(
        array,
        urlpath=str(tmp_path / "root" / "x.b2nd"),
        chunks=chunks,
        blocks=blocks,
        cparams=blosc2.CParams(nthreads=1, **CPARAMS[cparams]),
    )
    version = cached(cache, DirectoryRoot(tmp_path / "root", "owner"), "x.b2nd")
    goal = tmp_path / "sealed.b2nd"
    seal(version, goal, {"units": "K", "n": np.int64(3), "list": np.arange(3)})
    sealed = blosc2.open(str(goal))
    assert (sealed.shape, sealed.dtype, sealed.chunks, sealed.blocks) == (array.shape, array.dtype, chunks, blocks)
    np.testing.assert_array_equal(sealed[...], array)
    np.testing.assert_array_equal(sealed[3:9], array[3:9])
    assert {key: sealed.schunk.vlmeta[key] for key in ("units", "n", "list")} == {
        "units": "K",
        "n": 3,
        "list": [0, 1, 2],
    }
    assert goal.stat().st_mode & 0o777 == 0o600
    # It can be published in its turn.
    again = cached(cache, DirectoryRoot(tmp_path, "other"), "sealed.b2nd")
    seal(again, tmp_path / "twice.b2nd", {})
    np.testing.assert_array_equal(blosc2.open(str(tmp_path / "twice.b2nd"))[...], array)


def test_blocks_of_several_heads_are_put_in_one_chunk(cache: BlockCache, tmp_path: Path) -> None:
    array = np.arange(40, dtype="<i4")
    root = MemoryRoot()
    root.set("x.b2nd", array, chunks=(20,), blocks=(5,))
    entry = entry_of(root, "x.b2nd")
    assert entry.geometry is not None
    version = cache.open(entry, "foo")
    for nchunk in range(2):
        part = array[nchunk * 20 : nchunk * 20 + 20]
        for ids, fast in (([0, 2], True), ([1, 3], False)):
            raw = b"".join(part[i * 5 : i * 5 + 5].tobytes() for i in ids)
            version.put(encode_blocks(version.seed, nchunk, ids, raw, entry.geometry, fast))
    seal(version, tmp_path / "x.b2nd", {})
    np.testing.assert_array_equal(blosc2.open(str(tmp_path / "x.b2nd"))[...], array)


def test_what_is_not_complete_is_refused_and_leaves_nothing(cache: BlockCache, tmp_path: Path) -> None:
    root = MemoryRoot()
    root.set("x.b2nd", np.arange(100), chunks=(50,), blocks=(10,))
    version = cached(cache, root, "x.b2nd")
    with (cache.directory / version.key / "data").open("r+b") as file:
        file.seek(40)
        file.write(b"?" * 20)  # noticed while it is written
    for _ in range(2):
        with pytest.raises(NotCachedError, match="prefetch"):
            seal(version, tmp_path / "x.b2nd", {})
        assert not (tmp_path / "x.b2nd").exists()
    seal(cached(cache, root, "x.b2nd"), tmp_path / "x.b2nd", {})
    np.testing.assert_array_equal(blosc2.open(str(tmp_path / "x.b2nd"))[...], np.arange(100))


def test_what_a_b2nd_cannot_hold_is_refused_with_the_reason(cache: BlockCache, tmp_path: Path) -> None:
    root = MemoryRoot()
    root.set("file.txt", b"text")
    root.set("scalar.b2nd", np.array(3))
    for path, reason in (("file.txt", "cut off|runs"), ("scalar.b2nd", "no chunks")):
        with pytest.raises(UnsupportedDatasetError, match=reason):
            seal(cache.open(entry_of(root, path), "foo"), tmp_path / "x.b2nd", {})


def test_a_file_that_is_there_is_not_overwritten(cache: BlockCache, tmp_path: Path) -> None:
    root = MemoryRoot()
    root.set("x.b2nd", np.arange(100))
    version = cached(cache, root, "x.b2nd")
    (tmp_path / "x.b2nd").write_text("mine")
    with pytest.raises(FileExistsError):
        seal(version, tmp_path / "x.b2nd", {})
    assert (tmp_path / "x.b2nd").read_text() == "mine"


@pytest.mark.parametrize("filters", [{"compression": "gzip", "shuffle": True}, {"compression": "gzip"}, {}])
def test_chunks_of_hdf5_files_are_sealed_without_decoding(
    cache: BlockCache, tmp_path: Path, filters: dict[str, Any]
) -> None:
    array = np.random.default_rng(2).normal(size=(400, 300)).round(2)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("x", data=array, chunks=(64, 64), **filters)
    root = Hdf5Root(tmp_path / "f.h5", "owner")
    try:
        seal(cached(cache, root, "x.b2nd"), tmp_path / "x.b2nd", {})
    finally:
        root.close()
    sealed = blosc2.open(str(tmp_path / "x.b2nd"))
    np.testing.assert_array_equal(sealed[...], array)
    np.testing.assert_array_equal(sealed[60:137, 15:180], array[60:137, 15:180])
