"""Attributes of an HDF5 object as JSON forms, and what its dimension scales are, read with h5py.

It runs in the worker process only. What netCDF makes of them is ``compute.netcdf_attributes``'s business.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5ds, h5o, h5r, h5s, h5t

from ..core.attributes import INLINE_ATTRS_NBYTES, attrs_tag, encode_attr
from ..core.dtypes import dtype_to_json
from ..errors import UnsupportedDatasetError
from .hdf5_edge import FOREIGN_ERRORS, bytes_of, readable, reason_of

__all__ = ["read_attributes", "read_dimensions"]

MAX_ATTR_NBYTES = 4 << 20
MAX_ATTRS_NBYTES = 16 << 20

# Bookkeeping of dimension scales and netCDF4: told by dims and storage instead.
_HIDDEN = frozenset(
    {"DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict",
     "_NCProperties"}
)  # fmt: skip
_SCALE_ATTRS = frozenset({"CLASS", "NAME"})
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def read_attributes(owner: Any, everything: bool) -> dict[str, Any]:
    """Attributes as JSON forms; the rest is not read once they are over the limit of a listing."""
    limit = MAX_ATTRS_NBYTES if everything else INLINE_ATTRS_NBYTES
    names: list[bytes] = []
    try:
        h5a.iterate(owner.id, lambda name: names.append(bytes(name)))
    except FOREIGN_ERRORS as error:
        return {"attrs": {}, "attrs_tag": "", "skipped": {"*": f"attributes cannot be read: {reason_of(error)}"}}
    scale = isinstance(owner, h5py.Dataset) and bool(h5ds.is_scale(owner.id))
    forms: dict[str, Any] = {}
    exact: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    total = 0
    for i, raw in enumerate(names):
        name = readable(raw)
        if name in _HIDDEN or (scale and name in _SCALE_ATTRS):
            continue
        try:
            form, told = _attribute(owner, raw)
            size = len(name) + len(json.dumps(form)) + 8
            if told is not None:
                size += len(name) + len(json.dumps(told)) + 8
            if size > 2 * MAX_ATTR_NBYTES:
                raise UnsupportedDatasetError(f"it takes about {size} bytes")
        except (UnsupportedDatasetError, *FOREIGN_ERRORS) as error:
            skipped[name] = reason_of(error)
            total += len(name) + 100
        else:
            total += size
            if total <= limit:
                forms[name] = form
                if told is not None:
                    exact[name] = told
        if total > limit:
            if not everything:
                return {"attrs": {}, "attrs_inline": False, "attrs_tag": _attrs_state(owner, names)}
            skipped = dict(list(skipped.items())[:100])
            skipped["*"] = f"{len(names) - i} attributes are not shown: over {limit} bytes in all"
            break
    answer: dict[str, Any] = {"attrs": forms, "attrs_tag": attrs_tag(forms) if forms else ""}
    if skipped:
        answer["skipped"] = skipped
    if exact:
        answer["exact"] = exact
    return answer


def _attrs_state(owner: Any, names: list[bytes]) -> str:
    """A tag of attributes that are too many to be read for a listing: their names, types and raw values' sizes."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(b"\0".join(names))
    digest.update(repr(h5o.get_info(owner.id).mtime).encode())
    return digest.hexdigest()


def _attribute(owner: Any, raw: bytes) -> tuple[Any, dict[str, Any] | None]:
    """The form of an attribute, and what it is exactly where netCDF readers see another value than that text."""
    aid = h5a.open(owner.id, raw)
    tid = aid.get_type()
    nbytes = math.prod(aid.shape) * tid.get_size() if aid.shape is not None else 0
    if nbytes > MAX_ATTR_NBYTES:
        raise UnsupportedDatasetError(f"it takes {nbytes} bytes, over the limit of {MAX_ATTR_NBYTES}")
    dtype = tid.dtype
    if h5t.check_ref_dtype(dtype) is not None:
        raise UnsupportedDatasetError("a reference has no meaning outside of its file")
    if aid.get_space().get_simple_extent_type() == h5s.NULL:
        plain = np.dtype("S1") if dtype.hasobject else dtype
        return {"t": "empty", "d": dtype_to_json(plain)}, {"kind": "empty"} if dtype.hasobject else None
    value = owner.attrs[raw]
    return encode_attr(_plain_value(value)), _exact_text(value, h5t.check_string_dtype(dtype))


