"""Read requests and their answers on the wire: builders and parsers, no sockets.

An answer (``application/vnd.caterva2.records``) is a preamble, records and an end. Integers are
little endian::

    preamble   "C2R1", u32 n, u32 crc32(json), n bytes of JSON {"id", "version"[, "entry"][, "answer", "selection"]}
    record     "C2BK", u8 kind, u8 0, u16 0, u64 nchunk, u32 nblocks, u32 head bytes, u64 body bytes,
               u32 crc, head, nblocks x (u32 block number, u32 bytes, u32 checksum), body

``crc`` is the CRC-32, seeded with ``checksum_seed(id, version)``, of the 32 bytes before it, the head and
the table; each block's checksum covers what ``blocks`` says. Kinds: 1 blocks, 2 a piece of an exact slice
(``exact_slice``; ``nchunk`` is its number), 3 what is the same as in an older version (``revalidation``; rows
have an 8-byte digest more, the head is the proof, there is no body; only where the request has ``known``), 4
error (the body is the JSON of an error), 5 end (``nchunk`` counts the records sent, 6 not among them), 6 a
reduction is at work (``nchunk`` blocks are done of those in the head, a u64; only before its pieces). The preamble says
``"answer": "slice"`` with the digest of the selection where pieces follow. An answer without its end was cut
short.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..errors import Caterva2Error, IntegrityError, RequestError, error_from_json, error_to_json
from .answer_choice import MODES, Answer, Mode
from .blocks import MAX_HEAD_NBYTES, BlockRecord, checksum_seed
from .exact_slice import slice_seed
from .metadata import Entry
from .paths import split_address
from .reduce_request import Working
from .revalidation import DIGEST_NBYTES, SAME_DTYPE, KnownBlocks, SameRecord

__all__ = [
    "RECORDS_TYPE",
    "End",
    "Preamble",
    "ReadRequest",
    "RecordParser",
    "ReduceParser",
    "SameParser",
    "encode_answer",
    "encode_end",
    "encode_error",
    "encode_preamble",
    "encode_record",
    "encode_same",
    "encode_working",
    "pack_held",
    "parse_body",
    "unpack_held",
]

RECORDS_TYPE = "application/vnd.caterva2.records"
MAX_REQUEST_NBYTES = 64 << 20
MAX_BLOCKS_PER_RECORD = 1 << 24
_PREAMBLE = struct.Struct("<4sII")
_RECORD = struct.Struct("<4sBBHQIIQI")
_BLOCKS, _PIECE, _SAME, _ERROR, _END, _WORKING = 1, 2, 3, 4, 5, 6
_TOTAL = struct.Struct("<Q")
_U32 = struct.Struct("<I")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_ROW_NBYTES = 12
_FEW_NBYTES = 4096


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """One read: a selection of a version of a dataset.

    Attributes
    ----------
    root, path : str
    version : str or None
        None: whatever the version is now; the answer then carries the entry.
    selection : list or None
        JSON form of ``Selection``, checked against the shape where the dataset is; None is all of it.
    window : tuple of int or None
        Only blocks number ``first`` to ``stop`` (exclusive) of the plan's order (``chunk_grid``).
    held : ndarray of bool or None
        One per block of the window: True for those not to be sent.
    mode : {"blocks", "auto", "slice"}
        What may come: blocks only; the smaller of the missing blocks and the exact slice; the slice wherever
        there can be one. With a window blocks come in any case.
    fast : bool
        A slice is to be compressed quickly rather than well: the link is faster than that.
    known : KnownBlocks or None
        Blocks to be compared with those of an older version, rather than sent (``compare_blocks`` of a source).
    """

    root: str
    path: str
    version: str | None = None
    selection: Any = None
    window: tuple[int, int] | None = None
    held: npt.NDArray[np.bool_] | None = None
    mode: Mode = "blocks"
    fast: bool = False
    known: KnownBlocks | None = None

    def to_json(self) -> dict[str, Any]:
        form: dict[str, Any] = {"path": f"{self.root}/{self.path}"}
        if self.version is not None:
            form["version"] = self.version
        if self.selection is not None:
            form["selection"] = self.selection
        if self.window is not None:
            form["window"] = list(self.window)
        if self.held is not None:
            form["held"] = pack_held(self.held)
        if self.mode != "blocks":
            form["mode"] = self.mode
        if self.fast:
            form["fast"] = True
        if self.known is not None:
            digests = base64.b64encode(self.known.digests).decode("ascii")
            form["known"] = {"blocks": pack_held(self.known.blocks), "digests": digests}
            if self.known.in_runs:
                form["known"]["runs"] = True
        return form

    @classmethod
    def from_bytes(cls, body: bytes) -> ReadRequest:
        """Parse a request's body; nothing of it is trusted.

        Raises
        ------
        RequestError, InvalidPathError
        """
        return cls.from_form(parse_body(body))

    @classmethod
    def from_form(cls, form: Any) -> ReadRequest:
        """As ``from_bytes``, of parsed JSON.

        Raises
        ------
        RequestError, InvalidPathError
        """
        if not isinstance(form, Mapping):
            raise RequestError("a read request is a JSON object")
        unknown = set(form) - {"path", "version", "selection", "window", "held", "mode", "fast", "known"}
        if unknown:
            raise RequestError(f"unknown key in a read request: {min(unknown)[:40]!r}")
        path, version, window = form.get("path"), form.get("version"), form.get("window")
        if not isinstance(path, str) or not (version is None or isinstance(version, str)):
            raise RequestError("a read request has a path, and a version as text if any")
        mode, fast = form.get("mode", "blocks"), form.get("fast", False)
        if not isinstance(mode, str) or mode not in MODES or not isinstance(fast, bool):
            raise RequestError("the mode of a read is 'auto', 'blocks' or 'slice', and fast is true or false")
        if window is not None and not (
            isinstance(window, list)
            and len(window) == 2
            and all(type(n) is int for n in window)
            and 0 <= window[0] <= window[1] < 2**62
        ):
            raise RequestError("a window is [first, stop]")
        root, dataset = split_address(path)
        held = form.get("held")
        known = None if form.get("known") is None else _known(form["known"])
        if known is not None and (version is None or held is not None or mode != "blocks"):
            raise RequestError("known goes with a version, and with neither held nor a mode")
        return cls(
            root=root,
            path=dataset,
            version=version,
            selection=form.get("selection"),
            window=None if window is None else (window[0], window[1]),
            held=None if held is None else unpack_held(held),
            mode=cast("Mode", mode),
            fast=fast,
            known=known,
        )

    def of_known(self) -> ReadRequest:
        """The read of those blocks that are to be compared."""
        if self.known is None:
            raise RequestError("this read compares nothing")
        return replace(self, held=~self.known.blocks, known=None)


def parse_body(body: bytes) -> Any:
    """The JSON of a request's body.

    Raises
    ------
    RequestError
        When it is too long, or no JSON, or an object has a key twice.
    """
    if len(body) > MAX_REQUEST_NBYTES:
        raise RequestError(f"a read request has at most {MAX_REQUEST_NBYTES} bytes")
    try:
        return json.loads(body, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        raise RequestError("the body is not JSON, or has a key twice") from None


def _known(form: Any) -> KnownBlocks:
    if not isinstance(form, Mapping) or set(form) - {"runs"} != {"blocks", "digests"}:
        raise RequestError("known has blocks and digests")
    in_runs = form.get("runs", False)
    if not isinstance(in_runs, bool):
        raise RequestError("runs is true or false")
    try:
        digests = base64.b64decode(form["digests"], validate=True)
    except (ValueError, TypeError):
        raise RequestError("digests are base64") from None
    if len(digests) % DIGEST_NBYTES:
        raise RequestError(f"a digest has {DIGEST_NBYTES} bytes")
    return KnownBlocks(unpack_held(form["blocks"]), digests, in_runs)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are distinct: of two, others might take the other one."""
    form = dict(pairs)
    if len(form) != len(pairs):
        raise ValueError("a key occurs twice")
    return form


