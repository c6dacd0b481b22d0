"""Which dimensions the arrays of a group have, by the rules of netCDF4 as h5netcdf reads them.

Pure: it works on catalog entries that were listed, in the order in which HDF5 gives them. Dimension scales name
axes, also those of groups below theirs; axes that nothing names get ``phony_dim_N`` by their length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..core.metadata import Entry
from ..core.paths import name as last_name
from ..core.paths import parent

__all__ = [
    "NON_COORDINATE",
    "Dimension",
    "DimensionCounter",
    "ListedGroup",
    "PhonyDims",
    "build_tree",
    "dataset_name",
    "name_dimensions",
]

PhonyDims = Literal["access", "sort"]
NON_COORDINATE = "_nc4_non_coord_"


@dataclass(frozen=True, slots=True)
class Dimension:
    """A dimension that a group defines.

    Attributes
    ----------
    size : int
        The largest length that an array has along it, where it is unlimited.
    is_unlimited, is_phony : bool
    dimid : int
        netCDF's number of it; what a phony one has means nothing.
    """

    size: int
    is_unlimited: bool = False
    is_phony: bool = False
    dimid: int = -1


@dataclass(slots=True)
class ListedGroup:
    """A group of a catalog and what is in it, in HDF5's order.

    Attributes
    ----------
    entry : Entry
    datasets : dict of str to Entry
        Arrays, and what cannot be read, by the names that they have in HDF5 (without ``.b2nd``).
    groups : dict of str to ListedGroup
    dimensions : dict of str to Dimension
        Those that the group itself defines, once they were counted.
    """

    entry: Entry
    datasets: dict[str, Entry] = field(default_factory=dict)
    groups: dict[str, ListedGroup] = field(default_factory=dict)
    dimensions: dict[str, Dimension] = field(default_factory=dict)

    def chain(self, names: Iterable[str]) -> list[ListedGroup]:
        """The group with those names on the way to it, and those above it up to this one.

        Raises
        ------
        KeyError
            The name that is not there.
        """
        chain = [self]
        for name in names:
            chain.insert(0, chain[0].groups[name])
        return chain

    def walk(self, path: str = "") -> Iterator[tuple[str, ListedGroup]]:
        """Every group from this one on with its path relative to it, a group before those below it."""
        pending = [(path, self)]
        while pending:
            at, group = pending.pop()
            yield at, group
            pending += [(f"{at}/{name}".lstrip("/"), below) for name, below in reversed(group.groups.items())]


def dataset_name(entry: Entry) -> str:
    """The name of a dataset as HDF5 has it, or that of its file without the suffix.

    Examples
    --------
    >>> dataset_name(Entry("a/t2m.b2nd", "unsupported"))
    't2m'
    """
    name = last_name(entry.path)
    inside = last_name(str(entry.storage.get("hdf5", "")))
    if inside and name.startswith(inside) and not name[len(inside) :].replace(".b2nd", ""):
        return inside
    return name.removesuffix(".b2nd")


def _order(entry: Entry) -> tuple[int, bytes]:
    """Creation order where HDF5 tracks it, otherwise names, as HDF5 sorts them."""
    return int(entry.storage.get("order", 0)), dataset_name(entry).encode("utf-8", "surrogateescape")


def build_tree(top: Entry, entries: list[Entry]) -> ListedGroup:
    """Groups and datasets in their places.

    Parameters
    ----------
    top : Entry
        The group that was listed.
    entries : list of Entry
        What is below it; all of a group's children, or none.
    """
    root = ListedGroup(top)
    groups = {top.path: root}
    for entry in sorted(
        (e for e in entries if e.kind == "group" and e.path != top.path), key=lambda e: e.path.count("/")
    ):
        groups[entry.path] = ListedGroup(entry)
    for entry in sorted(entries, key=_order):
        above = groups.get(parent(entry.path))
        if entry.path == top.path or above is None:
            continue
        if entry.kind == "group":
            above.groups[last_name(entry.path)] = groups[entry.path]
        elif entry.kind != "file":
            above.datasets[dataset_name(entry)] = entry
    return root


def _told(entry: Entry) -> Mapping[str, Any]:
    told = entry.storage.get("dimensions", {})
    return told if isinstance(told, Mapping) else {}


def _is_scale(entry: Entry) -> bool:
    return "scale" in _told(entry)


def shape_of(entry: Entry) -> tuple[int, ...]:
    """Lengths of a dataset's axes, also of one that cannot be read."""
    if entry.geometry is not None:
        return entry.geometry.shape
    told = entry.storage.get("shape", ())
    return tuple(int(n) for n in told) if isinstance(told, (list, tuple)) else ()


