"""The two sources that a subscriber is made of: one over HTTP, and one that keeps what it has seen.

``CachedSource(RemoteSource(...))`` answers as the publisher does, asks it once for each block, and goes on
answering from disk when it is away. Blocks are never decoded here; how HTTP is spoken is ``link``'s, how
blocks lie on disk ``storage/block_cache``'s.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import numpy as np
import numpy.typing as npt

from ..core.blocks import WHOLE, BlockRecord
from ..core.catalog import CatalogPage, CatalogQuery, Cursor
from ..core.chunk_grid import BlockPlan
from ..core.dtypes import is_vlen
from ..core.events import EventBatch
from ..core.metadata import Entry, Geometry
from ..core.selection import AxisItems, AxisRange, AxisSelection, Selection
from ..core.source import BlockStream, FileStream, Source
from ..core.wire import RECORDS_TYPE, End, Preamble, ReadRequest, RecordParser
from ..errors import (
    Caterva2Error,
    DatasetChangedError,
    DeadlineError,
    IntegrityError,
    NotCachedError,
    RequestError,
    ResyncError,
    SourceUnavailableError,
    UnsupportedDatasetError,
)
from ..storage.block_cache import BlockCache, CachedVersion
from .link import Answer, Attempts, BrokenLinkError, Link, peer_error

__all__ = ["CachedSource", "RemoteSource"]

MAX_PAGE_NBYTES = 256 << 20
MAX_ENTRY_NBYTES = 64 << 20
REMEMBERED_ENTRIES = 1000
SILENCE_S = 15.0

WINDOW_NBYTES = 1 << 20
"""Compressed bytes of what one upstream request brings, about."""
FETCHES = 8
AHEAD_NBYTES = 64 << 20
"""Compressed bytes that all readers of a source together hold ahead of their consumers, about."""
MAX_WINDOW_BLOCKS = 16_384
MAX_REPEATED_ITEMS = 1000
MIN_RATIO = 1 / 16
PUT_NBYTES = 256 << 10

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
T = TypeVar("T")


class RemoteSource:
    """A root that another service (a publisher, or a subscriber) serves over REST v1.

    Parameters
    ----------
    root : str
        Name of the root there.
    url : str
        Of the service: ``http://``, ``https://`` or ``http+unix://%2Fpath``, its prefix included.
    session : aiohttp.ClientSession
        One per service (``link.open_session``); the caller closes it.
    token : str
        Sent as Bearer when there is one.
    connect_s, stall_s, min_rate, patience_s : float
        Deadlines, see ``Link``.
    """

    def __init__(
        self,
        root: str,
        url: str,
        session: aiohttp.ClientSession,
        token: str = "",
        *,
        connect_s: float = 5.0,
        stall_s: float = 30.0,
        min_rate: float = 1024.0,
        patience_s: float = 10.0,
    ) -> None:
        self._root = root
        self._link = Link(
            url, session, token, connect_s=connect_s, stall_s=stall_s, min_rate=min_rate, patience_s=patience_s
        )
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    @property
    def root(self) -> str:
        return self._root

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        path = f"roots/{quote(self._root, safe='@')}/catalog"
        form = await self._link.get_json(path, query.to_params(), MAX_PAGE_NBYTES)
        return await asyncio.to_thread(CatalogPage.from_json, form)

    async def entry(self, path: str) -> Entry:
        form = await self._link.get_json("meta", {"path": f"{self._root}/{path}"}, MAX_ENTRY_NBYTES)
        if not isinstance(form, Mapping):
            raise IntegrityError(f"{self._link.peer} answers with a malformed entry")
        entry = Entry.from_json(form)
        self._remember(entry)
        return entry

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        records = _RemoteRecords(self, self._link, replace(request, root=self._root))
        try:
            return BlockStream(await records.start(), records)
        except BaseException:
            await records.aclose()
            raise

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        if start < 0 or (stop is not None and stop < start):
            raise RequestError(f"not a range of bytes: {start} to {stop}")
        parts = _RemoteParts(self._link, f"{self._root}/{path}", start, stop)
        try:
            return await parts.start()
        except BaseException:
            await parts.aclose()
            raise

    async def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        """As ``Source.events``; it ends with ``SourceUnavailableError`` when the connection is lost."""
        params = {"root": self._root} | ({"since": str(since)} if since is not None else {})
        async with self._link.websocket("events", params) as socket:
            while True:
                text = await self._link.next_text(socket, SILENCE_S)
                try:
                    form = json.loads(text)
                except (ValueError, RecursionError):
                    form = None
                if not isinstance(form, Mapping):
                    raise IntegrityError(f"{self._link.peer} sends events that cannot be understood")
                if form.get("type") == "resync":
                    raise ResyncError(f"{self._link.peer} does not know the events since {since} any more")
                if form.get("type") != "events":
                    continue  # the state of the root over there, for those who show it
                batch = EventBatch.from_json(form)
                if batch.root != self._root:
                    raise IntegrityError(f"{self._link.peer} sends events of another root, {batch.root!r}")
                yield batch

    def known_entry(self, path: str, version: str) -> Entry | None:
        """The entry of a version, if it was seen here."""
        entry = self._entries.get(path)
        return entry if entry is not None and entry.version == version else None

    def _remember(self, entry: Entry) -> None:
        self._entries[entry.path] = entry
        self._entries.move_to_end(entry.path)
        if len(self._entries) > REMEMBERED_ENTRIES:
            self._entries.popitem(last=False)


class _RemoteRecords:
    """Records of one read; when the connection breaks, it asks for those that have not come."""

    def __init__(self, source: RemoteSource, link: Link, request: ReadRequest) -> None:
        self._source, self._link, self._request = source, link, request
        self._attempts: Attempts = link.attempts()
        self._answer: Answer | None = None
        self._parser = RecordParser()
        self._ready: deque[BlockRecord] = deque()
        self._received: dict[int, list[Ints]] = {}
        self._preamble: Preamble | None = None
        self._entry: Entry | None = None
        self._ended = False

    def __aiter__(self) -> AsyncIterator[BlockRecord]:
        return self

    async def start(self) -> Entry:
        """Wait for what the answer is about."""
        while self._preamble is None:
            await self._advance()
        return self._known_entry()

    async def __anext__(self) -> BlockRecord:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            await self._advance()
        return self._ready.popleft()

    async def aclose(self) -> None:
        self._ended = True
        self._ready.clear()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def _advance(self) -> None:
        try:
            if self._answer is None:
                self._parser = RecordParser(self._max_record_nbytes())
                body = json.dumps(await self._rest()).encode()
                self._answer = await self._link.ask("POST", "read", body=body, media_type=RECORDS_TYPE)
            data = await self._answer.next_bytes()
            for item in self._parse(data):
                if isinstance(item, Preamble):
                    self._begin(item)
                elif isinstance(item, BlockRecord):
                    self._received.setdefault(item.nchunk, []).append(item.ids.astype(np.int64))
                    self._ready.append(item)
                    self._attempts.progressed()
            if not data:
                self._ended = True
                self._hang_up()
        except BrokenLinkError as broken:
            self._hang_up()
            await self._attempts.again(broken)
        except BaseException:
            self._ended = True
            self._hang_up()
            raise

    def _parse(self, data: bytes) -> list[Preamble | BlockRecord | End]:
        try:
            items = self._parser.feed(data)
            if not data:
                self._parser.close()
        except IntegrityError as error:
            # Bytes that were changed or lost on their way: once more may be right.
            raise BrokenLinkError(IntegrityError(f"{self._link.peer}: {error}")) from None
        except Caterva2Error as error:
            raise peer_error(self._link.peer, error) from None
        return items

    def _begin(self, preamble: Preamble) -> None:
        pinned = self._request.version
        if pinned is None:
            if preamble.entry is None or (preamble.entry.id, preamble.entry.version) != (preamble.id, preamble.version):
                raise IntegrityError(f"{self._link.peer} does not say what it answers about")
            self._entry = preamble.entry
            self._source._remember(preamble.entry)
            self._request = replace(self._request, version=preamble.version)
        elif preamble.version != pinned or (self._preamble is not None and preamble.id != self._preamble.id):
            raise IntegrityError(f"{self._link.peer} answers about another version than it was asked for")
        self._preamble = preamble

    def _known_entry(self) -> Entry:
        """What is read; only its id and version when nobody ever asked for more."""
        assert self._preamble is not None
        if self._entry is None:
            known = self._source.known_entry(self._request.path, self._preamble.version)
            stub = Entry(self._request.path, "array", id=self._preamble.id, version=self._preamble.version)
            self._entry = known or stub
        return self._entry

    def _max_record_nbytes(self) -> int:
        geometry = self._entry.geometry if self._entry is not None else None
        if geometry is None or is_vlen(geometry.dtype):
            return 1 << 31
        # Incompressible blocks come with a little on top.
        return geometry.full_chunk_nbytes + (geometry.full_chunk_nbytes >> 4) + (1 << 20)

    async def _rest(self) -> dict[str, Any]:
        """The request for what has not come yet."""
        request = self._request
        if not self._received:
            return request.to_json()
        entry = self._known_entry()
        if entry.geometry is None:
            entry = await self._source.entry(request.path)
            if entry.geometry is None or entry.version != request.version:
                raise DatasetChangedError(
                    f"dataset {request.path!r} in root {request.root!r} changed while it was read"
                )
            self._entry = entry
        geometry = entry.geometry
        assert geometry is not None
        plan = BlockPlan(geometry, Selection.from_json(request.selection, geometry.shape))
        window = request.window or (0, plan.nblocks)
        came = [_among(p.blocks, self._received.get(p.nchunk, ())) for p in plan.window(*window)]
        held = np.concatenate(came) if came else np.zeros(0, np.bool_)
        if request.held is not None:
            held |= request.held[: len(held)]
        return replace(request, window=window, held=held).to_json()


def _among(blocks: Ints, received: Iterable[Ints]) -> Bits:
    mask = np.zeros(len(blocks), np.bool_)
    for ids in received:
        mask |= True if WHOLE in ids else np.isin(blocks, ids)
    return mask


class _RemoteParts:
    """Bytes of a stored file; when the connection breaks, it goes on where it was."""

    def __init__(self, link: Link, address: str, start: int, stop: int | None) -> None:
        self._link, self._address = link, address
        self._position, self._stop = start, stop
        self._etag = ""
        self._attempts = link.attempts()
        self._answer: Answer | None = None
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def start(self) -> FileStream:
        while True:
            try:
                answer = await self._ask()
                break
            except BrokenLinkError as broken:
                await self._attempts.again(broken)
        nbytes = _total_nbytes(answer)
        self._stop = nbytes if self._stop is None else min(self._stop, nbytes)
        if self._ended:
            self._hang_up()
        return FileStream(nbytes, self._etag.strip('"'), _mtime_ns(answer.header("Last-Modified")), self)

    async def _ask(self) -> Answer:
        headers = {"If-Range": self._etag} if self._etag else {}
        first = self._position
        if self._stop is not None and first >= self._stop:
            # Length and version alone: one byte that nobody reads (errors of HEAD do not say what they are).
            first, headers["Range"] = 0, "bytes=0-0"
            self._ended = True
        elif first or self._stop is not None:
            headers["Range"] = f"bytes={first}-{'' if self._stop is None else self._stop - 1}"
        answer = await self._link.ask(
            "GET", "file", params={"path": self._address}, headers=headers, statuses=(200, 206, 416)
        )
        self._answer = answer
        try:
            self._check(answer, first)
        except BaseException:
            self._hang_up()
            raise
        return answer

    def _check(self, answer: Answer, first: int) -> None:
        etag = answer.header("ETag")
        if self._etag and etag != self._etag:
            raise DatasetChangedError(f"{self._address!r} changed while it was read")
        self._etag = etag
        if answer.status == 416:
            self._ended = True
        elif answer.status == 206:
            if not answer.header("Content-Range").startswith(f"bytes {first}-"):
                raise IntegrityError(f"{self._link.peer} answers with another range than it was asked for")
        elif first:
            # All of a file in place of a part: not to be downloaded to be thrown away.
            raise IntegrityError(f"{self._link.peer} does not answer ranges of files")

    async def __anext__(self) -> bytes:
        while not self._ended:
            assert self._stop is not None
            try:
                answer = self._answer or await self._ask()
                data = await answer.next_bytes()
                if not data and self._position < self._stop:
                    raise BrokenLinkError(
                        IntegrityError(f"{self._link.peer} sent less of {self._address!r} than it has")
                    )
            except BrokenLinkError as broken:
                self._hang_up()
                await self._attempts.again(broken)
                continue
            except BaseException:
                await self.aclose()
                raise
            data = data[: self._stop - self._position]
            self._position += len(data)
            if self._position >= self._stop:
                await self.aclose()
            if data:
                self._attempts.progressed()
                return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._ended = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


def _total_nbytes(answer: Answer) -> int:
    total = answer.header("Content-Range").rpartition("/")[2] or answer.header("Content-Length")
    if not (total.isascii() and total.isdigit()):
        raise IntegrityError("the length of a file is missing from the answer")
    return int(total)


def _mtime_ns(text: str) -> int:
    try:
        return int(parsedate_to_datetime(text).timestamp()) * 10**9
    except ValueError:
        return 0


class CachedSource:
    """A source whose blocks are kept, and asked for once however many want them.

    Listings, entries and events are those of ``source``.

    Parameters
    ----------
    source : Source
    cache : BlockCache
    executor : Executor
        Where files are read and written; its owner closes it.
    lookup : callable, optional
        The entry at a path (exactly or with ``.b2nd`` added) as last known here, None when there is none;
        called in the executor. Without it ``source.entry`` is asked, and its answers remembered.

    Notes
    -----
    A read is cut in segments of about 1 MiB, of which up to 8 are fetched at once and handed out in order.
    What comes is handed out as it came, and kept on the way: a full disk costs the cache, not the read.
    """

    def __init__(
        self,
        source: Source,
        cache: BlockCache,
        executor: Executor,
        lookup: Callable[[str], Entry | None] | None = None,
    ) -> None:
        self._source, self._cache, self._executor, self._lookup = source, cache, executor, lookup
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._flights = _Flights()
        self._slots = asyncio.Semaphore(FETCHES)
        self._ahead_nbytes = 0

    @property
    def root(self) -> str:
        return self._source.root

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        return await self._source.catalog(query)

    async def entry(self, path: str) -> Entry:
        entry = await self._source.entry(path)
        if self._lookup is None:
            for name in {path, entry.path}:
                self._entries[name] = entry
                self._entries.move_to_end(name)
            while len(self._entries) > REMEMBERED_ENTRIES:
                self._entries.popitem(last=False)
        return entry

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        return await self._source.read_file(path, start, stop)

    def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        return self._source.events(since)

    async def aclose(self) -> None:
        """Stop all fetches."""
        await self._flights.aclose()

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        entry = await self._entry(request)
        try:
            return await self._start(entry, request)
        except DatasetChangedError:
            if request.version is not None:
                raise
            # The one who asked does not care for the version: what was known here was just too old.
            newer = await self.entry(request.path)
            if newer.version == entry.version:
                raise
            return await self._start(newer, request)

    async def _start(self, entry: Entry, request: ReadRequest) -> BlockStream:
        if entry.geometry is None:
            raise UnsupportedDatasetError(
                f"{entry.path!r} in root {self.root!r} has no data to read: {entry.reason or f'it is a {entry.kind}'}"
            )
        version = self._cache.open(entry, self.root)
        segments = await self._run(_Segments, entry, request)
        records = _CachedRecords(self, version, replace(request, path=entry.path, version=entry.version), segments)
        try:
            await records.start()
        except BaseException:
            await records.aclose()
            raise
        return BlockStream(entry, records)

    async def _entry(self, request: ReadRequest) -> Entry:
        """The entry of the version that is asked for, as well as it is known here."""
        known = await self._run(self._lookup, request.path) if self._lookup is not None else None
        if known is None:
            known = await self._remembered_entry(request)
        if request.version is None or request.version == known.version:
            return known
        # A pinned version: what is kept of it stays readable.
        geometry = await self._run(self._cache.geometry, self.root, known.id, request.version)
        if geometry is not None:
            return replace(known, version=request.version, geometry=geometry)
        newest = await self.entry(request.path)
        if newest.version != request.version:
            raise DatasetChangedError(
                f"dataset {newest.path!r} in root {self.root!r} changed: version {request.version} is gone"
            )
        return newest

    async def _remembered_entry(self, request: ReadRequest) -> Entry:
        remembered = self._entries.get(request.path)
        if remembered is not None and request.version == remembered.version:
            return remembered
        try:
            return await self.entry(request.path)
        except (SourceUnavailableError, DeadlineError):
            if remembered is None:
                raise
            return remembered

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def _segment(self, version: CachedVersion, request: ReadRequest, segment: _Segment) -> list[BlockRecord]:
        """The records of a segment, in the plan's order."""
        wanted = segment.wanted()
        found, missing = await self._run(_read_cached, version, wanted)
        for records in found.values():
            self._flights.learn(version, records[0])
        while missing:
            flights, own = self._flights.join(version, missing)
            if own:
                flights.append(self._flights.start(version, own, self._fetch(version, request, segment, own)))
            try:
                for flight in flights:
                    for record in await flight.wait():
                        _take(record, missing, found)
            except (SourceUnavailableError, DeadlineError) as error:
                if isinstance(error, NotCachedError):
                    raise
                nblocks = sum(len(ids) for ids in missing.values())
                raise NotCachedError(
                    f"{nblocks} of the blocks asked for of {version.root}/{version.path} are not in the cache, "
                    f"and its source is away: {error}"
                ) from error
            finally:
                for flight in flights:
                    self._flights.leave(flight)
        return [record for nchunk in wanted for record in found.get(nchunk, ())]

    async def _fetch(
        self, version: CachedVersion, request: ReadRequest, segment: _Segment, wanted: dict[int, Ints]
    ) -> list[BlockRecord]:
        """Ask upstream for blocks, and keep them."""
        # Whoever fetched them last put them in the cache before the flight ended.
        found, missing = await self._run(_read_cached, version, wanted)
        records = [record for some in found.values() for record in some]
        if not missing:
            return records
        narrow = await self._run(segment.request, version.geometry, request, missing)
        async with self._slots:
            stream = await self._source.read_blocks(replace(narrow, root=self.root))
            fresh: list[BlockRecord] = []
            try:
                if (stream.entry.id, stream.entry.version) != (version.id, version.version):
                    raise IntegrityError(f"root {self.root!r} answers about another dataset than {version.path!r}")
                async for record in stream.records:
                    _take(record, missing, {})
                    self._flights.learn(version, record)
                    fresh.append(record)
                    records.append(record)
                    if sum(len(r.body) for r in fresh) >= PUT_NBYTES:
                        await self._run(version.put, *fresh)
                        fresh = []
            finally:
                await _close(stream.records)
                if fresh:
                    # What has come whole is good, whatever happened after it.
                    await asyncio.shield(self._run(version.put, *fresh))
        if missing:
            raise IntegrityError(
                f"root {self.root!r} did not send all blocks of {version.path!r} that it was asked for"
            )
        return records


