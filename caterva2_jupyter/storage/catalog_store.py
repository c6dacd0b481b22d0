"""The catalog of one root, kept in SQLite: entries, what was deleted, and the cursor of each change.

A publisher's store numbers its own changes (``replace_all``, ``apply``); a replica (``adopt``,
``put_replica``) keeps the epoch and the numbers of its origin, so that a cursor means the same at both.
It reads no dataset and tells nobody: ``threaded_source`` does. Safe to use from several threads.
"""

from __future__ import annotations

import heapq
import itertools
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..core.catalog import CatalogPage, CatalogQuery, Cursor, parse_filter
from ..core.events import Event, EventBatch
from ..core.metadata import Entry
from ..core.paths import parent
from ..errors import DatasetNotFoundError, ResyncError, SourceUnavailableError
from .root import KnownEntry

__all__ = ["CatalogStore"]

FORMAT = 1
INDEX_FORMAT = 1
"""What roots tell of a file in its entry and ``storage``. One more whenever that changes: catalogs of an earlier number
are made again from the files, so that what is new is there without anybody's doing."""
MAX_EVENTS_PER_SEQ = 1000
MAX_REPLAYED_EVENTS = 10_000
MAX_SCANNED_PER_PAGE = 20_000
MAX_PAGE_NBYTES = 16 << 20
MAX_TOMBSTONES = 100_000
MAX_GAPS, MAX_GAP = 1000, 1 << 30
MAX_WITH_ONE_ID = 100
MAX_RESOLVED = 1000
"""Entries in memory, with up to 64 kB of attributes each."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries(
    path TEXT PRIMARY KEY, parent TEXT NOT NULL, depth INTEGER NOT NULL, kind TEXT NOT NULL,
    seq INTEGER NOT NULL, stamp TEXT NOT NULL, entry TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS entries_by_parent ON entries(parent, path);
CREATE INDEX IF NOT EXISTS entries_by_seq ON entries(seq);
CREATE INDEX IF NOT EXISTS entries_by_id ON entries(json_extract(entry, '$.id'))
    WHERE json_extract(entry, '$.id') IS NOT NULL;
CREATE TABLE IF NOT EXISTS tombstones(
    path TEXT PRIMARY KEY, parent TEXT NOT NULL, depth INTEGER NOT NULL, seq INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS tombstones_by_seq ON tombstones(seq);
CREATE TABLE IF NOT EXISTS gaps(last INTEGER NOT NULL, next INTEGER PRIMARY KEY);
"""

_Row = tuple[str, str | None]  # path and JSON of its entry; None: deleted


def _entry_text(entry: Entry) -> str:
    return json.dumps(entry.to_json(), separators=(",", ":"))


def _entry_of(text: str) -> Entry:
    return Entry.from_json(json.loads(text))


def _depth(path: str) -> int:
    return path.count("/") + 1 if path else 0


