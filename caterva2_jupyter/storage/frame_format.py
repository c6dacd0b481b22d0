"""What the bytes around the chunks of a Blosc2 frame say: header, metalayers, trailer, index.

Values in, values out; which file they come from, and reading chunks, is ``blosc2_file``'s. Nothing is evaluated,
sizes are bounded before anything is allocated, and what refers to other files is refused by name.
Layout: C-Blosc2 ``README_CFRAME_FORMAT.rst`` and ``README_B2ND_METALAYER.rst``.
"""

from __future__ import annotations

import ast
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgpack
import numpy as np

from ..core.codec import DecodeChunk, decode_chunk_bytes
from ..errors import IntegrityError, UnsupportedDatasetError

__all__ = [
    "HEADER_MIN_NBYTES",
    "MAX_HEADER_NBYTES",
    "MAX_TRAILER_NBYTES",
    "TRAILER_TAIL_NBYTES",
    "ArrayMeta",
    "FrameHeader",
    "decode_metalayer",
    "decode_vlmeta",
    "frame_nbytes",
    "header_nbytes",
    "parse_array_meta",
    "parse_dtype",
    "parse_header",
    "parse_trailer",
    "refuse_special_frames",
    "trailer_nbytes",
]

HEADER_MIN_NBYTES = 87
MAX_HEADER_NBYTES = 64 << 20
MAX_TRAILER_NBYTES = 256 << 20
TRAILER_TAIL_NBYTES = 23
MAX_VLMETA_NBYTES = 64 << 20
MAX_DTYPE_CHARS = 1 << 20
_MAX_DEPTH = 32
_MAGIC = b"\x9e\xa8b2frame\0"

_CODECS = {
    0: "blosclz",
    1: "lz4",
    2: "lz4hc",
    4: "zlib",
    5: "zstd",
    32: "ndlz",
    33: "zfp_acc",
    34: "zfp_prec",
    35: "zfp_rate",
    36: "openhtj2k",
    37: "grok",
    38: "openzl",
}
_FILTERS = {
    1: "shuffle",
    2: "bitshuffle",
    3: "delta",
    4: "trunc_prec",
    32: "ndcell",
    33: "ndmean",
    35: "bytedelta",
    36: "int_trunc",
}
# Frames whose chunks are not those of an array or of plain bytes.
_REFUSED = {
    "b2o": "a stored expression, which is not evaluated",
    "LazyArray": "a stored expression, which is not evaluated",
    "proxy-source": "a cache of another dataset, which may have holes",
    "vlarray": "a list of objects, not an array",
    "batcharray": "batches of objects, not an array",
    "listarray": "lists of variable length, not an array",
    "utf8array": "strings of variable length, which are not served from Blosc2 files",
    "b2embed": "a store of several datasets in one frame",
}


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The header of a frame.

    Attributes
    ----------
    header_nbytes, frame_nbytes : int
        Of the header; of the frame (its index alone when sparse).
    nbytes, cbytes : int
        Decoded and compressed bytes of all chunks.
    typesize, blocksize, chunksize : int
        Bytes; ``blocksize`` is 0 when the writer left it to each chunk, ``chunksize`` is below 1 when
        no chunk was ever written.
    sparse : bool
        Chunks are files of their own.
    metalayers : dict of bytes
        Contents, packed.
    """

    header_nbytes: int
    frame_nbytes: int
    nbytes: int
    cbytes: int
    typesize: int
    blocksize: int
    chunksize: int
    sparse: bool
    clevel: int
    codec: int
    filters: tuple[int, ...]
    metalayers: Mapping[str, bytes]

    @property
    def nchunks(self) -> int:
        """How many chunks there are when all but the last are full."""
        return -(-self.nbytes // self.chunksize) if self.nbytes and self.chunksize > 0 else 0

    def storage(self) -> dict[str, Any]:
        """How it is compressed, for people."""
        form: dict[str, Any] = {"codec": _CODECS.get(self.codec, f"codec {self.codec}"), "clevel": self.clevel}
        form["filters"] = [_FILTERS.get(f, f"filter {f}") for f in self.filters if f]
        form["typesize"] = self.typesize
        if self.sparse:
            form["contiguous"] = False
        return form


def header_nbytes(start: bytes) -> int:
    """Length of the header of which these are the first ``HEADER_MIN_NBYTES``.

    Raises
    ------
    IntegrityError
        When it is not the start of a frame.
    """
    if len(start) < HEADER_MIN_NBYTES or not start.startswith(_MAGIC):
        raise IntegrityError("not a Blosc2 frame")
    (nbytes,) = struct.unpack_from(">i", start, 11)
    if not HEADER_MIN_NBYTES <= nbytes <= MAX_HEADER_NBYTES:
        raise IntegrityError(f"a frame with a header of {nbytes} bytes")
    return int(nbytes)


def frame_nbytes(start: bytes) -> int:
    """Length of the frame of which these are the first bytes."""
    (nbytes,) = struct.unpack_from(">Q", start, 16)
    return int(nbytes)


def parse_header(raw: bytes) -> FrameHeader:
    """Parse a whole header.

    Raises
    ------
    IntegrityError
        When it is not one.
    """
    try:
        fields = _unpack_first(raw)
        flags, filters, meta = fields[3], fields[12].data, fields[13]
        names, contents = list(meta[1]), meta[2]
        layers = {_text(n): bytes(c) for n, c in zip(names, contents, strict=True)}
        codec = flags[2] & 0x0F
        header = FrameHeader(
            header_nbytes=int(fields[1]),
            frame_nbytes=int(fields[2]),
            nbytes=int(fields[4]),
            cbytes=int(fields[5]),
            typesize=int(fields[6]),
            blocksize=int(fields[7]),
            chunksize=int(fields[8]),
            sparse=bool(flags[1] & 1),
            clevel=flags[2] >> 4,
            codec=int(filters[6]) if codec == 0x0F or filters[6] >= 32 else codec,
            filters=tuple(filters[:6]),
            metalayers=layers,
        )
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, msgpack.UnpackException) as error:
        raise IntegrityError("malformed header of a Blosc2 frame") from error
    if not (header.typesize >= 1 and header.nbytes >= 0 and header.cbytes >= 0 and header.blocksize >= 0):
        raise IntegrityError("a Blosc2 frame with impossible sizes")
    if header.nbytes and header.chunksize < 0:
        raise IntegrityError("a Blosc2 frame with impossible sizes")
    return header


def refuse_special_frames(header: FrameHeader) -> None:
    """Refuse frames that are not an array or bytes.

    Raises
    ------
    UnsupportedDatasetError
        With the reason.
    """
    for name, reason in _REFUSED.items():
        if name in header.metalayers:
            raise UnsupportedDatasetError(reason)


@dataclass(frozen=True, slots=True)
class ArrayMeta:
    """What the ``b2nd`` metalayer says."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]
    dtype: np.dtype[Any]