def _read_cached(
    version: CachedVersion, wanted: Mapping[int, Ints]
) -> tuple[dict[int, list[BlockRecord]], dict[int, Ints]]:
    """What is kept of some blocks, and those that are not, by chunk."""
    found: dict[int, list[BlockRecord]] = {}
    missing = dict(wanted)
    for nchunk, ids in wanted.items():
        for record in version.get(nchunk, ids):
            _take(record, missing, found)
    return found, missing


def _take(record: BlockRecord, missing: dict[int, Ints], found: dict[int, list[BlockRecord]]) -> None:
    """Move what a record has from ``missing`` to ``found``."""
    wanted = missing.get(record.nchunk)
    if wanted is None:
        return
    if record.is_whole:
        found.setdefault(record.nchunk, []).append(record)
        del missing[record.nchunk]
        return
    has = np.isin(wanted, record.ids)
    if has.any():
        found.setdefault(record.nchunk, []).append(record.pick(wanted[has].tolist()))
        if has.all():
            del missing[record.nchunk]
        else:
            missing[record.nchunk] = wanted[~has]


@dataclass(slots=True)
class _Segment:
    """A run of a plan's order: blocks ``first`` to ``stop``, by chunk, and which of them are not wanted."""

    first: int
    stop: int
    chunks: list[tuple[int, Ints, Bits | None]]
    cbytes: int

    def wanted(self) -> dict[int, Ints]:
        return {
            n: ids if held is None else ids[~held] for n, ids, held in self.chunks if held is None or not held.all()
        }

    def request(self, geometry: Geometry, request: ReadRequest, wanted: Mapping[int, Ints]) -> ReadRequest:
        """The request for some of its blocks alone."""
        chunks: Iterable[tuple[int, Ints]] = ((n, ids) for n, ids, _ in self.chunks)
        first = self.first
        selection = request.selection
        if any(isinstance(axis, Mapping) and len(axis["at"]) > MAX_REPEATED_ITEMS for axis in selection or ()):
            # Millions of positions are not sent again with every segment: just those of its chunks.
            narrow = _narrowed(geometry, Selection.from_json(selection, geometry.shape), [n for n, _, _ in self.chunks])
            chunks, first = ((p.nchunk, p.blocks) for p in BlockPlan(geometry, narrow)), 0
            selection = narrow.to_json()
        asked = np.concatenate([np.isin(ids, wanted.get(n, ())) for n, ids in chunks])
        places = np.flatnonzero(asked)
        start, stop = int(places[0]), int(places[-1]) + 1
        held = ~asked[start:stop]
        window = (first + start, first + stop)
        return replace(request, selection=selection, window=window, held=held if held.any() else None)


