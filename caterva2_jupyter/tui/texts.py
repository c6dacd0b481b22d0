"""What the terminal browser shows of a dataset, as inert text: facts, attributes, a preview of values.

Names, attributes and files come from whoever published them: control characters are shown, markup is text.
"""

from __future__ import annotations

import math

import numpy as np
from rich.table import Table
from rich.text import Text

from ..cli.output import inert
from ..client.group import Group, RemoteObject, UnsupportedDataset
from ..client.remote_array import RemoteArray
from ..client.remote_file import RemoteFile
from ..client.representation import format_nbytes, format_value
from ..core.rollback_mark import rollback_text
from ..core.selection import parse_basic, parse_key_text
from ..errors import SelectionError

__all__ = ["MAX_PREVIEW_NBYTES", "default_slice", "facts", "preview"]

MAX_PREVIEW_NBYTES = 4 << 20
MAX_ATTRIBUTES = 200
MAX_FILE_NBYTES = 16 << 10
_SHOWN = (20, 10)


def default_slice(shape: tuple[int, ...]) -> str:
    """A slice that shows a corner of an array: its last two axes, the first item of all others.

    Examples
    --------
    >>> default_slice((100, 40, 50)), default_slice((5,)), default_slice(())
    ('0, :20, :10', ':200', '')
    """
    if len(shape) == 1:
        return f":{_SHOWN[0] * _SHOWN[1]}"
    if not shape:
        return ""
    return ", ".join(["0"] * (len(shape) - 2) + [f":{n}" for n in _SHOWN])


def facts(opened: RemoteObject, address: str) -> Table:
    """What is known of a dataset or group, and its attributes."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows: list[tuple[str, str]] = [("address", address)]
    entry = opened.entry
    if isinstance(opened, UnsupportedDataset):
        rows.append(("cannot be read", opened.reason))
    if entry.geometry is not None:
        geometry = entry.geometry
        rows += [
            ("shape", str(geometry.shape)),
            ("dtype", str(geometry.dtype) if geometry.dtype.kind != "O" else "str"),
            ("chunks", str(geometry.chunks)),
            ("blocks", str(geometry.blocks)),
            ("size", format_nbytes(geometry.nbytes)),
        ]
    if entry.cbytes:
        rows.append(("stored", format_nbytes(entry.cbytes)))
    if entry.dims:
        rows.append(("dims", ", ".join(entry.dims)))
    if entry.version:
        rows.append(("version", entry.version))
    if went_back := rollback_text(entry):
        rows.append(("went back", went_back))
    for key in ("codec", "clevel", "filters"):
        if key in entry.storage:
            rows.append((key, str(entry.storage[key])))
    attrs = opened.attrs if not isinstance(opened, RemoteFile) else {}
    listed = list(attrs.items())
    rows += [(f"@{name}", format_value(value)) for name, value in listed[:MAX_ATTRIBUTES]]
    if len(listed) > MAX_ATTRIBUTES:
        rows.append(("…", f"{len(listed) - MAX_ATTRIBUTES} more attributes"))
    for name, value in rows:
        table.add_row(Text(inert(name)), Text(inert(value)))
    return table


def preview(opened: RemoteObject, key: str) -> Text:
    """Values of a slice, or the beginning of a file.

    Raises
    ------
    SelectionError
        When the slice does not fit, or selects too much to be looked at.
    Caterva2Error
        As reading does.
    """
    if isinstance(opened, RemoteFile):
        return _file(opened)
    if isinstance(opened, RemoteArray):
        return Text(inert_lines(_values(opened, key)))
    if isinstance(opened, Group):
        return Text("Enter opens or closes a group.", style="dim")
    return Text(inert(opened.reason), style="dim")


def _values(array: RemoteArray, text: str) -> str:
    try:
        key = parse_key_text(text)
        selected = parse_basic(key, array.shape).result_shape
    except (IndexError, ValueError, TypeError) as error:
        raise SelectionError(f"[{text}] does not fit shape {array.shape}: {error}") from None
    nbytes = math.prod(selected) * max(array.dtype.itemsize, 8)
    if nbytes > MAX_PREVIEW_NBYTES:
        raise SelectionError(
            f"[{text}] selects {format_nbytes(nbytes)}; at most {format_nbytes(MAX_PREVIEW_NBYTES)} are shown here"
        )
    with np.printoptions(threshold=2000, edgeitems=10, linewidth=100):
        return str(array[key])


def _file(file: RemoteFile) -> Text:
    head = file[: MAX_FILE_NBYTES // file.itemsize]
    try:
        # A character may be cut at the end of what was read.
        text = head.decode("utf-8") if len(head) < MAX_FILE_NBYTES else head[:-4].decode("utf-8", "ignore")
        if "\0" in text:
            raise ValueError
    except ValueError:
        return Text(_dump(head[:512]))
    more = "" if file.nbytes <= len(head) else f"\n… {format_nbytes(file.nbytes - len(head))} more"
    return Text(inert_lines(text) + more)


def _dump(raw: bytes) -> str:
    lines = []
    for start in range(0, len(raw), 16):
        part = raw[start : start + 16]
        shown = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{start:08x}  {part.hex(' '):<47}  {shown}")
    return "\n".join(lines)


def inert_lines(text: str) -> str:
    r"""Text with its line ends, and all other control characters escaped.

    Examples
    --------
    >>> inert_lines("a\x1b[0m\nb")
    'a\\x1b[0m\nb'
    """
    return "".join(c if c in "\n\t" else inert(c) for c in text)
