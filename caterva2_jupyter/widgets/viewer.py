"""The viewer as output of a cell: an anywidget of the same module that JupyterLab's panel and the page use.

The browser asks the kernel, and the kernel asks the service (``relay``): it works wherever widgets do, and no address
or token gets to the browser.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from ..client.representation import plain
from ..client.session import Session
from ..core.paths import whole_address
from .relay import Relay

if TYPE_CHECKING:
    from ..client.group import Group
    from ..client.remote_dataset import RemoteDataset

__all__ = ["HEIGHT", "Viewer", "view"]

MODULE = Path(__file__).parent.parent / "static" / "viewer.js"
HEIGHT = 480


class Viewer(anywidget.AnyWidget):
    """A view of one address; set ``path`` to look at another one.

    Made by ``array.view()`` and ``group.view()``.

    Attributes
    ----------
    path : str
        ``ROOT/PATH``.
    height : int
        Pixels, when it is first shown.
    theme : {"", "light", "dark"}
        Empty: that of the page.

    Examples
    --------
    >>> viewer = client["foo/dir1/ds-3d"].view()
    >>> viewer.path = "foo/dir2/ds-4d.b2nd"
    >>> viewer.close()
    """

    _esm = MODULE
    path = traitlets.Unicode().tag(sync=True)
    height = traitlets.Int(HEIGHT, min=120, max=4000).tag(sync=True)
    theme = traitlets.Enum(["", "light", "dark"], "").tag(sync=True)

    def __init__(self, session: Session, path: str, **traits: Any) -> None:
        super().__init__(path=path, **traits)
        widget = weakref.ref(self)

        def send(message: Mapping[str, Any], buffers: list[bytes]) -> None:
            shown = widget()
            if shown is not None and shown.comm is not None:
                shown.send(message, buffers=buffers)

        self._relay = Relay(session.service, send)
        self.on_msg(_take)

    def close(self) -> None:
        """Take the view away, and end its requests."""
        relay = getattr(self, "_relay", None)
        if relay is not None:
            relay.close()
        super().close()

    def __repr__(self) -> str:
        return f"<Viewer of {plain(self.path)}>"


def _take(widget: Viewer, content: Any, buffers: list[memoryview]) -> None:
    widget._relay.receive(content)


def view(shown: Group | RemoteDataset, height: int = HEIGHT, theme: str = "") -> Viewer:
    """See ``RemoteArray.view``."""
    return Viewer(shown._session, whole_address(shown.root, shown.path), height=height, theme=theme)
