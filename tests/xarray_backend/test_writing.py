"""What ``to_caterva2`` writes opens back identical when it is served, and what it cannot write it says in one line."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

from caterva2_jupyter.core.group_file import GROUP_FILE
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from tests.client.memory_service import MemoryService

xr = pytest.importorskip("xarray")

from caterva2_jupyter.xarray_backend.writing import to_caterva2  # noqa: E402

Serve = Callable[[], str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves the directory of the test; its address."""
    services: list[MemoryService] = []

    def start() -> str:
        services.append(MemoryService({"foo": DirectoryRoot(tmp_path, "owner")}))
        return f"cat2{services[-1].url}/-/foo"

    yield start
    for service in services:
        service.close()


def assert_comes_back(ds: Any, tmp_path: Path, serve: Serve, **options: Any) -> Any:
    """Written, served and opened, it is identical, dtypes included; what was opened."""
    to_caterva2(ds, tmp_path / "run", **options)
    back = xr.open_dataset(serve() + "/run", engine="caterva2").load()
    xr.testing.assert_identical(back, ds)
    for name, variable in ds.variables.items():
        # Decoding makes all numbers native, and keeps the byte order in the encoding.
        expected = variable.dtype if variable.dtype.names else variable.dtype.newbyteorder("=")
        expected = np.dtype("S2") if name == "bytes_objects" else expected
        assert back[name].dtype == expected, name
        if variable.dtype.byteorder == ">":
            assert back[name].encoding["dtype"] == variable.dtype, name
        for key, value in variable.attrs.items():
            assert getattr(back[name].attrs[key], "dtype", None) == getattr(value, "dtype", None), (name, key)
    return back


def everything() -> Any:
    rng = np.random.default_rng(3)
    time = np.array(["2000-01-01", "NaT", "2000-03-01T12:00:00.000000001"], "M8[ns]")
    return xr.Dataset(
        {
            "t": (("time", "y", "x"), rng.random((3, 5, 7)).astype("f4"), {"units": "K", "valid_min": np.float32(0)}),
            "packed": (("y", "x"), np.where(np.eye(5, 7) > 0, np.nan, np.arange(35.0).reshape(5, 7) / 4)),
            "big_int": ("x", np.arange(7) + 2**53 + 1),
            "unsigned": ("x", np.arange(7, dtype="u8") + 2**63),
            "big_endian": ("y", np.arange(5, dtype=">f8")),
            "half": ("y", np.array([1, -0.0, np.nan, np.inf, 65504], "f2")),
            "long": ("y", np.arange(5, dtype="f16") / 3),
            "flag": ("y", np.array([True, False, True, True, False])),
            "complex": ("y", np.arange(5) * (1 + 2j)),
            "small_complex": ("y", (np.arange(5) * 1j).astype("c8")),
            "word": ("y", np.array(["", "a", "bé", "日本語", "x" * 300], object)),
            "fixed": ("y", np.array(["a", "bé", "日本", "", "z"])),
            "fixed_bytes": ("y", np.array([b"a", b"", b"ccc", b"d", b"e"])),
            "chars": ("y", np.array([b"a", b"b", b"", b"d", b"e"], "S1")),
            "bytes_objects": ("y", np.array([b"a", b"bc", b"", b"d", b"e"], object)),
            "when": ("time", time),
            "seconds": ("y", np.array(["0001-01-01", "9999-12-31", "NaT", "1970-01-01", "2000-02-29"], "M8[s]")),
            "took": ("y", np.array([1, 2, -3, 4, "NaT"], "m8[ms]")),
            "scalar": ((), np.int16(-7), {"long_name": "a scalar"}),
            "text_scalar": ((), np.array("one", object)),
            "nothing": (("none", "x"), np.zeros((0, 7), "i2")),
            "pairs": ("y", np.zeros(5, [("a", "<i4"), ("b", ">f8", (2,))])),
        },
        coords={
            "x": ("x", np.linspace(0, 1, 7), {"axis": "X"}),
            "time": ("time", np.array([0, 1, 2], "i4"), {"bounds": "time_bnds"}),
            "time_bnds": (("time", "two"), np.array([[0, 1], [1, 2], [2, 3]], "i4")),
            "lat": (("y", "x"), rng.random((5, 7)), {"units": "degrees_north"}),
            "label": ("y", np.array(["p", "q", "r", "s", "t"], object)),
        },
        attrs={
            "title": "everything é", "n": np.int16(3), "list": np.array([1.5, 2.5], "f4"), "empty": "",
            "one": np.array([7], "i8"), "names": ["a", "b"], "nan": float("nan"), "history": "line\nline",
        },
    )  # fmt: skip


