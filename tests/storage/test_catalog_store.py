import hashlib
import json
import os
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.catalog import CatalogPage, CatalogQuery, Cursor
from caterva2_jupyter.core.events import Event, EventBatch
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.errors import DatasetNotFoundError, IntegrityError, ResyncError, SourceUnavailableError
from caterva2_jupyter.storage import catalog_store
from caterva2_jupyter.storage.catalog_store import INDEX_FORMAT, CatalogStore
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.hdf5_root import Hdf5Root, hdf5_trees
from caterva2_jupyter.tools import example_hdf5


def array(path, version="v1", **more):
    geometry = Geometry((10, 20), (5, 5), (5, 5), np.dtype("<f4"))
    return Entry(path, "array", id="a1", version=version, geometry=geometry, **more)


def group(path):
    return Entry(path, "group")


def put(path, version="v1"):
    return Event("put", path, array(path, version)), "stamp"


def delete(path):
    return Event("delete", path), ""


def filled(*paths, path=None):
    store = CatalogStore(path, "foo")
    store.replace_all([((array(p) if p.endswith(".b2nd") else group(p)), "stamp") for p in paths])
    return store


def paths(page):
    return [entry.path for entry in page.entries()]


def every_page(store, query):
    """All the pages of a listing."""
    pages = [store.page(query)]
    while pages[-1].next is not None:
        pages.append(store.page(replace(query, after=pages[-1].next)))
    return pages


TREE = ("a.b2nd", "dir", "dir-x", "dir-x/b.b2nd", "dir.b2nd", "dir/c.b2nd", "dir/sub", "dir/sub/d.b2nd", "é.b2nd")


# Listing


def test_a_page_is_ascending_by_path_whatever_the_order_of_the_scan():
    assert paths(filled(*reversed(TREE)).page(CatalogQuery())) == sorted(TREE)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (CatalogQuery(under="dir"), ["dir/c.b2nd", "dir/sub", "dir/sub/d.b2nd"]),
        (CatalogQuery(under="dir", depth=1), ["dir/c.b2nd", "dir/sub"]),
        (CatalogQuery(under="dir", depth=2), ["dir/c.b2nd", "dir/sub", "dir/sub/d.b2nd"]),
        (CatalogQuery(depth=1), ["a.b2nd", "dir", "dir-x", "dir.b2nd", "é.b2nd"]),
        (CatalogQuery(depth=2, after="dir-x"), ["dir-x/b.b2nd", "dir.b2nd", "dir/c.b2nd", "dir/sub", "é.b2nd"]),
        (CatalogQuery(q="SUB kind:array"), ["dir/sub/d.b2nd"]),
        (CatalogQuery(q="ndim>5"), []),
    ],
)
def test_a_query_chooses_by_group_depth_and_filter(query, expected):
    assert paths(filled(*TREE).page(query)) == expected


def test_the_entry_of_the_root_leads_its_whole_listing_only():
    store = filled("", *TREE)
    assert paths(store.page(CatalogQuery())) == sorted(("", *TREE))
    assert "" not in paths(store.page(CatalogQuery(depth=1)))
    assert store.get("").kind == "group"
    assert [p for page in every_page(store, CatalogQuery(limit=1)) for p in paths(page)] == sorted(("", *TREE))


def test_a_root_without_an_entry_is_a_group_all_the_same():
    assert CatalogStore().get("") == group("")


@pytest.mark.parametrize("under", ["nothing", "dir.b2nd", "di", "dir/sub/d.b2nd", "DIR"])
def test_what_is_not_a_group_is_not_listed(under):
    with pytest.raises(DatasetNotFoundError, match=f"no group '{under}' in root 'foo'"):
        filled(*TREE).page(CatalogQuery(under=under))


