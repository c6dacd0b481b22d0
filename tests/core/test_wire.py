import json
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.blocks import checksum_seed, make_record, whole_record
from caterva2_jupyter.core.exact_slice import (
    PieceAssembler,
    encode_pieces,
    piece_geometry,
    selection_digest,
    slice_seed,
)
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.core.revalidation import SAME_DTYPE, KnownBlocks, SameRecord
from caterva2_jupyter.core.selection import AxisRange, Selection
from caterva2_jupyter.core.wire import (
    End,
    Preamble,
    ReadRequest,
    RecordParser,
    SameParser,
    encode_end,
    encode_error,
    encode_preamble,
    encode_record,
    encode_same,
    pack_held,
    unpack_held,
)
from caterva2_jupyter.errors import (
    Caterva2Error,
    DatasetChangedError,
    IntegrityError,
    InvalidPathError,
    NotFoundError,
    RequestError,
)

ENTRY = Entry("a.b2nd", "array", id="id1", version="v1", geometry=Geometry((9,), (4,), (2,), np.dtype("<i4")))
SEED = checksum_seed("id1", "v1")

heads = st.binary(min_size=32, max_size=40)
block_lists = st.dictionaries(st.integers(0, 2**32 - 2), st.binary(max_size=30), max_size=5)


selected = st.tuples(st.integers(0, 8), st.integers(1, 9)).map(
    lambda place: Selection((AxisRange(place[0], min(9, place[0] + place[1])),))
)


@st.composite
def records(draw):
    nchunk = draw(st.integers(0, 2**62))
    if draw(st.booleans()):
        return whole_record(SEED, nchunk, draw(st.binary(max_size=50)))
    blocks = sorted(draw(block_lists).items())
    return make_record(SEED, nchunk, draw(heads), [b for b, _ in blocks], [d for _, d in blocks])


def as_tuple(record):
    tables = [record.ids.tolist(), record.sizes.tolist(), record.crcs.tolist()]
    return (record.nchunk, record.head, *tables, bytes(record.body))


def answer(some, with_entry=False):
    parts = [encode_preamble(ENTRY, with_entry)]
    for record in some:
        parts += [bytes(part) for part in encode_record(record, SEED)]
    return b"".join([*parts, encode_end(len(some), SEED)])


def parse(data, cuts=()):
    """Items of an answer that comes in pieces."""
    parser, items, position = RecordParser(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        items += parser.feed(data[position:cut])
        position = max(cut, position)
    parser.close()
    return items


@given(st.lists(records(), max_size=4), st.lists(st.integers(0, 2000), max_size=6), st.booleans())
@settings(max_examples=200, deadline=None)
def test_an_answer_is_parsed_however_it_is_cut(some, cuts, with_entry):
    data = answer(some, with_entry)
    preamble, *rest, end = parse(data, [min(cut, len(data)) for cut in cuts])
    assert preamble == Preamble("id1", "v1", ENTRY if with_entry else None)
    assert [as_tuple(r) for r in rest] == [as_tuple(r) for r in some]
    assert end == End(len(some))


@given(st.lists(records(), max_size=3), st.data())
@settings(max_examples=200, deadline=None)
def test_an_answer_that_is_cut_short_is_noticed(some, data):
    """N2, N3: whatever is missing from its end."""
    whole = answer(some)
    short = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(IntegrityError):
        parse(short)


@given(st.lists(records(), min_size=1, max_size=3), st.data())
@settings(max_examples=400, deadline=None)
def test_a_flipped_bit_is_always_noticed(some, data):
    """S4, A13: a byte of an answer that changes on the way is never taken for data."""
    whole = bytearray(answer(some))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError):
        parse(bytes(whole))


@given(selected, st.data())
@settings(max_examples=100, deadline=None)
def test_an_exact_slice_is_parsed_however_it_is_cut_and_wherever_a_bit_flips(selection, data):
    """S4, A13 for pieces too."""
    pieces, digest = slice_pieces(selection)
    whole = slice_answer(pieces, digest)
    preamble, *rest, end = parse(whole, data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    assert preamble == Preamble("id1", "v1", None, digest)
    assert preamble.answer == "slice"
    assert [as_tuple(r) for r in rest] == [as_tuple(r) for r in pieces]
    assert end == End(len(pieces))
    box = PieceAssembler(ENTRY.geometry, selection)
    for piece in rest:
        box.add(piece)
    box.finish()
    assert np.array_equal(box.out, np.arange(9, dtype="<i4")[selection.axes[0].start : selection.axes[0].stop])
    flipped = bytearray(whole)
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError):
        parse(bytes(flipped))


