"""A service over a directory with HDF5 files in it, and addresses of what it serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.hdf5_root import hdf5_trees
from caterva2_jupyter.storage.hdf5_worker import Hdf5Worker
from tests.client.memory_service import MemoryService


class Served:
    """A directory, served as ``foo``."""

    def __init__(self, directory: Path, service: MemoryService) -> None:
        self.directory, self.service = directory, service

    @property
    def url(self) -> str:
        return self.service.url

    @property
    def requests(self) -> list[str]:
        """What was asked for since the last ``forget``, without what is asked once per session."""
        return [r for r in self.service.requests if "follow" not in r and "cache/" not in r]

    def forget(self) -> None:
        self.service.requests.clear()

    def address(self, path: str) -> str:
        return f"cat2{self.url}/-/foo/{path}".rstrip("/")


@contextmanager
def serving(directory: Path) -> Iterator[Served]:
    worker = Hdf5Worker()
    try:
        with MemoryService(
            {"foo": DirectoryRoot(directory, "owner", hdf5_trees(directory, "owner", worker))}
        ) as service:
            yield Served(directory, service)
    finally:
        worker.close()
