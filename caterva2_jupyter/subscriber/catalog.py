"""How a followed root's catalog stays true: what happened goes in, what to do comes out.

``RootState`` decides when to list, when a batch of events can be applied and when something was missed. It
fetches nothing, stores nothing and reads no clock (``now`` is passed in); ``followed_root`` performs what it
decides and tells it how that went. Batches may come twice, out of order or not at all: the replica moves
only along numbers without a gap, and anything else ends in asking the source what changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.catalog import MAX_PAGE, CatalogPage, CatalogQuery, Cursor
from ..core.events import EventBatch
from ..errors import Caterva2Error, ResyncError, TooLargeError

__all__ = [
    "Action",
    "Announced",
    "ApplyBatch",
    "EventsLost",
    "Fetch",
    "FetchFailed",
    "Freshness",
    "LinkLost",
    "PageArrived",
    "ReplaceReplica",
    "RetryDue",
    "RetryLater",
    "RootState",
    "Stimulus",
    "StoreFailed",
    "TellStatus",
    "Told",
    "UpdateReplica",
]

MAX_ENTRIES = 2_000_000
_RETRY_FIRST_S, _RETRY_MOST_S = 0.25, 30.0


# What happened.


@dataclass(frozen=True, slots=True)
class Announced:
    """Whoever tells of the root says whether its source is there, and where its catalog is if that is known.

    ``is_kept``: another subscriber serves it, which has a listing of its own while the publisher is away.
    """

    online: bool
    cursor: Cursor | None = None
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """A batch of events, or a heartbeat, came."""

    batch: EventBatch


@dataclass(frozen=True, slots=True)
class EventsLost:
    """Whoever tells of the root dropped events (a queue that was full)."""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """Nobody tells of the root any more: the broker or the event stream is gone."""


@dataclass(frozen=True, slots=True)
class PageArrived:
    """The answer to ``Fetch``."""

    ticket: int
    page: CatalogPage


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """What became of ``Fetch`` instead."""

    ticket: int
    error: Caterva2Error


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The replica could not take what it was given; it is at ``cursor`` (None: nothing can be relied on)."""

    error: Caterva2Error
    cursor: Cursor | None


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The time of ``RetryLater`` is over."""


Stimulus = Announced | Told | EventsLost | LinkLost | PageArrived | FetchFailed | StoreFailed | RetryDue


# What to do.


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask the source for a page; ``ticket`` goes back with the answer."""

    ticket: int
    query: CatalogQuery


@dataclass(frozen=True, slots=True)
class ReplaceReplica:
    """These pages are all there is, at ``cursor``; clients have to list again."""

    pages: tuple[CatalogPage, ...]
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class UpdateReplica:
    """These pages are what changed up to ``cursor``; clients are told."""

    pages: tuple[CatalogPage, ...]
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class ApplyBatch:
    """The next events; clients are told."""

    batch: EventBatch


@dataclass(frozen=True, slots=True)
class TellStatus:
    """Clients are told that the root is live, or not any more."""

    online: bool


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Come back with ``RetryDue`` after about this time."""

    delay_s: float


Action = Fetch | ReplaceReplica | UpdateReplica | ApplyBatch | TellStatus | RetryLater


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far a replica can be trusted to be what the source has.

    Attributes
    ----------
    live : bool
        Changes are told, and none is known to be missing.
    since : float or None
        When it was last live, seconds since the epoch, if it is not; None: never since the start.
    reason : str
        Why it is not live; empty if it is.
    """

    live: bool
    since: float | None = None
    reason: str = ""


@dataclass(slots=True)
class _Listing:
    """Pages on their way: of everything (``since`` is None) or of what changed."""

    ticket: int
    since: Cursor | None
    pages: list[CatalogPage] = field(default_factory=list)
    nitems: int = 0


