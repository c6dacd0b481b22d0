"""Expressions: what is allowed, what is refused, and NumPy's values for every part of them."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from caterva2_jupyter.compute import evaluation
from caterva2_jupyter.compute.evaluation import Signature, bind
from caterva2_jupyter.compute.expression import FUNCTIONS, MAX_CHARS, REDUCTIONS, Constant, parse
from caterva2_jupyter.core.selection import Selection, parse_basic, parse_orthogonal
from caterva2_jupyter.errors import RequestError

NAMES: dict[str, Any] = {name: function for name, (function, _) in FUNCTIONS.items()}
NAMES |= {name: getattr(np, name) for name in REDUCTIONS}


def take(array: np.ndarray, selection: Selection) -> np.ndarray:
    lists = [getattr(a, "items", None) for a in selection.axes]
    keys = [np.arange(a.start, a.stop, a.step) if i is None else i for a, i in zip(selection.axes, lists, strict=True)]
    return array[np.ix_(*keys)] if keys else array


def by_numpy(text: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """NumPy's own answer, Python being the judge of the text: in this test alone."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(eval(text, {"__builtins__": {}, **NAMES}, dict(arrays)))


def computed(text: str, arrays: dict[str, np.ndarray], key: Any = ()) -> np.ndarray:
    bound = bind(parse(text), {n: Signature(a.shape, a.dtype) for n, a in arrays.items()})
    parsed = parse_basic(key, bound.shape)
    box = bound.box(parsed.selection, lambda name, selection: take(arrays[name], selection))
    return np.asarray(parsed.apply(box))


A = np.arange(24.0).reshape(2, 3, 4)
B = np.arange(1, 5, dtype="i2")
C = np.arange(1, 7, dtype=">f4").reshape(2, 3, 1) / 7
ARRAYS = {"a": A, "b": B, "c": C, "i": np.arange(-3, 21, dtype="i8").reshape(2, 3, 4), "m": A > 7, "z": A * 1j + 2}


@pytest.mark.parametrize(
    "text",
    [
        "a + b",
        "a + 2 * sin(c) - -b",
        "b ** 2 + 1",
        "b + 300",
        "c * 2.5",
        "c + sin(1)",
        "i // 4 % 3",
        "i & 6 | (b << 1) ^ ~i",
        "(a > 3) & ~(b == 2)",
        "where(a > c, a, b)",
        "where(m, 1, 0) + where(m, c, 2.0)",
        "clip(a, 2, 9)",
        "abs(z) + real(z) * imag(z)",
        "conj(z) ** 2",
        "arctan2(a, b) + hypot(c, 2)",
        "minimum(a, maximum(b, 3))",
        "a[1:3, ::2, ::-1] + b[3::-1]",
        "a[0, -1] * b[1]",
        "a[..., 1:3] - c[1]",
        "sum(a) + b",
        "sum(a, axis=0)",
        "sum(a, 1) * prod(c, axis=(0, 1))",
        "a - mean(a, axis=(0, 2), keepdims=True)",
        "std(a, axis=-1)",
        "var(z, axis=1, ddof=1)",
        "(a - min(a)) / (max(a) - min(a))",
        "any(m, axis=0) & all(m | (a >= 0), axis=0)",
        "max(sum(a * b, axis=2), axis=0)",
        "mean(b)",
        "sum(m)",
        "sum(b, axis=0) + min(b)",
        "2 ** 3 * b - 7 // 2",
        "a",
        "sum(a, axis=())",
    ],
)
def test_values_are_those_of_numpy(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_numpy(text, ARRAYS)
    for nbytes in (8, 100, 1 << 20):
        monkeypatch.setattr(evaluation, "TILE_NBYTES", nbytes)
        got = computed(text, ARRAYS)
        assert got.dtype == expected.dtype, text
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-6 if "c" in text else 1e-12)


