"""Expressions over arrays: text parsed with ``ast`` against an allow-list, into a tree of our own.

What is not on the list is refused with what it is and where; nothing is ever evaluated by Python itself but sums of
small numbers. ``evaluation`` gives a tree its shape and dtype, and computes parts of it.
"""

from __future__ import annotations

import ast
import keyword
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import EllipsisType
from typing import Any

import numpy as np

from ..errors import RequestError

__all__ = [
    "FUNCTIONS",
    "MAX_OPERANDS",
    "REDUCTIONS",
    "Call",
    "Constant",
    "Expression",
    "KeyItem",
    "Node",
    "Operand",
    "Reduce",
    "is_operand_name",
    "parse",
    "write",
]

MAX_CHARS = 4096
MAX_NODES = 512
MAX_DEPTH = 128
MAX_OPERANDS = 32
_MAX_INT = 2**64 - 1
_MAX_SHIFT = 64

KeyItem = int | slice | EllipsisType
Scalar = bool | int | float | complex

_CASTS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
          "float16", "float32", "float64", "complex64", "complex128")  # fmt: skip


def _cast(dtype: np.dtype[Any], value: Any) -> Any:
    """The same numbers in another dtype; of a plain number one whose dtype is not weak any more."""
    return np.asarray(value).astype(dtype)


FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int]] = {
    "abs": (np.absolute, 1), "absolute": (np.absolute, 1), "sign": (np.sign, 1), "square": (np.square, 1),
    "sqrt": (np.sqrt, 1), "cbrt": (np.cbrt, 1), "exp": (np.exp, 1), "exp2": (np.exp2, 1), "expm1": (np.expm1, 1),
    "log": (np.log, 1), "log2": (np.log2, 1), "log10": (np.log10, 1), "log1p": (np.log1p, 1),
    "sin": (np.sin, 1), "cos": (np.cos, 1), "tan": (np.tan, 1),
    "arcsin": (np.arcsin, 1), "arccos": (np.arccos, 1), "arctan": (np.arctan, 1), "arctan2": (np.arctan2, 2),
    "sinh": (np.sinh, 1), "cosh": (np.cosh, 1), "tanh": (np.tanh, 1),
    "arcsinh": (np.arcsinh, 1), "arccosh": (np.arccosh, 1), "arctanh": (np.arctanh, 1),
    "degrees": (np.degrees, 1), "radians": (np.radians, 1), "hypot": (np.hypot, 2),
    "floor": (np.floor, 1), "ceil": (np.ceil, 1), "rint": (np.rint, 1), "trunc": (np.trunc, 1),
    "conj": (np.conjugate, 1), "conjugate": (np.conjugate, 1), "real": (np.real, 1), "imag": (np.imag, 1),
    "isnan": (np.isnan, 1), "isinf": (np.isinf, 1), "isfinite": (np.isfinite, 1), "signbit": (np.signbit, 1),
    "minimum": (np.minimum, 2), "maximum": (np.maximum, 2), "fmin": (np.fmin, 2), "fmax": (np.fmax, 2),
    "logaddexp": (np.logaddexp, 2), "copysign": (np.copysign, 2), "nextafter": (np.nextafter, 2),
    "fmod": (np.fmod, 2), "remainder": (np.remainder, 2), "mod": (np.remainder, 2), "power": (np.power, 2),
    "add": (np.add, 2), "subtract": (np.subtract, 2), "multiply": (np.multiply, 2), "divide": (np.true_divide, 2),
    "true_divide": (np.true_divide, 2), "floor_divide": (np.floor_divide, 2),
    "negative": (np.negative, 1), "positive": (np.positive, 1), "reciprocal": (np.reciprocal, 1),
    "equal": (np.equal, 2), "not_equal": (np.not_equal, 2), "less": (np.less, 2), "less_equal": (np.less_equal, 2),
    "greater": (np.greater, 2), "greater_equal": (np.greater_equal, 2),
    "logical_and": (np.logical_and, 2), "logical_or": (np.logical_or, 2), "logical_xor": (np.logical_xor, 2),
    "logical_not": (np.logical_not, 1), "invert": (np.invert, 1),
    "bitwise_and": (np.bitwise_and, 2), "bitwise_or": (np.bitwise_or, 2), "bitwise_xor": (np.bitwise_xor, 2),
    "left_shift": (np.left_shift, 2), "right_shift": (np.right_shift, 2),
    "where": (np.where, 3), "clip": (np.clip, 3),
    **{name: (partial(_cast, np.dtype(name)), 1) for name in _CASTS},
}  # fmt: skip
"""What may be called element by element, and with how many arguments."""

