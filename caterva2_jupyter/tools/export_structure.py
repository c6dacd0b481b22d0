"""What an HDF5 file that is exported has besides values: groups, empty datasets, attributes, dimension scales, links.

What was imported is made as it was, with what was changed in the directory since; the rest as HDF5 has such things.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5ds

from ..compute.netcdf_attributes import netcdf_attributes
from ..core.attributes import decode_attr, encode_attr
from ..core.metadata import Entry, Geometry
from ..core.paths import name as last_name
from ..core.paths import parent
from ..storage.hdf5_edge import FOREIGN_ERRORS
from ..storage.hdf5_root import Hdf5Root
from ..storage.hdf5_worker import Hdf5Worker
from ..storage.root import Root
from .copying import IMPORT_FILE, STRUCTURE_FILE, Patterns, Report, sorted_entries
from .dataset_writer import attribute_value, hdf5_type, shape_for
from .hdf5_filters import Filters
from .hdf5_structure import Plan, StructureCopy
from .stored_chunks import fits_blosc2

__all__ = ["ExportStructure", "ExportedDataset", "ImportedFile", "open_imported"]

_MAX_CHUNK_NBYTES = 2**31 - 1
_NAMES_OF_AXES = ("_ARRAY_DIMENSIONS", "dims")
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
_PHONY = re.compile(r"phony_dim_\d+|dim_\d+")


@dataclass(frozen=True, slots=True)
class ExportedDataset:
    """An array of the directory and where it goes."""

    entry: Entry
    goal: str

    @property
    def path(self) -> str:
        return self.entry.path

    @property
    def nbytes(self) -> int:
        return self.entry.nbytes


@dataclass(frozen=True, slots=True)
class ImportedFile:
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


def open_imported(directory: Path, report: Report, worker: Hdf5Worker | None, stack: ExitStack) -> ImportedFile | None:
    """The HDF5 file that the directory was made of, without what is in the directory."""
    structure = directory / STRUCTURE_FILE
    try:
        told = json.loads((directory / IMPORT_FILE).read_bytes())
        placed = {str(k): str(v) for k, v in told["placed"].items()}
        shorter = {str(k): (tuple(v[0]), tuple(v[1])) for k, v in told.get("shorter", {}).items()}
        groups = [str(path) for path in told["groups"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    try:
        file = stack.enter_context(h5py.File(structure, "r", locking=False))
    except OSError as error:
        report.note("/", f"what was special to HDF5 is lost: {error}")
        return None
    reader = Hdf5Root(structure, "export", worker)
    stack.callback(reader.close)
    entries = {str(e.storage.get("hdf5")): e for e in reader.entries() if not e.target and "file" not in e.storage}
    return ImportedFile(file, reader, entries, placed, groups, shorter)


@dataclass(slots=True)
class ExportStructure:
    """Makes what is not values, in an open file.

    Attributes
    ----------
    datasets : list of ExportedDataset
        Whose values are still to be written.
    """

    directory: Path
    root: Root
    entries: list[Entry]
    file: Any
    filters: Filters
    keeps_filters: bool
    patterns: Patterns
    report: Report
    datasets: list[ExportedDataset] = field(default_factory=list)
    _made: list[ExportedDataset] = field(default_factory=list)

    def make(self, imported: ImportedFile | None) -> None:
        """Groups, empty datasets, attributes, scales and links."""
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

    def _restore(self, imported: ImportedFile, found: Mapping[str, Entry], links: Mapping[str, str]) -> set[str]:
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
            shape = shape_for(dataset, entry.geometry)
            if shape is None:
                return Plan(is_kept=False)  # it is another array now
            taken.add(where)
            restored.append((path, entry))
            if path in imported.shorter and imported.shorter[path][1] == shape:
                shape = imported.shorter[path][0]  # what was filled up for readers is not there in HDF5
            filters = None if self.keeps_filters else self.filters
            return Plan(with_values=False, shape=None if shape == dataset.shape else shape, filters=filters)

        StructureCopy(imported.file, self.file, plan_of, lambda path, text: self.report.note(path, text)).run()
        for path, entry in restored:
            if path not in self.file:
                continue
            self.datasets.append(ExportedDataset(entry, path))
            self._update_attributes(imported, path, entry, self.file[path])
        for path in imported.groups:
            if path not in found and path:
                self.drop(f"/{path}")
            elif (group := found.get(path)) is not None and f"/{path}" in self.file:
                self._update_attributes(imported, f"/{path}", group, self.file[f"/{path}"])
        # Links to what is there again: they came with the structure.
        taken |= {path for path in links if f"/{path.removesuffix('.b2nd')}" in self.file}
        return taken

    def _update_attributes(self, imported: ImportedFile, path: str, entry: Entry, made: Any) -> None:
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
        others: list[tuple[ExportedDataset, Geometry]] = []
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
                    others.append((ExportedDataset(entry, path), entry.geometry))
        for dataset, geometry in others:
            self.file.require_group(parent(dataset.goal) or "/")
            try:
                made = self._make_dataset(dataset, geometry)
            except FOREIGN_ERRORS as error:
                self.report.fail(dataset.path, f"{error}")
                continue
            self.datasets.append(dataset)
            self._made.append(dataset)
            for name, form in _attributes(self.root, dataset.entry).items():
                self._set_attribute(made, dataset.path, name, decode_attr(form))
        for dataset in self._made:
            self._name_axes(dataset)
        for path in links.keys() - taken:
            self._make_link(path, links[path])

    def _free_path(self, entry: Entry) -> str:
        path = f"/{entry.path.removesuffix('.b2nd') if entry.kind == 'array' else entry.path}"
        return f"/{entry.path}" if path in self.file else path

    def _make_group(self, entry: Entry) -> None:
        path = f"/{entry.path}"
        group = self.file.require_group(path)
        for name, form in _attributes(self.root, entry).items():
            self._set_attribute(group, entry.path or "/", name, decode_attr(form))

    def _make_dataset(self, dataset: ExportedDataset, geometry: Geometry) -> Any:
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
        made = self.file.create_dataset(dataset.goal, geometry.shape, hdf5_type(geometry.dtype), **settings)
        if "chunks" not in settings:
            return made
        # Filters are set on what h5py made of chunks and limits.
        properties = made.id.get_create_plist()
        self.filters(properties)
        if properties.get_nfilters():
            tid, space = made.id.get_type(), made.id.get_space()
            del self.file[dataset.goal]
            name = last_name(dataset.goal).encode("utf-8", "surrogateescape")
            made = h5py.Dataset(h5d.create(self.file[parent(dataset.goal) or "/"].id, name, tid, space, properties))
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

    def _name_axes(self, dataset: ExportedDataset) -> None:
        """Dimension scales for the names of its axes, made where there are none."""
        made = self.file[dataset.goal]
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

    def _scale(self, dataset: ExportedDataset, dim: str, length: int) -> Any:
        group = parent(dataset.goal)
        at = group
        while True:
            path = f"{at.rstrip('/')}/{dim}"
            if path in self.file and isinstance(self.file[path], h5py.Dataset):
                found = self.file[path]
                if found.shape == (length,) and found.id != self.file[dataset.goal].id:
                    if not h5ds.is_scale(found.id):
                        found.make_scale(dim)
                    return found
            if at in ("", "/"):
                break
            at = parent(at)
        path = f"{group.rstrip('/')}/{dim}"
        if path in self.file:
            return None
        unlimited = self._unlimited(dataset.entry)[(dataset.entry.dims or ()).index(dim)]
        settings = {"maxshape": (None,), "chunks": (1024,)} if unlimited else {}
        scale = self.file.create_dataset(path, (length,), ">f4", **settings)
        scale.make_scale(f"{_NO_VARIABLE}{length:10d}")
        return scale

    def _make_link(self, path: str, leads_to: str) -> None:
        goals = {d.path: d.goal for d in self.datasets}
        goal = goals.get(leads_to) or (f"/{leads_to}" if f"/{leads_to}" in self.file else None)
        name = f"/{path.removesuffix('.b2nd')}"
        if goal is None or name in self.file:
            self.report.skip(path, f"a link to '{leads_to}', which is not exported")
            return
        self.file.require_group(parent(name) or "/")
        self.file[name] = h5py.SoftLink(goal)

    def _set_attribute(self, made: Any, path: str, name: str, value: Any) -> None:
        try:
            if name in made.attrs:
                del made.attrs[name]
            made.attrs[name] = attribute_value(value)
        except FOREIGN_ERRORS as error:
            self.report.note(path or "/", f"attribute '{name}' is left out: {error}")

    def drop(self, path: str) -> None:
        """Remove what could not be written: it would look complete."""
        for dataset in self.datasets:
            if dataset.path == path and dataset.goal in self.file:
                del self.file[dataset.goal]
                return
        if path.startswith("/") and path in self.file and not any(d.goal.startswith(f"{path}/") for d in self.datasets):
            del self.file[path]


def _attributes(root: Root, entry: Entry) -> dict[str, Any]:
    """Forms of the attributes, without what names axes."""
    full = entry if entry.attrs_inline else root.attributes(entry)
    return {name: form for name, form in full.attrs.items() if name not in _NAMES_OF_AXES}


def _fits_hdf5(geometry: Geometry, unlimited: list[bool]) -> bool:
    """HDF5 has no chunk that is longer than an axis which cannot grow."""
    pairs = zip(geometry.chunks, geometry.shape, unlimited, strict=True)
    return all(c <= n or u for c, n, u in pairs)
