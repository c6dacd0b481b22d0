"""``cat2import FILE DIR``: turn an HDF5 (netCDF4, NeXus) file into a directory root of Blosc2 arrays.

Groups become directories, datasets ``.b2nd`` files with their attributes and names of axes. Links are not
followed: each dataset is written once. What has no Blosc2 form is reported and left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from ..core.attributes import decode_attrs
from ..core.dtypes import is_vlen
from ..core.metadata import Entry
from ..core.paths import parent
from ..errors import Caterva2Error
from ..storage.hdf5_root import Hdf5Root
from .copying import Report, boxes, copy_entries, read_box, slices

__all__ = ["import_hdf5", "main"]

_MAX_NDIM = 16
_MAX_NAME_NBYTES = 255


def import_hdf5(source: Path, directory: Path) -> Report:
    """Write a directory root of what an HDF5 file holds.

    Parameters
    ----------
    source : Path
    directory : Path
        Must not exist; it appears once it is complete.

    Raises
    ------
    FileExistsError, FileNotFoundError
    Caterva2Error
        When the file cannot be read as HDF5.
    """
    if os.path.lexists(directory):
        raise FileExistsError(f"'{directory}' exists already: remove it, or choose another name")
    if not source.is_file():
        raise FileNotFoundError(f"there is no file '{source}'")
    report = Report()
    unfinished = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    root = Hdf5Root(source, "import")
    try:
        entries = root.entries()
        arrays = [e for e in _placed(entries, unfinished, report)]

        def copy(entry: Entry, advance: Callable[[int], None]) -> None:
            _copy(root, entry, unfinished / entry.path, report, advance)

        copy_entries(arrays, copy, report, source.name)
        os.replace(unfinished, directory)
    finally:
        root.close()
        shutil.rmtree(unfinished, ignore_errors=True)
    return report


def _placed(entries: list[Entry], directory: Path, report: Report) -> list[Entry]:
    """Make the directories; the arrays to be written, the others reported."""
    arrays: list[Entry] = []
    seen: set[str] = set()
    links = [f"{e.path}/" for e in entries if e.kind == "group" and e.target]
    for entry in sorted(entries, key=lambda e: (bool(e.target), e.path)):
        if any(len(os.fsencode(name)) > _MAX_NAME_NBYTES for name in entry.path.split("/")):
            report.skip(entry.path, "its name is too long for a file")
        elif any(entry.path.startswith(link) for link in links):
            continue  # the link itself is reported
        elif entry.kind == "group":
            if entry.target:
                report.skip(entry.path, f"a link to '{entry.target}'")
                continue
            (directory / entry.path).mkdir(parents=True, exist_ok=True)
            if entry.attrs or not entry.attrs_inline:
                report.note(entry.path or "/", "directories have no attributes: those of the group are left out")
        elif entry.kind == "array":
            assert entry.geometry is not None
            if entry.target or entry.id in seen:
                report.skip(entry.path, f"a link to '{entry.target or entry.storage.get('hdf5')}'")
            elif is_vlen(entry.geometry.dtype):
                report.skip(entry.path, "strings of variable length have no Blosc2 array")
            elif entry.geometry.ndim > _MAX_NDIM:
                report.skip(entry.path, f"it has {entry.geometry.ndim} dimensions, over {_MAX_NDIM}")
            elif not (directory / parent(entry.path)).is_dir():
                report.skip(entry.path, "its group is another link to one that is written already")
            else:
                seen.add(entry.id)
                arrays.append(entry)
        else:
            report.skip(entry.path, entry.reason)
    return arrays


def _copy(root: Hdf5Root, entry: Entry, path: Path, report: Report, advance: Callable[[int], None]) -> None:
    geometry = entry.geometry
    assert geometry is not None
    settings: dict[str, Any] = {"dtype": geometry.dtype, "urlpath": str(path), "mode": "w"}
    chunks = entry.storage.get("chunks")
    if chunks and geometry.layout == "nd":
        settings["chunks"] = tuple(min(c, max(n, 1)) for c, n in zip(geometry.chunks, geometry.shape, strict=True))
    try:
        if geometry.ndim == 0:
            array = blosc2.asarray(np.asarray(read_box(root, entry, next(boxes(geometry)))), **settings)
            advance(geometry.nbytes)
        else:
            array = blosc2.zeros(geometry.shape, **settings)
            for box in boxes(geometry):
                values = read_box(root, entry, box)
                array[slices(box)] = values
                advance(values.nbytes)
        full = entry if entry.attrs_inline else root.attributes(entry)
        for name, value in _metadata(full).items():
            try:
                array.schunk.vlmeta[name] = value
            except (TypeError, ValueError, RuntimeError) as error:
                report.note(entry.path, f"attribute '{name}' is left out: {error}")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    for name, reason in entry.storage.get("attrs_skipped", {}).items():
        report.note(entry.path, f"attribute '{name}' is left out: {reason}")


def _metadata(entry: Entry) -> dict[str, Any]:
    """Attributes as values that any reader of Blosc2 files knows."""
    found = {name: _plain(value) for name, value in decode_attrs(entry.attrs).items()}
    if entry.dims and "_ARRAY_DIMENSIONS" not in found:
        found["_ARRAY_DIMENSIONS"] = list(entry.dims)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()] if value.ndim else _plain(value[()])
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status: 1 when something could not be converted that should have been."""
    parser = argparse.ArgumentParser(prog="cat2import", description=__doc__.split("\n\n")[0])
    parser.add_argument("file", metavar="FILE", type=Path, help="the HDF5 file to read")
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory to make; it must not exist")
    given = parser.parse_args(arguments)
    try:
        report = import_hdf5(given.file, given.directory)
    except KeyboardInterrupt:
        return 130
    except (Caterva2Error, OSError) as error:
        print(f"cat2import: {error}", file=sys.stderr)
        return 1
    print(f"{given.directory}: {report.summary()}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
