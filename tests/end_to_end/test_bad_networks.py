"""Publisher, a network that fails, subscriber: what is read is right, or said to be missing (FAULTS N and P)."""

from __future__ import annotations

import os
import shutil
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.errors import Caterva2Error, NotCachedError
from tests.fault_proxy import FaultProxy, Faults
from tests.processes import Network, Service, wait_for

pytestmark = pytest.mark.timeout(180)

NOISE = np.random.default_rng(1).integers(0, 2**31, (400, 500), dtype="i4")  # 800 kB that do not compress
OTHER = np.random.default_rng(2).integers(0, 2**31, (400, 500), dtype="i4")


def write(path: Path, array: np.ndarray) -> None:
    part = path.with_name(path.name + ".part")
    blosc2.asarray(array, urlpath=str(part), mode="w", chunks=(100, 500), blocks=(20, 100))
    part.replace(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    write(tmp_path / "root/noise.b2nd", NOISE)
    write(tmp_path / "root/other.b2nd", OTHER)
    return tmp_path / "root"


@pytest.fixture
def publisher(network: Network, root: Path) -> Service:
    return network.start_publisher("foo", root)


@pytest.fixture
def proxy(publisher: Service) -> Iterator[FaultProxy]:
    with FaultProxy(publisher.url) as proxy:
        yield proxy


@pytest.fixture
def subscriber(network: Network, proxy: FaultProxy) -> Service:
    """One that has listed the root while the network was good, and read nothing."""
    subscriber = network.start_subscriber("--publisher", proxy.url)
    wait_for(lambda: paths_of(subscriber) >= {"noise.b2nd", "other.b2nd"}, message="listed")
    return subscriber


def paths_of(service: Service) -> set[str]:
    with cat2.connect(service.url) as client:
        return set(client["foo"])


def read(service: Service, name: str = "noise.b2nd", key: object = ...) -> np.ndarray:
    with cat2.connect(service.url) as client:
        return client["foo"][name][key]


def is_online(service: Service) -> bool:
    with cat2.connect(service.url) as client:
        return client.roots["foo"].online


def read_with_patience(service: Service, expected: np.ndarray) -> int:
    """Read until it succeeds, never wrong; how often it did not."""
    for failures in range(40):
        try:
            assert np.array_equal(read(service), expected)
        except Caterva2Error:
            continue
        return failures
    raise AssertionError("it never succeeds")


def is_all_cached(service: Service, proxy: FaultProxy) -> bool:
    proxy.faults = Faults(refuse=True)
    return np.array_equal(read(service), NOISE)


def test_a_publisher_that_refuses_connections_is_told_and_what_is_cached_is_served(
    subscriber: Service, proxy: FaultProxy
) -> None:
    """N1."""
    assert np.array_equal(read(subscriber), NOISE)
    proxy.faults = Faults(refuse=True)
    proxy.drop()
    wait_for(lambda: not is_online(subscriber), message="it is seen to be away")
    begun = time.monotonic()
    with pytest.raises(Caterva2Error):
        read(subscriber, "other.b2nd")
    assert time.monotonic() - begun < 25  # not the 30 s that an answer may take
    assert np.array_equal(read(subscriber), NOISE)
    proxy.faults = Faults()
    wait_for(lambda: is_online(subscriber), message="it is seen to be back")
    assert np.array_equal(read(subscriber, "other.b2nd"), OTHER)


@pytest.mark.parametrize("seed", [1, 2])
def test_answers_that_are_cut_anywhere_end_in_the_right_values(
    subscriber: Service, proxy: FaultProxy, seed: int
) -> None:
    """N2."""
    proxy.seed = seed
    proxy._rng.seed(seed)
    proxy.faults = Faults(cut_low=1, cut_high=400_000)
    proxy.drop()
    read_with_patience(subscriber, NOISE)
    assert proxy.nfaults
    assert is_all_cached(subscriber, proxy)


@pytest.mark.parametrize("seed", [1, 2])
def test_bits_that_flip_on_the_way_never_become_values(subscriber: Service, proxy: FaultProxy, seed: int) -> None:
    """N3."""
    proxy._rng.seed(seed)
    proxy.faults = Faults(cut_low=1, cut_high=300_000, flip=True)
    proxy.drop()
    read_with_patience(subscriber, NOISE)
    assert proxy.nfaults
    assert is_all_cached(subscriber, proxy)


STRANGERS = {
    "page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>",
    "json": b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"login": 1}',
    "redirection": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/login\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "busy": b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
}


def test_a_page_in_place_of_the_publisher_is_never_data(subscriber: Service, proxy: FaultProxy) -> None:
    """N5, and N7's storm."""
    for name, answer in STRANGERS.items():
        proxy.faults = Faults(answer=answer)
        proxy.drop()
        asked = proxy.connections
        with pytest.raises(Caterva2Error):
            read(subscriber)
        # Requests that failed are not multiplied: a few of a read, and those that look for the root meanwhile.
        assert proxy.connections - asked <= 20, name
    proxy.faults = Faults()
    wait_for(lambda: np.array_equal(read(subscriber), NOISE), message="the right values once it is gone")


