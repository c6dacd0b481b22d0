"""``to_caterva2``: a Dataset or DataTree as a directory of ``.b2nd`` files that opens back identical when it is served.

Groups are directories, variables files with their dimensions and attributes as metalayers; the attributes of a group
stand in the file that ``core.group_file`` describes. Arrays are computed and written some chunks at a time, and the
directory appears when it is complete. How values are encoded is ``encoding``'s.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.conventions import encode_dataset_coordinates

from ..client.progress import Progress, find_bars, telling
from ..core.exact_attributes import MAX_METALAYERS, to_metalayers
from ..core.group_file import GROUP_FILE, format_group_file
from .encoding import STORAGE_KEYS, check_encoding_keys, encode_variable

__all__ = ["to_caterva2"]

CHUNK_NBYTES = 8 << 20
MAX_CHUNK_NBYTES = 128 << 20
BATCH_NBYTES = 128 << 20
MAX_NDIM = 16
MAX_NAME_NBYTES = 240
_DIMENSIONS = "_ARRAY_DIMENSIONS"
_NAMES_AXES = (_DIMENSIONS, "dims")
# A directory of such a name is something else to a publisher, or nothing.
_TAKEN = (".b2nd", ".b2frame", ".b2f", ".b2z", ".b2d", ".b2e", ".tmp", ".part", "~")


def to_caterva2(
    ds: xr.Dataset | xr.DataTree | xr.DataArray,
    path: str | os.PathLike[str],
    mode: str = "w-",
    encoding: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    unlimited_dims: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a Dataset or DataTree as a directory that a publisher serves, and that opens back identical.

    Parameters
    ----------
    ds : xarray.Dataset, DataTree or DataArray
        Dask arrays are computed some chunks at a time: memory stays bounded.
    path : str or os.PathLike
        The directory to make, on this machine. It appears when it is complete.
    mode : {"w-", "w"}
        ``w-`` refuses a path that is there; ``w`` replaces a directory that this function made.
    encoding : mapping, optional
        By variable (``group/variable`` in a tree): ``chunks``, ``blocks`` (tuples of int), ``cparams`` (dict for
        ``blosc2.CParams``), and CF's ``dtype``, ``_FillValue``, ``scale_factor``, ``add_offset``, ``units``,
        ``calendar``. It is added to what the variables have themselves. Strings of variable length: ``dtype`` ``"S20"``
        saves the pass that finds the longest one.
    unlimited_dims : sequence of str, optional
        Those that the dataset was opened with, by default.
    progress : callable, optional
        Called with ``(done_nbytes, total_nbytes)`` of decoded bytes. Without it, in notebooks, a bar after a second.

    Returns
    -------
    pathlib.Path
        The directory.

    Raises
    ------
    FileExistsError
        When the path is there, or is not one to be replaced.
    ValueError
        For an unknown mode, variable or encoding, a name that no file can have, over 16 dimensions.
    TypeError
        For objects that are no strings or dates, and attributes that have no form; the message names them.
    OSError
        When the directory cannot be written.

    Notes
    -----
    Dates without ``units`` in their encoding, bools, complex numbers and structured values are kept as they are.
    Where dask's chunks are not those of the file, they are rechunked.

    Examples
    --------
    >>> import xarray as xr
    >>> ds = xr.Dataset({"t": ("x", np.arange(3.0), {"units": "K"})})
    >>> where = cat2.to_caterva2(ds, "run1")
    >>> sorted(file.name for file in where.iterdir())
    ['.caterva2-group.json', 't.b2nd']
    """
    goal = _goal(path, mode)
    groups = _groups(ds)
    asked = _asked(groups, encoding or {})
    files = [file for at, group in groups.items() for file in _files(at, group, asked, unlimited_dims)]
    _make_directory(goal.parent)
    unfinished = goal.with_name(f".caterva2-{goal.name[:100]}-{secrets.token_hex(4)}")
    try:
        _make_directory(unfinished)
        with telling(progress, find_bars(None), goal.name) as progress:
            _write_all(unfinished, groups, files, unlimited_dims, progress)
        _put_in_place(unfinished, goal, mode)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return goal


