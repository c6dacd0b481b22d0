"""Overviews: a dataset in few values, as a preview needs it; how coarse, decided from its geometry alone.

``stride`` takes the first item of each bin, and reads only the blocks that have one; ``mean`` and ``minmax`` (the
envelope that a long line is drawn with) look at everything. Nothing is read here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from ..core.dtypes import is_vlen
from ..core.metadata import Geometry
from ..core.reduce_request import Number, Operation, ReduceRequest
from ..core.selection import Selection
from ..errors import RequestError, TooLargeError, UnsupportedDatasetError
from .reduction import Reduction, reduced_dtype

__all__ = ["MAX_DECODED_NBYTES", "MAX_PIXELS", "METHODS", "Method", "OverviewPlan", "missing_values", "plan_overview"]

Method = Literal["stride", "mean", "minmax"]
METHODS: tuple[str, ...] = get_args(Method)
MAX_PIXELS = 1 << 22
MAX_VALUES = 1 << 22
"""The most values of one overview."""
MAX_DECODED_NBYTES = 1 << 30
"""Decoded bytes of the blocks behind an overview: what is done in a second or so."""


@dataclass(frozen=True, slots=True)
class OverviewPlan:
    """An overview to be asked for.

    Attributes
    ----------
    request : ReduceRequest
        What makes it.
    steps : tuple of int
        Items that a value stands for, along each axis.
    method : {"stride", "mean", "minmax"}
    fills : tuple of number
        Stored values that stand for none.
    """

    request: ReduceRequest
    steps: tuple[int, ...]
    method: Method
    fills: tuple[Number, ...]

    def to_json(self) -> dict[str, Any]:
        """What is said with an overview: ``{"steps", "method", "fills"}``, NaN among the fills as ``"nan"``."""
        fills = [value if math.isfinite(value) else str(value) for value in self.fills]
        return {"steps": list(self.steps), "method": self.method, "fills": fills}


def plan_overview(
    geometry: Geometry,
    of: ReduceRequest,
    max_pixels: int,
    method: str = "stride",
    fills: tuple[Number, ...] = (),
    max_nbytes: int | None = MAX_DECODED_NBYTES,
) -> OverviewPlan:
    """Choose the steps of an overview.

    Parameters
    ----------
    geometry : Geometry
    of : ReduceRequest
        Whose dataset, version and selection are taken.
    max_pixels : int
        The most values along each axis; there are no more than ``MAX_VALUES`` in all.
    method : {"stride", "mean", "minmax"}
    fills : tuple of number
        Stored values that stand for none.
    max_nbytes : int or None
        Decoded bytes that may be looked at; None is any number.

    Raises
    ------
    RequestError, SelectionError
    TooLargeError
        When the method has to look at more; ``stride`` becomes coarser instead.
    UnsupportedDatasetError
        For strings of variable length.

    Examples
    --------
    >>> geometry = Geometry((1000, 2000), (100, 100), (10, 100), np.dtype("f4"))
    >>> plan_overview(geometry, ReduceRequest("r", "x", "stride"), 100).steps
    (10, 20)
    """
    if method not in METHODS:
        raise RequestError(f"there is no overview by {method[:40]!r}: one of {', '.join(METHODS)}")
    if not 1 <= max_pixels <= MAX_PIXELS:
        raise RequestError(f"max_pixels is between 1 and {MAX_PIXELS}")
    if is_vlen(geometry.dtype):
        raise UnsupportedDatasetError("strings of variable length have no overview: read them")
    shape = Selection.from_json(of.selection, geometry.shape).shape
    how = cast("Method", method)
    pixels = _bounded(shape, max_pixels, MAX_VALUES // 2 if how == "minmax" else MAX_VALUES)
    op: Operation = how
    skip = _skipped(reduced_dtype(geometry.dtype, of.field), fills) if how != "stride" else ()
    while True:
        steps = _steps(shape, pixels)
        request = replace(of, op=op, axis=None, steps=steps, dtype=None, keepdims=False, ddof=0, skip=skip)
        nbytes = Reduction(geometry, request).plan.nblocks * geometry.block_nbytes
        if max_nbytes is None or nbytes <= max_nbytes:
            break
        if how != "stride":
            raise TooLargeError(
                f"an overview by {how} looks at {nbytes} bytes here, over the {max_nbytes} of one: take method=stride, "
                "or select less"
            )
        if pixels == 1:
            break
        pixels = max(1, pixels * 4 // 5)
    return OverviewPlan(request, steps, how, fills)


def _skipped(dtype: np.dtype[Any], fills: tuple[Number, ...]) -> tuple[Number, ...]:
    if dtype.kind not in "fcmM":
        return fills
    return (*(value for value in fills if value == value), math.nan)


def _steps(shape: tuple[int, ...], pixels: int) -> tuple[int, ...]:
    return tuple(max(1, -(-n // pixels)) for n in shape)


def _bounded(shape: tuple[int, ...], pixels: int, max_values: int) -> int:
    """The most along each axis, no more than ``pixels``, so that there are no more than that in all."""

    def count(pixels: int) -> int:
        return math.prod(-(-n // s) for n, s in zip(shape, _steps(shape, pixels), strict=True))

    low, high = 1, pixels
    while low < high:
        middle = (low + high + 1) // 2
        if count(middle) <= max_values:
            low = middle
        else:
            high = middle - 1
    return low


def missing_values(values: npt.NDArray[Any], fills: tuple[Number, ...]) -> npt.NDArray[np.bool_]:
    """Which values of an overview stand for none: fills, NaN and NaT.

    >>> missing_values(np.array([1.0, np.nan, -9999.0]), (-9999,)).tolist()
    [False, True, True]
    """
    missing = np.zeros(values.shape, np.bool_)
    if values.dtype.kind in "fc":
        missing |= np.isnan(values)
    elif values.dtype.kind in "mM":
        missing |= np.isnat(values)
    if values.dtype.kind in "iufc":
        for fill in fills:
            if fill == fill and (values.dtype.kind in "fc" or fill == int(fill)):
                with np.errstate(all="ignore"):
                    stored = np.asarray(fill).astype(values.dtype) if values.dtype.kind in "fc" else int(fill)
                missing |= values == stored
    return missing
