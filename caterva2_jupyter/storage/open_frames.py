"""Frames that were just read, kept open for the reads that follow: a small read costs more in opening than in reading.

A frame stays for a few seconds, so that a directory that is moved away, or a file system that is to be unmounted, is
not held for long. Whether it still is what its version stands for is told by its generation after each read
(``FrameFile.is_unchanged``): a file that is written, replaced or removed has another one.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from .blosc2_file import FrameFile, FrameIndex

__all__ = ["OpenFrame", "OpenFrames"]

MAX_FRAMES = 32
MAX_AGE_S = 5.0


class OpenFrame:
    """A frame of one version; closed when nobody refers to it any more, so that it needs no lock."""

    def __init__(self, frame: FrameFile, index: FrameIndex, seed: int, until_s: float) -> None:
        self.frame, self.index, self.seed, self.until_s = frame, index, seed, until_s

    def __del__(self) -> None:
        self.frame.close()


class OpenFrames:
    """The frames that stay open, by id and version. Thread safe.

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._frames: OrderedDict[tuple[str, str], OpenFrame] = OrderedDict()

    def get(self, dataset_id: str, version: str) -> OpenFrame | None:
        """An open frame; one that is too old is closed."""
        key = (dataset_id, version)
        found = self._frames.get(key)
        if found is not None and found.until_s < self._clock():
            self.drop(dataset_id, version)
            return None
        return found

    def keep(self, dataset_id: str, version: str, frame: FrameFile, index: FrameIndex, seed: int) -> OpenFrame:
        """Keep a frame open, which is this object's from now on."""
        kept = OpenFrame(frame, index, seed, self._clock() + MAX_AGE_S)
        with self._lock:
            self._frames[dataset_id, version] = kept
            surplus = [self._frames.popitem(last=False)[1] for _ in range(len(self._frames) - MAX_FRAMES)]
        del surplus  # closed outside of the lock
        return kept

    def drop(self, dataset_id: str, version: str) -> None:
        with self._lock:
            dropped = self._frames.pop((dataset_id, version), None)
        del dropped

    def close_old(self) -> bool:
        """Close those that are too old; are there others?"""
        now = self._clock()
        with self._lock:
            old = [self._frames.pop(key) for key, frame in list(self._frames.items()) if frame.until_s < now]
            left = bool(self._frames)
        del old
        return left

    def clear(self) -> None:
        with self._lock:
            frames, self._frames = self._frames, OrderedDict()
        frames.clear()
