"""Our ``cat2cli`` beside the published one: the same arguments give the same lines and the same JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import blosc2
import numpy as np
import pytest

from caterva2_jupyter.cli.main import main
from tests.compat.conftest import PASSWORD, USER
from tests.compat.published import Deployment, Published
from tests.compat.test_published_client import LISTED

Run = Callable[..., str]


@pytest.fixture
def ours(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0, users: bool = False) -> str:
        url = deployment.users if users else deployment.plain
        login = ["--username", USER, "--password", PASSWORD] if users else []
        capsys.readouterr()
        assert main(["--subscriber", url, *login, *arguments]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


@pytest.fixture
def theirs(published: Published, deployment: Deployment, tmp_path: Path) -> Run:
    def run(*arguments: str, users: bool = False) -> str:
        url = deployment.users if users else deployment.plain
        login = ["--username", USER, "--password", PASSWORD] if users else []
        (tmp_path / "theirs").mkdir(exist_ok=True)
        published.change_directory(tmp_path / "theirs")
        code, out = published.command("cat2cli", "--subscriber", url, *login, *arguments)
        assert code == 0
        return out

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ["subscribe", "foo"],
        ["roots"],
        ["show", "foo/ds-hello.b2frame[:12]"],
        ["show", "foo/dir2/ds-4d.b2nd[1,2,3]"],
        ["show", "foo/ds-1d-fields.b2nd[0:2]"],
        ["show", "foo/ds-1d.b2nd[0]"],
        ["download", "foo/dir2/ds-4d.b2nd"],
        ["download", "foo/README.md"],
        ["download", "foo/README.md", "renamed.md"],
    ],
    ids=" ".join,
)
def test_lines_are_the_same(ours: Run, theirs: Run, arguments: list[str]) -> None:
    theirs("subscribe", "foo")
    assert ours(*arguments) == theirs(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [["subscribe", "foo"], ["roots"], ["list", "foo"], ["ls", "foo/dir1"], ["list", "foo/README.md"]],
    ids=" ".join,
)
def test_json_is_the_same(ours: Run, theirs: Run, arguments: list[str]) -> None:
    theirs("subscribe", "foo")
    assert json.loads(ours(*arguments, "--json")) == json.loads(theirs(*arguments, "--json"))


@pytest.mark.parametrize("path", ["foo/README.md", "foo/dir2/ds-4d.b2nd", "foo/ds-sc-attr.b2nd"])
def test_metadata_is_the_same(ours: Run, theirs: Run, path: str) -> None:
    theirs("subscribe", "foo")
    # Theirs begins with a line that is no JSON.
    assert json.loads(ours("info", "--json", path)) == json.loads(theirs("info", "--json", path).partition("\n")[2])


def test_areas_are_written_in_the_same_words(ours: Run, theirs: Run, deployment: Deployment) -> None:
    local = str(deployment.root / "README.md")
    for number, run in enumerate((ours, theirs)):
        here = f"@shared/same{number}"
        out = [
            run("upload", local, f"{here}/x.md", users=True),
            run("copy", f"{here}/x.md", f"{here}/y.md", users=True),
            run("mv", f"{here}/y.md", f"{here}/z.md", users=True),
            run("rm", here, users=True),
        ]
        assert "".join(out).replace(here, "HERE") == (
            "Dataset stored in HERE/x.md\n"
            "Dataset HERE/x.md copied to HERE/y.md\n"
            "Dataset HERE/y.md moved to HERE/z.md\n"
            "Dataset (or directory contents) removed: HERE\n"
        )


def test_errors_end_with_1_here_in_one_line(ours: Run, theirs: Run) -> None:
    theirs("subscribe", "foo")
    for arguments in (["info", "foo/nope"], ["show", "foo/nope"], ["subscribe", "nope"], ["rm", "@public/x"]):
        assert "Error: " in theirs(*arguments)  # and ends with 0
        assert len(ours(*arguments, code=1).splitlines()) == 1


def test_a_root_is_printed_as_a_tree(ours: Run, theirs: Run) -> None:
    theirs("subscribe", "foo")
    lines = ours("tree", "foo").splitlines()
    assert lines[0] == "foo"
    assert "├── dir1/" in lines
    assert "│   ├── ds-2d.b2nd  (10, 20) uint16" in lines
    assert lines[-1] == "10 datasets"
    assert ours("tree", "foo/dir1").splitlines()[0] == "foo/dir1"
    assert not any("ds-2d.b2nd" in line for line in ours("tree", "foo", "--depth", "1").splitlines()[:4])
    form = json.loads(ours("tree", "foo", "--json"))
    assert form["name"] == "foo"
    assert [child["name"] for child in form["children"]][:3] == ["README.md", "dir1", "dir2"]


def test_datasets_are_searched_in_all_roots(ours: Run, theirs: Run) -> None:
    theirs("subscribe", "foo")
    assert ours("search", "dtype:complex128").split() == ["foo/dir2/ds-4d.b2nd"]
    assert json.loads(ours("search", "ndim>1", "foo/dir1", "--json")) == ["foo/dir1/ds-2d.b2nd", "foo/dir1/ds-3d.b2nd"]
    assert len(ours("search", "").splitlines()) >= len(LISTED)
    assert "no root" in ours("search", "x", "nope", code=1)


def test_an_expression_is_stored(ours: Run, theirs: Run) -> None:
    theirs("subscribe", "foo", users=True)
    told = ours("lazyexpr", "@shared/sum", "a + b", "a=foo/ds-1d.b2nd", "b=foo/ds-1d.b2nd", users=True)
    assert told == "Expression stored in @shared/sum.b2nd\n"
    assert theirs("show", "@shared/sum.b2nd[:3]", users=True) == "[0 2 4]\n"
    assert ours("download", "@shared/sum.b2nd", "sum.b2nd", users=True) == "Dataset saved to sum.b2nd\n"
    np.testing.assert_array_equal(blosc2.open("sum.b2nd", mode="r")[()], 2 * np.arange(1000))
    assert "NAME=ROOT/PATH" in ours("lazyexpr", "x", "a + 1", "a", users=True, code=1)
