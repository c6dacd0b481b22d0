"""One HDF5 file of a root: its entries, and the blocks of its datasets read outside of the HDF5 library.

The index comes from a worker process, chunks by ``pread``; nothing is open between calls, so a writer is
never in the way and never locked out. Whatever a dataset's values come from (the file, sources of a virtual
dataset, external raw files) is in its version, and compared before and after each read.
"""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.attributes import attrs_tag
from ..core.blocks import BlockRecord, checksum_seed
from ..core.chunk_grid import ChunkProjection
from ..core.codec import encode_blocks, encode_strings
from ..core.metadata import HDF5_MEDIA_TYPE, Entry, Geometry, dataset_id
from ..errors import (
    AccessDeniedError,
    DatasetChangedError,
    DatasetNotFoundError,
    IntegrityError,
    UnsupportedDatasetError,
)
from .generation import Generation, unsettled_s, version_tag
from .hdf5_chunks import Pipeline, array_record, chunk_record, fetch_blocks, fill_record
from .hdf5_tree import Hdf5Tree, Outside, Placed, Target, dimension_names, place
from .hdf5_worker import Hdf5Worker, StoredDataset
from .safe_open import OpenedPath, open_file, read_at

__all__ = ["Hdf5File"]

_MAX_SOURCES = 10_000
_MAX_EXTERNAL_HOPS = 16
_MAX_TOLD_NBYTES = 16 << 10
_MAX_READS = 8


@dataclass(frozen=True, slots=True)
class _Source:
    """A file that values come from: its path in the root, and its state (``missing`` when it is not there)."""

    path: str
    state: str


