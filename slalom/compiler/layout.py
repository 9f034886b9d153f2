"""Layout: rules for images, so that a convolution and all around it runs along the batch.

A convolution is recorded as one product, weights · columns of windows, with the columns in the order of (example,
pixel). Where the batch fills vectors better than rows of pixels do, the columns of a product are put in the order of
(pixel, example): then the examples of one pixel are the lanes, every window is read where it lies, and what pooling,
strides and padding do to pixels never divides a vector. The result is a transpose of what the graph asks for, and that
transpose, which is *turned*, sinks: f(xᵀ) → f(x)ᵀ for whatever follows, down to the next product.

The gradient of windows (fold) of a product is itself a product over windows: of the padded, spread out gradient, with
the flipped weights. Source: V. Dumoulin and F. Visin, A Guide to Convolution Arithmetic, 2016, relations 13 and 14.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

import numpy as np

from slalom.compiler.atoms import Atom, Groups, grouped, regrouped, whole
from slalom.compiler.draft import Draft, Fold, Line, swap
from slalom.compiler.ir import LANES
from slalom.compiler.rules import IMAGES, WHOLE, rule
from slalom.core.ops import TABLE
from slalom.core.ops import pointwise as p
from slalom.core.ops import reductions as r
from slalom.core.ops import structural as s
from slalom.core.primitive import Primitive
from slalom.core.shape import Shape, size

NEEDS: Final = frozenset({s.WINDOWS, s.FOLD})
"""What a graph must hold for these rules to find work."""
_WORTH: Final = 0.6
"""Lanes along the batch may be so much emptier than lanes along a row of pixels."""


# --- how axes are grouped -----------------------------------------------------------------------------------------
def traced(d: Draft, value: int, prim: Primitive) -> tuple[int, Groups] | None:
    """The value of ``prim`` that this one is a reshaped and transposed view of, and how its axes are grouped."""
    chain = []
    while (line := d.made(value, s.RESHAPE) or d.made(value, s.TRANSPOSE)) is not None:
        chain.append(line)
        value = line.inputs[0]
    if d.made(value, prim) is None or not size(d.shape(value)):
        return None
    groups = grouped(d.shape(value), [(line.prim, line.params, line.type.shape) for line in reversed(chain)])
    return None if groups is None else (value, groups)


def _viewed(d: Draft, value: int, groups: Groups) -> int:
    """A view of a value with its axes grouped so; together the groups hold every atom once."""
    atoms = [atom for group in groups for atom in group]
    order = sorted(range(len(atoms)), key=lambda i: (atoms[i].axis, -atoms[i].step))
    parts = d.reshape(value, tuple([atoms[i].extent for i in order]))
    turned = d.emit(s.TRANSPOSE, parts, axes=tuple([order.index(i) for i in range(len(atoms))]))
    return d.reshape(turned, tuple([prod(atom.extent for atom in group) for group in groups]))


# --- products over windows ----------------------------------------------------------------------------------------
def along_the_batch(batch: int, row: int) -> bool:
    """Whether the lanes should run over the examples rather than over a row of pixels."""
    return _filled(batch) >= _WORTH * _filled(row)


def _filled(n: int) -> float:
    """The share of the lanes of vectors along an axis that hold something."""
    return n / (-(-n // LANES) * LANES) if n else 0.0


@rule(r.MATMUL, phase=IMAGES)
def batch_last(d: Draft, eq: Line) -> int | None:
    """products over columns (example, pixel) of windows → (pixel, example), so that the examples are the lanes"""
    (x, y), shape = eq.inputs, eq.type.shape
    if (found := traced(d, y, s.WINDOWS)) is None:
        return None
    line, groups = d.lines[found[0]], found[1]
    assert line is not None
    steps = {name: (*line.params[name], 1) for name in ("size", "stride", "dilation")}
    n = len(line.params["size"])
    if len(line.type.shape) != 2 + 2 * n:
        return None
    batch, _, *pixels = line.type.shape[: 2 + n]
    columns = tuple([Atom(i, 1, m) for i, m in ((0, batch), *enumerate(pixels, 2)) if m > 1])
    if batch == 1 or len(columns) < 2 or columns not in groups[-2:] or not along_the_batch(batch, pixels[-1]):
        return None
    at = groups.index(columns, len(groups) - 2)
    moved = {0: 1 + n, 1: 0} | {2 + i: 1 + i for i in range(n)} | {2 + n + i: 2 + n + i for i in range(n)}
    turned = [tuple([atom._replace(axis=moved[atom.axis]) for atom in group]) for group in groups]
    turned[at] = (*turned[at][1:], turned[at][0])
    seen = d.emit(s.WINDOWS, d.emit(s.TRANSPOSE, line.inputs[0], axes=(1, *range(2, 2 + n), 0)), **steps)
    y = _viewed(d, seen, turned)
    if at == len(groups) - 2:  # they are summed over, in both operands
        lead = d.shape(x)[:-1]
        return d.emit(r.MATMUL, d.reshape(d.swapped(d.reshape(x, (*lead, batch, prod(pixels)))), d.shape(x)), y)
    out, rank = d.reshape(d.emit(r.MATMUL, x, y), (*shape[:-1], prod(pixels), batch)), len(shape) + 1
    return d.reshape(_turned(d, out, swap(rank)), shape)


@rule(r.MATMUL, phase=IMAGES)
def windows_right(d: Draft, eq: Line) -> int | None:
    """columns of windows · y → (yᵀ · theirs)ᵀ, as products see an image on their right-hand side"""
    x, y = eq.inputs
    if traced(d, x, s.WINDOWS) is None or traced(d, y, s.WINDOWS) is not None:
        return None
    return d.swapped(d.emit(r.MATMUL, d.swapped(y), d.swapped(x)))


@rule(s.FOLD, phase=IMAGES)
def fold_of_product(d: Draft, eq: Line) -> int | None:
    """fold(w·y) → flipped w · windows of the padded y, each element the same sums joined into one over (c, k)"""
    (columns,), n = eq.inputs, len(eq.params["size"])
    if (found := traced(d, columns, r.MATMUL)) is None or len(d.shape(columns)) != 2 + 2 * n or not d.once(found[0]):
        return None
    line, groups = d.lines[found[0]], found[1]
    assert line is not None
    (x, y), product, shape = line.inputs, line.type.shape, d.shape(columns)
    (batch, channels, *pixels), taps = shape[: 2 + n], shape[2 + n :]
    parts, sets = product[:-2], prod(product[:-2])
    if len(parts) > 1 or channels % sets:
        return None
    wanted = regrouped(whole(product), (sets, channels // sets, *taps, batch, *pixels))
    if wanted is None or groups != [wanted[2 + n], wanted[0] + wanted[1], *wanted[3 + n :], *wanted[2 : 2 + n]]:
        return None
    if max(eq.params["stride"]) > 1 and not along_the_batch(batch, eq.params["output"][-1]):
        return None
    inner = d.shape(x)[-1]
    w = d.emit(s.FLIP, d.reshape(x, (sets, channels // sets, *taps, inner)), axes=tuple(range(2, 2 + n)))
    w = d.emit(s.TRANSPOSE, w, axes=(0, 1, 2 + n, *range(2, 2 + n)))
    y = d.emit(s.TRANSPOSE, d.reshape(y, (sets * inner, batch, *pixels)), axes=(1, 0, *range(2, 2 + n)))
    fold = Fold(w, y, eq.params["stride"], eq.params["dilation"], (0,) * n, eq.params["output"])
    return _spread(d, fold)


@rule(s.SLICE, phase=IMAGES)
def slice_of_fold(d: Draft, eq: Line) -> int | None:
    """a part of such a fold → the product over the windows of that part"""
    fold = d.folds.get(eq.inputs[0])
    if fold is None or set(eq.params["step"]) != {1} or eq.type.shape[:2] != d.shape(eq.inputs[0])[:2]:
        return None
    start = tuple([a + b for a, b in zip(fold.start, eq.params["start"][2:], strict=True)])
    return _spread(d, fold._replace(start=start, shape=eq.type.shape[2:]))


def _spread(d: Draft, fold: Fold) -> int | None:
    """The part of a fold that begins at ``start``: (B, C, *shape)."""
    sets, channels, inner, *taps = d.shape(fold.w)
    (batch, _, *pixels), n = d.shape(fold.y), len(fold.shape)
    axes = list(zip(taps, fold.dilation, fold.stride, fold.start, fold.shape, pixels, strict=True))
    low = [step * (k - 1) - start for k, step, _, start, _, _ in axes]
    high = [
        m - 1 + step * (k - 1) - before - (p - 1) * stride
        for (k, step, stride, _, m, p), before in zip(axes, low, strict=True)
    ]
    if min(*low, *high, *fold.shape) < 0 or not taps or 0 in fold.shape:
        return None
    none = (0, 0)
    padded = d.emit(
        s.PAD, fold.y, low=(*none, *low), high=(*none, *high), interior=(*none, *(k - 1 for k in fold.stride))
    )
    seen = d.emit(s.WINDOWS, padded, size=tuple(taps), stride=(1,) * n, dilation=fold.dilation)
    columns = d.emit(s.TRANSPOSE, seen, axes=(1, *range(2 + n, 2 + 2 * n), 0, *range(2, 2 + n)))
    lead = (sets,) if sets > 1 else ()
    depth = inner * prod(taps)
    out = d.emit(
        r.MATMUL, d.reshape(fold.w, (*lead, channels, depth)),
        d.reshape(columns, (*lead, depth, batch * prod(fold.shape))),
    )  # fmt: skip
    out = d.reshape(out, (sets * channels, batch, *fold.shape))
    out = d.emit(s.TRANSPOSE, out, axes=(1, 0, *range(2, 2 + n)))
    d.folds[out] = fold
    return out


@rule(s.CONCATENATE, phase=WHOLE)
def either_place(d: Draft, eq: Line) -> int | None:
    """concatenate(where(c, 0, y), where(c, y, 0)), the gradient of a maximum of two → where(c = (false, true), y, 0)"""
    if len(eq.inputs) != 2 or eq.type.shape[axis := eq.params["axis"]] != 2:
        return None
    first, second = (d.made(x, p.WHERE) for x in eq.inputs)
    if first is None or second is None or first.inputs[0] != second.inputs[0]:
        return None
    (c, none, y), (_, z, nothing) = first.inputs, second.inputs
    rank = len(eq.type.shape)
    if y != z or d.scalar(none) != 0 or d.scalar(nothing) != 0 or np.signbit(d.scalar(none)) or len(d.shape(c)) != rank:
        return None
    if np.signbit(d.scalar(nothing)):
        return None
    places = d.constant(np.array([False, True]).reshape(-1, *(1,) * (rank - axis - 1)))
    return d.emit(p.WHERE, d.emit(p.EQ, c, places), y, none)


@rule(p.ADD, phase=WHOLE)
def zero_again(d: Draft, eq: Line) -> int | None:
    """where(c, x + 0, y) + 0 → where(c, x, y) + 0: one zero is enough to make +0 of −0"""
    x, zero = eq.inputs if d.scalar(eq.inputs[1]) is not None else eq.inputs[::-1]
    if d.scalar(zero) != 0 or np.signbit(d.scalar(zero)) or (choice := d.made(x, p.WHERE)) is None:
        return None
    condition, *values = choice.inputs
    bare = [_without_zero(d, value) for value in values]
    return None if bare == values else d.emit(p.ADD, d.emit(p.WHERE, condition, *bare), zero)


def _without_zero(d: Draft, value: int) -> int:
    """What a value is a sum with +0 of, in its own shape."""
    shape = d.made(value, s.RESHAPE)
    line = d.made(value if shape is None else shape.inputs[0], p.ADD)
    if line is None:
        return value
    for x, y in (line.inputs, line.inputs[::-1]):
        if (number := d.scalar(y)) is not None and number == 0 and not np.signbit(number):
            return d.reshape(x, d.shape(value))
    return value


# --- transposes sink ----------------------------------------------------------------------------------------------
def _turned(d: Draft, value: int, axes: Sequence[int]) -> int:
    """A transpose that is to sink."""
    found = d.emit(s.TRANSPOSE, value, axes=tuple(axes))
    if d.made(found, s.TRANSPOSE):
        d.turned.add(found)
    return found


def _source(d: Draft, value: int) -> tuple[int, Shape] | None:
    """What a value that is turned is a transpose of, and how."""
    line = d.lines[value] if value in d.turned else None
    return None if line is None else (line.inputs[0], line.params["axes"])


def _inverse(axes: Shape) -> Shape:
    return tuple([axes.index(i) for i in range(len(axes))])


def _permuted(values: Sequence[int], axes: Shape) -> Shape:
    """What belongs to the axes of a transpose, for those of its operand."""
    return tuple([values[i] for i in _inverse(axes)])


def _brought(d: Draft, value: int, axes: Shape) -> int:
    """An operand beside others that lost this transpose."""
    shape = d.shape(value)
    if not shape:
        return value
    source = _source(d, value)
    if source is not None and source[1] == axes:
        return source[0]
    return d.emit(s.TRANSPOSE, d.reshape(value, (1,) * (len(axes) - len(shape)) + shape), axes=_inverse(axes))


@rule(s.CAST, *(prim for prim in TABLE.values() if prim.expr is not None), phase=IMAGES)
def turned_elements(d: Draft, eq: Line) -> int | None:
    """f(xᵀ, y) → f(x, yᵀ)ᵀ of a transpose that is turned"""
    rank = len(eq.type.shape)
    source = next((f for x in eq.inputs if len(d.shape(x)) == rank and (f := _source(d, x)) is not None), None)
    if source is None:
        return None
    axes = source[1]
    out = d.emit(eq.prim, *[_brought(d, d.narrow.get(x, x), axes) for x in eq.inputs], **eq.params)
    return _turned(d, d.stretch(out, _permuted(eq.type.shape, axes)), axes)


@rule(r.SUM, r.AMAX, phase=IMAGES)
def turned_reduction(d: Draft, eq: Line) -> int | None:
    """Σ xᵀ → (Σ x)ᵀ of a transpose that is turned: another order of the same sum"""
    if (source := _source(d, eq.inputs[0])) is None:
        return None
    x, axes = source
    over = tuple(sorted(axes[a] for a in eq.params["axes"]))
    keepdims = eq.params["keepdims"]
    kept = [a for a in axes if keepdims or a not in over]
    out = d.emit(eq.prim, x, axes=over, keepdims=keepdims)
    return _turned(d, out, [sorted(kept).index(a) for a in kept])


@rule(s.SLICE, s.PAD, phase=IMAGES)
def turned_part(d: Draft, eq: Line) -> int | None:
    """slice or pad of xᵀ → (that of x)ᵀ of a transpose that is turned"""
    if (source := _source(d, eq.inputs[0])) is None:
        return None
    x, axes = source
    return _turned(d, d.emit(eq.prim, x, **{key: _permuted(value, axes) for key, value in eq.params.items()}), axes)


@rule(s.CONCATENATE, phase=IMAGES)
def turned_parts(d: Draft, eq: Line) -> int | None:
    """concatenate(xᵀ, y) → concatenate(x, yᵀ)ᵀ of a transpose that is turned"""
    source = next((f for x in eq.inputs if (f := _source(d, x)) is not None), None)
    if source is None:
        return None
    axes = source[1]
    parts = [_brought(d, x, axes) for x in eq.inputs]
    return _turned(d, d.emit(s.CONCATENATE, *parts, axis=axes[eq.params["axis"]]), axes)


@rule(s.BROADCAST, phase=IMAGES)
def turned_broadcast(d: Draft, eq: Line) -> int | None:
    """broadcast(xᵀ) → broadcast(x)ᵀ of a transpose that is turned"""
    if (source := _source(d, eq.inputs[0])) is None:
        return None
    x, axes = source
    new = len(eq.type.shape) - len(axes)
    whole = (*range(new), *(a + new for a in axes))
    return _turned(d, d.emit(s.BROADCAST, x, shape=_permuted(eq.type.shape, whole)), whole)


@rule(s.RESHAPE, phase=IMAGES)
def turned_reshape(d: Draft, eq: Line) -> int | None:
    """reshape(xᵀ) → reshape(x)ᵀ of a transpose that is turned, where it cuts and joins axes that stay neighbours"""
    if (source := _source(d, eq.inputs[0])) is None:
        return None
    x, axes = source
    before, after = d.shape(eq.inputs[0]), eq.type.shape
    blocks: list[tuple[list[int], list[int]]] = []  # axes before and after, of as many elements
    i = j = 0
    while i < len(before) or j < len(after):
        ours, theirs, a, b = list[int](), list[int](), 1, 1
        while True:
            if i < len(before) and (a < b or (not ours and not theirs) or (a == b and before[i] == 1)):
                ours.append(i)
                a, i = a * before[i], i + 1
            elif j < len(after) and (b < a or after[j] == 1):
                theirs.append(j)
                b, j = b * after[j], j + 1
            else:
                break
        if a != b:
            return None
        blocks.append((ours, theirs))
    order = []
    for ours, theirs in blocks:
        real = [axes[i] for i in ours if before[i] > 1]
        lies = [a for a in range(len(axes)) if d.shape(x)[a] > 1]
        at = [lies.index(a) for a in real]
        if at != list(range(at[0], at[0] + len(at))) if at else False:
            return None
        order.append((at[0] if at else -1, theirs))
    memory = [j for _, theirs in sorted(order) for j in theirs]
    return _turned(d, d.reshape(x, tuple([after[j] for j in memory])), [memory.index(j) for j in range(len(after))])


def _leading(d: Draft, value: int, count: int) -> tuple[int, list[int]] | None:
    """Of a value that is turned: its source with those axes first that become the first ``count`` of the value's, and
    which axis of the value each axis of that is."""
    if (source := _source(d, value)) is None:
        return None
    x, axes = source
    order = [*axes[:count], *sorted(axes[count:])]
    return d.emit(s.TRANSPOSE, x, axes=tuple(order)), [axes.index(a) for a in order]


@rule(r.GATHER, phase=IMAGES)
def turned_gather(d: Draft, eq: Line) -> int | None:
    """gather from xᵀ → (gather from x)ᵀ of a transpose that is turned, with the axes that are chosen from first"""
    x, *indices = eq.inputs
    if not indices or (found := _leading(d, x, len(indices))) is None:
        return None
    source, axes = found
    new = len(d.shape(indices[0]))
    rest = [a - len(indices) + new for a in axes[len(indices) :]]
    return _turned(d, d.emit(r.GATHER, source, *indices), _inverse((*range(new), *rest)))


@rule(r.SCATTER_ADD, phase=IMAGES)
def turned_scatter(d: Draft, eq: Line) -> int | None:
    """scatter_add of xᵀ → (scatter_add of x)ᵀ of a transpose that is turned, with the axes that are placed first"""
    x, *indices = eq.inputs
    new = len(d.shape(indices[0])) if indices else 0
    if not indices or (found := _leading(d, x, new)) is None:
        return None
    source, axes = found
    whole = (*range(len(indices)), *(a - new + len(indices) for a in axes[new:]))
    shape = tuple([eq.params["shape"][a] for a in whole])
    return _turned(d, d.emit(r.SCATTER_ADD, source, *indices, shape=shape), _inverse(whole))


@rule(r.SUM, s.SLICE, phase=IMAGES)
def turned_windows(d: Draft, eq: Line) -> int | None:
    """Σ, or a part, of windows(xᵀ) → that of windows(x)ᵀ of a transpose that is turned"""
    line = d.made(eq.inputs[0], s.WINDOWS)
    if line is None or (source := _source(d, line.inputs[0])) is None:
        return None
    x, axes = source
    n, rank = len(line.params["size"]), len(axes)
    over = axes[rank - n :]
    first = min(over)
    if over != tuple(sorted(over)):
        return None
    steps = {}
    for name, given in line.params.items():
        steps[name] = tuple([given[over.index(a)] if a in over else 1 for a in range(first, rank)])
    seen = d.emit(s.WINDOWS, x, **steps)
    seen = d.reshape(seen, (*d.shape(seen)[:rank], *line.params["size"]))
    turned = _turned(d, seen, (*axes, *range(rank, rank + n)))
    return d.emit(eq.prim, turned, **eq.params)


@rule(s.FOLD, phase=IMAGES)
def turned_fold(d: Draft, eq: Line) -> int | None:
    """fold(xᵀ) → fold(x)ᵀ of a transpose that is turned"""
    if (source := _source(d, eq.inputs[0])) is None:
        return None
    x, axes = source
    n, rank = len(eq.params["size"]), len(eq.type.shape)
    order = sorted(range(rank), key=axes.__getitem__)  # of the axes of the result
    over = [i for i in order if i >= rank - n]
    if over != sorted(over):
        return None
    trailing = order[order.index(over[0]) :]
    steps = {}
    for name in ("size", "stride", "dilation"):
        steps[name] = tuple([eq.params[name][i - rank + n] if i in over else 1 for i in trailing])
    y = d.emit(s.TRANSPOSE, x, axes=tuple([axes[i] for i in (*order, *range(rank, rank + n))]))
    y = d.reshape(y, (*d.shape(y)[:rank], *steps["size"]))
    out = d.emit(s.FOLD, y, output=tuple([eq.type.shape[i] for i in trailing]), **steps)
    return _turned(d, out, _inverse(tuple(order)))


@rule(s.TRANSPOSE, phase=IMAGES)
def turned_again(d: Draft, eq: Line) -> int | None:
    """transpose(xᵀ) of a transpose that is turned → one that is turned, or x"""
    if (source := _source(d, eq.inputs[0])) is None:
        return None
    x, axes = source
    return _turned(d, x, [axes[a] for a in eq.params["axes"]])


@rule(s.TRANSPOSE, phase=IMAGES)
def scaled_product(d: Draft, eq: Line) -> int | None:
    """f(x·y)ᵀ → f((x·y)ᵀ) of a function of a product and numbers that has no other use"""
    (value,) = eq.inputs
    line, wide = d.lines[value], _scaled(d, value)
    x = wide
    while x is not None and traced(d, x, r.MATMUL) is None:
        x = _scaled(d, x)
    if line is None or wide is None or x is None:
        return None
    inputs = [d.emit(s.TRANSPOSE, i, axes=eq.params["axes"]) if i == wide else i for i in line.inputs]
    return d.emit(line.prim, *inputs, **line.params)


def _scaled(d: Draft, value: int) -> int | None:
    """What a value with one use is a function of, beside numbers."""
    line = d.lines[value]
    if line is None or line.prim.expr is None or not d.once(value):
        return None
    wide = [x for x in line.inputs if d.shape(x)]
    return wide[0] if len(wide) == 1 and d.shape(wide[0]) == line.type.shape else None


@rule(s.TRANSPOSE, phase=IMAGES)
def turned_product(d: Draft, eq: Line) -> int | None:
    """the parts of the rows and of the columns of a product exchanged → yᵀ·xᵀ, if x·y has no other use"""
    (parts,), axes = eq.inputs, eq.params["axes"]
    line = d.made(parts, s.RESHAPE)
    product = None if line is None else d.made(line.inputs[0], r.MATMUL)
    if line is None or product is None or not d.once(parts) or not d.once(line.inputs[0]):
        return None
    cut = axes[0]
    if len(product.type.shape) != 2 or axes != (*range(cut, len(axes)), *range(cut)):
        return None
    if prod(line.type.shape[:cut]) != product.type.shape[0]:
        return None
    x, y = product.inputs
    return d.reshape(d.emit(r.MATMUL, d.swapped(y), d.swapped(x)), eq.type.shape)
