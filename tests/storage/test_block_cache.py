"""The cache on disk: it may lose blocks, it never gives a wrong one."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from caterva2_jupyter.core.blocks import WHOLE, BlockRecord, checksum_seed, make_record, whole_record
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.errors import IntegrityError
from caterva2_jupyter.storage import block_cache
from caterva2_jupyter.storage.block_cache import BlockCache, CachedVersion

QUOTA = 64 << 20
NCHUNKS, NBLOCKS = 12, 10
GEOMETRY = Geometry((NCHUNKS * NBLOCKS * 1000,), (NBLOCKS * 1000,), (1000,), np.dtype("u1"))


def entry_of(name: str = "a", version: str = "v1") -> Entry:
    return Entry(f"{name}.b2nd", "array", id=name, version=version, geometry=GEOMETRY)


def body_of(entry: Entry, nchunk: int, block: int, nbytes: int = 300) -> bytes:
    """The same bytes for the same block, other ones for any other."""
    return random.Random(f"{entry.id} {entry.version} {nchunk} {block}").randbytes(nbytes + block)


def record_of(entry: Entry, nchunk: int, blocks: Sequence[int], head: bytes = b"", nbytes: int = 300) -> BlockRecord:
    head = head or b"head of chunk %06d.............." % nchunk
    seed = checksum_seed(entry.id, entry.version)
    return make_record(seed, nchunk, head, blocks, [body_of(entry, nchunk, b, nbytes) for b in blocks])


def blocks_in(records: Sequence[BlockRecord]) -> dict[int, bytes]:
    return {block: bytes(data) for record in records for block, _, data in record.blocks()}


def assert_only_truth(version: CachedVersion, entry: Entry) -> int:
    """Whatever is given is right; returns how many blocks were."""
    given_blocks = 0
    for nchunk in range(NCHUNKS):
        for record in version.get(nchunk, range(NBLOCKS)):
            record.verify(version.seed)
            for block, data in blocks_in([record]).items():
                assert data == body_of(entry, nchunk, block)
                given_blocks += 1
    return given_blocks


def fill(cache: BlockCache, entry: Entry, root: str = "foo") -> CachedVersion:
    version = cache.open(entry, root)
    for nchunk in range(NCHUNKS):
        version.put(record_of(entry, nchunk, range(0, NBLOCKS, 2)))
        version.put(record_of(entry, nchunk, range(1, NBLOCKS, 2)))
    return version


def files_of(cache: BlockCache, version: CachedVersion) -> dict[str, Path]:
    return {path.name: path for path in (cache.directory / version.key).iterdir()}


def disk_usage(directory: Path) -> int:
    """Bytes of all files of blocks, holes left out."""
    nbytes = 0
    for path in directory.rglob("*"):
        if path.is_file() and path.name not in ("lock", "pins.json"):
            status = path.stat()
            pages = -(-status.st_size // status.st_blksize) * status.st_blksize
            nbytes += status.st_size - max(0, pages - status.st_blocks * 512)
    return nbytes


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlockCache]:
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        yield cache


# What is put is there


def test_blocks_come_back_as_they_were_put(cache: BlockCache) -> None:
    entry = entry_of()
    version = cache.open(entry, "foo")
    assert version.held(3, range(NBLOCKS)).tolist() == [False] * NBLOCKS
    assert version.get(3, range(NBLOCKS)) == []
    assert version.put(record_of(entry, 3, [1, 4, 5])) == 3
    assert np.flatnonzero(version.held(3, range(NBLOCKS))).tolist() == [1, 4, 5]
    (record,) = version.get(3, [0, 1, 5])
    record.verify(version.seed)
    assert record.ids.tolist() == [1, 5]
    assert blocks_in([record]) == {1: body_of(entry, 3, 1), 5: body_of(entry, 3, 5)}
    assert record.head == record_of(entry, 3, [1]).head
    assert version.get(2, range(NBLOCKS)) == []


def test_blocks_that_are_kept_already_are_not_written_again(cache: BlockCache) -> None:
    entry = entry_of()
    version = cache.open(entry, "foo")
    version.put(record_of(entry, 0, [0, 1]))
    assert version.put(record_of(entry, 0, [1, 2])) == 1
    usage = cache.usage_nbytes
    assert version.put(record_of(entry, 0, [0, 1, 2])) == 0
    assert cache.usage_nbytes == usage


def test_blocks_of_several_heads_come_as_a_record_each(cache: BlockCache) -> None:
    entry = entry_of()
    version = cache.open(entry, "foo")
    version.put(record_of(entry, 0, [0, 2]), record_of(entry, 0, [1], head=b"another head"))
    records = version.get(0, range(NBLOCKS))
    assert sorted(r.ids.tolist() for r in records) == [[0, 2], [1]]
    assert assert_only_truth(version, entry) == 3


def test_a_whole_chunk_has_all_its_blocks(cache: BlockCache) -> None:
    entry = entry_of()
    version = cache.open(entry, "foo")
    version.put(record_of(entry, 5, [2]), whole_record(version.seed, 5, b"all of it"))
    assert version.held(5, range(NBLOCKS)).all()
    (record,) = version.get(5, [7])
    assert record.is_whole
    assert bytes(record.body) == b"all of it"


def test_a_constant_chunk_takes_its_head_alone(cache: BlockCache) -> None:
    entry = entry_of()
    version = cache.open(entry, "foo")
    version.put(make_record(version.seed, 0, b"all sevens", [0, 1, 2], [b"", b"", b""]))
    (record,) = version.get(0, [0, 2])
    record.verify(version.seed)
    assert (record.head, record.ids.tolist(), bytes(record.body)) == (b"all sevens", [0, 2], b"")


def test_blocks_survive_a_restart(tmp_path: Path) -> None:
    entry = entry_of()
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        fill(cache, entry)
    usage = cache.usage_nbytes
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        assert cache.usage_nbytes == usage == disk_usage(cache.directory)
        version = cache.open(entry, "foo")
        assert all(version.held(n, range(NBLOCKS)).all() for n in range(NCHUNKS))
        assert assert_only_truth(version, entry) == NCHUNKS * NBLOCKS
        assert cache.geometry("foo", entry.id, entry.version) == GEOMETRY
        assert cache.geometry("foo", entry.id, "another") is None


def test_roots_datasets_and_versions_are_kept_apart(cache: BlockCache) -> None:
    mine = fill(cache, entry_of())
    assert mine.held(0, [0]).all()
    # Another publisher may say that its dataset has the same id and version.
    for entry, root in [(entry_of(), "bar"), (entry_of("b"), "foo"), (entry_of(version="v2"), "foo")]:
        assert not cache.open(entry, root).held(0, [0]).any()
        assert cache.open(entry, root).get(0, [0]) == []


def test_more_datasets_than_files_may_be_open(tmp_path: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0

    with BlockCache(tmp_path / "cache", QUOTA, max_open=4) as cache:
        before = open_files()
        entries = [entry_of(f"d{i}") for i in range(30)]
        for entry in entries:
            cache.open(entry, "foo").put(record_of(entry, 1, [1]))
        assert open_files() - before <= 2 * 4
        for entry in entries:
            assert assert_only_truth(cache.open(entry, "foo"), entry) == 1


def test_thousands_of_changed_chunks_fold_into_one_table(tmp_path: Path) -> None:
    geometry = Geometry((20_000,), (2,), (1,), np.dtype("u1"))
    entry = Entry("a.b2nd", "array", id="a", version="v", geometry=geometry)
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        version = cache.open(entry, "foo")
        for block in (0, 1):
            version.put(*(record_of(entry, n, [block], nbytes=5) for n in range(9_000)))
        assert all(version.held(n, [0, 1]).all() for n in range(9_000))
        assert not version.held(9_500, [0, 1]).any()
        assert blocks_in(version.get(8_999, [1])) == {1: body_of(entry, 8_999, 1, 5)}


def test_files_are_for_their_owner_alone(cache: BlockCache) -> None:
    fill(cache, entry_of())
    for path in [cache.directory, *cache.directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


# What is not right does not get in


@pytest.mark.parametrize("damage", ["body", "head", "checksum", "chunk", "short"])
def test_a_damaged_record_is_refused(cache: BlockCache, damage: str) -> None:
    entry = entry_of()
    version = cache.open(entry, "foo")
    good = record_of(entry, 1, [2, 3])
    body, head = bytearray(good.body), good.head
    body[5] ^= 1
    bad = {
        "body": BlockRecord(1, head, good.ids, good.sizes, good.crcs, bytes(body)),
        "head": BlockRecord(1, head[:-1] + b"x", good.ids, good.sizes, good.crcs, good.body),
        "checksum": BlockRecord(1, head, good.ids, good.sizes, good.crcs ^ 1, good.body),
        "chunk": BlockRecord(2, head, good.ids, good.sizes, good.crcs, good.body),
        "short": BlockRecord(1, head, good.ids, good.sizes, good.crcs, bytes(good.body)[:-1]),
    }[damage]
    with pytest.raises(IntegrityError):
        version.put(record_of(entry, 0, [0]), bad)
    assert not version.held(0, [0]).any()
    assert not version.held(1, [2, 3]).any()


@pytest.mark.parametrize(("nchunk", "blocks"), [(NCHUNKS, [0]), (0, [NBLOCKS]), (0, [3, 2]), (0, [1, 1]), (0, [])])
def test_a_record_that_does_not_fit_is_refused(cache: BlockCache, nchunk: int, blocks: list[int]) -> None:
    entry = entry_of()
    with pytest.raises(IntegrityError):
        cache.open(entry, "foo").put(record_of(entry, nchunk, blocks))


def test_a_record_of_another_version_is_refused(cache: BlockCache) -> None:
    with pytest.raises(IntegrityError):
        cache.open(entry_of(), "foo").put(record_of(entry_of(version="v2"), 0, [0]))


# What was damaged on disk does not get out


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Entry]:
    """A cache directory with all blocks of one dataset."""
    directory, entry = tmp_path_factory.mktemp("filled") / "cache", entry_of()
    with BlockCache(directory, QUOTA) as cache:
        fill(cache, entry)
    return directory, entry


@contextmanager
def a_damaged_copy(filled: tuple[Path, Entry], name: str, damage: Callable[[bytes], bytes]) -> Iterator[BlockCache]:
    """A cache over a copy whose file ``name`` was changed before the start."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(shutil.copytree(filled[0], Path(directory) / "cache"))
        (path,) = copy.rglob(name)
        path.write_bytes(damage(path.read_bytes()))
        with BlockCache(copy, QUOTA) as cache:
            yield cache


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("name", ["data", "journal", "meta.json"])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bit=st.integers(0, 2**40))
def test_a_flipped_bit_is_always_noticed(filled: tuple[Path, Entry], name: str, bit: int) -> None:
    entry = filled[1]
    with a_damaged_copy(filled, name, lambda data: flip(data, bit)) as cache:
        version = cache.open(entry, "foo")
        given_blocks = assert_only_truth(version, entry)
        if name == "data":
            # Only what decodes with those bytes is lost: one block, or those of one head.
            assert NCHUNKS * NBLOCKS - NBLOCKS <= given_blocks < NCHUNKS * NBLOCKS
            assert cache.counters.corrupt == NCHUNKS * NBLOCKS - given_blocks
        fill(cache, entry)  # fetched again
        assert assert_only_truth(version, entry) == NCHUNKS * NBLOCKS


