"""Figures of remote arrays by matplotlib: lines, planes, colours, histograms; labelled, masked, and never of too much.

``plan_plot`` decides, from metadata alone, which axes are drawn and what of the others; ``read_plot`` reads that, or an
overview of it; ``draw`` draws. Texts of publishers are drawn as they are, never as mathematics.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..client.remote_array import RemoteArray
from ..client.representation import plain
from ..compute.overview import missing_values
from ..compute.reduction import fills_in
from ..errors import RequestError, TooLargeError, UnsupportedDatasetError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MAX_NBYTES", "Kind", "PlotPlan", "PlotValues", "draw", "plan_plot", "plot", "read_plot"]

MAX_NBYTES = 16 << 20
"""Bytes of values that a figure reads at most."""
LOOKED_AT_NBYTES = 512 << 20
"""Bytes that an overview looks at where the data is; over them it takes every n-th value."""
MAX_LINE_POINTS = 20_000
ENVELOPE_PARTS = 2000
PLANE_PIXELS = 1024
SAMPLE_VALUES = 1 << 18
BINS = 100
MAX_TEXT_CHARS = 80

Kind = Literal["line", "image", "rgb", "hist"]
KINDS: tuple[str, ...] = get_args(Kind)
_COLOUR_NAMES = ("rgb", "rgba", "band", "bands", "channel", "channels", "color", "colour", "c")


@dataclass(frozen=True, slots=True)
class PlotPlan:
    """What of an array is drawn.

    Attributes
    ----------
    kind : {"line", "image", "rgb", "hist"}
    key : tuple of int or slice
        The selection, an item or a slice for each axis; slices have bounds, and steps above 0.
    axes : tuple of int
        Axes that are drawn: across; across, upwards; across, upwards, colour. Of a histogram all that are left.
    names : tuple of str
        Of all axes.
    """

    kind: Kind
    key: tuple[int | slice, ...]
    axes: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where the others are, for the title.

        >>> PlotPlan("line", (3, slice(0, 9, 1)), (1,), ("time", "x")).place
        'time=3'
        """
        return ", ".join(
            f"{name}={item}" for name, item in zip(self.names, self.key, strict=True) if not isinstance(item, slice)
        )


@dataclass(frozen=True, slots=True, eq=False)
class PlotValues:
    """What is drawn, read.

    Attributes
    ----------
    values : numpy.ma.MaskedArray
        Axes in the order of the plan's; of an overview by ``minmax`` a last axis of two.
    steps : tuple of int
        Items of the array from one value to the next, along each of them.
    starts : tuple of int
        The first item along each.
    method : {"", "stride", "mean", "minmax"}
        How it was made; empty: these are the values.
    """

    values: np.ma.MaskedArray[Any, np.dtype[Any]]
    steps: tuple[int, ...]
    starts: tuple[int, ...]
    method: str


def axis_names(array: RemoteArray) -> tuple[str, ...]:
    """Names of all axes: those of the metadata, ``axis N`` for others."""
    named = list(array.dims or ())[: array.ndim]
    return tuple(named[n] if n < len(named) and named[n] else f"axis {n}" for n in range(array.ndim))