def _scales(entry: Entry) -> list[list[str]]:
    """Per axis, the paths of the scales attached to it."""
    scales = list(_told(entry).get("scales", ()))
    return [list(scales[axis]) if axis < len(scales) else [] for axis in range(len(shape_of(entry)))]


def _names_of_metadata(entry: Entry) -> tuple[str, ...] | None:
    """What a Blosc2 array says of its axes."""
    return entry.dims if "hdf5" not in entry.storage else None


class DimensionCounter:
    """Counts the dimensions of groups one after another: names of phony ones depend on all before them.

    Parameters
    ----------
    phony_dims : {"access", "sort"}
        As for h5netcdf: ``access`` numbers them as groups are looked at, ``sort`` as netCDF4 does.
    """

    def __init__(self, phony_dims: PhonyDims = "access") -> None:
        self._mode = phony_dims
        self.nphony = 0
        self._last_id = -1

    def count(self, group: ListedGroup) -> None:
        """Find the dimensions that a group defines."""
        found: dict[str, Dimension] = {}
        wanted: Counter[int] = Counter()
        for name, entry in group.datasets.items():
            shape = shape_of(entry)
            if _is_scale(entry):
                self._last_id += 1
                found[name] = self._scale(entry, shape)
            elif (names := _names_of_metadata(entry)) is not None:
                for dim, length in zip(names, shape, strict=False):
                    found.setdefault(dim, Dimension(length))
            else:
                wanted |= Counter(n for n, scales in zip(shape, _scales(entry), strict=True) if not scales)
        labelled = Counter(d.size for d in found.values() if not d.is_unlimited)
        for size, count in wanted.items():
            for _ in range(labelled[size], count):
                number = self.nphony + (self._last_id + 1 if self._mode == "sort" else 0)
                found[f"phony_dim_{number}"] = Dimension(size, is_phony=True)
                self.nphony += 1
        group.dimensions = found

    def _scale(self, entry: Entry, shape: tuple[int, ...]) -> Dimension:
        told = _told(entry)
        is_unlimited = list(entry.storage.get("maxshape", ())) == [None]
        size = shape[0] if shape else 0
        if is_unlimited:
            size = max(size, int(told.get("size", 0)))
        ids = told.get("dimid") or [self._last_id]
        return Dimension(size, is_unlimited, dimid=int(ids[0]))


def name_dimensions(entry: Entry, name: str, groups: list[ListedGroup]) -> tuple[str, ...]:
    """Names of the axes of one dataset.

    Parameters
    ----------
    entry : Entry
    name : str
        Its name in HDF5.
    groups : list of ListedGroup
        Its group, and those above it up to the file's root group; their dimensions are known.
    """
    shape = shape_of(entry)
    told = _told(entry)
    known: dict[str, Dimension] = {}
    for group in reversed(groups):
        known |= group.dimensions
    if (names := _names_of_metadata(entry)) is not None and len(names) == len(shape):
        return tuple(names)
    coordinates = told.get("coordinates", ())
    if _is_scale(entry) and len(coordinates) == len(shape):
        by_id = {d.dimid: dim for dim, d in known.items() if not d.is_phony}
        if all(number in by_id for number in coordinates):
            return tuple(by_id[number] for number in coordinates)
    scales = _scales(entry)
    if not any(scales) and name in known and len(shape) == 1:
        return (name,)
    dims: list[str] = []
    used: Counter[int] = Counter()
    for length, attached in zip(shape, scales, strict=True):
        if attached:
            # Of several scales the last one counts, as for netCDF.
            dim = last_name(attached[-1])
            dims.append(dim if _fits(known.get(dim), length) else f"{dim}_{length}")
            continue
        fitting = [dim for dim, d in groups[0].dimensions.items() if d.size == length]
        dims.append(fitting[used[length]] if used[length] < len(fitting) else f"phony_dim_{length}_{used[length]}")
        used[length] += 1
    return tuple(dims)


def _fits(dimension: Dimension | None, length: int) -> bool:
    return dimension is None or dimension.size == length or (dimension.is_unlimited and dimension.size > length)
