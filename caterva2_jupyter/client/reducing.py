"""Reductions of remote arrays: made where the data is, so that only the result moves.

What NumPy gives for ``array.mean(axis)`` and the like is what these methods give; the work is done by whoever
publishes the array. How it is done is ``compute/reduction``'s business.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..compute.overview import Method, missing_values, plan_overview
from ..compute.reduction import Reduction, fills_in, reduced_dtype
from ..core.metadata import Entry, Geometry
from ..core.reduce_request import Number, Operation, ReduceRequest, Working
from ..core.selection import Selection, parse_basic, parse_orthogonal
from ..core.wire import End, Preamble, ReduceParser
from ..errors import (
    DatasetChangedError,
    IntegrityError,
    NotCachedError,
    SelectionError,
    SourceUnavailableError,
    UnsupportedDatasetError,
)
from .progress import Progress, telling
from .reader import changed
from .session import Session
from .transport import Answer

__all__ = ["Overview", "Reducing"]

Axis = int | Iterable[int] | None
Skip = Number | str | np.generic | Iterable[Number | str | np.generic] | None


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """A dataset in few values.

    Attributes
    ----------
    values : numpy.ma.MaskedArray
        Fill values, NaN and NaT are masked. For ``minmax`` a last axis of two: the least and the greatest.
    steps : tuple of int
        Items of the array that a value stands for, along each axis of the selection.
    method : {"stride", "mean", "minmax"}

    Examples
    --------
    >>> overview = client["foo/ds-1d"].overview(2, "mean")
    >>> np.asarray(overview).tolist(), overview.steps, overview.method
    ([249.5, 749.5], (500,), 'mean')
    """

    values: np.ma.MaskedArray[Any, np.dtype[Any]]
    steps: tuple[int, ...]
    method: Method

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        plain = np.asarray(self.values)
        return plain if dtype is None else plain.astype(dtype, copy=False)


class _Array(Protocol):
    _session: Session
    _root: str
    _entry: Entry
    _fields: tuple[Any, ...]

    @property
    def _geometry(self) -> Geometry: ...

    @property
    def attrs(self) -> Mapping[str, Any]: ...


class Reducing:
    """What arrays can be reduced by. All of these take the values as they are stored."""

    def sum(
        self: _Array,
        axis: Axis = None,
        dtype: npt.DTypeLike | None = None,
        out: None = None,
        keepdims: bool = False,
        *,
        skip: Skip = None,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Sum over axes, made where the data is.

        Integers add up as NumPy's do, in int64 or uint64; floats in float64, whatever they are stored as.

        Parameters
        ----------
        axis : int, tuple of int or None
            Axes to reduce over, negative ones from the end; None is all of them.
        dtype : dtype, optional
            Of the result; by default the one that NumPy takes.
        out : None
            For NumPy's functions, which pass it.
        keepdims : bool
            Axes that are reduced over stay, with length 1.
        skip : number, "fill", "nan" or a sequence of them, optional
            Stored values that do not count. ``"fill"``: those that the attributes ``_FillValue`` and
            ``missing_value`` name. NaN among them is NaN, and NaT of times.
        selection : basic index, optional
            ``array.sum(0, selection=np.s_[10:20])`` equals ``array[10:20].sum(0)``. Lists of ascending positions
            and masks select per axis, as with ``array.oindex``.
        progress : callable, optional
            Called every few seconds with decoded bytes that are done, and all of them.

        Returns
        -------
        NumPy scalar or ndarray
            As NumPy's ``sum``, in native byte order; 0 where everything was skipped.

        Raises
        ------
        ValueError, TypeError, IndexError
            As NumPy.
        TooLargeError
            When the result has more than 64 MiB: reduce over more axes.
        UnsupportedDatasetError
            For strings, and for items with fields: reduce a field, ``array["temperature"].sum()``.
        DatasetChangedError
            When the array has a newer version.
        NotCachedError
            When its publisher is away and not all of its blocks are cached.

        Examples
        --------
        >>> array = client["foo/dir1/ds-2d"]
        >>> array.sum(axis=0).shape, array.sum(selection=np.s_[:2, 3])
        ((20,), np.uint64(26))
        >>> array.any(), array.all(), array.count(skip=0)
        (np.True_, np.False_, np.int64(199))
        """
        return _reduce(self, "sum", axis, dtype, out, keepdims, 0, skip, selection, progress)

    def prod(
        self: _Array,
        axis: Axis = None,
        dtype: npt.DTypeLike | None = None,
        out: None = None,
        keepdims: bool = False,
        *,
        skip: Skip = None,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Product over axes, made where the data is; see `sum`. It is 1 where everything was skipped."""
        return _reduce(self, "prod", axis, dtype, out, keepdims, 0, skip, selection, progress)

    def mean(
        self: _Array,
        axis: Axis = None,
        dtype: npt.DTypeLike | None = None,
        out: None = None,
        keepdims: bool = False,
        *,
        skip: Skip = None,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Mean over axes, made where the data is; ``np.mean(array)`` calls it.

        Sums are made in float64, whatever the values are stored as.

        Parameters
        ----------
        axis, dtype, out, keepdims, skip, selection, progress
            As of `sum`.

        Returns
        -------
        NumPy scalar or ndarray
            As NumPy's ``mean``: float64 for integers, else the stored dtype. NaN where everything was skipped.

        Raises
        ------
        As `sum`.

        Examples
        --------
        >>> np.mean(client["foo/dir1/ds-2d"], axis=0)[:2]
        array([90., 91.])
        >>> client["foo/dir1/ds-3d"].mean(axis=(1, 2), skip="fill")
        array([ 9.5, 29.5, 49.5], dtype=float32)
        """
        return _reduce(self, "mean", axis, dtype, out, keepdims, 0, skip, selection, progress)

    def min(
        self: _Array,
        axis: Axis = None,
        out: None = None,
        keepdims: bool = False,
        *,
        skip: Skip = None,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Least value along axes, found where the data is.

        Parameters
        ----------
        axis, out, keepdims, skip, selection, progress
            As of `sum`.

        Returns
        -------
        NumPy scalar or ndarray of the stored dtype, in native byte order
            NaN and NaT win, as with NumPy, unless they are skipped. Where everything was skipped: NaN or NaT, of
            integers the first skipped value.

        Raises
        ------
        As `sum`; ValueError for an empty array.

        Examples
        --------
        >>> array = client["foo/ds-1d"]
        >>> array.min(), array.max()
        (np.int64(0), np.int64(999))
        """
        return _reduce(self, "min", axis, None, out, keepdims, 0, skip, selection, progress)

    def max(
        self: _Array,
        axis: Axis = None,
        out: None = None,
        keepdims: bool = False,
        *,
        skip: Skip = None,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Greatest value along axes, found where the data is; see `min`."""
        return _reduce(self, "max", axis, None, out, keepdims, 0, skip, selection, progress)

    def std(
        self: _Array,
        axis: Axis = None,
        dtype: npt.DTypeLike | None = None,
        out: None = None,
        ddof: Number = 0,
        keepdims: bool = False,
        *,
        skip: Skip = None,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Standard deviation along axes, made where the data is, in one pass and in float64.

        Parameters
        ----------
        axis, dtype, out, keepdims, skip, selection, progress
            As of `sum`.
        ddof : number
            The divisor is the number of values less this.

        Returns
        -------
        NumPy scalar or ndarray
            As NumPy's ``std``; NaN where fewer values than ``ddof`` are left by ``skip``.

        Raises
        ------
        As `sum`.

        Examples
        --------
        >>> client["foo/ds-1d"].std(ddof=1).round(3), client["foo/ds-1d"].var(ddof=1).round(3)
        (np.float64(288.819), np.float64(83416.667))
        """
        return _reduce(self, "std", axis, dtype, out, keepdims, ddof, skip, selection, progress)

    def var(
        self: _Array,
        axis: Axis = None,
        dtype: npt.DTypeLike | None = None,
        out: None = None,
        ddof: Number = 0,
        keepdims: bool = False,
        *,
        skip: Skip = None,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Variance along axes, made where the data is; see `std`."""
        return _reduce(self, "var", axis, dtype, out, keepdims, ddof, skip, selection, progress)

    def any(
        self: _Array,
        axis: Axis = None,
        out: None = None,
        keepdims: bool = False,
        *,
        skip: Skip = None,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Is any value along axes true (not zero)? See `sum`."""
        return _reduce(self, "any", axis, None, out, keepdims, 0, skip, selection, progress)

    def all(
        self: _Array,
        axis: Axis = None,
        out: None = None,
        keepdims: bool = False,
        *,
        skip: Skip = None,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """Are all values along axes true (not zero)? See `sum`."""
        return _reduce(self, "all", axis, None, out, keepdims, 0, skip, selection, progress)

    def count(
        self: _Array,
        axis: Axis = None,
        keepdims: bool = False,
        *,
        skip: Skip = None,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Any:
        """How many values along axes are not skipped (int64)? See `sum`."""
        return _reduce(self, "count", axis, None, None, keepdims, 0, skip, selection, progress)

    def overview(
        self: _Array,
        max_pixels: int = 1000,
        method: Method = "stride",
        *,
        selection: Any = None,
        progress: Progress | None = None,
    ) -> Overview:
        """The array in few values, for a first look.

        Parameters
        ----------
        max_pixels : int
            The most values along each axis; there are no more than 2**22 in all.
        method : {"stride", "mean", "minmax"}
            ``stride``: every n-th item; reads only blocks that have one, and gets coarser where that were more than
            1 GiB. ``mean``: means of blocks of n items. ``minmax``: the least and greatest of them, for long lines.
        selection : basic index, optional
            What is looked at, as ``array[selection]`` without ``None``.
        progress : callable, optional
            As of `sum`.

        Returns
        -------
        Overview
            Values with fills (``_FillValue``, ``missing_value``) and NaN masked, and the steps.

        Raises
        ------
        As `sum`.

        Examples
        --------
        >>> client["foo/dir1/ds-2d"].overview(5).steps
        (2, 4)
        """
        geometry, field = self._geometry, _field(self)
        box, key = _selected(selection, geometry.shape)
        form = _form(box, geometry.shape)
        of = ReduceRequest(self._root, self._entry.path, "stride", self._entry.version, form, field=field)
        limit = {} if method == "stride" else {"max_nbytes": None}
        plan = plan_overview(geometry, of, operator.index(max_pixels), method, fills_in(self.attrs, field), **limit)
        values = _ask(self, Reduction(geometry, plan.request), progress)
        values = values[tuple(key)] if key else values
        steps = tuple(step for step, item in zip(plan.steps, key, strict=True) if isinstance(item, slice))
        return Overview(np.ma.masked_array(values, missing_values(values, plan.fills)), steps, plan.method)


def _field(array: _Array) -> tuple[str, ...]:
    """The field that is reduced, where the array is one of an array of items with fields."""
    if any(not isinstance(field, str) for field in array._fields):
        raise UnsupportedDatasetError("several fields are not reduced together: take one, array[name]")
    return array._fields


def _form(box: Selection, shape: tuple[int, ...]) -> Any:
    return None if box == Selection.whole(shape) else box.to_json()


def _selected(selection: Any, shape: tuple[int, ...]) -> tuple[Selection, list[Any]]:
    """The box of a basic index, and per axis what it does to it: 0 drops the axis, a slice may turn it round."""
    if selection is None:
        return Selection.whole(shape), [slice(None)] * len(shape)
    if any(item is None for item in (selection if isinstance(selection, tuple) else (selection,))):
        raise SelectionError("a selection to be reduced has no None: reshape the result")
    items = selection if isinstance(selection, tuple) else (selection,)
    if any(isinstance(item, (list, np.ndarray)) for item in items):
        return _selected_orthogonally(items, shape)
    parsed = parse_basic(selection, shape)
    (key,) = parsed.box_keys
    return parsed.selection, [item for item in key if item is not Ellipsis]


def _selected_orthogonally(items: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[Selection, list[Any]]:
    parsed = parse_orthogonal(items, shape)
    rest = len(shape) - sum(item is not Ellipsis for item in items)
    where = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    full = [*items[:where], *[slice(None)] * rest, *items[where + 1 :]]
    key: list[Any] = []
    for item in full:
        if isinstance(item, (list, np.ndarray)) and np.ndim(item) == 1:
            listed = np.asarray(item)
            if listed.dtype.kind != "b" and not (bool(np.all(np.diff(listed) > 0)) and (listed >= 0).all()):
                raise SelectionError("positions of a selection to be reduced are ascending and distinct")
            key.append(slice(None))
        elif isinstance(item, slice):
            key.append(slice(None, None, -1) if (item.step or 1) < 0 else slice(None))
        else:
            key.append(0)
    return parsed.selection, key


def _reduce(
    array: _Array,
    op: Operation,
    axis: Axis,
    dtype: npt.DTypeLike | None,
    out: None,
    keepdims: bool,
    ddof: Number,
    skip: Skip,
    selection: Any,
    progress: Progress | None,
) -> Any:
    if out is not None:
        raise TypeError(f"{op} of a remote array has no out: use what it returns")
    geometry, field = array._geometry, _field(array)
    box, key = _selected(selection, geometry.shape)
    kept = [number for number, item in enumerate(key) if isinstance(item, slice)]
    over = _axes(axis, len(kept))
    skipped = _skip(skip, array, field)
    request = ReduceRequest(
        array._root,
        array._entry.path,
        op,
        array._entry.version,
        _form(box, geometry.shape),
        axis=_stored_axes(over, kept, len(key)),
        dtype=None if dtype is None else np.dtype(dtype).str,
        ddof=ddof,
        skip=skipped,
        field=field,
    )
    reduction = Reduction(geometry, request)
    how: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    if op == "count" and not box.size:
        counted = [1 if i in over else len(box.axes[n]) for i, n in enumerate(kept)]
        return np.zeros([n for i, n in enumerate(counted) if keepdims or i not in over], np.int64)
    if op in ("std", "var"):
        how["ddof"] = ddof
    if not box.size:
        # NumPy's own result, warning or error.
        nothing = np.empty([len(box.axes[i]) for i in kept], reduced_dtype(geometry.dtype, field).newbyteorder("="))
        return getattr(nothing, op)(axis=tuple(over), keepdims=keepdims, **how)
    if "ddof" in how and not skipped and ddof >= math.prod(len(box.axes[kept[i]]) for i in over):
        warnings.warn("Degrees of freedom <= 0 for slice", RuntimeWarning, stacklevel=3)
    values = _ask(array, reduction, progress)
    left = [key[kept[i]] for i in range(len(kept)) if i not in over]
    values = values[tuple(left)] if left else values
    if keepdims:
        values = values.reshape([1 if i in over else len(box.axes[n]) for i, n in enumerate(kept)])
    return values if values.ndim else values[()]


def _axes(axis: Axis, ndim: int) -> set[int]:
    """The axes as NumPy takes them, counted from the first."""
    given = axis if axis is None or isinstance(axis, int) else tuple(axis) if isinstance(axis, Iterable) else axis
    np.zeros((1,) * ndim, np.int8).sum(axis=given)  # NumPy says what is wrong with it
    if given is None or not ndim:
        return set(range(ndim))
    numbers = given if isinstance(given, tuple) else (given,)
    return {operator.index(number) % ndim for number in numbers}


def _stored_axes(over: set[int], kept: list[int], ndim: int) -> tuple[int, ...] | None:
    """The axes of the box that go: those that are reduced over, and those that the index drops."""
    going = tuple(i for i in range(ndim) if i not in kept or kept.index(i) in over)
    return None if len(going) == ndim else going


def _skip(skip: Skip, array: _Array, field: tuple[str, ...]) -> tuple[Number, ...]:
    if skip is None:
        return ()
    many = skip if isinstance(skip, Iterable) and not isinstance(skip, str) else (skip,)
    values: list[Number] = []
    for value in many:
        if isinstance(value, str) and value == "fill":
            values += fills_in(array.attrs, field)
        elif (isinstance(value, str) and value.lower() in ("nan", "nat")) or (
            isinstance(value, (np.datetime64, np.timedelta64)) and np.isnat(value)
        ):
            values.append(math.nan)
        elif isinstance(value, (bool, np.bool_, int, np.integer)):
            values.append(int(value))
        elif isinstance(value, (float, np.floating)):
            values.append(float(value))
        else:
            raise TypeError(f"skip has numbers, 'fill' and 'nan', not {value!r}")
    return tuple(values)


def _ask(array: _Array, reduction: Reduction, progress: Progress | None) -> npt.NDArray[Any]:
    """The result, from whoever has the data."""
    service = array._session.service
    tries = service.transport.timeouts.retries
    title = f"{reduction.request.op} of {array._entry.path}"
    with telling(progress, array._session.bars, title) as progress:
        while True:
            is_begun = False
            try:
                with service.reduce(reduction.request) as answer:
                    is_begun = True
                    return _receive(array, reduction, answer, progress)
            except DatasetChangedError:
                raise changed(array._root, array._entry) from None
            except (SourceUnavailableError, IntegrityError) as error:
                # What breaks off is made again; an answer that does not begin, the transport has asked for again.
                if not is_begun or tries <= 0 or isinstance(error, NotCachedError):
                    raise
                tries -= 1


def _receive(array: _Array, reduction: Reduction, answer: Answer, progress: Progress | None) -> npt.NDArray[Any]:
    from ..core.exact_slice import PieceAssembler

    result = reduction.result
    pieces = PieceAssembler(result, Selection.whole(result.shape))
    parser = ReduceParser(reduction.digest)
    block_nbytes = reduction.geometry.block_nbytes
    entry = array._entry
    for part in answer.parts():
        for item in parser.feed_reduced(part):
            if isinstance(item, Preamble):
                if (item.id, item.version) != (entry.id, entry.version):
                    raise IntegrityError(f"the answer is about another dataset than {entry.path}")
            elif isinstance(item, Working):
                if progress is not None:
                    progress(item.done * block_nbytes, item.total * block_nbytes)
            elif not isinstance(item, End):
                pieces.add(item)
    parser.close()
    if result.size:
        pieces.finish()
    return pieces.out
