"""Messages between a publisher's processes: JSON objects, each behind its length, over a pair of sockets.

Both ends are of one program and of one user, so what comes is believed. What the messages mean is ``workers``'
(the process that keeps the index) and ``worker``'s (those that only serve it).
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import Address, NetworkConfig, PublisherConfig

__all__ = ["Channel", "config_from_json", "config_to_json"]

_LENGTH = struct.Struct("<Q")


class Channel:
    """One end of a pair of sockets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other end is gone."""
        try:
            (nbytes,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            form: dict[str, Any] = json.loads(await self._reader.readexactly(nbytes))
        except (asyncio.IncompleteReadError, OSError):
            return None
        return form

    async def send(self, form: Mapping[str, Any]) -> None:
        """Send a message, and wait until the other end is not far behind; nothing happens when it is gone."""
        body = json.dumps(form, separators=(",", ":")).encode()
        try:
            self._writer.write(_LENGTH.pack(len(body)) + body)
            await self._writer.drain()
        except OSError:
            self._writer.close()

    def close(self) -> None:
        self._writer.close()


def config_to_json(config: PublisherConfig) -> dict[str, Any]:
    """What a process that serves needs of the configuration: all but the broker."""
    form = asdict(config)
    return form | {"root": str(config.root), "statedir": str(config.statedir), "broker": None}


def config_from_json(form: Mapping[str, Any]) -> PublisherConfig:
    """The reverse of ``config_to_json``."""
    return PublisherConfig(
        **{
            **form,
            "root": Path(form["root"]),
            "statedir": Path(form["statedir"]),
            "http": Address(**form["http"]),
            "network": NetworkConfig(**form["network"]),
        }
    )
