"""Writing to areas, as methods: ``api/v1/files`` and ``api/v1/areas`` over a transport; and what objects offer of it.

What is sent for an object is made by ``uploads``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..core.paths import join, parse_path, split_address
from ..core.paths import name as last_name
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    IntegrityError,
    RequestError,
    TooLargeError,
    UnsupportedDatasetError,
)
from .progress import Progress
from .transport import NoSuchRouteError, Transport

if TYPE_CHECKING:
    from .uploads import Body

__all__ = ["AreaService"]

_API = "/api/v1"
ASK_FIRST_NBYTES = 8 << 20
QUOTA_TEXT = "Upload failed because quota limit has been exceeded."


class AreaService:
    """The areas of the service behind a transport.

    Every method raises `UnsupportedDatasetError` for a service that has none, such as a publisher, and
    `AuthenticationError` or `AccessDeniedError` where nobody, or not this user, may write.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _json(self, method: str, route: str, form: object = None) -> dict[str, Any]:
        body = None if form is None else json.dumps(form).encode()
        try:
            with self._transport.request(method, _API + route, body=body) as answer:
                told = answer.json()
        except NoSuchRouteError:
            raise self._no_areas() from None
        if not isinstance(told, dict):
            raise IntegrityError("malformed answer about an area")
        return told

    def _no_areas(self) -> UnsupportedDatasetError:
        return UnsupportedDatasetError(
            f"{self._transport.url} has no areas to write to: connect to a subscriber (cat2sub, or Jupyter)"
        )

    def _path(self, form: dict[str, Any]) -> str:
        path = form.get("path")
        if not isinstance(path, str):
            raise IntegrityError("malformed answer about an area")
        split_address(path)
        return path

    def status(self) -> dict[str, Any]:
        """The areas that there are for us, and what may still be written."""
        return self._json("GET", "/areas")

    def upload(self, obj: object, address: str, progress: Progress | None, *, overwrite: bool) -> str:
        """Send an object; the address where it is then. See ``Group.upload``."""
        from .uploads import bodies_of  # with all of blosc2: who only reads does without

        with ExitStack() as opened:
            bodies, own_name, suffix = bodies_of(obj, opened)
            goal = _goal(address, own_name, suffix)
            total = sum(body.nbytes or 0 for body in bodies)
            if total >= ASK_FIRST_NBYTES:
                self._ask_first(split_address(goal)[0], bodies)
            if suffix == "/":
                self._json("POST", "/areas/mkdir", {"path": goal})
            done = 0
            for body in bodies:
                sent = self._send(body, join(goal, body.path) if body.path else goal, progress, done, total, overwrite)
                done += body.nbytes or 0
                if suffix != "/":
                    goal = sent
            if progress is not None and not total:
                progress(done, total)
        return goal

    def _ask_first(self, root: str, bodies: list[Body]) -> None:
        """What would be refused is better refused before it is sent."""
        status = self.status()
        listed = status.get("areas")
        areas = {str(area.get("name")): area for area in listed if isinstance(area, dict)} if listed else {}
        if root in areas and not areas[root].get("writable"):
            raise AuthenticationError(f"writing to {root} needs a user: give username and password, or a token")
        limit, usage = status.get("quota_nbytes"), status.get("usage_nbytes")
        is_full = isinstance(limit, int) and isinstance(usage, int) and usage >= limit
        if is_full and bodies:
            raise TooLargeError(QUOTA_TEXT)

    def _send(self, body: Body, address: str, progress: Progress | None, done: int, total: int, overwrite: bool) -> str:
        split_address(address)
        headers = {"Content-Type": "application/octet-stream"}
        if body.nbytes is not None:
            headers["Content-Length"] = str(body.nbytes)
        if not overwrite:
            headers["If-None-Match"] = "*"

        def parts() -> Iterator[bytes]:
            sent = 0
            for part in body.parts():
                yield part
                sent += len(part)
                if progress is not None:
                    progress(done + sent, total)

        try:
            with self._transport.send(
                "PUT",
                f"{_API}/files/{quote(address, safe='/@')}",
                parts,
                headers,
                can_repeat=body.can_repeat,
            ) as answer:
                form = answer.json()
        except NoSuchRouteError:
            raise self._no_areas() from None
        return self._path(form if isinstance(form, dict) else {})

    def remove(self, address: str) -> None:
        """Remove a file or directory."""
        root, path = split_address(address)
        if not path:
            raise AccessDeniedError(f"{root} is a root: it cannot be removed, only what is in an area")
        self._json("DELETE", f"/files/{quote(f'{root}/{path}', safe='/@')}")

    def make_directory(self, address: str) -> str:
        """Make a directory; fine when it is there."""
        split_address(address.rstrip("/"))
        return self._path(self._json("POST", "/areas/mkdir", {"path": address.rstrip("/")}))

    def move(self, source: str, goal: str, *, overwrite: bool) -> str:
        """Move a file or directory; the address where it is then."""
        return self._path(self._json("POST", "/areas/move", {"src": source, "dst": goal, "overwrite": overwrite}))

    def copy(self, source: str, goal: str, *, overwrite: bool) -> tuple[str, list[str]]:
        """Copy a dataset or group; the address where it is then, and what could not be copied."""
        form = self._json("POST", "/areas/copy", {"src": source, "dst": goal, "overwrite": overwrite})
        skipped = form.get("skipped")
        return self._path(form), [str(item) for item in skipped] if isinstance(skipped, list) else []


def _goal(address: str, own_name: str, suffix: str) -> str:
    """Where an object goes: a trailing slash, or an area alone, names the directory to put it into."""
    into = address.endswith("/") or "/" not in address
    address = address.rstrip("/")
    if into:
        if not own_name:
            raise RequestError(f"give a path to upload to: {address}/NAME")
        address = f"{address}/{parse_path(own_name.rstrip('/'))}"
    if suffix.startswith(".") and not last_name(address).endswith(suffix):
        address += suffix
    split_address(address)
    return address
