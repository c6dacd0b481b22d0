"""Arguments of a wrong kind: an error at once that says what is wanted, and none from the depths."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import caterva2_jupyter as cat2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": 5}, "URL of a service is text"),
        ({"url": ""}, "URL of a service is empty"),
        ({"url": "http://h", "token": 5}, "token is text, not int"),
        ({"url": "http://h", "username": "ann"}, "password is missing"),
        ({"url": "http://h", "password": "x"}, "username is missing"),
        ({"max_nbytes": "1G"}, "max_nbytes is a number of bytes"),
        ({"max_nbytes": -1}, "max_nbytes is a number of bytes"),
        ({"connect_timeout_s": 0}, "connect_timeout_s is a number of seconds over 0"),
        ({"progress_timeout_s": "5"}, "progress_timeout_s is a number of seconds over 0"),
        ({"cache": "full"}, "no cache policy 'full'"),
    ],
)
def test_connect_says_which_argument_is_wrong(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(cat2.ConfigError, match=said):
        cat2.connect(**arguments)


@pytest.mark.parametrize("address", [5, None, b"foo", ("foo", "x"), slice(None)])
def test_an_address_is_text(client: cat2.Client, address: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client[address],
        lambda: client.download(address),
        lambda: client.watch(address, print),
        lambda: cat2.open_address(address),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="an address is text, 'ROOT/PATH', not"):
            call()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "write ROOT/PATH"),
        ("/foo/cube", "with no slash before the root's name"),
        ("./foo/cube", "with no slash before the root's name"),
        ("foo\\cube", "write ROOT/PATH"),
        ("http://localhost:8002/foo/cube", "cat2http://HOST:PORT/BASE/-/ROOT/PATH"),
        ("foo//cube", "not a dataset path"),
    ],
)
def test_a_text_that_is_no_address_is_told_how_one_is_written(client: cat2.Client, address: str, said: str) -> None:
    with pytest.raises(cat2.InvalidPathError, match=said):
        client[address]


def test_groups_are_indexed_by_paths_and_watched_by_functions(client: cat2.Client) -> None:
    with pytest.raises(TypeError, match="indexed by paths"):
        client["foo"][0]  # type: ignore[index]
    with pytest.raises(TypeError, match="calls a function with each change"):
        client.watch("foo", 5)  # type: ignore[arg-type]


def test_a_download_replaces_files_and_nothing_else(client: cat2.Client, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileExistsError, match="not a file that can be replaced"):
        client["foo/cube"].download(pipe)
    assert pipe.is_fifo()
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="a file, not a directory"):
        client["foo/cube"].download(tmp_path / "file" / "cube.b2nd")
    with pytest.raises(cat2.UnsupportedDatasetError, match=r"^foo is a directory"):
        client.download("foo")


def test_a_full_disk_is_told_with_the_goal_and_the_cure(
    client: cat2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no room is left on that disk") as caught:
        client["foo/README.md"].download(tmp_path / "README.md")
    assert caught.value.filename == str(tmp_path / "README.md")
    assert list(tmp_path.iterdir()) == []


def test_what_blosc2_cannot_write_is_told_as_an_error_of_the_disk(
    client: cat2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("Error while setting the slice")

    monkeypatch.setattr("blosc2.NDArray.__setitem__", fails)
    usage = shutil.disk_usage(tmp_path)
    with pytest.raises(OSError, match=r"Blosc2 cannot write it \(Error while setting the slice\)"):
        client["foo/cube"].download(tmp_path / "cube.b2nd")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(OSError, match="no room is left on that disk"):
        client["foo/cube"].download(tmp_path / "cube.b2nd")
    assert list(tmp_path.iterdir()) == []


def test_what_is_shown_of_public_objects_says_what_they_are(client: cat2.Client) -> None:
    assert repr(client.cache) == f"<CacheService of {client.url_base}>"
    assert repr(client.users) == f"<UserService of {client.url_base}>"
    assert [name for name in dir(cat2) if name in ("Any", "import_module", "annotations")] == []
    assert {"connect", "watch", "to_caterva2"} <= set(dir(cat2))
