"""What notebooks show of remote arrays, in JupyterLab, Notebook 7 and Voila: one real server, a real browser."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.processes import Network, wait_for
from tests.ui.arrays import cube, write
from tests.ui.conftest import Watched, find_chromium
from tests.ui.lab import TOKEN, Lab

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("anywidget")
pytest.importorskip("matplotlib")

HOSTILE = "<img src=x onerror=alert(1)>"
PLANE_NBYTES = 90 * 120 * 4
Watch = Callable[[str], Watched]


def notebook(path: Path, *cells: str) -> None:
    """A notebook of code cells, without outputs."""
    code = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
        for n, source in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": code, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


BEGIN = "import caterva2_jupyter as cat2\nclient = cat2.connect()"
VIEW = "array = client['climate/weather/temperature']\narray.view(height=420)"


class Site:
    """A broker, a publisher, and one Jupyter server for all front ends."""

    def __init__(self, directory: Path) -> None:
        (directory / "net").mkdir()
        self.network = Network(directory / "net")
        self.climate = directory / "climate"
        dims = ["time", "lat", "lon"]
        self.write = lambda offset: write(
            self.climate / "weather" / "temperature.b2nd", cube(offset), units="K", long_name="temperature", dims=dims
        )
        self.write(0.0)
        write(self.climate / "weather" / "line.b2nd", np.sin(np.arange(500) / 30), note=HOSTILE)
        write(self.climate / f"{HOSTILE}.b2nd", np.arange(10), link=HOSTILE)
        write(self.climate / "ten" / "zeros.b2nd", np.zeros(10))
        (self.climate / "run.log").write_bytes(b"a line of a long log\n" * (17 << 20 >> 4))
        broker = self.network.start_broker()
        self.network.start_publisher("climate", self.climate)
        self.lab = Lab(
            directory / "lab",
            f"--SubscriberApp.broker={broker.url}",
            "--SubscriberApp.follow=climate",
            "--JupyterNotebookApp.expose_app_in_browser=True",
        )
        notebook(self.lab.work / "view.ipynb", BEGIN, VIEW)
        notebook(self.lab.work / "browse.ipynb", BEGIN, "client.browse()", "")
        notebook(self.lab.work / "show.ipynb", BEGIN, VIEW, "array", "array.watch(time=3)")

    def url(self, path: str) -> str:
        return f"{self.lab.base}{path}{'&' if '?' in path else '?'}token={TOKEN}"

    def close(self) -> None:
        self.lab.stop()
        self.network.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if find_chromium() is None:
        pytest.skip("no Chromium: install the package chromium, or set CHROMIUM to one")
    started = Site(tmp_path_factory.mktemp("widgets"))
    yield started
    started.close()


def run_all(page: Page) -> None:
    """Run all cells, once there is a kernel."""
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")


class Notebook:
    """A notebook in JupyterLab, run from top to bottom."""

    def __init__(self, watched: Watched, site: Site, name: str) -> None:
        self.watched, self.page = watched, watched.page
        watched.page.goto(site.lab.url)
        watched.page.locator("#jp-main-dock-panel").wait_for()
        watched.page.locator("#jupyterlab-splash").wait_for(state="detached")
        self.execute("docmanager:open", {"path": name, "factory": "Notebook", "kernel": {"name": "python3"}})
        run_all(self.page)

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> None:
        self.page.evaluate("([c, a]) => window.jupyterapp.commands.execute(c, a)", [command, arguments or {}])

    def run_last(self, source: str) -> str:
        """Run a line in the last cell; what it shows."""
        self.page.evaluate(
            """source => {
                const cells = window.jupyterapp.shell.currentWidget.content;
                cells.deselectAll();
                cells.activeCellIndex = cells.widgets.length - 1;
                cells.activeCell.model.sharedModel.setSource(source);
            }""",
            source,
        )
        self.execute("notebook:run-cell")
        output = self.page.locator(".jp-Cell").last.locator(".jp-OutputArea-output")
        output.first.wait_for()
        return str(output.first.inner_text())


def shot(page: Page, name: str) -> None:
    """What a person sees, where pictures are wanted; ``CATERVA2_SCREENSHOTS=docs/images`` makes the documentation's."""
    if folder := os.environ.get("CATERVA2_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def see_a_plane(page: Any) -> None:
    """The viewer shows a plane, and its slider another one."""
    page.get_by_role("figure", name=re.compile("temperature")).first.wait_for()
    # Those of the colours have names of their own.
    box = page.locator(".c2v-viewer [role=slider]:not([aria-label])").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 10, steps=3)
    page.mouse.up()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.c2v-viewer [role=slider]:not([aria-label])')]"
        ".some(slider => Number(slider.getAttribute('aria-valuenow')) > 0)"
    )
    page.locator(".c2v-viewer canvas").first.wait_for()


