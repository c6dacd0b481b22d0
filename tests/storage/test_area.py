"""Areas' directories: complete or not there, within the quota, and nothing outside of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import blosc2
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.paths import parse_path
from caterva2_jupyter.errors import (
    Caterva2Error,
    ConflictError,
    DatasetNotFoundError,
    InvalidPathError,
    TooLargeError,
)
from caterva2_jupyter.storage.area import Area
from caterva2_jupyter.storage.area_root import INCOMING, AreaRoot
from caterva2_jupyter.storage.hdf5_root import hdf5_trees
from caterva2_jupyter.storage.hdf5_worker import Hdf5Worker
from caterva2_jupyter.storage.quota import Quota


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Area]:
    made = Area(tmp_path / "public", "@public", Quota(None, [tmp_path / "public"]))
    yield made
    made.close()


def put(area: Area, path: str, data: bytes, *, overwrite: bool = True) -> str:
    with area.begin(path, len(data), overwrite=overwrite) as upload:
        for start in range(0, len(data), 1000):
            upload.write(data[start : start + 1000])
        return upload.commit()


def listed(area: Area) -> dict[str, Entry]:
    return {entry.path: entry for entry, _ in AreaRoot(area.directory, "owner").scan(()) if entry.kind != "group"}


def content(area: Area, path: str, start: int = 0, stop: int | None = None) -> bytes:
    root = AreaRoot(area.directory, "owner")
    entry = next(entry for entry, _ in root.scan(()) if entry.path == path)
    return b"".join(root.read_file(entry, start, stop).parts)


def files_of(area: Area) -> list[str]:
    found = [path.relative_to(area.directory).as_posix() for path in area.directory.rglob("*") if path.is_file()]
    return sorted(path for path in found if not path.startswith(INCOMING))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 4999, (4 << 20) - 1, 4 << 20, (9 << 20) + 17])
def test_a_plain_file_is_kept_compressed_and_shown_as_it_was(area: Area, size: int) -> None:
    data = np.random.default_rng(size).integers(0, 4, size, np.uint8).tobytes()
    assert put(area, "dir/notes.txt", data) == "dir/notes.txt"
    assert files_of(area) == ["dir/notes.txt.b2"]
    assert listed(area)["dir/notes.txt"].media_type == "text/plain"
    assert content(area, "dir/notes.txt") == data
    assert content(area, "dir/notes.txt", size // 3, size - 1 if size else 0) == data[size // 3 : max(size - 1, 0)]
    assert blosc2.open(str(area.directory / "dir/notes.txt.b2"))[:] == data, "as the older system has it"


def test_files_of_the_older_system_are_adopted_in_place(area: Area) -> None:
    blosc2.SChunk(data=b"hello" * 100, urlpath=str(area.directory / "a.md.b2"), contiguous=True)
    (area.directory / "by hand.txt").write_bytes(b"plain")
    blosc2.asarray(np.arange(5), urlpath=str(area.directory / "x.b2nd"))
    assert sorted(listed(area)) == ["a.md", "by hand.txt", "x.b2nd"]
    assert content(area, "a.md") == b"hello" * 100
    assert content(area, "by hand.txt") == b"plain"
    assert (area.directory / "by hand.txt").exists(), "nothing is converted behind anybody's back"


def test_of_two_files_of_one_name_the_newer_is_shown(area: Area) -> None:
    put(area, "x.txt", b"packed")
    (area.directory / "x.txt").write_bytes(b"by hand")
    assert content(area, "x.txt") == b"by hand"
    put(area, "x.txt", b"packed again")
    assert content(area, "x.txt") == b"packed again"
    assert files_of(area) == ["x.txt.b2"]


def test_frames_and_hdf5_are_kept_as_they_are(area: Area, tmp_path: Path) -> None:
    frame = blosc2.asarray(np.arange(10)).to_cframe()
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["group/values"] = np.arange(7)
    hdf5 = (tmp_path / "f.h5").read_bytes()
    for path, data in (("x.b2nd", frame), ("f.h5", hdf5), ("no suffix", hdf5)):
        put(area, path, data)
        assert (area.directory / path).read_bytes() == data
    worker = Hdf5Worker()
    root = AreaRoot(area.directory, "owner", hdf5_trees(area.directory, "owner", worker))
    paths = {entry.path for entry, _ in root.scan(())}
    root.close()
    worker.close()
    assert {"f.h5/group/values.b2nd", "no suffix/group/values.b2nd", "x.b2nd"} <= paths


def test_a_packed_file_that_is_uploaded_as_such_is_what_is_in_it(area: Area) -> None:
    assert put(area, "x.txt.b2", bytes(blosc2.SChunk(data=b"inside").to_cframe())) == "x.txt"
    assert content(area, "x.txt") == b"inside"
    assert put(area, "y.b2", b"no frame at all, whatever its name") == "y.b2"
    assert content(area, "y.b2") == b"no frame at all, whatever its name"


def test_a_damaged_frame_is_listed_with_its_reason(area: Area) -> None:
    put(area, "bad.b2nd", b"garbage" * 100)
    (area.directory / "worse.txt.b2").write_bytes(b"\x9e\xa8b2frame\0" + b"garbage" * 100)
    assert {path: entry.kind for path, entry in listed(area).items()} == {
        "bad.b2nd": "unsupported",
        "worse.txt": "unsupported",
    }


def test_what_is_not_completed_is_never_there(area: Area) -> None:
    put(area, "x.bin", b"before")
    with area.begin("x.bin") as upload:
        upload.write(b"after" * 10_000)
        assert content(area, "x.bin") == b"before"
    with area.begin("new/dir/y.bin") as upload:
        upload.write(b"z" * 100)
    assert files_of(area) == ["x.bin.b2"]
    assert not (area.directory / "new").exists()
    assert area.quota._held_nbytes == 0


def test_what_a_killed_process_left_is_removed_by_the_next(area: Area, tmp_path: Path) -> None:
    left = area.directory / INCOMING / "1-dead"
    left.mkdir(parents=True)
    (left / "lock").touch()
    (left / "part").write_bytes(b"x" * 1000)
    upload = area.begin("x")
    upload.write(b"y" * 100)
    assert not left.exists()
    other = Area(area.directory, "@public", Quota(None, []))
    put(other, "z", b"other process")  # leaves alone what a living one writes
    other.close()
    upload.commit()
    assert sorted(listed(area)) == ["x", "z"]


def test_move_and_copy_keep_what_a_file_is(area: Area, tmp_path: Path) -> None:
    other = Area(tmp_path / "shared", "@shared", area.quota)
    put(area, "a/x.txt", b"text")
    put(area, "a/y.b2nd", blosc2.asarray(np.arange(3)).to_cframe())
    area.move("a/x.txt", other, "deep/er/x.md")
    area.copy("a", other, "b")
    other.copy("deep", area, "deep")
    assert files_of(other) == ["b/y.b2nd", "deep/er/x.md.b2"]
    assert files_of(area) == ["a/y.b2nd", "deep/er/x.md.b2"]
    area.move("a", other, "c")
    area.remove("deep/er/x.md")
    area.remove("deep")
    assert files_of(area) == []
    assert content(other, "deep/er/x.md") == b"text"
    other.remove("")
    assert files_of(other) == []
    other.close()


def test_what_is_there_is_replaced_only_when_that_is_meant(area: Area) -> None:
    put(area, "x.txt", b"1")
    put(area, "y.txt", b"2")
    put(area, "dir/z.txt", b"3")
    with pytest.raises(ConflictError, match="already"):
        put(area, "x.txt", b"4", overwrite=False)
    for verb in (area.move, area.copy):
        with pytest.raises(ConflictError):
            verb("x.txt", area, "y.txt", overwrite=False)
        with pytest.raises(ConflictError, match="directory"):
            verb("x.txt", area, "dir")
        with pytest.raises(ConflictError):
            verb("dir", area, "dir/inside")
        with pytest.raises(ConflictError):
            verb("dir", area, "x.txt")
        with pytest.raises(DatasetNotFoundError):
            verb("nothing", area, "z")
    for path in ("dir", "x.txt/below", ""):
        with pytest.raises(ConflictError):
            area.begin(path)
    assert [content(area, p) for p in ("x.txt", "y.txt", "dir/z.txt")] == [b"1", b"2", b"3"]


def test_of_uploads_at_once_that_may_not_replace_one_wins(area: Area) -> None:
    uploads = [area.begin("x.txt", overwrite=False) for _ in range(8)]
    for i, upload in enumerate(uploads):
        upload.write(b"%d" % i * 100)
    outcomes: list[str] = []

    def commit(upload: object) -> None:
        try:
            upload.commit()  # type: ignore[attr-defined]
            outcomes.append("stored")
        except ConflictError:
            outcomes.append("refused")

    threads = [threading.Thread(target=commit, args=(upload,)) for upload in uploads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["stored"]
    data = content(area, "x.txt")
    assert len(data) == 100
    assert len(set(data)) == 1


def test_the_quota_holds_whoever_writes_at_once(tmp_path: Path) -> None:
    quota = Quota(1 << 20, [tmp_path / "public", tmp_path / "shared"])
    areas = [Area(tmp_path / name, f"@{name}", quota) for name in ("public", "shared")]
    data = os.urandom(100_000)
    outcomes: list[bool] = []
    refusals: set[str] = set()

    def write(i: int) -> None:
        try:
            put(areas[i % 2], f"{i}.b2nd", data)
            outcomes.append(True)
        except TooLargeError as error:
            refusals.add(str(error))
            outcomes.append(False)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert on_disk <= quota.limit_nbytes
    assert outcomes.count(True) * len(data) == on_disk == quota.usage_nbytes
    assert 1 <= outcomes.count(True) <= 10
    assert refusals == {"Upload failed because quota limit has been exceeded."}
    if outcomes.count(True) < 10:  # those that were refused in the midst left room for more
        put(areas[0], "one more.b2nd", data)
    areas[0].remove("")
    areas[1].remove("")
    put(areas[1], "again.b2nd", data)
    with pytest.raises(TooLargeError):
        areas[0].begin("large.b2nd", 1 << 20)
    for area in areas:
        area.close()


HOSTILE = ["..", ".", "../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "x\0y", "\\..\\x", ".caterva2-incoming/x",
           ".caterva2x", "a/.caterva2/b", "x" * 256, "é" * 128, "x" * 5000, ".b2"]  # fmt: skip
STRANGE = ["a b", "é", "e\u0301mile", "😀", "\u202eabc", "%2f", "?#&", "line\nbreak", "CON", "Case", "case", "-rf", "~",
           "x.tmp", "__proto__", "'\"<script>", "x" * 240, "a\\b", ".hidden", "x.b2.b2", "*"]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE)
def test_names_that_lead_out_or_cannot_be_are_refused(area: Area, path: str) -> None:
    put(area, "x.txt", b"1")
    with pytest.raises((InvalidPathError, ConflictError)):
        put(area, path, b"data")
    with pytest.raises((InvalidPathError, ConflictError)):
        area.make_directory(path)
    with pytest.raises((InvalidPathError, ConflictError)):
        area.move("x.txt", area, path)
    assert files_of(area) == ["x.txt.b2"]
    assert [p.name for p in area.directory.parent.iterdir()] == ["public"]


def test_strange_names_are_names(area: Area) -> None:
    for path in STRANGE:
        put(area, path, path.encode())
    assert sorted(listed(area)) == sorted(STRANGE)
    for path in STRANGE:
        assert content(area, path) == path.encode()
        area.remove(path)
    assert files_of(area) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(max_size=20))
def test_whatever_the_name_nothing_is_written_outside(area: Area, path: str) -> None:
    try:
        put(area, path, b"x")
    except (Caterva2Error, UnicodeEncodeError):
        return
    assert [p.name for p in area.directory.parent.iterdir()] == ["public"]
    area.remove("")


def test_links_never_lead_out(area: Area, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(b"secret")
    (area.directory / "way out").symlink_to(outside)
    (area.directory / "secret").symlink_to(outside / "secret.txt")
    with pytest.raises(Caterva2Error):
        put(area, "way out/new.txt", b"x")
    with pytest.raises(Caterva2Error):
        area.make_directory("way out/dir")
    with pytest.raises(Caterva2Error):
        area.copy("secret", area, "copied")
    with pytest.raises(Caterva2Error):
        area.remove("way out/secret.txt")
    put(area, "dir/x", b"1")
    (area.directory / "dir/link").symlink_to(outside / "secret.txt")
    area.copy("dir", area, "copy")
    assert not (area.directory / "copy/link").exists()
    area.remove("way out")
    area.remove("secret")
    area.remove("dir")
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    upload = area.begin("x.b2nd")
    monkeypatch.setattr("caterva2_jupyter.storage.area.os.write", full)
    with upload, pytest.raises(Caterva2Error, match="the disk of area @public is full"):
        upload.write(b"x" * 100)
    monkeypatch.undo()
    assert files_of(area) == []
    assert area.quota._held_nbytes == 0


@pytest.mark.parametrize("name", ["..b2", "...b2", "dir/..b2", "dir/...b2", "x.b2", "..b2.b2", "....b2"])
def test_no_name_of_a_file_stands_for_a_directory(area: Area, name: str) -> None:
    (area.directory.parent / "secret.txt").write_text("not of this area")
    put(area, "other.txt", b"other")
    put(area, name, b"hello")
    assert content(area, name) == b"hello"
    root = AreaRoot(area.directory, "owner")
    assert root.scan(()) is not None
    for real in (name, f"{name}.b2"):
        events = [event for event, _ in root.rescan([area.directory / real], ())]
        assert {event.path for event in events} <= {"dir", name}
    area.remove(name)
    assert set(listed(area)) == {"other.txt"}


def test_what_somebody_put_there_by_hand_does_not_stand_for_a_directory_either(area: Area) -> None:
    (area.directory.parent / "secret.txt").write_text("not of this area")
    (area.directory / "dir").mkdir()
    for name in ("..b2", "...b2", ".b2", "dir/..b2", "dir/...b2"):
        (area.directory / name).write_bytes(b"by hand")
    root = AreaRoot(area.directory, "owner")
    entries = {entry.path: entry for entry, _ in root.scan(())}
    assert {path for path in entries if "b2" in path} == {"..b2", "...b2", ".b2", "dir/..b2", "dir/...b2"}
    for path in entries:
        assert parse_path(path) == path
        for event, _ in root.rescan([area.directory / path], ()):
            assert parse_path(event.path) == event.path


def test_a_path_that_ends_with_a_slash_is_no_file(area: Area) -> None:
    with pytest.raises(InvalidPathError):
        put(area, "dir/", b"")
