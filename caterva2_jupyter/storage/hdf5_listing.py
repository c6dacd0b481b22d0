"""The entries of an HDF5 file, made of what the worker process says is in it.

Links are followed, also into other files of the root; what is listed is of one state of all files that were looked
into, or an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.attributes import attrs_tag
from ..core.metadata import HDF5_MEDIA_TYPE, Entry, Geometry, dataset_id
from ..errors import (
    AccessDeniedError,
    DatasetChangedError,
    DatasetNotFoundError,
    IntegrityError,
    UnsupportedDatasetError,
)
from .generation import Generation, unsettled_s, version_tag
from .hdf5_sources import FileState, Hdf5Sources, stamp_with, state_texts
from .hdf5_tree import Hdf5Tree, Outside, Placed, Target, dimension_names, place
from .hdf5_worker import Hdf5Worker
from .safe_open import OpenedPath, open_file

__all__ = ["Hdf5Listing"]

_MAX_EXTERNAL_HOPS = 16
_MAX_TOLD_NBYTES = 16 << 10


class Hdf5Listing:
    """One pass over a file's entries.

    Parameters
    ----------
    root : Path
    path : str
        Of the file, relative to the root.
    owner_of : callable
        The owner id that ids of datasets in a file are made with.
    worker : Hdf5Worker
    sources : Hdf5Sources

    Attributes
    ----------
    stamp : str
        The state of all files that were looked into, once all entries were given.
    """

    def __init__(
        self,
        root: Path,
        path: str,
        owner_of: Callable[[str], str],
        worker: Hdf5Worker,
        sources: Hdf5Sources,
    ) -> None:
        self._root, self._path, self._owner_of = root, path, owner_of
        self._worker, self._sources = worker, sources
        self._trees: dict[str, tuple[Hdf5Tree, OpenedPath, str] | str] = {}
        self._seen: dict[str, FileState] = {}
        self.stamp = ""

    def entries(self) -> Iterator[Entry]:
        with ExitStack() as stack:
            opened = stack.enter_context(open_file(self._root, self._path))
            self._stack = stack
            state = self._settled(opened)
            tree = Hdf5Tree(opened.path, self._worker.index(opened.fd, state))
            self._own = opened.path
            self._trees[opened.path] = (tree, opened, state)
            entries = [self._entry(placed) for placed in place(tree, self._follow)]
            for source in self._seen.values():
                if self._sources.state(source.path) != source:
                    raise DatasetChangedError(f"{source.path!r} changed while it was read")
            # A file that grows while it is read (SWMR) is consistent: its datasets have states of their own.
            if Generation.of(opened.fd).stamp != state and "live" not in tree.root:
                raise DatasetChangedError(f"{self._path!r} changed while it was read")
            self.stamp = stamp_with(state, self._seen.values())
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
                name = self._sources.locate(tree.file, outside.file, "target")
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
            self._seen.setdefault(name, FileState(name, "missing"))
            self._trees[name] = f"there is no file {name!r}"
            return self._trees[name]
        if opened.path in self._trees:  # this file, or one by another name
            opened.close()
            self._trees[name] = self._trees[opened.path]
            return self._trees[name]
        state = self._settled(opened)
        self._seen[name] = FileState(name, state)
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
            sources = self._sources.of_form(opened, node["form"], absent)
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
            version=version_tag([str(node.get("state", state)), *state_texts(sources)], geometry),
            geometry=geometry,
            dims=dimension_names(tree, node, geometry.ndim),
            cbytes=int(node.get("cbytes", 0)),
            mtime_ns=opened.status.st_mtime_ns,
        )

    def _id(self, tree: Hdf5Tree, path: str) -> str:
        """Shared by every link to one dataset."""
        return dataset_id(self._owner_of(tree.file), path.lstrip("/") + ".b2nd")

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