def test_values_of_every_kind_come_back_identical(tmp_path: Path, serve: Serve) -> None:
    assert_comes_back(everything(), tmp_path, serve)


def test_bits_come_back(tmp_path: Path, serve: Serve) -> None:
    quiet = np.array([0x7FF8000000000001, 0xFFF8000000000000, 0x8000000000000000], "u8").view("f8")
    back = assert_comes_back(xr.Dataset({"x": ("i", quiet)}), tmp_path, serve)
    assert back["x"].values.tobytes() == quiet.tobytes(), "payloads of NaN and -0.0"


def test_encodings_come_back(tmp_path: Path, serve: Serve) -> None:
    ds = xr.Dataset(
        {"t": (("time", "x"), np.array([[1.0, np.nan], [2.5, 3.0], [0.0, -4.5]]))},
        coords={"time": np.array(["2000-01-01", "2000-01-02", "2000-01-03"], "M8[ns]")},
    )
    packed = {"dtype": "i2", "scale_factor": np.float64(0.5), "add_offset": np.float64(1), "_FillValue": np.int16(-999)}
    ds["t"].encoding = packed
    ds["time"].encoding = {"units": "hours since 1999-12-31", "calendar": "proleptic_gregorian", "dtype": "i4"}
    back = assert_comes_back(ds, tmp_path, serve, encoding={"t": {"chunks": (2, 1)}})
    for name, encoding in (("t", packed), ("time", ds["time"].encoding)):
        for key, value in encoding.items():
            assert back[name].encoding[key] == value, key
    assert back["t"].encoding["preferred_chunks"] == {"time": 2, "x": 1}
    stored = blosc2.open(str(tmp_path / "run" / "t.b2nd"))
    assert (stored.dtype, stored.chunks) == (np.int16, (2, 1))
    assert stored[0].tolist() == [0, -999]
    assert stored.schunk.vlmeta["scale_factor"] == 0.5, "other readers see attributes too"
    again = to_caterva2(back, tmp_path / "again")
    assert blosc2.open(str(again / "t.b2nd")).chunks == (2, 1), "what was opened is written the same way"
    assert blosc2.open(str(again / "time.b2nd")).dtype == np.int32


def test_calendars_of_models_come_back(tmp_path: Path, serve: Serve) -> None:
    cftime = pytest.importorskip("cftime")
    days = [cftime.Datetime360Day(2000, 2, day) for day in (28, 29, 30)]
    leapless = [cftime.DatetimeNoLeap(2000, month, 28) for month in (1, 2, 3)]
    ds = xr.Dataset(coords={"time": ("time", days), "other": ("time", leapless)})
    back = assert_comes_back(ds, tmp_path, serve)
    assert back["time"].encoding["calendar"] == "360_day"
    assert back["other"].encoding["calendar"] == "noleap"


def test_fills_asked_for_and_none_else(tmp_path: Path, serve: Serve) -> None:
    ds = xr.Dataset({"a": ("x", np.array([1.0, np.nan])), "b": ("x", np.array([1.0, np.nan]))})
    back = assert_comes_back(ds, tmp_path, serve, encoding={"b": {"_FillValue": -1.0}})
    assert "_FillValue" not in back["a"].encoding
    assert back["b"].encoding["_FillValue"] == -1.0


def test_unlimited_dims_come_back(tmp_path: Path, serve: Serve) -> None:
    ds = xr.Dataset({"t": (("time", "x"), np.zeros((2, 3)))})
    ds.encoding["unlimited_dims"] = {"time"}
    assert assert_comes_back(ds, tmp_path, serve).encoding["unlimited_dims"] == {"time"}
    with pytest.raises(ValueError, match="unlimited_dims names 'z', which is not a dimension; there are: time, x"):
        to_caterva2(ds, tmp_path / "other", unlimited_dims=["z"])


