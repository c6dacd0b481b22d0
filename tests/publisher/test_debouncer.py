from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from caterva2_jupyter.publisher.debouncer import GROWING_S, Changes, Debouncer
from caterva2_jupyter.storage.generation import Generation

X, Y = Path("/r/x"), Path("/r/y")


class Disk:
    """States of files as a test sets them."""

    def __init__(self) -> None:
        self.states: dict[Path, Generation] = {}

    def write(self, path: Path) -> Generation:
        before = self.states.get(path, Generation(1, 1, 0, 0, 0))
        self.states[path] = Generation(1, before.inode, before.nbytes + 1, before.mtime_ns + 1, 0)
        return self.states[path]

    def __call__(self, path: Path) -> Generation | None:
        return self.states.get(path)


def test_a_file_is_told_when_it_was_left_alone_for_long_enough() -> None:
    disk, debouncer = Disk(), Debouncer(0.2)
    debouncer.saw(X, disk.write(X), 10.0, 0.05)
    assert not debouncer.due(10.1, disk)
    debouncer.saw(X, disk.write(X), 10.12, 0.0)
    assert not debouncer.due(10.2, disk)
    assert debouncer.due(10.33, disk).paths == {X}
    assert not debouncer.due(11, disk)


def test_writes_that_nobody_was_told_of_count_too() -> None:
    disk, debouncer = Disk(), Debouncer(0.2)
    debouncer.saw(X, disk.write(X), 10.0, 0.0)
    disk.write(X)
    assert not debouncer.due(10.25, disk)
    assert debouncer.due(10.5, disk).paths == {X}


def test_a_complete_file_that_is_renamed_into_place_is_told_at_once() -> None:
    disk, debouncer = Disk(), Debouncer(0.2)
    debouncer.saw(X, disk.write(X), 10.0, 60.0)
    assert debouncer.due(10.0, disk).paths == {X}


def test_a_file_whose_time_is_set_back_while_it_is_busy_has_to_be_quiet() -> None:
    disk, debouncer = Disk(), Debouncer(0.2)
    debouncer.saw(X, disk.write(X), 10.0, 0.0)
    debouncer.saw(X, disk.write(X), 10.1, 1e6)
    assert not debouncer.due(10.29, disk)
    assert debouncer.due(10.31, disk).paths == {X}


def test_a_time_in_the_future_does_not_hold_a_file_back() -> None:
    disk, debouncer = Disk(), Debouncer(0.2)
    debouncer.saw(X, disk.write(X), 10.0, -1e6)
    assert not debouncer.due(10.1, disk)
    assert debouncer.due(10.2, disk).paths == {X}


def test_a_file_that_never_rests_is_told_every_five_seconds() -> None:
    disk, debouncer = Disk(), Debouncer(0.2)
    told = []
    for tick in range(200):
        now = tick / 10
        debouncer.saw(X, disk.write(X), now, 0.0)
        if debouncer.due(now + 0.01, disk):
            told.append(now)
    assert len(told) == 3
    assert all(b - a >= GROWING_S - 0.2 for a, b in itertools.pairwise(told))


def test_a_new_file_that_is_still_being_copied_is_not_told() -> None:
    disk, debouncer = Disk(), Debouncer(0.2, may_grow=lambda path: path == Y)
    told: set[Path] = set()
    for tick in range(200):
        for path in (X, Y):
            debouncer.saw(path, disk.write(path), tick / 10, 0.0)
        told |= debouncer.due(tick / 10 + 0.01, disk).paths
    assert told == {Y}
    assert debouncer.due(21, disk).paths >= {X}


def test_a_new_file_that_readers_may_open_while_it_grows_is_told_at_first_sight() -> None:
    ready_s = 101.0
    disk = Disk()
    debouncer = Debouncer(0.2, is_open_to_readers=lambda path: path == Y and now_s >= ready_s)
    told = []
    for step in range(80):
        now_s = 100 + step * 0.1
        for path in (X, Y):
            debouncer.saw(path, disk.write(path), now_s, 0.0)
        told += [(path, round(now_s)) for path in debouncer.due(now_s, disk).paths]
    assert sorted(told) == [(X, 105), (Y, 101), (Y, 105)]


def test_a_file_that_came_and_went_is_told_once_as_gone_or_not() -> None:
    disk, debouncer = Disk(), Debouncer(0.2)
    debouncer.saw(X, disk.write(X), 10.0, 0.0)
    del disk.states[X]
    debouncer.saw(X, None, 10.05, 0.0)
    assert debouncer.due(10.3, disk).paths == {X}


def test_a_storm_is_one_look_at_everything_once_it_is_over() -> None:
    disk, debouncer = Disk(), Debouncer(0.2, storm_paths=100)
    looks = []
    for tick in range(120):
        now = tick / 10
        for number in range(50):
            path = Path(f"/r/{tick}-{number}")
            debouncer.saw(path, disk.write(path), now, 0.0)
        if changes := debouncer.due(now + 0.01, disk):
            looks.append((now, changes))
        assert len(debouncer) <= 101
    assert len(looks) <= 3
    assert all(c.everything for _, c in looks)
    assert debouncer.due(20, disk) == Changes(everything=True)
    assert not debouncer.due(30, disk)


def test_lost_changes_are_one_look_at_everything_once_it_is_quiet() -> None:
    disk, debouncer = Disk(), Debouncer(0.2)
    debouncer.saw(X, disk.write(X), 10.0, 0.0)
    debouncer.lost(10.1)
    assert not debouncer.due(10.25, disk)
    debouncer.lost(10.25)
    assert not debouncer.due(10.4, disk)
    assert debouncer.due(10.5, disk) == Changes(everything=True)
    assert not debouncer.due(20, disk)


@given(st.lists(st.tuples(st.sampled_from([X, Y]), st.floats(0, 3), st.floats(-1, 1)), max_size=30))
def test_every_change_is_told_in_the_end(steps: list[tuple[Path, float, float]]) -> None:
    disk, debouncer = Disk(), Debouncer(0.2)
    now, untold = 0.0, set[Path]()
    for path, pause, age in steps:
        now += pause
        untold -= debouncer.due(now, disk).paths
        debouncer.saw(path, disk.write(path), now, age)
        untold.add(path)
    for _ in range(3):
        now += 1
        untold -= debouncer.due(now, disk).paths
    assert not untold
    assert len(debouncer) == 0


def test_changes_add_up() -> None:
    assert Changes(frozenset({X})) | Changes(frozenset({Y})) == Changes(frozenset({X, Y}))
    assert Changes(frozenset({X})) | Changes(everything=True) == Changes(everything=True)
    assert not Changes()
