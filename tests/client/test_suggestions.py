"""A name that is not there: what it may have been meant to be, and what it costs to say so."""

from __future__ import annotations

import re

import pytest

import caterva2_jupyter as cat2
from tests.client.memory_service import MemoryService


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("foo/cubes", "did you mean 'cube.b2nd'?"),
        ("foo/Line", "did you mean 'line.b2nd'?"),
        ("foo/deep", "did you mean 'dir1/dir2/deep.b2nd'?"),
        ("foo/dir1/dir3/deep.b2nd", "did you mean 'dir1/dir2/deep.b2nd'?"),
        ("foo/dir1/note.txt", "did you mean 'dir1/notes.txt'?"),
        ("foo/cube/x", "'cube.b2nd' is an array, and nothing is below it"),
        ("foo/cube.b2nd[5]", "open it, then index it, as in client['foo/cube.b2nd'][5]"),
        ("fooo/cube", "id you mean 'foo'?"),
    ],
)
def test_a_wrong_name_is_told_with_the_one_that_was_meant(client: cat2.Client, address: str, said: str) -> None:
    with pytest.raises(cat2.NotFoundError) as caught:
        client[address]
    assert str(caught.value).endswith(said)
    if address.startswith("foo/"):
        with pytest.raises(cat2.DatasetNotFoundError, match=re.escape(said)):
            client.entry(address)
        with pytest.raises(cat2.DatasetNotFoundError) as below:
            client["foo"][address.removeprefix("foo/")]
        assert str(below.value) == str(caught.value)


def test_what_looks_like_nothing_is_only_said_not_to_be_there(client: cat2.Client) -> None:
    with pytest.raises(cat2.DatasetNotFoundError) as caught:
        client["foo/qqqqqqqq"]
    assert str(caught.value) == "no dataset 'qqqqqqqq' in root 'foo'"


def test_asking_whether_something_is_there_costs_one_request(
    client: cat2.Client, memory_service: MemoryService
) -> None:
    group = client["foo"]
    before = len(memory_service.requests)
    assert "cubes" not in group
    assert group.get("cubes") is None
    assert "foo/cubes" not in client
    assert memory_service.requests[before:] == ["GET meta"] * 3


def test_what_may_follow_a_bracket_is_completed(client: cat2.Client) -> None:
    assert "foo" in client._ipython_key_completions_()
    assert list(client) == client._ipython_key_completions_()
    assert client["foo/dir1"]._ipython_key_completions_() == ["dir2", "notes.txt", "pickled.b2nd"]
    assert client["foo/structured"]._ipython_key_completions_() == ["x", "v", "in"]
    assert client["foo/cube"]._ipython_key_completions_() == []
