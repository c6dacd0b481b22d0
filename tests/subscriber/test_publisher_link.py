"""Hearing of roots from a publisher itself: lists, events, outages."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from caterva2_jupyter.core.events import EventBatch
from caterva2_jupyter.errors import IntegrityError, SourceUnavailableError
from caterva2_jupyter.subscriber.broker_link import BrokerLost, LinkMessage, RootsKnown
from caterva2_jupyter.subscriber.publisher_link import PublisherLink, parse_roots
from tests.subscriber.running import Publisher, eventually


class Heard:
    """A link to a publisher in memory, and what it said."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(2)
        self.publisher = Publisher("foo", self.executor, heartbeat_s=0.05)
        self.messages: list[LinkMessage] = []
        self.link = PublisherLink("http://foo.test", self._list_roots, lambda root: self.publisher, poll_s=0.05)
        self._task = asyncio.create_task(self._listen())

    async def _list_roots(self) -> object:
        if self.publisher.is_away:
            raise SourceUnavailableError("away")
        return {"roots": [{"name": "foo", "http": "http://lies.test", "epoch": "e", "seq": 1}]}

    async def _listen(self) -> None:
        async for message in self.link.messages():
            self.messages.append(message)

    def count(self, kind: type) -> int:
        return sum(isinstance(message, kind) for message in self.messages)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.publisher.store.close()
        self.executor.shutdown()


def test_roots_are_where_they_were_asked_for() -> None:
    async def main() -> None:
        heard = Heard()
        await eventually(lambda: heard.count(RootsKnown) > 0)
        known = heard.messages[0]
        assert isinstance(known, RootsKnown)
        (root,) = known.roots
        assert (root.name, root.http, root.online, str(root.cursor)) == ("foo", "http://foo.test", True, "e:1")
        await heard.close()

    asyncio.run(main())


def test_events_come_of_followed_roots_only() -> None:
    async def main() -> None:
        heard = Heard()
        await eventually(lambda: heard.count(RootsKnown) > 1)
        assert heard.count(EventBatch) == 0
        heard.link.follow(["foo"])
        await eventually(lambda: heard.count(EventBatch) > 0)
        heard.publisher.files.set("x.b2nd", np.arange(3))
        await heard.publisher.changed()
        await eventually(lambda: any(isinstance(m, EventBatch) and m.events for m in heard.messages))
        heard.link.follow([])
        await asyncio.sleep(0)
        heard.messages.clear()
        await eventually(lambda: heard.count(RootsKnown) > 2)
        assert heard.count(EventBatch) <= 1
        await heard.close()

    asyncio.run(main())


def test_a_publisher_that_goes_away_is_told_once_and_heard_again_when_back() -> None:
    async def main() -> None:
        heard = Heard()
        heard.link.follow(["foo"])
        await eventually(lambda: heard.count(EventBatch) > 0)
        heard.publisher.is_away = True
        await eventually(lambda: heard.count(BrokerLost) == 1)
        heard.messages.clear()
        heard.publisher.is_away = False
        await eventually(lambda: heard.count(RootsKnown) > 0 and heard.count(EventBatch) > 0)
        assert heard.count(BrokerLost) == 0
        await heard.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "form", [None, [], {}, {"roots": 3}, {"roots": [3]}, {"roots": [{}]}, {"roots": [{"name": "-"}]}]
)
def test_what_is_no_list_of_roots_is_refused(form: object) -> None:
    with pytest.raises(IntegrityError):
        parse_roots(form, "http://foo.test")
