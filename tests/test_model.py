"""A root, a cache and readers, driven at random and checked against NumPy at every step.

The machine publishes, mutates, appends to and deletes arrays, loses upstream and gets it back, lets what is
known of the root fall behind, kills and restarts the cache, cuts and damages its files, changes its quota, and
reads. Whatever has happened: a read is all of one version, and of one that it may be of; what was read is readable
without upstream; and an error is one that the state allows. CATERVA2_TEST_LOOPS=long runs many more.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import blosc2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from caterva2_jupyter.core.answer_choice import Mode
from caterva2_jupyter.core.blocks import BlockRecord
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.selection import parse_basic, parse_orthogonal
from caterva2_jupyter.core.source import BlockStream, ComparedStream, Source
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import (
    Caterva2Error,
    DatasetChangedError,
    DatasetNotFoundError,
    NotCachedError,
    SelectionError,
    SourceUnavailableError,
)
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.storage.catalog_store import CatalogStore
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.event_hub import EventHub
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.storage.root import Root
from caterva2_jupyter.storage.threaded_source import ThreadedSource
from caterva2_jupyter.subscriber.sources import CachedSource
from caterva2_jupyter.testing import read_array

IS_LONG = os.environ.get("CATERVA2_TEST_LOOPS") == "long"
ROOMY, TINY = 1 << 30, 6_000
DEADLINE_S = 30.0
PATHS = st.sampled_from(["a.b2nd", "b.b2nd", "dir/c.b2nd"])
READ_MODES: st.SearchStrategy[Mode] = st.sampled_from(["blocks", "auto", "slice"])
SEEDS = st.integers(0, 2**32 - 1)
DTYPES = st.sampled_from(["<i4", ">f8", "|u1", "<c16"])


@dataclass(frozen=True)
class Partition:
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]


@st.composite
def partitions(draw: st.DrawFn) -> Partition:
    shape = tuple(draw(st.lists(st.integers(1, 24), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    return Partition(shape, chunks, tuple(draw(st.integers(1, c)) for c in chunks))


def make_items(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Some noise and some constant parts, so that blocks of all sizes occur."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 200, shape)
    items[rng.random(shape[0]) < 0.3] = 7
    return items.astype(dtype)


class Wire:
    """The way to the source, which can be cut: at once, or after some more records."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.is_up = True
        self.records_left: int | None = None
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def _check(self) -> None:
        if not self.is_up or self.records_left == 0:
            raise SourceUnavailableError("the wire is cut")

    async def entry(self, path: str) -> Entry:
        self._check()
        return await self._source.entry(path)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        self._check()
        self.reads += 1
        stream = await self._source.read_blocks(request)
        return replace(stream, records=_CutRecords(self, stream.records))

    async def compare_blocks(self, request: ReadRequest) -> ComparedStream:
        self._check()
        return await self._source.compare_blocks(request)


class _CutRecords:
    def __init__(self, wire: Wire, records: AsyncIterator[BlockRecord]) -> None:
        self._wire, self._records = wire, records

    def __aiter__(self) -> AsyncIterator[BlockRecord]:
        return self

    async def __anext__(self) -> BlockRecord:
        self._wire._check()
        record = await anext(self._records)
        if self._wire.records_left is not None:
            self._wire.records_left -= 1
        return record

    async def aclose(self) -> None:
        await self._records.aclose()  # type: ignore[attr-defined]


class Pinned:
    """A source as one sees it who opened a dataset at a version."""

    def __init__(self, source: CachedSource, version: str) -> None:
        self._source, self._version = source, version

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        return await self._source.read_blocks(replace(request, version=self._version))