def pack_held(held: npt.NDArray[np.bool_]) -> str:
    """Base64 of one bit per block, the first block in the lowest bit of the first byte."""
    return base64.b64encode(np.packbits(held, bitorder="little").tobytes()).decode("ascii")


def unpack_held(text: Any) -> npt.NDArray[np.bool_]:
    """Bits of ``pack_held``; the last byte may have bits that mean nothing."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise RequestError("held is base64") from None
    return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").astype(np.bool_)


@dataclass(frozen=True, slots=True)
class Preamble:
    """What an answer is about.

    Attributes
    ----------
    id, version : str
    entry : Entry or None
        When the request named no version.
    digest : str
        Of the selection whose exact slice follows (``selection_digest``); empty when blocks follow.
    """

    id: str
    version: str
    entry: Entry | None = None
    digest: str = ""

    @property
    def answer(self) -> Answer:
        return "slice" if self.digest else "blocks"

    @property
    def seed(self) -> int:
        """What the checksums of the data are begun with."""
        seed = checksum_seed(self.id, self.version)
        return slice_seed(seed, self.digest) if self.digest else seed


@dataclass(frozen=True, slots=True)
class End:
    """The end of an answer that is complete."""

    nrecords: int


def encode_preamble(entry: Entry, with_entry: bool, digest: str = "") -> bytes:
    """The beginning of an answer; ``digest``: of the selection whose exact slice follows."""
    form: dict[str, Any] = {"id": entry.id, "version": entry.version}
    if with_entry:
        form["entry"] = entry.to_json()
    if digest:
        form |= {"answer": "slice", "selection": digest}
    body = json.dumps(form, separators=(",", ":")).encode()
    return _PREAMBLE.pack(b"C2R1", len(body), zlib.crc32(body)) + body


def _encode(kind: int, seed: int, nchunk: int, head: bytes, table: bytes, nblocks: int, body_nbytes: int) -> bytes:
    fixed = _RECORD.pack(b"C2BK", kind, 0, 0, nchunk, nblocks, len(head), body_nbytes, 0)[:-4]
    after = head + table
    return b"".join([fixed, _U32.pack(zlib.crc32(after, zlib.crc32(fixed, seed))), after])


def encode_record(
    record: BlockRecord, seed: int, answer: Answer = "blocks"
) -> tuple[bytes, bytes | bytearray | memoryview]:
    """Header and body, to be written one after the other.

    Parameters
    ----------
    record : BlockRecord
        Blocks, or a piece of an exact slice, as ``answer`` says.
    seed : int
        ``checksum_seed`` of the dataset's version.
    """
    nblocks = len(record.ids)
    table = np.empty((nblocks, 3), "<u4")
    table[:, 0], table[:, 1], table[:, 2] = record.ids, record.sizes, record.crcs
    kind = _PIECE if answer == "slice" else _BLOCKS
    fixed = _encode(kind, seed, record.nchunk, record.head, table.tobytes(), nblocks, len(record.body))
    return fixed, record.body


def encode_same(same: SameRecord, seed: int) -> bytes:
    """What is said of a chunk's known blocks."""
    return _encode(_SAME, seed, same.nchunk, same.proof, same.rows.tobytes(), len(same.rows), 0)