def parse_array_meta(header: FrameHeader) -> ArrayMeta | None:
    """Shape, partition and dtype of an array; None for a frame that is just bytes.

    Raises
    ------
    IntegrityError
        When the metalayer is malformed.
    UnsupportedDatasetError
        For a dtype that cannot be served (objects, or one that NumPy does not know).
    """
    raw = header.metalayers.get("b2nd", header.metalayers.get("caterva"))
    if raw is None:
        return None
    try:
        # By hand: Blosc2 marks 16 axes with a byte that means something else in MessagePack.
        ndim, at = raw[2], 3
        sizes: list[tuple[int, ...]] = []
        for mark, form in ((0xD3, ">q"), (0xD2, ">i"), (0xD2, ">i")):
            step = 1 + struct.calcsize(form)
            if raw[at] != 0x90 + ndim or any(raw[at + 1 + i * step] != mark for i in range(ndim)):
                raise ValueError("not a list of sizes")
            sizes.append(tuple(struct.unpack_from(form, raw, at + 2 + i * step)[0] for i in range(ndim)))
            at += 1 + ndim * step
        shape, chunks, blocks = sizes
        is_numpy = len(raw) <= at or raw[at] == 0
        text = _text(_unpack_first(raw[at + 1 :])) if len(raw) > at + 1 else ""
    except (ValueError, TypeError, IndexError, struct.error, msgpack.UnpackException) as error:
        raise IntegrityError("malformed b2nd metalayer") from error
    if not is_numpy:
        raise UnsupportedDatasetError("its dtype is not one of NumPy")
    dtype = parse_dtype(text) if text else np.dtype(f"S{header.typesize}")
    return ArrayMeta(shape, chunks, blocks, dtype)


def parse_dtype(text: str) -> np.dtype[Any]:
    """The dtype that a frame's text stands for: a name, or NumPy's literal list or dict of fields.

    Raises
    ------
    UnsupportedDatasetError

    Examples
    --------
    >>> parse_dtype(">i4"), parse_dtype("[('a', '<f8', (2,)), ('b', 'S3')]").itemsize
    (dtype('>i4'), 19)
    >>> parse_dtype("[('', '|V7')]")
    dtype('V7')
    """
    if len(text) > MAX_DTYPE_CHARS or _depth(text) > _MAX_DEPTH:
        raise UnsupportedDatasetError("its dtype is too complicated")
    try:
        dtype = _dtype_of(ast.literal_eval(text) if text[:1] in "[{(" else text)
    except (ValueError, TypeError, SyntaxError, KeyError, IndexError, OverflowError, MemoryError) as error:
        raise UnsupportedDatasetError(f"NumPy does not know its dtype {text[:80]!r}") from error
    if not _is_plain(dtype):
        raise UnsupportedDatasetError(f"its dtype {text[:80]!r} has objects, which are not served")
    return dtype


