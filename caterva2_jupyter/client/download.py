"""A dataset as a local file: the stored one, byte for byte, or a native ``.b2nd`` made from its chunks.

Everything is written beside its goal and renamed into place when it is complete: a broken download leaves
nothing behind. It decides no names but the default one.
"""

from __future__ import annotations

import errno
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..compute.stored_expression import expression_of
from ..core.attributes import decode_attrs
from ..core.dtypes import is_vlen
from ..core.metadata import Entry, Geometry
from ..core.paths import name as last_name
from ..core.selection import AxisRange, Selection
from ..errors import (
    Caterva2Error,
    IntegrityError,
    SourceUnavailableError,
    TooLargeError,
    UnsupportedDatasetError,
)
from .progress import Progress, telling
from .reader import changed
from .session import Session
from .transport import Answer

__all__ = ["download", "write_sealed"]

SLAB_NBYTES = 64 << 20
MAX_STRINGS_NBYTES = 1 << 30
SPARE_NBYTES = 1 << 20

_CURES = {
    errno.ENOSPC: "no room is left on that disk: make some, or write to another one (nothing was written)",
    errno.EDQUOT: "your quota of that disk is used up: make room, or write to another one (nothing was written)",
    errno.EROFS: "that file system is read-only: give another directory",
    errno.EACCES: "no permission to write there: give another directory",
    errno.EPERM: "no permission to write there: give another directory",
    errno.ENAMETOOLONG: "the name is too long for that file system: give another one",
}