class Hdf5File:
    """An HDF5 (netCDF4, NeXus) file.

    Parameters
    ----------
    root : Path
        Directory that nothing is opened outside of.
    path : str
        Of the file, relative to it.
    owner_of : callable
        The owner id that ids of datasets in a file (path relative to ``root``) are made with.
    worker : Hdf5Worker
        Shared by all files; closed by its owner.
    follow : bool
        May links, virtual datasets and external storage name other files (inside of ``root``)?

    Notes
    -----
    What a read needs is found again from ``entry.storage["hdf5"]`` (and ``["file"]`` for what an external
    link leads to), so entries of an earlier run can be read without an index.
    """

    def __init__(
        self,
        root: Path,
        path: str,
        owner_of: Callable[[str], str],
        worker: Hdf5Worker,
        *,
        follow: bool = True,
    ) -> None:
        self._root = root
        self._path = path
        self._owner_of = owner_of
        self._worker = worker
        self._follow_files = follow

    @property
    def stamp(self) -> str:
        """The state of the file itself, now."""
        return self.stamp_with(())

    def stamp_with(self, sources: Iterable[str]) -> str:
        """The state of the file now, and of others that its content comes from.

        Parameters
        ----------
        sources : iterable of str
            ``storage["sources"]`` of the file's own entry.

        Raises
        ------
        DatasetNotFoundError
        """
        with open_file(self._root, self._path) as opened:
            own = Generation.from_stat(opened.status).stamp
        return _stamp(own, [self._state(path) for path in sources])

    def entries(self) -> Iterator[Entry]:
        """Every entry, paths relative to the file; its own (path ``""``, a group) first.

        ``storage["sources"]`` of the first names the other files that the content comes from.

        Raises
        ------
        IntegrityError
            When HDF5 cannot open it (it may be half-written).
        UnsupportedDatasetError
            When HDF5 does not survive it.
        DatasetChangedError
            When it changed meanwhile: try again once it is quiet.
        """
        yield from _Listing(self).entries()

    def stamped_entries(self) -> list[tuple[Entry, str]]:
        """Every entry with its stamp (see ``stamp_with``), once all are known to be of one state."""
        listing = _Listing(self)
        entries = list(listing.entries())
        return [(entry, listing.stamp) for entry in entries]

    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]:
        """As ``Root.read_chunk``."""
        assert entry.geometry is not None
        path = str(entry.storage.get("hdf5", ""))
        file = str(entry.storage.get("file", self._path))
        try:
            opened = open_file(self._root, file)
        except DatasetNotFoundError:
            raise DatasetChangedError(f"{entry.path!r} is gone: its file is not there any more") from None
        with opened:
            for _ in range(_MAX_READS):
                record, is_whole = self._read_once(opened, entry, entry.geometry, path, projection, list(blocks))
                if is_whole:
                    return [record]
                time.sleep(unsettled_s(Generation.of(opened.fd), time.time_ns()))
        raise DatasetChangedError(f"{entry.path!r} is written to all the time: try again, or refresh()")

    def _read_once(
        self,
        opened: OpenedPath,
        entry: Entry,
        geometry: Geometry,
        path: str,
        projection: ChunkProjection,
        blocks: list[int],
    ) -> tuple[BlockRecord, bool]:
        """A record, and whether it is of one state: the last chunk of a file that grows may just be rewritten."""
        with ExitStack() as stack:
            before, state = _state_now(opened)
            try:
                stored = self._worker.dataset(opened.fd, state, path, geometry.shape)
                sources = self._sources(opened, stored.node.get("form", {}))
            except (IntegrityError, UnsupportedDatasetError):
                self._check(entry, [before])  # a change explains it better
                raise
            self._check(entry, [stored.node.get("state", before), *_texts(sources)])
            reader = _ChunkReader(self, opened, state, entry, geometry, stored, sources, stack)
            try:
                record = reader.record(projection.nchunk, projection.coords, blocks)
            except (IntegrityError, UnsupportedDatasetError):
                self._check_again(entry, geometry, opened, state, stored)
                raise
            after = self._check_again(entry, geometry, opened, state, stored)
            return record, after is stored or not reader.may_differ(after, projection)

    def attributes(self, entry: Entry) -> Entry:
        """As ``Root.attributes``."""
        path = str(entry.storage.get("hdf5", ""))
        if not path:
            return entry
        with open_file(self._root, str(entry.storage.get("file", self._path))) as opened:
            found = self._worker.attributes(opened.fd, Generation.of(opened.fd).stamp, path)
        storage = dict(entry.storage)
        if found.get("skipped"):
            storage["attrs_skipped"] = found["skipped"]
        if found.get("exact"):
            storage["attrs_exact"] = found["exact"]
        return replace(entry, attrs=found["attrs"], attrs_inline=True, storage=storage)

    def _check(self, entry: Entry, states: Sequence[str]) -> None:
        if version_tag(states, entry.geometry) != entry.version:
            raise DatasetChangedError(f"{entry.path!r} has changed: open it again, or refresh()")

    def _check_again(
        self, entry: Entry, geometry: Geometry, opened: OpenedPath, before: str, stored: StoredDataset
    ) -> StoredDataset:
        """Is all that was read of the state that the entry's version stands for? How it is stored now."""
        now, state = _state_now(opened)
        if "state" in stored.node and state != before:
            stored = self._worker.dataset(opened.fd, state, str(entry.storage["hdf5"]), geometry.shape)
        sources = self._sources(opened, stored.node.get("form", {}))
        self._check(entry, [stored.node.get("state", now), *_texts(sources)])
        return stored

    # What other files values come from

    def _sources(self, opened: OpenedPath, form: Mapping[str, Any], absent: list[str] | None = None) -> list[_Source]:
        """States of the other files that a dataset's values come from.

        Parameters
        ----------
        absent : list of str, optional
            Takes the names of files and datasets that are not there, in whose place HDF5 gives fill values.

        Raises
        ------
        UnsupportedDatasetError
            When one is outside of the root, or its content is not known to stay inside.
        """
        if "segments" in form:
            names = [self._locate(opened.path, str(name), "external raw file") for name, _, _ in form["segments"]]
            return [self._state(name) for name in dict.fromkeys(names)]
        pending = [(opened.path, str(file), str(dataset)) for file, dataset in form.get("sources", ())]
        found: dict[str, _Source] = {}
        seen: set[tuple[str, str]] = set()
        while pending:
            wanted: dict[str, list[str]] = {}
            for base, file, dataset in pending:
                for name, inner in self._expand(base, file, dataset):
                    if (name, inner) not in seen:
                        seen.add((name, inner))
                        wanted.setdefault(name, []).append(inner)
            if len(seen) > _MAX_SOURCES:
                raise UnsupportedDatasetError(f"a virtual dataset of over {_MAX_SOURCES} sources")
            pending = []
            for name, inners in wanted.items():
                pending += self._look_into(name, inners, found, absent)
        found.pop(opened.path, None)
        return [found[name] for name in sorted(found)]

    def _look_into(
        self, name: str, inners: list[str], found: dict[str, _Source], absent: list[str] | None
    ) -> list[tuple[str, str, str]]:
        """Sources of sources."""
        try:
            opened = open_file(self._root, name)
        except DatasetNotFoundError:
            found.setdefault(name, _Source(name, "missing"))
            if absent is not None:
                absent.append(name)
            return []
        with opened:
            state = Generation.of(opened.fd).stamp
            found[name] = _Source(name, state)
            if opened.path != name:
                found.setdefault(opened.path, _Source(opened.path, state))
            try:
                answers = self._worker.sources(opened.fd, state, inners)
            except UnsupportedDatasetError:
                if absent is not None:
                    absent.append(name)
                return []  # the library cannot open it either, and gives fill values
            further: list[tuple[str, str, str]] = []
            for inner, answer in zip(inners, answers, strict=True):
                if answer.get("missing") and absent is not None:
                    absent.append(f"{name}:{inner}")
                if "reason" in answer:
                    raise UnsupportedDatasetError(f"a virtual dataset with a source in {name!r}: {answer['reason']}")
                further += [(opened.path, str(f), str(d)) for f, d in answer.get("virtual", ())]
            return further

    def _expand(self, base: str, file: str, dataset: str) -> Iterator[tuple[str, str]]:
        """Source files (in the root) and datasets of a mapping, those of a ``%b`` series one by one."""
        if "%b" not in file + dataset:
            yield self._locate_source(base, file.replace("%%", "%")), dataset.replace("%%", "%")
            return
        for number in range(_MAX_SOURCES):
            name = self._locate_source(base, _numbered(file, number))
            yield name, _numbered(dataset, number)
            if self._state(name).state == "missing" or "%b" not in file:
                return

    def _locate_source(self, base: str, file: str) -> str:
        return base if file == "." else self._locate(base, file, "source")

    def _locate(self, base: str, file: str, what: str) -> str:
        """Path in the root of a file that the one at ``base`` names, there or not.

        The order in which HDF5 looks: an absolute name as it is, then its last part beside the file.
        """
        if not self._follow_files:
            if file == posixpath.basename(self._path):
                return base
            raise UnsupportedDatasetError(
                f"its {what} {file!r} is another file, and the root is one file only: publish the directory"
            )
        beside = posixpath.dirname(base)
        if not file.startswith("/"):
            name = posixpath.join(beside, file)
            if not _stays_inside(name):
                raise UnsupportedDatasetError(f"its {what} {file!r} is outside of the root")
            self._refuse_links_out(name, file, what)
            return name
        for top in (os.path.abspath(self._root), os.path.realpath(self._root)):
            if file.startswith(top.rstrip("/") + "/"):
                name = file[len(top.rstrip("/")) + 1 :]
                if not _stays_inside(name):
                    break
                self._refuse_links_out(name, file, what)
                if self._state(name).state != "missing":
                    return name
                return posixpath.join(beside, posixpath.basename(file))
        if os.path.lexists(file) or not posixpath.basename(file):
            raise UnsupportedDatasetError(f"its {what} {file!r} is outside of the root")
        name = posixpath.join(beside, posixpath.basename(file))
        self._refuse_links_out(name, file, what)
        return name

    def _refuse_links_out(self, name: str, file: str, what: str) -> None:
        """Something is there, but not to be opened: the library would open it all the same."""
        try:
            open_file(self._root, name).close()
        except DatasetNotFoundError:
            if os.path.exists(os.path.join(self._root, name)):
                raise UnsupportedDatasetError(f"its {what} {file!r} is not a file inside of the root") from None
        except AccessDeniedError as error:
            raise UnsupportedDatasetError(f"its {what} {file!r}: {error}") from None

    def _state(self, path: str) -> _Source:
        try:
            with open_file(self._root, path) as opened:
                return _Source(path, Generation.from_stat(opened.status).stamp)
        except (DatasetNotFoundError, AccessDeniedError):
            return _Source(path, "missing")


