"""Filters work although the environment names plugins that were built for another HDF5."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from caterva2_jupyter.storage.hdf5_root import Hdf5Root
from caterva2_jupyter.storage.hdf5_worker import Hdf5Worker

from .hdf5_compare import assert_same, listed, read


@pytest.fixture
def plugins_of_another_hdf5() -> str:
    """Those that netCDF4 brings, and names to every program that its process starts."""
    spec = importlib.util.find_spec("netCDF4")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "plugins"
    if not folder.is_dir():
        pytest.skip("this netCDF4 brings no plugins")
    return str(folder)


def test_files_are_written_and_read_with_plugins_of_our_own(
    tmp_path: Path, plugins_of_another_hdf5: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "example.h5"
    monkeypatch.setenv("HDF5_PLUGIN_PATH", plugins_of_another_hdf5)
    command = [sys.executable, "-m", "caterva2_jupyter.tools.example_hdf5", str(path)]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    worker = Hdf5Worker(timeout_s=30)  # its process inherits the environment
    try:
        root = Hdf5Root(path, "owner", worker)
        entries = listed(root)
        with h5py.File(path, locking=False) as file:
            gzip = file["filters/gzip"][()]
        for name in ("zstd-shuffle", "lz4", "bitshuffle-lz4", "bitshuffle-zstd", "blosc", "blosc2"):
            assert_same(read(root, entries[f"filters/{name}.b2nd"]), gzip)
    finally:
        worker.close()
