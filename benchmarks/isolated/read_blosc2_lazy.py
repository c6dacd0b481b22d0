"""python-blosc2's lazy remote arrays: ``read_blosc2_lazy.py static|server URL``, on static files or on a server."""

import sys

import blosc2
from loop import serve

kind, url = sys.argv[1:]


def open_dataset(name):
    if kind == "server":
        return blosc2.open(blosc2.URLPath(f"@public/{name}.b2nd", url), lazy=True)
    return blosc2.open(f"{url}/root/{name}.b2nd", lazy=True)


serve(open_dataset)
