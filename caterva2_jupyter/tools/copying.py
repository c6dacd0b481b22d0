"""What both directions of conversion share: a root's arrays read box by box, progress, and what went wrong.

It writes nothing: ``import_hdf5`` and ``export_hdf5`` do.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.assembly import Assembler
from ..core.blocks import checksum_seed
from ..core.chunk_grid import BlockPlan
from ..core.metadata import Entry, Geometry
from ..core.selection import AxisRange, Selection
from ..errors import Caterva2Error
from ..storage.root import Root

__all__ = ["Report", "boxes", "copy_entries", "read_box", "slices"]

_BOX_NBYTES = 32 << 20


@dataclass(slots=True)
class Report:
    """What was copied, and what was not."""

    copied: int = 0
    skipped: int = 0
    failed: int = 0
    lines: list[str] = field(default_factory=list)

    def skip(self, path: str, reason: str) -> None:
        self.skipped += 1
        self._say(f"skipped '{path}': {reason}")

    def fail(self, path: str, reason: str) -> None:
        self.failed += 1
        self._say(f"failed '{path}': {reason}")

    def note(self, path: str, reason: str) -> None:
        self._say(f"note on '{path}': {reason}")

    def _say(self, line: str) -> None:
        text = " ".join(line.split())
        self.lines.append(text)
        print(text, file=sys.stderr)

    def summary(self) -> str:
        parts = [f"{self.copied} copied"]
        parts += [f"{n} {word}" for n, word in ((self.skipped, "skipped"), (self.failed, "failed")) if n]
        return ", ".join(parts)


def boxes(geometry: Geometry) -> Iterator[Selection]:
    """The array cut in boxes of whole chunks, each of a bounded size where chunks are."""
    if 0 in geometry.shape:
        return
    steps = list(geometry.chunks)
    nbytes = max(1, int(np.prod(steps, dtype=float)) * max(geometry.itemsize, 1))
    for axis in range(geometry.ndim - 1, -1, -1):
        factor = min(max(1, _BOX_NBYTES // nbytes), -(-geometry.shape[axis] // steps[axis]))
        steps[axis] *= factor
        nbytes *= factor
    starts = [range(0, n, s) for n, s in zip(geometry.shape, steps, strict=True)]
    for corner in itertools.product(*starts):
        stops = [min(a + s, n) for a, s, n in zip(corner, steps, geometry.shape, strict=True)]
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


def slices(box: Selection) -> tuple[slice, ...]:
    """Where a box of ``boxes`` is in its array."""
    return tuple(slice(axis.start, axis.stop) for axis in box.axes if isinstance(axis, AxisRange))


def copy_entries(
    entries: Iterable[Entry], copy: Callable[[Entry, Callable[[int], None]], None], report: Report, title: str
) -> None:
    """Copy what has data, one after another; what fails is reported and does not stop the rest.

    Parameters
    ----------
    copy : callable
        ``copy(entry, advance)``; ``advance(nbytes)`` tells progress.
    """
    todo = list(entries)
    with _progress(title, sum(e.nbytes for e in todo)) as advance:
        for entry in todo:
            try:
                copy(entry, advance)
            except Caterva2Error as error:
                report.fail(entry.path, str(error))
            except (OSError, TypeError, ValueError, RuntimeError, NotImplementedError, MemoryError) as error:
                report.fail(entry.path, f"{error}" or type(error).__name__)
            else:
                report.copied += 1


class _progress:
    """A bar on a terminal, where rich is installed; nothing elsewhere."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._bar: Any = None

    def __enter__(self) -> Callable[[int], None]:
        if sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
            except ImportError:
                return lambda nbytes: None
            columns = (
                "{task.description}",
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            task = self._bar.add_task(self._title, total=self._total)
            return lambda nbytes: self._bar.advance(task, nbytes)
        return lambda nbytes: None

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()
