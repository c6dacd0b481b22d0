"""Files slice to bytes, and open as streams."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.memory_service import MemoryService

TEXT = b"# Test\n" * 100


@pytest.mark.parametrize(
    "key", [slice(None), slice(0, 6), slice(-7, None), slice(None, None, -1), slice(3, 600, 11), slice(9, 2), ..., ()]
)
def test_slices_are_bytes(client: cat2.Client, key: object) -> None:
    expected = np.frombuffer(TEXT, "u1")[key].tobytes()  # type: ignore[index]
    assert client["foo/README.md"][key] == expected


def test_an_item_is_one_byte_and_errors_are_numpys(client: cat2.Client) -> None:
    file = client["foo/README.md"]
    assert file[0] == b"#"
    assert file[-1] == b"\n"
    assert len(file) == file.nbytes == 700
    assert file.itemsize == 1
    for key in (700, 1.0, "a", (0, 0), [1, 2]):
        with pytest.raises(IndexError):
            file[key]


def test_read_and_open(client: cat2.Client) -> None:
    file = client["foo/README.md"]
    assert file.read() == TEXT
    with file.open() as stream:
        assert stream.seekable()
        assert not stream.writable()
        assert stream.read(6) == b"# Test"
        assert stream.seek(-7, io.SEEK_END) == 693
        assert stream.read() == b"# Test\n"
        assert stream.read(1) == b""
        assert stream.seek(10_000) == 10_000
        assert stream.read() == b""
        with pytest.raises(ValueError, match="negative"):
            stream.seek(-1)
        stream.seek(0)
        assert len(stream.readlines()) == 100


def test_a_zip_file_is_read_in_place_and_moves_only_what_is_read() -> None:
    noise = np.random.default_rng(0).integers(0, 255, 12 << 20, dtype="u1").tobytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("noise.bin", noise)
        archive.writestr("hello.txt", "hello")
    with (
        MemoryService({"foo": MemoryRoot({"a.zip": packed.getvalue()})}) as service,
        cat2.connect(service.url) as client,
    ):
        with client["foo/a.zip"].open() as stream, zipfile.ZipFile(stream) as archive:
            assert archive.read("hello.txt") == b"hello"
        assert service.requests.count("POST read") <= 4
        assert client["foo/a.zip"].read() == packed.getvalue()


def test_a_frame_of_items_is_sliced_in_items_and_returns_bytes(client: cat2.Client) -> None:
    items = np.arange(12, dtype="<i4")
    geometry = Geometry((12,), (5,), (2,), np.dtype("V4"), padded=False)
    entry = Entry("a.b2frame", "file", id="i", version="v", geometry=geometry)

    class Session:
        class reader:
            @staticmethod
            def read(root: str, entry: Entry, selection: object, progress: object = None, cache: str = "") -> Any:
                (axis,) = selection.axes  # type: ignore[attr-defined]
                return items[axis.start : axis.stop : axis.step].view("V4")

        class service:
            @staticmethod
            def roots() -> None:
                raise cat2.SourceUnavailableError("away")

        @staticmethod
        def complete(root: str, entry: Entry) -> Entry:
            return entry

        max_nbytes = 1000
        cache = "auto"
        bars = None

    file = cat2.RemoteFile(Session(), "foo", entry)  # type: ignore[arg-type]
    assert file[1:3] == items[1:3].tobytes()
    assert file[-1] == items[-1].tobytes()
    assert (len(file), file.itemsize, file.nbytes) == (12, 4, 48)
    with file.open() as stream:
        stream.seek(6)
        assert stream.read(7) == items.tobytes()[6:13]
    assert "V4" in file._repr_html_()
