"""The areas of a subscriber: roots of its own, ``@public``, ``@shared``, and ``@personal`` for each user.

Each is a source over its directory, as a publisher's root is, and can be written to. Directories are those of the older
system, under the state directory: ``public``, ``shared``, ``personal/ID``. Whatever others put there is found when
somebody looks, after a second or so. Who may is ``permissions``' business.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ..core.catalog import MAX_PAGE, CatalogPage, CatalogQuery, Cursor
from ..core.events import EventBatch
from ..core.metadata import Entry
from ..core.paths import join
from ..core.paths import name as last_name
from ..core.source import FileStream, Source
from ..errors import (
    Caterva2Error,
    ConflictError,
    RootNotFoundError,
    SourceUnavailableError,
    UnsupportedDatasetError,
)
from ..storage.area import Area
from ..storage.area_root import AreaRoot, is_packed
from ..storage.catalog_store import CatalogStore
from ..storage.event_hub import EventHub
from ..storage.hdf5_root import hdf5_trees
from ..storage.hdf5_worker import Hdf5Worker
from ..storage.quota import Quota
from ..storage.upload import Upload
from ..web.compute_pool import ComputePool
from .frames import FrameMaker
from .index_decoder import IndexDecoder
from .permissions import AREAS, PERSONAL, Visitor
from .pooled_source import PooledSource

__all__ = ["AreaSource", "Areas", "goal_in", "has_suffix"]

T = TypeVar("T")

WORKERS = 4
REFRESH_S = 1.0
SCAN_SHARE = 20
"""A directory is looked at for at most one part in so many of the time."""

log = logging.getLogger("caterva2_jupyter.subscriber")


class AreaSource(PooledSource):
    """One area: its source, and what is written to it.

    Parameters
    ----------
    label : str
        The root's name.
    area : Area
    files : AreaRoot
        Of the same directory.
    store : CatalogStore
    readers, writers : Executor
    compute : ComputePool
        Where what was uploaded is decoded.
    """

    def __init__(
        self,
        label: str,
        area: Area,
        files: AreaRoot,
        store: CatalogStore,
        readers: Executor,
        writers: Executor,
        compute: ComputePool,
    ) -> None:
        super().__init__(label, files, store, EventHub(), readers, look_again=self.look)
        self.compute = compute
        self.area = area
        self._area_files, self._writers = files, writers
        self._due_s = 0.0
        self._refreshing: asyncio.Task[None] | None = None
        self.packed = PackedFiles(self, files, store, readers)

    def close(self) -> None:
        """Stop, and close what is open. No thread may use it any more."""
        super().close()
        self.area.close()
        self._area_files.close()
        self._store.close()

    # What is there: looked at again before it is told

    async def refresh(self) -> None:
        """Look at the directory, if that was not done just now."""
        if time.monotonic() < self._due_s:
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._scan())
        await asyncio.shield(self._refreshing)

    async def _scan(self) -> None:
        began = time.monotonic()
        await self.scan()
        now = time.monotonic()
        self._due_s = now + max(REFRESH_S, SCAN_SHARE * (now - began))

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        await self.refresh()
        return await super().catalog(query)

    async def entry(self, path: str) -> Entry:
        await self.refresh()
        return await super().entry(path)

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        await self.refresh()
        entry = await self._run(self._store.resolve, path)
        if is_packed(entry) and entry.geometry is not None and (stop is None or 0 <= start <= stop):
            return self.unpacked_stream(entry, start, stop)
        return await super().read_file(path, start, stop)

    async def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        await self.refresh()
        async for batch in super().events(since):
            yield batch
            if not batch.events:  # nothing for a while
                await self.refresh()

    async def look(self, *paths: str) -> None:
        """Look at paths now: they were changed."""
        await self.rescan([self._area_files.watched / path for path in paths])

    async def cursor(self) -> Cursor:
        return await self._run(lambda: self._store.cursor)

    # Writing

    async def write(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a call of the area's that writes, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, function, *arguments)

    async def begin(self, path: str, nbytes: int | None = None, *, overwrite: bool = True) -> Upload:
        """See ``Area.begin``."""
        return await self.write(lambda: self.area.begin(path, nbytes, overwrite=overwrite))

    async def commit(self, upload: Upload) -> str:
        """Complete an upload, and tell of it; the path that it is shown at."""
        path = await self.write(upload.commit)
        await self.look(path)
        return path

    async def make_directory(self, path: str) -> None:
        await self.write(self.area.make_directory, path)
        await self.look(path)

    async def remove(self, path: str) -> None:
        try:
            await self.write(self.area.remove, path)
        finally:
            await self.look(path)

    async def is_directory(self, path: str) -> bool:
        return await self.write(self.area.is_directory, path)

    async def exists(self, path: str) -> bool:
        return await self.write(self.area.exists, path)

    async def move(self, path: str, goal_source: AreaSource, goal: str, *, overwrite: bool) -> None:
        await self.write(lambda: self.area.move(path, goal_source.area, goal, overwrite=overwrite))
        await self.look(path)
        await goal_source.look(goal)

    async def copy(self, path: str, goal_source: AreaSource, goal: str, *, overwrite: bool) -> None:
        await self.write(lambda: self.area.copy(path, goal_source.area, goal, overwrite=overwrite))
        await goal_source.look(goal)

    async def copy_from(
        self, source: Source, path: str, goal: str, frames: FrameMaker, *, overwrite: bool
    ) -> list[str]:
        """Copy a dataset, or all that is below a group, from any source.

        Returns
        -------
        list of str
            What could not be copied: paths in that root, with the reason.

        Raises
        ------
        Caterva2Error
            When it is one dataset, and cannot be copied.
        """
        entry = await source.entry(path)
        if entry.kind != "group" or entry.version:
            await self._copy_one(source, entry, goal, frames, overwrite=overwrite)
            return []
        if await self.exists(goal) and not await self.is_directory(goal):
            raise ConflictError(f"there is a file {goal!r} in {self.root}: a group cannot be copied onto it")
        await self.make_directory(goal)
        skipped: list[str] = []
        inside = ""
        after: str | None = ""
        while after is not None:
            page = await source.catalog(CatalogQuery(under=entry.path, after=after, limit=MAX_PAGE))
            for child in page.entries():
                if not child.path or (inside and child.path.startswith(inside + "/")):
                    continue
                if child.kind == "group" and child.version:
                    inside = child.path  # a file with datasets in it is copied as one
                below = join(goal, child.path[len(entry.path) :].lstrip("/"))
                try:
                    if child.kind == "group" and not child.version:
                        await self.make_directory(below)
                    else:
                        await self._copy_one(source, child, below, frames, overwrite=overwrite)
                except Caterva2Error as error:
                    skipped.append(f"{child.path}: {error}")
            after = page.next
        return skipped

    async def _copy_one(self, source: Source, entry: Entry, goal: str, frames: FrameMaker, *, overwrite: bool) -> None:
        if entry.kind == "array" and not goal.endswith(".b2nd"):
            goal += ".b2nd"
        upload: Upload | None = None
        try:
            try:
                stored = await source.read_file(entry.path, 0, None)
            except (UnsupportedDatasetError, SourceUnavailableError):
                # Inside of another file, or away and perhaps cached: made from its blocks.
                frame = await frames.whole_frame(source, await source.entry(entry.path))
                upload = await self.begin(goal, len(frame), overwrite=overwrite)
                await self.write(upload.write, frame)
            else:
                upload = await self.begin(goal, stored.nbytes, overwrite=overwrite)
                async for part in stored.parts:
                    await self.write(upload.write, part)
            await self.commit(upload)
        finally:
            if upload is not None:
                await self.write(upload.abort)


class PackedFiles:
    """The stored bytes of an area's files, those that are packed as they are on disk. Answers ``read_file`` only."""

    def __init__(self, source: AreaSource, files: AreaRoot, store: CatalogStore, executor: Executor) -> None:
        self._source, self._files, self._store, self._executor = source, files, store, executor

    def has(self, entry: Entry) -> bool:
        return is_packed(entry)

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        loop = asyncio.get_running_loop()

        def begin() -> tuple[FileStream, AsyncIterator[bytes]]:
            stored = self._files.read_packed(self._store.resolve(path), start, stop)
            parts = _in_threads(stored.parts, self._executor)
            return FileStream(stored.nbytes, stored.version, stored.mtime_ns, parts), parts

        stream, _ = await loop.run_in_executor(self._executor, begin)
        return stream


