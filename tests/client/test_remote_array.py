"""Remote arrays against NumPy: the same results, the same exceptions, whatever the key."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import caterva2_jupyter as cat2
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.conftest import ARRAYS, SHAPE
from tests.client.memory_service import MemoryService

SHARED = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(array: Any, key: Any) -> Any:
    """What indexing gives: the value, or the exception's class and text."""
    try:
        return array[key]
    except Exception as error:
        return type(error), str(error)


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, tuple):
        assert ours == theirs
        return
    assert type(ours) is type(theirs)
    if isinstance(theirs, (np.ndarray, np.generic)):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
    assert np.array_equal(ours, theirs)


LENGTHS = st.integers(-14, 14)
BASIC = st.one_of(
    LENGTHS,
    LENGTHS.map(np.int64),
    st.builds(slice, st.none() | LENGTHS, st.none() | LENGTHS, st.none() | st.integers(-4, 4)),
    st.just(Ellipsis),
    st.none(),
)


@SHARED
@given(key=BASIC | st.lists(BASIC, max_size=5).map(tuple))
@pytest.mark.parametrize("path", ["cube.b2nd", "flat.b2nd"])
def test_basic_indexing_equals_numpy(client: cat2.Client, path: str, key: Any) -> None:
    assert_same(outcome(client["foo"][path], key), outcome(ARRAYS[path], key))


@pytest.mark.parametrize("path", sorted(ARRAYS))
@pytest.mark.parametrize(
    "key",
    [
        (), ..., None, 0, -1, (..., 0), (0, ...), (None, ..., None), slice(None), slice(0, 0), slice(None, None, -1),
        slice(5, 1, -2), (slice(1, None), 1), 2**70, -(2**70), slice(2**70), slice(-(2**70), 2**70, 2**69), 1.0,
        float("nan"), "a",
        object(), np.int8(1), (0,) * 33, (None,) * 70, slice(None, None, 0), slice(1.5), (..., ...), 10**6,
    ],
    ids=lambda key: repr(key).split(" at 0x")[0],
)  # fmt: skip
def test_odd_keys_equal_numpy(client: cat2.Client, path: str, key: Any) -> None:
    assert_same(outcome(client["foo"][path], key), outcome(ARRAYS[path], key))


@pytest.mark.parametrize("key", [[1, 2], (0, [1]), np.array([1, 2]), np.array([True] * 7), True, (slice(None), [0, 1])])
def test_lists_and_masks_raise_an_index_error_that_names_oindex(client: cat2.Client, key: Any) -> None:
    with pytest.raises(IndexError, match="oindex"):
        client["foo/cube"][key]


@SHARED
@given(data=st.data())
def test_oindex_equals_ix(client: cat2.Client, data: st.DataObject) -> None:
    array = ARRAYS["cube.b2nd"]
    key, positions, dropped = [], [], []
    for axis, n in enumerate(SHAPE):
        kind = data.draw(st.sampled_from(["list", "mask", "int", "slice"]))
        if kind == "list":
            item: Any = data.draw(st.lists(st.integers(-n, n - 1), max_size=9))
        elif kind == "mask":
            item = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool)
        elif kind == "int":
            item = data.draw(st.integers(-n, n - 1))
            dropped.append(axis)
        else:
            bounds = data.draw(st.tuples(st.none() | LENGTHS, st.none() | LENGTHS))
            item = slice(*bounds, data.draw(st.sampled_from([None, 1, 3, -2])))
        key.append(item)
        whole = np.arange(n)
        positions.append(whole[item].reshape(-1) if not isinstance(item, list) else whole[np.array(item, dtype=int)])
    expected = array[np.ix_(*positions)].reshape([len(p) for i, p in enumerate(positions) if i not in dropped])
    assert_same(np.asarray(client["foo/cube"].oindex[tuple(key)]), np.asarray(expected))


def test_properties_are_those_of_the_array(client: cat2.Client) -> None:
    for path, expected in ARRAYS.items():
        array = client["foo"][path]
        assert (array.shape, array.ndim, array.size) == (expected.shape, expected.ndim, expected.size)
        assert array.dtype == expected.dtype
        assert array.dtype.byteorder == expected.dtype.byteorder
        assert (array.root, array.path, array.name) == ("foo", path, path)
        if expected.dtype != object:
            assert array.nbytes == expected.nbytes
    cube = client["foo/cube"]
    assert (cube.chunks, cube.blocks) == ((3, 4, 5), (2, 3, 2))
    assert cube.attrs == {"units": "K", "n": np.float32(1.5)}
    assert cube.attrs["n"].dtype == np.float32
    assert len(cube.version) > 0
    assert client["foo/dir1/dir2/deep"].dims == ("y", "x")
    with pytest.raises(TypeError):
        cube[0, 0, 0] = 1
    with pytest.raises(TypeError):
        cube.attrs["units"] = "m"