@given(
    names=st.sets(st.sampled_from([*TREE, "dir/sub/e.b2nd", "zz", "zz/a.b2nd"]), min_size=1),
    limit=st.integers(1, 5),
    depth=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_pages_together_are_the_listing(names, limit, depth):
    store = filled(*names)
    pages = every_page(store, CatalogQuery(limit=limit, depth=depth))
    wanted = sorted(name for name in names if depth == 0 or name.count("/") < depth)
    assert [p for page in pages for p in paths(page)] == wanted
    assert all(len(page.items) <= limit for page in pages)


def test_a_page_of_a_filter_that_fits_little_ends_after_some_work(monkeypatch):
    monkeypatch.setattr(catalog_store, "MAX_SCANNED_PER_PAGE", 10)
    store = filled(*(f"a{i:03}.b2nd" for i in range(95)), "zz.b2nd")
    pages = every_page(store, CatalogQuery(q="zz"))
    assert [p for page in pages for p in paths(page)] == ["zz.b2nd"]
    assert len(pages) == 10


def test_a_page_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(catalog_store, "MAX_PAGE_NBYTES", 10_000)
    store = CatalogStore()
    store.replace_all((array(f"{i}.b2nd", attrs={"x": "y" * 4000}), "") for i in range(9))
    assert [len(page.items) for page in every_page(store, CatalogQuery())] == [3, 3, 3]


def test_an_entry_is_found_exactly_or_with_its_suffix():
    store = filled("a.b2nd", "a.b2nd.b2nd", "dir", "dir.b2nd")
    assert store.resolve("a").path == "a.b2nd"
    assert store.resolve("a.b2nd").path == "a.b2nd"
    assert store.resolve("dir").kind == "group"
    assert store.get("a") is None
    with pytest.raises(DatasetNotFoundError, match="no dataset 'b' in root 'foo'"):
        store.resolve("b")


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("", sorted(TREE)), ("dir", ["dir", "dir/c.b2nd", "dir/sub", "dir/sub/d.b2nd"]), ("a.b2nd", ["a.b2nd"])],
)
def test_what_is_known_comes_with_its_stamp(prefix, expected):
    known = list(filled(*TREE).known(prefix))
    assert [k.entry.path for k in known] == expected
    assert {k.stamp for k in known} == {"stamp"}


def test_the_store_may_change_while_what_is_known_is_read():
    store = filled(*(f"{i:04}.b2nd" for i in range(2500)))
    known = store.known()
    first = next(known)
    store.apply([delete("2400.b2nd"), put("2400a.b2nd")])
    assert [first.entry.path, *(k.entry.path for k in known)] == paths_of(store)


def paths_of(store):
    return [p for page in every_page(store, CatalogQuery()) for p in paths(page)]


# Names (I6): whatever a path may be, it is kept, found and ordered

NASTY = ["e\u0301.b2nd", "é.b2nd", "🙂", "שלום.b2nd", "a b", "%2f", "?#", "new\nline", "CON", "con", ".hidden",
         "__proto__", "'; DROP TABLE entries; --", "a%", "a_", "ab", "*", "x" * 255]  # fmt: skip


def test_names_of_any_kind_are_kept_apart():
    store = filled(*NASTY)
    assert paths_of(store) == sorted(NASTY)
    for name in NASTY:
        assert store.resolve(name).path == name
    inside = [f"a%/{name}" for name in NASTY]
    store.replace_all([(group(name), "") for name in [*NASTY, *inside]])
    assert paths(store.page(CatalogQuery(under="a%"))) == sorted(inside)


# Changes


def test_only_what_changed_is_told():
    store = filled("a.b2nd", "b.b2nd", "c.b2nd")
    cursor = store.cursor
    assert store.replace_all([(array("a.b2nd"), "stamp"), (array("b.b2nd"), "stamp"), (array("c.b2nd"), "other")]) == []
    assert store.cursor == cursor
    assert [k.stamp for k in store.known("c.b2nd")] == ["other"]
    events = store.replace_all([(array("a.b2nd", "v2"), ""), (array("b.b2nd"), ""), (array("d.b2nd"), "")])
    assert [(e.change, e.path) for e in events] == [("put", "a.b2nd"), ("put", "d.b2nd"), ("delete", "c.b2nd")]


