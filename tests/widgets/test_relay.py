"""A kernel passes on what a viewer may ask for, and nothing else; answers are whole, bounded, or a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.widgets.relay import MAX_WAITING, Relay, allowed
from tests.client.memory_service import MemoryService
from tests.processes import wait_for


class Browser:
    """The other end of the comm."""

    def __init__(self, url: str, **options: Any) -> None:
        self.client = cat2.connect(url)
        self.answers: dict[int, tuple[Mapping[str, Any], bytes]] = {}
        self.events: list[Mapping[str, Any]] = []
        self.relay = Relay(self.client._session.service, self._take, **options)

    def _take(self, message: Mapping[str, Any], buffers: list[bytes]) -> None:
        json.dumps(message)
        if "events" in message:
            self.events.append(message["message"])
        else:
            assert message["id"] not in self.answers
            self.answers[message["id"]] = message, b"".join(buffers)

    def ask(self, path: object, method: str = "GET", number: int = 1, headers: object = None) -> tuple[int, Any]:
        self.relay.receive({"id": number, "method": method, "path": path, "headers": headers})
        wait_for(lambda: number in self.answers, message=f"an answer to {path}")
        message, body = self.answers.pop(number)
        is_json = message["headers"].get("content-type", "").startswith("application/json")
        return message["status"], json.loads(body) if is_json else body

    def close(self) -> None:
        self.relay.close()
        self.client.close()


Connect = Callable[..., Browser]


@pytest.fixture
def connect(service: MemoryService) -> Iterator[Connect]:
    made: list[Browser] = []

    def make(url: str = service.url, **options: Any) -> Browser:
        made.append(Browser(url, **options))
        return made[-1]

    yield make
    for browser in made:
        browser.close()


def test_what_a_viewer_needs_is_passed_on(connect: Connect) -> None:
    browser = connect()
    status, entry = browser.ask("api/v1/meta?path=foo%2Fcube.b2nd")
    assert (status, entry["path"]) == (200, "cube.b2nd")
    status, page = browser.ask("api/v1/roots/foo/catalog?under=many&depth=1&limit=3")
    assert (status, len(page["items"])) == (200, 3)
    status, text = browser.ask("api/v1/file?path=foo%2Fnotes.txt")
    assert (status, text) == (200, b"some notes\n" * 3)


def test_the_head_of_a_file_that_is_too_large_for_all_of_it_is_passed_on(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("caterva2_jupyter.widgets.relay.MAX_FILE_NBYTES", 1000)
    browser = connect()
    path = "api/v1/file?path=foo%2Flong.txt"
    assert browser.ask(path)[0] == 413
    assert browser.ask(path, headers={"Range": "bytes=0-99999"})[0] == 413
    assert browser.ask(path, headers={"Range": "bytes=0-29"}) == (206, b"a line of text\n" * 2)
    for wrong in ("bytes=-5", "bytes=0-9\r\nX: y", 5, "items=0-9"):
        assert browser.ask(path, headers={"Range": wrong})[0] == 413
    status, entry = browser.ask("api/v1/meta?path=foo%2Fcube.b2nd", headers={"Range": "bytes=0-1", "Cookie": "x"})
    assert (status, entry["path"]) == (200, "cube.b2nd")


@pytest.mark.parametrize(
    "path",
    [
        "api/v1/cache/location", "api/v1/read", "api/v1/areas", "api/v1/events", "http://elsewhere/api/v1/meta",
        "//elsewhere/api/v1/meta", "/api/v1/meta", "api/v1/../v1/meta", "api/v1/roots/a/../../cache/catalog",
        "api/v1/meta/../../auth", "api/v1/meta\r\nX: y", "displays/../x.js", "api/v1/roots/a/b/catalog", "", None, 7,
        "api/v1/meta#x", "api/v1/meta" + "?" + "x" * 20_000, "static/viewer.js", "API/v1/meta",
        "api/v1/roots/%zz/catalog", "api/v1/roots/%2e%2e/catalog", "api/v1/roots/a%2Fb/catalog",
        "api/v1/roots/../catalog",
    ],
)  # fmt: skip
def test_nothing_else_is_passed_on(connect: Connect, service: MemoryService, path: object) -> None:
    service.requests.clear()
    status, error = connect().ask(path)
    assert (status, error["error"]) == (403, "AccessDeniedError")
    assert not service.requests


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "get", "", None])
def test_nothing_is_changed(connect: Connect, service: MemoryService, method: str) -> None:
    service.requests.clear()
    assert connect().ask("api/v1/meta?path=foo", method)[0] == 403
    assert not service.requests


def test_parameters_stay_parameters() -> None:
    assert allowed("GET", "api/v1/meta?path=a%26b%3Dc%2F..%2Fd") == ("/api/v1/meta", {"path": "a&b=c/../d"})
    assert allowed("GET", "api/v1/roots/%40public/catalog")[0] == "/api/v1/roots/%40public/catalog"
    assert allowed("GET", "displays/tomography.js?v=1") == ("/displays/tomography.js", {"v": "1"})


def test_errors_are_those_of_the_service(connect: Connect, service: MemoryService) -> None:
    browser = connect()
    status, error = browser.ask("api/v1/meta?path=foo/nothing")
    assert (status, error["error"]) == (404, "DatasetNotFoundError")
    away = connect("http://127.0.0.1:9")
    status, error = away.ask("api/v1/meta?path=foo")
    assert status >= 500
    assert "cannot reach" in error["detail"]


def test_an_answer_that_is_too_large_is_not_sent(connect: Connect) -> None:
    status, error = connect(max_nbytes=10).ask("api/v1/file?path=foo%2Fnotes.txt")
    assert (status, error["error"]) == (413, "TooLargeError")


def test_what_is_no_message_is_passed_over(connect: Connect) -> None:
    browser = connect()
    for message in (
        None,
        [],
        "x",
        {},
        {"id": "1", "path": "api/v1/meta"},
        {"id": True, "abort": 1},
        {"id": 5, "abort": 1},
    ):
        browser.relay.receive(message)
    browser.relay.receive({"listen": "../x"})
    browser.relay.receive({"unlisten": "never"})
    assert browser.ask("api/v1/roots")[0] == 200
    assert not browser.answers


class _Held:
    """A service whose requests wait until they are let go."""

    def __init__(self) -> None:
        import threading

        self.go = threading.Event()
        self.begun = 0
        self.transport = self

    def request(self, *_: Any, **__: Any) -> Any:
        self.begun += 1
        assert self.go.wait(20)
        raise cat2.NotFoundError("late")


def test_what_is_aborted_is_not_answered_and_too_many_are_refused() -> None:
    service, told = _Held(), []
    relay = Relay(service, lambda message, buffers: told.append(message))  # type: ignore[arg-type]
    for number in range(MAX_WAITING):
        relay.receive({"id": number, "method": "GET", "path": "api/v1/roots"})
    relay.receive({"id": 999, "method": "GET", "path": "api/v1/roots"})
    assert [(message["id"], message["status"]) for message in told] == [(999, 429)]
    relay.receive({"id": 0, "method": "GET", "path": "api/v1/roots"})
    assert told[-1]["status"] == 400
    told.clear()
    for number in range(MAX_WAITING - 1):
        relay.receive({"id": number, "abort": True})
    service.go.set()
    wait_for(lambda: told, message="the one that was not aborted")
    assert [(message["id"], message["status"]) for message in told] == [(MAX_WAITING - 1, 404)]
    assert service.begun <= 5
    relay.close()
    relay.receive({"id": 1, "method": "GET", "path": "api/v1/roots"})
    assert len(told) == 1


def test_events_are_told_until_nobody_listens(connect: Connect) -> None:
    root = MemoryRoot({"x.b2nd": np.arange(3)})
    with MemoryService({"bar": root}) as service:
        browser = connect(service.url)
        browser.relay.receive({"listen": "bar"})
        wait_for(lambda: any("event-lines" in r for r in service.requests), message="it listens")
        root.set("x.b2nd", np.arange(4))
        service.rescan()
        wait_for(lambda: any(m.get("events") for m in browser.events), message="the change")
        (event,) = next(m for m in browser.events if m.get("events"))["events"]
        assert (event["change"], event["path"], event["entry"]["geometry"]["shape"]) == ("put", "x.b2nd", [4])
        browser.relay.receive({"unlisten": "bar"})
        told = len(browser.events)
        root.set("x.b2nd", np.arange(5))
        service.rescan()
        assert browser.ask("api/v1/meta?path=bar/x")[1]["geometry"]["shape"] == [5]
        assert len(browser.events) == told


def test_a_viewer_passes_its_messages_to_the_kernel(client: cat2.Client) -> None:
    pytest.importorskip("anywidget")
    viewer = client["foo/cube"].view(height=300)
    sent: list[tuple[Any, Any]] = []
    viewer.send = lambda content, buffers=None: sent.append((content, buffers))  # type: ignore[method-assign]
    assert (viewer.path, viewer.height, repr(viewer)) == ("foo/cube.b2nd", 300, "<Viewer of foo/cube.b2nd>")
    viewer._handle_custom_msg({"id": 3, "method": "GET", "path": "api/v1/meta?path=foo/cube"}, [])
    wait_for(lambda: sent, message="an answer")
    assert (sent[0][0]["id"], sent[0][0]["status"]) == (3, 200)
    assert client["foo"].view().path == "foo"
    viewer.close()
    with pytest.raises(Exception, match="theme"):
        client["foo/cube"].view(theme="pink")