CARD_REQUESTS = ["GET roots", "GET meta"]  # and the estimate, where there is a cache


def test_attributes_too_large_for_a_listing_are_asked_for(client: cat2.Client, memory_service: MemoryService) -> None:
    (array,) = [d for name, d in client["foo"].items() if name == "big-attrs.b2nd"]
    before = len(memory_service.requests)
    assert "attributes" not in array._repr_html_()
    assert memory_service.requests[before:] == CARD_REQUESTS
    assert np.array_equal(array.attrs["big"], np.arange(20_000))


def test_a_slice_is_one_request(client: cat2.Client, memory_service: MemoryService) -> None:
    array = client["foo/cube"]
    before = len(memory_service.requests)
    array[1:3, 2]
    array.shape, repr(array), array.attrs
    assert memory_service.requests[before:] == ["POST read"]
    array._repr_html_()
    assert memory_service.requests[before:] == ["POST read", *CARD_REQUESTS]


def test_an_empty_selection_is_no_request(client: cat2.Client, memory_service: MemoryService) -> None:
    array = client["foo/cube"]
    before = len(memory_service.requests)
    assert array[3:3].shape == (0, 11, 5)
    assert len(memory_service.requests) == before


def test_a_large_read_is_several_requests_at_once_and_equal() -> None:
    big = np.random.default_rng(1).integers(0, 255, (24, 512, 1024), dtype="u1")
    root = MemoryRoot()
    root.set("big.b2nd", big, chunks=(5, 300, 1024), blocks=(1, 64, 1024))
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        array = client["foo/big"]
        before = len(service.requests)
        assert np.array_equal(array[...], big)
        assert len(service.requests) - before > 2
        assert np.array_equal(array[::-1, 7::3], big[::-1, 7::3])


@pytest.mark.parametrize("fields", [("x",), ("v",), ("in",), ("in", "a"), (["x", "in"],), (["x"], "x")])
@pytest.mark.parametrize("key", [(), ..., 0, (1, 2), (slice(None, None, -2), 1), (0, 0, 0), (..., -1), (9,), (None, 2)])
def test_fields_equal_numpy(client: cat2.Client, fields: tuple[Any, ...], key: Any) -> None:
    ours, theirs = client["foo/structured"], ARRAYS["structured.b2nd"]
    for field in fields:
        ours, theirs = ours[field], theirs[field]
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert len(ours.chunks) == ours.ndim
    assert_same(outcome(ours, key), outcome(theirs, key))
    assert_same(outcome(pickle.loads(pickle.dumps(ours)), key), outcome(theirs, key))


def test_an_unknown_field_is_numpys_error(client: cat2.Client) -> None:
    for path, field in (("structured.b2nd", "nope"), ("structured.b2nd", ["x", "nope"]), ("cube.b2nd", "x")):
        ours, theirs = outcome(client["foo"][path], field), outcome(ARRAYS[path], field)
        assert ours[0] is theirs[0]
        assert ours[1] == theirs[1]


def test_numpy_functions_take_the_whole_array(client: cat2.Client) -> None:
    array, expected = client["foo/cube"], ARRAYS["cube.b2nd"]
    assert np.array_equal(np.asarray(array), expected)
    assert np.mean(array) == np.mean(expected)
    assert np.asarray(array, dtype="f4").dtype == np.float32
    assert np.array_equal(np.ones(5) + array, np.ones(5) + expected)
    assert np.array_equal(np.multiply(array, 2), expected * 2)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(array, copy=False)


def test_a_whole_array_over_the_limit_is_refused_with_the_way_out(memory_service: MemoryService) -> None:
    with cat2.connect(memory_service.url, max_nbytes=100) as client:
        array = client["foo/cube"]
        with pytest.raises(cat2.TooLargeError, match=r"1\.5 KiB.*download\(\).*max_nbytes") as raised:
            np.asarray(array)
        assert isinstance(raised.value, ValueError)
        assert array[...].shape == SHAPE
        with pytest.raises(cat2.TooLargeError):
            client["foo/README.md"].read()


@pytest.mark.parametrize("path", ["cube.b2nd", "line.b2nd", "scalar.b2nd", "none.b2nd", "strings.b2nd"])
def test_length_truth_and_iteration_are_numpys(client: cat2.Client, path: str) -> None:
    ours, theirs = client["foo"][path], ARRAYS[path]

    def tried(function: Any, array: Any) -> Any:
        try:
            return function(array)
        except Exception as error:
            return type(error), str(error)

    assert tried(len, ours) == tried(len, theirs)
    if path != "none.b2nd":  # NumPy changes its mind about the truth of nothing
        assert tried(bool, ours) == tried(bool, theirs)
    rows, expected = tried(list, ours), tried(list, theirs)
    if isinstance(expected, tuple):
        assert rows == expected
    else:
        assert all(np.array_equal(a, b) for a, b in zip(rows, expected, strict=True))


