"""Where the objects of an indexed HDF5 file stand in a root: paths, links resolved, loops cut, names of axes.

Pure: it works on what ``hdf5_index`` told and opens nothing. Links to other files are put to ``follow``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.paths import join, parse_path
from ..errors import InvalidPathError

__all__ = ["Follow", "Hdf5Tree", "Outside", "Placed", "Target", "dimension_names", "place"]

MAX_ALIASES = 20_000
_MAX_SOFT_LINKS = 40
_NON_COORDINATE = "_nc4_non_coord_"


@dataclass(frozen=True, slots=True)
class Outside:
    """What an external link names: a file, as text, and a path in it."""

    file: str
    path: str


@dataclass(frozen=True, slots=True)
class Target:
    """An object of a tree."""

    tree: Hdf5Tree
    node: Mapping[str, Any]


Follow = Callable[["Hdf5Tree", Outside], "Target | str"]
"""The object that an external link of a tree means, or why it is not followed."""


class Hdf5Tree:
    """The objects of one file, by address.

    Parameters
    ----------
    file : str
        Path of the file, relative to the root's directory.
    nodes : iterable of dict
        From ``Hdf5Reader.index``; the first is the root group.
    """

    def __init__(self, file: str, nodes: Iterable[Mapping[str, Any]]) -> None:
        self.file = file
        self._nodes: dict[int, Mapping[str, Any]] = {}
        for node in nodes:
            self._nodes.setdefault(int(node["addr"]), node)
        self.root = next(iter(self._nodes.values()))
        self._links: dict[int, dict[str, list[Any]]] = {}
        self._dimids: dict[int, str] | None = None
        self._extents: dict[int, int] | None = None
        self._types: list[Mapping[str, Any]] | None = None

    def node(self, addr: int) -> Mapping[str, Any] | None:
        return self._nodes.get(addr)

    def links(self, group: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Links of a group: name -> [kind, ...]."""
        addr = int(group["addr"])
        if addr not in self._links:
            self._links[addr] = {str(link[0]): link[1:] for link in group.get("links", ())}
        return self._links[addr]

    def resolve(self, path: str, start: Mapping[str, Any] | None = None) -> Target | Outside | str:
        """What a path means, from a group (or the root group): an object, another file's, or why nothing."""
        names = [n for n in path.split("/") if n not in ("", ".")][::-1]
        node = self.root if start is None or path.startswith("/") else start
        nfollowed = 0
        while names:
            link = self.links(node).get(name := names.pop())
            if link is None:
                return f"nothing at {path!r}"
            if link[0] == "hard":
                found = self.node(int(link[1]))
                if found is None:
                    return f"{name!r} cannot be read"
                node = found
            elif link[0] == "soft":
                nfollowed += 1
                if nfollowed > _MAX_SOFT_LINKS:
                    return f"{path!r} leads back to itself"
                node = self.root if link[1].startswith("/") else node
                names += [n for n in link[1].split("/") if n not in ("", ".")][::-1]
            elif link[0] == "external":
                return Outside(link[1], "/".join([link[2].rstrip("/"), *names[::-1]]))
            else:
                return str(link[1])
        return Target(self, node)

    def type_name(self, node: Mapping[str, Any]) -> str:
        """Name of the committed type that an enumeration or compound is of; empty when there is none.

        Datasets do not tell it: the nearest equal one is meant, in the dataset's group or above, as for netCDF4.
        """
        told = node.get("storage", {})
        if told.get("type") not in ("enum", "compound") or "geometry" not in node:
            return ""
        if self._types is None:
            kinds = [n for n in self._nodes.values() if n["kind"] == "type"]
            self._types = sorted(kinds, key=lambda n: -str(n["path"]).count("/"))
        group = str(node["path"]).rpartition("/")[0] + "/"
        for found in self._types:
            where, _, name = str(found["path"]).rpartition("/")
            one = found.get("storage", {})
            is_same = all(one.get(key) == told.get(key) for key in ("type", "enum"))
            if is_same and one.get("dtype") == node["geometry"]["dtype"] and group.startswith(f"{where}/"):
                return name
        return ""

    @property
    def extents(self) -> Mapping[int, int]:
        """Address of a dimension scale -> greatest length of the axes that it is attached to."""
        if self._extents is None:
            found: dict[int, int] = {}
            for node in self._nodes.values():
                shape = node.get("geometry", {}).get("shape") or node.get("storage", {}).get("shape") or ()
                for length, scales in zip(shape, node.get("dimensions", {}).get("scales", ()), strict=False):
                    for addr in scales:
                        found[int(addr)] = max(found.get(int(addr), 0), int(length))
            self._extents = found
        return self._extents

    @property
    def dimids(self) -> Mapping[int, str]:
        """netCDF4's numbers of dimensions -> path of the scale."""
        if self._dimids is None:
            self._dimids = {
                int(number): str(node["path"])
                for node in self._nodes.values()
                if "scale" in node.get("dimensions", {})
                for number in node["dimensions"].get("dimid", [])[:1]
            }
        return self._dimids


