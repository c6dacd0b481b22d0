"""The directory of a cache: which one a process has to itself, and the names of what is in it.

Of two processes on one directory the second takes another. What is in the files is ``block_log``'s.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = [
    "LEFTOVER",
    "PART",
    "USES_NAME",
    "read_meta",
    "take_directory",
]

_logger = logging.getLogger(__name__)

USES_NAME = "uses"
"""Name of a version's file that only the process that keeps the cache reads; the others are ``cache_location``'s."""
LEFTOVER, PART = "trash-", ".part"
_LOCK = "lock"
_MAX_DIRECTORIES = 9


def read_meta(path: Path) -> dict[str, Any] | None:
    """What a ``meta.json`` says; None when it is missing or damaged."""
    try:
        meta = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return None
    return meta if isinstance(meta, dict) else None


def make_private(path: Path) -> None:
    """Make a directory that nobody else looks into; one that is there becomes so.

    Raises
    ------
    OSError
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def take_directory(directory: Path) -> tuple[Path, int]:
    """The directory, or the first of its namesakes that no other process has, and the lock on it (-1 without)."""
    taken = ""
    for number in range(1, _MAX_DIRECTORIES + 1):
        path = directory if number == 1 else directory.with_name(f"{directory.name}-{number}")
        try:
            make_private(path)
            fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            _logger.warning("the cache directory %s cannot be used (%s): reading without a cache", path, error)
            return path, -1
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                taken = taken or os.pread(fd, 20, 0).decode("ascii", "replace").strip()
                os.close(fd)
                continue
            # A file system with no locks: checksums still keep every answer right.
            _logger.warning("%s cannot be locked (%s): let no other server use it", path, error)
        if number > 1:
            _logger.warning("%s is in use by process %s: this one keeps its cache in %s", directory, taken, path)
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return path, fd
    path = directory.with_name(f"{directory.name}-{os.getpid()}")
    _logger.warning("%s and its namesakes are all in use: this process keeps its cache in %s", directory, path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path, -1
