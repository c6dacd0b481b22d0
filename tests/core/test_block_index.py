"""The journal of a cache, looked up: always what replaying it record by record would give."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.block_index import BlockIndex
from caterva2_jupyter.core.blocks import WHOLE
from caterva2_jupyter.core.cache_format import JOURNAL_DTYPE, block_entries, tombstone_entries

CHANGES = st.lists(
    st.tuples(
        st.integers(0, 3) | st.just(2**40),
        st.sets(st.integers(0, 6), min_size=1) | st.just({WHOLE}),
        st.booleans(),
    ),
    max_size=12,
)


@given(CHANGES, st.integers(0, 12), st.sets(st.integers(0, 6), min_size=1))
@settings(max_examples=300, deadline=None)
def test_lookups_are_those_of_a_dictionary(changes, split, wanted):
    model, parts = {}, [np.zeros(0, JOURNAL_DTYPE)]
    for offset, (nchunk, blocks, is_gone) in enumerate(changes):
        if is_gone:
            parts.append(tombstone_entries(0, nchunk, sorted(blocks)))
            for block in blocks:
                model.pop((nchunk, block), None)
        else:
            parts.append(block_entries(0, nchunk, [(b, 10, 0) for b in sorted(blocks)], 100 * offset, 0, 32))
            for position, block in enumerate(sorted(blocks)):
                model[nchunk, block] = 100 * offset + 10 * position
    index = BlockIndex(np.concatenate(parts[: split + 1]))
    for part in parts[split + 1 :]:
        index.update(part)
    blocks = sorted(wanted)
    for nchunk in (0, 1, 2, 3, 4, 2**40):
        rows = index.chunk(nchunk)
        kept = {block: at for (n, block), at in model.items() if n == nchunk}
        assert dict(zip(rows["block"].tolist(), rows["offset"].tolist(), strict=True)) == kept
        found = index.find(nchunk, np.array(blocks))
        if WHOLE in kept:
            assert found["offset"].tolist() == [kept[WHOLE]]
        elif all(block in kept for block in blocks):
            assert found["offset"].tolist() == [kept[block] for block in blocks]
        else:
            assert found is None


def test_many_changed_chunks_are_folded_into_the_table():
    index = BlockIndex(np.zeros(0, JOURNAL_DTYPE))
    for first in range(0, 6000, 500):
        index.update(np.concatenate([block_entries(0, n, [(1, 5, 0)], n, 0, 32) for n in range(first, first + 500)]))
    assert all(index.find(n, np.array([1]))["offset"].tolist() == [n] for n in range(6000))
    assert len(index._state[2]) <= 4096 + len(index._state[0]) // 8
