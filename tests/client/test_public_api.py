"""What ``import caterva2_jupyter`` gives, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import caterva2_jupyter as cat2

HEAVY = ("blosc2", "tornado", "h5py", "aiohttp", "jupyter_server", "rich", "xarray")


@pytest.mark.parametrize("use", ["", "c.connect('http://localhost:1')", "c.RemoteArray, c.Group, c.open_address"])
def test_importing_the_client_is_quick_and_loads_no_service(use: str) -> None:
    code = f"""
import sys, time
start = time.process_time()  # what it costs, whatever else this machine does
import caterva2_jupyter as c
{use}
seconds = time.process_time() - start
print([m for m in {HEAVY!r} if m in sys.modules], seconds)
"""
    out = min(
        (
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
            for _ in range(3)
        ),
        key=lambda text: float(text.split()[-1]),
    )
    loaded, seconds = out.rsplit(" ", 1)
    assert loaded == "[]"
    assert float(seconds) < 1.0


def test_every_public_name_is_there_and_has_a_docstring() -> None:
    assert cat2.__all__ == sorted(cat2.__all__, key=lambda n: (n.startswith("_"), n)) or set(cat2.__all__) <= set(
        dir(cat2)
    )
    for name in cat2.__all__:
        thing = getattr(cat2, name)
        if name != "__version__":
            assert inspect.getdoc(thing), name
    with pytest.raises(AttributeError):
        _ = cat2.no_such_name


@pytest.mark.parametrize("cls", [cat2.Client, cat2.Group, cat2.RemoteArray, cat2.RemoteFile, cat2.UnsupportedDataset])
def test_public_methods_have_docstrings(cls: type) -> None:
    for name, member in inspect.getmembers(cls):
        if not name.startswith("_") and (callable(member) or isinstance(member, property)):
            assert inspect.getdoc(member), f"{cls.__name__}.{name}"
