"""Chunks and stored files at URLs of their own: what caches of HTTP and readers of others need."""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from caterva2_jupyter.core.assembly import Assembler
from caterva2_jupyter.core.blocks import BlockRecord, make_record
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.chunk_runs import ChunkRuns
from caterva2_jupyter.core.legacy import chunk_selection
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.selection import Selection
from caterva2_jupyter.core.source import BlockStream
from caterva2_jupyter.core.wire import ReadRequest
from caterva2_jupyter.errors import IntegrityError
from caterva2_jupyter.web.access import NetworkToken
from tests.web.serving import Served
from tests.web.test_source_handlers import DAYS, TEXT, Memory, parse, serving


@pytest.fixture(scope="module")
def foo() -> Iterator[Served]:
    with serving(Memory()) as served:
        yield served


def days(served: Served, **headers: str) -> Entry:
    form: dict[str, Any] = served.get("/api/v1/meta?path=foo/dir/days", **headers).json()
    form.pop("root")
    return Entry.from_json(form)


def url_of(entry: Entry, nchunk: int = 0) -> str:
    return f"/api/v1/chunks/{entry.id}/{entry.version}/{nchunk}"


def test_the_chunks_together_are_the_array(foo: Served) -> None:
    entry = days(foo)
    geometry = entry.geometry
    assert geometry is not None
    assert geometry.nchunks >= 1
    for nchunk in range(geometry.nchunks):
        answer = foo.get(url_of(entry, nchunk))
        assert answer.status == 200
        preamble, records = parse(answer.body)
        assert (preamble.id, preamble.version, preamble.entry) == (entry.id, entry.version, None)
        selection = Selection.from_json(chunk_selection(geometry, nchunk), geometry.shape)
        assembler = Assembler(geometry, selection)
        (projection,) = BlockPlan(geometry, selection)
        for record in records:
            assembler.add(projection, record)
        expected = DAYS[tuple(slice(a, b, c) for a, b, c in chunk_selection(geometry, nchunk))]
        assert np.array_equal(assembler.out, expected)


def test_a_chunk_may_be_kept_for_ever_by_anybody(foo: Served) -> None:
    url = url_of(days(foo))
    first, again = foo.get(url), foo.get(url)
    assert first.body == again.body
    assert first.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert first.headers["ETag"].startswith('"')
    assert first.headers["ETag"] == again.headers["ETag"]
    head = foo.request("HEAD", url)
    assert (head.status, head.body, head.headers["ETag"]) == (200, b"", first.headers["ETag"])
    assert head.headers["Cache-Control"] == first.headers["Cache-Control"]
    known = foo.get(url, If_None_Match=first.headers["ETag"])
    assert (known.status, known.body) == (304, b"")


def test_where_a_token_is_needed_only_the_client_itself_may_keep_a_chunk() -> None:
    with serving(Memory(), policy=NetworkToken(["right"])) as served:
        url = url_of(days(served, Authorization="Bearer right"))
        assert served.get(url).status == 401
        answer = served.get(url, Authorization="Bearer right")
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"


def test_what_is_no_chunk_is_not_found_and_not_kept(foo: Served) -> None:
    entry = days(foo)
    assert entry.geometry is not None
    for url in (
        url_of(entry, entry.geometry.nchunks),
        url_of(replace(entry, id="0" * 24)),
        *(f"{url_of(entry)[:-1]}{n}" for n in ("-1", "00", "x", "1e3", "%C2%B2", "9" * 400)),
    ):
        answer = foo.get(url)
        assert answer.status == 404, url
        assert "immutable" not in answer.headers["Cache-Control"]
    gone = foo.get(url_of(replace(entry, version="older")))
    assert (gone.status, gone.json()["error"]) == (409, "DatasetChangedError")
    assert "immutable" not in gone.headers["Cache-Control"]


class FailsAfter:
    """A source whose chunks break off after some records."""

    def __init__(self, source: Any, nrecords: int) -> None:
        self._source, self._nrecords = source, nrecords

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def entries_with_id(self, dataset_id: str) -> list[Entry]:
        return await self._source.entries_with_id(dataset_id)  # type: ignore[no-any-return]

    async def read_blocks(self, request: ReadRequest) -> BlockStream:
        stream = await self._source.read_blocks(request)
        return BlockStream(stream.entry, self._records(stream.records))

    async def _records(self, records: AsyncIterator[BlockRecord]) -> AsyncIterator[BlockRecord]:
        for _ in range(self._nrecords):
            yield await anext(records)
        raise IntegrityError("the file is damaged there")


