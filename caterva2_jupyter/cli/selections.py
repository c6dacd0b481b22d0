"""``ROOT/PATH[SELECTION]``, as commands take it: parted, opened, and told what is wrong with it.

Names may end as selections do (``run[1]``): what is there decides.
"""

from __future__ import annotations

from typing import Any

from ..client.client import Client
from ..client.group import RemoteObject
from ..core.selection import parse_key_text
from ..errors import DatasetNotFoundError, SelectionError

__all__ = ["open_selected", "split_selection"]

Key = tuple[Any, ...]


def split_selection(text: str) -> tuple[str, str | None]:
    """``NAME[SELECTION]`` -> (name, selection), neither parsed; None where there is none.

    >>> split_selection("foo/x[0].b2nd[1, :]"), split_selection("foo/x.b2nd"), split_selection("foo/x[5")
    (('foo/x[0].b2nd', '1, :'), ('foo/x.b2nd', None), ('foo/x[5', None))
    """
    if text.endswith("]"):
        depth = 0
        for at in range(len(text) - 1, 0, -1):
            depth += (text[at] == "]") - (text[at] == "[")
            if depth == 0:
                return text[:at], text[at + 1 : -1]
    return text, None


def open_selected(client: Client, text: str) -> tuple[RemoteObject, str, Key]:
    """Open what a text names.

    Returns
    -------
    node : RemoteObject
    address : str
        What the name is.
    key : tuple
        The selection; ``()`` when there is none.

    Raises
    ------
    SelectionError
        When it is none, or not closed.
    DatasetNotFoundError
        When nothing has that name, with or without the selection.
    """
    address, selection = split_selection(text)
    if selection is None:
        try:
            return client[text], text, ()
        except DatasetNotFoundError:
            _check_brackets(text)
            raise
    try:
        return client[address], address, parse_key_text(selection)
    except (DatasetNotFoundError, SelectionError) as error:
        if text in client:
            return client[text], text, ()
        if isinstance(error, DatasetNotFoundError):
            _check_brackets(address, selection)
        raise


def _check_brackets(text: str, selection: str = "") -> None:
    """Say so when what is not there is no name, but a selection that is written wrong."""
    before, bracket, after = text.partition("[")
    if not before or not before.strip("]") or (not bracket and "]" not in text):
        return
    if not bracket:
        bare = text.replace("]", "")
        raise SelectionError(f"']' closes no selection in {text!r}: write '{bare}[0:5]', or no bracket")
    if selection and after.endswith("]"):
        joined = f"{before}[{after[:-1]},{selection}]"
        raise SelectionError(f"there are two selections in '{text}[{selection}]': write '{joined}'")
    if text.count("[") > text.count("]"):
        raise SelectionError(f"the selection is not closed: write '{text}]'")