@pytest.mark.timeout(240)
def test_a_viewer_in_jupyterlab_asks_by_its_kernel(site: Site, watch: Watch) -> None:
    opened = Notebook(watch(site.lab.base), site, "view.ipynb")
    see_a_plane(opened.page)
    shot(opened.page, "notebook-view")
    values = wait_for(lambda: [asked for asked in site.lab.asked("/api/v1/values")][1:], message="two planes")
    assert {asked.nbytes for asked in values} == {PLANE_NBYTES}
    # It is the kernel that asks: the page has no address of the service, and no token of it.
    assert not opened.watched.of("values")
    opened.page.evaluate("() => window.jupyterapp.commands.execute('notebook:insert-cell-below')")
    opened.run_last("client['climate/run.log'].view(height=300)")
    preview = opened.page.locator("iframe.c2v-preview").content_frame
    preview.get_by_text("(the first 2,097,152 of").wait_for()
    assert preview.get_by_text("a line of a long log").count()
    shot(opened.page, "notebook-long-text")
    (asked,) = [asked for asked in site.lab.asked("/api/v1/file") if "run.log" in str(asked)]
    assert asked.nbytes == 2 << 20


@pytest.mark.timeout(240)
def test_a_browser_in_jupyterlab_hands_over_what_is_chosen_by_keys_alone(site: Site, watch: Watch) -> None:
    opened = Notebook(watch(site.lab.base), site, "browse.ipynb")
    page = opened.page
    tree = page.get_by_role("tree", name="Datasets")
    tree.get_by_role("treeitem", name="climate").first.wait_for()
    tree.get_by_role("treeitem").first.focus()
    page.keyboard.press("ArrowRight")
    tree.get_by_role("treeitem", name="weather").wait_for()
    assert tree.get_by_role("treeitem", name=re.compile("^<img src=x")).count() == 1
    page.keyboard.type("we")
    page.keyboard.press("Enter")
    tree.get_by_role("treeitem", name=re.compile("^temperature")).wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator(".c2-card").get_by_text("climate/weather/temperature.b2nd").wait_for()
    page.locator(".jp-OutputArea img").first.wait_for()
    shot(page, "notebook-browse")
    button = page.get_by_role("button", name="Use as variable")
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_text("temperature is <RemoteArray").wait_for()
    assert opened.run_last("temperature.shape") == "(40, 90, 120)"
    line = page.get_by_placeholder(re.compile("^filter"))
    line.fill("ndim>2")
    line.press("Enter")
    tree.get_by_role("treeitem", name=re.compile("^climate.weather.temperature")).wait_for()
    assert tree.get_by_role("treeitem").count() == 1


@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", ["voila/render/show.ipynb", "notebooks/show.ipynb?factory=Notebook"])
def test_the_same_is_seen_in_voila_and_notebook_7(site: Site, watch: Watch, path: str) -> None:
    watched = watch(site.lab.base)
    page = watched.page
    page.goto(site.url(path))
    if path.startswith("notebooks"):
        run_all(page)
    # The last cell of all: whoever runs cells is given the focus by the notebook.
    page.get_by_role("button", name="Stop").wait_for()
    see_a_plane(page)
    page.locator(".c2-card").get_by_text("climate/weather/temperature.b2nd").wait_for()
    status = page.get_by_role("status").filter(has_text="live")
    status.first.wait_for()
    site.write(float(len(site.lab.asked("/api/v1/values"))))
    page.get_by_role("status").filter(has_text=re.compile("drawn at .*, 2 times")).wait_for()
    shot(page, "notebook-watch" if path.startswith("voila") else "notebook-7")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("status").filter(has_text="stopped").wait_for()
    # Notebook 7.6 itself trips over a plugin without a schema, with or without our extension.
    watched.problems[:] = [problem for problem in watched.problems if "reading 'schema'" not in problem]
