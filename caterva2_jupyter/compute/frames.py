"""Blosc2 frames and chunks for the old REST interface, made from records.

They are made whole, in memory: whoever asks has checked their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from ..core.attributes import decode_attrs
from ..core.dtypes import is_vlen
from ..core.legacy import chunk_bytes
from ..core.metadata import Entry
from ..errors import TooLargeError, UnsupportedDatasetError
from .boxes import Answer, keyed, read_box
from .records import Buffer, unpack_records

__all__ = ["array_frame", "chunk", "frame"]

_CHUNK_NBYTES = 16 << 20


def frame(arguments: Mapping[str, Any], parts: Iterator[Sequence[Buffer]]) -> Answer:
    """The contiguous frame of a slice, or of a dataset: of an array an array, of bytes a plain super-chunk.

    Parameters
    ----------
    arguments : mapping
        As of ``boxes.read_box`` and ``boxes.keyed``; ``path``, ``kind`` of the entry, ``max_nbytes``; ``attrs`` of a
        whole dataset, whose partition is kept.
    """
    geometry, box = read_box(arguments, parts)
    items = keyed(arguments, geometry, box)
    path = arguments["path"]
    if arguments["kind"] == "file":
        return {}, [_bytes_frame(items, geometry.itemsize)]
    plain = _plain(items, path, arguments["max_nbytes"])
    if "attrs" not in arguments:
        return {}, [array_frame(plain, path)]
    same = geometry.layout == "nd" and not is_vlen(geometry.dtype) and geometry.size > 0
    partition = {"chunks": geometry.chunks, "blocks": geometry.blocks} if same else {}
    return {}, [array_frame(plain, path, arguments["attrs"], **partition)]


def chunk(arguments: Mapping[str, Any], buffers: Sequence[Buffer]) -> Answer:
    """Chunk ``nchunk`` of ``entry`` as a super-chunk of that dataset holds it, compressed."""
    entry = Entry.from_json(arguments["entry"])
    return {}, [chunk_bytes(entry, arguments["nchunk"], unpack_records(buffers))]


def array_frame(
    array: npt.NDArray[Any], path: str, attrs: Mapping[str, Any] | None = None, **partition: tuple[int, ...]
) -> bytes:
    """An array as a frame, with attributes (JSON forms) as ``vlmeta``.

    Raises
    ------
    UnsupportedDatasetError
        When Blosc2 has no frame for it.
    """
    cparams = _cparams(max(array.dtype.itemsize, 1))
    try:
        framed = blosc2.asarray(np.asarray(array, order="C"), cparams=cparams, **partition)
        for name, value in decode_attrs(attrs or {}).items():
            framed.schunk.vlmeta[name] = _packable(value)
        return bytes(framed.to_cframe())
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise UnsupportedDatasetError(f"{path!r} of dtype {array.dtype} cannot be put in a frame: {error}") from error


def _plain(array: npt.NDArray[Any], path: str, max_nbytes: int) -> npt.NDArray[Any]:
    """Strings of variable length as strings of one length, the only form that a frame has for them."""
    if array.dtype.kind != "O":
        return array
    width = max(map(len, array.ravel().tolist()), default=1) or 1
    if array.size * width * 4 > max_nbytes:
        raise TooLargeError(f"the strings of {path!r} are too long for a frame: ask for a smaller slice")
    return array.astype(f"<U{width}")


def _cparams(typesize: int) -> Any:
    return blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, typesize=typesize if typesize <= 255 else 1, nthreads=1)


def _packable(value: Any) -> Any:
    """What msgpack can write: NumPy's values as Python's."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _bytes_frame(items: npt.NDArray[Any], typesize: int) -> bytes:
    raw = items.tobytes()
    chunk_nbytes = max(typesize, min(len(raw), _CHUNK_NBYTES) // typesize * typesize)
    return bytes(blosc2.SChunk(chunksize=chunk_nbytes, data=raw, cparams=_cparams(typesize)).to_cframe())
