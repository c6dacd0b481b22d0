"""What the user indexed with: from a NumPy key to a box that travels, and back to NumPy's result.

A ``Selection`` is what travels: one ``AxisRange`` (positive step) or sorted distinct items per axis.
``parse_basic`` and ``parse_orthogonal`` also give the key that turns the box, once read, into what
NumPy would have returned: negative steps, dropped axes, ``None`` and repeats never leave the client.
It does not know of chunks.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import RequestError, SelectionError

__all__ = [
    "AxisItems",
    "AxisRange",
    "AxisSelection",
    "ParsedKey",
    "Selection",
    "parse_basic",
    "parse_key_text",
    "parse_orthogonal",
]

MAX_LISTED_ITEMS = 10_000_000


@dataclass(frozen=True, slots=True)
class AxisRange:
    """``start, start + step, ...`` below ``stop``; ``0 <= start <= stop``, ``step >= 1``."""

    start: int
    stop: int
    step: int = 1

    def __len__(self) -> int:
        return max(0, -(-(self.stop - self.start) // self.step))

    @property
    def last(self) -> int:
        """The last item selected (of a range that is not empty)."""
        return self.start + (len(self) - 1) * self.step


@dataclass(frozen=True, slots=True, eq=False)
class AxisItems:
    """Sorted distinct positions, int64."""

    items: np.ndarray[tuple[int], np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AxisItems) and np.array_equal(self.items, other.items)

    def __hash__(self) -> int:
        return hash(self.items.tobytes())


AxisSelection = AxisRange | AxisItems


@dataclass(frozen=True, slots=True)
class Selection:
    """An orthogonal box: one ``AxisSelection`` per axis of the dataset."""

    axes: tuple[AxisSelection, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the box (no axis dropped)."""
        return tuple(len(a) for a in self.axes)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Selection:
        return cls(tuple(AxisRange(0, n) for n in shape))

    def to_json(self) -> list[Any]:
        """Per axis ``[start, stop, step]`` or ``{"at": [item, ...]}``."""
        return [[a.start, a.stop, a.step] if isinstance(a, AxisRange) else {"at": a.items.tolist()} for a in self.axes]

    @classmethod
    def from_json(cls, form: Any, shape: tuple[int, ...]) -> Selection:
        """Parse and check against the dataset's shape; nothing is clamped or guessed.

        Raises
        ------
        RequestError
            When the form is malformed.
        SelectionError
            When it does not fit ``shape``.
        """
        if form is None:
            return cls.whole(shape)
        if not isinstance(form, list):
            raise RequestError("a selection is a list with one item per axis")
        if len(form) != len(shape):
            raise SelectionError(f"selection of {len(form)} axes for a dataset of {len(shape)}")
        return cls(tuple(_axis_from_json(f, n, i) for i, (f, n) in enumerate(zip(form, shape, strict=True))))


def _axis_from_json(form: Any, length: int, axis: int) -> AxisSelection:
    if isinstance(form, list):
        if len(form) != 3 or not all(type(v) is int for v in form):
            raise RequestError(f"axis {axis}: a range is [start, stop, step]")
        start, stop, step = form
        if not (0 <= start <= stop <= length and step >= 1):
            raise SelectionError(f"axis {axis}: range {form} is outside of an axis of {length}")
        return AxisRange(start, stop, step)
    if isinstance(form, Mapping) and set(form) == {"at"} and isinstance(form["at"], list):
        listed = form["at"]
        if len(listed) > MAX_LISTED_ITEMS or not all(type(v) is int for v in listed):
            raise RequestError(f"axis {axis}: positions are at most {MAX_LISTED_ITEMS} integers")
        if listed and not (min(listed) >= 0 and max(listed) < length):
            raise SelectionError(f"axis {axis}: a position is outside of an axis of {length}")
        items = np.array(listed, dtype=np.int64)
        if len(items) > 1 and not bool(np.all(np.diff(items) > 0)):
            raise RequestError(f"axis {axis}: positions have to be sorted and distinct")
        return AxisItems(items)
    raise RequestError(f"axis {axis}: neither [start, stop, step] nor {{'at': [...]}}")


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A selection to read, and how its box becomes NumPy's result.

    ``result_shape`` is the shape that NumPy gives; ``box_keys`` are applied one after another.
    """

    selection: Selection
    box_keys: tuple[Any, ...]
    result_shape: tuple[int, ...]

    def apply(self, box: Any) -> Any:
        """NumPy's result from the box that was read (a view where NumPy gives one)."""
        for key in self.box_keys:
            box = box[key]
        return box


