"""The way to a service, and all that may go wrong on it."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.client.transport import Credentials, Timeouts, Transport
from caterva2_jupyter.config import NetworkConfig
from caterva2_jupyter.core.blocks import BlockRecord, checksum_seed, make_record
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.wire import (
    RECORDS_TYPE,
    ReadRequest,
    RecordParser,
    encode_end,
    encode_preamble,
    encode_record,
)
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.conftest import ARRAYS, memory_root
from tests.client.hostile_server import HostileServer, response
from tests.client.memory_service import MemoryService

CERTIFICATES = Path(__file__).parents[1] / "certificates"
QUICK = Timeouts(connect_s=1, progress_s=0.3)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


# N1: nobody there


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "no-such-host.invalid"])
def test_an_unreachable_service_is_a_typed_error_soon(host: str) -> None:
    client = cat2.connect(f"http://{host.format(port=free_port())}", connect_timeout_s=2)
    start = time.monotonic()
    with pytest.raises(cat2.SourceUnavailableError, match="cannot reach http://") as raised:
        _ = client.roots
    assert time.monotonic() - start < 25
    assert isinstance(raised.value, ConnectionError)
    assert "\n" not in str(raised.value)


def test_a_refused_connection_is_tried_again() -> None:
    port = free_port()
    transport = Transport(f"http://127.0.0.1:{port}", timeouts=Timeouts(connect_s=1, retries=3))
    with pytest.raises(cat2.SourceUnavailableError, match="refused"):
        transport.request("GET", "/api/v1/roots")
    root = MemoryRoot({"a.b2nd": np.arange(3)})
    with MemoryService({"foo": root}, address=f"127.0.0.1:{port}") as service:
        assert service.url.endswith(str(port))
        assert transport.request("GET", "/api/v1/roots").json() == {"roots": [{"name": "foo", "online": True}]}
    transport.close()


def test_a_service_that_restarts_is_found_again_with_the_same_client() -> None:
    root = MemoryRoot({"a.b2nd": np.arange(3)})
    with MemoryService({"foo": root}) as service:
        client = cat2.connect(service.url)
        array = client["foo/a"]
        assert array[1] == 1
        port = service.url.rpartition(":")[2]
    with MemoryService({"foo": root}, address=f"127.0.0.1:{port}"):
        assert array[2] == 2
    with pytest.raises(cat2.SourceUnavailableError):
        array[0]


# N5: another program, a proxy


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"<html>please log in</html>", "text/html", "200 OK"),
        (b"<html>not found</html>", "text/html", "404 Not Found"),
        (b"not json", "application/json", "200 OK"),
        (b"[" * 100_000, "application/json", "200 OK"),
        (b"{}", "application/json", "200 OK"),
        (b'{"roots": [{"name": "../x"}]}', "application/json", "200 OK"),
        (b'{"roots": [7]}', "application/json", "200 OK"),
        (b'{"detail": 7}', "application/json", "500 Internal Server Error"),
        (b"\xff\xfe", "application/json", "500 Internal Server Error"),
    ],
)
def test_a_strangers_answer_is_a_typed_error(body: bytes, kind: str, status: str) -> None:
    with HostileServer(lambda s, *_: s.sendall(response(body, kind, status))) as server:
        with pytest.raises(cat2.Caterva2Error) as raised:
            _ = cat2.connect(server.url).roots
        assert "\n" not in str(raised.value)


def test_a_read_that_is_answered_with_a_page_is_refused(client: cat2.Client) -> None:
    def answer(connection: socket.socket, line: str, _: int) -> None:
        connection.sendall(response(b"<html>" if "/read" in line else json.dumps(form).encode()))

    form = client.metadata("foo/cube.b2nd")
    with (
        HostileServer(answer) as server,
        pytest.raises(cat2.SourceUnavailableError, match="another program or a proxy"),
    ):
        cat2.connect(server.url)["foo/cube"][0]


# N2, N3: cut short


def _cube_answers(memory_service: MemoryService, **how: Any) -> tuple[bytes, bytes]:
    """The body of the entry of the cube, and of the answer to a read (of all of it)."""
    client = cat2.connect(memory_service.url)
    array = client["foo/cube"]
    with array._session.service.read(ReadRequest("foo", array.path, array.version, **how)) as answer:
        return json.dumps(client.metadata("foo/cube.b2nd")).encode(), answer.read(1 << 20)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_read_that_breaks_goes_on_where_it_broke(
    memory_service: MemoryService, fraction: float, announced: bool
) -> None:
    meta, records = _cube_answers(memory_service)
    real = cat2.connect(memory_service.url)
    reads: list[bytes] = []

    def answer(connection: socket.socket, line: str, number: int) -> None:
        if "/meta" in line:
            connection.sendall(response(meta))
        elif "/read" in line and not reads:
            reads.append(b"")
            whole = response(records, RECORDS_TYPE)
            head, _, body = whole.partition(b"\r\n\r\n")
            if not announced:  # a proxy that says no length: the end of the connection is the end of the answer
                head = b"\r\n".join(h for h in head.split(b"\r\n") if not h.startswith(b"Content-Length"))
            connection.sendall(head + b"\r\n\r\n" + body[: int(len(body) * fraction)])
        elif "/read" in line:
            request = json.loads(server.requests[-1].partition("\r\n\r\n")[2])
            reads.append(request.get("window"))
            with real["foo/cube"]._session.service.transport.request(
                "POST", "/api/v1/read", body=json.dumps(request).encode()
            ) as relayed:
                connection.sendall(response(relayed.read(1 << 20), RECORDS_TYPE))
        else:
            connection.sendall(response(b"{}"))

    with HostileServer(answer) as server:
        array = cat2.connect(server.url)["foo/cube"]
        assert np.array_equal(array[...], ARRAYS["cube.b2nd"])
        if fraction == 0.5:
            assert reads[1], "what had come is not asked for again"


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.6, 0.999])
@pytest.mark.parametrize("flip", [False, True])
def test_a_slice_that_breaks_is_asked_for_again(memory_service: MemoryService, fraction: float, flip: bool) -> None:
    meta, records = _cube_answers(memory_service, selection=[[0, 4, 1], [2, 3, 1], [1, 2, 1]], mode="slice")
    reads: list[bytes] = []

    def answer(connection: socket.socket, line: str, number: int) -> None:
        if "/meta" in line:
            connection.sendall(response(meta))
        elif "/read" in line:
            reads.append(b"")
            place = int(len(records) * fraction)
            broken = records[:place] + bytes([records[place] ^ 1]) + records[place + 1 :] if flip else records[:place]
            connection.sendall(response(broken if len(reads) == 1 else records, RECORDS_TYPE))
        else:
            connection.sendall(response(b"{}"))

    with HostileServer(answer) as server:
        array = cat2.connect(server.url, cache="bypass")["foo/cube"]
        assert np.array_equal(array[0:4, 2, 1], ARRAYS["cube.b2nd"][0:4, 2, 1])
        assert len(reads) == 2
        with pytest.raises(cat2.IntegrityError):  # the slice of another selection
            array[0:4, 3, 1]


@pytest.mark.parametrize("what", ["flip", "swap", "drop", "repeat", "other", "gap", "garbage"])
def test_a_tampered_answer_is_never_data(memory_service: MemoryService, what: str) -> None:
    meta, records = _cube_answers(memory_service)
    entry = cat2.connect(memory_service.url).entry("foo/cube.b2nd")
    seed = checksum_seed(entry.id, entry.version)
    parsed = [i for i in RecordParser().feed(records) if isinstance(i, BlockRecord)]
    kept = parsed
    if what == "swap":
        kept = [parsed[1], parsed[0], *parsed[2:]]
    elif what == "drop":
        kept = parsed[:-1]
    elif what == "repeat":
        kept = [*parsed, parsed[0]]
    elif what == "gap":
        kept = [*parsed[:3], *parsed[4:]]
    elif what == "garbage":  # with good checksums: its source is damaged
        last = parsed[-1]
        bodies = [b"\x40\0\0\0?"] * len(last.ids)
        kept = [*parsed[:-1], make_record(seed, last.nchunk, last.head, last.ids.tolist(), bodies)]
    about = Entry("other.b2nd", "array", id="other", version="v") if what == "other" else entry
    body = encode_preamble(about, False)
    body += b"".join(bytes(p) for r in kept for p in encode_record(r, seed)) + encode_end(len(kept), seed)
    if what == "flip":
        body = body[:-200] + bytes([body[-200] ^ 4]) + body[-199:]

    def answer(connection: socket.socket, line: str, number: int) -> None:
        connection.sendall(response(body, RECORDS_TYPE) if "/read" in line else response(meta))

    with HostileServer(answer) as server:
        array = cat2.connect(server.url)["foo/cube"]
        if what == "repeat":  # every block is there and is what it should be
            assert np.array_equal(array[...], ARRAYS["cube.b2nd"])
            return
        with pytest.raises(cat2.IntegrityError):
            array[...]


# N6, N7: slow, busy


def test_silence_is_a_deadline_error() -> None:
    with HostileServer(lambda *_: server.wait()) as server:
        transport = Transport(server.url, timeouts=QUICK)
        start = time.monotonic()
        with pytest.raises(cat2.DeadlineError, match=r"0\.3 s between bytes") as raised:
            transport.request("GET", "/api/v1/roots")
        assert time.monotonic() - start < 25
        assert isinstance(raised.value, TimeoutError)


def test_silence_in_the_midst_of_an_answer_is_a_deadline_error() -> None:
    def answer(connection: socket.socket, line: str, number: int) -> None:
        connection.sendall(response(b'{"roots": []}')[:-3])
        server.wait()

    with HostileServer(answer) as server, pytest.raises(cat2.DeadlineError):
        Transport(server.url, timeouts=QUICK).request("GET", "/api/v1/roots").json()


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_a_busy_service_is_asked_again_when_it_says_so(status: str) -> None:
    def answer(connection: socket.socket, line: str, number: int) -> None:
        busy = response(b'{"detail": "busy"}', "application/json", status, "Retry-After: 1")
        connection.sendall(busy if number == 1 else response(b'{"roots": []}'))

    with HostileServer(answer) as server:
        start = time.monotonic()
        assert cat2.connect(server.url).roots == {}
        assert time.monotonic() - start >= 1
        assert len(server.requests) == 2


def test_a_service_that_stays_busy_is_not_asked_for_ever() -> None:
    busy = response(b'{"detail": "later", "error": "TooManyRequestsError"}', "application/json", "429 Busy")
    with HostileServer(lambda s, *_: s.sendall(busy)) as server:
        with pytest.raises(cat2.TooManyRequestsError, match="later"):
            _ = cat2.connect(server.url).roots
        assert len(server.requests) == 3


def test_what_is_not_cached_is_said_at_once() -> None:
    body = json.dumps({"detail": "not in the cache", "error": "NotCachedError"}).encode()
    answer = response(body, "application/json", "503 Service Unavailable", "Retry-After: 1")
    with HostileServer(lambda s, *_: s.sendall(answer)) as server:
        with pytest.raises(cat2.NotCachedError, match="not in the cache"):
            _ = cat2.connect(server.url).roots
        assert len(server.requests) == 1


# N11: TLS and redirects


def test_a_redirect_is_not_followed_and_gets_no_token() -> None:
    with HostileServer(lambda s, *_: s.sendall(response(b"{}"))) as other:
        moved = response(b"", "text/html", "302 Found", f"Location: {other.url}/stolen?x=1")
        with HostileServer(lambda s, *_: s.sendall(moved)) as server:
            with pytest.raises(cat2.SourceUnavailableError, match="not followed") as raised:
                _ = cat2.connect(server.url, token="secret-token").roots
            assert "secret-token" not in str(raised.value)
        assert other.requests == []


def test_a_redirect_to_a_login_page_says_what_is_missing() -> None:
    moved = response(b"", "text/html", "302 Found", "Location: /login?next=%2F")
    with (
        HostileServer(lambda s, *_: s.sendall(moved)) as server,
        pytest.raises(cat2.AuthenticationError, match="token"),
    ):
        _ = cat2.connect(server.url).roots


def tls_service(name: str) -> MemoryService:
    network = NetworkConfig(tls_cert=str(CERTIFICATES / f"{name}.pem"))
    return MemoryService({"foo": MemoryRoot({"a.b2nd": np.arange(3)})}, network=network)


def test_a_certificate_of_a_trusted_authority_is_fine() -> None:
    with tls_service("service") as service:
        assert service.url.startswith("https://")
        with cat2.connect(service.url, tls_ca=str(CERTIFICATES / "ca.pem")) as client:
            assert client["foo/a"][2] == 2


@pytest.mark.parametrize(("name", "trusted"), [("service", None), ("other", "ca.pem"), ("expired", "ca.pem")])
def test_a_bad_certificate_is_refused(name: str, trusted: str | None) -> None:
    refused = pytest.raises(cat2.SourceUnavailableError, match=r"TLS to .* failed: .*certificate")
    with tls_service(name) as service, refused:
        _ = cat2.connect(service.url, tls_ca=str(CERTIFICATES / trusted) if trusted else None).roots


def test_plain_http_spoken_to_a_tls_service_is_a_typed_error() -> None:
    with tls_service("service") as service, pytest.raises(cat2.Caterva2Error):
        _ = cat2.connect(service.url.replace("https", "http")).roots


def test_certificates_that_cannot_be_read_are_a_setting_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(cat2.ConfigError, match=r"none\.pem"):
        cat2.connect("https://localhost:1", tls_ca=str(tmp_path / "none.pem"))


# Unix sockets


def test_a_service_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "Sub Scriber.sock"
    with MemoryService({"foo": memory_root()}, base="/caterva2", address=str(path)) as service:
        assert service.url.startswith("http+unix://")
        for url in (service.url, f"{service.url}/"):
            with cat2.connect(url) as client:
                assert np.array_equal(client["foo/cube"][1], ARRAYS["cube.b2nd"][1])
    with pytest.raises(cat2.SourceUnavailableError, match="cannot reach"):
        _ = cat2.connect(f"unix:{path}").roots


# Credentials


def test_a_token_opens_and_its_absence_is_said() -> None:
    root = MemoryRoot({"a.b2nd": np.arange(3)})
    with MemoryService({"foo": root}, token="right") as service:
        assert cat2.connect(service.url, token="right")["foo/a"][1] == 1
        assert cat2.connect(f"{service.url}").health()["status"] == "ok"
        for token in (None, "wrong"):
            with pytest.raises(cat2.AuthenticationError) as raised:
                cat2.connect(service.url, token=token)["foo/a"]
            assert isinstance(raised.value, PermissionError)


def test_credentials_are_never_shown() -> None:
    credentials = Credentials("a-token", "me@lab.org", "pass-word")
    transport = Transport("http://localhost:1", credentials)
    assert not any(secret in repr([credentials, transport]) for secret in ("a-token", "me@lab", "pass-word"))


def test_a_user_logs_in_once_and_again_when_the_session_ends() -> None:
    sessions: list[str] = []

    def answer(connection: socket.socket, line: str, number: int) -> None:
        head, _, body = server.requests[-1].partition("\r\n\r\n")
        if "/auth/jwt/login" in line:
            if "password=right%26" not in body:
                connection.sendall(
                    response(b'{"detail": "LOGIN_BAD_CREDENTIALS"}', "application/json", "400 Bad Request")
                )
                return
            sessions.append(f"c2subauth=s{len(sessions)}")
            connection.sendall(response(b"", "text/plain", "204 No Content", f"Set-Cookie: {sessions[-1]}; HttpOnly"))
        elif sessions and f"Cookie: {sessions[-1]}" in head and number != 4:
            connection.sendall(response(b'{"roots": []}'))
        else:
            connection.sendall(response(b'{"detail": "Unauthorized"}', "application/json", "401 Unauthorized"))

    with HostileServer(answer) as server:
        client = cat2.connect(server.url, username="me@lab.org", password="right&")
        assert client.roots == {}
        assert client.roots == {}
        assert len(sessions) == 1
        assert client.roots == {}  # number 4: the session has ended
        assert len(sessions) == 2
        with pytest.raises(cat2.AuthenticationError, match="user name and password"):
            _ = cat2.connect(server.url, username="me@lab.org", password="wrong").roots
