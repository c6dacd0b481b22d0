"""Blosc2 frames as they are stored: contiguous files and sparse directories, read by ``pread``.

No handle of python-blosc2 is opened: it would hold Python's lock for a whole read, follow paths that a
file names, and go on with another file when one is replaced. Blocks leave as they are stored, but for chunks
that a client could not decode or that are not cut as the geometry says: those are encoded anew.

The bytes around chunks are ``frame_format``'s; what a frame is listed as, ``directory_entries``'s.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.blocks import (
    HEADER_NBYTES,
    MAX_HEAD_NBYTES,
    BlockRecord,
    ChunkLayout,
    index_nbytes,
    make_record,
    parse_layout,
    whole_record,
)
from ..core.codec import DecodeChunk, decode_chunk_bytes, decode_record, encode_blocks, is_portable
from ..core.metadata import MAX_CHUNK_NBYTES, Geometry
from ..errors import DatasetChangedError, DatasetNotFoundError, IntegrityError, UnsupportedDatasetError
from .frame_format import (
    MAX_TRAILER_NBYTES,
    TRAILER_TAIL_NBYTES,
    FrameHeader,
    frame_nbytes,
    header_nbytes,
    parse_array_meta,
    parse_header,
    parse_trailer,
    refuse_special_frames,
    trailer_nbytes,
)
from .generation import Generation, unsettled_s, version_tag
from .plugin_codec import check_plugins, decode_strictly, decode_with_plugins
from .safe_open import OpenedPath, open_directory, open_file, read_at, read_cached_at

__all__ = [
    "SPARSE_INDEX",
    "FrameFile",
    "FrameIndex",
    "open_frame",
    "read_blocks",
    "read_blocks_at_once",
    "settled_generation",
]

SPARSE_INDEX = "chunks.b2frame"
"""Name of the file that makes a directory a sparse frame."""

_SPECIAL_ZERO, _SPECIAL_NAN = 1, 2
_DEFAULT_BLOCK_NBYTES = 256 << 10
_MAX_BLOCKS = 1 << 22
_MAX_CHUNKS = 1 << 26
# Reading over a gap costs less than another system call.
_MAX_GAP_NBYTES = 32 << 10
# A chunk that cannot be cut is sent as it is when it is small, or when half of it is wanted anyway.
_WHOLE_NBYTES = 128 << 10
_FIRST_READ_NBYTES = 4096
_SETTLE_TRIES = 5
_MAX_LAYOUTS_NBYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """What is known of a frame in one state of its files.

    Attributes
    ----------
    header : FrameHeader
    geometry : Geometry
    is_array : bool
        False: a frame of plain items (``|u1`` or ``|V<typesize>``).
    offsets : ndarray of int64
        Per chunk: from the end of the header (contiguous), number of the chunk's file (sparse), or a
        special value when negative.
    vlmeta : dict of bytes
        The user's metalayers, not decoded.
    stamp, version : str
    latest_ctime_ns : int
        No file of the frame was changed after this.
    """

    header: FrameHeader
    geometry: Geometry
    is_array: bool
    offsets: npt.NDArray[np.int64]
    vlmeta: Mapping[str, bytes]
    stamp: str
    version: str
    latest_ctime_ns: int

    @property
    def nbytes_held(self) -> int:
        """About what it costs to keep it."""
        return self.offsets.nbytes + sum(len(v) for v in self.vlmeta.values()) + 4096


def settled_generation(fd: int) -> Generation:
    """The generation of an open file, once a later write is sure to change it.

    Raises
    ------
    DatasetChangedError
        When it is written to all the time.
    """
    for _ in range(_SETTLE_TRIES):
        generation = Generation.of(fd)
        wait_s = unsettled_s(generation, time.time_ns())
        if not wait_s:
            return generation
        time.sleep(wait_s)
    raise DatasetChangedError("the file is being written")


class FrameFile(ABC):
    """An open frame: a context manager.

    Attributes
    ----------
    path : str
        Where it is, relative to the root.
    generation : Generation
        Of the file that has the index, when it was opened.
    can_stay_open : bool
        Does ``is_unchanged`` tell of every change, however long it is open?
    """

    path: str
    generation: Generation
    can_stay_open = False

    def __init__(self, opened: OpenedPath) -> None:
        self._opened = opened
        self.path = opened.path
        self._layouts: dict[int, tuple[bytes, ChunkLayout]] = {}
        self._layouts_nbytes = 0

    def __enter__(self) -> FrameFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._opened.close()

    @abstractmethod
    def stamp(self) -> tuple[str, int]:
        """The stamp of all its files, and the latest ``ctime_ns`` of them."""

    @abstractmethod
    def is_unchanged(self) -> bool:
        """Is the index still of ``generation``?"""

    @abstractmethod
    def read_index_file(self, nbytes: int, offset: int) -> bytes:
        """Bytes of the file that has header, index and trailer."""

    @abstractmethod
    def stored_chunk(self, index: FrameIndex, offset: int) -> AbstractContextManager[tuple[int, int, int]]:
        """Context manager of ``(fd, position, limit)``: where a chunk is, and how many bytes it has at most."""

    @abstractmethod
    def index_position(self, header: FrameHeader) -> int:
        """Where the chunk of offsets starts."""

    @abstractmethod
    def check_chunks(self, header: FrameHeader, offsets: npt.NDArray[np.int64]) -> None:
        """Are all chunks there? Raises IntegrityError when they are not."""

    def layout(self, nchunk: int) -> tuple[bytes, ChunkLayout] | None:
        """The beginning and the layout of a chunk that was read before. What is made of it counts while
        ``is_unchanged``."""
        return self._layouts.get(nchunk)

    def keep_layout(self, nchunk: int, prefix: bytes, layout: ChunkLayout) -> None:
        if not self.can_stay_open:
            return
        if self._layouts_nbytes > _MAX_LAYOUTS_NBYTES:
            self._layouts, self._layouts_nbytes = {}, 0
        self._layouts[nchunk] = prefix, layout
        self._layouts_nbytes += len(prefix) + layout.offsets.nbytes + layout.sizes.nbytes + 512

    def read_index(self, decode: DecodeChunk = decode_chunk_bytes) -> FrameIndex:
        """Read and check all but the chunks.

        Parameters
        ----------
        decode : DecodeChunk
            For the chunk that has the offsets of all others.

        Raises
        ------
        IntegrityError
            When the frame is damaged, or not complete yet.
        UnsupportedDatasetError
            When it is complete but cannot be served.
        """
        stamp, latest = self.stamp()
        start = self.read_index_file(_FIRST_READ_NBYTES, 0)
        length = header_nbytes(start)
        if frame_nbytes(start) > self.generation.nbytes:
            raise IntegrityError("a Blosc2 frame that is not complete")
        header = parse_header(start[:length] if length <= len(start) else self.read_index_file(length, 0))
        vlmeta = self._read_trailer(header)
        refuse_special_frames(header)
        meta = parse_array_meta(header)
        offsets = self._read_offsets(header, decode)
        probe = self._probe(header, offsets, stamp, latest)
        if meta is None:
            geometry = _frame_geometry(header, probe)
        else:
            geometry = _array_geometry(header, meta.shape, meta.chunks, meta.blocks, meta.dtype)
        if len(offsets) != geometry.nchunks:
            raise UnsupportedDatasetError(f"{len(offsets)} chunks of different sizes, which are not served")
        if probe is not None:
            check_plugins(probe)
        if Geometry.from_json(geometry.to_json()) != geometry:
            raise UnsupportedDatasetError(f"its dtype {geometry.dtype} cannot be told to clients")
        version = version_tag(stamp, geometry)
        return FrameIndex(header, geometry, meta is not None, offsets, vlmeta, stamp, version, latest)

    def read_metadata(self) -> tuple[FrameHeader, dict[str, bytes]]:
        """Header and packed metalayers of the user's, of any frame.

        Raises
        ------
        IntegrityError
        """
        start = self.read_index_file(_FIRST_READ_NBYTES, 0)
        length = header_nbytes(start)
        header = parse_header(start[:length] if length <= len(start) else self.read_index_file(length, 0))
        return header, self._read_trailer(header)

    def _read_trailer(self, header: FrameHeader) -> dict[str, bytes]:
        tail = self.read_index_file(TRAILER_TAIL_NBYTES, header.frame_nbytes - TRAILER_TAIL_NBYTES)
        length = trailer_nbytes(tail)
        if length > header.frame_nbytes - header.header_nbytes:
            raise IntegrityError("a Blosc2 frame without its trailer")
        if length > MAX_TRAILER_NBYTES:
            return {}
        return parse_trailer(self.read_index_file(length, header.frame_nbytes - length))

    def _read_offsets(self, header: FrameHeader, decode: DecodeChunk) -> npt.NDArray[np.int64]:
        if header.nbytes == 0:
            return np.empty(0, np.int64)
        position = self.index_position(header)
        start = self.read_index_file(HEADER_NBYTES, position)
        if len(start) < HEADER_NBYTES:
            raise IntegrityError("a Blosc2 frame without its index")
        nbytes, _, cbytes = struct.unpack_from("<iii", start, 4)
        if not HEADER_NBYTES <= cbytes <= header.frame_nbytes - position or nbytes % 8:
            raise IntegrityError("a Blosc2 frame with a damaged index")
        if nbytes != header.nchunks * 8:
            raise UnsupportedDatasetError(f"{nbytes // 8} chunks of different sizes, which are not served")
        if header.nchunks > _MAX_CHUNKS:
            raise UnsupportedDatasetError(f"{header.nchunks} chunks, which are more than {_MAX_CHUNKS}")
        offsets = decode(self.read_index_file(cbytes, position), nbytes).view("<i8").astype(np.int64)
        self.check_chunks(header, offsets)
        return offsets

    def _probe(self, header: FrameHeader, offsets: npt.NDArray[np.int64], stamp: str, latest: int) -> bytes | None:
        """The header of the first chunk that is stored (a constant has no block size of its own)."""
        stored = np.flatnonzero(offsets >= 0)
        dummy = Geometry((0,), (1,), (1,), np.dtype("u1"))
        index = FrameIndex(header, dummy, False, offsets, {}, stamp, "", latest)
        for nchunk in stored[:64].tolist():
            with self.stored_chunk(index, int(offsets[nchunk])) as (fd, position, limit):
                start = read_at(fd, min(HEADER_NBYTES, limit), position)
            if len(start) < HEADER_NBYTES:
                raise IntegrityError("a Blosc2 frame with chunks outside of it")
            if not start[31] & 0x70:
                return start
        return None


def _array_geometry(
    header: FrameHeader,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    blocks: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Geometry:
    if dtype.itemsize != header.typesize:
        raise IntegrityError(f"items of {header.typesize} bytes with dtype {dtype}")
    # An axis of length 0 has chunks and blocks of 0, which nothing is counted by.
    chunks = tuple(max(c, 1) for c in chunks)
    blocks = tuple(min(max(b, 1), c) for b, c in zip(blocks, chunks, strict=True))
    geometry = Geometry(shape, chunks, blocks, dtype)
    if geometry.size and geometry.full_chunk_nbytes != header.chunksize:
        raise IntegrityError(f"chunks of {header.chunksize} bytes with chunk shape {chunks}")
    return geometry


def _frame_geometry(header: FrameHeader, probe: bytes | None) -> Geometry:
    itemsize = header.typesize
    chunksize = header.chunksize
    if header.nbytes and chunksize < 1:
        raise UnsupportedDatasetError("a frame with chunks of different sizes, which are not served")
    if header.nbytes % itemsize or (header.nbytes and chunksize % itemsize):
        itemsize = 1
    dtype = np.dtype("u1") if itemsize == 1 else np.dtype(f"V{itemsize}")
    if not header.nbytes:
        return Geometry((0,), (max(chunksize // itemsize, 1),), (1,), dtype, padded=False)
    if chunksize > MAX_CHUNK_NBYTES:
        raise UnsupportedDatasetError("chunks over 2 GiB")
    blocksize = struct.unpack_from("<i", probe, 8)[0] if probe is not None else header.blocksize
    if blocksize < 1 or blocksize % itemsize or chunksize // blocksize > _MAX_BLOCKS:
        blocksize = max(_DEFAULT_BLOCK_NBYTES // itemsize, 1) * itemsize
    block = min(blocksize, chunksize) // itemsize
    return Geometry((header.nbytes // itemsize,), (chunksize // itemsize,), (block,), dtype, padded=False)


class _ContiguousFrame(FrameFile):
    can_stay_open = True

    def __init__(self, opened: OpenedPath) -> None:
        super().__init__(opened)
        self.generation = settled_generation(opened.fd)

    def stamp(self) -> tuple[str, int]:
        return self.generation.stamp, self.generation.ctime_ns

    def is_unchanged(self) -> bool:
        return Generation.of(self._opened.fd) == self.generation

    def read_index_file(self, nbytes: int, offset: int) -> bytes:
        return read_at(self._opened.fd, nbytes, offset) if offset >= 0 else b""

    def index_position(self, header: FrameHeader) -> int:
        if header.sparse:
            raise IntegrityError("the index of a sparse frame, without its directory")
        return header.header_nbytes + header.cbytes

    def check_chunks(self, header: FrameHeader, offsets: npt.NDArray[np.int64]) -> None:
        if len(offsets) and int(offsets.max()) >= max(header.cbytes, 1):
            raise IntegrityError("a Blosc2 frame with chunks outside of it")

    @contextmanager
    def stored_chunk(self, index: FrameIndex, offset: int) -> Iterator[tuple[int, int, int]]:
        yield self._opened.fd, index.header.header_nbytes + offset, index.header.cbytes - offset


class _SparseFrame(FrameFile):
    def __init__(self, opened: OpenedPath) -> None:
        super().__init__(opened)
        self._sizes: dict[str, int] = {}
        self._index = self._open(SPARSE_INDEX)
        self.generation = settled_generation(self._index)

    def _open(self, name: str) -> int:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._opened.fd)
        except OSError as error:
            raise IntegrityError(f"a sparse frame without its file {name}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise IntegrityError(f"a sparse frame without its file {name}")
        return fd

    def close(self) -> None:
        if self._index >= 0:
            os.close(self._index)
            self._index = -1
        super().close()

    def stamp(self) -> tuple[str, int]:
        """Its index says nothing of chunks that were written over, so every file counts."""
        states: list[str] = []
        self._sizes = {}
        latest = self.generation.ctime_ns
        try:
            with os.scandir(self._opened.fd) as items:
                for item in items:
                    if item.name.endswith(".chunk"):
                        generation = Generation.from_stat(item.stat(follow_symlinks=False))
                        states.append(f"{item.name} {generation}")
                        self._sizes[item.name] = generation.nbytes
                        latest = max(latest, generation.ctime_ns)
        except FileNotFoundError:
            raise DatasetChangedError("a chunk went away") from None
        digest = hashlib.blake2b("\n".join(sorted(states)).encode("utf-8", "surrogateescape"), digest_size=12)
        return f"{self.generation}.{digest.hexdigest()}", latest

    def is_unchanged(self) -> bool:
        return Generation.of(self._index) == self.generation

    def read_index_file(self, nbytes: int, offset: int) -> bytes:
        return read_at(self._index, nbytes, offset) if offset >= 0 else b""

    def index_position(self, header: FrameHeader) -> int:
        return header.header_nbytes

    def check_chunks(self, header: FrameHeader, offsets: npt.NDArray[np.int64]) -> None:
        names = [_chunk_name(n) for n in offsets[offsets >= 0].tolist()]
        if any(name not in self._sizes for name in names):
            raise IntegrityError("a sparse frame without all of its chunks")
        if sum(self._sizes[name] for name in names) < header.cbytes:
            raise IntegrityError("a sparse frame whose chunks are not complete")

    @contextmanager
    def stored_chunk(self, index: FrameIndex, offset: int) -> Iterator[tuple[int, int, int]]:
        fd = self._open(_chunk_name(offset))
        try:
            before = settled_generation(fd)
            # A writer replaces a chunk's file first, and the index after it.
            if before.ctime_ns > index.latest_ctime_ns:
                raise DatasetChangedError("a chunk was written over")
            yield fd, 0, before.nbytes
            if Generation.of(fd) != before:
                raise DatasetChangedError("a chunk was written over")
        finally:
            os.close(fd)


def _chunk_name(number: int) -> str:
    return f"{number:08X}.chunk"


def open_frame(root: Path, path: str) -> FrameFile:
    """Open the frame at ``path``, a file or a sparse frame's directory.

    Raises
    ------
    DatasetNotFoundError, AccessDeniedError
    IntegrityError
        For a directory that is not a sparse frame.
    DatasetChangedError
        When it is written to all the time.
    """
    kind: type[FrameFile] = _ContiguousFrame
    try:
        opened = open_file(root, path)
    except DatasetNotFoundError as not_a_file:
        try:
            opened, kind = open_directory(root, path), _SparseFrame
        except DatasetNotFoundError:
            raise not_a_file from None
    try:
        return kind(opened)  # type: ignore[call-arg,unused-ignore]
    except BaseException:
        opened.close()
        raise


def read_blocks(
    frame: FrameFile, index: FrameIndex, seed: int, nchunk: int, wanted: Sequence[int], *, decodes: bool = True
) -> list[BlockRecord]:
    """Records of blocks of a chunk, as they are stored where a client can decode that.

    Parameters
    ----------
    seed : int
        ``checksum_seed`` of the dataset.
    wanted : sequence of int
        Block numbers, ascending.
    decodes : bool
        May a chunk that others could not decode, or that cannot be cut, be decoded here and encoded anew? If not, the
        one is refused and the other sent as it is, with all its blocks.

    Raises
    ------
    IntegrityError
        When the chunk is damaged.
    UnsupportedDatasetError
    DatasetChangedError
        When a chunk of a sparse frame was written over.
    """
    geometry = index.geometry
    offset = int(index.offsets[nchunk])
    if offset < 0:
        head = _special_head(index, nchunk, (offset >> 56) & 7)
        return [_special_record(seed, nchunk, head, wanted, geometry)]
    with frame.stored_chunk(index, offset) as (fd, position, limit):
        found = frame.layout(nchunk)
        prefix, layout = _read_layout(fd, position, limit) if found is None else found
        if found is None:
            frame.keep_layout(nchunk, prefix[:HEADER_NBYTES], layout)
        if layout.nbytes != geometry.chunk_nbytes(nchunk):
            raise IntegrityError(f"chunk {nchunk} has {layout.nbytes} bytes instead of {geometry.chunk_nbytes(nchunk)}")
        if layout.kind == "special":
            return [_special_record(seed, nchunk, layout.head, wanted, geometry)]
        ends_within_item = bool(layout.nbytes % max(prefix[3], 1))
        if _can_cut(geometry, nchunk, prefix, layout):
            bodies, body = _read_bodies(fd, position, layout, wanted)
            return [make_record(seed, nchunk, layout.head, wanted, bodies, body)]
        chunk = read_at(fd, layout.cbytes, position)
    if len(chunk) < layout.cbytes:
        raise IntegrityError(f"chunk {nchunk} is truncated")
    whole = whole_record(seed, nchunk, chunk)
    if not decodes:
        if is_portable(prefix) and not ends_within_item:
            return [whole]
        raise UnsupportedDatasetError(
            f"chunk {nchunk} needs a codec that is not used on uploaded files: download the file, "
            "or serve it by cat2pub"
        )
    if not is_portable(prefix):
        raw = memoryview(decode_with_plugins(chunk, geometry))
    elif ends_within_item:
        raw = memoryview(decode_strictly(chunk, layout.nbytes))
    elif layout.cbytes <= _WHOLE_NBYTES or 2 * len(wanted) >= geometry.chunk_nblocks(nchunk):
        return [whole]
    else:
        raw = decode_record(whole, geometry).data
    step = geometry.block_nbytes
    parts = b"".join(raw[b * step : (b + 1) * step] for b in wanted)
    return [encode_blocks(seed, nchunk, wanted, parts, geometry)]


def _can_cut(geometry: Geometry, nchunk: int, prefix: bytes, layout: ChunkLayout) -> bool:
    """Can blocks of a chunk be sent as they are stored?"""
    return (
        layout.kind in ("blocks", "memcpy")
        and is_portable(prefix)
        and (layout.kind == "memcpy" or not layout.nbytes % max(prefix[3], 1))
        and layout.nblocks == geometry.chunk_nblocks(nchunk)
        and (layout.blocksize == geometry.block_nbytes or layout.nblocks == 1)
        and len(layout.head) <= MAX_HEAD_NBYTES
    )


def read_blocks_at_once(
    frame: FrameFile, index: FrameIndex, seed: int, nchunk: int, wanted: Sequence[int], max_nbytes: int
) -> BlockRecord | None:
    """As ``read_blocks``, but without waiting for a disk: None where that would be needed, or more work.

    Parameters
    ----------
    max_nbytes : int
        Compressed bytes at most.
    """
    found = frame.layout(nchunk)
    if found is None:
        return None
    prefix, layout = found
    if layout.nbytes != index.geometry.chunk_nbytes(nchunk) or not _can_cut(index.geometry, nchunk, prefix, layout):
        return None
    starts, sizes = layout.offsets[wanted].tolist(), layout.sizes[wanted].tolist()
    if sum(sizes) > max_nbytes:
        return None
    with frame.stored_chunk(index, int(index.offsets[nchunk])) as (fd, position, _):
        bodies = []
        for start, size in zip(starts, sizes, strict=True):
            data = read_cached_at(fd, size, position + start)
            if data is None:
                return None
            bodies.append(data)
    return make_record(seed, nchunk, layout.head, wanted, bodies)


def _read_layout(fd: int, position: int, limit: int) -> tuple[bytes, ChunkLayout]:
    prefix = read_at(fd, min(_FIRST_READ_NBYTES, limit), position)
    if len(prefix) < 16:
        raise IntegrityError("truncated chunk")
    (cbytes,) = struct.unpack_from("<i", prefix, 12)
    if not 16 <= cbytes <= limit:
        raise IntegrityError(f"a chunk of {cbytes} bytes where there are {limit}")
    needed = min(index_nbytes(prefix[:HEADER_NBYTES]), cbytes)
    if needed > len(prefix):
        prefix = read_at(fd, needed, position)
    has_dictionary = len(prefix) >= HEADER_NBYTES and (prefix[2] & 7) == 5 and prefix[31] & 0x71 == 1
    if has_dictionary and not prefix[30] & 1 and len(prefix) >= needed >= 4:
        (nbytes,) = struct.unpack_from("<i", prefix, needed - 4)
        if 0 <= nbytes <= cbytes - needed and needed + nbytes > len(prefix):
            prefix = read_at(fd, needed + nbytes, position)
    return prefix, parse_layout(prefix, cbytes)


def _read_bodies(
    fd: int, position: int, layout: ChunkLayout, wanted: Sequence[int]
) -> tuple[list[memoryview], memoryview | None]:
    """The bytes of some blocks, in few reads however they are ordered in the chunk.

    Also all of them as they follow one another, when they are stored so.
    """
    numbers = np.asarray(wanted, np.int64)
    starts = layout.offsets[numbers]
    order = np.argsort(starts, kind="stable")
    ends = starts + layout.sizes[numbers]
    bodies: list[memoryview] = [memoryview(b"")] * len(numbers)
    ordered = order.tolist()
    if len(ordered) and bool((ends[:-1] == starts[1:]).all()):
        begin, end = int(starts[0]), int(ends[-1])
        data = memoryview(read_at(fd, end - begin, position + begin))
        if len(data) < end - begin:
            raise IntegrityError("truncated chunk")
        bounds = [*(starts - begin).tolist(), end - begin]
        return [data[a:b] for a, b in itertools.pairwise(bounds)], data
    first = 0
    while first < len(ordered):
        begin, end, last = int(starts[ordered[first]]), int(ends[ordered[first]]), first + 1
        while last < len(ordered) and int(starts[ordered[last]]) - end <= _MAX_GAP_NBYTES:
            end = max(end, int(ends[ordered[last]]))
            last += 1
        data = memoryview(read_at(fd, end - begin, position + begin))
        if len(data) < end - begin:
            raise IntegrityError("truncated chunk")
        for i in ordered[first:last]:
            bodies[i] = data[int(starts[i]) - begin : int(ends[i]) - begin]
        first = last
    return bodies, None


def _special_head(index: FrameIndex, nchunk: int, kind: int) -> bytes:
    """The header of a constant chunk. What was never written reads as zeros, not as stray memory."""
    geometry = index.geometry
    typesize = index.header.typesize if index.header.typesize <= 255 else 1
    if kind == _SPECIAL_NAN and typesize not in (4, 8):
        raise IntegrityError(f"chunk {nchunk} is all NaN, of items of {typesize} bytes")
    special = _SPECIAL_NAN if kind == _SPECIAL_NAN else _SPECIAL_ZERO
    nbytes = geometry.chunk_nbytes(nchunk)
    fields = struct.pack("<BBBBiii", 5, 1, 5, typesize, nbytes, geometry.block_nbytes, HEADER_NBYTES)
    return fields + bytes(15) + bytes([special << 4])


def _special_record(seed: int, nchunk: int, head: bytes, wanted: Sequence[int], geometry: Geometry) -> BlockRecord:
    """A constant: blocks without a body, so that one of them costs no decoding of a whole chunk."""
    sized = bytearray(head)
    struct.pack_into("<i", sized, 8, min(geometry.block_nbytes, geometry.chunk_nbytes(nchunk)))
    if len(wanted) == geometry.chunk_nblocks(nchunk):
        return whole_record(seed, nchunk, bytes(sized))
    return make_record(seed, nchunk, bytes(sized), wanted, [b""] * len(wanted))
