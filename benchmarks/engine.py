"""Figures of this project alone, or beside the same bytes from nginx, that no table of peers shows.

What bytes move for what reason (regret of the choice between slice and blocks, appends, edited attributes, large
chunks), what serving costs a publisher, whole scans and their memory, and lossy links against parallel streams.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

import caterva2_jupyter as cat2

from .datasets import CPARAMS, Size
from .measure import Truth, as_key
from .peers import ISOLATED, REPOSITORY, RawBlocks, Site, This
from .processes import cpu_s, peak_memory_nbytes, resident_nbytes
from .workloads import draw, draw_random

__all__ = ["Figure", "measure_engine"]


@dataclass(frozen=True)
class Figure:
    """A value, what it should be, and what it was made of."""

    what: str
    value: str
    aim: str
    detail: str = ""
    error: str = ""


class Own(This):
    """Services over a root that the figure makes, and may change."""

    listed = ()

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def root(self, site: Site) -> Path:
        return self._directory

    def state(self, site: Site) -> Path:
        return site.work / f"publisher-of-{self._directory.name}"


def measure_engine(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """All figures that this link allows."""
    figures: list[Figure] = []
    measures: list[Callable[..., list[Figure]]]
    on_links = [regret, changes, large_chunks, parallel_streams, slow_reader]
    measures = on_links if site.link is not None else [publisher_cpu, full_scan, incompressible_scan]
    for measure in measures:
        try:
            found = measure(site, size, seed, truth)
        except (cat2.Caterva2Error, RuntimeError, OSError, AssertionError) as error:
            found = [Figure(measure.__name__, "–", "", error=f"{type(error).__name__}: {error}"[:200])]
        for figure in found:
            print(f"{figure.what}: {figure.value} ({figure.detail}) {figure.error}", file=sys.stderr, flush=True)
        figures += found
    return figures


@contextmanager
def running(peer: This, site: Site, *paths: str) -> Iterator[cat2.Client]:
    """Services with an empty cache, and a client that has seen these paths."""
    try:
        peer.start_origin(site)
        peer.start_fresh(site)
        peer.wait_until_listed(*paths)
        with cat2.connect(peer.url) as client:
            yield client
    finally:
        peer.stop()


def _down(site: Site) -> int:
    assert site.link is not None
    return site.link.carried_when_quiet(0.3).down


def regret(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """Bytes of the choice, against always slices and always blocks."""
    rng = np.random.default_rng([seed, 3])
    _, ny, nx = size.field.shape
    count = min(500, nx // 2)
    y, x = int(rng.integers(0, ny)), int(rng.integers(0, nx - count))
    scattered = [(int(rng.integers(0, ny)), int(rng.integers(0, nx))) for _ in range(40)]
    patterns = {
        "one point series": [(y, x)],
        f"sweep of {count} points": [(y, x + i) for i in range(count)],
        "40 random points": scattered,
    }
    source = blosc2.open(str(site.data / "root" / "field.b2nd"))
    figures = []
    for name, points in patterns.items():
        moved = {}
        for policy in ("auto", "bypass", "fill"):
            peer = This()
            with running(peer, site, "field.b2nd") as client:
                array = client["data/field.b2nd"].with_cache(policy)
                before = _down(site)
                for py, px in points:
                    got = array[:, py, px]
                    if (py, px) == points[-1]:
                        assert np.array_equal(got, source[:, py, px])
                moved[policy] = _down(site) - before
        value = moved["auto"] / min(moved["bypass"], moved["fill"])
        detail = ", ".join(f"{policy} {nbytes / 1e3:.1f} kB" for policy, nbytes in moved.items())
        figures.append(Figure(f"regret, {name}", f"{value:.2f} x", "<= 2 x", detail))
    return figures


def changes(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """Bytes after an append to an array of many chunks that is cached whole, and after an edited attribute."""
    nchunks = 1000 if size.nsmall > 1000 else 20
    directory = site.fresh_directory("changing")
    path = directory / "frames.b2nd"
    frames = np.random.default_rng(seed).integers(0, 4000, (nchunks, 64, 64)).astype("u2")

    def write(values: np.ndarray, note: str) -> None:
        part = directory / "frames.tmp"
        array = blosc2.asarray(values, chunks=(1, 64, 64), blocks=(1, 64, 64), urlpath=str(part), mode="w")
        array.schunk.vlmeta["note"] = note
        part.rename(path)

    def moved_until(client: cat2.Client, is_new: Callable[[Any], bool], values: np.ndarray) -> int:
        end = time.monotonic() + 30
        before = _down(site)
        while not is_new(array := client["data/frames.b2nd"]):
            assert time.monotonic() < end, "the change was not told"
            time.sleep(0.05)
        assert np.array_equal(array[...], values)
        return _down(site) - before

    write(frames, "first")
    chunk_cbytes = blosc2.open(str(path)).schunk.cbytes / nchunks
    with running(Own(directory), site, "frames.b2nd") as client:
        assert np.array_equal(client["data/frames.b2nd"][...], frames)
        more = np.concatenate([frames, frames[:1]])
        write(more, "first")
        appended = moved_until(client, lambda a: a.shape[0] == nchunks + 1, more)
        write(more, "second")
        edited = moved_until(client, lambda a: a.attrs["note"] == "second", more)
    return [
        Figure(
            f"{what} to {nchunks} cached chunks",
            f"{nbytes / chunk_cbytes:.1f} chunks",
            aim,
            f"{nbytes} bytes in all, checksums and events too; a chunk has {chunk_cbytes:.0f}",
        )
        for what, nbytes, aim in (("append", appended, "<= 2 chunks"), ("edited attribute", edited, "no chunk"))
    ]


def large_chunks(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """One block out of chunks of 64 MB."""
    side = 4096 if size.nsmall > 1000 else 256
    directory = site.fresh_directory("large")
    values = np.random.default_rng(seed).integers(0, 50, (2 * side, side)).astype("f4")
    blosc2.asarray(values, chunks=(side, side), blocks=(128, 128), urlpath=str(directory / "a.b2nd"), cparams=CPARAMS)
    with running(Own(directory), site, "a.b2nd") as client:
        array = client["data/a.b2nd"].with_cache("fill")
        before = _down(site)
        assert np.array_equal(array[128:256, 256:384], values[128:256, 256:384])
        moved = _down(site) - before
    blocks = array.cbytes / (values.size / 128**2)
    detail = f"{moved} bytes; a block has about {blocks:.0f}"
    return [Figure(f"one block of chunks of {side * side * 4 >> 20} MiB", f"{moved / blocks:.2f} blocks", "1", detail)]


def parallel_streams(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """The cold box, against eight parallel streams of as many bytes from nginx."""
    box = next(w for w in draw(size, seed) if w.name == "box")
    key = tuple(slice(*part) for part in box.keys[0] if isinstance(part, list))
    nbytes = truth.block_nbytes("field", box.keys)
    expected = blosc2.open(str(site.data / "root" / "field.b2nd"))[key]
    static = RawBlocks()
    times: dict[str, list[float]] = {"this": [], "streams": []}
    try:
        static.start_origin(site)
        for _ in range(3):
            with running(This(), site, "field.b2nd") as client:
                array = client["data/field.b2nd"]
                start = time.perf_counter()
                got = array[key]
                times["this"].append(time.perf_counter() - start)
                assert np.array_equal(got, expected)
            times["streams"].append(_streams(static.url(site), nbytes))
    finally:
        static.stop()
    ours, theirs = (float(np.median(times[name])) for name in ("this", "streams"))
    detail = f"{ours:.2f} s against {theirs:.2f} s, {nbytes / 1e6:.1f} MB"
    return [Figure("box against eight streams of the same bytes", f"{ours / theirs:.2f} x", "<= 1.3 x", detail)]


def _streams(url: str, nbytes: int, count: int = 8) -> float:
    share = nbytes // count

    def fetch(number: int) -> None:
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        span = f"bytes={number * share}-{(number + 1) * share - 1}"
        connection.request("GET", "/root/field.b2nd", headers={"Range": span})
        assert len(connection.getresponse().read()) == share
        connection.close()

    with ThreadPoolExecutor(count) as pool:
        start = time.perf_counter()
        list(pool.map(fetch, range(count)))
        return time.perf_counter() - start


def slow_reader(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """What others see of a reader that asks for much and then takes nothing."""
    field = blosc2.open(str(site.data / "root" / "field.b2nd"))
    nt, ny, nx = size.field.shape
    unread = [[int(nt * 0.6), int(nt * 0.75), 1], [0, ny, 1], [0, nx, 1]]  # by the others
    box = as_key(next(w for w in draw(size, seed) if w.name == "box").keys[0])
    squares = [as_key(key) for key in draw_random(size, seed, 40)]
    medians: dict[str, list[float]] = {"small reads": [], "box": []}
    for is_beside in (False, True):
        seconds = []
        this = This()
        with running(this, site, "field.b2nd") as client, ExitStack() as stack:
            array = client["data/field.b2nd"]
            if is_beside:
                stack.callback(_stalled(this.url, unread).close)
                _down(site)  # as much as is fetched ahead for it has come
            for key in [*squares, box]:
                start = time.perf_counter()
                got = array[key]
                seconds.append(time.perf_counter() - start)
                assert np.array_equal(got, field[key])
        medians["small reads"].append(float(np.median(seconds[:-1])))
        medians["box"].append(seconds[-1])
    return [
        Figure(
            f"{what} beside a reader that takes nothing",
            f"{beside / alone:.2f} x",
            "stalls no other",
            f"{beside:.3f} s against {alone:.3f} s alone",
        )
        for what, (alone, beside) in medians.items()
    ]


def _stalled(url: str, selection: list[list[int]]) -> socket.socket:
    """A connection that has asked for a selection of the field, and takes the beginning of the answer."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    asker = socket.socket()
    asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    asker.connect((host, int(port)))
    body = json.dumps({"path": "data/field.b2nd", "selection": selection}).encode()
    head = f"POST /api/v1/read HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    asker.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert asker.recv(12).endswith(b"200")
    return asker


