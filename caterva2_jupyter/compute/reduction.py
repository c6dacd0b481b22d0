"""Reductions, tile by tile: a plan, the partial result of each tile, and what they come to together.

Values in, values out: whoever reads the tiles gives them as arrays (``tiles`` says which). Sums are made in float64
(or complex128) whatever the stored dtype, integers as NumPy does, exactly; variances by the update of Chan, Golub
and LeVeque. Partial results are merged in the order of the plan, so that a result does not depend on threads.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.attributes import decode_attr
from ..core.chunk_grid import BlockPlan, ChunkProjection
from ..core.dtypes import dtype_from_json, is_vlen
from ..core.exact_slice import piece_geometry
from ..core.metadata import Entry, Geometry
from ..core.reduce_request import Number, ReduceRequest, reduction_digest
from ..core.selection import AxisItems, AxisRange, AxisSelection, Selection
from ..errors import IntegrityError, RequestError, TooLargeError, UnsupportedDatasetError

__all__ = [
    "MAX_RESULT_NBYTES",
    "Partial",
    "Reduction",
    "Tile",
    "fills_in",
    "fills_of",
    "next_part",
    "reduced_dtype",
]

MAX_RESULT_NBYTES = 64 << 20
"""Bytes of the largest result."""
TILE_NBYTES = 4 << 20
"""Decoded bytes that are reduced at once, about (one block at least)."""

Array = npt.NDArray[Any]
Place = tuple[tuple[int, int], ...]
State = tuple[Array, ...]
_ORDERED = ("min", "max", "minmax")
_FOLDS = ("sum", "mean", "prod")
_SPREADS = ("std", "var")
_FILL_NAMES = ("_FillValue", "missing_value")


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of the box that is reduced at once.

    Attributes
    ----------
    selection : Selection
        What it is of the dataset.
    projection : ChunkProjection
        The same as a part of its chunk; ``out`` is the place in the tile.
    start : tuple of int
        Its first position in the box, along each axis.
    """

    selection: Selection
    projection: ChunkProjection
    start: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Partial:
    """What some items come to: the bins they lie in, per axis ``(first, stop)``, and the state of each."""

    place: Place
    state: State


