"""This project's client on a subscriber: ``read_this.py URL``."""

import sys

import blosc2  # noqa: F401  # as every other reader has before it is ready; the client loads it when it first decodes
from loop import serve

import caterva2_jupyter as cat2

client = cat2.connect(sys.argv[1])


def list_all():
    group = client["data/small"]
    count = 0
    for path in group.walk():
        array = group[path]
        assert None not in (array.shape, array.dtype, dict(array.attrs))
        count += 1
    return count, count


serve(lambda name: client["data/field.h5/field.b2nd" if name == "hdf5" else f"data/{name}.b2nd"], list_all)
