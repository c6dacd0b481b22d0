"""The document's quick start, command by command, with three services as processes."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import blosc2
import numpy as np
import pytest

from tests.processes import Network, wait_for


def cat2cli(url: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "caterva2_jupyter.cli.main", "--subscriber", url, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def subscriber(network: Network, example_root: Path) -> str:
    network.start_broker()
    network.start_publisher("foo", example_root)
    return network.start_subscriber().url


def test_the_quick_start_prints_what_the_document_shows(subscriber: str, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = cat2cli(subscriber, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def roots() -> set[str]:
        return set(run("roots").splitlines())

    wait_for(lambda: roots() == {"foo", "@public (subscribed)"}, message="the root is known to the subscriber")
    assert run("subscribe", "foo") == "Ok\n"
    assert roots() == {"foo (subscribed)", "@public (subscribed)"}
    listed = run("list", "foo").splitlines()
    assert listed[0] == "foo/README.md"
    assert len(listed) == 10
    assert "foo/ds-hello.b2frame" in listed
    assert "foo/dir2/ds-4d.b2nd" in listed
    info = run("info", "foo/dir2/ds-4d.b2nd")
    for line in ("'shape': [2, 3, 4, 5]", "'chunks': [1, 2, 3, 4]", "'blocks': [1, 2, 2, 2]", "'dtype': 'complex128'"):
        assert line in info
    assert run("show", "foo/ds-hello.b2frame[:12]") == "Hello world!\n"
    assert run("show", "foo/dir2/ds-4d.b2nd[1,2,3]") == "[115.+115.j 116.+116.j 117.+117.j 118.+118.j 119.+119.j]\n"
    assert run("url", "foo/README.md") == f"{subscriber}/api/fetch/foo/README.md\n"
    assert run("download", "foo/dir2/ds-4d.b2nd") == "Dataset saved to foo/dir2/ds-4d.b2nd\n"
    saved = blosc2.open(str(tmp_path / "foo/dir2/ds-4d.b2nd"))
    assert np.array_equal(saved[...], (np.arange(120) * (1 + 1j)).reshape(2, 3, 4, 5))


def test_every_listing_has_json(subscriber: str, tmp_path: Path) -> None:
    def run(*arguments: str) -> object:
        done = cat2cli(subscriber, *arguments, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    wait_for(lambda: "foo" in run("roots"), message="the root is known to the subscriber")
    with urllib.request.urlopen(f"{subscriber}/api/roots", timeout=10) as answer:
        of_rest = json.load(answer)
    assert run("roots") == of_rest
    assert run("subscribe", "foo") == "Ok"
    names = run("list", "foo")
    assert isinstance(names, list)
    assert names == sorted(names)
    assert "dir2/ds-4d.b2nd" in names
    entries = run("list", "foo", "--long")
    assert isinstance(entries, list)
    assert {"path", "kind", "geometry"} <= set(entries[1])
    info = run("info", "foo/dir2/ds-4d.b2nd")
    assert isinstance(info, dict)
    assert info["shape"] == [2, 3, 4, 5]
    assert info["schunk"]["cparams"]["typesize"] == 16


def test_a_name_that_ends_like_a_slice_is_found(subscriber: str, tmp_path: Path) -> None:
    (tmp_path / "root-example" / "log[1:2]").write_text("odd")

    def shown() -> str:
        return cat2cli(subscriber, "show", "foo/log[1:2]", cwd=tmp_path).stdout

    wait_for(lambda: shown() == "odd\n", message="the file is shown")


def test_a_failed_command_is_one_line_and_exit_code_1(subscriber: str, tmp_path: Path) -> None:
    wait_for(lambda: "foo" in cat2cli(subscriber, "roots", cwd=tmp_path).stdout.splitlines())
    for arguments in (("info", "foo/nothing.b2nd"), ("info", "nowhere/x"), ("show", "foo/ds-1d.b2nd[5000]")):
        done = cat2cli(subscriber, *arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr
    assert cat2cli(subscriber, "no-such-command", cwd=tmp_path).returncode == 2


def test_no_subscriber_is_said_in_one_line(tmp_path: Path) -> None:
    done = cat2cli("http://127.0.0.1:9", "roots", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "cat2sub" in done.stderr


def test_what_cannot_be_read_is_shown_with_its_reason(subscriber: str, example_root: Path, tmp_path: Path) -> None:
    (example_root / "away").symlink_to(tmp_path)
    wait_for(lambda: cat2cli(subscriber, "info", "foo/away", cwd=tmp_path).returncode == 0)
    done = cat2cli(subscriber, "show", "foo/away", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "a link that leads outside of the root" in done.stderr
