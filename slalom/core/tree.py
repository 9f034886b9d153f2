"""Nested lists, tuples and dicts of tensors, seen as a flat list of leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slalom.core.primitive import is_array
from slalom.core.tensor import Tensor


def is_named_tuple(value: Any) -> bool:
    """Whether ``value`` is a namedtuple, which is rebuilt from positional fields."""
    return isinstance(value, tuple) and hasattr(value, "_fields")


def leaves(value: Any, *, also_numbers: bool = False) -> list[Any]:
    """The tensors of a tree (and numbers and arrays if asked), in order."""
    if isinstance(value, Tensor) or (also_numbers and (isinstance(value, (int, float)) or is_array(value))):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [leaf for item in items for leaf in leaves(item, also_numbers=also_numbers)]


def map(function: Callable[[Any], Any], value: Any, *, also_numbers: bool = False) -> Any:
    """The same tree with ``function`` applied to its tensors (and to numbers and arrays if asked)."""
    if isinstance(value, Tensor) or (also_numbers and (isinstance(value, (int, float)) or is_array(value))):
        return function(value)
    if is_named_tuple(value):
        return type(value)(*(map(function, item, also_numbers=also_numbers) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(function, item, also_numbers=also_numbers) for item in value)
    if isinstance(value, dict):
        return {key: map(function, item, also_numbers=also_numbers) for key, item in value.items()}
    return value
