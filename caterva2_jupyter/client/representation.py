"""How remote objects show themselves in a notebook: small cards of escaped text; nothing is asked for here.

Names and attributes come from whoever published them: everything is text, nothing is markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

import numpy as np

__all__ = ["format_age", "format_nbytes", "format_time", "format_value", "html_table", "plain"]

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


def format_time(time_ns: int) -> str:
    """A time for people, in UTC; empty when it is not known.

    >>> format_time(1_700_000_000_000_000_000)
    '2023-11-14 22:13:20 UTC'
    """
    if time_ns <= 0:
        return ""
    return f"{np.datetime64(time_ns // 1_000_000_000, 's')} UTC".replace("T", " ", 1)


def format_age(seconds: float) -> str:
    """How long ago something was, for people.

    >>> format_age(5), format_age(90), format_age(7200), format_age(86400 * 400)
    ('just now', '1 minute ago', '2 hours ago', '1 year ago')
    """
    for unit_s, unit in ((31_557_600, "year"), (86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit_s:
            number = int(seconds // unit_s)
            return f"{number:,} {unit}{'s' if number > 1 else ''} ago"
    return "just now"


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


STYLE = (
    ".c2-card{display:inline-block;max-width:100%;box-sizing:border-box;padding:.5em .8em .6em;margin:.2em 0;"
    "border:1px solid var(--jp-border-color2,rgba(128,128,128,.4));border-radius:4px;font-size:13px;line-height:1.45;"
    "color:var(--jp-ui-font-color1,inherit);background:var(--jp-layout-color0,transparent)}"
    ".c2-card .c2-title{overflow-wrap:anywhere;margin-bottom:.3em}"
    ".c2-card .c2-kind{font-size:11px;padding:0 .5em;margin-right:.5em;border-radius:3px;white-space:nowrap;"
    "border:1px solid var(--jp-brand-color1,#2f7fb8);color:var(--jp-brand-color1,#2f7fb8)}"
    ".c2-card .c2-body{display:flex;flex-wrap:wrap;gap:.4em 1.6em;align-items:center}"
    ".c2-card table{border:none;border-collapse:collapse;margin:0;font-size:13px;color:inherit;width:auto}"
    ".c2-card tr{background:none!important;border:none}"
    ".c2-card th,.c2-card td{text-align:left!important;vertical-align:top;padding:.08em 1em .08em 0;border:none;"
    "max-width:44em;white-space:normal;overflow-wrap:anywhere;background:none}"
    ".c2-card th{font-weight:500;color:var(--jp-ui-font-color2,inherit);opacity:.85;max-width:22em}"
    ".c2-card td{font-family:var(--jp-code-font-family,monospace);font-size:12px}"
    ".c2-card details{margin-top:.35em}.c2-card summary{cursor:pointer;color:var(--jp-ui-font-color2,inherit)}"
    ".c2-card svg{flex:none}.c2-card svg text{font-size:11px;fill:currentColor;opacity:.8}"
    ".c2-card svg line{stroke:currentColor;stroke-opacity:.35;stroke-width:1}"
    ".c2-card svg .c2-face{fill:var(--jp-brand-color1,#2f7fb8);stroke:currentColor;stroke-opacity:.8;stroke-width:1}"
)


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><th style="text-align:left">{html.escape(plain(k))}</th>'
        f'<td style="text-align:left">{html.escape(plain(v))}</td></tr>'
        for k, v in pairs
    )
    return f"<table>{cells}</table>"


def html_table(title: str, facts: Mapping[str, str], attrs: Mapping[str, object] | None = None, svg: str = "") -> str:
    """A card: a table of facts, a picture beside it, with the attributes folded below.

    Parameters
    ----------
    title : str
        Its first word says what it is.
    facts : mapping of str to str
    attrs : mapping, optional
    svg : str
        Markup made here, such as that of ``chunk_picture``: it is not escaped.

    Returns
    -------
    str
        HTML in which every text is escaped. It takes its colours from the page, light or dark.

    Examples
    --------
    >>> "<script>" in html_table("<script>", {"<b>": "</table>"})
    False
    """
    kind, _, name = plain(title).partition(" ")
    head = f'<span class="c2-kind">{html.escape(kind)}</span><strong>{html.escape(name)}</strong>'
    parts = [
        f'<div class="c2-card"><style>{STYLE}</style><div class="c2-title">{head}</div>',
        f'<div class="c2-body">{_rows(facts.items())}{svg}</div>',
    ]
    if attrs:
        shown = [(k, format_value(v)) for k, v in list(attrs.items())[:MAX_ROWS]]
        if len(attrs) > MAX_ROWS:
            shown.append(("…", f"{len(attrs) - MAX_ROWS} more"))
        count = "1 attribute" if len(attrs) == 1 else f"{len(attrs)} attributes"
        parts.append(f"<details><summary>{count}</summary>{_rows(shown)}</details>")
    return "".join([*parts, "</div>"])
