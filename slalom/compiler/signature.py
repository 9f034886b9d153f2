"""Signatures: what the text of a kernel follows from, so that kernels of equal structure are written once.

Two kernels with equal signatures differ in which values they touch, from which element on, and in the numbers that
conditions compare with: in words of their arguments, none of which the text knows. A sequence of a thousand steps has
a thousand such kernels of each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from slalom.compiler.index import Axis, Element, Index, Quotient, Remainder
from slalom.compiler.ir import STATUS, Builder, Memory, Number
from slalom.compiler.nodes import Apply, Choose, Kernel, Local, Node, Position, Read, Schedule

Word = Memory | Number


class Written(NamedTuple):
    """A kernel's text, the extent of its parallel loop, its loops in words, and what its argument words mean."""

    builder: Builder
    tasks: int
    loops: tuple[str, ...]
    words: Sequence[Any]


class _Held(NamedTuple):
    """A word that differs from kernel to kernel: its number among what the signature says of each."""

    number: int


class Templates:
    """The kernels that were written, by signature. ``written`` is told of each new one."""

    def __init__(self, written: Callable[[Builder], None] = lambda builder: None) -> None:
        self._known: dict[Hashable, Written] = {}
        self._written = written

    def get(self, key: Hashable, held: Iterable[Word], write: Callable[[], Written]) -> Written:
        """A kernel as ``write`` makes it, or as it made one with the same key before.

        held: what of its words the key does not say, in an order that the key does; equal ones count once.
        """
        places: dict[Hashable, int] = {STATUS: 0}
        pattern = tuple([places.setdefault(word, len(places)) for word in held])
        known = self._known.get((key, pattern))
        if known is None:
            made = write()
            self._written(made.builder)
            words = [_Held(places[word]) if isinstance(word, Memory | Number) else word for word in made.words]
            known = self._known[key, pattern] = made._replace(words=words)
        own = [*places]
        words = [own[word.number] if isinstance(word, _Held) else word for word in known.words]
        return known._replace(words=[word.number if isinstance(word, Number) else word for word in words])


class Signature:
    """Of a kernel of loops. ``key``: all that its text follows from but ``held``."""

    def __init__(self, kernel: Kernel, schedule: Schedule) -> None:
        graph = schedule.graph
        self._types, self._made, self._schedule = graph.types, graph.made, schedule
        self._parts: list[Hashable] = [kernel.kind, kernel.space, kernel.reduced]
        self._values: dict[int, int] = {}
        self._reads: dict[Read, int] = {}
        self._elements = {element: number for number, element in enumerate(kernel.elements)}
        self.held: list[Word] = []
        for element, node in kernel.elements.items():
            self._value(element.value)
            self._parts.append(element.bound)
            self._terms(element.index)
            self._node(node)
        for value, body in kernel.bodies.items():
            self._value(value)
            if value in kernel.sums:
                self._parts += (kernel.sums[value], self._types[self._made[value].inputs[0]].dtype)
            self._node(body)
        for value, index in kernel.members.items():
            self._value(value)
            self._index(index)
        for value in kernel.stores:
            self._value(value)
            self._address(value, kernel.members[value])

    @property
    def key(self) -> Hashable:
        return tuple(self._parts)

    def _value(self, value: int) -> None:
        """A value by the order of first appearance, where it is described."""
        number = self._values.get(value)
        if number is None:
            number = self._values[value] = len(self._values)
            written = repr(self._schedule.literal(value))  # tells −0 from 0
            self._parts += (self._types[value].dtype, written)
        self._parts.append(number)

    def _address(self, value: int, index: Index) -> None:
        address, flat = self._schedule.address(value, index)
        self.held.append(address)
        self._terms((flat,))

    def _index(self, index: Index) -> None:
        self._parts += [expr.constant for expr in index]
        self._terms(index)

    def _terms(self, index: Index) -> None:
        """Expressions without their constants, but for those inside of atoms."""
        add = self._parts.append
        for expr in index:
            add(len(expr.terms))
            for atom, c in expr.terms:
                add(c)
                if isinstance(atom, Axis):
                    add(atom)
                elif isinstance(atom, Element):
                    add(("element", self._elements[atom]))
                else:
                    assert isinstance(atom, Quotient | Remainder), "nodes hold settled expressions"
                    add(("//" if isinstance(atom, Quotient) else "%", atom.by))
                    self._index((atom.of,))

    def _node(self, node: Node) -> None:
        add = self._parts.append
        if isinstance(node, Read):
            known = self._reads.get(node)
            add(("read", known))
            if known is None:
                self._reads[node] = len(self._reads)
                self._value(node.value)
                self.held.append(Memory(node.value))
                self._address(*node)
        elif isinstance(node, Local):
            add("local")
            self._value(node.value)
        elif isinstance(node, Position):
            add("position")
            self._index((node.expr,))
        elif isinstance(node, Apply):
            add(node.name)
            self._value(node.value)
            self._parts += (len(node.args), *(self._types[v].dtype for v in self._made[node.value].inputs))
            for arg in node.args:
                self._node(arg)
        else:
            add("choose")
            self._choose(node)

    def _choose(self, node: Choose) -> None:
        self._value(node.value)
        self._parts.append(len(node.cases))
        for conditions, case in node.cases:
            self._parts += (len(conditions), case is None)
            for condition in conditions:
                self._parts.append(condition.how)
                self._index((condition.expr,))
                self.held.append(Number(condition.number))
            if case is not None:
                self._node(case)
