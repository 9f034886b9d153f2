"""Scan: a loop over time steps as one operation. A step is recorded once, as a graph, however often it is taken.

What a loop has computed is one vector: of each carry all its values, one row for each step and one more for the value
that it began with, then of each result one row for each step, with gaps between. So a row of any of them lies in one
piece, and so do all rows; ``scan`` hands them out as (rows, …).

The way back is a loop in the other direction, whose step is the step's own way back. It reads what the step's graph
has computed where that was kept, and computes the rest again; ``scan`` lets a step that will be differentiated keep
what is dear. The gradient of what all steps share (weights) is no sum that grows from step to step: its factors are
kept, and multiplied at once for all steps.

Source: A. Griewank and A. Walther, Evaluating Derivatives, 2008, chapter 12, for what to keep and what to do again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from slalom.core.autodiff import grad_of, is_grad_enabled, jvp
from slalom.core.dtype import DType
from slalom.core.graph import Graph, Input, Output, Type
from slalom.core.node import MODE, Mode
from slalom.core.ops import pointwise as p
from slalom.core.ops import reductions as r
from slalom.core.ops import structural as s
from slalom.core.primitive import Array, Kind, Params, Primitive
from slalom.core.shape import Shape, size
from slalom.core.tensor import Tensor, apply, check_operands
from slalom.core.trace import Trace
from slalom.errors import ShapeError

__all__ = ["SCAN", "Body", "Field", "body_of", "fields", "scan"]

LARGE: Final = 1024
"""From so many elements on, an output's rows …"""
APART: Final = 80
"""… are followed by unused ones up to a multiple of this: equal elements of several do not compete for one place in the
cache, as they would if all began at multiples of a power of two."""
_AGAIN: Final = frozenset(
    {p.ADD, p.SUB, p.MUL, p.NEG, p.ABS, p.SIGN, p.RELU, p.MAXIMUM, p.MINIMUM, p.WHERE, s.CAST, p.EQ, p.NE, p.LT, p.LE}
)
"""Operations that the way back does again rather than have kept."""


@dataclass(frozen=True, eq=False, repr=False)
class Body:
    """One step as a graph: (carries, pieces, fixed) → (carries, results).

    Pieces are rows of what is given for all steps, ``fixed`` is the same at each. All outputs have one floating dtype.
    ``derived``: what was made of this body, by what it is for.
    """

    graph: Graph
    carries: int
    pieces: int
    derived: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> tuple[Type, ...]:
        """The types of a step's inputs."""
        return tuple([self.graph.types[place.value] for place in self.graph.inputs])

    @cached_property
    def outputs(self) -> tuple[Type, ...]:
        """The types of a step's outputs."""
        return tuple([self.graph.types[place.value] for place in self.graph.outputs])

    def __repr__(self) -> str:
        return f"step of {len(self.graph.equations)} equations"

    def __str__(self) -> str:
        return f"step with {self.carries} carries and {self.pieces} pieces: {self.graph}"


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


# --- recording ----------------------------------------------------------------------------------------------------
def body_of(
    step: Callable[..., Sequence[Tensor]], carries: Sequence[Type], pieces: Sequence[Type], fixed: Sequence[Type]
) -> Body:
    """Record ``step(*carries, *pieces, *fixed)``, which returns the new carries and then the results.

    It may read nothing but its arguments: what it closes over would be one value for good.
    Raises: ShapeError where a carry comes out with another shape or dtype.
    """
    body = Body(_recorded((*carries, *pieces, *fixed), step), len(carries), len(pieces))
    if body.outputs[: body.carries] != body.inputs[: body.carries]:
        got = ", ".join(map(str, body.outputs[: body.carries]))
        raise ShapeError("scan: what a step carries", got=got, needed=", ".join(map(str, carries)))
    return body


def _recorded(types: Sequence[Type], function: Callable[..., Sequence[Tensor]]) -> Graph:
    """The graph of a function of tensors of these types."""
    trace = Trace()
    token = MODE.set(Mode(True, trace))
    try:
        outs = function(*[trace.awaited(i, of, f"input {i}") for i, of in enumerate(types)])
        graph, _ = trace.finish(list(outs))
    finally:
        MODE.reset(token)
        trace.close()
    if any(place.kind != "argument" for place in graph.inputs):
        raise AssertionError("a step reads what is not among its arguments")
    return _without_aliases(graph)


