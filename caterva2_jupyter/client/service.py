"""What a service answers, as methods: REST v1 over a ``Transport``, values in and values out.

Roots, entries, listings, reads, stored files, following, announcing. It keeps nothing but the transport, and
pickles as the service's address: credentials are found again where it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from ..core.cache_location import CacheLocation
from ..core.catalog import MAX_PAGE, CatalogPage, CatalogQuery, Cursor
from ..core.many_reads import many_to_json
from ..core.metadata import Entry
from ..core.paths import parse_root_name, whole_address
from ..core.reduce_request import ReduceRequest
from ..core.wire import RECORDS_TYPE, ReadRequest
from ..errors import IntegrityError, NotFoundError, SourceUnavailableError
from .discovery import find_credentials
from .transport import Answer, Timeouts, Transport

__all__ = ["RootStatus", "Service"]

_API = "/api/v1"
MAX_LOCATION_NBYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class RootStatus:
    """A root as its service sees it now.

    Attributes
    ----------
    name : str
    online : bool
        Is its publisher there? Areas of the service itself always are.
    followed : bool
        Does the service follow it (and so know its catalog, and changes as they come)?
    since : str
        Since when it is online or offline: ISO 8601, UTC; empty when not known.
    http : str
        Address of its publisher; empty when there is none or it is not told.

    Examples
    --------
    >>> client.roots["foo"].name, client.roots["foo"].online
    ('foo', True)
    """

    name: str
    online: bool = True
    followed: bool = False
    since: str = ""
    http: str = ""

    def __str__(self) -> str:
        notes = ["followed"] if self.followed else []
        if not self.online:
            notes.append(f"offline since {self.since}" if self.since else "offline")
        return f"{self.name} ({', '.join(notes)})" if notes else self.name

    @classmethod
    def from_json(cls, form: Any) -> RootStatus:
        try:
            return cls(
                name=parse_root_name(str(form["name"])),
                online=bool(form.get("online", True)),
                followed=bool(form.get("followed", False)),
                since=str(form.get("since") or ""),
                http=str(form.get("http") or ""),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityError("malformed listing of roots") from error


class Service:
    """A subscriber or a publisher, reached over HTTP.

    Parameters
    ----------
    transport : Transport
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    @property
    def url(self) -> str:
        """Base URL."""
        return self.transport.url

    def __reduce__(self) -> tuple[Any, tuple[str, Timeouts, str]]:
        return _find_again, (self.url, self.transport.timeouts, self.transport.tls_ca)

    def _json(self, method: str, route: str, params: Mapping[str, str] | None = None, body: object = None) -> Any:
        raw = None if body is None else json.dumps(body).encode()
        with self.transport.request(method, _API + route, params=params, body=raw) as answer:
            return answer.json() if answer.status != 204 else None

    def health(self) -> Mapping[str, Any]:
        """What the service says of itself.

        Raises
        ------
        SourceUnavailableError, DeadlineError
        """
        form = self._json("GET", "/health")
        return form if isinstance(form, Mapping) else {}

    def roots(self) -> dict[str, RootStatus]:
        """Every root that the service knows, by name."""
        form = self._json("GET", "/roots")
        listed = form.get("roots") if isinstance(form, Mapping) else form
        if not isinstance(listed, list):
            raise IntegrityError("malformed listing of roots")
        statuses = [RootStatus.from_json(item) for item in listed]
        return {s.name: s for s in sorted(statuses, key=lambda s: s.name)}

    def follow(self, root: str) -> None:
        """Have the service follow a root.

        Raises
        ------
        RootNotFoundError
        """
        self._json("POST", f"/roots/{quote(root, safe='@')}/follow", body={})

    def unfollow(self, root: str) -> None:
        """Have the service forget a root; what it has cached of it may go."""
        self._json("DELETE", f"/roots/{quote(root, safe='@')}/follow")

    def announce(self, root: str, path: str) -> None:
        """Have a root look at once whether something changed at ``path`` or below."""
        self._json("POST", f"/roots/{quote(root, safe='@')}/announce", body={"path": path})

    def entry_json(self, root: str, path: str) -> dict[str, Any]:
        """The entry of a dataset or group as the service sends it, all attributes included.

        Raises
        ------
        RootNotFoundError, DatasetNotFoundError
        """
        form = self._json("GET", "/meta", {"path": whole_address(root, path)})
        if not isinstance(form, dict):
            raise IntegrityError("malformed catalog entry")
        return form

    def entry(self, root: str, path: str) -> Entry:
        """The entry of a dataset or group, all attributes included."""
        return Entry.from_json(self.entry_json(root, path))

    def page(self, root: str, query: CatalogQuery) -> CatalogPage:
        """One page of a root's listing."""
        return CatalogPage.from_json(self._json("GET", f"/roots/{quote(root, safe='@')}/catalog", query.to_params()))

    def entries(self, root: str, query: CatalogQuery) -> Iterator[Entry]:
        """Every entry of a listing, ascending by path, asked for page by page."""
        query = replace(query, limit=min(query.limit, MAX_PAGE))
        while True:
            page = self.page(root, query)
            yield from page.entries()
            if page.next is None:
                return
            if page.next <= query.after:
                raise IntegrityError(f"the listing of {root!r} does not come to an end")
            query = replace(query, after=page.next)

    def read(self, request: ReadRequest) -> Answer:
        """Open the answer to a read: its body is for a ``RecordParser``."""
        return self._records("/read", request.to_json())

    def read_many(self, requests: Sequence[ReadRequest]) -> Answer:
        """Open the answers to several reads (4096 at most): the body is for a ``ManyParser``."""
        return self._records("/read-many", many_to_json(requests))

    def reduce(self, request: ReduceRequest) -> Answer:
        """Open the answer to a reduction: its body is for a ``ReduceParser``."""
        return self._records("/reduce", request.to_json())

    def _records(self, route: str, form: Mapping[str, Any]) -> Answer:
        body = json.dumps(form, separators=(",", ":")).encode()
        answer = self.transport.request("POST", _API + route, body=body, headers={"Accept-Encoding": "identity"})
        kind = answer.headers.get("Content-Type", "")
        if kind != RECORDS_TYPE:
            with answer:
                raise self.transport.stranger(kind)
        return answer

    def event_lines(self, root: str, since: Cursor | None = None) -> Answer:
        """Open what is told of a root while it happens: lines of JSON, without end."""
        params = {"root": root} if since is None else {"root": root, "since": str(since)}
        return self.transport.request("GET", _API + "/event-lines", params=params)

    def cache_location(self) -> CacheLocation:
        """Where the service's cache is on its machine, for those who are on it too.

        Raises
        ------
        Caterva2Error
            When it has none, or does not say.
        """
        with self.transport.request("GET", f"{_API}/cache/location") as answer:
            return CacheLocation.from_json(answer.json(MAX_LOCATION_NBYTES))

    def report_uses(self, uses: Sequence[dict[str, Any]]) -> None:
        """Tell the service which of its cached blocks were read without it."""
        body = json.dumps({"uses": list(uses)}, separators=(",", ":")).encode()
        with self.transport.request("POST", f"{_API}/cache/uses", body=body) as answer:
            answer.read(MAX_LOCATION_NBYTES)

    def file(self, root: str, path: str, start: int = 0, version: str = "") -> Answer:
        """Open the stored bytes of a dataset from ``start`` to their end.

        Parameters
        ----------
        version : str
            With ``start``: the part is only wanted of this version.

        Raises
        ------
        UnsupportedDatasetError
            When it is not a file of its own.
        SourceUnavailableError
            When what comes is not the part that was asked for.
        """
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-"} | ({"If-Range": f'"{version}"'} if version else {})
        answer = self.transport.request("GET", f"{_API}/file", params={"path": f"{root}/{path}"}, headers=headers)
        is_part = answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if start and not (answer.status == 206 and is_part):
            with answer:
                raise SourceUnavailableError(f"{self.url} did not answer with the part of {root}/{path} asked for")
        return answer

    def store_expression(
        self, address: str, text: str, operands: Mapping[str, str], *, overwrite: bool = False
    ) -> tuple[str, str]:
        """Store an expression in an area; root and path of what it is there.

        Raises
        ------
        RequestError, NotFoundError, ConflictError, AuthenticationError, AccessDeniedError
        """
        body = {"path": address, "expression": text, "operands": dict(operands), "overwrite": overwrite}
        form = self._json("POST", "/expressions", body=body)
        try:
            return str(form["root"]), str(form["path"])
        except (KeyError, TypeError) as error:
            raise IntegrityError("malformed answer to an expression that was stored") from error

    def exists(self, root: str, path: str) -> bool:
        """Is there a dataset or group at that path?"""
        try:
            self.entry_json(root, path)
        except NotFoundError:
            return False
        return True


def _find_again(url: str, timeouts: Timeouts, tls_ca: str) -> Service:
    return Service(Transport(url, find_credentials(url), timeouts, tls_ca))
