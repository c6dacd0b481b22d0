"""This project's client on a subscriber: ``read_this.py URL``."""

import sys

import blosc2  # noqa: F401  # as every other reader has before it is ready; the client loads it when it first decodes
from loop import serve

import caterva2_jupyter as cat2
from caterva2_jupyter.core.attributes import decode_attrs

client = cat2.connect(sys.argv[1])


def list_all():
    count = 0
    for entry in client["data/small"].entries():
        if entry.geometry is not None:
            assert None not in (entry.geometry.shape, entry.geometry.dtype, decode_attrs(entry.attrs))
            count += 1
    return count, count


serve(lambda name: client["data/field.h5/field.b2nd" if name == "hdf5" else f"data/{name}.b2nd"], list_all)
