"""The installed commands: a light install says in one line what to install, and Ctrl+C is always quiet."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from caterva2_jupyter import programs

# What an extra brings is not there: every import of it fails as if it was not installed.
_WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            {answer}

sys.meta_path.insert(0, Absent())
from caterva2_jupyter import programs
sys.argv = [{command!r}, "--help"]
sys.exit(getattr(programs, {command!r})())
"""
_MISSING = 'raise ModuleNotFoundError(f"No module named {name!r}", name=name)'
_EXTRAS = {"tornado", "aiohttp", "msgpack", "argon2", "h5py", "hdf5plugin", "rich", "textual"}


def _run(command: str, answer: str) -> subprocess.CompletedProcess[str]:
    code = _WITHOUT.format(absent=_EXTRAS, command=command, answer=answer)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("command", "extra"),
    [("cat2bro", "services"), ("cat2pub", "services"), ("cat2sub", "services"), ("cat2adduser", "services"),
     ("cat2export", "tools")],
)  # fmt: skip
def test_a_light_install_says_what_to_install(command: str, extra: str) -> None:
    done = _run(command, _MISSING)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{command}: the package ")
    assert done.stderr.endswith(f" is missing: pip install 'caterva2-jupyter[{extra}]'\n")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_while_a_program_loads_is_quiet() -> None:
    done = _run("cat2bro", "raise KeyboardInterrupt")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_fault_of_our_own_is_not_called_a_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        programs.run("cat2bro", "no_such_module", "services")


def test_every_command_of_the_installation_has_its_program(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    names = set(project["scripts"])
    assert names == set(programs.__all__) - {"run"}
    for name, place in project["scripts"].items():
        module, _, function = place.partition(":")
        assert getattr(import_module(module), function).__name__ == name
