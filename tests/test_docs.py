"""The documentation names what there is."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from caterva2_jupyter import errors
from caterva2_jupyter.cli.main import build_parser


def test_every_command_and_option_of_the_command_line_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "cli.md").read_text()
    parsers = [("", build_parser())]
    for above, parser in parsers:  # it grows
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command, below in action.choices.items():
                    assert f"`{above}{command}" in text, command
                    parsers.append((f"{above}{command} ", below))
    for _, parser in parsers:
        for option in parser._option_string_actions:
            assert option in ("-h", "--help") or f"{option}" in text, option


def test_links_between_pages_and_files_exist(repository: Path) -> None:
    for page in [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]:
        if "_build" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


FAULTS = (
    *(f"N{i}" for i in range(1, 12)),
    *(f"P{i}" for i in range(1, 12) if i != 9),
    *(f"S{i}" for i in range(1, 10)),
    *(f"V{i}" for i in range(1, 9)),
    *(f"I{i}" for i in range(1, 11)),
    *(f"A{i}" for i in range(1, 14) if i != 12),
)


def test_every_fault_has_its_row_and_every_test_that_a_row_names_exists(repository: Path) -> None:
    text = (repository / "docs" / "faults.md").read_text()
    rows = {row.group(1): row.group(0) for row in re.finditer(r"^\| ([NPSVIA]\d+) \|.*$", text, re.MULTILINE)}
    assert sorted(rows) == sorted(FAULTS)
    for fault, row in rows.items():
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert named, f"{fault} names no test"
        assert len(named) == row.count("::"), f"{fault} names a test in a form that is not checked"
        for file, name in named:
            source = (repository / file).read_text()
            assert re.search(rf"^\s*(async def|def|class) {name}\(", source, re.MULTILINE), f"{file} has no {name}"


def test_the_error_tree_in_the_docstring_is_the_tree() -> None:
    text = errors.__doc__ or ""
    for name in errors.__all__:
        cls = getattr(errors, name)
        if isinstance(cls, type):
            line = next(line for line in text.splitlines() if re.search(rf"\b{name}\b", line))
            if name not in ("Caterva2Error",):
                assert str(cls.status) in line, name
