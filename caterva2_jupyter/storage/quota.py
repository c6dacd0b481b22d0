"""The bytes that areas take together, and may take: counted as they are on disk and while they are being written."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import TooLargeError
from .area_root import INCOMING

__all__ = ["Quota", "QuotaExceededError"]

QUOTA_TEXT = "Upload failed because quota limit has been exceeded."


class QuotaExceededError(TooLargeError):
    """The areas would take more bytes than they may."""


class Quota:
    """The bytes that areas take together, and may take. Thread safe.

    Parameters
    ----------
    limit_nbytes : int or None
        None: no limit.
    directories : sequence of Path
        Of the areas; counted with everything below.

    Attributes
    ----------
    lock : RLock
        Held while names change, so that what is counted is what is there.
    """

    def __init__(self, limit_nbytes: int | None, directories: Iterable[Path]) -> None:
        self.limit_nbytes = limit_nbytes
        self.lock = threading.RLock()
        self._directories = tuple(directories)
        self._held_nbytes = 0
        self._counted: int | None = None

    @property
    def usage_nbytes(self) -> int:
        """Bytes of all files that are there, and of what is being written."""
        with self.lock:
            if self._counted is None:
                self._counted = sum(_tree_nbytes(directory) for directory in self._directories)
            return self._counted + self._held_nbytes

    def recount(self) -> None:
        """Others may have written to the directories, or something went."""
        with self.lock:
            self._counted = None

    def hold(self, nbytes: int) -> None:
        """Count bytes that are about to be written.

        Raises
        ------
        QuotaExceededError
        """
        with self.lock:
            if self.limit_nbytes is not None and self.usage_nbytes + nbytes > self.limit_nbytes:
                raise QuotaExceededError(QUOTA_TEXT)
            self._held_nbytes += nbytes

    def release(self, nbytes: int) -> None:
        with self.lock:
            self._held_nbytes -= nbytes

    def check(self, nbytes: int) -> None:
        """Could that many more bytes be written?

        Raises
        ------
        QuotaExceededError
        """
        self.recount()
        self.hold(nbytes)
        self.release(nbytes)


def _tree_nbytes(directory: Path) -> int:
    """Bytes of all files below a directory, but for what is not complete yet."""
    total = 0
    if not directory.is_dir():
        return total
    for _, names, files, fd in os.fwalk(directory, onerror=lambda error: None):
        if INCOMING in names:
            names.remove(INCOMING)
        for file in files:
            with suppress(OSError):
                status = os.stat(file, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    total += status.st_size
    return total
