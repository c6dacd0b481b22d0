"""``python -m benchmarks.run``: make the data and the environments, measure, write JSON and Markdown.

Everything is kept below ``--work`` (outside of the repository); results are in ``results/`` there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caterva2_jupyter import __version__

from .datasets import NAMES, SIZES, make_copies, make_data
from .emulated_link import EmulatedLink, emulated_link
from .engine import Figure, measure_engine
from .environments import make_environments, versions
from .measure import (
    Crowd,
    Listing,
    Sample,
    Truth,
    as_json,
    measure_crowd,
    measure_listing,
    measure_run,
    memory,
)
from .peers import ISOLATED, PEERS, REPOSITORY, Site
from .report import markdown
from .scale import measure_scale

__all__ = ["main"]


@dataclass(frozen=True)
class Link:
    """What lies between publisher and reader; ``rtt_s`` 0 is this machine's loopback."""

    title: str
    rtt_s: float = 0.0
    bits_per_s: float = 0.0
    loss: float = 0.0


LINKS = {
    "loopback": Link("Loopback"),
    "wan": Link("40 ms, 100 Mbit/s", 0.04, 100e6),
    "wan-loss": Link("40 ms, 100 Mbit/s, 1 % loss", 0.04, 100e6, 0.01),
    "far": Link("150 ms, 100 Mbit/s", 0.15, 100e6),
    "far-loss": Link("150 ms, 100 Mbit/s, 1 % loss", 0.15, 100e6, 0.01),
    "far-some-loss": Link("150 ms, 100 Mbit/s, 0.1 % loss", 0.15, 100e6, 0.001),
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure against what else there is.")
    parser.add_argument("--work", type=Path, default=cache / "caterva2-bench", help="data, environments, results")
    parser.add_argument("--quick", action="store_true", help="tiny data, one run, loopback, no published package")
    parser.add_argument("--links", default="", help=f"of {', '.join(LINKS)}; all but loopback need root")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--runs", type=int, default=3, help="interleaved runs, whose median is told")
    parser.add_argument("--seed", type=int, default=None, help="of what is read; drawn when not given")
    parser.add_argument(
        "--tables", default="reads,crowd,listing,engine,scale", help="of reads, crowd, listing, engine, scale"
    )
    parser.add_argument(
        "--cold-files", action="store_true", help="drop the files from the page cache before each peer's reads"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    links = (options.links or ("loopback" if options.quick else "loopback,wan")).split(",")
    names = options.peers.split(",")
    if options.quick:
        options.runs = 1
        if options.peers == ",".join(PEERS):
            names = ["local", "local-hdf5", "this", *(["blocks"] if shutil.which("nginx") else [])]
    if unknown := [n for n in links if n not in LINKS] + [n for n in names if n not in PEERS]:
        print(f"benchmarks: no such link or peer: {', '.join(unknown)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0 and links != ["loopback"]:
        print(
            "benchmarks: an emulated link needs root (network namespaces): measuring on loopback only", file=sys.stderr
        )
        links = ["loopback"]
    seed = options.seed if options.seed is not None else int(time.time())
    size = SIZES["quick" if options.quick else "full"]
    data = options.work / f"data-{'quick' if options.quick else 'full'}"
    environments = options.work / "venvs"
    needed = sorted({PEERS[name].environment for name in names} - {""})
    make_environments(environments, needed)
    root = make_data(data, size)
    if not (data / "index").exists():
        command = [sys.executable, ISOLATED / "make_index.py", root, data / ".index", *NAMES]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
        (data / ".index").rename(data / "index")
    if any(name.startswith("zarr") for name in names):
        make_copies(data, environments / "static" / "bin" / "python", ISOLATED / "make_copies.py")
    truth = Truth(data)
    results = options.work / "results" / time.strftime("%Y%m%d-%H%M%S")
    results.mkdir(parents=True)
    about = {
        "version": __version__,
        "seed": seed,
        "runs": options.runs,
        "cold_files": options.cold_files,
        "machine": f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}",
        "load_at_start": os.getloadavg()[0],
        "versions": versions(environments, needed),
        "size": asdict(size),
    }
    texts = [f"# Benchmark of {time.strftime('%Y-%m-%d %H:%M')}", "", *_about(about), ""]
    failed = False
    for name in links:
        found = _measure_link(options, LINKS[name], names, data, environments, truth, seed)
        form = {"about": about, "link": asdict(LINKS[name]), **found["json"]}
        (results / f"{name}.json").write_text(json.dumps(form, indent=1))
        texts.append(found["text"])
        (results / "report.md").write_text("\n".join(texts))
        failed |= found["failed"]
    print(results / "report.md")
    return 1 if failed else 0


def _about(about: dict[str, Any]) -> list[str]:
    lines = [f"{about['machine']}; load {about['load_at_start']:.1f} at the start; {about['runs']} interleaved runs"]
    lines[0] += f", seed {about['seed']}{', files not in the page cache' if about['cold_files'] else ''}."
    return [*lines, "", *(f"- {name}: {text}" for name, text in about["versions"].items())]


def _measure_link(
    options: argparse.Namespace,
    link: Link,
    names: list[str],
    data: Path,
    environments: Path,
    truth: Truth,
    seed: int,
) -> dict[str, Any]:
    size = SIZES["quick" if options.quick else "full"]
    samples: list[Sample] = []
    crowds: list[Crowd] = []
    lists: list[Listing] = []
    figures: list[Figure] = []
    memories: dict[str, dict[str, int]] = {}
    tables = options.tables.split(",")
    made = emulated_link(link.rtt_s, link.bits_per_s, link.loss) if link.rtt_s else nullcontext()
    with made as emulated, tempfile.TemporaryDirectory(prefix="state-", dir=options.work) as work:
        assert emulated is None or isinstance(emulated, EmulatedLink)
        site = Site(data, Path(work), environments, emulated)
        peers = [PEERS[name]() for name in names if link.rtt_s == 0 or not PEERS[name].is_local]
        try:
            for peer in peers:
                peer.start_origin(site)
            for run in range(options.runs if "reads" in tables else 0):
                samples += measure_run(site, peers, size, run, seed + run, truth, options.cold_files)
            for peer in peers:
                if "crowd" in tables and "field" in peer.datasets:
                    nreads = 5 if options.quick else 10
                    crowds.append(measure_crowd(site, peer, size, nreads, seed, truth))
                if "listing" in tables and peer.has_listing:
                    lists.append(measure_listing(site, peer))
                memories[peer.name] = memory(peer)
        finally:
            for peer in peers:
                peer.stop()
        if "engine" in tables and shutil.which("nginx"):
            figures = measure_engine(site, size, seed, truth)
        if "scale" in tables and emulated is None:
            figures += measure_scale(site, size, seed, truth)
    form = {
        "samples": as_json(samples),
        "crowds": as_json(crowds),
        "listings": as_json(lists),
        "figures": as_json(figures),
        "peak_memory_nbytes": memories,
    }
    text = markdown(asdict(link), samples, crowds, lists, figures)
    own = [x for x in [*samples, *crowds, *lists] if x.peer == "caterva2-jupyter" and x.error]
    wrong = [x for x in [*samples, *crowds] if x.error == "WRONG VALUES"]
    return {"json": form, "text": text, "failed": bool(own or wrong or any(f.error for f in figures))}


if __name__ == "__main__":
    sys.exit(main())
