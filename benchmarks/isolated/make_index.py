"""Where every block of the Blosc2 files is, for ``read_blocks.py``: ``make_index.py ROOT GOAL NAME...``."""

import json
import os
import struct
import sys
from pathlib import Path

import numpy as np

from caterva2_jupyter.core.blocks import HEADER_NBYTES, index_nbytes, parse_layout
from caterva2_jupyter.storage.blosc2_file import open_frame


def main():
    root, goal = Path(sys.argv[1]), Path(sys.argv[2])
    goal.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[3:]:
        path = root / f"{name}.b2nd"
        fd = os.open(path, os.O_RDONLY)
        with open_frame(root, path.name) as frame:
            index = frame.read_index()
        geometry = index.geometry
        count = geometry.chunk_nblocks(0)
        offsets = np.zeros((geometry.nchunks, count), np.int64)
        sizes, heads = np.zeros_like(offsets), np.zeros((geometry.nchunks, HEADER_NBYTES), np.uint8)
        for nchunk, offset in enumerate(index.offsets.tolist()):
            start = index.header.header_nbytes + offset
            header = os.pread(fd, HEADER_NBYTES, start)
            (cbytes,) = struct.unpack_from("<i", header, 12)
            layout = parse_layout(os.pread(fd, index_nbytes(header), start), cbytes)
            heads[nchunk] = np.frombuffer(layout.head, np.uint8)
            offsets[nchunk], sizes[nchunk] = start + layout.offsets, layout.sizes
        os.close(fd)
        np.savez(
            goal / f"{name}.npz", offsets=offsets, sizes=sizes, heads=heads, geometry=json.dumps(geometry.to_json())
        )


if __name__ == "__main__":
    main()
