"""What each command of ``cat2cli`` does: one function a command, over a connected client.

They raise the errors of the package; ``main`` turns them into one line and an exit code.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..client.address import split_for
from ..client.client import Client
from ..client.group import UnsupportedDataset
from ..client.remote_array import RemoteArray
from ..client.remote_file import RemoteFile
from ..core.catalog import parse_filter
from ..core.legacy import info_json
from ..core.metadata import Entry
from ..core.paths import join, name
from ..core.rollback_mark import rollback_text
from ..core.roots import host_and_port
from ..core.selection import parse_basic
from ..errors import RequestError, TooLargeError
from .output import Output
from .selections import open_selected

__all__ = ["announce", "download", "info", "list_", "roots", "show", "subscribe", "unsubscribe", "url"]


def roots(client: Client, options: argparse.Namespace, out: Output) -> None:
    """List the roots that the subscriber knows."""
    known = sorted(client.roots.values(), key=lambda status: status.name.startswith("@"))  # areas come last
    if options.json:
        out.json(
            {
                # As the old REST has it.
                status.name: {"name": status.name, "http": host_and_port(status.http)}
                | {"subscribed": True if status.followed else None}
                | ({} if status.online else {"online": False})
                for status in known
            }
        )
        return
    for status in known:
        notes = (" (subscribed)" if status.followed else "") + ("" if status.online else " (offline)")
        out.line(status.name + notes, style="" if status.online else "dim")


def subscribe(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Have the subscriber follow a root."""
    client.follow(options.root)
    _ok(options, out)


def _ok(options: argparse.Namespace, out: Output) -> None:
    if options.json:
        out.json("Ok")
    else:
        out.line("Ok")


def unsubscribe(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Have the subscriber forget a root."""
    client.unfollow(options.root)
    _ok(options, out)


def list_(client: Client, options: argparse.Namespace, out: Output) -> None:
    """List what is in a root or group."""
    parse_filter(options.filter)
    root, path = split_for(client.url_base, options.path)
    entries = _below(client, root, path, options.filter)
    if options.json and options.long:
        out.json([entry.to_json() for entry in entries])
    elif options.json:
        start = len(path) + 1 if path else 0
        out.json(sorted((e.path[start:] or name(e.path)) for e in entries))
    elif options.long:
        out.table(
            ["name", "kind", "shape", "dtype", "size", "stored", "note"],
            [_row(root, entry) for entry in entries],
        )
    else:
        for entry in entries:
            out.line(join(root, entry.path))


def _below(client: Client, root: str, path: str, words: str) -> list[Entry]:
    """The datasets at or below a path; groups are parts of their paths only."""
    if path:
        entry = client.entry(f"{root}/{path}")
        if entry.kind != "group":
            return [entry]
        path = entry.path
    found = client.entries(join(root, path), q=words)
    return [entry for entry in found if entry.path and (entry.kind != "group" or entry.version)]


def _row(root: str, entry: Entry) -> list[str]:
    g = entry.geometry
    return [
        join(root, entry.path),
        entry.kind,
        str(g.shape) if g else "",
        str(g.dtype) if g else "",
        str(g.nbytes) if g else "",
        str(entry.cbytes) if entry.cbytes else "",
        entry.reason or entry.target or _note(entry),
    ]


def _note(entry: Entry) -> str:
    went_back = rollback_text(entry)
    return f"went back {went_back}" if went_back else str(entry.storage.get("note", ""))


def info(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Tell what is known about a dataset."""
    root, path = split_for(client.url_base, options.dataset)
    entry = client.entry(join(root, path))
    form = info_json(entry, urlpath=join(root, entry.path)) if entry.has_data else _describe(entry)
    if text := rollback_text(entry):
        form["went_back"] = text
    if options.json:
        out.json(form)
    else:
        out.mapping(form)


def _describe(entry: Entry) -> dict[str, Any]:
    """What there is to say of a group, a link or what cannot be served."""
    form = entry.to_json()
    return {key: form[key] for key in ("path", "kind", "attrs", "reason", "target", "media_type") if key in form}


def show(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Print values of a dataset, or the text of a file."""
    node, address, key = open_selected(client, options.dataset)
    if isinstance(node, UnsupportedDataset):
        node[()]  # raises, with the reason
    if not isinstance(node, (RemoteArray, RemoteFile)):
        raise RequestError(f"{address!r} is a group: `cat2cli list {address}` lists what is in it")
    _check_size(address, node, key, options.max_bytes)
    value = node[key] if key or isinstance(node, RemoteArray) else node.read()
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = f"Binary data, {len(value)} bytes: `cat2cli download {address}` saves all of it"
        out.text(text)
    else:
        out.text(str(value))


def _check_size(address: str, node: RemoteArray | RemoteFile, key: tuple[Any, ...], max_bytes: int) -> None:
    itemsize = node.dtype.itemsize if isinstance(node, RemoteArray) else node.itemsize
    nbytes = parse_basic(key, node.shape).selection.size * max(itemsize, 1)
    if nbytes > max_bytes:
        raise TooLargeError(
            f"{address} would take {nbytes} bytes, over the limit of {max_bytes}: give a slice, as in "
            f"'{address}[:10]', or a higher --max-bytes"
        )


def url(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Print the URL that a dataset is fetched from."""
    root, path = split_for(client.url_base, options.dataset)
    entry = client.entry(join(root, path))
    text = client.url(join(root, entry.path))
    if options.json:
        out.json(text)
    else:
        out.line(text)


def download(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Save a dataset as a file."""
    root, path = split_for(client.url_base, options.dataset)
    node = client[join(root, path)]
    target = Path(root, node.path) if options.localpath is None else options.localpath
    with out.progress(options.dataset) as progress:
        saved = node.download(target, progress)
    if options.json:
        out.json(str(saved))
    else:
        out.line(f"Dataset saved to {saved}")


def announce(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Have the publisher look at a path now."""
    client.announce(options.path)
    _ok(options, out)
