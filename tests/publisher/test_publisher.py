"""A root that is published: what is told, when, and what a restart remembers."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import blosc2
import h5py
import numpy as np
import pytest

from caterva2_jupyter.core.catalog import CatalogQuery, Cursor
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.errors import (
    ConfigError,
    DatasetChangedError,
    DatasetNotFoundError,
    InvalidPathError,
    RootNotFoundError,
    SourceUnavailableError,
)
from caterva2_jupyter.publisher import debouncer
from caterva2_jupyter.publisher.debouncer import STORM_PATHS
from caterva2_jupyter.publisher.inotify import Inotify, Seen
from caterva2_jupyter.publisher.publisher import Publisher
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.storage.root import KnownEntry
from caterva2_jupyter.testing import read_array
from tests.publisher.publishing import DEADLINE_S, Published, overflow, publisher_config, publishing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def statedir(tmp_path: Path) -> Path:
    return tmp_path / "state"


def write_array(path: Path, value: int = 0) -> None:
    blosc2.asarray(np.full((20, 30), value), urlpath=str(path), mode="w")


PROMISED_S = 0.5
QUIET_S = 0.2


def steadily(attempt: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Try until whoever writes did so without a pause that looks like its end: the machine may be busy."""
    for _ in range(5):
        if asyncio.run(attempt()):
            return
    pytest.skip("this machine stands still too often")


