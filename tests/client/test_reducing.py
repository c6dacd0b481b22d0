"""Reductions through a service: what NumPy gives, whatever is asked for."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.conftest import ARRAYS, SHAPE
from tests.client.hostile_server import HostileServer, response
from tests.client.memory_service import MemoryService

OPERATIONS = ["sum", "prod", "mean", "min", "max", "std", "var", "any", "all"]


def assert_equal(got, want):
    assert type(got) is type(want)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (-1, 1), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_a_reduction_equals_numpys(client, operation, axis, keepdims):
    array, want = client["foo/cube"], ARRAYS["cube.b2nd"]
    got = getattr(array, operation)(axis=axis, keepdims=keepdims)
    assert_equal(got, getattr(want, operation)(axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("path", ["flat", "line", "scalar", "complex"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_layouts_and_dtypes_equal_numpys(client, path, operation):
    want = ARRAYS[f"{path}.b2nd"]
    assert_equal(getattr(client["foo"][path], operation)(), getattr(want, operation)())


def test_functions_of_numpy_reduce_where_the_data_is(client, memory_service):
    array, want = client["foo/cube"], ARRAYS["cube.b2nd"]
    before = len(memory_service.requests)
    assert np.mean(array) == want.mean()
    assert np.sum(array, axis=1).tolist() == want.sum(axis=1).tolist()
    assert np.max(array) == want.max()
    assert np.prod(array, axis=2).tolist() == want.prod(axis=2).tolist()
    assert np.min(array, axis=(0, 1)).tolist() == want.min(axis=(0, 1)).tolist()
    assert np.std(array, ddof=1) == pytest.approx(want.std(ddof=1))
    assert np.var(array, axis=0, keepdims=True).shape == (1, *SHAPE[1:])
    assert np.any(array)
    assert not np.all(array)
    assert {request for request in memory_service.requests[before:] if "read" in request} == set()


@pytest.mark.parametrize(
    "key",
    [np.s_[2:5], np.s_[3], np.s_[..., 2], np.s_[::-2, 4], np.s_[1:6:2, ::-1, 1:3], np.s_[-1, -1, -1], np.s_[()]],
)
@pytest.mark.parametrize("operation", ["mean", "min", "std"])
def test_a_reduction_of_a_selection_equals_that_of_what_is_read(client, key, operation):
    array, want = client["foo/cube"], ARRAYS["cube.b2nd"][key]
    for axis in [None, *range(np.ndim(want))]:
        got = getattr(array, operation)(axis=axis, selection=key)
        assert_equal(got, getattr(want, operation)(axis=axis))
        kept = getattr(array, operation)(axis=axis, selection=key, keepdims=True)
        assert_equal(kept, getattr(want, operation)(axis=axis, keepdims=True))


def test_times_have_a_least_and_a_greatest(client):
    array, want = client["foo/dates"], ARRAYS["dates.b2nd"]
    assert (array.min(), array.max()) == (want.min(), want.max())
    with pytest.raises(TypeError, match="datetime64"):
        array.sum()


def test_dtype_is_that_of_the_result(client):
    array, want = client["foo/cube"], ARRAYS["cube.b2nd"]
    assert_equal(array.sum(0, dtype="f4"), want.sum(0, dtype="f4"))
    assert_equal(array.sum(dtype=np.uint8), want.sum(dtype=np.uint8))
    assert_equal(array.mean(1, np.float32), want.mean(1, np.float32))


@pytest.mark.parametrize("axis", [3, -4, (0, 0), "x", (0, 3)])
def test_axes_that_numpy_refuses_are_refused_alike(client, axis):
    with pytest.raises((ValueError, TypeError, IndexError)) as ours:
        client["foo/cube"].mean(axis)
    with pytest.raises(type(ours.value)) as numpys:
        ARRAYS["cube.b2nd"].mean(axis)
    assert str(ours.value) == str(numpys.value)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_empty_arrays_answer_as_numpys(client, operation, axis):
    def outcome(array):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                value = getattr(array, operation)(axis=axis)
            except ValueError as error:
                return str(error)
        return np.shape(value), value.dtype, np.asarray(value).tobytes(), sorted(str(w.message) for w in caught)

    assert outcome(client["foo/none"]) == outcome(ARRAYS["none.b2nd"])


def test_too_few_values_are_warned_of(client):
    with pytest.warns(RuntimeWarning, match="Degrees of freedom"):
        assert np.isnan(client["foo/scalar"].std(ddof=1))


def test_what_cannot_be_reduced_is_refused_in_one_line(client):
    array = client["foo/structured"]
    for refused in (array.sum, array[["x", "v"]].sum, client["foo/strings"].max, lambda: client["foo/cube"].sum(out=1)):
        with pytest.raises(TypeError) as refusal:
            refused()
        assert "\n" not in str(refusal.value)
    with pytest.raises(cat2.SelectionError, match="None"):
        client["foo/cube"].sum(selection=(None, 0))


def test_fields_are_reduced_where_the_data_is():
    array = np.zeros((9, 8), [("id", ">i4"), ("at", [("x", "<f4"), ("y", "<f8")]), ("three", "<i2", (3,))])
    array["id"], array["at"]["y"] = np.arange(72).reshape(9, 8), np.random.default_rng(0).normal(size=(9, 8))
    array["at"]["y"][2, 3] = -9.0
    root = MemoryRoot({})
    fill = np.zeros((), array.dtype)
    fill["at"]["y"] = -9.0
    root.set("items.b2nd", array, attrs={"_FillValue": fill[()]}, chunks=(4, 4), blocks=(2, 3))
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        items = client["foo/items"]
        assert items["id"].sum(axis=0).tolist() == array["id"].sum(axis=0).tolist()
        assert items["id"].max() == 71
        assert items["at"]["y"].mean(1, selection=np.s_[::-2, 1:5]) == pytest.approx(
            array["at"]["y"][::-2, 1:5].mean(1)
        )
        assert items["at"]["y"].min() == -9.0
        assert items["at"]["y"].min(skip=-9.0) == array["at"]["y"][array["at"]["y"] != -9.0].min()
        assert items["id"].sum(selection=np.s_[:0]) == 0
        overview = items["at"]["y"].overview(4)
        assert np.asarray(overview).tolist() == array["at"]["y"][::3, ::2].tolist()
        assert items["at"]["y"].overview(3, "mean").values.shape == (3, 3)
        for refused in (items.sum, items["at"].sum, items["three"].sum, items["three"].overview):
            with pytest.raises(TypeError) as refusal:
                refused()
            assert "\n" not in str(refusal.value)
        if isinstance(items.attrs["_FillValue"], np.void):
            assert items["at"]["y"].min(skip="fill") > -9.0


def filled_root():
    ints = np.arange(60, dtype="i2").reshape(6, 10)
    ints[::2, ::3] = -999
    ints[5] = -999
    floats = ints.astype("f4") / 7
    floats[ints == -999] = 1e20
    floats[3, 3] = np.nan
    root = MemoryRoot({})
    root.set("ints.b2nd", ints, attrs={"_FillValue": np.int16(-999)}, chunks=(4, 4), blocks=(2, 3))
    root.set("floats.b2nd", floats, attrs={"missing_value": np.float32(1e20)}, chunks=(4, 4), blocks=(2, 3))
    root.set("long.b2nd", np.arange(100_000, dtype="f4"), chunks=(10_000,), blocks=(1_000,))
    return root, ints, floats


@pytest.fixture(scope="module")
def filled():
    root, ints, floats = filled_root()
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as connected:
        yield connected, ints, floats


def test_fills_and_nan_are_skipped(filled):
    client, ints, floats = filled
    masked = np.ma.masked_equal(ints, -999)
    array = client["foo/ints"]
    assert array.sum(0, skip="fill").tolist() == masked.sum(0).tolist()
    assert array.max(skip=-999) == masked.max()
    assert array.count(1, keepdims=True, skip=-999).tolist() == [[n] for n in masked.count(axis=1)]
    assert array.count(0, keepdims=True, selection=np.s_[:0]).tolist() == [[0] * 10]
    assert array.min(1, skip="fill").tolist() == masked.min(1).filled(-999).tolist()
    np.testing.assert_allclose(array.std(0, skip="fill"), masked.std(0))
    means = array.mean(1, skip="fill")
    assert np.isnan(means[5])
    np.testing.assert_allclose(means[:5], masked.mean(1)[:5])
    array = client["foo/floats"]
    valid = np.where((floats == np.float32(1e20)), np.nan, floats).astype("f8")
    np.testing.assert_allclose(array.mean(0, skip=["fill", "nan"]), np.nanmean(valid[:5], axis=0), rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns with one value
        want = np.nanvar(valid, axis=0, ddof=1)
    spread = array.var(0, skip=("fill", np.nan), ddof=1)
    np.testing.assert_allclose(spread, want, rtol=1e-5)
    assert np.isnan(array.mean(skip="fill"))
    assert array.max(1, skip=["fill", "nan"]).tolist()[:5] == np.nanmax(valid[:5], axis=1).astype("f4").tolist()
    with pytest.raises(TypeError, match="skip"):
        array.mean(skip=["old"])


def test_an_overview_is_strided_with_fills_masked(filled):
    client, ints, _ = filled
    overview = client["foo/ints"].overview(4)
    rows, columns = overview.steps
    assert overview.values.shape == (3, 4)
    assert overview.values.tolist() == np.ma.masked_equal(ints, -999)[::rows, ::columns].tolist()
    part = client["foo/ints"].overview(4, selection=np.s_[1:5, 2])
    assert part.values.tolist() == np.ma.masked_equal(ints, -999)[1:5, 2].tolist()
    assert part.steps == (1,)


def test_an_overview_has_means_of_blocks(filled):
    client, ints, _ = filled
    overview = client["foo/ints"].overview(4, "mean")
    rows, columns = overview.steps
    masked = np.ma.masked_equal(ints, -999)
    for (i, j), got in np.ndenumerate(overview.values.filled(np.nan)):
        part = masked[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        np.testing.assert_allclose(got, part.mean() if part.count() else np.nan)


def test_a_long_line_has_an_envelope(filled):
    client, _, _ = filled
    overview = client["foo/long"].overview(100, "minmax")
    assert overview.values.shape == (100, 2)
    assert overview.steps == (1000,)
    assert overview.values[3].tolist() == [3000.0, 3999.0]


def test_a_version_that_is_gone_is_not_reduced():
    root = MemoryRoot({"a.b2nd": np.arange(10)})
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as connected:
        array = connected["foo/a"]
        root.set("a.b2nd", np.arange(11))
        service.rescan()
        with pytest.raises(cat2.DatasetChangedError, match="refresh"):
            array.sum()
        assert array.refresh().sum() == 55


def test_a_reduction_that_nobody_answers_is_not_asked_for_again_and_again(memory_service):
    entry = cat2.connect(memory_service.url)["foo/cube"].entry

    def answer(connection, line, number):
        if "reduce" not in line:
            form = {"root": "foo", **entry.to_json()} if "meta" in line else []
            connection.sendall(response(json.dumps(form).encode()))

    with HostileServer(answer) as server, cat2.connect(server.url) as connected:
        array = connected["foo/cube"]
        with pytest.raises(cat2.SourceUnavailableError):
            array.sum()
        retries = array._session.service.transport.timeouts.retries
        assert sum("reduce" in line for line in server.lines) == retries + 1


def test_integers_beyond_the_floats_are_exact():
    values = np.array([2**62 + 1, 2**53 + 1, -5, 3], "i8")
    with MemoryService({"foo": MemoryRoot({"a.b2nd": values})}) as service, cat2.connect(service.url) as connected:
        array = connected["foo/a"]
        assert (array.sum(), array.max(), array.min()) == (values.sum(), values.max(), values.min())
        halves = MemoryRoot({"h.b2nd": np.full(100_000, 0.1, "f2")})
    with MemoryService({"foo": halves}) as service, cat2.connect(service.url) as connected:
        assert connected["foo/h"].mean() == np.float16(0.1)
        assert connected["foo/h"].sum(dtype="f8") == pytest.approx(100_000 * float(np.float16(0.1)))
