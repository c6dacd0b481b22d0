"""What of an HDF5 file goes where in a directory, decided before anything is written.

Groups, datasets that become files, names and lengths of their axes, further names that become links; what a directory
cannot hold is reported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..compute.netcdf_dimensions import (
    NON_COORDINATE,
    DimensionCounter,
    ListedGroup,
    build_tree,
    dataset_name,
    name_dimensions,
)
from ..core.dtypes import is_vlen
from ..core.metadata import Entry, Geometry
from ..core.paths import is_at_or_below, join, names_below, parent
from ..core.paths import name as last_name
from .copying import Patterns, Report, sorted_entries

__all__ = ["ImportPlan", "ImportedArray"]

_MAX_NDIM = 16
_MAX_NAME_NBYTES = 240
# Files of such names are something else to a publisher, or nothing.
_TAKEN = (".tmp", ".part", "~", ".b2lock")
_TAKEN_BY_GROUPS = (*_TAKEN, ".b2nd", ".b2frame", ".b2f", ".b2z", ".b2d", ".b2e")


@dataclass(frozen=True, slots=True)
class ImportedArray:
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
class ImportPlan:
    """What goes where.

    Attributes
    ----------
    arrays : list of ImportedArray
        In the order in which they are written.
    groups : dict
        Path -> what is in it.
    links : list of tuple
        Path, and what it leads to.
    placed : dict
        Path in the HDF5 file -> path in the directory.
    shorter : dict
        Path in the HDF5 file -> its shape, and that of the array, where unlimited dimensions are filled up.
    """

    entries: list[Entry]
    patterns: Patterns
    report: Report
    arrays: list[ImportedArray] = field(default_factory=list)
    groups: dict[str, ListedGroup] = field(default_factory=dict)
    links: list[tuple[str, str]] = field(default_factory=list)
    placed: dict[str, str] = field(default_factory=dict)
    shorter: dict[str, list[list[int]]] = field(default_factory=dict)

    def make(self) -> None:
        """Decide where everything goes."""
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
            self.arrays.append(ImportedArray(entry, path, dims, shape))
            self.placed[inside] = path
            if entry.geometry is not None and shape != entry.geometry.shape:
                self.shorter[inside] = [list(entry.geometry.shape), list(shape)]

    def _dims(self, entry: Entry, listed: Mapping[str, ListedGroup]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Names and lengths of its axes, as whoever reads the file with xarray has them."""
        assert entry.geometry is not None
        chain = listed[""].chain(names_below(parent(str(entry.storage["hdf5"]).strip("/")), ""))
        dims, shape = name_dimensions(entry, dataset_name(entry), chain), list(entry.geometry.shape)
        for axis, dim in enumerate(dims):
            known = next((g.dimensions[dim] for g in chain if dim in g.dimensions), None)
            if known is not None and known.is_unlimited:
                shape[axis] = max(shape[axis], known.size)
        return dims, tuple(shape)


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
