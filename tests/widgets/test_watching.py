"""A figure follows its array: new values, another shape, away and gone; and stops when it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.memory_service import MemoryService
from tests.processes import wait_for

pytest.importorskip("ipywidgets")


@pytest.fixture
def root() -> MemoryRoot:
    return MemoryRoot({"x.b2nd": np.arange(10.0)})


@pytest.fixture
def served(root: MemoryRoot) -> Iterator[MemoryService]:
    with MemoryService({"foo": root}) as service:
        yield service


def test_a_figure_is_drawn_again_when_its_array_changes(root: MemoryRoot, served: MemoryService) -> None:
    with cat2.connect(served.url) as client:
        array = client["foo/x"]
        version = array.version
        live = array.watch()
        first = bytes(live._image.value)
        assert first.startswith(b"\x89PNG")
        wait_for(lambda: any("event-lines" in r for r in served.requests), message="it listens")
        root.set("x.b2nd", np.arange(10.0) ** 2)
        served.rescan()
        wait_for(lambda: live.drawn == 2, message="the new values")
        assert live._image.value != first
        assert array.version == version
        root.set("x.b2nd", np.arange(12.0).reshape(3, 4))
        served.rescan()
        wait_for(lambda: live.drawn == 3, message="another shape")
        live.stop()
        assert live.state == "stopped"
        assert live._button.disabled
        wait_for(lambda: not live._drawing.is_alive(), message="its thread ended")
        assert repr(live) == "<LivePlot of foo/x.b2nd>"
        live.close()


def test_a_figure_says_when_its_array_is_gone_and_draws_it_when_it_is_back(
    root: MemoryRoot, served: MemoryService
) -> None:
    with cat2.connect(served.url) as client:
        live = client["foo/x"].watch()
        wait_for(lambda: any("event-lines" in r for r in served.requests), message="it listens")
        root.delete("x.b2nd")
        served.rescan()
        wait_for(lambda: live.state == "gone", message="it says so")
        root.set("x.b2nd", np.array(["text"]))
        served.rescan()
        wait_for(lambda: live.state == "failed", message="text is not drawn")
        assert "not drawn" in live._status.value
        root.set("x.b2nd", np.arange(3))
        served.rescan()
        wait_for(lambda: live.state == "live", message="it is back")
        live.close()


def test_a_figure_says_that_the_service_is_away(root: MemoryRoot) -> None:
    with MemoryService({"foo": root}) as service, cat2.connect(service.url) as client:
        live = client["foo/x"].watch()
        wait_for(lambda: any("event-lines" in r for r in service.requests), message="it listens")
    wait_for(lambda: live.state == "offline", message="it says so")
    live._button.click()
    assert live.state == "stopped"


def test_what_cannot_be_drawn_is_said_at_once(served: MemoryService) -> None:
    with cat2.connect(served.url) as client, pytest.raises(TypeError, match="no axis 'time'"):
        client["foo/x"].watch(time=1)
