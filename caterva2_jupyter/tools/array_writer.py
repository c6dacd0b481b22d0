"""The values of one HDF5 dataset in a Blosc2 file: chunks as they are stored where Blosc2 can read them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from ..compute.netcdf_attributes import netcdf_attributes
from ..core.attributes import decode_attr
from ..core.chunk_grid import BlockPlan
from ..core.dtypes import is_vlen
from ..core.exact_attributes import MAX_METALAYERS, to_metalayers
from ..core.metadata import Entry, Geometry
from ..core.selection import Selection
from ..errors import IntegrityError, UnsupportedDatasetError
from ..storage.hdf5_chunks import array_record
from ..storage.hdf5_root import Hdf5Root
from .copying import Advance, Report, boxes, read_box, read_chunk, slices
from .frame_writer import FrameWriter
from .import_plan import ImportedArray
from .stored_chunks import blosc2_chunk, fits_blosc2

__all__ = ["ArrayWriter"]

_MAX_STRING_NBYTES = 1 << 20
_MAX_STRINGS_NBYTES = 1 << 40
_BLOCK_NBYTES = 128 << 10
_DIMENSIONS = "_ARRAY_DIMENSIONS"


@dataclass(frozen=True, slots=True)
class ArrayWriter:
    """Writes arrays of an HDF5 file into a directory."""

    root: Hdf5Root
    directory: Path
    report: Report

    def write(self, array: ImportedArray, advance: Advance) -> str:
        """Write an array, and say how: as stored, recompressed, or whole."""
        entry, path = array.entry, self.directory / array.path
        full = entry if entry.attrs_inline else self.root.attributes(entry)
        attrs = netcdf_attributes(full)
        self.report.note_skipped_attributes(array.path, full)
        if missing := entry.storage.get("missing_sources"):
            self.report.note(array.path, f"its source '{missing[0]}' is missing: those values are its fill value")
        if "virtual_sources" in entry.storage or entry.storage.get("layout") == "external":
            self.report.note(array.path, "its values are written, not where they come from")
        geometry = entry.geometry
        assert geometry is not None
        width = 0
        if is_vlen(geometry.dtype):
            width = self._width(array)
            attrs["_Encoding"] = "utf-8"
        layers = self._layers(array, attrs)
        if geometry.ndim == 0 or 0 in array.shape:
            how = self._write_small(array, path, layers, width)
            advance(geometry.nbytes)
            return how
        if fits_blosc2(geometry) and array.shape == geometry.shape:
            return self._move_chunks(array, path, layers, advance)
        return self._write_boxes(array, path, layers, width, advance)

    def _layers(self, array: ImportedArray, attrs: dict[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in attrs.items():
            try:
                to_metalayers({name: value})
                kept[name] = value
            except TypeError as error:
                self.report.note(array.path, f"attribute '{name}' is only kept for cat2export: {error}")
        names = {_DIMENSIONS: list(array.dims)} if array.dims else {}
        return {**names, **to_metalayers(kept, MAX_METALAYERS - 1)}

    def _width(self, array: ImportedArray) -> int:
        """Bytes of the longest string."""
        longest = 2  # of one byte they would be taken for characters
        for _, values in self._values(array.entry):
            lengths = [len(_raw(item)) for item in values.ravel().tolist()]
            longest = max(longest, max(lengths, default=0))
            if any(_raw(item).endswith(b"\0") for item in values.ravel().tolist()):
                raise UnsupportedDatasetError("its strings end in NUL, which those of fixed length cannot")
        size = array.entry.geometry.size if array.entry.geometry else 0
        if longest > _MAX_STRING_NBYTES or longest * size > _MAX_STRINGS_NBYTES:
            raise UnsupportedDatasetError(f"one of its strings has {longest} bytes: all would take as much room")
        return longest

    def _values(self, entry: Entry) -> Iterator[tuple[Selection, npt.NDArray[Any]]]:
        g = entry.geometry
        assert g is not None
        for box in boxes(g.shape, g.chunks, max(g.itemsize, 64)):
            yield box, read_box(self.root, entry, box)

    def _write_small(self, array: ImportedArray, path: Path, layers: Mapping[str, Any], width: int) -> str:
        geometry = array.entry.geometry
        assert geometry is not None
        dtype = np.dtype(f"S{width}") if width else geometry.dtype
        unfinished = path.with_name(f"{path.name}.part")
        settings: dict[str, Any] = {"urlpath": str(unfinished), "mode": "w", "dtype": dtype}
        if geometry.size:
            values = read_box(self.root, array.entry, Selection(()))
            made = blosc2.asarray(np.asarray(_fixed(values, dtype)), **settings)
        else:
            made = blosc2.empty(geometry.shape, **settings)
        for name, value in layers.items():
            made.schunk.vlmeta[name] = value
        os.replace(unfinished, path)
        return "whole"

    def _move_chunks(self, array: ImportedArray, path: Path, layers: Mapping[str, Any], advance: Advance) -> str:
        entry, geometry = array.entry, array.entry.geometry
        assert geometry is not None
        nmoved = 0
        with FrameWriter(path, geometry, layers, _codec_of(entry)) as writer:
            for projection in BlockPlan(geometry, Selection.whole(geometry.shape)):
                chunk, is_stored = blosc2_chunk(read_chunk(self.root, entry, projection), geometry)
                writer.put(projection.nchunk, chunk)
                nmoved += is_stored
                advance(geometry.nbytes // geometry.nchunks)
        return _how(nmoved, geometry.nchunks)

    def _write_boxes(
        self, array: ImportedArray, path: Path, layers: Mapping[str, Any], width: int, advance: Advance
    ) -> str:
        stored = array.entry.geometry
        assert stored is not None
        geometry = _target_geometry(array.entry, np.dtype(f"S{width}") if width else stored.dtype)
        geometry = replace(geometry, shape=array.shape)
        fill = _fill_of(array.entry, geometry.dtype)
        written: set[int] = set()
        with FrameWriter(path, geometry, layers) as writer:
            for box, values in self._values(array.entry):
                values, place = _fixed(values, geometry.dtype), slices(box)
                for projection in BlockPlan(geometry, box):
                    items = _chunk_items(values, place, geometry, projection.nchunk, fill)
                    writer.put(projection.nchunk, _encoded_chunk(items, geometry, projection.nchunk))
                    written.add(projection.nchunk)
                advance(values.nbytes)
            if array.shape != stored.shape:
                nothing = np.broadcast_to(fill, geometry.chunks)
                for nchunk in set(range(geometry.nchunks)) - written:
                    writer.put(nchunk, _encoded_chunk(nothing, geometry, nchunk))
        return "recompressed"


def _chunk_items(
    values: npt.NDArray[Any], place: tuple[slice, ...], geometry: Geometry, nchunk: int, fill: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """The items of a chunk that are in a box, with the fill value where the box ends before the chunk."""
    starts = [i * c for i, c in zip(geometry.chunk_coords(nchunk), geometry.chunks, strict=True)]
    ends = [min(a + c, p.stop) for a, c, p in zip(starts, geometry.chunks, place, strict=True)]
    part = values[tuple(slice(a - p.start, b - p.start) for a, b, p in zip(starts, ends, place, strict=True))]
    if part.shape == geometry.chunks:
        return part
    items = np.empty(geometry.chunks, geometry.dtype)
    items[...] = fill
    items[tuple(slice(n) for n in part.shape)] = part
    return items


def _encoded_chunk(items: npt.NDArray[Any], geometry: Geometry, nchunk: int) -> bytes:
    blocks = list(range(geometry.chunk_nblocks(nchunk)))
    return blosc2_chunk([array_record(0, nchunk, blocks, geometry, items)], geometry)[0]


def _fill_of(entry: Entry, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """What items read as that no one wrote."""
    out = np.zeros((), dtype)
    if "fillvalue" in entry.storage and dtype.kind != "S":
        out[()] = decode_attr(entry.storage["fillvalue"])
    return out


def _how(nmoved: int, nchunks: int) -> str:
    return "as stored" if nmoved == nchunks else "recompressed" if not nmoved else "partly as stored"


def _codec_of(entry: Entry) -> str:
    names = {1: "zlib", 32004: "lz4", 32015: "zstd"}
    return next((names[f["id"]] for f in entry.storage.get("filters", ()) if f["id"] in names), "zstd")


def _raw(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape")


def _fixed(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Strings in a fixed number of bytes; other values as they are."""
    if values.dtype.kind != "O":
        return values
    out = np.empty(values.shape, dtype)
    out.ravel()[:] = [_raw(item) for item in values.ravel().tolist()]
    return out


def _target_geometry(entry: Entry, dtype: np.dtype[Any]) -> Geometry:
    """Chunks as in HDF5, where they are not those of a larger piece that is read at once; blocks of our own."""
    stored = entry.geometry
    assert stored is not None
    own = entry.storage.get("chunks")
    chunks = stored.chunks
    if isinstance(own, list) and len(own) <= stored.ndim:
        candidate = (*(int(n) for n in own), *stored.shape[len(own) :])
        if all(c % n == 0 or c >= length for c, n, length in zip(stored.chunks, candidate, stored.shape, strict=True)):
            chunks = candidate
    chunks = tuple(max(1, c) for c in chunks)
    if np.prod(chunks, dtype=float) * dtype.itemsize >= 2**31 - 64:
        raise IntegrityError("its chunks take over 2 GiB")
    blocks = list(chunks)
    while np.prod(blocks, dtype=float) * dtype.itemsize > _BLOCK_NBYTES and max(blocks) > 1:
        axis = blocks.index(max(blocks))
        blocks[axis] = -(-blocks[axis] // 2)
    return replace(stored, chunks=chunks, blocks=tuple(blocks), dtype=dtype, layout="nd", padded=True)