def encode_working(working: Working, seed: int) -> bytes:
    """That a reduction is being worked on."""
    return _encode(_WORKING, seed, working.done, _TOTAL.pack(working.total), b"", 0, 0)


def encode_error(error: Caterva2Error, seed: int) -> bytes:
    """An error after the answer has begun."""
    body = json.dumps({**error_to_json(error), "status": error.status}).encode()
    return _encode(_ERROR, seed, zlib.crc32(body), b"", b"", 0, len(body)) + body


def encode_end(nrecords: int, seed: int) -> bytes:
    return _encode(_END, seed, nrecords, b"", b"", 0, 0)


def encode_answer(entry: Entry, preamble: bytes, records: Sequence[BlockRecord]) -> bytes:
    """A whole answer of blocks, after its preamble."""
    seed = checksum_seed(entry.id, entry.version)
    parts: list[bytes | bytearray | memoryview] = [preamble]
    for record in records:
        parts += encode_record(record, seed)
    parts.append(encode_end(len(records), seed))
    return b"".join(parts)


def _digest_of(form: Mapping[str, Any]) -> str:
    """Whose exact slice a preamble announces; empty for blocks."""
    answer, digest = form.get("answer", "blocks"), form.get("selection", "")
    if answer == "blocks":
        return ""
    if answer != "slice" or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise IntegrityError("an answer of a kind that is not known")
    return digest


_Item = Preamble | BlockRecord | SameRecord | Working | End


