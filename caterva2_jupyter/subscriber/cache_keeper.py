"""What people may ask of a subscriber's cache: what is in it, what a read would cost, fetch, check, pin, seal, clear.

It knows roots and paths, where ``storage/block_cache`` knows versions; files are touched in the executor. It does
not answer HTTP (``cache_handlers`` does).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..core.answer_choice import predict_block_cbytes
from ..core.attributes import decode_attrs
from ..core.catalog import MAX_PAGE, CatalogQuery
from ..core.chunk_grid import BlockPlan
from ..core.metadata import Entry
from ..core.paths import join
from ..core.selection import Selection
from ..core.source import Source
from ..core.wire import ReadRequest
from ..errors import (
    Caterva2Error,
    ConflictError,
    DatasetChangedError,
    NotCachedError,
    SourceUnavailableError,
    UnsupportedDatasetError,
)
from ..storage.block_cache import BlockCache, CachedVersion
from ..storage.cache_directory import LEFTOVER
from ..storage.closing import close_stream
from ..storage.sealing import seal
from .cache_summary import CacheSummary, KnownRoots
from .read_counts import ReadCounts
from .segments import Segments

__all__ = ["CacheKeeper", "FollowedRoots"]

REPORT_S = 0.25
VERIFIED_NBYTES = 16 << 20
_CHUNKS_AT_ONCE = 1000

T = TypeVar("T")
Bits = npt.NDArray[np.bool_]


class FollowedRoots(KnownRoots, Protocol):
    """The roots of a subscriber."""

    def source(self, root: str) -> Source:
        """The source of a root.

        Raises
        ------
        RootNotFoundError
        """
        ...

    def is_followed(self, root: str) -> bool:
        """Is what is read of it kept?"""
        ...


@dataclass(frozen=True, slots=True)
class _Read:
    """A selection of a version, and which of its blocks are kept."""

    source: Source
    entry: Entry
    request: ReadRequest
    version: CachedVersion
    held: Bits

    @property
    def missing_cbytes(self) -> int:
        return int((~self.held).sum() * predict_block_cbytes(self.entry, self.version.geometry))


class CacheKeeper:
    """The cache of a subscriber by root and path.

    Parameters
    ----------
    roots : FollowedRoots
    executor : Executor
        For files; closed by its owner.
    counts : ReadCounts, optional
        What was read since the start, as others count it.

    Attributes
    ----------
    summary : CacheSummary
    """

    def __init__(self, roots: FollowedRoots, executor: Executor, counts: ReadCounts | None = None) -> None:
        self._roots, self._executor = roots, executor
        self.summary = CacheSummary(roots, counts if counts is not None else ReadCounts(), executor)
        self._opened: BlockCache | None = None

    def open(self, cache: BlockCache) -> None:
        """From now on keep this cache."""
        self._opened = cache
        self.summary.open(cache)

    @property
    def _cache(self) -> BlockCache:
        if self._opened is None:
            raise SourceUnavailableError("the subscriber is starting, its cache is not open yet")
        return self._opened

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    # What is there

    async def status(self, root: str, path: str) -> dict[str, Any]:
        """What is kept of all roots (``root=""``), of a root, or below a path of it."""
        return await self._run(self._status, root, path)

    def _status(self, root: str, path: str) -> dict[str, Any]:
        cache = self._cache
        pinned = {(pin.root, pin.id) for pin in cache.pins}
        datasets = [
            {
                "path": f"{version.root}/{version.path}",
                "id": version.id,
                "version": version.version,
                "nbytes": version.nbytes,
                "pinned": (version.root, version.id) in pinned,
            }
            for version in self._below(root, path)
        ]
        pins = [f"{pin.root}/{pin.path}" for pin in cache.pins if _is_below(pin.root, pin.path, root, path)]
        return {
            "directory": str(cache.directory.absolute()),
            "quota_nbytes": cache.quota_nbytes,
            "usage_nbytes": cache.usage_nbytes,
            "counters": asdict(cache.counters),
            "pins": pins,
            "datasets": datasets,
        }

    def _below(self, root: str, path: str) -> list[CachedVersion]:
        return [v for v in self._cache.stored() if _is_below(v.root, v.path, root, path)]

    # Reads to come

    async def estimate(self, root: str, path: str, version: str | None, selection: Any) -> dict[str, Any]:
        """What reading a selection would cost from here on.

        Raises
        ------
        RootNotFoundError, DatasetNotFoundError, DatasetChangedError, SelectionError, UnsupportedDatasetError
        """
        read = await self._plan(root, path, version, selection)
        nrequests = await self._run(_count_requests, read)
        return {
            "path": f"{root}/{read.entry.path}",
            "version": read.entry.version,
            "blocks": len(read.held),
            "held_blocks": int(read.held.sum()),
            "cbytes": read.missing_cbytes,
            "requests": nrequests,
        }

    async def prefetch(
        self, root: str, path: str, version: str | None, selection: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Fetch the blocks of a selection that are not kept yet, and tell now and then how far it is.

        What has come stays when it breaks or is given up: asked again, it goes on from there.

        Raises
        ------
        ConflictError
            When the root is not followed: nothing would be kept.
        Caterva2Error
            As reading does.
        """
        if not self._roots.is_followed(root):
            raise ConflictError(f"root {root!r} is not followed, so nothing of it is kept: follow it first")
        read = await self._plan(root, path, version, selection)
        total = read.missing_cbytes
        done, told = 0, time.monotonic()
        form = {"path": f"{root}/{read.entry.path}", "version": read.entry.version, "blocks": len(read.held)}
        yield {**form, "held_blocks": int(read.held.sum()), "done_cbytes": 0, "cbytes": total}
        if not read.held.all():
            stream = await read.source.read_blocks(replace(read.request, held=read.held))
            try:
                async for record in stream.records:
                    done += len(record.body)
                    if time.monotonic() - told >= REPORT_S:
                        told = time.monotonic()
                        yield {**form, "done_cbytes": done, "cbytes": max(total, done)}
            finally:
                await close_stream(stream.records)
        held = await self._run(_held, read.version, read.request)
        yield {**form, "held_blocks": int(held.sum()), "done_cbytes": done, "cbytes": done, "done": True}

    async def _plan(self, root: str, path: str, version: str | None, selection: Any) -> _Read:
        source = self._roots.source(root)
        entry = await source.entry(path)
        if version is not None and version != entry.version:
            geometry = await self._run(self._cache.geometry, root, entry.id, version)
            if geometry is None:
                raise DatasetChangedError(f"{root}/{path} has changed: version {version} is gone")
            entry = replace(entry, version=version, geometry=geometry)
        if entry.geometry is None:
            raise UnsupportedDatasetError(f"{root}/{path} has no data: {entry.reason or f'it is a {entry.kind}'}")
        request = ReadRequest(root, entry.path, entry.version, selection)
        kept = self._cache.open(entry, root)
        return _Read(source, entry, request, kept, await self._run(_held, kept, request))

    # Care

    async def verify(self, root: str, path: str) -> AsyncIterator[dict[str, Any]]:
        """Read all that is kept below a path; what fails its checksum is dropped. Tells how far it is."""
        versions = await self._run(self._below, root, path)
        total = sum(version.nbytes for version in versions)
        counts = {"blocks": 0, "nbytes": 0, "bad": 0}
        for version in versions:
            where = {"path": f"{version.root}/{version.path}", "version": version.version}
            chunks = iter(await self._run(version.chunks))
            while True:
                nblocks, nbytes, nbad = await self._run(_verify_some, version, chunks)
                if not nblocks:
                    break
                counts["blocks"] += nblocks
                counts["nbytes"] += nbytes
                counts["bad"] += nbad
                yield {**where, **counts, "total_nbytes": max(total, counts["nbytes"])}
        yield {**counts, "total_nbytes": counts["nbytes"], "done": True}

    async def clear(self, root: str, path: str) -> dict[str, Any]:
        """Forget what is kept below a path, pinned or not; pins stay."""

        def clear() -> dict[str, Any]:
            freed = [self._cache.remove(version) for version in self._below(root, path)]
            return {"datasets": len(freed), "nbytes": sum(freed)}

        return await self._run(clear)

    async def pin(self, root: str, path: str) -> dict[str, Any]:
        """Let a dataset, or all that are below a group now, stay whatever the quota.

        Raises
        ------
        RootNotFoundError, DatasetNotFoundError
        """
        pinned: list[str] = []
        async for entry in self._entries(root, path):
            await self._run(self._cache.pin, root, entry.id, entry.path)
            pinned.append(f"{root}/{entry.path}")
        return {"pinned": pinned}

    async def _entries(self, root: str, path: str) -> AsyncIterator[Entry]:
        source = self._roots.source(root)
        if path:
            entry = await source.entry(path)
            if entry.kind != "group":
                if entry.has_data:
                    yield entry
                return
        after: str | None = ""
        while after is not None:
            page = await source.catalog(CatalogQuery(under=path, after=after, limit=MAX_PAGE))
            for entry in await self._run(lambda page=page: list(page.entries())):
                if entry.has_data:
                    yield entry
            after = page.next

    async def unpin(self, root: str, path: str) -> dict[str, Any]:
        """Let what is pinned at or below a path go in its turn again."""

        def unpin() -> dict[str, Any]:
            cache = self._cache
            pins = [pin for pin in cache.pins if _is_below(pin.root, pin.path, root, path)]
            return {"unpinned": [f"{pin.root}/{pin.path}" for pin in pins if cache.unpin(pin.root, pin.id)]}

        return await self._run(unpin)

    async def seal(self, root: str, path: str, version: str | None) -> int:
        """What is kept of a dataset as a ``.b2nd``: an open file that has no name any more. The caller closes it.

        Raises
        ------
        NotCachedError
            When it is not complete.
        UnsupportedDatasetError, DatasetChangedError
        SourceUnavailableError
            When the disk is full.
        """
        source = self._roots.source(root)
        entry = await source.entry(path)
        if version is not None and version != entry.version:
            raise DatasetChangedError(f"{root}/{path} has changed: version {version} is gone")
        if entry.geometry is None:
            raise UnsupportedDatasetError(f"{root}/{path} has no data: {entry.reason or f'it is a {entry.kind}'}")
        if not entry.attrs_inline:
            raise NotCachedError(f"the attributes of {root}/{path} are not here, and its source is away")
        attrs: dict[str, Any] = decode_attrs(entry.attrs)
        if entry.dims is not None:
            attrs.setdefault("dims", list(entry.dims))
        return await self._run(_sealed_fd, self._cache, self._cache.open(entry, root), attrs)

    async def read_part(self, fd: int, nbytes: int, offset: int) -> bytes:
        """A part of an open file."""
        return await self._run(os.pread, fd, nbytes, offset)

    async def close_file(self, fd: int) -> None:
        """Close a file; of one without a name that frees its bytes."""
        await self._run(os.close, fd)


