"""A browser of roots and datasets as output of a cell: a tree, what is known of what is chosen, a preview, and its use.

"Use as variable" puts the opened object where the cells can use it; "Download" writes a file beside the notebook.
Every text of a publisher's is shown as text. Requests are made in threads: the cells are free meanwhile.
"""

from __future__ import annotations

import builtins
import html
import keyword
import re
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from ..client.client import Client
from ..client.group import RemoteObject, UnsupportedDataset
from ..client.remote_array import RemoteArray
from ..client.remote_file import RemoteFile
from ..client.representation import plain
from ..core.paths import name as last_name
from ..errors import Caterva2Error
from .listing import Listing

__all__ = ["Browser", "browse", "variable_name"]

HEIGHT = 420
PREVIEW_NBYTES = 4 << 20
PREVIEW_CHARS = 2000
FILTER_TIP = "Words that all have to hold: names, or dtype:float32 ndim>2 units=K. Enter looks for them"


class Tree(anywidget.AnyWidget):
    """The rows of a `Listing`; tells ``on_msg`` what is selected, opened and loaded."""

    _esm = Path(__file__).parent / "tree.js"
    rows: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    selected = traitlets.Unicode().tag(sync=True)
    height = traitlets.Int(HEIGHT).tag(sync=True)


class _Stopped(Exception):
    """A person has had enough of a download."""


