"""``ds.cat2``: as xarray's own reductions of the decoded values, without reading them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

xr = pytest.importorskip("xarray")

import caterva2_jupyter as cat2  # noqa: E402
from caterva2_jupyter.storage.memory_root import MemoryRoot  # noqa: E402
from tests.client.memory_service import MemoryService  # noqa: E402

RNG = np.random.default_rng(5)
DIMS = ("time", "y", "x")


def packed() -> np.ndarray:
    values = RNG.integers(-1000, 1000, (8, 10, 12)).astype("i2")
    values[RNG.random(values.shape) < 0.2] = -9999
    values[:, 3, 4] = -9999
    return values


def holes() -> np.ndarray:
    values = RNG.normal(size=(8, 10, 12)).astype("f4")
    values[RNG.random(values.shape) < 0.1] = np.nan
    values[:, 1, 1] = np.nan
    return values


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[MemoryService, Any]]:
    root = MemoryRoot({})
    how: dict[str, Any] = {"dims": DIMS, "chunks": (4, 5, 6), "blocks": (2, 5, 3)}
    packing = {"_FillValue": np.int16(-9999), "scale_factor": 0.5, "add_offset": 273.15}
    root.set("g/packed.b2nd", packed(), attrs={**packing, "units": "K"}, **how)
    turned = {"_FillValue": np.int16(-9999), "scale_factor": -2.0, "add_offset": 1.0}
    root.set("g/turned.b2nd", packed(), attrs=turned, **how)
    root.set("g/holes.b2nd", holes(), **how)
    root.set("g/ints.b2nd", RNG.integers(-50, 50, (8, 10, 12)), **how)
    root.set("g/big.b2nd", RNG.normal(size=(8, 10, 12)).astype(">f8"), **how)
    root.set("g/line.b2nd", np.arange(10.0), dims=("y",))
    root.set("g/time.b2nd", np.arange(8), dims=("time",), attrs={"units": "days since 2000-01-01"})
    root.set(
        "g/when.b2nd", np.arange(8 * 10).reshape(8, 10), dims=("time", "y"), attrs={"units": "hours since 2000-01-01"}
    )
    root.set(
        "g/unsigned.b2nd",
        RNG.integers(-128, 127, (8, 10)).astype("i1"),
        dims=("time", "y"),
        attrs={"_Unsigned": "true"},
    )
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        yield service, client


def opened(served: Any) -> Any:
    return xr.open_dataset(served[1]["foo/g"], engine="caterva2")


NAMES = ["packed", "turned", "holes", "ints", "big", "line"]


@pytest.fixture(scope="module")
def loaded(served: Any) -> Any:
    return opened(served).load()


@pytest.mark.parametrize("op", ["mean", "sum", "min", "max", "std", "var", "count"])
@pytest.mark.parametrize(("dim", "skipna"), [("time", None), (("y", "x"), True), (None, False), ("time", False)])
def test_a_reduction_equals_xarrays(served: Any, loaded: Any, op: str, dim: Any, skipna: bool | None) -> None:
    how = {} if op == "count" else {"skipna": skipna}
    names = [n for n in NAMES if n != "line"]
    want = getattr(loaded[names], op)(dim=dim, **how)
    before = len(served[0].requests)
    got = getattr(opened(served)[names].cat2, op)(dim=dim, **how)
    asked = [request for request in served[0].requests[before:] if request.startswith("POST")]
    assert any("reduce" in request for request in asked)
    xr.testing.assert_allclose(got, want, rtol=1e-5)
    for name in names:
        assert got[name].dtype == want[name].dtype, name
        assert got[name].attrs == want[name].attrs


def test_variables_without_the_dimension_stay(served: Any) -> None:
    ds = opened(served)[["line", "holes"]]
    got = ds.cat2.mean("time")
    np.testing.assert_array_equal(got["line"], np.arange(10.0))
    assert got["holes"].dims == ("y", "x")
    assert "time" not in got.coords


def test_a_selection_is_reduced_without_reading_it(served: Any, loaded: Any) -> None:
    ds = opened(served)
    for key in ({"time": slice(2, 7)}, {"x": 3}, {"y": [1, 4, 8], "time": slice(None, None, -2)}):
        want = loaded["packed"].isel(**key).max("time")
        xr.testing.assert_allclose(ds["packed"].isel(**key).cat2.max("time"), want)
    picked = ds["holes"].sel(time="2000-01-03").cat2.mean(("y", "x"))
    xr.testing.assert_allclose(picked, loaded["holes"].sel(time="2000-01-03").mean(("y", "x")), rtol=1e-5)


def test_what_is_in_memory_is_reduced_by_xarray(served: Any) -> None:
    ds = opened(served).load()
    xr.testing.assert_identical(ds["packed"].cat2.mean("time"), ds["packed"].mean("time"))


@pytest.mark.parametrize("name", ["unsigned", "when"])
def test_what_is_not_linear_is_refused_with_the_cure(served: Any, name: str) -> None:
    with pytest.raises(cat2.UnsupportedDatasetError, match=r"without \.cat2"):
        opened(served)[name].cat2.max("time")


def test_an_unknown_dimension_is_refused_as_by_xarray(served: Any) -> None:
    with pytest.raises(ValueError, match="'lat'"):
        opened(served).cat2.mean("lat")


def test_what_was_chunked_is_refused(served: Any) -> None:
    pytest.importorskip("dask")
    with pytest.raises(cat2.UnsupportedDatasetError, match="chunked"):
        opened(served)["holes"].chunk({"time": 2}).cat2.mean("time")
