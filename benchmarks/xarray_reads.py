"""The field through xarray and dask: this project beside Zarr v3 over HTTP, and h5netcdf on a local file.

    python -m benchmarks.xarray_reads [--quick] [--runs 3] [--work DIRECTORY]

Opening, a map to plot, a sparse pick, and the mean over time of all of it, each value compared with the source. Every
run has a new reader and an empty subscriber; peers take turns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import blosc2
import dask.array as da
import numpy as np
import xarray as xr
from zarr.codecs import BloscCodec

import caterva2_jupyter as cat2

from .datasets import SIZES, Size, make_data
from .peers import ISOLATED, REPOSITORY, Site, Static, This, ThisDirectly
from .processes import cpu_s

__all__ = ["main"]

STEPS = ("open", "plot", "pick", "mean", "mean again")


class Network(This):
    name, listed = "this", ("field/t.b2nd",)


class Publisher(ThisDirectly):
    name, listed = "this, no subscriber", ("field/t.b2nd",)


class Files(Static):
    name = "zarr"

    def arguments(self, site: Site) -> list[object]:
        return [self.url(site)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.xarray_reads", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="threads of dask")
    parser.add_argument("--peers", default="local,this,direct,zarr")
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "caterva2-bench")
    given = parser.parse_args(arguments)
    size = SIZES["quick" if given.quick else "full"]
    directory = given.work / ("data-quick" if given.quick else "data-full")
    data = given.work / f"xarray-{'quick' if given.quick else 'full'}"
    make_data(directory, size)
    make_copies(directory / "root" / "field.b2nd", data, size)
    samples: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="state-", dir=given.work) as work:
        site = Site(data, Path(work), given.work / "venvs", None)
        known: dict[str, This | Static | None] = {
            "local": None,
            "this": Network(),
            "direct": Publisher(),
            "zarr": Files(),
        }
        peers = {name: known[name] for name in given.peers.split(",") if name != "zarr" or shutil.which("nginx")}
        try:
            for peer in peers.values():
                if peer is not None:
                    peer.start_origin(site)
            for run in range(given.runs):
                names = list(peers)
                random.Random(given.seed + run).shuffle(names)
                plan = draw(size, given.seed + run, given.workers)
                expected = truth(directory / "root" / "field.b2nd", plan)
                for name in names:
                    samples += measure(site, name, peers[name], plan, expected, run)
        finally:
            for peer in peers.values():
                if peer is not None:
                    peer.stop()
    print(table(samples))
    (data / "samples.json").write_text(json.dumps(samples, indent=1))
    return 1 if any(s["digest"] != s["expected"] for s in samples) else 0


def make_copies(source: Path, data: Path, size: Size) -> None:
    """The field with coordinates, by ``to_caterva2``, as Zarr v3 and as netCDF4 with gzip: same chunks in all."""
    if (data / "done").exists():
        return
    field = blosc2.open(str(source))
    shutil.rmtree(data, ignore_errors=True)
    (data / "root").mkdir(parents=True)
    nt, ny, nx = size.field.shape
    lazy = da.from_array(field, chunks=size.field.chunks, asarray=False, name="field")
    coords = {
        "time": np.datetime64("2000-01-01", "ns") + np.arange(nt) * np.timedelta64(1, "D"),
        "y": np.linspace(-90, 90, ny),
        "x": np.linspace(0, 360, nx, endpoint=False),
    }
    ds = xr.Dataset({"t": (("time", "y", "x"), lazy, {"units": "K"})}, coords)
    chunks = {"chunks": size.field.chunks, "blocks": size.field.blocks}
    cat2.to_caterva2(ds, data / "root" / "field", encoding={"t": chunks})
    codec = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoding = {"t": {"chunks": size.field.chunks, "compressors": (codec,)}}
        ds.to_zarr(data / "field.zarr", zarr_format=3, consolidated=True, encoding=encoding)
    packed = {"chunksizes": size.field.chunks, "zlib": True, "complevel": 1, "shuffle": True}
    ds.to_netcdf(data / "field.nc", engine="h5netcdf", encoding={"t": packed})
    (data / "done").touch()


def draw(size: Size, seed: int, workers: int) -> dict[str, Any]:
    """What is read in a run: the same for all peers."""
    rng = np.random.default_rng([seed, 7])
    nt, ny, nx = size.field.shape
    pick = {
        name: sorted(map(int, rng.choice(n, 5, replace=False))) for name, n in (("times", nt), ("ys", ny), ("xs", nx))
    }
    return {"plane": int(rng.integers(0, nt)), "workers": workers, **pick}


def truth(source: Path, plan: dict[str, Any]) -> dict[str, str]:
    """Digests of what the source itself holds."""
    field = blosc2.open(str(source))
    total = np.zeros(field.shape[1:], "f8")
    step = field.chunks[0]
    for start in range(0, field.shape[0], step):
        total += field[start : start + step].sum(axis=0, dtype="f8")
    mean = np.round(total / field.shape[0], 7)
    planes = np.stack([field[t] for t in plan["times"]])
    time = np.datetime64("2000-01-01", "ns") + np.arange(field.shape[0]) * np.timedelta64(1, "D")
    values = {
        "open": time.astype("i8"),
        "plot": field[plan["plane"]],
        "pick": planes[np.ix_(range(len(planes)), plan["ys"], plan["xs"])],
        "mean": mean,
        "mean again": mean,
    }
    return {k: hashlib.blake2b(np.ascontiguousarray(v).tobytes(), digest_size=8).hexdigest() for k, v in values.items()}


def measure(
    site: Site, name: str, peer: This | Static | None, plan: dict[str, Any], expected: dict[str, str], run: int
) -> list[dict[str, Any]]:
    """One run of one peer, in a new process."""
    if peer is None:
        kind, target = "h5netcdf", str(site.data / "field.nc")
    elif isinstance(peer, Static):
        kind, target = "zarr", f"{peer.url(site)}/field.zarr"
    else:
        peer.start_fresh(site)
        kind, target = "caterva2", f"cat2{peer.url}/-/data/field"
    services = peer.processes if peer is not None else []
    before = cpu_s(services)
    try:
        command = [sys.executable, ISOLATED / "read_xarray.py", kind, target, json.dumps(plan)]
        environ = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environ)
        served_s = cpu_s(services) - before
    finally:
        if isinstance(peer, This):
            peer.stop_fresh()
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    for sample in samples:
        sample |= {"peer": name, "run": run, "expected": expected[sample["what"]], "served_s": served_s}
        wrong = "" if sample["digest"] == sample["expected"] else " WRONG VALUES"
        print(f"{name}, run {run}: {sample['what']} {sample['seconds']:.3f} s{wrong}", file=sys.stderr, flush=True)
    return samples


def table(samples: list[dict[str, Any]]) -> str:
    """Medians, as Markdown."""
    heads = [*STEPS, "mean, processor time of the reader", "processor time of services, all steps"]
    lines = [f"| seconds | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for peer in dict.fromkeys(s["peer"] for s in samples):
        cells = []
        for step in STEPS:
            found = [s for s in samples if s["peer"] == peer and s["what"] == step]
            wrong = " WRONG" if any(s["digest"] != s["expected"] for s in found) else ""
            cells.append(f"{statistics.median(s['seconds'] for s in found):.3f}{wrong}")
        mine = [s for s in samples if s["peer"] == peer and s["what"] == "mean"]
        cells += [f"{statistics.median(s[key] for s in mine):.2f}" for key in ("cpu_s", "served_s")]
        lines.append(f"| {peer} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
