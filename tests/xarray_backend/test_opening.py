"""How an address opens: in how few requests, what stays lazy, what is refused, what is left out and named."""

from __future__ import annotations

import asyncio
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2
import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

import caterva2_jupyter as cat2
from caterva2_jupyter.errors import (
    Caterva2Error,
    ConfigError,
    DatasetChangedError,
    DatasetNotFoundError,
    InvalidPathError,
    RootNotFoundError,
    SourceUnavailableError,
    UnsupportedDatasetError,
)
from caterva2_jupyter.xarray_backend.backend import Caterva2BackendEntrypoint
from tests.processes import Network
from tests.xarray_backend.serving import Served, serving

FIELD = np.arange(60 * 50 * 40, dtype="f4").reshape(60, 50, 40)


def write_field(path: Path, offset: float = 0.0) -> None:
    """Three indexes, bounds and a second time: everything that opening looks at; and a field that it must not."""
    with netCDF4.Dataset(path, "w") as nc:
        for name, length in {"time": 60, "lat": 50, "lon": 40, "nv": 2}.items():
            nc.createDimension(name, length)
            if name != "nv":
                nc.createVariable(name, "f8", (name,))[:] = np.arange(length)
        nc["time"].units, nc["time"].bounds = "days since 2000-01-01", "time_bnds"
        nc.createVariable("time_bnds", "f8", ("time", "nv"))[:] = np.arange(120).reshape(60, 2)
        nc.createVariable("issued", "f8", ("time",))[:] = np.arange(60)
        nc["issued"].units = "hours since 1999-01-01"
        nc.createVariable("station", str, ("lat",))[:] = np.array([f"s{i}" for i in range(50)], object)
        nc.createVariable("t2m", "f4", ("time", "lat", "lon"), chunksizes=(10, 25, 20), zlib=True)[:] = FIELD + offset


def write_blosc2(directory: Path) -> None:
    directory.mkdir()
    for name, values, dims in (
        ("x", np.arange(6.0), ["x"]),
        ("y", np.arange(4.0), ["y"]),
        ("field", np.arange(24.0).reshape(4, 6), ["y", "x"]),
    ):
        array = blosc2.asarray(values, urlpath=str(directory / f"{name}.b2nd"), chunks=[2] * values.ndim)
        array.schunk.vlmeta["_ARRAY_DIMENSIONS" if name == "field" else "dims"] = dims
        array.schunk.vlmeta["units"] = "K"
    blosc2.asarray(np.arange(10), urlpath=str(directory / "bare.b2nd"))
    (directory / "README.md").write_text("not an array")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("root")
    write_field(directory / "field.nc")
    write_blosc2(directory / "run")
    with h5py.File(directory / "bad.h5", "w") as file:
        file["good"] = np.arange(3)
        file["refs"] = np.array([file["good"].ref], dtype=h5py.ref_dtype)
        file.create_dataset("ragged", (2,), h5py.vlen_dtype("i4"))
        file["null"] = h5py.Empty("f4")
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:2] = h5py.VirtualSource("absent.h5", "data", (2,))
        file.create_virtual_dataset("virtual", layout, fillvalue=-1)
        file["dangling"] = h5py.ExternalLink("nowhere.h5", "/x")
    with serving(directory) as service:
        yield service


def test_a_file_opens_in_three_requests_and_reads_its_indexes_in_one(served: Served) -> None:
    xr.open_dataset(served.address("field.nc"), engine="caterva2")
    served.forget()
    ds = xr.open_dataset(served.address("field.nc"), engine="caterva2")
    assert served.requests == ["GET meta", "GET roots/foo/catalog", "POST read-many"]
    served.forget()
    assert "t2m" in repr(ds)
    assert ds._repr_html_()
    assert served.requests == []
    assert ds["t2m"].isel(time=3, lat=4, lon=5).item() == FIELD[3, 4, 5]
    assert served.requests == ["POST read"]


