"""Arrange: which loops a kernel has, made of the axes of its space so that its indices become plain sums.

Three steps: axes of one element are no loops; the innermost loop is cut in two where indices divide it, as sixteen
divisions a vector cost more than anything else; neighbours that every access walks as one become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from slalom.compiler.index import ZERO, Axis, Expr, Quotient, Remainder, axes_of, axis, substituted
from slalom.compiler.ir import LANES
from slalom.core.shape import Shape

FEW: Final = 8
"""Lanes up to which a vector is so empty that 16 scattered stores are faster."""


class Loops(NamedTuple):
    """The loops over what is kept and what is reduced, outermost first, by number; the ``extents`` of all loops; and
    ``axes``, each axis of the space as an expression over them, and then the loops that are none."""

    kept: list[int]
    reduced: list[int]
    extents: dict[int, int]
    axes: list[Expr]


def arrange(space: Shape, reduced: frozenset[int], exprs: Iterable[Expr]) -> Loops:
    """The loops of a kernel over ``space`` whose indices, and what is inside of them, are ``exprs``."""
    loops = Loops(
        [i for i in range(len(space)) if i not in reduced],
        [i for i in range(len(space)) if i in reduced],
        dict(enumerate(space)),
        list(axes_of(space)),
    )
    arranged = _Arranged(loops, list(exprs))
    for group in (loops.kept, loops.reduced):
        arranged.drop(group)
        arranged.cut(group)
        arranged.merge(group)
    return loops


def along(loops: list[int], extents: dict[int, int], exprs: Iterable[Expr]) -> tuple[list[int], int]:
    """The loops of a sweep in the order that suits its memory, and the one along which the lanes run.

    The lanes run along the last loop, along which results are contiguous; if that is short, along a long one in which
    something else is. Where an access jumps along the lanes and is contiguous along another loop, that one comes
    innermost, inside of the lanes: the lines of the cache that a vector is gathered from serve the next ones too.
    """
    *others, lane = loops
    steps = list(exprs)
    even = [i for i in reversed(others) if any(e.coefficient(i) == 1 for e in steps)]
    if extents[lane] <= FEW:
        return loops, next((i for i in even if extents[i] >= LANES), lane)
    for number in even:
        if any(e.coefficient(number) == 1 and abs(e.coefficient(lane)) >= LANES for e in steps):
            others.remove(number)
            return [*others, lane, number], lane
    return loops, lane


class _Arranged:
    def __init__(self, loops: Loops, exprs: list[Expr]) -> None:
        self.extents, self.axes, self.exprs = loops.extents, loops.axes, exprs

    def _put(self, number: int, expr: Expr) -> None:
        """Put an expression in the place of a loop."""
        onto = [axis(i, extent) for i, extent in self.extents.items()]
        onto[number] = expr
        self.axes[:] = [substituted(e, onto) for e in self.axes]
        self.exprs[:] = [substituted(e, onto) for e in self.exprs]

    def drop(self, group: list[int]) -> None:
        """Leave out the loops of one element, but for the last one of a group that has no others."""
        ones = [i for i in group if self.extents[i] == 1]
        for number in ones[: len(group) - 1]:
            self._put(number, ZERO)
            group.remove(number)

    def cut(self, group: list[int]) -> None:
        """Cut the innermost loop where indices divide it, into parts of whole vectors."""
        while group:
            last, extent = group[-1], self.extents[group[-1]]
            fit = {n for e in self.exprs for n in _divisors(e, last) if extent % n == 0 and LANES <= n < extent}
            if not fit:
                return
            n, outer, inner = max(fit), len(self.axes), len(self.axes) + 1
            self.extents[outer], self.extents[inner] = extent // n, n
            self.axes += [axis(i, self.extents[i]) for i in (outer, inner)]
            self._put(last, axis(outer, extent // n).times(n).plus(axis(inner, n)))
            group[-1:] = outer, inner

    def merge(self, group: list[int]) -> None:
        """Let neighbouring loops be one where every access allows it."""
        for i in range(len(group) - 2, -1, -1):
            outer, inner = group[i], group[i + 1]
            n = self.extents[inner]
            if all(e.coefficient(outer) == e.coefficient(inner) * n for e in self.exprs):
                self.extents[inner] *= self.extents[outer]
                self._put(outer, ZERO)
                del group[i]


def _divisors(expr: Expr, number: int) -> Iterator[int]:
    """By what an index divides a loop: the numbers n of its quotients i // n and remainders i % n."""
    for atom, _ in expr.terms:
        if not isinstance(atom, Quotient | Remainder) or len(atom.of.terms) != 1 or atom.of.constant:
            continue
        ((inside, c),) = atom.of.terms
        if c == 1 and isinstance(inside, Axis) and inside.number == number:
            yield atom.by
        elif c == 1 and isinstance(inside, Quotient) and inside.of == axis(number, _extent(inside.of)):
            yield inside.by * atom.by


def _extent(expr: Expr) -> int:
    return expr.range[1] + 1
