"""Whose is a root's name, who is there, who follows what: the broker's decisions, as values.

No sockets, no files, no clock: connections are opaque numbers and ``now`` is handed in. ``broker`` acts on
what these methods return.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core.catalog import Cursor
from ..core.roots import AnnouncedRoot, host_and_port
from ..errors import ConflictError, IntegrityError, RootNotFoundError, RootTakenError, TooManyRequestsError

__all__ = ["MAX_ROOTS", "Registry"]

MAX_ROOTS = 10_000


@dataclass(slots=True)
class _Presence:
    """The connection that speaks for a root, and when it was last heard."""

    connection: int
    heard_at: float


class Registry:
    """Roots, their owners and followers.

    Parameters
    ----------
    roots : iterable of AnnouncedRoot
        Known from an earlier run. Those with an owner start offline: it has to connect first.

    Notes
    -----
    A name belongs to the owner that took it first, online or not, until it is removed. A root without an
    owner (old REST) belongs to its address: the publisher there may give it an owner later, others may not.
    Who announces the root of another (``origin``) has the name until that one comes for it.
    """

    def __init__(self, roots: Iterable[AnnouncedRoot] = ()) -> None:
        self._roots = {r.name: replace(r, online=not r.owner) for r in roots}
        self._present: dict[str, _Presence] = {}
        self._followed: dict[int, frozenset[str]] = {}
        self._followers: dict[str, set[int]] = {}

    def roots(self) -> tuple[AnnouncedRoot, ...]:
        """All roots, by name."""
        return tuple(self._roots[name] for name in sorted(self._roots))

    def root(self, name: str) -> AnnouncedRoot:
        try:
            return self._roots[name]
        except KeyError:
            raise RootNotFoundError(f"no root {name!r}") from None

    def register(self, name: str, http: str, owner: str, origin: str = "", via: tuple[str, ...] = ()) -> bool:
        """Take a name, or renew it.

        Parameters
        ----------
        owner : str
            Tag of the owner; ``""`` for a publisher that has none (old REST).
        origin : str
            Tag of the root's own publisher, when the owner announces what it has from there.
        via : tuple of str
            Ids of the subscribers that it comes through.

        Returns
        -------
        bool
            Whether anything changed.

        Raises
        ------
        RootTakenError
            When the name belongs to another publisher.
        TooManyRequestsError
        """
        known = self._roots.get(name)
        if known is None:
            if len(self._roots) >= MAX_ROOTS:
                raise TooManyRequestsError(f"the broker knows {MAX_ROOTS} roots and takes no more")
            self._roots[name] = AnnouncedRoot(name, http, owner, online=not owner, via=via, origin=origin)
            return True
        same_owner = owner == known.owner if known.owner and owner else http == known.http
        comes_for_it = bool(owner) and owner == known.origin
        if not (same_owner or comes_for_it):
            raise RootTakenError(
                f"root {name!r} belongs to another publisher, at {host_and_port(known.http)}: publish under another "
                "name, or start the publisher with the state directory that it had, or remove the root from the broker"
            )
        renewed = replace(known, http=http)
        if owner:
            renewed = replace(renewed, owner=owner, origin=origin, via=via)
        if owner and (comes_for_it or not known.owner):
            renewed = replace(renewed, online=False)
        self._roots[name] = renewed
        return renewed != known

    def connect(self, name: str, connection: int, cursor: Cursor, now: float) -> int | None:
        """A registered publisher is there.

        Returns
        -------
        int or None
            The earlier connection that this one replaces (its other end may be half-open): to be closed.
        """
        self._roots[name] = replace(self.root(name), online=True, epoch=cursor.epoch, seq=cursor.seq)
        earlier = self._present.get(name)
        self._present[name] = _Presence(connection, now)
        return earlier.connection if earlier else None

    def hear(self, name: str, connection: int, cursor: Cursor, now: float) -> bool:
        """Note a sign of life; False when that connection no longer speaks for the root."""
        presence = self._present.get(name)
        if presence is None or presence.connection != connection:
            return False
        presence.heard_at = now
        self._roots[name] = replace(self._roots[name], epoch=cursor.epoch, seq=cursor.seq)
        return True

    def disconnect(self, name: str, connection: int) -> bool:
        """Mark a root offline; False when another connection speaks for it by now."""
        presence = self._present.get(name)
        if presence is None or presence.connection != connection:
            return False
        del self._present[name]
        self._roots[name] = replace(self._roots[name], online=False)
        return True

    def expire(self, now: float, silence_s: float) -> tuple[int, ...]:
        """Mark offline what has been silent for that long.

        Returns
        -------
        tuple of int
            Their connections: to be closed.
        """
        silent = [(n, p.connection) for n, p in self._present.items() if now - p.heard_at >= silence_s]
        for name, connection in silent:
            self.disconnect(name, connection)
        return tuple(connection for _, connection in silent)

    def excuse(self, held_up_s: float, now: float) -> None:
        """Nobody was heard for that long, as nobody listened: what was said meanwhile is still to come."""
        for presence in self._present.values():
            presence.heard_at = min(presence.heard_at + held_up_s, now)

    def remove(self, name: str) -> None:
        """Forget a root, so that its name is free.

        Raises
        ------
        RootNotFoundError
        ConflictError
            When its publisher is connected: it would take the name again at once.
        """
        self.root(name)
        if name in self._present:
            raise ConflictError(f"root {name!r} is online: stop its publisher first")
        del self._roots[name]

    def follow(self, listener: int, names: Iterable[str]) -> frozenset[str]:
        """Set which roots a listener follows; names that nobody has taken yet may be among them.

        Returns
        -------
        frozenset of str
            Those that it did not follow before.
        """
        before, after = self._followed.get(listener, frozenset()), frozenset(names)
        for name in before - after:
            self._drop(name, listener)
        for name in after - before:
            self._followers.setdefault(name, set()).add(listener)
        self._followed[listener] = after
        return after - before

    def leave(self, listener: int) -> None:
        """A listener is gone."""
        for name in self._followed.pop(listener, frozenset()):
            self._drop(name, listener)

    def _drop(self, name: str, listener: int) -> None:
        listeners = self._followers[name]
        listeners.discard(listener)
        if not listeners:
            del self._followers[name]

    def followers(self, name: str) -> frozenset[int]:
        return frozenset(self._followers.get(name, ()))

    def to_json(self) -> dict[str, Any]:
        """What has to survive a restart; ``owner`` is a tag, nothing here is secret."""
        form: dict[str, dict[str, Any]] = {
            r.name: {"name": r.name, "http": host_and_port(r.http)} for r in self.roots()
        }
        for root in self.roots():
            if root.owner:
                form[root.name] |= {"owner": root.owner, "url": root.http}
            if root.origin:
                form[root.name] |= {"origin": root.origin, "via": list(root.via)}
        return {"roots": form}

    @classmethod
    def from_json(cls, form: Any) -> Registry:
        """Parse ``to_json``, or the state of the older system (``{"name", "http"}`` only).

        Raises
        ------
        IntegrityError
        """
        try:
            return cls(_root_from_state(root) for root in form["roots"].values())
        except (KeyError, TypeError, AttributeError) as error:
            raise IntegrityError("not the state of a broker") from error


def _root_from_state(form: Mapping[str, Any]) -> AnnouncedRoot:
    return AnnouncedRoot.from_json({**form, "http": form.get("url") or url_of(str(form["http"]))})


def url_of(http: str) -> str:
    """The URL that ``host:port`` or a socket's path of the old REST stands for."""
    if "://" in http:
        return http
    if "/" in http:
        return "http+unix://" + http.replace("%", "%25").replace("/", "%2F")
    return f"http://{http}"
