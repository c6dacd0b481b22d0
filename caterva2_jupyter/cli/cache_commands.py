"""What each ``cat2cli cache ...`` command does: one function a command, over a connected client.

As in ``commands``, errors are the package's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..client.address import split_for
from ..client.client import Client
from ..client.group import Group, RemoteObject
from ..client.remote_array import RemoteArray
from ..client.remote_file import RemoteFile
from ..client.representation import format_nbytes
from ..errors import IntegrityError, RequestError, SelectionError, TooLargeError
from .output import Output
from .selections import open_selected

__all__ = ["cache_clear", "cache_pin", "cache_prefetch", "cache_seal", "cache_status", "cache_unpin", "cache_verify"]


def cache_status(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Tell what is cached."""
    status = client.cache.status(options.path)
    if options.json:
        out.json(status)
        return
    datasets: list[dict[str, Any]] = status["datasets"]
    used, quota = format_nbytes(status["usage_nbytes"]), format_nbytes(status["quota_nbytes"])
    out.line(f"{used} of {quota} used in {status['directory']}")
    counters = {name: number for name, number in status["counters"].items() if number}
    if counters:
        out.line("since the start: " + ", ".join(f"{name} {number}" for name, number in counters.items()), style="dim")
    out.table(["name", "version", "size", "note"], [_row(dataset) for dataset in datasets])
    if options.path and not datasets:
        out.line(f"nothing of {options.path} is cached", style="dim")
    cached = {dataset["path"] for dataset in datasets}
    for path in status["pins"]:
        if path not in cached:
            out.line(f"{path} (pinned, nothing cached)", style="dim")


def _row(dataset: dict[str, Any]) -> list[str]:
    version, _, kept = dataset["version"].partition("#")
    notes = ["exact slices"] if kept else []
    return [dataset["path"], version, str(dataset["nbytes"]), ", ".join(notes + ["pinned"] * dataset["pinned"])]


def cache_verify(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Check what is cached against its checksums."""
    last: dict[str, Any] = {}
    with out.progress(options.path or "cache") as progress:
        for last in client.cache.verify(options.path):
            progress(last["nbytes"], last["total_nbytes"])
    if options.json:
        out.json({name: last[name] for name in ("blocks", "nbytes", "bad")})
    else:
        out.line(f"{last['blocks']} blocks with {format_nbytes(last['nbytes'])} checked, {last['bad']} bad")
    if last["bad"]:
        raise IntegrityError(f"{last['bad']} blocks failed their checksums and were dropped; reads fetch them again")


def cache_clear(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Forget what is cached."""
    if not options.path and not options.all:
        raise RequestError("say what to clear: ROOT, ROOT/PATH, or --all for everything")
    cleared = client.cache.clear(options.path)
    if options.json:
        out.json(cleared)
    else:
        out.line(f"{cleared['datasets']} datasets with {format_nbytes(cleared['nbytes'])} cleared")


def cache_pin(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Let datasets stay in the cache."""
    client.follow(split_for(client.url_base, options.path)[0])
    _tell(client.cache.pin(options.path), "pinned", options, out)


def cache_unpin(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Let pinned datasets go in their turn again."""
    _tell(client.cache.unpin(options.path), "unpinned", options, out)


def _tell(paths: Iterable[str], what: str, options: argparse.Namespace, out: Output) -> None:
    paths = list(paths)
    if options.json:
        out.json(paths)
        return
    for path in paths:
        out.line(f"{path} {what}")
    if not paths:
        out.line(f"nothing {what}")


def cache_prefetch(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Have a selection, or all below a group, fetched to the cache."""
    opened, _, key = open_selected(client, options.path)
    if key and isinstance(opened, Group):
        raise SelectionError(f"{options.path!r} selects from a group: write the name of a dataset")
    fetched: list[dict[str, Any]] = []
    for node in _datasets(opened):
        path = f"{node.root}/{node.path}"
        with out.progress(path) as progress:
            estimate = node.prefetch(key if key else ..., progress)
        fetched.append({"path": path, "blocks": estimate.nblocks, "held_blocks": estimate.held_nblocks})
        if not options.json:
            out.line(f"{path}: {estimate.held_nblocks} of {estimate.nblocks} blocks cached")
    if options.json:
        out.json(fetched)
    short = [form["path"] for form in fetched if form["held_blocks"] < form["blocks"]]
    if short:
        raise TooLargeError(
            f"not all of {short[0]}{f' and {len(short) - 1} more' if short[1:] else ''} fits in the cache: "
            "a larger cachequota is needed"
        )


def _datasets(node: RemoteObject) -> Iterator[RemoteArray | RemoteFile]:
    if isinstance(node, (RemoteArray, RemoteFile)):
        yield node
    elif isinstance(node, Group):
        for path in node.walk():
            below = node[path]
            if isinstance(below, (RemoteArray, RemoteFile)):
                yield below


def cache_seal(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Save what is cached of a dataset as a ``.b2nd``."""
    node = client[options.dataset]
    if not isinstance(node, (RemoteArray, RemoteFile)):
        raise RequestError(f"{options.dataset!r} is a group: `cat2cli list {options.dataset}` lists what is in it")
    with out.progress(options.dataset) as progress:
        saved = node.seal(Path(options.localpath) if options.localpath else None, progress)
    if options.json:
        out.json(str(saved))
    else:
        out.line(f"Dataset saved to {saved}")