def test_a_long_thin_and_lossy_network_costs_time_and_few_requests(subscriber: Service, proxy: FaultProxy) -> None:
    """N8: 300 ms there and back, 1 Mbit/s, and one piece in twenty comes late."""
    proxy.faults = Faults(delay_s=0.15, rate=125_000, pause_chance=0.05, pause_s=0.6)
    proxy.drop()
    for row in (17, 230, 390):
        before = proxy.reads
        assert np.array_equal(read(subscriber, key=(slice(row, row + 2), slice(90, 120))), NOISE[row : row + 2, 90:120])
        assert 1 <= proxy.reads - before <= 2


def test_an_answer_that_trickles_is_given_up_and_holds_up_no_other(
    network: Network, proxy: FaultProxy, repository: Path
) -> None:
    """N6."""
    environ = {"PYTHONPATH": str(repository)}
    subscriber = network.start_subscriber("--publisher", proxy.url, module="tests.impatient_subscriber", **environ)
    wait_for(lambda: paths_of(subscriber) >= {"noise.b2nd", "other.b2nd"}, message="listed")
    errors: list[BaseException] = []

    def read_noise() -> None:
        try:
            read(subscriber)
        except BaseException as error:
            errors.append(error)

    reading = threading.Thread(target=read_noise)
    # Enough to be progress: it would take minutes.
    proxy.ntrickles = 1
    reading.start()
    wait_for(lambda: proxy.ntrickles == 0, message="it is asked for")
    assert np.array_equal(read(subscriber, "other.b2nd"), OTHER)
    assert reading.is_alive()
    proxy.trickle_rate = 100
    reading.join(60)
    assert [type(error) for error in errors] == [NotCachedError]
    assert np.array_equal(read(subscriber), NOISE)


def test_events_that_are_lost_with_their_connections_leave_no_listing_wrong(network: Network, root: Path) -> None:
    """N9: between the broker and a subscriber."""
    broker = network.start_broker()
    network.start_publisher("foo", root)
    with FaultProxy(broker.url, seed=5) as proxy:
        subscriber = network.start_subscriber("--broker", proxy.url)
        wait_for(lambda: paths_of(subscriber) >= {"noise.b2nd"}, message="listed")
        proxy.faults = Faults(cut_low=300, cut_high=3000)
        proxy.drop()
        for i in range(40):
            (root / f"new-{i:02}.txt").write_text("new")
            if i % 4 == 3:
                (root / f"new-{i - 2:02}.txt").unlink()
                time.sleep(0.05)  # a pace, not a wait
        truth = set(os.listdir(root))
        wait_for(lambda: paths_of(subscriber) == truth, message="the listing is right though events are lost")
        assert proxy.nfaults


def test_a_half_open_connection_is_noticed_and_what_was_missed_is_caught_up(
    subscriber: Service, proxy: FaultProxy, root: Path
) -> None:
    """N10."""
    assert np.array_equal(read(subscriber), NOISE)
    proxy.faults = Faults(swallow=True)
    (root / "meanwhile.txt").write_text("new")
    wait_for(lambda: not is_online(subscriber), message="it is seen to be away")
    assert np.array_equal(read(subscriber), NOISE), "what is cached is served"
    proxy.faults = Faults()
    wait_for(lambda: is_online(subscriber) and "meanwhile.txt" in paths_of(subscriber), message="it has caught up")


def test_a_publisher_killed_within_an_answer_leaves_whole_blocks_only(
    subscriber: Service, publisher: Service, proxy: FaultProxy, root: Path
) -> None:
    """P1."""
    big = np.random.default_rng(3).integers(0, 2**31, (2400, 2500), dtype="i4")  # 24 MB
    write(root / "big.b2nd", big)
    wait_for(lambda: "big.b2nd" in paths_of(subscriber), message="listed")
    # Slow enough that a busy machine does not kill it too late.
    proxy.faults = Faults(rate=300_000)
    proxy.drop()
    before, errors = proxy.nbytes, []

    def read_all() -> None:
        try:
            read(subscriber, "big.b2nd")
        except BaseException as error:
            errors.append(error)

    reading = threading.Thread(target=read_all)
    reading.start()
    wait_for(lambda: proxy.nbytes - before > 5_000_000, message="some has come")
    publisher.kill()
    proxy.drop()  # what it had sent already, and is in buffers on the way, may be all
    reading.join(120)
    assert len(errors) == 1
    assert isinstance(errors[0], Caterva2Error)
    with pytest.raises(NotCachedError):
        read(subscriber, "big.b2nd")
    proxy.faults = Faults()
    publisher.restart()
    wait_for(lambda: is_online(subscriber), message="the publisher is back")
    before = proxy.nbytes
    assert np.array_equal(read(subscriber, "big.b2nd"), big)
    assert proxy.nbytes - before < big.nbytes - 2_000_000, "what had come whole was kept"
    publisher.kill()
    assert np.array_equal(read(subscriber, "big.b2nd"), big)


