from __future__ import annotations

import json
import math
from typing import Any

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.attributes import encode_attrs
from caterva2_jupyter.core.blocks import checksum_seed, whole_record
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.codec import encode_blocks
from caterva2_jupyter.core.dtypes import VLEN_UTF8
from caterva2_jupyter.core.legacy import chunk_bytes, chunk_selection, info_json, is_listed
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.core.selection import Selection
from caterva2_jupyter.errors import IntegrityError, UnsupportedDatasetError


def entry_of(geometry: Geometry, kind: Any = "array", **fields: Any) -> Entry:
    return Entry("x.b2nd", kind, id="id", version="v1", geometry=geometry, **fields)


def test_a_scalar_with_attributes_reads_as_in_the_older_system() -> None:
    attrs, _ = encode_attrs({"a": 1, "b": "foo", "c": 123.456})
    geometry = Geometry((), (), (), np.dtype("<U6"))
    storage = {"codec": "zstd", "clevel": 1, "filters": ["shuffle"], "typesize": 24}
    entry = entry_of(geometry, attrs=attrs, cbytes=56, mtime_ns=1795362853_171747_000, storage=storage)
    form = info_json(entry, "foo/ds-sc-attr.b2nd")
    assert json.loads(json.dumps(form)) == {
        "shape": [],
        "chunks": [],
        "blocks": [],
        "dtype": "<U6",
        "schunk": {
            "cbytes": 56,
            "chunkshape": 1,
            "chunksize": 24,
            "contiguous": True,
            "cparams": {
                "codec": 5,
                "codec_meta": 0,
                "clevel": 1,
                "filters": [0, 0, 0, 0, 0, 1],
                "filters_meta": [0, 0, 0, 0, 0, 0],
                "typesize": 24,
                "blocksize": 24,
                "nthreads": 1,
                "splitmode": 1,
                "tuner": 0,
                "use_dict": False,
                "filters, meta": [[1, 0]],
            },
            "cratio": 0.42857142857142855,
            "nbytes": 24,
            "urlpath": "foo/ds-sc-attr.b2nd",
            "vlmeta": {"a": 1, "b": "foo", "c": 123.456},
            "nchunks": 1,
            "mtime": None,
        },
        "mtime": "2026-11-22T15:54:13.171747Z",
    }


def test_a_file_is_a_flat_super_chunk() -> None:
    geometry = Geometry((87,), (4 << 20,), (1 << 16,), np.dtype("u1"), "flat", padded=False)
    form = info_json(entry_of(geometry, "file"))
    assert "shape" not in form
    assert (form["nbytes"], form["nchunks"], form["mtime"]) == (87, 1, None)


def test_attributes_of_every_kind_become_plain_json() -> None:
    attrs, _ = encode_attrs(
        {
            "bytes": b"caf\xc3\xa9 \xff",
            "array": np.array([[1.5, 2], [np.nan, np.inf]]),
            "scalar": np.float32(0.5),
            "complex": np.complex64(1 + 2j),
            "date": np.datetime64("2026-01-02"),
            "tuple": (1, (2, b"x")),
            "dict": {1: "a", "t": None},
            "nan": float("nan"),
            "strings": np.array(["a", "b"], dtype=object),
            "record": np.array([(1, 2.5)], dtype=[("i", "<i4"), ("f", "<f8")]),
        }
    )
    geometry = Geometry((1,), (1,), (1,), np.dtype("u1"))
    vlmeta = info_json(entry_of(geometry, attrs=attrs))["schunk"]["vlmeta"]
    text = json.dumps(vlmeta, allow_nan=False)
    assert json.loads(text)["array"] == [[1.5, 2.0], [None, None]]
    assert vlmeta["bytes"] == "café \ufffd"
    assert vlmeta["strings"] == ["a", "b"]
    assert vlmeta["record"] == [[1, 2.5]]


@pytest.mark.parametrize("kind", ["group", "link", "unsupported"])
def test_what_has_no_data_has_no_info(kind: Any) -> None:
    entry = Entry("x", kind, reason="why" if kind == "unsupported" else "")
    assert not is_listed(entry)
    with pytest.raises(UnsupportedDatasetError, match="'x'"):
        info_json(entry)


