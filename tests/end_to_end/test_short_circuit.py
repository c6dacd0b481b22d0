"""Kernels on the subscriber's machine read its cache past it, and no others."""

from __future__ import annotations

import json
import stat
import urllib.error
import urllib.request
from pathlib import Path

import blosc2
import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.client.client import Client
from tests.processes import Network, Service, wait_for

CUBE = np.random.default_rng(0).integers(0, 1000, (40, 60, 50)).astype("<i4")


@pytest.fixture
def subscriber(network: Network, tmp_path: Path) -> Service:
    root = tmp_path / "root"
    root.mkdir()
    blosc2.asarray(CUBE, chunks=(20, 30, 50), blocks=(5, 10, 25), urlpath=str(root / "cube.b2nd"))
    network.start_broker()
    network.start_publisher("foo", root)
    service = network.start_subscriber()
    with cat2.connect(service.url) as client:
        wait_for(lambda: "foo/cube.b2nd" in client, message="the array is listed")
    return service


def reads_of(client: Client) -> list[str]:
    """From now on, what a client asks its service for."""
    asked: list[str] = []
    transport = client._session.service.transport
    request = transport.request

    def noted(method: str, route: str, **how: object) -> object:
        asked.append(f"{method} {route}")
        return request(method, route, **how)  # type: ignore[arg-type]

    transport.request = noted  # type: ignore[method-assign, assignment]
    return asked


def test_what_is_cached_moves_through_no_socket(subscriber: Service) -> None:
    with cat2.connect(subscriber.url) as client:
        asked = reads_of(client)
        array = client["foo/cube.b2nd"]
        cold = array[...]
        assert np.array_equal(cold, CUBE)
        assert "POST /api/v1/read" in asked
        asked.clear()
        assert np.array_equal(array[3:20, ::7, 4], CUBE[3:20, ::7, 4])
        assert np.array_equal(array[...], CUBE)
        assert asked == []
    with cat2.connect(subscriber.url) as client:  # as after a restart of the kernel
        asked = reads_of(client)
        array = client["foo/cube.b2nd"]
        assert np.array_equal(array[7], CUBE[7])
        assert "POST /api/v1/read" not in asked
        subscriber.kill()
        assert np.array_equal(array[...], CUBE)
        assert array.oindex[[3, 1], :, 4].tolist() == CUBE[[3, 1], :, 4].tolist()


def test_exact_values_that_came_do_not_come_again(subscriber: Service) -> None:
    with cat2.connect(subscriber.url) as client:
        asked = reads_of(client)
        array = client["foo/cube.b2nd"]
        values = array[:, 3, 4]
        assert asked.count("POST /api/v1/read") == 1
        values[:] = -1
        assert np.array_equal(array[:, 3, 4], CUBE[:, 3, 4])
        assert asked.count("POST /api/v1/read") == 1
        assert np.array_equal(array[::2, 3, 4], CUBE[::2, 3, 4])
        assert asked.count("POST /api/v1/read") == 2
        assert np.array_equal(array.with_cache("fill")[:, 3, 4], CUBE[:, 3, 4])
        assert asked.count("POST /api/v1/read") == 3


def test_it_can_be_turned_off(subscriber: Service) -> None:
    with cat2.connect(subscriber.url, short_circuit=False) as client:
        asked = reads_of(client)
        array = client["foo/cube.b2nd"]
        for _ in range(2):
            assert np.array_equal(array[...], CUBE)
        assert asked.count("POST /api/v1/read") >= 2
        assert "GET /api/v1/cache/location" not in asked


def location(subscriber: Service, **headers: str) -> dict[str, str]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{subscriber.url}/api/v1/cache/location", headers=names)
    with urllib.request.urlopen(request) as answer:
        form = json.loads(answer.read())
    assert isinstance(form, dict)
    return form


def test_the_location_proves_a_directory_of_this_user_alone(subscriber: Service) -> None:
    form = location(subscriber)
    directory = Path(form["directory"])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    proof = directory / form["proof"]
    assert stat.S_IMODE(proof.stat().st_mode) == 0o600
    assert proof.read_bytes().hex() not in json.dumps(form)
    for header in ("X_Forwarded_For", "X_Real_Ip", "Forwarded"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            location(subscriber, **{header: "10.0.0.1"})
        assert refused.value.code == 404
        refused.value.close()


@pytest.mark.parametrize(
    "uses",
    [None, 1, [1], [{}], [{"root": 1, "id": "i", "version": "v", "chunks": []}],
     [{"root": "r", "id": "i", "version": "v", "chunks": [[-1, []]]}],
     [{"root": "r", "id": "i", "version": "v", "chunks": [[0, ["x"]]]}],
     [{"root": "r", "id": "i", "version": "v", "chunks": [[0]]}]],
)  # fmt: skip
def test_malformed_uses_are_refused(shared_subscriber: Service, uses: object) -> None:
    body = json.dumps({"uses": uses}).encode()
    request = urllib.request.Request(f"{shared_subscriber.url}/api/v1/cache/uses", data=body, method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 400
    refused.value.close()


@pytest.fixture(scope="module")
def shared_subscriber(tmp_path_factory: pytest.TempPathFactory) -> object:
    network = Network(tmp_path_factory.mktemp("network"))
    yield network.start_subscriber("--broker", "")
    network.close()


def test_uses_of_what_is_not_there_are_taken_without_harm(shared_subscriber: Service) -> None:
    uses = [{"root": "r", "id": "i", "version": "v", "chunks": [[0, [0, 5, 2**40]]]}]
    body = json.dumps({"uses": uses}).encode()
    request = urllib.request.Request(f"{shared_subscriber.url}/api/v1/cache/uses", data=body, method="POST")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
