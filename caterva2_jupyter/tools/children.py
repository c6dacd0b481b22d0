"""Services as processes of their own, for the demo and the self-check: started, found by what they print, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["START_DEADLINE_S", "Child", "ChildError", "find_example_root", "started"]

START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 10.0


class ChildError(Exception):
    """Something did not start or stopped; the message says what and where its log is."""


class Child:
    """A service in a process group of its own, its output in a log file.

    Parameters
    ----------
    name : str
    arguments : list of str
        Of ``python -m``.
    log : Path
    environment : mapping
    """

    def __init__(self, name: str, arguments: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name, self.log = name, log
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl+C comes to us alone; we stop the others in order
            )

    def check(self) -> None:
        """Raise when it has stopped by itself.

        Raises
        ------
        ChildError
        """
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            raise ChildError(f"{self.name} stopped: {' | '.join(tail) or 'no output'} (all of it: {self.log})")

    def url(self) -> str:
        """The URL of the line that says where the service listens; waits for it.

        Raises
        ------
        ChildError
        """
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            for line in self.log.read_text(errors="replace").splitlines():
                if " listening on " in line:
                    return line.rsplit(" ", 1)[1]
            self.check()
            time.sleep(0.05)
        raise ChildError(f"{self.name} did not say where it listens within {START_DEADLINE_S:.0f} s ({self.log})")

    def stop(self) -> None:
        """Ask it to stop, and make it."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, sign)
                try:
                    self.process.wait(STOP_DEADLINE_S)
                except subprocess.TimeoutExpired:
                    continue
        with suppress(ProcessLookupError):  # kernels that outlive their server
            os.killpg(self.process.pid, signal.SIGKILL)


@contextmanager
def started(name: str, arguments: list[str], logs: Path, environment: Mapping[str, str]) -> Iterator[Child]:
    """A service while the block runs."""
    child = Child(name, arguments, logs / f"{name}.log", environment)
    try:
        yield child
    finally:
        child.stop()


def find_example_root() -> Path:
    """The example root, of the repository or as it was installed."""
    source = Path(__file__).resolve().parents[2] / "root-example"
    return source if source.is_dir() else Path(sys.prefix) / "share" / "caterva2-jupyter" / "root-example"
