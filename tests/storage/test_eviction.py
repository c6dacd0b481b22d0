"""What goes when the cache is full: blocks by their last use, nothing pinned, and no byte more than the quota."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.storage import block_cache, block_log
from caterva2_jupyter.storage.block_cache import BlockCache, CachedVersion
from caterva2_jupyter.storage.eviction import UNIT_NBYTES, Candidate, choose_victims
from caterva2_jupyter.storage.hole_punching import can_punch_holes
from tests.storage.test_block_cache import blocks_in, body_of, disk_usage, record_of

NCHUNKS, NBLOCKS, BLOCK_NBYTES = 4, 10, 20_000
GEOMETRY = Geometry((NCHUNKS * NBLOCKS * BLOCK_NBYTES,), (NBLOCKS * BLOCK_NBYTES,), (BLOCK_NBYTES,), np.dtype("u1"))
QUOTA = 1 << 20


def entry_of(name: str = "a", version: str = "v1") -> Entry:
    return Entry(f"{name}.b2nd", "array", id=name, version=version, geometry=GEOMETRY)


def fill(cache: BlockCache, entry: Entry, nchunks: int = NCHUNKS) -> CachedVersion:
    version = cache.open(entry, "foo")
    for nchunk in range(nchunks):
        for block in range(NBLOCKS):
            version.put(record_of(entry, nchunk, [block], nbytes=BLOCK_NBYTES))
    return version


def held(version: CachedVersion) -> set[tuple[int, int]]:
    return {(n, b) for n in range(NCHUNKS) for b in np.flatnonzero(version.held(n, range(NBLOCKS))).tolist()}


def assert_accounts_are_true(cache: BlockCache) -> None:
    """Within the quota, and what is on disk; file systems count a page or two for the list of a file's holes."""
    assert cache.usage_nbytes <= cache.quota_nbytes
    nversions = len(list(cache.directory.rglob("data")))
    assert 0 <= disk_usage(cache.directory) - cache.usage_nbytes <= 8192 * nversions


def check(version: CachedVersion, entry: Entry) -> int:
    """What is held is given, and right; how many blocks."""
    found = 0
    for nchunk in range(NCHUNKS):
        for block, data in blocks_in(version.get(nchunk, range(NBLOCKS))).items():
            assert data == body_of(entry, nchunk, block, BLOCK_NBYTES)
            found += 1
    return found


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlockCache]:
    if not can_punch_holes(tmp_path):
        pytest.skip("this file system cannot punch holes")
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        yield cache


# Choosing


def candidate(key: str, *ticks: int, nbytes: int = UNIT_NBYTES) -> Candidate:
    numbers = np.arange(len(ticks))
    return Candidate(key, np.array(ticks), numbers * nbytes, np.full(len(ticks), nbytes))


def test_the_least_recently_used_blocks_of_all_versions_go() -> None:
    victims = choose_victims([candidate("a", 5, 1, 9), candidate("b", 2, 7)], 2 * UNIT_NBYTES)
    assert {key: mask.tolist() for key, mask in victims.items()} == {"a": [False, True, False], "b": [True, False]}


def test_small_neighbours_go_together_when_none_of_them_was_used() -> None:
    small = UNIT_NBYTES // 4
    victims = choose_victims([candidate("a", 1, 1, 1, 9, 2, 2, 2, 2, nbytes=small)], small)
    assert victims["a"].tolist() == [False] * 4 + [True] * 4


def test_nothing_to_choose_from_gives_nothing() -> None:
    none = np.zeros(0, np.int64)
    assert choose_victims([], 10) == {}
    assert choose_victims([Candidate("a", none, none, none)], 10) == {}
    assert choose_victims([candidate("a", 1)], 10**9)["a"].tolist() == [True]


# Blocks


