"""How the C library of this process keeps memory that is freed: decided once, by the main program of a service.

Answers are made of buffers of some 100 kB that live for a moment. By default glibc maps each anew, and the kernel
fills it with zeros: more work than all the rest of serving it.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_buffers"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MMAP_NBYTES = 8 << 20
_TRIM_NBYTES = 64 << 20
_ARENAS = 2


def keep_buffers() -> bool:
    """Use buffers of up to 8 MiB again, and keep up to 64 MiB of them; was that possible (glibc only)?"""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_THRESHOLD, _MMAP_NBYTES), (_M_TRIM_THRESHOLD, _TRIM_NBYTES), (_M_ARENA_MAX, _ARENAS))
    return all([mallopt(name, value) == 1 for name, value in settings])