def download(
    session: Session,
    root: str,
    entry: Entry,
    path: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a dataset to a local file; see ``RemoteDataset.download``."""
    goal = _goal(entry, path)
    _make_directory(goal.parent)
    with telling(progress, session.bars, goal.name) as progress, _in_place(goal) as temporary:
        try:
            if expression_of(entry) is not None:
                raise UnsupportedDatasetError(f"{root}/{entry.path} is computed: what is stored has no values")
            _copy_stored(session, root, entry, temporary, progress)
        except (UnsupportedDatasetError, SourceUnavailableError) as error:
            # Not a file of its own, or its publisher is away: the blocks may be there all the same.
            if entry.geometry is None:
                raise
            if entry.kind == "file" and isinstance(error, SourceUnavailableError):
                _write_bytes(session, root, entry, temporary, progress)
            else:
                _write_array(session, root, entry, entry.geometry, temporary, progress)
    return goal


def write_sealed(
    session: Session,
    root: str,
    entry: Entry,
    path: str | os.PathLike[str] | None,
    open_sealed: Callable[[], Answer],
    check_complete: Callable[[], None],
    progress: Progress | None = None,
) -> Path:
    """Write a dataset as a ``.b2nd`` from the blocks that a service has cached; see ``Prefetching.seal``.

    Parameters
    ----------
    open_sealed : callable
        Opens the file that the service makes; raises `UnsupportedDatasetError` where it can make none.
    check_complete : callable
        Called before the file is made here from values instead.
    """
    goal = _goal(entry, path, suffix=".b2nd")
    _make_directory(goal.parent)
    with telling(progress, session.bars, goal.name) as progress, _in_place(goal) as temporary:
        try:
            with open_sealed() as answer, temporary.open("wb") as sink:
                done, total = 0, int(answer.headers.get("Content-Length", "0") or 0)
                for part in answer.parts():
                    sink.write(part)
                    done += len(part)
                    if progress is not None:
                        progress(done, total)
            if done != total:
                raise IntegrityError(f"{root}/{entry.path}: {done} bytes came, {total} were announced")
        except UnsupportedDatasetError:
            check_complete()
            if entry.geometry is None:
                raise
            _write_array(session, root, entry, entry.geometry, temporary, progress)
    return goal


def _goal(entry: Entry, path: str | os.PathLike[str] | None, suffix: str = "") -> Path:
    name = last_name(entry.path)
    if suffix and not name.endswith(suffix):
        name += suffix
    if path is None:
        return Path(name)
    goal = Path(path)
    if goal.is_dir() or str(path).endswith(("/", os.sep)):
        goal /= name
    if goal.exists() and not goal.is_file():
        # Renaming over it would take a device or a socket away from everybody.
        raise FileExistsError(errno.EEXIST, "not a file that can be replaced: give another path", str(goal))
    return goal


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "a file, not a directory: give another path", str(path)) from None
    except OSError as error:
        raise _told(error, str(error.filename or path)) from None


def _told(error: OSError, path: str) -> OSError:
    """The error with what to do about it."""
    number = error.errno or 0
    return OSError(number, _CURES.get(number, error.strerror), path)


@contextmanager
def _in_place(goal: Path) -> Iterator[Path]:
    """A temporary name beside ``goal`` that becomes it when all went well; errors name the goal, and what to do."""
    temporary = goal.with_name(f".{goal.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        temporary.touch()  # what cannot be written is said before anything is asked for
        yield temporary
        os.replace(temporary, goal)
    except OSError as error:
        if isinstance(error, Caterva2Error) or error.errno is None:
            raise
        raise _told(error, str(goal)) from None
    finally:
        with suppress(OSError):  # of a file system that is read-only, there is nothing to remove
            temporary.unlink(missing_ok=True)


def _copy_stored(session: Session, root: str, entry: Entry, goal: Path, progress: Progress | None) -> None:
    """Copy the stored bytes, going on where a broken connection ended."""
    done, total = 0, 0
    retries = session.service.transport.timeouts.retries
    with goal.open("wb") as sink:
        while True:
            start = done
            try:
                with session.service.file(root, entry.path, start, entry.version) as answer:
                    _check_version(root, entry, answer.headers)
                    total = start + int(answer.headers.get("Content-Length", "0") or 0)
                    for part in answer.parts():
                        sink.write(part)
                        done += len(part)
                        if progress is not None:
                            progress(done, total)
            except SourceUnavailableError:
                if done == start or retries <= 0:
                    raise
                retries -= 1
                continue
            if total and done != total:
                raise IntegrityError(f"{root}/{entry.path}: {done} bytes came, {total} were announced")
            break
    if progress is not None:
        progress(done, total or done)


def _check_version(root: str, entry: Entry, headers: Mapping[str, str]) -> None:
    tag = headers.get("ETag", "").removeprefix("W/").strip('"')
    if tag and entry.version and tag != entry.version:
        raise changed(root, entry)


def _write_bytes(session: Session, root: str, entry: Entry, goal: Path, progress: Progress | None) -> None:
    """A plain file from its blocks."""
    with goal.open("wb") as sink:
        for _, slab in _slabs(session, root, entry, progress):
            sink.write(slab.tobytes())


def _slabs(
    session: Session, root: str, entry: Entry, progress: Progress | None
) -> Iterator[tuple[tuple[slice, ...], np.ndarray[Any, np.dtype[Any]]]]:
    """The array in boxes of whole chunks, each with its place."""
    geometry = entry.geometry
    assert geometry is not None
    done = 0
    for box in _boxes(geometry):
        out = session.reader.read(root, entry, Selection(box), _from(done, geometry.nbytes, progress))
        yield tuple(slice(a.start, a.stop) for a in box), out
        done += out.size * geometry.itemsize
        if progress is not None:
            progress(done, geometry.nbytes)


def _from(before: int, total: int, progress: Progress | None) -> Progress | None:
    """A callback for a part that begins after ``before`` bytes of ``total``."""
    return None if progress is None else lambda done, _: progress(before + done, total)


def _boxes(geometry: Geometry) -> Iterator[tuple[AxisRange, ...]]:
    """Boxes that are whole chunks, some along the last axes together, in C order."""
    if 0 in geometry.shape:
        return
    counts, nbytes = [1] * geometry.ndim, max(1, math.prod(geometry.chunks) * max(geometry.itemsize, 1))
    for axis in range(geometry.ndim - 1, -1, -1):
        fit = max(1, min(geometry.grid[axis], SLAB_NBYTES // nbytes))
        counts[axis], nbytes = fit, nbytes * fit
        if fit < geometry.grid[axis]:
            break
    steps = [c * n for c, n in zip(geometry.chunks, counts, strict=True)]
    numbers = [range(0, n, s) for n, s in zip(geometry.shape, steps, strict=True)]
    for index in np.ndindex(*[len(n) for n in numbers]):
        starts = [n[i] for n, i in zip(numbers, index, strict=True)]
        yield tuple(AxisRange(a, min(a + s, n)) for a, s, n in zip(starts, steps, geometry.shape, strict=True))


def _write_array(
    session: Session, root: str, entry: Entry, geometry: Geometry, goal: Path, progress: Progress | None
) -> None:
    """A native ``.b2nd``: same shape and chunks, compressed again (ZSTD with shuffle), attributes as vlmeta."""
    import blosc2

    attrs = decode_attrs(session.complete(root, entry).attrs)
    named = goal.with_suffix(".b2nd")  # blosc2 tells what a file is by its name
    try:
        if is_vlen(geometry.dtype):
            strings = _fixed_width(session, root, entry, geometry, progress)
            with _written_by_blosc2(goal, strings.nbytes):
                array = blosc2.asarray(strings, urlpath=str(named), mode="w")
        else:
            cparams = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1)
            with _written_by_blosc2(goal, 0):
                array = blosc2.empty(
                    geometry.shape,
                    dtype=geometry.dtype,
                    urlpath=str(named),
                    mode="w",
                    cparams=cparams,
                    **_partitions(geometry),
                )
            for place, slab in _slabs(session, root, entry, progress):
                with _written_by_blosc2(goal, slab.nbytes):
                    array[place] = slab
        with _written_by_blosc2(goal, 0):
            for key, value in attrs.items():
                _set_vlmeta(array.schunk.vlmeta, key, value)
            if entry.dims is not None and "dims" not in attrs:
                array.schunk.vlmeta["dims"] = list(entry.dims)
        del array
        os.replace(named, goal)
    finally:
        with suppress(OSError):
            named.unlink(missing_ok=True)


@contextmanager
def _written_by_blosc2(goal: Path, nbytes: int) -> Iterator[None]:
    """Blosc2 says no more than that it failed: what the disk has left says why."""
    try:
        yield
    except RuntimeError as error:
        is_full = shutil.disk_usage(goal.parent).free < nbytes + SPARE_NBYTES
        raise OSError(errno.ENOSPC if is_full else errno.EIO, f"Blosc2 cannot write it ({error})", str(goal)) from None


def _partitions(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """Chunk and block shapes of the file: those of the dataset where a ``.b2nd`` can have them."""
    if geometry.ndim == 0 or 0 in geometry.shape:
        return {}
    chunks = tuple(min(c, n) for c, n in zip(geometry.chunks, geometry.shape, strict=True))
    if geometry.layout == "flat":
        return {"chunks": chunks}
    return {"chunks": chunks, "blocks": tuple(min(b, c) for b, c in zip(geometry.blocks, chunks, strict=True))}


def _fixed_width(
    session: Session, root: str, entry: Entry, geometry: Geometry, progress: Progress | None
) -> np.ndarray[Any, np.dtype[Any]]:
    """Strings of variable length as ``<U``: a ``.b2nd`` has no other form for them."""
    strings = session.reader.read(root, entry, Selection.whole(geometry.shape), progress)
    width = max((len(s) for s in strings.ravel().tolist()), default=0)
    if strings.size * width * 4 > MAX_STRINGS_NBYTES:
        raise TooLargeError(
            f"{root}/{entry.path}: {strings.size} strings of up to {width} characters do not fit a .b2nd of 1 GiB; "
            "download the HDF5 file that holds them"
        )
    return strings.astype(f"<U{max(width, 1)}")


def _set_vlmeta(vlmeta: Any, key: str, value: object) -> None:
    """Keep an attribute, in the nearest form that vlmeta can hold."""
    if isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    try:
        vlmeta[key] = value
    except (TypeError, ValueError, OverflowError):
        vlmeta[key] = repr(value)
