"""Datasets that went back to an older state: a backup was restored, or an older publisher came back.

They are read as they are now, in a version of their own; this only says so. Values in, values out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..core.metadata import Entry

__all__ = ["rolled_back"]


def rolled_back(entries: Iterable[Entry], known: Callable[[str], Entry | None]) -> list[str]:
    """Paths of the datasets that have changed, and are older now than they were.

    Parameters
    ----------
    entries : iterable of Entry
        As they are now.
    known : callable
        The entry at a path as it was; None when there was none.

    Examples
    --------
    >>> before = {"a": Entry("a", "array", id="1", version="v2", mtime_ns=20)}
    >>> rolled_back([Entry("a", "array", id="1", version="v3", mtime_ns=10)], before.get)
    ['a']
    >>> rolled_back([Entry("a", "array", id="1", version="v3", mtime_ns=30)], before.get)
    []
    """
    paths: list[str] = []
    for entry in entries:
        if not entry.version or not entry.mtime_ns:
            continue
        before = known(entry.path)
        if before is not None and before.version != entry.version and entry.mtime_ns < before.mtime_ns:
            paths.append(entry.path)
    return paths
