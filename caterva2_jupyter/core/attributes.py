"""How attributes travel: a JSON form that keeps NumPy dtypes, bytes, tuples and non-finite floats.

Plain JSON values stand for themselves. Everything else is an object with a type tag ``"t"``:

==============  ======================================  =======================================
tag             fields                                  value
==============  ======================================  =======================================
``float``       ``v``: ``"nan"``, ``"inf"``, ``"-inf"``  a Python float
``bytes``       ``v``: base64                           bytes
``tuple``       ``v``: list                             tuple
``dict``        ``v``: list of [key, value]             dict (any dict whose keys are not plain)
``nd``          ``d``: dtype, ``s``: shape, ``v``: b64  ndarray, C order, in the dtype's byte order
``scalar``      ``d``: dtype, ``v``: b64                NumPy scalar
``strings``     ``s``: shape, ``v``: list of str        object array of str
``empty``       ``d``: dtype                            an HDF5 null dataspace (becomes ``None``)
==============  ======================================  =======================================

It does not read attributes from files, nor decide which are shown.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import IntegrityError
from .dtypes import dtype_from_json, dtype_to_json

__all__ = ["INLINE_ATTRS_NBYTES", "attrs_tag", "decode_attr", "decode_attrs", "encode_attr", "encode_attrs"]

MAX_DEPTH = 64
INLINE_ATTRS_NBYTES = 64 << 10
"""Attributes that take more are not listed with their dataset: they are asked for."""


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def encode_attr(value: object) -> Any:
    """The JSON form of one value.

    Raises
    ------
    TypeError
        For a value that has none (an object array of other things than str, an opaque object).

    Examples
    --------
    >>> encode_attr(1.5), encode_attr(b"ab")
    (1.5, {'t': 'bytes', 'v': 'YWI='})
    """
    return _encode(value, 0)


def _encode(value: object, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise TypeError(f"no JSON form for values nested over {MAX_DEPTH} deep")
    if value is None or isinstance(value, (str, bool)) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"t": "float", "v": repr(value)}
    if isinstance(value, bytes) and not isinstance(value, np.bytes_):
        return {"t": "bytes", "v": _b64(value)}
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            items = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value.ravel().tolist()]
            if not all(isinstance(v, str) for v in items):
                raise TypeError(f"no JSON form for an object array of {value.dtype}")
            return {"t": "strings", "s": list(value.shape), "v": items}
        raw = np.asarray(value, order="C").tobytes()
        return {"t": "nd", "d": dtype_to_json(value.dtype), "s": list(value.shape), "v": _b64(raw)}
    if isinstance(value, np.generic):
        return {"t": "scalar", "d": dtype_to_json(value.dtype), "v": _b64(value.tobytes())}
    if isinstance(value, tuple):
        return {"t": "tuple", "v": [_encode(v, depth + 1) for v in value]}
    if isinstance(value, list):
        return [_encode(v, depth + 1) for v in value]
    if isinstance(value, Mapping):
        if all(isinstance(k, str) for k in value) and "t" not in value:
            return {k: _encode(v, depth + 1) for k, v in value.items()}
        return {"t": "dict", "v": [[_encode(k, depth + 1), _encode(v, depth + 1)] for k, v in value.items()]}
    raise TypeError(f"no JSON form for {type(value).__name__}")


def decode_attr(form: Any) -> Any:
    """The value that a JSON form stands for.

    Raises
    ------
    IntegrityError
        When the form is not one of ours.
    """
    return _decode(form, 0)


def _decode(form: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise IntegrityError(f"attribute nested over {MAX_DEPTH} deep")
    if isinstance(form, list):
        return [_decode(v, depth + 1) for v in form]
    if not isinstance(form, dict):
        return form
    if "t" not in form:
        return {k: _decode(v, depth + 1) for k, v in form.items()}
    tag = form["t"]
    try:
        match tag:
            case "float":
                return float(form["v"])
            case "bytes":
                return base64.b64decode(form["v"], validate=True)
            case "tuple":
                return tuple(_decode(v, depth + 1) for v in form["v"])
            case "dict":
                return {_decode(k, depth + 1): _decode(v, depth + 1) for k, v in form["v"]}
            case "strings":
                out = np.empty(len(form["v"]), dtype=object)
                out[:] = [str(v) for v in form["v"]]
                return out.reshape(form["s"])
            case "nd":
                raw = base64.b64decode(form["v"], validate=True)
                return np.frombuffer(raw, dtype_from_json(form["d"])).reshape(form["s"]).copy()
            case "scalar":
                dtype = dtype_from_json(form["d"])
                if not dtype.itemsize:  # an empty string
                    return np.zeros((), dtype)[()]
                return np.frombuffer(base64.b64decode(form["v"], validate=True), dtype)[0]
            case "empty":
                return None
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise IntegrityError(f"malformed attribute of type {tag!r}") from error
    raise IntegrityError(f"unknown attribute type {tag!r}")


def encode_attrs(attrs: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, str]]:
    """JSON forms of a mapping of attributes, and why the others have none (name -> reason)."""
    forms: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for key, value in attrs.items():
        try:
            forms[str(key)] = encode_attr(value)
        except TypeError as error:
            skipped[str(key)] = str(error)
    return forms, skipped


def decode_attrs(forms: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that JSON forms stand for."""
    return {key: decode_attr(form) for key, form in forms.items()}


def attrs_tag(forms: Mapping[str, Any]) -> str:
    """A tag of the attributes' content: equal when, and only when, the attributes are."""
    text = json.dumps(forms, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
