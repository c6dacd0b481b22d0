"""``cat2cli``: the command line of clients.

Exit codes: 0; 1 when the request failed, with one line that names the thing and the cure; 2 for a usage
error; 130 on Ctrl+C. What commands do is in ``commands``, how it is printed in ``output``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from .. import __version__
from ..config import parse_nbytes
from ..errors import Caterva2Error
from .connection import add_connection_options, connection_arguments, one_line

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="cat2cli",
        description="Talk to a Caterva2 subscriber.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    add_connection_options(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    anywhere = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    add_connection_options(anywhere, is_listed=False)
    command = _Adder(commands, anywhere)
    _add_reading_commands(command)
    _add_finding_commands(command)
    _add_area_commands(command)
    _add_user_commands(command)
    text = "Look at, check and fill the subscriber's cache."
    cache = commands.add_parser("cache", help=text, description=text, parents=[anywhere])
    actions = cache.add_subparsers(dest="cache_command", required=True, metavar="COMMAND")
    _add_cache_commands(_Adder(actions, anywhere, "cache "))
    return parser


_EXAMPLES = """\
examples:
  cat2cli roots
  cat2cli tree foo
  cat2cli show 'foo/dir2/ds-4d.b2nd[1, :, ::2]'
  cat2cli --subscriber http://localhost:8888/lab --token TOKEN download foo/dir2/ds-4d.b2nd

