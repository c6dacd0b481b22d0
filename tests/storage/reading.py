"""How tests read through a root: every record verified, then assembled as a client does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2_jupyter.core.assembly import Assembler
from caterva2_jupyter.core.blocks import BlockRecord, checksum_seed
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.selection import Selection, parse_basic
from caterva2_jupyter.storage.root import Root


def records_of(root: Root, entry: Entry, selection: Selection) -> list[BlockRecord]:
    """The records of a selection, verified."""
    assert entry.geometry is not None
    records: list[BlockRecord] = []
    for projection in BlockPlan(entry.geometry, selection):
        records += root.read_chunk(entry, projection, projection.blocks.tolist())
    for record in records:
        record.verify(checksum_seed(entry.id, entry.version))
    return records


def read(root: Root, entry: Entry, key: Any = ...) -> npt.NDArray[Any]:
    """What NumPy's basic indexing with ``key`` gives."""
    assert entry.geometry is not None
    parsed = parse_basic(key, entry.geometry.shape)
    assembler = Assembler(entry.geometry, parsed.selection)
    records = {}
    for record in records_of(root, entry, parsed.selection):
        records.setdefault(record.nchunk, []).append(record)
    for projection in BlockPlan(entry.geometry, parsed.selection):
        for record in records[projection.nchunk]:
            assembler.add(projection, record)
    return np.asarray(parsed.apply(assembler.out))


def entries_of(root: Root) -> dict[str, Entry]:
    return {entry.path: entry for entry, _ in root.scan([])}
