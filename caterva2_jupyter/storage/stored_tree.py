"""Files that hold datasets (HDF5), as a directory root sees them: trees of entries of their own.

Who opens such a file is given by a factory; what HDF5 is, is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from ..core.blocks import BlockRecord
from ..core.chunk_grid import ChunkProjection
from ..core.metadata import Entry, dataset_id
from ..core.paths import parents
from ..errors import DatasetNotFoundError
from .blosc2_file import settled_generation
from .safe_open import open_file

__all__ = ["StoredTree", "StoredTreeFactory", "StoredTrees", "sources_of"]


class StoredTree(Protocol):
    """A file with datasets in it (HDF5). Paths of its entries are relative to the file."""

    def stamp_with(self, sources: Iterable[str]) -> str:
        """The state of the file and of others (paths in the root) that its content comes from."""
        ...

    def stamped_entries(self) -> list[tuple[Entry, str]]:
        """Every entry, its own (path ``""``) with ``storage["sources"]`` first."""
        ...

    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]: ...

    def attributes(self, entry: Entry) -> Entry: ...


StoredTreeFactory = Callable[[Path, str], StoredTree]
"""Makes a ``StoredTree`` of a file's path and the owner id that its datasets' ids are made with."""


class StoredTrees:
    """The files of a directory that hold datasets.

    Parameters
    ----------
    directory : Path
    owner_id : str
        Of the root; ids of datasets are made with it.
    factory : callable or None
        None: such files are files like any other.
    """

    def __init__(self, directory: Path, owner_id: str, factory: StoredTreeFactory | None) -> None:
        self._directory, self._owner_id, self._factory = directory, owner_id, factory

    @property
    def are_opened(self) -> bool:
        return self._factory is not None

    def open(self, real: str) -> StoredTree:
        """The tree of the file at a path in the directory."""
        assert self._factory is not None
        return self._factory(self._directory / real, dataset_id(self._owner_id, real))

    def find(self, entry: Entry) -> tuple[StoredTree, str] | None:
        """The file that an entry is in, as it is now, and the path in it; None when it is in none."""
        if self._factory is None:
            return None
        for path in [*parents(entry.path), entry.path][::-1]:
            try:
                with open_file(self._directory, path) as file:
                    settled_generation(file.fd)
                    return self.open(file.path), entry.path[len(path) + 1 :]
            except DatasetNotFoundError:
                continue
        return None


def sources_of(entry: Entry) -> tuple[str, ...]:
    """Other files that the content of an HDF5 file comes from."""
    listed = entry.storage.get("sources") if entry.kind == "group" else None
    return tuple(str(path) for path in listed) if isinstance(listed, (list, tuple)) else ()
