"""``cat2export DIR FILE``: turn a directory root into an HDF5 file.

Directories become groups, Blosc2 arrays datasets with their attributes and dimension scales, other files datasets of
bytes. What ``cat2import`` made of an HDF5 file becomes what it was, with what was changed in the directory since.
Chunks go over as they are stored where HDF5 can read them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5ds, h5t, h5z

from ..compute.netcdf_attributes import netcdf_attributes
from ..core.attributes import decode_attr, encode_attr
from ..core.chunk_grid import BlockPlan
from ..core.metadata import Entry, Geometry
from ..core.paths import name as last_name
from ..core.paths import parent
from ..core.selection import Selection
from ..storage.directory_root import DirectoryRoot
from ..storage.hdf5_chunks import Pipeline, plan_pipeline
from ..storage.hdf5_plugins import load_plugins
from ..storage.hdf5_root import Hdf5Root
from ..storage.hdf5_worker import Hdf5Worker
from .checkpointed_file import CheckpointedFile
from .copying import (
    IMPORT_FILE,
    STRUCTURE_FILE,
    Advance,
    Patterns,
    Report,
    add_common_options,
    alone,
    boxes,
    chunk_box,
    copy_all,
    read_box,
    read_chunk,
    run_command,
    slices,
    sorted_entries,
)
from .hdf5_structure import FOREIGN_ERRORS, Plan, StructureCopy, file_settings, is_stored_as, write_values
from .stored_chunks import blosc2_chunk, fits_blosc2, hdf5_payload

__all__ = ["CODECS", "export_hdf5", "main"]

CODECS = ("auto", "blosc2", "gzip", "lz4", "zstd", "none")
_MAX_CHUNK_NBYTES = 2**31 - 1
_CHECKPOINT_S = 5.0
_NAMES_OF_AXES = ("_ARRAY_DIMENSIONS", "dims")
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
_PHONY = re.compile(r"phony_dim_\d+|dim_\d+")


def export_hdf5(
    directory: Path,
    target: Path,
    codec: str = "auto",
    *,
    resume: bool = False,
    overwrite: bool = False,
    patterns: Patterns | None = None,
    worker: Hdf5Worker | None = None,
) -> Report:
    """Write an HDF5 file of what a directory root holds.

    Parameters
    ----------
    directory : Path
    target : Path
        It appears once it is complete. An export of the same state that was interrupted is gone on with.
    codec : str
        ``auto``: the filters that a dataset had in HDF5, Blosc2 for the others. Else ``blosc2``, ``gzip``, ``lz4``,
        ``zstd`` (``gzip:6``: with a level) or ``none`` for all that is chunked. ``blosc2``, ``lz4`` and ``zstd`` need
        hdf5plugin, here and where the file is read.
    resume : bool
        A file that is there is left as it is.
    overwrite : bool
        Replace a file.
    patterns : Patterns, optional
        Which datasets, by their paths in the HDF5 file.
    worker : Hdf5Worker, optional
        Where HDF5 is read, to be shared by several conversions.

    Raises
    ------
    FileExistsError, FileNotFoundError, OSError
    ValueError
        When that codec is not to be had.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no directory '{directory}'")
    if os.path.lexists(target):
        if resume and target.is_file():
            return Report()
        if not overwrite:
            raise FileExistsError(f"'{target}' exists already: remove it, choose another name, or give --overwrite")
        if not target.is_file() or target.is_symlink():
            raise FileExistsError(f"'{target}' is not a file, and is not replaced: choose another name")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no directory '{target.parent}' to write '{target.name}' in")
    filters = _filters(codec)
    patterns = patterns or Patterns()
    unfinished = target.with_name(f".{target.name}.part")
    root = DirectoryRoot(directory, "export")
    try:
        with alone(target.with_name(f".{target.name}.lock.part"), str(target)):
            entries = [entry for entry, _ in root.scan([])]
            of = _digest(entries, codec, patterns)
            with CheckpointedFile(unfinished, go_on=True) as raw:
                if raw.state is not None and raw.state.get("of") != of:
                    raw = _afresh(raw, unfinished)
                export = _Export(directory, root, entries, raw, of, filters, codec == "auto", patterns, worker)
                export.run()
                raw.forget()
            os.replace(unfinished, target)
    finally:
        root.close()
    return export.report


