"""Addresses that services listen on, and by which others reach them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..errors import ConfigError

__all__ = ["Address"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens: a host and port, or a unix socket."""

    host: str = ""
    port: int = 0
    socket_path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """``host:port``, ``[v6]:port``, ``*:port``, a path, or a URL of any of those.

        >>> Address.parse("localhost:8000").url
        'http://localhost:8000'
        """
        bare = text.removeprefix("http://").removeprefix("https://").rstrip("/")
        if ("://" in bare and not text.startswith("unix:")) or re.match(r"[^/]+:\d+/", bare):
            raise ConfigError(f"{text!r} is not an address: write host:port, no other scheme than http and no path")
        # Any other name without a port is a host whose port was forgotten.
        if "/" in bare or bare.endswith((".sock", ".socket")):
            return cls(socket_path=text.removeprefix("unix:"))
        host, _, port = bare.rpartition(":")
        if not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"{text!r} is not an address: write host:port, [v6]:port or /path/of/a/unix/socket")
        return cls(host=host.strip("[]"), port=int(port))

    @property
    def is_loopback(self) -> bool:
        return bool(self.socket_path) or self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def listen_host(self) -> str:
        return "" if self.host in ("*", "0.0.0.0") else self.host  # noqa: S104 - what users write, refused without a token

    @property
    def url(self) -> str:
        """The address as others reach it (``http+unix://%2Fpath`` for a socket)."""
        if self.socket_path:
            return "http+unix://" + os.path.abspath(self.socket_path).replace("%", "%25").replace("/", "%2F")
        return f"http://{self}"

    def __str__(self) -> str:
        if self.socket_path:
            return self.socket_path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