def publisher_cpu(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """Processor seconds per GB served, of a publisher and of nginx on the same bytes."""
    static, this = RawBlocks(), This()
    nt, ny, nx = size.field.shape
    step = size.field.chunks[0]
    figures = []
    try:
        static.start_origin(site)
        this.start_origin(site)
        time.sleep(1)  # the first scan is not what is measured
        blocks = [(p, p + 1) for p in range(0, nt, 5)] * 2
        for name, spans, edge, aim in (
            ("answers of MBs", [(p, min(p + step, nt)) for p in range(0, nt, step)] * 2, (ny, nx), "<= 4 x"),
            ("single blocks", blocks * max(1, 6000 // len(blocks)), (1, 1), "<= 7 x"),
        ):
            reader = http.client.HTTPConnection(*this.publisher)
            before, sizes = cpu_s(this.origin[:1]), []
            for start, stop in spans:
                form = {"path": "data/field.b2nd", "selection": [[start, stop, 1], [0, edge[0], 1], [0, edge[1], 1]]}
                reader.request("POST", "/api/v1/read", json.dumps(form), {"Content-Type": "application/json"})
                answer = reader.getresponse()
                assert answer.status == 200, answer.read()[:200]
                sizes.append(len(answer.read()))
            ours = cpu_s(this.origin[:1]) - before
            reader.close()
            reader = http.client.HTTPConnection(static.url(site).removeprefix("http://"))
            before = cpu_s(static.origin)
            for number, nbytes in enumerate(sizes):
                first = number * 100_000 % (20 << 20) if size.nsmall > 1000 else 0
                span = f"bytes={first}-{first + nbytes - 1}"
                reader.request("GET", "/root/field.b2nd", headers={"Range": span})
                reader.getresponse().read()
            theirs = cpu_s(static.origin) - before
            reader.close()
            gigabytes = sum(sizes) / 1e9
            spent = f"{ours / gigabytes:.2f} against {theirs / gigabytes:.2f} s/GB"
            detail = f"{spent}, {len(sizes)} answers, {gigabytes:.2f} GB"
            value = f"{ours / theirs:.1f} x" if theirs else "too little to tell"
            figures.append(Figure(f"publisher CPU against nginx, {name}", value, aim, detail))
    finally:
        this.stop()
        static.stop()
    return figures


def full_scan(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """Half of the field (1 GB), cold, in slabs, against the limit; and what memory that takes."""
    planes = size.field.shape[0] // 2
    return _scan(site, "field", planes, size.field.chunks[0], site.data / "root", "full scan, cold, loopback", ">= 0.6")


def incompressible_scan(site: Site, size: Size, seed: int, truth: Truth) -> list[Figure]:
    """Noise: what moves is what is stored."""
    frames, side = (200, 1024) if size.nsmall > 1000 else (20, 64)
    directory = site.fresh_directory("noise")
    rng = np.random.default_rng(seed)
    out = blosc2.empty(
        (frames, side, side),
        "u2",
        chunks=(1, side, side),
        blocks=(1, side // 8, side),
        urlpath=str(directory / "noise.b2nd"),
    )
    for number in range(frames):
        out[number] = rng.integers(0, 65536, (side, side), "u2")
    return _scan(site, "noise", frames, 8, directory, "incompressible uint16 frames, full scan", ">= 0.4")


def _scan(site: Site, name: str, planes: int, step: int, root: Path, what: str, aim: str) -> list[Figure]:
    source = blosc2.open(str(root / f"{name}.b2nd"))
    expected = [hash(source[i : i + step].tobytes()) for i in range(0, planes, step)]
    keys = [[[i, min(i + step, planes)], *([0, n] for n in source.shape[1:])] for i in range(0, planes, step)]
    this, raw = Own(root), RawBlocks()
    data = site.fresh_directory("scan")
    _make_index(root, data / "index", name)
    (data / "root").symlink_to(root)
    there = Site(data, data / "work", site.environments, site.link)
    nbytes = int(np.prod(source.shape[1:])) * planes * source.dtype.itemsize
    rates: dict[str, list[float]] = {"this": [], "limit": []}
    growth: dict[str, int] = {}
    try:
        raw.start_origin(there)
        for _ in range(3):
            with running(this, site, f"{name}.b2nd") as client:
                idle = [resident_nbytes(p) for p in this.processes]
                array = client[f"data/{name}.b2nd"]
                start = time.perf_counter()
                for i, want in zip(range(0, planes, step), expected, strict=True):
                    got = array[i : min(i + step, planes)]
                    spent = time.perf_counter()
                    assert hash(got.tobytes()) == want
                    start += time.perf_counter() - spent  # verifying is not reading
                rates["this"].append(nbytes / (time.perf_counter() - start))
                peaks = [peak_memory_nbytes(p) - i for p, i in zip(this.processes, idle, strict=True)]
                names = ("publisher", "broker", "subscriber")
                growth = {n: max(growth.get(n, 0), p) for n, p in zip(names, peaks, strict=True)}
            reader = raw.reader(there)
            reader.wait_until_ready()
            seconds = 0.0
            for key in keys:
                reader.send({"dataset": name, "keys": [key]})
                answer = reader.answer(60)
                assert "digest" in answer, answer
                seconds += answer["seconds"]
            rates["limit"].append(nbytes / seconds)
            reader.close()
    finally:
        raw.stop()
        shutil.rmtree(data)
    ours, limit = (float(np.median(rates[n])) / 1e6 for n in ("this", "limit"))
    memory = ", ".join(f"{n} {g / 1e6:.0f} MB" for n, g in growth.items())
    return [
        Figure(what, f"{ours / limit:.2f} of the limit", aim, f"{ours:.0f} against {limit:.0f} MB/s of values"),
        Figure(f"memory over idle, {what}", memory, "< 200 MB each", "the most of three runs"),
    ]


def _make_index(root: Path, goal: Path, name: str) -> None:
    command = [sys.executable, ISOLATED / "make_index.py", root, goal, name]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
