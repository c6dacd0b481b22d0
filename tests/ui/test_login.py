"""Logging in to the page of a stand-alone subscriber with a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from caterva2_jupyter.subscriber.users import UserStore
from tests.processes import Network, Service
from tests.ui.conftest import Watched

ADA, PASSWORD = "ada@example.org", "correct horse"
Watch = Callable[[str], Watched]


@pytest.fixture(scope="module")
def subscriber(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    network = Network(tmp_path_factory.mktemp("login"))
    store = UserStore(network.directory / "sub" / "db.sqlite")
    store.add(ADA, PASSWORD)
    store.close()
    yield network.start_subscriber(CATERVA2_SECRET="a long random text for tests")
    network.close()


def test_one_logs_in_comes_back_to_what_was_asked_for_and_logs_out(subscriber: Service, watch: Watch) -> None:
    watched = watch(subscriber.url)
    page = watched.page
    watched.open("@public")
    page.get_by_label("E-mail").wait_for()
    assert "/login?next=/" in page.url
    page.get_by_label("E-mail").fill(ADA)
    page.get_by_label("Password").fill("wrong horse")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").get_by_text("There is no user").wait_for()
    page.get_by_label("E-mail").fill(ADA)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.locator(".c2p-user").get_by_text(ADA).wait_for()
    assert page.url == f"{subscriber.url}/#/@public"
    page.get_by_role("treeitem", name="@personal").first.wait_for()
    page.get_by_role("link", name="Log out").click()
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Password").wait_for()
    page.goto(f"{subscriber.url}/")
    page.get_by_label("Password").wait_for()


def test_the_pages_keep_their_own_policy(subscriber: Service, watch: Watch) -> None:
    watched = watch(subscriber.url)
    watched.page.goto(f"{subscriber.url}/login")
    watched.page.get_by_role("button", name="Log in").wait_for()
    assert watched.page.evaluate("getComputedStyle(document.querySelector('button')).cursor") == "pointer"
