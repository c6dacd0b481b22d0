"""Stored expressions: made by REST v1 and the older system's route, and read like any array."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import blosc2
import numpy as np
import pytest

from caterva2_jupyter.compute.records import BoxBuilder
from caterva2_jupyter.compute.reduction import Reduction
from caterva2_jupyter.compute.stored_expression import StoredExpression
from caterva2_jupyter.core.blocks import BlockRecord
from caterva2_jupyter.core.exact_slice import PieceAssembler
from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.core.reduce_request import ReduceRequest
from caterva2_jupyter.core.selection import Selection
from caterva2_jupyter.core.wire import Preamble, ReadRequest, RecordParser, ReduceParser
from caterva2_jupyter.subscriber import expression_source, seen_roots
from caterva2_jupyter.subscriber.permissions import Visitor
from tests.subscriber.test_handlers import GRID, Served, array_of, with_foo
from tests.subscriber.test_values import array_of as values_of

SOMEBODY = Visitor("11111111-1111-1111-1111-111111111111")
A, B = "foo/dir/grid.b2nd", "foo/flat.b2nd"


@pytest.fixture
def visitor(monkeypatch: pytest.MonkeyPatch) -> list[Visitor]:
    """Whoever asks is the last one in this list."""
    visitors = [SOMEBODY]
    monkeypatch.setattr(seen_roots, "visitor_of", lambda user: visitors[-1])
    return visitors


async def create(sub: Served, path: str, text: str, **operands: str) -> dict[str, Any]:
    body = json.dumps({"path": path, "expression": text, "operands": operands})
    response = await sub.fetch("/api/v1/expressions", "POST", body)
    assert response.code == 201, response.body
    form: dict[str, Any] = json.loads(response.body)
    return form


def read_whole(body: bytes, geometry: Geometry, form: Any) -> np.ndarray:
    """What an answer to ``POST read`` comes to."""
    parser = RecordParser()
    preamble, *items = parser.feed(body)
    parser.close()
    assert isinstance(preamble, Preamble)
    builder = BoxBuilder(geometry, Selection.from_json(form, geometry.shape), preamble.digest)
    for item in items:
        if isinstance(item, BlockRecord):
            builder.add(item)
    return builder.finish()


async def refused(sub: Served, **form: Any) -> tuple[int, str]:
    response = await sub.fetch("/api/v1/expressions", "POST", json.dumps(form))
    return response.code, json.loads(response.body)["detail"]


def test_an_expression_is_listed_and_read_like_an_array(tmp_path: Path, visitor: list[Visitor]) -> None:
    async def test(sub: Served) -> None:
        made = await create(sub, "@public/dir/sum", "a * 2 + b[::-1]", a=A, b=B)
        assert (made["root"], made["path"], made["kind"]) == ("@public", "dir/sum.b2nd", "array")
        assert made["geometry"]["shape"] == [60, 100]
        assert made["geometry"]["dtype"] == "<f8"
        assert made["geometry"]["chunks"] == [20, 30]
        expected = GRID * 2 + GRID[::-1].astype("f4")
        listed = await sub.json("/api/v1/roots/@public/catalog")
        items = {item["path"]: item for item in listed["items"]}
        assert items["dir/sum.b2nd"]["version"] == made["version"]
        for text, key in [("3:7, ::9", np.s_[3:7, ::9]), ("-1", np.s_[-1]), ("", np.s_[:])]:
            got = values_of(await sub.fetch(f"/api/v1/values?path=@public/dir/sum&sel={quote(text)}"))
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected[key])
        # By blocks, with their checksums, as a client or another subscriber reads them.
        for mode in ("blocks", "slice", "auto"):
            selection = [[5, 45, 1], [25, 65, 1]]
            request = ReadRequest("@public", "dir/sum.b2nd", made["version"], selection, mode=mode)  # type: ignore[arg-type]
            body = json.dumps(request.to_json())
            response = await sub.fetch("/api/v1/read", "POST", body)
            assert response.code == 200, response.body
            np.testing.assert_array_equal(
                read_whole(response.body, Geometry.from_json(made["geometry"]), selection), expected[5:45, 25:65]
            )

    with_foo(test, tmp_path)


def test_the_older_routes_know_expressions(tmp_path: Path, visitor: list[Visitor]) -> None:
    async def test(sub: Served) -> None:
        body = json.dumps({"name": "twice", "expression": "a + a", "operands": {"a": A}})
        assert await sub.json("/api/lazyexpr/", "POST", body) == "@personal/twice.b2nd"
        info = await sub.json("/api/info/@personal/twice.b2nd")
        assert info.pop("mtime").endswith("Z")
        assert info == {"shape": [60, 100], "dtype": "int32", "expression": "a + a", "operands": {"a": A}}
        assert await sub.json("/api/list/@personal") == ["twice.b2nd"]
        part = array_of(await sub.fetch("/api/fetch/@personal/twice.b2nd?slice_=1:3,%204:8"))
        np.testing.assert_array_equal(part, GRID[1:3, 4:8] * 2)
        np.testing.assert_array_equal(array_of(await sub.fetch("/api/fetch/@personal/twice.b2nd")), GRID * 2)
        chunk = (await sub.fetch("/api/chunk/@personal/twice.b2nd?nchunk=1")).body
        assert len(blosc2.decompress2(chunk)) == 20 * 30 * 4
        # Again under the same name: it is replaced.
        again = json.dumps({"name": "twice", "expression": "a[0]", "operands": {"a": A}})
        assert await sub.json("/api/lazyexpr/", "POST", again) == "@personal/twice.b2nd"
        assert (await sub.json("/api/info/@personal/twice.b2nd"))["shape"] == [100]
        for form, status, detail in [
            ({"name": "x", "expression": "a +", "operands": {"a": A}}, 400, "Invalid name or expression: "),
            ({"name": "x", "expression": "", "operands": {}}, 400, "Invalid name or expression: "),
            ({"name": "", "expression": "a", "operands": {"a": A}}, 400, "Invalid name or expression: "),
            ({"name": "../x", "expression": "a", "operands": {"a": A}}, 400, "Invalid name or expression: "),
            ({"name": "x", "expression": "a + b", "operands": {"a": A}}, 400,
             "Expression error: b is not in the list of available datasets"),
            ({"name": "x", "expression": "a + b[1:]", "operands": {"a": A, "b": B}}, 400, "Runtime error: "),
            ({"name": "x", "expression": "a", "operands": {"a": "foo/none"}}, 404, "operand a is not there"),
            ({"name": "x", "expression": "a", "operands": {"a": "bar/none"}}, 404, "operand a is not there"),
        ]:  # fmt: skip
            code, text = await sub.refused("/api/lazyexpr/", "POST", json.dumps(form))
            assert (code, str(text).startswith(detail)) == (status, True), (form, code, text)
        assert (await sub.fetch("/api/lazyexpr/", "POST", '{"name": "x"}')).code == 422
        visitor.append(Visitor())
        assert await sub.refused("/api/lazyexpr/", "POST", body) == (
            401,
            "Creating lazy expressions requires authentication",
        )

    with_foo(test, tmp_path)


def test_expressions_over_expressions(tmp_path: Path, visitor: list[Visitor]) -> None:
    async def test(sub: Served) -> None:
        await create(sub, "@public/one", "a + 1", a=A)
        await create(sub, "@public/two", "one * one - mean(one, axis=0)", one="@public/one")
        got = values_of(await sub.fetch("/api/v1/values?path=@public/two&sel=10:20"))
        expected = (GRID + 1) * (GRID + 1) - (GRID + 1).mean(axis=0)
        np.testing.assert_allclose(got, expected[10:20])
        # A cycle, made by replacing the inner one.
        code, detail = await refused(
            sub, path="@public/one", expression="x", operands={"x": "@public/two"}, overwrite=True
        )
        assert (code, detail) == (400, "expression @public/one.b2nd is defined by itself")
        previous = "@public/one"
        for n in range(expression_source.MAX_DEPTH - 1):
            await create(sub, f"@public/deep{n}", "x + 1", x=previous)
            previous = f"@public/deep{n}"
        code, detail = await refused(sub, path="@public/deeper", expression="x", operands={"x": previous})
        assert (code, "deep at most" in detail) == (400, True)
        wide = await sub.fetch("/api/v1/values?path=@public/deep3&sel=0,0")
        assert values_of(wide) == 0 + 5

    with_foo(test, tmp_path)


def test_only_the_operands_blocks_that_are_needed_move(tmp_path: Path, visitor: list[Visitor]) -> None:
    async def test(sub: Served) -> None:
        await create(sub, "@public/x", "a + b", a=A, b=A)
        foo = sub.run.publishers["foo"]
        asked: list[ReadRequest] = []
        read_blocks = foo.read_blocks

        async def counted(request: ReadRequest) -> Any:
            asked.append(request)
            return await read_blocks(request)

        foo.read_blocks = counted  # type: ignore[method-assign]
        got = values_of(await sub.fetch("/api/v1/values?path=@public/x&sel=0:5,0:10"))
        np.testing.assert_array_equal(got, GRID[:5, :10] * 2)
        assert [r.selection for r in asked] == [[[0, 5, 1], [0, 10, 1]]]
        # Now it is cached here.
        got = values_of(await sub.fetch("/api/v1/values?path=@public/x&sel=1:3,0:10"))
        assert len(asked) <= 2

    with_foo(test, tmp_path)


async def reduced(sub: Served, made: dict[str, Any], op: str, **how: Any) -> np.ndarray:
    form = {"path": f"{made['root']}/{made['path']}", "version": made["version"], "op": op, **how}
    response = await sub.fetch("/api/v1/reduce", "POST", json.dumps(form))
    assert response.code == 200, response.body
    reduction = Reduction(Geometry.from_json(made["geometry"]), ReduceRequest.from_json(form))
    parser, pieces = ReduceParser(reduction.digest), PieceAssembler(reduction.result, Selection.whole(reduction.shape))
    for item in parser.feed_reduced(response.body):
        if isinstance(item, BlockRecord):
            pieces.add(item)
    parser.close()
    return pieces.out


def test_an_expression_is_reduced_where_it_is_evaluated(tmp_path: Path, visitor: list[Visitor]) -> None:
    async def test(sub: Served) -> None:
        made = await create(sub, "@public/x", "a * 2 + b", a=A, b=B)
        over = await create(sub, "@public/over", "x - 1", x="@public/x.b2nd")
        values = GRID * 2 + GRID.astype("f4")
        np.testing.assert_allclose(await reduced(sub, made, "mean", axis=[0]), values.mean(0))
        np.testing.assert_allclose(await reduced(sub, over, "std", axis=[1], ddof=1), (values - 1).std(1, ddof=1))
        part = [[5, 45, 3], {"at": [0, 7, 99]}]
        assert await reduced(sub, made, "max", selection=part) == values[5:45:3, [0, 7, 99]].max()
        np.testing.assert_array_equal(await reduced(sub, made, "stride", steps=[7, 40]), values[::7, ::40])
        told = await sub.fetch("/api/v1/overview?path=@public/over&max_pixels=6&method=mean")
        assert values_of(told).shape == (6, 6)
        gone = {"path": "@public/x.b2nd", "version": "0" * 32, "op": "sum"}
        assert (await sub.fetch("/api/v1/reduce", "POST", json.dumps(gone))).code == 409

    with_foo(test, tmp_path)


def test_a_new_version_of_an_operand_is_one_of_the_expression(tmp_path: Path, visitor: list[Visitor]) -> None:
    async def test(sub: Served) -> None:
        made = await create(sub, "@public/x", "a + 1", a=A)
        foo = sub.run.publishers["foo"]
        foo.files.set("dir/grid.b2nd", GRID + 7, chunks=(20, 30), blocks=(5, 10))
        await foo.changed()
        async with asyncio.timeout(60):
            while (now := await sub.json("/api/v1/meta?path=@public/x"))["version"] == made["version"]:
                await asyncio.sleep(0.01)
        old = await sub.fetch(f"/api/v1/values?path=@public/x&sel=0&version={made['version']}")
        assert old.code == 409
        body = json.dumps(ReadRequest("@public", "x.b2nd", made["version"]).to_json())
        response = await sub.fetch("/api/v1/read", "POST", body)
        assert (response.code, json.loads(response.body)["error"]) == (409, "DatasetChangedError")
        got = values_of(await sub.fetch(f"/api/v1/values?path=@public/x&sel=0&version={now['version']}"))
        np.testing.assert_array_equal(got, GRID[0] + 8)
        # And one that is gone leaves the expression listed, with the reason.
        foo.files.delete("dir/grid.b2nd")
        await foo.changed()
        async with asyncio.timeout(60):
            while "problem" not in (now := await sub.json("/api/v1/meta?path=@public/x"))["storage"]:
                await asyncio.sleep(0.01)
        assert "operand a is not there" in now["storage"]["problem"]
        assert (await sub.fetch("/api/v1/values?path=@public/x&sel=0")).code == 404
        assert (await sub.fetch("/api/info/@public/x")).code == 200

    with_foo(test, tmp_path)


def test_whoever_does_not_see_an_operand_does_not_see_its_values(tmp_path: Path, visitor: list[Visitor]) -> None:
    async def test(sub: Served) -> None:
        area = "@personal/mine"
        await create(sub, area, "a", a=A)
        await create(sub, "@public/x", "m + 1", m=area)
        assert (await sub.fetch("/api/v1/values?path=@public/x&sel=0")).code == 200
        visitor.append(Visitor("22222222-2222-2222-2222-222222222222"))
        response = await sub.fetch("/api/v1/values?path=@public/x&sel=0")
        assert response.code == 404
        assert "operand m is not there" in json.loads(response.body)["detail"]
        visitor.append(Visitor())
        assert (await sub.fetch("/api/v1/values?path=@public/x&sel=0")).code == 404
        assert (await sub.fetch("/api/v1/values?path=@personal/mine&sel=0")).code in (401, 404)

    with_foo(test, tmp_path)


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        ({"path": "@public/x", "expression": "a.b", "operands": {"a": A}}, 400, "attributes"),
        ({"path": "@public/x", "expression": "a", "operands": {"a": "foo/names.b2nd"}}, 400, "cannot be computed with"),
        ({"path": "@public/x", "expression": "a", "operands": {"a": "foo/fields.b2nd"}}, 400, "cannot be computed"),
        ({"path": "@public/x", "expression": "a", "operands": {"a": "foo/dir"}}, 422, "of kind group"),
        ({"path": "@public/x", "expression": "a", "operands": {"a": "../x"}}, 404, ""),
        ({"path": "@public/x", "expression": "a", "operands": [1]}, 400, "operands"),
        ({"path": "@public/x", "expression": "a", "operands": {"a": 1}}, 400, "operands"),
        ({"path": "@public/x", "expression": 1, "operands": {"a": A}}, 400, "text"),
        ({"path": "@public/x", "expression": "a", "operands": {"a": A}, "more": 1}, 400, "unknown key"),
        ({"path": "@public", "expression": "a", "operands": {"a": A}}, 400, "needs a name"),
        ({"path": "foo/x", "expression": "a", "operands": {"a": A}}, 403, "cannot be written to"),
        ({"path": "@public/../x", "expression": "a", "operands": {"a": A}}, 404, ""),
        ({"expression": "a"}, 400, "path is where"),
    ],
)  # fmt: skip
def test_what_cannot_be_stored_is_told(
    tmp_path: Path, visitor: list[Visitor], form: dict[str, Any], status: int, words: str
) -> None:
    async def test(sub: Served) -> None:
        code, detail = await refused(sub, **form)
        assert code == status, detail
        assert words in detail
        assert await sub.json("/api/list/@public") == []

    with_foo(test, tmp_path)


def test_nothing_is_replaced_unasked(tmp_path: Path, visitor: list[Visitor]) -> None:
    async def test(sub: Served) -> None:
        await create(sub, "@public/x", "a + 1", a=A)
        form = {"path": "@public/x", "expression": "a + 2", "operands": {"a": A}}
        assert (await refused(sub, **form))[0] == 409
        body = json.dumps({**form, "overwrite": True})
        assert (await sub.fetch("/api/v1/expressions", "POST", body)).code == 201

    with_foo(test, tmp_path)


def publish_old(path: Path, form: dict[str, Any], shape: tuple[int, ...] = (60, 100)) -> None:
    """A frame as the older system's Blosc2 wrote it."""
    array = blosc2.empty(shape, dtype="i4", urlpath=str(path), meta={"LazyArray": 1}, mode="w")
    array.schunk.vlmeta["_LazyArray"] = form


