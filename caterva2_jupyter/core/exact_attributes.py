"""Attributes of a ``.b2nd`` that keep their dtypes: how they are put in the file's metalayers, and found again.

Blosc2 holds 16 metalayers of names under 32 bytes, and plain values. So all attributes stand in one, ``_caterva2``, in
the exact forms of ``attributes``; as many as fit stand beside it as plain values, for every other reader. Where
somebody has changed a plain one since, that counts. It opens no file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import IntegrityError
from .attributes import decode_attr, encode_attr

__all__ = ["EXACT_KEY", "exact_attrs", "plain_value", "to_metalayers"]

EXACT_KEY = "_caterva2"
MAX_METALAYERS = 16
MAX_NAME_NBYTES = 31
MAX_PLAIN_NBYTES = 4096


def to_metalayers(attrs: Mapping[str, object], room: int = MAX_METALAYERS) -> dict[str, Any]:
    """Metalayers that hold attributes.

    Parameters
    ----------
    attrs : mapping
    room : int
        Metalayers that there may be.

    Raises
    ------
    TypeError
        For an attribute that has no form.

    Examples
    --------
    >>> list(to_metalayers({"units": "K", "scale": np.float32(0.5)}))
    ['_caterva2', 'units', 'scale']
    """
    if not attrs:
        return {}
    forms = {name: encode_attr(value) for name, value in attrs.items()}
    layers: dict[str, Any] = {}
    for name, value in attrs.items():
        plain = plain_value(value)
        is_plain = isinstance(plain, (str, bool, float, list)) or (type(plain) is int and abs(plain) < 2**63)
        fits = len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_NBYTES and len(repr(plain)) <= MAX_PLAIN_NBYTES
        if is_plain and fits and _is_utf8(name, plain) and len(layers) < room - 1 and name != EXACT_KEY:
            layers[name] = plain
    only_here = [name for name in forms if name not in layers]
    text = json.dumps({"attrs": forms, "only_here": only_here}, separators=(",", ":"))
    return {EXACT_KEY: text, **layers}


def _is_utf8(name: str, plain: object) -> bool:
    """Can a metalayer hold it? Bytes of another character set are escaped, which no other reader knows."""
    try:
        name.encode("utf-8")
        json.dumps(plain, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def exact_attrs(values: Mapping[str, object]) -> dict[str, Any]:
    """Forms of the attributes that the metalayer of exact ones still holds true; empty where there is none.

    Parameters
    ----------
    values : mapping
        Values of all metalayers.

    Examples
    --------
    >>> layers = to_metalayers({"units": "K", "scale": np.float32(0.5)})
    >>> exact_attrs(layers)["scale"]["d"], sorted(exact_attrs(layers | {"units": "degC"}))
    ('<f4', ['scale'])
    """
    text = values.get(EXACT_KEY)
    if not isinstance(text, str):
        return {}
    try:
        told = json.loads(text)
        forms, only_here = dict(told["attrs"]), set(told.get("only_here", ()))
        found: dict[str, Any] = {}
        for name, form in forms.items():
            exact = decode_attr(form)
            if name in only_here or (name in values and repr(plain_value(exact)) == repr(values[name])):
                found[name] = form
    except (ValueError, TypeError, KeyError, RecursionError, IntegrityError):
        return {}
    return found


def plain_value(value: object) -> object:
    """A value as any reader of Blosc2 files knows it: NumPy's dtypes are gone.

    Examples
    --------
    >>> plain_value(np.array([1, 2], "i2")), plain_value((1.5, "a")), plain_value(np.longdouble(0.25))
    ([1, 2], [1.5, 'a'], 0.25)
    """
    if isinstance(value, np.ndarray):
        return plain_value(value.tolist())
    if isinstance(value, np.longdouble):  # of which ``item`` is one again
        return float(value)
    if isinstance(value, np.clongdouble):
        return complex(value)
    if isinstance(value, np.generic):
        return plain_value(value.item())
    if isinstance(value, (list, tuple)):
        items = [plain_value(item) for item in value]
        return items if all(isinstance(item, (str, bool, int, float, list)) for item in items) else None
    return value