def test_blocks_that_are_used_stay_and_others_of_the_same_chunk_go(cache: BlockCache) -> None:
    first, second = entry_of("a"), entry_of("b")
    version = fill(cache, first)
    hot = [(n, b) for n in range(NCHUNKS) for b in (3, 7)]
    for nchunk in range(NCHUNKS):
        version.get(nchunk, [3, 7])
    fill(cache, second, 2)
    left = held(version)
    assert set(hot) <= left < {(n, b) for n in range(NCHUNKS) for b in range(NBLOCKS)}
    assert cache.counters.evicted == 0
    assert cache.counters.evicted_blocks == NCHUNKS * NBLOCKS - len(left)
    assert check(version, first) == len(left)
    assert cache.counters.corrupt == 0
    assert_accounts_are_true(cache)
    assert fill(cache, first).held(0, range(NBLOCKS)).all()  # fetched again


def test_a_use_that_was_told_counts(cache: BlockCache) -> None:
    version = fill(cache, entry_of("a"))
    version.touch(0, [0, 1])
    fill(cache, entry_of("b"), 2)
    assert {(0, 0), (0, 1)} <= held(version)
    assert (0, 2) not in held(version)


def test_looking_is_no_use(cache: BlockCache) -> None:
    version = fill(cache, entry_of("a"))
    version.held(0, range(NBLOCKS))
    version.verify(0)
    fill(cache, entry_of("b"), 2)
    assert not version.held(0, range(NBLOCKS)).any()


def test_the_order_of_use_survives_a_restart(tmp_path: Path) -> None:
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        version = fill(cache, entry_of("a"))
        version.get(0, [0])
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        fill(cache, entry_of("b"), 2)
        left = held(cache.open(entry_of("a"), "foo"))
        assert (0, 0) in left
        assert (0, 2) not in left
        assert cache.counters.evicted == 0


def test_the_order_of_use_is_no_matter_of_clocks(tmp_path: Path) -> None:
    """FAULTS S9: file times from 1970 or the next century change nothing."""
    for mtime in (0, 2**33):
        directory = tmp_path / str(mtime)
        with BlockCache(directory, QUOTA) as cache:
            fill(cache, entry_of("a"), 2)
            version = fill(cache, entry_of("b"), 2)
            for path in (directory / version.key).iterdir():
                os.utime(path, (mtime, mtime))
        with BlockCache(directory, QUOTA) as cache:
            fill(cache, entry_of("c"), 2)
            assert not held(cache.open(entry_of("a"), "foo")) >= {(0, 0)}
            assert len(held(cache.open(entry_of("b"), "foo"))) == 2 * NBLOCKS


def test_a_file_of_uses_that_is_damaged_costs_the_order_alone(tmp_path: Path) -> None:
    entry = entry_of("a")
    for damage in (b"", b"C2U1", b"\xff" * 200):
        directory = tmp_path / damage.hex()[:8]
        with BlockCache(directory, QUOTA) as cache:
            key = fill(cache, entry).key
        (directory / key / "uses").write_bytes(damage)
        with BlockCache(directory, QUOTA) as cache:
            assert check(cache.open(entry, "foo"), entry) == NCHUNKS * NBLOCKS
            fill(cache, entry_of("b"), 2)
            assert_accounts_are_true(cache)


def test_holes_are_counted_and_survive_a_restart(cache: BlockCache, tmp_path: Path) -> None:
    fill(cache, entry_of("a"))
    fill(cache, entry_of("b"), 2)
    cache.close()
    usage = cache.usage_nbytes
    with BlockCache(tmp_path / "cache", QUOTA) as again:
        assert abs(again.usage_nbytes - usage) < 4096
        for name in ("a", "b"):
            assert check(again.open(entry_of(name), "foo"), entry_of(name)) > 0
        assert again.counters.corrupt == 0
        assert_accounts_are_true(again)


