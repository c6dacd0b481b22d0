"""Open what lies under a root, and nothing else.

A path is walked component by component from the root's directory, each opened relative to the one before
and never through a link: links are read and walked by the same rules, so that one which is swapped in at
any moment leads to a refusal and not out of the root. Only regular files are opened, checked once more
after the open (a FIFO never blocks, a device is never read). Hard links cannot be told from files.

What a path means as text is ``core/paths``' business; versions are ``generation``'s.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..errors import AccessDeniedError, DatasetNotFoundError

__all__ = ["OpenedPath", "open_directory", "open_file", "read_at", "read_cached_at"]

_MAX_LINKS = 40
# EINVAL: a link that was one a moment ago.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL)
_WALK = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0) if hasattr(os, "preadv") else 0
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class OpenedPath:
    """An open file or directory; a context manager that closes it.

    Attributes
    ----------
    fd : int
    path : str
        Where it really is, relative to the root, links resolved.
    status : os.stat_result
        Of ``fd``, when it was opened.
    """

    fd: int
    path: str
    status: os.stat_result

    def __enter__(self) -> OpenedPath:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def open_file(root: Path, path: str) -> OpenedPath:
    """Open the regular file at ``path`` for reading.

    Parameters
    ----------
    root : Path
        The root's directory, which is trusted and may be a link itself.
    path : str
        POSIX path relative to it.

    Raises
    ------
    DatasetNotFoundError
        When nothing is there, it is not a regular file, or a link leads out of the root.
    AccessDeniedError
        When this process may not read it.
    """
    return _open(root, path, directory=False)


def open_directory(root: Path, path: str) -> OpenedPath:
    """Open the directory at ``path`` (``""``: the root) to be listed; raises like ``open_file``."""
    return _open(root, path, directory=True)


def read_at(fd: int, nbytes: int, offset: int) -> bytes:
    """Up to ``nbytes`` bytes from ``offset``; fewer only at the end of the file."""
    data = os.pread(fd, nbytes, offset)
    if len(data) == nbytes or not data:
        return data
    parts = [data]  # one pread gives at most 2 GiB, and less on some network file systems
    got = len(data)
    while got < nbytes and (data := os.pread(fd, nbytes - got, offset + got)):
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def read_cached_at(fd: int, nbytes: int, offset: int) -> memoryview | None:
    """``nbytes`` bytes from ``offset`` when they are in memory already; never waits for a disk or a network.

    Returns
    -------
    memoryview or None
        None as well where the file system cannot tell.
    """
    if not _NOWAIT:
        return None
    data = bytearray(nbytes)
    try:
        got = os.preadv(fd, [data], offset, _NOWAIT)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
            return None
        raise
    return memoryview(data) if got == nbytes else None


def _open(root: Path, path: str, directory: bool) -> OpenedPath:
    walk = _Walk(root, path)
    try:
        return walk.open(directory)
    except OSError as error:
        # Our own errors are OSErrors too: what they say is already right.
        if isinstance(error, (DatasetNotFoundError, AccessDeniedError)):
            raise
        if error.errno in (errno.EACCES, errno.EPERM):
            raise AccessDeniedError(f"{path!r} cannot be read: permission denied") from error
        if error.errno in _NOT_THERE:
            raise DatasetNotFoundError(f"nothing at {path!r}") from error
        raise
    finally:
        walk.close()


class _Walk:
    """One walk from the root's directory to a path: the directories that it is in, as open files."""

    def __init__(self, root: Path, path: str) -> None:
        self._root, self._path = root, path
        self._fds: list[int] = []
        self._names: list[str] = []

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def open(self, directory: bool) -> OpenedPath:
        if "\0" in self._path:
            raise DatasetNotFoundError(f"nothing at {self._path!r}")
        self._fds.append(os.open(self._root, _WALK & ~os.O_NOFOLLOW))
        pending = self._path.split("/")[::-1]
        nlinks = 0
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                self._up()
                continue
            status = os.stat(name, dir_fd=self._fds[-1], follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                nlinks += 1
                if nlinks > _MAX_LINKS:
                    raise DatasetNotFoundError(f"{self._path!r} is a link that leads back to itself")
                pending += self._follow(os.readlink(name, dir_fd=self._fds[-1])).split("/")[::-1]
            elif stat.S_ISDIR(status.st_mode):
                self._fds.append(os.open(name, _WALK, dir_fd=self._fds[-1]))
                self._names.append(name)
            elif any(p not in ("", ".") for p in pending) or directory:
                raise DatasetNotFoundError(f"nothing at {self._path!r}: {name!r} is not a directory")
            else:
                return self._file(name, status)
        if not directory:
            raise DatasetNotFoundError(f"{self._path!r} is a directory")
        fd = os.open(".", _LIST, dir_fd=self._fds[-1])
        return OpenedPath(fd, "/".join(self._names), os.fstat(fd))

    def _file(self, name: str, status: os.stat_result) -> OpenedPath:
        if not stat.S_ISREG(status.st_mode):
            raise DatasetNotFoundError(f"{self._path!r} is not a regular file")
        fd = os.open(name, _READ, dir_fd=self._fds[-1])
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):  # swapped in between
            os.close(fd)
            raise DatasetNotFoundError(f"{self._path!r} is not a regular file")
        return OpenedPath(fd, "/".join([*self._names, name]), status)

    def _up(self) -> None:
        if len(self._fds) == 1:
            raise DatasetNotFoundError(f"{self._path!r} leads outside of the root")
        os.close(self._fds.pop())
        self._names.pop()

    def _follow(self, target: str) -> str:
        """The rest of the walk that a link stands for; one that is absolute starts at the root again."""
        if not target.startswith("/"):
            return target
        while len(self._fds) > 1:
            self._up()
        for base in {os.path.abspath(self._root), os.path.realpath(self._root)}:
            if target == base or target.startswith(base.rstrip("/") + "/"):
                return target[len(base) :]
        raise DatasetNotFoundError(f"{self._path!r} is a link that leads outside of the root")
