"""Filters of new HDF5 datasets, by the names that ``cat2export --codec`` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from h5py import h5z

from ..storage.hdf5_plugins import load_plugins

__all__ = ["CODECS", "Filters", "filters_of"]

CODECS = ("auto", "blosc2", "gzip", "lz4", "zstd", "none")

Filters = Callable[[Any], None]
"""Sets the filters of a dataset's creation properties."""


def filters_of(codec: str) -> Filters:
    """What sets the filters of a dataset's creation properties.

    Raises
    ------
    ValueError
    """
    name, _, level = codec.partition(":")
    top = {"gzip": 9, "zstd": 22, "blosc2": 9}.get(name, -1)
    if name not in CODECS or (level and not (level.isdecimal() and int(level) <= top)):
        raise ValueError(f"no codec '{codec}': choose one of {', '.join(CODECS)}, with a level as gzip:6")
    if name == "none":
        return lambda properties: None
    if name == "gzip":

        def gzip(properties: Any) -> None:
            properties.set_shuffle()
            properties.set_deflate(int(level or 4))

        return gzip
    plugins = load_plugins()
    if plugins is None:
        if name == "auto":
            return filters_of("gzip")
        raise ValueError(f"--codec {name} needs hdf5plugin: pip install hdf5plugin, or give --codec gzip")
    chosen = {
        "auto": lambda: plugins.Blosc2(cname="zstd", clevel=1),
        "blosc2": lambda: plugins.Blosc2(cname="zstd", clevel=int(level or 1)),
        "lz4": lambda: plugins.LZ4(),
        "zstd": lambda: plugins.Zstd(clevel=int(level or 3)),
    }[name]()
    settings = dict(chosen)

    def plugin(properties: Any) -> None:
        if name in ("lz4", "zstd"):
            properties.set_shuffle()
        number, options = settings["compression"], tuple(settings["compression_opts"])
        properties.set_filter(number, h5z.FLAG_OPTIONAL, options)

    return plugin