class CatalogStore:
    """The entries of a root, by path.

    Parameters
    ----------
    path : Path or None
        Database file; None keeps everything in memory. A file that cannot be used is set aside
        (``*.corrupt``) and a new one begun, with a new epoch.
    root : str
        Name of the root, for batches of events and messages.
    is_replica : bool
        Another process keeps the file: it is read here, never repaired or written.

    Examples
    --------
    >>> store = CatalogStore(None, "foo")
    >>> [event.change for event in store.replace_all([(Entry("dir", "group"), "")])]
    ['put']
    >>> store.page(CatalogQuery()).items
    ('{"path":"dir","kind":"group"}',)
    """

    def __init__(self, path: Path | None = None, root: str = "", *, is_replica: bool = False) -> None:
        self.root = root
        self._path = path
        self._lock = threading.RLock()
        self._is_replica = is_replica
        self._resolved: dict[str, Entry] = {}
        if is_replica:
            self._db = self._open_replica()
            return
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if path is None or isinstance(error, sqlite3.OperationalError):
                raise SourceUnavailableError(f"cannot use the catalog {path}: {error}") from error
            self._set_aside(path)
            self._db = self._open()

    def _open_replica(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(f"{self._path}", isolation_level=None, check_same_thread=False, timeout=10)
            db.execute("PRAGMA query_only = ON")
            db.execute("SELECT count(*) FROM meta")
        except sqlite3.Error as error:
            raise SourceUnavailableError(f"cannot use the catalog {self._path}: {error}") from error
        return db

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path or ":memory:", isolation_level=None, check_same_thread=False, timeout=10)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            # A number that was told may not be given out again after a crash for another change.
            db.execute("PRAGMA synchronous = FULL")
            for (verdict,) in db.execute("PRAGMA quick_check(1)"):
                if verdict != "ok":
                    raise sqlite3.DatabaseError(verdict)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, FORMAT):
                raise sqlite3.DatabaseError(f"catalog of format {version}")
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT")
            # Where entries are there without a number, an earlier version of this package made them.
            index_format = INDEX_FORMAT if version == 0 else 0
            db.executemany(
                "INSERT OR IGNORE INTO meta VALUES (?, ?)",
                [
                    ("index_format", f"{index_format}"),
                    ("epoch", secrets.token_hex(8)),
                    ("seq", "0"),
                    ("floor", "0"),
                    ("owner", secrets.token_hex(16)),
                ],
            )
        except BaseException:
            db.close()
            raise
        return db

    @staticmethod
    def _set_aside(path: Path) -> None:
        for number in itertools.count():
            goal = path.with_name(f"{path.name}.corrupt" + (f".{number}" if number else ""))
            if not goal.exists():
                break
        path.rename(goal)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).unlink()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, alone; its errors as ours."""
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise SourceUnavailableError(f"cannot read the catalog of {self.root!r}: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing."""
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                # A disk that is full may be told at the end only.
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
            self._resolved = {}

    # What is there

    @property
    def cursor(self) -> Cursor:
        """The present point in the life of the catalog."""
        with self._reading() as db:
            return _cursor(db)

    @property
    def owner_id(self) -> str:
        """A random id that was made with the database."""
        with self._reading() as db:
            return _meta(db, "owner")

    def __len__(self) -> int:
        """Number of entries."""
        with self._reading() as db:
            (count,) = db.execute("SELECT count(*) FROM entries").fetchone()
            return int(count)

    def stored_nbytes(self) -> dict[str, int]:
        """Bytes that each dataset with data takes where it comes from, by its id."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT json_extract(entry, '$.id'), json_extract(entry, '$.cbytes') FROM entries"
                " WHERE json_extract(entry, '$.geometry.shape') IS NOT NULL"
            )
            return {str(key): int(nbytes) for key, nbytes in rows if key and isinstance(nbytes, int)}

    def get(self, path: str) -> Entry | None:
        """The entry at exactly this path; the root itself is always a group."""
        with self._reading() as db:
            row = db.execute("SELECT entry FROM entries WHERE path = ?", (path,)).fetchone()
        if row is None:
            return Entry("", "group") if path == "" else None
        return _entry_of(row[0])

    def resolve(self, path: str) -> Entry:
        """The entry at ``path``, exactly or with ``.b2nd`` added.

        Raises
        ------
        DatasetNotFoundError
        """
        if not self._is_replica and (known := self._resolved.get(path)) is not None:
            return known
        with self._lock:
            entry = self.get(path)
            if entry is None:
                entry = self.get(f"{path}.b2nd")
            if entry is None:
                raise DatasetNotFoundError(f"no dataset {path!r} in root {self.root!r}")
            if len(self._resolved) >= MAX_RESOLVED:
                self._resolved = {}
            if entry.has_data and entry.attrs_inline:
                self._resolved[path] = entry
        return entry

    def recall(self, path: str, version: str | None) -> Entry | None:
        """As ``resolve``, without waiting for anything: None where the entry is not in memory.

        Parameters
        ----------
        version : str or None
            The version that it has to be of; None: the newest one.
        """
        entry = self._resolved.get(path)
        # Of a file that another process writes to, what is in memory may be old.
        if entry is None or (version is None and self._is_replica) or version not in (None, entry.version):
            return None
        return entry

    def with_id(self, dataset_id: str) -> list[Entry]:
        """The entries of a dataset's id, by path: several where links share their target's."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT entry FROM entries WHERE json_extract(entry, '$.id') = ? ORDER BY path LIMIT ?",
                (dataset_id, MAX_WITH_ONE_ID),
            ).fetchall()
        return [_entry_of(text) for (text,) in rows]

    def with_storage(self, key: str) -> list[Entry]:
        """The entries that have this key in ``storage``; it looks at all of them."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT entry FROM entries WHERE json_extract(entry, '$.storage.' || ?) IS NOT NULL", (key,)
            )
            return [_entry_of(text) for (text,) in rows]

    def known(self, prefix: str = "") -> Iterator[KnownEntry]:
        """Entries with their stamps, ascending: all, or those at ``prefix`` and below.

        Stamps are empty, which no file's is, where another version of this package has made the entries.
        """
        after: str | None = None
        is_current = self._is_replica or self._index_format() == INDEX_FORMAT
        below = "path = :prefix OR (path > :prefix || '/' AND path < :prefix || '0')" if prefix else "TRUE"
        while True:
            # A page at a time: whoever iterates may be slow, or write to this store meanwhile.
            with self._reading() as db:
                rows = db.execute(
                    f"SELECT path, entry, stamp FROM entries WHERE (:after IS NULL OR path > :after) AND ({below})"  # noqa: S608
                    " ORDER BY path LIMIT 1000",
                    {"prefix": prefix, "after": after},
                ).fetchall()
            for _, text, stamp in rows:
                yield KnownEntry(_entry_of(text), stamp if is_current else "")
            if len(rows) < 1000:
                return
            after = rows[-1][0]

    def page(self, query: CatalogQuery) -> CatalogPage:
        """A page of the listing, ascending by path.

        The listing of a whole root (no ``under``, no ``depth``) begins with the entry of the root
        itself where it has one. A page may hold fewer than ``limit`` though more follow (``next`` says
        so). Changes may happen between two pages: what follows is true after the *first* page's cursor.

        Raises
        ------
        DatasetNotFoundError
            When ``query.under`` is not a group.
        ResyncError
            When ``query.since`` is of another epoch, or older than what is remembered.
        """
        test = parse_filter(query.q) if query.q else None
        with self._reading() as db:
            cursor = _cursor(db)
            if query.since is not None:
                self._check_since(db, query.since)
            self._check_group(db, query)
            items: list[str] = []
            deleted: list[str] = []
            last, following = query.after, None
            nscanned = nbytes = 0
            rows = _rows(db, query)
            for path, text in itertools.chain(_root_row(db, query), rows):
                full = len(items) + len(deleted) >= query.limit or nbytes >= MAX_PAGE_NBYTES
                if path and last and (full or nscanned >= MAX_SCANNED_PER_PAGE):
                    following = last
                    break
                nscanned, last = nscanned + 1, path
                if text is not None and (test is None or test(_entry_of(text))):
                    items.append(text)
                    nbytes += len(text)
                elif query.since is not None:
                    # An entry that a filter does not let through any more is gone for who asked.
                    deleted.append(path)
                    nbytes += len(path)
        return CatalogPage(cursor.epoch, cursor.seq, tuple(items), tuple(deleted), following)

    def _check_since(self, db: sqlite3.Connection, since: Cursor) -> None:
        now = _cursor(db)
        in_gap = db.execute("SELECT 1 FROM gaps WHERE last < :seq AND :seq < next", {"seq": since.seq}).fetchone()
        if since.epoch != now.epoch or not int(_meta(db, "floor")) <= since.seq <= now.seq or in_gap:
            raise ResyncError(f"changes of root {self.root!r} since {since} are not known: list it from the start")

    def _check_group(self, db: sqlite3.Connection, query: CatalogQuery) -> None:
        if not query.under:
            return
        row = db.execute("SELECT kind FROM entries WHERE path = ?", (query.under,)).fetchone()
        if row is None and query.since is not None:
            # A group that went away since then: its deletions are the answer.
            row = db.execute(
                "SELECT 'group' FROM tombstones WHERE path = ? AND seq > ?", (query.under, query.since.seq)
            ).fetchone()
        if row is None or row[0] != "group":
            raise DatasetNotFoundError(f"no group {query.under!r} in root {self.root!r}")

    def events_since(self, cursor: Cursor) -> list[EventBatch]:
        """What happened after ``cursor``, as batches; nothing when it is the present one.

        Raises
        ------
        ResyncError
            When that is not remembered, or is so much that a listing since then is better.
        """
        with self._reading() as db:
            self._check_since(db, cursor)
            now = _cursor(db)
            rows = db.execute(
                "SELECT seq, path, entry FROM entries WHERE seq > :seq UNION ALL"
                " SELECT seq, path, NULL FROM tombstones WHERE seq > :seq ORDER BY 1, 2 LIMIT :limit",
                {"seq": cursor.seq, "limit": MAX_REPLAYED_EVENTS + 1},
            ).fetchall()
        if len(rows) > MAX_REPLAYED_EVENTS:
            raise ResyncError(f"over {MAX_REPLAYED_EVENTS} changes of root {self.root!r} since {cursor}: list it")
        batches: list[EventBatch] = []
        events: list[Event] = []
        first = cursor.seq + 1
        for seq, group in itertools.groupby(rows, key=lambda row: int(row[0])):
            events.extend(_event(path, text) for _, path, text in group)
            if len(events) >= MAX_EVENTS_PER_SEQ:
                batches.append(EventBatch(self.root, now.epoch, first, seq, tuple(events)))
                events, first = [], seq + 1
        if first <= now.seq:
            batches.append(EventBatch(self.root, now.epoch, first, now.seq, tuple(events)))
        return batches

    # Changes that are numbered here

    def begin_run(self) -> None:
        """Leave a gap of random length in the numbers, as a process does that begins to keep the catalog.

        The file may have been put back to an older state (a backup, a snapshot of the disk) since others heard of
        changes that it no longer has. Their cursors are in the gap, or beyond, and refused, however much happens here.
        """
        with self._writing() as db:
            last = _cursor(db).seq
            if not last:
                return
            following = last + 2 + secrets.randbelow(MAX_GAP)
            _set_meta(db, "seq", f"{following}")
            db.execute("INSERT INTO gaps VALUES (?, ?)", (last, following))
            row = db.execute("SELECT next FROM gaps ORDER BY next DESC LIMIT 1 OFFSET ?", (MAX_GAPS,)).fetchone()
            if row is not None:
                db.execute("DELETE FROM gaps WHERE next <= ?", row)
                _set_meta(db, "floor", str(max(row[0], int(_meta(db, "floor")))))

    def replace_all(self, items: Iterable[tuple[Entry, str]]) -> list[Event]:
        """Make the catalog hold exactly these entries (with their stamps); what that changed."""
        return [event for batch in self.replacing(items) for event in batch.events]

    def replacing(self, items: Iterable[tuple[Entry, str]]) -> Iterator[EventBatch]:
        """As ``replace_all``, step by step: what is found is there at once, deletions come last.

        Each batch is on disk when it is yielded. The store can be read while ``items`` are made; it
        should not be changed meanwhile by others.
        """
        seen: set[str] = set()
        for some in _batched(items, MAX_EVENTS_PER_SEQ):
            seen.update(entry.path for entry, _ in some)
            batch = self._apply([(Event("put", entry.path, entry), stamp) for entry, stamp in some])
            if batch is not None:
                yield batch
        with self._reading() as db:
            gone = [path for (path,) in db.execute("SELECT path FROM entries ORDER BY path") if path not in seen]
        yield from self.applying((Event("delete", path), "") for path in gone)
        if self._index_format() != INDEX_FORMAT:
            with self._writing() as db:
                _set_meta(db, "index_format", f"{INDEX_FORMAT}")

    def _index_format(self) -> int:
        with self._reading() as db:
            return int(_meta(db, "index_format"))

    def apply(self, changes: Iterable[tuple[Event, str]]) -> EventBatch | None:
        """Apply changes, with the stamps of what is put; the events of those that changed something."""
        batches = list(self.applying(changes))
        if not batches:
            return None
        events = tuple(event for batch in batches for event in batch.events)
        return EventBatch(self.root, batches[0].epoch, batches[0].first_seq, batches[-1].seq, events)

    def applying(self, changes: Iterable[tuple[Event, str]]) -> Iterator[EventBatch]:
        """As ``apply``, in batches of bounded length; each is on disk when it is yielded."""
        for some in _batched(changes, MAX_EVENTS_PER_SEQ):
            batch = self._apply(some)
            if batch is not None:
                yield batch

    def _apply(self, changes: Sequence[tuple[Event, str]]) -> EventBatch | None:
        with self._writing() as db:
            epoch, last = _cursor(db).epoch, _cursor(db).seq
            events = [event for event, stamp in changes if _change(db, event, stamp, last + 1)]
            if not events:
                return None
            _set_meta(db, "seq", str(last + 1))
            self._prune(db)
        return EventBatch(self.root, epoch, last + 1, last + 1, tuple(events))

    @staticmethod
    def _prune(db: sqlite3.Connection) -> None:
        (count,) = db.execute("SELECT count(*) FROM tombstones").fetchone()
        if count <= MAX_TOMBSTONES:
            return
        row = db.execute("SELECT seq FROM tombstones ORDER BY seq LIMIT 1 OFFSET ?", (count // 2,)).fetchone()
        db.execute("DELETE FROM tombstones WHERE seq <= ?", row)
        _set_meta(db, "floor", str(row[0]))

    # Replicas: changes that were numbered elsewhere

    def reset(self, epoch: str, seq: int = 0) -> None:
        """Forget everything; what comes is of that epoch. Cursors from before need a resync."""
        with self._writing() as db:
            _reset(db, epoch, seq)

    def adopt(self, pages: Iterable[CatalogPage]) -> EventBatch | None:
        """Take a complete listing of the origin (all its pages, no filter), and nothing else.

        Returns
        -------
        EventBatch or None
            What it changed here; None when the origin began a new epoch (or went back): listeners
            have to list again.

        Raises
        ------
        IntegrityError
            When an entry is malformed.
        ResyncError
            When the pages are of several epochs.

        Notes
        -----
        After an error the cursor is what it was, so listing again puts everything right. One caller at
        a time.
        """
        return self._adopt(pages, complete=True)

    def adopt_changes(self, pages: Iterable[CatalogPage]) -> EventBatch | None:
        """Take the pages of a listing since the present cursor. As ``adopt`` otherwise."""
        return self._adopt(pages, complete=False)

    def _adopt(self, pages: Iterable[CatalogPage], complete: bool) -> EventBatch | None:
        before = self.cursor
        now: Cursor | None = None
        seen: set[str] = set()
        events: list[Event] = []
        for page in pages:
            now = now or page.cursor
            # A seq that goes back is another life too: an origin that was restored from a backup.
            if not complete and (now.epoch != before.epoch or now.seq < before.seq):
                raise ResyncError(f"root {self.root!r} is at {now}, its copy at {before}")
            if page.epoch != now.epoch:
                raise ResyncError(f"root {self.root!r} began a new epoch while it was listed")
            changes = [Event("put", entry.path, entry) for entry in page.entries()]
            seen.update(event.path for event in changes)
            changes += [Event("delete", path) for path in page.deleted]
            # Page by page, so that readers never wait for long. The cursor stays behind until all is
            # there: after a crash the origin is asked again.
            with self._writing() as db:
                events += [event for event in changes if _change(db, event, "", now.seq)]
        if now is None:
            return EventBatch(self.root, before.epoch, before.seq + 1, before.seq)
        is_new_life = now.epoch != before.epoch or now.seq < before.seq
        with self._writing() as db:
            if complete:
                paths = [path for (path,) in db.execute("SELECT path FROM entries ORDER BY path")]
                gone = [Event("delete", path) for path in paths if path not in seen]
                events += [event for event in gone if _change(db, event, "", now.seq)]
            if is_new_life:
                db.execute("UPDATE entries SET seq = ?", (now.seq,))
                db.execute("DELETE FROM tombstones")
                _set_meta(db, "epoch", now.epoch)
                _set_meta(db, "floor", str(now.seq))
            _set_meta(db, "seq", str(now.seq))
            self._prune(db)
        if is_new_life:
            return None
        return EventBatch(self.root, now.epoch, min(before.seq + 1, now.seq), now.seq, tuple(events))

    def put_replica(self, batch: EventBatch) -> None:
        """Apply a batch of the origin.

        Raises
        ------
        ResyncError
            When something between is missing, or the batch does not say it all: list the changes
            since ``cursor`` (or all, in another epoch).
        """
        with self._writing() as db:
            now = _cursor(db)
            if not batch.follows(now) or (not batch.events and batch.seq != now.seq):
                raise ResyncError(f"root {self.root!r} is at {batch.cursor}, its copy at {now}")
            for event in batch.events:
                if event.change == "put" and event.entry is None:
                    raise ResyncError(f"the change of {event.path!r} was not told")
                _change(db, event, "", batch.seq)
            _set_meta(db, "seq", str(batch.seq))
            self._prune(db)


def _batched(items: Iterable[Any], count: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while some := list(itertools.islice(iterator, count)):
        yield some


def _event(path: str, text: str | None) -> Event:
    return Event("delete", path) if text is None else Event("put", path, _entry_of(text))


def _meta(db: sqlite3.Connection, key: str) -> str:
    (value,) = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(value)


def _set_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))


def _cursor(db: sqlite3.Connection) -> Cursor:
    return Cursor(_meta(db, "epoch"), int(_meta(db, "seq")))


def _reset(db: sqlite3.Connection, epoch: str, seq: int) -> None:
    db.execute("DELETE FROM entries")
    db.execute("DELETE FROM tombstones")
    db.execute("DELETE FROM gaps")
    for key, value in (("epoch", epoch), ("seq", str(seq)), ("floor", str(seq))):
        _set_meta(db, key, value)


def _change(db: sqlite3.Connection, event: Event, stamp: str, seq: int) -> bool:
    """Apply one event; did it change the entry?"""
    path = event.path
    if event.change == "delete":
        if not db.execute("DELETE FROM entries WHERE path = ?", (path,)).rowcount:
            return False
        db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?, ?)", (path, parent(path), _depth(path), seq))
        return True
    assert event.entry is not None
    text = _entry_text(event.entry)
    row = db.execute("SELECT entry, stamp FROM entries WHERE path = ?", (path,)).fetchone()
    if row is not None and row[0] == text:
        if row[1] != stamp:
            db.execute("UPDATE entries SET stamp = ? WHERE path = ?", (stamp, path))
        return False
    if row is None:
        db.execute("DELETE FROM tombstones WHERE path = ?", (path,))
    db.execute(
        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
        (path, parent(path), _depth(path), event.entry.kind, seq, stamp, text),
    )
    return True


def _root_row(db: sqlite3.Connection, query: CatalogQuery) -> Iterator[_Row]:
    """The entry of the root itself, which no range of paths below a group has."""
    if query.under or query.depth or query.after:
        return
    since = query.since.seq if query.since is not None else -1
    yield from db.execute("SELECT path, entry FROM entries WHERE path = '' AND seq > ?", (since,))


def _rows(db: sqlite3.Connection, query: CatalogQuery) -> Iterator[_Row]:
    """Entries that a query asks for (and deletions, with ``since``), ascending by path, filter excepted."""
    where = ["path > :after"]
    if query.depth == 1:
        where.append("parent = :under")
    elif query.under:
        where.append("path > :under || '/' AND path < :under || '0'")
    if query.depth > 1:
        where.append("depth <= :depth")
    if query.since is not None:
        where.append("seq > :since")
    values = {
        "after": query.after,
        "under": query.under,
        "depth": _depth(query.under) + query.depth,
        "since": query.since.seq if query.since is not None else 0,
    }
    condition = " AND ".join(where)
    entries: Iterator[_Row] = db.execute(
        f"SELECT path, entry FROM entries WHERE {condition} ORDER BY path",  # noqa: S608
        values,
    )
    if query.since is None:
        return entries
    gone: Iterator[_Row] = db.execute(
        f"SELECT path, NULL FROM tombstones WHERE {condition} ORDER BY path",  # noqa: S608
        values,
    )
    return heapq.merge(entries, gone, key=lambda row: row[0])