@pytest.mark.parametrize("nrecords", [0, 1])
def test_an_answer_with_an_error_cannot_be_kept(nrecords: int) -> None:
    memory = Memory()
    noise = np.random.default_rng(0).integers(0, 1 << 60, 1 << 19)

    with serving(memory) as served:

        async def damage() -> Entry:
            memory.root.set("noise.b2nd", noise)
            await memory.foo.scan()
            memory.sources["foo"] = FailsAfter(memory.foo, nrecords)  # type: ignore[assignment]
            return await memory.foo.entry("noise")

        entry = served.call(damage())
        assert entry.geometry is not None
        assert entry.geometry.full_chunk_nbytes > 2 << 20
        if nrecords:
            with pytest.raises(http.client.IncompleteRead):
                served.get(url_of(entry))
        else:
            answer = served.get(url_of(entry))
            assert (answer.status, answer.json()["error"]) == (IntegrityError.status, "IntegrityError")
            assert "immutable" not in answer.headers["Cache-Control"]
            assert answer.headers["ETag"] is None


# Runs of blocks: one answer, however the blocks came


def records_of(*cut: list[int], head: bytes = b"h" * 32) -> list[BlockRecord]:
    return [make_record(1, 3, head, ids, [bytes([i]) * (i + 1) for i in ids]) for ids in cut]


def cut_again(records: list[BlockRecord], blocks: list[int], block_nbytes: int = 1 << 19) -> list[Any]:
    runs = ChunkRuns(blocks, block_nbytes)
    out = [run for record in records for run in runs.add(record)]
    assert runs.is_complete
    for run in out:
        run.verify(1)
    return [(r.head, r.ids.tolist(), bytes(r.body)) for r in out]


def test_however_a_chunk_comes_it_leaves_in_the_same_runs() -> None:
    expected = cut_again(records_of([0, 1], [2, 5], [6]), [0, 1, 2, 5, 6])
    assert [ids for _, ids, _ in expected] == [[0, 1], [2, 5], [6]]
    for cut in ([[0, 1, 2, 5, 6]], [[6], [5], [2], [1], [0]], [[0, 2, 6], [1, 5]], [[0, 1, 2, 3, 4, 5, 6]]):
        assert cut_again(records_of(*cut), [0, 1, 2, 5, 6]) == expected


def test_blocks_of_different_heads_are_records_of_their_own() -> None:
    mixed = [*records_of([0, 2]), *records_of([1], head=b"x" * 32)]
    assert [ids for _, ids, _ in cut_again(mixed, [0, 1, 2], 1)] == [[0], [1], [2]]


def test_a_chunk_that_comes_whole_is_all_of_it() -> None:
    whole = make_record(1, 3, b"", [0xFFFFFFFF], [b"chunk"])
    runs = ChunkRuns([0, 1], 1)
    assert [r.is_whole for r in runs.add(whole)] == [True]
    assert runs.is_complete
    assert runs.add(whole) == []


# The stored file at a URL that ends in its name


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_plain_url_answers_like_the_one_with_a_query(foo: Served, method: str) -> None:
    for headers in ({}, {"Range": "bytes=5-9"}, {"Range": "bytes=-3"}, {"Range": "bytes=999999-"}):
        plain = foo.request(method, "/api/v1/files/foo/text.bin", dict(headers))
        query = foo.request(method, "/api/v1/file?path=foo/text.bin", dict(headers))
        assert (plain.status, plain.body, plain.headers["ETag"]) == (query.status, query.body, query.headers["ETag"])
        assert plain.headers["Content-Length"] == query.headers["Content-Length"]
    assert foo.get("/api/v1/files/foo/text.bin").body == TEXT
    assert foo.get("/api/v1/files/foo/text.bin").headers["Accept-Ranges"] == "bytes"


def test_names_in_plain_urls_are_encoded_once(foo: Served) -> None:
    assert foo.get("/api/v1/files/foo/a%20b+c%252f%3F%23%22%0A%01%C3%A9.txt").body == b"odd"
    assert foo.get("/api/v1/files/foo/a%20b%20c%252f%3F%23%22%0A%01%C3%A9.txt").status == 404


def test_a_range_is_asked_of_the_source_once() -> None:
    memory = Memory()
    with serving(memory) as served:
        asked: list[tuple[int, int | None]] = []
        real = memory.foo.read_file

        async def read_file(path: str, start: int, stop: int | None) -> Any:
            asked.append((start, stop))
            return await real(path, start, stop)

        memory.foo.read_file = read_file  # type: ignore[method-assign]
        for header, body in (("bytes=5-9", TEXT[5:10]), ("bytes=7-", TEXT[7:]), ("bytes=3-99999999", TEXT[3:])):
            assert served.get("/api/v1/files/foo/text.bin", Range=header).body == body
        assert served.get("/api/v1/files/foo/text.bin").body == TEXT
        assert len(asked) == 4
        # The length decides: it is asked for first.
        assert served.get("/api/v1/files/foo/text.bin", Range="bytes=-5").body == TEXT[-5:]
        assert len(asked) == 6
