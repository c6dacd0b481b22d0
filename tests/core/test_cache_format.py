import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.cache_format import (
    BLOCK,
    JOURNAL_DTYPE,
    TOMBSTONE,
    block_entries,
    replay,
    tombstone_entries,
)

SEED = 77

blocks_written = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 5000), st.integers(0, 2**32 - 1))
writes = st.lists(
    st.tuples(st.integers(0, 2**40), st.lists(blocks_written, min_size=1, max_size=4)), min_size=1, max_size=5
)


def written(appended):
    """The journal of some writes, and the length of the data log after each."""
    journal, lengths, end = b"", [], 0
    for nchunk, blocks in appended:
        head_offset, offset = end, end + 32
        end = offset + sum(size for _, size, _ in blocks)
        journal += block_entries(SEED, nchunk, blocks, offset, head_offset, 32).tobytes()
        lengths.append(end)
    return journal, lengths


@given(writes)
@settings(max_examples=100, deadline=None)
def test_what_was_written_is_replayed(appended):
    journal, lengths = written(appended)
    entries = replay(journal, SEED, lengths[-1])
    want = [(nchunk, *block) for nchunk, blocks in appended for block in blocks]
    assert [(int(e["nchunk"]), int(e["block"]), int(e["size"]), int(e["crc"])) for e in entries] == want
    assert set(entries["kind"]) == {BLOCK}
    position = 0
    for (_, blocks), end in zip(appended, lengths, strict=True):
        mine = entries[position : position + len(blocks)]
        assert mine["head_offset"].tolist() == [end - 32 - sum(s for _, s, _ in blocks)] * len(blocks)
        assert (mine["offset"] + mine["size"]).tolist()[-1] == end
        position += len(blocks)


@given(writes, st.data())
@settings(max_examples=200, deadline=None)
def test_a_torn_tail_costs_only_the_tail(appended, data):
    """P5, P6: a journal of any length replays to the records that are whole."""
    journal, lengths = written(appended)
    cut = data.draw(st.integers(0, len(journal)))
    assert len(replay(journal[:cut], SEED, lengths[-1])) == cut // JOURNAL_DTYPE.itemsize


@given(writes, st.data())
@settings(max_examples=300, deadline=None)
def test_replay_stops_at_a_record_that_is_damaged(appended, data):
    """S6: any flipped bit ends the replay just before its record."""
    journal, lengths = written(appended)
    bit = data.draw(st.integers(0, len(journal) * 8 - 1))
    damaged = bytearray(journal)
    damaged[bit // 8] ^= 1 << bit % 8
    entries = replay(bytes(damaged), SEED, lengths[-1])
    assert len(entries) == bit // 8 // JOURNAL_DTYPE.itemsize
    assert entries.tobytes() == journal[: len(entries) * JOURNAL_DTYPE.itemsize]


def test_replay_stops_where_the_data_was_lost():
    journal, (first, second) = written([(0, [(0, 100, 1)]), (1, [(0, 100, 1)])])
    assert [len(replay(journal, SEED, n)) for n in (second, second - 1, first, first - 1, 0)] == [2, 1, 1, 0, 0]


def test_the_journal_of_another_dataset_is_worth_nothing():
    journal, lengths = written([(0, [(0, 100, 1)])])
    assert len(replay(journal, SEED + 1, lengths[-1])) == 0


@given(st.binary(max_size=200))
def test_garbage_replays_to_nothing(raw):
    assert len(replay(raw, SEED, 10**12)) == 0


@pytest.mark.parametrize("field", ["offset", "head_offset"])
@pytest.mark.parametrize("offset", [2**64 - 1, 2**64 - 50, 2**63])
def test_offsets_that_overflow_are_refused(field, offset):
    entries = block_entries(SEED, 0, [(0, 100, 1)], 0, 0, 100)
    entries[field] = offset
    raw = entries.tobytes()[:-4]
    forged = raw + zlib.crc32(raw, SEED).to_bytes(4, "little")
    assert len(replay(forged, SEED, 10**6)) == 0


def test_tombstones_are_replayed_too():
    journal = tombstone_entries(SEED, 5, [1, 2]).tobytes()
    entries = replay(journal, SEED, 0)
    assert (entries["kind"].tolist(), entries["block"].tolist()) == ([TOMBSTONE] * 2, [1, 2])
    assert set(entries["nchunk"]) == {5}


@pytest.mark.parametrize("kind", [0, 3, 255])
def test_a_kind_from_the_future_ends_the_replay(kind):
    """P11."""
    entries = tombstone_entries(SEED, 5, [1])
    entries["kind"] = kind
    raw = entries.tobytes()[:-4]
    assert len(replay(raw + zlib.crc32(raw, SEED).to_bytes(4, "little"), SEED, 0)) == 0


def test_a_record_of_the_journal_has_48_bytes():
    assert JOURNAL_DTYPE.itemsize == 48
    assert np.dtype(JOURNAL_DTYPE).fields["record_crc"][1] == 44