def test_without_indexes_and_decoding_nothing_is_read(served: Served) -> None:
    served.forget()
    ds = xr.open_dataset(
        served.address("field.nc"), engine="caterva2", create_default_indexes=False, decode_times=False,
        drop_variables="station",
    )  # fmt: skip
    assert served.requests == ["GET meta", "GET roots/foo/catalog"]
    assert ds["time"].values[-1] == 59


def test_all_groups_open_by_one_listing_and_one_read(served: Served, tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "tree.nc", "w") as nc:
        for name in "abcdefgh":
            group = nc.createGroup(name)
            group.createDimension("x", 3)
            group.createVariable("x", "f8", ("x",))[:] = [1, 2, 3]
    with serving(tmp_path) as service:
        xr.open_datatree(service.address("tree.nc"), engine="caterva2")
        service.forget()
        tree = xr.open_datatree(service.address("tree.nc"), engine="caterva2")
        assert service.requests == ["GET meta", "GET roots/foo/catalog", "POST read-many"]
        assert len(tree.children) == 8


KEYS = {
    "basic": {"time": 3, "lat": slice(2, 40, 7)},
    "backwards": {"time": slice(None, None, -1), "lon": slice(30, 3, -4)},
    "outer": {"time": [0, 59, 30], "lat": [49, 0], "lon": [5, 5, 1]},
    "empty": {"time": [], "lat": slice(0)},
    "mask": {"time": np.arange(60) % 7 == 0},
    "vectorized": {"time": xr.DataArray([1, 5, 59], dims="p"), "lat": xr.DataArray([0, 49, 7], dims="p")},
    "negative": {"time": -1, "lon": [-1, -40]},
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_indexing_is_that_of_numpy(served: Served, key: dict[str, object]) -> None:
    field = xr.open_dataset(served.address("field.nc"), engine="caterva2")["t2m"]
    local = xr.DataArray(FIELD, field.coords, field.dims, "t2m", field.attrs)
    xr.testing.assert_identical(field.isel(key), local.isel(key))
    by_dask = xr.open_dataset(served.address("field.nc"), engine="caterva2", chunks={})["t2m"]
    xr.testing.assert_identical(by_dask.isel(key).compute(), local.isel(key))


def test_sparse_picks_move_only_their_blocks(served: Served) -> None:
    from caterva2_jupyter.client.remote_array import RemoteArray
    from caterva2_jupyter.core.selection import Selection

    field = xr.open_dataset(served.address("field.nc"), engine="caterva2", cache=False)["t2m"]
    asked: list[Selection] = []
    reader = RemoteArray._read

    def note(self: RemoteArray, parsed: object) -> object:
        asked.append(parsed.selection)  # type: ignore[attr-defined]
        return reader(self, parsed)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteArray, "_read", note)
        got = field.isel(time=[0, 1, 57], lat=[0, 49], lon=[0, 39]).values
    assert np.array_equal(got, FIELD[np.ix_([0, 1, 57], [0, 49], [0, 39])])
    assert [s.shape for s in asked] == [(3, 2, 2)]


def test_variables_load_concurrently(served: Served) -> None:
    ds = xr.open_dataset(served.address("field.nc"), engine="caterva2")
    loaded = asyncio.run(ds[["t2m", "issued"]].load_async())
    assert np.array_equal(loaded["t2m"].values, FIELD)


def test_chunks_are_the_stored_ones_and_names_are_made_of_the_version(served: Served) -> None:
    with cat2.connect(served.url) as client:
        one = client["foo/field.nc/t2m"].to_xarray(chunks={})
        again = client["foo/field.nc/t2m"].to_xarray(chunks={})
        assert one.chunks == ((10,) * 6, (25, 25), (20, 20))
        assert one.data.name == again.data.name


def names_in(ds: xr.Dataset) -> dict[object, str]:
    return {name: variable.data.name for name, variable in ds.variables.items() if variable.chunks}