@pytest.mark.parametrize("name", ["data", "journal", "meta.json"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0, 1), filler=st.sampled_from([b"", b"\0", b"\xff", b"?"]))
def test_a_file_that_is_cut_or_overwritten_is_noticed(
    filled: tuple[Path, Entry], name: str, part: float, filler: bytes
) -> None:
    entry = filled[1]

    def damage(data: bytes) -> bytes:
        cut = int(len(data) * part)
        return data[:cut] + filler * (len(data) - cut)

    with a_damaged_copy(filled, name, damage) as cache:
        version = cache.open(entry, "foo")
        assert_only_truth(version, entry)
        fill(cache, entry)
        assert assert_only_truth(version, entry) == NCHUNKS * NBLOCKS


@settings(max_examples=100, deadline=None)
@given(bit=st.integers(0, 2**40), nchunk=st.integers(0, NCHUNKS - 1))
def test_a_bit_that_flips_while_the_file_is_open_is_noticed(bit: int, nchunk: int) -> None:
    entry = entry_of()
    with tempfile.TemporaryDirectory() as directory, BlockCache(Path(directory) / "cache", QUOTA) as cache:
        version = cache.open(entry, "foo")
        version.put(record_of(entry, nchunk, range(NBLOCKS)))
        data = files_of(cache, version)["data"]
        with data.open("r+b") as file:
            changed = flip(file.read(), bit)
            file.seek(0)
            file.write(changed)
        assert assert_only_truth(version, entry) < NBLOCKS
        assert cache.counters.corrupt > 0
        held = version.held(nchunk, range(NBLOCKS))
        assert sorted(blocks_in(version.get(nchunk, range(NBLOCKS)))) == np.flatnonzero(held).tolist()
        version.put(record_of(entry, nchunk, range(NBLOCKS)))
        assert assert_only_truth(version, entry) == NBLOCKS


