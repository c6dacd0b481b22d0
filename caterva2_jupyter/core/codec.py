"""Blocks decoded and encoded: the only module that calls Blosc2's codecs.

Whatever comes from elsewhere is checked against the announced geometry before anything is allocated:
codecs and filters by an allow-list, sizes by arithmetic. It does not place blocks in arrays.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError
from .blocks import HEADER_NBYTES, BlockRecord, is_stored, make_record, mini_chunk, parse_layout, whole_record
from .dtypes import is_vlen
from .metadata import Geometry

__all__ = [
    "decode_record",
    "decode_runs",
    "decode_strings",
    "encode_blocks",
    "encode_chunk",
    "encode_strings",
    "even_runs",
    "is_portable",
]

Bytes = npt.NDArray[np.uint8]

# Without this the decoder keeps Python's global lock for the whole call.
blosc2.set_releasegil(True)

MAX_STRINGS_NBYTES = 1 << 30
_FORMATS = frozenset({0, 1, 3, 4})  # blosclz, lz4 and lz4hc, zlib, zstd; 7 would be a plugin
_FILTERS = frozenset({0, 1, 2, 3, 4, 35, 36})  # none, shuffle, bitshuffle, delta, trunc_prec, bytedelta, int_trunc


def is_portable(header: bytes) -> bool:
    """Can every client decode a chunk of this header (no plugin codec or filter)?"""
    if (header[2] & 5) != 5 or len(header) < HEADER_NBYTES:
        return True  # Blosc1: built-in codecs only
    return header[2] >> 5 in _FORMATS and all(f in _FILTERS for f in header[16:22])


def decode_record(record: BlockRecord, geometry: Geometry) -> Bytes:
    """Decoded bytes of a record's blocks, one after another (of the chunk, for a whole one).

    Not to be written to: blocks that are stored uncompressed are a view of the record.

    Raises
    ------
    IntegrityError
        When the record does not fit the geometry or does not decode.
    """
    chunk_nbytes = _checked_nbytes(record, geometry)
    if record.is_whole:
        return _decode_whole(record, geometry, chunk_nbytes)
    last = geometry.chunk_nblocks(record.nchunk) - 1
    return _decode(record, last, chunk_nbytes - last * geometry.block_nbytes, None)


def even_runs(count: int, most: int) -> list[int]:
    """Ends of runs of ``most`` blocks, the last one of what is left, for ``decode_runs``."""
    return [*range(most, count, most), count]


def decode_runs(
    record: BlockRecord, geometry: Geometry, ends: Sequence[int], memory: Callable[[int, int], Bytes | None]
) -> Iterator[tuple[int, int, Bytes]]:
    """Decode a record some blocks at a time, so that what is decoded is still near when it is copied.

    Parameters
    ----------
    record : BlockRecord
        Not of a whole chunk.
    ends : sequence of int
        Positions in ``record.ids`` after the last block of each run.
    memory : callable
        Told ``first, stop`` of a run, it gives the memory to decode it to; None is for a new array.

    Yields
    ------
    (first, stop, raw)
        Positions in ``record.ids``, and the decoded bytes of those blocks: in that memory, or a view of the record.

    Raises
    ------
    IntegrityError
        When the record does not fit the geometry or does not decode.
    """
    chunk_nbytes = _checked_nbytes(record, geometry)
    last = geometry.chunk_nblocks(record.nchunk) - 1
    last_nbytes = chunk_nbytes - last * geometry.block_nbytes
    if len(ends) == 1:
        yield 0, ends[0], _decode(record, last, last_nbytes, memory(0, ends[0]))
        return
    bounds = np.cumsum(record.sizes, dtype=np.int64)
    view = memoryview(record.body)
    first, position = 0, 0
    for stop in ends:
        end = int(bounds[stop - 1])
        ids, sizes, crcs = record.ids[first:stop], record.sizes[first:stop], record.crcs[first:stop]
        run = BlockRecord(record.nchunk, record.head, ids, sizes, crcs, view[position:end])
        yield first, stop, _decode(run, last, last_nbytes, memory(first, stop))
        first, position = stop, end


def _checked_nbytes(record: BlockRecord, geometry: Geometry) -> int:
    """Decoded bytes of the record's chunk, when the record can be of a chunk of this geometry."""
    if record.nchunk >= geometry.nchunks:
        raise IntegrityError(f"no chunk {record.nchunk} in a dataset of {geometry.nchunks}")
    chunk_nbytes = geometry.chunk_nbytes(record.nchunk)
    if record.is_whole:
        return chunk_nbytes
    nblocks = geometry.chunk_nblocks(record.nchunk)
    ids = record.ids
    if len(ids) == 0 or int(ids[-1]) >= nblocks or (len(ids) > 1 and not bool((ids[1:] > ids[:-1]).all())):
        raise IntegrityError(f"record of chunk {record.nchunk} has impossible block numbers")
    head_blocksize = struct.unpack_from("<i", record.head, 8)[0] if len(record.head) >= HEADER_NBYTES else 0
    block_nbytes = geometry.block_nbytes
    last = nblocks - 1
    last_nbytes = chunk_nbytes - last * block_nbytes
    expected = block_nbytes if not (len(ids) == 1 and int(ids[0]) == last) else last_nbytes
    if head_blocksize not in (block_nbytes, expected):
        raise IntegrityError(f"chunk {record.nchunk} has blocks of {head_blocksize} bytes, not {block_nbytes}")
    return chunk_nbytes


