"""The published caterva2 2026.9.2: slices made by its server. ``read_caterva2_2026.py URL``."""

import sys

import caterva2
from loop import serve

client = caterva2.Client(sys.argv[1], timeout=300)
SAMPLED = 200


def list_all():
    names = [name for name in client.get_list("@public") if name.startswith("small/")]
    for name in names[:SAMPLED]:
        info = client.get_info(f"@public/{name}")
        assert None not in (info["shape"], info["dtype"])
    return min(SAMPLED, len(names)), len(names)


serve(lambda name: client.get(f"@public/{name}.b2nd"), list_all)
