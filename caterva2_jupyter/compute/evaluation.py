"""Expressions bound to operands: shape and dtype by NumPy's rules, and any part of the values, piece by piece.

Only the operands' items behind a part are asked for (``Fetch``), and reductions go over theirs tile by tile, so that
memory is bounded whatever the operands' size. Whoever fetches decides how, and may stop it by raising.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.dtypes import is_vlen
from ..core.metadata import Geometry
from ..core.selection import AxisItems, AxisRange, AxisSelection, Selection
from ..errors import RequestError
from .expression import FUNCTIONS, Call, Constant, Expression, KeyItem, Node, Operand, Reduce, Scalar

__all__ = ["TILE_NBYTES", "BoundExpression", "Fetch", "KeptBoxes", "Signature", "bind", "tiles"]

TILE_NBYTES = 8 << 20
"""Decoded bytes of an operand that are asked for at once, about."""
_MAX_NDIM = 32
_KINDS = "biufcmM"
_KEPT_NBYTES = 64 << 20
_CHUNK_ITEMS, _BLOCK_ITEMS = 1 << 20, 1 << 16

Array = npt.NDArray[Any]
Axes = tuple[AxisSelection, ...]
Fetch = Callable[[str, Selection], Array]
"""Gives the box of a selection of an operand."""
Value = Array | Scalar


@dataclass(frozen=True, slots=True)
class Signature:
    """What has to be known of an operand."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Term(ABC):
    """A node whose shape and dtype are known. ``sample``: something of that dtype, one item along each axis."""

    shape: tuple[int, ...]
    sample: Value

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.asarray(self.sample).dtype

    @abstractmethod
    def compute(self, axes: Axes, fetch: Fetch) -> Value:
        """The items at ``axes``, one selection per axis of ``shape``."""


class _ConstantTerm(_Term):
    def __init__(self, value: Scalar) -> None:
        self.shape, self.sample = (), value

    def compute(self, axes: Axes, fetch: Fetch) -> Value:
        return self.sample


class _OperandTerm(_Term):
    def __init__(self, node: Operand, signature: Signature) -> None:
        self.name = node.name
        self._starts: list[int] = []
        self._steps: list[int | None] = []  # None: an index, whose axis is dropped
        shape = []
        for axis, item in enumerate(_full_key(node, len(signature.shape))):
            length = signature.shape[axis]
            if isinstance(item, slice):
                start, stop, step = item.indices(length)
                shape.append(len(range(start, stop, step)))
                self._starts.append(start)
                self._steps.append(step)
            else:
                if not -length <= item < length:
                    raise RequestError(f"{node.name}: index {item} is out of bounds for axis {axis} with size {length}")
                self._starts.append(item % length)
                self._steps.append(None)
        self.shape = tuple(shape)
        self.is_whole = self.shape == signature.shape and all(s == 1 for s in self._steps)
        self.sample = np.ones((1,) * len(shape), signature.dtype)

    def compute(self, axes: Axes, fetch: Fetch) -> Value:
        wanted: list[AxisSelection] = []
        order: list[Any] = []
        rest = iter(axes)
        for start, step in zip(self._starts, self._steps, strict=True):
            if step is None:
                wanted.append(AxisRange(start, start + 1))
                order.append(0)
            else:
                wanted.append(_moved(next(rest), start, step))
                order.append(slice(None) if step > 0 else slice(None, None, -1))
        box = fetch(self.name, Selection(tuple(wanted)))
        # A view, native: what comes big endian would be converted by each function again.
        taken = np.asarray(box[tuple(order)])
        return taken if taken.dtype.isnative else taken.astype(taken.dtype.newbyteorder("="))


def _full_key(node: Operand, ndim: int) -> list[int | slice]:
    key: list[KeyItem] = list(node.key)
    given = sum(1 for item in key if item is not Ellipsis)
    if given > ndim:
        raise RequestError(f"{node.name}: too many indices: it is {ndim}-dimensional, but {given} were indexed")
    if Ellipsis not in key:
        key.append(Ellipsis)
    full: list[int | slice] = []
    for item in key:
        full += [slice(None)] * (ndim - given) if item is Ellipsis else [item]
    return full


