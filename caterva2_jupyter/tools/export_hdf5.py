"""``cat2export DIR FILE``: turn a directory root into an HDF5 file.

Directories become groups, Blosc2 arrays datasets with their attributes and dimension scales, other files datasets of
bytes. What ``cat2import`` made of an HDF5 file becomes what it was, with what was changed in the directory since.
Chunks go over as they are stored where HDF5 can read them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from ..core.metadata import Entry
from ..storage.directory_root import DirectoryRoot
from ..storage.hdf5_worker import Hdf5Worker
from .checkpointed_file import CheckpointedFile
from .copying import Advance, Patterns, Report, add_common_options, alone, copy_all, run_command
from .dataset_writer import write_array
from .export_structure import ExportedDataset, ExportStructure, open_imported
from .hdf5_filters import CODECS, Filters, filters_of
from .hdf5_structure import file_settings

__all__ = ["CODECS", "export_hdf5", "main"]

_CHECKPOINT_S = 5.0


def export_hdf5(
    directory: Path,
    target: Path,
    codec: str = "auto",
    *,
    resume: bool = False,
    overwrite: bool = False,
    patterns: Patterns | None = None,
    worker: Hdf5Worker | None = None,
) -> Report:
    """Write an HDF5 file of what a directory root holds.

    Parameters
    ----------
    directory : Path
    target : Path
        It appears once it is complete. An export of the same state that was interrupted is gone on with.
    codec : str
        ``auto``: the filters that a dataset had in HDF5, Blosc2 for the others. Else ``blosc2``, ``gzip``, ``lz4``,
        ``zstd`` (``gzip:6``: with a level) or ``none`` for all that is chunked. ``blosc2``, ``lz4`` and ``zstd`` need
        hdf5plugin, here and where the file is read.
    resume : bool
        A file that is there is left as it is.
    overwrite : bool
        Replace a file.
    patterns : Patterns, optional
        Which datasets, by their paths in the HDF5 file.
    worker : Hdf5Worker, optional
        Where HDF5 is read, to be shared by several conversions.

    Raises
    ------
    FileExistsError, FileNotFoundError, OSError
    ValueError
        When that codec is not to be had.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no directory '{directory}'")
    if os.path.lexists(target):
        if resume and target.is_file():
            return Report()
        if not overwrite:
            raise FileExistsError(f"'{target}' exists already: remove it, choose another name, or give --overwrite")
        if not target.is_file() or target.is_symlink():
            raise FileExistsError(f"'{target}' is not a file, and is not replaced: choose another name")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no directory '{target.parent}' to write '{target.name}' in")
    filters = filters_of(codec)
    patterns = patterns or Patterns()
    unfinished = target.with_name(f".{target.name}.part")
    root = DirectoryRoot(directory, "export")
    try:
        with alone(target.with_name(f".{target.name}.lock.part"), str(target)):
            entries = [entry for entry, _ in root.scan([])]
            of = _digest(entries, codec, patterns)
            with CheckpointedFile(unfinished, go_on=True) as raw:
                if raw.state is not None and raw.state.get("of") != of:
                    raw = _afresh(raw, unfinished)
                export = _Export(directory, root, entries, raw, of, filters, codec == "auto", patterns, worker)
                export.run()
                raw.forget()
            os.replace(unfinished, target)
    finally:
        root.close()
    return export.report


def _afresh(raw: CheckpointedFile, path: Path) -> CheckpointedFile:
    """What was begun is of another state of the directory."""
    raw.close()
    return CheckpointedFile(path)