def test_a_batch_says_which_numbers_it_carries():
    store = CatalogStore(None, "foo")
    first = store.apply([put("a.b2nd"), put("b.b2nd")])
    assert (first.root, first.first_seq, first.seq, len(first.events)) == ("foo", 1, 1, 2)
    second = store.apply([delete("a.b2nd"), delete("nothing"), put("b.b2nd")])
    assert second.follows(first.cursor)
    assert [(e.change, e.path) for e in second.events] == [("delete", "a.b2nd")]
    assert store.apply([delete("a.b2nd"), put("b.b2nd")]) is None
    assert store.cursor == second.cursor == Cursor(first.epoch, 2)


def test_large_changes_are_told_in_batches_that_follow_one_another(monkeypatch):
    monkeypatch.setattr(catalog_store, "MAX_EVENTS_PER_SEQ", 10)
    store = CatalogStore(None, "foo")
    cursor = store.cursor
    batches = list(store.replacing((array(f"{i:03}.b2nd"), "") for i in range(35)))
    assert [len(batch.events) for batch in batches] == [10, 10, 10, 5]
    for batch in batches:
        assert batch.follows(cursor)
        cursor = batch.cursor
    assert cursor == store.cursor


def test_what_a_scan_finds_is_listed_before_its_end(monkeypatch):
    monkeypatch.setattr(catalog_store, "MAX_EVENTS_PER_SEQ", 2)
    store = filled("old.b2nd")
    scan = store.replacing((array(f"{i}.b2nd"), "") for i in range(3))
    next(scan)
    assert paths(store.page(CatalogQuery())) == ["0.b2nd", "1.b2nd", "old.b2nd"]
    assert [e.path for batch in scan for e in batch.events] == ["2.b2nd", "old.b2nd"]


def test_a_scan_that_fails_deletes_nothing():
    store = filled("a.b2nd", "b.b2nd")

    def broken():
        yield array("c.b2nd"), ""
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        store.replace_all(broken())
    assert {"a.b2nd", "b.b2nd"} <= set(paths_of(store))


def test_changes_since_a_cursor_come_with_what_was_deleted():
    store = filled(*TREE)
    before = store.cursor
    store.apply([put("dir/c.b2nd", "v2"), delete("a.b2nd"), delete("dir/sub/d.b2nd"), put("z.b2nd")])
    store.apply([delete("z.b2nd")])
    page = store.page(CatalogQuery(since=before))
    assert (paths(page), page.deleted) == (["dir/c.b2nd"], ("a.b2nd", "dir/sub/d.b2nd", "z.b2nd"))
    assert page.cursor == store.cursor
    below = store.page(CatalogQuery(since=before, under="dir"))
    assert (paths(below), below.deleted) == (["dir/c.b2nd"], ("dir/sub/d.b2nd",))
    again = store.page(CatalogQuery(since=store.cursor))
    assert (again.items, again.deleted) == ((), ())


def test_an_entry_that_came_back_is_not_deleted():
    store = filled("a.b2nd")
    before = store.cursor
    store.apply([delete("a.b2nd")])
    store.apply([put("a.b2nd", "v2")])
    page = store.page(CatalogQuery(since=before))
    assert (paths(page), page.deleted) == (["a.b2nd"], ())


def test_a_group_that_went_away_lists_its_deletions():
    store = filled("dir", "dir/a.b2nd")
    before = store.cursor
    store.apply([delete("dir/a.b2nd"), delete("dir")])
    assert store.page(CatalogQuery(since=before, under="dir")).deleted == ("dir/a.b2nd",)
    with pytest.raises(DatasetNotFoundError):
        store.page(CatalogQuery(under="dir"))


def test_what_a_filter_lets_through_no_more_is_deleted_for_who_asked():
    store = filled("a.b2nd", "b.b2nd")
    before = store.cursor
    store.apply([(Event("put", "a.b2nd", group("a.b2nd")), ""), put("b.b2nd", "v2")])
    page = store.page(CatalogQuery(since=before, q="kind:array"))
    assert (paths(page), page.deleted) == (["b.b2nd"], ("a.b2nd",))


