"""A directory as a root: its files are datasets, its directories groups, its HDF5 files groups of their own.

It decides what each file is (``Entry``), finds what changed since an earlier scan without opening what did
not, and hands reads to whoever knows the format: ``blosc2_file``, ``plain_file``, or a ``StoredTree`` for HDF5.
A file that cannot be read yet, perhaps because it is still being written, is not told until it can be.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from mimetypes import MimeTypes
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from ..core.attributes import attrs_tag, encode_attrs
from ..core.blocks import BlockRecord, checksum_seed
from ..core.chunk_grid import ChunkProjection
from ..core.events import Event
from ..core.exact_attributes import EXACT_KEY, exact_attrs
from ..core.group_file import GROUP_FILE, MAX_GROUP_FILE_NBYTES, parse_group_file
from ..core.metadata import Entry, EntryKind, dataset_id
from ..core.paths import MAX_PATH_BYTES, join, parent, parse_path
from ..errors import (
    AccessDeniedError,
    DatasetChangedError,
    DatasetNotFoundError,
    IntegrityError,
    InvalidPathError,
    SourceUnavailableError,
    UnsupportedDatasetError,
)
from .blosc2_file import (
    SPARSE_INDEX,
    FrameFile,
    FrameIndex,
    open_frame,
    read_blocks,
    read_blocks_at_once,
    settled_generation,
)
from .frame_format import decode_metalayer, decode_vlmeta
from .generation import Generation, version_tag
from .open_frames import OpenFrames
from .plain_file import plain_geometry, read_parts, read_plain_blocks
from .root import KnownEntry, ReadChunk, Root, StoredFile
from .safe_open import OpenedPath, open_directory, open_file, read_at

__all__ = ["INLINE_ATTRS_NBYTES", "DirectoryRoot", "StoredTree", "StoredTreeFactory"]

INLINE_ATTRS_NBYTES = 64 << 10
HDF5_TYPE = "application/x-hdf5"

_FRAME_SUFFIXES = (".b2nd", ".b2frame", ".b2f")
_CONTAINERS = {
    ".b2z": "a store of several datasets in one file, which is not served as such yet",
    ".b2e": "a store of several datasets in one frame, which is not served as such yet",
}
_FRAME_FORMATS = ("b2nd", "b2frame")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".nxs", ".cdf", ".mat", ".h5ad", ".loom")
_MAX_USERBLOCK_NBYTES = 1 << 20
# What editors, downloads, rsync, network file systems and Blosc2 itself put beside a file for a while.
_TEMPORARY = re.compile(
    r"\.caterva2.*|.*\.tmp|.*~|\.#.*|.*\.part|\..*\.sw[a-z]|\.nfs[0-9a-f]+|\.fuse_hidden.*|.*\.b2lock"
    r"|\..+\.(?=\w*[A-Z0-9])[A-Za-z0-9]{6}",
    re.DOTALL,
)
_MAX_NESTED_LINKS = 2
_MAX_HELD_NBYTES = 64 << 20
_DESCRIBE_TRIES = 3
_GROUP_STAMP = "group"


class StoredTree(Protocol):
    """A file with datasets in it (HDF5). Paths of its entries are relative to the file."""

    def stamp_with(self, sources: Iterable[str]) -> str:
        """The state of the file and of others (paths in the root) that its content comes from."""
        ...

    def stamped_entries(self) -> list[tuple[Entry, str]]:
        """Every entry, its own (path ``""``) with ``storage["sources"]`` first."""
        ...

    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]: ...

    def attributes(self, entry: Entry) -> Entry: ...


_Item = tuple[str, os.stat_result, str]  # name, status, target of a link

StoredTreeFactory = Callable[[Path, str], StoredTree]
"""Makes a ``StoredTree`` of a file's path and the owner id that its datasets' ids are made with."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A path as it is listed, where that really is, and how many links led there."""

    path: str
    real: str
    nlinks: int = 0


