"""Write an example HDF5 file with a dataset of each kind: ``python -m caterva2_jupyter.tools.example_hdf5 FILE``.

The content is fixed. What cannot be served is in it too, under ``unsupported``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..storage.hdf5_plugins import load_plugins

__all__ = ["main", "make_example"]


def make_example(path: Path) -> None:
    """Write the example file.

    Parameters
    ----------
    path : Path
        Must not exist.

    Raises
    ------
    FileExistsError
    """
    if path.exists():
        raise FileExistsError(f"{str(path)!r} exists already")
    # Written beside its place and renamed: who watches the directory never sees half of it.
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with h5py.File(unfinished, "w") as file:
            _write(file)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write(file: Any) -> None:
    file.attrs["title"] = "One dataset of each kind"
    file.create_dataset("scalar", data=123.456)
    file.create_dataset("string", data=np.bytes_("Hello world!"))
    _write_arrays(file.create_group("arrays"))
    _write_dtypes(file.create_group("dtypes"))
    _write_filters(file.create_group("filters"))
    _write_attributes(file)
    _write_climate(file.create_group("climate"))
    _write_links(file.create_group("links"))
    _write_unsupported(file.create_group("unsupported"))


def _write_arrays(group: Any) -> None:
    group.attrs["description"] = "ways of storing an array"
    group.create_dataset("1d-raw", data=np.arange(100, dtype="u1"))
    group.create_dataset("2d-nochunks", data=(np.arange(100) * (1 + 1j)).reshape(10, 10))
    group.create_dataset("2d-gzip", data=(np.arange(100) * (1 + 1j)).reshape(10, 10), chunks=(4, 4), compression="gzip")
    group.create_dataset("2d-chunked", data=np.arange(2e4).reshape(100, 200), chunks=(32, 64))
    if (plugins := load_plugins()) is not None:
        words = np.array([f"{i:06}".encode() for i in range(100)])
        group.create_dataset("1ds-blosc2", data=words, chunks=(50,), **plugins.Blosc2())
        cube = np.arange(1000, dtype="u1").reshape(10, 10, 10)
        settings = plugins.Blosc2(cname="lz4", clevel=7, filters=plugins.Blosc2.BITSHUFFLE)
        group.create_dataset("3d-blosc2", data=cube, chunks=(4, 10, 10), **settings)
    sparse = group.create_dataset(
        "2d-sparse", (1000, 1000), "f4", chunks=(100, 100), fillvalue=-1.5, compression="gzip"
    )
    sparse[450:560, 450:460] = 1
    group.create_dataset("never-written", (20, 30), "i2", fillvalue=7)
    growing = group.create_dataset("growing", (50, 4), "i8", maxshape=(None, 4), chunks=(1024, 4))
    growing[...] = np.arange(200).reshape(50, 4)
    group.create_dataset("zero-size", (0, 5), "f8", maxshape=(None, 5), chunks=(16, 5))
    _write_compact(group)
    _write_virtual(group)


def _write_compact(group: Any) -> None:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((16,))
    made = h5py.h5d.create(group.id, b"compact", h5py.h5t.IEEE_F32LE, space, settings)
    h5py.Dataset(made)[...] = np.linspace(0, 1, 16, dtype="f4")


def _write_virtual(group: Any) -> None:
    layout = h5py.VirtualLayout((2, 100, 200), "f8", None)
    source = h5py.VirtualSource(".", f"{group.name}/2d-chunked", (100, 200))
    layout[0], layout[1] = source, source
    group.create_virtual_dataset("virtual", layout, fillvalue=-1)


def _write_dtypes(group: Any) -> None:
    group.attrs["description"] = "kinds of items"
    for code in ("i1", "u2", "<i4", ">i4", "u8", "f2", "f4", ">f8", "g", "c8", ">c16"):
        dtype = np.dtype(code)
        name = {">": "big-"}.get(dtype.byteorder, "") + dtype.name
        group.create_dataset(name, data=np.arange(60).reshape(5, 12).astype(dtype))
    group.create_dataset("bool", data=np.arange(10) % 3 == 0)
    colours = h5py.enum_dtype({"RED": 0, "GREEN": 1, "BLUE": 42}, basetype="i2")
    group.create_dataset("enum", data=np.array([0, 1, 42, 1], "i2"), dtype=colours)
    fields = np.zeros(10, [("a", "<i4"), ("b", ">f8"), ("c", "S5"), ("d", "?"), ("e", "<f4", (2, 2))])
    fields["a"], fields["b"], fields["c"] = np.arange(10), np.linspace(0, 1, 10), b"text"
    group.create_dataset("compound", data=fields, chunks=(4,), compression="gzip", shuffle=True)
    group.create_dataset("opaque", data=np.array([b"\x00\x01\x02", b"abc"], "V3"))
    arrays = group.create_dataset("array", (3,), dtype=np.dtype(("<i4", (2, 2))))
    arrays[...] = np.arange(12, dtype="i4").reshape(3, 2, 2)
    times = np.arange("2024-01-01", "2024-01-11", dtype="M8[D]").astype("M8[ns]")
    group.create_dataset("datetime64", data=times.astype(h5py.opaque_dtype(times.dtype)))
    words = np.array(["αβγ".encode(), b"two"]).astype(h5py.string_dtype("utf-8", 12))
    group.create_dataset("string-fixed", data=words)
    group.create_dataset("string-vlen", data=["one", "zwölf", "", "二十"], dtype=h5py.string_dtype())


def _write_filters(group: Any) -> None:
    group.attrs["description"] = "one array, in several filter pipelines"
    data = (np.sin(np.arange(120 * 100) / 50) * 1000).astype("i4").reshape(120, 100)
    pipelines: dict[str, dict[str, Any]] = {
        "gzip": {"compression": "gzip"},
        "gzip-shuffle-fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "lzf": {"compression": "lzf", "shuffle": True},
        "scaleoffset": {"scaleoffset": 0},
    }
    if h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
        pipelines["szip"] = {"compression": "szip"}
    if (plugins := load_plugins()) is not None:
        pipelines |= {
            "zstd-shuffle": {"shuffle": True, **plugins.Zstd()},
            "lz4": dict(plugins.LZ4()),
            "bitshuffle-lz4": dict(plugins.Bitshuffle(cname="lz4")),
            "bitshuffle-zstd": dict(plugins.Bitshuffle(cname="zstd")),
            "blosc": dict(plugins.Blosc()),
            "blosc2": dict(plugins.Blosc2()),
        }
    for name, pipeline in pipelines.items():
        group.create_dataset(name, data=data, chunks=(50, 60), **pipeline)


def _write_attributes(file: Any) -> None:
    dataset = file.create_dataset("attrs", data=0)
    dataset.attrs["Int"] = 42
    dataset.attrs["IntT"] = np.int16(42)
    dataset.attrs["Bin"] = np.void(b"foo")
    dataset.attrs["BinT"] = np.bytes_("foo")
    dataset.attrs["Str"] = "bar"
    dataset.attrs["Arr"] = [[1, 2, 3], [4, 5, 6]]
    dataset.attrs["ArrT"] = np.array([1.5, np.nan], ">f4")
    dataset.attrs["NilBin"] = h5py.Empty("|S4")
    dataset.attrs["NilInt"] = h5py.Empty("i8")
    dataset.attrs["Words"] = ["a", "bc"]


def _write_climate(group: Any) -> None:
    """Dimension scales, as netCDF4 has them."""
    group.attrs["Conventions"] = "CF-1.8"
    axes = {
        "time": (np.arange(12, dtype="i4"), "months since 2024-01-01"),
        "lat": (np.linspace(90, -90, 37, dtype="f4"), "degrees_north"),
        "lon": (np.arange(0, 360, 5, dtype="f4"), "degrees_east"),
    }
    for name, (values, units) in axes.items():
        scale = group.create_dataset(name, data=values)
        scale.attrs["units"] = units
        scale.make_scale(name)
    time, lat, lon = (axes[n][0] for n in axes)
    field = 15 - 0.4 * np.abs(lat)[None, :, None] + 5 * np.cos(time / 6 * np.pi)[:, None, None] + np.sin(lon / 60)
    packed = ((field + 20) * 100).astype("i2")
    packed[0, 0, 0] = -32768
    temperature = group.create_dataset(
        "temperature", data=packed, chunks=(1, 37, 72), compression="gzip", shuffle=True, fillvalue=-32768
    )
    temperature.attrs.update(
        {"units": "degC", "scale_factor": 0.01, "add_offset": -20.0, "_FillValue": np.int16(-32768)}
    )
    for axis, name in enumerate(axes):
        temperature.dims[axis].attach_scale(group[name])


def _write_links(group: Any) -> None:
    group["hard"] = group.file["arrays/1d-raw"]
    group["soft"] = h5py.SoftLink("/arrays/2d-gzip")
    group["soft-group"] = h5py.SoftLink("/climate")
    group["dangling"] = h5py.SoftLink("/nowhere")
    group["loop"] = h5py.SoftLink("/links")
    group["external"] = h5py.ExternalLink("not-there.h5", "/data")


def _write_unsupported(group: Any) -> None:
    group.attrs["description"] = "listed with the reason"
    group.create_dataset("empty", data=h5py.Empty("f8"))
    group.create_dataset("references", data=[group.ref], dtype=h5py.ref_dtype)
    ragged = group.create_dataset("ragged", (3,), dtype=h5py.vlen_dtype("i4"))
    for i in range(3):
        ragged[i] = np.arange(i + 1)
    mixed = group.create_dataset("compound-vlen", (2,), dtype=np.dtype([("id", "i4"), ("name", h5py.string_dtype())]))
    mixed[0] = (1, "one")
    group["datatype"] = np.dtype("f8")


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m caterva2_jupyter.tools.example_hdf5",
        description="Write an example HDF5 file: one dataset of each kind.",
        epilog="example: python -m caterva2_jupyter.tools.example_hdf5 root-example.h5",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the file to write; it must not exist")
    path = parser.parse_args(arguments).file
    try:
        make_example(path)
    except FileExistsError:
        print(f"'{path}' exists already: remove it, or choose another name", file=sys.stderr)
        return 1
    except OSError as error:
        reason = error.strerror or f"[Errno {error.errno}]"
        if not path.parent.is_dir():
            reason = f"there is no directory '{path.parent}'"
        print(f"cannot write '{path}': {reason}", file=sys.stderr)
        return 1
    print(f"Created example HDF5 root: '{path}'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