@pytest.mark.parametrize(("epoch", "seq"), [("another", 1), (None, 99)])
def test_a_cursor_that_is_not_of_this_life_needs_a_resync(epoch, seq):
    store = filled("a.b2nd")
    cursor = Cursor(epoch or store.cursor.epoch, seq)
    with pytest.raises(ResyncError):
        store.page(CatalogQuery(since=cursor))
    with pytest.raises(ResyncError):
        store.events_since(cursor)


def test_deletions_are_not_remembered_for_ever(monkeypatch):
    monkeypatch.setattr(catalog_store, "MAX_TOMBSTONES", 10)
    store = filled(*(f"{i:02}.b2nd" for i in range(20)))
    old = store.cursor
    for i in range(15):
        store.apply([delete(f"{i:02}.b2nd")])
    recent = Cursor(old.epoch, store.cursor.seq - 2)
    with pytest.raises(ResyncError):
        store.page(CatalogQuery(since=old))
    assert store.page(CatalogQuery(since=recent)).deleted == ("13.b2nd", "14.b2nd")


def test_events_since_a_cursor_are_batches_that_follow_it():
    store = filled("a.b2nd")
    before = store.cursor
    store.apply([put("b.b2nd")])
    store.apply([put("b.b2nd", "v2"), delete("a.b2nd")])
    (batch,) = store.events_since(before)
    assert batch.follows(before)
    assert batch.cursor == store.cursor
    assert [(e.change, e.path) for e in batch.events] == [("delete", "a.b2nd"), ("put", "b.b2nd")]
    assert batch.events[1].entry == array("b.b2nd", "v2")
    assert store.events_since(store.cursor) == []


def test_more_events_than_a_listing_is_worth_need_a_resync(monkeypatch):
    monkeypatch.setattr(catalog_store, "MAX_REPLAYED_EVENTS", 5)
    store = CatalogStore(None, "foo")
    before = store.cursor
    store.replace_all((array(f"{i}.b2nd"), "") for i in range(6))
    with pytest.raises(ResyncError, match="list it"):
        store.events_since(before)


changes_lists = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["put", "delete"]), st.sampled_from("abcdef"), st.integers(0, 2)),
        min_size=1,
        max_size=4,
    ),
    max_size=12,
)


