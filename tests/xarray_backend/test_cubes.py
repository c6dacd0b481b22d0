"""Many files as one dataset: as xarray joins them locally, in few requests; what differs between them is said."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.client.transport import Transport
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from tests.client.memory_service import MemoryService
from tests.xarray_backend.serving import serving

xr = pytest.importorskip("xarray")

from caterva2_jupyter.xarray_backend.writing import to_caterva2  # noqa: E402

Serve = Callable[[], Any]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves the directory of the test as a root; a client's group of it."""
    services: list[MemoryService] = []

    def start() -> Any:
        services.append(MemoryService({"foo": DirectoryRoot(tmp_path, "owner")}))
        return cat2.connect(services[-1].url)["foo"]

    yield start
    for service in services:
        service.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Routes that were asked for since."""
    routes: list[str] = []
    original = Transport.request

    def request(self: Transport, method: str, route: str, **options: Any) -> Any:
        routes.append(f"{method} {route.rpartition('/')[2]}")
        return original(self, method, route, **options)

    monkeypatch.setattr(Transport, "request", request)
    return routes


def part(number: int, **changed: Any) -> Any:
    """Some days of a model's output."""
    rng = np.random.default_rng(number)
    ds = xr.Dataset(
        {
            "t": (("time", "lat", "lon"), rng.random((3, 4, 5)).astype("f4"), {"units": "K"}),
            "area": (("lat", "lon"), np.ones((4, 5)), {"units": "m2"}),
        },
        coords={
            "time": ("time", (np.datetime64("2000-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D"))
                     + number * np.timedelta64(3, "D")),
            "lat": ("lat", np.arange(4.0), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(5.0)),
        },
        attrs={"title": "a model"},
    )  # fmt: skip
    ds["time"].encoding = {"units": "days since 2000-01-01", "dtype": "i4"}
    return ds.assign(**changed)


def write(tmp_path: Path, parts: dict[str, Any]) -> None:
    for name, ds in parts.items():
        to_caterva2(ds, tmp_path / name)


def test_files_join_as_they_do_locally(tmp_path: Path, serve: Serve, asked: list[str]) -> None:
    parts = [part(n) for n in range(4)]
    for number, ds in enumerate(parts):
        ds["t"].encoding = {"scale_factor": 0.001 * (number + 1), "dtype": "i4", "_FillValue": -1}
        ds["t"][0, 0, 0] = np.nan
        ds["time"].encoding["units"] = f"days since {1990 + number}-01-01"
    write(tmp_path, {f"run{n}": ds for n, ds in zip((2, 0, 3, 1), (parts[n] for n in (2, 0, 3, 1)), strict=True)})
    root = serve()
    asked.clear()
    with pytest.warns(UserWarning, match="differ") as raised:
        cube = root.to_xarray("run*", concat_dim="time")
    assert len(asked) <= 3, asked
    (warning,) = raised
    assert "'time' counts in 4 different units, each decoded by its own" in str(warning.message)
    assert "'t' is packed in 4 ways" in str(warning.message)
    assert "\n" not in str(warning.message)
    stored = [xr.open_dataset(root[f"run{n}"].address, engine="caterva2").load() for n in range(4)]
    expected = xr.concat(stored, "time", data_vars="minimal", coords="minimal", compat="override", join="exact")
    xr.testing.assert_identical(cube.load(), expected)


def test_a_selection_moves_what_it_touches(tmp_path: Path, serve: Serve, asked: list[str]) -> None:
    write(tmp_path, {f"run{n}": part(n) for n in range(6)})
    cube = serve().to_xarray("run*", concat_dim="time")
    whole = np.concatenate([part(n)["t"].values for n in range(6)])
    asked.clear()
    np.testing.assert_array_equal(cube["t"][:, 2, 3].values, whole[:, 2, 3])
    assert asked == ["POST read-many"], "a series over all files is one request"
    asked.clear()
    np.testing.assert_array_equal(cube["t"].sel(time="2000-01-05").values, whole[4])
    assert asked == ["POST read"]
    for key in ((slice(None, None, -2),), ([17, 0, 5], [0, 2]), (7, 1, 1), (slice(3, 3),), (slice(2, 9, 3), 1, [4, 0])):
        ours = cube["t"].isel(dict(zip(("time", "lat", "lon"), key, strict=False)))
        theirs = xr.DataArray(whole, dims=("time", "lat", "lon")).isel(
            dict(zip(("time", "lat", "lon"), key, strict=False))
        )
        np.testing.assert_array_equal(ours.values, theirs.values, err_msg=str(key))


