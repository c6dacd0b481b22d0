"""A subscriber over publishers in memory: following, replicas, outages, restarts."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from caterva2_jupyter.compute.records import BoxBuilder
from caterva2_jupyter.core.catalog import CatalogPage, CatalogQuery, Cursor
from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.roots import AnnouncedRoot
from caterva2_jupyter.core.selection import parse_basic
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import NotCachedError, ResyncError, RootNotFoundError, SourceUnavailableError
from caterva2_jupyter.storage.catalog_store import CatalogStore
from caterva2_jupyter.subscriber.broker_link import EventsLost, RootsKnown
from caterva2_jupyter.subscriber.catalog import Announced, PageArrived
from caterva2_jupyter.subscriber.followed_root import FollowedRoot
from tests.subscriber.running import MemoryLink, Running, eventually, running

ARRAY = np.arange(60_000, dtype="i4").reshape(200, 300)


def fill(run: Running) -> None:
    foo = run.publishers["foo"].files
    foo.set("a/grid.b2nd", ARRAY, chunks=(50, 100), blocks=(10, 20))
    foo.set("readme.md", b"hello world")


async def read(run: Running, key: object, path: str = "a/grid", root: str = "foo") -> np.ndarray:
    source = run.subscriber.source(root)
    entry = await source.entry(path)
    parsed = parse_basic(key, entry.geometry.shape)
    stream = await source.read_blocks(ReadRequest(root, path, None, parsed.selection.to_json()))
    box = BoxBuilder(stream.entry.geometry, parsed.selection)
    async for record in stream.records:
        box.add(record)
    return parsed.apply(box.finish())


async def paths(run: Running, root: str = "foo") -> set[str]:
    page = await run.subscriber.source(root).catalog(CatalogQuery(limit=10_000))
    return {json.loads(text)["path"] for text in page.items}


def test_a_followed_root_is_listed_and_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            assert await paths(run) == {"a", "a/grid.b2nd", "readme.md"}
            assert np.array_equal(await read(run, (slice(3, 70), slice(None, None, -3))), ARRAY[3:70, ::-3])
            (status,) = await run.subscriber.roots()
            assert (status["name"], status["followed"], status["online"]) == ("foo", True, True)
            nreads = run.publishers["foo"].nreads
            await read(run, (slice(3, 70), slice(None, None, -3)))
            assert run.publishers["foo"].nreads == nreads, "the second time it comes from the cache"

    asyncio.run(main())


def test_a_root_that_is_not_followed_is_read_from_its_publisher_and_nothing_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            (status,) = await run.subscriber.roots()
            assert not status["followed"]
            assert np.array_equal(await read(run, 5), ARRAY[5])
            assert run.cache.usage_nbytes == 0

    asyncio.run(main())


def test_an_unknown_root_is_refused_by_name(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            await run.start()
            for call in (run.subscriber.follow, run.subscriber.unfollow):
                with pytest.raises(RootNotFoundError, match="'bar'"):
                    await call("bar")
            with pytest.raises(RootNotFoundError, match="'bar'"):
                run.subscriber.source("bar")
            with pytest.raises(RootNotFoundError, match="'bar'"):
                await run.subscriber.announce("bar", "x")

    asyncio.run(main())


def test_changes_reach_the_replica_and_its_listeners(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            heard: list[str] = []

            async def listen() -> None:
                async for batch in run.subscriber.source("foo").events(None):
                    heard.extend(f"{event.change} {event.path}" for event in batch.events)

            listening = asyncio.create_task(listen())
            foo = run.publishers["foo"]
            await asyncio.sleep(0)
            foo.files.set("new.b2nd", np.arange(3))
            await foo.changed()
            await eventually(lambda: "put new.b2nd" in heard)
            foo.files.delete("new.b2nd")
            await foo.changed()
            await eventually(lambda: "delete new.b2nd" in heard)
            assert "new.b2nd" not in await paths(run)
            listening.cancel()

    asyncio.run(main())


def test_lost_events_are_made_good(tmp_path: Path) -> None:
    """FAULTS N9: what is told is lost; the next heartbeat shows the gap."""

    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            foo = run.publishers["foo"]
            run.link.drops_events = True
            foo.files.set("lost.b2nd", np.arange(3))
            await foo.changed()
            run.link.drops_events = False

            async def has_it() -> bool:
                return "lost.b2nd" in await paths(run)

            async with asyncio.timeout(60):
                while not await has_it():
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def test_repeated_and_reordered_events_leave_the_truth(tmp_path: Path) -> None:
    """FAULTS N9: a broker that repeats, reorders and drops."""

    async def main() -> None:
        rng = random.Random(7)
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            foo = run.publishers["foo"]
            run.link.drops_events = True
            batches: list[EventBatch] = []

            async def collect() -> None:
                async for batch in foo.source.events(None):
                    batches.append(batch)

            collecting = asyncio.create_task(collect())
            await eventually(lambda: bool(batches))
            for i in range(40):
                path = f"d/{rng.choice('abcdef')}.b2nd"
                if rng.random() < 0.4 and foo.store.get(path) is not None:
                    foo.files.delete(path)
                else:
                    foo.files.set(path, np.arange(i + 1))
                await foo.changed()
                for batch in rng.sample(batches, min(3, len(batches))):
                    run.link.queue.put_nowait(batch)
                if rng.random() < 0.1:
                    run.link.queue.put_nowait(EventsLost("foo"))
                await asyncio.sleep(0)
            run.link.drops_events = False
            source = run.subscriber.source("foo")
            async with asyncio.timeout(60):
                while (await source.catalog(CatalogQuery(limit=1))).cursor != foo.store.cursor:
                    await asyncio.sleep(0.01)
            truth = await foo.source.catalog(CatalogQuery(limit=10_000))
            replica = await source.catalog(CatalogQuery(limit=10_000))
            assert replica.items == truth.items
            collecting.cancel()

    asyncio.run(main())


def test_with_the_publisher_away_what_is_held_is_served(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            assert np.array_equal(await read(run, slice(0, 50)), ARRAY[:50])
            run.publishers["foo"].is_away = True
            run.link.tell_roots(foo=False)
            source = run.subscriber.source("foo")
            states: list[bool] = []

            async def watch() -> None:
                async for online in run.subscriber.status("foo"):
                    states.append(online)

            watching = asyncio.create_task(watch())
            await eventually(lambda: False in states)
            (status,) = await run.subscriber.roots()
            assert not status["online"]
            assert status["since"].endswith("Z")
            assert "publisher" in status["reason"]
            assert await paths(run) == {"a", "a/grid.b2nd", "readme.md"}
            assert (await source.entry("a/grid")).path == "a/grid.b2nd"
            assert np.array_equal(await read(run, slice(0, 50)), ARRAY[:50])
            with pytest.raises(NotCachedError):
                await read(run, slice(0, 51))
            run.publishers["foo"].is_away = False
            run.link.tell_roots()
            await eventually(lambda: states[-1])
            assert np.array_equal(await read(run, slice(0, 51)), ARRAY[:51])
            watching.cancel()

    asyncio.run(main())


def test_with_the_broker_away_it_is_the_publisher_that_decides_what_is_online(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo", "bar") as run:
            fill(run)
            await run.start()
            for name in run.publishers:
                await run.subscriber.follow(name)

            async def until_online(**wanted: bool) -> None:
                async with asyncio.timeout(60):
                    while {r["name"]: r["online"] for r in await run.subscriber.roots()} != wanted:
                        await asyncio.sleep(0.01)

            await until_online(foo=True, bar=True)
            foo = run.publishers["foo"]
            run.link.drops_events = True
            nasked = foo.ncatalog
            run.link.lose()
            await eventually(lambda: foo.ncatalog >= nasked + 2)
            await until_online(foo=True, bar=True)
            assert np.array_equal(await read(run, ...), ARRAY)
            foo.files.set("new.b2nd", np.arange(7))  # nobody tells, but somebody asks
            await foo.changed()
            source = run.subscriber.source("foo")
            async with asyncio.timeout(60):
                while (await source.catalog(CatalogQuery(limit=1))).cursor != foo.store.cursor:
                    await asyncio.sleep(0.01)
            foo.is_away = True
            await until_online(foo=False, bar=True)
            foo.is_away = False
            await until_online(foo=True, bar=True)
            run.link.drops_events = False
            run.link.tell_roots()
            await until_online(foo=True, bar=True)
            nasked = foo.ncatalog
            await asyncio.sleep(0.5)  # longer than the time between two questions
            assert foo.ncatalog == nasked

    asyncio.run(main())


def test_upstreams_hear_which_roots_are_not_worth_a_long_wait(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo", "bar") as run:
            await run.start()
            await eventually(lambda: run.upstreams.expected == {"foo": True, "bar": True})
            run.link.tell_roots(foo=False)
            await eventually(lambda: run.upstreams.expected == {"foo": False, "bar": True})
            run.link.tell_roots()
            await eventually(lambda: run.upstreams.expected == {"foo": True, "bar": True})

    asyncio.run(main())


def test_following_survives_a_restart_with_everybody_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            assert np.array_equal(await read(run, 7), ARRAY[7])
        async with running(tmp_path, "foo") as run:
            run.publishers["foo"].is_away = True
            await run.subscriber.start(tmp_path / "catalogs")
            assert await paths(run) == {"a", "a/grid.b2nd", "readme.md"}
            assert np.array_equal(await read(run, 7), ARRAY[7])
            (status,) = await run.subscriber.roots()
            assert status["followed"]
            assert not status["online"]

    asyncio.run(main())


def test_a_restart_asks_only_for_what_changed(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / "publishers", "foo") as others:
            fill(others)
            foo = others.publishers["foo"]
            await foo.changed()
            async with running(tmp_path, publishers=others.publishers) as run:
                await run.start()
                await run.subscriber.follow("foo")
                assert foo.ncatalog == 1
            async with running(tmp_path, publishers=others.publishers) as run:
                await run.start()
                await eventually(lambda: run.subscriber._followed["foo"].freshness.live)
                assert foo.ncatalog == 1, "nothing changed: nothing was asked"
            foo.files.set("meanwhile.b2nd", np.arange(3))
            await foo.changed()
            async with running(tmp_path, publishers=others.publishers) as run:
                await run.start()
                await eventually(lambda: run.subscriber._followed["foo"].freshness.live)
                assert "meanwhile.b2nd" in await paths(run)
                assert foo.ncatalog == 2

    asyncio.run(main())


def test_it_is_not_live_before_what_was_missed_is_in_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopting, may_go_on = threading.Event(), threading.Event()
    adopt_changes = CatalogStore.adopt_changes

    def slowly(self: CatalogStore, pages: Any) -> Any:
        adopting.set()
        assert may_go_on.wait(10)
        return adopt_changes(self, pages)

    monkeypatch.setattr(CatalogStore, "adopt_changes", slowly)

    async def main() -> None:
        async with running(tmp_path / "publishers", "foo") as others:
            fill(others)
            foo = others.publishers["foo"]
            await foo.changed()
            async with running(tmp_path, publishers=others.publishers) as run:
                await run.start()
                await run.subscriber.follow("foo")
            foo.files.set("meanwhile.b2nd", np.arange(3))
            await foo.changed()
            async with running(tmp_path, publishers=others.publishers) as run:
                await run.start()
                try:
                    await eventually(adopting.is_set)
                    assert not run.subscriber._followed["foo"].freshness.live
                finally:
                    may_go_on.set()
                await eventually(lambda: run.subscriber._followed["foo"].freshness.live)
                assert "meanwhile.b2nd" in await paths(run)

    asyncio.run(main())


def test_unfollowing_forgets_the_replica(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            await run.subscriber.unfollow("foo")
            (status,) = await run.subscriber.roots()
            assert not status["followed"]
            assert run.link.followed == frozenset()
            assert not list((tmp_path / "catalogs").iterdir())
            await run.subscriber.follow("foo")
            assert await paths(run) == {"a", "a/grid.b2nd", "readme.md"}

    asyncio.run(main())


def test_listeners_hear_when_roots_come_go_and_stand_otherwise(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            await run.start()
            run.subscriber._heartbeat_s = 60.0  # it is changes that are heard of here
            seen: list[tuple[bool, bool]] = []

            async def watch() -> None:
                async for _ in run.subscriber.changes():
                    (status,) = await run.subscriber.roots()
                    seen.append((status["followed"], status["online"]))

            watching = asyncio.create_task(watch())
            await eventually(lambda: bool(seen))
            await run.subscriber.follow("foo")
            await eventually(lambda: seen[-1] == (True, True))
            run.link.tell_roots(foo=False)
            await eventually(lambda: seen[-1] == (True, False))
            run.link.tell_roots()
            await eventually(lambda: seen[-1] == (True, True))
            await run.subscriber.unfollow("foo")
            await eventually(lambda: seen[-1] == (False, True))
            watching.cancel()

    asyncio.run(main())


def test_roots_of_the_configuration_are_followed_by_themselves(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo", "bar", follow=("bar",)) as run:
            await run.start()
            await eventually(lambda: run.subscriber.is_followed("bar"))
            assert not run.subscriber.is_followed("foo")

    asyncio.run(main())


def test_many_who_follow_at_once_make_one_replica(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await asyncio.gather(*(run.subscriber.follow("foo") for _ in range(20)))
            assert run.publishers["foo"].ncatalog == 1

    asyncio.run(main())


def test_a_root_followed_with_its_publisher_away_is_listed_when_it_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            foo = run.publishers["foo"]
            foo.is_away = True
            await run.subscriber.follow("foo")
            with pytest.raises(SourceUnavailableError, match="not been listed"):
                await paths(run)
            foo.is_away = False

            async with asyncio.timeout(60):
                while True:
                    try:
                        assert await paths(run) == {"a", "a/grid.b2nd", "readme.md"}
                        break
                    except SourceUnavailableError:
                        await asyncio.sleep(0.02)

    asyncio.run(main())


def test_whoever_names_no_version_gets_the_one_that_is_there(tmp_path: Path) -> None:
    """The replica lags: the data changed, nobody told it yet."""

    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            run.link.drops_events = True
            foo = run.publishers["foo"]
            foo.files.set("a/grid.b2nd", ARRAY + 1, chunks=(50, 100), blocks=(10, 20))
            await foo.changed()
            assert np.array_equal(await read(run, 3), ARRAY[3] + 1)

    asyncio.run(main())


def test_an_announcement_goes_to_the_publisher(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            await run.start()
            await run.subscriber.roots()
            await run.subscriber.announce("foo", "dir/x.b2nd")
            assert run.publishers["foo"].announced == ["dir/x.b2nd"]

    asyncio.run(main())


def test_a_publisher_that_moves_is_read_where_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            before = run.publishers["foo"].url
            run.publishers["foo"].url = "http://elsewhere.test"
            run.link.tell_roots()
            await eventually(lambda: before in run.upstreams.forgotten)
            assert np.array_equal(await read(run, 3), ARRAY[3])
            state = json.loads((tmp_path / "db.json").read_text())
            assert state["roots"]["foo"]["http"] == "http://elsewhere.test"

    asyncio.run(main())


def test_a_malformed_catalog_does_no_harm_and_is_asked_for_again(tmp_path: Path) -> None:
    """FAULTS A3: a publisher whose catalog names what no path may be."""

    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            foo = run.publishers["foo"]
            good = foo.catalog

            async def bad(query: CatalogQuery) -> object:
                page = await good(query)
                return type(page)(page.epoch, page.seq, ('{"path": "../../etc/passwd", "kind": "group"}',))

            foo.catalog = bad  # type: ignore[method-assign]
            await run.subscriber.follow("foo")
            with pytest.raises(SourceUnavailableError):
                await paths(run)
            foo.catalog = good  # type: ignore[method-assign]
            async with asyncio.timeout(60):
                while not run.subscriber._followed["foo"].freshness.live:
                    await asyncio.sleep(0.02)
            assert await paths(run) == {"a", "a/grid.b2nd", "readme.md"}

    asyncio.run(main())


def test_a_flood_of_events_costs_a_listing_not_memory(tmp_path: Path) -> None:
    """FAULTS A11: events come faster than they are kept."""

    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            followed = run.subscriber._followed["foo"]
            cursor = run.publishers["foo"].store.cursor
            event = Event("put", "x", Entry("x", "group"))
            from caterva2_jupyter.subscriber.catalog import Told

            for i in range(20_000):
                followed.tell(Told(EventBatch("foo", cursor.epoch, i + 10**6, i + 10**6, (event,))))
            assert len(followed._waiting) <= 5_001
            await eventually(lambda: not followed._waiting)
            assert await paths(run) == {"a", "a/grid.b2nd", "readme.md"}

    asyncio.run(main())


def test_a_flood_does_not_wash_away_the_answer_that_is_waited_for(tmp_path: Path) -> None:
    """Without it no listing would ever be asked for again."""

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            followed = FollowedRoot("foo", cast("Any", None), CatalogStore(None, "foo"), executor)
            answer = PageArrived(1, CatalogPage("e", 1, ()))
            followed.tell(answer)
            for number in range(20_000):
                followed.tell(Announced(number % 2 == 0))
            assert answer in followed._waiting
            assert followed._waiting[-1] == Announced(False)
            assert len(followed._waiting) <= 5_001

    asyncio.run(main())


def test_large_attributes_are_asked_for_once_and_missing_with_the_publisher_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            run.publishers["foo"].files.set("x.b2nd", np.arange(3), attrs={"big": "x" * 100_000})
            await run.start()
            await run.subscriber.follow("foo")
            source = run.subscriber.source("foo")
            assert len((await source.entry("x")).attrs["big"]) == 100_000
            run.publishers["foo"].is_away = True
            assert len((await source.entry("x")).attrs["big"]) == 100_000
            run.subscriber._followed["foo"]._full_entries.clear()
            entry = await source.entry("x")
            assert (entry.attrs, entry.attrs_inline) == ({}, False)

    asyncio.run(main())


def test_a_listener_whose_cursor_is_unknown_is_told_to_list_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            events = run.subscriber.source("foo").events(Cursor("another", 1))
            with pytest.raises(ResyncError):
                await anext(events)

    asyncio.run(main())


def test_a_damaged_state_file_is_set_aside(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "db.json").write_text("{not json")
        async with running(tmp_path, "foo") as run:
            await run.start()
            await run.subscriber.follow("foo")
        assert (tmp_path / "db.json.corrupt").exists()
        assert json.loads((tmp_path / "db.json").read_text())["roots"]["foo"]["subscribed"]

    asyncio.run(main())


def test_the_state_of_the_older_system_is_taken_up(tmp_path: Path) -> None:
    async def main() -> None:
        old = {"name": "foo", "http": "localhost:8001", "subscribed": True}
        idle = {"name": "bar", "http": "localhost:8003"}
        (tmp_path / "db.json").write_text(json.dumps({"roots": {"foo": old, "bar": idle}, "etags": {}}))
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            assert run.subscriber.is_followed("foo")
            assert not run.subscriber.is_followed("bar")

    asyncio.run(main())


def test_a_root_that_has_come_through_here_is_not_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            subscriber = run.subscriber
            roots = [
                AnnouncedRoot("around", "http://a.test", online=True, via=("a" * 16, subscriber.ident, "b" * 16)),
                AnnouncedRoot("far", "http://a.test", online=True, via=("a" * 16,) * 16),
                AnnouncedRoot("near", "http://a.test", online=True, via=("a" * 16,)),
            ]
            run.link.queue.put_nowait(RootsKnown(tuple(roots)))
            await eventually(lambda: "near" in subscriber._known)
            assert [root["name"] for root in await subscriber.roots()] == ["near"]
            assert (await subscriber.roots())[0]["via"] == ["a" * 16, subscriber.ident]

    asyncio.run(main())


def test_a_root_is_not_served_to_who_it_comes_from(tmp_path: Path) -> None:
    """Both would wait for each other's blocks."""

    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            near = AnnouncedRoot("near", "http://a.test", online=True, via=("a" * 16, "b" * 16))
            run.link.queue.put_nowait(RootsKnown((near,)))
            await eventually(lambda: "near" in run.subscriber._known)
            for asker in ("a" * 16, "b" * 16, run.subscriber.ident):
                with pytest.raises(SourceUnavailableError, match="comes from the subscriber that asks"):
                    run.subscriber.check_asker("near", asker)
            run.subscriber.check_asker("near", "c" * 16)
            run.subscriber.check_asker("unknown", "a" * 16)

    asyncio.run(main())


