"""``cat2import FILE DIR``: turn an HDF5 (netCDF4, NeXus) file into a directory root of Blosc2 arrays.

Groups become directories, datasets ``.b2nd`` files with their attributes and names of axes, further names of an object
symbolic links. Chunks go over as they are stored where Blosc2 can read them. What a directory cannot hold
is reported, and kept in a hidden HDF5 file for ``cat2export``.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from ..compute.netcdf_attributes import netcdf_attributes
from ..compute.netcdf_dimensions import ListedGroup
from ..core.attributes import encode_attr
from ..core.group_file import GROUP_FILE, format_group_file
from ..core.paths import parent
from ..errors import UnsupportedDatasetError
from ..storage.hdf5_edge import FOREIGN_ERRORS
from ..storage.hdf5_plugins import load_plugins
from ..storage.hdf5_root import Hdf5Root
from ..storage.hdf5_worker import Hdf5Worker
from .array_writer import ArrayWriter
from .copying import (
    IMPORT_FILE,
    STRUCTURE_FILE,
    Advance,
    Patterns,
    Report,
    add_common_options,
    alone,
    copy_all,
    run_command,
)
from .hdf5_structure import Plan, StructureCopy, file_settings
from .import_journal import LOCK, ImportJournal
from .import_plan import ImportedArray, ImportPlan

__all__ = ["import_hdf5", "main"]

FORMAT = 1


def import_hdf5(
    source: Path,
    directory: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    patterns: Patterns | None = None,
    worker: Hdf5Worker | None = None,
) -> Report:
    """Write a directory root of what an HDF5 file holds.

    Parameters
    ----------
    source : Path
    directory : Path
        It appears once it is complete. An import of the same file that was interrupted is gone on with.
    resume : bool
        A directory that is there and complete, of the same file, is left as it is.
    overwrite : bool
        Replace a directory that was imported.
    patterns : Patterns, optional
        Which datasets.
    worker : Hdf5Worker, optional
        Where HDF5 is read, to be shared by several conversions.

    Raises
    ------
    FileExistsError, FileNotFoundError, OSError
    Caterva2Error
        When the file cannot be read as HDF5.
    """
    if not source.is_file():
        raise FileNotFoundError(f"there is no file '{source}'")
    patterns = patterns or Patterns()
    status = source.stat()
    of = {
        "format": FORMAT,
        "source": {"name": source.name, "nbytes": status.st_size, "mtime_ns": status.st_mtime_ns},
        "include": list(patterns.include),
        "exclude": list(patterns.exclude),
    }
    if os.path.lexists(directory):
        if resume and _imported_of(directory) == of:
            return Report()
        _check_replaceable(directory, overwrite)
    load_plugins()
    unfinished = directory.with_name(f".{directory.name}.part")
    root = Hdf5Root(source, "import", worker, follow=True)
    try:
        entries = root.entries()
        unfinished.mkdir(parents=True, exist_ok=True)
        with alone(unfinished / LOCK, str(directory)):
            journal = ImportJournal(unfinished, of)
            plan = ImportPlan(entries, patterns, journal.report)
            plan.make()
            _Import(source, root, unfinished, plan, journal).run()
            if (now := source.stat()).st_size != status.st_size or now.st_mtime_ns != status.st_mtime_ns:
                shutil.rmtree(unfinished)
                raise UnsupportedDatasetError(f"'{source}' was changed while it was read: try again")
            journal.close()
        _put_in_place(unfinished, directory, overwrite)
    finally:
        root.close()
    return journal.report


def _imported_of(directory: Path) -> dict[str, Any] | None:
    try:
        told = json.loads((directory / IMPORT_FILE).read_bytes())
        return {key: told[key] for key in ("format", "source", "include", "exclude")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_replaceable(directory: Path, overwrite: bool) -> None:
    if not overwrite:
        raise FileExistsError(f"'{directory}' exists already: remove it, choose another name, or give --overwrite")
    if not (directory / IMPORT_FILE).is_file() or directory.is_symlink():
        raise FileExistsError(f"'{directory}' was not made by cat2import and is not replaced: choose another name")


def _put_in_place(unfinished: Path, directory: Path, overwrite: bool) -> None:
    if not os.path.lexists(directory):
        os.replace(unfinished, directory)
        return
    _check_replaceable(directory, overwrite)
    old = directory.with_name(f".caterva2-old-{secrets.token_hex(4)}")
    os.replace(directory, old)
    os.replace(unfinished, directory)
    shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Import:
    """Carries a plan out."""

    source: Path
    root: Hdf5Root
    directory: Path
    plan: ImportPlan
    journal: ImportJournal

    @property
    def report(self) -> Report:
        return self.journal.report

    def run(self) -> None:
        self._make_structure()
        for path, group in self.plan.groups.items():
            self._write_group(path, group)
        todo = []
        for array in self.plan.arrays:
            done = self.journal.done.get(array.path)
            if done is not None and (self.directory / array.path).is_file():
                self.report.datasets[array.path] = str(done.get("how"))
                self.report.nbytes += array.nbytes
            else:
                todo.append(array)
        if len(todo) < len(self.plan.arrays):
            count = f"{len(self.plan.arrays) - len(todo)} of {len(self.plan.arrays)} datasets are there"
            print(f"going on with an import that was interrupted: {count}", file=sys.stderr)
        copy_all(todo, self._copy, self.report, self.source.name, self.report.nbytes)
        failed = {item["path"] for item in self.report.failed}
        for path, goal in self.plan.links:
            if goal not in failed and not os.path.lexists(self.directory / path):
                os.symlink(os.path.relpath(goal, parent(path) or "."), self.directory / path)
        placed = {inside: path for inside, path in self.plan.placed.items() if path not in failed}
        told = {**self.journal.of, "placed": placed, "groups": sorted(self.plan.groups), "shorter": self.plan.shorter}
        (self.directory / IMPORT_FILE).write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n")

    def _write_group(self, path: str, group: ListedGroup) -> None:
        entry = group.entry if group.entry.attrs_inline else self.root.attributes(group.entry)
        attrs: dict[str, Any] = {}
        for name, value in netcdf_attributes(entry).items():
            try:
                encode_attr(value)
                attrs[name] = value
            except TypeError as error:
                self.report.note(path or "/", f"attribute '{name}' is left out: {error}")
        self.report.note_skipped_attributes(path or "/", entry)
        unlimited = sorted(dim for dim, d in group.dimensions.items() if d.is_unlimited)
        (self.directory / path).mkdir(parents=True, exist_ok=True)
        if attrs or unlimited:
            (self.directory / path / GROUP_FILE).write_bytes(format_group_file(attrs, unlimited))

    def _make_structure(self) -> None:
        goal = self.directory / STRUCTURE_FILE
        if goal.exists():
            return
        unfinished = goal.with_name(f"{goal.name}.part")
        unfinished.unlink(missing_ok=True)

        def plan_of(path: str, dataset: Any) -> Plan:
            if not self.plan.patterns.wants(path):
                return Plan(is_kept=False)
            if path not in self.plan.placed:
                return Plan()
            chunks = next(a.entry.geometry.chunks for a in self.plan.arrays if a.entry.storage["hdf5"] == path
                          if a.entry.geometry is not None)  # fmt: skip
            return Plan(with_values=False, chunks=chunks[: dataset.rank])

        try:
            with h5py.File(self.source, "r", locking=False) as source:
                if source.userblock_size:
                    self.report.note("/", f"the user block of {source.userblock_size} bytes is left out")
                with h5py.File(unfinished, "w", **file_settings(source)) as target:
                    StructureCopy(source, target, plan_of, lambda path, text: self.report.note(path, text)).run()
            os.replace(unfinished, goal)
        except FOREIGN_ERRORS as error:
            unfinished.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno:
                raise
            self.report.note("/", f"what is special to HDF5 is not kept for cat2export: {error}")

    def _copy(self, array: ImportedArray, advance: Advance) -> str:
        how = ArrayWriter(self.root, self.directory, self.report).write(array, advance)
        self.journal.add(array.path, how)
        return how


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status: 1 when something could not be converted that should have been."""
    parser = argparse.ArgumentParser(prog="cat2import", description=__doc__.split("\n\n")[0])
    parser.add_argument("file", metavar="FILE", type=Path, help="the HDF5 file to read")
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory to make")
    add_common_options(parser)
    given = parser.parse_args(arguments)
    patterns = Patterns(tuple(given.include), tuple(given.exclude))
    return run_command(
        "cat2import",
        given.directory,
        given.json,
        lambda: import_hdf5(
            given.file, given.directory, resume=given.resume, overwrite=given.overwrite, patterns=patterns
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
