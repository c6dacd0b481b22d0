"""The screenshots of ``docs/images``, made of a real JupyterLab: ``python docs/make_images.py`` in the repository.

Needs what the tests need, and Chromium. Images have few colours, so that they are small.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
from pathlib import Path

import blosc2
import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.processes import Network  # noqa: E402
from tests.ui.conftest import ARGUMENTS, find_chromium  # noqa: E402
from tests.ui.lab import Lab  # noqa: E402

IMAGES = REPOSITORY / "docs" / "images"


def make_root(directory: Path) -> None:
    """Something to look at: waves that travel, as temperatures."""
    shutil.copytree(REPOSITORY / "root-example", directory)
    weather = directory / "weather"
    weather.mkdir()
    t, y, x = np.ogrid[:48, :181, :360]
    waves = np.sin((x + 6 * t) / 24) * np.cos((y - 90) / 30) + 0.4 * np.sin((x - 3 * t) / 9 + y / 14)
    temperature = (288 - 40 * ((y - 90) / 90) ** 2 + 8 * waves).astype("f4")
    for name, values, units in (("temperature", temperature, "K"), ("pressure", temperature * 3.5, "hPa")):
        array = blosc2.asarray(values, urlpath=str(weather / f"{name}.b2nd"), chunks=(8, 181, 360), mode="w")
        array.vlmeta["units"] = units
        array.vlmeta["long_name"] = f"{name} at 2 m"


def save(page: Page, name: str) -> None:
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(160, dither=Image.Dither.NONE)
    image.save(IMAGES / f"{name}.png", optimize=True)
    print(IMAGES / f"{name}.png", (IMAGES / f"{name}.png").stat().st_size)


def run(page: Page, lab: Lab) -> None:
    def command(name: str, **arguments: object) -> None:
        page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments])

    page.goto(lab.url, wait_until="domcontentloaded")
    page.wait_for_selector("#jp-main-dock-panel", timeout=60_000)
    page.wait_for_function("() => !document.querySelector('#jupyterlab-splash')", timeout=60_000)
    command("caterva2:show")
    panel = page.locator("#caterva2-panel")

    def item(name: str) -> None:
        found = panel.get_by_role("treeitem", name=re.compile(rf"^{name}(,|$)"))
        found.locator(".c2b-name").click()

    for name in ("climate", "weather", "temperature"):
        item(name)
    panel.get_by_role("button", name="View", exact=True).click()
    page.locator(".c2-viewer-tab canvas").first.wait_for(timeout=60_000)
    panel.get_by_text(re.compile("[1-9].* of .* blocks")).wait_for()
    page.mouse.move(600, 5)
    page.wait_for_timeout(3000)  # until the plot is drawn, and its tooltip gone
    save(page, "lab-viewer")

    command("notebook:create-new", kernelName="python3")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    panel.get_by_role("button", name="Insert code", exact=True).click()
    panel.get_by_text("Inserted into").wait_for()
    command("notebook:run-all-cells")
    page.locator(".jp-OutputArea-output").first.wait_for(timeout=60_000)
    page.wait_for_timeout(1000)
    save(page, "lab-notebook")

    command("apputils:change-theme", theme="JupyterLab Dark")
    command("caterva2:show-state")
    page.locator(".c2-state-tab .c2b-cards").wait_for()
    page.wait_for_timeout(1500)
    save(page, "lab-state-dark")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        directory = Path(temporary)
        (directory / "net").mkdir()
        make_root(directory / "climate")
        network = Network(directory / "net")
        broker = network.start_broker()
        network.start_publisher("climate", directory / "climate")
        lab = Lab(directory / "lab", f"--SubscriberApp.broker={broker.url}", "--SubscriberApp.follow=climate")
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        try:
            run(chromium.new_page(viewport={"width": 1180, "height": 740}), lab)
        finally:
            chromium.close()
            lab.stop()
            network.close()


if __name__ == "__main__":
    main()
