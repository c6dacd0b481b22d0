"""The HDF5 root: the contract, links, names, attributes, dimension scales, writers at work, bad files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from caterva2_jupyter.core.attributes import decode_attrs
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.errors import (
    Caterva2Error,
    DatasetChangedError,
    IntegrityError,
    UnsupportedDatasetError,
)
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.hdf5_root import Hdf5Root, hdf5_trees
from caterva2_jupyter.storage.hdf5_worker import Hdf5Worker
from caterva2_jupyter.storage.root import Root
from caterva2_jupyter.testing import RootContract
from caterva2_jupyter.tools.example_hdf5 import make_example

from .hdf5_compare import assert_equal_to_h5py, assert_same, known, listed, read

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def worker() -> Iterator[Hdf5Worker]:
    shared = Hdf5Worker(timeout_s=30)
    yield shared
    shared.close()


@pytest.fixture
def make(tmp_path: Path, worker: Hdf5Worker) -> Callable[[Callable[[Any], None]], Hdf5Root]:
    """Makes a root of what a function writes to an open file."""

    def write(fill: Callable[[Any], None], **settings: Any) -> Hdf5Root:
        path = tmp_path / "file.h5"
        with h5py.File(path, "w", **settings) as file:
            fill(file)
        return Hdf5Root(path, "owner", worker)

    return write


@contextmanager
def directory(path: Path, worker: Hdf5Worker) -> Iterator[DirectoryRoot]:
    root = DirectoryRoot(path, "owner", hdf5_trees(path, "owner", worker))
    yield root
    root.close()


class TestContract(RootContract):
    stores_files = False

    def make_root(self, arrays: Mapping[str, Array | bytes], tmp_path: Path) -> Root:
        with h5py.File(tmp_path / "root.h5", "w") as file:
            for path, items in arrays.items():
                assert not isinstance(items, bytes)
                settings: dict[str, Any] = {}
                if items.size > 100:
                    settings = {
                        "compression": "gzip",
                        "shuffle": True,
                        "chunks": tuple(min(n, 20) for n in items.shape),
                    }
                if items.ndim == 1 and items.size > 1000:
                    settings["chunks"] = (7000,)
                file.create_dataset(path.removesuffix(".b2nd"), data=items, **settings)
        return Hdf5Root(tmp_path / "root.h5", "owner")

    def put(self, root: Root, path: str, content: Array | bytes) -> Path:
        with h5py.File(root.watched, "a") as file:
            name = path.removesuffix(".b2nd")
            if name in file:
                del file[name]
            file[name] = content
        return root.watched

    def remove(self, root: Root, path: str) -> Path:
        with h5py.File(root.watched, "a") as file:
            del file[path.removesuffix(".b2nd")]
        return root.watched


def test_the_example_is_equal_to_what_h5py_reads(tmp_path: Path, worker: Hdf5Worker) -> None:
    make_example(tmp_path / "example.h5")
    root = Hdf5Root(tmp_path / "example.h5", "owner", worker)
    with h5py.File(root.watched) as file:
        entries = assert_equal_to_h5py(root, file)
    assert entries["unsupported/ragged.b2nd"].kind == "unsupported"
    assert entries["links/dangling"].kind == "link"
    assert entries["links/soft-group"].kind == "group"


def real_files() -> list[str]:
    folder = os.environ.get("CATERVA2_REAL_DATA")
    return sorted(p.name for p in Path(folder).iterdir() if p.is_file()) if folder else ["(none)"]


@pytest.mark.parametrize("name", real_files())
def test_real_files_are_equal_to_what_h5py_reads(name: str, real_data: Path, worker: Hdf5Worker) -> None:
    root = Hdf5Root(real_data / name, "owner", worker)
    with h5py.File(real_data / name, locking=False) as file:
        entries = assert_equal_to_h5py(root, file)
    assert any(e.kind == "array" for e in entries.values())
    assert {e.kind for e in entries.values()} <= {"group", "array", "link"}


def test_files_inside_a_directory_are_groups(tmp_path: Path, worker: Hdf5Worker) -> None:
    (tmp_path / "deep").mkdir()
    make_example(tmp_path / "deep" / "example.h5")
    with directory(tmp_path, worker) as root, h5py.File(tmp_path / "deep" / "example.h5") as file:
        entries = listed(root)
        assert entries["deep/example.h5"].kind == "group"
        assert entries["deep/example.h5"].version
        for path in ("arrays/2d-gzip", "arrays/virtual", "filters/bitshuffle-lz4", "dtypes/string-vlen"):
            assert_same(read(root, entries[f"deep/example.h5/{path}.b2nd"]), file[path][...])


# Links


def test_links_to_one_dataset_share_its_id_and_version(make: Any) -> None:
    def fill(file: Any) -> None:
        file["group/data"] = np.arange(10)
        file["hard"] = file["group/data"]
        file["group/soft"] = h5py.SoftLink("data")
        file["soft"] = h5py.SoftLink("/group/soft")

    entries = listed(root := make(fill))
    found = [entries[p] for p in ("group/data.b2nd", "hard.b2nd", "soft.b2nd", "group/soft.b2nd")]
    assert len({(e.id, e.version) for e in found}) == 1
    assert [e.target for e in found] == ["", "", "/group/soft", "data"]
    assert_same(read(root, found[2]), np.arange(10))


def test_loops_of_links_are_cut(make: Any) -> None:
    def fill(file: Any) -> None:
        file["a/b/x"] = 1
        file["a/b/up"] = file["a"]
        file["a/b/soft-up"] = h5py.SoftLink("/a")
        file["one"] = h5py.SoftLink("/two")
        file["two"] = h5py.SoftLink("/one")

    entries = listed(make(fill))
    assert set(entries) == {"", "a", "a/b", "a/b/x.b2nd", "a/b/up", "a/b/soft-up", "one", "two"}
    assert "leads back" in entries["a/b/up"].reason
    assert entries["one"].kind == "link"


def test_groups_that_share_groups_do_not_multiply_without_end(make: Any) -> None:
    def fill(file: Any) -> None:
        group = file
        for _ in range(60):
            child = group.create_group("left")
            group["right"] = child
            group = child

    entries = listed(make(fill))
    assert 1000 < len(entries) < 50_000
    assert any("its content is listed at" in e.reason for e in entries.values())


def test_external_links_are_followed_inside_of_the_root_only(tmp_path: Path, worker: Hdf5Worker) -> None:
    top = tmp_path / "root"
    (top / "sub").mkdir(parents=True)
    for place in (top / "sub" / "data.h5", tmp_path / "secret.h5"):
        with h5py.File(place, "w") as file:
            file["x"] = np.arange(5)
            file["back"] = h5py.ExternalLink("../master.h5", "/loop")
    (top / "way-out.h5").symlink_to(tmp_path / "secret.h5")
    with h5py.File(top / "master.h5", "w") as file:
        file["inside"] = h5py.ExternalLink("sub/data.h5", "/x")
        file["absolute"] = h5py.ExternalLink(str(top / "sub" / "data.h5"), "/x")
        file["group"] = h5py.ExternalLink("sub/data.h5", "/")
        file["loop"] = h5py.ExternalLink("sub/data.h5", "/back")
        file["missing"] = h5py.ExternalLink("none.h5", "/x")
        file["up"] = h5py.ExternalLink("../secret.h5", "/x")
        file["out"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/x")
        file["link-out"] = h5py.ExternalLink("way-out.h5", "/x")
    with directory(top, worker) as root:
        entries = listed(root)
        for name in ("inside", "absolute"):
            entry = entries[f"master.h5/{name}.b2nd"]
            assert_same(read(root, entry), np.arange(5))
            assert (entry.id, entry.version) == (
                entries["sub/data.h5/x.b2nd"].id,
                entries["sub/data.h5/x.b2nd"].version,
            )
        assert_same(read(root, entries["master.h5/group/x.b2nd"]), np.arange(5))
        for name in ("loop", "missing", "up", "out", "link-out"):
            assert entries[f"master.h5/{name}"].kind == "link", name
            assert entries[f"master.h5/{name}"].reason
        # A change behind the link is a change of what it leads to.
        entry = entries["master.h5/inside.b2nd"]
        with h5py.File(top / "sub" / "data.h5", "a") as file:
            file["x"][...] = 7
        with pytest.raises(DatasetChangedError):
            read(root, entry)


def test_a_root_of_one_file_opens_no_other(tmp_path: Path, worker: Hdf5Worker) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(4)
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "/x")
        layout = h5py.VirtualLayout((4,), "i8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (4,), "i8", external=[(str(tmp_path / "other.h5"), 0, 32)])
    closed = listed(Hdf5Root(tmp_path / "file.h5", "owner", worker))
    assert closed["link"].kind == "link"
    assert [closed[f"{n}.b2nd"].kind for n in ("virtual", "raw")] == ["unsupported"] * 2
    assert "publish the directory" in closed["virtual.b2nd"].reason
    opened = Hdf5Root(tmp_path / "file.h5", "owner", worker, follow=True)
    assert_same(read(opened, listed(opened)["virtual.b2nd"]), np.arange(4))


# Virtual datasets and external storage


def test_virtual_datasets_give_fill_values_for_missing_sources_and_follow_all_of_them(
    tmp_path: Path, worker: Hdf5Worker
) -> None:
    for number in range(2):
        with h5py.File(tmp_path / f"part{number}.h5", "w") as file:
            file.create_dataset("x", data=np.full((3, 4), number, "f4"), chunks=(1, 4), compression="gzip")
    with h5py.File(tmp_path / "all.h5", "w", libver="latest") as file:
        layout = h5py.VirtualLayout((3, 3, 4), "f4")
        for number in range(3):
            layout[number] = h5py.VirtualSource(f"part{number}.h5", "x", (3, 4))
        file.create_virtual_dataset("x", layout, fillvalue=-1)
    with directory(tmp_path, worker) as root:
        entry = listed(root)["all.h5/x.b2nd"]
        with h5py.File(tmp_path / "all.h5") as file:
            assert_same(read(root, entry), file["x"][...])
        assert read(root, entry)[2].tolist() == [[-1.0] * 4] * 3
        with h5py.File(tmp_path / "part2.h5", "w") as file:
            file["x"] = np.full((3, 4), 2, "f4")
        with pytest.raises(DatasetChangedError):
            read(root, entry)
        assert read(root, listed(root)["all.h5/x.b2nd"])[2].tolist() == [[2.0] * 4] * 3


def test_virtual_datasets_do_not_lead_out_of_the_root(tmp_path: Path, worker: Hdf5Worker) -> None:
    top = tmp_path / "root"
    top.mkdir()
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.arange(4)
    with h5py.File(top / "hop.h5", "w") as file:
        file["x"] = h5py.ExternalLink("../secret.h5", "/x")
        layout = h5py.VirtualLayout((4,), "i8")
        layout[:] = h5py.VirtualSource("../secret.h5", "x", (4,))
        file.create_virtual_dataset("v", layout)
    (top / "link.h5").symlink_to(tmp_path / "secret.h5")
    sources = [
        ("../secret.h5", "x"),
        (str(tmp_path / "secret.h5"), "x"),
        ("hop.h5", "x"),
        ("hop.h5", "v"),
        ("link.h5", "x"),
    ]
    with h5py.File(top / "v.h5", "w") as file:
        for number, (name, inner) in enumerate(sources):
            layout = h5py.VirtualLayout((4,), "i8")
            layout[:] = h5py.VirtualSource(name, inner, (4,))
            file.create_virtual_dataset(str(number), layout)
    with directory(top, worker) as root:
        entries = listed(root)
        for number in range(len(sources)):
            assert entries[f"v.h5/{number}.b2nd"].kind == "unsupported", sources[number]


def test_external_raw_files_are_read_inside_of_the_root(tmp_path: Path, worker: Hdf5Worker, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.bin").write_bytes(np.arange(10.0).tobytes())
    with h5py.File("file.h5", "w") as file:
        file.create_dataset("parts", (12,), "f8", external=[("raw.bin", 8, 64), ("raw.bin", 0, 32)])
        file.create_dataset("short", (12,), "f8", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])
        file.create_dataset("gone", (2,), "f8", external=[("gone.bin", 0, 16)])
        file.create_dataset("out", (2,), "f8", external=[("/etc/passwd", 0, 16)])
    with directory(tmp_path, worker) as root, h5py.File("file.h5") as file:
        entries = listed(root)
        for name in ("parts", "short"):
            assert_same(read(root, entries[f"file.h5/{name}.b2nd"]), file[name][...])
        assert [entries[f"file.h5/{n}.b2nd"].kind for n in ("gone", "out")] == ["unsupported"] * 2
        entry = entries["file.h5/parts.b2nd"]
        (tmp_path / "raw.bin").write_bytes(np.ones(10).tobytes())
        with pytest.raises(DatasetChangedError):
            read(root, entry)


# Names, attributes, axes


def test_strange_names_are_listed_and_readable_or_have_a_reason(make: Any) -> None:
    names = ["é", "e\u0301", "😀", "\u202eabc", "a b", "%2f", "a?#b", "new\nline", "x" * 255, "CON", "Con", ".hidden",
             "__proto__", "back\\slash", " ", "a", "a.b2nd"]  # fmt: skip

    def fill(file: Any) -> None:
        for i, name in enumerate(names):
            file[name] = i
        file.create_group("b.b2nd")
        file["b"] = 99
        for raw in (b"..", b"bad\xff"):
            h5py.h5g.create(file.id, raw)

    entries = listed(root := make(fill))
    for i, name in enumerate(names):
        assert int(read(root, entries[f"{name}.b2nd"])) == i
    assert entries["b.b2nd"].kind == "group"
    assert int(read(root, entries["b.b2nd.b2nd"])) == 99
    unlisted = [e for e in entries.values() if e.path.startswith("unlisted-")]
    assert sorted(e.reason for e in unlisted) == [
        "its name '..' cannot be part of a path",
        "its name 'bad\\udcff' cannot be part of a path",
    ]


def test_attributes_keep_their_dtypes_and_strings_are_text(make: Any) -> None:
    def fill(file: Any) -> None:
        attrs = file.create_group("g").attrs
        attrs["scale_factor"] = np.array([0.01], ">f4")
        attrs["count"] = np.int16(3)
        attrs["flag"] = True
        attrs["nan"] = np.nan
        attrs["text"] = "zwölf"
        attrs["bytes"] = np.bytes_("bytes")
        attrs["latin"] = np.bytes_(b"\xe9")
        attrs["words"] = ["a", "bc"]
        attrs["fixed"] = np.array([b"a", b"bc"])
        attrs["nothing"] = h5py.Empty("f4")
        attrs.create("zero", np.zeros(0, "f4"))
        attrs["row"] = np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")])
        attrs["reference"] = file["g"].ref
        attrs.create("ragged", np.array([np.arange(2), np.arange(3)], object), dtype=h5py.vlen_dtype("i4"))

    entry = listed(make(fill))["g"]
    attrs = decode_attrs(entry.attrs)
    assert attrs["scale_factor"].dtype.str == ">f4"
    assert (attrs["count"], attrs["count"].dtype) == (3, np.dtype("i2"))
    assert attrs["flag"] == np.True_
    assert np.isnan(attrs["nan"])
    assert [attrs[n] for n in ("text", "bytes", "latin")] == ["zwölf", "bytes", "é"]
    assert [attrs[n].tolist() for n in ("words", "fixed")] == [["a", "bc"], ["a", "bc"]]
    assert attrs["nothing"] is None
    assert attrs["zero"].shape == (0,)
    assert attrs["row"]["b"].tolist() == [2.5]
    assert set(entry.storage["attrs_skipped"]) == {"reference", "ragged"}


def test_many_and_huge_attributes_are_bounded(make: Any) -> None:
    def fill(file: Any) -> None:
        many = file.create_dataset("many", data=1)
        for i in range(5000):
            many.attrs[f"attribute-{i}"] = i
        huge = file.create_dataset("huge", data=1)
        huge.attrs["huge"] = np.zeros(20_000_000, "u1")
        huge.attrs["small"] = 1

    root = make(fill, libver="latest")
    entries = listed(root)
    assert not entries["many.b2nd"].attrs_inline
    assert len(json.dumps(entries["many.b2nd"].to_json())) < 10_000
    assert len(root.attributes(entries["many.b2nd"]).attrs) == 5000
    assert set(root.attributes(entries["huge.b2nd"]).attrs) == {"small"}
    assert "over the limit" in root.attributes(entries["huge.b2nd"]).storage["attrs_skipped"]["huge"]


def test_groups_ten_thousand_deep_are_listed_as_far_as_paths_go(make: Any) -> None:
    def fill(file: Any) -> None:
        group = file
        for _ in range(10_000):
            group = group.create_group("g")
        file["shallow"] = 1

    entries = listed(make(fill))
    assert entries["shallow.b2nd"].kind == "array"
    assert len(entries) > 2000
    assert any("not_listed" in e.storage for e in entries.values())


def test_axes_are_named_by_dimension_scales(tmp_path: Path, worker: Hdf5Worker) -> None:
    import netCDF4

    path = tmp_path / "file.nc"
    with netCDF4.Dataset(path, "w") as file:
        for name, size in {"time": None, "lat": 3, "nv": 2}.items():
            file.createDimension(name, size)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(4)
        file.createVariable("lat", "f4", ("lat",))[:] = np.arange(3)
        file.createVariable("bounds", "f4", ("lat", "nv"))[:] = 1
        file.createVariable("t", "i2", ("time", "lat"), zlib=True, fill_value=-9)[:] = np.arange(12).reshape(4, 3)
        group = file.createGroup("inner")
        group.createVariable("u", "f4", ("lat", "time"))
        file.createVariable("names", str, ("lat",))[:] = np.array(["a", "ü", ""], object)
    root = Hdf5Root(path, "owner", worker)
    with h5py.File(path) as file:
        entries = assert_equal_to_h5py(root, file)
    dims = {p: e.dims for p, e in entries.items() if e.kind == "array"}
    assert dims == {
        "time.b2nd": ("time",),
        "lat.b2nd": ("lat",),
        "nv.b2nd": ("nv",),
        "bounds.b2nd": ("lat", "nv"),
        "t.b2nd": ("time", "lat"),
        "inner/u.b2nd": ("lat", "time"),
        "names.b2nd": ("lat",),
    }
    assert entries["nv.b2nd"].storage["dimensions"]["no_variable"]
    assert entries["t.b2nd"].storage["maxshape"] == [None, 3]
    assert entries["t.b2nd"].storage["dimensions"]["scales"] == [["/time"], ["/lat"]]
    assert set(entries["t.b2nd"].attrs) == {"_FillValue"}


# Writers at work, changes


_WRITER = """
import sys, h5py, numpy as np
file = h5py.File(sys.argv[1], "w", libver="latest")
data = file.create_dataset("x", (1, 1000), "i4", maxshape=(None, 1000), chunks=(1, 1000), compression="gzip")
data[0] = 0
file["still"] = np.arange(10)
if sys.argv[2] == "swmr":
    file.swmr_mode = True
