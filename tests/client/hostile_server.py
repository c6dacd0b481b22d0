"""A TCP server that answers what a test says, byte for byte: what no honest service would send."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable

Answer = Callable[[socket.socket, str, int], None]


def response(body: bytes, kind: str = "application/json", status: str = "200 OK", *headers: str) -> bytes:
    # Said beforehand: a request that is sent into a socket just being closed is lost unseen.
    fixed = [f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
    lines = [f"HTTP/1.1 {status}", *fixed, *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class HostileServer:
    """``answer(socket, request's first line, number of the request)`` for each request; then the socket is closed.

    ``requests`` has the head of each request.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[str] = []
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    part = connection.recv(65536)
                    if not part:
                        return
                    head += part
                length = re.search(rb"content-length: (\d+)", head.lower())
                end = head.index(b"\r\n\r\n") + 4 + (int(length.group(1)) if length else 0)
                while len(head) < end and (part := connection.recv(65536)):
                    head += part
                self.requests.append(head.decode("latin-1"))
                self._answer(connection, head.split(b"\r\n")[0].decode("latin-1"), len(self.requests))
            except OSError:
                return

    @property
    def lines(self) -> list[str]:
        """First line of each request."""
        return [r.splitlines()[0] for r in self.requests]

    def wait(self) -> None:
        """Say nothing until the test is over."""
        self._stopped.wait(30)

    def __enter__(self) -> HostileServer:
        return self

    def __exit__(self, *args: object) -> None:
        self._stopped.set()
        self._listener.close()