class DirectoryRoot(Root):
    """The root that a directory is.

    Parameters
    ----------
    path : Path
    owner_id : str
        Of the publisher; ids of datasets are made with it.
    hdf5 : callable or None
        Makes the ``StoredTree`` of an HDF5 file; None: they are files like any other.
    patience_s : float
        How long after its last change a file that cannot be opened counts as still being written.

    Notes
    -----
    Links are followed as long as they stay inside the root; hard links cannot be told from files.
    """

    _temporary = _TEMPORARY
    _decodes = True  # chunks that have to be encoded anew for others

    def __init__(
        self, path: Path, owner_id: str, hdf5: StoredTreeFactory | None = None, patience_s: float = 10.0
    ) -> None:
        self.watched = Path(os.path.abspath(path))
        self._owner_id = owner_id
        self._hdf5 = hdf5
        self._patience_ns = int(patience_s * 1e9)
        self._types = MimeTypes()
        self._types.add_type("text/markdown", ".md")
        self._lock = Lock()
        self._indices: OrderedDict[tuple[str, str], FrameIndex] = OrderedDict()
        self._held_nbytes = 0
        self._open_frames = OpenFrames()
        self._directories: set[str] = set()  # groups, and sparse frames
        self._links: dict[str, str] = {}
        self._unsettled: set[str] = set()
        self._dependents: dict[str, tuple[str, ...]] = {}
        # Listed through links, or out of several files: a change is seen elsewhere than it is told.
        self._indirect: set[str] = set()

    def close(self) -> None:
        self._open_frames.clear()
        with self._lock:
            self._indices.clear()
            self._held_nbytes = 0

    def close_idle(self) -> bool:
        return self._open_frames.close_old()

    # What is there

    def scan(self, known: Iterable[KnownEntry]) -> Iterator[tuple[Entry, str]]:
        catalog = _Catalog(known)
        self._directories.clear()
        self._links.clear()
        self._unsettled.clear()
        self._dependents.clear()
        self._indirect.clear()
        yield from self._walk(_Place("", ""), catalog)

    def rescan(self, paths: Iterable[Path], known: Iterable[KnownEntry]) -> Iterator[tuple[Event, str]]:
        catalog = _Catalog(known)
        for unit in self._units(paths):
            yield from self._rescan_unit(unit, catalog)

    def unsettled(self) -> list[Path]:
        """Files that are not told yet because they could not be opened: rescan them in a while."""
        return [self.watched / path for path in sorted(self._unsettled)]

    def _units(self, paths: Iterable[Path]) -> list[str]:
        """The files and directories to look at, for paths that were reported; none below another."""
        bases = {str(self.watched), os.path.realpath(self.watched)}
        units: set[str] = set()
        for path in paths:
            text = os.path.abspath(path)
            for base in bases:
                if text == base:
                    units.add("")
                elif text.startswith(base.rstrip("/") + "/"):
                    unit = self._unit(text[len(base.rstrip("/")) + 1 :])
                    if unit is not None:
                        units.add(unit)
        # HDF5 files whose values come from others, and links, change with what they lead to.
        for file, sources in list(self._dependents.items()):
            if any(_is_at_or_below(source, unit) for source in sources for unit in units):
                units.add(file)
        for link, real in list(self._links.items()):
            for unit in list(units):
                if unit == real or unit.startswith(real + "/"):
                    units.add(link + unit[len(real) :])
                elif real.startswith(unit + "/"):
                    units.add(link)
        return [unit for unit in sorted(units) if not any(_is_below(unit, other) for other in units)]

    def _unit(self, path: str) -> str | None:
        """The first part of a path that is not a mere directory; None for temporary files."""
        if path.rpartition("/")[2] == GROUP_FILE:
            path = parent(path)
            if not path:
                return path
        names = path.split("/")
        if any(self._temporary.fullmatch(name) for name in names):
            return None
        for i in range(len(names)):
            prefix = "/".join(names[: i + 1])
            try:
                mode = os.stat(self.watched / prefix, follow_symlinks=i + 1 < len(names)).st_mode
            except OSError:
                return prefix
            if not stat.S_ISDIR(mode) or os.path.lexists(self.watched / prefix / SPARSE_INDEX):
                return prefix
        return path

    # For roots that list files under other names than they have on disk (``area``)

    def _unit_names(self, unit: str) -> tuple[str, str]:
        """Where a file or directory is, and how it is listed."""
        return unit, "/".join(_listed_name(name) for name in unit.split("/")) if unit else ""

    def _shown(self, items: list[_Item]) -> list[_Item]:
        """What is listed of a directory's items."""
        return items

    def _listed(self, place: _Place, status: os.stat_result) -> _Place:
        """The place of a file, under the path that it is listed at."""
        return place

    def _stored_at(self, entry: Entry) -> str:
        """Where the file of an entry is, that is not inside of another."""
        return entry.path

    def _describer(self, place: _Place) -> Callable[[_Place], list[tuple[Entry, str]]]:
        return self._describe_frame if _suffix(place.path) in _FRAME_SUFFIXES else self._describe_other

    def _rescan_unit(self, unit: str, catalog: _Catalog) -> Iterator[tuple[Event, str]]:
        unit, listed = self._unit_names(unit)
        directories = self._directories
        found: dict[str, tuple[Entry, str]] = {}
        if unit and os.path.lexists(self.watched / unit):
            found |= {g: (self._group(g, g), _GROUP_STAMP) for g in _parents(listed) if g not in directories}
        # Copies are iterated: a scan may be under way in another thread.
        gone = {path for path in list(self._indirect) if _is_at_or_below(path, listed)}
        self._indirect -= gone
        gone |= {path for path in list(directories) if _is_at_or_below(path, listed)}
        gone |= set(catalog.at_or_below(listed))
        self._unsettled -= {path for path in list(self._unsettled) if _is_at_or_below(path, unit)}
        for remembered in (self._links, self._dependents):
            for path in [path for path in list(remembered) if _is_at_or_below(path, unit)]:
                remembered.pop(path, None)
        place = self._place(unit)
        if place is not None:
            items = self._walk(place, catalog) if unit == "" else self._look(place, catalog)
            found |= {entry.path: (entry, stamp) for entry, stamp in items}
            if place.nlinks:
                self._indirect.update(found)
        for path in sorted(gone - set(found), reverse=True):  # children before their groups
            directories.discard(path)
            yield Event("delete", path), ""
        for path, (entry, stamp) in found.items():
            if stamp == _GROUP_STAMP:
                directories.add(path)
            before = catalog.get(path)
            if before is None or before.stamp != stamp or before.entry != entry:
                yield Event("put", path, entry), stamp

    def _place(self, path: str) -> _Place | None:
        """Where a path is; None when its directory is not there or not inside the root."""
        if not path:
            return _Place("", "")
        nlinks = sum(1 for link in list(self._links) if path.startswith(link + "/"))
        try:
            with open_directory(self.watched, parent(path)) as directory:
                return _Place(path, join(directory.path, path.rpartition("/")[2]), nlinks)
        except (DatasetNotFoundError, AccessDeniedError):
            return None

    def _look(self, place: _Place, catalog: _Catalog) -> Iterator[tuple[Entry, str]]:
        """What is at a place whose directory is there (file names as they are on disk)."""
        try:
            with open_directory(self.watched, parent(place.real)) as directory:
                name = place.real.rpartition("/")[2]
                status = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
                target = os.readlink(name, dir_fd=directory.fd) if stat.S_ISLNK(status.st_mode) else ""
        except (OSError, ValueError):
            return
        yield from self._sort(self._listed(place, status), status, target, catalog)

    def _walk(self, start: _Place, catalog: _Catalog) -> Iterator[tuple[Entry, str]]:
        """What is at and below a directory. Explicitly, not by recursion: trees may be deep."""
        pending: list[tuple[bool, Iterator[_Place | tuple[Entry, str]]]] = [(False, iter([start]))]
        while pending:
            is_linked, items = pending[-1]
            item = next(items, None)
            if item is None:
                pending.pop()
            elif isinstance(item, _Place):
                pending.append((item.nlinks > 0, self._directory(item, catalog)))
            else:
                if is_linked:
                    self._indirect.add(item[0].path)
                yield item

    def _directory(self, place: _Place, catalog: _Catalog) -> Iterator[_Place | tuple[Entry, str]]:
        """A directory's own entry, its files' entries, and the directories in it."""
        try:
            with open_directory(self.watched, place.real) as directory:
                own = Generation.from_stat(directory.status)
                items = self._shown(_items(directory.fd, self._temporary))
        except OSError as error:  # ours are OSErrors too
            yield from self._not_listed(place, error, catalog)
            return
        names = {name for name, _, _ in items}
        is_begun = _suffix(place.path) in _FRAME_SUFFIXES and all(name.endswith(".chunk") for name in names)
        if place.path and (SPARSE_INDEX in names or is_begun):
            self._directories.add(place.path)
            yield from self._frame_directory(place, own, catalog)
            return
        group = self._group(place.path, place.real)
        if place.path or group.attrs_tag or group.storage:
            yield group, _GROUP_STAMP
        if place.path:
            self._directories.add(place.path)
        for name, status, target in items:
            child = self._child(place, name)
            if child is None:
                continue
            if _listed_name(name) != name:
                yield self._unsupported(child, "its name is not text that can travel (UTF-8)"), ""
            elif stat.S_ISDIR(status.st_mode):
                yield child
            elif stat.S_ISLNK(status.st_mode):
                yield from self._link(child, target, catalog)
            else:
                yield from self._sort(self._listed(child, status), status, "", catalog)

    def _group(self, path: str, real: str) -> Entry:
        """The entry of a directory, with the attributes that the file in it gives."""
        attrs, storage = self._group_file(real)
        tag = attrs_tag(attrs) if attrs else ""
        inline = sum(len(str(v)) + len(k) for k, v in attrs.items()) <= INLINE_ATTRS_NBYTES
        return Entry(path, "group", attrs=attrs if inline else {}, attrs_tag=tag, attrs_inline=inline, storage=storage)

    def _group_file(self, real: str) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            with open_file(self.watched, join(real, GROUP_FILE)) as file:
                if file.status.st_size > MAX_GROUP_FILE_NBYTES:
                    return {}, {"attrs_skipped": {GROUP_FILE: f"over {MAX_GROUP_FILE_NBYTES} bytes"}}
                return parse_group_file(read_at(file.fd, file.status.st_size, 0))
        except DatasetNotFoundError:
            return {}, {}
        except OSError as error:
            return {}, {"attrs_skipped": {GROUP_FILE: error.strerror or type(error).__name__}}

    def _not_listed(self, place: _Place, error: OSError, catalog: _Catalog) -> Iterator[tuple[Entry, str]]:
        """What to tell of a directory that cannot be looked into."""
        if not place.path:
            # Everything would look deleted: a disk that is not mounted is no change of the data.
            raise SourceUnavailableError(f"the root's directory {self.watched} cannot be read: {error}") from error
        if isinstance(error, (AccessDeniedError, PermissionError)):
            yield self._unsupported(place, "cannot be listed: permission denied"), ""
        elif not isinstance(error, (DatasetNotFoundError, FileNotFoundError, NotADirectoryError)):
            for path in catalog.at_or_below(place.path):
                if (before := catalog.get(path)) is not None:
                    yield before.entry, before.stamp

    def _child(self, place: _Place, name: str) -> _Place | None:
        path = join(place.path, _listed_name(name))
        if len(path.encode()) > MAX_PATH_BYTES:
            return None  # no request could name it
        return _Place(path, join(place.real, name), place.nlinks)

    def _sort(
        self, place: _Place, status: os.stat_result, target: str, catalog: _Catalog
    ) -> Iterator[tuple[Entry, str]]:
        """What is at a place that has this status."""
        if _listed_name(place.path.rpartition("/")[2]) != place.path.rpartition("/")[2]:
            listed = replace(place, path="/".join(_listed_name(n) for n in place.path.split("/")))
            yield self._unsupported(listed, "its name is not text that can travel (UTF-8)"), ""
        elif stat.S_ISDIR(status.st_mode):
            yield from self._walk(place, catalog)
        elif stat.S_ISLNK(status.st_mode):
            for item in self._link(place, target, catalog):
                if isinstance(item, _Place):
                    yield from self._walk(item, catalog)
                else:
                    yield item
        elif stat.S_ISREG(status.st_mode):
            yield from self._file(place, Generation.from_stat(status), catalog)
        else:
            yield self._unsupported(place, "not a regular file (a pipe, socket or device), which is never opened"), ""

    def _link(self, place: _Place, target: str, catalog: _Catalog) -> Iterator[_Place | tuple[Entry, str]]:
        """What a symbolic link leads to, when that is inside the root."""
        try:
            with open_file(self.watched, place.real) as file:
                real, generation = file.path, Generation.from_stat(file.status)
            self._links[place.path] = real
            yield from self._file(_Place(place.path, real, place.nlinks), generation, catalog)
            return
        except AccessDeniedError as error:
            yield self._unsupported(place, str(error)), ""
            return
        except DatasetNotFoundError as error:
            not_a_file = error
        try:
            with open_directory(self.watched, place.real) as directory:
                real = directory.path
        except (DatasetNotFoundError, AccessDeniedError):
            reason = _link_reason(not_a_file, place)
            # Where a link out of the root leads is nobody's business.
            yield Entry(place.path, "link", reason=reason, target="" if "outside" in reason else target), ""
            return
        if _is_at_or_below(place.real, real) or place.nlinks >= _MAX_NESTED_LINKS:
            yield Entry(place.path, "link", reason="it leads back to where it is, or too deep", target=target), ""
            return
        self._links[place.path] = real
        yield _Place(place.path, real, place.nlinks + 1)

    # What a file is

    def _file(self, place: _Place, generation: Generation, catalog: _Catalog) -> Iterator[tuple[Entry, str]]:
        before = catalog.get(place.path)
        if before is not None and self._is_ours(before.entry, place) and self._is_same(before, place, generation):
            yield before.entry, before.stamp
            yield from catalog.stored_below(before)
            return
        yield from self._described(place, generation, catalog, self._describer(place))

    def _frame_directory(self, place: _Place, generation: Generation, catalog: _Catalog) -> Iterator[tuple[Entry, str]]:
        before = catalog.get(place.path)
        try:
            with open_frame(self.watched, place.real) as frame:
                generation = frame.generation
                if before is not None and before.stamp == frame.stamp()[0] and self._is_ours(before.entry, place):
                    yield before.entry, before.stamp
                    return
        except (DatasetNotFoundError, AccessDeniedError, IntegrityError, DatasetChangedError, OSError):
            pass  # what is wrong with it is found below, once more
        yield from self._described(place, generation, catalog, self._describe_frame)

    def _is_same(self, before: KnownEntry, place: _Place, generation: Generation) -> bool:
        sources = _sources(before.entry)
        if not sources:
            return before.stamp == generation.stamp
        if self._hdf5 is None:
            return False
        self._dependents[place.path] = sources
        try:
            return self._tree(place.real).stamp_with(sources) == before.stamp
        except (DatasetNotFoundError, AccessDeniedError, OSError):
            return False

    def _is_ours(self, entry: Entry, place: _Place) -> bool:
        return entry.id == dataset_id(self._owner_id, place.real)

    def _described(
        self,
        place: _Place,
        generation: Generation,
        catalog: _Catalog,
        describe: Callable[[_Place], list[tuple[Entry, str]]],
    ) -> Iterator[tuple[Entry, str]]:
        """Entries of a file that has to be opened, or what is known of it while it cannot be."""
        reason = "it changes all the time"
        for _ in range(_DESCRIBE_TRIES):
            try:
                yield from describe(place)
                return
            except DatasetChangedError:
                continue
            except DatasetNotFoundError:
                return  # gone in the meantime
            except AccessDeniedError:
                yield self._unsupported(place, "cannot be read: permission denied", generation), generation.stamp
                return
            except IntegrityError as error:
                reason = str(error)
                break
            except OSError as error:
                yield self._unsupported(place, f"cannot be read: {error.strerror}", generation), ""
                return
        if time.time_ns() - generation.ctime_ns < self._patience_ns:
            self._unsettled.add(place.path)
            if (before := catalog.get(place.path)) is not None:
                yield before.entry, before.stamp
                yield from catalog.stored_below(before)
            return
        reason = f"damaged, or never completed: {reason}"
        yield self._unsupported(place, reason, generation), generation.stamp

    def _describe_frame(self, place: _Place) -> list[tuple[Entry, str]]:
        with open_frame(self.watched, place.real) as frame:
            try:
                index = frame.read_index()
            except UnsupportedDatasetError as error:
                stamp = frame.stamp()[0]
                entry = self._unsupported(place, str(error), frame.generation)
            except IntegrityError:
                if not frame.is_unchanged():
                    raise DatasetChangedError(f"{place.path!r} changed while it was read") from None
                raise
            else:
                stamp, entry = index.stamp, self._frame_entry(place, frame, index)
            if not frame.is_unchanged():
                raise DatasetChangedError(f"{place.path!r} changed while it was read")
            return [(entry, stamp)]

    def _frame_entry(self, place: _Place, frame: FrameFile, index: FrameIndex) -> Entry:
        header, geometry = index.header, index.geometry
        attrs, skipped = _frame_attrs(index)
        tag = attrs_tag(attrs) if attrs else ""
        inline = sum(len(str(v)) + len(k) for k, v in attrs.items()) <= INLINE_ATTRS_NBYTES
        storage = {"format": "b2nd" if index.is_array else "b2frame", **header.storage()}
        if skipped:
            storage["attrs_skipped"] = skipped
        if layers := [name for name in header.metalayers if name not in ("b2nd", "caterva")]:
            storage["metalayers"] = layers
        return Entry(
            path=place.path,
            kind="array" if index.is_array else "file",
            id=dataset_id(self._owner_id, place.real),
            version=index.version,
            geometry=geometry,
            attrs=attrs if inline else {},
            attrs_tag=tag,
            attrs_inline=inline,
            dims=_frame_dims(index, attrs),
            cbytes=header.cbytes,
            mtime_ns=frame.generation.mtime_ns,
            media_type="" if index.is_array else "application/octet-stream",
            storage=storage,
        )

    def _describe_other(self, place: _Place) -> list[tuple[Entry, str]]:
        note = ""
        with open_file(self.watched, place.real) as file:
            generation = settled_generation(file.fd)
            is_hdf5 = self._hdf5 is not None and _is_hdf5(file, place.path)
        if is_hdf5:
            try:
                return self._describe_tree(place, generation)
            except (IntegrityError, UnsupportedDatasetError) as error:
                if time.time_ns() - generation.ctime_ns < self._patience_ns and isinstance(error, IntegrityError):
                    raise
                note = f"an HDF5 file that cannot be opened: {error}"
        if reason := _CONTAINERS.get(_suffix(place.path)):
            return [(self._unsupported(place, reason, generation), generation.stamp)]
        entry = self._stored(place, "file", generation, geometry=plain_geometry(generation.nbytes))
        if note:
            entry = replace(entry, storage={"note": note})
        return [(entry, generation.stamp)]

    def _stored(self, place: _Place, kind: EntryKind, generation: Generation, **fields: Any) -> Entry:
        """An entry of a file as it is stored."""
        media_type, encoding = self._types.guess_type(place.path)
        return Entry(
            path=place.path,
            kind=kind,
            id=dataset_id(self._owner_id, place.real),
            version=version_tag(generation, fields.get("geometry")),
            cbytes=generation.nbytes,
            mtime_ns=generation.mtime_ns,
            media_type="" if encoding or media_type is None else media_type,
            **fields,
        )

    def _unsupported(self, place: _Place, reason: str, generation: Generation | None = None) -> Entry:
        if generation is None:
            return Entry(place.path, "unsupported", reason=reason)
        return self._stored(place, "unsupported", generation, reason=reason)

    # HDF5 files

    def _describe_tree(self, place: _Place, generation: Generation) -> list[tuple[Entry, str]]:
        group = replace(self._stored(place, "group", generation), media_type=HDF5_TYPE)
        group_stamp = generation.stamp
        found: list[tuple[Entry, str]] = []
        for entry, stamp in self._tree(place.real).stamped_entries():
            if entry.path:
                found.append((replace(entry, path=join(place.path, entry.path)), stamp))
                continue
            group_stamp = stamp
            group = replace(
                group,
                attrs=entry.attrs,
                attrs_tag=entry.attrs_tag,
                attrs_inline=entry.attrs_inline,
                storage=entry.storage,
            )
        with open_file(self.watched, place.real) as file:
            # A file that is being appended to is never still; what is listed of it was finished before.
            if Generation.of(file.fd) != generation and not group.storage.get("live"):
                raise DatasetChangedError(f"{place.path!r} changed while it was read")
        if sources := _sources(group):
            self._dependents[place.path] = sources
            self._indirect.update(entry.path for entry, _ in found)
        return [(group, group_stamp), *found]

    def _tree(self, real: str) -> StoredTree:
        assert self._hdf5 is not None
        return self._hdf5(self.watched / real, dataset_id(self._owner_id, real))

    def _stored_tree(self, entry: Entry) -> tuple[StoredTree, str] | None:
        """The HDF5 file that an entry is in, as it is now, and the path in it; None when it is in none."""
        if self._hdf5 is None:
            return None
        for path in [*_parents(entry.path), entry.path][::-1]:
            try:
                with open_file(self.watched, path) as file:
                    settled_generation(file.fd)
                    return self._tree(file.path), entry.path[len(path) + 1 :]
            except DatasetNotFoundError:
                continue
        return None

    # Reads

    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]:
        with self.reading(entry) as read_chunk:
            return read_chunk(projection, blocks)

    @contextmanager
    def reading(self, entry: Entry) -> Iterator[ReadChunk]:
        geometry = entry.geometry
        if geometry is None:
            raise UnsupportedDatasetError(f"{entry.path!r} has no data to read: {entry.reason or entry.kind}")
        seed = checksum_seed(entry.id, entry.version)
        if entry.storage.get("format") in _FRAME_FORMATS:
            with self._frame(entry, seed) as (frame, index):
                yield lambda projection, blocks: read_blocks(
                    frame, index, seed, projection.nchunk, blocks, decodes=self._decodes
                )
            return
        with self._file_or_tree(entry) as (file, found):
            if found is not None:
                tree, path = found
                yield partial(tree.read_chunk, replace(entry, path=path))
                return
            assert file is not None
            fd = file.fd
            yield lambda projection, blocks: read_plain_blocks(fd, geometry, seed, projection.nchunk, blocks)

    def attributes(self, entry: Entry) -> Entry:
        if entry.attrs_inline:
            return entry
        if entry.kind == "group" and not entry.version and "hdf5" not in entry.storage:
            return replace(entry, attrs=self._group_file(entry.path)[0], attrs_inline=True)
        if entry.storage.get("format") in _FRAME_FORMATS:
            with self._frame(entry) as (_, index):
                attrs, _ = _frame_attrs(index)
                return replace(entry, attrs=attrs, attrs_inline=True)
        with self._changes_told(entry):
            found = self._stored_tree(entry)
        if found is None:
            raise DatasetChangedError(_changed(entry))
        tree, path = found
        whole = tree.attributes(replace(entry, path=path))
        return replace(whole, path=entry.path)

    def read_file(self, entry: Entry, start: int, stop: int | None) -> StoredFile:
        if not entry.version:
            raise UnsupportedDatasetError(f"{entry.path!r} is not a file of its own")
        with self._stored_bytes(entry) as (_, generation):
            nbytes = generation.nbytes
        stop = nbytes if stop is None else min(stop, nbytes)
        parts = self._parts(entry, max(start, 0), stop)
        return StoredFile(nbytes, entry.version, generation.mtime_ns, parts)

    def _parts(self, entry: Entry, start: int, stop: int) -> Iterator[bytes]:
        # Opened by the first part, so that an iterator that nobody iterates holds no file open.
        with self._stored_bytes(entry) as (file, generation):
            for part in read_parts(file.fd, start, stop):
                if Generation.of(file.fd) != generation:
                    raise DatasetChangedError(_changed(entry))
                yield part

    @contextmanager
    def _stored_bytes(self, entry: Entry) -> Iterator[tuple[OpenedPath, Generation]]:
        """The open file of an entry that is one, in the state that its version stands for."""
        try:
            file = open_file(self.watched, self._stored_at(entry))
        except (DatasetNotFoundError, AccessDeniedError):
            if os.path.isdir(self.watched / entry.path):
                raise UnsupportedDatasetError(f"{entry.path!r} is stored as a directory, not as one file") from None
            if any(os.path.isfile(self.watched / p) for p in _parents(entry.path)):
                raise UnsupportedDatasetError(f"{entry.path!r} is inside of a file: download that file") from None
            raise DatasetChangedError(_changed(entry)) from None
        with file:
            generation = settled_generation(file.fd)
            if version_tag(generation, entry.geometry) != entry.version:
                raise DatasetChangedError(_changed(entry))
            yield file, generation

    @contextmanager
    def _changes_told(self, entry: Entry) -> Iterator[None]:
        """A file that is gone, or not readable any more, is another state of the dataset."""
        try:
            yield
        except (DatasetNotFoundError, AccessDeniedError):
            raise DatasetChangedError(_changed(entry)) from None
        except DatasetChangedError:
            raise DatasetChangedError(_changed(entry)) from None

    def read_at_once(self, entry: Entry, nchunk: int, blocks: Sequence[int], max_nbytes: int) -> BlockRecord | None:
        held = self._open_frames.get(entry.id, entry.version)
        if held is None:
            return None
        with self._of_version(entry, held.frame):
            return read_blocks_at_once(held.frame, held.index, held.seed, nchunk, blocks, max_nbytes)

    @contextmanager
    def _frame(self, entry: Entry, seed: int = 0) -> Iterator[tuple[FrameFile, FrameIndex]]:
        """The open frame of an entry and its index, of the state that its version stands for."""
        held = self._open_frames.get(entry.id, entry.version)
        if held is not None:
            with self._of_version(entry, held.frame):
                yield held.frame, held.index
            return
        with self._changes_told(entry):
            frame = open_frame(self.watched, self._stored_at(entry))
            try:
                with self._of_version(entry, frame):
                    index = self._index(frame, entry)
                    if index.version != entry.version:
                        raise DatasetChangedError(_changed(entry))
                    yield frame, index
            except BaseException:
                frame.close()
                raise
        # What links lead to may become another file without a sign at this one.
        if seed and frame.can_stay_open and frame.path == entry.path:
            self._open_frames.keep(entry.id, entry.version, frame, index, seed)
        else:
            frame.close()

    @contextmanager
    def _of_version(self, entry: Entry, frame: FrameFile) -> Iterator[None]:
        """What is read inside is of the entry's version, or not to be used."""
        try:
            yield
        except (IntegrityError, UnsupportedDatasetError):
            # A file that is being written looks damaged.
            if not frame.is_unchanged():
                self._open_frames.drop(entry.id, entry.version)
                raise DatasetChangedError(_changed(entry)) from None
            raise
        if not frame.is_unchanged():
            self._open_frames.drop(entry.id, entry.version)
            raise DatasetChangedError(_changed(entry))

    def _index(self, frame: FrameFile, entry: Entry) -> FrameIndex:
        key = (frame.path, frame.generation.stamp)
        with self._lock:
            if (held := self._indices.get(key)) is not None:
                self._indices.move_to_end(key)
                return held
        if version_tag(frame.stamp()[0], entry.geometry) != entry.version:
            raise DatasetChangedError(_changed(entry))  # perhaps half-written by now: nothing to look into
        index = frame.read_index()
        with self._lock:
            if key not in self._indices:
                self._indices[key] = index
                self._held_nbytes += index.nbytes_held
            while self._held_nbytes > _MAX_HELD_NBYTES and len(self._indices) > 1:
                _, dropped = self._indices.popitem(last=False)
                self._held_nbytes -= dropped.nbytes_held
        return index

    @contextmanager
    def _file_or_tree(self, entry: Entry) -> Iterator[tuple[OpenedPath | None, tuple[StoredTree, str] | None]]:
        """The open plain file of an entry, of its version; or the HDF5 file that it is in."""
        with self._changes_told(entry):
            try:
                file = open_file(self.watched, entry.path)
            except DatasetNotFoundError:
                found = self._stored_tree(entry)
                if found is None:
                    raise
                yield None, found
                return
            with file:
                generation = settled_generation(file.fd)
                if version_tag(generation, entry.geometry) != entry.version:
                    raise DatasetChangedError(_changed(entry))
                yield file, None
                if Generation.of(file.fd) != generation:
                    raise DatasetChangedError(_changed(entry))


