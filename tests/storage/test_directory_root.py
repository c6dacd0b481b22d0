"""The directory root: the contract, what it lists, links, half-written and strange files, restarts."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt
import pytest

from caterva2_jupyter.core.blocks import BlockRecord, checksum_seed
from caterva2_jupyter.core.chunk_grid import BlockPlan, ChunkProjection
from caterva2_jupyter.core.codec import encode_chunk
from caterva2_jupyter.core.metadata import Entry, Geometry, dataset_id
from caterva2_jupyter.core.selection import Selection
from caterva2_jupyter.errors import DatasetChangedError, IntegrityError, SourceUnavailableError, UnsupportedDatasetError
from caterva2_jupyter.storage.blosc2_file import FrameFile
from caterva2_jupyter.storage.catalog_store import CatalogStore
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.event_hub import EventHub
from caterva2_jupyter.storage.generation import Generation, version_tag
from caterva2_jupyter.storage.root import KnownEntry, Root
from caterva2_jupyter.storage.threaded_source import ThreadedSource
from caterva2_jupyter.testing import RootContract

from .reading import entries_of, read

Array = npt.NDArray[Any]


def write(place: Path, content: Array | bytes) -> Path:
    """Write a dataset as careful writers do: under another name, then renamed."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.tmp")
    if isinstance(content, bytes):
        temporary.write_bytes(content)
    else:
        longest = 30 if content.ndim > 1 else 7000
        chunks = {"chunks": tuple(min(n, longest) for n in content.shape)} if content.size else {}
        blosc2.asarray(content, urlpath=str(temporary), mode="w", **chunks)
    os.replace(temporary, place)
    return place


class TestContract(RootContract):
    def make_root(self, arrays: Mapping[str, Array | bytes], tmp_path: Path) -> Root:
        for path, content in arrays.items():
            write(tmp_path / "root" / path, content)
        return DirectoryRoot(tmp_path / "root", "owner")

    def put(self, root: Root, path: str, content: Array | bytes) -> Path:
        return write(root.watched / path, content)

    def remove(self, root: Root, path: str) -> Path:
        (root.watched / path).unlink()
        return root.watched / path


def known_of(root: Root) -> list[KnownEntry]:
    return [KnownEntry(entry, stamp) for entry, stamp in root.scan([])]


def changes(root: Root, known: Iterable[KnownEntry], *places: Path) -> dict[str, str]:
    """What a rescan tells, the catalog asked for the places only, as a publisher does."""
    paths = [place.relative_to(root.watched).as_posix() for place in places]
    near = [k for k in known if any(k.entry.path == p or k.entry.path.startswith(p + "/") for p in paths)]
    return {event.path: event.change for event, _ in root.rescan(places, near)}


# V6: half-written files


@pytest.mark.parametrize("fraction", [0, 0.1, 0.5, 0.99])
def test_a_half_written_frame_is_not_told_until_it_is_whole(tmp_path: Path, fraction: float) -> None:
    whole = write(tmp_path / "elsewhere.b2nd", np.arange(5000)).read_bytes()
    place = tmp_path / "root" / "x.b2nd"
    place.parent.mkdir()
    place.write_bytes(whole[: int(len(whole) * fraction)])
    root = DirectoryRoot(place.parent, "owner")
    assert known_of(root) == []
    assert changes(root, [], place) == {}
    assert root.unsettled() == [place]
    place.write_bytes(whole)
    assert changes(root, [], place) == {"x.b2nd": "put"}
    assert root.unsettled() == []
    assert read(root, entries_of(root)["x.b2nd"]).tolist() == list(range(5000))


def test_a_frame_whose_end_comes_first_is_not_told(tmp_path: Path) -> None:
    """As parallel downloads write: the length is right from the start, the middle is missing."""
    whole = write(tmp_path / "elsewhere.b2nd", np.random.default_rng(0).random(20_000)).read_bytes()
    place = tmp_path / "root" / "x.b2nd"
    place.parent.mkdir()
    place.write_bytes(bytes(len(whole) - 100) + whole[-100:])
    root = DirectoryRoot(place.parent, "owner")
    assert known_of(root) == []


