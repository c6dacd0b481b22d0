"""How kernels on this machine find the subscriber: a file that only this user can read.

It holds the address and a token that opens the subscriber only, never Jupyter itself. What reads it is
``client/discovery``.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

__all__ = ["VARIABLE", "ConnectionFile"]

VARIABLE = "CATERVA2_CONNECTION_FILE"


class ConnectionFile:
    """One server's file; ``token`` is new in each run.

    Parameters
    ----------
    directory : Path
        Jupyter's runtime directory.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / f"caterva2-{os.getpid()}.json"
        self.token = secrets.token_urlsafe(32)

    def write(self, url: str) -> None:
        """Write the file, and name it to processes that are started from now on.

        Raises
        ------
        OSError
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        with suppress(FileNotFoundError):
            part.unlink()
        # Made with its mode: there is no moment at which others could open it.
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump({"url": url, "token": self.token}, file)
        part.replace(self.path)
        os.environ[VARIABLE] = str(self.path)

    def remove(self) -> None:
        with suppress(OSError):
            self.path.unlink()
        if os.environ.get(VARIABLE) == str(self.path):
            del os.environ[VARIABLE]
