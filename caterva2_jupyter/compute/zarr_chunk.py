"""One chunk of the Zarr view: decoded, padded to the chunk's shape, encoded as its metadata says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.dtypes import is_vlen
from ..errors import UnsupportedDatasetError
from .boxes import Answer, read_box
from .records import Buffer
from .zarr_metadata import codecs, packed_dtype

__all__ = ["zarr_chunk"]


def zarr_chunk(arguments: Mapping[str, Any], parts: Iterator[Sequence[Buffer]]) -> Answer:
    """The bytes of a chunk: arguments of ``boxes.read_box`` and ``chunk_shape``."""
    geometry, box = read_box(arguments, parts)
    shape = tuple(int(n) for n in arguments["chunk_shape"])
    if is_vlen(geometry.dtype):
        return {}, [_strings(box, shape)]
    packed = packed_dtype(geometry.dtype)
    chunk = np.zeros(shape, packed)
    chunk[tuple(slice(n) for n in box.shape)] = box.astype(packed, copy=False)
    return {}, [_blosc(chunk, codecs(geometry.dtype)[-1]["configuration"])]


def _numcodecs() -> Any:
    try:
        import numcodecs
    except ModuleNotFoundError:
        raise UnsupportedDatasetError(
            "the Zarr view needs numcodecs: pip install 'caterva2-jupyter[subscriber]' where the subscriber runs"
        ) from None
    return numcodecs


def _blosc(chunk: npt.NDArray[Any], configuration: Mapping[str, Any]) -> bytes:
    numcodecs = _numcodecs()
    shuffle = numcodecs.Blosc.SHUFFLE if configuration["shuffle"] == "shuffle" else numcodecs.Blosc.NOSHUFFLE
    codec = numcodecs.Blosc(configuration["cname"], configuration["clevel"], shuffle)
    raw = np.frombuffer(chunk.tobytes(), f"V{configuration['typesize']}" if _divides(chunk, configuration) else "u1")
    return bytes(codec.encode(raw))


def _divides(chunk: npt.NDArray[Any], configuration: Mapping[str, Any]) -> bool:
    return chunk.nbytes % int(configuration["typesize"]) == 0


def _strings(box: npt.NDArray[Any], shape: tuple[int, ...]) -> bytes:
    numcodecs = _numcodecs()
    chunk = np.full(shape, "", object)
    chunk[tuple(slice(n) for n in box.shape)] = box
    encoded = numcodecs.VLenUTF8().encode(chunk.reshape(-1))
    return bytes(numcodecs.Zstd(level=1).encode(encoded))