def _decode_whole(record: BlockRecord, geometry: Geometry, chunk_nbytes: int) -> Bytes:
    if len(record.body) < 16:
        raise IntegrityError(f"chunk {record.nchunk} is truncated")
    (nbytes,) = struct.unpack_from("<i", record.body, 4)
    limit = MAX_STRINGS_NBYTES if is_vlen(geometry.dtype) else chunk_nbytes
    if not 0 <= nbytes <= limit or (not is_vlen(geometry.dtype) and nbytes != chunk_nbytes):
        raise IntegrityError(f"chunk {record.nchunk} claims {nbytes} bytes, {chunk_nbytes} were announced")
    return _decompress(record.body, nbytes, record.nchunk, None)


def _decode(record: BlockRecord, last: int, last_nbytes: int, out: Bytes | None) -> Bytes:
    """Decode blocks, into ``out`` where that saves a copy."""
    if is_stored(record, last, last_nbytes):
        return np.frombuffer(record.body, np.uint8)
    mini = mini_chunk(record, last, last_nbytes)
    if mini.skip_nbytes:
        return _decompress(mini.chunk, mini.nbytes, record.nchunk, None)[mini.skip_nbytes :]
    return _decompress(mini.chunk, mini.nbytes, record.nchunk, out)


def _decompress(chunk: bytes | bytearray | memoryview, nbytes: int, nchunk: int, out: Bytes | None) -> Bytes:
    if not is_portable(bytes(chunk[:HEADER_NBYTES])):
        raise IntegrityError(f"chunk {nchunk} needs a codec or filter that is not allowed")
    if out is None:
        out = np.empty(nbytes, np.uint8)
    elif len(out) < nbytes:
        raise IntegrityError(f"chunk {nchunk} decodes to {nbytes} bytes, {len(out)} were expected")
    else:
        out = out[:nbytes]
    if nbytes == 0:
        return out
    try:
        # One thread: callers decode many chunks at once, and a pool per call costs more than it gives.
        done = blosc2.decompress2(chunk, dst=out, nthreads=1)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise IntegrityError(f"chunk {nchunk} does not decode") from error
    if isinstance(done, int) and done != nbytes:
        raise IntegrityError(f"chunk {nchunk} decodes to {done} bytes instead of {nbytes}")
    return out


def _compress(raw: bytes | memoryview, itemsize: int, block_nbytes: int, fast: bool) -> bytes:
    typesize = itemsize if 1 < itemsize <= 255 else 1
    filters = [blosc2.Filter.NOFILTER] * 5 + [blosc2.Filter.SHUFFLE if typesize > 1 else blosc2.Filter.NOFILTER]
    chunk = blosc2.compress2(
        raw,
        typesize=typesize,
        codec=blosc2.Codec.LZ4 if fast else blosc2.Codec.ZSTD,
        clevel=1,
        filters=filters,
        blocksize=block_nbytes,
        nthreads=1,
    )
    return bytes(chunk)


