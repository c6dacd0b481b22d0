"""Opened groups and arrays as xarray objects: what ``to_xarray`` and ``to_datatree`` call.

As ``xarray.open_dataset`` with the engine, but over the session that the object has, credentials included.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from ..client.group import Group
from ..client.remote_array import RemoteArray
from .opening import open_target

__all__ = ["open_one", "open_tree"]


def open_one(target: Group | RemoteArray, **options: Any) -> xr.Dataset:
    """One group, or one array with its coordinates, as a Dataset."""
    return xr.open_dataset(_listed(target, options, everything=False), engine="caterva2", **options)


def open_tree(target: Group, **options: Any) -> xr.DataTree:
    """A group and all below it."""
    return xr.open_datatree(_listed(target, options, everything=True), engine="caterva2", **options)


def _listed(target: Group | RemoteArray, options: dict[str, Any], everything: bool) -> Any:
    """What is to be opened, listed first: xarray makes dask's names of it, and it knows the versions of all arrays."""
    everything = everything or options.get("phony_dims") == "sort"
    return open_target(target, options.pop("group", None), version=options.pop("version", None), everything=everything)
