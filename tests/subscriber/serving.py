"""Sources served over real sockets in the test's own event loop, and a counter of what they are asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from caterva2_jupyter.config import Address, NetworkConfig
from caterva2_jupyter.core.blocks import BlockRecord
from caterva2_jupyter.core.source import BlockStream, Source
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import Caterva2Error, RootNotFoundError
from caterva2_jupyter.web.access import AccessPolicy, NetworkToken, Open, RequestGuard
from caterva2_jupyter.web.serve import listen
from caterva2_jupyter.web.service import ServiceHandler, make_application
from caterva2_jupyter.web.source_handlers import Limits, bind
from caterva2_jupyter.web.source_routes import SOURCE_ROUTES


class OneRoot:
    """A directory of one root."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def roots(self) -> list[dict[str, Any]]:
        return [{"name": self._source.root}]

    def source(self, root: str) -> Source:
        if root != self._source.root:
            raise RootNotFoundError(f"no root {root!r}")
        return self._source


@asynccontextmanager
async def serve(source: Source, address: str = "127.0.0.1:0", token: str = "") -> AsyncIterator[str]:
    """Serve a source; gives the URL."""
    policy: AccessPolicy = NetworkToken([token]) if token else Open()
    arguments = {"sources": OneRoot(source), "limits": Limits(), "policy": policy}
    routes: list[Any] = [(pattern, bind(answers, ServiceHandler), arguments) for pattern, answers in SOURCE_ROUTES]
    where = Address.parse(address)
    listener = listen(make_application(routes, RequestGuard.for_service(where)), where, NetworkConfig())
    try:
        yield listener.url
    finally:
        await listener.close()


class CountingSource:
    """A source that remembers what it was asked, and fails when it is told to."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.error: Caterva2Error | None = None
        self.reads: list[ReadRequest] = []
        self.sent: list[tuple[int, int]] = []
        self.opened = self.closed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def entry(self, path: str) -> Any:
        if self.error is not None:
            raise self.error
        return await self._source.entry(path)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        self.reads.append(request)
        if self.error is not None:
            raise self.error
        stream = await self._source.read_blocks(request)
        self.opened += 1
        return BlockStream(stream.entry, _CountedRecords(self, stream.records), stream.digest)


class _CountedRecords:
    def __init__(self, source: CountingSource, records: AsyncIterator[BlockRecord]) -> None:
        self._source, self._records = source, records

    def __aiter__(self) -> AsyncIterator[BlockRecord]:
        return self

    async def __anext__(self) -> BlockRecord:
        record = await anext(self._records)
        self._source.sent += [(record.nchunk, int(block)) for block in record.ids]
        return record

    async def aclose(self) -> None:
        self._source.closed += 1
        await self._records.aclose()  # type: ignore[attr-defined]
