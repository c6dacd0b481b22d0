"""Conversions of remote objects that parts above the client do: found by name when they are first asked for.

``array.to_dask()`` is where users look for it, but the client imports neither dask nor xarray, nor what builds on it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["conversion"]

_PACKAGE = __name__.rpartition(".client.")[0]


def conversion(module: str, name: str) -> Callable[..., Any]:
    """A function of a part of the package that is above the client.

    Examples
    --------
    >>> conversion("dask_array", "merged_chunks")((4, 4), (2, 2), 1, 8)
    (2, 4)
    """
    function: Callable[..., Any] = getattr(import_module(f".{module}", _PACKAGE), name)
    return function
