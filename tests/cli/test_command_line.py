"""The command line without services: parsing, escaping, exit codes."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from caterva2_jupyter.cli.commands import _row
from caterva2_jupyter.cli.connection import one_line
from caterva2_jupyter.cli.main import build_parser, main
from caterva2_jupyter.cli.output import Output, inert
from caterva2_jupyter.cli.selections import open_selected, split_selection
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.errors import (
    Caterva2Error,
    DatasetNotFoundError,
    NotCachedError,
    RootNotFoundError,
    SelectionError,
    SourceUnavailableError,
    TooLargeError,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo/x.b2nd", ("foo/x.b2nd", None)),
        ("foo/x.b2nd[]", ("foo/x.b2nd", "")),
        ("foo/x.b2nd[1,2,3]", ("foo/x.b2nd", "1,2,3")),
        ("foo/x[0].b2nd[..., None]", ("foo/x[0].b2nd", "..., None")),
        ("foo/x[0](a).b2nd", ("foo/x[0](a).b2nd", None)),
        ("foo/x[[1, 2]]", ("foo/x", "[1, 2]")),
        ("foo/x[5", ("foo/x[5", None)),
        ("[5]", ("[5]", None)),
    ],
)
def test_a_selection_is_split_from_the_name_before_it(text: str, expected: object) -> None:
    assert split_selection(text) == expected


class _Names:
    """What there is, as a client has it."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> str:
        if name not in self.names:
            raise DatasetNotFoundError(f"no dataset {name!r}")
        return name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo/x", ("foo/x", ())),
        ("foo/x[1, ::2]", ("foo/x", (1, slice(None, None, 2)))),
        ("foo/y[1]", ("foo/y[1]", ())),
        ("foo/y[1][0]", ("foo/y[1]", (0,))),
        ("foo/x[old]", ("foo/x[old]", ())),
    ],
)
def test_what_is_there_decides_what_is_a_selection(text: str, expected: object) -> None:
    client: Any = _Names("foo/x", "foo/y[1]", "foo/x[old]")
    assert open_selected(client, text)[1:] == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foo/x[5", "the selection is not closed: write 'foo/x[5]'"),
        ("foo/nope[5", "the selection is not closed: write 'foo/nope[5]'"),
        ("foo/x]", "']' closes no selection in 'foo/x]': write 'foo/x[0:5]', or no bracket"),
        ("foo/x[5][3]", "there are two selections in 'foo/x[5][3]': write 'foo/x[5,3]'"),
        ("foo/x[1.5]", "not a slice: [1.5]; write whole numbers"),
        ("foo/x[[1,2]]", "not a slice: [[1,2]]; write whole numbers"),
        ("foo/x[a]", "not a slice: [a]; write whole numbers"),
    ],
)
def test_a_wrong_selection_is_told_as_one(text: str, said: str) -> None:
    client: Any = _Names("foo/x")
    with pytest.raises(SelectionError) as caught:
        open_selected(client, text)
    assert str(caught.value).startswith(said)
    assert one_line(caught.value, text) == str(caught.value)


def test_a_dataset_that_is_not_there_is_no_wrong_selection() -> None:
    client: Any = _Names()
    for text in ("foo/x", "foo/x[5]", "foo/x(5)"):
        with pytest.raises(DatasetNotFoundError):
            open_selected(client, text)


def test_the_cure_names_what_was_asked_for() -> None:
    line = one_line(IndexError("index 9 is out of bounds"), "foo/x[9]")
    assert line == "index 9 is out of bounds: `cat2cli info foo/x` tells its shape"
    line = one_line(DatasetNotFoundError("no dataset 'x' in root 'foo'"), "cat2://foo/x")
    assert line == "no dataset 'x' in root 'foo': `cat2cli list foo` lists what is there"
    line = one_line(DatasetNotFoundError("no dataset 'x': did you mean 'y'?"), "foo/x")
    assert line == "no dataset 'x': did you mean 'y'?"


