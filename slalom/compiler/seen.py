"""Products that see an image through windows: by which axes, and where in memory their elements are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from slalom.compiler.atoms import grouped
from slalom.compiler.index import Condition, Expr, Index, axes_of, axis, cases, ravel, settled
from slalom.core.graph import Equation, Type
from slalom.core.ops import structural as s

View = Callable[[int], Equation | None]
"""What computes a value that has no memory of its own, if it is a view; else None."""


class Seen(NamedTuple):
    """A product whose right-hand side are windows.

    image: what they are taken of · left, right: of an element of either operand, the index over the axes of the result
    and the new ones · columns, terms, lane, extents: as in ``Windows``.
    """

    image: int
    left: Index
    right: Index
    columns: tuple[int, ...]
    terms: tuple[int, ...]
    lane: int
    extents: dict[int, int]


class Found(NamedTuple):
    """An element in memory: of which value, at which index, and under which conditions it is not 0."""

    value: int
    at: Index
    conditions: tuple[Condition, ...]


def seen(eq: Equation, types: Sequence[Type], view: View) -> Seen | None:
    """How a product sees an image; None for other products, and where pixels side by side are not lanes."""
    (x, y), out = eq.inputs, types[eq.out].shape
    chain, value = [], y
    while (made := view(value)) is not None and made.prim in (s.RESHAPE, s.TRANSPOSE):
        chain.append((made.prim, made.params, types[value].shape))
        value = made.inputs[0]
    if made is None or made.prim is not s.WINDOWS or types[eq.out].dtype.kind != "f" or len(out) > 3:
        return None
    if not out[:-2] == types[x].shape[:-2] == types[y].shape[:-2] or 0 in (*out, *types[x].shape):
        return None
    if (groups := grouped(types[value].shape, reversed(chain))) is None:
        return None
    (image,), side_by_side = made.inputs, None
    rank, extents = len(types[image].shape), dict(enumerate(out))
    found: list[tuple[int, ...]] = []
    places: list[Expr] = []
    for atoms in groups[-2:]:
        numbers = tuple(range(len(extents), len(extents) + len(atoms)))
        extents |= {number: atom.extent for number, atom in zip(numbers, atoms, strict=True)}
        shape = tuple([atom.extent for atom in atoms])
        places.append(ravel(tuple([axis(number, n) for number, n in zip(numbers, shape, strict=True)]), shape))
        found.append(numbers)
        last = atoms[-1] if atoms else None
        if last is not None and last.axis == rank - 1 and last.step == made.params["stride"][-1] == 1:
            side_by_side = numbers[-1]
    if side_by_side is None:
        return None
    *batch, m, _ = axes_of(out)
    terms, columns = places
    return Seen(image, (*batch, m, terms), (*batch, terms, columns), found[1], found[0], side_by_side, extents)


def in_memory(value: int, index: Index, types: Sequence[Type], view: View) -> Found | None:
    """Where an element of a value is that may be a view of a view; None if that depends on more than one place."""
    conditions: tuple[Condition, ...] = ()
    while (eq := view(value)) is not None:
        assert eq.prim.index is not None
        ways = [
            way for way in cases(eq.prim.index, index, [types[v].shape for v in eq.inputs], eq.params)
            if way.operand is not None
        ]  # fmt: skip
        if len(ways) != 1:
            return None
        (way,) = ways
        assert way.operand is not None
        conditions += way.conditions
        value, index = eq.inputs[way.operand], way.at
    return Found(value, tuple(map(settled, index)), conditions)


def steps_by(found: Found, flat: Expr, axes: Sequence[int], lane: int | None = None) -> bool:
    """Whether an element, which is at ``flat`` in memory, moves on evenly along axes, and by one along the lanes."""
    held = frozenset[int]().union(*(c.expr.axes for c in found.conditions))
    axes = (*axes, *([] if lane is None else [lane]))
    return held.isdisjoint(axes) and is_straight(flat, axes) and (lane is None or flat.coefficient(lane) == 1)


def is_straight(flat: Expr, axes: Iterable[int]) -> bool:
    """Whether a place in memory moves on evenly along axes."""
    return all(i not in flat.without(i).axes for i in axes)
