"""A root that a publisher of the older system serves, read by its REST.

It tells nothing of changes by itself: it is asked for its list and its tags now and then, and about a path when the
broker passes on what it published. Chunks come complete, one request each, so those that came last are remembered;
that the file was the same before and after is asked, since its answers do not say so. It has no tokens: none is sent.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from ..core.blocks import BlockRecord, checksum_seed
from ..core.catalog import CatalogPage, CatalogQuery, Cursor
from ..core.chunk_grid import ChunkProjection
from ..core.events import Event, EventBatch
from ..core.metadata import Entry, dataset_id
from ..core.old_datasets import chunk_record, told_entry
from ..core.paths import parents, parse_path
from ..core.reduce_request import ReduceRequest
from ..core.source import BlockStream, FileStream, ReducedStream
from ..core.wire import ReadRequest
from ..errors import (
    DatasetChangedError,
    IntegrityError,
    InvalidPathError,
    SourceUnavailableError,
    UnsupportedDatasetError,
)
from ..storage.catalog_store import CatalogStore
from ..storage.event_hub import EventHub
from ..storage.generation import version_tag
from ..storage.root import KnownEntry, ReadChunk, Root, StoredFile
from ..web.compute_pool import ComputePool
from .link import BrokenLinkError, Link
from .pooled_source import PooledSource

__all__ = ["OlderPublisher", "OlderSource"]

MAX_LIST_NBYTES, MAX_INFO_NBYTES = 64 << 20, 16 << 20
MAX_DATASETS = 200_000
ASKED_AT_ONCE, PATHS_AT_ONCE = 8, 64
STATUSES = (200, 304, 400, 404, 500)
REMEMBERED_NBYTES = 64 << 20
"""Of chunks that came last, whose other blocks are likely wanted next."""
GREET_S, LOOK_S = 2.0, 30.0
LOOK_SHARE = 20
"""A look that takes long is repeated seldom: this many times what it took goes by."""

T = TypeVar("T")


class OlderPublisher(Root):
    """The publisher of one root, as a root; its methods are called from threads, its requests made by an event loop.

    Parameters
    ----------
    name : str
        Of the root.
    url : str
        Of the publisher.
    link : Link
    loop : AbstractEventLoop
        Where ``link`` lives.

    Attributes
    ----------
    failing : set of str
        Paths of datasets that it does not tell of now.
    """

    watched = Path(".")

    def __init__(self, name: str, url: str, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = f"{name} at {url}"
        self._link, self._loop = link, loop
        self.failing: set[str] = set()
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)
        self._chunks: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()
        self._chunks_nbytes = 0
        self._fetching: dict[tuple[str, str, int], Future[bytes]] = {}
        self._lock = threading.Lock()

    def _wait(self, asking: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(asking, self._loop).result()

    async def _get(
        self, route: str, max_nbytes: int, query: Mapping[str, str] = {}, tag: str = ""
    ) -> tuple[int, bytes, str]:
        """Status, body and tag of an answer."""
        attempts = self._link.attempts()
        headers = {"If-None-Match": tag} if tag else {}
        while True:
            try:
                async with self._asking:
                    answer = await self._link.ask("GET", route, params=query, headers=headers, statuses=STATUSES)
                    try:
                        return answer.status, await answer.read(max_nbytes), answer.header("ETag")
                    finally:
                        answer.close()
            except BrokenLinkError as broken:
                await attempts.again(broken)

    # What is there

    def scan(self, known: Iterable[KnownEntry]) -> Iterator[tuple[Entry, str]]:
        before = {k.entry.path: k for k in known}
        paths = self._wait(self._list())
        for group in sorted({group for path in paths for group in parents(path)} - set(paths)):
            yield Entry(group, "group"), ""
        for start in range(0, len(paths), PATHS_AT_ONCE):
            told = self._wait(self._ask_all(paths[start : start + PATHS_AT_ONCE], before))
            yield from (item for item in told if item is not None)

    def rescan(self, paths: Iterable[Path], known: Iterable[KnownEntry]) -> Iterator[tuple[Event, str]]:
        # Its tags are set some time after it told of a change: they are no reason not to look.
        before = {k.entry.path: replace(k, stamp="") for k in known}
        wanted = [path.as_posix() for path in paths]
        for path, told in zip(wanted, self._wait(self._ask_all(wanted, before)), strict=True):
            if told is not None:
                if path not in before and told[0].kind == "unsupported":
                    continue  # maybe not for long
                for group in parents(path):
                    yield Event("put", group, Entry(group, "group")), ""
                yield Event("put", path, told[0]), told[1]
            elif path in before:
                yield Event("delete", path), ""

    async def greet(self) -> None:
        """Find out whether it is there.

        Raises
        ------
        SourceUnavailableError, DeadlineError
        """
        await self._get("info/-", MAX_INFO_NBYTES)

    async def _list(self) -> list[str]:
        status, body, _ = await self._get("list", MAX_LIST_NBYTES)
        listed = _parse(body) if status == 200 else None
        if not isinstance(listed, list) or len(listed) > MAX_DATASETS:
            raise IntegrityError(f"{self._link.peer} answers with something that is not a list of datasets")
        return sorted({path for path in listed if isinstance(path, str) and _is_path(path)})

    async def _ask_all(self, paths: Sequence[str], before: Mapping[str, KnownEntry]) -> list[tuple[Entry, str] | None]:
        return await asyncio.gather(*(self._ask(path, before.get(path)) for path in paths))

    async def _ask(self, path: str, before: KnownEntry | None) -> tuple[Entry, str] | None:
        """A dataset and its tag as they are told, or were before; None when it is not there."""
        tag = before.stamp if before is not None else ""
        status, body, now = await self._get(f"info/{quote(path)}", MAX_INFO_NBYTES, tag=tag)
        self.failing.discard(path)
        if status == 200:
            version = _version(now, body)
            return told_entry(path, _parse(body), dataset_id(self._owner, path), version), now
        if status in (400, 404):
            return None
        if before is not None and before.entry.has_data:
            return before.entry, before.stamp
        # So it answers, too, while a file is there that it has not yet read.
        self.failing.add(path)
        return Entry(path, "unsupported", reason="its publisher fails to tell of it"), ""

    # What is in it

    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]:
        with self.reading(entry) as read_chunk:
            return read_chunk(projection, blocks)

    @contextmanager
    def reading(self, entry: Entry) -> Iterator[ReadChunk]:
        fetched: dict[tuple[str, str, int], bytes] = {}
        try:
            yield partial(self._read_chunk, entry, fetched)
            if fetched:
                self._check(entry)
                self._remember(fetched)
        finally:
            with self._lock:
                for key in fetched:
                    self._fetching.pop(key, None)

    def _read_chunk(
        self,
        entry: Entry,
        fetched: dict[tuple[str, str, int], bytes],
        projection: ChunkProjection,
        blocks: Sequence[int],
    ) -> list[BlockRecord]:
        assert entry.geometry is not None
        nchunk = projection.nchunk
        key = (entry.path, entry.version, nchunk)
        with self._lock:
            chunk = self._chunks.get(key)
            if chunk is None and key not in self._fetching:
                asking = self._fetch(entry, nchunk)
                self._fetching[key] = asyncio.run_coroutine_threadsafe(asking, self._loop)
            fetching = self._fetching.get(key)
        if chunk is None:
            assert fetching is not None
            fetched[key] = b""  # it ends with this read, however it ends
            chunk = fetched[key] = fetching.result()
        seed = checksum_seed(entry.id, entry.version)
        return [chunk_record(seed, nchunk, chunk, blocks, entry.geometry)]

    async def _fetch(self, entry: Entry, nchunk: int) -> bytes:
        assert entry.geometry is not None
        most = entry.geometry.full_chunk_nbytes
        route, query = f"download/{quote(entry.path)}", {"nchunk": str(nchunk)}
        status, body, _ = await self._get(route, most + (most >> 4) + (1 << 20), query)
        if status == 404:
            raise DatasetChangedError(f"dataset {entry.path!r} is not there any more")
        if status != 200:
            raise SourceUnavailableError(f"{self._link.peer} fails to send chunk {nchunk} of {entry.path!r}")
        return body

    def _check(self, entry: Entry) -> None:
        """Is the file still the one that a version stands for?"""
        status, body, tag = self._wait(self._get(f"info/{quote(entry.path)}", MAX_INFO_NBYTES))
        if status != 200 or _version(tag, body) != entry.version:
            raise DatasetChangedError(f"dataset {entry.path!r} changed: version {entry.version} is gone")

    def _remember(self, chunks: Mapping[tuple[str, str, int], bytes]) -> None:
        with self._lock:
            for key, chunk in chunks.items():
                if key not in self._chunks:
                    self._chunks[key] = chunk
                    self._chunks_nbytes += len(chunk)
            while self._chunks_nbytes > REMEMBERED_NBYTES:
                _, chunk = self._chunks.popitem(last=False)
                self._chunks_nbytes -= len(chunk)

    def read_file(self, entry: Entry, start: int, stop: int | None) -> StoredFile:
        raise UnsupportedDatasetError(
            f"the publisher of {entry.path!r} is of the older system, which sends chunks and no files: slice it instead"
        )

    def attributes(self, entry: Entry) -> Entry:
        return entry

    def close(self) -> None:
        """Nothing is open: the link is closed by its owner."""


class OlderSource(PooledSource):
    """The root as a source. To be made, used and closed in one event loop.

    Parameters
    ----------
    name, url : str
        Of the root, and of its publisher.
    link : Link
    executor : Executor
        For this kind of source alone, as its threads wait for the network.
    compute : ComputePool
        Where chunks are decoded, for those answers that are not blocks.
    """

    def __init__(self, name: str, url: str, link: Link, executor: Executor, compute: ComputePool) -> None:
        self._publisher = OlderPublisher(name, url, link, asyncio.get_running_loop())
        self._catalog = CatalogStore(None, name)
        super().__init__(name, self._publisher, self._catalog, EventHub(), executor, look_again=self.look)
        self.compute = compute
        self._looking_first = asyncio.Lock()
        self._has_looked = False

    async def _look_first(self) -> None:
        async with self._looking_first:
            if not self._has_looked:
                await self.scan()
                self._has_looked = True

    async def look(self, path: str) -> None:
        """Ask about a path now."""
        await self.look_at(path)

    async def look_at(self, path: str) -> bool:
        """Ask about a path now; was there a change?"""
        await self._look_first()
        return bool(await self.rescan([Path(parse_path(path))]))

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        await self._look_first()
        return await super().catalog(query)

    async def entry(self, path: str) -> Entry:
        await self._look_first()
        return await super().entry(path)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        await self._look_first()
        return await super().read_blocks(request)

    async def reduce(self, request: ReduceRequest) -> ReducedStream:
        await self._look_first()
        return await super().reduce(request)

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        entry = await self.entry(path)
        if entry.storage.get("format") != "file":
            return await super().read_file(path, start, stop)
        return self.unpacked_stream(entry, start, stop)

    async def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        """As ``Source.events``; while somebody listens, the publisher is asked now and then what is there."""
        await self._look_first()
        looking = asyncio.create_task(self._look_now_and_then())
        try:
            async with aclosing(super().events(since)) as batches:  # type: ignore[type-var]
                async for batch in batches:
                    if looking.done():
                        looking.result()
                    yield batch
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look_now_and_then(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock() + LOOK_S
        while True:
            await asyncio.sleep(GREET_S)
            await self._publisher.greet()
            if failing := sorted(self._publisher.failing)[:PATHS_AT_ONCE]:
                await self.rescan(map(Path, failing))
            if clock() >= due:
                begun = clock()
                await self.scan()
                due = clock() + max(LOOK_S, LOOK_SHARE * (clock() - begun))

    def close(self) -> None:
        super().close()
        self._catalog.close()


def _is_path(text: str) -> bool:
    try:
        return bool(parse_path(text))
    except InvalidPathError:
        return False


def _version(tag: str, info: bytes) -> str:
    # The tag is of the last change that it told, the metadata of the file now.
    return version_tag([tag, info.decode("utf-8", "replace")])


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
