"""How dtypes travel: NumPy's own ``.npy`` descriptors as JSON, never evaluated text.

Object dtypes have no form, but for strings of variable length, whose tag is ``"vlen-utf8"``
(see ``codec``): in a geometry they appear as NumPy's object dtype with that metadata.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..errors import IntegrityError

__all__ = ["VLEN_UTF8", "dtype_from_json", "dtype_to_json", "is_vlen"]

VLEN_UTF8 = np.dtype(object, metadata={"caterva2": "vlen-utf8"})

# What ``dtype.str`` can be; NumPy itself takes much more for a dtype.
_PLAIN = re.compile(r"[<>|=]?(\?|[biufcmMSUV][0-9]{1,10})(\[[0-9]{0,10}[a-zA-Z]{1,7}\])?")
_MAX_DEPTH = 16
_MAX_FIELDS = 10_000


def is_vlen(dtype: np.dtype[Any]) -> bool:
    """Is it a string of variable length?"""
    return dtype.kind == "O" and dict(dtype.metadata or {}).get("caterva2") == "vlen-utf8"


def dtype_to_json(dtype: np.dtype[Any]) -> Any:
    """A dtype as JSON: a string, or a list of fields.

    >>> dtype_to_json(np.dtype(">i4")), dtype_to_json(np.dtype([("a", "<f8", (2,))]))
    ('>i4', [['a', '<f8', [2]]])
    """
    if is_vlen(dtype):
        return "vlen-utf8"
    if dtype.hasobject:
        raise TypeError(f"no JSON form for dtype {dtype}")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": dtype_to_json(base), "shape": list(shape)}
    if dtype.names is None:
        # Structured-void types print their str as |V<n>; everything plain round-trips by .str
        return dtype.str
    titles = [_title(dtype, n) for n in dtype.names]
    if _is_packed(dtype) and not any(titles):
        return [_field_to_json(dtype, n) for n in dtype.names]
    form = {
        "names": list(dtype.names),
        "formats": [dtype_to_json(dtype.fields[n][0]) for n in dtype.names],  # type: ignore[index]
        "offsets": [dtype.fields[n][1] for n in dtype.names],  # type: ignore[index]
        "itemsize": dtype.itemsize,
    }
    return {**form, "titles": titles} if any(titles) else form


def _title(dtype: np.dtype[Any], name: str) -> str | None:
    field: tuple[Any, ...] = dtype.fields[name]  # type: ignore[index]
    title = field[2] if len(field) > 2 else None
    if not isinstance(title, str | None):
        raise TypeError(f"no JSON form for the title {title!r} of field {name!r}")
    return title


def _is_packed(dtype: np.dtype[Any]) -> bool:
    offset = 0
    for name in dtype.names or ():
        field, at = dtype.fields[name][:2]  # type: ignore[index]
        if at != offset:
            return False
        offset += field.itemsize
    return offset == dtype.itemsize


def _field_to_json(dtype: np.dtype[Any], name: str) -> list[Any]:
    field = dtype.fields[name][0]  # type: ignore[index]
    if field.subdtype is not None:
        base, shape = field.subdtype
        return [name, dtype_to_json(base), list(shape)]
    return [name, dtype_to_json(field)]


def dtype_from_json(form: Any, _depth: int = 0) -> np.dtype[Any]:
    """The dtype that a JSON form stands for.

    Raises
    ------
    IntegrityError
        When it is not one (or is deeper or wider than any real one, or holds objects).
    """
    if _depth > _MAX_DEPTH:
        raise IntegrityError("dtype nested too deeply")
    try:
        if form == "vlen-utf8":
            return VLEN_UTF8
        if isinstance(form, str):
            if not _PLAIN.fullmatch(form):
                raise IntegrityError(f"not a dtype: {form[:40]!r}")
            dtype: np.dtype[Any] = np.dtype(form)
        elif isinstance(form, list) and len(form) <= _MAX_FIELDS:
            dtype = np.dtype(
                [
                    (str(f[0]), dtype_from_json(f[1], _depth + 1), *([tuple(map(int, f[2]))] if len(f) > 2 else []))
                    for f in form
                ]
            )
        elif isinstance(form, dict) and "base" in form:
            dtype = np.dtype((dtype_from_json(form["base"], _depth + 1), tuple(map(int, form["shape"]))))
        elif isinstance(form, dict):
            if len(form["names"]) > _MAX_FIELDS:
                raise IntegrityError("dtype with too many fields")
            fields: Any = {
                "names": [str(n) for n in form["names"]],
                "formats": [dtype_from_json(f, _depth + 1) for f in form["formats"]],
                "offsets": [int(o) for o in form["offsets"]],
                "itemsize": int(form["itemsize"]),
            }
            if "titles" in form:
                fields["titles"] = [None if t is None else str(t) for t in form["titles"]]
            dtype = np.dtype(fields)
        else:
            raise IntegrityError("not a dtype")
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, SyntaxError) as error:
        if isinstance(error, IntegrityError):
            raise
        raise IntegrityError(f"not a dtype: {str(form)[:80]!r}") from error
    if dtype.hasobject:
        raise IntegrityError("object dtypes do not travel")
    return dtype
