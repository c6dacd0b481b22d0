"""An HDF5 file made over again, object by object, with or without the values of its datasets.

Types, creation properties, attributes, dimension scales, references and links come out as they were, because
they are copied as the library has them and not as NumPy sees them. Links are never followed. Which datasets keep
their values is the caller's choice: ``cat2import`` keeps what no directory can hold, ``cat2export`` fills in the rest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5, h5a, h5d, h5ds, h5g, h5l, h5o, h5p, h5r, h5s, h5t

from ..storage.hdf5_edge import FOREIGN_ERRORS

__all__ = ["Plan", "StructureCopy", "file_settings", "is_stored_as", "write_values"]

_SMALL_NBYTES = 32 << 20
_BITSHUFFLE = 32008
_REMADE = (b"DIMENSION_LIST", b"REFERENCE_LIST")


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of one dataset.

    Attributes
    ----------
    is_kept : bool
        False: neither it nor its attributes.
    with_values : bool
    shape : tuple of int or None
        Another one than it has.
    chunks : tuple of int or None
        For one that has to be made chunked (virtual, with an unlimited axis).
    filters : callable or None
        Sets other filters: called with creation properties that have none.
    """

    is_kept: bool = True
    with_values: bool = True
    shape: tuple[int, ...] | None = None
    chunks: tuple[int, ...] | None = None
    filters: Callable[[Any], None] | None = None


def file_settings(source: Any) -> dict[str, Any]:
    """For ``h5py.File``: what a copy of a file is made with."""
    root = h5g.open(source.id, b"/").get_create_plist()
    settings: dict[str, Any] = {"libver": (_library_version(source), "latest")}
    if root.get_link_creation_order():
        settings["track_order"] = True
    return settings


def _library_version(source: Any) -> str:
    """The oldest format that has what a file may use: as old as that of the file itself."""
    version = source.id.get_create_plist().get_version()[0]
    return "earliest" if version < 2 else "v108" if version == 2 else "v110"