HOSTILE = [
    "",
    " ",
    "1 + 2",
    "9 ** 9 ** 9 + a",
    "1 << 99999999999",
    "-1 ** 99999999999 << 999999 | a",
    "__import__('os').system('x')",
    "().__class__.__bases__[0].__subclasses__()",
    "a.__class__",
    "a.sum()",
    "a.ctypes",
    "(lambda: a)()",
    "[a for a in b]",
    "{a: b}",
    "{a}",
    "a, b",
    "[a, b]",
    "a[b]",
    "a[a > 1]",
    "a['x']",
    "a[1:2:0]",
    "a[None]",
    "a[..., ...]",
    "a[99999999999999999999999]",
    "(a + b)[0]",
    "a if b else c",
    "a and b",
    "not a",
    "a < b < c",
    "a in b",
    "a is b",
    "a @ b",
    "a := b",
    "a = b",
    "a; b",
    "a\nb",
    "import os",
    "print(a)",
    "eval(a)",
    "open(a)",
    "getattr(a, b)",
    "sum(*a)",
    "sum(**a)",
    "sum()",
    "sum(a, b)",
    "sum(a, axis=b)",
    "sum(a, axis=1.5)",
    "sum(a, axis=True)",
    "sum(a, keepdims=1)",
    "sum(a, ddof=1)",
    "sum(a, dtype=1)",
    "sum(a, 0, axis=0)",
    "sum(a, out=b)",
    "sin(a, b)",
    "sin(a, out=b)",
    "sin",
    "sin()(a)",
    "a()",
    "'a' * 10 ** 9",
    "f'{a}'",
    "b'a' + a",
    "a + 'x'",
    "a + None",
    "a + ...",
    "await a",
    "yield a",
    "a + 1e",
    "1if a else b",
    "ａ + 1",
    "a\0",
    "def",
    "class + 1",
    "(" * 1000 + "a" + ")" * 1000,
    "-" * 3000 + "a",
    "~" * 200 + "a",
    "+".join("a" for _ in range(600)),
    "sin(" * 190 + "a" + ")" * 190,
    "a" * (MAX_CHARS + 1),
    "a" * 200,
    "+".join(f"a{n}" for n in range(40)),
    "123456789" * 10 + " + a",
    "1" * 4000 + "+ a",
    "2 ** 64 + a",
    "1 / 0 + a",
    "1 % 0 + a",
    "10.0 ** 400 + a",
    "~True + a",
    "~1.5 + a",
    "a ** a ** a ** a ** 1e999 ** 'x'",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: t[:25].encode("unicode_escape").decode())
def test_what_is_not_allowed_is_refused_in_one_line_at_once(text: str) -> None:
    begun = time.process_time()
    with pytest.raises(RequestError) as refused:
        bind(parse(text), {n: Signature(a.shape, a.dtype) for n, a in ARRAYS.items()})
    assert time.process_time() - begun < 1
    assert 0 < len(str(refused.value)) < 1000
    assert "\n" not in str(refused.value)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab1209.*+-/()[]<>=&|~^%,:! \t\n'\"{}@;sincoum_xE", max_size=60))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        bound = bind(parse(text), {"a": Signature((3,), np.dtype("f8")), "b": Signature((3,), np.dtype("i4"))})
    except RequestError:
        return
    assert bound.box(Selection.whole(bound.shape), lambda n, s: np.ones(s.shape)).shape == bound.shape


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a + x", "x is not in the list of available datasets"),
        ("a + d", "shapes (2, 3, 4) and (5,) do not broadcast together"),
        ("a & b", "bitwise_and does not work on these"),
        ("sum(a, axis=3)", "axis 3 is out of bounds for an array of 3 axes"),
        ("sum(a, axis=(0, -3))", "an axis occurs twice"),
        ("a[2]", "index 2 is out of bounds for axis 0 with size 2"),
        ("a[0, 0, 0, 0]", "too many indices"),
        ("s + 1", "of dtype |S3 cannot be computed with"),
        ("f + 1", "cannot be computed with"),
        ("b ** -1", "negative integer powers"),
        ("u + 300", "out of bounds"),
        ("max(e)", "max of no items"),
    ],
)
def test_what_does_not_fit_is_told(text: str, words: str) -> None:
    arrays = {
        **ARRAYS,
        "d": np.zeros(5),
        "s": np.zeros(3, "S3"),
        "f": np.zeros(3, [("x", "f4")]),
        "u": np.zeros(3, "u1"),
        "e": np.zeros(0),
    }
    with pytest.raises(RequestError) as refused:
        bind(parse(text), {n: Signature(a.shape, a.dtype) for n, a in arrays.items()})
    assert words in str(refused.value)


def test_numbers_are_folded_as_python_does() -> None:
    for text, value in [
        ("0 ** 99999999999", 0),
        ("(-1) ** 99999999999", -1),
        ("2 ** 62 + 2 ** 62", 2**63),
        ("2 ** -1", 0.5),
        ("7 // 2 * 1.5", 4.5),
        ("1 << 10", 1024),
    ]:
        arguments = parse(f"a + ({text})").root.arguments
        assert arguments[1] == Constant(value)


