"""The Zarr v3 view: any array or group as a Zarr hierarchy, read only, for readers that know nothing of ours.

``zarr/ROOT/PATH/zarr.json`` tells what is there (of a group all that is below it, in one answer), and
``zarr/ROOT/PATH/c/0/1`` is a chunk: blocks come by way of the cache as everywhere, a worker process decodes them and
encodes them as the metadata says.

A Zarr reader takes 404 for "this chunk holds fill values only". Chunks are never absent here, so whatever is wrong with
one is answered with another status, and never read as zeros.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from ..compute.netcdf_attributes import blosc2_attributes, netcdf_attributes
from ..compute.netcdf_dimensions import (
    NON_COORDINATE,
    DimensionCounter,
    build_tree,
    dataset_name,
    name_dimensions,
)
from ..compute.zarr_metadata import array_metadata, chunk_selection, chunk_shape, group_metadata, unique_names
from ..core.catalog import MAX_PAGE, CatalogQuery
from ..core.metadata import HDF5_MEDIA_TYPE, Entry
from ..core.paths import names_below, parent, split_address
from ..core.source import Source
from ..core.wire import ReadRequest
from ..errors import (
    DatasetChangedError,
    DatasetNotFoundError,
    NotFoundError,
    SelectionError,
    TooLargeError,
    UnsupportedDatasetError,
)
from ..web.byte_range import UnsatisfiableRange, parse_byte_range
from ..web.caps import ClientCap
from ..web.compute_pool import ComputePool
from ..web.packed_records import box_arguments, packed_parts
from ..web.source_handlers import SourceAnswers

__all__ = ["ZarrAnswers", "zarr_routes"]

Runner = Callable[..., Awaitable[Any]]
"""Runs a function with its arguments in a thread."""

MAX_MEMBERS = 100_000
MAX_CHUNK_NBYTES = 256 << 20
_METADATA = "zarr.json"
_CHUNK = re.compile(r"(.*)/c((?:/\d{1,18})*)", re.ASCII | re.DOTALL)


class ZarrAnswers(SourceAnswers):
    """``GET zarr/ROOT/PATH/zarr.json`` and ``GET zarr/ROOT/PATH/c/I/J/...``, one ``Range``, ``If-None-Match``."""

    def initialize(  # type: ignore[override]
        self, run: Runner, compute: ComputePool, cap: ClientCap, **kwargs: Any
    ) -> None:
        self.run, self.compute, self.cap = run, compute, cap
        super().initialize(**kwargs)

    async def answer_head(self, address: str) -> None:
        await self.answer_get(address)

    async def answer_get(self, address: str) -> None:
        node, _, last = address.rpartition("/")
        if last == _METADATA and node:
            await self._metadata(node)
            return
        match = _CHUNK.fullmatch(address)
        if match is None:
            raise NotFoundError(f"the Zarr view has no {last[:100]!r}: only zarr.json and chunks")
        coords = [int(text) for text in match[2].split("/") if text]
        with self.cap.hold(self.client_key()):
            await self.while_connected(self._chunk(match[1], coords))

    # Metadata

    async def _metadata(self, address: str) -> None:
        root, path = split_address(address)
        source = self.source_of(root)
        entry = await _found(source, path)
        if entry.kind == "group":
            probe = await source.catalog(CatalogQuery(limit=1))
            if self.not_modified(_etag("group", probe.epoch, probe.seq, entry.path)):
                return
            top, entries = await self._listed(source, entry)
            form = await self.run(_group, top, entries, entry.path)
        elif entry.has_data:
            if self.not_modified(_etag("array", entry.version, entry.attrs_tag, entry.path)):
                return
            form = await self._array(source, entry)
        else:
            raise UnsupportedDatasetError(f"{path!r} cannot be read: {entry.reason or entry.kind}")
        self.set_header("Cache-Control", "private, no-cache")
        await self.write_pieces(json.dumps(form, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))

    async def _array(self, source: Source, entry: Entry) -> dict[str, Any]:
        if "hdf5" not in entry.storage:
            return _array(entry, entry.dims or ())
        # Names of axes may be those of dimensions in the groups above, and depend on what else is there.
        top, entries = await self._listed(source, entry)
        form: dict[str, Any] = await self.run(_array_in_file, top, entries, entry)
        return form

    async def _listed(self, source: Source, entry: Entry) -> tuple[Entry, list[Entry]]:
        """The HDF5 file, or the directory, that an entry is in, and all that is below that."""
        top = entry
        while "hdf5" in top.storage and top.media_type != HDF5_MEDIA_TYPE and top.path:
            above = parent(top.path)
            top = await source.entry(above)
        if "hdf5" not in entry.storage:
            top = entry
        entries: list[Entry] = []
        after: str | None = ""
        while after is not None:
            page = await source.catalog(CatalogQuery(under=top.path, after=after, limit=MAX_PAGE))
            entries += await self.run(lambda p=page: list(p.entries()))
            after = page.next
            if len(entries) > MAX_MEMBERS:
                raise TooLargeError(f"over {MAX_MEMBERS} datasets are below {top.path!r}: open a group of them")
        complete = [e if e.attrs_inline else await source.entry(e.path) for e in entries if e.path != top.path]
        return top, complete

    # Chunks

    async def _chunk(self, address: str, coords: list[int]) -> None:
        root, path = split_address(address)
        try:
            source = self.source_of(root)
            entry = await _found(source, path)
        except NotFoundError as error:
            raise DatasetChangedError(f"{address[:200]!r} is gone: open it again ({error})") from None
        geometry = entry.geometry
        if geometry is None:
            raise UnsupportedDatasetError(f"{path!r} cannot be read: {entry.reason or entry.kind}")
        selection = chunk_selection(geometry, coords)
        if selection is None:
            raise SelectionError(f"no chunk {coords} in {path!r} now: it may have changed, open it again")
        shape = chunk_shape(geometry)
        if selection.size * geometry.itemsize > MAX_CHUNK_NBYTES:
            raise TooLargeError(f"chunks of {path!r} are over {MAX_CHUNK_NBYTES} bytes: read it with caterva2_jupyter")
        if self.not_modified(_etag("chunk", entry.version, *coords)):
            return
        request = ReadRequest(source.root, entry.path, entry.version, selection.to_json(), mode="blocks")
        stream = await source.read_blocks(request)
        arguments = {**box_arguments(stream, selection), "chunk_shape": list(shape)}
        _, (body,) = await self.compute.run("zarr_chunk", arguments, packed_parts(stream))
        self._send(body)

    def _send(self, body: bytes) -> None:
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "private, no-cache")
        self.set_header("Accept-Ranges", "bytes")
        try:
            wanted = parse_byte_range(self.request.headers.get("Range"), len(body))
        except UnsatisfiableRange:
            self.set_status(416)
            self.set_header("Content-Range", f"bytes */{len(body)}")
            return
        if wanted is not None:
            start, stop = wanted
            self.set_status(206)
            self.set_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
            body = body[start:stop]
        self.write(body)


async def _found(source: Source, path: str) -> Entry:
    """The entry of a node. netCDF names a variable otherwise where a dimension that it lacks has its name."""
    try:
        return await source.entry(path)
    except DatasetNotFoundError:
        above, _, name = path.rpartition("/")
        return await source.entry(f"{above}/{NON_COORDINATE}{name}".lstrip("/"))


def _etag(*parts: object) -> str:
    return f'"{hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=16).hexdigest()}"'


def _array(entry: Entry, dims: tuple[str, ...]) -> dict[str, Any]:
    attrs = netcdf_attributes(entry) if "hdf5" in entry.storage else blosc2_attributes(entry)
    ndim = entry.geometry.ndim if entry.geometry is not None else 0
    names = dims or tuple(f"dim_{n}" for n in (entry.geometry.shape if entry.geometry is not None else ()))
    return array_metadata(entry, unique_names(names) if len(names) == ndim else (), attrs)


def _array_in_file(top: Entry, entries: list[Entry], entry: Entry) -> dict[str, Any]:
    tree = build_tree(top, entries)
    chain = tree.chain(names_below(parent(entry.path), top.path))
    counter = DimensionCounter()
    for _, group in tree.walk():
        counter.count(group)
    return _array(entry, name_dimensions(entry, dataset_name(entry), chain))


def _group(top: Entry, entries: list[Entry], path: str) -> dict[str, Any]:
    """``zarr.json`` of a group; arrays that Zarr has no data type for are left out."""
    tree = build_tree(top, entries)
    counter = DimensionCounter()
    for _, group in tree.walk():
        counter.count(group)
    members: dict[str, dict[str, Any]] = {}
    pending = [("", tree.chain(names_below(path, top.path)))]
    node = pending[0][1][0]
    while pending:
        prefix, chain = pending.pop()
        for inside, entry in chain[0].datasets.items():
            if entry.kind != "array" or entry.storage.get("dimensions", {}).get("no_variable"):
                continue
            name = inside.replace(NON_COORDINATE, "")
            try:
                # Where two have one name, that without the suffix is the one that the name finds.
                members.setdefault(f"{prefix}{name}", _array(entry, name_dimensions(entry, inside, chain)))
            except UnsupportedDatasetError:
                continue
        for name, group in chain[0].groups.items():
            members[f"{prefix}{name}"] = group_metadata(netcdf_attributes(group.entry), {})
            pending.append((f"{prefix}{name}/", [group, *chain]))
    return group_metadata(netcdf_attributes(node.entry), members)


def zarr_routes(run: Runner, compute: ComputePool) -> list[tuple[str, type[SourceAnswers], dict[str, Any]]]:
    """Pattern, answers and what they need besides sources and limits."""
    cap = ClientCap("chunks of the Zarr view", 64, 256)
    return [(r"/zarr/(.+)", ZarrAnswers, {"run": run, "compute": compute, "cap": cap})]
