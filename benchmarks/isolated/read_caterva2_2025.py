"""The published caterva2 2025.1.30 network: ``read_caterva2_2025.py URL``.

An integer index is sent as a slice of one, since its index 0 means the whole axis.
"""

import sys

import caterva2
from loop import serve


class Slices:
    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, key):
        return self.dataset[tuple(part if isinstance(part, slice) else slice(part, part + 1) for part in key)]


root = None


def open_dataset(name):
    global root
    if root is None:
        root = caterva2.Root("data", urlbase=sys.argv[1])
    return Slices(root[f"{name}.b2nd"])


serve(open_dataset)
