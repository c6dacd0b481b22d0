"""From catalog entries to undecoded xarray variables: lazy values, names of axes, attributes, encoding.

Encodings are those that xarray's h5netcdf backend gives for the same file, so that what is opened here can be
compared with, and written like, what was opened there. Decoding (CF) is xarray's own, in ``opening``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from xarray import Variable
from xarray.core import indexing

from ..client.remote_array import RemoteArray
from ..client.session import Session
from ..compute.netcdf_attributes import blosc2_attributes, netcdf_attributes
from ..compute.netcdf_dimensions import ListedGroup, name_dimensions
from ..core.attributes import decode_attr
from ..core.dtypes import is_vlen
from ..core.metadata import Entry
from .lazy_array import FirstReads, LazyArray

__all__ = ["MAX_FIRST_STRINGS", "is_hdf5", "make_variable"]

MAX_FIRST_STRINGS = 1 << 16
"""Strings of variable length that an array may have to be read when it is opened, as xarray does with all of them."""

_SHUFFLE, _FLETCHER32, _SCALEOFFSET, _NBIT = 2, 3, 6, 5
_GZIP, _SZIP, _LZF = 1, 4, 32000
# h5netcdf's own table of filters that netCDF4 has names for.
_NETCDF_FILTERS = {307: "bzip2", 32004: "blosc", 32015: "zstd"}


def is_hdf5(entry: Entry) -> bool:
    """Is it an object of an HDF5 file?"""
    return "hdf5" in entry.storage


def make_variable(
    session: Session,
    root: str,
    entry: Entry,
    name: str,
    groups: list[ListedGroup],
    source: str,
    first: FirstReads,
    *,
    decode_vlen_strings: bool = True,
) -> tuple[Variable, LazyArray]:
    """The variable that an array of a catalog is, and the lazy array in it.

    Parameters
    ----------
    session : Session
    root : str
    entry : Entry
        Of kind array, all attributes in it.
    name : str
        In HDF5, or without the suffix.
    groups : list of ListedGroup
        The array's group and those above it, dimensions counted.
    source : str
        Address of the file, for ``encoding["source"]``.
    first : FirstReads
    """
    assert entry.geometry is not None
    dims = name_dimensions(entry, name, groups)
    shape = _logical_shape(entry, dims, groups)
    array = RemoteArray(session, root, entry)
    dtype = value_dtype(entry, decode_vlen_strings)
    as_bytes = is_vlen(entry.geometry.dtype) and not decode_vlen_strings
    fill = _fill_value(entry) if shape != array.shape else 0
    lazy = LazyArray(array, shape, dtype, fill, as_bytes, first)
    attrs = netcdf_attributes(entry) if is_hdf5(entry) else blosc2_attributes(entry)
    encoding = _hdf5_encoding(entry, dims, dtype) if is_hdf5(entry) else _blosc2_encoding(entry, dims, dtype)
    encoding |= {"source": source, "original_shape": shape}
    return Variable(dims, indexing.LazilyIndexedArray(lazy), attrs, encoding), lazy


def _logical_shape(entry: Entry, dims: tuple[str, ...], groups: list[ListedGroup]) -> tuple[int, ...]:
    """Lengths of the dimensions: an array may be shorter along an unlimited one."""
    assert entry.geometry is not None
    shape = list(entry.geometry.shape)
    for axis, dim in enumerate(dims):
        known = next((g.dimensions[dim] for g in groups if dim in g.dimensions), None)
        if known is not None and known.is_unlimited:
            shape[axis] = max(shape[axis], known.size)
    return tuple(shape)


def value_dtype(entry: Entry, decode_vlen_strings: bool = True) -> np.dtype[Any]:
    """Dtype of an array's values, with what h5py tells by its metadata."""
    assert entry.geometry is not None
    dtype = entry.geometry.dtype
    if is_vlen(dtype):
        is_text = decode_vlen_strings or entry.storage.get("string", {}).get("charset") != "ascii"
        return np.dtype(object, metadata={"vlen": str if is_text else bytes})
    members = entry.storage.get("enum")
    if isinstance(members, Mapping) and dtype.kind in "iu":
        metadata: dict[str, Any] = {"enum": {str(k): int(v) for k, v in members.items()}}
        if "type_name" in entry.storage:
            metadata["enum_name"] = str(entry.storage["type_name"])
        return np.dtype(dtype, metadata=metadata)
    if dtype.kind == "S" and "string" in entry.storage:
        return np.dtype(dtype, metadata={"h5py_encoding": str(entry.storage["string"].get("charset"))})
    if dtype.names is not None and "type_name" in entry.storage:
        dtype = _strings_of_chars(dtype)
    if dtype.names is not None and not dtype.isnative:
        return dtype.newbyteorder("=")  # xarray cannot decode them
    return dtype


