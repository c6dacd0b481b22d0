"""What a client does is felt at the publisher, through a subscriber: going away, reading slowly, or not at all."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest

from caterva2_jupyter.core.blocks import BlockRecord
from caterva2_jupyter.core.source import BlockStream, FileStream
from caterva2_jupyter.core.wire import ReadRequest, RecordParser
from caterva2_jupyter.storage.memory_root import BLOCK_NBYTES, PART_NBYTES
from caterva2_jupyter.subscriber.sources import RemoteSource
from caterva2_jupyter.testing import open_origin
from caterva2_jupyter.web.outgoing_session import open_session

from .serving import CountingSource, serve
from .test_sources import cached_source, until

DEADLINE_S = 60
NOISE = np.random.default_rng(0).integers(0, 256, 32 << 20, np.uint8).tobytes()
"""More than sockets and pieces that are read ahead hold."""


class GatedSource(CountingSource):
    """A publisher's source that goes on only while its gate is open; counts files like reads."""

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.gate = asyncio.Event()
        self.waiting = 0

    @property
    def nbytes_read(self) -> int:
        """Of blocks that were sent, or of parts of files."""
        return len(self.sent) * BLOCK_NBYTES or self.waiting * PART_NBYTES

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        stream = await super().read_blocks(request)
        return BlockStream(stream.entry, _Gated(self, stream.records), stream.digest)

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        stream: FileStream = await self._source.read_file(path, start, stop)
        if start == stop:
            return stream
        self.opened += 1
        stream.parts = self._parts(stream.parts)
        return stream

    async def _parts(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for part in parts:
                self.waiting += 1
                await self.gate.wait()
                yield part
        finally:
            self.closed += 1


class _Gated:
    def __init__(self, source: GatedSource, records: Any) -> None:
        self._source, self._records = source, records

    def __aiter__(self) -> AsyncIterator[BlockRecord]:
        return self

    async def __anext__(self) -> BlockRecord:
        self._source.waiting += 1
        await self._source.gate.wait()
        record: BlockRecord = await anext(self._records)
        return record

    async def aclose(self) -> None:
        await self._records.aclose()


def play(tmp_path: Path, scenario: Callable[[GatedSource, str], Awaitable[None]]) -> None:
    """Run a scenario with a publisher's source, and the URL of a subscriber of it."""

    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S), open_origin({"noise.bin": NOISE}) as origin:
            source = GatedSource(origin.source)
            async with (
                serve(source) as publisher,  # type: ignore[arg-type]
                open_session(publisher) as session,
                cached_source(RemoteSource("foo", publisher, session), tmp_path / "cache") as cached,
                serve(cached) as subscriber,
            ):
                await scenario(source, subscriber)

    asyncio.run(run())


READ = b'POST /api/v1/read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 24\r\n\r\n{"path":"foo/noise.bin"}'
FILE = b"GET /api/v1/files/foo/noise.bin HTTP/1.1\r\nHost: localhost\r\n\r\n"
REQUESTS = pytest.mark.parametrize("request_bytes", [READ, FILE], ids=["read", "file"])


def ask(url: str, request: bytes) -> socket.socket:
    """A client that sends a request and reads nothing."""
    parts = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    connection.connect((parts.hostname or "", parts.port or 0))
    connection.sendall(request)
    return connection


@REQUESTS
def test_a_client_that_goes_while_the_publisher_works_ends_that_work(tmp_path: Path, request_bytes: bytes) -> None:
    async def scenario(source: GatedSource, url: str) -> None:
        with closing(ask(url, request_bytes)):
            await until(lambda: source.waiting > 0)
            assert source.closed < source.opened
        await until(lambda: source.closed == source.opened)

    play(tmp_path, scenario)


@REQUESTS
def test_a_client_that_goes_in_the_midst_ends_the_publishers_work(tmp_path: Path, request_bytes: bytes) -> None:
    async def scenario(source: GatedSource, url: str) -> None:
        source.gate.set()
        with closing(ask(url, request_bytes)) as connection:
            begin = await asyncio.to_thread(connection.recv, 100)  # the services are in this loop
            assert begin.startswith(b"HTTP/1.1 200")
        await until(lambda: source.closed == source.opened > 0)
        assert source.nbytes_read < len(NOISE)

    play(tmp_path, scenario)


def test_clients_that_do_not_read_stall_no_other(tmp_path: Path) -> None:
    async def scenario(source: GatedSource, url: str) -> None:
        source.gate.set()
        stuck = [ask(url, request) for request in (READ, FILE) * 4]
        try:
            async with aiohttp.ClientSession() as session:
                begun = time.monotonic()
                async with session.post(f"{url}/api/v1/read", data=json.dumps({"path": "foo/noise.bin"})) as answer:
                    assert answer.status == 200
                    parser, nbytes = RecordParser(), 0
                    async for data in answer.content.iter_any():
                        for item in parser.feed(data):
                            nbytes += len(item.body) if isinstance(item, BlockRecord) else 0
                    parser.close()
                async with session.get(f"{url}/api/v1/files/foo/noise.bin") as answer:
                    assert await answer.read() == NOISE
                assert nbytes >= len(NOISE)
                assert time.monotonic() - begun < DEADLINE_S / 2
        finally:
            for connection in stuck:
                connection.close()
        await until(lambda: source.closed == source.opened)

    play(tmp_path, scenario)
