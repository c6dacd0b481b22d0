"""``to_dask``: a remote array as a lazy dask array, a stored chunk or several to a task.

It builds the graph and reads nothing. Tasks hold the array's address and version, no credentials: each process finds
those again as ``connect()`` does, and reads through one connection pool per service.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .client.remote_array import RemoteArray
from .errors import ConfigError

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["Chunks", "to_dask"]

TASK_NBYTES = 16 << 20
STRING_NBYTES = 64  # of a string of variable length, as a guess

Chunks = None | str | int | tuple[Any, ...] | dict[int, Any]


class DaskSource:
    """What tasks index: a remote array whose every part comes as an ndarray of its dtype.

    Parameters
    ----------
    array : RemoteArray
    """

    def __init__(self, array: RemoteArray) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    @property
    def ndim(self) -> int:
        return self._array.ndim

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        # A scalar of strings is a str, of which NumPy would make another dtype.
        return np.asarray(self._array[key], dtype=self.dtype)

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return self._array.__dask_tokenize__()

    def __repr__(self) -> str:
        return f"<DaskSource {self._array!r}>"


def to_dask(array: RemoteArray, chunks: Chunks = None) -> da.Array:
    """A lazy dask array over a remote array; see ``RemoteArray.to_dask``."""
    try:
        import dask.array as da
        from dask.base import tokenize
    except ImportError:
        raise ConfigError("to_dask() needs dask: pip install 'caterva2-jupyter[dask]'") from None
    sizes = _task_chunks(array, chunks)
    lazy: da.Array = da.from_array(  # type: ignore[no-untyped-call]
        DaskSource(array),
        chunks=sizes,
        # Of what is read and how it is cut, never of an address or a time: the same graph has the same names anywhere.
        name=f"caterva2-{tokenize(array.__dask_tokenize__(), sizes)}",
        lock=False,
        asarray=False,
        fancy=False,
        meta=np.empty((0,) * array.ndim, dtype=array.dtype),
    )
    return lazy


def _task_chunks(array: RemoteArray, chunks: Chunks) -> tuple[tuple[int, ...], ...]:
    """Lengths of the tasks' parts along each axis."""
    from dask.array.core import normalize_chunks

    shape, dtype = array.shape, array.dtype
    stored = tuple(min(c, n) if n else c for c, n in zip(array.chunks, shape, strict=True))
    if chunks is None or chunks == {} or (chunks == "auto" and dtype.hasobject):
        target = 0 if chunks == {} else TASK_NBYTES
        chunks = merged_chunks(shape, stored, STRING_NBYTES if dtype.hasobject else dtype.itemsize, target)
    where = f"chunks={chunks!r} do not fit {array.root}/{array.path} of shape {shape}"
    if isinstance(chunks, dict):
        if not set(chunks) <= set(range(array.ndim)):
            raise ConfigError(f"{where}: name axes by their numbers, from 0")
        chunks = tuple(chunks.get(axis, stored[axis]) for axis in range(array.ndim))
    try:
        sizes: tuple[tuple[int, ...], ...] = normalize_chunks(  # type: ignore[no-untyped-call]
            chunks, shape, dtype=dtype, previous_chunks=stored
        )
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(f"{where}: {error}") from None
    for length, along in zip(shape, sizes, strict=True):
        if sum(along) != length or not all(type(n) is int and (n > 0 or length == 0) for n in along):
            raise ConfigError(f"{where}: give whole numbers above 0 that add up to it")
    cut = [axis for axis in range(len(shape)) if any(n % stored[axis] for n in sizes[axis][:-1])]
    if cut:
        axis = cut[0]
        warnings.warn(
            f"chunks of {sizes[axis][0]} along axis {axis} cut through stored ones of {stored[axis]}, which are read "
            "more than once: choose multiples",
            stacklevel=3,
        )
    return sizes


def merged_chunks(shape: Sequence[int], stored: Sequence[int], itemsize: int, target_nbytes: int) -> tuple[int, ...]:
    """Shape of several stored chunks together, of at most ``target_nbytes``, along the last axes first.

    Parameters
    ----------
    shape, stored : sequence of int
        Of the array, and of a stored chunk.
    itemsize : int
        Bytes of an item.
    target_nbytes : int
        Decoded bytes; a stored chunk that is larger stays alone.

    Returns
    -------
    tuple of int
        Multiples of ``stored``, or the whole axis.

    Examples
    --------
    >>> merged_chunks((100, 100), (10, 10), 8, 32_000)
    (40, 100)
    >>> merged_chunks((100, 100), (10, 10), 8, 0)
    (10, 10)
    """
    merged = [min(c, n) if n else c for c, n in zip(stored, shape, strict=True)]
    for axis in range(len(merged) - 1, -1, -1):
        nbytes = math.prod(merged) * max(itemsize, 1)
        factor = max(1, target_nbytes // max(nbytes, 1))
        merged[axis] = max(1, min(merged[axis] * factor, max(shape[axis], 1)))
        if merged[axis] < shape[axis]:
            break
    return tuple(merged)