class RecordParser:
    """Sans-I/O parser of an answer: feed it bytes as they come.

    Every record is verified against the id and version of the preamble before it is given out.

    Parameters
    ----------
    max_record_nbytes : int
        A record with a longer body is refused before it is received.

    Examples
    --------
    >>> entry = Entry("x.b2nd", "array", id="a", version="v")
    >>> parser = RecordParser()
    >>> parser.feed(encode_preamble(entry, False) + encode_end(0, checksum_seed("a", "v")))
    [Preamble(id='a', version='v', entry=None, digest=''), End(nrecords=0)]
    >>> parser.close()
    """

    _compared = False
    _is_one_of_many = False
    _works = False

    def __init__(self, max_record_nbytes: int = (1 << 31) + MAX_HEAD_NBYTES) -> None:
        self._max = max_record_nbytes
        # What was not complete: parts as they came, joined once when there are as many bytes as it takes.
        self._waiting: list[bytes | bytearray | memoryview] = []
        self._nwaiting = 0
        self._need = _PREAMBLE.size
        self._seed: int | None = None  # of records' headers
        self._data_seed = 0  # of blocks
        self._about: Preamble | None = None
        self._nrecords = 0
        self._ended = False

    def feed(self, data: bytes | bytearray | memoryview) -> list[Preamble | BlockRecord | End]:
        """What became complete with ``data``. Bodies of records are views of what came, not copies.

        Raises
        ------
        IntegrityError
            When the bytes are not an answer, or fail a checksum.
        Caterva2Error
            The error that the source sent in the midst of its answer.
        """
        return [item for item in self._feed(data) if not isinstance(item, (SameRecord, Working))]

    def _feed(self, data: bytes | bytearray | memoryview) -> list[_Item]:
        # Records refer to it from now on: it must not change.
        data = data if isinstance(data, bytes) else bytes(data)
        if not data:
            return []
        if self._waiting:
            self._wait_for_more(data)
            if self._nwaiting < self._need:
                return []
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._nwaiting = 0
        items: list[_Item] = []
        position = 0
        while len(data) - position >= self._need:
            if self._ended:
                if not self._is_one_of_many:
                    raise IntegrityError("bytes after the end of an answer")
                break
            nused, item = self._preamble(data, position) if self._seed is None else self._record(data, position)
            position += nused
            if item is not None:
                items.append(item)
        if position < len(data):
            self._wait_for_more(memoryview(data)[position:] if position else data)
        return items

    def _wait_for_more(self, data: bytes | memoryview) -> None:
        self._nwaiting += len(data)
        if len(data) >= _FEW_NBYTES:
            self._waiting.append(data)
        elif self._waiting and isinstance(last := self._waiting[-1], bytearray):
            last += data  # whoever sends byte by byte does not get an object for each
        else:
            self._waiting.append(bytearray(data))

    @property
    def rest(self) -> bytes | None:
        """What came after the answer, where it is one of several; None while it is not complete."""
        return b"".join(self._waiting) if self._ended else None

    def close(self) -> None:
        """Say that no more bytes come.

        Raises
        ------
        IntegrityError
            When the answer is not complete.
        """
        if not self._ended:
            raise IntegrityError("the answer was cut short")

    def _preamble(self, data: bytes, position: int) -> tuple[int, Preamble | None]:
        """How many bytes of ``data`` it had, and what it says; (0, None) when more has to come first."""
        magic, size, crc = _PREAMBLE.unpack_from(data, position)
        if magic != b"C2R1" or size > MAX_REQUEST_NBYTES:
            raise IntegrityError("not an answer to a read request")
        start = position + _PREAMBLE.size
        if len(data) < start + size:
            self._need = _PREAMBLE.size + size
            return 0, None
        body = data[start : start + size]
        if zlib.crc32(body) != crc:
            raise IntegrityError("the preamble fails its checksum")
        try:
            form = json.loads(body)
            entry = Entry.from_json(form["entry"]) if "entry" in form else None
            preamble = Preamble(str(form["id"]), str(form["version"]), entry, _digest_of(form))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise IntegrityError("malformed preamble") from error
        self._seed = checksum_seed(preamble.id, preamble.version)
        self._data_seed = preamble.seed
        self._about = preamble
        self._need = _RECORD.size
        return _PREAMBLE.size + size, preamble

    def _record(self, data: bytes, position: int) -> tuple[int, BlockRecord | SameRecord | Working | End | None]:
        """As ``_preamble``, of what follows it."""
        assert self._seed is not None
        assert self._about is not None
        magic, kind, _, _, nchunk, nblocks, head_size, body_size, crc = _RECORD.unpack_from(data, position)
        table_size = nblocks * (SAME_DTYPE.itemsize if kind == _SAME else _ROW_NBYTES)
        if magic != b"C2BK" or head_size > MAX_HEAD_NBYTES or nblocks > MAX_BLOCKS_PER_RECORD or body_size > self._max:
            raise IntegrityError("not a record")
        start = position + _RECORD.size
        nbytes = _RECORD.size + head_size + table_size + body_size
        if len(data) - position < nbytes:
            self._need = nbytes
            return 0, None
        head_and_table = data[start : start + head_size + table_size]
        body = memoryview(data)[position + nbytes - body_size : position + nbytes]
        if zlib.crc32(head_and_table, zlib.crc32(data[position : start - 4], self._seed)) != crc:
            raise IntegrityError("a record fails its checksum")
        self._need = _RECORD.size
        return nbytes, self._item(kind, nchunk, nblocks, head_and_table, head_size, body)

    def _item(
        self, kind: int, nchunk: int, nblocks: int, head_and_table: bytes, head_size: int, body: memoryview
    ) -> BlockRecord | SameRecord | Working | End:
        """What a record is, its header and table being verified."""
        assert self._about is not None
        if kind == _END:
            if nchunk != self._nrecords:
                raise IntegrityError(f"{self._nrecords} records came, {nchunk} were sent")
            self._ended = True
            self._need = 1
            return End(self._nrecords)
        if kind == _ERROR:
            if zlib.crc32(body) != nchunk:
                raise IntegrityError("an error record fails its checksum")
            try:
                form = json.loads(bytes(body))
                status = int(form["status"])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                raise IntegrityError("malformed error record") from error
            raise error_from_json(form, status)
        if self._compared:
            return self._same(kind, nchunk, head_and_table, head_size, body)
        if kind == _WORKING and self._works and head_size == _TOTAL.size and len(head_and_table) == head_size:
            if body or self._nrecords:
                raise IntegrityError("a reduction that is at work after its result")
            return Working(nchunk, _TOTAL.unpack(head_and_table)[0])
        if kind != (_PIECE if self._about.answer == "slice" else _BLOCKS):
            raise IntegrityError(f"a record of unknown kind {kind}")
        table = np.frombuffer(head_and_table, "<u4", 3 * nblocks, head_size).reshape(nblocks, 3)
        ids, sizes, crcs = table.T.astype(np.uint32, order="C")
        record = BlockRecord(nchunk, head_and_table[:head_size], ids, sizes, crcs, body)
        record.verify(self._data_seed)
        self._nrecords += 1
        return record

    def _same(self, kind: int, nchunk: int, head_and_table: bytes, head_size: int, body: memoryview) -> SameRecord:
        proof = head_and_table[:head_size]
        has_rows = len(head_and_table) > head_size
        if kind != _SAME or body or (len(proof), has_rows) not in ((DIGEST_NBYTES, False), (0, True)):
            raise IntegrityError(f"a record of kind {kind} that compares nothing")
        rows = np.frombuffer(head_and_table[head_size:], SAME_DTYPE)
        self._nrecords += 1
        return SameRecord(nchunk, proof, rows)


class SameParser(RecordParser):
    """Parser of an answer to a request with ``known``: nothing but comparisons may come."""

    _compared = True

    def feed_same(self, data: bytes | bytearray | memoryview) -> list[Preamble | SameRecord | End]:
        """As ``feed``."""
        return [item for item in self._feed(data) if not isinstance(item, (BlockRecord, Working))]


class ReduceParser(RecordParser):
    """Parser of an answer to a reduction: pieces, and before them that it is at work.

    Parameters
    ----------
    digest : str
        ``reduction_digest`` of what was asked for.
    max_record_nbytes : int
        A record with a longer body is refused before it is received.
    """

    _works = True

    def __init__(self, digest: str, max_record_nbytes: int = 2 << 20) -> None:
        super().__init__(max_record_nbytes)
        self._digest = digest

    def feed_reduced(self, data: bytes | bytearray | memoryview) -> list[Preamble | BlockRecord | Working | End]:
        """As ``feed``."""
        items = [item for item in self._feed(data) if not isinstance(item, SameRecord)]
        for item in items:
            if isinstance(item, Preamble) and self._digest != item.digest:
                raise IntegrityError("the answer is of another reduction")
        return items
