"""Variables of xarray as Blosc2 holds them: encoded by CF's rules where their encoding asks for it, else as they are.

What it gives is still lazy. Dates without units, bools, complex and structured values, and fixed-width strings have a
dtype in Blosc2 and are left alone; strings of variable length become UTF-8 bytes of the longest one's width, with the
attribute ``_Encoding`` that every CF reader knows. It writes nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.coding.strings import CharacterArrayCoder
from xarray.conventions import encode_cf_variable

__all__ = ["STORAGE_KEYS", "check_encoding_keys", "encode_variable"]

STORAGE_KEYS = ("chunks", "blocks", "cparams")
_CF_KEYS = ("dtype", "_FillValue", "missing_value", "scale_factor", "add_offset", "units", "calendar", "_Unsigned",
            "coordinates", "grid_mapping", "char_dim_name", "least_significant_digit")  # fmt: skip
# Of other formats, as what was opened from them has it: harmless, and not for us.
_FOREIGN_KEYS = ("source", "original_shape", "chunksizes", "preferred_chunks", "zlib", "complevel", "shuffle",
                 "fletcher32", "contiguous", "compression", "compression_opts", "szip", "zstd", "bzip2", "blosc",
                 "compressors", "filters", "serializer", "shards", "endian", "quantize_mode",
                 "significant_digits", "object_codec", "compressor", "unlimited_dims")  # fmt: skip
_DATES = (datetime.date, datetime.timedelta)


def check_encoding_keys(name: str, encoding: Mapping[str, Any]) -> None:
    """Refuse what a user asks for that means nothing.

    Raises
    ------
    ValueError
    """
    known = {*STORAGE_KEYS, *_CF_KEYS, *_FOREIGN_KEYS}
    unknown = sorted(set(encoding) - known)
    if unknown:
        choices = ", ".join((*STORAGE_KEYS, *_CF_KEYS))
        raise ValueError(f"encoding of variable {name!r} has {unknown[0]!r}, which means nothing here: {choices}")


def encode_variable(name: str, variable: xr.Variable, asked: Mapping[str, Any]) -> xr.Variable:
    """The variable to be written, lazy where it was.

    Parameters
    ----------
    name : str
        For messages.
    variable : xarray.Variable
    asked : mapping
        What the user wants of its encoding: it is added to the variable's own.

    Raises
    ------
    TypeError
        For objects that are no strings or dates.
    ValueError
        When the encoding cannot be done, or an attribute is in the way.
    """
    encoding = {k: v for k, v in {**variable.encoding, **asked}.items() if k in (*_CF_KEYS, "_Encoding")}
    plain = xr.Variable(variable.dims, variable._data, dict(variable.attrs), encoding)
    kind = variable.dtype.kind
    if kind in "OT" and not _holds_dates(variable):
        return _encode_strings(name, plain)
    if kind == "S" and (variable.dtype.itemsize == 1 or "char_dim_name" in encoding) and variable.dtype != object:
        coder: Any = CharacterArrayCoder()
        characters: xr.Variable = coder.encode(_without_fill(plain), name=name)
        return characters
    if _is_native(variable.dtype, encoding):
        return _native(plain)
    # Without this, floats would get a fill value that nobody asked for.
    plain.encoding = {"_FillValue": None} | encoding
    try:
        return encode_cf_variable(plain, name=name)
    except NotImplementedError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _is_native(dtype: np.dtype[Any], encoding: Mapping[str, Any]) -> bool:
    if dtype.kind in "mM":
        return not encoding.get("units") and encoding.get("dtype") is None
    if dtype.kind == "b":
        return np.dtype(encoding.get("dtype") or bool) == np.dtype(bool)
    return dtype.kind in "cVUS"


def _native(variable: xr.Variable) -> xr.Variable:
    """Values as they are; what the encoding says beside them goes to the attributes as CF's way would put it."""
    attrs = dict(variable.attrs)
    for key in ("_FillValue", "missing_value", "coordinates", "grid_mapping"):
        value = variable.encoding.get(key)
        if value is not None and not (variable.dtype.kind in "mM" and key in ("_FillValue", "missing_value")):
            attrs.setdefault(key, value)
    return xr.Variable(variable.dims, variable._data, attrs)