def _sealed_fd(cache: BlockCache, version: CachedVersion, attrs: dict[str, Any]) -> int:
    # By that name it is removed at the next start, should this process die.
    directory = cache.directory / f"{LEFTOVER}seal-{secrets.token_hex(8)}"
    try:
        directory.mkdir(mode=0o700)
        goal = directory / "sealed.b2nd"
        seal(version, goal, attrs)
        return os.open(goal, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, Caterva2Error):
            raise
        raise SourceUnavailableError(f"no sealed file can be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _is_below(root: str, path: str, wanted_root: str, wanted: str) -> bool:
    if not wanted_root:
        return True
    same = wanted in ("", path) or path == f"{wanted}.b2nd" or path.startswith(join(wanted, ""))
    return root == wanted_root and same


def _held(version: CachedVersion, request: ReadRequest) -> Bits:
    """Which blocks of a read are kept, in the order of its plan."""
    geometry = version.geometry
    plan = BlockPlan(geometry, Selection.from_json(request.selection, geometry.shape))
    wanted = ((projection.nchunk, projection.blocks) for projection in plan)
    masks: list[Bits] = []
    while batch := list(islice(wanted, _CHUNKS_AT_ONCE)):
        masks.append(version.held_all(batch))
    return np.concatenate(masks) if masks else np.zeros(0, np.bool_)


def _count_requests(read: _Read) -> int:
    if read.held.all():
        return 0
    segments = Segments(read.entry, replace(read.request, held=read.held))
    nrequests = 0
    while segments.next() is not None:
        nrequests += 1
    return nrequests


def _verify_some(version: CachedVersion, chunks: Iterator[int]) -> tuple[int, int, int]:
    """Verify some of the chunks that are left: blocks, bytes, bad ones."""
    sums = np.zeros(3, np.int64)
    for nchunk in chunks:
        sums += version.verify(nchunk)
        if sums[1] >= VERIFIED_NBYTES:
            break
    nblocks, nbytes, nbad = sums.tolist()
    return nblocks, nbytes, nbad
