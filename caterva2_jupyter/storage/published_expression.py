"""Expressions that the older system stored, as Blosc2 frames with text and operands in them: read, never opened.

Operands are named there by paths on its disk; those below its state directory are datasets that we know.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ..compute.stored_expression import StoredExpression, checked_operands
from ..core.codec import DecodeChunk, decode_chunk_bytes
from ..core.metadata import Geometry
from ..errors import UnsupportedDatasetError
from .frame_format import FrameHeader, decode_vlmeta, parse_array_meta

__all__ = ["is_published_expression", "published_expression"]

_LAYERS = ("LazyArray", "b2o")


def is_published_expression(header: FrameHeader) -> bool:
    """Does a frame hold one (or a function, which is never taken)?"""
    return any(layer in header.metalayers for layer in _LAYERS)


def published_expression(
    header: FrameHeader, vlmeta: Mapping[str, bytes], area: Path, decode: DecodeChunk = decode_chunk_bytes
) -> StoredExpression:
    """The expression in a frame.

    Parameters
    ----------
    header : FrameHeader
    vlmeta : mapping of bytes
        As it is stored.
    area : Path
        Directory of the area that it is in: ``STATEDIR/public``, ``STATEDIR/shared`` or ``STATEDIR/personal/ID``.
    decode : DecodeChunk

    Raises
    ------
    UnsupportedDatasetError
        When it is no expression, or its operands are none of ours.
    RequestError
        When there is something in it that is not allowed.
    """
    values, _ = decode_vlmeta(vlmeta, decode)
    form = values.get("_LazyArray", values.get("b2o"))
    meta = parse_array_meta(header)
    if not isinstance(form, Mapping) or meta is None or not isinstance(form.get("expression"), str):
        raise UnsupportedDatasetError("a stored function, which is never run")
    named = form.get("operands")
    operands: dict[str, str] = {}
    for name, where in named.items() if isinstance(named, Mapping) else ():
        path = where.get("urlpath") if isinstance(where, Mapping) else where
        operands[str(name)] = _address(str(name), path, area)
    text = form["expression"]
    return StoredExpression(
        text, checked_operands(text, operands), Geometry(meta.shape, meta.chunks, meta.blocks, meta.dtype)
    )


def _address(name: str, path: object, area: Path) -> str:
    statedir = area.parent.parent if area.parent.name == "personal" else area.parent
    parts = PurePosixPath(path).parts if isinstance(path, str) else ()
    for at, part in enumerate(parts):
        rest = parts[at + 1 :]
        if at and parts[at - 1] != statedir.name:
            continue
        if part == "cache" and len(rest) > 1:
            return _shown("/".join(rest))
        if part in ("public", "shared") and rest:
            return _shown(f"@{part}/{'/'.join(rest)}")
        if part == "personal" and len(rest) > 1 and area.parent.name == "personal" and rest[0] == area.name:
            return _shown(f"@personal/{'/'.join(rest[1:])}")
    raise UnsupportedDatasetError(f"a stored expression whose operand {name} is not in this state directory")


def _shown(address: str) -> str:
    return address.removesuffix(".b2")