def plan_plot(
    array: RemoteArray,
    key: Any = None,
    x: Any = None,
    y: Any = None,
    kind: Kind | None = None,
    positions: Mapping[str, Any] | None = None,
) -> PlotPlan:
    """Decide what is drawn.

    Parameters
    ----------
    array : RemoteArray
    key, x, y, kind
        As of ``RemoteArray.plot``.
    positions : mapping
        Items and slices by name of axis.

    Raises
    ------
    TypeError, IndexError, RequestError
        When that is not to be had of this array.
    UnsupportedDatasetError
        When its dtype is not drawn.
    """
    _check_dtype(array)
    if kind is not None and kind not in KINDS:
        raise RequestError(f"there is no plot of kind {kind!r}: one of {', '.join(KINDS)}")
    names = axis_names(array)
    positions = dict(positions or {})
    # An axis may itself be called x or y: then an item or a slice is where on it.
    if "x" in names and isinstance(x, (int, np.integer, slice)) and not isinstance(x, bool):
        positions["x"], x = x, None
    if "y" in names and isinstance(y, (int, np.integer, slice)) and not isinstance(y, bool):
        positions["y"], y = y, None
    chosen: list[int | slice | None] = [None] * array.ndim
    given = _as_key(key, array.ndim)
    chosen[: len(given)] = given
    for name, at in positions.items():
        number, item = _axis(name, names), at if isinstance(at, slice) else _index(at)
        if isinstance(chosen[number], int) or (isinstance(chosen[number], slice) and chosen[number] != slice(None)):
            raise TypeError(f"axis {name!r} is selected twice")
        chosen[number] = item
    across = None if x is None else _axis(x, names)
    upwards = None if y is None else _axis(y, names)
    if across is not None and across == upwards:
        raise TypeError("x and y are the same axis")
    for drawn in (across, upwards):
        if drawn is not None and isinstance(chosen[drawn], int):
            raise TypeError(f"axis {names[drawn]!r} is drawn: it cannot be at one item too")
    free = [n for n in range(array.ndim) if chosen[n] is None or isinstance(chosen[n], slice)]
    kind = kind or _kind(array, free, across, upwards, names)
    axes = _drawn(kind, free, across, upwards)
    full = [_bounded(item, n, axes, array.shape, names) for n, item in enumerate(chosen)]
    return PlotPlan(kind, tuple(full), axes, names)


def _check_dtype(array: RemoteArray) -> None:
    where = f"{array.root}/{array.path}"
    if array.dtype.names is not None:
        field = array.dtype.names[0]
        raise UnsupportedDatasetError(f"{where} has fields: plot one of them, array[{field!r}].plot()")
    if array.dtype.kind not in "biufcmM":
        raise UnsupportedDatasetError(f"{where} is of dtype {array.dtype}, which is not drawn: read it, array[...]")


