"""Grants that are changed in the configuration file while the service runs.

The file is looked at every second, and read once it has been quiet for that long: one that is half written could
grant more than is meant. Nothing else of it is taken up before the next start.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ..config import Grant, load_config
from ..errors import ConfigError
from ..storage.generation import Generation

__all__ = ["GrantsFile"]

log = logging.getLogger("caterva2_jupyter.subscriber")

LOOK_S = 1.0

Groups = Mapping[str, tuple[str, ...]]


class GrantsFile:
    """The file that grants are in.

    Parameters
    ----------
    file : Path
    ident : str
        Of the service's section.
    take : callable
        Called with grants and groups whenever they are others than before.
    look_s : float
        Seconds between two looks.
    """

    def __init__(
        self,
        file: Path,
        ident: str,
        take: Callable[[tuple[Grant, ...], Groups], None],
        look_s: float = LOOK_S,
    ) -> None:
        self._file, self._ident, self._take, self._look_s = file, ident, take, look_s

    async def follow(self) -> None:
        """Go on until cancelled."""
        read = seen = "not yet"
        while True:
            now = await asyncio.to_thread(self._stamp)
            if now != read and now == seen:
                read = now
                await self._read()
            seen = now
            await asyncio.sleep(self._look_s)

    def _stamp(self) -> str:
        try:
            return Generation.from_stat(os.stat(self._file)).stamp
        except OSError as error:
            return str(error.strerror)

    async def _read(self) -> None:
        try:
            grants, groups = (await asyncio.to_thread(load_config, self._file)).grants(self._ident)
        except ConfigError as error:
            log.warning("grants stay as they are: %s", error)
        else:
            self._take(grants, groups)