def test_expressions_of_the_older_system_are_adopted(tmp_path: Path, visitor: list[Visitor]) -> None:
    areas = tmp_path / "areas"
    mine = areas / "personal" / SOMEBODY.id
    mine.mkdir(parents=True)
    cache = areas / "cache" / "foo"
    publish_old(mine / "old.b2nd", {"expression": "a + 1", "UDF": None, "operands": {"a": f"{cache}/dir/grid.b2nd"}})
    publish_old(mine / "chain.b2nd", {"expression": "o * 2", "UDF": None, "operands": {"o": f"{mine}/old.b2nd"}})
    publish_old(mine / "out.b2nd", {"expression": "a", "UDF": None, "operands": {"a": "/etc/passwd"}})
    publish_old(mine / "bad.b2nd", {"expression": "a.b", "UDF": None, "operands": {"a": f"{cache}/dir/grid.b2nd"}})
    publish_old(mine / "udf.b2nd", {"expression": None, "UDF": "def f(): pass", "operands": {}})

    async def test(sub: Served) -> None:
        info = await sub.json("/api/info/@personal/old.b2nd")
        assert (info["expression"], info["operands"], info["dtype"]) == ("a + 1", {"a": A}, "int32")
        got = values_of(await sub.fetch("/api/v1/values?path=@personal/chain&sel=2"))
        np.testing.assert_array_equal(got, (GRID[2] + 1) * 2)
        items = {i["path"]: i for i in (await sub.json("/api/v1/roots/@personal/catalog"))["items"]}
        for name, words in [("out", "not in this state directory"), ("bad", "attributes"), ("udf", "never run")]:
            assert items[f"{name}.b2nd"]["kind"] == "unsupported"
            assert words in items[f"{name}.b2nd"]["reason"]

    with_foo(test, tmp_path)


def test_damaged_and_hostile_files_are_listed_with_the_reason(tmp_path: Path, visitor: list[Visitor]) -> None:
    good = StoredExpression("a", {"a": A}, Geometry((2,), (2,), (2,), np.dtype("i4"))).to_bytes()
    public = tmp_path / "areas" / "public"
    public.mkdir(parents=True)
    (public / "cut.b2nd").write_bytes(good[:-20])
    (public / "code.b2nd").write_bytes(good.replace(b'"a"', b'"__import__(0)"', 1))
    (public / "huge.b2nd").write_bytes(good + b" " * (1 << 20))
    (public / "itself.b2nd").write_bytes(good.replace(A.encode(), b"@public/itself"))

    async def test(sub: Served) -> None:
        items = {i["path"]: i for i in (await sub.json("/api/v1/roots/@public/catalog"))["items"]}
        for name in ("cut.b2nd", "code.b2nd", "huge.b2nd"):
            assert items[name]["kind"] == "unsupported", items[name]
            assert "an expression that cannot be used" in items[name]["reason"]
        assert "defined by itself" in items["itself.b2nd"]["storage"]["problem"]
        assert (await sub.fetch("/api/v1/values?path=@public/itself")).code == 400

    with_foo(test, tmp_path)