def test_strings_of_variable_length_are_not_for_the_old_rest() -> None:
    entry = entry_of(Geometry((3,), (3,), (3,), VLEN_UTF8, padded=False))
    assert not is_listed(entry)
    with pytest.raises(UnsupportedDatasetError, match="old REST"):
        chunk_bytes(entry, 0, [])


def test_a_chunk_that_is_not_there_has_no_selection() -> None:
    geometry = Geometry((5, 5), (2, 2), (1, 1), np.dtype("u1"))
    assert chunk_selection(geometry, 8) == [[4, 5, 1], [4, 5, 1]]
    for nchunk in (-1, 9):
        with pytest.raises(IntegrityError):
            chunk_selection(geometry, nchunk)


def stored_chunk(geometry: Geometry, array: np.ndarray[Any, Any], nchunk: int) -> bytes:
    """Decoded bytes of a chunk as that geometry stores them."""
    coords = geometry.chunk_coords(nchunk)
    extent = geometry.chunk_extent(coords)
    box = np.zeros(extent, array.dtype)
    valid = array[tuple(slice(i * c, i * c + e) for i, c, e in zip(coords, geometry.chunks, extent, strict=True))]
    box[tuple(slice(0, n) for n in valid.shape)] = valid
    if geometry.layout == "flat" or not geometry.padded:
        return box.tobytes()
    parts = []
    for index in np.ndindex(*geometry.block_grid):
        block = np.zeros(geometry.blocks, array.dtype)
        part = box[tuple(slice(i * b, (i + 1) * b) for i, b in zip(index, geometry.blocks, strict=True))]
        block[tuple(slice(0, n) for n in part.shape)] = part
        parts.append(block.tobytes())
    return b"".join(parts)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    ndim = draw(st.integers(0, 3))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    chunks = tuple(draw(st.integers(1, 6)) for _ in range(ndim))
    dtype = np.dtype(draw(st.sampled_from(["<u2", ">f4", "|S3", "<c16", "u1"])))
    layout: Any = draw(st.sampled_from(["nd", "flat"]))
    if layout == "flat":
        block = draw(st.integers(1, max(1, math.prod(chunks))))
        return Geometry(shape, chunks, (block,), dtype, "flat", padded=draw(st.booleans()))
    return Geometry(shape, chunks, tuple(draw(st.integers(1, c)) for c in chunks), dtype)


@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(0, 2**31), st.sampled_from(["one", "many", "touched", "whole"]))
def test_old_chunks_make_the_array_in_an_array_of_the_shape_that_info_tells(
    geometry: Geometry, number: int, how: str
) -> None:
    random = np.random.default_rng(number)
    count = geometry.size * geometry.itemsize
    array = np.frombuffer(random.integers(1, 100, count, np.uint8).tobytes(), geometry.dtype).reshape(geometry.shape)
    entry = entry_of(geometry)
    form = info_json(entry)
    local = blosc2.empty(form["shape"], geometry.dtype, chunks=form["chunks"], blocks=form["blocks"])
    assert local.schunk.nchunks == form["schunk"]["nchunks"]
    seed = checksum_seed(entry.id, entry.version)
    for nchunk in range(geometry.nchunks):
        raw = stored_chunk(geometry, array, nchunk)
        ids = list(range(geometry.chunk_nblocks(nchunk)))
        if how == "touched":
            selection = Selection.from_json(chunk_selection(geometry, nchunk), geometry.shape)
            ids = next(iter(BlockPlan(geometry, selection))).blocks.tolist()
        groups = [[i] for i in ids] if how == "many" else [ids]
        size = geometry.block_nbytes
        records = [
            encode_blocks(seed, nchunk, g, b"".join(raw[i * size : (i + 1) * size] for i in g), geometry)
            for g in groups
        ]
        if how == "whole":
            records = [whole_record(seed, nchunk, blosc2.compress2(raw, typesize=1))]
            if geometry.layout == "nd":
                continue  # passed on as it is, whatever made it
        chunk = chunk_bytes(entry, nchunk, records)
        assert len(blosc2.decompress2(chunk)) == form["schunk"]["chunksize"]
        local.schunk.update_chunk(nchunk, chunk)
    if how != "whole" or geometry.layout != "nd":
        assert local[...].tobytes() == array.tobytes()
