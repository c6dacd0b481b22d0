"""Stored HDF5 chunks as Blosc2 blocks: re-framed byte for byte where a pipeline allows it, never decompressed.

deflate, zstd, LZ4, Blosc1, Blosc2 and bitshuffle chunks, with shuffle and fletcher32, become records that
any Blosc2 decodes. ``chunk_record`` answers None for a chunk that is not what its pipeline promises (or
cannot be told from an uncompressed one): then HDF5 has to decode it. No file is opened here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.blocks import HEADER_NBYTES, BlockRecord, index_nbytes, make_record, parse_layout, whole_record
from ..core.codec import decode_record, encode_blocks, is_portable
from ..core.metadata import Geometry
from ..errors import IntegrityError

__all__ = [
    "CHUNK_TABLE",
    "Fetch",
    "Pipeline",
    "array_record",
    "chunk_record",
    "contiguous_chunks",
    "fetch_blocks",
    "fill_record",
    "has_fletcher32",
    "merged_chunks",
    "plan_pipeline",
]

CHUNK_TABLE = np.dtype([("nchunk", "<i8"), ("offset", "<i8"), ("nbytes", "<i8"), ("mask", "<u4")])
"""Rows of a dataset's chunk index: where chunk ``nchunk`` is in the file."""

Fetch = Callable[[int, int], bytes]
"""``fetch(offset, nbytes)``: bytes of a stored chunk, from its start."""

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_BLOSC1, _LZ4, _BITSHUFFLE, _ZSTD, _BLOSC2 = 32001, 32004, 32008, 32015, 32026
_CODECS = {
    _DEFLATE: "deflate", _BLOSC1: "blosc1", _LZ4: "lz4", _BITSHUFFLE: "bitshuffle", _ZSTD: "zstd", _BLOSC2: "blosc2",
}  # fmt: skip
_FORMAT = {"lz4": 1, "deflate": 3, "zstd": 4}
_BITSHUFFLE_CODECS = {2: "lz4", 3: "zstd"}
_MAX_TYPESIZE = 255  # one byte of the chunk header
_SPECIAL_ZERO, _SPECIAL_VALUE = 0x10, 0x30


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A filter pipeline that Blosc2 can undo.

    Attributes
    ----------
    codec : str
        ``raw`` (none), ``deflate``, ``zstd``, ``lz4``, ``blosc1``, ``blosc2``, ``bitshuffle``.
    codec_bit, shuffle_bit, fletcher32_bit : int
        Place in the pipeline, which is the bit of a chunk's filter mask that says it was skipped; -1 for none.
    shuffle : int
        Bytes per element of the shuffle filter; 0 for none.
    inner : str
        The codec inside of bitshuffle.
    block_nbytes : int
        Bytes of a block where the pipeline makes blocks of its own, as far as its options tell; else 0.
    """

    codec: str
    codec_bit: int = -1
    shuffle: int = 0
    shuffle_bit: int = -1
    fletcher32_bit: int = -1
    inner: str = ""
    block_nbytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Pipeline:
        return cls(**form)


def plan_pipeline(filters: Sequence[tuple[int, Sequence[int]]], itemsize: int) -> Pipeline | None:
    """How to undo a pipeline with Blosc2; None when HDF5 has to.

    Parameters
    ----------
    filters : sequence of (filter id, options)
        As written: the first is applied first.

    Examples
    --------
    >>> plan_pipeline([(2, [4]), (1, [6])], 4).codec
    'deflate'
    >>> plan_pipeline([(4, [141, 32])], 4) is None  # szip
    True
    """
    codec, codec_bit, shuffle, shuffle_bit, fletcher32_bit = "raw", -1, 0, -1, -1
    options: Sequence[int] = ()
    for bit, (number, values) in enumerate(filters):
        if fletcher32_bit >= 0:
            return None  # a checksum of something else than what is stored
        if number == _SHUFFLE and codec == "raw" and shuffle_bit < 0:
            shuffle, shuffle_bit = (int(values[0]) if values else itemsize), bit
        elif number == _FLETCHER32:
            fletcher32_bit = bit
        elif number in _CODECS and codec == "raw":
            codec, codec_bit, options = _CODECS[number], bit, values
        else:
            return None
    if shuffle == 1:
        shuffle = 0
    if shuffle > _MAX_TYPESIZE or (shuffle and codec in ("blosc1", "blosc2", "bitshuffle")):
        return None
    inner, block_nbytes = "", 0
    if codec == "bitshuffle":
        inner = _BITSHUFFLE_CODECS.get(int(options[4]) if len(options) > 4 else 0, "")
        if not inner or itemsize > _MAX_TYPESIZE or int(options[2]) != itemsize:
            return None
        block_nbytes = _bitshuffle_block_items(itemsize, int(options[3])) * itemsize
    if codec == "lz4" and options and not shuffle:
        block_nbytes = int(options[0])
    return Pipeline(codec, codec_bit, shuffle, shuffle_bit, fletcher32_bit, inner, block_nbytes)


def _bitshuffle_block_items(itemsize: int, option: int) -> int:
    """Items per block that bitshuffle chooses when it is not told (8 kB, but at least 128 items)."""
    return option or max(8192 // itemsize // 8 * 8, 128)


def chunk_record(
    seed: int,
    nchunk: int,
    wanted: Sequence[int],
    geometry: Geometry,
    pipeline: Pipeline,
    mask: int,
    stored_nbytes: int,
    fetch: Fetch,
) -> BlockRecord | None:
    """Blocks of one stored chunk, or None when HDF5 has to decode it.

    Parameters
    ----------
    seed : int
        ``checksum_seed`` of the dataset.
    wanted : sequence of int
        Block numbers, ascending.
    mask : int
        The chunk's filter mask: a bit set for each filter that was skipped.
    stored_nbytes : int
    fetch : callable
        Reads the stored chunk.

    Raises
    ------
    IntegrityError
        When the chunk fails its own checksum (fletcher32).
    """

    def used(bit: int) -> bool:
        return bit >= 0 and not mask >> bit & 1

    if used(pipeline.fletcher32_bit):
        payload = fetch(0, stored_nbytes)
        if not has_fletcher32(payload):
            raise IntegrityError(f"chunk {nchunk} fails its fletcher32 checksum")
        stored_nbytes -= 4
        whole = payload

        def fetch(offset: int, nbytes: int) -> bytes:
            return whole[offset : offset + nbytes]

    nbytes = geometry.full_chunk_nbytes
    shuffle = pipeline.shuffle if used(pipeline.shuffle_bit) else 0
    if not used(pipeline.codec_bit):
        if stored_nbytes != nbytes:
            return None
        if shuffle:
            return _one_block(seed, nchunk, geometry, "lz4", shuffle, fetch(0, nbytes))
        return _raw_record(seed, nchunk, wanted, geometry, fetch)
    if pipeline.codec == "blosc2":
        return _blosc2_record(seed, nchunk, wanted, geometry, stored_nbytes, fetch)
    payload = fetch(0, stored_nbytes)
    if len(payload) < stored_nbytes:
        raise IntegrityError(f"chunk {nchunk} is truncated")
    if pipeline.codec == "blosc1":
        return _blosc1_record(seed, nchunk, payload, nbytes)
    if pipeline.codec == "bitshuffle":
        return _bitshuffle_record(seed, nchunk, wanted, geometry, pipeline.inner, payload)
    if pipeline.codec == "lz4":
        return _lz4_record(seed, nchunk, wanted, geometry, shuffle, payload)
    # Blosc2 takes a stream as long as its block for an uncompressed one.
    if len(payload) == nbytes or not _looks_like(pipeline.codec, payload):
        return None
    return _one_block(seed, nchunk, geometry, pipeline.codec, shuffle, payload)


def _looks_like(codec: str, payload: bytes) -> bool:
    if codec == "deflate":
        return len(payload) > 6 and payload[0] & 15 == 8 and (payload[0] << 8 | payload[1]) % 31 == 0
    return payload[:4] == b"\x28\xb5\x2f\xfd"


def _head(codec: str, typesize: int, filter_code: int, nbytes: int, blocksize: int) -> bytes:
    """Header of a chunk whose blocks are one stream each; ``mini_chunk`` puts in the final sizes."""
    flags = 0x15 | _FORMAT[codec] << 5
    fields = struct.pack("<BBBBiii", 5, 1, flags, typesize, nbytes, blocksize, HEADER_NBYTES)
    return fields + bytes([0] * 5 + [filter_code]) + bytes(10)


def _stream(data: bytes | memoryview) -> bytes:
    return struct.pack("<i", len(data)) + data


def _one_block(
    seed: int, nchunk: int, geometry: Geometry, codec: str, shuffle: int, payload: bytes
) -> BlockRecord | None:
    nbytes = geometry.full_chunk_nbytes
    if geometry.chunk_nblocks(nchunk) != 1:
        return None
    head = _head(codec, shuffle or min(max(geometry.itemsize, 1), _MAX_TYPESIZE), int(shuffle > 0), nbytes, nbytes)
    return make_record(seed, nchunk, head, [0], [_stream(payload)])


def _memcpy_head(typesize: int, nbytes: int, blocksize: int) -> bytes:
    fields = struct.pack("<BBBBiii", 5, 1, 0x17, typesize, nbytes, min(blocksize, nbytes), HEADER_NBYTES + nbytes)
    return fields + bytes(16)


def _raw_record(seed: int, nchunk: int, wanted: Sequence[int], geometry: Geometry, fetch: Fetch) -> BlockRecord | None:
    """Blocks of an uncompressed chunk, in the array's own order of items."""
    if geometry.layout == "nd" and geometry.chunk_nblocks(nchunk) != 1:
        return None
    raw = fetch_blocks(geometry, nchunk, wanted, fetch)
    return encode_blocks(seed, nchunk, wanted, raw, geometry)