class Lateness(threading.Thread):
    """How late this machine wakes up who sleeps for a moment, at its worst."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worst_s = 0.0
        self._stop_it = threading.Event()

    def __enter__(self) -> Lateness:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop_it.set()
        self.join()

    def run(self) -> None:
        before_s = time.monotonic()
        while not self._stop_it.wait(0.01):
            now_s = time.monotonic()
            self.worst_s, before_s = max(self.worst_s, now_s - before_s - 0.01), now_s


@pytest.mark.parametrize("kind", ["text", "array", "hdf5", "sparse", "in a new directory", "deleted", "renamed"])
def test_a_change_is_told_within_half_a_second(root: Path, statedir: Path, kind: str) -> None:
    (root / "there.txt").write_text("old")
    (root / "here").mkdir()
    with h5py.File(root / "warm.h5", "w") as file:
        file["x"] = 1
    changes: dict[str, tuple[Callable[[], object], str, str]] = {
        "text": (lambda: (root / "new.txt").write_text("new"), "new.txt", "put"),
        "array": (lambda: write_array(root / "new.b2nd"), "new.b2nd", "put"),
        "hdf5": (lambda: write_hdf5(root / "new.h5"), "new.h5/x.b2nd", "put"),
        "sparse": (lambda: write_sparse(root / "new.b2nd"), "new.b2nd", "put"),
        "in a new directory": (lambda: in_new_directory(root), "a/b/new.txt", "put"),
        "deleted": (lambda: (root / "there.txt").unlink(), "there.txt", "delete"),
        "renamed": (lambda: (root / "there.txt").rename(root / "here" / "moved.txt"), "here/moved.txt", "put"),
    }
    change, path, expected = changes[kind]

    async def main() -> float:
        async with publishing(publisher_config(root, statedir)) as published:
            await asyncio.to_thread(change)
            quiet_s = time.monotonic()
            _, told_s = await published.until(path, expected)
            return told_s - quiet_s

    # The machine of the test may be busy: the best of three tries is what the code can do, and each of its steps
    # waits for its turn.
    times = []
    for attempt in range(3):
        with Lateness() as lateness:
            times.append(asyncio.run(main()) - 5 * lateness.worst_s)
        if times[-1] <= PROMISED_S:
            break
        if attempt < 2:
            shutil.rmtree(statedir)
            for left in ("new.txt", "new.b2nd", "new.h5", "a", "here/moved.txt"):
                target = root / left
                if target.is_dir():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)
            (root / "there.txt").write_text("old")
    assert min(times) <= PROMISED_S, times


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(10)


def write_sparse(path: Path) -> None:
    blosc2.asarray(np.arange(1000), urlpath=str(path), mode="w", contiguous=False)


def in_new_directory(root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "new.txt").write_text("new")


@pytest.mark.parametrize("name", ["copied.txt", "copied.b2nd", "copied.h5"])
def test_a_slow_copy_is_not_told_before_it_is_complete(root: Path, statedir: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    if name.endswith("txt"):
        source.write_bytes(os.urandom(100_000))
    elif name.endswith("h5"):
        with h5py.File(source, "w") as file:
            file["x"] = np.random.default_rng(0).random(20_000)
    else:
        blosc2.asarray(np.random.default_rng(0).random(20_000), urlpath=str(source), mode="w")
    content = source.read_bytes()

    def copy() -> tuple[float, float]:
        """When it was complete, and its longest pause."""
        step, pause_s = len(content) // 15, 0.0
        with (root / name).open("wb", buffering=0) as file:
            for start in range(0, len(content), step):
                written_s = time.monotonic()
                file.write(content[start : start + step])
                time.sleep(0.04)  # how slow it is, not what is waited for
                pause_s = max(pause_s, time.monotonic() - written_s)
        return time.monotonic(), pause_s

    async def main() -> bool:
        (root / name).unlink(missing_ok=True)
        async with publishing(publisher_config(root, statedir)) as published:
            copying = asyncio.create_task(asyncio.to_thread(copy))
            event, told_s = await published.until(name)
            was_copied = copying.done()
            complete_s, pause_s = await copying
            if pause_s >= QUIET_S / 2:
                return False
            assert was_copied
            assert told_s > complete_s
            assert event.entry is not None
            assert event.entry.kind in ("array", "file", "group")
            stored = await published.publisher.source("foo").read_file(name, 0, None)
            assert b"".join([part async for part in stored.parts]) == content
        return True

    steadily(main)


def test_a_file_cut_short_is_told_once_it_can_be_opened(root: Path, statedir: Path, tmp_path: Path) -> None:
    write_array(tmp_path / "x.b2nd", 7)
    content = (tmp_path / "x.b2nd").read_bytes()

    async def main() -> None:
        async with publishing(publisher_config(root, statedir)) as published:
            (root / "x.b2nd").write_bytes(content[: len(content) // 2])
            (root / "after.txt").write_text("marks that the root looked")
            await published.until("after.txt")
            assert "x.b2nd" not in published.paths()
            (root / "x.b2nd").write_bytes(content)
            event, _ = await published.until("x.b2nd")
            assert event.entry is not None
            assert event.entry.kind == "array"

    asyncio.run(main())


def test_a_file_that_is_written_again_and_again_is_told_seldom(root: Path, statedir: Path) -> None:
    async def main() -> bool:
        async with publishing(publisher_config(root, statedir)) as published:
            before = published.publisher.store.cursor.seq
            stop = threading.Event()

            def write() -> float:
                pause_s = 0.0
                while not stop.is_set():
                    written_s = time.monotonic()
                    (root / "log.txt").write_text(str(written_s))
                    stop.wait(0.02)
                    pause_s = max(pause_s, time.monotonic() - written_s)
                return pause_s

            writing = asyncio.create_task(asyncio.to_thread(write))
            await asyncio.sleep(1.5)  # how long it is written to
            during = published.publisher.store.cursor.seq - before
            stop.set()
            pause_s = await writing
            assert during == 0 or pause_s >= QUIET_S / 2
            await published.until("log.txt")
            return during == 0

    steadily(main)


def test_a_storm_of_files_is_told_completely(root: Path, statedir: Path) -> None:
    async def main() -> None:
        async with publishing(publisher_config(root, statedir)) as published:

            def storm() -> None:
                for number in range(3000):
                    (root / f"{number}.txt").write_text("x")

            await asyncio.to_thread(storm)
            missing = {f"{number}.txt" for number in range(3000)}
            while missing:
                missing -= {event.path for event in await published.next_events()}
            (root / "after.txt").write_text("x")
            await published.until("after.txt")

    asyncio.run(main())


def test_a_hundred_thousand_changes_are_few_looks_and_nothing_is_missed(
    root: Path, statedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    scan = DirectoryRoot.scan

    def count(files: DirectoryRoot, known: Iterable[KnownEntry]) -> Iterator[tuple[Entry, str]]:
        nonlocal looks
        looks += 1
        return scan(files, known)

    monkeypatch.setattr(DirectoryRoot, "scan", count)
    names = [root / f"{number}.txt" for number in range(STORM_PATHS + 100)]

    def storm() -> None:
        for number in range(100_000):
            os.utime(names[number % len(names)])
        for path in names:
            path.write_text("after")

    async def main() -> None:
        for path in names:
            path.write_text("x")
        async with publishing(publisher_config(root, statedir)) as published:
            await asyncio.to_thread(storm)
            missing = {path.name for path in names}
            while missing:
                missing -= {e.path for e in await published.next_events() if e.entry and e.entry.nbytes == len("after")}
            assert looks < 100

    asyncio.run(main())


def test_changes_that_the_kernel_dropped_are_told_all_the_same(
    root: Path, statedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_array(root / "changed.b2nd")
    write_array(root / "deleted.b2nd")
    held_up, released = threading.Event(), threading.Event()
    read = Inotify.read

    def read_later(inotify: Inotify, timeout_s: float) -> Seen:
        held_up.set()
        assert released.wait(DEADLINE_S)
        return read(inotify, timeout_s)

    monkeypatch.setattr(Inotify, "read", read_later)

    def change() -> None:
        assert held_up.wait(DEADLINE_S)
        overflow(root)
        write_array(root / "changed.b2nd", 1)
        (root / "deleted.b2nd").unlink()
        in_new_directory(root)
        released.set()

    async def main() -> None:
        async with publishing(publisher_config(root, statedir)) as published:
            await asyncio.to_thread(change)
            expected = {("put", "changed.b2nd"), ("delete", "deleted.b2nd"), ("put", "a/b/new.txt")}
            while expected:
                expected -= {(event.change, event.path) for event in await published.next_events()}
            # The directory was made while nobody heard of it.
            (root / "a" / "b" / "later.txt").write_text("x")
            await published.until("a/b/later.txt")

    asyncio.run(main())


def test_a_restart_serves_the_old_index_at_once_and_tells_what_changed_meanwhile(root: Path, statedir: Path) -> None:
    for name in ("same", "changed", "deleted"):
        write_array(root / f"{name}.b2nd")
    config = publisher_config(root, statedir)

    async def first() -> tuple[str, str]:
        async with publishing(config) as published:
            return str(published.publisher.store.cursor), published.publisher.owner_id

    cursor, owner = asyncio.run(first())
    write_array(root / "changed.b2nd", 1)
    write_array(root / "new.b2nd", 1)
    (root / "deleted.b2nd").unlink()

    async def second() -> set[tuple[str, str]]:
        publisher = Publisher(config)
        assert publisher.owner_id == owner
        assert publisher.store.events_since(Cursor.parse(cursor))[-1].events == ()  # nothing yet, and no need to list
        page = await publisher.source("foo").catalog(CatalogQuery())  # before anything is scanned
        assert [e.path for e in page.entries()] == ["changed.b2nd", "deleted.b2nd", "same.b2nd"]
        batches = publisher.threaded_source.events(page.cursor)
        await anext(batches)
        await publisher.start()
        told: set[tuple[str, str]] = set()
        async with asyncio.timeout(20):
            while len(told) < 3:
                told |= {(e.change, e.path) for e in (await anext(batches)).events}
        await batches.aclose()  # type: ignore[attr-defined]
        await publisher.stop()
        return told

    assert asyncio.run(second()) == {("put", "changed.b2nd"), ("put", "new.b2nd"), ("delete", "deleted.b2nd")}


def test_an_unmounted_root_is_not_a_deletion_of_everything(root: Path, statedir: Path) -> None:
    write_array(root / "x.b2nd")

    async def main() -> None:
        async with publishing(publisher_config(root, statedir)) as published:
            root.rename(root.with_name("away"))
            with pytest.raises(SourceUnavailableError):
                await published.publisher.announce("foo", "")
            assert published.paths() == ["x.b2nd"]
            root.with_name("away").rename(root)
            (root / "new.txt").write_text("x")
            await published.until("new.txt")
            assert published.paths() == ["new.txt", "x.b2nd"]

    asyncio.run(main())


def test_an_empty_directory_where_a_disk_was_mounted_is_not_a_deletion_of_everything(
    root: Path, statedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_array(root / "x.b2nd")
    config = publisher_config(root, statedir)

    async def first() -> None:
        async with publishing(config):
            pass

    async def second() -> None:
        publisher = Publisher(config)
        await publisher.start()
        try:
            with pytest.raises(SourceUnavailableError, match="mount that"):
                await publisher.announce("foo", "")
            assert [known.entry.path for known in publisher.store.known()] == ["x.b2nd"]
            write_array(root / "y.b2nd")
            async with asyncio.timeout(DEADLINE_S):
                await publisher.scanned.wait()
            assert [known.entry.path for known in publisher.store.known()] == ["y.b2nd"]
        finally:
            await publisher.stop()

    async def third() -> None:
        # Emptied where it is, it is empty.
        async with publishing(config) as published:
            (root / "y.b2nd").unlink()
            await published.until("y.b2nd", "delete")

    asyncio.run(first())
    (root / "x.b2nd").unlink()
    (statedir / "disk").write_text("another")
    asyncio.run(second())
    assert (statedir / "disk").read_text() == str(root.stat().st_dev)
    asyncio.run(third())


def test_an_announced_path_is_looked_at_without_a_watcher(statedir: Path, root: Path) -> None:
    memory = MemoryRoot({"a.bin": b"1"})

    async def main() -> None:
        async with publishing(publisher_config(root, statedir), memory) as published:
            memory.set("b.bin", b"2")
            await published.publisher.announce("foo", "b.bin")
            assert published.paths() == ["a.bin", "b.bin"]
            memory.delete("a.bin")
            await published.publisher.announce("foo", "")
            assert published.paths() == ["b.bin"]
            with pytest.raises(DatasetNotFoundError):
                await published.publisher.announce("foo", "none.bin")
            with pytest.raises(InvalidPathError):
                await published.publisher.announce("foo", "../x")
            with pytest.raises(RootNotFoundError):
                await published.publisher.announce("bar", "b.bin")

    asyncio.run(main())


def test_an_announced_dataset_in_an_hdf5_file_is_its_file(root: Path, statedir: Path) -> None:
    write_hdf5(root / "x.h5")

    async def main() -> None:
        async with publishing(publisher_config(root, statedir)) as published:
            before = await published.publisher.source("foo").entry("x.h5/x")
            with h5py.File(root / "x.h5", "a") as file:
                file["y"] = np.arange(3)
            await published.publisher.announce("foo", "x.h5/y.b2nd")
            assert "x.h5/y.b2nd" in published.paths()
            assert (await published.publisher.source("foo").entry("x.h5/x")).version != before.version

    asyncio.run(main())


def test_an_hdf5_file_is_a_root(tmp_path: Path, statedir: Path) -> None:
    path = tmp_path / "data.h5"
    write_hdf5(path)

    async def main() -> None:
        async with publishing(publisher_config(path, statedir)) as published:
            assert "x.b2nd" in published.paths()
            with h5py.File(path, "a") as file:
                file["y"] = np.arange(3)
            await published.until("y.b2nd")

    asyncio.run(main())


def test_a_network_file_system_is_polled(root: Path, statedir: Path) -> None:
    async def main() -> None:
        async with publishing(publisher_config(root, statedir, poll=0.1)) as published:
            (root / "new.txt").write_text("x")
            await published.until("new.txt")
            (root / "new.txt").unlink()
            await published.until("new.txt", "delete")

    asyncio.run(main())


def test_a_dataset_that_changed_without_being_told_is_readable_again(root: Path, statedir: Path) -> None:
    write_array(root / "a.b2nd")

    async def run() -> None:
        async with publishing(publisher_config(root, statedir)) as published:
            source = published.publisher.threaded_source
            expected = await read_array(source, "a.b2nd")
            os.link(root / "a.b2nd", root.parent / "backup.b2nd")  # no watcher of its directory hears of it
            with pytest.raises(DatasetChangedError):
                await read_array(source, "a.b2nd")
            await published.until("a.b2nd")
            assert np.array_equal(await read_array(source, "a.b2nd"), expected)

    asyncio.run(run())


def test_temporary_files_are_never_told(root: Path, statedir: Path) -> None:
    async def main() -> None:
        async with publishing(publisher_config(root, statedir)) as published:
            for name in ("x.tmp", "x~", ".#x", "x.part", ".x.swp"):
                (root / name).write_text("x")
            (root / "real.txt").write_text("x")
            assert [e.path for e in await _events_until(published, "real.txt")] == ["real.txt"]

    asyncio.run(main())


async def _events_until(published: Published, path: str) -> list[object]:
    events: list[object] = []
    while True:
        events += (batch := await published.next_events())
        if any(event.path == path for event in batch):
            return events


# What cannot be started


def make(root: Path, statedir: Path) -> None:
    async def main() -> None:
        publisher = Publisher(publisher_config(root, statedir))
        await publisher.stop()

    asyncio.run(main())


_SWMR_WRITER = """
import sys, time, h5py
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    data = file.create_dataset("x", (3, 100), "i4", maxshape=(None, 100), chunks=(4, 100), compression="gzip")
    data[...] = 7
    file.swmr_mode = True
    for n in range(3, 10000):
        data.resize(n + 1, axis=0)
        data[n] = 7
        data.flush()
        time.sleep(0.1)
