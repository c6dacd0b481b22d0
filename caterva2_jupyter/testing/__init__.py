"""Contracts that every root and every source has to fulfil, as pytest classes to subclass.

A subclass says how an implementation is made over given arrays; the tests come with it. Data is compared
with NumPy. No sockets are opened here (a subclass may), and no network is needed.

    class TestMemoryRoot(RootContract):
        def make_root(self, arrays, tmp_path):
            return MemoryRoot(arrays)
"""

from __future__ import annotations

from .arrays import random_key, sample_arrays
from .origin import Origin, open_origin
from .reading import read_array, reduce_array
from .root_contract import RootContract
from .source_contract import SourceContract

__all__ = [
    "Origin",
    "RootContract",
    "SourceContract",
    "open_origin",
    "random_key",
    "read_array",
    "reduce_array",
    "sample_arrays",
]
