"""A cached version as a native ``.b2nd``: its blocks joined to chunks again, nothing decompressed.

Complete versions only: in a Blosc2 file a block that is not there would read as zeros. What a ``.b2nd`` cannot
hold as it is stored (chunks clipped at the edges, runs of items, strings of variable length) is refused.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from ..core.blocks import HEADER_NBYTES, BlockRecord, mini_chunk
from ..core.chunk_grid import BlockPlan
from ..core.codec import decode_record, encode_chunk
from ..core.dtypes import is_vlen
from ..core.metadata import Geometry
from ..core.selection import Selection
from ..errors import IntegrityError, NotCachedError, UnsupportedDatasetError
from .block_cache import CachedVersion
from .frame_format import TRAILER_TAIL_NBYTES, header_nbytes, trailer_nbytes

__all__ = ["seal"]

_FRAME_NBYTES_AT, _CBYTES_AT = 16, 39
_DELTA = 3


def seal(version: CachedVersion, goal: Path, attrs: Mapping[str, Any]) -> None:
    """Write all of a version to a file that ``blosc2.open`` reads.

    Parameters
    ----------
    version : CachedVersion
    goal : Path
        Written in place, mode 0600; removed again when something fails.
    attrs : mapping
        To become ``vlmeta``; values as Python has them.

    Raises
    ------
    NotCachedError
        When blocks are missing.
    UnsupportedDatasetError
        When a ``.b2nd`` cannot hold its chunks as they are.
    OSError
        When the file cannot be written.
    """
    geometry = version.geometry
    refusal = _refusal(geometry)
    if refusal:
        raise UnsupportedDatasetError(
            f"{version.root}/{version.path} cannot be sealed: {refusal}; download() writes a .b2nd of its values"
        )
    missing = _count_missing(version)
    if missing:
        raise _incomplete(version, missing)
    template = _empty_frame(geometry, attrs)
    header = bytearray(template[: header_nbytes(template)])
    trailer = template[-trailer_nbytes(template[-TRAILER_TAIL_NBYTES:]) :]
    fd = os.open(goal, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb", buffering=1 << 20) as file:
            file.write(header)
            cbytes = 0
            offsets = np.zeros(geometry.nchunks, "<i8")
            for projection in _everything(geometry):
                chunk = _whole_chunk(version, projection.nchunk, projection.blocks)
                offsets[projection.nchunk] = cbytes
                cbytes += len(chunk)
                file.write(chunk)
            index = blosc2.compress2(offsets, typesize=8, codec=blosc2.Codec.BLOSCLZ, nthreads=1)
            file.write(index)
            file.write(trailer)
            struct.pack_into(">Q", header, _FRAME_NBYTES_AT, len(header) + cbytes + len(index) + len(trailer))
            struct.pack_into(">q", header, _CBYTES_AT, cbytes)
            file.seek(0)
            file.write(header)
    except BaseException:
        goal.unlink(missing_ok=True)
        raise


def _refusal(geometry: Geometry) -> str:
    if is_vlen(geometry.dtype):
        return "it has strings of variable length"
    if geometry.ndim == 0 or geometry.size == 0:
        return "it has no chunks"
    if geometry.layout != "nd" and geometry.blocks != (math.prod(geometry.chunks),):
        return "its blocks are runs of items"
    if not geometry.padded:
        return "its chunks at the edges are cut off"
    return ""


def _everything(geometry: Geometry) -> BlockPlan:
    """Every chunk, with its blocks that have items in them: those all in the padding are never asked for."""
    return BlockPlan(geometry, Selection.whole(geometry.shape))


def _count_missing(version: CachedVersion) -> int:
    wanted = ((projection.nchunk, projection.blocks) for projection in _everything(version.geometry))
    missing = 0
    while batch := list(itertools.islice(wanted, 1000)):
        missing += int((~version.held_all(batch)).sum())
    return missing


def _incomplete(version: CachedVersion, missing: int) -> NotCachedError:
    return NotCachedError(
        f"{missing} blocks of {version.root}/{version.path} are not in the cache, and a file has to have them all: "
        "prefetch it first"
    )


def _empty_frame(geometry: Geometry, attrs: Mapping[str, Any]) -> bytes:
    """A frame of the same shape with no data, whose header and trailer serve."""
    cparams = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, nthreads=1)
    # A run that is the whole chunk is a block of its shape.
    blocks = geometry.blocks if geometry.layout == "nd" else geometry.chunks
    try:
        array = blosc2.uninit(
            geometry.shape, dtype=geometry.dtype, chunks=geometry.chunks, blocks=blocks, cparams=cparams
        )
        for name, value in attrs.items():
            array.schunk.vlmeta[name] = _packable(value)
        return bytes(array.to_cframe())
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise UnsupportedDatasetError(f"an array of {geometry.dtype} cannot be sealed: {error}") from error


def _packable(value: Any) -> Any:
    """What msgpack can write: NumPy's values as Python's."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _whole_chunk(version: CachedVersion, nchunk: int, needed: npt.NDArray[np.int64]) -> bytes | bytearray | memoryview:
    geometry = version.geometry
    records = version.get(nchunk, needed)
    if len(records) == 1 and records[0].is_whole and not _is_delta(records[0]):
        return records[0].body
    missing = len(needed) - sum(len(needed) if record.is_whole else len(record.ids) for record in records)
    if missing > 0:
        raise _incomplete(version, missing)
    is_ready = len(records) == 1 and not records[0].is_whole
    record = records[0] if is_ready else _recoded(version, nchunk, records)
    last = geometry.chunk_nblocks(nchunk) - 1
    return mini_chunk(_with_padding(record, last + 1), last, geometry.block_nbytes).chunk


