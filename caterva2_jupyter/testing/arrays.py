"""Arrays of every kind to try roots and sources with, random keys for them, and what NumPy gives for those."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.selection import ParsedKey, Selection, parse_basic, parse_orthogonal

__all__ = ["Array", "Content", "as_array", "assert_same", "expected", "random_key", "sample_arrays", "source_content"]

Array = npt.NDArray[Any]
Content = Mapping[str, Array | bytes]


def sample_arrays() -> dict[str, Array]:
    """Arrays of many dtypes and shapes by path, in groups; the same ones in every run."""
    rng = np.random.default_rng(7)
    table = np.zeros(37, [("id", "<i4"), ("position", ">f8", (3,)), ("name", "S5")])
    table["id"], table["position"], table["name"] = np.arange(37), rng.normal(size=(37, 3)), b"abc"
    return {
        "bool.b2nd": rng.random((19, 23)) < 0.5,
        "constant.b2nd": np.full((200, 300), 7.5),
        "empty.b2nd": np.empty((0, 4), "<f4"),
        "grid/big-endian.b2nd": rng.normal(size=(33, 17)).astype(">f4"),
        "grid/complex.b2nd": (rng.normal(size=(7, 8)) + 1j).astype("<c16"),
        "grid/deep/half.b2nd": rng.normal(size=1000).astype("<f2"),
        "grid/deep/noise.b2nd": rng.integers(0, 2**60, (41, 53, 29)),
        "line.b2nd": np.arange(100_000, dtype="<i4"),
        "scalar.b2nd": np.array(42, "<i8"),
        "table.b2nd": table,
        "text.b2nd": np.array([[b"a", b"bcd"], [b"", b"ef"]], "S3"),
    }


def random_key(rng: np.random.Generator, shape: tuple[int, ...]) -> ParsedKey:
    """Some selection that NumPy accepts for that shape: basic, or items per axis."""
    if rng.random() < 0.3 and 0 not in shape:
        lists = [sorted(set(rng.integers(0, n, rng.integers(1, 6)).tolist())) for n in shape]
        return parse_orthogonal(tuple(lists), shape)
    key: list[Any] = []
    for n in shape:
        if n and rng.random() < 0.25:
            key.append(int(rng.integers(-n, n)))
            continue
        start, stop = sorted(rng.integers(0, n + 1, 2).tolist())
        key.append(slice(start, stop, int(rng.choice([1, 1, 1, 2, 5, 40]))))
    return parse_basic(tuple(key), shape)


def expected(array: Array, selection: Selection) -> Array:
    """The box of a selection, as NumPy gives it."""
    index = [np.array(a.items) if hasattr(a, "items") else np.arange(a.start, a.stop, a.step) for a in selection.axes]
    box: Array = array[np.ix_(*index)] if index else array[()]
    return np.asarray(box).reshape(selection.shape)


def as_array(content: Array | bytes) -> Array:
    return np.frombuffer(content, np.uint8) if isinstance(content, bytes) else np.asarray(content)


def assert_same(got: Array, want: Array) -> None:
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.dtype.hasobject or got.tobytes() == want.tobytes()
    assert not got.dtype.hasobject or got.tolist() == want.tolist()


def source_content() -> dict[str, Array | bytes]:
    return {**sample_arrays(), "notes/readme.md": b"# Notes\n" * 100_000}
