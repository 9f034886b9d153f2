"""Reach: in which loops of a kernel each node changes, so that it is written in front of the others.

Nodes are asked for again and again, and comparing two goes through all that they are made of: here each is compared
once, and answers are kept.
"""

from __future__ import annotations

from typing import Any

from slalom.compiler.index import Element, Expr, replaced, substituted
from slalom.compiler.nodes import Choose, Kernel, Local, Node, Position, Read, Schedule, parts_of


class Reach:
    """Of one kernel. ``axes``: each axis of its space as an expression over its loops."""

    def __init__(self, kernel: Kernel, schedule: Schedule, axes: list[Expr]) -> None:
        self._kernel, self._schedule, self._axes = kernel, schedule, axes
        self._keys: dict[int, int] = {}  # of nodes by id: the bodies keep them alive
        self._equals: dict[Node, int] = {}
        self._loops: dict[Any, frozenset[int]] = {}
        self._exprs: dict[Expr, Expr] = {}
        self._elements: dict[Element, Node] | None = None

    def key(self, node: Node) -> Any:
        """The same for a node of a body and all that are equal to it."""
        if isinstance(node, Local):
            return node
        key = self._keys.get(id(node))
        if key is None:
            key = self._keys[id(node)] = self._equals.setdefault(node, len(self._equals))
        return key

    def of(self, node: Node) -> frozenset[int]:
        """The loops that a node of a body, or a member, depends on."""
        key = self.key(node)
        known = self._loops.get(key)
        if known is None:
            known = self._loops[key] = self._found(node)
        return known

    def _found(self, node: Node) -> frozenset[int]:
        if isinstance(node, Read):
            return self.of_exprs(self._schedule.place(*node))
        if isinstance(node, Position):
            return self.of_exprs(node.expr)
        if isinstance(node, Local):
            return self.of_exprs(*self._kernel.members[node.value])
        found = frozenset[int]().union(*map(self.of, parts_of(node)))
        if isinstance(node, Choose):
            found |= self.of_exprs(*(condition.expr for conditions, _ in node.cases for condition in conditions))
        return found

    def of_exprs(self, *exprs: Expr) -> frozenset[int]:
        """The loops that some indices depend on."""
        return frozenset[int]().union(*[self.over_loops(expr).axes for expr in exprs])

    def over_loops(self, expr: Expr) -> Expr:
        """An index over the loops, in place of the axes."""
        found = self._exprs.get(expr)
        if found is None:
            found = self._exprs[expr] = substituted(expr, self._axes)
        return found

    def element(self, atom: Element) -> Node:
        """The node that an integer from data is made of."""
        if self._elements is None:
            nodes = self._kernel.elements.items()
            self._elements = {replaced(atom, self._axes): node for atom, node in nodes}
        return self._elements[atom]
