"""The data that is read: made once, from a seed, kept below the work directory.

A field (smooth, rounded, float32) as a Blosc2 file with chunks of several MB and, again, with small ones; a
table; many small arrays; parts of the field as HDF5 with gzip. Copies in other formats are made by
``isolated/make_copies.py`` in the environment of the libraries that read them, from these very values.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import blosc2
import h5py
import numpy as np

__all__ = ["NAMES", "SIZES", "Size", "make_copies", "make_data"]

NAMES = ("field", "small_chunks", "table")
"""The large arrays; each is ``NAME.b2nd``."""

CPARAMS = {"codec": blosc2.Codec.ZSTD, "clevel": 5}


@dataclass(frozen=True)
class Array:
    """Shape and partition of an array."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Size:
    """How much of everything there is.

    Attributes
    ----------
    box : tuple of int
        Shape of the box that is read.
    bulk, nrandom, side, nrows : int
        Leading planes of the bulk read; random reads of ``side`` x ``side`` and of ``nrows`` rows.
    """

    field: Array
    small_chunks: Array
    table: Array
    nsmall: int
    hdf5_planes: int
    box: tuple[int, ...]
    bulk: int
    nrandom: int
    side: int
    nrows: int


SIZES = {
    "full": Size(
        field=Array((480, 720, 1440), (20, 240, 360), (5, 60, 90)),
        small_chunks=Array((480, 720, 1440), (10, 60, 90), (5, 30, 45)),
        table=Array((8_000_000, 8), (250_000, 8), (4_000, 8)),
        nsmall=10_000,
        hdf5_planes=120,
        box=(100, 500, 500),
        bulk=40,
        nrandom=40,
        side=32,
        nrows=1000,
    ),
    "quick": Size(
        field=Array((80, 72, 144), (10, 36, 48), (5, 12, 12)),
        small_chunks=Array((80, 72, 144), (5, 12, 24), (5, 6, 12)),
        table=Array((20_000, 8), (5_000, 8), (500, 8)),
        nsmall=50,
        hdf5_planes=20,
        box=(12, 40, 40),
        bulk=10,
        nrandom=5,
        side=8,
        nrows=100,
    ),
}


def make_data(directory: Path, size: Size) -> Path:
    """Make what is not there yet.

    Returns
    -------
    Path
        A directory with ``field.b2nd``, ``small_chunks.b2nd``, ``table.b2nd``, ``field.h5`` and ``small/``. Beside it
        is ``plain``, a copy without the HDF5 file, for peers that need their data in a directory of their own: they get
        hard links, and making those counts as a change of the files that they are made from.
    """
    root = directory / "root"
    root.mkdir(parents=True, exist_ok=True)
    makers = {
        "field.b2nd": lambda path: _make_field(path, size.field),
        "small_chunks.b2nd": lambda path: _make_field(path, size.small_chunks),
        "table.b2nd": lambda path: _make_table(path, size.table),
        "field.h5": lambda path: _make_hdf5(path, root / "field.b2nd", size),
        "small": lambda path: _make_small(path, size.nsmall),
    }
    for name, make in makers.items():
        part, goal = root / f".part-{name}", root / name
        if not goal.exists():
            make(part)
            part.rename(goal)
    plain = directory / "plain"
    if not plain.exists():
        part = directory / ".part-plain"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(root, part, ignore=shutil.ignore_patterns("*.h5", ".part*"))
        part.rename(plain)
    (directory / "size.json").write_text(json.dumps(asdict(size)))
    return root


def make_copies(directory: Path, python: Path, script: Path) -> Path:
    """Zarr copies, sharded and not, of the field and the table."""
    goal = directory / "static"
    if not (goal / "done").exists():
        subprocess.run([python, script, directory / "root", goal], check=True)
        (goal / "done").touch()
    return goal


def _planes(shape: tuple[int, ...], step: int) -> Iterator[tuple[int, np.ndarray]]:
    """Slabs of a field that varies slowly, with a little noise, in steps of 1/64."""
    rng = np.random.default_rng(0)
    y = np.linspace(0, 6, shape[1])[:, None]
    x = np.linspace(0, 12, shape[2])[None, :]
    for start in range(0, shape[0], 20):
        t = np.arange(start, min(start + 20, shape[0]))[:, None, None]
        slab = 280 + 20 * np.sin(y + t / 50) * np.cos(x - t / 80) + rng.normal(0, 0.01, (len(t), *shape[1:]))
        slab = (np.round(slab * 64) / 64).astype("f4")
        for first in range(0, len(t), step):
            yield start + first, slab[first : first + step]


def _empty(path: Path, array: Array) -> blosc2.NDArray:
    kept = {"urlpath": str(path), "cparams": CPARAMS}
    return blosc2.empty(array.shape, "f4", chunks=array.chunks, blocks=array.blocks, **kept)


def _make_field(path: Path, array: Array) -> None:
    step = min(array.chunks[0], 20)
    out = _empty(path, array)
    for start, slab in _planes(array.shape, step):
        out[start : start + len(slab)] = slab


def _make_table(path: Path, array: Array) -> None:
    rng = np.random.default_rng(1)
    out = _empty(path, array)
    for start in range(0, array.shape[0], array.chunks[0]):
        count = min(array.chunks[0], array.shape[0] - start)
        out[start : start + count] = np.round(np.cumsum(rng.normal(0, 0.1, (count, array.shape[1])), 0), 1)


def _make_hdf5(path: Path, source: Path, size: Size) -> None:
    values = blosc2.open(str(source))
    planes, chunks = size.hdf5_planes, size.field.chunks
    with h5py.File(path, "w") as file:
        out = file.create_dataset(
            "field", (planes, *size.field.shape[1:]), "f4", chunks=chunks, compression="gzip", shuffle=True
        )
        for start in range(0, planes, chunks[0]):
            out[start : start + chunks[0]] = values[start : min(start + chunks[0], planes)]


def _make_small(path: Path, count: int) -> None:
    rng = np.random.default_rng(2)
    for number in range(count):
        place = path / f"g{number // 100:03}"
        place.mkdir(parents=True, exist_ok=True)
        array = blosc2.asarray(rng.integers(0, 100, (10, 10)), urlpath=str(place / f"a{number:05}.b2nd"))
        array.schunk.vlmeta["units"] = "m"
        array.schunk.vlmeta["number"] = number
