"""The directory root: the contract, what it lists, links, half-written and strange files, restarts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import blosc2
import numpy.typing as npt

from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.root import Root
from caterva2_jupyter.testing import RootContract

Array = npt.NDArray[Any]


def write(place: Path, content: Array | bytes) -> Path:
    """Write a dataset as careful writers do: under another name, then renamed."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.tmp")
    if isinstance(content, bytes):
        temporary.write_bytes(content)
    else:
        longest = 30 if content.ndim > 1 else 7000
        chunks = {"chunks": tuple(min(n, longest) for n in content.shape)} if content.size else {}
        blosc2.asarray(content, urlpath=str(temporary), mode="w", **chunks)
    os.replace(temporary, place)
    return place


class TestContract(RootContract):
    def make_root(self, arrays: Mapping[str, Array | bytes], tmp_path: Path) -> Root:
        for path, content in arrays.items():
            write(tmp_path / "root" / path, content)
        return DirectoryRoot(tmp_path / "root", "owner")

    def put(self, root: Root, path: str, content: Array | bytes) -> Path:
        return write(root.watched / path, content)

    def remove(self, root: Root, path: str) -> Path:
        (root.watched / path).unlink()
        return root.watched / path
