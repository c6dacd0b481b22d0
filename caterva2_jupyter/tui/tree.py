"""The tree of roots and what is in them: children are listed when a node is opened, some hundred at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.text import Text
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from ..cli.output import inert
from ..client.client import Client
from ..client.representation import format_nbytes
from ..client.service import RootStatus
from ..core.catalog import CatalogPage
from ..core.metadata import Entry
from ..core.paths import name as last_name

__all__ = ["PAGE", "CatalogTree", "Place", "list_page"]

PAGE = 500


@dataclass(frozen=True, slots=True)
class Place:
    """What a node stands for.

    Attributes
    ----------
    root : str
    path : str
        In the root; empty for the root itself.
    entry : Entry or None
        None for roots.
    after : str
        Of the line that lists more: where it goes on. Empty for all others.
    """

    root: str
    path: str = ""
    entry: Entry | None = None
    after: str = ""

    @property
    def address(self) -> str:
        return f"{self.root}/{self.path}" if self.path else self.root

    @property
    def is_group(self) -> bool:
        return not self.after and (self.entry is None or self.entry.kind == "group")


def list_page(client: Client, place: Place, q: str) -> CatalogPage:
    """Children of a group, or with a filter all below it that match; blocking."""
    client.follow(place.root)
    return client.page(place.address, depth=0 if q else 1, after=place.after, limit=PAGE, q=q)


class CatalogTree(Tree[Place]):
    """Roots at the top; a node's children come from ``fill`` when they have been listed."""

    def show_roots(self, roots: Sequence[RootStatus]) -> None:
        """Put the roots in place of all there is."""
        self.clear()
        for status in roots:
            label = Text(inert(status.name), style="bold" if status.online else "dim")
            notes = [n for n, holds in (("followed", status.followed), ("offline", not status.online)) if holds]
            if notes:
                label.append(f"  {', '.join(notes)}", style="dim italic")
            self.root.add(label, Place(status.name))
        self.root.expand()

    def fill(self, node: TreeNode[Place], page: CatalogPage, q: str) -> None:
        """Put listed children below a node, or in place of the line that asked for more."""
        place = node.data
        assert place is not None
        parent = node
        if place.after:
            assert node.parent is not None
            parent = node.parent
            node.remove()
        below = parent.data.path if parent.data is not None else ""
        for entry in page.entries():
            name = entry.path[len(below) + 1 if below else 0 :] if q else last_name(entry.path)
            child = Place(place.root, entry.path, entry)
            if entry.kind == "group":
                parent.add(Text(inert(name)), child)
            else:
                parent.add_leaf(_label(name, entry), child)
        if page.next is not None:
            more = replace(place, after=page.next, entry=None)
            parent.add_leaf(Text("… more", style="italic"), replace(more, path=below))


def _label(name: str, entry: Entry) -> Text:
    label = Text(inert(name))
    if entry.geometry is not None and entry.kind == "array":
        dtype = "str" if entry.geometry.dtype.kind == "O" else str(entry.geometry.dtype)
        label.append(f"  {entry.geometry.shape} {dtype}", style="dim")
    elif entry.geometry is not None:
        label.append(f"  {format_nbytes(entry.nbytes)}", style="dim")
    else:
        label.append(f"  {entry.kind}", style="dim italic")
    return label