def _narrowed(geometry: Geometry, selection: Selection, nchunks: list[int]) -> Selection:
    """The part of a selection that lies in the smallest box of chunks around some chunks."""
    coords = np.array([geometry.chunk_coords(n) for n in nchunks])
    axes: list[AxisSelection] = []
    for axis, low, high, length in zip(
        selection.axes, coords.min(axis=0), coords.max(axis=0) + 1, geometry.chunks, strict=True
    ):
        start, stop = int(low) * length, int(high) * length
        if isinstance(axis, AxisItems):
            axes.append(AxisItems(axis.items[np.searchsorted(axis.items, start) : np.searchsorted(axis.items, stop)]))
        else:
            skipped = max(0, -(-(start - axis.start) // axis.step))
            axes.append(AxisRange(axis.start + skipped * axis.step, min(stop, axis.stop), axis.step))
    return Selection(tuple(axes))


class _Segments:
    """Cuts a read in segments of about ``WINDOW_NBYTES`` compressed. Used in one thread at a time."""

    def __init__(self, entry: Entry, request: ReadRequest) -> None:
        geometry = entry.geometry
        assert geometry is not None
        plan = BlockPlan(geometry, Selection.from_json(request.selection, geometry.shape))
        first, stop = request.window or (0, plan.nblocks)
        if stop > plan.nblocks:
            raise RequestError(f"window [{first}, {stop}] is outside of the {plan.nblocks} blocks of the selection")
        if request.held is not None and not 0 <= len(request.held) - (stop - first) < 8:
            raise RequestError(f"held has {len(request.held)} bits for a window of {stop - first} blocks")
        self._held = request.held
        self._first = self._position = first
        self._projections = plan.window(first, stop) if request.window else iter(plan)
        self._rest: tuple[int, Ints] | None = None
        self._whole = -1
        self._block_nbytes = _block_nbytes(geometry, entry)
        self._block_cbytes = float(self._block_nbytes)
        if entry.cbytes and entry.nbytes:
            self._expect(self._block_nbytes * entry.cbytes / entry.nbytes)

    @property
    def in_chunk(self) -> bool:
        """Is the rest of a chunk next, whose beginning is in the segment before?"""
        return self._rest is not None

    def learn(self, records: list[BlockRecord]) -> None:
        """See what came: what was guessed from the whole dataset gives way to it."""
        for record in records:
            if record.is_whole:
                self._whole = record.nchunk
        nblocks = sum(len(r.ids) for r in records)
        if nblocks:
            self._expect((self._block_cbytes + sum(len(r.body) for r in records) / nblocks) / 2)

    def _expect(self, block_cbytes: float) -> None:
        # However well it compresses, what comes may not: the bound is on that.
        self._block_cbytes = max(1.0, min(block_cbytes, self._block_nbytes), self._block_nbytes * MIN_RATIO)

    def next(self) -> _Segment | None:
        """The next segment that has something wanted in it."""
        chunks: list[tuple[int, Ints, Bits | None]] = []
        most = int(max(1, min(WINDOW_NBYTES / self._block_cbytes, MAX_WINDOW_BLOCKS)))
        nwanted = 0
        first = self._position
        for nchunk, ids in self._runs():
            held = self._held_of(nchunk, len(ids))
            wanted = np.arange(len(ids)) if held is None else np.flatnonzero(~held)
            if len(wanted) > most - nwanted:
                cut = int(wanted[most - nwanted])
                self._rest = nchunk, ids[cut:]
                ids, held = ids[:cut], None if held is None else held[:cut]
            self._position += len(ids)
            nwanted = min(most, nwanted + len(wanted))
            if nwanted:
                chunks.append((nchunk, ids, held))
            else:
                first = self._position
            if nwanted == most or len(chunks) >= MAX_WINDOW_BLOCKS:
                break
        if not chunks:
            return None
        return _Segment(first, self._position, chunks, int(nwanted * self._block_cbytes))

    def _held_of(self, nchunk: int, nblocks: int) -> Bits | None:
        if nchunk == self._whole:
            return np.ones(nblocks, np.bool_)
        if self._held is None:
            return None
        start = self._position - self._first
        return self._held[start : start + nblocks]

    def _runs(self) -> Iterator[tuple[int, Ints]]:
        if self._rest is not None:
            rest, self._rest = self._rest, None
            yield rest
        for projection in self._projections:
            yield projection.nchunk, projection.blocks


def _block_nbytes(geometry: Geometry, entry: Entry) -> int:
    if is_vlen(geometry.dtype):
        return max(1, (entry.cbytes or WINDOW_NBYTES) // max(geometry.nchunks, 1))
    return geometry.block_nbytes


class _CachedRecords:
    """Records of one read, some segments ahead of its consumer."""

    def __init__(self, source: CachedSource, version: CachedVersion, request: ReadRequest, segments: _Segments) -> None:
        self._source, self._version, self._request, self._segments = source, version, request, segments
        self._pending: deque[tuple[asyncio.Task[list[BlockRecord]], int]] = deque()
        self._ready: deque[BlockRecord] = deque()
        self._planned = False

    def __aiter__(self) -> AsyncIterator[BlockRecord]:
        return self

    async def start(self) -> None:
        """Wait for the first segment: what cannot be answered is told before the answer begins."""
        await self._advance()

    async def __anext__(self) -> BlockRecord:
        while not self._ready:
            if not await self._advance():
                raise StopAsyncIteration
        return self._ready.popleft()

    async def aclose(self) -> None:
        self._planned = True
        self._ready.clear()
        tasks = [task for task, _ in self._pending]
        for task in tasks:
            task.cancel()
        while self._pending:
            self._source._ahead_nbytes -= self._pending.popleft()[1]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _advance(self) -> bool:
        await self._fill()
        if not self._pending:
            return False
        task, cbytes = self._pending[0]
        try:
            records = await task
        except BaseException:
            await self.aclose()
            raise
        if self._pending:
            self._pending.popleft()
            self._source._ahead_nbytes -= cbytes
        self._ready.extend(records)
        self._segments.learn(records)
        await self._fill()
        return True

    async def _fill(self) -> None:
        source = self._source
        while not self._planned and len(self._pending) < FETCHES:
            if self._pending and source._ahead_nbytes >= AHEAD_NBYTES:
                return
            if self._pending and self._segments.in_chunk and not source._flights.is_cut(self._version):
                return  # a chunk that cannot be cut would come once with each segment
            segment = await source._run(self._segments.next)
            if segment is None:
                self._planned = True
                return
            task = asyncio.create_task(source._segment(self._version, self._request, segment))
            task.add_done_callback(_look_at_error)
            self._pending.append((task, segment.cbytes))
            source._ahead_nbytes += segment.cbytes


class _Flight:
    """One upstream request that is under way, and how many wait for it."""

    def __init__(self, task: asyncio.Task[list[BlockRecord]], keys: list[tuple[str, int, int]]) -> None:
        self.task, self.keys, self.waiters = task, keys, 1

    async def wait(self) -> list[BlockRecord]:
        return await asyncio.shield(self.task)


class _Flights:
    """Which blocks are being fetched, and by whom: a second reader waits for the first one's request.

    Until a dataset's chunks are seen to come in blocks, one request per chunk is under way at a time: a
    chunk that cannot be cut comes whole, whichever of its blocks is asked for.
    """

    def __init__(self) -> None:
        self._flights: dict[tuple[str, int, int], _Flight] = {}
        self._cut: OrderedDict[str, bool] = OrderedDict()

    def join(self, version: CachedVersion, wanted: Mapping[int, Ints]) -> tuple[list[_Flight], dict[int, Ints]]:
        """The flights that bring some of these blocks, and the blocks that none brings."""
        flights: dict[int, _Flight] = {}
        own: dict[int, Ints] = {}
        cut = self.is_cut(version)
        for nchunk, ids in wanted.items():
            whole = self._flights.get((version.key, nchunk, WHOLE))
            if whole is not None and not cut:
                flights[id(whole)] = whole
                continue
            under_way = [self._flights.get((version.key, nchunk, block)) for block in ids.tolist()]
            flights |= {id(f): f for f in under_way if f is not None}
            alone = ids[[f is None for f in under_way]]
            if len(alone):
                own[nchunk] = alone
        for flight in flights.values():
            flight.waiters += 1
        return list(flights.values()), own

    def start(
        self, version: CachedVersion, own: Mapping[int, Ints], fetch: Coroutine[Any, Any, list[BlockRecord]]
    ) -> _Flight:
        """Begin to fetch blocks."""
        keys = [(version.key, n, block) for n, ids in own.items() for block in (*ids.tolist(), WHOLE)]
        flight = _Flight(asyncio.create_task(fetch), keys)
        self._flights |= dict.fromkeys(keys, flight)
        flight.task.add_done_callback(lambda task: self._land(flight))
        flight.task.add_done_callback(_look_at_error)
        return flight

    def leave(self, flight: _Flight) -> None:
        """One waits no more; nobody waiting means that nobody needs it."""
        flight.waiters -= 1
        if flight.waiters == 0 and not flight.task.done():
            self._land(flight)
            flight.task.cancel()

    def is_cut(self, version: CachedVersion) -> bool:
        """Were chunks of this version seen to come in blocks?"""
        return self._cut.get(version.key, False)

    def learn(self, version: CachedVersion, record: BlockRecord) -> None:
        """Do chunks of this version come in blocks?"""
        self._cut[version.key] = not record.is_whole
        self._cut.move_to_end(version.key)
        if len(self._cut) > REMEMBERED_ENTRIES:
            self._cut.popitem(last=False)

    def _land(self, flight: _Flight) -> None:
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]

    async def aclose(self) -> None:
        flights = set(self._flights.values())
        for flight in flights:
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in flights), return_exceptions=True)


def _look_at_error(task: asyncio.Task[Any]) -> None:
    """An error that nobody waits for any more is no accident."""
    if not task.cancelled():
        task.exception()


async def _close(records: AsyncIterator[BlockRecord]) -> None:
    close = getattr(records, "aclose", None)
    if close is not None:
        with suppress(Caterva2Error):
            await close()
