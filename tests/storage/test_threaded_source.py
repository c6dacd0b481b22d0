import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace

import blosc2
import numpy as np
import pytest

from caterva2_jupyter.core.blocks import checksum_seed, whole_record
from caterva2_jupyter.core.catalog import CatalogQuery
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import DatasetChangedError, IntegrityError, ResyncError, SourceUnavailableError
from caterva2_jupyter.storage import threaded_source
from caterva2_jupyter.storage.catalog_store import CatalogStore
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.event_hub import EventHub
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.storage.threaded_source import ThreadedSource
from caterva2_jupyter.testing import SourceContract, open_origin, read_array


class TestThreadedSource(SourceContract):
    @asynccontextmanager
    async def wrap(self, origin, tmp_path):
        yield origin.source


class CountingRoot(MemoryRoot):
    """Counts reads; gives complete chunks when told so; stops at a gate."""

    def __init__(self, *args):
        super().__init__(*args)
        self.calls = []
        self.gives_whole_chunks = False
        self.gives_all_blocks = False
        self.gate = threading.Event()
        self.gate.set()

    def read_chunk(self, entry, projection, blocks):
        self.calls.append((projection.nchunk, list(blocks)))
        assert self.gate.wait(20)
        if self.gives_whole_chunks or self.gives_all_blocks:
            every = list(range(entry.geometry.chunk_nblocks(projection.nchunk)))
            (record,) = super().read_chunk(entry, projection, every)
            if self.gives_all_blocks:
                return [record]
            seed = checksum_seed(entry.id, entry.version)
            chunk = whole_chunk(self._datasets[entry.path].array, entry.geometry)
            return [whole_record(seed, projection.nchunk, chunk)]
        return super().read_chunk(entry, projection, blocks)


def whole_chunk(array, geometry):
    """The one chunk of a 1-d array, with a filter whose blocks depend on the first."""
    filters = [blosc2.Filter.NOFILTER] * 5 + [blosc2.Filter.DELTA]
    blocksize = geometry.block_nbytes
    return blosc2.compress2(array.tobytes(), typesize=8, filters=filters, blocksize=blocksize, nthreads=1)


@asynccontextmanager
async def counted(array, **how):
    root = CountingRoot()
    root.set("a.b2nd", array, **how)
    with ThreadPoolExecutor(4) as executor:
        source = ThreadedSource("foo", root, CatalogStore(), EventHub(), executor)
        await source.scan()
        yield source, root


NOISE = np.random.default_rng(0).integers(0, 2**62, 400_000)
ONE_CHUNK = {"chunks": (400_000,), "blocks": (10_000,), "layout": "flat", "padded": False}


def test_a_large_chunk_is_read_in_pieces_of_bounded_size():
    async def scenario():
        async with counted(NOISE, **ONE_CHUNK) as (source, root):
            assert np.array_equal(await read_array(source, "a"), NOISE)
            assert len(root.calls) == 3
            assert len(root.calls[0][1]) * 80_000 <= threaded_source.PIECE_NBYTES
            assert all(len(blocks) * 80_000 <= threaded_source.LATER_PIECE_NBYTES for _, blocks in root.calls)

    asyncio.run(scenario())


@pytest.mark.parametrize("way", ["gives_whole_chunks", "gives_all_blocks"])
def test_a_chunk_that_cannot_be_cut_is_read_and_sent_once(way):
    async def scenario():
        async with counted(NOISE, **ONE_CHUNK) as (source, root):
            setattr(root, way, True)
            stream = await source.read_blocks(ReadRequest("foo", "a"))
            records = [record async for record in stream.records]
            assert len(root.calls) == len(records) == 1
            assert np.array_equal(await read_array(source, "a"), NOISE)

    asyncio.run(scenario())


def test_blocks_that_nobody_asked_for_are_not_sent():
    async def scenario():
        async with counted(NOISE, **ONE_CHUNK) as (source, root):
            root.gives_all_blocks = True
            stream = await source.read_blocks(ReadRequest("foo", "a", selection=[[15_000, 25_000, 1]]))
            assert [record.ids.tolist() async for record in stream.records] == [[1, 2]]

    asyncio.run(scenario())


def test_small_chunks_are_read_many_at_a_time():
    async def scenario():
        async with counted(NOISE[:10_000], chunks=(10,), blocks=(10,)) as (source, root):
            await read_array(source, "a")
            assert len(root.calls) == 1000
            entry = await source.entry("a")
            pieces = source._plan(ReadRequest("foo", "a", entry.version)).pieces
            assert len(list(pieces)) == 4

    asyncio.run(scenario())