@dataclass(frozen=True, slots=True)
class Placed:
    """One entry to be made.

    Attributes
    ----------
    path : str
        Path of the entry, relative to the file.
    target : Target or None
        The object, for groups, datasets and types.
    link : str
        What a soft or external link says, as text; empty for hard links.
    reason : str
        Why there is no object, or why it is not listed here.
    hidden : int
        Number of children whose names fit in no path.
    order : int or None
        Place in its group's order of creation, where the group tracks it.
    """

    path: str
    target: Target | None = None
    link: str = ""
    reason: str = ""
    hidden: int = 0
    order: int | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """A group on the way down; the chain of parents finds loops."""

    target: Target
    path: str
    parent: _Frame | None
    aliased: bool
    link: str = ""
    order: int | None = None

    def leads_back(self, target: Target) -> bool:
        frame: _Frame | None = self
        while frame is not None:
            if frame.target.tree is target.tree and frame.target.node is target.node:
                return True
            frame = frame.parent
        return False


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    target: Target | None
    link: str
    reason: str
    is_hard: bool
    order: int | None


def place(tree: Hdf5Tree, follow: Follow) -> Iterator[Placed]:
    """Every entry of a file, the root group (path ``""``) first."""
    naliases = 0
    pending = [_Frame(Target(tree, tree.root), "", None, aliased=False)]
    while pending:
        frame = pending.pop()
        children = list(_children(frame, follow))
        groups: list[_Frame] = []
        found: list[Placed] = []
        nhidden = 0
        for child, path in _named(frame.path, children):
            if path is None:
                nhidden += 1
                continue
            kind = child.target.node["kind"] if child.target else ""
            if path.rpartition("/")[2].startswith("unlisted-") and not child.name.startswith("unlisted-"):
                found.append(Placed(path, None, "", f"its name {child.name!r} cannot be part of a path"))
            elif child.target is None or kind != "group":
                found.append(Placed(path, child.target, child.link, child.reason, order=child.order))
            elif frame.leads_back(child.target):
                link = child.link or str(child.target.node["path"])
                found.append(Placed(path, None, link, f"leads back to {child.target.node['path']!r}"))
            else:
                own = child.is_hard and child.target.node["path"] == _below(frame.target.node["path"], child.name)
                aliased = frame.aliased or not own
                if aliased and naliases >= MAX_ALIASES:
                    where = str(child.target.node["path"])
                    found.append(Placed(path, None, child.link or where, f"its content is listed at {where!r}"))
                else:
                    groups.append(_Frame(child.target, path, frame, aliased, child.link, child.order))
        naliases += (len(found) + len(groups)) if frame.aliased else 0
        yield Placed(frame.path, frame.target, frame.link, "", nhidden, frame.order)
        yield from found
        pending += reversed(groups)


def _below(path: str, name: str) -> str:
    return f"{path.rstrip('/')}/{name}"


def _children(frame: _Frame, follow: Follow) -> Iterator[_Child]:
    tree, group = frame.target.tree, frame.target.node
    order = group.get("order", {})
    for name, link in tree.links(group).items():
        text = ""
        if link[0] == "hard":
            node = tree.node(int(link[1]))
            found: Target | Outside | str = Target(tree, node) if node is not None else "it cannot be read"
        elif link[0] == "soft":
            text = str(link[1])
            found = tree.resolve(text, group)
        elif link[0] == "external":
            text = f"{link[1]}:{link[2]}"
            found = Outside(link[1], link[2])
        else:
            found = str(link[1])
        if isinstance(found, Outside):
            found = follow(tree, found)
        if isinstance(found, str):
            yield _Child(name, None, text, found, link[0] == "hard", order.get(name))
        else:
            yield _Child(name, found, text, "", link[0] == "hard", order.get(name))


def _named(group: str, children: list[_Child]) -> Iterator[tuple[_Child, str | None]]:
    """Children with their entries' paths; None when not even a stand-in for the name fits in one."""
    taken = {c.name for c in children if c.target is None or c.target.node["kind"] != "dataset"}
    for child in children:
        name = child.name
        if name not in taken or (child.target is not None and child.target.node["kind"] == "dataset"):
            name += ".b2nd"
            while name in taken:
                name += ".b2nd"
            taken.add(name)
        yield child, _path(group, name)


def _path(group: str, name: str) -> str | None:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    for candidate in (name, f"unlisted-{digest}"):
        try:
            return parse_path(join(group, candidate))
        except InvalidPathError:
            continue
    return None


def dimension_names(tree: Hdf5Tree, node: Mapping[str, Any], ndim: int) -> tuple[str, ...] | None:
    """Names of a dataset's axes, as netCDF4 readers find them; None when nothing names them."""
    told = node.get("dimensions", {})
    names: list[str | None] = [None] * ndim
    coordinates = told.get("coordinates", [])
    if len(coordinates) == ndim and all(n in tree.dimids for n in coordinates):
        names = [_scale_name(tree.dimids[n]) for n in coordinates]
    elif "scale" in told and ndim >= 1:
        names[0] = _scale_name(str(node["path"]))
    for axis, scales in enumerate(told.get("scales", [])[:ndim]):
        nodes = [tree.node(int(addr)) for addr in scales]
        if names[axis] is None and nodes and nodes[0] is not None:
            names[axis] = _scale_name(str(nodes[0]["path"]))
    for axis, label in enumerate(told.get("labels", [])[:ndim]):
        names[axis] = names[axis] or label or None
    if not any(names):
        return None
    return tuple(n or f"dim_{axis}" for axis, n in enumerate(names))


def _scale_name(path: str) -> str:
    return path.rpartition("/")[2].removeprefix(_NON_COORDINATE)