def test_a_damaged_whole_chunk_gives_way_to_its_blocks(cache: BlockCache) -> None:
    entry = entry_of()
    version = cache.open(entry, "foo")
    version.put(record_of(entry, 5, [2, 3]))
    version.put(whole_record(version.seed, 5, b"all of it"))
    data = files_of(cache, version)["data"]
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    assert blocks_in(version.get(5, [1, 2])) == {2: body_of(entry, 5, 2)}
    assert version.held(5, [1, 2, 3, WHOLE]).tolist() == [False, True, True, False]


@pytest.mark.parametrize("name", ["data", "journal", "meta.json"])
def test_files_of_another_dataset_are_noticed(tmp_path: Path, name: str) -> None:
    entries = entry_of("a"), entry_of("b")
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        first, second = (files_of(cache, fill(cache, entry))[name] for entry in entries)
    first.rename(tmp_path / "swapped")
    second.rename(first)
    (tmp_path / "swapped").rename(second)
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        for entry in entries:
            assert assert_only_truth(cache.open(entry, "foo"), entry) == 0


@pytest.mark.parametrize("name", ["data", "journal", "meta.json"])
def test_a_missing_file_costs_its_version_alone(tmp_path: Path, name: str) -> None:
    entries = entry_of("a"), entry_of("b")
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        files = [files_of(cache, fill(cache, entry)) for entry in entries]
    files[0][name].unlink()
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        kept = [assert_only_truth(cache.open(entry, "foo"), entry) for entry in entries]
        assert kept == [0, NCHUNKS * NBLOCKS]
        assert cache.usage_nbytes == disk_usage(cache.directory)
        assert fill(cache, entries[0]).held(0, range(NBLOCKS)).all()


