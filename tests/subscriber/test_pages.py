"""The page and what it loads: who gets it, how long it is kept, and that nothing else comes that way."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from caterva2_jupyter.errors import NotFoundError
from caterva2_jupyter.subscriber import displays as displays_module
from caterva2_jupyter.subscriber.displays import Display, Displays, installed_displays
from caterva2_jupyter.subscriber.pages import PAGE_POLICY, Assets
from tests.subscriber.test_handlers import with_foo
from tests.web.serving import Served

MODULE = Path(displays_module.__file__)


def show_all(metadata: Mapping[str, Any]) -> bool:
    return True


PLANE = Display("plane", "Plane", MODULE, show_all)


@pytest.fixture
def assets(tmp_path: Path) -> Assets:
    (tmp_path / "viewer.js").write_text("export const viewer = 1;")
    (tmp_path / "page.js").write_text("'page'")
    (tmp_path / "page.css").write_text("body {}")
    (tmp_path / "index.html").write_text('<script src="static/page.js"></script><p data-viewer="static/viewer.js">')
    (tmp_path / "secret.pem").write_text("a key")
    return Assets(Displays([PLANE]), tmp_path)


def test_the_page_names_what_it_loads_by_digest(assets: Assets) -> None:
    page = assets.page().decode()
    for name in ("page.js", "viewer.js"):
        assert f'"static/{name}?v={assets.get(name).digest}"' in page


@pytest.mark.parametrize("name", ["secret.pem", "../viewer.js", "/etc/passwd", "", ".", "displays", "index.html"])
def test_only_built_files_are_assets(assets: Assets, name: str) -> None:
    with pytest.raises(NotFoundError):
        assets.get(name)


def test_a_file_that_was_built_again_has_another_digest(assets: Assets, tmp_path: Path) -> None:
    before = assets.get("viewer.js").digest
    (tmp_path / "viewer.js").write_text("export const viewer = 'of another length';")
    assert assets.get("viewer.js").digest != before


def test_an_asset_is_packed_alike_every_time(assets: Assets) -> None:
    asset = assets.get("viewer.js")
    assert gzip.decompress(asset.packed()) == asset.body
    assert asset.packed() == assets.get("viewer.js").packed()


def test_what_is_not_built_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="make assets"):
        Assets(Displays([]), tmp_path / "nothing").page()


def test_a_display_whose_module_is_gone_is_left_out(assets: Assets, caplog: pytest.LogCaptureFixture) -> None:
    gone = replace(PLANE, name="gone", module=Path("/does/not/exist.js"))
    both = Assets(Displays([gone, PLANE]), MODULE.parent.parent / "static")
    assert [form["name"] for form in both.listing([gone, PLANE])["displays"]] == ["plane"]
    assert "gone" in caplog.text


@dataclass
class Odd:
    """A plugin with something wrong."""

    name: object = "odd"
    title: object = "Odd"
    module: object = MODULE

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        raise KeyError("geometry")


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [
        (Odd(name="../odd"), "lower-case letters"),
        (Odd(name=3), "name is not a str"),
        (Odd(title=None), "title is not a str"),
        (Odd(module="odd.js"), "module is not a Path"),
        (object(), "name is not a str"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_left_out(plugin: Any, problem: str, caplog: pytest.LogCaptureFixture) -> None:
    assert list(Displays([plugin])) == []
    assert problem in caplog.text


def test_of_two_plugins_of_one_name_the_first_stays() -> None:
    other = replace(PLANE, title="Another")
    assert [plugin.title for plugin in Displays([PLANE, other])] == ["Plane"]


def test_a_plugin_that_fails_to_match_does_not_show(caplog: pytest.LogCaptureFixture) -> None:
    assert Displays([Odd()]).matching({"kind": "array"}) == []  # type: ignore[list-item]
    assert "KeyError" in caplog.text


def test_installed_plugins_are_found_and_broken_ones_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points = [
        EntryPoint("plane", f"{__name__}:PLANE", displays_module.ENTRY_POINTS),
        EntryPoint("broken", "no_such_module_here:display", displays_module.ENTRY_POINTS),
    ]
    monkeypatch.setattr(displays_module, "entry_points", lambda group: points)
    assert [plugin.name for plugin in installed_displays()] == ["tomography", "plane"]
    assert "broken" in caplog.text


def test_the_page_comes_with_a_strict_policy(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        answer = await sub.fetch("/")
        assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "unsafe-inline" not in PAGE_POLICY.split("script-src", 1)[1].split(";", 1)[0]

    with_foo(test, tmp_path)


def test_assets_named_by_digest_are_kept_for_ever_others_checked(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        listing: Any = await sub.json("/api/v1/displays")
        named = await sub.fetch("/" + listing["viewer"], Accept_Encoding="gzip")
        assert named.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert named.headers["X-Consumed-Content-Encoding"] == "gzip"
        bare = await sub.fetch("/static/viewer.js")
        assert bare.headers["Cache-Control"] == "no-cache"
        assert bare.headers["Content-Type"].startswith("text/javascript")
        again = await sub.fetch("/static/viewer.js", If_None_Match=bare.headers["Etag"])
        assert (again.code, again.body) == (304, b"")
        module = await sub.fetch("/" + listing["displays"][0]["module"])
        assert "immutable" in module.headers["Cache-Control"]
        assert b"render" in module.body

    with_foo(test, tmp_path)


def test_displays_are_told_for_a_dataset(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        assert [d["name"] for d in (await sub.json("/api/v1/displays"))["displays"]] == ["tomography"]
        assert (await sub.json("/api/v1/displays?path=foo/dir/grid.b2nd"))["displays"] == []
        assert (await sub.fetch("/api/v1/displays?path=foo/none")).code == 404

    with_foo(test, tmp_path)


@pytest.mark.parametrize(
    "target", ["/static/..%2fdisplays.py", "/static/%2e%2e", "/displays/..%2fx.js", "/displays/none.js"]
)
def test_other_files_do_not_come_that_way(tmp_path: Path, target: str) -> None:
    async def test(sub: Served) -> None:
        assert (await sub.fetch(target)).code == 404

    with_foo(test, tmp_path)


def test_old_addresses_are_redirected_inside_the_page(tmp_path: Path) -> None:
    async def test(sub: Served) -> None:
        answer = await sub.fetch("/roots/foo/dir%2f%3Cb%3E?x=1")
        assert (answer.code, answer.headers["Location"]) == (302, "/#/foo/dir/%3Cb%3E")

    with_foo(test, tmp_path)
