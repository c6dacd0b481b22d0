"""``cat2sub`` as a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from caterva2_jupyter.subscriber.app import main


@pytest.mark.parametrize("name", ["", "/state"])
def test_a_state_directory_that_cannot_be_used_is_one_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["--statedir", f"file{name}", "--http", "127.0.0.1:0", "--broker", ""]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"cat2sub: cannot use file{name} for the state (")
    assert line.endswith("choose another --statedir, or set statedir under [subscriber]")
