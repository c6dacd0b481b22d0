"""What a publisher of the older system tells, as values of ours: its metadata JSON as entries, its chunks as records.

The other way round is ``legacy``'s. Nothing is evaluated: dtypes come as texts that are parsed as literals, and chunks
are cut without decoding them.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from ..errors import IntegrityError, UnsupportedDatasetError
from .attributes import attrs_tag, encode_attrs
from .blocks import HEADER_NBYTES, BlockRecord, make_record, parse_layout, whole_record
from .codec import is_portable
from .dtypes import dtype_from_json, dtype_to_json
from .metadata import Entry, Geometry

__all__ = ["chunk_record", "geometry_of_info", "told_entry"]

_NAMED_DTYPE = re.compile(r"[a-z]+[0-9]{0,3}(\[[0-9]{0,10}[a-zA-Z]{1,7}\])?")
_MAX_DTYPE_CHARS = 100_000
_SPECIAL_ZERO, _SPECIAL_UNINITIALIZED = 1 << 4, 4 << 4
_SPECIAL_MASK = 7 << 4
_STORAGE = ("codec", "codec_meta", "clevel", "filters", "filters_meta", "typesize", "splitmode", "use_dict")


def told_entry(path: str, info: Any, dataset_id: str, version: str) -> Entry:
    """The entry of a dataset from its ``/api/info``.

    Parameters
    ----------
    path : str
    info : object
        The decoded JSON.
    dataset_id, version : str

    Returns
    -------
    Entry
        Of kind ``unsupported``, with the reason, where it cannot be read.

    Examples
    --------
    >>> cparams = {"codec": 5, "clevel": 1, "typesize": 8, "blocksize": 32}
    >>> schunk = {"cbytes": 99, "cparams": cparams, "vlmeta": {"unit": "K"}}
    >>> info = {"shape": [8], "chunks": [8], "blocks": [4], "dtype": "int64", "schunk": schunk, "mtime": None}
    >>> entry = told_entry("x.b2nd", info, "a", "b")
    >>> entry.kind, entry.geometry.blocks, entry.attrs
    ('array', (4,), {'unit': 'K'})
    """
    try:
        if isinstance(info, Mapping) and "expression" in info:
            raise UnsupportedDatasetError("a lazy expression, which publishers do not compute")
        geometry = geometry_of_info(info)
        frame = info.get("schunk", info)
        vlmeta = frame.get("vlmeta") or {}
        attrs, skipped = encode_attrs({str(name): value for name, value in vlmeta.items()})
        cparams = frame.get("cparams") or {}
        storage = {name: cparams[name] for name in _STORAGE if name in cparams}
        is_array = "shape" in info
        storage["format"] = "b2nd" if is_array else "b2frame" if path.endswith(".b2frame") else "file"
        return Entry(
            path,
            "array" if is_array else "file",
            id=dataset_id,
            version=version,
            geometry=geometry,
            attrs=attrs,
            attrs_tag=attrs_tag(attrs) if attrs else "",
            cbytes=max(0, int(frame.get("cbytes") or 0)),
            mtime_ns=_mtime_ns(info.get("mtime")),
            media_type="" if is_array else "application/octet-stream",
            storage=storage | ({"attrs_skipped": skipped} if skipped else {}),
        )
    except (IntegrityError, UnsupportedDatasetError) as error:
        return Entry(path, "unsupported", reason=str(error))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return Entry(path, "unsupported", reason="its publisher tells something of it that cannot be understood")


def geometry_of_info(info: Mapping[str, Any]) -> Geometry:
    """Shape, dtype and partition of a dataset.

    Raises
    ------
    IntegrityError, UnsupportedDatasetError
        When there cannot be such an array, or not here.
    KeyError, TypeError, ValueError
        When it is not the metadata of a dataset.
    """
    if "shape" in info:
        dtype = _parse_dtype(str(info["dtype"]))
        form = {"shape": info["shape"], "chunks": info["chunks"], "blocks": info["blocks"]}
        return Geometry.from_json({**form, "dtype": dtype_to_json(dtype), "layout": "nd", "padded": True})
    typesize = int(info["cparams"]["typesize"])
    if not 0 < typesize < 1 << 20:
        raise IntegrityError(f"items of {typesize} bytes")
    dtype = np.dtype(np.uint8) if typesize == 1 else np.dtype(f"V{typesize}")
    size, chunk_items = int(info["nbytes"]) // typesize, max(1, int(info["chunksize"]) // typesize)
    # What its blocks are is not always said; a chunk of other ones is not cut.
    block_items = int(info["cparams"].get("blocksize") or 0) // typesize
    blocks = min(block_items, chunk_items) if block_items > 0 else chunk_items
    return Geometry((size,), (chunk_items,), (blocks,), dtype, "nd", False)


def _parse_dtype(text: str) -> np.dtype[Any]:
    if len(text) > _MAX_DTYPE_CHARS:
        raise IntegrityError("not a dtype: it is too long")
    if _NAMED_DTYPE.fullmatch(text):
        dtype = np.dtype(text)
        if dtype.hasobject:
            raise IntegrityError("object dtypes do not travel")
        return dtype
    if text[:1] not in "[{(":
        return dtype_from_json(text)
    try:
        form = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise IntegrityError(f"not a dtype: {text[:40]!r}") from None
    return dtype_from_json(_as_json(form))


def _as_json(form: Any) -> Any:
    """What NumPy prints of a structured dtype, in the form that ours have."""
    if isinstance(form, tuple) and len(form) == 2 and isinstance(form[1], tuple):
        return {"base": _as_json(form[0]), "shape": list(form[1])}
    if isinstance(form, list):
        return [[field[0], _as_json(field[1]), *(list(shape) for shape in field[2:])] for field in form]
    if isinstance(form, dict):
        formats = [_as_json(item) for item in form["formats"]]
        return {**form, "formats": formats, "names": list(form["names"]), "offsets": list(form["offsets"])}
    return form


def _mtime_ns(text: Any) -> int:
    if not isinstance(text, str):
        return 0
    try:
        return max(0, math.floor(datetime.fromisoformat(text).timestamp() * 1e6)) * 1000
    except (ValueError, OverflowError):
        return 0


def chunk_record(seed: int, nchunk: int, chunk: bytes, wanted: Sequence[int], geometry: Geometry) -> BlockRecord:
    """Blocks of a compressed chunk; all of it, where it cannot be cut.

    Raises
    ------
    IntegrityError
        When it is not a chunk of that geometry.
    UnsupportedDatasetError
        When others could not decode it.
    """
    layout = parse_layout(chunk, len(chunk))
    if layout.nbytes != geometry.chunk_nbytes(nchunk):
        raise IntegrityError(f"chunk {nchunk} has {layout.nbytes} bytes instead of {geometry.chunk_nbytes(nchunk)}")
    if not is_portable(chunk[:HEADER_NBYTES]):
        raise UnsupportedDatasetError(
            f"chunk {nchunk} needs a plugin codec, and its publisher is of the older system, which does not decode it: "
            "serve it by a newer cat2pub"
        )
    if layout.kind == "special":
        head = bytearray(layout.head)
        if head[31] & _SPECIAL_MASK == _SPECIAL_UNINITIALIZED:
            head[31] = head[31] & ~_SPECIAL_MASK | _SPECIAL_ZERO  # not stray memory
        return whole_record(seed, nchunk, bytes(head))
    is_fit = layout.nblocks == geometry.chunk_nblocks(nchunk) and not layout.nbytes % max(chunk[3], 1)
    is_cut = is_fit and (layout.blocksize == geometry.block_nbytes or layout.nblocks == 1)
    if layout.kind == "whole" or not is_cut:
        return whole_record(seed, nchunk, chunk[: layout.cbytes])
    view = memoryview(chunk)
    bodies = [view[int(layout.offsets[i]) : int(layout.offsets[i] + layout.sizes[i])] for i in wanted]
    return make_record(seed, nchunk, layout.head, wanted, bodies)
