"""Answers that are records: reads of one or several selections, reductions, single chunks.

They pass on what a source gives, as the client takes it. How these are mounted: ``source_handlers``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from ..core.blocks import BlockRecord, checksum_seed
from ..core.chunk_grid import BlockPlan
from ..core.chunk_runs import ChunkRuns
from ..core.legacy import chunk_selection
from ..core.many_reads import encode_failure, parse_many
from ..core.metadata import Entry
from ..core.reduce_request import ReduceRequest, Working
from ..core.selection import Selection
from ..core.source import BlockStream, Source, listed
from ..core.wire import (
    RECORDS_TYPE,
    ReadRequest,
    encode_answer,
    encode_end,
    encode_error,
    encode_preamble,
    encode_record,
    encode_same,
    encode_working,
)
from ..errors import (
    Caterva2Error,
    DatasetChangedError,
    DatasetNotFoundError,
    IntegrityError,
    TooLargeError,
)
from ..storage.closing import close_stream
from ..storage.threaded_source import ThreadedSource
from .source_handlers import (
    MAX_READ_REQUEST_NBYTES,
    PIECE_NBYTES,
    IdLookup,
    Part,
    SourceAnswers,
)

__all__ = ["ChunkAnswers", "ReadAnswers", "ReadManyAnswers", "ReduceAnswers"]

READS_AHEAD = 16  # of several in one request, each with at most a piece of it in memory
YEAR_S = 365 * 24 * 3600

R = TypeVar("R")
Encoded = tuple[bytes, Part]


class ReadAnswers(SourceAnswers):
    """``POST read`` -> records (``core.wire``), as they come from the source."""

    async def answer_post(self) -> None:
        if len(self.request.body) > MAX_READ_REQUEST_NBYTES:
            raise TooLargeError(f"a read request has at most {MAX_READ_REQUEST_NBYTES} bytes: ask for fewer positions")
        request = ReadRequest.from_bytes(self.request.body)
        source = self.source_of(request.root)
        if isinstance(source, ThreadedSource) and (found := source.read_at_once(request)) is not None:
            entry, records = found
            self.set_header("Content-Type", RECORDS_TYPE)
            self.set_header("Cache-Control", "no-store")
            self.write(encode_answer(entry, encode_preamble(entry, request.version is None), records))
            return
        with self.limits.reads.hold(self.client_key()):
            await self.while_connected(self._answer(source, request))

    async def _answer(self, source: Source, request: ReadRequest) -> None:
        if request.known is not None:
            compared = await source.compare_blocks(request)
            seed = checksum_seed(compared.entry.id, compared.entry.version)
            preamble = encode_preamble(compared.entry, with_entry=False)
            await self._send(seed, preamble, compared.records, lambda same: (encode_same(same, seed), b""))
            return
        stream = await source.read_blocks(request)
        seed = checksum_seed(stream.entry.id, stream.entry.version)
        preamble = encode_preamble(stream.entry, request.version is None, stream.digest)
        await self._send(seed, preamble, stream.records, lambda record: encode_record(record, seed, stream.answer))

    async def _send(
        self, seed: int, preamble: bytes, records: AsyncIterator[R], encode: Callable[[R], Encoded]
    ) -> None:
        try:
            await self._send_records(seed, preamble, records, encode)
        finally:
            await close_stream(records)

    async def _send_records(
        self, seed: int, preamble: bytes, records: AsyncIterator[R], encode: Callable[[R], Encoded]
    ) -> None:
        # Before the status is sent: an error of the first record is an HTTP error.
        record = await anext(records, None)
        self.set_header("Content-Type", RECORDS_TYPE)
        self.set_header("Cache-Control", "no-store")
        parts: list[Part] = [preamble]
        nrecords, waiting = 0, len(preamble)
        try:
            while record is not None:
                encoded = encode(record)
                parts += encoded
                nrecords += not isinstance(record, Working)
                waiting += len(encoded[0]) + len(encoded[1])
                if waiting >= PIECE_NBYTES or isinstance(record, Working):
                    await self.send_parts(parts, waiting)  # a slow client slows the source
                    parts.clear()
                    waiting = 0
                record = await anext(records, None)
        except Caterva2Error as error:
            parts.append(encode_error(error, seed))
        else:
            parts.append(encode_end(nrecords, seed))
        self.write(b"".join(parts))


class ReduceAnswers(ReadAnswers):
    """``POST reduce`` -> the pieces of the result; until then, every few seconds, how far it is."""

    async def answer_post(self) -> None:
        request = ReduceRequest.from_bytes(self.request.body)
        source = self.source_of(request.root)
        with self.limits.reductions.hold(self.client_key()):
            await self.while_connected(self._reduce(source, request))

    async def _reduce(self, source: Source, request: ReduceRequest) -> None:
        stream = await source.reduce(request)
        seed = checksum_seed(stream.entry.id, stream.entry.version)
        preamble = encode_preamble(stream.entry, request.version is None, stream.digest)

        def encode(item: BlockRecord | Working) -> Encoded:
            return (
                (encode_working(item, seed), b"") if isinstance(item, Working) else encode_record(item, seed, "slice")
            )

        await self._send(seed, preamble, stream.records, encode)


@dataclass(slots=True)
class _Begun:
    """A read whose first records are there; ``rest`` is None when those are all."""

    stream: BlockStream
    records: list[BlockRecord]
    rest: AsyncIterator[BlockRecord] | None


class ReadManyAnswers(SourceAnswers):
    """``POST read-many`` with ``{"reads": [...]}`` -> the answers to all of them, one after the other."""

    async def answer_post(self) -> None:
        if len(self.request.body) > MAX_READ_REQUEST_NBYTES:
            raise TooLargeError(f"a request has at most {MAX_READ_REQUEST_NBYTES} bytes: send several requests")
        requests = parse_many(self.request.body)
        for root in {request.root for request in requests}:
            self.source_of(root)
        with self.limits.reads.hold(self.client_key()):
            await self.while_connected(self._answer(requests))

    async def _answer(self, requests: list[ReadRequest]) -> None:
        ahead: deque[asyncio.Task[_Begun]] = deque()
        todo = iter(requests)
        try:
            for request in requests:
                # Several are on their way at once: a source may be a round trip away.
                for following in islice(todo, READS_AHEAD - len(ahead)):
                    ahead.append(asyncio.create_task(self._begin(following)))
                try:
                    begun = await ahead[0]
                except Caterva2Error as error:
                    if request is requests[0]:
                        raise
                    self.write(encode_failure(error))
                    return
                ahead.popleft()
                if request is requests[0]:
                    self.set_header("Content-Type", RECORDS_TYPE)
                    self.set_header("Cache-Control", "no-store")
                if not await self._send(request, begun):
                    return
        finally:
            await self._give_up(ahead)

    async def _begin(self, request: ReadRequest) -> _Begun:
        source = self.source_of(request.root)
        if isinstance(source, ThreadedSource) and (found := source.read_at_once(request)) is not None:
            return _Begun(BlockStream(found[0], listed(())), found[1], None)
        stream = await source.read_blocks(request)
        records: list[BlockRecord] = []
        nbytes = 0
        try:
            async for record in stream.records:
                records.append(record)
                nbytes += len(record.body)
                if nbytes >= PIECE_NBYTES:
                    return _Begun(stream, records, stream.records)
        except BaseException:
            await close_stream(stream.records)
            raise
        return _Begun(stream, records, None)

    async def _send(self, request: ReadRequest, begun: _Begun) -> bool:
        """Send one answer; False when it ended with an error, after which nothing can follow."""
        stream = begun.stream
        seed = checksum_seed(stream.entry.id, stream.entry.version)
        self.write(encode_preamble(stream.entry, request.version is None, stream.digest))
        nrecords = 0
        try:
            async for record in _chained(begun.records, begun.rest):
                head, body = encode_record(record, seed, stream.answer)
                self.write(head)
                self.write(body if isinstance(body, bytes) else bytes(body))
                nrecords += 1
                if len(body) >= PIECE_NBYTES or nrecords % 64 == 0:
                    await self.until_taken(self.flush(), PIECE_NBYTES)
        except Caterva2Error as error:
            self.write(encode_error(error, seed))
            return False
        finally:
            await close_stream(stream.records)
        self.write(encode_end(nrecords, seed))
        if sum(map(len, self._write_buffer)) >= PIECE_NBYTES:
            await self.until_taken(self.flush(), PIECE_NBYTES)
        return True

    async def _give_up(self, ahead: Iterable[asyncio.Task[_Begun]]) -> None:
        for task in ahead:
            task.cancel()
        for begun in await asyncio.gather(*ahead, return_exceptions=True):
            if isinstance(begun, _Begun):
                await close_stream(begun.stream.records)


async def _chained(
    records: Iterable[BlockRecord], rest: AsyncIterator[BlockRecord] | None
) -> AsyncIterator[BlockRecord]:
    for record in records:
        yield record
    if rest is not None:
        async for record in rest:
            yield record


class ChunkAnswers(SourceAnswers):
    """``GET chunks/ID/VERSION/N`` -> the records of one chunk, which never change: caches may keep them for ever."""

    async def answer_head(self, dataset_id: str, version: str, number: str) -> None:
        _, _, etag = await self._find(dataset_id, version, number)
        if not self.not_modified(etag):
            self._set_headers()

    async def answer_get(self, dataset_id: str, version: str, number: str) -> None:
        source, entry, etag = await self._find(dataset_id, version, number)
        if self.not_modified(etag):
            return
        with self.limits.reads.hold(self.client_key()):
            await self.while_connected(self._answer(source, entry, int(number)))

    async def _find(self, dataset_id: str, version: str, number: str) -> tuple[Source, Entry, str]:
        """Where the chunk is, its entry in that version, and its ETag.

        Raises
        ------
        DatasetNotFoundError, DatasetChangedError
        """
        if not number.isascii() or not number.isdigit() or str(int(number[:20])) != number:
            raise DatasetNotFoundError(f"no chunk {number[:20]!r} of any dataset")
        found: tuple[Source, Entry] | None = None
        for form in await self.sources.roots():
            if form.get("followed") is False:
                continue
            source = self.sources.source(form["name"])
            for entry in await source.entries_with_id(dataset_id) if isinstance(source, IdLookup) else ():
                if found is None or entry.version == version:
                    found = (source, entry)
        if found is None:
            raise DatasetNotFoundError(f"no dataset with id {dataset_id[:40]!r} here")
        source, entry = found
        if entry.geometry is None or (entry.version == version and int(number) >= entry.geometry.nchunks):
            raise DatasetNotFoundError(f"no chunk {number} of {entry.path!r} in root {source.root!r}")
        if entry.version != version:
            raise DatasetChangedError(
                f"dataset {entry.path!r} in root {source.root!r} changed: version {version[:40]} is gone"
            )
        return source, entry, f'"{version}-{number}"'

    def _set_headers(self) -> None:
        self.set_header("Content-Type", RECORDS_TYPE)
        # Shared caches may hand it out where anybody may have it from here.
        scope = "public" if getattr(self, "is_open", False) else "private"
        self.set_header("Cache-Control", f"{scope}, max-age={YEAR_S}, immutable")

    async def _answer(self, source: Source, entry: Entry, nchunk: int) -> None:
        geometry = entry.geometry
        assert geometry is not None
        selection = Selection.from_json(chunk_selection(geometry, nchunk), geometry.shape)
        (projection,) = BlockPlan(geometry, selection)
        runs = ChunkRuns(projection.blocks.tolist(), geometry.block_nbytes)
        stream = await source.read_blocks(ReadRequest(source.root, entry.path, entry.version, selection.to_json()))
        try:
            await self._send(entry, runs, stream)
        finally:
            await close_stream(stream.records)

    async def _send(self, entry: Entry, runs: ChunkRuns, stream: BlockStream) -> None:
        if (stream.entry.id, stream.entry.version) != (entry.id, entry.version):
            raise DatasetChangedError(f"{entry.path!r} changed while it was asked for: ask again")
        seed = checksum_seed(entry.id, entry.version)
        nrecords = 0
        try:
            async for record in stream.records:
                for run in runs.add(record):
                    if not nrecords:
                        self._set_headers()
                        self.write(encode_preamble(entry, False))
                    head, body = encode_record(run, seed)
                    self.write(head)
                    self.write(body if isinstance(body, bytes) else bytes(body))
                    nrecords += 1
                    if not runs.is_complete:
                        await self.until_taken(self.flush(), PIECE_NBYTES)
            if not runs.is_complete:
                raise IntegrityError(f"root {stream.entry.path!r} did not send all blocks of a chunk")
        except Caterva2Error:
            if not self._headers_written:
                for name in ("ETag", "Cache-Control"):
                    self.clear_header(name)
                self._write_buffer.clear()
                raise
            # Not an error record: a cache would keep it. Only a cut connection is not kept.
            self.detach().close()
            return
        self.write(encode_end(nrecords, seed))