def test_a_frame_that_never_completes_is_told_as_damaged(tmp_path: Path) -> None:
    place = tmp_path / "x.b2nd"
    place.write_bytes(b"not a frame")
    root = DirectoryRoot(tmp_path, "owner", patience_s=0.0)
    (known,) = known_of(root)
    assert known.entry.kind == "unsupported"
    assert "damaged, or never completed" in known.entry.reason
    assert b"".join(root.read_file(known.entry, 0, None).parts) == b"not a frame"
    assert list(root.scan([known])) == [(known.entry, known.stamp)]


def test_what_is_known_stays_while_it_is_written_over(tmp_path: Path) -> None:
    place = write(tmp_path / "x.b2nd", np.arange(5000))
    root = DirectoryRoot(tmp_path, "owner")
    known = known_of(root)
    whole = write(tmp_path / "other.b2nd", np.arange(5000) + 1).read_bytes()
    place.write_bytes(whole[:100])
    assert changes(root, known, place) == {}
    assert root.unsettled() == [place]
    with pytest.raises(DatasetChangedError):
        read(root, known[0].entry)
    place.write_bytes(whole)
    assert changes(root, known, place) == {"x.b2nd": "put"}


def test_a_sparse_frame_is_not_told_until_all_its_chunks_are_there(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    blosc2.asarray(np.random.default_rng(0).random(1000), urlpath=str(whole), chunks=(100,), contiguous=False)
    place = tmp_path / "root" / "x.b2nd"
    place.mkdir(parents=True)
    root = DirectoryRoot(place.parent, "owner")
    for file in sorted(whole.iterdir(), reverse=True):  # the index first
        assert "put" not in changes(root, [], place).values()
        shutil.copyfile(file, place / file.name)
    assert changes(root, [], place) == {"x.b2nd": "put"}


def test_versions_of_a_frame_that_is_appended_to_are_never_mixed(tmp_path: Path) -> None:
    """V1, V2: each read is of one version, or says that it changed."""
    place = tmp_path / "x.b2nd"
    shape = (200, 64)
    write(place, np.zeros(shape, "<i4"))
    root = DirectoryRoot(tmp_path, "owner")
    done = threading.Event()

    def writer() -> None:
        for i in range(1, 60):
            if i % 2:
                write(place, np.full(shape, i, "<i4"))
            else:
                blosc2.asarray(np.full(shape, i, "<i4"), urlpath=str(place), mode="w", chunks=(20, 64))
        done.set()

    thread = threading.Thread(target=writer)
    thread.start()
    reads = 0
    while not done.is_set() or not reads:
        for entry in entries_of(root).values():
            if entry.kind != "array":
                continue
            try:
                got = read(root, entry)
            except DatasetChangedError:
                continue
            assert len(np.unique(got)) == 1
            reads += 1
    thread.join()


# I3, I4: what is listed, and as what


def test_kinds_of_files(tmp_path: Path) -> None:
    blosc2.SChunk(chunksize=100, data=b"Hello world!" * 100, urlpath=str(tmp_path / "hello.b2frame"))
    write(tmp_path / "array.b2nd", np.arange(5))
    write(tmp_path / "array.b2frame", np.arange(5))
    write(tmp_path / "readme.md", b"# Read me")
    write(tmp_path / "a.tar.gz", b"\x1f\x8b")
    write(tmp_path / "store.b2z", b"PK")
    write(tmp_path / "no-suffix", b"x")
    write(tmp_path / "dir" / "deep" / "x", b"x")
    write(tmp_path / "empty", b"")
    entries = entries_of(DirectoryRoot(tmp_path, "owner"))
    assert {path: entry.kind for path, entry in entries.items()} == {
        "hello.b2frame": "file",
        "array.b2nd": "array",
        "array.b2frame": "array",
        "readme.md": "file",
        "a.tar.gz": "file",
        "store.b2z": "unsupported",
        "no-suffix": "file",
        "dir": "group",
        "dir/deep": "group",
        "dir/deep/x": "file",
        "empty": "file",
    }
    assert entries["readme.md"].media_type == "text/markdown"
    assert entries["array.b2nd"].storage["format"] == "b2nd"
    assert (entries["hello.b2frame"].nbytes, entries["hello.b2frame"].geometry.chunks) == (1200, (100,))


def test_what_holds_no_array_is_listed_with_the_reason_and_can_be_downloaded(tmp_path: Path) -> None:
    a = blosc2.asarray(np.arange(10.0), urlpath=str(tmp_path / "a.b2nd"))
    (a + 1).save(urlpath=str(tmp_path / "expression.b2nd"))
    objects = blosc2.ObjectArray(urlpath=str(tmp_path / "objects.b2frame"), mode="w")
    objects.append({"a": 1})
    root = DirectoryRoot(tmp_path, "owner")
    entries = entries_of(root)
    assert "not evaluated" in entries["expression.b2nd"].reason
    assert "objects" in entries["objects.b2frame"].reason
    for path in ("expression.b2nd", "objects.b2frame"):
        assert entries[path].kind == "unsupported"
        assert b"".join(root.read_file(entries[path], 0, None).parts) == (tmp_path / path).read_bytes()
        projection = next(iter(BlockPlan(entries["a.b2nd"].geometry, Selection.whole((10,)))))
        with pytest.raises(UnsupportedDatasetError):
            root.read_chunk(entries[path], projection, [0])


@pytest.mark.parametrize(
    "name",
    [".x.tmp", "x~", ".#x", "x.part", ".x.swp", ".x.b2nd.a1B2c3", ".caterva2-state", "x.b2nd.b2lock", ".nfs0000a1"],
)
def test_temporary_files_are_not_told(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    place.write_bytes(b"x")
    root = DirectoryRoot(tmp_path, "owner")
    assert known_of(root) == []
    assert changes(root, [], place) == {}


@pytest.mark.parametrize("name", [".hidden", ".config", "x.tmpl", "part", "~x", ".profile.backup"])
def test_other_hidden_files_are_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert set(entries_of(DirectoryRoot(tmp_path, "owner"))) == {name}


def test_what_is_no_regular_file_is_listed_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.b2nd")
    entries = entries_of(DirectoryRoot(tmp_path, "owner"))
    assert {entry.kind for entry in entries.values()} == {"unsupported"}
    assert "pipe, socket or device" in entries["pipe.b2nd"].reason


# I6: names


NAMES = [
    "caf\u00e9", "cafe\u0301", "\U0001f40d", "\u05d0\u05d1", " two  words ", "%2f", "a?b#c", "new\nline", "tab\t",
    "CON", "con", ".dot", "__proto__", "x" * 255, "<script>", "a\\b", "'quote\"", "-", "@", "a:b", "\x7f", "..."
]  # fmt: skip


def test_strange_names_are_listed_and_read(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(b"%d" % i)
    root = DirectoryRoot(tmp_path, "owner")
    entries = entries_of(root)
    assert set(entries) == set(NAMES)
    assert len({entry.id for entry in entries.values()}) == len(NAMES)
    for i, name in enumerate(NAMES):
        assert read(root, entries[name]).tobytes() == b"%d" % i
        assert Entry.from_json(entries[name].to_json()) == entries[name]


@pytest.mark.parametrize("raw", [b"\xff\xfe.b2nd", b"caf\xe9", b"a\\..\\b"])
def test_names_that_cannot_travel_are_listed_with_the_reason(tmp_path: Path, raw: bytes) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw))
    place.write_bytes(b"x")
    root = DirectoryRoot(tmp_path, "owner")
    ((entry, _),) = root.scan([])
    assert entry.kind == "unsupported"
    assert "is not text that can travel" in entry.reason
    assert Entry.from_json(entry.to_json()) == entry
    assert [event.path for event, _ in root.rescan([place], [])] == [entry.path]
    place.unlink()
    assert [event.change for event, _ in root.rescan([place], [KnownEntry(entry, "")])] == ["delete"]


def test_a_catalog_follows_a_name_that_is_no_text(tmp_path: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.b2nd"))

    async def scenario() -> None:
        store = CatalogStore(None, "foo")
        with ThreadPoolExecutor(2) as executor:
            source = ThreadedSource("foo", DirectoryRoot(tmp_path, "owner"), store, EventHub(), executor)
            await source.scan()
            place.write_bytes(b"x")
            assert await source.rescan([place]) == 1
            assert (await source.entry("\\xff.b2nd")).kind == "unsupported"
            place.unlink()
            assert await source.rescan([place]) == 1
            source.close()
        store.close()

    asyncio.run(scenario())


def test_deep_trees(tmp_path: Path) -> None:
    base = tmp_path / "root"
    base.mkdir()
    fd = os.open(base, os.O_RDONLY)
    for _ in range(1500):  # longer than one path of the system may be
        os.mkdir("dd", dir_fd=fd)
        fd, above = os.open("dd", os.O_RDONLY, dir_fd=fd), fd
        os.close(above)
    os.close(fd)
    entries = entries_of(DirectoryRoot(base, "owner"))
    assert len(entries) == 4097 // 3
    subprocess.run(["rm", "-rf", str(base)], check=True)  # shutil would recurse too deep


# A2: links


def test_a_link_inside_the_root_shares_its_targets_id(tmp_path: Path) -> None:
    write(tmp_path / "data" / "x.b2nd", np.arange(5))
    os.symlink("data/x.b2nd", tmp_path / "alias.b2nd")
    os.symlink("data", tmp_path / "latest")
    root = DirectoryRoot(tmp_path, "owner")
    entries = entries_of(root)
    assert len({entries[p].id for p in ("alias.b2nd", "data/x.b2nd", "latest/x.b2nd")}) == 1
    for path in ("alias.b2nd", "latest/x.b2nd"):
        assert read(root, entries[path]).tolist() == [0, 1, 2, 3, 4]
    assert entries["latest"].kind == "group"


def test_a_change_behind_a_link_is_told_for_both(tmp_path: Path) -> None:
    place = write(tmp_path / "data" / "x.b2nd", np.arange(5))
    os.symlink("data/x.b2nd", tmp_path / "alias.b2nd")
    os.symlink("data", tmp_path / "latest")
    root = DirectoryRoot(tmp_path, "owner")
    known = known_of(root)
    write(place, np.arange(6))
    assert changes(root, known, place) == dict.fromkeys(["data/x.b2nd", "alias.b2nd", "latest/x.b2nd"], "put")
    new = write(tmp_path / "data" / "new", b"x")
    assert changes(root, known, new) == {"data/new": "put", "latest/new": "put"}
    shutil.rmtree(tmp_path / "data")
    told = changes(root, known, tmp_path / "data")
    assert {path for path, change in told.items() if change == "delete"} >= {"data", "data/x.b2nd", "latest/x.b2nd"}


def test_links_out_of_the_root_are_listed_and_not_followed(tmp_path: Path) -> None:
    base = tmp_path / "root"
    base.mkdir()
    (tmp_path / "root-secret").mkdir()
    (tmp_path / "root-secret" / "file").write_bytes(b"outside")
    for i, target in enumerate(["../root-secret", "../root-secret/file", "/etc/passwd", "/proc/self/mem", "/"]):
        os.symlink(target, base / f"out{i}")
    os.symlink(".", base / "here")
    os.symlink("nowhere", base / "dangling")
    os.symlink("loop", base / "loop")
    root = DirectoryRoot(base, "owner")
    entries = entries_of(root)
    assert {entry.kind for entry in entries.values()} == {"link"}
    assert all(entries[f"out{i}"].target == "" and "outside" in entries[f"out{i}"].reason for i in range(5))
    assert (entries["here"].target, entries["dangling"].target) == (".", "nowhere")
    assert "back" in entries["loop"].reason


def test_links_in_linked_directories_do_not_multiply(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"d{i}").mkdir()
        for name in ("a", "b", "c"):
            os.symlink(f"../d{i + 1}", tmp_path / f"d{i}" / name)
    (tmp_path / "d12").mkdir()
    (tmp_path / "d12" / "file").write_bytes(b"x")
    assert len(entries_of(DirectoryRoot(tmp_path, "owner"))) < 1000


def test_a_file_that_becomes_a_link_out_is_not_read(tmp_path: Path) -> None:
    base = tmp_path / "root"
    (tmp_path / "secret").write_bytes(b"outside")
    place = write(base / "file", b"inside!")
    root = DirectoryRoot(base, "owner")
    entry = entries_of(root)["file"]
    place.unlink()
    os.symlink("../secret", place)
    with pytest.raises(DatasetChangedError):
        read(root, entry)
    with pytest.raises(DatasetChangedError):
        root.read_file(entry, 0, None)
    assert changes(root, [KnownEntry(entry, "")], place) == {"file": "put"}  # as a link


# Restarts, and what is found out in between


def test_a_restart_opens_nothing_that_did_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(30):
        write(tmp_path / f"dir{i % 3}" / f"{i}.b2nd", np.arange(i + 1))
        write(tmp_path / f"dir{i % 3}" / f"{i}.txt", b"x" * i)
    blosc2.asarray(np.arange(10), urlpath=str(tmp_path / "sparse.b2nd"), contiguous=False)
    known = known_of(DirectoryRoot(tmp_path, "owner"))
    write(tmp_path / "dir0" / "0.b2nd", np.arange(100))
    opened: list[str] = []
    monkeypatch.setattr(FrameFile, "read_index", _noting(FrameFile.read_index, opened))
    again = DirectoryRoot(tmp_path, "owner")
    items = {entry.path: entry for entry, _ in again.scan(known)}
    assert opened == ["dir0/0.b2nd"]
    assert set(items) == {k.entry.path for k in known}
    assert items["dir0/0.b2nd"].geometry.shape == (100,)


def _noting(method: Callable[..., Any], paths: list[str]) -> Callable[..., Any]:
    def noted(frame: FrameFile, *arguments: Any) -> Any:
        paths.append(frame.path)
        return method(frame, *arguments)

    return noted


def test_another_owner_has_other_ids(tmp_path: Path) -> None:
    write(tmp_path / "x.b2nd", np.arange(5))
    known = known_of(DirectoryRoot(tmp_path, "owner"))
    ((entry, _),) = DirectoryRoot(tmp_path, "another").scan(known)
    assert entry.id != known[0].entry.id


def test_files_that_vanish_while_a_directory_is_listed_take_nothing_with_them(tmp_path: Path) -> None:
    for i in range(50):
        write(tmp_path / "dir" / f"stays{i}", b"x")
    root = DirectoryRoot(tmp_path, "owner")
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            for i in range(20):
                os.symlink("nowhere", tmp_path / "dir" / f"m{i}")
            for i in range(20):
                os.replace(write(tmp_path / "other", b"y"), tmp_path / "dir" / f"m{i}")
                (tmp_path / "dir" / f"m{i}").unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            assert {f"dir/stays{i}" for i in range(50)} <= set(entries_of(root))
    finally:
        done.set()
        thread.join()


def test_a_root_that_is_not_mounted_is_not_empty(tmp_path: Path) -> None:
    base = tmp_path / "root"
    write(base / "x.b2nd", np.arange(5))
    root = DirectoryRoot(base, "owner")
    known = known_of(root)
    os.rename(base, tmp_path / "away")
    with pytest.raises(SourceUnavailableError, match="cannot be read"):
        list(root.scan(known))
    with pytest.raises(SourceUnavailableError, match="cannot be read"):
        list(root.rescan([base], known))


def test_directories_that_come_and_go(tmp_path: Path) -> None:
    root = DirectoryRoot(tmp_path, "owner")
    assert known_of(root) == []
    place = write(tmp_path / "a" / "b" / "x", b"x")
    assert changes(root, [], place) == {"a": "put", "a/b": "put", "a/b/x": "put"}
    known = known_of(root)
    os.rename(tmp_path / "a", tmp_path / "c")
    assert changes(root, known, tmp_path / "a", tmp_path / "c") == {
        **dict.fromkeys(["a", "a/b", "a/b/x"], "delete"),
        **dict.fromkeys(["c", "c/b", "c/b/x"], "put"),
    }
    known = known_of(root)
    shutil.rmtree(tmp_path / "c")
    (tmp_path / "c").write_bytes(b"now a file")
    assert changes(root, known, tmp_path / "c") == {"c/b": "delete", "c/b/x": "delete", "c": "put"}


def test_an_attribute_that_is_edited_is_told(tmp_path: Path) -> None:
    place = write(tmp_path / "x.b2nd", np.arange(5))
    root = DirectoryRoot(tmp_path, "owner")
    known = known_of(root)
    array = blosc2.open(str(place), mode="a")
    array.vlmeta["units"] = "K"
    del array
    assert changes(root, known, place) == {"x.b2nd": "put"}
    entry = entries_of(root)["x.b2nd"]
    assert (entry.attrs, entry.attrs_tag != known[0].entry.attrs_tag) == ({"units": "K"}, True)


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    want = np.random.default_rng(0).integers(0, 100, (300, 200))
    write(tmp_path / "x.b2nd", want)
    write(tmp_path / "file", bytes(range(256)) * 3000)
    root = DirectoryRoot(tmp_path, "owner")
    entries = entries_of(root)

    def look(i: int) -> bool:
        key = (slice(i % 7, 300 - i % 5), slice(None, None, 1 + i % 3))
        return np.array_equal(read(root, entries["x.b2nd"], key), want[key]) and bool(
            read(root, entries["file"], slice(i * 997, i * 997 + 10)).tobytes()
            == (bytes(range(256)) * 3000)[i * 997 : i * 997 + 10]
        )

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(look, range(200)))


# HDF5 files


class FakeTree:
    """Stands for an HDF5 file: two datasets, one of them with values of another file."""

    def __init__(self, place: Path, owner: str, log: list[str]) -> None:
        self._place, self._owner, self._log = place, owner, log

    def stamp_with(self, sources: Iterable[str]) -> str:
        states = [self._place, *(self._place.parent / s for s in sources)]
        return "+".join(Generation.from_stat(p.stat()).stamp for p in states)

    def stamped_entries(self) -> list[tuple[Entry, str]]:
        self._log.append(self._place.name)
        if self._place.read_bytes().endswith(b"broken"):
            raise IntegrityError("truncated file")
        sources = ["source.dat"] if self._place.read_bytes().endswith(b"virtual") else []
        stamp = self.stamp_with(sources)
        storage: dict[str, Any] = {"sources": sources} if sources else {}
        own = Entry("", "group", attrs={"title": "x"}, attrs_tag="t", storage=storage)
        geometry = Geometry((3,), (3,), (3,), np.dtype("<i4"))
        version = version_tag(stamp, geometry)
        entries = [own, Entry("g", "group")]
        entries += [
            Entry(path, "array", dataset_id(self._owner, path), version, geometry) for path in ("a.b2nd", "g/b.b2nd")
        ]
        return [(entry, stamp) for entry in entries]

    def read_chunk(self, entry: Entry, projection: ChunkProjection, blocks: Sequence[int]) -> list[BlockRecord]:
        if version_tag(self.stamp_with([]), entry.geometry) != entry.version:
            raise DatasetChangedError("changed")
        raw = np.arange(3, dtype="<i4") + len(entry.path)
        return [encode_chunk(checksum_seed(entry.id, entry.version), projection.nchunk, raw.tobytes(), entry.geometry)]

    def attributes(self, entry: Entry) -> Entry:
        return replace(entry, attrs={"inside": entry.path}, attrs_inline=True)


SIGNATURE = b"\x89HDF\r\n\x1a\n"


def hdf5_root(tmp_path: Path, log: list[str] | None = None, **how: Any) -> DirectoryRoot:
    noted: list[str] = [] if log is None else log
    return DirectoryRoot(tmp_path, "owner", lambda place, owner: FakeTree(place, owner, noted), **how)


def test_an_hdf5_file_is_a_group_and_a_file(tmp_path: Path) -> None:
    write(tmp_path / "dir" / "f.h5", SIGNATURE + b"...")
    write(tmp_path / "userblock.nc", bytes(512) + SIGNATURE)
    write(tmp_path / "text.h5", b"just text")
    root = hdf5_root(tmp_path)
    entries = entries_of(root)
    file = entries["dir/f.h5"]
    assert (file.kind, file.media_type, file.attrs) == ("group", "application/x-hdf5", {"title": "x"})
    assert b"".join(root.read_file(file, 0, None).parts) == SIGNATURE + b"..."
    assert entries["userblock.nc"].kind == "group"
    assert entries["text.h5"].kind == "file"
    inside = entries["dir/f.h5/g/b.b2nd"]
    assert read(root, inside).tolist() == [8, 9, 10]
    assert root.attributes(replace(inside, attrs_inline=False)).attrs == {"inside": "g/b.b2nd"}
    with pytest.raises(UnsupportedDatasetError, match="download that file"):
        root.read_file(inside, 0, None)
    assert len({e.id for e in entries.values() if e.id}) == sum(1 for e in entries.values() if e.id)


def test_without_hdf5_such_files_are_plain(tmp_path: Path) -> None:
    write(tmp_path / "f.h5", SIGNATURE)
    assert entries_of(DirectoryRoot(tmp_path, "owner"))["f.h5"].kind == "file"


def test_hdf5_files_that_did_not_change_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path / "f.h5", SIGNATURE)
    known = known_of(hdf5_root(tmp_path))
    log: list[str] = []
    root = hdf5_root(tmp_path, log)
    assert sorted(e.path for e, _ in root.scan(known)) == ["f.h5", "f.h5/a.b2nd", "f.h5/g", "f.h5/g/b.b2nd"]
    assert log == []
    write(tmp_path / "f.h5", SIGNATURE + b"new")
    assert set(changes(root, known, tmp_path / "f.h5")) == {"f.h5", "f.h5/a.b2nd", "f.h5/g/b.b2nd"} | {"f.h5/g"}
    with pytest.raises(DatasetChangedError, match=r"f\.h5/a\.b2nd"):
        read(root, next(k.entry for k in known if k.entry.path == "f.h5/a.b2nd"))
    (tmp_path / "f.h5").unlink()
    assert set(changes(root, known, tmp_path / "f.h5").values()) == {"delete"}


def test_a_change_of_a_source_is_a_change_of_the_hdf5_file(tmp_path: Path) -> None:
    write(tmp_path / "source.dat", b"1")
    write(tmp_path / "f.h5", SIGNATURE + b"virtual")
    root = hdf5_root(tmp_path)
    known = known_of(root)
    write(tmp_path / "source.dat", b"2")
    assert {"f.h5/a.b2nd", "source.dat"} <= set(changes(root, known, tmp_path / "source.dat"))
    versions = {e.path: e.version for e, _ in hdf5_root(tmp_path).scan(known)}
    assert versions["f.h5/a.b2nd"] != next(k.entry.version for k in known if k.entry.path == "f.h5/a.b2nd")


def test_an_hdf5_file_that_cannot_be_opened_is_waited_for_then_a_plain_file(tmp_path: Path) -> None:
    place = write(tmp_path / "f.h5", SIGNATURE + b"broken")
    root = hdf5_root(tmp_path)
    assert known_of(root) == []
    assert root.unsettled() == [place]
    entry = entries_of(hdf5_root(tmp_path, patience_s=0.0))["f.h5"]
    assert entry.kind == "file"
    assert "truncated file" in entry.storage["note"]
