"""From HDF5 to a directory and back: nothing is lost, chunks are not compressed again, interruptions do no harm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import blosc2
import h5py
import hdf5plugin
import numpy as np
import pytest
import xarray as xr

from caterva2_jupyter.storage.hdf5_worker import Hdf5Worker
from caterva2_jupyter.tools import checkpointed_file, example_hdf5, export_hdf5, import_hdf5
from tests.tools.hdf5_diff import differences
from tests.xarray_backend.comparing import assert_same_dataset
from tests.xarray_backend.files import FILES, write_all
from tests.xarray_backend.serving import serving

REAL_DATA = os.environ.get("CATERVA2_REAL_DATA", "")
REAL_FILES = sorted(Path(REAL_DATA).iterdir(), key=lambda p: p.stat().st_size) if REAL_DATA else []
if os.environ.get("CATERVA2_TEST_LOOPS") != "long":
    REAL_FILES = [file for file in REAL_FILES if file.stat().st_size < 600_000]
quiet = [
    pytest.mark.filterwarnings("ignore:The 'phony_dims' kwarg now defaults:UserWarning"),
    pytest.mark.filterwarnings("ignore:Unable to decode time axis:xarray.SerializationWarning"),
    pytest.mark.filterwarnings("ignore:variable 'two_missing' has multiple fill values:xarray.SerializationWarning"),
    pytest.mark.filterwarnings("ignore:.*has non-conforming:xarray.SerializationWarning"),
]
pytestmark = quiet


def there_and_back(file: Path, directory: Path, *options: str) -> Path:
    root, back = directory / f"{file.stem}_root", directory / f"{file.stem}_back.h5"
    assert import_hdf5.main([str(file), str(root)]) == 0
    assert export_hdf5.main([str(root), str(back), *options]) == 0
    return back


def test_the_example_comes_back_as_it_was(tmp_path: Path) -> None:
    example_hdf5.make_example(tmp_path / "example.h5")
    assert differences(tmp_path / "example.h5", there_and_back(tmp_path / "example.h5", tmp_path)) == []


@pytest.mark.parametrize("file", REAL_FILES, ids=lambda p: p.name)
def test_a_real_file_comes_back_as_it_was(file: Path, tmp_path: Path) -> None:
    assert differences(file, there_and_back(file, tmp_path)) == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of many programs, the directories that they become in ``roots``, and what those become in ``back``."""
    top = tmp_path_factory.mktemp("files")
    for name in ("files", "roots", "back"):
        (top / name).mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_all(top / "files")
    worker = Hdf5Worker()
    for file in (top / "files").iterdir():
        root = top / "roots" / file.name.replace(".", "_")
        assert not import_hdf5.import_hdf5(file, root, worker=worker).failed
        assert not export_hdf5.export_hdf5(root, top / "back" / file.name, worker=worker).failed
    worker.close()
    return top


@pytest.mark.parametrize("name", FILES)
def test_a_netcdf_file_comes_back_as_it_was(files: Path, name: str) -> None:
    assert differences(files / "files" / name, files / "back" / name) == []
    with (
        xr.open_dataset(files / "files" / name, engine="h5netcdf") as before,
        xr.open_dataset(files / "back" / name, engine="h5netcdf") as after,
    ):
        assert_same_dataset(after, before)


def test_an_imported_directory_opens_as_the_file_does(files: Path) -> None:
    with serving(files / "roots") as service:
        for name in FILES:
            with xr.open_dataset(files / "files" / name, engine="h5netcdf") as local:
                opened = xr.open_dataset(service.address(name.replace(".", "_")), engine="caterva2")
                xr.testing.assert_identical(opened.load(), local.load())


def make_chunked(path: Path) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(1).integers(0, 60, (200, 300)).astype("i4")
    with h5py.File(path, "w") as file:
        how = {"data": values, "chunks": (100, 150)}
        file.create_dataset("gzip", compression="gzip", shuffle=True, **how)
        file.create_dataset("zstd", shuffle=True, **how, **hdf5plugin.Zstd())
        file.create_dataset("lz4", **how, **hdf5plugin.LZ4())
        file.create_dataset("blosc2", **how, **hdf5plugin.Blosc2(cname="lz4"))
    return values


def stored_chunks(path: Path, name: str) -> list[bytes]:
    with h5py.File(path) as file:
        dataset = file[name]
        return [dataset.id.read_direct_chunk((i, j))[1] for i in (0, 100) for j in (0, 150)]


