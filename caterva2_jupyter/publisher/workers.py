"""More processes that serve the same root on the same port, started and kept by the one that has the index.

They accept from the same sockets. Only this process scans, watches and writes the index; it tells the others what
changes, and answers what they are asked to look at. One that dies is started again; when this one dies, they end.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from contextlib import suppress

from ..config import PublisherConfig
from ..errors import Caterva2Error, ResyncError, error_to_json
from ..storage.event_hub import EventHub
from ..web.source_handlers import Announcer
from .messages import Channel, config_to_json

__all__ = ["WorkerPool"]

log = logging.getLogger("caterva2_jupyter.publisher")

READY_S = 60.0
RESTART_S = (0.5, 30.0)
STOP_S = 2.0


class WorkerPool:
    """The other processes of a publisher.

    Parameters
    ----------
    config : PublisherConfig
        ``workers`` says how many processes serve, this one included.
    url : str
        By which others reach the publisher.
    sockets : sequence of socket
        That listen already.
    announcer : Announcer
        Looks at paths that the others are asked to announce.
    hub : EventHub
        Where changes of the root are told.
    """

    def __init__(
        self, config: PublisherConfig, url: str, sockets: Sequence[socket.socket], announcer: Announcer, hub: EventHub
    ) -> None:
        self._config, self._url, self._sockets = config, url, sockets
        self._announcer, self._hub = announcer, hub
        self._keeping: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start them; returns when they serve (or do not, which is logged, and tried again)."""
        serving = [asyncio.Event() for _ in range(self._config.workers - 1)]
        self._keeping = [asyncio.create_task(self._keep(event)) for event in serving]
        try:
            async with asyncio.timeout(READY_S):
                for event in serving:
                    await event.wait()
        except TimeoutError:
            log.warning("not all of %d workers serve yet", self._config.workers)

    async def stop(self) -> None:
        """End them."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def _keep(self, serving: asyncio.Event) -> None:
        pause_s = RESTART_S[0]
        while True:
            serving.clear()
            try:
                await self._run(serving)
            except (OSError, ValueError) as error:
                log.warning("cannot start a worker: %s", error)
            else:
                log.warning("a worker ended: another one is started")
            if serving.is_set():
                pause_s = RESTART_S[0]
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RESTART_S[1])

    async def _run(self, serving: asyncio.Event) -> None:
        """One process, from its start to its end."""
        ours, theirs = socket.socketpair()
        try:
            fds = [theirs.fileno(), *(s.fileno() for s in self._sockets)]
            arguments = ["-m", "caterva2_jupyter.publisher.worker", *map(str, fds)]
            process = await asyncio.create_subprocess_exec(sys.executable, *arguments, pass_fds=fds, stdin=DEVNULL)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        channel = Channel(*await asyncio.open_connection(sock=ours))
        telling = asyncio.create_task(self._tell(channel))
        try:
            await channel.send({"type": "begin", "config": config_to_json(self._config), "url": self._url})
            while (message := await channel.receive()) is not None:
                if message["type"] == "serving":
                    serving.set()
                elif message["type"] == "announce":
                    await channel.send({"type": "announced", "id": message["id"], **await self._announce(message)})
        finally:
            telling.cancel()
            channel.close()  # which tells it to end
            await _end(process)

    async def _announce(self, message: dict[str, str]) -> dict[str, object]:
        try:
            await self._announcer.announce(message["root"], message["path"])
        except Caterva2Error as error:
            return {"error": error_to_json(error), "status": error.status}
        return {"error": None}

    async def _tell(self, channel: Channel) -> None:
        with self._hub.listen() as listener:
            while True:
                try:
                    batch = await listener.get()
                except ResyncError:
                    await channel.send({"type": "resync"})
                    continue
                if batch is not None:
                    await channel.send(batch.to_json())


async def _end(process: Process) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await process.wait()
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
