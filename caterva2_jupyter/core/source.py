"""What a source is: the one idea that everything is composed of.

A source answers three questions about named roots: what is there (``catalog``, ``entry``), give me these
blocks of this version (``read_blocks``, and ``read_file`` for the stored bytes), what changed (``events``).
Directories, HDF5 files, publishers, other subscribers and caches all answer them. Types only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .answer_choice import Answer
from .blocks import BlockRecord
from .catalog import CatalogPage, CatalogQuery, Cursor
from .events import EventBatch
from .metadata import Entry
from .reduce_request import ReduceRequest, Working
from .revalidation import SameRecord
from .wire import ReadRequest

__all__ = ["BlockStream", "ComparedStream", "FileStream", "ReducedStream", "Source", "listed"]


@dataclass(slots=True)
class BlockStream:
    """The answer to a read: what is read, and its records as they come.

    Records come in the plan's order of chunks; a chunk may come in several. Close the iterator
    (``aclose``) to stop the work behind it. A ``DatasetChangedError`` in the midst means that what came
    before is not to be used.

    Attributes
    ----------
    entry : Entry
    records : AsyncIterator of BlockRecord
    digest : str
        Of the selection, when the records are the pieces of its exact slice (``exact_slice``), which only comes
        where the request's mode allows it; empty when they are blocks.
    """

    entry: Entry
    records: AsyncIterator[BlockRecord]
    digest: str = ""

    @property
    def answer(self) -> Answer:
        return "slice" if self.digest else "blocks"


@dataclass(slots=True)
class ComparedStream:
    """The answer to a comparison: what is compared, and what is said of each chunk as it comes."""

    entry: Entry
    records: AsyncIterator[SameRecord]


@dataclass(slots=True)
class ReducedStream:
    """The answer to a reduction.

    Attributes
    ----------
    entry : Entry
        What is reduced.
    records : AsyncIterator of BlockRecord or Working
        The pieces of the result, as those of an exact slice; before them, every few seconds, how far it is. Close it
        to stop the work.
    digest : str
        ``reduction_digest`` of the request.
    """

    entry: Entry
    records: AsyncIterator[BlockRecord | Working]
    digest: str


@dataclass(slots=True)
class FileStream:
    """Stored bytes of a dataset: its total length, its version, and the part asked for as it comes."""

    nbytes: int
    version: str
    mtime_ns: int
    parts: AsyncIterator[bytes]


class Source(Protocol):
    """Answers about one root. All errors are of ``errors``."""

    @property
    def root(self) -> str:
        """Name of the root."""
        ...

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        """A page of the listing.

        Raises
        ------
        DatasetNotFoundError
            When ``query.under`` is not a group.
        ResyncError
            When ``query.since`` is of another epoch or too old.
        SourceUnavailableError
        """
        ...

    async def entry(self, path: str) -> Entry:
        """The entry at ``path``, exactly or with ``.b2nd`` added, with all its attributes.

        The root itself (``""``) is always there, and a group.

        Raises
        ------
        DatasetNotFoundError, SourceUnavailableError
        """
        ...

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        """Stream the blocks of a selection that are not held.

        Raises
        ------
        DatasetNotFoundError, SelectionError, UnsupportedDatasetError
        DatasetChangedError
            When ``request.version`` is not the version now.
        SourceUnavailableError, NotCachedError
        """
        ...

    async def compare_blocks(self, request: ReadRequest) -> ComparedStream:
        """Say which of the request's ``known`` blocks are what they were in an older version.

        Raises
        ------
        As ``read_blocks``.
        RequestError
            When the request has no ``known``, or not a digest for each chunk of it.
        """
        ...

    async def reduce(self, request: ReduceRequest) -> ReducedStream:
        """Make fewer values of many, where they are.

        Raises
        ------
        As ``read_blocks``.
        RequestError
            When the request does not fit the dataset, or there is no such value (the least of nothing).
        TooLargeError
            When the result is over the limit of one reduction.
        """
        ...

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        """Stream the stored bytes of a file from ``start`` to ``stop`` (exclusive; None: the end).

        Raises
        ------
        DatasetNotFoundError
        UnsupportedDatasetError
            When the dataset is not a file of its own (a dataset inside an HDF5 file).
        """
        ...

    def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        """Batches of events from ``since`` (None: from now on), heartbeats between them, without end.

        Raises
        ------
        ResyncError
            When events since then are not known any more.
        """
        ...


async def listed(records: Sequence[BlockRecord]) -> AsyncIterator[BlockRecord]:
    """Records that are all there, as a stream."""
    for record in records:
        yield record
