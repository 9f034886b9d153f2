"""Nested lists, tuples and dicts of tensors, seen as a flat list of leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slalom.core.primitive import is_array
from slalom.core.tensor import Tensor
from slalom.errors import ShapeError


def is_named_tuple(value: Any) -> bool:
    """Whether ``value`` is a namedtuple, which is rebuilt from positional fields."""
    return isinstance(value, tuple) and hasattr(value, "_fields")


def leaves(value: Any, *, also_numbers: bool = False) -> list[Any]:
    """The tensors of a tree (and numbers and arrays if asked), in order."""
    if isinstance(value, Tensor) or (also_numbers and (isinstance(value, (int, float)) or is_array(value))):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [leaf for item in items for leaf in leaves(item, also_numbers=also_numbers)]


def matched(value: Any, like: Any, what: str) -> list[Any]:
    """The leaves of ``value`` (tensors, numbers, arrays) in the order of the tensors of ``like``.

    Raises: ShapeError where the two trees differ.
    """
    if isinstance(like, Tensor):
        if isinstance(value, (Tensor, int, float)) or is_array(value):
            return [value]
        raise ShapeError(what, got=f"a {type(value).__name__}", needed=f"a tensor of shape {like.shape}")
    if isinstance(like, dict):
        if not isinstance(value, dict) or value.keys() != like.keys():
            raise ShapeError(what, got=_outline(value), needed=f"a dict with the keys {list(like)}")
        return [leaf for key in like for leaf in matched(value[key], like[key], what)]
    if isinstance(like, (list, tuple)):
        if not isinstance(value, (list, tuple)) or len(value) != len(like):
            raise ShapeError(what, got=_outline(value), needed=f"a {type(like).__name__} of {len(like)}")
        return [leaf for part, item in zip(value, like, strict=True) for leaf in matched(part, item, what)]
    return []


def _outline(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, dict):
        return f"a dict with the keys {list(value)}"
    return f"a {kind} of {len(value)}" if isinstance(value, (list, tuple)) else f"a {kind}"


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
