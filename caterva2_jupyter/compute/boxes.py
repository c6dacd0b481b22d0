"""What a worker reads and answers: the box of a selection from records, NumPy's result of a key, values as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.dtypes import dtype_to_json
from ..core.metadata import Geometry
from ..core.selection import Selection, parse_basic, parse_key_text
from ..errors import TooLargeError
from .records import BoxBuilder, Buffer, unpack_records

__all__ = ["Answer", "keyed", "little_endian", "read_box", "values_answer"]

Answer = tuple[dict[str, Any], list[Buffer]]
"""JSON and buffers."""


def read_box(arguments: Mapping[str, Any], parts: Iterator[Sequence[Buffer]]) -> tuple[Geometry, npt.NDArray[Any]]:
    """The box that records make.

    Parameters
    ----------
    arguments : mapping
        ``geometry`` of the dataset, ``selection`` (JSON forms), ``digest`` of an exact slice.
    parts : iterator of sequence of bytes-like
        Of ``pack_records``.
    """
    geometry = Geometry.from_json(arguments["geometry"])
    selection = Selection.from_json(arguments["selection"], geometry.shape)
    builder = BoxBuilder(geometry, selection, arguments.get("digest", ""))
    for buffers in parts:
        for record in unpack_records(buffers):
            builder.add(record)
    return geometry, builder.finish()


def keyed(arguments: Mapping[str, Any], geometry: Geometry, box: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What NumPy gives for a key (``arguments["key"]``, text), from the box that was read for it; always an array."""
    parsed = parse_basic(parse_key_text(arguments.get("key", "")), geometry.shape)
    # A scalar would lose its byte order.
    items: npt.NDArray[Any] = parsed.apply(box) if parsed.result_shape else box.reshape(())
    return items


def little_endian(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same values in C order, every number of them little endian.

    Examples
    --------
    >>> little_endian(np.array([1, 2], ">i4")).dtype.str
    '<i4'
    """
    return np.require(array, array.dtype.newbyteorder("<"), "C")


def values_answer(array: npt.NDArray[Any], max_nbytes: int | None = None) -> Answer:
    """An array as it is answered with: ``{"shape", "dtype"}`` and its bytes, or a JSON list for strings (dtype "O").

    Raises
    ------
    TooLargeError
        When strings are over ``max_nbytes``.

    Examples
    --------
    >>> form, (raw,) = values_answer(np.array([[1], [2]], ">i2"))
    >>> form, bytes(raw)
    ({'shape': [2, 1], 'dtype': '<i2'}, b'\\x01\\x00\\x02\\x00')
    """
    if array.dtype.kind == "O":
        text = json.dumps(array.tolist(), ensure_ascii=False).encode("utf-8", "replace")
        if max_nbytes is not None and len(text) > max_nbytes:
            raise TooLargeError(
                f"these strings have {len(text)} bytes, over the {max_nbytes} of one answer: ask for less"
            )
        return {"shape": list(array.shape), "dtype": "vlen-utf8"}, [text]
    plain = little_endian(array)
    return {"shape": list(array.shape), "dtype": dtype_to_json(plain.dtype)}, [_raw(plain)]


def _raw(array: npt.NDArray[Any]) -> Buffer:
    if not array.dtype.itemsize or not array.size:
        return b""
    return array.reshape(-1).view(np.uint8).data
