"""Datasets that went back to an older state: a backup was restored, or an older publisher came back.

Where that is accepted they are read as they are now, in a version of their own, and marked; where it is refused,
the newer state stays listed, and can be read as far as it is kept. Values in, values out.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ..core.metadata import Entry
from ..core.rollback_mark import WENT_BACK, is_refused

__all__ = ["judged"]


def judged(told: Entry, known: Entry | None, *, accepts: bool) -> Entry:
    """The entry to list for one that is told.

    Parameters
    ----------
    told : Entry
        As it is now.
    known : Entry or None
        What was listed at its path.
    accepts : bool
        Is what went back to an older state taken?

    Examples
    --------
    >>> newer = Entry("a", "array", id="1", version="v2", mtime_ns=2 * 10**9)
    >>> older = Entry("a", "array", id="1", version="v3", mtime_ns=10**9)
    >>> taken = judged(older, newer, accepts=True)
    >>> taken.version, taken.storage["went_back"]["from"]
    ('v3', '1970-01-01T00:00:02Z')
    >>> kept = judged(older, newer, accepts=False)
    >>> kept.version, is_refused(kept)
    ('v2', True)
    """
    if known is None or not told.version or not known.version:
        return told
    mark = known.storage.get(WENT_BACK)
    if told.version == known.version:
        return told if mark is None or is_refused(known) else _marked(told, mark)
    if not 0 < told.mtime_ns < known.mtime_ns:
        return told
    mark = {"from": _iso(known.mtime_ns), "to": _iso(told.mtime_ns)}
    return _marked(told, mark) if accepts else _marked(known, mark | {"refused": True})


def _marked(entry: Entry, mark: Any) -> Entry:
    return replace(entry, storage={**entry.storage, WENT_BACK: mark})


def _iso(time_ns: int) -> str:
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{time_ns} ns"
