"""What is the same in two versions: digests, comparisons and adoption, as values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.core.blocks import BlockRecord, make_record, whole_record
from caterva2_jupyter.core.codec import decode_record, encode_blocks
from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.core.revalidation import (
    DIGEST_NBYTES,
    SAME_DTYPE,
    ChunkMap,
    Comparison,
    SameRecord,
    adopt,
    adopt_run,
    chunk_digest,
    first_of_each,
    is_same_grid,
    joined_digest,
    runs_of,
)
from caterva2_jupyter.errors import RequestError

OLD, NEW = 17, 42
GEOMETRY = Geometry((100, 80), (50, 40), (10, 20), np.dtype("<i4"))


def record(seed: int, nchunk: int, blocks: dict[int, bytes], head: bytes = b"head") -> BlockRecord:
    ids = sorted(blocks)
    return make_record(seed, nchunk, head, ids, [blocks[i] for i in ids])


def compare(now: list[BlockRecord], held: list[list[BlockRecord]]) -> list[SameRecord]:
    comparison = Comparison(b"".join(chunk_digest(records) for records in held))
    return comparison.add(now) + comparison.finish()


bodies = st.dictionaries(st.integers(0, 20), st.binary(max_size=6), min_size=1, max_size=8)


@given(bodies, st.lists(st.integers(0, 20)))
def test_exactly_the_equal_blocks_are_adopted(held: dict[int, bytes], edited: list[int]) -> None:
    now = {block: body + (b"!" if block in edited else b"") for block, body in held.items()}
    (same,) = compare([record(NEW, 3, now)], [[record(OLD, 7, held)]])
    assert bool(same.proof) == (now == held)
    adopted = adopt(same, [record(OLD, 7, held)], NEW)
    got = {block: bytes(body) for r in adopted for block, _, body in r.blocks()}
    assert got == {block: body for block, body in held.items() if now[block] == body}
    for one in adopted:
        assert one.nchunk == 3
        one.verify(NEW)


@given(bodies, st.integers(1, 4))
def test_a_chunk_that_comes_in_several_records_is_one_chunk(held: dict[int, bytes], pieces: int) -> None:
    ids = sorted(held)
    now = [record(NEW, 0, {i: held[i] for i in part}) for k in range(pieces) if (part := ids[k::pieces])]
    now += [record(NEW, 1, {0: b"next"})]
    said = compare(now, [[record(OLD, 0, held)], [record(OLD, 1, {0: b"next"})]])
    assert [(same.nchunk, bool(same.proof)) for same in said] == [(0, True), (1, True)]


def test_another_head_is_another_block() -> None:
    held = record(OLD, 0, {0: b"a", 1: b"b"})
    (same,) = compare([record(NEW, 0, {0: b"a", 1: b"b"}, head=b"HEAD")], [[held]])
    assert len(same.rows) == 2
    assert adopt(same, [held], NEW) == []


def test_bytes_that_move_between_head_and_body_are_another_block() -> None:
    held = record(OLD, 0, {0: b"b"}, head=b"a")
    (same,) = compare([record(NEW, 0, {0: b""}, head=b"ab")], [[held]])
    assert not same.proof


def test_a_block_in_another_place_is_not_the_same() -> None:
    held = record(OLD, 0, {0: b"a", 1: b"b"})
    (same,) = compare([record(NEW, 0, {0: b"b", 1: b"a"})], [[held]])
    assert not same.proof
    assert adopt(same, [held], NEW) == []


def test_changed_blocks_are_looked_for_in_every_older_version() -> None:
    newest, oldest = record(OLD, 0, {0: b"a", 1: b"x"}), record(OLD + 1, 0, {0: b"z", 1: b"b", 2: b"c"})
    now = record(NEW, 0, {0: b"a", 1: b"b", 2: b"c"})
    (same,) = compare([now], [first_of_each([newest, oldest])])
    adopted = adopt(same, [newest, oldest], NEW)
    assert {block: bytes(body) for r in adopted for block, _, body in r.blocks()} == {0: b"a", 1: b"b", 2: b"c"}


def test_whole_chunks_are_compared_whole() -> None:
    held = whole_record(OLD, 5, b"chunk")
    (same,) = compare([whole_record(NEW, 5, b"chunk")], [[held]])
    (adopted,) = adopt(same, [held], NEW)
    assert adopted.is_whole
    adopted.verify(NEW)
    (same,) = compare([whole_record(NEW, 5, b"other")], [[held]])
    assert adopt(same, [held], NEW) == []
    (same,) = compare([record(NEW, 5, {0: b"chunk"})], [[held]])
    assert adopt(same, [held], NEW) == []


def test_a_whole_chunk_and_blocks_are_not_mixed() -> None:
    whole, cut = whole_record(OLD, 0, b"chunk"), record(OLD, 0, {1: b"b"})
    assert first_of_each([whole, cut]) == [whole]
    assert [r.ids.tolist() for r in first_of_each([cut, whole])] == [[1]]


@pytest.mark.parametrize("change", ["proof", "size", "crc", "digest", "block"])
def test_what_does_not_hold_is_not_adopted(change: str) -> None:
    held = record(OLD, 0, {0: b"a", 1: b"b"})
    if change == "proof":
        (same,) = compare([record(NEW, 0, {0: b"a", 1: b"b"})], [[held]])
        same = replace(same, proof=bytes(DIGEST_NBYTES))
    else:
        (same,) = compare([record(NEW, 0, {0: b"a", 1: b"changed"})], [[held]])
        rows = same.rows.copy()
        rows[change][0] = b"12345678" if change == "digest" else 5
        same = replace(same, rows=rows)
    assert adopt(same, [held], NEW) == []


def test_a_proof_is_of_the_new_version_and_place() -> None:
    held = record(OLD, 0, {0: b"a"})
    (same,) = compare([record(NEW, 0, {0: b"a"})], [[held]])
    assert adopt(same, [held], NEW)
    assert adopt(same, [held], NEW + 1) == []
    assert adopt(replace(same, nchunk=1), [held], NEW) == []


@pytest.mark.parametrize("count", [0, 1, 3])
def test_each_chunk_has_one_digest(count: int) -> None:
    comparison = Comparison(bytes(DIGEST_NBYTES * count))
    records = [record(NEW, n, {0: b"a"}) for n in range(2)]
    with pytest.raises(RequestError, match="digests"):
        _ = comparison.add(records) + comparison.finish()


def test_nothing_is_said_of_nothing() -> None:
    assert Comparison(b"").finish() == []
    assert adopt(SameRecord(0, b"", np.zeros(0, SAME_DTYPE)), [], NEW) == []


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.data(),
)
def test_chunks_are_found_by_their_place_in_the_grid(older: list[int], data: st.DataObject) -> None:
    newer = data.draw(st.lists(st.integers(1, 9), min_size=len(older), max_size=len(older)))
    chunks = (2,) * len(older)
    old, new = (Geometry(tuple(shape), chunks, chunks, np.dtype("u1")) for shape in (older, newer))
    chunk_map = ChunkMap(old, new)
    for nchunk in range(new.nchunks):
        coords = new.chunk_coords(nchunk)
        number = chunk_map.older(nchunk)
        is_inside = all(c < n for c, n in zip(coords, old.grid, strict=True))
        assert (number is not None) == is_inside
        assert number is None or old.chunk_coords(number) == coords


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"shape": (300, 200)}, True),
        ({"dtype": np.dtype("<u4")}, False),
        ({"dtype": np.dtype(">i4")}, False),
        ({"chunks": (50, 80)}, False),
        ({"blocks": (10, 10)}, False),
        ({"padded": False}, False),
        ({"layout": "flat", "blocks": (200,)}, False),
        ({"shape": (100,), "chunks": (50,), "blocks": (10,)}, False),
    ],
)
def test_only_lengths_may_differ(change: dict, same: bool) -> None:
    assert is_same_grid(GEOMETRY, replace(GEOMETRY, **change)) == same


@pytest.mark.parametrize("geometry", [GEOMETRY, Geometry((1950,), (1950,), (200,), np.dtype("<i4"), "flat", False)])
@pytest.mark.parametrize("content", ["zeros", "ramp", "noise"])
@given(ids=st.sets(st.integers(0, 9), min_size=1))
def test_an_encoded_block_is_the_same_whichever_others_are_asked_for(
    geometry: Geometry, content: str, ids: set[int]
) -> None:
    items = {
        "zeros": np.zeros(2000, "<i4"),
        "ramp": np.arange(2000, dtype="<i4"),
        "noise": np.random.default_rng(3).integers(-(2**31), 2**31, 2000).astype("<i4"),
    }[content]
    raw = items.tobytes()[: geometry.chunk_nbytes(0)]
    wanted = sorted(ids)
    part = b"".join(raw[i * 800 : (i + 1) * 800] for i in wanted)
    everything = encode_blocks(OLD, 0, list(range(10)), raw, geometry)
    some = encode_blocks(NEW, 0, wanted, part, geometry)
    assert chunk_digest([some]) == chunk_digest([everything.pick(wanted)])
    assert decode_record(some, geometry).tobytes() == part


@pytest.mark.parametrize("edited", [[], [0], [5], [2, 3], list(range(12))])
def test_chunks_of_few_blocks_are_compared_together(edited: list[int]) -> None:
    older = {n: record(OLD, n, {b: b"%d %d" % (n, b) for b in range(20)}) for n in range(12)}
    newer = {
        n: record(NEW, n, {b: b"%d %d%s" % (n, b, b"!" if n in edited and b == 7 else b"") for b in range(20)})
        for n in range(12)
    }
    runs = runs_of((n, 20) for n in range(12))
    assert runs == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    digests = b"".join(joined_digest([chunk_digest([older[n]]) for n in run]) for run in runs)
    comparison = Comparison(digests, runs)
    said = comparison.add(newer.values()) + comparison.finish()
    changed = [run for run in runs if set(run) & set(edited)]
    assert [same.nchunk for same in said] == sorted(
        [run[0] for run in runs if run not in changed] + [n for run in changed for n in run]
    )
    adopted: dict[tuple[int, int], bytes] = {}
    for same in said:
        run = next(run for run in runs if same.nchunk in run)
        if same.proof:
            found = adopt_run(same, [(n, [older[n]]) for n in run], NEW)
            assert adopt_run(same, [(n, [older[n]]) for n in run], NEW + 1) == []
            assert adopt_run(same, [(n, [older[n]]) for n in run[1:]], NEW) == []
        else:
            found = adopt(same, [older[same.nchunk]], NEW)
        for renewed in found:
            renewed.verify(NEW)
            adopted |= {(renewed.nchunk, block): bytes(body) for block, _, body in renewed.blocks()}
    expected = {(n, b): b"%d %d" % (n, b) for n in range(12) for b in range(20) if not (n in edited and b == 7)}
    assert adopted == expected


def test_each_run_has_one_digest() -> None:
    comparison = Comparison(bytes(2 * DIGEST_NBYTES), [[0, 1]])
    comparison.add([record(NEW, n, {0: b"x"}) for n in (0, 1)])
    with pytest.raises(RequestError):
        comparison.finish()
