from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core import assembly
from caterva2_jupyter.core.assembly import Assembler
from caterva2_jupyter.core.blocks import BlockRecord, checksum_seed, whole_record
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.codec import encode_blocks, encode_chunk, encode_strings
from caterva2_jupyter.core.dtypes import VLEN_UTF8
from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.core.selection import Selection
from caterva2_jupyter.errors import IntegrityError

from .cases import box_of, decoded_blocks, geometries_and_selections, make_array, split_of

SEED = checksum_seed("dataset", "version")


@given(geometries_and_selections(min_side=0), st.integers(0, 2**32))
@settings(max_examples=500, deadline=None)
def test_a_box_is_what_numpy_gives_however_records_are_split(case, seed):
    geometry, selection = case
    array = make_array(geometry, seed)
    assembler = Assembler(geometry, selection)
    records = []
    for p in BlockPlan(geometry, selection):
        blocks = decoded_blocks(array, geometry, p.coords)
        for ids in split_of(p.blocks.tolist(), seed):
            if ids:
                records.append((p, encode_blocks(SEED, p.nchunk, ids, b"".join(blocks[i] for i in ids), geometry)))
    np.random.default_rng(seed).shuffle(records)
    for p, record in records:
        assembler.add(p, record)
    want = box_of(array, selection)
    assert (assembler.out.dtype, assembler.out.shape) == (want.dtype, want.shape)
    assert np.array_equal(assembler.out, want)


@given(
    geometries_and_selections(min_side=0),
    st.integers(0, 2**32),
    st.sampled_from([1, 64, 1000]),
    st.sampled_from([0, 32, 10**6]),
    st.booleans(),
)
@settings(max_examples=500, deadline=None)
def test_how_many_blocks_are_decoded_at_a_time_makes_no_difference(case, seed, run_nbytes, small_nbytes, is_random):
    geometry, selection = case
    array = make_array(geometry, seed)
    if is_random and geometry.dtype == np.dtype("<c16"):  # what cannot be compressed is stored as it is
        array = np.random.default_rng(seed).random((*geometry.shape, 2)).view("<c16").reshape(geometry.shape)
    assembler = Assembler(geometry, selection)
    with (
        patch.object(assembly, "RUN_NBYTES", run_nbytes),
        patch.object(assembly, "SMALL_BLOCK_NBYTES", small_nbytes),
    ):
        for p in BlockPlan(geometry, selection):
            blocks = decoded_blocks(array, geometry, p.coords)
            for ids in split_of(p.blocks.tolist(), seed):
                if ids:
                    raw = b"".join(blocks[i] for i in ids)
                    assembler.add(p, encode_blocks(SEED, p.nchunk, ids, raw, geometry))
    assert np.array_equal(assembler.out, box_of(array, selection))


@pytest.mark.parametrize("is_random", [False, True], ids=["compressed", "stored"])
def test_a_whole_read_of_one_axis_copies_nothing_that_it_decodes(is_random):
    geometry = Geometry((80_000,), (20_000,), (5_000,), np.dtype("<f8"))
    array = np.random.default_rng(0).random(80_000) if is_random else np.arange(80_000.0)
    assembler = Assembler(geometry, Selection.whole(geometry.shape))
    with patch.object(assembly, "_place_each", side_effect=AssertionError), patch.object(assembly, "_copy", None):
        for p in BlockPlan(geometry, Selection.whole(geometry.shape)):
            raw = b"".join(decoded_blocks(array, geometry, p.coords))
            assembler.add(p, encode_chunk(SEED, p.nchunk, raw, geometry))
    assert np.array_equal(assembler.out, array)


@given(geometries_and_selections(), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_more_blocks_than_wanted_do_no_harm(case, seed):
    geometry, selection = case
    array = make_array(geometry, seed)
    assembler = Assembler(geometry, selection)
    for p in BlockPlan(geometry, selection):
        assembler.add(p, encode_chunk(SEED, p.nchunk, b"".join(decoded_blocks(array, geometry, p.coords)), geometry))
    assert np.array_equal(assembler.out, box_of(array, selection))


@given(geometries_and_selections(min_side=0, dtypes=["<i4"]), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_strings_of_variable_length_are_assembled(case, seed):
    numbers, selection = case
    geometry = Geometry(numbers.shape, numbers.chunks, (int(np.prod(numbers.chunks)),), VLEN_UTF8, "flat", False)
    array = np.array([str(i) * (i % 4) for i in range(numbers.size)], object).reshape(numbers.shape)
    assembler = Assembler(geometry, selection)
    for p in BlockPlan(geometry, selection):
        inside = [slice(i * c, (i + 1) * c) for i, c in zip(p.coords, geometry.chunks, strict=True)]
        part = array[(*inside, ...)]
        assembler.add(p, encode_strings(SEED, p.nchunk, part.ravel().tolist()))
    assert np.array_equal(assembler.out, box_of(array, selection))


LINE = Geometry((1000,), (100,), (10,), np.dtype("<i4"))


def test_a_record_of_another_chunk_is_refused():
    selection = Selection.whole(LINE.shape)
    first = next(iter(BlockPlan(LINE, selection)))
    with pytest.raises(IntegrityError, match="record of chunk 1 in place of chunk 0"):
        Assembler(LINE, selection).add(first, encode_chunk(SEED, 1, bytes(400), LINE))


@pytest.mark.parametrize("layout", ["nd", "flat"])
@pytest.mark.parametrize("ids", [[], [10], [2**32 - 2], [3, 2], [3, 3]])
def test_a_record_with_impossible_blocks_is_refused(layout, ids):
    geometry = Geometry((1000,), (100,), (10,), np.dtype("<i4"), layout, layout == "nd")
    selection = Selection.whole(geometry.shape)
    good = encode_chunk(SEED, 0, bytes(400), geometry)
    numbers = np.array(ids, np.uint32)
    record = BlockRecord(0, good.head, numbers, good.sizes[: len(ids)], good.crcs[: len(ids)], b"")
    with pytest.raises(IntegrityError):
        Assembler(geometry, selection).add(next(iter(BlockPlan(geometry, selection))), record)


def test_a_record_that_does_not_decode_is_refused():
    selection = Selection.whole(LINE.shape)
    first = next(iter(BlockPlan(LINE, selection)))
    with pytest.raises(IntegrityError):
        Assembler(LINE, selection).add(first, whole_record(SEED, 0, b"x" * 100))


def test_positions_outside_the_wanted_blocks_stay_untouched():
    selection = Selection.from_json([[0, 200, 1]], LINE.shape)
    assembler = Assembler(LINE, selection)
    assembler.out[:] = -1
    first = next(iter(BlockPlan(LINE, selection)))
    assembler.add(first, encode_blocks(SEED, 0, [2], np.arange(20, 30, dtype="<i4").tobytes(), LINE))
    assert np.flatnonzero(assembler.out != -1).tolist() == list(range(20, 30))
