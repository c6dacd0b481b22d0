"""Processes that a benchmark starts, stops, and charges for their processor time; readers among them."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Process", "Reader", "cpu_s", "free_port", "peak_memory_nbytes", "resident_nbytes", "wait_for_port"]

START_DEADLINE_S = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(host: str, port: int, process: Process) -> None:
    """Until something answers there."""
    end = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            socket.create_connection((host, port), 5).close()
            return
        except OSError as error:
            if process.popen.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.command} does not listen: {process.log.read_text()[-2000:]}") from error
            time.sleep(0.05)


class Process:
    """A service; its output goes to ``log``."""

    def __init__(self, command: Sequence[object], cwd: Path, environ: Mapping[str, str] | None = None) -> None:
        self.command = [str(part) for part in command]
        cwd.mkdir(parents=True, exist_ok=True)
        self.log = cwd / f"{Path(self.command[-1]).name[:20]}-{time.monotonic_ns()}.log"
        plain = {k: v for k, v in os.environ.items() if not k.startswith("CATERVA2_")}
        with self.log.open("wb") as sink:
            self.popen = subprocess.Popen(
                self.command,
                cwd=cwd,
                env=plain | dict(environ or {}),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.popen.pid, signal.SIGKILL)
                self.popen.wait()


class Reader:
    """A process of ``isolated/`` that reads what it is told."""

    def __init__(self, command: Sequence[object], log: Path, environ: Mapping[str, str] | None = None) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._sink = log.open("ab")
        plain = {k: v for k, v in os.environ.items() if not k.startswith("CATERVA2_")}
        self.popen = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._sink,
            env=plain | dict(environ or {}),
            bufsize=0,
        )
        self._rest = b""

    def wait_until_ready(self) -> None:
        if not self.answer(START_DEADLINE_S).get("ready"):
            raise RuntimeError(f"the reader did not start: see {self._sink.name}")

    def send(self, job: Mapping[str, object]) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(job).encode() + b"\n")

    def answer(self, deadline_s: float) -> dict[str, Any]:
        """The next answer; ``{"error": ...}`` when none comes in time."""
        assert self.popen.stdout is not None
        end = time.monotonic() + deadline_s
        fd = self.popen.stdout.fileno()
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                return {"error": f"no answer within {deadline_s:.0f} s", "late": True}
            part = os.read(fd, 65536)
            if not part:
                return {"error": f"the reader is gone: see {self._sink.name}", "late": True}
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout, self._sink):
            assert stream is not None
            stream.close()


def cpu_s(processes: Sequence[Process]) -> float:
    """Processor time of these and of their descendants so far."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
            ticks[int(entry)] = int(fields[11]) + int(fields[12])
    total, waiting = 0, [p.popen.pid for p in processes]
    while waiting:
        pid = waiting.pop()
        total += ticks.get(pid, 0)
        waiting += children.get(pid, [])
    return total / _TICKS


def resident_nbytes(process: Process) -> int:
    """What it has in memory now."""
    return _status(process, "VmRSS:")


def peak_memory_nbytes(process: Process) -> int:
    """The most that it had in memory at once."""
    return _status(process, "VmHWM:")


def _status(process: Process, field: str) -> int:
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(status.partition(field)[2].split()[0]) * 1024
