"""Plain files are bytes in chunks, of any size in bounded memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from caterva2_jupyter.errors import DatasetChangedError, UnsupportedDatasetError
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.storage.plain_file import BLOCK_NBYTES, CHUNK_NBYTES

from .reading import entries_of, read


@pytest.mark.parametrize(
    "nbytes",
    [
        0,
        1,
        BLOCK_NBYTES - 1,
        BLOCK_NBYTES,
        BLOCK_NBYTES + 1,
        CHUNK_NBYTES - 1,
        CHUNK_NBYTES,
        CHUNK_NBYTES + 1,
        9_999_999,
    ],
)
@pytest.mark.parametrize("kind", ["noise", "zeros", "text"])
def test_bytes_are_equal(tmp_path: Path, nbytes: int, kind: str) -> None:
    rng = np.random.default_rng(nbytes)
    content = {
        "noise": rng.bytes(nbytes),
        "zeros": bytes(nbytes),
        "text": (b"some text\n" * (nbytes // 10 + 1))[:nbytes],
    }
    (tmp_path / "file.dat").write_bytes(content[kind])
    root = DirectoryRoot(tmp_path, "owner")
    entry = entries_of(root)["file.dat"]
    assert (entry.kind, entry.geometry.shape, entry.geometry.dtype) == ("file", (nbytes,), np.dtype("u1"))
    assert read(root, entry).tobytes() == content[kind]
    for _ in range(5):
        start, stop = sorted(rng.integers(0, nbytes + 1, 2).tolist())
        step = int(rng.choice([1, 3, 100_000]))
        assert read(root, entry, slice(start, stop, step)).tobytes() == content[kind][start:stop:step]


def test_a_file_of_a_terabyte_is_read_in_bounded_memory(tmp_path: Path) -> None:
    nbytes = 1 << 40
    with (tmp_path / "huge.bin").open("wb") as file:
        try:
            file.truncate(nbytes)
        except OSError:
            pytest.skip("this file system has no holes, or no files of this size")
        os.pwrite(file.fileno(), b"the end", nbytes - 7)
    root = DirectoryRoot(tmp_path, "owner")
    entry = entries_of(root)["huge.bin"]
    tracemalloc.start()
    assert read(root, entry, slice(-7, None)).tobytes() == b"the end"
    assert not read(root, entry, slice(10**11, 10**11 + CHUNK_NBYTES)).any()
    tail = root.read_file(entry, nbytes - (1 << 20), None)
    assert sum(len(part) for part in tail.parts) == 1 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * CHUNK_NBYTES


def test_a_file_that_shrinks_while_it_is_sent_is_not_the_same(tmp_path: Path) -> None:
    place = tmp_path / "file.dat"
    place.write_bytes(bytes(2 << 20))
    root = DirectoryRoot(tmp_path, "owner")
    parts = root.read_file(entries_of(root)["file.dat"], 0, None).parts
    next(parts)
    os.truncate(place, 1 << 20)
    with pytest.raises(DatasetChangedError, match=r"file\.dat"):
        list(parts)


def test_parts_that_nobody_reads_hold_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "file.dat").write_bytes(b"abc")
    root = DirectoryRoot(tmp_path, "owner")
    entry = entries_of(root)["file.dat"]
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    before = len(os.listdir("/proc/self/fd"))
    answers = [root.read_file(entry, 0, None) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) <= before
    assert b"".join(answers[0].parts) == b"abc"


def test_a_group_has_no_stored_bytes(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    root = DirectoryRoot(tmp_path, "owner")
    with pytest.raises(UnsupportedDatasetError, match="dir"):
        root.read_file(entries_of(root)["dir"], 0, None)