class Browser(ipywidgets.VBox):  # type: ignore[misc]
    """Made by ``client.browse()``.

    Attributes
    ----------
    selected : Group, RemoteArray, RemoteFile, UnsupportedDataset or None
        What is chosen.

    Examples
    --------
    >>> browser = client.browse()
    >>> browser.wait()
    >>> browser.close()
    """

    def __init__(
        self, client: Client, address: str = "", namespace: dict[str, Any] | None = None, directory: str | Path = "."
    ) -> None:
        self.selected: RemoteObject | None = None
        self._client = client
        self._namespace = namespace
        self._directory = Path(directory)
        self._listing = Listing(client, address)
        self._lock = threading.Lock()
        self._chosen = 0
        self._is_stopped = threading.Event()
        self._replaced = ""
        # One thread lists, in the order of the clicks; another looks at what is chosen, the newest only.
        self._lister = ThreadPoolExecutor(1, thread_name_prefix="caterva2-browse")
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="caterva2-look")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="caterva2-load")
        self._make()
        super().__init__([self._top, ipywidgets.HBox([self._tree, self._right], layout=_layout(width="100%"))])
        self._do(self._listing.begin)

    def _make(self) -> None:
        self._filter = ipywidgets.Text(
            placeholder="filter: temperature, dtype:float32 ndim>2 …",
            continuous_update=False,
            layout=_layout(width="22em"),
        )
        self._filter.tooltip = FILTER_TIP
        self._filter.observe(lambda change: self._do(self._listing.filter, change["new"]), "value")
        again = _button("Refresh", "List again, from the top", self._refresh, "refresh")
        self._said = ipywidgets.HTML()
        self._top = ipywidgets.HBox([self._filter, again, self._said])
        self._tree = Tree(layout=_layout(flex="0 0 26em", width="26em"))
        self._tree.on_msg(lambda _, content, buffers: self._take(content))
        self._card = ipywidgets.HTML()
        self._picture = ipywidgets.Image(
            format="png", layout=_layout(display="none", max_width="100%", align_self="flex-start")
        )
        self._text = ipywidgets.HTML()
        self._name = ipywidgets.Text(placeholder="name", layout=_layout(width="12em"), disabled=True)
        self._name.tooltip = "Name of the variable"
        self._use = _button("Use as variable", "Put it into the notebook's variables", self._use_as_variable, "code")
        self._get = _button("Download", "Write it to a file in the notebook's directory", self._download, "download")
        self._bar = ipywidgets.FloatProgress(min=0, max=1, layout=_layout(width="10em", display="none"))
        self._cancel = _button("Cancel", "Give the download up", self._is_stopped.set, "stop")
        self._cancel.layout.display = "none"
        self._note = ipywidgets.HTML()
        self._use.disabled = self._get.disabled = True
        actions = ipywidgets.HBox([self._name, self._use, self._get, self._bar, self._cancel])
        actions.layout.flex_flow = "row wrap"
        shown = ipywidgets.VBox([self._picture, self._text, self._card], layout=_layout(overflow="auto"))
        shown.layout.max_height = f"{HEIGHT - 40}px"
        self._right = ipywidgets.VBox([shown, actions, self._note], layout=_layout(flex="1 1 20em", min_width="0"))
        self._card.value = _message("Choose a dataset: arrows, Enter, or a click.")

    def close(self) -> None:
        """Take it away; what is under way ends."""
        self._is_stopped.set()
        for pool in (self._lister, self._looker, self._loader):
            pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def __repr__(self) -> str:
        return f"<Browser of {self._client.url_base}>"

    def wait(self, timeout_s: float = 30.0) -> None:
        """Wait until everything that was asked for is shown; for programs and tests."""
        for pool in (self._lister, self._looker, self._loader):
            pool.submit(int).result(timeout_s)

    def _take(self, content: Any) -> None:
        """A message of the tree."""
        if not isinstance(content, Mapping):
            return
        if isinstance(content.get("select"), str):
            self._select(content["select"])
        if isinstance(content.get("toggle"), str):
            self._do(self._listing.toggle, content["toggle"])
        if isinstance(content.get("more"), str):
            self._do(self._listing.more, content["more"])

    def _refresh(self) -> None:
        self._do(self._listing.filter, self._filter.value)

    def _do(self, action: Callable[..., None], *arguments: str) -> None:
        self._lister.submit(self._list, action, *arguments)

    def _list(self, action: Callable[..., None], *arguments: str) -> None:
        self._said.value = _message("Loading…")
        try:
            action(*arguments)
            self._said.value = ""
        except Exception as error:
            self._said.value = _error(error)
        self._tree.rows = [row.to_json() for row in self._listing.rows]

    def _select(self, key: str) -> None:
        self._tree.selected = key
        with self._lock:
            self._chosen += 1
            number = self._chosen
        self._looker.submit(self._look, key, number)

    def _is_newest(self, number: int) -> bool:
        with self._lock:
            return number == self._chosen

    def _look(self, key: str, number: int) -> None:
        """Open what was chosen, and show it, unless something else has been chosen since."""
        if not self._is_newest(number):
            return
        self._note.value, self._replaced = "", ""
        try:
            opened = self._client[key]
            self.selected = opened
            card, name = opened._repr_html_(), variable_name(last_name(key))
        except Exception as error:
            self.selected = None
            card, name = _error(error), ""
        if not self._is_newest(number):
            return
        self._card.value, self._name.value = card, name
        self._name.disabled = self._use.disabled = self.selected is None
        self._get.disabled = not _can_be_downloaded(self.selected)
        self._picture.layout.display, self._text.value = "none", ""
        self._preview(number)

    def _preview(self, number: int) -> None:
        shown = self.selected
        try:
            if isinstance(shown, RemoteArray) and shown.size and _is_drawn(shown):
                from .figure import png_of

                picture = png_of(shown, max_nbytes=PREVIEW_NBYTES, inches=(4.4, 2.6))
                if self._is_newest(number):
                    self._picture.value = picture
                    self._picture.layout.display = ""
            elif isinstance(shown, (RemoteArray, RemoteFile)):
                text = _first_values(shown)
                if self._is_newest(number):
                    self._text.value = f"<pre>{html.escape(text)}</pre>"
        except Exception as error:
            if self._is_newest(number):
                self._text.value = _error(error)

    def _use_as_variable(self) -> None:
        name, opened = self._name.value.strip(), self.selected
        namespace = self._namespace if self._namespace is not None else _user_namespace()
        if opened is None:
            return
        if (wrong := _why_not(name)) or namespace is None:
            self._note.value = _message(wrong or "there are no cells here that could use it", is_error=True)
            return
        if name in namespace and namespace[name] is not opened and self._replaced != name:
            self._replaced = name
            self._note.value = _message(f"{name} is there already: press again to replace it", is_error=True)
            return
        namespace[name] = opened
        self._replaced = ""
        self._note.value = _message(f"{name} is {plain(repr(opened))}")

    def _download(self) -> None:
        opened = self.selected
        if opened is None or isinstance(opened, UnsupportedDataset):
            return
        self._is_stopped.clear()
        self._get.disabled = True
        self._bar.value = 0
        self._bar.layout.display = self._cancel.layout.display = ""
        self._loader.submit(self._load, opened)

    def _load(self, opened: Any) -> None:
        def progress(done_nbytes: int, total_nbytes: int) -> None:
            if self._is_stopped.is_set():
                raise _Stopped
            self._bar.value = done_nbytes / max(total_nbytes, done_nbytes, 1)

        try:
            goal = _free_name(self._directory / local_name(last_name(opened.path)))
            opened.download(goal, progress)
            self._note.value = _message(f"written to {goal}")
        except _Stopped:
            self._note.value = _message("the download was given up: nothing was written")
        except Exception as error:
            self._note.value = _error(error)
        finally:
            self._get.disabled = not _can_be_downloaded(self.selected)
            self._bar.layout.display = self._cancel.layout.display = "none"


