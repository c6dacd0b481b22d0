"""NumPy is the oracle: the same items, or the same exception with the same text."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.selection import (
    AxisItems,
    AxisRange,
    Selection,
    parse_basic,
    parse_key_text,
    parse_orthogonal,
)
from caterva2_jupyter.errors import RequestError, SelectionError

from .cases import box_of, selections

shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)
bounds = st.none() | st.integers(-12, 12) | st.sampled_from([2**63, -(2**63), 2**70])
slices = st.builds(slice, bounds, bounds, st.none() | st.integers(-12, 12))
basic_items = st.one_of(
    slices,
    st.integers(-12, 12),
    st.integers(-9, 9).map(np.int16),
    st.integers(0, 9).map(np.uint64),
    st.integers(-9, 9).map(np.array),
    st.just(Ellipsis),
    st.none(),
)
basic_keys = st.one_of(basic_items, st.lists(basic_items, max_size=6).map(tuple))


def numpy_says(array, key):
    """NumPy's answer, or its exception."""
    try:
        return array[key]
    except (IndexError, TypeError, ValueError, OverflowError) as error:
        return error


@given(shapes, basic_keys)
@example((), ())
@example((), Ellipsis)
@example((3,), (0, Ellipsis))
@example((0, 3), (slice(None), 1))
@example((5,), slice(None, None, 0))
@example((5,), 2**63)
@example((3, 3), (Ellipsis, Ellipsis))
@example((3,), (0, 0))
@settings(max_examples=600, deadline=None)
def test_basic_indexing_is_that_of_numpy(shape, key):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    want = numpy_says(array, key)
    if isinstance(want, Exception):
        with pytest.raises(type(want)) as caught:
            parse_basic(key, shape)
        assert str(caught.value) == str(want)
        return
    parsed = parse_basic(key, shape)
    got = parsed.apply(box_of(array, parsed.selection))
    assert type(got) is type(want)
    assert parsed.result_shape == want.shape
    assert np.array_equal(got, want)


@pytest.mark.parametrize("key", ["a", 1.5, 1j, object(), slice("a"), slice(1.5), (0, "b"), {}, float("nan")])
def test_what_is_no_index_is_refused_as_numpy_does(key):
    array = np.zeros((3, 4))
    with pytest.raises((IndexError, TypeError)) as numpys:
        array[key]
    with pytest.raises(type(numpys.value)) as ours:
        parse_basic(key, array.shape)
    assert str(ours.value) == str(numpys.value)


def test_more_axes_than_numpy_has_are_refused_as_numpy_does():
    array = np.zeros(1)
    key = (None,) * 70
    with pytest.raises(IndexError) as numpys:
        array[key]
    with pytest.raises(IndexError) as ours:
        parse_basic(key, array.shape)
    assert str(ours.value) == str(numpys.value)


@pytest.mark.parametrize(
    "key", [[0, 1], np.array([0, 1]), True, np.bool_(True), (slice(None), [0]), np.ones((3, 4), bool)]
)
def test_lists_and_masks_name_the_way_out(key):
    with pytest.raises(SelectionError, match=r"oindex\[") as caught:
        parse_basic(key, (3, 4))
    assert isinstance(caught.value, IndexError)


def axis_keys(length):
    masks = st.lists(st.booleans(), min_size=length, max_size=length).map(lambda m: np.array(m, bool))
    keys = [slices.filter(lambda s: s.step != 0), masks]
    if length:
        index = st.integers(-length, length - 1)
        keys += [index, index.map(np.int32), st.lists(index, max_size=7), st.lists(index, max_size=7).map(tuple)]
    return st.one_of(keys)


@st.composite
def orthogonal_keys(draw):
    shape = draw(st.lists(st.integers(0, 7), min_size=1, max_size=4).map(tuple))
    return shape, tuple(draw(axis_keys(n)) for n in shape)


