"""What opens is what h5netcdf opens of the same file: identical, and equal in dtypes, bytes, attributes, encoding."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (what the local engine reads filters with)
import numpy as np
import pytest
import xarray as xr

from tests.xarray_backend.comparing import assert_same_dataset, assert_same_tree
from tests.xarray_backend.files import FILES, write_all
from tests.xarray_backend.serving import Served, serving

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'phony_dims' kwarg now defaults:UserWarning"),
    pytest.mark.filterwarnings("ignore:Unable to decode time axis:xarray.SerializationWarning"),
    pytest.mark.filterwarnings("ignore:variable 'two_missing' has multiple fill values:xarray.SerializationWarning"),
    pytest.mark.filterwarnings("ignore:.*has non-conforming:xarray.SerializationWarning"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("files")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_all(directory)
    with serving(directory) as service:
        yield service


@pytest.fixture(scope="module")
def served_real_data() -> Iterator[Served]:
    folder = os.environ.get("CATERVA2_REAL_DATA")
    if not folder:
        pytest.skip("real files are not at hand: set CATERVA2_REAL_DATA to their folder")
    with serving(Path(folder)) as service:
        yield service


@pytest.mark.parametrize("name", FILES)
def test_a_file_opens_as_it_does_locally(served: Served, name: str) -> None:
    with xr.open_dataset(served.directory / name, engine="h5netcdf") as local:
        assert_same_dataset(xr.open_dataset(served.address(name), engine="caterva2"), local)


@pytest.mark.parametrize("name", FILES)
def test_it_also_does_undecoded(served: Served, name: str) -> None:
    options = {"mask_and_scale": False, "decode_times": False, "concat_characters": False, "decode_coords": False}
    with xr.open_dataset(served.directory / name, engine="h5netcdf", **options) as local:
        assert_same_dataset(xr.open_dataset(served.address(name), engine="caterva2", **options), local)


@pytest.mark.parametrize("phony_dims", ["access", "sort"])
@pytest.mark.parametrize("name", FILES)
def test_all_its_groups_open_as_they_do_locally(served: Served, name: str, phony_dims: str) -> None:
    local = xr.open_groups(served.directory / name, engine="h5netcdf", phony_dims=phony_dims)
    remote = xr.open_groups(served.address(name), engine="caterva2", phony_dims=phony_dims)
    assert_same_tree(remote, local)
    for dataset in local.values():
        dataset.close()


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("cf.nc", "group"),
        ("cf.nc", "/group/deep"),
        ("h5netcdf.nc", "a/b"),
        ("phony.h5", "a/e/f"),
        ("run.nxs", "entry/data"),
    ],
)
def test_a_group_opens_by_its_path_in_the_file_or_in_the_address(served: Served, name: str, group: str) -> None:
    with xr.open_dataset(served.directory / name, engine="h5netcdf", group=group) as local:
        assert_same_dataset(xr.open_dataset(served.address(name), engine="caterva2", group=group), local)
        assert_same_dataset(xr.open_dataset(served.address(f"{name}/{group.strip('/')}"), engine="caterva2"), local)


def test_a_group_below_a_group_is_a_tree_of_its_own(served: Served) -> None:
    local = xr.open_groups(served.directory / "cf.nc", engine="h5netcdf", group="group")
    assert_same_tree(xr.open_groups(served.address("cf.nc"), engine="caterva2", group="group"), local)
    for dataset in local.values():
        dataset.close()


@pytest.mark.parametrize("name", ["tree.nc", "cf.nc"])
def test_a_file_opens_as_a_tree(served: Served, name: str) -> None:
    with xr.open_datatree(served.directory / name, engine="h5netcdf") as local:
        remote = xr.open_datatree(served.address(name), engine="caterva2")
        xr.testing.assert_identical(remote, local)


def test_times_may_be_cftime_and_other_units_than_nanoseconds(served: Served) -> None:
    for coder in (xr.coders.CFDatetimeCoder(use_cftime=True), xr.coders.CFDatetimeCoder(time_unit="s")):
        with xr.open_dataset(served.directory / "era5.nc", engine="h5netcdf", decode_times=coder) as local:
            remote = xr.open_dataset(served.address("era5.nc"), engine="caterva2", decode_times=coder)
            assert_same_dataset(remote, local)


def test_variables_that_are_dropped_are_not_there(served: Served) -> None:
    drop = ["lon", "text", "time_bnds"]
    with xr.open_dataset(served.directory / "cf.nc", engine="h5netcdf", drop_variables=drop) as local:
        assert_same_dataset(xr.open_dataset(served.address("cf.nc"), engine="caterva2", drop_variables=drop), local)
    assert "lon" not in xr.open_dataset(served.address("cf.nc"), engine="caterva2", drop_variables="lon")


def test_strings_may_stay_bytes(served: Served) -> None:
    with xr.open_dataset(served.directory / "era5.nc", engine="h5netcdf", decode_vlen_strings=False) as local:
        remote = xr.open_dataset(served.address("era5.nc"), engine="caterva2", decode_vlen_strings=False)
        assert_same_dataset(remote, local)


def test_compounds_of_foreign_byte_order_can_be_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "be.h5", "w") as file:  # the local engine cannot load it
        file["pairs"] = np.array([(1, 2.5)], [("i", ">i4"), ("f", ">f8")])
    with serving(tmp_path) as service:
        pairs = xr.open_dataset(service.address("be.h5"), engine="caterva2")["pairs"]
        assert pairs.values.tolist() == [(1, 2.5)]
        assert pairs.dtype.isnative


def test_what_the_local_engine_cannot_load_opens_all_the_same(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["x"] = np.arange(4.0)
        file["x"].make_scale()
        file["half_named"] = np.ones((4, 5))
        file["half_named"].dims[0].attach_scale(file["x"])
        file.create_dataset("vectors", (2,), np.dtype(("f4", (3,))))
        file["loop"] = h5py.SoftLink("/")
    with serving(tmp_path) as service, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "not opened", UserWarning)
        ds = xr.open_dataset(service.address("odd.h5"), engine="caterva2").load()
        assert ds["half_named"].dims == ("x", "phony_dim_0")
        assert ds["vectors"].shape == (2, 3)
        assert list(xr.open_groups(service.address("odd.h5"), engine="caterva2")) == ["/"]


def test_real_files_open_as_they_do_locally(served_real_data: Served) -> None:
    for path in sorted(served_real_data.directory.iterdir()):
        address = served_real_data.address(path.name)
        with xr.open_dataset(path, engine="h5netcdf") as local:
            assert_same_dataset(xr.open_dataset(address, engine="caterva2"), local)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "not opened", UserWarning)
            warnings.filterwarnings("ignore", "'utf-8' codec can't decode", UnicodeWarning)
            groups = xr.open_groups(address, engine="caterva2")
            try:
                here = xr.open_groups(path, engine="h5netcdf")
            except KeyError:
                continue  # a link to a file that is not there, which the local engine does not survive
        assert_same_tree(groups, here)
        for dataset in here.values():
            dataset.close()
