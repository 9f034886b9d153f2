"""Symbolic integers: where an element of a view is read, as an expression over the axes of a kernel's loops.

An expression is a constant plus multiples of atoms: axes, quotients, remainders, and integers read from data. Ranges
are known, so that most quotients and remainders of reshapes cancel. The index maps of ``core.ops.structural`` are
evaluated on symbols; where they branch on something undecided, both ways are followed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from slalom.core.primitive import Params
from slalom.core.shape import Shape, size

KEPT: Final = 1 << 14
"""Of how many arguments the results are kept."""


class Axis(NamedTuple):
    """One loop of a kernel."""

    number: int
    extent: int


@dataclass(frozen=True)
class Quotient:
    """⌊of / by⌋."""

    of: Expr
    by: int


@dataclass(frozen=True)
class Remainder:
    """of − by·⌊of / by⌋."""

    of: Expr
    by: int


@dataclass(frozen=True)
class Element:
    """An index that is read from data: element ``index`` of an integer value; the kernel checks 0 ≤ it < bound."""

    value: int
    index: tuple[Expr, ...]
    bound: int


@dataclass(frozen=True)
class Within:
    """An expression, of which 0 ≤ it < bound is known where it is used: further views are followed with that."""

    of: Expr
    bound: int


Atom = Axis | Quotient | Remainder | Element | Within


class Expr:
    """constant + Σ coefficient · atom. It never changes, and what is asked of it often is kept.

    ``range``: the least and the largest value · ``axes``: the numbers of the axes that it depends on.
    """

    __slots__ = ("_axes", "_hash", "_range", "constant", "terms")

    def __init__(self, terms: tuple[tuple[Atom, int], ...] = (), constant: int = 0) -> None:
        self.terms, self.constant = terms, constant
        self._hash: int | None = None
        self._range: tuple[int, int] | None = None
        self._axes: frozenset[int] | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Expr) and self.constant == other.constant and self.terms == other.terms
        )

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash((self.terms, self.constant))
        return self._hash

    def __repr__(self) -> str:
        return f"Expr({self})"

    @property
    def range(self) -> tuple[int, int]:
        if self._range is None:
            low = high = self.constant
            for atom, c in self.terms:
                a, b = _range(atom)
                low, high = low + min(a * c, b * c), high + max(a * c, b * c)
            self._range = low, high
        return self._range

    @property
    def axes(self) -> frozenset[int]:
        if self._axes is None:
            self._axes = frozenset().union(*(_axes(atom) for atom, _ in self.terms))
        return self._axes

    def coefficient(self, number: int) -> int:
        """Of the axis with this number; that in other atoms does not count."""
        return sum(c for atom, c in self.terms if isinstance(atom, Axis) and atom.number == number)

    def without(self, number: int) -> Expr:
        """The expression without its multiple of an axis; what other atoms hold of that axis stays."""
        kept = tuple(t for t in self.terms if not (isinstance(t[0], Axis) and t[0].number == number))
        return Expr(kept, self.constant)

    @property
    def affine(self) -> bool:
        return all(isinstance(atom, Axis) for atom, _ in self.terms)

    def plus(self, other: Expr, times: int = 1) -> Expr:
        """self + times · other; x//n · n + x % n becomes x again, also where x itself is a quotient."""
        if not other.terms:
            return Expr(self.terms, self.constant + times * other.constant)
        terms = dict(self.terms)
        for atom, c in other.terms:
            terms[atom] = terms.get(atom, 0) + times * c
        for atom in [a for a in terms if isinstance(a, Remainder)]:
            c, pair = terms[atom], _quotient(atom.of, atom.by)
            if c and terms.get(pair, 0) == c * atom.by:
                del terms[atom], terms[pair]
                rest = Expr(tuple((a, k) for a, k in terms.items() if k), self.constant + times * other.constant)
                return rest.plus(atom.of, c)
        return Expr(tuple((a, c) for a, c in terms.items() if c), self.constant + times * other.constant)

    def times(self, n: int) -> Expr:
        return Expr(tuple((a, c * n) for a, c in self.terms), self.constant * n) if n else ZERO

    def _split(self, n: int) -> tuple[Expr, Expr]:
        """(q, r) with self = n·q + r, where r has only what n does not divide, and is never negative: code divides
        without a sign. Its least value is below n."""
        whole = tuple((a, c // n) for a, c in self.terms if c % n == 0)
        rest = Expr(tuple(t for t in self.terms if t[1] % n), self.constant)
        below = rest.range[0] // n
        return Expr(whole, below), Expr(rest.terms, self.constant - n * below)

    def quotient(self, n: int) -> Expr:
        """⌊self / n⌋ for n > 0."""
        q, r = self._split(n)
        if r.range[1] < n:
            return q
        g, coarse, _ = r._parts(n)
        return q.plus(coarse.quotient(n // g) if g > 1 else Expr(((_quotient(r, n), 1),)))

    def remainder(self, n: int) -> Expr:
        """self mod n for n > 0."""
        _, r = self._split(n)
        if r.range[1] < n:
            return r
        g, coarse, fine = r._parts(n)
        return fine.plus(coarse.remainder(n // g), g) if g > 1 else Expr(((Remainder(r, n), 1),))

    def _parts(self, n: int) -> tuple[int, Expr, Expr]:
        """(g, X, s) with self = g·X + s, 0 ≤ s < g and g a divisor of n; g = 1 where there is no such form."""
        for least in sorted({abs(c) for _, c in self.terms}):
            g = math.gcd(n, *(c for _, c in self.terms if abs(c) >= least))
            fine = Expr(tuple(t for t in self.terms if abs(t[1]) < least), self.constant % g)
            low, high = fine.range
            if g > 1 and low >= 0 and high < g:
                coarse = tuple((a, c // g) for a, c in self.terms if abs(c) >= least)
                return g, Expr(coarse, self.constant // g), fine
        return 1, self, ZERO

    def __str__(self) -> str:
        parts = [_text(a) if c == 1 else f"{c}*{_text(a)}" for a, c in self.terms]
        return " + ".join(parts + ([str(self.constant)] if self.constant or not parts else []))


ZERO = Expr()


def _quotient(of: Expr, by: int) -> Quotient:
    """⌊of / by⌋ as one atom: of a quotient, ⌊⌊x / m⌋ / n⌋ is ⌊x / mn⌋."""
    if len(of.terms) == 1 and not of.constant:
        ((atom, c),) = of.terms
        if isinstance(atom, Quotient) and c == 1:
            return Quotient(atom.of, atom.by * by)
    return Quotient(of, by)


def _range(atom: Atom) -> tuple[int, int]:
    if isinstance(atom, Axis):
        return 0, max(atom.extent - 1, 0)
    if isinstance(atom, Quotient):
        low, high = atom.of.range
        return low // atom.by, high // atom.by
    if isinstance(atom, Within):
        low, high = atom.of.range
        return max(low, 0), min(high, atom.bound - 1)
    return 0, max((atom.by if isinstance(atom, Remainder) else atom.bound) - 1, 0)


def _axes(atom: Atom) -> frozenset[int]:
    if isinstance(atom, Axis):
        return frozenset({atom.number})
    parts = atom.index if isinstance(atom, Element) else (atom.of,)
    return frozenset().union(*(part.axes for part in parts))


def _text(atom: Atom) -> str:
    if isinstance(atom, Axis):
        return f"i{atom.number}"
    if isinstance(atom, Element):
        return f"%{atom.value}[{', '.join(map(str, atom.index))}]"
    if isinstance(atom, Within):
        return f"({atom.of} < {atom.bound})"
    return f"({atom.of} {'//' if isinstance(atom, Quotient) else '%'} {atom.by})"


Index = tuple[Expr, ...]


@lru_cache(KEPT)
def axis(number: int, extent: int) -> Expr:
    return Expr(((Axis(number, extent), 1),))


@lru_cache(KEPT)
def axes_of(shape: Shape) -> Index:
    """One axis for each dimension, numbered from 0."""
    return tuple(axis(i, n) for i, n in enumerate(shape))


@lru_cache(KEPT)
def strides_of(shape: Shape) -> Shape:
    """Row-major strides in elements."""
    return tuple(size(shape[i + 1 :]) for i in range(len(shape)))


def ravel(index: Index, shape: Shape, strides: Shape | None = None) -> Expr:
    """Where an element is, in elements: its number in row-major order, unless strides say otherwise."""
    return _sum(zip(index, strides_of(shape) if strides is None else strides, strict=True), 0)


def _sum(parts: Iterable[tuple[Expr, int]], start: int) -> Expr:
    """start + Σ times · expression."""
    parts, constant = tuple(parts), start
    terms: dict[Atom, int] = {}
    for expr, times in parts:
        constant += times * expr.constant
        for atom, c in expr.terms:
            if isinstance(atom, Remainder):  # it may find its quotient
                total = Expr((), start)
                for each, n in parts:
                    total = total.plus(each, n)
                return total
            terms[atom] = terms.get(atom, 0) + times * c
    return Expr(tuple([(atom, c) for atom, c in terms.items() if c]), constant)


def unravel(flat: Expr, shape: Shape) -> Index:
    """The index of an element from its number."""
    pairs = zip(strides_of(shape), shape, strict=True)
    return tuple([flat.quotient(s).remainder(n) if n > 1 and s else ZERO for s, n in pairs])


# --- index maps of primitives -------------------------------------------------------------------------------------
class Condition(NamedTuple):
    """A comparison of an expression with a number: "lt", "ge", "eq" or "ne"."""

    expr: Expr
    how: str
    number: int

    def negated(self) -> Condition:
        return self._replace(how={"lt": "ge", "ge": "lt", "eq": "ne", "ne": "eq"}[self.how])

    def decided(self, low: int, high: int) -> bool | None:
        """Its truth, where the range of its expression tells it."""
        n = self.number
        if self.how in ("lt", "ge"):
            return (high < n) == (self.how == "lt") if high < n or low >= n else None
        if low == high == n:
            return self.how == "eq"
        return self.how == "ne" if n < low or n > high else None


class Case(NamedTuple):
    """Under all these conditions, element ``at`` of input ``operand``; operand None stands for 0."""

    conditions: tuple[Condition, ...]
    operand: int | None
    at: Index


class _Path:
    """One way through a function that branches on symbols: choices made before, then the first of two."""

    def __init__(self, choices: list[bool]) -> None:
        self.choices = choices
        self.count = 0
        self._ranges: dict[Expr, tuple[int, int]] = {}  # as far as the choices tell
        self._conditions: dict[Any, Condition] = {}

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What all choices come to: of several bounds for one expression the last, which is the tightest."""
        return tuple([c._replace(expr=settled(c.expr)) for c in self._conditions.values()])

    def narrowed(self, expr: Expr) -> Expr:
        """An expression with what the choices tell of it."""
        known = self._ranges.get(Expr(expr.terms))
        if known is None or known[0] + expr.constant < 0:
            return expr
        bound = known[1] + expr.constant + 1
        return expr if expr.range[0] >= 0 and expr.range[1] < bound else Expr(((Within(expr, bound), 1),))

    def decide(self, condition: Condition) -> bool:
        expr, n = Expr(condition.expr.terms), condition.number - condition.expr.constant
        condition = Condition(expr, condition.how, n)
        low, high = self._ranges.get(expr, expr.range)
        known = condition.decided(low, high)
        if known is not None:
            return known
        if self.count == len(self.choices):
            self.choices.append(True)
        chosen = self.choices[self.count]
        self.count += 1
        made = condition if chosen else condition.negated()
        if made.how == "lt":
            self._ranges[expr] = low, n - 1
        elif made.how == "ge":
            self._ranges[expr] = n, high
        self._conditions[(expr, made.how) if made.how in ("lt", "ge") else made] = made
        return chosen


_PATH: ContextVar[_Path] = ContextVar("path")


class _Symbol:
    """An expression with the operators that index maps use."""

    def __init__(self, expr: Expr) -> None:
        self.expr = expr

    def __add__(self, other: Any) -> _Symbol:
        return _Symbol(self.expr.plus(_expr(other)))

    __radd__ = __add__

    def __sub__(self, other: Any) -> _Symbol:
        return _Symbol(self.expr.plus(_expr(other), -1))

    def __rsub__(self, other: Any) -> _Symbol:
        return _Symbol(_expr(other).plus(self.expr, -1))

    def __mul__(self, n: int) -> _Symbol:
        return _Symbol(self.expr.times(n))

    __rmul__ = __mul__

    def __floordiv__(self, n: int) -> _Symbol:
        return _Symbol(self.expr.quotient(n))

    def __mod__(self, n: int) -> _Symbol:
        return _Symbol(self.expr.remainder(n))

    def __lt__(self, n: int) -> bool:
        return _PATH.get().decide(Condition(self.expr, "lt", n))

    def __ge__(self, n: int) -> bool:
        return not self < n

    def __le__(self, n: int) -> bool:
        return self < n + 1

    def __gt__(self, n: int) -> bool:
        return not self < n + 1

    def __eq__(self, n: object) -> bool:
        return _PATH.get().decide(Condition(self.expr, "eq", operator.index(n)))  # type: ignore[arg-type]

    def __ne__(self, n: object) -> bool:
        return not self == n

    __hash__ = None  # type: ignore[assignment]


def _expr(value: Any) -> Expr:
    return value.expr if isinstance(value, _Symbol) else Expr((), int(value))


def cases(map_: Callable[..., Any], index: Index, shapes: Iterable[Shape], params: Params) -> Sequence[Case]:
    """All ways through a primitive's index map, for an output index."""
    return _cases(map_, index, tuple(shapes), tuple(params.items()))


@lru_cache(KEPT)
def _cases(
    map_: Callable[..., Any], index: Index, shapes: tuple[Shape, ...], params: tuple[tuple[str, Any], ...]
) -> Sequence[Case]:
    # Kept, as each view is looked through for every kernel that may want it, and at each time step in the same way.
    found: list[Case] = []
    choices: list[bool] = []
    given = dict(params)
    while True:
        path = _Path(choices)
        token = _PATH.set(path)
        try:
            place = map_(tuple(map(_Symbol, index)), *shapes, **given)
        finally:
            _PATH.reset(token)
        conditions = path.conditions
        if place is None:
            found.append(Case(conditions, None, ()))
        else:
            found.append(Case(conditions, place[0], tuple([path.narrowed(_expr(part)) for part in place[1]])))
        while choices and not choices[-1]:
            choices.pop()
        if not choices:
            return tuple(found)
        choices[-1] = False


def substituted(expr: Expr, axes: Sequence[Expr]) -> Expr:
    """The expression with other expressions in place of its axes."""
    return _sum([(_substituted(atom, axes), c) for atom, c in expr.terms], expr.constant)


def _substituted(atom: Atom, axes: Sequence[Expr]) -> Expr:
    if isinstance(atom, Axis):
        return axes[atom.number]
    if isinstance(atom, Element):
        return Expr(((replaced(atom, axes), 1),))
    of = substituted(atom.of, axes)
    if isinstance(atom, Within):
        return Expr(((Within(of, atom.bound), 1),))
    return of.quotient(atom.by) if isinstance(atom, Quotient) else of.remainder(atom.by)


@lru_cache(KEPT)
def settled(expr: Expr) -> Expr:
    """An expression as it is to be computed: without what was known only on the way."""
    if not any(isinstance(atom, Within) for part in nested(expr) for atom, _ in part.terms):
        return expr
    total = Expr((), expr.constant)
    for atom, c in expr.terms:
        if isinstance(atom, Axis):
            part = Expr(((atom, 1),))
        elif isinstance(atom, Element):
            part = Expr(((Element(atom.value, tuple(map(settled, atom.index)), atom.bound), 1),))
        else:
            part = settled(atom.of)
            if not isinstance(atom, Within):
                part = part.quotient(atom.by) if isinstance(atom, Quotient) else part.remainder(atom.by)
        total = total.plus(part, c)
    return total


def replaced(atom: Element, axes: Sequence[Expr]) -> Element:
    """An index that is read from data, with other expressions in place of its axes."""
    return Element(atom.value, tuple([substituted(part, axes) for part in atom.index]), atom.bound)


def nested(expr: Expr) -> Iterator[Expr]:
    """An expression and those inside its atoms."""
    yield expr
    for atom, _ in expr.terms:
        if isinstance(atom, Element):
            for part in atom.index:
                yield from nested(part)
        elif not isinstance(atom, Axis):
            yield from nested(atom.of)