@given(orthogonal_keys())
@settings(max_examples=400, deadline=None)
def test_orthogonal_indexing_is_that_of_ix(case):
    shape, key = case
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    lists = [list(k) if isinstance(k, tuple) else k for k in key]
    taken = [np.atleast_1d(np.arange(n)[k]).astype(int) for n, k in zip(shape, lists, strict=True)]
    drop = tuple(0 if isinstance(k, (int, np.integer)) else slice(None) for k in key)
    want = array[np.ix_(*taken)][drop]
    parsed = parse_orthogonal(key, shape)
    got = parsed.apply(box_of(array, parsed.selection))
    assert np.array_equal(got, want)
    assert got.shape == want.shape == parsed.result_shape


def test_an_ellipsis_stands_for_the_axes_between():
    assert parse_orthogonal((..., [1, 0]), (2, 3, 4)).result_shape == (2, 3, 2)
    assert parse_orthogonal([2, 1], (4, 5)).result_shape == (2, 5)


@pytest.mark.parametrize(
    "key", [([5],), ([-4],), (0, 0, 0), (..., ...), (None,), (np.ones(4, bool),), ([[0, 1]],), (["a"],), ([1.5],), (3,)]
)
def test_orthogonal_keys_that_do_not_fit_are_refused(key):
    with pytest.raises(SelectionError):
        parse_orthogonal(key, (3, 3))


@given(st.data(), shapes)
@settings(max_examples=200, deadline=None)
def test_a_selection_survives_the_wire(data, shape):
    selection = data.draw(selections(shape))
    assert Selection.from_json(json.loads(json.dumps(selection.to_json())), shape) == selection
    assert Selection.from_json(None, shape) == Selection.whole(shape)


@pytest.mark.parametrize(
    "form",
    [
        "x", 7, {}, [7], [None], ["0:3"], [[0, 3]], [[0, 3, 1, 1]], [[0.0, 3, 1]], [[True, 3, 1]], [["0", 3, 1]],
        [{"at": 3}], [{"at": [1, 0]}], [{"at": [1, 1]}], [{"at": ["0"]}], [{"at": [True]}], [{"at": [0], "x": 1}], [{}],
        [[[0], 3, 1]],
    ],
)  # fmt: skip
def test_a_malformed_selection_is_refused(form):
    with pytest.raises(RequestError):
        Selection.from_json(form, (4,))


@pytest.mark.parametrize(
    "form",
    [[], [[0, 1, 1]] * 2, [[0, 5, 1]], [[-1, 2, 1]], [[3, 2, 1]], [[0, 3, 0]], [[0, 3, -1]], [{"at": [4]}],
     [{"at": [-1]}], [[0, 2**80, 1]], [{"at": [2**80]}]],
)  # fmt: skip
def test_a_selection_that_does_not_fit_is_refused_not_clamped(form):
    with pytest.raises(SelectionError):
        Selection.from_json(form, (4,))


def test_sizes_of_selections():
    selection = Selection((AxisRange(1, 10, 4), AxisItems(np.array([0, 5])), AxisRange(3, 3)))
    assert (selection.shape, selection.size) == ((3, 2, 0), 0)
    assert selection.axes[0].last == 9
    assert hash(selection) == hash(Selection(selection.axes))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", ()), (" ", ()), ("1", (1,)), ("-1, 2", (-1, 2)), ("::", (slice(None),)), ("1:2:-3", (slice(1, 2, -3),)),
        (" 0 : 5 ,...", (slice(0, 5), Ellipsis)), ("None,newaxis,Ellipsis", (None, None, Ellipsis)), ("1,", (1,)),
        ("+3", (3,)), (":5", (slice(5),)),
    ],
)  # fmt: skip
def test_slices_are_written_as_between_brackets(text, key):
    assert parse_key_text(text) == key


@pytest.mark.parametrize(
    "text",
    ["a", "1.5", "1:2:3:4", ",1", "1,,2", "[1]", "(1,)", "1 2", "__import__('os')", "1+1", "٣", "1_0", "0x1", "....",
    "9" * 20,
     "1," * 600],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_text_that_is_no_slice_is_refused(text):
    """A4: it is never evaluated."""
    with pytest.raises(SelectionError):
        parse_key_text(text)


@given(st.text(max_size=20) | st.text("0123456789:,.- ", max_size=20))
@settings(deadline=None)
def test_any_text_is_a_slice_or_refused(text):
    try:
        parse_key_text(text)
    except SelectionError:
        return
