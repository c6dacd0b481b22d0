"""Datasets opened from a service, compared with what h5netcdf opens of the same file."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from packaging.version import Version

XARRAY_TELLS_LESS = Version(xr.__version__) < Version("2026.9")
"""Of ``encoding``: keys of filters that it does not write itself."""


def _plain(value: Any) -> Any:
    """A value that can be compared: its type, its dtype, its bytes."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        bytes_ = repr(value.tolist()) if value.dtype.hasobject else value.tobytes()
        return type(value), value.dtype.str, np.shape(value), bytes_
    if isinstance(value, np.dtype):
        return value, value.str, dict(value.metadata or {})
    if isinstance(value, (list, tuple)):
        return type(value), [_plain(item) for item in value]
    return type(value), repr(value)


def assert_same_values(got: xr.Variable, want: xr.Variable, name: Any) -> None:
    """Equal in dtype, byte order and every bit."""
    ours, theirs = np.asarray(got.values), np.asarray(want.values)
    assert ours.shape == theirs.shape, name
    assert ours.dtype == theirs.dtype, name
    assert ours.dtype.str == theirs.dtype.str, name
    if ours.dtype.hasobject:
        assert [_plain(v) for v in ours.ravel()] == [_plain(v) for v in theirs.ravel()], name
    elif ours.dtype.names:
        for field in ours.dtype.names:
            assert np.ascontiguousarray(ours[field]).tobytes() == np.ascontiguousarray(theirs[field]).tobytes(), name
    else:
        assert ours.tobytes() == theirs.tobytes(), name


def assert_same_dataset(got: xr.Dataset, want: xr.Dataset) -> None:
    """Identical, and equal in what ``assert_identical`` does not see."""
    assert set(got.variables) == set(want.variables)
    assert got.sizes == want.sizes
    for name in want.variables:
        ours, theirs = got[name].variable, want[name].variable
        assert ours.dims == theirs.dims, name
        assert ours.dtype == theirs.dtype, name
        one, other = dict(ours.encoding), dict(theirs.encoding)
        one.pop("source", None)
        other.pop("source", None)
        if XARRAY_TELLS_LESS:
            one = {key: one[key] for key in one.keys() & other.keys()}
        assert _plain(one) == _plain(other), name
        assert _plain(dict(ours.attrs)) == _plain(dict(theirs.attrs)), name
        assert_same_values(ours, theirs, name)
    assert _plain(dict(got.attrs)) == _plain(dict(want.attrs))
    one, other = dict(got.encoding), dict(want.encoding)
    assert one.pop("source", ""), "it has no source"
    other.pop("source", None)
    assert one == other
    assert set(got.coords) == set(want.coords)
    assert {k: type(v) for k, v in got.xindexes.items()} == {k: type(v) for k, v in want.xindexes.items()}
    xr.testing.assert_identical(got, want)


def assert_same_tree(got: dict[str, xr.Dataset], want: dict[str, xr.Dataset]) -> None:
    """The same groups, each with the same dataset."""
    assert list(got) == list(want)
    for path in want:
        assert_same_dataset(got[path], want[path])
