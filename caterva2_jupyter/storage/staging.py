"""What is being written to an area, aside until it is complete: its place, its bytes in the quota, how it is stored.

Each process has a directory of its own inside the area's; what a process left behind that was killed is removed by
the next one. Putting in place what is complete is ``area``'s business.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import blosc2

from ..core.group_file import GROUP_FILE
from ..core.paths import name
from ..errors import (
    AccessDeniedError,
    ConflictError,
    DatasetNotFoundError,
    InvalidPathError,
    SourceUnavailableError,
)
from .area_root import INCOMING, PACKED_SUFFIX
from .directory_entries import FRAME_SUFFIXES
from .hdf5_signature import SIGNATURE
from .quota import Quota

__all__ = ["HEAD_NBYTES", "PackedSink", "RawSink", "Staged", "Staging", "in_words", "is_kept_as_it_is", "sync_path"]

HEAD_NBYTES = 16
"""First bytes of a file, by which it is told how it is stored."""
_FRAME_MAGIC = b"b2frame\0"
# Of files that may begin with something else (a user block).
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".nxs", ".cdf")
_MIN_CHUNK_NBYTES, _MAX_CHUNK_NBYTES = 4 << 20, 64 << 20
_CHUNKS_AIMED_AT = 2048


class Staging:
    """The directory of this process for what is not complete, made when it is first needed.

    Parameters
    ----------
    directory : Path
        The area's.
    label : str
        The area's name, for messages.
    quota : Quota
    """

    def __init__(self, directory: Path, label: str, quota: Quota) -> None:
        self._directory, self._label, self._quota = directory, label, quota
        self._incoming: Path | None = None
        self._lock_fd = -1

    def close(self) -> None:
        """Drop what was not completed."""
        with self._quota.lock:
            if self._incoming is not None:
                shutil.rmtree(self._incoming, ignore_errors=True)
                self._incoming = None
                os.close(self._lock_fd)

    def directory(self) -> Path:
        """This process's directory for what is not complete; those of processes that are gone are removed."""
        with self._quota.lock:
            if self._incoming is not None:
                return self._incoming
            incoming = self._directory / INCOMING
            if incoming.is_symlink():
                raise SourceUnavailableError(f"area {self._label} cannot be written to: {INCOMING} is a link")
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
    def stage(self) -> Iterator[Staged]:
        """A name aside for something to be made; removed again, and its bytes given back, in the end."""
        try:
            staged = Staged(self._quota, self.directory() / secrets.token_hex(8))
        except OSError as error:
            if isinstance(error, SourceUnavailableError):
                raise
            raise in_words(error, self._label) from error
        try:
            yield staged
        except OSError as error:
            if isinstance(error, (DatasetNotFoundError, AccessDeniedError, SourceUnavailableError)):
                raise
            raise in_words(error, self._label) from error
        finally:
            staged.close()


class Staged:
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


class RawSink:
    """A file as it is."""

    def __init__(self, staged: Staged) -> None:
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


class PackedSink:
    """A frame of the file's bytes, a chunk at a time."""

    def __init__(self, staged: Staged, nbytes: int | None) -> None:
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
        sync_path(self._staged.path)

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


def is_kept_as_it_is(path: str, head: bytes = b"") -> bool:
    lower = path.lower()
    if name(path) == GROUP_FILE:
        return True
    if path.endswith(PACKED_SUFFIX):
        return head[2:10] == _FRAME_MAGIC
    return path.endswith(FRAME_SUFFIXES) or lower.endswith(_HDF5_SUFFIXES) or head.startswith(SIGNATURE)


def in_words(error: OSError | RuntimeError, label: str) -> Exception:
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


def sync_path(path: Path) -> None:
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
