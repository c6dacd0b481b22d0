"""``cat2tui``: roots as a tree, what is known of a dataset, a slice of its values, downloads. Keys do everything.

Requests are made in threads; what they bring is shown when it still is what is looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Header, Input, Static, Tree
from textual.widgets.tree import TreeNode

from .. import __version__
from ..cli.connection import add_connection_options, connection_arguments, one_line
from ..cli.output import inert
from ..client.client import Client, connect
from ..client.remote_array import RemoteArray
from ..errors import Caterva2Error
from .download_screen import DownloadScreen
from .texts import default_slice, facts, preview
from .tree import CatalogTree, Place, list_page

__all__ = ["BrowserApp", "main"]


class BrowserApp(App[None]):
    """The browser.

    Parameters
    ----------
    client : Client
    """

    TITLE = "caterva2"
    BINDINGS = [  # noqa: RUF012
        Binding("q", "quit", "Quit"),
        Binding("slash", "focus('filter')", "Filter"),
        Binding("s", "slice", "Slice"),
        Binding("d", "download", "Download"),
        Binding("f", "follow", "Follow/unfollow"),
        Binding("r", "reload", "Reload"),
        Binding("escape", "focus('tree')", "Tree", show=False),
    ]
    CSS = """
    #left { width: 2fr; min-width: 30; }
    #right { width: 3fr; border-left: solid $panel; padding: 0 1; }
    #tree { height: 1fr; }
    #preview { margin-top: 1; }
    #status { height: auto; min-height: 1; padding: 0 1; background: $panel; }
    """

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.sub_title = inert(client.url_base)
        self.q = ""
        self._shown: Place | None = None
        self._listing: set[int] = set()

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal():
            with VerticalScroll(id="left", can_focus=False):
                yield Input(id="filter", placeholder="filter: words, dtype:float32 ndim>2 ... (Enter)")
                tree = CatalogTree("roots", id="tree")
                tree.show_root = False
                yield tree
            with VerticalScroll(id="right"):
                yield Static(id="facts")
                yield Input(id="slice", placeholder="slice: 0, :20, ::2 (Enter)", disabled=True)
                yield Static(id="preview")
        yield Static("loading", id="status")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(CatalogTree).focus()
        self.action_reload()

    def say(self, message: str) -> None:
        """Show a sentence at the bottom."""
        self.query_one("#status", Static).update(Text(inert(message)))

    # Listing

    def action_reload(self) -> None:
        self._listing.clear()
        self._show_roots()

    @work(thread=True, exclusive=True, group="roots")
    def _show_roots(self) -> None:
        try:
            roots = list(self.client.roots.values())
        except Caterva2Error as error:
            self.call_from_thread(self.say, one_line(error))
            return
        hint = "no roots: start a publisher with cat2pub" if not roots else f"{len(roots)} roots"
        self.call_from_thread(self.query_one(CatalogTree).show_roots, roots)
        self.call_from_thread(self.say, hint)

    @on(Tree.NodeExpanded)
    def _expanded(self, event: Tree.NodeExpanded[Place]) -> None:
        node = event.node
        if node.data is not None and node.data.is_group and not node.children:
            self._ask_for(node)

    @on(Tree.NodeSelected)
    def _selected(self, event: Tree.NodeSelected[Place]) -> None:
        if event.node.data is not None and event.node.data.after:
            self._ask_for(event.node)

    def _ask_for(self, node: TreeNode[Place]) -> None:
        if node.id not in self._listing and node.data is not None:
            self._listing.add(node.id)
            self._list(node, node.data, self.q)

    @work(thread=True, group="listing")
    def _list(self, node: TreeNode[Place], place: Place, q: str) -> None:
        try:
            page = list_page(self.client, place, q)
        except Caterva2Error as error:
            self.call_from_thread(self._listed, node, None, q, one_line(error))
        else:
            self.call_from_thread(self._listed, node, page, q, f"{place.address}: {len(page.items)} listed")

    def _listed(self, node: TreeNode[Place], page: Any, q: str, message: str) -> None:
        if node.id not in self._listing:
            return  # the tree was made anew meanwhile
        self._listing.discard(node.id)
        if page is None:
            node.collapse()
        elif q == self.q:
            self.query_one(CatalogTree).fill(node, page, q)
        self.say(message)

    @on(Input.Submitted, "#filter")
    def _filter(self, event: Input.Submitted) -> None:
        self.q = event.value.strip()
        self.action_reload()
        self.query_one(CatalogTree).focus()

    # Looking

    @on(Tree.NodeHighlighted)
    def _highlighted(self, event: Tree.NodeHighlighted[Place]) -> None:
        place = event.node.data
        if place is None or place.after or place == self._shown:
            return
        self._shown = place
        if place.path:
            self._look(place, None)
        else:
            self._clear(place.root)

    def _clear(self, title: str) -> None:
        self.query_one("#facts", Static).update(Text(inert(title), style="bold"))
        self.query_one("#preview", Static).update("")
        self.query_one("#slice", Input).disabled = True

    @on(Input.Submitted, "#slice")
    def _sliced(self, event: Input.Submitted) -> None:
        if self._shown is not None and self._shown.path:
            self._look(self._shown, event.value)

    @work(thread=True, exclusive=True, group="looking")
    def _look(self, place: Place, key: str | None) -> None:
        def show(action: Callable[[], None]) -> None:
            if place == self._shown:
                action()

        try:
            opened = self.client[place.address]
            if key is None:
                table = facts(opened, place.address)
                is_array = isinstance(opened, RemoteArray)
                key = default_slice(opened.shape) if isinstance(opened, RemoteArray) else ""
                self.call_from_thread(show, lambda k=key: self._show_facts(table, k, is_array))
            text = preview(opened, key)
        except Caterva2Error as error:
            message = one_line(error, place.address)
            self.call_from_thread(show, lambda: self._show_preview(Text(inert(message), style="red")))
            return
        self.call_from_thread(show, lambda: self._show_preview(text))

    def _show_facts(self, table: Any, key: str, is_array: bool) -> None:
        self.query_one("#facts", Static).update(table)
        entry = self.query_one("#slice", Input)
        entry.disabled = not is_array
        entry.value = key

    def _show_preview(self, text: Text) -> None:
        self.query_one("#preview", Static).update(text)

    # Doing

    def action_slice(self) -> None:
        entry = self.query_one("#slice", Input)
        if entry.disabled:
            self.say("choose an array first: only arrays have slices")
        else:
            entry.focus()

    def action_download(self) -> None:
        place = self._shown
        if place is None or not place.path:
            self.say("choose a dataset first: a root cannot be saved as one file")
            return
        self.push_screen(DownloadScreen(self.client, place.address), lambda said: self.say(said or ""))

    def action_follow(self) -> None:
        if self._shown is not None:
            self._follow(self._shown.root)

    @work(thread=True, exclusive=True, group="roots")
    def _follow(self, root: str) -> None:
        try:
            if self.client.roots[root].followed:
                self.client.unfollow(root)
            else:
                self.client.follow(root)
        except (Caterva2Error, KeyError) as error:
            message = one_line(error) if isinstance(error, Caterva2Error) else f"root {root!r} is gone"
            self.call_from_thread(self.say, message)
            return
        self.call_from_thread(self.action_reload)


def main(argv: list[str] | None = None) -> int:
    """Command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0, or 1 when the subscriber cannot be reached.
    """
    parser = argparse.ArgumentParser(
        prog="cat2tui",
        description="Browse the roots of a Caterva2 subscriber.",
        epilog="example: cat2tui --subscriber http://localhost:8002",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    add_connection_options(parser)
    options = parser.parse_args(argv)
    try:
        with connect(**connection_arguments(options)) as client:
            list(client.roots)
            BrowserApp(client).run()
    except Caterva2Error as error:
        print(f"cat2tui: {inert(one_line(error))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
