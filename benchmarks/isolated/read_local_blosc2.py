"""``blosc2.open`` on the file itself: ``read_local_blosc2.py DIRECTORY``."""

import sys
from pathlib import Path

import blosc2
from loop import serve


def list_all():
    paths = list(Path(sys.argv[1], "small").rglob("*.b2nd"))
    for path in paths:
        array = blosc2.open(str(path))
        assert None not in (array.shape, array.dtype, dict(array.schunk.vlmeta))
    return len(paths), len(paths)


serve(lambda name: blosc2.open(f"{sys.argv[1]}/{name}.b2nd"), list_all)
