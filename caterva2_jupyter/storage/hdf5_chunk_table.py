"""Where the chunks of an HDF5 dataset are, and what stands for their state in a file that grows while it is read.

It runs in the worker process only.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5s, h5z

from .hdf5_chunks import CHUNK_TABLE

__all__ = ["chunk_table", "live_state"]

_MAX_SMALL_NBYTES = 64 << 10
_MAX_END_CHUNKS = 256
_MAX_END_NBYTES = 32 << 20


def live_state(dsid: Any, form: dict[str, Any], extent: tuple[int, ...]) -> str:
    """The state of what lies inside of ``extent``, in a file that grows while it is read.

    SWMR writers append: what they may still write to are chunks at the end of an axis that can grow. So the
    places of all other chunks, and the items of those that are inside, stand for all. Appended items change
    nothing of it. Empty when only the file's state can tell, or when the dataset is smaller now.
    """
    if "sources" in form or form["mode"] in ("strings", "external"):
        return ""
    now, most = dsid.get_space().get_simple_extent_dims(), dsid.get_space().get_simple_extent_dims(True)
    if any(n < wanted for n, wanted in zip(now, extent, strict=True)):
        return ""
    digest = hashlib.blake2b(digest_size=12)
    dcpl = dsid.get_create_plist()
    if dcpl.get_layout() != h5d.CHUNKED:
        if math.prod(dsid.shape) * dsid.get_type().get_size() > _MAX_SMALL_NBYTES:
            return ""
        digest.update(np.ascontiguousarray(h5py.Dataset(dsid)[()]).tobytes())
        return f"live.{digest.hexdigest()}"
    table = chunk_table(dsid, extent)
    chunks = dcpl.get_chunk()
    grid = [max(1, -(-n // c)) for n, c in zip(extent, chunks, strict=True)]
    coords = np.array(np.unravel_index(table["nchunk"], grid)).reshape(len(grid), -1)
    at_end = np.zeros(len(table), dtype=bool)
    for axis, (n, limit) in enumerate(zip(extent, most, strict=True)):
        if limit == h5s.UNLIMITED or limit > n:
            at_end |= coords[axis] == grid[axis] - 1
    if at_end.sum() > _MAX_END_CHUNKS or int(table["nbytes"][at_end].sum()) > _MAX_END_NBYTES:
        return ""
    digest.update(table[~at_end].tobytes())
    digest.update(table["nchunk"][at_end].tobytes())
    can_decode = all(h5z.filter_avail(dcpl.get_filter(i)[0]) for i in range(dcpl.get_nfilters()))
    for place in coords[:, at_end].T.tolist():
        start = tuple(i * c for i, c in zip(place, chunks, strict=True))
        is_full = all(a + c <= n for a, c, n in zip(start, chunks, extent, strict=True))
        if is_full or not can_decode:
            digest.update(dsid.read_direct_chunk(start)[1])
        else:
            box = tuple(slice(a, min(a + c, n)) for a, c, n in zip(start, chunks, extent, strict=True))
            digest.update(np.ascontiguousarray(h5py.Dataset(dsid)[box]).tobytes())
    return f"live.{digest.hexdigest()}"


def chunk_table(dsid: Any, shape: tuple[int, ...]) -> npt.NDArray[np.void]:
    """Rows of (nchunk, offset, nbytes, mask) of the chunks that are stored, numbered as in that shape."""
    chunks = dsid.get_create_plist().get_chunk()
    rows: list[tuple[tuple[int, ...], int, int, int]] = []
    if dsid.get_num_chunks():
        dsid.chunk_iter(lambda c: rows.append((c.chunk_offset, c.byte_offset, c.size, c.filter_mask)))
    grid = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    table = np.zeros(len(rows), CHUNK_TABLE)
    if rows and math.prod(grid):
        coords = np.array([r[0] for r in rows], np.int64) // np.array(chunks, np.int64)
        inside = np.all(coords < np.array(grid), axis=1)
        strides = np.array([math.prod(grid[i + 1 :]) for i in range(len(grid))], np.int64)
        table["nchunk"] = (coords * strides).sum(axis=1)
        table["offset"], table["nbytes"], table["mask"] = ([r[i] for r in rows] for i in (1, 2, 3))
        table = np.sort(table[inside], order="nchunk")
    else:
        table = table[:0]
    return table
