"""``publish``: a root that is served from here, and gone when it is closed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import caterva2_jupyter as cat2
from tests.processes import Network, Service, wait_for


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    network = Network(tmp_path_factory.mktemp("publish"))
    yield network
    network.close()


@pytest.fixture(scope="module")
def subscriber(network: Network) -> Service:
    return network.start_subscriber()


def test_arrays_in_memory_are_served_and_updated(subscriber: Service) -> None:
    with cat2.publish({"a/x": np.arange(10), "t.txt": b"text"}, "mine", follow=True, subscriber=subscriber.url) as made:
        assert made.followed_by == subscriber.url
        with cat2.connect(subscriber.url) as client:
            assert client["mine/a/x"][:].tolist() == list(range(10))
            assert client["mine/t.txt"].read() == b"text"
            made.update("a/x", np.arange(3))
            wait_for(lambda: client["mine/a/x"].shape == (3,), message="the update")
            made.update("new", np.ones(2))
            wait_for(lambda: "mine/new.b2nd" in client)
            made.remove("new")
            wait_for(lambda: "mine/new.b2nd" not in client)
            with pytest.raises(cat2.DatasetNotFoundError):
                made.remove("new")
        assert cat2.open_address(f"{made.address}/a/x.b2nd")[:].tolist() == [0, 1, 2]
    with cat2.connect(subscriber.url) as client:
        assert "mine" not in client.roots
    with pytest.raises(cat2.ConfigError):
        made.update("a/x", np.arange(3))


def test_a_dataset_of_xarray_is_a_root(subscriber: Service) -> None:
    xr = pytest.importorskip("xarray")
    ds = xr.Dataset({"t": (("x",), np.arange(3.0))}, coords={"x": [1, 2, 3]}, attrs={"title": "T"})
    with cat2.publish(ds, "run", follow=False) as made, cat2.connect(made.url) as client:
        assert sorted(client["run"]) == ["t.b2nd", "x.b2nd"]
        assert xr.open_dataset(made.address, engine="caterva2").identical(ds)


def test_directories_and_hdf5_files_are_served_as_they_are(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["g/v"] = np.arange(4)
    with cat2.publish(tmp_path / "f.h5", follow=False) as made, cat2.connect(made.url) as client:
        assert made.name == "f"
        assert client["f/g/v"][:].tolist() == [0, 1, 2, 3]
        with pytest.raises(cat2.RequestError, match="watched"):
            made.update("x", np.arange(2))
    directory = tmp_path / "data"
    directory.mkdir()
    with cat2.publish(directory, follow=False) as made, cat2.connect(made.url) as client:
        (directory / "x.txt").write_text("new")
        wait_for(lambda: "data/x.txt" in client)


def test_it_works_inside_a_running_loop_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def inside() -> None:
        with cat2.publish({"x": np.arange(3)}, "mine", follow=False) as made:
            client = cat2.connect(made.url)
            assert (await asyncio.to_thread(lambda: client["mine/x"][:])).tolist() == [0, 1, 2]

    asyncio.run(inside())
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "caterva2-publish"]


def test_what_cannot_be_published_is_one_line(tmp_path: Path) -> None:
    for arguments, error in (
        (({"x": np.arange(2)},), cat2.RequestError),
        (({"x": np.arange(2)}, "@public"), cat2.ConfigError),
        (({"../x": np.arange(2)}, "mine"), cat2.InvalidPathError),
        (({"x": object()}, "mine"), cat2.UnsupportedDatasetError),
        ((tmp_path / "absent",), cat2.ConfigError),
    ):
        with pytest.raises(error) as caught:
            cat2.publish(*arguments, follow=False)
        assert "\n" not in str(caught.value)
    with pytest.raises(cat2.SourceUnavailableError):
        cat2.publish({"x": np.arange(2)}, "mine", follow=True, subscriber="http://127.0.0.1:1")


def test_a_subscriber_follows_only_what_is_on_its_machine(subscriber: Service) -> None:
    with cat2.connect(subscriber.url) as client:
        transport = client._session.service.transport

        def ask(url: str, root: str = "mine", headers: dict[str, str] | None = None) -> None:
            body = json.dumps({"url": url, "root": root}).encode()
            transport.request("POST", "/api/v1/publishers", body=body, headers=headers)

        for url in (
            "http://example.org:80",
            "http://10.0.0.1:8001",
            "http://127.0.0.1.example.org:80",
            "https://localhost:1",
        ):
            with pytest.raises(cat2.AccessDeniedError):
                ask(url)
        with pytest.raises(cat2.RequestError):
            ask("file:///etc/passwd")
        with pytest.raises(cat2.AccessDeniedError):
            ask("http://127.0.0.1:1", headers={"X-Forwarded-For": "192.0.2.1"})
        with cat2.publish({"x": np.arange(2)}, "mine", follow=False) as made, pytest.raises(cat2.Caterva2Error):
            ask(made.url, "other")


def test_the_name_of_another_root_is_not_taken(subscriber: Service) -> None:
    first = cat2.publish({"x": np.arange(2)}, "same", follow=True, subscriber=subscriber.url)
    with pytest.raises(cat2.ConflictError):
        cat2.publish({"x": np.arange(3)}, "same", follow=True, subscriber=subscriber.url)
    with cat2.connect(subscriber.url) as client:
        assert client["same/x"].shape == (2,)
    first.close()
    first.close()


def test_a_program_that_ends_while_it_publishes_says_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    code = """
import caterva2_jupyter as cat2, numpy as np
published = cat2.publish({"a": np.arange(3)}, name="mine", follow=False)
client = cat2.connect(published.url)
watch = client.watch("mine", lambda change: None)
print(client["mine/a"][:].tolist())
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=100
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[0, 1, 2]\n", "")
    assert list(tmp_path.iterdir()) == []