def _exact_text(value: Any, string: Any) -> dict[str, Any] | None:
    """The bytes of a text attribute and what they are, where that is not clear from the text.

    Single chars stay bytes for netCDF readers, arrays of strings of fixed length become flat lists, and bytes that
    are not of the character set are escaped. ``kind`` is ``char``, ``fixed``, ``vlen`` or ``empty`` (an empty dataspace
    of strings of variable length), ``v`` base64, in lists where it is an array.
    """
    if string is None:
        return None
    kind = "vlen" if string.length is None else "char" if string.length == 1 else "fixed"
    charset = "utf-8" if kind == "vlen" else str(string.encoding)
    items = [v if isinstance(v, bytes) else bytes_of(str(v)) for v in np.ravel(np.asarray(value, object)).tolist()]
    is_clear = all(_is_in(charset, item) for item in items)
    if kind != "char" and is_clear and (kind == "vlen" or np.ndim(value) < 2):
        return None
    texts = np.empty(len(items), object)
    texts[:] = [base64.b64encode(item).decode("ascii") for item in items]
    return {"kind": kind, "charset": charset, "v": texts.reshape(np.shape(value)).tolist()}


def _is_in(charset: str, raw: bytes) -> bool:
    try:
        raw.decode(charset)
    except UnicodeDecodeError:
        return False
    return True


def _plain_value(value: Any) -> Any:
    """What h5py gives, strings as text and other Python objects refused."""
    if isinstance(value, (bytes, np.bytes_)):
        return readable(bytes(value))
    if isinstance(value, str):
        return readable(bytes_of(value))
    if isinstance(value, np.ndarray) and (value.dtype.kind == "S" or value.dtype == object):
        items = value.ravel().tolist()
        if not all(isinstance(v, (bytes, str)) for v in items):
            raise UnsupportedDatasetError("an array of variable-length or reference items")
        texts = np.empty(len(items), object)
        texts[:] = [readable(v if isinstance(v, bytes) else bytes_of(v)) for v in items]
        return texts.reshape(value.shape)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.hasobject:
        raise UnsupportedDatasetError(f"its type {value.dtype} holds references or variable-length items")
    return value


def read_dimensions(dsid: Any, dataset: Any) -> dict[str, Any]:
    """Dimension scales: addresses of those attached, labels, and what makes it one itself."""
    found: dict[str, Any] = {}
    attrs = dataset.attrs
    if h5ds.is_scale(dsid):
        name = h5ds.get_scale_name(dsid)
        found["scale"] = readable(name)
        if bytes(name).startswith(_NO_VARIABLE):
            found["no_variable"] = True
    for key, field in (("_Netcdf4Dimid", "dimid"), ("_Netcdf4Coordinates", "coordinates")):
        if key in attrs:
            found[field] = [int(n) for n in np.ravel(attrs[key])]
    if "DIMENSION_LIST" in attrs:
        scales: list[list[int]] = []
        for references in np.ravel(np.asarray(attrs["DIMENSION_LIST"], dtype=object)):
            targets = [h5r.dereference(r, dsid) for r in np.ravel(references) if isinstance(r, h5py.Reference) and r]
            scales.append([h5o.get_info(t).addr for t in targets])
        found["scales"] = scales
    if "DIMENSION_LABELS" in attrs:
        labels = np.ravel(attrs["DIMENSION_LABELS"]).tolist()
        found["labels"] = [readable(v if isinstance(v, bytes) else bytes_of(str(v or ""))) for v in labels]
    return {"dimensions": found} if found else {}
