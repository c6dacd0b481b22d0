"""The examples in docstrings of single functions and classes run; those of the public API have a test of their own."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

from tests.test_api_examples import EXAMPLES

PACKAGE = Path(__file__).resolve().parents[1] / "caterva2_jupyter"
WITH_EXAMPLES = sorted(
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if ">>> " in file.read_text()
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_a_module_run(module: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    told: list[str] = []
    for example in doctest.DocTestFinder().find(import_module(module)):
        if inspect.cleandoc(example.docstring or "") in EXAMPLES.values():
            continue
        assert not any(e.options.get(doctest.SKIP) for e in example.examples), example.name
        doctest.DocTestRunner(optionflags=flags, verbose=False).run(example, out=told.append)
    assert not told, "".join(told)
