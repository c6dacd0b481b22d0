"""How changes are told: numbered events of one root, in batches.

A batch says which numbers it carries, so that a listener sees a gap, a repeat or another life of the
publisher (another epoch) and lists again. Carrying them is the services' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ..errors import IntegrityError
from .catalog import Cursor, parse_seq
from .metadata import Entry
from .paths import parse_path, parse_root_name

__all__ = ["Event", "EventBatch"]

Change = Literal["put", "delete"]


@dataclass(frozen=True, slots=True)
class Event:
    """One entry that appeared or changed (``put``), or went away (``delete``).

    ``entry`` may be missing from a ``put`` when it is too large to be told: ask for it.
    """

    change: Change
    path: str
    entry: Entry | None = None

    def to_json(self) -> dict[str, Any]:
        form: dict[str, Any] = {"change": self.change, "path": self.path}
        if self.entry is not None:
            form["entry"] = self.entry.to_json()
        return form

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Event:
        change = form["change"]
        if change not in ("put", "delete"):
            raise IntegrityError(f"unknown change {change!r}")
        path = parse_path(str(form["path"]))
        entry = Entry.from_json(form["entry"]) if form.get("entry") is not None else None
        if entry is not None and entry.path != path:
            raise IntegrityError(f"event of {path!r} carries an entry of {entry.path!r}")
        return cls(cast("Change", change), path, entry)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events number ``first_seq`` to ``seq`` of a root (none: a heartbeat that tells the cursor).

    Several events may share a number when they were one change, so ``len(events)`` says nothing of it.
    """

    root: str
    epoch: str
    first_seq: int
    seq: int
    events: tuple[Event, ...] = ()

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.seq)

    def follows(self, cursor: Cursor) -> bool:
        """Can it be applied to a catalog that is at ``cursor`` (nothing between is missing)?"""
        return self.epoch == cursor.epoch and self.first_seq <= cursor.seq + 1 and self.seq >= cursor.seq

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "events",
            "root": self.root,
            "epoch": self.epoch,
            "first_seq": self.first_seq,
            "seq": self.seq,
            "events": [e.to_json() for e in self.events],
        }

    @classmethod
    def from_json(cls, form: Any) -> EventBatch:
        try:
            return cls(
                root=parse_root_name(str(form["root"])),
                epoch=str(form["epoch"]),
                first_seq=parse_seq(form["first_seq"]),
                seq=parse_seq(form["seq"]),
                events=tuple(Event.from_json(e) for e in form["events"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, IntegrityError):
                raise
            raise IntegrityError("malformed batch of events") from error
