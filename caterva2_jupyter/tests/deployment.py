"""The services that are checked: started for it, or those that a client finds."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ..client.client import Client, connect
from ..errors import NotFoundError
from ..tools.children import Child, find_example_root, started

__all__ = ["Deployment", "ExternalDeployment", "OwnDeployment"]


class Deployment(Protocol):
    """Services to check.

    Attributes
    ----------
    root : str
        A root that is online.
    directory : Path
        Where programs are run.
    environment : mapping
        What lets programs find the subscriber.
    """

    root: str
    directory: Path
    environment: Mapping[str, str]

    def client(self) -> Client:
        """A client of the subscriber."""
        ...


class OwnDeployment:
    """A broker, a publisher of the example root (``foo``) and one of an HDF5 file (``hdf5``), and a subscriber.

    Parameters
    ----------
    state : Path
        Made anew; left behind for inspection.
    """

    root = "foo"

    def __init__(self, state: Path) -> None:
        self.directory = state.absolute()
        self.environment: Mapping[str, str] = {}
        self._stack = ExitStack()
        self._has_user = False

    def __enter__(self) -> Self:
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / "logs").mkdir(parents=True)
        shutil.copytree(find_example_root(), self.directory / "root-example")
        (self.directory / "empty.toml").write_text("# Nothing is taken from a caterva2.toml that happens to be here.\n")
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        self.broker = self.start("broker", "broker.app", "--statedir=bro")
        self.start("publisher-foo", "publisher.app", *self.at_broker, "--statedir=pub.foo", "foo", "root-example")
        self.subscriber = self.start("subscriber", "subscriber.app", *self.at_broker, "--statedir=sub")
        if find_spec("argon2") is not None:  # it starts while others do
            secret, state = secrets.token_hex(16), "--statedir=sub.users"
            self._with_users = self.start(
                "subscriber-users", "subscriber.app", *self.at_broker, state, CATERVA2_SECRET=secret
            )
        self.environment = {"CATERVA2_URL": self.subscriber.url()}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def at_broker(self) -> list[str]:
        return [f"--broker={self.broker.url()}"]

    def start(self, name: str, module: str, *arguments: str, **environment: str) -> Child:
        """Start a service more; it is stopped at the end."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CATERVA2_")}
        package = __name__.partition(".")[0]
        paths = [
            f"{key}={self.directory / value}" if key == "--statedir" else text
            for text in arguments
            for key, _, value in [text.partition("=")]
        ]
        paths = [str(self.directory / text) if (self.directory / text).exists() else text for text in paths]
        return self._stack.enter_context(
            started(
                name,
                [f"{package}.{module}", f"--conf={self.directory / 'empty.toml'}", "--http=127.0.0.1:0", *paths],
                self.directory / "logs",
                {**clean, "PYTHONUNBUFFERED": "1", **environment},
            )
        )

    def client(self) -> Client:
        return connect(self.subscriber.url())

    def subscriber_with_users(self) -> str:
        """URL of a subscriber with the user ``ada@example.org``."""
        url = self._with_users.url()
        if not self._has_user:
            package = __name__.partition(".")[0]
            where = [f"--conf={self.directory / 'empty.toml'}", f"--statedir={self.directory / 'sub.users'}"]
            add = [sys.executable, "-m", f"{package}.subscriber.add_user", *where, "ada@example.org", "correct horse"]
            subprocess.run(add, check=True, timeout=60)
            self._has_user = True
        return url


class ExternalDeployment:
    """The services that ``connect()`` finds; nothing is changed there.

    Raises
    ------
    NotFoundError
        When no root is online.
    """

    def __init__(self) -> None:
        self.environment: Mapping[str, str] = {}
        self._temporary = tempfile.TemporaryDirectory()
        self.directory = Path(self._temporary.name)
        self.root = ""

    def __enter__(self) -> Self:
        with self.client() as client:
            self.environment = {"CATERVA2_URL": client.url_base}
            online = [name for name, status in client.roots.items() if status.online and not name.startswith("@")]
        if not online:
            raise NotFoundError("no root is online at the subscriber that was found: start a publisher")
        self.root = online[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def client(self) -> Client:
        return connect()
