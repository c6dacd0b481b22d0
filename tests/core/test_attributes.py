import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caterva2_jupyter.core.attributes import attrs_tag, decode_attr, decode_attrs, encode_attr, encode_attrs
from caterva2_jupyter.errors import IntegrityError


def travelled(value):
    return decode_attr(json.loads(json.dumps(encode_attr(value), allow_nan=False)))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.just("t"), inner, max_size=3)
        | st.dictionaries(st.integers() | st.binary(), inner, max_size=3)
    ),
    max_leaves=10,
)


def same(a, b):
    """Equal, types included; NaN is equal to itself."""
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


@given(plain)
@settings(max_examples=300, deadline=None)
def test_plain_values_survive_the_wire_with_their_types(value):
    assert same(travelled(value), value)


@given(hnp.arrays(hnp.array_dtypes() | hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)))
@settings(max_examples=200, deadline=None)
def test_arrays_survive_the_wire_with_their_dtypes(array):
    got = travelled(array)
    assert isinstance(got, np.ndarray)
    assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert got.flags.writeable


@pytest.mark.parametrize(
    "value",
    [np.float32(1.5), np.int64(-3), np.bool_(True), np.complex64(1 + 2j), np.datetime64("2024-01-01"), np.bytes_(b"ab"),
     np.array((1, 2.5), [("a", "i4"), ("b", ">f8")])[()], np.float64("nan"), np.float16(0.1)],
    ids=repr,
)  # fmt: skip
def test_scalars_survive_the_wire_with_their_dtypes(value):
    got = travelled(value)
    assert got.dtype == value.dtype
    assert got.tobytes() == value.tobytes()


def test_arrays_of_text_survive_the_wire():
    value = np.array([["a", "é"], ["", "x"]], object)
    assert travelled(value).tolist() == value.tolist()
    assert travelled(np.array([b"ab", "c"], object)).tolist() == ["ab", "c"]
    assert travelled(np.array("one", object)).item() == "one"
    assert travelled(np.empty((0, 3), object)).shape == (0, 3)
    assert travelled(np.str_("é")) == "é"


def test_fortran_order_and_views_are_sent_as_their_items():
    array = np.asfortranarray(np.arange(6).reshape(2, 3))[:, ::-1]
    assert np.array_equal(travelled(array), array)


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, np.array([None]), 1j, lambda: 0, np.array([[1], [2]], object)],
    ids=lambda value: repr(value).split(" at 0x")[0],
)
def test_what_has_no_form_is_skipped_with_the_reason(value):
    forms, skipped = encode_attrs({"bad": value, "good": 1})
    assert forms == {"good": 1}
    assert "no JSON form" in skipped["bad"]


@pytest.mark.parametrize(
    "form",
    [
        {"t": "unknown"}, {"t": 7}, {"t": None, "x": 1}, {"t": []}, {"t": "float"}, {"t": "float", "v": "x"},
        {"t": "bytes", "v": "#"},
        {"t": "bytes", "v": 7}, {"t": "tuple", "v": 7}, {"t": "dict", "v": [[1]]}, {"t": "dict", "v": [[[1], 2]]},
        {"t": "nd", "d": "O", "s": [1], "v": ""}, {"t": "nd", "d": "<i4", "s": [2], "v": "AAAA"},
        {"t": "nd", "d": "<i4", "s": [-1, -1], "v": "AAAAAA=="}, {"t": "nd", "d": "<i4", "s": [2**70], "v": "AAAAAA=="},
        {"t": "scalar", "d": "<i4", "v": ""},
        {"t": "strings", "v": ["a"], "s": [2]},
        {"t": "strings", "v": 7, "s": [2]}, {"t": "nd"},
    ],
    ids=repr,
)  # fmt: skip
def test_malformed_forms_are_refused(form):
    with pytest.raises(IntegrityError):
        decode_attr(form)
    with pytest.raises(IntegrityError):
        decode_attrs({"a": [form]})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["<i4", "AAAAAA=="]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["t", "v", "d", "s", "x"]), inner, max_size=4)
        | st.fixed_dictionaries(
            {"t": st.sampled_from(["float", "bytes", "tuple", "dict", "nd", "scalar", "strings", "empty"])},
            optional={"v": inner, "d": inner, "s": inner},
        )
    ),
    max_leaves=8,
)


@given(json_values)
@settings(max_examples=600, deadline=None)
def test_any_json_is_an_attribute_or_refused(form):
    """I10."""
    try:
        decode_attr(form)
    except IntegrityError:
        return


def test_nesting_without_end_is_refused():
    """I10: a form of 10^5 brackets does not end in a stack overflow."""
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(IntegrityError):
        decode_attr(deep)
    with pytest.raises(TypeError):
        encode_attr(deep)
    while isinstance(deep, list):  # taken apart by hand: the garbage collector would recurse
        deep = deep[0]


def test_the_tag_is_that_of_the_content():
    assert attrs_tag({"a": 1, "b": 2}) == attrs_tag({"b": 2, "a": 1})
    assert len({attrs_tag({"a": v}) for v in (1, 1.5, "1", None, True, [1], {"t": "tuple", "v": [1]})}) == 7
    assert attrs_tag({"a": "\udcff"})


@pytest.mark.parametrize("value", [np.bytes_(b""), np.str_("")])
def test_an_empty_string_of_numpy_comes_back(value):
    assert type(decode_attr(encode_attr(value))) is type(value)
    assert decode_attr(encode_attr(value)) == value
