"""``make demo``: from nothing to a slice through JupyterLab, and nothing left when it stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import caterva2_jupyter as cat2
from tests.processes import wait_for


def processes_under(directory: Path) -> list[str]:
    """Command lines of processes that name the demo's directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(directory) in command:
                found.append(command)
    return found


@pytest.mark.timeout(240)
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are looked up in /proc")
def test_the_demo_comes_up_serves_a_slice_and_stops_all_it_started(tmp_path: Path) -> None:
    home, directory, log = tmp_path / "home", tmp_path / "demo", tmp_path / "log"
    home.mkdir()
    with log.open("wb") as sink:
        demo = subprocess.Popen(
            [sys.executable, "-m", "caterva2_jupyter.tools.demo", "--no-browser", "--directory", str(directory)],
            env={k: v for k, v in os.environ.items() if not k.startswith(("CATERVA2_", "JUPYTER_"))}
            | {"HOME": str(home), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )

    def ready() -> re.Match[str] | None:
        if demo.poll() is not None:
            pytest.fail(f"the demo stopped: {log.read_text()}")
        return re.search(r"^ready: (http://\S+)$", log.read_text(), re.MULTILINE)

    try:
        match = wait_for(ready, 180, "the demo is ready")
        with cat2.connect(match.group(1)) as client:  # the URL that a user would paste, token and all
            assert set(client.roots) >= {"foo", "hdf5"}
            expected = np.arange(115, 120) * (1 + 1j)
            assert np.array_equal(client["foo/dir2/ds-4d.b2nd"][1, 2, 3], expected)
            assert client["hdf5/arrays/2d-gzip"].shape == (10, 10)
        assert len(processes_under(directory)) >= 4
        second = [sys.executable, "-m", "caterva2_jupyter.tools.demo", "--no-browser", "--directory", str(directory)]
        refused = subprocess.run(second, capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"error: a demo runs here already ({match.group(1)})")
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
        assert "Traceback" not in log.read_text()
        wait_for(lambda: not processes_under(directory), message="nothing is left running")
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.wait()
