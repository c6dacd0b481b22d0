"""The terminal browser, driven by keys, against a service in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static
from textual.widgets.tree import TreeNode

import caterva2_jupyter as cat2
from caterva2_jupyter.storage.memory_root import MemoryRoot
from caterva2_jupyter.tui.app import BrowserApp, main
from caterva2_jupyter.tui.download_screen import DownloadScreen
from caterva2_jupyter.tui.texts import default_slice, inert_lines
from caterva2_jupyter.tui.tree import PAGE, CatalogTree, Place
from tests.client.memory_service import MemoryService

CUBE = np.arange(6 * 30 * 20, dtype="i4").reshape(6, 30, 20)


@pytest.fixture(scope="module")
def service() -> Iterator[MemoryService]:
    root = MemoryRoot(
        {"README.md": b"# Title\n\x1b[31mred", "raw.bin": bytes(range(256)), "dir/x.b2nd": np.arange(5.0)}
    )
    root.set("cube.b2nd", CUBE, attrs={"units": "[b]K[/b]", "note": "\x1b[2J"})
    root.set("[red]evil.b2nd", np.arange(3))
    for number in range(PAGE + 7):
        root.set(f"many/a{number:04}.b2nd", np.arange(2))
    with MemoryService({"foo": root}) as running:
        yield running


def text_of(app: BrowserApp, widget: str) -> str:
    from rich.console import Console

    console = Console(width=200, file=None)
    with console.capture() as capture:
        console.print(app.query_one(widget, Static).content)
    return capture.get()


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await pilot.pause(0.02)


def driven(service: MemoryService, steps: Callable[[BrowserApp, Pilot[None]], Awaitable[None]]) -> None:
    async def run() -> None:
        with cat2.connect(service.url) as client:
            app = BrowserApp(client)
            async with app.run_test(size=(140, 45)) as pilot:
                await until(pilot, lambda: bool(app.query_one(CatalogTree).root.children))
                await steps(app, pilot)

    asyncio.run(run())


def labels(node: TreeNode[Place]) -> list[str]:
    return [str(child.label) for child in node.children]


async def open_root(app: BrowserApp, pilot: Pilot[None]) -> TreeNode[Place]:
    tree = app.query_one(CatalogTree)
    await pilot.press("down", "enter")
    root = tree.root.children[0]
    await until(pilot, lambda: bool(root.children))
    return root


async def go_to(app: BrowserApp, pilot: Pilot[None], node: TreeNode[Place]) -> None:
    tree = app.query_one(CatalogTree)
    tree.move_cursor(node)
    await pilot.pause()


def test_a_root_opens_and_names_stay_text(service: MemoryService) -> None:
    async def steps(app: BrowserApp, pilot: Pilot[None]) -> None:
        root = await open_root(app, pilot)
        assert any("[red]evil.b2nd" in label for label in labels(root))
        assert any("cube.b2nd  (6, 30, 20) int32" in label for label in labels(root))

    driven(service, steps)


def test_a_dataset_shows_what_is_known_and_a_corner_of_it(service: MemoryService) -> None:
    async def steps(app: BrowserApp, pilot: Pilot[None]) -> None:
        root = await open_root(app, pilot)
        await go_to(app, pilot, next(n for n in root.children if n.data and n.data.path == "cube.b2nd"))
        await until(pilot, lambda: "389" in text_of(app, "#preview"))
        told = text_of(app, "#facts")
        assert "(6, 30, 20)" in told
        assert "[b]K[/b]" in told
        assert "\\x1b[2J" in told
        assert app.query_one("#slice", Input).value == "0, :20, :10"
        await pilot.press("s")
        app.query_one("#slice", Input).value = "5, 1:3, -1"
        await pilot.press("enter")
        await until(pilot, lambda: str(CUBE[5, 1:3, -1]) in text_of(app, "#preview"))
        app.query_one("#slice", Input).value = "99"
        await pilot.press("enter")
        await until(pilot, lambda: "does not fit shape" in text_of(app, "#preview"))

    driven(service, steps)


def test_only_arrays_have_slices(service: MemoryService) -> None:
    async def steps(app: BrowserApp, pilot: Pilot[None]) -> None:
        root = await open_root(app, pilot)
        await go_to(app, pilot, next(n for n in root.children if n.data and n.data.path == "README.md"))
        await until(pilot, lambda: "# Title" in text_of(app, "#preview"))
        await pilot.press("s")
        await until(pilot, lambda: "choose an array first" in text_of(app, "#status"))

    driven(service, steps)


def test_files_are_text_or_a_dump(service: MemoryService) -> None:
    async def steps(app: BrowserApp, pilot: Pilot[None]) -> None:
        root = await open_root(app, pilot)
        await go_to(app, pilot, next(n for n in root.children if n.data and n.data.path == "README.md"))
        await until(pilot, lambda: "# Title\n\\x1b[31mred" in text_of(app, "#preview"))
        await go_to(app, pilot, next(n for n in root.children if n.data and n.data.path == "raw.bin"))
        await until(pilot, lambda: "00000010  10 11 12" in text_of(app, "#preview"))

    driven(service, steps)


def test_a_long_group_is_listed_some_hundred_at_a_time(service: MemoryService) -> None:
    async def steps(app: BrowserApp, pilot: Pilot[None]) -> None:
        root = await open_root(app, pilot)
        many = next(n for n in root.children if n.data and n.data.path == "many")
        await go_to(app, pilot, many)
        await pilot.press("enter")
        await until(pilot, lambda: len(many.children) == PAGE + 1)
        await go_to(app, pilot, many.children[-1])
        await pilot.press("enter")
        await until(pilot, lambda: len(many.children) == PAGE + 7)

    driven(service, steps)


def test_a_filter_finds_datasets_at_any_depth(service: MemoryService) -> None:
    async def steps(app: BrowserApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash")
        app.query_one("#filter", Input).value = "dtype:float64"
        await pilot.press("enter")
        await until(pilot, lambda: app.q == "dtype:float64" and bool(app.query_one(CatalogTree).root.children))
        root = await open_root(app, pilot)
        assert [label.split("  ")[0] for label in labels(root)] == ["dir/x.b2nd"]

    driven(service, steps)


def test_a_dataset_is_saved_under_the_name_that_is_given(service: MemoryService, tmp_path: Path) -> None:
    async def steps(app: BrowserApp, pilot: Pilot[None]) -> None:
        root = await open_root(app, pilot)
        await go_to(app, pilot, next(n for n in root.children if n.data and n.data.path == "raw.bin"))
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, DownloadScreen))
        app.screen.query_one(Input).value = str(tmp_path / "copy.bin")
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, DownloadScreen))
        assert "saved as" in text_of(app, "#status")
        assert (tmp_path / "copy.bin").read_bytes() == bytes(range(256))
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, DownloadScreen))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, DownloadScreen))

    driven(service, steps)


def test_a_subscriber_that_is_away_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--subscriber", "http://127.0.0.1:9"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("cat2tui: ")
    assert err.count("\n") == 1


def test_default_slices_are_small() -> None:
    for shape in [(), (3,), (10**9,), (5, 10**6), (4, 10**5, 10**5)]:
        key = default_slice(shape)
        assert key.count(",") == max(len(shape) - 1, 0)


def test_control_characters_are_shown() -> None:
    assert inert_lines("a\r\x07\n") == "a\\r\\x07\n"
