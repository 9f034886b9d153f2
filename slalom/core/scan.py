"""Scan: a loop over time steps as one operation. Its step is recorded once, as a graph, however often it is taken.

What a loop has computed is one vector: of each carry all its values, one row for each step and one more for the value
that it began with, then of each result one row for each step, with gaps between. So a row of any of them lies in one
piece, and so do all rows; ``loop`` hands them out as (rows, …).

The way back is a loop in the other direction, whose step is the step's own way back (``step.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.core.autodiff import is_grad_enabled
from slalom.core.dtype import DType
from slalom.core.ops import pointwise as p
from slalom.core.ops import structural as s
from slalom.core.primitive import Array, Kind, Params, Primitive
from slalom.core.shape import Shape, size
from slalom.core.step import Body, Shares, Source, back_of, kept, pushed
from slalom.core.tensor import Tensor, apply, check_operands
from slalom.errors import DTypeError, ShapeError

__all__ = ["SCAN", "Field", "fields", "loop"]

LARGE: Final = 1024
"""From so many elements on, an output's rows …"""
APART: Final = 80
"""… are followed by unused ones up to a multiple of this: equal elements of several do not compete for one place in the
cache, as they would if all began at multiples of a power of two."""


class Field(NamedTuple):
    """Where in a loop's vector the rows of one output of a step lie: from which element on, how many, of what shape."""

    begin: int
    rows: int
    shape: Shape

    @property
    def end(self) -> int:
        return self.begin + self.rows * size(self.shape)


