"""Expressions as they are kept in files and catalogs: text and operands verbatim, and what they came to when stored.

The form is JSON of our own: what Blosc2 stores of an expression it renames, and opens by evaluating it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.metadata import Entry, Geometry
from ..core.paths import split_address
from ..errors import Caterva2Error, IntegrityError, RequestError
from .expression import MAX_CHARS, MAX_OPERANDS, is_operand_name, parse

__all__ = ["EXPRESSION_KEY", "MAX_STORED_NBYTES", "StoredExpression", "checked_operands", "expression_of"]

_MAGIC = b'{"caterva2_expression":1,'
MAX_STORED_NBYTES = 256 << 10
_KEY = "expression"
EXPRESSION_KEY = "caterva2_expression"
"""Of an entry's ``storage``: its text and operands."""


@dataclass(frozen=True, slots=True)
class StoredExpression:
    """An expression with its operands' addresses.

    Attributes
    ----------
    text : str
    operands : dict of str
        ``ROOT/PATH`` by name.
    geometry : Geometry
        As of when it was stored.
    """

    text: str
    operands: Mapping[str, str]
    geometry: Geometry

    def to_bytes(self) -> bytes:
        form = {EXPRESSION_KEY: 1, **self.to_json(), "geometry": self.geometry.to_json()}
        return json.dumps(form, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"

    def to_json(self) -> dict[str, Any]:
        """What people are told of it."""
        return {_KEY: self.text, "operands": dict(self.operands)}

    @staticmethod
    def is_stored(head: bytes) -> bool:
        """Does a file that begins so hold one?"""
        return head.startswith(_MAGIC)

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredExpression:
        """Parse a file.

        Raises
        ------
        IntegrityError
            When it does not hold one.

        Examples
        --------
        >>> import numpy as np
        >>> stored = StoredExpression("a + 1", {"a": "foo/a.b2nd"}, Geometry((3,), (3,), (3,), np.dtype("i8")))
        >>> StoredExpression.from_bytes(stored.to_bytes()) == stored
        True
        """
        if not cls.is_stored(data) or len(data) > MAX_STORED_NBYTES:
            raise IntegrityError("not a stored expression")
        try:
            form = json.loads(data)
            text, operands = form[_KEY], form["operands"]
            geometry = Geometry.from_json(form["geometry"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise IntegrityError("a damaged stored expression") from error
        return cls(text, checked_operands(text, operands), geometry)


def checked_operands(text: object, operands: object) -> dict[str, str]:
    """Operands by name, those that the expression has, as addresses that could exist.

    Raises
    ------
    RequestError
        When text or operands are not that.
    """
    if not isinstance(text, str) or len(text) > MAX_CHARS:
        raise RequestError(f"an expression is a text of at most {MAX_CHARS} characters")
    if not isinstance(operands, Mapping) or len(operands) > 8 * MAX_OPERANDS:
        raise RequestError("operands are addresses (ROOT/PATH) by name")
    checked: dict[str, str] = {}
    for name, address in operands.items():
        if not isinstance(name, str) or not is_operand_name(name) or not isinstance(address, str):
            raise RequestError(f"operands are addresses (ROOT/PATH) by name, not {str(name)[:40]!r}")
        split_address(address)
        checked[name] = address
    for name in parse(text).names:
        if name not in checked:
            raise RequestError(f"{name} is not in the list of available datasets")
    return checked


def expression_of(entry: Entry) -> tuple[str, dict[str, str]] | None:
    """Text and operands of an entry that is an expression."""
    form = entry.storage.get(EXPRESSION_KEY)
    if entry.kind != "array" or not isinstance(form, Mapping):
        return None
    try:
        return form[_KEY], checked_operands(form[_KEY], form["operands"])
    except (Caterva2Error, KeyError):
        return None
