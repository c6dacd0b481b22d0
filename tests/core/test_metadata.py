import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.dtypes import VLEN_UTF8
from caterva2_jupyter.core.metadata import Entry, Geometry, dataset_id
from caterva2_jupyter.errors import IntegrityError

from .cases import geometries

ARRAY = Entry(
    "dir/a.b2nd",
    "array",
    id="a1",
    version="v1",
    geometry=Geometry((4, 6), (2, 3), (1, 3), np.dtype(">f4")),
    attrs={"units": "K"},
    attrs_tag="t1",
    dims=("y", "x"),
    cbytes=99,
    mtime_ns=1_700_000_000_123_456_789,
    storage={"codec": "ZSTD", "filters": ["SHUFFLE"]},
)
ENTRIES = [
    ARRAY,
    Entry("dir", "group", attrs={"title": "é"}, attrs_tag="t2"),
    Entry("", "group"),
    Entry("f.h5", "group", version="v2", media_type="application/x-hdf5", cbytes=1000),
    Entry("big", "group", attrs_inline=False, attrs_tag="t3"),
    Entry("scalar.b2nd", "array", id="a2", version="v1", geometry=Geometry((), (), (), np.dtype("<i8")), dims=()),
    Entry("s", "array", id="a3", version="v", geometry=Geometry((3,), (3,), (3,), VLEN_UTF8, "flat", False)),
    Entry("x.md", "file", id="a4", version="v", geometry=Geometry((9,), (4,), (2,), np.dtype("u1"), "flat", False)),
    Entry("odd", "unsupported", reason="dtype object"),
    Entry("away", "link", target="/elsewhere", reason="leaves the root"),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.path or "root")
def test_an_entry_survives_the_wire(entry):
    assert Entry.from_json(json.loads(json.dumps(entry.to_json()))) == entry


def test_a_listing_says_only_what_is_set():
    assert Entry("dir", "group").to_json() == {"path": "dir", "kind": "group"}


@given(geometries(min_side=0))
@settings(max_examples=100, deadline=None)
def test_a_geometry_survives_the_wire(geometry):
    assert Geometry.from_json(json.loads(json.dumps(geometry.to_json()))) == geometry


@given(geometries(min_side=0))
@settings(max_examples=200, deadline=None)
def test_the_sizes_of_a_geometry_agree(geometry):
    g = geometry
    assert g.nchunks == math.prod(g.grid)
    assert g.nbytes == np.empty(g.shape, g.dtype).nbytes
    for nchunk in range(g.nchunks):
        coords = g.chunk_coords(nchunk)
        assert int(np.ravel_multi_index(coords, g.grid)) == nchunk if coords else nchunk == 0
        assert g.chunk_nbytes(nchunk) <= g.full_chunk_nbytes
        assert (g.chunk_nblocks(nchunk) - 1) * g.block_nbytes < g.chunk_nbytes(nchunk)
        assert g.chunk_nbytes(nchunk) <= g.chunk_nblocks(nchunk) * g.block_nbytes
    if not g.padded and g.nchunks:
        assert sum(g.chunk_nbytes(n) for n in range(g.nchunks)) == g.nbytes


GOOD = ARRAY.geometry.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [-1, 6]}, {"shape": [4]}, {"shape": "46"}, {"shape": [4.0, 6]}, {"shape": [True, 6]}, {"shape": None},
        {"chunks": [0, 3]}, {"chunks": [2]}, {"chunks": [-2, 3]}, {"blocks": [0, 3]}, {"blocks": [3, 3]},
        {"blocks": [1]},
        {"shape": [2**40, 2**40]}, {"chunks": [2**20, 2**20], "blocks": [1, 1]}, {"layout": "runs"}, {"layout": None},
        {"dtype": "O"}, {"dtype": None}, {"shape": [1] * 33, "chunks": [1] * 33, "blocks": [1] * 33},
        {"layout": "flat"}, {"layout": "flat", "blocks": [0]}, {"shape": [1e300, 1]}, {"shape": [2**70, 0]},
    ],
    ids=repr,
)  # fmt: skip
def test_an_impossible_geometry_is_refused(change):
    """A5: before anything is allocated by it."""
    with pytest.raises(IntegrityError):
        Geometry.from_json(GOOD | change)
    with pytest.raises(IntegrityError):
        Entry.from_json(ARRAY.to_json() | {"geometry": GOOD | change})


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "dataset"}, {"kind": None}, {"kind": []}, {"path": "../x"}, {"path": "/x"}, {"path": "a//b"},
        {"path": None, "kind": 7},
        {"kind": "group"}, {"kind": "unsupported"}, {"geometry": None}, {"id": ""}, {"version": ""}, {"id": "../x"},
        {"version": "a b"}, {"version": "x" * 65}, {"id": "é"}, {"attrs": 7}, {"attrs": [1]}, {"dims": 7},
        {"cbytes": "x"},
        {"cbytes": None}, {"cbytes": float("inf")}, {"cbytes": float("nan")}, {"mtime_ns": []}, {"storage": 7},
        {"geometry": []},
        {"cbytes": "9" * 5000},
    ],
    ids=lambda change: repr(change)[:60],
)  # fmt: skip
def test_a_malformed_entry_is_refused(change):
    with pytest.raises(IntegrityError):
        Entry.from_json(ARRAY.to_json() | change)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from([*ARRAY.to_json(), "media_type", "target", "reason", "attrs_inline"]), json_values)
)
@settings(max_examples=500, deadline=None)
def test_any_json_is_an_entry_or_refused(change):
    """I10."""
    try:
        entry = Entry.from_json(ARRAY.to_json() | change)
    except IntegrityError:
        return
    assert Entry.from_json(entry.to_json()).path == entry.path


@pytest.mark.parametrize("form", [None, 7, "x", [], [1], {}])
def test_what_is_no_object_is_no_entry(form):
    with pytest.raises(IntegrityError):
        Entry.from_json(form)
    with pytest.raises(IntegrityError):
        Geometry.from_json(form)


def test_entries_with_data_know_their_size():
    assert (ARRAY.nbytes, ARRAY.has_data) == (96, True)
    assert (replace(ENTRIES[1]).nbytes, ENTRIES[1].has_data) == (0, False)


def test_ids_are_those_of_owner_and_path():
    ids = {dataset_id(owner, path) for owner in ("me", "they") for path in ("a", "b", "a/b")}
    assert len(ids) == 6
    assert all(len(i) == 24 for i in ids)
    assert dataset_id("me", "\udcff")
