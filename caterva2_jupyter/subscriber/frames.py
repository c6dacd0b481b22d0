"""Blosc2 frames for the old REST interface, which carries nothing else: slices, and datasets as files.

Blocks are read from a source like everywhere; worker processes decode and compress, within limits that are checked
before anything is asked for. REST v1 and its clients need none of this: they get blocks as they are stored.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ..compute.records import pack_records
from ..core.legacy import chunk_selection
from ..core.metadata import Entry, Geometry
from ..core.selection import ParsedKey, Selection, parse_basic, parse_key_text
from ..core.source import Source
from ..core.wire import ReadRequest
from ..errors import RequestError, SelectionError, TooLargeError, UnsupportedDatasetError
from ..web.compute_pool import ComputePool
from ..web.packed_records import box_arguments, packed_parts

__all__ = ["FrameMaker", "parse_slice", "readable_geometry"]

DEFAULT_MAX_NBYTES = 256 << 20


def parse_slice(text: str, entry: Entry) -> ParsedKey | None:
    """What ``slice_`` selects; None is all of the dataset.

    Raises
    ------
    SelectionError
        When it is no slice, or does not fit the dataset.
    UnsupportedDatasetError
        When the entry has no data.
    """
    geometry = readable_geometry(entry)
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
    compute : ComputePool
        Where they are made.
    max_nbytes : int
        Upper bound on the decoded bytes of one answer.
    at_once : int
        Answers in the making; others wait.
    """

    def __init__(self, compute: ComputePool, max_nbytes: int = DEFAULT_MAX_NBYTES, at_once: int = 2) -> None:
        self.max_nbytes = max_nbytes
        self._compute = compute
        self._turn = asyncio.Semaphore(at_once)

    async def slice_frame(self, source: Source, entry: Entry, selection: Selection, text: str) -> bytes:
        """The contiguous frame of a slice: of an array an array, of bytes a plain super-chunk.

        Parameters
        ----------
        source : Source
        entry : Entry
        selection : Selection
        text : str
            The key that it was parsed from.

        Raises
        ------
        TooLargeError, UnsupportedDatasetError
        Caterva2Error
            As reading from the source does.
        """
        return await self._frame(source, entry, selection, {"key": text})

    async def whole_frame(self, source: Source, entry: Entry) -> bytes:
        """The contiguous frame of a whole dataset, with its attributes as ``vlmeta``."""
        whole = Selection.whole(readable_geometry(entry).shape)
        return await self._frame(source, entry, whole, {"attrs": dict(entry.attrs)})

    async def _frame(self, source: Source, entry: Entry, selection: Selection, more: dict[str, Any]) -> bytes:
        self._check_size(readable_geometry(entry), selection.size, entry.path)
        about = {"path": entry.path, "kind": entry.kind, "max_nbytes": self.max_nbytes}
        async with self._turn:
            request = ReadRequest(source.root, entry.path, entry.version, selection.to_json(), mode="auto")
            stream = await source.read_blocks(request)
            arguments = {**box_arguments(stream, selection), **about, **more}
            _, (frame,) = await self._compute.run("frame", arguments, packed_parts(stream))
            return frame

    async def chunk(self, source: Source, entry: Entry, nchunk: int) -> bytes:
        """Chunk ``nchunk`` as a super-chunk of that dataset holds it, compressed.

        Raises
        ------
        RequestError
            When there is no such chunk.
        """
        geometry = readable_geometry(entry)
        if not 0 <= nchunk < geometry.nchunks:
            raise RequestError(f"no chunk {nchunk} in {entry.path!r}: it has {geometry.nchunks}")
        self._check_size(geometry, math.prod(geometry.chunks), entry.path)
        async with self._turn:
            request = ReadRequest(source.root, entry.path, entry.version, chunk_selection(geometry, nchunk))
            stream = await source.read_blocks(request)
            async with aclosing(stream.records) as records:  # type: ignore[type-var]
                listed = [record async for record in records]
            about = replace(entry, attrs={}).to_json()
            _, (chunk,) = await self._compute.run("chunk", {"entry": about, "nchunk": nchunk}, pack_records(listed))
            return chunk

    def _check_size(self, geometry: Geometry, size: int, path: str) -> None:
        nbytes = size * max(geometry.itemsize, 1)
        if nbytes > self.max_nbytes:
            raise TooLargeError(
                f"{nbytes} decoded bytes of {path!r} were asked for, {self.max_nbytes} at once is the limit here: "
                "ask for a smaller slice, or read with caterva2_jupyter (POST api/v1/read)"
            )


def readable_geometry(entry: Entry) -> Geometry:
    """The geometry of what has data.

    Raises
    ------
    UnsupportedDatasetError
    """
    if entry.geometry is None:
        reason = f": {entry.reason}" if entry.reason else ""
        raise UnsupportedDatasetError(f"{entry.path!r} has no data to read{reason}")
    return entry.geometry