def fetch_blocks(geometry: Geometry, nchunk: int, wanted: Sequence[int], fetch: Fetch) -> bytes:
    """Runs of items as they are stored, neighbours in one read."""
    size, end = geometry.block_nbytes, geometry.chunk_nbytes(nchunk)
    parts: list[bytes] = []
    first = previous = wanted[0]
    for block in [*wanted[1:], -1]:
        if block == previous + 1:
            previous = block
            continue
        start, stop = first * size, min((previous + 1) * size, end)
        part = fetch(start, stop - start)
        if len(part) != stop - start:
            raise IntegrityError(f"chunk {nchunk} is truncated")
        parts.append(part)
        first = previous = block
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _blosc1_record(seed: int, nchunk: int, payload: bytes, nbytes: int) -> BlockRecord | None:
    if len(payload) < 16:
        return None
    claimed, _, cbytes = struct.unpack_from("<iii", payload, 4)
    snappy = payload[2] >> 5 == 2
    if payload[0] > 2 or claimed != nbytes or not 16 <= cbytes <= len(payload) or snappy:
        return None
    return whole_record(seed, nchunk, payload[:cbytes])


def _blosc2_record(
    seed: int, nchunk: int, wanted: Sequence[int], geometry: Geometry, stored_nbytes: int, fetch: Fetch
) -> BlockRecord | None:
    """Blocks of the only chunk of a frame."""
    frame = fetch(0, min(stored_nbytes, 1 << 16))
    if len(frame) < 0x30 or frame[2:9] != b"b2frame":
        return None
    (start,) = struct.unpack_from(">i", frame, 11)
    (cbytes,) = struct.unpack_from(">q", frame, 0x27)
    if not 0x30 <= start <= stored_nbytes - HEADER_NBYTES or not HEADER_NBYTES <= cbytes <= stored_nbytes - start:
        return None  # a constant chunk is only in the frame's index

    def read(offset: int, nbytes: int) -> bytes:
        at = start + offset
        data = frame[at : at + nbytes]
        return data if len(data) == nbytes else fetch(at, nbytes)

    header = read(0, HEADER_NBYTES)
    # The memcpyed bit of "use_dict" chunks is repaired by parse_layout, so the header alone decides.
    need = index_nbytes(header)
    prefix = read(0, min(max(need, HEADER_NBYTES), cbytes))
    if header[31] & 1 and not header[31] & 0x70 and not header[2] & 2:
        (dictionary,) = struct.unpack_from("<i", prefix, need - 4)
        if not 0 <= dictionary <= cbytes:
            return None
        prefix = read(0, need + dictionary)
    layout = parse_layout(prefix, cbytes)
    if layout.nbytes != geometry.full_chunk_nbytes or not is_portable(header):
        return None
    if layout.kind == "whole":
        return whole_record(seed, nchunk, read(0, cbytes))
    if layout.blocksize != geometry.block_nbytes and not (
        geometry.chunk_nblocks(nchunk) == 1 and layout.blocksize == layout.nbytes
    ):
        return None
    if layout.kind == "special":
        return make_record(seed, nchunk, layout.head, wanted, [b""] * len(wanted))
    bodies = [read(int(layout.offsets[i]), int(layout.sizes[i])) for i in wanted]
    return make_record(seed, nchunk, layout.head, wanted, bodies)


