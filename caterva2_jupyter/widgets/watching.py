"""A figure that follows a remote array: drawn again when the array changes, until it is told to stop.

One thread listens, one draws: changes that come while it draws are drawn together, the newest version only.
"""

from __future__ import annotations

import html
import threading
import time
from datetime import datetime
from typing import Any

import ipywidgets

from ..client.changes import Change, Watch
from ..client.remote_array import RemoteArray
from ..client.representation import plain
from ..core.paths import join
from ..errors import Caterva2Error, NotFoundError
from .figure import png_of

__all__ = ["LivePlot", "watch"]

PAUSE_S = 0.2
"""Seconds between two drawings at least."""


class LivePlot(ipywidgets.VBox):  # type: ignore[misc]
    """A figure, a line that says how new it is, and a button Stop. Made by ``array.watch()``.

    Attributes
    ----------
    drawn : int
        How often it has been drawn.
    state : {"live", "offline", "stopped", "gone", "failed"}

    Examples
    --------
    >>> live = client["foo/dir1/ds-2d"].watch()
    >>> live.stop()
    """

    def __init__(self, array: RemoteArray, key: Any = None, **options: Any) -> None:
        # A twin: whoever asked keeps the version that they have.
        self._array = RemoteArray(array._session, array.root, array.entry, array._fields, array._cache)
        self._key, self._options = key, options
        self._what = plain(join(array.root, array.path))
        self.drawn = 0
        self.state = "live"
        self._is_wanted = threading.Event()
        self._is_stopped = threading.Event()
        layout = ipywidgets.Layout(max_width="100%", align_self="flex-start")
        self._image = ipywidgets.Image(format="png", layout=layout)
        self._image.value = png_of(self._array, key, **options)  # what is wrong with the arguments is said here
        self._status = ipywidgets.HTML()
        self._button = ipywidgets.Button(description="Stop", icon="stop", tooltip="Do not draw again")
        self._button.layout.width = "auto"
        self._button.on_click(lambda _: self.stop())
        super().__init__([self._image, ipywidgets.HBox([self._button, self._status])])
        self.drawn = 1
        self._say("live", f"version of {_now()}")
        self._drawing = threading.Thread(target=self._draw_again, name=f"draw {self._what}", daemon=True)
        self._drawing.start()
        self._watch = Watch(array._session.service, array.root, array.path, self._take)
        # It may have changed between being opened and being watched.
        self._is_wanted.set()

    def stop(self) -> None:
        """Draw no more; the figure stays as it is."""
        if self._is_stopped.is_set():
            return
        self._is_stopped.set()
        self._is_wanted.set()
        self._watch.stop()
        if self.state in ("live", "offline"):
            self._say("stopped", f"as it was at {_now()}")
        self._button.disabled = True

    def close(self) -> None:
        """Stop, and take the figure away."""
        if hasattr(self, "_watch"):
            self.stop()
        super().close()

    def __repr__(self) -> str:
        return f"<LivePlot of {self._what}>"

    def _take(self, change: Change) -> None:
        if self._is_stopped.is_set():
            return
        if change.kind == "offline":
            self._say("offline", f"since {_now()}: what is shown is what was there")
        else:
            if change.kind == "online" and self.state == "offline":
                self._say("live", f"again since {_now()}")
            self._is_wanted.set()

    def _draw_again(self) -> None:
        while True:
            self._is_wanted.wait()
            if self._is_stopped.is_set():
                return
            self._is_wanted.clear()
            try:
                self._draw_newest()
            except NotFoundError:
                self._say("gone", "the dataset is not there any more: what is shown is what it was")
            except Caterva2Error as error:
                if self.state != "offline":
                    self._say("failed", str(error))
            except Exception as error:  # the new version may have another shape: the figure says so, and waits
                self._say("failed", f"{type(error).__name__}: {error}")
            self._is_stopped.wait(PAUSE_S)

    def _draw_newest(self) -> None:
        shown = self._array.version
        self._array.refresh()
        if self._array.version == shown and self.state not in ("failed", "gone"):
            return
        begun = time.monotonic()
        picture = png_of(self._array, self._key, **self._options)
        if self._is_stopped.is_set():
            return
        self._image.value = picture
        self.drawn += 1
        self._say("live", f"drawn at {_now()} in {time.monotonic() - begun:.1f} s, {self.drawn} times")

    def _say(self, state: str, text: str) -> None:
        self.state = state
        colour = {"live": "#2e7d32", "stopped": "#757575"}.get(state, "#c62828")
        self._status.value = (
            f'<span role="status"><span style="color:{colour}">●</span> {state}, {html.escape(plain(text))}</span>'
        )


def _now() -> str:
    return f"{datetime.now():%H:%M:%S}"


def watch(array: RemoteArray, key: Any = None, **options: Any) -> LivePlot:
    """See ``RemoteArray.watch``.

    Parameters
    ----------
    array : RemoteArray
    key, **options
        As of ``RemoteArray.watch``.

    Raises
    ------
    As ``RemoteArray.watch``.

    Examples
    --------
    >>> live = cat2.watch(client["foo/dir1/ds-2d"])
    >>> live.close()
    """
    return LivePlot(array, key, **options)
