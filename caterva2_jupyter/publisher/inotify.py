"""What Linux tells of directories and all below them, and when it could not tell everything.

A directory is watched before it is told of, so that whoever looks at it then misses nothing. When a change is
worth telling is decided elsewhere. Blocking: to be used by one thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.paths import is_at_or_below

__all__ = ["Inotify", "Seen"]

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_UNMOUNT, _OVERFLOW, _IGNORED = 0x2000, 0x4000, 0x8000
_ONLY_DIRECTORIES, _NO_LINKS, _NOT_UNLINKED, _IS_DIRECTORY = 0x1000000, 0x2000000, 0x4000000, 0x40000000
# Memory maps are told of only when they are closed.
_CHANGES = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_AS_GIVEN = _CHANGES | _ONLY_DIRECTORIES | _NOT_UNLINKED
_EVENT = struct.Struct("iIII")  # watch, what happened, cookie, length of the name
_BUFFER_NBYTES = 256 << 10
_CURES = {
    errno.ENOSPC: "there are more directories than may be watched: raise fs.inotify.max_user_watches (sysctl)",
    errno.EMFILE: "there are more watchers than may be: raise fs.inotify.max_user_instances (sysctl)",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What happened since it was asked last.

    Attributes
    ----------
    paths : frozenset of Path
    is_lost : bool
        More happened than was kept: anything may have changed, and new directories may not be watched.
    is_gone : bool
        A directory that was given to be watched was removed, or is on a disk that was.
    """

    paths: frozenset[Path] = frozenset()
    is_lost: bool = False
    is_gone: bool = False


class Inotify:
    """Watches directories until it is closed.

    Parameters
    ----------
    directories : sequence of Path
        Absolute. They may be links; links below them are not followed.
    recursive : bool
        Watch what is below them as well.

    Raises
    ------
    OSError
        When changes there cannot be told; later on too, by ``read``, when that is so of new directories.
    """

    def __init__(self, directories: Sequence[Path], *, recursive: bool = True) -> None:
        self._recursive = recursive
        self._paths: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._refused: set[str] = set()
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            init, self._add, self._remove = libc.inotify_init1, libc.inotify_add_watch, libc.inotify_rm_watch
        except AttributeError:
            raise OSError(errno.ENOSYS, "this system has no inotify") from None
        self._add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._fd: int = init(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _last_error()
        try:
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)
            self._given = {self._add_watch(str(directory), _AS_GIVEN) for directory in directories}
            if recursive:
                for directory in directories:
                    self._watch_below(str(directory))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def watched(self) -> frozenset[str]:
        """Paths of the directories that are watched."""
        return frozenset(self._watches)

    def read(self, timeout_s: float) -> Seen:
        """What happened; waits that long for something.

        Raises
        ------
        OSError
            When a new directory cannot be watched.
        """
        if not self._poll.poll(timeout_s * 1000):
            return Seen()
        paths: set[Path] = set()
        is_lost = is_gone = False
        for watch, what, name in self._events():
            if what & _OVERFLOW:
                is_lost = True
            elif what & (_IGNORED | _UNMOUNT):
                is_gone = is_gone or watch in self._given
                self._forget(watch)
            elif name and (directory := self._paths.get(watch)) is not None:
                path = os.path.join(directory, os.fsdecode(name))
                if what & _IS_DIRECTORY and self._recursive:
                    self._follow(path, what)
                paths.add(Path(path))
        return Seen(frozenset(paths), is_lost, is_gone)

    def _events(self) -> Iterator[tuple[int, int, bytes]]:
        # No more than once: who writes without end is not to keep the rest waiting.
        data = os.read(self._fd, _BUFFER_NBYTES)
        position = 0
        while position < len(data):
            watch, what, _, name_nbytes = _EVENT.unpack_from(data, position)
            position += _EVENT.size
            yield watch, what, data[position : position + name_nbytes].rstrip(b"\0")
            position += name_nbytes

    def _follow(self, path: str, what: int) -> None:
        """Something happened to a directory: watch what is there now."""
        if what & (_CREATE | _MOVED_TO):
            self._watch_at(path)
        elif what & _MOVED_FROM:
            # By its new path, if that is ours, it is watched anew.
            for moved in [p for p in self._watches if is_at_or_below(p, path)]:
                watch = self._watches[moved]
                self._forget(watch)
                self._remove(self._fd, watch)
            self._watch_at(path)  # another may be there by now, or have changed places with it
        elif what & _ATTRIB:
            for refused in [p for p in self._refused if is_at_or_below(p, path)]:
                self._refused.discard(refused)
                self._watch_at(refused)

    def _watch_at(self, path: str) -> None:
        if self._watch(path):
            self._watch_below(path)

    def _watch_below(self, path: str) -> None:
        waiting = [path]
        while waiting:
            # Listed when it is watched already: a directory that comes later is told of.
            for below in self._directories_in(waiting.pop()):
                if self._watch(below):
                    waiting.append(below)

    def _directories_in(self, path: str) -> list[str]:
        try:
            with os.scandir(path) as items:
                return [item.path for item in items if item.is_dir(follow_symlinks=False)]
        except OSError:
            return []  # gone meanwhile

    def _watch(self, path: str) -> bool:
        """Watch one directory; False for those watched before, gone meanwhile, and not ours to read yet."""
        known = self._watches.get(path)
        try:
            return self._add_watch(path, _AS_GIVEN | _NO_LINKS) != known
        except PermissionError:
            self._refused.add(path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                raise
        return False

    def _add_watch(self, path: str, mask: int) -> int:
        watch: int = self._add(self._fd, os.fsencode(path), mask)
        if watch < 0:
            raise _last_error(path)
        self._forget(watch)  # it may be known by the path that it was moved from
        self._paths[watch], self._watches[path] = path, watch
        return watch

    def _forget(self, watch: int) -> None:
        path = self._paths.pop(watch, None)
        if path is not None and self._watches.get(path) == watch:
            del self._watches[path]


def _last_error(path: str | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, _CURES.get(number, os.strerror(number)), path)
