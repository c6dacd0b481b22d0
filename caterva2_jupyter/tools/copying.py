"""What both directions of conversion share: a root's arrays read box by box, progress, the report, the command line.

It writes nothing: ``import_hdf5`` and ``export_hdf5`` do.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..core.assembly import Assembler
from ..core.blocks import BlockRecord, checksum_seed
from ..core.chunk_grid import BlockPlan
from ..core.metadata import Entry, Geometry
from ..core.selection import AxisRange, Selection
from ..errors import Caterva2Error, DatasetChangedError
from ..storage.root import Root

__all__ = [
    "IMPORT_FILE",
    "STRUCTURE_FILE",
    "Patterns",
    "Report",
    "add_common_options",
    "alone",
    "boxes",
    "copy_all",
    "read_box",
    "read_chunk",
    "run_command",
    "slices",
]

IMPORT_FILE = ".caterva2-import.json"
"""In a directory that was imported: what it was made of, and where each dataset of the HDF5 file is."""
STRUCTURE_FILE = ".caterva2-hdf5"
"""In a directory that was imported: the HDF5 file without the values that are in the directory."""

_BOX_NBYTES = 32 << 20
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(slots=True)
class Report:
    """What was copied, and what was not and why.

    Attributes
    ----------
    datasets : dict
        Path -> how it was written: ``as stored`` (no chunk was compressed again), ``partly as stored``,
        ``recompressed``, ``whole``.
    skipped : list of dict
        ``path``, ``reason``, and ``kept``: does it come back with ``cat2export``?
    failed, notes : list of dict
        ``path``, ``reason``.
    """

    datasets: dict[str, str] = field(default_factory=dict)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    nbytes: int = 0

    @property
    def copied(self) -> int:
        return len(self.datasets)

    def skip(self, path: str, reason: str, *, kept: bool = False) -> None:
        reason = " ".join(reason.split())
        self.skipped.append({"path": path, "reason": reason, "kept": kept})
        print(f"skipped '{path}': {reason}" + (" (kept for cat2export)" if kept else ""), file=sys.stderr)

    def fail(self, path: str, reason: str) -> None:
        reason = " ".join(reason.split())
        self.failed.append({"path": path, "reason": reason})
        print(f"failed '{path}': {reason}", file=sys.stderr)

    def note(self, path: str, reason: str) -> None:
        reason = " ".join(reason.split())
        self.notes.append({"path": path, "reason": reason})
        print(f"note on '{path}': {reason}", file=sys.stderr)

    def note_skipped_attributes(self, path: str, entry: Entry) -> None:
        """Those that only the structure file keeps."""
        for name, reason in entry.storage.get("attrs_skipped", {}).items():
            self.note(path, f"attribute '{name}' is only kept for cat2export: {reason}")

    def summary(self) -> str:
        """One line for people."""
        parts = [f"{self.copied} copied"]
        counts = [(len(self.skipped), "skipped"), (len(self.failed), "failed")]
        parts += [f"{n} {word}" for n, word in counts if n]
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The report of ``--json``."""
        return {
            "copied": self.copied,
            "nbytes": self.nbytes,
            "datasets": self.datasets,
            "skipped": self.skipped,
            "failed": self.failed,
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True)
class Patterns:
    """Which datasets are wanted, by patterns of their paths in the HDF5 file (``*`` matches ``/`` too).

    Examples
    --------
    >>> patterns = Patterns(("climate/*",), ("*/raw",))
    >>> patterns.wants("/climate/t"), patterns.wants("climate/raw"), patterns.wants("other")
    (True, False, False)
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def wants(self, path: str) -> bool:
        path = path.strip("/")
        is_in = not self.include or any(fnmatchcase(path, p.strip("/")) for p in self.include)
        return is_in and not any(fnmatchcase(path, p.strip("/")) for p in self.exclude)


def boxes(shape: Sequence[int], chunks: Sequence[int], itemsize: int, whole_axes: int = 0) -> Iterator[Selection]:
    """An array cut in boxes of whole chunks, each of a bounded size where chunks are.

    Parameters
    ----------
    whole_axes : int
        Number of last axes that are not cut.
    """
    if 0 in shape:
        return
    first_whole = len(shape) - whole_axes
    steps = [n if axis >= first_whole else c for axis, (n, c) in enumerate(zip(shape, chunks, strict=True))]
    nbytes = max(1, math.prod(steps) * max(itemsize, 1))
    for axis in range(len(shape) - 1, -1, -1):
        factor = min(max(1, _BOX_NBYTES // nbytes), -(-shape[axis] // steps[axis]))
        steps[axis] *= factor
        nbytes *= factor
    starts = [range(0, n, s) for n, s in zip(shape, steps, strict=True)]
    for corner in itertools.product(*starts):
        stops = [min(a + s, n) for a, s, n in zip(corner, steps, shape, strict=True)]
        yield Selection(tuple(AxisRange(a, b) for a, b in zip(corner, stops, strict=True)))


def read_box(root: Root, entry: Entry, box: Selection) -> npt.NDArray[Any]:
    """Values of a box, every record verified."""
    assert entry.geometry is not None
    assembler = Assembler(entry.geometry, box)
    seed = checksum_seed(entry.id, entry.version)
    for projection in BlockPlan(entry.geometry, box):
        for record in root.read_chunk(entry, projection, projection.blocks.tolist()):
            record.verify(seed)
            assembler.add(projection, record)
    return assembler.out


def read_chunk(root: Root, entry: Entry, projection: Any) -> list[BlockRecord]:
    """Records of all blocks of a chunk, those of its padding too, verified."""
    assert entry.geometry is not None
    records = root.read_chunk(entry, projection, list(range(entry.geometry.chunk_nblocks(projection.nchunk))))
    seed = checksum_seed(entry.id, entry.version)
    for record in records:
        record.verify(seed)
    return records


def slices(box: Selection) -> tuple[slice, ...]:
    """Where a box of ``boxes`` is in its array."""
    return tuple(slice(axis.start, axis.stop) for axis in box.axes if isinstance(axis, AxisRange))


def chunk_box(geometry: Geometry, nchunk: int) -> Selection:
    """What of the array is in a chunk."""
    coords = geometry.chunk_coords(nchunk)
    starts = [i * c for i, c in zip(coords, geometry.chunks, strict=True)]
    stops = [min(a + c, n) for a, c, n in zip(starts, geometry.chunks, geometry.shape, strict=True)]
    return Selection(tuple(AxisRange(a, b) for a, b in zip(starts, stops, strict=True)))


Advance = Callable[[int], None]


def copy_all(
    todo: Sequence[Any], copy: Callable[[Any, Advance], str], report: Report, title: str, done_nbytes: int = 0
) -> None:
    """Copy what has data, one after another; what fails is reported and does not stop the rest.

    Parameters
    ----------
    todo : sequence
        With ``path`` and ``nbytes``.
    copy : callable
        ``copy(item, advance)`` says how it was written; ``advance(nbytes)`` tells progress.
    done_nbytes : int
        Of an earlier run.

    Raises
    ------
    OSError
        When there is no room: nothing else would come out well either.
    DatasetChangedError
        When what is read was changed meanwhile.
    """
    with _progress(title, done_nbytes + sum(item.nbytes for item in todo), done_nbytes) as advance:
        for item in todo:
            try:
                how = copy(item, advance)
            except DatasetChangedError:
                raise
            except Caterva2Error as error:
                report.fail(item.path, str(error))
            except OSError as error:
                if error.errno in _FATAL:
                    raise
                report.fail(item.path, f"{error}")
            except (TypeError, ValueError, RuntimeError, NotImplementedError, MemoryError) as error:
                report.fail(item.path, f"{error}" or type(error).__name__)
            else:
                report.datasets[item.path] = how
                report.nbytes += item.nbytes


@contextmanager
def _progress(title: str, total: int, done: int) -> Iterator[Advance]:
    """A bar of bytes on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda nbytes: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
    except ImportError:
        yield _Percent(title, total, done)
        print(file=sys.stderr)
        return
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title.replace("[", "\\["), total=total, completed=done)
        yield lambda nbytes: bar.advance(task, nbytes)


