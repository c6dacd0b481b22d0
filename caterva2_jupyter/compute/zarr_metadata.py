"""A dataset as Zarr v3 tells it: ``zarr.json`` of arrays and groups, and which of its items a chunk has.

Pure: catalog entries in, JSON out. Chunks of the view are whole blocks of the dataset, of one or two MiB where its
partition allows: a Zarr reader fetches whole chunks, and those that are stored may be far larger.

Format: Zarr core specification, version 3.0; data types that it does not have are named as zarr-python names them.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.attributes import decode_attr
from ..core.dtypes import is_vlen
from ..core.metadata import Entry, Geometry
from ..core.selection import AxisRange, Selection
from ..errors import UnsupportedDatasetError

__all__ = ["array_metadata", "chunk_selection", "chunk_shape", "group_metadata", "packed_dtype", "unique_names"]

CHUNK_NBYTES = 2 << 20
MAX_CHUNK_NBYTES = 64 << 20
_CORE = frozenset(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
     "complex64", "complex128")
)  # fmt: skip


def data_type(dtype: np.dtype[Any]) -> Any:
    """The name of a dtype in ``zarr.json``, with its configuration where it has one.

    Raises
    ------
    UnsupportedDatasetError
        When Zarr has none.

    Examples
    --------
    >>> data_type(np.dtype(">f4")), data_type(np.dtype("S3"))
    ('float32', {'name': 'null_terminated_bytes', 'configuration': {'length_bytes': 3}})
    """
    if is_vlen(dtype):
        return "string"
    if dtype.names is not None and all(dtype[name].subdtype is None for name in dtype.names):
        fields = [[name, data_type(dtype[name])] for name in dtype.names]
        return {"name": "structured", "configuration": {"fields": fields}}
    if dtype.kind in "mM":
        unit, factor = np.datetime_data(dtype)
        name = "numpy.datetime64" if dtype.kind == "M" else "numpy.timedelta64"
        return {"name": name, "configuration": {"unit": unit, "scale_factor": factor}}
    if dtype.names is None and dtype.itemsize and dtype.kind in _WITH_LENGTH:
        return {"name": _WITH_LENGTH[dtype.kind], "configuration": {"length_bytes": dtype.itemsize}}
    if dtype.name not in _CORE:
        raise UnsupportedDatasetError(f"Zarr has no data type for {dtype}")
    return dtype.name


_WITH_LENGTH: Mapping[str, str] = {"S": "null_terminated_bytes", "U": "fixed_length_utf32", "V": "raw_bytes"}


def packed_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of items as they are in a chunk: little endian, fields with nothing between them.

    Examples
    --------
    >>> packed_dtype(np.dtype({"names": ["a", "b"], "formats": ["i1", ">i4"], "offsets": [0, 4]}))
    dtype([('a', 'i1'), ('b', '<i4')])
    """
    if dtype.names is None:
        return dtype.newbyteorder("<")
    return np.dtype([(name, packed_dtype(dtype[name])) for name in dtype.names])


