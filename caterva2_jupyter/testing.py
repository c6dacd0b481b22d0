"""Contracts that every root and every source has to fulfil, as pytest classes to subclass.

A subclass says how an implementation is made over given arrays; the tests come with it. Data is compared
with NumPy. No sockets are opened here (a subclass may), and no network is needed.

    class TestMemoryRoot(RootContract):
        def make_root(self, arrays, tmp_path):
            return MemoryRoot(arrays)
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from .compute.reduction import Reduction
from .core.answer_choice import MAX_SLICE_NBYTES, Mode
from .core.assembly import Assembler
from .core.blocks import BlockRecord, checksum_seed
from .core.catalog import CatalogPage, CatalogQuery, Cursor
from .core.chunk_grid import BlockPlan, ChunkProjection
from .core.events import Event, EventBatch
from .core.exact_slice import PieceAssembler, selection_digest, slice_seed
from .core.metadata import Entry
from .core.reduce_request import Operation, ReduceRequest, Working
from .core.revalidation import DIGEST_NBYTES, KnownBlocks, adopt, chunk_digest
from .core.selection import ParsedKey, Selection, parse_basic, parse_orthogonal
from .core.source import BlockStream, Source
from .core.wire import ReadRequest
from .errors import (
    DatasetChangedError,
    DatasetNotFoundError,
    RequestError,
    ResyncError,
    SelectionError,
    UnsupportedDatasetError,
)
from .storage.catalog_store import CatalogStore
from .storage.closing import close_stream
from .storage.event_hub import EventHub
from .storage.memory_root import MemoryRoot
from .storage.root import KnownEntry, Root
from .storage.threaded_source import ThreadedSource

__all__ = ["Origin", "RootContract", "SourceContract", "open_origin", "random_key", "read_array", "sample_arrays"]

Array = npt.NDArray[Any]
Content = Mapping[str, Array | bytes]

DEADLINE_S = 20.0


def sample_arrays() -> dict[str, Array]:
    """Arrays of many dtypes and shapes by path, in groups; the same ones in every run."""
    rng = np.random.default_rng(7)
    table = np.zeros(37, [("id", "<i4"), ("position", ">f8", (3,)), ("name", "S5")])
    table["id"], table["position"], table["name"] = np.arange(37), rng.normal(size=(37, 3)), b"abc"
    return {
        "bool.b2nd": rng.random((19, 23)) < 0.5,
        "constant.b2nd": np.full((200, 300), 7.5),
        "empty.b2nd": np.empty((0, 4), "<f4"),
        "grid/big-endian.b2nd": rng.normal(size=(33, 17)).astype(">f4"),
        "grid/complex.b2nd": (rng.normal(size=(7, 8)) + 1j).astype("<c16"),
        "grid/deep/half.b2nd": rng.normal(size=1000).astype("<f2"),
        "grid/deep/noise.b2nd": rng.integers(0, 2**60, (41, 53, 29)),
        "line.b2nd": np.arange(100_000, dtype="<i4"),
        "scalar.b2nd": np.array(42, "<i8"),
        "table.b2nd": table,
        "text.b2nd": np.array([[b"a", b"bcd"], [b"", b"ef"]], "S3"),
    }


def random_key(rng: np.random.Generator, shape: tuple[int, ...]) -> ParsedKey:
    """Some selection that NumPy accepts for that shape: basic, or items per axis."""
    if rng.random() < 0.3 and 0 not in shape:
        lists = [sorted(set(rng.integers(0, n, rng.integers(1, 6)).tolist())) for n in shape]
        return parse_orthogonal(tuple(lists), shape)
    key: list[Any] = []
    for n in shape:
        if n and rng.random() < 0.25:
            key.append(int(rng.integers(-n, n)))
            continue
        start, stop = sorted(rng.integers(0, n + 1, 2).tolist())
        key.append(slice(start, stop, int(rng.choice([1, 1, 1, 2, 5, 40]))))
    return parse_basic(tuple(key), shape)


def _expected(array: Array, selection: Selection) -> Array:
    """The box of a selection, as NumPy gives it."""
    index = [np.array(a.items) if hasattr(a, "items") else np.arange(a.start, a.stop, a.step) for a in selection.axes]
    box: Array = array[np.ix_(*index)] if index else array[()]
    return np.asarray(box).reshape(selection.shape)


def _as_array(content: Array | bytes) -> Array:
    return np.frombuffer(content, np.uint8) if isinstance(content, bytes) else np.asarray(content)


def _assert_same(got: Array, want: Array) -> None:
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.dtype.hasobject or got.tobytes() == want.tobytes()
    assert not got.dtype.hasobject or got.tolist() == want.tolist()


async def _records(stream: AsyncIterator[BlockRecord]) -> list[BlockRecord]:
    return [record async for record in stream]


def _assemble(entry: Entry, selection: Selection, records: Iterable[BlockRecord]) -> Array:
    assert entry.geometry is not None
    assembler = Assembler(entry.geometry, selection)
    projections = {p.nchunk: p for p in BlockPlan(entry.geometry, selection)}
    for record in records:
        record.verify(checksum_seed(entry.id, entry.version))
        assembler.add(projections[record.nchunk], record)
    return assembler.out


async def read_array(
    source: Source, path: str, selection: Selection | None = None, mode: Mode = "blocks", fast: bool = False
) -> Array:
    """Read a selection (None: all) of a dataset, every record verified, whichever answer comes.

    Parameters
    ----------
    source : Source
    path : str
    mode : {"blocks", "auto", "slice"}

    Returns
    -------
    ndarray
        The box; no axis is dropped.
    """
    form = None if selection is None else selection.to_json()
    stream = await source.read_blocks(ReadRequest(source.root, path, selection=form, mode=mode, fast=fast))
    assert stream.entry.geometry is not None
    selection = selection or Selection.whole(stream.entry.geometry.shape)
    records = await _records(stream.records)
    return _join(stream, selection, records) if stream.digest else _assemble(stream.entry, selection, records)


def _join(stream: BlockStream, selection: Selection, pieces: Iterable[BlockRecord]) -> Array:
    """The box of an exact slice."""
    entry = stream.entry
    assert entry.geometry is not None
    assert stream.digest == selection_digest(selection)
    assembler = PieceAssembler(entry.geometry, selection)
    for piece in pieces:
        piece.verify(slice_seed(checksum_seed(entry.id, entry.version), stream.digest))
        assembler.add(piece)
    assembler.finish()
    return assembler.out


async def reduce_array(source: Source, path: str, op: Operation, **how: Any) -> Array:
    """The result of a reduction (fields of ``ReduceRequest``), every record verified."""
    entry = await source.entry(path)
    assert entry.geometry is not None
    request = ReduceRequest(source.root, path, op, version=entry.version, **how)
    stream = await source.reduce(request)
    reduction = Reduction(entry.geometry, request)
    assert (stream.entry.id, stream.entry.version, stream.digest) == (entry.id, entry.version, reduction.digest)
    result = reduction.result
    assembler = PieceAssembler(result, Selection.whole(result.shape))
    try:
        async for item in stream.records:
            if not isinstance(item, Working):
                item.verify(slice_seed(checksum_seed(entry.id, entry.version), stream.digest))
                assembler.add(item)
    finally:
        await close_stream(stream.records)
    if result.size:
        assembler.finish()
    return assembler.out


class RootContract(ABC):
    """What every ``Root`` has to do. Subclass as ``Test...`` and give ``make_root``.

    Attributes
    ----------
    stores_files : bool
        False: a byte string cannot be put in such a root as a file.
    """

    stores_files = True

    @abstractmethod
    def make_root(self, arrays: Content, tmp_path: Path) -> Root:
        """A root that holds these arrays, and files for byte strings, at these paths."""

    @abstractmethod
    def put(self, root: Root, path: str, content: Array | bytes) -> Path:
        """Put or replace a dataset behind the root's back; where a watcher would see that."""

    @abstractmethod
    def remove(self, root: Root, path: str) -> Path:
        """Remove a dataset behind the root's back; where a watcher would see that."""

    @pytest.fixture
    def content(self) -> dict[str, Array | bytes]:
        """Arrays, and a file where the root stores files."""
        arrays: dict[str, Array | bytes] = dict(sample_arrays())
        if self.stores_files:
            arrays["notes/readme.md"] = b"# Notes\n" * 100_000
        return arrays

    @pytest.fixture
    def root(self, content: Content, tmp_path: Path) -> Iterable[Root]:
        root = self.make_root(content, tmp_path)
        yield root
        root.close()

    @staticmethod
    def _entries(root: Root, known: Iterable[KnownEntry] = ()) -> dict[str, Entry]:
        return {entry.path: entry for entry, _ in root.scan(known)}

    @staticmethod
    def _read(root: Root, entry: Entry, selection: Selection) -> Array:
        assert entry.geometry is not None
        records: list[BlockRecord] = []
        for projection in BlockPlan(entry.geometry, selection):
            came = root.read_chunk(entry, projection, projection.blocks.tolist())
            ids = {int(i) for record in came for i in record.ids}
            assert any(record.is_whole for record in came) or ids >= set(projection.blocks.tolist())
            records += came
        return _assemble(entry, selection, records)

    def test_lists_every_dataset_and_its_groups(self, root: Root, content: Content) -> None:
        entries = self._entries(root)
        assert set(content) <= set(entries)
        assert {entries["grid"].kind, entries["grid/deep"].kind} == {"group"}
        assert set(entries) - set(content) <= {"", "grid", "grid/deep", "notes"}

    def test_describes_arrays_as_they_are(self, root: Root, content: Content) -> None:
        entries = self._entries(root)
        for path, items in content.items():
            geometry = entries[path].geometry
            assert geometry is not None, entries[path]
            assert (geometry.shape, geometry.dtype) == (_as_array(items).shape, _as_array(items).dtype)
            assert entries[path].kind == ("file" if isinstance(items, bytes) else "array")

    def test_entries_survive_json(self, root: Root) -> None:
        for entry in self._entries(root).values():
            assert Entry.from_json(entry.to_json()) == entry

    def test_whole_arrays_are_equal(self, root: Root, content: Content) -> None:
        entries = self._entries(root)
        for path, items in content.items():
            want = _as_array(items)
            _assert_same(self._read(root, entries[path], Selection.whole(want.shape)), want)

    def test_selections_are_equal_to_what_numpy_gives(self, root: Root, content: Content) -> None:
        entries, rng = self._entries(root), np.random.default_rng(1)
        for path, items in content.items():
            want = _as_array(items)
            for _ in range(8):
                selection = random_key(rng, want.shape).selection
                _assert_same(self._read(root, entries[path], selection), _expected(want, selection))

    def test_ids_and_versions_tell_datasets_apart(self, root: Root, content: Content) -> None:
        entries = self._entries(root)
        assert len({entries[path].id for path in content}) == len(content)
        assert all(entries[path].version for path in content)

    def test_a_second_scan_gives_the_same_entries(self, root: Root) -> None:
        first = list(root.scan([]))
        known = [KnownEntry(entry, stamp) for entry, stamp in first]
        assert sorted(root.scan(known), key=lambda item: item[0].path) == sorted(first, key=lambda item: item[0].path)

    def _rescan(self, root: Root, known: list[KnownEntry], place: Path) -> list[Event]:
        return [event for event, _ in root.rescan([place], known)]

    def test_a_rescan_of_what_did_not_change_tells_nothing(self, root: Root) -> None:
        known = [KnownEntry(entry, stamp) for entry, stamp in root.scan([])]
        assert self._rescan(root, known, root.watched) == []

    def test_a_new_dataset_is_told(self, root: Root) -> None:
        known = [KnownEntry(entry, stamp) for entry, stamp in root.scan([])]
        place = self.put(root, "fresh/new.b2nd", np.arange(5))
        events = {event.path: event for event in self._rescan(root, known, place)}
        assert events["fresh/new.b2nd"].change == "put"
        entry = events["fresh/new.b2nd"].entry
        assert entry is not None
        _assert_same(self._read(root, entry, Selection.whole((5,))), np.arange(5))

    def test_a_changed_dataset_is_told_with_another_version(self, root: Root) -> None:
        known = [KnownEntry(entry, stamp) for entry, stamp in root.scan([])]
        before = next(k.entry for k in known if k.entry.path == "line.b2nd")
        place = self.put(root, "line.b2nd", np.arange(100_000, dtype="<i4") + 1)
        events = {event.path: event for event in self._rescan(root, known, place)}
        entry = events["line.b2nd"].entry
        assert entry is not None
        assert entry.id == before.id
        assert entry.version != before.version
        assert self._read(root, entry, Selection.whole((100_000,)))[0] == 1

    def test_a_removed_dataset_is_told(self, root: Root) -> None:
        known = [KnownEntry(entry, stamp) for entry, stamp in root.scan([])]
        place = self.remove(root, "grid/complex.b2nd")
        assert Event("delete", "grid/complex.b2nd") in self._rescan(root, known, place)

    @pytest.mark.parametrize("change", ["replace", "remove"])
    def test_a_version_that_is_gone_is_not_read(self, root: Root, change: str) -> None:
        entry = self._entries(root)["line.b2nd"]
        if change == "replace":
            self.put(root, "line.b2nd", np.arange(100_000, dtype="<i4")[::-1].copy())
        else:
            self.remove(root, "line.b2nd")
        with pytest.raises(DatasetChangedError, match=r"line\.b2nd"):
            self._read(root, entry, Selection.whole((100_000,)))

    def test_stored_bytes_of_a_file_come_in_parts(self, root: Root, content: Content) -> None:
        if not self.stores_files:
            with pytest.raises(UnsupportedDatasetError):
                root.read_file(self._entries(root)["line.b2nd"], 0, None)
            return
        stored = content["notes/readme.md"]
        assert isinstance(stored, bytes)
        entry = self._entries(root)["notes/readme.md"]
        for start, stop in [(0, None), (3, 600_000), (len(stored) - 1, None), (5, 5)]:
            answer = root.read_file(entry, start, stop)
            assert (answer.nbytes, answer.version) == (len(stored), entry.version)
            assert b"".join(answer.parts) == stored[start:stop]

    def test_attributes_of_an_entry_are_complete(self, root: Root) -> None:
        for entry in self._entries(root).values():
            full = root.attributes(entry)
            assert full.attrs_inline
            assert (full.path, full.version, full.attrs_tag) == (entry.path, entry.version, entry.attrs_tag)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the data of a source under test is: a ``MemoryRoot`` and the source over it."""

    root: MemoryRoot
    source: ThreadedSource
    store: CatalogStore
    hub: EventHub

    async def put(self, path: str, array: npt.ArrayLike | bytes, **how: Any) -> None:
        """Set a dataset and announce it."""
        self.root.set(path, array, **how)
        await self.source.rescan([self.root.watched / path, self.root.watched / path.rpartition("/")[0]])

    async def delete(self, path: str) -> None:
        """Remove a dataset and announce it."""
        self.root.delete(path)
        await self.source.rescan([self.root.watched / path])


@asynccontextmanager
async def open_origin(
    arrays: Mapping[str, npt.ArrayLike | bytes], name: str = "foo", heartbeat_s: float = 5
) -> AsyncIterator[Origin]:
    """A source over arrays in memory, its catalog up to date."""
    root, store, hub = MemoryRoot(arrays), CatalogStore(None, name), EventHub()
    with ThreadPoolExecutor(4) as executor:
        source = ThreadedSource(name, root, store, hub, executor, heartbeat_s)
        await source.scan()
        yield Origin(root, source, store, hub)
        source.close()
    store.close()


Scenario = Callable[[Source, Origin], Awaitable[None]]


class SourceContract(ABC):
    """What every ``Source`` has to do. Subclass as ``Test...`` and give ``wrap``.

    Attributes
    ----------
    tells_events : bool
        False: the source under test leaves ``events`` to another one.
    """

    tells_events = True

    @abstractmethod
    def wrap(self, origin: Origin, tmp_path: Path) -> AbstractAsyncContextManager[Source]:
        """The source under test, which gets its data from ``origin.source``."""

    def run(
        self, scenario: Scenario, tmp_path: Path, arrays: Mapping[str, npt.ArrayLike | bytes] | None = None
    ) -> None:
        """Run a scenario against the source under test."""

        async def play() -> None:
            content = _source_content() if arrays is None else arrays
            async with (
                asyncio.timeout(60),
                open_origin(content, heartbeat_s=0.2) as origin,
                self.wrap(origin, tmp_path) as source,
            ):
                await scenario(source, origin)

        asyncio.run(play())

    # catalog

    def test_the_catalog_lists_all_in_order(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            page = await source.catalog(CatalogQuery())
            paths = [entry.path for entry in page.entries()]
            assert paths == sorted({*_source_content(), "grid", "grid/deep", "notes"})
            assert page.next is None
            assert page.deleted == ()

        self.run(scenario, tmp_path)

    def test_pages_follow_one_another(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            paths: list[str] = []
            query: CatalogQuery | None = CatalogQuery(limit=3)
            while query is not None:
                page = await source.catalog(query)
                assert len(page.items) <= 3
                paths += [entry.path for entry in page.entries()]
                query = CatalogQuery(limit=3, after=page.next) if page.next is not None else None
            assert paths == [entry.path for entry in (await source.catalog(CatalogQuery())).entries()]

        self.run(scenario, tmp_path)

    def test_a_group_lists_what_is_below_it(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            async def listed(query: CatalogQuery) -> list[str]:
                return [entry.path for entry in (await source.catalog(query)).entries()]

            deep = ["grid/deep", "grid/deep/half.b2nd", "grid/deep/noise.b2nd"]
            flat = ["grid/big-endian.b2nd", "grid/complex.b2nd"]
            assert await listed(CatalogQuery(under="grid")) == flat + deep
            assert await listed(CatalogQuery(under="grid", depth=1)) == [*flat, "grid/deep"]
            assert await listed(CatalogQuery(under="grid", q="dtype:float16")) == ["grid/deep/half.b2nd"]
            assert "grid/deep" not in await listed(CatalogQuery(depth=1))

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("path", ["nothing", "gri", "line.b2nd"])
    def test_what_is_no_group_lists_nothing(self, tmp_path: Path, path: str) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(DatasetNotFoundError, match=path):
                await source.catalog(CatalogQuery(under=path))

        self.run(scenario, tmp_path)

    def test_changes_since_a_cursor_are_listed(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            before = (await source.catalog(CatalogQuery())).cursor
            await origin.put("line.b2nd", np.arange(3))
            await origin.put("fresh/new.b2nd", np.arange(4))
            await origin.delete("bool.b2nd")
            page = await _changed_page(source, before, count=4)
            assert [entry.path for entry in page.entries()] == ["fresh", "fresh/new.b2nd", "line.b2nd"]
            assert page.deleted == ("bool.b2nd",)
            after = await source.catalog(CatalogQuery(since=page.cursor))
            assert (after.items, after.deleted) == ((), ())

        self.run(scenario, tmp_path)

    def test_a_cursor_of_another_epoch_needs_a_resync(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(ResyncError):
                await source.catalog(CatalogQuery(since=Cursor("another", 1)))

        self.run(scenario, tmp_path)

    # entry

    @pytest.mark.parametrize("path", ["grid/complex.b2nd", "grid/complex", "notes/readme.md", "grid"])
    def test_an_entry_is_found_with_and_without_its_suffix(self, tmp_path: Path, path: str) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry(path)
            assert entry.path in (path, f"{path}.b2nd")
            assert entry == await origin.source.entry(path)

        self.run(scenario, tmp_path)

    def test_an_entry_has_attributes_of_any_size(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            await origin.put("line.b2nd", np.arange(3), attrs={"history": "x" * 100_000})
            entry = await _eventually(lambda: source.entry("line"), lambda e: e.geometry.shape == (3,))
            assert entry.attrs == {"history": "x" * 100_000}

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("path", ["nothing.b2nd", "line.b2nd/more", "LINE.b2nd", "grid/deep/half.b2nd.b2nd"])
    def test_what_is_not_there_is_not_found(self, tmp_path: Path, path: str) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(DatasetNotFoundError, match="no dataset"):
                await source.entry(path)
            with pytest.raises(DatasetNotFoundError, match="no dataset"):
                await source.read_blocks(ReadRequest(source.root, path))
            with pytest.raises(DatasetNotFoundError, match="no dataset"):
                await source.read_file(path, 0, None)

        self.run(scenario, tmp_path)

    # read_blocks

    def test_arrays_are_equal(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            for path, array in _source_content().items():
                _assert_same(await read_array(source, path), _as_array(array))

        self.run(scenario, tmp_path)

    def test_selections_are_equal_to_what_numpy_gives(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            rng = np.random.default_rng(2)
            for path, array in _source_content().items():
                want = _as_array(array)
                for _ in range(4):
                    selection = random_key(rng, want.shape).selection
                    _assert_same(await read_array(source, path, selection), _expected(want, selection))

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("mode", ["auto", "slice"])
    def test_exact_slices_are_equal_to_what_numpy_gives(self, tmp_path: Path, mode: Mode) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            rng = np.random.default_rng(4)
            for path, array in _source_content().items():
                want = _as_array(array)
                _assert_same(await read_array(source, path, mode=mode), want)
                for _ in range(4):
                    selection = random_key(rng, want.shape).selection
                    got = await read_array(source, path, selection, mode, fast=bool(rng.random() < 0.5))
                    _assert_same(got, _expected(want, selection))

        self.run(scenario, tmp_path)

    def test_the_smaller_answer_comes(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            async def answer(selection: list[list[int]], mode: Mode, path: str = "noise.b2nd", **how: Any) -> str:
                stream = await source.read_blocks(ReadRequest("foo", path, None, selection, mode=mode, **how))
                await _records(stream.records)
                return stream.answer

            noise = np.random.default_rng(5).integers(0, 2**60, (60, 300, 300))
            await origin.put("noise.b2nd", noise, chunks=(20, 100, 100), blocks=(5, 50, 50))
            await origin.put("words.b2nd", np.array(["a", "b"] * 500, object), chunks=(100,))
            await _eventually(lambda: source.entry("words"), lambda entry: entry.has_data)
            point = [[0, 60, 1], [7, 8, 1], [9, 10, 1]]
            assert await answer(point, "auto") == "slice"
            assert await answer(point, "slice") == "slice"
            assert await answer(point, "blocks") == "blocks"
            assert await answer(point, "auto", window=(0, 1)) == "blocks"
            assert await answer([[5, 10, 1], [0, 50, 1], [50, 100, 1]], "auto") == "blocks"
            assert await answer([[0, 1, 1]], "slice", path="words.b2nd") == "blocks"
            assert noise.nbytes > MAX_SLICE_NBYTES
            assert await answer([[0, 60, 1], [0, 300, 1], [0, 300, 1]], "slice") == "blocks"

        self.run(scenario, tmp_path)

    def test_an_exact_slice_of_a_version_that_is_gone_is_refused(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            for mode in ("auto", "slice"):
                request = ReadRequest(source.root, "line", "0" * 24, [[5, 6, 1]], mode=mode)
                with pytest.raises(DatasetChangedError, match=r"line\.b2nd"):
                    await source.read_blocks(request)

        self.run(scenario, tmp_path)

    def test_large_and_odd_chunks_are_equal(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            rng = np.random.default_rng(3)
            noise = rng.integers(0, 2**60, (500, 700))
            strings = np.array([f"{i} é" * (i % 5) for i in range(300)], object).reshape(30, 10)
            await origin.put("one-chunk.b2nd", noise, chunks=(500, 700), blocks=(50, 64))
            await origin.put("tiny-chunks.b2nd", noise[:60, :50], chunks=(3, 2), blocks=(1, 2))
            await origin.put("runs.b2nd", noise, chunks=(130, 128), blocks=(1000,), layout="flat", padded=False)
            await origin.put("word.b2nd", np.array("wörd", object))
            await origin.put("strings.b2nd", strings, chunks=(7, 4))
            await _eventually(lambda: source.entry("strings"), lambda entry: entry.has_data)
            for path, want in [("one-chunk", noise), ("tiny-chunks", noise[:60, :50]), ("runs", noise)]:
                selection = random_key(rng, want.shape).selection
                _assert_same(await read_array(source, path, selection, "slice"), _expected(want, selection))
                _assert_same(await read_array(source, path), want)
                _assert_same(await read_array(source, path, selection), _expected(want, selection))
            assert (await read_array(source, "strings")).tolist() == strings.tolist()
            assert (await read_array(source, "word")).item() == "wörd"

        self.run(scenario, tmp_path)

    def test_records_come_in_the_order_of_the_plan(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            stream = await source.read_blocks(ReadRequest(source.root, "grid/deep/noise"))
            came = [(r.nchunk, int(i)) for r in await _records(stream.records) for i in r.ids]
            assert came == _plan_blocks(stream.entry)

        self.run(scenario, tmp_path)

    def test_the_version_asked_for_is_read_or_refused(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry("line")
            stream = await source.read_blocks(ReadRequest(source.root, entry.path, entry.version))
            assert stream.entry == entry
            await _records(stream.records)
            with pytest.raises(DatasetChangedError, match=r"line\.b2nd"):
                await source.read_blocks(ReadRequest(source.root, entry.path, "0" * 24))

        self.run(scenario, tmp_path)

    def test_a_replaced_dataset_is_read_as_it_is_now(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            before = await source.entry("line")
            await read_array(source, "line")
            await origin.put("line.b2nd", np.arange(100_000, dtype="<i4") * 3)
            await _eventually(lambda: source.entry("line"), lambda entry: entry.version != before.version)
            _assert_same(await read_array(source, "line"), np.arange(100_000, dtype="<i4") * 3)

        self.run(scenario, tmp_path)

    def test_a_dataset_that_changes_while_it_is_read_is_never_mixed(self, tmp_path: Path) -> None:
        old, new = np.zeros((400, 500)), np.ones((400, 500))
        how: dict[str, Any] = {"chunks": (10, 500), "blocks": (1, 100)}

        async def scenario(source: Source, origin: Origin) -> None:
            await origin.put("moving.b2nd", old, **how)
            await _eventually(lambda: source.entry("moving"), lambda entry: entry.has_data)
            stream = await source.read_blocks(ReadRequest(source.root, "moving"))
            records = [await anext(stream.records)]
            await origin.put("moving.b2nd", new, **how)
            try:
                records += await _records(stream.records)
            except DatasetChangedError:
                return
            got = _assemble(stream.entry, Selection.whole(old.shape), records)
            assert np.array_equal(got, old)

        self.run(scenario, tmp_path)

    def test_windows_together_are_the_whole(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry("grid/deep/noise")
            blocks = _plan_blocks(entry)
            third = len(blocks) // 3
            came: list[tuple[int, int]] = []
            for window in [(0, third), (third, third), (third, len(blocks))]:
                request = ReadRequest(source.root, entry.path, entry.version, window=window)
                records = await _records((await source.read_blocks(request)).records)
                came += [(r.nchunk, int(i)) for r in records for i in r.ids]
            assert came == blocks

        self.run(scenario, tmp_path)

    def test_held_blocks_are_not_sent(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry("grid/deep/noise")
            blocks = _plan_blocks(entry)
            window = (1, len(blocks) - 1)
            held = np.arange(window[1] - window[0]) % 3 == 0
            request = ReadRequest(source.root, entry.path, entry.version, window=window, held=held)
            records = await _records((await source.read_blocks(request)).records)
            came = [(r.nchunk, int(i)) for r in records for i in r.ids]
            assert came == [block for block, is_held in zip(blocks[1:-1], held, strict=True) if not is_held]
            everything = ReadRequest(source.root, entry.path, entry.version, held=np.ones(len(blocks), np.bool_))
            assert await _records((await source.read_blocks(everything)).records) == []

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("selection", [[], [[0, 1, 1], [0, 1, 1]], [[0, 100_001, 1]], [[5, 4, 1]], [[0, 4, 0]]])
    def test_a_selection_that_does_not_fit_is_refused(self, tmp_path: Path, selection: list[list[int]]) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(SelectionError):
                await source.read_blocks(ReadRequest(source.root, "line", selection=selection))

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize(
        "request_form", [{"selection": "all"}, {"window": (0, 10**9)}, {"held": np.ones(100, np.bool_)}]
    )
    def test_a_request_that_does_not_fit_is_refused(self, tmp_path: Path, request_form: dict[str, Any]) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(RequestError):
                await source.read_blocks(ReadRequest(source.root, "line", **request_form))

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("path", ["grid/deep/noise.b2nd", "constant.b2nd", "table.b2nd", "scalar.b2nd"])
    def test_blocks_are_compared_with_digests_of_them(self, tmp_path: Path, path: str) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            stream = await source.read_blocks(ReadRequest(source.root, path))
            held: dict[int, list[BlockRecord]] = {}
            for record in await _records(stream.records):
                held.setdefault(record.nchunk, []).append(record)
            entry = stream.entry
            assert entry.geometry is not None
            plan = BlockPlan(entry.geometry, Selection.whole(entry.geometry.shape))
            digests = [chunk_digest(held[nchunk]) for nchunk in sorted(held)]
            digests[0] = bytes(DIGEST_NBYTES)

            def request(digests: list[bytes]) -> ReadRequest:
                known = KnownBlocks(np.ones(plan.nblocks, np.bool_), b"".join(digests))
                return ReadRequest(source.root, entry.path, entry.version, known=known)

            compared = await source.compare_blocks(request(digests))
            assert (compared.entry.id, compared.entry.version) == (entry.id, entry.version)
            said = [same async for same in compared.records]
            assert [same.nchunk for same in said] == sorted(held)
            assert [bool(same.proof) for same in said] == [False] + [True] * (len(held) - 1)
            for same in said:
                adopted = adopt(same, held[same.nchunk], checksum_seed(entry.id, entry.version))
                assert sum(len(r.ids) for r in adopted) == sum(len(r.ids) for r in held[same.nchunk])
            for wrong in (digests[1:], [*digests, bytes(DIGEST_NBYTES)]):
                with pytest.raises(RequestError, match="digests"):
                    [same async for same in (await source.compare_blocks(request(wrong))).records]
            gone = replace(request(digests), version="0" * 24)
            with pytest.raises(DatasetChangedError):
                [same async for same in (await source.compare_blocks(gone)).records]

        self.run(scenario, tmp_path)

    # reduce

    def test_reductions_are_what_numpy_gives(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            runs = np.arange(35_000).reshape(500, 70)
            large = np.arange(2_000_000, dtype="<f4").reshape(2000, 1000) / 7
            await origin.put("runs.b2nd", runs, chunks=(130, 70), blocks=(1000,), layout="flat")
            await origin.put("one-chunk.b2nd", large)
            await _eventually(lambda: source.entry("one-chunk"), lambda entry: entry.has_data)
            content = {**_source_content(), "runs.b2nd": runs, "one-chunk.b2nd": large}
            names: list[Operation] = ["sum", "mean", "min", "max", "std", "any"]
            for path, stored in content.items():
                array = _as_array(stored)
                if array.dtype.kind not in "iufcb" or not array.size:
                    continue
                for op in names:
                    want = np.asarray(getattr(array.astype("f8") if array.dtype == "f2" else array, op)())
                    got = await reduce_array(source, path, op)
                    np.testing.assert_allclose(got, want, rtol=1e-3 if array.dtype.itemsize < 8 else 1e-9)
                for axis in range(array.ndim):
                    got = await reduce_array(source, path, "max", axis=(axis,))
                    _assert_same(got, np.asarray(array.max(axis)))
            noise = content["grid/deep/noise.b2nd"]
            assert isinstance(noise, np.ndarray)
            part = [[3, 40, 5], {"at": [1, 17, 52]}, [0, 29, 1]]
            got = await reduce_array(source, "grid/deep/noise", "sum", axis=(0,), selection=part, keepdims=True)
            _assert_same(got, noise[3:40:5, [1, 17, 52]].sum(0, keepdims=True))
            got = await reduce_array(source, "grid/deep/noise", "stride", steps=(10, 7, 29))
            _assert_same(got, noise[::10, ::7, ::29])
            got = await reduce_array(source, "line", "minmax", steps=(30_000,))
            assert got.tolist() == [[0, 29_999], [30_000, 59_999], [60_000, 89_999], [90_000, 99_999]]

        self.run(scenario, tmp_path)

    def test_a_reduction_that_cannot_be_is_refused(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            for how in ({"axis": (1,)}, {"steps": (1, 1)}, {"selection": [[0, 10**9, 1]]}, {"dtype": "no"}):
                with pytest.raises(RequestError):
                    await reduce_array(source, "line", "sum", **how)
            for path in ("table", "text"):
                with pytest.raises(UnsupportedDatasetError):
                    await reduce_array(source, path, "sum")
            with pytest.raises(RequestError, match="no identity"):
                await reduce_array(source, "empty", "min")
            with pytest.raises(DatasetChangedError):
                await source.reduce(ReduceRequest(source.root, "line", "sum", version="0" * 24))
            with pytest.raises(DatasetNotFoundError):
                await source.reduce(ReduceRequest(source.root, "nothing", "sum"))

        self.run(scenario, tmp_path)

    def test_a_reduction_can_be_given_up(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry("grid/deep/noise")
            for _ in range(3):
                stream = await source.reduce(ReduceRequest(source.root, entry.path, "std", version=entry.version))
                await close_stream(stream.records)
            assert (await reduce_array(source, "line", "sum")).item() == 4_999_950_000

        self.run(scenario, tmp_path)

    def test_groups_and_what_is_unsupported_are_not_read(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(UnsupportedDatasetError, match="group"):
                await source.read_blocks(ReadRequest(source.root, "grid"))
            await origin.put("objects.b2nd", np.array([1, None], object))
            await _eventually(lambda: source.entry("objects"), lambda entry: entry.kind == "unsupported")
            with pytest.raises(UnsupportedDatasetError, match="dtype object cannot be served"):
                await source.read_blocks(ReadRequest(source.root, "objects"))

        self.run(scenario, tmp_path)

    def test_a_read_can_be_given_up(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            for _ in range(5):
                stream = await source.read_blocks(ReadRequest(source.root, "grid/deep/noise"))
                async with aclosing(stream.records):  # type: ignore[type-var]
                    await anext(stream.records)
            _assert_same(await read_array(source, "grid/deep/noise"), sample_arrays()["grid/deep/noise.b2nd"])

        self.run(scenario, tmp_path)

    def test_many_readers_at_once_get_equal_items(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            want = sample_arrays()["grid/deep/noise.b2nd"]
            for got in await asyncio.gather(*(read_array(source, "grid/deep/noise") for _ in range(20))):
                _assert_same(got, want)

        self.run(scenario, tmp_path)

    # read_file

    def test_stored_bytes_are_streamed(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            stored = _source_content()["notes/readme.md"]
            assert isinstance(stored, bytes)
            version = (await source.entry("notes/readme.md")).version
            for start, stop in [(0, None), (3, 600_000), (len(stored) - 1, None)]:
                stream = await source.read_file("notes/readme.md", start, stop)
                assert (stream.nbytes, stream.version) == (len(stored), version)
                assert b"".join([part async for part in stream.parts]) == stored[start:stop]

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("path", ["line.b2nd", "grid"])
    def test_what_is_no_file_has_no_stored_bytes(self, tmp_path: Path, path: str) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(UnsupportedDatasetError, match=path):
                await source.read_file(path, 0, None)

        self.run(scenario, tmp_path)

    # events

    def _needs_events(self) -> None:
        if not self.tells_events:
            pytest.skip("this source leaves events to another one")

    def test_changes_are_told_as_they_happen(self, tmp_path: Path) -> None:
        self._needs_events()

        async def scenario(source: Source, origin: Origin) -> None:
            async with aclosing(source.events(None)) as events:  # type: ignore[type-var]
                start = await _next(events)
                assert start.events == ()
                await origin.put("fresh.b2nd", np.arange(4))
                told = await _next_change(events)
                assert told.follows(start.cursor)
                assert [(event.change, event.path) for event in told.events] == [("put", "fresh.b2nd")]
                assert told.events[0].entry == await source.entry("fresh.b2nd")
                await origin.delete("fresh.b2nd")
                gone = await _next_change(events)
                assert gone.follows(told.cursor)
                assert gone.events == (Event("delete", "fresh.b2nd"),)

        self.run(scenario, tmp_path)

    def test_changes_since_a_cursor_are_told_first(self, tmp_path: Path) -> None:
        self._needs_events()

        async def scenario(source: Source, origin: Origin) -> None:
            before = (await source.catalog(CatalogQuery())).cursor
            await origin.put("fresh.b2nd", np.arange(4))
            await origin.delete("bool.b2nd")
            async with aclosing(source.events(before)) as events:  # type: ignore[type-var]
                paths: list[str] = []
                cursor = before
                while len(paths) < 2:
                    told = await _next_change(events)
                    assert told.follows(cursor)
                    cursor = told.cursor
                    paths += [event.path for event in told.events]
                assert sorted(paths) == ["bool.b2nd", "fresh.b2nd"]
                assert cursor == (await source.catalog(CatalogQuery())).cursor

        self.run(scenario, tmp_path)

    def test_heartbeats_tell_the_cursor(self, tmp_path: Path) -> None:
        self._needs_events()

        async def scenario(source: Source, origin: Origin) -> None:
            cursor = (await source.catalog(CatalogQuery())).cursor
            async with aclosing(source.events(cursor)) as events:  # type: ignore[type-var]
                for _ in range(3):
                    heartbeat = await _next(events)
                    assert (heartbeat.cursor, heartbeat.events) == (cursor, ())
                    assert heartbeat.follows(cursor)
                    assert not heartbeat.follows(Cursor(cursor.epoch, cursor.seq - 1))

        self.run(scenario, tmp_path)

    def test_events_since_another_epoch_need_a_resync(self, tmp_path: Path) -> None:
        self._needs_events()

        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(ResyncError):
                await _next_change(source.events(Cursor("another", 1)))

        self.run(scenario, tmp_path)


def _source_content() -> dict[str, Array | bytes]:
    return {**sample_arrays(), "notes/readme.md": b"# Notes\n" * 100_000}


def _plan_blocks(entry: Entry) -> list[tuple[int, int]]:
    """(chunk, block) of a whole dataset in the plan's order."""
    assert entry.geometry is not None
    plan: Iterable[ChunkProjection] = BlockPlan(entry.geometry, Selection.whole(entry.geometry.shape))
    return [(p.nchunk, block) for p in plan for block in p.blocks.tolist()]


async def _next(events: AsyncIterator[EventBatch]) -> EventBatch:
    async with asyncio.timeout(DEADLINE_S):
        return await anext(events)


async def _next_change(events: AsyncIterator[EventBatch]) -> EventBatch:
    """The next batch that is no heartbeat."""
    async with asyncio.timeout(DEADLINE_S):
        async for batch in events:
            if batch.events:
                return batch
    raise AssertionError("the events ended")


async def _changed_page(source: Source, since: Cursor, count: int) -> CatalogPage:
    """The changes since a cursor, once there are so many (a copy follows its origin in its own time)."""
    page: CatalogPage = await _eventually(
        lambda: source.catalog(CatalogQuery(since=since)), lambda page: len(page.items) + len(page.deleted) >= count
    )
    return page


async def _eventually(ask: Callable[[], Awaitable[Any]], is_right: Callable[[Any], bool]) -> Any:
    """Ask until the answer is right; its errors of things that are not there yet are waited out."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                answer = await ask()
            except DatasetNotFoundError:
                answer = None
            if answer is not None and is_right(answer):
                return answer
            await asyncio.sleep(0.01)