def test_a_hole_that_a_killed_process_did_not_make_is_made_at_the_next_start(
    cache: BlockCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = fill(cache, entry_of("a"))
    with monkeypatch.context() as patch:
        patch.setattr(block_log, "punch_hole", lambda *_: False)  # tombstones are written, nothing is freed
        with cache._using(version) as log:
            rows = log.rows()
            assert rows is not None
            log.evict(rows[:20])
    cache.close()
    full = disk_usage(cache.directory)
    with BlockCache(tmp_path / "cache", QUOTA) as again:
        assert check(again.open(entry_of("a"), "foo"), entry_of("a")) == NCHUNKS * NBLOCKS - 20
        assert_accounts_are_true(again)
        assert again.usage_nbytes < full - 18 * BLOCK_NBYTES


def test_where_holes_cannot_be_punched_versions_go_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_cache, "can_punch_holes", lambda _: False)
    monkeypatch.setattr(block_log, "punch_hole", lambda *_: False)
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        for name in "abc":
            fill(cache, entry_of(name), 2)
        assert cache.counters.evicted == 1
        assert [len(held(cache.open(entry_of(name), "foo"))) for name in "abc"] == [0, 20, 20]
        assert_accounts_are_true(cache)


# Compaction


@pytest.mark.parametrize("in_place", [False, True])
def test_files_that_are_mostly_dead_are_written_anew(cache: BlockCache, tmp_path: Path, in_place: bool) -> None:
    entry = entry_of("a")
    version = fill(cache, entry)
    old = cache.directory / version.key / "data"
    with cache._using(version) as log, log.lock:
        rows = log.rows()
        assert rows is not None
        kept = np.isin(rows["block"], [1, 8])
        log.evict(rows[~kept])
        index = log.load()
        inode = old.stat().st_ino
        log.compact(cache._graveyard(), in_place=in_place)
        cache.resized(log)
    assert old.stat().st_ino != inode
    assert old.stat().st_size < 9 * BLOCK_NBYTES
    assert check(version, entry) == 2 * NCHUNKS
    # Who held the old files reads from them still, or fails the checksum.
    with cache._using(version) as log:
        records, bad = log.read(index, 0, index.chunk(0))
        assert sorted([*blocks_in(records), *bad]) == [1, 8]
        assert in_place or not bad
    assert version.put(record_of(entry, 0, [0], nbytes=BLOCK_NBYTES)) == 1
    for _ in range(2):
        cache.close()
        cache = BlockCache(tmp_path / "cache", QUOTA)
        assert check(cache.open(entry, "foo"), entry) == 2 * NCHUNKS + 1
        assert cache.counters.corrupt == 0
    cache.close()


def test_small_dead_blocks_between_living_ones_are_compacted_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_cache, "COMPACT_NBYTES", 10_000)
    entry = entry_of("a")
    with BlockCache(tmp_path / "cache", QUOTA) as cache:
        version = cache.open(entry, "foo")
        for nchunk in range(NCHUNKS):
            version.put(record_of(entry, nchunk, range(NBLOCKS), nbytes=2_000))
        with cache._using(version) as log:
            rows = log.rows()
            assert rows is not None
            mask = rows["block"] % 5 != 0
        cache._evict_blocks(log, mask)
        assert cache.counters.compacted == 1
        assert {b for _, b in held(version)} == {0, 5}
        assert all(
            data == body_of(entry, n, b, 2_000)
            for n in range(NCHUNKS)
            for b, data in blocks_in(version.get(n, range(NBLOCKS))).items()
        )
        assert cache.usage_nbytes == disk_usage(cache.directory) < 30_000


# Pins


def test_what_is_pinned_stays(cache: BlockCache, tmp_path: Path) -> None:
    entry = entry_of("a")
    version = fill(cache, entry, 2)
    cache.pin("foo", entry.id, entry.path)
    for name in "bcde":
        fill(cache, entry_of(name), 3)
    assert len(held(version)) == 2 * NBLOCKS
    cache.close()
    with BlockCache(tmp_path / "cache", QUOTA) as again:
        assert [pin.path for pin in again.pins] == ["a.b2nd"]
        for name in "fgh":
            fill(again, entry_of(name), 3)
        version = again.open(entry, "foo")
        assert len(held(version)) == 2 * NBLOCKS
        assert again.unpin("foo", entry.id)
        assert not again.unpin("foo", entry.id)
        for name in "ijk":
            fill(again, entry_of(name), 4)
        assert not held(version)


