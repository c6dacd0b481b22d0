"""Progress bars by tqdm: in a notebook its own kind, in a terminal a line; for what takes more than a second.

Interrupting the kernel (or Ctrl+C) ends a transfer: nothing half-written stays, and the bar goes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from ..client.representation import plain

__all__ = ["SHOWN_AFTER_S", "Bar"]

SHOWN_AFTER_S = 1.0
MAX_TITLE_CHARS = 40


class Bar:
    """A bar of bytes, shown once what it is of took a second; a callback of ``client.progress``.

    Parameters
    ----------
    title : str
    clock : callable
        Seconds.

    Examples
    --------
    >>> with Bar("foo/x") as progress:
    ...     progress(1 << 20, 2 << 20)
    """

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        text = plain(title)
        self._title = text if len(text) <= MAX_TITLE_CHARS else f"…{text[1 - MAX_TITLE_CHARS :]}"
        self._clock = clock
        self._begun = clock()
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._begun = self._clock()
        return self

    def __call__(self, done_nbytes: int, total_nbytes: int) -> None:
        if self._bar is None:
            if self._clock() - self._begun < SHOWN_AFTER_S or done_nbytes >= total_nbytes > 0:
                return
            self._bar = _make(self._title, total_nbytes)
        if total_nbytes and total_nbytes != self._bar.total:
            self._bar.total = total_nbytes
        # What is sent again after a broken connection counts once.
        self._bar.update(max(0, done_nbytes - self._bar.n))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def _make(title: str, total: int) -> Any:
    with warnings.catch_warnings():
        # It warns where ipywidgets are missing, and writes a line in place of a bar.
        warnings.simplefilter("ignore")
        tqdm = import_module("tqdm.auto").tqdm
        return tqdm(
            total=total or None,
            desc=title,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            leave=False,
            dynamic_ncols=True,
        )
