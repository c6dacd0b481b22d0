"""Blocks of one HDF5 chunk: read outside of the HDF5 library where its bytes can be wrapped, decoded by it elsewhere.

Whether what was read is of the right state is ``hdf5_file``'s business.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.blocks import BlockRecord, checksum_seed
from ..core.chunk_grid import ChunkProjection
from ..core.codec import encode_blocks, encode_strings
from ..core.metadata import Entry, Geometry
from ..errors import IntegrityError, UnsupportedDatasetError
from .hdf5_chunks import Pipeline, array_record, chunk_record, fetch_blocks, fill_record
from .hdf5_sources import FileState, Hdf5Sources, state_texts
from .hdf5_worker import Hdf5Worker, StoredDataset
from .safe_open import OpenedPath, open_file, read_at

__all__ = ["Hdf5ChunkReader"]


class Hdf5ChunkReader:
    """Reads chunks of a dataset of an open file.

    Parameters
    ----------
    root : Path
    worker : Hdf5Worker
    located : Hdf5Sources
    opened : OpenedPath
        The file.
    state : str
        Of the file, for the worker.
    entry, geometry, stored
        What is read, and how it is stored now.
    sources : sequence of FileState
        That the values come from besides the file.
    stack : ExitStack
        Closes what is opened besides.
    """

    def __init__(
        self,
        root: Path,
        worker: Hdf5Worker,
        located: Hdf5Sources,
        opened: OpenedPath,
        state: str,
        entry: Entry,
        geometry: Geometry,
        stored: StoredDataset,
        sources: Sequence[FileState],
        stack: ExitStack,
    ) -> None:
        self._root, self._worker, self._located = root, worker, located
        self._opened, self._state = opened, state
        self._entry, self._geometry = entry, geometry
        self._stored, self._sources, self._stack = stored, sources, stack
        self._form: Mapping[str, Any] = stored.node["form"]
        self._seed = checksum_seed(entry.id, entry.version)

    def record(self, nchunk: int, coords: tuple[int, ...], wanted: list[int]) -> BlockRecord:
        """Blocks of a chunk, as they are stored where that is possible."""
        match self._form["mode"]:
            case "fill":
                return fill_record(self._seed, nchunk, wanted, self._geometry, bytes.fromhex(self._form["fill"]))
            case "contiguous":
                base = int(self._form["offset"]) + self._origin(coords)
                return self._runs(nchunk, wanted, lambda at, n: read_at(self._opened.fd, n, base + at))
            case "external":
                base = self._origin(coords)
                return self._runs(nchunk, wanted, lambda at, n: self._read_segments(base + at, n))
            case "chunked":
                return self._chunk(nchunk, coords, wanted)
            case "strings":
                return self._strings(nchunk, coords)
            case _:
                return array_record(self._seed, nchunk, wanted, self._geometry, self._decoded(coords))

    def may_differ(self, after: StoredDataset, projection: ChunkProjection) -> bool:
        """Could the chunk have been written while it was read, though what is inside of the shape is the same?

        Only chunks that were moved, and filtered ones with room for more: items that are stored as they are stay.
        """
        g = self._geometry
        if self._row(projection.nchunk) != self._row(projection.nchunk, after):
            return True
        ends = [(i + 1) * c for i, c in zip(projection.coords, g.chunks, strict=True)]
        has_room = any(end > n for end, n in zip(ends, g.shape, strict=True))
        return has_room and bool(self._stored.node["storage"].get("filters"))

    def _row(self, nchunk: int, stored: StoredDataset | None = None) -> tuple[int, int, int] | None:
        """Offset, bytes and filter mask of a stored chunk."""
        table = (stored or self._stored).chunks
        row = int(np.searchsorted(table["nchunk"], nchunk))
        if row == len(table) or int(table["nchunk"][row]) != nchunk:
            return None
        return int(table["offset"][row]), int(table["nbytes"][row]), int(table["mask"][row])

    def _origin(self, coords: tuple[int, ...]) -> int:
        """Bytes before the first item of a chunk of whole trailing axes."""
        g, item = self._geometry, 0
        for length, chunk, coord in zip(g.shape, g.chunks, coords, strict=True):
            item = item * length + coord * chunk
        return item * g.itemsize

    def _runs(self, nchunk: int, wanted: list[int], fetch: Any) -> BlockRecord:
        raw = fetch_blocks(self._geometry, nchunk, wanted, fetch)
        return encode_blocks(self._seed, nchunk, wanted, raw, self._geometry)

    def _read_segments(self, start: int, nbytes: int) -> bytes:
        """Bytes of external raw files; what is beyond the end of one is zeros, as in HDF5."""
        parts: list[bytes] = []
        position = 0
        for name, offset, size in self._form["segments"]:
            # An unlimited last segment has the largest number there is.
            low, high = max(start - position, 0), min(start + nbytes - position, int(size))
            if low < high:
                path = self._located.locate(self._opened.path, str(name), "external raw file")
                opened = self._stack.enter_context(open_file(self._root, path))
                data = read_at(opened.fd, high - low, int(offset) + low)
                parts.append(data + bytes(high - low - len(data)))
            position += int(size)
        data = b"".join(parts)
        return data + bytes(nbytes - len(data))

    def _chunk(self, nchunk: int, coords: tuple[int, ...], wanted: list[int]) -> BlockRecord:
        row = self._row(nchunk)
        if row is None:
            return fill_record(self._seed, nchunk, wanted, self._geometry, bytes.fromhex(self._form["fill"]))
        offset, nbytes, mask = row
        record = chunk_record(
            self._seed,
            nchunk,
            wanted,
            self._geometry,
            Pipeline.from_json(self._form["pipeline"]),
            mask,
            nbytes,
            lambda at, n: read_at(self._opened.fd, n, offset + at),
        )
        if record is None:
            return array_record(self._seed, nchunk, wanted, self._geometry, self._decoded(coords))
        return record

    def _box(self, coords: tuple[int, ...]) -> tuple[list[int], list[int]]:
        g = self._geometry
        start = [i * c for i, c in zip(coords, g.chunks, strict=True)]
        return start, [min(a + c, n) for a, c, n in zip(start, g.chunks, g.shape, strict=True)]

    def _read(self, coords: tuple[int, ...]) -> tuple[dict[str, Any], bytes, tuple[int, ...]]:
        start, stop = self._box(coords)
        name = ""
        if self._sources or "sources" in self._form:
            # The library finds sources relative to the file's name; they were checked to be inside of the root.
            name = os.path.join(os.path.realpath(self._root), self._opened.path)
        state = "\0".join([self._state, *state_texts(self._sources)])
        answer, body = self._worker.read(self._opened.fd, state, str(self._entry.storage["hdf5"]), start, stop, name)
        return answer, body, tuple(b - a for a, b in zip(start, stop, strict=True))

    def _decoded(self, coords: tuple[int, ...]) -> npt.NDArray[Any]:
        _, body, shape = self._read(coords)
        try:
            return np.frombuffer(body, self._geometry.dtype).reshape(shape)
        except ValueError as error:
            raise IntegrityError(f"{self._entry.path!r} is not what its index says") from error

    def _strings(self, nchunk: int, coords: tuple[int, ...]) -> BlockRecord:
        answer, body, _ = self._read(coords)
        count = int(answer["count"])
        lengths = np.frombuffer(body, "<u8", count)
        ends = 8 * count + np.cumsum(lengths)
        if int(ends[-1] if count else 0) > 1 << 30:
            raise UnsupportedDatasetError(f"strings {nchunk} of {self._entry.path!r} take over 1 GiB")
        texts = [
            body[int(end - n) : int(end)].decode("utf-8", "surrogateescape")
            for end, n in zip(ends.tolist(), lengths.tolist(), strict=True)
        ]
        return encode_strings(self._seed, nchunk, texts)
