"""Attributes and names of axes of a Blosc2 frame, out of its user metadata and metalayers.

The bytes are ``frame_format``'s to decode, the JSON forms ``core.attributes``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.attributes import encode_attrs
from ..core.codec import DecodeChunk, decode_chunk_bytes
from ..core.exact_attributes import EXACT_KEY, exact_attrs
from .blosc2_file import FrameIndex
from .frame_format import decode_metalayer, decode_vlmeta

__all__ = ["frame_attrs", "frame_dims"]


def frame_attrs(index: FrameIndex, decode: DecodeChunk = decode_chunk_bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """Attributes as JSON forms, and why those are left out that have none."""
    values, skipped = decode_vlmeta(index.vlmeta, decode)
    exact = exact_attrs(values)
    forms, without_form = encode_attrs({k: v for k, v in values.items() if k != EXACT_KEY and k not in exact})
    return forms | exact, skipped | without_form


def frame_dims(index: FrameIndex, attrs: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the axes, as xarray's and netCDF's ways of writing Blosc2 files give them."""
    layer = index.header.metalayers.get("dims")
    candidates = [attrs.get("dims"), attrs.get("_ARRAY_DIMENSIONS"), decode_metalayer(layer) if layer else None]
    for names in candidates:
        if isinstance(names, dict) and names.get("t") == "tuple":
            names = names["v"]
        if not isinstance(names, (list, tuple)) or not len(names) == index.geometry.ndim > 0:
            continue
        if all(isinstance(n, str) and n for n in names):
            return tuple(str(n) for n in names)
    return None
