"""A browser, and what it asked for: tests of what a person sees, against real services."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
TIMEOUT_MS = 60_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def find_chromium() -> str | None:
    """Chromium as ``CHROMIUM`` says, or as the system has it."""
    named = os.environ.get("CHROMIUM")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return named or next((path for path in found if path), None)


@pytest.fixture(autouse=True)
def jp_asyncio_loop() -> None:
    """Playwright runs a loop of its own: none of pytest-jupyter's here."""


@pytest.fixture(autouse=True)
def jp_server_cleanup() -> None:
    """As above: there is no server in this process."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser, of Playwright's kind; gone with the module, as other tests need the loop's place."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium: install the package chromium, or set CHROMIUM to one")
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Asked:
    """One request of a page, as it was answered."""

    method: str
    route: str
    parameters: dict[str, str]
    status: int
    nbytes: int


@dataclass
class Watched:
    """A page, what it asked for, and what went wrong in it."""

    page: Any
    url: str
    asked: list[Asked] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(TIMEOUT_MS)
        self.page.on("response", self._note)
        self.page.on("requestfailed", lambda request: self.aborted.append(request.url))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", self._dialog)

    def _dialog(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note(self, response: Any) -> None:
        parts = urlsplit(response.url)
        if not response.url.startswith("http"):
            return
        parameters = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        nbytes = int(response.headers.get("content-length", 0))
        route = re.sub(r"^.*?/(api/v1|static|displays)/", r"\1/", parts.path)
        self.asked.append(Asked(response.request.method, route, parameters, response.status, nbytes))

    def open(self, address: str) -> None:
        """Show an address in the page, by its URL."""
        self.page.goto(f"{self.url}/#/{address}")

    def of(self, route: str) -> list[Asked]:
        """What was asked of a route of REST v1."""
        return [asked for asked in self.asked if asked.route == f"api/v1/{route}"]

    def selections(self) -> list[str]:
        return [asked.parameters.get("sel", "") for asked in self.of("values")]

    def forget(self) -> None:
        self.asked.clear()
        self.aborted.clear()

    def wait(self, condition: Callable[[], object], message: str = "") -> None:
        """Wait for something that is seen here, letting the browser's messages in."""
        for _ in range(TIMEOUT_MS // 50):
            if condition():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{message or 'it'} did not come: {self.asked[-5:]} {self.problems}")


@pytest.fixture
def watch(chromium: Any) -> Iterator[Callable[[str], Watched]]:
    """Makes watched pages; anything that went wrong in one fails the test."""
    made: list[Watched] = []

    def make(url: str) -> Watched:
        context = chromium.new_context(viewport={"width": 1280, "height": 800})
        made.append(Watched(context.new_page(), url.rstrip("/")))
        return made[-1]

    yield make
    for watched in made:
        watched.page.context.close()
    assert [problem for watched in made for problem in watched.problems] == []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What was to be seen when a test failed, into the directory that ``CATERVA2_SCREENSHOTS`` names."""
    outcome = yield
    folder = os.environ.get("CATERVA2_SCREENSHOTS")
    panel = getattr(item, "funcargs", {}).get("panel")
    if folder and panel is not None and outcome.get_result().failed:
        panel.page.screenshot(path=f"{folder}/{item.name[:60]}.png")
