"""What was uploaded is decoded by worker processes: never in the subscriber's own, and a crash there harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import blosc2
import numpy as np
import pytest

from caterva2_jupyter.compute.records import BoxBuilder
from caterva2_jupyter.compute.reduction import Reduction
from caterva2_jupyter.core.assembly import Assembler
from caterva2_jupyter.core.blocks import BlockRecord
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.reduce_request import ReduceRequest
from caterva2_jupyter.core.selection import Selection
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import Caterva2Error, UnsupportedDatasetError
from caterva2_jupyter.storage import blosc2_file
from caterva2_jupyter.subscriber.areas import Areas, AreaSource
from caterva2_jupyter.subscriber.permissions import ANONYMOUS, PUBLIC
from caterva2_jupyter.web.compute_pool import ComputePool

ARRAY = np.arange(40 * 50 * 60, dtype=">i4").reshape(40, 50, 60)
POINT = [[0, 40, 1], [3, 4, 1], [5, 6, 1]]
TEXT = b"a plain file, " * 500_000


@asynccontextmanager
async def area(directory: Path) -> AsyncIterator[AreaSource]:
    """An area with an array and a plain file."""
    pool = ComputePool()
    with ThreadPoolExecutor(4) as executor:
        areas = Areas(directory / "state", None, executor, pool)
        areas.start(directory / "catalogs", "owner")
        try:
            source = areas.source(PUBLIC, ANONYMOUS)
            frame = directory / "x.b2nd"
            blosc2.asarray(ARRAY, chunks=(20, 25, 30), blocks=(5, 5, 10), urlpath=str(frame), mode="w")
            for path, data in (("x.b2nd", frame.read_bytes()), ("y.txt", TEXT)):
                upload = await source.begin(path)
                await source.write(upload.write, data)
                await source.commit(upload)
            yield source
        finally:
            await areas.stop()
            await pool.stop()


async def taken(records: AsyncIterator[object]) -> list[BlockRecord]:
    return [record async for record in records if isinstance(record, BlockRecord)]


async def answered(source: AreaSource, request: ReadRequest) -> list[BlockRecord]:
    return await taken((await source.read_blocks(request)).records)


@pytest.fixture
def nothing_is_decoded_here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    def add(*_: object) -> None:
        raise AssertionError("decoded in the subscriber's own process")

    monkeypatch.setattr(Assembler, "add", add)
    return monkeypatch


def test_an_exact_slice_is_decoded_elsewhere(tmp_path: Path, nothing_is_decoded_here: pytest.MonkeyPatch) -> None:
    async def read() -> None:
        async with area(tmp_path) as source:
            entry = await source.entry("x.b2nd")
            stream = await source.read_blocks(ReadRequest(PUBLIC, "x.b2nd", entry.version, POINT, mode="slice"))
            assert stream.digest
            records = await taken(stream.records)
            nothing_is_decoded_here.undo()
            assert entry.geometry is not None
            builder = BoxBuilder(entry.geometry, Selection.from_json(POINT, ARRAY.shape), stream.digest)
            for record in records:
                builder.add(record)
            values = builder.finish()
            assert values.dtype == ARRAY.dtype
            np.testing.assert_array_equal(values, ARRAY[:, 3:4, 5:6])

    asyncio.run(read())


@pytest.mark.parametrize(("op", "axis"), [("mean", None), ("sum", (0,)), ("max", (1, 2)), ("std", (0, 2))])
def test_a_reduction_is_computed_elsewhere(
    tmp_path: Path, nothing_is_decoded_here: pytest.MonkeyPatch, op: str, axis: tuple[int, ...] | None
) -> None:
    async def reduce() -> None:
        async with area(tmp_path) as source:
            entry = await source.entry("x.b2nd")
            form = {"path": f"{PUBLIC}/x.b2nd", "version": entry.version, "op": op, "axis": axis and list(axis)}
            request = ReduceRequest.from_json(form)
            stream = await source.reduce(request)
            records = await taken(stream.records)
            nothing_is_decoded_here.undo()
            assert entry.geometry is not None
            reduction = Reduction(entry.geometry, request)
            pieces = Assembler(reduction.pieces, Selection.whole(reduction.pieces.shape))
            plan = {p.nchunk: p for p in BlockPlan(reduction.pieces, Selection.whole(reduction.pieces.shape))}
            for record in records:
                pieces.add(plan[record.nchunk], record)
            expected = getattr(np, op)(ARRAY, axis=axis)
            np.testing.assert_allclose(pieces.out.reshape(np.shape(expected)), expected)

    asyncio.run(reduce())


@pytest.mark.parametrize(("start", "stop"), [(0, None), (5, 70), (4 << 20, (4 << 20) + 100), (9, 9)])
def test_a_packed_file_is_unpacked_elsewhere(
    tmp_path: Path, nothing_is_decoded_here: pytest.MonkeyPatch, start: int, stop: int | None
) -> None:
    async def read() -> None:
        async with area(tmp_path) as source:
            stream = await source.read_file("y.txt", start, stop)
            assert stream.nbytes == len(TEXT)
            assert b"".join([part async for part in stream.parts]) == TEXT[start:stop]

    asyncio.run(read())


def test_a_hostile_array_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    async def read() -> None:
        async with area(tmp_path) as source:
            frame = bytearray((tmp_path / "x.b2nd").read_bytes())
            for position in range(len(frame) // 4, len(frame) // 2, 7):  # within the chunks
                frame[position] ^= 0x5A
            upload = await source.begin("bad.b2nd")
            await source.write(upload.write, bytes(frame))
            await source.commit(upload)
            entry = await source.entry("bad.b2nd")
            with pytest.raises(Caterva2Error):
                await answered(source, ReadRequest(PUBLIC, "bad.b2nd", entry.version, POINT, mode="slice"))
            good = await source.read_blocks(ReadRequest(PUBLIC, "x.b2nd", None, POINT, mode="slice"))
            assert await taken(good.records)

    asyncio.run(read())


def test_a_worker_that_crashes_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    async def read() -> None:
        async with area(tmp_path) as source:
            sound = source.compute
            source.compute = crashing = ComputePool(program=["-c", "import os; os.abort()"])
            with pytest.raises(Caterva2Error):
                await answered(source, ReadRequest(PUBLIC, "x.b2nd", None, POINT, mode="slice"))
            await crashing.stop()
            source.compute = sound
            stream = await source.read_file("y.txt", 0, 20)
            assert b"".join([part async for part in stream.parts]) == TEXT[:20]

    asyncio.run(read())


def frame_with_much_metadata() -> bytes:
    """An array whose index and attributes are compressed."""
    array = blosc2.asarray(np.arange(20_000), chunks=(10,), blocks=(5,))
    array.schunk.vlmeta["note"] = "compressible " * 1000
    return bytes(array.to_cframe())


async def store(source: AreaSource, path: str, data: bytes) -> None:
    upload = await source.begin(path)
    await source.write(upload.write, data)
    await source.commit(upload)


def test_indexes_and_attributes_are_decoded_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = frame_with_much_metadata()

    def decompress(*_: object, **__: object) -> None:
        raise AssertionError("decoded in the subscriber's own process")

    async def read() -> None:
        async with area(tmp_path) as source:
            monkeypatch.setattr(blosc2, "decompress2", decompress)
            await store(source, "much.b2nd", data)
            entry = await source.entry("much.b2nd")
            assert entry.attrs == {"note": "compressible " * 1000}
            request = ReadRequest(PUBLIC, "much.b2nd", entry.version, [[0, 20_000, 1]], mode="blocks")
            assert len(await answered(source, request)) == 2000

    asyncio.run(read())


def test_hostile_metadata_is_an_error_of_one_file(tmp_path: Path) -> None:
    data = frame_with_much_metadata()

    async def read() -> None:
        async with area(tmp_path) as source:
            for number in range(8):
                bad = bytearray(data)
                for position in range(len(bad) - 2000 + 200 * number, len(bad) - 1900 + 200 * number, 3):
                    bad[position] ^= 0xA5
                await store(source, f"bad{number}.b2nd", bytes(bad))
            await store(source, "good.b2nd", data)
            for number in range(8):
                assert (await source.entry(f"bad{number}.b2nd")).kind in ("array", "file", "unsupported")
            assert (await source.entry("good.b2nd")).attrs

    asyncio.run(read())


def test_a_process_that_dies_of_metadata_is_an_error_of_one_file(tmp_path: Path) -> None:
    async def read() -> None:
        async with area(tmp_path) as source:
            decode = source._files._files._decode  # type: ignore[attr-defined]
            sound = decode._pool
            decode._pool = crashing = ComputePool(1, program=["-c", "import os; os.abort()"])
            await store(source, "much.b2nd", frame_with_much_metadata())
            assert (await source.entry("much.b2nd")).kind in ("file", "unsupported")
            decode._pool = sound
            await crashing.stop()
            await store(source, "later.b2nd", frame_with_much_metadata())
            assert (await source.entry("later.b2nd")).kind == "array"

    asyncio.run(read())


def test_a_codec_that_would_be_run_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read() -> None:
        async with area(tmp_path) as source:
            entry = await source.entry("x.b2nd")
            monkeypatch.setattr(blosc2_file, "is_portable", lambda prefix: False)
            with pytest.raises(UnsupportedDatasetError, match=r"download the file, or serve it by cat2pub"):
                await answered(source, ReadRequest(PUBLIC, "x.b2nd", entry.version, POINT, mode="blocks"))

    asyncio.run(read())
