"""What every ``Root`` has to do, whatever it keeps its datasets in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from ..core.blocks import BlockRecord
from ..core.chunk_grid import BlockPlan
from ..core.events import Event
from ..core.metadata import Entry
from ..core.selection import Selection
from ..errors import (
    DatasetChangedError,
    UnsupportedDatasetError,
)
from ..storage.root import KnownEntry, Root
from .arrays import Array, Content, as_array, assert_same, expected, random_key, sample_arrays
from .reading import assemble

__all__ = ["RootContract"]


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
        return assemble(entry, selection, records)

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
            assert (geometry.shape, geometry.dtype) == (as_array(items).shape, as_array(items).dtype)
            assert entries[path].kind == ("file" if isinstance(items, bytes) else "array")

    def test_entries_survive_json(self, root: Root) -> None:
        for entry in self._entries(root).values():
            assert Entry.from_json(entry.to_json()) == entry

    def test_whole_arrays_are_equal(self, root: Root, content: Content) -> None:
        entries = self._entries(root)
        for path, items in content.items():
            want = as_array(items)
            assert_same(self._read(root, entries[path], Selection.whole(want.shape)), want)

    def test_selections_are_equal_to_what_numpy_gives(self, root: Root, content: Content) -> None:
        entries, rng = self._entries(root), np.random.default_rng(1)
        for path, items in content.items():
            want = as_array(items)
            for _ in range(8):
                selection = random_key(rng, want.shape).selection
                assert_same(self._read(root, entries[path], selection), expected(want, selection))

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
        assert_same(self._read(root, entry, Selection.whole((5,))), np.arange(5))

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
