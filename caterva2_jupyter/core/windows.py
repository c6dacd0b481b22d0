"""How much of a large read one request brings. Pure arithmetic; nothing is read.

Over a long link a connection needs many round trips to come to its speed, and stands still for one between two
answers. So a read is shared out evenly among some connections that work side by side, each with one long answer; only
what is too long for that is cut in more.
"""

from __future__ import annotations

__all__ = ["STREAMS", "WINDOW_NBYTES", "blocks_per_request"]

STREAMS = 8
"""Answers that are fetched side by side."""
WINDOW_NBYTES = 4 << 20
"""Compressed bytes of one answer, at most about: what breaks off is not too much, and decoders have work soon."""
MIN_WINDOW_NBYTES = 1 << 20
"""At least, where there is as much: a request costs both services as much as reading some 500 kB."""


def blocks_per_request(nblocks: int, block_cbytes: float, max_nbytes: int = WINDOW_NBYTES) -> int:
    """How many blocks of a read to ask for at once.

    Parameters
    ----------
    nblocks : int
        Blocks of the read.
    block_cbytes : float
        Compressed bytes that a block is expected to have.
    max_nbytes : int
        Compressed bytes of one answer.

    Examples
    --------
    A read of 26 MB is shared out; of one of 260 MB parts of 4 MiB are under way at a time; a short one is not cut.

    >>> [blocks_per_request(n, 18_000) for n in (1444, 14_444, 50)]
    [181, 233, 50]
    """
    block_cbytes = max(block_cbytes, 1.0)
    # As many even parts as have enough bytes each: never one of that size and a small rest.
    nparts = max(1, min(STREAMS, int(nblocks * block_cbytes / MIN_WINDOW_NBYTES)))
    return max(1, min(-(-nblocks // nparts), int(max_nbytes / block_cbytes)))
