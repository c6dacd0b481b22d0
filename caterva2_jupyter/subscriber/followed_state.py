"""Which roots are followed, across restarts: ``db.json`` of the state directory, as the older system has it.

A file that cannot be read is set aside, never fatal: following again puts everything right.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..config import Address
from ..core.roots import AnnouncedRoot
from ..errors import Caterva2Error, ConfigError

__all__ = ["FollowedState"]

logger = logging.getLogger(__name__)


class FollowedState:
    """The file of followed roots.

    Parameters
    ----------
    path : Path
        ``{"roots": {NAME: {"name", "http", "subscribed": true, "owner"}}}``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def load(self) -> list[AnnouncedRoot]:
        """The roots that are followed; none when there is no file."""
        try:
            roots = json.loads(self._path.read_bytes())["roots"].values()
            return [_parse(form) for form in roots if form.get("subscribed")]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError, Caterva2Error) as error:
            logger.warning("%s is not a list of followed roots (%s): it is set aside", self._path, error)
            with suppress(OSError):
                self._path.rename(self._path.with_name(self._path.name + ".corrupt"))
            return []

    def save(self, roots: Sequence[AnnouncedRoot]) -> None:
        """Replace the list, all or nothing."""
        form = {
            "roots": {r.name: {"name": r.name, "http": r.http, "subscribed": True, "owner": r.owner} for r in roots}
        }
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        with self._lock:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                part.write_text(json.dumps(form, indent=1))
                part.chmod(0o600)
                part.replace(self._path)
            except OSError as error:
                # Following works without; only a restart forgets it.
                logger.warning("cannot remember the followed roots in %s: %s", self._path, error)


def _parse(form: dict[str, object]) -> AnnouncedRoot:
    http = str(form.get("http") or "")
    if "://" not in http:  # as the older system writes it
        try:
            http = Address.parse(http).url
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return AnnouncedRoot.from_json({"name": form.get("name"), "http": http, "owner": form.get("owner")})
