"""What every ``Source`` has to do about items of arrays: whole, in part, of one version, and what was held before."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..core.answer_choice import MAX_SLICE_NBYTES, Mode
from ..core.blocks import BlockRecord, checksum_seed
from ..core.chunk_grid import BlockPlan
from ..core.revalidation import DIGEST_NBYTES, KnownBlocks, adopt, chunk_digest
from ..core.selection import Selection
from ..core.source import Source
from ..core.wire import ReadRequest
from ..errors import (
    DatasetChangedError,
    RequestError,
    SelectionError,
    UnsupportedDatasetError,
)
from .arrays import as_array, assert_same, expected, random_key, sample_arrays, source_content
from .origin import Origin, eventually
from .reading import assemble, collect, plan_blocks, read_array
from .source_case import SourceCase

__all__ = ["ReadContract"]


class ReadContract(SourceCase):
    """``read_blocks`` and ``compare_blocks``."""

    def test_arrays_are_equal(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            for path, array in source_content().items():
                assert_same(await read_array(source, path), as_array(array))

        self.run(scenario, tmp_path)

    def test_selections_are_equal_to_what_numpy_gives(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            rng = np.random.default_rng(2)
            for path, array in source_content().items():
                want = as_array(array)
                for _ in range(4):
                    selection = random_key(rng, want.shape).selection
                    assert_same(await read_array(source, path, selection), expected(want, selection))

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("mode", ["auto", "slice"])
    def test_exact_slices_are_equal_to_what_numpy_gives(self, tmp_path: Path, mode: Mode) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            rng = np.random.default_rng(4)
            for path, array in source_content().items():
                want = as_array(array)
                assert_same(await read_array(source, path, mode=mode), want)
                for _ in range(4):
                    selection = random_key(rng, want.shape).selection
                    got = await read_array(source, path, selection, mode, fast=bool(rng.random() < 0.5))
                    assert_same(got, expected(want, selection))

        self.run(scenario, tmp_path)

    def test_the_smaller_answer_comes(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            async def answer(selection: list[list[int]], mode: Mode, path: str = "noise.b2nd", **how: Any) -> str:
                stream = await source.read_blocks(ReadRequest("foo", path, None, selection, mode=mode, **how))
                await collect(stream.records)
                return stream.answer

            noise = np.random.default_rng(5).integers(0, 2**60, (60, 300, 300))
            await origin.put("noise.b2nd", noise, chunks=(20, 100, 100), blocks=(5, 50, 50))
            await origin.put("words.b2nd", np.array(["a", "b"] * 500, object), chunks=(100,))
            await eventually(lambda: source.entry("words"), lambda entry: entry.has_data)
            point = [[0, 60, 1], [7, 8, 1], [9, 10, 1]]
            assert await answer(point, "auto") == "slice"
            assert await answer(point, "slice") == "slice"
            assert await answer(point, "blocks") == "blocks"
            assert await answer(point, "auto", window=(0, 1)) == "blocks"
            assert await answer([[5, 10, 1], [0, 50, 1], [50, 100, 1]], "auto") == "blocks"
            assert await answer([[0, 1, 1]], "slice", path="words.b2nd") == "blocks"
            assert noise.nbytes > MAX_SLICE_NBYTES
            assert await answer([[0, 60, 1], [0, 300, 1], [0, 300, 1]], "slice") == "blocks"

        self.run(scenario, tmp_path)

    def test_an_exact_slice_of_a_version_that_is_gone_is_refused(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            for mode in ("auto", "slice"):
                request = ReadRequest(source.root, "line", "0" * 24, [[5, 6, 1]], mode=mode)
                with pytest.raises(DatasetChangedError, match=r"line\.b2nd"):
                    await source.read_blocks(request)

        self.run(scenario, tmp_path)

    def test_large_and_odd_chunks_are_equal(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            rng = np.random.default_rng(3)
            noise = rng.integers(0, 2**60, (500, 700))
            strings = np.array([f"{i} é" * (i % 5) for i in range(300)], object).reshape(30, 10)
            await origin.put("one-chunk.b2nd", noise, chunks=(500, 700), blocks=(50, 64))
            await origin.put("tiny-chunks.b2nd", noise[:60, :50], chunks=(3, 2), blocks=(1, 2))
            await origin.put("runs.b2nd", noise, chunks=(130, 128), blocks=(1000,), layout="flat", padded=False)
            await origin.put("word.b2nd", np.array("wörd", object))
            await origin.put("strings.b2nd", strings, chunks=(7, 4))
            await eventually(lambda: source.entry("strings"), lambda entry: entry.has_data)
            for path, want in [("one-chunk", noise), ("tiny-chunks", noise[:60, :50]), ("runs", noise)]:
                selection = random_key(rng, want.shape).selection
                assert_same(await read_array(source, path, selection, "slice"), expected(want, selection))
                assert_same(await read_array(source, path), want)
                assert_same(await read_array(source, path, selection), expected(want, selection))
            assert (await read_array(source, "strings")).tolist() == strings.tolist()
            assert (await read_array(source, "word")).item() == "wörd"

        self.run(scenario, tmp_path)

    def test_records_come_in_the_order_of_the_plan(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            stream = await source.read_blocks(ReadRequest(source.root, "grid/deep/noise"))
            came = [(r.nchunk, int(i)) for r in await collect(stream.records) for i in r.ids]
            assert came == plan_blocks(stream.entry)

        self.run(scenario, tmp_path)

    def test_the_version_asked_for_is_read_or_refused(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry("line")
            stream = await source.read_blocks(ReadRequest(source.root, entry.path, entry.version))
            assert stream.entry == entry
            await collect(stream.records)
            with pytest.raises(DatasetChangedError, match=r"line\.b2nd"):
                await source.read_blocks(ReadRequest(source.root, entry.path, "0" * 24))

        self.run(scenario, tmp_path)

    def test_a_replaced_dataset_is_read_as_it_is_now(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            before = await source.entry("line")
            await read_array(source, "line")
            await origin.put("line.b2nd", np.arange(100_000, dtype="<i4") * 3)
            await eventually(lambda: source.entry("line"), lambda entry: entry.version != before.version)
            assert_same(await read_array(source, "line"), np.arange(100_000, dtype="<i4") * 3)

        self.run(scenario, tmp_path)

    def test_a_dataset_that_changes_while_it_is_read_is_never_mixed(self, tmp_path: Path) -> None:
        old, new = np.zeros((400, 500)), np.ones((400, 500))
        how: dict[str, Any] = {"chunks": (10, 500), "blocks": (1, 100)}

        async def scenario(source: Source, origin: Origin) -> None:
            await origin.put("moving.b2nd", old, **how)
            await eventually(lambda: source.entry("moving"), lambda entry: entry.has_data)
            stream = await source.read_blocks(ReadRequest(source.root, "moving"))
            records = [await anext(stream.records)]
            await origin.put("moving.b2nd", new, **how)
            try:
                records += await collect(stream.records)
            except DatasetChangedError:
                return
            got = assemble(stream.entry, Selection.whole(old.shape), records)
            assert np.array_equal(got, old)

        self.run(scenario, tmp_path)

    def test_windows_together_are_the_whole(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry("grid/deep/noise")
            blocks = plan_blocks(entry)
            third = len(blocks) // 3
            came: list[tuple[int, int]] = []
            for window in [(0, third), (third, third), (third, len(blocks))]:
                request = ReadRequest(source.root, entry.path, entry.version, window=window)
                records = await collect((await source.read_blocks(request)).records)
                came += [(r.nchunk, int(i)) for r in records for i in r.ids]
            assert came == blocks

        self.run(scenario, tmp_path)

    def test_held_blocks_are_not_sent(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry("grid/deep/noise")
            blocks = plan_blocks(entry)
            window = (1, len(blocks) - 1)
            held = np.arange(window[1] - window[0]) % 3 == 0
            request = ReadRequest(source.root, entry.path, entry.version, window=window, held=held)
            records = await collect((await source.read_blocks(request)).records)
            came = [(r.nchunk, int(i)) for r in records for i in r.ids]
            assert came == [block for block, is_held in zip(blocks[1:-1], held, strict=True) if not is_held]
            everything = ReadRequest(source.root, entry.path, entry.version, held=np.ones(len(blocks), np.bool_))
            assert await collect((await source.read_blocks(everything)).records) == []

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("selection", [[], [[0, 1, 1], [0, 1, 1]], [[0, 100_001, 1]], [[5, 4, 1]], [[0, 4, 0]]])
    def test_a_selection_that_does_not_fit_is_refused(self, tmp_path: Path, selection: list[list[int]]) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(SelectionError):
                await source.read_blocks(ReadRequest(source.root, "line", selection=selection))

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize(
        "request_form", [{"selection": "all"}, {"window": (0, 10**9)}, {"held": np.ones(100, np.bool_)}]
    )
    def test_a_request_that_does_not_fit_is_refused(self, tmp_path: Path, request_form: dict[str, Any]) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(RequestError):
                await source.read_blocks(ReadRequest(source.root, "line", **request_form))

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("path", ["grid/deep/noise.b2nd", "constant.b2nd", "table.b2nd", "scalar.b2nd"])
    def test_blocks_are_compared_with_digests_of_them(self, tmp_path: Path, path: str) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            stream = await source.read_blocks(ReadRequest(source.root, path))
            held: dict[int, list[BlockRecord]] = {}
            for record in await collect(stream.records):
                held.setdefault(record.nchunk, []).append(record)
            entry = stream.entry
            assert entry.geometry is not None
            plan = BlockPlan(entry.geometry, Selection.whole(entry.geometry.shape))
            digests = [chunk_digest(held[nchunk]) for nchunk in sorted(held)]
            digests[0] = bytes(DIGEST_NBYTES)

            def request(digests: list[bytes]) -> ReadRequest:
                known = KnownBlocks(np.ones(plan.nblocks, np.bool_), b"".join(digests))
                return ReadRequest(source.root, entry.path, entry.version, known=known)

            compared = await source.compare_blocks(request(digests))
            assert (compared.entry.id, compared.entry.version) == (entry.id, entry.version)
            said = [same async for same in compared.records]
            assert [same.nchunk for same in said] == sorted(held)
            assert [bool(same.proof) for same in said] == [False] + [True] * (len(held) - 1)
            for same in said:
                adopted = adopt(same, held[same.nchunk], checksum_seed(entry.id, entry.version))
                assert sum(len(r.ids) for r in adopted) == sum(len(r.ids) for r in held[same.nchunk])
            for wrong in (digests[1:], [*digests, bytes(DIGEST_NBYTES)]):
                with pytest.raises(RequestError, match="digests"):
                    [same async for same in (await source.compare_blocks(request(wrong))).records]
            gone = replace(request(digests), version="0" * 24)
            with pytest.raises(DatasetChangedError):
                [same async for same in (await source.compare_blocks(gone)).records]

        self.run(scenario, tmp_path)

    def test_groups_and_what_is_unsupported_are_not_read(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(UnsupportedDatasetError, match="group"):
                await source.read_blocks(ReadRequest(source.root, "grid"))
            await origin.put("objects.b2nd", np.array([1, None], object))
            await eventually(lambda: source.entry("objects"), lambda entry: entry.kind == "unsupported")
            with pytest.raises(UnsupportedDatasetError, match="dtype object cannot be served"):
                await source.read_blocks(ReadRequest(source.root, "objects"))

        self.run(scenario, tmp_path)

    def test_a_read_can_be_given_up(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            for _ in range(5):
                stream = await source.read_blocks(ReadRequest(source.root, "grid/deep/noise"))
                async with aclosing(stream.records):  # type: ignore[type-var]
                    await anext(stream.records)
            assert_same(await read_array(source, "grid/deep/noise"), sample_arrays()["grid/deep/noise.b2nd"])

        self.run(scenario, tmp_path)

    def test_many_readers_at_once_get_equal_items(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            want = sample_arrays()["grid/deep/noise.b2nd"]
            for got in await asyncio.gather(*(read_array(source, "grid/deep/noise") for _ in range(20))):
                assert_same(got, want)

        self.run(scenario, tmp_path)
