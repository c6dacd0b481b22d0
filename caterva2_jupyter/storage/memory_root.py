"""A root of arrays in memory: for tests, and for publishing arrays from a notebook.

Arrays are copied when they are set, so a version always means the same items; equal content has the
same version in every run. Nothing is written to disk.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.attributes import INLINE_ATTRS_NBYTES, attrs_tag, encode_attrs
from ..core.blocks import BlockRecord, checksum_seed
from ..core.chunk_grid import ChunkProjection
from ..core.codec import encode_blocks, encode_strings
from ..core.dtypes import VLEN_UTF8, is_vlen
from ..core.events import Event
from ..core.metadata import Entry, Geometry, Layout, dataset_id
from ..core.paths import is_at_or_below, parent, parse_path
from ..errors import DatasetChangedError, UnsupportedDatasetError
from .root import KnownEntry, Root, StoredFile

__all__ = ["MemoryRoot"]

CHUNK_NBYTES, BLOCK_NBYTES = 4 << 20, 64 << 10
PART_NBYTES = 256 << 10

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Dataset:
    """An entry with all its attributes, and its items (None: it has none)."""

    entry: Entry
    array: Array | None


class MemoryRoot(Root):
    """Arrays, byte strings (as files) and groups by path.

    Parameters
    ----------
    arrays : mapping of str to array-like or bytes
        What is there at first, see ``set``.
    owner_id : str
        Of the root's owner; part of the ids of its datasets.

    Examples
    --------
    >>> root = MemoryRoot({"dir/a.b2nd": np.arange(6).reshape(2, 3), "readme.md": b"hello"})
    >>> [(entry.path, entry.kind) for entry, _ in root.scan([])]
    [('dir', 'group'), ('dir/a.b2nd', 'array'), ('readme.md', 'file')]
    """

    def __init__(self, arrays: Mapping[str, npt.ArrayLike | bytes] | None = None, owner_id: str = "memory") -> None:
        self.watched = Path("memory")
        self._owner_id = owner_id
        self._lock = threading.Lock()
        self._datasets: dict[str, _Dataset] = {}
        for path, array in (arrays or {}).items():
            self.set(path, array)

    def set(
        self,
        path: str,
        array: npt.ArrayLike | bytes,
        *,
        attrs: Mapping[str, object] | None = None,
        dims: Sequence[str] | None = None,
        chunks: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        layout: Layout = "nd",
        padded: bool = True,
    ) -> None:
        """Put a dataset at a path, in place of what was there.

        Parameters
        ----------
        array : array-like or bytes
            Bytes become a file. Object arrays of ``str`` become strings of variable length; any other
            object array is listed as unsupported.
        chunks, blocks, layout, padded
            As in ``Geometry``; by default chunks of 4 MiB and blocks of 64 KiB.
        """
        if isinstance(array, bytes):
            items = np.frombuffer(array, np.uint8)
            geometry = Geometry(items.shape, (CHUNK_NBYTES,), (BLOCK_NBYTES,), items.dtype, "flat", False)
            self._put(path, Entry(path, "file", geometry=geometry, dims=None), items, attrs)
            return
        items = np.array(array, order="C", copy=True)
        items.flags.writeable = False
        names = tuple(dims) if dims is not None else None
        if items.dtype.hasobject and not all(isinstance(item, str) for item in items.ravel().tolist()):
            reason = f"arrays of dtype {items.dtype} cannot be served"
            self._put(path, Entry(path, "unsupported", reason=reason, dims=names), None, attrs)
            return
        if items.dtype.hasobject:
            chunks = tuple(chunks or _fit(items.shape, 10_000))
            geometry = Geometry(items.shape, chunks, (math.prod(chunks),), VLEN_UTF8, "flat", False)
        else:
            itemsize = max(items.itemsize, 1)
            chunks = tuple(chunks or _fit(items.shape, max(1, CHUNK_NBYTES // itemsize)))
            if not blocks:
                blocks = _fit(chunks, max(1, BLOCK_NBYTES // itemsize))
                blocks = (math.prod(blocks),) if layout == "flat" else blocks
            geometry = Geometry(items.shape, chunks, tuple(blocks), items.dtype, layout, padded)
        self._put(path, Entry(path, "array", geometry=geometry, dims=names), items, attrs)

    def set_group(self, path: str, attrs: Mapping[str, object] | None = None) -> None:
        """Make a group, or give one attributes; ``""`` is the root itself."""
        self._put(path, Entry(path, "group"), None, attrs)

    def delete(self, path: str) -> None:
        """Remove a dataset, or a group and all below it.

        Raises
        ------
        KeyError
            When nothing is there.
        """
        with self._lock:
            gone = [p for p in self._datasets if is_at_or_below(p, path)]
            if not gone:
                raise KeyError(path)
            self._datasets = {p: d for p, d in self._datasets.items() if p not in gone}

    def _put(self, path: str, entry: Entry, array: Array | None, attrs: Mapping[str, object] | None) -> None:
        parse_path(path)
        forms, skipped = encode_attrs(attrs or {})
        entry = replace(entry, attrs=forms, attrs_tag=attrs_tag(forms) if forms else "")
        if skipped:
            entry = replace(entry, storage={"skipped_attrs": skipped})
        if array is not None and entry.geometry is not None:
            entry = replace(
                entry, id=dataset_id(self._owner_id, path), version=_version(array, entry.geometry), cbytes=array.nbytes
            )
        with self._lock:
            self._datasets = {**self._datasets, path: _Dataset(entry, array)}

    def _listed(self) -> dict[str, Entry]:
        """Every entry as a catalog has it, ascending by path."""
        entries = {path: dataset.entry for path, dataset in self._datasets.items()}
        for path in list(entries):
            group = path
            while group := parent(group):
                entries.setdefault(group, Entry(group, "group"))
        return {path: _for_listing(entries[path]) for path in sorted(entries)}

    def scan(self, known: Iterable[KnownEntry]) -> Iterator[tuple[Entry, str]]:
        for entry in self._listed().values():
            yield entry, _stamp(entry)

    def rescan(self, paths: Iterable[Path], known: Iterable[KnownEntry]) -> Iterator[tuple[Event, str]]:
        prefixes = [path.relative_to(self.watched).as_posix() for path in paths]
        prefixes = ["" if prefix == "." else prefix for prefix in prefixes]
        stamps = {k.entry.path: k.stamp for k in known}

        def is_looked_at(path: str) -> bool:
            return any(is_at_or_below(path, prefix) for prefix in prefixes)

        listed = {path: entry for path, entry in self._listed().items() if is_looked_at(path)}
        for path, entry in listed.items():
            if stamps.get(path) != _stamp(entry):
                yield Event("put", path, entry), _stamp(entry)
        for path in stamps:
            if path not in listed and is_looked_at(path):
                yield Event("delete", path), ""

    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]:
        array, geometry = self._array(entry)
        seed = checksum_seed(entry.id, entry.version)
        coords = projection.coords
        extent = geometry.chunk_extent(coords)
        start = [i * c for i, c in zip(coords, geometry.chunks, strict=True)]
        inside: list[Any] = [slice(s, s + e) for s, e in zip(start, extent, strict=True)]
        part = array[(*inside, ...)]
        if is_vlen(geometry.dtype):
            return [encode_strings(seed, projection.nchunk, part.ravel().tolist())]
        raw = b"".join(_block(part, extent, geometry, int(block)) for block in blocks)
        return [encode_blocks(seed, projection.nchunk, list(map(int, blocks)), raw, geometry)]

    def _array(self, entry: Entry) -> tuple[Array, Geometry]:
        dataset = self._datasets.get(entry.path)
        if dataset is None or dataset.entry.version != entry.version:
            raise DatasetChangedError(f"dataset {entry.path!r} changed: version {entry.version} is gone")
        if dataset.array is None or dataset.entry.geometry is None:
            raise UnsupportedDatasetError(f"{entry.path!r} has no data: {entry.reason or entry.kind}")
        return dataset.array, dataset.entry.geometry

    def read_file(self, entry: Entry, start: int, stop: int | None) -> StoredFile:
        if entry.kind != "file":
            raise UnsupportedDatasetError(f"{entry.path!r} is not stored as a file")
        array, _ = self._array(entry)
        end = len(array) if stop is None else min(stop, len(array))
        parts = (array[i : min(i + PART_NBYTES, end)].tobytes() for i in range(start, end, PART_NBYTES))
        return StoredFile(len(array), entry.version, entry.mtime_ns, parts)

    def attributes(self, entry: Entry) -> Entry:
        dataset = self._datasets.get(entry.path)
        if dataset is None or dataset.entry.attrs_tag != entry.attrs_tag:
            return entry
        return replace(entry, attrs=dataset.entry.attrs, attrs_inline=True)

    def close(self) -> None:
        """Nothing is open."""


def _for_listing(entry: Entry) -> Entry:
    if len(json.dumps(entry.attrs)) <= INLINE_ATTRS_NBYTES:
        return entry
    return replace(entry, attrs={}, attrs_inline=False)


def _stamp(entry: Entry) -> str:
    return f"{entry.kind}:{entry.version}:{entry.attrs_tag}:{','.join(entry.dims or ())}"


def _version(array: Array, geometry: Geometry) -> str:
    digest = hashlib.blake2b(json.dumps(geometry.to_json()).encode(), digest_size=12)
    if array.dtype.hasobject:
        digest.update(json.dumps(array.ravel().tolist()).encode())
    else:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _fit(shape: Sequence[int], max_items: int) -> tuple[int, ...]:
    """A partition of at most ``max_items``: trailing axes whole, leading ones cut."""
    part = [max(1, n) for n in shape]
    for axis in range(len(part)):
        part[axis] = min(part[axis], max(1, max_items // math.prod(part[axis + 1 :])))
    return tuple(part)


def _block(part: Array, extent: tuple[int, ...], geometry: Geometry, block: int) -> bytes:
    """Decoded bytes of one block of a chunk, padded as the geometry says."""
    if geometry.layout == "flat" or not geometry.padded:
        items = _padded(part, extent).reshape(-1)
        return items[block * geometry.blocks[0] : (block + 1) * geometry.blocks[0]].tobytes()
    grid = tuple(-(-e // b) for e, b in zip(extent, geometry.blocks, strict=True))
    coords = np.unravel_index(block, grid) if grid else ()
    starts = [int(c) * b for c, b in zip(coords, geometry.blocks, strict=True)]
    inside = part[tuple(slice(s, s + b) for s, b in zip(starts, geometry.blocks, strict=True))]
    return _padded(inside, geometry.blocks).tobytes()


def _padded(part: Array, shape: tuple[int, ...]) -> Array:
    if part.shape == shape:
        return part
    full: Array = np.zeros(shape, part.dtype)
    full[tuple(itertools.starmap(slice, ((0, n) for n in part.shape)))] = part
    return full
