"""Cutting reads: every wanted block in one segment, and requests that say just what is missing."""

from __future__ import annotations

import numpy as np

from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.core.selection import Selection
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.subscriber import segments
from caterva2_jupyter.subscriber.segments import Segments


def test_the_plan_of_a_read_is_cut_without_gaps_or_repeats() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        ndim = int(rng.integers(1, 4))
        shape = tuple(int(n) for n in rng.integers(1, 40, ndim))
        chunks = tuple(int(rng.integers(1, n + 1)) for n in shape)
        blocks = tuple(int(rng.integers(1, n + 1)) for n in chunks)
        geometry = Geometry(shape, chunks, blocks, np.dtype("i4"))
        plan = BlockPlan(geometry, Selection.whole(shape))
        order = [(p.nchunk, b) for p in plan for b in p.blocks.tolist()]
        first, stop = sorted(rng.integers(0, len(order) + 1, 2).tolist())
        held = rng.random(stop - first) < rng.choice([0, 0.3, 0.9])
        entry = Entry("a", "array", id="a", version="v", geometry=geometry)
        request = ReadRequest("foo", "a", "v", None, (first, stop), held)
        cut = Segments(entry, request)
        cut._block_cbytes = segments.WINDOW_NBYTES / int(rng.integers(1, 30))
        asked: list[tuple[int, int]] = []
        while (segment := cut.next()) is not None:
            wanted = segment.wanted()
            assert wanted
            asked += [(n, b) for n, ids in wanted.items() for b in ids.tolist()]
            some = {n: ids[:: int(rng.integers(1, 3))] for n, ids in wanted.items()}
            sub = segment.request(geometry, request, some)
            assert sub.window is not None
            inside = order[slice(*sub.window)]
            mask = np.zeros(len(inside), np.bool_) if sub.held is None else sub.held
            sent = [b for b, is_held in zip(inside, mask, strict=True) if not is_held]
            assert sent == [(n, b) for n, ids in some.items() for b in ids.tolist()]
        assert asked == [b for b, is_held in zip(order[first:stop], held, strict=True) if not is_held]