def _expand_ellipsis(key: tuple[Any, ...], ndim: int) -> list[Any]:
    used = sum(1 for k in key if k is not None and k is not Ellipsis)
    expanded: list[Any] = []
    for item in key:
        if item is Ellipsis:
            expanded.extend([slice(None)] * (ndim - used))
        else:
            expanded.append(item)
    if Ellipsis not in [k for k in key if k is Ellipsis]:
        expanded.extend([slice(None)] * (ndim - used))
    return expanded


def _is_fancy(item: Any) -> bool:
    if isinstance(item, (bool, np.bool_, list, tuple)):
        return True
    return isinstance(item, np.ndarray) and not (item.ndim == 0 and item.dtype.kind in "iu")


def parse_basic(key: Any, shape: tuple[int, ...]) -> ParsedKey:
    """NumPy's basic indexing: ints, slices of any step, ``...`` and ``None``.

    Parameters
    ----------
    key : int, slice, Ellipsis, None or a tuple of them
    shape : tuple of int
        Shape of the dataset.

    Raises
    ------
    IndexError, TypeError, ValueError
        The exception, with the text, that NumPy raises for that key and shape. Lists, masks and
        arrays raise `SelectionError` (an IndexError) that names ``oindex``.

    Examples
    --------
    >>> parsed = parse_basic((1, slice(None, None, -2)), (3, 5))
    >>> parsed.selection.to_json(), parsed.result_shape
    ([[1, 2, 1], [0, 5, 2]], (3,))
    """
    items = key if isinstance(key, tuple) else (key,)
    if any(_is_fancy(k) for k in items):
        raise SelectionError(
            "lists, masks and arrays are not basic indices: use array.oindex[...] to select items per axis"
        )
    # NumPy is the judge of what is valid: a zero-stride array of this shape costs one byte.
    result_shape = np.broadcast_to(np.zeros((), np.int8), shape)[key].shape
    axes: list[AxisSelection] = []
    box_key: list[Any] = []
    for item in _expand_ellipsis(items, len(shape)):
        if item is None:
            box_key.append(None)
            continue
        length = shape[len(axes)]
        if isinstance(item, slice):
            start, stop, step = item.indices(length)
            axis, back = _forward(start, stop, step)
            axes.append(axis)
            box_key.append(back)
        else:
            index = operator.index(item)
            index += length if index < 0 else 0
            axes.append(AxisRange(index, index + 1))
            box_key.append(0)
    if Ellipsis in [k for k in items if k is Ellipsis]:
        box_key.append(Ellipsis)  # NumPy: with an Ellipsis a full integer index is a 0-d array, not a scalar
    return ParsedKey(Selection(tuple(axes)), (tuple(box_key),), result_shape)


def _forward(start: int, stop: int, step: int) -> tuple[AxisRange, slice]:
    """The same items with a positive step, and the slice that restores their order."""
    count = len(range(start, stop, step))
    if count == 0:
        return AxisRange(0, 0), slice(None)
    last = start + (count - 1) * step
    if step > 0:
        return AxisRange(start, last + 1, step if count > 1 else 1), slice(None)
    return AxisRange(last, start + 1, -step if count > 1 else 1), slice(None, None, -1)


