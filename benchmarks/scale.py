"""Figures of many followers, chunks, and readers of one block; of TLS; of a Jupyter server that others read through.

Each starts the services that it needs, on loopback, and compares what is read with the source. What costs bytes on a
link is measured in ``engine``.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import blosc2
import numpy as np

import caterva2_jupyter as cat2
from caterva2_jupyter.core.codec import decode_record
from caterva2_jupyter.core.wire import BlockRecord, Preamble, RecordParser

from .datasets import CPARAMS, Size
from .engine import Figure, Own, running
from .measure import Truth
from .peers import Site, This
from .processes import Process, cpu_s, free_port, resident_nbytes, wait_for_port
from .workloads import draw

__all__ = ["measure_scale"]

FOLLOWERS = READERS = 1000
FOLLOWERS_PER_HOST = 50
READERS_PER_HOST = 200  # a service answers so many reads of one client at once, and no more than 256
BUSY = 16
LAG_S = 8.0


def measure_scale(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """All figures; the first line of what failed in its place."""
    figures: list[Figure] = []
    measures: list[Callable[[Site, Size, int, Truth], list[Figure]]]
    measures = [tls_against_plain, followers, many_chunks, one_cold_block, event_loop_lag]
    for measure in measures:
        try:
            found = measure(site, size, seed, truth)
        except (cat2.Caterva2Error, RuntimeError, OSError, AssertionError, aiohttp.ClientError) as error:
            found = [Figure(measure.__name__, "–", "", error=f"{type(error).__name__}: {error}"[:200])]
        for figure in found:
            print(f"{figure.what}: {figure.value} ({figure.detail}) {figure.error}", file=sys.stderr, flush=True)
        figures += found
    return figures


class Directly(Own):
    """A publisher alone, with or without TLS."""

    def __init__(self, directory: Path, certificate: Path | None) -> None:
        super().__init__(directory)
        self._certificate = certificate

    def state(self, site: Site) -> Path:
        return site.fresh_directory("publisher")

    def start_origin(self, site: Site) -> None:
        conf = site.fresh_directory("conf") / "caterva2.toml"
        network = "[network]\ninsecure = true\n"
        if self._certificate is not None:
            network += f'tls_cert = "{self._certificate}"\ntls_key = "{self._certificate}"\n'
        conf.write_text(network)
        self._conf = conf
        port = free_port()
        command = self._command("publisher", f"localhost:{port}", self.state(site))
        self.origin = [site.start([*command, "--broker", "", "data", self._directory], "this", **self.environ)]
        wait_for_port("localhost", port, self.origin[0])
        self.url = f"http{'s' if self._certificate is not None else ''}://localhost:{port}"


def tls_against_plain(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """The box, from a publisher with and without TLS, in turns."""
    directory = site.fresh_directory("tls")
    certificate = directory / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = subprocess.run(
        [*command, "-keyout", directory / "key", "-out", directory / "cert"], capture_output=True, check=False
    )
    if made.returncode:
        raise RuntimeError("there is no openssl program to make a certificate with")
    certificate.write_bytes((directory / "key").read_bytes() + (directory / "cert").read_bytes())
    box = next(w for w in draw(size, seed) if w.name == "box")
    key = tuple(slice(*part) for part in box.keys[0] if isinstance(part, list))
    expected = blosc2.open(str(site.data / "root" / "field.b2nd"))[key]
    seconds: dict[bool, list[float]] = {False: [], True: []}
    spent: dict[bool, list[float]] = {False: [], True: []}
    peers = {False: Directly(site.data / "root", None), True: Directly(site.data / "root", certificate)}
    try:
        for peer in peers.values():
            peer.start_origin(site)
        for _ in range(5):
            for with_tls, peer in peers.items():
                with cat2.connect(peer.url, tls_ca=str(directory / "cert")) as client:
                    array = _when_listed(client, "data/field.b2nd")
                    start, cpu = time.perf_counter(), time.process_time() + cpu_s(peer.origin)
                    got = array[key]
                    seconds[with_tls].append(time.perf_counter() - start)
                    spent[with_tls].append(time.process_time() + cpu_s(peer.origin) - cpu)
                    assert np.array_equal(got, expected)
    finally:
        for peer in peers.values():
            peer.stop()
    plain, tls = (float(np.median(seconds[k])) for k in (False, True))
    rates = f"{expected.nbytes / tls / 1e6:.0f} against {expected.nbytes / plain / 1e6:.0f} MB/s of values"
    works = f"{np.median(spent[True]):.2f} against {np.median(spent[False]):.2f} s of processor time"
    detail = f"{rates}, {works} at both ends"
    return [Figure("TLS against plain, box", f"{plain / tls:.2f} x", ">= 0.7 x", detail)]


def _when_listed(client: cat2.Client, address: str) -> Any:
    end = time.monotonic() + 60
    while True:
        try:
            return client[address]
        except cat2.Caterva2Error:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def followers(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """Subscribers at the broker: how long until the last one has heard of a change, and bytes that each was told."""
    count = FOLLOWERS if size.nsmall > 1000 else 20
    directory = site.fresh_directory("followed")
    _write(directory / "first.b2nd", np.arange(1000))
    peer = Own(directory)
    try:
        peer.start_origin(site)
        host, port = peer.publisher
        asyncio.run(_until_announced(f"http://{peer._broker}", f"http://{host}:{port}"))
        delays, nbytes = asyncio.run(_follow(f"http://{peer._broker}", directory, count))
    finally:
        peer.stop()
    detail = f"from the rename of a file to all of {count} having heard of it, five changes"
    told = f"{np.median(delays):.2f} s, at most {max(delays):.2f} s"
    texts = "texts of all messages, the list of roots too"
    return [
        Figure(f"an event to {count} followers", told, "<= 0.5 s", detail),
        Figure(f"bytes for each of {count} followers", f"{max(nbytes) / 1e3:.1f} kB", "<= 50 kB", texts),
    ]


async def _until_announced(broker: str, publisher: str) -> None:
    """Until the publisher has looked at its files and registered: what changes before that is no event."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{publisher}/api/v1/meta?path=data/first.b2nd") as answer:
                is_listed = answer.status == 200
            async with session.get(f"{broker}/api/v1/roots") as answer:
                roots = (await answer.json())["roots"]
            if is_listed and any(root["name"] == "data" and root["online"] for root in roots):
                return
            await asyncio.sleep(0.05)


