"""``cat2sub`` that gives up on answers that do not come on after 3 s, not 30: tests cannot wait that long."""

import sys

from caterva2_jupyter.subscriber.app import main
from caterva2_jupyter.subscriber.link import Link
from caterva2_jupyter.subscriber.sources import RemoteSource

STALL_S = 3.0

for asking in (Link, RemoteSource):
    defaults = asking.__init__.__kwdefaults__
    assert defaults["stall_s"] > STALL_S
    defaults["stall_s"] = STALL_S

if __name__ == "__main__":
    sys.exit(main())
