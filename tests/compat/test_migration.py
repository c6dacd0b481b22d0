"""Moving here: services of the published package beside ours, and a state directory that it left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

from tests.compat.conftest import PASSWORD, USER
from tests.compat.published import Deployment, Published, PublishedError, clean_environ, run_program
from tests.compat.test_published_client import LISTED
from tests.processes import Service, wait_for

SECRET = "a secret of many characters"
MINE = np.arange(1000)


class PublishedSubscriber:
    """The published ``cat2sub``, of our broker."""

    def __init__(self, programs: Path, directory: Path, deployment: Deployment, port: int) -> None:
        self.directory, self.url = directory, f"http://127.0.0.1:{port}"
        (directory / "caterva2.toml").write_text(
            f'[broker]\nhttp = "{deployment.broker.removeprefix("http://")}"\n'
            f'[subscriber]\nhttp = "127.0.0.1:{port}"\nurlbase = "{self.url}"\nstatedir = "state"\n'
        )
        assert run_program(programs, directory, "cat2adduser", "--statedir", "state", USER, PASSWORD)[0] == 0
        with (directory / "theirs.log").open("wb") as log:
            self._process = subprocess.Popen(
                [programs / "cat2sub"],
                cwd=directory,
                env=clean_environ() | {"CATERVA2_SECRET": SECRET},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@pytest.fixture(scope="module")
def theirs(
    programs: Path, deployment: Deployment, tmp_path_factory: pytest.TempPathFactory, published: Published
) -> Iterator[PublishedSubscriber]:
    port = 20000 + os.getpid() % 20000  # it does not tell which one it took
    service = PublishedSubscriber(programs, tmp_path_factory.mktemp("theirs"), deployment, port)
    try:
        wait_for(lambda: "foo" in published.run("cat2.get_roots(u)", u=service.url), 60)
        yield service
    finally:
        service.stop()


def test_the_published_subscriber_reads_from_our_publisher(
    theirs: PublishedSubscriber, published: Published, deployment: Deployment
) -> None:
    root = published.run("cat2.Root('foo', u)", u=theirs.url)
    assert published.run("sorted(r.file_list)", r=root) == LISTED
    np.testing.assert_array_equal(published.run("r['ds-1d.b2nd'][:]", r=root), MINE)
    text = (deployment.root / "README.md").read_bytes()
    assert published.run("r['README.md'][:]", r=root) == text
    assert published.run("r['dir2/ds-4d.b2nd'][1, 2, 3]", r=root).tolist() == [
        115 + 115j,
        *(n + n * 1j for n in range(116, 120)),
    ]
    assert published.run("r['ds-hello.b2frame'][:12]", r=root) == b"Hello world!"


def test_the_published_subscriber_hears_of_new_and_removed_files_by_our_broker(
    theirs: PublishedSubscriber, published: Published, deployment: Deployment, tmp_path: Path
) -> None:
    root = tmp_path / "bar"
    root.mkdir()
    blosc2.asarray(MINE, urlpath=str(root / "a.b2nd"))
    command = ["--http", "127.0.0.1:0", "--broker", deployment.broker, "--statedir", "pub"]
    publisher = Service(tmp_path, "bar", "caterva2_jupyter.publisher.app", *command, "bar", root)
    try:
        # Roots that are new are told by the topic @new.
        wait_for(lambda: "bar" in published.run("cat2.get_roots(u)", u=theirs.url))
        assert published.run("cat2.subscribe('bar', u)", u=theirs.url) == "Ok"
        assert published.run("cat2.get_list('bar', u)", u=theirs.url) == ["a.b2nd"]
        blosc2.asarray(MINE + 1, urlpath=str(tmp_path / "b.b2nd"))
        (tmp_path / "b.b2nd").rename(root / "b.b2nd")
        wait_for(lambda: published.run("cat2.get_list('bar', u)", u=theirs.url) == ["a.b2nd", "b.b2nd"])
        np.testing.assert_array_equal(published.run("cat2.fetch('bar/b.b2nd', u)", u=theirs.url), MINE + 1)
        (root / "b.b2nd").unlink()
        wait_for(lambda: published.run("cat2.get_list('bar', u)", u=theirs.url) == ["a.b2nd"])
    finally:
        publisher.stop()


def test_a_state_directory_of_the_published_subscriber_is_adopted(
    theirs: PublishedSubscriber, published: Published, deployment: Deployment
) -> None:
    user = {"username": USER, "password": PASSWORD}

    def run(code: str, url: str, **names: Any) -> Any:
        return published.run(code, u=url, r=str(deployment.root), **names)

    url = theirs.url
    cookie = run("cat2.get_auth_cookie(u, user)", url, user=user)
    for code in (
        "cat2.subscribe('foo', u, c)",
        "cat2.upload(r + '/README.md', '@public/a/x.md', u, c)",
        "cat2.upload(r + '/ds-1d.b2nd', '@shared/ds.b2nd', u, c)",
        "cat2.upload(r + '/ds-1d.b2nd', '@personal/mine.b2nd', u, c)",
        "cat2.lazyexpr('le', 'a + 1', {'a': '@personal/mine.b2nd'}, u, c)",
    ):
        run(code, url, c=cookie)
    theirs.stop()
    command = ["--http", "127.0.0.1:0"]
    ours = Service(theirs.directory, "ours", "caterva2_jupyter.subscriber.app", *command, CATERVA2_SECRET=SECRET)
    try:
        url = ours.url
        cookie = run("cat2.get_auth_cookie(u, user)", url, user=user)
        roots = run("cat2.get_roots(u, c)", url, c=cookie)
        assert all(roots[name]["subscribed"] for name in ("foo", "@personal", "@public", "@shared"))
        wait_for(lambda: run("cat2.get_list('foo', u, c)", url, c=cookie) == LISTED)
        assert run("cat2.get_list('@personal', u, c)", url, c=cookie) == ["le.b2nd", "mine.b2nd"]
        assert (
            run("cat2.fetch('@public/a/x.md', u, None, c)", url, c=cookie)
            == (deployment.root / "README.md").read_bytes()
        )
        np.testing.assert_array_equal(run("cat2.fetch('@shared/ds.b2nd', u, None, c)", url, c=cookie), MINE)
        np.testing.assert_array_equal(run("cat2.fetch('@personal/le.b2nd', u, None, c)", url, c=cookie), MINE + 1)
        assert run("cat2.get_info('@personal/le.b2nd', u, c)", url, c=cookie)["expression"] == "a + 1"
        with pytest.raises(PublishedError, match="Bad Request"):
            run("cat2.get_auth_cookie(u, user)", url, user={**user, "password": "wrong"})
    finally:
        ours.stop()