class RootState:
    """What is known of one followed root.

    Parameters
    ----------
    cursor : Cursor or None
        Where the replica is, from an earlier run; None: there is none.

    Attributes
    ----------
    cursor : Cursor or None
        Where the replica is.

    Examples
    --------
    >>> state = RootState(None)
    >>> state.apply(Announced(online=True), now=0.0)
    [Fetch(ticket=1, query=CatalogQuery(under='', depth=0, after='', limit=10000, since=None, q=''))]
    """

    def __init__(self, cursor: Cursor | None) -> None:
        self.cursor = cursor
        self._source_online = False
        self._linked = False
        self._in_sync = False
        self._live_at: float | None = None
        self._reason = "not reached yet"
        self._listing: _Listing | None = None
        self._again = False
        self._tickets = 0
        self._failures = 0

    @property
    def freshness(self) -> Freshness:
        if self.is_live:
            return Freshness(live=True)
        return Freshness(live=False, since=self._live_at, reason=self._reason)

    @property
    def is_live(self) -> bool:
        return self._linked and self._source_online and self._in_sync

    def apply(self, stimulus: Stimulus, now: float) -> list[Action]:
        """What to do about it.

        Parameters
        ----------
        stimulus : Stimulus
        now : float
            Seconds since the epoch.
        """
        was_live = self.is_live
        if was_live:
            self._live_at = now
        match stimulus:
            case Announced():
                actions = self._announced(stimulus)
            case Told(batch):
                actions = self._told(batch)
            case EventsLost():
                actions = self._sync()
            case LinkLost():
                self._linked = self._in_sync = False
                self._reason = "nobody tells of its changes"
                actions = []
            case PageArrived():
                actions = self._page_arrived(stimulus)
            case FetchFailed():
                actions = self._fetch_failed(stimulus)
            case StoreFailed(error, cursor):
                self.cursor = cursor
                self._listing = None
                actions = self._give_up(error)
            case RetryDue():
                actions = [] if self._in_sync else self._sync()
        if self.is_live != was_live:
            actions.append(TellStatus(self.is_live))
        return actions

    def _announced(self, stimulus: Announced) -> list[Action]:
        self._linked = True
        came_back = stimulus.online and not self._source_online
        self._source_online = stimulus.online
        if not stimulus.online:
            self._reason = "its publisher is away"
            self._in_sync = False
            self._listing = None
            # What was kept of it there is better than nothing, or than what is older.
            is_news = stimulus.is_kept and stimulus.cursor not in (None, self.cursor)
            return self._sync() if is_news else []
        if came_back:
            self._failures = 0
        if self._in_sync and not came_back and stimulus.cursor is None:
            return []
        if self.cursor is not None and stimulus.cursor == self.cursor:
            self._in_sync = True
            return []
        return self._sync()

    def _told(self, batch: EventBatch) -> list[Action]:
        # Whoever sends batches is linked to a source that is there, whatever was said before.
        self._linked = self._source_online = True
        if self._listing is not None:
            self._again = self._again or self.cursor is None or batch.cursor != self.cursor
            return []
        if self.cursor is None or batch.epoch != self.cursor.epoch:
            return self._sync()
        if not batch.events:
            if batch.seq == self.cursor.seq:
                self._in_sync = True
                return []
            return self._sync()  # something was missed, or the source went back to an older state
        if batch.seq <= self.cursor.seq:
            return []
        if not batch.follows(self.cursor) or any(e.change == "put" and e.entry is None for e in batch.events):
            return self._sync()
        self.cursor = batch.cursor
        self._in_sync = True
        return [ApplyBatch(batch)]

    def _sync(self) -> list[Action]:
        """Ask what changed, or everything when nothing is known; once more if that is under way."""
        if self._listing is not None:
            self._again = True
            return []
        return self._list(self.cursor)

    def _list(self, since: Cursor | None) -> list[Action]:
        self._again = False
        self._tickets += 1
        self._listing = _Listing(self._tickets, since)
        return [Fetch(self._tickets, CatalogQuery(since=since, limit=MAX_PAGE))]

    def _page_arrived(self, stimulus: PageArrived) -> list[Action]:
        listing, page = self._listing, stimulus.page
        if listing is None or stimulus.ticket != listing.ticket:
            return []
        first = listing.pages[0] if listing.pages else page
        if page.epoch != first.epoch or (listing.since is not None and page.epoch != listing.since.epoch):
            return self._list(None)
        listing.pages.append(page)
        listing.nitems += len(page.items) + len(page.deleted)
        if listing.nitems > MAX_ENTRIES:
            error = TooLargeError(f"the catalog has over {MAX_ENTRIES} entries")
            return self._fetch_failed(FetchFailed(listing.ticket, error))
        if page.next is not None:
            self._tickets += 1
            listing.ticket = self._tickets
            return [Fetch(listing.ticket, CatalogQuery(since=listing.since, after=page.next, limit=MAX_PAGE))]
        # Pages made at different times are true together only as far as the first: later changes come again.
        again = self._again or page.seq != first.seq
        self._listing = None
        self.cursor = first.cursor
        self._in_sync = True
        self._failures = 0
        pages = tuple(listing.pages)
        actions: list[Action] = [
            ReplaceReplica(pages, first.cursor) if listing.since is None else UpdateReplica(pages, first.cursor)
        ]
        return actions + (self._list(self.cursor) if again else [])

    def _fetch_failed(self, stimulus: FetchFailed) -> list[Action]:
        listing = self._listing
        if listing is None or stimulus.ticket != listing.ticket:
            return []
        self._listing = None
        if isinstance(stimulus.error, ResyncError) and listing.since is not None:
            return self._list(None)
        return self._give_up(stimulus.error)

    def _give_up(self, error: Caterva2Error) -> list[Action]:
        """For a while."""
        self._in_sync = False
        self._reason = str(error)
        self._failures += 1
        return [RetryLater(min(_RETRY_FIRST_S * 2 ** min(self._failures - 1, 10), _RETRY_MOST_S))]
