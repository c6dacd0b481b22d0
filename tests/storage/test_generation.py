"""A generation changes with every write, and a version with every generation and geometry."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.storage.generation import Generation, unsettled_s, version_tag

_FILE = Generation(1, 2, 3, 4, 5)


def settled(path: Path) -> Generation:
    """The generation, once the clock tick of the last write is over."""
    while True:
        generation = Generation.from_stat(path.stat())
        if not unsettled_s(generation, time.time_ns()):
            return generation


def test_a_rewrite_that_restores_size_and_times_shows(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    before, status = settled(path), path.stat()
    path.write_bytes(b"new")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = settled(path)
    assert (after.mtime_ns, after.nbytes, after.inode) == (before.mtime_ns, before.nbytes, before.inode)
    assert after != before
    assert version_tag(after) != version_tag(before)


def test_writes_of_one_clock_tick_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen = set()
    for i in range(20):
        path.write_bytes(b"%02d" % i)
        seen.add(settled(path))
    assert len(seen) == 20


def test_a_version_binds_every_file_and_the_geometry() -> None:
    geometry = Geometry((10,), (5,), (5,), np.dtype("i4"))
    other = Geometry((10,), (5,), (5,), np.dtype("u4"))
    tags = [
        version_tag(_FILE),
        version_tag([_FILE, _FILE]),
        version_tag(_FILE, geometry),
        version_tag(_FILE, other),
        version_tag(Generation(1, 2, 3, 4, 6), geometry),
    ]
    assert len(set(tags)) == len(tags)
    assert all(len(t) == 24 and int(t, 16) >= 0 for t in tags)
    assert version_tag(_FILE, geometry) == version_tag(_FILE.stamp, geometry) == version_tag([_FILE], geometry)


def test_only_a_change_of_the_last_tick_has_to_be_waited_for() -> None:
    assert unsettled_s(_FILE, now_ns=5) > 0
    assert unsettled_s(_FILE, now_ns=10**9) == 0
    assert unsettled_s(Generation(1, 2, 3, 4, 10**18), now_ns=5) == 0  # the clock was set back
