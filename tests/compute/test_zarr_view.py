"""Arrays as the Zarr view tells them, read back by zarr-python from nothing but keys and bytes."""

from __future__ import annotations

import asyncio
import json
import warnings
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.testing import strategies as zarr_strategies

from caterva2_jupyter.compute.records import pack_records
from caterva2_jupyter.compute.zarr_chunk import zarr_chunk
from caterva2_jupyter.compute.zarr_metadata import (
    array_metadata,
    chunk_selection,
    chunk_shape,
    group_metadata,
    unique_names,
)
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.errors import UnsupportedDatasetError
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.storage.reading import entries_of, records_of


def zarr_of(
    array: Any, dims: tuple[str, ...] = (), attrs: dict[str, Any] | None = None, **partition: Any
) -> zarr.Array:
    """An array of ours through its Zarr view: a store that holds what the routes would answer."""
    root = MemoryRoot({"a.b2nd": array})
    if partition:
        root.set("a.b2nd", array, **partition)
    entry = entries_of(root)["a.b2nd"]
    assert entry.geometry is not None
    form = json.loads(json.dumps(array_metadata(entry, dims, attrs or {}), allow_nan=False))
    content = {"zarr.json": json.dumps(form).encode()}
    shape = chunk_shape(entry.geometry)
    for coords in np.ndindex(*(-(-n // c) for n, c in zip(entry.geometry.shape, shape, strict=True))):
        selection = chunk_selection(entry.geometry, coords)
        assert selection is not None
        arguments = {
            "geometry": entry.geometry.to_json(),
            "selection": selection.to_json(),
            "chunk_shape": list(shape),
        }
        _, (body,) = zarr_chunk(arguments, iter([pack_records(records_of(root, entry, selection))]))
        content["/".join(["c", *map(str, coords)])] = bytes(body)
    store = zarr.storage.MemoryStore()
    for key, body in content.items():
        asyncio.run(store.set(key, zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(body)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data types that are zarr-python's own
        return zarr.open_array(store, mode="r")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_zarr_pythons_strategies_make_reads_back_equal(data: st.DataObject) -> None:
    array = data.draw(zarr_strategies.numpy_arrays())
    view = zarr_of(array)
    assert view.shape == array.shape
    assert view.dtype == array.dtype.newbyteorder("=")
    index = data.draw(zarr_strategies.basic_indices(shape=array.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(view[...], array)
        np.testing.assert_array_equal(view[index], array[index])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(7, dtype=">i4"), np.array([1.5, -0.0, np.nan, np.inf], ">f8"), np.array([True, False]),
        np.array(["2001-01-01", "NaT"], "M8[D]"), np.array([b"a", b"bcd"]), np.array(["é", "xyz"]),
        np.array([(1, 2.5)], [("a", ">i2"), ("b", "<f8")]), np.arange(3) * 1j, np.array(5.0), np.empty((0, 3), "i2"),
        np.arange(3, dtype="f2"), np.array([2**63 + 1], "u8"), np.array(["a", "", "longer ✓"], object),
        np.array([(1, 2)], np.dtype({"names": ["a", "b"], "formats": ["i1", "<i4"], "offsets": [0, 4]})),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)  # fmt: skip
def test_values_are_those_that_are_stored(array: Any) -> None:
    view = zarr_of(array)
    np.testing.assert_array_equal(view[...], array)
    if array.dtype.kind == "f":
        assert view[...].tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


def test_chunks_are_whole_blocks_and_edges_are_padded() -> None:
    array = np.arange(130 * 70, dtype="i8").reshape(130, 70)
    view = zarr_of(array, chunks=(50, 40), blocks=(10, 20))
    assert view.chunks == (50, 40)
    np.testing.assert_array_equal(view[...], array)


def test_no_chunk_is_far_larger_than_a_block() -> None:
    big = Geometry((1000, 4000, 4000), (64, 1000, 1000), (1, 250, 1000), np.dtype("f8"))
    assert np.prod(chunk_shape(big)) * 8 <= 2 << 20
    flat = Geometry((10**9,), (10**8,), (1 << 20,), np.dtype("u1"), layout="flat")
    assert np.prod(chunk_shape(flat)) <= 2 << 20


def test_chunks_that_do_not_exist_are_none_and_never_something_else() -> None:
    geometry = Geometry((10, 10), (5, 5), (5, 5), np.dtype("f8"))
    assert chunk_selection(geometry, (0, 0)) is not None
    for coords in [(), (0,), (1, 0, 0), (2, 0), (0, 10**12)]:
        assert (chunk_selection(geometry, coords) is None) == (coords != (0, 0))


def test_attributes_become_json_that_every_reader_takes() -> None:
    attrs = {
        "units": "K", "range": np.array([1, 2], "i2"), "scale": np.float32(0.5), "missing_value": np.float64("nan"),
        "limits": np.array([np.nan, np.inf]), "raw": b"ab", "_FillValue": np.float32("nan"), "names": ["a", "b"],
    }  # fmt: skip
    view = zarr_of(np.zeros(3, "f4"), ("x",), attrs)
    assert view.metadata.dimension_names == ("x",)
    told = dict(view.attrs)
    assert told.pop("_FillValue") == "AAAAAAAA+H8="  # a double, in the form that xarray gives it in Zarr
    assert told == {
        "units": "K", "range": [1, 2], "scale": 0.5, "limits": ["NaN", "Infinity"], "raw": "ab", "names": ["a", "b"],
    }  # fmt: skip


def test_axes_of_one_name_are_told_apart() -> None:
    assert unique_names(["x", "y", "x"]) == ["x", "y", "x_1"]


def test_what_zarr_has_no_type_for_is_refused_with_the_reason() -> None:
    geometry = Geometry((3,), (3,), (3,), np.dtype("g"))
    with pytest.raises(UnsupportedDatasetError, match="no data type for"):
        array_metadata(Entry("a.b2nd", "array", "i", "v", geometry), (), {})


def test_a_group_has_all_below_it_in_one_answer() -> None:
    entry = Entry("g/a.b2nd", "array", "i", "v", Geometry((3,), (3,), (3,), np.dtype("i4")))
    form = group_metadata({"title": "t"}, {"g": group_metadata({}, {}), "g/a": array_metadata(entry, ("x",), {})})
    store = zarr.storage.MemoryStore()
    raw = zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(json.dumps(form).encode())
    asyncio.run(store.set("zarr.json", raw))
    group = zarr.open_group(store, mode="r")
    assert group.attrs["title"] == "t"
    assert [name for name, _ in group.members(max_depth=None)] == ["g", "g/a"]
    assert group["g/a"].shape == (3,)
