"""The examples of the documentation run as they stand, on a file like theirs."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

import caterva2_jupyter as cat2
from tests.xarray_backend.serving import serving

AXES = {"valid_time": 4, "latitude": 201, "longitude": 901}


def write_era5(path: Path) -> None:
    with netCDF4.Dataset(path, "w") as nc:
        for name, length in AXES.items():
            nc.createDimension(name, length)
            nc.createVariable(name, "f8", (name,))[:] = np.linspace(0, 90, length)
        nc["valid_time"].units = "hours since 2020-01-01"
        for name in ("t2m", "sp"):
            nc.createVariable(name, "f4", tuple(AXES), chunksizes=(1, 67, 301), zlib=True)[:] = 1.0


def write_months(directory: Path) -> None:
    directory.mkdir()
    for month in range(3):
        with netCDF4.Dataset(directory / f"{month}.nc", "w") as nc:
            for name, length in (("time", 2), ("latitude", 19), ("longitude", 36)):
                nc.createDimension(name, length)
                nc.createVariable(name, "f8", (name,))[:] = np.linspace(0, 90, length)
            nc["time"][:] = [720 * month, 720 * month + 24]
            nc["time"].units = "hours since 2020-01-01"
            nc.createVariable("t2m", "f4", ("time", "latitude", "longitude"))[:] = month


def examples(repository: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (repository / "docs" / "xarray.md").read_text(), re.DOTALL)


def test_the_examples_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_era5(tmp_path / "era5.nc")
    write_months(tmp_path / "era5")
    with serving(tmp_path) as service:
        service.service._sources["climate"] = service.service.directory.sources["foo"]
        service.service.directory.sources["climate"] = service.service.directory.sources["foo"]
        service.service.directory.statuses["climate"] = {"online": True}
        monkeypatch.setenv("CATERVA2_URL", service.url)
        names: dict[str, object] = {"cat2": cat2}
        for example in examples(repository):
            text = example.replace(".plot()", ".load()").replace("/data/climate", str(tmp_path / "written"))
            text = text.replace("(24, 180, 360)", "(1, 67, 301)")
            program = compile(text, "docs/xarray.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            waiting = eval(program, names)
            if waiting is not None:
                asyncio.run(waiting)
        assert isinstance(names["tree"], xr.DataTree)
        assert names["t2m"].dims == tuple(AXES)  # type: ignore[attr-defined]
        assert names["point"].shape == (4, 3, 2)  # type: ignore[attr-defined]
