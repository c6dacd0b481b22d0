"""A worker process that dies or hangs at objects whose names say so."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from caterva2_jupyter.storage import hdf5_index, hdf5_process


def main() -> None:
    describe = hdf5_index.read_attributes

    def failing(owner: Any, everything: bool) -> dict[str, Any]:
        name = (owner.name or "").rpartition("/")[2]
        if name.startswith("die"):
            os.abort()
        if name.startswith("hang"):
            time.sleep(1000)
        return describe(owner, everything)

    hdf5_index.read_attributes = failing
    hdf5_process.main(sys.argv[1:])


if __name__ == "__main__":
    main()
