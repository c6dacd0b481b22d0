"""A directory as a root: its files are datasets, its directories groups, its HDF5 files groups of their own.

It walks the tree, follows links that stay inside, and finds what changed since an earlier scan without opening what
did not. What a file is, is told by ``directory_entries``; it is read by ``dataset_files``. A file that cannot be read
yet, perhaps because it is still being written, is not told until it can be.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from ..core.blocks import BlockRecord
from ..core.chunk_grid import ChunkProjection
from ..core.codec import DecodeChunk, decode_chunk_bytes
from ..core.events import Event
from ..core.group_file import GROUP_FILE
from ..core.metadata import Entry
from ..core.paths import MAX_PATH_BYTES, is_at_or_below, join, parent, parents, parse_path
from ..core.paths import name as last_name
from ..errors import (
    AccessDeniedError,
    DatasetChangedError,
    DatasetNotFoundError,
    IntegrityError,
    InvalidPathError,
    SourceUnavailableError,
)
from .blosc2_file import SPARSE_INDEX, open_frame
from .dataset_files import DatasetFiles
from .directory_entries import FRAME_SUFFIXES, EntryDescriber, Place, StampedEntry, suffix_of
from .generation import Generation
from .known_entries import KnownEntries
from .root import KnownEntry, ReadChunk, Root, StoredFile
from .safe_open import open_directory, open_file
from .stored_tree import StoredTreeFactory, StoredTrees, sources_of

__all__ = ["DirectoryRoot"]

# What editors, downloads, rsync, network file systems and Blosc2 itself put beside a file for a while.
_TEMPORARY = re.compile(
    r"\.caterva2.*|.*\.tmp|.*~|\.#.*|.*\.part|\..*\.sw[a-z]|\.nfs[0-9a-f]+|\.fuse_hidden.*|.*\.b2lock"
    r"|\..+\.(?=\w*[A-Z0-9])[A-Za-z0-9]{6}",
    re.DOTALL,
)
_MAX_NESTED_LINKS = 2
_DESCRIBE_TRIES = 3
_GROUP_STAMP = "group"


_Item = tuple[str, os.stat_result, str]  # name, status, target of a link


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
    decode : DecodeChunk
        For indexes and metalayers of Blosc2 files.

    Notes
    -----
    Links are followed as long as they stay inside the root; hard links cannot be told from files.
    """

    _temporary = _TEMPORARY
    _describer_class: type[EntryDescriber] = EntryDescriber
    _decodes = True  # chunks that have to be encoded anew for others

    def __init__(
        self,
        path: Path,
        owner_id: str,
        hdf5: StoredTreeFactory | None = None,
        patience_s: float = 10.0,
        decode: DecodeChunk = decode_chunk_bytes,
    ) -> None:
        self.watched = Path(os.path.abspath(path))
        self._trees = StoredTrees(self.watched, owner_id, hdf5)
        self._describer = self._describer_class(self.watched, owner_id, self._trees, patience_s, decode)
        self._files = DatasetFiles(self.watched, self._trees, self._stored_at, decode, decodes=self._decodes)
        self._directories: set[str] = set()  # groups, and sparse frames
        self._links: dict[str, str] = {}
        self._unsettled: set[str] = set()
        self._dependents: dict[str, tuple[str, ...]] = {}
        # Listed through links, or out of several files: a change is seen elsewhere than it is told.
        self._indirect: set[str] = set()

    # What is there

    def scan(self, known: Iterable[KnownEntry]) -> Iterator[StampedEntry]:
        catalog = KnownEntries(known)
        self._directories.clear()
        self._links.clear()
        self._unsettled.clear()
        self._dependents.clear()
        self._indirect.clear()
        yield from self._walk(Place("", ""), catalog)

    def rescan(self, paths: Iterable[Path], known: Iterable[KnownEntry]) -> Iterator[tuple[Event, str]]:
        catalog = KnownEntries(known)
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
            if any(is_at_or_below(source, unit) for source in sources for unit in units):
                units.add(file)
        for link, real in list(self._links.items()):
            for unit in list(units):
                if unit == real or unit.startswith(real + "/"):
                    units.add(link + unit[len(real) :])
                elif real.startswith(unit + "/"):
                    units.add(link)
        return [unit for unit in sorted(units) if not any(is_at_or_below(unit, other) for other in units - {unit})]

    def _unit(self, path: str) -> str | None:
        """The first part of a path that is not a mere directory; None for temporary files."""
        if last_name(path) == GROUP_FILE:
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

    # For roots that list files under other names than they have on disk (``area_root``)

    def _unit_names(self, unit: str) -> tuple[str, str]:
        """Where a file or directory is, and how it is listed."""
        return unit, "/".join(_listed_name(name) for name in unit.split("/")) if unit else ""

    def _shown(self, items: list[_Item]) -> list[_Item]:
        """What is listed of a directory's items."""
        return items

    def _listed(self, place: Place, status: os.stat_result) -> Place:
        """The place of a file, under the path that it is listed at."""
        return place

    def _stored_at(self, entry: Entry) -> str:
        """Where the file of an entry is, that is not inside of another."""
        return entry.path

    def _rescan_unit(self, unit: str, catalog: KnownEntries) -> Iterator[tuple[Event, str]]:
        unit, listed = self._unit_names(unit)
        directories = self._directories
        found: dict[str, StampedEntry] = {}
        if unit and os.path.lexists(self.watched / unit):
            found |= {g: (self._describer.group(g, g), _GROUP_STAMP) for g in parents(listed) if g not in directories}
        # Copies are iterated: a scan may be under way in another thread.
        gone = {path for path in list(self._indirect) if is_at_or_below(path, listed)}
        self._indirect -= gone
        gone |= {path for path in list(directories) if is_at_or_below(path, listed)}
        gone |= set(catalog.at_or_below(listed))
        self._unsettled -= {path for path in list(self._unsettled) if is_at_or_below(path, unit)}
        for remembered in (self._links, self._dependents):
            for path in [path for path in list(remembered) if is_at_or_below(path, unit)]:
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

    def _place(self, path: str) -> Place | None:
        """Where a path is; None when its directory is not there or not inside the root."""
        if not path:
            return Place("", "")
        nlinks = sum(1 for link in list(self._links) if path.startswith(link + "/"))
        try:
            with open_directory(self.watched, parent(path)) as directory:
                return Place(path, join(directory.path, last_name(path)), nlinks)
        except (DatasetNotFoundError, AccessDeniedError):
            return None

    def _look(self, place: Place, catalog: KnownEntries) -> Iterator[StampedEntry]:
        """What is at a place whose directory is there (file names as they are on disk)."""
        try:
            with open_directory(self.watched, parent(place.real)) as directory:
                name = last_name(place.real)
                status = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
                target = os.readlink(name, dir_fd=directory.fd) if stat.S_ISLNK(status.st_mode) else ""
        except (OSError, ValueError):
            return
        yield from self._sort(self._listed(place, status), status, target, catalog)

    def _walk(self, start: Place, catalog: KnownEntries) -> Iterator[StampedEntry]:
        """What is at and below a directory. Explicitly, not by recursion: trees may be deep."""
        pending: list[tuple[bool, Iterator[Place | StampedEntry]]] = [(False, iter([start]))]
        while pending:
            is_linked, items = pending[-1]
            item = next(items, None)
            if item is None:
                pending.pop()
            elif isinstance(item, Place):
                pending.append((item.nlinks > 0, self._directory(item, catalog)))
            else:
                if is_linked:
                    self._indirect.add(item[0].path)
                yield item

    def _directory(self, place: Place, catalog: KnownEntries) -> Iterator[Place | StampedEntry]:
        """A directory's own entry, its files' entries, and the directories in it."""
        try:
            with open_directory(self.watched, place.real) as directory:
                own = Generation.from_stat(directory.status)
                items = self._shown(_items(directory.fd, self._temporary))
        except OSError as error:  # ours are OSErrors too
            yield from self._not_listed(place, error, catalog)
            return
        names = {name for name, _, _ in items}
        is_begun = suffix_of(place.path) in FRAME_SUFFIXES and all(name.endswith(".chunk") for name in names)
        if place.path and (SPARSE_INDEX in names or is_begun):
            self._directories.add(place.path)
            yield from self._frame_directory(place, own, catalog)
            return
        group = self._describer.group(place.path, place.real)
        if place.path or group.attrs_tag or group.storage:
            yield group, _GROUP_STAMP
        if place.path:
            self._directories.add(place.path)
        for name, status, target in items:
            child = self._child(place, name)
            if child is None:
                continue
            if _listed_name(name) != name:
                yield self._describer.unsupported(child, "its name is not text that can travel (UTF-8)"), ""
            elif stat.S_ISDIR(status.st_mode):
                yield child
            elif stat.S_ISLNK(status.st_mode):
                yield from self._link(child, target, catalog)
            else:
                yield from self._sort(self._listed(child, status), status, "", catalog)

    def _not_listed(self, place: Place, error: OSError, catalog: KnownEntries) -> Iterator[StampedEntry]:
        """What to tell of a directory that cannot be looked into."""
        if not place.path:
            # Everything would look deleted: a disk that is not mounted is no change of the data.
            raise SourceUnavailableError(f"the root's directory {self.watched} cannot be read: {error}") from error
        if isinstance(error, (AccessDeniedError, PermissionError)):
            yield self._describer.unsupported(place, "cannot be listed: permission denied"), ""
        elif not isinstance(error, (DatasetNotFoundError, FileNotFoundError, NotADirectoryError)):
            for path in catalog.at_or_below(place.path):
                if (before := catalog.get(path)) is not None:
                    yield before.entry, before.stamp

    def _child(self, place: Place, name: str) -> Place | None:
        path = join(place.path, _listed_name(name))
        if len(path.encode()) > MAX_PATH_BYTES:
            return None  # no request could name it
        return Place(path, join(place.real, name), place.nlinks)

    def _sort(self, place: Place, status: os.stat_result, target: str, catalog: KnownEntries) -> Iterator[StampedEntry]:
        """What is at a place that has this status."""
        if _listed_name(last_name(place.path)) != last_name(place.path):
            listed = replace(place, path="/".join(_listed_name(n) for n in place.path.split("/")))
            yield self._describer.unsupported(listed, "its name is not text that can travel (UTF-8)"), ""
        elif stat.S_ISDIR(status.st_mode):
            yield from self._walk(place, catalog)
        elif stat.S_ISLNK(status.st_mode):
            for item in self._link(place, target, catalog):
                if isinstance(item, Place):
                    yield from self._walk(item, catalog)
                else:
                    yield item
        elif stat.S_ISREG(status.st_mode):
            yield from self._file(place, Generation.from_stat(status), catalog)
        else:
            reason = "not a regular file (a pipe, socket or device), which is never opened"
            yield self._describer.unsupported(place, reason), ""

    def _link(self, place: Place, target: str, catalog: KnownEntries) -> Iterator[Place | StampedEntry]:
        """What a symbolic link leads to, when that is inside the root."""
        try:
            with open_file(self.watched, place.real) as file:
                real, generation = file.path, Generation.from_stat(file.status)
            self._links[place.path] = real
            yield from self._file(Place(place.path, real, place.nlinks), generation, catalog)
            return
        except AccessDeniedError as error:
            yield self._describer.unsupported(place, str(error)), ""
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
        if is_at_or_below(place.real, real) or place.nlinks >= _MAX_NESTED_LINKS:
            yield Entry(place.path, "link", reason="it leads back to where it is, or too deep", target=target), ""
            return
        self._links[place.path] = real
        yield Place(place.path, real, place.nlinks + 1)

    # What there is to tell of a file

    def _file(self, place: Place, generation: Generation, catalog: KnownEntries) -> Iterator[StampedEntry]:
        before = catalog.get(place.path)
        if (
            before is not None
            and self._describer.is_ours(before.entry, place)
            and self._is_same(before, place, generation)
        ):
            yield before.entry, before.stamp
            yield from catalog.stored_below(before)
            return
        yield from self._described(place, generation, catalog, self._describer.describe)

    def _frame_directory(self, place: Place, generation: Generation, catalog: KnownEntries) -> Iterator[StampedEntry]:
        before = catalog.get(place.path)
        try:
            with open_frame(self.watched, place.real) as frame:
                generation = frame.generation
                if (
                    before is not None
                    and before.stamp == frame.stamp()[0]
                    and self._describer.is_ours(before.entry, place)
                ):
                    yield before.entry, before.stamp
                    return
        except (DatasetNotFoundError, AccessDeniedError, IntegrityError, DatasetChangedError, OSError):
            pass  # what is wrong with it is found below, once more
        yield from self._described(place, generation, catalog, self._describer.describe_frame)

    def _is_same(self, before: KnownEntry, place: Place, generation: Generation) -> bool:
        sources = sources_of(before.entry)
        if not sources:
            return before.stamp == generation.stamp
        if not self._trees.are_opened:
            return False
        self._dependents[place.path] = sources
        try:
            return self._trees.open(place.real).stamp_with(sources) == before.stamp
        except (DatasetNotFoundError, AccessDeniedError, OSError):
            return False

    def _described(
        self,
        place: Place,
        generation: Generation,
        catalog: KnownEntries,
        describe: Callable[[Place], list[StampedEntry]],
    ) -> Iterator[StampedEntry]:
        """Entries of a file that has to be opened, or what is known of it while it cannot be."""
        reason = "it changes all the time"
        for _ in range(_DESCRIBE_TRIES):
            try:
                found = describe(place)
            except DatasetChangedError:
                continue
            except DatasetNotFoundError:
                return  # gone in the meantime
            except AccessDeniedError:
                reason = "cannot be read: permission denied"
                yield self._describer.unsupported(place, reason, generation), generation.stamp
                return
            except IntegrityError as error:
                reason = str(error)
                break
            except OSError as error:
                yield self._describer.unsupported(place, f"cannot be read: {error.strerror}", generation), ""
                return
            if sources := sources_of(found[0][0]):
                self._dependents[place.path] = sources
                self._indirect.update(entry.path for entry, _ in found[1:])
            yield from found
            return
        if self._describer.may_be_unfinished(generation):
            self._unsettled.add(place.path)
            if (before := catalog.get(place.path)) is not None:
                yield before.entry, before.stamp
                yield from catalog.stored_below(before)
            return
        reason = f"damaged, or never completed: {reason}"
        yield self._describer.unsupported(place, reason, generation), generation.stamp

    # Reads

    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]:
        with self.reading(entry) as read_chunk:
            return read_chunk(projection, blocks)

    def reading(self, entry: Entry) -> AbstractContextManager[ReadChunk]:
        return self._files.reading(entry)

    def read_at_once(self, entry: Entry, nchunk: int, blocks: Sequence[int], max_nbytes: int) -> BlockRecord | None:
        return self._files.read_at_once(entry, nchunk, blocks, max_nbytes)

    def attributes(self, entry: Entry) -> Entry:
        if entry.attrs_inline:
            return entry
        if entry.kind == "group" and not entry.version and "hdf5" not in entry.storage:
            return replace(entry, attrs=self._describer.group_attrs(entry.path)[0], attrs_inline=True)
        return self._files.attributes(entry)

    def read_file(self, entry: Entry, start: int, stop: int | None) -> StoredFile:
        return self._files.read_file(entry, start, stop)

    def close(self) -> None:
        self._files.close()

    def close_idle(self) -> bool:
        return self._files.close_idle()


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


def _link_reason(error: DatasetNotFoundError, place: Place) -> str:
    text = str(error)
    if "outside of the root" in text:
        return "a link that leads outside of the root"
    if "leads back to itself" in text:
        return "a link that leads back to itself"
    return "a link to what is not there, or not a file"