def _digest(entries: list[Entry], codec: str, patterns: Patterns) -> str:
    """A text for the state of all that is exported, and how."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([codec, patterns.include, patterns.exclude]).encode())
    for entry in sorted(entries, key=lambda e: e.path):
        digest.update(json.dumps([entry.path, entry.kind, entry.version, entry.attrs_tag]).encode())
    return digest.hexdigest()


@dataclass(slots=True)
class _Export:
    directory: Path
    root: DirectoryRoot
    entries: list[Entry]
    raw: CheckpointedFile
    of: str
    filters: Filters
    keeps_filters: bool
    patterns: Patterns
    worker: Hdf5Worker | None = None
    report: Report = field(default_factory=Report)
    datasets: list[ExportedDataset] = field(default_factory=list)
    _done: set[str] = field(default_factory=set)
    _file: Any = None
    _saved_at: float = 0.0

    def run(self) -> None:
        before = self.raw.state
        with ExitStack() as stack:
            imported = open_imported(self.directory, self.report, self.worker, stack)
            if before is None:
                settings = {} if imported is None else file_settings(imported.file)
                self._file = stack.enter_context(h5py.File(self.raw, "w", **settings))
                self._structure().make(imported)
                self._save({"datasets": [[d.path, d.goal] for d in self.datasets], "report": _told(self.report)})
            else:
                self._file = stack.enter_context(h5py.File(self.raw, "r+"))
                self._go_on(before)
            todo = [dataset for dataset in self.datasets if dataset.goal not in self._done]
            copy_all(todo, self._copy, self.report, self.directory.name, self.report.nbytes)
            for failed in self.report.failed:
                self._structure().drop(failed["path"])
            self._file.flush()

    def _structure(self) -> ExportStructure:
        return ExportStructure(
            self.directory,
            self.root,
            self.entries,
            self._file,
            self.filters,
            self.keeps_filters,
            self.patterns,
            self.report,
            self.datasets,
        )

    def _go_on(self, state: Mapping[str, Any]) -> None:
        found = {entry.path: entry for entry in self.entries}
        self.datasets = [ExportedDataset(found[where], path) for where, path in state["datasets"]]
        self._done = set(state.get("done", ()))
        told = state["report"]
        self.report.skipped, self.report.notes = list(told["skipped"]), list(told["notes"])
        for dataset in self.datasets:
            if dataset.goal in self._done:
                self.report.datasets[dataset.path] = str(told["datasets"].get(dataset.path, "whole"))
                self.report.nbytes += dataset.nbytes
        count = f"{len(self._done)} of {len(self.datasets)} datasets are there"
        print(f"going on with an export that was interrupted: {count}", file=sys.stderr)

    def _save(self, state: dict[str, Any]) -> None:
        self._file.flush()
        self.raw.checkpoint({"of": self.of, **state}, self._file.id.get_filesize())
        self._saved_at = time.monotonic()

    def _copy(self, dataset: ExportedDataset, advance: Advance) -> str:
        made = self._file[dataset.goal]
        how = write_array(self.root, dataset.entry, made, advance)
        self._done.add(dataset.goal)
        if time.monotonic() - self._saved_at > _CHECKPOINT_S:
            report = _told(self.report) | {"datasets": {**self.report.datasets, dataset.path: how}}
            places = [[d.path, d.goal] for d in self.datasets]
            self._save({"datasets": places, "report": report, "done": sorted(self._done)})
        return how


def _told(report: Report) -> dict[str, Any]:
    return {"skipped": report.skipped, "notes": report.notes, "datasets": report.datasets}


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status: 1 when something could not be converted that should have been."""
    parser = argparse.ArgumentParser(prog="cat2export", description=__doc__.split("\n\n")[0])
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory root to read")
    parser.add_argument("file", metavar="FILE", type=Path, help="the HDF5 file to make")
    codec = f"{', '.join(CODECS)}; a level may follow, as gzip:6 (default: auto, the filters that datasets had in HDF5 "
    parser.add_argument("--codec", "--compression", default="auto", help=codec + "and Blosc2 for others)")
    add_common_options(parser)
    given = parser.parse_args(arguments)
    patterns = Patterns(tuple(given.include), tuple(given.exclude))
    return run_command(
        "cat2export",
        given.file,
        given.json,
        lambda: export_hdf5(
            given.directory,
            given.file,
            given.codec,
            resume=given.resume,
            overwrite=given.overwrite,
            patterns=patterns,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
