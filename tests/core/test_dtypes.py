import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caterva2_jupyter.core.dtypes import VLEN_UTF8, dtype_from_json, dtype_to_json, is_vlen
from caterva2_jupyter.errors import IntegrityError

# I3.
DTYPES = [
    "?", "|i1", "|u1", "<i2", ">i2", "<u4", ">u8", "<f2", ">f2", "<f4", ">f8", "<f16", "<c8", ">c16", "<c32", "S1",
    "S7",
    "<U3", ">U3", "V5", "<M8[ns]", ">M8[D]", "<m8[25s]", "<M8", "<m8[ms]",
    [("a", "<i4")], [("a", ">i4"), ("b", "<f8", (2, 3)), ("é", "S3")], [("r", [("x", "<f4"), ("y", [("z", "?")])])],
    {"names": ["a", "b"], "formats": ["<i4", ">f8"], "offsets": [3, 11], "itemsize": 32},
    {"names": ["a", "b"], "formats": ["<i4", "<i4"], "offsets": [0, 2], "itemsize": 8},
    {"names": ["a"], "formats": [("<f4", (2,))], "offsets": [4], "itemsize": 16},
    np.dtype([("a", "u1"), ("b", "f8")], align=True), ("<i4", (2, 3)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_dtype_survives_the_wire_with_its_byte_order(dtype):
    dtype = np.dtype(dtype)
    got = dtype_from_json(json.loads(json.dumps(dtype_to_json(dtype))))
    assert got == dtype
    assert (got.itemsize, got.byteorder, got.names) == (dtype.itemsize, dtype.byteorder, dtype.names)


@given(hnp.array_dtypes() | hnp.scalar_dtypes() | hnp.nested_dtypes())
@settings(max_examples=200, deadline=None)
def test_any_dtype_without_objects_survives_the_wire(dtype):
    if dtype.hasobject:
        return
    assert dtype_from_json(json.loads(json.dumps(dtype_to_json(dtype)))) == dtype


def test_strings_of_variable_length_have_a_name_of_their_own():
    assert dtype_to_json(VLEN_UTF8) == "vlen-utf8"
    assert is_vlen(dtype_from_json("vlen-utf8"))
    assert not is_vlen(np.dtype(object))
    assert not is_vlen(np.dtype("S3"))


@pytest.mark.parametrize("dtype", [object, [("a", object)], [("a", "i4"), ("b", [("c", "O")])], VLEN_UTF8], ids=str)
def test_object_dtypes_do_not_travel(dtype):
    dtype = np.dtype(dtype)
    if is_vlen(dtype):
        dtype = np.dtype([("s", dtype)])
    with pytest.raises(TypeError):
        dtype_to_json(dtype)


@pytest.mark.parametrize(
    "form",
    [
        "O", "|O", "|O8", "object", "i4,i4", "i4, O", "2i4", "(2,)i4", "x", "", "float64, __import__('os')", "<i3",
        "a5",
        "U99999999999", "T", "|T16", "<M8[xx]", "M8[", "\0", "é", "float32", "int", "c", "p", "g", "vlen-utf9",
        7, None, True, 1.5,
        {}, {"base": "O", "shape": [2]}, {"base": "<i4"}, {"base": "<i4", "shape": [-1]}, {"base": "<i4", "shape": "x"},
        {"names": ["a"]}, {"names": ["a"], "formats": ["<i4"], "offsets": [0], "itemsize": 2},
        {"names": ["a"], "formats": ["O"], "offsets": [0], "itemsize": 8},
        {"names": ["a", "a"], "formats": ["<i4", "<i4"], "offsets": [0, 4], "itemsize": 8},
        {"names": ["a"], "formats": ["<i4"], "offsets": [-1], "itemsize": 8}, {"base": "<i4", "shape": [2**40, 2**40]},
        [["a"]], [["a", "O"]], [["a", "<i4", [-2]]], [["a", "vlen-utf8"]], [7], [[]], [["a", "<i4"], ["a", "<i4"]],
        [["a", "<i4", [2**70]]],
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_dtype_is_refused(form):
    """A4: and nothing is evaluated."""
    with pytest.raises(IntegrityError):
        dtype_from_json(form)


def test_dtypes_that_are_too_deep_or_too_wide_are_refused():
    deep: object = "<i4"
    for _ in range(100):
        deep = [["a", deep]]
    with pytest.raises(IntegrityError, match="deeply"):
        dtype_from_json(deep)
    with pytest.raises(IntegrityError):
        dtype_from_json([[f"f{i}", "<i4"] for i in range(10_001)])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["<i4", "O", "S3"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["base", "shape", "names", "formats", "offsets", "itemsize"]), inner, max_size=5
        )
    ),
    max_leaves=8,
)


@given(json_values)
@settings(max_examples=500, deadline=None)
def test_any_json_is_a_dtype_or_refused(form):
    """I10."""
    try:
        assert not dtype_from_json(form).hasobject or form == "vlen-utf8"
    except IntegrityError:
        return
