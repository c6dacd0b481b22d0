"""Child processes that decode and compute for a service: what they are given cannot harm the service itself.

Bytes that come from elsewhere crash, eat memory or go on for ever there, and the service answers with an error. A
worker is started when there is work for it, and ended when there has been none for a while. What jobs there are
says ``compute.jobs``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
import socket
import sys
import sysconfig
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..compute.records import Buffer
from ..compute.worker import HEAD, frame_head
from ..errors import (
    Caterva2Error,
    DeadlineError,
    IntegrityError,
    SourceUnavailableError,
    TooManyRequestsError,
    error_from_json,
)
from ..storage.closing import close_stream

__all__ = ["ComputePool"]

log = logging.getLogger("caterva2_jupyter.web")

WORKERS = 2
MAX_NBYTES = 2 << 30
TIMEOUT_S = 60.0
MAX_WAITING = 256
IDLE_S = 120.0
GRACE_S = 0.25
STOP_S = 2.0
START_S = 30.0
_WORKER = ("-m", "caterva2_jupyter.compute.worker")
_SOCKET_NBYTES = 1 << 20
_JOINED_NBYTES = 1 << 16
_TURN_NBYTES = 4 << 20
# All that finding Python and its libraries takes; tokens, secrets and settings of the server stay here.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE",
         "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX")  # fmt: skip

Answer = tuple[dict[str, Any], list[bytes]]
Answering = Callable[[Any], Awaitable[Sequence[Buffer]]]
_Following = Callable[[Any], Awaitable[tuple[Sequence[Buffer], bool]]]


class ComputePool:
    """Worker processes of one service.

    Parameters
    ----------
    nworkers : int
        At most so many processes.
    max_nbytes : int
        Memory of each, beyond what Python and its libraries take.
    timeout_s : float
        A job that computes longer is ended.
    max_waiting : int
        Jobs that may wait for a worker.
    idle_s : float
        A worker with nothing to do for so long is ended.
    program : sequence of str
        Arguments of Python that start a worker.

    Examples
    --------
    >>> async def main():
    ...     pool = ComputePool()
    ...     try:
    ...         return await pool.run("nothing", {})
    ...     finally:
    ...         await pool.stop()
    >>> asyncio.run(main())
    Traceback (most recent call last):
        ...
    caterva2_jupyter.errors.RequestError: no job 'nothing'
    """

    def __init__(
        self,
        nworkers: int = WORKERS,
        max_nbytes: int = MAX_NBYTES,
        timeout_s: float = TIMEOUT_S,
        max_waiting: int = MAX_WAITING,
        idle_s: float = IDLE_S,
        program: Sequence[str] = _WORKER,
    ) -> None:
        self._max_nbytes, self._timeout_s = max_nbytes, timeout_s
        self._max_waiting, self._idle_s, self._program = max_waiting, idle_s, tuple(program)
        self._turns = asyncio.Semaphore(nworkers)
        self._waiting = 0
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reaping: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def nprocesses(self) -> int:
        """Processes there are now."""
        return len(self._workers)

    async def run(
        self, job: str, arguments: Mapping[str, Any], buffers: Sequence[Buffer] | AsyncIterator[Sequence[Buffer]] = ()
    ) -> Answer:
        """Have a job done; cancelling ends it.

        Parameters
        ----------
        job : str
            One of ``compute.jobs``.
        arguments : mapping
            JSON.
        buffers : sequence of bytes-like, or async iterator of such sequences
            In parts, they never are in memory all at once. The iterator is closed in any case.

        Returns
        -------
        (dict, list of bytes)
            The job's answer.

        Raises
        ------
        Caterva2Error
            What the job or the iterator raises.
        IntegrityError
            When the process died: that is what damaged or hostile bytes can do.
        DeadlineError
            When it took too long.
        TooManyRequestsError
            When too many jobs wait.
        SourceUnavailableError
            When no process can be started, or the service is stopping.
        """
        parts = _one_part(buffers) if isinstance(buffers, Sequence) else buffers
        try:
            first: Sequence[Buffer] = await anext(parts, ())
            return await self._run(job, arguments, first, _parts_of(parts), last=isinstance(buffers, Sequence))
        finally:
            await close_stream(parts)

    async def converse(self, job: str, arguments: Mapping[str, Any], answer: Answering) -> Answer:
        """Have a job done that asks for what it needs, as it goes on.

        Parameters
        ----------
        job, arguments
            As of ``run``.
        answer : callable
            Told what the job asks for (JSON), it gives buffers. What it raises ends the job, and is raised.

        Raises
        ------
        As ``run``.
        """

        async def part(want: Any) -> tuple[Sequence[Buffer], bool]:
            return await answer(want), True

        return await self._run(job, arguments, (), part, last=True)

    async def _run(
        self,
        job: str,
        arguments: Mapping[str, Any],
        first: Sequence[Buffer],
        parts: _Following,
        *,
        last: bool,
    ) -> Answer:
        worker = await self._acquire()
        try:
            return await worker.do(job, arguments, first, parts, last=last)
        except _Died as error:
            raise await self._why(job, worker, error) from None
        finally:
            self._release(worker)

    async def _acquire(self) -> _Worker:
        if self._stopped:
            raise SourceUnavailableError("the service is stopping")
        if self._turns.locked() and self._waiting >= self._max_waiting:
            raise TooManyRequestsError(f"{self._waiting} computations wait here already: ask again in a moment")
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive:
                    return worker
                self._end(worker)
            if self._stopped:
                raise SourceUnavailableError("the service is stopping")
            worker = await _start(self._program, self._max_nbytes, self._timeout_s)
        except BaseException:
            self._turns.release()
            raise
        self._workers.add(worker)
        return worker

    def _release(self, worker: _Worker) -> None:
        """Whoever used a worker leaves it; one that is still at it gets a moment to come to its end."""
        if worker.is_ready and not self._stopped:
            self._keep(worker)
        elif worker.is_at_work and not self._stopped:
            self._spawn(self._settle(worker))
        else:
            self._end(worker)
            self._turns.release()

    def _keep(self, worker: _Worker) -> None:
        worker.since = time.monotonic()
        self._idle.append(worker)
        self._turns.release()
        if self._reaping is None:
            self._reaping = asyncio.get_running_loop().call_later(self._idle_s, self._reap)

    async def _settle(self, worker: _Worker) -> None:
        try:
            async with asyncio.timeout(GRACE_S):
                await worker.settle()
        except (TimeoutError, _Died):
            pass  # it is ended below
        finally:
            if worker.is_ready and not self._stopped:
                self._keep(worker)
            else:
                self._end(worker)
                self._turns.release()

    def _reap(self) -> None:
        self._reaping = None
        now = time.monotonic()
        kept = [worker for worker in self._idle if now - worker.since < self._idle_s]
        for worker in self._idle:
            if worker not in kept:
                self._end(worker)
        self._idle = kept
        if kept:
            wait_s = self._idle_s - (now - min(worker.since for worker in kept))
            self._reaping = asyncio.get_running_loop().call_later(max(wait_s, 0.01), self._reap)

    def _end(self, worker: _Worker) -> None:
        worker.kill()
        self._spawn(self._bury(worker))

    async def _bury(self, worker: _Worker) -> None:
        await worker.wait()
        self._workers.discard(worker)

    def _spawn(self, coroutine: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _why(self, job: str, worker: _Worker, died: _Died) -> Caterva2Error:
        if not died.is_late:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await worker.wait()
        worker.kill()
        code = await worker.wait()
        if died.is_late or code == -signal.SIGXCPU:
            return DeadlineError(f"{job} took over {self._timeout_s:g} s and was ended: ask for less")
        if self._stopped:
            return SourceUnavailableError("the service is stopping")
        if not worker.has_answered and code > 0:
            return SourceUnavailableError(f"the process for {job} does not start (it ended with {code})")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        log.warning("a process died of %s: %s", job, how)
        return IntegrityError(f"the process for {job} died ({how}): its data may be damaged")

    async def stop(self) -> None:
        """End all processes."""
        self._stopped = True
        if self._reaping is not None:
            self._reaping.cancel()
        self._idle.clear()
        for worker in list(self._workers):
            worker.kill()
        for worker in list(self._workers):
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await worker.wait()
        self._workers.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Died(Exception):
    """A worker is gone, or has to go."""

    def __init__(self, *, is_late: bool = False) -> None:
        super().__init__()
        self.is_late = is_late


class _Worker:
    """One process, and what is known of the job that it has."""

    def __init__(self, process: Process, connection: socket.socket, timeout_s: float) -> None:
        self._process, self._socket, self._timeout_s = process, connection, timeout_s
        self._reply: asyncio.Future[tuple[dict[str, Any], list[bytes]]] | None = None
        self._is_sending = False
        self.since = 0.0
        self.has_answered = False

    @property
    def is_ready(self) -> bool:
        """Can it take a job?"""
        return self._reply is None and not self._is_sending and self._process.returncode is None

    @property
    def is_at_work(self) -> bool:
        """Has it got all that it asked for, so that a reply comes or is there?"""
        return self._reply is not None and not self._is_sending and self._process.returncode is None

    @property
    def is_alive(self) -> bool:
        """Is it still there? An idle one sends nothing: the end of its stream is all that can be found."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return self.is_ready
        except OSError:
            return False
        return False

    async def do(
        self,
        job: str,
        arguments: Mapping[str, Any],
        part: Sequence[Buffer],
        parts: _Following,
        *,
        last: bool,
    ) -> Answer:
        """Have a job done; when this is cancelled or fails, ``is_at_work`` says whether it can ``settle``."""
        await self._send({"job": job, "arguments": arguments, "last": last}, part)
        while True:
            assert self._reply is not None
            # It goes on when whoever asked is cancelled: half a reply is of no use.
            form, buffers = await asyncio.shield(self._reply)
            if "next" not in form:
                break
            part, last = await parts(form["next"])
            await self._send({"last": last}, part)
        self._reply, self.has_answered = None, True
        if "error" in form:
            raise error_from_json(form["error"], form["status"])
        return form["result"], buffers

    async def settle(self) -> None:
        """Come to the end of a job that nobody waits for any more."""
        while self._reply is not None:
            form, _ = await asyncio.shield(self._reply)
            if "next" not in form:
                self._reply, self.has_answered = None, True
                return
            await self._send({"abort": True, "last": True}, ())

    async def _send(self, form: Mapping[str, Any], buffers: Sequence[Buffer]) -> None:
        loop = asyncio.get_running_loop()
        parts: list[Buffer] = [frame_head(form, buffers)]
        self._is_sending = True
        try:
            for buffer in buffers:
                if len(buffer) >= _JOINED_NBYTES:
                    await loop.sock_sendall(self._socket, b"".join(parts))
                    await loop.sock_sendall(self._socket, buffer)
                    parts = []
                else:
                    parts.append(buffer)
            await loop.sock_sendall(self._socket, b"".join(parts))
        except OSError:
            raise _Died from None
        self._is_sending = False
        self._reply = asyncio.ensure_future(self._receive())
        self._reply.add_done_callback(lambda reply: reply.cancelled() or reply.exception())

    async def _receive(self) -> tuple[dict[str, Any], list[bytes]]:
        try:
            # Before its first answer it has to start.
            async with asyncio.timeout(self._timeout_s + (0.0 if self.has_answered else START_S)):
                (size,) = HEAD.unpack(await self._exactly(HEAD.size))
                form: dict[str, Any] = json.loads(await self._exactly(size))
                return form, [bytes(await self._exactly(nbytes)) for nbytes in form["sizes"]]
        except OSError as error:
            raise _Died(is_late=isinstance(error, TimeoutError)) from None

    async def _exactly(self, nbytes: int) -> bytearray:
        loop = asyncio.get_running_loop()
        data = bytearray(nbytes)
        view, position, turn = memoryview(data), 0, 0
        while position < nbytes:
            count = await loop.sock_recv_into(self._socket, view[position:])
            if not count:
                raise ConnectionResetError
            position += count
            if position - turn >= _TURN_NBYTES:
                turn = position
                await asyncio.sleep(0)  # others' requests are answered meanwhile
        return data

    def kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for its end."""
        code = await self._process.wait()
        if self._reply is not None:
            with suppress(_Died):
                await self._reply  # the end of its stream; only then nothing reads from the socket
        self._socket.close()
        return code


def _parts_of(parts: AsyncIterator[Sequence[Buffer]]) -> _Following:
    """The next part whenever one is asked for."""

    async def following(want: Any) -> tuple[Sequence[Buffer], bool]:
        part = await anext(parts, None)
        return part or (), part is None

    return following


async def _one_part(buffers: Sequence[Buffer]) -> AsyncIterator[Sequence[Buffer]]:
    yield buffers


async def _start(program: Sequence[str], max_nbytes: int, timeout_s: float) -> _Worker:
    """Start a process, in a session of its own: signals to the service are not for it."""
    ours, theirs = socket.socketpair()
    try:
        for end in (ours, theirs):
            for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, direction, _SOCKET_NBYTES)
        ours.setblocking(False)
        numbers = (theirs.fileno(), max_nbytes, math.ceil(timeout_s))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a directory of notebooks may hold a numpy.py
            *program,
            *map(str, numbers),
            pass_fds=[theirs.fileno()],
            stdin=DEVNULL,
            env=_environment(),
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise SourceUnavailableError(f"cannot start a process to compute in ({error.strerror})") from error
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return _Worker(process, ours, timeout_s)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    package = str(Path(__file__).resolve().parents[2])
    if package not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        kept["PYTHONPATH"] = os.pathsep.join([*filter(None, [kept.get("PYTHONPATH")]), package])
    # One job, one core: there are as many workers as may be busy.
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1")
    return {**kept, **threads, "PYTHONDONTWRITEBYTECODE": "1"}
