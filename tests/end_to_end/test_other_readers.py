"""Readers that know nothing of this system, over the stored files that it serves."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec

import blosc2
import h5py
import numpy as np
import pytest

from tests.processes import Network, Service, wait_for

CUBE = np.arange(60 * 50 * 40, dtype="<i4").reshape(60, 50, 40)
KEYS = [(3, slice(None), 7), (slice(10, 20), slice(0, 50, 7)), (-1, -1, -1)]


def read_range(url: str, start: int, nbytes: int) -> bytes:
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-{start + nbytes - 1}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 206
        body: bytes = answer.read()
    return body


class FileOverHttp(io.RawIOBase):
    """A seekable file, each read of which is a request for a range."""

    def __init__(self, url: str) -> None:
        self._url, self._position, self.nread = url, 0, 0
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20) as answer:
            assert answer.headers["Accept-Ranges"] == "bytes"
            self._nbytes = int(answer.headers["Content-Length"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._nbytes)[whence]
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        nbytes = min(len(buffer), self._nbytes - self._position)
        if nbytes <= 0:
            return 0
        buffer[:nbytes] = read_range(self._url, self._position, nbytes)
        self._position += nbytes
        self.nread += nbytes
        return nbytes


class FrameOverHttp(blosc2.ByteRangeNDSource):
    """What ``blosc2.open(url, lazy=True)`` reads with, over the standard library."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.nread = 0
        super().__init__(url)

    def read_range(self, offset: int, size: int) -> bytes:
        self.nread += size
        return read_range(self._url, offset, size)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Network, Service, Service]]:
    root = tmp_path_factory.mktemp("root")
    (root / "dir").mkdir()
    blosc2.asarray(CUBE, chunks=(20, 50, 40), blocks=(5, 10, 40), urlpath=str(root / "dir" / "cube.b2nd"))
    with h5py.File(root / "cube.h5", "w") as file:
        file.create_dataset("group/cube", data=CUBE, chunks=(10, 50, 40), compression="gzip", shuffle=True)
    network = Network(tmp_path_factory.mktemp("network"))
    try:
        network.start_broker()
        publisher = network.start_publisher("foo", root)
        subscriber = network.start_subscriber()
        for service in (publisher, subscriber):
            wait_for(lambda url=f"{service.url}/api/v1/files/foo/cube.h5": urllib.request.urlopen(url).read())  # type: ignore[misc]
        follow = urllib.request.Request(f"{subscriber.url}/api/v1/roots/foo/follow", b"{}", method="POST")
        urllib.request.urlopen(follow).close()
        yield network, publisher, subscriber
    finally:
        network.close()


@pytest.fixture(params=["publisher", "subscriber"])
def files(request: pytest.FixtureRequest, network: tuple[Network, Service, Service]) -> str:
    return f"{network[1 if request.param == 'publisher' else 2].url}/api/v1/files/foo"


def test_h5py_reads_a_file_over_http(files: str) -> None:
    source = FileOverHttp(f"{files}/cube.h5")
    with h5py.File(source, "r") as file:
        for key in KEYS:
            assert np.array_equal(file["group/cube"][key], CUBE[key])


def test_blosc2_reads_an_array_lazily_over_http(files: str) -> None:
    source = FrameOverHttp(f"{files}/dir/cube.b2nd")
    array = blosc2.Proxy(source)
    for key in KEYS:
        assert np.array_equal(array[key], CUBE[key])


@pytest.mark.skipif(not (find_spec("fsspec") and find_spec("aiohttp")), reason="fsspec[http] is not installed")
def test_blosc2_opens_a_url_lazily(files: str) -> None:
    array = blosc2.open(f"{files}/dir/cube.b2nd", lazy=True)
    assert array.shape == CUBE.shape
    for key in KEYS:
        assert np.array_equal(array[key], CUBE[key])


@pytest.mark.skipif(not (find_spec("fsspec") and find_spec("aiohttp")), reason="fsspec[http] is not installed")
def test_h5py_reads_through_fsspec(files: str) -> None:
    import fsspec

    with fsspec.open(f"{files}/cube.h5") as remote, h5py.File(remote, "r") as file:
        for key in KEYS:
            assert np.array_equal(file["group/cube"][key], CUBE[key])


def test_a_chunk_has_the_same_bytes_at_both_hops(network: tuple[Network, Service, Service]) -> None:
    _, publisher, subscriber = network
    with urllib.request.urlopen(f"{publisher.url}/api/v1/meta?path=foo/dir/cube") as answer:
        entry = json.load(answer)
    bodies = []
    for service in (publisher, subscriber, subscriber):
        with urllib.request.urlopen(f"{service.url}/api/v1/chunks/{entry['id']}/{entry['version']}/1") as answer:
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            bodies.append((answer.read(), answer.headers["ETag"]))
    assert len(set(bodies)) == 1
