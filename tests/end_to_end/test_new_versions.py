"""What moves between publisher and subscriber when a file changes, counted on the wire."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import blosc2
import h5py
import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.errors import DatasetChangedError
from tests.fault_proxy import FaultProxy
from tests.processes import Network, wait_for

FRAMES = np.random.default_rng(3).integers(0, 2**31, (101, 64, 80)).astype("<i4")
"""Of 20 kB each; they do not compress."""


def write(path: Path, frames: np.ndarray) -> None:
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            shape = {"chunks": (1, *frames.shape[1:]), "maxshape": (None, *frames.shape[1:])}
            file.create_dataset("frames", data=frames, compression="gzip", **shape)
    else:
        blosc2.asarray(frames, urlpath=str(path), mode="w", chunks=(1, 64, 80), blocks=(1, 16, 80))


def append(path: Path, frame: np.ndarray) -> None:
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            file["frames"].resize(len(file["frames"]) + 1, axis=0)
            file["frames"][-1] = frame
    else:
        array = blosc2.open(str(path), mode="a")
        array.resize((len(array) + 1, *array.shape[1:]))
        array[-1:] = frame[None]


def edit(path: Path) -> None:
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            file["frames"].attrs["note"] = "edited"
    else:
        array = blosc2.open(str(path), mode="a")
        array.schunk.vlmeta["note"] = "edited"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("name", "address"), [("a.b2nd", "foo/a.b2nd"), ("a.h5", "foo/a.h5/frames")])
def test_a_refreshed_array_moves_what_changed_and_no_more(
    network: Network, tmp_path: Path, name: str, address: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write(root / name, FRAMES[:100])
    publisher = network.start_publisher("foo", root)
    with FaultProxy(publisher.url) as proxy:
        subscriber = network.start_subscriber("--publisher", proxy.url)
        with cat2.connect(subscriber.url) as client:
            wait_for(lambda: address in client, message="listed")
            array = client[address]

            def moved(change: Callable[[], None]) -> int:
                change()
                wait_for(lambda: array.freshness.state == "superseded", message="the change is told")
                # What is told next may be about the same change: the file was not quiet yet.
                array.refresh()
                before = proxy.nbytes
                for _ in range(20):
                    try:
                        array[...]
                        break
                    except DatasetChangedError:
                        array.refresh()
                return proxy.nbytes - before

            assert np.array_equal(array[...], FRAMES[:100])
            assert proxy.nbytes > 100 * 20_000
            assert moved(lambda: append(root / name, FRAMES[100])) < 2.5 * 20_480 + 100 * 150
            assert np.array_equal(array[...], FRAMES)
            assert moved(lambda: edit(root / name)) < 101 * 150
            assert array.attrs["note"] == "edited"
            assert np.array_equal(array[...], FRAMES)
