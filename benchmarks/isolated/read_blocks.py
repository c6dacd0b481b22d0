"""The limit: exactly the blocks that a slice touches, as byte ranges of the file on a static server.

``read_blocks.py URL INDEX``. The index (made beforehand, by ``make_index.py``) has where every block is, so that
opening costs nothing; ranges that adjoin are one request, over eight connections that stay open, and are decoded by
this project's own assembler while others arrive.
"""

import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from urllib.parse import urlsplit

import numpy as np
from loop import serve

from caterva2_jupyter.core.assembly import Assembler
from caterva2_jupyter.core.blocks import BlockRecord
from caterva2_jupyter.core.chunk_grid import BlockPlan
from caterva2_jupyter.core.metadata import Geometry
from caterva2_jupyter.core.selection import parse_basic

CONNECTIONS = 8
WINDOW_NBYTES = 1 << 20


class Blocks:
    """An array read by ranges."""

    def __init__(self, url, index):
        self.url = urlsplit(url)
        self.geometry = Geometry.from_json(json.loads(str(index["geometry"])))
        self.offsets, self.sizes, self.head = index["offsets"], index["sizes"], index["heads"]
        self.threads = local()
        self.pool = ThreadPoolExecutor(CONNECTIONS)

    def fetch(self, ranges):
        """The bytes of some ranges of the file, one request each."""
        connection = getattr(self.threads, "connection", None)
        if connection is None:
            connection = self.threads.connection = http.client.HTTPConnection(self.url.hostname, self.url.port)
        parts = []
        for start, stop in ranges:
            connection.request("GET", self.url.path, headers={"Range": f"bytes={start}-{stop - 1}"})
            answer = connection.getresponse()
            parts.append(answer.read())
            assert answer.status == 206, answer.status
        return b"".join(parts)

    def __getitem__(self, key):
        parsed = parse_basic(key, self.geometry.shape)
        assembler = Assembler(self.geometry, parsed.selection)

        def work(some):
            for projection, ids in some:
                offsets, sizes = self.offsets[projection.nchunk, ids], self.sizes[projection.nchunk, ids]
                if not sizes.any():
                    raise AssertionError("constant chunks are not in the benchmark's data")
                order = np.argsort(offsets)
                ranges = []
                for start, size in zip(offsets[order].tolist(), sizes[order].tolist(), strict=True):
                    if ranges and ranges[-1][1] == start:
                        ranges[-1][1] = start + size
                    else:
                        ranges.append([start, start + size])
                body = self.fetch(ranges)
                if not (order[1:] > order[:-1]).all():  # blocks are stored in the order their threads ended
                    ends = np.cumsum(sizes[order])
                    where = np.empty(len(order), np.int64)
                    where[order] = ends - sizes[order]
                    body = b"".join(body[w : w + s] for w, s in zip(where.tolist(), sizes.tolist(), strict=True))
                record = BlockRecord(
                    projection.nchunk,
                    self.head[projection.nchunk].tobytes(),
                    ids.astype(np.uint32),
                    sizes.astype(np.uint32),
                    np.zeros(len(ids), np.uint32),
                    body,
                )
                assembler.add(projection, record)

        jobs = []
        for projection in BlockPlan(self.geometry, parsed.selection):
            ids = projection.blocks
            nbytes = int(self.sizes[projection.nchunk, ids].sum())
            count = max(1, len(ids) * WINDOW_NBYTES // max(nbytes, 1))
            jobs += [[(projection, ids[i : i + count])] for i in range(0, len(ids), count)]
        list(self.pool.map(work, jobs))
        return parsed.apply(assembler.out)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    serve(lambda name: Blocks(f"{sys.argv[1]}/root/{name}.b2nd", np.load(folder / f"{name}.npz")))
