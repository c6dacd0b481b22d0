"""On-demand access to remote Blosc2, HDF5 and netCDF4 arrays."""

from __future__ import annotations

__version__ = "0.1.0"
