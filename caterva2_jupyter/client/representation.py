"""How remote objects show themselves in a notebook: small tables of escaped text, no requests.

Names and attributes come from whoever published them: everything is text, nothing is markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

import numpy as np

__all__ = ["format_nbytes", "format_value", "html_table", "plain"]

MAX_VALUE_CHARS = 200
MAX_ROWS = 50


def plain(text: str) -> str:
    """Text for a terminal: control characters are shown, not obeyed.

    >>> plain("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode("ascii") for c in text)


def format_nbytes(nbytes: int) -> str:
    """A number of bytes for people.

    >>> format_nbytes(1536), format_nbytes(12)
    ('1.5 KiB', '12 bytes')
    """
    if nbytes < 1024:
        return f"{nbytes} bytes"
    power = min((nbytes.bit_length() - 1) // 10, 5)
    return f"{nbytes / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power - 1]}"


def format_value(value: object) -> str:
    """An attribute's value on one line, shortened."""
    if isinstance(value, np.ndarray):
        text = np.array2string(value, threshold=8, edgeitems=3)
    elif isinstance(value, str):
        text = value
    else:
        text = repr(value.item() if isinstance(value, np.generic) and value.dtype.names is None else value)
    text = plain(" ".join(text[: 4 * MAX_VALUE_CHARS].split()))
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "…"


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><th style="text-align:left">{html.escape(plain(k))}</th>'
        f'<td style="text-align:left">{html.escape(plain(v))}</td></tr>'
        for k, v in pairs
    )
    return f"<table>{cells}</table>"


def html_table(title: str, facts: Mapping[str, str], attrs: Mapping[str, object] | None = None) -> str:
    """A table of facts, with the attributes folded below it.

    Parameters
    ----------
    title : str
    facts : mapping of str to str
    attrs : mapping, optional

    Returns
    -------
    str
        HTML in which every text is escaped.

    Examples
    --------
    >>> "<script>" in html_table("<script>", {"<b>": "</table>"})
    False
    """
    parts = [f"<div><strong>{html.escape(plain(title))}</strong>", _rows(facts.items())]
    if attrs:
        shown = [(k, format_value(v)) for k, v in list(attrs.items())[:MAX_ROWS]]
        if len(attrs) > MAX_ROWS:
            shown.append(("…", f"{len(attrs) - MAX_ROWS} more"))
        parts.append(f"<details><summary>{len(attrs)} attributes</summary>{_rows(shown)}</details>")
    return "".join([*parts, "</div>"])
