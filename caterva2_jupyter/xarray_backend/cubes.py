"""Many files as one dataset: listed by one request, their indexes read by another, joined along a dimension, lazily.

Each part is decoded by its own attributes (units of times, scale, fill value), so that files which were packed apart
join. What differs between files is looked for in what was listed: where it would change what values mean it is an
error, elsewhere one warning tells all of it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.conventions import decode_cf_variable
from xarray.core import indexing

from ..client.group import Group
from ..client.remote_array import RemoteArray
from ..compute.netcdf_dimensions import DimensionCounter, build_tree
from ..core.catalog import MAX_PAGE, CatalogQuery
from ..core.metadata import Entry
from ..core.paths import matches, whole_address
from ..core.selection import Selection
from ..errors import ConfigError, DatasetNotFoundError, UnsupportedDatasetError
from .joined_array import JoinedArray, Part, array_of, decoded_dtype, with_missing
from .lazy_array import FirstReads, LazyArray
from .opening import Decoding, Opened, Undecoded, dropped, prepare, warn_of_skipped

__all__ = ["open_cube"]

Array = npt.NDArray[Any]

SMALL_NBYTES = 4 << 10
MAX_COMPARED = 4096
# Attributes that decoding uses up: a part is decoded by its own.
_DECODED = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "dtype", "_Encoding")
_STANDARD = {"standard", "gregorian", "proleptic_gregorian"}


def open_cube(
    group: Group,
    pattern: str,
    concat_dim: str,
    *,
    drop_variables: str | Iterable[str] | None = None,
    mask_and_scale: bool = True,
    decode_times: Any = True,
    differences: str = "raise",
    chunks: Mapping[Any, Any] | None = None,
) -> xr.Dataset:
    """Open all files or directories that match as one dataset; see ``Group.to_xarray``."""
    if differences not in ("raise", "warn"):
        raise ConfigError(f"no such way with differences: {differences!r}; it is 'raise' or 'warn'")
    decoding = Decoding(mask_and_scale=mask_and_scale, decode_times=decode_times)
    members = _list_members(group, pattern, dropped(drop_variables))
    dataset = _Cube(members, concat_dim, decoding, differences == "raise").join()
    return dataset if chunks is None else _chunked(dataset, chunks)


def _chunked(dataset: xr.Dataset, chunks: Mapping[Any, Any]) -> xr.Dataset:
    """The dataset as dask arrays: chunks of the files where a dimension is not named."""
    try:
        from dask.base import tokenize
    except ImportError:
        raise ConfigError("chunks= needs dask: pip install 'caterva2-jupyter[dask]'") from None
    unknown = [dim for dim in chunks if dim not in dataset.dims]
    if unknown:
        known = ", ".join(map(str, dataset.dims))
        raise ConfigError(f"chunks name {unknown[0]!r}, which is not a dimension; there are: {known}")
    lazy = {}
    for name, variable in dataset.variables.items():
        if name in dataset.indexes or not variable.ndim:
            continue
        stored = variable.encoding.get("preferred_chunks") or {}
        sizes = {dim: chunks.get(dim, stored.get(dim, n)) for dim, n in variable.sizes.items()}
        source = getattr(variable._data, "array", None)
        token = tokenize(source, sizes) if isinstance(source, (JoinedArray, LazyArray)) else None
        lazy[name] = variable.chunk(sizes, name=f"caterva2-{name}-{token}" if token else None)
    return dataset.assign(lazy)


@dataclass(slots=True)
class _Member:
    """One of the files: what was listed of it."""

    name: str
    undecoded: Undecoded
    arrays: dict[str, RemoteArray]
    opened: Opened
    first: FirstReads

    @property
    def variables(self) -> dict[str, xr.Variable]:
        return self.undecoded.variables


class _NoReads(FirstReads):
    """The indexes of all files come by one request: a file plans none of its own."""

    def add(self, array: RemoteArray, selection: Selection) -> None:
        return None


class _PlannedReads(FirstReads):
    """What decoding the first file looks at comes along with the indexes of all."""

    def planned(self) -> list[tuple[RemoteArray, Selection]]:
        """What is wanted but for whole coordinates, which are read anyway."""
        wanted, self._wanted = self._wanted, []
        return [(array, selection) for array, selection in wanted if selection != Selection.whole(array.shape)]

    def fill(self, reads: Sequence[tuple[RemoteArray, Selection]], boxes: Sequence[Array]) -> None:
        self._came = [(array, selection, box) for (array, selection), box in zip(reads, boxes, strict=True)]


def _list_members(group: Group, pattern: str, drop: frozenset[str]) -> list[_Member]:
    session, root, under = group._session, group.root, group.path
    depth = 0 if "**" in pattern else pattern.count("/") + 2
    listed = list(session.service.entries(root, CatalogQuery(under=under, depth=depth, limit=MAX_PAGE)))
    skip = len(under) + 1 if under else 0
    tops = [e for e in listed if e.path != under and matches(e.path[skip:], pattern)]
    where = whole_address(root, under)
    if not tops:
        raise DatasetNotFoundError(f"nothing in {where} matches {pattern!r}")
    found = {top.path: top for top in tops if top.kind == "group"}
    if not found:
        raise UnsupportedDatasetError(
            f"{pattern!r} matches {len(tops)} datasets in {where} and no file or directory with dimensions: "
            "open them with open_dataset(), or give the directory's pattern"
        )
    below: dict[str, list[Entry]] = {path: [] for path in found}
    for entry in listed:
        above = entry.path.rpartition("/")[0]
        if above in below:
            below[above].append(entry)
    members: list[_Member] = []
    for path, top in found.items():
        entries = [session.complete(root, e) if e.kind == "array" else e for e in below[path] if e.kind != "group"]
        tree = build_tree(session.complete(root, top), entries)
        DimensionCounter().count(tree)
        opened = Opened(session, root, tree, (), "", f"{group.address.rstrip('/')}/{path[skip:]}")
        first = _NoReads() if members else _PlannedReads()
        undecoded = prepare(opened, [tree], drop, first)
        _describe_bounds(undecoded.variables)
        of_variables = {name: array_of(variable) for name, variable in undecoded.variables.items()}
        arrays = {name: array for name, array in of_variables.items() if array is not None}
        if arrays:
            members.append(_Member(path[skip:], undecoded, arrays, opened, first))
    if not members:
        raise UnsupportedDatasetError(f"what matches {pattern!r} in {where} has no arrays that can be read")
    warn_of_skipped(members[0].opened)
    return members


def _describe_bounds(variables: Mapping[str, xr.Variable]) -> None:
    """Bounds of times count as the times do, and need not say so."""
    for variable in variables.values():
        bounds = variables.get(str(variable.attrs.get("bounds")))
        if bounds is not None and " since " in str(variable.attrs.get("units")):
            for key in ("units", "calendar"):
                if key in variable.attrs:
                    bounds.attrs.setdefault(key, variable.attrs[key])


class _Cube:
    """Joins members along a dimension; ``notes`` collects what differs."""

    def __init__(self, members: list[_Member], dim: str, decoding: Decoding, is_strict: bool) -> None:
        self._members, self._dim, self._is_strict = members, dim, is_strict
        self._decoding = decoding
        self._first = 0
        """Number of the member that was listed first, whose metadata stand for all."""
        self._notes: list[str] = []
        self._is_new = not any(dim in v.dims for m in members for v in m.variables.values())

    def _template(self, values: Mapping[tuple[int, str], Array]) -> xr.Dataset:
        """The first file, decoded: which are coordinates, attributes, encodings. Nothing more is read for it."""
        own = self._members[self._first].undecoded
        variables = dict(own.variables)
        for name, variable in own.variables.items():
            held = values.get((self._first, name))
            if held is not None:
                variables[name] = xr.Variable(variable.dims, held, dict(variable.attrs), dict(variable.encoding))
            elif variable.dtype == object:
                variables[name] = _without_values(variable)
        decoded = Undecoded(variables, own.attrs, own.encoding).decode(self._decoding, frozenset())
        for name, variable in own.variables.items():
            if variable.dtype == object and (self._first, name) not in values:
                plain = decoded.variables[name]
                decoded[name] = (plain.dims, variable._data, plain.attrs, plain.encoding)
        return decoded

    def join(self) -> xr.Dataset:
        dim = self._dim
        values = self._read_indexes()
        self._sort(values)
        names = list(dict.fromkeys(name for m in self._members for name in m.variables))
        template = self._template(values)
        self._compare_attributes("the file", [m.undecoded.attrs for m in self._members])
        joined: dict[str, xr.Variable] = {}
        coords = set(template.coords)
        for name in names:
            joined[name] = self._joined(name, template, values)
            has_coordinate = any(name in str(m.variables[n].attrs.get("coordinates", "")).split()
                                 for m in self._members[1:2] for n in m.variables)  # fmt: skip
            if name == dim or joined[name].dims == (name,) or has_coordinate:
                coords.add(name)
        self._check_order(joined.get(dim))
        if self._notes:
            count = len(self._members)
            warnings.warn(f"{count} files joined along {dim!r} differ: " + "; ".join(self._notes), stacklevel=5)
        data = {name: v for name, v in joined.items() if name not in coords}
        dataset = xr.Dataset(data, {name: v for name, v in joined.items() if name in coords}, template.attrs)
        dataset.encoding = {"unlimited_dims": {dim}, "source": self._members[self._first].opened.source}
        return dataset

    # What is read at once

    def _read_indexes(self) -> dict[tuple[int, str], Array]:
        """Values of all index coordinates, and of what is small and may differ where it should not."""
        wanted: list[tuple[int, str, RemoteArray]] = []
        small: list[tuple[int, str, RemoteArray]] = []
        for number, member in enumerate(self._members):
            for name, variable in member.variables.items():
                array = member.arrays.get(name)
                if array is None or variable.shape != array.shape or variable.dtype.hasobject:
                    continue
                if variable.dims == (name,) or (name == self._dim and self._is_new and not variable.dims):
                    wanted.append((number, name, array))
                elif self._dim not in variable.dims and not self._is_new and array.nbytes <= SMALL_NBYTES:
                    small.append((number, name, array))
        if len(wanted) + len(small) <= MAX_COMPARED:
            wanted += small
        first = self._members[0].first
        planned = first.planned() if isinstance(first, _PlannedReads) else []
        reads = [*planned, *((a, Selection.whole(a.shape)) for _, _, a in wanted)]
        session = self._members[0].opened.session
        boxes = session.reader.read_many([(a.root, a.entry, selection) for a, selection in reads])
        if isinstance(first, _PlannedReads):
            first.fill(planned, boxes[: len(planned)])
        boxes = boxes[len(planned) :]
        return {(number, name): box for (number, name, _), box in zip(wanted, boxes, strict=True)}

    def _sort(self, values: dict[tuple[int, str], Array]) -> None:
        """Bring the files in the order of the coordinate that they are joined along, where each has it."""
        keys: list[Any] = []
        for number, member in enumerate(self._members):
            raw = values.get((number, self._dim))
            if raw is None or not raw.size:
                return
            keys.append(np.ravel(self._decode(self._dim, member.variables[self._dim], np.atleast_1d(raw)[:1]))[0])
        try:
            order = sorted(range(len(keys)), key=lambda number: keys[number])
        except TypeError:
            return  # calendars differ, which is told when they are compared
        places = {old: new for new, old in enumerate(order)}
        self._members = [self._members[old] for old in order]
        self._first = places[self._first]
        moved = {(places[number], name): box for (number, name), box in values.items()}
        values.clear()
        values.update(moved)

    def _decode(self, name: str, variable: xr.Variable, values: Array) -> Array:
        dims = variable.dims if variable.dims else ("_",) * values.ndim
        decoded = decode_cf_variable(
            name, xr.Variable(dims, values, dict(variable.attrs)), **_cf_options(self._decoding)
        )
        return np.asarray(decoded.values)

    # Variables

    def _joined(self, name: str, template: xr.Dataset, values: Mapping[tuple[int, str], Array]) -> xr.Variable:
        owners = [(n, m.variables[name]) for n, m in enumerate(self._members) if name in m.variables]
        first = owners[0][1]
        self._check_dims(name, owners)
        is_joined = self._dim in first.dims or (self._is_new and (name == self._dim or first.dims != (name,)))
        plain = template.variables[name] if name in template.variables else self._plain(name, first)
        if not is_joined:
            return self._shared(name, owners, plain, values)
        if len(owners) < len(self._members):
            missing = [m.name for m in self._members if name not in m.variables]
            self._notes.append(f"{name!r} is not in {_some(missing)} and is filled there")
        self._compare(name, [v for _, v in owners])
        if all((n, name) in values for n in range(len(self._members))) and first.ndim <= 1:
            parts = [self._decode(name, v, np.atleast_1d(values[n, name])) for n, v in owners]
            whole = np.concatenate(parts)
            return xr.Variable((self._dim,), whole, plain.attrs, _no_chunks(plain.encoding))
        return self._lazy(name, plain)

    def _plain(self, name: str, variable: xr.Variable) -> xr.Variable:
        is_object = variable.dtype == object
        copy = xr.Variable(variable.dims, variable._data, dict(variable.attrs), dict(variable.encoding))
        copy = _without_values(variable) if is_object else copy
        decoded: xr.Variable = decode_cf_variable(name, copy, **_cf_options(self._decoding))
        return xr.Variable(decoded.dims, variable._data, decoded.attrs, decoded.encoding) if is_object else decoded

    def _check_dims(self, name: str, owners: list[tuple[int, xr.Variable]]) -> None:
        first = owners[0][1]
        for number, variable in owners:
            here, there = self._members[owners[0][0]].name, self._members[number].name
            if variable.dims != first.dims:
                raise ValueError(f"{name!r} has dimensions {first.dims} in {here!r} and {variable.dims} in {there!r}: "
                                 "open those files apart, or leave it out with drop_variables")  # fmt: skip
            for dim, one, other in zip(first.dims, first.shape, variable.shape, strict=True):
                if dim != self._dim and one != other:
                    raise ValueError(f"{dim!r} of {name!r} has {one} items in {here!r} and {other} in {there!r}: open "
                                     "those files apart, or leave it out with drop_variables")  # fmt: skip

    def _shared(
        self,
        name: str,
        owners: list[tuple[int, xr.Variable]],
        plain: xr.Variable,
        values: Mapping[tuple[int, str], Array],
    ) -> xr.Variable:
        """What is the same in all files: that of the first one."""
        taken = self._first if any(number == self._first for number, _ in owners) else owners[0][0]
        base = values.get((taken, name))
        if base is None:
            return plain
        for number, _ in owners:
            other = values.get((number, name))
            if other is None or _same(base, other):
                continue
            here, there = self._members[taken].name, self._members[number].name
            differ = f"{name!r} has other values in {there!r} than in {here!r}"
            if plain.dims == (name,):
                raise ValueError(
                    f"{differ}: files joined along {self._dim!r} need the same ones; open those files apart"
                )
            self._notes.append(f"{differ}, whose are taken")
            break
        return plain

    def _compare(self, name: str, variables: list[xr.Variable]) -> None:
        """Say what differs in how a variable is stored and described."""
        dtypes = Counter(str(v.dtype) for v in variables)
        if len(dtypes) > 1:
            self._notes.append(f"{name!r} is stored as {', '.join(dtypes)} and given as the type that holds all")
        is_time = any(" since " in str(v.attrs.get("units")) for v in variables) and self._decoding.decode_times
        units = Counter(str(v.attrs.get("units", "none")) for v in variables)
        if is_time:
            calendars = {_calendar(v) for v in variables}
            if len(calendars) > 1:
                listed = ", ".join(sorted(calendars))
                raise ValueError(f"{name!r} has different calendars ({listed}), whose dates cannot be compared: "
                                 "open the files of each apart, or give decode_times=False")  # fmt: skip
            if len(units) > 1:
                self._notes.append(f"{name!r} counts in {len(units)} different units, each decoded by its own")
        elif len(units) > 1:
            text = f"{name!r} is in different units: " + ", ".join(f"{u!r} in {n} files" for u, n in units.items())
            if self._is_strict:
                raise ValueError(f"{text}; convert them, leave it out with drop_variables, or give differences='warn'")
            self._notes.append(text)
        packing = {tuple(repr(v.attrs.get(key)) for key in _DECODED) for v in variables}
        if len(packing) > 1:
            self._notes.append(f"{name!r} is packed in {len(packing)} ways, each decoded by its own")
        ignored = {"units", "calendar", *_DECODED}
        self._compare_attributes(
            repr(name), [{k: a for k, a in v.attrs.items() if k not in ignored} for v in variables]
        )

    def _compare_attributes(self, what: str, attrs: Sequence[Mapping[str, Any]]) -> None:
        names = dict.fromkeys(name for each in attrs for name in each)
        differ = [name for name in names if len({repr(each.get(name)) for each in attrs}) > 1]
        if differ:
            self._notes.append(f"{_some(differ)} of {what} as in the first file")

    def _lazy(self, name: str, plain: xr.Variable) -> xr.Variable:
        dim = self._dim
        owned = [m.variables.get(name) for m in self._members]
        base = next(v for v in owned if v is not None)
        options = _cf_options(self._decoding)
        dtypes = {decoded_dtype(name, v, options) for v in {_signature(v): v for v in owned if v is not None}.values()}
        if any(v is None for v in owned):
            dtypes = {with_missing(dtype) for dtype in dtypes}
        try:
            dtype = np.result_type(*dtypes) if len(dtypes) > 1 else dtypes.pop()
        except TypeError:
            raise ValueError(f"{name!r} has types that do not go together: {_some([str(d) for d in dtypes])}") from None
        axis = -1 if self._is_new else base.dims.index(dim)
        lengths = [1 if self._is_new else (v.shape[axis] if v is not None else self._length(m))
                   for v, m in zip(owned, self._members, strict=True)]  # fmt: skip
        parts = [Part(name, v, n, options) for v, n in zip(owned, lengths, strict=True)]
        inner = plain.shape if self._is_new else (*plain.shape[:axis], *plain.shape[axis + 1 :])
        joined = JoinedArray(parts, axis, inner, dtype)
        dims = (dim, *plain.dims) if self._is_new else plain.dims
        encoding = _no_chunks(plain.encoding)
        encoding["preferred_chunks"] = _preferred_chunks(owned, lengths, dims, plain, dim)
        return xr.Variable(dims, indexing.LazilyIndexedArray(joined), plain.attrs, encoding)

    def _length(self, member: _Member) -> int:
        for variable in member.variables.values():
            if self._dim in variable.dims:
                return int(variable.sizes[self._dim])
        return 0

    def _check_order(self, coordinate: xr.Variable | None) -> None:
        if coordinate is None or coordinate.ndim != 1 or coordinate.size < 2:
            return
        items = coordinate.values
        if not bool(np.all(items[:-1] < items[1:])) and not bool(np.all(items[:-1] > items[1:])):
            self._notes.append(f"{self._dim!r} of the files overlap, or are not in order")


def _cf_options(decoding: Decoding) -> dict[str, Any]:
    return {
        "mask_and_scale": decoding.mask_and_scale,
        "decode_times": decoding.decode_times,
        "concat_characters": decoding.concat_characters,
    }


def _without_values(variable: xr.Variable) -> xr.Variable:
    """The same with empty strings, which take no memory: xarray looks at the first of objects."""
    values = np.broadcast_to(np.array("", dtype=object), variable.shape)
    return xr.Variable(variable.dims, values, dict(variable.attrs), dict(variable.encoding))


def _signature(variable: xr.Variable) -> str:
    decoding = {k: repr(v) for k, v in variable.attrs.items() if k in (*_DECODED, "units", "calendar")}
    return f"{variable.dtype!r} {decoding}"


def _calendar(variable: xr.Variable) -> str:
    calendar = str(variable.attrs.get("calendar", "standard")).lower()
    return "standard" if calendar in _STANDARD else calendar


def _same(one: Array, other: Array) -> bool:
    if one.dtype.kind in "fc" and other.dtype.kind in "fc":
        return bool(np.array_equal(one, other, equal_nan=True))
    return bool(np.array_equal(one, other))


def _some(names: Sequence[str], shown: int = 4) -> str:
    listed = ", ".join(map(repr, names[:shown]))
    return f"{listed} and {len(names) - shown} more" if len(names) > shown else listed


def _no_chunks(encoding: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in encoding.items() if k not in ("chunksizes", "preferred_chunks", "original_shape")}


def _preferred_chunks(
    owned: Sequence[xr.Variable | None], lengths: Sequence[int], dims: Sequence[Any], plain: xr.Variable, dim: str
) -> dict[Any, Any]:
    """The files' own chunks: along the joined dimension those of each file, one after the other."""
    stored = dict(plain.encoding.get("preferred_chunks") or {})
    chunks: dict[Any, Any] = {d: stored.get(d, n) for d, n in zip(plain.dims, plain.shape, strict=True) if d != dim}
    along: list[int] = []
    for variable, length in zip(owned, lengths, strict=True):
        preferred = (variable.encoding.get("preferred_chunks") or {}) if variable is not None else {}
        step = max(1, int(preferred.get(dim, length) or 1))
        along += [min(step, length - start) for start in range(0, length, step)]
    chunks[dim] = tuple(along) if len(set(along[:-1])) > 1 or (along and along[-1] > along[0]) else max([*along[:1], 1])
    return {d: chunks[d] for d in dims}
