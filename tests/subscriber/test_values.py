"""``GET values``: decoded values of a slice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.httpclient import HTTPResponse
from tornado.httputil import url_concat

from caterva2_jupyter.compute.boxes import values_answer
from caterva2_jupyter.core.dtypes import dtype_from_json
from caterva2_jupyter.subscriber import values_handlers
from tests.subscriber.test_handlers import FIELDS, GRID, Served, with_foo


def query(**texts: str) -> str:
    return url_concat("/api/v1/values", texts)


def array_of(response: HTTPResponse) -> np.ndarray:
    assert response.code == 200, response.body
    text, shape = response.headers["X-Caterva2-Dtype"], json.loads(response.headers["X-Caterva2-Shape"])
    assert int(response.headers["Content-Length"]) == len(response.body)
    if text == "vlen-utf8":
        assert response.headers["Content-Type"] == "application/json"
        return np.array(json.loads(response.body), dtype=object).reshape(shape)
    assert response.headers["Content-Type"] == "application/octet-stream"
    form: Any = json.loads(text) if text.startswith(("[", "{")) else text
    return np.frombuffer(response.body, dtype_from_json(form)).reshape(shape)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", ()),
        ("0", 0),
        ("3,4", (3, 4)),
        (":,7", (slice(None), 7)),
        ("::-7, 3:9:2", (slice(None, None, -7), slice(3, 9, 2))),
        ("..., -1", (Ellipsis, -1)),
        ("None, 2:2", (None, slice(2, 2))),
    ],
)
def test_values_are_what_numpy_gives(tmp_path: Path, text: str, key: Any) -> None:
    async def test(sub: Served) -> None:
        got = array_of(await sub.fetch(query(path="foo/dir/grid.b2nd", sel=text)))
        expected = np.asarray(GRID[key])
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)

    with_foo(test, tmp_path)


def test_values_of_every_kind_of_dataset(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        fields = array_of(await sub.fetch(query(path="foo/fields")))
        assert fields.dtype == FIELDS.dtype
        assert fields.tolist() == FIELDS.tolist()
        assert array_of(await sub.fetch(query(path="foo/scalar.b2nd", sel="()"))) == np.array("foo")
        assert array_of(await sub.fetch(query(path="foo/names.b2nd"))).tolist() == ["a", "bcd"]
        assert bytes(array_of(await sub.fetch(query(path="foo/readme.md", sel="6:")))) == b"world!"
        flat = array_of(await sub.fetch(query(path="foo/flat.b2nd", sel="5:8,::3")))
        assert flat.dtype == "<f4"  # little endian, whatever is stored
        np.testing.assert_array_equal(flat, GRID.astype("f4")[5:8, ::3])

    with_foo(test, tmp_path)


def test_values_that_the_client_has_are_not_sent_again(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        first = await sub.fetch(query(path="foo/dir/grid", sel="2:4"))
        assert first.headers["Cache-Control"] == "private, no-cache"
        etag = first.headers["ETag"]
        again = await sub.fetch(query(path="foo/dir/grid.b2nd", sel=" 2:4:1, :"), If_None_Match=etag)
        assert (again.code, again.body) == (304, b"")
        other = await sub.fetch(query(path="foo/dir/grid", sel="3:1:-1"), If_None_Match=etag)
        assert other.code == 200
        foo = sub.run.publishers["foo"]
        foo.files.set("dir/grid.b2nd", GRID + 1, chunks=(20, 30), blocks=(5, 10))
        await foo.changed()
        async with asyncio.timeout(60):
            while (changed := await sub.fetch(query(path="foo/dir/grid", sel="2:4"), If_None_Match=etag)).code == 304:
                await asyncio.sleep(0.01)
        np.testing.assert_array_equal(array_of(changed), GRID[2:4] + 1)

    with_foo(test, tmp_path)


def test_what_cannot_be_answered_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values_handlers.ValuesAnswers.initialize, "__defaults__", (5000,))

    async def test(sub: Served) -> None:
        for texts, status, words in [
            ({"path": "foo/dir/grid"}, 413, "24000 bytes, over the 5000 of one answer: ask for less with sel"),
            ({"path": "foo/dir/grid", "sel": "x"}, 400, "not a slice"),
            ({"path": "foo/dir/grid", "sel": "60"}, 400, "out of bounds"),
            ({"path": "foo/dir/grid", "sel": "0,0,0"}, 400, "too many indices"),
            ({"path": "foo/dir/grid", "sel": "()", "version": "old"}, 413, "over the 5000"),
            ({"path": "foo/dir/grid", "sel": "0", "version": "old"}, 409, "version old is gone"),
            ({"path": "foo/nothing"}, 404, "nothing"),
            ({"path": "foo/dir"}, 422, "no data"),
            ({"path": "foo/odd.b2nd"}, 422, "no data"),
            ({"path": "../x"}, 404, ""),
            ({"sel": "0"}, 400, "'path' is missing"),
        ]:
            got, detail = await sub.refused(query(**texts))
            assert got == status, (texts, got, detail)
            assert words in str(detail)
        version = (await sub.json("/api/v1/meta?path=foo/dir/grid"))["version"]
        assert (await sub.fetch(query(path="foo/dir/grid", sel="0", version=version))).code == 200

    with_foo(test, tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_array_is_answered_little_endian_in_c_order(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([">i2", "<f8", ">c16", "|b1", ">U3", "|S2", ">M8[s]", "f2"]))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    array = np.arange(np.prod(shape, dtype=int)).astype("i8").astype(kind).reshape(shape)
    array = array.T if data.draw(st.booleans()) else array
    form, (raw,) = values_answer(array)
    again = np.frombuffer(bytes(raw), dtype_from_json(form["dtype"])).reshape(form["shape"])
    assert again.dtype.byteorder in "<|="
    np.testing.assert_array_equal(again, array)
