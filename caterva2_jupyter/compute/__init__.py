"""Values made from values: decoding and computing with limits, apart from files and sockets.

Pure NumPy and Blosc2, like ``core``; only ``worker`` talks, over the one socket that it is given. Services run what is
here in child processes (``web.compute_pool``), the client in its own.
"""

from __future__ import annotations
