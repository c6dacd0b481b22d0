"""Reductions by tiles equal NumPy's of the whole, for any dtype, shape, partition, selection and axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.compute.overview import MAX_VALUES, missing_values, plan_overview
from caterva2_jupyter.compute.reduction import MAX_RESULT_NBYTES, Partial, Reduction, fills_of
from caterva2_jupyter.core.attributes import encode_attrs
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.core.reduce_request import ReduceRequest
from caterva2_jupyter.core.selection import AxisItems
from caterva2_jupyter.errors import RequestError, TooLargeError, UnsupportedDatasetError

DTYPES = ["f2", "<f4", ">f8", "g", "i1", ">i2", "i8", "u1", "u8", "?", "c8", ">c16", "m8[s]", ">M8[D]"]
OPERATIONS = ["sum", "prod", "mean", "min", "max", "std", "var", "any", "all"]
ODD = [np.nan, np.inf, -np.inf, -0.0, 0.0]


def request(op: str, **how: Any) -> ReduceRequest:
    return ReduceRequest("foo", "x.b2nd", op, **how)  # type: ignore[arg-type]


def reduce_tiles(array: np.ndarray, reduction: Reduction, tile_nbytes: int, merged: bool = False) -> np.ndarray:
    partials: list[Partial] = []
    for projection in reduction.plan:
        for tile in reduction.tiles(projection, tile_nbytes):
            index = [
                a.items if isinstance(a, AxisItems) else np.arange(a.start, a.stop, a.step) for a in tile.selection.axes
            ]
            values = array[np.ix_(*index)] if index else array
            partials.append(reduction.partial(values.reshape(tile.selection.shape), tile.start))
    return reduction.finish(reduction.merge(partials) if merged else partials)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.lists(st.integers(1, 7), max_size=3).map(tuple))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype.kind in "mM":
        values = rng.integers(-(10**6), 10**6, shape).astype("i8").view(dtype.newbyteorder("=")).astype(dtype)
        if draw(st.booleans()):
            values = np.array(values)
            values.reshape(-1)[rng.integers(values.size)] = "NaT"
        return np.asarray(values)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.asarray(rng.integers(limits.min, limits.max, shape, dtype.newbyteorder("="), True)).astype(dtype)
    values = np.asarray(rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype.kind == "c" else 0))
    if dtype.kind in "f" and draw(st.booleans()):
        values.reshape(-1)[rng.integers(values.size)] = draw(st.sampled_from(ODD))
    return values.astype(dtype) if dtype.kind != "b" else values > 0


@st.composite
def geometries(draw: st.DrawFn, array: np.ndarray) -> Geometry:
    chunks = tuple(draw(st.integers(1, n)) for n in array.shape)
    if draw(st.booleans()) and array.ndim:
        return Geometry(array.shape, chunks, (draw(st.integers(1, 9)),), array.dtype, layout="flat", padded=False)
    return Geometry(array.shape, chunks, tuple(draw(st.integers(1, c)) for c in chunks), array.dtype)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_tiles_together_give_what_numpy_gives(data: st.DataObject) -> None:
    array = data.draw(arrays())
    geometry = data.draw(geometries(array))
    op = data.draw(st.sampled_from(OPERATIONS))
    axis = data.draw(st.none() | st.sets(st.integers(0, max(array.ndim - 1, 0))).map(lambda s: tuple(sorted(s))))
    axis = axis if axis is None or array.ndim else ()
    keepdims = data.draw(st.booleans())
    how = {"ddof": data.draw(st.integers(0, 2))} if op in ("std", "var") else {}
    try:
        want = np.asarray(getattr(array, op)(axis=axis, keepdims=keepdims, **how))
        if op == "prod" and array.dtype.kind in "fc":  # which rounds after each factor
            wide = array.astype(np.result_type(array.dtype, np.float64))
            want = np.asarray(wide.prod(axis=axis, keepdims=keepdims)).astype(want.dtype)
    except TypeError:
        with pytest.raises(UnsupportedDatasetError):
            Reduction(geometry, request(op, axis=axis))
        return
    reduction = Reduction(geometry, request(op, axis=axis, keepdims=keepdims, **how))
    got = reduce_tiles(array, reduction, data.draw(st.integers(1, 300)), data.draw(st.booleans()))
    assert (got.dtype, got.shape) == (want.dtype, want.shape) == (reduction.dtype, reduction.shape)
    if got.dtype.kind not in "fc":
        assert got.tolist() == want.tolist() or (got.dtype.kind in "mM" and got.tobytes() == want.tobytes())
        return
    tolerance = {2: 5e-3, 4: 1e-4}.get(got.real.dtype.itemsize, 1e-9)
    spread = np.abs(array.astype("c16")[np.isfinite(array)]).max(initial=0) if array.dtype.kind in "fciu" else 1.0
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * float(spread) * max(1, array.size))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bins_are_reduced_one_by_one(data: st.DataObject) -> None:
    array = data.draw(arrays().filter(lambda a: a.dtype.kind in "iu?" and a.ndim > 0))
    steps = tuple(data.draw(st.integers(1, n + 1)) for n in array.shape)
    op = data.draw(st.sampled_from(["sum", "min", "max", "any"]))
    reduction = Reduction(data.draw(geometries(array)), request(op, steps=steps))
    got = reduce_tiles(array, reduction, data.draw(st.integers(1, 200)))
    for index in np.ndindex(got.shape):
        part = array[tuple(slice(i * s, i * s + s) for i, s in zip(index, steps, strict=True))]
        assert got[index] == getattr(part, op)()


def test_the_sign_of_zero_is_numpys() -> None:
    values = np.full(3, -0.0)
    for op in ("sum", "mean", "min", "max"):
        got = reduce_tiles(values, Reduction(Geometry((3,), (2,), (2,), np.dtype("f8")), request(op)), 8)
        assert math.copysign(1, got.item()) == math.copysign(1, getattr(values, op)())


def test_variances_far_from_zero_are_right() -> None:
    values = 1e9 + np.arange(1000) % 2
    geometry = Geometry((1000,), (100,), (10,), np.dtype("f8"))
    assert reduce_tiles(values, Reduction(geometry, request("var")), 80).item() == pytest.approx(0.25, rel=1e-9)


@pytest.mark.parametrize("skip", [(7,), (math.nan,), (7, math.nan), (1e400,), (7.5,), (2**63,)])
def test_skipped_values_do_not_count(skip: tuple[Any, ...]) -> None:
    array = np.array([[1, 7, np.nan], [7, 7, 7], [4, 5, 9]], "f4")
    geometry = Geometry(array.shape, (2, 2), (1, 2), array.dtype)
    mask = np.isin(array, np.array(skip, "f4")) | (np.isnan(array) if any(s != s for s in skip) else False)
    masked = np.ma.masked_array(array.astype("f8"), mask)
    for op, nothing in {"sum": 0, "prod": 1, "mean": np.nan, "max": np.nan}.items():
        got = reduce_tiles(array, Reduction(geometry, request(op, axis=(1,), skip=skip)), 1)
        want = np.ma.getdata(getattr(masked, op)(axis=1).filled(nothing))
        np.testing.assert_allclose(got, want)
    counts = reduce_tiles(array, Reduction(geometry, request("count", axis=(1,), skip=skip)), 1)
    assert counts.tolist() == masked.count(axis=1).tolist()


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"axis": (2,)}, RequestError),
        ({"steps": (1,)}, RequestError),
        ({"dtype": "O"}, RequestError),
        ({"dtype": "S3"}, RequestError),
        ({"axis": (), "selection": None}, TooLargeError),
    ],
)
def test_what_does_not_fit_is_refused(how: dict[str, Any], error: type[Exception]) -> None:
    geometry = Geometry((1 << 14, 1 << 13), (1 << 10, 1 << 10), (64, 64), np.dtype("i4"))
    assert geometry.size * 8 > MAX_RESULT_NBYTES
    with pytest.raises(error) as refusal:
        Reduction(geometry, request("sum", **how))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("op", ["sum", "std", "minmax", "stride"])
@pytest.mark.parametrize("dtype", [[("a", ">i2"), ("n", [("x", "f4"), ("y", "u1")])], [("n", [("x", "<c8")])]])
def test_a_field_is_reduced_as_an_array_of_it_is(op: str, dtype: Any) -> None:
    array = np.zeros((6, 5), dtype)
    array["n"]["x"] = np.random.default_rng(0).normal(size=array.shape)
    how = {"steps": (2, 3)} if op in ("minmax", "stride") else {"axis": (1,)}
    plain = np.ascontiguousarray(array["n"]["x"])
    geometry = Geometry(array.shape, (4, 3), (2, 3), array.dtype)
    reduction = Reduction(geometry, request(op, field=("n", "x"), **how))
    want = Reduction(Geometry(array.shape, (4, 3), (2, 3), plain.dtype), request(op, **how))
    assert (reduction.shape, reduction.dtype) == (want.shape, want.dtype)
    assert reduction.digest != want.digest
    if op == "stride":
        assert np.array_equal(reduction.items(array[::2, ::3]), plain[::2, ::3])
    else:
        assert reduce_tiles(array, reduction, 30).tolist() == reduce_tiles(plain, want, 30).tolist()


@pytest.mark.parametrize("field", [("b",), ("a", "x"), ("n",), ("m",)])
def test_a_field_that_is_not_there_or_no_number_is_refused(field: tuple[str, ...]) -> None:
    dtype = np.dtype([("a", "i4"), ("n", [("x", "f4")]), ("m", "f4", (2,))])
    with pytest.raises((RequestError, UnsupportedDatasetError)) as refusal:
        Reduction(Geometry((4,), (4,), (4,), dtype), request("sum", field=field))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("dtype", [[("a", "i4")], "S4", "U2"])
def test_what_has_no_sum_is_refused(dtype: Any) -> None:
    with pytest.raises(UnsupportedDatasetError):
        Reduction(Geometry((4,), (4,), (4,), np.dtype(dtype)), request("sum"))


def test_an_overview_of_a_long_vector_reads_few_blocks() -> None:
    geometry = Geometry((10**9,), (10**7,), (10**5,), np.dtype("f4"))
    plan = plan_overview(geometry, request("stride"), 1000)
    reduction = Reduction(geometry, plan.request)
    assert reduction.shape == (1000,)
    assert reduction.plan.nblocks <= 1000
    coarser = plan_overview(geometry, request("stride"), 1 << 22)
    assert Reduction(geometry, coarser.request).plan.nblocks * geometry.block_nbytes <= 1 << 30
    with pytest.raises(TooLargeError, match="stride"):
        plan_overview(geometry, request("stride"), 1000, "mean")


@settings(deadline=None)
@given(shape=st.lists(st.integers(0, 10**6), max_size=4).map(tuple), pixels=st.integers(1, 10**5))
def test_an_overview_has_no_more_values_than_allowed(shape: tuple[int, ...], pixels: int) -> None:
    blocks = tuple(max(1, min(n, 64)) for n in shape)
    if math.prod(n or 1 for n in shape) > 2**60:
        return
    geometry = Geometry(shape, blocks, blocks, np.dtype("u1"))
    plan = plan_overview(geometry, request("stride"), pixels)
    got = Reduction(geometry, plan.request).shape
    assert all(n <= pixels for n in got)
    assert math.prod(got) <= MAX_VALUES


def test_fills_are_those_of_the_attributes() -> None:
    attrs, _ = encode_attrs(
        {"_FillValue": np.float32(1e20), "missing_value": np.array([-1.0, np.nan], "f4"), "units": "K"}
    )
    fills = fills_of(Entry("x", "group", attrs=attrs))
    assert fills[:2] == (float(np.float32(1e20)), -1.0)
    assert math.isnan(fills[2])
    values = np.array([1e20, 2, np.nan, -1], "f4")
    assert missing_values(values, fills).tolist() == [True, False, True, True]
    assert missing_values(np.array([5, -1], "i2"), fills).tolist() == [False, True]
