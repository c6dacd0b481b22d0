"""How long transfers tell how far they are: a callback, so that this package draws nothing itself."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress"]


class Progress(Protocol):
    """Called now and then while bytes come, from the thread that asked for them, and once at the end."""

    def __call__(self, done_nbytes: int, total_nbytes: int) -> None:
        """Take note.

        Parameters
        ----------
        done_nbytes : int
            Bytes so far, counted as ``total_nbytes`` is.
        total_nbytes : int
            Bytes in all: those of the stored file, or the decoded bytes of an array; 0 when not known.
        """
        ...
