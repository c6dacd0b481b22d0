"""``RemoteArray``: indexed like a NumPy array, moves only the blocks that the index touches.

The key is parsed against NumPy itself (``core.selection``), so results and errors are NumPy's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..core.dtypes import is_vlen
from ..core.metadata import Entry
from ..core.selection import AxisItems, ParsedKey, Selection, parse_basic, parse_orthogonal
from ..errors import ConfigError, TooLargeError
from .cache_policy import CachePolicy, parse_cache_policy
from .card_state import state_rows, when_modified
from .chunk_picture import chunk_picture
from .conversions import conversion
from .lazy_expression import Computing
from .prefetch import Prefetching
from .progress import BAR_NBYTES, telling
from .reducing import Reducing
from .remote_dataset import RemoteDataset
from .representation import format_nbytes, html_table, plain
from .session import Session
from .showing import Plotted, Viewed

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

__all__ = ["OrthogonalIndex", "RemoteArray"]

ITERATED_NBYTES = 16 << 20

Field = str | list[str]


class RemoteArray(Prefetching, Reducing, Computing, Plotted, Viewed, RemoteDataset):
    """An N-dimensional array of a root, read block by block as it is indexed.

    ``array[key]`` equals ``numpy_array[key]`` for basic indexing: ints, slices of any step, ``...``, ``None``;
    the same result and the same exceptions. ``array.oindex[...]`` selects by lists and masks per axis.
    ``array["field"]`` of a structured dtype is a lazy array of that field. It is pinned to the version that it
    had when it was opened, and safe to use from several threads, after a fork and pickled. Operators and NumPy's
    functions (``a + b``, ``np.sin(a)``, ``a == 1``) give a `LazyExpression`, computed when it is indexed.

    See Also
    --------
    Group : what arrays are opened from.

    Examples
    --------
    >>> array = client["foo/dir1/ds-2d"]
    >>> array.shape, array.dtype, array.chunks, array.blocks, array.nbytes, array.dims
    ((10, 20), dtype('uint16'), (5, 5), (2, 3), 400, None)
    >>> array[1:3, :4]
    array([[20, 21, 22, 23],
           [40, 41, 42, 43]], dtype=uint16)
    >>> client["foo/ds-1d-fields"]["b"].dtype
    dtype('float64')
    """

    def __init__(
        self,
        session: Session,
        root: str,
        entry: Entry,
        fields: tuple[Field, ...] = (),
        cache: CachePolicy | None = None,
    ) -> None:
        super().__init__(session, root, entry)
        self._fields, self._cache = fields, cache

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, arguments = super().__reduce__()
        if not self._fields and self._cache is None:
            return rebuild, arguments
        return _rebuild_view, (rebuild(*arguments), self._fields, self._cache)

    def with_cache(self, cache: CachePolicy) -> RemoteArray:
        """The same array, read under another cache policy (see ``connect``).

        Parameters
        ----------
        cache : {"auto", "fill", "bypass"}

        Returns
        -------
        RemoteArray
            A new object of the same version; this one stays as it is.

        Raises
        ------
        ConfigError
            When there is no such policy.

        Examples
        --------
        >>> client["foo/ds-1d"].with_cache("bypass")[2]
        np.int64(2)
        """
        return RemoteArray(self._session, self._root, self._entry, self._fields, parse_cache_policy(cache))

    def _field_dtype(self) -> np.dtype[Any]:
        """Dtype of an item as stored, fields taken: may be a subarray."""
        dtype = self._geometry.dtype
        for field in self._fields:
            dtype = _item_dtype(dtype)[field]
        return dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis; ``()`` for a scalar."""
        return self._geometry.shape + self._inner_shape

    @property
    def _inner_shape(self) -> tuple[int, ...]:
        """Axes that a field of arrays adds."""
        shape: tuple[int, ...] = ()
        dtype = self._geometry.dtype
        for field in self._fields:
            dtype = _item_dtype(dtype)[field]
            shape += dtype.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of an item, byte order included; ``object`` for strings of variable length (``str`` items)."""
        dtype = self._geometry.dtype
        return np.dtype(object) if is_vlen(dtype) else _item_dtype(self._field_dtype())

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a chunk."""
        return self._geometry.chunks + self._inner_shape

    @property
    def blocks(self) -> tuple[int, ...]:
        """Shape of a block, the unit that is moved; one number where blocks are runs of a chunk's items."""
        return self._geometry.blocks

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of items."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Decoded bytes of the whole array."""
        return self.size * self.dtype.itemsize

    @property
    def dims(self) -> tuple[str, ...] | None:
        """Names of the axes; None when they have none."""
        return self._entry.dims

    @property
    def oindex(self) -> OrthogonalIndex:
        """Selection by items per axis: ``array.oindex[[3, 1], :, mask]``.

        Equals ``a[np.ix_(...)]`` with the axes of ints dropped.
        """
        return OrthogonalIndex(self)

    def __getitem__(self, key: Any) -> Any:
        """Read a selection (NumPy's basic indexing), or take a field.

        Parameters
        ----------
        key : int, slice, ``...``, ``None``, a tuple of those, or str
            NumPy's basic index, negative steps included; a name is a field of a structured dtype.

        Returns
        -------
        ndarray, or a NumPy scalar where NumPy gives one; RemoteArray for a field
            A new array, in memory.

        Raises
        ------
        IndexError, TypeError, ValueError
            As NumPy; lists, masks and arrays raise `SelectionError` (an IndexError) that names ``oindex``.
        DatasetChangedError
            When the dataset has changed since it was opened and the blocks are not cached.
        SourceUnavailableError, NotCachedError, DeadlineError

        Examples
        --------
        >>> array = client["foo/dir1/ds-3d"]
        >>> array[0, ::-2, 1], array[..., None].shape
        (array([16.,  6.], dtype=float32), (3, 4, 5, 1))
        """
        if _is_field_key(key) and self.dtype.names is not None:
            np.empty(0, self.dtype)[key]  # NumPy says what is wrong with it
            return RemoteArray(self._session, self._root, self._entry, (*self._fields, key), self._cache)
        return self._read(parse_basic(key, self.shape))

    def _ipython_key_completions_(self) -> list[str]:
        """What may follow ``array["``: fields."""
        return list(self.dtype.names or ())

    def _read(self, parsed: ParsedKey) -> Any:
        geometry = self._geometry
        stored = Selection(parsed.selection.axes[: geometry.ndim])
        session = self._session
        bars = session.bars if stored.size * geometry.itemsize >= BAR_NBYTES else None
        with telling(None, bars, self.name) as progress:
            cache = self._cache or session.cache
            box: Any = session.reader.read(self._root, self._entry, stored, progress, cache)
        for field in self._fields:
            box = box[field]
        for number, axis in enumerate(parsed.selection.axes[geometry.ndim :], geometry.ndim):
            taken = axis.items if isinstance(axis, AxisItems) else slice(axis.start, axis.stop, axis.step)
            box = box[(*[slice(None)] * number, taken)]
        return parsed.apply(box)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """The whole array in memory, for NumPy functions.

        Raises
        ------
        TooLargeError
            When it is over the client's ``max_nbytes``.
        ValueError
            For ``copy=False``: it has to be read.
        """
        if copy is False:
            raise ValueError("Unable to avoid copy while creating an array as requested: the data is remote")
        limit = self._session.max_nbytes
        if self.nbytes > limit:
            raise TooLargeError(
                f"{self._root}/{self.path} has {format_nbytes(self.nbytes)}, over the limit of {format_nbytes(limit)} "
                "for reading an array whole: index it (array[...] reads everything), use download(), or "
                "connect(max_nbytes=...)"
            )
        whole: npt.NDArray[Any] = np.asarray(self[...])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def to_dask(self, chunks: Any = None) -> da.Array:
        """The array as a lazy dask array. Nothing is read before it is computed.

        Parameters
        ----------
        chunks : int, tuple, dict, str, optional
            Sizes of dask's chunks, as dask takes them. None: stored chunks, some together where they are small (up to
            16 MiB). ``{}``: the stored chunks. ``"auto"``: multiples of them, as large as dask is configured for. A
            dict has sizes by axis number, and leaves the other axes as stored.

        Returns
        -------
        dask.array.Array, of the same shape and dtype
            Its name is made of the dataset, its version and the chunks: the same anywhere, another for another
            version. It computes in threads, processes and on a cluster; what is sent there holds no credentials, which
            are found again as ``connect()`` finds them.

        Raises
        ------
        ConfigError
            When dask is not installed, or the chunks do not fit.
        DatasetChangedError
            From computing, when the dataset has changed since the array was opened: versions are never mixed.

        Warns
        -----
        UserWarning
            When the chunks cut through stored ones.

        Examples
        --------
        >>> client["foo/dir1/ds-2d"].to_dask().sum().compute()
        np.uint64(19900)
        """
        converted: da.Array = conversion("dask_array", "to_dask")(self, chunks)
        return converted

    def to_xarray(self, **options: Any) -> xr.DataArray:
        """The array as a lazy xarray DataArray, with its coordinates and attributes, decoded by CF's rules.

        Parameters
        ----------
        **options
            As for ``xarray.open_dataset(..., engine="caterva2")``: ``chunks``, ``mask_and_scale``, ``decode_times``...

        Returns
        -------
        xarray.DataArray
            Dimensions are those of the array's metadata; coordinates are the arrays beside it that are named so.

        Raises
        ------
        ConfigError
            When xarray is not installed.
        DatasetChangedError
            When the array has changed since it was opened.

        Examples
        --------
        >>> client["foo/dir1/ds-2d"].to_xarray().dims
        ('dim_0', 'dim_1')
        """
        try:
            made: xr.DataArray = conversion("xarray_backend.opening", "to_data_array")(self, **options)
        except ModuleNotFoundError as error:
            raise ConfigError(f"to_xarray() needs {error.name}: pip install 'caterva2-jupyter[xarray]'") from None
        return made

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __bool__(self) -> bool:
        if self.size > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. Use a.any() or a.all()"
            )
        return bool(self[...])

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return self._rows()

    def _rows(self) -> Iterator[Any]:
        """Items along the first axis, read some chunks of rows at a time."""
        length, chunk = self.shape[0], self.chunks[0]
        row_nbytes = max(1, self.nbytes // max(length, 1))
        rows = max(1, ITERATED_NBYTES // row_nbytes)
        rows = max(chunk, rows // chunk * chunk) if chunk * row_nbytes <= ITERATED_NBYTES else rows
        for start in range(0, length, rows):
            yield from self[start : start + rows]

    def __repr__(self) -> str:
        field = "".join(f"[{f!r}]" for f in self._fields)
        where = plain(f"{self._root}/{self.path}{field}")
        return f"<RemoteArray {where} shape={self.shape} dtype={plain(str(self.dtype))}>"

    def _repr_html_(self) -> str:
        """A card of what is known, and of its state now, for notebooks; every text in it is escaped."""
        geometry = self._geometry
        facts = {"shape": _with_names(self.shape, self.dims), "dtype": str(self.dtype)}
        ratio = f", {self.nbytes / self.cbytes:.1f}:1" if self.cbytes and not self._fields else ""
        stored = f" ({format_nbytes(self.cbytes)} stored{ratio})" if self.cbytes else ""
        facts["size"] = f"{format_nbytes(self.nbytes)}{stored}"
        chunk_nbytes = format_nbytes(math.prod(self.chunks) * self.dtype.itemsize)
        facts["chunks"] = f"{self.chunks}, {geometry.nchunks:,} of {chunk_nbytes}, in blocks of {self.blocks}"
        if codec := self._entry.storage.get("codec"):
            facts["codec"] = str(codec)
        if modified := when_modified(self._entry.mtime_ns):
            facts["modified"] = modified
        facts["version"] = self.version
        facts |= state_rows(self)
        attrs = self.attrs if self._entry.attrs_inline else {}
        field = "".join(f"[{f!r}]" for f in self._fields)
        title = f"RemoteArray {self._root}/{self.path}{field}"
        return html_table(title, facts, attrs, chunk_picture(self.shape, self.chunks))

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return (*super().__dask_tokenize__(), repr(self._fields))


class OrthogonalIndex:
    """Indexing of each axis by itself; made by ``RemoteArray.oindex``.

    Examples
    --------
    >>> client["foo/dir1/ds-2d"].oindex[[3, 1], :3]
    array([[60, 61, 62],
           [20, 21, 22]], dtype=uint16)
    """

    def __init__(self, array: RemoteArray) -> None:
        self._array = array

    def __getitem__(self, key: Any) -> Any:
        """Read items per axis: an int, a slice, a list of ints (any order, repeats too) or a 1-d mask for each.

        Parameters
        ----------
        key : int, slice, list of int, 1-d ndarray of int or bool, ``...``, or a tuple of those
            One per axis; positions in any order, and more than once.

        Raises
        ------
        SelectionError
            When the key does not fit the array.

        Examples
        --------
        >>> client["foo/ds-1d"].oindex[[5, 5, 2]]
        array([5, 5, 2])
        """
        return self._array._read(parse_orthogonal(key, self._array.shape))

    def __repr__(self) -> str:
        return f"<oindex of {self._array!r}>"


def _is_field_key(key: Any) -> bool:
    return isinstance(key, str) or (isinstance(key, list) and bool(key) and all(isinstance(k, str) for k in key))


def _with_names(shape: tuple[int, ...], dims: tuple[str, ...] | None) -> str:
    """A shape, with the names of its axes where they have some."""
    if not dims:
        return str(shape)
    named = [f"{dims[n]}: {length:,}" if n < len(dims) else f"{length:,}" for n, length in enumerate(shape)]
    return f"({', '.join(named)})"


def _item_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.subdtype[0] if dtype.subdtype is not None else dtype


def _rebuild_view(array: RemoteArray, fields: tuple[Field, ...], cache: CachePolicy | None) -> RemoteArray:
    return RemoteArray(array._session, array.root, array.entry, fields, cache)
