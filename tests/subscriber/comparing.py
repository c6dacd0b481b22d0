"""A counter of what a source is asked, comparisons included."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

from caterva2_jupyter.core.revalidation import SameRecord
from caterva2_jupyter.core.source import ComparedStream, Source
from caterva2_jupyter.core.wire import ReadRequest, encode_same

from .serving import CountingSource


class Upstream(CountingSource):
    """Counts comparisons too, and may change what they say."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.compared: list[ReadRequest] = []
        self.told: list[SameRecord] = []
        self.lie: Callable[[SameRecord], SameRecord] = lambda same: same
        self.compare_error: Exception | None = None
        self.before: Callable[[], Awaitable[None]] | None = None

    async def compare_blocks(self, request: ReadRequest) -> ComparedStream:
        self.compared.append(request)
        if self.before is not None:
            await self.before()
        error = self.compare_error or self.error
        if error is not None:
            raise error
        stream = await self._source.compare_blocks(request)

        async def records() -> AsyncIterator[SameRecord]:
            async for same in stream.records:
                self.told.append(same)
                yield self.lie(same)

        return ComparedStream(stream.entry, records())

    def forget(self) -> None:
        """Count from here."""
        for asked in (self.reads, self.sent, self.compared, self.told):
            asked.clear()

    @property
    def compared_nbytes(self) -> int:
        """Bytes of comparisons on the wire, both ways, without HTTP's own."""
        asked = sum(len(json.dumps(request.to_json())) for request in self.compared)
        return asked + sum(len(encode_same(same, 0)) for same in self.told)