def _without_aliases(graph: Graph) -> Graph:
    root: dict[int, int] = {}
    equations = []
    for eq in graph.equations:
        inputs = tuple([root.get(i, i) for i in eq.inputs])
        if eq.prim is s.ALIAS:
            root[eq.out] = inputs[0]
        else:
            equations.append(replace(eq, inputs=inputs))
    outputs = [replace(output, value=root.get(output.value, output.value)) for output in graph.outputs]
    whole = replace(graph, equations=tuple(equations))
    return whole.part(graph.inputs, {eq.out for eq in equations}, outputs)


def _replayed(graph: Graph, given: Sequence[Tensor]) -> list[Tensor]:
    """Apply the equations of a graph to tensors."""
    values = {place.value: t for place, t in zip(graph.inputs, given, strict=True)}
    values |= {value: Tensor._of(array) for value, array in graph.constants.items()}
    for eq in graph.equations:
        values[eq.out] = apply(eq.prim, *[values[i] for i in eq.inputs], **eq.params)
    return [values[output.value] for output in graph.outputs]


# --- the way back of a step ---------------------------------------------------------------------------------------
class _Joint(NamedTuple):
    """A step and its way back in one graph.

    Inputs: those of the step; for each carry its cotangent from the step after; then one cotangent for each output in
    ``cts``, from outside. Outputs: those of the step, then the cotangents of its inputs in ``wanted``.
    """

    graph: Graph
    body: Body
    wanted: tuple[int, ...]
    cts: tuple[int, ...]

    @property
    def forward(self) -> set[int]:
        """The values that do not depend on cotangents."""
        known = {place.value for place in self.graph.inputs[: len(self.body.inputs)]} | self.graph.constants.keys()
        for eq in self.graph.equations:
            if known.issuperset(eq.inputs):
                known.add(eq.out)
        return known

    def back(self, k: int) -> int:
        """The value that is the cotangent of an input."""
        return self.graph.outputs[len(self.body.outputs) + self.wanted.index(k)].value


def _joint(body: Body, wanted: tuple[int, ...], cts: tuple[int, ...]) -> _Joint:
    n, c = len(body.inputs), body.carries

    def both(*given: Tensor) -> list[Tensor]:
        inputs, carried, outside = list(given[:n]), given[n : n + c], dict(zip(cts, given[n + c :], strict=True))

        trace = MODE.get().trace
        assert trace is not None, "steps are recorded"
        for i in wanted:
            inputs[i] = trace.fresh(inputs[i])
        outs = _replayed(body.graph, inputs)
        seeds = {k: [t for t in (*carried[k : k + 1], outside.get(k)) if t is not None] for k in range(len(outs))}
        live = [k for k, parts in seeds.items() if parts and outs[k].requires_grad]
        cotangents = [sum(seeds[k][1:], seeds[k][0]) for k in live]
        back = grad_of([outs[k] for k in live], [inputs[i] for i in wanted], cotangents, allow_unused=True)
        return [*outs, *(inputs[i]._zeros() if t is None else t for i, t in zip(wanted, back, strict=True))]

    return _Joint(
        _recorded((*body.inputs, *body.outputs[:c], *(body.outputs[k] for k in cts)), both), body, wanted, cts
    )


def _kept(body: Body, wanted: tuple[int, ...]) -> Body:
    """The body with results besides: what its way back would else have to compute again, and is dear."""
    known = body.derived.get(("kept", wanted))
    if known is None:
        joint = _joint(body, wanted, tuple(range(len(body.outputs))))
        graph, forward, values = joint.graph, joint.forward, _Values(joint)
        dear: dict[int, None] = {}
        for eq in graph.equations:
            if eq.out not in forward:
                for i in eq.inputs:
                    if i in forward:
                        values.look(i, dear)
        outputs = list(graph.outputs[: len(body.outputs)])
        outputs += [Output(value, "result", f"kept {i}") for i, value in enumerate(dear)]
        part = graph.part(graph.inputs[: len(body.inputs)], _needed(graph, (o.value for o in outputs), ()), outputs)
        known = body.derived["kept", wanted] = Body(part, body.carries, body.pieces) if dear else body
    return known


class _Values:
    """Which values of a step are worth keeping for its way back."""

    def __init__(self, joint: _Joint) -> None:
        self.graph, self.dtype = joint.graph, joint.body.outputs[0].dtype
        self.there = {place.value for place in self.graph.inputs} | self.graph.constants.keys()
        self.there |= {output.value for output in self.graph.outputs[: len(joint.body.outputs)]}

    def look(self, value: int, dear: dict[int, None]) -> None:
        """Add to ``dear`` what has to be kept so that ``value`` can be had again at little cost."""
        if value in self.there or value in dear:
            return
        eq, found = self.graph.made[value], dict[int, None]()
        may = self.graph.types[value].dtype == self.dtype
        if eq.prim.index is not None or eq.prim in _AGAIN or not may:
            for i in eq.inputs:
                self.look(i, found)
            smaller = self._elements([value]) < self._elements(found.keys() - dear.keys())
            if not (may and smaller):
                dear |= found
                return
        dear[value] = None

    def _elements(self, values: Iterable[int]) -> int:
        return sum(size(self.graph.types[v].shape) for v in values)