def _moved(axis: AxisSelection, start: int, step: int) -> AxisSelection:
    """Positions in an operand of positions in a slice of it, ascending."""
    if isinstance(axis, AxisItems):
        return AxisItems(np.sort(axis.items * step + start))
    count = len(axis)
    if not count:
        return AxisRange(0, 0)
    first, last = sorted((start + axis.start * step, start + axis.last * step))
    return AxisRange(first, last + 1, abs(axis.step * step) if count > 1 else 1)


class _CallTerm(_Term):
    def __init__(self, node: Call, arguments: tuple[_Term, ...]) -> None:
        self._function, _ = FUNCTIONS[node.function]
        self._arguments = arguments
        try:
            self.shape = np.broadcast_shapes(*(a.shape for a in arguments))
        except ValueError:
            shapes = " and ".join(str(a.shape) for a in arguments)
            raise RequestError(f"{node.function}: shapes {shapes} do not broadcast together") from None
        with np.errstate(all="ignore"):
            try:
                self.sample = np.asarray(self._function(*(a.sample for a in arguments)))
            except (TypeError, ValueError, OverflowError) as error:
                line = str(error).splitlines()[0]
                raise RequestError(f"{node.function} does not work on these: {line}") from None

    def compute(self, axes: Axes, fetch: Fetch) -> Value:
        computed = [a.compute(_aligned(axes, self.shape, a.shape), fetch) for a in self._arguments]
        return np.asarray(self._function(*computed))


def _aligned(axes: Axes, shape: tuple[int, ...], part: tuple[int, ...]) -> Axes:
    """What of an argument stands for ``axes`` of the broadcast shape."""
    skipped = len(shape) - len(part)
    one = AxisRange(0, 1)
    return tuple(
        one if n == 1 and full != 1 else axis
        for axis, full, n in zip(axes[skipped:], shape[skipped:], part, strict=True)
    )


class _ReduceTerm(_Term):
    def __init__(self, node: Reduce, argument: _Term) -> None:
        self._node, self._argument = node, argument
        ndim = len(argument.shape)
        axes = tuple(range(ndim)) if node.axis is None else tuple(_axis(a, ndim, node.function) for a in node.axis)
        if not ndim:
            axes = ()
        if len(set(axes)) != len(axes):
            raise RequestError(f"{node.function}: an axis occurs twice")
        self._axes = axes
        kept = [1 if i in axes else n for i, n in enumerate(argument.shape)]
        self.shape = tuple(n for i, n in enumerate(kept) if node.keepdims or i not in axes)
        if node.function in ("min", "max") and 0 in (argument.shape[i] for i in axes):
            raise RequestError(f"{node.function} of no items at all")
        with np.errstate(all="ignore"):
            try:
                whole = getattr(np, node.function)(np.asarray(argument.sample), axis=axes, keepdims=node.keepdims)
            except (TypeError, ValueError) as error:
                raise RequestError(f"{node.function} does not work on this: {str(error).splitlines()[0]}") from None
        self.sample = np.asarray(whole)

    def compute(self, axes: Axes, fetch: Fetch) -> Value:
        kept = iter(axes)
        inner: list[AxisSelection] = []
        for i, n in enumerate(self._argument.shape):
            if i in self._axes:
                inner.append(AxisRange(0, n))
                if self._node.keepdims:
                    next(kept)
            else:
                inner.append(next(kept))
        folded = _Folded(self._node, self._axes, self.dtype, self._argument.dtype)
        region = Selection(tuple(inner))
        out_shape = tuple(len(a) for i, a in enumerate(inner) if i not in self._axes)
        out = np.empty(out_shape, self.dtype)
        counts = _tile_counts(region.shape, self._argument.dtype.itemsize)
        # What is kept is cut first: each part of it is reduced to its end before the next.
        kept_counts = [
            max(n, 1) if i in self._axes else c for i, (n, c) in enumerate(zip(region.shape, counts, strict=True))
        ]
        for place, kept_part in _cut(region, kept_counts):
            folded.begin()
            for _, part in _cut(
                kept_part,
                [
                    c if i in self._axes else max(n, 1)
                    for i, (n, c) in enumerate(zip(kept_part.shape, counts, strict=True))
                ],
            ):
                value = np.asarray(self._argument.compute(part.axes, fetch))
                folded.add(np.broadcast_to(value, part.shape))
            out[tuple(p for i, p in enumerate(place) if i not in self._axes)] = folded.result(
                tuple(len(a) for i, a in enumerate(kept_part.axes) if i not in self._axes)
            )
        return out.reshape(tuple(len(a) for a in axes))


