"""The self-check that ships with the package passes here, and says what it leaves out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import Network


def run(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CATERVA2_")}
    return subprocess.run(
        [sys.executable, "-m", "caterva2_jupyter.tests", "-v"],
        cwd=directory,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(240)
def test_it_passes_and_leaves_its_state(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "skipped" not in done.stderr
    assert (tmp_path / "_caterva2_tests" / "logs" / "broker.log").exists()


@pytest.mark.timeout(120)
def test_it_uses_services_that_run_and_changes_nothing_there(
    network: Network, example_root: Path, tmp_path: Path
) -> None:
    network.start_broker()
    network.start_publisher("ours", example_root)
    subscriber = network.start_subscriber()
    before = sorted(str(p) for p in example_root.rglob("*"))
    work = tmp_path / "work"
    work.mkdir()
    done = run(work, CATERVA2_USE_EXTERNAL="1", CATERVA2_URL=subscriber.url)
    assert done.returncode == 0, done.stderr
    assert "skipped 'it would change services that are not its own'" in done.stderr
    assert not list(work.iterdir())
    assert sorted(str(p) for p in example_root.rglob("*")) == before


def test_with_no_services_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, CATERVA2_USE_EXTERNAL="1", CATERVA2_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
