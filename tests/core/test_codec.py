import struct
import time
from contextlib import suppress

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.blocks import BlockRecord, checksum_seed, make_record, whole_record
from caterva2_jupyter.core.codec import (
    decode_record,
    decode_strings,
    encode_blocks,
    encode_chunk,
    encode_strings,
    is_portable,
)
from caterva2_jupyter.core.dtypes import VLEN_UTF8
from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.errors import IntegrityError

from .cases import decoded_blocks, geometries, make_array, split_of

SEED = checksum_seed("dataset", "version")


@given(geometries(), st.integers(0, 2**32), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_blocks_are_encoded_and_decoded(geometry, seed, fast, constant):
    array = np.zeros(geometry.shape, geometry.dtype) if constant else make_array(geometry, seed)
    nchunk = seed % geometry.nchunks
    blocks = decoded_blocks(array, geometry, geometry.chunk_coords(nchunk))
    assert len(blocks) == geometry.chunk_nblocks(nchunk)
    assert sum(map(len, blocks)) == geometry.chunk_nbytes(nchunk)
    for ids in (list(range(len(blocks))), *split_of(range(len(blocks)), seed)):
        if ids:
            raw = b"".join(blocks[i] for i in ids)
            record = encode_blocks(SEED, nchunk, ids, raw, geometry, fast)
            record.verify(SEED)
            assert record.ids.tolist() == ids
            assert decode_record(record, geometry).tobytes() == raw
            picked = record.pick(ids[-1:])
            picked.verify(SEED)
            assert decode_record(picked, geometry).tobytes() == blocks[ids[-1]]


def test_large_blocks_of_real_data_are_compressed():
    geometry = Geometry((1000, 1000), (1000, 1000), (100, 1000), np.dtype("<f8"))
    array = np.add.outer(np.arange(1000.0), np.arange(1000.0))
    record = encode_chunk(SEED, 0, array.tobytes(), geometry)
    assert len(record.body) < array.nbytes / 10
    assert decode_record(record.pick([3]), geometry).tobytes() == array[300:400].tobytes()


@given(st.lists(st.text() | st.just("\udcff"), max_size=30))
@settings(deadline=None)
def test_strings_are_encoded_and_decoded(strings):
    count = len(strings)
    geometry = Geometry((count,), (max(count, 1),), (max(count, 1),), VLEN_UTF8, "flat", False)
    if count == 0:
        return
    try:
        record = encode_strings(SEED, 0, strings)
    except UnicodeEncodeError:
        assert any(0xD800 <= ord(c) < 0xDC80 or 0xDCFF < ord(c) < 0xE000 for s in strings for c in s)
        return
    record.verify(SEED)
    assert decode_strings(decode_record(record, geometry), count).tolist() == strings


@pytest.mark.parametrize("offsets", [[0, 2, 1], [0, 1, 9], [1, 2, 3], [0, -1, 3], [0, 1], [0, 1, 2]])
def test_impossible_strings_are_refused(offsets):
    raw = np.frombuffer(np.array(offsets, "<i4").tobytes() + b"abc", np.uint8)
    with pytest.raises(IntegrityError):
        decode_strings(raw, 2)


LINE = Geometry((1000,), (1000,), (100,), np.dtype("<i4"))


def line_record(**change):
    """A record of a line, some of its header's fields overwritten."""
    record = encode_chunk(SEED, 0, np.arange(1000, dtype="<i4").tobytes(), LINE)
    head = bytearray(record.head)
    for name, value in change.items():
        offset, form = {"nbytes": (4, "<i"), "blocksize": (8, "<i"), "codec": (2, "B"), "filter": (21, "B")}[name]
        struct.pack_into(form, head, offset, value)
    bodies = [bytes(data) for _, _, data in record.blocks()]
    return make_record(SEED, 0, bytes(head), record.ids.tolist(), bodies)


@pytest.mark.parametrize("change", [{"blocksize": 2**30}, {"blocksize": 0}, {"blocksize": -1}, {"blocksize": 404}])
def test_blocks_of_other_sizes_than_announced_are_refused(change):
    """A5: before anything is allocated."""
    with pytest.raises(IntegrityError, match="blocks of"):
        decode_record(line_record(**change), LINE)


@pytest.mark.parametrize("change", [{"codec": 0xE5}, {"codec": 0x45}, {"filter": 32}, {"filter": 200}])
def test_codecs_and_filters_that_are_not_allowed_are_refused(change):
    """A4, A6: no plugin is ever called for by the wire."""
    record = line_record(**change)
    assert not is_portable(record.head)
    with pytest.raises(IntegrityError, match="not allowed"):
        decode_record(record, LINE)


def test_a_bomb_is_refused_by_its_header():
    """A5: a chunk of a few bytes that claims two gigabytes."""
    bomb = blosc2.compress2(bytes(2**27), typesize=1, nthreads=1)
    assert len(bomb) < 100
    begin = time.process_time()
    with pytest.raises(IntegrityError, match="claims 134217728 bytes, 4000 were announced"):
        decode_record(whole_record(SEED, 0, bomb), LINE)
    assert time.process_time() - begin < 1


def test_records_that_do_not_fit_the_geometry_are_refused():
    record = line_record()
    fields = {n: getattr(record, n) for n in ("nchunk", "head", "ids", "sizes", "crcs", "body")}
    for change in [{"nchunk": 1}, {"ids": record.ids[::-1]}, {"ids": record.ids + np.uint32(1)}, {"head": b""}]:
        with pytest.raises(IntegrityError):
            decode_record(BlockRecord(**fields | change), LINE)
    with pytest.raises(IntegrityError, match="truncated"):
        decode_record(whole_record(SEED, 0, b"x" * 10), LINE)


@given(st.binary(max_size=300), st.binary(max_size=60), st.sets(st.integers(0, 11)))
@settings(max_examples=500, deadline=None)
def test_garbage_does_not_decode(body, head, ids):
    """I10, A6: an IntegrityError, whatever the bytes."""
    for record in (whole_record(SEED, 0, body), make_record(SEED, 0, head, sorted(ids), [body] * len(ids))):
        try:
            decode_record(record, LINE)
        except IntegrityError:
            continue


@given(st.integers(0, 63), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_header_with_a_wrong_byte_never_crashes(position, value):
    """A6: the checksum would refuse it; the decoder survives it all the same."""
    record = encode_chunk(SEED, 0, np.arange(1000, dtype="<i4").tobytes(), LINE)
    head = bytearray(record.head)
    if position >= len(head):
        return
    head[position] = value
    forged = make_record(SEED, 0, bytes(head), record.ids.tolist(), [bytes(d) for _, _, d in record.blocks()])
    with suppress(IntegrityError):
        assert len(decode_record(forged, LINE)) == 4000
