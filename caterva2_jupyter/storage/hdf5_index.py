"""What an HDF5 file holds, as JSON and bytes, read with h5py: groups, links, datasets, attributes.

It runs in the worker process only (``hdf5_process``), which may die of a bad file. Objects are only ever
opened by the names of hard links, one at a time: the library never follows a soft or external link by
itself, so it opens no file that it was not given. What is made of it is decided in ``hdf5_listing``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o, h5t

from ..errors import IntegrityError, UnsupportedDatasetError
from .hdf5_attributes import read_attributes, read_dimensions
from .hdf5_chunk_table import chunk_table, live_state
from .hdf5_dataset import describe, describe_type, fill_bytes, virtual_sources
from .hdf5_edge import FOREIGN_ERRORS, bytes_of, reason_of, text_of

__all__ = ["Hdf5Reader"]


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
                        node.setdefault("order", {})[text_of(name)] = rank
                    below = f"{path.rstrip('/')}/{text_of(name)}"
                    if skip is not None and below in skip:
                        node["links"].append([text_of(name), "broken", "the HDF5 library does not survive reading it"])
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
                yield node | read_attributes(h5py.Group(oid), everything=False)
                pending += reversed(fresh)
            elif isinstance(oid, h5d.DatasetID):
                yield self._dataset(oid, path)
            else:
                yield {"addr": h5o.get_info(oid).addr, "path": path, "kind": "type", "storage": describe_type(oid)}

    def _link_names(self, gid: Any, node: dict[str, Any]) -> list[tuple[bytes, int, int | None]]:
        """Names of links, their types, and their places in the order of creation where that is tracked."""
        found: list[tuple[bytes, int, int | None]] = []

        def note(name: bytes, info: Any) -> None:
            found.append((bytes(name), int(info.type), int(info.corder) if info.corder_valid else None))

        try:
            gid.links.iterate(note, info=True)
        except FOREIGN_ERRORS as error:
            node["problem"] = f"its links cannot be read: {reason_of(error)}"
        return found

    def _dataset(self, dsid: Any, path: str) -> dict[str, Any]:
        node: dict[str, Any] = {"addr": h5o.get_info(dsid).addr, "path": path, "kind": "dataset"}
        try:
            dataset = h5py.Dataset(dsid)
            node |= read_attributes(dataset, everything=False)
            node |= read_dimensions(dsid, dataset)
            node |= self._described(dsid)
        except (UnsupportedDatasetError, IntegrityError, *FOREIGN_ERRORS) as error:
            node["reason"] = reason_of(error)
        return node

    def _described(self, dsid: Any, extent: tuple[int, ...] = ()) -> dict[str, Any]:
        description, _ = describe(dsid)
        extent = extent or dsid.shape
        if "geometry" in description:
            description["storage"].pop("shape", None)
        if self._is_live and "form" in description and (state := live_state(dsid, description["form"], extent)):
            description["state"] = state
        return description

    def _open_object(self, path: str) -> Any:
        """The object at a path of hard links."""
        oid = h5g.open(self._file.id, b"/")
        for name in filter(None, path.split("/")):
            raw = bytes_of(name)
            if not isinstance(oid, h5g.GroupID) or oid.links.get_info(raw).type != h5l.TYPE_HARD:
                raise UnsupportedDatasetError(f"nothing at {path!r}")
            oid = h5o.open(oid, raw)
        return oid

    def attributes(self, path: str) -> dict[str, Any]:
        """All attributes of an object."""
        oid = self._open_object(path)
        kinds = {h5g.GroupID: h5py.Group, h5d.DatasetID: h5py.Dataset}
        owner = next((make(oid) for kind, make in kinds.items() if isinstance(oid, kind)), None)
        return read_attributes(owner or h5py.Datatype(oid), everything=True)

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
            form["fill"] = fill_bytes(oid).hex()
        chunks = chunk_table(oid, extent or oid.shape).tobytes() if form["mode"] == "chunked" else b""
        return description, chunks

    def read(self, path: str, start: Sequence[int], stop: Sequence[int]) -> tuple[dict[str, Any], bytes]:
        """A box of a dataset, decoded: bytes in C order, or strings after their lengths."""
        oid = self._open_object(path)
        dataset = h5py.Dataset(oid)
        ndim = len(dataset.shape)
        box = tuple(slice(a, b) for a, b in zip(start[:ndim], stop[:ndim], strict=True))
        values: Any = dataset[box]
        if h5t.check_string_dtype(dataset.dtype) is not None and dataset.dtype.kind == "O":
            items = [v if isinstance(v, bytes) else bytes_of(v) for v in np.asarray(values, object).ravel().tolist()]
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
            raw = bytes_of(name)
            if not isinstance(oid, h5g.GroupID) or raw not in oid:
                return {"missing": True}
            kind = oid.links.get_info(raw).type
            if kind == h5l.TYPE_HARD:
                oid = h5o.open(oid, raw)
            elif kind == h5l.TYPE_SOFT and nfollowed < 40:
                nfollowed += 1
                target = text_of(oid.links.get_val(raw))
                if target.startswith("/"):
                    oid = walked[0]
                names = [n for n in target.split("/") if n] + names
            else:
                return {"reason": "it comes from another file through a link"}
        if not isinstance(oid, h5d.DatasetID):
            return {"missing": True}
        dcpl = oid.get_create_plist()
        if dcpl.get_layout() == h5d.VIRTUAL:
            return {"virtual": virtual_sources(dcpl)}
        if dcpl.get_external_count():
            return {"reason": "it comes from raw files through another HDF5 file"}
        return {}


def _link(gid: Any, raw: bytes, kind: int) -> tuple[list[Any], Any]:
    """What a link says, and the object of a hard one."""
    name = text_of(raw)
    try:
        if kind == h5l.TYPE_HARD:
            child = h5o.open(gid, raw)
            return [name, "hard", h5o.get_info(child).addr], child
        if kind == h5l.TYPE_SOFT:
            return [name, "soft", text_of(gid.links.get_val(raw))], None
        if kind == h5l.TYPE_EXTERNAL:
            file, target = gid.links.get_val(raw)
            return [name, "external", text_of(file), text_of(target)], None
    except FOREIGN_ERRORS as error:
        return [name, "broken", reason_of(error)], None
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
        text = reason_of(error if "SWMR" in str(first) else first)
        raise UnsupportedDatasetError(f"the HDF5 library cannot open it: {text}") from error
