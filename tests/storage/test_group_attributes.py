"""Attributes of directories, and attributes of Blosc2 files that keep their dtypes."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
import pytest

from caterva2_jupyter.core.attributes import decode_attrs
from caterva2_jupyter.core.exact_attributes import to_metalayers
from caterva2_jupyter.core.group_file import GROUP_FILE, format_group_file
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.root import KnownEntry


def listed(root: DirectoryRoot) -> dict[str, Entry]:
    return {entry.path: entry for entry, _ in root.scan([])}


def test_a_directory_has_the_attributes_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / GROUP_FILE).write_bytes(format_group_file({"n": np.int16(3), "title": "a run"}, ["time"]))
    (tmp_path / GROUP_FILE).write_bytes(format_group_file({"title": "the root"}))
    entries = listed(DirectoryRoot(tmp_path, "owner"))
    attrs = decode_attrs(entries["run"].attrs)
    assert (attrs["n"], attrs["n"].dtype, attrs["title"]) == (3, np.int16, "a run")
    assert entries["run"].storage["unlimited_dims"] == ["time"]
    assert entries[""].attrs == {"title": "the root"}
    assert set(entries) == {"", "run"}, "the file itself is not listed"


def test_edited_attributes_of_a_directory_are_an_event(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    root = DirectoryRoot(tmp_path, "owner")
    known = [KnownEntry(entry, stamp) for entry, stamp in root.scan([])]
    (tmp_path / "run" / GROUP_FILE).write_bytes(format_group_file({"title": "edited"}))
    ((event, _),) = root.rescan([tmp_path / "run" / GROUP_FILE], known)
    assert (event.path, event.entry.attrs) == ("run", {"title": "edited"})


def test_many_attributes_of_a_directory_come_when_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / GROUP_FILE).write_bytes(format_group_file({"history": "x" * 100_000}))
    root = DirectoryRoot(tmp_path, "owner")
    entry = listed(root)["run"]
    assert (entry.attrs, entry.attrs_inline) == ({}, False)
    assert root.attributes(entry).attrs == {"history": "x" * 100_000}


@pytest.mark.parametrize("raw", [b"", b"[]", b"{" * 5000, b'{"attrs": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_harms_nothing_and_is_told(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / GROUP_FILE).write_bytes(raw)
    entry = listed(DirectoryRoot(tmp_path, "owner"))["run"]
    assert (entry.kind, entry.attrs) == ("group", {})
    assert list(entry.storage["attrs_skipped"]) == [GROUP_FILE]


def test_a_link_out_of_the_root_gives_no_attributes(tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_bytes(format_group_file({"secret": 1}))
    (tmp_path / "root" / "run").mkdir(parents=True)
    (tmp_path / "root" / "run" / GROUP_FILE).symlink_to("../../outside.json")
    assert listed(DirectoryRoot(tmp_path / "root", "owner"))["run"].attrs == {}


def test_attributes_of_an_array_keep_their_dtypes(tmp_path: Path) -> None:
    attrs = {
        "f4": np.float32(0.1), "i2": np.array([1, 2], ">i2"), "c": np.complex64(1 + 2j), "nan": float("nan"),
        "big": 2**64,
        "none": None, "flags": np.array(["a", "bé"], object), "bytes": b"\0x", "a name of more than 31 characters": 1,
    } | {f"attribute{i}": i for i in range(30)}  # fmt: skip
    array = blosc2.empty((3,), dtype="f4", urlpath=str(tmp_path / "a.b2nd"), mode="w")
    for name, value in to_metalayers(attrs).items():
        array.schunk.vlmeta[name] = value
    found = decode_attrs(listed(DirectoryRoot(tmp_path, "owner"))["a.b2nd"].attrs)
    assert set(found) == set(attrs)
    for name, value in attrs.items():
        assert type(found[name]) is type(value), name
        np.testing.assert_array_equal(found[name], value)
        assert getattr(found[name], "dtype", None) == getattr(value, "dtype", None), name
    array.schunk.vlmeta["f4"] = 7.0
    del array
    assert decode_attrs(listed(DirectoryRoot(tmp_path, "owner"))["a.b2nd"].attrs)["f4"] == 7.0
