"""What is served besides Blosc2, and how else it is read: HDF5 roots, xarray, the Zarr view, the older REST."""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.parse import quote

import blosc2
import numpy as np

from ..client.group import Group
from ..client.remote_array import RemoteArray
from .case import Case, needs


class CheckOldRest(Case):
    """``/api/...`` as older clients know it."""

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.client.url_base}/api/{quote(path, safe='/?=&')}", timeout=30) as answer:
            body: bytes = answer.read()
            return body

    def test_roots_and_lists(self) -> None:
        self.client.follow(self.deployment.root)
        roots = json.loads(self.get("roots"))
        self.assertTrue(roots[self.deployment.root]["subscribed"])
        self.assertEqual(roots["@public"], {"name": "@public", "http": "", "subscribed": True})
        listed = json.loads(self.get(f"list/{self.deployment.root}"))
        self.assertEqual(listed, sorted(listed))

    def test_a_frame_holds_the_values(self) -> None:
        root = self.client[self.deployment.root]
        assert isinstance(root, Group)
        path = next((p for p in root.walk() if p.endswith(".b2nd") and isinstance(root[p], RemoteArray)), None)
        if path is None:
            self.skipTest("the root has no array")
        array = root[path]
        assert isinstance(array, RemoteArray)
        frame: Any = blosc2.ndarray_from_cframe(self.get(f"fetch/{self.deployment.root}/{path}"))
        np.testing.assert_array_equal(frame[...], array[...])


@needs("h5py", "hdf5")
class CheckHdf5(Case):
    """A root that is an HDF5 file."""

    needs_own_services = True

    def test_every_dataset_equals_what_h5py_reads(self) -> None:
        import h5py

        path = self.own.directory / "example.h5"
        with h5py.File(path, "w") as file:
            grid = np.arange(200.0).reshape(10, 20)
            file.create_dataset("gzip", data=grid, chunks=(5, 5), compression="gzip", shuffle=True)
            file.create_dataset("group/plain", data=grid.astype(">f4"))
            file.create_dataset("strings", data=["one", "two"], dtype=h5py.string_dtype())
        self.own.start(
            "publisher-hdf5", "publisher.app", *self.own.at_broker, "--statedir=pub.hdf5", "hdf5", "example.h5"
        )
        self.wait_for(lambda: "hdf5" in self.client.roots and self.client.roots["hdf5"].online)
        with h5py.File(path) as file:
            for name in ("gzip", "group/plain"):
                array = self.client[f"hdf5/{name}"]
                assert isinstance(array, RemoteArray)
                np.testing.assert_array_equal(array[...], file[name][...])
                self.assertEqual(array.dtype, file[name].dtype)
        strings = self.client["hdf5/strings"]
        assert isinstance(strings, RemoteArray)
        self.assertEqual(strings[...].tolist(), ["one", "two"])

    @needs("xarray", "xarray")
    def test_xarray_opens_a_netcdf_file_in_a_root(self) -> None:
        import h5py
        import xarray as xr

        with h5py.File(self.own.directory / "root-example" / "scales.nc", "w") as file:
            file["x"] = np.array([1.0, 2.0, 4.0])
            file["x"].make_scale("x")
            file["t"] = np.arange(6, dtype="i2").reshape(2, 3)
            file["t"].dims[1].attach_scale(file["x"])
            file["t"].attrs["scale_factor"] = 0.5
        self.wait_for(lambda: "foo/scales.nc/t" in self.client)
        url = self.own.subscriber.url().replace("http://", "cat2http://")
        opened = xr.open_dataset(f"{url}/-/foo/scales.nc", engine="caterva2")
        np.testing.assert_array_equal(opened["t"].sel(x=2.0).values, [0.5, 2.0])


@needs("xarray", "xarray")
class CheckXarray(Case):
    """``engine="caterva2"``, and writing a root."""

    needs_own_services = True

    def test_a_dataset_comes_back_as_it_was_written(self) -> None:
        import xarray as xr

        from ..xarray_backend.writing import to_caterva2

        written = xr.Dataset({"t": (("y", "x"), np.arange(6.0).reshape(2, 3), {"units": "K"})}, {"x": [1, 2, 3]})
        to_caterva2(written, self.own.directory / "root-example" / "written")
        url = self.own.subscriber.url().replace("http://", "cat2http://")
        self.wait_for(lambda: "foo/written/t" in self.client)
        opened = xr.open_dataset(f"{url}/-/foo/written", engine="caterva2")
        xr.testing.assert_identical(opened.load(), written)


@needs("zarr", "tests")
class CheckZarrView(Case):
    """The Zarr view, by zarr-python."""

    needs_own_services = True

    def test_an_array_reads_equal(self) -> None:
        import warnings

        import zarr

        self.client.follow("foo")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = zarr.open_array(f"{self.client.url_base}/zarr/foo/dir2/ds-4d", mode="r")
            np.testing.assert_array_equal(array[1, 2, 3], np.arange(115, 120) * (1 + 1j))
