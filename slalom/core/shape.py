"""Shape arithmetic shared by the shape rules: broadcasting, axes, sizes, windows. Pure functions over tuples."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError

Shape = tuple[int, ...]


def broadcast(name: str, shapes: Sequence[Shape]) -> Shape:
    """The common shape of operands under NumPy's broadcasting; axes are matched from the right.

    Raises: ShapeError that names both shapes and the two sizes that clash.
    """
    result: Shape = shapes[0]
    for shape in shapes[1:]:
        if shape == result:
            continue
        rank = max(len(result), len(shape))
        a, b = (1,) * (rank - len(result)) + result, (1,) * (rank - len(shape)) + shape
        for axis, (m, n) in enumerate(zip(a, b, strict=True)):
            if m != n and m != 1 and n != 1:
                raise ShapeError(
                    f"{name}: shapes {result} and {shape} do not broadcast",
                    got=f"sizes {m} and {n} on axis {axis - rank}",
                    needed="equal sizes, or one of them 1",
                )
        result = tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))
    return result


def axis_index(name: str, axis: int, rank: int, *, wrap_scalar: bool = True) -> int:
    """``axis`` as a number in 0 … rank−1; negative axes count from the end.

    ``wrap_scalar``: a 0-d tensor counts as having one axis, as in PyTorch; else it is an error like any other.
    """
    axis = operator.index(axis)
    if not -rank <= axis < rank and not (wrap_scalar and rank == 0 and axis in (0, -1)):
        raise IndexRangeError(f"{name}: axis {axis}", needed=f"an axis of a tensor with {rank} dimensions")
    return axis % rank if rank else 0


def axis_tuple(name: str, axes: int | Iterable[int] | None, rank: int) -> Shape:
    """Axes as a sorted tuple of distinct non-negative numbers; None means all."""
    if axes is None:
        return tuple(range(rank))
    listed = tuple(axes) if isinstance(axes, Iterable) else (axes,)
    found = sorted(axis_index(name, a, rank) for a in listed)
    if len(set(found)) != len(found):
        raise ShapeError(f"{name}: axes", got=listed, needed="each axis once")
    return tuple(found) if rank else ()


def integers(name: str, given: tuple[Any, ...]) -> Shape:
    """Whole numbers given one by one or as one sequence: ``t.reshape(2, 3)`` and ``t.reshape((2, 3))``."""
    items = given[0] if len(given) == 1 and not hasattr(given[0], "__index__") else given
    try:
        return tuple(map(operator.index, items))
    except TypeError as error:
        got = ", ".join(map(repr, given))
        raise DTypeError(name, got=got, needed="whole numbers, one by one or as one sequence") from error


def per_axis(name: str, value: Any, rank: int, low: int = 1) -> Shape:
    """A setting of ``rank`` axes: one whole number for all of them, or one for each.

    Raises: ConfigError for another number of them, or for one below ``low``; DTypeError for what is no whole number.
    """
    given = integers(name, (value,))
    found = given * rank if len(given) == 1 else given
    if len(found) != rank or min(found) < low:
        needed = f"a whole number of at least {low}" + (f", or {rank} of them" if rank > 1 else "")
        raise ConfigError(name, got=value, needed=needed)
    return found


def reduced(shape: Shape, axes: Shape, keepdims: bool) -> Shape:
    """The shape after reducing over ``axes``."""
    if keepdims:
        return tuple(1 if i in axes else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def size(shape: Shape) -> int:
    """The number of elements."""
    total = 1
    for n in shape:
        total *= n
    return total


def resolve(name: str, shape: Shape, wanted: Sequence[int]) -> Shape:
    """``wanted`` with its single −1 replaced by what makes the number of elements equal.

    Raises: ShapeError when the elements do not fit.
    """
    total = size(shape)
    known = size(tuple(n for n in wanted if n != -1))
    unknown = sum(n == -1 for n in wanted)
    fits = known == total if not unknown else unknown == 1 and known > 0 and total % known == 0
    if not fits or any(n < -1 for n in wanted):
        raise ShapeError(
            f"{name}: {shape} to {tuple(wanted)}",
            got=f"{total} elements",
            needed="the same number of elements, with at most one -1",
        )
    return tuple(total // known if n == -1 else n for n in wanted)


def window_count(length: int, size: int, stride: int, dilation: int) -> int:
    """How many windows of ``size`` taps fit into ``length``; 0 when not even one does."""
    return max(0, (length - dilation * (size - 1) - 1) // stride + 1)
