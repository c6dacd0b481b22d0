"""HDF5's filter plugins, of the package hdf5plugin.

Only importing it is not enough: where ``HDF5_PLUGIN_PATH`` names plugins that were built for another HDF5
(netCDF4 sets it for whatever its process starts), HDF5 has those first, and they fail.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

__all__ = ["load_plugins"]


def load_plugins() -> Any:
    """The package, its filters registered in place of others; None where it is not installed."""
    if importlib.util.find_spec("hdf5plugin") is None:
        return None
    plugins = importlib.import_module("hdf5plugin")
    plugins.register(force=True)
    return plugins
