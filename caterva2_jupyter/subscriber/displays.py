"""Display plugins: which ones are installed, and which of them can show a dataset.

A plugin is an object that an entry point of the group ``caterva2_jupyter.displays`` names. It says in Python which
datasets it shows; how it shows them is an ES module that browsers load (docs/displays.md). Nothing here runs it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

__all__ = ["ENTRY_POINTS", "Display", "DisplayPlugin", "Displays", "installed_displays", "shows_three_axes"]

log = logging.getLogger("caterva2_jupyter.subscriber")

ENTRY_POINTS = "caterva2_jupyter.displays"
STATIC = Path(__file__).parent.parent / "static"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class DisplayPlugin(Protocol):
    """What an entry point gives.

    Attributes
    ----------
    name : str
        Lower-case letters, digits, ``-`` and ``_``; part of the module's URL.
    title : str
        For people.
    module : path
        The ES module that browsers load.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def module(self) -> Path: ...

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Can it show the dataset with this entry (its JSON form, ``root`` included)? Asked often: quick, no I/O."""
        ...


@dataclass(frozen=True, slots=True)
class Display:
    """A plugin made of its parts.

    Examples
    --------
    >>> plane = Display("plane", "Plane", Path("plane.js"), lambda metadata: metadata["kind"] == "array")
    >>> plane.matches({"kind": "group"})
    False
    """

    name: str
    title: str
    module: Path
    accepts: Callable[[Mapping[str, Any]], bool]

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        return self.accepts(metadata)


def shows_three_axes(metadata: Mapping[str, Any]) -> bool:
    """Is it a volume of real numbers?

    >>> shows_three_axes({"kind": "array", "geometry": {"shape": [4, 5, 6], "dtype": "<f4"}})
    True
    """
    geometry = metadata.get("geometry") or {}
    shape, dtype = geometry.get("shape", []), geometry.get("dtype")
    numbers = isinstance(dtype, str) and dtype.lstrip("<>|=")[:1] in ("b", "i", "u", "f")
    return len(shape) == 3 and min(shape) > 1 and numbers


TOMOGRAPHY = Display("tomography", "Tomography", STATIC / "displays" / "tomography.js", shows_three_axes)


def installed_displays() -> Iterator[DisplayPlugin]:
    """Ours, then those of installed packages; one that cannot be used is told of and left out."""
    yield TOMOGRAPHY
    for point in entry_points(group=ENTRY_POINTS):
        try:
            plugin = point.load()
        except Exception as error:  # others' code, any of which may fail
            log.warning("display plugin %s cannot be loaded: %s", point.name, error)
        else:
            yield plugin


class Displays:
    """The displays of a service, by name; of two with one name, the first.

    Examples
    --------
    >>> displays = Displays([Display("all", "All", Path("all.js"), lambda metadata: True)])
    >>> [display.title for display in displays.matching({"kind": "array"})]
    ['All']
    """

    def __init__(self, plugins: Iterable[DisplayPlugin]) -> None:
        self._plugins: dict[str, DisplayPlugin] = {}
        for plugin in plugins:
            problem = self._problem(plugin)
            if problem:
                log.warning("display plugin %.200r is left out: %s", plugin, problem)
            else:
                self._plugins[plugin.name] = plugin

    def _problem(self, plugin: DisplayPlugin) -> str:
        for attribute, kind in (("name", str), ("title", str), ("module", Path)):
            if not isinstance(getattr(plugin, attribute, None), kind):
                return f"its {attribute} is not a {kind.__name__}"
        if not callable(getattr(plugin, "matches", None)):
            return "it has no method matches"
        if not _NAME.fullmatch(plugin.name):
            return "its name is not made of lower-case letters, digits, '-' and '_'"
        return f"there is one named {plugin.name} already" if plugin.name in self._plugins else ""

    def __iter__(self) -> Iterator[DisplayPlugin]:
        return iter(self._plugins.values())

    def get(self, name: str) -> DisplayPlugin | None:
        return self._plugins.get(name)

    def matching(self, metadata: Mapping[str, Any]) -> list[DisplayPlugin]:
        """Those that can show a dataset; one that fails at it cannot."""
        return [plugin for plugin in self if self._matches(plugin, metadata)]

    def _matches(self, plugin: DisplayPlugin, metadata: Mapping[str, Any]) -> bool:
        try:
            return bool(plugin.matches(metadata))
        except Exception as error:  # others' code, any of which may fail
            log.warning("display plugin %s: matches failed: %r", plugin.name, error)
            return False
