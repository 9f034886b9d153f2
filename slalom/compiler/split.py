"""Split: long sums cut into blocks, so that threads can share them and each stays among rows of its own.

Blocks follow from the shape alone, and are joined in order: the bits do not depend on how many threads there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from slalom.compiler.draft import Draft, Line, Rule, rewrite
from slalom.core.graph import Graph
from slalom.core.ops import reductions as r
from slalom.core.ops import structural as s
from slalom.core.primitive import Primitive
from slalom.core.shape import size

ROWS: Final = 2048
"""From so many rows on, sums over rows are cut."""
SHORT, LONG = 256, 1024
"""Rows of a block: as many of these as divide the whole."""
VERY_LONG: Final = 1 << 16
"""Elements of a vector from which on its sum is cut."""
ELEMENTS: Final = 4096
"""From so many elements on, the sum of a matrix is cut, into at most ``PARTS``."""
PARTS: Final = 16
OUTPUTS: Final = 1 << 14
"""Elements of a product below which it pays to sum it in blocks."""


def split(graph: Graph) -> Graph:
    """An equal graph, but for the order of long sums."""
    return rewrite(graph, _RULES, Counter())


def _block(n: int) -> int:
    """The largest divisor of n that is a length for blocks; 0 if there is none, or if n needs no blocks."""
    return next((b for b in range(LONG, SHORT - 1, -1) if n % b == 0), 0) if n >= ROWS else 0


def _columns(d: Draft, eq: Line) -> int | None:
    """Σ over many rows → Σ over blocks of Σ over the rows of a block."""
    shape, (x,) = d.shape(eq.inputs[0]), eq.inputs
    if len(shape) != 2 or eq.params["axes"] != (0,) or eq.type.dtype.kind != "f" or not (rows := _block(shape[0])):
        return None
    parts = d.emit(r.SUM, d.reshape(x, (shape[0] // rows, rows, shape[1])), axes=(1,), keepdims=False)
    return d.emit(r.SUM, parts, axes=(0,), keepdims=eq.params["keepdims"])


def _vector(d: Draft, eq: Line) -> int | None:
    """Σ of a very long vector → Σ over blocks of Σ over a block: a chain so long would lose digits."""
    (x,), shape = eq.inputs, d.shape(eq.inputs[0])
    if len(shape) != 1 or eq.params["axes"] != (0,) or eq.type.dtype.kind != "f" or shape[0] < VERY_LONG:
        return None
    if not (length := _block(shape[0])):
        return None
    blocks = d.emit(r.SUM, d.reshape(x, (shape[0] // length, length)), axes=(1,), keepdims=False)
    return d.emit(r.SUM, blocks, axes=(0,), keepdims=eq.params["keepdims"])


def _whole(d: Draft, eq: Line) -> int | None:
    """Σ of a large product (a gradient, looked at for what is not finite) → Σ over bands of rows of Σ over a band."""
    (x,) = eq.inputs
    shape = d.shape(x)
    if d.made(x, r.MATMUL) is None or eq.params["axes"] != (0, 1) or eq.type.dtype.kind != "f":
        return None
    if size(shape) < ELEMENTS:
        return None
    parts = next(n for n in range(PARTS, 0, -1) if shape[0] % n == 0)
    if parts < 2:
        return None
    bands = d.emit(r.SUM, d.reshape(x, (parts, shape[0] // parts, shape[1])), axes=(1, 2), keepdims=False)
    return d.reshape(d.emit(r.SUM, bands, axes=(0,), keepdims=False), eq.type.shape)


def _product(d: Draft, eq: Line) -> int | None:
    """xᵀ·y of many rows (a gradient over a large batch) → the sum of the products of blocks of rows."""
    x, y = eq.inputs
    left, shape = d.made(x, s.TRANSPOSE), d.shape(x)
    if left is None or len(shape) != 2 or eq.type.dtype.kind != "f" or not (rows := _block(shape[1])):
        return None
    (m, k), n = shape, d.shape(y)[1]
    if m * n >= OUTPUTS:
        return None
    blocks = d.reshape(left.inputs[0], (k // rows, rows, m))
    turned = d.emit(s.TRANSPOSE, blocks, axes=(0, 2, 1))
    parts = d.emit(r.MATMUL, turned, d.reshape(y, (k // rows, rows, n)))
    return d.emit(r.SUM, parts, axes=(0,), keepdims=False)


_RULES: Final[Mapping[Primitive, Sequence[Rule]]] = {r.SUM: [_columns, _vector, _whole], r.MATMUL: [_product]}
