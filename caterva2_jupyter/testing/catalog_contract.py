"""What every ``Source`` has to do about what is there: its catalog, in pages and since a cursor, and entries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ..core.catalog import CatalogQuery, Cursor
from ..core.source import Source
from ..core.wire import ReadRequest
from ..errors import (
    DatasetNotFoundError,
    ResyncError,
)
from .arrays import source_content
from .origin import Origin, changed_page, eventually
from .source_case import SourceCase

__all__ = ["CatalogContract"]


class CatalogContract(SourceCase):
    """``catalog`` and ``entry``."""

    def test_the_catalog_lists_all_in_order(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            page = await source.catalog(CatalogQuery())
            paths = [entry.path for entry in page.entries()]
            assert paths == sorted({*source_content(), "grid", "grid/deep", "notes"})
            assert page.next is None
            assert page.deleted == ()

        self.run(scenario, tmp_path)

    def test_pages_follow_one_another(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            paths: list[str] = []
            query: CatalogQuery | None = CatalogQuery(limit=3)
            while query is not None:
                page = await source.catalog(query)
                assert len(page.items) <= 3
                paths += [entry.path for entry in page.entries()]
                query = CatalogQuery(limit=3, after=page.next) if page.next is not None else None
            assert paths == [entry.path for entry in (await source.catalog(CatalogQuery())).entries()]

        self.run(scenario, tmp_path)

    def test_a_group_lists_what_is_below_it(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            async def listed(query: CatalogQuery) -> list[str]:
                return [entry.path for entry in (await source.catalog(query)).entries()]

            deep = ["grid/deep", "grid/deep/half.b2nd", "grid/deep/noise.b2nd"]
            flat = ["grid/big-endian.b2nd", "grid/complex.b2nd"]
            assert await listed(CatalogQuery(under="grid")) == flat + deep
            assert await listed(CatalogQuery(under="grid", depth=1)) == [*flat, "grid/deep"]
            assert await listed(CatalogQuery(under="grid", q="dtype:float16")) == ["grid/deep/half.b2nd"]
            assert "grid/deep" not in await listed(CatalogQuery(depth=1))

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("path", ["nothing", "gri", "line.b2nd"])
    def test_what_is_no_group_lists_nothing(self, tmp_path: Path, path: str) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(DatasetNotFoundError, match=path):
                await source.catalog(CatalogQuery(under=path))

        self.run(scenario, tmp_path)

    def test_changes_since_a_cursor_are_listed(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            before = (await source.catalog(CatalogQuery())).cursor
            await origin.put("line.b2nd", np.arange(3))
            await origin.put("fresh/new.b2nd", np.arange(4))
            await origin.delete("bool.b2nd")
            page = await changed_page(source, before, count=4)
            assert [entry.path for entry in page.entries()] == ["fresh", "fresh/new.b2nd", "line.b2nd"]
            assert page.deleted == ("bool.b2nd",)
            after = await source.catalog(CatalogQuery(since=page.cursor))
            assert (after.items, after.deleted) == ((), ())

        self.run(scenario, tmp_path)

    def test_a_cursor_of_another_epoch_needs_a_resync(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(ResyncError):
                await source.catalog(CatalogQuery(since=Cursor("another", 1)))

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("path", ["grid/complex.b2nd", "grid/complex", "notes/readme.md", "grid"])
    def test_an_entry_is_found_with_and_without_its_suffix(self, tmp_path: Path, path: str) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry(path)
            assert entry.path in (path, f"{path}.b2nd")
            assert entry == await origin.source.entry(path)

        self.run(scenario, tmp_path)

    def test_the_root_itself_is_a_group(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            entry = await source.entry("")
            assert (entry.path, entry.kind) == ("", "group")

        self.run(scenario, tmp_path)

    def test_an_entry_has_attributes_of_any_size(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            await origin.put("line.b2nd", np.arange(3), attrs={"history": "x" * 100_000})
            entry = await eventually(lambda: source.entry("line"), lambda e: e.geometry.shape == (3,))
            assert entry.attrs == {"history": "x" * 100_000}

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("path", ["nothing.b2nd", "line.b2nd/more", "LINE.b2nd", "grid/deep/half.b2nd.b2nd"])
    def test_what_is_not_there_is_not_found(self, tmp_path: Path, path: str) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(DatasetNotFoundError, match="no dataset"):
                await source.entry(path)
            with pytest.raises(DatasetNotFoundError, match="no dataset"):
                await source.read_blocks(ReadRequest(source.root, path))
            with pytest.raises(DatasetNotFoundError, match="no dataset"):
                await source.read_file(path, 0, None)

        self.run(scenario, tmp_path)
