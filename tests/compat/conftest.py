"""A network of ours for all tests of the published client: broker, publisher, subscribers with and without users."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.published import Deployment, Published, find_environment, run_program
from tests.processes import Network, wait_for

PASSWORD = "foobar11"
USER, SUPERUSER = "user@example.com", "root@example.com"


@pytest.fixture(scope="session")
def programs() -> Path:
    """Where the published programs are."""
    return find_environment()


@pytest.fixture(scope="session")
def deployment(programs: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The network; its users were made by the published ``cat2adduser``, offline."""
    directory = tmp_path_factory.mktemp("compat")
    root = Path(shutil.copytree(repository / "root-example", directory / "root-example"))
    network = Network(directory)
    try:
        for name, option in ((USER, []), (SUPERUSER, ["--superuser"])):
            code, out = run_program(
                programs,
                directory,
                "cat2adduser",
                "--conf",
                "empty.toml",
                "--statedir",
                "users",
                *option,
                name,
                PASSWORD,
            )
            assert code == 0
            assert out.endswith(f"Password: {PASSWORD}\n")
        broker = network.start_broker()
        network.start_publisher("foo", root)
        plain = network.start_subscriber()
        users = network.start_subscriber(name="users", CATERVA2_SECRET="a secret of many characters")
        made = Deployment(root, directory, broker.url, plain.url, users.url)
        for url in (plain.url, users.url):
            wait_for(lambda url=url: made.knows(url, "foo", broker.url), 30)
        yield made
    finally:
        network.close()


@pytest.fixture(scope="session")
def published(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """The published client as a process."""
    client = Published(programs, tmp_path_factory.mktemp("published"))
    yield client
    client.close()
