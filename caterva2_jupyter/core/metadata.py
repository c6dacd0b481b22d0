"""What is known about a dataset: catalog entries, and the geometry that blocks are counted by.

Values only; ``from_json`` is where they are parsed once at a boundary, and from there on types are
trusted. It does not know where a dataset's bytes are: only its source does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np

from ..errors import IntegrityError
from .dtypes import dtype_from_json, dtype_to_json, is_vlen

__all__ = ["HDF5_MEDIA_TYPE", "MAX_NDIM", "Entry", "EntryKind", "Geometry", "Layout", "dataset_id"]

EntryKind = Literal["group", "array", "file", "link", "unsupported"]
Layout = Literal["nd", "flat"]

MAX_NDIM = 32
HDF5_MEDIA_TYPE = "application/x-hdf5"
"""Of the group that an HDF5 file is listed as."""
MAX_CHUNK_NBYTES = 2**31 - 1
_KINDS = ("group", "array", "file", "link", "unsupported")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shape, dtype and partition of an array. Normative: every record is counted by it.

    Attributes
    ----------
    shape : tuple of int
        ``()`` for a scalar.
    chunks : tuple of int
        Shape of a chunk, one per axis; chunks are numbered in C order over the grid.
    blocks : tuple of int
        ``layout="nd"``: shape of a block, one per axis; blocks are numbered in C order inside their
        chunk, data is block-major, and a chunk is padded to whole blocks.
        ``layout="flat"``: one number, the items per block; blocks cut the chunk's C-order items in
        runs, the last one shorter.
    dtype : numpy.dtype
        Dtype of an item; ``dtypes.VLEN_UTF8`` for strings of variable length, whose chunks are
        encoded byte strings (see ``codec``) with one block each.
    layout : {"nd", "flat"}
    padded : bool
        True: chunks at the array's edges are stored full size. False: they are clipped to the shape.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]
    dtype: np.dtype[Any]
    layout: Layout = "nd"
    padded: bool = True

    def __post_init__(self) -> None:
        ndim = len(self.shape)
        ok = (
            ndim <= MAX_NDIM
            and len(self.chunks) == ndim
            and len(self.blocks) == (ndim if self.layout == "nd" else 1)
            and all(0 <= n < 2**63 for n in self.shape)
            and all(1 <= c < 2**63 for c in self.chunks)
            and all(b >= 1 for b in self.blocks)
            and (self.layout == "flat" or all(b <= c for b, c in zip(self.blocks, self.chunks, strict=True)))
            and math.prod(self.shape) * max(self.itemsize, 1) < 2**63
        )
        if not ok:
            raise IntegrityError(
                f"not a geometry: shape {self.shape}, chunks {self.chunks}, blocks {self.blocks} ({self.layout})"
            )
        if not is_vlen(self.dtype) and self.full_chunk_nbytes > MAX_CHUNK_NBYTES:
            raise IntegrityError(f"chunks {self.chunks} of {self.dtype} are over 2 GiB")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of items."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Decoded bytes of the whole array."""
        return self.size * self.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))

    @property
    def nchunks(self) -> int:
        return math.prod(self.grid)

    @property
    def block_grid(self) -> tuple[int, ...]:
        """Number of blocks of a full chunk along each axis (``nd``), or in all (``flat``)."""
        if self.layout == "flat":
            return (-(-math.prod(self.chunks) // self.blocks[0]),)
        return tuple(-(-c // b) for c, b in zip(self.chunks, self.blocks, strict=True))

    @property
    def block_items(self) -> int:
        return math.prod(self.blocks)

    @property
    def block_nbytes(self) -> int:
        """Decoded bytes of a full block."""
        return self.block_items * self.itemsize

    @property
    def full_chunk_nbytes(self) -> int:
        """Decoded bytes of a chunk that is not clipped, padding included."""
        if self.layout == "flat":
            return math.prod(self.chunks) * self.itemsize
        return math.prod(self.block_grid) * self.block_nbytes

    def chunk_coords(self, nchunk: int) -> tuple[int, ...]:
        """Grid position of chunk number ``nchunk``."""
        return tuple(int(i) for i in np.unravel_index(nchunk, self.grid)) if self.ndim else ()

    def chunk_extent(self, coords: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what is stored for the chunk at ``coords`` (before padding to blocks)."""
        if self.padded:
            return self.chunks
        return tuple(min(c, n - i * c) for n, c, i in zip(self.shape, self.chunks, coords, strict=True))

    def chunk_nblocks(self, nchunk: int) -> int:
        """Number of blocks of chunk ``nchunk``."""
        if self.padded:
            return math.prod(self.block_grid)
        extent = self.chunk_extent(self.chunk_coords(nchunk))
        if self.layout == "flat":
            return -(-math.prod(extent) // self.blocks[0])
        return math.prod(-(-e // b) for e, b in zip(extent, self.blocks, strict=True))

    def chunk_nbytes(self, nchunk: int) -> int:
        """Decoded bytes of chunk ``nchunk`` as it is stored."""
        if self.padded and self.layout == "nd":
            return self.full_chunk_nbytes
        extent = self.chunk_extent(self.chunk_coords(nchunk))
        # An unpadded chunk ends in a short block in both layouts (only 1-d frames are nd and unpadded).
        return math.prod(extent) * self.itemsize

    def to_json(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "chunks": list(self.chunks),
            "blocks": list(self.blocks),
            "dtype": dtype_to_json(self.dtype),
            "layout": self.layout,
            "padded": self.padded,
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Geometry:
        try:
            layout = form["layout"]
            if layout not in ("nd", "flat"):
                raise IntegrityError(f"unknown layout {layout!r}")
            return cls(
                shape=_ints(form["shape"]),
                chunks=_ints(form["chunks"]),
                blocks=_ints(form["blocks"]),
                dtype=dtype_from_json(form["dtype"]),
                layout=cast("Layout", layout),
                padded=bool(form["padded"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, IntegrityError):
                raise
            raise IntegrityError("malformed geometry") from error


def _ints(form: Any) -> tuple[int, ...]:
    if not isinstance(form, list) or not all(type(n) is int for n in form):
        raise IntegrityError("malformed geometry")
    return tuple(form)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a catalog.

    Attributes
    ----------
    path : str
        Canonical path in the root, with its suffix.
    kind : {"group", "array", "file", "link", "unsupported"}
        ``file``: slices are bytes. ``link``: a link that is not followed. ``unsupported``: see ``reason``.
    id : str
        Opaque id of the dataset; soft links to one dataset share it. Empty for what has no data.
    version : str
        Strong tag of content and geometry. Empty for what has no data. A group with a version is a stored
        file too (an HDF5 file in a directory): ``read_file`` gives its bytes.
    geometry : Geometry or None
        Of arrays and files.
    attrs : dict
        JSON forms (``attributes``); empty when ``attrs_nbytes`` is over the inline limit.
    attrs_tag : str
        Equal exactly when the attributes are.
    attrs_inline : bool
        False: the attributes are too large for a listing; a query of this entry alone has them.
    dims : tuple of str, or None
        Names of the axes.
    cbytes : int
        Compressed bytes as stored; 0 when not known.
    mtime_ns : int
        Last modification, nanoseconds since the epoch; 0 when not known.
    media_type : str
        Of files.
    reason : str
        Why it is unsupported, or why a link is not followed.
    target : str
        What a link points to, as text.
    storage : dict
        How it is stored, for people and for fidelity: ``codec``, ``clevel``, ``filters``, ``vlmeta`` names,
        HDF5's ``maxshape``, ``fillvalue`` and so on. Never needed to decode. A subscriber adds ``rollback_mark``.
    """

    path: str
    kind: EntryKind
    id: str = ""
    version: str = ""
    geometry: Geometry | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    attrs_tag: str = ""
    attrs_inline: bool = True
    dims: tuple[str, ...] | None = None
    cbytes: int = 0
    mtime_ns: int = 0
    media_type: str = ""
    reason: str = ""
    target: str = ""
    storage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.geometry.nbytes if self.geometry else 0

    @property
    def has_data(self) -> bool:
        return self.geometry is not None

    def to_json(self) -> dict[str, Any]:
        """Only what is set: 10,000 entries are one listing."""
        form: dict[str, Any] = {"path": self.path, "kind": self.kind}
        if self.geometry is not None:
            form["geometry"] = self.geometry.to_json()
        names = (
            "id",
            "version",
            "attrs",
            "attrs_tag",
            "cbytes",
            "mtime_ns",
            "media_type",
            "reason",
            "target",
            "storage",
        )
        for name in names:
            value = getattr(self, name)
            if value:
                form[name] = dict(value) if isinstance(value, Mapping) else value
        if not self.attrs_inline:
            form["attrs_inline"] = False
        if self.dims is not None:
            form["dims"] = list(self.dims)
        return form

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Entry:
        from .paths import parse_path

        try:
            kind = form["kind"]
            if kind not in _KINDS:
                raise IntegrityError(f"unknown kind of entry {kind!r}")
            geometry = form.get("geometry")
            dims = form.get("dims")
            entry = cls(
                path=parse_path(str(form["path"])),
                kind=cast("EntryKind", kind),
                id=str(form.get("id", "")),
                version=str(form.get("version", "")),
                geometry=Geometry.from_json(geometry) if geometry is not None else None,
                attrs=dict(form.get("attrs", {})),
                attrs_tag=str(form.get("attrs_tag", "")),
                attrs_inline=bool(form.get("attrs_inline", True)),
                dims=tuple(str(d) for d in dims) if dims is not None else None,
                cbytes=int(form.get("cbytes", 0)),
                mtime_ns=int(form.get("mtime_ns", 0)),
                media_type=str(form.get("media_type", "")),
                reason=str(form.get("reason", "")),
                target=str(form.get("target", "")),
                storage=dict(form.get("storage", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, IntegrityError):
                raise
            raise IntegrityError("malformed catalog entry") from error
        if (entry.kind in ("array", "file")) != (entry.geometry is not None):
            raise IntegrityError(f"entry {entry.path!r} of kind {kind} and its geometry do not go together")
        if entry.geometry is not None and not (_is_token(entry.id) and _is_token(entry.version)):
            raise IntegrityError(f"entry {entry.path!r} has no usable id or version")
        return entry


def _is_token(text: str) -> bool:
    return 0 < len(text) <= 64 and text.isascii() and text.replace("-", "").replace("_", "").isalnum()


def dataset_id(owner: str, path: str) -> str:
    """The id of a dataset: a digest of who owns the root (see the publisher's ``id``) and the path."""
    return hashlib.blake2b(f"{owner}\0{path}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
