"""Zarr v3 copies of the Blosc2 arrays, chunk for chunk, with the same compression. Run by the peers' Python."""

import sys
from pathlib import Path

import blosc2
import zarr
from zarr.codecs import BloscCodec


def copy(source, group, name, sharded):
    values = blosc2.open(str(source))
    typesize = values.dtype.itemsize
    codec = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=typesize)
    partition = {"chunks": values.blocks, "shards": values.chunks} if sharded else {"chunks": values.chunks}
    if sharded and any(c % b for c, b in zip(values.chunks, values.blocks, strict=True)):
        partition["chunks"] = tuple(c if c % b else b for c, b in zip(values.chunks, values.blocks, strict=True))
        if partition["chunks"][0] == values.chunks[0]:  # rows that do not divide: one inner chunk of the next divisor
            rows = next(n for n in range(values.blocks[0], 0, -1) if values.chunks[0] % n == 0)
            partition["chunks"] = (rows, *values.blocks[1:])
    out = group.create_array(
        name, shape=values.shape, dtype=values.dtype, compressors=[codec], filters=None, **partition
    )
    step = values.chunks[0]
    for start in range(0, values.shape[0], step):
        out[start : start + step] = values[start : start + step]


def copy_small(root, group):
    for path in sorted((root / "small").rglob("*.b2nd")):
        values = blosc2.open(str(path))
        name = path.relative_to(root).with_suffix("").as_posix()
        out = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=values.chunks)
        out.attrs.update({"units": "m", "number": int(path.stem[1:])})
        out[...] = values[...]


def main():
    root, goal = Path(sys.argv[1]), Path(sys.argv[2])
    for sharded in (False, True):
        group = zarr.open_group(str(goal / ("sharded.zarr" if sharded else "chunked.zarr")), mode="w")
        for name in ("field", "small_chunks", "table"):
            if not (sharded and name == "small_chunks"):
                copy(root / f"{name}.b2nd", group, name, sharded)
        zarr.consolidate_metadata(group.store)
    group = zarr.open_group(str(goal / "small.zarr"), mode="w")
    copy_small(root, group)
    zarr.consolidate_metadata(group.store)


if __name__ == "__main__":
    main()
