"""What everything that was found in a root has: the root's name, its path there, and an address."""

from __future__ import annotations

from ..core.metadata import Entry
from ..core.paths import name as last_name
from .address import DatasetAddress
from .session import Session

__all__ = ["Located"]


class Located:
    """Something at a path of a root.

    Parameters
    ----------
    session : Session
    root : str
    entry : Entry
    """

    def __init__(self, session: Session, root: str, entry: Entry) -> None:
        self._session = session
        self._root = root
        self._entry = entry

    @property
    def root(self) -> str:
        """Name of its root."""
        return self._root

    @property
    def path(self) -> str:
        """Path in its root, with the suffix; empty for the root itself."""
        return self._entry.path

    @property
    def name(self) -> str:
        """Last segment of the path; of the root itself, its name."""
        return last_name(self.path) or self._root

    @property
    def address(self) -> str:
        """Address that names the service too: ``cat2http://HOST/BASE/-/ROOT/PATH``."""
        return str(DatasetAddress(self._session.service.url, self._root, self.path))

    @property
    def entry(self) -> Entry:
        """The catalog entry behind this object."""
        return self._entry
