"""What happens in a root, told while it happens: an iterator that goes on over broken connections, and a thread.

Nothing is lost silently: after an interruption the service tells what was missed, or that it cannot (``listed``).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ..core.catalog import Cursor
from ..core.events import EventBatch
from ..core.paths import whole_address
from ..errors import DeadlineError, IntegrityError, SourceUnavailableError
from .service import Service
from .transport import NoSuchRouteError

__all__ = ["Change", "Watch", "changes_of"]

PAUSES_S = (0.2, 5.0)


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened.

    Attributes
    ----------
    kind : {"put", "delete", "listed", "online", "offline"}
        ``put``: a dataset or group appeared or changed; ``delete``: it is gone. ``listed``: what happened is not known
        in detail, list again. ``online``, ``offline``: the publisher, or the way to it, is there or not.
    path : str
        In the root; empty where all of it is concerned.

    Examples
    --------
    >>> change = cat2.Change("put", "dir/x.b2nd")
    >>> change.kind, change.path
    ('put', 'dir/x.b2nd')
    """

    kind: Literal["put", "delete", "listed", "online", "offline"]
    path: str = ""

    def concerns(self, path: str) -> bool:
        """Does it concern what is at a path, or below?

        Parameters
        ----------
        path : str
            In the root; empty for the root itself.

        Returns
        -------
        bool

        Examples
        --------
        >>> cat2.Change("put", "dir/x.b2nd").concerns("dir"), cat2.Change("put", "dirt").concerns("dir")
        (True, False)
        """
        above = not path or self.path == path or self.path.startswith(f"{path}/")
        return above or not self.path or path.startswith(f"{self.path}/")


def changes_of(service: Service, root: str, path: str = "", stop: threading.Event | None = None) -> Iterator[Change]:
    """Changes at a path of a root or below it, from now on, without end.

    Parameters
    ----------
    service : Service
    root, path : str
    stop : threading.Event, optional
        Ends it within some seconds when it is set.

    Raises
    ------
    Caterva2Error
        When there is no such root, or it may not be read. Failures that may pass come as ``offline``.
    """
    stop = stop or threading.Event()
    at: Cursor | None = None
    is_online: bool | None = None
    pause_s = PAUSES_S[0]
    while not stop.is_set():
        try:
            for message in _messages(service, root, at):
                pause_s = PAUSES_S[0]
                if stop.is_set():
                    return
                at, told = _understood(message, at)
                for change in told:
                    if change.kind in ("online", "offline"):
                        if (change.kind == "online") == is_online:
                            continue
                        is_online = change.kind == "online"
                    if change.concerns(path):
                        yield change
        except NoSuchRouteError:
            raise
        except (SourceUnavailableError, DeadlineError):
            pass
        if is_online is not False:
            is_online = False
            yield Change("offline")
        stop.wait(pause_s)
        pause_s = min(2 * pause_s, PAUSES_S[1])


def _messages(service: Service, root: str, since: Cursor | None) -> Iterator[Any]:
    """Messages of one connection."""
    rest = b""
    with service.event_lines(root, since) as answer:
        for part in answer.parts():
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:
                    raise IntegrityError("an event that is no JSON came") from None


def _understood(message: Any, at: Cursor | None) -> tuple[Cursor | None, list[Change]]:
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "events":
        batch = EventBatch.from_json(message)
        return batch.cursor, [Change(event.change, event.path) for event in batch.events]
    if kind == "resync":
        return at, [Change("listed")]
    if kind == "status":
        return at, [Change("online" if message.get("online") else "offline")]
    return at, []


class Watch:
    """Calls a function on changes, in a thread of its own, until ``stop()``.

    Parameters
    ----------
    service : Service
    root, path : str
    callback : callable
        Called with each `Change`. What it raises ends the watch, and ``error`` has it.

    Attributes
    ----------
    error : Exception or None
        Why it ended by itself.

    Examples
    --------
    >>> changes = []
    >>> with client.watch("foo", changes.append) as watch:
    ...     watch.is_running
    True
    """

    def __init__(self, service: Service, root: str, path: str, callback: Callable[[Change], object]) -> None:
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._what = whole_address(root, path)
        self._thread = threading.Thread(
            target=self._run, args=(service, root, path, callback), name=f"watch {self._what}", daemon=True
        )
        self._thread.start()

    def _run(self, service: Service, root: str, path: str, callback: Callable[[Change], object]) -> None:
        try:
            for change in changes_of(service, root, path, self._stop):
                if self._stop.is_set():
                    return
                callback(change)
        except Exception as error:
            self.error = error

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive() and not self._stop.is_set()

    def stop(self) -> None:
        """No more calls begin after this; the connection ends within some seconds."""
        self._stop.set()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.is_running else f"ended: {self.error}" if self.error else "stopped"
        return f"<Watch of {self._what}, {state}>"
