"""A reduction as it travels: which values of a dataset become fewer, and how.

The box of a selection is cut in bins, along each axis of ``steps`` items (the last bin shorter): a reduction over
an axis has one bin there, an axis that is kept bins of one item. Of each bin one value is made. It computes
nothing (``compute/reduction`` does), and says nothing of where.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from ..errors import RequestError
from .paths import split_address
from .selection import Selection

__all__ = ["OPERATIONS", "Operation", "ReduceRequest", "Working", "parse_skip", "reduction_digest"]

Operation = Literal["sum", "prod", "mean", "min", "max", "std", "var", "any", "all", "count", "minmax", "stride"]
OPERATIONS: tuple[str, ...] = get_args(Operation)

MAX_REQUEST_NBYTES = 16 << 20
MAX_SKIPPED = 16
MAX_FIELDS = 16
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_KEYS = {"path", "version", "selection", "field", "op", "axis", "steps", "dtype", "keepdims", "ddof", "skip"}

Number = int | float


@dataclass(frozen=True, slots=True)
class Working:
    """What is said while a reduction takes its time: how many blocks are done, of how many."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ReduceRequest:
    """One reduction of a version of a dataset.

    Attributes
    ----------
    root, path : str
    op : {"sum", "prod", "mean", "min", "max", "std", "var", "any", "all", "count", "minmax", "stride"}
        ``minmax`` gives both, along a new last axis; ``stride`` the first item of each bin, as it is stored.
    version : str or None
        None: whatever the version is now.
    selection : list or None
        JSON form of ``Selection``: the box that is reduced; None is all of it.
    axis : tuple of int or None
        Axes to reduce over, ascending; None is all of them. Not with ``steps``.
    steps : tuple of int or None
        Items of a bin along each axis, all axes being kept.
    dtype : str or None
        Of the result, as NumPy writes it; None is the one that NumPy takes.
    keepdims : bool
        Axes that are reduced over stay, with length 1.
    ddof : int or float
        What is taken off the number of values, for ``std`` and ``var``.
    skip : tuple of number
        Stored values that do not count; NaN among them is NaN and NaT.
    field : tuple of str
        Of items with fields, the one that is reduced: its name, and in it those of inner ones.

    Examples
    --------
    >>> ReduceRequest("climate", "t.b2nd", "mean", axis=(0,)).to_json()
    {'path': 'climate/t.b2nd', 'op': 'mean', 'axis': [0]}
    """

    root: str
    path: str
    op: Operation
    version: str | None = None
    selection: Any = None
    axis: tuple[int, ...] | None = None
    steps: tuple[int, ...] | None = None
    dtype: str | None = None
    keepdims: bool = False
    ddof: Number = 0
    skip: tuple[Number, ...] = ()
    field: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        form: dict[str, Any] = {"path": f"{self.root}/{self.path}", "op": self.op}
        if self.version is not None:
            form["version"] = self.version
        if self.selection is not None:
            form["selection"] = self.selection
        return form | _options(self)

    @classmethod
    def from_bytes(cls, body: bytes) -> ReduceRequest:
        """Parse a request's body; nothing of it is trusted.

        Raises
        ------
        RequestError, InvalidPathError
        """
        if len(body) > MAX_REQUEST_NBYTES:
            raise RequestError(f"a reduction's request has at most {MAX_REQUEST_NBYTES} bytes")
        try:
            form = json.loads(body, object_pairs_hook=_distinct, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise RequestError("the body is not JSON, or has a key twice") from None
        return cls.from_json(form)

    @classmethod
    def from_json(cls, form: Any) -> ReduceRequest:
        """Parse a request.

        Raises
        ------
        RequestError, InvalidPathError
        """
        if not isinstance(form, Mapping):
            raise RequestError("the request of a reduction is a JSON object")
        if unknown := set(form) - _KEYS:
            raise RequestError(f"unknown key in the request of a reduction: {min(unknown)[:40]!r}")
        path, version, op, dtype = form.get("path"), form.get("version"), form.get("op"), form.get("dtype")
        if not isinstance(path, str) or not (version is None or isinstance(version, str)):
            raise RequestError("a reduction has a path, and a version as text if any")
        if not isinstance(op, str) or op not in OPERATIONS:
            raise RequestError(f"there is no reduction {str(op)[:40]!r}: one of {', '.join(OPERATIONS)}")
        if not (dtype is None or (isinstance(dtype, str) and len(dtype) <= 20)):
            raise RequestError("the dtype of a reduction is a text as NumPy writes it")
        axis, steps, keepdims, ddof = form.get("axis"), form.get("steps"), form.get("keepdims", False), form.get("ddof")
        if axis is not None and not (_are_ints(axis, 0) and sorted(set(axis)) == axis):
            raise RequestError("the axes of a reduction are distinct, ascending and not negative")
        if steps is not None and (axis is not None or keepdims or not _are_ints(steps, 1)):
            raise RequestError("steps are numbers of items, one per axis, and go with neither axis nor keepdims")
        if op == "stride" and steps is None:
            raise RequestError("stride goes with steps")
        if not isinstance(keepdims, bool) or not (ddof is None or _is_number(ddof)):
            raise RequestError("keepdims is true or false, and ddof a number")
        root, dataset = split_address(path)
        return cls(
            root=root,
            path=dataset,
            op=cast("Operation", op),
            version=version,
            selection=form.get("selection"),
            axis=None if axis is None else tuple(axis),
            steps=None if steps is None else tuple(steps),
            dtype=dtype,
            keepdims=keepdims,
            ddof=ddof or 0,
            skip=parse_skip(form.get("skip", [])),
            field=_parse_field(form.get("field", [])),
        )


def _options(request: ReduceRequest) -> dict[str, Any]:
    """Everything but what is reduced."""
    form: dict[str, Any] = {}
    for name in ("axis", "steps"):
        value = getattr(request, name)
        if value is not None:
            form[name] = list(value)
    for name in ("dtype", "keepdims", "ddof"):
        value = getattr(request, name)
        if value:
            form[name] = value
    if request.field:
        form["field"] = list(request.field)
    if request.skip:
        form["skip"] = [_word(value) for value in request.skip]
    return form


def reduction_digest(request: ReduceRequest, selection: Selection) -> str:
    """What names a reduction of a box, whichever version it is of (32 hex digits)."""
    from .exact_slice import selection_digest

    form = {"op": request.op, "of": selection_digest(selection)} | _options(request)
    text = "reduce\0" + json.dumps(form, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def parse_skip(form: Any) -> tuple[Number, ...]:
    """Values to be left out, from JSON: numbers, and the words ``nan``, ``inf`` and ``-inf``.

    >>> parse_skip([-9999, "nan"])
    (-9999, nan)
    """
    if not isinstance(form, list) or len(form) > MAX_SKIPPED:
        raise RequestError(f"skip is a list of at most {MAX_SKIPPED} values")
    values: list[Number] = []
    for value in form:
        if isinstance(value, str) and value in _WORDS:
            values.append(_WORDS[value])
        elif _is_number(value):
            values.append(value)
        else:
            raise RequestError("skip has numbers, and 'nan', 'inf' and '-inf'")
    return tuple(values)


def _parse_field(form: Any) -> tuple[str, ...]:
    if not isinstance(form, list) or len(form) > MAX_FIELDS or not all(isinstance(name, str) for name in form):
        raise RequestError(f"a field is a list of at most {MAX_FIELDS} names")
    return tuple(form)


def _word(value: Number) -> Number | str:
    if isinstance(value, float) and not math.isfinite(value):
        return next(word for word, v in _WORDS.items() if v == value or (v != v and value != value))
    return value


def _is_number(value: Any) -> bool:
    return (type(value) is int and abs(value) < 2**64) or (type(value) is float and math.isfinite(value))


def _are_ints(form: Any, low: int) -> bool:
    return isinstance(form, list) and len(form) <= 64 and all(type(n) is int and low <= n < 2**63 for n in form)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    form = dict(pairs)
    if len(form) != len(pairs):
        raise ValueError("a key occurs twice")
    return form


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
