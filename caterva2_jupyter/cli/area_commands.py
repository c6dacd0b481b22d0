"""The commands of ``cat2cli`` that write to areas."""

from __future__ import annotations

import argparse
from pathlib import Path, PurePosixPath

from ..client.client import Client
from ..client.group import RemoteObject
from ..client.lazy_expression import from_text
from ..client.remote_array import RemoteArray
from ..core.paths import join
from ..errors import InvalidPathError, RequestError
from .output import Output

__all__ = ["addcontents", "copy", "lazyexpr", "move", "remove", "upload"]


def upload(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Put a local file or directory into an area."""
    local = Path(options.localpath)
    with out.progress(options.localpath) as progress:
        made = client.upload(local, _goal(client, options.dataset), progress, overwrite=not options.no_overwrite)
    _tell(f"Dataset stored in {_address(made)}", _address(made), options, out)


def addcontents(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Put what is in a local directory into an area."""
    local = Path(options.localdir)
    if not local.is_dir():
        raise RequestError(f"{local} is not a directory: `cat2cli upload` is for files")
    goal = options.dataset.rstrip("/")
    stored: list[str] = []
    for child in sorted(local.iterdir()):
        with out.progress(child.name) as progress:
            made = client.upload(child, f"{goal}/{child.name}", progress, overwrite=not options.no_overwrite)
        stored.append(_address(made))
        if not options.json:
            out.line(f"Dataset stored in {stored[-1]}")
    if options.json:
        out.json(stored)


def copy(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Copy a dataset or directory into an area."""
    made = client.copy(options.dataset, options.dest, overwrite=not options.no_overwrite)
    _tell(f"Dataset {options.dataset} copied to {_address(made)}", _address(made), options, out)


def move(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Move a dataset or directory within or between areas."""
    made = client.move(options.dataset, options.dest, overwrite=not options.no_overwrite)
    _tell(f"Dataset {options.dataset} moved to {_address(made)}", _address(made), options, out)


def remove(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Remove a dataset or directory from an area."""
    client.remove(options.dataset)
    _tell(f"Dataset (or directory contents) removed: {options.dataset}", options.dataset, options, out)


def lazyexpr(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Store an expression as an array of an area."""
    operands: dict[str, RemoteArray] = {}
    for text in options.operands:
        name, equals, address = text.partition("=")
        if not equals or not name or not address:
            raise RequestError(f"{text!r} is not an operand: write NAME=ROOT/PATH")
        operand = client[address.strip()]
        if not isinstance(operand, RemoteArray):
            raise RequestError(f"operand {name} is not an array: {address}")
        operands[name.strip()] = operand
    goal = options.name if options.name.startswith("@") else f"@personal/{options.name}"
    made = from_text(options.expression, operands).save(goal, overwrite=True)
    _tell(f"Expression stored in {_address(made)}", _address(made), options, out)


def _address(made: RemoteObject) -> str:
    return join(made._root, made.path)


def _goal(client: Client, address: str) -> str:
    """A directory that is there is said to be one: files go into it."""
    if address.endswith("/") or "/" not in address:
        return address
    try:
        parts = PurePosixPath(address).parts
        is_directory = client.entry("/".join(parts)).kind == "group" and not client.entry("/".join(parts)).version
    except (LookupError, InvalidPathError):
        return address
    return f"{address}/" if is_directory else address


def _tell(text: str, value: str, options: argparse.Namespace, out: Output) -> None:
    if options.json:
        out.json(value)
    else:
        out.line(text)
