"""A root that is one HDF5 (netCDF4, NeXus) file: its groups are directories, its datasets arrays.

How the file is read is ``hdf5_file``'s business.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..core.blocks import BlockRecord
from ..core.chunk_grid import ChunkProjection
from ..core.events import Event
from ..core.metadata import Entry, dataset_id
from ..errors import (
    AccessDeniedError,
    ConfigError,
    DatasetChangedError,
    DatasetNotFoundError,
    IntegrityError,
    UnsupportedDatasetError,
)
from .generation import Generation, version_tag
from .hdf5_file import Hdf5File
from .hdf5_worker import Hdf5Worker
from .root import KnownEntry, Root, StoredFile
from .safe_open import open_file, read_at

__all__ = ["Hdf5Root", "hdf5_trees"]

_PART_NBYTES = 256 << 10
_ATTEMPTS = 3
_NOT_NOW = (AccessDeniedError, DatasetChangedError, IntegrityError, UnsupportedDatasetError)


def hdf5_trees(root: Path, owner_id: str, worker: Hdf5Worker | None = None) -> Callable[[Path, str], Hdf5File]:
    """What a ``DirectoryRoot`` opens the HDF5 files inside of it with.

    Parameters
    ----------
    root : Path
        The directory.
    owner_id : str
        Of the root.
    worker : Hdf5Worker, optional
        One for all files otherwise, whose processes end with it.
    """
    shared = worker or Hdf5Worker()

    def owner_of(file: str) -> str:
        return dataset_id(owner_id, file)

    def open_tree(path: Path, _: str) -> Hdf5File:
        return Hdf5File(root, path.relative_to(root).as_posix(), owner_of, shared)

    return open_tree


class Hdf5Root(Root):
    """Root over one file.

    Parameters
    ----------
    path : Path
    owner_id : str
        Of the root, for ids.
    worker : Hdf5Worker, optional
        Where HDF5 runs; one of its own otherwise, closed with it.
    follow : bool
        May links, virtual datasets and external storage name other files in the same directory?

    Raises
    ------
    ConfigError
        When h5py is not installed.
    """

    def __init__(self, path: Path, owner_id: str, worker: Hdf5Worker | None = None, *, follow: bool = False) -> None:
        if importlib.util.find_spec("h5py") is None:
            raise ConfigError(f"to serve {path}, h5py is needed: pip install 'caterva2-jupyter[hdf5]'")
        # A link to the file may point anywhere: the publisher's owner chose it. Nothing beside it is opened.
        real = Path(os.path.realpath(path))
        self.watched = real
        self._directory, self._name = real.parent, real.name
        self._worker = worker or Hdf5Worker()
        self._owns_worker = worker is None

        def owner_of(file: str) -> str:
            return owner_id if file == real.name else dataset_id(owner_id, f"//{file}")

        self._file = Hdf5File(self._directory, self._name, owner_of, self._worker, follow=follow)

    def entries(self) -> list[Entry]:
        """Every entry of the file now.

        Raises
        ------
        IntegrityError, UnsupportedDatasetError
            When it cannot be read as HDF5.
        DatasetChangedError
            When it is being written.
        """
        return [entry for entry, _ in self._listed()]

    def scan(self, known: Iterable[KnownEntry]) -> Iterator[tuple[Entry, str]]:
        before = list(known)
        if before and self._is_unchanged(before):
            yield from ((k.entry, k.stamp) for k in before)
            return
        try:
            yield from self._listed()
        except DatasetNotFoundError:
            return
        except _NOT_NOW:
            # Being written: what is known of it stays listed until it can be opened.
            yield from ((k.entry, k.stamp) for k in before)

    def rescan(self, paths: Iterable[Path], known: Iterable[KnownEntry]) -> Iterator[tuple[Event, str]]:
        before = {k.entry.path: k for k in known}
        if before and self._is_unchanged(before.values()):
            return
        try:
            now = dict((e.path, (e, stamp)) for e, stamp in self._listed())
        except DatasetNotFoundError:
            now = {}
        except _NOT_NOW:
            return
        for path, (entry, stamp) in now.items():
            if path not in before or before[path].entry != entry or before[path].stamp != stamp:
                yield Event("put", path, entry), stamp
        for path in sorted(before.keys() - now.keys(), reverse=True):
            yield Event("delete", path), ""

    def _listed(self) -> list[tuple[Entry, str]]:
        """All entries at once: half of a file that changes meanwhile is never told."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._file.stamped_entries()
            except DatasetChangedError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError

    def _is_unchanged(self, known: Iterable[KnownEntry]) -> bool:
        top = next((k for k in known if k.entry.path == ""), None)
        if top is None:
            return False
        try:
            return self._file.stamp_with(top.entry.storage.get("sources", ())) == top.stamp
        except (DatasetNotFoundError, AccessDeniedError):
            return False

    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]:
        if entry.geometry is None:
            raise UnsupportedDatasetError(f"{entry.path!r} cannot be read: {entry.reason or 'it has no values'}")
        return self._file.read_chunk(entry, projection, blocks)

    def read_file(self, entry: Entry, start: int, stop: int | None) -> StoredFile:
        if entry.path != "":
            raise UnsupportedDatasetError(f"{entry.path!r} is not a file of its own: it is inside of an HDF5 file")
        try:
            opened = open_file(self._directory, self._name)
        except DatasetNotFoundError:
            raise DatasetChangedError(f"{self._name!r} is gone") from None
        generation = Generation.of(opened.fd)
        version = version_tag(generation)
        if version != entry.version:
            opened.close()
            raise DatasetChangedError(f"{self._name!r} has changed")
        end = generation.nbytes if stop is None else min(stop, generation.nbytes)

        def parts() -> Iterator[bytes]:
            with opened:
                position = start
                while position < end:
                    data = read_at(opened.fd, min(_PART_NBYTES, end - position), position)
                    if not data or Generation.of(opened.fd) != generation:
                        raise DatasetChangedError(f"{self._name!r} changed while it was read")
                    position += len(data)
                    yield data

        return StoredFile(generation.nbytes, version, generation.mtime_ns, parts())

    def attributes(self, entry: Entry) -> Entry:
        return self._file.attributes(entry)

    def close(self) -> None:
        if self._owns_worker:
            self._worker.close()