REDUCTIONS = frozenset({"sum", "prod", "mean", "std", "var", "min", "max", "any", "all"})
"""What may be called with ``axis``, ``keepdims`` and, for ``std`` and ``var``, ``ddof``."""

_BINARY: Mapping[type[ast.operator], tuple[str, str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("add", "+", operator.add),
    ast.Sub: ("subtract", "-", operator.sub),
    ast.Mult: ("multiply", "*", operator.mul),
    ast.Div: ("divide", "/", operator.truediv),
    ast.FloorDiv: ("floor_divide", "//", operator.floordiv),
    ast.Mod: ("remainder", "%", operator.mod),
    ast.Pow: ("power", "**", operator.pow),
    ast.LShift: ("left_shift", "<<", operator.lshift),
    ast.RShift: ("right_shift", ">>", operator.rshift),
    ast.BitAnd: ("bitwise_and", "&", operator.and_),
    ast.BitOr: ("bitwise_or", "|", operator.or_),
    ast.BitXor: ("bitwise_xor", "^", operator.xor),
}
_SIGNS: Mapping[str, str] = {name: sign for name, sign, _ in _BINARY.values()}
_COMPARISONS: Mapping[str, str] = {
    "equal": "==", "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=",
}  # fmt: skip
_PREFIXES: Mapping[str, str] = {"negative": "-", "positive": "+", "invert": "~"}
_UNARY: Mapping[type[ast.unaryop], tuple[str, Callable[[Any], Any]]] = {
    ast.USub: ("negative", operator.neg),
    ast.UAdd: ("positive", operator.pos),
    ast.Invert: ("invert", operator.inv),
}
_COMPARED: Mapping[type[ast.cmpop], str] = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
# What people try, and what to write in its place.
_REFUSED: Mapping[type[ast.AST], str] = {
    ast.BoolOp: "'and' and 'or' do not work on arrays: write & and |, with parentheses",
    ast.Not: "'not' does not work on arrays: write ~",
    ast.IfExp: "write where(condition, x, y) in place of 'x if condition else y'",
    ast.Attribute: "attributes and methods are not allowed: write sum(a), not a.sum()",
    ast.MatMult: "@ is not element by element, and not supported",
    ast.Lambda: "functions cannot be defined",
    ast.List: "lists are not allowed: operands are named arrays",
    ast.Tuple: "tuples are not allowed here",
    ast.Starred: "arguments cannot be unpacked",
    ast.JoinedStr: "texts are not allowed",
    ast.NamedExpr: "nothing can be assigned",
}


@dataclass(frozen=True, slots=True)
class Constant:
    """A number. Its type is weak: as in NumPy, it takes that of the array it meets."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Operand:
    """An array, or what ``key`` (ints, slices, one ``...``) takes of it."""

    name: str
    key: tuple[KeyItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One of `FUNCTIONS`."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Reduce:
    """One of `REDUCTIONS`; ``axis`` None is all of them."""

    function: str
    argument: Node
    axis: tuple[int, ...] | None = None
    keepdims: bool = False
    ddof: int | float = 0


Node = Constant | Operand | Call | Reduce


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression.

    Attributes
    ----------
    text : str
        As it was given.
    root : Node
    names : tuple of str
        Operands, in the order in which they first occur.
    """

    text: str
    root: Node
    names: tuple[str, ...]


def is_operand_name(text: str) -> bool:
    """Can an operand be called that?

    Examples
    --------
    >>> is_operand_name("a1"), is_operand_name("1a"), is_operand_name("lambda")
    (True, False, False)
    """
    return (
        len(text) <= 100 and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is not None and not keyword.iskeyword(text)
    )


def parse(text: str) -> Expression:
    """Parse an expression; nothing of it is trusted.

    Parameters
    ----------
    text : str
        Operators and numbers as in Python, names of operands, slices of operands (``a[1:3]``), `FUNCTIONS` and
        `REDUCTIONS`.

    Raises
    ------
    RequestError
        When it is not an expression, has something in it that is not allowed, or is too large.

    Examples
    --------
    >>> parse("a + 2 * sin(b[1:3])").names
    ('a', 'b')
    >>> parse("a.__class__")
    Traceback (most recent call last):
        ...
    caterva2_jupyter.errors.RequestError: attributes and methods are not allowed: write sum(a), not a.sum()
    """
    if not isinstance(text, str) or not text.strip():
        raise RequestError("the expression is empty")
    if len(text) > MAX_CHARS:
        raise RequestError(f"an expression has at most {MAX_CHARS} characters; store a part of it as one of its own")
    if not text.isascii() or "\0" in text:
        raise RequestError("an expression is written in plain ASCII")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise RequestError(f"not an expression: {error.msg or 'invalid syntax'}") from None
    except (ValueError, RecursionError, MemoryError):
        raise RequestError("not an expression: it is nested too deeply") from None
    nodes = _Nodes()
    root = nodes.convert(tree.body, 0)
    if not nodes.names:
        raise RequestError("an expression needs at least one array in it")
    return Expression(text, root, tuple(nodes.names))


class _Nodes:
    """Turns Python's tree into ours, counting."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self._count = 0

    def convert(self, node: ast.AST, depth: int) -> Node:
        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            raise RequestError(
                f"an expression has at most {MAX_NODES} parts, {MAX_DEPTH} deep; store a part of it as one of its own"
            )
        match node:
            case ast.Constant():
                return Constant(_number(node.value))
            case ast.Name():
                return self._operand(node.id)
            case ast.Subscript():
                return self._sliced(node)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return _unary(type(op), self.convert(operand, depth + 1))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return _binary(type(op), self.convert(left, depth + 1), self.convert(right, depth + 1))
            case ast.Compare():
                return self._compared(node, depth)
            case ast.Call():
                return self._called(node, depth)
        raise RequestError(_why_refused(node))

    def _operand(self, name: str) -> Operand:
        if not is_operand_name(name):
            raise RequestError(f"not a name of an operand: {name[:40]!r}")
        self.names[name] = None
        if len(self.names) > MAX_OPERANDS:
            raise RequestError(f"an expression has at most {MAX_OPERANDS} operands")
        return Operand(name)

    def _sliced(self, node: ast.Subscript) -> Operand:
        if not isinstance(node.value, ast.Name):
            raise RequestError("only operands can be sliced, as a[1:3]: slice those, or the result")
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        key = tuple(_key_item(item) for item in items)
        if sum(1 for item in key if item is Ellipsis) > 1:
            raise RequestError("an index can only have a single ellipsis ('...')")
        return Operand(self._operand(node.value.id).name, key)

    def _compared(self, node: ast.Compare, depth: int) -> Node:
        if len(node.ops) != 1:
            raise RequestError("comparisons cannot be chained: write (a < b) & (b < c)")
        function = _COMPARED.get(type(node.ops[0]))
        if function is None:
            raise RequestError("'in' and 'is' do not work on arrays")
        sides = self.convert(node.left, depth + 1), self.convert(node.comparators[0], depth + 1)
        return Call(function, sides)

    def _called(self, node: ast.Call, depth: int) -> Node:
        if isinstance(node.func, ast.Attribute):
            raise RequestError(_why_refused(node.func))
        if not isinstance(node.func, ast.Name):
            raise RequestError("only functions by their names can be called")
        name = node.func.id
        if any(isinstance(argument, ast.Starred) for argument in node.args) or any(
            k.arg is None for k in node.keywords
        ):
            raise RequestError(_REFUSED[ast.Starred])
        if name in REDUCTIONS:
            return self._reduced(name, node, depth)
        if name not in FUNCTIONS:
            raise RequestError(f"no function {name[:40]!r}; there are {', '.join(sorted({*FUNCTIONS, *REDUCTIONS}))}")
        if node.keywords:
            raise RequestError(f"{name} takes no argument {str(node.keywords[0].arg)[:40]!r}")
        _, count = FUNCTIONS[name]
        if len(node.args) != count:
            raise RequestError(f"{name} takes {count} argument{'s' if count > 1 else ''}, not {len(node.args)}")
        return Call(name, tuple(self.convert(argument, depth + 1) for argument in node.args))

    def _reduced(self, name: str, node: ast.Call, depth: int) -> Reduce:
        options: dict[str, ast.AST] = {}
        positional = node.args[1:]
        if not node.args or len(positional) > 1:
            raise RequestError(f"write {name}(x), {name}(x, axis=0) or {name}(x, axis=(0, 1), keepdims=True)")
        if positional:
            options["axis"] = positional[0]
        allowed = {"axis", "keepdims", "ddof"} if name in ("std", "var") else {"axis", "keepdims"}
        for given in node.keywords:
            if given.arg not in allowed or given.arg in options:
                raise RequestError(f"{name} takes no argument {str(given.arg)[:40]!r}")
            options[given.arg] = given.value
        axis = _axes(options["axis"]) if "axis" in options else None
        keepdims, ddof = _literal(options.get("keepdims"), False), _literal(options.get("ddof"), 0)
        if not isinstance(keepdims, bool):
            raise RequestError("keepdims is True or False")
        if isinstance(ddof, (bool, complex)):
            raise RequestError("ddof is a number")
        return Reduce(name, self.convert(node.args[0], depth + 1), axis, keepdims, ddof)


def _why_refused(node: ast.AST) -> str:
    kinds: Iterable[type[ast.AST]] = (type(node), type(getattr(node, "op", None)))  # type: ignore[assignment]
    for kind in kinds:
        if kind in _REFUSED:
            return _REFUSED[kind]
    return f"{type(node).__name__} is not allowed in an expression"


def _number(value: Any) -> Scalar:
    if isinstance(value, (str, bytes)):
        raise RequestError("texts are not allowed in an expression")
    if not isinstance(value, (bool, int, float, complex)):
        raise RequestError(f"{value!r} is not a number")
    return _checked(value)


def _checked(value: Any) -> Scalar:
    if isinstance(value, int) and abs(value) > _MAX_INT:
        raise RequestError("a number is too large: integers have 64 bits")
    if not isinstance(value, (bool, int, float, complex)):
        raise RequestError("not a number")
    return value


def _literal(node: ast.AST | None, default: Scalar) -> Scalar:
    if node is None:
        return default
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return _checked(-_number(node.operand.value))
    if not isinstance(node, ast.Constant):
        raise RequestError("axis, keepdims, ddof and bounds of slices are plain numbers")
    return _number(node.value)


def _integer(node: ast.AST) -> int:
    value = _literal(node, 0)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise RequestError("indices, bounds of slices and axes are integers")
    return value


def _axes(node: ast.AST) -> tuple[int, ...] | None:
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Tuple):
        return tuple(_integer(item) for item in node.elts)
    return (_integer(node),)


def _key_item(node: ast.AST) -> KeyItem:
    if isinstance(node, ast.Slice):
        bounds = [None if bound is None else _integer(bound) for bound in (node.lower, node.upper, node.step)]
        if bounds[2] == 0:
            raise RequestError("slice step cannot be zero")
        return slice(*bounds)
    if isinstance(node, ast.Constant) and node.value is Ellipsis:
        return Ellipsis
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        raise RequestError("fields cannot be taken in an expression: use arrays of one number per item")
    return _integer(node)


def _unary(op: type[ast.unaryop], argument: Node) -> Node:
    function, compute = _UNARY[op]
    if isinstance(argument, Constant):
        if isinstance(argument.value, bool) and op is ast.Invert:
            raise RequestError("write False in place of ~True")
        try:
            return Constant(_checked(compute(argument.value)))
        except TypeError as error:
            raise RequestError(str(error)) from None
    return Call(function, (argument,))


def _binary(op: type[ast.operator], left: Node, right: Node) -> Node:
    function, sign, compute = _BINARY[op]
    if not isinstance(left, Constant) or not isinstance(right, Constant):
        return Call(function, (left, right))
    # Two numbers give a number, that is small: 9**9**9 would be computed for years.
    if isinstance(left.value, int) and isinstance(right.value, int):
        if op is ast.LShift and right.value > _MAX_SHIFT:
            raise RequestError("a number is too large: integers have 64 bits")
        if op is ast.Pow and abs(left.value) > 1 and right.value > _MAX_SHIFT:
            raise RequestError("a number is too large: integers have 64 bits")
        if op is ast.Pow and right.value > _MAX_SHIFT:
            right = Constant(right.value % 2 + 2)  # the same power of -1, 0 or 1
    try:
        return Constant(_checked(compute(left.value, right.value)))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise RequestError(f"{left.value} {sign} {right.value}: {error}") from None


def write(node: Node) -> str:
    """The text of a tree; ``parse`` gives the tree again.

    Examples
    --------
    >>> write(parse("a+2 *b[1:3,...]").root), write(parse("-sum(a, 0) < 1").root)
    ('a + (2 * b[1:3, ...])', '(-sum(a, axis=(0,))) < 1')
    """
    match node:
        case Constant(value=value):
            return _written(value)
        case Operand(name=name, key=key):
            return f"{name}[{', '.join(map(_written_key, key))}]" if key else name
        case Reduce():
            options = [write(node.argument)]
            if node.axis is not None:
                options.append(f"axis={node.axis!r}")
            if node.keepdims:
                options.append("keepdims=True")
            if node.ddof:
                options.append(f"ddof={node.ddof!r}")
            return f"{node.function}({', '.join(options)})"
    sign = _SIGNS.get(node.function) or _COMPARISONS.get(node.function)
    if sign is not None:
        left, right = (_in_parentheses(argument) for argument in node.arguments)
        return f"{left} {sign} {right}"
    if node.function in _PREFIXES:
        return f"{_PREFIXES[node.function]}{_in_parentheses(node.arguments[0])}"
    return f"{node.function}({', '.join(write(argument) for argument in node.arguments)})"


def _in_parentheses(node: Node) -> str:
    text = write(node)
    is_alone = isinstance(node, (Operand, Reduce)) or (
        isinstance(node, Call) and node.function not in {*_SIGNS, *_COMPARISONS, *_PREFIXES}
    )
    return text if is_alone or (isinstance(node, Constant) and text[0].isdigit()) else f"({text})"


def _written(value: Scalar) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "(1e999 - 1e999)" if math.isnan(value) else "1e999" if value > 0 else "-1e999"
    if isinstance(value, complex) and not isinstance(value, float):
        real, imag = value.real, value.imag
        return f"({_written(real)} + {_written(imag)} * 1j)"
    return repr(value)


def _written_key(item: KeyItem) -> str:
    if isinstance(item, slice):
        start, stop, step = ("" if bound is None else str(bound) for bound in (item.start, item.stop, item.step))
        return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"
    return "..." if item is Ellipsis else str(item)