class Reduction:
    """A reduction of a dataset of that geometry: what it gives, and how it is made.

    Parameters
    ----------
    geometry : Geometry
    request : ReduceRequest

    Attributes
    ----------
    selection : Selection
        The box that is reduced.
    shape : tuple of int
        Of the result.
    dtype : numpy.dtype
        Of the result: the one that NumPy gives, in native byte order (``stride``: the stored one).
    digest : str
        Names it, on the wire and in caches.

    Raises
    ------
    SelectionError, RequestError
        When the request does not fit the dataset.
    UnsupportedDatasetError
        When values of that dtype cannot be reduced so.
    TooLargeError
        When the result is over ``MAX_RESULT_NBYTES``.

    Examples
    --------
    >>> from caterva2_jupyter.core.reduce_request import ReduceRequest
    >>> geometry = Geometry((4, 6), (2, 6), (2, 3), np.dtype("i2"))
    >>> reduction = Reduction(geometry, ReduceRequest("r", "x", "mean", axis=(0,)))
    >>> reduction.shape, reduction.dtype
    ((6,), dtype('float64'))
    >>> values = np.arange(24, dtype="i2").reshape(4, 6)
    >>> reduction.finish([reduction.partial(values, (0, 0))])
    array([ 9., 10., 11., 12., 13., 14.])
    """

    def __init__(self, geometry: Geometry, request: ReduceRequest) -> None:
        self.geometry, self.request = geometry, request
        self.selection = Selection.from_json(request.selection, geometry.shape)
        box = self.selection.shape
        ndim = len(box)
        if request.axis and request.axis[-1] >= ndim:
            raise RequestError(f"axis {request.axis[-1]} is out of bounds for an array of dimension {ndim}")
        if request.steps is not None and len(request.steps) != ndim:
            raise RequestError(f"{len(request.steps)} steps for {ndim} axes")
        self._over = tuple(range(ndim)) if request.axis is None else request.axis
        if request.steps is not None:
            self._over = ()
            self._steps = request.steps
        else:
            self._steps = tuple(max(n, 1) if i in self._over else 1 for i, n in enumerate(box))
        self._bins = tuple(
            1 if i in self._over else -(-n // s) for i, (n, s) in enumerate(zip(box, self._steps, strict=True))
        )
        self._stored = reduced_dtype(geometry.dtype, request.field)
        self.dtype = _result_dtype(self._stored, request)
        kept = self._bins if request.keepdims else tuple(n for i, n in enumerate(self._bins) if i not in self._over)
        self.shape = (*kept, 2) if request.op == "minmax" else kept
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        if self.nbytes > MAX_RESULT_NBYTES:
            raise TooLargeError(
                f"the result has {self.nbytes} bytes, over the {MAX_RESULT_NBYTES} of one reduction: "
                "reduce over more axes, or give a selection"
            )
        self.digest = reduction_digest(request, self.selection)
        self._sum_dtype = _sum_dtype(self.dtype)
        self._skip = _cast_skip(request.skip, self._stored)

    @property
    def result(self) -> Geometry:
        """The result as an array of its own: one chunk, one block."""
        whole = tuple(max(n, 1) for n in self.shape)
        return Geometry(self.shape, whole, whole, self.dtype)

    @property
    def pieces(self) -> Geometry:
        """How the result is cut to travel (``exact_slice``)."""
        return piece_geometry(self.result, Selection.whole(self.shape))

    @property
    def taken(self) -> Selection | None:
        """What is read as it is, for ``stride``; None for what is computed."""
        if self.request.op != "stride":
            return None
        return Selection(tuple(_every(a, s) for a, s in zip(self.selection.axes, self._steps, strict=True)))

    @property
    def plan(self) -> BlockPlan:
        """The blocks that are needed."""
        return BlockPlan(self.geometry, self.taken or self.selection)

    def items(self, box: Array) -> Array:
        """What is reduced of items as they are stored: all of each, or a field."""
        for name in self.request.field:
            box = box[name]
        return box

    # Cutting

    def tiles(self, projection: ChunkProjection, tile_nbytes: int = TILE_NBYTES) -> Iterator[Tile]:
        """The tiles of one chunk, cut at the bounds of blocks."""
        geometry = self.geometry
        if not geometry.ndim:
            yield Tile(self.selection, projection, ())
            return
        extent = geometry.chunk_extent(projection.coords)
        lengths = self._tile_shape(extent, tile_nbytes)
        parts = [_cut(a, n) for a, n in zip(projection.local, lengths, strict=True)]
        for index in np.ndindex(*map(len, parts)):
            yield self._tile(projection, [p[i] for p, i in zip(parts, index, strict=True)])

    def parts(self) -> Generator[tuple[Tile, ChunkProjection], bool, None]:
        """Every tile, with its chunk's projection; told that the whole chunk was there, it goes on to the next one.

        Whoever sends the blocks and whoever reduces them count by it.
        """
        for projection in self.plan:
            tiles = self.tiles(projection) if self.taken is None else iter([self.whole_chunk(projection)])
            for tile in tiles:
                if (yield tile, projection):
                    break

    def whole_chunk(self, projection: ChunkProjection) -> Tile:
        """All that is selected of a chunk, as one tile."""
        return self._tile(projection, [(axis, 0) for axis in projection.local])

    def _tile(self, projection: ChunkProjection, parts: list[tuple[AxisSelection, int]]) -> Tile:
        bases = [c * n for c, n in zip(projection.coords, self.geometry.chunks, strict=True)]
        selection = Selection(tuple(_shifted(axis, base) for (axis, _), base in zip(parts, bases, strict=True)))
        start = tuple(out.start + first for out, (_, first) in zip(projection.out, parts, strict=True))
        (own,) = BlockPlan(self.geometry, selection)
        return Tile(selection, own, start)

    def _tile_shape(self, extent: tuple[int, ...], tile_nbytes: int) -> list[int]:
        """Items of a tile along each axis: whole blocks, first along the axes that are reduced."""
        geometry = self.geometry
        units = geometry.blocks if geometry.layout == "nd" else (1,) * (geometry.ndim - 1) + (extent[-1],)
        if geometry.layout == "flat":
            # Runs follow C order: rows, planes and so on, the last axes whole.
            order = list(range(geometry.ndim - 1, -1, -1))
        else:
            order = sorted(range(geometry.ndim), key=lambda i: (self._steps[i] == 1, -i))
        shape = [min(u, n) for u, n in zip(units, extent, strict=True)]
        nbytes = math.prod(shape) * max(geometry.itemsize, 1)
        for axis in order:
            count = min(max(1, tile_nbytes // max(nbytes, 1)), -(-extent[axis] // shape[axis]))
            shape[axis] *= count
            nbytes *= count
            if shape[axis] < extent[axis]:
                break
        return shape

    # Computing

    def partial(self, tile: Array, start: tuple[int, ...]) -> Partial:
        """What the items of a tile come to.

        Parameters
        ----------
        tile : ndarray
            No axis dropped, of the stored dtype.
        start : tuple of int
            Its first position in the box.
        """
        with np.errstate(all="ignore"):
            return Partial(self._place(tile.shape, start), self._state(self.items(tile), start))

    def _place(self, shape: tuple[int, ...], start: tuple[int, ...]) -> Place:
        steps = self._steps
        return tuple((f // s, (f + n - 1) // s + 1) for f, n, s in zip(start, shape, steps, strict=True))

    def _state(self, tile: Array, start: tuple[int, ...]) -> State:
        op = self.request.op
        valid = _valid(tile, self._skip) if self._skip else None
        fold = _Folding(tile.shape, start, self._steps)
        ones: Array | None = None
        if self.request.skip:
            mask = np.ones(tile.shape, np.bool_) if valid is None else valid
            ones = fold(np.add, mask, np.dtype(np.int64))
        if op == "count":
            return (fold.counts() if ones is None else ones,)
        if op in _FOLDS:
            join, neutral = (np.multiply, 1) if op == "prod" else (np.add, 0)
            return (fold(join, _masked(self._summable(tile), valid, neutral), self._sum_dtype), *_some(ones))
        if op in ("any", "all"):
            truth = tile.astype(np.bool_) if tile.dtype.kind != "b" else tile
            function = np.logical_or if op == "any" else np.logical_and
            return (fold(function, _masked(truth, valid, op == "all"), np.dtype(np.bool_)),)
        if op in _ORDERED:
            native = tile.dtype.newbyteorder("=")
            names = ("min", "max") if op == "minmax" else (op,)
            folded = [fold(_extremum(n), _masked(tile, valid, _identity(native, n)), native) for n in names]
            return (*folded, *_some(ones))
        assert op in _SPREADS
        counts = fold.counts() if ones is None else ones
        values = _masked(self._summable(tile).astype(_wide(self._stored, self.request.dtype)), valid, 0)
        means = fold(np.add, values, values.dtype) / np.maximum(counts, 1)
        values = values - fold.spread(means)
        squares = values.real * values.real + values.imag * values.imag if values.dtype.kind == "c" else values * values
        return (counts, means, fold(np.add, _masked(squares, valid, 0), squares.dtype))

    def _summable(self, tile: Array) -> Array:
        real_only = self.request.dtype is not None and np.dtype(self.request.dtype).kind not in "cO"
        return tile.real if tile.dtype.kind == "c" and real_only and self.request.op in _FOLDS else tile

    def merge(self, partials: Iterable[Partial]) -> list[Partial]:
        """Partial results with those of the same bins put together; in order."""
        merged: dict[Place, State] = {}
        with np.errstate(all="ignore"):
            for partial in partials:
                before = merged.get(partial.place)
                merged[partial.place] = partial.state if before is None else self._join(before, partial.state)
        return [Partial(place, state) for place, state in merged.items()]

    def begin(self) -> State:
        """The state of all bins with nothing in them."""
        op, shape, native = self.request.op, self._bins, self._stored.newbyteorder("=")
        counts = (np.zeros(shape, np.int64),) if self.request.skip else ()
        if op == "count":
            return (np.zeros(shape, np.int64),)
        if op in _FOLDS:
            neutral = 1 if op == "prod" else _zero(self._sum_dtype)
            return (np.full(shape, neutral, self._sum_dtype), *counts)
        if op in ("any", "all"):
            return (np.full(shape, op == "all"),)
        if op in _ORDERED:
            names = ("min", "max") if op == "minmax" else (op,)
            return (*(np.full(shape, _identity(native, n), native) for n in names), *counts)
        wide = _wide(self._stored, self.request.dtype)
        squares = np.zeros((), wide).real.dtype
        return (np.zeros(shape, np.int64), np.zeros(shape, wide), np.zeros(shape, squares))

    def add(self, state: State, partials: Iterable[Partial]) -> None:
        """Put partial results into the state of all bins, in order."""
        with np.errstate(all="ignore"):
            for partial in partials:
                place = tuple(slice(first, stop) for first, stop in partial.place)
                joined = self._join(tuple(s[place] for s in state), partial.state)
                for whole, part in zip(state, joined, strict=True):
                    whole[place] = part

    def _join(self, a: State, b: State) -> State:
        op = self.request.op
        if op in _SPREADS:
            return _join_spreads(a, b)
        if op in ("any", "all"):
            return ((np.logical_or if op == "any" else np.logical_and)(a[0], b[0]),)
        if op in _ORDERED:
            names = ("min", "max") if op == "minmax" else (op,)
            joined: list[Array] = [_extremum(n)(x, y) for n, x, y in zip(names, a, b, strict=False)]
            return (*joined, *(x + y for x, y in zip(a[len(names) :], b[len(names) :], strict=True)))
        if op == "prod":
            return (np.multiply(a[0], b[0]), *(x + y for x, y in zip(a[1:], b[1:], strict=True)))
        return tuple(np.add(x, y) for x, y in zip(a, b, strict=True))

    def finish(self, partials: Iterable[Partial] = (), state: State | None = None) -> Array:
        """The result: a new array in C order."""
        state = self.begin() if state is None else state
        self.add(state, partials)
        with np.errstate(all="ignore"):
            values = self._finished(state)
        return np.ascontiguousarray(values, self.dtype).reshape(self.shape)

    def _finished(self, state: State) -> Array:
        op, request = self.request.op, self.request
        if op in ("any", "all", "count"):
            return state[0]
        if op in ("sum", "prod"):
            return _cast(state[0], self.dtype)
        counts = state[-1] if request.skip and op not in _SPREADS else None
        if op == "mean":
            number = self._counts() if counts is None else counts
            return _cast(np.true_divide(state[0], number), self.dtype)
        if op in _ORDERED:
            values = [s if counts is None else np.where(counts > 0, s, self._nothing()) for s in state[: self._nkept]]
            return np.stack(values, axis=-1) if op == "minmax" else values[0]
        number, _, squares = state
        freedom = np.maximum(number - request.ddof, 0)
        variance = squares / freedom
        if request.skip:
            variance = np.where(freedom > 0, variance, np.nan)
        return _cast(np.sqrt(variance) if op == "std" else variance, self.dtype)

    @property
    def _nkept(self) -> int:
        return 2 if self.request.op == "minmax" else 1

    def _nothing(self) -> Any:
        """What stands for the least of no values."""
        if self._stored.kind in "fc":
            return np.nan
        if self._stored.kind in "mM":
            return np.array("NaT", self._stored.newbyteorder("="))
        return next((v for v in self._skip if v == v), 0)

    def _counts(self) -> Any:
        """Items in each bin."""
        counts: Any = 1
        for axis, (n, s, bins) in enumerate(zip(self.selection.shape, self._steps, self._bins, strict=True)):
            along = np.full(bins, s, np.int64)
            along[-1:] = n - s * (bins - 1)
            if bins and (along == along[0]).all():
                counts = counts * int(along[0])
            else:
                counts = counts * along.reshape([bins if i == axis else 1 for i in range(len(self._bins))])
        return counts

    def of_nothing(self) -> Array:
        """The result for a box without items, where NumPy has one.

        Raises
        ------
        RequestError
            NumPy's own objection.
        """
        request = self.request
        if request.steps is not None:
            return np.empty(self.shape, self.dtype)
        if request.op in _ORDERED and not math.prod(self.shape):
            return np.empty(self.shape, self.dtype)
        if request.op in _ORDERED:
            name = "minimum" if request.op == "min" else "maximum"
            raise RequestError(f"zero-size array to reduction operation {name} which has no identity")
        return self.finish()


class _Folding:
    """Bins of a tile: folds it along each axis by a ufunc."""

    def __init__(self, shape: tuple[int, ...], start: tuple[int, ...], steps: tuple[int, ...]) -> None:
        self._shape = shape
        self._edges: list[npt.NDArray[np.int64]] = []
        for n, f, s in zip(shape, start, steps, strict=True):
            inner = np.arange((f // s + 1) * s - f, n, s, dtype=np.int64)
            self._edges.append(np.concatenate([np.zeros(1, np.int64), inner]))

    def __call__(self, function: np.ufunc, values: Array, dtype: np.dtype[Any]) -> Array:
        whole = tuple(i for i, (e, n) in enumerate(zip(self._edges, self._shape, strict=True)) if len(e) == 1 < n)
        how: dict[str, Any] = {}
        if function in (np.add, np.multiply) and dtype.kind in "biufc" and not (values.dtype.kind == "c" != dtype.kind):
            how["dtype"] = dtype  # converted on the way, without a copy of the tile
        else:
            values = values.astype(dtype, copy=False)
        if whole:
            values = function.reduce(values, axis=whole, keepdims=True, **how)
        values = values.astype(dtype, copy=False)
        for axis, (edges, n) in enumerate(zip(self._edges, self._shape, strict=True)):
            if 1 < len(edges) < n:
                values = function.reduceat(values, edges, axis=axis, **how)
        return np.asarray(values)

    def counts(self) -> npt.NDArray[np.int64]:
        """Items of each bin."""
        counts = np.ones((1,) * len(self._shape), np.int64)
        for axis, (edges, n) in enumerate(zip(self._edges, self._shape, strict=True)):
            along = np.diff(edges, append=n)
            counts = counts * along.reshape([-1 if i == axis else 1 for i in range(len(self._shape))])
        return counts

    def spread(self, values: Array) -> Array:
        """A value for each bin, for each of its items (an axis with one bin stays of length 1)."""
        for axis, (edges, n) in enumerate(zip(self._edges, self._shape, strict=True)):
            if 1 < len(edges) < n:
                values = np.repeat(values, np.diff(edges, append=n), axis=axis)
        return values


def _join_spreads(a: State, b: State) -> State:
    (na, ma, sa), (nb, mb, sb) = a, b
    n = na + nb
    share = nb / np.maximum(n, 1)
    delta = mb - ma
    # Nothing on one side leaves the other side as it is (a mean of infinity would spoil it).
    mean = np.where(na == 0, mb, np.where(nb == 0, ma, ma + delta * share))
    apart = delta.real * delta.real + delta.imag * delta.imag if delta.dtype.kind == "c" else delta * delta
    squares = sa + sb + np.where((na == 0) | (nb == 0), 0, apart * na * share)
    return n, mean, squares


def reduced_dtype(dtype: np.dtype[Any], field: tuple[str, ...]) -> np.dtype[Any]:
    """Dtype of what is reduced of items: theirs, or that of a field.

    Raises
    ------
    RequestError
        When there is no such field.

    Examples
    --------
    >>> reduced_dtype(np.dtype([("a", "i4"), ("b", [("x", "f8")])]), ("b", "x"))
    dtype('float64')
    """
    for name in field:
        if dtype.names is None or name not in dtype.names:
            there = f"there are {', '.join(dtype.names)}" if dtype.names else "items have none"
            raise RequestError(f"no field {name!r}: {there}")
        dtype = dtype[name]
    return dtype


def _result_dtype(stored: np.dtype[Any], request: ReduceRequest) -> np.dtype[Any]:
    """The dtype that NumPy's result has."""
    op = request.op
    if is_vlen(stored) or stored.hasobject:
        raise UnsupportedDatasetError("strings of variable length have no reductions: read them")
    if stored.subdtype is not None:
        raise UnsupportedDatasetError(f"a field of arrays has no {op}: read it")
    if op == "stride":
        return stored
    if stored.names is not None:
        raise UnsupportedDatasetError(f"items with fields have no {op}: reduce a field, array[name].{op}()")
    if op == "count":
        return np.dtype(np.int64)
    asked: np.dtype[Any] | None = None
    if request.dtype is not None:
        try:
            asked = dtype_from_json(request.dtype)
        except IntegrityError as error:
            raise RequestError(str(error)) from None
        if op not in (*_FOLDS, *_SPREADS) or asked.kind not in ("fc" if op in _SPREADS else "biufcm"):
            raise RequestError(f"{op} does not take dtype {asked}")
        if op in _SPREADS and stored.kind == "c" != asked.kind:
            raise RequestError(f"{op} of complex values does not take dtype {asked}: give a complex one")
    zero = np.zeros(1, stored.newbyteorder("="))
    how: dict[str, Any] = {} if asked is None else {"dtype": asked.newbyteorder("=")}
    try:
        with np.errstate(all="ignore"):
            if stored.kind == "c" and asked is not None and asked.kind != "c":
                return np.dtype(asked.newbyteorder("="))  # as NumPy, which would warn of it
            result: Array = getattr(zero, "min" if op == "minmax" else op)(**how)
    except TypeError as error:
        raise UnsupportedDatasetError(f"values of dtype {stored} have no {op}: {str(error).splitlines()[0]}") from None
    return np.dtype(result.dtype)


def _sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What sums are made in."""
    if dtype.kind in "fc":
        return np.result_type(dtype, np.float64)
    return dtype


def _wide(stored: np.dtype[Any], asked: str | None) -> np.dtype[Any]:
    """What deviations from a mean are made in."""
    wide = np.result_type(stored.newbyteorder("=") if stored.kind in "fc" else np.float64, np.float64)
    return wide if asked is None else np.result_type(wide, np.dtype(asked).newbyteorder("="))


def _zero(dtype: np.dtype[Any]) -> Any:
    """What changes nothing when something is added: of floats it is minus zero."""
    if dtype.kind == "f":
        return dtype.type(-0.0)
    return complex(-0.0, -0.0) if dtype.kind == "c" else np.zeros((), dtype)


def _extremum(name: str) -> np.ufunc:
    return np.minimum if name == "min" else np.maximum


def _identity(dtype: np.dtype[Any], name: str) -> Any:
    """What is never less (``min``) or more (``max``) than another value."""
    low = name == "max"
    if dtype.kind == "f":
        return -np.inf if low else np.inf
    if dtype.kind == "c":
        return complex(-np.inf, -np.inf) if low else complex(np.inf, np.inf)
    if dtype.kind == "b":
        return not low
    if dtype.kind in "mM":  # the least integer is NaT
        return np.array(-(2**63) + 1 if low else 2**63 - 1, np.int64).view(dtype)
    limits = np.iinfo(dtype)
    return limits.min if low else limits.max


def _cast(values: Any, dtype: np.dtype[Any]) -> Array:
    array = np.asarray(values)
    if array.dtype.kind == "c" and dtype.kind != "c":
        array = array.real
    return array.astype(dtype, copy=False)


def _cast_skip(skip: tuple[Number, ...], dtype: np.dtype[Any]) -> list[Any]:
    """The values as they are stored; those that cannot be are left out."""
    found: list[Any] = []
    for value in skip:
        if value != value:
            if dtype.kind in "fcmM":
                found.append(math.nan)
        elif dtype.kind in "fc":
            with np.errstate(all="ignore"):
                found.append(np.asarray(value, np.float64).astype(dtype.newbyteorder("="))[()])
        elif dtype.kind in "iub" and value == int(value) if math.isfinite(value) else False:
            limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            if limits[0] <= int(value) <= limits[1]:
                found.append(np.array(int(value), dtype.newbyteorder("="))[()])
    return found


def _valid(tile: Array, skip: list[Any]) -> npt.NDArray[np.bool_]:
    valid = np.ones(tile.shape, np.bool_)
    for value in skip:
        if value != value:
            valid &= ~(np.isnat(tile) if tile.dtype.kind in "mM" else np.isnan(tile))
        else:
            valid &= tile != value
    return valid


def _masked(values: Array, valid: npt.NDArray[np.bool_] | None, neutral: Any) -> Array:
    if valid is None:
        return values
    filler = np.asarray(neutral).astype(values.dtype.newbyteorder("="))
    return np.where(valid, values, filler)


def _some(ones: Array | None) -> State:
    return () if ones is None else (ones,)


def _every(axis: AxisSelection, step: int) -> AxisSelection:
    if isinstance(axis, AxisItems):
        return AxisItems(axis.items[::step])
    if len(axis) <= 1 or step >= len(axis):
        return AxisRange(axis.start, min(axis.start + 1, axis.stop))
    return AxisRange(axis.start, axis.stop, axis.step * step)


def _cut(axis: AxisSelection, length: int) -> list[tuple[AxisSelection, int]]:
    """What is selected of a chunk along one axis, in runs of ``length`` items, each with its place in the whole."""
    parts: list[tuple[AxisSelection, int]] = []
    if isinstance(axis, AxisItems):
        owners = axis.items // length
        firsts = np.flatnonzero(np.diff(owners, prepend=-1)).tolist()
        for first, stop in zip(firsts, [*firsts[1:], len(axis)], strict=True):
            parts.append((AxisItems(axis.items[first:stop]), first))
        return parts
    first = 0
    while first < len(axis):
        position = axis.start + first * axis.step
        edge = (position // length + 1) * length
        stop = min(len(axis), first + -(-(edge - position) // axis.step))
        parts.append((AxisRange(position, axis.start + (stop - 1) * axis.step + 1, axis.step), first))
        first = stop
    return parts


def _shifted(axis: AxisSelection, base: int) -> AxisSelection:
    if isinstance(axis, AxisItems):
        return AxisItems(axis.items + base)
    return AxisRange(axis.start + base, axis.stop + base, axis.step)


def next_part(
    parts: Generator[tuple[Tile, ChunkProjection], bool, None], was_whole: bool
) -> tuple[Tile, ChunkProjection] | None:
    """What comes next of ``Reduction.parts``, told whether the records before held a whole chunk; None: no more.

    A coroutine cannot let the end of a generator through, so it is a value here.
    """
    try:
        return parts.send(was_whole)
    except StopIteration:
        return None


def fills_of(entry: Entry) -> tuple[Number, ...]:
    """Values that stand for none in a dataset, as its attributes say (``_FillValue``, ``missing_value``).

    >>> fills_of(Entry("t", "group", attrs={"_FillValue": -9999}))
    (-9999,)
    """
    return fills_in({name: decode_attr(entry.attrs[name]) for name in _FILL_NAMES if name in entry.attrs})


def fills_in(attrs: Mapping[str, Any], field: tuple[str, ...] = ()) -> tuple[Number, ...]:
    """The same of decoded attributes, or of a field of them."""
    found: list[Number] = []
    for name in _FILL_NAMES:
        if name not in attrs:
            continue
        values = np.asarray(attrs[name])
        for part in field:
            values = values[part] if part in (values.dtype.names or ()) else values
        if values.dtype.kind not in "iufb" or values.size > 8:
            continue
        for value in values.reshape(-1).tolist():
            number = float(value) if isinstance(value, float) else int(value)
            if not any(number == other or (number != number and other != other) for other in found):
                found.append(number)
    return tuple(found)