print("ready", flush=True)
for line in sys.stdin:
    n = len(data)
    data.resize(n + 1, axis=0)
    data[n] = n
    data.flush()
    file.flush()
    print("ready", flush=True)
"""


@contextmanager
def writing(path: Path, mode: str) -> Iterator[Callable[[], None]]:
    """A process that holds a file open for writing, and appends a row when it is told."""
    command = [sys.executable, "-c", _WRITER, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        assert stdout.readline() == "ready\n"

        def append() -> None:
            stdin.write("more\n")
            stdin.flush()
            assert stdout.readline() == "ready\n"

        yield append
        stdin.close()


def test_appends_of_a_swmr_writer_are_followed(tmp_path: Path, worker: Hdf5Worker) -> None:
    with writing(tmp_path / "live.h5", "swmr") as append:
        root = Hdf5Root(tmp_path / "live.h5", "owner", worker)
        before = known(root)
        first = next(k.entry for k in before if k.entry.path == "x.b2nd")
        assert read(root, first, np.s_[:, 0]).tolist() == [0]
        append()
        append()
        events = {event.path: event.entry for event, _ in root.rescan([root.watched], before)}
        now = events["x.b2nd"]
        assert now is not None
        assert now.geometry is not None
        assert now.geometry.shape == (3, 1000)
        assert read(root, now, np.s_[:, 0]).tolist() == [0, 1, 2]
        assert read(root, first, np.s_[:, 0]).tolist() == [0]


_GROWER = """
import sys, h5py, numpy as np
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    make = lambda name, shape, chunks, **how: file.create_dataset(
        name, shape, "i4", maxshape=[None] * len(shape), chunks=chunks, **how)
    sets = [make("gzip", (3, 500), (4, 200), compression="gzip"), make("plain", (3, 2000), (4, 800)),
            make("tiny", (3,), (4,)), make("wide", (5, 3), (2, 4), compression="gzip")]
    for data in sets:
        data[...] = np.arange(data.size).reshape(data.shape)
    file.swmr_mode = True
    print("ready", flush=True)
    for line in sys.stdin:
        for data in sets:
            axis = 1 if data.name == "/wide" else 0
            n = data.shape[axis]
            data.resize(n + 1, axis=axis)
            data[(slice(None),) * axis + (n,)] = n
            data.flush()
        if line.startswith("change"):
            for data in sets:
                data[(0,) * data.ndim] = -1
                data.flush()
        print("ready", flush=True)
