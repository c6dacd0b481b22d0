"""Expressions over remote arrays, from Python: NumPy's values, shapes, dtypes, and nothing read unasked."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caterva2_jupyter as cat2
from caterva2_jupyter.client import lazy_expression
from caterva2_jupyter.client.lazy_expression import LazyExpression
from caterva2_jupyter.compute.expression import FUNCTIONS, parse, write
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.memory_service import MemoryService

A = np.arange(3000, dtype="i4").reshape(30, 100)
B = np.linspace(0, 1, 100).astype("f4")
FIELDS = np.array([(1, 2.5), (3, 4.5)], dtype=[("x", "i4"), ("y", "f8")])


@pytest.fixture(scope="module")
def service() -> Iterator[MemoryService]:
    root = MemoryRoot({"a.b2nd": A, "b.b2nd": B, "fields.b2nd": FIELDS, "big.b2nd": A.astype(">f8")})
    root.set("s.b2nd", np.array(["x"]))
    with MemoryService({"foo": root}) as made:
        yield made


@pytest.fixture
def client(service: MemoryService) -> Iterator[cat2.Client]:
    with cat2.connect(service.url) as made:
        yield made


def test_operators_read_nothing_until_they_are_indexed(service: MemoryService, client: cat2.Client) -> None:
    a, b = client["foo/a"], client["foo/b"]
    nrequests = len(service.requests)
    lazy = (a + b * 2 - 1) / (1 + np.abs(a)) ** 0.5
    assert isinstance(lazy, LazyExpression)
    assert (lazy.shape, lazy.dtype, lazy.ndim, lazy.size, len(lazy)) == ((30, 100), np.dtype("f8"), 2, 3000, 30)
    assert len(service.requests) == nrequests
    expected = (A + B * 2 - 1) / (1 + np.abs(A)) ** 0.5
    np.testing.assert_allclose(lazy[3:5, ::-9], expected[3:5, ::-9])
    assert len(service.requests) == nrequests + 2  # one for each operand, though one occurs twice
    np.testing.assert_allclose(np.asarray(lazy), expected)
    np.testing.assert_allclose(lazy.oindex[[5, 1], :3], expected[[5, 1], :3])
    np.testing.assert_allclose(lazy.mean(axis=0), expected.mean(axis=0))
    assert float(lazy.max()) == expected.max()


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: 2 - a,
        lambda a, b: a // 7 % 3,
        lambda a, b: -(a**2),
        lambda a, b: (a > 5) & ~(b < 0.5),
        lambda a, b: (a == 7) | (a != 3),
        lambda a, b: a << 2 ^ 5,
        lambda a, b: np.sin(a) + np.arctan2(b, a),
        lambda a, b: np.maximum(a, b) - np.hypot(b, 2),
        lambda a, b: a * np.float32(2),
        lambda a, b: b * np.float64(2),
        lambda a, b: b * 2.0,
        lambda a, b: a + np.int64(1) + True,
        lambda a, b: a * 1j,
        lambda a, b: b + np.arange(100),
        lambda a, b: np.arange(30)[:, None] * b,
        lambda a, b: b + float("inf") - float("nan"),
    ],
)
def test_values_and_dtypes_are_those_of_numpy(client: cat2.Client, function: Any) -> None:
    with np.errstate(all="ignore"):
        lazy, expected = function(client["foo/a"], client["foo/b"]), function(A, B)
    assert isinstance(lazy, LazyExpression)
    assert (lazy.dtype, lazy.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(lazy[...], expected, rtol=1e-6)
    again = pickle.loads(pickle.dumps(lazy))
    np.testing.assert_allclose(again[1:3], expected[1:3], rtol=1e-6)


def test_expressions_from_text(client: cat2.Client) -> None:
    text = "a[::2]  + mean(b) * where(a[1::2] > 50, 1, -1)"
    lazy = client.lazyexpr(text, {"a": "foo/a", "b": client["foo/b"]})
    assert lazy.expression == text
    expected = A[::2] + B.mean(dtype="f8").astype("f4") * np.where(A[1::2] > 50, 1, -1)
    assert lazy.dtype == expected.dtype
    np.testing.assert_allclose(lazy[5], expected[5])
    both = lazy + client["foo/b"]
    np.testing.assert_allclose(both[5], (expected + B)[5], rtol=1e-6)


def test_what_is_no_expression_is_refused(client: cat2.Client) -> None:
    a = client["foo/a"]
    for text, operands, words in [
        ("a.sum()", {"a": a}, "attributes"),
        ("a + c", {"a": a}, "c is not in the list"),
        ("a", {"a": 3}, "operand a is not an array"),
        ("a", {"a b": a}, "not a name"),
        ("a + b[1:]", {"a": a, "b": "foo/b"}, "do not broadcast"),
        ("a", {"a": "foo/s"}, "cannot be computed with"),
    ]:
        with pytest.raises((cat2.RequestError, TypeError), match=words):
            client.lazyexpr(text, operands)
    with pytest.raises(cat2.NotFoundError):
        client.lazyexpr("a", {"a": "foo/none"})
    with pytest.raises(TypeError):
        a @ a
    with pytest.raises(TypeError):
        a + "x"
    with pytest.raises(TypeError, match="cannot be written to"):
        a += 1
    with pytest.raises(IndexError, match="oindex"):
        (a + 1)[[1, 2]]
    with pytest.raises(cat2.RequestError, match="in memory, which cannot be stored"):
        (a + np.arange(100)).save("@public/x")
    with pytest.raises(cat2.RequestError, match="is a field"):
        (client["foo/fields"]["x"] + 1).save("@public/x")


def test_equality_is_that_of_items_and_hashing_that_of_objects(client: cat2.Client) -> None:
    a, b = client["foo/a"], client["foo/b"]
    assert (a == 5)[0, :10].tolist() == (A == 5)[0, :10].tolist()
    assert {a: 1, b: 2}[a] == 1
    assert a in {a}
    assert a is not None
    assert (a == None) is False  # noqa: E711
    assert (a != "text") is True
    with pytest.raises(ValueError, match="truth value"):
        bool(a == b)


def test_fields_and_big_endian_operands(client: cat2.Client) -> None:
    np.testing.assert_array_equal((client["foo/fields"]["y"] * 2)[...], FIELDS["y"] * 2)
    lazy = client["foo/big"] + 1
    assert lazy.dtype == np.dtype("f8")
    np.testing.assert_array_equal(lazy[2], A[2] + 1.0)


def test_large_results_are_computed_in_parts(client: cat2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_expression, "TILE_NBYTES", 4000)
    lazy = client["foo/a"] * 2 + client["foo/b"]
    np.testing.assert_allclose(lazy[...], A * 2 + B)
    with cat2.connect(client.url_base, max_nbytes=100) as strict, pytest.raises(cat2.TooLargeError, match="index it"):
        np.asarray(strict["foo/a"] + 1)


NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-(2**64) + 1, 2**64 - 1),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False, allow_infinity=False),
)


@settings(max_examples=200, deadline=None)
@given(NUMBERS, st.sampled_from(sorted(n for n, (_, count) in FUNCTIONS.items() if count == 2)))
def test_what_is_written_is_parsed_to_the_same(number: Any, function: str) -> None:
    from caterva2_jupyter.compute.expression import Call, Constant, Operand

    tree = Call(function, (Call("sin", (Operand("a", (1, slice(None, 3), Ellipsis)),)), Constant(number)))
    again = parse(write(tree)).root
    assert again.arguments[0] == tree.arguments[0]  # type: ignore[union-attr]
    assert again.arguments[1].value == number  # type: ignore[union-attr]
    assert isinstance(again.arguments[1].value, type(number))  # type: ignore[union-attr]
