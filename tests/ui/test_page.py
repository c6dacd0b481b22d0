"""The page of a stand-alone subscriber in a real browser: what is seen, and what it costs in requests and bytes."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
import pytest

from tests.processes import Network, Service, wait_for
from tests.ui.conftest import Watched, find_chromium
from tests.ui.data import HOSTILE, MANY, cube, make_root

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE_NBYTES = 300 * 400 * 4
PLANE_NBYTES = 30 * 40 * 4

Watch = Callable[[str], Watched]


@dataclass
class Site:
    """A subscriber with its page, and the root that it follows."""

    subscriber: Service
    root: Path

    @property
    def url(self) -> str:
        return self.subscriber.url

    def logged(self, route: str) -> int:
        """How many requests of a route the service itself has answered."""
        return self.subscriber.log.read_text().count(f" GET /api/v1/{route} ")


def fetch(url: str, method: str = "GET") -> bytes:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        error.close()
        raise AssertionError(f"{url}: {error.code}") from None


def install_example(directory: Path) -> None:
    """The example plugin of docs/displays.md, as pip would install it."""
    text = (REPOSITORY / "docs" / "displays.md").read_text()
    blocks = dict(re.findall(r"```(python|javascript|toml)\n(.*?)```", text, re.DOTALL))
    package, information = directory / "histogram_display", directory / "histogram_display-1.0.dist-info"
    package.mkdir(parents=True)
    information.mkdir()
    (package / "__init__.py").write_text(blocks["python"])
    (package / "histogram.js").write_text(blocks["javascript"])
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: histogram-display\nVersion: 1.0\n")
    point = re.search(r'\[project\.entry-points\."([^"]+)"\]\n(\w+) = "([^"]+)"', blocks["toml"])
    assert point is not None
    (information / "entry_points.txt").write_text("[{}]\n{} = {}\n".format(*point.groups()))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if find_chromium() is None:
        pytest.skip("no Chromium: install the package chromium, or set CHROMIUM to one")
    directory = tmp_path_factory.mktemp("page")
    root = make_root(directory / "root")
    install_example(directory / "site")
    network = Network(directory)
    try:
        publisher = network.start_publisher("foo", root)
        options = ["--publisher", publisher.url, "--loglevel", "debug"]
        subscriber = network.start_subscriber(*options, PYTHONPATH=f"{directory / 'site'}:{REPOSITORY}")
        wait_for(lambda: fetch(f"{subscriber.url}/api/v1/roots/foo/follow", "POST"))
        wait_for(lambda: b"vector.b2nd" in fetch(f"{subscriber.url}/api/list/foo"))
        yield Site(subscriber, root)
    finally:
        network.close()


def seen(site: Site, watch: Watch, address: str) -> Watched:
    """A page that shows a dataset, its plot drawn."""
    watched = watch(site.url)
    watched.open(address)
    watched.page.locator(".c2v-viewer canvas").first.wait_for()
    return watched


def test_a_dataset_is_opened_by_three_requests_and_its_own_bytes(site: Site, watch: Watch) -> None:
    before = site.logged("values")
    watched = seen(site, watch, "foo/image.b2nd")
    watched.wait(lambda: watched.of("values"))
    assert [asked.nbytes for asked in watched.of("values")] == [IMAGE_NBYTES]
    assert site.logged("values") == before + 1
    watched.wait(lambda: watched.of("displays"))
    assert len(watched.of("meta")) == 1
    assert not [asked for asked in watched.asked if "catalog" in asked.route and asked.parameters.get("limit") == "500"]
    assert watched.page.get_by_role("figure", name="image").count() == 1


def test_what_has_been_loaded_once_is_not_asked_for_again(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/line.b2nd")
    watched.forget()
    watched.page.reload()
    watched.page.locator(".c2v-viewer canvas").first.wait_for()
    immutable = [asked for asked in watched.asked if asked.route.startswith("static/") and asked.status != 304]
    cached = watched.page.evaluate(
        "performance.getEntriesByType('resource').filter(e => e.name.includes('/static/')).map(e => e.transferSize)"
    )
    assert len(immutable) == 3
    assert cached == [0, 0, 0]


def test_a_slider_asks_for_one_plane_and_remembers_it(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/cube.b2nd")
    watched.wait(lambda: watched.selections() == ["0,:,:"])
    assert [asked.nbytes for asked in watched.of("values")] == [PLANE_NBYTES]
    slider = watched.page.get_by_role("slider", name="D0", exact=True)
    slider.focus()
    for _ in range(5):
        watched.page.keyboard.press("ArrowUp")
    watched.wait(lambda: watched.selections() == ["0,:,:", "5,:,:"])
    for _ in range(5):
        watched.page.keyboard.press("ArrowDown")
    watched.wait(lambda: slider.get_attribute("aria-valuenow") == "0")
    watched.page.wait_for_timeout(500)  # longer than the slider waits before it asks
    assert watched.selections() == ["0,:,:", "5,:,:"]


def test_axes_have_their_names_and_a_position_can_be_typed(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/named.b2nd")
    slider = watched.page.get_by_role("slider", name="time", exact=True)
    box = watched.page.get_by_role("spinbutton", name="time", exact=True)
    box.fill("11")
    watched.wait(lambda: "11,:,:" in watched.selections())
    assert slider.get_attribute("aria-valuenow") == "11"
    box.fill("12")  # there is none of it
    box.blur()
    assert box.input_value() == "11"
    x_axis = watched.page.get_by_role("radiogroup", name="Dimension as x axis")
    assert x_axis.get_by_role("radio").all_inner_texts() == ["time", "latitude", "longitude"]
    watched.page.locator("figure svg text", has_text="longitude").wait_for()
    assert "12,:,:" not in watched.selections()


def test_a_link_that_went_through_a_login_opens_its_dataset(site: Site, watch: Watch) -> None:
    watched = watch(site.url)
    watched.page.goto(f"{watched.url}/?open=foo%2Fcube.b2nd")
    watched.page.get_by_role("figure", name="cube").wait_for()
    assert watched.page.url == f"{watched.url}/#/foo/cube.b2nd"


def test_an_overtaken_slice_is_aborted_and_can_be_seen_later(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/cube.b2nd")
    held = []
    watched.page.route("**/api/v1/values?*sel=1%2C*", lambda route: held.append(route))
    slider = watched.page.get_by_role("slider", name="D0", exact=True)
    slider.focus()
    watched.page.keyboard.press("ArrowUp")
    watched.wait(lambda: held, "the first step")
    watched.page.keyboard.press("ArrowUp")
    watched.wait(lambda: "2,:,:" in watched.selections(), "the second step")
    watched.wait(lambda: any("sel=1%2C" in url for url in watched.aborted), "the abort")
    watched.page.unroute("**/api/v1/values?*sel=1%2C*")
    watched.page.get_by_role("figure", name="cube").wait_for()
    watched.page.keyboard.press("ArrowDown")
    watched.wait(lambda: "1,:,:" in watched.selections(), "the overtaken slice")
    assert not watched.page.get_by_text("Retry?").count()


def test_a_vector_of_1e9_items_opens_by_an_overview(site: Site, watch: Watch) -> None:
    start = time.monotonic()
    watched = seen(site, watch, "foo/vector.b2nd")
    assert time.monotonic() - start < 20
    assert watched.page.evaluate("1 + 1") == 2
    assert watched.of("values") == []
    assert [asked.status for asked in watched.of("overview")] == [200]
    assert sum(asked.nbytes for asked in watched.asked if asked.route.startswith("api/")) < 100_000
    began = time.monotonic()
    assert json.loads(fetch(f"{site.url}/api/v1/health"))["status"] == "ok"
    assert time.monotonic() - began < 5
    watched.page.get_by_role("figure", name="vector").wait_for()


def test_rows_of_a_long_vector_are_read_one_by_one(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/vector.b2nd")
    watched.page.get_by_role("button", name="Toggle sidebar").click()
    watched.page.get_by_role("treeitem", name="rows", exact=True).click()
    watched.page.get_by_role("tab", name="Line").click()
    watched.wait(lambda: watched.selections() == ["0:65536"])
    assert watched.of("values")[0].nbytes == 65_536 * 8


def test_a_plane_over_the_limit_opens_by_an_overview(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/plane.b2nd")
    assert watched.of("values") == []
    (overview,) = watched.of("overview")
    assert overview.nbytes <= 1024 * 1024 * 4


def test_a_nexus_file_shows_its_default_plot(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/nexus.h5")
    watched.page.get_by_role("tab", name="NX Heatmap").wait_for()
    watched.page.get_by_text("x (mm)").wait_for()
    assert {asked.parameters["path"].rsplit("/", 1)[1] for asked in watched.of("values")} == {
        "counts.b2nd",
        "x.b2nd",
        "y.b2nd",
    }


def test_a_group_without_a_plot_shows_what_is_in_it(site: Site, watch: Watch) -> None:
    watched = watch(site.url)
    watched.open("foo")
    contents = watched.page.get_by_role("table", name="Contents of foo")
    contents.get_by_role("row", name=re.compile(r"^cube 12 × 30 × 40 float32")).wait_for()
    contents.get_by_role("button", name="readme.md").click()  # a file: its preview
    watched.page.frame_locator(".c2v-preview").get_by_role("heading", name="Heading").wait_for()
    watched.open("foo/kinds.h5")
    watched.page.get_by_role("table", name="Contents of kinds.h5").get_by_role("button", name="rgb").press("Enter")
    watched.page.get_by_role("tab", name="RGB").wait_for()


def test_a_plot_whose_context_the_browser_took_is_drawn_again(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/image.b2nd")
    watched.wait(lambda: watched.of("values"))
    canvas = watched.page.locator(".c2v-viewer canvas").first
    canvas.evaluate(
        "e => { window.taken = e; (e.getContext('webgl2') ?? e.getContext('webgl'))"
        ".getExtension('WEBGL_lose_context').loseContext(); }"
    )
    watched.page.wait_for_function(
        "() => { const now = document.querySelector('.c2v-viewer canvas'); return now && now !== window.taken; }"
    )
    watched.wait(lambda: len(watched.of("values")) == 2)


@pytest.mark.parametrize(
    ("address", "tabs"),
    [
        ("half.b2nd", "Heatmap"),
        ("big-endian.b2nd", "Heatmap"),
        ("complex.b2nd", "Line"),
        ("kinds.h5/rgb", "RGB"),
        ("kinds.h5/states", "Line"),
    ],
)
def test_every_kind_of_number_is_drawn(site: Site, watch: Watch, address: str, tabs: str) -> None:
    watched = seen(site, watch, f"foo/{address}")
    watched.page.get_by_role("tab", name=tabs).first.wait_for()


@pytest.mark.parametrize(
    ("address", "texts"),
    [
        ("table.b2nd", ["row-3", "name"]),
        ("kinds.h5/text", ["plain", HOSTILE]),
        ("kinds.h5/scalar", [str(2**60)]),
    ],
)
def test_what_is_not_a_plot_is_text(site: Site, watch: Watch, address: str, texts: list[str]) -> None:
    watched = watch(site.url)
    watched.open(f"foo/{address}")
    for text in texts:
        watched.page.locator("#h5w-main-area").get_by_text(text, exact=True).first.wait_for()


def test_attributes_are_text_and_numbers_that_json_lacks_are_shown(site: Site, watch: Watch) -> None:
    watched = watch(site.url)
    watched.open("foo/kinds.h5/scalar")
    watched.page.get_by_role("tab", name="Inspect").click()
    area = watched.page.locator("#h5w-main-area")
    area.get_by_text(HOSTILE, exact=True).wait_for()
    area.get_by_text(f'"{HOSTILE}"', exact=True).wait_for()
    area.get_by_text('"NaN"', exact=True).wait_for()
    assert watched.page.locator("img[src='x']").count() == 0


def test_a_large_group_is_listed_page_by_page(site: Site, watch: Watch) -> None:
    watched = watch(site.url)
    watched.open("foo/kinds.h5/many")
    watched.page.get_by_role("button", name="Toggle sidebar").click()
    watched.page.get_by_role("treeitem", name="d0499", exact=True).wait_for()
    listed = [asked for asked in watched.asked if asked.parameters.get("limit") == "500"]
    assert 1 <= len(listed) <= 3
    assert watched.page.get_by_role("treeitem", name="d0500", exact=True).count() == 0
    watched.page.get_by_role("treeitem", name=re.compile("⋯ after d0499")).click()
    watched.page.get_by_role("treeitem", name="d0999", exact=True).wait_for()
    assert MANY > 1000


def preview(watched: Watched) -> object:
    return watched.page.frame_locator("iframe.c2v-preview").locator("body")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("readme.md", "Heading <img"),
        (f"{HOSTILE}.txt", f"text {HOSTILE}"),
        ("vector.svg", "<svg"),
        ("note.ipynb", "From a notebook"),
        ("fake.png", "not an image"),
    ],
)
def test_files_are_shown_and_nothing_in_them_runs(site: Site, watch: Watch, name: str, text: str) -> None:
    watched = watch(site.url)
    watched.page.goto(f"{site.url}/")
    watched.page.evaluate(
        "address => { location.hash = '#/' + address.split('/').map(encodeURIComponent).join('/') }", f"foo/{name}"
    )
    body = preview(watched)
    body.get_by_text(text).first.wait_for()
    frame = watched.page.locator("iframe.c2v-preview")
    assert frame.get_attribute("sandbox") == "allow-popups"
    assert body.locator("script, img[src='x'], svg, [onerror], [onload]").count() == 0
    assert body.locator("a[href^='javascript']").count() == 0


def test_an_image_is_shown(site: Site, watch: Watch) -> None:
    watched = watch(site.url)
    watched.open("foo/pixel.png")
    image = preview(watched).get_by_role("img", name="pixel.png")
    watched.wait(lambda: image.evaluate("image => image.naturalWidth") == 1)


def test_three_planes_of_a_volume_are_linked_and_asked_for_one_by_one(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/cube.b2nd")
    watched.wait(lambda: watched.of("values"))
    watched.page.get_by_role("tab", name="Tomography").click()
    canvases = watched.page.locator(".c2t canvas")
    watched.wait(lambda: len(watched.of("values")) == 4)
    assert sorted(watched.selections()[1:]) == ["6,:,:", ":,15,:", ":,:,20"]
    status = watched.page.locator(".c2t-readout")
    watched.wait(lambda: str(float(cube()[6, 15, 20]))[:6] in status.inner_text())
    watched.forget()
    watched.page.get_by_role("slider", name="Position along D0").focus()
    watched.page.keyboard.press("ArrowRight")
    watched.wait(lambda: watched.selections() == ["7,:,:"])
    watched.forget()
    canvases.nth(0).focus()  # rows are D1, columns D2
    watched.page.keyboard.press("ArrowDown")
    watched.wait(lambda: watched.selections() == [":,16,:"])
    assert watched.page.get_by_role("spinbutton", name="Index along D1").input_value() == "16"
    watched.wait(lambda: str(float(cube()[7, 16, 20]))[:6] in status.inner_text())
    pixels = "document.querySelector('.c2t canvas').getContext('2d').getImageData(0, 0, 40, 30).data"
    assert watched.page.evaluate(f"new Set({pixels}).size") > 20
    slices = [watched.page.get_by_role("slider", name=f"Position along D{axis}") for axis in range(3)]
    assert [one.get_attribute("max") for one in slices] == ["11", "29", "39"]


def test_planes_that_are_overtaken_are_aborted(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/cube.b2nd")
    watched.page.get_by_role("tab", name="Tomography").click()
    watched.wait(lambda: len(watched.of("values")) == 4)
    held = []
    watched.page.route("**/api/v1/values?*sel=7%2C*", lambda route: held.append(route))
    watched.page.get_by_role("slider", name="Position along D0").focus()
    watched.page.keyboard.press("ArrowRight")
    watched.wait(lambda: held)
    watched.page.keyboard.press("ArrowRight")
    watched.wait(lambda: "8,:,:" in watched.selections())
    watched.wait(lambda: any("sel=7%2C" in url for url in watched.aborted))


def test_the_example_plugin_of_the_documentation_is_shown(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/line.b2nd")
    watched.page.get_by_role("tab", name="Histogram").click()
    table = watched.page.get_by_role("table", name="Histogram of foo/line.b2nd")
    table.wait_for()
    counts = [int(text) for text in table.locator("td:nth-child(2)").all_inner_texts()]
    expected, _ = np.histogram(np.sin(np.arange(1000) / 50), 20)
    assert sum(counts) == 1000
    assert abs(np.array(counts) - expected).max() <= 1
    watched.page.get_by_role("tab", name="Viewer").click()
    watched.page.get_by_role("figure", name="line").wait_for()


def test_the_viewer_is_worked_by_keys_alone(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/cube.b2nd")
    watched.page.get_by_role("tab", name="Tomography").wait_for()
    watched.page.get_by_role("tab", name="Viewer").focus()
    watched.page.keyboard.press("ArrowRight")
    watched.page.keyboard.press("Enter")
    watched.page.get_by_role("slider", name="Darkest value").wait_for()
    unnamed = watched.page.evaluate(
        """() => [...document.querySelectorAll('button, input, canvas, iframe')].filter(e => e.checkVisibility() &&
            !(e.ariaLabel || e.title || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)"""
    )
    assert unnamed == []


def test_the_dark_theme_does_not_follow_the_system(site: Site, watch: Watch) -> None:
    watched = seen(site, watch, "foo/line.b2nd")
    watched.page.emulate_media(color_scheme="dark")
    root = watched.page.locator(".c2v-viewer")
    assert root.get_attribute("data-theme") == "light"
    assert root.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
    watched.page.get_by_role("button", name="Dark theme").click()
    assert root.get_attribute("data-theme") == "dark"
    watched.page.reload()
    watched.page.locator(".c2v-viewer[data-theme='dark'] canvas").first.wait_for()


def test_what_cannot_be_opened_says_so_and_can_be_tried_again(site: Site, watch: Watch) -> None:
    watched = watch(site.url)
    watched.open("foo/not-there")
    status = watched.page.locator(".c2v-status")
    status.get_by_text("not-there").first.wait_for()
    assert "\n" not in status.inner_text().strip()
    (site.root / "not-there").write_text("now it is")
    wait_for(lambda: fetch(f"{site.url}/api/v1/meta?path=foo/not-there"))
    watched.page.get_by_role("button", name="Try again").click()
    watched.page.locator(".c2v-viewer canvas").first.wait_for()


def test_a_change_of_what_is_shown_is_told_and_shown_when_asked_for(site: Site, watch: Watch) -> None:
    path = site.root / "changing.b2nd"
    blosc2.asarray(np.zeros(10), urlpath=str(path), mode="w")
    wait_for(lambda: fetch(f"{site.url}/api/v1/meta?path=foo/changing.b2nd"))
    watched = seen(site, watch, "foo/changing.b2nd")
    blosc2.asarray(np.ones(20), urlpath=str(path), mode="w")
    watched.page.get_by_role("button", name="Show it as it is now").click()
    watched.wait(lambda: 160 in [asked.nbytes for asked in watched.of("values")])
    watched.page.get_by_role("figure", name="changing").wait_for()


def test_the_list_that_is_folded_away_does_not_take_the_focus(site: Site, watch: Watch) -> None:
    watched = watch(site.url)
    watched.open("foo/nexus.h5")
    watched.page.get_by_role("tab", name="NX Heatmap").wait_for()
    assert watched.page.evaluate("document.activeElement.closest('#h5w-sidebar')") is None


def test_old_addresses_of_the_page_lead_to_the_same_dataset(site: Site, watch: Watch) -> None:
    watched = watch(site.url)
    watched.page.goto(f"{site.url}/roots/foo/line.b2nd")
    watched.page.locator(".c2v-viewer canvas").first.wait_for()
    assert watched.page.url == f"{site.url}/#/foo/line.b2nd"


MODEL = """
async ([base, path]) => {
    const { default: widget } = await import(`${base}/static/viewer.js`);
    const callbacks = new Map();
    window.messages = [];
    const model = {
        get: name => ({ path, height: 400, theme: 'light' })[name],
        on: (event, callback) => callbacks.set(event, callback),
        off: event => callbacks.delete(event),
        async send(message) {
            window.messages.push(message);
            if (message.path === undefined) return;
            const answer = await fetch(`${base}/${message.path}`);
            const body = new DataView(await answer.arrayBuffer());
            const headers = Object.fromEntries(answer.headers.entries());
            callbacks.get('msg:custom')?.({ id: message.id, status: answer.status, headers }, [body]);
        },
    };
    const el = document.createElement('div');
    document.body.replaceChildren(el);
    window.takeAway = widget.render({ model, el });
}
"""


def test_the_same_module_works_over_the_messages_of_a_widget(site: Site, watch: Watch) -> None:
    watched = watch(site.url)
    watched.page.goto(f"{site.url}/")
    watched.page.evaluate(MODEL, [site.url, "foo/cube.b2nd"])
    watched.page.get_by_role("figure", name="cube").wait_for()
    sent = [message for message in watched.page.evaluate("window.messages") if "id" in message]
    assert {message["method"] for message in sent} == {"GET"}
    assert [message["path"].split("?")[0] for message in sent].count("api/v1/values") == 1
    watched.wait(lambda: {"listen": "foo"} in watched.page.evaluate("window.messages"))
    watched.page.evaluate("window.takeAway()")
    assert watched.page.evaluate("window.messages")[-1] == {"unlisten": "foo"}
    assert watched.page.locator("canvas").count() == 0


MANY_VIEWERS = """
async base => {
    const { mountViewer } = await import(`${base}/static/viewer.js`);
    document.body.replaceChildren();
    document.body.style.overflow = 'auto';
    const answer = async (path, options) => {
        const response = await fetch(`${base}/${path}`, options);
        return { status: response.status, headers: response.headers,
                 bytes: async () => new Uint8Array(await response.arrayBuffer()) };
    };
    const transport = { get: answer, events: () => () => undefined };
    for (let i = 0; i < 9; i++) {
        const el = document.createElement('div');
        el.style.cssText = 'height: 90vh; flex: none';
        document.body.append(el);
        mountViewer({ el, transport, path: 'foo/line.b2nd' });
        el.scrollIntoView();
        while (!el.querySelector('canvas')) await new Promise(requestAnimationFrame);
    }
}
"""


def test_hidden_viewers_give_their_webgl_contexts_back_and_draw_again_when_seen(site: Site, watch: Watch) -> None:
    watched = watch(site.url)
    watched.page.goto(f"{site.url}/")
    watched.page.evaluate(MANY_VIEWERS, site.url)
    drawn = watched.page.locator(".c2v-viewer canvas")
    watched.wait(lambda: drawn.count() <= 7, "fewer viewers")
    first = watched.page.locator(".c2v-viewer").first
    first.scroll_into_view_if_needed()
    first.locator("canvas").first.wait_for()
