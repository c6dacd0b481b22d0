"""Attributes of a directory: what the file ``.caterva2-group.json`` in it says.

Blosc2 arrays keep attributes in themselves; a directory has none without this file. Values in, values out: it opens
nothing. The file holds a JSON object with ``attrs`` (forms of ``attributes``) and ``unlimited_dims`` (list of str).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import IntegrityError
from .attributes import decode_attr, encode_attr

__all__ = ["GROUP_FILE", "MAX_GROUP_FILE_NBYTES", "format_group_file", "parse_group_file"]

GROUP_FILE = ".caterva2-group.json"
MAX_GROUP_FILE_NBYTES = 16 << 20


def format_group_file(attrs: Mapping[str, object], unlimited_dims: Sequence[str] = ()) -> bytes:
    """What to write in the file.

    Raises
    ------
    TypeError
        For an attribute that has no JSON form.

    Examples
    --------
    >>> format_group_file({"title": "a run"}, ["time"])
    b'{"attrs": {"title": "a run"}, "unlimited_dims": ["time"]}\\n'
    """
    form: dict[str, Any] = {"attrs": {name: encode_attr(value) for name, value in attrs.items()}}
    if unlimited_dims:
        form["unlimited_dims"] = list(unlimited_dims)
    return json.dumps(form, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def parse_group_file(raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The forms of the attributes, and what is noted in ``Entry.storage``: never an error, people edit such files.

    Returns
    -------
    attrs : dict
        JSON forms.
    storage : dict
        ``unlimited_dims``, and ``attrs_skipped`` (name -> reason) of what cannot be read.

    Examples
    --------
    >>> parse_group_file(b'{"attrs": {"n": 1, "bad": {"t": "?"}}}')
    ({'n': 1}, {'attrs_skipped': {'bad': "unknown attribute type '?'"}})
    >>> parse_group_file(b"{")[1]
    {'attrs_skipped': {'.caterva2-group.json': 'not a JSON object'}}
    """
    try:
        form = json.loads(raw)
        if not isinstance(form, dict) or not isinstance(form.get("attrs", {}), dict):
            raise TypeError
    except (ValueError, TypeError, RecursionError):
        return {}, {"attrs_skipped": {GROUP_FILE: "not a JSON object"}}
    attrs: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name, value in form.get("attrs", {}).items():
        try:
            decode_attr(value)
            attrs[name] = value
        except IntegrityError as error:
            skipped[name] = str(error)
    storage: dict[str, Any] = {"attrs_skipped": skipped} if skipped else {}
    dims = form.get("unlimited_dims")
    if isinstance(dims, list) and dims and all(isinstance(name, str) for name in dims):
        storage["unlimited_dims"] = dims
    return attrs, storage
