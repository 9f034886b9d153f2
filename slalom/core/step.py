"""A step of a loop as a graph, recorded once, and the steps of its derivatives.

The way back of a step reads what the step's graph has computed where that was kept, and computes the rest again; a step
that will be differentiated keeps what is dear. The gradient of what all steps share (weights) is no sum that grows from
step to step: its factors are kept, and multiplied at once for all steps.

Source: A. Griewank and A. Walther, Evaluating Derivatives, 2008, chapter 12, for what to keep and what to do again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

from slalom.core.autodiff import grad_of, jvp
from slalom.core.graph import Graph, Input, Output, Type
from slalom.core.node import MODE, Abstract, Mode, Storage, user_line
from slalom.core.ops import pointwise as p
from slalom.core.ops import reductions as r
from slalom.core.ops import structural as s
from slalom.core.primitive import Constant, Primitive
from slalom.core.shape import size
from slalom.core.tensor import Tensor, apply
from slalom.core.trace import Trace
from slalom.errors import ShapeError, StagingError

__all__ = ["STOP", "Back", "Body", "Shares", "Source", "back_of", "body_of", "body_with", "in_step", "kept", "pushed"]

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


def body_with(
    step: Callable[..., Sequence[Tensor]], carries: Sequence[Type], pieces: Sequence[Type]
) -> tuple[Body, tuple[Tensor, ...]]:
    """As ``body_of``, and the tensors from outside that the step reads, which are its fixed inputs.

    Raises: StagingError where it writes into one of them, or draws random numbers.
    """
    trace = _Closed()
    graph = _recorded((*carries, *pieces), step, trace)
    return Body(graph, len(carries), len(pieces)), trace.read


STOP: Final = replace(
    s.ALIAS, name="stop", kind=Constant(), doc="the value itself, at which derivatives end: what detach() is in a step"
)


class _Step(Trace):
    """The recording of a step."""

    def input(self, i: int, of: Type) -> Tensor:
        return self.awaited(i, of, f"input {i}")


class _Closed(_Step):
    """The recording of a user's step, which may read tensors from outside: each becomes an input.

    All inputs may have derivatives. What ends them (``detach``, ``no_grad``) has to be a part of the graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: tuple[Tensor, ...] = ()
        self._inside: dict[int, Tensor] = {}

    def input(self, i: int, of: Type) -> Tensor:
        t = super().input(i, of)
        return self.fresh(t) if of.dtype.kind == "f" else t

    def record(self, prim: Primitive, inputs: tuple[Tensor, ...], params: dict[str, Any]) -> Tensor:
        out = super().record(prim, inputs, params)
        return out if MODE.get().grad or prim is STOP else super().record(STOP, (out,), {})

    def detach(self, t: Tensor) -> Tensor:
        return self.record(STOP, (t,), {})

    def _is_outside(self, t: Tensor) -> bool:
        array = t._storage.array
        return not isinstance(array, Abstract) or array.trace is not self

    def _meant(self, t: Tensor) -> Tensor:
        if not self._is_outside(t):
            return t
        if id(t) not in self._inside:
            stand_in = self.awaited(-1 - len(self.read), Type(t.shape, t.dtype), "from outside")
            if t._live:
                leaf = self._leaf(self.lift(stand_in), weakref.ref(t))
                stand_in = Tensor._handle(Storage(leaf.storage.array), leaf, True)
            self._inside[id(t)] = stand_in
            self.read += (t,)
        return self._inside[id(t)]

    def read_grad(self, t: Tensor) -> Tensor | None:
        if self._is_outside(t):
            raise StagingError(
                f"a step of a loop reads or writes .grad of a tensor from outside, at {user_line()}",
                hint="slalom.grad in the step gives gradients as values; call backward() after the loop",
            )
        return super().read_grad(t)

    def write(self, t: Tensor, value: Tensor) -> None:
        if self._is_outside(t):
            raise StagingError(
                f"a step of a loop writes into a tensor from outside, at {user_line()}",
                got=f"a tensor of shape {t.shape}",
                hint="carry the value from step to step; draw random numbers before the loop, as one of its xs; "
                "layers that keep statistics want eval()",
            )
        super().write(t, value)


def in_step() -> bool:
    """Whether a step of a loop is being recorded: a loop in there is unrolled."""
    return isinstance(MODE.get().trace, _Step)


def _recorded(types: Sequence[Type], function: Callable[..., Sequence[Tensor]], trace: _Step | None = None) -> Graph:
    """The graph of a function of tensors of these types."""
    trace = _Step() if trace is None else trace
    token = MODE.set(Mode(True, trace))
    try:
        outs = function(*[trace.input(i, of) for i, of in enumerate(types)])
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
        seeds = {k: [outside[k]] if k in outside else [] for k in range(len(outs))}
        for k in _felt(body, cts):
            seeds[k].insert(0, carried[k])
        live = [k for k, parts in seeds.items() if parts and outs[k].requires_grad]
        cotangents = [sum(seeds[k][1:], seeds[k][0]) for k in live]
        back = grad_of([outs[k] for k in live], [inputs[i] for i in wanted], cotangents, allow_unused=True)
        return [*outs, *(inputs[i]._zeros() if t is None else t for i, t in zip(wanted, back, strict=True))]

    return _Joint(
        _recorded((*body.inputs, *body.outputs[:c], *(body.outputs[k] for k in cts)), both), body, wanted, cts
    )


def _felt(body: Body, outputs: Iterable[int]) -> set[int]:
    """The carries that some outputs depend on, now or some steps later: others have no cotangent, not one of 0, which
    times infinity is not a number."""
    graph, c = body.graph, body.carries
    number = {place.value: i for i, place in enumerate(graph.inputs[:c])}
    found, stack = set[int](), list(outputs)
    reached = {k for k in stack if k < c}
    while stack:
        value = graph.outputs[stack.pop()].value
        needed = _needed(graph, [value], ())
        read = {i for eq in graph.equations if eq.out in needed for i in eq.inputs} | {value}
        new = {number[v] for v in read & number.keys()} - found
        found |= new
        stack.extend(new)
    return found | reached


def kept(body: Body, wanted: tuple[int, ...]) -> Body:
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


class Back(NamedTuple):
    """The step of the way back, and where its inputs come from.

    cts: the outputs whose cotangents from outside are its first pieces · read: what its other pieces are the rows of ·
    fixed: the inputs of the step that are the same at all steps · pieces: which of its results is the cotangent of an
    input, by number · stacked: which is a value of the joint graph, of which all steps' are needed · there: the values
    whose rows were there before.
    """

    joint: _Joint
    body: Body
    cts: tuple[int, ...]
    read: tuple[Source, ...]
    fixed: tuple[int, ...]
    pieces: dict[int, int]
    stacked: dict[int, int]
    there: dict[int, Source]


def back_of(body: Body, wanted: tuple[int, ...], cts: tuple[int, ...]) -> Back:
    """The way back to some inputs, for cotangents of some outputs from outside."""
    known = body.derived.get(("back", wanted, cts))
    if known is None:
        known = body.derived["back", wanted, cts] = _made_back(_joint(body, wanted, cts))
    return known


def _made_back(joint: _Joint) -> Back:
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
    shares = Shares(joint, there)
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
    return Back(
        joint, step, joint.cts, tuple([source for _, source in read]), tuple([k for _, (_, k) in fixed]),
        {i: c + k for k, i in enumerate(at)}, {v: c + results.index(v) for v in factors}, there,
    )  # fmt: skip


class Shares:
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


# --- the way forward of tangents ---------------------------------------------------------------------------------
def pushed(body: Body, moving: tuple[int, ...]) -> Body:
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
