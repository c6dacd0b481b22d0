"""Blocks cut from chunks of every codec, filter and split mode decode to what the chunk holds."""

import struct

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.blocks import (
    WHOLE,
    checksum_seed,
    index_nbytes,
    make_record,
    mini_chunk,
    parse_layout,
    whole_record,
)
from caterva2_jupyter.core.codec import decode_record
from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.errors import IntegrityError

SEED = checksum_seed("dataset", "version")
CODECS = [blosc2.Codec.BLOSCLZ, blosc2.Codec.LZ4, blosc2.Codec.LZ4HC, blosc2.Codec.ZLIB, blosc2.Codec.ZSTD]
FILTERS = [
    [],
    [blosc2.Filter.SHUFFLE],
    [blosc2.Filter.BITSHUFFLE],
    [blosc2.Filter.DELTA, blosc2.Filter.SHUFFLE],
    [blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA],
]


def compressed(raw, typesize=4, blocksize=400, codec=blosc2.Codec.ZSTD, clevel=5, filters=(), **more):
    pipeline = [blosc2.Filter.NOFILTER] * (6 - len(filters)) + list(filters)
    return blosc2.compress2(
        raw, typesize=typesize, codec=codec, clevel=clevel, filters=pipeline, blocksize=blocksize, nthreads=1, **more
    )


