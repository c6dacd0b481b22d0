"""``cat2bro`` as a process: how it starts, what it says when it cannot, and that a kill costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.processes import Network, Service, wait_for

PROGRAM = [sys.executable, "-m", "caterva2_jupyter.broker.app"]


def run(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (directory / "empty.toml").touch()
    command = [*PROGRAM, "--conf", "empty.toml", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=30, env=environ or None)


def roots(service: Service) -> dict[str, bool]:
    with urllib.request.urlopen(f"{service.url}/api/v1/roots", timeout=5) as answer:
        return {r["name"]: r["online"] for r in json.load(answer)["roots"]}


def test_it_says_where_it_listens_and_stops_when_asked(network: Network):
    broker = network.start_broker()
    lines = broker.log.read_text().splitlines()
    assert lines == [f"broker listening on {broker.url}"]
    assert broker.stop() == 0


def test_a_port_in_use_is_one_line(network: Network):
    broker = network.start_broker()
    answer = run(network.directory, "--http", broker.address, "--statedir", "other")
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.splitlines() == [
        f"cat2bro: {broker.address} is in use: stop the other program, or choose another address with --http"
    ]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--http", "nowhere:at-all"], "is not an address"),
        (["--http", "0.0.0.0:0"], "refusing to listen on 0.0.0.0:0 without a network token"),
        (["--loglevel", "loud"], "loglevel 'loud' is none of"),
        (["--statedir", "/dev/null"], "set statedir under [broker]"),
        (["--statedir", "/dev/null/state"], "cannot use /dev/null/state for the state (Not a directory)"),
        (["--statedir", "/proc/nowhere"], "cannot use /proc/nowhere for the state"),
        (["--conf", "missing.toml"], "cannot read missing.toml"),
    ],
)
def test_a_setting_that_is_wrong_is_one_line(tmp_path: Path, arguments: list[str], why: str):
    answer = run(tmp_path, "--http", "127.0.0.1:0", *arguments)
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith("cat2bro: ")
    assert why in line


def test_unknown_options_are_usage(tmp_path: Path):
    assert run(tmp_path, "--wrong").returncode == 2


@pytest.mark.timeout(180)
def test_killing_it_costs_its_publishers_nothing(network: Network, example_root: Path):
    broker = network.start_broker()
    publisher = network.start_publisher("foo", example_root)
    wait_for(lambda: roots(broker) == {"foo": True})
    for _ in range(2):
        broker.kill()
        assert publisher.process.poll() is None
        broker.restart()
        wait_for(lambda: roots(broker) == {"foo": True})
    (network.directory / "bro" / "db.json").unlink()
    broker.kill()
    broker.restart()
    wait_for(lambda: roots(broker) == {"foo": True})
    publisher.kill()
    wait_for(lambda: roots(broker) == {"foo": False})
    publisher.restart()
    wait_for(lambda: roots(broker) == {"foo": True})


def test_a_second_publisher_of_a_name_serves_but_is_not_announced(network: Network, example_root: Path):
    broker = network.start_broker()
    first = network.start_publisher("foo", example_root)
    wait_for(lambda: roots(broker) == {"foo": True})
    second = network._add(
        "second",
        "caterva2_jupyter.publisher.app",
        "--broker",
        broker.url,
        "--statedir",
        "pub.second",
        "foo",
        example_root,
    )
    wait_for(lambda: "'foo' belongs to another publisher" in second.log.read_text())
    with urllib.request.urlopen(f"{broker.url}/api/roots", timeout=5) as answer:
        assert json.load(answer) == {"foo": {"name": "foo", "http": first.address}}
