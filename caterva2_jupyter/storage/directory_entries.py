"""What a file or a directory is: the entries that a directory root lists it as, with stamps of its state.

Frames, HDF5 files, others, and what cannot be served, with the reason. A file that changes while it is looked at, or
looks cut short, is an error to whoever asks: when to look again is ``directory_root``'s to decide.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from mimetypes import MimeTypes
from pathlib import Path
from typing import Any

from ..core.attributes import INLINE_ATTRS_NBYTES, attrs_tag
from ..core.codec import DecodeChunk
from ..core.group_file import GROUP_FILE, MAX_GROUP_FILE_NBYTES, parse_group_file
from ..core.metadata import HDF5_MEDIA_TYPE, Entry, EntryKind, dataset_id
from ..core.paths import join, name
from ..errors import DatasetChangedError, DatasetNotFoundError, IntegrityError, UnsupportedDatasetError
from .blosc2_file import FrameFile, FrameIndex, open_frame, settled_generation
from .frame_attributes import frame_attrs, frame_dims
from .generation import Generation, version_tag
from .hdf5_signature import HDF5_SUFFIXES, is_hdf5
from .plain_file import plain_geometry
from .safe_open import OpenedPath, open_file, read_at
from .stored_tree import StoredTrees

__all__ = ["FRAME_SUFFIXES", "EntryDescriber", "Place", "StampedEntry"]

FRAME_SUFFIXES = (".b2nd", ".b2frame", ".b2f")
_CONTAINERS = {
    ".b2z": "a store of several datasets in one file, which is not served as such yet",
    ".b2e": "a store of several datasets in one frame, which is not served as such yet",
}
_MAX_USERBLOCK_NBYTES = 1 << 20

StampedEntry = tuple[Entry, str]


@dataclass(frozen=True, slots=True)
class Place:
    """A path as it is listed, where that really is, and how many links led there."""

    path: str
    real: str
    nlinks: int = 0


class EntryDescriber:
    """Looks into the files of a directory root.

    Parameters
    ----------
    directory : Path
        The root's.
    owner_id : str
        Of the publisher; ids of datasets are made with it.
    trees : StoredTrees
    patience_s : float
        How long after its last change a file that cannot be opened counts as still being written.
    decode : DecodeChunk
    """

    def __init__(
        self, directory: Path, owner_id: str, trees: StoredTrees, patience_s: float, decode: DecodeChunk
    ) -> None:
        self._decode = decode
        self._directory, self._owner_id, self._trees = directory, owner_id, trees
        self._patience_ns = int(patience_s * 1e9)
        self._types = MimeTypes()
        self._types.add_type("text/markdown", ".md")

    def describe(self, place: Place) -> list[StampedEntry]:
        """The entries of a file: its own first, then those in it.

        Raises
        ------
        DatasetChangedError, IntegrityError
            When it changes while it is looked at, or is damaged, or not complete yet.
        DatasetNotFoundError, AccessDeniedError, OSError
        """
        return self.describe_frame(place) if suffix_of(place.path) in FRAME_SUFFIXES else self._describe_other(place)

    def may_be_unfinished(self, generation: Generation) -> bool:
        """Was it written to so lately that it may not be complete yet?"""
        return time.time_ns() - generation.ctime_ns < self._patience_ns

    def is_ours(self, entry: Entry, place: Place) -> bool:
        """Is that the id which the file at a place has?"""
        return entry.id == dataset_id(self._owner_id, place.real)

    def group(self, path: str, real: str) -> Entry:
        """The entry of a directory, with the attributes that the file in it gives."""
        attrs, storage = self.group_attrs(real)
        tag = attrs_tag(attrs) if attrs else ""
        inline = _are_inline(attrs)
        return Entry(path, "group", attrs=attrs if inline else {}, attrs_tag=tag, attrs_inline=inline, storage=storage)

    def group_attrs(self, real: str) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            with open_file(self._directory, join(real, GROUP_FILE)) as file:
                if file.status.st_size > MAX_GROUP_FILE_NBYTES:
                    return {}, {"attrs_skipped": {GROUP_FILE: f"over {MAX_GROUP_FILE_NBYTES} bytes"}}
                return parse_group_file(read_at(file.fd, file.status.st_size, 0))
        except DatasetNotFoundError:
            return {}, {}
        except OSError as error:
            return {}, {"attrs_skipped": {GROUP_FILE: error.strerror or type(error).__name__}}

    def describe_frame(self, place: Place) -> list[StampedEntry]:
        with open_frame(self._directory, place.real) as frame:
            try:
                index = frame.read_index(self._decode)
            except UnsupportedDatasetError as error:
                stamp = frame.stamp()[0]
                entry = self.unsupported(place, str(error), frame.generation)
            except IntegrityError:
                if not frame.is_unchanged():
                    raise DatasetChangedError(f"{place.path!r} changed while it was read") from None
                raise
            else:
                stamp, entry = index.stamp, self._frame_entry(place, frame, index)
            if not frame.is_unchanged():
                raise DatasetChangedError(f"{place.path!r} changed while it was read")
            return [(entry, stamp)]

    def _frame_entry(self, place: Place, frame: FrameFile, index: FrameIndex) -> Entry:
        header, geometry = index.header, index.geometry
        attrs, skipped = frame_attrs(index, self._decode)
        tag = attrs_tag(attrs) if attrs else ""
        inline = _are_inline(attrs)
        storage = {"format": "b2nd" if index.is_array else "b2frame", **header.storage()}
        if skipped:
            storage["attrs_skipped"] = skipped
        if layers := [name for name in header.metalayers if name not in ("b2nd", "caterva")]:
            storage["metalayers"] = layers
        return Entry(
            path=place.path,
            kind="array" if index.is_array else "file",
            id=dataset_id(self._owner_id, place.real),
            version=index.version,
            geometry=geometry,
            attrs=attrs if inline else {},
            attrs_tag=tag,
            attrs_inline=inline,
            dims=frame_dims(index, attrs),
            cbytes=header.cbytes,
            mtime_ns=frame.generation.mtime_ns,
            media_type="" if index.is_array else "application/octet-stream",
            storage=storage,
        )

    def _describe_other(self, place: Place) -> list[StampedEntry]:
        note = ""
        with open_file(self._directory, place.real) as file:
            generation = settled_generation(file.fd)
            is_hdf5 = self._trees.are_opened and _is_hdf5(file, place.path)
        if is_hdf5:
            try:
                return self._describe_tree(place, generation)
            except (IntegrityError, UnsupportedDatasetError) as error:
                if isinstance(error, IntegrityError) and self.may_be_unfinished(generation):
                    raise
                note = f"an HDF5 file that cannot be opened: {error}"
        if reason := _CONTAINERS.get(suffix_of(place.path)):
            return [(self.unsupported(place, reason, generation), generation.stamp)]
        entry = self.stored(place, "file", generation, geometry=plain_geometry(generation.nbytes))
        if note:
            entry = replace(entry, storage={"note": note})
        return [(entry, generation.stamp)]

    def stored(self, place: Place, kind: EntryKind, generation: Generation, **fields: Any) -> Entry:
        """An entry of a file as it is stored."""
        media_type, encoding = self._types.guess_type(place.path)
        return Entry(
            path=place.path,
            kind=kind,
            id=dataset_id(self._owner_id, place.real),
            version=version_tag(generation, fields.get("geometry")),
            cbytes=generation.nbytes,
            mtime_ns=generation.mtime_ns,
            media_type="" if encoding or media_type is None else media_type,
            **fields,
        )

    def unsupported(self, place: Place, reason: str, generation: Generation | None = None) -> Entry:
        if generation is None:
            return Entry(place.path, "unsupported", reason=reason)
        return self.stored(place, "unsupported", generation, reason=reason)

    # HDF5 files

    def _describe_tree(self, place: Place, generation: Generation) -> list[StampedEntry]:
        group = replace(self.stored(place, "group", generation), media_type=HDF5_MEDIA_TYPE)
        group_stamp = generation.stamp
        found: list[StampedEntry] = []
        for entry, stamp in self._trees.open(place.real).stamped_entries():
            if entry.path:
                found.append((replace(entry, path=join(place.path, entry.path)), stamp))
                continue
            group_stamp = stamp
            group = replace(
                group,
                attrs=entry.attrs,
                attrs_tag=entry.attrs_tag,
                attrs_inline=entry.attrs_inline,
                storage=entry.storage,
            )
        with open_file(self._directory, place.real) as file:
            # A file that is being appended to is never still; what is listed of it was finished before.
            if Generation.of(file.fd) != generation and not group.storage.get("live"):
                raise DatasetChangedError(f"{place.path!r} changed while it was read")
        return [(group, group_stamp), *found]


def _are_inline(attrs: Mapping[str, Any]) -> bool:
    return sum(len(str(v)) + len(k) for k, v in attrs.items()) <= INLINE_ATTRS_NBYTES


def suffix_of(path: str) -> str:
    return os.path.splitext(name(path))[1].lower()


def _is_hdf5(file: OpenedPath, path: str) -> bool:
    """Has it HDF5's signature (after a user block only where the name says that it is HDF5)?"""
    return is_hdf5(file.fd, _MAX_USERBLOCK_NBYTES if suffix_of(path) in HDF5_SUFFIXES else 0)
