"""Which state of a file is meant: its generation, and the version that is made of it.

A *generation* is what the file system says of a file without reading it; any write changes it (``ctime_ns``
cannot be set back, so a rewrite that restores size and ``mtime`` shows). Readers take it before and after a
read: equal means that what they read is that state's. It never opens files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..core.metadata import Geometry

__all__ = ["Generation", "unsettled_s", "version_tag"]

# Kernels stamp files with the time of the last clock tick (up to 10 ms old): two writes within one tick
# look alike, so a file is only to be read when its last change is older than that.
_TICK_NS = 20_000_000


@dataclass(frozen=True, slots=True)
class Generation:
    """The state of a file; ``str()`` is its stamp, as catalogs keep it.

    Examples
    --------
    >>> Generation(1, 2, 255, 4, 5).stamp
    '1.2.ff.4.5'
    """

    device: int
    inode: int
    nbytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def from_stat(cls, status: os.stat_result) -> Generation:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @classmethod
    def of(cls, fd: int) -> Generation:
        """Of an open file."""
        return cls.from_stat(os.fstat(fd))

    @property
    def stamp(self) -> str:
        return f"{self.device:x}.{self.inode:x}.{self.nbytes:x}.{self.mtime_ns:x}.{self.ctime_ns:x}"

    def __str__(self) -> str:
        return self.stamp


def version_tag(generations: Generation | str | Iterable[Generation | str], geometry: Geometry | None = None) -> str:
    """The version (24 hex digits) of a dataset in files of these generations (or stamps).

    Parameters
    ----------
    generations : Generation or str, or an iterable of them
        Of every file that the dataset's content comes from, in an order that does not change.
    geometry : Geometry or None
        None: the stored bytes of a file, whatever they mean.
    """
    if isinstance(generations, (Generation, str)):
        generations = [generations]
    form = None if geometry is None else geometry.to_json()
    text = json.dumps([[str(g) for g in generations], form], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def unsettled_s(generation: Generation, now_ns: int) -> float:
    """How long to wait before a read, so that a later write cannot have the same generation.

    >>> unsettled_s(Generation(1, 2, 3, 0, 1_000_000), now_ns=16_000_000)
    0.005
    """
    age_ns = now_ns - generation.ctime_ns
    # A file from the future (a clock that was set back, another machine's clock) tells nothing.
    return (_TICK_NS - age_ns) / 1e9 if -_TICK_NS < age_ns < _TICK_NS else 0.0
