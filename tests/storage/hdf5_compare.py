"""What a root gives of an HDF5 file, compared with what h5py reads."""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from caterva2_jupyter.core.assembly import Assembler
from caterva2_jupyter.core.blocks import checksum_seed
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.metadata import Entry
from caterva2_jupyter.core.selection import Selection, parse_basic
from caterva2_jupyter.storage.root import KnownEntry, Root

Array = npt.NDArray[Any]


def listed(root: Root) -> dict[str, Entry]:
    """Entries by path, each one through its JSON."""
    found = {}
    for entry, _ in root.scan([]):
        assert Entry.from_json(json.loads(json.dumps(entry.to_json()))) == entry
        assert entry.path not in found
        found[entry.path] = entry
    return found


def known(root: Root) -> list[KnownEntry]:
    return [KnownEntry(entry, stamp) for entry, stamp in root.scan([])]


def read(root: Root, entry: Entry, key: Any = ...) -> Array:
    """What NumPy's basic indexing gives, of verified records."""
    assert entry.geometry is not None
    parsed = parse_basic(key, entry.geometry.shape)
    assembler = Assembler(entry.geometry, parsed.selection)
    for projection in BlockPlan(entry.geometry, parsed.selection):
        came: set[int] = set()
        for record in root.read_chunk(entry, projection, projection.blocks.tolist()):
            record.verify(checksum_seed(entry.id, entry.version))
            assembler.add(projection, record)
            everything = range(entry.geometry.chunk_nblocks(projection.nchunk))
            came |= set(everything) if record.is_whole else set(record.ids.tolist())
        assert came >= set(projection.blocks.tolist())
    return np.asarray(parsed.apply(assembler.out))


def as_text(items: Any) -> list[str]:
    return [v if isinstance(v, str) else v.decode("utf-8", "surrogateescape") for v in np.ravel(items)]


def assert_same(got: Array, want: Any) -> None:
    """Equal in shape, dtype, byte order and every bit (padding of structures excepted)."""
    want = np.asarray(want)
    assert got.shape == want.shape
    if want.dtype == object:
        assert as_text(got) == as_text(want)
        return
    assert got.dtype.str == want.dtype.str
    assert got.dtype == want.dtype
    if got.dtype.names:
        for name in got.dtype.names:
            assert_same(got[name], want[name])
    else:
        assert got.tobytes() == want.tobytes()


def assert_equal_to_h5py(root: Root, file: h5py.File) -> dict[str, Entry]:
    """Every dataset of the file is listed, and equal or unsupported with a reason."""
    entries = listed(root)
    seen = set()

    def visit(name: str, item: Any) -> None:
        path = name if isinstance(item, h5py.Group) else f"{name}.b2nd"
        if isinstance(item, h5py.Datatype):
            path = name
        assert path in entries, f"{path} is not listed"
        seen.add(path)
        if isinstance(item, h5py.Dataset):
            entry = entries[path]
            if entry.kind == "unsupported":
                assert entry.reason
            else:
                assert_same(read(root, entry), item[...])

    file.visititems(visit)
    for path, entry in entries.items():
        if entry.kind in ("link", "unsupported"):
            assert entry.reason, path
        elif entry.kind == "array" and path not in seen:
            assert_same(read(root, entry), file[entry.storage["hdf5"]][...])
    return entries


def whole(entry: Entry) -> Selection:
    assert entry.geometry is not None
    return Selection.whole(entry.geometry.shape)
