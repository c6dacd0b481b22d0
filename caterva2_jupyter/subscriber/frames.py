"""Blosc2 frames for the old REST interface, which carries nothing else: slices, and datasets as files.

Blocks are read from a source like everywhere; decoding and compressing happen in this object's own few
threads, within limits that are checked before anything is allocated. REST v1 and its clients need none of
this: they get blocks as they are stored.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, TypeVar

import blosc2
import numpy as np
import numpy.typing as npt

from ..core.assembly import Assembler
from ..core.attributes import decode_attrs
from ..core.blocks import BlockRecord
from ..core.chunk_grid import BlockPlan, ChunkProjection
from ..core.dtypes import is_vlen
from ..core.exact_slice import PieceAssembler, selection_digest
from ..core.legacy import chunk_bytes, chunk_selection
from ..core.metadata import Entry, Geometry
from ..core.selection import ParsedKey, Selection, parse_basic, parse_key_text
from ..core.source import Source
from ..core.wire import ReadRequest
from ..errors import IntegrityError, RequestError, SelectionError, TooLargeError, UnsupportedDatasetError

__all__ = ["FrameMaker", "parse_slice"]

T = TypeVar("T")

DEFAULT_MAX_NBYTES = 256 << 20
_BATCH_NBYTES = 4 << 20


def parse_slice(text: str, entry: Entry) -> ParsedKey | None:
    """What ``slice_`` selects; None is all of the dataset.

    Raises
    ------
    SelectionError
        When it is no slice, or does not fit the dataset.
    UnsupportedDatasetError
        When the entry has no data.
    """
    geometry = _geometry(entry)
    key = parse_key_text(text)
    if key == ():
        return None
    try:
        parsed = parse_basic(key, geometry.shape)
    except (IndexError, ValueError, TypeError) as error:
        raise SelectionError(f"slice [{text.strip()[:100]}] does not fit shape {geometry.shape}: {error}") from None
    is_whole = parsed.result_shape == geometry.shape and parsed.selection == Selection.whole(geometry.shape)
    return None if is_whole and all(k == slice(None) for k in parsed.box_keys[0]) else parsed


class FrameMaker:
    """Makes frames of slices and of whole datasets.

    Parameters
    ----------
    max_nbytes : int
        Upper bound on the decoded bytes of one answer.
    workers : int
        Answers that are decoded at the same time; others wait.
    """

    def __init__(self, max_nbytes: int = DEFAULT_MAX_NBYTES, workers: int = 2) -> None:
        self.max_nbytes = max_nbytes
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="caterva2-frames")
        self._turn = asyncio.Semaphore(workers)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def slice_frame(self, source: Source, entry: Entry, parsed: ParsedKey) -> bytes:
        """The contiguous frame of a slice: of an array an array, of bytes a plain super-chunk.

        Raises
        ------
        TooLargeError, UnsupportedDatasetError
        Caterva2Error
            As reading from the source does.
        """
        self._check_size(_geometry(entry), parsed.selection.size, entry.path)
        async with self._turn:
            box = await self._read(source, entry, parsed.selection)
            # A scalar would lose its byte order.
            items = parsed.apply(box) if parsed.result_shape else box.reshape(())
            if entry.kind == "file":
                return await self._run(_bytes_frame, items, entry)
            return await self._run(self._array_frame, items, entry.path)

    async def whole_frame(self, source: Source, entry: Entry) -> bytes:
        """The contiguous frame of a whole dataset, with its attributes as ``vlmeta``."""
        geometry = _geometry(entry)
        self._check_size(geometry, geometry.size, entry.path)
        async with self._turn:
            box = await self._read(source, entry, Selection.whole(geometry.shape))
            if entry.kind == "file":
                return await self._run(_bytes_frame, box, entry)
            return await self._run(self._whole_array_frame, box, entry)

    async def chunk(self, source: Source, entry: Entry, nchunk: int) -> bytes:
        """Chunk ``nchunk`` as a super-chunk of that dataset holds it, compressed.

        Raises
        ------
        RequestError
            When there is no such chunk.
        """
        geometry = _geometry(entry)
        if not 0 <= nchunk < geometry.nchunks:
            raise RequestError(f"no chunk {nchunk} in {entry.path!r}: it has {geometry.nchunks}")
        self._check_size(geometry, math.prod(geometry.chunks), entry.path)
        async with self._turn:
            request = ReadRequest(source.root, entry.path, entry.version, chunk_selection(geometry, nchunk))
            stream = await source.read_blocks(request)
            async with aclosing(stream.records) as records:  # type: ignore[type-var]
                listed = [record async for record in records]
            return await self._run(chunk_bytes, entry, nchunk, listed)

    def _check_size(self, geometry: Geometry, size: int, path: str) -> None:
        nbytes = size * max(geometry.itemsize, 1)
        if nbytes > self.max_nbytes:
            raise TooLargeError(
                f"{nbytes} decoded bytes of {path!r} were asked for, {self.max_nbytes} at once is the limit here: "
                "ask for a smaller slice, or read with caterva2_jupyter (POST api/v1/read)"
            )

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    async def _read(self, source: Source, entry: Entry, selection: Selection) -> npt.NDArray[Any]:
        request = ReadRequest(source.root, entry.path, entry.version, selection.to_json(), mode="auto")
        stream = await source.read_blocks(request)
        if stream.digest:
            async with aclosing(stream.records) as pieces:  # type: ignore[type-var]
                listed = [piece async for piece in pieces]
            return await self._run(_join, _geometry(entry), selection, stream.digest, listed)
        placer = _Placer(_geometry(entry), selection)
        batch: list[BlockRecord] = []
        batch_nbytes = 0
        async with aclosing(stream.records) as records:  # type: ignore[type-var]
            async for record in records:
                batch.append(record)
                batch_nbytes += len(record.body)
                if batch_nbytes >= _BATCH_NBYTES:
                    await self._run(placer.place, batch)
                    batch, batch_nbytes = [], 0
        await self._run(placer.place, batch)
        return await self._run(placer.finish)

    def _array_frame(self, array: npt.NDArray[Any], path: str) -> bytes:
        return _to_frame(self._plain(array, path), path)

    def _whole_array_frame(self, array: npt.NDArray[Any], entry: Entry) -> bytes:
        geometry = _geometry(entry)
        same = geometry.layout == "nd" and not is_vlen(geometry.dtype) and geometry.size > 0
        partition = {"chunks": geometry.chunks, "blocks": geometry.blocks} if same else {}
        return _to_frame(self._plain(array, entry.path), entry.path, entry.attrs, **partition)

    def _plain(self, array: npt.NDArray[Any], path: str) -> npt.NDArray[Any]:
        """Strings of variable length as strings of one length, the only form that a frame has for them."""
        if array.dtype.kind != "O":
            return array
        width = max(map(len, array.ravel().tolist()), default=1) or 1
        if array.size * width * 4 > self.max_nbytes:
            raise TooLargeError(f"the strings of {path!r} are too long for a frame: ask for a smaller slice")
        return array.astype(f"<U{width}")


def _join(geometry: Geometry, selection: Selection, digest: str, pieces: list[BlockRecord]) -> npt.NDArray[Any]:
    """The box of an exact slice."""
    if digest != selection_digest(selection):
        raise IntegrityError("a slice of another selection came")
    assembler = PieceAssembler(geometry, selection)
    for piece in pieces:
        assembler.add(piece)
    assembler.finish()
    return assembler.out


class _Placer:
    """Decodes records, in the order of their chunks, into the box of a selection."""

    def __init__(self, geometry: Geometry, selection: Selection) -> None:
        self._assembler = Assembler(geometry, selection)
        self._projections = iter(BlockPlan(geometry, selection))
        self._now: ChunkProjection | None = None
        self._missing: set[int] = set()
        self._next_chunk()

    def _next_chunk(self) -> None:
        if self._missing:
            raise IntegrityError("blocks are missing in the answer of the source")
        self._now = next(self._projections, None)
        self._missing = set(self._now.blocks.tolist()) if self._now is not None else set()

    def place(self, records: list[BlockRecord]) -> None:
        for record in records:
            while self._now is not None and self._now.nchunk != record.nchunk:
                self._next_chunk()
            if self._now is None:
                raise IntegrityError(f"the source sent chunk {record.nchunk}, which was not asked for")
            self._assembler.add(self._now, record)
            self._missing = set() if record.is_whole else self._missing.difference(record.ids.tolist())

    def finish(self) -> npt.NDArray[Any]:
        while self._now is not None:
            self._next_chunk()
        return self._assembler.out


def _geometry(entry: Entry) -> Geometry:
    if entry.geometry is None:
        reason = f": {entry.reason}" if entry.reason else ""
        raise UnsupportedDatasetError(f"{entry.path!r} has no data to read{reason}")
    return entry.geometry


def _cparams(typesize: int) -> Any:
    return blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, typesize=typesize if typesize <= 255 else 1, nthreads=1)


def _to_frame(array: npt.NDArray[Any], path: str, attrs: Mapping[str, Any] | None = None, **partition: Any) -> bytes:
    cparams = _cparams(max(array.dtype.itemsize, 1))
    try:
        framed = blosc2.asarray(np.asarray(array, order="C"), cparams=cparams, **partition)
        for name, value in decode_attrs(attrs or {}).items():
            framed.schunk.vlmeta[name] = _packable(value)
        return bytes(framed.to_cframe())
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise UnsupportedDatasetError(f"{path!r} of dtype {array.dtype} cannot be put in a frame: {error}") from error


def _packable(value: Any) -> Any:
    """What msgpack can write: NumPy's values as Python's."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _bytes_frame(items: Any, entry: Entry) -> bytes:
    typesize = _geometry(entry).itemsize
    raw = np.asarray(items).tobytes()
    chunk_nbytes = max(typesize, min(len(raw), 16 << 20) // typesize * typesize)
    return bytes(blosc2.SChunk(chunksize=chunk_nbytes, data=raw, cparams=_cparams(typesize)).to_cframe())