@pytest.mark.parametrize("how", [{"chunks": {}}, {"chunks": {"time": 20}}, {"chunks": {}, "mask_and_scale": False}])
def test_dask_names_are_those_of_the_version_and_the_options(tmp_path: Path, how: dict[str, Any]) -> None:
    write_field(tmp_path / "field.nc")
    with serving(tmp_path) as service:
        address = service.address("field.nc")
        before = names_in(xr.open_dataset(address, engine="caterva2", **how))
        assert before
        assert names_in(xr.open_dataset(address, engine="caterva2", **how)) == before
        assert names_in(xr.open_mfdataset([address], engine="caterva2", **how)) == before
        tree = xr.open_datatree(address, engine="caterva2", **how)
        assert names_in(xr.open_datatree(address, engine="caterva2", **how).dataset) == names_in(tree.dataset)
        other = names_in(xr.open_dataset(address, engine="caterva2", chunks={"time": 30}))
        assert not set(other.values()) & set(before.values())
        later = names_in(xr.open_dataset(address, engine="caterva2").chunk(time=10))
        assert names_in(xr.open_dataset(address, engine="caterva2").chunk(time=10)) == later
        with h5py.File(tmp_path / "field.nc", "a") as file:
            file["t2m"][0, 0, 0] = 7
        service.service.rescan()
        changed = names_in(xr.open_dataset(address, engine="caterva2", **how))
        assert changed.keys() == before.keys()
        # Strings are read when it is opened: the same values have the same name.
        assert {name for name in before if changed[name] == before[name]} == {"station"}
        assert names_in(xr.open_dataset(address, engine="caterva2").chunk(time=10))["t2m"] != later["t2m"]


def test_what_a_client_opened_needs_no_engine_named(tmp_path: Path) -> None:
    for number in range(2):
        write_field(tmp_path / f"field{number}.nc", 60.0 * number)
    with serving(tmp_path) as service, cat2.connect(service.url) as client:
        root = client["foo"]
        assert xr.open_dataset(root["field0.nc"]).sizes["time"] == 60
        assert xr.open_dataset(root["field0.nc/t2m"])["t2m"].shape == FIELD.shape
        assert xr.open_datatree(root["field0.nc"]).sizes["time"] == 60
        joined = xr.open_mfdataset(
            [root[path] for path in root.glob("*.nc")],
            combine="nested",
            concat_dim="time",
            data_vars="minimal",
            coords="minimal",
            compat="override",
        )
        assert joined.sizes["time"] == 120
    assert not Caterva2BackendEntrypoint().guess_can_open(tmp_path)


def test_dask_arrays_of_a_dataset_are_of_plain_variables(served: Served) -> None:
    ds = xr.open_dataset(served.address("field.nc"), engine="caterva2", chunks={})
    assert type(ds["t2m"].variable) is xr.Variable
    given = {"name": "mine"}
    lazy = xr.open_dataset(served.address("field.nc"), engine="caterva2")["t2m"].variable
    assert lazy.chunk({}, from_array_kwargs=given).data.name.startswith("mine-")
    assert given == {"name": "mine"}
    assert np.array_equal(ds["t2m"].values, FIELD)


def test_a_pickle_is_small_and_holds_no_secret(served: Served) -> None:
    ds = xr.open_dataset(served.address("field.nc"), engine="caterva2")
    raw = pickle.dumps(ds["t2m"].variable)
    assert len(raw) < 4000
    assert np.array_equal(pickle.loads(raw).values, FIELD)
    token = "a-secret-token"
    with cat2.connect(served.url, token=token) as client:
        assert token.encode() not in pickle.dumps(client["foo/field.nc/t2m"].to_xarray(chunks={}))
    assert np.array_equal(pickle.loads(pickle.dumps(ds)).load()["t2m"].values, FIELD)


def test_a_copy_shares_what_is_lazy(served: Served) -> None:
    ds = xr.open_dataset(served.address("field.nc"), engine="caterva2")
    served.forget()
    copy = ds.copy(deep=True)
    assert served.requests in ([], ["POST read"])
    assert np.array_equal(copy["t2m"].isel(time=0).values, FIELD[0])