def _dtype_of(form: Any) -> np.dtype[Any]:
    """As NumPy, but for fields without a name: they are the padding of an aligned dtype, or of opaque bytes."""
    if not isinstance(form, list) or not any(field[0] == "" for field in form):
        plain: np.dtype[Any] = np.dtype(form)
        return plain
    names: list[Any] = []
    formats: list[np.dtype[Any]] = []
    offsets: list[int] = []
    itemsize = 0
    for name, spec, *shape in form:
        field = np.dtype((_dtype_of(spec), tuple(shape[0]))) if shape else _dtype_of(spec)
        if name != "":
            names.append(name[-1] if isinstance(name, tuple) else name)
            formats.append(field)
            offsets.append(itemsize)
        itemsize += field.itemsize
    if not names:
        return np.dtype(f"V{itemsize}")
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "[({":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "])}":
            depth -= 1
    return deepest


def _is_plain(dtype: np.dtype[Any]) -> bool:
    if dtype.subdtype is not None:
        return _is_plain(dtype.subdtype[0])
    if dtype.fields is not None:
        return all(_is_plain(f[0]) for f in dtype.fields.values())
    return not dtype.hasobject and dtype.kind in "biufcSUVmM" and dtype.itemsize > 0


def trailer_nbytes(tail: bytes) -> int:
    """Length of the trailer of which these are the last ``TRAILER_TAIL_NBYTES``.

    Raises
    ------
    IntegrityError
    """
    if len(tail) != TRAILER_TAIL_NBYTES or tail[0] != 0xCE:
        raise IntegrityError("a Blosc2 frame without its trailer")
    (nbytes,) = struct.unpack_from(">I", tail, 1)
    if nbytes < TRAILER_TAIL_NBYTES:
        raise IntegrityError("a Blosc2 frame without its trailer")
    return int(nbytes)


def parse_trailer(raw: bytes) -> dict[str, bytes]:
    """The user's metalayers (``vlmeta``) of a trailer: compressed, packed contents.

    Raises
    ------
    IntegrityError
    """
    try:
        fields = _unpack_first(raw)
        meta = fields[1]
        return {_text(n): bytes(c) for n, c in zip(list(meta[1]), meta[2], strict=True)}
    except (ValueError, TypeError, IndexError, KeyError, msgpack.UnpackException) as error:
        raise IntegrityError("malformed trailer of a Blosc2 frame") from error


def decode_vlmeta(
    contents: Mapping[str, bytes], decode: DecodeChunk = decode_chunk_bytes
) -> tuple[dict[str, object], dict[str, str]]:
    """Values of the user's metalayers, and why the others have none (name -> reason)."""
    values: dict[str, object] = {}
    skipped: dict[str, str] = {}
    left = MAX_VLMETA_NBYTES
    for name, content in contents.items():
        try:
            raw = decode(content, left).tobytes()
            left -= len(raw)
            values[name] = _unpack_value(raw)
        except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException, IntegrityError) as error:
            skipped[name] = str(error)[:200] or type(error).__name__
    return values, skipped


def decode_metalayer(raw: bytes) -> object:
    """The value of a fixed metalayer (None when it is not one of plain values)."""
    try:
        return _unpack_value(raw)
    except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException):
        return None


def _unpack_first(raw: bytes) -> Any:
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=max(len(raw), 1))
    unpacker.feed(raw)
    return unpacker.unpack()


def _unpack_value(raw: bytes) -> object:
    return cast(
        "object",
        msgpack.unpackb(raw, raw=False, strict_map_key=False, list_hook=_tuple_or_list, ext_hook=_passive_extension),
    )


def _tuple_or_list(items: list[Any]) -> Any:
    return tuple(items[1:]) if items and items[0] == "__tuple__" else items


def _passive_extension(code: int, data: bytes) -> object:
    """Extensions of python-blosc2 that are plain values; the others could open files or run code."""
    if code == 44:
        return complex(*struct.unpack(">dd", data))
    if code == 46:
        form = cast("dict[str, Any]", _unpack_value(data))
        shape = [int(n) for n in form["shape"]]
        if "values" in form:
            array = np.empty(math.prod(shape), dtype=object)
            array[:] = form["values"]
            return array.reshape(shape)
        described = form["dtype"]
        dtype = np.dtype(described["str"] if "str" in described else [_field(f) for f in described["descr"]])
        if not _is_plain(dtype):
            raise ValueError("an array of objects")
        return np.frombuffer(form["data"], dtype).reshape(shape)
    raise ValueError(f"a value of a kind (extension {code}) that is not read")


def _field(form: Any, depth: int = 0) -> tuple[Any, ...]:
    if depth > _MAX_DEPTH:
        raise ValueError("a dtype nested too deeply")
    name, spec, *shape = form
    name = tuple(name) if isinstance(name, (list, tuple)) else name
    spec = [_field(f, depth + 1) for f in spec] if isinstance(spec, list) else spec
    return (name, spec, tuple(shape[0])) if shape else (name, spec)


def _text(raw: Any) -> str:
    return bytes(raw).decode("utf-8", "backslashreplace")
