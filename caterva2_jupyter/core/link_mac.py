"""Codes by which a service knows an answer for what another one with the same token sent.

Checksums find damage; whoever changes bytes on purpose makes new ones. Here the receiver sends a number that
it has never used, and the answer comes in frames, each with a code over that number, the request as it
arrived, the answer's head, the frame's place and its bytes, keyed by what only the two know. Nothing of a
frame is handed on before its code is right. Bytes in, bytes out; HTTP is spoken elsewhere.
"""

from __future__ import annotations

import hmac
import re
import struct
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from ..errors import IntegrityError

__all__ = ["HEADER", "LENGTH_HEADER", "FrameReader", "FrameWriter", "answer_digest", "bearer_of", "is_nonce", "key_of"]

HEADER = "Caterva2-Mac"
LENGTH_HEADER = "Caterva2-Length"
COVERED = ("Content-Type", "Content-Range", "ETag", "Last-Modified", "Retry-After", LENGTH_HEADER)
MAX_FRAME_NBYTES = 256 << 10
_TAG_NBYTES = 16
_LAST = 1 << 31
_LENGTH = struct.Struct(">I")
_NONCE = re.compile(r"[0-9a-f]{32}")


def bearer_of(token: str) -> str:
    """What is sent in place of a token: it opens the same, and does not tell the key."""
    return blake2b(b"bearer\0" + token.encode("utf-8", "replace"), digest_size=24, person=b"caterva2").hexdigest()


def key_of(token: str) -> bytes:
    """The key of the codes; never sent."""
    return blake2b(b"mac\0" + token.encode("utf-8", "replace"), digest_size=32, person=b"caterva2").digest()


def is_nonce(text: str) -> bool:
    """Is it a number that a request asks for codes with: 32 hexadecimal digits?"""
    return _NONCE.fullmatch(text) is not None


def answer_digest(nonce: str, method: str, target: str, body: bytes, status: int, headers: Mapping[str, str]) -> bytes:
    """What every frame of an answer is bound to: the request it answers, and its own head.

    Parameters
    ----------
    target : str
        Path and query as they are on the wire; what is before ``/api/`` may differ at both ends.
    headers : mapping
        Of the answer, names as they are written here.
    """
    digest = blake2b(digest_size=32)
    at = target.find("/api/")
    parts = [nonce, method, target[max(at, 0) :], str(status), *(headers.get(name, "") for name in COVERED)]
    for part in [*(part.encode("utf-8", "surrogateescape") for part in parts), body]:
        digest.update(struct.pack(">Q", len(part)))
        digest.update(part)
    return digest.digest()


class FrameWriter:
    """Cuts an answer in frames.

    Parameters
    ----------
    key : bytes
    about : bytes
        ``answer_digest``.

    Examples
    --------
    >>> writer, reader = FrameWriter(b"key", b"about"), FrameReader(b"key", b"about")
    >>> reader.feed(writer.frames(b"some bytes", last=True))
    b'some bytes'
    >>> reader.close()
    """

    def __init__(self, key: bytes, about: bytes) -> None:
        self._key, self._about = key, about
        self._number = 0

    def frames(self, data: bytes, *, last: bool) -> bytes:
        """``data`` in frames; the last one, which may be empty, ends the answer."""
        return b"".join(self._cut(data, last))

    def _cut(self, data: bytes, last: bool) -> Iterator[bytes]:
        for start in range(0, len(data) or int(last), MAX_FRAME_NBYTES):
            piece = data[start : start + MAX_FRAME_NBYTES]
            is_last = last and start + MAX_FRAME_NBYTES >= len(data)
            length = _LENGTH.pack(len(piece) | (_LAST if is_last else 0))
            yield length
            yield piece
            yield _tag(self._key, self._about, self._number, length, piece)
            self._number += 1


class FrameReader:
    """The other end of ``FrameWriter``: gives out what is proved."""

    def __init__(self, key: bytes, about: bytes) -> None:
        self._key, self._about = key, about
        self._buffer = bytearray()
        self._number = 0
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        """The bytes of the frames that became complete.

        Raises
        ------
        IntegrityError
            When a code is not right: bytes were changed on the way, or the keys differ.
        """
        self._buffer += data
        proved: list[bytes] = []
        while len(self._buffer) >= _LENGTH.size and not self._ended:
            (word,) = _LENGTH.unpack_from(self._buffer)
            nbytes, last = word & ~_LAST, bool(word & _LAST)
            if nbytes > MAX_FRAME_NBYTES:
                raise IntegrityError(_WRONG)
            end = _LENGTH.size + nbytes
            if len(self._buffer) < end + _TAG_NBYTES:
                break
            piece = bytes(self._buffer[_LENGTH.size : end])
            tag = _tag(self._key, self._about, self._number, bytes(self._buffer[: _LENGTH.size]), piece)
            if not hmac.compare_digest(tag, bytes(self._buffer[end : end + _TAG_NBYTES])):
                raise IntegrityError(_WRONG)
            del self._buffer[: end + _TAG_NBYTES]
            self._number += 1
            self._ended = last
            proved.append(piece)
        if self._ended and self._buffer:
            raise IntegrityError(_WRONG)
        return b"".join(proved)

    def close(self) -> None:
        """Say that no more bytes come.

        Raises
        ------
        IntegrityError
            When the last frame has not come.
        """
        if not self._ended:
            raise IntegrityError("an answer whose end has no proof: it was cut short on the way")


_WRONG = "an answer without proof: bytes are changed on the way, or the services have different [network] tokens"


def _tag(key: bytes, about: bytes, number: int, length: bytes, piece: bytes) -> bytes:
    digest = blake2b(about + struct.pack(">Q", number) + length, digest_size=_TAG_NBYTES, key=key)
    digest.update(piece)
    return digest.digest()
