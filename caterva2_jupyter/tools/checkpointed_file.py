"""A file that goes back to its last checkpoint when whoever wrote it was killed.

HDF5 writes over its own bookkeeping in place, so a half-written file is not one that can be gone on with. Here what is
written over is saved first, in a journal beside the file; ``open_checkpointed`` undoes what came after the last
checkpoint. It is an object that h5py takes in place of a name (its driver ``fileobj``), and knows nothing of HDF5.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["CheckpointedFile", "journal_path"]

_RECORD = struct.Struct("<QQI")
_MAX_SAVED_NBYTES = 4 << 20


def journal_path(path: Path) -> Path:
    """Where the journal of a file is."""
    return path.with_name(f"{path.name}.undo.part")


class CheckpointedFile(io.RawIOBase):
    """A file for reading and writing, with checkpoints.

    Parameters
    ----------
    path : Path
    go_on : bool
        True: as it was at its last checkpoint, where there is one. False: empty.

    Attributes
    ----------
    state : dict or None
        What ``checkpoint`` was told last; None for an empty file.
    """

    def __init__(self, path: Path, go_on: bool = False) -> None:
        super().__init__()
        self._path, self._journal_path = path, journal_path(path)
        self.state: dict[str, Any] | None = None
        self._length = 0
        self._position = 0
        self._journal = -1
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o666)
        try:
            if not (go_on and self._go_back()):
                os.ftruncate(self._fd, 0)
                self.state = None
            self._begin_journal()
        except BaseException:
            self.close()
            raise

    def _go_back(self) -> bool:
        """Undo what came after the last checkpoint; False when there is none."""
        try:
            saved = self._journal_path.read_bytes()
            head, _, rest = saved.partition(b"\n")
            told = json.loads(head)
            length, state = int(told["nbytes"]), dict(told["state"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if os.fstat(self._fd).st_size < length:
            os.ftruncate(self._fd, length)  # its end is among what was saved
        records: list[tuple[int, bytes]] = []
        position = 0
        while position + _RECORD.size <= len(rest):
            offset, nbytes, crc = _RECORD.unpack_from(rest, position)
            data = rest[position + _RECORD.size : position + _RECORD.size + nbytes]
            if len(data) != nbytes or zlib.crc32(data) != crc:
                break  # the last one, cut short: what it was for was not written
            records.append((offset, data))
            position += _RECORD.size + nbytes
        for offset, data in reversed(records):
            _write_all(self._fd, data, offset)
        os.ftruncate(self._fd, length)
        self._length, self.state = length, state
        return True

    def _begin_journal(self) -> None:
        unfinished = self._journal_path.with_name(f"{self._journal_path.name}.part")
        head = json.dumps({"nbytes": self._length, "state": self.state or {}}).encode() + b"\n"
        journal = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            _write_all(journal, head, 0)
            os.lseek(journal, 0, os.SEEK_END)
            if self.state is None:
                # Nothing to go back to: a journal without a checkpoint is no journal.
                os.unlink(unfinished)
                with suppress(FileNotFoundError):
                    self._journal_path.unlink()
            else:
                os.replace(unfinished, self._journal_path)
        except BaseException:
            os.close(journal)
            raise
        if self._journal >= 0:
            os.close(self._journal)
        self._journal = journal

    def checkpoint(self, state: dict[str, Any], nbytes: int) -> None:
        """From here on, this is what the file goes back to.

        Parameters
        ----------
        state : dict
            JSON, to be found as ``state``.
        nbytes : int
            Length that the file counts as, at least as long as it is.
        """
        self._length = max(nbytes, os.fstat(self._fd).st_size)
        os.ftruncate(self._fd, self._length)
        self.state = state
        self._begin_journal()

    def forget(self) -> None:
        """The file is complete: no journal any more."""
        with suppress(FileNotFoundError):
            self._journal_path.unlink()

    def _save(self, offset: int, nbytes: int) -> None:
        """Keep what is about to be written over, as far as it is older than the checkpoint."""
        end = min(offset + nbytes, self._length)
        while offset < end:
            data = os.pread(self._fd, min(end - offset, _MAX_SAVED_NBYTES), offset)
            if not data:
                return
            record = _RECORD.pack(offset, len(data), zlib.crc32(data)) + data
            if os.write(self._journal, record) != len(record):
                raise OSError("the journal beside the file cannot be written")
            offset += len(data)

    # What h5py asks for

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = (os.fstat(self._fd).st_size if base is None else base) + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        count = os.preadv(self._fd, [view], self._position)
        self._position += count
        return count

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self._save(self._position, len(view))
        _write_all(self._fd, view, self._position)
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        size = self._position if size is None else size
        if size < self._length:
            self._save(size, self._length - size)
        os.ftruncate(self._fd, size)
        return size

    def flush(self) -> None:
        """Nothing is held back here."""

    def close(self) -> None:
        for fd in (self._fd, self._journal):
            if fd >= 0:
                os.close(fd)
        self._fd = self._journal = -1
        super().close()


def _write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
