"""What the older system's clients are told: its metadata JSON and its chunks, from what we know.

Pure functions for the old REST of all services; what it cannot carry is listed in REST v1 alone.
Nothing here is read back by our own clients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import IntegrityError, UnsupportedDatasetError
from .assembly import Assembler
from .attributes import decode_attr
from .blocks import BlockRecord, mini_chunk
from .chunk_grid import BlockPlan
from .codec import encode_blocks
from .dtypes import is_vlen
from .metadata import Entry, Geometry
from .selection import Selection

__all__ = ["chunk_bytes", "chunk_selection", "info_json", "is_listed"]

Array = npt.NDArray[Any]

_CODECS = {"blosclz": 0, "lz4": 1, "lz4hc": 2, "zlib": 4, "zstd": 5}
_FILTERS = {"nofilter": 0, "shuffle": 1, "bitshuffle": 2, "delta": 3, "trunc_prec": 4, "bytedelta": 35, "int_trunc": 36}
_FIRST_MTIME = datetime(1970, 1, 1, tzinfo=UTC)


def is_listed(entry: Entry) -> bool:
    """Does the old REST know of such entries? (No groups, links, nor what cannot be served.)"""
    return entry.geometry is not None and not is_vlen(entry.geometry.dtype)


def info_json(entry: Entry, urlpath: str = "None", cbytes: int | None = None) -> dict[str, Any]:
    """Metadata of a dataset as ``/api/info`` tells it.

    Parameters
    ----------
    entry : Entry
    urlpath : str
        Where the dataset is said to be: ``ROOT/PATH``; never a path of a server's disk.
    cbytes : int, optional
        Compressed bytes, where they are not those of the source (a cache).

    Raises
    ------
    UnsupportedDatasetError
        For what has no data.

    Examples
    --------
    >>> geometry = Geometry((4, 5), (2, 5), (1, 5), np.dtype("i4"))
    >>> list(info_json(Entry("x.b2nd", "array", id="a", version="b", geometry=geometry)))
    ['shape', 'chunks', 'blocks', 'dtype', 'schunk', 'mtime']
    """
    geometry = entry.geometry
    if geometry is None:
        why = f": {entry.reason}" if entry.reason else ""
        raise UnsupportedDatasetError(f"{entry.path!r} is of kind {entry.kind}{why}")
    expression = entry.storage.get("caterva2_expression")
    if isinstance(expression, Mapping):
        form = {"shape": list(geometry.shape), "dtype": str(geometry.dtype), **expression}
        return {**form, "mtime": _mtime_text(entry.mtime_ns)}
    schunk = _schunk_json(entry, geometry, urlpath, entry.cbytes if cbytes is None else cbytes)
    mtime = _mtime_text(entry.mtime_ns)
    if entry.kind == "file":
        return {**schunk, "mtime": mtime}
    return {
        "shape": list(geometry.shape),
        "chunks": list(geometry.chunks),
        "blocks": list(_legacy_blocks(entry, geometry)),
        "dtype": str(geometry.dtype),
        "schunk": {**schunk, "mtime": None},
        "mtime": mtime,
    }


def _schunk_json(entry: Entry, geometry: Geometry, urlpath: str, cbytes: int) -> dict[str, Any]:
    itemsize = max(geometry.itemsize, 1)
    chunk_nbytes = geometry.full_chunk_nbytes if _is_native(entry) else math.prod(geometry.chunks) * geometry.itemsize
    # Super-chunks count the padding of arrays.
    nbytes = geometry.nbytes if _is_frame(entry) else geometry.nchunks * chunk_nbytes
    return {
        "cbytes": cbytes,
        "chunkshape": chunk_nbytes // itemsize,
        "chunksize": chunk_nbytes,
        "contiguous": bool(entry.storage.get("contiguous", True)),
        "cparams": _cparams_json(entry.storage, geometry, math.prod(_legacy_blocks(entry, geometry)) * itemsize),
        "cratio": nbytes / cbytes if cbytes else 0.0,
        "nbytes": nbytes,
        "urlpath": urlpath,
        "vlmeta": {name: _plain(decode_attr(form)) for name, form in entry.attrs.items()},
        "nchunks": geometry.nchunks,
    }


def _cparams_json(storage: Mapping[str, Any], geometry: Geometry, blocksize: int) -> dict[str, Any]:
    filters = _pipeline(storage.get("filters"), default=1 if geometry.itemsize > 1 else 0)
    meta = _pipeline(storage.get("filters_meta"), default=0)
    return {
        "codec": _number(storage.get("codec"), _CODECS, 5),
        "codec_meta": _number(storage.get("codec_meta"), {}, 0),
        "clevel": _number(storage.get("clevel"), {}, 1),
        "filters": filters,
        "filters_meta": meta,
        "typesize": _number(storage.get("typesize"), {}, geometry.itemsize if 0 < geometry.itemsize <= 255 else 1),
        "blocksize": blocksize,
        "nthreads": 1,
        "splitmode": _number(storage.get("splitmode"), {}, 1),
        "tuner": 0,
        "use_dict": bool(storage.get("use_dict", False)),
        "filters, meta": [[f, m] for f, m in zip(filters, meta, strict=True) if f],
    }


def _number(value: Any, names: Mapping[str, int], default: int) -> int:
    if isinstance(value, int):
        return value
    return names.get(str(value).lower(), default)


def _pipeline(value: Any, default: int) -> list[int]:
    """Six filters (or their parameters), the last one applied first."""
    is_pipeline = isinstance(value, (list, tuple)) and all(isinstance(f, (int, str)) for f in value)
    listed = value if is_pipeline else [default]  # HDF5's filters are others
    numbers = [_number(f, _FILTERS, 0) for f in listed][-6:]
    return [0] * (6 - len(numbers)) + numbers


def _mtime_text(mtime_ns: int) -> str | None:
    if not mtime_ns:
        return None
    # By integers: the microseconds have to be those of the file.
    seconds, rest_ns = divmod(mtime_ns, 10**9)
    try:
        moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    except (OverflowError, ValueError, OSError):
        moment = _FIRST_MTIME
    return moment.isoformat().replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    """An attribute as plain JSON; bytes as text, arrays as lists."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def chunk_selection(geometry: Geometry, nchunk: int) -> list[Any]:
    """JSON form of the selection of all that is in one chunk.

    Raises
    ------
    IntegrityError
        When there is no such chunk.
    """
    if not 0 <= nchunk < geometry.nchunks:
        raise IntegrityError(f"no chunk {nchunk} in a dataset of {geometry.nchunks}")
    coords = geometry.chunk_coords(nchunk)
    return [[i * c, min((i + 1) * c, n), 1] for i, c, n in zip(coords, geometry.chunks, geometry.shape, strict=True)]