async def _in_threads(parts: Iterator[bytes], executor: Executor) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while (part := await loop.run_in_executor(executor, next, parts, None)) is not None:
        yield part


class Areas:
    """All areas of a subscriber.

    Parameters
    ----------
    statedir : Path
        Where their directories are.
    quota_nbytes : int or None
        What they may take together.
    readers : Executor
        Closed by its owner.
    compute : ComputePool
        Where what was uploaded is decoded; stopped by its owner.
    """

    def __init__(self, statedir: Path, quota_nbytes: int | None, readers: Executor, compute: ComputePool) -> None:
        self._compute = compute
        self._statedir = statedir
        self.quota = Quota(quota_nbytes, [statedir / name for name in ("public", "shared", "personal")])
        self.readers = readers
        self._writers = ThreadPoolExecutor(WORKERS, thread_name_prefix="caterva2-areas")
        self._worker = Hdf5Worker()
        self._decode = IndexDecoder()
        self._catalogs: Path | None = None
        self._owner_id = ""
        self._sources: dict[Path, AreaSource] = {}

    def start(self, catalogs: Path, owner_id: str) -> None:
        """Say where catalogs are kept, and the secret that ids of datasets are made with."""
        catalogs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._catalogs, self._owner_id = catalogs, owner_id

    async def stop(self) -> None:
        """Close everything, when what is being written has ended."""
        await asyncio.to_thread(self._close)
        await self._decode.stop()

    def _close(self) -> None:
        self._writers.shutdown(wait=True, cancel_futures=True)
        for source in self._sources.values():
            source.close()
        self._sources.clear()
        self._worker.close()

    def source(self, root: str, visitor: Visitor) -> AreaSource:
        """The area of that name that a visitor sees.

        Raises
        ------
        RootNotFoundError
            When there is none for them.
        SourceUnavailableError
            When it cannot be used.
        """
        if root not in AREAS or (root == PERSONAL and not visitor.is_person):
            raise RootNotFoundError(f"no area {root!r} here")
        directory = self._statedir / root[1:]
        if root == PERSONAL:
            directory /= visitor.id
        source = self._sources.get(directory)
        if source is None:
            source = self._sources[directory] = self._open(root, directory)
        return source

    def _open(self, root: str, directory: Path) -> AreaSource:
        if self._catalogs is None:
            raise SourceUnavailableError("the areas are not there yet: the subscriber is starting")
        tag = hashlib.blake2b(f"{root}\0{directory.name}".encode(), digest_size=12).hexdigest()
        owner_id = hashlib.blake2b(f"{self._owner_id}\0{tag}".encode(), digest_size=16).hexdigest()
        area = Area(directory, root, self.quota)
        has_hdf5 = importlib.util.find_spec("h5py") is not None
        trees = hdf5_trees(area.directory, owner_id, self._worker) if has_hdf5 else None
        self._decode.begin()
        files = AreaRoot(area.directory, owner_id, trees, self._decode)
        store = CatalogStore(self._catalogs / f"area-{tag}.sqlite", root)
        store.begin_run()
        return AreaSource(root, area, files, store, self.readers, self._writers, self._compute)

    def forget_personal(self, user_id: str) -> None:
        """Remove the personal area of somebody who is no user any more."""
        directory = self._statedir / "personal" / user_id
        source = self._sources.pop(directory, None)
        area = source.area if source is not None else Area(directory, PERSONAL, self.quota)
        area.remove("")
        if source is not None:
            source.close()
        else:
            area.close()


def goal_in(goal: str, is_directory: bool, name: str) -> str:
    """Where something of that name goes: into a directory, or under the name that ``goal`` is."""
    return join(goal, name) if is_directory or not goal else goal


def has_suffix(path: str) -> bool:
    """Does the last name of a path have a suffix? (The older system takes one without for a directory.)

    >>> has_suffix("dir/x.b2nd"), has_suffix("dir.d/x"), has_suffix(".hidden")
    (True, False, False)
    """
    stem, dot, suffix = last_name(path).rpartition(".")
    return bool(stem.strip(".") and dot and suffix)
