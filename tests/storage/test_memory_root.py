from pathlib import Path

import numpy as np
import pytest

from caterva2_jupyter.core.attributes import decode_attrs
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.testing import RootContract


class TestMemoryRoot(RootContract):
    def make_root(self, arrays, tmp_path):
        return MemoryRoot(arrays)

    def put(self, root, path, content):
        root.set(path, content)
        return root.watched / path

    def remove(self, root, path):
        root.delete(path)
        return root.watched / path


def test_arrays_are_copied_when_they_are_set():
    array = np.arange(4)
    root = MemoryRoot({"a.b2nd": array})
    version = next(root.scan([]))[0].version
    array[:] = 0
    assert next(root.scan([]))[0].version == version == next(MemoryRoot({"a.b2nd": np.arange(4)}).scan([]))[0].version


def test_another_owner_has_other_ids():
    array = {"a.b2nd": np.arange(4)}
    mine, theirs = next(MemoryRoot(array, "me").scan([]))[0], next(MemoryRoot(array, "they").scan([]))[0]
    assert mine.version == theirs.version
    assert mine.id != theirs.id


def test_attributes_and_dims_are_kept():
    root = MemoryRoot()
    root.set("a.b2nd", np.zeros((2, 3)), attrs={"scale": np.float32(0.5), "n": 3}, dims=("time", "x"))
    entry = next(root.scan([]))[0]
    assert entry.dims == ("time", "x")
    assert decode_attrs(entry.attrs) == {"scale": np.float32(0.5), "n": 3}


def test_large_attributes_are_left_out_of_the_listing():
    root = MemoryRoot()
    root.set("a.b2nd", np.zeros(3), attrs={"history": "x" * 100_000})
    entry = next(root.scan([]))[0]
    assert (entry.attrs, entry.attrs_inline) == ({}, False)
    assert root.attributes(entry).attrs == {"history": "x" * 100_000}


def test_groups_have_attributes_too():
    root = MemoryRoot({"g/a.b2nd": np.zeros(3)})
    root.set_group("g", {"title": "run 7"})
    root.set_group("", {"title": "all"})
    assert [(e.path, e.attrs) for e, _ in root.scan([]) if e.kind == "group"] == [
        ("", {"title": "all"}),
        ("g", {"title": "run 7"}),
    ]


def test_a_deleted_group_takes_what_is_below():
    root = MemoryRoot({"g/a.b2nd": np.zeros(3), "g/h/b.b2nd": np.zeros(3), "gg.b2nd": np.zeros(3)})
    root.delete("g")
    assert [e.path for e, _ in root.scan([])] == ["gg.b2nd"]
    with pytest.raises(KeyError):
        root.delete("g")


def test_a_change_of_attributes_keeps_the_version():
    root = MemoryRoot()
    versions = set()
    for n in range(2):
        root.set("a.b2nd", np.zeros(3), attrs={"n": n})
        versions.add(next(root.scan([]))[0].version)
    assert len(versions) == 1


def test_the_watched_place_is_not_a_real_one():
    assert MemoryRoot().watched == Path("memory")
