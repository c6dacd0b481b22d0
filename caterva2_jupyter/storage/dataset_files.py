"""Reads of the files of a directory root: each of the state that the entry's version stands for, or an error.

Frames that were just read stay open for some seconds, and their indices in memory. It lists nothing.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock

from ..core.blocks import BlockRecord, checksum_seed
from ..core.codec import DecodeChunk
from ..core.metadata import Entry
from ..core.paths import parents
from ..errors import (
    AccessDeniedError,
    DatasetChangedError,
    DatasetNotFoundError,
    IntegrityError,
    UnsupportedDatasetError,
)
from .blosc2_file import FrameFile, FrameIndex, open_frame, read_blocks, read_blocks_at_once, settled_generation
from .frame_attributes import frame_attrs
from .generation import Generation, version_tag
from .open_frames import OpenFrames
from .plain_file import read_parts, read_plain_blocks
from .root import ReadChunk, StoredFile
from .safe_open import OpenedPath, open_file
from .stored_tree import StoredTree, StoredTrees

__all__ = ["DatasetFiles"]

_FRAME_FORMATS = ("b2nd", "b2frame")
_MAX_HELD_NBYTES = 64 << 20


class DatasetFiles:
    """The files that datasets of a directory root are read from. Thread safe.

    Parameters
    ----------
    directory : Path
        The root's.
    trees : StoredTrees
    stored_at : callable
        Path in the directory of the file of an entry that is not inside of another.
    decode : DecodeChunk
        For indexes and metalayers of Blosc2 files.
    decodes : bool
        Encode chunks anew that readers could not decode.
    """

    def __init__(
        self,
        directory: Path,
        trees: StoredTrees,
        stored_at: Callable[[Entry], str],
        decode: DecodeChunk,
        *,
        decodes: bool,
    ) -> None:
        self._decode = decode
        self._directory, self._trees, self._stored_at, self._decodes = directory, trees, stored_at, decodes
        self._lock = Lock()
        self._indices: OrderedDict[tuple[str, str], FrameIndex] = OrderedDict()
        self._held_nbytes = 0
        self._open_frames = OpenFrames()

    def close(self) -> None:
        self._open_frames.clear()
        with self._lock:
            self._indices.clear()
            self._held_nbytes = 0

    def close_idle(self) -> bool:
        return self._open_frames.close_old()

    @contextmanager
    def reading(self, entry: Entry) -> Iterator[ReadChunk]:
        geometry = entry.geometry
        if geometry is None:
            raise UnsupportedDatasetError(f"{entry.path!r} has no data to read: {entry.reason or entry.kind}")
        seed = checksum_seed(entry.id, entry.version)
        if entry.storage.get("format") in _FRAME_FORMATS:
            with self._frame(entry, seed) as (frame, index):
                yield lambda projection, blocks: read_blocks(
                    frame, index, seed, projection.nchunk, blocks, decodes=self._decodes
                )
            return
        with self._file_or_tree(entry) as (file, found):
            if found is not None:
                tree, path = found
                yield partial(tree.read_chunk, replace(entry, path=path))
                return
            assert file is not None
            fd = file.fd
            yield lambda projection, blocks: read_plain_blocks(fd, geometry, seed, projection.nchunk, blocks)

    def attributes(self, entry: Entry) -> Entry:
        if entry.storage.get("format") in _FRAME_FORMATS:
            with self._frame(entry) as (_, index):
                attrs, _ = frame_attrs(index, self._decode)
                return replace(entry, attrs=attrs, attrs_inline=True)
        with self._changes_told(entry):
            found = self._trees.find(entry)
        if found is None:
            raise DatasetChangedError(_changed(entry))
        tree, path = found
        whole = tree.attributes(replace(entry, path=path))
        return replace(whole, path=entry.path)

    def read_file(self, entry: Entry, start: int, stop: int | None) -> StoredFile:
        if not entry.version:
            raise UnsupportedDatasetError(f"{entry.path!r} is not a file of its own")
        with self.stored_bytes(entry) as (_, generation):
            nbytes = generation.nbytes
        stop = nbytes if stop is None else min(stop, nbytes)
        parts = self._parts(entry, max(start, 0), stop)
        return StoredFile(nbytes, entry.version, generation.mtime_ns, parts)

    def _parts(self, entry: Entry, start: int, stop: int) -> Iterator[bytes]:
        # Opened by the first part, so that an iterator that nobody iterates holds no file open.
        with self.stored_bytes(entry) as (file, generation):
            for part in read_parts(file.fd, start, stop):
                if Generation.of(file.fd) != generation:
                    raise DatasetChangedError(_changed(entry))
                yield part

    @contextmanager
    def stored_bytes(self, entry: Entry) -> Iterator[tuple[OpenedPath, Generation]]:
        """The open file of an entry that is one, in the state that its version stands for."""
        try:
            file = open_file(self._directory, self._stored_at(entry))
        except (DatasetNotFoundError, AccessDeniedError):
            if os.path.isdir(self._directory / entry.path):
                raise UnsupportedDatasetError(f"{entry.path!r} is stored as a directory, not as one file") from None
            if any(os.path.isfile(self._directory / p) for p in parents(entry.path)):
                raise UnsupportedDatasetError(f"{entry.path!r} is inside of a file: download that file") from None
            raise DatasetChangedError(_changed(entry)) from None
        with file:
            generation = settled_generation(file.fd)
            if version_tag(generation, entry.geometry) != entry.version:
                raise DatasetChangedError(_changed(entry))
            yield file, generation

    @contextmanager
    def _changes_told(self, entry: Entry) -> Iterator[None]:
        """A file that is gone, or not readable any more, is another state of the dataset."""
        try:
            yield
        except (DatasetNotFoundError, AccessDeniedError):
            raise DatasetChangedError(_changed(entry)) from None
        except DatasetChangedError:
            raise DatasetChangedError(_changed(entry)) from None

    def read_at_once(self, entry: Entry, nchunk: int, blocks: Sequence[int], max_nbytes: int) -> BlockRecord | None:
        held = self._open_frames.get(entry.id, entry.version)
        if held is None:
            return None
        with self._of_version(entry, held.frame):
            return read_blocks_at_once(held.frame, held.index, held.seed, nchunk, blocks, max_nbytes)

    @contextmanager
    def _frame(self, entry: Entry, seed: int = 0) -> Iterator[tuple[FrameFile, FrameIndex]]:
        """The open frame of an entry and its index, of the state that its version stands for."""
        held = self._open_frames.get(entry.id, entry.version)
        if held is not None:
            with self._of_version(entry, held.frame):
                yield held.frame, held.index
            return
        with self._changes_told(entry):
            frame = open_frame(self._directory, self._stored_at(entry))
            try:
                with self._of_version(entry, frame):
                    index = self._index(frame, entry)
                    if index.version != entry.version:
                        raise DatasetChangedError(_changed(entry))
                    yield frame, index
            except BaseException:
                frame.close()
                raise
        # What links lead to may become another file without a sign at this one.
        if seed and frame.can_stay_open and frame.path == entry.path:
            self._open_frames.keep(entry.id, entry.version, frame, index, seed)
        else:
            frame.close()

    @contextmanager
    def _of_version(self, entry: Entry, frame: FrameFile) -> Iterator[None]:
        """What is read inside is of the entry's version, or not to be used."""
        try:
            yield
        except (IntegrityError, UnsupportedDatasetError):
            # A file that is being written looks damaged.
            if not frame.is_unchanged():
                self._open_frames.drop(entry.id, entry.version)
                raise DatasetChangedError(_changed(entry)) from None
            raise
        if not frame.is_unchanged():
            self._open_frames.drop(entry.id, entry.version)
            raise DatasetChangedError(_changed(entry))

    def _index(self, frame: FrameFile, entry: Entry) -> FrameIndex:
        key = (frame.path, frame.generation.stamp)
        with self._lock:
            if (held := self._indices.get(key)) is not None:
                self._indices.move_to_end(key)
                return held
        if version_tag(frame.stamp()[0], entry.geometry) != entry.version:
            raise DatasetChangedError(_changed(entry))  # perhaps half-written by now: nothing to look into
        index = frame.read_index(self._decode)
        with self._lock:
            if key not in self._indices:
                self._indices[key] = index
                self._held_nbytes += index.nbytes_held
            while self._held_nbytes > _MAX_HELD_NBYTES and len(self._indices) > 1:
                _, dropped = self._indices.popitem(last=False)
                self._held_nbytes -= dropped.nbytes_held
        return index

    @contextmanager
    def _file_or_tree(self, entry: Entry) -> Iterator[tuple[OpenedPath | None, tuple[StoredTree, str] | None]]:
        """The open plain file of an entry, of its version; or the HDF5 file that it is in."""
        with self._changes_told(entry):
            try:
                file = open_file(self._directory, entry.path)
            except DatasetNotFoundError:
                found = self._trees.find(entry)
                if found is None:
                    raise
                yield None, found
                return
            with file:
                generation = settled_generation(file.fd)
                if version_tag(generation, entry.geometry) != entry.version:
                    raise DatasetChangedError(_changed(entry))
                yield file, None
                if Generation.of(file.fd) != generation:
                    raise DatasetChangedError(_changed(entry))


def _changed(entry: Entry) -> str:
    return f"{entry.path!r} changed: version {entry.version} is not there any more"
