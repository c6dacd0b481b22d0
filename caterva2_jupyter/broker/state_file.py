"""The registry on disk: one small JSON file, replaced as a whole.

It survives a kill at any moment. Blocking: ``broker`` calls it in a thread.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ..errors import ConfigError, IntegrityError
from ..storage.durable_file import replace_durably
from .registry import Registry

__all__ = ["StateFile"]

logger = logging.getLogger(__name__)


class StateFile:
    """``db.json`` in the broker's state directory; also reads the older system's.

    Parameters
    ----------
    statedir : Path
        Made when it is not there.
    """

    def __init__(self, statedir: Path) -> None:
        self.path = statedir / "db.json"

    def load(self) -> Registry:
        """What was saved; an empty registry when there is nothing, or nothing usable.

        Raises
        ------
        ConfigError
            When the directory cannot be made or the file not be read.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = self.path.read_text()
        except FileNotFoundError:
            return Registry()
        except UnicodeDecodeError:
            text = ""
        except OSError as error:
            raise ConfigError(f"cannot use {error.filename}: {error.strerror}; set statedir under [broker]") from None
        try:
            return Registry.from_json(json.loads(text))
        except (ValueError, RecursionError, IntegrityError) as error:
            aside = self.path.with_suffix(".json.corrupt")
            self.path.replace(aside)
            logger.warning("%s is damaged (%s): kept as %s, starting with no roots", self.path, error, aside.name)
            return Registry()

    def save(self, form: dict[str, Any]) -> None:
        """Replace the file; the old one stays whole until the new one is."""
        replace_durably(self.path, json.dumps(form, indent=1).encode())
