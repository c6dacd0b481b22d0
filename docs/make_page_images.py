"""The screenshots of the page in ``docs/images``: ``python docs/make_page_images.py`` in the repository."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from make_images import ARGUMENTS, Network, find_chromium, make_root, save
from playwright.sync_api import Page, sync_playwright

ADDRESS = "climate/weather/temperature.b2nd"


def run(page: Page, url: str) -> None:
    page.goto(f"{url}/#/{ADDRESS}")
    page.locator(".c2v-viewer canvas").first.wait_for()
    page.get_by_role("treeitem", name="temperature").wait_for()
    page.wait_for_timeout(1500)  # until nothing moves any more
    save(page, "page-viewer")
    page.get_by_role("tab", name="Tomography").click()
    page.locator(".c2t canvas[data-position]").nth(2).wait_for()
    page.wait_for_timeout(500)
    save(page, "page-tomography")


def main() -> None:
    """Start a publisher and a subscriber, and take the pictures."""
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        make_root(here / "root")
        network = Network(here)
        try:
            publisher = network.start_publisher("climate", here / "root")
            subscriber = network.start_subscriber("--publisher", publisher.url)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
                page = browser.new_page(viewport={"width": 1280, "height": 720})
                page.request.post(f"{subscriber.url}/api/v1/roots/climate/follow")
                run(page, subscriber.url)
                browser.close()
        finally:
            network.close()


if __name__ == "__main__":
    main()
