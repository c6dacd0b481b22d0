"""One HDF5 file of a root: its entries, and the blocks of its datasets, each of the state that is asked for.

The index comes from a worker process, chunks by ``pread``; nothing is open between calls, so a writer is
never in the way and never locked out. Whatever a dataset's values come from (the file, sources of a virtual
dataset, external raw files) is in its version, and compared before and after each read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..core.blocks import BlockRecord
from ..core.chunk_grid import ChunkProjection
from ..core.metadata import Entry, Geometry
from ..errors import DatasetChangedError, DatasetNotFoundError, IntegrityError, UnsupportedDatasetError
from .generation import Generation, unsettled_s, version_tag
from .hdf5_chunk_reader import Hdf5ChunkReader
from .hdf5_listing import Hdf5Listing
from .hdf5_sources import Hdf5Sources, stamp_with, state_texts
from .hdf5_worker import Hdf5Worker, StoredDataset
from .safe_open import OpenedPath, open_file

__all__ = ["Hdf5File"]

_MAX_READS = 8


class Hdf5File:
    """An HDF5 (netCDF4, NeXus) file.

    Parameters
    ----------
    root : Path
        Directory that nothing is opened outside of.
    path : str
        Of the file, relative to it.
    owner_of : callable
        The owner id that ids of datasets in a file (path relative to ``root``) are made with.
    worker : Hdf5Worker
        Shared by all files; closed by its owner.
    follow : bool
        May links, virtual datasets and external storage name other files (inside of ``root``)?

    Notes
    -----
    What a read needs is found again from ``entry.storage["hdf5"]`` (and ``["file"]`` for what an external
    link leads to), so entries of an earlier run can be read without an index.
    """

    def __init__(
        self,
        root: Path,
        path: str,
        owner_of: Callable[[str], str],
        worker: Hdf5Worker,
        *,
        follow: bool = True,
    ) -> None:
        self._root = root
        self._path = path
        self._owner_of = owner_of
        self._worker = worker
        self._sources = Hdf5Sources(root, path, worker, follow=follow)

    @property
    def stamp(self) -> str:
        """The state of the file itself, now."""
        return self.stamp_with(())

    def stamp_with(self, sources: Iterable[str]) -> str:
        """The state of the file now, and of others that its content comes from.

        Parameters
        ----------
        sources : iterable of str
            ``storage["sources"]`` of the file's own entry.

        Raises
        ------
        DatasetNotFoundError
        """
        with open_file(self._root, self._path) as opened:
            own = Generation.from_stat(opened.status).stamp
        return stamp_with(own, [self._sources.state(path) for path in sources])

    def entries(self) -> Iterator[Entry]:
        """Every entry, paths relative to the file; its own (path ``""``, a group) first.

        ``storage["sources"]`` of the first names the other files that the content comes from.

        Raises
        ------
        IntegrityError
            When HDF5 cannot open it (it may be half-written).
        UnsupportedDatasetError
            When HDF5 does not survive it.
        DatasetChangedError
            When it changed meanwhile: try again once it is quiet.
        """
        yield from self._listing().entries()

    def stamped_entries(self) -> list[tuple[Entry, str]]:
        """Every entry with its stamp (see ``stamp_with``), once all are known to be of one state."""
        listing = self._listing()
        entries = list(listing.entries())
        return [(entry, listing.stamp) for entry in entries]

    def _listing(self) -> Hdf5Listing:
        return Hdf5Listing(self._root, self._path, self._owner_of, self._worker, self._sources)

    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]:
        """As ``Root.read_chunk``."""
        assert entry.geometry is not None
        path = str(entry.storage.get("hdf5", ""))
        file = str(entry.storage.get("file", self._path))
        try:
            opened = open_file(self._root, file)
        except DatasetNotFoundError:
            raise DatasetChangedError(f"{entry.path!r} is gone: its file is not there any more") from None
        with opened:
            for _ in range(_MAX_READS):
                record, is_whole = self._read_once(opened, entry, entry.geometry, path, projection, list(blocks))
                if is_whole:
                    return [record]
                time.sleep(unsettled_s(Generation.of(opened.fd), time.time_ns()))
        raise DatasetChangedError(f"{entry.path!r} is written to all the time: try again, or refresh()")

    def _read_once(
        self,
        opened: OpenedPath,
        entry: Entry,
        geometry: Geometry,
        path: str,
        projection: ChunkProjection,
        blocks: list[int],
    ) -> tuple[BlockRecord, bool]:
        """A record, and whether it is of one state: the last chunk of a file that grows may just be rewritten."""
        with ExitStack() as stack:
            before, state = _state_now(opened)
            try:
                stored = self._worker.dataset(opened.fd, state, path, geometry.shape)
                sources = self._sources.of_form(opened, stored.node.get("form", {}))
            except (IntegrityError, UnsupportedDatasetError):
                self._check(entry, [before])  # a change explains it better
                raise
            self._check(entry, [stored.node.get("state", before), *state_texts(sources)])
            reader = Hdf5ChunkReader(
                self._root, self._worker, self._sources, opened, state, entry, geometry, stored, sources, stack
            )
            try:
                record = reader.record(projection.nchunk, projection.coords, blocks)
            except (IntegrityError, UnsupportedDatasetError):
                self._check_again(entry, geometry, opened, state, stored)
                raise
            after = self._check_again(entry, geometry, opened, state, stored)
            return record, after is stored or not reader.may_differ(after, projection)

    def attributes(self, entry: Entry) -> Entry:
        """As ``Root.attributes``."""
        path = str(entry.storage.get("hdf5", ""))
        if not path:
            return entry
        with open_file(self._root, str(entry.storage.get("file", self._path))) as opened:
            found = self._worker.attributes(opened.fd, Generation.of(opened.fd).stamp, path)
        storage = dict(entry.storage)
        if found.get("skipped"):
            storage["attrs_skipped"] = found["skipped"]
        if found.get("exact"):
            storage["attrs_exact"] = found["exact"]
        return replace(entry, attrs=found["attrs"], attrs_inline=True, storage=storage)

    def _check(self, entry: Entry, states: Sequence[str]) -> None:
        if version_tag(states, entry.geometry) != entry.version:
            raise DatasetChangedError(f"{entry.path!r} has changed: open it again, or refresh()")

    def _check_again(
        self, entry: Entry, geometry: Geometry, opened: OpenedPath, before: str, stored: StoredDataset
    ) -> StoredDataset:
        """Is all that was read of the state that the entry's version stands for? How it is stored now."""
        now, state = _state_now(opened)
        if "state" in stored.node and state != before:
            stored = self._worker.dataset(opened.fd, state, str(entry.storage["hdf5"]), geometry.shape)
        sources = self._sources.of_form(opened, stored.node.get("form", {}))
        self._check(entry, [stored.node.get("state", now), *state_texts(sources)])
        return stored


def _state_now(opened: OpenedPath) -> tuple[str, str]:
    """The generation of an open file, and a text that no later state of it has."""
    generation, now_ns = Generation.of(opened.fd), time.time_ns()
    unsettled = unsettled_s(generation, now_ns) > 0
    return generation.stamp, f"{generation.stamp}~{now_ns}" if unsettled else generation.stamp
