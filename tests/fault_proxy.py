"""Networks that fail, between two services of a test: one that loses bytes and time, and one that lies.

What goes wrong is said by a script with a seed, so that a failure comes again.
"""

from __future__ import annotations

import asyncio
import http.client
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

MAX_PIECES_ON_THE_WAY = 64
TRICKLE_S = 0.05

Tamper = Callable[[str, bytes], bytes]


@dataclass(frozen=True)
class Faults:
    """What happens to connections.

    Attributes
    ----------
    refuse : bool
        They are closed as soon as they are open.
    cut_low, cut_high : int
        They are reset after so many bytes of answers, drawn for each (0: never).
    flip : bool
        In place of the reset, one bit of that byte is flipped, and the rest passes.
    delay_s : float
        Bytes come so much later, in each direction.
    rate : float
        Bytes of answers per second, for each connection; 0: no limit.
    pause_chance, pause_s : float
        How often a piece of an answer has to be sent again, and what that takes: what loss looks like above TCP.
    swallow : bool
        Nothing passes, and nothing is closed: half-open.
    answer : bytes
        Sent in place of every answer.
    """

    refuse: bool = False
    cut_low: int = 0
    cut_high: int = 0
    flip: bool = False
    delay_s: float = 0.0
    rate: float = 0.0
    pause_chance: float = 0.0
    pause_s: float = 0.0
    swallow: bool = False
    answer: bytes = b""


@dataclass
class FaultProxy:
    """Passes connections on to a service, with faults; in a thread of its own.

    Attributes
    ----------
    target : str
        URL of the service.
    faults : Faults
        Of connections opened from now on; ``swallow`` holds for open ones, too.
    reads, connections, nfaults : int
        ``POST read`` requests, connections, and connections to which something was done.
    nbytes : int
        Of answers that came out.
    ntrickles : int
        That many of the next reads are answered a few bytes at a time, and so is all that their connections bring.
    trickle_rate : float
        Bytes per second of each of those; it may change meanwhile.
    """

    target: str
    seed: int = 0
    faults: Faults = field(default_factory=Faults)
    url: str = ""
    connections: int = 0
    reads: int = 0
    nfaults: int = 0
    nbytes: int = 0
    ntrickles: int = 0
    trickle_rate: float = 4000

    def __enter__(self) -> FaultProxy:
        self._rng = random.Random(self.seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def drop(self) -> None:
        """Cut the connections that are open, so that the next ones have the faults of now."""
        asyncio.run_coroutine_threadsafe(self._cut_all(), self._loop).result(10)

    async def _cut_all(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        faults = self.faults
        others: list[asyncio.StreamWriter] = []
        self._open.add(writer)
        try:
            if faults.refuse:
                self.nfaults += 1
                return
            if faults.answer:
                await reader.readuntil(b"\r\n\r\n")
                self.nfaults += 1
                writer.write(faults.answer)
                await writer.drain()
                return
            parts = urlsplit(self.target)
            service, up = await asyncio.open_connection(parts.hostname, parts.port)
            others.append(up)
            trickles = asyncio.Event()
            pumps = [
                asyncio.create_task(self._up(reader, up, faults, trickles)),
                asyncio.create_task(self._down(service, writer, faults, trickles)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, EOFError, asyncio.CancelledError):  # streams report a task that ends by cancellation
            pass
        finally:
            self._open.discard(writer)
            for end in [writer, *others]:
                end.transport.abort()

    async def _pieces(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        while data := await reader.read(16 << 10):
            while self.faults.swallow:
                await asyncio.sleep(0.05)
            yield data

    async def _up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults, trickles: asyncio.Event
    ) -> None:
        async for data in self._pieces(reader):
            if nreads := data.count(b"/api/v1/read HTTP/1.1"):
                self.reads += nreads
                if self.ntrickles:
                    self.ntrickles -= 1
                    self.nfaults += 1
                    trickles.set()
            await asyncio.sleep(faults.delay_s)
            writer.write(data)
            await writer.drain()

    async def _down(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults, trickles: asyncio.Event
    ) -> None:
        left = self._rng.randint(faults.cut_low, faults.cut_high) if faults.cut_high else -1
        clock = asyncio.get_running_loop().time
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_PIECES_ON_THE_WAY)

        async def fill() -> None:
            # Bytes on their way do not hold up those behind them.
            async for data in self._pieces(reader):
                await queue.put((clock() + faults.delay_s, data))
            await queue.put((0.0, b""))

        filling = asyncio.create_task(fill())
        try:
            while True:
                due, data = await queue.get()
                if not data:
                    return
                await asyncio.sleep(due - clock())
                if faults.pause_chance and self._rng.random() < faults.pause_chance:
                    self.nfaults += 1
                    await asyncio.sleep(faults.pause_s)
                if faults.rate:
                    await asyncio.sleep(len(data) / faults.rate)
                if 0 <= left < len(data):
                    self.nfaults += 1
                    if not faults.flip:
                        writer.write(data[:left])
                        await writer.drain()
                        return
                    data = data[:left] + bytes([data[left] ^ 1 << self._rng.randrange(8)]) + data[left + 1 :]
                    left = -1
                left -= len(data) if left >= 0 else 0
                if trickles.is_set():
                    await self._trickle(data, writer)
                    continue
                self.nbytes += len(data)
                writer.write(data)
                await writer.drain()
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)

    async def _trickle(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        while data:
            await asyncio.sleep(TRICKLE_S)
            nbytes = max(1, round(self.trickle_rate * TRICKLE_S))
            writer.write(data[:nbytes])
            await writer.drain()
            self.nbytes += len(data[:nbytes])
            data = data[nbytes:]


@contextmanager
def tampering_proxy(target: str, tamper: Tamper, headers: list[str] | None = None) -> Iterator[str]:
    """A proxy that understands what it passes on: ``tamper(path, body)`` gives the body that comes out.

    The heads of requests are put in ``headers``.
    """
    parts = urlsplit(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if headers is not None:
                headers.append(str(self.headers))
            if self.headers.get("Upgrade"):
                self.send_error(501)
                return
            service = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            try:
                service.request(self.command, self.path, body, dict(self.headers))
                answer = service.getresponse()
                data = tamper(self.path, answer.read())
            finally:
                service.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _pass

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
