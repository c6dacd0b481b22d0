"""One root with its identity, its index and what keeps them up to date: everything of a publisher but HTTP.

What is served at once is the index of the last run; a scan in the background and the watcher bring it up
to date. It does not know how requests arrive, nor how the broker is told.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..config import PublisherConfig
from ..core.paths import parse_path
from ..core.roots import AnnouncedRoot, owner_tag
from ..core.source import Source
from ..errors import ConfigError, DatasetNotFoundError, RootNotFoundError, SourceUnavailableError
from ..storage.catalog_store import CatalogStore
from ..storage.directory_root import DirectoryRoot
from ..storage.durable_file import replace_durably
from ..storage.event_hub import EventHub
from ..storage.hdf5_root import Hdf5Root, hdf5_trees
from ..storage.hdf5_signature import is_growing_hdf5, is_hdf5
from ..storage.hdf5_worker import Hdf5Worker
from ..storage.root import Root
from ..storage.threaded_source import ThreadedSource
from .debouncer import Changes
from .root_disk import RootDisk
from .watcher import Watcher

__all__ = ["Publisher", "open_root"]

log = logging.getLogger("caterva2_jupyter.publisher")

T = TypeVar("T")

READERS = 8
OWNER, CATALOG, DISK = "owner", "catalog.sqlite", "disk"
RETRY_S = (1.0, 30.0)
HEARTBEAT_S = 5.0
UNSETTLED_S = 0.5

# Their content says whether it is complete: what is cut short cannot be opened, and is not announced.
SELF_DESCRIBING = frozenset(
    {".b2nd", ".b2frame", ".b2f", ".h5", ".hdf5", ".he5", ".nc", ".nc4", ".cdf", ".nxs", ".h5ad", ".hdf"}
)


class Publisher:
    """Serves one root.

    Parameters
    ----------
    config : PublisherConfig
    root : Root, optional
        What is served; by default what is at ``config.root``.

    Attributes
    ----------
    name : str
    owner_id : str
        Secret that proves to the broker that the name is ours, and that dataset ids are made with.
    url : str
        By which others reach it; known when it listens.

    Raises
    ------
    ConfigError
        When there is nothing to serve, or the state directory cannot be used.

    Notes
    -----
    To be made and used inside one event loop.
    """

    def __init__(self, config: PublisherConfig, root: Root | None = None) -> None:
        self.config = config
        self.name = config.name
        self.url = ""
        statedir = Path(os.path.abspath(config.statedir))
        if root is None:
            _check_root(config, statedir)
        with ExitStack() as opened:
            opened.callback(os.close, _lock_statedir(statedir))
            self.owner_id = _read_owner(statedir / OWNER)
            self._root = open_root(config.root, self.owner_id, opened) if root is None else root
            self.store = CatalogStore(_catalog_path(statedir, self._root.watched), config.name)
            opened.callback(self.store.close)
            self.store.begin_run()
            opened.callback(self._root.close)
            self._opened = opened.pop_all()
        self._disk = RootDisk(self._root.watched, statedir / DISK)
        self.hub = EventHub()
        self.executor = ThreadPoolExecutor(READERS, "publisher")
        self._source = ThreadedSource(
            self.name, self._root, self.store, self.hub, self.executor, HEARTBEAT_S, partial(self.announce, self.name)
        )
        self._watcher: Watcher | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.scanned = asyncio.Event()

    # SourceDirectory and Announcer

    @property
    def threaded_source(self) -> ThreadedSource:
        return self._source

    async def roots(self) -> list[dict[str, Any]]:
        cursor = await self._run(lambda: self.store.cursor)
        tag = owner_tag(self.owner_id)
        return [AnnouncedRoot(self.name, self.url, tag, True, cursor.epoch, cursor.seq).to_json()]

    def source(self, root: str) -> Source:
        if root != self.name:
            raise RootNotFoundError(f"no root {root!r} here; this publisher serves {self.name!r}")
        return self._source

    async def announce(self, root: str, path: str) -> None:
        self.source(root)
        path = parse_path(path)
        nevents = await self._look([self._root.watched / path if path else self._root.watched])
        if path and not nevents and await self._run(self.store.get, path) is None:
            raise DatasetNotFoundError(f"no dataset {path!r} in root {root!r}")

    # Life

    async def start(self, *, watch: bool = True) -> None:
        """Begin to watch, and to bring the index up to date."""
        if watch:
            self._watcher = Watcher(
                self._root.watched,
                self.config.quiet_s,
                self.config.poll_s,
                may_grow=self._may_grow,
                is_open_to_readers=self._is_open_to_readers,
            )
            await self._watcher.start()
        self._watching = asyncio.create_task(self._keep_up(), name="keep up with the root")

    async def stop(self) -> None:
        """Stop watching, then close the root and the index."""
        self._is_stopping = True
        self._source.close()
        if self._watcher is not None:
            await self._watcher.stop()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        # Threads that still read end first; then there is nobody who would use what is closed.
        await asyncio.to_thread(self.executor.shutdown, wait=True, cancel_futures=True)
        await asyncio.to_thread(self._opened.close)

    async def _keep_up(self) -> None:
        todo = Changes(everything=True)
        pause_s, problem = RETRY_S[0], ""
        while True:
            try:
                unsettled = await self._apply(todo)
            except SourceUnavailableError as error:
                if self._is_stopping:
                    return
                if str(error) != problem:
                    log.warning("the index of %r stays as it is: %s", self.name, error)
                problem, pause_s = str(error), RETRY_S[0]
            except Exception:
                # Whatever a damaged file or a full disk does: the root goes on being served and watched.
                log.exception("cannot bring the index of %r up to date: again in %g s", self.name, pause_s)
            else:
                pause_s, problem = RETRY_S[0], ""
                self.scanned.set()
                if self._watcher is None:
                    return
                todo = await self._next_changes(self._watcher, unsettled)
                continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S[1])
            todo = Changes(everything=True)

    @staticmethod
    async def _next_changes(watcher: Watcher, unsettled: list[Path]) -> Changes:
        try:
            async with asyncio.timeout(UNSETTLED_S if unsettled else None):
                return await watcher.next_changes() | Changes(frozenset(unsettled))
        except TimeoutError:
            return Changes(frozenset(unsettled))

    async def _apply(self, changes: Changes) -> list[Path]:
        """Look at what changed; files that could not be opened yet."""
        if changes.everything:
            await self._check_there()
            nevents = await self._source.scan()
            log.info("scanned %s: %d changes", self._root.watched, nevents)
        else:
            await self._look(changes.paths)
        return await self._run(self._root.unsettled)

    async def _check_there(self) -> None:
        """An unmounted disk is not a deletion of everything on it."""
        if self._root.watched.is_absolute():  # or it is not of a file system
            await self._run(self._disk.check, lambda: len(self.store) > 0)

    async def _look(self, paths: Iterable[Path]) -> int:
        await self._check_there()
        goals = await self._run(lambda: {self._goal(path) for path in paths})
        return await self._source.rescan(sorted(goals))

    def _goal(self, path: Path) -> Path:
        """What to look at when ``path`` changed.

        The dataset that it is part of (a frame in a directory, a file with datasets inside), or the outermost
        directory that is not known yet, else itself.
        """
        watched = self._root.watched
        segments = path.relative_to(watched).parts
        for count in range(1, len(segments)):
            entry = self.store.get(_as_text("/".join(segments[:count])))
            if entry is None or entry.kind != "group" or entry.version:
                return watched.joinpath(*segments[:count])
        return path

    def _may_grow(self, path: Path) -> bool:
        """May it be announced while it is written to? (Called by the watcher, in its thread.)"""
        if path.suffix.lower() in SELF_DESCRIBING:
            return True
        return self._is_known(path)

    def _is_open_to_readers(self, path: Path) -> bool:
        """Is it a new file that grows, and that can be read meanwhile? (Called by the watcher, in its thread.)"""
        return path != self._root.watched and not self._is_known(path) and is_growing_hdf5(path)

    def _is_known(self, path: Path) -> bool:
        return self.store.get(_as_text(path.relative_to(self._root.watched).as_posix())) is not None

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *args)


def _as_text(path: str) -> str:
    """As catalogs write names that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_root(path: Path, owner_id: str, opened: ExitStack) -> Root:
    """The root of what is at ``path``: a directory, or an HDF5 file.

    Parameters
    ----------
    opened : ExitStack
        Closes what the root needs besides itself.

    Raises
    ------
    ConfigError
    """
    path = Path(os.path.abspath(path))
    worker = Hdf5Worker()
    opened.callback(worker.close)
    if not path.is_dir():
        return Hdf5Root(path, owner_id, worker)
    if importlib.util.find_spec("h5py") is None:
        log.warning("HDF5 files in %s are served as files only: pip install 'caterva2-jupyter[hdf5]'", path)
        return DirectoryRoot(path, owner_id)
    return DirectoryRoot(path, owner_id, hdf5_trees(path, owner_id, worker))


