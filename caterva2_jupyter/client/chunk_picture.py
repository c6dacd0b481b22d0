"""A small picture of an array and its chunk grid, as SVG: pure numbers in, markup out, no text of anybody's."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["chunk_picture"]

LONGEST = 100.0
SHORTEST = 18.0
MAX_LINES = 24
_LEAN = 0.45
_MARGIN = 4.0
_TEXT = 11.0

Point = tuple[float, float]


def chunk_picture(shape: Sequence[int], chunks: Sequence[int]) -> str:
    """An SVG of the last three axes of an array, with the borders of its chunks.

    Parameters
    ----------
    shape, chunks : sequence of int

    Returns
    -------
    str
        Empty for scalars and empty arrays. Of a fine grid some of the borders are left out.

    Examples
    --------
    >>> chunk_picture((100, 200), (50, 50)).count("<line")
    4
    >>> chunk_picture((), ())
    ''
    """
    if not shape or 0 in shape or 0 in chunks:
        return ""
    shown, grid = shape[-3:], chunks[-3:]
    sizes = _sizes(shown)
    cuts = [_cuts(n, c, size) for n, c, size in zip(shown, grid, sizes, strict=True)]
    if len(shown) == 1:
        return _flat((SHORTEST * 1.5, sizes[0]), ([], cuts[0]), ("", f"{shown[0]:,}"))
    if len(shown) == 2:
        return _flat((sizes[0], sizes[1]), (cuts[0], cuts[1]), (f"{shown[0]:,}", f"{shown[1]:,}"))
    return _solid(sizes, cuts, [f"{n:,}" for n in shown])


def _sizes(shape: Sequence[int]) -> list[float]:
    """Lengths in the picture: those of the array where they are alike, nearer to each other where they are not."""
    longest = max(shape)
    return [max(SHORTEST, LONGEST * math.sqrt(n / longest)) for n in shape]


def _cuts(length: int, chunk: int, size: float) -> list[float]:
    """Where chunks meet, between 0 and ``size``."""
    count = -(-length // chunk) - 1
    every = -(-count // MAX_LINES) if count > 0 else 1
    return [size * chunk * n / length for n in range(every, count + 1, every)]


def _flat(sizes: tuple[float, float], cuts: tuple[list[float], list[float]], labels: tuple[str, str]) -> str:
    height, width = sizes
    left, top = _MARGIN, _MARGIN
    parts = [_polygon([(left, top), (left + width, top), (left + width, top + height), (left, top + height)], "0.18")]
    parts += [_line((left, top + at), (left + width, top + at)) for at in cuts[0]]
    parts += [_line((left + at, top), (left + at, top + height)) for at in cuts[1]]
    parts.append(_text(left + width / 2, top + height + _TEXT + 2, "middle", labels[1]))
    parts.append(_text(left + width + 4, top + height / 2 + _TEXT / 3, "start", labels[0]))
    return _svg(width + 2 * _MARGIN + 8 * len(labels[0]), height + _TEXT + 4 + 2 * _MARGIN, parts)


def _solid(sizes: list[float], cuts: list[list[float]], labels: list[str]) -> str:
    """Axes: the first goes into the picture, the second down, the third across."""
    depth, height, width = sizes[0] * _LEAN, sizes[1], sizes[2]
    left, top = _MARGIN + 8 * len(labels[0]), _MARGIN + depth
    into = [at * _LEAN for at in cuts[0]]
    front = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    roof = [front[0], (left + depth, top - depth), (left + width + depth, top - depth), front[1]]
    side = [front[1], roof[2], (roof[2][0], roof[2][1] + height), front[2]]
    parts = [_polygon(front, "0.18"), _polygon(roof, "0.08"), _polygon(side, "0.28")]
    for at in cuts[1]:
        parts.append(_line((left, top + at), (left + width, top + at)))
        parts.append(_line((left + width, top + at), (left + width + depth, top + at - depth)))
    for at in cuts[2]:
        parts.append(_line((left + at, top), (left + at, top + height)))
        parts.append(_line((left + at, top), (left + at + depth, top - depth)))
    for at in into:
        parts.append(_line((left + at, top - at), (left + width + at, top - at)))
        parts.append(_line((left + width + at, top - at), (left + width + at, top + height - at)))
    parts.append(_text(left + width / 2, top + height + _TEXT + 2, "middle", labels[2]))
    parts.append(_text(left + width + depth + 4, top - depth + height / 2 + _TEXT / 3, "start", labels[1]))
    parts.append(_text(left + depth / 2 - 5, top - depth / 2, "end", labels[0]))
    full_width = left + width + depth + 8 * len(labels[1]) + _MARGIN
    return _svg(full_width, top + height + _TEXT + 4 + _MARGIN, parts)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg {size} role="img" aria-label="chunk grid">{"".join(parts)}</svg>'


def _polygon(points: Sequence[Point], opacity: str) -> str:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{text}" class="c2-face" fill-opacity="{opacity}"/>'


def _line(start: Point, stop: Point) -> str:
    return f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{stop[0]:.1f}" y2="{stop[1]:.1f}"/>'


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
