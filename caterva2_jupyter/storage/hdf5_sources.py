"""Other files that an HDF5 file's content comes from: sources of virtual datasets, external raw files, linked files.

It finds where a name leads, as the HDF5 library would, and refuses what is outside of the root before the library can
open it; and it tells the state of each, which versions are made of.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AccessDeniedError, DatasetNotFoundError, UnsupportedDatasetError
from .generation import Generation, version_tag
from .hdf5_worker import Hdf5Worker
from .safe_open import OpenedPath, open_file

__all__ = ["FileState", "Hdf5Sources", "stamp_with", "state_texts"]

_MAX_SOURCES = 10_000


@dataclass(frozen=True, slots=True)
class FileState:
    """A file that values come from: its path in the root, and its state (``missing`` when it is not there)."""

    path: str
    state: str


class Hdf5Sources:
    """Where the files are that an HDF5 file names.

    Parameters
    ----------
    root : Path
        Directory that nothing is opened outside of.
    path : str
        Of the file, relative to it.
    worker : Hdf5Worker
    follow : bool
        May other files be named at all?
    """

    def __init__(self, root: Path, path: str, worker: Hdf5Worker, *, follow: bool) -> None:
        self._root, self._path, self._worker, self._follow_files = root, path, worker, follow

    def of_form(self, opened: OpenedPath, form: Mapping[str, Any], absent: list[str] | None = None) -> list[FileState]:
        """States of the other files that a dataset's values come from.

        Parameters
        ----------
        absent : list of str, optional
            Takes the names of files and datasets that are not there, in whose place HDF5 gives fill values.

        Raises
        ------
        UnsupportedDatasetError
            When one is outside of the root, or its content is not known to stay inside.
        """
        if "segments" in form:
            names = [self.locate(opened.path, str(name), "external raw file") for name, _, _ in form["segments"]]
            return [self.state(name) for name in dict.fromkeys(names)]
        pending = [(opened.path, str(file), str(dataset)) for file, dataset in form.get("sources", ())]
        found: dict[str, FileState] = {}
        seen: set[tuple[str, str]] = set()
        while pending:
            wanted: dict[str, list[str]] = {}
            for base, file, dataset in pending:
                for name, inner in self._expand(base, file, dataset):
                    if (name, inner) not in seen:
                        seen.add((name, inner))
                        wanted.setdefault(name, []).append(inner)
            if len(seen) > _MAX_SOURCES:
                raise UnsupportedDatasetError(f"a virtual dataset of over {_MAX_SOURCES} sources")
            pending = []
            for name, inners in wanted.items():
                pending += self._look_into(name, inners, found, absent)
        found.pop(opened.path, None)
        return [found[name] for name in sorted(found)]

    def _look_into(
        self, name: str, inners: list[str], found: dict[str, FileState], absent: list[str] | None
    ) -> list[tuple[str, str, str]]:
        """Sources of sources."""
        try:
            opened = open_file(self._root, name)
        except DatasetNotFoundError:
            found.setdefault(name, FileState(name, "missing"))
            if absent is not None:
                absent.append(name)
            return []
        with opened:
            state = Generation.of(opened.fd).stamp
            found[name] = FileState(name, state)
            if opened.path != name:
                found.setdefault(opened.path, FileState(opened.path, state))
            try:
                answers = self._worker.sources(opened.fd, state, inners)
            except UnsupportedDatasetError:
                if absent is not None:
                    absent.append(name)
                return []  # the library cannot open it either, and gives fill values
            further: list[tuple[str, str, str]] = []
            for inner, answer in zip(inners, answers, strict=True):
                if answer.get("missing") and absent is not None:
                    absent.append(f"{name}:{inner}")
                if "reason" in answer:
                    raise UnsupportedDatasetError(f"a virtual dataset with a source in {name!r}: {answer['reason']}")
                further += [(opened.path, str(f), str(d)) for f, d in answer.get("virtual", ())]
            return further

    def _expand(self, base: str, file: str, dataset: str) -> Iterator[tuple[str, str]]:
        """Source files (in the root) and datasets of a mapping, those of a ``%b`` series one by one."""
        if "%b" not in file + dataset:
            yield self._locate_source(base, file.replace("%%", "%")), dataset.replace("%%", "%")
            return
        for number in range(_MAX_SOURCES):
            name = self._locate_source(base, _numbered(file, number))
            yield name, _numbered(dataset, number)
            if self.state(name).state == "missing" or "%b" not in file:
                return

    def _locate_source(self, base: str, file: str) -> str:
        return base if file == "." else self.locate(base, file, "source")

    def locate(self, base: str, file: str, what: str) -> str:
        """Path in the root of a file that the one at ``base`` names, there or not.

        The order in which HDF5 looks: an absolute name as it is, then its last part beside the file.
        """
        if not self._follow_files:
            if file == posixpath.basename(self._path):
                return base
            raise UnsupportedDatasetError(
                f"its {what} {file!r} is another file, and the root is one file only: publish the directory"
            )
        beside = posixpath.dirname(base)
        if not file.startswith("/"):
            name = posixpath.join(beside, file)
            if not _stays_inside(name):
                raise UnsupportedDatasetError(f"its {what} {file!r} is outside of the root")
            self._refuse_links_out(name, file, what)
            return name
        for top in (os.path.abspath(self._root), os.path.realpath(self._root)):
            if file.startswith(top.rstrip("/") + "/"):
                name = file[len(top.rstrip("/")) + 1 :]
                if not _stays_inside(name):
                    break
                self._refuse_links_out(name, file, what)
                if self.state(name).state != "missing":
                    return name
                return posixpath.join(beside, posixpath.basename(file))
        if os.path.lexists(file) or not posixpath.basename(file):
            raise UnsupportedDatasetError(f"its {what} {file!r} is outside of the root")
        name = posixpath.join(beside, posixpath.basename(file))
        self._refuse_links_out(name, file, what)
        return name

    def _refuse_links_out(self, name: str, file: str, what: str) -> None:
        """Something is there, but not to be opened: the library would open it all the same."""
        try:
            open_file(self._root, name).close()
        except DatasetNotFoundError:
            if os.path.exists(os.path.join(self._root, name)):
                raise UnsupportedDatasetError(f"its {what} {file!r} is not a file inside of the root") from None
        except AccessDeniedError as error:
            raise UnsupportedDatasetError(f"its {what} {file!r}: {error}") from None

    def state(self, path: str) -> FileState:
        try:
            with open_file(self._root, path) as opened:
                return FileState(path, Generation.from_stat(opened.status).stamp)
        except (DatasetNotFoundError, AccessDeniedError):
            return FileState(path, "missing")


def _stays_inside(name: str) -> bool:
    depth = 0
    for part in name.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return False
    return "\0" not in name


def _numbered(text: str, number: int) -> str:
    return "%".join(part.replace("%b", str(number)) for part in text.split("%%"))


def state_texts(sources: Iterable[FileState]) -> list[str]:
    """What versions are made of."""
    return [f"{s.path}@{s.state}" for s in sources]


def stamp_with(own: str, sources: Iterable[FileState]) -> str:
    """The state of a file and of those that its content comes from, as one text."""
    texts = sorted(state_texts(sources))
    return f"{own}+{version_tag(texts)}" if texts else own