def _with_padding(record: BlockRecord, nblocks: int) -> BlockRecord:
    """The record of a chunk with zeros for the blocks that are all padding."""
    if len(record.ids) == nblocks:
        return record
    head = record.head
    if head[31] & 0x70:  # a constant
        filler = b""
    elif head[2] & 0x02:  # not compressed
        filler = bytes(struct.unpack_from("<i", head, 8)[0])
    else:  # of each stream, that it has no bytes: it is all zeros
        filler = bytes(4) * (1 if head[2] & 0x10 else head[3])
    bodies = {block: bytes(body) for block, _, body in record.blocks()}
    parts = [bodies.get(block, filler) for block in range(nblocks)]
    sizes = np.array([len(part) for part in parts], np.uint32)
    return BlockRecord(record.nchunk, head, np.arange(nblocks, dtype=np.uint32), sizes, sizes, b"".join(parts))


def _is_delta(record: BlockRecord) -> bool:
    # Blosc2 reads parts of such chunks wrong, as it does at the edges of an array.
    return len(record.body) >= HEADER_NBYTES and _DELTA in bytes(record.body[16:22])


def _recoded(version: CachedVersion, nchunk: int, records: list[BlockRecord]) -> BlockRecord:
    """Compressed again: blocks that do not go in one chunk as they are, or would be read wrong."""
    geometry = version.geometry
    raw = bytearray(geometry.chunk_nbytes(nchunk))
    for record in records:
        decoded = decode_record(record, geometry)
        if record.is_whole:
            raw[:] = decoded.tobytes()
            continue
        position = 0
        for block in record.ids.tolist():
            start = block * geometry.block_nbytes
            nbytes = min(geometry.block_nbytes, len(raw) - start)
            raw[start : start + nbytes] = decoded[position : position + nbytes].tobytes()
            position += nbytes
    made = encode_chunk(version.seed, nchunk, bytes(raw), geometry)
    if made.is_whole:
        raise IntegrityError(f"chunk {nchunk} of {version.path!r} cannot be put together again")
    return made
