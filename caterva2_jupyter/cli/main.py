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
    parser = argparse.ArgumentParser(prog="cat2cli", description="Talk to a Caterva2 subscriber.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    add_connection_options(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function: str, text: str, *arguments: tuple[str, str], aliases: tuple[str, ...] = ()) -> Any:
        sub = commands.add_parser(function.rstrip("_"), help=text, description=text, aliases=list(aliases))
        sub.set_defaults(function=function)
        for argument, meaning in arguments:
            sub.add_argument(argument, help=meaning)
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    dataset = ("dataset", "ROOT/PATH of a dataset")
    command("roots", "List the roots that the subscriber knows.")
    command("subscribe", "Have the subscriber follow a root.", ("root", "name of a root"))
    command("unsubscribe", "Have the subscriber forget a root.", ("root", "name of a root"))
    listing = command("list_", "List datasets.", ("path", "ROOT, or ROOT/PATH of a group"), aliases=("ls",))
    listing.add_argument("--long", "-l", action="store_true", help="with kind, shape, dtype and sizes")
    listing.add_argument("--filter", default="", help="only those that match, as in 'dtype:float32 ndim>2 temp'")
    command("info", "Tell what is known about a dataset.", dataset)
    showing = command("show", "Print values, or the text of a file.", ("dataset", "ROOT/PATH, or ROOT/PATH[SLICE]"))
    showing.add_argument(
        "--max-bytes", type=parse_nbytes, default=256 << 20, help="refuse to print more than this (default: 256M)"
    )
    command("url", "Print the URL that a dataset is fetched from.", dataset)
    saving = command("download", "Save a dataset as a file.", dataset)
    saving.add_argument("localpath", nargs="?", help="file or directory (default: ./ROOT/PATH)")
    command("announce", "Have the publisher look at a path now.", ("path", "ROOT/PATH that changed"))
    _add_finding_commands(command)
    _add_area_commands(command)
    _add_user_commands(command)
    _add_cache_commands(commands)
    return parser


def _add_finding_commands(command: Callable[..., Any]) -> None:
    tree = command("tree", "Print what is in a root or group as a tree.", ("path", "ROOT, or ROOT/PATH of a group"))
    tree.add_argument("--depth", "-d", type=_depth, help="levels to show (default: all)")
    tree.add_argument("--filter", default="", help="only datasets that match, as for list")
    search = command("search", "Search all followed roots.", ("words", "as in 'dtype:float32 ndim>2 temp'"))
    search.add_argument("paths", nargs="*", metavar="path", help="only in this ROOT or ROOT/PATH")
    search.add_argument("--long", "-l", action="store_true", help="with kind, shape, dtype and sizes")
    define = command(
        "lazyexpr",
        "Store an expression over arrays as an array of an area.",
        ("name", "@public/NAME, @shared/NAME, or NAME in @personal"),
        ("expression", "as in 'a + sin(b)'"),
    )
    define.add_argument("operands", nargs="*", metavar="NAME=ROOT/PATH", help="what its names stand for")


def _depth(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of levels")
    return int(text)


def _add_area_commands(command: Callable[..., Any]) -> None:
    goal = "AREA/PATH; a directory, or a trailing slash, keeps the name"
    source = ("dataset", "ROOT/PATH of a dataset or directory")
    no_overwrite = "refuse to replace what is there"
    local = ("localpath", "local file or directory")
    sending = [command("upload", "Put a local file or directory into an area.", local, ("dataset", goal))]
    adding = ("localdir", "local directory"), ("dataset", "AREA, or AREA/PATH of a directory")
    sending.append(command("addcontents", "Put what is in a local directory into an area.", *adding))
    copying = "Copy a dataset or directory into an area."
    sending.append(command("copy", copying, source, ("dest", goal), aliases=("cp",)))
    moving = "Move a dataset or directory within or between areas."
    sending.append(command("move", moving, source, ("dest", goal), aliases=("mv",)))
    for sub in sending:
        sub.add_argument("--no-overwrite", action="store_true", help=no_overwrite)
    removing = "Remove a dataset, or a directory with all that is in it, from an area."
    command("remove", removing, ("dataset", "AREA/PATH"), aliases=("rm",))


def _add_user_commands(command: Callable[..., Any]) -> None:
    adding = command("adduser", "Add a user to a subscriber with logins.", ("newuser", "e-mail address"))
    adding.add_argument("newpass", nargs="?", help="password; made up when it is not given")
    adding.add_argument("-S", "--superuser", action="store_true", help="may manage users")
    command("deluser", "Remove a user, with the personal area.", ("user", "e-mail address"))
    listing = command("listusers", "List users.", aliases=("lsu",))
    listing.add_argument("user", nargs="?", help="only the one of this e-mail address")


def _add_cache_commands(commands: Any) -> None:
    text = "Look at, check and fill the subscriber's cache."
    cache = commands.add_parser("cache", help=text, description=text)
    actions = cache.add_subparsers(dest="cache_command", required=True, metavar="COMMAND")

    def command(name: str, text: str, argument: str, meaning: str, default: str | None = None) -> Any:
        sub = actions.add_parser(name, help=text, description=text)
        sub.set_defaults(function=f"cache_{name}")
        if default is None:
            sub.add_argument(argument, help=meaning)
        else:
            sub.add_argument(argument, nargs="?", default=default, help=meaning)
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    below = "ROOT, or ROOT/PATH of a dataset or group"
    everything = f"{below} (default: everything)"
    command("status", "Tell what is cached.", "path", everything, "")
    command("verify", "Check what is cached against its checksums.", "path", everything, "")
    clearing = command("clear", "Forget what is cached.", "path", below, "")
    clearing.add_argument("--all", action="store_true", help="everything")
    command("pin", "Let datasets stay in the cache, whatever its quota.", "path", below)
    command("unpin", "Let pinned datasets go in their turn again.", "path", below)
    command("prefetch", "Fetch what is not cached yet.", "path", "ROOT, ROOT/PATH or ROOT/PATH[SLICE]")
    sealing = command("seal", "Save what is cached of a dataset as a .b2nd.", "dataset", "ROOT/PATH of a dataset")
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
    except Caterva2Error as error:
        out.error(one_line(error))
        return 1
    except (IndexError, ValueError, TypeError) as error:
        # Of an index that does not fit; the commands convert nothing else that users write.
        out.error(f"{error}: `cat2cli info DATASET` tells its shape")
        return 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        out.error(f"{error.filename or 'cannot write'}: {error.strerror or error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