def test_trees_come_back(tmp_path: Path, serve: Serve) -> None:
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset({"a": ("x", [1, 2])}, {"x": [10, 20]}, {"title": "top"}),
            "/coarse": xr.Dataset({"b": ("x", [3.0, 4.0])}, attrs={"level": np.int8(1)}),
            "/coarse/deep": xr.Dataset({"c": (("x", "z"), np.ones((2, 3)))}),
            "/empty": xr.Dataset(attrs={"only": "attributes"}),
        }
    )
    to_caterva2(tree, tmp_path / "tree", encoding={"coarse/deep/c": {"chunks": (1, 3)}})
    back = xr.open_datatree(serve() + "/tree", engine="caterva2").load()
    xr.testing.assert_identical(back, tree)
    assert blosc2.open(str(tmp_path / "tree/coarse/deep/c.b2nd")).chunks == (1, 3)
    assert not (tmp_path / "tree/coarse/x.b2nd").exists(), "what a group inherits is written once"


@pytest.mark.parametrize("chunks", [{"x": 3, "y": 4}, {"x": 10, "y": 1}, {"x": (1, 4, 5), "y": 7}])
def test_dask_arrays_are_written_by_chunk(tmp_path: Path, serve: Serve, chunks: Any) -> None:
    pytest.importorskip("dask")
    values = np.arange(70.0).reshape(10, 7)
    words = np.array([f"{i:b}é" for i in range(10)], object)
    ds = xr.Dataset({"a": (("x", "y"), values), "w": ("x", words)}, {"time": ("x", np.arange(10).astype("M8[ns]"))})
    to_caterva2(ds.chunk(chunks), tmp_path / "run")
    xr.testing.assert_identical(xr.open_dataset(serve() + "/run", engine="caterva2").load(), ds)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    da = pytest.importorskip("dask.array")
    lazy = da.arange(48 << 20, chunks=1 << 20, dtype="f8")  # 384 MiB
    told: list[tuple[int, int]] = []
    tracemalloc.start()
    try:
        to_caterva2(xr.Dataset({"a": ("x", lazy)}), tmp_path / "run", progress=lambda *done: told.append(done))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 250 << 20
    assert told[-1] == (lazy.nbytes, lazy.nbytes)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    stored = blosc2.open(str(tmp_path / "run" / "a.b2nd"))
    assert stored.chunks == (1 << 20,)
    assert stored[(48 << 20) - 1] == (48 << 20) - 1