def test_a_dataset_that_changes_is_never_mixed(tmp_path: Path) -> None:
    write_field(tmp_path / "field.nc")
    with serving(tmp_path) as service:
        ds = xr.open_dataset(service.address("field.nc"), engine="caterva2", cache=False)
        assert ds["t2m"][0, 0, 0].item() == 0
        with cat2.connect(service.url) as client:
            version = client["foo/field.nc"].entry.version
            array = client["foo/field.nc/t2m"]
            name = client["foo/field.nc"].to_xarray(chunks={})["t2m"].data.name
        (tmp_path / "field.nc").unlink()
        write_field(tmp_path / "field.nc", offset=1)
        service.service.rescan()
        with pytest.raises(DatasetChangedError, match="changed"):
            ds["t2m"].values  # noqa: B018
        with pytest.raises(DatasetChangedError, match="not of version"):
            xr.open_dataset(service.address("field.nc"), engine="caterva2", version=version)
        with pytest.raises(DatasetChangedError, match="changed while it was opened"):
            array.to_xarray()
        assert xr.open_dataset(service.address("field.nc"), engine="caterva2")["t2m"][0, 0, 0].item() == 1
        with cat2.connect(service.url) as client:
            assert client["foo/field.nc"].to_xarray(chunks={})["t2m"].data.name != name


# Directories of Blosc2 arrays, and single arrays


def test_a_directory_of_blosc2_arrays_is_a_dataset(served: Served) -> None:
    ds = xr.open_dataset(served.address("run"), engine="caterva2")
    assert ds["field"].dims == ("y", "x")
    assert set(ds.coords) == {"x", "y"}
    assert ds["bare"].dims == ("phony_dim_0",)
    assert ds["field"].attrs == {"units": "K"}
    assert ds["field"].encoding["preferred_chunks"] == {"y": 2, "x": 2}
    assert np.array_equal(ds["field"].sel(x=3).values, np.arange(24.0).reshape(4, 6)[:, 3])


@pytest.mark.parametrize("path", ["run/field.b2nd", "run/field", "field.nc/t2m"])
def test_a_single_array_opens_with_its_coordinates(served: Served, path: str) -> None:
    name = "t2m" if "t2m" in path else "field"
    ds = xr.open_dataset(served.address(path), engine="caterva2")
    assert list(ds.data_vars) == [name]
    assert set(ds.indexes) == set(ds[name].dims)
    with cat2.connect(served.url) as client:
        array = client[f"foo/{path}"].to_xarray()
    xr.testing.assert_identical(array, ds[name])


def test_a_single_array_of_a_file_costs_one_request_more_than_the_file(served: Served) -> None:
    served.forget()
    xr.open_dataset(served.address("field.nc/t2m"), engine="caterva2")
    assert served.requests == ["GET meta", "GET roots/foo/catalog", "GET meta", "POST read-many"]


def test_an_array_that_names_no_axes_has_numbered_ones(served: Served) -> None:
    with cat2.connect(served.url) as client:
        array = client["foo/run/bare"].to_xarray()
    assert array.dims == ("dim_0",)
    assert array.name == "bare"
    assert array.values.tolist() == list(range(10))


def test_a_root_opens_as_a_tree_of_files_and_directories(served: Served) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "not opened", UserWarning)
        tree = xr.open_datatree(served.address(""), engine="caterva2")
    assert {"field.nc", "run", "bad.h5"} == set(tree.children)
    assert tree["run/field"].dims == ("y", "x")


def test_groups_of_the_client_become_datasets_and_trees(served: Served) -> None:
    with cat2.connect(served.url) as client:
        file = client["foo/field.nc"]
        ds = file.to_xarray(chunks={})
        xr.testing.assert_identical(ds.compute(), xr.open_dataset(served.address("field.nc"), engine="caterva2").load())
        assert ds["t2m"].data.name == file.to_xarray(chunks={})["t2m"].data.name
        assert list(client["foo"].to_datatree("run").data_vars) == ["bare", "field"]


def test_an_object_of_the_client_opens_too(served: Served) -> None:
    with cat2.connect(served.url) as client:
        ds = xr.open_dataset(client["foo/field.nc"], engine="caterva2")
    xr.testing.assert_identical(ds, xr.open_dataset(served.address("field.nc"), engine="caterva2"))
    assert ds.encoding["source"] == served.address("field.nc")