class _Catalog:
    """What is known from before, by path, and what of it is inside of HDF5 files."""

    def __init__(self, known: Iterable[KnownEntry]) -> None:
        self._known = {item.entry.path: item for item in known}
        self._inside: dict[str, list[KnownEntry]] | None = None

    def get(self, path: str) -> KnownEntry | None:
        return self._known.get(path)

    def at_or_below(self, path: str) -> list[str]:
        return [p for p in self._known if _is_at_or_below(p, path)]

    def stored_below(self, file: KnownEntry) -> Iterator[tuple[Entry, str]]:
        """What is inside of a file that has datasets in it."""
        if file.entry.kind != "group":
            return
        if self._inside is None:
            self._inside = self._sort_by_file()
        for item in self._inside.get(file.entry.path, []):
            yield item.entry, item.stamp

    def _sort_by_file(self) -> dict[str, list[KnownEntry]]:
        inside: dict[str, list[KnownEntry]] = {
            path: [] for path, item in self._known.items() if item.entry.kind == "group" and item.entry.version
        }
        for path, item in self._known.items():
            for group in _parents(path):
                if group in inside:
                    inside[group].append(item)
                    break
        return inside


def _items(directory: int, temporary: re.Pattern[str]) -> list[_Item]:
    """Names in an open directory, sorted, with their status and, of links, their target."""
    items: list[_Item] = []
    with os.scandir(directory) as scanned:
        for item in scanned:
            if temporary.fullmatch(item.name):
                continue
            try:
                status = item.stat(follow_symlinks=False)
                target = os.readlink(item.name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else ""
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINVAL):  # gone, or no link any more: its change is told
                    continue
                raise
            items.append((item.name, status, target))
    return sorted(items, key=lambda item: item[0])


