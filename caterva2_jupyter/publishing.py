"""``publish``: a root that is served from a notebook or a program while it runs.

A publisher, as ``cat2pub`` runs one, in a thread with an event loop of its own, so it works wherever it is called
from, inside of a running loop as well. What is not a file yet (arrays in memory) is written to a temporary directory
that goes with it. With a broker it is announced there; without one the subscriber on this machine is asked to follow.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from .client.address import DatasetAddress
from .client.client import connect
from .client.uploads import bodies_of
from .config import Config, load_config
from .core.paths import name as last_name
from .core.paths import parse_path
from .errors import Caterva2Error, ConfigError, DatasetNotFoundError, RequestError, SourceUnavailableError
from .publisher.app import PublisherService
from .web.serve import Listener, listen

__all__ = ["Publication", "publish"]

T = TypeVar("T")

START_S, STOP_S = 60.0, 20.0
_HIDDEN = ".caterva2-publishing-"


def publish(
    obj: object,
    name: str | None = None,
    *,
    broker: str | None = None,
    http: str = "127.0.0.1:0",
    follow: bool | None = None,
    subscriber: str | None = None,
) -> Publication:
    """Serve a root from here, until it is closed or the program ends.

    Parameters
    ----------
    obj : str, os.PathLike, mapping or array
        A directory or HDF5 file, served as it is and watched for changes; or a mapping of paths to arrays in memory and
        whatever else can be uploaded (see ``Group.upload``); or one such object.
    name : str, optional
        Of the root; that of the file or directory by default.
    broker : str, optional
        Announce it at this broker, ``host:port``. Subscribers of other machines reach it only if ``http`` lets them.
    http : str
        Where to listen; a free port of this machine by default. Other machines are served only with a network token
        (``CATERVA2_NETWORK_TOKEN``).
    follow : bool, optional
        Have the subscriber on this machine follow it (where there is no broker). By default that is tried, and nothing
        is said when there is none; True raises the reason.
    subscriber : str, optional
        URL of that subscriber; found as by ``connect()`` otherwise.

    Returns
    -------
    Publication
        To be closed, or used in a ``with`` block.

    Raises
    ------
    ConfigError
        When there is nothing to serve, the name cannot be one, or the address is in use.
    RequestError
        When a name is needed.
    UnsupportedDatasetError
        When something in the mapping cannot be stored.

    Examples
    --------
    >>> with cat2.publish({"steps.b2nd": np.arange(5)}, name="mine", follow=False) as published:
    ...     client = cat2.connect(published.url)
    ...     before = client["mine/steps.b2nd"][:]
    ...     published.update("steps.b2nd", np.arange(3))
    ...     before, client["mine/steps.b2nd"][:]
    (array([0, 1, 2, 3, 4]), array([0, 1, 2]))
    """
    opened = ExitStack()
    try:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="caterva2-publish-")))
        is_path = isinstance(obj, (str, os.PathLike))
        root = Path(os.path.abspath(Path(os.fspath(obj)).expanduser())) if is_path else scratch / "root"  # type: ignore[call-overload]
        given = name or (root.stem if is_path else "")
        if not given:
            raise RequestError("what is in memory has no name: give one, as in publish({...}, name='mine')")
        if not is_path:
            root.mkdir()
            objects = obj if isinstance(obj, Mapping) and not hasattr(obj, "dims") else {"": obj}
            for path, item in objects.items():
                _store(root, str(path), item, given)
        config = load_config(None, os.environ) if broker else Config({}, "", os.environ)
        settings = config.publisher(
            name=given,
            root=str(root),
            http=http,
            broker=broker or "",
            statedir=str(scratch / "state"),
            loglevel="warning",
        )
        published = Publication(given, root, not is_path, PublisherThread(settings), opened.pop_all())
    except BaseException:
        opened.close()
        raise
    if not broker and follow is not False:
        try:
            published.follow(subscriber)
        except Caterva2Error:
            if follow:
                published.close()
                raise
    return published


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class PublisherThread:
    """A publisher in a thread of its own.

    Raises
    ------
    ConfigError
    """

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self.loop = asyncio.new_event_loop()
        self.url = ""
        self._problem: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caterva2-publish", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_S):
            raise SourceUnavailableError("the publisher did not start in time")
        if self._problem is not None:
            self._thread.join(STOP_S)
            raise self._problem

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            service, listener = self.loop.run_until_complete(self._start())
        except BaseException as error:  # told to whoever waits
            self._problem = error
            self._ready.set()
            self.loop.close()
            return
        self.service, self.url = service, listener.url
        self._ready.set()
        self.loop.run_forever()
        try:
            self.loop.run_until_complete(self._stop(service, listener))
        except RuntimeError:
            if threading.main_thread().is_alive():
                raise
            # The program ends with the root still served: no thread takes on anything more, so what is left is dropped.
            self.loop.run_until_complete(_cancel_others())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    async def _start(self) -> tuple[PublisherService, Listener]:
        service = PublisherService(self._settings)
        try:
            listener = listen(service.application(), self._settings.http, self._settings.network)
            await service.start(listener)
            async with asyncio.timeout(START_S):
                await service.publisher.scanned.wait()
        except BaseException:
            await service.stop()
            raise
        return service, listener

    @staticmethod
    async def _stop(service: PublisherService, listener: Listener) -> None:
        await listener.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await service.stop()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run in the publisher's loop, and wait."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(START_S)

    def stop(self) -> None:
        if self._thread.is_alive():
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(2 * STOP_S)


class Publication:
    """A root that is being served. Made by ``publish``; use it in a ``with`` block, or ``close()`` it.

    Attributes
    ----------
    name : str
        Of the root.
    url : str
        Where it is served, for ``connect(url)``.

    Examples
    --------
    >>> published = cat2.publish({"a.b2nd": np.zeros(3), "b.b2nd": np.ones(3)}, name="pair", follow=False)
    >>> published.update("b.b2nd", np.arange(3))
    >>> published.remove("a.b2nd")
    >>> list(cat2.open_address(published.address))
    ['b.b2nd']
    >>> published.close()
    """

    def __init__(self, name: str, root: Path, owns_root: bool, thread: PublisherThread, opened: ExitStack) -> None:
        self.name, self.url = name, thread.url
        self._root, self._owns_root, self._thread, self._opened = root, owns_root, thread, opened
        self._followed_by = ""
        self._subscriber: str | None = None
        self._close = weakref.finalize(self, _close, thread, opened)
        # Before the interpreter takes threads and directories away.
        atexit.register(self._close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = self.url if self._close.alive else "closed"
        followed = f", followed by {self._followed_by}" if self._followed_by else ""
        return f"<Publication {self.name!r} at {state}{followed}>"

    @property
    def address(self) -> str:
        """Address that opens it from anywhere that reaches ``url``."""
        return str(DatasetAddress(self.url, self.name, "")).rstrip("/")

    @property
    def followed_by(self) -> str:
        """URL of the subscriber that was asked to follow it; empty when none was."""
        return self._followed_by

    def follow(self, subscriber: str | None = None) -> None:
        """Have a subscriber on this machine follow the root.

        Parameters
        ----------
        subscriber : str, optional
            Its URL; found as by ``connect()`` otherwise.

        Raises
        ------
        SourceUnavailableError, AccessDeniedError, AuthenticationError, ConflictError
            When it is not there, does not let us, or knows another root of that name.
        """
        with connect(subscriber) as client:
            transport = client._session.service.transport
            body = json.dumps({"url": self.url, "root": self.name}).encode()
            with transport.request("POST", "/api/v1/publishers", body=body) as answer:
                answer.json()
            self._followed_by, self._subscriber = client.url_base, subscriber

    def update(self, path: str, obj: object) -> None:
        """Put another array, or other object, at a path; whoever follows the root hears of it.

        Parameters
        ----------
        path : str
            In the root; what is there is replaced.
        obj : object
            As in ``publish``.

        Raises
        ------
        RequestError
            When what is served is a directory or file of yours: write to that, it is watched.
        """
        self._check_owned()
        stored = _store(self._root, path, obj, self.name)
        self._thread.run(self._thread.service.publisher.announce(self.name, stored))

    def remove(self, path: str) -> None:
        """Serve what is at a path no more.

        Raises
        ------
        DatasetNotFoundError
        RequestError
            As ``update``.
        """
        self._check_owned()
        goal = self._root / parse_path(path)
        goal = goal if path and os.path.lexists(goal) else goal.with_name(goal.name + ".b2nd")
        if not path or not os.path.lexists(goal):
            raise DatasetNotFoundError(f"nothing at {path!r} in root {self.name!r}")
        _discard(goal)
        relative = goal.relative_to(self._root).as_posix()
        self._thread.run(self._thread.service.publisher.announce(self.name, relative))

    def _check_owned(self) -> None:
        if not self._close.alive:
            raise ConfigError(f"root {self.name!r} is not served any more")
        if not self._owns_root:
            raise RequestError(f"{self._root} is served as it is: change it there, it is watched")

    def close(self) -> None:
        """Stop serving; nothing happens when that was done."""
        if self._followed_by and self._close.alive:
            with suppress(Caterva2Error), connect(self._subscriber) as client:
                transport = client._session.service.transport
                body = json.dumps({"url": self.url}).encode()
                with transport.request("DELETE", "/api/v1/publishers", body=body) as answer:
                    answer.json()
        self._followed_by = ""
        atexit.unregister(self._close)
        self._close()


def _close(thread: PublisherThread, opened: ExitStack) -> None:
    thread.stop()
    opened.close()


def _store(root: Path, path: str, obj: object, own_name: str) -> str:
    """Write an object into a root's directory, complete or not at all; where it is then."""
    with ExitStack() as opened:
        bodies, _, suffix = bodies_of(obj, opened)
        is_tree = suffix == "/"
        path = parse_path(path) or ("" if is_tree else own_name)
        if suffix.startswith(".") and not last_name(path).endswith(suffix):
            path += suffix
        aside = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix=_HIDDEN, dir=root)))
        made = aside / "made"
        if is_tree:
            made.mkdir()
        for body in bodies:
            target = made / body.path if body.path else made
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for part in body.parts():
                    file.write(part)
        if not path:
            for child in list(made.iterdir()):
                _discard(root / child.name)
                child.rename(root / child.name)
            return path
        goal = root / path
        goal.parent.mkdir(parents=True, exist_ok=True)
        if goal.is_dir() or (is_tree and os.path.lexists(goal)):
            _discard(goal)
        made.replace(goal)
    return path


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
