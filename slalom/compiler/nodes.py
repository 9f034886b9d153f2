"""Nodes, kernels and schedules: what scheduling makes of a graph, and code generation reads."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.compiler.index import ZERO, Axis, Condition, Element, Expr, Index, axes_of, ravel, substituted, unravel
from slalom.compiler.ir import Memory
from slalom.core.graph import Equation, Graph, Type
from slalom.core.shape import Shape, size

MOVES: Final = frozenset({"reshape", "transpose", "alias"})
"""Views that hold all elements once."""


# --- what a kernel computes for one element -----------------------------------------------------------------------
class Read(NamedTuple):
    """An element of a value in memory."""

    value: int
    at: Index


class Local(NamedTuple):
    """A value of this kernel at the element where it is defined."""

    value: int


class Position(NamedTuple):
    """An index expression as a number: an element of arange."""

    expr: Expr


class Apply(NamedTuple):
    """An elementwise operation, that which makes ``value``, of these operands."""

    value: int
    name: str
    args: tuple[Node, ...]


class Choose(NamedTuple):
    """The first case whose conditions hold; None stands for 0."""

    cases: tuple[tuple[tuple[Condition, ...], Node | None], ...]
    value: int


Node = Read | Local | Position | Apply | Choose


def matched(axes: frozenset[int], shape: Shape, space: Shape) -> frozenset[int] | None:
    """The axes of another shape of as many elements that some axes of ``shape`` are; None where they are parts."""
    if shape == space:
        return axes
    found: set[int] = set()
    i = j = 0
    while i < len(shape) or j < len(space):
        ours, theirs, a, b = set[int](), set[int](), 1, 1
        while (a != b or a == 1) and (i < len(shape) or j < len(space)):
            if i < len(shape) and (a <= b or j == len(space)):
                ours, a, i = ours | {i}, a * shape[i], i + 1
            else:
                theirs, b, j = theirs | {j}, b * space[j], j + 1
        real = {k for k in ours if shape[k] != 1}
        if a != b or not (real <= axes or real.isdisjoint(axes)):
            return None
        found |= theirs if real & axes else set()
    return frozenset(found | {j for j, n in enumerate(space) if n == 1})  # which a sum may go over as well


def parts_of(node: Node) -> tuple[Node, ...]:
    """The nodes that a node is made of."""
    if isinstance(node, Apply):
        return node.args
    if isinstance(node, Choose):
        return tuple([case for _, case in node.cases if case is not None])
    return ()


def walk(node: Node) -> Iterator[Node]:
    """A node and all that it is made of."""
    yield node
    for part in parts_of(node):
        yield from walk(part)


def reads(node: Node) -> Iterator[Read]:
    """All elements in memory that a node reads, those of indices apart."""
    return (part for part in walk(node) if isinstance(part, Read))


def locals_of(node: Node) -> Iterator[int]:
    """The members that a node is made of."""
    return (part.value for part in walk(node) if isinstance(part, Local))


def elements_of(index: Index) -> Iterator[Element]:
    """The integers from data that an index is made of."""
    for expr in index:
        for atom, _ in expr.terms:
            if isinstance(atom, Element):
                yield atom
                yield from elements_of(atom.index)
            elif not isinstance(atom, Axis):
                yield from elements_of((atom.of,))


def elements_in(node: Node) -> Iterator[Element]:
    """The integers from data that all indices and conditions in a node are made of."""
    for part in walk(node):
        if isinstance(part, Read):
            yield from elements_of(part.at)
        elif isinstance(part, Position):
            yield from elements_of((part.expr,))
        elif isinstance(part, Choose):
            yield from elements_of(tuple([c.expr for conditions, _ in part.cases for c in conditions]))


@dataclass(frozen=True)
class Windows:
    """How a product reads windows where they lie, by axes beyond those of the result.

    columns, terms: the axes that its columns and its sum are made of, the last one fastest · lane: the last of either,
    along which both, or the columns alone, lie side by side in memory · extents: of all axes · conditions: without
    which there is no such term.
    """

    columns: tuple[int, ...]
    terms: tuple[int, ...]
    lane: int
    extents: dict[int, int]
    conditions: tuple[Condition, ...]

    @property
    def dot(self) -> bool:
        """Whether the lanes run along the sum."""
        return self.lane in self.terms


@dataclass(eq=False)
class Kernel:
    """One loop nest, one template, or a join: a concatenation of which other kernels write the pieces.

    space: the extents of its loops · reduced: those of its axes that are summed over · eq: the matmul of a product, or
    the operation of an index kernel · operands: for these, what they read: (value, index of an element over the axes;
    None for all of it) · members: the values computed in it, in order, and the index at which each is defined ·
    bodies: what each member is computed from (for reductions: what is reduced) · sums: the members that are
    reductions, and which · elements: the integers that other indices are made of · stores: the members that go to
    memory · before: a bit set of the kernels that must have run · near: the values that its members read · windows: for
    products over them, how they are read.
    """

    number: int
    kind: str
    space: Shape
    reduced: frozenset[int] = frozenset()
    eq: Equation | None = None
    operands: tuple[tuple[int, Index | None], ...] = ()
    members: dict[int, Index] = field(default_factory=dict)
    bodies: dict[int, Node] = field(default_factory=dict)
    elements: dict[Element, Node] = field(default_factory=dict)
    stores: list[int] = field(default_factory=list)
    before: int = 0
    near: set[int] = field(default_factory=set)
    sums: dict[int, str] = field(default_factory=dict)
    windows: Windows | None = None

    def place(self, shape: Shape) -> Index | None:
        """Where a value of this shape would be computed here; None if it has another number of elements."""
        axes = axes_of(self.space)
        if shape == self.space:
            return axes
        if self.reduced:
            kept = tuple(n for i, n in enumerate(self.space) if i not in self.reduced)
            index = tuple(a for i, a in enumerate(axes) if i not in self.reduced)
            if shape == kept:
                return index
            if shape == tuple(1 if i in self.reduced else n for i, n in enumerate(self.space)):
                return tuple(ZERO if i in self.reduced else a for i, a in enumerate(axes))
            if size(shape) == size(kept) != size(self.space):
                return unravel(ravel(index, kept), shape)
        return unravel(ravel(axes, self.space), shape) if size(shape) == size(self.space) else None

    def __str__(self) -> str:
        over = f" over axes {sorted(self.reduced)}" if self.reduced else ""
        lines = [f"kernel {self.number}: {self.kind} {list(self.space)}{over}"]
        if self.eq is not None:
            operands = ", ".join(f"%{v}" if e is None else _shown(Read(v, e)) for v, e in self.operands)
            lines.append(f"  %{self.eq.out} = {self.eq.prim.name}({operands})")
        for value, body in self.bodies.items():
            store = "  → memory" if value in self.stores else ""
            shown = f"{self.sums[value]}({_shown(body)})" if value in self.sums else _shown(body)
            lines.append(f"  %{value} = {shown}{store}")
        return "\n".join(lines)


def _shown(node: Node) -> str:
    if isinstance(node, Read):
        return f"%{node.value}[{', '.join(map(str, node.at))}]"
    if isinstance(node, Local):
        return f"%{node.value}"
    if isinstance(node, Position):
        return f"({node.expr})"
    if isinstance(node, Choose):
        return " else ".join("0" if case is None else _shown(case) for _, case in node.cases)
    return f"{node.name}({', '.join(map(_shown, node.args))})"


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def levels_of(kernel: Kernel) -> dict[int, int]:
    """In which pass over the reduced axes each member is known; what is made of a sum comes in the pass after it."""
    levels: dict[int, int] = {}
    for value, body in kernel.bodies.items():
        levels[value] = _level(body, kernel, levels)
    return levels


def _level(node: Node, kernel: Kernel, levels: dict[int, int]) -> int:
    """The first pass in which a node may be computed."""
    if isinstance(node, Local):
        return levels[node.value] + (node.value in kernel.sums)
    parts = parts_of(node)
    if isinstance(node, Read):
        read = {atom for expr in node.at for atom, _ in expr.terms}
        parts = tuple([made for element, made in kernel.elements.items() if element in read])
    return max([_level(part, kernel, levels) for part in parts], default=0)


def unmoved(
    value: int, made: Mapping[int, Equation], computed: Container[int], types: Sequence[Type]
) -> tuple[int, Index]:
    """The computed value that this one only turns or reshapes, and at which index here its elements are."""
    chain = []
    while value not in computed and value in made and made[value].prim.name in MOVES:
        chain.append(made[value])
        (value,) = chain[-1].inputs
    shape = types[value].shape
    index = axes_of(shape)
    for eq in reversed(chain):
        out = types[eq.out].shape
        if eq.prim.name == "transpose":
            index = tuple([index[a] for a in eq.params["axes"]])
        elif eq.prim.name == "reshape":
            index = unravel(ravel(index, shape), out)
        shape = out
    return value, index


class Part(NamedTuple):
    """Where a value lies in the memory of another: its element is element ``at`` of that, over its own axes."""

    root: int
    at: Index


@dataclass(frozen=True)
class Schedule:
    """The kernels of a graph in the order in which they run."""

    graph: Graph
    kernels: tuple[Kernel, ...]
    roots: dict[int, int]
    """For outputs that are another value under a new shape: that value."""
    strides: dict[int, Shape]
    """Of the values whose rows are kept further apart than they are long."""
    parts: dict[int, Part]
    """Of the pieces of concatenations, which are made where they belong."""
    _places: dict[tuple[int, Index], Expr] = field(default_factory=dict, repr=False)

    def place(self, value: int, index: Index) -> Expr:
        """Where in its memory, that of its ``holder``, an element of a value is."""
        found = self._places.get((value, index))
        if found is None:
            root, at = value, index
            while root in self.parts:
                root, inside = self.parts[root]
                at = tuple([substituted(e, at) for e in inside])
            found = ravel(at, self.graph.types[root].shape, self.strides.get(root))
            self._places[value, index] = found
        return found

    def holder(self, value: int) -> int:
        """The value in whose memory this one lies: itself, but for a part."""
        while value in self.parts:
            value = self.parts[value].root
        return value

    def address(self, value: int, index: Index) -> tuple[Memory, Expr]:
        """The same as an address and an expression without a constant: slices of one value differ in the address."""
        flat = self.place(value, index)
        return Memory(value, flat.constant * self.graph.types[value].dtype.itemsize), Expr(flat.terms)

    def literal(self, value: int) -> Any:
        """The number that stands for a value in the text of kernels, if it is a constant that deserves it."""
        known = self.graph.constants.get(value)
        if known is None or known.ndim or not (known.dtype.kind == "b" or known in (0, np.inf)):
            return None
        return known.item()

    def elements(self, value: int) -> int:
        """How many elements its memory has room for."""
        shape, strides = self.graph.types[value].shape, self.strides.get(value)
        return size(shape) if strides is None else shape[0] * strides[0]

    def __str__(self) -> str:
        return "\n".join(map(str, self.kernels))
