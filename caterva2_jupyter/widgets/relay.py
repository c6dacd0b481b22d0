"""Requests of a viewer in a notebook, passed on to the service: what a kernel does for a browser that cannot reach it.

Messages come from the viewer's module, ``{id, method, path, headers?}``, and answers go back as ``{id, status,
headers}`` with one buffer. Only GETs of a list of routes are passed on, with the session's credentials and within
limits; nothing in a message or an answer is run. It knows nothing of widgets: ``send`` is given.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

from ..client.service import Service
from ..client.transport import NoSuchRouteError
from ..core.catalog import Cursor
from ..core.events import EventBatch
from ..core.paths import parse_root_name
from ..errors import (
    AccessDeniedError,
    Caterva2Error,
    DeadlineError,
    IntegrityError,
    RequestError,
    SourceUnavailableError,
    TooLargeError,
    TooManyRequestsError,
    error_to_json,
)

__all__ = ["MAX_ANSWER_NBYTES", "Relay", "Send"]

MAX_ANSWER_NBYTES = 64 << 20
MAX_FILE_NBYTES = 16 << 20
MAX_PATH_CHARS = 16_384
MAX_WAITING = 64
MAX_LISTENERS = 8
WORKERS = 4
PAUSES_S = (0.5, 10.0)

_ROUTES = re.compile(
    r"api/v1/(meta|values|overview|displays|roots|file|roots/([\w.~@ -]|%(?!2[EFef]|5[Cc])[0-9A-Fa-f]{2})+/catalog)"
    r"|displays/[a-z0-9][a-z0-9_-]{0,63}\.js"
)
_FILE = "/api/v1/file"
_HEADERS = ("content-type", "etag", "content-range")
_OWN_HEADERS = "x-caterva2-"
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{1,15})")

Send = Callable[[Mapping[str, Any], list[bytes]], object]


class Relay:
    """Answers the messages of one viewer, in a few threads.

    Parameters
    ----------
    service : Service
        Whom requests are passed on to.
    send : callable
        Takes an answer: a mapping that is JSON, and buffers. Called from threads, one at a time.
    max_nbytes : int
        Bytes of an answer at most; more is answered with status 413.

    Examples
    --------
    >>> from caterva2_jupyter.client.transport import Transport
    >>> answers = []
    >>> relay = Relay(Service(Transport("http://localhost:8002")), lambda message, buffers: answers.append(message))
    >>> relay.receive({"id": 1, "method": "DELETE", "path": "api/v1/files/@public/x"})
    >>> answers[0]["status"]
    403
    >>> relay.close()
    """

    def __init__(self, service: Service, send: Send, max_nbytes: int = MAX_ANSWER_NBYTES) -> None:
        self._service = service
        self._send = send
        self._max_nbytes = max_nbytes
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._stops: dict[int, threading.Event] = {}
        self._listeners: dict[str, threading.Event] = {}
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="caterva2-viewer")
        self._is_closed = False

    def receive(self, message: object) -> None:
        """Take a message; what is not one of ours is passed over. Returns at once."""
        if not isinstance(message, dict) or self._is_closed:
            return
        if isinstance(message.get("listen"), str):
            self._listen(message["listen"])
        elif isinstance(message.get("unlisten"), str):
            self._unlisten(message["unlisten"])
        elif type(message.get("id")) is int:
            if message.get("abort"):
                self._abort(message["id"])
            else:
                self._begin(message["id"], message)

    def close(self) -> None:
        """End everything that is under way; nothing is sent any more."""
        self._is_closed = True
        with self._lock:
            for stop in (*self._stops.values(), *self._listeners.values()):
                stop.set()
            self._listeners.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _abort(self, number: int) -> None:
        with self._lock:
            stop = self._stops.get(number)
        if stop is not None:
            stop.set()

    def _begin(self, number: int, message: Mapping[str, Any]) -> None:
        try:
            route, parameters = allowed(message.get("method"), message.get("path"))
            wanted = _part_of(message.get("headers")) if route == _FILE else ""
            stop = threading.Event()
            with self._lock:
                if number in self._stops:
                    raise RequestError(f"request {number} is under way already")
                if len(self._stops) >= MAX_WAITING:
                    raise TooManyRequestsError(f"{MAX_WAITING} requests are under way: wait for some")
                self._stops[number] = stop
        except Caterva2Error as error:
            self._tell_error(number, error)
            return
        self._pool.submit(self._answer, number, route, parameters, wanted, stop)

    def _answer(self, number: int, route: str, parameters: dict[str, str], wanted: str, stop: threading.Event) -> None:
        try:
            if not stop.is_set():
                self._pass_on(number, route, parameters, wanted, stop)
        except Caterva2Error as error:
            if not stop.is_set():
                self._tell_error(number, error)
        except Exception as error:  # the viewer waits for an answer, whatever went wrong
            self._tell_error(number, SourceUnavailableError(f"the kernel could not answer: {type(error).__name__}"))
            raise
        finally:
            with self._lock:
                self._stops.pop(number, None)

    def _pass_on(self, number: int, route: str, parameters: dict[str, str], wanted: str, stop: threading.Event) -> None:
        limit = min(self._max_nbytes, MAX_FILE_NBYTES) if route == _FILE else self._max_nbytes
        sent = {"Range": wanted, "Accept-Encoding": "identity"} if wanted else None
        parts: list[bytes] = []
        nbytes = 0
        with self._service.transport.request("GET", route, params=parameters or None, headers=sent) as answer:
            announced = answer.headers.get("Content-Length", "")
            if announced.isdigit() and int(announced) > limit:
                raise _too_large(limit)
            for part in answer.parts():
                if stop.is_set():
                    return  # leaving closes the connection: the service stops too
                nbytes += len(part)
                if nbytes > limit:
                    raise _too_large(limit)
                parts.append(part)
            headers = {
                name.lower(): value
                for name, value in answer.headers.items()
                if name.lower() in _HEADERS or name.lower().startswith(_OWN_HEADERS)
            }
        if not stop.is_set():
            self._tell({"id": number, "status": answer.status, "headers": headers}, [b"".join(parts)])

    def _tell(self, message: Mapping[str, Any], buffers: list[bytes]) -> None:
        # Messages with buffers are several frames: two threads must not mix theirs.
        with self._sending:
            if not self._is_closed:
                self._send(message, buffers)

    def _tell_error(self, number: int, error: Caterva2Error) -> None:
        body = json.dumps(error_to_json(error)).encode()
        headers = {"content-type": "application/json"}
        self._tell({"id": number, "status": error.status, "headers": headers}, [body])

    def _listen(self, root: str) -> None:
        try:
            root = parse_root_name(root)
        except Caterva2Error:
            return
        with self._lock:
            if root in self._listeners or len(self._listeners) >= MAX_LISTENERS:
                return
            stop = self._listeners[root] = threading.Event()
        name = f"caterva2-events {root}"
        threading.Thread(target=self._tell_events, args=(root, stop), name=name, daemon=True).start()

    def _unlisten(self, root: str) -> None:
        with self._lock:
            stop = self._listeners.pop(root, None)
        if stop is not None:
            stop.set()

    def _tell_events(self, root: str, stop: threading.Event) -> None:
        """Pass on what happens in a root until it is told to stop; after an interruption, what was missed."""
        at: Cursor | None = None
        pause_s = PAUSES_S[0]
        while not stop.is_set():
            try:
                for message in _messages(self._service, root, at):
                    if stop.is_set():
                        return
                    pause_s = PAUSES_S[0]
                    if message.get("type") == "events":
                        at = EventBatch.from_json(message).cursor
                    if message.get("type") in ("events", "resync", "status"):
                        self._tell({"events": root, "message": message}, [])
            except NoSuchRouteError:
                return  # an older service tells no events: what is shown stays as it is
            except (SourceUnavailableError, DeadlineError):
                self._tell({"events": root, "message": {"type": "status", "root": root, "online": False}}, [])
            except Caterva2Error:
                return  # the root is gone, or not ours to see: requests say so
            stop.wait(pause_s)
            pause_s = min(2 * pause_s, PAUSES_S[1])


def allowed(method: object, path: object) -> tuple[str, dict[str, str]]:
    """The route and parameters of a message's path, when it may be passed on.

    Raises
    ------
    AccessDeniedError

    Examples
    --------
    >>> allowed("GET", "api/v1/values?path=foo/x&sel=0,%3A")
    ('/api/v1/values', {'path': 'foo/x', 'sel': '0,:'})
    >>> allowed("GET", "api/v1/cache/location")
    Traceback (most recent call last):
        ...
    caterva2_jupyter.errors.AccessDeniedError: a viewer in a notebook may not ask for that: GET api/v1/cache/location
    """
    if method == "GET" and isinstance(path, str) and len(path) <= MAX_PATH_CHARS:
        route, _, query = path.partition("?")
        if _ROUTES.fullmatch(route) and "/.." not in route:
            return f"/{route}", dict(parse_qsl(query, keep_blank_values=True))
    said = f"{str(method)[:10]} {str(path).partition('?')[0][:100]}"
    raise AccessDeniedError(f"a viewer in a notebook may not ask for that: {said}")


def _part_of(headers: object) -> str:
    """The part of a file that a message asks for, as a header; all of it when it asks for none that is one.

    >>> _part_of({"Range": "bytes=0-99"}), _part_of({"Range": "bytes=-5"}), _part_of(None)
    ('bytes=0-99', '', '')
    """
    wanted = headers.get("Range") if isinstance(headers, dict) else None
    return wanted if isinstance(wanted, str) and _RANGE.fullmatch(wanted) else ""


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"that is more than {limit >> 20} MiB, too much for a view in a notebook: choose a smaller part"
    )


def _messages(service: Service, root: str, since: Cursor | None) -> Any:
    rest = b""
    with service.event_lines(root, since) as answer:
        for part in answer.parts():
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                try:
                    message = json.loads(line)
                except ValueError:
                    raise IntegrityError("an event that is no JSON came") from None
                if isinstance(message, dict):
                    yield message
