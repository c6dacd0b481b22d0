"""The Zarr view over a whole network, read by xarray, zarr-python and zarrita, which know nothing of ours."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import blosc2
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
import zarrita

import caterva2_jupyter as cat2
from tests.processes import Network, Service, wait_for

GRID = np.arange(300 * 400, dtype="i4").reshape(300, 400)
NAMES = ["g/x", "g/sq", "sc", "be", "c", "st", "S", "bool", "empty", "f16", "_nc4_non_coord_odd"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    time = xr.date_range("2001-01-01", periods=10, calendar="noleap", use_cftime=True)
    values = np.random.default_rng(0).normal(280, 5, (10, 40, 50)).astype("f4")
    dataset = xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), values, {"units": "K"}),
            "m": (("lat",), np.arange(40.0)),
            "i": (("time",), np.arange(10) * 2**55),
        },
        {"time": time, "lat": np.linspace(-90, 90, 40), "lon": np.arange(50.0)},
        {"title": "a file"},
    )
    packed = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32767}
    encoding = {"t2m": {"zlib": True, "chunksizes": (1, 20, 50), **packed}, "m": {"_FillValue": 3.0}}
    dataset.to_netcdf(root / "a.nc", engine="h5netcdf", encoding=encoding)
    with h5py.File(root / "b.h5", "w") as file:
        file["g/x"], file["g/sq"], file["sc"] = np.arange(12.0).reshape(3, 4), np.eye(5), 3
        file["be"], file["c"] = np.arange(5, dtype=">i4"), np.arange(3) * 1j
        file["st"], file["S"] = np.zeros(3, [("a", "i4"), ("b", "f8")]), np.array([b"a", b"bcd"])
        file["bool"], file["f16"] = np.array([True, False]), np.arange(3, dtype="f2")
        file["ld"], file["_nc4_non_coord_odd"] = np.arange(3, dtype="g"), np.arange(4)
        file.create_dataset("empty", (0, 3), "f4")
    blosc2.asarray(GRID, urlpath=str(root / "d.b2nd"), mode="w", chunks=(100, 100), blocks=(20, 20))
    (root / "README.md").write_text("no array")
    return root


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Network]:
    network = Network(tmp_path_factory.mktemp("network"))
    try:
        network.start_broker()
        network.start_publisher("foo", root)
        network.start_subscriber()
        yield network
    finally:
        network.close()


@pytest.fixture(scope="module")
def base(network: Network) -> str:
    subscriber = network.services[-1]
    client = cat2.connect(subscriber.url)
    wait_for(lambda: "d.b2nd" in client["foo"].walk())
    return f"{subscriber.url}/zarr/foo"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr-python warns of data types of its own, and of its HTTP store
        yield


def status_of(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_xarray_reads_a_netcdf_file_as_it_does_locally(base: str, root: Path) -> None:
    with xr.open_zarr(f"{base}/a.nc") as remote, xr.open_dataset(root / "a.nc", engine="h5netcdf") as local:
        assert remote.t2m.encoding["chunks"] == (10, 40, 50) or remote.t2m.chunks is not None
        xr.testing.assert_identical(remote.load(), local.load())
        assert np.isnan(remote.m[3])


def test_a_root_opens_as_a_tree(base: str) -> None:
    with xr.open_datatree(f"{base}/b.h5", engine="zarr") as tree:
        np.testing.assert_array_equal(tree["g/x"], np.arange(12.0).reshape(3, 4))


def test_zarr_python_reads_every_array(base: str, root: Path) -> None:
    group = zarr.open_group(base, mode="r")
    members = {name for name, _ in group.members(max_depth=None)}
    assert {"a.nc", "a.nc/t2m", "b.h5/g/x", "d"} <= members
    assert not members & {"README.md", "b.h5/ld"}, "no arrays, or none that Zarr has a type for"
    assert group["d"].chunks == (100, 100)
    np.testing.assert_array_equal(group["d"][:], GRID)
    np.testing.assert_array_equal(zarr.open_array(f"{base}/d", mode="r")[5:9], GRID[5:9])
    with h5py.File(root / "b.h5") as file:
        for name in NAMES:
            node = group[f"b.h5/{name.replace('_nc4_non_coord_', '')}"]
            np.testing.assert_array_equal(node[...], file[name][...])
            assert node.dtype == file[name].dtype.newbyteorder("=")


def test_zarrita_reads_arrays_and_groups(base: str) -> None:
    array = zarrita.Array.open(zarrita.RemoteStore(f"{base}/d"))
    np.testing.assert_array_equal(array[:], GRID)
    group = zarrita.Group.open(zarrita.RemoteStore(f"{base}/b.h5/g"))
    np.testing.assert_array_equal(group["sq"][:], np.eye(5))


def test_a_chunk_has_a_range_and_an_etag(base: str) -> None:
    url = f"{base}/d/c/0/0"
    with urllib.request.urlopen(url) as answer:
        body, etag = answer.read(), answer.headers["ETag"]
    assert status_of(url, Range="bytes=2-5") == (206, body[2:6])
    assert status_of(url, Range=f"bytes={len(body)}-")[0] == 416
    assert status_of(url, **{"If-None-Match": etag})[0] == 304


@pytest.mark.parametrize("path", ["d/c/0/99", "d/c/0", "d/c/0/0/0", "gone/c/0/0", "d/c/0/99999999999999999"])
def test_a_chunk_that_is_not_there_is_never_taken_for_fill_values(base: str, path: str) -> None:
    status, _ = status_of(f"{base}/{path}")
    assert status not in (200, 404)
    assert 400 <= status < 500


@pytest.mark.parametrize(
    "path", ["nothing/zarr.json", ".zgroup", "d/.zarray", "d/c/0/x", "d", "d/c/-1/0", "../foo/d/zarr.json"]
)
def test_what_is_no_key_is_not_found(base: str, path: str) -> None:
    status, body = status_of(f"{base}/{path}")
    assert status in (400, 404)
    assert json.loads(body)


def test_a_changed_array_is_not_mixed_with_what_it_was(network: Network, base: str, root: Path) -> None:
    path = root / "shrinks.b2nd"
    blosc2.asarray(np.arange(100), urlpath=str(path), mode="w", chunks=(10,), blocks=(10,))
    wait_for(lambda: status_of(f"{base}/shrinks/zarr.json")[0] == 200)
    array = zarr.open_array(f"{base}/shrinks", mode="r")
    assert array[95] == 95
    new = path.with_suffix(".part")
    blosc2.asarray(np.arange(20), urlpath=str(new), mode="w", chunks=(10,), blocks=(10,))
    new.replace(path)
    wait_for(lambda: json.loads(status_of(f"{base}/shrinks/zarr.json")[1])["shape"] == [20])
    with pytest.raises(aiohttp.ClientResponseError):
        array[95]


def test_with_the_publisher_away_missing_chunks_fail_and_others_are_read(tmp_path: Path, root: Path) -> None:
    network = Network(tmp_path)
    try:
        network.start_broker()
        publisher: Service = network.start_publisher("foo", root)
        subscriber = network.start_subscriber()
        client = cat2.connect(subscriber.url)
        wait_for(lambda: "d.b2nd" in client["foo"].walk())
        array = zarr.open_array(f"{subscriber.url}/zarr/foo/d", mode="r")
        np.testing.assert_array_equal(array[:100, :100], GRID[:100, :100])
        publisher.kill()
        np.testing.assert_array_equal(array[:100, :100], GRID[:100, :100])
        with pytest.raises(aiohttp.ClientResponseError):
            array[200:, 300:]
    finally:
        network.close()