def test_arrays_pickle_small_and_without_secrets() -> None:
    root = MemoryRoot()
    root.set("a.b2nd", np.arange(10), attrs={f"attribute{i}": "x" * 100 for i in range(100)})
    with MemoryService({"foo": root}, token="a-secret-token") as service:
        client = cat2.connect(service.url, token="a-secret-token")
        array = client["foo/a"]
        pickled = pickle.dumps(array)
        assert len(pickled) < 1000
        assert b"secret" not in pickled
        assert "secret" not in repr(client) + repr(array) + array._repr_html_()
        again = pickle.loads(pickled)
        with pytest.raises(cat2.AuthenticationError):
            again[0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CATERVA2_TOKEN", "a-secret-token")
            again = pickle.loads(pickled)
            assert again[3] == 3
            assert again.version == array.version
            assert len(again.attrs) == 100
            assert pickle.loads(pickle.dumps(client))["foo/a"][4] == 4
            assert list(pickle.loads(pickle.dumps(client["foo"]))) == ["a.b2nd"]


def _sums(url: str, pickled: bytes) -> tuple[float, float]:
    return float(pickle.loads(pickled)[...].sum()), float(cat2.connect(url)["foo/line"][...].sum())


def test_arrays_work_in_spawned_processes(client: cat2.Client, memory_service: MemoryService) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        sums = pool.apply(_sums, (memory_service.url, pickle.dumps(client["foo/line"])))
    assert sums == (499500.0, 499500.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_shares_no_socket_with_its_parent(client: cat2.Client) -> None:
    array = client["foo/line"]
    big = client["foo/cube"]
    assert array[0] == 0
    reader = array._session.reader
    reader._workers().submit(int).result()
    child = os.fork()
    if child == 0:
        try:
            fine = array[...].sum() == 499500 and np.array_equal(big[...], ARRAYS["cube.b2nd"])
            fine = fine and reader._workers().submit(int).result(10) == 0
            os._exit(0 if fine else 1)
        except BaseException:
            os._exit(2)
    assert all(array[i] == i for i in range(20)), "the parent's connection is its own"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_one_array_may_be_read_from_many_threads(client: cat2.Client) -> None:
    array, expected = client["foo/cube"], ARRAYS["cube.b2nd"]
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda i: array[i % 7, :, i % 5], range(60)))
    for i, result in enumerate(results):
        assert np.array_equal(result, expected[i % 7, :, i % 5])


def test_an_array_is_pinned_to_its_version_until_refreshed() -> None:
    root = MemoryRoot()
    root.set("a.b2nd", np.arange(10), attrs={"step": 1})
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        array = client["foo/a"]
        assert str(array.freshness) == "live"
        version = array.version
        root.set("a.b2nd", np.arange(20.0).reshape(4, 5), attrs={"step": 2})
        service.rescan()
        with pytest.raises(cat2.DatasetChangedError, match=r"foo/a\.b2nd.*refresh\(\)"):
            array[3]
        assert array.freshness.state == "superseded"
        assert (array.shape, array.version, array.attrs["step"]) == ((10,), version, 1)
        assert array.refresh() is array
        assert (array.shape, array.attrs["step"], array[3, 4]) == ((4, 5), 2, 19.0)
        assert array.version != version
        service.directory.statuses["foo"] = {"online": False, "since": "2026-11-22T10:00:00Z"}
        assert str(array.freshness) == "offline since 2026-11-22T10:00:00Z"
        service.directory.statuses["foo"] = {"online": True}
        root.set("a.b2nd", b"now a file")
        service.rescan()
        with pytest.raises(cat2.DatasetChangedError, match="open it again"):
            array.refresh()
        root.delete("a.b2nd")
        service.rescan()
        assert array.freshness.state == "superseded"
        with pytest.raises(FileNotFoundError):
            array.refresh()


def test_a_change_within_a_read_is_an_error_and_never_a_mix() -> None:
    root = MemoryRoot()
    big = np.zeros((64, 256, 256), dtype="u1")
    root.set("a.b2nd", np.random.default_rng(0).integers(0, 99, big.shape, dtype="u1"), chunks=(1, 256, 256))
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        array = client["foo/a"]
        root.set("a.b2nd", big, chunks=(1, 256, 256))  # the catalog does not know yet
        with pytest.raises(cat2.DatasetChangedError):
            array[...]


def test_a_column_through_many_chunks_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caterva2_jupyter.client.reader.MAX_SLICE_CHUNKS", 30)
    rows = np.arange(100 * 512).reshape(100, 512)
    root = MemoryRoot()
    root.set("rows.b2nd", rows, chunks=(1, 512), blocks=(1, 512))
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        array = client["foo/rows"]
        before = len(service.requests)
        assert np.array_equal(array[:, 7], rows[:, 7])
        assert service.requests[before:] == ["POST read"] * 4
        assert np.array_equal(array[::-3, 7:9], rows[::-3, 7:9])
