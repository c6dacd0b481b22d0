"""``cat2export DIR FILE``: turn a directory root into one HDF5 file.

Directories become groups, ``.b2nd`` arrays datasets (named without the suffix) with their attributes, frames
and other files datasets of bytes. What HDF5 has no type for is reported and left out.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..core.attributes import decode_attrs
from ..core.metadata import Entry, Geometry
from ..core.paths import parent
from ..errors import Caterva2Error
from ..storage.directory_root import DirectoryRoot
from ..storage.hdf5_plugins import load_plugins
from .copying import Report, boxes, copy_entries, read_box, slices

__all__ = ["export_hdf5", "main"]

_MAX_CHUNK_NBYTES = 2**31 - 1


def export_hdf5(directory: Path, target: Path, compression: str = "blosc2") -> Report:
    """Write an HDF5 file of what a directory root holds.

    Parameters
    ----------
    directory : Path
    target : Path
        Must not exist; it appears once it is complete.
    compression : {"blosc2", "gzip", "none"}
        ``blosc2`` needs hdf5plugin, here and where the file is read.

    Raises
    ------
    FileExistsError, FileNotFoundError
    ValueError
        When that compression is not to be had.
    """
    if os.path.lexists(target):
        raise FileExistsError(f"'{target}' exists already: remove it, or choose another name")
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no directory '{directory}'")
    settings = _settings(compression)
    report = Report()
    unfinished = target.with_name(f".{target.name}.part")
    root = DirectoryRoot(directory, "export")
    try:
        with h5py.File(unfinished, "w") as file:
            data: list[Entry] = []
            for entry, _ in sorted(root.scan([]), key=lambda item: item[0].path):
                if entry.kind == "group":
                    file.require_group(f"/{entry.path}")
                elif entry.geometry is not None:
                    data.append(entry)
                else:
                    report.skip(entry.path, entry.reason)

            def copy(entry: Entry, advance: Callable[[int], None]) -> None:
                _copy(root, entry, file, settings, report, advance)

            copy_entries(data, copy, report, directory.name)
        os.replace(unfinished, target)
    finally:
        root.close()
        unfinished.unlink(missing_ok=True)
    return report


def _settings(compression: str) -> dict[str, Any]:
    if compression == "none":
        return {}
    if compression == "gzip":
        return {"compression": "gzip", "shuffle": True}
    if (plugins := load_plugins()) is None:
        raise ValueError("Blosc2 compression needs hdf5plugin: pip install hdf5plugin, or give --compression gzip")
    return dict(plugins.Blosc2(cname="zstd", clevel=1))


def _copy(
    root: DirectoryRoot,
    entry: Entry,
    file: Any,
    settings: dict[str, Any],
    report: Report,
    advance: Callable[[int], None],
) -> None:
    geometry = entry.geometry
    assert geometry is not None
    name = f"/{entry.path.removesuffix('.b2nd') if entry.kind == 'array' else entry.path}"
    if name in file:
        name = f"/{entry.path}"
    file.require_group(f"/{parent(entry.path)}")
    kind, encode = _hdf5_type(geometry)
    partition: dict[str, Any] = {}
    if geometry.size and geometry.ndim:
        chunks = tuple(min(c, n) for c, n in zip(geometry.chunks, geometry.shape, strict=True))
        wide = int(np.prod(chunks, dtype=float)) * kind.itemsize > _MAX_CHUNK_NBYTES
        partition = {"chunks": True if wide else chunks, **settings}
    try:
        made = file.create_dataset(name, geometry.shape, kind, **partition)
        for box in boxes(geometry):
            values = read_box(root, entry, box)
            made[slices(box) or ()] = encode(values)
            advance(values.nbytes)
    except BaseException:
        if name in file:
            del file[name]
        raise
    full = entry if entry.attrs_inline else root.attributes(entry)
    for key, value in decode_attrs(full.attrs).items():
        try:
            made.attrs[key] = _attribute(value)
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            report.note(entry.path, f"attribute '{key}' is left out: {error}")


def _hdf5_type(geometry: Geometry) -> tuple[np.dtype[Any], Callable[[npt.NDArray[Any]], npt.NDArray[Any]]]:
    """The dtype in the file, and how values become it."""
    dtype = geometry.dtype
    if dtype.kind in "mM":
        opaque = h5py.opaque_dtype(dtype)
        return opaque, lambda values: values.astype(opaque)
    if dtype.kind == "U":
        # HDF5 has UTF-8 in a fixed number of bytes: four are enough for any character.
        fixed = h5py.string_dtype("utf-8", max(1, dtype.itemsize))
        return fixed, lambda values: np.char.encode(values, "utf-8").astype(fixed)
    return dtype, lambda values: values


def _attribute(value: Any) -> Any:
    if value is None:
        return h5py.Empty("f4")
    if isinstance(value, bytes):
        return np.void(value) if value else h5py.Empty("S1")
    if isinstance(value, np.ndarray) and value.dtype == object:
        return value.astype(h5py.string_dtype())
    if isinstance(value, dict):
        raise TypeError("HDF5 attributes cannot be dictionaries")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status: 1 when something could not be converted that should have been."""
    parser = argparse.ArgumentParser(prog="cat2export", description=__doc__.split("\n\n")[0])
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory root to read")
    parser.add_argument("file", metavar="FILE", type=Path, help="the HDF5 file to make; it must not exist")
    parser.add_argument("--compression", choices=["blosc2", "gzip", "none"], default="blosc2", help="(default: blosc2)")
    given = parser.parse_args(arguments)
    try:
        report = export_hdf5(given.directory, given.file, given.compression)
    except KeyboardInterrupt:
        return 130
    except (Caterva2Error, OSError, ValueError) as error:
        print(f"cat2export: {error}", file=sys.stderr)
        return 1
    print(f"{given.file}: {report.summary()}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
