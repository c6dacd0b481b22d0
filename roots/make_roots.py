"""Make the example roots: ``root-example`` (Blosc2 and plain files) and ``climate.h5`` (an HDF5 root).

Run ``python roots/make_roots.py DIR``. The content is fixed, so a second run makes equal arrays.
``root-example`` is committed beside this file; ``climate.h5`` is made where it is needed, by the demo.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import blosc2
import numpy as np

README = """# An example root

Blosc2 arrays, a frame and this plain file, all of them small.
"""


def make_root_example(directory: Path) -> None:
    """The root of the quick start: arrays of several dtypes and ranks, a frame, a text."""

    def save(path: str, array: np.ndarray, attrs: dict[str, object] | None = None, **partition: object) -> None:
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        saved = blosc2.asarray(array, urlpath=str(target), mode="w", contiguous=True, **partition)
        for name, value in (attrs or {}).items():
            saved.schunk.vlmeta[name] = value

    n = 1000
    fields = np.zeros(n, dtype=[("a", "<i4"), ("b", "<f8"), ("c", "S10"), ("d", "?")])
    fields["a"], fields["b"] = np.arange(n), np.linspace(0, 1, n)
    fields["c"], fields["d"] = [f"foobar{i}".encode() for i in range(n)], np.arange(n) % 2 == 1
    grid = np.zeros((20, 30), dtype=[("a", "<i4"), ("b", "<f8")])
    grid["a"], grid["b"] = np.arange(600).reshape(20, 30), np.linspace(0, 1, 600).reshape(20, 30)
    complex_items = np.arange(120) * (1 + 1j)

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "README.md").write_text(README)
    save("ds-1d.b2nd", np.arange(n), chunks=(100,), blocks=(10,))
    save("ds-1d-b.b2nd", np.array([b"foobar"] * n), chunks=(100,), blocks=(10,))
    save("ds-1d-fields.b2nd", fields, chunks=(100,), blocks=(10,))
    save("ds-2d-fields.b2nd", grid, chunks=(10, 10), blocks=(5, 5))
    save("ds-sc-attr.b2nd", np.array("foobar"), {"a": 1, "b": "foo", "c": 123.456})
    save("dir1/ds-2d.b2nd", np.arange(200, dtype="u2").reshape(10, 20), chunks=(5, 5), blocks=(2, 3))
    save("dir1/ds-3d.b2nd", np.arange(60, dtype="f4").reshape(3, 4, 5), chunks=(2, 3, 4), blocks=(2, 2, 2))
    save("dir2/ds-4d.b2nd", complex_items.reshape(2, 3, 4, 5), chunks=(1, 2, 3, 4), blocks=(1, 2, 2, 2))
    hello = blosc2.SChunk(
        chunksize=100, urlpath=str(directory / "ds-hello.b2frame"), mode="w", contiguous=True, cparams={"typesize": 1}
    )
    for start in range(0, 1200, 100):
        hello.append_data((b"Hello world!" * 100)[start : start + 100])


def make_climate(path: Path) -> None:
    """A smooth field over (time, lat, lon) with its coordinates, as netCDF4 keeps them."""
    import h5py

    time, lat, lon = np.arange(0.0, 365.0), np.linspace(-90, 90, 91), np.arange(0.0, 360.0, 2.0)
    season = np.cos(2 * np.pi * (time - 196) / 365)[:, None, None] * np.sign(lat)[None, :, None]
    waves = np.sin(np.radians(3 * lon))[None, None, :] * np.cos(np.radians(lat))[None, :, None]
    noise = np.random.default_rng(20).normal(0, 0.3, (len(time), len(lat), len(lon)))
    mean = 28 - 45 * np.abs(np.sin(np.radians(lat)))[None, :, None]
    field = mean + 12 * season * np.abs(np.sin(np.radians(lat)))[None, :, None] + 3 * waves + noise
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "A made-up year of surface temperature"
        file.attrs["Conventions"] = "CF-1.10"
        for name, values, units in (
            ("time", time, "days since 2025-01-01"),
            ("lat", lat, "degrees_north"),
            ("lon", lon, "degrees_east"),
        ):
            axis = file.create_dataset(name, data=values)
            axis.make_scale(name)
            axis.attrs["units"] = units
        data = file.create_dataset(
            "surface/temperature",
            data=np.round(field, 2).astype("f4"),
            chunks=(30, 46, 90),
            compression="gzip",
            compression_opts=4,
            shuffle=True,
        )
        data.attrs["units"], data.attrs["long_name"] = "degC", "surface temperature"
        for i, name in enumerate(("time", "lat", "lon")):
            data.dims[i].attach_scale(file[name])


def main(argv: list[str] | None = None) -> int:
    """Command line: make both roots in a directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where to make them")
    directory: Path = parser.parse_args(argv).directory
    shutil.rmtree(directory / "root-example", ignore_errors=True)
    make_root_example(directory / "root-example")
    make_climate(directory / "climate.h5")
    print(f"Made {directory / 'root-example'} and {directory / 'climate.h5'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
