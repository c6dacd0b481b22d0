"""Blosc2 frames: every stored form gives what blosc2 reads (or what was written, where blosc2 is wrong)."""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt
import pytest

from caterva2_jupyter.core.codec import decode_record
from caterva2_jupyter.core.selection import Selection, parse_basic
from caterva2_jupyter.errors import DatasetChangedError, IntegrityError
from caterva2_jupyter.storage.directory_root import DirectoryRoot

from .reading import entries_of, read, records_of

Array = npt.NDArray[Any]

CODECS = [blosc2.Codec.BLOSCLZ, blosc2.Codec.LZ4, blosc2.Codec.LZ4HC, blosc2.Codec.ZLIB, blosc2.Codec.ZSTD]
FILTERS = {
    "none": [],
    "shuffle": [blosc2.Filter.SHUFFLE],
    "bitshuffle": [blosc2.Filter.BITSHUFFLE],
    "delta": [blosc2.Filter.DELTA],
    "delta-shuffle": [blosc2.Filter.DELTA, blosc2.Filter.SHUFFLE],
    "bytedelta": [blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA],
    "ndcell": [blosc2.Filter.NDCELL],
}
SPLITS = list(blosc2.SplitMode)


def cparams(codec: blosc2.Codec, filters: str, split: blosc2.SplitMode, **more: Any) -> dict[str, Any]:
    pipeline = FILTERS[filters]
    meta = [4 if f == blosc2.Filter.NDCELL else 0 for f in pipeline]
    return {
        "codec": codec,
        "filters": [blosc2.Filter.NOFILTER] * (6 - len(pipeline)) + pipeline,
        "filters_meta": [0] * (6 - len(pipeline)) + meta,
        "splitmode": split,
        **more,
    }