def fields(body: Body, steps: int) -> list[Field]:
    """Where the rows of each output of a step lie."""
    found: list[Field] = []
    begin = 0
    for k, of in enumerate(body.outputs):
        found.append(Field(begin, steps + (k < body.carries), of.shape))
        end = found[-1].end
        begin = end if end - begin < LARGE else -(-end // APART) * APART + APART
    return found


# --- the primitive ------------------------------------------------------------------------------------------------
def _types(inputs: Sequence[Any], body: Body, steps: int) -> list[Shape]:
    shapes = [of.shape for of in body.inputs]
    first = body.carries
    return [(steps, *shape) if first <= i < first + body.pieces else shape for i, shape in enumerate(shapes)]


def _shape(*inputs: Any, body: Body, steps: int, reverse: bool) -> Shape:
    needed = _types(inputs, body, steps)
    if [x.shape for x in inputs] != needed or [x.dtype for x in inputs] != [of.dtype for of in body.inputs]:
        raise ShapeError("scan", got=f"shapes {[x.shape for x in inputs]}", needed=f"{needed}, of the step's dtypes")
    if steps < 1:
        raise ShapeError("scan: steps", got=steps, needed="at least 1")
    return (fields(body, steps)[-1].end,)


def _dtype(*inputs: Any, body: Body, **params: Any) -> DType:
    return body.outputs[0].dtype


def _run(*inputs: Array, body: Body, steps: int, reverse: bool) -> Array:
    graph, c, m = body.graph, body.carries, body.pieces
    places = fields(body, steps)
    out = np.zeros(places[-1].end, body.outputs[0].dtype)
    rows = [out[at.begin : at.end].reshape(at.rows, *at.shape) for at in places]
    for row, array in zip(rows, inputs[:c], strict=False):
        row[steps if reverse else 0] = array
    for t in reversed(range(steps)) if reverse else range(steps):
        before, after = (t + 1, t) if reverse else (t, t + 1)
        given = [*(row[before] for row in rows[:c]), *(x[t] for x in inputs[c : c + m]), *inputs[c + m :]]
        values: dict[int, Any] = {
            place.value: x for place, x in zip(graph.inputs, given, strict=True)
        } | graph.constants
        for eq in graph.equations:
            values[eq.out] = eq.prim.bare(*[values[i] for i in eq.inputs], **eq.params)
        for k, output in enumerate(graph.outputs):
            rows[k][after if k < c else t] = values[output.value]
    return out


class _Loop(Kind):
    """The derivative of a loop is a loop: over tangents in the same direction, over cotangents in the other."""

    def vjp(self, prim: Primitive, i: int, ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params) -> Tensor:
        (part,) = self.vjps(prim, [i], ct, out, inputs, params)
        return part

    def vjps(
        self, prim: Primitive, wanted: Sequence[int], ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Iterator[Tensor]:
        body, steps, reverse = params["body"], params["steps"], params["reverse"]
        c, m = body.carries, body.pieces
        places = fields(body, steps)
        given = {k: part for k, at in enumerate(places) if (part := _part_of(ct, at)) is not None}
        back = back_of(body, tuple(sorted({*range(c), *wanted})), tuple(given))
        first = steps if reverse else 0

        def rows(k: int, whole: Tensor, after: bool) -> Tensor:
            """Of an output, the rows of all steps: as each step left it, or found it."""
            if k >= c:
                return whole
            return whole.narrow(0, 1 if after != reverse else 0, steps)

        def all_of(source: Source) -> Tensor:
            kind, k = source
            if kind == "input" and k >= c:
                return inputs[k]
            return rows(k, _unpacked(out, places[k]), kind == "output")

        starts = [Tensor._of(np.zeros(of.shape, of.dtype)) for of in body.outputs[:c]]
        pieces = [rows(k, given[k], True) for k in back.cts]
        pieces += [all_of(source) for source in back.read]
        made = apply(
            SCAN, *starts, *pieces, *(inputs[k] for k in back.fixed), body=back.body, steps=steps, reverse=not reverse
        )
        found = fields(back.body, steps)
        shares = Shares(back.joint, back.there)

        def stack(value: int) -> Tensor:
            if value in back.there:
                return all_of(back.there[value])
            return _unpacked(made, found[back.stacked[value]])

        for i in wanted:
            if i < c:
                part = _unpacked(made, found[i]).narrow(0, first, 1).reshape(body.inputs[i].shape)
                outside = given.get(i)
                yield part if outside is None else part + outside.narrow(0, first, 1).reshape(part.shape)
            elif i < c + m:
                yield _unpacked(made, found[back.pieces[i]])
            else:
                yield shares.total(back.joint.back(i), stack)

    def jvp(
        self, prim: Primitive, tangents: Sequence[Tensor | None], out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Tensor | None:
        body, steps = params["body"], params["steps"]
        c, m, n = body.carries, body.pieces, len(inputs)
        moving = tuple([i for i, t in enumerate(tangents) if t is not None or i < c])
        if all(t is None for t in tangents):
            return None
        both = pushed(body, moving)
        moved = [x._zeros() if t is None else t for x, t in zip(inputs, tangents, strict=True)]
        groups = [range(c), range(c, c + m), range(c + m, n)]
        given = [[*(inputs[i] for i in g), *(moved[i] for i in g if i in moving)] for g in groups]
        made = apply(SCAN, *given[0], *given[1], *given[2], **{**params, "body": both})
        found = fields(both, steps)
        results = len(body.outputs) - c
        parts = [*found[c : 2 * c], *found[2 * c + results :]]
        whole: list[Tensor] = []
        done = 0
        for place, part in zip(fields(body, steps), parts, strict=True):
            if place.begin > done:
                whole.append(Tensor._of(np.zeros(place.begin - done, out.dtype)))
            whole.append(made.narrow(0, part.begin, part.end - part.begin))
            done = place.end
        return whole[0]._concatenate(whole[1:], 0) if len(whole) > 1 else whole[0]


SCAN: Final = Primitive(
    "scan",
    _run,
    _Loop(),
    _shape,
    "a step, taken many times: all values of its carries and results in one vector",
    dtype=_dtype,
)


# --- what callers see ---------------------------------------------------------------------------------------------
def loop(
    body: Body,
    carries: Sequence[Tensor],
    pieces: Sequence[Tensor],
    fixed: Sequence[Tensor],
    *,
    steps: int,
    reverse: bool = False,
) -> list[Tensor]:
    """Take a step so many times, from the last piece to the first if ``reverse``.

    Returns: for each carry its values, of shape (steps + 1, …): row t + 1 is what step t left, row 0 where it began
    (if ``reverse``, row t is what step t left, and the last row where it began); for each result (steps, …).
    Shapes: carries and ``fixed`` as the step's; pieces (steps, …). Raises: ShapeError for others; DTypeError where not
    all that is floating, and all that the step returns, has one dtype, on which the loop's vector rests.
    """
    inputs = (*carries, *pieces, *fixed)
    floats = {t.dtype for t in inputs if t.dtype.kind == "f"} | {of.dtype for of in body.outputs}
    if len(floats) > 1:
        raise DTypeError("scan: dtypes", got=", ".join(sorted(of.name for of in floats)), needed="one floating dtype")
    check_operands(SCAN, inputs, {"body": body, "steps": steps, "reverse": reverse})
    live = {i for i, t in enumerate(inputs) if is_grad_enabled() and t.requires_grad}
    whole = kept(body, tuple(sorted(live | {*range(body.carries)}))) if live else body
    out = apply(SCAN, *inputs, body=whole, steps=steps, reverse=reverse)
    return [_unpacked(out, at) for at in fields(whole, steps)[: len(body.outputs)]]


def _unpacked(out: Tensor, at: Field) -> Tensor:
    """One output's rows of a loop's vector."""
    return out.narrow(0, at.begin, at.end - at.begin).reshape((at.rows, *at.shape))


def _part_of(ct: Tensor, at: Field) -> Tensor | None:
    """Of a cotangent that is a sum of padded parts, as those of slices are, or known, what lies in a field; None for
    nothing: what is not 0 · x cannot be NaN."""
    node = ct._node
    if node is not None and node.prim is p.ADD and all(source.shape == ct.shape for source in node.inputs):
        x, y = [_part_of(Tensor._saved(source, node), at) for source in node.inputs]
        return y if x is None else x if y is None else x + y
    if node is not None and node.prim is s.PAD and node.params["interior"] == (0,):
        (begin,), (inner,) = node.params["low"], [source.shape[0] for source in node.inputs]
        if begin >= at.end or begin + inner <= at.begin:
            return None
        if (begin, begin + inner) == (at.begin, at.end):
            return Tensor._saved(node.inputs[0], node).reshape((at.rows, *at.shape))
    part = _unpacked(ct, at)
    array = part._storage.array
    return None if node is None and isinstance(array, np.ndarray) and not array.any() else part
