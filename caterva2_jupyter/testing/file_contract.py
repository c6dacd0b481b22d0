"""What every ``Source`` has to do about stored bytes of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..core.source import Source
from ..errors import (
    UnsupportedDatasetError,
)
from .arrays import source_content
from .origin import Origin
from .source_case import SourceCase

__all__ = ["FileContract"]


class FileContract(SourceCase):
    """``read_file``."""

    def test_stored_bytes_are_streamed(self, tmp_path: Path) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            stored = source_content()["notes/readme.md"]
            assert isinstance(stored, bytes)
            version = (await source.entry("notes/readme.md")).version
            for start, stop in [(0, None), (3, 600_000), (len(stored) - 1, None)]:
                stream = await source.read_file("notes/readme.md", start, stop)
                assert (stream.nbytes, stream.version) == (len(stored), version)
                assert b"".join([part async for part in stream.parts]) == stored[start:stop]

        self.run(scenario, tmp_path)

    @pytest.mark.parametrize("path", ["line.b2nd", "grid"])
    def test_what_is_no_file_has_no_stored_bytes(self, tmp_path: Path, path: str) -> None:
        async def scenario(source: Source, origin: Origin) -> None:
            with pytest.raises(UnsupportedDatasetError, match=path):
                await source.read_file(path, 0, None)

        self.run(scenario, tmp_path)