def test_of_a_pinned_dataset_older_versions_go(cache: BlockCache) -> None:
    old = fill(cache, entry_of("a", "v1"), 2)
    cache.pin("foo", "a", "a.b2nd")
    new = fill(cache, entry_of("a", "v2"), 2)
    fill(cache, entry_of("b"), 2)
    assert len(held(new)) == 2 * NBLOCKS
    assert len(held(old)) < 2 * NBLOCKS


def test_slices_beside_a_pinned_version_stay_with_it(cache: BlockCache, tmp_path: Path) -> None:
    blocks, slices = fill(cache, entry_of("a", "v1"), 1), fill(cache, entry_of("a", "v1#slices"), 1)
    cache.pin("foo", "a", "a.b2nd")
    fill(cache, entry_of("b"))
    assert len(held(blocks)) == len(held(slices)) == NBLOCKS
    cache.close()
    with BlockCache(tmp_path / "cache", QUOTA) as again:
        fill(again, entry_of("c"))
        for version in ("v1", "v1#slices"):
            assert len(held(again.open(entry_of("a", version), "foo"))) == NBLOCKS


def test_where_all_is_pinned_nothing_more_is_kept(cache: BlockCache) -> None:
    entry = entry_of("a")
    version = fill(cache, entry)
    cache.pin("foo", "a", entry.path)
    fill(cache, entry_of("b"))
    assert 0 < len(held(cache.open(entry_of("b"), "foo"))) <= NBLOCKS  # in what is left of the quota
    cache.pin("foo", "b", "b.b2nd")
    fill(cache, entry_of("c"))
    assert len(held(version)) == NCHUNKS * NBLOCKS
    assert len(held(cache.open(entry_of("c"), "foo"))) <= 1
    cache.pin("foo", "c", "c.b2nd")
    assert cache.counters.refused == 0
    assert not held(fill(cache, entry_of("d")))
    assert cache.counters.refused == NCHUNKS * NBLOCKS
    assert_accounts_are_true(cache)


def test_pins_that_cannot_be_read_are_no_pins(tmp_path: Path) -> None:
    for number, text in enumerate(["", "[]", '{"pins": 3}', '{"pins": [{}]}', "\0"]):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "pins.json").write_text(text)
        with BlockCache(directory, QUOTA) as cache:
            assert cache.pins == ()
            cache.pin("foo", "a", "a.b2nd")
        with BlockCache(directory, QUOTA) as cache:
            assert len(cache.pins) == 1


# Removing, finding, verifying


def test_versions_are_found_by_their_use(cache: BlockCache) -> None:
    for version in ("v1", "v2", "v3"):
        fill(cache, entry_of("a", version), 1)
    cache.open(entry_of("a", "v1"), "foo").get(0, [0])
    assert [v.version for v in cache.versions("foo", "a")] == ["v1", "v3", "v2"]
    assert [(v.root, v.path, v.geometry) for v in cache.stored()] == [("foo", "a.b2nd", GEOMETRY)] * 3
    assert cache.versions("bar", "a") == []


def test_a_version_that_is_removed_is_gone_and_can_come_again(cache: BlockCache) -> None:
    entry = entry_of("a")
    version = fill(cache, entry)
    nbytes = cache.usage_nbytes
    assert cache.remove(version) == nbytes
    assert cache.remove(version) == 0
    assert cache.usage_nbytes == disk_usage(cache.directory) == 0
    assert not held(version)
    assert len(held(fill(cache, entry))) == NCHUNKS * NBLOCKS


def test_verifying_finds_and_drops_what_is_damaged(cache: BlockCache) -> None:
    entry = entry_of("a")
    version = fill(cache, entry)
    with (cache.directory / version.key / "data").open("r+b") as file:
        file.seek(50_000)
        file.write(b"?" * 100)
    assert version.chunks() == list(range(NCHUNKS))
    found = [version.verify(nchunk) for nchunk in version.chunks()]
    assert [nbad for _, _, nbad in found] == [1, 0, 0, 0]
    assert [nblocks for nblocks, _, _ in found] == [NBLOCKS] * NCHUNKS
    assert cache.counters.corrupt == 1
    assert version.verify(0)[0] == NBLOCKS - 1
    assert check(version, entry) == NCHUNKS * NBLOCKS - 1


