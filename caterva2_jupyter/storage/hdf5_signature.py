"""Is a file HDF5? Told by its signature, at the start or behind a user block; nothing else of it is read.

Whether the HDF5 library can open it is another question, which only ``hdf5_worker`` answers.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["HDF5_SUFFIXES", "SIGNATURE", "is_growing_hdf5", "is_hdf5"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".nxs", ".cdf", ".mat", ".h5ad", ".loom")
"""Names that say that a file is HDF5, also where it begins with something else (a user block)."""

MAX_USERBLOCK_NBYTES = 1 << 30
_SWMR_FLAG = 0x04


def is_hdf5(fd: int, max_userblock_nbytes: int = MAX_USERBLOCK_NBYTES) -> bool:
    """Has an open file HDF5's signature, at 0 or behind a user block of at most that many bytes?"""
    return _superblock(fd, max_userblock_nbytes) is not None


def is_growing_hdf5(path: Path) -> bool:
    """Is it an HDF5 file that a SWMR writer has open? Its superblock says so, and readers may come in."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        offset = _superblock(fd, MAX_USERBLOCK_NBYTES)
        # Signature, version (3 and later have flags), sizes of offsets and of lengths, flags.
        head = b"" if offset is None else os.pread(fd, 12, offset)
        return len(head) == 12 and head[8] >= 3 and bool(head[11] & _SWMR_FLAG)
    except OSError:
        return False
    finally:
        os.close(fd)


def _superblock(fd: int, max_userblock_nbytes: int) -> int | None:
    """Where HDF5's signature is (at 0, 512, or that doubled); None when it is nowhere."""
    nbytes = os.fstat(fd).st_size
    offset = 0
    while offset < nbytes and offset <= max_userblock_nbytes:
        if os.pread(fd, len(SIGNATURE), offset) == SIGNATURE:
            return offset
        offset = offset * 2 or 512
    return None
