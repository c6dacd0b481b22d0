"""Lifts the five seconds that caterva2 2025.1.30 gives every request: without it most of its WAN cells are errors.

It is on the path of that peer's processes only.
"""

import httpx

for kind in (httpx.Client, httpx.AsyncClient):

    def send(self, request, *args, _plain=kind.send, **kwargs):
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), 600)
        return _plain(self, request, *args, **kwargs)

    kind.send = send
