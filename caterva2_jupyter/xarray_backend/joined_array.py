"""An array whose parts are in several files: read lazily, each part decoded by its own attributes.

Which parts there are, and whether they go together, is decided in ``cubes``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends.common import BackendArray
from xarray.conventions import decode_cf_variable
from xarray.core import indexing

from ..client.remote_array import RemoteArray
from ..core.selection import parse_orthogonal
from .lazy_array import LazyArray

__all__ = ["JoinedArray", "Part", "array_of", "decoded_dtype", "with_missing"]

Array = npt.NDArray[Any]

MAX_TOGETHER_NBYTES = 32 << 20
"""Parts of a selection that are smaller in all are read by one request."""
WORKERS = 4


def array_of(variable: xr.Variable) -> RemoteArray | None:
    """The array that a lazy variable reads; None where it reads none, or more than one."""
    lazy = getattr(variable._data, "array", None)
    return lazy.array if isinstance(lazy, LazyArray) else None


@dataclass(frozen=True, slots=True)
class Part:
    """What one file has of a joined variable: undecoded and lazy; None where it has none."""

    name: str
    variable: xr.Variable | None
    length: int
    options: Mapping[str, Any]

    def __dask_tokenize__(self) -> tuple[object, ...]:
        lazy = getattr(self.variable._data, "array", None) if self.variable is not None else None
        attrs = sorted((k, repr(v)) for k, v in self.variable.attrs.items()) if self.variable is not None else ()
        return (lazy, self.length, attrs, repr(sorted(self.options.items())))

    def array(self) -> RemoteArray | None:
        """The array behind it, where its values are just those of the array."""
        if self.variable is None or self.variable.dtype == np.dtype("S1"):
            return None
        array = array_of(self.variable)
        is_plain = array is not None and array.shape == self.variable.shape and array.dtype == self.variable.dtype
        return array if is_plain and array is not None and array.dtype.kind in "biufcSUmM" else None

    def read(self, key: tuple[Any, ...]) -> Array:
        """Decoded values of an outer key."""
        assert self.variable is not None
        if self.variable.dtype == np.dtype("S1"):  # decoding joins its last axis to strings
            copy = xr.Variable(self.variable.dims, self.variable._data, dict(self.variable.attrs))
            return _taken(decode_cf_variable(self.name, copy, **self.options), key)
        return self.decode(_taken(self.variable, key))

    def decode(self, values: Array) -> Array:
        assert self.variable is not None
        dims = tuple(f"axis{n}" for n in range(values.ndim))
        variable = xr.Variable(dims, values, dict(self.variable.attrs))
        return np.asarray(decode_cf_variable(self.name, variable, **self.options).values)


class JoinedArray(BackendArray):
    """Arrays of several files, one after the other along an axis, decoded as they are read.

    Parameters
    ----------
    parts : sequence of Part
    axis : int
        -1: each part is one item along a new first axis.
    inner : tuple of int
        Lengths of the other axes.
    dtype : numpy.dtype
        That all decoded parts fit in.
    """

    def __init__(self, parts: Sequence[Part], axis: int, inner: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.parts, self._axis, self.dtype = list(parts), axis, dtype
        self._starts = np.concatenate([[0], np.cumsum([part.length for part in parts])])
        at = max(axis, 0)
        self.shape = (*inner[:at], int(self._starts[-1]), *inner[at:])

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return ("caterva2-joined", self.shape, str(self.dtype), self._axis, self.parts)

    def __deepcopy__(self, memo: dict[int, object]) -> JoinedArray:
        return self  # it never changes

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        at = max(self._axis, 0)
        along = np.arange(self.shape[at])[key[at]]
        is_one = np.ndim(along) == 0
        wanted = np.atleast_1d(along)
        numbers = np.searchsorted(self._starts, wanted, side="right") - 1
        whole = tuple(np.arange(n)[item] for n, item in zip(self.shape, key, strict=True))
        lengths = [1 if np.ndim(w) == 0 else len(w) for w in whole]
        lengths[at] = len(wanted)
        out: Array = np.empty(lengths, self.dtype)
        touched = [(int(n), np.flatnonzero(numbers == n)) for n in np.unique(numbers)]
        keys = [self._part_key(key, at, wanted[places] - self._starts[n]) for n, places in touched]
        for (_, places), values in zip(touched, self._values([n for n, _ in touched], keys, lengths), strict=True):
            shape = [*lengths[:at], len(places), *lengths[at + 1 :]]
            box = (slice(None),) * at + (places,)
            out[box] = _missing(self.dtype) if values is None else values.reshape(shape)
        kept = [0 if (np.ndim(w) == 0 if n != at else is_one) else slice(None) for n, w in enumerate(whole)]
        return np.asarray(out[tuple(kept)])

    def _part_key(self, key: tuple[Any, ...], at: int, places: Array) -> tuple[Any, ...]:
        if self._axis < 0:
            return tuple(key[1:])
        step = int(places[1] - places[0]) if len(places) > 1 else 1
        is_range = step > 0 and bool(np.all(np.diff(places) == step))
        item: Any = slice(int(places[0]), int(places[-1]) + 1, step) if is_range and len(places) else places
        return (*key[:at], item, *key[at + 1 :])

    def _values(self, numbers: list[int], keys: list[tuple[Any, ...]], lengths: list[int]) -> Iterator[Array | None]:
        """Decoded values of parts, None where a file has none; small ones by one request, others some at a time."""
        parts = [self.parts[n] for n in numbers]
        arrays = [part.array() for part in parts]
        nbytes = int(np.prod(lengths, dtype=float)) * self.dtype.itemsize
        if len(parts) > 1 and nbytes <= MAX_TOGETHER_NBYTES and all(
            array is not None or part.variable is None for array, part in zip(arrays, parts, strict=True)
        ):  # fmt: skip
            yield from self._read_together(parts, arrays, keys)
            return
        if len(parts) == 1:
            yield None if parts[0].variable is None else parts[0].read(keys[0])
            return
        with ThreadPoolExecutor(WORKERS) as pool:
            yield from pool.map(_read_part, parts, keys)

    def _read_together(
        self, parts: list[Part], arrays: list[RemoteArray | None], keys: list[tuple[Any, ...]]
    ) -> Iterator[Array | None]:
        parsed = {n: parse_orthogonal(keys[n], a.shape) for n, a in enumerate(arrays) if a is not None}
        owners = {n: a for n, a in enumerate(arrays) if a is not None}
        reads = [(a.root, a.entry, parsed[n].selection) for n, a in owners.items()]
        session = next(iter(owners.values()))._session if owners else None
        boxes = dict(zip(owners, session.reader.read_many(reads), strict=True)) if session is not None else {}
        for number, part in enumerate(parts):
            yield part.decode(np.asarray(boxes[number])) if number in boxes else None


def _read_part(part: Part, key: tuple[Any, ...]) -> Array | None:
    return None if part.variable is None else part.read(key)


def _taken(variable: xr.Variable, key: tuple[Any, ...]) -> Array:
    return np.asarray(variable[key].values)


def decoded_dtype(name: str, variable: xr.Variable, options: Mapping[str, Any]) -> np.dtype[Any]:
    """Dtype of decoded values, by decoding a zero: none has to be read."""
    zero = xr.Variable(variable.dims, np.zeros((1,) * variable.ndim, variable.dtype), dict(variable.attrs))
    if variable.dtype == np.dtype("S1") and variable.ndim:
        return np.dtype(f"S{max(variable.shape[-1], 1)}")
    dtype: np.dtype[Any] = decode_cf_variable(name, zero, **options).dtype
    return dtype


def with_missing(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype that can say that there is no value."""
    if dtype.kind in "fcmMOSU":
        return dtype
    return (
        np.dtype("f8") if dtype.kind in "iu" and dtype.itemsize > 2 else np.dtype("f4" if dtype.kind in "iu" else "O")
    )


def _missing(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "mM":
        return np.array("NaT", dtype)
    return {"S": b"", "U": ""}.get(dtype.kind, np.nan)
