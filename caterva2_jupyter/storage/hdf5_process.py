"""The worker process that alone touches HDF5 (``python -m caterva2_jupyter.storage.hdf5_process FD``).

It answers requests on the socket that it is given: JSON with open files passed along, never a path that it
may choose. Frames are ``u32 n, u64 m, n bytes of JSON, m bytes``. It keeps no file open between requests.
``hdf5_worker`` starts it, watches it and starts it again.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..errors import Caterva2Error
from .hdf5_plugins import load_plugins

__all__ = ["HEAD", "main"]

HEAD = struct.Struct("<IQ")
_MAX_MEMORY_NBYTES = 16 << 30
_BATCH_NBYTES = 1 << 20


def main(arguments: list[str]) -> None:
    """Answer until the other end closes."""
    channel = socket.socket(fileno=int(arguments[0]))
    _limit()
    problem = ""
    try:
        from .hdf5_index import Hdf5Reader
    except ImportError as error:
        problem = f"HDF5 files need {error.name}: pip install 'caterva2-jupyter[hdf5]'"
    with suppress(ImportError):
        load_plugins()
    while request := _receive(channel):
        form, fds = request
        try:
            for answer, body in [({"error": problem}, b"")] if problem else _answers(Hdf5Reader, form, fds):
                _send(channel, answer, body)
            _send(channel, {"end": True})
        except BrokenPipeError:
            return
        finally:
            for fd in fds:
                os.close(fd)


def _limit() -> None:
    """No core dumps, bounded memory, and a directory in which relative names find nothing."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_NBYTES, _MAX_MEMORY_NBYTES))
    nowhere = tempfile.mkdtemp(prefix="caterva2-")
    os.chdir(nowhere)
    os.rmdir(nowhere)
    for name in ("HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX", "HDF5_EXT_PREFIX"):
        os.environ.pop(name, None)


def _answers(reader: Any, form: dict[str, Any], fds: list[int]) -> Iterator[tuple[dict[str, Any], bytes]]:
    from .hdf5_edge import FOREIGN_ERRORS

    name = form.get("name") or f"/dev/fd/{fds[0]}"
    try:
        with reader(name) as file:
            match form["ask"]:
                case "index":
                    yield from _batches(file.index()) if "skip" not in form else _one_by_one(file, form["skip"])
                case "dataset":
                    yield file.dataset(form["path"], form["shape"])
                case "attributes":
                    yield file.attributes(form["path"]), b""
                case "sources":
                    yield {"sources": [file.sources(path) for path in form["paths"]]}, b""
                case "read":
                    yield file.read(form["path"], form["start"], form["stop"])
                case ask:
                    yield {"error": f"unknown request {ask}"}, b""
    except (Caterva2Error, *FOREIGN_ERRORS) as error:
        yield {"error": (str(error) or type(error).__name__).splitlines()[0][:500]}, b""


def _one_by_one(file: Any, skip: list[str]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each object by itself, after its path: so it is known at which one this process died."""
    for node in file.index(frozenset(skip)):
        if "at" in node:
            yield node, b""
        else:
            yield {}, json.dumps([node], separators=(",", ":")).encode()


def _batches(nodes: Iterator[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
    texts: list[str] = []
    nbytes, begun = 0, time.monotonic()
    for node in nodes:
        text = json.dumps(node, separators=(",", ":"))
        texts.append(text)
        nbytes += len(text)
        # Slow storage is not silence.
        if nbytes > _BATCH_NBYTES or time.monotonic() - begun > 1:
            yield {}, f"[{','.join(texts)}]".encode()
            texts, nbytes, begun = [], 0, time.monotonic()
    yield {}, f"[{','.join(texts)}]".encode()


def _receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    data, fds, _, _ = socket.recv_fds(channel, HEAD.size, 8)
    while data and len(data) < HEAD.size:
        more = channel.recv(HEAD.size - len(data))
        if not more:
            return None
        data += more
    if not data:
        return None
    size, _ = HEAD.unpack(data)
    body = b""
    while len(body) < size:
        more = channel.recv(size - len(body))
        if not more:
            return None
        body += more
    return json.loads(body), list(fds)


def _send(channel: socket.socket, form: dict[str, Any], body: bytes = b"") -> None:
    text = json.dumps(form, separators=(",", ":")).encode()
    channel.sendall(HEAD.pack(len(text), len(body)) + text)
    if body:
        channel.sendall(body)


if __name__ == "__main__":
    main(sys.argv[1:])