"""


@contextmanager
def growing(path: Path) -> Iterator[Callable[[str], None]]:
    """A SWMR writer of datasets in several forms, that does one thing when it is told."""
    command = [sys.executable, "-c", _GROWER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        assert stdout.readline() == "ready\n"

        def do(what: str) -> None:
            stdin.write(what + "\n")
            stdin.flush()
            assert stdout.readline() == "ready\n"

        yield do
        stdin.close()


def test_what_is_appended_leaves_the_versions_of_shorter_extents_readable(tmp_path: Path, worker: Hdf5Worker) -> None:
    path = tmp_path / "live.h5"
    with growing(path) as do:
        root = Hdf5Root(path, "owner", worker)
        first = {p: e for p, e in listed(root).items() if e.kind == "array"}
        assert len(first) == 4
        values = {p: read(root, e) for p, e in first.items()}
        for n in range(1, 7):  # over the ends of chunks
            do("append")
            for name, entry in first.items():
                assert_same(read(root, entry), values[name])
            now = listed(root)
            assert now["wide.b2nd"].geometry.shape == (5, 3 + n)
            for name in first:
                assert now[name].version != first[name].version
                assert read(root, now[name]).size > values[name].size
        assert read(root, now["tiny.b2nd"]).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
        assert read(root, now["wide.b2nd"])[:, 3:].tolist() == [list(range(3, 9))] * 5


def test_a_version_of_an_extent_is_the_same_however_much_was_appended(tmp_path: Path, worker: Hdf5Worker) -> None:
    path = tmp_path / "live.h5"
    with growing(path) as do, path.open("rb") as file:

        def states(shape_of: dict[str, tuple[int, ...]], tag: str) -> dict[str, str]:
            return {p: worker.dataset(file.fileno(), tag, p, shape).node["state"] for p, shape in shape_of.items()}

        extents = {"/gzip": (3, 500), "/plain": (3, 2000), "/tiny": (3,), "/wide": (5, 3)}
        before = states(extents, "0")
        for n in range(1, 7):
            do("append")
            assert states(extents, str(n)) == before
        do("change")
        assert not set(states(extents, "changed").values()) & set(before.values())


def test_what_is_rewritten_in_a_live_file_is_told_from_what_is_appended(tmp_path: Path, worker: Hdf5Worker) -> None:
    path = tmp_path / "live.h5"
    with growing(path) as do:
        root = Hdf5Root(path, "owner", worker)
        first = {p: e for p, e in listed(root).items() if e.kind == "array"}
        do("change")
        for entry in first.values():
            with pytest.raises(DatasetChangedError):
                read(root, entry)


def test_reads_go_on_while_a_swmr_writer_appends_all_the_time(tmp_path: Path, worker: Hdf5Worker) -> None:
    path = tmp_path / "live.h5"
    with growing(path) as do:
        root = Hdf5Root(path, "owner", worker)
        entries = [e for e in listed(root).values() if e.kind == "array"]
        values = [read(root, e) for e in entries]
        stop = threading.Event()

        def write() -> None:
            while not stop.wait(0.05):
                do("append")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(10):
                for entry, value in zip(entries, values, strict=True):
                    assert_same(read(root, entry), value)
        finally:
            stop.set()
            writer.join()


def test_what_is_written_already_can_be_read_while_a_swmr_writer_goes_on(tmp_path: Path, worker: Hdf5Worker) -> None:
    path = tmp_path / "live.h5"
    with writing(path, "swmr") as append:
        with h5py.File(path, "r", swmr=True, libver="latest", locking=False) as file:
            chunks = file["x"].chunks
        assert chunks == (1, 1000)
        root = Hdf5Root(path, "owner", worker)
        still = listed(root)["still.b2nd"]
        for n in range(1, 6):
            append()
            entry = listed(root)["x.b2nd"]
            os.utime(path)  # another state of the file, the same content
            assert read(root, entry, np.s_[:, 0]).tolist() == list(range(n + 1))
            assert_same(read(root, still), np.arange(10))


def test_a_swmr_file_inside_of_a_directory_is_listed_although_it_is_never_still(
    tmp_path: Path, worker: Hdf5Worker
) -> None:
    trees = hdf5_trees(tmp_path, "owner", worker)

    def open_tree(path: Path, owner_id: str) -> Any:
        tree = trees(path, owner_id)
        entries = tree.stamped_entries

        def while_the_writer_goes_on() -> Any:
            found = entries()
            os.utime(path)  # what an append does to the file's state, at the worst moment
            return found

        tree.stamped_entries = while_the_writer_goes_on  # type: ignore[method-assign]
        return tree

    with writing(tmp_path / "live.h5", "swmr") as append:
        root = DirectoryRoot(tmp_path, "owner", open_tree)
        append()
        entry = listed(root)["live.h5/x.b2nd"]
        assert read(root, entry, np.s_[:, 0]).tolist() == [0, 1]


def test_a_file_that_a_writer_holds_keeps_its_entries_until_it_can_be_read(tmp_path: Path, worker: Hdf5Worker) -> None:
    path = tmp_path / "live.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)
    root = Hdf5Root(path, "owner", worker)
    before = known(root)
    with writing(path, "alone"):
        assert list(root.rescan([path], before)) == []
        assert {e.path for e, _ in root.scan(before)} == {"", "x.b2nd"}
    events = {event.path: event.entry for event, _ in root.rescan([path], before)}
    assert events["x.b2nd"] is not None
    assert read(root, events["x.b2nd"], (0, 0)).item() == 0


def test_reading_never_locks_a_writer_out(tmp_path: Path, worker: Hdf5Worker) -> None:
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(1000.0), chunks=(100,), compression="szip")
    root = Hdf5Root(path, "owner", worker)
    with h5py.File(path, "r+") as file:  # takes HDF5's lock
        assert_same(read(root, listed(root)["x.b2nd"]), np.arange(1000.0))
        file["x"][0] = 5
    listed(root)
    with h5py.File(path, "r+") as file:
        file["x"][0] = 6


def test_a_file_that_went_away_is_told(tmp_path: Path, make: Any) -> None:
    root = make(lambda file: file.create_dataset("x", data=1))
    before = known(root)
    root.watched.unlink()
    assert {(e.change, e.path) for e, _ in root.rescan([root.watched], before)} == {
        ("delete", ""),
        ("delete", "x.b2nd"),
    }
    with pytest.raises(DatasetChangedError):
        read(root, before[1].entry)


def test_entries_of_an_earlier_run_are_read_without_an_index(tmp_path: Path, worker: Hdf5Worker) -> None:
    make_example(tmp_path / "example.h5")
    before = known(Hdf5Root(tmp_path / "example.h5", "owner", worker))
    asked: list[str] = []

    class Watched(Hdf5Worker):
        def index(self, fd: int, state: str) -> list[dict[str, Any]]:
            asked.append(state)
            return super().index(fd, state)

    later = Watched(1)
    root = Hdf5Root(tmp_path / "example.h5", "owner", later)
    assert [e for e, _ in root.scan(before)] == [k.entry for k in before]
    with h5py.File(tmp_path / "example.h5") as file:
        entry = next(k.entry for k in before if k.entry.path == "arrays/2d-chunked.b2nd")
        assert_same(read(root, entry, np.s_[3:50, ::7]), file["arrays/2d-chunked"][3:50, ::7])
    assert asked == []
    later.close()


# Bad files, and workers that die


def test_damaged_files_give_errors_of_ours_and_nothing_else(tmp_path: Path) -> None:
    make_example(tmp_path / "whole.h5")
    stored = (tmp_path / "whole.h5").read_bytes()
    rng = np.random.default_rng(3)
    crashing = Hdf5Worker(1, timeout_s=2)
    for number in range(15):
        data = bytearray(stored)
        for place in rng.integers(0, len(data), 20).tolist():
            data[place] ^= 1 << int(rng.integers(0, 8))
        if number % 5 == 4:
            del data[int(rng.integers(0, len(data))) :]
        path = tmp_path / f"damaged{number}.h5"
        path.write_bytes(data)
        root = Hdf5Root(path, "owner", crashing)
        for entry in listed(root).values():
            if entry.kind == "array" and entry.nbytes < 1 << 25:
                try:
                    read(root, entry)
                except Caterva2Error:
                    continue
    crashing.close()


def test_what_is_not_hdf5_gives_no_entries(tmp_path: Path, worker: Hdf5Worker) -> None:
    (tmp_path / "file.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(5000))
    assert listed(Hdf5Root(tmp_path / "file.h5", "owner", worker)) == {}


def _children(pid: int) -> list[int]:
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(p) for p in listing.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker process in /proc")
def test_a_worker_that_was_killed_is_started_again(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("x", data=np.arange(1000.0), chunks=(100,), compression="lzf")
    before = set(_children(os.getpid()))
    worker = Hdf5Worker(1)
    root = Hdf5Root(tmp_path / "file.h5", "owner", worker)
    entry = listed(root)["x.b2nd"]
    (child,) = set(_children(os.getpid())) - before
    os.kill(child, signal.SIGKILL)
    assert_same(read(root, entry), np.arange(1000.0))
    worker.close()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker process in /proc")
def test_a_file_at_which_the_worker_hangs_is_set_aside(tmp_path: Path, monkeypatch: Any) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["x"] = 1
    worker = Hdf5Worker(1, timeout_s=0.3)
    started: list[Any] = []
    popen = subprocess.Popen

    def stopped(*args: Any, **settings: Any) -> Any:
        process = popen(*args, **settings)
        os.kill(process.pid, signal.SIGSTOP)
        started.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", stopped)
    with open(tmp_path / "file.h5", "rb") as file:
        begun = time.monotonic()
        for _ in range(3):
            with pytest.raises(UnsupportedDatasetError, match="did not answer"):
                worker.index(file.fileno(), "state")
        assert time.monotonic() - begun < 10
    assert len(started) == 2
    worker.close()
    assert all(process.poll() is not None for process in started)


@pytest.mark.parametrize("deed", ["die", "hang"])
def test_an_object_at_which_the_library_fails_is_marked_and_the_rest_is_usable(deed: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        for name in ("a", f"b/{deed}-1", "b/good", f"{deed}-2/x", "z"):
            file[name] = np.arange(3)
    failing = Hdf5Worker(1, timeout_s=1.5, program="tests.storage.failing_hdf5_process")
    root = Hdf5Root(tmp_path / "file.h5", "owner", failing)
    entries = listed(root)
    assert {p for p, e in entries.items() if e.kind == "array"} == {"a.b2nd", "b/good.b2nd", "z.b2nd"}
    for path in (f"b/{deed}-1", f"{deed}-2"):
        assert entries[path].kind == "unsupported"
        assert "does not survive" in entries[path].reason
    assert_same(read(root, entries["z.b2nd"]), np.arange(3))
    failing.close()


def test_a_closed_worker_says_so(make: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["x"] = 1
    worker = Hdf5Worker(1)
    worker.close()
    with pytest.raises(Caterva2Error, match="closed"):
        list(Hdf5Root(tmp_path / "file.h5", "owner", worker)._file.entries())


def test_unsupported_entries_are_not_read(make: Any) -> None:
    root = make(lambda file: file.create_dataset("x", data=h5py.Empty("f4")))
    entry = listed(root)["x.b2nd"]
    assert "null dataspace" in entry.reason
    with pytest.raises(UnsupportedDatasetError, match="null dataspace"):
        root.read_chunk(entry, None, [0])


def test_stored_bytes_of_the_file_can_be_downloaded(make: Any) -> None:
    root = make(lambda file: file.create_dataset("x", data=np.arange(200_000)))
    entries: dict[str, Entry] = listed(root)
    answer = root.read_file(entries[""], 100, None)
    assert b"".join(answer.parts) == root.watched.read_bytes()[100:]
    with pytest.raises(UnsupportedDatasetError):
        root.read_file(entries["x.b2nd"], 0, None)


def test_a_corrupt_chunk_is_an_integrity_error(make: Any) -> None:
    def fill(file: Any) -> None:
        file.create_dataset("x", data=np.arange(10_000.0), chunks=(5000,), compression="gzip", fletcher32=True)

    root = make(fill)
    with h5py.File(root.watched) as file:
        where = file["x"].id.get_chunk_info(1)
    data = bytearray(root.watched.read_bytes())
    data[where.byte_offset + 50] ^= 1
    root.watched.write_bytes(data)
    entry = listed(root)["x.b2nd"]
    assert read(root, entry, np.s_[:5000])[-1] == 4999
    with pytest.raises(IntegrityError, match="fletcher32"):
        read(root, entry, np.s_[5000:])
