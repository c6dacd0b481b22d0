"""The documentation names what there is."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from caterva2_jupyter import errors
from caterva2_jupyter.cli.main import build_parser


def test_every_command_and_option_of_the_command_line_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "cli.md").read_text()
    parsers: list[argparse.ArgumentParser] = [build_parser()]
    for action in parsers[0]._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, parser in action.choices.items():
                assert f"`{command}" in text, command
                parsers.append(parser)
    for parser in parsers:
        for option in parser._option_string_actions:
            assert option in ("-h", "--help") or f"{option}" in text, option


def test_links_between_pages_and_files_exist(repository: Path) -> None:
    for page in [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]:
        if "_build" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_error_tree_in_the_docstring_is_the_tree() -> None:
    text = errors.__doc__ or ""
    for name in errors.__all__:
        cls = getattr(errors, name)
        if isinstance(cls, type):
            line = next(line for line in text.splitlines() if re.search(rf"\b{name}\b", line))
            if name not in ("Caterva2Error",):
                assert str(cls.status) in line, name