def _goal(path: str | os.PathLike[str], mode: str) -> Path:
    if mode not in ("w-", "w"):
        raise ValueError(f"mode {mode!r} is neither 'w-' (a new directory) nor 'w' (replace one)")
    text = os.fspath(path)
    if "://" in text:
        raise ValueError(f"{text!r} is an address: write a local directory, and publish it with cat2pub NAME DIRECTORY")
    goal = Path(text)
    if os.path.lexists(goal):
        if mode == "w-":
            raise FileExistsError(f"'{goal}' exists already: remove it, choose another path, or give mode='w'")
        if not (goal / GROUP_FILE).is_file():
            raise FileExistsError(f"'{goal}' was not made by to_caterva2() and is not replaced: choose another path")
    return goal


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"cannot make the directory ({error.strerror}): choose a path that you may write to"
        raise type(error)(error.errno, reason, str(directory)) from None


def _put_in_place(unfinished: Path, goal: Path, mode: str) -> None:
    if mode == "w" and goal.exists():
        old = goal.with_name(f".caterva2-old-{secrets.token_hex(4)}")
        os.replace(goal, old)
        os.replace(unfinished, goal)
        shutil.rmtree(old, ignore_errors=True)
        return
    if os.path.lexists(goal):  # it came while we wrote; an empty directory would be replaced in silence
        raise FileExistsError(f"'{goal}' exists already: remove it, choose another path, or give mode='w'")
    os.replace(unfinished, goal)


def _groups(ds: object) -> dict[str, xr.Dataset]:
    """Datasets by the path of their group, ``""`` for the top one."""
    if isinstance(ds, xr.DataArray):
        if ds.name is None:
            raise ValueError("a DataArray needs a name to be written: array.rename('t')")
        return {"": ds.to_dataset()}
    if isinstance(ds, xr.Dataset):
        return {"": ds}
    if isinstance(ds, xr.DataTree):
        return {node.relative_to(ds).strip("."): node.to_dataset(inherit=False) for node in ds.subtree}
    raise TypeError(f"to_caterva2() writes a Dataset, DataTree or DataArray, not {type(ds).__name__}")


def _asked(
    groups: Mapping[str, xr.Dataset], encoding: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], dict[str, Any]]:
    """What the user says of encodings, by group and variable."""
    asked: dict[tuple[str, str], dict[str, Any]] = {}
    for address, wanted in encoding.items():
        at, _, name = str(address).strip("/").rpartition("/")
        if at not in groups or name not in groups[at].variables:
            known = sorted(f"{g}/{n}".lstrip("/") for g, group in groups.items() for n in map(str, group.variables))
            shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
            raise ValueError(f"encoding names {address!r}, which is not a variable; there are: {shown or 'none'}")
        check_encoding_keys(str(address), wanted)
        asked[at, name] = dict(wanted)
    return asked


@dataclass(frozen=True, slots=True)
class _File:
    """A variable as it is written: ``chunks`` of the file; ``step``, whole chunks, is what is computed at once."""

    path: str
    variable: xr.Variable
    layers: Mapping[str, Any]
    chunks: tuple[int, ...]
    step: tuple[int, ...]
    settings: Mapping[str, Any]


def _check_name(name: object, group: str, is_group: bool = False) -> str:
    where = f" in group {group!r}" if group else ""
    what = "group" if is_group else "variable"
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} {name!r}{where} has a name that is not text: rename it")
    is_hidden = name.startswith(".") or (is_group and name.lower().endswith(_TAKEN))
    is_control = any(ord(char) < 32 or char in "/\\\x7f" or 0xD800 <= ord(char) < 0xE000 for char in name)
    if is_hidden or is_control or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_NBYTES:
        raise ValueError(f"{what} {name!r}{where} has a name that no published file can have: rename it")
    return name