# Many at once


def test_64_readers_with_a_tiny_quota_read_the_truth_and_stay_within_it(tmp_path: Path) -> None:
    """FAULTS S2."""
    entries = [entry_of(f"d{i}") for i in range(4)]
    over: list[int] = []
    stopped = threading.Event()
    with BlockCache(tmp_path / "cache", 400_000, max_open=2) as cache:

        def watch() -> None:
            while not stopped.wait(0.001):
                # Of files that vanish while they are counted there is nothing to count.
                if cache.usage_nbytes > cache.quota_nbytes:
                    over.append(cache.usage_nbytes)

        def use(number: int) -> int:
            rng = random.Random(number)
            found = 0
            for _ in range(12):
                entry = rng.choice(entries)
                version = cache.open(entry, "foo")
                nchunk = rng.randrange(NCHUNKS)
                blocks = sorted(rng.sample(range(NBLOCKS), 2))
                version.put(record_of(entry, nchunk, blocks, nbytes=BLOCK_NBYTES))
                for block, data in blocks_in(version.get(nchunk, range(NBLOCKS))).items():
                    assert data == body_of(entry, nchunk, block, BLOCK_NBYTES)
                    found += 1
            return found

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(64) as executor:
                found = sum(executor.map(use, range(64)))
        finally:
            stopped.set()
            watcher.join()
        assert found > 0
        assert not over
        assert cache.counters.corrupt == 0
        assert cache.counters.evicted_blocks > 0
        assert_accounts_are_true(cache)


def test_a_dataset_larger_than_the_quota_can_be_streamed_again_and_again(tmp_path: Path) -> None:
    """FAULTS S3: it works, and the newest part of it stays."""
    entry = entry_of("a")
    with BlockCache(tmp_path / "cache", 300_000) as cache:
        version = cache.open(entry, "foo")
        for _ in range(3):
            for nchunk in range(NCHUNKS):
                for block in range(NBLOCKS):
                    if not version.held(nchunk, [block]).all():
                        assert version.put(record_of(entry, nchunk, [block], nbytes=BLOCK_NBYTES)) == 1
                    assert len(version.get(nchunk, [block])) == 1
                    assert disk_usage(cache.directory) <= 300_000
        assert len(held(version)) >= 9
        assert cache.counters.refused == 0


EVICTOR = """
import sys
from pathlib import Path
from caterva2_jupyter.storage import block_cache
from tests.storage.test_eviction import *

block_cache.COMPACT_NBYTES = 20_000
with BlockCache(Path(sys.argv[1]), 500_000) as cache:
    rng = random.Random(int(sys.argv[2]))
    print("ready", flush=True)
    while True:
        entry = entry_of(rng.choice("abc"))
        size = rng.choice([1_000, BLOCK_NBYTES])
        cache.open(entry, "foo").put(record_of(entry, rng.randrange(NCHUNKS), [rng.randrange(NBLOCKS)], nbytes=size))
        print(cache.counters.evicted_blocks, flush=True)
"""


