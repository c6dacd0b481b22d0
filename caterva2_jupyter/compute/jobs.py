"""What worker processes are asked to do: a table of jobs by name, each a function of JSON and buffers.

``JOBS`` have all their buffers at once; ``STREAMED`` ones take them part by part, so that what they read may be far
larger than what they keep. Every job checks what it is given and raises errors of ``errors``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.dtypes import dtype_to_json, is_vlen
from ..core.metadata import Geometry
from ..core.selection import Selection, parse_basic, parse_key_text
from .records import BoxBuilder, Buffer, unpack_records

__all__ = ["JOBS", "STREAMED", "Answer", "Job", "StreamedJob", "little_endian", "values_answer"]

Answer = tuple[dict[str, Any], list[Buffer]]
Job = Callable[[Mapping[str, Any], Sequence[Buffer]], Answer]
StreamedJob = Callable[[Mapping[str, Any], Iterator[Sequence[Buffer]]], Answer]


def little_endian(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same values in C order, every number of them little endian.

    Examples
    --------
    >>> little_endian(np.array([1, 2], ">i4")).dtype.str
    '<i4'
    """
    return np.require(array, array.dtype.newbyteorder("<"), "C")


def values_answer(array: npt.NDArray[Any]) -> Answer:
    """An array as it is answered with: ``{"shape", "dtype"}`` and its bytes, or a JSON list for strings (dtype "O").

    Examples
    --------
    >>> form, (raw,) = values_answer(np.array([[1], [2]], ">i2"))
    >>> form, bytes(raw)
    ({'shape': [2, 1], 'dtype': '<i2'}, b'\\x01\\x00\\x02\\x00')
    """
    if array.dtype.kind == "O":
        text = json.dumps(array.tolist(), ensure_ascii=False).encode("utf-8", "replace")
        return {"shape": list(array.shape), "dtype": "vlen-utf8"}, [text]
    plain = little_endian(array)
    return {"shape": list(array.shape), "dtype": dtype_to_json(plain.dtype)}, [_raw(plain)]


def _raw(array: npt.NDArray[Any]) -> Buffer:
    if not array.dtype.itemsize or not array.size:
        return b""
    return array.reshape(-1).view(np.uint8).data


def read_box(arguments: Mapping[str, Any], parts: Iterator[Sequence[Buffer]]) -> tuple[Geometry, npt.NDArray[Any]]:
    """The box that the records in ``parts`` make, of ``arguments["geometry"]`` and ``["selection"]``."""
    geometry = Geometry.from_json(arguments["geometry"])
    selection = Selection.from_json(arguments["selection"], geometry.shape)
    builder = BoxBuilder(geometry, selection, arguments.get("digest", ""))
    for buffers in parts:
        for record in unpack_records(buffers):
            builder.add(record)
    return geometry, builder.finish()


def keyed(arguments: Mapping[str, Any], geometry: Geometry, box: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What NumPy gives for the text of a key, from the box that was read for it; always an array."""
    text = arguments.get("key", "")
    parsed = parse_basic(parse_key_text(text), geometry.shape)
    # A scalar would lose its byte order.
    items = parsed.apply(box) if parsed.result_shape else box.reshape(())
    assert isinstance(items, np.ndarray)
    return items


def values(arguments: Mapping[str, Any], parts: Iterator[Sequence[Buffer]]) -> Answer:
    """Decoded values of a selection: ``geometry``, ``selection``, ``digest``, ``key`` (text)."""
    geometry, box = read_box(arguments, parts)
    assert is_vlen(geometry.dtype) == (box.dtype.kind == "O")
    return values_answer(keyed(arguments, geometry, box))


JOBS: Mapping[str, Job] = {}
STREAMED: Mapping[str, StreamedJob] = {"values": values}
