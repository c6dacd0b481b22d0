"""The registry's file survives kills, and damage to it costs roots, not the broker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from caterva2_jupyter.broker.broker import Broker
from caterva2_jupyter.broker.registry import Registry
from caterva2_jupyter.broker.state_file import StateFile
from caterva2_jupyter.errors import ConfigError

WRITER = """
import sys
from pathlib import Path
from caterva2_jupyter.broker.registry import Registry
from caterva2_jupyter.broker.state_file import StateFile

file, registry = StateFile(Path(sys.argv[1])), Registry()
file.load()
for number in range(10_000):
    registry.register(f"root{number}", "http://here:1", "alice")
    file.save(registry.to_json())
    if number == 20:
        print("started", flush=True)
"""


def test_what_was_saved_is_loaded(tmp_path: Path):
    registry = Registry()
    registry.register("foo", "http://here:1", "alice")
    file = StateFile(tmp_path / "new" / "dir")
    assert file.load().roots() == ()
    file.save(registry.to_json())
    assert file.load().roots() == registry.roots()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"roots": 1}', b"[" * 100_000, b"\0" * 100])
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes):
    (tmp_path / "db.json").write_bytes(content)
    assert StateFile(tmp_path).load().roots() == ()
    assert (tmp_path / "db.json.corrupt").read_bytes() == content


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot use .*file.*set statedir under \[broker\]"):
        StateFile(tmp_path / "file" / "bro").load()


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path):
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, cwd=os.getcwd())
        with writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        assert len(StateFile(tmp_path).load().roots()) >= 20
        assert not (tmp_path / "db.json.corrupt").exists()


def test_many_changes_at_once_are_few_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writes: list[int] = []
    save = StateFile.save
    monkeypatch.setattr(StateFile, "save", lambda self, form: (writes.append(1), save(self, form)))

    async def scenario() -> None:
        broker = Broker(StateFile(tmp_path), 5)
        await asyncio.gather(*(broker.announce(f"root{n}", "http://here:1") for n in range(100)))

    asyncio.run(scenario())
    assert len(StateFile(tmp_path).load().roots()) == 100
    assert len(writes) <= 3


def test_a_full_disk_does_not_stop_the_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self: StateFile, form: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StateFile, "save", full)

    async def scenario() -> None:
        broker = Broker(StateFile(tmp_path), 5)
        await broker.announce("foo", "http://here:1")
        assert [r.name for r in broker.roots()] == ["foo"]

    asyncio.run(scenario())
