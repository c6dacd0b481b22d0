"""Answers with codes (``core.link_mac``) for the services that ask for them, whatever handler makes them."""

from __future__ import annotations

from functools import partial
from typing import Any

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform

from ..config import NetworkConfig
from ..core.link_mac import HEADER, LENGTH_HEADER, FrameWriter, answer_digest, is_nonce

__all__ = ["mac_settings"]


def mac_settings(network: NetworkConfig) -> dict[str, Any]:
    """Settings of an application (``make_application``) that proves its answers where the network wants that."""
    return {"transforms": [partial(_Proof, network.mac_key)]} if network.mac else {}


class _Proof(OutputTransform):
    """Puts one answer in frames, after everything else that is done to it."""

    def __init__(self, key: bytes, request: HTTPServerRequest) -> None:
        self._key, self._request = key, request
        self._writer: FrameWriter | None = None

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        request, nonce = self._request, self._request.headers.get(HEADER, "")
        if not is_nonce(nonce) or request.method == "HEAD" or status_code in (101, 204, 304):
            return status_code, headers, chunk
        headers[HEADER] = "1"
        headers[LENGTH_HEADER] = str(len(chunk)) if finishing else headers.get("Content-Length", "")
        about = answer_digest(nonce, str(request.method), str(request.uri), request.body, status_code, headers)
        self._writer = FrameWriter(self._key, about)
        chunk = self.transform_chunk(chunk, finishing)
        if "Content-Length" in headers:
            # As for compression: another length, known only when all is there.
            if finishing:
                headers["Content-Length"] = str(len(chunk))
            else:
                del headers["Content-Length"]
        return status_code, headers, chunk

    def transform_chunk(self, chunk: bytes, finishing: bool) -> bytes:
        return chunk if self._writer is None else self._writer.frames(chunk, last=finishing)
