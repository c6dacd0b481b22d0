"""``RemoteFile``: a file or frame of bytes, sliced, read, opened or downloaded.

Slices come block by block like those of arrays, so what was read once is in the service's cache.
"""

from __future__ import annotations

import io
import operator
from typing import Any

from ..core.dtypes import dtype_to_json
from ..core.selection import AxisRange, Selection, parse_basic
from ..errors import TooLargeError
from .card_state import state_rows, when_modified
from .prefetch import Prefetching
from .progress import BAR_NBYTES, telling
from .remote_dataset import RemoteDataset
from .representation import format_nbytes, html_table, plain
from .showing import Viewed

__all__ = ["RemoteFile"]

BUFFER_NBYTES = 1 << 20


class RemoteFile(Prefetching, Viewed, RemoteDataset):
    """A file of a root: one dimension of bytes (or of items of some bytes, for a frame).

    ``file[start:stop]`` is ``bytes``: of a plain file counted in bytes, of a ``.b2frame`` in its items.

    Examples
    --------
    >>> file = client["foo/README.md"]
    >>> file[:9], file.shape, file.media_type
    (b'# An exam', (82,), 'text/markdown')
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(number of items,)``."""
        return self._geometry.shape

    @property
    def itemsize(self) -> int:
        """Bytes of an item; 1 for plain files."""
        return self._geometry.itemsize

    @property
    def nbytes(self) -> int:
        """Length in bytes, decoded."""
        return self._geometry.nbytes

    @property
    def media_type(self) -> str:
        """Media type as its publisher guesses it; empty when not known."""
        return self._entry.media_type

    def __len__(self) -> int:
        return self._geometry.shape[0]

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: Any) -> bytes:
        """The bytes of some items.

        Parameters
        ----------
        key : int or slice
            Counted in items; ``...`` and ``()`` are all of it.

        Returns
        -------
        bytes

        Raises
        ------
        IndexError, TypeError
            As NumPy raises for a 1-d array.
        DatasetChangedError, SourceUnavailableError, NotCachedError

        Examples
        --------
        >>> client["foo/README.md"][-7:-1]
        b'...'
        """
        parsed = parse_basic(key, self._geometry.shape)
        session = self._session
        bars = session.bars if parsed.selection.size * self.itemsize >= BAR_NBYTES else None
        with telling(None, bars, self.name) as progress:
            box = session.reader.read(self._root, self._entry, parsed.selection, progress, session.cache)
        return bytes(parsed.apply(box).tobytes())

    def read(self) -> bytes:
        """The whole file.

        Raises
        ------
        TooLargeError
            When it is over the client's ``max_nbytes``.

        Examples
        --------
        >>> client["foo/README.md"].read().decode().splitlines()[0]
        '# An example root'
        """
        if self.nbytes > self._session.max_nbytes:
            raise TooLargeError(
                f"{self._root}/{self.path} has {format_nbytes(self.nbytes)}, over the limit of "
                f"{format_nbytes(self._session.max_nbytes)} for reading a file whole: open() it, use download(), or "
                "connect(max_nbytes=...)"
            )
        return self[...]

    def open(self) -> io.BufferedReader:
        """The file as a seekable, read-only, buffered binary stream.

        Returns
        -------
        io.BufferedReader

        Raises
        ------
        DatasetChangedError, SourceUnavailableError, NotCachedError
            When it is read.

        Examples
        --------
        >>> with client["foo/README.md"].open() as file:
        ...     file.seek(2), file.read(4)
        (2, b'An e')
        """
        return io.BufferedReader(_RawFile(self), BUFFER_NBYTES)

    def _read_bytes(self, start: int, stop: int) -> bytes:
        itemsize = max(self.itemsize, 1)
        first, last = start // itemsize, -(-stop // itemsize)
        box = self._session.reader.read(
            self._root, self._entry, Selection((AxisRange(first, last),)), cache=self._session.cache
        )
        return bytes(box.tobytes()[start - first * itemsize : stop - first * itemsize])

    def __repr__(self) -> str:
        return f"<RemoteFile {plain(f'{self._root}/{self.path}')} {format_nbytes(self.nbytes)}>"

    def _repr_html_(self) -> str:
        """A card of what is known, and of its state now, for notebooks; every text in it is escaped."""
        facts = {"size": format_nbytes(self.nbytes)}
        if self.media_type:
            facts["media type"] = self.media_type
        if self.itemsize != 1:
            facts["items"] = f"{len(self)} of {dtype_to_json(self._geometry.dtype)}"
        if modified := when_modified(self._entry.mtime_ns):
            facts["modified"] = modified
        facts["version"] = self.version
        facts |= state_rows(self)
        return html_table(f"RemoteFile {self._root}/{self.path}", facts, self.attrs if self._entry.attrs_inline else {})


class _RawFile(io.RawIOBase):
    """The unbuffered side of ``RemoteFile.open``."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._nbytes = file.nbytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._nbytes}.get(whence)
        if base is None:
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        position = base + operator.index(offset)
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._nbytes)
        if stop <= self._position:
            return 0
        part = self._file._read_bytes(self._position, stop)
        view[: len(part)] = part
        self._position += len(part)
        return len(part)
