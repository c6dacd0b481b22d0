"""Blocks cut from, and put back into, compressed Blosc2 chunks, without decompressing.

A *record* holds some blocks of one chunk, each with a checksum that covers the dataset, its version,
the chunk's number, the block's number, the chunk's header and the bytes: a record in a wrong place
fails like a damaged one. The checksums are made once, where the data is stored, and travel with the
blocks through every cache. Layout of chunks: C-Blosc2 ``README_CHUNK_FORMAT.rst``.

It decodes nothing (``codec`` does) and does not know where chunks are stored.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError

__all__ = [
    "HEADER_NBYTES",
    "WHOLE",
    "BlockRecord",
    "ChunkLayout",
    "MiniChunk",
    "checksum_seed",
    "index_nbytes",
    "is_stored",
    "make_record",
    "parse_layout",
    "whole_record",
]

HEADER_NBYTES = 32
WHOLE = 0xFFFFFFFF
"""Block number of a record that holds a complete chunk."""

MAX_HEAD_NBYTES = 1 << 20
_MEMCPYED, _SPECIAL_MASK, _LAZY, _DICT, _VL_BLOCKS = 0x02, 0x70, 0x08, 0x01, 0x01
_DELTA = 3
_PLACE = struct.Struct("<QI")

U32 = npt.NDArray[np.uint32]
LayoutKind = Literal["blocks", "memcpy", "special", "whole"]


def checksum_seed(dataset_id: str, version: str) -> int:
    """What ties a checksum to a version of a dataset."""
    return zlib.crc32(f"{dataset_id}\0{version}".encode())


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """Some blocks of one chunk.

    Attributes
    ----------
    nchunk : int
    head : bytes
        Chunk header (32 bytes) and dictionary that the blocks decode with; empty for a whole chunk.
    ids : ndarray of uint32
        Block numbers, ascending; ``[WHOLE]`` for a complete chunk.
    sizes, crcs : ndarray of uint32
        Compressed bytes and checksum of each block.
    body : bytes-like
        The blocks, one after another.
    """

    nchunk: int
    head: bytes
    ids: U32
    sizes: U32
    crcs: U32
    body: bytes | bytearray | memoryview

    @property
    def is_whole(self) -> bool:
        return len(self.ids) == 1 and int(self.ids[0]) == WHOLE

    def blocks(self) -> Iterable[tuple[int, int, memoryview]]:
        """``(block number, checksum, bytes)`` of each block."""
        view, position = memoryview(self.body), 0
        for block, size, crc in zip(self.ids.tolist(), self.sizes.tolist(), self.crcs.tolist(), strict=True):
            yield block, crc, view[position : position + size]
            position += size

    def verify(self, seed: int) -> None:
        """Check every block.

        Raises
        ------
        IntegrityError
            When a block is not the one that it says it is.
        """
        sizes, nchunk, head = self.sizes.tolist(), self.nchunk, self.head
        if sum(sizes) != len(self.body):
            raise IntegrityError(f"record of chunk {nchunk} has a body of the wrong length")
        crc32, pack, view, end = zlib.crc32, _PLACE.pack, memoryview(self.body), 0
        for block, size, crc in zip(self.ids.tolist(), sizes, self.crcs.tolist(), strict=True):
            start, end = end, end + size  # as ``_checksum``, without a call for each
            if crc32(view[start:end], crc32(pack(nchunk, block) + head, seed)) != crc:
                raise IntegrityError(f"block {block} of chunk {nchunk} fails its checksum")

    def pick(self, wanted: Sequence[int]) -> BlockRecord:
        """A record of some of its blocks (all numbers in ``wanted`` are in it, ascending)."""
        if self.is_whole or len(wanted) == len(self.ids):
            return self
        index = np.searchsorted(self.ids, wanted)
        ends = np.cumsum(self.sizes, dtype=np.int64)
        view = memoryview(self.body)
        parts = [view[int(ends[i] - self.sizes[i]) : int(ends[i])] for i in index]
        return BlockRecord(
            self.nchunk, self.head, self.ids[index], self.sizes[index], self.crcs[index], b"".join(parts)
        )


def _checksum(seed: int, nchunk: int, block: int, head: bytes, data: bytes | bytearray | memoryview) -> int:
    return zlib.crc32(data, zlib.crc32(_PLACE.pack(nchunk, block) + head, seed))


def make_record(
    seed: int,
    nchunk: int,
    head: bytes,
    ids: Sequence[int],
    bodies: Sequence[bytes | memoryview],
    body: bytes | memoryview | None = None,
) -> BlockRecord:
    """A record, checksums made, of blocks of a chunk whose header is ``head``.

    ``body``: the bodies one after another, where they lie so already.
    """
    crcs = [_checksum(seed, nchunk, b, head, d) for b, d in zip(ids, bodies, strict=True)]
    if body is None:
        body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
    return BlockRecord(
        nchunk,
        head,
        np.asarray(ids, np.uint32),
        np.array([len(d) for d in bodies], np.uint32),
        np.array(crcs, np.uint32),
        body,
    )


def whole_record(seed: int, nchunk: int, chunk: bytes | memoryview) -> BlockRecord:
    """A record of a complete chunk, for those that cannot be cut."""
    return make_record(seed, nchunk, b"", [WHOLE], [chunk])


@dataclass(frozen=True, slots=True)
class ChunkLayout:
    """Where the blocks of one stored chunk are.

    Attributes
    ----------
    kind : {"blocks", "memcpy", "special", "whole"}
        ``whole``: cannot be cut (Blosc1 chunks, blocks of variable length, the delta filter, whose
        blocks depend on block 0). ``special``: a constant, the head is all there is.
    head : bytes
        Header, with the bits that only mean something in a file cleared, and dictionary.
    nbytes, blocksize, cbytes : int
        Decoded bytes of the chunk and of a block; compressed bytes of the chunk.
    offsets, sizes : ndarray of int64
        Of each block's bytes, from the chunk's start.
    """

    kind: LayoutKind
    head: bytes
    nbytes: int
    blocksize: int
    cbytes: int
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @property
    def nblocks(self) -> int:
        return len(self.offsets)


_NONE = np.empty(0, np.int64)


def index_nbytes(header: bytes) -> int:
    """How many bytes from a chunk's start ``parse_layout`` needs (dictionary size excepted)."""
    if len(header) < HEADER_NBYTES or (header[2] & 5) != 5 or header[30] & _VL_BLOCKS:
        return HEADER_NBYTES
    nbytes, blocksize = struct.unpack_from("<ii", header, 4)
    if (header[31] & _SPECIAL_MASK) or header[2] & _MEMCPYED:
        return HEADER_NBYTES + header[3]  # a repeated value follows the header of a special chunk
    if nbytes < 0 or blocksize <= 0:
        raise IntegrityError("chunk header with impossible sizes")
    return HEADER_NBYTES + 4 * int(-(-nbytes // blocksize)) + (4 if header[31] & _DICT else 0)


def parse_layout(prefix: bytes, cbytes: int) -> ChunkLayout:
    """The layout of a stored chunk from its first bytes.

    Parameters
    ----------
    prefix : bytes
        At least ``index_nbytes(header)`` bytes from the chunk's start, and the dictionary if it has one.
    cbytes : int
        Bytes that the chunk takes where it is stored.

    Raises
    ------
    IntegrityError
        When the header contradicts itself or ``cbytes``.
    """
    if len(prefix) < 16:
        raise IntegrityError("truncated chunk header")
    nbytes, blocksize, stored = struct.unpack_from("<iii", prefix, 4)
    flags = prefix[2]
    if nbytes < 0 or stored > cbytes or stored < 16:
        raise IntegrityError("chunk header with impossible sizes")
    if (flags & 5) != 5 or len(prefix) < HEADER_NBYTES:
        return ChunkLayout("whole", b"", nbytes, blocksize, stored, _NONE, _NONE)
    head = bytearray(prefix[:HEADER_NBYTES])
    head[31] &= ~_LAZY & 0xFF
    if blocksize <= 0 or prefix[30] & _VL_BLOCKS:
        return ChunkLayout("whole", b"", nbytes, blocksize, stored, _NONE, _NONE)
    nblocks = -(-nbytes // blocksize)
    if head[31] & _SPECIAL_MASK:
        # "use_dict" with a constant of under 32 bytes sets a bit that makes the chunk undecodable.
        head[2] &= ~_MEMCPYED & 0xFF
        constant = bytes(head) + bytes(prefix[HEADER_NBYTES:stored])
        return ChunkLayout("special", constant, nbytes, blocksize, stored, _NONE, _NONE)
    if flags & _MEMCPYED:
        # "use_dict" with incompressible data sets a bit that makes the chunk undecodable.
        head[31] &= ~_DICT & 0xFF
        if stored < HEADER_NBYTES + nbytes:
            raise IntegrityError("truncated chunk")
        offsets = HEADER_NBYTES + blocksize * np.arange(nblocks, dtype=np.int64)
        sizes = np.minimum(blocksize, HEADER_NBYTES + nbytes - offsets)
        return ChunkLayout("memcpy", bytes(head), nbytes, blocksize, stored, offsets, sizes)
    if _DELTA in head[16:22]:
        return ChunkLayout("whole", b"", nbytes, blocksize, stored, _NONE, _NONE)
    end = HEADER_NBYTES + 4 * nblocks
    if len(prefix) < end:
        raise IntegrityError("truncated chunk index")
    offsets = np.frombuffer(prefix, "<i4", nblocks, HEADER_NBYTES).astype(np.int64)
    dictionary = b""
    if head[31] & _DICT:
        (size,) = struct.unpack_from("<i", prefix, end)
        if size < 0 or len(prefix) < end + 4 + size:
            raise IntegrityError("truncated chunk dictionary")
        dictionary = prefix[end : end + 4 + size]
        end += 4 + size
    if nblocks and (int(offsets.min()) < end or int(offsets.max()) >= stored):
        raise IntegrityError("block offsets outside of their chunk")
    # Writers with several threads put blocks in any order: a block ends where the next in place begins.
    bounds = np.sort(np.append(offsets, stored))
    sizes = bounds[np.searchsorted(bounds, offsets, side="right")] - offsets
    return ChunkLayout("blocks", bytes(head) + dictionary, nbytes, blocksize, stored, offsets, sizes)


def _decoded_nbytes(record: BlockRecord, last_block: int, last_nbytes: int) -> tuple[int, int, bool]:
    """Block size of a record's head, what its blocks decode to, and whether the last of them is a short one."""
    if len(record.head) < HEADER_NBYTES or len(record.ids) == 0:
        raise IntegrityError(f"record of chunk {record.nchunk} has no usable header")
    (blocksize,) = struct.unpack_from("<i", record.head, 8)
    short = int(record.ids[-1]) == last_block and last_nbytes < blocksize
    return blocksize, len(record.ids) * blocksize - (blocksize - last_nbytes if short else 0), short


def is_stored(record: BlockRecord, last_block: int, last_nbytes: int) -> bool:
    """Is a record's body what it decodes to? Parameters as of ``mini_chunk``.

    Raises
    ------
    IntegrityError
        When it should be and is of another length.
    """
    _, nbytes, _ = _decoded_nbytes(record, last_block, last_nbytes)
    if not record.head[2] & _MEMCPYED or record.head[31] & _SPECIAL_MASK:
        return False
    if len(record.body) != nbytes:
        raise IntegrityError(f"uncompressed blocks of chunk {record.nchunk} have the wrong length")
    return True


@dataclass(frozen=True, slots=True)
class MiniChunk:
    """A valid Blosc2 chunk that decodes to some blocks, one after another.

    Attributes
    ----------
    chunk : bytes-like
    nbytes : int
        What it decodes to.
    skip_nbytes : int
        Leading decoded bytes that are not part of the answer.
    """

    chunk: bytes | bytearray | memoryview
    nbytes: int
    skip_nbytes: int = 0


def mini_chunk(record: BlockRecord, last_block: int, last_nbytes: int) -> MiniChunk:
    """The chunk to decode a record with.

    Parameters
    ----------
    record : BlockRecord
        Not of a whole chunk.
    last_block : int
        Number of the last block of the stored chunk.
    last_nbytes : int
        Decoded bytes of that block, which may be shorter than the others.

    Raises
    ------
    IntegrityError
        When the head cannot be that of these blocks.
    """
    blocksize, nbytes, short = _decoded_nbytes(record, last_block, last_nbytes)
    head, count = record.head, len(record.ids)
    flags = head[2]
    out = bytearray(head)
    if head[31] & _SPECIAL_MASK:
        struct.pack_into("<ii", out, 4, nbytes, min(blocksize, nbytes))
        return MiniChunk(out, nbytes)
    if flags & _MEMCPYED:
        struct.pack_into("<iii", out, 4, nbytes, min(blocksize, nbytes), HEADER_NBYTES + nbytes)
        if len(record.body) != nbytes:
            raise IntegrityError(f"uncompressed blocks of chunk {record.nchunk} have the wrong length")
        return MiniChunk(out + record.body, nbytes)
    sizes = record.sizes.astype(np.int64)
    lead = b""
    skip = 0
    if short and count == 1 and nbytes != blocksize:
        # Blosc2 misreads a lone short block that was split in streams: an absent block goes before it.
        streams = 1 if flags & 0x10 else head[3]
        lead = b"\0\0\0\0" * streams
        sizes = np.concatenate([[len(lead)], sizes])
        skip = blocksize
        nbytes += blocksize
        count += 1
    dictionary = head[HEADER_NBYTES:]
    first = HEADER_NBYTES + 4 * count + len(dictionary)
    starts = (first + np.concatenate([[0], np.cumsum(sizes[:-1])])).astype("<i4")
    cbytes = first + int(sizes.sum())
    struct.pack_into("<iii", out, 4, nbytes, blocksize, cbytes)
    chunk = b"".join([bytes(out[:HEADER_NBYTES]), starts.tobytes(), dictionary, lead, record.body])
    return MiniChunk(chunk, nbytes, skip)
