"""One followed root: a source whose catalog is a replica on disk, and whose bytes are the upstream's.

It performs what ``catalog.RootState`` decides: asks for pages, keeps the replica, tells its own listeners. So
listings, entries and events are answered here, with the publisher away too; what it says of blocks it has
from upstream. Who tells it of changes (a broker, or the publisher itself) is not its business.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from ..core.catalog import CatalogPage, CatalogQuery, Cursor
from ..core.events import EventBatch
from ..core.metadata import Entry
from ..core.reduce_request import ReduceRequest
from ..core.rollback_mark import WENT_BACK, is_refused
from ..core.source import BlockStream, ComparedStream, FileStream, ReducedStream, Source
from ..core.wire import ReadRequest
from ..errors import Caterva2Error, DatasetChangedError, NotCachedError, SourceUnavailableError
from ..storage.catalog_store import CatalogStore
from ..storage.closing import close_stream
from ..storage.event_hub import EventHub
from .catalog import (
    Action,
    Announced,
    ApplyBatch,
    EventsLost,
    Fetch,
    FetchFailed,
    Freshness,
    LinkLost,
    PageArrived,
    ReplaceReplica,
    RetryDue,
    RetryLater,
    RootState,
    Stimulus,
    StoreFailed,
    TellStatus,
    Told,
    UpdateReplica,
)
from .rollbacks import judged

__all__ = ["FollowedRoot"]

T = TypeVar("T")

_Keeping = ApplyBatch | UpdateReplica | ReplaceReplica

MAX_WAITING_EVENTS = 50_000
MAX_WAITING_STIMULI = 5_000
MAX_FULL_ENTRIES = 32

logger = logging.getLogger(__name__)


class FollowedRoot:
    """A source over ``upstream`` that knows its catalog by heart.

    Parameters
    ----------
    root : str
    upstream : Source
        Answers pages, blocks and files, from its cache where it has one. Owned from here on.
    store : CatalogStore
        The replica, perhaps from an earlier run. Owned from here on.
    executor : Executor
        Where the replica is read and written.
    heartbeat_s : float
        How often listeners hear the cursor when nothing changes.
    stands_otherwise : callable, optional
        Called when its freshness has changed.
    accepts_rollbacks : bool
        Are datasets that go back to an older state taken as they are? Otherwise the newer state stays listed.
    """

    def __init__(
        self,
        root: str,
        upstream: Source,
        store: CatalogStore,
        executor: Executor,
        heartbeat_s: float = 5.0,
        stands_otherwise: Callable[[], Awaitable[None]] | None = None,
        *,
        accepts_rollbacks: bool = True,
    ) -> None:
        self._root = root
        self.upstream = upstream
        self._store = store
        self._executor = executor
        self._heartbeat_s = heartbeat_s
        self._stands_otherwise = stands_otherwise
        self._accepts_rollbacks = accepts_rollbacks
        self._went_back: dict[str, Entry] = {}
        self._hub = EventHub()
        self._changed = asyncio.Condition()
        self._waiting: deque[Stimulus] = deque()
        self._waiting_events = 0
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._state = RootState(None)
        self._is_listed = False  # there is a listing to show, true or outdated
        self._catching_up: Freshness | None = None  # what is said until the replica is where the state is
        self._settled = asyncio.Event()
        self._full_entries: dict[str, Entry] = {}
        store.root = store.root or root

    @property
    def root(self) -> str:
        return self._root

    @property
    def freshness(self) -> Freshness:
        freshness = self._state.freshness
        if not freshness.live:
            return freshness
        return self._catching_up or (freshness if self._is_listed else Freshness(False, None, "being listed"))

    @property
    def cursor(self) -> Cursor | None:
        return self._state.cursor

    @property
    def nwent_back(self) -> int:
        """Number of datasets that went back to an older state, accepted or refused."""
        return len(self._went_back)

    async def start(self) -> None:
        """Take up the replica of an earlier run."""
        store = self._store
        cursor, nentries, marked = await self._run(lambda: (store.cursor, len(store), store.with_storage(WENT_BACK)))
        self._went_back = {entry.path: entry for entry in marked}
        if cursor.seq or nentries:
            # What was refused is told no more, unless everything is.
            is_behind = self._accepts_rollbacks and any(is_refused(entry) for entry in marked)
            self._state = RootState(None if is_behind else cursor)
            self._is_listed = True
            self._settled.set()
        self._spawn(self._work())

    async def close(self) -> None:
        """Stop, and close the replica."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await close_stream(self.upstream)
        await self._run(self._store.close)

    async def set_upstream(self, make: Callable[[CatalogStore], Source]) -> None:
        """Read from elsewhere from now on."""
        before, self.upstream = self.upstream, make(self._store)
        await close_stream(before)

    def tell(self, stimulus: Stimulus) -> None:
        """Say what happened; never waits. What is too much is dropped and asked for instead."""
        nevents = len(stimulus.batch.events) if isinstance(stimulus, Told) else 0
        if self._waiting_events + nevents > MAX_WAITING_EVENTS or len(self._waiting) >= MAX_WAITING_STIMULI:
            # The answers that are waited for, each once, and how the link stands now.
            links = [s for s in self._waiting if isinstance(s, (Announced, LinkLost))]
            kept = [s for s in self._waiting if not isinstance(s, (Told, EventsLost, Announced, LinkLost))]
            self._waiting = deque([*kept, *links[-1:], EventsLost()])
            self._waiting_events = 0
            if isinstance(stimulus, Told):
                return
        self._waiting.append(stimulus)
        self._waiting_events += nevents
        self._wake.set()

    async def wait_settled(self, timeout_s: float) -> bool:
        """Wait until there is a listing, or a first attempt at one has failed; was one of them in time?"""
        # Not ``wait_for``, which loses a cancellation that comes as it ends (Python 3.11).
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        return self._settled.is_set()

    async def status(self) -> AsyncIterator[bool]:
        """Is the root live: now, and at each change, without end."""
        told: bool | None = None
        while True:
            async with self._changed:
                while self.freshness.live == told:
                    await self._changed.wait()
                told = self.freshness.live
            yield told

    # The source

    async def catalog(self, query: CatalogQuery) -> CatalogPage:
        await self._check_listed()
        return await self._run(lambda: self._store.page(query))

    async def entry(self, path: str) -> Entry:
        await self._check_listed()
        entry = await self._run(lambda: self._store.resolve(path))
        return entry if entry.attrs_inline else await self._with_attrs(entry)

    async def stored_nbytes(self, kept: Mapping[str, int]) -> tuple[int, int]:
        """Bytes that are kept of datasets, none counted for more than it has, and those of all datasets.

        Parameters
        ----------
        kept : mapping of str to int
            Bytes by the id of a dataset.
        """
        await self._check_listed()

        def count() -> tuple[int, int]:
            sizes = self._store.stored_nbytes()
            return sum(min(nbytes, sizes.get(key, 0)) for key, nbytes in kept.items()), sum(sizes.values())

        return await self._run(count)

    async def entries_with_id(self, dataset_id: str) -> list[Entry]:
        """The entries of a dataset's id."""
        await self._check_listed()
        return await self._run(lambda: self._store.with_id(dataset_id))

    async def _with_attrs(self, entry: Entry) -> Entry:
        """The entry with attributes that are too large for a listing; without them when that cannot be."""
        kept = self._full_entries.get(entry.path)
        if kept is None or kept.attrs_tag != entry.attrs_tag:
            try:
                kept = await self.upstream.entry(entry.path)
            except SourceUnavailableError:
                return entry
            if kept.attrs_tag != entry.attrs_tag:
                return entry  # they changed this moment; the event is on its way
            while len(self._full_entries) >= MAX_FULL_ENTRIES:
                self._full_entries.pop(next(iter(self._full_entries)))
            self._full_entries[entry.path] = kept
        return replace(entry, attrs=kept.attrs, attrs_inline=kept.attrs_inline)

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        async with self._one_state(request.path) as version:
            return await self.upstream.read_blocks(replace(request, version=request.version or version))

    async def compare_blocks(self, request: ReadRequest) -> ComparedStream:
        async with self._one_state(request.path) as version:
            return await self.upstream.compare_blocks(replace(request, version=request.version or version))

    async def reduce(self, request: ReduceRequest) -> ReducedStream:
        async with self._one_state(request.path) as version:
            return await self.upstream.reduce(replace(request, version=request.version or version))

    @asynccontextmanager
    async def _one_state(self, path: str) -> AsyncIterator[str | None]:
        """The version that has to be read, where the newest one is refused."""
        kept = self._refused(path)
        try:
            yield kept.version if kept is not None else None
        except DatasetChangedError as error:
            if kept is not None:
                raise _gone_back(self._root, kept) from error
            self.tell(EventsLost())  # whatever told the change is slower than this read
            raise

    def _refused(self, path: str) -> Entry | None:
        entry = self._went_back.get(path) or self._went_back.get(f"{path}.b2nd")
        return entry if entry is not None and is_refused(entry) else None

    async def read_file(self, path: str, start: int, stop: int | None) -> FileStream:
        if (kept := self._refused(path)) is not None:
            raise _gone_back(self._root, kept)
        return await self.upstream.read_file(path, start, stop)

    async def events(self, since: Cursor | None) -> AsyncIterator[EventBatch]:
        await self._check_listed()
        with self._hub.listen() as listener:
            if since is None:
                at = await self._run(lambda: self._store.cursor)
                yield self._heartbeat(at)
            else:
                at = since
                store = self._store
                missed = await self._run(lambda: store.events_since(since))
                for batch in missed or [self._heartbeat(since)]:
                    at = batch.cursor
                    yield batch
            while True:
                told = await listener.get(self._heartbeat_s)
                if told is None:
                    yield self._heartbeat(at)
                elif told.epoch != at.epoch or told.seq > at.seq:
                    at = told.cursor
                    yield told

    def _heartbeat(self, cursor: Cursor) -> EventBatch:
        return EventBatch(self._root, cursor.epoch, cursor.seq + 1, cursor.seq)

    async def _check_listed(self) -> None:
        """A root followed a moment ago may be on its way; an empty listing would be a lie."""
        if not self._is_listed:
            await self.wait_settled(3.0)
        if not self._is_listed:
            raise SourceUnavailableError(f"root {self._root!r} has not been listed yet: {self._state.freshness.reason}")

    # Performing what the state decides

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("root %s: a task ended", self._root, exc_info=task.exception())

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            if not self._waiting:
                self._wake.clear()
                continue
            stimulus = self._waiting.popleft()
            self._waiting_events -= len(stimulus.batch.events) if isinstance(stimulus, Told) else 0
            before = self.freshness
            actions = self._state.apply(stimulus, time.time())
            self._catching_up = None if before.live else before
            for action in actions:
                if not await self._perform(action):
                    break  # the replica is not where the state believed; the rest was decided on that
            else:
                if self._is_listed or isinstance(stimulus, (FetchFailed, StoreFailed)):
                    self._settled.set()
            self._catching_up = None
            async with self._changed:
                self._changed.notify_all()
            if self._stands_otherwise is not None and self.freshness != before:
                await self._stands_otherwise()

    async def _perform(self, action: Action) -> bool:
        match action:
            case Fetch():
                self._spawn(self._fetch(action))
            case RetryLater(delay_s):
                self._spawn(self._retry(delay_s))
            case TellStatus():
                pass  # whoever waits is woken after each stimulus, and looks
            case ApplyBatch() | UpdateReplica() | ReplaceReplica():
                return await self._keep(action)
        return True

    async def _keep(self, action: _Keeping) -> bool:
        store = self._store
        try:
            action = await self._run(lambda: self._judged(action))
            match action:
                case ApplyBatch(batch):
                    await self._run(lambda: store.put_replica(batch))
                    changed: EventBatch | None = batch
                case UpdateReplica(pages):
                    changed = await self._run(lambda: store.adopt_changes(pages))
                case ReplaceReplica(pages):
                    changed = await self._run(lambda: store.adopt(pages))
        except Caterva2Error as error:
            logger.warning("root %s: the copy of its catalog has to be made again: %s", self._root, error)
            self.tell(StoreFailed(error, None))
            return False
        self._is_listed = True
        if changed is None:
            self._hub.resync()
        else:
            self._hub.publish(changed)
        return True

    def _judged(self, action: _Keeping) -> _Keeping:
        """What is to be kept: that datasets are older now than they were is rarely what somebody wanted."""
        went_back = {} if isinstance(action, ReplaceReplica) else dict(self._went_back)

        def judge(told: Entry) -> Entry:
            known = self._store.get(told.path)
            entry = judged(told, known, accepts=self._accepts_rollbacks)
            went_back.pop(told.path, None)
            if WENT_BACK in entry.storage:
                went_back[told.path] = entry
            return entry

        if isinstance(action, ApplyBatch):
            events = []
            for event in action.batch.events:
                went_back.pop(event.path, None) if event.change == "delete" else None
                events.append(event if event.entry is None else replace(event, entry=judge(event.entry)))
            action = ApplyBatch(replace(action.batch, events=tuple(events)))
        else:
            for page in action.pages:
                for path in page.deleted:
                    went_back.pop(path, None)
            pages = action.pages
            if not len(self._store):  # a first listing is not compared with anything
                pages = tuple(page for page in pages if any(WENT_BACK in text for text in page.items))
            judged_pages = {id(page): _with_entries(page, judge) for page in pages}
            action = replace(action, pages=tuple(judged_pages.get(id(page), page) for page in action.pages))
        self._say(went_back)
        self._went_back = went_back
        return action

    def _say(self, went_back: Mapping[str, Entry]) -> None:
        news = [path for path, entry in went_back.items() if self._went_back.get(path) != entry]
        if news:
            more = f" and {len(news) - 1} more" if len(news) > 1 else ""
            then = "" if self._accepts_rollbacks else ", which is not taken"
            logger.warning("root %s: %r%s went back to an older state%s: a backup?", self._root, news[0], more, then)

    async def _fetch(self, fetch: Fetch) -> None:
        try:
            page = await self.upstream.catalog(fetch.query)
        except Caterva2Error as error:
            self.tell(FetchFailed(fetch.ticket, error))
        else:
            self.tell(PageArrived(fetch.ticket, page))

    async def _retry(self, delay_s: float) -> None:
        # Jitter: many subscribers must not come back to a publisher in the same instant.
        await asyncio.sleep(delay_s * random.uniform(0.75, 1.25))  # noqa: S311
        self.tell(RetryDue())


def _with_entries(page: CatalogPage, judge: Callable[[Entry], Entry]) -> CatalogPage:
    """The page with what becomes of its entries; texts of those that stay as they are stay, too."""
    items: list[str] = []
    for text, told in zip(page.items, page.entries(), strict=True):
        entry = judge(told)
        items.append(text if entry is told else json.dumps(entry.to_json(), separators=(",", ":")))
    return replace(page, items=tuple(items))


def _gone_back(root: str, kept: Entry) -> NotCachedError:
    return NotCachedError(
        f"dataset {kept.path!r} in root {root!r} went back to an older state at its publisher, which is refused here, "
        'and what is asked for is not kept: set rollbacks = "accept" under [subscriber] to read it as it is now'
    )
