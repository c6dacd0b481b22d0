"""``POST read-many``: answers one after the other, errors in their places, work that ends with the client."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.core.many_reads import MAX_READS, ManyParser
from caterva2_jupyter.core.selection import AxisRange, Selection
from caterva2_jupyter.core.wire import End, Preamble
from caterva2_jupyter.errors import DatasetChangedError, DatasetNotFoundError
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.memory_service import MemoryService
from tests.web.test_source_handlers import Memory, Served, serving


@pytest.fixture(scope="module")
def foo() -> Any:
    with serving(Memory()) as served:
        yield served


def versions(served: Served, *paths: str) -> list[str]:
    return [served.get(f"/api/v1/meta?path={path}").json()["version"] for path in paths]


def ids(body: bytes, count: int) -> list[str]:
    parser = ManyParser(count)
    items = list(parser.feed(body))
    parser.close()
    assert sum(isinstance(i, End) for i in items) == count
    return [i.id for i in items if isinstance(i, Preamble)]


def test_answers_come_in_the_order_of_the_reads(foo: Served) -> None:
    reads = [{"path": "foo/dir/days"}, {"path": "foo/text.bin"}, {"path": "foo/dir/days", "selection": [[0, 1, 1]] * 2}]
    answer = foo.post("/api/v1/read-many", {"reads": reads})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/vnd.caterva2.records"
    one, other, again = ids(answer.body, 3)
    assert one == again != other


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b'{"reads": []}', 400),
        (b'{"reads": [{"path": "foo/none"}]}', 404),
        (b'{"reads": [{"path": "none/none"}]}', 404),
        (b'{"reads": [{"path": "foo/dir/days"}, {"path": "none/none"}]}', 404),
        (b'{"reads": [{"path": "foo/dir/days", "version": "old"}]}', 409),
        (b'{"reads": [{"path": "foo/../x"}]}', 404),
        (b'{"reads": [' + b",".join([b'{"path": "foo/dir/days"}'] * (MAX_READS + 1)) + b"]}", 413),
        (b" " * (17 << 20), 413),
    ],
)
def test_a_request_that_cannot_be_answered_has_the_status_of_its_error(foo: Served, body: bytes, status: int) -> None:
    answer = foo.request("POST", "/api/v1/read-many", {"Content-Type": "application/json"}, body)
    assert answer.status in ((400, 404) if b".." in body else (status,))


def test_a_later_failure_comes_after_the_answers_before_it(foo: Served) -> None:
    reads = [{"path": "foo/dir/days"}, {"path": "foo/none"}, {"path": "foo/dir/days"}]
    answer = foo.post("/api/v1/read-many", {"reads": reads})
    assert answer.status == 200
    items: list[object] = []
    with pytest.raises(DatasetNotFoundError):
        items.extend(ManyParser(3).feed(answer.body))
    assert isinstance(items[-1], End)


def arrays(count: int) -> dict[str, Any]:
    return {f"a{i}.b2nd": np.arange(i, i + 100) for i in range(count)}


def reads_of(client: cat2.Client, count: int) -> list[Any]:
    entries = [client.entry(f"foo/a{i}.b2nd") for i in range(count)]
    return [("foo", entry, Selection((AxisRange(0, 100),))) for entry in entries]


def test_the_client_reads_many_by_one_request() -> None:
    with MemoryService({"foo": MemoryRoot(arrays(40))}) as service, cat2.connect(service.url) as client:
        reads = reads_of(client, 40)
        service.requests.clear()
        boxes = client._session.reader.read_many(reads)
        assert [r for r in service.requests if "cache" not in r] == ["POST read-many"]
        assert all(np.array_equal(box, np.arange(i, i + 100)) for i, box in enumerate(boxes))
        assert client._session.reader.read_many([]) == []


def test_what_fails_among_many_is_told_as_of_its_own_and_the_rest_is_not_asked_for_again() -> None:
    root = MemoryRoot(arrays(3))
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        reads = reads_of(client, 3)
        root.set("a1.b2nd", np.zeros(100))
        service.rescan()
        service.requests.clear()
        with pytest.raises(DatasetChangedError, match=r"foo/a1\.b2nd has changed since it was opened"):
            client._session.reader.read_many(reads)
        assert [r for r in service.requests if "cache" not in r] == ["POST read-many", "POST read"]


def test_a_service_without_the_route_is_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from caterva2_jupyter.client.service import Service
    from caterva2_jupyter.client.transport import NoSuchRouteError

    def absent(*args: object) -> Any:
        raise NoSuchRouteError("no such route")

    monkeypatch.setattr(Service, "read_many", absent)
    with MemoryService({"foo": MemoryRoot(arrays(3))}) as service, cat2.connect(service.url) as client:
        boxes = client._session.reader.read_many(reads_of(client, 3))
        assert all(np.array_equal(box, np.arange(i, i + 100)) for i, box in enumerate(boxes))
