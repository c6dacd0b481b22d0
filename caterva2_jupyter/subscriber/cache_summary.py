"""The running state of a subscriber in one small answer: the cache's use, what it spared, and how roots stand.

Its size goes with the number of roots, not of datasets. What is kept of each dataset is ``cache_keeper``'s.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import asdict
from typing import Any, Protocol

from ..core.catalog import Cursor
from ..errors import Caterva2Error, SourceUnavailableError
from ..storage.block_cache import BlockCache
from .followed_root import FollowedRoot
from .read_counts import ReadCounts

__all__ = ["CacheSummary", "KnownRoots"]

_Sizes = tuple[int, int]
"""Bytes that are kept of a root's datasets, and of all of it."""


class KnownRoots(Protocol):
    """The roots of a subscriber."""

    async def roots(self) -> list[dict[str, Any]]:
        """Every root that is known, with its status."""
        ...

    def followed_root(self, root: str) -> FollowedRoot | None:
        """A root that is followed."""
        ...


class CacheSummary:
    """What the running state of a subscriber is.

    Parameters
    ----------
    roots : KnownRoots
    counts : ReadCounts
    executor : Executor
        For files; closed by its owner.
    """

    def __init__(self, roots: KnownRoots, counts: ReadCounts, executor: Executor) -> None:
        self._roots, self._counts, self._executor = roots, counts, executor
        self._cache: BlockCache | None = None
        self._kept_at = -1
        self._kept: dict[str, dict[str, int]] = {}
        self._sizes: dict[str, tuple[tuple[int, Cursor | None], _Sizes]] = {}

    def open(self, cache: BlockCache) -> None:
        """From now on tell of this cache."""
        self._cache = cache

    async def status(self) -> dict[str, Any]:
        """The answer.

        Raises
        ------
        SourceUnavailableError
            When the cache is not open yet.
        """
        cache = self._cache
        if cache is None:
            raise SourceUnavailableError("the subscriber is starting, its cache is not open yet")
        return {
            "directory": str(cache.directory.absolute()),
            "quota_nbytes": cache.quota_nbytes,
            "usage_nbytes": cache.usage_nbytes,
            "counters": asdict(cache.counters),
            "reads": self._counts.to_json(),
            "roots": [await self._root(cache, form) for form in await self._roots.roots()],
        }

    async def _root(self, cache: BlockCache, form: dict[str, Any]) -> dict[str, Any]:
        name = form["name"]
        told: dict[str, Any] = {key: form[key] for key in ("online", "since", "reason") if key in form}
        kept, total = 0, 0
        followed = self._roots.followed_root(name)
        if followed is not None:
            kept, total = await self._sizes_of(cache, followed)
        return {
            "root": name,
            "followed": bool(form.get("followed", followed is not None)),
            **told,
            "kept_nbytes": kept,
            "total_nbytes": total,
        }

    async def _sizes_of(self, cache: BlockCache, root: FollowedRoot) -> _Sizes:
        """Worked out anew only when something has changed: it looks at every dataset."""
        usage = cache.usage_nbytes
        known = self._sizes.get(root.root)
        state = (usage, root.cursor)
        if known is not None and known[0] == state:
            return known[1]
        if usage != self._kept_at:
            self._kept = await asyncio.get_running_loop().run_in_executor(self._executor, _kept_by_root, cache)
            self._kept_at = usage
        try:
            sizes = await root.stored_nbytes(self._kept.get(root.root, {}))
        except Caterva2Error:
            return 0, 0
        self._sizes[root.root] = (state, sizes)
        return sizes


def _kept_by_root(cache: BlockCache) -> dict[str, dict[str, int]]:
    """Of each dataset, the bytes of the version that most is kept of."""
    kept: dict[str, dict[str, int]] = {}
    for version in cache.stored():
        ids = kept.setdefault(version.root, {})
        ids[version.id] = max(ids.get(version.id, 0), version.nbytes)
    return kept
