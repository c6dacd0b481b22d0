"""Expressions over arrays from Python: ``(a + b)[...]``, ``np.sin(a)``, and ``client.lazyexpr``.

Nothing is read before an expression is indexed; then each operand's part that is needed is read, and the values are
computed here. ``save`` stores an expression at the subscriber, where it is an array for everybody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..compute.evaluation import BoundExpression, KeptBoxes, Signature, bind
from ..compute.expression import (
    FUNCTIONS,
    REDUCTIONS,
    Call,
    Constant,
    Expression,
    Node,
    Operand,
    Reduce,
    is_operand_name,
    parse,
    write,
)
from ..core.selection import AxisItems, ParsedKey, Selection, parse_basic, parse_orthogonal
from ..errors import RequestError, TooLargeError
from .representation import format_nbytes, html_table, plain

if TYPE_CHECKING:
    from .remote_array import RemoteArray

__all__ = ["Computing", "LazyExpression", "operand_source"]

TILE_NBYTES = 64 << 20
# Of several names of one function the first is written.
_UFUNCS: Mapping[Any, str] = {
    function: name for name, (function, _) in list(FUNCTIONS.items())[::-1] if isinstance(function, np.ufunc)
}
_HOLDS_NUMBERS = "biufcmM"


class Computing(NDArrayOperatorsMixin):
    """Operators and NumPy's functions, which give a `LazyExpression` and read nothing.

    Notes
    -----
    ``==`` compares element by element, as in NumPy; hashing goes by identity, so arrays still are keys and members of
    sets.
    """

    def __eq__(self, other: Any) -> Any:
        return self.__array_ufunc__(np.equal, "__call__", self, other) if _is_input(other) else NotImplemented

    def __ne__(self, other: Any) -> Any:
        return self.__array_ufunc__(np.not_equal, "__call__", self, other) if _is_input(other) else NotImplemented

    def __hash__(self) -> int:
        return id(self) >> 4

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if options.get("out") is not None:
            raise TypeError("remote arrays cannot be written to: assign the result, as in a = a + 1")
        name = _UFUNCS.get(ufunc)
        if method != "__call__" or name is None or options or any(not _is_input(value) for value in inputs):
            return NotImplemented
        operands: dict[str, Any] = {}
        nodes = tuple(_node(value, operands) for value in inputs)
        return LazyExpression(Call(name, nodes), operands)


def _is_input(value: Any) -> bool:
    if isinstance(value, (Computing, bool, int, float, complex, np.generic)):
        return True
    return isinstance(value, np.ndarray) and value.dtype.kind in _HOLDS_NUMBERS


def _node(value: Any, operands: dict[str, Any]) -> Node:
    """What stands for a value in an expression; its arrays are added to ``operands``."""
    if isinstance(value, LazyExpression):
        names = {name: _named(operand, operands) for name, operand in value._operands.items()}
        return _renamed(value._root, names)
    if isinstance(value, np.generic):  # before Python's numbers: some are those, too
        if value.dtype.name not in FUNCTIONS:
            return Operand(_named(np.asarray(value), operands))
        return Call(value.dtype.name, (Constant(value.item()),))
    if isinstance(value, (bool, int, float, complex)):
        return Constant(value)
    return Operand(_named(value, operands))


def _named(array: Any, operands: dict[str, Any]) -> str:
    for name, other in operands.items():
        if other is array:
            return name
    name = f"o{len(operands)}"
    operands[name] = array
    return name


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    match node:
        case Operand():
            return Operand(names[node.name], node.key)
        case Call():
            return Call(node.function, tuple(_renamed(argument, names) for argument in node.arguments))
        case Reduce():
            return Reduce(node.function, _renamed(node.argument, names), node.axis, node.keepdims, node.ddof)
    return node


class LazyExpression(Computing):
    """An expression over arrays, with shape and dtype as NumPy gives them; made by operators or ``client.lazyexpr``.

    Indexing reads the parts of the operands that are behind the index, and computes the values here, in bounded memory
    besides the result.

    Examples
    --------
    >>> a = client["foo/dir1/ds-2d"]
    >>> expression = a * 2.0 + np.sin(a)
    >>> expression.shape, expression.dtype, expression.expression
    ((10, 20), dtype('float64'), '(o0 * 2.0) + sin(o0)')
    >>> expression[:2, 0]
    array([ 0.        , 40.91294527])
    >>> (a > 100).any(axis=0).all(), (a + 1).min(), (a + 1).max()
    (np.True_, np.uint16(1), np.uint16(200))
    >>> (a / 2).sum(), (a / 2).mean(), (a * 0 + 1).prod()
    (np.float64(9950.0), np.float64(49.75), np.uint64(1))
    >>> (a / 2).std(axis=0).shape, (a / 2).var(axis=1, keepdims=True).shape
    ((20,), (10, 1))
    """

    def __init__(self, root: Node, operands: Mapping[str, Any]) -> None:
        text = write(root)
        self._root, self._operands = root, dict(operands)
        self._bound: BoundExpression = bind(
            parse(text) if _names(root) else Expression(text, root, ()),
            {name: Signature(tuple(array.shape), array.dtype) for name, array in operands.items()},
        )
        self._text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._text, self._operands)

    @property
    def expression(self) -> str:
        """The expression as text."""
        return self._text

    @property
    def operands(self) -> Mapping[str, Any]:
        """Arrays by their names in ``expression``."""
        return MappingProxyType(self._operands)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis, by NumPy's rules of broadcasting."""
        return self._bound.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of an item, by NumPy's rules of promotion."""
        return self._bound.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of items."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.size * self.dtype.itemsize

    @property
    def oindex(self) -> _OrthogonalIndex:
        """Selection by items per axis: ``expression.oindex[[3, 1], :, mask]``."""
        return _OrthogonalIndex(self)

    def __getitem__(self, key: Any) -> Any:
        """Compute a selection (NumPy's basic indexing).

        Parameters
        ----------
        key : int, slice, ``...``, ``None``, or a tuple of those
            NumPy's basic index.

        Returns
        -------
        ndarray, or a NumPy scalar where NumPy gives one

        Raises
        ------
        IndexError, TypeError, ValueError
            As NumPy; lists and masks raise an IndexError that names ``oindex``.
        DatasetChangedError
            When an operand has changed since it was opened.
        SourceUnavailableError, NotCachedError, DeadlineError

        Examples
        --------
        >>> (client["foo/ds-1d"] ** 2)[3:5]
        array([ 9, 16])
        """
        return self._read(parse_basic(key, self.shape))

    def _read(self, parsed: ParsedKey) -> Any:
        fetch = KeptBoxes(lambda name, selection: operand_box(self._operands[name], selection), 4 * TILE_NBYTES)
        return parsed.apply(self._bound.box(parsed.selection, fetch, TILE_NBYTES))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """All values in memory, for NumPy's functions.

        Raises
        ------
        TooLargeError
            When they are over the client's ``max_nbytes``.
        ValueError
            For ``copy=False``: they have to be computed.
        """
        if copy is False:
            raise ValueError("Unable to avoid copy while creating an array as requested: it has to be computed")
        limits = [array._session.max_nbytes for array in self._operands.values() if not isinstance(array, np.ndarray)]
        if limits and self.nbytes > min(limits):
            raise TooLargeError(
                f"this expression has {format_nbytes(self.nbytes)}, over the limit of {format_nbytes(min(limits))} for "
                "computing all at once: index it (expression[...] computes everything), or connect(max_nbytes=...)"
            )
        whole: npt.NDArray[Any] = np.asarray(self[...])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __bool__(self) -> bool:
        if self.size > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. Use a.any() or a.all()"
            )
        return bool(self[...])

    def __iter__(self) -> Any:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def sum(self, axis: int | Iterable[int] | None = None, *, keepdims: bool = False) -> Any:
        """Compute the sum over axes, as NumPy's."""
        return self._reduced("sum", axis, keepdims)

    def prod(self, axis: int | Iterable[int] | None = None, *, keepdims: bool = False) -> Any:
        """Compute the product over axes, as NumPy's."""
        return self._reduced("prod", axis, keepdims)

    def mean(self, axis: int | Iterable[int] | None = None, *, keepdims: bool = False) -> Any:
        """Compute the mean over axes, as NumPy's."""
        return self._reduced("mean", axis, keepdims)

    def std(self, axis: int | Iterable[int] | None = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
        """Compute the standard deviation over axes, as NumPy's."""
        return self._reduced("std", axis, keepdims, ddof)

    def var(self, axis: int | Iterable[int] | None = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
        """Compute the variance over axes, as NumPy's."""
        return self._reduced("var", axis, keepdims, ddof)

    def min(self, axis: int | Iterable[int] | None = None, *, keepdims: bool = False) -> Any:
        """Compute the minimum over axes, as NumPy's."""
        return self._reduced("min", axis, keepdims)

    def max(self, axis: int | Iterable[int] | None = None, *, keepdims: bool = False) -> Any:
        """Compute the maximum over axes, as NumPy's."""
        return self._reduced("max", axis, keepdims)

    def any(self, axis: int | Iterable[int] | None = None, *, keepdims: bool = False) -> Any:
        """Compute whether any is true over axes, as NumPy's."""
        return self._reduced("any", axis, keepdims)

    def all(self, axis: int | Iterable[int] | None = None, *, keepdims: bool = False) -> Any:
        """Compute whether all are true over axes, as NumPy's."""
        return self._reduced("all", axis, keepdims)

    def _reduced(self, name: str, axis: int | Iterable[int] | None, keepdims: bool, ddof: float = 0) -> Any:
        assert name in REDUCTIONS
        axes = None if axis is None else (int(axis),) if np.ndim(axis) == 0 else tuple(axis)  # type: ignore[arg-type]
        return LazyExpression(Reduce(name, self._root, axes, keepdims, ddof), self._operands)[()]

    def save(self, address: str, *, overwrite: bool = False) -> RemoteArray:
        """Store the expression at the subscriber: an array of an area, evaluated there whenever it is read.

        Parameters
        ----------
        address : str
            ``@public/NAME``, ``@shared/NAME`` or ``@personal/NAME``; ``.b2nd`` is added.
        overwrite : bool
            Replace what is there.

        Returns
        -------
        RemoteArray

        Raises
        ------
        RequestError
            When an operand is not a dataset of one subscriber: one in memory, a field, of another client.
        AuthenticationError, AccessDeniedError, ConflictError

        Examples
        --------
        >>> (client["foo/ds-1d"] * 2).save("@personal/doubled.b2nd", overwrite=True)
        <RemoteArray @personal/doubled.b2nd shape=(1000,) dtype=int64>
        """
        from .group import open_path

        sessions = [array._session for array in self._operands.values() if hasattr(array, "_session")]
        operands = {name: operand_source(name, array) for name, array in self._operands.items()}
        if len({session.service.url for session in sessions}) != 1:
            raise RequestError("all operands of a stored expression have to be of one subscriber")
        session = sessions[0]
        root, path = session.service.store_expression(address, self._text, operands, overwrite=overwrite)
        opened = open_path(session, root, path)
        from .remote_array import RemoteArray

        assert isinstance(opened, RemoteArray)
        return opened

    def __repr__(self) -> str:
        return f"<LazyExpression {plain(self._text[:200])} shape={self.shape} dtype={plain(str(self.dtype))}>"

    def _repr_html_(self) -> str:
        facts = {"shape": str(self.shape), "dtype": str(self.dtype), "size": format_nbytes(self.nbytes)}
        facts |= {
            name: repr(array)[:200] for name, array in self._operands.items() if not isinstance(array, np.ndarray)
        }
        return html_table(f"LazyExpression {self._text[:200]}", facts, {})


class _OrthogonalIndex:
    def __init__(self, expression: LazyExpression) -> None:
        self._expression = expression

    def __getitem__(self, key: Any) -> Any:
        return self._expression._read(parse_orthogonal(key, self._expression.shape))


def operand_box(array: Any, selection: Selection) -> npt.NDArray[Any]:
    """The box of a selection of an operand."""
    if not isinstance(array, np.ndarray):
        return np.asarray(array._read(ParsedKey(selection, (), selection.shape)))
    box = array
    for number, axis in enumerate(selection.axes):
        taken = axis.items if isinstance(axis, AxisItems) else slice(axis.start, axis.stop, axis.step)
        box = box[(*[slice(None)] * number, taken)]
    return box


def operand_source(name: str, array: Any) -> str:
    """The address that an operand is stored by.

    Raises
    ------
    RequestError
    """
    if isinstance(array, np.ndarray):
        raise RequestError(f"{name} is an array in memory, which cannot be stored in an expression: upload it first")
    if array._fields:
        raise RequestError(f"{name} is a field of a dataset, which cannot be stored in an expression")
    return f"{array.root}/{array.path}"


def _names(node: Node) -> bool:
    if isinstance(node, Call):
        return any(map(_names, node.arguments))
    return _names(node.argument) if isinstance(node, Reduce) else isinstance(node, Operand)


def _rebuilt(text: str, operands: Mapping[str, Any]) -> LazyExpression:
    return LazyExpression(parse(text).root, operands)


def from_text(text: str, operands: Mapping[str, Any]) -> LazyExpression:
    """A lazy expression from text.

    Raises
    ------
    RequestError
        When it is none, or an operand is missing.
    """
    for name in operands:
        if not is_operand_name(name):
            raise RequestError(f"not a name of an operand: {name[:40]!r}")
    expression = parse(text)
    missing = [name for name in expression.names if name not in operands]
    if missing:
        raise RequestError(f"{missing[0]} is not in the list of available datasets")
    made = LazyExpression(expression.root, {name: operands[name] for name in expression.names})
    made._text = text  # verbatim
    return made
