"""Zarr v3 over static HTTP, by fsspec: ``read_zarr.py chunked|sharded URL``."""

import sys

import zarr
from loop import serve

kind, url = sys.argv[1:]
group = None


def open_dataset(name):
    global group
    if group is None:
        group = zarr.open_group(f"{url}/static/{kind}.zarr", mode="r")
    return group[name]


def list_all():
    count = 0
    for _, array in zarr.open_group(f"{url}/static/small.zarr", mode="r")["small"].members(max_depth=None):
        if isinstance(array, zarr.Array):
            assert None not in (array.shape, array.dtype, dict(array.attrs))
            count += 1
    return count, count


serve(open_dataset, list_all)