def _axis(axis: int, ndim: int, function: str) -> int:
    if not ndim and function not in ("mean", "std", "var"):
        ndim = 1  # of a scalar, NumPy's other reductions take axis 0
    if not -ndim <= axis < ndim:
        raise RequestError(f"{function}: axis {axis} is out of bounds for an array of {ndim} axes")
    return axis % ndim


class _Folded:
    """The reduction of tiles, which come in C order, along some axes: wide sums, variances by Chan's update."""

    def __init__(self, node: Reduce, axes: tuple[int, ...], dtype: np.dtype[Any], argument: np.dtype[Any]) -> None:
        self._node, self._axes, self._dtype = node, axes, dtype
        wide = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}.get(argument.kind)
        if node.function in ("mean", "std", "var") and argument.kind in "biu":
            wide = np.dtype(np.float64)
        if argument.itemsize > 16 or (argument.kind == "f" and argument.itemsize > 8):
            wide = argument  # of long doubles
        self._wide = wide
        self.begin()

    def begin(self) -> None:
        self._state: Array | None = None
        self._spread: Array | None = None
        self._count = 0

    def add(self, tile: Array) -> None:
        count = math.prod(tile.shape[i] for i in self._axes)
        if not count:
            return
        match self._node.function:
            case "min" | "max" as name:
                join = np.minimum if name == "min" else np.maximum
                self._fold(join, join.reduce(tile, axis=self._axes))
            case "any":
                self._fold(np.logical_or, np.any(tile, axis=self._axes))
            case "all":
                self._fold(np.logical_and, np.all(tile, axis=self._axes))
            case "sum" | "mean":
                self._fold(np.add, np.sum(tile, axis=self._axes, dtype=self._sum_dtype(tile)))
            case "prod":
                self._fold(np.multiply, np.prod(tile, axis=self._axes, dtype=self._sum_dtype(tile)))
            case _:
                self._join_spread(tile, count)
        self._count += count

    def _sum_dtype(self, tile: Array) -> np.dtype[Any]:
        if self._wide is not None:
            return self._wide
        return tile.dtype if tile.dtype.kind == "m" else self._dtype

    def _fold(self, join: Callable[[Any, Any], Any], part: Any) -> None:
        self._state = np.asarray(part) if self._state is None else np.asarray(join(self._state, part))

    def _join_spread(self, tile: Array, count: int) -> None:
        mean = np.asarray(np.mean(tile, axis=self._axes, dtype=self._wide, keepdims=True))
        away = tile - mean
        spread = np.asarray(np.sum((away * np.conj(away)).real, axis=self._axes))
        mean = mean.reshape(spread.shape)
        if self._state is None or self._spread is None:
            self._state, self._spread = mean, spread
            return
        total = self._count + count
        apart = mean - self._state
        self._spread = self._spread + spread + (apart * np.conj(apart)).real * (self._count * count / total)
        self._state = self._state + apart * (count / total)

    def result(self, shape: tuple[int, ...]) -> Array:
        """The result, of that shape; of nothing what NumPy gives of nothing."""
        node, state = self._node, self._state
        if state is None:
            nothing = {"sum": 0, "prod": 1, "any": False, "all": True}.get(node.function, np.nan)
            return np.full(shape, nothing).astype(self._dtype)
        if node.function == "mean":
            state = np.asarray(state / self._count)
        elif self._spread is not None:
            left = self._count - node.ddof
            state = self._spread / left if left > 0 else np.full(shape, np.nan) + self._spread * 0 / 0.0
            state = np.sqrt(state) if node.function == "std" else state
        return np.asarray(state).astype(self._dtype, copy=False).reshape(shape)