def values(kind: str, shape: tuple[int, ...], dtype: str = "<i4") -> Array:
    rng = np.random.default_rng(len(kind))
    count = int(np.prod(shape))
    noise = rng.integers(0, 1 << 30, count)
    ramp = np.arange(count) // 3
    items = {"noise": noise, "ramp": ramp, "mixed": np.where(np.arange(count) < count // 2, 0, noise)}[kind]
    return items.astype(dtype).reshape(shape)


def one(tmp_path: Path, array: Array | None = None, **how: Any) -> tuple[DirectoryRoot, Any, Path]:
    """A root with one array, its entry and place."""
    place = tmp_path / "root" / "x.b2nd"
    place.parent.mkdir(exist_ok=True)
    if array is not None:
        blosc2.asarray(array, urlpath=str(place), mode="w", **how)
    root = DirectoryRoot(place.parent, "owner", patience_s=0)
    return root, entries_of(root)["x.b2nd"], place


def assert_equal(root: DirectoryRoot, entry: Any, want: Array, keys: int = 6) -> None:
    got = read(root, entry)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.tobytes() == want.tobytes()
    rng = np.random.default_rng(0)
    for _ in range(keys):
        key = []
        for n in want.shape:
            start, stop = sorted(rng.integers(0, n + 1, 2).tolist())
            key.append(slice(start, stop, int(rng.choice([1, 1, 2, 5]))))
        assert read(root, entry, tuple(key)).tobytes() == want[tuple(key)].tobytes()


@pytest.mark.parametrize("filters", sorted(FILTERS))
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_every_codec_filter_and_split_mode(tmp_path: Path, codec: blosc2.Codec, filters: str) -> None:
    (tmp_path / "root").mkdir()
    arrays: dict[str, Array] = {}
    for i, (split, kind) in enumerate(itertools.product(SPLITS, ["noise", "ramp", "mixed"])):
        array = arrays[f"{i}.b2nd"] = values(kind, (50, 70), ["<i4", "<f8", "<i2"][i % 3])
        how: dict[str, Any] = {"chunks": (23, 32), "blocks": (8, 16), "contiguous": i % 4 != 0}
        how["cparams"] = cparams(codec, filters, split, nthreads=1 + i % 2, clevel=i % 10)
        blosc2.asarray(array, urlpath=str(tmp_path / "root" / f"{i}.b2nd"), **how)
    root = DirectoryRoot(tmp_path / "root", "owner")
    for path, entry in entries_of(root).items():
        assert_equal(root, entry, arrays[path], keys=3)


@pytest.mark.parametrize("kind", ["noise", "ramp", "mixed"])
@pytest.mark.parametrize("codec", [blosc2.Codec.ZSTD, blosc2.Codec.LZ4, blosc2.Codec.LZ4HC], ids=lambda c: c.name)
def test_dictionaries(tmp_path: Path, codec: blosc2.Codec, kind: str) -> None:
    array = values(kind, (300, 200))
    how = cparams(codec, "shuffle", blosc2.SplitMode.NEVER_SPLIT, use_dict=True, nthreads=1)
    root, entry, _ = one(tmp_path, array, chunks=(100, 100), blocks=(20, 50), cparams=how)
    assert_equal(root, entry, array)


@pytest.mark.parametrize("nthreads", [1, 2])
def test_blocks_that_lie_in_any_order(tmp_path: Path, nthreads: int) -> None:
    array = values("mixed", (1000, 300))
    how = cparams(blosc2.Codec.ZSTD, "shuffle", blosc2.SplitMode.NEVER_SPLIT, nthreads=nthreads)
    root, entry, _ = one(tmp_path, array, chunks=(500, 300), blocks=(5, 30), cparams=how)
    assert_equal(root, entry, array)


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (lambda **k: blosc2.zeros((70, 50), dtype="<f8", **k), np.zeros((70, 50))),
        (lambda **k: blosc2.full((70, 50), 7.5, dtype="<f8", **k), np.full((70, 50), 7.5)),
        (lambda **k: blosc2.full((70, 50), -3, dtype=">i2", **k), np.full((70, 50), -3, ">i2")),
        (lambda **k: blosc2.full((70, 50), b"abc", dtype="S3", **k), np.full((70, 50), b"abc", "S3")),
        (lambda **k: blosc2.nans((70, 50), dtype="<f4", **k), np.full((70, 50), np.nan, "<f4")),
        (lambda **k: blosc2.nans((70, 50), dtype="<f8", **k), np.full((70, 50), np.nan)),
        # What was never written reads as zeros (blosc2 itself gives stray memory).
        (lambda **k: blosc2.uninit((70, 50), dtype="<f8", **k), np.zeros((70, 50))),
        (lambda **k: blosc2.asarray(np.full((70, 50), 9), **k), np.full((70, 50), 9)),
    ],
    ids=["zeros", "value", "value-big-endian", "value-bytes", "nan-4", "nan-8", "never-written", "constant-data"],
)
@pytest.mark.parametrize("contiguous", [True, False])
def test_constant_chunks(tmp_path: Path, make: Any, want: Array, contiguous: bool) -> None:
    (tmp_path / "root").mkdir()
    place = tmp_path / "root" / "x.b2nd"
    array = make(chunks=(30, 20), blocks=(7, 6), urlpath=str(place), mode="w", contiguous=contiguous)
    del array
    root, entry, _ = one(tmp_path)
    assert_equal(root, entry, want)