def test_options_of_the_connection_may_stand_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--subscriber", "ftp://a", "roots"], ["roots", "--subscriber", "ftp://a"]):
        assert main(arguments) == 1
        assert "'ftp://a' is not the URL of a service" in capsys.readouterr().err
    parsed = build_parser().parse_args(["--token", "t", "cache", "status", "--subscriber", "localhost:1", "foo"])
    assert (parsed.token, parsed.subscriber, parsed.path) == ("t", "localhost:1", "foo")


def test_every_command_has_an_example_that_parses() -> None:
    parser = build_parser()
    for help_text in _helps(parser):
        example = help_text.rpartition("example: cat2cli ")[2].strip()
        assert example, help_text
        parser.parse_args(shlex.split(example))


def _helps(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The help of each command, and of those below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                below = list(_helps(sub))
                yield from below or [sub.format_help().replace("\n  ", " ")]


def test_letters_that_a_terminal_has_not_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    out = Output()
    assert not out.can_print("├──")
    out.line("größe")
    sys.stdout.flush()
    assert written.getvalue() == b"gr\\xf6\\xdfe\n"


def test_a_table_that_does_not_fit_is_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "")
    out = Output()
    out._out = Console(file=sys.stdout, force_terminal=True, width=30, no_color=True, soft_wrap=True, highlight=False)
    out.table(["name", "kind", "shape"], [["foo/a-long-name.b2nd", "array", "(1, 2)"]])
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert lines == ["foo/a-long-name.b2nd", "    array  (1, 2)"]


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "from caterva2_jupyter.cli.output import Output\nOutput().line('x')"
    ended = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert b"BrokenPipeError" in ended.stderr  # which ``main`` turns into exit code 141


def test_names_from_elsewhere_cannot_move_the_cursor() -> None:
    assert inert("a\x1b[2J\r\nb\u202e") == "a\\x1b[2J\\r\\nb\\u202e"
    assert inert("größe 数据 🙂") == "größe 数据 🙂"


def test_a_nested_value_is_printed_one_key_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output().mapping({"shape": [2, 3], "schunk": {"a": 1}})
    assert capsys.readouterr().out == "{\n    'shape': [2, 3],\n    'schunk': {'a': 1}\n}\n"


def test_a_long_line_is_not_folded_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    Output().line("x" * 300)
    Output().table(["name", "kind"], [["y" * 300, "array"]])
    assert capsys.readouterr().out == "x" * 300 + "\n" + "y" * 300 + "\tarray\n"


def test_usage_errors_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["list"], ["--loglevel", "loud", "roots"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "usage: cat2cli" in capsys.readouterr().err


def test_a_wrong_configuration_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[client]\nurll = 'x'")
    assert main(["--conf", str(file), "roots"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "'urll' in [client]" in error


def test_json_is_exact_and_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    Output().json({"name\n": "é"})
    text = capsys.readouterr().out
    assert text.isascii()
    assert json.loads(text) == {"name\n": "é"}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RootNotFoundError("no root 'x': is it running?"),
            "no root 'x': is it running? `cat2cli roots` lists the roots",
        ),
        (NotCachedError("it is away"), "it is away: `cat2cli roots` tells when the publisher is back"),
        (TooLargeError("it is large"), "it is large"),
        (SourceUnavailableError("x refuses TLS"), "x refuses TLS"),
        (
            SourceUnavailableError("is it running?"),
            "is it running? Start cat2sub, or name another subscriber with --subscriber URL",
        ),
    ],
)
def test_an_error_is_one_line_with_its_own_cure(error: Caterva2Error, line: str) -> None:
    assert one_line(error) == line


def test_a_named_configuration_file_gives_its_certificates_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = tmp_path / "c.toml"
    conf.write_text(f'[client]\nurl = "https://127.0.0.1:1"\n[network]\ntls_ca = "{tmp_path}/no-such-ca.pem"\n')
    assert main(["--conf", str(conf), "roots"]) == 1
    assert "no-such-ca.pem" in capsys.readouterr().err


def test_a_long_listing_says_why_a_file_is_no_more_than_that() -> None:
    broken = Entry("x.h5", "file", storage={"note": "an HDF5 file that cannot be opened: truncated"})
    assert _row("foo", broken)[-1] == "an HDF5 file that cannot be opened: truncated"
