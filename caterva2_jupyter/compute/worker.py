"""A process that computes for another one, and may die without harm (``python -m caterva2_jupyter.compute.worker FD``).

It knows one socket and nothing else: no files, no secrets, bounded memory and time. Frames are ``u32 n``, n bytes of
JSON, then the buffers whose lengths are in its ``sizes``. Asked ``{"job", "arguments", "last"}``, it answers
``{"result"}`` or ``{"error", "status"}``; while ``last`` is false, and for what a job wants to know, it asks for more
with ``{"next"}`` first.
``web.compute_pool`` starts it, watches it and ends it.
"""

from __future__ import annotations

import json
import math
import os
import resource
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ..errors import Caterva2Error, IntegrityError, RequestError, TooLargeError, error_to_json
from .evaluate_job import ASKING, AskingJob
from .jobs import JOBS, STREAMED, Answer, Job, StreamedJob
from .records import Buffer

__all__ = ["HEAD", "frame_head", "main"]

HEAD = struct.Struct("<I")
_JOINED_NBYTES = 1 << 16


def frame_head(form: Mapping[str, Any], buffers: Sequence[Buffer]) -> bytes:
    """The beginning of a frame; its buffers follow."""
    text = json.dumps({**form, "sizes": [len(b) for b in buffers]}, separators=(",", ":")).encode()
    return HEAD.pack(len(text)) + text


class _Gone(Exception):
    """The other end closed."""


class _Aborted(Exception):
    """The other end wants no answer any more."""


class _Channel:
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def receive(self) -> tuple[dict[str, Any], list[Buffer]]:
        (size,) = HEAD.unpack(self._exactly(HEAD.size))
        form: dict[str, Any] = json.loads(self._exactly(size))
        whole = memoryview(self._exactly(sum(form["sizes"])))
        buffers: list[Buffer] = []
        position = 0
        for nbytes in form["sizes"]:
            buffers.append(whole[position : position + nbytes])
            position += nbytes
        return form, buffers

    def _exactly(self, nbytes: int) -> bytearray:
        data = bytearray(nbytes)
        view, position = memoryview(data), 0
        while position < nbytes:
            try:
                count = self._socket.recv_into(view[position:])
            except OSError:
                count = 0
            if not count:
                raise _Gone
            position += count
        return data

    def send(self, form: Mapping[str, Any], buffers: Sequence[Buffer] = ()) -> None:
        parts: list[Buffer] = [frame_head(form, buffers)]
        for buffer in buffers:
            if len(buffer) >= _JOINED_NBYTES:
                self._put(b"".join(parts))
                self._put(buffer)
                parts = []
            else:
                parts.append(buffer)
        self._put(b"".join(parts))

    def _put(self, data: Buffer) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            raise _Gone from None


class _Parts:
    """Parts of a job's buffers; the next one is on its way while one is worked at."""

    def __init__(self, channel: _Channel, first: list[Buffer], last: bool) -> None:
        self._channel, self._part = channel, first
        self._asked = False
        self._ask(last)

    def _ask(self, last: bool) -> None:
        if not last:
            self._channel.send({"next": True})
            self._asked = True

    def __iter__(self) -> Iterator[Sequence[Buffer]]:
        yield self._part
        while self._asked:
            self._part = self._receive()
            yield self._part

    def _receive(self) -> list[Buffer]:
        form, buffers = self._channel.receive()
        self._asked = False
        if form.get("abort"):
            raise _Aborted
        self._ask(form["last"])
        return buffers

    def ask(self, want: object) -> list[Buffer]:
        """Ask for something that only the other end can get, and wait for it."""
        self._channel.send({"next": want})
        return self._receive()

    def drain(self) -> None:
        """Take what is on its way: an answer goes out only after it."""
        if self._asked:
            self._channel.receive()
            self._asked = False


def main(
    arguments: Sequence[str],
    jobs: Mapping[str, Job] = JOBS,
    streamed: Mapping[str, StreamedJob] = STREAMED,
    asking: Mapping[str, AskingJob] = ASKING,
) -> int:
    """Answer until the other end closes.

    Parameters
    ----------
    arguments : sequence of str
        Number of the socket, bytes of memory, seconds of CPU time for each job.
    """
    connection = socket.socket(fileno=int(arguments[0]))
    connection.setblocking(True)
    max_nbytes, cpu_s = int(arguments[1]), int(arguments[2])
    _confine(max_nbytes)
    channel = _Channel(connection)
    with suppress(_Gone):
        while True:
            form, buffers = channel.receive()
            _limit_time(cpu_s)
            parts = _Parts(channel, buffers, form["last"])
            answer, out = _answer(form, partial(_do, parts, jobs, streamed, asking), max_nbytes)
            parts.drain()
            channel.send(answer, out)
    return 0


def _answer(
    form: Mapping[str, Any], do: Callable[[str, Mapping[str, Any]], Answer], max_nbytes: int
) -> tuple[dict[str, Any], list[Buffer]]:
    try:
        result, buffers = do(form["job"], form["arguments"])
    except Caterva2Error as error:
        return _refusal(error), []
    except _Aborted:
        return _refusal(RequestError("not wanted any more")), []
    except MemoryError:
        return _refusal(TooLargeError(f"it needs more than {max_nbytes >> 20} MiB of memory: ask for less")), []
    except _Gone:
        raise
    except Exception as error:  # whatever bytes from elsewhere can do to NumPy and Blosc2
        line = (str(error) or type(error).__name__).splitlines()[0][:300]
        return _refusal(IntegrityError(f"{form['job']} fails with {type(error).__name__}: {line}")), []
    return {"result": result}, buffers


def _refusal(error: Caterva2Error) -> dict[str, Any]:
    return {"error": error_to_json(error), "status": error.status}


def _do(
    parts: _Parts,
    jobs: Mapping[str, Job],
    streamed: Mapping[str, StreamedJob],
    asking: Mapping[str, AskingJob],
    name: str,
    arguments: Mapping[str, Any],
) -> Answer:
    if name in asking:
        return asking[name](arguments, parts.ask)
    if name in streamed:
        return streamed[name](arguments, iter(parts))
    if name in jobs:
        return jobs[name](arguments, [buffer for part in parts for buffer in part])
    raise RequestError(f"no job {name!r}")


def _confine(max_nbytes: int) -> None:
    """No core dumps, bounded memory, no new files, and a directory in which relative names find nothing."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        # What the interpreter and its libraries have mapped by now is not counted.
        with open("/proc/self/statm", encoding="ascii") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + max_nbytes, mapped + max_nbytes))
    with suppress(OSError):
        nowhere = tempfile.mkdtemp(prefix="caterva2-")
        os.chdir(nowhere)
        os.rmdir(nowhere)


def _limit_time(cpu_s: int) -> None:
    """From now on so many seconds of CPU time; the system ends the process after them, whoever watches."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + cpu_s, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
