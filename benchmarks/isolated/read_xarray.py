"""Opens the field with xarray and reads it in four ways; one JSON line says what each took, and a digest of values."""

import hashlib
import json
import sys
import time

import dask
import numpy as np
import xarray as xr


def open_field(kind, target):
    if kind == "zarr":
        return xr.open_zarr(target, consolidated=True, chunks=None)
    if kind == "h5netcdf":
        return xr.open_dataset(target, engine="h5netcdf")
    return xr.open_dataset(target, engine="caterva2")


def chunked(kind, target):
    if kind == "zarr":
        return xr.open_zarr(target, consolidated=True, chunks={})
    return xr.open_dataset(target, engine="caterva2" if kind == "caterva2" else kind, chunks={})


def main():
    kind, target, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if kind == "caterva2":  # what a kernel has imported before
        import caterva2_jupyter.core.assembly
        import caterva2_jupyter.xarray_backend.opening  # noqa: F401
    elif kind == "zarr":
        import aiohttp  # noqa: F401
        import fsspec.implementations.http  # noqa: F401
        import zarr  # noqa: F401
    else:
        import h5netcdf  # noqa: F401
    dask.config.set(scheduler="threads", num_workers=plan["workers"])
    ds = [None]

    def first_open():
        ds[0] = open_field(kind, target)
        return np.asarray(ds[0]["time"].values.astype("i8"))

    steps = {
        "open": first_open,
        "plot": lambda: ds[0]["t"].isel(time=plan["plane"]).values,
        "pick": lambda: ds[0]["t"].isel(time=plan["times"], y=plan["ys"], x=plan["xs"]).values,
        "mean": lambda: chunked(kind, target)["t"].mean("time", dtype="f8").values,
        "mean again": lambda: chunked(kind, target)["t"].mean("time", dtype="f8").values,
    }
    for name, step in steps.items():
        start, cpu = time.perf_counter(), time.process_time()
        values = np.ascontiguousarray(step())
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        # Sums of parts may be added in any order: the mean is compared to seven digits.
        kept = np.round(values, 7) if values.dtype == np.float64 else values
        digest = hashlib.blake2b(kept.tobytes(), digest_size=8).hexdigest()
        print(json.dumps({"what": name, "seconds": seconds, "cpu_s": cpu, "digest": digest}), flush=True)


main()