def test_a_path_that_is_there_is_refused_with_the_cure(tmp_path: Path) -> None:
    ds = xr.Dataset({"a": ("x", [1, 2])})
    to_caterva2(ds, tmp_path / "run")
    with pytest.raises(FileExistsError, match=r"run' exists already: remove it, choose another path, or give mode='w'"):
        to_caterva2(ds * 2, tmp_path / "run")
    to_caterva2(ds * 2, tmp_path / "run", mode="w")
    assert blosc2.open(str(tmp_path / "run" / "a.b2nd"))[:].tolist() == [2, 4]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="was not made by to_caterva2"):
        to_caterva2(ds, tmp_path / "mine", mode="w")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"
    with pytest.raises(ValueError, match="mode 'a' is neither 'w-'"):
        to_caterva2(ds, tmp_path / "other", mode="a")


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot make the directory .*choose a path that you may write to"):
        to_caterva2(xr.Dataset(), tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="is an address: write a local directory, and publish it"):
        to_caterva2(xr.Dataset(), "cat2://foo/run")


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    da = pytest.importorskip("dask.array")

    def fail(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("the disk of the model is gone")

    lazy = da.zeros(10, chunks=5).map_blocks(fail, dtype="f8", meta=np.empty(0))
    with pytest.raises(RuntimeError, match="disk of the model"):
        to_caterva2(xr.Dataset({"a": ("x", np.zeros(3)), "b": ("y", lazy)}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "encoding", "error", "text"),
    [
        (("x", np.array([{}, []], object)), {}, TypeError, "holds objects of type dict, which no Blosc2 array can"),
        (("x", np.array(["a", None], object)), {}, TypeError, r"has missing values among its strings: fill them"),
        (("x", np.array(["a", b"b"], object)), {}, TypeError, "holds both str and bytes"),
        (("x", np.array(["a\0", "b"], object)), {}, ValueError, "strings that end in NUL"),
        (("x", np.array(["abc", "b"], object)), {"dtype": "S2"}, ValueError, "a string of 3 bytes, encoding says 2"),
        (("x", [1, 2], {"bad": object()}), {}, TypeError, "attribute 'bad' of variable 'v' cannot be written"),
        (("x", [1, 2], {"dims": ["x"]}), {}, ValueError, "attribute 'dims' of variable 'v' is what names axes here"),
        (("x", [1, 2]), {"chunks": (1, 1)}, ValueError, r"chunks=\(1, 1\) do not fit variable 'v' of shape \(2,\)"),
        (("x", [1, 2]), {"chunks": (0,)}, ValueError, "a number above 0"),
        (("x", [1, 2]), {"zlevel": 3}, ValueError, "encoding of variable 'v' has 'zlevel', which means nothing here"),
        (([*"abcdefghijklmnopq"], np.zeros((1,) * 17)), {}, ValueError, "17 dimensions, a Blosc2 array at most 16"),
    ],
)
def test_what_cannot_be_written_is_named_in_one_line(
    tmp_path: Path, variable: Any, encoding: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as raised:
        to_caterva2(xr.Dataset({"v": variable}), tmp_path / "run", encoding={"v": encoding})
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".hidden", "a\nb", 3, "x" * 300, "a\\b"])
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ValueError, match="rename it"):
        to_caterva2(xr.Dataset({name: ("x", [1])}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_variable_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="encoding names 'b', which is not a variable; there are: a, x"):
        to_caterva2(xr.Dataset({"a": ("x", [1])}, {"x": [0]}), tmp_path / "run", encoding={"b": {}})
    with pytest.raises(TypeError, match="writes a Dataset, DataTree or DataArray, not dict"):
        to_caterva2({}, tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a DataArray needs a name"):
        to_caterva2(xr.DataArray([1]), tmp_path / "run")


def test_the_directory_is_listed_only_when_it_is_complete(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def look(done: int, total: int) -> None:
        seen.append([entry.path for entry, _ in DirectoryRoot(tmp_path, "owner").scan([])])

    to_caterva2(xr.Dataset({"a": ("x", [1]), "b": ("x", [2])}), tmp_path / "run", progress=look)
    assert seen == [[], []]
    assert sorted(os.listdir(tmp_path / "run")) == [GROUP_FILE, "a.b2nd", "b.b2nd"]


@pytest.mark.filterwarnings("ignore")
def test_real_files_come_back_identical(real_data: Path, tmp_path: Path, serve: Serve) -> None:
    files = sorted(real_data.rglob("*.nc*"))
    written = {}
    for file in files:
        try:
            tree = xr.open_datatree(file, engine="h5netcdf")
        except (OSError, ValueError):
            continue
        with tree:
            if sum(node.nbytes for node in tree.subtree) > 100 << 20:
                continue
            written[file] = tree.load()
            to_caterva2(tree, tmp_path / file.name.replace(".", "_"))
    assert written
    base = serve()
    for file, tree in written.items():
        back = xr.open_datatree(f"{base}/{file.name.replace('.', '_')}", engine="caterva2").load()
        xr.testing.assert_identical(back, tree)


def test_the_accessor_writes_too(tmp_path: Path, serve: Serve) -> None:
    ds = everything()[["t"]]
    to_caterva2(ds, tmp_path / "run")
    opened = xr.open_dataset(serve() + "/run", engine="caterva2")
    assert opened.cat2.to_caterva2(tmp_path / "copy", encoding={"t": {"chunks": (1, 5, 7)}}) == tmp_path / "copy"
    assert blosc2.open(str(tmp_path / "copy" / "t.b2nd")).chunks == (1, 5, 7)
