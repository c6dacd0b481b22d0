"""An application in a thread of its own, asked through plain sockets: nothing tidies a path on its way."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from tornado.web import Application

from caterva2_jupyter.config import Address, NetworkConfig
from caterva2_jupyter.web.serve import Listener, listen

T = TypeVar("T")
DEADLINE_S = 20


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """Serves what ``make`` makes (inside the loop); ``stop`` is awaited at the end."""

    def __init__(
        self,
        make: Callable[[], Awaitable[Application]],
        stop: Callable[[], Awaitable[None]] | None = None,
        network: NetworkConfig | None = None,
    ) -> None:
        self._make, self._stop, self._network = make, stop, network or NetworkConfig()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._up = threading.Event()
        self._problem: BaseException | None = None

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._down = asyncio.Event()
        try:
            application = await self._make()
            self.listener: Listener = listen(application, Address("localhost", 0), self._network)
        except BaseException as error:
            self._problem = error
            self._up.set()
            raise
        self._up.set()
        await self._down.wait()
        await self.listener.close()
        if self._stop is not None:
            await self._stop()

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._up.wait(DEADLINE_S)
        if self._problem is not None:
            raise self._problem
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return self.listener.url

    @property
    def port(self) -> int:
        return self.listener.address.port

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    def request(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | str | None = None
    ) -> Answer:
        """One request; ``target`` is sent as it is."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=DEADLINE_S)
        try:
            # http.client refuses targets that real attackers send.
            connection._validate_path = lambda url: None  # type: ignore[method-assign]
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> Answer:
        return self.request("GET", target, {k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, target: str, form: object, **headers: str) -> Answer:
        body = form if isinstance(form, (bytes, str)) else json.dumps(form)
        return self.request("POST", target, {k.replace("_", "-"): v for k, v in headers.items()}, body)