def chunk_bytes(entry: Entry, nchunk: int, records: Iterable[BlockRecord]) -> bytes:
    """One compressed Blosc2 chunk, as it would be in a super-chunk of the shape that ``info_json`` tells.

    Parameters
    ----------
    records : iterable of BlockRecord
        Of that chunk; together they hold the blocks of ``chunk_selection`` at least.

    Raises
    ------
    UnsupportedDatasetError
        For what the old REST cannot carry.

    Notes
    -----
    A chunk that came in one piece is passed on as it is; others are put together and compressed again.
    """
    geometry = entry.geometry
    if geometry is None or not is_listed(entry):
        raise UnsupportedDatasetError(f"chunks of {entry.path!r} cannot be served by the old REST")
    listed = list(records)
    if _is_native(entry) and len(listed) == 1:
        passed_on = _passed_on(geometry, nchunk, listed[0])
        if passed_on is not None:
            return passed_on
    selection = Selection.from_json(chunk_selection(geometry, nchunk), geometry.shape)
    projection = next(iter(BlockPlan(geometry, selection)))
    assembler = Assembler(geometry, selection)
    for record in listed:
        assembler.add(projection, record)
    if _is_frame(entry):
        return _compressed(nchunk, assembler.out, geometry)
    full = np.zeros(geometry.chunks, geometry.dtype)
    full[tuple(slice(0, n) for n in assembler.out.shape)] = assembler.out
    blocks = _legacy_blocks(entry, geometry)
    alone = Geometry(geometry.chunks, geometry.chunks, blocks, geometry.dtype)
    return _compressed(0, _block_major(full, blocks), alone)


def _is_frame(entry: Entry) -> bool:
    """Is it a super-chunk without array, whose chunks are runs of items and end where it ends?"""
    return entry.kind == "file"


def _is_native(entry: Entry) -> bool:
    """Are its chunks laid out as Blosc2 itself does?"""
    geometry = entry.geometry
    return geometry is not None and (_is_frame(entry) or (geometry.layout == "nd" and geometry.padded))


def _legacy_blocks(entry: Entry, geometry: Geometry) -> tuple[int, ...]:
    return geometry.blocks if _is_native(entry) else geometry.chunks


def _passed_on(geometry: Geometry, nchunk: int, record: BlockRecord) -> bytes | None:
    if record.is_whole:
        return bytes(record.body)
    nblocks = geometry.chunk_nblocks(nchunk)
    if len(record.ids) != nblocks:
        return None
    small = mini_chunk(record, nblocks - 1, geometry.chunk_nbytes(nchunk) - (nblocks - 1) * geometry.block_nbytes)
    return None if small.skip_nbytes else bytes(small.chunk)


def _block_major(chunk: Array, blocks: tuple[int, ...]) -> Array:
    """The items of a chunk block by block, blocks at its edges filled up with zeros."""
    counts = [-(-c // b) for c, b in zip(chunk.shape, blocks, strict=True)]
    filled = np.zeros([n * b for n, b in zip(counts, blocks, strict=True)], chunk.dtype)
    filled[tuple(slice(0, c) for c in chunk.shape)] = chunk
    split = filled.reshape([n for pair in zip(counts, blocks, strict=True) for n in pair])
    return split.transpose([*range(0, 2 * chunk.ndim, 2), *range(1, 2 * chunk.ndim, 2)])


def _compressed(nchunk: int, items: Array, geometry: Geometry) -> bytes:
    ids = range(geometry.chunk_nblocks(nchunk))
    record = encode_blocks(0, nchunk, ids, items.tobytes(), geometry)
    last_nbytes = geometry.chunk_nbytes(nchunk) - (len(ids) - 1) * geometry.block_nbytes
    return bytes(mini_chunk(record, len(ids) - 1, last_nbytes).chunk)
