"""Arrays worth looking at, served from memory, and matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.memory_service import MemoryService

HOSTILE = "<img src=x onerror=alert(1)>$\\frac{$\x1b[31m"


def arrays() -> dict[str, np.ndarray]:
    t, y, x = np.ogrid[:6, :30, :40]
    cube = (280 + 10 * np.sin(t + y / 7) * np.cos(x / 9)).astype("f4")
    packed = np.arange(12, dtype="i2").reshape(3, 4)
    packed[0, 0] = -999
    return {
        "cube.b2nd": cube,
        "packed.b2nd": packed,
        "line.b2nd": np.sin(np.arange(200.0) / 9),
        "long.b2nd": np.sin(np.arange(1_000_000) / 1000).astype("f4"),
        "plane.b2nd": np.arange(3000 * 3000, dtype="f4").reshape(3000, 3000),
        "photo.b2nd": np.arange(20 * 30 * 3, dtype="u1").reshape(20, 30, 3),
        "swapped.b2nd": np.arange(12, dtype=">f8").reshape(3, 4),
        "complex.b2nd": np.exp(1j * np.arange(50)),
        "dates.b2nd": np.arange("2026-01-01", "2026-02-01", dtype="M8[D]"),
        "flags.b2nd": np.eye(5, dtype=bool),
        "scalar.b2nd": np.array(4.5),
        "none.b2nd": np.zeros((3, 0)),
        "words.b2nd": np.array(["a", "bc"]),
        "table.b2nd": np.array([(1, 2.5), (2, 3.5)], dtype=[("a", "i4"), ("b", "f8")]),
    }


def root_of_arrays() -> MemoryRoot:
    root = MemoryRoot({"notes.txt": b"some notes\n" * 3, "long.txt": b"a line of text\n" * 350_000})
    attrs = {
        "cube.b2nd": {"units": "K", "long_name": "temperature"},
        "packed.b2nd": {"scale_factor": 0.5, "add_offset": np.float32(10), "_FillValue": np.int16(-999)},
    }
    dims = {"cube.b2nd": ("time", "lat", "lon")}
    chunks = {"plane.b2nd": (500, 500), "long.b2nd": (100_000,)}
    for path, array in arrays().items():
        partitions = {"chunks": chunks[path], "blocks": chunks[path]} if path in chunks else {}
        root.set(path, array, attrs=attrs.get(path, {}), dims=dims.get(path), **partitions)
    root.set("group/hostile.b2nd", np.arange(9).reshape(3, 3), attrs={"units": HOSTILE, HOSTILE: HOSTILE})
    root.set_group("group", {"title": HOSTILE})
    root.set("group/xy.b2nd", np.arange(12).reshape(3, 4), dims=("x", "y"))
    for n in range(450):
        root.set(f"many/d{n:03d}.b2nd", np.arange(2))
    root.set_group("many", {})
    return root


@pytest.fixture(scope="session")
def service() -> Iterator[MemoryService]:
    """Serves ``root_of_arrays`` as ``foo``; not to be changed."""
    with MemoryService({"foo": root_of_arrays()}) as started:
        yield started


@pytest.fixture
def client(service: MemoryService) -> Iterator[cat2.Client]:
    with cat2.connect(service.url) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
