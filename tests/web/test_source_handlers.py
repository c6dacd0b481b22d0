"""REST v1 as it is seen from a socket, over arrays in memory."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.web import Application

from caterva2_jupyter.core.assembly import Assembler
from caterva2_jupyter.core.blocks import BlockRecord, checksum_seed
from caterva2_jupyter.core.catalog import CatalogPage, CatalogQuery, Cursor
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.codec import encode_chunk
from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.core.selection import parse_basic
from caterva2_jupyter.core.source import BlockStream, FileStream, Source
from caterva2_jupyter.core.wire import End, Preamble, ReadRequest, RecordParser, pack_held
from caterva2_jupyter.errors import DatasetChangedError, IntegrityError, ResyncError, RootNotFoundError
from caterva2_jupyter.storage.catalog_store import CatalogStore
from caterva2_jupyter.storage.event_hub import EventHub
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.storage.threaded_source import ThreadedSource
from caterva2_jupyter.web import source_handlers
from caterva2_jupyter.web.access import NetworkToken, Open, RequestGuard
from caterva2_jupyter.web.caps import ClientCap
from caterva2_jupyter.web.service import HealthHandler, Route, ServiceHandler, make_application
from caterva2_jupyter.web.source_handlers import (
    AnnounceAnswers,
    Limits,
    bind,
    is_socket,
)
from caterva2_jupyter.web.source_routes import ANNOUNCE_ROUTE, SOURCE_ROUTES
from tests.processes import wait_for
from tests.web.serving import Served

DAYS = np.arange(60 * 70, dtype="<f4").reshape(60, 70)
TEXT = bytes(range(256)) * 40
ODD_NAME = 'a b+c%2f?#"\n\x01é.txt'


class Memory:
    """A directory of roots in memory, one of which is ``foo``."""

    def __init__(self, heartbeat_s: float = 5) -> None:
        self.heartbeat_s = heartbeat_s
        self.sources: dict[str, Source] = {}
        self.online: asyncio.Queue[bool] | None = None

    async def begin(self) -> None:
        self.hub, self.executor = EventHub(), ThreadPoolExecutor(4)
        self.root = MemoryRoot({"dir/days.b2nd": DAYS, "text.bin": TEXT, ODD_NAME: b"odd", "empty.bin": b""})
        self.store = CatalogStore(None, "foo")
        self.foo = ThreadedSource("foo", self.root, self.store, self.hub, self.executor, self.heartbeat_s)
        self.sources["foo"] = self.foo
        await self.foo.scan()

    async def end(self) -> None:
        self.executor.shutdown()
        self.store.close()

    async def roots(self) -> list[dict[str, Any]]:
        return [{"name": name} for name in self.sources]

    def source(self, root: str) -> Source:
        if root not in self.sources:
            raise RootNotFoundError(f"no root {root!r}")
        return self.sources[root]

    async def announce(self, root: str, path: str) -> None:
        self.source(root)
        await self.foo.scan()


def make_routes(memory: Memory, limits: Limits, policy: Any) -> list[Route]:
    directory = {"sources": memory, "limits": limits, "policy": policy}
    routes: list[Route] = [(p, bind(answers, ServiceHandler), directory) for p, answers in SOURCE_ROUTES]
    routes.append((ANNOUNCE_ROUTE, bind(AnnounceAnswers, ServiceHandler), {**directory, "announcer": memory}))
    routes.append((r"/api/v1/health", HealthHandler, {"service": "test"}))
    return routes


def serving(
    memory: Memory, limits: Limits | None = None, policy: Any = None, settings: dict[str, Any] | None = None
) -> Served:
    async def make() -> Application:
        await memory.begin()
        guard = RequestGuard(frozenset({"localhost"}))
        return make_application(make_routes(memory, limits or Limits(), policy or Open()), guard, settings or {})

    return Served(make, memory.end)


@pytest.fixture(scope="module")
def foo() -> Iterator[Served]:
    with serving(Memory()) as served:
        yield served


def read(served: Served, form: dict[str, Any]) -> tuple[Preamble, list[BlockRecord]]:
    answer = served.post("/api/v1/read", form)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/vnd.caterva2.records"
    return parse(answer.body)


def parse(body: bytes) -> tuple[Preamble, list[BlockRecord]]:
    parser = RecordParser()
    preamble, *records, end = parser.feed(body)
    parser.close()
    assert isinstance(preamble, Preamble)
    assert isinstance(end, End)
    return preamble, [r for r in records if isinstance(r, BlockRecord)]


# What is there


def test_roots_and_health_are_told(foo: Served) -> None:
    assert foo.get("/api/v1/roots").json() == {"roots": [{"name": "foo"}]}
    assert foo.get("/api/v1/health").json() == {"status": "ok", "service": "test"}


def test_a_catalog_comes_in_pages_that_hold_every_entry_once(foo: Served) -> None:
    paths: list[str] = []
    after = ""
    while True:
        answer = foo.get(f"/api/v1/roots/foo/catalog?limit=2&after={after}")
        page = CatalogPage.from_json(answer.json())
        paths += [entry.path for entry in page.entries()]
        if page.next is None:
            break
        after = page.next
    assert paths == sorted({"dir", "dir/days.b2nd", "text.bin", ODD_NAME, "empty.bin"})


def test_a_catalog_that_the_client_has_is_not_sent_again(foo: Served) -> None:
    first = foo.get("/api/v1/roots/foo/catalog?depth=1")
    again = foo.get("/api/v1/roots/foo/catalog?depth=1", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    other = foo.get("/api/v1/roots/foo/catalog?depth=2", If_None_Match=first.headers["ETag"])
    assert other.status == 200


def test_a_large_listing_is_compressed_only_for_those_who_accept_it() -> None:
    memory = Memory()
    with serving(memory) as served:
        for i in range(3000):
            memory.root.set(f"many/{i:05}.bin", b"x")
        served.call(memory.foo.scan())
        plain = served.get("/api/v1/roots/foo/catalog?limit=5000")
        assert "Content-Encoding" not in plain.headers
        packed = served.get("/api/v1/roots/foo/catalog?limit=5000", Accept_Encoding="br, gzip")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert len(packed.body) < len(plain.body) / 5
        assert gzip.decompress(packed.body) == plain.body
        refused = served.get("/api/v1/roots/foo/catalog?limit=5000", Accept_Encoding="gzip;q=0")
        assert refused.body == plain.body


def test_a_delta_holds_what_changed_and_an_old_cursor_means_listing_again() -> None:
    memory = Memory()
    with serving(memory) as served:
        cursor = CatalogPage.from_json(served.get("/api/v1/roots/foo/catalog").json()).cursor
        memory.root.set("new.bin", b"new")
        memory.root.delete("text.bin")
        served.call(memory.foo.scan())
        delta = CatalogPage.from_json(served.get(f"/api/v1/roots/foo/catalog?since={cursor}").json())
        assert [e.path for e in delta.entries()] == ["new.bin"]
        assert delta.deleted == ("text.bin",)
        gone = served.get("/api/v1/roots/foo/catalog?since=another:1")
        assert (gone.status, gone.json()["error"]) == (410, "ResyncError")


@pytest.mark.parametrize("path", ["dir/days.b2nd", "dir/days"])
def test_an_entry_is_found_with_or_without_its_suffix(foo: Served, path: str) -> None:
    answer = foo.get(f"/api/v1/meta?path=foo/{path}")
    form = answer.json()
    assert form.pop("root") == "foo"
    entry = Entry.from_json(form)
    assert entry.geometry is not None
    assert entry.geometry.shape == DAYS.shape
    again = foo.get(f"/api/v1/meta?path=foo/{path}", If_None_Match=answer.headers["ETag"])
    assert again.status == 304


def test_a_root_itself_is_a_group(foo: Served) -> None:
    for address in ("foo", "foo/"):
        assert foo.get(f"/api/v1/meta?path={address}").json() == {"root": "foo", "path": "", "kind": "group"}


def test_odd_names_are_taken_as_they_are(foo: Served) -> None:
    quoted = "".join(f"%{b:02x}" for b in ODD_NAME.encode())
    assert foo.get(f"/api/v1/meta?path=foo/{quoted}").json()["path"] == ODD_NAME
    answer = foo.get(f"/api/v1/file?path=foo/{quoted}")
    assert answer.body == b"odd"
    disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith('attachment; filename="a b+c_2f___')
    assert disposition.isascii()
    assert disposition.endswith(".txt")


# Blocks

KEYS: list[Any] = [
    (),
    (slice(3, 50, 7), slice(None)),
    (5, slice(60, 2, -3)),
    (slice(0, 0),),
    (-1, -1),
]


@pytest.mark.parametrize("key", KEYS)
def test_a_read_gives_what_numpy_gives(foo: Served, key: Any) -> None:
    parsed = parse_basic(key, DAYS.shape)
    preamble, records = read(foo, {"path": "foo/dir/days", "selection": parsed.selection.to_json()})
    assert preamble.entry is not None
    geometry = preamble.entry.geometry
    assert geometry is not None
    assembler = Assembler(geometry, parsed.selection)
    projections = {p.nchunk: p for p in BlockPlan(geometry, parsed.selection)}
    for record in records:
        assembler.add(projections[record.nchunk], record)
    np.testing.assert_array_equal(parsed.apply(assembler.out), DAYS[key])


def test_a_small_answer_has_a_length_and_one_of_a_version_no_entry(foo: Served) -> None:
    version = foo.get("/api/v1/meta?path=foo/dir/days").json()["version"]
    answer = foo.post("/api/v1/read", {"path": "foo/dir/days", "version": version, "selection": [[0, 1, 1], [0, 1, 1]]})
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    preamble, records = parse(answer.body)
    assert preamble.version == version
    assert preamble.entry is None
    assert len(records) == 1


def test_held_blocks_and_those_outside_of_the_window_are_not_sent(foo: Served) -> None:
    _, records = read(foo, {"path": "foo/dir/days"})
    nblocks = sum(len(r.ids) for r in records)
    held = np.ones(nblocks, bool)
    _, none = read(foo, {"path": "foo/dir/days", "held": pack_held(held)})
    assert none == []
    _, first = read(foo, {"path": "foo/dir/days", "window": [0, 1]})
    assert [len(r.ids) for r in first] == [1]


def test_another_version_than_the_one_served_is_a_conflict(foo: Served) -> None:
    answer = foo.post("/api/v1/read", {"path": "foo/dir/days", "version": "old"})
    assert (answer.status, answer.json()["error"]) == (409, "DatasetChangedError")


def test_what_cannot_be_read_is_told_with_the_reason(foo: Served) -> None:
    assert foo.post("/api/v1/read", {"path": "foo/dir"}).status == 422
    assert foo.post("/api/v1/read", {"path": "foo/none"}).status == 404
    assert foo.post("/api/v1/read", {"path": "bar/none"}).status == 404
    assert foo.post("/api/v1/read", {"path": "foo/dir/days", "selection": [[0, 100, 1], [0, 1, 1]]}).status == 400


MALFORMED: list[bytes] = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"{}",
    b"\xff\xfe\x00",
    b"\x93NUMPY",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"path":"foo/dir/days","path":"foo/text.bin"}',
    b'{"path":"foo/dir/days","x":1}',
    b'{"path":["foo"]}',
    b'{"path":"foo/dir/days","version":1}',
    b'{"path":"foo/dir/days","window":[1,0]}',
    b'{"path":"foo/dir/days","window":[0,1e9]}',
    b'{"path":"foo/dir/days","window":[0,99999999999999999999]}',
    b'{"path":"foo/dir/days","window":"x"}',
    b'{"path":"foo/dir/days","held":"!"}',
    b'{"path":"foo/dir/days","held":""}',
    b'{"path":"foo/dir/days","held":{}}',
    b'{"path":"foo/dir/days","mode":"eval"}',
    b'{"path":"foo/dir/days","selection":{}}',
    b'{"path":"foo/dir/days","selection":[[0,1,0],[0,1,1]]}',
    b'{"path":"foo/dir/days","selection":[[true,1,1],[0,1,1]]}',
    b'{"path":"foo/dir/days","selection":[[0,1e3,1],[0,1,1]]}',
    b'{"path":"foo/dir/days","selection":[{"at":[2,1]},[0,1,1]]}',
    b'{"path":"foo/dir/days","selection":' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"path":"foo/dir/days","window":[0,' + b"9" * 5000 + b"]}",
    b'{"path":"foo/\\ud800"}',
    b'{"path":"\\ud800/x"}',
    b'{"path":"foo/dir/days","version":"\\ud800"}',
]


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_read_is_refused_at_once_and_gives_nothing_away(foo: Served, body: bytes) -> None:
    begun = time.monotonic()
    answer = foo.post("/api/v1/read", body)
    assert 400 <= answer.status < 500
    assert set(answer.json()) == {"detail", "error"}
    assert b"Traceback" not in answer.body
    assert time.monotonic() - begun < 5


def test_a_read_request_that_is_too_large_is_refused(foo: Served) -> None:
    answer = foo.post("/api/v1/read", b" " * (17 << 20))
    assert (answer.status, answer.json()["error"]) == (413, "TooLargeError")


def test_headers_without_end_are_refused(foo: Served) -> None:
    with socket.create_connection(("localhost", foo.port), timeout=10) as connection:
        sent = 0
        try:
            connection.sendall(b"GET /api/v1/health HTTP/1.1\r\n")
            while sent < 10 << 20:
                sent += connection.send(b"X-Filler: " + b"x" * 8000 + b"\r\n")
            connection.settimeout(5)
            assert connection.recv(1000) == b""
        except ConnectionError:
            pass
        assert sent < 10 << 20
    assert foo.get("/api/v1/health").status == 200


@given(st.binary(max_size=300))
def test_no_body_makes_an_error_of_ours(foo: Served, body: bytes) -> None:
    assert 400 <= foo.post("/api/v1/read", body).status < 500


# A source whose records the test makes

GEOMETRY = Geometry((1000, 1 << 20), (1, 1 << 20), (1, 1 << 20), np.dtype("u1"))
BIG = Entry("big.b2nd", "array", id="big", version="v1", geometry=GEOMETRY)


class Scripted:
    """One dataset of 1000 incompressible chunks; what happens at each is up to the test."""

    root = "bar"

    def __init__(self, at: Callable[[int], object] = lambda nchunk: None) -> None:
        self.at = at
        self.nread = 0
        self.is_closed = threading.Event()
        noise = np.random.default_rng(1).integers(0, 256, 1 << 20, np.uint8).tobytes()
        self.seed = checksum_seed(BIG.id, BIG.version)
        self.record = encode_chunk(self.seed, 0, noise, GEOMETRY)

    async def entry(self, path: str) -> Entry:
        return BIG

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        raise NotImplementedError

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        return BlockStream(BIG, self._records())

    async def _records(self) -> AsyncIterator[BlockRecord]:
        try:
            for nchunk in range(1000):
                self.nread += 1
                await asyncio.sleep(0)
                self.at(nchunk)
                yield self.record
        finally:
            self.is_closed.set()

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        return FileStream(1000 << 20, "v1", 0, self._parts(start == stop == 0))

    async def _parts(self, is_probe: bool) -> AsyncIterator[bytes]:
        try:
            for number in range(0 if is_probe else 1000):
                self.nread += 1
                await asyncio.sleep(0)
                self.at(number)
                yield b"x" * (1 << 20)
        finally:
            if not is_probe:
                self.is_closed.set()

    async def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        if since is not None:
            raise ResyncError("too old")
        number = 0
        try:
            while True:
                number += 1
                self.nread += 1
                await asyncio.sleep(0)
                entry = Entry("x" * 4000, "group")
                yield EventBatch("bar", "e", number, number, (Event("put", entry.path, entry),))
        finally:
            self.is_closed.set()


def serving_scripted(source: Scripted, limits: Limits | None = None) -> Served:
    memory = Memory()
    memory.sources["bar"] = source
    return serving(memory, limits)


def test_an_error_at_the_first_record_is_a_status() -> None:
    def changed(nchunk: int) -> None:
        raise DatasetChangedError("gone")

    with serving_scripted(Scripted(changed)) as served:
        assert served.post("/api/v1/read", {"path": "bar/big"}).status == 409


def test_an_error_in_the_midst_is_raised_by_the_parser() -> None:
    def changed(nchunk: int) -> None:
        if nchunk == 3:
            raise DatasetChangedError("gone meanwhile")

    with serving_scripted(Scripted(changed)) as served:
        answer = served.post("/api/v1/read", {"path": "bar/big"})
        assert answer.status == 200
        with pytest.raises(DatasetChangedError, match="gone meanwhile"):
            RecordParser().feed(answer.body)


def test_a_defect_in_the_midst_leaves_an_answer_that_is_seen_to_be_cut(caplog: pytest.LogCaptureFixture) -> None:
    def fail(nchunk: int) -> None:
        if nchunk == 3:
            raise ZeroDivisionError

    with serving_scripted(Scripted(fail)) as served:
        answer = served.post("/api/v1/read", {"path": "bar/big"})
        parser = RecordParser()
        parser.feed(answer.body)
        with pytest.raises(IntegrityError, match="cut short"):
            parser.close()


def test_a_defect_is_told_without_its_traceback() -> None:
    def fail(nchunk: int) -> None:
        raise ZeroDivisionError("secret detail")

    with serving_scripted(Scripted(fail)) as served:
        answer = served.post("/api/v1/read", {"path": "bar/big"})
        assert (answer.status, answer.json()) == (500, {"detail": "Internal Server Error"})


def slow_client(served: Served, request: bytes) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    connection.connect(("127.0.0.1", served.port))
    connection.sendall(request)
    return connection


READ_BIG = b'POST /api/v1/read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n{"path":"bar/big"}'
GET_BIG = b"GET /api/v1/file?path=bar/big HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("request_bytes", [READ_BIG, GET_BIG], ids=["read", "file"])
def test_a_client_that_does_not_read_stops_the_source_and_one_that_goes_ends_it(request_bytes: bytes) -> None:
    source = Scripted()
    with serving_scripted(source) as served:
        with slow_client(served, request_bytes):
            wait_for(lambda: source.nread > 0)
            seen = -1

            def is_still() -> bool:
                nonlocal seen
                before, seen = seen, source.nread
                time.sleep(0.05)
                return before == seen

            wait_for(is_still)
            assert source.nread < 30
            assert served.get("/api/v1/health").status == 200
        assert source.is_closed.wait(5)


def test_a_client_that_goes_while_the_source_waits_ends_it() -> None:
    source = Scripted()
    begun = threading.Event()

    async def records() -> AsyncIterator[BlockRecord]:
        try:
            begun.set()
            await asyncio.sleep(3600)
            yield source.record
        finally:
            source.is_closed.set()

    source._records = records  # type: ignore[method-assign]
    with serving_scripted(source) as served:
        with slow_client(served, READ_BIG):
            assert begun.wait(5)
        assert source.is_closed.wait(5)


def test_reads_at_once_of_one_client_have_a_cap() -> None:
    source = Scripted()
    limits = Limits(reads=ClientCap("reads", 2, 10))
    with serving_scripted(source, limits) as served:
        with slow_client(served, READ_BIG), slow_client(served, READ_BIG):
            wait_for(lambda: limits.reads._total == 2)
            answer = served.post("/api/v1/read", {"path": "bar/big"})
            assert (answer.status, answer.json()["error"]) == (429, "TooManyRequestsError")
            assert answer.headers["Retry-After"] == "1"
        wait_for(lambda: limits.reads._total == 0)


@pytest.mark.parametrize("request_bytes", [READ_BIG, GET_BIG], ids=["read", "file"])
def test_a_client_that_takes_nothing_gives_its_place_to_others(
    request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_handlers, "STALLED_S", 0.1)
    source = Scripted()
    limits = Limits()
    with serving_scripted(source, limits) as served, slow_client(served, request_bytes) as client:
        assert source.is_closed.wait(20)
        wait_for(lambda: limits.reads._total == 0)
        client.settimeout(20)
        while client.recv(1 << 20):  # what was on its way, and then the end of the connection
            pass
        assert served.get("/api/v1/health").status == 200


# Files


@pytest.mark.parametrize(
    ("header", "expected"),
    [("bytes=0-9", (0, 10)), ("bytes=-5", (len(TEXT) - 5, len(TEXT))), ("bytes=100-", (100, len(TEXT)))],
)
def test_a_range_of_a_file(foo: Served, header: str, expected: tuple[int, int]) -> None:
    start, stop = expected
    answer = foo.get("/api/v1/file?path=foo/text.bin", Range=header)
    assert (answer.status, answer.body) == (206, TEXT[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(TEXT)}"


def test_a_file_is_a_download_whatever_it_holds(foo: Served) -> None:
    answer = foo.get("/api/v1/file?path=foo/text.bin")
    assert (answer.status, answer.body) == (200, TEXT)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    assert answer.headers["Content-Disposition"].startswith("attachment;")
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_many_ranges_are_answered_with_the_file_once(foo: Served) -> None:
    answer = foo.get("/api/v1/file?path=foo/text.bin", Range="bytes=" + ",".join(["0-"] * 1000))
    assert (answer.status, len(answer.body)) == (200, len(TEXT))


def test_a_range_behind_the_end_is_416_with_the_length(foo: Served) -> None:
    answer = foo.get("/api/v1/file?path=foo/text.bin", Range=f"bytes={len(TEXT)}-")
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(TEXT)}"


def test_an_empty_file_is_served(foo: Served) -> None:
    answer = foo.get("/api/v1/file?path=foo/empty.bin")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")


def test_conditions_on_a_file_follow_its_version(foo: Served) -> None:
    etag = foo.get("/api/v1/file?path=foo/text.bin").headers["ETag"]
    assert foo.get("/api/v1/file?path=foo/text.bin", If_None_Match=etag).status == 304
    assert foo.get("/api/v1/file?path=foo/text.bin", Range="bytes=0-1", If_Range=etag).status == 206
    assert foo.get("/api/v1/file?path=foo/text.bin", Range="bytes=0-1", If_Range='"old"').status == 200


def test_head_tells_the_length_without_the_bytes(foo: Served) -> None:
    answer = foo.request("HEAD", "/api/v1/file?path=foo/text.bin")
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, str(len(TEXT)), b"")


def test_a_file_that_changes_while_it_is_sent_is_cut_not_completed() -> None:
    def changed(number: int) -> None:
        if number == 5:
            raise DatasetChangedError("changed")

    with serving_scripted(Scripted(changed)) as served, pytest.raises(http.client.IncompleteRead):
        served.get("/api/v1/file?path=bar/big")


# A1: what is no path

TRAVERSALS = [
    "..",
    "../x",
    "dir/../../etc/passwd",
    "%2e%2e/x",
    "%2e%2e%2fetc%2fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "dir/..%2f..%2fx",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "..%5c..%5cwindows",
    "dir%5c..%5cx",
    "dir/%00",
    "text.bin%00.b2nd",
    "./text.bin",
    "dir/./days.b2nd",
    "dir//days.b2nd",
    "%ff%fe",
    "%c0%ae%c0%ae/x",
    "../foo-secret/x",
    "x" * 5000,
    "C:%5cx",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_what_is_no_path_is_not_found_on_any_route(foo: Served, path: str) -> None:
    absent = foo.get("/api/v1/meta?path=foo/absent")
    assert absent.status == 404
    for route in ("/api/v1/meta?path=foo/", "/api/v1/file?path=foo/"):
        answer = foo.get(route + path)
        assert answer.status in (404, 400), (route, answer.status)
        assert set(answer.json()) == set(absent.json())
        if "%ff" not in path and "%c0" not in path:
            assert answer.status == 404
    assert foo.get(f"/api/v1/roots/{path.replace('/', '%2f')}/catalog").status == 404
    assert foo.get(f"/api/v1/roots/foo/catalog?under={path}").status in (404, 400)
    assert foo.post(f"/api/v1/roots/{path.replace('/', '%2f')}/announce", {"path": "x"}).status == 404
    decoded = path.encode().replace(b"%2e", b".").replace(b"%2f", b"/").replace(b"%5c", b"\\").replace(b"%00", b"\0")
    text = json.dumps({"path": "foo/" + decoded.decode()})
    assert foo.post("/api/v1/read", text).status == 404
    target = f"/api/v1/events?root={path}"
    assert foo.get(target).status in (404, 400)


@pytest.mark.parametrize("target", ["/api/v1/../../etc/passwd", "/../x", "/%2e%2e/x", "//etc/passwd", "/api/v1/", "/"])
def test_what_is_no_route_is_not_found(foo: Served, target: str) -> None:
    answer = foo.get(target)
    assert (answer.status, answer.json()) == (404, {"detail": "Not Found"})


def test_a_method_that_a_route_has_not_is_405(foo: Served) -> None:
    assert foo.post("/api/v1/roots", {}).status == 405
    assert foo.get("/api/v1/read").status == 405
    assert foo.request("DELETE", "/api/v1/meta?path=foo").status == 405


def test_a_parameter_twice_is_refused(foo: Served) -> None:
    assert foo.get("/api/v1/meta?path=foo&path=foo/dir").status == 400


# A7 and A8: who may

TARGETS = [
    ("GET", "/api/v1/roots"),
    ("GET", "/api/v1/roots/foo/catalog"),
    ("GET", "/api/v1/meta?path=foo"),
    ("POST", "/api/v1/read"),
    ("POST", "/api/v1/read-many"),
    ("POST", "/api/v1/reduce"),
    ("GET", "/api/v1/file?path=foo/text.bin"),
    ("HEAD", "/api/v1/file?path=foo/text.bin"),
    ("GET", "/api/v1/files/foo/text.bin"),
    ("HEAD", "/api/v1/files/foo/text.bin"),
    ("GET", "/api/v1/chunks/id/version/0"),
    ("HEAD", "/api/v1/chunks/id/version/0"),
    ("GET", "/api/v1/events?root=foo"),
    ("GET", "/api/v1/event-lines?root=foo"),
    ("POST", "/api/v1/roots/foo/announce"),
]
SOCKET_HEADERS = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Served]:
    with serving(Memory(), policy=NetworkToken(["right"], ["other"])) as served:
        yield served


def test_the_matrix_has_every_route(foo: Served) -> None:
    patterns = [p for p, _ in SOURCE_ROUTES] + [ANNOUNCE_ROUTE]
    for pattern in patterns:
        assert any(re.fullmatch(pattern, target.partition("?")[0]) for _, target in TARGETS), pattern


@pytest.mark.parametrize(("method", "target"), TARGETS)
@pytest.mark.parametrize(
    ("authorization", "status"),
    [(None, 401), ("Bearer wrong", 401), ("Bearer ", 401), ("Basic right", 401), ("Bearer other", 403)],
)
def test_every_route_wants_the_token(
    guarded: Served, method: str, target: str, authorization: str | None, status: int
) -> None:
    headers = dict(SOCKET_HEADERS) if "events" in target else {}
    if authorization is not None:
        headers["Authorization"] = authorization
    for given_target in (target, f"{target}{'&' if '?' in target else '?'}token=right"):
        answer = guarded.request(method, given_target, headers, b"{}" if method == "POST" else None)
        assert answer.status == status
        if status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_without_the_token_absent_and_present_look_alike(guarded: Served) -> None:
    present, absent = (guarded.get(f"/api/v1/meta?path=foo/{p}") for p in ("text.bin", "absent"))
    assert (present.status, present.body) == (absent.status, absent.body)


def test_with_the_token_routes_answer(guarded: Served) -> None:
    assert guarded.get("/api/v1/roots", Authorization="Bearer right").status == 200
    assert guarded.get("/api/v1/health").status == 200


@pytest.mark.parametrize(("method", "target"), TARGETS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Origin": "http://localhost.evil.example"},
    ],
)
def test_what_a_foreign_page_makes_a_browser_send_is_refused(
    foo: Served, method: str, target: str, headers: dict[str, str]
) -> None:
    body = b'{"path":"foo/dir/days"}' if method == "POST" else None
    extra = SOCKET_HEADERS if "events" in target else {}
    answer = foo.request(method, target, {**extra, **headers}, body)
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("target", ["/api/v1/read", "/api/v1/roots/foo/announce"])
def test_a_form_of_another_site_is_refused(foo: Served, target: str) -> None:
    answer = foo.post(target, {"path": "foo/dir/days"}, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")
    assert answer.status == 403


def test_a_socket_from_another_site_is_refused(foo: Served) -> None:
    answer = foo.request("GET", "/api/v1/events?root=foo", {**SOCKET_HEADERS, "Sec-Fetch-Site": "cross-site"})
    assert answer.status == 403


def test_a_route_without_a_policy_or_a_guard_cannot_be_made() -> None:
    from tornado.web import RequestHandler

    answers = SOURCE_ROUTES[0][1]
    with pytest.raises(TypeError, match="guard"):
        bind(answers, RequestHandler)
    with pytest.raises(TypeError, match="not a ServiceHandler"):
        make_application([("/x", RequestHandler, {})], RequestGuard())
    guarded_verbs: list[str] = []

    def guard(verb: Callable[..., Any]) -> Callable[..., Any]:
        guarded_verbs.append(verb.__name__)
        return verb

    for _, each in SOURCE_ROUTES:
        bind(each, RequestHandler, guard)
    assert sorted(guarded_verbs) == [*["get"] * 8, *["head"] * 3, *["post"] * 3]
    assert [is_socket(each) for _, each in SOURCE_ROUTES].count(True) == 1


# Events


async def messages(served: Served, query: str, count: int, **kwargs: Any) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{served.url}/api/v1/events?{query}") as ws:
        return [json.loads((await ws.receive(timeout=10)).data) for _ in range(count)]


def test_a_change_is_told_to_listeners_in_order() -> None:
    memory = Memory()
    with serving(memory) as served:

        async def main() -> list[EventBatch]:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{served.url}/api/v1/events?root=foo") as ws,
            ):
                batches = [EventBatch.from_json(await ws.receive_json(timeout=10))]
                for number in range(3):
                    memory.root.set("new.bin", bytes([number]))
                    answer = await session.post(f"{served.url}/api/v1/roots/foo/announce", json={"path": "new.bin"})
                    assert answer.status == 200
                    batches.append(EventBatch.from_json(await ws.receive_json(timeout=10)))
                return batches

        batches = asyncio.run(main())
    assert batches[0].events == ()
    for before, after in itertools.pairwise(batches):
        assert after.follows(before.cursor)
        assert after.seq == before.seq + 1
        assert [e.path for e in after.events] == ["new.bin"]


def test_what_happened_since_a_cursor_is_told_first() -> None:
    memory = Memory()
    with serving(memory) as served:
        cursor = CatalogPage.from_json(served.get("/api/v1/roots/foo/catalog").json()).cursor
        memory.root.set("new.bin", b"new")
        served.call(memory.foo.scan())
        (first,) = asyncio.run(messages(served, f"root=foo&since={cursor}", 1))
    assert EventBatch.from_json(first).follows(cursor)
    assert [e["path"] for e in first["events"]] == ["new.bin"]


def test_a_cursor_of_another_life_means_listing_again(foo: Served) -> None:
    first, second = asyncio.run(messages(foo, "root=foo&since=another:3", 2))
    assert first == {"type": "resync", "root": "foo"}
    assert second["type"] == "events"


def test_a_listener_that_fell_behind_is_told_to_list_again() -> None:
    memory = Memory()
    with serving(memory) as served:

        async def main() -> list[dict[str, Any]]:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{served.url}/api/v1/events?root=foo") as ws,
            ):
                received = [await ws.receive_json(timeout=10)]
                served._loop.call_soon_threadsafe(memory.hub.resync)
                received += [await ws.receive_json(timeout=10) for _ in range(2)]
                return received

        received = asyncio.run(main())
    assert [m["type"] for m in received] == ["events", "resync", "events"]


def test_heartbeats_tell_the_cursor_when_nothing_happens() -> None:
    with serving(Memory(heartbeat_s=0.05)) as served:
        beats = asyncio.run(messages(served, "root=foo", 4))
    assert len({(b["epoch"], b["seq"]) for b in beats}) == 1
    assert all(b["events"] == [] for b in beats)


def test_a_root_that_goes_away_and_returns_is_told() -> None:
    class WithStatus(Memory):
        async def status(self, root: str) -> AsyncIterator[bool]:
            yield True
            yield False

    with serving(WithStatus()) as served:
        received = asyncio.run(messages(served, "root=foo", 3))
    assert [m["online"] for m in received if m["type"] == "status"] == [True, False]


def test_who_names_no_root_is_told_which_there_are_and_again_only_when_that_is_otherwise() -> None:
    class Changing(Memory):
        is_online = True
        last_seq = 0

        async def roots(self) -> list[dict[str, Any]]:
            return [{"name": "foo", "online": self.is_online, "seq": self.last_seq}]

        async def changes(self) -> AsyncIterator[None]:
            yield
            self.last_seq = 1  # no change of the root's standing
            yield
            self.is_online = False
            yield
            await asyncio.Event().wait()

    with serving(Changing()) as served:
        first, second = asyncio.run(messages(served, "", 2))
    assert first == {"type": "roots", "roots": [{"name": "foo", "online": True, "seq": 0}]}
    assert second == {"type": "roots", "roots": [{"name": "foo", "online": False, "seq": 1}]}


@pytest.mark.parametrize(
    ("query", "status"), [("root=bar", 404), ("", 404), ("root=foo&since=x", 400), ("root=..", 404)]
)
def test_events_of_nothing_are_refused_before_the_socket_opens(foo: Served, query: str, status: int) -> None:
    assert foo.request("GET", f"/api/v1/events?{query}", SOCKET_HEADERS).status == status


def test_listeners_at_once_of_one_client_have_a_cap() -> None:
    limits = Limits(events=ClientCap("listeners", 3, 10))
    with serving(Memory(), limits) as served:

        async def main() -> int:
            url = f"{served.url}/api/v1/events?root=foo"
            async with aiohttp.ClientSession() as session:
                held = [await session.ws_connect(url) for _ in range(3)]
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(url)
                for ws in held:
                    await ws.close()
                return refused.value.status

        assert asyncio.run(main()) == 429
        wait_for(lambda: limits.events._total == 0)
        asyncio.run(messages(served, "root=foo", 1))


def open_raw_socket(served: Served, target: str) -> socket.socket:
    """A listener that answers nothing, not even pings."""
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", *(f"{k}: {v}" for k, v in SOCKET_HEADERS.items()), "", ""]
    connection = slow_client(served, "\r\n".join(lines).encode())
    connection.settimeout(10)
    assert b"101" in connection.recv(20)
    return connection


def test_a_listener_that_does_not_read_stops_the_source_not_the_service() -> None:
    source = Scripted()
    with serving_scripted(source) as served:
        with open_raw_socket(served, "/api/v1/events?root=bar"):
            seen = -1

            def is_still() -> bool:
                nonlocal seen
                before, seen = seen, source.nread
                time.sleep(0.05)
                return before == seen

            wait_for(is_still)
            assert source.nread < 5000  # some MB in the sockets' buffers, whatever the system gives
            assert served.get("/api/v1/health").status == 200
        assert source.is_closed.wait(10)


def test_a_half_open_connection_is_noticed_and_let_go() -> None:
    memory = Memory()
    limits = Limits()
    # Tornado itself waits 5 s more for the answer to its goodbye.
    settings = {"websocket_ping_interval": 0.2, "websocket_ping_timeout": 0.2}
    with serving(memory, limits, settings=settings) as served, open_raw_socket(served, "/api/v1/events?root=foo"):
        wait_for(lambda: limits.events._total == 1)
        wait_for(lambda: limits.events._total == 0, 10)
        wait_for(lambda: memory.hub.nlisteners == 0)


def test_no_listener_is_left_when_clients_are_gone() -> None:
    memory = Memory()
    with serving(memory) as served:
        for _ in range(5):
            asyncio.run(messages(served, "root=foo", 1))
        wait_for(lambda: memory.hub.nlisteners == 0)
