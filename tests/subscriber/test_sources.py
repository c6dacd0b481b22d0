"""Sources over HTTP and with a cache: they fulfil the contract of sources, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from caterva2_jupyter.core.source import Source
from caterva2_jupyter.storage.block_cache import BlockCache
from caterva2_jupyter.subscriber.link import open_session
from caterva2_jupyter.subscriber.sources import CachedSource, RemoteSource
from caterva2_jupyter.testing import Origin, SourceContract

from .serving import serve

QUOTA = 1 << 30


@asynccontextmanager
async def remote_source(origin: Origin, address: str = "127.0.0.1:0") -> AsyncIterator[RemoteSource]:
    async with serve(origin.source, address) as url, open_session(url) as session:
        yield RemoteSource(origin.source.root, url, session)


@asynccontextmanager
async def cached_source(source: Source, directory: Path, quota_nbytes: int = QUOTA) -> AsyncIterator[CachedSource]:
    with ThreadPoolExecutor(4) as executor, BlockCache(directory, quota_nbytes) as cache:
        cached = CachedSource(source, cache, executor)
        yield cached
        await cached.aclose()


class TestRemoteSource(SourceContract):
    def wrap(self, origin: Origin, tmp_path: Path) -> AbstractAsyncContextManager[Source]:
        return remote_source(origin)


class TestRemoteSourceOverAUnixSocket(SourceContract):
    def wrap(self, origin: Origin, tmp_path: Path) -> AbstractAsyncContextManager[Source]:
        return remote_source(origin, str(tmp_path / "socket"))


class TestCachedSource(SourceContract):
    def wrap(self, origin: Origin, tmp_path: Path) -> AbstractAsyncContextManager[Source]:
        return cached_source(origin.source, tmp_path / "cache")


class TestCachedSourceWithATinyQuota(SourceContract):
    def wrap(self, origin: Origin, tmp_path: Path) -> AbstractAsyncContextManager[Source]:
        return cached_source(origin.source, tmp_path / "cache", quota_nbytes=200_000)


class TestCachedSourceOverHttp(SourceContract):
    @asynccontextmanager
    async def wrap(self, origin: Origin, tmp_path: Path) -> AsyncIterator[Source]:
        async with remote_source(origin) as source, cached_source(source, tmp_path / "cache") as cached:
            yield cached
