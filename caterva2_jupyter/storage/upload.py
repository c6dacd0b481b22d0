"""One upload: a file that comes in parts is written aside, and put in its place when all of it has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from ..errors import AccessDeniedError, DatasetNotFoundError, SourceUnavailableError
from .area_root import PACKED_SUFFIX
from .staging import HEAD_NBYTES, PackedSink, RawSink, Staged, in_words, is_kept_as_it_is

__all__ = ["Upload"]


class Upload:
    """A file that is being written. Made by ``Area.begin``; a context manager that drops what was not committed.

    Whether it is kept as it is (Blosc2 frames, HDF5) or packed (any other) is told by its name and its first bytes.

    Parameters
    ----------
    staging : context manager
        Of the place where it is written.
    path : str
    nbytes : int or None
        Its length, as far as it is known.
    label : str
        The area's name, for messages.
    complete : callable
        Puts what is complete in its place; is it packed?
    """

    def __init__(
        self,
        staging: AbstractContextManager[Staged],
        path: str,
        nbytes: int | None,
        label: str,
        complete: Callable[[Staged, bool], None],
    ) -> None:
        self.path, self._nbytes, self._label, self._complete = path, nbytes, label, complete
        self._staging = staging
        self._staged: Staged | None = staging.__enter__()
        self._head = bytearray()
        self._sink: RawSink | PackedSink | None = None
        self.received_nbytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, data: bytes | bytearray) -> None:
        """More of the file.

        Raises
        ------
        QuotaExceededError
        SourceUnavailableError
            When it cannot be written (a full disk).
        """
        self.received_nbytes += len(data)
        with self._in_words():
            if self._sink is None:
                self._head += data
                if len(self._head) < HEAD_NBYTES:
                    return
                self._open().write(self._head)
                self._head.clear()
            else:
                self._sink.write(data)

    def commit(self) -> str:
        """All of it has come: put it on disk, then in its place.

        Returns
        -------
        str
            The path that it is shown at.

        Raises
        ------
        ConflictError
            When something is there by now that it may not replace.
        QuotaExceededError, SourceUnavailableError
        """
        assert self._staged is not None
        try:
            with self._in_words():
                sink = self._open()
                if self._head:
                    sink.write(self._head)
                    self._head.clear()
                sink.finish()
            is_packed = isinstance(sink, PackedSink)
            self._complete(self._staged, is_packed)
        finally:
            self.abort()
        is_frame_of_file = self.path.endswith(PACKED_SUFFIX) and not is_packed
        return self.path[: -len(PACKED_SUFFIX)] if is_frame_of_file else self.path

    def abort(self) -> None:
        """Drop it; nothing happens when that was done, or it was committed."""
        if self._staged is not None:
            self._staged = None
            if self._sink is not None:
                self._sink.close()
            self._staging.__exit__(None, None, None)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            if isinstance(error, (SourceUnavailableError, AccessDeniedError, DatasetNotFoundError)):
                raise
            raise in_words(error, self._label) from error

    def _open(self) -> RawSink | PackedSink:
        assert self._staged is not None
        if self._sink is None:
            is_raw = is_kept_as_it_is(self.path, bytes(self._head[:HEAD_NBYTES]))
            self._sink = RawSink(self._staged) if is_raw else PackedSink(self._staged, self._nbytes)
        return self._sink