def _afresh(raw: CheckpointedFile, path: Path) -> CheckpointedFile:
    """What was begun is of another state of the directory."""
    raw.close()
    return CheckpointedFile(path)


def _digest(entries: list[Entry], codec: str, patterns: Patterns) -> str:
    """A text for the state of all that is exported, and how."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([codec, patterns.include, patterns.exclude]).encode())
    for entry in sorted(entries, key=lambda e: e.path):
        digest.update(json.dumps([entry.path, entry.kind, entry.version, entry.attrs_tag]).encode())
    return digest.hexdigest()


Filters = Callable[[Any], None]


def _filters(codec: str) -> Filters:
    """What sets the filters of a dataset's creation properties.

    Raises
    ------
    ValueError
    """
    name, _, level = codec.partition(":")
    top = {"gzip": 9, "zstd": 22, "blosc2": 9}.get(name, -1)
    if name not in CODECS or (level and not (level.isdecimal() and int(level) <= top)):
        raise ValueError(f"no codec '{codec}': choose one of {', '.join(CODECS)}, with a level as gzip:6")
    if name == "none":
        return lambda properties: None
    if name == "gzip":

        def gzip(properties: Any) -> None:
            properties.set_shuffle()
            properties.set_deflate(int(level or 4))

        return gzip
    plugins = load_plugins()
    if plugins is None:
        if name == "auto":
            return _filters("gzip")
        raise ValueError(f"--codec {name} needs hdf5plugin: pip install hdf5plugin, or give --codec gzip")
    chosen = {
        "auto": lambda: plugins.Blosc2(cname="zstd", clevel=1),
        "blosc2": lambda: plugins.Blosc2(cname="zstd", clevel=int(level or 1)),
        "lz4": lambda: plugins.LZ4(),
        "zstd": lambda: plugins.Zstd(clevel=int(level or 3)),
    }[name]()
    settings = dict(chosen)

    def plugin(properties: Any) -> None:
        if name in ("lz4", "zstd"):
            properties.set_shuffle()
        number, options = settings["compression"], tuple(settings["compression_opts"])
        properties.set_filter(number, h5z.FLAG_OPTIONAL, options)

    return plugin


@dataclass(frozen=True, slots=True)
class _Dataset:
    """An array of the directory and where it goes."""

    entry: Entry
    goal: str

    @property
    def path(self) -> str:
        return self.entry.path

    @property
    def nbytes(self) -> int:
        return self.entry.nbytes


@dataclass(slots=True)
class _Export:
    directory: Path
    root: DirectoryRoot
    entries: list[Entry]
    raw: CheckpointedFile
    of: str
    filters: Filters
    keeps_filters: bool
    patterns: Patterns
    worker: Hdf5Worker | None = None
    report: Report = field(default_factory=Report)
    datasets: list[_Dataset] = field(default_factory=list)
    made: list[_Dataset] = field(default_factory=list)
    _done: set[str] = field(default_factory=set)
    _file: Any = None
    _saved_at: float = 0.0

    def run(self) -> None:
        before = self.raw.state
        with ExitStack() as stack:
            imported = self._imported(stack)
            if before is None:
                settings = {} if imported is None else file_settings(imported.file)
                self._file = stack.enter_context(h5py.File(self.raw, "w", **settings))
                self._make_structure(imported)
                self._save({"datasets": [[d.path, d.goal] for d in self.datasets], "report": _told(self.report)})
            else:
                self._file = stack.enter_context(h5py.File(self.raw, "r+"))
                self._go_on(before)
            todo = [dataset for dataset in self.datasets if dataset.goal not in self._done]
            copy_all(todo, self._copy, self.report, self.directory.name, self.report.nbytes)
            for failed in self.report.failed:
                self._drop(failed["path"])
            self._file.flush()

    # What was begun before

    def _go_on(self, state: Mapping[str, Any]) -> None:
        found = {entry.path: entry for entry in self.entries}
        self.datasets = [_Dataset(found[where], path) for where, path in state["datasets"]]
        self._done = set(state.get("done", ()))
        told = state["report"]
        self.report.skipped, self.report.notes = list(told["skipped"]), list(told["notes"])
        for dataset in self.datasets:
            if dataset.goal in self._done:
                self.report.datasets[dataset.path] = str(told["datasets"].get(dataset.path, "whole"))
                self.report.nbytes += dataset.nbytes
        count = f"{len(self._done)} of {len(self.datasets)} datasets are there"
        print(f"going on with an export that was interrupted: {count}", file=sys.stderr)

    def _save(self, state: dict[str, Any]) -> None:
        self._file.flush()
        self.raw.checkpoint({"of": self.of, **state}, self._file.id.get_filesize())
        self._saved_at = time.monotonic()

    # Structure

    def _imported(self, stack: ExitStack) -> _Imported | None:
        """The HDF5 file that the directory was made of, without what is in the directory."""
        structure = self.directory / STRUCTURE_FILE
        try:
            told = json.loads((self.directory / IMPORT_FILE).read_bytes())
            placed = {str(k): str(v) for k, v in told["placed"].items()}
            shorter = {str(k): (tuple(v[0]), tuple(v[1])) for k, v in told.get("shorter", {}).items()}
            groups = [str(path) for path in told["groups"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        try:
            file = stack.enter_context(h5py.File(structure, "r", locking=False))
        except OSError as error:
            self.report.note("/", f"what was special to HDF5 is lost: {error}")
            return None
        reader = Hdf5Root(structure, "export", self.worker)
        stack.callback(reader.close)
        entries = {str(e.storage.get("hdf5")): e for e in reader.entries() if not e.target and "file" not in e.storage}
        return _Imported(file, reader, entries, placed, groups, shorter)

    def _make_structure(self, imported: _Imported | None) -> None:
        found = {entry.path: entry for entry in self.entries}
        links = self._links()
        taken: set[str] = set()
        if imported is not None:
            taken = self._restore(imported, found, links)
        self._make_others(found, taken, links)

    def _links(self) -> dict[str, str]:
        """Symbolic links that lead to something in the directory: path -> where that is itself."""
        base = os.path.realpath(self.directory)
        links: dict[str, str] = {}
        groups: list[str] = []
        for entry in sorted(self.entries, key=lambda e: e.path):
            if entry.path.startswith(tuple(groups)) or not os.path.islink(self.directory / entry.path):
                continue
            real = os.path.relpath(os.path.realpath(self.directory / entry.path), base)
            if not real.startswith(".."):
                links[entry.path] = "" if real == "." else real
                groups.append(f"{entry.path}/")
        return links

    def _restore(self, imported: _Imported, found: Mapping[str, Entry], links: Mapping[str, str]) -> set[str]:
        """What was imported, as it was; paths of the directory that are dealt with."""
        taken: set[str] = set(imported.groups)
        restored: list[tuple[str, Entry]] = []

        def plan_of(path: str, dataset: Any) -> Plan:
            if not self.patterns.wants(path):
                if path in imported.placed:
                    taken.add(imported.placed[path])
                return Plan(is_kept=False)
            where = imported.placed.get(path)
            if where is None:
                return Plan()
            entry = found.get(where)
            if entry is None or entry.geometry is None or where in links:
                return Plan(is_kept=False)
            shape = _shape_for(dataset, entry.geometry)
            if shape is None:
                return Plan(is_kept=False)  # it is another array now
            taken.add(where)
            restored.append((path, entry))
            if path in imported.shorter and imported.shorter[path][1] == shape:
                shape = imported.shorter[path][0]  # what was filled up for readers is not there in HDF5
            filters = None if self.keeps_filters else self.filters
            return Plan(with_values=False, shape=None if shape == dataset.shape else shape, filters=filters)

        StructureCopy(imported.file, self._file, plan_of, lambda path, text: self.report.note(path, text)).run()
        for path, entry in restored:
            if path not in self._file:
                continue
            self.datasets.append(_Dataset(entry, path))
            self._update_attributes(imported, path, entry, self._file[path])
        for path in imported.groups:
            if path not in found and path:
                self._drop(f"/{path}")
            elif (group := found.get(path)) is not None and f"/{path}" in self._file:
                self._update_attributes(imported, f"/{path}", group, self._file[f"/{path}"])
        # Links to what is there again: they came with the structure.
        taken |= {path for path in links if f"/{path.removesuffix('.b2nd')}" in self._file}
        return taken

    def _update_attributes(self, imported: _Imported, path: str, entry: Entry, made: Any) -> None:
        """What was changed in the directory since it was imported."""
        if path not in imported.entries:
            return
        before = imported.entries[path]
        if not before.attrs_inline:
            before = imported.root.attributes(before)
        now = _attributes(self.root, entry)
        if imported.is_text(path):
            now.pop("_Encoding", None)
        was: dict[str, Any] = {}
        for name, value in netcdf_attributes(before).items():
            try:
                was[name] = encode_attr(value)
            except TypeError:
                continue
        for name, form in now.items():
            if name not in was or was[name] != form:
                self._set_attribute(made, entry.path, name, decode_attr(form))
        for name in was.keys() - now.keys():
            if name in made.attrs and name != "DIMENSION_LABELS":
                del made.attrs[name]

    def _make_others(self, found: Mapping[str, Entry], taken: set[str], links: Mapping[str, str]) -> None:
        """What HDF5 never had: groups, datasets, their scales, links."""
        below_links = tuple(f"{path}/" for path in links)
        others: list[tuple[_Dataset, Geometry]] = []
        for entry in sorted_entries(found.values()):
            if entry.path in taken or entry.path in links or entry.path.startswith(below_links):
                continue
            if entry.kind == "group":
                self._make_group(entry)
            elif entry.geometry is None:
                self.report.skip(entry.path, entry.reason or f"a {entry.kind}")
            else:
                path = self._free_path(entry)
                if self.patterns.wants(path):
                    others.append((_Dataset(entry, path), entry.geometry))
        for dataset, geometry in others:
            self._file.require_group(parent(dataset.goal) or "/")
            try:
                made = self._make_dataset(dataset, geometry)
            except FOREIGN_ERRORS as error:
                self.report.fail(dataset.path, f"{error}")
                continue
            self.datasets.append(dataset)
            self.made.append(dataset)
            for name, form in _attributes(self.root, dataset.entry).items():
                self._set_attribute(made, dataset.path, name, decode_attr(form))
        for dataset in self.made:
            self._name_axes(dataset)
        for path in links.keys() - taken:
            self._make_link(path, links[path])

    def _free_path(self, entry: Entry) -> str:
        path = f"/{entry.path.removesuffix('.b2nd') if entry.kind == 'array' else entry.path}"
        return f"/{entry.path}" if path in self._file else path

    def _make_group(self, entry: Entry) -> None:
        path = f"/{entry.path}"
        group = self._file.require_group(path)
        for name, form in _attributes(self.root, entry).items():
            self._set_attribute(group, entry.path or "/", name, decode_attr(form))

    def _make_dataset(self, dataset: _Dataset, geometry: Geometry) -> Any:
        settings: dict[str, Any] = {}
        unlimited = self._unlimited(dataset.entry)
        if geometry.ndim and (geometry.size or any(unlimited)):
            chunks = tuple(max(1, c if any(unlimited) else min(c, n))
                           for c, n in zip(geometry.chunks, geometry.shape, strict=True))  # fmt: skip
            is_moved = fits_blosc2(geometry)
            chunks = geometry.chunks if is_moved and _fits_hdf5(geometry, unlimited) else chunks
            if np.prod(chunks, dtype=float) * max(geometry.itemsize, 1) > _MAX_CHUNK_NBYTES:
                settings["chunks"] = True
            else:
                settings["chunks"] = chunks
        if any(unlimited):
            settings["maxshape"] = tuple(None if u else n for u, n in zip(unlimited, geometry.shape, strict=True))
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_attr_creation_order(0)
        made = self._file.create_dataset(dataset.goal, geometry.shape, _hdf5_type(geometry.dtype), **settings)
        if "chunks" not in settings:
            return made
        # Filters are set on what h5py made of chunks and limits.
        properties = made.id.get_create_plist()
        self.filters(properties)
        if properties.get_nfilters():
            tid, space = made.id.get_type(), made.id.get_space()
            del self._file[dataset.goal]
            name = last_name(dataset.goal).encode("utf-8", "surrogateescape")
            made = h5py.Dataset(h5d.create(self._file[parent(dataset.goal) or "/"].id, name, tid, space, properties))
        return made

    def _unlimited(self, entry: Entry) -> list[bool]:
        geometry = entry.geometry
        assert geometry is not None
        names: set[str] = set()
        where = entry.path
        found = {e.path: e for e in self.entries if e.kind == "group"}
        while where:
            where = parent(where)
            group = found.get(where)
            names |= set(group.storage.get("unlimited_dims", ()) if group else ())
        return [dim in names for dim in entry.dims or ("",) * geometry.ndim]

    def _name_axes(self, dataset: _Dataset) -> None:
        """Dimension scales for the names of its axes, made where there are none."""
        made = self._file[dataset.goal]
        for axis, dim in enumerate(dataset.entry.dims or ()):
            if _PHONY.fullmatch(dim) or "/" in dim:
                continue
            try:
                if last_name(dataset.goal) == dim and made.ndim == 1:
                    if not h5ds.is_scale(made.id):
                        made.make_scale(dim)
                    continue
                scale = self._scale(dataset, dim, made.shape[axis])
                if scale is not None:
                    h5ds.attach_scale(made.id, scale.id, axis)
                else:
                    made.dims[axis].label = dim
            except FOREIGN_ERRORS as error:
                self.report.note(dataset.path, f"axis {axis} is not named '{dim}': {error}")

    def _scale(self, dataset: _Dataset, dim: str, length: int) -> Any:
        group = parent(dataset.goal)
        at = group
        while True:
            path = f"{at.rstrip('/')}/{dim}"
            if path in self._file and isinstance(self._file[path], h5py.Dataset):
                found = self._file[path]
                if found.shape == (length,) and found.id != self._file[dataset.goal].id:
                    if not h5ds.is_scale(found.id):
                        found.make_scale(dim)
                    return found
            if at in ("", "/"):
                break
            at = parent(at)
        path = f"{group.rstrip('/')}/{dim}"
        if path in self._file:
            return None
        unlimited = self._unlimited(dataset.entry)[(dataset.entry.dims or ()).index(dim)]
        settings = {"maxshape": (None,), "chunks": (1024,)} if unlimited else {}
        scale = self._file.create_dataset(path, (length,), ">f4", **settings)
        scale.make_scale(f"{_NO_VARIABLE}{length:10d}")
        return scale

    def _make_link(self, path: str, leads_to: str) -> None:
        goals = {d.path: d.goal for d in self.datasets}
        goal = goals.get(leads_to) or (f"/{leads_to}" if f"/{leads_to}" in self._file else None)
        name = f"/{path.removesuffix('.b2nd')}"
        if goal is None or name in self._file:
            self.report.skip(path, f"a link to '{leads_to}', which is not exported")
            return
        self._file.require_group(parent(name) or "/")
        self._file[name] = h5py.SoftLink(goal)

    def _set_attribute(self, made: Any, path: str, name: str, value: Any) -> None:
        try:
            if name in made.attrs:
                del made.attrs[name]
            made.attrs[name] = _attribute(value)
        except FOREIGN_ERRORS as error:
            self.report.note(path or "/", f"attribute '{name}' is left out: {error}")

    def _drop(self, path: str) -> None:
        """Remove what could not be written: it would look complete."""
        for dataset in self.datasets:
            if dataset.path == path and dataset.goal in self._file:
                del self._file[dataset.goal]
                return
        if (
            path.startswith("/")
            and path in self._file
            and not any(d.goal.startswith(f"{path}/") for d in self.datasets)
        ):
            del self._file[path]

    # Values

    def _copy(self, dataset: _Dataset, advance: Advance) -> str:
        made = self._file[dataset.goal]
        how = _write(self.root, dataset.entry, made, advance)
        self._done.add(dataset.goal)
        if time.monotonic() - self._saved_at > _CHECKPOINT_S:
            report = _told(self.report) | {"datasets": {**self.report.datasets, dataset.path: how}}
            places = [[d.path, d.goal] for d in self.datasets]
            self._save({"datasets": places, "report": report, "done": sorted(self._done)})
        return how


@dataclass(frozen=True, slots=True)
class _Imported:
    """What an import left of the HDF5 file."""

    file: Any
    root: Hdf5Root
    entries: Mapping[str, Entry]
    placed: Mapping[str, str]
    groups: list[str]
    shorter: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    """Shapes, in HDF5 and of the array, of datasets that are filled up along unlimited dimensions."""

    def is_text(self, path: str) -> bool:
        entry = self.entries.get(path)
        return entry is not None and entry.storage.get("type") == "variable-length string"


def _told(report: Report) -> dict[str, Any]:
    return {"skipped": report.skipped, "notes": report.notes, "datasets": report.datasets}


def _attributes(root: DirectoryRoot, entry: Entry) -> dict[str, Any]:
    """Forms of the attributes, without what names axes."""
    full = entry if entry.attrs_inline else root.attributes(entry)
    return {name: form for name, form in full.attrs.items() if name not in _NAMES_OF_AXES}


def _shape_for(dataset: Any, geometry: Geometry) -> tuple[int, ...] | None:
    """The shape that the dataset has to have for an array; None when it is of another type or rank."""
    try:
        own = dataset.get_type().dtype
    except FOREIGN_ERRORS:
        return None
    inner: tuple[int, ...] = ()
    if own.subdtype is not None:
        own, inner = own.subdtype
    ndim = geometry.ndim - len(inner)
    if ndim != dataset.rank or geometry.shape[ndim:] != inner:
        return None
    if h5t.check_string_dtype(own) is not None and own.kind == "O":
        return geometry.shape if geometry.dtype.kind == "S" else None
    if own.itemsize != geometry.itemsize or not (own == geometry.dtype or (own.kind == "V" and own.names is None)):
        return None
    return geometry.shape[:ndim]


def _fits_hdf5(geometry: Geometry, unlimited: list[bool]) -> bool:
    """HDF5 has no chunk that is longer than an axis which cannot grow."""
    pairs = zip(geometry.chunks, geometry.shape, unlimited, strict=True)
    return all(c <= n or u for c, n, u in pairs)


def _write(root: DirectoryRoot, entry: Entry, made: Any, advance: Advance) -> str:
    """All values of an array in a dataset; says how."""
    geometry = entry.geometry
    assert geometry is not None
    if geometry.size == 0:
        return "whole"
    if geometry.ndim == 0:
        write_values(made, (), _encoded(read_box(root, entry, Selection(())), made))
        advance(geometry.nbytes)
        return "whole"
    pipeline = _pipeline(made)
    is_same = made.shape == geometry.shape and is_stored_as(made.id.get_type(), geometry.dtype)
    if pipeline is not None and fits_blosc2(geometry) and is_same and made.chunks == geometry.chunks:
        return _write_chunks(root, entry, made, pipeline, advance)
    ninner = geometry.ndim - len(made.shape)
    chunks = (*(made.chunks or geometry.chunks[: len(made.shape)]), *geometry.shape[len(made.shape) :])
    shape = (*made.shape, *geometry.shape[len(made.shape) :])
    for box in boxes(shape, chunks, geometry.itemsize, ninner):
        values = read_box(root, entry, box)
        write_values(made, slices(box)[: len(made.shape)], _encoded(values, made))
        advance(values.nbytes)
    return "recompressed" if made.chunks else "whole"


def _pipeline(made: Any) -> Pipeline | None:
    properties = made.id.get_create_plist()
    if made.chunks is None or properties.get_nfilters() == 0:
        return None
    found = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    return plan_pipeline([(f[0], f[2]) for f in found], made.dtype.itemsize)


def _write_chunks(root: DirectoryRoot, entry: Entry, made: Any, pipeline: Pipeline, advance: Advance) -> str:
    geometry = entry.geometry
    assert geometry is not None
    nmoved = 0
    is_zero = (
        not np.any(np.frombuffer(np.asarray(made.fillvalue).tobytes(), "u1")) if not made.dtype.hasobject else False
    )
    for projection in BlockPlan(geometry, Selection.whole(geometry.shape)):
        chunk, is_stored = blosc2_chunk(read_chunk(root, entry, projection), geometry)
        box = chunk_box(geometry, projection.nchunk)
        payload = hdf5_payload(chunk, geometry, pipeline)
        if is_zero and chunk[31] & 0x70 == 0x10:
            nmoved += 1  # never written reads the same
        elif payload is not None:
            made.id.write_direct_chunk(tuple(p.start for p in slices(box)), payload)
            nmoved += is_stored
        else:
            write_values(made, slices(box), _encoded(read_box(root, entry, box), made))
        advance(geometry.nbytes // geometry.nchunks)
    return "as stored" if nmoved == geometry.nchunks else "partly as stored" if nmoved else "recompressed"


def _hdf5_type(dtype: np.dtype[Any]) -> Any:
    """The dtype in the file of what never was in one."""
    if dtype.kind in "mM":
        return h5py.opaque_dtype(dtype)
    if dtype.kind == "U":
        # HDF5 has UTF-8 in a fixed number of bytes: four are enough for any character.
        return h5py.string_dtype("utf-8", max(1, dtype.itemsize))
    return dtype


def _encoded(values: npt.NDArray[Any], made: Any) -> npt.NDArray[Any]:
    """Values as the dataset has them."""
    string = h5py.check_string_dtype(made.dtype)
    if values.dtype.kind == "U":
        return np.char.encode(values, "utf-8").astype(made.dtype)
    if string is not None and string.length is None:
        out = np.empty(values.shape, object)
        out.ravel()[:] = values.ravel().tolist()
        return out
    if values.dtype.kind in "mM":
        return values.astype(h5py.opaque_dtype(values.dtype))
    return values


def _attribute(value: Any) -> Any:
    if value is None:
        return h5py.Empty("f4")
    if isinstance(value, bytes) and not isinstance(value, np.bytes_):
        return np.void(value) if value else h5py.Empty("S1")
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        return value.astype(h5py.string_dtype())
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
        return np.array(value, h5py.string_dtype())
    if isinstance(value, Mapping):
        raise TypeError("HDF5 attributes cannot be dictionaries")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status: 1 when something could not be converted that should have been."""
    parser = argparse.ArgumentParser(prog="cat2export", description=__doc__.split("\n\n")[0])
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory root to read")
    parser.add_argument("file", metavar="FILE", type=Path, help="the HDF5 file to make")
    codec = f"{', '.join(CODECS)}; a level may follow, as gzip:6 (default: auto, the filters that datasets had in HDF5 "
    parser.add_argument("--codec", "--compression", default="auto", help=codec + "and Blosc2 for others)")
    add_common_options(parser)
    given = parser.parse_args(arguments)
    patterns = Patterns(tuple(given.include), tuple(given.exclude))
    return run_command(
        "cat2export",
        given.file,
        given.json,
        lambda: export_hdf5(
            given.directory,
            given.file,
            given.codec,
            resume=given.resume,
            overwrite=given.overwrite,
            patterns=patterns,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
