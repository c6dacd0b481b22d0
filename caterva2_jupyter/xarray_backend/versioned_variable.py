"""Lazy variables whose dask arrays are named by the version of what they read.

``xr.open_dataset(address, chunks=...)`` names dask arrays by the address and the options alone, which stay the same
when the file changes: a cluster that persisted the older values would take them for the newer ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from xarray import Variable

__all__ = ["VersionedVariable", "versioned"]


class VersionedVariable(Variable):
    """A variable that is as any other, but for the names of the dask arrays that ``chunk`` makes of it."""

    __slots__ = ()

    def chunk(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Variable.chunk``; to a name that was chosen, the version is added."""
        kwargs["from_array_kwargs"] = dict(kwargs.get("from_array_kwargs") or {})
        for options in (kwargs, kwargs["from_array_kwargs"]):
            if isinstance(options.get("name"), str):
                options["name"] = f"{options['name']}-{self._version()}"
        return super().chunk(*args, **kwargs).to_base_variable()

    def _version(self) -> str:
        from dask.base import tokenize

        token = _token_of(self._data)
        # What decoding has read already, such as strings, is in memory: its values are all there is to it.
        return str(tokenize(np.asarray(self._data) if token is None else token))


def versioned(variable: Variable) -> Variable:
    """The same variable, whose dask arrays are named by the version."""
    return VersionedVariable(variable.dims, variable._data, variable._attrs, variable._encoding, fastpath=True)


def _token_of(lazy: object) -> tuple[object, ...] | None:
    """What the innermost array, below what decodes it, says that its values are made of; None for others."""
    while lazy is not None:
        token = getattr(lazy, "__dask_tokenize__", None)
        if token is not None:
            found: tuple[object, ...] = token()
            return found
        lazy = getattr(lazy, "array", None)
    return None
