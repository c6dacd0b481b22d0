"""What all checks share: the services under test, and how programs are run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from importlib.util import find_spec
from typing import ClassVar, TypeVar

from ..client.client import Client
from .deployment import Deployment, OwnDeployment

__all__ = ["Case", "needs"]

T = TypeVar("T")


class Case(unittest.TestCase):
    """A check; ``deployment`` is set before it runs."""

    deployment: Deployment
    needs_own_services: ClassVar[bool] = False

    def setUp(self) -> None:
        if self.needs_own_services and not isinstance(self.deployment, OwnDeployment):
            self.skipTest("it would change services that are not its own")
        self.client: Client = self.deployment.client()
        self.addCleanup(self.client.close)

    @property
    def own(self) -> OwnDeployment:
        """The deployment, where ``needs_own_services``."""
        assert isinstance(self.deployment, OwnDeployment)
        return self.deployment

    def run_program(self, module: str, *arguments: str, check: bool = True) -> str:
        """Output of ``python -m caterva2_jupyter.MODULE`` with the services under test."""
        environment = {**os.environ, **self.deployment.environment, "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, "-m", f"{__name__.partition('.')[0]}.{module}", *arguments],
            env=environment,
            cwd=self.deployment.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check:
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return done.stdout
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, "an error is one line")
        return done.stderr

    def wait_for(self, condition: Callable[[], T], seconds: float = 20.0) -> T:
        """What ``condition`` returns once that is true."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                self.fail(f"nothing changed within {seconds} s")
            time.sleep(0.05)


def needs(package: str, extra: str) -> Callable[[T], T]:
    """Skip where a package is not installed, saying which extra brings it."""
    cure = f"{package} is not installed: pip install 'caterva2-jupyter[{extra}]'"
    return unittest.skipUnless(find_spec(package) is not None, cure)  # type: ignore[return-value]