def slice_pieces(selection):
    digest = selection_digest(selection)
    box = np.arange(9, dtype="<i4")[selection.axes[0].start : selection.axes[0].stop]
    return encode_pieces(slice_seed(SEED, digest), box, piece_geometry(ENTRY.geometry, selection)), digest


def slice_answer(pieces, digest):
    parts = [encode_preamble(ENTRY, False, digest)]
    for piece in pieces:
        parts += [bytes(part) for part in encode_record(piece, SEED, "slice")]
    return b"".join([*parts, encode_end(len(pieces), SEED)])


def test_pieces_of_another_selection_or_in_place_of_blocks_are_noticed():
    one, other = (slice_pieces(Selection((AxisRange(start, start + 3),))) for start in (0, 4))
    block = make_record(SEED, 0, bytes(32), [0], [b"abc"])
    record = b"".join(map(bytes, encode_record(block, SEED)))
    piece = b"".join(map(bytes, encode_record(one[0][0], SEED, "slice")))
    end = encode_end(1, SEED)
    for data in [
        slice_answer(one[0], other[1]),
        encode_preamble(ENTRY, False, one[1]) + record + end,
        encode_preamble(ENTRY, False) + piece + end,
    ]:
        with pytest.raises(IntegrityError):
            parse(data)


@pytest.mark.parametrize("form", [{"answer": "sum"}, {"answer": "slice"}, {"answer": "slice", "selection": "x"}])
def test_an_answer_of_a_kind_that_is_not_known_is_refused(form):
    body = json.dumps({"id": "id1", "version": "v1", **form}).encode()
    with pytest.raises(IntegrityError):
        RecordParser().feed(struct.pack("<4sII", b"C2R1", len(body), zlib.crc32(body)) + body)


def test_records_that_are_missing_or_foreign_are_noticed():
    one, two = (make_record(SEED, n, bytes(32), [0], [b"abc"]) for n in (1, 2))
    preamble, end = encode_preamble(ENTRY, False), encode_end(2, SEED)
    first, second = (b"".join(map(bytes, encode_record(r, SEED))) for r in (one, two))
    assert len(parse(preamble + first + second + end)) == 4
    other = checksum_seed("id1", "v2")
    foreign = b"".join(map(bytes, encode_record(make_record(other, 1, bytes(32), [0], [b"abc"]), other)))
    long = preamble + first + second + end + b"\0"
    for data in [preamble + first + end, preamble + first + foreign + end, long, first]:
        with pytest.raises(IntegrityError):
            parse(data)


def test_an_error_in_the_midst_is_raised_as_what_it_is():
    data = encode_preamble(ENTRY, False) + encode_error(DatasetChangedError("a.b2nd changed"), SEED)
    with pytest.raises(DatasetChangedError, match=r"a\.b2nd changed"):
        parse(data)


@pytest.mark.parametrize(
    "body", [b"", b"7", b"[]", b"{}", b'{"status": 1e999}', b'{"status": "x"}', b"[" * 100_000, b"\xff"]
)
def test_an_error_that_is_malformed_is_refused(body):
    fixed = struct.pack("<4sBBHQIIQ", b"C2BK", 4, 0, 0, zlib.crc32(body), 0, 0, len(body))
    record = fixed + struct.pack("<I", zlib.crc32(fixed, SEED)) + body
    with pytest.raises(IntegrityError):
        RecordParser().feed(encode_preamble(ENTRY, False) + record)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_garbage_is_no_answer(data):
    """I10."""
    for prefix in (b"", b"C2R1", encode_preamble(ENTRY, False), encode_preamble(ENTRY, False) + b"C2BK"):
        with pytest.raises(Caterva2Error):
            parse(prefix + data)


@pytest.mark.parametrize(
    "data",
    [
        b"C2R1" + struct.pack("<II", 2**32 - 1, 0),
        encode_preamble(ENTRY, False) + struct.pack("<4sBBHQIIQI", b"C2BK", 1, 0, 0, 0, 2**32 - 1, 0, 0, 0),
        encode_preamble(ENTRY, False) + struct.pack("<4sBBHQIIQI", b"C2BK", 1, 0, 0, 0, 0, 2**32 - 1, 0, 0),
        encode_preamble(ENTRY, False) + struct.pack("<4sBBHQIIQI", b"C2BK", 1, 0, 0, 0, 0, 0, 2**63, 0),
    ],
)
def test_sizes_are_refused_before_their_bytes_come(data):
    """A5, I10: a length of gigabytes is no reason to wait for them."""
    with pytest.raises(IntegrityError):
        RecordParser().feed(data)