def _without_fill(variable: xr.Variable) -> xr.Variable:
    out = _native(variable)
    out.encoding = {k: v for k, v in variable.encoding.items() if k == "char_dim_name"}
    return out


def _first(variable: xr.Variable) -> object:
    """An item, to see what objects are; None where there are none."""
    if not variable.size:
        return None
    return variable[(0,) * variable.ndim].values[()]


def _holds_dates(variable: xr.Variable) -> bool:
    if variable.dtype.kind != "O":
        return False
    item = _first(variable)
    return isinstance(item, _DATES) or type(item).__module__.partition(".")[0] == "cftime"


def _encode_strings(name: str, variable: xr.Variable) -> xr.Variable:
    wanted = variable.encoding.get("dtype")
    width = _asked_width(wanted)
    if width is None:
        width = int(_apply(variable, name, lambda block: np.array(_width(name, block))).max().values)
    dtype = np.dtype(f"S{max(width, 2)}")  # one byte wide, they would be taken for characters of one string
    is_bytes = isinstance(_first(variable), bytes)
    encoded = _apply(variable, name, lambda block: _encoded(name, block, dtype), dtype)
    attrs = dict(variable.attrs)
    if not is_bytes:
        attrs["_Encoding"] = "utf-8"
    for key in ("coordinates", "grid_mapping"):
        if variable.encoding.get(key) is not None:
            attrs.setdefault(key, variable.encoding[key])
    return xr.Variable(variable.dims, encoded._data, attrs)


def _asked_width(wanted: Any) -> int | None:
    """Bytes of a string, when the user says (``S20``, or ``U20``: characters of four bytes at most)."""
    if wanted is None or wanted in (str, bytes, object):
        return None
    dtype = np.dtype(wanted)
    # S1 is how netCDF has characters, not a width.
    return dtype.itemsize if dtype.kind in "SU" and dtype.itemsize > 1 else None


def _apply(variable: xr.Variable, name: str, function: Any, dtype: Any = None) -> xr.Variable:
    """A function of the values, block by block of a dask array; without ``dtype`` it gives one number each."""
    data: Any = variable._data
    if hasattr(data, "dask"):
        if dtype is not None:
            mapped = data.map_blocks(function, dtype=dtype, meta=np.empty((0,) * data.ndim, dtype))
            return xr.Variable(variable.dims, mapped)
        import dask.array as da
        from dask.delayed import delayed

        array: Any = da
        numbers = [array.from_delayed(delayed(function)(b), (), "i8") for b in data.to_delayed().ravel()]
        return xr.Variable("block", array.stack(numbers) if numbers else np.zeros(1, "i8"))
    values = variable.values
    return xr.Variable(variable.dims if dtype is not None else (), function(values))


def _raw(name: str, item: object) -> bytes:
    if isinstance(item, str):
        return item.encode("utf-8")
    if isinstance(item, bytes):
        return item
    if item is None or (isinstance(item, float) and item != item):
        raise TypeError(f"variable {name!r} has missing values among its strings: fill them, ds[{name!r}].fillna('')")
    raise TypeError(
        f"variable {name!r} holds objects of type {type(item).__name__}, which no Blosc2 array can: make numbers or "
        f"strings of them, or leave it out with ds.drop_vars({name!r})"
    )


def _width(name: str, block: Any) -> int:
    return max((len(_raw(name, item)) for item in np.asarray(block, dtype=object).ravel().tolist()), default=0)


def _encoded(name: str, block: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    block = np.asarray(block, dtype=object)
    items = [_raw(name, item) for item in block.ravel().tolist()]
    for item in items:
        if len(item) > dtype.itemsize:
            raise ValueError(f"variable {name!r} has a string of {len(item)} bytes, encoding says {dtype.itemsize}")
        if item.endswith(b"\0"):
            raise ValueError(f"variable {name!r} has strings that end in NUL, which fixed-width ones cannot")
    if len({type(item) for item in block.ravel().tolist()}) > 1:
        raise TypeError(f"variable {name!r} holds both str and bytes: make them all of one type")
    out = np.empty(block.shape, dtype)
    out.ravel()[:] = items
    return out