async def _follow(broker: str, directory: Path, count: int) -> tuple[list[float], list[int]]:
    nbytes = [0] * count
    heard: list[dict[str, float]] = [{} for _ in range(count)]
    changed = asyncio.Event()

    async def listen(number: int, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            nbytes[number] += len(message.data)
            form = json.loads(message.data)
            for event in form.get("events", ()):
                heard[number][event["path"]] = time.monotonic()
            changed.set()

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                changed.clear()
                await changed.wait()

    sessions = _hosts(count, FOLLOWERS_PER_HOST)
    async with AsyncExitStack() as opened, asyncio.TaskGroup() as group:
        for session in sessions:
            await opened.enter_async_context(session)
        tasks = []
        for number in range(count):
            socket = await sessions[number % len(sessions)].ws_connect(
                f"{broker}/api/v1/subscribe", max_msg_size=1 << 26
            )
            await socket.send_json({"type": "follow", "roots": ["data"]})
            tasks.append(group.create_task(listen(number, socket)))
        await until(lambda: all(nbytes))
        delays: list[float] = []
        for change in range(5):
            name = f"change-{change}.b2nd"
            start = _write(directory / name, np.arange(change + 10))
            await until(lambda name=name: all(name in times for times in heard))
            delays.append(max(times[name] for times in heard) - start)
        for task in tasks:
            task.cancel()
    return delays, nbytes


def _hosts(count: int, per_host: int) -> list[aiohttp.ClientSession]:
    """Sessions of enough clients, each with an address of its own, for so many requests at once."""
    return [
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, local_addr=(f"127.0.0.{2 + i}", 0)))
        for i in range(-(-count // per_host))
    ]


def _write(path: Path, values: np.ndarray) -> float:
    """Write an array, and say when it was put in place."""
    part = path.with_suffix(".tmp")
    blosc2.asarray(values, urlpath=str(part), mode="w")
    part.rename(path)
    return time.monotonic()


def many_chunks(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """Reads of an array of a million chunks, and what they add to each service's memory."""
    count = 1_000_000 if size.nsmall > 1000 else 10_000
    directory = site.fresh_directory("chunks")
    path = directory / "many.b2nd"
    array = blosc2.zeros((count, 16), "f4", chunks=(1, 16), blocks=(1, 16), urlpath=str(path), cparams=CPARAMS)
    written = np.sort(np.random.default_rng(seed).choice(count, 300, replace=False))
    for nchunk in written.tolist():
        array[nchunk] = np.arange(16) + nchunk
    expected = np.zeros((count, 16), "f4")
    expected[written] = np.arange(16) + written[:, None]
    del array
    peer = Own(directory)
    with running(peer, site, "many.b2nd") as client:
        idle = [resident_nbytes(p) for p in peer.processes]
        remote = client["data/many.b2nd"]
        seconds: dict[str, float] = {}
        for name, key in {
            "a point": (int(written[0]), 3),
            "every thousandth row": (slice(0, count, 1000), slice(0, 16)),
            "10,000 rows": (slice(count // 2, count // 2 + 10_000), slice(0, 16)),
        }.items():
            start = time.perf_counter()
            got = remote[key]
            seconds[name] = time.perf_counter() - start
            assert np.array_equal(got, expected[key]), name
        grown = [resident_nbytes(p) - i for p, i in zip(peer.processes, idle, strict=True)]
    names = ("publisher", "broker", "subscriber")
    memory = ", ".join(f"{n} {g / 1e6:.0f} MB" for n, g in zip(names, grown, strict=True))
    times = ", ".join(f"{name} {s:.2f} s" for name, s in seconds.items())
    return [Figure(f"memory that reading an array of {count} chunks adds", memory, "< 100 MB each", times)]


def one_cold_block(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """How many requests reach the publisher when a thousand readers want one block that is not kept."""
    count = READERS if size.nsmall > 1000 else 50

    class Logged(This):
        def _command(self, service: str, http: str, statedir: object) -> list[object]:
            return [*super()._command(service, http, statedir), "--loglevel", "debug"]

    peer = Logged()
    field = blosc2.open(str(site.data / "root" / "field.b2nd"))
    block = tuple(slice(0, n) for n in size.field.blocks)
    with running(peer, site, "field.b2nd") as client:
        client["data/field.b2nd"]
        time.sleep(1)  # what is logged of the start is written
        log = peer.origin[0].log
        before = log.read_text().count("POST /api/v1/read")
        start = time.perf_counter()
        records = asyncio.run(_read_together(peer.url, block, count))
        seconds = time.perf_counter() - start
        time.sleep(1)
        asked = log.read_text().count("POST /api/v1/read") - before
    geometry = next(iter(records))[0]
    decoded = {bytes(decode_record(record, geometry).data) for _, record in records}
    assert decoded == {np.ascontiguousarray(field[block]).tobytes()}
    detail = f"{count} answers in {seconds:.2f} s"
    return [Figure(f"upstream requests of {count} readers of one cold block", str(asked), "1", detail)]


async def _read_together(url: str, block: tuple[slice, ...], count: int) -> list[tuple[Any, BlockRecord]]:
    body = {"path": "data/field.b2nd", "selection": [[s.start, s.stop, 1] for s in block]}

    async def read(session: aiohttp.ClientSession) -> tuple[Any, BlockRecord]:
        async with session.post(f"{url}/api/v1/read", json=body) as answer:
            data = await answer.read()
            assert answer.status == 200, data[:200]
        parser = RecordParser()
        preamble, record, _ = parser.feed(data)
        parser.close()
        assert isinstance(preamble, Preamble)
        assert preamble.entry is not None
        assert isinstance(record, BlockRecord)
        return preamble.entry.geometry, record

    sessions = _hosts(count, READERS_PER_HOST)
    try:
        return await asyncio.gather(*(read(sessions[i % len(sessions)]) for i in range(count)))
    finally:
        for session in sessions:
            await session.close()


def event_loop_lag(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """How long a Jupyter server takes for a tiny answer: while 16 clients read, and idle beside 16 busy processes."""
    count, duration_s = (BUSY, LAG_S) if size.nsmall > 1000 else (2, 1.0)
    spinning = [sys.executable, "-c", "while True: pass"]
    peer = This()
    try:
        peer.start_origin(site)
        with _jupyter(site, peer) as (url, token):
            with cat2.connect(f"{url}/caterva2", token=token) as client:
                _when_listed(client, "data/field.b2nd")
            busy = [subprocess.Popen(spinning) for _ in range(count)]
            try:
                idle = asyncio.run(_latencies(url, token, duration_s))
            finally:
                for process in busy:
                    process.kill()
                    process.wait()
            command = [sys.executable, "-c", _READER, url, token, str(seed)]
            readers = [
                subprocess.Popen([*command, str(i)], env=os.environ | {"PYTHONPATH": peer.environ["PYTHONPATH"]})
                for i in range(count)
            ]
            try:
                time.sleep(4)  # they have imported what they need
                loaded = asyncio.run(_latencies(url, token, duration_s))
                assert all(reader.poll() is None for reader in readers), "a reader failed"
            finally:
                for reader in readers:
                    reader.kill()
                    reader.wait()
    finally:
        peer.stop()
    (idle50, idle99), (loaded50, loaded99) = (np.percentile(x, [50, 99]) * 1e3 for x in (idle, loaded))
    at_rest = f"{idle50:.0f} and {idle99:.0f} ms idle beside {count} busy processes"
    detail = f"{loaded50:.0f} and {loaded99:.0f} ms (median, p99) while {count} read, {at_rest}"
    return [Figure("lag of a Jupyter server's event loop", f"{loaded99 - idle99:+.0f} ms", "<= +20 ms", detail)]


_READER = """
import sys
import numpy as np
import caterva2_jupyter as cat2
url, token, seed, number = sys.argv[1:]
rng = np.random.default_rng([int(seed), int(number)])
with cat2.connect(url + "/caterva2", token=token) as client:
    array = client["data/field.b2nd"].with_cache("fill")
    nt, ny, nx = array.shape
    while True:
        t, y, x = int(rng.integers(nt)), int(rng.integers(ny - 32)), int(rng.integers(nx - 32))
        assert array[t, y : y + 32, x : x + 32].shape == (32, 32)
"""


@contextmanager
def _jupyter(site: Site, peer: This) -> Iterator[tuple[str, str]]:
    """A Jupyter server with the extension, which follows the root: its URL and token."""
    directory = site.fresh_directory("jupyter")
    port, token = free_port(), "benchmark"
    (directory / "caterva2.toml").write_text("[network]\ninsecure = true\n")
    environ = {
        **peer.environ,
        "CATERVA2_CONF": str(directory / "caterva2.toml"),
        "CATERVA2_BROKER": peer._broker,
        "XDG_CACHE_HOME": str(directory / "cache"),
        "JUPYTER_DATA_DIR": str(directory / "data"),
        "JUPYTER_RUNTIME_DIR": str(directory / "runtime"),
        "JUPYTER_CONFIG_DIR": str(directory / "config"),
    }
    config = {"ServerApp": {"jpserver_extensions": {"caterva2_jupyter": True}}}
    (directory / "config").mkdir()
    (directory / "config" / "jupyter_server_config.json").write_text(json.dumps(config))
    options = ["--no-browser", f"--port={port}", "--ip=127.0.0.1", f"--IdentityProvider.token={token}", "--allow-root"]
    command = [sys.executable, "-m", "jupyter_server", *options, f"--SubscriberApp.broker={peer._broker}"]
    server: Process = site.start(command, directory.name, **environ)
    try:
        wait_for_port("127.0.0.1", port, server)
        yield f"http://127.0.0.1:{port}", token
    finally:
        server.stop()


async def _latencies(url: str, token: str, duration_s: float) -> np.ndarray:
    """Seconds that ``GET api`` takes, asked every 20 ms on one connection."""
    found: list[float] = []
    async with aiohttp.ClientSession(headers={"Authorization": f"token {token}"}) as session:
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            start = time.perf_counter()
            async with session.get(f"{url}/api") as answer:
                assert (await answer.json())["version"]
            found.append(time.perf_counter() - start)
            await asyncio.sleep(0.02)
    return np.array(found)