def tiles(region: Selection, itemsize: int, nbytes: int = 0) -> Iterator[tuple[tuple[slice, ...], Selection]]:
    """Cut a box in parts of about ``nbytes`` (0: `TILE_NBYTES`), in C order: where each goes, and what it is.

    Examples
    --------
    >>> region = Selection((AxisRange(0, 4), AxisRange(0, 6, 2)))
    >>> [part.to_json() for _, part in tiles(region, 8, 48)]
    [[[0, 2, 1], [0, 5, 2]], [[2, 4, 1], [0, 5, 2]]]
    """
    yield from _cut(region, _tile_counts(region.shape, itemsize, nbytes))


def _tile_counts(shape: tuple[int, ...], itemsize: int, nbytes: int = 0) -> list[int]:
    """Items along each axis of a tile: whole last axes."""
    room = max(1, (nbytes or TILE_NBYTES) // max(itemsize, 1))
    counts = []
    for n in reversed(shape):
        counts.append(max(1, min(n, room)))
        room = max(1, room // max(n, 1))
    return counts[::-1]


def _cut(region: Selection, counts: list[int]) -> Iterator[tuple[tuple[slice, ...], Selection]]:
    shape = region.shape
    if 0 in shape:
        yield tuple(slice(0, n) for n in shape), region
        return
    grid = [-(-n // c) for n, c in zip(shape, counts, strict=True)]
    for index in np.ndindex(*grid):
        places = [slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, counts, shape, strict=True)]
        yield tuple(places), Selection(tuple(_part(a, p) for a, p in zip(region.axes, places, strict=True)))


def _part(axis: AxisSelection, place: slice) -> AxisSelection:
    if isinstance(axis, AxisItems):
        return AxisItems(axis.items[place])
    first = axis.start + place.start * axis.step
    count = place.stop - place.start
    return AxisRange(first, first + (count - 1) * axis.step + 1, axis.step if count > 1 else 1)


class BoundExpression:
    """An expression whose operands' shapes and dtypes are known.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
        In native byte order.
    """

    def __init__(self, expression: Expression, operands: Mapping[str, Signature]) -> None:
        self.expression = expression
        self._root = _bound(expression.root, operands)
        self.shape = self._root.shape
        self.dtype = self._root.dtype

    def box(self, selection: Selection, fetch: Fetch, tile_nbytes: int = 0) -> Array:
        """The values of a selection, computed part by part.

        Parameters
        ----------
        selection : Selection
            Of ``shape``.
        fetch : callable
            Gives the box of a selection of an operand.
        tile_nbytes : int
            Of a part, about; 0 is `TILE_NBYTES`.

        Returns
        -------
        ndarray, shape ``selection.shape``
        """
        out = np.empty(selection.shape, self.dtype)
        if out.size == 0:
            return out
        with np.errstate(all="ignore"):
            for place, part in tiles(selection, self.dtype.itemsize, tile_nbytes):
                out[place] = self._root.compute(part.axes, fetch)
        return out

    def partition(self, geometries: Mapping[str, Geometry]) -> Geometry:
        """Chunks and blocks of the result: of an operand of the same shape where there is one, so that what is asked
        for are its blocks.
        """
        itemsize = max(self.dtype.itemsize, 1)
        for term in _terms(self._root):
            geometry = geometries.get(term.name) if isinstance(term, _OperandTerm) and term.is_whole else None
            if geometry is None or geometry.shape != self.shape or not self.shape:
                continue
            is_small = math.prod(geometry.chunks) * itemsize <= 1 << 30 and geometry.layout == "nd"
            if is_small and math.prod(geometry.blocks) * itemsize <= 64 << 20 and geometry.size:
                padded = [-(-c // b) * b for c, b in zip(geometry.chunks, geometry.blocks, strict=True)]
                if math.prod(padded) * itemsize < 1 << 31:
                    return Geometry(self.shape, geometry.chunks, geometry.blocks, self.dtype)
        return Geometry(self.shape, _tile(self.shape, _CHUNK_ITEMS), _tile(self.shape, _BLOCK_ITEMS), self.dtype)


def _tile(shape: tuple[int, ...], nitems: int) -> tuple[int, ...]:
    counts, room = [], nitems
    for n in reversed(shape):
        counts.append(max(1, min(n, room)))
        room = max(1, room // max(n, 1))
    return tuple(counts[::-1])


class KeptBoxes:
    """Gives boxes, and keeps the last ones: an operand that occurs twice is asked for once.

    Parameters
    ----------
    fetch : callable
    max_nbytes : int
        Of what is kept.
    """

    def __init__(self, fetch: Fetch, max_nbytes: int = _KEPT_NBYTES) -> None:
        self._fetch, self._max_nbytes = fetch, max_nbytes
        self._kept: dict[tuple[str, Selection], Array] = {}

    def __call__(self, name: str, selection: Selection) -> Array:
        box = self._kept.pop((name, selection), None)
        if box is None:
            box = self._fetch(name, selection)
        self._kept[name, selection] = box  # the last one used is the last to go
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._max_nbytes:
            del self._kept[next(iter(self._kept))]
        return box


def bind(expression: Expression, operands: Mapping[str, Signature]) -> BoundExpression:
    """Give an expression its operands.

    Raises
    ------
    RequestError
        When one is missing, cannot be computed with, or does not fit the others.

    Examples
    --------
    >>> from .expression import parse
    >>> bound = bind(parse("a + b / 2"), {"a": Signature((3, 1), np.dtype("i2")), "b": Signature((4,), np.dtype("f4"))})
    >>> bound.shape, bound.dtype
    ((3, 4), dtype('float32'))
    """
    return BoundExpression(expression, operands)


def _bound(node: Node, operands: Mapping[str, Signature]) -> _Term:
    match node:
        case Constant():
            return _ConstantTerm(node.value)
        case Operand():
            if node.name not in operands:
                raise RequestError(f"{node.name} is not in the list of available datasets")
            signature = operands[node.name]
            if is_vlen(signature.dtype) or signature.dtype.kind not in _KINDS or signature.dtype.subdtype is not None:
                raise RequestError(
                    f"{node.name} of dtype {signature.dtype} cannot be computed with: numbers are needed"
                )
            return _OperandTerm(node, signature)
        case Call():
            term: _Term = _CallTerm(node, tuple(_bound(argument, operands) for argument in node.arguments))
        case Reduce():
            term = _ReduceTerm(node, _bound(node.argument, operands))
    if len(term.shape) > _MAX_NDIM or math.prod(term.shape) * 16 >= 2**63:
        raise RequestError(f"a result of shape {term.shape} is too large")
    if term.dtype.kind not in _KINDS:
        raise RequestError(f"a result of dtype {term.dtype} is not made of numbers")
    return term


def _terms(term: _Term) -> Iterator[_Term]:
    yield term
    arguments: tuple[_Term, ...] = ()
    if isinstance(term, _CallTerm):
        arguments = term._arguments
    elif isinstance(term, _ReduceTerm):
        arguments = (term._argument,)
    for argument in arguments:
        yield from _terms(argument)
