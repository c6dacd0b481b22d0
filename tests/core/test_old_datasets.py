"""What publishers of the older system tell, as entries and records of ours."""

from __future__ import annotations

from typing import Any

import blosc2
import numpy as np
import pytest

from caterva2_jupyter.core.assembly import Assembler
from caterva2_jupyter.core.blocks import checksum_seed
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.core.old_datasets import chunk_record, told_entry
from caterva2_jupyter.core.selection import parse_basic
from caterva2_jupyter.errors import IntegrityError, UnsupportedDatasetError

STRUCTURED = np.dtype([("a", "<i4"), ("b", ">f8", (2,)), ("c", [("d", "S3")])])
ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)


def info_of(array: blosc2.NDArray, **others: Any) -> dict[str, Any]:
    """The metadata, as the older system gives it."""
    schunk = array.schunk
    form = {"shape": list(array.shape), "chunks": list(array.chunks), "blocks": list(array.blocks)}
    cparams = {"codec": 5, "clevel": 1, "typesize": schunk.typesize, "blocksize": schunk.blocksize}
    frame = {"cbytes": schunk.cbytes, "nbytes": schunk.nbytes, "cparams": cparams, "vlmeta": {}, "mtime": None}
    return {**form, "dtype": str(array.dtype), "schunk": frame, "mtime": "2026-11-22T15:54:13.171747Z", **others}


def read(entry: Entry, chunks: list[bytes], selection: tuple[Any, ...]) -> np.ndarray:
    assert entry.geometry is not None
    seed = checksum_seed(entry.id, entry.version)
    key = parse_basic(selection, entry.geometry.shape)
    wanted = key.selection
    assembler = Assembler(entry.geometry, wanted)
    for projection in BlockPlan(entry.geometry, wanted):
        blocks = projection.blocks.tolist()
        record = chunk_record(seed, projection.nchunk, chunks[projection.nchunk], blocks, entry.geometry)
        record.verify(seed)
        assembler.add(projection, record)
    return np.asarray(key.apply(assembler.out))


@pytest.mark.parametrize("dtype", ["int64", ">i4", "|S6", "<U6", "complex128", "bool", "datetime64[ns]", STRUCTURED])
@pytest.mark.parametrize("kind", ["random", "zeros", "incompressible"])
def test_arrays_are_what_they_were(dtype: Any, kind: str) -> None:
    dice = np.random.default_rng(3)
    dtype = np.dtype(dtype)
    count = 13 * 21
    raw = dice.integers(0, 256 if kind == "incompressible" else 3, count * dtype.itemsize, np.uint8)
    values = np.zeros(count, dtype) if kind == "zeros" else raw.view(dtype)
    if dtype.kind in "bU":
        values = np.zeros(count, dtype) if kind == "zeros" else dice.integers(0, 2, count).astype(dtype)
    values = values.reshape(13, 21)
    array = blosc2.asarray(
        values, chunks=(5, 8), blocks=(2, 4), cparams={"clevel": 0 if kind == "incompressible" else 5}
    )
    entry = told_entry("x.b2nd", info_of(array), "id", "version")
    assert entry.kind == "array", entry.reason
    assert entry.geometry is not None
    assert entry.geometry.dtype == dtype
    assert entry.mtime_ns == 1795362853171747000
    chunks = [array.schunk.get_chunk(n) for n in range(array.schunk.nchunks)]
    for selection in ((), (slice(3, 11), slice(7, 9)), (12, 20)):
        assert read(entry, chunks, selection).tobytes() == values[selection].tobytes()


def test_dtypes_with_gaps_are_parsed_as_they_are_printed() -> None:
    array = blosc2.zeros((4,), dtype="V16")
    for dtype in (ALIGNED, np.dtype({"names": ["x"], "formats": ["<u4"], "offsets": [4], "itemsize": 16})):
        entry = told_entry("x.b2nd", info_of(array, dtype=str(dtype)), "id", "version")
        assert entry.geometry is not None
        assert entry.geometry.dtype == dtype


def test_frames_and_packed_files_are_runs_of_items() -> None:
    data = bytes(range(256)) * 5
    frame = blosc2.SChunk(chunksize=500, data=data, cparams={"typesize": 1, "blocksize": 100})
    chunks = [frame.get_chunk(n) for n in range(frame.nchunks)]
    for blocksize in (100, 0):
        cparams = {"typesize": 1, "blocksize": blocksize, "codec": 5}
        info = {"nbytes": len(data), "chunksize": 500, "cparams": cparams, "vlmeta": {"a": [1, "b"]}, "cbytes": 7}
        entry = told_entry("x.b2frame", info, "id", "version")
        assert (entry.kind, dict(entry.attrs)) == ("file", {"a": [1, "b"]})
        assert read(entry, chunks, ()).tobytes() == data
        assert read(entry, chunks, (slice(620, 1270),)).tobytes() == data[620:1270]


def test_a_chunk_that_was_never_written_reads_as_zeros() -> None:
    array = blosc2.uninit((100,), dtype="i8", chunks=(50,), blocks=(10,))
    entry = told_entry("x.b2nd", info_of(array), "id", "version")
    chunks = [array.schunk.get_chunk(n) for n in range(2)]
    assert not read(entry, chunks, ()).any()


BASE = info_of(blosc2.asarray(np.arange(10)))


@pytest.mark.parametrize(
    "info",
    [
        None, [], {}, "x", 3, {**BASE, "shape": None}, {**BASE, "shape": [-1]}, {**BASE, "shape": [2**70]},
        {**BASE, "chunks": [0]}, {**BASE, "blocks": [1.5]}, {**BASE, "dtype": "O"}, {**BASE, "dtype": "object"},
        {**BASE, "dtype": "__import__('os').system('x')"}, {**BASE, "dtype": "[('a', 'O')]"},
        {**BASE, "dtype": "[" * 500}, {**BASE, "dtype": "[" * 90_000}, {**BASE, "dtype": "{'names': ['a']}"},
        {**BASE, "dtype": None}, {**BASE, "schunk": None}, {**BASE, "schunk": {"vlmeta": 3}},
        {**BASE, "mtime": None, "chunks": [2**40]},
        {"nbytes": 10, "chunksize": 10, "cparams": {"typesize": 0}},
        {"nbytes": -1, "chunksize": 1, "cparams": {"typesize": 1}},
        {"nbytes": 10, "chunksize": 10, "cparams": {"typesize": "x"}}, {"shape": [1], "dtype": "i8", "expression": "a"},
    ],
    ids=lambda info: str(info)[:30],
)  # fmt: skip
def test_what_cannot_be_is_listed_with_its_reason(info: Any) -> None:
    entry = told_entry("x.b2nd", info, "id", "version")
    assert (entry.kind, entry.geometry) == ("unsupported", None)
    assert entry.reason
    Entry.from_json(entry.to_json())


def test_chunks_of_another_size_are_refused() -> None:
    geometry = Geometry((10,), (10,), (5,), np.dtype("i8"))
    arrays = [blosc2.asarray(np.arange(n), chunks=(n,), blocks=(5,)) for n in (10, 20)]
    good, other = (array.schunk.get_chunk(0) for array in arrays)
    for chunk in (other, b"", good[:20], b"Internal Server Error", b"\0" * 64, good[:4] + b"\xff" * 12 + good[16:]):
        with pytest.raises(IntegrityError):
            chunk_record(1, 0, chunk, [0, 1], geometry)
    plugin = bytearray(good)
    plugin[2] |= 6 << 5
    with pytest.raises(UnsupportedDatasetError, match="newer cat2pub"):
        chunk_record(1, 0, bytes(plugin), [0], geometry)