def _stays_inside(name: str) -> bool:
    depth = 0
    for part in name.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return False
    return "\0" not in name


def _numbered(text: str, number: int) -> str:
    return "%".join(part.replace("%b", str(number)) for part in text.split("%%"))


def _state_now(opened: OpenedPath) -> tuple[str, str]:
    """The generation of an open file, and a text that no later state of it has."""
    generation, now_ns = Generation.of(opened.fd), time.time_ns()
    unsettled = unsettled_s(generation, now_ns) > 0
    return generation.stamp, f"{generation.stamp}~{now_ns}" if unsettled else generation.stamp


def _texts(sources: Iterable[_Source]) -> list[str]:
    return [f"{s.path}@{s.state}" for s in sources]


def _stamp(own: str, sources: Iterable[_Source]) -> str:
    texts = sorted(_texts(sources))
    return f"{own}+{version_tag(texts)}" if texts else own


class _Listing:
    """One pass over a file's entries."""

    def __init__(self, file: Hdf5File) -> None:
        self._file = file
        self._root, self._worker = file._root, file._worker
        self._trees: dict[str, tuple[Hdf5Tree, OpenedPath, str] | str] = {}
        self._seen: dict[str, _Source] = {}
        self.stamp = ""

    def entries(self) -> Iterator[Entry]:
        with ExitStack() as stack:
            opened = stack.enter_context(open_file(self._root, self._file._path))
            self._stack = stack
            state = self._settled(opened)
            tree = Hdf5Tree(opened.path, self._worker.index(opened.fd, state))
            self._own = opened.path
            self._trees[opened.path] = (tree, opened, state)
            entries = [self._entry(placed) for placed in place(tree, self._follow)]
            for source in self._seen.values():
                if self._file._state(source.path) != source:
                    raise DatasetChangedError(f"{source.path!r} changed while it was read")
            # A file that grows while it is read (SWMR) is consistent: its datasets have states of their own.
            if Generation.of(opened.fd).stamp != state and "live" not in tree.root:
                raise DatasetChangedError(f"{self._file._path!r} changed while it was read")
            self.stamp = _stamp(state, self._seen.values())
            top = entries[0]
            if "live" in tree.root:
                top = replace(top, storage={**top.storage, "live": True})
            if self._seen:
                top = replace(top, storage={**top.storage, "sources": sorted(self._seen)})
            yield replace(top, version=version_tag(state), media_type=HDF5_MEDIA_TYPE)
            yield from entries[1:]

    def _settled(self, opened: OpenedPath) -> str:
        """Generation of a file that will not be taken for a later one."""
        generation = Generation.of(opened.fd)
        wait = unsettled_s(generation, time.time_ns())
        if wait > 0:
            time.sleep(wait)
            generation = Generation.of(opened.fd)
        return generation.stamp

    def _follow(self, tree: Hdf5Tree, outside: Outside) -> Target | str:
        for _ in range(_MAX_EXTERNAL_HOPS):
            try:
                name = self._file._locate(tree.file, outside.file, "target")
            except UnsupportedDatasetError as error:
                return str(error).replace("its target", "the link's file")
            found = self._tree(name)
            if isinstance(found, str):
                return found
            tree = found[0]
            resolved = tree.resolve(outside.path)
            if not isinstance(resolved, Outside):
                return resolved if isinstance(resolved, Target) else f"{resolved} in {name!r}"
            outside = resolved
        return f"a chain of over {_MAX_EXTERNAL_HOPS} external links"

    def _tree(self, name: str) -> tuple[Hdf5Tree, OpenedPath, str] | str:
        if name in self._trees:
            return self._trees[name]
        try:
            opened = open_file(self._root, name)
        except (DatasetNotFoundError, AccessDeniedError):
            self._seen.setdefault(name, _Source(name, "missing"))
            self._trees[name] = f"there is no file {name!r}"
            return self._trees[name]
        if opened.path in self._trees:  # this file, or one by another name
            opened.close()
            self._trees[name] = self._trees[opened.path]
            return self._trees[name]
        state = self._settled(opened)
        self._seen[name] = _Source(name, state)
        if len(self._trees) > 500:
            opened.close()
            return "over 500 other files are linked to"
        self._stack.enter_context(opened)
        try:
            tree = Hdf5Tree(opened.path, self._worker.index(opened.fd, state))
        except (UnsupportedDatasetError, IntegrityError) as error:
            self._trees[name] = f"{name!r}: {error}"
        else:
            self._trees[name] = self._trees[opened.path] = (tree, opened, state)
        return self._trees[name]

    def _entry(self, placed: Placed) -> Entry:
        link = _printable(placed.link)
        if placed.target is None:
            return Entry(placed.path, "link" if link else "unsupported", reason=_printable(placed.reason), target=link)
        node, tree = placed.target.node, placed.target.tree
        storage: dict[str, Any] = {"hdf5": node["path"]}
        if tree.file != self._own:
            storage["file"] = tree.file
        if node.get("skipped"):
            storage["attrs_skipped"] = dict(list(node["skipped"].items())[:50])
        if node.get("exact"):
            storage["attrs_exact"] = node["exact"]
        if placed.order is not None:
            storage["order"] = placed.order
        base = Entry(
            placed.path,
            "group",
            attrs=node.get("attrs", {}),
            attrs_tag=node.get("attrs_tag", "") or attrs_tag({}),
            attrs_inline=node.get("attrs_inline", True),
            target=link,
            storage=storage,
        )
        if node["kind"] == "group":
            return self._group(base, placed, storage)
        if node["kind"] == "type":
            told = storage | {"committed_type": True}
            return replace(base, kind="unsupported", reason="a committed datatype: it has no values", storage=told)
        storage |= _bounded(node.get("storage", {}))
        storage |= self._scales(tree, node)
        if name := tree.type_name(node):
            storage["type_name"] = _printable(name)
        if "reason" in node or "geometry" not in node:
            return replace(base, kind="unsupported", reason=str(node.get("reason", "it cannot be described")))
        return self._array(base, placed.target, storage)

    def _group(self, base: Entry, placed: Placed, storage: dict[str, Any]) -> Entry:
        assert placed.target is not None
        if placed.hidden:
            storage["not_listed"] = f"{placed.hidden} entries whose paths would be over 4096 bytes"
        if "problem" in placed.target.node:
            storage["problem"] = placed.target.node["problem"]
        return base

    def _array(self, base: Entry, target: Target, storage: dict[str, Any]) -> Entry:
        node, tree = target.node, target.tree
        known = self._trees[tree.file]
        assert not isinstance(known, str)
        _, opened, state = known
        try:
            geometry = Geometry.from_json(node["geometry"])
            absent: list[str] = []
            sources = self._file._sources(opened, node["form"], absent)
        except (UnsupportedDatasetError, IntegrityError) as error:
            return replace(base, kind="unsupported", reason=str(error))
        if node["form"]["mode"] == "external":
            missing = [s.path for s in sources if s.state == "missing"]
            self._seen |= {s.path: s for s in sources}
            if missing:
                return replace(base, kind="unsupported", reason=f"its external raw file {missing[0]!r} is missing")
        self._seen |= {s.path: s for s in sources}
        if node["form"]["mode"] in ("decode", "strings") and "sources" in node["form"]:
            storage["virtual_sources"] = [s.path for s in sources][:100]
            # A series of files is looked for up to the first one that is not there.
            is_series = any("%b" in "".join(pair) for pair in node["form"]["sources"])
            if absent and not (
                is_series and len(absent) <= len(node["form"]["sources"]) and len(sources) > len(absent)
            ):
                storage["missing_sources"] = absent[:10]
        return replace(
            base,
            kind="array",
            id=self._id(tree, str(node["path"])),
            version=version_tag([str(node.get("state", state)), *_texts(sources)], geometry),
            geometry=geometry,
            dims=dimension_names(tree, node, geometry.ndim),
            cbytes=int(node.get("cbytes", 0)),
            mtime_ns=opened.status.st_mtime_ns,
        )

    def _id(self, tree: Hdf5Tree, path: str) -> str:
        """Shared by every link to one dataset."""
        return dataset_id(self._file._owner_of(tree.file), path.lstrip("/") + ".b2nd")

    def _scales(self, tree: Hdf5Tree, node: Mapping[str, Any]) -> dict[str, Any]:
        """What a netCDF reader needs to know of dimension scales, by path."""
        told = dict(node.get("dimensions", {}))
        if not told:
            return {}
        scales = told.pop("scales", None)
        if scales is not None:
            nodes = [[tree.node(int(addr)) for addr in axis] for axis in scales]
            told["scales"] = [[str(n["path"]) for n in axis if n is not None] for axis in nodes]
        if "scale" in told and (size := tree.extents.get(int(node["addr"]))) is not None:
            told["size"] = size
        return {"dimensions": told}