"""


def test_a_file_that_grows_without_rest_is_listed_at_once_and_its_listed_version_readable(
    root: Path, statedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debouncer, "GROWING_S", 1000.0)  # it is not told as one that was listed already

    async def main() -> None:
        async with publishing(publisher_config(root, statedir)) as published:
            source = published.publisher.threaded_source
            with subprocess.Popen([sys.executable, "-c", _SWMR_WRITER, str(root / "live.h5")]) as writer:
                try:
                    async with asyncio.timeout(DEADLINE_S):
                        while not (root / "live.h5").exists():
                            await asyncio.sleep(0.01)
                    event, _ = await published.until("live.h5/x.b2nd")
                    entry = event.entry
                    assert entry is not None
                    nread, written_ns = 0, set[int]()
                    async with asyncio.timeout(DEADLINE_S):
                        while nread < 10 or len(written_ns) < 3:
                            written_ns.add((root / "live.h5").stat().st_mtime_ns)
                            # A reader that is slower than the writer is told so.
                            with suppress(DatasetChangedError):
                                assert np.all(await read_array(source, entry.path) == 7)
                                nread += 1
                            await asyncio.sleep(0.03)
                finally:
                    writer.kill()

    asyncio.run(main())


def test_nothing_to_serve_is_told_in_one_line(tmp_path: Path, statedir: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*cat2pub NAME ROOT"):
        make(tmp_path / "none", statedir)
    (tmp_path / "text.txt").write_text("no HDF5")
    with pytest.raises(ConfigError, match="not an HDF5 file"):
        make(tmp_path / "text.txt", statedir)


def test_state_inside_of_the_root_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="--statedir"):
        make(root, root / "state")
    assert not (root / "state").exists()


def test_two_publishers_do_not_share_a_state_directory(root: Path, statedir: Path) -> None:
    async def main() -> None:
        async with publishing(publisher_config(root, statedir)):
            with pytest.raises(ConfigError, match="another publisher uses"):
                Publisher(publisher_config(root, statedir))

    asyncio.run(main())
    make(root, statedir)  # and it is free again


def test_the_state_is_private_and_another_root_begins_anew(root: Path, statedir: Path, tmp_path: Path) -> None:
    write_array(root / "x.b2nd")
    other = tmp_path / "other"
    other.mkdir()

    async def main() -> None:
        async with publishing(publisher_config(root, statedir)) as published:
            first = published.publisher.store.cursor
            owner = published.publisher.owner_id
        publisher = Publisher(publisher_config(other, statedir))
        assert publisher.owner_id == owner
        assert publisher.store.cursor.epoch != first.epoch
        assert (await publisher.source("foo").catalog(CatalogQuery())).items == ()
        await publisher.stop()

    asyncio.run(main())
    assert (statedir.stat().st_mode & 0o777, (statedir / "owner").stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_damaged_index_is_made_anew_and_the_identity_kept(root: Path, statedir: Path) -> None:
    write_array(root / "x.b2nd")

    async def main() -> str:
        async with publishing(publisher_config(root, statedir)) as published:
            assert published.paths() == ["x.b2nd"]
            return published.publisher.owner_id

    owner = asyncio.run(main())
    for path in statedir.glob("catalog.sqlite*"):
        path.write_bytes(b"garbage" * 1000)
    assert asyncio.run(main()) == owner