def test_a_link_that_has_a_root_offline_does_not_take_it_from_another(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            await run.start()
            await run.subscriber.follow("foo")
            other = MemoryLink({})
            away = AnnouncedRoot("foo", "http://other.test", via=("a" * 16,))
            run.link.tell_roots(foo=False)
            await eventually(lambda: not run.subscriber._known["foo"].is_online)
            run.subscriber._roots_known(other, [away])
            assert run.subscriber.origin("foo").http == run.publishers["foo"].url
            run.subscriber._roots_known(other, [replace(away, online=True)])
            assert run.subscriber.origin("foo").http == "http://other.test"

    asyncio.run(main())


def test_events_that_are_not_trusted_only_say_that_it_is_time_to_ask(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "foo") as run:
            fill(run)
            run.subscriber._trusts_events = False
            await run.start()
            await run.subscriber.follow("foo")
            before, cursor = run.publishers["foo"].ncatalog, run.publishers["foo"].store.cursor
            lie = Event("put", "lie", Entry("lie", "group"))
            run.link.queue.put_nowait(EventBatch("foo", cursor.epoch, cursor.seq + 1, cursor.seq + 1, (lie,)))
            await eventually(lambda: run.publishers["foo"].ncatalog > before)
            assert await paths(run) == {"a", "a/grid.b2nd", "readme.md"}

    asyncio.run(main())