def _listed_name(name: str) -> str:
    """A file's name as a catalog can hold it; the name itself, for all but the strangest."""
    try:
        parse_path(name)
    except InvalidPathError:
        listed = os.fsencode(name).decode("utf-8", "backslashreplace")
        try:
            return parse_path(listed)
        except InvalidPathError:
            return listed.replace("\\", "%5C")
    return name


def _parents(path: str) -> list[str]:
    """The groups that a path is in, the outermost first."""
    names = path.split("/")
    return ["/".join(names[:i]) for i in range(1, len(names))]


def _is_below(path: str, group: str) -> bool:
    return path != group and (group == "" or path.startswith(group + "/"))


def _is_at_or_below(path: str, group: str) -> bool:
    return path == group or group == "" or path.startswith(group + "/")


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2]
    return os.path.splitext(name)[1].lower()


def _sources(entry: Entry) -> tuple[str, ...]:
    """Other files that the content of an HDF5 file comes from."""
    listed = entry.storage.get("sources") if entry.kind == "group" else None
    return tuple(str(path) for path in listed) if isinstance(listed, (list, tuple)) else ()


def _changed(entry: Entry) -> str:
    return f"{entry.path!r} changed: version {entry.version} is not there any more"


def _link_reason(error: DatasetNotFoundError, place: _Place) -> str:
    text = str(error)
    if "outside of the root" in text:
        return "a link that leads outside of the root"
    if "leads back to itself" in text:
        return "a link that leads back to itself"
    return "a link to what is not there, or not a file"


