"""The rows of a browser's tree: roots, groups and datasets, listed when they are opened, page by page.

It asks a client and keeps rows; it knows nothing of widgets. Names stay as they are: whoever draws them escapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..client.client import Client
from ..client.representation import format_nbytes, plain
from ..core.dtypes import is_vlen
from ..core.metadata import Entry
from ..core.paths import join
from ..core.paths import name as last_name
from ..errors import Caterva2Error

__all__ = ["PAGE", "Listing", "Row"]

PAGE = 200
MAX_ROWS = 5000


@dataclass(slots=True)
class Row:
    """One line of the tree.

    Attributes
    ----------
    key : str
        ``ROOT/PATH``; of a line that loads more, that of its group and a trailing ``/``.
    name, detail : str
        What is shown.
    kind : str
        ``root``, ``more``, ``message``, or the kind of an entry.
    level : int
        1 for roots.
    """

    key: str
    name: str
    kind: str
    level: int
    detail: str = ""
    after: str = ""
    is_open: bool | None = None
    entry: Entry | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """What the tree is drawn from."""
        form: dict[str, Any] = {"key": self.key, "name": plain(self.name), "kind": self.kind, "level": self.level}
        return form | {"detail": plain(self.detail), "open": self.is_open}


class Listing:
    """What of a service has been listed so far, as rows from top to bottom.

    Parameters
    ----------
    client : Client
    address : str
        ``ROOT/PATH`` to begin at; empty for all roots.

    Attributes
    ----------
    rows : list of Row
    """

    def __init__(self, client: Client, address: str = "") -> None:
        self._client = client
        self._address = address
        self.q = ""
        self.rows: list[Row] = []

    def begin(self) -> None:
        """List the roots, or what is at the address; what was open is closed.

        Raises
        ------
        Caterva2Error
            When it cannot be listed.
        """
        if self._address:
            self.rows = self._page(self._address, 1, "")
            return
        rows = []
        # What others publish first; the areas of the subscriber itself after it.
        for name, status in sorted(self._client.roots.items(), key=lambda item: (item[0].startswith("@"), item[0])):
            notes = [] if status.online else ["offline"]
            rows.append(Row(name, name, "root", 1, ", ".join(notes), is_open=False))
        self.rows = rows or [Row("", "there are no roots", "message", 1)]

    def find(self, key: str, kind: str = "") -> int:
        """The number of a row, -1 when it is not there."""
        return next((n for n, r in enumerate(self.rows) if r.key == key and (not kind or r.kind == kind)), -1)

    def toggle(self, key: str) -> None:
        """Open a root or group, or close it."""
        number = self.find(key)
        if number < 0 or self.rows[number].is_open is None:
            return
        row = self.rows[number]
        if row.is_open:
            stop = number + 1
            while stop < len(self.rows) and self.rows[stop].level > row.level:
                stop += 1
            del self.rows[number + 1 : stop]
            row.is_open = False
            return
        self.rows[number + 1 : number + 1] = self._page(key, row.level + 1, "")
        row.is_open = True

    def more(self, key: str) -> None:
        """Put the next page in the place of a row that offers more."""
        number = self.find(key, "more")
        if number >= 0:
            row = self.rows[number]
            self.rows[number : number + 1] = self._page(key.rstrip("/"), row.level, row.after)

    def filter(self, q: str) -> None:
        """Show what matches, of all levels below what is shown; empty: the tree again.

        Raises
        ------
        Caterva2Error
            When it is no filter, or nothing can be listed.
        """
        self.q = q.strip()
        if not self.q:
            self.begin()
            return
        rows: list[Row] = []
        places = [self._address] if self._address else list(self._client.roots)
        for place in places:
            try:
                found = self._page(place, 1, "", self.q)
            except Caterva2Error as error:
                found = [Row("", f"{place}: {error}", "message", 1)]
            rows += found if found and found[0].kind != "message" else []
        self.rows = rows[:MAX_ROWS] or [Row("", f"nothing matches {self.q}", "message", 1)]

    def _page(self, address: str, level: int, after: str, q: str = "") -> list[Row]:
        root = address.partition("/")[0]
        q = q or self.q
        if level == 1 and not after and not q:
            self._client.follow(root)
        page = self._client.page(address, depth=0 if q else 1, after=after, limit=PAGE, q=q)
        rows = [_row(root, entry, level, address if q else "") for entry in page.entries()]
        if page.next is not None:
            rows.append(Row(f"{address}/", "more…", "more", level, after=page.next))
        return rows or [Row("", "empty", "message", level)]


def _row(root: str, entry: Entry, level: int, below: str) -> Row:
    key = join(root, entry.path)
    name = key if below else last_name(entry.path)
    is_open = False if entry.kind == "group" and not below else None
    return Row(key, name, entry.kind, level, _detail(entry), is_open=is_open, entry=entry)


def _detail(entry: Entry) -> str:
    geometry = entry.geometry
    if entry.kind == "array" and geometry is not None:
        shape = "×".join(str(n) for n in geometry.shape) or "scalar"
        names = geometry.dtype.names
        dtype = f"{len(names)} fields" if names else "strings" if is_vlen(geometry.dtype) else str(geometry.dtype)
        return f"{shape} {dtype}"
    if geometry is not None:
        return format_nbytes(entry.nbytes)
    return entry.reason
