"""``POST reduce``: the result in pieces, words that it is at work before them, errors with their status."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
import urllib3

import caterva2_jupyter as cat2
from caterva2_jupyter.core.reduce_request import ReduceRequest, Working
from caterva2_jupyter.errors import error_from_json
from caterva2_jupyter.storage import reducing
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.storage.threaded_source import ThreadedSource
from caterva2_jupyter.subscriber.remote_source import RemoteSource
from caterva2_jupyter.testing import read_array, reduce_array
from caterva2_jupyter.web.outgoing_session import open_session
from tests.client.memory_service import MemoryService

ARRAY = np.arange(40_000, dtype="f4").reshape(200, 200)


@pytest.fixture
def service() -> Any:
    root = MemoryRoot({})
    root.set("a.b2nd", ARRAY, chunks=(20, 200), blocks=(10, 50))
    with MemoryService({"foo": root}) as running:
        yield running


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Reductions take a second, and say three times that they are at work; gives those that were given up."""
    stopped: list[int] = []

    async def run(self: Any) -> Any:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            stopped.append(1)
            raise
        return await original(self)

    original = reducing._Work.run
    monkeypatch.setattr(reducing._Work, "run", run)
    monkeypatch.setattr(reducing, "WORKING_S", 0.3)
    return stopped


def post(service: MemoryService, form: Any) -> tuple[int, Any]:
    body = form if isinstance(form, bytes) else json.dumps(form).encode()
    answer = urllib3.request("POST", f"{service.url}/api/v1/reduce", body=body, retries=False)
    return answer.status, answer.data if answer.status == 200 else error_from_json(
        json.loads(answer.data), answer.status
    )


@pytest.mark.parametrize(
    ("form", "status"),
    [
        (b"not json", 400),
        ({"path": "foo/a", "op": "median"}, 400),
        ({"path": "foo/a", "op": "sum", "axis": [2]}, 400),
        ({"path": "foo/a", "op": "sum", "selection": [[0, 1, 1]]}, 400),
        ({"path": "foo/none", "op": "sum"}, 404),
        ({"path": "bar/a", "op": "sum"}, 404),
        ({"path": "foo/../a", "op": "sum"}, 404),
        ({"path": "foo/a", "op": "sum", "version": "old"}, 409),
        ({"path": "foo/a", "op": "sum", "dtype": "M8[s]"}, 400),
    ],
)
def test_what_cannot_be_reduced_is_refused_with_its_status(service: MemoryService, form: Any, status: int) -> None:
    got, error = post(service, form)
    assert got == status, error
    assert "\n" not in str(error)


def test_a_reduction_that_takes_long_meets_no_deadline(service: MemoryService, slow: list[int]) -> None:
    told: list[tuple[int, int]] = []
    with cat2.connect(service.url, progress_timeout_s=0.6) as client:
        got = client["foo/a"].sum(dtype="f8", progress=lambda done, total: told.append((done, total)))
        assert got == ARRAY.sum(dtype="f8")
    assert told
    assert {total for _, total in told} == {ARRAY.nbytes}

    async def through_a_link() -> None:
        async with open_session(service.url) as session:
            source = RemoteSource("foo", service.url, session, stall_s=0.6)
            assert (await reduce_array(source, "a", "max")) == 39_999

    asyncio.run(through_a_link())


def test_whoever_goes_away_stops_the_work(service: MemoryService, slow: list[int]) -> None:
    async def scenario() -> None:
        async with open_session(service.url) as session:
            source = RemoteSource("foo", service.url, session)
            entry = await source.entry("a")
            stream = await source.reduce(ReduceRequest("foo", entry.path, "sum", entry.version))
            assert isinstance(await anext(stream.records), Working)
            await stream.records.aclose()  # type: ignore[attr-defined]
            async with asyncio.timeout(60):
                while not slow:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_reads_get_their_turn_while_it_is_worked_on(service: MemoryService, slow: list[int]) -> None:
    source = service.directory.source("foo")
    assert isinstance(source, ThreadedSource)

    async def scenario() -> np.ndarray:
        tasks = [asyncio.create_task(reduce_array(source, "a", "sum")) for _ in range(5)]
        box = await read_array(source, "a")
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return box

    np.testing.assert_array_equal(service.run(scenario()), ARRAY)
