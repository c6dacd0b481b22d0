"""How long transfers tell how far they are: a callback, or bars where a session has some. Nothing is drawn here."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Protocol

from ..errors import ConfigError
from .conversions import conversion

__all__ = ["BAR_NBYTES", "Bars", "Progress", "find_bars", "telling"]


BAR_NBYTES = 4 << 20
"""Reads of fewer decoded bytes have no bar: they end before one could be seen."""


class Progress(Protocol):
    """Called now and then while bytes come, from the thread that asked for them, and once at the end."""

    def __call__(self, done_nbytes: int, total_nbytes: int) -> None:
        """Take note.

        Parameters
        ----------
        done_nbytes : int
            Bytes so far, counted as ``total_nbytes`` is.
        total_nbytes : int
            Bytes in all: those of the stored file, or the decoded bytes of an array; 0 when not known.
        """
        ...


Bars = Callable[[str], AbstractContextManager[Progress]]
"""Makes a bar for what has a title; it is shown while the context lasts, once that took a second."""


@contextmanager
def telling(progress: Progress | None, bars: Bars | None, title: str) -> Iterator[Progress | None]:
    """Whom a transfer tells how far it is: the caller's callback, else a bar, else nobody.

    Only the main thread has bars: threads of a computation would show one each.

    Examples
    --------
    >>> with telling(None, None, "foo/x") as progress:
    ...     print(progress)
    None
    """
    if progress is not None or bars is None or threading.current_thread() is not threading.main_thread():
        yield progress
        return
    with bars(title) as bar:
        yield bar


def find_bars(wanted: bool | None) -> Bars | None:
    """The bars of a session.

    Parameters
    ----------
    wanted : bool or None
        None: in notebooks, where tqdm is installed.

    Raises
    ------
    ConfigError
        When bars are wanted and tqdm is not installed.
    """
    if wanted is False or (wanted is None and not _is_notebook()):
        return None
    if find_spec("tqdm") is None:
        if wanted:
            raise ConfigError("progress=True needs tqdm: pip install 'caterva2-jupyter[widgets]'")
        return None
    return conversion("widgets.progress_bars", "Bar")


def _is_notebook() -> bool:
    """Is this a kernel, with a person's cells?"""
    shells = sys.modules.get("IPython.core.getipython")
    shell = shells.get_ipython() if shells is not None else None
    return shell is not None and hasattr(shell, "kernel")