def test_a_record_over_the_limit_is_refused():
    record = make_record(SEED, 0, bytes(32), [0], [bytes(1001)])
    with pytest.raises(IntegrityError):
        RecordParser(max_record_nbytes=1000).feed(answer([record]))


def test_bytes_that_come_one_by_one_take_no_object_each():
    record = make_record(SEED, 0, bytes(32), [0, 3], [bytes(9000), b"x" * 5000])
    parser, data, items = RecordParser(), answer([record]), []
    for position in range(len(data)):
        items += parser.feed(data[position : position + 1])
        assert len(parser._waiting) <= 1
    parser.close()
    assert as_tuple(items[1]) == as_tuple(record)


def test_many_small_pieces_cost_no_more_than_their_bytes():
    data = answer([make_record(SEED, 0, bytes(32), [0], [bytes(200_000)])])
    begin = time.process_time()
    items = parse(data, range(0, len(data), 10))
    assert len(items) == 3
    assert time.process_time() - begin < 2


# Requests

requests = st.builds(
    ReadRequest,
    root=st.sampled_from(["foo", "@public", "my root"]),
    path=st.sampled_from(["a.b2nd", "dir/é ?#%.b2nd"]),
    version=st.none() | st.sampled_from(["v1", "0" * 24]),
    selection=st.none() | st.just([[0, 3, 1], {"at": [1, 2]}]),
    window=st.none() | st.just((3, 9)),
    held=st.none() | st.lists(st.booleans(), max_size=40).map(lambda bits: np.array(bits, np.bool_)),
    mode=st.sampled_from(["auto", "blocks", "slice"]),
    fast=st.booleans(),
)


@given(requests)
@settings(deadline=None)
def test_a_request_survives_the_wire(request):
    got = ReadRequest.from_bytes(json.dumps(request.to_json()).encode())
    fields = ("root", "path", "version", "selection", "window", "mode", "fast")
    assert [getattr(got, f) for f in fields] == [getattr(request, f) for f in fields]
    if request.held is None:
        assert got.held is None
    else:
        assert 0 <= len(got.held) - len(request.held) < 8
        assert got.held[: len(request.held)].tolist() == request.held.tolist()
        assert not got.held[len(request.held) :].any()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"{}", b'{"path": 7}', b'{"path": null}',
        b'{"path": "foo/a", "version": 7}', b'{"path": "foo/a", "x": 1}', b'{"path": "foo/a", "mode": "exact"}',
        b'{"path": "foo/a", "window": 7}', b'{"path": "foo/a", "window": [1]}', b'{"path": "foo/a", "window": [2, 1]}',
        b'{"path": "foo/a", "window": [-1, 1]}', b'{"path": "foo/a", "window": [0.0, 1]}',
        b'{"path": "foo/a", "window": [true, 1]}', b'{"path": "foo/a", "window": [0, 1e99]}',
        b'{"path": "foo/a", "window": [0, 9999999999999999999999]}', b'{"path": "foo/a", "held": "#"}',
        b'{"path": "foo/a", "held": 7}', b'{"path": "foo/a", "held": "\xc3\xa9"}', b'{"path": "foo/a", "mode": {}}',
        b'{"path": "foo/a", "mode": null}', b'{"path": "foo/a", "fast": 1}', b'{"path": "foo/a", "known": 7}',
        b'{"path": "foo/a", "version": "v", "known": {"blocks": "AQ=="}}',
        b'{"path": "foo/a", "version": "v", "known": {"blocks": 1, "digests": ""}}',
        b'{"path": "foo/a", "version": "v", "known": {"blocks": "AQ==", "digests": "AQ=="}}',
        b'{"path": "foo/a", "known": {"blocks": "", "digests": ""}}',
        b'{"path": "foo/a", "version": "v", "held": "", "known": {"blocks": "", "digests": ""}}',
        b'{"path": "foo/a", "version": "v", "mode": "auto", "known": {"blocks": "", "digests": ""}}',
        b"[" * 100_000, b'{"path":' * 100_000, b'{"selection":' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused(body):
    """I10: a RequestError (400), at once, whatever it is."""
    begin = time.process_time()
    with pytest.raises(RequestError):
        ReadRequest.from_bytes(body)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("path", ["../etc/passwd", "foo/../x", "/foo", "-/x", "foo//x", "foo/\0", ""])
