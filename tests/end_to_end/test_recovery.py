"""Any of the three services may be killed and started again; the others carry on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import blosc2
import h5py
import numpy as np
import pytest

import caterva2_jupyter as cat2
from tests.processes import Network, wait_for

EXPECTED = np.arange(115, 120) * (1 + 1j)


def slice_of(url: str) -> np.ndarray:
    with cat2.connect(url) as client:
        return client["foo"]["dir2/ds-4d.b2nd"][1, 2, 3]


def paths_of(url: str) -> set[str]:
    with cat2.connect(url) as client:
        return set(client["foo"].walk())


@pytest.mark.timeout(180)
def test_each_service_recovers_from_kill_9(network: Network, example_root: Path) -> None:
    broker = network.start_broker()
    publisher = network.start_publisher("foo", example_root)
    subscriber = network.start_subscriber()
    wait_for(lambda: np.array_equal(slice_of(subscriber.url), EXPECTED), message="a first slice")

    def add_and_see(name: str) -> None:
        blosc2.asarray(np.arange(10), urlpath=str(example_root / name), mode="w")
        wait_for(lambda: name in paths_of(subscriber.url), message=f"{name} is listed")
        with cat2.connect(subscriber.url) as client:
            assert client["foo"][name][...].tolist() == list(range(10))

    add_and_see("before.b2nd")
    broker.kill()
    assert np.array_equal(slice_of(subscriber.url), EXPECTED)
    broker.restart()
    add_and_see("after-broker.b2nd")
    publisher.kill()
    assert np.array_equal(slice_of(subscriber.url), EXPECTED), "what is cached is served without the publisher"
    blosc2.asarray(np.arange(10), urlpath=str(example_root / "meanwhile.b2nd"), mode="w")
    publisher.restart()
    wait_for(lambda: "meanwhile.b2nd" in paths_of(subscriber.url), message="what changed meanwhile is listed")
    add_and_see("after-publisher.b2nd")
    subscriber.kill()
    subscriber.restart()
    wait_for(lambda: np.array_equal(slice_of(subscriber.url), EXPECTED), message="a slice after the restart")
    add_and_see("after-subscriber.b2nd")


@pytest.mark.timeout(180)
def test_a_frozen_broker_hides_no_root_and_a_frozen_publisher_holds_no_reader(
    network: Network, example_root: Path
) -> None:
    """N10: connections stay open, and nothing comes."""
    broker = network.start_broker()
    publisher = network.start_publisher("foo", example_root)
    subscriber = network.start_subscriber()
    wait_for(lambda: np.array_equal(slice_of(subscriber.url), EXPECTED), message="a first slice")

    def is_online() -> bool:
        with cat2.connect(subscriber.url) as client:
            return client.roots["foo"].online

    broker.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: "no connection to the broker" in subscriber.log.read_text(), message="the broker is missed")
    assert is_online()
    (example_root / "meanwhile.txt").write_text("new")
    wait_for(lambda: "meanwhile.txt" in paths_of(subscriber.url), message="the publisher itself is asked")
    assert is_online()
    broker.process.send_signal(signal.SIGCONT)
    publisher.process.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: not is_online(), message="the publisher is missed")
        begun = time.monotonic()
        with cat2.connect(subscriber.url) as client, pytest.raises((cat2.NotCachedError, cat2.SourceUnavailableError)):
            client["foo"]["dir1/ds-3d.b2nd"][...]
        assert time.monotonic() - begun < 25  # not the 30 s that an answer may take
    finally:
        publisher.process.send_signal(signal.SIGCONT)
    wait_for(is_online, message="the publisher is back")


def test_a_subscriber_follows_a_publisher_with_no_broker(network: Network, example_root: Path) -> None:
    publisher = network.start_publisher("foo", example_root)
    subscriber = network.start_subscriber("--publisher", publisher.url)
    wait_for(lambda: np.array_equal(slice_of(subscriber.url), EXPECTED), message="a slice")
    (example_root / "new.txt").write_text("new")
    wait_for(lambda: "new.txt" in paths_of(subscriber.url), message="a new file is listed")


def test_a_new_root_is_told_of_when_there_is_something_to_list(tmp_path: Path) -> None:
    root = tmp_path / "many.h5"
    with h5py.File(root, "w") as file:
        for number in range(500):
            file[str(number)] = number
    network = Network(tmp_path)
    try:
        network.start_broker()
        subscriber = network.start_subscriber()
        network.start_publisher("many", root)
        with cat2.connect(subscriber.url) as client:
            wait_for(lambda: "many" in client.roots)
            assert len(client["many"]) == 500
    finally:
        network.close()


def test_a_watch_goes_on_over_a_subscriber_that_is_killed(network: Network, example_root: Path) -> None:
    network.start_broker()
    network.start_publisher("foo", example_root)
    subscriber = network.start_subscriber()
    heard: list[cat2.Change] = []
    with cat2.connect(subscriber.url) as client, client.watch("foo", heard.append):
        wait_for(lambda: cat2.Change("online") in heard)
        subscriber.kill()
        wait_for(lambda: cat2.Change("offline") in heard)
        blosc2.asarray(np.arange(10), urlpath=str(example_root / "missed.b2nd"), mode="w")
        subscriber.restart()
        # Killed, it may have lost where its catalog was: then it says that it cannot tell what was missed.
        wait_for(lambda: cat2.Change("put", "missed.b2nd") in heard or cat2.Change("listed") in heard)
