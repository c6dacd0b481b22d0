"""The cache as people handle it: filled beforehand, looked at, checked, sealed, and read with the publisher away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.cli.main import main
from caterva2_jupyter.client.prefetch import ReadEstimate
from caterva2_jupyter.errors import NotCachedError, UnsupportedDatasetError
from tests.processes import Network, Service, wait_for

FIELD = np.random.default_rng(7).normal(size=(200, 100, 50)).astype("<f4")


@pytest.fixture
def publisher(network: Network, tmp_path: Path) -> Service:
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    blosc2.asarray(FIELD, urlpath=str(root / "field.b2nd"), chunks=(50, 100, 50), blocks=(10, 20, 50))
    blosc2.asarray(np.arange(1000), urlpath=str(root / "dir" / "small.b2nd"))
    (root / "dir" / "notes.txt").write_text("notes " * 100)
    return network.start_publisher("foo", root)


@pytest.fixture
def url(network: Network, publisher: Service) -> str:
    return network.start_subscriber("--publisher", publisher.url).url


def test_what_was_prefetched_is_read_with_the_publisher_away(url: str, publisher: Service, tmp_path: Path) -> None:
    with cat2.connect(url) as client:
        wait_for(lambda: "foo" in client.roots, message="the root is known")
        array = client["foo/field"]
        before = array.estimate()
        assert before.nblocks == 4 * 5 * 5
        assert (before.held_nblocks, before.fraction) == (0, 0.0)
        assert before.requests >= 1
        assert 0.5 < before.cbytes / array.cbytes < 2
        assert array.cached_fraction(np.s_[:50]) == 0

        told: list[tuple[int, int]] = []
        part = array.prefetch(np.s_[:100], lambda done, total: told.append((done, total)))
        assert (part.fraction, part.cbytes, part.requests) == (1.0, 0, 0)
        assert told[-1][0] == told[-1][1] > 0
        assert array.cached_fraction(np.s_[:100]) == 1
        assert 0.4 < array.cached_fraction() < 0.6

        # Going on fetches the rest alone.
        told.clear()
        assert array.prefetch(progress=lambda done, total: told.append((done, total))).fraction == 1
        assert told[-1][0] < 0.7 * array.cbytes

        publisher.kill()
        np.testing.assert_array_equal(array[...], FIELD)
        assert array.prefetch().fraction == 1
        saved = array.seal(tmp_path / "sealed")
        np.testing.assert_array_equal(blosc2.open(str(saved))[...], FIELD)
        assert blosc2.open(str(saved)).blocks == (10, 20, 50)
        notes = client["foo/dir/notes.txt"]
        with pytest.raises(NotCachedError):
            notes.prefetch()
        with pytest.raises(NotCachedError):
            notes.seal(tmp_path)
        assert [p.name for p in tmp_path.iterdir() if "notes" in p.name] == []


def test_a_publisher_keeps_no_cache_and_says_so(publisher: Service) -> None:
    with cat2.connect(publisher.url) as client:
        array = client["foo/field"]
        assert array.cached_fraction() == 0
        assert array.estimate(np.s_[0, 0, 0]).nblocks == 1
        for refused in (array.prefetch, array.seal, client.cache.status):
            with pytest.raises(UnsupportedDatasetError, match="connect to a subscriber"):
                refused()


def test_each_command_does_what_it_says(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def cat2cli(*arguments: str, code: int = 0) -> str:
        assert main(["--subscriber", url, *arguments]) == code, capsys.readouterr().err
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    def run(*arguments: str, code: int = 0) -> str:
        return cat2cli("cache", *arguments, code=code)

    def as_json(*arguments: str) -> Any:
        return json.loads(run(*arguments, "--json"))

    wait_for(lambda: cat2cli("roots").startswith("foo"), message="the root is known")
    assert as_json("status")["datasets"] == []
    assert run("prefetch", "foo/field[:50]") == "foo/field.b2nd: 25 of 25 blocks cached\n"
    assert "not in the cache" in run("seal", "foo/field", code=1)
    fetched = as_json("prefetch", "foo")
    assert sorted(form["path"] for form in fetched) == ["foo/dir/notes.txt", "foo/dir/small.b2nd", "foo/field.b2nd"]
    assert all(form["held_blocks"] == form["blocks"] for form in fetched)

    assert as_json("pin", "foo/dir") == ["foo/dir/notes.txt", "foo/dir/small.b2nd"]
    status = as_json("status", "foo/dir")
    assert [(d["path"], d["pinned"]) for d in sorted(status["datasets"], key=lambda d: d["path"])] == [
        ("foo/dir/notes.txt", True),
        ("foo/dir/small.b2nd", True),
    ]
    assert status["usage_nbytes"] > 0.9 * FIELD.nbytes * 0.8
    assert "foo/field.b2nd\t" in run("status")
    assert run("unpin", "foo/dir/small") == "foo/dir/small.b2nd unpinned\n"

    assert as_json("verify")["bad"] == 0
    (data,) = [p for p in Path(str(status["directory"])).rglob("data") if p.stat().st_size > 1_000_000]
    with data.open("r+b") as file:
        file.seek(500_000)
        file.write(b"?" * 10)
    assert "1 blocks failed their checksums" in run("verify", "foo", code=1)
    assert run("prefetch", "foo/field") == "foo/field.b2nd: 100 of 100 blocks cached\n"
    assert run("seal", "foo/field", "x.b2nd") == "Dataset saved to x.b2nd\n"
    np.testing.assert_array_equal(blosc2.open(str(tmp_path / "x.b2nd"))[...], FIELD)

    # What a .b2nd cannot hold as it is stored is made from its values.
    run("seal", "foo/dir/notes.txt", "notes.b2nd")
    assert blosc2.open(str(tmp_path / "notes.b2nd"))[...].tobytes() == b"notes " * 100

    assert "--all" in run("clear", code=1)
    assert as_json("clear", "foo/field")["datasets"] == 1
    assert "foo/field.b2nd" not in run("status")
    assert as_json("clear", "--all")["datasets"] == 2
    assert as_json("status")["usage_nbytes"] == 0
    for wrong in (["status", "../x"], ["pin", "foo/absent"], ["prefetch", "absent"]):
        assert len(run(*wrong, code=1).splitlines()) == 1


def test_an_estimate_says_how_much_is_there() -> None:
    assert ReadEstimate(10, 1, 4, 1).fraction == 0.25
    assert ReadEstimate(0, 0, 0, 0).fraction == 1.0
