"""Chunks that change hands between Blosc2 and HDF5 as they are stored, without being compressed again.

``blosc2_chunk`` makes the one of records that a root read; ``hdf5_payload`` gives what stands in an HDF5 file for it,
where its filters would have made the same kind of stream. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct

import blosc2
import numpy as np

from ..core.blocks import HEADER_NBYTES, BlockRecord, mini_chunk, parse_layout
from ..core.codec import decode_record, encode_chunk, is_portable
from ..core.metadata import Geometry
from ..errors import IntegrityError
from ..storage.hdf5_chunks import Pipeline

__all__ = ["blosc2_chunk", "fits_blosc2", "hdf5_payload"]

_SPECIAL_MASK, _MEMCPYED, _NO_SPLIT = 0x70, 0x02, 0x10
_CODES = {"lz4": 1, "deflate": 3, "zstd": 4}
_MAX_TYPESIZE = 255


def fits_blosc2(geometry: Geometry) -> bool:
    """Are its chunks, as a root gives them, those of a ``.b2nd``?"""
    return (
        geometry.layout == "nd"
        and geometry.padded
        and geometry.ndim > 0
        and geometry.size > 0
        and 0 < geometry.itemsize <= _MAX_TYPESIZE
        and not geometry.dtype.hasobject
    )


def blosc2_chunk(records: list[BlockRecord], geometry: Geometry) -> tuple[bytes, bool]:
    """The whole chunk of a ``.b2nd``, and whether it is as it was stored.

    Parameters
    ----------
    records : list of BlockRecord
        Verified, with all blocks of one chunk.
    geometry : Geometry
        That ``fits_blosc2``.

    Raises
    ------
    IntegrityError
        When it does not decode: what is damaged is not handed on.
    """
    nchunk = records[0].nchunk
    last = geometry.chunk_nblocks(nchunk) - 1
    raw = _decoded(records, geometry)
    if len(records) == 1:
        record = records[0]
        chunk = bytes(record.body) if record.is_whole else bytes(mini_chunk(record, last, geometry.block_nbytes).chunk)
        if _is_native(chunk, geometry):
            return chunk, True
    made = encode_chunk(0, nchunk, raw, geometry)
    return bytes(mini_chunk(made, last, geometry.block_nbytes).chunk), False


def _decoded(records: list[BlockRecord], geometry: Geometry) -> bytes:
    nbytes = geometry.full_chunk_nbytes
    raw = bytearray(nbytes)
    seen = 0
    for record in records:
        decoded = decode_record(record, geometry)
        if record.is_whole:
            return decoded.tobytes()
        view = decoded.tobytes()
        size = geometry.block_nbytes
        for i, block in enumerate(record.ids.tolist()):
            raw[block * size : (block + 1) * size] = view[i * size : (i + 1) * size]
        seen += len(record.ids)
    if seen != geometry.chunk_nblocks(records[0].nchunk):
        raise IntegrityError(f"blocks of chunk {records[0].nchunk} are missing")
    return bytes(raw)


def _is_native(chunk: bytes, geometry: Geometry) -> bool:
    """Would Blosc2 read it in an array of this geometry?"""
    if len(chunk) < HEADER_NBYTES or (chunk[2] & 5) != 5 or not is_portable(chunk[:HEADER_NBYTES]):
        return False
    nbytes, blocksize, cbytes = struct.unpack_from("<iii", chunk, 4)
    if nbytes != geometry.full_chunk_nbytes or cbytes != len(chunk):
        return False
    if chunk[3] != geometry.itemsize and chunk[31] & _SPECIAL_MASK != 0x10:
        return False
    return blocksize == geometry.block_nbytes or (chunk[31] & _SPECIAL_MASK) != 0


def hdf5_payload(chunk: bytes, geometry: Geometry, pipeline: Pipeline) -> bytes | None:
    """What an HDF5 dataset of that pipeline stores for a chunk; None when it has to be compressed anew.

    Parameters
    ----------
    chunk : bytes
        From ``blosc2_chunk``.
    geometry : Geometry
    pipeline : Pipeline
    """
    if pipeline.codec == "blosc2" and not pipeline.shuffle:
        payload = _frame(chunk, geometry)
    elif pipeline.codec in _CODES:
        found = _stream(chunk, geometry, pipeline)
        if found is None:
            return None
        payload = found
    else:
        return None
    if pipeline.fletcher32_bit >= 0:
        return None  # whoever asked for a checksum has it made of what was decoded
    return payload


def _stream(chunk: bytes, geometry: Geometry, pipeline: Pipeline) -> bytes | None:
    """The only stream of a chunk that is one block."""
    if chunk[31] & _SPECIAL_MASK or chunk[2] & _MEMCPYED or not chunk[2] & _NO_SPLIT:
        return None
    layout = parse_layout(chunk, len(chunk))
    if layout.kind != "blocks" or layout.nblocks != 1 or chunk[2] >> 5 != _CODES[pipeline.codec]:
        return None
    filters = [number for number in chunk[16:22] if number]
    shuffled = filters == [1] and chunk[3] > 1
    if (filters and not shuffled) or (chunk[3] if shuffled else 0) != pipeline.shuffle:
        return None
    start, size = int(layout.offsets[0]), int(layout.sizes[0])
    (length,) = struct.unpack_from("<i", chunk, start)
    nbytes = geometry.full_chunk_nbytes
    if not 0 < length <= size - 4 or length == nbytes or len(layout.head) > HEADER_NBYTES:
        return None
    stream = chunk[start + 4 : start + 4 + length]
    return struct.pack(">QII", nbytes, nbytes, length) + stream if pipeline.codec == "lz4" else stream


def _frame(chunk: bytes, geometry: Geometry) -> bytes:
    """A frame of one chunk, as HDF5's Blosc2 filter makes them."""
    array = blosc2.uninit(
        geometry.chunks,
        dtype=np.dtype(f"V{geometry.itemsize}"),
        chunks=geometry.chunks,
        blocks=geometry.blocks,
        cparams=blosc2.CParams(typesize=geometry.itemsize, nthreads=1),
    )
    array.schunk.update_chunk(0, chunk)
    return bytes(array.to_cframe())
