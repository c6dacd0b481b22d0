"""Writing to an area's directory: uploads, copies, moves, removals, each of them complete or not there.

What is written is written aside (``staging``, ``upload``) and renamed into place here, when it is complete and on disk.
Every directory is opened by the rules of ``safe_open`` and everything done relative to it, so no link leads out. The
bytes that all areas take together are bounded by one ``Quota``. Everything blocks: callers are threads. What is listed
is ``area_root``'s business.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..core.group_file import GROUP_FILE
from ..core.paths import MAX_NAME_BYTES, join, name, parent, parse_path
from ..errors import (
    AccessDeniedError,
    ConflictError,
    DatasetNotFoundError,
    InvalidPathError,
    SourceUnavailableError,
)
from .area_root import INCOMING, PACKED_SUFFIX
from .quota import Quota
from .safe_open import OpenedPath, open_directory, open_file, read_at
from .staging import Staged, Staging, in_words, is_kept_as_it_is, sync_path
from .upload import Upload

__all__ = ["Area"]

_COPIED_AT_ONCE_NBYTES = 8 << 20
_MAX_DEPTH = 200


@dataclass(frozen=True, slots=True)
class _Found:
    """What is at a path: the name that it has in its directory, its status, and whether it is packed."""

    name: str
    status: os.stat_result
    is_packed: bool = False

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


class Area:
    """A directory that is written to.

    Parameters
    ----------
    directory : Path
        Made when it is not there.
    label : str
        The area's name, for messages.
    quota : Quota

    Raises
    ------
    SourceUnavailableError
        When the directory cannot be used.

    Notes
    -----
    Paths are as ``core.paths.parse_path`` gives them; everything else about them is checked here.
    """

    def __init__(self, directory: Path, label: str, quota: Quota) -> None:
        self.directory, self.label, self.quota = Path(os.path.abspath(directory)), label, quota
        self._staging = Staging(self.directory, label, quota)
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SourceUnavailableError(f"area {label} cannot be used: {error.strerror}") from None

    def close(self) -> None:
        """Drop what was not completed."""
        self._staging.close()

    # What is there

    def is_directory(self, path: str) -> bool:
        """Is there a directory (not a file with datasets in it)?"""
        found = self._find(path)
        return found is not None and found.is_directory

    def exists(self, path: str) -> bool:
        return self._find(path) is not None

    def _find(self, path: str) -> _Found | None:
        try:
            with self._parent(path) as directory:
                return _look(directory, name(path)) if path else _Found("", directory.status)
        except (DatasetNotFoundError, AccessDeniedError):
            return None

    # Writing

    def begin(self, path: str, nbytes: int | None = None, *, overwrite: bool = True) -> Upload:
        """Begin to write a file.

        Parameters
        ----------
        path : str
        nbytes : int, optional
            Its length, as far as it is known.
        overwrite : bool
            May it replace a file that is there?

        Raises
        ------
        InvalidPathError
            When nothing can have that name here.
        ConflictError
            When a directory is there, a file is where a directory would have to be, or, not to be replaced, a file.
        QuotaExceededError
        SourceUnavailableError
        """
        self._check_goal(path, overwrite=overwrite)
        self.quota.check(nbytes if nbytes is not None and is_kept_as_it_is(path) else 0)

        def complete(staged: Staged, is_packed: bool) -> None:
            found = _Found("", os.stat(staged.path), is_packed)
            self._complete(staged, found, path, overwrite=overwrite)

        return Upload(self._staging.stage(), path, nbytes, self.label, complete)

    def make_directory(self, path: str) -> None:
        """Make a directory, and those that it is in; fine when it is there.

        Raises
        ------
        InvalidPathError, ConflictError, SourceUnavailableError
        """
        _check_names(path)
        with self._writing(), self._make(path):
            pass

    def remove(self, path: str) -> None:
        """Remove a file or a directory with all that is in it; of the area itself, what is in it.

        Raises
        ------
        DatasetNotFoundError
        """
        aside: list[Path | None] = []
        with self._writing(), open_directory(self.directory, parent(path)) as directory:
            if path:
                found = _look(directory, name(path))
                if found is None:
                    raise DatasetNotFoundError(f"nothing at {path!r} in area {self.label}")
                aside.append(self._discard(directory, found.name))
                self._discard_other(directory, name(path), found.name)
            else:
                children = [child for child in os.listdir(directory.fd) if child != INCOMING]
                aside += [self._discard(directory, child) for child in children]
            _sync(directory.fd)
        for tree in aside:
            if tree is not None:
                shutil.rmtree(tree, ignore_errors=True)

    def move(self, path: str, goal_area: Area, goal: str, *, overwrite: bool = True) -> None:
        """Move a file or directory, to another area perhaps.

        Raises
        ------
        DatasetNotFoundError, InvalidPathError, ConflictError, SourceUnavailableError
        """
        found = self._checked_source(path, goal_area, goal)
        if found.is_directory and goal_area is self and (goal == path or goal.startswith(path + "/")):
            raise ConflictError(f"{path!r} cannot be moved into itself")
        if goal_area is self and goal == path:
            return
        goal_area._check_goal(goal, overwrite=overwrite)
        try:
            with self._writing(), self._parent(path) as source, goal_area._make(parent(goal)) as target:
                goal_area._put(source.fd, found.name, found, target, goal, overwrite=overwrite)
                _sync(source.fd)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return
        self.copy(path, goal_area, goal, overwrite=overwrite)
        self.remove(path)

    def copy(self, path: str, goal_area: Area, goal: str, *, overwrite: bool = True) -> None:
        """Copy a file, or a directory with all that is in it: all of it, or nothing.

        Raises
        ------
        DatasetNotFoundError, InvalidPathError, ConflictError, QuotaExceededError, SourceUnavailableError
        """
        found = self._checked_source(path, goal_area, goal)
        goal_area._check_goal(goal, overwrite=overwrite)
        if goal_area is self and (goal == path or (found.is_directory and goal.startswith(path + "/"))):
            raise ConflictError(f"{path!r} cannot be copied onto or into itself")
        goal_area.quota.recount()
        with goal_area._staging.stage() as staged:
            if found.is_directory:
                self._copy_directory(path, staged.path, staged)
            else:
                self._copy_file(join(parent(path), found.name), staged.path, staged)
            goal_area._complete(staged, found, goal, overwrite=overwrite)

    def _checked_source(self, path: str, goal_area: Area, goal: str) -> _Found:
        _check_names(goal)
        found = self._find(path) if path else None
        if found is None:
            raise DatasetNotFoundError(f"nothing at {path!r} in area {self.label}")
        if not goal:
            raise ConflictError(f"{goal_area.label} itself cannot be replaced: name what to make in it")
        return found

    def _check_goal(self, goal: str, *, overwrite: bool) -> None:
        """Could something be put there? (Once more when it is.)"""
        _check_names(goal)
        if not goal:
            raise ConflictError(f"{self.label} is an area: name a file in it, as {self.label}/NAME")
        at = goal
        while at := parent(at):
            found = self._find(at)
            if found is not None and not found.is_directory and not stat.S_ISLNK(found.status.st_mode):
                raise ConflictError(f"{at!r} in area {self.label} is a file: nothing can be put below it")
        found = self._find(goal)
        if found is not None and found.is_directory:
            raise ConflictError(f"there is a directory {goal!r} in area {self.label}: remove it first")
        if found is not None and not overwrite:
            raise _exists(goal, self.label)

    # Copies

    def _copy_directory(self, path: str, target: Path, staged: Staged, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise ConflictError(f"directories in {path[:80]!r} are too deep")
        target.mkdir()
        with open_directory(self.directory, path) as directory:
            names = sorted(os.listdir(directory.fd))
        for child in names:
            below = join(path, child)
            if child == INCOMING and not path:
                continue
            try:
                with open_directory(self.directory, below):
                    is_directory = True
            except DatasetNotFoundError:
                is_directory = False
            # Links that lead out, and what is no file, are not there for whoever looks.
            with suppress(DatasetNotFoundError):
                if is_directory:
                    self._copy_directory(below, target / child, staged, depth + 1)
                else:
                    self._copy_file(below, target / child, staged)
        sync_path(target)

    def _copy_file(self, path: str, target: Path, staged: Staged) -> None:
        with open_file(self.directory, path) as source:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                position, nbytes = 0, source.status.st_size
                while position < nbytes:
                    count = min(_COPIED_AT_ONCE_NBYTES, nbytes - position)
                    staged.hold(count)
                    copied = _copy_part(source.fd, fd, position, count)
                    if not copied:
                        raise ConflictError(f"{path!r} changed while it was copied: try again")
                    position += copied
                os.fchmod(fd, stat.S_IMODE(source.status.st_mode))
                os.fsync(fd)
            finally:
                os.close(fd)

    # Names

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Names change, and only here; what the system says is put in words."""
        try:
            with self.quota.lock:
                yield
                self.quota.recount()
        except OSError as error:
            if isinstance(error, (DatasetNotFoundError, AccessDeniedError, SourceUnavailableError)):
                raise
            if error.errno == errno.EXDEV:
                raise
            raise in_words(error, self.label) from error

    def _parent(self, path: str) -> OpenedPath:
        """The open directory that a path is in."""
        return open_directory(self.directory, parent(path))

    @contextmanager
    def _make(self, path: str) -> Iterator[OpenedPath]:
        """The open directory at a path, made when it is not there."""
        opened = open_directory(self.directory, "")
        try:
            at = ""
            for child in path.split("/") if path else []:
                at = join(at, child)
                try:
                    below = open_directory(self.directory, at)
                except DatasetNotFoundError:
                    try:
                        os.mkdir(child, dir_fd=opened.fd)
                        _sync(opened.fd)
                        below = open_directory(self.directory, at)
                    except (FileExistsError, DatasetNotFoundError):
                        raise ConflictError(f"{at!r} in area {self.label} is not a directory") from None
                opened.close()
                opened = below
            yield opened
        finally:
            opened.close()

    def _put(
        self, source_fd: int, source_name: str, what: _Found, target: OpenedPath, goal: str, *, overwrite: bool
    ) -> None:
        """Rename into place. The lock is held."""
        last = name(goal)
        stored = last + PACKED_SUFFIX if what.is_packed else last
        there = _look(target, last)
        if there is not None:
            if there.is_directory:
                raise ConflictError(f"there is a directory {goal!r} in area {self.label}: remove it first")
            if not overwrite:
                raise _exists(goal, self.label)
            if what.is_directory:
                raise ConflictError(f"there is a file {goal!r} in area {self.label}: remove it first")
        if overwrite or what.is_directory:
            os.rename(source_name, stored, src_dir_fd=source_fd, dst_dir_fd=target.fd)
        else:
            # Another process may write here, too: a link to what is there fails.
            try:
                os.link(source_name, stored, src_dir_fd=source_fd, dst_dir_fd=target.fd, follow_symlinks=False)
            except FileExistsError:
                raise _exists(goal, self.label) from None
            os.unlink(source_name, dir_fd=source_fd)
        self._discard_other(target, last, stored)
        _sync(target.fd)

    def _discard(self, directory: OpenedPath, child: str) -> Path | None:
        """Remove a file, or put a tree aside: it is gone at once, and where it is to be removed."""
        if not stat.S_ISDIR(os.stat(child, dir_fd=directory.fd, follow_symlinks=False).st_mode):
            os.unlink(child, dir_fd=directory.fd)
            return None
        aside = self._staging.directory() / secrets.token_hex(8)
        try:
            os.rename(child, aside, src_dir_fd=directory.fd)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.rmtree(child, dir_fd=directory.fd)
            return None
        return aside

    @staticmethod
    def _discard_other(directory: OpenedPath, last: str, stored: str) -> None:
        """Of the two names that a plain file can have, the one that is not meant goes."""
        other = last if stored != last else last + PACKED_SUFFIX
        with suppress(OSError):
            if stat.S_ISREG(os.stat(other, dir_fd=directory.fd, follow_symlinks=False).st_mode):
                os.unlink(other, dir_fd=directory.fd)

    # What is not complete yet

    def _complete(self, staged: Staged, what: _Found, goal: str, *, overwrite: bool) -> None:
        """Put what is complete and on disk in its place."""
        with self._writing(), self._make(parent(goal)) as target:
            aside = os.open(staged.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._put(aside, staged.path.name, what, target, goal, overwrite=overwrite)
                staged.release()  # from here on it is counted as what is there
            finally:
                os.close(aside)


def _check_names(path: str) -> None:
    """Can a file system have that name, and is it not one of ours?"""
    if parse_path(path) != path:
        raise InvalidPathError(f"not the path of a file: {path[:200]!r}")
    for segment in path.split("/"):
        if len(segment.encode()) + len(PACKED_SUFFIX) > MAX_NAME_BYTES:
            raise InvalidPathError(f"a name has at most {MAX_NAME_BYTES - len(PACKED_SUFFIX)} bytes: {segment[:60]!r}")
        is_ours = segment.startswith(".caterva2") and not (segment == GROUP_FILE and path.endswith(segment))
        if is_ours or segment == PACKED_SUFFIX:
            raise InvalidPathError(f"the name {segment[:60]!r} is kept for what is being written: choose another")


def _look(directory: OpenedPath, last: str) -> _Found | None:
    """What an open directory shows under a name."""
    found: list[_Found] = []
    for stored in (last, last + PACKED_SUFFIX):
        try:
            status = os.stat(stored, dir_fd=directory.fd, follow_symlinks=False)
        except OSError:
            continue
        if stored == last or stat.S_ISREG(status.st_mode):
            found.append(_Found(stored, status, is_packed=stored != last))
    if len(found) < 2 or found[0].is_directory:
        return found[0] if found else None
    return max(reversed(found), key=lambda f: f.status.st_ctime_ns)


def _exists(goal: str, label: str) -> ConflictError:
    return ConflictError(f"there is {goal!r} in area {label} already: say overwrite, or choose another name")


def _copy_part(source: int, target: int, position: int, count: int) -> int:
    copy: Callable[..., int] | None = getattr(os, "copy_file_range", None)
    if copy is not None:
        try:
            return copy(source, target, count, position)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
    data = memoryview(read_at(source, count, position))
    ncopied = len(data)
    while data:
        data = data[os.write(target, data) :]
    return ncopied


def _sync(fd: int) -> None:
    with suppress(OSError):  # not every file system can
        os.fsync(fd)
