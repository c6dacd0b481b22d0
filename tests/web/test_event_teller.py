"""Telling events to a client that leaves at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from caterva2_jupyter.errors import SourceUnavailableError
from caterva2_jupyter.testing import open_origin
from caterva2_jupyter.web.event_teller import tell_events


def test_a_client_that_leaves_when_it_is_told_to_list_again_leaves_no_listener() -> None:
    told: list[str] = []

    async def tell(message: Mapping[str, Any]) -> None:
        told.append(message["type"])
        if message["type"] == "resync":
            raise SourceUnavailableError("the client is gone")

    async def main() -> None:
        async with open_origin({"a.b2nd": np.arange(3)}) as origin:
            telling = asyncio.create_task(tell_events(origin.source, None, tell))
            async with asyncio.timeout(60):
                while not told:
                    await asyncio.sleep(0)
                origin.hub.resync()
                (result,) = await asyncio.gather(telling, return_exceptions=True)
            assert isinstance(result, SourceUnavailableError)
            assert origin.hub.nlisteners == 0

    asyncio.run(main())
    assert told[-1] == "resync"
