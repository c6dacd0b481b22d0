"""Arrays that the tests of browsers publish, put in place as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import blosc2
import numpy as np


def cube(offset: float = 0.0) -> np.ndarray[Any, Any]:
    """Temperatures in kelvins, time by latitude by longitude."""
    t, y, x = np.ogrid[:40, :90, :120]
    return (280 + offset + 10 * np.sin(t / 6 + y / 20) * np.cos(x / 18)).astype("f4")


def write(path: Path, values: np.ndarray[Any, Any], **attributes: Any) -> None:
    """Into place by its name: nobody sees half of it."""
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    array = blosc2.asarray(values, urlpath=str(part), mode="w", chunks=(10, 90, 120) if values.ndim == 3 else None)
    for name, value in attributes.items():
        array.vlmeta[name] = value
    del array
    part.rename(path)