# What is left out, and what is refused


def test_what_cannot_be_read_is_named_with_the_reason(served: Served) -> None:
    with pytest.warns(UserWarning, match="not opened") as caught:
        ds = xr.open_dataset(served.address("bad.h5"), engine="caterva2")
    assert list(ds) == ["good"]
    (text,) = [str(w.message) for w in caught]
    for part in ("refs", "references", "ragged", "variable length", "null", "virtual", "'absent.h5'", "dangling"):
        assert part in text, part
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.open_dataset(
            served.address("bad.h5"), engine="caterva2",
            drop_variables=["refs", "ragged", "null", "virtual", "dangling"],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "options", "error", "text"),
    [
        ("none.nc", {}, DatasetNotFoundError, "none.nc"),
        ("field.nc", {"group": "nope"}, DatasetNotFoundError, "no group 'nope' in foo/field.nc: there are no groups"),
        ("", {"group": "nope"}, DatasetNotFoundError, "there are 'bad.h5', 'field.nc', 'run'"),
        ("field.nc", {"group": "../x"}, DatasetNotFoundError, "no group"),
        ("run/field.b2nd", {"group": "x"}, DatasetNotFoundError, "is an array"),
        ("run/README.md", {}, UnsupportedDatasetError, "is a file"),
        ("bad.h5/refs", {}, UnsupportedDatasetError, "references"),
        ("field.nc", {"phony_dims": "guess"}, ConfigError, "'access' or 'sort'"),
    ],
)
def test_bad_input_is_told_in_one_line(
    served: Served, path: str, options: dict[str, str], error: type[Caterva2Error], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        xr.open_dataset(served.address(path), engine="caterva2", **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_variable_is_a_key_error(served: Served) -> None:
    with pytest.raises(KeyError, match="nope"):
        xr.open_dataset(served.address("field.nc"), engine="caterva2")["nope"]


@pytest.mark.parametrize("address", ["field.nc", "http://localhost/foo/field.nc", "cat2:foo/field.nc", "/tmp/x.nc"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidPathError, match="not an address"):
        Caterva2BackendEntrypoint().open_dataset(address)


def test_a_root_or_service_that_is_not_there_is_told(served: Served) -> None:
    with pytest.raises(RootNotFoundError):
        xr.open_dataset(f"cat2{served.url}/-/nope/x.nc", engine="caterva2")
    with pytest.raises(SourceUnavailableError):
        xr.open_dataset("cat2http://127.0.0.1:1/-/foo/x.nc", engine="caterva2")


def test_guessing_asks_no_one_and_claims_only_its_schemes() -> None:
    guess = Caterva2BackendEntrypoint().guess_can_open
    for ours in ("cat2://foo/x.nc", "cat2http://localhost:1/-/foo/x.nc", "cat2https://lab.org/a/-/foo/x"):
        assert guess(ours)
    for other in ("x.nc", "http://localhost/x.nc", "cat2:foo", b"CDF", Path("x.b2nd"), None, 3, "/cat2://x"):
        assert not guess(other)
    assert "caterva2" in xr.backends.list_engines()


# Through a subscriber, its cache and its files


def test_it_opens_through_a_subscriber_and_again_from_its_cache(tmp_path: Path, network: Network) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_field(root / "field.nc")
    publisher = network.start_publisher("foo", root)
    subscriber = network.start_subscriber("--publisher", publisher.url)
    address = f"cat2{subscriber.url}/-/foo/field.nc"
    with xr.open_dataset(root / "field.nc", engine="h5netcdf") as local:
        xr.testing.assert_identical(xr.open_dataset(address, engine="caterva2").load(), local)
        publisher.kill()
        xr.testing.assert_identical(xr.open_dataset(address, engine="caterva2").load(), local)
        with cat2.connect(subscriber.url, short_circuit=False) as client:
            opened = xr.open_dataset(client["foo/field.nc"], engine="caterva2")
            xr.testing.assert_identical(opened.load(), local)