def _printable(text: str) -> str:
    """Names that are not UTF-8 can be shown, but not sent."""
    return text.encode("utf-8", "backslashreplace").decode()


def _bounded(storage: Mapping[str, Any]) -> dict[str, Any]:
    """Enumerations of thousands of members, and the like, are not for a listing."""
    return {k: v if len(str(v)) <= _MAX_TOLD_NBYTES else "(too long to tell)" for k, v in storage.items()}


class _ChunkReader:
    """Reads one chunk of a dataset of an open file."""

    def __init__(
        self,
        file: Hdf5File,
        opened: OpenedPath,
        state: str,
        entry: Entry,
        geometry: Geometry,
        stored: StoredDataset,
        sources: Sequence[_Source],
        stack: ExitStack,
    ) -> None:
        self._file, self._opened, self._state = file, opened, state
        self._entry, self._geometry = entry, geometry
        self._stored, self._sources, self._stack = stored, sources, stack
        self._form: Mapping[str, Any] = stored.node["form"]
        self._seed = checksum_seed(entry.id, entry.version)

    def record(self, nchunk: int, coords: tuple[int, ...], wanted: list[int]) -> BlockRecord:
        match self._form["mode"]:
            case "fill":
                return fill_record(self._seed, nchunk, wanted, self._geometry, bytes.fromhex(self._form["fill"]))
            case "contiguous":
                base = int(self._form["offset"]) + self._origin(coords)
                return self._runs(nchunk, wanted, lambda at, n: read_at(self._opened.fd, n, base + at))
            case "external":
                base = self._origin(coords)
                return self._runs(nchunk, wanted, lambda at, n: self._read_segments(base + at, n))
            case "chunked":
                return self._chunk(nchunk, coords, wanted)
            case "strings":
                return self._strings(nchunk, coords)
            case _:
                return array_record(self._seed, nchunk, wanted, self._geometry, self._decoded(coords))

    def may_differ(self, after: StoredDataset, projection: ChunkProjection) -> bool:
        """Could the chunk have been written while it was read, though what is inside of the shape is the same?

        Only chunks that were moved, and filtered ones with room for more: items that are stored as they are stay.
        """
        g = self._geometry
        if self._row(projection.nchunk) != self._row(projection.nchunk, after):
            return True
        ends = [(i + 1) * c for i, c in zip(projection.coords, g.chunks, strict=True)]
        has_room = any(end > n for end, n in zip(ends, g.shape, strict=True))
        return has_room and bool(self._stored.node["storage"].get("filters"))

    def _row(self, nchunk: int, stored: StoredDataset | None = None) -> tuple[int, int, int] | None:
        """Offset, bytes and filter mask of a stored chunk."""
        table = (stored or self._stored).chunks
        row = int(np.searchsorted(table["nchunk"], nchunk))
        if row == len(table) or int(table["nchunk"][row]) != nchunk:
            return None
        return int(table["offset"][row]), int(table["nbytes"][row]), int(table["mask"][row])

    def _origin(self, coords: tuple[int, ...]) -> int:
        """Bytes before the first item of a chunk of whole trailing axes."""
        g, item = self._geometry, 0
        for length, chunk, coord in zip(g.shape, g.chunks, coords, strict=True):
            item = item * length + coord * chunk
        return item * g.itemsize

    def _runs(self, nchunk: int, wanted: list[int], fetch: Any) -> BlockRecord:
        raw = fetch_blocks(self._geometry, nchunk, wanted, fetch)
        return encode_blocks(self._seed, nchunk, wanted, raw, self._geometry)

    def _read_segments(self, start: int, nbytes: int) -> bytes:
        """Bytes of external raw files; what is beyond the end of one is zeros, as in HDF5."""
        parts: list[bytes] = []
        position = 0
        for name, offset, size in self._form["segments"]:
            # An unlimited last segment has the largest number there is.
            low, high = max(start - position, 0), min(start + nbytes - position, int(size))
            if low < high:
                path = self._file._locate(self._opened.path, str(name), "external raw file")
                opened = self._stack.enter_context(open_file(self._file._root, path))
                data = read_at(opened.fd, high - low, int(offset) + low)
                parts.append(data + bytes(high - low - len(data)))
            position += int(size)
        data = b"".join(parts)
        return data + bytes(nbytes - len(data))

    def _chunk(self, nchunk: int, coords: tuple[int, ...], wanted: list[int]) -> BlockRecord:
        row = self._row(nchunk)
        if row is None:
            return fill_record(self._seed, nchunk, wanted, self._geometry, bytes.fromhex(self._form["fill"]))
        offset, nbytes, mask = row
        record = chunk_record(
            self._seed,
            nchunk,
            wanted,
            self._geometry,
            Pipeline.from_json(self._form["pipeline"]),
            mask,
            nbytes,
            lambda at, n: read_at(self._opened.fd, n, offset + at),
        )
        if record is None:
            return array_record(self._seed, nchunk, wanted, self._geometry, self._decoded(coords))
        return record

    def _box(self, coords: tuple[int, ...]) -> tuple[list[int], list[int]]:
        g = self._geometry
        start = [i * c for i, c in zip(coords, g.chunks, strict=True)]
        return start, [min(a + c, n) for a, c, n in zip(start, g.chunks, g.shape, strict=True)]

    def _read(self, coords: tuple[int, ...]) -> tuple[dict[str, Any], bytes, tuple[int, ...]]:
        start, stop = self._box(coords)
        name = ""
        if self._sources or "sources" in self._form:
            # The library finds sources relative to the file's name; they were checked to be inside of the root.
            name = os.path.join(os.path.realpath(self._file._root), self._opened.path)
        state = "\0".join([self._state, *_texts(self._sources)])
        answer, body = self._file._worker.read(
            self._opened.fd, state, str(self._entry.storage["hdf5"]), start, stop, name
        )
        return answer, body, tuple(b - a for a, b in zip(start, stop, strict=True))

    def _decoded(self, coords: tuple[int, ...]) -> npt.NDArray[Any]:
        _, body, shape = self._read(coords)
        try:
            return np.frombuffer(body, self._geometry.dtype).reshape(shape)
        except ValueError as error:
            raise IntegrityError(f"{self._entry.path!r} is not what its index says") from error

    def _strings(self, nchunk: int, coords: tuple[int, ...]) -> BlockRecord:
        answer, body, _ = self._read(coords)
        count = int(answer["count"])
        lengths = np.frombuffer(body, "<u8", count)
        ends = 8 * count + np.cumsum(lengths)
        if int(ends[-1] if count else 0) > 1 << 30:
            raise UnsupportedDatasetError(f"strings {nchunk} of {self._entry.path!r} take over 1 GiB")
        texts = [
            body[int(end - n) : int(end)].decode("utf-8", "surrogateescape")
            for end, n in zip(ends.tolist(), lengths.tolist(), strict=True)
        ]
        return encode_strings(self._seed, nchunk, texts)