def variable_name(text: str) -> str:
    """A name for a variable made of a dataset's: short, valid, and no keyword or builtin.

    Examples
    --------
    >>> variable_name("2m temperature.b2nd"), variable_name("class"), variable_name("max.b2nd"), variable_name("<é>")
    ('v_2m_temperature', 'class_', 'max_', 'é')
    """
    stem = re.sub(r"\.(b2nd|b2frame|h5|hdf5|nc|nc4|nxs)$", "", text)
    name = re.sub(r"\W+", "_", stem).strip("_")[:40] or "data"
    if not name.isidentifier():
        name = f"v_{name}"
    if not name.isidentifier():
        name = "data"
    return f"{name}_" if keyword.iskeyword(name) or hasattr(builtins, name) else name


def local_name(text: str) -> str:
    """A name for a file made of a dataset's: no directories, no leading dot, nothing that does not print.

    >>> local_name("../.profile"), local_name("a b.b2nd")
    ('_.profile', 'a b.b2nd')
    """
    name = re.sub(r"[\x00-\x1f\x7f/\\:*?\"<>|]+", "_", plain(text)).lstrip(".").strip()
    return name[-120:] or "download"


def _why_not(name: str) -> str:
    """Why a variable cannot be called so; empty when it can."""
    if not name.isidentifier():
        return f"{name!r} is not a name that a variable can have: letters, digits and _"
    if keyword.iskeyword(name):
        return f"{name!r} is a word of Python's"
    if hasattr(builtins, name) or name.startswith("__"):
        return f"{name!r} is Python's own: take another"
    return ""


def _user_namespace() -> dict[str, Any] | None:
    """The variables of the cells."""
    shells = sys.modules.get("IPython.core.getipython")
    shell = shells.get_ipython() if shells is not None else None
    namespace: dict[str, Any] | None = getattr(shell, "user_ns", None)
    return namespace


def _free_name(path: Path) -> Path:
    """The path, or one beside it that nothing has."""
    number = 1
    goal = path
    while goal.exists():
        goal = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return goal


def _can_be_downloaded(opened: RemoteObject | None) -> bool:
    is_file = opened is not None and bool(opened.entry.version)
    return is_file and not isinstance(opened, UnsupportedDataset)


def _is_drawn(array: RemoteArray) -> bool:
    return array.ndim > 0 and array.dtype.names is None and array.dtype.kind in "biufcmM"


def _first_values(shown: RemoteArray | RemoteFile) -> str:
    if isinstance(shown, RemoteFile):
        head = shown[: max(1, PREVIEW_CHARS // max(shown.itemsize, 1))] if len(shown) else b""
        text = head.decode("utf-8", "replace")
        if text.count("\ufffd") > len(text) // 10 or "\x00" in text:
            return head[:256].hex(" ", 4)
        return "\n".join(plain(line) for line in text.splitlines())
    if not shown.size:
        return "no values"
    first = shown[(0,) * max(0, shown.ndim - 1) + ((slice(0, 10),) if shown.ndim else ())]
    return plain(" ".join(str(first)[:PREVIEW_CHARS].split()))


def _layout(**traits: Any) -> ipywidgets.Layout:
    return ipywidgets.Layout(**traits)


def _button(text: str, tip: str, action: Callable[[], object], icon: str) -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, tooltip=tip, icon=icon, layout=_layout(width="auto"))
    button.on_click(lambda _: action())
    return button


def _message(text: str, *, is_error: bool = False) -> str:
    colour = ' style="color:var(--jp-error-color1,#c62828)"' if is_error else ""
    return f'<span role="status"{colour}>{html.escape(plain(text))}</span>'


def _error(error: Exception) -> str:
    text = str(error) if isinstance(error, (Caterva2Error, OSError)) else f"{type(error).__name__}: {error}"
    return _message(text, is_error=True)


def browse(client: Client, address: str = "") -> Browser:
    """See ``Client.browse``."""
    return Browser(client, address)
