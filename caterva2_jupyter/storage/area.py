"""Writing to an area's directory: uploads, copies, moves, removals, each of them complete or not there.

What is written is written aside, in a directory of this process inside the area's own, and renamed into place
when it is complete and on disk; what a process left behind that was killed is removed by the next one. Every
directory is opened by the rules of ``safe_open`` and everything done relative to it, so no link leads out. The
bytes that all areas take together are bounded by one `Quota`. Everything blocks: callers are threads. What is listed
is ``area_root``'s business.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import blosc2

from ..core.group_file import GROUP_FILE
from ..core.paths import MAX_NAME_BYTES, join, name, parent, parse_path
from ..errors import (
    AccessDeniedError,
    ConflictError,
    DatasetNotFoundError,
    InvalidPathError,
    SourceUnavailableError,
    TooLargeError,
)
from .area_root import INCOMING, PACKED_SUFFIX
from .safe_open import OpenedPath, open_directory, open_file, read_at

__all__ = ["Area", "Quota", "QuotaExceededError", "Upload"]

QUOTA_TEXT = "Upload failed because quota limit has been exceeded."
_FRAME_SUFFIXES = (".b2nd", ".b2frame", ".b2f")
_FRAME_MAGIC = b"b2frame\0"
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# Of files that may begin with something else (a user block).
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".nxs", ".cdf")
_HEAD_NBYTES = 16
_MIN_CHUNK_NBYTES, _MAX_CHUNK_NBYTES = 4 << 20, 64 << 20
_CHUNKS_AIMED_AT = 2048
_COPIED_AT_ONCE_NBYTES = 8 << 20
_MAX_DEPTH = 200


class QuotaExceededError(TooLargeError):
    """The areas would take more bytes than they may."""


class Quota:
    """The bytes that areas take together, and may take. Thread safe.

    Parameters
    ----------
    limit_nbytes : int or None
        None: no limit.
    directories : sequence of Path
        Of the areas; counted with everything below.

    Attributes
    ----------
    lock : RLock
        Held while names change, so that what is counted is what is there.
    """

    def __init__(self, limit_nbytes: int | None, directories: Iterable[Path]) -> None:
        self.limit_nbytes = limit_nbytes
        self.lock = threading.RLock()
        self._directories = tuple(directories)
        self._held_nbytes = 0
        self._counted: int | None = None

    @property
    def usage_nbytes(self) -> int:
        """Bytes of all files that are there, and of what is being written."""
        with self.lock:
            if self._counted is None:
                self._counted = sum(_tree_nbytes(directory) for directory in self._directories)
            return self._counted + self._held_nbytes

    def recount(self) -> None:
        """Others may have written to the directories, or something went."""
        with self.lock:
            self._counted = None

    def hold(self, nbytes: int) -> None:
        """Count bytes that are about to be written.

        Raises
        ------
        QuotaExceededError
        """
        with self.lock:
            if self.limit_nbytes is not None and self.usage_nbytes + nbytes > self.limit_nbytes:
                raise QuotaExceededError(QUOTA_TEXT)
            self._held_nbytes += nbytes

    def release(self, nbytes: int) -> None:
        with self.lock:
            self._held_nbytes -= nbytes

    def check(self, nbytes: int) -> None:
        """Could that many more bytes be written?

        Raises
        ------
        QuotaExceededError
        """
        self.recount()
        self.hold(nbytes)
        self.release(nbytes)


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
        self._incoming: Path | None = None
        self._lock_fd = -1
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SourceUnavailableError(f"area {label} cannot be used: {error.strerror}") from None

    def close(self) -> None:
        """Drop what was not completed."""
        with self.quota.lock:
            if self._incoming is not None:
                shutil.rmtree(self._incoming, ignore_errors=True)
                self._incoming = None
                os.close(self._lock_fd)

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
        self.quota.check(nbytes if nbytes is not None and _is_kept_as_it_is(path) else 0)
        return Upload(self, path, nbytes, overwrite)

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
        with goal_area._staged() as staged:
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

    def _copy_directory(self, path: str, target: Path, staged: _Staged, depth: int = 0) -> None:
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
        _sync_path(target)

    def _copy_file(self, path: str, target: Path, staged: _Staged) -> None:
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
            raise _in_words(error, self.label) from error

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
        aside = self._aside() / secrets.token_hex(8)
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

    def _aside(self) -> Path:
        """This process's directory for what is not complete; those of processes that are gone are removed."""
        with self.quota.lock:
            if self._incoming is not None:
                return self._incoming
            incoming = self.directory / INCOMING
            if incoming.is_symlink():
                raise SourceUnavailableError(f"area {self.label} cannot be written to: {INCOMING} is a link")
            incoming.mkdir(mode=0o700, exist_ok=True)
            for left in incoming.iterdir():
                _remove_abandoned(left)
            own = incoming / f"{os.getpid()}-{secrets.token_hex(4)}"
            own.mkdir(mode=0o700)
            self._lock_fd = os.open(own / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._incoming = own
            return own

    @contextmanager
    def _staged(self) -> Iterator[_Staged]:
        """A name aside for something to be made; removed again, and its bytes given back, in the end."""
        try:
            staged = _Staged(self.quota, self._aside() / secrets.token_hex(8))
        except OSError as error:
            if isinstance(error, SourceUnavailableError):
                raise
            raise _in_words(error, self.label) from error
        try:
            yield staged
        except OSError as error:
            if isinstance(error, (DatasetNotFoundError, AccessDeniedError, SourceUnavailableError)):
                raise
            raise _in_words(error, self.label) from error
        finally:
            staged.close()

    def _complete(self, staged: _Staged, what: _Found, goal: str, *, overwrite: bool) -> None:
        """Put what is complete and on disk in its place."""
        with self._writing(), self._make(parent(goal)) as target:
            aside = os.open(staged.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._put(aside, staged.path.name, what, target, goal, overwrite=overwrite)
                staged.release()  # from here on it is counted as what is there
            finally:
                os.close(aside)


class _Staged:
    """Something that is being made aside, and the bytes that are counted for it."""

    def __init__(self, quota: Quota, path: Path) -> None:
        self._quota, self.path = quota, path
        self._held_nbytes = 0

    def hold(self, nbytes: int) -> None:
        self._quota.hold(nbytes)
        self._held_nbytes += nbytes

    def release(self) -> None:
        self._quota.release(self._held_nbytes)
        self._held_nbytes = 0

    def close(self) -> None:
        self.release()
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


class _RawSink:
    """A file as it is."""

    def __init__(self, staged: _Staged) -> None:
        self._staged = staged
        self._fd = os.open(staged.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes | bytearray) -> None:
        self._staged.hold(len(data))
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self) -> None:
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _PackedSink:
    """A frame of the file's bytes, a chunk at a time."""

    def __init__(self, staged: _Staged, nbytes: int | None) -> None:
        self._staged = staged
        self._chunk_nbytes = _MIN_CHUNK_NBYTES
        while self._chunk_nbytes < min(_MAX_CHUNK_NBYTES, (nbytes or 0) // _CHUNKS_AIMED_AT):
            self._chunk_nbytes *= 2
        self._waiting = bytearray()
        self._frame: blosc2.SChunk | None = None
        self._stored_nbytes = 0

    def write(self, data: bytes | bytearray) -> None:
        self._waiting += data
        while len(self._waiting) >= self._chunk_nbytes:
            self._append(bytes(memoryview(self._waiting)[: self._chunk_nbytes]))
            del self._waiting[: self._chunk_nbytes]

    def finish(self) -> None:
        if self._waiting or self._frame is None:
            self._append(bytes(self._waiting))
        self._frame = None
        self._waiting = bytearray()
        os.chmod(self._staged.path, 0o600)
        _sync_path(self._staged.path)

    def close(self) -> None:
        self._frame = None

    def _append(self, chunk: bytes) -> None:
        if self._frame is None:
            self._frame = blosc2.SChunk(
                # A file that is one short chunk is a chunk of that length, as the older system has it.
                chunksize=max(1, min(self._chunk_nbytes, len(chunk))),
                urlpath=str(self._staged.path),
                contiguous=True,
                mode="w",
                cparams=blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, typesize=1, nthreads=1),
                dparams=blosc2.DParams(nthreads=1),
            )
        if chunk:
            self._frame.append_data(chunk)
        stored = os.stat(self._staged.path).st_size
        self._staged.hold(stored - self._stored_nbytes)
        self._stored_nbytes = stored


class Upload:
    """A file that is being written. Made by ``Area.begin``; a context manager that drops what was not committed.

    Whether it is kept as it is (Blosc2 frames, HDF5) or packed (any other) is told by its name and its first bytes.
    """

    def __init__(self, area: Area, path: str, nbytes: int | None, overwrite: bool) -> None:
        self._area, self.path, self._overwrite = area, path, overwrite
        self._nbytes = nbytes
        self._staging = area._staged()
        self._staged: _Staged | None = self._staging.__enter__()
        self._head = bytearray()
        self._sink: _RawSink | _PackedSink | None = None
        self.received_nbytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, data: bytes | bytearray) -> None:
        """More of the file.

        Raises
        ------
        QuotaExceededError
        SourceUnavailableError
            When it cannot be written (a full disk).
        """
        self.received_nbytes += len(data)
        with self._in_words():
            if self._sink is None:
                self._head += data
                if len(self._head) < _HEAD_NBYTES:
                    return
                self._open().write(self._head)
                self._head.clear()
            else:
                self._sink.write(data)

    def commit(self) -> str:
        """All of it has come: put it on disk, then in its place.

        Returns
        -------
        str
            The path that it is shown at.

        Raises
        ------
        ConflictError
            When something is there by now that it may not replace.
        QuotaExceededError, SourceUnavailableError
        """
        assert self._staged is not None
        try:
            with self._in_words():
                sink = self._open()
                if self._head:
                    sink.write(self._head)
                    self._head.clear()
                sink.finish()
            what = _Found("", os.stat(self._staged.path), is_packed=isinstance(sink, _PackedSink))
            self._area._complete(self._staged, what, self.path, overwrite=self._overwrite)
        finally:
            self.abort()
        is_frame_of_file = self.path.endswith(PACKED_SUFFIX) and not what.is_packed
        return self.path[: -len(PACKED_SUFFIX)] if is_frame_of_file else self.path

    def abort(self) -> None:
        """Drop it; nothing happens when that was done, or it was committed."""
        if self._staged is not None:
            self._staged = None
            if self._sink is not None:
                self._sink.close()
            self._staging.__exit__(None, None, None)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            if isinstance(error, (SourceUnavailableError, AccessDeniedError, DatasetNotFoundError)):
                raise
            raise _in_words(error, self._area.label) from error

    def _open(self) -> _RawSink | _PackedSink:
        assert self._staged is not None
        if self._sink is None:
            is_raw = _is_kept_as_it_is(self.path, bytes(self._head[:_HEAD_NBYTES]))
            self._sink = _RawSink(self._staged) if is_raw else _PackedSink(self._staged, self._nbytes)
        return self._sink


