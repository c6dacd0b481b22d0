"""The limit: exactly the blocks that a slice touches, as byte ranges of the file on a static server.

``read_blocks.py URL INDEX``. The index (made beforehand, by ``make_index.py``) has where every block is, so that
opening costs nothing. Requests of up to 1 MiB and many ranges go over eight connections that stay open, and are decoded
by this project's own assembler while others arrive.
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
MIN_NBYTES, MAX_NBYTES, MAX_RANGES = 64 << 10, 1 << 20, 200


class Blocks:
    """An array read by ranges."""

    def __init__(self, url, index):
        self.url = urlsplit(url)
        self.geometry = Geometry.from_json(json.loads(str(index["geometry"])))
        self.offsets, self.sizes, self.heads = index["offsets"], index["sizes"], index["heads"]
        assert self.sizes.all(), "chunks without bytes are not in the benchmark's data"
        self.threads = local()
        self.pool = ThreadPoolExecutor(CONNECTIONS)

    def fetch(self, ranges):
        """The bytes of some ranges of the file, as one request."""
        connection = getattr(self.threads, "connection", None)
        if connection is None:
            connection = self.threads.connection = http.client.HTTPConnection(self.url.hostname, self.url.port)
        text = ",".join(f"{start}-{stop - 1}" for start, stop in ranges)
        connection.request("GET", self.url.path, headers={"Range": f"bytes={text}"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 206, answer.status
        if len(ranges) == 1:
            return [memoryview(body)]
        parts, position = [], 0
        for start, stop in ranges:  # each part: boundary, headers, an empty line, bytes
            position = body.index(b"\r\n\r\n", position) + 4
            parts.append(memoryview(body)[position : position + stop - start])
            position += stop - start
        return parts

    def plan(self, parsed):
        """Requests: lists of (projection, block numbers)."""
        wanted = [(p, p.blocks) for p in BlockPlan(self.geometry, parsed.selection)]
        total = sum(int(self.sizes[p.nchunk, ids].sum()) for p, ids in wanted)
        most = min(max(total // CONNECTIONS, MIN_NBYTES), MAX_NBYTES)
        request, nbytes, nblocks = [], 0, 0
        for projection, ids in wanted:
            ends = np.cumsum(self.sizes[projection.nchunk, ids])
            first = 0
            while first < len(ids):
                before = int(ends[first - 1]) if first else 0
                stop = int(np.searchsorted(ends, before + most - nbytes)) + 1
                stop = min(max(stop, first + 1), first + MAX_RANGES - nblocks, len(ids))
                request.append((projection, ids[first:stop]))
                nbytes += int(ends[stop - 1]) - before
                nblocks += stop - first
                first = stop
                if nbytes >= most or nblocks >= MAX_RANGES:
                    yield request
                    request, nbytes, nblocks = [], 0, 0
        if request:
            yield request

    def __getitem__(self, key):
        parsed = parse_basic(key, self.geometry.shape)
        assembler = Assembler(self.geometry, parsed.selection)

        def work(request):
            starts = np.concatenate([self.offsets[p.nchunk, ids] for p, ids in request])
            sizes = np.concatenate([self.sizes[p.nchunk, ids] for p, ids in request])
            order = np.argsort(starts)  # blocks are stored in the order in which threads had compressed them
            ranges = []
            for start, size in zip(starts[order].tolist(), sizes[order].tolist(), strict=True):
                if ranges and ranges[-1][1] == start:
                    ranges[-1][1] = start + size
                else:
                    ranges.append([start, start + size])
            parts = dict(zip((start for start, _ in ranges), self.fetch(ranges), strict=True))
            bases = np.array(sorted(parts), np.int64)
            base = bases[np.searchsorted(bases, starts, side="right") - 1]
            blocks = [
                parts[b][s - b : s - b + n]
                for b, s, n in zip(base.tolist(), starts.tolist(), sizes.tolist(), strict=True)
            ]
            position = 0
            for projection, ids in request:
                mine = slice(position, position + len(ids))
                position += len(ids)
                head, none = self.heads[projection.nchunk].tobytes(), np.zeros(len(ids), np.uint32)
                record = BlockRecord(
                    projection.nchunk,
                    head,
                    ids.astype(np.uint32),
                    sizes[mine].astype(np.uint32),
                    none,
                    b"".join(blocks[mine]),
                )
                assembler.add(projection, record)

        list(self.pool.map(work, self.plan(parsed)))
        return parsed.apply(assembler.out)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    serve(lambda name: Blocks(f"{sys.argv[1]}/root/{name}.b2nd", np.load(folder / f"{name}.npz")))
