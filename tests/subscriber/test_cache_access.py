"""What a subscriber tells of its cache, and takes up of its use."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from caterva2_jupyter.core.blocks import checksum_seed
from caterva2_jupyter.core.cache_location import version_directory
from caterva2_jupyter.core.codec import encode_chunk
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.errors import NotFoundError
from caterva2_jupyter.storage.block_cache import BlockCache, CachedVersion
from caterva2_jupyter.subscriber.cache_access import CacheAccess

GEOMETRY = Geometry((40_000,), (10_000,), (10_000,), np.dtype("<f8"))


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def keep(cache: BlockCache, name: str, nchunk: int = 0) -> CachedVersion:
    version = cache.open(Entry(f"{name}.b2nd", "array", id=name, version="v", geometry=GEOMETRY), "foo")
    noise = np.random.default_rng(nchunk).random(10_000)
    version.put(encode_chunk(checksum_seed(name, "v"), nchunk, noise.tobytes(), GEOMETRY))
    return version


def test_the_location_is_proved_by_a_file_of_this_user_alone(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    access = CacheAccess(executor)
    with pytest.raises(NotFoundError):
        access.location  # noqa: B018
    with BlockCache(tmp_path / "blocks", 1 << 20) as cache:
        for _ in range(2):  # a file of an earlier run is replaced
            access.open(cache)
            proof = Path(access.location.directory) / access.location.proof
            assert access.location.is_proved_by(proof.read_bytes())
            assert stat.S_IMODE(proof.stat().st_mode) == 0o600
        kept = keep(cache, "a")
        assert (Path(access.location.directory) / version_directory("foo", "a", "v")).is_dir()
        assert kept.key == version_directory("foo", "a", "v")
    with BlockCache(tmp_path / "blocks", 1 << 20) as cache:
        assert len(cache.stored()) == 1, "the file of the proof is in nobody's way"


def test_a_cache_that_cannot_be_written_to_is_not_told_of(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    access = CacheAccess(executor)
    with BlockCache(tmp_path / "blocks", 1 << 20) as cache:
        (tmp_path / "blocks" / "proof").mkdir()
        access.open(cache)
        with pytest.raises(NotFoundError):
            access.location  # noqa: B018


def test_what_was_read_from_the_files_is_not_the_first_to_go(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    access = CacheAccess(executor)
    with BlockCache(tmp_path / "blocks", 240_000) as cache:
        access.open(cache)
        a, b = keep(cache, "a"), keep(cache, "b")
        asyncio.run(access.note_uses([("foo", "a", "v", [(0, [0])])]))
        for nchunk in range(2):
            keep(cache, "c", nchunk)
        assert a.held(0, [0]).all()
        assert not b.held(0, [0]).any()
