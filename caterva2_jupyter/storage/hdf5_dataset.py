"""How one HDF5 dataset is stored, and the geometry and form in which it is served, read with h5py.

It runs in the worker process only. Chunks that Blosc2 can wrap are served as they are stored, values that lie in a row
are cut in runs, and the rest is decoded by the HDF5 library when it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from h5py import h5d, h5s, h5t, h5z

from ..core.attributes import encode_attr
from ..core.dtypes import VLEN_UTF8, dtype_from_json, dtype_to_json
from ..core.metadata import MAX_CHUNK_NBYTES, MAX_NDIM, Geometry
from ..errors import IntegrityError
from .hdf5_chunks import Pipeline, contiguous_chunks, merged_chunks, plan_pipeline
from .hdf5_edge import FOREIGN_ERRORS, readable, text_of

__all__ = ["describe", "describe_type", "fill_bytes", "virtual_sources"]

_TINY_CHUNK_NBYTES = 16 << 10
_DECODED_CHUNK_NBYTES = 1 << 20
_READ_CHUNK_NBYTES = 4 << 20
_MAX_ITEM_NBYTES = 64 << 20
_BLOCK_NBYTES = 64 << 10
_STRINGS_PER_CHUNK = 4096
_MAX_FRAME_NBYTES = 64 << 20

_CLASS_NAMES = {
    h5t.TIME: "time",
    h5t.BITFIELD: "bit field",
    h5t.OPAQUE: "opaque",
    h5t.COMPOUND: "compound",
    h5t.REFERENCE: "reference",
    h5t.ENUM: "enum",
    h5t.VLEN: "variable length",
    h5t.ARRAY: "array",
    h5t.FLOAT: "float",
    h5t.INTEGER: "integer",
    h5t.STRING: "string",
}
_LAYOUTS = {h5d.COMPACT: "compact", h5d.CONTIGUOUS: "contiguous", h5d.CHUNKED: "chunked", h5d.VIRTUAL: "virtual"}
_PADDINGS = {h5t.STR_NULLTERM: "nullterm", h5t.STR_NULLPAD: "nullpad", h5t.STR_SPACEPAD: "spacepad"}


def describe(dsid: Any) -> tuple[dict[str, Any], np.dtype[Any]]:
    """Geometry, form of storage and what is told of a dataset.

    Raises
    ------
    UnsupportedDatasetError
        When it cannot be served.
    """
    dcpl, space, tid = dsid.get_create_plist(), dsid.get_space(), dsid.get_type()
    storage: dict[str, Any] = {"layout": _LAYOUTS.get(dcpl.get_layout(), "unknown")}
    node: dict[str, Any] = {"storage": storage, "cbytes": int(dsid.get_storage_size())}
    filters = [dcpl.get_filter(i) for i in range(dcpl.get_nfilters())]
    if filters:
        storage["filters"] = [
            {"id": number, "options": [int(v) for v in options], "name": readable(name)[:80]}
            for number, _, options, name in filters
        ]
    try:
        dtype = tid.dtype
    except FOREIGN_ERRORS:
        return _unsupported(node, f"NumPy has no dtype for its HDF5 type ({_class_name(tid)})")
    _tell_type(storage, tid, dtype)
    if space.get_simple_extent_type() != h5s.NULL:
        storage["shape"] = [int(n) for n in space.get_simple_extent_dims()]  # also of what cannot be served
    else:
        return _unsupported(node, f"an empty dataset (null dataspace) of dtype {dtype}: it has no values")
    shape = tuple(int(n) for n in space.get_simple_extent_dims())
    unlimited = [None if n == h5s.UNLIMITED else int(n) for n in space.get_simple_extent_dims(True)]
    if unlimited != list(shape):
        storage["maxshape"] = unlimited
    if dcpl.get_layout() == h5d.CHUNKED:
        storage["chunks"] = [int(n) for n in dcpl.get_chunk()]
    _tell_fill_value(storage, dcpl, dtype)
    string = h5t.check_string_dtype(dtype)
    if string is not None and string.length is None:
        return _strings(node, dsid, dcpl, shape, filters)
    if problem := _object_reason(dtype, tid):
        return _unsupported(node, problem)
    base, inner = dtype.subdtype if dtype.subdtype is not None else (dtype, ())
    try:
        plain = dtype_from_json(json.loads(json.dumps(dtype_to_json(base))))
    except (TypeError, ValueError, IntegrityError, OSError):
        return _unsupported(node, f"its dtype {base} cannot travel")
    if plain != base:
        return _unsupported(node, f"its dtype {base} cannot travel")
    if len(shape) + len(inner) > MAX_NDIM:
        return _unsupported(node, f"it has {len(shape) + len(inner)} dimensions, over {MAX_NDIM}")
    planner = _Planner(dsid, dcpl, tid, dtype, plain, shape, inner, unlimited, filters)
    return planner.plan(node), plain


def _unsupported(node: dict[str, Any], reason: str) -> tuple[dict[str, Any], np.dtype[Any]]:
    return node | {"reason": reason}, np.dtype("V1")


def _class_name(tid: Any) -> str:
    kind = tid.get_class()
    if kind == getattr(h5t, "COMPLEX", None):  # HDF5 2.0
        return "complex"
    return _CLASS_NAMES.get(kind, f"class {kind}")


def _object_reason(dtype: np.dtype[Any], tid: Any) -> str:
    """Why a dtype that holds Python objects cannot be served; empty when it holds none."""
    if not dtype.hasobject:
        return ""
    if h5t.check_ref_dtype(dtype) is not None:
        what = "region" if tid.get_class() == h5t.REFERENCE and tid.equal(h5t.STD_REF_DSETREG) else "object"
        return f"its values are {what} references, which have no meaning outside of their file"
    if (items := h5t.check_vlen_dtype(dtype)) is not None:
        return f"its values are arrays of variable length (of {items})"
    if dtype.names is not None:
        for name in dtype.names:
            field = dtype.fields[name][0]  # type: ignore[index]
            if field.hasobject:
                return f"its field {name!r} holds variable-length items or references, which have no fixed size"
    return f"its type ({_class_name(tid)}) holds variable-length items or references"


def _tell_type(storage: dict[str, Any], tid: Any, dtype: np.dtype[Any]) -> None:
    kind = tid.get_class()
    storage["type"] = "variable-length string" if dtype.kind == "O" and kind == h5t.STRING else _class_name(tid)
    members = h5t.check_enum_dtype(dtype)
    if members is not None:
        storage["enum"] = {str(k): int(v) for k, v in members.items()}
    if kind == h5t.STRING:
        charset = "utf-8" if tid.get_cset() == h5t.CSET_UTF8 else "ascii"
        storage["string"] = {"charset": charset, "padding": _PADDINGS.get(tid.get_strpad(), "unknown")}


def describe_type(tid: Any) -> dict[str, Any]:
    """What a committed enumeration or compound is, so that datasets of that type can be told."""
    storage: dict[str, Any] = {}
    try:
        dtype = tid.dtype
        _tell_type(storage, tid, dtype)
        storage["dtype"] = dtype_to_json(dtype)
    except (TypeError, *FOREIGN_ERRORS):
        return {}
    return storage


def _tell_fill_value(storage: dict[str, Any], dcpl: Any, dtype: np.dtype[Any]) -> None:
    try:
        if dcpl.fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED or dtype.hasobject or dtype.subdtype is not None:
            return
        fill = np.zeros((), dtype)
        dcpl.get_fill_value(fill)
        if fill.nbytes <= 1024:
            storage["fillvalue"] = encode_attr(np.asarray(fill, dtype_from_json(dtype_to_json(dtype)))[()])
    except (IntegrityError, *FOREIGN_ERRORS):
        storage["fillvalue_unreadable"] = True


def fill_bytes(dsid: Any) -> bytes:
    """What h5py gives for items that were never written."""
    dcpl = dsid.get_create_plist()
    fill = np.zeros((), dsid.get_type().dtype)
    # HDF5 leaves the buffer alone, which h5py zeroed, when fill values are never to be written.
    if dcpl.get_fill_time() != h5d.FILL_TIME_NEVER and dcpl.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
        dcpl.get_fill_value(fill)
    return fill.tobytes()


def _missing_filter(dsid: Any, dcpl: Any, filters: Sequence[Any]) -> str:
    """Names of filters that this library has not, and that some chunk was written with."""
    absent = [i for i, f in enumerate(filters) if not h5z.filter_avail(f[0])]
    if not absent:
        return ""
    used = set()
    if dcpl.get_layout() == h5d.CHUNKED:
        masks: list[int] = []
        dsid.chunk_iter(lambda info: masks.append(info.filter_mask))
        used = {i for i in absent if any(not mask >> i & 1 for mask in masks)}
    return ", ".join(f"{filters[i][0]} ({readable(filters[i][3]) or 'unnamed'})" for i in sorted(used))


def _strings(
    node: dict[str, Any], dsid: Any, dcpl: Any, shape: tuple[int, ...], filters: Sequence[Any]
) -> tuple[dict[str, Any], np.dtype[Any]]:
    if missing := _missing_filter(dsid, dcpl, filters):
        return _unsupported(node, f"this HDF5 library has no filter {missing}")
    if dcpl.get_external_count():
        return _unsupported(node, "strings of variable length in external raw files")
    chunks = contiguous_chunks(shape, 1, _STRINGS_PER_CHUNK)
    geometry = Geometry(shape, chunks, chunks, VLEN_UTF8, "nd", padded=False)
    form: dict[str, Any] = {"mode": "strings"}
    if dcpl.get_layout() == h5d.VIRTUAL:
        form["sources"] = virtual_sources(dcpl)
    return node | {"geometry": geometry.to_json(), "form": form}, np.dtype(object)


def virtual_sources(dcpl: Any) -> list[list[str]]:
    count = dcpl.get_virtual_count()
    pairs = {(dcpl.get_virtual_filename(i), dcpl.get_virtual_dsetname(i)) for i in range(count)}
    return sorted([str(file), str(dataset)] for file, dataset in pairs)


class _Planner:
    """Decides in what form one dataset is served."""

    def __init__(
        self,
        dsid: Any,
        dcpl: Any,
        tid: Any,
        dtype: np.dtype[Any],
        plain: np.dtype[Any],
        shape: tuple[int, ...],
        inner: tuple[int, ...],
        maxshape: list[int | None],
        filters: Sequence[Any],
    ) -> None:
        self._dsid, self._dcpl, self._filters = dsid, dcpl, filters
        self._plain, self._inner = plain, inner
        self._shape = shape + inner
        self._maxshape = [*maxshape, *inner]
        self._itemsize = plain.itemsize
        self._exact, self._convertible = _match(tid, dtype)

    def plan(self, node: dict[str, Any]) -> dict[str, Any]:
        layout = self._dcpl.get_layout()
        stored_as_is = self._exact and not self._inner
        if not self._exact and not self._convertible:
            return node | {"reason": "the HDF5 library cannot convert its type to a NumPy dtype"}
        if self._itemsize > _MAX_ITEM_NBYTES:
            return node | {"reason": f"one item takes {self._itemsize} bytes"}
        if layout == h5d.CONTIGUOUS and self._dcpl.get_external_count():
            if not stored_as_is:
                return node | {"reason": "its values are in external raw files, in a type that has to be converted"}
            parts = [self._dcpl.get_external(i) for i in range(self._dcpl.get_external_count())]
            segments = [[text_of(bytes(name)), int(offset), int(size)] for name, offset, size in parts]
            node["storage"] |= {"layout": "external"}
            return self._runs(node, {"mode": "external", "segments": segments})
        if layout == h5d.VIRTUAL:
            # Sources are mostly stored frame by frame: a part of one costs as much as all of it.
            frame = math.prod(self._shape[-2:]) * self._itemsize
            target = max(frame if frame <= _MAX_FRAME_NBYTES else 0, _DECODED_CHUNK_NBYTES)
            chunks = contiguous_chunks(self._shape, self._itemsize, target)
            return self._runs(node, {"mode": "decode", "sources": virtual_sources(self._dcpl)}, chunks)
        if layout == h5d.CONTIGUOUS and stored_as_is:
            # With a user block, h5py gives a wrong offset in place of None for storage that was never written.
            if self._dsid.get_space_status() == h5d.SPACE_STATUS_NOT_ALLOCATED:
                return self._runs(node, {"mode": "fill"})
            offset = self._dsid.get_offset()
            if offset is not None:
                return self._runs(node, {"mode": "contiguous", "offset": int(offset)})
        if layout == h5d.CHUNKED:
            return self._chunked(node, stored_as_is)
        return self._runs(node, {"mode": "decode"})

    def _runs(
        self, node: dict[str, Any], form: dict[str, Any], chunks: tuple[int, ...] | None = None
    ) -> dict[str, Any]:
        """Chunks of our own, cut in runs of items."""
        target = _DECODED_CHUNK_NBYTES if form["mode"] == "decode" else _READ_CHUNK_NBYTES
        chunks = chunks or contiguous_chunks(self._shape, self._itemsize, target)
        return node | {"geometry": self._flat(chunks, 0, padded=False).to_json(), "form": form}

    def _flat(self, chunks: tuple[int, ...], block_items: int, padded: bool) -> Geometry:
        run = block_items or max(1, _BLOCK_NBYTES // max(self._itemsize, 1))
        run = min(run, max(1, math.prod(chunks))) if not block_items else run
        return Geometry(self._shape, chunks, (run,), self._plain, "flat", padded)

    def _chunked(self, node: dict[str, Any], stored_as_is: bool) -> dict[str, Any]:
        own = tuple(int(n) for n in self._dcpl.get_chunk())
        chunks = own + self._inner
        nbytes = math.prod(chunks) * self._itemsize
        grid = [-(-n // c) for n, c in zip(self._shape, chunks, strict=True)]
        many_tiny = nbytes < _TINY_CHUNK_NBYTES and (math.prod(grid) > 1 or None in self._maxshape)
        pipeline = plan_pipeline([(f[0], f[2]) for f in self._filters], self._itemsize)
        if stored_as_is and pipeline is not None and not many_tiny and nbytes <= MAX_CHUNK_NBYTES:
            geometry = self._geometry(chunks, pipeline)
            form = {"mode": "chunked", "pipeline": pipeline.to_json()}
            return node | {"geometry": geometry.to_json(), "form": form}
        if missing := _missing_filter(self._dsid, self._dcpl, self._filters):
            return node | {"reason": f"this HDF5 library has no filter {missing}"}
        if nbytes > MAX_CHUNK_NBYTES:
            return self._runs(node, {"mode": "decode"})
        chunks = merged_chunks(chunks, self._shape, self._maxshape, self._itemsize, _DECODED_CHUNK_NBYTES)
        return self._runs(node, {"mode": "decode"}, chunks)

    def _geometry(self, chunks: tuple[int, ...], pipeline: Pipeline) -> Geometry:
        if pipeline.codec == "raw" and not pipeline.shuffle:
            return self._flat(chunks, 0, padded=True)
        if pipeline.block_nbytes and pipeline.block_nbytes % self._itemsize == 0:
            items = pipeline.block_nbytes // self._itemsize
            if pipeline.codec == "bitshuffle" or items < math.prod(chunks):
                return self._flat(chunks, items, padded=True)
        if pipeline.codec == "blosc2" and (partition := self._blosc2_partition(chunks)):
            return partition
        return Geometry(self._shape, chunks, chunks, self._plain, "nd", padded=True)

    def _blosc2_partition(self, chunks: tuple[int, ...]) -> Geometry | None:
        """Blocks as the first stored chunk has them; others are compared when they are read."""
        import blosc2

        if self._dsid.get_num_chunks() == 0:
            return None
        where = self._dsid.get_chunk_info(0)
        mask, frame = self._dsid.read_direct_chunk(where.chunk_offset)
        if mask or len(frame) < 48:
            return None
        try:
            if b"b2nd" in bytes(frame[: int.from_bytes(frame[11:15], "big")]):
                array = blosc2.ndarray_from_cframe(bytes(frame), copy=True)
                if tuple(array.chunks) == chunks and array.schunk.typesize == min(self._itemsize, 255):
                    return Geometry(self._shape, chunks, tuple(array.blocks), self._plain, "nd", padded=True)
                return None
            start = int.from_bytes(frame[11:15], "big")
            blocksize = int.from_bytes(frame[start + 8 : start + 12], "little")
        except FOREIGN_ERRORS:
            return None
        if blocksize <= 0 or blocksize % self._itemsize:
            return None
        return self._flat(chunks, blocksize // self._itemsize, padded=True)


def _match(tid: Any, dtype: np.dtype[Any]) -> tuple[bool, bool]:
    """Are stored bytes those of the dtype, and can HDF5 convert them?"""
    try:
        memory = h5t.py_create(dtype, logical=True)
        if tid.equal(memory) or tid.get_class() == h5t.OPAQUE:
            return True, True
        return False, h5t.find(tid, h5t.py_create(dtype)) is not None
    except FOREIGN_ERRORS:
        return False, False
