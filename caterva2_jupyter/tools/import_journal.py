"""What of an import is done, kept beside it: a second run goes on where the first was interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .copying import Report

__all__ = ["LOCK", "ImportJournal"]

LOCK = ".caterva2-lock"
_JOURNAL = ".caterva2-journal"


class ImportJournal:
    """One line of JSON for each dataset, after it is in place.

    Parameters
    ----------
    directory : Path
        Emptied when it is of another import.
    of : dict
        What the import is of.
    """

    def __init__(self, directory: Path, of: dict[str, Any]) -> None:
        self.of = of
        self.report = Report()
        self.done: dict[str, dict[str, Any]] = {}
        self._path = directory / _JOURNAL
        lines = self._path.read_text(errors="replace").splitlines() if self._path.exists() else []
        told = [form for line in lines if isinstance(form := _json_of(line), dict)]
        if not told or told[0] != of:
            for item in directory.iterdir():
                if item.name == LOCK:
                    continue
                shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
            self._path.write_text(json.dumps(of) + "\n")
        else:
            self.done = {str(form["path"]): form for form in told[1:] if "path" in form}
        self._file = self._path.open("a")
        self._file.write("\n")  # a line that was cut short ends here

    def add(self, path: str, how: str) -> None:
        self._file.write(json.dumps({"path": path, "how": how}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self._path.unlink()


def _json_of(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
