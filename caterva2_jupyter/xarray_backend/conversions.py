"""Opened groups and arrays as xarray objects: what ``to_xarray`` and ``to_datatree`` call.

As ``xarray.open_dataset`` with the engine, but over the session that the object has, credentials included.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from ..client.group import Group
from ..client.remote_array import RemoteArray

__all__ = ["open_one", "open_tree"]


def open_one(target: Group | RemoteArray, **options: Any) -> xr.Dataset:
    """One group, or one array with its coordinates, as a Dataset."""
    given: Any = target
    return xr.open_dataset(given, engine="caterva2", **options)


def open_tree(target: Group, **options: Any) -> xr.DataTree:
    """A group and all below it."""
    given: Any = target
    return xr.open_datatree(given, engine="caterva2", **options)
