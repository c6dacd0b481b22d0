"""How arrays, files and groups are looked at in a notebook: methods that find what draws when they are first called.

The client imports neither widgets nor matplotlib: ``caterva2_jupyter.widgets`` is built on it, and an extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .conversions import conversion

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Plotted", "Viewed", "shown"]


def shown(what: str, module: str, name: str, *arguments: Any, **options: Any) -> Any:
    """What a function of ``widgets`` returns.

    Raises
    ------
    ConfigError
        When a package that it needs is not installed.
    """
    try:
        function = conversion(f"widgets.{module}", name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{what}() needs {error.name}: pip install 'caterva2-jupyter[widgets]'") from None
    return function(*arguments, **options)


class Viewed:
    """Mixed into groups and datasets: the viewer."""

    def view(self, *, height: int = 480, theme: str = "") -> Any:
        """The interactive viewer, in the output of a cell: plots, tables, attributes, displays.

        It is that of JupyterLab's panel, and works in JupyterLab, Notebook 7 and Voila. The browser asks the kernel,
        which asks the service: while a cell runs, nothing new is loaded.

        Parameters
        ----------
        height : int
            Pixels.
        theme : {"", "light", "dark"}
            Empty: that of the page.

        Returns
        -------
        caterva2_jupyter.widgets.viewer.Viewer
            A widget; its ``path`` may be set to look at something else.

        Raises
        ------
        ConfigError
            When anywidget is not installed.

        Examples
        --------
        >>> viewer = client["foo/dir1/ds-3d"].view(height=300)
        >>> viewer.path
        'foo/dir1/ds-3d.b2nd'
        """
        return shown("view", "viewer", "view", self, height, theme)


class Plotted:
    """Mixed into arrays: figures."""

    def plot(self, key: Any = None, *, x: Any = None, y: Any = None, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw a line or a plane by matplotlib. Of what is large an overview is drawn, made where the data is.

        One axis is drawn as a line, two as an image, three as RGB where the last one is the colour of an image; of more
        axes the last two, at the first item of the others.

        Parameters
        ----------
        key : basic index, optional
            What is drawn, by position: ``array.plot(3)``, ``array.plot(np.s_[3, :, 100:200])``.
        x, y : str or int, optional
            Which axis is drawn across, and which upwards: by name or number. With ``x`` alone, a line.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.
        **options
            Names of axes with an item or a slice, as ``time=3, lat=slice(10, 50)``, and these:

            - ``kind``: ``"line"``, ``"image"``, ``"rgb"`` or ``"hist"``, instead of what the axes suggest;
            - ``cmap``, ``vmin``, ``vmax``, ``colorbar``: as of ``matplotlib.pyplot.imshow``;
            - ``origin``: ``"lower"`` or ``"upper"``, where the first row of an image is: below, but for RGB;
            - ``decode``: apply ``scale_factor`` and ``add_offset``; True by default;
            - ``max_nbytes``: the most bytes of values that are read, 16 MiB by default. Over it: an overview.

        Returns
        -------
        matplotlib.axes.Axes
            Labelled with the attributes ``long_name`` and ``units``; fill values are left out.

        Raises
        ------
        ConfigError
            When matplotlib is not installed.
        TypeError, IndexError
            When there is no such axis or item.
        UnsupportedDatasetError
            For what is not drawn: strings, structured dtypes (take a field: ``array["a"].plot()``).

        Examples
        --------
        >>> axes = client["foo/dir1/ds-3d"].plot(np.s_[0, ::2, 1:4])
        >>> axes.get_title()
        '...'
        """
        axes: Axes = shown("plot", "plotting", "plot", self, key, x=x, y=y, ax=ax, **options)
        return axes

    def watch(self, key: Any = None, **options: Any) -> Any:
        """A figure that is drawn again whenever the array changes, until its button Stop is pressed.

        Parameters
        ----------
        key, **options
            As of `plot`, without ``ax``.

        Returns
        -------
        caterva2_jupyter.widgets.watching.LivePlot
            A widget. This array itself stays at its version.

        Raises
        ------
        ConfigError
            When ipywidgets or matplotlib are not installed.

        Examples
        --------
        >>> live = client["foo/dir1/ds-2d"].watch()
        >>> live.stop()
        """
        return shown("watch", "watching", "watch", self, key, **options)
