"""The worker processes in which HDF5 runs, seen from outside: requests in, plain values out.

A process that crashes or hangs is killed and started again; the file that does it again is set aside with a
reason until it changes. This module and its callers never import h5py. What the answers mean is
``hdf5_file``'s business.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import Caterva2Error, IntegrityError, SourceUnavailableError, UnsupportedDatasetError
from .hdf5_chunks import CHUNK_TABLE
from .hdf5_process import HEAD

__all__ = ["Hdf5Worker", "StoredDataset"]

_MAX_TEXT_NBYTES = 1 << 30
_CACHE_NBYTES = 64 << 20
_MAX_SKIPPED = 8
_MAX_REMEMBERED = 10_000
T = TypeVar("T")

_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class StoredDataset:
    """Where a dataset's values are.

    Attributes
    ----------
    node : dict
        What ``hdf5_dataset.describe`` says.
    chunks : ndarray of CHUNK_TABLE
        The stored chunks, ascending by number.
    """

    node: dict[str, Any]
    chunks: npt.NDArray[np.void]


class _GoneError(Exception):
    """The process died or did not answer in time."""


class _SilentError(_GoneError):
    """It did not answer in time."""


class Hdf5Worker:
    """A few worker processes, started when they are needed. Safe to use from several threads.

    Parameters
    ----------
    processes : int
        Most of them at once.
    timeout_s : float
        Longest silence of a process at work before it is killed.
    program : str
        Module that the processes run.
    """

    def __init__(
        self, processes: int = 2, timeout_s: float = 60.0, program: str = "caterva2_jupyter.storage.hdf5_process"
    ) -> None:
        self._timeout_s = timeout_s
        self._program = program
        self._places = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._closed = False
        self._quarantine: OrderedDict[str, str] = OrderedDict()
        self._skipped: OrderedDict[str, set[str]] = OrderedDict()
        self._datasets: _Cache[StoredDataset] = _Cache(_CACHE_NBYTES)
        self._decoded: _Cache[tuple[dict[str, Any], bytes]] = _Cache(_CACHE_NBYTES)

    def index(self, fd: int, state: str) -> list[dict[str, Any]]:
        """Objects of an open file; those at which the library dies or hangs are told as broken.

        Parameters
        ----------
        fd : int
        state : str
            The file's generation, to remember failures by.

        Raises
        ------
        IntegrityError
            When HDF5 cannot open it.
        UnsupportedDatasetError
            When HDF5 did not survive it.
        """
        self._refuse_quarantined(state)
        skip = self._skipped.get(state)
        reason = ""
        for _ in range(_MAX_SKIPPED + 1):
            nodes: list[dict[str, Any]] = []
            at = ""
            form = {"ask": "index"} if skip is None else {"ask": "index", "skip": sorted(skip)}
            # Object by object, after a first failure: none of them takes long.
            timeout_s = self._timeout_s if skip is None else min(self._timeout_s, 10.0)
            try:
                for answer, body in self._exchange(form, fd, IntegrityError, timeout_s):
                    at = str(answer.get("at", at))
                    nodes += json.loads(body) if body else []
            except _GoneError as error:
                self._refuse_closed()
                reason = f"the HDF5 library {error} while reading it"
                if skip is None:
                    skip = set()
                elif at and at not in skip:
                    skip.add(at)
                else:
                    break
            else:
                if skip is not None:
                    self._remember(self._skipped, state, skip)
                return nodes
        self._remember(self._quarantine, state, reason)
        raise UnsupportedDatasetError(reason)

    def dataset(self, fd: int, state: str, path: str, shape: Sequence[int]) -> StoredDataset:
        """How the dataset at ``path`` is stored, as far as that shape goes (kept for the next time)."""
        key = f"{state}\0{path}\0{list(shape)}"
        if (known := self._datasets.get(key)) is not None:
            return known
        answer = self._one({"ask": "dataset", "path": path, "shape": list(shape)}, fd, f"{state}\0{path}")
        found = StoredDataset(answer[0], np.frombuffer(answer[1], CHUNK_TABLE))
        self._datasets.put(key, found, found.chunks.nbytes + 4096)
        return found

    def attributes(self, fd: int, state: str, path: str) -> dict[str, Any]:
        """All attributes of the object at ``path``."""
        return self._one({"ask": "attributes", "path": path}, fd, f"{state}\0{path}")[0]

    def sources(self, fd: int, state: str, paths: Sequence[str]) -> list[dict[str, Any]]:
        """What the values at each path of a source of a virtual dataset come from."""
        answer, _ = self._one({"ask": "sources", "paths": list(paths)}, fd, f"{state}\0sources")
        return list(answer["sources"])

    def read(
        self, fd: int, state: str, path: str, start: Sequence[int], stop: Sequence[int], name: str = ""
    ) -> tuple[dict[str, Any], bytes]:
        """A box of a dataset, decoded (the last ones are kept).

        Parameters
        ----------
        state : str
            Of every file that the values come from.
        name : str
            Path to open in place of ``fd``: for virtual datasets, whose sources lie relative to it.
        """
        key = f"{state}\0{path}\0{list(start)}\0{list(stop)}"
        if (known := self._decoded.get(key)) is not None:
            return known
        form = {"ask": "read", "path": path, "start": list(start), "stop": list(stop), "name": name}
        answer = self._one(form, fd, f"{state}\0{path}", IntegrityError)
        self._decoded.put(key, answer, len(answer[1]) + 1024)
        return answer

    def _one(
        self, form: dict[str, Any], fd: int, state: str, failure: type[Caterva2Error] = UnsupportedDatasetError
    ) -> tuple[dict[str, Any], bytes]:
        answers = list(self._ask(form, fd, state, failure))
        if len(answers) != 1:
            raise UnsupportedDatasetError("the reader of HDF5 files gave no answer")
        return answers[0]

    def close(self) -> None:
        """End the processes, those at work too."""
        with self._lock:
            self._closed = True
            processes = [*self._idle, *self._busy]
            self._idle.clear()
        for process in processes:
            process.kill()

    def _ask(
        self, form: dict[str, Any], fd: int, state: str, failure: type[Caterva2Error]
    ) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Answers; what kills the process twice is refused from then on."""
        self._refuse_quarantined(state)
        for attempt in (1, 2):
            try:
                # All of them at once: an answer that is cut short is none.
                return iter(list(self._exchange(form, fd, failure, self._timeout_s)))
            except _GoneError as error:
                self._refuse_closed()
                # Once more after a crash, which may have had another cause; never after a hang.
                if attempt == 2 or isinstance(error, _SilentError):
                    reason = f"the HDF5 library {error} while reading it"
                    self._remember(self._quarantine, state, reason)
                    raise UnsupportedDatasetError(reason) from error
        raise AssertionError

    def _refuse_quarantined(self, state: str) -> None:
        if reason := self._quarantine.get(state):
            raise UnsupportedDatasetError(reason)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise SourceUnavailableError("the reader of HDF5 files is closed")

    def _remember(self, memory: OrderedDict[str, T], state: str, value: T) -> None:
        with self._lock:
            memory[state] = value
            while len(memory) > _MAX_REMEMBERED:
                memory.popitem(last=False)

    def _exchange(
        self, form: dict[str, Any], fd: int, failure: type[Caterva2Error], timeout_s: float
    ) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Answers of one process as they come.

        Raises
        ------
        _GoneError
        """
        problem = ""
        with self._process() as process:
            for answer in process.ask(form, fd, timeout_s):
                if "error" in answer[0]:
                    problem = str(answer[0]["error"])
                else:
                    yield answer
        if problem:
            raise failure(problem)

    @contextmanager
    def _process(self) -> Iterator[_Process]:
        with self._places:
            with self._lock:
                self._refuse_closed()
                process = self._idle.pop() if self._idle else _Process(self._program)
                self._busy.add(process)
            try:
                yield process
            finally:
                with self._lock:
                    self._busy.discard(process)
                    keep = process.is_ready and not self._closed
                    if keep:
                        self._idle.append(process)
                if not keep:
                    process.kill()


class _Process:
    """One worker process and the socket to it."""

    def __init__(self, program: str) -> None:
        self._channel, theirs = socket.socketpair()
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment["HDF5_USE_FILE_LOCKING"] = "FALSE"  # sources of virtual datasets are opened by the library
        paths = [str(_PACKAGE), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(p for p in paths if p)
        command = [sys.executable, "-m", program, str(theirs.fileno())]
        with theirs:
            self._child = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # A Ctrl+C in the terminal is the service's business.
                start_new_session=True,
            )
        self.is_ready = True

    def ask(self, form: dict[str, Any], fd: int, timeout_s: float) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Answers to a request, as they come.

        Raises
        ------
        _GoneError
        """
        self.is_ready = False  # until the last answer: whoever stops listening leaves it unusable
        text = json.dumps(form, separators=(",", ":")).encode()
        self._channel.settimeout(timeout_s)
        try:
            socket.send_fds(self._channel, [HEAD.pack(len(text), 0)], [fd])
            self._channel.sendall(text)
            while True:
                size, body_size = HEAD.unpack(self._receive(HEAD.size))
                if size > _MAX_TEXT_NBYTES or body_size > 1 << 33:
                    raise _GoneError("answered nonsense")
                answer = json.loads(self._receive(size))
                body = self._receive(body_size)
                if answer.get("end"):
                    self.is_ready = True
                    return
                yield answer, body
        except (OSError, ValueError) as error:
            raise _GoneError("crashed") from error

    def _receive(self, nbytes: int) -> bytes:
        buffer = bytearray(nbytes)
        view, position = memoryview(buffer), 0
        while position < nbytes:
            try:
                count = self._channel.recv_into(view[position:])
            except TimeoutError:
                raise _SilentError(f"did not answer for {self._channel.gettimeout():g} s") from None
            if count == 0:
                raise _GoneError("crashed")
            position += count
        return bytes(buffer)

    def __del__(self) -> None:
        # A worker that nobody closed: its processes go with the last reference to it.
        if hasattr(self, "_child"):
            self.kill()

    def kill(self) -> None:
        self.is_ready = False
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._child.kill()
        self._child.wait()
        with suppress(OSError):
            self._channel.close()


class _Cache(Generic[T]):
    """The values used last, up to a number of bytes."""

    def __init__(self, max_nbytes: int) -> None:
        self._max_nbytes = max_nbytes
        self._nbytes = 0
        self._lock = threading.Lock()
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()

    def get(self, key: str) -> T | None:
        with self._lock:
            if (found := self._values.get(key)) is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: str, value: T, nbytes: int) -> None:
        with self._lock:
            if (before := self._values.pop(key, None)) is not None:
                self._nbytes -= before[1]
            self._values[key] = (value, nbytes)
            self._nbytes += nbytes
            while self._nbytes > self._max_nbytes and len(self._values) > 1:
                self._nbytes -= self._values.popitem(last=False)[1][1]
