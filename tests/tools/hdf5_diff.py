"""How two HDF5 files differ: links, types, shapes, limits, chunks, filters, fill values, scales, attributes, values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (filters of what is compared)
import numpy as np
from h5py import h5a, h5o


def differences(a: Path, b: Path, *, filters: bool = True) -> list[str]:
    """One line for each."""
    with h5py.File(a, locking=False) as one, h5py.File(b, locking=False) as other:
        return list(_differences(one, other, filters))


def _differences(one: h5py.File, other: h5py.File, filters: bool) -> Iterator[str]:
    links, other_links = _links(one), _links(other)
    for path in sorted(links.keys() | other_links.keys()):
        if links.get(path) != other_links.get(path):
            yield f"{path}: {links.get(path)} is {other_links.get(path)}"
    for path in (p for p in links if links[p][0] == "object" and other_links.get(p) == links[p]):
        x, y = one[path], other[path]
        if isinstance(x, h5py.Datatype):
            if not x.id.equal(y.id):
                yield f"{path}: another type"
            continue
        yield from _attributes(path, x, y)
        if isinstance(x, h5py.Dataset):
            yield from _datasets(path, x, y, filters)


def _links(file: h5py.File) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {"/": ("object", "File")}
    seen = {h5o.get_info(file["/"].id).addr: "/"}
    pending = [(file["/"], "")]
    while pending:
        group, at = pending.pop()
        for name in sorted(group):
            link, path = group.get(name, getlink=True), f"{at}/{name}"
            if isinstance(link, h5py.SoftLink):
                found[path] = ("soft", link.path)
            elif isinstance(link, h5py.ExternalLink):
                found[path] = ("external", link.filename, link.path)
            else:
                item = group[name]
                where = seen.setdefault(h5o.get_info(item.id).addr, path)
                found[path] = ("object", type(item).__name__) if where == path else ("hard", where)
                if where == path and isinstance(item, h5py.Group):
                    pending.append((item, path))
    return found


def _attributes(path: str, x: Any, y: Any) -> Iterator[str]:
    if set(x.attrs) != set(y.attrs):
        yield f"{path}: attributes {sorted(set(x.attrs) ^ set(y.attrs))}"
    for name in sorted(set(x.attrs) & set(y.attrs) - {"REFERENCE_LIST"}):
        types = [h5a.open(item.id, name.encode("utf-8", "surrogateescape")).get_type() for item in (x, y)]
        if not types[0].equal(types[1]):
            yield f"{path}: type of attribute {name}"
        if _canonical(x.attrs[name], x.file) != _canonical(y.attrs[name], y.file):
            yield f"{path}: attribute {name}: {x.attrs[name]!r} is {y.attrs[name]!r}"


def _datasets(path: str, x: h5py.Dataset, y: h5py.Dataset, filters: bool) -> Iterator[str]:
    if not x.id.get_type().equal(y.id.get_type()):
        yield f"{path}: dtype {x.dtype} is {y.dtype}"
    if (x.shape, x.maxshape) != (y.shape, y.maxshape):
        yield f"{path}: shape {x.shape} {x.maxshape} is {y.shape} {y.maxshape}"
        return
    if x.shape is None:
        return
    if x.chunks != y.chunks:
        yield f"{path}: chunks {x.chunks} are {y.chunks}"
    if x.dtype.kind != "O" and np.asarray(x.fillvalue).tobytes() != np.asarray(y.fillvalue).tobytes():
        yield f"{path}: fill value {x.fillvalue} is {y.fillvalue}"
    if filters and x._filters != y._filters:
        yield f"{path}: filters {x._filters} are {y._filters}"
    if _canonical(x[()], x.file) != _canonical(y[()], y.file):
        yield f"{path}: values"
    for axis, (here, there) in enumerate(zip(x.dims, y.dims, strict=True)):
        if [s.name for s in here.values()] != [s.name for s in there.values()] or here.label != there.label:
            yield f"{path}: scales of axis {axis}"


def _canonical(value: Any, file: h5py.File) -> Any:
    if isinstance(value, h5py.Empty):
        return ("empty", str(value.dtype))
    if isinstance(value, h5py.h5r.Reference):
        region = str(file[value][value]) if value and isinstance(value, h5py.h5r.RegionReference) else ""
        return ("reference", file[value].name if value else None, region)
    if isinstance(value, (np.ndarray, np.void)) and value.dtype.names:
        return [_canonical(value[name], file) for name in value.dtype.names]
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return [value.shape, *(_canonical(item, file) for item in value.ravel())]
    if isinstance(value, (np.ndarray, np.generic)):
        return (value.dtype.str, value.shape, value.tobytes())
    return value
