"""The commands of ``cat2cli`` that find datasets: a root as a tree, and a search over roots."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from ..client.address import split_for
from ..client.client import Client
from ..core.catalog import parse_filter
from ..core.metadata import Entry
from ..core.paths import join, whole_address
from .commands import _row
from .output import Output

__all__ = ["search", "tree"]

_TWIGS = ("├── ", "└── ", "│   ")
_ASCII_TWIGS = ("|-- ", "`-- ", "|   ")
_COLUMNS = ["name", "kind", "shape", "dtype", "size", "stored", "note"]


def tree(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Print what is in a root or group as a tree."""
    parse_filter(options.filter)
    root, path = split_for(client.url_base, options.path)
    own = client.entry(join(root, path)) if path else Entry("", "group")
    path = own.path
    top = _Branch(whole_address(root, path))
    top.entry = own
    start = len(path) + 1 if path else 0
    below = client.entries(join(root, path), q=options.filter) if own.kind == "group" else iter(())
    for entry in below:
        names = entry.path[start:].split("/") if entry.path != path else []
        if names:
            top.add(names, entry)
    if options.json:
        out.json(top.to_json(options.depth))
        return
    out.line(top.name + (top.note if own.kind != "group" else ""))
    twigs = _TWIGS if out.can_print("".join(_TWIGS)) else _ASCII_TWIGS
    for line, style in top.lines(options.depth, twigs):
        out.line(line, style)
    out.line(f"{top.ndatasets} dataset{'s' if top.ndatasets != 1 else ''}", style="dim")


class _Branch:
    """A name in a tree, with what is below it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry: Entry | None = None
        self.below: dict[str, _Branch] = {}

    def add(self, names: list[str], entry: Entry) -> None:
        branch = self
        for name in names:
            branch = branch.below.setdefault(name, _Branch(name))
        branch.entry = entry

    @property
    def ndatasets(self) -> int:
        own = self.entry is not None and self.entry.has_data
        return own + sum(branch.ndatasets for branch in self.below.values())

    def lines(self, depth: int | None, twigs: Sequence[str], indent: str = "") -> Iterator[tuple[str, str]]:
        if depth == 0:
            return
        branches = [self.below[name] for name in sorted(self.below)]
        for branch in branches:
            is_last = branch is branches[-1]
            twig, deeper = (twigs[1], "    ") if is_last else (twigs[0], twigs[2])
            yield f"{indent}{twig}{branch.name}{branch.note}", "bold" if branch.below else ""
            yield from branch.lines(None if depth is None else depth - 1, twigs, indent + deeper)

    @property
    def note(self) -> str:
        entry = self.entry
        if entry is None or entry.kind == "group":
            return "/"
        if entry.geometry is None:
            return f"  ({entry.reason or entry.target or entry.kind})"
        if entry.kind == "file":
            return f"  {entry.geometry.nbytes} bytes"
        return f"  {entry.geometry.shape} {entry.geometry.dtype}"

    def to_json(self, depth: int | None) -> dict[str, Any]:
        form: dict[str, Any] = {"name": self.name, "kind": self.entry.kind if self.entry else "group"}
        if self.entry is not None and self.entry.geometry is not None:
            form |= {"shape": list(self.entry.geometry.shape), "dtype": str(self.entry.geometry.dtype)}
        if self.below and depth != 0:
            deeper = None if depth is None else depth - 1
            form["children"] = [self.below[name].to_json(deeper) for name in sorted(self.below)]
        return form


def search(client: Client, options: argparse.Namespace, out: Output) -> None:
    """List what matches, in all roots that are followed or at the paths given."""
    parse_filter(options.words)
    places = options.paths or [status.name for status in client.roots.values() if status.followed]
    found = [
        (root, entry)
        for root, path in (split_for(client.url_base, place) for place in places)
        for entry in client.entries(join(root, path), q=options.words)
        if entry.has_data
    ]
    if options.json:
        out.json(
            [{"root": root, **entry.to_json()} if options.long else join(root, entry.path) for root, entry in found]
        )
    elif options.long:
        out.table(_COLUMNS, [_row(root, entry) for root, entry in found])
    else:
        for root, entry in found:
            out.line(join(root, entry.path))
