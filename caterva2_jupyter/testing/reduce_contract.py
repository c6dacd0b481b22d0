"""What every ``Source`` has to do about reductions: what NumPy gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ..core.reduce_request import Operation, ReduceRequest
from ..core.source import Source
from ..errors import (
    DatasetChangedError,
    DatasetNotFoundError,
    RequestError,
    UnsupportedDatasetError,
)
from ..storage.closing import close_stream
from .arrays import as_array, assert_same, source_content
from .origin import Origin, eventually
from .reading import reduce_array
from .source_case import SourceCase

__all__ = ["ReduceContract"]


class ReduceContract(SourceCase):
    """``reduce``."""

    def test_reductions_are_what_numpy_gives(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            runs = np.arange(35_000).reshape(500, 70)
            large = np.arange(2_000_000, dtype="<f4").reshape(2000, 1000) / 7
            await origin.put("runs.b2nd", runs, chunks=(130, 70), blocks=(1000,), layout="flat")
            await origin.put("one-chunk.b2nd", large)
            await eventually(lambda: source.entry("one-chunk"), lambda entry: entry.has_data)
            content = {**source_content(), "runs.b2nd": runs, "one-chunk.b2nd": large}
            names: list[Operation] = ["sum", "mean", "min", "max", "std", "any"]
            for path, stored in content.items():
                array = as_array(stored)
                if array.dtype.kind not in "iufcb" or not array.size:
                    continue
                for op in names:
                    want = np.asarray(getattr(array.astype("f8") if array.dtype == "f2" else array, op)())
                    got = await reduce_array(source, path, op)
                    np.testing.assert_allclose(got, want, rtol=1e-3 if array.dtype.itemsize < 8 else 1e-9)
                for axis in range(array.ndim):
                    got = await reduce_array(source, path, "max", axis=(axis,))
                    assert_same(got, np.asarray(array.max(axis)))
            noise = content["grid/deep/noise.b2nd"]
            assert isinstance(noise, np.ndarray)
            part = [[3, 40, 5], {"at": [1, 17, 52]}, [0, 29, 1]]
            got = await reduce_array(source, "grid/deep/noise", "sum", axis=(0,), selection=part, keepdims=True)
            assert_same(got, noise[3:40:5, [1, 17, 52]].sum(0, keepdims=True))
            got = await reduce_array(source, "grid/deep/noise", "stride", steps=(10, 7, 29))
            assert_same(got, noise[::10, ::7, ::29])
            got = await reduce_array(source, "line", "minmax", steps=(30_000,))
            assert got.tolist() == [[0, 29_999], [30_000, 59_999], [60_000, 89_999], [90_000, 99_999]]

        self.run(scenario, tmp_path)

    def test_a_reduction_that_cannot_be_is_refused(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            for how in ({"axis": (1,)}, {"steps": (1, 1)}, {"selection": [[0, 10**9, 1]]}, {"dtype": "no"}):
                with pytest.raises(RequestError):
                    await reduce_array(source, "line", "sum", **how)
            for path in ("table", "text"):
                with pytest.raises(UnsupportedDatasetError):
                    await reduce_array(source, path, "sum")
            with pytest.raises(RequestError, match="no identity"):
                await reduce_array(source, "empty", "min")
            with pytest.raises(DatasetChangedError):
                await source.reduce(ReduceRequest(source.root, "line", "sum", version="0" * 24))
            with pytest.raises(DatasetNotFoundError):
                await source.reduce(ReduceRequest(source.root, "nothing", "sum"))

        self.run(scenario, tmp_path)

    def test_a_reduction_can_be_given_up(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry("grid/deep/noise")
            for _ in range(3):
                stream = await source.reduce(ReduceRequest(source.root, entry.path, "std", version=entry.version))
                await close_stream(stream.records)
            assert (await reduce_array(source, "line", "sum")).item() == 4_999_950_000

        self.run(scenario, tmp_path)
