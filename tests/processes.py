"""Services as processes of their own, on free ports, for tests that need the real thing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

START_DEADLINE_S = 120.0


def wait_for(condition: Callable[[], T], deadline_s: float = 60.0, message: str = "") -> T:
    """What ``condition`` returns once it is true, asked again and again; fails after a deadline."""
    end = time.monotonic() + deadline_s
    problem: object = None
    while True:
        try:
            value = condition()
            if value:
                return value
        except Exception as error:
            problem = error
        if time.monotonic() > end:
            raise AssertionError(f"{message or 'the condition'} did not hold within {deadline_s} s: {problem!r}")
        time.sleep(0.02)


class Service:
    """One service as a process; ``url`` is where it says that it listens."""

    def __init__(self, directory: Path, name: str, module: str, *arguments: object, **environ: str) -> None:
        self.directory, self.name = directory, name
        self.command = [sys.executable, "-m", module, *map(str, arguments)]
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("CATERVA2_")} | environ
        self.log = directory / f"{name}.log"
        self.url = ""
        self.start()

    def start(self, http: str | None = None) -> None:
        """Start it (again); ``http`` replaces the address to listen on."""
        command = list(self.command)
        if http is not None:
            command[command.index("--http") + 1] = http
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        self.url = wait_for(self._listening, START_DEADLINE_S, f"{self.name} ({self.log})")

    def _listening(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        if self.process.poll() is not None:
            pytest.fail(f"{self.name} stopped: {lines[-5:]}")
        return next((line.rsplit(" ", 1)[1] for line in lines if " listening on " in line), "")

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def kill(self) -> None:
        """What a crash is: no goodbye."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start again where it listened before."""
        self.start(self.address)

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"{self.name} did not stop on SIGTERM: {self.log.read_text()[-2000:]}") from None
        return self.process.returncode


class Network:
    """A broker, publishers and a subscriber over a directory of state; stopped by ``close``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.services: list[Service] = []
        self.broker: Service | None = None
        (directory / "empty.toml").write_text("")

    def _add(self, name: str, module: str, *arguments: object, **environ: str) -> Service:
        service = Service(
            self.directory, name, module, "--conf", "empty.toml", "--http", "127.0.0.1:0", *arguments, **environ
        )
        self.services.append(service)
        return service

    def start_broker(self, **environ: str) -> Service:
        self.broker = self._add("broker", "caterva2_jupyter.broker.app", "--statedir", "bro", **environ)
        return self.broker

    def _with_broker(self) -> list[object]:
        return ["--broker", self.broker.url if self.broker else ""]

    def start_publisher(self, name: str, root: Path, **environ: str) -> Service:
        return self._add(
            f"publisher-{name}",
            "caterva2_jupyter.publisher.app",
            *self._with_broker(),
            "--statedir",
            f"pub.{name}",
            name,
            root,
            **environ,
        )

    def start_subscriber(
        self,
        *arguments: object,
        name: str = "sub",
        module: str = "caterva2_jupyter.subscriber.app",
        **environ: str,
    ) -> Service:
        return self._add(
            f"subscriber-{name}",
            module,
            *self._with_broker(),
            "--statedir",
            name,
            *arguments,
            **environ,
        )

    def close(self) -> None:
        for service in reversed(self.services):
            if service.process.poll() is None:
                service.stop()
