"""Environments of the published packages that are measured, each made by pip, outside of the repository."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["make_environments", "versions"]

REQUIREMENTS = {
    "static": ["blosc2==4.14.*", "h5py", "hdf5plugin", "zarr>=3.1", "xarray", "aiohttp", "fsspec[http]"],
    "caterva2-2026": ["caterva2[server]==2026.9.2"],
    # Its services run with these releases of Blosc2 only.
    "caterva2-2025": ["caterva2[services,clients]==2025.1.30", "blosc2>=3.0,<3.3"],
}


def make_environments(directory: Path, names: Iterable[str]) -> None:
    """Make what is not there yet."""
    for name in names:
        done = directory / f"{name}.freeze"
        if done.exists():
            continue
        print(f"installing {' '.join(REQUIREMENTS[name])}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", directory / name], check=True)
        pip = directory / name / "bin" / "pip"
        subprocess.run([pip, "install", "--quiet", *REQUIREMENTS[name]], check=True)
        freeze = subprocess.run([pip, "list", "--format=freeze"], check=True, capture_output=True, text=True)
        done.write_text(freeze.stdout)


def versions(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """Installed versions of what matters, by environment."""
    telling = ("aiohttp", "blosc2", "caterva2", "fsspec", "h5py", "numpy", "zarr")
    found = {}
    for name in names:
        lines = (directory / f"{name}.freeze").read_text().split()
        found[name] = ", ".join(line for line in lines if line.partition("==")[0] in telling)
    return found