def _files(
    at: str,
    group: xr.Dataset,
    asked: Mapping[tuple[str, str], dict[str, Any]],
    unlimited_dims: Sequence[str] | None,
) -> Iterator[_File]:
    for name in at.split("/") if at else []:
        _check_name(name, at, is_group=True)
    for dim in unlimited_dims or ():
        if not at and dim not in group.dims:
            known = ", ".join(map(str, group.dims)) or "none"
            raise ValueError(f"unlimited_dims names {dim!r}, which is not a dimension; there are: {known}")
    variables, _ = encode_dataset_coordinates(group)
    for label, variable in variables.items():
        name = _check_name(label, at)
        address = f"{at}/{name}".lstrip("/")
        wanted = asked.get((at, name), {})
        for taken in _NAMES_AXES:
            if taken in variable.attrs:
                raise ValueError(f"attribute {taken!r} of variable {address!r} is what names axes here: rename it")
        source = _lazy(variable.to_base_variable())
        encoded = encode_variable(address, source, wanted)
        if encoded.ndim > MAX_NDIM:
            raise ValueError(f"variable {address!r} has {encoded.ndim} dimensions, a Blosc2 array at most {MAX_NDIM}")
        chunks = _chunks(address, encoded, variable, wanted)
        yield _File(
            f"{address}.b2nd", encoded, _layers(address, encoded), chunks, _step(encoded, chunks), _settings(wanted)
        )


def _lazy(variable: xr.Variable) -> xr.Variable:
    """The variable such that encoding reads none of it, where it is large and not in memory."""
    if variable.nbytes <= BATCH_NBYTES or variable.chunks is not None or isinstance(variable._data, np.ndarray):
        return variable
    try:
        import dask.array  # noqa: F401
    except ImportError:
        return variable
    return variable.chunk(dict(zip(variable.dims, _default_chunks(variable.shape, variable.dtype), strict=True)))


def _layers(address: str, variable: xr.Variable) -> dict[str, Any]:
    for name, value in variable.attrs.items():
        try:
            to_metalayers({str(name): value})
        except TypeError as error:
            where = f"attribute {name!r} of variable {address!r}"
            raise TypeError(f"{where} cannot be written ({error}): make it a number, text or array") from None
    layers = to_metalayers({str(k): v for k, v in variable.attrs.items()}, MAX_METALAYERS - 1)
    return {_DIMENSIONS: [str(dim) for dim in variable.dims], **layers}