@st.composite
def chunks(draw):
    """A chunk, its decoded bytes, and the geometry of a dataset of just that chunk."""
    typesize = draw(st.sampled_from([1, 2, 3, 4, 8, 16]))
    block_items = draw(st.sampled_from([7, 16, 64, 100]))
    nblocks = draw(st.integers(1, 9))
    last = draw(st.integers(1, block_items))
    nbytes = ((nblocks - 1) * block_items + last) * typesize
    kinds = draw(st.sampled_from([1, 2, 10, 256]))
    raw = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, kinds, nbytes).astype("u1").tobytes()
    codec = draw(st.sampled_from(CODECS))
    chunk = compressed(
        raw,
        typesize,
        block_items * typesize,
        codec,
        draw(st.sampled_from([0, 1, 5, 9])),
        draw(st.sampled_from(FILTERS)),
        splitmode=draw(st.sampled_from(list(blosc2.SplitMode))),
        use_dict=codec == blosc2.Codec.ZSTD and draw(st.booleans()),
    )
    items = nbytes // typesize
    blocksize = parse_layout(chunk, len(chunk)).blocksize
    dtype = np.dtype(f"V{typesize}")
    return chunk, raw, Geometry((items,), (items,), (min(blocksize // typesize, items) or 1,), dtype, "flat", False)


def cut(chunk, layout, ids, seed=SEED):
    bodies = [chunk[int(o) : int(o + s)] for o, s in zip(layout.offsets[ids], layout.sizes[ids], strict=True)]
    return make_record(seed, 0, layout.head, ids, bodies)


@given(chunks(), st.data())
@settings(max_examples=500, deadline=None)
def test_any_blocks_of_any_chunk_decode_to_their_bytes(case, data):
    chunk, raw, geometry = case
    layout = parse_layout(chunk, len(chunk))
    assert layout.nbytes == len(raw)
    if layout.kind in ("whole", "special"):
        record = whole_record(SEED, 0, chunk if layout.kind == "whole" else layout.head)
        record.verify(SEED)
        assert decode_record(record, geometry).tobytes() == raw
        return
    size = layout.blocksize
    every = list(range(layout.nblocks))
    ids = sorted(data.draw(st.sets(st.sampled_from(every), min_size=1)))
    record = cut(chunk, layout, ids)
    record.verify(SEED)
    assert decode_record(record, geometry).tobytes() == b"".join(raw[i * size : (i + 1) * size] for i in ids)
    some = sorted(data.draw(st.sets(st.sampled_from(ids), min_size=1)))
    picked = record.pick(some)
    picked.verify(SEED)
    assert picked.ids.tolist() == some
    assert decode_record(picked, geometry).tobytes() == b"".join(raw[i * size : (i + 1) * size] for i in some)


@given(chunks())
@settings(max_examples=100, deadline=None)
def test_a_layout_needs_only_the_start_of_a_chunk(case):
    chunk, _, _ = case
    needed = index_nbytes(chunk[:32])
    if chunk[31] & 1 and (chunk[2] & 2) == 0 and needed > 36:
        needed += struct.unpack_from("<i", chunk, needed - 4)[0]
    full, short = parse_layout(chunk, len(chunk)), parse_layout(chunk[:needed], len(chunk))
    assert (full.kind, full.head, full.offsets.tolist(), full.sizes.tolist()) == (
        short.kind,
        short.head,
        short.offsets.tolist(),
        short.sizes.tolist(),
    )


def test_the_dictionary_bug_of_incompressible_chunks_is_repaired():
    raw = np.random.default_rng(0).bytes(4000)
    chunk = compressed(raw, use_dict=True)
    layout = parse_layout(chunk, len(chunk))
    assert layout.kind == "memcpy"
    geometry = Geometry((1000,), (1000,), (100,), np.dtype("V4"), "flat", False)
    assert decode_record(cut(chunk, layout, [1, 7]), geometry).tobytes() == raw[400:800] + raw[2800:3200]


def test_the_dictionary_bug_of_tiny_constants_is_repaired():
    chunk = compressed(bytes(16), typesize=1, use_dict=True)
    layout = parse_layout(chunk, len(chunk))
    assert layout.kind == "special"
    geometry = Geometry((16,), (16,), (16,), np.dtype("u1"), "flat", False)
    for record in (whole_record(SEED, 0, layout.head), make_record(SEED, 0, layout.head, [0], [b""])):
        assert decode_record(record, geometry).tobytes() == bytes(16)


def test_delta_chunks_are_never_cut():
    raw = np.arange(1000, dtype="<i4").tobytes()
    chunk = compressed(raw, filters=[blosc2.Filter.DELTA])
    assert parse_layout(chunk, len(chunk)).kind == "whole"


def test_blosc1_chunks_are_never_cut():
    """Their header has 16 bytes, and HDF5's Blosc filter stores them."""
    chunk = struct.pack("<BBBBiii", 2, 1, 0x01, 4, 4000, 400, 2000) + bytes(1984)
    layout = parse_layout(chunk, len(chunk))
    assert (layout.kind, layout.nbytes, layout.cbytes) == ("whole", 4000, 2000)


def test_a_record_is_bound_to_its_place():
    """A record of another dataset, version, chunk, block or header fails like a damaged one."""
    raw = np.random.default_rng(0).bytes(4000)
    chunk = compressed(raw)
    layout = parse_layout(chunk, len(chunk))
    record = cut(chunk, layout, [1, 2])
    record.verify(SEED)
    for other in [checksum_seed("dataset2", "version"), checksum_seed("dataset", "version2")]:
        with pytest.raises(IntegrityError, match="checksum"):
            record.verify(other)
    forged = [
        {"nchunk": 1},
        {"ids": np.array([1, 3], np.uint32)},
        {"head": record.head[:31] + b"\x08"},
        {"body": bytes(reversed(bytes(record.body)))},
        {"body": bytes(record.body)[:-1]},
        {"sizes": record.sizes[::-1] + np.array([1, -1]).astype(np.uint32)},
    ]
    for change in forged:
        fields = {n: getattr(record, n) for n in ("nchunk", "head", "ids", "sizes", "crcs", "body")} | change
        with pytest.raises(IntegrityError):
            type(record)(**fields).verify(SEED)


@given(chunks(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_is_always_noticed(case, data):
    """S4: any bit of a record's body or header."""
    chunk, _, _ = case
    layout = parse_layout(chunk, len(chunk))
    record = whole_record(SEED, 0, chunk) if layout.kind in ("whole", "special") else cut(chunk, layout, [0])
    target = data.draw(st.sampled_from(["body", "head"])) if record.head else "body"
    raw = bytearray(getattr(record, target))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1)) if raw else None
    if bit is None:
        return
    raw[bit // 8] ^= 1 << bit % 8
    fields = {n: getattr(record, n) for n in ("nchunk", "head", "ids", "sizes", "crcs", "body")} | {target: bytes(raw)}
    with pytest.raises(IntegrityError):
        type(record)(**fields).verify(SEED)


@given(st.binary(max_size=200) | chunks().map(lambda c: c[0][:40]), st.integers(0, 300))
@settings(max_examples=400, deadline=None)
def test_garbage_is_no_chunk(raw, cbytes):
    """A6: an IntegrityError, or a layout whose blocks lie inside of the chunk."""
    try:
        index_nbytes(raw)
        layout = parse_layout(raw, cbytes)
    except IntegrityError:
        return
    assert layout.cbytes <= cbytes
    assert all(0 <= o <= o + s <= cbytes for o, s in zip(layout.offsets.tolist(), layout.sizes.tolist(), strict=True))


def test_a_whole_record_holds_one_block_of_a_special_number():
    record = whole_record(SEED, 3, b"x" * 40)
    assert record.is_whole
    assert [(b, bytes(d)) for b, _, d in record.blocks()] == [(WHOLE, b"x" * 40)]
    assert record.pick([0]) is record


@pytest.mark.parametrize("head", [b"", b"x" * 31])
def test_a_record_without_a_header_is_refused(head):
    record = make_record(SEED, 0, head, [0], [b"abc"])
    with pytest.raises(IntegrityError, match="header"):
        mini_chunk(record, 3, 10)