class Model(RuleBasedStateMachine):
    """What everything is, as NumPy arrays, beside the real thing."""

    Key: ClassVar[Any] = None

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="cat2model-"))
        self.runner = asyncio.Runner()
        self.executor = ThreadPoolExecutor(4)
        self.root = self.make_root()
        self.store, hub = CatalogStore(None, "foo"), EventHub()
        self.origin = ThreadedSource("foo", self.root, self.store, hub, self.executor, 5)
        self.run(self.origin.scan())
        self.wire = Wire(self.origin)
        self.now: dict[str, np.ndarray] = {}  # what is published
        self.partitions: dict[str, Partition] = {}
        self.past: dict[tuple[str, str], np.ndarray] = {}  # every version there ever was
        self.known: dict[str, Entry] = {}  # what the reader's side has heard of
        self.kept: set[tuple[str, str]] = set()  # versions that were read whole, and nothing happened to since
        self.open_cache(ROOMY)

    # The parts

    def make_root(self) -> Root:
        return MemoryRoot({})

    def put(self, path: str, items: np.ndarray, partition: Partition) -> None:
        assert isinstance(self.root, MemoryRoot)
        self.root.set(path, items, chunks=partition.chunks, blocks=partition.blocks)

    def remove(self, path: str) -> None:
        assert isinstance(self.root, MemoryRoot)
        self.root.delete(path)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(asyncio.wait_for(work, DEADLINE_S))

    def open_cache(self, quota_nbytes: int) -> None:
        self.quota_nbytes = quota_nbytes
        self.cache = BlockCache(self.directory / "cache", quota_nbytes)
        assert self.cache.directory == self.directory / "cache"
        self.cached = CachedSource(self.wire, self.cache, self.executor, self.known.get)

    def close_cache(self) -> None:
        self.run(self.cached.aclose())
        self.cache.close()

    def teardown(self) -> None:
        try:
            self.wire.is_up, self.wire.records_left = True, None
            self.hear()
            for path, items in self.now.items():
                assert np.array_equal(self.run(read_array(self.cached, path)), items)
        finally:
            self.close_cache()
            self.origin.close()
            self.executor.shutdown()
            self.root.close()
            self.store.close()
            self.runner.close()
            shutil.rmtree(self.directory)

    # What a publisher does

    def announce(self, path: str) -> None:
        """The publisher's own listing, which is ahead of what the reader's side has heard."""
        self.run(self.origin.rescan([self.root.watched / path]))
        if path in self.now:
            entry = self.store.resolve(path)
            before = self.past.setdefault((path, entry.version), self.now[path])
            assert before is self.now[path] or np.array_equal(before, self.now[path]), "two contents, one version"

    def publish_items(self, path: str, items: np.ndarray, partition: Partition) -> None:
        self.put(path, items, partition)
        self.now[path], self.partitions[path] = items, partition
        self.announce(path)

    @initialize(path=PATHS, partition=partitions(), dtype=DTYPES, seed=SEEDS)
    def begin(self, path: str, partition: Partition, dtype: str, seed: int) -> None:
        self.publish(path, partition, dtype, seed)
        self.hear()

    @rule(path=PATHS, partition=partitions(), dtype=DTYPES, seed=SEEDS)
    def publish(self, path: str, partition: Partition, dtype: str, seed: int) -> None:
        self.publish_items(path, make_items(partition.shape, dtype, seed), partition)

    @precondition(lambda self: self.now)
    @rule(data=st.data(), seed=SEEDS)
    def mutate(self, data: st.DataObject, seed: int) -> None:
        path = data.draw(st.sampled_from(sorted(self.now)))
        items = self.now[path].copy()
        rng = np.random.default_rng(seed)
        items[tuple(rng.integers(0, n) for n in items.shape)] = rng.integers(0, 200)
        self.publish_items(path, items, self.partitions[path])

    @precondition(lambda self: self.now)
    @rule(data=st.data(), count=st.integers(1, 5), seed=SEEDS)
    def append(self, data: st.DataObject, count: int, seed: int) -> None:
        path = data.draw(st.sampled_from(sorted(self.now)))
        items, partition = self.now[path], self.partitions[path]
        more = make_items((count, *items.shape[1:]), items.dtype.str, seed)
        items = np.concatenate([items, more])
        self.publish_items(path, items, replace(partition, shape=items.shape))

    @precondition(lambda self: self.now)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.now)))
        self.remove(path)
        del self.now[path], self.partitions[path]
        self.announce(path)

    @rule()
    def hear(self) -> None:
        """Events arrive."""
        self.known.clear()
        self.known.update({path: self.store.resolve(path) for path in self.now})

    # What goes wrong

    @rule(is_up=st.booleans())
    def connect(self, is_up: bool) -> None:
        self.wire.is_up, self.wire.records_left = is_up, None

    @rule(count=st.integers(0, 6))
    def cut_after(self, count: int) -> None:
        self.wire.records_left = count

    def files(self) -> list[Path]:
        found = sorted(p for p in self.cache.directory.rglob("*") if p.is_file() and p.name != "lock")
        return [p for p in found if p.stat().st_size]

    @rule(quota_nbytes=st.sampled_from([ROOMY, TINY]))
    def restart(self, quota_nbytes: int) -> None:
        self.close_cache()
        if quota_nbytes == TINY:
            self.kept.clear()
        self.open_cache(quota_nbytes)

    @rule(data=st.data(), steps=st.integers(0, 12), seed=SEEDS)
    def kill(self, data: st.DataObject, steps: int, seed: int) -> None:
        """Stop in the midst of a read; some files lose their last bytes, as after a power cut."""
        if self.known:
            self.run(self.give_up(data.draw(st.sampled_from(sorted(self.known))), steps))
        self.close_cache()
        rng = np.random.default_rng(seed)
        for path in self.files():
            if rng.random() < 0.5:
                self.kept.clear()
                os.truncate(path, int(rng.integers(0, path.stat().st_size)))
        self.open_cache(self.quota_nbytes)

    async def give_up(self, path: str, steps: int) -> None:
        task = asyncio.create_task(read_array(self.cached, path))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError, Caterva2Error):
            await task

    @rule(seed=SEEDS)
    def damage(self, seed: int) -> None:
        """A bit of the cache flips."""
        files, rng = self.files(), np.random.default_rng(seed)
        if files:
            self.kept.clear()
            path = files[rng.integers(len(files))]
            raw = bytearray(path.read_bytes())
            raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
            with path.open("r+b") as file:  # in place: the cache has it open
                file.write(raw)

    # What readers do, and what they may see

    def draw_key(self, data: st.DataObject, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """A selection for that shape, and the key with which NumPy gives the same box."""
        if data.draw(st.booleans()):
            lists = [sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=4))) for n in shape]
            return parse_orthogonal(tuple(lists), shape).selection, np.ix_(*lists)
        key = []
        for n in shape:
            start = data.draw(st.integers(0, n))
            key.append(slice(start, data.draw(st.integers(start, n)), data.draw(st.sampled_from([1, 1, 2, 5]))))
        return parse_basic(tuple(key), shape).selection, tuple(key)

    def versions_to_see(self, path: str) -> dict[str, np.ndarray]:
        """What an unpinned read may be of: the version that is heard of, and the one there is."""
        versions = {}
        if path in self.known:
            version = self.known[path].version
            versions[version] = self.past[path, version]
        if path in self.now:
            versions[self.store.resolve(path).version] = self.now[path]
        return versions

    def check_error(self, error: Caterva2Error, path: str, version: str | None) -> None:
        """Does the state allow that error?"""
        if isinstance(error, (NotCachedError, SourceUnavailableError)):
            assert not self.wire.is_up or self.wire.records_left is not None, error
            heard = version or (self.known[path].version if path in self.known else "")
            assert (path, heard) not in self.kept, f"{path} was read whole, but {error}"
        elif isinstance(error, DatasetNotFoundError):
            assert path not in self.now, error
        elif isinstance(error, DatasetChangedError):
            assert version is not None, error
            assert path not in self.now or self.store.resolve(path).version != version, error
        else:
            # The selection was made for the shape that was heard of, and the dataset has another one now.
            assert isinstance(error, SelectionError), error
            assert path in self.now, error
            assert self.known[path].geometry != self.store.resolve(path).geometry, error

    @precondition(lambda self: self.known)
    @rule(data=st.data(), mode=READ_MODES)
    def read(self, data: st.DataObject, mode: Mode) -> None:
        path = data.draw(st.sampled_from(sorted(self.known)))
        version = self.known[path].version
        selection, key = self.draw_key(data, self.past[path, version].shape)
        allowed = self.versions_to_see(path)
        try:
            got = self.run(read_array(self.cached, path, selection, mode))
        except Caterva2Error as error:
            self.check_error(error, path, None)
            return
        assert any(is_same(got, box_of(items, key)) for items in allowed.values())

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def read_whole(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.known)))
        heard = self.known[path].version
        allowed = self.versions_to_see(path)
        try:
            got = self.run(read_array(self.cached, path))
        except Caterva2Error as error:
            self.check_error(error, path, None)
            return
        assert any(is_same(got, items) for items in allowed.values())
        if self.quota_nbytes == ROOMY and list(allowed) == [heard]:
            self.kept.add((path, heard))
            reads = self.wire.reads
            assert is_same(self.run(read_array(self.cached, path)), got)
            assert self.wire.reads == reads, "what was read whole is asked for again"

    @precondition(lambda self: self.past)
    @rule(data=st.data(), mode=READ_MODES)
    def read_pinned(self, data: st.DataObject, mode: Mode) -> None:
        path, version = data.draw(st.sampled_from(list(self.past)))  # in their order: it is the same in every run
        items = self.past[path, version]
        selection, key = self.draw_key(data, items.shape)
        if path not in self.known:
            return  # whoever opened it has its entry from somewhere: a dataset that is not heard of is not opened
        try:
            got = self.run(read_array(Pinned(self.cached, version), path, selection, mode))
        except Caterva2Error as error:
            self.check_error(error, path, version)
            return
        assert is_same(got, box_of(items, key))

    @precondition(lambda self: self.known)
    @rule(data=st.data(), count=st.integers(2, 6), mode=READ_MODES)
    def read_together(self, data: st.DataObject, count: int, mode: Mode) -> None:
        path = data.draw(st.sampled_from(sorted(self.known)))
        shape = self.past[path, self.known[path].version].shape
        wanted = [self.draw_key(data, shape) for _ in range(count)]
        allowed = self.versions_to_see(path)

        async def all_of_them() -> list[Any]:
            reads = (read_array(self.cached, path, selection, mode) for selection, _ in wanted)
            return await asyncio.gather(*reads, return_exceptions=True)

        for got, (_, key) in zip(self.run(all_of_them()), wanted, strict=True):
            if isinstance(got, Caterva2Error):
                self.check_error(got, path, None)
            else:
                assert not isinstance(got, BaseException), got
                assert any(is_same(got, box_of(items, key)) for items in allowed.values())

    @precondition(lambda self: self.now)
    @rule(data=st.data(), steps=st.integers(0, 20), seed=SEEDS, mode=READ_MODES)
    def read_while_it_changes(self, data: st.DataObject, steps: int, seed: int, mode: Mode) -> None:
        path = data.draw(st.sampled_from(sorted(self.now)))
        before = self.versions_to_see(path)
        items = self.now[path][::-1].copy()
        items.flat[0] = seed % 200

        async def both() -> Any:
            task = asyncio.create_task(read_array(self.cached, path, mode=mode))
            for _ in range(steps):
                await asyncio.sleep(0)
            self.put(path, items, self.partitions[path])
            await self.origin.rescan([self.root.watched / path])
            return (await asyncio.gather(task, return_exceptions=True))[0]

        got = self.run(both())
        self.now[path] = items
        self.announce(path)
        allowed = before | self.versions_to_see(path)
        if isinstance(got, DatasetChangedError):
            return  # it changed: that is what it says
        if isinstance(got, Caterva2Error):
            self.check_error(got, path, None)
        else:
            assert not isinstance(got, BaseException), got
            assert any(is_same(got, items) for items in allowed.values())

    @invariant()
    def usage_is_within_the_quota(self) -> None:
        assert self.cache.usage_nbytes <= self.quota_nbytes


