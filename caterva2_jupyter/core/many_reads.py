"""Several reads in one request, and their answers one after the other: builders and parsers, no sockets.

The body of such a request is ``{"reads": [...]}``, each as a read of its own (``wire``); the answers are those of the
reads, in their order, with nothing between them. A read that fails ends all: its answer is an error record, in an
answer without id and version where it could not begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import Caterva2Error, IntegrityError, RequestError, TooLargeError
from .blocks import BlockRecord, checksum_seed
from .metadata import Entry
from .wire import End, Preamble, ReadRequest, RecordParser, encode_error, encode_preamble, parse_body

__all__ = ["MAX_READS", "ManyParser", "encode_failure", "many_to_json", "parse_many"]

MAX_READS = 4096


def many_to_json(requests: Sequence[ReadRequest]) -> dict[str, Any]:
    """The form of several reads in one request."""
    return {"reads": [request.to_json() for request in requests]}


def parse_many(body: bytes) -> list[ReadRequest]:
    """Parse several reads in one request; nothing of it is trusted.

    Raises
    ------
    RequestError, InvalidPathError
    TooLargeError
        For more than 4096 of them.

    Examples
    --------
    >>> [request.path for request in parse_many(b'{"reads": [{"path": "foo/a"}, {"path": "foo/b"}]}')]
    ['a', 'b']
    """
    form = parse_body(body)
    if not isinstance(form, Mapping) or set(form) != {"reads"} or not isinstance(form["reads"], list):
        raise RequestError("several reads are a JSON object with a list: reads")
    if not form["reads"]:
        raise RequestError("there is no read in the request")
    if len(form["reads"]) > MAX_READS:
        raise TooLargeError(f"one request has at most {MAX_READS} reads: send several requests")
    requests = [ReadRequest.from_form(item) for item in form["reads"]]
    if any(request.known is not None for request in requests):
        raise RequestError("a comparison (known) is a request of its own")
    return requests


def encode_failure(error: Caterva2Error) -> bytes:
    """What stands in the place of an answer that could not begin; nothing follows it."""
    return encode_preamble(Entry("", "group"), with_entry=False) + encode_error(error, checksum_seed("", ""))


class _OneOfMany(RecordParser):
    """Parser of one answer, with others behind it."""

    _is_one_of_many = True


class ManyParser:
    """Parser of the answers to several reads in one request, one after the other.

    Parameters
    ----------
    count : int
        How many reads were asked for.

    Examples
    --------
    >>> from caterva2_jupyter.core.wire import encode_end
    >>> entry = Entry("x.b2nd", "array", id="a", version="v")
    >>> one = encode_preamble(entry, False) + encode_end(0, checksum_seed("a", "v"))
    >>> parser = ManyParser(2)
    >>> [type(item).__name__ for item in parser.feed(one + one)]
    ['Preamble', 'End', 'Preamble', 'End']
    >>> parser.close()
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self._parser = _OneOfMany()

    def feed(self, data: bytes) -> Iterator[Preamble | BlockRecord | End]:
        """What became complete with ``data``; each answer ends with its `End`.

        Raises
        ------
        IntegrityError
            When the bytes are not answers, or fail a checksum.
        Caterva2Error
            The error that the source sent: no more answers follow.
        """
        while data:
            if not self._left:
                raise IntegrityError("bytes after the last answer")
            yield from self._parser.feed(data)
            rest = self._parser.rest
            if rest is None:
                return
            self._left -= 1
            self._parser, data = _OneOfMany(), rest

    def close(self) -> None:
        """Say that no more bytes come.

        Raises
        ------
        IntegrityError
            When an answer is missing, or not complete.
        """
        if self._left:
            raise IntegrityError(f"{self._left} answers did not come")
