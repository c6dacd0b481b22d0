"""Where the cache is, for kernels on this machine that read its files themselves, and what they used of it.

The answer is no secret: a directory's name, and the digest of a file in it that only this user can read. What is
in the cache stays guarded by the permissions of its files.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tornado.httputil import HTTPServerRequest

from ..core.cache_location import CacheLocation
from ..errors import NotFoundError, RequestError
from ..storage.block_cache import BlockCache
from ..web.source_handlers import SourceAnswers
from .read_counts import ReadCounts
from .seen_roots import SeenRoots

__all__ = ["CACHE_ACCESS_ROUTES", "CacheAccess", "is_near"]

PROOF = "proof"
MAX_USES_NBYTES = 4 << 20
Use = tuple[str, str, str, list[tuple[int, list[int]]]]
"""Root, dataset id, version, and blocks by chunk."""

_FORWARDED = ("X-Forwarded-For", "X-Real-Ip", "Forwarded")


class CacheAccess:
    """What a subscriber tells of its cache.

    Parameters
    ----------
    executor : Executor
        For files; closed by its owner.
    counts : ReadCounts, optional
        Told what was read.
    """

    def __init__(self, executor: Executor, counts: ReadCounts | None = None) -> None:
        self._executor = executor
        self._counts = counts if counts is not None else ReadCounts()
        self._cache: BlockCache | None = None
        self._location: CacheLocation | None = None

    def open(self, cache: BlockCache) -> None:
        """From now on tell of this cache. Writes a file: for a worker thread."""
        content = secrets.token_bytes(32)
        part = cache.directory / f"{PROOF}.part"
        try:
            with suppress(FileNotFoundError):
                part.unlink()
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, content)
            finally:
                os.close(fd)
            part.rename(cache.directory / PROOF)
        except OSError:
            return  # a cache that cannot be written to has nothing that could be read
        directory = str(Path(cache.directory).resolve())
        self._location = CacheLocation(directory, platform.node(), PROOF, CacheLocation.proof_digest(content))
        self._cache = cache

    @property
    def location(self) -> CacheLocation:
        """Where it is.

        Raises
        ------
        NotFoundError
            When there is none.
        """
        if self._location is None:
            raise NotFoundError("this subscriber has no cache on disk")
        return self._location

    async def note_uses(self, uses: Sequence[Use]) -> None:
        """Take up which blocks were read without asking."""
        if self._cache is not None:
            loop = asyncio.get_running_loop()
            nbytes = await loop.run_in_executor(self._executor, _note_uses, self._cache, uses)
            self._counts.note_uses(sum(len(blocks) for *_, chunks in uses for _, blocks in chunks), nbytes)


def _note_uses(cache: BlockCache, uses: Sequence[Use]) -> int:
    nbytes = 0
    for root, dataset_id, version, chunks in uses:
        for kept in cache.versions(root, dataset_id):
            if kept.version == version:
                for nchunk, blocks in chunks:
                    nbytes += kept.touch(nchunk, blocks)
    return nbytes


class LocationAnswers(SourceAnswers):
    """``GET cache/location``: to whoever connects from this machine."""

    def initialize(self, access: CacheAccess, **kwargs: Any) -> None:  # type: ignore[override]
        self.access = access
        super().initialize(**kwargs)

    async def answer_get(self) -> None:
        if not is_near(self.request):
            raise NotFoundError("the cache is told of on its own machine only")
        # In its files is what is kept of every root: for those who may see them all.
        seen = self.sources
        assert isinstance(seen, SeenRoots)
        if not seen.permissions.sees_all(seen.visitor):
            raise NotFoundError("the cache holds roots that you may not see: read by way of the subscriber")
        self.set_header("Cache-Control", "no-store")
        self.write_json(self.access.location.to_json())


def is_near(request: HTTPServerRequest) -> bool:
    """Was a request sent from this machine?"""
    if any(name in request.headers for name in _FORWARDED):
        return False  # a proxy on this machine, for somebody elsewhere
    address = request.remote_ip or ""
    try:
        # Of a unix socket Tornado says 0.0.0.0.
        return address == "0.0.0.0" or ip_address(address).is_loopback  # noqa: S104
    except ValueError:
        return False


class UsesAnswers(SourceAnswers):
    """``POST cache/uses``: blocks that were read from the files."""

    changes_state = True

    def initialize(self, access: CacheAccess, **kwargs: Any) -> None:  # type: ignore[override]
        self.access = access
        super().initialize(**kwargs)

    async def answer_post(self) -> None:
        if len(self.request.body) > MAX_USES_NBYTES:
            raise RequestError(f"uses are told in at most {MAX_USES_NBYTES} bytes")
        seen = self.sources
        assert isinstance(seen, SeenRoots)
        uses = _parsed_uses(self.json_body())
        await self.access.note_uses([use for use in uses if seen.sees(use[0])])
        self.write_json({})


def _parsed_uses(form: dict[str, Any]) -> list[Use]:
    uses = form.get("uses", [])
    try:
        parsed = [
            (use["root"], use["id"], use["version"], [(nchunk, blocks) for nchunk, blocks in use["chunks"]])
            for use in uses
        ]
        fine = all(
            isinstance(text, str) for root, dataset, version, _ in parsed for text in (root, dataset, version)
        ) and all(
            type(number) is int and 0 <= number < 2**62
            for *_, chunks in parsed
            for nchunk, blocks in chunks
            for number in (nchunk, *blocks)
        )
    except (KeyError, TypeError, ValueError):
        fine = False
    if not fine:
        raise RequestError("uses are a list of {root, id, version, chunks: [[nchunk, [block, ...]], ...]}")
    return parsed


CACHE_ACCESS_ROUTES: tuple[tuple[str, type[SourceAnswers]], ...] = (
    (r"/api/v1/cache/location", LocationAnswers),
    (r"/api/v1/cache/uses", UsesAnswers),
)
