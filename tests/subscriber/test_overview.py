"""``GET overview``: a selection in few values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tornado.httputil import url_concat

from tests.subscriber.test_handlers import GRID, Served, with_foo
from tests.subscriber.test_values import array_of


def query(**texts: Any) -> str:
    return url_concat("/api/v1/overview", {name: str(text) for name, text in texts.items()})


@pytest.mark.parametrize("text", ["", "3:20, ::-1", "2", ":, 4", "..., None"])
def test_an_overview_takes_every_nth_item(tmp_path: Path, text: str) -> None:
    async def test(sub: Served) -> None:
        response = await sub.fetch(query(path="foo/dir/grid.b2nd", sel=text, max_pixels=7))
        got = array_of(response)
        told = json.loads(response.headers["X-Caterva2-Overview"])
        assert told["method"] == "stride"
        assert len(told["steps"]) == got.ndim
        assert max(got.shape) <= 7
        if text in ("", "2", ":, 4"):
            key: Any = {"": np.s_[:, :], "2": np.s_[2], ":, 4": np.s_[:, 4]}[text]
            want = GRID[key][tuple(slice(None, None, step) for step in told["steps"])]
            np.testing.assert_array_equal(got, want)

    with_foo(test, tmp_path)


def test_an_overview_is_kept_by_those_who_have_it(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        url = query(path="foo/dir/grid.b2nd", max_pixels=5, method="mean")
        response = await sub.fetch(url)
        assert array_of(response).dtype == np.mean(GRID).dtype
        again = await sub.fetch(url, If_None_Match=response.headers["ETag"])
        assert again.code == 304
        envelope = array_of(await sub.fetch(query(path="foo/dir/grid.b2nd", max_pixels=1, method="minmax")))
        assert envelope.reshape(-1).tolist() == [GRID.min(), GRID.max()]

    with_foo(test, tmp_path)


@pytest.mark.parametrize(
    ("texts", "status"),
    [
        ({"method": "median"}, 400),
        ({"max_pixels": "many"}, 400),
        ({"max_pixels": "0"}, 400),
        ({"sel": "99999"}, 400),
        ({"version": "gone"}, 409),
        ({"path": "foo/nothing"}, 404),
        ({"path": "foo/dir"}, 422),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, texts: dict[str, str], status: int) -> None:
    async def test(sub: Served) -> None:
        response = await sub.fetch(query(**{"path": "foo/dir/grid.b2nd", **texts}))
        assert response.code == status, response.body
        assert "\n" not in json.loads(response.body)["detail"]

    with_foo(test, tmp_path)
