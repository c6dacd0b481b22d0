"""Real directories and files, watched: by notification, and by looking again and again."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from caterva2_jupyter.errors import SourceUnavailableError
from caterva2_jupyter.publisher import watcher as watcher_module
from caterva2_jupyter.publisher.debouncer import Changes
from caterva2_jupyter.publisher.inotify import Inotify
from caterva2_jupyter.publisher.watcher import Watcher
from tests.publisher.publishing import overflow

DEADLINE_S = 60.0


def watching(
    watched: Path,
    check: Callable[[Watcher], Awaitable[None]],
    quiet_s: float = 0.1,
    poll_s: float = 0.0,
    is_open_to_readers: Callable[[Path], bool] = lambda path: False,
) -> None:
    async def main() -> None:
        watcher = Watcher(watched, quiet_s, poll_s, is_open_to_readers=is_open_to_readers)
        async with asyncio.timeout(DEADLINE_S):
            await watcher.start()
            try:
                await check(watcher)
            finally:
                await watcher.stop()

    asyncio.run(main())


async def told(watcher: Watcher, *paths: Path) -> None:
    waited = set(paths)
    while waited:
        changes = await watcher.next_changes()
        if changes.everything:
            return
        waited -= changes.paths


@pytest.mark.parametrize("poll_s", [0.0, 0.1])
def test_created_changed_renamed_and_deleted_files_are_told(tmp_path: Path, poll_s: float) -> None:
    async def check(watcher: Watcher) -> None:
        (tmp_path / "a").write_text("1")
        await told(watcher, tmp_path / "a")
        (tmp_path / "a").write_text("22")
        await told(watcher, tmp_path / "a")
        (tmp_path / "a").rename(tmp_path / "b")
        await told(watcher, tmp_path / "a", tmp_path / "b")
        (tmp_path / "b").unlink()
        await told(watcher, tmp_path / "b")
        (tmp_path / "d" / "e").mkdir(parents=True)
        await told(watcher, tmp_path / "d")
        (tmp_path / "d" / "e" / "f").write_text("1")
        await told(watcher, tmp_path / "d" / "e" / "f")

    watching(tmp_path, check, poll_s=poll_s)


@pytest.mark.parametrize("poll_s", [0.0, 0.1])
def test_a_single_file_is_watched_though_it_is_replaced(tmp_path: Path, poll_s: float) -> None:
    watched = tmp_path / "data.h5"
    watched.write_text("1")

    async def check(watcher: Watcher) -> None:
        for number in range(3):
            (tmp_path / "other").write_text(f"{number}{number}")
            os.replace(tmp_path / "other", watched)
            changes = await watcher.next_changes()
            assert changes.everything or changes.paths == {watched}

    watching(watched, check, poll_s=poll_s)


def test_a_directory_that_is_replaced_is_looked_at_whole_and_watched_again(tmp_path: Path) -> None:
    watched = tmp_path / "root"
    watched.mkdir()

    async def check(watcher: Watcher) -> None:
        shutil.rmtree(watched)
        await asyncio.sleep(0)
        watched.mkdir()
        while not (await watcher.next_changes()).everything:
            pass
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            # It may be between two watches: then everything is looked at.
            (watched / "a").write_text(str(time.monotonic()))
            changes = await watcher.next_changes()
            if watched / "a" in changes.paths:
                return
        raise AssertionError("not watched again")

    watching(watched, check)


def test_everything_is_looked_at_only_when_it_is_watched_again(tmp_path: Path, monkeypatch: Any) -> None:
    # The other way round, what is written between looking and watching is never told.
    watched = tmp_path / "root"
    watched.mkdir()
    happened: list[str] = []
    tell = Watcher._tell

    class Noted(Inotify):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            happened.append("watched")

    def tell_and_note(watcher: Watcher, changes: Changes) -> None:
        if changes.everything:
            happened.append("everything")
        tell(watcher, changes)

    monkeypatch.setattr(watcher_module, "Inotify", Noted)
    monkeypatch.setattr(Watcher, "_tell", tell_and_note)

    async def check(watcher: Watcher) -> None:
        shutil.rmtree(watched)
        watched.mkdir()
        while not (await watcher.next_changes()).everything:
            pass

    watching(watched, check)
    assert happened[:3] == ["watched", "watched", "everything"]


@pytest.mark.parametrize("poll_s", [0.0, 0.1])
def test_a_single_file_behind_a_link_is_watched_where_it_is(tmp_path: Path, poll_s: float) -> None:
    (tmp_path / "here").mkdir()
    watched, first, second = tmp_path / "here" / "data.h5", tmp_path / "first.h5", tmp_path / "second.h5"
    first.write_text("1")
    second.write_text("22")
    watched.symlink_to(first)

    async def check(watcher: Watcher) -> None:
        first.write_text("333")
        await told(watcher, watched)
        watched.unlink()
        watched.symlink_to(second)
        await told(watcher, watched)
        while True:
            # It may be between two watches: then everything is looked at.
            second.write_text(f"{time.monotonic()}")
            if watched in (await watcher.next_changes()).paths:
                return

    watching(watched, check, poll_s=poll_s)


def test_changes_that_the_kernel_dropped_are_looked_for_and_new_directories_watched(tmp_path: Path) -> None:
    entered, released = threading.Event(), threading.Event()

    def hold_up(path: Path) -> bool:
        entered.set()
        assert released.wait(DEADLINE_S)
        return False

    async def check(watcher: Watcher) -> None:
        (tmp_path / "first").write_text("x")
        await asyncio.to_thread(entered.wait)
        overflow(tmp_path)
        (tmp_path / "new" / "below").mkdir(parents=True)
        released.set()
        while not (await watcher.next_changes()).everything:
            pass
        (tmp_path / "new" / "below" / "file").write_text("x")
        while tmp_path / "new" / "below" / "file" not in (await watcher.next_changes()).paths:
            pass

    watching(tmp_path, check, is_open_to_readers=hold_up)


def test_where_no_more_may_be_watched_it_is_looked_at_again_and_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(watcher_module, "FALLBACK_POLL_S", 0.05)
    add = Inotify._add_watch

    def add_one(self: Inotify, path: str, mask: int) -> int:
        if path != str(tmp_path):
            raise OSError(errno.ENOSPC, "no more", path)
        return add(self, path, mask)

    monkeypatch.setattr(Inotify, "_add_watch", add_one)

    async def check(watcher: Watcher) -> None:
        (tmp_path / "new").mkdir()
        while not (await watcher.next_changes()).everything:
            pass
        (tmp_path / "new" / "file").write_text("x")
        await told(watcher, tmp_path / "new" / "file")

    watching(tmp_path, check)


@pytest.mark.parametrize("error", [RuntimeError("?"), SourceUnavailableError("no catalog"), PermissionError(13, "no")])
def test_a_watch_that_fails_is_begun_again(tmp_path: Path, monkeypatch: Any, error: Exception) -> None:
    monkeypatch.setattr(watcher_module, "IDENTITY_CHECK_S", 0.05)
    failures = [error]

    def fail_once(path: Path) -> bool:
        if failures:
            raise failures.pop()
        return False

    async def check(watcher: Watcher) -> None:
        (tmp_path / "lost").write_text("x")
        while not (await watcher.next_changes()).everything:
            pass
        assert watcher._poll_s == 0
        (tmp_path / "a").write_text("x")
        while tmp_path / "a" not in (await watcher.next_changes()).paths:
            pass

    watching(tmp_path, check, is_open_to_readers=fail_once)


def test_stopping_leaves_no_thread(tmp_path: Path) -> None:
    async def main() -> None:
        watcher = Watcher(tmp_path)
        await watcher.start()
        await watcher.stop()
        assert not watcher._thread.is_alive()

    asyncio.run(main())