COMMAND --help tells about one of them. The options above may stand after it too."""


class _Adder:
    """Adds commands to a parser: all of them have ``--json``, an example, and the options of the connection."""

    def __init__(self, commands: Any, anywhere: argparse.ArgumentParser, prefix: str = "") -> None:
        self._commands = commands
        self._anywhere = anywhere
        self._prefix = prefix

    def __call__(
        self, function: str, text: str, *arguments: tuple[str, str], example: str, aliases: tuple[str, ...] = ()
    ) -> Any:
        name = function.rstrip("_")
        sub = self._commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: cat2cli {self._prefix}{name} {example}".rstrip(),
            aliases=list(aliases),
            parents=[self._anywhere],
        )
        sub.set_defaults(function=f"{self._prefix.replace(' ', '_')}{function}")
        for argument, meaning in arguments:
            sub.add_argument(argument, help=meaning)
        values = function == "show"
        sub.add_argument("--json", action="store_true", help="values are printed as ever" if values else "print JSON")
        return sub


def _add_reading_commands(command: _Adder) -> None:
    dataset = ("dataset", "ROOT/PATH of a dataset")
    command("roots", "List the roots that the subscriber knows.", example="--json")
    command("subscribe", "Have the subscriber follow a root.", ("root", "name of a root"), example="foo")
    command("unsubscribe", "Have the subscriber forget a root.", ("root", "name of a root"), example="foo")
    below = ("path", "ROOT, or ROOT/PATH of a group")
    listing = command("list_", "List datasets.", below, example="foo/dir1 --long", aliases=("ls",))
    listing.add_argument("--long", "-l", action="store_true", help="with kind, shape, dtype and sizes")
    listing.add_argument("--filter", default="", help="only those that match, as in 'dtype:float32 ndim>2 temp'")
    command("info", "Tell what is known about a dataset.", dataset, example="foo/dir2/ds-4d.b2nd")
    selected = ("dataset", "ROOT/PATH, or ROOT/PATH[SLICE]")
    showing = command("show", "Print values, or the text of a file.", selected, example="'foo/ds-1d.b2nd[:10]'")
    showing.add_argument(
        "--max-bytes", type=parse_nbytes, default=256 << 20, help="refuse to print more than this (default: 256M)"
    )
    command("url", "Print the URL that a dataset is fetched from.", dataset, example="foo/ds-1d.b2nd")
    saving = command("download", "Save a dataset as a file.", dataset, example="foo/ds-1d.b2nd copy.b2nd")
    saving.add_argument("localpath", nargs="?", help="file or directory (default: ./ROOT/PATH)")
    changed = ("path", "ROOT/PATH that changed")
    command("announce", "Have the publisher look at a path now.", changed, example="foo/dir1")


def _add_finding_commands(command: _Adder) -> None:
    below = ("path", "ROOT, or ROOT/PATH of a group")
    tree = command("tree", "Print what is in a root or group as a tree.", below, example="foo --depth 1")
    tree.add_argument("--depth", "-d", type=_depth, help="levels to show (default: all)")
    tree.add_argument("--filter", default="", help="only datasets that match, as for list")
    words = ("words", "as in 'dtype:float32 ndim>2 temp'")
    search = command("search", "Search all followed roots.", words, example="'ndim>2' foo --long")
    search.add_argument("paths", nargs="*", metavar="path", help="only in this ROOT or ROOT/PATH")
    search.add_argument("--long", "-l", action="store_true", help="with kind, shape, dtype and sizes")
    define = command(
        "lazyexpr",
        "Store an expression over arrays as an array of an area.",
        ("name", "@public/NAME, @shared/NAME, or NAME in @personal"),
        ("expression", "as in 'a + sin(b)'"),
        example="@public/sum 'a + sin(b)' a=foo/x b=foo/y",
    )
    define.add_argument("operands", nargs="*", metavar="NAME=ROOT/PATH", help="what its names stand for")


def _depth(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of levels")
    return int(text)


def _add_area_commands(command: _Adder) -> None:
    goal = "AREA/PATH; a directory, or a trailing slash, keeps the name"
    source = ("dataset", "ROOT/PATH of a dataset or directory")
    no_overwrite = "refuse to replace what is there"
    local = ("localpath", "local file or directory")
    put = "Put a local file or directory into an area."
    sending = [command("upload", put, local, ("dataset", goal), example="notes.md @public/")]
    adding = ("localdir", "local directory"), ("dataset", "AREA, or AREA/PATH of a directory")
    put = "Put what is in a local directory into an area."
    sending.append(command("addcontents", put, *adding, example="results/ @shared/run-7"))
    copying, dest = "Copy a dataset or directory into an area.", ("dest", goal)
    sending.append(command("copy", copying, source, dest, example="foo/ds-1d.b2nd @public/", aliases=("cp",)))
    moving = "Move a dataset or directory within or between areas."
    sending.append(command("move", moving, source, dest, example="@shared/a.b2nd @public/", aliases=("mv",)))
    for sub in sending:
        sub.add_argument("--no-overwrite", action="store_true", help=no_overwrite)
    removing = "Remove a dataset, or a directory with all that is in it, from an area."
    command("remove", removing, ("dataset", "AREA/PATH"), example="@public/notes.md", aliases=("rm",))


def _add_user_commands(command: _Adder) -> None:
    new = ("newuser", "e-mail address")
    adding = command("adduser", "Add a user to a subscriber with logins.", new, example="ada@example.org")
    adding.add_argument("newpass", nargs="?", help="password; made up when it is not given")
    adding.add_argument("-S", "--superuser", action="store_true", help="may manage users")
    old = ("user", "e-mail address")
    command("deluser", "Remove a user, with the personal area.", old, example="ada@example.org")
    listing = command("listusers", "List users.", example="--json", aliases=("lsu",))
    listing.add_argument("user", nargs="?", help="only the one of this e-mail address")


def _add_cache_commands(command: _Adder) -> None:
    below = "ROOT, or ROOT/PATH of a dataset or group"
    for name, text in (("status", "Tell what is cached."), ("verify", "Check what is cached against its checksums.")):
        sub = command(name, text, example="foo")
        sub.add_argument("path", nargs="?", default="", help=f"{below} (default: everything)")
    clearing = command("clear", "Forget what is cached.", example="foo/dir1")
    clearing.add_argument("path", nargs="?", default="", help=below)
    clearing.add_argument("--all", action="store_true", help="everything")
    command("pin", "Let datasets stay in the cache, whatever its quota.", ("path", below), example="foo/dir1")
    command("unpin", "Let pinned datasets go in their turn again.", ("path", below), example="foo/dir1")
    selected = ("path", "ROOT, ROOT/PATH or ROOT/PATH[SLICE]")
    command("prefetch", "Fetch what is not cached yet.", selected, example="'foo/dir1/ds-3d.b2nd[0]'")
    dataset = ("dataset", "ROOT/PATH of a dataset")
    sealing = command("seal", "Save what is cached of a dataset as a .b2nd.", dataset, example="foo/ds-1d.b2nd")
    sealing.add_argument("localpath", nargs="?", help="file or directory (default: its name, here)")


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        The exit code.
    """
    options = build_parser().parse_args(argv)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output went away: say nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(options: argparse.Namespace) -> int:
    try:
        from . import area_commands, cache_commands, commands, finding_commands, user_commands
        from .output import Output
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        print("cat2cli: the package rich is missing: pip install 'caterva2-jupyter[clients]'", file=sys.stderr)
        return 1
    from ..client.client import connect

    out = Output()
    kept = cache_commands if options.function.startswith("cache_") else commands
    modules = (area_commands, finding_commands, user_commands)
    module = next((module for module in modules if options.function in module.__all__), kept)
    action: Callable[..., None] = getattr(module, options.function)
    try:
        with connect(**connection_arguments(options)) as client:
            action(client, options, out)
        sys.stdout.flush()
    except (Caterva2Error, IndexError, ValueError, TypeError) as error:
        # Of the builtins those of an index that does not fit: the commands convert nothing else that users write.
        out.error(one_line(error, str(getattr(options, "dataset", getattr(options, "path", "")))))
        return 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        out.error(f"{error.filename or 'cannot write'}: {error.strerror or error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
