"""Decodes indexes and metalayers of uploaded files in a process that may die of them; asked from threads.

They are small, and most are not compressed: those are read where they are. It has a process of its own, as whoever
waits for it may be what a job of another pool waits for.
"""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt

from ..core.codec import stored_chunk_bytes
from ..errors import DeadlineError, IntegrityError
from ..web.compute_pool import ComputePool

__all__ = ["IndexDecoder"]


class IndexDecoder:
    """A ``DecodeChunk``. To be made and stopped in one event loop, and called from other threads."""

    def __init__(self) -> None:
        self._pool = ComputePool(nworkers=1)
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Remember the loop that runs."""
        self._loop = asyncio.get_running_loop()

    def __call__(self, chunk: bytes, max_nbytes: int) -> npt.NDArray[np.uint8]:
        """What is in a chunk.

        Raises
        ------
        IntegrityError
            When it does not decode, claims more than that, or the process died of it.
        SourceUnavailableError
            When the service is stopping.
        """
        stored = stored_chunk_bytes(chunk, max_nbytes)
        if stored is not None:
            return stored
        assert self._loop is not None
        decoding = self._pool.run("chunk_bytes", {"max_nbytes": max_nbytes}, [chunk])
        try:
            _, (raw,) = asyncio.run_coroutine_threadsafe(decoding, self._loop).result()
        except DeadlineError as error:
            raise IntegrityError(str(error)) from None
        if len(raw) > max_nbytes:
            raise IntegrityError("a worker gave more than it was asked for")
        return np.frombuffer(raw, np.uint8)

    async def stop(self) -> None:
        await self._pool.stop()
