"""What can be uploaded, as bytes that are sent part by part: files, file objects, arrays, frames, datasets of xarray.

It knows no service; ``area_service`` sends what is made here. Arrays become Blosc2 files: small ones in memory, large
ones in a temporary file. Nothing is pickled.
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import blosc2
import numpy as np

from ..errors import UnsupportedDatasetError

__all__ = ["Body", "bodies_of"]

PART_NBYTES = 1 << 20
IN_MEMORY_NBYTES = 64 << 20
_SPARSE_INDEX = "chunks.b2frame"


@runtime_checkable
class _Reader(Protocol):
    def read(self, nbytes: int, /) -> bytes: ...


@dataclass(slots=True)
class Body:
    """One file to be.

    Attributes
    ----------
    path : str
        Relative to the goal; empty for the goal itself.
    nbytes : int or None
        None when it is not known before the end.
    parts : callable
        The bytes, from the start; called again when they have to be sent again.
    can_repeat : bool
        Can it be called again?
    """

    path: str
    nbytes: int | None
    parts: Callable[[], Iterator[bytes]]
    can_repeat: bool = True


def bodies_of(obj: object, opened: ExitStack) -> tuple[list[Body], str, str]:
    """What to send for an object.

    Parameters
    ----------
    obj : object
        A local path (``str`` or ``os.PathLike``; a directory with all that is in it), ``bytes``, a binary file object,
        a NumPy array or scalar, a ``blosc2.NDArray`` or ``SChunk``, an xarray Dataset, DataArray or DataTree, or what
        ``numpy.asarray`` takes.
    opened : ExitStack
        Removes temporary files.

    Returns
    -------
    list of Body
    str
        The name to upload it under when none is given; empty when it has none.
    str
        The suffix that its path needs, such as ``.b2nd``; empty for any. A trailing slash: it is a directory.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
    UnsupportedDatasetError
        When it cannot be uploaded.
    """
    if isinstance(obj, (str, os.PathLike)):
        return _of_path(Path(obj), opened)
    if isinstance(obj, (bytes, bytearray, memoryview)):
        return [_of_bytes(bytes(obj))], "", ""
    if isinstance(obj, blosc2.NDArray):
        return [_of_frame(obj, obj.schunk, opened)], "", ".b2nd"
    if isinstance(obj, blosc2.SChunk):
        return [_of_frame(obj, obj, opened)], "", ".b2frame"
    if isinstance(obj, io.TextIOBase):
        raise UnsupportedDatasetError("a file that was opened for text cannot be uploaded: open it with mode 'rb'")
    if isinstance(obj, _Reader):
        name = getattr(obj, "name", "")
        return [_of_reader(obj)], os.path.basename(name) if isinstance(name, str) else "", ""
    if type(obj).__module__.split(".")[0] == "xarray":
        return _of_xarray(obj, opened)
    return [_of_array(obj, opened)], "", ".b2nd"


def _of_bytes(raw: bytes) -> Body:
    def parts() -> Iterator[bytes]:
        for start in range(0, len(raw), PART_NBYTES):
            yield raw[start : start + PART_NBYTES]

    return Body("", len(raw), parts)


def _of_file(path: Path, relative: str = "") -> Body:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnsupportedDatasetError(f"{path} is not a regular file")
    nbytes = status.st_size

    def parts() -> Iterator[bytes]:
        sent = 0
        with path.open("rb") as file:
            while sent < nbytes and (part := file.read(min(PART_NBYTES, nbytes - sent))):
                sent += len(part)
                yield part
        if sent < nbytes:
            raise UnsupportedDatasetError(f"{path} became shorter while it was uploaded: try again")

    return Body(relative, nbytes, parts)


def _of_path(path: Path, opened: ExitStack) -> tuple[list[Body], str, str]:
    path = path.expanduser()
    name = path.name or path.resolve().name
    if not path.is_dir():
        return [_of_file(path)], name, ""
    if (path / _SPARSE_INDEX).is_file():
        # A frame in a directory: one file says the same.
        frame = blosc2.open(str(path), mode="r")
        schunk = frame.schunk if isinstance(frame, blosc2.NDArray) else frame
        return [_of_frame(frame, schunk, opened)], name, ".b2nd" if isinstance(frame, blosc2.NDArray) else ".b2frame"
    bodies: list[Body] = []
    for directory, names, files in os.walk(path):
        names.sort()
        for below in list(names):
            inner = Path(directory, below)
            if (inner / _SPARSE_INDEX).is_file():
                names.remove(below)
                ((body,), _, _) = _of_path(inner, opened)
                body.path = inner.relative_to(path).as_posix()
                bodies.append(body)
        for file in sorted(files):
            inner = Path(directory, file)
            if inner.is_file():
                bodies.append(_of_file(inner, inner.relative_to(path).as_posix()))
    return bodies, name, "/"


def _of_reader(file: _Reader) -> Body:
    start: int | None = None
    nbytes: int | None = None
    try:
        seekable = cast("io.BufferedIOBase", file)
        if seekable.seekable():
            start = seekable.tell()
            nbytes = seekable.seek(0, os.SEEK_END) - start
            seekable.seek(start)
    except (AttributeError, OSError):
        start = nbytes = None

    def parts() -> Iterator[bytes]:
        if start is not None:
            cast("io.BufferedIOBase", file).seek(start)
        sent = 0
        while (nbytes is None or sent < nbytes) and (part := file.read(PART_NBYTES)):
            if not isinstance(part, bytes):
                raise UnsupportedDatasetError("a file object to be uploaded has to give bytes: open it with mode 'rb'")
            sent += len(part)
            yield part

    return Body("", nbytes, parts, can_repeat=start is not None)


def _of_frame(frame: Any, schunk: blosc2.SChunk, opened: ExitStack) -> Body:
    urlpath = schunk.urlpath
    if schunk.contiguous and urlpath and os.path.isfile(urlpath):
        return _of_file(Path(urlpath))
    if schunk.cbytes <= IN_MEMORY_NBYTES:
        return _of_bytes(bytes(frame.to_cframe()))
    path = _temporary(opened) / "array"
    frame.copy(urlpath=str(path), contiguous=True, mode="w")
    return _of_file(path)


def _of_array(obj: object, opened: ExitStack) -> Body:
    array = np.asarray(obj)
    if array.dtype.hasobject:
        array = _without_objects(array)
    array = np.ascontiguousarray(array) if array.ndim else array
    try:
        if array.nbytes <= IN_MEMORY_NBYTES:
            return _of_bytes(bytes(blosc2.asarray(array).to_cframe()))
        path = _temporary(opened) / "array"
        blosc2.asarray(array, urlpath=str(path), contiguous=True, mode="w")
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise UnsupportedDatasetError(f"an array of dtype {array.dtype} cannot be uploaded: {error}") from error
    return _of_file(path)


def _without_objects(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.size and all(isinstance(item, str) for item in array.ravel().tolist()):
        return array.astype(str)
    raise UnsupportedDatasetError(
        f"an array of Python objects ({array.dtype}) cannot be uploaded: give it a dtype of numbers or strings"
    )


def _of_xarray(obj: object, opened: ExitStack) -> tuple[list[Body], str, str]:
    # Found when it is needed: the client does without xarray, and what knows datasets is built on the client.
    write = import_module("..xarray_backend.writing", __package__).to_caterva2
    directory = _temporary(opened) / "dataset"
    write(obj, directory)
    bodies, _, suffix = _of_path(directory, opened)
    name = getattr(obj, "name", None)
    return bodies, name if isinstance(name, str) else "", suffix


def _temporary(opened: ExitStack) -> Path:
    return Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="caterva2-")))