def _is_hdf5(file: OpenedPath, path: str) -> bool:
    """Has it HDF5's signature (after a user block only where the name says that it is HDF5)?"""
    last = _MAX_USERBLOCK_NBYTES if _suffix(path) in _HDF5_SUFFIXES else 0
    position = 0
    while position <= last and position < file.status.st_size:
        if read_at(file.fd, len(_HDF5_SIGNATURE), position) == _HDF5_SIGNATURE:
            return True
        position = position * 2 or 512
    return False


def _frame_attrs(index: FrameIndex) -> tuple[dict[str, Any], dict[str, str]]:
    values, skipped = decode_vlmeta(index.vlmeta)
    exact = exact_attrs(values)
    forms, without_form = encode_attrs({k: v for k, v in values.items() if k != EXACT_KEY and k not in exact})
    return forms | exact, skipped | without_form


def _frame_dims(index: FrameIndex, attrs: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the axes, as xarray's and netCDF's ways of writing Blosc2 files give them."""
    layer = index.header.metalayers.get("dims")
    candidates = [attrs.get("dims"), attrs.get("_ARRAY_DIMENSIONS"), decode_metalayer(layer) if layer else None]
    for names in candidates:
        if isinstance(names, dict) and names.get("t") == "tuple":
            names = names["v"]
        if not isinstance(names, (list, tuple)) or not len(names) == index.geometry.ndim > 0:
            continue
        if all(isinstance(n, str) and n for n in names):
            return tuple(str(n) for n in names)
    return None