@dataclass(slots=True)
class StructureCopy:
    """Copies what one open file holds into another, empty one.

    Parameters
    ----------
    source, target : h5py.File
    plan_of : callable
        ``plan_of(path, dataset)`` of each dataset, by its first path of hard links (``/a/b``).
    note : callable
        Told ``(path, reason)`` of what is not as it was.
    """

    source: Any
    target: Any
    plan_of: Callable[[str, Any], Plan]
    note: Callable[[str, str], None]
    _paths: dict[int, str] = field(default_factory=dict)
    _types: dict[int, str] = field(default_factory=dict)
    _objects: list[tuple[str, Any, Any]] = field(default_factory=list)

    def run(self) -> None:
        """Objects first, then what may refer to them."""
        self._make_groups()
        for path, source, plan in self._objects:
            made = h5o.open(self.target.id, _bytes(path))
            self._copy_attributes(path, source, made)
            if plan is not None and plan.with_values:
                self._copy_values(path, source, made)
        for path, source, plan in self._objects:
            if plan is not None:
                self._attach_scales(path, source)

    # Objects

    def _make_groups(self) -> None:
        links: list[tuple[str, bytes, Any]] = []
        root = h5g.open(self.source.id, b"/")
        self._paths[h5o.get_info(root).addr] = "/"
        self._objects.append(("/", root, None))
        pending: list[tuple[Any, Any, str]] = [(root, h5g.open(self.target.id, b"/"), "/")]
        todo: list[tuple[Any, Any, bytes, str]] = []
        while pending:
            gid, made, at = pending.pop()
            fresh: dict[str, Any] = {}
            found = [(f"{at.rstrip('/')}/{_text(name)}", name, kind, order) for name, kind, order in _links(gid)]
            addresses: dict[str, int] = {}
            # By name, as ``hdf5_index`` does it: an object's first path has to be the same to both.
            for path, name, kind, _ in sorted(found, key=lambda item: item[1]):
                if kind == h5l.TYPE_HARD:
                    try:
                        oid = h5o.open(gid, name)
                        addresses[path] = addr = h5o.get_info(oid).addr
                    except FOREIGN_ERRORS as error:
                        self.note(path, f"it cannot be opened: {_reason(error)}")
                        continue
                    if addr not in self._paths:
                        self._paths[addr] = path
                        fresh[path] = oid
            below: dict[str, Any] = {}
            for path, name, kind, _ in sorted(found, key=lambda item: item[3]):
                if kind != h5l.TYPE_HARD:
                    links.append((path, name, gid))
                elif path in fresh:
                    oid = fresh[path]
                    if isinstance(oid, h5g.GroupID):
                        below[path] = h5g.create(made, name, gcpl=_group_properties(oid))
                        self._objects.append((path, oid, None))
                    elif isinstance(oid, h5t.TypeID):
                        self._types[addresses[path]] = path
                        with suppress(*FOREIGN_ERRORS):
                            oid.copy().commit(made, name)
                            self._objects.append((path, oid, None))
                    elif isinstance(oid, h5d.DatasetID):
                        todo.append((oid, made, name, path))
                elif path in addresses:
                    links.append((path, _bytes(self._paths[addresses[path]]), None))
            pending += [(fresh[path], below[path], path) for path in reversed(fresh) if path in below]
        for oid, made, name, path in todo:  # after the types that they may be of
            self._make_dataset(oid, made, name, path)
        for path, name, link_group in links:
            self._make_link(path, name, link_group)

    def _make_dataset(self, oid: Any, group: Any, name: bytes, path: str) -> None:
        plan = self.plan_of(path, oid)
        if not plan.is_kept:
            return
        space = oid.get_space()
        if plan.shape is not None:
            most = [n if n == h5s.UNLIMITED else max(n, m) for n, m in zip(oid.get_space().get_simple_extent_dims(True),
                                                                          plan.shape, strict=True)]  # fmt: skip
            space = h5s.create_simple(plan.shape, tuple(most))
        properties = self._properties(oid, plan, space)
        try:
            h5d.create(group, name, self._type(oid.get_type()), space, properties).close()
        except FOREIGN_ERRORS as error:
            self.note(path, f"its filters are left out: {_reason(error)}")
            properties.remove_filter(0)
            h5d.create(group, name, self._type(oid.get_type()), space, properties).close()
        self._objects.append((path, oid, plan))

    def _properties(self, oid: Any, plan: Plan, space: Any) -> Any:
        own = oid.get_create_plist()
        if own.get_layout() == h5d.VIRTUAL or own.get_external_count():
            properties = h5p.create(h5p.DATASET_CREATE)
            with suppress(*FOREIGN_ERRORS):
                if own.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
                    fill = np.zeros((), oid.get_type().dtype)
                    own.get_fill_value(fill)
                    properties.set_fill_value(fill)
            if plan.chunks and space.get_simple_extent_dims() != space.get_simple_extent_dims(True):
                properties.set_chunk(plan.chunks)
        else:
            properties = own.copy()
        _undo_set_local(properties)
        if plan.filters is not None and properties.get_layout() == h5d.CHUNKED:
            if properties.get_nfilters():
                properties.remove_filter(0)  # all of them
            plan.filters(properties)
        if not plan.with_values and properties.get_layout() in (h5d.CHUNKED, h5d.CONTIGUOUS):
            properties.set_alloc_time(h5d.ALLOC_TIME_LATE)
            if properties.get_layout() == h5d.CHUNKED:
                properties.set_alloc_time(h5d.ALLOC_TIME_INCR)
        return properties

    def _type(self, tid: Any) -> Any:
        """The type, or the copy of it that was committed under its name."""
        with suppress(*FOREIGN_ERRORS):
            if tid.committed():
                path = self._types.get(h5o.get_info(tid).addr)
                if path is not None:
                    return h5t.open(self.target.id, _bytes(path))
        return tid

    def _make_link(self, path: str, name: bytes, group: Any) -> None:
        """A soft or external link, or (without a group) one more name of the object at ``name``."""
        try:
            if group is None:
                if name in self.target:
                    self.target[path] = self.target[name]
                return
            told = group.links.get_val(name)
            if group.links.get_info(name).type == h5l.TYPE_SOFT:
                self.target[path] = h5py.SoftLink(told.decode("utf-8", "surrogateescape"))
            else:
                file, goal = (part.decode("utf-8", "surrogateescape") for part in told)
                self.target[path] = h5py.ExternalLink(file, goal)
        except FOREIGN_ERRORS as error:
            self.note(path, f"its link cannot be made: {_reason(error)}")

    # Values

    def _copy_attributes(self, path: str, source: Any, made: Any) -> None:
        names: list[bytes] = []
        try:
            names = _attribute_names(source)
        except FOREIGN_ERRORS as error:
            self.note(path, f"attributes cannot be read: {_reason(error)}")
        for name in names:
            if name in _REMADE:
                continue
            try:
                self._copy_attribute(h5a.open(source, name), made, name)
            except FOREIGN_ERRORS as error:
                text = name.decode("utf-8", "backslashreplace")
                self.note(path, f"attribute '{text}' is left out: {_reason(error)}")

    def _copy_attribute(self, attribute: Any, made: Any, name: bytes) -> None:
        tid, space = attribute.get_type(), attribute.get_space()
        if space.get_simple_extent_type() == h5s.NULL:
            h5a.create(made, name, self._type(tid), space)
            return
        has_objects = _has_objects(tid)
        values = np.empty(attribute.shape, tid.dtype if has_objects else f"V{tid.get_size()}")
        memory = None if has_objects else tid
        attribute.read(values, mtype=memory)
        if has_objects:
            values = self._refer(values)
        new = h5a.create(made, name, self._type(tid), space)
        if values.size:
            new.write(values, mtype=memory)

    def _copy_values(self, path: str, source: Any, made: Any) -> None:
        try:
            space = source.get_space()
            if space.get_simple_extent_type() == h5s.NULL or not math.prod(source.shape):
                return
            tid = source.get_type()
            for start, count in _runs(source.shape, tid.get_size()):
                selected, memory_space = source.get_space(), h5s.create_simple(count)
                if source.shape:
                    selected.select_hyperslab(start, count)
                else:
                    memory_space = h5s.create(h5s.SCALAR)
                if _has_objects(tid):
                    values = np.empty(count if source.shape else (), tid.dtype)
                    source.read(memory_space, selected, values)
                    made.write(memory_space, selected, self._refer(values))
                else:
                    values = np.empty(count if source.shape else (), f"V{tid.get_size()}")
                    source.read(memory_space, selected, values, mtype=tid)
                    made.write(memory_space, selected, values, mtype=tid)
        except FOREIGN_ERRORS as error:
            self.note(path, f"its values cannot be copied: {_reason(error)}")

    def _refer(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """References to objects of the source as those to their copies."""
        if values.dtype.names is not None:
            out = values.copy()
            for name in values.dtype.names:
                if values.dtype[name].hasobject:
                    out[name] = self._refer(values[name])
            return out
        if h5t.check_ref_dtype(values.dtype) is None and not isinstance(h5t.check_vlen_dtype(values.dtype), np.dtype):
            return values
        out = np.empty(values.shape, values.dtype)
        for i in np.ndindex(values.shape):
            item = values[i]
            if isinstance(item, h5py.h5r.Reference):
                out[i] = self._reference(item)
            elif isinstance(item, np.ndarray) and item.dtype.hasobject:
                out[i] = self._refer(item)
            else:
                out[i] = item
        return out

    def _reference(self, reference: Any) -> Any:
        kind = type(reference)
        if not reference:
            return kind()
        try:
            path = self._paths.get(h5o.get_info(h5r.dereference(reference, self.source.id)).addr)
        except FOREIGN_ERRORS:
            return kind()
        if path is None or path not in self.target:
            return kind()
        raw = _bytes(path)
        if isinstance(reference, h5r.RegionReference):
            return h5r.create(self.target.id, raw, h5r.DATASET_REGION, h5r.get_region(reference, self.source.id))
        return h5r.create(self.target.id, raw, h5r.OBJECT)

    def _attach_scales(self, path: str, source: Any) -> None:
        if not h5a.exists(source, b"DIMENSION_LIST"):
            return
        made = h5o.open(self.target.id, _bytes(path))
        axes = np.ravel(np.asarray(h5py.Dataset(source).attrs["DIMENSION_LIST"], dtype=object))
        for axis, references in enumerate(axes):
            for reference in np.ravel(references):
                try:
                    if not isinstance(reference, h5r.Reference) or not reference:
                        continue
                    found = self._paths.get(h5o.get_info(h5r.dereference(reference, source)).addr)
                    if found is None or found not in self.target:
                        self.note(path, f"axis {axis} has lost its dimension scale")
                        continue
                    h5ds.attach_scale(made, self.target[found].id, axis)
                except FOREIGN_ERRORS as error:
                    self.note(path, f"axis {axis} has lost its dimension scale: {_reason(error)}")


def write_values(dataset: Any, place: tuple[slice, ...], values: npt.NDArray[Any]) -> None:
    """Write a box of values: byte for byte where stored items are as NumPy has them, else converted.

    Parameters
    ----------
    dataset : h5py.Dataset
    place : tuple of slice
        Of each of the dataset's axes.
    values : ndarray
        With the axes of an array type after those of the dataset.
    """
    tid = dataset.id.get_type()
    if not is_stored_as(tid, values.dtype):
        dataset[place or ()] = values
        return
    shape = tuple(p.stop - p.start for p in place)
    if 0 in shape:
        return
    raw = np.frombuffer(np.ascontiguousarray(values).tobytes(), f"V{tid.get_size()}").reshape(shape)
    selected = dataset.id.get_space()
    memory = h5s.create(h5s.SCALAR)
    if shape:
        memory = h5s.create_simple(shape)
        selected.select_hyperslab(tuple(p.start for p in place), shape)
    dataset.id.write(memory, selected, raw, mtype=tid)


def is_stored_as(tid: Any, dtype: np.dtype[Any]) -> bool:
    """Are items of an HDF5 type, byte for byte, those of a dtype?"""
    try:
        own = tid.dtype
        base = own.subdtype[0] if own.subdtype is not None else own
        is_exact = tid.equal(h5t.py_create(own, logical=True)) or tid.get_class() == h5t.OPAQUE
        if tid.get_class() == h5t.STRING and not tid.is_variable_str():
            is_exact = tid.get_strpad() != h5t.STR_SPACEPAD  # of those that end in NUL, HDF5 would drop the last byte
        return bool(is_exact and not own.hasobject and base.itemsize == dtype.itemsize and _alike(base, dtype))
    except FOREIGN_ERRORS:
        return False


def _alike(a: np.dtype[Any], b: np.dtype[Any]) -> bool:
    if a.kind == "V" and a.names is None:
        return True  # opaque: whatever its bytes mean
    return a == b


def _has_objects(tid: Any) -> bool:
    return bool(tid.dtype.hasobject)


def _links(gid: Any) -> list[tuple[bytes, int, int]]:
    """Names and types of links, and their places in the order of creation where that is tracked."""
    found: list[tuple[bytes, int, int]] = []

    def note(name: bytes, info: Any) -> None:
        found.append((bytes(name), int(info.type), int(info.corder) if info.corder_valid else 0))

    with suppress(*FOREIGN_ERRORS):
        gid.links.iterate(note, info=True)
    return found


def _attribute_names(owner: Any) -> list[bytes]:
    """In their order of creation where that is tracked."""
    names: list[bytes] = []
    try:
        h5a.iterate(owner, lambda name: names.append(bytes(name)), index_type=h5.INDEX_CRT_ORDER)
    except FOREIGN_ERRORS:
        names = []
        h5a.iterate(owner, lambda name: names.append(bytes(name)))
    return names


def _group_properties(gid: Any) -> Any:
    """Which orders are tracked; no more, for the group's own properties tell where in its file its links are."""
    properties = h5p.create(h5p.GROUP_CREATE)
    with suppress(*FOREIGN_ERRORS):
        own = gid.get_create_plist()
        properties.set_link_creation_order(own.get_link_creation_order())
        properties.set_attr_creation_order(own.get_attr_creation_order())
    return properties


def _runs(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Start and count of boxes of bounded size: runs along each axis, the last ones whole first."""
    step, nbytes = [1] * len(shape), max(itemsize, 16)
    for axis in range(len(shape) - 1, -1, -1):
        step[axis] = max(1, min(shape[axis], _SMALL_NBYTES // nbytes))
        nbytes *= step[axis]
    for start in itertools.product(*(range(0, n, s) for n, s in zip(shape, step, strict=True))):
        yield start, tuple(min(s, n - a) for a, s, n in zip(start, step, shape, strict=True))


def _undo_set_local(properties: Any) -> None:
    """Options of bitshuffle as they were asked for: the filter puts three of its own before them at each creation."""
    found = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    if not any(number == _BITSHUFFLE for number, _, _, _ in found):
        return
    properties.remove_filter(0)
    for number, flags, options, _ in found:
        asked = options[3:] if number == _BITSHUFFLE else options
        properties.set_filter(number, flags & 1, tuple(asked))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
