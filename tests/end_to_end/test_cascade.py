"""Subscribers that follow one another: what passes, who keeps it, whose name it is, and loops."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.request import Request, urlopen

import blosc2
import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.errors import NotCachedError
from tests.processes import Network, Service, wait_for

EXPECTED = np.arange(115, 120) * (1 + 1j)
WHERE = "foo/dir2/ds-4d.b2nd"


def roots_of(url: str) -> dict[str, dict[str, object]]:
    with urlopen(f"{url}/api/v1/roots", timeout=10) as answer:
        return {root["name"]: root for root in json.load(answer)["roots"]}


def meta_of(url: str) -> dict[str, object]:
    with urlopen(f"{url}/api/v1/meta?path={WHERE}", timeout=10) as answer:
        return dict(json.load(answer))


def read_of(url: str) -> bytes:
    """The answer to a read as it is on the wire, checksums and all."""
    body = json.dumps({"path": WHERE, "version": meta_of(url)["version"], "selection": None}).encode()
    with urlopen(Request(f"{url}/api/v1/read", body, {"Content-Type": "application/json"}), timeout=20) as answer:
        return bytes(answer.read())


def slice_of(url: str) -> np.ndarray:
    with cat2.connect(url) as client:
        return client["foo"]["dir2/ds-4d.b2nd"][1, 2, 3]


def has_slice(url: str) -> bool:
    return np.array_equal(slice_of(url), EXPECTED)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_at(network: Network, port: int, *arguments: object, name: str) -> Service:
    return network.start_subscriber("--http", f"127.0.0.1:{port}", *arguments, name=name)


@pytest.mark.timeout(120)
def test_a_subscriber_follows_another_one_and_both_keep_what_is_read(network: Network, example_root: Path) -> None:
    publisher = network.start_publisher("foo", example_root)
    near = network.start_subscriber("--publisher", publisher.url, name="near")
    far = network.start_subscriber("--upstream", near.url, name="far")
    wait_for(lambda: has_slice(far.url), message="a slice through two subscribers")
    wait_for(lambda: roots_of(near.url)["foo"]["followed"], message="the first one follows it, too")
    # The first slice may have passed through before that, and the near one keeps nothing of what it does not follow.
    assert has_slice(near.url)
    assert meta_of(far.url) == meta_of(publisher.url), "ids, versions and attributes are those of the origin"
    assert read_of(far.url) == read_of(publisher.url), "so are blocks, with their checksums"
    assert roots_of(far.url)["foo"]["owner"] == roots_of(publisher.url)["foo"]["owner"]
    # A change passes both.
    blosc2.asarray(np.arange(10), urlpath=str(example_root / "new.b2nd"), mode="w")
    wait_for(lambda: "new.b2nd" in cat2.connect(far.url)["foo"], message="a change is listed")
    # Without its publisher the chain serves what was read: the far one from the near one's cache.
    publisher.kill()
    wait_for(lambda: not roots_of(far.url)["foo"]["online"], message="it is told to be stale")
    far.stop()
    other = network.start_subscriber("--upstream", near.url, name="other")
    wait_for(lambda: has_slice(other.url), message="a slice with no publisher")
    with cat2.connect(other.url) as client, pytest.raises(NotCachedError):
        client["foo"]["new.b2nd"][...]


@pytest.mark.timeout(120)
def test_two_subscribers_that_name_each_other_make_no_loop(network: Network, example_root: Path) -> None:
    broker = network.start_broker()
    publisher = network.start_publisher("foo", example_root)
    ports = free_port(), free_port()
    one, two = (
        start_at(network, ports[i], "--upstream", f"http://127.0.0.1:{ports[1 - i]}", name=f"loop{i}") for i in (0, 1)
    )
    wait_for(lambda: has_slice(one.url) and has_slice(two.url), message="slices of both")
    broker.kill()
    publisher.kill()
    wait_for(lambda: not any(roots_of(s.url)["foo"]["online"] for s in (one, two)), message="both know it is away")
    assert has_slice(one.url)
    assert has_slice(two.url)
    for service in (one, two):
        with cat2.connect(service.url) as client, pytest.raises(NotCachedError):
            client["foo"]["ds-1d.b2nd"][...]
        assert not roots_of(service.url)["foo"]["online"], "neither takes the other's word for the publisher's"


def test_a_subscriber_that_names_itself_knows_no_more_roots(network: Network) -> None:
    port = free_port()
    alone = start_at(network, port, "--upstream", f"http://127.0.0.1:{port}", name="alone")
    assert set(roots_of(alone.url)) == {"@public"}, "its own area and nothing else"


@pytest.mark.timeout(120)
def test_a_root_is_announced_again_and_served_from_the_cache(network: Network, example_root: Path) -> None:
    publisher = network.start_publisher("foo", example_root)  # knows no broker
    network.start_broker()
    near = network.start_subscriber("--publisher", publisher.url, "--republish", "foo", name="near")
    assert network.broker is not None
    broker_url = network.broker.url
    wait_for(lambda: roots_of(broker_url).get("foo", {}).get("online"), message="the broker knows it")
    told = roots_of(broker_url)["foo"]
    assert told["http"] == near.url
    assert told["origin"] == roots_of(publisher.url)["foo"]["owner"] != told["owner"]
    far = network.start_subscriber(name="far")
    wait_for(lambda: has_slice(far.url), message="a slice by way of the broker")
    assert meta_of(far.url) == meta_of(publisher.url)
    blosc2.asarray(np.arange(10), urlpath=str(example_root / "new.b2nd"), mode="w")
    wait_for(lambda: "new.b2nd" in cat2.connect(far.url)["foo"], message="a change is listed")
    # Its publisher goes: what is told of it as live is not, but what is cached is served on.
    publisher.kill()
    wait_for(lambda: not roots_of(broker_url)["foo"]["online"], message="the broker shows it as away")
    wait_for(lambda: not roots_of(far.url)["foo"]["online"], message="and so do those who heard of it there")
    assert has_slice(far.url)


@pytest.mark.timeout(120)
def test_the_owner_of_a_root_takes_its_name_from_who_announced_it_meanwhile(
    network: Network, example_root: Path
) -> None:
    publisher = network.start_publisher("foo", example_root)
    network.start_broker()
    near = network.start_subscriber("--publisher", publisher.url, "--republish", "foo", name="near")
    assert network.broker is not None
    broker_url = network.broker.url
    wait_for(lambda: roots_of(broker_url).get("foo", {}).get("http") == near.url, message="announced again")
    publisher.stop()
    owner = network.start_publisher("foo", example_root)  # the same identity, and now it knows the broker
    wait_for(lambda: roots_of(broker_url)["foo"]["http"] == owner.url, message="the name is the owner's again")
    assert "origin" not in roots_of(broker_url)["foo"]
    stranger = network._add(
        "stranger", "caterva2_jupyter.publisher.app", "--broker", broker_url, "--statedir", "pub.x", "foo", example_root
    )
    wait_for(lambda: "belongs to another publisher" in stranger.log.read_text(), message="a stranger is refused")
    assert roots_of(broker_url)["foo"]["http"] == owner.url
