"""A rule about common factors: what a gradient is multiplied by is made before it is there.

The derivative of x·f(x) is f(x) + x·f′(x), and a chain of derivatives multiplies the gradient by either and adds. With
the gradient in front of both, all the rest follows from what the way forward has in its registers: one number for each
element is stored there and read on the way back, where f(x) and x would be two, and the work is that of one product.
"""

from __future__ import annotations

from typing import Final

from slalom.compiler.draft import Draft, Line
from slalom.compiler.rules import WHOLE, rule
from slalom.core.ops import pointwise as p
from slalom.core.ops import reductions as r

NEEDS: Final = frozenset({r.MATMUL})
"""What a graph must hold for the rule to be worth it: gradients that come out of a product."""
_LONG: Final = 8
"""Multiplications of a term that are looked at."""
_NEAR: Final = 4
"""In how many steps a factor is made of a function, where it is one."""
_FUNCTIONS: Final = frozenset({p.EXP, p.EXPM1, p.LOG, p.LOG1P, p.ERF, p.TANH, p.SIGMOID, p.SOFTPLUS, p.SIN, p.COS})
"""What takes so long that it is kept in memory rather than made twice."""


@rule(p.ADD, phase=WHOLE)
def common_factor(d: Draft, eq: Line) -> int | None:
    """g·a + g·b → g·(a + b) where a or b is a function of data, g is none, as behind x·f(x): rounded otherwise"""
    x, y = eq.inputs
    if eq.type.dtype.kind != "f" or not (d.once(x) and d.once(y)):
        return None
    left, right = _terms(d, x), _terms(d, y)
    for value, factors in left.items():
        if value not in right or d.shape(value) != eq.type.shape or _is_function(d, value):
            continue
        others = right[value]
        if any(_is_function(d, factor) for factor in (*factors, *others)):
            return d.emit(p.MUL, value, d.emit(p.ADD, _product(d, factors), _product(d, others)))
    return None


def _terms(d: Draft, value: int) -> dict[int, list[int]]:
    """Of a product of several each factor that is no constant, the last ones first, and the others beside it."""
    found: dict[int, list[int]] = {}
    stack: list[tuple[int, list[int]]] = [(value, [])]
    while stack and len(found) < _LONG:
        value, others = stack.pop()
        line = d.made(value, p.MUL)
        if others and value not in d.constants:
            found.setdefault(value, others)
        if line is not None and (d.once(value) or not others):
            a, b = line.inputs
            stack += (a, [b, *others]), (b, [a, *others])
    return found


def _product(d: Draft, factors: list[int]) -> int:
    first, *others = factors
    for other in others:
        first = d.emit(p.MUL, first, other)
    return first


def _is_function(d: Draft, value: int, steps: int = _NEAR) -> bool:
    """Whether a value is made of a function of data in a few elementwise steps."""
    line = d.lines[value]
    if line is None or line.prim.expr is None or not steps:
        return False
    return line.prim in _FUNCTIONS or any(_is_function(d, v, steps - 1) for v in line.inputs)