def _lz4_record(
    seed: int, nchunk: int, wanted: Sequence[int], geometry: Geometry, shuffle: int, payload: bytes
) -> BlockRecord | None:
    nbytes = geometry.full_chunk_nbytes
    if len(payload) < 12:
        return None
    total, blocksize = struct.unpack_from(">QI", payload)
    streams = _framed_streams(payload, 12, -(-total // blocksize) if blocksize else 0)
    if total != nbytes or streams is None:
        return None
    if len(streams) == 1:
        return _one_block(seed, nchunk, geometry, "lz4", shuffle, bytes(streams[0]))
    if geometry.layout != "flat" or blocksize != geometry.block_nbytes or shuffle:
        return None
    head = _head("lz4", 1, 0, nbytes, blocksize)
    return make_record(seed, nchunk, head, wanted, [_stream(streams[i]) for i in wanted])


def _framed_streams(payload: bytes, offset: int, count: int) -> list[memoryview] | None:
    """``count`` streams, each after its length in four bytes, big endian."""
    if not 0 < count <= len(payload) // 4:
        return None
    view, streams = memoryview(payload), []
    for _ in range(count):
        if offset + 4 > len(payload):
            return None
        size = int.from_bytes(payload[offset : offset + 4], "big")
        offset += 4
        if size == 0 or offset + size > len(payload):
            return None
        streams.append(view[offset : offset + size])
        offset += size
    return streams


def _bitshuffle_record(
    seed: int, nchunk: int, wanted: Sequence[int], geometry: Geometry, codec: str, payload: bytes
) -> BlockRecord | None:
    """bitshuffle's own blocks as Blosc2 blocks; only what ends in a few loose items is decoded."""
    nbytes, itemsize = geometry.full_chunk_nbytes, geometry.itemsize
    if len(payload) < 12 or geometry.layout != "flat":
        return None
    total, blocksize = struct.unpack_from(">QI", payload)
    if total != nbytes or blocksize != geometry.block_nbytes:
        return None
    full, tail = divmod(nbytes, blocksize)
    last = tail // itemsize // 8 * 8 * itemsize  # whole groups of eight items are shuffled and compressed
    loose = tail - last
    streams = _framed_streams(payload, 12, full + (last > 0)) if full or last else []
    if streams is None:
        return None
    end = len(payload) - loose
    head = _head(codec, itemsize, 2, nbytes, min(blocksize, nbytes))
    bodies: list[bytes] = []
    for i in wanted:
        stream = streams[i] if i < len(streams) else memoryview(b"")
        packed = blocksize if i < full else last
        if packed and len(stream) == packed:
            return None  # Blosc2 would take it for an uncompressed one
        if i == full and loose:
            shuffled = _decoded_stream(codec, stream, last) if last else b""
            bodies.append(_stream(shuffled + payload[end:]))
        else:
            bodies.append(_stream(stream))
    return make_record(seed, nchunk, head, wanted, bodies)


def _decoded_stream(codec: str, stream: memoryview, nbytes: int) -> bytes:
    """One stream decompressed, its bits as shuffled as they were."""
    geometry = Geometry((nbytes,), (nbytes,), (nbytes,), np.dtype("u1"))
    record = make_record(0, 0, _head(codec, 1, 0, nbytes, nbytes), [0], [_stream(stream)])
    return decode_record(record, geometry).tobytes()


def fill_record(seed: int, nchunk: int, wanted: Sequence[int], geometry: Geometry, fill: bytes) -> BlockRecord:
    """Blocks of a chunk that was never written: the fill value, in a few bytes."""
    nbytes = geometry.chunk_nbytes(nchunk)
    typesize = len(fill)
    if not any(fill):
        head, value = _special_head(_SPECIAL_ZERO, min(max(typesize, 1), _MAX_TYPESIZE), nbytes, geometry), b""
    elif typesize <= _MAX_TYPESIZE:
        head, value = _special_head(_SPECIAL_VALUE, typesize, nbytes, geometry), fill
    else:
        size, end = geometry.block_nbytes, geometry.chunk_nbytes(nchunk)
        raw = fill * (sum(min(size, end - i * size) for i in wanted) // typesize)
        return encode_blocks(seed, nchunk, wanted, raw, geometry)
    head = head[:12] + struct.pack("<i", HEADER_NBYTES + len(value)) + head[16:] + value
    return make_record(seed, nchunk, head, wanted, [b""] * len(wanted))


def _special_head(kind: int, typesize: int, nbytes: int, geometry: Geometry) -> bytes:
    head = bytearray(_head("lz4", typesize, 0, nbytes, min(geometry.block_nbytes, nbytes)))
    head[31] = kind
    return bytes(head)


def array_record(
    seed: int, nchunk: int, wanted: Sequence[int], geometry: Geometry, items: npt.NDArray[Any]
) -> BlockRecord:
    """Blocks of a chunk from its decoded items (an array of the chunk's shape, clipped at the edges).

    Notes
    -----
    Padding, where the geometry has it, is zeros.
    """
    extent = geometry.chunk_extent(geometry.chunk_coords(nchunk))
    if items.shape != extent:
        full = np.zeros(extent, geometry.dtype)
        full[tuple(slice(n) for n in items.shape)] = items
        items = full
    if geometry.layout == "nd" and geometry.ndim:
        items = _block_major(items, geometry)
    raw = np.ascontiguousarray(items).tobytes()
    size = geometry.block_nbytes
    if len(wanted) * size < len(raw):
        raw = b"".join(raw[i * size : (i + 1) * size] for i in wanted)
    return encode_blocks(seed, nchunk, wanted, raw, geometry)


def _block_major(items: npt.NDArray[Any], geometry: Geometry) -> npt.NDArray[Any]:
    if geometry.blocks == items.shape:
        return items
    grid = [-(-e // b) for e, b in zip(items.shape, geometry.blocks, strict=True)]
    padded = np.zeros([n * b for n, b in zip(grid, geometry.blocks, strict=True)], geometry.dtype)
    padded[tuple(slice(n) for n in items.shape)] = items
    split = padded.reshape([n for pair in zip(grid, geometry.blocks, strict=True) for n in pair])
    ndim = geometry.ndim
    return split.transpose([*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2)])


def has_fletcher32(payload: bytes) -> bool:
    """Does a stored chunk end in the checksum of what is before it?

    >>> has_fletcher32(b"abcdef" + bytes.fromhex("2d2a5650"))
    True
    """
    if len(payload) < 4:
        return False
    data, (stored,) = payload[:-4], struct.unpack("<I", payload[-4:])
    low, high = _fletcher32(data)
    found_high, found_low = stored >> 16, stored & 0xFFFF
    if _congruent(high, found_high) and _congruent(low, found_low):
        return True

    def swap(word: int) -> int:
        return (word & 0xFF) << 8 | word >> 8

    # Files of HDF5 1.6.2 and before, on little-endian machines, have the bytes of both sums swapped.
    return _congruent(high, swap(found_high)) and _congruent(low, swap(found_low))


def _congruent(a: int, b: int) -> bool:
    return a % 65535 == b % 65535


def _fletcher32(data: bytes) -> tuple[int, int]:
    """Both sums, modulo 65535, of big-endian 16-bit words."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2")
    low = high = 0
    step = 1 << 22  # (2^22)^2 * 2^16 / 2 still fits in 64 bits
    for start in range(0, len(words), step):
        part = words[start : start + step].astype(np.uint64)
        weights = np.arange(len(part), 0, -1, dtype=np.uint64)
        high = (high + low * len(part) + int((part * weights).sum(dtype=np.uint64))) % 65535
        low = (low + int(part.sum(dtype=np.uint64))) % 65535
    return low, high


def contiguous_chunks(shape: tuple[int, ...], itemsize: int, target_nbytes: int) -> tuple[int, ...]:
    """Shape of virtual chunks whose items lie one after another in C order: whole trailing axes."""
    chunks, nbytes = [1] * len(shape), itemsize
    for axis in range(len(shape) - 1, -1, -1):
        chunks[axis] = max(1, min(shape[axis], target_nbytes // max(nbytes, 1)))
        nbytes *= chunks[axis]
        if chunks[axis] < shape[axis]:
            break
    return tuple(chunks)


def merged_chunks(
    chunks: tuple[int, ...], shape: tuple[int, ...], maxshape: Sequence[int | None], itemsize: int, target_nbytes: int
) -> tuple[int, ...]:
    """A multiple of small stored chunks, about ``target_nbytes`` large.

    It does not depend on the length of an axis that may grow: appending leaves chunks where they are.
    """
    merged, nbytes = list(chunks), math.prod(chunks) * max(itemsize, 1)
    for axis in range(len(chunks) - 1, -1, -1):
        factor = target_nbytes // nbytes
        if maxshape[axis] is not None:
            factor = min(factor, -(-shape[axis] // chunks[axis]))
        if factor > 1:
            merged[axis] *= factor
            nbytes *= factor
    return tuple(merged)