@dataclass(slots=True)
class _Percent:
    """A line that counts, where rich is not installed."""

    title: str
    total: int
    done: int

    def __call__(self, nbytes: int) -> None:
        self.done += nbytes
        percent = 100 * self.done // max(self.total, 1)
        print(f"\r{self.title}: {self.done >> 20} MiB, {percent} %", end="", file=sys.stderr, flush=True)


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Only one process writes it.

    Raises
    ------
    BlockingIOError
        When another one does.
    """
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(errno.EAGAIN, f"another process is making '{what}': wait for it") from None
        yield
        lock.unlink(missing_ok=True)
    finally:
        os.close(fd)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """What both commands have."""
    of_target = parser.add_mutually_exclusive_group()
    resume = "a complete target of the same source is well: do nothing then (interrupted runs are always gone on with)"
    of_target.add_argument("--resume", action="store_true", help=resume)
    overwrite = "replace the target, once the new one is complete"
    of_target.add_argument("--overwrite", action="store_true", help=overwrite)
    include = "only datasets whose path in the HDF5 file matches (climate/*); may be repeated"
    parser.add_argument("--include", metavar="PATTERN", action="append", default=[], help=include)
    parser.add_argument("--exclude", metavar="PATTERN", action="append", default=[], help="not those; may be repeated")
    told = "a report on standard output: what was not carried, and why"
    parser.add_argument("--json", action="store_true", help=told)


def run_command(program: str, target: Path, as_json: bool, convert: Callable[[], Report]) -> int:
    """The exit status: 1 when something could not be converted that should have been."""
    try:
        report = convert()
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except OSError as error:
        text = f"{error.strerror} ('{error.filename}')" if error.filename and error.strerror else str(error)
        if error.errno in _FATAL:
            text += ": make room, and the same command goes on where it stopped"
        return _problem(program, text, as_json)
    except (Caterva2Error, ValueError) as error:
        return _problem(program, str(error), as_json)
    if as_json:
        print(json.dumps({"target": str(target), **report.to_json()}, indent=2))
    else:
        print(f"{target}: {report.summary()}")
    return 1 if report.failed else 0


def _problem(program: str, text: str, as_json: bool) -> int:
    line = " ".join(text.split())
    print(f"{program}: {line}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": line}))
    return 1


def sorted_entries(entries: Iterable[Entry]) -> list[Entry]:
    """What is itself before what only leads to it, then by path."""
    return sorted(entries, key=lambda e: (bool(e.target), e.path))
