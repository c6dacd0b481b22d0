"""Strategies for geometries, selections and arrays, and blocks made the slow and obvious way."""

import numpy as np
from hypothesis import strategies as st

from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.core.selection import AxisItems, AxisRange, Selection

DTYPES = ["<i4", ">f8", "<f2", "S3", "<c16", "?", "<U2", "|u1", "<M8[ns]", [("a", "<i4"), ("b", ">f4", (2,))]]


@st.composite
def geometries(draw, min_side=1, max_ndim=4, dtypes=DTYPES):
    shape = tuple(draw(st.lists(st.integers(min_side, 11), max_size=max_ndim)))
    chunks = tuple(draw(st.integers(1, 8)) for _ in shape)
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    if shape and draw(st.booleans()):
        return Geometry(shape, chunks, (draw(st.integers(1, 20)),), dtype, "flat", draw(st.booleans()))
    if len(shape) == 1 and draw(st.booleans()):  # a frame: its last block is short
        return Geometry(shape, chunks, (draw(st.integers(1, chunks[0])),), dtype, "nd", False)
    return Geometry(shape, chunks, tuple(draw(st.integers(1, c)) for c in chunks), dtype)


@st.composite
def selections(draw, shape):
    axes = []
    for n in shape:
        if n and draw(st.integers(0, 3)) == 0:
            items = draw(st.sets(st.integers(0, n - 1), min_size=0, max_size=n))
            axes.append(AxisItems(np.array(sorted(items), np.int64)))
            continue
        start = draw(st.integers(0, n))
        axes.append(AxisRange(start, draw(st.integers(start, n)), draw(st.integers(1, 12))))
    return Selection(tuple(axes))


@st.composite
def geometries_and_selections(draw, **how):
    geometry = draw(geometries(**how))
    return geometry, draw(selections(geometry.shape))


def make_array(geometry, seed):
    """An array of random items (bytes where a dtype has no natural ones)."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 99, geometry.shape)
    if geometry.dtype.names is None:
        return np.asarray(numbers.astype(geometry.dtype)).reshape(geometry.shape)
    array = np.zeros(geometry.shape, geometry.dtype)
    array["a"], array["b"] = numbers, numbers[..., None] / 7
    return array


def positions(selection):
    """The items selected along each axis."""
    return [
        axis.items if isinstance(axis, AxisItems) else np.arange(axis.start, axis.stop, axis.step)
        for axis in selection.axes
    ]


def box_of(array, selection):
    """What NumPy says that a selection holds."""
    return array[np.ix_(*positions(selection))] if array.ndim else array


def decoded_blocks(array, geometry, coords):
    """Every block of a chunk as decoded bytes."""
    extent = geometry.chunk_extent(coords)
    full = np.zeros(extent, array.dtype)
    part = array[tuple(slice(i * c, (i + 1) * c) for i, c in zip(coords, geometry.chunks, strict=True))]
    full[tuple(slice(0, n) for n in part.shape)] = part
    if geometry.layout == "flat" or not geometry.padded:
        items = full.ravel()
        return [items[i : i + geometry.blocks[0]].tobytes() for i in range(0, len(items), geometry.blocks[0])]
    blocks = []
    for index in np.ndindex(*(-(-e // b) for e, b in zip(extent, geometry.blocks, strict=True))):
        block = np.zeros(geometry.blocks, array.dtype)
        inside = full[tuple(slice(i * b, (i + 1) * b) for i, b in zip(index, geometry.blocks, strict=True))]
        block[tuple(slice(0, n) for n in inside.shape)] = inside
        blocks.append(block.tobytes())
    return blocks


def split_of(ids, seed):
    """Some of the blocks, and the others."""
    mask = np.random.default_rng(seed).random(len(ids)) < 0.5
    return [[i for i, m in zip(ids, mask, strict=True) if m], [i for i, m in zip(ids, mask, strict=True) if not m]]
