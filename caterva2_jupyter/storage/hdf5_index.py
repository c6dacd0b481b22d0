"""What an HDF5 file holds, as JSON and bytes, read with h5py: groups, links, datasets, attributes.

It runs in the worker process only (``hdf5_process``), which may die of a bad file. Objects are only ever
opened by the names of hard links, one at a time: the library never follows a soft or external link by
itself, so it opens no file that it was not given. What is made of it is decided in ``hdf5_file``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5a, h5d, h5ds, h5g, h5l, h5o, h5r, h5s, h5t, h5z

from ..core.attributes import attrs_tag, encode_attr
from ..core.dtypes import VLEN_UTF8, dtype_from_json, dtype_to_json
from ..core.metadata import MAX_NDIM, Geometry
from ..errors import IntegrityError, UnsupportedDatasetError
from .hdf5_chunks import CHUNK_TABLE, Pipeline, contiguous_chunks, merged_chunks, plan_pipeline

__all__ = ["INLINE_ATTRS_NBYTES", "Hdf5Reader"]

INLINE_ATTRS_NBYTES = 64 << 10
MAX_ATTR_NBYTES = 4 << 20
MAX_ATTRS_NBYTES = 16 << 20
MAX_CHUNK_NBYTES = 2**31 - 1
_TINY_CHUNK_NBYTES = 16 << 10
_DECODED_CHUNK_NBYTES = 1 << 20
_READ_CHUNK_NBYTES = 4 << 20
_MAX_ITEM_NBYTES = 64 << 20
_BLOCK_NBYTES = 64 << 10
_STRINGS_PER_CHUNK = 4096
_MAX_FRAME_NBYTES = 64 << 20
_MAX_SMALL_NBYTES = 64 << 10
_MAX_END_CHUNKS = 256
_MAX_END_NBYTES = 32 << 20

# What h5py raises for files that are damaged, or of types that it does not know.
FOREIGN_ERRORS = (
    OSError, RuntimeError, ValueError, TypeError, KeyError, NotImplementedError, OverflowError, MemoryError,
    AttributeError, IndexError, SystemError,
)  # fmt: skip

# Bookkeeping of dimension scales and netCDF4: told by dims and storage instead.
_HIDDEN = frozenset(
    {"DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict",
     "_NCProperties"}
)  # fmt: skip
_SCALE_ATTRS = frozenset({"CLASS", "NAME"})
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"

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


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]


class Hdf5Reader:
    """An open HDF5 file, to be closed at once: a context manager.

    Parameters
    ----------
    name : str
        Path, ``/proc/self/fd/N`` included.

    Raises
    ------
    UnsupportedDatasetError
        When it is not an HDF5 file, or not one that can be read now.
    """

    def __init__(self, name: str) -> None:
        self._file, self._is_live = _open(name)

    def __enter__(self) -> Hdf5Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def index(self, skip: frozenset[str] | None = None) -> Iterator[dict[str, Any]]:
        """Every object once, by its first path of hard links, the root group first.

        Parameters
        ----------
        skip : set of str, optional
            Paths not to be touched. With it, ``{"at": path}`` comes before each object is.
        """
        root = h5g.open(self._file.id, b"/")
        seen = {h5o.get_info(root).addr}
        # Children are opened relative to their group: paths of 10^4 levels are not walked from the top.
        pending: list[tuple[Any, str]] = [(root, "/")]
        while pending:
            oid, path = pending.pop()
            if skip is not None:
                yield {"at": path}
            if isinstance(oid, h5g.GroupID):
                node: dict[str, Any] = {"addr": h5o.get_info(oid).addr, "path": path, "kind": "group", "links": []}
                fresh = []
                for name, kind, rank in self._link_names(oid, node):
                    if rank is not None:
                        node.setdefault("order", {})[_text(name)] = rank
                    below = f"{path.rstrip('/')}/{_text(name)}"
                    if skip is not None and below in skip:
                        node["links"].append([_text(name), "broken", "the HDF5 library does not survive reading it"])
                        continue
                    if skip is not None and kind == h5l.TYPE_HARD:
                        yield {"at": below}
                    link, child = _link(oid, name, kind)
                    node["links"].append(link)
                    if child is not None and link[2] not in seen:
                        seen.add(link[2])
                        fresh.append((child, below))
                if skip is not None:
                    yield {"at": path}
                if path == "/" and self._is_live:
                    node["live"] = True
                yield node | _attributes(h5py.Group(oid), everything=False)
                pending += reversed(fresh)
            elif isinstance(oid, h5d.DatasetID):
                yield self._dataset(oid, path)
            else:
                yield {"addr": h5o.get_info(oid).addr, "path": path, "kind": "type", "storage": _told_of_type(oid)}

    def _link_names(self, gid: Any, node: dict[str, Any]) -> list[tuple[bytes, int, int | None]]:
        """Names of links, their types, and their places in the order of creation where that is tracked."""
        found: list[tuple[bytes, int, int | None]] = []

        def note(name: bytes, info: Any) -> None:
            found.append((bytes(name), int(info.type), int(info.corder) if info.corder_valid else None))

        try:
            gid.links.iterate(note, info=True)
        except FOREIGN_ERRORS as error:
            node["problem"] = f"its links cannot be read: {_reason(error)}"
        return found

    def _dataset(self, dsid: Any, path: str) -> dict[str, Any]:
        node: dict[str, Any] = {"addr": h5o.get_info(dsid).addr, "path": path, "kind": "dataset"}
        try:
            dataset = h5py.Dataset(dsid)
            node |= _attributes(dataset, everything=False)
            node |= _dimensions(dsid, dataset)
            node |= self._described(dsid)
        except (UnsupportedDatasetError, IntegrityError, *FOREIGN_ERRORS) as error:
            node["reason"] = _reason(error)
        return node

    def _described(self, dsid: Any, extent: tuple[int, ...] = ()) -> dict[str, Any]:
        description, _ = describe(dsid)
        extent = extent or dsid.shape
        if "geometry" in description:
            description["storage"].pop("shape", None)
        if self._is_live and "form" in description and (state := _live_state(dsid, description["form"], extent)):
            description["state"] = state
        return description

    def _open_object(self, path: str) -> Any:
        """The object at a path of hard links."""
        oid = h5g.open(self._file.id, b"/")
        for name in filter(None, path.split("/")):
            raw = _bytes(name)
            if not isinstance(oid, h5g.GroupID) or oid.links.get_info(raw).type != h5l.TYPE_HARD:
                raise UnsupportedDatasetError(f"nothing at {path!r}")
            oid = h5o.open(oid, raw)
        return oid

    def attributes(self, path: str) -> dict[str, Any]:
        """All attributes of an object."""
        oid = self._open_object(path)
        kinds = {h5g.GroupID: h5py.Group, h5d.DatasetID: h5py.Dataset}
        owner = next((make(oid) for kind, make in kinds.items() if isinstance(oid, kind)), None)
        return _attributes(owner or h5py.Datatype(oid), everything=True)

    def dataset(self, path: str, shape: Sequence[int]) -> tuple[dict[str, Any], bytes]:
        """How a dataset is stored, and its chunks as rows of ``CHUNK_TABLE``.

        Parameters
        ----------
        path : str
        shape : sequence of int
            That is meant: the dataset may have grown since (an array dtype's own axes come last).
        """
        oid = self._open_object(path)
        if not isinstance(oid, h5d.DatasetID):
            raise UnsupportedDatasetError(f"no dataset at {path!r}")
        # A dataset of another rank is another one: its own state tells that.
        extent = tuple(shape[: oid.rank]) if len(shape) >= oid.rank else ()
        description = self._described(oid, extent)
        if "reason" in description:
            raise UnsupportedDatasetError(description["reason"])
        form = description["form"]
        if form["mode"] in ("chunked", "fill"):
            form["fill"] = _fill_bytes(oid).hex()
        chunks = _chunk_table(oid, extent or oid.shape).tobytes() if form["mode"] == "chunked" else b""
        return description, chunks

    def read(self, path: str, start: Sequence[int], stop: Sequence[int]) -> tuple[dict[str, Any], bytes]:
        """A box of a dataset, decoded: bytes in C order, or strings after their lengths."""
        oid = self._open_object(path)
        dataset = h5py.Dataset(oid)
        ndim = len(dataset.shape)
        box = tuple(slice(a, b) for a, b in zip(start[:ndim], stop[:ndim], strict=True))
        values: Any = dataset[box]
        if h5t.check_string_dtype(dataset.dtype) is not None and dataset.dtype.kind == "O":
            items = [v if isinstance(v, bytes) else _bytes(v) for v in np.asarray(values, object).ravel().tolist()]
            lengths = np.array([len(v) for v in items], "<u8")
            return {"count": len(items)}, lengths.tobytes() + b"".join(items)
        return {}, np.ascontiguousarray(values).tobytes()

    def sources(self, path: str) -> dict[str, Any]:
        """What a dataset's values come from besides this file; links on the way to it are told, not followed."""
        names = [n for n in path.split("/") if n]
        oid: Any = h5g.open(self._file.id, b"/")
        nfollowed = 0
        walked: list[Any] = [oid]
        while names:
            name = names.pop(0)
            if name == ".":
                continue
            raw = _bytes(name)
            if not isinstance(oid, h5g.GroupID) or raw not in oid:
                return {"missing": True}
            kind = oid.links.get_info(raw).type
            if kind == h5l.TYPE_HARD:
                oid = h5o.open(oid, raw)
            elif kind == h5l.TYPE_SOFT and nfollowed < 40:
                nfollowed += 1
                target = _text(oid.links.get_val(raw))
                if target.startswith("/"):
                    oid = walked[0]
                names = [n for n in target.split("/") if n] + names
            else:
                return {"reason": "it comes from another file through a link"}
        if not isinstance(oid, h5d.DatasetID):
            return {"missing": True}
        dcpl = oid.get_create_plist()
        if dcpl.get_layout() == h5d.VIRTUAL:
            return {"virtual": _virtual_sources(dcpl)}
        if dcpl.get_external_count():
            return {"reason": "it comes from raw files through another HDF5 file"}
        return {}


def _link(gid: Any, raw: bytes, kind: int) -> tuple[list[Any], Any]:
    """What a link says, and the object of a hard one."""
    name = _text(raw)
    try:
        if kind == h5l.TYPE_HARD:
            child = h5o.open(gid, raw)
            return [name, "hard", h5o.get_info(child).addr], child
        if kind == h5l.TYPE_SOFT:
            return [name, "soft", _text(gid.links.get_val(raw))], None
        if kind == h5l.TYPE_EXTERNAL:
            file, target = gid.links.get_val(raw)
            return [name, "external", _text(file), _text(target)], None
    except FOREIGN_ERRORS as error:
        return [name, "broken", _reason(error)], None
    return [name, "broken", f"a link of unknown type {kind}"], None


def _open(name: str) -> tuple[Any, bool]:
    """The open file, and whether a writer has it open in SWMR mode."""
    try:
        return h5py.File(name, "r", locking=False), False
    except FOREIGN_ERRORS as error:
        first = error
    try:
        # The only way in while a writer has the file open in SWMR mode.
        return h5py.File(name, "r", locking=False, swmr=True, libver="latest"), True
    except FOREIGN_ERRORS as error:
        text = _reason(error if "SWMR" in str(first) else first)
        raise UnsupportedDatasetError(f"the HDF5 library cannot open it: {text}") from error


def _attributes(owner: Any, everything: bool) -> dict[str, Any]:
    """Attributes as JSON forms; the rest is not read once they are over the limit of a listing."""
    limit = MAX_ATTRS_NBYTES if everything else INLINE_ATTRS_NBYTES
    names: list[bytes] = []
    try:
        h5a.iterate(owner.id, lambda name: names.append(bytes(name)))
    except FOREIGN_ERRORS as error:
        return {"attrs": {}, "attrs_tag": "", "skipped": {"*": f"attributes cannot be read: {_reason(error)}"}}
    scale = isinstance(owner, h5py.Dataset) and bool(h5ds.is_scale(owner.id))
    forms: dict[str, Any] = {}
    exact: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    total = 0
    for i, raw in enumerate(names):
        name = _readable(raw)
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
            skipped[name] = _reason(error)
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


def _readable(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


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
    items = [v if isinstance(v, bytes) else _bytes(str(v)) for v in np.ravel(np.asarray(value, object)).tolist()]
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
        return _readable(bytes(value))
    if isinstance(value, str):
        return _readable(_bytes(value))
    if isinstance(value, np.ndarray) and (value.dtype.kind == "S" or value.dtype == object):
        items = value.ravel().tolist()
        if not all(isinstance(v, (bytes, str)) for v in items):
            raise UnsupportedDatasetError("an array of variable-length or reference items")
        texts = np.empty(len(items), object)
        texts[:] = [_readable(v if isinstance(v, bytes) else _bytes(v)) for v in items]
        return texts.reshape(value.shape)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.hasobject:
        raise UnsupportedDatasetError(f"its type {value.dtype} holds references or variable-length items")
    return value


def _dimensions(dsid: Any, dataset: Any) -> dict[str, Any]:
    """Dimension scales: addresses of those attached, labels, and what makes it one itself."""
    found: dict[str, Any] = {}
    attrs = dataset.attrs
    if h5ds.is_scale(dsid):
        name = h5ds.get_scale_name(dsid)
        found["scale"] = _readable(name)
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
        found["labels"] = [_readable(v if isinstance(v, bytes) else _bytes(str(v or ""))) for v in labels]
    return {"dimensions": found} if found else {}


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
            {"id": number, "options": [int(v) for v in options], "name": _readable(name)[:80]}
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


def _told_of_type(tid: Any) -> dict[str, Any]:
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


def _fill_bytes(dsid: Any) -> bytes:
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
    return ", ".join(f"{filters[i][0]} ({_readable(filters[i][3]) or 'unnamed'})" for i in sorted(used))


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
        form["sources"] = _virtual_sources(dcpl)
    return node | {"geometry": geometry.to_json(), "form": form}, np.dtype(object)


def _virtual_sources(dcpl: Any) -> list[list[str]]:
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
            segments = [[_text(bytes(name)), int(offset), int(size)] for name, offset, size in parts]
            node["storage"] |= {"layout": "external"}
            return self._runs(node, {"mode": "external", "segments": segments})
        if layout == h5d.VIRTUAL:
            # Sources are mostly stored frame by frame: a part of one costs as much as all of it.
            frame = math.prod(self._shape[-2:]) * self._itemsize
            target = max(frame if frame <= _MAX_FRAME_NBYTES else 0, _DECODED_CHUNK_NBYTES)
            chunks = contiguous_chunks(self._shape, self._itemsize, target)
            return self._runs(node, {"mode": "decode", "sources": _virtual_sources(self._dcpl)}, chunks)
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


def _live_state(dsid: Any, form: dict[str, Any], extent: tuple[int, ...]) -> str:
    """The state of what lies inside of ``extent``, in a file that grows while it is read.

    SWMR writers append: what they may still write to are chunks at the end of an axis that can grow. So the
    places of all other chunks, and the items of those that are inside, stand for all. Appended items change
    nothing of it. Empty when only the file's state can tell, or when the dataset is smaller now.
    """
    if "sources" in form or form["mode"] in ("strings", "external"):
        return ""
    now, most = dsid.get_space().get_simple_extent_dims(), dsid.get_space().get_simple_extent_dims(True)
    if any(n < wanted for n, wanted in zip(now, extent, strict=True)):
        return ""
    digest = hashlib.blake2b(digest_size=12)
    dcpl = dsid.get_create_plist()
    if dcpl.get_layout() != h5d.CHUNKED:
        if math.prod(dsid.shape) * dsid.get_type().get_size() > _MAX_SMALL_NBYTES:
            return ""
        digest.update(np.ascontiguousarray(h5py.Dataset(dsid)[()]).tobytes())
        return f"live.{digest.hexdigest()}"
    table = _chunk_table(dsid, extent)
    chunks = dcpl.get_chunk()
    grid = [max(1, -(-n // c)) for n, c in zip(extent, chunks, strict=True)]
    coords = np.array(np.unravel_index(table["nchunk"], grid)).reshape(len(grid), -1)
    at_end = np.zeros(len(table), dtype=bool)
    for axis, (n, limit) in enumerate(zip(extent, most, strict=True)):
        if limit == h5s.UNLIMITED or limit > n:
            at_end |= coords[axis] == grid[axis] - 1
    if at_end.sum() > _MAX_END_CHUNKS or int(table["nbytes"][at_end].sum()) > _MAX_END_NBYTES:
        return ""
    digest.update(table[~at_end].tobytes())
    digest.update(table["nchunk"][at_end].tobytes())
    can_decode = all(h5z.filter_avail(dcpl.get_filter(i)[0]) for i in range(dcpl.get_nfilters()))
    for place in coords[:, at_end].T.tolist():
        start = tuple(i * c for i, c in zip(place, chunks, strict=True))
        is_full = all(a + c <= n for a, c, n in zip(start, chunks, extent, strict=True))
        if is_full or not can_decode:
            digest.update(dsid.read_direct_chunk(start)[1])
        else:
            box = tuple(slice(a, min(a + c, n)) for a, c, n in zip(start, chunks, extent, strict=True))
            digest.update(np.ascontiguousarray(h5py.Dataset(dsid)[box]).tobytes())
    return f"live.{digest.hexdigest()}"


def _chunk_table(dsid: Any, shape: tuple[int, ...]) -> npt.NDArray[np.void]:
    """Rows of (nchunk, offset, nbytes, mask) of the chunks that are stored, numbered as in that shape."""
    chunks = dsid.get_create_plist().get_chunk()
    rows: list[tuple[tuple[int, ...], int, int, int]] = []
    if dsid.get_num_chunks():
        dsid.chunk_iter(lambda c: rows.append((c.chunk_offset, c.byte_offset, c.size, c.filter_mask)))
    grid = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    table = np.zeros(len(rows), CHUNK_TABLE)
    if rows and math.prod(grid):
        coords = np.array([r[0] for r in rows], np.int64) // np.array(chunks, np.int64)
        inside = np.all(coords < np.array(grid), axis=1)
        strides = np.array([math.prod(grid[i + 1 :]) for i in range(len(grid))], np.int64)
        table["nchunk"] = (coords * strides).sum(axis=1)
        table["offset"], table["nbytes"], table["mask"] = ([r[i] for r in rows] for i in (1, 2, 3))
        table = np.sort(table[inside], order="nchunk")
    else:
        table = table[:0]
    return table