def test_a_request_of_an_impossible_path_is_not_found(path):
    """A1."""
    with pytest.raises(InvalidPathError) as caught:
        ReadRequest.from_bytes(json.dumps({"path": path}).encode())
    assert isinstance(caught.value, NotFoundError)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
request_keys = st.sampled_from(["path", "version", "selection", "window", "held", "mode", "fast", "known"])


@given(st.dictionaries(request_keys, json_values).map(lambda form: {"path": "foo/a", **form}) | json_values)
@settings(max_examples=400, deadline=None)
def test_any_json_is_a_request_or_refused(form):
    """I10."""
    try:
        request = ReadRequest.from_bytes(json.dumps(form).encode())
    except (RequestError, InvalidPathError):
        return
    assert request.root


@given(st.lists(st.booleans(), max_size=100).map(lambda bits: np.array(bits, np.bool_)))
def test_bits_are_packed_lowest_first(held):
    assert unpack_held(pack_held(held))[: len(held)].tolist() == held.tolist()
    assert pack_held(np.array([True] + [False] * 8)) == "AQA="


# Comparisons with an older version


def test_a_comparison_survives_the_wire():
    known = KnownBlocks(np.array([True, False, True]), b"12345678" * 2)
    got = ReadRequest.from_bytes(json.dumps(ReadRequest("foo", "a", "v", known=known).to_json()).encode())
    assert got.known is not None
    assert got.known.digests == known.digests
    assert got.known.blocks[:3].tolist() == [True, False, True]
    assert got.of_known().held[:3].tolist() == [False, True, False]


same_rows = st.lists(
    st.tuples(*[st.integers(0, 2**32 - 1)] * 3, st.binary(min_size=8, max_size=8)), min_size=1, max_size=5
).map(lambda rows: np.array(rows, SAME_DTYPE))
same_records = st.builds(
    SameRecord, st.integers(0, 2**62), st.binary(min_size=8, max_size=8), st.just(np.zeros(0, SAME_DTYPE))
) | st.builds(SameRecord, st.integers(0, 2**62), st.just(b""), same_rows)


def said(some):
    records = b"".join(encode_same(same, SEED) for same in some)
    return encode_preamble(ENTRY, False) + records + encode_end(len(some), SEED)


def same_items(data, cuts=()):
    parser, items, position = SameParser(), [], 0
    for cut in [*cuts, len(data)]:
        items += parser.feed_same(data[position:cut])
        position = cut
    parser.close()
    return [(item.nchunk, item.proof, item.rows.tobytes()) for item in items if isinstance(item, SameRecord)]


@given(st.lists(same_records, max_size=4), st.data())
@settings(deadline=None)
def test_what_is_the_same_comes_as_it_was_said(some, data):
    stream = said(some)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    want = [(same.nchunk, same.proof, same.rows.tobytes()) for same in some]
    assert same_items(stream, cuts) == want


@given(st.lists(same_records, min_size=1, max_size=3), st.data())
@settings(deadline=None)
def test_a_damaged_or_cut_comparison_is_refused(some, data):
    stream = bytearray(said(some))
    with pytest.raises(IntegrityError):
        same_items(bytes(stream[: data.draw(st.integers(0, len(stream) - 1))]))
    bit = data.draw(st.integers(8 * 12, 8 * len(stream) - 1))
    stream[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Caterva2Error):
        same_items(bytes(stream))


def test_blocks_and_comparisons_do_not_stand_for_each_other():
    same = SameRecord(0, b"12345678", np.zeros(0, SAME_DTYPE))
    with pytest.raises(IntegrityError):
        RecordParser().feed(said([same]))
    with pytest.raises(IntegrityError):
        SameParser().feed_same(answer([make_record(SEED, 0, bytes(32), [0], [b"a"])]))
    for proof, rows in [(b"", 0), (b"1234567", 0), (b"12345678", 1)]:
        with pytest.raises(IntegrityError):
            SameParser().feed_same(said([SameRecord(0, proof, np.zeros(rows, SAME_DTYPE))]))
