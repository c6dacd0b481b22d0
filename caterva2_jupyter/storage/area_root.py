"""An area's directory as a root: as any directory, but that ``NAME.b2`` is shown as the plain file that is in it.

The layout is that of the older system, whose directories are served as they are: plain files are kept compressed,
as Blosc2 frames of bytes named ``NAME.b2``; one that was put there by hand, not compressed, is shown as well.
Writing is in ``area``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..compute.stored_expression import EXPRESSION_KEY, MAX_STORED_NBYTES, StoredExpression
from ..core.assembly import Assembler
from ..core.chunk_grid import BlockPlan
from ..core.codec import DecodeChunk, decode_chunk_bytes
from ..core.metadata import Entry
from ..core.paths import name as last_name
from ..core.selection import AxisRange, Selection
from ..errors import IntegrityError, InvalidPathError, RequestError, UnsupportedDatasetError
from .blosc2_file import open_frame, settled_generation
from .directory_entries import EntryDescriber, Place, StampedEntry
from .directory_root import DirectoryRoot
from .generation import Generation
from .plain_file import PART_NBYTES
from .published_expression import is_published_expression, published_expression
from .root import StoredFile
from .safe_open import open_file, read_at
from .stored_tree import StoredTreeFactory

__all__ = ["INCOMING", "PACKED_SUFFIX", "AreaRoot", "is_packed"]

PACKED_SUFFIX = ".b2"
ARRAY_SUFFIX = ".b2nd"
INCOMING = ".caterva2-incoming"
"""Directory, in an area's own, of what is not complete yet."""
_UNPACKED_NBYTES = 4 << 20


def is_packed(entry: Entry) -> bool:
    """Is it a file that is stored compressed, as ``NAME.b2``?"""
    return bool(entry.storage.get("packed"))


class AreaDescriber(EntryDescriber):
    """What a file of an area is: as in any directory, but for packed files and expressions."""

    def describe(self, place: Place) -> list[StampedEntry]:
        if place.path.endswith(ARRAY_SUFFIX):
            return self._describe_array(place)
        return self._describe_packed(place) if place.path + PACKED_SUFFIX == place.real else super().describe(place)

    def _describe_array(self, place: Place) -> list[StampedEntry]:
        """An array's file, which may hold an expression: what it comes to is not known here."""
        with open_file(self._directory, place.real) as file:
            generation = settled_generation(file.fd)
            nbytes = min(file.status.st_size, MAX_STORED_NBYTES + 1)
            head = read_at(file.fd, min(nbytes, 64), 0)
            data = read_at(file.fd, nbytes, 0) if StoredExpression.is_stored(head) else b""
        try:
            if data:
                stored = StoredExpression.from_bytes(data)
            else:
                with open_frame(self._directory, place.real) as frame:
                    header, vlmeta = frame.read_metadata()
                    generation = frame.generation
                if not is_published_expression(header):
                    return self.describe_frame(place)
                stored = published_expression(header, vlmeta, self._directory, self._decode)
        except UnsupportedDatasetError as error:
            return [(self.unsupported(place, str(error), generation), generation.stamp)]
        except (IntegrityError, RequestError, InvalidPathError) as error:
            if not data and not isinstance(error, (RequestError, InvalidPathError)):
                return self.describe_frame(place)
            entry = self.unsupported(place, f"an expression that cannot be used: {error}", generation)
            return [(entry, generation.stamp)]
        entry = self.stored(place, "array", generation, geometry=stored.geometry)
        storage = {EXPRESSION_KEY: stored.to_json()}
        return [(replace(entry, cbytes=0, media_type="", storage=storage), generation.stamp)]

    def _describe_packed(self, place: Place) -> list[StampedEntry]:
        ((entry, stamp),) = self.describe_frame(place)
        media_type, encoding = self._types.guess_type(place.path)
        entry = replace(
            entry,
            media_type="" if encoding or media_type is None else media_type,
            storage={**entry.storage, "packed": True},
        )
        return [(entry, stamp)]

    def unsupported(self, place: Place, reason: str, generation: Generation | None = None) -> Entry:
        entry = super().unsupported(place, reason, generation)
        if place.path + PACKED_SUFFIX == place.real:
            return replace(entry, storage={"packed": True})
        return entry


