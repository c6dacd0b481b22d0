"""A machine that loses power: of what was not synchronised, any page of any file may be as it once was.

The model: every file of the cache is kept as it was after each write; after the loss each of its pages (512 bytes, the
least that a disk writes) is that of any of these moments, zeros included, and so is its length. Nothing is synced.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from caterva2_jupyter.storage.block_cache import BlockCache
from tests.storage.test_block_cache import NBLOCKS, NCHUNKS, QUOTA, assert_only_truth, entry_of, record_of

PAGE_NBYTES = 512

Moment = dict[str, bytes]


def files_of(directory: Path) -> Moment:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def life(directory: Path, rng: random.Random) -> list[Moment]:
    """Every moment of a cache: blocks of two versions put in any order, some removed for want of room."""
    moments: list[Moment] = [{}]
    entries = [entry_of(version=name) for name in ("v1", "v2")]
    puts = [(e, n, half) for e in entries for n in range(NCHUNKS) for half in (0, 1)]
    rng.shuffle(puts)
    with BlockCache(directory, rng.choice([QUOTA, 30_000])) as cache:
        for entry, nchunk, half in puts[: rng.randrange(4, len(puts))]:
            cache.open(entry, "foo").put(record_of(entry, nchunk, range(half, NBLOCKS, 2)))
            moments.append(files_of(directory))
    moments.append(files_of(directory))
    return moments


def after_the_loss(moments: list[Moment], goal: Path, rng: random.Random) -> None:
    moments = moments[: rng.randrange(1, len(moments)) + 1]
    oldest = max(0, len(moments) - rng.choice([2, 5, len(moments)]))  # file systems write back before long
    for name in sorted({name for moment in moments for name in moment}):
        states = [moment.get(name) for moment in moments[oldest:]]
        length = rng.choice(states)
        if length is None or name == "lock":
            continue  # its entry in the directory did not arrive
        pages = []
        for start in range(0, len(length), PAGE_NBYTES):
            page = (rng.choice(states) or b"")[start : start + PAGE_NBYTES]
            if rng.random() < 0.05:
                page = b""
            pages.append(page.ljust(min(PAGE_NBYTES, len(length) - start), b"\0")[: len(length) - start])
        path = goal / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(pages))


@pytest.mark.parametrize("seed", range(16))
def test_p6_what_survives_a_loss_of_power_is_right_and_the_rest_can_be_kept_again(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    moments = life(tmp_path / "before", rng)
    survived = 0
    for number in range(3):
        goal = tmp_path / f"after-{number}"
        goal.mkdir(mode=0o700)
        after_the_loss(moments, goal, rng)
        with BlockCache(goal, QUOTA) as cache:
            for name in ("v1", "v2"):
                entry = entry_of(version=name)
                version = cache.open(entry, "foo")
                survived += assert_only_truth(version, entry)
                for nchunk in range(NCHUNKS):
                    version.put(record_of(entry, nchunk, range(NBLOCKS)))
                assert assert_only_truth(version, entry) == NCHUNKS * NBLOCKS
        # What was kept again is found by the next one, too.
        with BlockCache(goal, QUOTA) as cache:
            for name in ("v1", "v2"):
                entry = entry_of(version=name)
                assert assert_only_truth(cache.open(entry, "foo"), entry) == NCHUNKS * NBLOCKS
        shutil.rmtree(goal)
    assert survived
