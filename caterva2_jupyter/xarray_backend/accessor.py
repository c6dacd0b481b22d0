"""``ds.cat2`` and ``da.cat2``: reductions of decoded values, made where the data is.

What is decoded has to be a linear function of what is stored: then the result is decoded in place of the values. What
was computed since it was opened is refused; what is in memory is reduced by xarray. Nothing is pushed by itself: only
these methods do it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..client.remote_array import RemoteArray
from ..errors import UnsupportedDatasetError
from .lazy_array import LazyArray

__all__ = ["DataArrayReductions", "DatasetReductions", "register_accessors"]

Array = npt.NDArray[Any]
Dims = str | Iterable[Hashable] | None
T = TypeVar("T", xr.DataArray, xr.Dataset)
Operation = Literal["mean", "sum", "min", "max", "std", "var", "count"]

_NUMERIC_ONLY = ("mean", "sum", "std", "var")
# xarray's own wrappers: they keep values, or what has been read of them.
_TRANSPARENT = ("MemoryCachedArray", "CopyOnWriteArray", "NativeEndiannessArray")


@dataclass(slots=True)
class _Stored:
    """What a variable is made of: an array of a root, what is selected of it, and how it is decoded."""

    array: RemoteArray
    key: tuple[Any, ...]
    fills: list[Any] = field(default_factory=list)
    scale: float | None = None
    offset: float | None = None

    @property
    def is_masked(self) -> bool:
        return bool(self.fills)


class _NotStoredError(UnsupportedDatasetError):
    """A variable whose values are no linear function of what is stored."""


def _stored(variable: xr.Variable, name: Hashable) -> _Stored:
    """Look behind xarray's wrappers, down to the array of the root.

    Raises
    ------
    UnsupportedDatasetError
        Where something else than decoding was done, with the cure.
    """
    layer: Any = variable._data
    functions: list[partial[Any]] = []
    while not isinstance(layer, LazyArray):
        kind = type(layer).__name__
        if kind == "LazilyIndexedArray" and isinstance(layer.array, LazyArray):
            return _decoding(functions, layer.array, layer.key.tuple, name)
        if kind == "_ElementwiseFunctionArray" and isinstance(layer.func, partial):
            functions.append(layer.func)
        elif kind not in _TRANSPARENT:
            raise _refusal(name, "it was computed, or chunked, since it was opened")
        layer = layer.array
    return _decoding(functions, layer, (slice(None),) * len(layer.shape), name)


def _decoding(functions: list[partial[Any]], lazy: LazyArray, key: tuple[Any, ...], name: Hashable) -> _Stored:
    array = lazy.array
    if lazy.shape != array.shape or lazy.dtype.newbyteorder("=") != array.dtype.newbyteorder("="):
        raise _refusal(name, "its values are not those that are stored")
    stored = _Stored(array, key)
    for function in reversed(functions):  # from the stored values outwards
        told: Mapping[str, Any] = function.keywords
        if set(told) == {"encoded_fill_values", "decoded_fill_value", "dtype"} and not _is_scaled(stored):
            if told["decoded_fill_value"] == told["decoded_fill_value"]:
                raise _refusal(name, "its fill values are not decoded to NaN")
            stored.fills += [np.asarray(value)[()] for value in told["encoded_fill_values"]]
        elif set(told) == {"scale_factor", "add_offset", "dtype"} and not _is_scaled(stored):
            stored.scale = None if told["scale_factor"] is None else float(told["scale_factor"])
            stored.offset = None if told["add_offset"] is None else float(told["add_offset"])
        else:
            raise _refusal(name, "its decoding is not linear")
    return stored


def _is_scaled(stored: _Stored) -> bool:
    return stored.scale is not None or stored.offset is not None


def _refusal(name: Hashable, why: str) -> UnsupportedDatasetError:
    return _NotStoredError(
        f"{name!r} cannot be reduced where its data is: {why}; reduce it here, without .cat2 (its values are read then)"
    )


class _Reductions(Generic[T]):
    """What both accessors have: the reductions."""

    _obj: T

    def __init__(self, obj: T) -> None:
        self._obj = obj

    def _reduce(self, op: Operation, dim: Dims, skipna: bool | None, keep_attrs: bool | None, ddof: int) -> T:
        raise NotImplementedError

    def to_caterva2(self, path: str | os.PathLike[str], mode: str = "w-", **options: Any) -> Path:
        """Write it as a directory of ``.b2nd``; see ``caterva2_jupyter.to_caterva2``.

        Examples
        --------
        >>> client["foo/dir1"].to_xarray().cat2.to_caterva2("written")
        PosixPath('...written')
        """
        from .writing import to_caterva2

        written: Any = self._obj
        return to_caterva2(written, path, mode, **options)

    def mean(self, dim: Dims = None, *, skipna: bool | None = None, keep_attrs: bool | None = None) -> T:
        """Mean of the decoded values along dimensions, made where the data is.

        Parameters
        ----------
        dim : str, iterable of hashable, ``...`` or None
            Dimensions to reduce over; None and ``...`` are all of them.
        skipna : bool, optional
            Leave fill values and NaN out; by default where the decoded values are floats.
        keep_attrs : bool, optional
            Keep the attributes; by default as ``xr.set_options`` says.

        Returns
        -------
        Dataset or DataArray
            As of xarray's own method, in memory.

        Raises
        ------
        UnsupportedDatasetError
            Where values are not a linear function of what is stored, or were computed since they were opened.
        ValueError
            When there is no such dimension.
        DatasetChangedError, SourceUnavailableError, NotCachedError

        Examples
        --------
        >>> client["foo/dir1/ds-2d"].to_xarray().cat2.mean(dim="dim_0").shape
        (20,)
        """
        return self._reduce("mean", dim, skipna, keep_attrs, 0)

    def sum(self, dim: Dims = None, *, skipna: bool | None = None, keep_attrs: bool | None = None) -> T:
        """Sum of the decoded values along dimensions; see `mean`."""
        return self._reduce("sum", dim, skipna, keep_attrs, 0)

    def min(self, dim: Dims = None, *, skipna: bool | None = None, keep_attrs: bool | None = None) -> T:
        """Least of the decoded values along dimensions; see `mean`."""
        return self._reduce("min", dim, skipna, keep_attrs, 0)

    def max(self, dim: Dims = None, *, skipna: bool | None = None, keep_attrs: bool | None = None) -> T:
        """Greatest of the decoded values along dimensions; see `mean`."""
        return self._reduce("max", dim, skipna, keep_attrs, 0)

    def std(self, dim: Dims = None, *, skipna: bool | None = None, ddof: int = 0, keep_attrs: bool | None = None) -> T:
        """Standard deviation of the decoded values along dimensions; see `mean`. ``ddof``: as of NumPy."""
        return self._reduce("std", dim, skipna, keep_attrs, ddof)

    def var(self, dim: Dims = None, *, skipna: bool | None = None, ddof: int = 0, keep_attrs: bool | None = None) -> T:
        """Variance of the decoded values along dimensions; see `mean`. ``ddof``: as of NumPy."""
        return self._reduce("var", dim, skipna, keep_attrs, ddof)

    def count(self, dim: Dims = None, *, keep_attrs: bool | None = None) -> T:
        """Number of values along dimensions that are neither fill values nor NaN; see `mean`."""
        return self._reduce("count", dim, True, keep_attrs, 0)


class DataArrayReductions(_Reductions[xr.DataArray]):
    """``da.cat2``.

    Examples
    --------
    >>> da = client["foo/dir1/ds-2d"].to_xarray()
    >>> da.cat2.sum().item(), da.cat2.min().item(), da.cat2.max().item(), da.cat2.count().item()
    (19900, 0, 199, 200)
    >>> da.cat2.std("dim_1").shape, da.cat2.var("dim_1").dims
    ((10,), ('dim_0',))
    """

    def _reduce(
        self, op: Operation, dim: Dims, skipna: bool | None, keep_attrs: bool | None, ddof: int
    ) -> xr.DataArray:
        array = self._obj
        dims = _dims(dim, array.dims)
        return _reduced(array, op, dims, skipna, keep_attrs, ddof)


class DatasetReductions(_Reductions[xr.Dataset]):
    """``ds.cat2``.

    Examples
    --------
    >>> ds = client["foo/dir1"].to_xarray()
    >>> ds.cat2.mean()["ds-2d"].item()
    99.5
    """

    def _reduce(self, op: Operation, dim: Dims, skipna: bool | None, keep_attrs: bool | None, ddof: int) -> xr.Dataset:
        dataset = self._obj
        dims = _dims(dim, tuple(dataset.dims))
        found: dict[Hashable, xr.DataArray] = {}
        for name, array in dataset.data_vars.items():
            over = tuple(d for d in array.dims if d in dims)
            if op in _NUMERIC_ONLY and over and array.dtype.kind not in "biufc":
                continue  # as xarray: times and texts have no mean
            found[name] = _reduced(array, op, over, skipna, keep_attrs, ddof) if over or op == "count" else array
        coords = {n: c for n, c in dataset.coords.items() if not set(c.dims) & set(dims)}
        attrs = dataset.attrs if _keeps_attrs(keep_attrs) else None
        return xr.Dataset(found, coords=coords, attrs=attrs)


def _keeps_attrs(keep_attrs: bool | None) -> bool:
    if keep_attrs is not None:
        return keep_attrs
    # xarray's default differs between its versions: ask it.
    probe = xr.DataArray([0.0], dims="x", attrs={"kept": 1})
    return bool(probe.mean().attrs)


def _dims(dim: Dims, dims: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
    given: Any = dim
    if given is None or given is ...:
        return dims
    named = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    missing = [d for d in named if d not in dims]
    if missing:
        raise ValueError(f"Dimension(s) {', '.join(map(repr, missing))} not found in {dims}")
    return named


def _reduced(
    array: xr.DataArray,
    op: Operation,
    dims: tuple[Hashable, ...],
    skipna: bool | None,
    keep_attrs: bool | None,
    ddof: int,
) -> xr.DataArray:
    variable = array.variable
    if variable._in_memory and not hasattr(variable._data, "dask"):
        how: dict[str, Any] = {} if op == "count" else {"skipna": skipna}
        how |= {"ddof": ddof} if op in ("std", "var") else {}
        reduced: xr.DataArray = getattr(array, op)(dim=dims, keep_attrs=keep_attrs, **how)
        return reduced
    stored = _stored(variable, array.name)
    values = _decoded(stored, op, variable, dims, skipna, ddof)
    left = [d for d in array.dims if d not in dims]
    coords = {n: c for n, c in array.coords.items() if not set(c.dims) & set(dims)}
    attrs = array.attrs if _keeps_attrs(keep_attrs) else None
    return xr.DataArray(values, coords=coords, dims=left, name=array.name, attrs=attrs)


def _decoded(
    stored: _Stored,
    op: Operation,
    variable: xr.Variable,
    dims: tuple[Hashable, ...],
    skipna: bool | None,
    ddof: int,
) -> Array:
    """The reduction of decoded values, from those of stored ones."""
    if variable.dtype.kind not in "biufc":
        raise _refusal(variable.attrs.get("long_name", "it"), f"values of dtype {variable.dtype} are not numbers")
    skips = variable.dtype.kind in "fc" if skipna is None else skipna
    key = tuple(list(k) if isinstance(k, np.ndarray) else k for k in stored.key)
    how: dict[str, Any] = {"axis": tuple(variable.dims.index(d) for d in dims), "selection": key}
    skipped = [*stored.fills, *([math.nan] if skips and stored.array.dtype.kind in "fc" else [])]
    if skipped:
        how["skip"] = skipped
    array, scale = stored.array, 1.0 if stored.scale is None else stored.scale
    number: Callable[[], Any] = partial(array.count, **how)
    if op == "count":
        return np.asarray(number())
    offset = 0.0 if stored.offset is None else stored.offset
    name = {"min": "max", "max": "min"}.get(op, op) if scale < 0 else op
    linear = scale != 1.0 or offset != 0.0
    spread = {"ddof": ddof} if op in ("std", "var") else {}
    # Decoded in float64, and rounded once.
    exact = {"dtype": "f8"} if op in ("mean", "sum", "std", "var") and linear and array.dtype.kind != "c" else {}
    values = np.asarray(getattr(array, name)(**how, **spread, **exact))
    items = math.prod(variable.shape[variable.dims.index(d)] for d in dims)
    counts = np.asarray(number()) if stored.is_masked or (op == "sum" and offset and skipped) else np.asarray(items)
    if linear:
        factor: float = {"std": abs(scale), "var": scale * scale}.get(op, scale)
        values = values * factor
        if op not in ("std", "var"):
            values = values + (offset * counts if op == "sum" else offset)
    if stored.is_masked and (not skips or op in ("min", "max")):
        lost = counts < items if not skips else counts == 0
        values = np.where(lost, np.nan, values)
    if stored.is_masked and op == "sum":
        values = np.where(counts == 0, 0 if skips else np.nan, values)
    return values.astype(_dtype_of(variable.dtype, op), copy=False)


def _dtype_of(dtype: np.dtype[Any], op: Operation) -> np.dtype[Any]:
    """What xarray's own reduction gives."""
    zero = np.zeros(1, dtype.newbyteorder("="))
    result: Array = getattr(zero, op)()
    return result.dtype


def register_accessors() -> None:
    """Let Datasets and DataArrays have ``.cat2``; done by opening something with the engine."""
    if not hasattr(xr.Dataset, "cat2"):
        xr.register_dataset_accessor("cat2")(DatasetReductions)  # type: ignore[no-untyped-call]
        xr.register_dataarray_accessor("cat2")(DataArrayReductions)  # type: ignore[no-untyped-call]
