"""Giving parts of a file back to the file system, where it can: what was there reads as zeros afterwards.

It does not decide what may go.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["can_punch_holes", "punch_hole"]

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_F_PUNCHHOLE = 99  # macOS


def punch_hole(fd: int, offset: int, nbytes: int) -> bool:
    """Free the pages that lie within a range; the file keeps its length.

    Parameters
    ----------
    offset, nbytes : int
        Multiples of the file system's block size: parts of pages would be zeroed, but not freed.

    Returns
    -------
    bool
        False where this file system or platform cannot; nothing has changed then.
    """
    if nbytes <= 0:
        return True
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(fd, _F_PUNCHHOLE, struct.pack("=IIqq", 0, 0, offset, nbytes))
        except OSError:
            return False
        return True
    fallocate = _fallocate()
    if fallocate is None:
        return False
    while fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, nbytes) != 0:
        if ctypes.get_errno() != errno.EINTR:
            return False
    return True


@cache
def _fallocate() -> Any:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        function = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_int
    return function


def can_punch_holes(directory: Path) -> bool:
    """Can files in a directory have parts of them given back?"""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            page = os.fstat(file.fileno()).st_blksize
            os.pwrite(file.fileno(), b"\1" * 4 * page, 0)
            return punch_hole(file.fileno(), page, page) and os.pread(file.fileno(), 1, page) == b"\0"
    except OSError:
        return False
