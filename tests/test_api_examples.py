"""The examples of the public API run as they stand, on the root of the quick start, and leave nothing out."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import caterva2_jupyter as cat2
from tests.conftest import REPOSITORY
from tests.processes import Network

PAGE = REPOSITORY / "docs" / "api.md"
# What others call (Jupyter, xarray, those who made the object), and what has methods of arrays that are shown.
NOT_SHOWN = re.compile(
    r"(Viewer|Browser|LivePlot|UnsupportedDataset|Caterva2BackendEntrypoint)\.|RootStatus\.from_json|CacheService\.(sealed|estimate|prefetch)"
)


def documented() -> Iterator[tuple[str, object]]:
    """Every object of the page with its name."""
    for name in re.findall(r"^\.\. auto(?:function|class):: (\S+)$", PAGE.read_text(), re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        yield attribute, getattr(import_module(module or "caterva2_jupyter"), attribute)


def members(name: str, thing: object) -> Iterator[tuple[str, object]]:
    """The object itself and what is ours of its public members."""
    yield name, thing
    if inspect.isclass(thing):
        for key, member in inspect.getmembers_static(thing):
            of = getattr(getattr(member, "fget", member), "__module__", "") or ""
            if (not key.startswith("_") or key == "__getitem__") and of.startswith("caterva2_jupyter"):
                yield f"{name}.{key}", member


EVERYTHING = dict(item for name, thing in documented() for item in members(name, thing))
EXAMPLES = {name: doc for name, thing in EVERYTHING.items() if ">>>" in (doc := inspect.getdoc(thing) or "")}


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """How a user logs in who may write and manage, at a subscriber that follows the root of the quick start."""
    directory = tmp_path_factory.mktemp("api")
    shutil.copytree(REPOSITORY / "root-example", directory / "root")
    (directory / "network").mkdir()
    network = Network(directory / "network")
    user = {"username": "me@example.com", "password": "a long password"}
    try:
        network.start_broker()
        network.start_publisher("foo", directory / "root")
        command = [sys.executable, "-m", "caterva2_jupyter.subscriber.add_user", "--statedir", "sub", "--superuser"]
        subprocess.run([*command, *user.values()], cwd=directory / "network", check=True, capture_output=True)
        subscriber = network.start_subscriber(CATERVA2_SECRET="of this test only")
        yield {"url": subscriber.url, **user}
    finally:
        network.close()


@pytest.fixture(scope="module")
def client(login: dict[str, str]) -> Iterator[cat2.Client]:
    with cat2.connect(**login, progress=False) as client:
        yield client


@pytest.fixture
def names(
    client: cat2.Client, login: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """What examples begin with."""
    for name, value in login.items():
        monkeypatch.setenv(f"CATERVA2_{name.upper()}", value)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    return {"np": np, "cat2": cat2, "client": client}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_gives_what_it_shows(name: str, names: dict[str, object]) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    example = doctest.DocTestParser().get_doctest(EXAMPLES[name], names, name, None, 0)
    assert not any(e.options.get(doctest.SKIP) for e in example.examples)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=flags, verbose=False).run(example, out=told.append)
    assert not told, "".join(told)


def test_every_function_and_class_has_an_example() -> None:
    lines = [line for doc in EXAMPLES.values() for line in doc.splitlines() if line.lstrip().startswith((">>>", "..."))]
    code = "\n".join(lines)
    for name, thing in EVERYTHING.items():
        of, _, last = name.rpartition(".")
        is_member = of and last != "__getitem__"
        shown = re.search(rf"\.{last}\b", code) if is_member else name in EXAMPLES
        assert shown or isinstance(thing, property) or NOT_SHOWN.search(name), name


def test_every_public_name_is_on_the_page() -> None:
    errors = set(import_module("caterva2_jupyter.errors").__all__)
    assert {*cat2.__all__, "to_caterva2", "watch"} - errors - {"__version__"} <= set(EVERYTHING)