def test_a_cube_is_computed_by_dask(tmp_path: Path, serve: Serve) -> None:
    pytest.importorskip("dask")
    write(tmp_path, {f"run{n}": part(n) for n in range(4)})
    root = serve()
    cube = root.to_xarray("run*", concat_dim="time", chunks={})
    again = root.to_xarray("run*", concat_dim="time", chunks={})
    assert cube["t"].chunks[0] == (3, 3, 3, 3)
    assert cube["t"].data.name == again["t"].data.name
    assert root.to_xarray("run*", concat_dim="time", chunks={"time": 6})["t"].chunks[0] == (6, 6)
    with pytest.raises(cat2.ConfigError, match="chunks name 'z', which is not a dimension"):
        root.to_xarray("run*", concat_dim="time", chunks={"z": 1})
    whole = np.concatenate([part(n)["t"].values for n in range(4)])
    mean = cube["t"].mean("time")
    np.testing.assert_allclose(mean.compute(scheduler="threads").values, whole.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cube))["t"].values, whole)


def test_a_thousand_files_open_in_three_requests(tmp_path: Path, serve: Serve, asked: list[str]) -> None:
    import shutil

    small = part(0)[["t"]].isel(lat=slice(0, 1), lon=slice(0, 1))
    to_caterva2(small, tmp_path / "run0000")
    for number in range(1, 1000):
        shutil.copytree(tmp_path / "run0000", tmp_path / f"run{number:04}")
    root = serve()
    asked.clear()
    with pytest.warns(UserWarning, match="'time' of the files overlap, or are not in order"):
        cube = root.to_xarray("run*", concat_dim="time")
    assert len(asked) <= 3, asked
    assert cube["t"].shape == (3000, 1, 1)


def test_what_differs_and_matters_is_an_error(tmp_path: Path, serve: Serve) -> None:
    write(tmp_path, {f"a{n}": part(n) for n in range(2)})
    celsius = part(2)
    celsius["t"].attrs["units"] = "degC"
    noleap = part(3).assign_coords(time=("time", [9, 10, 11], {"units": "days since 2000-01-01", "calendar": "noleap"}))
    write(tmp_path, {
        "units2": celsius, "calendar3": noleap, "shape4": part(4).isel(lat=slice(0, 3)),
        "index5": part(5).assign_coords(lat=np.arange(4.0) + 1), "dims6": part(6).transpose("lat", "time", "lon"),
    })  # fmt: skip
    root = serve()
    for pattern, text in {
        "{a*,units2}": "'t' is in different units: 'K' in 1 files, 'degC' in 1 files; convert them",
        "calendar3": r"'time' has different calendars \(noleap, standard\)",
        "shape4": "'lat' of '.*' has 4 items in 'a1' and 3 in 'shape4': open those files apart",
        "index5": "'lat' has other values in 'index5' than in 'a1'",
        "dims6": r"'t' has dimensions \('time', 'lat', 'lon'\) in 'a1' and \('lat', 'time', 'lon'\) in 'dims6'",
    }.items():
        other = pattern.strip("{}").rpartition(",")[2]
        (tmp_path / other).rename(tmp_path / f"pair-{other}")
        with pytest.raises(ValueError, match=text) as raised:
            join_two(tmp_path, other)
        assert "\n" not in str(raised.value)
    with pytest.raises(cat2.DatasetNotFoundError, match=r"nothing in foo matches '\*\.nc'"):
        root.to_xarray("*.nc", concat_dim="time")
    with pytest.raises(cat2.UnsupportedDatasetError, match="no file or directory with dimensions"):
        root.to_xarray("a0/*.b2nd", concat_dim="time")
    with pytest.raises(cat2.ConfigError, match="joins files with both"):
        root.to_xarray("*.nc")
    with pytest.raises(cat2.ConfigError, match="'raise' or 'warn'"):
        root.to_xarray("a*", concat_dim="time", differences="ignore")


def join_two(tmp_path: Path, name: str) -> Any:
    """Join one good file and another."""
    import shutil

    both = tmp_path / f"both-{name}"
    shutil.copytree(tmp_path / "a1", both / "a1")
    shutil.copytree(tmp_path / f"pair-{name}", both / name)
    with MemoryService({"foo": DirectoryRoot(both, "owner")}) as service:
        return cat2.connect(service.url)["foo"].to_xarray("*", concat_dim="time")


def test_what_differs_and_does_not_matter_is_one_warning(tmp_path: Path, serve: Serve) -> None:
    parts = [part(n) for n in range(3)]
    parts[1]["t"] = parts[1]["t"].astype("f8")
    parts[2] = parts[2].drop_vars("t")
    parts[1].attrs["history"] = "edited"
    parts[0]["n"] = ("time", np.arange(3, dtype="i2"))
    parts[1]["area"] = parts[1]["area"] * 2
    write(tmp_path, {f"run{n}": ds for n, ds in enumerate(parts)})
    with pytest.warns(UserWarning, match="differ") as raised:
        cube = serve().to_xarray("run*", concat_dim="time")
    (warning,) = raised
    for text in ("'t' is not in 'run2' and is filled there", "'t' is stored as float32, float64",
                 "'n' is not in 'run1', 'run2'", "'history' of the file as in the first file",
                 "'area' has other values in 'run1' than in 'run0', whose are taken"):  # fmt: skip
        assert text in str(warning.message)
    assert cube["t"].dtype == np.float64
    np.testing.assert_array_equal(cube["t"][:3].values, parts[0]["t"].values)
    assert np.isnan(cube["t"][6:].values).all()
    np.testing.assert_array_equal(cube["n"].values, [0, 1, 2, *[np.nan] * 6])
    np.testing.assert_array_equal(cube["area"].values, np.ones((4, 5)))


