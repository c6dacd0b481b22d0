"""The commands that the installation makes: each loads its program, or says in one line what to install.

Loading a program takes most of a start, so Ctrl+C in the midst of it is answered here. What a program
does, and how it ends otherwise, is its own.
"""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = [
    "cat2adduser",
    "cat2bro",
    "cat2cli",
    "cat2export",
    "cat2import",
    "cat2pub",
    "cat2sub",
    "cat2tbrowser",
    "cat2tui",
    "run",
]


def cat2bro() -> int:
    """The broker."""
    return run("cat2bro", "broker.app", "services")


def cat2pub() -> int:
    """A publisher."""
    return run("cat2pub", "publisher.app", "services")


def cat2sub() -> int:
    """A subscriber on its own."""
    return run("cat2sub", "subscriber.app", "services")


def cat2adduser() -> int:
    """Add a user to a subscriber."""
    return run("cat2adduser", "subscriber.add_user", "services")


def cat2cli() -> int:
    """The command line of clients."""
    return run("cat2cli", "cli.main", "clients")


def cat2tui() -> int:
    """A browser in the terminal."""
    return run("cat2tui", "tui.app", "clients")


def cat2tbrowser() -> int:
    """The same under the name that it had."""
    return run("cat2tbrowser", "tui.app", "clients")


def cat2import() -> int:
    """From an HDF5 file to a directory root."""
    return run("cat2import", "tools.import_hdf5", "tools")


def cat2export() -> int:
    """From a directory root to an HDF5 file."""
    return run("cat2export", "tools.export_hdf5", "tools")


def run(command: str, module: str, extra: str) -> int:
    """Run the ``main`` of a module of this package.

    Parameters
    ----------
    command : str
        Its name, for messages.
    module : str
        Relative to the package.
    extra : str
        The extra of the installation that brings what the module imports.

    Returns
    -------
    int
        Its exit code; 1 when a package is missing, 130 on Ctrl+C.
    """
    package = __name__.partition(".")[0]
    try:
        program = import_module(f"{package}.{module}")
        return int(program.main())
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing == package:
            raise
        cure = f"pip install 'caterva2-jupyter[{extra}]'"
        print(f"{command}: the package {missing} is missing: {cure}", file=sys.stderr)
        return 1
