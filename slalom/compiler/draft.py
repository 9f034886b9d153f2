"""Draft: a graph that is being rebuilt by rules, equation by equation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.core.graph import Equation, Graph, Input, Output, Type
from slalom.core.ops import pointwise as p
from slalom.core.ops import reductions as r
from slalom.core.ops import structural as s
from slalom.core.primitive import Array, Primitive, silence
from slalom.core.shape import Shape, size
from slalom.core.tensor import check_operands
from slalom.errors import SlalomError

FOLDED: Final = 1024
"""Equations of constants are computed up to this number of elements, of each constant and of the result."""
_COMMUTATIVE: Final = frozenset({p.ADD, p.MUL, p.EQ, p.NE, p.BITAND, p.BITOR})
_NEVER_NEGATIVE_ZERO: Final = frozenset({r.SUM, r.SCATTER_ADD, p.EXP, p.ABS, p.SIGMOID, p.SOFTPLUS})
"""Sums start at +0, and +0 + −0 is +0."""


class Line(NamedTuple):
    """An equation in a draft; its place there is its value."""

    prim: Primitive
    inputs: tuple[int, ...]
    params: dict[str, Any]
    type: Type
    site: str | None


class Tiles(NamedTuple):
    """Pads of one axis that are to be added: (where it begins, the content) of each, and the sum of their lengths."""

    axis: int
    pieces: list[tuple[int, int]]
    length: int


class Fold(NamedTuple):
    """What is folded after a product: flipped weights (groups, channels, inner, *kernel), images (B, C, *pixels), and
    how far apart; of the result, the part of ``shape`` that begins at ``start``."""

    w: int
    y: int
    stride: Shape
    dilation: Shape
    start: Shape
    shape: Shape


Rule = Callable[["Draft", Line], int | None]
"""Another value for an equation whose operands are rewritten already, or None."""


def rewrite(graph: Graph, rules: Mapping[Primitive, Sequence[Rule]], fired: Counter[str]) -> Graph:
    """The graph after one walk over the equations that an output needs; ``fired`` counts the rules by name."""
    uses, reader = [0] * len(graph.types), dict[int, Primitive]()
    for output in graph.outputs:
        uses[output.value] += 1
    for eq in reversed(graph.equations):
        if uses[eq.out]:
            for i in eq.inputs:
                uses[i] += 1
                reader[i] = eq.prim
    draft = Draft(rules, fired)
    made = [-1] * len(graph.types)
    for place in graph.inputs:
        made[place.value] = draft.add(graph.types[place.value])
        draft.uses[-1] = uses[place.value]
    for value, array in graph.constants.items():
        if uses[value]:
            made[value] = found = draft.constant(array)
            draft.uses[found] += uses[value]
    for eq in graph.equations:
        if uses[eq.out]:
            draft.site, draft.goes_on = eq.site, uses[eq.out] == 1 and reader.get(eq.out) is p.ADD
            inputs = tuple([made[i] for i in eq.inputs])
            made[eq.out] = found = draft.value(eq.prim, inputs, eq.params, graph.types[eq.out])
            draft.uses[found] += uses[eq.out]
    return draft.finish(
        [Input(made[i.value], i.kind, i.name) for i in graph.inputs],
        [Output(made[o.value], o.kind, o.name) for o in graph.outputs],
    )


def swap(rank: int) -> Shape:
    """The order of axes that exchanges the last two."""
    return (*range(rank - 2), rank - 1, rank - 2)


def adds_axes(before: Shape, after: Shape) -> bool:
    """Whether a shape is another with axes of size 1 on the left."""
    return after == (1,) * (len(after) - len(before)) + before


class Draft:
    """A graph that is being rebuilt: what rules read, and what they build with.

    Fields, by value: ``types``, ``lines`` (None for inputs and constants), ``constants``, ``uses`` (how many equations
    and outputs of the old graph read what became this value), ``narrow`` (the value that this one is a broadcast of),
    ``turned`` (transposes that are to sink), ``folds`` (of products, the fold that they are). By the operands of a sum
    that goes on: ``tiles`` (the pads that it adds up), ``steps`` (the a, b of the products aᵀ·b that it adds up).
    ``goes_on``: whether the equation at hand is read by a sum alone.
    """

    def __init__(self, rules: Mapping[Primitive, Sequence[Rule]], fired: Counter[str]) -> None:
        self.types: list[Type] = []
        self.lines: list[Line | None] = []
        self.constants: dict[int, Array] = {}
        self.uses: list[int] = []
        self.narrow: dict[int, int] = {}
        self.tiles: dict[tuple[int, ...], Tiles] = {}
        self.steps: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        self.goes_on = False
        self.turned: set[int] = set()
        self.folds: dict[int, Fold] = {}
        self.gathers: set[tuple[tuple[int, ...], Shape]] = set()
        self.site: str | None = None
        self._rules, self._fired = rules, fired
        self._seen: dict[Any, int] = {}
        self._literals: dict[int, Array] = {}  # small constants, and what is a broadcast of one

    # --- reading --------------------------------------------------------------------------------------------------
    def shape(self, value: int) -> Shape:
        """The shape of a value."""
        return self.types[value].shape

    def made(self, value: int, prim: Primitive) -> Line | None:
        """The equation of a value if ``prim`` is what computes it."""
        line = self.lines[value]
        return line if line is not None and line.prim is prim else None

    def source(self, value: int, prim: Primitive) -> int | None:
        """The first operand of ``prim`` if that is what computes the value."""
        line = self.made(value, prim)
        return None if line is None else line.inputs[0]

    def scalar(self, value: int) -> Any:
        """The number that a 0-d constant is, else None."""
        array = self.constants.get(value)
        return None if array is None or array.ndim else array[()]

    def once(self, value: int) -> bool:
        """Whether a value has only one use."""
        return self.uses[value] == 1

    # --- building -------------------------------------------------------------------------------------------------
    def add(self, typed: Type, line: Line | None = None) -> int:
        """A new value."""
        self.types.append(typed)
        self.lines.append(line)
        self.uses.append(0)
        return len(self.types) - 1

    def constant(self, array: Array) -> int:
        """The value of a constant; one of equal elements becomes the broadcast of a number."""
        first = _same_everywhere(array) if array.ndim else None
        if first is None:
            return self._constant(array)
        number = self._constant(first)
        if array.size > 1:
            return self.stretch(number, array.shape)
        value = self._constant(array)
        self.narrow[value] = number
        return value

    def _constant(self, array: Array) -> int:
        small = array.size <= FOLDED
        key = (array.dtype, array.shape, array.tobytes() if small else id(array))
        value = self._seen.get(key)
        if value is None:
            value = self._seen[key] = self.add(Type(array.shape, array.dtype))
            self.constants[value] = array
            if small:
                self._literals[value] = array
        return value

    def number(self, value: float, like: int) -> int:
        """A 0-d constant of the dtype of another value."""
        return self._constant(np.asarray(value, self.types[like].dtype))

    def emit(self, prim: Primitive, *inputs: int, **params: Any) -> int:
        """The value of ``prim(*inputs, **params)``: rewritten, computed, known already, or new."""
        return self.value(prim, inputs, params, Type(*check_operands(prim, [self.types[i] for i in inputs], params)))

    def value(self, prim: Primitive, inputs: tuple[int, ...], params: dict[str, Any], typed: Type) -> int:
        """As ``emit``, for an equation whose type is known."""
        ordered = tuple(sorted(inputs)) if prim in _COMMUTATIVE else inputs
        key = (prim, ordered, *params.items()) if params else (prim, ordered)
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = self._new(Line(prim, inputs, params, typed, self.site))
        return found

    def _new(self, line: Line) -> int:
        prim, inputs = line.prim, line.inputs
        if inputs[0] in self._literals and prim is not s.BROADCAST and (array := self._computed(line)) is not None:
            return self.constant(array)
        for function in self._rules.get(prim, ()):
            found = function(self, line)
            if found is not None:
                name = function.__name__
                if self.types[found] != line.type:
                    raise AssertionError(f"{name} makes {self.types[found]} of {line.type} {prim.name}")
                self._fired[name] += 1
                return found
        value = self.add(line.type, line)
        if prim is s.BROADCAST or (prim is s.RESHAPE and adds_axes(self.shape(inputs[0]), line.type.shape)):
            self.narrow[value] = inputs[0]
            if inputs[0] in self._literals and size(line.type.shape) <= FOLDED:
                self._literals[value] = np.broadcast_to(self._literals[inputs[0]], line.type.shape).copy()
        elif prim is r.GATHER:
            self.gathers.add((inputs[1:], self.shape(inputs[0])))
        return value

    def _computed(self, line: Line) -> Array | None:
        """The result of an equation of small constants; None also where it would be large, or is an error."""
        arrays = [self._literals.get(i) for i in line.inputs]
        if size(line.type.shape) > FOLDED or any(array is None for array in arrays):
            return None
        try:
            return np.array(silence.run(line.prim.bare, *arrays, **line.params), order="C")
        except SlalomError:
            return None  # an index out of range, say: it is the running program that reports it

    def stretch(self, value: int, shape: Shape) -> int:
        """A value broadcast to a shape."""
        return value if self.shape(value) == shape else self.emit(s.BROADCAST, value, shape=shape)

    def reshape(self, value: int, shape: Shape) -> int:
        """A value under another shape."""
        return value if self.shape(value) == shape else self.emit(s.RESHAPE, value, shape=shape)

    def never_negative_zero(self, value: int) -> bool:
        """Whether no element of a value can be −0."""
        line = self.lines[value]
        return self.types[value].dtype.kind != "f" or (line is not None and line.prim in _NEVER_NEGATIVE_ZERO)

    def plus_zero(self, value: int) -> int:
        """x + 0, which makes +0 of −0, as a sum does that starts at 0; it is done before what is read once is moved, by
        whoever computes it."""
        line = self.lines[value]
        if line is not None and line.prim in (s.RESHAPE, s.TRANSPOSE) and self.uses[value] <= 1:
            (x,) = line.inputs
            if self.uses[x] <= 1:
                return self.emit(line.prim, self.plus_zero(x), **line.params)
        return value if self.never_negative_zero(value) else self.emit(p.ADD, value, self.number(0, value))

    def swapped(self, value: int) -> int:
        """A value with its last two axes exchanged."""
        return self.emit(s.TRANSPOSE, value, axes=swap(len(self.shape(value))))

    # --- the result -----------------------------------------------------------------------------------------------
    def finish(self, inputs: list[Input], outputs: list[Output]) -> Graph:
        """The graph of what the outputs need; inputs stay, needed or not."""
        needed = bytearray(len(self.types))
        for output in outputs:
            needed[output.value] = True
        lines = self.lines
        for value in range(len(lines) - 1, -1, -1):
            if needed[value] and (line := lines[value]) is not None:
                for i in line.inputs:
                    needed[i] = True
        constants = [value for value in self.constants if needed[value]]
        kept = [(value, line) for value, line in enumerate(lines) if line is not None and needed[value]]
        order = [*(place.value for place in inputs), *constants, *(value for value, _ in kept)]
        numbers = [-1] * len(lines)
        for number, value in enumerate(order):
            numbers[value] = number
        return Graph(
            tuple([self.types[value] for value in order]),
            tuple([Input(numbers[i.value], i.kind, i.name) for i in inputs]),
            {numbers[value]: self.constants[value] for value in constants},
            tuple(
                [Equation(numbers[v], x.prim, tuple([numbers[i] for i in x.inputs]), x.params, x.site) for v, x in kept]
            ),
            tuple([Output(numbers[o.value], o.kind, o.name) for o in outputs]),
        )


def _same_everywhere(array: Array) -> Array | None:
    """The one element, 0-d, that an array holds everywhere, bit for bit."""
    if not array.size:
        return None
    first, bits = array[(0,) * array.ndim], f"u{array.itemsize}"
    same = array[(-1,) * array.ndim].view(bits) == first.view(bits) and (array.view(bits) == first.view(bits)).all()
    return np.asarray(first) if same else None
