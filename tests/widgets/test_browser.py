"""A browser lists what is opened, shows what is chosen, and hands it to the notebook under a valid name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.widgets.listing import PAGE, Listing
from tests.client.memory_service import MemoryService
from tests.processes import wait_for
from tests.widgets.conftest import HOSTILE, arrays

pytest.importorskip("ipywidgets")
pytest.importorskip("anywidget")

from caterva2_jupyter.widgets.browser import Browser, local_name, variable_name


def names(listing: Listing) -> list[str]:
    return [row.name for row in listing.rows]


def test_a_listing_asks_for_what_is_opened_and_no_more(client: cat2.Client, service: MemoryService) -> None:
    listing = Listing(client)
    service.requests.clear()
    listing.begin()
    assert names(listing) == ["foo"]
    assert service.requests == ["GET roots"]
    listing.toggle("foo")
    assert service.requests[-1] == "GET roots/foo/catalog"
    count = len(service.requests)
    assert listing.rows[1].name == "complex.b2nd"
    assert listing.rows[1].detail == "50 complex128"
    assert all(row.level == 2 for row in listing.rows[1:])
    listing.toggle("foo/group")
    assert [row.name for row in listing.rows if row.level == 3] == ["hostile.b2nd", "xy.b2nd"]
    assert len(service.requests) == count + 1
    listing.toggle("foo")
    assert names(listing) == ["foo"]
    assert len(service.requests) == count + 1


def test_a_long_group_is_listed_page_by_page(client: cat2.Client) -> None:
    listing = Listing(client, "foo/many")
    listing.begin()
    assert len(listing.rows) == PAGE + 1
    assert listing.rows[-1].to_json() == {
        "key": "foo/many/", "name": "more…", "kind": "more", "level": 1, "detail": "", "open": None,
    }  # fmt: skip
    listing.more("foo/many/")
    listing.more("foo/many/")
    assert names(listing) == [f"d{n:03d}.b2nd" for n in range(450)]
    listing.more("foo/many/")
    assert len(listing.rows) == 450


def test_a_filter_finds_by_name_and_by_metadata(client: cat2.Client) -> None:
    listing = Listing(client)
    listing.filter("dtype:float32 ndim>2")
    assert names(listing) == ["foo/cube.b2nd"]
    listing.filter("d00")
    assert names(listing) == [f"foo/many/d{n:03d}.b2nd" for n in range(10)]
    listing.filter("no-such-thing")
    assert names(listing) == ["nothing matches no-such-thing"]
    listing.filter(" ")
    assert names(listing) == ["foo"]


Make = Callable[..., Browser]


@pytest.fixture
def make(client: cat2.Client, tmp_path: Path) -> Iterator[Make]:
    made: list[Browser] = []

    def browser(address: str = "foo", namespace: dict[str, Any] | None = None) -> Browser:
        made.append(Browser(client, address, {} if namespace is None else namespace, tmp_path))
        made[-1].wait()
        return made[-1]

    yield browser
    for one in made:
        one.close()


def choose(browser: Browser, key: str) -> None:
    browser._tree._handle_custom_msg({"select": key}, [])
    browser.wait()


def test_what_is_chosen_is_shown_and_becomes_a_variable(make: Make) -> None:
    namespace: dict[str, Any] = {}
    browser = make(namespace=namespace)
    assert browser._use.disabled
    choose(browser, "foo/cube.b2nd")
    assert "time: 6, lat: 30, lon: 40" in browser._card.value
    assert bytes(browser._picture.value).startswith(b"\x89PNG")
    assert browser._name.value == "cube"
    browser._use.click()
    assert namespace["cube"] is browser.selected
    assert np.array_equal(namespace["cube"][0], arrays()["cube.b2nd"][0])
    assert "cube is" in browser._note.value


def test_names_that_cannot_be_are_refused_and_others_not_replaced_at_once(make: Make) -> None:
    namespace: dict[str, Any] = {"cube": 7}
    browser = make(namespace=namespace)
    choose(browser, "foo/cube.b2nd")
    for wrong in ("1x", "a b", "class", "print", "", "x; import os", "__name__"):
        browser._name.value = wrong
        browser._use.click()
        assert "c62828" in browser._note.value
    assert namespace == {"cube": 7}
    browser._name.value = "cube"
    browser._use.click()
    assert namespace == {"cube": 7}
    assert "press again" in browser._note.value
    browser._use.click()
    assert namespace["cube"] is browser.selected


def test_a_download_does_not_replace_and_can_be_given_up(make: Make, tmp_path: Path) -> None:
    browser = make()
    choose(browser, "foo/cube.b2nd")
    browser._get.click()
    browser.wait()
    browser._get.click()
    browser.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cube-1.b2nd", "cube.b2nd"]
    choose(browser, "foo/plane.b2nd")
    browser._is_stopped.set = lambda: None  # type: ignore[method-assign]
    real, stopped = browser._is_stopped.is_set, []
    browser._is_stopped.is_set = lambda: bool(stopped.append(1)) or True  # type: ignore[method-assign,func-returns-value]
    browser._get.click()
    browser.wait()
    assert "given up" in browser._note.value
    assert not [path for path in tmp_path.iterdir() if "plane" in path.name]
    browser._is_stopped.is_set = real  # type: ignore[method-assign]
    assert not browser._get.disabled


def test_texts_of_publishers_stay_text(make: Make) -> None:
    browser = make("foo/group")
    choose(browser, "foo/group/hostile.b2nd")
    for widget in (browser._card, browser._note, browser._text, browser._said):
        assert "<img" not in widget.value
    assert "&lt;img" in browser._card.value
    browser._filter.value = f"{HOSTILE} x"
    browser.wait()
    assert "<img" not in browser._said.value


def test_other_things_are_shown_as_they_can_be(make: Make) -> None:
    browser = make()
    choose(browser, "foo/notes.txt")
    assert browser._text.value.startswith("<pre>some notes")
    choose(browser, "foo/table.b2nd")
    assert "2.5" in browser._text.value
    choose(browser, "foo/scalar.b2nd")
    assert "4.5" in browser._text.value
    choose(browser, "foo/group")
    assert "xy.b2nd" in browser._card.value
    assert browser._get.disabled
    choose(browser, "foo/nothing")
    assert "nothing" in browser._card.value
    assert browser._use.disabled
    for message in (None, {"select": 7}, {"toggle": "elsewhere"}, {"more": "x"}, []):
        browser._tree._handle_custom_msg(message, [])
    browser.wait()
    assert len(browser._tree.rows) > 10


def test_only_the_newest_choice_is_looked_at(make: Make, service: MemoryService) -> None:
    browser = make()
    service.requests.clear()
    for path in ("plane", "long", "line", "cube"):
        browser._tree._handle_custom_msg({"select": f"foo/{path}.b2nd"}, [])
    browser.wait()
    assert browser._name.value == "cube"
    assert sum(request == "GET meta" for request in service.requests) <= 3


def test_a_service_that_is_away_is_said() -> None:
    with cat2.connect("http://127.0.0.1:9") as client:
        browser = client.browse()
        wait_for(lambda: "cannot reach" in browser._said.value, message="it says so")
        assert browser._tree.rows == []
        browser.close()


@pytest.mark.parametrize(
    "text", ["", "...", "1", "for", "a b", "ü-ö.nc", "日本", "<script>", "x" * 200, "list.b2nd", "\x00"]
)
def test_suggested_names_can_be_had(text: str) -> None:
    name = variable_name(text)
    assert name.isidentifier()
    assert len(name) < 50
    exec(f"{name} = 1", {})


@pytest.mark.parametrize("text", ["../../etc/passwd", "/abs", "a\\b", "..", "x\n\x00y", "." * 300, "C:x"])
def test_files_stay_in_their_directory(text: str) -> None:
    name = local_name(text)
    assert name
    assert not set(name) & set("/\\\0\n:")
    assert not name.startswith(".")
