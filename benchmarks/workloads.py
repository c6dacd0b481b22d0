"""What is read: drawn anew for each run, from its seed, and the same for every peer in it. Values only.

A key is a list with an int or ``[start, stop]`` per axis. The field's time axis is shared out, so that what one
workload has read is not warm for the next (a series crosses all of it, and is one column of blocks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .datasets import Size

__all__ = ["Key", "Workload", "draw", "draw_random"]

Key = list[int | list[int]]


@dataclass(frozen=True)
class Workload:
    """Keys of one dataset, read one after the other.

    Attributes
    ----------
    is_repeated : bool
        Read again at once, warm.
    """

    name: str
    dataset: str
    keys: list[Key]
    is_repeated: bool = True


def draw(size: Size, seed: int) -> list[Workload]:
    """The workloads of a run, in their order."""
    rng = np.random.default_rng([seed, 1])
    nt, ny, nx = size.field.shape
    chunk = size.field.chunks[0]

    def within(low: float, high: float, length: int = 1) -> int:
        return int(rng.integers(int(low), max(int(high) - length, int(low)) + 1))

    point = [within(0, ny), within(0, nx)]
    bt, by, bx = size.box
    t, y, x = within(nt / 6, nt * 0.6, bt), within(0, ny, by), within(0, nx, bx)
    bulk = -(-int(nt * 0.6) // chunk) * chunk
    rows = [
        [[s, s + size.nrows], [0, size.table.shape[1]]] for s in rng.integers(0, size.table.shape[0] - size.nrows, 20)
    ]
    planes = size.hdf5_planes
    h5 = within(0, planes, planes // 4)
    whole: Key = [[0, ny], [0, nx]]
    return [
        Workload("first element", "field", [[within(0, nt), *point]], is_repeated=False),
        Workload("point series", "field", [[[0, nt], within(0, ny), within(0, nx)]]),
        Workload("map", "field", [[within(nt * 0.85, nt), *whole]]),
        Workload("box", "field", [[[t, t + bt], [y, y + by], [x, x + bx]]]),
        Workload("random", "field", draw_random(size, seed, size.nrandom)),
        Workload("table rows", "table", [[[int(a), int(b)] for a, b in key] for key in rows]),
        Workload("series, small chunks", "small_chunks", [[[0, nt], within(0, ny), within(0, nx)]]),
        Workload("HDF5 gzip slice", "hdf5", [[[h5, h5 + planes // 4], [0, ny // 3], [0, nx // 3]]]),
        Workload("bulk", "field", [[[bulk, bulk + size.bulk], *whole]], is_repeated=False),
    ]


def draw_random(size: Size, seed: int, count: int) -> list[Key]:
    """Small squares of single planes."""
    rng = np.random.default_rng([seed, 2])
    nt, ny, nx = size.field.shape
    planes = np.concatenate([np.arange(nt // 6), np.arange(int(nt * 0.75), int(nt * 0.85))])
    keys: list[Key] = []
    for _ in range(count):
        y, x = int(rng.integers(0, ny - size.side)), int(rng.integers(0, nx - size.side))
        keys.append([int(rng.choice(planes)), [y, y + size.side], [x, x + size.side]])
    return keys
