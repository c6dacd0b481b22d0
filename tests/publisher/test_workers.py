"""A publisher in several processes: one port, one index, and none that outlives it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2
import h5py
import numpy as np
import pytest

from caterva2_jupyter.config import NetworkConfig
from caterva2_jupyter.core.wire import RecordParser
from caterva2_jupyter.publisher.messages import config_from_json, config_to_json
from caterva2_jupyter.subscriber.sources import RemoteSource
from caterva2_jupyter.testing import read_array
from caterva2_jupyter.web.outgoing_session import open_session
from tests.processes import Service, wait_for
from tests.publisher.publishing import publisher_config

NWORKERS = 3
NOISE = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()


def started(directory: Path) -> Service:
    root = directory / "root"
    root.mkdir()
    (root / "noise.bin").write_bytes(NOISE)
    (directory / "empty.toml").write_text("")
    arguments = ["--conf", "empty.toml", "--http", "127.0.0.1:0", "--broker", "", "--statedir", "state"]
    return Service(directory, "pub", "caterva2_jupyter.publisher.app", *arguments, "--workers", NWORKERS, "foo", root)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = started(tmp_path_factory.mktemp("publisher"))
    yield service
    assert service.stop() == 0


def children(pid: int) -> set[int]:
    """Processes that serve (each may have one more for HDF5)."""
    found = set()
    for number in (int(n) for n in os.listdir("/proc") if n.isdigit()):
        try:
            parent = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
            command = Path(f"/proc/{number}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and b"caterva2_jupyter.publisher.worker" in command:
            found.add(number)
    return found


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def read(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("POST", "/api/v1/read", json.dumps({"path": path}))
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    parser = RecordParser()
    parser.feed(body)
    parser.close()
    return body


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_all_processes_answer_on_one_port_from_one_index(publisher: Service) -> None:
    pids = children(publisher.process.pid)
    assert len(pids) == NWORKERS - 1
    wait_for(lambda: get(f"{publisher.url}/api/v1/meta?path=foo/noise.bin"))
    host, port = publisher.address.split(":")
    before = {pid: cpu_ticks(pid) for pid in pids}

    def all_have_worked() -> bool:
        connections = [http.client.HTTPConnection(host, int(port), timeout=20) for _ in range(8)]
        bodies = {read(connection, "foo/noise.bin") for connection in connections}
        for connection in connections:
            connection.close()
        assert len(bodies) == 1
        return all(cpu_ticks(pid) > before[pid] + 2 for pid in pids)

    wait_for(all_have_worked, message="every process serves")


def test_a_change_is_seen_by_all_and_told_to_their_listeners(publisher: Service) -> None:
    import aiohttp

    cursor = get(f"{publisher.url}/api/v1/roots")["roots"][0]

    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            # More than there are processes, so that none has none.
            sockets = [await session.ws_connect(f"{publisher.url}/api/v1/events?root=foo") for _ in range(6 * NWORKERS)]
            (publisher.directory / "root" / "new.txt").write_text("new")
            for socket in sockets:
                async with asyncio.timeout(20):
                    while True:
                        batch = await socket.receive_json()
                        if any(event["path"] == "new.txt" for event in batch["events"]):
                            break
            for _ in range(4 * NWORKERS):
                # A connection of its own for each request.
                async with aiohttp.request("GET", f"{publisher.url}/api/v1/files/foo/new.txt") as answer:
                    assert await answer.read() == b"new"
            for socket in sockets:
                await socket.close()

    asyncio.run(scenario())
    assert get(f"{publisher.url}/api/v1/roots")["roots"][0]["epoch"] == cursor["epoch"]


def test_any_process_takes_an_announcement(publisher: Service) -> None:
    for number in range(4 * NWORKERS):
        (publisher.directory / "root" / f"{number}.txt").write_text("x")
        request = urllib.request.Request(
            f"{publisher.url}/api/v1/roots/foo/announce", json.dumps({"path": f"{number}.txt"}).encode(), method="POST"
        )
        urllib.request.urlopen(request, timeout=20).close()
        assert get(f"{publisher.url}/api/v1/meta?path=foo/{number}.txt")["path"] == f"{number}.txt"
    request = urllib.request.Request(f"{publisher.url}/api/v1/roots/foo/announce", b'{"path": "absent"}', method="POST")
    for _ in range(4 * NWORKERS):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request, timeout=20)
        assert raised.value.code == 404
        raised.value.close()


def test_a_process_that_dies_is_replaced_and_none_outlives_the_publisher(tmp_path: Path) -> None:
    publisher = started(tmp_path)
    try:
        first = children(publisher.process.pid)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(children(publisher.process.pid) - first) == NWORKERS - 1)
        for _ in range(4 * NWORKERS):
            assert get(f"{publisher.url}/api/v1/health")["status"] == "ok"
        second = children(publisher.process.pid)
    finally:
        publisher.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in second))


def test_processes_end_with_the_publisher(publisher: Service) -> None:
    pids = children(publisher.process.pid)
    assert len(pids) == NWORKERS - 1
    assert publisher.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_configuration_arrives_as_it_was(tmp_path: Path) -> None:
    config = publisher_config(tmp_path, tmp_path / "state", workers=2, advertise="http://data.example.org")
    assert config.broker is None
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize("proved", [False, True], ids=["tls", "tls and codes"])
def test_every_process_serves_hdf5_and_blosc2_by_tls_and_with_codes(tmp_path: Path, proved: bool) -> None:
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("there is no openssl program to make a certificate with")
    root = tmp_path / "root"
    root.mkdir()
    values = np.random.default_rng(1).integers(0, 100, (60, 50, 40)).astype("i4")
    with h5py.File(root / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(10, 50, 40), compression="gzip", shuffle=True)
    blosc2.asarray(values, chunks=(20, 50, 40), blocks=(5, 25, 20), urlpath=str(root / "b.b2nd"))
    token = "0" * 32
    (tmp_path / "token").write_text(token)
    (tmp_path / "token").chmod(0o600)
    network = f'tls_cert = "cert.pem"\ntls_key = "key.pem"\ntoken_file = "token"\nmac = {str(proved).lower()}\n'
    (tmp_path / "caterva2.toml").write_text(f"[network]\n{network}")
    arguments = ["--conf", "caterva2.toml", "--http", "localhost:0", "--broker", "", "--statedir", "state"]
    service = Service(tmp_path, "pub", "caterva2_jupyter.publisher.app", *arguments, "--workers", NWORKERS, "foo", root)
    config = NetworkConfig(read_token=token, mac=proved)
    trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))

    async def read_all(url: str) -> None:
        async with open_session(url, trusted) as session:
            key = config.mac_key if proved else b""
            source = RemoteSource("foo", url, session, config.read_bearer if proved else token, mac_key=key)
            for path in ("a.h5/x.b2nd", "b.b2nd"):
                assert np.array_equal(await read_array(source, path), values)

    async def scenario() -> None:
        pids = children(service.process.pid)
        assert len(pids) == NWORKERS - 1
        before = {pid: cpu_ticks(pid) for pid in pids}
        async with asyncio.timeout(60):
            while not all(cpu_ticks(pid) > before[pid] + 2 for pid in pids):
                # Connections of their own, which any of the processes takes.
                await asyncio.gather(*(read_all(service.url) for _ in range(6)))

    try:
        wait_for(lambda: asyncio.run(_is_listed(service.url, trusted, config, token, proved)))
        asyncio.run(scenario())
    finally:
        assert service.stop() == 0


async def _is_listed(url: str, trusted: ssl.SSLContext, config: NetworkConfig, token: str, proved: bool) -> bool:
    async with open_session(url, trusted) as session:
        key = config.mac_key if proved else b""
        source = RemoteSource("foo", url, session, config.read_bearer if proved else token, mac_key=key)
        return bool((await source.entry("a.h5/x.b2nd")).version and (await source.entry("b.b2nd")).version)