def test_data_changed_while_the_publisher_was_down_is_seen_though_size_and_time_are_the_same(
    subscriber: Service, publisher: Service, proxy: FaultProxy, root: Path
) -> None:
    """P2."""
    assert np.array_equal(read(subscriber), NOISE)
    publisher.kill()
    path = root / "noise.b2nd"
    stat = path.stat()
    twin = root.parent / "twin.b2nd"
    blosc2.asarray(NOISE[::-1].copy(), urlpath=str(twin), mode="w", chunks=(100, 500), blocks=(20, 100))
    assert twin.stat().st_size == stat.st_size
    path.write_bytes(twin.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    publisher.restart()
    seen = wait_for(lambda: _other_than(read(subscriber), NOISE), message="new values")
    assert np.array_equal(seen[0], NOISE[::-1])


def _other_than(array: np.ndarray, before: np.ndarray) -> list[np.ndarray]:
    return [] if np.array_equal(array, before) else [array]


def test_a_broker_that_lost_its_state_costs_nothing(network: Network, root: Path) -> None:
    """P3: killed, and started again with nothing."""
    broker = network.start_broker()
    network.start_publisher("foo", root)
    subscriber = network.start_subscriber()
    wait_for(lambda: np.array_equal(read(subscriber), NOISE), message="values")
    broker.kill()
    assert np.array_equal(read(subscriber, "other.b2nd"), OTHER), "data does not pass the broker"
    shutil.rmtree(network.directory / "bro")
    broker.restart()
    # The heartbeat is 5 s: publishers register again within it, and what is followed is followed on.
    wait_for(lambda: is_online(subscriber), message="the publisher is back at the broker")
    (root / "new.txt").write_text("new")
    wait_for(lambda: "new.txt" in paths_of(subscriber), message="changes are told again")


def test_two_subscribers_on_one_cache_directory_serve_both_and_harm_nothing(
    network: Network, publisher: Service, tmp_path: Path
) -> None:
    """P8."""
    (network.directory / "empty.toml").write_text(f'[subscriber]\ncachedir = "{tmp_path / "shared"}"\n')
    first = network.start_subscriber("--publisher", publisher.url, name="first")
    second = network.start_subscriber("--publisher", publisher.url, name="second")
    readers = [
        threading.Thread(target=lambda s=s: results.append(read_with_patience(s, NOISE))) for s in (first, second)
    ]
    results: list[int] = []
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert len(results) == 2
    log = second.log.read_text()
    assert "in use" in log or "another process" in log or "uses" in log, log
    publisher.kill()
    first.kill()
    first.restart()
    for service in (first, second):
        assert np.array_equal(read(service), NOISE), "each has what it read"


def test_a_cache_of_another_format_is_set_aside_not_fatal(network: Network, publisher: Service) -> None:
    """P11: an upgrade, or a step back."""
    subscriber = network.start_subscriber("--publisher", publisher.url)
    wait_for(lambda: np.array_equal(read(subscriber), NOISE), message="values")
    subscriber.stop()
    metas = list((network.directory / "sub").rglob("meta.json"))
    journals = list((network.directory / "sub").rglob("journal"))
    assert metas
    assert journals
    for meta in metas:
        meta.write_text('{"format": 99, "what": ["comes", "later"]}')
    for journal in journals:
        journal.write_bytes(b"C2J9" + os.urandom(500))
    subscriber.restart()
    wait_for(lambda: np.array_equal(read(subscriber), NOISE), message="values, fetched again")
    publisher.kill()
    assert np.array_equal(read(subscriber), NOISE), "and kept again"


def test_a_listing_that_unpacks_without_end_is_given_up(network: Network) -> None:
    """A5: a gigabyte in a megabyte."""
    packer = zlib.compressobj(9, wbits=31)
    spaces = b" " * (16 << 20)
    first = packer.compress(spaces) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = first + (packer.compress(spaces) + packer.flush(zlib.Z_FULL_FLUSH)) * 63
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}"
    with FaultProxy("", faults=Faults(answer=head.encode() + b"\r\n\r\n" + bomb)) as proxy:
        subscriber = network.start_subscriber("--publisher", proxy.url)
        wait_for(lambda: "answers with more than" in subscriber.log.read_text(), message="it says so")
        peak = Path(f"/proc/{subscriber.process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
        assert int(peak) < 400_000, "kilobytes"
