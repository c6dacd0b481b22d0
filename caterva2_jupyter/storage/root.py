"""What a root of files has to answer: the synchronous side of a source.

A root knows datasets and bytes, not listings or events: ``publisher`` keeps its catalog
(``catalog_store``) from what ``scan`` and ``rescan`` report. All methods may block and are called from
worker threads, several at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..core.blocks import BlockRecord
from ..core.chunk_grid import ChunkProjection
from ..core.events import Event
from ..core.metadata import Entry

__all__ = ["KnownEntry", "ReadChunk", "Root", "StoredFile"]

ReadChunk = Callable[[ChunkProjection, Sequence[int]], list[BlockRecord]]


@dataclass(frozen=True, slots=True)
class KnownEntry:
    """What a catalog from an earlier run knows, so that a scan opens only what changed.

    ``stamp`` is the root's own text for the state of the file behind it (``Root`` makes and compares it).
    """

    entry: Entry
    stamp: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An open file's length and version, and how to read it (``pread``-like, thread safe)."""

    nbytes: int
    version: str
    mtime_ns: int
    parts: Iterator[bytes]


class Root(ABC):
    """A tree of datasets in files.

    Attributes
    ----------
    watched : Path
        What to watch for changes: a directory (recursively) or a file.
    """

    watched: Path

    @abstractmethod
    def scan(self, known: Iterable[KnownEntry]) -> Iterator[tuple[Entry, str]]:
        """Every entry there is, with its stamp, groups included, in any order.

        Parameters
        ----------
        known : iterable of KnownEntry
            From the catalog of an earlier run; entries whose stamp is unchanged are given back as
            they are, without opening their file.

        Notes
        -----
        What cannot be served is an entry of kind ``unsupported`` with the reason; it never raises for
        one dataset. Entries of a file that is half-written are left out until it can be opened.
        """

    @abstractmethod
    def rescan(self, paths: Iterable[Path], known: Iterable[KnownEntry]) -> Iterator[tuple[Event, str]]:
        """What changed at these file-system paths (and below), as events with stamps.

        ``known`` gives the catalog's entries at and below those paths. Unchanged ones give no event.
        """

    @abstractmethod
    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]:
        """Records of some blocks of one chunk, checksums made.

        Parameters
        ----------
        entry : Entry
            As it is in the catalog; its version binds the file that is read.
        blocks : sequence of int
            Numbers of the blocks wanted, ascending; more may come (a chunk that cannot be cut).

        Raises
        ------
        DatasetChangedError
            When the file is not the one that ``entry.version`` stands for, before or after the read.
        IntegrityError
            When the file is damaged there.
        UnsupportedDatasetError
        """

    def reading(self, entry: Entry) -> AbstractContextManager[ReadChunk]:
        """A context manager of ``read_chunk`` for several chunks of a dataset, whose file may be opened once for all.

        What was read is good when the context has been left without an error.
        """
        return nullcontext(partial(self.read_chunk, entry))

    def read_at_once(self, entry: Entry, nchunk: int, blocks: Sequence[int], max_nbytes: int) -> BlockRecord | None:
        """As ``read_chunk``, on an event loop: None where a disk would be waited for, or much be done.

        Parameters
        ----------
        max_nbytes : int
            Compressed bytes at most.
        """
        return None

    def close_idle(self) -> bool:
        """Close the files that were open for reads to come which did not come; are there others still open?"""
        return False

    @abstractmethod
    def read_file(self, entry: Entry, start: int, stop: int | None) -> StoredFile:
        """The stored bytes of a dataset that is a file of its own.

        Raises
        ------
        DatasetChangedError, UnsupportedDatasetError
        """

    @abstractmethod
    def attributes(self, entry: Entry) -> Entry:
        """The entry with all its attributes (for those too large to be kept inline)."""

    def unsettled(self) -> list[Path]:
        """Files that were left out because they could not be opened yet: to be looked at again in a while."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Close files and workers."""
