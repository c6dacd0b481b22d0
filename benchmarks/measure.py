"""Runs workloads on peers, and verifies every value that is read against the source.

What a figure means is said in ``README.md``; how figures become tables in ``report``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import blosc2
import h5py
import numpy as np

from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.core.selection import parse_basic

from .datasets import Size
from .emulated_link import LinkBytes
from .peers import Peer, Site
from .processes import Reader, cpu_s, peak_memory_nbytes
from .workloads import Key, Workload, draw, draw_random

__all__ = ["Crowd", "Listing", "Sample", "Truth", "measure_crowd", "measure_listing", "measure_run"]

JOB_DEADLINE_S = 180.0
CROWD = 16


@dataclass(frozen=True)
class Sample:
    """One timed job.

    Attributes
    ----------
    state : {"cold", "warm", "restarted"}
        First time; again at once in the same reader; again in a new reader of the same services.
    block_nbytes : int
        Compressed bytes of the blocks that the keys touch.
    down_nbytes : int or None
        IP bytes towards the reader, counted until the link was quiet; None on loopback.
    """

    run: int
    peer: str
    workload: str
    state: str
    nkeys: int
    block_nbytes: int
    seconds: float
    error: str = ""
    reader_cpu_s: float = 0.0
    services_cpu_s: float = 0.0
    down_nbytes: int | None = None
    up_nbytes: int | None = None


@dataclass(frozen=True)
class Crowd:
    """Many readers of small squares at once."""

    peer: str
    nreaders: int
    nreads: int
    seconds: float
    error: str = ""
    services_cpu_s: float = 0.0
    down_nbytes: int | None = None


@dataclass(frozen=True)
class Listing:
    """All small arrays with shape, dtype and attributes; ``count`` of ``of`` were asked for."""

    peer: str
    count: int
    of: int
    seconds: float
    error: str = ""
    down_nbytes: int | None = None


@dataclass
class Truth:
    """The source itself, to compare with."""

    data: Path
    _opened: dict[str, Any] = field(default_factory=dict)
    _index: dict[str, Any] = field(default_factory=dict)

    def _array(self, dataset: str) -> Any:
        if dataset not in self._opened:
            root = self.data / "root"
            is_hdf5 = dataset == "hdf5"
            self._opened[dataset] = (
                h5py.File(root / "field.h5")["field"] if is_hdf5 else blosc2.open(str(root / f"{dataset}.b2nd"))
            )
        return self._opened[dataset]

    def digest(self, dataset: str, keys: Sequence[Key]) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for key in keys:
            digest.update(np.ascontiguousarray(self._array(dataset)[as_key(key)]).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def block_nbytes(self, dataset: str, keys: Sequence[Key]) -> int:
        """Compressed bytes of all blocks that the keys touch, each counted once (0: not known)."""
        if dataset == "hdf5":
            return 0
        if dataset not in self._index:
            with np.load(self.data / "index" / f"{dataset}.npz") as index:
                self._index[dataset] = Geometry.from_json(json.loads(str(index["geometry"]))), index["sizes"]
        geometry, sizes = self._index[dataset]
        touched = np.zeros(sizes.shape, np.bool_)
        for key in keys:
            for projection in BlockPlan(geometry, parse_basic(as_key(key), geometry.shape).selection):
                touched[projection.nchunk, projection.blocks] = True
        return int(sizes[touched].sum())


def as_key(form: Key) -> tuple[int | slice, ...]:
    return tuple(slice(*part) if isinstance(part, list) else part for part in form)


def measure_run(
    site: Site, peers: Sequence[Peer], size: Size, run: int, seed: int, truth: Truth, are_files_cold: bool = False
) -> list[Sample]:
    """All workloads on all peers once, peers in a random order."""
    workloads = draw(size, seed)
    expected = {w.name: truth.digest(w.dataset, w.keys) for w in workloads}
    touched = {w.name: truth.block_nbytes(w.dataset, w.keys) for w in workloads}
    samples: list[Sample] = []
    order = list(peers)
    random.Random(seed).shuffle(order)
    for peer in order:
        if are_files_cold:
            forget_files(site.data)
        try:
            reader = _start(site, peer)
        except RuntimeError as error:
            samples += [Sample(run, peer.name, w.name, "cold", len(w.keys), 0, 0.0, str(error)) for w in workloads]
            continue
        try:
            for workload in workloads:
                if workload.dataset not in peer.datasets:
                    continue
                for state in ("cold", "warm") if workload.is_repeated else ("cold",):
                    sample = _job(site, peer, reader, workload, run, state, expected[workload.name], touched)
                    _tell(sample)
                    samples.append(sample)
                    if "late" in sample.error:
                        reader.close()
                        reader = _reader(site, peer)
            if peer.fresh or peer.is_local:
                reader.close()
                reader = _reader(site, peer)
                for workload in workloads:
                    if workload.is_repeated and workload.dataset in peer.datasets:
                        sample = _job(site, peer, reader, workload, run, "restarted", expected[workload.name], touched)
                        samples.append(sample)
        finally:
            reader.close()
            peer.stop_fresh()
    return samples


def _reader(site: Site, peer: Peer) -> Reader:
    reader = peer.reader(site)
    try:
        reader.wait_until_ready()
    except RuntimeError:
        reader.close()
        raise
    return reader


def _start(site: Site, peer: Peer) -> Reader:
    """Empty services, and a reader of them."""
    try:
        peer.start_fresh(site)
        return _reader(site, peer)
    except RuntimeError:
        peer.stop_fresh()
        raise


def _job(
    site: Site,
    peer: Peer,
    reader: Reader,
    workload: Workload,
    run: int,
    state: str,
    expected: str,
    touched: dict[str, int],
) -> Sample:
    before, cpu = _carried(site), cpu_s(peer.processes)
    reader.send({"dataset": workload.dataset, "keys": workload.keys})
    answer = reader.answer(JOB_DEADLINE_S)
    moved, cpu = _carried(site), cpu_s(peer.processes) - cpu
    error = answer.get("error", "")
    if answer.get("late"):
        error = f"late: {error}"
    elif not error and answer["digest"] != expected:
        error = "WRONG VALUES"
    return Sample(
        run,
        peer.name,
        workload.name,
        state,
        len(workload.keys),
        touched[workload.name],
        answer.get("seconds", JOB_DEADLINE_S),
        error,
        answer.get("cpu_s", 0.0),
        cpu,
        moved.down - before.down if moved and before else None,
        moved.up - before.up if moved and before else None,
    )


def _carried(site: Site) -> LinkBytes | None:
    return site.link.carried_when_quiet(0.2) if site.link else None


def _tell(sample: Sample) -> None:
    what = sample.error or f"{sample.seconds * 1e3:9.1f} ms {(sample.down_nbytes or 0) / 1e6:9.3f} MB"
    print(f"{sample.peer:24} {sample.workload:22} {sample.state:5} {what}", file=sys.stderr, flush=True)


def measure_crowd(site: Site, peer: Peer, size: Size, nreads: int, seed: int, truth: Truth) -> Crowd:
    """Sixteen readers that have opened the field read small squares, all different, at the same time."""
    keys = draw_random(size, seed, CROWD * nreads)
    shares = [keys[i * nreads : (i + 1) * nreads] for i in range(CROWD)]
    readers: list[Reader] = []
    error = ""
    try:
        for _ in shares:
            readers.append(_reader(site, peer) if readers else _start(site, peer))
            readers[-1].send({"dataset": "field", "keys": [[0, 0, 0]]})
            error = error or readers[-1].answer(JOB_DEADLINE_S).get("error", "")
        before, cpu = _carried(site), cpu_s(peer.processes)
        start = time.perf_counter()
        for reader, share in zip(readers, shares, strict=True):
            reader.send({"dataset": "field", "keys": share})
        answers = [reader.answer(JOB_DEADLINE_S) for reader in readers]
        seconds, cpu, after = time.perf_counter() - start, cpu_s(peer.processes) - cpu, _carried(site)
        for answer, share in zip(answers, shares, strict=True):
            error = error or answer.get("error", "")
            if not error and answer["digest"] != truth.digest("field", share):
                error = "WRONG VALUES"
    except RuntimeError as problem:
        return Crowd(peer.name, CROWD, nreads, 0.0, str(problem))
    finally:
        for reader in readers:
            reader.close()
        peer.stop_fresh()
    down = after.down - before.down if before and after else None
    found = Crowd(peer.name, CROWD, nreads, seconds, error, cpu, down)
    print(f"{peer.name:24} {CROWD} readers {CROWD * nreads / seconds:8.1f} /s {error}", file=sys.stderr, flush=True)
    return found


def measure_listing(site: Site, peer: Peer) -> Listing:
    """List all small arrays with their metadata, the first time."""
    try:
        reader = _start(site, peer)
    except RuntimeError as problem:
        return Listing(peer.name, 0, 0, 0.0, str(problem))
    try:
        before = _carried(site)
        reader.send({"list": True})
        answer = reader.answer(JOB_DEADLINE_S)
        after = _carried(site)
    finally:
        reader.close()
        peer.stop_fresh()
    down = after.down - before.down if before and after else None
    error, seconds = answer.get("error", ""), answer.get("seconds", JOB_DEADLINE_S)
    found = Listing(peer.name, answer.get("count", 0), answer.get("of", 0), seconds, error, down)
    print(f"{peer.name:24} listed {found.count} of {found.of} in {seconds:.2f} s {error}", file=sys.stderr, flush=True)
    return found


def memory(peer: Peer) -> dict[str, int]:
    """Peak memory of each of a peer's services, by its command's last parts."""
    return {" ".join(p.command[-3:])[-40:]: peak_memory_nbytes(p) for p in peer.processes}


def forget_files(directory: Path) -> None:
    """Drop the data's files from the page cache."""
    for path in directory.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def as_json(items: Sequence[Any]) -> list[dict[str, Any]]:
    return [asdict(item) for item in items]