def _as_key(key: Any, ndim: int) -> list[int | slice]:
    if key is None:
        return []
    items = list(key) if isinstance(key, tuple) else [key]
    dots = [n for n, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if len(items) - len(dots) > ndim:
        raise IndexError(f"too many indices for array: array is {ndim}-dimensional, but {len(items)} were indexed")
    if dots:
        items[dots[0] : dots[0] + 1] = [slice(None)] * (ndim - len(items) + 1)
    return [item if isinstance(item, slice) else _index(item) for item in items]


def _index(item: Any) -> int:
    if isinstance(item, bool):
        raise TypeError("a plot is selected by integers and slices")
    try:
        return operator.index(item)
    except TypeError:
        raise TypeError(f"a plot is selected by integers and slices, not {type(item).__name__}") from None


def _axis(name: Any, names: Sequence[str]) -> int:
    """The number of an axis, by name or number."""
    if isinstance(name, str):
        if name in names:
            return names.index(name)
        raise TypeError(f"no axis {name!r}: there are {', '.join(map(repr, names)) or 'none'}")
    number = _index(name)
    if not -len(names) <= number < len(names):
        raise TypeError(f"no axis {number}: there are {len(names)}")
    return number % len(names)


def _kind(
    array: RemoteArray, free: Sequence[int], across: int | None, upwards: int | None, names: Sequence[str]
) -> Kind:
    if across is not None and upwards is None:
        return "line"
    if upwards is not None and across is None:
        return "image" if len(free) > 1 else "line"
    if len(free) == 3 and across is None and free[-1] == array.ndim - 1 and array.shape[-1] in (3, 4):
        is_image = str(array.attrs.get("CLASS", "")).upper() == "IMAGE" or names[-1].lower() in _COLOUR_NAMES
        if is_image or (array.dtype == np.uint8 and min(array.shape[free[0]], array.shape[free[1]]) > 4):
            return "rgb"
    return "line" if len(free) < 2 else "image"


def _drawn(kind: Kind, free: list[int], across: int | None, upwards: int | None) -> tuple[int, ...]:
    """Axes that are drawn, in the order of ``PlotPlan.axes``."""
    if kind == "hist":
        return tuple(free)
    needed = {"line": 1, "image": 2, "rgb": 3}[kind]
    if len(free) < needed:
        left = "none is" if not free else f"{len(free)} are" if len(free) > 1 else "one is"
        raise TypeError(f"a plot of kind {kind!r} draws {needed} axes, {left} left")
    rest = [n for n in free if n not in (across, upwards)]
    if kind == "line":
        return (across if across is not None else rest[-1] if rest else free[-1],)
    colour = rest.pop() if kind == "rgb" else None
    if across is None:
        across = rest.pop()
    if upwards is None:
        upwards = rest.pop()
    return (across, upwards) if colour is None else (across, upwards, colour)


def _bounded(
    item: int | slice | None, number: int, axes: tuple[int, ...], shape: tuple[int, ...], names: Sequence[str]
) -> int | slice:
    length = shape[number]
    if number in axes:
        chosen = slice(None) if item is None else item
        assert isinstance(chosen, slice)
        start, stop, step = chosen.indices(length)
        if step < 0:
            raise TypeError("a plot is selected by slices with steps above 0")
        return slice(start, max(start, stop), step)
    at = 0 if item is None else item.indices(length)[0] if isinstance(item, slice) else _index(item)
    if not -length <= at < length:
        raise IndexError(f"index {at} is out of bounds for axis {names[number]!r} with size {length}")
    return at % length


def read_plot(array: RemoteArray, plan: PlotPlan, max_nbytes: int = MAX_NBYTES, *, decode: bool = True) -> PlotValues:
    """Read what is drawn: the values, or an overview where they are too many.

    Raises
    ------
    TooLargeError
        When there is no overview of it (fields), and it is over ``max_nbytes``.
    """
    kept = [n for n, item in enumerate(plan.key) if isinstance(item, slice)]
    slices = [item for item in plan.key if isinstance(item, slice)]
    counts = [len(range(s.start, s.stop, s.step)) for s in slices]
    size, itemsize = math.prod(counts), array.dtype.itemsize
    limits = {"line": MAX_LINE_POINTS, "hist": SAMPLE_VALUES}
    pixels, method = _coarseness(plan, size * itemsize, len(kept), max_nbytes, itemsize)
    if size * itemsize <= max_nbytes and size <= limits.get(plan.kind, size):
        values, steps, method = array[plan.key], [1] * len(kept), ""
    elif array._fields:
        # A field has no overview, but a part of it is cheap where blocks are few.
        if size * itemsize > max_nbytes:
            raise TooLargeError(
                f"this plot of a field would read {size * itemsize} bytes, over the {max_nbytes} of one: select less, "
                "or raise max_nbytes"
            )
        values, steps, method = array[plan.key], [1] * len(kept), ""
    else:
        if array.dtype.kind in "cb" or (array.dtype.kind in "mM" and method == "mean"):
            method = "stride"
        try:
            seen = array.overview(pixels, method, selection=plan.key)  # type: ignore[arg-type]
        except (TooLargeError, UnsupportedDatasetError, RequestError):
            if method == "stride":
                raise
            seen = array.overview(pixels, "stride", selection=plan.key)
        values, steps, method = np.asarray(seen.values.data), list(seen.steps), seen.method
    masked = _decoded(np.asarray(values), array.attrs, decode=decode)
    order = [kept.index(n) for n in plan.axes]
    if method == "minmax":
        masked = masked.transpose(*order, masked.ndim - 1)
    else:
        masked = masked.transpose(*order)
    stepped = [slices[n].step * steps[n] for n in order]
    return PlotValues(masked, tuple(stepped), tuple(slices[n].start for n in order), method)


def _coarseness(plan: PlotPlan, nbytes: int, nkept: int, max_nbytes: int, itemsize: int) -> tuple[int, str]:
    """Values along each axis of an overview, and how it is made."""
    looks = nbytes <= LOOKED_AT_NBYTES
    most = max(1, max_nbytes // max(itemsize, 1))
    if plan.kind == "line":
        return min(ENVELOPE_PARTS, max(1, most // 2)), "minmax" if looks else "stride"
    if plan.kind == "hist":
        return max(1, int(min(SAMPLE_VALUES, most) ** (1 / max(nkept, 1)))), "stride"
    room = most // 4 if plan.kind == "rgb" else most
    return max(1, min(PLANE_PIXELS, math.isqrt(room))), "mean" if looks and plan.kind == "image" else "stride"


def _decoded(
    values: npt.NDArray[Any], attrs: Mapping[str, Any], *, decode: bool
) -> np.ma.MaskedArray[Any, np.dtype[Any]]:
    """Stored values as those that they mean, in native byte order; fill values and NaN are masked."""
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    masked: np.ma.MaskedArray[Any, np.dtype[Any]]
    masked = np.ma.masked_array(native, missing_values(native, fills_in(attrs)))
    scale, offset = _number(attrs.get("scale_factor"), 1.0), _number(attrs.get("add_offset"), 0.0)
    if decode and (scale, offset) != (1.0, 0.0) and native.dtype.kind in "iuf":
        masked = masked * scale + offset
    if masked.dtype.kind == "c":
        masked = np.ma.abs(masked)
    return masked


def _number(value: Any, otherwise: float) -> float:
    try:
        number = float(np.asarray(value).reshape(-1)[0]) if np.size(value) == 1 and value is not None else otherwise
    except (TypeError, ValueError):
        return otherwise
    return number if math.isfinite(number) else otherwise


def plot(
    array: RemoteArray,
    key: Any = None,
    *,
    x: Any = None,
    y: Any = None,
    ax: Axes | None = None,
    kind: Kind | None = None,
    cmap: Any = None,
    vmin: float | None = None,
    vmax: float | None = None,
    colorbar: bool = True,
    origin: Literal["lower", "upper"] | None = None,
    decode: bool = True,
    max_nbytes: int = MAX_NBYTES,
    **positions: Any,
) -> Axes:
    """See ``RemoteArray.plot``."""
    plan = plan_plot(array, key, x, y, kind, positions)
    read = read_plot(array, plan, max_nbytes, decode=decode)
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(layout="constrained")
    draw(ax, array, plan, read, cmap=cmap, vmin=vmin, vmax=vmax, colorbar=colorbar, origin=origin)
    return ax


def draw(
    ax: Axes,
    array: RemoteArray,
    plan: PlotPlan,
    read: PlotValues,
    *,
    cmap: Any = None,
    vmin: float | None = None,
    vmax: float | None = None,
    colorbar: bool = True,
    origin: Literal["lower", "upper"] | None = None,
) -> None:
    """Draw what has been read into axes of matplotlib."""
    import matplotlib as mpl  # noqa: F401  (says that it is not there before anything is drawn)

    if not read.values.size:
        ax.text(0.5, 0.5, "no values", transform=ax.transAxes, ha="center", va="center", alpha=0.6)
    elif plan.kind == "line":
        _draw_line(ax, array, plan, read)
    elif plan.kind == "hist":
        _draw_histogram(ax, array, read)
    else:
        _draw_image(ax, array, plan, read, cmap, vmin, vmax, colorbar, origin)
    title = plain(array.path)
    field = "".join(f"[{name!r}]" for name in array._fields)
    title = title + field if len(title) <= MAX_TEXT_CHARS else "…" + title[-MAX_TEXT_CHARS:] + field
    ax.set_title(f"{title}\n{_cut(plan.place)}" if plan.place else title, parse_math=False, fontsize="medium")


def _draw_line(ax: Axes, array: RemoteArray, plan: PlotPlan, read: PlotValues) -> None:
    across = read.starts[0] + read.steps[0] * np.arange(len(read.values))
    if read.method == "minmax":
        least, greatest = read.values[..., 0], read.values[..., 1]
        ax.fill_between(across, least, greatest, alpha=0.35, linewidth=0)
        # The middle of the envelope: a line where parts are alike.
        ax.plot(across, least + (greatest - least) / 2, linewidth=0.8)
        _note(ax, f"least and greatest of each {read.steps[0]:,} values")
    else:
        ax.plot(across, read.values, linewidth=1, marker="." if len(across) < 50 else "")
        if read.method:
            _note(ax, f"every {read.steps[0]:,}th value")
    ax.margins(x=0.01)
    ax.set_xlabel(_cut(plan.names[plan.axes[0]]), parse_math=False)
    ax.set_ylabel(_value_label(array), parse_math=False)


def _draw_histogram(ax: Axes, array: RemoteArray, read: PlotValues) -> None:
    values = read.values.compressed()
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    ax.hist(finite, bins=BINS)
    ax.set_xlabel(_value_label(array), parse_math=False)
    ax.set_ylabel("number of values" + (f" (of a sample of {len(values):,})" if read.method else ""))


def _draw_image(
    ax: Axes,
    array: RemoteArray,
    plan: PlotPlan,
    read: PlotValues,
    cmap: Any,
    vmin: float | None,
    vmax: float | None,
    colorbar: bool,
    origin: Literal["lower", "upper"] | None,
) -> None:
    values: Any = read.values
    if values.dtype.kind in "mM":
        raise UnsupportedDatasetError(f"planes of {values.dtype} are not drawn: draw a line of it, or read it")
    # Across, upwards -> rows, columns.
    values = values.swapaxes(0, 1)
    if values.dtype.kind == "b" or values.dtype == np.float16:
        values = values.astype(np.uint8 if values.dtype.kind == "b" else np.float32)
    (left, bottom), (step_x, step_y) = read.starts[:2], read.steps[:2]
    rows, columns = values.shape[:2]
    origin = origin or ("upper" if plan.kind == "rgb" else "lower")
    right, top = left + columns * step_x, bottom + rows * step_y
    # The middle of a pixel is its first item, or the middle of those that it stands for.
    shift_x, shift_y = (0.5, 0.5) if read.method else (step_x / 2, step_y / 2)
    low, high = bottom - shift_y, top - shift_y
    extent = (left - shift_x, right - shift_x, *((low, high) if origin == "lower" else (high, low)))
    is_flat = max(rows * step_y, columns * step_x) <= 8 * min(rows * step_y, columns * step_x)
    shown: Any = _colours(values) if plan.kind == "rgb" else values
    image = ax.imshow(
        shown,
        origin=origin,
        extent=extent,
        aspect="equal" if is_flat else "auto",
        interpolation="nearest",
        cmap=cmap,
        vmin=vmin,
        vmax=vmax,
    )
    ax.set_xlabel(_cut(plan.names[plan.axes[0]]), parse_math=False)
    ax.set_ylabel(_cut(plan.names[plan.axes[1]]), parse_math=False)
    if read.method:
        how = "means of" if read.method == "mean" else "one of each"
        _note(ax, f"{how} {step_y:,} × {step_x:,} values")
    figure = ax.get_figure()
    if plan.kind == "image" and colorbar and figure is not None:
        bar = figure.colorbar(image, ax=ax, shrink=0.9)
        bar.set_label(_value_label(array), parse_math=False)


def _colours(values: np.ma.MaskedArray[Any, np.dtype[Any]]) -> npt.NDArray[Any]:
    filled = np.asarray(np.ma.filled(values, 0))
    if filled.dtype == np.uint8:
        return filled
    if filled.dtype.kind in "iu":
        return (filled / max(np.iinfo(filled.dtype).max, 1)).clip(0, 1)
    greatest = float(np.nanmax(filled, initial=0.0))
    return np.nan_to_num(filled / (greatest if greatest > 1 else 1)).clip(0, 1)


def _value_label(array: RemoteArray) -> str:
    attrs = array.attrs
    name = attrs.get("long_name") or attrs.get("standard_name") or ""
    units = attrs.get("units") or ""
    name = name if isinstance(name, str) else ""
    if array.dtype.kind == "c":
        name = f"amplitude of {name}" if name else "amplitude"
    return _cut(f"{name} [{units}]".strip() if isinstance(units, str) and units else name)


def _cut(text: str) -> str:
    text = plain(text)
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"


def _note(ax: Axes, text: str) -> None:
    """What an overview is, small, below the axes' right end."""
    ax.annotate(
        text, (1, 1), (0, 2), xycoords="axes fraction", textcoords="offset points", ha="right", va="bottom",
        fontsize="x-small", alpha=0.7,
    )  # fmt: skip