def _strings_of_chars(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """netCDF4's compounds hold arrays of chars where strings are meant."""
    assert dtype.names is not None
    fields: dict[str, Any] = {}
    for name in dtype.names:
        field, offset = dtype.fields[name][:2]  # type: ignore[index]
        is_chars = field.subdtype is not None and field.base == np.dtype("S1")
        fields[name] = (np.dtype(f"S{field.shape[0]}") if is_chars else field, offset)
    form: Any = {
        "names": list(fields),
        "formats": [field for field, _ in fields.values()],
        "offsets": [offset for _, offset in fields.values()],
        "itemsize": dtype.itemsize,
    }
    packed: np.dtype[Any] = np.dtype(form)
    return packed


def _fill_value(entry: Entry) -> Any:
    """What items read as that no one wrote."""
    assert entry.geometry is not None
    if is_vlen(entry.geometry.dtype):
        return ""
    if "fillvalue" in entry.storage:
        return decode_attr(entry.storage["fillvalue"])
    return np.zeros((), entry.geometry.dtype)[()]


def _blosc2_encoding(entry: Entry, dims: tuple[str, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    geometry = entry.geometry
    assert geometry is not None
    encoding: dict[str, Any] = {"dtype": str if is_vlen(geometry.dtype) else dtype}
    if geometry.ndim:
        encoding |= {"chunksizes": geometry.chunks}
        encoding |= {"preferred_chunks": dict(zip(dims, geometry.chunks, strict=True))}
    return encoding


def _hdf5_encoding(entry: Entry, dims: tuple[str, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    storage = entry.storage
    encoding: dict[str, Any] = {"dtype": _encoded_dtype(entry, dtype)}
    chunks = storage.get("chunks")
    if isinstance(chunks, list) and dims:
        encoding |= {"contiguous": False, "chunksizes": tuple(chunks)}
        encoding["preferred_chunks"] = dict(zip(dims, chunks, strict=True))
    else:
        encoding |= {"contiguous": True, "chunksizes": None}
    return encoding | _filters(storage.get("filters", ()))


def _encoded_dtype(entry: Entry, dtype: np.dtype[Any]) -> Any:
    assert entry.geometry is not None
    if is_vlen(entry.geometry.dtype):
        is_text = entry.storage.get("string", {}).get("charset") != "ascii"
        # ``str`` has xarray make a fixed-width array, for which it reads everything at once.
        if is_text and entry.geometry.size <= MAX_FIRST_STRINGS:
            return str
        return np.dtype(object, metadata={"vlen": str if is_text else bytes})
    return dtype if dtype.names is None else entry.geometry.dtype


def _filters(told: Any) -> dict[str, Any]:
    """A filter pipeline in netCDF4's words, or h5py's where netCDF4 has none."""
    pipeline: dict[int, Any] = {}
    for form in told if isinstance(told, list) else ():
        pipeline[int(form["id"])] = _options(int(form["id"]), list(form["options"]))
    encoding: dict[str, Any] = dict.fromkeys(("zlib", "szip", "bzip2", "blosc", "zstd"), False)
    encoding |= {"shuffle": _SHUFFLE in pipeline, "fletcher32": _FLETCHER32 in pipeline}
    if _GZIP in pipeline:
        encoding |= {"zlib": True, "complevel": pipeline[_GZIP]}
    for number, options in pipeline.items():
        name = "szip" if number == _SZIP else _NETCDF_FILTERS.get(number)
        if name is not None:
            encoding[name] = True
            if options:
                encoding["complevel"] = options[0]
    if _GZIP in pipeline:
        return encoding
    if _LZF in pipeline:
        return encoding | {"compression": "lzf", "compression_opts": None}
    if _SZIP in pipeline:
        return encoding | {"compression": "szip", "compression_opts": pipeline[_SZIP]}
    if set(pipeline) - {_SHUFFLE, _FLETCHER32, _SCALEOFFSET}:
        return encoding | {"compression": "unknown", "compression_opts": None}
    return encoding


def _options(number: int, options: list[int]) -> Any:
    if number == _GZIP:
        return options[0] if options else None
    if number == _LZF:
        return None
    if number == _SZIP:
        return ("nn" if options[0] & 32 else "ec", options[1]) if len(options) > 1 else None
    return tuple(options) or None
