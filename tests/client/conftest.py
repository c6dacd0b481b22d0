"""One service in memory for all tests of the client that change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.memory_service import MemoryService

SHAPE = (7, 11, 5)


def structured() -> np.ndarray:
    array = np.zeros((6, 4), dtype=[("x", "<i4"), ("v", ">f8", (3,)), ("in", [("a", "<u2"), ("b", "S3")])])
    array["x"] = np.arange(24).reshape(6, 4)
    array["v"] = np.arange(72).reshape(6, 4, 3) / 7
    array["in"]["a"] = np.arange(24).reshape(6, 4) * 3
    array["in"]["b"] = b"yes"
    return array


ARRAYS: dict[str, np.ndarray] = {
    "cube.b2nd": np.arange(np.prod(SHAPE), dtype="<i4").reshape(SHAPE),
    "flat.b2nd": np.arange(np.prod(SHAPE), dtype=">f8").reshape(SHAPE) / 3,
    "line.b2nd": np.arange(1000, dtype="<i8"),
    "scalar.b2nd": np.array(42.5),
    "none.b2nd": np.zeros((3, 0, 4), dtype="<f4"),
    "structured.b2nd": structured(),
    "strings.b2nd": np.array([["a", "bé", ""], ["日本", "x" * 300, "\n"]], dtype=object),
    "dates.b2nd": np.arange("2026-01-01", "2026-02-01", dtype="M8[D]"),
    "complex.b2nd": np.arange(20).reshape(4, 5) * (1 + 1j),
}


def memory_root() -> MemoryRoot:
    root = MemoryRoot({"README.md": b"# Test\n" * 100, "dir1/notes.txt": b"notes"})
    partitions = {
        "cube.b2nd": {"chunks": (3, 4, 5), "blocks": (2, 3, 2)},
        "flat.b2nd": {"chunks": (2, 5, 5), "blocks": (7,), "layout": "flat", "padded": False},
        "line.b2nd": {"chunks": (130,), "blocks": (17,)},
        "structured.b2nd": {"chunks": (4, 3), "blocks": (2, 2)},
        "strings.b2nd": {"chunks": (1, 2)},
    }
    for path, array in ARRAYS.items():
        root.set(path, array, attrs={"units": "K", "n": np.float32(1.5)}, **partitions.get(path, {}))
    root.set("dir1/dir2/deep.b2nd", np.arange(6).reshape(2, 3), dims=("y", "x"))
    root.set("dir1/pickled.b2nd", np.array([object()], dtype=object))
    root.set("big-attrs.b2nd", np.arange(3), attrs={"big": np.arange(20_000)})
    root.set_group("dir1", {"title": "a group"})
    root.set_group("", {"title": "the root"})
    return root


@pytest.fixture(scope="session")
def memory_service() -> Iterator[MemoryService]:
    """Serves ``memory_root`` as ``foo``; not to be changed."""
    with MemoryService({"foo": memory_root()}) as service:
        yield service


@pytest.fixture
def client(memory_service: MemoryService) -> Iterator[cat2.Client]:
    with cat2.connect(memory_service.url) as connected:
        yield connected
