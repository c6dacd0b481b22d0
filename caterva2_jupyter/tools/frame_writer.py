"""A ``.b2nd`` written chunk by chunk, in any order, from chunks that are compressed already.

python-blosc2 writes the index of a file over again with each chunk; here it is written once, at the end, and a file
stands under its name only when it is complete. What goes in is checked by the caller.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import blosc2
import numpy as np

from ..core.metadata import Geometry
from ..storage.frame_format import TRAILER_TAIL_NBYTES, header_nbytes, trailer_nbytes

__all__ = ["FrameWriter"]

_FRAME_NBYTES_AT, _CBYTES_AT = 16, 39
_ZEROS = -(1 << 63) + (1 << 56)  # the special offset of a chunk of zeros
_SPECIAL_MASK, _SPECIAL_ZERO = 0x70, 0x10


class FrameWriter:
    """An array's file while it is written: a context manager, which leaves no half-written file behind.

    Parameters
    ----------
    goal : Path
    geometry : Geometry
        With blocks of its axes, padded, of at least one item.
    layers : mapping
        To become ``vlmeta``.
    codec : str
        What the file says of itself: ``zlib``, ``lz4``, ``zstd``.
    """

    def __init__(self, goal: Path, geometry: Geometry, layers: Mapping[str, Any], codec: str = "zstd") -> None:
        self._goal = goal
        self._unfinished = goal.with_name(f"{goal.name}.part")
        cparams = blosc2.CParams(codec=blosc2.Codec[codec.upper()], clevel=1, nthreads=1)
        dtype = geometry.dtype
        array = blosc2.uninit(
            geometry.shape, dtype=dtype, chunks=geometry.chunks, blocks=geometry.blocks, cparams=cparams
        )
        if array.chunks != geometry.chunks or array.blocks != geometry.blocks:
            raise ValueError(f"Blosc2 has no chunks {geometry.chunks} with blocks {geometry.blocks}")
        for name, value in layers.items():
            array.schunk.vlmeta[name] = value
        template = bytes(array.to_cframe())
        self._header = bytearray(template[: header_nbytes(template)])
        self._trailer = template[-trailer_nbytes(template[-TRAILER_TAIL_NBYTES:]) :]
        self._offsets = np.full(geometry.nchunks, _ZEROS, "<i8")
        self._cbytes = 0
        self._file = self._unfinished.open("wb", buffering=1 << 20)
        self._file.write(self._header)

    def __enter__(self) -> Self:
        return self

    def put(self, nchunk: int, chunk: bytes | bytearray | memoryview) -> None:
        """Write one chunk."""
        if chunk[31] & _SPECIAL_MASK == _SPECIAL_ZERO:
            self._offsets[nchunk] = _ZEROS
            return
        self._offsets[nchunk] = self._cbytes
        self._cbytes += len(chunk)
        self._file.write(chunk)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._file.close()
            with suppress(FileNotFoundError):
                self._unfinished.unlink()

    def _finish(self) -> None:
        index = blosc2.compress2(self._offsets, typesize=8, codec=blosc2.Codec.BLOSCLZ, nthreads=1)
        self._file.write(index)
        self._file.write(self._trailer)
        length = len(self._header) + self._cbytes + len(index) + len(self._trailer)
        struct.pack_into(">Q", self._header, _FRAME_NBYTES_AT, length)
        struct.pack_into(">q", self._header, _CBYTES_AT, self._cbytes)
        self._file.seek(0)
        self._file.write(self._header)
        self._file.close()
        os.replace(self._unfinished, self._goal)
