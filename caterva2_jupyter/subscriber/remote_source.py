"""A root that another service serves, over HTTP: requests out, checked answers in.

What breaks in the midst is asked for again from where it broke. How HTTP is spoken is ``link``'s; nothing is
kept here (``sources`` does) but entries that were seen.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import numpy as np
import numpy.typing as npt

from ..core.blocks import WHOLE, BlockRecord
from ..core.catalog import CatalogPage, CatalogQuery, Cursor
from ..core.chunk_grid import BlockPlan
from ..core.dtypes import is_vlen
from ..core.events import EventBatch
from ..core.metadata import Entry
from ..core.reduce_request import ReduceRequest
from ..core.selection import Selection
from ..core.source import BlockStream, ComparedStream, FileStream, ReducedStream, listed
from ..core.wire import Preamble, ReadRequest, RecordParser
from ..errors import (
    DatasetChangedError,
    IntegrityError,
    RequestError,
    ResyncError,
    SourceUnavailableError,
)
from .joined_reads import JoinedAnswer, JoinedReads
from .link import Answer, BrokenLinkError, Link
from .remote_comparison import RemoteComparison
from .remote_reduction import RemoteReduction
from .resumed_answer import ResumedAnswer

__all__ = ["RemoteSource"]

MAX_PAGE_NBYTES = 256 << 20
MAX_ENTRY_NBYTES = 64 << 20
REMEMBERED_ENTRIES = 1000
SILENCE_S = 15.0

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


class RemoteSource:
    """A root that another service (a publisher, or a subscriber) serves over REST v1.

    Parameters
    ----------
    root : str
        Name of the root there.
    url : str
        Of the service: ``http://``, ``https://`` or ``http+unix://%2Fpath``, its prefix included.
    session : aiohttp.ClientSession
        One per service (``outgoing_session.open_session``); the caller closes it.
    token : str
        Sent as Bearer when there is one.
    connect_s, stall_s, min_rate, patience_s : float
        Deadlines, see ``Link``.
    mac_key : bytes
        Key of codes that every answer has to have; empty for none.
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
        mac_key: bytes = b"",
    ) -> None:
        self._root = root
        self._link = Link(
            url,
            session,
            token,
            connect_s=connect_s,
            stall_s=stall_s,
            min_rate=min_rate,
            patience_s=patience_s,
            mac_key=mac_key,
        )
        self._joined = JoinedReads(self._link)
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    @property
    def root(self) -> str:
        return self._root

    def hurry(self, stall_s: float | None) -> None:
        """Wait no longer than that for progress, as the root is said to be away (None: as long as ever)."""
        self._link.hurry(stall_s)

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
            entry = await records.start()
            return BlockStream(entry, records, records.digest)
        except BaseException:
            await records.aclose()
            raise

    async def read_small(self, request: ReadRequest) -> BlockStream:
        """As ``read_blocks``, for what is known to be little: those that are asked for at the same time go together."""
        request = replace(request, root=self._root)
        answer = await self._joined.read(request)
        if answer is not None:
            return self._joined_stream(request, answer)
        with self._joined.under_way():
            return await self.read_blocks(request)

    def _joined_stream(self, request: ReadRequest, answer: JoinedAnswer) -> BlockStream:
        about = answer.preamble
        known = self.known_entry(request.path, about.version)
        entry = known if known is not None and known.id == about.id else None
        entry = entry or Entry(request.path, "array", id=about.id, version=about.version)
        return BlockStream(entry, listed(answer.records), about.digest)

    async def compare_blocks(self, request: ReadRequest) -> ComparedStream:
        records = RemoteComparison(self._link, replace(request, root=self._root))
        try:
            about = await records.start()
        except BaseException:
            await records.aclose()
            raise
        known = self.known_entry(request.path, about.version)
        stub = Entry(request.path, "array", id=about.id, version=about.version)
        return ComparedStream(known if known is not None and known.id == about.id else stub, records)

    async def reduce(self, request: ReduceRequest) -> ReducedStream:
        entry = self.known_entry(request.path, request.version or "") or await self.entry(request.path)
        if request.version not in (None, entry.version):
            raise DatasetChangedError(f"dataset {entry.path!r} in root {self._root!r} changed: open it again")
        records = RemoteReduction(self._link, entry, replace(request, root=self._root))
        try:
            await records.start()
        except BaseException:
            await records.aclose()
            raise
        return ReducedStream(entry, records, records.digest)

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


class _RemoteRecords(ResumedAnswer[BlockRecord]):
    """Records of one read; when the connection breaks, it asks for those that have not come."""

    def __init__(self, source: RemoteSource, link: Link, request: ReadRequest) -> None:
        super().__init__(link)
        self._source, self._request = source, request
        self._parser = RecordParser()
        self._received: dict[int, list[Ints]] = {}
        self._npieces = 0
        self._entry: Entry | None = None

    async def start(self) -> Entry:
        """Wait for what the answer is about."""
        await self._until_preamble()
        return self._known_entry()

    @property
    def digest(self) -> str:
        """Of the selection, when the answer is its exact slice."""
        return self._preamble.digest if self._preamble is not None else ""

    async def _ask(self) -> Mapping[str, Any]:
        self._parser = RecordParser(self._max_record_nbytes())
        return await self._rest()

    def _feed(self, data: bytes) -> Sequence[object]:
        items = self._parser.feed(data)
        if not data:
            self._parser.close()
        return items

    def _take(self, item: object) -> None:
        if isinstance(item, Preamble):
            self._begin(item)
        elif isinstance(item, BlockRecord):
            self._receive(item)

    def _receive(self, record: BlockRecord) -> None:
        if self.digest:
            # A slice that broke off is sent again from its beginning: it is small.
            if record.nchunk < self._npieces:
                return
            self._npieces = record.nchunk + 1
        else:
            self._received.setdefault(record.nchunk, []).append(record.ids.astype(np.int64))
        self._ready.append(record)
        self._attempts.progressed()

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
        if self._preamble is not None and preamble.digest != self._preamble.digest:
            # Who reads was told what comes. What came of the other kind is of no use any more.
            raise SourceUnavailableError(f"{self._link.peer} broke off an answer, and gives another one now")
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
