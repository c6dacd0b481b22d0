"""Chunks that are decoded where they are stored, because a client could not, or not safely.

Plugins (ZFP, NDLZ, the cell filters) need the shape of a block, which a chunk does not say, so a one-chunk array
is made around it. Everything else is decoded by ``core/codec``.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import blosc2
import numpy as np

from ..core.blocks import HEADER_NBYTES
from ..core.metadata import Geometry
from ..errors import IntegrityError, UnsupportedDatasetError

__all__ = ["check_plugins", "decode_strictly", "decode_with_plugins"]

_CODEC_PACKAGES = {
    36: "blosc2_openhtj2k",
    37: "blosc2_grok",
    38: "blosc2_openzl",
    39: "blosc2_j2k",
    40: "blosc2_htj2k",
}
_BUILT_IN_CODECS = frozenset({0, 1, 2, 3, 4, 5, 32, 33, 34, 35})
_BUILT_IN_FILTERS = frozenset({0, 1, 2, 3, 4, 32, 33, 35, 36})
_USER_CODEC = 6


def check_plugins(header: bytes) -> None:
    """Can a chunk of this header be decoded here?

    Raises
    ------
    UnsupportedDatasetError
        With the package to install, where there is one. (C-Blosc2 would start a program to look for it.)
    """
    if (header[2] & 5) != 5 or len(header) < HEADER_NBYTES:
        return
    codec = header[22]
    if header[2] >> 5 == _USER_CODEC and codec not in _BUILT_IN_CODECS:
        package = _CODEC_PACKAGES.get(codec)
        if package is None:
            raise UnsupportedDatasetError(f"compressed with codec {codec}, which is not one of Blosc2's")
        if importlib.util.find_spec(package) is None:
            name = package.replace("_", "-")
            raise UnsupportedDatasetError(f"compressed with a plugin that the publisher lacks: pip install {name}")
    for number in header[16:22]:
        if number not in _BUILT_IN_FILTERS:
            raise UnsupportedDatasetError(f"compressed with filter {number}, which is not one of Blosc2's")


def decode_with_plugins(chunk: bytes, geometry: Geometry) -> bytes:
    """Decoded bytes of a full chunk, block-major and padded.

    Raises
    ------
    UnsupportedDatasetError, IntegrityError
    """
    check_plugins(chunk[:HEADER_NBYTES])
    codec = chunk[22] if chunk[2] >> 5 == _USER_CODEC else blosc2.Codec.ZSTD.value
    shape = geometry.chunks
    if codec not in _BUILT_IN_CODECS:
        _let_blosc2_find_this_python()
    try:
        cparams = blosc2.CParams(
            codec=blosc2.Codec(codec),
            codec_meta=chunk[23],
            filters=[blosc2.Filter(f) for f in chunk[16:22]],
            filters_meta=list(chunk[24:30]),
            nthreads=1,
        )
        dtype = np.dtype(f"V{geometry.itemsize}") if geometry.dtype.fields else geometry.dtype
        array = blosc2.uninit(
            shape, dtype=dtype, chunks=shape, blocks=geometry.blocks, cparams=cparams, dparams={"nthreads": 1}
        )
        array.schunk.update_chunk(0, chunk)
        return bytes(array.schunk.decompress_chunk(0))
    except (RuntimeError, ValueError, TypeError) as error:
        raise IntegrityError("a chunk does not decode with its plugin") from error


def _let_blosc2_find_this_python() -> None:
    """C-Blosc2 asks the first ``python`` of PATH for plugins: another one, where no environment is activated."""
    here = os.path.dirname(sys.executable)
    paths = os.environ.get("PATH", "").split(os.pathsep)
    if here and paths[0] != here:
        os.environ["PATH"] = os.pathsep.join([here, *paths])


def decode_strictly(chunk: bytes, nbytes: int) -> bytes:
    """Decoded bytes of a chunk that ends within an item, of which Blosc2 may leave out the last ones.

    Raises
    ------
    IntegrityError
        When it decodes to fewer than ``nbytes`` (``blosc2.decompress2`` would not say so).
    """
    try:
        frame = blosc2.SChunk(chunksize=nbytes, cparams={"typesize": max(chunk[3], 1), "nthreads": 1})
        frame.insert_chunk(0, chunk)
        raw = bytes(frame.decompress_chunk(0))
    except (RuntimeError, ValueError, TypeError) as error:
        raise IntegrityError("a chunk that ends within an item does not decode") from error
    if len(raw) != nbytes:
        raise IntegrityError("a chunk that ends within an item does not decode")
    return raw
