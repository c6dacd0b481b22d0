"""A property that is computed when it is first asked for, and kept.

Unlike ``functools.cached_property`` of Python 3.11 it holds no lock, which all instances of a class would share and
which a fork in its midst would leave locked for ever. Two threads may compute it at once; they get equal values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ["once"]

T = TypeVar("T")


class once(Generic[T]):
    """Decorator of a method without arguments.

    Examples
    --------
    >>> class Circle:
    ...     @once
    ...     def area(self):
    ...         print("computed")
    ...         return 3.14
    >>> circle = Circle()
    >>> circle.area, circle.area
    computed
    (3.14, 3.14)
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> T | Self:
        if instance is None:
            return self
        # What is in the instance's dictionary is found before this is asked again.
        value = instance.__dict__[self._name] = self._function(instance)
        return value
