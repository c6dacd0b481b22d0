"""The edge to h5py: what it raises, and names of objects as text and back."""

from __future__ import annotations

__all__ = ["FOREIGN_ERRORS", "bytes_of", "readable", "reason_of", "text_of"]

# What h5py raises for files that are damaged, or of types that it does not know.
FOREIGN_ERRORS = (
    OSError, RuntimeError, ValueError, TypeError, KeyError, NotImplementedError, OverflowError, MemoryError,
    AttributeError, IndexError, SystemError,
)  # fmt: skip


def text_of(name: bytes) -> str:
    """A name that ``bytes_of`` gives back as it was, whatever it is encoded in."""
    return name.decode("utf-8", "surrogateescape")


def bytes_of(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def reason_of(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def readable(raw: bytes) -> str:
    """Text to be shown and sent."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