def _needed(graph: Graph, values: Iterable[int], given: Collection[int]) -> set[int]:
    """What has to be computed for some values where others are given."""
    found, stack = set[int](), list(values)
    while stack:
        value = stack.pop()
        if value not in found and value not in given and value in graph.made:
            found.add(value)
            stack.extend(graph.made[value].inputs)
    return found


Source = tuple[Literal["input", "output"], int]
"""An input or an output of a step, by number."""


class _Back(NamedTuple):
    """The step of the way back, and where its inputs come from.

    cts: the outputs whose cotangents from outside are its first pieces · read: what its other pieces are the rows of ·
    fixed: the inputs of the step that are the same at all steps · results: by number of the wanted input, or by value
    of the joint graph, which of its results that is.
    """

    joint: _Joint
    body: Body
    cts: tuple[int, ...]
    read: tuple[Source, ...]
    fixed: tuple[int, ...]
    pieces: dict[int, int]
    stacked: dict[int, int]
    there: dict[int, Source]


def _back(body: Body, wanted: tuple[int, ...], cts: tuple[int, ...]) -> _Back:
    known = body.derived.get(("back", wanted, cts))
    if known is None:
        known = body.derived["back", wanted, cts] = _made_back(_joint(body, wanted, cts))
    return known


def _made_back(joint: _Joint) -> _Back:
    graph, body = joint.graph, joint.body
    n, c, m = len(body.inputs), body.carries, body.pieces
    sources: dict[int, Source] = {
        output.value: ("output", k) for k, output in enumerate(graph.outputs[: len(body.outputs)])
    }
    sources |= {place.value: ("input", i) for i, place in enumerate(graph.inputs[:n])}
    there = {v: source for v, source in sources.items() if source[0] == "output" or source[1] < c + m}
    results: list[int] = []
    for i in joint.wanted:
        if c <= i < c + m:
            results.append(joint.back(i))
    shares = _Shares(joint, there)
    factors = [v for i in joint.wanted if i >= c + m for v in shares.factors(joint.back(i)) if v not in there]
    results += [v for v in dict.fromkeys(factors) if v not in results]
    outs = [*(joint.back(i) for i in range(c)), *results]
    cotangents = {place.value for place in graph.inputs[n:]}
    made = _needed(graph, outs, sources.keys() | cotangents)
    used = {i for eq in graph.equations if eq.out in made for i in eq.inputs} | set(outs)
    read = [(v, source) for v, source in there.items() if v in used]
    fixed = [(v, source) for v, source in sources.items() if v in used and v not in there]
    inputs = [*graph.inputs[n:], *(Input(v, "argument", f"{kind} {k}") for v, (kind, k) in (*read, *fixed))]
    outputs = [Output(v, "result", f"result {i}") for i, v in enumerate(outs)]
    step = Body(graph.part(inputs, made, outputs), c, len(joint.cts) + len(read))
    at = [i for i in joint.wanted if c <= i < c + m]
    return _Back(
        joint, step, joint.cts, tuple([source for _, source in read]), tuple([k for _, (_, k) in fixed]),
        {i: c + k for k, i in enumerate(at)}, {v: c + results.index(v) for v in factors}, there,
    )  # fmt: skip