def test_one_block_of_a_constant_chunk_costs_no_whole_chunk(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    place = str(tmp_path / "root" / "x.b2nd")
    blosc2.zeros((4000, 4000), dtype="<f8", chunks=(4000, 4000), blocks=(100, 100), urlpath=place)
    root, entry, _ = one(tmp_path)
    (record,) = records_of(root, entry, parse_basic((5, 5), (4000, 4000)).selection)
    assert decode_record(record, entry.geometry).nbytes == 100 * 100 * 8
    assert len(records_of(root, entry, Selection.whole((4000, 4000)))[0].ids) == 1


def test_some_chunks_written_and_some_not(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    place = tmp_path / "root" / "x.b2nd"
    array = blosc2.zeros((100, 40), dtype="<i4", chunks=(10, 40), blocks=(5, 8), urlpath=str(place))
    want = np.zeros((100, 40), "<i4")
    for row in (3, 55, 56, 99):
        want[row] = array[row] = np.arange(40) + row
    del array
    root, entry, _ = one(tmp_path)
    assert_equal(root, entry, want)


@pytest.mark.parametrize(
    ("codec", "meta", "dtype"),
    [
        (blosc2.Codec.ZFP_ACC, 246, "<f8"),
        (blosc2.Codec.ZFP_PREC, 32, "<f4"),
        (blosc2.Codec.ZFP_RATE, 37, "<f8"),
        (blosc2.Codec.NDLZ, 4, "u1"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_plugins_are_decoded_by_the_publisher(tmp_path: Path, codec: blosc2.Codec, meta: int, dtype: str) -> None:
    array = (np.arange(64 * 50).reshape(64, 50) % 200).astype(dtype)
    how = {"codec": codec, "codec_meta": meta, "filters": [blosc2.Filter.NOFILTER] * 6}
    root, entry, place = one(tmp_path, array, chunks=(48, 32), blocks=(16, 16), cparams=how)
    assert_equal(root, entry, blosc2.open(str(place))[...])


@pytest.mark.parametrize("number", [37, 200])
def test_a_plugin_that_is_not_there_is_told(tmp_path: Path, number: int) -> None:
    array = values("ramp", (64, 50), "<f4")
    how = {"codec": blosc2.Codec.ZFP_PREC, "codec_meta": 32, "filters": [blosc2.Filter.NOFILTER] * 6}
    _, _, place = one(tmp_path, array, chunks=(64, 50), blocks=(16, 16), cparams=how)
    raw = bytearray(place.read_bytes())
    (header,) = struct.unpack_from(">i", raw, 11)
    assert raw[header + 22] == blosc2.Codec.ZFP_PREC.value
    raw[header + 22] = number
    place.write_bytes(raw)
    _, entry, _ = one(tmp_path)
    assert entry.kind == "unsupported"
    assert ("pip install blosc2-grok" if number == 37 else "codec 200") in entry.reason


DTYPES = [
    "?", "i1", "u1", "<i2", ">i4", "<u8", "<f2", "<f4", ">f8", "<f16", "<c8", ">c16", "S1", "S5", "<U3", ">U2",
    "<M8[ns]", "<M8[D]", "<m8[25s]", "V7", "V300",
    [("a", "<i4"), ("b", ">f8", (2, 3)), ("c", "S3")],
    [("a", [("b", "<i2"), ("c", "<f4")]), ("d", "<U2", (2,))],
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(tmp_path: Path, dtype: Any) -> None:
    described = np.dtype(dtype)
    raw = np.random.default_rng(3).integers(0, 2, 35 * described.itemsize, np.uint8)
    array = raw.view(described).reshape(7, 5)
    root, entry, place = one(tmp_path, array, chunks=(4, 5), blocks=(2, 3))
    got = read(root, entry)
    assert got.tobytes() == array.tobytes()
    assert got.dtype == blosc2.open(str(place)).dtype
    assert got.dtype == described or described.kind == "V"
    assert read(root, entry, (3, slice(1, 4))).tobytes() == array[3, 1:4].tobytes()


def test_an_aligned_dtype_keeps_its_bytes(tmp_path: Path) -> None:
    dtype = np.dtype([("x", "i1"), ("y", "<f8")], align=True)
    array = np.zeros(20, dtype)
    array["x"], array["y"] = np.arange(20), np.arange(20) / 3
    root, entry, _ = one(tmp_path, array)
    got = read(root, entry)
    assert got["x"].tolist() == array["x"].tolist()
    assert got["y"].tolist() == array["y"].tolist()


def test_objects_are_refused_and_never_opened(tmp_path: Path) -> None:
    array = np.array([{"a": 1}, None], dtype=object)
    try:
        one(tmp_path, array)
    except (TypeError, ValueError, RuntimeError):
        pytest.skip("this blosc2 does not write objects")
    _, entry, _ = one(tmp_path)
    assert entry.kind == "unsupported"
    assert "objects" in entry.reason


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((), {}),
        ((0,), {}),
        ((0, 5), {}),
        ((3, 0, 2), {}),
        ((1,), {}),
        ((1, 1, 1), {"chunks": (1, 1, 1), "blocks": (1, 1, 1)}),
        ((5,), {"chunks": (100,), "blocks": (33,)}),
        ((5, 7), {"chunks": (50, 2), "blocks": (3, 2)}),
        ((300,), {"chunks": (1,), "blocks": (1,)}),
        ((10, 11, 12), {"chunks": (10, 1, 5), "blocks": (3, 1, 5)}),
        ((2,) * 16, {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("contiguous", [True, False])
def test_edge_shapes(tmp_path: Path, shape: tuple[int, ...], how: dict[str, Any], contiguous: bool) -> None:
    array = np.arange(int(np.prod(shape)), dtype="<i8").reshape(shape)
    root, entry, _ = one(tmp_path, array, contiguous=contiguous, **how)
    assert_equal(root, entry, array)


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("typesize", [1, 2, 3, 8, 300])
@pytest.mark.parametrize("filters", ["none", "shuffle", "delta"])
def test_frames_slice_in_items(tmp_path: Path, typesize: int, filters: str, contiguous: bool) -> None:
    (tmp_path / "root").mkdir()
    rng = np.random.default_rng(typesize)
    for i, count in enumerate([0, 1, 99, 100, 101, 333, 2001]):
        content = rng.bytes(count * typesize // 2) + bytes(count * typesize - count * typesize // 2)
        how = cparams(CODECS[i % 5], filters, SPLITS[i % 4], typesize=typesize, nthreads=1 + i % 2)
        if i % 3 == 0:
            how["blocksize"] = 16 * typesize
        place = str(tmp_path / "root" / f"{i}.b2frame")
        blosc2.SChunk(chunksize=100 * typesize, data=content, urlpath=place, contiguous=contiguous, cparams=how)
    root = DirectoryRoot(tmp_path / "root", "owner")
    for path, entry in entries_of(root).items():
        stored = blosc2.open(str(tmp_path / "root" / path))
        want = b"".join(stored.decompress_chunk(n) for n in range(stored.nchunks))
        assert entry.kind == "file"
        assert entry.geometry.dtype == np.dtype("u1" if typesize == 1 else f"V{typesize}")
        assert read(root, entry).tobytes() == want
        items = np.frombuffer(want, entry.geometry.dtype)
        for key in (slice(3, 40), slice(95, 205), slice(-150, None, 7), slice(None, None, 50)):
            assert read(root, entry, key).tobytes() == items[key].tobytes()


def test_a_frame_that_ends_within_an_item_is_bytes(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    content = bytes(range(251)) * 20 + b"x"
    how = {"typesize": 4, "filters": [blosc2.Filter.NOFILTER] * 6}
    for i, codec in enumerate(CODECS):
        place = str(tmp_path / "root" / f"{i}.b2f")
        blosc2.SChunk(chunksize=800, data=content, urlpath=place, cparams={**how, "codec": codec})
    root = DirectoryRoot(tmp_path / "root", "owner")
    for path, entry in entries_of(root).items():
        assert entry.geometry.dtype == np.dtype("u1"), path
        try:
            got = read(root, entry).tobytes()
        except IntegrityError:  # Blosc2 cannot decode what it wrote there either
            stored = blosc2.open(str(tmp_path / "root" / path))
            with pytest.raises(RuntimeError):
                stored.decompress_chunk(stored.nchunks - 1)
            continue
        assert got == content


def test_constant_frames(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for i, (special, value) in enumerate([("ZERO", None), ("VALUE", np.int16(515)), ("UNINIT", None)]):
        place = str(tmp_path / "root" / f"{i}.b2frame")
        frame = blosc2.SChunk(chunksize=100, urlpath=place, cparams={"typesize": 2})
        frame.fill_special(77, blosc2.SpecialValue[special], **({} if value is None else {"value": value}))
    root = DirectoryRoot(tmp_path / "root", "owner")
    entries = entries_of(root)
    assert read(root, entries["0.b2frame"]).tobytes() == bytes(154)
    assert read(root, entries["1.b2frame"], slice(48, 60)).tobytes() == np.full(12, 515, "<i2").tobytes()
    assert read(root, entries["2.b2frame"]).tobytes() == bytes(154)


def test_attributes_and_dimensions(tmp_path: Path) -> None:
    _, _, place = one(tmp_path, np.zeros((3, 4)), meta={"mine": {"a": 1}})
    array = blosc2.open(str(place), mode="a")
    array.vlmeta["units"] = "K"
    array.vlmeta["dims"] = ["time", "x"]
    with suppress(TypeError):  # python-blosc2 writes NumPy arrays since 4.14
        array.vlmeta["scale"] = np.arange(3, dtype="<f4")
    has_scale = "scale" in array.vlmeta
    array.vlmeta["pair"] = (1, 2)
    array.vlmeta["none"] = None
    with suppress(TypeError):
        array.vlmeta["complex"] = 1 + 2j
    array.vlmeta["expression"] = blosc2.Ref.urlpath_ref("/etc/passwd") if hasattr(blosc2.Ref, "urlpath_ref") else {1}
    del array
    root, entry, _ = one(tmp_path)
    assert entry.dims == ("time", "x")
    assert entry.attrs["units"] == "K"
    assert entry.attrs["none"] is None
    assert entry.attrs["pair"] == {"t": "tuple", "v": [1, 2]}
    assert not has_scale or entry.attrs["scale"]["d"] == "<f4"
    assert "expression" in entry.storage["attrs_skipped"]
    assert entry.storage["metalayers"] == ["mine"]
    assert root.attributes(entry) == entry


def test_large_attributes_are_asked_for(tmp_path: Path) -> None:
    _, _, place = one(tmp_path, np.zeros(3))
    array = blosc2.open(str(place), mode="a")
    array.vlmeta["history"] = "long " * 50_000
    del array
    root, entry, _ = one(tmp_path)
    assert (entry.attrs, entry.attrs_inline) == ({}, False)
    assert root.attributes(entry).attrs == {"history": "long " * 50_000}


def test_a_chunk_that_was_written_over_is_another_version(tmp_path: Path) -> None:
    want = values("noise", (100, 40))
    root, entry, place = one(tmp_path, want, chunks=(10, 40), blocks=(5, 8), contiguous=False)
    assert_equal(root, entry, want)
    array = blosc2.open(str(place), mode="a")
    array[20:30] = 7
    del array
    with pytest.raises(DatasetChangedError, match=r"x\.b2nd"):
        read(root, entry, slice(0, 5))


def test_a_chunk_file_of_a_sparse_frame_that_is_swapped_is_noticed(tmp_path: Path) -> None:
    root, entry, place = one(tmp_path, values("noise", (40, 40)), chunks=(10, 40), blocks=(5, 8), contiguous=False)
    read(root, entry)
    shutil.copyfile(place / "00000001.chunk", place / "copy")
    os.replace(place / "copy", place / "00000000.chunk")
    with pytest.raises(DatasetChangedError):
        read(root, entry, slice(0, 5))


def test_a_chunk_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    root, entry, place = one(tmp_path, values("noise", (40, 40)), chunks=(10, 40), blocks=(5, 8), contiguous=False)
    os.rename(place / "00000000.chunk", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", place / "00000000.chunk")
    with pytest.raises((DatasetChangedError, IntegrityError)):
        read(root, entry, slice(0, 5))


@pytest.mark.parametrize("contiguous", [True, False])
def test_damage_is_an_error_of_ours_and_nothing_worse(tmp_path: Path, contiguous: bool) -> None:
    array = values("mixed", (60, 40))
    _, _, place = one(tmp_path, array, chunks=(20, 40), blocks=(5, 8), contiguous=contiguous, meta={"m": 1})
    damaged = place if contiguous else place / "chunks.b2frame"
    raw = damaged.read_bytes()
    rng = np.random.default_rng(11)
    for _ in range(60):
        broken = bytearray(raw)
        for position in rng.integers(0, len(raw), rng.integers(1, 4)).tolist():
            broken[position] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.2:
            del broken[int(rng.integers(len(raw))) :]
        damaged.write_bytes(broken)
        root, entry, _ = one(tmp_path)
        if entry.has_data:
            try:
                read(root, entry)
            except (IntegrityError, DatasetChangedError):
                continue
        else:
            assert entry.reason


def test_a_header_that_claims_too_much_allocates_nothing(tmp_path: Path) -> None:
    _, _, place = one(tmp_path, np.zeros((1000, 1000)), chunks=(100, 100), blocks=(50, 50))
    raw = bytearray(place.read_bytes())
    struct.pack_into(">q", raw, 0x1E, 1 << 60)  # decoded bytes of the frame
    place.write_bytes(raw)
    tracemalloc.start()
    _, entry, _ = one(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert entry.kind == "unsupported"
    assert peak < 50 << 20


def test_a_point_of_a_delta_chunk_moves_no_whole_chunk(tmp_path: Path) -> None:
    array = values("noise", (1000, 1000))
    how = cparams(blosc2.Codec.ZSTD, "delta", blosc2.SplitMode.NEVER_SPLIT)
    root, entry, _ = one(tmp_path, array, chunks=(1000, 1000), blocks=(50, 50), cparams=how)
    (record,) = records_of(root, entry, parse_basic((777, 333), array.shape).selection)
    assert len(record.body) < 20_000
    assert read(root, entry, (777, 333)) == array[777, 333]
