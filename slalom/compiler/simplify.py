"""The first pass: a table of small rewrite rules, applied in one walk forwards that rebuilds the graph.

A rule sees one equation whose operands are rewritten already and returns another value for it, or None. Whatever it
emits goes through the rules too, then through a table of what is known (equal equations and constants become one);
in the end what no output needs is dropped. All is kept to the bit, except that NaN is one value whatever its bits and
that rules of ``WHOLE`` and ``IMAGES`` may hand a sum to a kernel that adds in another order, or round in another one,
where their docstring says so.

Four phases, each a walk of linear time:
``LOCAL``: rules that look at an equation and its operands, in any graph.
``WHOLE``: rules about products and sums, which need to know how often a value is used; the local ones go on.
``IMAGES``: rules about windows, and where pixels lie (``layout.py``); the local ones go on.
``CHECKED``: a rule that relies on another equation to stay; alone, so that nothing is removed after it.

Adding a rule: one function of (draft, equation) under ``@rule(primitives)``, whose docstring is a line saying what
becomes what; and one row in ``tests/table_simplify.py``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from slalom.compiler import factors, layout  # which enter rules: about common factors, and about images
from slalom.compiler.draft import Draft, Line, Tiles, adds_axes, rewrite, swap
from slalom.compiler.rules import CHECKED, IMAGES, TABLES, WHOLE, rule
from slalom.compiler.split import split
from slalom.core.dtype import int64
from slalom.core.graph import Graph
from slalom.core.ops import TABLE
from slalom.core.ops import pointwise as p
from slalom.core.ops import reductions as r
from slalom.core.ops import structural as s
from slalom.core.primitive import Primitive
from slalom.core.scan import SCAN
from slalom.core.shape import Shape, reduced, size
from slalom.core.step import STOP

TURNING: Final = 8
"""How many elements may be copied into panels in the time in which one of a result is turned."""
_NEEDS: Final = (
    frozenset[Primitive](),
    factors.NEEDS | {r.MATMUL, s.PAD, s.CONCATENATE},
    layout.NEEDS,
    frozenset({r.SCATTER_ADD}),
)
"""What a graph must hold for a phase to find work, beyond the first."""


def simplify(graph: Graph, fired: Counter[str] | None = None) -> Graph:
    """An equal graph with fewer and simpler equations; inputs and outputs keep their order.

    Outputs may then be inputs or constants, or share a value. fired: counts the rules that were applied, by name.
    """
    fired = Counter() if fired is None else fired
    for phase, needs in enumerate(_NEEDS):
        if not needs or any(eq.prim in needs for eq in graph.equations):
            graph = rewrite(graph, TABLES[phase], fired)
    return graph


def _without_ones(axes: Shape, shape: Shape) -> list[int]:
    return [a for a in axes if shape[a] != 1]


# --- products, which need the uses of values ----------------------------------------------------------------------
@rule(s.TRANSPOSE, phase=WHOLE)
def transposed_product(d: Draft, eq: Line) -> int | None:
    """(x·y)ᵀ → yᵀ·xᵀ, also inside other transposes, where x·y has no other use; each element is the same sum over k"""
    product, axes = d.made(eq.inputs[0], r.MATMUL), eq.params["axes"]
    rank = len(axes)
    if product is None or not d.once(eq.inputs[0]) or axes[-1] != rank - 2:
        return None
    x, y = product.inputs
    if _is_cheaper_left(d, x, y):
        return None
    turned = d.emit(r.MATMUL, d.swapped(y), d.swapped(x))
    return turned if axes == swap(rank) else d.emit(s.TRANSPOSE, turned, axes=tuple([swap(rank)[a] for a in axes]))


def _is_cheaper_left(d: Draft, x: int, y: int) -> bool:
    """Whether the left-hand side of aᵀ·y is so much smaller than yᵀ would be that turning the result costs less: what
    stands on the left is copied where it is a transpose."""
    if d.made(x, s.TRANSPOSE) is None or d.made(y, s.TRANSPOSE) is not None:
        return False
    (m, k), n = d.shape(x)[-2:], d.shape(y)[-1]
    return k * (n - m) > TURNING * m * n


@rule(r.MATMUL, phase=WHOLE)
def batch_into_rows(d: Draft, eq: Line) -> int | None:
    """(…, T, D) @ (D, H) → one product of all rows; each element is the same sum over k (BLAS may order it anew)."""
    (x, y), out = eq.inputs, eq.type.shape
    a, b = d.shape(x), d.shape(y)
    if len(a) < 3 or a[:-1] != out[:-1] or size(b[:-2]) != 1 or d.made(x, s.TRANSPOSE):
        return None
    rows = d.reshape(x, (size(a[:-1]), a[-1]))
    return d.reshape(d.emit(r.MATMUL, rows, d.reshape(y, b[-2:])), out)


@rule(r.SUM, phase=WHOLE)
def stacked_product(d: Draft, eq: Line) -> int | None:
    """Σ_b x_bᵀ·c_b over the whole batch → one product of the stacked operands: another order of the same sum."""
    product = d.made(eq.inputs[0], r.MATMUL)
    if product is None or not d.once(eq.inputs[0]):
        return None
    x, y = product.inputs
    left, a, b = d.made(x, s.TRANSPOSE), d.shape(x), d.shape(y)
    batch = len(a) - 2
    if left is None or left.params["axes"] != swap(len(a)) or d.made(y, s.TRANSPOSE) or eq.type.dtype.kind != "f":
        return None
    if a[:-2] != b[:-2] or not batch or eq.params["axes"] != tuple(range(batch)):
        return None
    stacked = d.reshape(left.inputs[0], (size(a[:-2]) * a[-1], a[-2]))
    below = d.reshape(y, (size(b[:-1]), b[-1]))
    return d.reshape(d.emit(r.MATMUL, d.swapped(stacked), below), eq.type.shape)


def _steps(d: Draft, value: int) -> list[tuple[int, int]] | None:
    """The (a, b) of a sum of products aᵀ·b that is read once."""
    line = d.lines[value]
    if line is None or not d.once(value) or line.type.dtype.kind != "f":
        return None
    if line.prim is p.ADD:
        return d.steps.get(line.inputs)
    left = d.made(line.inputs[0], s.TRANSPOSE) if line.prim is r.MATMUL else None
    if left is None or len(line.type.shape) != 2 or len(d.shape(left.inputs[0])) != 2:
        return None
    return [(left.inputs[0], line.inputs[1])]


def _stacked(d: Draft, steps: list[tuple[int, int]]) -> int:
    steps = sorted(steps)  # from the first time step to the last, as their operands were computed
    above, below = (d.emit(s.CONCATENATE, *part, axis=0) for part in zip(*steps, strict=True))
    return d.emit(r.MATMUL, d.swapped(above), below)


@rule(p.ADD, phase=WHOLE)
def stacked_steps(d: Draft, eq: Line) -> int | None:
    """aᵀ·b + cᵀ·d + … → [a; c; …]ᵀ·[b; d; …], as of a weight at all time steps: another order of the same sum"""
    (x, y), (first, second) = eq.inputs, map(partial(_steps, d), eq.inputs)
    if first is not None and second is not None:
        if not d.goes_on:
            return _stacked(d, [*first, *second])
        d.steps[eq.inputs] = [*first, *second]  # the sum goes on
    elif first is not None and len(first) > 1:
        return d.emit(p.ADD, _stacked(d, first), y)
    elif second is not None and len(second) > 1:
        return d.emit(p.ADD, x, _stacked(d, second))
    return None


def _tiles(d: Draft, value: int) -> Tiles | None:
    line = d.lines[value]
    if line is None or not d.once(value):
        return None
    if line.prim is p.ADD:
        return d.tiles.pop(line.inputs, None)
    if line.prim is not s.PAD or any(line.params["interior"]):
        return None
    low, high = line.params["low"], line.params["high"]
    padded = [axis for axis, ends in enumerate(zip(low, high, strict=True)) if any(ends)]
    if len(padded) != 1:
        return None
    (axis,) = padded
    return Tiles(axis, [(low[axis], line.inputs[0])], d.shape(line.inputs[0])[axis])


@rule(p.ADD, phase=WHOLE)
def tiled_pads(d: Draft, eq: Line) -> int | None:
    """A sum of pads whose contents tile an axis → their concatenation, each + 0 as adding zeros makes +0 of −0."""
    x, y = eq.inputs
    if d.shape(x) != d.shape(y) or (first := _tiles(d, x)) is None or (second := _tiles(d, y)) is None:
        return None
    if first.axis != second.axis:
        return None
    if len(first.pieces) < len(second.pieces):
        first, second = second, first
    first.pieces.extend(second.pieces)
    axis, pieces, length = first.axis, first.pieces, first.length + second.length
    if length < eq.type.shape[axis]:
        d.tiles[eq.inputs] = Tiles(axis, pieces, length)
        return None
    pieces = sorted(piece for piece in pieces if d.shape(piece[1])[axis])
    begin = 0
    for low, value in pieces:
        if low != begin:
            return None
        begin += d.shape(value)[axis]
    if begin != eq.type.shape[axis]:
        return None
    values = [value for _, value in pieces]
    whole = d.emit(s.CONCATENATE, *values, axis=axis)
    if d.made(whole, s.CONCATENATE) is None:  # something better, of which there are no pieces
        return d.plus_zero(whole)
    return d.emit(s.CONCATENATE, *map(d.plus_zero, values), axis=axis)


@rule(s.RESHAPE, phase=WHOLE)
def kept_axes(d: Draft, eq: Line) -> int | None:
    """reshape that puts back, or takes away, the axes of a sum or amax used nowhere else → its keepdims turned"""
    (x,) = eq.inputs
    line = d.made(x, r.SUM) or d.made(x, r.AMAX)
    if line is None or not d.once(x):
        return None
    axes, keepdims = line.params["axes"], not line.params["keepdims"]
    if reduced(d.shape(line.inputs[0]), axes, keepdims) != eq.type.shape:
        return None
    return d.emit(line.prim, *line.inputs, axes=axes, keepdims=keepdims)


# --- loops over time steps ---------------------------------------------------------------------------------------
@rule(SCAN)
def simpler_step(d: Draft, eq: Line) -> int | None:
    """a loop → the same with its step simplified"""
    body = eq.params["body"]
    known = body.derived.get("simple")
    if known is body:
        return None
    if known is None:
        known = body.derived["simple"] = replace(body, graph=split(simplify(body.graph)).check(), derived={})
        known.derived["simple"] = known
    return d.emit(SCAN, *eq.inputs, **{**eq.params, "body": known})


# --- indexed access -----------------------------------------------------------------------------------------------
@rule(r.SCATTER_ADD, phase=CHECKED)
def one_hot(d: Draft, eq: Line) -> int | None:
    """updates added at [i, j[i]] for all i → where(j[i] = column, updates[i], 0), where a gather checks the same j."""
    updates, *indices = eq.inputs
    shape = eq.type.shape
    # In this form an index out of range would be silent: the gather with the same indices is what reports it.
    if len(indices) != 2 or len(shape) != 2 or (tuple(indices), shape) not in d.gathers:
        return None
    (n, columns), (row, column) = shape, indices
    rows, dtype = d.constants.get(row), d.types[column].dtype
    if rows is None or rows.shape != (n,) or columns > np.iinfo(dtype).max or (rows != np.arange(n)).any():
        return None
    hit = d.emit(p.EQ, d.constant(np.arange(columns, dtype=dtype)), d.reshape(column, (n, 1)))
    return d.emit(p.WHERE, hit, d.reshape(d.plus_zero(updates), (n, 1)), d.number(0, updates))


# --- what is empty ------------------------------------------------------------------------------------------------
@rule(*TABLE.values(), SCAN)
def nothing(d: Draft, eq: Line) -> int | None:
    """what has no elements → a constant; a sum, product, pad, fold or scatter_add of nothing → 0"""
    shape, dtype = eq.type
    if not size(shape):
        return d.constant(np.zeros(shape, dtype))
    none = eq.prim in (r.SUM, r.MATMUL, r.SCATTER_ADD, s.PAD, s.FOLD) and not size(d.shape(eq.inputs[0]))
    return d.stretch(d.constant(np.zeros((), dtype)), shape) if none else None


# --- what does nothing --------------------------------------------------------------------------------------------
@rule(s.ALIAS, STOP)
def alias(d: Draft, eq: Line) -> int:
    """alias(x) → x, also where derivatives end there"""
    return eq.inputs[0]


@rule(s.RESHAPE, s.BROADCAST, s.SLICE, s.PAD)
def same_shape(d: Draft, eq: Line) -> int | None:
    """reshape, broadcast, slice or pad to the shape that x has → x"""
    return eq.inputs[0] if d.shape(eq.inputs[0]) == eq.type.shape else None


@rule(s.CAST)
def same_dtype(d: Draft, eq: Line) -> int | None:
    """cast(x) to its own dtype → x; cast(cast(x)) → cast(x) where the inner one loses nothing"""
    (x,) = eq.inputs
    if d.types[x].dtype == eq.type.dtype:
        return x
    inner = d.source(x, s.CAST)
    if inner is None:
        return None
    first, middle, last = d.types[inner].dtype, d.types[x].dtype, eq.type.dtype
    exact = np.can_cast(first, middle) and not (first == int64 and middle.kind == "f")
    # From floats to integers, what does not fit depends on the float's width.
    plain = last == first or last.kind in "bf" or middle.kind != "f"
    return d.emit(s.CAST, inner, dtype=last) if exact and plain else None


@rule(s.CONCATENATE)
def empty_parts(d: Draft, eq: Line) -> int | None:
    """concatenate without its empty parts; of one part → the part"""
    axis = eq.params["axis"]
    parts = [x for x in eq.inputs if d.shape(x)[axis]]
    if len(parts) == 1:
        return parts[0]
    return d.emit(s.CONCATENATE, *parts, axis=axis) if len(parts) < len(eq.inputs) else None


@rule(r.SUM)
def sum_of_one(d: Draft, eq: Line) -> int | None:
    """sum over axes of size 1 → reshape(x + 0): the sum starts at 0, so that −0 becomes +0"""
    (x,) = eq.inputs
    if _without_ones(eq.params["axes"], d.shape(x)):
        return None
    if d.types[x].dtype != eq.type.dtype:
        x = d.emit(s.CAST, x, dtype=eq.type.dtype)
    return d.reshape(d.plus_zero(x), eq.type.shape)


@rule(r.AMAX)
def amax_of_one(d: Draft, eq: Line) -> int | None:
    """amax over axes of size 1 → reshape(x)"""
    one = not _without_ones(eq.params["axes"], d.shape(eq.inputs[0]))
    return d.reshape(eq.inputs[0], eq.type.shape) if one else None


# --- broadcasts are done last -------------------------------------------------------------------------------------
@rule(s.CAST, *(prim for prim in TABLE.values() if prim.expr is not None and prim is not p.POW))
def broadcast_last(d: Draft, eq: Line) -> int | None:
    """f(broadcast(x), y) → f(x, y), broadcast afterwards where y does not have the full shape; but for pow"""
    # NumPy's pow has special cases for a 0-d exponent, which differ in the last bit from an array of the same number.
    if d.narrow.keys().isdisjoint(eq.inputs):
        return None
    inputs = [d.narrow.get(x, x) for x in eq.inputs]
    return d.stretch(d.emit(eq.prim, *inputs, **eq.params), eq.type.shape)


@rule(r.MATMUL)
def broadcast_product(d: Draft, eq: Line) -> int | None:
    """matmul of an operand broadcast over the batch → matmul of the operand, broadcast afterwards if need be"""
    if d.narrow.keys().isdisjoint(eq.inputs):
        return None
    inputs = [d.narrow.get(x, x) for x in eq.inputs]
    inputs = [y if d.shape(y)[-2:] == d.shape(x)[-2:] else x for x, y in zip(eq.inputs, inputs, strict=True)]
    return d.stretch(d.emit(r.MATMUL, *inputs), eq.type.shape) if inputs != [*eq.inputs] else None


@rule(s.BROADCAST)
def broadcast_again(d: Draft, eq: Line) -> int | None:
    """broadcast(broadcast(x)) → broadcast(x); one that only adds axes of size 1 → reshape"""
    (x,), shape = eq.inputs, eq.type.shape
    if x in d.narrow:
        return d.stretch(d.narrow[x], shape)
    return d.reshape(x, shape) if adds_axes(d.shape(x), shape) else None


@rule(s.TRANSPOSE, but=IMAGES)
def transposed_broadcast(d: Draft, eq: Line) -> int | None:
    """transpose(broadcast(x)) → broadcast(transpose(x))"""
    x, axes = d.source(eq.inputs[0], s.BROADCAST), eq.params["axes"]
    if x is None:
        return None
    new = len(axes) - len(d.shape(x))
    if axes[:new] != tuple(range(new)):
        x, new = d.reshape(x, (1,) * new + d.shape(x)), 0
    return d.stretch(d.emit(s.TRANSPOSE, x, axes=tuple([a - new for a in axes[new:]])), eq.type.shape)


@rule(s.RESHAPE)
def reshaped_broadcast(d: Draft, eq: Line) -> int | None:
    """reshape(broadcast(x)) that adds or takes away axes of size 1 → broadcast(reshape(x))"""
    x, after = d.source(eq.inputs[0], s.BROADCAST), eq.type.shape
    before = d.shape(eq.inputs[0])
    if x is None or [n for n in before if n != 1] != [n for n in after if n != 1]:
        return None
    shape = (1,) * (len(before) - len(d.shape(x))) + d.shape(x)
    kept = iter([m for m, n in zip(shape, before, strict=True) if n != 1])
    return d.stretch(d.reshape(x, tuple([1 if n == 1 else next(kept) for n in after])), after)


@rule(s.RESHAPE, s.SLICE, s.FLIP)
def moved_number(d: Draft, eq: Line) -> int | None:
    """elements of the broadcast of a number, moved or chosen → the number broadcast to the new shape"""
    x = d.source(eq.inputs[0], s.BROADCAST)
    return d.stretch(d.reshape(x, ()), eq.type.shape) if x is not None and size(d.shape(x)) == 1 else None


# --- one move instead of two --------------------------------------------------------------------------------------
@rule(s.RESHAPE)
def reshape_again(d: Draft, eq: Line) -> int | None:
    """reshape(reshape(x)) → reshape(x)"""
    x = d.source(eq.inputs[0], s.RESHAPE)
    return None if x is None else d.reshape(x, eq.type.shape)


@rule(s.TRANSPOSE)
def transpose_again(d: Draft, eq: Line) -> int | None:
    """transpose(transpose(x)) → transpose(x), or x; one that moves only axes of size 1 → reshape"""
    (x,), axes = eq.inputs, eq.params["axes"]
    moved = _without_ones(axes, d.shape(x))
    if moved == sorted(moved):
        return d.reshape(x, eq.type.shape)
    inner = d.made(x, s.TRANSPOSE)
    if inner is None:
        return None
    return d.emit(s.TRANSPOSE, inner.inputs[0], axes=tuple([inner.params["axes"][a] for a in axes]))


@rule(s.FLIP)
def flip_again(d: Draft, eq: Line) -> int | None:
    """flip of axes of size 1 → x; flip(flip(x)) → flip(x) along the axes that only one of them turns"""
    (x,), axes = eq.inputs, eq.params["axes"]
    inner = d.made(x, s.FLIP)
    source, turned = (x, ()) if inner is None else (inner.inputs[0], inner.params["axes"])
    left = tuple(sorted(_without_ones(tuple({*axes} ^ {*turned}), d.shape(x))))
    if not left:
        return source
    return None if inner is None and len(left) == len(axes) else d.emit(s.FLIP, source, axes=left)


@rule(s.SLICE)
def slice_again(d: Draft, eq: Line) -> int | None:
    """slice(slice(x)) → slice(x); slice(pad(x)) that takes just x → x; a slice of one part of a concatenation"""
    start, step, shape = eq.params["start"], eq.params["step"], eq.type.shape
    line = d.lines[eq.inputs[0]]
    if line is None:
        return None
    if line.prim is s.PAD:
        (x,), gaps = line.inputs, tuple([i + 1 for i in line.params["interior"]])
        return x if d.shape(x) == shape and start == line.params["low"] and step == gaps else None
    if line.prim is s.SLICE:
        begin, stride = line.params["start"], line.params["step"]
        first = tuple([a + i * b for a, i, b in zip(begin, start, stride, strict=True)])
        return _sliced(d, line.inputs[0], first, tuple([a * b for a, b in zip(stride, step, strict=True)]), shape)
    if line.prim is s.CONCATENATE:
        axis = line.params["axis"]
        at, last = start[axis], start[axis] + (shape[axis] - 1) * step[axis]
        for part in line.inputs:
            n = d.shape(part)[axis]
            if at >= 0 and last < n:
                return _sliced(d, part, (*start[:axis], at, *start[axis + 1 :]), step, shape)
            at, last = at - n, last - n
    return None


def _sliced(d: Draft, x: int, start: Shape, step: Shape, shape: Shape) -> int:
    """``shape`` elements of x from ``start`` by ``step``; none of the sizes is 0."""
    stop = tuple([a + (n - 1) * k + 1 for a, n, k in zip(start, shape, step, strict=True)])
    return d.emit(s.SLICE, x, start=start, stop=stop, step=step)


# --- arithmetic ---------------------------------------------------------------------------------------------------
@rule(p.NEG, p.BITNOT)
def twice(d: Draft, eq: Line) -> int | None:
    """−(−x) → x; ~(~x) → x"""
    return d.source(eq.inputs[0], eq.prim)


@rule(p.RELU)
def relu_again(d: Draft, eq: Line) -> int | None:
    """relu(relu(x)) → relu(x)"""
    return eq.inputs[0] if d.made(eq.inputs[0], p.RELU) else None


@rule(p.ABS)
def abs_again(d: Draft, eq: Line) -> int | None:
    """abs(abs(x)) → abs(x); abs(−x) → abs(x), but of unsigned integers, whose −x is another one"""
    if d.made(eq.inputs[0], p.ABS):
        return eq.inputs[0]
    x = d.source(eq.inputs[0], p.NEG) if eq.type.dtype.kind != "u" else None
    return None if x is None else d.emit(p.ABS, x)


@rule(p.ADD, p.SUB)
def negated_term(d: Draft, eq: Line) -> int | None:
    """x + (−y) → x − y; (−x) + y → y − x; x − (−y) → x + y"""
    x, y = eq.inputs
    negative = d.source(y, p.NEG)
    if negative is not None:
        return d.emit(p.SUB if eq.prim is p.ADD else p.ADD, x, negative)
    negative = d.source(x, p.NEG) if eq.prim is p.ADD else None
    return None if negative is None else d.emit(p.SUB, y, negative)


@rule(p.MUL, p.DIV)
def negated_factors(d: Draft, eq: Line) -> int | None:
    """(−x)·(−y) → x·y; (−x)/(−y) → x/y"""
    x, y = (d.source(i, p.NEG) for i in eq.inputs)
    return None if x is None or y is None else d.emit(eq.prim, x, y)


@rule(p.ADD, p.SUB)
def zero_term(d: Draft, eq: Line) -> int | None:
    """x − 0 → x; x + 0 → x of integers, of floats for −0 or where x is never −0"""
    for x, y in (eq.inputs, eq.inputs[::-1])[: 2 if eq.prim is p.ADD else 1]:
        zero = d.scalar(y)
        if zero is None or zero != 0:
            continue
        if zero.dtype.kind != "f" or bool(np.signbit(zero)) is (eq.prim is p.ADD) or d.never_negative_zero(x):
            return x
    return None


@rule(p.MUL, p.DIV)
def unit_factor(d: Draft, eq: Line) -> int | None:
    """x·1 → x; x/1 → x; x·(−1) → −x"""
    for x, y in (eq.inputs, eq.inputs[::-1])[: 2 if eq.prim is p.MUL else 1]:
        factor = d.scalar(y)
        if factor is not None and factor == 1:
            return x
        if factor is not None and factor == -1:
            return d.emit(p.NEG, x)
    return None


@rule(p.POW)
def small_power(d: Draft, eq: Line) -> int | None:
    """x¹ → x; x² → x·x; of floats x⁻¹ → 1/x and x^½ → √x: NumPy's own special cases"""
    x, y = eq.inputs
    power, floating = d.scalar(y), eq.type.dtype.kind == "f"
    if power is None:
        return None
    if power == 1:
        return x
    if power == 2:
        return d.emit(p.MUL, x, x)
    if floating and power == -1:
        return d.emit(p.DIV, d.number(1, x), x)
    return d.emit(p.SQRT, x) if floating and power == 0.5 else None


