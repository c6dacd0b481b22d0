import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caterva2_jupyter.core.catalog import CatalogPage, CatalogQuery, Cursor, parse_filter
from caterva2_jupyter.core.metadata import Entry, Geometry
from caterva2_jupyter.errors import IntegrityError, InvalidPathError, RequestError

ARRAY = Entry(
    "data/Temp.b2nd",
    "array",
    id="a1",
    version="v1",
    geometry=Geometry((4, 6), (2, 3), (1, 3), np.dtype("<f4")),
    attrs={"units": "K"},
    dims=("time", "x"),
)

queries = st.builds(
    CatalogQuery,
    under=st.sampled_from(["", "dir", "a b/é"]),
    depth=st.integers(0, 1000),
    after=st.sampled_from(["", "dir/x.b2nd"]),
    limit=st.integers(1, 10_000),
    since=st.none() | st.builds(Cursor, st.sampled_from(["e1", "a:b"]), st.integers(0, 10**17)),
    q=st.sampled_from(["", "temp ndim>1"]),
)


@given(queries)
def test_a_query_survives_a_url(query):
    assert CatalogQuery.from_params(query.to_params()) == query


def test_the_default_query_says_nothing():
    assert CatalogQuery().to_params() == {}
    assert CatalogQuery.from_params({}) == CatalogQuery()


@pytest.mark.parametrize(
    "params",
    [{"depth": "-1"}, {"depth": "1001"}, {"depth": "x"}, {"depth": "1.5"}, {"depth": "٣"}, {"limit": "10001"},
     {"limit": "9" * 40}, {"limit": " 1"}, {"since": "e"}, {"since": ":1"}, {"since": "e:"}, {"since": "e:-1"},
     {"since": "e:" + "9" * 19}, {"q": "x" * 1001}],
    ids=repr,
)  # fmt: skip
def test_a_malformed_query_is_refused(params):
    with pytest.raises(RequestError):
        CatalogQuery.from_params(params)


@pytest.mark.parametrize("params", [{"under": "../x"}, {"under": "/x"}, {"after": "a//b"}, {"under": "a\0"}])
def test_a_query_below_an_impossible_path_is_not_found(params):
    with pytest.raises(InvalidPathError):
        CatalogQuery.from_params(params)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True), ("temp", True), ("TEMP", True), ("data/t", True), ("rain", False), ("temp rain", False),
        ("kind:array", True), ("kind:file", False), ("dtype:float32", True), ("dtype:<f4", True), ("dtype:f8", False),
        ("attr:units", True), ("attr:unit", False), ("dim:time", True), ("dim:tim", False), ("ndim>1", True),
        ("ndim>2", False), ("ndim<=2", True), ("size=24", True), ("nbytes>=96", True), ("nbytes<96", False),
        ("ndim=2 dim:x temp", True), ("temp.b2nd", True), ("(.*)+$", False), ("ndim>x", False), ("a:b", False),
    ],
)  # fmt: skip
def test_filters(text, expected):
    assert parse_filter(text)(ARRAY) is expected


def test_groups_have_no_shape_to_filter_by():
    assert not parse_filter("ndim>=0")(Entry("dir", "group"))
    assert not parse_filter("dtype:float32")(Entry("dir", "group"))


def page(**change):
    entry = json.dumps(ARRAY.to_json())
    return CatalogPage(**{"epoch": "e", "seq": 3, "items": (entry,), "deleted": ("x",), "next": "y", **change})


def test_a_page_survives_the_wire():
    got = CatalogPage.from_json(json.loads(page().to_json_text()))
    assert list(got.entries()) == [ARRAY]
    assert (got.cursor, got.deleted, got.next) == (Cursor("e", 3), ("x",), "y")
    empty = page(items=(), deleted=(), next=None)
    assert CatalogPage.from_json(json.loads(empty.to_json_text())) == empty


@pytest.mark.parametrize(
    "change",
    [{"next": "../x"}, {"next": 7, "deleted": 7}, {"deleted": ["/x"]}, {"deleted": 7}, {"items": 7}, {"items": None},
     {"seq": None}, {"seq": "x"}, {"seq": float("inf")}, {"seq": -1}],
    ids=repr,
)  # fmt: skip
def test_a_malformed_page_is_refused(change):
    form = json.loads(page().to_json_text()) | change
    with pytest.raises(IntegrityError):
        CatalogPage.from_json(form)


@pytest.mark.parametrize("form", [None, 7, "x", [], {}, {"epoch": "e"}])
def test_what_is_no_page_is_refused(form):
    with pytest.raises(IntegrityError):
        CatalogPage.from_json(form)


def test_entries_of_a_page_are_checked_when_they_are_read():
    with pytest.raises(IntegrityError):
        list(page(items=('{"path": "../x", "kind": "group"}',)).entries())
    with pytest.raises(IntegrityError):
        list(page(items=("7",)).entries())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["epoch", "seq", "items", "deleted", "next"]), json_values))
@settings(max_examples=300, deadline=None)
def test_any_json_is_a_page_or_refused(change):
    """I10."""
    try:
        got = CatalogPage.from_json(json.loads(page().to_json_text()) | change)
        list(got.entries())
    except IntegrityError:
        return


def test_cursors_are_texts():
    assert str(Cursor("e", 3)) == "e:3"
    assert Cursor.parse("a:b:3") == Cursor("a:b", 3)
