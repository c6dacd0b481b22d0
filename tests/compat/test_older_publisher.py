"""The published ``cat2pub``, of our broker, read by our subscriber: what it has, and what changes there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np
import pytest

import caterva2_jupyter as cat2
from tests.compat.published import clean_environ
from tests.compat.test_published_client import LISTED
from tests.processes import Network, wait_for


class PublishedPublisher:
    """The published ``cat2pub`` of a root, at an address of its own."""

    def __init__(self, programs: Path, directory: Path, broker: str, root: Path) -> None:
        # It does not tell which port it took: one that nobody is given for the asking.
        self.http = f"127.0.0.1:{21000 + os.getpid() % 11000}"
        where = ["--broker", broker.removeprefix("http://"), "--http", self.http, "--statedir", "theirs"]
        with (directory / "theirs.log").open("wb") as log:
            self.process = subprocess.Popen(
                [programs / "cat2pub", *where, "old", root],
                cwd=directory,
                env=clean_environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    made = Network(tmp_path)
    yield made
    made.close()


def test_an_older_publisher_is_followed_until_one_of_ours_takes_its_place(
    programs: Path, repository: Path, network: Network, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(repository / "root-example", tmp_path / "data"))
    broker = network.start_broker()
    subscriber = network.start_subscriber()
    publisher = PublishedPublisher(programs, tmp_path, broker.url, root)
    try:
        client = cat2.connect(subscriber.url)
        wait_for(lambda: "old" in client, 60)
        old = client["old"]
        wait_for(lambda: sorted(old.walk()) == LISTED)
        # It lists a file before it has read it, and fails to tell of it until then; it is asked again soon.
        wait_for(lambda: not any(isinstance(old[path], cat2.UnsupportedDataset) for path in LISTED), 60)
        for path in LISTED:
            file = root / path
            if path.endswith(".b2nd"):
                array = blosc2.open(str(file), mode="r")
                assert old[path].dtype == array.dtype
                assert np.array_equal(old[path][...], array[()]), path
            elif path.endswith(".b2frame"):
                assert old[path][:] == blosc2.open(str(file), mode="r")[:]
            else:
                assert old[path].read() == file.read_bytes()
        assert dict(old["ds-sc-attr"].attrs) == {"a": 1, "b": "foo", "c": 123.456}
        assert np.array_equal(old["ds-1d"].sum(), np.arange(1000).sum())
        old["dir2/ds-4d"].download(tmp_path / "copy.b2nd")
        assert np.array_equal(blosc2.open(str(tmp_path / "copy.b2nd"), mode="r")[1, 2, 3], old["dir2/ds-4d"][1, 2, 3])

        # What changes is told by the broker; well before it would be looked for.
        for number in range(2):
            blosc2.asarray(np.arange(20.0) + number, urlpath=str(tmp_path / "new.b2nd"))
            (tmp_path / "new.b2nd").rename(root / "new.b2nd")
            wait_for(lambda n=number: client["old/new"][0] == n, 25)
            assert np.array_equal(client["old/new"][...], np.arange(20.0) + number)
        (root / "new.b2nd").unlink()
        wait_for(lambda: "new.b2nd" not in list(old.walk()), 25)

        def is_online() -> bool:
            return client.roots["old"].online

        assert is_online()
        publisher.kill()
        wait_for(lambda: not is_online(), 30)
        assert np.array_equal(client["old/ds-1d"][...], np.arange(1000)), "what was read is kept"
        ours = network.start_publisher("old", root)
        ours.stop()
        ours.start(publisher.http)
        wait_for(lambda: is_online(), 30)
        assert np.array_equal(client["old/ds-1d"][...], np.arange(1000))
        (root / "more.txt").write_text("more")
        wait_for(lambda: client["old/more.txt"].read() == b"more")
    finally:
        publisher.kill()
