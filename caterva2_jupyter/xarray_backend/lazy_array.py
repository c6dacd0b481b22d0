"""Arrays of a service as xarray reads them: lazily, by outer indexing, pinned to a version.

``LazyArray`` moves only the blocks that an index touches. Values that are needed to open a dataset (coordinates that
become indexes, the first and last of times) come in one request for all of them: ``FirstReads``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from xarray.backends.common import BackendArray
from xarray.core import indexing

from ..client.remote_array import RemoteArray
from ..core.selection import AxisRange, Selection, parse_orthogonal

__all__ = ["FirstReads", "LazyArray"]

Array = npt.NDArray[Any]


class FirstReads:
    """What is read first of a dataset's arrays, all by one request when the first of it is asked for.

    What was taken as a whole is let go: an index keeps its own copy.
    """

    def __init__(self) -> None:
        self._wanted: list[tuple[RemoteArray, Selection]] = []
        self._came: list[tuple[RemoteArray, Selection, Array]] = []
        self._lock = threading.Lock()
        self.nbytes = 0

    def add(self, array: RemoteArray, selection: Selection) -> None:
        """Have a selection of an array read along with the others."""
        self._wanted.append((array, selection))
        self.nbytes += selection.size * max(array.dtype.itemsize, 1)

    def take(self, array: RemoteArray, selection: Selection) -> Array | None:
        """The box of a selection, if it is among what is read first."""
        whole = Selection.whole(array.shape)
        with self._lock:
            if any(a is array and s in (selection, whole) for a, s in self._wanted):
                self._read_all()
            for place, (owner, held, box) in enumerate(self._came):
                if owner is array and held == selection:
                    if selection == whole:
                        del self._came[place]
                    return box
                if owner is array and held == whole:
                    return np.asarray(box[_numpy_key(selection)])
        return None

    def _read_all(self) -> None:
        wanted, self._wanted = self._wanted, []
        session = wanted[0][0]._session
        boxes = session.reader.read_many([(a.root, a.entry, s) for a, s in wanted])
        self._came = [(a, s, box) for (a, s), box in zip(wanted, boxes, strict=True)]


def _numpy_key(selection: Selection) -> Any:
    if all(isinstance(axis, AxisRange) for axis in selection.axes):
        return tuple(slice(a.start, a.stop, a.step) for a in selection.axes if isinstance(a, AxisRange))
    return np.ix_(
        *[np.arange(a.start, a.stop, a.step) if isinstance(a, AxisRange) else a.items for a in selection.axes]
    )


class LazyArray(BackendArray):
    """An array of a root for xarray: nothing is read before it is indexed.

    Parameters
    ----------
    array : RemoteArray
    shape : tuple of int, optional
        Longer than the array's where a netCDF dimension is; what is missing reads as ``fill``.
    dtype : numpy.dtype, optional
        What values are seen as; that of the array by default.
    fill : scalar
    as_bytes : bool
        Give strings as bytes.
    first : FirstReads, optional
        What may have been read already. Does not go into a pickle.

    Notes
    -----
    It pickles as the array does: service, path and version, no credentials. Outer indexing is native: lists of
    positions are sent as they are, and only blocks with one of them in it are read.
    """

    def __init__(
        self,
        array: RemoteArray,
        shape: tuple[int, ...] | None = None,
        dtype: np.dtype[Any] | None = None,
        fill: object = 0,
        as_bytes: bool = False,
        first: FirstReads | None = None,
    ) -> None:
        self.array = array
        self.shape = array.shape if shape is None else shape
        self.dtype = array.dtype if dtype is None else dtype
        self._fill, self._as_bytes, self._first = fill, as_bytes, first

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyArray, (self.array, self.shape, self.dtype, self._fill, self._as_bytes)

    def __deepcopy__(self, memo: dict[int, object]) -> LazyArray:
        return self  # it never changes

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (*self.array.__dask_tokenize__(), self.shape, str(self.dtype), self._as_bytes)

    def __repr__(self) -> str:
        return f"<LazyArray of {self.array!r}>"

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """As indexing, in a thread."""
        return await indexing.async_explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read_in_thread
        )

    async def _read_in_thread(self, key: tuple[Any, ...]) -> Any:
        return await asyncio.to_thread(self._read, key)

    def _read(self, key: tuple[Any, ...]) -> Any:
        simple = tuple(_simple(item, length) for item, length in zip(key, self.shape, strict=True))
        if self.shape == self.array.shape or self._is_inside(simple):
            values = self._read_stored(simple)
        else:
            values = self._read_padded(simple)
        if self._as_bytes:
            values = _encoded(values)
        if values.dtype != self.dtype and self.dtype.names is not None:
            # Of another byte order, or chars in place of strings.
            values = values.view(self.dtype) if values.dtype.isnative else values.astype(self.dtype)
        return values

    def _is_inside(self, key: Sequence[Any]) -> bool:
        """Does the key touch stored items only?"""
        for item, stored in zip(key, self.array.shape, strict=True):
            last = item.stop - 1 if isinstance(item, slice) else int(np.max(item, initial=-1))
            if last >= stored and not (isinstance(item, slice) and item.stop <= item.start):
                return False
        return True

    def _read_stored(self, key: tuple[Any, ...]) -> Array:
        parsed = parse_orthogonal(key, self.array.shape)
        box = self._first.take(self.array, parsed.selection) if self._first is not None else None
        values = parsed.apply(box) if box is not None else self.array.oindex[key]
        if isinstance(values, np.ndarray):
            return values
        whole: Array = np.empty((), self.array.dtype)
        whole[()] = values
        return whole

    def _read_padded(self, key: tuple[Any, ...]) -> Array:
        """Values where there are some, the fill value elsewhere."""
        places = [np.arange(n)[item] for item, n in zip(key, self.shape, strict=True)]
        kept = [np.ndim(p) > 0 for p in places]
        places = [np.atleast_1d(p) for p in places]
        out: Array = np.full([len(p) for p in places], self._fill, self.array.dtype)
        stored = [np.flatnonzero(p < n) for p, n in zip(places, self.array.shape, strict=True)]
        if all(len(s) for s in stored):
            inside = tuple(_simple(p[s], n) for p, s, n in zip(places, stored, self.array.shape, strict=True))
            out[np.ix_(*stored)] = self._read_stored(inside)
        return np.asarray(out[tuple(slice(None) if k else 0 for k in kept)])


def _simple(item: Any, length: int) -> Any:
    """The same items, as a slice with a positive step wherever they are one."""
    if isinstance(item, slice):
        start, stop, step = item.indices(length)
        count = len(range(start, stop, step))
        if step < 0:
            return np.arange(start, stop, step)
        return slice(start, start + (count - 1) * step + 1 if count else start, step)
    if np.ndim(item) == 0:
        return int(item)
    listed = np.asarray(item, np.int64)
    listed = np.where(listed < 0, listed + length, listed)
    if len(listed) == 0:
        return slice(0, 0, 1)
    step = int(listed[1] - listed[0]) if len(listed) > 1 else 1
    if step > 0 and (len(listed) < 3 or bool(np.all(np.diff(listed) == step))):
        return slice(int(listed[0]), int(listed[-1]) + 1, step)
    return listed


def _encoded(values: Array) -> Array:
    out: Array = np.empty(values.shape, object)
    out.ravel()[:] = [str(v).encode("utf-8", "surrogateescape") for v in values.ravel().tolist()]
    return out