def chunk_shape(geometry: Geometry) -> tuple[int, ...]:
    """Shape of a chunk of the view.

    Examples
    --------
    >>> chunk_shape(Geometry((100, 4000, 4000), (50, 2000, 2000), (1, 500, 500), np.dtype("f4")))
    (1, 500, 1000)
    """
    itemsize = 64 if is_vlen(geometry.dtype) else max(geometry.itemsize, 1)
    if geometry.layout == "flat" or is_vlen(geometry.dtype):
        shape = list(geometry.chunks)
        limit = max(CHUNK_NBYTES, geometry.block_items * itemsize)
    else:
        shape = list(geometry.blocks)
        limit = CHUNK_NBYTES
    shape = [max(1, min(c, n)) for c, n in zip(shape, geometry.shape, strict=True)]
    # The last axes first: what is next to one another stays together.
    for axis in reversed(range(len(shape))):
        most = max(1, min(geometry.chunks[axis], geometry.shape[axis]))
        while shape[axis] < most and 2 * math.prod(shape) * itemsize <= limit:
            shape[axis] = min(most, 2 * shape[axis])
    for axis in range(len(shape)):
        while math.prod(shape) * itemsize > min(max(limit, CHUNK_NBYTES), MAX_CHUNK_NBYTES) and shape[axis] > 1:
            shape[axis] = -(-shape[axis] // 2)
    return tuple(shape)


def chunk_selection(geometry: Geometry, coords: Sequence[int]) -> Selection | None:
    """The items of the dataset in a chunk of the view; None when there is no such chunk."""
    shape = chunk_shape(geometry)
    if len(coords) != len(shape) or not geometry.size:
        return None
    starts = [i * c for i, c in zip(coords, shape, strict=True)]
    if any(start >= n for start, n in zip(starts, geometry.shape, strict=True)):
        return None
    stops = [min(start + c, n) for start, c, n in zip(starts, shape, geometry.shape, strict=True)]
    return Selection(tuple(AxisRange(start, stop) for start, stop in zip(starts, stops, strict=True)))


def codecs(dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """How the bytes of a chunk are made of its items."""
    if is_vlen(dtype):
        return [
            {"name": "vlen-utf8", "configuration": {}},
            {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        ]
    has_order = dtype.kind in "iufcmMU" and dtype.itemsize > 1
    typesize = min(packed_dtype(dtype).itemsize, 255)
    return [
        {"name": "bytes", "configuration": {"endian": "little"}} if has_order else {"name": "bytes"},
        {
            "name": "blosc",
            "configuration": {
                "typesize": typesize,
                "cname": "zstd",
                "clevel": 1,
                "shuffle": "shuffle" if typesize > 1 else "noshuffle",
                "blocksize": 0,
            },
        },
    ]


def array_metadata(entry: Entry, dims: Sequence[str], attrs: Mapping[str, Any]) -> dict[str, Any]:
    """``zarr.json`` of an array.

    Parameters
    ----------
    entry : Entry
    dims : sequence of str
        Names of its axes; empty for none.
    attrs : mapping
        Decoded attributes.

    Raises
    ------
    UnsupportedDatasetError
        When it has no data, or Zarr no data type for it.
    """
    geometry = entry.geometry
    if geometry is None:
        raise UnsupportedDatasetError(f"{entry.path!r} has no data to read")
    form: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(geometry.shape),
        "data_type": data_type(geometry.dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape(geometry))}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _fill_value(geometry.dtype, entry.storage.get("fillvalue")),
        "codecs": codecs(geometry.dtype),
        "attributes": _attributes(attrs, geometry.dtype),
        "storage_transformers": [],
    }
    if dims:
        form["dimension_names"] = list(dims)
    return form


def unique_names(names: Sequence[str]) -> list[str]:
    """Names of axes of which no two are the same, as xarray needs them of Zarr.

    Examples
    --------
    >>> unique_names(["x", "x"])
    ['x', 'x_1']
    """
    seen: dict[str, int] = {}
    out = []
    for name in names:
        number = seen.get(name, 0)
        seen[name] = number + 1
        out.append(f"{name}_{number}" if number else name)
    return out


def group_metadata(attrs: Mapping[str, Any], members: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """``zarr.json`` of a group, with what is below it by relative path (consolidated metadata)."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": _attributes(attrs, None),
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": dict(members)},
    }


def _fill_value(dtype: np.dtype[Any], form: Any) -> Any:
    """What Zarr says of chunks that are absent, of which there are none here."""
    if is_vlen(dtype):
        return ""
    packed = packed_dtype(dtype)
    value = np.zeros((), packed)
    if packed.kind in "mM":
        value = np.full((), "NaT", packed)
    if form is not None and packed.kind in "biufc":
        value = np.asarray(decode_attr(form)).astype(packed).reshape(-1)[:1].reshape(())
    if packed.kind in "mM":
        return int(value.view("i8"))
    if packed.kind in "f":
        return _float(float(value))
    if packed.kind == "c":
        item = complex(value)
        return [_float(item.real), _float(item.imag)]
    if packed.kind == "U":
        return ""
    if packed.kind in "SV":
        raw = value.tobytes()
        return base64.b64encode(raw).decode() if packed.kind == "V" else ""
    return value.item()


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _attributes(attrs: Mapping[str, Any], dtype: np.dtype[Any] | None) -> dict[str, Any]:
    """Attributes as JSON has them; ``_FillValue`` as xarray puts it in Zarr."""
    out: dict[str, Any] = {}
    for name, value in attrs.items():
        if name == "_FillValue" and dtype is not None:
            out[name] = _xarray_fill(np.asarray(value).reshape(-1)[:1], dtype)
        elif not (name == "missing_value" and _is_nan(value)):  # NaN is missing without being named
            out[name] = _plain(value)
    return out


def _is_nan(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind == "f" and array.size > 0 and bool(np.isnan(array).all())


def _xarray_fill(value: Any, dtype: np.dtype[Any]) -> Any:
    if not value.size:
        return None
    item = value[0]
    if dtype.kind == "f":
        return base64.standard_b64encode(struct.pack("<d", float(item))).decode()
    if dtype.kind == "c":
        parts = (complex(item).real, complex(item).imag)
        return [base64.standard_b64encode(struct.pack("<d", part)).decode() for part in parts]
    if dtype.kind == "S":
        raw = item if isinstance(item, bytes) else str(item).encode()
        return base64.standard_b64encode(raw).decode()
    return _plain(item)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.astype(str).tolist() if value.dtype.kind in "mM" else value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, complex):
        return [_float(value.real), _float(value.imag)]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, (str, int)) else str(value)
