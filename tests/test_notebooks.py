"""Every notebook runs from top to bottom and shows the outputs that are kept in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import caterva2_jupyter as cat2
from tests.processes import Network, wait_for

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_did(
    notebook: Path, network: Network, example_root: Path, tmp_path: Path, repository: Path
) -> None:
    network.start_broker()
    network.start_publisher("foo", example_root)
    subscriber = network.start_subscriber()
    wait_for(lambda: "foo" in cat2.connect(subscriber.url).roots, message="the root is known to the subscriber")
    own = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "TMPDIR")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("CATERVA2_", "PYTEST_", "COV_"))}
    environ |= {name: str(tmp_path / name.lower()) for name in own} | {
        "CATERVA2_URL": subscriber.url,
        "TQDM_DISABLE": "1",
    }
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH", "")]))
    for name in own:
        (tmp_path / name.lower()).mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider",
         "-W", "default", "--rootdir", str(tmp_path), "-c", os.devnull, str(notebook)],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_there_is_a_notebook() -> None:
    names = ["01-first-array.ipynb", "02-xarray-and-dask.ipynb", "03-look-at-it.ipynb"]
    assert [path.name for path in NOTEBOOKS][:3] == names
