"""Atoms: how the axes of a reshaped and transposed view are made of parts of the axes of what it is a view of."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, NamedTuple

from slalom.core.ops import structural as s
from slalom.core.primitive import Primitive
from slalom.core.shape import Shape


class Atom(NamedTuple):
    """A part of an axis of some value: index = … + step · i, 0 ≤ i < extent."""

    axis: int
    step: int
    extent: int


Groups = list[tuple[Atom, ...]]
"""For each axis of a view, the atoms that it runs over, the last one fastest; those of extent 1 are left out."""


def whole(shape: Shape) -> Groups:
    """The axes of a value itself."""
    return [(Atom(i, 1, n),) if n > 1 else () for i, n in enumerate(shape)]


def regrouped(groups: Groups, shape: Shape) -> Groups | None:
    """The groups after a reshape; None where an axis would be cut across its parts."""
    left, found = [atom for group in groups for atom in group][::-1], Groups()
    for n in shape:
        taken: list[Atom] = []
        while (rest := n // prod(atom.extent for atom in taken)) > 1:
            axis, step, extent = left.pop()
            if extent > rest:
                if extent % rest:
                    return None
                inner = extent // rest
                left.append(Atom(axis, step, inner))
                step, extent = step * inner, rest
            elif rest % extent:
                return None
            taken.append(Atom(axis, step, extent))
        found.append(tuple(taken))
    return found


def grouped(shape: Shape, views: Iterable[tuple[Primitive, Any, Shape]]) -> Groups | None:
    """After reshapes and transposes of a value, (primitive, parameters, new shape) one after the other."""
    groups: Groups | None = whole(shape)
    for prim, params, after in views:
        assert groups is not None
        if prim is s.TRANSPOSE:
            groups = [groups[a] for a in params["axes"]]
        elif (groups := regrouped(groups, after)) is None:
            return None
    return groups
