"""Names, attributes and reasons of publishers are text wherever they are shown (A9)."""

from __future__ import annotations

import html.parser
import re
import threading
from typing import Any

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.client.chunk_picture import chunk_picture
from caterva2_jupyter.client.representation import STYLE, format_nbytes, format_value, html_table, plain
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.memory_service import MemoryService

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>",
    "</td></table><iframe src=javascript:alert(1)>",
    "&lt;b&gt;",
    "\x1b[31mred\x1b[0m",
    "a\nb\r\tc",
    "\u202egnp.exe",
    "{{7*7}} ${x} [link](javascript:alert(1))",
    "__proto__",
]  # fmt: skip
ALLOWED = {"div", "style", "span", "strong", "table", "tr", "th", "td", "details", "summary"}
NUMBERS = {"width", "height", "viewbox", "points", "fill-opacity", "x", "y", "x1", "x2", "y1", "y2", "text-anchor"}
PICTURE = {"svg", "polygon", "line", "text"}


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)


def assert_inert(text: str) -> None:
    parser = _Tags()
    parser.feed(text)
    parser.close()
    assert parser.tags <= ALLOWED | PICTURE
    assert STYLE in text or "<style" not in text
    for name, value in parser.attributes:
        is_fixed = (name, value) in (("style", "text-align:left"), ("role", "img"), ("aria-label", "chunk grid"))
        is_class = name == "class" and re.fullmatch("c2-[a-z]+", value or "")
        is_number = name in NUMBERS and re.fullmatch(r"[-\d., ]+|start|middle|end", value or "")
        assert is_fixed or is_class or is_number, (name, value)
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.fixture(scope="module")
def hostile_client() -> Any:
    root = MemoryRoot()
    for i, text in enumerate(HOSTILE):
        name = text.replace("/", "_")
        attrs = {text: text, "array": np.array([text] * 3), "bytes": text.encode(), "list": [text, {text: text}]}
        root.set(f"{i}-{name}.b2nd", np.arange(4), attrs=attrs, dims=(text,))
        root.set(f"{i}-{name}.txt", b"x", attrs=attrs)
        root.set_group(f"{i}-{name}", attrs)
        root.set(f"{i}-{name}/object-{name}.b2nd", np.array([object()], dtype=object))
        root.set(f"{i}-structured.b2nd", np.zeros(2, dtype=[(text, "i4")]))
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        yield client


def test_nothing_of_a_publishers_is_markup(hostile_client: cat2.Client) -> None:
    root = hostile_client["foo"]
    things = [hostile_client, root, *root.values()]
    things += [v for group in root.values() if isinstance(group, cat2.Group) for v in group.values()]
    assert len(things) > 40
    for thing in things:
        assert_inert(thing._repr_html_())
        assert "\x1b" not in repr(thing)
        assert "\n" not in repr(thing)
        assert "\u202e" not in repr(thing)


def test_attributes_are_shown_and_kept_as_they_are(hostile_client: cat2.Client) -> None:
    array = hostile_client["foo"]["0-<script>alert(1)<_script>.b2nd"]
    assert array.attrs[HOSTILE[0]] == HOSTILE[0]
    assert "&lt;script&gt;" in array._repr_html_()


def test_a_representation_of_an_array_is_short(client: cat2.Client) -> None:
    assert repr(client["foo/cube"]) == "<RemoteArray foo/cube.b2nd shape=(7, 11, 5) dtype=int32>"
    assert repr(
        client["foo/structured"]["v"]
    ) == "<RemoteArray foo/structured.b2nd['v'] shape=(6, 4, 3) dtype=>f8>".replace(">f8>", f"{np.dtype('>f8')}>")
    assert "1.5 KiB" in client["foo/cube"]._repr_html_()
    attrs = {f"name{i}": "x" * 10_000 for i in range(500)}
    assert len(html_table("t", {}, attrs)) < 50_000


def test_a_service_that_is_away_is_said_in_the_table() -> None:
    with MemoryService({"foo": MemoryRoot({"a.txt": b"a"})}) as service:
        client = cat2.connect(service.url)
        root = client["foo"]
        assert "a.txt" in root._repr_html_()
    for thing in (client, root):
        assert "cannot reach" in thing._repr_html_()


def test_a_card_tells_the_state_of_what_it_shows() -> None:
    memory = MemoryRoot({"a.txt": b"a"})
    memory.set("x.b2nd", np.arange(4))
    with MemoryService({"foo": memory}) as service:
        client = cat2.connect(service.url)
        array, file = client["foo/x"], client["foo/a.txt"]
        for thing in (array, file):
            assert "live: this is the newest version" in thing._repr_html_()
        memory.set("x.b2nd", np.arange(5))
        service.rescan()
        assert "superseded: refresh() moves on" in array._repr_html_()
        service.directory.statuses["foo"] = {"online": False, "since": "2026-11-22T10:00:00Z"}
        assert "offline since 2026-11-22T10:00:00Z: what is cached can be read" in file._repr_html_()
        assert "foo (offline)" in client["foo"]._repr_html_()
    assert "not known: cannot reach" in array._repr_html_()


def test_a_card_does_not_wait_for_a_service_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryService({"foo": MemoryRoot({"a.txt": b"a"})}) as service:
        file = cat2.connect(service.url)["foo/a.txt"]
        released = threading.Event()
        monkeypatch.setattr(type(file), "freshness", property(lambda _: released.wait(60) and cat2.Freshness("live")))
        monkeypatch.setattr("caterva2_jupyter.client.card_state.PATIENCE_S", 0.01)
        assert "not known: no answer within 0.01 s" in file._repr_html_()
        released.set()


def test_values_are_one_short_line() -> None:
    for value in (
        np.arange(10**6),
        "x" * 10**6,
        b"y" * 10**6,
        ["z"] * 10**5,
        {"a": {"b": "c" * 10**5}},
        np.float32(1),
        None,
    ):
        text = format_value(value)
        assert len(text) < 250
        assert "\n" not in text
    assert format_value(np.float32(1.5)) == "1.5"
    assert plain("a\nb") == "a\\nb"
    assert [format_nbytes(n) for n in (0, 1023, 1024, 1 << 30, 8 << 40, 1 << 60)] == [
        "0 bytes", "1023 bytes", "1.0 KiB", "1.0 GiB", "8.0 TiB", "1024.0 PiB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "chunks", "lines"),
    [
        ((100,), (10,), 9),
        ((100, 200), (50, 50), 1 + 3),
        ((4, 6, 8), (2, 3, 4), 2 + 2 + 2),
        ((9, 4, 6, 8), (1, 2, 3, 4), 2 + 2 + 2),
        ((10**9,), (1000,), 23),
        ((3, 5), (3, 5), 0),
    ],
)
def test_a_picture_has_the_borders_of_chunks(shape: tuple[int, ...], chunks: tuple[int, ...], lines: int) -> None:
    picture = chunk_picture(shape, chunks)
    assert abs(picture.count("<line") - lines) <= (1 if max(shape) > 10**6 else 0)
    assert len(picture) < 20_000
    assert f">{shape[-1]:,}</text>" in picture
    assert_inert(picture)


def test_nothing_is_drawn_of_scalars_and_empty_arrays() -> None:
    assert chunk_picture((), ()) == chunk_picture((3, 0), (3, 1)) == ""
    assert "nan" not in chunk_picture((1, 1, 1), (5, 5, 5))