def test_reading_ahead_stops_where_nobody_consumes():
    async def scenario():
        async with counted(np.tile(NOISE, 5), chunks=(2_000,), blocks=(2_000,)) as (source, root):
            stream = await source.read_blocks(ReadRequest("foo", "a"))
            await asyncio.wait_for(_until(lambda: len(root.calls) >= 65), 20)
            await asyncio.sleep(0.05)  # nothing to poll for: it must not go on
            most = (threaded_source.PIECES_AHEAD + 1) * threaded_source.LATER_PIECE_NBYTES // 16_000
            assert len(root.calls) <= most
            await stream.records.aclose()

    asyncio.run(scenario())


def test_a_read_that_is_given_up_stops_the_work_behind_it():
    async def scenario():
        async with counted(np.tile(NOISE, 5), chunks=(2_000,), blocks=(2_000,)) as (source, root):
            stream = await source.read_blocks(ReadRequest("foo", "a"))
            root.gate.clear()
            await anext(stream.records)
            await stream.records.aclose()
            root.gate.set()
            with pytest.raises(StopAsyncIteration):
                await anext(stream.records)
        assert len(root.calls) < 500  # of 1000

    asyncio.run(scenario())


def test_a_cancelled_reader_leaves_the_source_usable():
    async def scenario():
        async with counted(NOISE, **ONE_CHUNK) as (source, root):
            root.gate.clear()
            task = asyncio.create_task(read_array(source, "a"))
            await asyncio.wait_for(_until(lambda: root.calls), 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            root.gate.set()
            assert np.array_equal(await read_array(source, "a"), NOISE)

    asyncio.run(scenario())


def test_an_error_of_the_root_reaches_the_reader_in_the_midst():
    async def scenario():
        async with counted(NOISE, **ONE_CHUNK) as (source, root):
            read_chunk = root.read_chunk

            def damaged(entry, projection, blocks):
                if blocks[0] > 10:
                    raise IntegrityError("block 13 is damaged")
                return read_chunk(entry, projection, blocks)

            root.read_chunk = damaged
            stream = await source.read_blocks(ReadRequest("foo", "a"))
            with pytest.raises(IntegrityError, match="damaged"):
                [record async for record in stream.records]

    asyncio.run(scenario())


def test_a_change_that_the_catalog_has_not_seen_is_told_before_the_answer():
    async def scenario():
        async with open_origin({"a.b2nd": np.arange(10)}) as origin:
            origin.root.set("a.b2nd", np.arange(20))
            with pytest.raises(DatasetChangedError):
                await origin.source.read_blocks(ReadRequest("foo", "a"))

    asyncio.run(scenario())


def test_the_old_index_is_served_while_a_scan_goes_on():
    async def scenario():
        async with open_origin({f"a{i}.b2nd": np.arange(3) for i in range(5)}) as origin:
            gate = threading.Event()
            scan = origin.root.scan

            def slow(known):
                for item in scan(known):
                    assert gate.wait(20)
                    yield item

            origin.root.scan = slow
            origin.root.set("b.b2nd", np.arange(4))
            task = asyncio.create_task(origin.source.scan())
            assert len((await origin.source.catalog(CatalogQuery())).items) == 5
            gate.set()
            assert await task == 1
            assert len((await origin.source.catalog(CatalogQuery())).items) == 6

    asyncio.run(scenario())


def test_a_scan_that_is_stopped_deletes_nothing():
    async def scenario():
        async with open_origin({f"a{i}.b2nd": np.arange(3) for i in range(5)}) as origin:
            origin.source.close()
            with pytest.raises(SourceUnavailableError, match="closing"):
                await origin.source.scan()
            assert len(origin.store) == 5

    asyncio.run(scenario())


def test_a_rescan_waits_for_the_scan_before_it():
    async def scenario():
        async with open_origin({"a.b2nd": np.arange(3)}) as origin:
            gate, begun = threading.Event(), threading.Event()
            scan = origin.root.scan

            def slow(known):
                found = list(scan(known))
                begun.set()
                assert gate.wait(20)
                yield from found

            origin.root.scan = slow
            scanning = asyncio.create_task(origin.source.scan())
            await asyncio.to_thread(begun.wait, 20)
            putting = asyncio.create_task(origin.put("a.b2nd", np.arange(30)))
            gate.set()
            await asyncio.gather(scanning, putting)
            assert (await origin.source.entry("a")).geometry.shape == (30,)

    asyncio.run(scenario())


def test_a_slow_listener_is_told_to_list_again_and_blocks_nobody():
    async def scenario():
        async with open_origin({}) as origin:
            origin.hub.max_batches = 3
            events = origin.source.events(None)
            await anext(events)
            pending = asyncio.ensure_future(anext(events))  # it listens, and is then left behind
            await asyncio.sleep(0)
            await origin.put("a.b2nd", np.arange(3))
            assert (await pending).events[0].path == "a.b2nd"
            for i in range(5):
                await origin.put(f"b{i}.b2nd", np.arange(3))
            with pytest.raises(ResyncError):
                await anext(events)
            assert origin.hub.nlisteners == 0

    asyncio.run(scenario())


async def _until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def test_small_reads_are_answered_at_once_when_they_are_in_memory(tmp_path):
    values = np.arange(4000, dtype="i4").reshape(40, 100)

    def write():
        blosc2.asarray(values, chunks=(20, 100), blocks=(5, 50), urlpath=str(tmp_path / "part.tmp"), mode="w")
        (tmp_path / "part.tmp").rename(tmp_path / "a.b2nd")

    async def scenario():
        with ThreadPoolExecutor(4) as executor:
            root = DirectoryRoot(tmp_path, "owner")
            source = ThreadedSource("foo", root, CatalogStore(), EventHub(), executor)
            await source.scan()
            request = ReadRequest("foo", "a", None, [[3, 4, 1], [7, 8, 1]])
            assert source.read_at_once(request) is None  # nothing is open yet
            expected = [record async for record in (await source.read_blocks(request)).records]
            found = source.read_at_once(request)
            if found is None:
                pytest.skip("this file system does not tell what is in memory")
            entry, records = found
            assert [(r.nchunk, r.ids.tolist(), bytes(r.body), r.crcs.tolist()) for r in records] == [
                (r.nchunk, r.ids.tolist(), bytes(r.body), r.crcs.tolist()) for r in expected
            ]
            for other in (
                replace(request, version="0" * 24),
                replace(request, selection=[[0, 40, 1], [0, 100, 1]]),  # another chunk was not read yet
                replace(request, selection=[[3, 4, 1], [0, 10**9, 1]]),
                replace(request, selection=[{"at": [3]}, [7, 8, 1]]),
                replace(request, path="b"),
                replace(request, mode="slice"),
            ):
                assert source.read_at_once(other) is None
            pinned = replace(request, version=entry.version)
            assert source.read_at_once(pinned) is not None
            write()
            assert source.read_at_once(pinned) is None  # another file is there
            await source.rescan([tmp_path / "a.b2nd"])
            with pytest.raises(DatasetChangedError):
                await source.read_blocks(pinned)
            newer = await source.read_blocks(request)
            assert newer.entry.version != entry.version
            source.close()
            root.close()

    write()
    asyncio.run(scenario())


def test_the_next_change_waits_for_one_that_nobody_waits_for_any_more():
    """What a scan read before a change would undo what is listed of it."""

    class SlowRoot(MemoryRoot):
        def __init__(self):
            super().__init__()
            self.nlooking, self.most_looking = 0, 0
            self.looking, self.gate = threading.Event(), threading.Event()

        def rescan(self, paths, known):
            self.nlooking += 1
            self.most_looking = max(self.most_looking, self.nlooking)
            self.looking.set()
            assert self.gate.wait(60)
            yield from super().rescan(paths, known)
            self.nlooking -= 1

    async def main():
        root = SlowRoot()
        with ThreadPoolExecutor(4) as executor:
            source = ThreadedSource("foo", root, CatalogStore(), EventHub(), executor)
            root.set("a.b2nd", np.arange(3))
            first = asyncio.create_task(source.rescan([root.watched]))
            await asyncio.to_thread(root.looking.wait)
            first.cancel()
            root.set("b.b2nd", np.arange(3))
            second = asyncio.create_task(source.rescan([root.watched]))
            await asyncio.sleep(0.05)  # time enough to begin
            root.gate.set()
            await asyncio.gather(first, second, return_exceptions=True)
            assert first.cancelled()
            assert root.most_looking == 1
            page = await source.catalog(CatalogQuery())
            assert [entry.path for entry in page.entries()] == ["a.b2nd", "b.b2nd"]

    asyncio.run(main())