def stored_chunk_bytes(chunk: bytes, max_nbytes: int) -> Bytes | None:
    """What is in a chunk that is not compressed; None when it has to be decoded.

    Raises
    ------
    IntegrityError
        When it is truncated, or claims more than ``max_nbytes``.
    """
    if len(chunk) < HEADER_NBYTES:
        raise IntegrityError("truncated chunk")
    (nbytes,) = struct.unpack_from("<i", chunk, 4)
    if not 0 <= nbytes <= max_nbytes:
        raise IntegrityError(f"a chunk of {nbytes} bytes where at most {max_nbytes} are expected")
    if nbytes == 0:
        return np.empty(0, np.uint8)
    if parse_layout(chunk, len(chunk)).kind != "memcpy":
        return None
    return np.frombuffer(chunk, np.uint8, nbytes, HEADER_NBYTES)


DecodeChunk = Callable[[bytes, int], Bytes]
"""A chunk that is not part of an array (an index, a metalayer) decoded: told the bytes that it may have at most."""


def decode_chunk_bytes(chunk: bytes, max_nbytes: int) -> Bytes:
    """Decode a chunk that is not part of an array, here.

    Raises
    ------
    IntegrityError
        When it does not decode, or claims more than ``max_nbytes``.
    """
    stored = stored_chunk_bytes(chunk, max_nbytes)
    if stored is not None:
        return stored
    (nbytes,) = struct.unpack_from("<i", chunk, 4)
    geometry = Geometry((nbytes,), (nbytes,), (nbytes,), np.dtype("u1"), padded=False)
    return decode_record(whole_record(0, 0, chunk), geometry)


def encode_blocks(
    seed: int, nchunk: int, ids: Sequence[int], raw: bytes | memoryview, geometry: Geometry, fast: bool = False
) -> BlockRecord:
    """Compress some blocks of a chunk, ZSTD level 1 with shuffle (``fast``: LZ4).

    Parameters
    ----------
    seed : int
        ``checksum_seed`` of the dataset.
    ids : sequence of int
        Block numbers, ascending.
    raw : bytes-like
        The decoded blocks, one after another; block-major, padded as the geometry says.
    """
    block_nbytes = geometry.block_nbytes
    if len(ids) == 1 and len(raw) < block_nbytes and geometry.chunk_nblocks(nchunk) > 1:
        alone = _encode_last(seed, nchunk, ids, raw, geometry, fast)
        if alone is not None:
            return alone
    chunk = _compress(raw, geometry.itemsize, block_nbytes, fast)
    layout = parse_layout(chunk, len(chunk))
    # As of a full chunk, whichever blocks are asked for: a block and its head are the same in every answer.
    chunk_nbytes = geometry.full_chunk_nbytes
    if layout.kind == "special":
        return make_record(seed, nchunk, _with_sizes(layout.head, chunk_nbytes), ids, [b""] * len(ids))
    blocksize_fits = layout.blocksize == block_nbytes or (len(ids) == 1 and layout.blocksize == len(raw))
    if layout.kind == "whole" or not blocksize_fits or layout.nblocks != len(ids):
        # Blosc2 would not use that block size (tiny or odd ones): send the blocks as they are.
        head = _with_sizes(_memcpy_head(geometry, len(raw)), chunk_nbytes, HEADER_NBYTES)
        return make_record(seed, nchunk, head, ids, _split(raw, block_nbytes))
    bodies = [_block(chunk, o, s) for o, s in zip(layout.offsets, layout.sizes, strict=True)]
    return make_record(seed, nchunk, _with_sizes(layout.head, chunk_nbytes, HEADER_NBYTES), ids, bodies)