def test_chunks_are_moved_as_they_are_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = make_chunked(tmp_path / "file.h5")
    assert import_hdf5.main([str(tmp_path / "file.h5"), str(tmp_path / "root"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["datasets"] == dict.fromkeys(("gzip.b2nd", "zstd.b2nd", "lz4.b2nd", "blosc2.b2nd"), "as stored")
    for name in ("gzip", "zstd", "lz4", "blosc2"):
        array = blosc2.open(str(tmp_path / "root" / f"{name}.b2nd"))
        assert array.chunks == (100, 150)
        np.testing.assert_array_equal(array[...], values)
        np.testing.assert_array_equal(array[17:160:3, 140:160], values[17:160:3, 140:160])
    assert export_hdf5.main([str(tmp_path / "root"), str(tmp_path / "back.h5"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["datasets"].values()) == {"as stored"}
    assert differences(tmp_path / "file.h5", tmp_path / "back.h5") == []
    for name in ("gzip", "zstd", "lz4"):
        assert stored_chunks(tmp_path / "back.h5", name) == stored_chunks(tmp_path / "file.h5", name)


@pytest.mark.parametrize(("codec", "number"), [("blosc2", 32026), ("gzip:9", 1), ("zstd:5", 32015), ("lz4", 32004)])
def test_another_codec_can_be_asked_for(codec: str, number: int, tmp_path: Path) -> None:
    make_chunked(tmp_path / "file.h5")
    back = there_and_back(tmp_path / "file.h5", tmp_path, "--codec", codec)
    assert differences(tmp_path / "file.h5", back, filters=False) == []
    with h5py.File(back) as file:
        plist = file["gzip"].id.get_create_plist()
        assert number in [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]


def test_a_codec_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "root").mkdir()
    for codec in ("brotli", "gzip:11", "gzip:x"):
        assert export_hdf5.main([str(tmp_path / "root"), str(tmp_path / "out.h5"), "--codec", codec]) == 1
        assert f"no codec '{codec}': choose one of auto, blosc2, gzip" in capsys.readouterr().err


def test_what_was_changed_in_the_directory_is_exported(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        for name in ("edited", "longer", "other", "gone"):
            file.create_dataset(name, data=np.arange(10.0), maxshape=(None,), chunks=(5,))
            file[name].attrs["units"] = "K"
            file[name].attrs["kept"] = np.int16(3)
        file["group/x"] = 1
        file["removed/x"] = 1
        file["group"].attrs["title"] = "before"
    root = tmp_path / "root"
    assert import_hdf5.main([str(tmp_path / "file.h5"), str(root)]) == 0
    edited = blosc2.open(str(root / "edited.b2nd"), mode="a")
    edited[3] = 99.0
    edited.schunk.vlmeta["units"] = "degC"
    blosc2.asarray(np.arange(20.0), chunks=(5,), urlpath=str(root / "longer.b2nd"), mode="w")
    blosc2.asarray(np.arange(4, dtype="i2"), urlpath=str(root / "other.b2nd"), mode="w")
    (root / "gone.b2nd").unlink()
    shutil.rmtree(root / "removed")
    (root / "group" / ".caterva2-group.json").write_text('{"attrs": {"title": "after", "n": 1}}')
    blosc2.asarray(np.arange(6).reshape(2, 3), urlpath=str(root / "group" / "new.b2nd"), mode="w")
    assert export_hdf5.main([str(root), str(tmp_path / "back.h5")]) == 0
    with h5py.File(tmp_path / "back.h5") as file:
        assert sorted(file) == ["edited", "group", "longer", "other"]
        assert file["edited"][3] == 99.0
        assert file["edited"].attrs["units"] == "degC"
        assert file["edited"].attrs["kept"].dtype == np.dtype("i2")
        assert (file["longer"].shape, file["longer"].maxshape) == ((20,), (None,))
        np.testing.assert_array_equal(file["longer"][...], np.arange(20.0))
        assert file["other"].dtype == np.dtype("i2")
        assert dict(file["group"].attrs) == {"title": "after", "n": 1}
        np.testing.assert_array_equal(file["group/new"][...], np.arange(6).reshape(2, 3))


def test_arrays_with_named_axes_get_dimension_scales(tmp_path: Path) -> None:
    from caterva2_jupyter.xarray_backend.writing import to_caterva2

    ds = xr.Dataset(
        {"t": (("time", "x"), np.arange(12.0).reshape(4, 3)), "mask": (("x", "edge"), np.ones((3, 2), bool))},
        coords={"time": np.arange(4), "x": [1.0, 2.0, 4.0]},
        attrs={"title": "made here"},
    )
    to_caterva2(ds, tmp_path / "root", unlimited_dims=["time"])
    assert export_hdf5.main([str(tmp_path / "root"), str(tmp_path / "out.nc")]) == 0
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as opened:
        xr.testing.assert_identical(opened.load(), ds)
        assert opened.encoding["unlimited_dims"] == {"time"}


def test_patterns_choose_datasets(tmp_path: Path) -> None:
    make_chunked(tmp_path / "file.h5")
    options = ["--include", "*z*", "--exclude", "lz4"]
    assert import_hdf5.main([str(tmp_path / "file.h5"), str(tmp_path / "root"), *options]) == 0
    assert sorted(p.name for p in (tmp_path / "root").glob("*.b2nd")) == ["gzip.b2nd", "zstd.b2nd"]
    assert export_hdf5.main([str(tmp_path / "root"), str(tmp_path / "out.h5"), "--include", "gzip"]) == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file) == ["gzip"]


def test_a_target_that_is_there_is_refused_with_the_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_chunked(tmp_path / "file.h5")
    source, root, back = (str(tmp_path / name) for name in ("file.h5", "root", "back.h5"))
    assert (import_hdf5.main([source, root]), export_hdf5.main([root, back])) == (0, 0)
    for main, arguments in ((import_hdf5.main, [source, root]), (export_hdf5.main, [root, back])):
        capsys.readouterr()
        assert main(arguments) == 1
        assert "remove it, choose another name, or give --overwrite" in capsys.readouterr().err
        before = Path(arguments[1]).stat().st_ino
        assert main([*arguments, "--resume"]) == 0
        assert Path(arguments[1]).stat().st_ino == before
        assert main([*arguments, "--overwrite"]) == 0
        assert Path(arguments[1]).stat().st_ino != before
    (tmp_path / "precious").mkdir()
    assert import_hdf5.main([source, str(tmp_path / "precious"), "--overwrite"]) == 1
    assert "was not made by cat2import and is not replaced" in capsys.readouterr().err


def test_the_report_says_what_was_not_carried_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example_hdf5.make_example(tmp_path / "example.h5")
    assert import_hdf5.main([str(tmp_path / "example.h5"), str(tmp_path / "root"), "--json"]) == 0
    told = capsys.readouterr()
    skipped = {item["path"]: item for item in json.loads(told.out)["skipped"]}
    assert skipped["unsupported/ragged.b2nd"] == {
        "path": "unsupported/ragged.b2nd",
        "reason": "its values are arrays of variable length (of int32)",
        "kept": True,
    }
    assert "skipped 'links/external': there is no file 'not-there.h5' (kept for cat2export)" in told.err
    assert import_hdf5.main([str(tmp_path / "none.h5"), str(tmp_path / "x"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"error": f"there is no file '{tmp_path / 'none.h5'}'"}


def killed_in_the_midst(module: str, arguments: list[str], is_begun: Any) -> bool:
    """Start a conversion and kill it once it is at work; False when it was faster."""
    command = [sys.executable, "-m", f"caterva2_jupyter.tools.{module}", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while process.poll() is None and not is_begun():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_a_second_run_goes_on_after_a_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        for i in range(40):
            values = np.random.default_rng(i).integers(0, 99, (400, 500)).astype("i4")
            file.create_dataset(f"d{i:02}", data=values, chunks=(100, 100), compression="gzip")
            file[f"d{i:02}"].attrs["n"] = np.int16(i)
    source, root, back = (str(tmp_path / name) for name in ("file.h5", "root", "back.h5"))
    half_made = tmp_path / ".root.part"
    assert killed_in_the_midst("import_hdf5", [source, root], lambda: len(list(half_made.glob("*.b2nd"))) > 5)
    assert not Path(root).exists()
    assert import_hdf5.main([source, root]) == 0
    assert "going on with an import that was interrupted: " in capsys.readouterr().err
    part = tmp_path / ".back.h5.part"
    begun = checkpointed_file.journal_path(part)
    assert killed_in_the_midst("export_hdf5", [root, back], begun.exists)
    assert not Path(back).exists()
    assert export_hdf5.main([root, back]) == 0
    assert "going on with an export that was interrupted: " in capsys.readouterr().err
    assert differences(Path(source), Path(back)) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back.h5", "file.h5", "root"]


def test_a_file_goes_back_to_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "file"
    random = np.random.default_rng(7)
    kept = random.bytes(10_000)
    file = checkpointed_file.CheckpointedFile(path)
    file.write(kept)
    file.checkpoint({"n": 1}, 12_000)
    for _ in range(200):
        file.seek(int(random.integers(0, 15_000)))
        file.write(random.bytes(int(random.integers(1, 900))))
        if random.integers(0, 20) == 0:
            file.truncate(int(random.integers(100, 15_000)))
    file.close()
    with checkpointed_file.journal_path(path).open("ab") as journal:
        journal.write(b"a record that was cut short")
    with checkpointed_file.CheckpointedFile(path, go_on=True) as again:
        assert again.state == {"n": 1}
        assert path.read_bytes() == kept + bytes(2000)
    with checkpointed_file.CheckpointedFile(path) as afresh:
        assert afresh.state is None
        assert path.read_bytes() == b""
