"""Saving a dataset: where to, how far it is, and a way out."""

from __future__ import annotations

import threading
from pathlib import Path

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, ProgressBar

from ..cli.connection import one_line
from ..cli.output import inert
from ..client.client import Client
from ..errors import Caterva2Error

__all__ = ["DownloadScreen"]


class _Cancelled(Exception):
    """The user does not want it any more."""


class DownloadScreen(ModalScreen[str]):
    """Asks for a file, saves the dataset there, and ends with what is to be said about it.

    Parameters
    ----------
    client : Client
    address : str
        ``ROOT/PATH``.
    """

    BINDINGS = [Binding("escape", "cancel", "Cancel")]  # noqa: RUF012
    DEFAULT_CSS = """
    DownloadScreen { align: center middle; }
    DownloadScreen > Vertical { width: 70%; max-width: 90; height: auto; border: round $accent; padding: 1 2; }
    """

    def __init__(self, client: Client, address: str) -> None:
        super().__init__()
        self._client, self._address = client, address
        self._cancelled = threading.Event()
        self._is_running = False

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Label(Text(f"Save {inert(self._address)} as (Enter saves, Escape does not)"))
            yield Input(Path(self._address).name, id="goal")
            yield ProgressBar(id="progress", show_eta=True)

    @on(Input.Submitted)
    def begin(self, event: Input.Submitted) -> None:
        if not self._is_running and event.value.strip():
            self._is_running = True
            event.input.disabled = True
            self._download(event.value.strip())

    def action_cancel(self) -> None:
        self._cancelled.set()
        if not self._is_running:
            self.dismiss("nothing was saved")

    @work(thread=True, exclusive=True)
    def _download(self, goal: str) -> None:
        bar = self.query_one(ProgressBar)

        def progress(done_nbytes: int, total_nbytes: int) -> None:
            if self._cancelled.is_set():
                raise _Cancelled
            self.app.call_from_thread(bar.update, total=total_nbytes or None, progress=done_nbytes)

        try:
            saved = self._client.download(self._address, Path(goal).expanduser(), progress)
            message = f"saved as {saved}"
        except _Cancelled:
            message = "cancelled: nothing was saved"
        except Caterva2Error as error:
            message = one_line(error)
        except OSError as error:
            message = f"{error.filename or goal}: {error.strerror or error}"
        self.app.call_from_thread(self.dismiss, message)
