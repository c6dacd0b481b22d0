"""What a broker tells about a root: its name, where it is served, whose it is, how far it is.

Values only. Who may take a name is decided in ``broker/registry``; this is what publishers, brokers and
subscribers say to each other about it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import IntegrityError
from .catalog import Cursor
from .paths import parse_root_name

__all__ = ["AnnouncedRoot", "host_and_port", "owner_tag", "parse_service_url", "parse_via"]

MAX_URL_CHARS = 2048
MAX_VIA = 64
_ID = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class AnnouncedRoot:
    """A root as brokers announce it.

    Attributes
    ----------
    name : str
    http : str
        URL of its publisher (``http+unix://%2Fpath`` for a socket).
    owner : str
        ``owner_tag`` of its publisher; empty when it was registered without an owner (by the old REST).
    online : bool
        Is its publisher connected to the broker? Ownerless ones never are, and count as online: nobody
        would tell the contrary.
    epoch, seq
        Cursor of its catalog as last heard of; ``""`` and 0 when not known.
    via : tuple of str
        Ids of the subscribers that it comes through, that at ``http`` the last; empty from its publisher.
    origin : str
        ``owner_tag`` of its publisher, where another announces it (``owner`` is then the tag of that one).
    """

    name: str
    http: str
    owner: str = ""
    online: bool = False
    epoch: str = ""
    seq: int = 0
    via: tuple[str, ...] = ()
    origin: str = ""

    @property
    def is_older(self) -> bool:
        """Is its publisher one of the older system? All others have an owner."""
        return not self.owner and not self.via

    @property
    def cursor(self) -> Cursor | None:
        return Cursor(self.epoch, self.seq) if self.epoch else None

    def to_json(self) -> dict[str, Any]:
        form: dict[str, Any] = {
            "name": self.name,
            "http": self.http,
            "owner": self.owner,
            "online": self.online,
            "epoch": self.epoch,
            "seq": self.seq,
        }
        if self.via:
            form["via"] = list(self.via)
        if self.origin:
            form["origin"] = self.origin
        return form

    @classmethod
    def from_json(cls, form: Any) -> AnnouncedRoot:
        """Parse what a broker said.

        Raises
        ------
        IntegrityError
            When it cannot be the announcement of a root.
        """
        try:
            return cls(
                name=parse_root_name(str(form["name"])),
                http=parse_service_url(str(form["http"])),
                owner=str(form.get("owner") or ""),
                online=form.get("online") is True,
                epoch=str(form.get("epoch") or ""),
                seq=int(form.get("seq") or 0),
                via=parse_via(form.get("via")),
                origin=str(form.get("origin") or ""),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, IntegrityError):
                raise
            raise IntegrityError("malformed announcement of a root") from error


def parse_via(form: Any) -> tuple[str, ...]:
    """Ids of subscribers on a root's way, from text that nobody has checked.

    Raises
    ------
    IntegrityError
    """
    if form is None:
        return ()
    ids = form if isinstance(form, list) and len(form) <= MAX_VIA else [None]
    if not all(isinstance(i, str) and _ID.fullmatch(i) for i in ids):
        raise IntegrityError("a root's way is a list of ids of subscribers")
    return tuple(ids)


def owner_tag(owner_id: str) -> str:
    """What others may know of a publisher's id.

    The id itself proves to the broker that a name is its own, so it is told to nobody else.
    """
    return hashlib.blake2b(b"caterva2 owner\0" + owner_id.encode("utf-8", "replace"), digest_size=12).hexdigest()


def parse_service_url(text: str) -> str:
    """A service's URL from text that nobody has checked: ``http``, ``https`` or ``http+unix``, no query.

    Raises
    ------
    IntegrityError

    Examples
    --------
    >>> parse_service_url("http://localhost:8001/")
    'http://localhost:8001'
    """
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        port_is_fine = False
    if (
        not port_is_fine
        or len(text) > MAX_URL_CHARS
        or not text.isprintable()
        or parts.scheme not in ("http", "https", "http+unix")
        or not parts.netloc
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise IntegrityError(f"not the URL of a service: {text[:200]!r}")
    return text.rstrip("/")


def host_and_port(url: str) -> str:
    """A service's URL as the old REST writes it: ``host:port``, or the path of a socket; https in full.

    >>> host_and_port("http://localhost:8001"), host_and_port("http+unix://%2Ftmp%2Fpub")
    ('localhost:8001', '/tmp/pub')
    """
    if url.startswith("http+unix://"):
        return unquote(url.removeprefix("http+unix://"))
    return url.removeprefix("http://")
