"""Lifts the five seconds that caterva2 2025.1.30 gives every request: without it most of its WAN cells are errors.

It is on the path of that peer's processes only.
"""

import httpx

for kind in (httpx.Client, httpx.AsyncClient):

    def patched(self, *args, _plain=kind.__init__, **kwargs):
        _plain(self, *args, **{**kwargs, "timeout": 600})

    kind.__init__ = patched
