"""What the command line prints: plain lines for programs, tables and colours on a terminal only.

Names and texts from elsewhere are printed with their control characters escaped, so that none moves the
cursor or starts a new line; ``--json`` has them exactly.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from rich.console import Console
from rich.highlighter import ReprHighlighter
from rich.pretty import pretty_repr
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from ..client.progress import Progress as ProgressCallback

__all__ = ["Output", "inert"]

SHOW_PROGRESS_AFTER_S = 1.0


def inert(text: str) -> str:
    r"""Text with control and direction characters escaped.

    >>> inert("a\x1b[31mb\n")
    'a\\x1b[31mb\\n'
    """
    return "".join(
        c.encode("unicode_escape").decode("ascii") if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in text
    )


def _needed_widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Of each column of a table that can be read: only dtypes and notes may be folded a little."""
    longest = [max((len(row[n]) for row in rows), default=0) for n in range(len(columns))]
    cut = [min(width, 24) if n else width for n, width in enumerate(longest)]
    return [2 + max(width, len(column)) for width, column in zip(cut, columns, strict=True)]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # ``main`` knows what to do, whoever wrote


class Output:
    """Standard output, and progress on standard error."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # names may have letters that the terminal has not
        self._out = _Console(file=sys.stdout, soft_wrap=True, markup=False, emoji=False, highlight=False)
        self._err = _Console(file=sys.stderr, soft_wrap=True, markup=False, emoji=False, highlight=False)

    def can_print(self, text: str) -> bool:
        """Does standard output have all of these characters?"""
        try:
            text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
        except UnicodeEncodeError:
            return False
        return True

    def line(self, text: str, style: str = "") -> None:
        """One line of text."""
        self._out.print(Text(inert(text), style=style))

    def text(self, text: str) -> None:
        """Text with its own line ends, such as a file's."""
        safe = "".join(c if c in "\n\t" else inert(c) for c in text)
        self._out.out(safe, end="" if safe.endswith("\n") else "\n", highlight=False)

    def json(self, value: object) -> None:
        """A value as JSON, exactly."""
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")

    def mapping(self, value: Mapping[str, object]) -> None:
        """A nested value as Python writes it, one key a line."""
        items = [f"{key!r}: {pretty_repr(item, max_width=90)}" for key, item in value.items()]
        form = "{\n" + textwrap.indent(",\n".join(items), "    ") + "\n}"
        self._out.print(ReprHighlighter()(form) if self._out.is_terminal else Text(form))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; columns are separated by tabs where nobody looks."""
        if not self._out.is_terminal:
            for row in rows:
                sys.stdout.write("\t".join(inert(cell) for cell in row) + "\n")
            return
        if sum(_needed_widths(columns, rows)) > self._out.width:
            for first, *rest in rows:
                self.line(first)
                self.line("    " + "  ".join(cell for cell in rest if cell), style="dim")
            return
        table = Table(box=None, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold", justify="right" if column in ("size", "stored") else "left")
        for row in rows:
            table.add_row(*[Text(inert(cell)) for cell in row])
        self._out.print(table)

    def error(self, message: str) -> None:
        """One line on standard error."""
        self._err.print(Text(f"cat2cli: {inert(message)}"))

    @contextmanager
    def progress(self, label: str) -> Iterator[ProgressCallback]:
        """A bar with rate and remaining time, for a transfer that takes over a second."""
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._err,
            transient=True,
        )
        task = bar.add_task(inert(label), total=None, start=True)
        began = time.monotonic()
        shown = False

        def update(done_nbytes: int, total_nbytes: int) -> None:
            nonlocal shown
            bar.update(task, completed=done_nbytes, total=total_nbytes or None)
            if not shown and self._err.is_terminal and time.monotonic() - began > SHOW_PROGRESS_AFTER_S:
                shown = True
                bar.start()

        try:
            yield update
        finally:
            if shown:
                bar.stop()