def parse_orthogonal(key: Any, shape: tuple[int, ...]) -> ParsedKey:
    """Orthogonal indexing (``oindex``): per axis an int, slice, list of ints or 1-d boolean mask.

    The result is ``a[np.ix_(...)]`` with the axes of ints dropped; lists may repeat and be unsorted.

    Raises
    ------
    SelectionError
        For too many indices, positions out of range, masks of another length.

    Examples
    --------
    >>> parse_orthogonal(([2, 0, 2], slice(1, 3)), (4, 5)).result_shape
    (3, 2)
    """
    items = key if isinstance(key, tuple) else (key,)
    if sum(1 for k in items if k is Ellipsis) > 1:
        raise SelectionError("an index can only have a single ellipsis ('...')")
    if any(k is None for k in items):
        raise SelectionError("None is not an orthogonal index")
    if sum(1 for k in items if k is not Ellipsis) > len(shape):
        raise SelectionError(f"too many indices: array is {len(shape)}-dimensional, but {len(items)} were indexed")
    axes: list[AxisSelection] = []
    order: list[Any] = []  # restores repeats and order, axis by axis
    drop: list[Any] = []
    for axis, item in enumerate(_expand_ellipsis(items, len(shape))):
        length = shape[axis]
        if isinstance(item, slice):
            selected, back = _forward(*item.indices(length))
            axes.append(selected)
            order.append(back)
            drop.append(slice(None))
            continue
        listed = np.asarray(item)
        if listed.size == 0 and listed.dtype.kind == "f":
            listed = listed.astype(np.int64)
        if listed.dtype.kind == "b" and listed.ndim == 1:
            if len(listed) != length:
                raise SelectionError(f"mask of {len(listed)} items for axis {axis} of {length}")
            listed = np.flatnonzero(listed)
        if listed.dtype.kind not in "iu" or listed.ndim > 1:
            raise SelectionError(f"axis {axis}: an int, a slice, a list of ints or a 1-d mask is needed")
        if listed.size and not (int(listed.min()) >= -length and int(listed.max()) < length):
            raise SelectionError(f"axis {axis}: a position is out of bounds for an axis of {length}")
        positions = listed.astype(np.int64)
        positions = np.where(positions < 0, positions + length, positions)
        if listed.ndim == 0:
            axes.append(AxisRange(int(positions), int(positions) + 1))
            order.append(slice(None))
            drop.append(0)
            continue
        distinct, inverse = np.unique(positions, return_inverse=True)
        axes.append(AxisItems(distinct))
        order.append(slice(None) if np.array_equal(inverse, np.arange(len(inverse))) else inverse)
        drop.append(slice(None))
    selection = Selection(tuple(axes))
    keys: list[Any] = []
    for axis, back in enumerate(order):
        if not (isinstance(back, slice) and back == slice(None)):
            keys.append((*[slice(None)] * axis, back))
    keys.append(tuple(drop))
    shape_out = tuple(
        len(o) if isinstance(o, np.ndarray) else n
        for o, n, d in zip(order, selection.shape, drop, strict=True)
        if d != 0 or isinstance(d, slice)
    )
    return ParsedKey(selection, tuple(keys), shape_out)


_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


def parse_key_text(text: str) -> tuple[Any, ...]:
    """A basic index from text: ints, ``start:stop:step``, ``...`` and ``None``, separated by commas.

    Parameters
    ----------
    text : str
        What stands between the brackets; empty for everything. Never evaluated.

    Raises
    ------
    SelectionError
        When it is not a basic index.

    Examples
    --------
    >>> parse_key_text("1, ::2, ...")
    (1, slice(None, None, 2), Ellipsis)
    """
    if not text.strip():
        return ()
    if len(text) > 1000:
        raise SelectionError("a slice has at most 1000 characters")
    parts = text.split(",")
    if not parts[-1].strip():
        parts.pop()  # as in a Python tuple
    return tuple(_key_part(part, text) for part in parts)


def _key_part(part: str, text: str) -> Any:
    word = part.strip()
    if word in ("...", "Ellipsis"):
        return Ellipsis
    if word in ("None", "newaxis"):
        return None
    bounds = [b.strip() for b in word.split(":")]
    if len(bounds) > 3 or not all(_INTEGER.fullmatch(b) for b in bounds if b) or (len(bounds) == 1 and not bounds[0]):
        raise SelectionError(
            f"not a slice: [{text.strip()}]; write whole numbers, START:STOP:STEP, ... or None, with commas"
        )
    numbers = [int(b) if b else None for b in bounds]
    return numbers[0] if len(numbers) == 1 else slice(*numbers)
