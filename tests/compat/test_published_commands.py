"""Every command of the published ``cat2cli``, unmodified, against our services: outputs, JSON and exit codes."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import blosc2
import numpy as np
import pytest

from tests.compat.conftest import PASSWORD, SUPERUSER, USER
from tests.compat.published import Deployment, Published, run_program
from tests.compat.test_published_client import LISTED

README = "# An example root"


class CommandLine:
    """``cat2cli`` in a directory of its own."""

    def __init__(self, published: Published, directory: Path, url: str, *options: str) -> None:
        self._published, self.directory = published, directory
        self._options = ["--subscriber", url, *options]

    def __call__(self, *arguments: str) -> str:
        """Output of a command that ends with 0, as its errors do too."""
        self._published.change_directory(self.directory)
        code, out = self._published.command("cat2cli", *self._options, *arguments)
        assert code == 0
        return out


@pytest.fixture
def cat2cli(published: Published, deployment: Deployment, tmp_path: Path) -> CommandLine:
    """Where there are no users."""
    return CommandLine(published, tmp_path, deployment.plain)


@pytest.fixture
def as_user(published: Published, deployment: Deployment, tmp_path: Path) -> Iterator[CommandLine]:
    command = CommandLine(published, tmp_path, deployment.users, "--username", USER, "--password", PASSWORD)
    yield command
    command("remove", "@shared/cli")


def test_commands_about_roots(cat2cli: CommandLine) -> None:
    assert cat2cli("subscribe", "foo") == "Ok\n"
    assert json.loads(cat2cli("subscribe", "--json", "foo")) == "Ok"
    assert cat2cli("roots") == "foo (subscribed)\n@public (subscribed)\n"
    assert json.loads(cat2cli("roots", "--json"))["foo"]["subscribed"] is True
    assert cat2cli("list", "foo").split() == LISTED
    assert cat2cli("ls", "foo/dir1").split() == ["ds-2d.b2nd", "ds-3d.b2nd"]
    assert json.loads(cat2cli("list", "--json", "foo")) == LISTED
    assert cat2cli("subscribe", "nope") == "Error: nope not known by the broker\n"
    assert cat2cli("list", "nope") == "Error: nope not known by the broker\n"
    assert cat2cli("subscribe", "@shared") == "Error: Subscribing to @shared requires authentication\n"
    assert cat2cli("list", "@personal") == "Error: @personal needs authentication\n"


def test_commands_about_datasets(cat2cli: CommandLine, deployment: Deployment) -> None:
    cat2cli("subscribe", "foo")
    head, _, form = cat2cli("info", "foo/dir2/ds-4d.b2nd").partition("\n")
    assert head == "Getting info for foo/dir2/ds-4d.b2nd"
    info = ast.literal_eval(form)
    assert (info["shape"], info["chunks"], info["blocks"]) == ([2, 3, 4, 5], [1, 2, 3, 4], [1, 2, 2, 2])
    head, _, form = cat2cli("info", "--json", "foo/dir2/ds-4d.b2nd").partition("\n")
    assert json.loads(form) == info
    assert cat2cli("show", "foo/ds-hello.b2frame[:12]") == "Hello world!\n"
    shown = "[115.+115.j 116.+116.j 117.+117.j 118.+118.j 119.+119.j]\n"
    assert cat2cli("show", "foo/dir2/ds-4d.b2nd[1,2,3]") == shown
    assert cat2cli("show", "foo/ds-1d.b2nd[0]") == "0\n"
    fields = "[(0, 0.      , b'foobar0', False) (1, 0.001001, b'foobar1',  True)]\n"
    assert cat2cli("show", "foo/ds-1d-fields.b2nd[0:2]") == fields
    assert cat2cli("show", "foo/README.md").startswith(README)
    url = f"{deployment.plain}/api/fetch/foo/README.md"
    assert cat2cli("url", "foo/README.md") == f"{url}\n"
    assert json.loads(cat2cli("url", "--json", "foo/README.md")) == url
    assert cat2cli("info", "foo/nope") == "Getting info for foo/nope\nError: Not Found\n"
    assert cat2cli("show", "foo/nope") == "Error: Not Found\n"


def test_downloads(cat2cli: CommandLine, deployment: Deployment) -> None:
    cat2cli("subscribe", "foo")
    here = cat2cli.directory
    assert cat2cli("download", "foo/dir2/ds-4d.b2nd") == "Dataset saved to foo/dir2/ds-4d.b2nd\n"
    stored = blosc2.open(str(deployment.root / "dir2/ds-4d.b2nd"), mode="r")
    np.testing.assert_array_equal(blosc2.open(str(here / "foo/dir2/ds-4d.b2nd"), mode="r")[()], stored[()])
    assert cat2cli("download", "foo/README.md") == "Dataset saved to foo/README.md\n"
    assert (here / "foo/README.md").read_bytes() == (deployment.root / "README.md").read_bytes()
    (here / "outdir").mkdir()
    assert cat2cli("download", "foo/dir1/ds-2d.b2nd", "outdir") == "Dataset saved to outdir/ds-2d.b2nd\n"


def test_what_needs_a_user_says_so(cat2cli: CommandLine, deployment: Deployment) -> None:
    local = str(deployment.root / "README.md")
    assert cat2cli("upload", local, "@public/x") == "Error: Uploading requires authentication\n"
    assert cat2cli("copy", "foo/README.md", "@public/") == "Error: Copying files requires authentication\n"
    assert cat2cli("move", "@public/a", "@public/b") == "Error: Moving files requires authentication\n"
    assert cat2cli("remove", "@public/x") == "Error: Removing files requires authentication\n"
    for command in (["adduser", "a@example.com"], ["deluser", "a@example.com"], ["listusers"]):
        assert cat2cli(*command) == "Error: Not Found\n"


def test_files_of_areas(as_user: CommandLine, deployment: Deployment) -> None:
    local = str(deployment.root / "README.md")
    assert as_user("upload", local, "@shared/cli/x.md") == "Dataset stored in @shared/cli/x.md\n"
    assert as_user("show", "@shared/cli/x.md").startswith(README)
    assert as_user("copy", "@shared/cli/x.md", "@shared/cli/y.md") == (
        "Dataset @shared/cli/x.md copied to @shared/cli/y.md\n"
    )
    assert as_user("cp", "@shared/cli/x.md", "@shared/cli/more") == (
        "Dataset @shared/cli/x.md copied to @shared/cli/more/x.md\n"
    )
    assert as_user("move", "@shared/cli/y.md", "@shared/cli/z.md") == (
        "Dataset @shared/cli/y.md moved to @shared/cli/z.md\n"
    )
    assert as_user("ls", "@shared/cli").split() == ["more/x.md", "x.md", "z.md"]
    assert as_user("rm", "@shared/cli/z.md") == "Dataset (or directory contents) removed: @shared/cli/z.md\n"
    assert as_user("remove", "@shared/cli/more") == "Dataset (or directory contents) removed: @shared/cli/more\n"
    refused = "Only uploading to @personal or @shared or @public roots is allowed"
    assert as_user("upload", local, "foo/x") == f"Error: {refused}\n"
    assert as_user("mv", "@shared/nope", "@shared/y") == "Error: The specified path does not exist\n"
    assert as_user("adduser", "a@example.com") == "Error: Only superusers can add users\n"


def test_users(published: Published, deployment: Deployment, tmp_path: Path) -> None:
    boss = CommandLine(published, tmp_path, deployment.users, "--username", SUPERUSER, "--password", PASSWORD)
    assert boss("adduser", "cli@example.com", "foobar12").startswith("User added: username='cli@example.com'")
    listed = [ast.literal_eval(line) for line in boss("listusers").splitlines()]
    assert {USER, SUPERUSER, "cli@example.com"} <= {user["email"] for user in listed}
    (one,) = json.loads(boss("lsu", "--json", "cli@example.com"))
    assert one["is_superuser"] is False
    assert boss("deluser", "cli@example.com") == "User deleted: cli@example.com\n"


def test_settings_of_the_client_are_found_in_its_file(programs: Path, deployment: Deployment, tmp_path: Path) -> None:
    settings = f'[subscriber]\nurl = "{deployment.users}"\n[client]\nusername = "{USER}"\npassword = "{PASSWORD}"\n'
    (tmp_path / "caterva2.toml").write_text(settings)
    code, out = run_program(programs, tmp_path, "cat2cli", "roots")  # a process of its own
    assert code == 0
    assert {"@personal (subscribed)", "@public (subscribed)", "@shared (subscribed)"} <= set(out.splitlines())
