"""FAULTS V7: a dataset that went back to an older state is marked, and taken or not as the configuration says."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from caterva2_jupyter.core.catalog import CatalogPage
from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.core.rollback_mark import WENT_BACK, is_refused
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import DatasetChangedError, NotCachedError
from caterva2_jupyter.storage.catalog_store import CatalogStore
from caterva2_jupyter.subscriber.catalog import ApplyBatch, ReplaceReplica, UpdateReplica
from caterva2_jupyter.subscriber.followed_root import FollowedRoot
from caterva2_jupyter.subscriber.rollbacks import judged

GEOMETRY = Geometry((9,), (4,), (2,), np.dtype("<i4"))
NOW = Entry("a.b2nd", "array", id="1", version="v2", geometry=GEOMETRY, mtime_ns=2_000, storage={"codec": "zstd"})
RESTORED = replace(NOW, version="v3", mtime_ns=1_000)
LATER = replace(NOW, version="v4", mtime_ns=3_000)


@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize(
    "told",
    [
        LATER,
        replace(RESTORED, mtime_ns=2_000),
        replace(RESTORED, mtime_ns=0),
        replace(RESTORED, version="v2"),
        Entry("a.b2nd", "group"),
    ],
)
def test_what_did_not_change_or_is_not_older_is_taken_as_it_is_told(told: Entry, accepts: bool) -> None:
    assert judged(told, NOW, accepts=accepts) is told
    assert judged(told, None, accepts=accepts) is told


def test_what_went_back_is_taken_with_a_mark_until_it_changes() -> None:
    taken = judged(RESTORED, NOW, accepts=True)
    assert (taken.version, taken.storage["codec"]) == ("v3", "zstd")
    assert not is_refused(taken)
    # Told again, it is the same; another subscriber is told the mark.
    assert judged(RESTORED, taken, accepts=True) == taken
    assert judged(taken, NOW, accepts=True).storage[WENT_BACK] == taken.storage[WENT_BACK]
    assert judged(LATER, taken, accepts=True) is LATER


def test_what_is_refused_stays_as_it_was_until_there_is_something_newer() -> None:
    kept = judged(RESTORED, NOW, accepts=False)
    assert kept.version == "v2"
    assert is_refused(kept)
    assert judged(replace(RESTORED, version="v5", mtime_ns=1_500), kept, accepts=False).version == "v2"
    assert judged(NOW, kept, accepts=False) is NOW
    assert judged(LATER, kept, accepts=False) is LATER
    taken = judged(RESTORED, kept, accepts=True)
    assert taken.version == "v3"
    assert not is_refused(taken)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def followed(store: CatalogStore, executor: ThreadPoolExecutor, *, accepts: bool, upstream: Any = None) -> FollowedRoot:
    return FollowedRoot("foo", cast("Any", upstream), store, executor, accepts_rollbacks=accepts)


def told(kind: str, entry: Entry) -> Any:
    page = CatalogPage("e", 2, (json.dumps(entry.to_json()),))
    batch = EventBatch("foo", "e", 2, 2, (Event("put", entry.path, entry),))
    return {
        "events": ApplyBatch(batch),
        "delta": UpdateReplica((page,), page.cursor),
        "listing": ReplaceReplica((page,), page.cursor),
    }[kind]


@pytest.mark.parametrize("kind", ["events", "delta", "listing"])
@pytest.mark.parametrize("later", [RESTORED, LATER])
@pytest.mark.parametrize("accepts", [True, False])
def test_it_is_listed_counted_and_said_however_it_is_heard_of(
    executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture, kind: str, later: Entry, accepts: bool
) -> None:
    store = CatalogStore(None, "foo")
    store.adopt([CatalogPage("e", 1, (json.dumps(NOW.to_json()),))])

    async def main() -> None:
        root = followed(store, executor, accepts=accepts)
        assert await root._keep(told(kind, later))
        assert root.nwent_back == (later is RESTORED)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert ("'a.b2nd' went back" in caplog.text) == (later is RESTORED)
    (listed,) = [known.entry for known in store.known()]
    assert listed == judged(later, NOW, accepts=accepts)
    assert store.cursor.seq == 2


def test_a_restart_remembers_the_marks_and_lists_everything_once_what_was_refused_is_accepted(
    executor: ThreadPoolExecutor,
) -> None:
    store = CatalogStore(None, "foo")
    store.adopt([CatalogPage("e", 1, (json.dumps(judged(RESTORED, NOW, accepts=False).to_json()),))])

    async def main(accepts: bool) -> bool:
        root = followed(store, executor, accepts=accepts)
        await root.start()
        assert root.nwent_back == 1
        is_behind = root.cursor is None
        for task in list(root._tasks):
            task.cancel()
        return is_behind

    assert not asyncio.run(main(accepts=False))
    assert asyncio.run(main(accepts=True))


def test_what_is_deleted_is_no_more_counted(executor: ThreadPoolExecutor) -> None:
    store = CatalogStore(None, "foo")
    store.adopt([CatalogPage("e", 1, (json.dumps(NOW.to_json()),))])

    async def main() -> None:
        root = followed(store, executor, accepts=False)
        await root._keep(told("events", RESTORED))
        await root._keep(ApplyBatch(EventBatch("foo", "e", 3, 3, (Event("delete", "a.b2nd"),))))
        assert root.nwent_back == 0

    asyncio.run(main())
    assert len(store) == 0


def test_of_what_is_refused_only_the_newer_state_is_read(executor: ThreadPoolExecutor) -> None:
    store = CatalogStore(None, "foo")
    store.adopt([CatalogPage("e", 1, (json.dumps(NOW.to_json()),))])
    asked: list[str | None] = []

    class Upstream:
        async def read_blocks(self, request: ReadRequest) -> None:
            asked.append(request.version)
            raise DatasetChangedError("version v2 is gone")

        async def read_file(self, path: str, start: int, stop: int | None) -> None:
            raise AssertionError("it has no version")

    async def main() -> None:
        root = followed(store, executor, accepts=False, upstream=Upstream())
        await root._keep(told("events", RESTORED))
        for path in ("a.b2nd", "a"):
            with pytest.raises(NotCachedError, match='rollbacks = "accept"'):
                await root.read_blocks(ReadRequest("foo", path))
            with pytest.raises(NotCachedError, match='rollbacks = "accept"'):
                await root.read_file(path, 0, None)

    asyncio.run(main())
    assert asked == ["v2", "v2"]
