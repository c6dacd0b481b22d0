"""Bars are there for what takes more than a second, in notebooks or where they are asked for, and go when it ends."""

from __future__ import annotations

import importlib
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.client.progress import find_bars
from caterva2_jupyter.widgets import progress_bars
from caterva2_jupyter.widgets.progress_bars import Bar
from tests.client.memory_service import MemoryService

pytest.importorskip("tqdm")


class Shown:
    """In place of tqdm's bar."""

    made: list[Shown] = []  # noqa: RUF012

    def __init__(self, total: int | None, desc: str) -> None:
        self.total, self.desc, self.n, self.is_closed = total, desc, 0, False
        self.made.append(self)

    def update(self, n: int) -> None:
        self.n += n

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Shown]:
    """Bars that are shown, at once."""
    Shown.made.clear()
    monkeypatch.setattr(progress_bars, "SHOWN_AFTER_S", 0.0)
    monkeypatch.setattr(progress_bars, "_make", lambda title, total: Shown(total or None, title))
    return Shown.made


def test_a_bar_is_shown_after_a_second_and_counts_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    Shown.made.clear()
    monkeypatch.setattr(progress_bars, "_make", lambda title, total: Shown(total or None, title))
    now = [0.0]
    with Bar("x" * 99 + "\x1b", lambda: now[0]) as bar:
        bar(1, 100)
        assert not Shown.made
        now[0] = 1.5
        bar(100, 100)
        assert not Shown.made
        bar(30, 100)
        bar(20, 120)
        bar(60, 120)
        (made,) = Shown.made
        assert (made.n, made.total) == (60, 120)
        assert len(made.desc) == 40
        assert "\x1b" not in made.desc
    assert made.is_closed


def test_tqdm_draws_it(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bars, "SHOWN_AFTER_S", 0.0)
    with Bar("foo/x") as bar:
        bar(1 << 20, 4 << 20)
    assert "foo/x" in capfd.readouterr().err


def test_transfers_have_bars_where_they_are_wanted(service: MemoryService, tmp_path: Path, shown: list[Shown]) -> None:
    with cat2.connect(service.url, progress=True, cache="fill") as client:
        client["foo/plane"][...]
        assert shown[-1].desc == "plane.b2nd"
        client["foo/plane"].download(tmp_path / "plane.b2nd")
        assert shown[-1].desc == "plane.b2nd"
        assert len(shown) == 2
        assert all(bar.is_closed for bar in shown)
        client["foo/cube"][0]
        assert len(shown) == 2
        assert len(client["foo/long.txt"].read()) > 4 << 20
        assert shown[-1].desc == "long.txt"


def test_writing_a_dataset_has_a_bar_in_notebooks(
    tmp_path: Path, shown: list[Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    xr = pytest.importorskip("xarray")
    ds = xr.Dataset({"t": (("y", "x"), np.zeros((300, 400)))})
    cat2.to_caterva2(ds, tmp_path / "none")
    assert not shown
    monkeypatch.setattr("caterva2_jupyter.client.progress._is_notebook", lambda: True)
    monkeypatch.setattr("caterva2_jupyter.xarray_backend.writing.BATCH_NBYTES", 100_000)
    cat2.to_caterva2(ds, tmp_path / "run", encoding={"t": {"chunks": (30, 40)}})
    assert [(bar.desc, bar.is_closed) for bar in shown] == [("run", True)]


def test_there_are_none_for_those_who_have_a_callback_nor_in_threads(
    service: MemoryService, tmp_path: Path, shown: list[Shown]
) -> None:
    told: list[tuple[int, int]] = []
    with cat2.connect(service.url, progress=True, cache="fill") as client:
        client["foo/plane"].download(tmp_path / "a.b2nd", lambda *counts: told.append(counts))
        assert told
        thread = threading.Thread(target=lambda: client["foo/plane"][...])
        thread.start()
        thread.join()
        again = pickle.loads(pickle.dumps(client["foo/plane"]))
        assert again._session.bars is None
        again._session.close()
    with cat2.connect(service.url) as client:
        client["foo/plane"][...]
    assert not shown


def test_an_interrupt_ends_a_download_and_leaves_nothing(service: MemoryService, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with cat2.connect(service.url) as client:
        with pytest.raises(KeyboardInterrupt):
            client["foo/plane"].download(tmp_path / "plane.b2nd", interrupt)
        assert not list(tmp_path.iterdir())
        assert client["foo/cube"][0, 0, 0] == 280


def test_an_interrupt_ends_the_bar(service: MemoryService, shown: list[Shown], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Shown, n: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Shown, "update", interrupted)
    with cat2.connect(service.url, progress=True, cache="fill") as client:
        with pytest.raises(KeyboardInterrupt):
            client["foo/plane"][...]
        assert [bar.is_closed for bar in shown] == [True]
        monkeypatch.undo()
        assert client["foo/plane"][-1, -1] == 3000 * 3000 - 1


def test_by_default_only_notebooks_have_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_bars(None) is None
    assert find_bars(False) is None
    assert find_bars(True) is Bar
    module = importlib.import_module("IPython.core.getipython")
    monkeypatch.setattr(module, "get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    assert find_bars(None) is Bar
    assert find_bars(False) is None
    monkeypatch.setattr("caterva2_jupyter.client.progress.find_spec", lambda name: None)
    assert find_bars(None) is None
    with pytest.raises(cat2.ConfigError, match="pip install"):
        find_bars(True)


def test_what_is_not_installed_is_said(client: cat2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from caterva2_jupyter.client import showing

    def missing(module: str, name: str) -> Any:
        raise ModuleNotFoundError("No module named 'anywidget'", name="anywidget")

    monkeypatch.setattr(showing, "conversion", missing)
    with pytest.raises(cat2.ConfigError, match=r"view\(\) needs anywidget: pip install 'caterva2-jupyter\[widgets\]'"):
        client["foo/cube"].view()