# --- selection ----------------------------------------------------------------------------------------------------
@rule(p.WHERE)
def known_choice(d: Draft, eq: Line) -> int | None:
    """where(true, x, y) → x; where(false, x, y) → y; where(c, x, x) → x; where(~c, x, y) → where(c, y, x)"""
    condition, x, y = eq.inputs
    known = d.scalar(condition)
    if known is not None or x == y:
        return d.stretch(x if known is None or known else y, eq.type.shape)
    inverse = d.source(condition, p.BITNOT)
    return None if inverse is None else d.emit(p.WHERE, inverse, y, x)


@rule(p.WHERE)
def choice_made(d: Draft, eq: Line) -> int | None:
    """where(c, where(c, x, y), z) → where(c, x, z); where(c, x, where(c, y, z)) → where(c, x, z)"""
    condition, x, y = eq.inputs
    above, below = d.made(x, p.WHERE), d.made(y, p.WHERE)
    if above is not None and above.inputs[0] == condition:
        x = above.inputs[1]
    if below is not None and below.inputs[0] == condition:
        y = below.inputs[2]
    if (x, y) == eq.inputs[1:]:
        return None
    return d.stretch(d.emit(p.WHERE, condition, x, y), eq.type.shape)


@rule(p.BITAND, p.BITOR)
def known_bits(d: Draft, eq: Line) -> int | None:
    """x & true → x; x & 0 → 0; x | 0 → x; x | true → true; x & x → x; x | x → x"""
    if eq.inputs[0] == eq.inputs[1]:
        return eq.inputs[0]
    for x, y in (eq.inputs, eq.inputs[::-1]):
        bits = d.scalar(y)
        if bits is not None and (not bits or bits.dtype.kind == "b"):
            neutral = bool(bits) is (eq.prim is p.BITAND)
            return x if neutral else d.stretch(y, eq.type.shape)
    return None
