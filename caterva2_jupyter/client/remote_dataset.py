"""What arrays and files have in common: identity, version, attributes, freshness, refresh, download.

It reads no data; ``RemoteArray`` and ``RemoteFile`` do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from ..core.attributes import decode_attrs
from ..core.metadata import Entry, Geometry
from ..core.once import once
from ..errors import DatasetChangedError, NotFoundError, UnsupportedDatasetError
from .download import download
from .progress import Progress
from .reader import changed, load_decoders
from .session import Session
from .writable import Writable

__all__ = ["Freshness", "RemoteDataset"]


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far what was opened can be trusted to be the newest.

    Attributes
    ----------
    state : {"live", "offline", "superseded"}
        ``live``: it is the version that its publisher serves now. ``offline``: the publisher is away, so
        nobody knows. ``superseded``: there is a newer version (or the dataset is gone); ``refresh()`` moves on.
    since : str
        Since when it is offline, ISO 8601 in UTC; empty when not known.

    Examples
    --------
    >>> str(cat2.Freshness("offline", "2026-11-22T10:00:00Z")), str(client["foo/ds-1d"].freshness)
    ('offline since 2026-11-22T10:00:00Z', 'live')
    """

    state: Literal["live", "offline", "superseded"]
    since: str = ""

    def __str__(self) -> str:
        return f"{self.state} since {self.since}" if self.since else self.state


class RemoteDataset(Writable):
    """A dataset of a root, pinned to the version that it had when it was opened.

    Made by indexing a client or a group. Pickles as its address and version.
    """

    def __init__(self, session: Session, root: str, entry: Entry) -> None:
        load_decoders()
        super().__init__(session, root, entry)

    def __reduce__(self) -> tuple[Any, ...]:
        # Without attributes: an array in a task graph is small, and they can be asked for.
        entry = replace(self._entry, attrs={}, attrs_inline=self._entry.attrs_inline and not self._entry.attrs)
        return _rebuild, (type(self), self._session, self._root, replace(entry, storage={}).to_json())

    @property
    def _geometry(self) -> Geometry:
        geometry = self._entry.geometry
        if geometry is None:
            raise UnsupportedDatasetError(f"{self._root}/{self.path} has no data")
        return geometry

    @property
    def version(self) -> str:
        """Tag of the content that this object reads, and no other."""
        return self._entry.version

    @property
    def cbytes(self) -> int:
        """Compressed bytes as stored; 0 when not known."""
        return self._entry.cbytes

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes by name, read-only.

        Those too large for a listing are asked for when they are first looked at.

        Raises
        ------
        DatasetChangedError
            When they have to be asked for and the dataset has a newer version.
        """
        return self._attrs

    @once
    def _attrs(self) -> Mapping[str, Any]:
        entry = self._session.complete(self._root, self._entry)
        if entry.version != self._entry.version:
            raise changed(self._root, self._entry)
        return MappingProxyType(decode_attrs(entry.attrs))

    @property
    def freshness(self) -> Freshness:
        """Is this the newest version? Asks the service.

        Raises
        ------
        SourceUnavailableError
            When the service itself cannot be reached.
        """
        status = self._session.service.roots().get(self._root)
        if status is not None and not status.online:
            return Freshness("offline", status.since)
        try:
            newest = self._session.service.entry(self._root, self.path)
        except NotFoundError:
            return Freshness("superseded")
        return Freshness("live" if newest.version == self.version else "superseded")

    def refresh(self) -> Self:
        """Move on to the newest version: shape, dtype and attributes may change.

        Returns
        -------
        RemoteArray or RemoteFile
            Itself.

        Raises
        ------
        DatasetNotFoundError
            When it is gone.
        DatasetChangedError
            When the path has become something else than it was (a group, a file): open it again.

        Examples
        --------
        >>> client["foo/ds-1d"].refresh().freshness.state
        'live'
        """
        entry = self._session.service.entry(self._root, self.path)
        if entry.kind != self._entry.kind:
            raise DatasetChangedError(
                f"{self._root}/{self.path} was of kind {self._entry.kind} and is now of kind {entry.kind}: "
                "open it again"
            )
        self._entry = entry
        self.__dict__.pop("_attrs", None)
        return self

    def download(self, path: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
        """Write the dataset to a local file.

        Parameters
        ----------
        path : path, optional
            File to write, or a directory to write into; the dataset's name in the current directory by
            default. Missing directories are made; a file that is there is replaced when all has come.
        progress : callable, optional
            Called with ``(done_nbytes, total_nbytes)``.

        Returns
        -------
        pathlib.Path
            The file: the stored one, byte for byte, where the dataset is a file of its own; else a ``.b2nd``
            with the attributes as ``vlmeta``.

        Raises
        ------
        DatasetChangedError, SourceUnavailableError, NotCachedError
        OSError
            When the file cannot be written.

        Examples
        --------
        >>> client["foo/dir1/ds-2d"].download("copy.b2nd")
        PosixPath('copy.b2nd')
        """
        return download(self._session, self._root, self._entry, path, progress)

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return ("caterva2", self._entry.id, self._entry.version)


def _rebuild(cls: type[RemoteDataset], session: Session, root: str, form: dict[str, Any]) -> RemoteDataset:
    return cls(session, root, Entry.from_json(form))
