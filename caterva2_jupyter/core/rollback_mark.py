"""The mark of a dataset that went back to an older state, in its entry's ``storage``.

Subscribers put it there (``subscriber/rollbacks``); who shows a dataset says it.
"""

from __future__ import annotations

from collections.abc import Mapping

from .metadata import Entry

__all__ = ["WENT_BACK", "is_refused", "rollback_text"]

WENT_BACK = "went_back"
"""When the dataset was changed before (``from``) and now (``to``); ``refused``: the newer state stays listed."""


def is_refused(entry: Entry) -> bool:
    """Is the entry listed in place of an older one, which its publisher has now?"""
    mark = entry.storage.get(WENT_BACK)
    return isinstance(mark, Mapping) and mark.get("refused") is True


def rollback_text(entry: Entry) -> str:
    """What there is to say about it; empty for all others.

    Examples
    --------
    >>> mark = {"from": "2026-02-03T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
    >>> rollback_text(Entry("a", "array", storage={"went_back": mark}))
    'from the state of 2026-02-03T00:00:00Z to that of 2026-01-01T00:00:00Z'
    """
    mark = entry.storage.get(WENT_BACK)
    if not isinstance(mark, Mapping):
        return ""
    text = f"from the state of {mark.get('from')} to that of {mark.get('to')}"
    return f"{text}, which is refused: this is the newer one" if is_refused(entry) else text
