"""What a catalog knows from an earlier scan, by path, and what of it is inside of files that hold datasets.

Whether an entry still holds is ``directory_root``'s to find out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..core.metadata import Entry
from ..core.paths import is_at_or_below, parents
from .root import KnownEntry

__all__ = ["KnownEntries"]


class KnownEntries:
    """What is known from before, by path, and what of it is inside of HDF5 files."""

    def __init__(self, known: Iterable[KnownEntry]) -> None:
        self._known = {item.entry.path: item for item in known}
        self._inside: dict[str, list[KnownEntry]] | None = None

    def get(self, path: str) -> KnownEntry | None:
        return self._known.get(path)

    def at_or_below(self, path: str) -> list[str]:
        return [p for p in self._known if is_at_or_below(p, path)]

    def stored_below(self, file: KnownEntry) -> Iterator[tuple[Entry, str]]:
        """What is inside of a file that has datasets in it."""
        if file.entry.kind != "group":
            return
        if self._inside is None:
            self._inside = self._sort_by_file()
        for item in self._inside.get(file.entry.path, []):
            yield item.entry, item.stamp

    def _sort_by_file(self) -> dict[str, list[KnownEntry]]:
        inside: dict[str, list[KnownEntry]] = {
            path: [] for path, item in self._known.items() if item.entry.kind == "group" and item.entry.version
        }
        for path, item in self._known.items():
            for group in parents(path):
                if group in inside:
                    inside[group].append(item)
                    break
        return inside
