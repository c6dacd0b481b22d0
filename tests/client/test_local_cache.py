"""Reads past the service: right, or not at all."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caterva2_jupyter.client import local_cache
from caterva2_jupyter.client.decoded_blocks import DecodedBlocks
from caterva2_jupyter.client.local_cache import LocalCache, NotHere
from caterva2_jupyter.client.reader import Reader
from caterva2_jupyter.core.assembly import Assembler
from caterva2_jupyter.core.blocks import BlockRecord, checksum_seed, whole_record
from caterva2_jupyter.core.cache_location import CacheLocation
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.codec import encode_blocks
from caterva2_jupyter.core.exact_slice import encode_pieces, piece_geometry, selection_digest, slice_seed
from caterva2_jupyter.core.kept_slices import pack_piece, slices_entry
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.core.selection import Selection, parse_basic
from caterva2_jupyter.errors import DatasetNotFoundError, SourceUnavailableError
from caterva2_jupyter.storage.block_cache import BlockCache, CachedVersion
from tests.core.cases import box_of, decoded_blocks, geometries_and_selections, make_array

PROOF = b"random"
GRID = Geometry((60, 100), (20, 30), (5, 10), np.dtype("<i4"))
ARRAY = np.arange(6000, dtype="<i4").reshape(60, 100)


class FakeService:
    """Tells of a cache, and answers nothing else."""

    def __init__(self, directory: Path, url: str = "http://127.0.0.1:1") -> None:
        self.url = url
        self.location = CacheLocation(str(directory), platform.node(), "proof", CacheLocation.proof_digest(PROOF))
        self.asked = 0
        self.error: Exception | None = None
        self.uses: list[dict[str, Any]] = []

    def cache_location(self) -> CacheLocation:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.location

    def report_uses(self, uses: list[dict[str, Any]]) -> None:
        if self.error is not None:
            raise self.error
        self.uses += uses


class Kept:
    """An array in a cache as the subscriber keeps it."""

    def __init__(self, directory: Path, geometry: Geometry, array: np.ndarray, version: str = "v") -> None:
        self.directory, self.geometry, self.array = directory, geometry, array
        self.entry = Entry("x.b2nd", "array", id="id", version=version, geometry=geometry)
        self.seed = checksum_seed("id", version)
        self.cache = BlockCache(directory, 1 << 40)
        self.version = self.cache.open(self.entry, "foo")
        (directory / "proof").write_bytes(PROOF)

    def record(self, nchunk: int, ids: list[int]) -> BlockRecord:
        blocks = decoded_blocks(self.array, self.geometry, self.geometry.chunk_coords(nchunk))
        return encode_blocks(self.seed, nchunk, ids, b"".join(blocks[i] for i in ids), self.geometry)

    def keep(self, selection: Selection | None = None) -> None:
        for p in BlockPlan(self.geometry, selection or Selection.whole(self.geometry.shape)):
            self.version.put(self.record(p.nchunk, p.blocks.tolist()))

    def file(self, name: str) -> Path:
        return self.directory / self.version.key / name


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path / "blocks", GRID, ARRAY)
    yield made
    made.cache.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def read(local: LocalCache, entry: Entry, selection: Selection, pool: ThreadPoolExecutor) -> np.ndarray:
    geometry = entry.geometry
    assert geometry is not None
    assembler = Assembler(geometry, selection)
    if selection.size:
        local.read("foo", entry, BlockPlan(geometry, selection), assembler, pool)
    return assembler.out


def selected(key: Any) -> Selection:
    return parse_basic(key, GRID.shape).selection


WHOLE = selected(...)


@given(geometries_and_selections(min_side=0), st.integers(0, 2**32), st.sampled_from([0, 10**9]), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_cached_reads_as_numpy_does(
    tmp_path_factory: pytest.TempPathFactory,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[Geometry, Selection],
    seed: int,
    kept_nbytes: int,
    is_parallel: bool,
) -> None:
    monkeypatch.setattr(local_cache, "KEPT_READ_NBYTES", kept_nbytes)
    monkeypatch.setattr(local_cache, "PARALLEL_NBYTES", 0 if is_parallel else 10**9)
    geometry, selection = case
    directory = tmp_path_factory.mktemp("cache")
    made = Kept(directory / "blocks", geometry, make_array(geometry, seed))
    try:
        made.keep(selection)
        local = LocalCache(FakeService(directory / "blocks"))
        want = box_of(made.array, selection)
        for _ in range(3):
            assert np.array_equal(read(local, made.entry, selection, pool), want)
    finally:
        made.cache.close()
        shutil.rmtree(directory)


def test_a_whole_chunk_that_cannot_be_cut_is_read(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    import blosc2

    geometry = Geometry((1000,), (1000,), (100,), np.dtype("<i4"))
    made = Kept(tmp_path / "blocks", geometry, np.arange(1000, dtype="<i4"))
    chunk = blosc2.compress2(made.array, typesize=4, blocksize=400, nthreads=1)
    made.version.put(whole_record(made.seed, 0, chunk))
    local = LocalCache(FakeService(made.directory))
    assert np.array_equal(read(local, made.entry, Selection.whole((1000,)), pool), made.array)


def test_nothing_is_here_until_it_was_cached_and_then_all_of_it(kept: Kept, pool: ThreadPoolExecutor) -> None:
    service = FakeService(kept.directory)
    local = LocalCache(service)
    for _ in range(2):
        with pytest.raises(NotHere):
            read(local, kept.entry, WHOLE, pool)
    kept.keep(selected(np.s_[:20]))
    assert np.array_equal(read(local, kept.entry, selected(np.s_[3:9, ::7]), pool), ARRAY[3:9, ::7])
    with pytest.raises(NotHere):
        read(local, kept.entry, WHOLE, pool)
    kept.keep()  # the journal grows under the reader
    assert np.array_equal(read(local, kept.entry, WHOLE, pool), ARRAY)
    assert service.asked == 1


def test_a_new_process_finds_what_an_earlier_one_read(kept: Kept, pool: ThreadPoolExecutor) -> None:
    kept.keep()
    for _ in range(2):
        assert np.array_equal(read(LocalCache(FakeService(kept.directory)), kept.entry, WHOLE, pool), ARRAY)


def test_small_reads_that_come_back_are_decoded_no_more(
    kept: Kept, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.keep()
    local = LocalCache(FakeService(kept.directory))
    first = read(local, kept.entry, selected(np.s_[:7]), pool)
    assert local.decoded.nbytes == 0  # a scan pushes out nothing
    read(local, kept.entry, selected(np.s_[:7]), pool)
    monkeypatch.setattr(local_cache._CachedFiles, "records", None)
    again = read(local, kept.entry, selected(np.s_[:7]), pool)
    assert np.array_equal(first, again)
    again[:] = -1  # results are the caller's own
    assert np.array_equal(read(local, kept.entry, selected(np.s_[:7]), pool), first)


def test_another_version_or_geometry_is_not_here(kept: Kept, pool: ThreadPoolExecutor) -> None:
    kept.keep()
    local = LocalCache(FakeService(kept.directory))
    for entry in (
        replace(kept.entry, version="w"),
        replace(kept.entry, id="other"),
        replace(kept.entry, geometry=Geometry((60, 100), (20, 30), (5, 15), np.dtype("<i4"))),
    ):
        with pytest.raises(NotHere):
            read(local, entry, WHOLE, pool)
    with pytest.raises(NotHere):
        local.read("bar", kept.entry, BlockPlan(GRID, WHOLE), Assembler(GRID, WHOLE), pool)
    assert np.array_equal(read(local, kept.entry, WHOLE, pool), ARRAY)


@given(
    st.sampled_from(["data", "journal", "meta.json"]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4),
    st.integers(0, 10**6),
    st.sampled_from(["flip", "cut", "zero", "append"]),
)
@settings(max_examples=150, deadline=None)
def test_damaged_files_never_give_a_wrong_value(
    damage_dir: Path, name: str, flips: list[tuple[int, int]], length: int, how: str
) -> None:
    directory = damage_dir / "damaged"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(damage_dir / "blocks", directory)
    directory.chmod(0o700)
    (file,) = directory.glob(f"*/*/{name}")
    raw = bytearray(file.read_bytes())
    if how == "flip":
        for position, mask in flips:
            raw[position % len(raw)] ^= mask
    elif how == "cut":
        del raw[length % len(raw) :]
    elif how == "zero":
        start = length % len(raw)
        raw[start : start + 5000] = bytes(len(raw[start : start + 5000]))
    else:
        raw += bytes(mask for _, mask in flips)
    entry = Entry("x.b2nd", "array", id="id", version="v", geometry=GRID)
    local = LocalCache(FakeService(directory))
    with ThreadPoolExecutor(1) as pool:
        if length % 2:  # damaged under an open reader
            assert np.array_equal(read(local, entry, selected(0), pool), ARRAY[:1])
            local.decoded.clear()
        with file.open("r+b") as opened:
            opened.truncate()
            opened.write(raw)
        try:
            out = read(local, entry, WHOLE, pool)
        except NotHere:
            return
    assert np.array_equal(out, ARRAY)


@pytest.fixture(scope="module")
def damage_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("damage")
    made = Kept(directory / "blocks", GRID, ARRAY)
    made.keep()
    made.cache.close()
    return directory


def test_files_that_were_replaced_are_opened_anew(kept: Kept, pool: ThreadPoolExecutor) -> None:
    kept.keep()
    local = LocalCache(FakeService(kept.directory))
    read(local, kept.entry, WHOLE, pool)
    for name in ("data", "journal"):
        shutil.copy(kept.file(name), kept.file("copy"))
        os.replace(kept.file("copy"), kept.file(name))
    local.decoded.clear()
    with pytest.raises(NotHere):
        read(local, kept.entry, WHOLE, pool)
    assert np.array_equal(read(local, kept.entry, WHOLE, pool), ARRAY)


def test_what_was_evicted_is_not_here(kept: Kept, pool: ThreadPoolExecutor) -> None:
    kept.keep()
    local = LocalCache(FakeService(kept.directory))
    read(local, kept.entry, WHOLE, pool)
    kept.cache.remove(kept.version)
    with pytest.raises(NotHere):
        read(local, kept.entry, WHOLE, pool)


@pytest.mark.parametrize(
    "url",
    ["http://example.org:8002", "https://10.0.0.1/jupyter", "http://127.0.0.1.example.org", "http://[2001:db8::1]"],
)
def test_a_service_elsewhere_is_not_asked(kept: Kept, pool: ThreadPoolExecutor, url: str) -> None:
    service = FakeService(kept.directory, url)
    with pytest.raises(NotHere):
        read(LocalCache(service), kept.entry, WHOLE, pool)
    assert service.asked == 0


@pytest.mark.parametrize(
    "url", ["http://localhost:8002", "http://[::1]:8002/base", "http+unix://%2Ftmp%2Fs", "http://127.9.9.9"]
)
def test_a_service_that_may_be_near_is_asked(kept: Kept, pool: ThreadPoolExecutor, url: str) -> None:
    kept.keep()
    assert np.array_equal(read(LocalCache(FakeService(kept.directory, url)), kept.entry, WHOLE, pool), ARRAY)


def _other_host(kept: Kept, service: FakeService) -> None:
    service.location = replace(service.location, host="elsewhere")


def _other_proof(kept: Kept, service: FakeService) -> None:
    service.location = replace(service.location, digest=CacheLocation.proof_digest(b"x"))


def _no_proof(kept: Kept, service: FakeService) -> None:
    service.location = replace(service.location, proof="nothing")


def _linked_proof(kept: Kept, service: FakeService) -> None:
    (kept.directory / "link").symlink_to("proof")
    service.location = replace(service.location, proof="link")


def _open_to_others(kept: Kept, service: FakeService) -> None:
    kept.directory.chmod(0o777)


def _linked_directory(kept: Kept, service: FakeService) -> None:
    link = kept.directory.with_name("link")
    link.symlink_to(kept.directory)
    service.location = replace(service.location, directory=str(link))


def _no_directory(kept: Kept, service: FakeService) -> None:
    service.location = replace(service.location, directory="/nonexistent")


def _says_nothing(kept: Kept, service: FakeService) -> None:
    service.error = DatasetNotFoundError("no such route")


def _linked_files(kept: Kept, service: FakeService) -> None:
    for name in ("meta.json", "data", "journal"):
        kept.file(name).rename(kept.file(f"{name}.0"))
        kept.file(name).symlink_to(f"{name}.0")


def _fifo(kept: Kept, service: FakeService) -> None:
    kept.file("journal").unlink()
    os.mkfifo(kept.file("journal"))


DOUBTS = [
    _other_host, _other_proof, _no_proof, _linked_proof, _open_to_others, _linked_directory, _no_directory,
    _says_nothing, _linked_files, _fifo,
]  # fmt: skip


@pytest.mark.parametrize("doubt", DOUBTS, ids=lambda f: f.__name__.strip("_"))
def test_any_doubt_means_that_the_service_is_asked(
    kept: Kept, pool: ThreadPoolExecutor, doubt: Callable[[Kept, FakeService], None]
) -> None:
    kept.keep()
    service = FakeService(kept.directory)
    doubt(kept, service)
    now = [0.0]
    local = LocalCache(service, clock=lambda: now[0])
    for _ in range(3):
        with pytest.raises(NotHere):
            read(local, kept.entry, WHOLE, pool)
    assert service.asked == 1  # not at each read
    now[0] = 100.0
    with pytest.raises(NotHere):
        read(local, kept.entry, WHOLE, pool)


def test_files_of_another_user_are_not_read(
    kept: Kept, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.keep()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(NotHere):
        read(LocalCache(FakeService(kept.directory)), kept.entry, WHOLE, pool)


@pytest.mark.parametrize(
    "form",
    [
        None, [], {}, {"directory": "/x"},
        {"directory": "x", "host": "h", "proof": "p", "digest": "d"},
        {"directory": "/x", "host": "h", "proof": "../p", "digest": "d"},
        {"directory": "/x\0", "host": "h", "proof": "p", "digest": "d"},
        {"directory": 1, "host": "h", "proof": "p", "digest": "d"},
    ],
)  # fmt: skip
def test_a_malformed_location_is_refused(form: Any) -> None:
    from caterva2_jupyter.errors import IntegrityError

    with pytest.raises(IntegrityError):
        CacheLocation.from_json(form)


def test_a_subscriber_that_moved_is_asked_again_after_a_while(
    kept: Kept, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    other = Kept(tmp_path / "blocks-2", GRID, ARRAY)
    other.keep()
    now = [0.0]
    service = FakeService(kept.directory)
    local = LocalCache(service, clock=lambda: now[0])
    with pytest.raises(NotHere):
        read(local, kept.entry, WHOLE, pool)
    service.location = replace(service.location, directory=str(other.directory))
    now[0] = 100.0
    with pytest.raises(NotHere):
        read(local, kept.entry, WHOLE, pool)
    assert np.array_equal(read(local, kept.entry, WHOLE, pool), ARRAY)
    assert service.asked == 2
    other.cache.close()


def test_uses_are_told_in_batches_and_at_the_end(kept: Kept, pool: ThreadPoolExecutor) -> None:
    kept.keep()
    service = FakeService(kept.directory)
    local = LocalCache(service, clock=lambda: 0.0)
    for _ in range(5):
        read(local, kept.entry, selected(np.s_[:5, :20]), pool)
    assert service.uses == []
    local.close()
    assert service.uses == [{"root": "foo", "id": "id", "version": "v", "chunks": [[0, [0, 1]]]}]


def test_a_report_that_fails_harms_nothing(kept: Kept, pool: ThreadPoolExecutor) -> None:
    kept.keep()
    service = FakeService(kept.directory)
    now = [0.0]
    local = LocalCache(service, clock=lambda: now[0])
    read(local, kept.entry, WHOLE, pool)
    service.error = SourceUnavailableError("away")
    now[0] = 100.0
    assert np.array_equal(read(local, kept.entry, WHOLE, pool), ARRAY)
    local.close()


def test_a_service_that_hangs_takes_no_more_than_one_thread(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep()
    monkeypatch.setattr(local_cache, "MAX_REPORTED", 5)
    monkeypatch.setattr(local_cache, "PARALLEL_NBYTES", 0)
    hangs, reports = threading.Event(), []

    class Hanging(FakeService):
        def report_uses(self, uses: list[dict[str, Any]]) -> None:
            reports.append(uses)
            assert hangs.wait(20)

    local = LocalCache(Hanging(kept.directory))
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            local.decoded.clear()
            assert np.array_equal(read(local, kept.entry, WHOLE, pool), ARRAY)
        assert len(local._uses) <= 5 + BlockPlan(GRID, WHOLE).nchunks
        hangs.set()
    assert len(reports) == 1


def test_many_threads_read_while_the_cache_grows(kept: Kept, pool: ThreadPoolExecutor) -> None:
    local = LocalCache(FakeService(kept.directory))
    wrong: list[object] = []
    found = [0]
    done = threading.Event()

    def reader(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not done.is_set():
            i, j = int(rng.integers(0, 60)), int(rng.integers(0, 100))
            key = np.s_[i : i + 9, j : j + 13]
            try:
                out = read(local, kept.entry, selected(key), pool)
            except NotHere:
                continue
            found[0] += 1
            if not np.array_equal(out, ARRAY[key]):
                wrong.append(key)

    threads = [threading.Thread(target=reader, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for p in BlockPlan(GRID, WHOLE):
        for block in p.blocks.tolist():
            kept.version.put(kept.record(p.nchunk, [block]))
    deadline = time.monotonic() + 20
    while not found[0] and time.monotonic() < deadline:
        time.sleep(0.001)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert found[0] > 0
    assert np.array_equal(read(local, kept.entry, WHOLE, pool), ARRAY)


def _read_in_child(local: LocalCache, entry: Entry, sink: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        sink.send(bool(np.array_equal(read(local, entry, WHOLE, pool), ARRAY)))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_too(kept: Kept, pool: ThreadPoolExecutor) -> None:
    kept.keep()
    local = LocalCache(FakeService(kept.directory))
    read(local, kept.entry, WHOLE, pool)
    context = multiprocessing.get_context("fork")
    source, sink = context.Pipe()
    with local._lock:  # held by another thread at the fork
        child = context.Process(target=_read_in_child, args=(local, kept.entry, sink))
        child.start()
    assert source.poll(20)
    assert source.recv() is True
    child.join(20)


def test_the_reader_falls_back_piece_by_piece(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    from caterva2_jupyter.client import reader as module

    monkeypatch.setattr(module, "plan_windows", lambda n, c: [(i, min(i + 3, n)) for i in range(0, n, 3)])
    kept.keep(selected(np.s_[:40]))
    asked: list[int] = []

    class Half(Reader):
        def _fetch_once(self, root, entry, plan, piece, receiver, stopped, whole):  # type: ignore[no-untyped-def]
            asked.append(piece.first)
            for p in plan.window(piece.first, piece.stop):
                receiver.take(kept.record(p.nchunk, p.blocks.tolist()))
            receiver.finish()

    reader = Half(FakeService(kept.directory))  # type: ignore[arg-type]
    reader.service.transport = type("T", (), {"timeouts": type("X", (), {"retries": 0})})  # type: ignore[attr-defined]
    assert np.array_equal(reader.read("foo", kept.entry, WHOLE, cache="fill"), ARRAY)
    nblocks = BlockPlan(GRID, WHOLE).nblocks
    assert 0 < len(asked) < -(-nblocks // 3)
    reader.close()


class TestDecodedBlocks:
    def test_memory_is_bounded(self) -> None:
        blocks = DecodedBlocks(10_000, 1000)
        for number in range(200):
            blocks.put([number], blocks.room(300))
            assert blocks.nbytes <= 10_000
        assert blocks.get(0) is None
        assert blocks.get(199) is not None

    def test_what_is_used_stays(self) -> None:
        blocks = DecodedBlocks(10_000, 1000)
        for number in range(200):
            room = blocks.room(300)
            room[:] = number
            blocks.put([number], room)
            first = blocks.get(0)
            assert first is not None
            assert first.tolist() == [0] * 300

    def test_what_is_being_read_is_not_written_to_when_it_goes(self) -> None:
        blocks = DecodedBlocks(1000, 1000)
        room = blocks.room(500)
        room[:] = 7
        (held,) = blocks.put([0], room)
        for number in range(1, 50):
            blocks.room(500)[:] = number
        assert blocks.get(0) is None
        assert held.tolist() == [7] * 500

    def test_blocks_of_any_length_are_aligned(self) -> None:
        blocks = DecodedBlocks(10_000, 1000)
        starts = {blocks.room(nbytes).ctypes.data % 8 for nbytes in (1, 3, 64, 65, 100, 7)}
        assert starts == {0}

    def test_blocks_larger_than_all_of_it_are_given_back_but_not_kept(self) -> None:
        blocks = DecodedBlocks(100, 50)
        room = blocks.room(1000)
        (block,) = blocks.put([0], room)
        assert len(block) == 1000
        assert blocks.get(0) is None
        assert blocks.nbytes <= 100


def keep_slice(kept: Kept, selection: Selection, values: np.ndarray, other: Selection | None = None) -> CachedVersion:
    """Keep an exact slice as a subscriber does; ``other``: with the digest of another selection."""
    store = kept.cache.open(slices_entry("x.b2nd", "id", kept.entry.version), "foo")
    digest = selection_digest(selection)
    seed = slice_seed(kept.seed, digest)
    for piece in encode_pieces(seed, values, piece_geometry(GRID, selection)):
        packed = pack_piece(store.seed, selection_digest(other or selection), piece)
        store.put(packed)
    return store


def test_an_exact_slice_that_is_kept_reads_as_numpy_does(kept: Kept) -> None:
    key = (slice(0, 60), slice(7, 8))
    local = LocalCache(FakeService(kept.directory))
    with pytest.raises(NotHere):
        local.read_slice("foo", kept.entry, selected(key))
    keep_slice(kept, selected(key), ARRAY[key])
    assert np.array_equal(local.read_slice("foo", kept.entry, selected(key)), ARRAY[key])
    for other in ((slice(0, 60), slice(8, 9)), (slice(0, 59), slice(7, 8))):
        with pytest.raises(NotHere):
            local.read_slice("foo", kept.entry, selected(other))
    with pytest.raises(NotHere):
        local.read_slice("foo", replace(kept.entry, version="w"), selected(key))
    local.close()


def test_a_slice_that_is_damaged_or_of_another_selection_is_not_here(kept: Kept) -> None:
    key, other = selected((slice(0, 60), slice(7, 8))), selected((slice(0, 60), slice(9, 10)))
    store = keep_slice(kept, key, ARRAY[:, 7:8], other)  # of another place: its checksum tells
    local = LocalCache(FakeService(kept.directory))
    with pytest.raises(NotHere):
        local.read_slice("foo", kept.entry, other)
    keep_slice(kept, key, ARRAY[:, 7:8])
    assert np.array_equal(local.read_slice("foo", kept.entry, key), ARRAY[:, 7:8])
    data = kept.directory / store.key / "data"
    damaged = bytearray(data.read_bytes())
    damaged[-3] ^= 1
    data.write_bytes(damaged)
    with pytest.raises(NotHere):
        local.read_slice("foo", kept.entry, key)
    local.close()
