"""Attributes as xarray has them of the same file when h5netcdf reads it: texts, lists and scalars with their dtypes.

Pure. What a catalog tells of an HDF5 attribute is for people: bytes as text, and why one is left out. Where the exact
value differs from that, the entry's ``storage["attrs_exact"]`` has it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.attributes import decode_attr
from ..core.dtypes import dtype_from_json
from ..core.metadata import Entry

__all__ = ["blosc2_attributes", "netcdf_attributes"]

_HIDDEN = frozenset(
    {"REFERENCE_LIST", "CLASS", "DIMENSION_LIST", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict",
     "_NCProperties"}
)  # fmt: skip
_DIMENSIONS = "_ARRAY_DIMENSIONS"
_KEPT_BYTES = ("_FillValue", "missing_value")


def netcdf_attributes(entry: Entry) -> dict[str, Any]:
    """Attributes of an object of an HDF5 file, all of them in the entry."""
    exact = entry.storage.get("attrs_exact", {})
    attrs: dict[str, Any] = {}
    for name, form in entry.attrs.items():
        if name in _HIDDEN:
            continue
        value = _exact(exact[name]) if name in exact else _from_form(form)
        if isinstance(value, bytes) and name not in _KEPT_BYTES:
            value = _text(value)
        attrs[name] = value
    labels = entry.storage.get("dimensions", {}).get("labels")
    if labels:
        attrs["DIMENSION_LABELS"] = list(labels) if len(labels) > 1 else labels[0]
    return attrs


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _exact(told: Mapping[str, Any]) -> Any:
    """The value of a text that is not just that text: see ``hdf5_attributes``."""
    kind, items = told.get("kind"), told.get("v")
    if kind == "empty":
        return np.array([], object)
    if isinstance(items, str):
        raw = np.bytes_(base64.b64decode(items))
        return raw if kind == "char" else raw.decode(str(told.get("charset")), "surrogateescape")
    found: Any = _nested(items, kind, str(told.get("charset", "ascii")))
    if kind == "fixed":
        found = _flat(found)
    return found[0] if len(found) == 1 else found


def _nested(items: Any, kind: Any, charset: str) -> Any:
    if isinstance(items, list):
        return [_nested(item, kind, charset) for item in items]
    raw = base64.b64decode(items)
    return raw if kind == "char" else raw.decode(charset, "surrogateescape")


def _flat(items: list[Any]) -> list[Any]:
    return [leaf for item in items for leaf in (_flat(item) if isinstance(item, list) else [item])]


def _from_form(form: Any) -> Any:
    if isinstance(form, dict) and form.get("t") == "empty":
        dtype = dtype_from_json(form["d"])
        return b"" if dtype == np.dtype("S1") else np.array([], dtype)
    value = decode_attr(form)
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.tolist()
    if isinstance(value, (np.ndarray, list)) and np.ndim(value) > 0 and len(value) == 1:
        return value[0]
    return value


def blosc2_attributes(entry: Entry) -> dict[str, Any]:
    """Attributes of a Blosc2 array: its vlmeta, without what names its axes."""
    return {name: decode_attr(form) for name, form in entry.attrs.items() if name not in (_DIMENSIONS, "dims")}