def test_only_the_operands_items_behind_a_part_are_asked_for() -> None:
    asked: list[tuple[str, list[Any]]] = []
    arrays = {"a": np.arange(1000.0).reshape(10, 100), "b": np.arange(100.0), "c": np.arange(10.0)[:, None]}
    bound = bind(parse("a * 2 + b - c + a[::-1]"), {n: Signature(x.shape, x.dtype) for n, x in arrays.items()})

    def fetch(name: str, selection: Selection) -> np.ndarray:
        asked.append((name, selection.to_json()))
        return take(arrays[name], selection)

    selection = Selection.from_json([[2, 4, 1], [10, 20, 5]], bound.shape)
    np.testing.assert_array_equal(
        bound.box(selection, fetch),
        by_numpy("a * 2 + b - c + a[::-1]", arrays)[2:4, 10:20:5],
    )
    assert asked == [
        ("a", [[2, 4, 1], [10, 16, 5]]),
        ("b", [[10, 16, 5]]),
        ("c", [[2, 4, 1], [0, 1, 1]]),
        ("a", [[6, 8, 1], [10, 16, 5]]),
    ]


def test_reductions_of_what_is_huge_ask_for_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    bound = bind(
        parse("mean(a, axis=1) + b"), {"a": Signature((100, 10**6), np.dtype("f4")), "b": Signature((), np.dtype("f4"))}
    )

    def fetch(name: str, selection: Selection) -> np.ndarray:
        sizes.append(selection.size * 4)
        return np.full(selection.shape, 2, "f4")

    assert bound.box(Selection.from_json([[5, 8, 1]], bound.shape), fetch).tolist() == [4.0] * 3
    assert max(sizes) <= evaluation.TILE_NBYTES
    assert sum(sizes) <= 3 * 4 * 10**6 + 100


DTYPES = st.sampled_from(["b", "u1", "i2", ">i4", "i8", "f4", ">f8", "c8", "?"])


@st.composite
def arrays_and_texts(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], str]:
    shape = draw(st.lists(st.integers(0, 5), min_size=0, max_size=3))
    arrays = {}
    for name in "ab":
        own = [n if draw(st.booleans()) else 1 for n in shape][draw(st.integers(0, len(shape))) :]
        dtype = draw(DTYPES)
        values = draw(st.lists(st.integers(0, 5), min_size=int(np.prod(own)), max_size=int(np.prod(own))))
        arrays[name] = np.array(values).astype(dtype).reshape(own)

    def expression(depth: int) -> str:
        kind = draw(st.integers(0, 5 if depth else 1))
        if kind == 0:
            return draw(st.sampled_from("ab"))
        if kind == 1:
            return draw(st.sampled_from(["a", "b", "2", "1.5", "a[..., ::-1]", "b[::2]", "a[1:]", "True"]))
        if kind == 2:
            sign = draw(st.sampled_from(["+", "-", "*", "<", "==", "&", "|"]))
            return f"({expression(depth - 1)} {sign} {expression(depth - 1)})"
        if kind == 3:
            return f"{draw(st.sampled_from(['sin', 'abs', 'real', 'conj', 'isnan']))}({expression(depth - 1)})"
        if kind == 4:
            return f"where({expression(depth - 1)}, {expression(depth - 1)}, {expression(depth - 1)})"
        function = draw(st.sampled_from(sorted(REDUCTIONS)))
        options = draw(st.sampled_from(["", ", axis=0", ", axis=-1", ", axis=0, keepdims=True", ", axis=()"]))
        return f"{function}({expression(depth - 1)}{options})"

    return arrays, expression(3)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(arrays_and_texts(), st.data())
def test_any_part_of_any_expression_is_what_numpy_gives(made: Any, data: st.DataObject) -> None:
    arrays, text = made
    try:
        parsed = parse(text)
    except RequestError:
        assume(False)
    try:
        expected = by_numpy(text, arrays)
    except (TypeError, ValueError, IndexError, OverflowError):
        expected = None
    try:
        bound = bind(parsed, {n: Signature(a.shape, a.dtype) for n, a in arrays.items()})
    except RequestError:
        # NumPy may still do it where nothing is computed: of no items.
        assert expected is None or 0 in [a.size for a in arrays.values()]
        return
    assert expected is not None
    assert bound.shape == expected.shape
    assert bound.dtype == expected.dtype
    key = tuple(
        data.draw(st.one_of(st.slices(n), st.lists(st.integers(0, n - 1), max_size=3) if n else st.slices(n)))
        for n in bound.shape
    )
    selection = parse_orthogonal(key, bound.shape).selection
    nbytes = data.draw(st.sampled_from([1, 16, 1 << 20]))
    before = evaluation.TILE_NBYTES
    evaluation.TILE_NBYTES = nbytes
    try:
        got = bound.box(selection, lambda name, wanted: take(arrays[name], wanted))
    finally:
        evaluation.TILE_NBYTES = before
    np.testing.assert_allclose(got, take(expected, selection), rtol=2e-5, atol=1e-5)
