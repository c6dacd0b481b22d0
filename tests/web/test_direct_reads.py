"""Small reads that a publisher answers before a handler is made: as it would there, and only for those who may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np
import pytest
from tornado.web import Application

from caterva2_jupyter.config import Config
from caterva2_jupyter.core.wire import RECORDS_TYPE, Preamble, RecordParser
from caterva2_jupyter.publisher.app import make_app
from caterva2_jupyter.publisher.publisher import Publisher
from caterva2_jupyter.web.direct_reads import MAX_BODY_NBYTES, DirectReads
from tests.web.serving import Answer, Served

GRID = np.arange(60 * 80, dtype="i4").reshape(60, 80)
READ = {"path": "foo/grid.b2nd", "selection": [[3, 4, 1], [5, 6, 1]]}


class Counted:
    """What was answered directly."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []


def serving(root: Path, statedir: Path, counted: Counted, token: str) -> Served:
    publishers: list[Publisher] = []

    async def make() -> Application:
        tables: dict[str, object] = {"publisher": {}, "network": {"token": token} if token else {"insecure": True}}
        config = Config(tables, "test.toml", {}).publisher(
            name="foo", root=str(root), http="localhost:0", statedir=str(statedir)
        )
        publishers.append(Publisher(config))
        await publishers[0].start()
        await publishers[0].scanned.wait()
        return make_app(publishers[0])

    async def stop() -> None:
        await publishers[0].stop()

    return Served(make, stop)


@pytest.fixture(params=["", "secret-token"])
def token(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted, real = Counted(), DirectReads.answer

    def answer(reads: DirectReads, body: bytes) -> bytes | None:
        found = real(reads, body)
        if found is not None:
            counted.bodies.append(found)
        return found

    monkeypatch.setattr(DirectReads, "answer", answer)
    return counted


@pytest.fixture
def foo(tmp_path: Path, counted: Counted, token: str) -> Iterator[Served]:
    (tmp_path / "root").mkdir()
    blosc2.asarray(GRID, chunks=(20, 40), blocks=(5, 10), urlpath=str(tmp_path / "root" / "grid.b2nd"))
    with serving(tmp_path / "root", tmp_path / "state", counted, token) as served:
        yield served


def ask(foo: Served, token: str, form: object = READ, **headers: str) -> Answer:
    if token:
        headers.setdefault("Authorization", f"Bearer {token}")
    return foo.post("/api/v1/read", form, **headers)


def test_a_small_read_is_answered_directly_and_as_a_handler_would(foo: Served, counted: Counted, token: str) -> None:
    by_handler = ask(foo, token)  # nothing is in memory yet
    assert counted.bodies == []
    directly = ask(foo, token)
    assert counted.bodies == [directly.body] == [by_handler.body]
    assert directly.status == 200
    assert directly.headers["Content-Type"] == RECORDS_TYPE
    varying = {"Date", "Content-Length", "Transfer-Encoding", "Vary"}
    assert {k: v for k, v in directly.headers.items() if k not in varying} == {
        k: v for k, v in by_handler.headers.items() if k not in varying
    }
    about = RecordParser().feed(directly.body)[0]
    assert isinstance(about, Preamble)
    pinned = ask(foo, token, {**READ, "version": about.version})
    assert len(counted.bodies) == 2
    parser = RecordParser()
    parser.feed(pinned.body)
    parser.close()


def test_strangers_and_pages_of_others_get_no_direct_answer(foo: Served, counted: Counted, token: str) -> None:
    ask(foo, token)
    for headers, status in [
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        *([({"Authorization": f"Bearer {bad}"}, 401) for bad in ("wrong", token[:-1])] if token else []),
    ]:
        assert ask(foo, token, **headers).status == status, headers
    assert counted.bodies == []


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ("{", 400),
        ({"path": "foo/grid.b2nd", "selection": [[0, 61, 1], [0, 1, 1]]}, 400),
        ({"path": "foo/none.b2nd"}, 404),
        ({"path": "other/grid.b2nd"}, 404),
        ({**READ, "version": "another"}, 409),
        ({**READ, "path": "foo/grid.b2nd", "held": "A" * 4 * MAX_BODY_NBYTES}, 400),
    ],
)
def test_what_cannot_be_answered_directly_is_refused_as_usual(
    foo: Served, counted: Counted, token: str, form: object, status: int
) -> None:
    ask(foo, token)
    assert ask(foo, token, form).status == status
    assert counted.bodies == []


def test_one_connection_takes_answers_of_both_kinds(foo: Served, counted: Counted, token: str) -> None:
    async def several() -> bytes:
        reader, writer = await asyncio.open_connection("localhost", foo.port)
        small = json.dumps(READ).encode()
        whole = json.dumps({"path": "foo/grid.b2nd"}).encode()
        for body in (small, small, whole, small):
            head = f"POST /api/v1/read HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Authorization: Bearer {token}\r\n\r\n".encode() + body)
        writer.write(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return answer

    answer = asyncio.run(several())
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    assert answer.count(b"C2R1") == 4
    assert len(counted.bodies) >= 2
    assert answer.endswith(b'{"status":"ok","service":"publisher"}')


def test_a_file_that_changed_is_not_answered_from_memory(
    foo: Served, counted: Counted, token: str, tmp_path: Path
) -> None:
    ask(foo, token)
    before = ask(foo, token)
    path = tmp_path / "root" / "grid.b2nd"
    blosc2.asarray(GRID + 1, chunks=(20, 40), blocks=(5, 10), urlpath=str(tmp_path / "new"))
    (tmp_path / "new").rename(path)
    after = ask(foo, token)
    assert after.body != before.body
