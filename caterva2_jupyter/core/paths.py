"""Which texts are paths: the only place where text from outside becomes a dataset's path.

A path is POSIX-like and relative to its root; ``""`` is the root itself. It does *not* say
whether anything is there, and never touches a file system.
"""

from __future__ import annotations

import fnmatch
import re

from ..errors import InvalidPathError

__all__ = [
    "MAX_PATH_BYTES",
    "is_at_or_below",
    "join",
    "matches",
    "name",
    "names_below",
    "parent",
    "parents",
    "parse_path",
    "parse_root_name",
    "split_address",
    "whole_address",
]

MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255

# Names that would break an address (`-` ends the base of a cat2http:// URL) or an @-area.
_ROOT_NAME = re.compile(r"@?[^\W_][\w.+=,~ -]*|@[\w-]+", re.UNICODE)


def parse_path(text: str) -> str:
    """A dataset's path from text that nobody has checked.

    Parameters
    ----------
    text : str
        Path relative to a root, already percent-decoded once.

    Returns
    -------
    str
        The same path, without a trailing slash.

    Raises
    ------
    InvalidPathError
        When the text is absolute, has empty, ``.`` or ``..`` segments (with either slash), a NUL,
        a lone surrogate, or is longer than 4096 bytes of UTF-8.

    Examples
    --------
    >>> parse_path("dir2/ds-4d.b2nd")
    'dir2/ds-4d.b2nd'
    >>> parse_path("../etc/passwd")
    Traceback (most recent call last):
    ...
    caterva2_jupyter.errors.InvalidPathError: not a dataset path: '../etc/passwd'
    """
    path = text[:-1] if text.endswith("/") else text
    if path == "" and text == "":
        return ""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise InvalidPathError(f"not a dataset path: {text!r}") from None
    segments = path.split("/")
    bad = (
        len(encoded) > MAX_PATH_BYTES
        or "\0" in path
        or any(s in ("", ".", "..") for s in segments)
        # Harmless on POSIX, a traversal where a client writes the name to a Windows disk.
        or any(p == ".." for s in segments for p in s.split("\\"))
    )
    if bad:
        raise InvalidPathError(f"not a dataset path: {text[:200]!r}")
    return path


def parse_root_name(text: str) -> str:
    """A root's name: one path segment, starting with a letter, digit or ``@``; never ``-``.

    Raises
    ------
    InvalidPathError
        When the text cannot name a root.
    """
    if not _ROOT_NAME.fullmatch(text) or len(text.encode()) > MAX_NAME_BYTES or text.strip() != text:
        raise InvalidPathError(f"not a root name: {text[:200]!r}")
    return text


def split_address(text: str) -> tuple[str, str]:
    """``ROOT/PATH`` -> ``(root, path)``; the path is ``""`` for the root itself.

    >>> split_address("foo/dir1/ds-2d.b2nd")
    ('foo', 'dir1/ds-2d.b2nd')
    """
    root, _, path = text.partition("/")
    return parse_root_name(root), parse_path(path)


def parent(path: str) -> str:
    """The path of the group that holds it (``""``: the root)."""
    return path.rpartition("/")[0]


def parents(path: str) -> list[str]:
    """The groups that a path is in, the outermost first, without the root.

    >>> parents("a/b/x.nc")
    ['a', 'a/b']
    """
    names = path.split("/")
    return ["/".join(names[:i]) for i in range(1, len(names))]


def is_at_or_below(path: str, group: str) -> bool:
    """Is it the group itself (``""``: the root), or in it at any depth?"""
    return not group or path == group or path.startswith(f"{group}/")


def name(path: str) -> str:
    """The last segment."""
    return path.rpartition("/")[2]


def whole_address(root: str, path: str) -> str:
    """``ROOT/PATH``, and ``ROOT`` for the root itself: what `split_address` parts.

    >>> whole_address("foo", "dir1/ds-2d.b2nd"), whole_address("foo", "")
    ('foo/dir1/ds-2d.b2nd', 'foo')
    """
    return f"{root}/{path}" if path else root


def join(group: str, child: str) -> str:
    """The path of a child of a group."""
    return f"{group}/{child}" if group else child


def names_below(path: str, group: str) -> list[str]:
    """The names on the way from a group to what is in it; none for the group itself.

    >>> names_below("a/b/c/x", "a/b"), names_below("x", "")
    (['c', 'x'], ['x'])
    """
    return [name for name in path[len(group) :].split("/") if name]


def matches(path: str, pattern: str) -> bool:
    """Does a relative path match a glob pattern? ``*`` stays within a segment, ``**`` crosses them.

    >>> matches("a/b/x.nc", "**/*.nc"), matches("x.nc", "**/*.nc"), matches("a/x.nc", "*.nc")
    (True, True, False)
    """

    def match(segments: list[str], patterns: list[str]) -> bool:
        if not patterns:
            return not segments
        if patterns[0] == "**":
            return match(segments, patterns[1:]) or (bool(segments) and match(segments[1:], patterns))
        if not segments:
            return False
        return fnmatch.fnmatchcase(segments[0], patterns[0]) and match(segments[1:], patterns[1:])

    return match(path.split("/"), pattern.split("/"))
