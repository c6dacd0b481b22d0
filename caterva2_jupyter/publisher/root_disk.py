"""Is what is served there at all? A disk that is not mounted is no deletion of everything on it.

Where a disk is mounted there is an empty directory while it is not, on another disk. Blocking.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import SourceUnavailableError
from ..storage.durable_file import replace_durably

__all__ = ["RootDisk"]


class RootDisk:
    """The disk that a root is on.

    Parameters
    ----------
    watched : Path
        The root's directory or file.
    marker : Path
        Where the number of the disk is kept, for the next start.
    """

    def __init__(self, watched: Path, marker: Path) -> None:
        self._watched, self._marker = watched, marker
        self._known = ""

    def check(self, is_listed: Callable[[], bool]) -> None:
        """Nothing, if what is there may be believed.

        Parameters
        ----------
        is_listed : callable
            Was anything there before?

        Raises
        ------
        SourceUnavailableError
        """
        try:
            disk = f"{os.stat(self._watched).st_dev}"
            is_empty = _is_empty(self._watched)
        except FileNotFoundError:
            raise SourceUnavailableError(f"{self._watched} is not there") from None
        except OSError as error:
            raise SourceUnavailableError(f"{self._watched} cannot be read: {error.strerror}") from None
        if not is_empty:
            if disk != self._known:
                replace_durably(self._marker, disk.encode())
                self._known = disk
        elif self._remembered() not in ("", disk) and is_listed():
            raise SourceUnavailableError(
                f"{self._watched} is empty, and on another disk than what was there: mount that, or, if all of it was "
                f"deleted, remove {self._marker}"
            )

    def _remembered(self) -> str:
        try:
            return self._marker.read_text()
        except (OSError, UnicodeDecodeError):
            return ""


def _is_empty(path: Path) -> bool:
    if not path.is_dir():
        return False
    with os.scandir(path) as items:
        return next(items, None) is None
