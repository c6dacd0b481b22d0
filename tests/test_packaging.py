"""The wheel holds what it has to, and the sample files come with it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("dist")
    # As users build it: an sdist of the repository, then the wheel of that sdist.
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(repository)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_has_the_package_the_samples_and_the_example_root(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "caterva2_jupyter/py.typed" in names
    shared = {name.split(".data/data/")[1] for name in names if ".data/data/" in name}
    assert "share/caterva2-jupyter/caterva2.sample.toml" in shared
    assert "share/caterva2-jupyter/caterva2-standalone.sample.toml" in shared
    assert "share/caterva2-jupyter/root-example/dir2/ds-4d.b2nd" in shared
    assert "etc/jupyter/jupyter_server_config.d/caterva2_jupyter.json" in shared


def test_the_wheel_has_the_licence_and_no_tests(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith("tests/") for name in names)