@pytest.mark.parametrize("format_number", [0, 2, "1", None])
def test_another_format_is_set_aside(tmp_path: Path, format_number: object) -> None:
    entry = entry_of()
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        meta = files_of(cache, fill(cache, entry))["meta.json"]
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": format_number}))
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        version = cache.open(entry, "foo")
        assert assert_only_truth(version, entry) == 0
        assert cache.counters.dropped == 1
        assert fill(cache, entry).held(0, [0]).all()


def test_another_geometry_under_the_same_version_is_set_aside(tmp_path: Path) -> None:
    other = Geometry(GEOMETRY.shape, GEOMETRY.chunks, (500,), GEOMETRY.dtype)
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        fill(cache, entry_of())
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        version = cache.open(Entry("a.b2nd", "array", id="a", version="v1", geometry=other), "foo")
        assert not version.held(0, range(20)).any()


# Processes that die, and processes side by side

WRITER = """
import sys
from pathlib import Path
from caterva2_jupyter.storage.block_cache import BlockCache
from tests.storage.test_block_cache import NBLOCKS, NCHUNKS, QUOTA, entry_of, record_of

with BlockCache(Path(sys.argv[1]), QUOTA) as cache:
    for number in range(int(sys.argv[2]), 10**6):
        entry = entry_of(f"d{number % 3}", f"v{number}")
        version = cache.open(entry, "foo")
        for nchunk in range(NCHUNKS):
            version.put(*(record_of(entry, nchunk, [b, b + 1]) for b in range(0, NBLOCKS, 2)))
            print(number, nchunk, flush=True)
"""


