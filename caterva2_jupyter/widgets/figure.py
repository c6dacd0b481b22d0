"""A figure of an array as PNG, drawn without pyplot: threads may draw, and no figure of the user's is touched."""

from __future__ import annotations

import io
from typing import Any

from ..client.remote_array import RemoteArray
from .plotting import MAX_NBYTES, draw, plan_plot, read_plot

__all__ = ["png_of"]

INCHES = (6.0, 4.0)
DPI = 100
_DRAWN = ("cmap", "vmin", "vmax", "colorbar", "origin")


def png_of(
    array: RemoteArray,
    key: Any = None,
    *,
    x: Any = None,
    y: Any = None,
    kind: Any = None,
    decode: bool = True,
    max_nbytes: int = MAX_NBYTES,
    inches: tuple[float, float] = INCHES,
    **options: Any,
) -> bytes:
    """A plot as PNG.

    Parameters
    ----------
    array : RemoteArray
    key, x, y, kind, decode, max_nbytes, **options
        As of ``RemoteArray.plot``, without ``ax``.
    inches : (float, float)
        Width and height; 100 pixels each.

    Returns
    -------
    bytes

    Raises
    ------
    As ``RemoteArray.plot``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    how = {name: options.pop(name) for name in _DRAWN if name in options}
    plan = plan_plot(array, key, x, y, kind, options)
    read = read_plot(array, plan, max_nbytes, decode=decode)
    figure = Figure(figsize=inches, dpi=DPI, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    draw(figure.add_subplot(), array, plan, read, **how)
    sink = io.BytesIO()
    canvas.print_png(sink)
    return sink.getvalue()