def _settings(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {key: wanted[key] for key in STORAGE_KEYS if key != "chunks" and wanted.get(key) is not None}


def _chunks(address: str, encoded: xr.Variable, original: xr.Variable, wanted: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of the file's chunks: as asked, as dask has them, as they were in the file it came from, or our own."""
    shape = encoded.shape
    given = wanted.get("chunks", wanted.get("chunksizes"))
    sizes: Sequence[Any]
    if given is not None:
        sizes = tuple(given) if isinstance(given, (list, tuple)) else ()
        fits = len(sizes) == len(shape) and all(isinstance(n, (int, np.integer)) and n > 0 for n in sizes)
        if not fits or math.prod(sizes) * encoded.dtype.itemsize >= 2**31:
            raise ValueError(f"chunks={given!r} do not fit variable {address!r} of shape {shape}: a number above 0 "
                             "for each axis, under 2 GiB in all")  # fmt: skip
        return _clipped(sizes, shape)
    candidates: list[Sequence[Any]] = []
    if encoded.chunks is not None:
        candidates.append([max(along, default=1) for along in encoded.chunks])
    stored = original.encoding.get("preferred_chunks")
    if isinstance(stored, Mapping) and set(stored) == set(original.dims):
        candidates.append([stored[dim] for dim in original.dims])
    candidates.append(original.encoding.get("chunksizes") or ())
    for sizes in candidates:
        if len(sizes) == len(shape) and all(isinstance(n, (int, np.integer)) and n > 0 for n in sizes):
            nbytes = math.prod(int(n) for n in _clipped(sizes, shape)) * encoded.dtype.itemsize
            if nbytes <= MAX_CHUNK_NBYTES:
                return _clipped(sizes, shape)
    return _default_chunks(shape, encoded.dtype)


def _clipped(sizes: Sequence[Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(1, min(int(size), length)) for size, length in zip(sizes, shape, strict=True))


def _default_chunks(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Chunks of about 8 MiB, their longest axis halved again and again."""
    sizes = [max(1, n) for n in shape]
    while sizes and math.prod(sizes) * dtype.itemsize > CHUNK_NBYTES and max(sizes) > 1:
        axis = sizes.index(max(sizes))
        sizes[axis] = -(-sizes[axis] // 2)
    return tuple(sizes)


def _step(variable: xr.Variable, chunks: tuple[int, ...]) -> tuple[int, ...]:
    """What is computed at once: dask's chunks, rounded up to whole ones of the file; some of the file's elsewhere."""
    if variable.chunks is not None:
        wide = [max(along, default=1) for along in variable.chunks]
        return tuple(-(-w // c) * c for w, c in zip(wide, chunks, strict=True))
    step = list(chunks)
    nbytes = math.prod(step) * variable.dtype.itemsize
    for axis in range(len(step) - 1, -1, -1):
        factor = max(1, min(BATCH_NBYTES // 4 // max(nbytes, 1), -(-variable.shape[axis] // step[axis])))
        step[axis] *= factor
        nbytes *= factor
    return tuple(step)


def _write_all(
    directory: Path,
    groups: Mapping[str, xr.Dataset],
    files: Sequence[_File],
    unlimited_dims: Sequence[str] | None,
    progress: Progress | None,
) -> None:
    for at, group in groups.items():
        (directory / at).mkdir(parents=True, exist_ok=True)
        _, attrs = encode_dataset_coordinates(group)
        dims = unlimited_dims if unlimited_dims is not None else group.encoding.get("unlimited_dims", ())
        kept = [str(dim) for dim in dims if dim in group.dims]
        try:
            raw = format_group_file({str(name): value for name, value in attrs.items()}, sorted(kept))
        except TypeError as error:
            raise TypeError(f"an attribute of {at or 'the dataset'!r} cannot be written: {error}") from None
        (directory / at / GROUP_FILE).write_bytes(raw)
    total = sum(file.variable.nbytes for file in files)
    done = 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, total)

    for file in files:
        _write(directory / file.path, file, advance)


def _write(path: Path, file: _File, advance: Callable[[int], None]) -> None:
    import blosc2

    variable = file.variable
    settings: dict[str, Any] = {"urlpath": str(path), "mode": "w", **file.settings}
    cparams = settings.pop("cparams", None) or {}
    settings["cparams"] = cparams if isinstance(cparams, blosc2.CParams) else blosc2.CParams(**cparams)
    if variable.ndim == 0:
        settings.pop("blocks", None)
        array = blosc2.asarray(np.asarray(variable.values, dtype=variable.dtype), **settings)
        advance(variable.nbytes)
    else:
        if 0 not in variable.shape:
            settings["chunks"] = file.chunks
        array = blosc2.empty(variable.shape, dtype=variable.dtype, **settings)
        for place, values in _parts(variable, file.step):
            array[place] = np.ascontiguousarray(values)
            advance(values.nbytes)
    for name, value in file.layers.items():
        array.schunk.vlmeta[name] = value


def _parts(variable: xr.Variable, step: tuple[int, ...]) -> Iterator[tuple[tuple[slice, ...], Any]]:
    """The values in boxes of whole chunks with their places; of a dask array some at a time, together."""
    if 0 in variable.shape:
        return
    starts = [range(0, n, s) for n, s in zip(variable.shape, step, strict=True)]
    places = [
        tuple(slice(r[i], min(r[i] + s, n)) for r, i, s, n in zip(starts, index, step, variable.shape, strict=True))
        for index in np.ndindex(*[len(r) for r in starts])
    ]
    if variable.chunks is None:
        for place in places:
            yield place, variable[place].values
        return
    from dask.base import compute

    together: Any = compute
    data: Any = variable._data
    data = data.rechunk(step)
    count = max(1, BATCH_NBYTES // max(1, math.prod(step) * variable.dtype.itemsize))
    for first in range(0, len(places), count):
        batch = places[first : first + count]
        yield from zip(batch, together(*[data[place] for place in batch]), strict=True)