class AreaRoot(DirectoryRoot):
    """The root that an area's directory is.

    Parameters
    ----------
    path : Path
    owner_id : str
        Ids of datasets are made with it.
    hdf5 : callable or None
        Makes the ``StoredTree`` of an HDF5 file.
    decode : DecodeChunk
        For indexes and metalayers of uploaded files: elsewhere than in a service's own process.
    """

    # Whatever is uploaded is shown, whatever its name; what is not complete is elsewhere.
    _temporary = re.compile(r"\.caterva2.*|\.nfs[0-9a-f]+|\.fuse_hidden.*", re.DOTALL)

    _describer_class = AreaDescriber
    _decodes = False

    def __init__(
        self,
        path: Path,
        owner_id: str,
        hdf5: StoredTreeFactory | None = None,
        decode: DecodeChunk = decode_chunk_bytes,
    ) -> None:
        # Files appear complete, by being renamed: one that cannot be opened will not be any better later.
        super().__init__(path, owner_id, hdf5, patience_s=0.0, decode=decode)

    def _unit_names(self, unit: str) -> tuple[str, str]:
        if not unit:
            return unit, unit
        name = unit[: -len(PACKED_SUFFIX)] if _is_packed_name(unit) else unit
        if name != unit and os.path.isdir(self.watched / unit):
            return super()._unit_names(unit)
        real = _stored_name(self.watched / name)
        # When there is neither, both are gone.
        return (name if real is None else f"{name}{PACKED_SUFFIX}" if real else name), super()._unit_names(name)[1]

    def _shown(self, items: list[tuple[str, os.stat_result, str]]) -> list[tuple[str, os.stat_result, str]]:
        times = {name: status.st_ctime_ns for name, status, _ in items}

        def is_shadowed(name: str, status: os.stat_result) -> bool:
            if _is_packed_name(name) and stat.S_ISREG(status.st_mode):
                other = times.get(name[: -len(PACKED_SUFFIX)])
                return other is not None and other > status.st_ctime_ns
            other = times.get(name + PACKED_SUFFIX)
            return other is not None and other >= status.st_ctime_ns and stat.S_ISREG(status.st_mode)

        return [item for item in items if not is_shadowed(item[0], item[1])]

    def _listed(self, place: Place, status: os.stat_result) -> Place:
        if stat.S_ISREG(status.st_mode) and _is_packed_name(place.real) and place.path.endswith(PACKED_SUFFIX):
            return replace(place, path=place.path[: -len(PACKED_SUFFIX)])
        return place

    def _stored_at(self, entry: Entry) -> str:
        return entry.path + PACKED_SUFFIX if is_packed(entry) else entry.path

    def read_file(self, entry: Entry, start: int, stop: int | None) -> StoredFile:
        """The bytes of a file: of a packed one, those in it."""
        if not is_packed(entry) or entry.geometry is None:
            return super().read_file(entry, start, stop)
        with self._files.stored_bytes(entry) as (_, generation):
            nbytes = entry.geometry.nbytes
        stop = nbytes if stop is None else min(stop, nbytes)
        return StoredFile(nbytes, entry.version, generation.mtime_ns, self._unpacked(entry, max(start, 0), stop))

    def read_packed(self, entry: Entry, start: int, stop: int | None) -> StoredFile:
        """The bytes of the stored file itself, compressed as it is."""
        return super().read_file(entry, start, stop)

    def _unpacked(self, entry: Entry, start: int, stop: int) -> Iterator[bytes]:
        geometry = entry.geometry
        if geometry is None or geometry.ndim != 1:
            raise UnsupportedDatasetError(f"{entry.path!r} is not a file of bytes")
        itemsize = geometry.itemsize
        while start < stop:
            end = min(stop, start + _UNPACKED_NBYTES)
            first, last = start // itemsize, -(-end // itemsize)
            selection = Selection((AxisRange(first, last),))
            assembler = Assembler(geometry, selection)
            with self.reading(entry) as read_chunk:
                for projection in BlockPlan(geometry, selection):
                    for record in read_chunk(projection, projection.blocks.tolist()):
                        assembler.add(projection, record)
                        if record.is_whole:
                            break
            raw = memoryview(assembler.out.tobytes())[start - first * itemsize : end - first * itemsize]
            for position in range(0, len(raw), PART_NBYTES):
                yield bytes(raw[position : position + PART_NBYTES])
            start = end


def _is_packed_name(path: str) -> bool:
    """May it be a packed file of the name without the suffix? (Not of what stands for a directory.)"""
    return path.endswith(PACKED_SUFFIX) and last_name(path)[: -len(PACKED_SUFFIX)] not in ("", ".", "..")


def _stored_name(path: Path) -> bool | None:
    """Is the file shown at a path packed? None when nothing is there."""
    try:
        plain = os.lstat(path)
    except OSError:
        plain = None
    try:
        packed = os.lstat(f"{path}{PACKED_SUFFIX}")
    except OSError:
        packed = None
    if packed is not None and not stat.S_ISREG(packed.st_mode):
        packed = None
    if plain is None:
        return None if packed is None else True
    if packed is None or not stat.S_ISREG(plain.st_mode):
        return False
    return packed.st_ctime_ns >= plain.st_ctime_ns
