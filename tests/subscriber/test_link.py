"""Services that are away, broken, hostile or busy: a typed error within the deadline, or the right answer."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from caterva2_jupyter.config import NetworkConfig
from caterva2_jupyter.core.catalog import CatalogQuery
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import (
    Caterva2Error,
    DatasetChangedError,
    DatasetNotFoundError,
    DeadlineError,
    IntegrityError,
    NotCachedError,
    SourceUnavailableError,
)
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.subscriber import link, upstreams
from caterva2_jupyter.subscriber.sources import CachedSource, RemoteSource
from caterva2_jupyter.testing import Origin, open_origin, read_array
from caterva2_jupyter.web.outgoing_session import open_session

from .serving import serve

NOISE = np.random.default_rng(2).integers(0, 2**62, (300, 400))
STORED = random.Random(9).randbytes(700_000)
RECORDS = "application/vnd.caterva2.records"


# A proxy that does harm by a script, and servers that say what they are told to


@dataclass
class Harm:
    """What happens to the answers on one connection, counted in bytes from its start."""

    cut_at: int | None = None
    flip_at: int | None = None
    stall_at: int | None = None


@dataclass
class HarmfulProxy:
    """Passes bytes on to a server; ``script`` gives the harm of each new connection."""

    url: str
    script: Callable[[], Harm]
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        address = urlsplit(self.url)
        up_reader, up_writer = await asyncio.open_connection(address.hostname, address.port)
        forth = asyncio.create_task(self._pass(reader, up_writer, Harm()))
        try:
            await self._pass(up_reader, writer, self.script())
        finally:
            forth.cancel()
            for each in (writer, up_writer):
                each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, harm: Harm) -> None:
        passed = 0
        with suppress(ConnectionError, OSError):
            while data := await reader.read(1 << 16):
                if harm.flip_at is not None and passed <= harm.flip_at < passed + len(data):
                    changed = bytearray(data)
                    changed[harm.flip_at - passed] ^= 1 << harm.flip_at % 8
                    data = bytes(changed)
                if harm.cut_at is not None and passed + len(data) >= harm.cut_at:
                    writer.write(data[: harm.cut_at - passed])
                    await writer.drain()
                    return
                if harm.stall_at is not None and passed + len(data) >= harm.stall_at:
                    await asyncio.sleep(3600)
                passed += len(data)
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def listening(serve_one: Callable[..., Awaitable[None]]) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[Any]] = set()

    async def serve_tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await serve_one(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve_tracked, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Canned:
    """A server that answers every request by ``answer(number of the request)``, and notes when."""

    def __init__(self, answer: Callable[[int], bytes | tuple[bytes, float]]) -> None:
        self._answer = answer
        self.heads: list[bytes] = []
        self.times: list[float] = []
        self.closed = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        await reader.readexactly(length[0] if length else 0)
        self.heads.append(head)
        self.times.append(time.monotonic())
        answer = self._answer(len(self.heads) - 1)
        data, pause_s = answer if isinstance(answer, tuple) else (answer, 0.0)
        if pause_s:
            watch = asyncio.create_task(reader.read())
            for byte in data:
                writer.write(bytes([byte]))
                await asyncio.wait([watch], timeout=pause_s)
                if watch.done():
                    self.closed += 1
                    return
        writer.write(data)
        await writer.drain()


def response(status: str, media_type: str, body: bytes, *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {media_type}", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, *more, "", ""]).encode() + body


def error_response(status: str, name: str, *more: str) -> bytes:
    return response(status, "application/json", json.dumps({"detail": "so it is", "error": name}).encode(), *more)


def play(scenario: Callable[[Origin, str], Awaitable[None]]) -> None:
    """Run a scenario with an origin that is served."""

    async def run() -> None:
        async with asyncio.timeout(40), open_origin({"file.bin": STORED}) as origin:
            await origin.put("noise.b2nd", NOISE, chunks=(100, 100), blocks=(10, 50))
            async with serve(origin.source) as url:
                await scenario(origin, url)

    asyncio.run(run())


def play_canned(
    answer: Callable[[int], Any], scenario: Callable[[RemoteSource, Canned], Awaitable[None]], **deadlines: float
) -> None:
    """Run a scenario against a canned server."""

    async def run() -> None:
        canned = Canned(answer)
        async with asyncio.timeout(40), listening(canned.serve) as url, open_session(url) as session:
            await scenario(RemoteSource("foo", url, session, "secret", **deadlines), canned)

    asyncio.run(run())


async def read(source: RemoteSource, **how: Any) -> list[Any]:
    stream = await source.read_blocks(ReadRequest("foo", "noise.b2nd", **how))
    return [record async for record in stream.records]


async def read_stored(source: RemoteSource, start: int = 0, stop: int | None = None) -> bytes:
    stream = await source.read_file("file.bin", start, stop)
    return b"".join([part async for part in stream.parts])


# Broken connections


def test_reads_survive_connections_cut_at_any_byte() -> None:
    async def scenario(origin: Origin, url: str) -> None:
        rng = random.Random(11)
        proxy = HarmfulProxy(url, lambda: Harm(cut_at=rng.randrange(1, 500_000)))
        async with listening(proxy.serve) as through, open_session(through) as session:
            source = RemoteSource("foo", through, session)
            finished = 0
            for _ in range(12):
                source._link._tokens = link.RETRY_BURST
                with suppress(SourceUnavailableError):
                    assert np.array_equal(await read_array(source, "noise.b2nd"), NOISE)
                    finished += 1
            assert finished >= 6
            assert proxy.connections > 20

    play(scenario)


@pytest.mark.parametrize("what", ["cut_at", "flip_at"])
def test_exact_slices_survive_connections_that_are_cut_or_changed_at_any_byte(what: str) -> None:
    async def scenario(origin: Origin, url: str) -> None:
        rng, three = random.Random(14), np.concatenate([NOISE] * 3)  # three pieces
        await origin.put("three.b2nd", three)
        for _ in range(5):
            harms = [Harm(**{what: rng.randrange(1000, 2_800_000)}) for _ in range(2)]
            proxy = HarmfulProxy(url, lambda harms=harms: harms.pop(0) if harms else Harm())  # type: ignore[misc]
            async with listening(proxy.serve) as through, open_session(through) as session:
                source = RemoteSource("foo", through, session)
                stream = await source.read_blocks(ReadRequest("foo", "three.b2nd", mode="slice"))
                assert stream.answer == "slice"
                records = [record async for record in stream.records]
                assert [r.nchunk for r in records] == list(range(len(records)))
                assert np.array_equal(await read_array(source, "three.b2nd", mode="slice"), three)

    play(scenario)


def test_a_read_that_breaks_asks_only_for_what_has_not_come() -> None:
    async def scenario(origin: Origin, url: str) -> None:
        harms = [Harm(cut_at=500_000), Harm()]
        proxy = HarmfulProxy(url, lambda: harms.pop(0))
        async with listening(proxy.serve) as through, open_session(through) as session:
            entry = await origin.source.entry("noise.b2nd")
            records = await read(RemoteSource("foo", through, session), version=entry.version)
            blocks = [(r.nchunk, int(b)) for r in records for b in r.ids]
            assert len(blocks) == len(set(blocks)) == 12 * 20
            assert [n for n, _ in blocks] == sorted(n for n, _ in blocks)

    play(scenario)


def test_files_survive_connections_cut_at_any_byte() -> None:
    async def scenario(origin: Origin, url: str) -> None:
        rng = random.Random(12)
        proxy = HarmfulProxy(url, lambda: Harm(cut_at=rng.randrange(1, 400_000)))
        async with listening(proxy.serve) as through, open_session(through) as session:
            source = RemoteSource("foo", through, session)
            for start, stop in [(0, None), (1, 600_000), (699_999, None)]:
                source._link._tokens = link.RETRY_BURST
                assert await read_stored(source, start, stop) == STORED[start:stop]

    play(scenario)


def test_a_file_that_changes_while_it_is_read_is_never_mixed() -> None:
    async def scenario(origin: Origin, url: str) -> None:
        harms = [Harm(cut_at=300_000), Harm()]
        proxy = HarmfulProxy(url, lambda: harms.pop(0))
        async with listening(proxy.serve) as through, open_session(through) as session:
            stream = await RemoteSource("foo", through, session).read_file("file.bin", 0, None)
            await anext(stream.parts)
            await origin.put("file.bin", bytes(700_000))
            with pytest.raises(DatasetChangedError):
                [part async for part in stream.parts]

    play(scenario)


def test_bits_flipped_on_the_way_are_never_handed_on() -> None:
    async def scenario(origin: Origin, url: str) -> None:
        rng = random.Random(13)
        for _ in range(40):
            harms = [Harm(flip_at=int(2 ** rng.uniform(8, 19.5))), Harm()]
            proxy = HarmfulProxy(url, lambda harms=harms: harms.pop(0) if harms else Harm())  # type: ignore[misc]
            async with listening(proxy.serve) as through, open_session(through) as session:
                source = RemoteSource("foo", through, session, stall_s=0.5)
                with suppress(Caterva2Error):  # such as for a header that was changed
                    assert np.array_equal(await read_array(source, "noise.b2nd"), NOISE)

    play(scenario)


def test_only_whole_and_right_blocks_enter_the_cache(tmp_path: Path) -> None:
    async def scenario(origin: Origin, url: str) -> None:
        rng = random.Random(14)

        def harm() -> Harm:
            at = int(2 ** rng.uniform(8, 20))
            return Harm(cut_at=at) if rng.random() < 0.5 else Harm(flip_at=at)

        proxy = HarmfulProxy(url, harm)
        with ThreadPoolExecutor(4) as executor, BlockCache(tmp_path / "cache", 1 << 30) as cache:
            async with listening(proxy.serve) as through, open_session(through) as session:
                remote = RemoteSource("foo", through, session, stall_s=1)
                cached = CachedSource(remote, cache, executor, origin.store.resolve)
                for _ in range(6):
                    remote._link._tokens = link.RETRY_BURST
                    with suppress(Caterva2Error):
                        assert np.array_equal(await read_array(cached, "noise.b2nd"), NOISE)
                await cached.aclose()
            version = cache.open(await origin.source.entry("noise.b2nd"), "foo")
            kept = [record for n in range(12) for record in version.get(n, range(20))]
            assert sum(len(record.ids) for record in kept) > 0
            assert cache.counters.corrupt == 0
            assert np.array_equal(await read_array(CachedSource(origin.source, cache, executor), "noise.b2nd"), NOISE)

    play(scenario)


# Services that are not there, or are something else


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nosuchhost.invalid:8001", "http+unix://%2Fnone%2Fsuch"])
def test_a_service_that_is_not_there_is_told_soon(url: str) -> None:
    async def run() -> None:
        async with open_session(url) as session:
            source = RemoteSource("foo", url, session, connect_s=3)
            begun = time.monotonic()
            for what in (source.entry("a"), source.catalog(CatalogQuery()), read(source), read_stored(source)):
                with pytest.raises(SourceUnavailableError, match="cannot reach"):
                    await what
            with pytest.raises(SourceUnavailableError, match="cannot reach"):
                await anext(source.events(None))
            assert time.monotonic() - begun < 20

    asyncio.run(run())


@pytest.mark.skipif(sys.platform != "linux", reason="only there a full backlog drops connections")
def test_a_service_that_drops_connections_is_told_within_the_deadline_once() -> None:
    async def run(url: str) -> None:
        async with open_session(url) as session:
            source = RemoteSource("foo", url, session, connect_s=1.5)
            begun = time.monotonic()
            for _ in range(5):
                with pytest.raises(SourceUnavailableError, match=r"no connection in 1\.5 s"):
                    await source.entry("a")
            # Five that each wait would take 7.5 s.
            assert 1.4 < time.monotonic() - begun < 6
            assert source._link._unreachable_until - asyncio.get_running_loop().time() < 1.5

    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as stack:
        for _ in range(4):
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        asyncio.run(run(f"http://127.0.0.1:{full.getsockname()[1]}"))


@pytest.mark.parametrize(
    "answer",
    [
        response("200 OK", "text/html", b"<html>Please log in</html>"),
        response("200 OK", "application/octet-stream", b"?" * 1000),
        response("302 Found", "text/html", b"", "Location: http://169.254.169.254/latest"),
        response("308 Permanent Redirect", "text/html", b"", "Location: /elsewhere"),
        response("404 Not Found", "text/html", b"nginx"),
        response("204 No Content", "application/json", b""),
    ],
)
def test_something_else_in_its_place_is_told_and_not_asked_again(answer: bytes) -> None:
    async def scenario(source: RemoteSource, canned: Canned) -> None:
        for what in (source.entry("a"), source.catalog(CatalogQuery()), read(source)):
            with pytest.raises(Caterva2Error) as caught:
                await what
            assert isinstance(caught.value, SourceUnavailableError) or b"204" in answer
            assert "secret" not in str(caught.value)
        assert len(canned.heads) == 3

    play_canned(lambda number: answer, scenario)


@pytest.mark.parametrize(
    ("status", "name", "expected"),
    [
        ("404 Not Found", "DatasetNotFoundError", DatasetNotFoundError),
        ("409 Conflict", "DatasetChangedError", DatasetChangedError),
        # Our quarrel with the publisher is not our client's: it must not be asked to log in.
        ("401 Unauthorized", "AuthenticationError", SourceUnavailableError),
        ("403 Forbidden", "AccessDeniedError", SourceUnavailableError),
        ("429 Too Many Requests", "TooManyRequestsError", SourceUnavailableError),
    ],
)
def test_errors_of_the_service_come_as_their_class(status: str, name: str, expected: type[Caterva2Error]) -> None:
    async def scenario(source: RemoteSource, canned: Canned) -> None:
        for what in (source.entry("a"), source.catalog(CatalogQuery()), read(source), read_stored(source)):
            with pytest.raises(expected) as caught:
                await what
            assert type(caught.value) is expected

    play_canned(lambda number: error_response(status, name), scenario)


def test_an_error_that_never_ends_is_cut() -> None:
    async def scenario(source: RemoteSource, canned: Canned) -> None:
        with pytest.raises(Caterva2Error, match="no such service"):
            await source.entry("a")

    endless = response("409 Conflict", "application/json", b'{"detail": "' + b"a" * 10_000_000)
    play_canned(lambda number: endless, scenario)


GARBAGE = [
    b"",
    b"C2R1",
    b"C2R1" + bytes(8),
    b"C2R1\xff\xff\xff\xff" + bytes(100),
    b"C2R1\x02\0\0\0" + zlib.crc32(b"[]").to_bytes(4, "little") + b"[]",
    b"{}" * 100,
]


@pytest.mark.parametrize("body", GARBAGE)
def test_bodies_that_are_no_records_are_refused(body: bytes) -> None:
    async def scenario(source: RemoteSource, canned: Canned) -> None:
        with pytest.raises(IntegrityError):
            await read(source)
        assert len(canned.heads) <= link.MAX_ATTEMPTS

    play_canned(lambda number: response("200 OK", RECORDS, body), scenario)


@pytest.mark.parametrize("length", [10, 10**6])
def test_a_wrong_length_is_noticed(length: int) -> None:
    body = b"C2R1" + bytes(500)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {RECORDS}\r\nContent-Length: {length}\r\n\r\n".encode()

    async def scenario(source: RemoteSource, canned: Canned) -> None:
        with pytest.raises((IntegrityError, SourceUnavailableError)):
            await read(source)

    play_canned(lambda number: head + body, scenario)


@pytest.mark.parametrize("body", [b"", b"[1, 2", b"[1]", b'{"path": "../x", "kind": "group"}', b"[" * 100_000])
def test_json_that_is_no_entry_is_refused(body: bytes) -> None:
    async def scenario(source: RemoteSource, canned: Canned) -> None:
        with pytest.raises(IntegrityError):
            await source.entry("a")
        with pytest.raises(IntegrityError):
            await source.catalog(CatalogQuery())

    play_canned(lambda number: response("200 OK", "application/json", body), scenario)


def test_a_service_that_ignores_ranges_is_not_downloaded_in_full() -> None:
    sent = response("200 OK", "application/octet-stream", b"x" * 50_000_000, 'ETag: "a"')

    async def scenario(source: RemoteSource, canned: Canned) -> None:
        with pytest.raises(IntegrityError, match="ranges"):
            await read_stored(source, 10, 20)
        assert await read_stored(source, 0, 20) == b"x" * 20

    play_canned(lambda number: sent, scenario)


def test_another_range_than_asked_for_is_refused() -> None:
    sent = response("206 Partial Content", "application/octet-stream", b"x" * 10, "Content-Range: bytes 0-9/50")

    async def scenario(source: RemoteSource, canned: Canned) -> None:
        with pytest.raises(IntegrityError, match="another range"):
            await read_stored(source, 10, 20)

    play_canned(lambda number: sent, scenario)


# Services that are slow, or busy


TRICKLE = b"C2R1" + (10_000).to_bytes(4, "little") + bytes(2000)  # the beginning of a preamble


@pytest.mark.parametrize("what", ["entry", "read", "file"])
def test_a_trickle_of_bytes_is_cut_off(what: str) -> None:
    body = response("200 OK", RECORDS if what == "read" else "application/json", TRICKLE, 'ETag: "a"')

    async def scenario(source: RemoteSource, canned: Canned) -> None:
        begun = time.monotonic()
        asked = {"entry": source.entry, "read": lambda _: read(source), "file": lambda _: read_stored(source)}[what]
        with pytest.raises(DeadlineError, match="does not answer"):
            await asked("a")  # type: ignore[operator]
        assert time.monotonic() - begun < 25
        await until(lambda: canned.closed == 1)  # and it notices that nobody listens

    play_canned(lambda number: (body, 0.005), scenario, stall_s=1.5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_service_that_stalls_is_given_up_and_others_are_not_disturbed() -> None:
    async def scenario(origin: Origin, url: str) -> None:
        proxy = HarmfulProxy(url, lambda: Harm(stall_at=200_000))
        async with listening(proxy.serve) as through, open_session(through) as session, open_session(url) as other:
            begun = time.monotonic()
            stalled = asyncio.create_task(read_array(RemoteSource("foo", through, session, stall_s=3), "noise.b2nd"))
            assert np.array_equal(await read_array(RemoteSource("foo", url, other), "noise.b2nd"), NOISE)
            assert not stalled.done()
            with pytest.raises(DeadlineError):
                await stalled
            assert 3 <= time.monotonic() - begun < 25

    play(scenario)


def test_a_slow_consumer_is_not_taken_for_a_slow_service() -> None:
    async def scenario(origin: Origin, url: str) -> None:
        async with open_session(url) as session:
            source = RemoteSource("foo", url, session, stall_s=0.4)
            stream = await source.read_blocks(ReadRequest("foo", "noise.b2nd"))
            records = [await anext(stream.records)]
            await asyncio.sleep(1)  # longer than the deadline: this is what is tested
            records += [record async for record in stream.records]
            assert sum(len(record.ids) for record in records) == 12 * 20

    play(scenario)


def test_a_service_that_asks_for_quiet_gets_it() -> None:
    quiet = error_response("503 Service Unavailable", "SourceUnavailableError", "Retry-After: 1")
    entry = response("200 OK", "application/json", b'{"path": "a", "kind": "group"}')

    async def scenario(source: RemoteSource, canned: Canned) -> None:
        entries = await asyncio.gather(source.entry("a"), source.entry("a"))
        assert [entry.path for entry in entries] == ["a", "a"]
        assert all(later - canned.times[1] >= 0.9 for later in canned.times[2:])
        assert len(canned.times) == 4

    play_canned(lambda number: quiet if number < 2 else entry, scenario)


@pytest.mark.parametrize("retry_after", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_long_quiet_is_told_at_once_and_kept(retry_after: str) -> None:
    quiet = error_response("429 Too Many Requests", "TooManyRequestsError", f"Retry-After: {retry_after}")

    async def scenario(source: RemoteSource, canned: Canned) -> None:
        for _ in range(20):
            with pytest.raises(SourceUnavailableError):
                await source.entry("a")
        assert len(canned.heads) == 1

    play_canned(lambda number: quiet, scenario)


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
def test_a_storm_of_failures_is_not_amplified(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "RETRY_LOW_S", 0.001)
    monkeypatch.setattr(link, "RETRY_HIGH_S", 0.002)

    async def scenario(source: RemoteSource, canned: Canned) -> None:
        told = await asyncio.gather(*(source.entry("a") for _ in range(300)), return_exceptions=True)
        assert all(type(error) is SourceUnavailableError for error in told)
        assert len(canned.heads) <= 300 * 1.1 + link.RETRY_BURST + 5

    play_canned(lambda number: response(status, "text/html", b"no"), scenario)


def test_a_short_failure_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = response("200 OK", "application/json", b'{"path": "a", "kind": "group"}')

    async def scenario(source: RemoteSource, canned: Canned) -> None:
        assert (await source.entry("a")).kind == "group"
        assert len(canned.heads) == 3

    play_canned(lambda number: [b"", response("502 Bad Gateway", "text/html", b""), entry][number], scenario)


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e9", "٣", "Fri, 99 Dec", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_retry_after_that_says_nothing_is_none(text: str) -> None:
    assert link._retry_after_s(text) == 0


# What is sent


def test_the_token_goes_to_the_service_and_nowhere_else() -> None:
    heads: list[bytes] = []

    async def run() -> None:
        other = Canned(lambda number: response("200 OK", "application/json", b"{}"))
        async with listening(other.serve) as elsewhere:
            redirect = response("307 Temporary Redirect", "text/html", b"", f"Location: {elsewhere}/x")
            canned = Canned(lambda number: redirect)
            async with listening(canned.serve) as url, open_session(url) as session:
                source = RemoteSource("foo", url, session, "secret")
                for what in (source.entry("a"), read(source), read_stored(source), anext(source.events(None))):
                    with pytest.raises(SourceUnavailableError, match="redirection"):
                        await what  # type: ignore[misc]
            heads.extend(canned.heads)
        assert other.heads == []

    asyncio.run(run())
    assert len(heads) == 4
    assert all(b"Authorization: Bearer secret\r\n" in head for head in heads)


def test_a_token_opens_a_service_that_wants_one() -> None:
    async def run() -> None:
        async with (
            open_origin({"noise.b2nd": NOISE}) as origin,
            serve(origin.source, token="right") as url,
            open_session(url) as session,
        ):
            assert np.array_equal(await read_array(RemoteSource("foo", url, session, "right"), "noise"), NOISE)
            for token in ("", "wrong"):
                source = RemoteSource("foo", url, session, token)
                with pytest.raises(SourceUnavailableError, match=r"same \[network\] token"):
                    await read(source)
                with pytest.raises(SourceUnavailableError, match=r"same \[network\] token"):
                    await anext(source.events(None))

    asyncio.run(run())


def test_giving_up_a_read_closes_its_connection() -> None:
    body = response("200 OK", RECORDS, b"C2R1" + bytes(2000))

    async def scenario(source: RemoteSource, canned: Canned) -> None:
        reading = asyncio.create_task(read(source))
        await until(lambda: len(canned.heads) == 1)
        reading.cancel()
        await until(lambda: canned.closed == 1)
        with pytest.raises(asyncio.CancelledError):
            await reading

    play_canned(lambda number: (body, 0.05), scenario)


def test_connections_are_used_again() -> None:
    async def scenario(origin: Origin, url: str) -> None:
        proxy = HarmfulProxy(url, Harm)
        async with listening(proxy.serve) as through, open_session(through) as session:
            source = RemoteSource("foo", through, session)
            for _ in range(5):
                await read_array(source, "noise.b2nd")
                await source.entry("noise.b2nd")
                await source.catalog(CatalogQuery())
                await read_stored(source)
            assert proxy.connections == 1

    play(scenario)


def test_a_frozen_service_that_is_said_to_be_away_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "AWAY_STALL_S", 0.2)

    async def main() -> None:
        async def freeze(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.CancelledError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(freeze, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        services = upstreams.HttpUpstreams(NetworkConfig())
        async with server, asyncio.timeout(25):  # well below the time that an answer has
            for url in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
                if "localhost" in url:
                    services.expect(url, "foo", online=False, nhops=1)  # before anybody reads
                source = services.source(url, "foo")
                services.expect(url, "foo", online=False, nhops=0)
                with pytest.raises(DeadlineError, match=r"nothing came in 0\.2 s"):
                    await source.read_blocks(ReadRequest("foo", "x.b2nd", None, [[0, 1, 1]]))
            services.expect(url, "foo", online=True, nhops=0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await source.read_blocks(ReadRequest("foo", "x.b2nd", None, [[0, 1, 1]]))
        await services.close()

    asyncio.run(main())


def test_a_silent_event_stream_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caterva2_jupyter.subscriber.remote_source.SILENCE_S", 0.3)

    async def scenario(origin: Origin, url: str) -> None:
        proxy = HarmfulProxy(url, lambda: Harm(stall_at=500))
        async with listening(proxy.serve) as through, open_session(through) as session:
            with pytest.raises(SourceUnavailableError):
                async for _ in RemoteSource("foo", through, session).events(None):
                    pass

    play(scenario)


def test_blocks_are_read_from_the_cache_when_the_service_was_killed(tmp_path: Path) -> None:
    async def run() -> None:
        with ThreadPoolExecutor(4) as executor, BlockCache(tmp_path / "cache", 1 << 30) as cache:
            async with open_origin({"noise.b2nd": NOISE, "other.b2nd": NOISE}) as origin:
                async with serve(origin.source) as url:
                    session = open_session(url)
                    remote = RemoteSource("foo", url, session)
                    cached = CachedSource(remote, cache, executor, origin.store.resolve)
                    await read_array(cached, "noise.b2nd")
                begun = time.monotonic()
                assert np.array_equal(await read_array(cached, "noise.b2nd"), NOISE)
                with pytest.raises(NotCachedError, match="cannot reach"):
                    await read_array(cached, "other.b2nd")
                assert time.monotonic() - begun < 25
                await cached.aclose()
                await session.close()

    asyncio.run(run())