class DirectoryModel(Model):
    """The same over files."""

    def make_root(self) -> Root:
        (self.directory / "files").mkdir()
        return DirectoryRoot(self.directory / "files", "owner")

    def put(self, path: str, items: np.ndarray, partition: Partition) -> None:
        place = self.directory / "files" / path
        place.parent.mkdir(exist_ok=True)
        part = place.with_suffix(".tmp")
        blosc2.asarray(items, chunks=partition.chunks, blocks=partition.blocks, urlpath=str(part), mode="w")
        os.replace(part, place)

    def remove(self, path: str) -> None:
        (self.directory / "files" / path).unlink()


def box_of(items: np.ndarray, key: Any) -> np.ndarray | None:
    """The box that a key made for another shape gives here; None when there is none."""
    try:
        return items[key]
    except IndexError:
        return None


def is_same(got: np.ndarray, want: np.ndarray | None) -> bool:
    return want is not None and got.dtype == want.dtype and got.shape == want.shape and np.array_equal(got, want)


def _case(machine: type[Model], examples: int) -> Any:
    case = machine.TestCase
    case.settings = settings(
        max_examples=examples * (50 if IS_LONG else 1),
        stateful_step_count=60 if IS_LONG else 30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return pytest.mark.timeout(3600 if IS_LONG else 120)(case)


TestModel = _case(Model, 30)
TestModelOverFiles = _case(DirectoryModel, 10)
