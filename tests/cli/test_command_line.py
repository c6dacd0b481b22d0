"""The command line without services: parsing, escaping, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caterva2_jupyter.cli.commands import _row, _split_slice
from caterva2_jupyter.cli.connection import one_line
from caterva2_jupyter.cli.main import main
from caterva2_jupyter.cli.output import Output, inert
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.errors import (
    Caterva2Error,
    NotCachedError,
    RootNotFoundError,
    SelectionError,
    SourceUnavailableError,
    TooLargeError,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo/x.b2nd", ("foo/x.b2nd", ())),
        ("foo/x.b2nd[]", ("foo/x.b2nd", ())),
        ("foo/x.b2nd[1,2,3]", ("foo/x.b2nd", (1, 2, 3))),
        ("foo/x.b2nd[:12]", ("foo/x.b2nd", (slice(None, 12),))),
        ("foo/x[0].b2nd[..., None]", ("foo/x[0].b2nd", (Ellipsis, None))),
        ("foo/x[0](a).b2nd", ("foo/x[0](a).b2nd", ())),
    ],
)
def test_a_slice_is_split_from_the_name_before_it(text: str, expected: object) -> None:
    assert _split_slice(text) == expected


def test_what_is_no_slice_is_refused() -> None:
    with pytest.raises(SelectionError, match="not a slice"):
        _split_slice("foo/x[abc]")


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