def test_a_process_killed_while_it_writes_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    rounds = int(os.environ.get("CATERVA2_KILLS", "6"))
    rng = random.Random(5)
    kept: set[tuple[int, int]] = set()
    for number in range(rounds):
        arguments = [sys.executable, "-c", WRITER, str(tmp_path / "cache"), str(number * 1000)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(rng.randrange(1, 60))]
            writer.send_signal(signal.SIGKILL)
            lines += writer.stdout.readlines()
        told = [line.split() for line in lines if line.endswith("\n")]
        kept |= {(int(n), int(c)) for n, c in told}
        with BlockCache(tmp_path / "cache", QUOTA) as cache:
            assert cache.directory == tmp_path / "cache"  # the lock went with the process
            for version_number in {n for n, _ in kept}:
                entry = entry_of(f"d{version_number % 3}", f"v{version_number}")
                version = cache.open(entry, "foo")
                assert_only_truth(version, entry)
                assert all(version.held(c, range(NBLOCKS)).all() for n, c in kept if n == version_number)
            assert cache.usage_nbytes == disk_usage(cache.directory)
            assert cache.counters.corrupt == 0
    names = {p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    assert names <= {"lock", "data", "journal", "meta.json", "uses"}


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        version = fill(cache, entry_of())
    usage = cache.usage_nbytes
    unfinished = tmp_path / "cache" / "0123" / "4567"
    unfinished.mkdir(parents=True)
    (unfinished / "meta.json.part").write_text("{")
    trash = tmp_path / "cache" / "trash-1-1"
    shutil.copytree(tmp_path / "cache" / version.key, trash)
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        assert not unfinished.exists()
        assert not trash.exists()
        assert cache.usage_nbytes == usage == disk_usage(cache.directory)


def test_a_second_process_keeps_a_cache_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = entry_of()
    with BlockCache(tmp_path / "cache", QUOTA) as first:
        with caplog.at_level(logging.WARNING), BlockCache(tmp_path / "cache", QUOTA) as second:
            assert second.directory == tmp_path / "cache-2"
            assert f"in use by process {os.getpid()}" in caplog.text
            fill(second, entry)
        assert not first.open(entry, "foo").held(0, [0]).any()
    with BlockCache(tmp_path / "cache", QUOTA) as again:
        assert again.directory == tmp_path / "cache"


# Disks that say no


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, after: int, torn: bool) -> None:
    """Calls of ``os.<name>`` fail with ``number`` from the ``after``-th on; a torn write does a part first."""
    real = getattr(os, name)
    calls = iter(range(10**9))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) >= after:
            if torn:
                fd, parts, offset = args
                data = b"".join(parts)
                real(fd, [data[: len(data) // 2]], offset)
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    monkeypatch.setattr(block_cache.os, name, call)


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("after", range(8))
def test_a_full_disk_at_any_write_costs_the_cache_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, after: int, torn: bool
) -> None:
    entry = entry_of()
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        version = cache.open(entry, "foo")
        with pytest.MonkeyPatch.context() as monkeypatch:
            failing(monkeypatch, "pwritev", errno.ENOSPC, after, torn)
            for nchunk in range(6):
                version.put(record_of(entry, nchunk, [0, 1]))
            assert assert_only_truth(version, entry) < 12
        assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1
        assert cache.counters.refused > 0
        assert fill(cache, entry).held(0, range(NBLOCKS)).all()  # there is room again
        assert assert_only_truth(version, entry) == NCHUNKS * NBLOCKS
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        assert assert_only_truth(cache.open(entry, "foo"), entry) == NCHUNKS * NBLOCKS


@pytest.mark.parametrize(("name", "number"), [("open", errno.EROFS), ("open", errno.EMFILE), ("pread", errno.EIO)])
def test_a_disk_that_fails_costs_the_cache_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, number: int
) -> None:
    entry = entry_of()
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        fill(cache, entry)
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        version = cache.open(entry, "foo")
        with pytest.MonkeyPatch.context() as monkeypatch:
            failing(monkeypatch, name, number, 0, torn=False)
            assert version.get(0, range(NBLOCKS)) == []
            version.put(record_of(entry, 0, [0, 1]))
        assert len(caplog.records) == 1
        assert assert_only_truth(version, entry) == NCHUNKS * NBLOCKS


def test_a_directory_that_cannot_be_made_costs_the_cache_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    entry = entry_of()
    with BlockCache(tmp_path / "file" / "cache", QUOTA) as cache:
        version = cache.open(entry, "foo")
        assert version.put(record_of(entry, 0, [0])) == 0
        assert version.get(0, [0]) == []


def test_a_directory_removed_while_running_costs_the_cache_only(tmp_path: Path) -> None:
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        fill(cache, entry_of("a"))
        shutil.rmtree(tmp_path / "cache")
        for name in ("a", "b"):
            version = fill(cache, entry_of(name))
            assert_only_truth(version, entry_of(name))


def test_a_closed_cache_holds_nothing(tmp_path: Path) -> None:
    entry = entry_of()
    cache = BlockCache(tmp_path / "cache", QUOTA)
    version = fill(cache, entry)
    cache.close()
    assert version.get(0, [0]) == []
    assert not version.held(0, [0]).any()
    assert version.put(record_of(entry, 0, [0])) == 0


# The quota


def test_the_version_unused_for_longest_goes_first(tmp_path: Path) -> None:
    entries = [entry_of(f"d{i}") for i in range(3)]
    with BlockCache(tmp_path / "one", QUOTA) as cache:
        fill(cache, entries[0])
        nbytes = cache.usage_nbytes
    with BlockCache(tmp_path / "cache", int(2.5 * nbytes)) as cache:
        fill(cache, entries[0])
        fill(cache, entries[1])
        cache.open(entries[0], "foo").get(0, [0])
        fill(cache, entries[2])
        kept = [bool(cache.open(entry, "foo").held(0, [0]).any()) for entry in entries]
        assert kept == [True, False, True]
        assert cache.counters.evicted == 1
        assert cache.usage_nbytes == disk_usage(cache.directory) <= cache.quota_nbytes


def test_a_smaller_quota_is_kept_from_the_start(tmp_path: Path) -> None:
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        for i in range(6):
            fill(cache, entry_of(f"d{i}"))
        quota = cache.usage_nbytes // 2
    with BlockCache(tmp_path / "cache", quota) as cache:
        assert 0 < cache.usage_nbytes <= quota
        assert disk_usage(cache.directory) == cache.usage_nbytes
        assert cache.open(entry_of("d5"), "foo").held(0, [0]).any()


def test_a_dataset_larger_than_the_quota_is_kept_in_part(tmp_path: Path) -> None:
    entry = entry_of()
    with BlockCache(tmp_path / "cache", 9_000) as cache:
        version = cache.open(entry, "foo")
        for _ in range(3):
            for nchunk in range(NCHUNKS):
                assert version.put(record_of(entry, nchunk, range(NBLOCKS))) in (0, NBLOCKS)
                assert disk_usage(cache.directory) <= 9_000
                assert assert_only_truth(version, entry) >= NBLOCKS
        assert version.put(record_of(entry, 0, [0], head=b"large" * 3_000)) == 0  # for no eviction would help


def test_a_quota_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    entry = entry_of()
    with BlockCache(tmp_path / "cache", 0) as cache:
        assert cache.open(entry, "foo").put(record_of(entry, 0, [0])) == 0
        assert cache.usage_nbytes == disk_usage(cache.directory) == 0


def test_usage_stays_under_the_quota_with_many_readers_and_writers(tmp_path: Path) -> None:
    entries = [entry_of(f"d{i}") for i in range(6)]
    quota = 100_000
    over: list[int] = []
    with BlockCache(tmp_path / "cache", quota, max_open=3) as cache:

        def use(number: int) -> None:
            rng = random.Random(number)
            for _ in range(60):
                entry = rng.choice(entries)
                version = cache.open(entry, "foo")
                nchunk, blocks = rng.randrange(NCHUNKS), sorted(rng.sample(range(NBLOCKS), 4))
                version.put(record_of(entry, nchunk, blocks))
                for record in version.get(nchunk, range(NBLOCKS)):
                    for block, data in blocks_in([record]).items():
                        assert data == body_of(entry, nchunk, block)
                if cache.usage_nbytes > quota:
                    over.append(cache.usage_nbytes)

        with ThreadPoolExecutor(16) as executor:
            list(executor.map(use, range(16)))
        assert not over
        assert cache.counters.evicted > 0
        assert cache.counters.corrupt == 0
        assert cache.usage_nbytes == disk_usage(cache.directory)


def test_threads_may_put_the_same_blocks(cache: BlockCache) -> None:
    entry = entry_of()
    version = cache.open(entry, "foo")
    start = threading.Barrier(8)

    def put() -> int:
        start.wait()
        return sum(version.put(record_of(entry, nchunk, range(NBLOCKS))) for nchunk in range(NCHUNKS))

    with ThreadPoolExecutor(8) as executor:
        written = sum(future.result() for future in [executor.submit(put) for _ in range(8)])
    assert written == NCHUNKS * NBLOCKS
    assert assert_only_truth(version, entry) == NCHUNKS * NBLOCKS


# All of it together


class CacheMachine(RuleBasedStateMachine):
    """Puts, reads, restarts, damage and evictions in any order, against a set of what was put."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp()) / "cache"
        self.entries = [entry_of(name, version) for name in "ab" for version in ("v1", "v2")]
        self.put_blocks: set[tuple[int, int, int]] = set()
        self.is_damaged = False

    @initialize(quota=st.sampled_from([20_000, QUOTA]))
    def begin(self, quota: int) -> None:
        self.cache = BlockCache(self.directory, quota, max_open=2)

    @rule(which=st.integers(0, 3), nchunk=st.integers(0, 3), blocks=st.sets(st.integers(0, NBLOCKS - 1), min_size=1))
    def put(self, which: int, nchunk: int, blocks: set[int]) -> None:
        self.cache.open(self.entries[which], "foo").put(record_of(self.entries[which], nchunk, sorted(blocks)))
        self.put_blocks |= {(which, nchunk, block) for block in blocks}

    @rule(which=st.integers(0, 3), nchunk=st.integers(0, 3))
    def read(self, which: int, nchunk: int) -> None:
        entry, version = self.entries[which], self.cache.open(self.entries[which], "foo")
        got = blocks_in(version.get(nchunk, range(NBLOCKS)))
        assert all(data == body_of(entry, nchunk, block) for block, data in got.items())
        assert all((which, nchunk, block) in self.put_blocks for block in got)
        assert np.flatnonzero(version.held(nchunk, range(NBLOCKS))).tolist() == sorted(got)
        if not self.is_damaged and not self.cache.counters.evicted:
            assert {(which, nchunk, block) for block in got} == {
                key for key in self.put_blocks if key[:2] == (which, nchunk)
            }

    @rule(quota=st.sampled_from([20_000, QUOTA]))
    def restart(self, quota: int) -> None:
        evicted = self.cache.counters.evicted
        self.cache.close()
        self.cache = BlockCache(self.directory, quota, max_open=2)
        self.cache.counters.evicted += evicted

    @rule(name=st.sampled_from(["data", "journal"]), which=st.integers(0, 100), bit=st.integers(0, 2**30))
    def damage(self, name: str, which: int, bit: int) -> None:
        paths = sorted(self.directory.rglob(name))
        if paths and (data := paths[which % len(paths)].read_bytes()):
            self.is_damaged = True
            with paths[which % len(paths)].open("r+b") as file:
                file.write(flip(data, bit))

    @invariant()
    def accounts_are_true(self) -> None:
        if hasattr(self, "cache"):
            assert self.cache.usage_nbytes == disk_usage(self.directory) <= self.cache.quota_nbytes

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.close()
        with suppress(OSError):
            shutil.rmtree(self.directory.parent)


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