def _encode_last(
    seed: int, nchunk: int, ids: Sequence[int], raw: bytes | memoryview, geometry: Geometry, fast: bool
) -> BlockRecord | None:
    """A short last block by itself, as it is in a chunk; None where Blosc2 would not make blocks of it."""
    block_nbytes = geometry.block_nbytes
    chunk = _compress(bytes(block_nbytes) + bytes(raw), geometry.itemsize, block_nbytes, fast)
    layout = parse_layout(chunk, len(chunk))
    if layout.blocksize != block_nbytes:
        return None
    if layout.kind == "special":
        return make_record(seed, nchunk, _with_sizes(layout.head, geometry.full_chunk_nbytes), ids, [b""])
    if layout.kind != "blocks" or layout.nblocks != 2:
        return None
    head, body = layout.head, _block(chunk, layout.offsets[1], layout.sizes[1])
    if len(body) >= len(raw):
        chunk = _compress(raw, geometry.itemsize, block_nbytes, fast)
        layout = parse_layout(chunk, len(chunk))
        if layout.kind != "memcpy":
            return None
        head = layout.head[:8] + struct.pack("<i", block_nbytes) + layout.head[12:]
        body = memoryview(raw)
    return make_record(seed, nchunk, _with_sizes(head, geometry.full_chunk_nbytes, HEADER_NBYTES), ids, [body])


def _with_sizes(head: bytes, nbytes: int, cbytes: int | None = None) -> bytes:
    """A chunk's head with other sizes in it; whoever decodes with it puts their own there."""
    out = bytearray(head)
    struct.pack_into("<i", out, 4, nbytes)
    if cbytes is not None:
        struct.pack_into("<i", out, 12, cbytes)
    return bytes(out)


def _block(chunk: bytes, offset: Any, size: Any) -> memoryview:
    return memoryview(chunk)[int(offset) : int(offset) + int(size)]


def _split(raw: bytes | memoryview, block_nbytes: int) -> list[memoryview]:
    view = memoryview(raw)
    return [view[i : i + block_nbytes] for i in range(0, max(len(view), 1), block_nbytes)]


def _memcpy_head(geometry: Geometry, nbytes: int) -> bytes:
    typesize = geometry.itemsize if geometry.itemsize <= 255 else 1
    blocksize = geometry.block_nbytes if nbytes > geometry.block_nbytes else nbytes
    fields = struct.pack("<BBBBiii", 5, 1, 0x17, max(typesize, 1), nbytes, blocksize, HEADER_NBYTES + nbytes)
    return fields + bytes(16)


def encode_chunk(seed: int, nchunk: int, raw: bytes | memoryview, geometry: Geometry) -> BlockRecord:
    """Compress all blocks of a chunk."""
    return encode_blocks(seed, nchunk, range(geometry.chunk_nblocks(nchunk)), raw, geometry)


def encode_strings(seed: int, nchunk: int, strings: Sequence[str]) -> BlockRecord:
    """A chunk of strings: ``int32 offsets[n + 1]`` (little endian), then their UTF-8."""
    encoded = [s.encode("utf-8", "surrogateescape") for s in strings]
    offsets = np.zeros(len(encoded) + 1, "<i4")
    np.cumsum([len(e) for e in encoded], out=offsets[1:])
    raw = offsets.tobytes() + b"".join(encoded)
    return whole_record(seed, nchunk, _compress(raw, 1, min(len(raw), 1 << 20), fast=False))


def decode_strings(raw: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.object_]:
    """The strings of a decoded chunk.

    Raises
    ------
    IntegrityError
        When the offsets do not lie in the bytes in order.
    """
    head = 4 * (count + 1)
    if len(raw) < head:
        raise IntegrityError("truncated chunk of strings")
    offsets = raw[:head].view("<i4").astype(np.int64)
    if offsets[0] != 0 or bool(np.any(np.diff(offsets) < 0)) or int(offsets[-1]) != len(raw) - head:
        raise IntegrityError("chunk of strings with impossible offsets")
    text = raw[head:].tobytes()
    out = np.empty(count, dtype=object)
    for i, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        out[i] = text[start:stop].decode("utf-8", "surrogateescape")
    return out
