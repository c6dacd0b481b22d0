"""What a query for a listing says, and what a page of it holds.

A catalog has an *epoch* (a random name for one life of its event log) and a *sequence number* that
grows with each change. ``(epoch, seq)`` is a cursor: a page since a cursor holds only what changed.
Where entries are kept is not decided here (``storage/catalog_store``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import IntegrityError, RequestError
from .metadata import Entry
from .paths import parse_path

__all__ = ["MAX_PAGE", "CatalogPage", "CatalogQuery", "Cursor", "parse_filter", "parse_seq"]

MAX_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """A point in the life of a catalog."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        epoch, _, seq = text.rpartition(":")
        if not epoch or not seq.isascii() or not seq.isdigit() or len(seq) > 18:
            raise RequestError(f"not a cursor: {text[:60]!r}")
        return cls(epoch, int(seq))


def parse_seq(form: object) -> int:
    """A sequence number from JSON.

    Raises
    ------
    IntegrityError
    """
    if type(form) is not int or not 0 <= form < 10**18:
        raise IntegrityError(f"not a sequence number: {str(form)[:40]}")
    return form


@dataclass(frozen=True, slots=True)
class CatalogQuery:
    """Which entries of a root are asked for.

    Attributes
    ----------
    under : str
        Only entries below this group (``""``: all).
    depth : int
        How many levels below it; 1 is its direct children, 0 is no limit.
    after : str
        Continue after this path (``next`` of the page before).
    limit : int
        Most entries in a page.
    since : Cursor or None
        Only what changed after this cursor.
    q : str
        A filter, see ``parse_filter``.
    """

    under: str = ""
    depth: int = 0
    after: str = ""
    limit: int = 1000
    since: Cursor | None = None
    q: str = ""

    def to_params(self) -> dict[str, str]:
        """As parameters of a URL; only what is not the default."""
        params = {"under": self.under, "after": self.after, "q": self.q}
        params |= {"depth": str(self.depth) if self.depth else "", "since": str(self.since) if self.since else ""}
        params["limit"] = str(self.limit) if self.limit != 1000 else ""
        return {k: v for k, v in params.items() if v}

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> CatalogQuery:
        """Parse parameters of a URL.

        Raises
        ------
        RequestError, InvalidPathError
            When one cannot be understood.
        """

        def number(name: str, default: int, most: int) -> int:
            text = params.get(name, "") or str(default)
            if not text.isascii() or not text.isdigit() or int(text[:12]) > most:
                raise RequestError(f"{name} has to be a number from 0 to {most}, not {text[:20]!r}")
            return int(text)

        since = params.get("since", "")
        q = params.get("q", "")
        parse_filter(q)
        return cls(
            under=parse_path(params.get("under", "")),
            depth=number("depth", 0, 1000),
            after=parse_path(params.get("after", "")),
            limit=max(1, number("limit", 1000, MAX_PAGE)),
            since=Cursor.parse(since) if since else None,
            q=q,
        )


@dataclass(frozen=True, slots=True)
class CatalogPage:
    """Some entries, ascending by path, and the cursor that they are true at.

    Entries are kept as JSON texts: a page of 10,000 is passed on without being parsed.

    Attributes
    ----------
    epoch, seq
        The cursor.
    items : tuple of str
        JSON of ``Entry``.
    deleted : tuple of str
        Paths that are gone (only in answers with ``since``).
    next : str or None
        ``after`` of the page that follows, when there is more.
    """

    epoch: str
    seq: int
    items: tuple[str, ...]
    deleted: tuple[str, ...] = ()
    next: str | None = None

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.seq)

    def entries(self) -> Iterator[Entry]:
        for text in self.items:
            yield Entry.from_json(json.loads(text))

    def to_json_text(self) -> str:
        head = json.dumps({"epoch": self.epoch, "seq": self.seq, "deleted": list(self.deleted), "next": self.next})
        return f'{head[:-1]}, "items": [{",".join(self.items)}]}}'

    @classmethod
    def from_json(cls, form: Any) -> CatalogPage:
        try:
            following = form["next"]
            return cls(
                epoch=str(form["epoch"]),
                seq=parse_seq(form["seq"]),
                items=tuple(json.dumps(item, separators=(",", ":")) for item in form["items"]),
                deleted=tuple(parse_path(str(p)) for p in form.get("deleted", ())),
                next=None if following is None else parse_path(str(following)),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise IntegrityError("malformed page of a catalog") from error


_COMPARISON = re.compile(r"(ndim|nbytes|size)(<=|>=|=|<|>)(\d{1,18})")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def parse_filter(text: str) -> Callable[[Entry], bool]:
    """A test of entries from words that all have to hold.

    ``dtype:float32``, ``kind:array``, ``attr:units``, ``dim:time``, ``ndim>2``, ``nbytes>=1000000``,
    ``size=10``; any other word has to occur in the path, in either case.

    Examples
    --------
    >>> parse_filter("temp kind:group")(Entry("data/Temp", "group"))
    True
    """
    if len(text) > 1000:
        raise RequestError("a filter has at most 1000 characters")
    tests: list[Callable[[Entry], bool]] = [_word_test(word) for word in text.split()]
    return lambda entry: all(test(entry) for test in tests)


def _word_test(word: str) -> Callable[[Entry], bool]:
    if match := _COMPARISON.fullmatch(word):
        name, sign, number = match.group(1), match.group(2), int(match.group(3))
        return lambda e: e.geometry is not None and _COMPARE[sign](int(getattr(e.geometry, name)), number)
    key, colon, value = word.partition(":")
    if colon and key == "dtype":
        return lambda e: e.geometry is not None and value in (str(e.geometry.dtype), e.geometry.dtype.str)
    if colon and key == "kind":
        return lambda e: e.kind == value
    if colon and key == "attr":
        return lambda e: value in e.attrs
    if colon and key == "dim":
        return lambda e: e.dims is not None and value in e.dims
    folded = word.casefold()
    return lambda e: folded in e.path.casefold()
