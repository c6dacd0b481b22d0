"""``cat2import FILE DIR``: turn an HDF5 (netCDF4, NeXus) file into a directory root of Blosc2 arrays.

Groups become directories, datasets ``.b2nd`` files with their attributes and names of axes, further names of an object
symbolic links. Chunks go over as they are stored where Blosc2 can read them. What a directory cannot hold
is reported, and kept in a hidden HDF5 file for ``cat2export``.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import blosc2
import h5py
import numpy as np
import numpy.typing as npt

from ..compute.netcdf_attributes import netcdf_attributes
from ..compute.netcdf_dimensions import (
    NON_COORDINATE,
    DimensionCounter,
    ListedGroup,
    build_tree,
    dataset_name,
    name_dimensions,
)
from ..core.attributes import decode_attr, encode_attr
from ..core.chunk_grid import BlockPlan
from ..core.dtypes import is_vlen
from ..core.exact_attributes import MAX_METALAYERS, to_metalayers
from ..core.group_file import GROUP_FILE, format_group_file
from ..core.metadata import Entry, Geometry
from ..core.paths import is_at_or_below, join, parent
from ..core.paths import name as last_name
from ..core.selection import Selection
from ..errors import IntegrityError, UnsupportedDatasetError
from ..storage.hdf5_chunks import array_record
from ..storage.hdf5_plugins import load_plugins
from ..storage.hdf5_root import Hdf5Root
from ..storage.hdf5_worker import Hdf5Worker
from .copying import (
    IMPORT_FILE,
    STRUCTURE_FILE,
    Advance,
    Patterns,
    Report,
    add_common_options,
    alone,
    boxes,
    copy_all,
    read_box,
    read_chunk,
    run_command,
    slices,
    sorted_entries,
)
from .frame_writer import FrameWriter
from .hdf5_structure import FOREIGN_ERRORS, Plan, StructureCopy, file_settings
from .stored_chunks import blosc2_chunk, fits_blosc2

__all__ = ["import_hdf5", "main"]

FORMAT = 1
_JOURNAL = ".caterva2-journal"
_LOCK = ".caterva2-lock"
_MAX_NDIM = 16
_MAX_NAME_NBYTES = 240
_MAX_STRING_NBYTES = 1 << 20
_MAX_STRINGS_NBYTES = 1 << 40
_BLOCK_NBYTES = 128 << 10
_DIMENSIONS = "_ARRAY_DIMENSIONS"
# Files of such names are something else to a publisher, or nothing.
_TAKEN = (".tmp", ".part", "~", ".b2lock")
_TAKEN_BY_GROUPS = (*_TAKEN, ".b2nd", ".b2frame", ".b2f", ".b2z", ".b2d", ".b2e")


def import_hdf5(
    source: Path,
    directory: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    patterns: Patterns | None = None,
    worker: Hdf5Worker | None = None,
) -> Report:
    """Write a directory root of what an HDF5 file holds.

    Parameters
    ----------
    source : Path
    directory : Path
        It appears once it is complete. An import of the same file that was interrupted is gone on with.
    resume : bool
        A directory that is there and complete, of the same file, is left as it is.
    overwrite : bool
        Replace a directory that was imported.
    patterns : Patterns, optional
        Which datasets.
    worker : Hdf5Worker, optional
        Where HDF5 is read, to be shared by several conversions.

    Raises
    ------
    FileExistsError, FileNotFoundError, OSError
    Caterva2Error
        When the file cannot be read as HDF5.
    """
    if not source.is_file():
        raise FileNotFoundError(f"there is no file '{source}'")
    patterns = patterns or Patterns()
    status = source.stat()
    of = {
        "format": FORMAT,
        "source": {"name": source.name, "nbytes": status.st_size, "mtime_ns": status.st_mtime_ns},
        "include": list(patterns.include),
        "exclude": list(patterns.exclude),
    }
    if os.path.lexists(directory):
        if resume and _imported_of(directory) == of:
            return Report()
        _check_replaceable(directory, overwrite)
    load_plugins()
    unfinished = directory.with_name(f".{directory.name}.part")
    root = Hdf5Root(source, "import", worker, follow=True)
    try:
        entries = root.entries()
        unfinished.mkdir(parents=True, exist_ok=True)
        with alone(unfinished / _LOCK, str(directory)):
            journal = _Journal(unfinished, of)
            _Import(source, root, entries, unfinished, patterns, journal).run()
            if (now := source.stat()).st_size != status.st_size or now.st_mtime_ns != status.st_mtime_ns:
                shutil.rmtree(unfinished)
                raise UnsupportedDatasetError(f"'{source}' was changed while it was read: try again")
            journal.close()
        _put_in_place(unfinished, directory, overwrite)
    finally:
        root.close()
    return journal.report


def _imported_of(directory: Path) -> dict[str, Any] | None:
    try:
        told = json.loads((directory / IMPORT_FILE).read_bytes())
        return {key: told[key] for key in ("format", "source", "include", "exclude")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_replaceable(directory: Path, overwrite: bool) -> None:
    if not overwrite:
        raise FileExistsError(f"'{directory}' exists already: remove it, choose another name, or give --overwrite")
    if not (directory / IMPORT_FILE).is_file() or directory.is_symlink():
        raise FileExistsError(f"'{directory}' was not made by cat2import and is not replaced: choose another name")


def _put_in_place(unfinished: Path, directory: Path, overwrite: bool) -> None:
    if not os.path.lexists(directory):
        os.replace(unfinished, directory)
        return
    _check_replaceable(directory, overwrite)
    old = directory.with_name(f".caterva2-old-{secrets.token_hex(4)}")
    os.replace(directory, old)
    os.replace(unfinished, directory)
    shutil.rmtree(old, ignore_errors=True)


class _Journal:
    """What of an import is done, so that a second run goes on: one line of JSON for each dataset, after it is in place.

    Parameters
    ----------
    directory : Path
        Emptied when it is of another import.
    of : dict
        What the import is of.
    """

    def __init__(self, directory: Path, of: dict[str, Any]) -> None:
        self.of = of
        self.report = Report()
        self.done: dict[str, dict[str, Any]] = {}
        self._path = directory / _JOURNAL
        lines = self._path.read_text(errors="replace").splitlines() if self._path.exists() else []
        told = [form for line in lines if isinstance(form := _json_of(line), dict)]
        if not told or told[0] != of:
            for item in directory.iterdir():
                if item.name == _LOCK:
                    continue
                shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
            self._path.write_text(json.dumps(of) + "\n")
        else:
            self.done = {str(form["path"]): form for form in told[1:] if "path" in form}
        self._file = self._path.open("a")
        self._file.write("\n")  # a line that was cut short ends here

    def add(self, path: str, how: str) -> None:
        self._file.write(json.dumps({"path": path, "how": how}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self._path.unlink()


def _json_of(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Array:
    """A dataset that becomes a file."""

    entry: Entry
    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    """As long as its unlimited dimensions, which HDF5 fills up in reading."""

    @property
    def nbytes(self) -> int:
        return self.entry.nbytes


@dataclass(slots=True)
class _Import:
    source: Path
    root: Hdf5Root
    entries: list[Entry]
    directory: Path
    patterns: Patterns
    journal: _Journal
    arrays: list[_Array] = field(default_factory=list)
    groups: dict[str, ListedGroup] = field(default_factory=dict)
    links: list[tuple[str, str]] = field(default_factory=list)
    placed: dict[str, str] = field(default_factory=dict)
    shorter: dict[str, list[list[int]]] = field(default_factory=dict)

    @property
    def report(self) -> Report:
        return self.journal.report

    def run(self) -> None:
        self._place()
        self._make_structure()
        for path, group in self.groups.items():
            self._write_group(path, group)
        todo = []
        for array in self.arrays:
            done = self.journal.done.get(array.path)
            if done is not None and (self.directory / array.path).is_file():
                self.report.datasets[array.path] = str(done.get("how"))
                self.report.nbytes += array.nbytes
            else:
                todo.append(array)
        if len(todo) < len(self.arrays):
            count = f"{len(self.arrays) - len(todo)} of {len(self.arrays)} datasets are there"
            print(f"going on with an import that was interrupted: {count}", file=sys.stderr)
        copy_all(todo, self._copy, self.report, self.source.name, self.report.nbytes)
        failed = {item["path"] for item in self.report.failed}
        for path, goal in self.links:
            if goal not in failed and not os.path.lexists(self.directory / path):
                os.symlink(os.path.relpath(goal, parent(path) or "."), self.directory / path)
        placed = {inside: path for inside, path in self.placed.items() if path not in failed}
        told = {**self.journal.of, "placed": placed, "groups": sorted(self.groups), "shorter": self.shorter}
        (self.directory / IMPORT_FILE).write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n")

    # What goes where

    def _place(self) -> None:
        tree = build_tree(self.entries[0], self.entries[1:])
        listed = dict(tree.walk())
        counter = DimensionCounter()
        for group in listed.values():
            counter.count(group)
        hidden: list[str] = []
        taken: set[str] = set()
        for entry in self.entries:
            if entry.kind != "group" or entry.path.startswith(tuple(hidden)):
                continue
            if not self._place_group(entry, str(entry.storage.get("hdf5", "")), listed):
                hidden.append(f"{entry.path}/")
        for entry in sorted_entries(self.entries):
            inside = str(entry.storage.get("hdf5", ""))
            if entry.kind == "group" or entry.path.startswith(tuple(hidden)):
                continue  # its group says why
            if not self.patterns.wants(inside or entry.path.removesuffix(".b2nd")):
                continue
            if "committed_type" in entry.storage or entry.storage.get("dimensions", {}).get("no_variable"):
                continue  # a name of axes is carried by their arrays
            path = self._path_of(entry)
            if path in taken:
                path = entry.path
            taken.add(path)
            self._place_dataset(entry, inside, path, listed)

    def _place_group(self, entry: Entry, inside: str, listed: Mapping[str, ListedGroup]) -> bool:
        """False: what is in it is not written below it."""
        if "file" in entry.storage:
            self.report.skip(entry.path, f"a link to another file ({entry.target}): import that one too", kept=True)
            return False
        if entry.target or inside.strip("/") != entry.path:
            goal = inside.strip("/")
            if is_at_or_below(entry.path, goal):
                self.report.skip(entry.path, f"a link to '{goal or '/'}', which it is in", kept=True)
            else:
                self.links.append((entry.path, goal))
            return False
        if problem := _name_problem(last_name(entry.path), _TAKEN_BY_GROUPS):
            self.report.skip(entry.path, f"a group with {problem}", kept=True)
            return False
        self.groups[entry.path] = listed[entry.path]
        for key in ("not_listed", "problem"):
            if key in entry.storage:
                self.report.note(entry.path or "/", str(entry.storage[key]))
        return True

    @staticmethod
    def _path_of(entry: Entry) -> str:
        name = last_name(entry.path)
        return join(parent(entry.path), name.removeprefix(NON_COORDINATE)) if name != NON_COORDINATE else entry.path

    def _place_dataset(self, entry: Entry, inside: str, path: str, listed: Mapping[str, ListedGroup]) -> None:
        if "file" in entry.storage:
            self.report.skip(path, f"a link to another file ({entry.target}): import that one too", kept=True)
        elif inside in self.placed:
            self.links.append((path, self.placed[inside]))
        elif entry.kind != "array":
            self.report.skip(path, entry.reason or f"a {entry.kind}", kept=True)
        elif problem := _name_problem(last_name(path), _TAKEN) or _form_problem(entry.geometry):
            self.report.skip(path, problem, kept=True)
        else:
            dims, shape = self._dims(entry, listed)
            self.arrays.append(_Array(entry, path, dims, shape))
            self.placed[inside] = path
            if entry.geometry is not None and shape != entry.geometry.shape:
                self.shorter[inside] = [list(entry.geometry.shape), list(shape)]

    def _dims(self, entry: Entry, listed: Mapping[str, ListedGroup]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Names and lengths of its axes, as whoever reads the file with xarray has them."""
        assert entry.geometry is not None
        where = parent(str(entry.storage["hdf5"]).strip("/"))
        chain = [listed[where]]
        while where:
            where = parent(where)
            chain.append(listed[where])
        dims, shape = name_dimensions(entry, dataset_name(entry), chain), list(entry.geometry.shape)
        for axis, dim in enumerate(dims):
            known = next((g.dimensions[dim] for g in chain if dim in g.dimensions), None)
            if known is not None and known.is_unlimited:
                shape[axis] = max(shape[axis], known.size)
        return dims, tuple(shape)

    def _write_group(self, path: str, group: ListedGroup) -> None:
        entry = group.entry if group.entry.attrs_inline else self.root.attributes(group.entry)
        attrs: dict[str, Any] = {}
        for name, value in netcdf_attributes(entry).items():
            try:
                encode_attr(value)
                attrs[name] = value
            except TypeError as error:
                self.report.note(path or "/", f"attribute '{name}' is left out: {error}")
        self._tell_skipped(path or "/", entry)
        unlimited = sorted(dim for dim, d in group.dimensions.items() if d.is_unlimited)
        (self.directory / path).mkdir(parents=True, exist_ok=True)
        if attrs or unlimited:
            (self.directory / path / GROUP_FILE).write_bytes(format_group_file(attrs, unlimited))

    def _tell_skipped(self, path: str, entry: Entry) -> None:
        for name, reason in entry.storage.get("attrs_skipped", {}).items():
            self.report.note(path, f"attribute '{name}' is only kept for cat2export: {reason}")

    # The rest of the file

    def _make_structure(self) -> None:
        goal = self.directory / STRUCTURE_FILE
        if goal.exists():
            return
        unfinished = goal.with_name(f"{goal.name}.part")
        unfinished.unlink(missing_ok=True)

        def plan_of(path: str, dataset: Any) -> Plan:
            if not self.patterns.wants(path):
                return Plan(is_kept=False)
            if path not in self.placed:
                return Plan()
            chunks = next(a.entry.geometry.chunks for a in self.arrays if a.entry.storage["hdf5"] == path
                          if a.entry.geometry is not None)  # fmt: skip
            return Plan(with_values=False, chunks=chunks[: dataset.rank])

        try:
            with h5py.File(self.source, "r", locking=False) as source:
                if source.userblock_size:
                    self.report.note("/", f"the user block of {source.userblock_size} bytes is left out")
                with h5py.File(unfinished, "w", **file_settings(source)) as target:
                    StructureCopy(source, target, plan_of, lambda path, text: self.report.note(path, text)).run()
            os.replace(unfinished, goal)
        except FOREIGN_ERRORS as error:
            unfinished.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno:
                raise
            self.report.note("/", f"what is special to HDF5 is not kept for cat2export: {error}")

    # Arrays

    def _copy(self, array: _Array, advance: Advance) -> str:
        entry, path = array.entry, self.directory / array.path
        full = entry if entry.attrs_inline else self.root.attributes(entry)
        attrs = netcdf_attributes(full)
        self._tell_skipped(array.path, full)
        if missing := entry.storage.get("missing_sources"):
            self.report.note(array.path, f"its source '{missing[0]}' is missing: those values are its fill value")
        if "virtual_sources" in entry.storage or entry.storage.get("layout") == "external":
            self.report.note(array.path, "its values are written, not where they come from")
        geometry = entry.geometry
        assert geometry is not None
        width = 0
        if is_vlen(geometry.dtype):
            width = self._width(array)
            attrs["_Encoding"] = "utf-8"
        layers = self._layers(array, attrs)
        if geometry.ndim == 0 or 0 in array.shape:
            how = self._write_small(array, path, layers, width)
            advance(geometry.nbytes)
        elif fits_blosc2(geometry) and array.shape == geometry.shape:
            how = self._move_chunks(array, path, layers, advance)
        else:
            how = self._write_boxes(array, path, layers, width, advance)
        self.journal.add(array.path, how)
        return how

    def _layers(self, array: _Array, attrs: dict[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in attrs.items():
            try:
                to_metalayers({name: value})
                kept[name] = value
            except TypeError as error:
                self.report.note(array.path, f"attribute '{name}' is only kept for cat2export: {error}")
        names = {_DIMENSIONS: list(array.dims)} if array.dims else {}
        return {**names, **to_metalayers(kept, MAX_METALAYERS - 1)}

    def _width(self, array: _Array) -> int:
        """Bytes of the longest string."""
        longest = 2  # of one byte they would be taken for characters
        for _, values in self._values(array.entry):
            lengths = [len(_raw(item)) for item in values.ravel().tolist()]
            longest = max(longest, max(lengths, default=0))
            if any(_raw(item).endswith(b"\0") for item in values.ravel().tolist()):
                raise UnsupportedDatasetError("its strings end in NUL, which those of fixed length cannot")
        size = array.entry.geometry.size if array.entry.geometry else 0
        if longest > _MAX_STRING_NBYTES or longest * size > _MAX_STRINGS_NBYTES:
            raise UnsupportedDatasetError(f"one of its strings has {longest} bytes: all would take as much room")
        return longest

    def _values(self, entry: Entry) -> Iterator[tuple[Selection, npt.NDArray[Any]]]:
        g = entry.geometry
        assert g is not None
        for box in boxes(g.shape, g.chunks, max(g.itemsize, 64)):
            yield box, read_box(self.root, entry, box)

    def _write_small(self, array: _Array, path: Path, layers: Mapping[str, Any], width: int) -> str:
        geometry = array.entry.geometry
        assert geometry is not None
        dtype = np.dtype(f"S{width}") if width else geometry.dtype
        unfinished = path.with_name(f"{path.name}.part")
        settings: dict[str, Any] = {"urlpath": str(unfinished), "mode": "w", "dtype": dtype}
        if geometry.size:
            values = read_box(self.root, array.entry, Selection(()))
            made = blosc2.asarray(np.asarray(_fixed(values, dtype)), **settings)
        else:
            made = blosc2.empty(geometry.shape, **settings)
        for name, value in layers.items():
            made.schunk.vlmeta[name] = value
        os.replace(unfinished, path)
        return "whole"

    def _move_chunks(self, array: _Array, path: Path, layers: Mapping[str, Any], advance: Advance) -> str:
        entry, geometry = array.entry, array.entry.geometry
        assert geometry is not None
        nmoved = 0
        with FrameWriter(path, geometry, layers, _codec_of(entry)) as writer:
            for projection in BlockPlan(geometry, Selection.whole(geometry.shape)):
                chunk, is_stored = blosc2_chunk(read_chunk(self.root, entry, projection), geometry)
                writer.put(projection.nchunk, chunk)
                nmoved += is_stored
                advance(geometry.nbytes // geometry.nchunks)
        return _how(nmoved, geometry.nchunks)

    def _write_boxes(self, array: _Array, path: Path, layers: Mapping[str, Any], width: int, advance: Advance) -> str:
        stored = array.entry.geometry
        assert stored is not None
        geometry = _target_geometry(array.entry, np.dtype(f"S{width}") if width else stored.dtype)
        geometry = replace(geometry, shape=array.shape)
        fill = _fill_of(array.entry, geometry.dtype)
        written: set[int] = set()
        with FrameWriter(path, geometry, layers) as writer:
            for box, values in self._values(array.entry):
                values, place = _fixed(values, geometry.dtype), slices(box)
                for projection in BlockPlan(geometry, box):
                    items = _chunk_items(values, place, geometry, projection.nchunk, fill)
                    writer.put(projection.nchunk, _encoded_chunk(items, geometry, projection.nchunk))
                    written.add(projection.nchunk)
                advance(values.nbytes)
            if array.shape != stored.shape:
                nothing = np.broadcast_to(fill, geometry.chunks)
                for nchunk in set(range(geometry.nchunks)) - written:
                    writer.put(nchunk, _encoded_chunk(nothing, geometry, nchunk))
        return "recompressed"


def _chunk_items(
    values: npt.NDArray[Any], place: tuple[slice, ...], geometry: Geometry, nchunk: int, fill: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """The items of a chunk that are in a box, with the fill value where the box ends before the chunk."""
    starts = [i * c for i, c in zip(geometry.chunk_coords(nchunk), geometry.chunks, strict=True)]
    ends = [min(a + c, p.stop) for a, c, p in zip(starts, geometry.chunks, place, strict=True)]
    part = values[tuple(slice(a - p.start, b - p.start) for a, b, p in zip(starts, ends, place, strict=True))]
    if part.shape == geometry.chunks:
        return part
    items = np.empty(geometry.chunks, geometry.dtype)
    items[...] = fill
    items[tuple(slice(n) for n in part.shape)] = part
    return items


def _encoded_chunk(items: npt.NDArray[Any], geometry: Geometry, nchunk: int) -> bytes:
    blocks = list(range(geometry.chunk_nblocks(nchunk)))
    return blosc2_chunk([array_record(0, nchunk, blocks, geometry, items)], geometry)[0]


def _fill_of(entry: Entry, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """What items read as that no one wrote."""
    out = np.zeros((), dtype)
    if "fillvalue" in entry.storage and dtype.kind != "S":
        out[()] = decode_attr(entry.storage["fillvalue"])
    return out


def _how(nmoved: int, nchunks: int) -> str:
    return "as stored" if nmoved == nchunks else "recompressed" if not nmoved else "partly as stored"


def _codec_of(entry: Entry) -> str:
    names = {1: "zlib", 32004: "lz4", 32015: "zstd"}
    return next((names[f["id"]] for f in entry.storage.get("filters", ()) if f["id"] in names), "zstd")


def _name_problem(name: str, taken: tuple[str, ...]) -> str:
    """Why no publisher lists a file of that name; empty when one does."""
    if len(os.fsencode(name)) > _MAX_NAME_NBYTES:
        return "a name that is too long for a file"
    if name.startswith((".caterva2", ".#", ".nfs", ".fuse_hidden")) or name.lower().endswith(taken):
        return "a name that is one of temporary or special files"
    return ""


def _form_problem(geometry: Geometry | None) -> str:
    assert geometry is not None
    if geometry.ndim > _MAX_NDIM:
        return f"it has {geometry.ndim} dimensions, a Blosc2 array at most {_MAX_NDIM}"
    if geometry.itemsize == 0 and not is_vlen(geometry.dtype):
        return "its items have no bytes"
    return ""


def _raw(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape")


def _fixed(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Strings in a fixed number of bytes; other values as they are."""
    if values.dtype.kind != "O":
        return values
    out = np.empty(values.shape, dtype)
    out.ravel()[:] = [_raw(item) for item in values.ravel().tolist()]
    return out


def _target_geometry(entry: Entry, dtype: np.dtype[Any]) -> Geometry:
    """Chunks as in HDF5, where they are not those of a larger piece that is read at once; blocks of our own."""
    stored = entry.geometry
    assert stored is not None
    own = entry.storage.get("chunks")
    chunks = stored.chunks
    if isinstance(own, list) and len(own) <= stored.ndim:
        candidate = (*(int(n) for n in own), *stored.shape[len(own) :])
        if all(c % n == 0 or c >= length for c, n, length in zip(stored.chunks, candidate, stored.shape, strict=True)):
            chunks = candidate
    chunks = tuple(max(1, c) for c in chunks)
    if np.prod(chunks, dtype=float) * dtype.itemsize >= 2**31 - 64:
        raise IntegrityError("its chunks take over 2 GiB")
    blocks = list(chunks)
    while np.prod(blocks, dtype=float) * dtype.itemsize > _BLOCK_NBYTES and max(blocks) > 1:
        axis = blocks.index(max(blocks))
        blocks[axis] = -(-blocks[axis] // 2)
    return replace(stored, chunks=chunks, blocks=tuple(blocks), dtype=dtype, layout="nd", padded=True)


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status: 1 when something could not be converted that should have been."""
    parser = argparse.ArgumentParser(prog="cat2import", description=__doc__.split("\n\n")[0])
    parser.add_argument("file", metavar="FILE", type=Path, help="the HDF5 file to read")
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory to make")
    add_common_options(parser)
    given = parser.parse_args(arguments)
    patterns = Patterns(tuple(given.include), tuple(given.exclude))
    return run_command(
        "cat2import",
        given.directory,
        given.json,
        lambda: import_hdf5(
            given.file, given.directory, resume=given.resume, overwrite=given.overwrite, patterns=patterns
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