def test_a_process_killed_while_it_evicts_leaves_nothing_wrong(tmp_path: Path) -> None:
    rng = random.Random(3)
    for number in range(int(os.environ.get("CATERVA2_KILLS", "6"))):
        arguments = [sys.executable, "-c", EVICTOR, str(tmp_path / "cache"), str(number)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(50, 400)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        with BlockCache(tmp_path / "cache", 500_000) as cache:
            for name in "abc":
                entry = entry_of(name)
                version = cache.open(entry, "foo")
                for nchunk in range(NCHUNKS):
                    for block, data in blocks_in(version.get(nchunk, range(NBLOCKS))).items():
                        sizes = (1_000, BLOCK_NBYTES)
                        assert data in [body_of(entry, nchunk, block, n) for n in sizes]
            assert_accounts_are_true(cache)
            assert cache.counters.corrupt == 0


READER = """
import sys
from pathlib import Path
from tests.storage.test_eviction import *
from caterva2_jupyter.core.cache_format import replay
from caterva2_jupyter.core.blocks import BlockRecord, checksum_seed

path, seed = Path(sys.argv[1]), checksum_seed("a", "v1")
print("ready", flush=True)
good = bad = 0
while not Path(sys.argv[2]).exists():
    try:
        with open(path / "data", "rb") as data, open(path / "journal", "rb") as journal:
            raw = journal.read()
            entries = replay(raw, seed, data.seek(0, 2))
            for row in entries[entries["kind"] == 1]:
                data.seek(int(row["head_offset"])); head = data.read(int(row["head_size"]))
                data.seek(int(row["offset"])); body = data.read(int(row["size"]))
                one = np.array([row])
                try:
                    BlockRecord(int(row["nchunk"]), head, one["block"], one["size"], one["crc"], body).verify(seed)
                except OSError:
                    bad += 1
                    continue
                good += 1
                assert body == body_of(entry_of("a"), int(row["nchunk"]), int(row["block"]), BLOCK_NBYTES)
    except FileNotFoundError:
        pass
print(good, bad)
"""


def test_a_reader_in_another_process_gets_truth_or_nothing_while_blocks_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_cache, "COMPACT_NBYTES", 20_000)
    entry = entry_of("a")
    rng = random.Random(1)
    with BlockCache(tmp_path / "cache", 300_000) as cache:
        version = fill(cache, entry, 1)
        arguments = [sys.executable, "-c", READER, str(cache.directory / version.key), str(tmp_path / "stop")]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            for _ in range(300):
                record = record_of(entry, rng.randrange(NCHUNKS), [rng.randrange(NBLOCKS)], nbytes=BLOCK_NBYTES)
                version.put(record)
            (tmp_path / "stop").touch()
            good, _ = map(int, reader.stdout.read().split())
        assert reader.returncode == 0
        assert good > 0
        assert cache.counters.evicted_blocks > 0


def test_a_disk_that_fails_while_blocks_go_costs_the_cache_only(
    cache: BlockCache, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS S1: no tombstone can be written, so the version goes whole, and reads go on."""
    first, second = entry_of("a"), entry_of("b")
    version = fill(cache, first)
    with pytest.MonkeyPatch.context() as patch:
        real = os.pwritev

        def full(fd: int, parts: list[memoryview], offset: int) -> int:
            if len(parts) == 1 and len(parts[0]) % 48 == 0:  # journal records
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(fd, parts, offset)

        patch.setattr(block_cache.os, "pwritev", full)
        other = cache.open(second, "foo")
        for nchunk in range(NCHUNKS):
            other.put(record_of(second, nchunk, range(NBLOCKS), nbytes=BLOCK_NBYTES))
        check(other, second)
        check(version, first)
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1
    assert_accounts_are_true(cache)
    assert check(fill(cache, second), second) == NCHUNKS * NBLOCKS


def test_readers_beside_compactions_get_the_truth_and_all_of_it(cache: BlockCache) -> None:
    entry = entry_of("a")
    version = fill(cache, entry, 2)
    stopped = threading.Event()

    def read(number: int) -> int:
        rng = random.Random(number)
        found = 0
        while not stopped.is_set():
            nchunk = rng.randrange(2)
            blocks = blocks_in(version.get(nchunk, range(NBLOCKS)))
            assert all(data == body_of(entry, nchunk, b, BLOCK_NBYTES) for b, data in blocks.items())
            assert len(blocks) == NBLOCKS
            found += 1
        return found

    with ThreadPoolExecutor(4) as executor:
        readers = [executor.submit(read, number) for number in range(4)]
        try:
            for _ in range(30):
                with cache._using(version) as log, log.lock:
                    cache._compact(log)
                    cache.resized(log)
        finally:
            stopped.set()
        assert all(reader.result() > 0 for reader in readers)
    assert cache.counters.corrupt == 0
    assert cache.counters.compacted == 30
    assert_accounts_are_true(cache)
