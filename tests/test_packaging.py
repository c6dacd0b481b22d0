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
    assert any(name.endswith("THIRD-PARTY.txt") and "/licenses/" in name for name in names)
    assert not any(name.startswith("tests/") for name in names)


def test_jupyterlab_finds_its_extension_in_the_wheel_with_no_node_on_the_path(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    for name in wheel.namelist():
        if ".data/data/share/jupyter/labextensions/" in name:
            target = tmp_path / name.split(".data/data/")[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(wheel.read(name))
    assert not any(name.startswith("caterva2_jupyter/labextension/") for name in wheel.namelist())  # or it came twice
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path), "JUPYTER_PATH": str(tmp_path / "share" / "jupyter")}
    listed = subprocess.run(
        [sys.executable, "-m", "jupyter", "labextension", "list"],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )
    lines = listed.stdout + listed.stderr
    place, _, rest = lines.partition(f"{tmp_path}/share/jupyter/labextensions")
    assert rest, place
    (line,) = [line for line in rest.splitlines()[:3] if "caterva2-jupyter" in line]
    assert "enabled" in line
    assert "OK" in line
