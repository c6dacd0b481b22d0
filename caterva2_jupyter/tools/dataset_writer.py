"""The values of one Blosc2 array in an HDF5 dataset: chunks as they are stored where HDF5 can read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5t

from ..core.chunk_grid import BlockPlan
from ..core.metadata import Entry, Geometry
from ..core.selection import Selection
from ..storage.hdf5_chunks import Pipeline, plan_pipeline
from ..storage.hdf5_edge import FOREIGN_ERRORS
from ..storage.root import Root
from .copying import Advance, boxes, chunk_box, read_box, read_chunk, slices
from .hdf5_structure import is_stored_as, write_values
from .stored_chunks import blosc2_chunk, fits_blosc2, hdf5_payload

__all__ = ["attribute_value", "hdf5_type", "shape_for", "write_array"]


def shape_for(dataset: Any, geometry: Geometry) -> tuple[int, ...] | None:
    """The shape that the dataset has to have for an array; None when it is of another type or rank."""
    try:
        own = dataset.get_type().dtype
    except FOREIGN_ERRORS:
        return None
    inner: tuple[int, ...] = ()
    if own.subdtype is not None:
        own, inner = own.subdtype
    ndim = geometry.ndim - len(inner)
    if ndim != dataset.rank or geometry.shape[ndim:] != inner:
        return None
    if h5t.check_string_dtype(own) is not None and own.kind == "O":
        return geometry.shape if geometry.dtype.kind == "S" else None
    if own.itemsize != geometry.itemsize or not (own == geometry.dtype or (own.kind == "V" and own.names is None)):
        return None
    return geometry.shape[:ndim]


def write_array(root: Root, entry: Entry, made: Any, advance: Advance) -> str:
    """All values of an array in a dataset; says how."""
    geometry = entry.geometry
    assert geometry is not None
    if geometry.size == 0:
        return "whole"
    if geometry.ndim == 0:
        write_values(made, (), _encoded(read_box(root, entry, Selection(())), made))
        advance(geometry.nbytes)
        return "whole"
    pipeline = _pipeline(made)
    is_same = made.shape == geometry.shape and is_stored_as(made.id.get_type(), geometry.dtype)
    if pipeline is not None and fits_blosc2(geometry) and is_same and made.chunks == geometry.chunks:
        return _write_chunks(root, entry, made, pipeline, advance)
    ninner = geometry.ndim - len(made.shape)
    chunks = (*(made.chunks or geometry.chunks[: len(made.shape)]), *geometry.shape[len(made.shape) :])
    shape = (*made.shape, *geometry.shape[len(made.shape) :])
    for box in boxes(shape, chunks, geometry.itemsize, ninner):
        values = read_box(root, entry, box)
        write_values(made, slices(box)[: len(made.shape)], _encoded(values, made))
        advance(values.nbytes)
    return "recompressed" if made.chunks else "whole"


def _pipeline(made: Any) -> Pipeline | None:
    properties = made.id.get_create_plist()
    if made.chunks is None or properties.get_nfilters() == 0:
        return None
    found = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    return plan_pipeline([(f[0], f[2]) for f in found], made.dtype.itemsize)


def _write_chunks(root: Root, entry: Entry, made: Any, pipeline: Pipeline, advance: Advance) -> str:
    geometry = entry.geometry
    assert geometry is not None
    nmoved = 0
    is_zero = (
        not np.any(np.frombuffer(np.asarray(made.fillvalue).tobytes(), "u1")) if not made.dtype.hasobject else False
    )
    for projection in BlockPlan(geometry, Selection.whole(geometry.shape)):
        chunk, is_stored = blosc2_chunk(read_chunk(root, entry, projection), geometry)
        box = chunk_box(geometry, projection.nchunk)
        payload = hdf5_payload(chunk, geometry, pipeline)
        if is_zero and chunk[31] & 0x70 == 0x10:
            nmoved += 1  # never written reads the same
        elif payload is not None:
            made.id.write_direct_chunk(tuple(p.start for p in slices(box)), payload)
            nmoved += is_stored
        else:
            write_values(made, slices(box), _encoded(read_box(root, entry, box), made))
        advance(geometry.nbytes // geometry.nchunks)
    return "as stored" if nmoved == geometry.nchunks else "partly as stored" if nmoved else "recompressed"


def hdf5_type(dtype: np.dtype[Any]) -> Any:
    """The dtype in the file of what never was in one."""
    if dtype.kind in "mM":
        return h5py.opaque_dtype(dtype)
    if dtype.kind == "U":
        # HDF5 has UTF-8 in a fixed number of bytes: four are enough for any character.
        return h5py.string_dtype("utf-8", max(1, dtype.itemsize))
    return dtype


def _encoded(values: npt.NDArray[Any], made: Any) -> npt.NDArray[Any]:
    """Values as the dataset has them."""
    string = h5py.check_string_dtype(made.dtype)
    if values.dtype.kind == "U":
        return np.char.encode(values, "utf-8").astype(made.dtype)
    if string is not None and string.length is None:
        out = np.empty(values.shape, object)
        out.ravel()[:] = values.ravel().tolist()
        return out
    if values.dtype.kind in "mM":
        return values.astype(h5py.opaque_dtype(values.dtype))
    return values


def attribute_value(value: Any) -> Any:
    """A value as h5py writes it.

    Raises
    ------
    TypeError
        When HDF5 attributes have no such values.
    """
    if value is None:
        return h5py.Empty("f4")
    if isinstance(value, bytes) and not isinstance(value, np.bytes_):
        return np.void(value) if value else h5py.Empty("S1")
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        return value.astype(h5py.string_dtype())
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
        return np.array(value, h5py.string_dtype())
    if isinstance(value, Mapping):
        raise TypeError("HDF5 attributes cannot be dictionaries")
    return value