@given(changes_lists, st.integers(0, 12), st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_a_copy_that_follows_deltas_or_events_is_equal(steps, when, limit):
    """N9: from any point on, changes by page or by event lead to the same catalog."""
    origin = CatalogStore(None, "foo")
    by_pages, by_events = CatalogStore(None, "foo"), CatalogStore(None, "foo")
    for i, step in enumerate([*steps, []]):
        if i == min(when, len(steps)):
            by_pages.adopt(every_page(origin, CatalogQuery(limit=limit)))
            by_events.adopt(every_page(origin, CatalogQuery()))
        origin.apply([put(path, f"v{n}") if change == "put" else delete(path) for change, path, n in step])
    by_pages.adopt_changes(every_page(origin, CatalogQuery(limit=limit, since=by_pages.cursor)))
    for batch in origin.events_since(by_events.cursor):
        by_events.put_replica(EventBatch.from_json(json.loads(json.dumps(batch.to_json()))))
    for copy in (by_pages, by_events):
        assert copy.page(CatalogQuery()) == origin.page(CatalogQuery())
        assert copy.cursor == origin.cursor


# Replicas


def test_a_replica_keeps_the_cursor_of_its_origin():
    origin, copy = filled(*TREE), CatalogStore(None, "foo")
    assert copy.adopt([origin.page(CatalogQuery())]) is None
    assert copy.cursor == origin.cursor
    assert copy.page(CatalogQuery(since=origin.cursor)).items == ()


def test_a_replica_tells_what_a_new_listing_changed():
    origin, copy = filled("a.b2nd", "b.b2nd"), CatalogStore(None, "foo")
    copy.adopt([origin.page(CatalogQuery())])
    before = copy.cursor
    origin.apply([put("a.b2nd", "v2"), delete("b.b2nd")])
    batch = copy.adopt([origin.page(CatalogQuery())])
    assert batch.follows(before)
    assert batch.cursor == origin.cursor
    assert [(e.change, e.path) for e in batch.events] == [("put", "a.b2nd"), ("delete", "b.b2nd")]
    assert copy.page(CatalogQuery(since=before)).deleted == ("b.b2nd",)


def test_a_new_epoch_of_the_origin_replaces_all_and_needs_a_resync_here():
    copy = CatalogStore(None, "foo")
    copy.adopt([filled("a.b2nd", "b.b2nd").page(CatalogQuery())])
    before = copy.cursor
    origin = filled("b.b2nd", "c.b2nd")
    assert copy.adopt([origin.page(CatalogQuery())]) is None
    assert paths_of(copy) == ["b.b2nd", "c.b2nd"]
    with pytest.raises(ResyncError):
        copy.page(CatalogQuery(since=before))
    assert copy.page(CatalogQuery(since=copy.cursor)).items == ()


def test_an_origin_that_went_back_is_a_new_life():
    """V7: a publisher that was restored from a backup."""
    copy = CatalogStore(None, "foo")
    text = json.dumps(array("a.b2nd").to_json())
    copy.adopt([CatalogPage("e", 9, (text,))])
    with pytest.raises(ResyncError):
        copy.adopt_changes([CatalogPage("e", 5, ())])
    assert copy.adopt([CatalogPage("e", 5, (text,))]) is None
    assert copy.cursor == Cursor("e", 5)
    assert paths(copy.page(CatalogQuery())) == ["a.b2nd"]


def test_who_heard_of_what_a_restored_backup_does_not_know_has_to_list_again(tmp_path):
    """V7: also when the restored catalog has come to the same number, or further, by other changes."""
    path, backup = tmp_path / "catalog.sqlite", tmp_path / "backup.sqlite"
    store = filled("a.b2nd", "b.b2nd", path=path)
    with closing(sqlite3.connect(backup)) as db:
        store._db.backup(db)
    store.apply([delete("a.b2nd")])
    heard = [store.cursor]
    store.begin_run()
    heard.append(store.cursor)
    store.apply([delete("b.b2nd")])
    heard.append(store.cursor)
    assert [paths(store.page(CatalogQuery(since=cursor))) for cursor in heard] == [[], [], []]
    store.close()
    for file in tmp_path.glob("catalog.sqlite*"):
        file.unlink()
    backup.rename(path)
    restored = CatalogStore(path, "foo")
    known = restored.cursor
    restored.begin_run()
    for number in range(5):
        restored.apply([put(f"{number}.b2nd")])
    for cursor in heard:
        with pytest.raises(ResyncError):
            restored.page(CatalogQuery(since=cursor))
        with pytest.raises(ResyncError):
            restored.events_since(cursor)
    # What everybody knows still goes on from where it was.
    assert len(restored.page(CatalogQuery(since=known)).items) == 5
    assert [(b.first_seq, b.seq) for b in restored.events_since(known)] == [(known.seq + 1, restored.cursor.seq)]


def test_gaps_are_not_remembered_for_ever(monkeypatch):
    monkeypatch.setattr(catalog_store, "MAX_GAPS", 3)
    store = filled("a.b2nd")
    cursors = [store.cursor]
    for _ in range(6):
        store.begin_run()
        cursors.append(store.cursor)
    for cursor in cursors[:3]:
        with pytest.raises(ResyncError):
            store.page(CatalogQuery(since=cursor))
    for cursor in cursors[4:]:
        assert store.page(CatalogQuery(since=cursor)).items == ()


def test_a_change_that_cannot_be_committed_is_none_and_the_next_one_is_taken():
    store = filled("a.b2nd")

    class Full:
        """A database whose disk turns out to be full when a change is committed."""

        def __init__(self, db):
            self._db, self.is_full = db, True

        def execute(self, text, *values):
            if text == "COMMIT" and self.is_full:
                self.is_full = False
                raise sqlite3.OperationalError("database or disk is full")
            return self._db.execute(text, *values)

    store._db = Full(store._db)
    with pytest.raises(SourceUnavailableError, match="full"):
        store.apply([put("b.b2nd")])
    assert paths(store.page(CatalogQuery())) == ["a.b2nd"]
    store.apply([put("c.b2nd")])
    assert paths(store.page(CatalogQuery())) == ["a.b2nd", "c.b2nd"]


def test_a_replica_refuses_what_does_not_follow():
    copy = CatalogStore(None, "foo")
    copy.reset("e", 5)
    for batch in [
        EventBatch("foo", "e", 7, 7, (put("a.b2nd")[0],)),
        EventBatch("foo", "other", 6, 6, (put("a.b2nd")[0],)),
        EventBatch("foo", "e", 6, 6, (Event("put", "a.b2nd"),)),
        EventBatch("foo", "e", 7, 6),
        EventBatch("foo", "e", 6, 6),
    ]:
        with pytest.raises(ResyncError):
            copy.put_replica(batch)
    assert (copy.cursor, len(copy)) == (Cursor("e", 5), 0)
    copy.put_replica(EventBatch("foo", "e", 6, 5))
    copy.put_replica(EventBatch("foo", "e", 4, 6, (put("a.b2nd")[0],)))
    assert (copy.cursor, len(copy)) == (Cursor("e", 6), 1)


def test_pages_of_two_epochs_are_refused_and_change_no_cursor():
    copy = CatalogStore(None, "foo")
    copy.reset("e", 5)
    with pytest.raises(ResyncError):
        copy.adopt([CatalogPage("e", 6, ()), CatalogPage("f", 1, ())])
    assert copy.cursor == Cursor("e", 5)


@pytest.mark.parametrize("text", ['{"path":"../x","kind":"group"}', '{"path":"a","kind":"array"}', "[]", "7"])
def test_a_listing_that_is_malformed_is_refused(text):
    copy = CatalogStore(None, "foo")
    copy.reset("e", 5)
    with pytest.raises((IntegrityError, DatasetNotFoundError, LookupError)):
        copy.adopt([CatalogPage("f", 1, (text,))])
    assert copy.cursor == Cursor("e", 5)


# On disk


def test_a_catalog_survives_a_restart(tmp_path):
    store = filled(*TREE, path=tmp_path / "catalog.sqlite")
    store.apply([delete("a.b2nd")])
    owner, page = store.owner_id, store.page(CatalogQuery(since=Cursor(store.cursor.epoch, 1)))
    store.close()
    again = CatalogStore(tmp_path / "catalog.sqlite", "foo")
    assert again.owner_id == owner
    assert again.page(CatalogQuery(since=Cursor(again.cursor.epoch, 1))) == page
    assert again.get("dir/c.b2nd") == array("dir/c.b2nd")


def _overwrite_start(file):
    file.write_bytes(os.urandom(4096) + file.read_bytes()[4096:])


def _overwrite_middle(file):
    raw = bytearray(file.read_bytes())
    raw[8192 : len(raw) - 4096] = b"\xff" * (len(raw) - 12288)
    file.write_bytes(raw)


def _truncate(file):
    file.write_bytes(file.read_bytes()[:5000])


def _replace_by_text(file):
    file.write_text("this is not a database, though it is longer than a header of one" * 20)


def _set_other_format(file):
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


@pytest.mark.parametrize(
    "damage", [_overwrite_start, _overwrite_middle, _truncate, _replace_by_text, _set_other_format]
)
def test_a_damaged_catalog_is_set_aside_and_begun_again(tmp_path, damage):
    """S6, P11: never fatal, and never the old epoch."""
    file = tmp_path / "catalog.sqlite"
    store = filled(*(f"{i:04}.b2nd" for i in range(500)), path=file)
    epoch = store.cursor.epoch
    store.close()
    damage(file)
    again = CatalogStore(file, "foo")
    assert len(again) == 0
    assert again.cursor.epoch != epoch
    assert (tmp_path / "catalog.sqlite.corrupt").exists()
    again.close()
    damage(file)
    CatalogStore(file, "foo").close()
    assert len(list(tmp_path.glob("*.corrupt*"))) >= 1


def _made_by_the_first_version(db):
    db.execute("DELETE FROM meta WHERE key = 'index_format'")


def _made_by_another_version(db):
    db.execute("UPDATE meta SET value = '999' WHERE key = 'index_format'")


@pytest.mark.parametrize("change", [_made_by_the_first_version, _made_by_another_version])
def test_what_another_version_indexed_is_indexed_again_once(tmp_path, change):
    """An upgrade that tells more of files must tell it of those that are unchanged, too."""
    example_hdf5.make_example(tmp_path / "data.h5")
    file = tmp_path / "catalog.sqlite"
    root = Hdf5Root(tmp_path / "data.h5", "owner")
    store = CatalogStore(file, "foo")
    store.replace_all(root.scan(store.known()))
    epoch = store.cursor.epoch
    complete = {k.entry.path: k.entry for k in store.known()}
    poor = [(replace(k.entry, storage={}), k.stamp) for k in store.known()]
    store.replace_all(poor)  # as if less had been told of it then
    store.close()
    with sqlite3.connect(file) as db:
        change(db)
    db.close()
    store = CatalogStore(file, "foo")
    assert {k.stamp for k in store.known()} == {""}
    events = store.replace_all(root.scan(store.known()))
    assert {k.entry.path: k.entry for k in store.known()} == complete
    assert {event.path for event in events} >= {"climate/temperature.b2nd"}
    assert store.cursor.epoch == epoch  # whoever follows gets the changes, not everything
    assert "" not in {k.stamp for k in store.known()}
    assert store.replace_all(root.scan(store.known())) == []
    store.close()
    root.close()


def test_the_number_of_the_index_is_that_of_what_is_indexed(tmp_path):
    """When this fails, what entries tell has changed: one more for INDEX_FORMAT, and the new digest here."""
    example_hdf5.make_example(tmp_path / "data.h5")
    blosc2.asarray(np.arange(10), urlpath=str(tmp_path / "array.b2nd"))
    (tmp_path / "plain.txt").write_text("text")
    root = DirectoryRoot(tmp_path, "owner", hdf5_trees(tmp_path, "owner"))
    told = sorted(
        (entry.path, entry.kind, sorted(entry.storage), sorted(entry.attrs), sorted(entry.to_json()))
        for entry, _ in root.scan([])
    )
    digest = hashlib.blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()
    assert (INDEX_FORMAT, digest) == (1, "5cfcfcc9df72a494")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(SourceUnavailableError, match="no-such-folder"):
        CatalogStore(tmp_path / "no-such-folder" / "catalog.sqlite")


def test_changes_are_kept_together_or_not_at_all():
    store = filled("a.b2nd")
    cursor = store.cursor
    with pytest.raises(TypeError):
        store.apply([put("b.b2nd"), (Event("put", "c.b2nd", array("c.b2nd", attrs={"x": object()})), "")])
    assert (store.cursor, paths_of(store)) == (cursor, ["a.b2nd"])


def test_threads_may_read_and_write_at_once(tmp_path):
    store = filled(*(f"{i:03}.b2nd" for i in range(300)), path=tmp_path / "catalog.sqlite")
    errors = []

    def read():
        try:
            for _ in range(30):
                assert len(store.page(CatalogQuery(limit=50)).items) == 50
                assert sum(1 for _ in store.known()) >= 300
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(30):
        store.apply([put(f"new{i}.b2nd")])
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store) == 330


def test_ten_thousand_datasets_are_listed_at_once(tmp_path):
    """I7: none is dropped, and the first page after a restart takes no time."""
    names = [f"dir{i % 100:02}/{i:05}.b2nd" for i in range(10_000)]
    file = tmp_path / "catalog.sqlite"
    filled(*names, path=file).close()
    start = time.process_time()
    store = CatalogStore(file, "foo")
    assert len(store.page(CatalogQuery()).items) == 1000
    assert time.process_time() - start < 1
    assert [p for page in every_page(store, CatalogQuery(limit=3000)) for p in paths(page)] == sorted(names)