def _is_kept_as_it_is(path: str, head: bytes = b"") -> bool:
    lower = path.lower()
    if name(path) == GROUP_FILE:
        return True
    if path.endswith(PACKED_SUFFIX):
        return head[2:10] == _FRAME_MAGIC
    return path.endswith(_FRAME_SUFFIXES) or lower.endswith(_HDF5_SUFFIXES) or head.startswith(_HDF5_MAGIC)


def _check_names(path: str) -> None:
    """Can a file system have that name, and is it not one of ours?"""
    parse_path(path)
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


def _in_words(error: OSError | RuntimeError, label: str) -> Exception:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return SourceUnavailableError(f"the disk of area {label} is full")
    if number in (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR):
        return ConflictError(f"something else is there in area {label}: remove it first")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDeniedError(f"area {label} cannot be written to there: {os.strerror(number)}")
    if number in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
        return InvalidPathError(f"nothing in area {label} can have that name")
    if number == errno.ENOENT:
        return DatasetNotFoundError(f"it is not there any more in area {label}")
    return SourceUnavailableError(f"area {label} cannot be written to: {error}")


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


def _sync_path(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_abandoned(left: Path) -> None:
    """Remove what a process left that is gone: nobody has the lock."""
    try:
        fd = os.open(left / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # being made, or removed, at this moment
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        shutil.rmtree(left, ignore_errors=True)
    finally:
        os.close(fd)


def _tree_nbytes(directory: Path) -> int:
    """Bytes of all files below a directory, but for what is not complete yet."""
    total = 0
    if not directory.is_dir():
        return total
    for _, names, files, fd in os.fwalk(directory, onerror=lambda error: None):
        if INCOMING in names:
            names.remove(INCOMING)
        for file in files:
            with suppress(OSError):
                status = os.stat(file, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    total += status.st_size
    return total