class _Shares:
    """The cotangent of what all steps share: the sum over the steps of what each contributes.

    A contribution that is a product of two values of the step, or a sum over one, is made for all steps at once.
    """

    def __init__(self, joint: _Joint, there: Mapping[int, Source]) -> None:
        self.graph, self.there = joint.graph, there
        self.dtype = joint.body.outputs[0].dtype

    def factors(self, value: int) -> list[int]:
        """The values of which all steps' are needed."""
        found: list[int] = []

        def stack(v: int) -> None:
            found.append(v)

        self._visit(value, stack)
        return found

    def total(self, value: int, stack: Callable[[int], Tensor]) -> Tensor:
        """The sum over the steps, from ``stack(v)``, the values of all steps in one tensor."""
        made = self._visit(value, stack)
        assert isinstance(made, Tensor), "stack returns tensors"
        return made

    def _visit(self, value: int, stack: Callable[[int], Any]) -> Any:
        """The sum over the steps; None where ``stack`` returns nothing."""
        eq = self.graph.made.get(value)
        if eq is None and value in self.graph.constants:
            return stack(value)
        shape = self.graph.types[value].shape
        if eq is not None and eq.prim is p.ADD and all(self.graph.types[i].shape == shape for i in eq.inputs):
            x, y = [self._visit(i, stack) for i in eq.inputs]
            return None if x is None else x + y
        if eq is not None and eq.prim in (s.RESHAPE, s.TRANSPOSE):
            x = self._visit(eq.inputs[0], stack)
            return None if x is None else apply(eq.prim, x, **eq.params)
        if eq is not None and eq.prim is r.SUM and self._may(eq.inputs[0]):
            x = stack(eq.inputs[0])
            return None if x is None else x.sum((0, *(a + 1 for a in eq.params["axes"]))).reshape(shape)
        if eq is not None and eq.prim is r.MATMUL and len(shape) == 2:
            pair = [self._turned(i) for i in eq.inputs]
            if all(self._may(i) and len(self.graph.types[i].shape) == 2 for i, _ in pair):
                x, y = [stack(i) for i, _ in pair]
                if x is None:
                    return None
                x, y = [t.mT if turned else t for t, (_, turned) in zip((x, y), pair, strict=True)]
                return (x @ y).sum(0)
        x = stack(value)
        return None if x is None else x.sum(0)

    def _may(self, value: int) -> bool:
        """Whether all steps' values can be had: kept, or as results of the way back."""
        return value in self.there or (value in self.graph.made and self.graph.types[value].dtype == self.dtype)

    def _turned(self, value: int) -> tuple[int, bool]:
        """What a value is the transpose of, and whether it is one."""
        eq = self.graph.made.get(value)
        turned = eq is not None and eq.prim is s.TRANSPOSE and eq.params["axes"] == (1, 0)
        return (eq.inputs[0], True) if eq is not None and turned else (value, False)


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
        back = _back(body, tuple(sorted({*range(c), *wanted})), tuple(given))
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
        shares = _Shares(back.joint, back.there)

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
        both = _pushed(body, moving)
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


def _pushed(body: Body, moving: tuple[int, ...]) -> Body:
    """The body with the tangents of all outputs, from those of some inputs beside all inputs."""
    known = body.derived.get(("pushed", moving))
    if known is None:
        c, m, n = body.carries, body.pieces, len(body.inputs)
        groups = [range(c), range(c, c + m), range(c + m, n)]
        order = [(i, moves) for g in groups for moves in (False, True) for i in g if not moves or i in moving]

        def both(*given: Tensor) -> list[Tensor]:
            at = dict(zip(order, given, strict=True))
            inputs = [at[i, False] for i in range(n)]

            def run(*live: Tensor) -> list[Tensor]:
                for i, t in zip(moving, live, strict=True):
                    inputs[i] = t
                return _replayed(body.graph, inputs)

            outs, moved = jvp(run, [inputs[i] for i in moving], [at[i, True] for i in moving])
            return [*outs[:c], *moved[:c], *outs[c:], *moved[c:]]

        graph = _recorded([body.inputs[i] for i, _ in order], both)
        pieces = sum(c <= i < c + m for i, _ in order)
        known = body.derived["pushed", moving] = Body(graph, 2 * c, pieces)
    return known


SCAN: Final = Primitive(
    "scan",
    _run,
    _Loop(),
    _shape,
    "a step, taken many times: all values of its carries and results in one vector",
    dtype=_dtype,
)


# --- what callers see ---------------------------------------------------------------------------------------------
def scan(
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
    Shapes: carries and ``fixed`` as the step's; pieces (steps, …). Raises: ShapeError for others.
    """
    inputs = (*carries, *pieces, *fixed)
    check_operands(SCAN, inputs, {"body": body, "steps": steps, "reverse": reverse})
    live = {i for i, t in enumerate(inputs) if is_grad_enabled() and t.requires_grad}
    whole = _kept(body, tuple(sorted(live | {*range(body.carries)}))) if live else body
    out = apply(SCAN, *inputs, body=whole, steps=steps, reverse=reverse)
    return [_unpacked(out, at) for at in fields(whole, steps)[: len(body.outputs)]]


def _unpacked(out: Tensor, at: Field) -> Tensor:
    """One output's rows of a loop's vector."""
    return out.narrow(0, at.begin, at.end - at.begin).reshape((at.rows, *at.shape))


def _part_of(ct: Tensor, at: Field) -> Tensor | None:
    """Of a cotangent that is a sum of padded parts, as those of slices are, what lies in a field; None for nothing."""
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
    return _unpacked(ct, at)