def test_units_may_differ_when_asked_for(tmp_path: Path, serve: Serve) -> None:
    parts = [part(n) for n in range(2)]
    parts[1]["t"].attrs["units"] = "degC"
    write(tmp_path, {f"run{n}": ds for n, ds in enumerate(parts)})
    with pytest.warns(UserWarning, match="'t' is in different units: 'K' in 1 files, 'degC' in 1 files"):
        serve().to_xarray("run*", concat_dim="time", differences="warn")


def test_files_without_the_dimension_are_items_of_it(tmp_path: Path, serve: Serve) -> None:
    members = [part(n)[["t"]].isel(time=0, drop=True).assign_coords(member=n) for n in range(3)]
    write(tmp_path, {f"run{n}": ds for n, ds in enumerate(members)})
    cube = serve().to_xarray("run*", concat_dim="member")
    assert cube["t"].dims == ("member", "lat", "lon")
    np.testing.assert_array_equal(cube["member"].values, [0, 1, 2])
    np.testing.assert_array_equal(cube["t"].values, np.stack([m["t"].values for m in members]))
    np.testing.assert_array_equal(cube["t"][1, :, 2].values, members[1]["t"].values[:, 2])


def test_found_files_open_as_xarray_opens_local_ones(tmp_path: Path, serve: Serve) -> None:
    pytest.importorskip("dask")
    pytest.importorskip("h5py")
    write(tmp_path, {f"run{n}": part(n) for n in range(3)})
    root = serve()
    found = list(root.glob("run*"))
    assert found == ["run0", "run1", "run2"]
    assert root[found[0]].path == "run0"
    assert found[1] in root
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        opened = xr.open_mfdataset(
            root.glob("run*"), engine="caterva2", combine="by_coords", data_vars="minimal", coords="minimal"
        )
    np.testing.assert_array_equal(opened["t"].values, np.concatenate([part(n)["t"].values for n in range(3)]))
    xr.testing.assert_identical(root["run1"].to_xarray().load(), part(1))


def write_netcdf(path: Path, number: int) -> None:
    """A month as models write them: packed, times with bounds, an unlimited dimension, strings of all kinds."""
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(path, "w") as file:
        file.createDimension("time", None)
        for name, length in (("lat", 4), ("bnds", 2), ("strlen", 6)):
            file.createDimension(name, length)
        time = file.createVariable("time", "f8", ("time",))
        time.units, time.calendar, time.bounds = f"days since 20{number:02}-01-01", "noleap", "time_bnds"
        time[:] = np.arange(3) + 0.5
        file.createVariable("time_bnds", "f8", ("time", "bnds"))[:] = np.arange(3)[:, None] + [0, 1]
        file.createVariable("lat", "f4", ("lat",))[:] = np.arange(4)
        t = file.createVariable("t", "i2", ("time", "lat"), fill_value=-999)
        t.scale_factor, t.add_offset = np.float32(0.1), np.float32(number)
        t[:] = np.ma.masked_equal(np.arange(12).reshape(3, 4) + number, 5)
        word = file.createVariable("word", str, ("time",))
        for row in range(3):
            word[row] = f"día {number}.{row}"
        file.createVariable("station", "S1", ("lat", "strlen"))[:] = netcdf.stringtochar(
            np.array(["a", "bcd", "efghij", ""], "S6")
        )
        file.createVariable("code", "S1", ("time", "strlen"))[:] = netcdf.stringtochar(
            np.array([f"n{number}", "x", "abcdef"], "S6")
        )
        file.createVariable("crs", "i4").grid_mapping_name = "latitude_longitude"


def test_netcdf_files_join_as_xarray_joins_them_locally(tmp_path: Path, asked: list[str]) -> None:
    pytest.importorskip("h5netcdf")
    pytest.importorskip("cftime")
    for number in range(5):
        write_netcdf(tmp_path / f"run{number}.nc", number)
    local = [xr.open_dataset(tmp_path / f"run{n}.nc", engine="h5netcdf", decode_timedelta=False) for n in range(5)]
    expected = xr.concat(local, "time", data_vars="minimal", coords="minimal", compat="override", join="exact").load()
    for ds in local:
        ds.close()
    with serving(tmp_path) as served:
        root = cat2.connect(served.url)["foo"]
        asked.clear()
        with pytest.warns(UserWarning, match="'time' counts in 5 different units"):
            cube = root.to_xarray("run*.nc", concat_dim="time")
        assert len(asked) <= 3, asked
        np.testing.assert_array_equal(cube["code"][4].values, expected["code"][4].values)
        np.testing.assert_array_equal(cube["t"][1:9:3, 2].values, expected["t"][1:9:3, 2].values)
        loaded = cube.load()
    xr.testing.assert_identical(loaded, expected)
    for name, variable in expected.variables.items():
        assert loaded[name].dtype == variable.dtype or name == "word", name  # concat makes <U of objects
