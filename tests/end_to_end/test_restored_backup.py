"""FAULTS V7 through a whole network: a backup is restored under a subscriber that refuses it, then accepts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import blosc2
import numpy as np
import pytest

import caterva2_jupyter as cat2
from tests.processes import Network, Service, wait_for

pytestmark = pytest.mark.timeout(300)

BEFORE, AFTER = np.arange(100), np.arange(100) + 1


def write(path: Path, array: np.ndarray, mtime_s: int) -> None:
    part = path.with_name(f"{path.name}.part")
    blosc2.asarray(array, urlpath=str(part), mode="w", chunks=(50,), blocks=(10,))
    os.utime(part, (mtime_s, mtime_s))
    part.replace(path)


def read(subscriber: Service, name: str) -> list[int]:
    with cat2.connect(subscriber.url) as client:
        return client["foo"][name][...].tolist()


def info(subscriber: Service, path: str) -> dict[str, object]:
    program = [sys.executable, "-m", "caterva2_jupyter.cli.main", "--subscriber", subscriber.url]
    return json.loads(
        subprocess.run(
            [*program, "info", "--json", path], capture_output=True, text=True, check=True, timeout=120
        ).stdout
    )


def nwent_back(subscriber: Service) -> int:
    with urllib.request.urlopen(f"{subscriber.url}/api/v1/roots", timeout=60) as answer:
        roots = {root["name"]: root for root in json.load(answer)["roots"]}
    return int(roots["foo"].get("went_back", 0))


def test_a_restored_backup_is_refused_or_read_with_a_mark(network: Network, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("kept.b2nd", "unread.b2nd"):
        write(root / name, AFTER, 2_000_000)
    publisher = network.start_publisher("foo", root)
    (network.directory / "empty.toml").write_text('[subscriber]\nrollbacks = "refuse"\n')
    subscriber = network.start_subscriber("--publisher", publisher.url)
    wait_for(lambda: read(subscriber, "kept.b2nd") == AFTER.tolist(), message="the newer state")
    for name in ("kept.b2nd", "unread.b2nd"):
        write(root / name, BEFORE, 1_000_000)
    wait_for(lambda: nwent_back(subscriber) == 2, message="it is marked")
    assert read(subscriber, "kept.b2nd") == AFTER.tolist()
    with pytest.raises(cat2.NotCachedError, match='rollbacks = "accept"'):
        read(subscriber, "unread.b2nd")
    (network.directory / "empty.toml").write_text("")
    subscriber.stop()
    subscriber.restart()
    wait_for(lambda: read(subscriber, "kept.b2nd") == BEFORE.tolist(), message="the older state, once accepted")
    assert read(subscriber, "unread.b2nd") == BEFORE.tolist()
    assert nwent_back(subscriber) == 2
    form = info(subscriber, "foo/kept.b2nd")
    assert form["went_back"] == "from the state of 1970-01-24T03:33:20Z to that of 1970-01-12T13:46:40Z"
    write(root / "kept.b2nd", AFTER, 3_000_000)
    wait_for(lambda: nwent_back(subscriber) == 1, message="what is newer again has no mark")