def _check_root(config: PublisherConfig, statedir: Path) -> None:
    root = Path(os.path.abspath(config.root))
    if not root.exists():
        raise ConfigError(f"there is no {root}: give the directory or the HDF5 file to serve, `cat2pub NAME ROOT`")
    if not os.access(root, os.R_OK | (os.X_OK if root.is_dir() else 0)):
        raise ConfigError(f"{root} cannot be read by this user: change its permissions, or serve another")
    if root.is_dir() and statedir.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"the state would be kept inside the root, in {statedir}: choose another --statedir")
    if root.is_file() and not _is_hdf5(root):
        raise ConfigError(f"{root} is not an HDF5 file: give a directory, or an HDF5 file, to serve")


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return is_hdf5(file.fileno())


def _lock_statedir(statedir: Path) -> int:
    """Make the state directory ours alone, until the process ends or the descriptor is closed."""
    try:
        statedir.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(statedir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot use {statedir} for the state ({error.strerror}): choose another --statedir"
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ConfigError(f"another publisher uses {statedir}: stop it, or choose another --statedir or --id") from None
    except OSError as error:  # some network file systems have no locks
        log.warning("cannot lock %s: %s", statedir, error.strerror)
    return fd


def _read_owner(path: Path) -> str:
    """The publisher's identity, made at its first start.

    Apart from the catalog, which is made anew when it is damaged: the name at the broker must stay ours.
    """
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path} ({error}): make it readable, or choose another --statedir") from None
    if text:
        return text
    text = secrets.token_hex(16)
    replace_durably(path, f"{text}\n".encode())
    return text


def _catalog_path(statedir: Path, watched: Path) -> Path:
    """Where the index of that root is kept; those of roots served before from here are dropped."""
    marker = statedir / "root"
    catalog = statedir / CATALOG
    mark = os.fsencode(watched)
    if not marker.exists() or marker.read_bytes() != mark:
        for old in statedir.glob("catalog.sqlite*"):
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink()
        marker.write_bytes(mark)
    return catalog
