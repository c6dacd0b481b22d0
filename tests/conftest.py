"""What tests of several parts share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.processes import Network

# How long an example takes depends on what else the machine does; hangs are ended by pytest's own timeout.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

pytest_plugins = ("pytest_jupyter.jupyter_server",)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_the_shell() -> None:
    """Whoever tried the demo has its address in the environment: tests start their own services."""
    for name in ("URL", "TOKEN", "USERNAME", "PASSWORD", "SECRET", "NETWORK_TOKEN", "CONNECTION_FILE"):
        os.environ.pop(f"CATERVA2_{name}", None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that is tested."""
    return REPOSITORY


@pytest.fixture
def example_root(tmp_path: Path) -> Path:
    """A copy of the root of the quick start, to be changed at will."""
    return Path(shutil.copytree(REPOSITORY / "root-example", tmp_path / "root-example"))


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """Services as processes; all of them are stopped at the end."""
    (tmp_path / "network").mkdir()
    net = Network(tmp_path / "network")
    yield net
    net.close()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real NeXus and netCDF4 files."""
    folder = os.environ.get("CATERVA2_REAL_DATA")
    if not folder:
        pytest.skip("real files are not at hand: set CATERVA2_REAL_DATA to their folder")
    return Path(folder)


@pytest.fixture
def jp_server_config() -> dict[str, object]:
    """Jupyter servers of tests load the extension, and an undecorated verb is an error."""
    return {
        "ServerApp": {
            "jpserver_extensions": {"caterva2_jupyter": True},
            "allow_unauthenticated_access": False,
            "reraise_server_extension_failures": True,
        }
    }
