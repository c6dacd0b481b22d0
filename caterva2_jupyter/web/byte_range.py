"""One ``Range`` header (RFC 9110, section 14): which bytes of how many. It reads nothing."""

from __future__ import annotations

import re

__all__ = ["UnsatisfiableRange", "first_guess", "parse_byte_range"]

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)


class UnsatisfiableRange(Exception):
    """No byte of the range exists."""


def parse_byte_range(header: str | None, nbytes: int) -> tuple[int, int] | None:
    """``(start, stop)``, stop exclusive, or None for all of it.

    Several ranges, other units and malformed headers are all of it, as the RFC allows: a list of
    overlapping ranges would make the answer larger than the file.

    Raises
    ------
    UnsatisfiableRange

    Examples
    --------
    >>> parse_byte_range("bytes=2-4", 10), parse_byte_range("bytes=-3", 10), parse_byte_range("bytes=1-2,5-6", 10)
    ((2, 5), (7, 10), None)
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first == "":
        start, stop = max(0, nbytes - int(last)), nbytes
    else:
        start = int(first)
        stop = min(int(last) + 1, nbytes) if last else nbytes
        if last and int(last) < start:
            return None
    if start >= nbytes or start >= stop:
        raise UnsatisfiableRange
    return start, stop


def first_guess(header: str | None) -> tuple[int, int | None]:
    """Which bytes a ``Range`` header asks for, as far as it is known without the file's length.

    ``(start, stop)``, stop exclusive and None for the end; ``(0, 0)`` where the length decides.

    Examples
    --------
    >>> first_guess("bytes=2-4"), first_guess("bytes=2-"), first_guess(None), first_guess("bytes=-3")
    ((2, 5), (2, None), (0, None), (0, 0))
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return 0, None
    first, last = match.groups()
    if first == "":
        return 0, 0
    stop = int(last) + 1 if last else None
    return (int(first), stop) if stop is None or stop > int(first) else (0, None)
