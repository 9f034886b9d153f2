"""Operands: which values of a schedule that is being made have memory, and where in it products find theirs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final

from slalom.compiler.index import ZERO, Expr, Index, axes_of, cases, ravel, strides_of, substituted, unravel
from slalom.compiler.nodes import Kernel, Part, Windows
from slalom.compiler.seen import Found, Seen, in_memory, steps_by
from slalom.core.graph import Equation, Graph, Type
from slalom.core.ops.structural import BROADCAST
from slalom.core.primitive import Primitive
from slalom.core.shape import Shape, size

LARGEST: Final = 1 << 31
"""Bytes of an image whose windows are read in place: offsets have 32 bits."""


class Operands(ABC):
    """Values and their memory: ``home`` is the kernel that computes one, ``stored`` those that go to memory, ``plain``
    those that must lie there without gaps, ``parts`` those that lie in the memory of another, ``images`` those that are
    seen through windows."""

    def __init__(self, graph: Graph) -> None:
        self.types, self.equations = list(graph.types), list(graph.equations)
        self.made = {eq.out: eq for eq in graph.equations}
        self.positions = {eq.out: n for n, eq in enumerate(graph.equations)}
        self.home: dict[int, Kernel] = {}
        self.stored: dict[int, None] = {}
        self.plain: set[int] = set()
        self.parts: dict[int, Part] = {}
        self.images: set[int] = set()
        self.copies: dict[int, int] = {}  # of parts that somebody needs without gaps
        self.read_at: dict[int, list[tuple[Index, Iterable[int]]]] = {}  # by products, and along which axes evenly

    @abstractmethod
    def _copied(self, value: int) -> None:
        """Give a view memory of its own."""

    @abstractmethod
    def _copy_of(self, value: int) -> int:
        """The same under a new number, with memory of its own."""

    def _store(self, value: int) -> None:
        if value in self.home:
            self.stored[value] = None

    def _ready(self, values: list[int]) -> int:
        homes = [self.home[v] for v in values if v in self.home]
        needs = 0
        for home in homes:
            needs |= home.before | 1 << home.number
        return needs

    def _also(self, prim: Primitive, value: int, of: Type, **params: Any) -> Equation:
        """An equation that is added to the graph."""
        eq = Equation(len(self.types), prim, (value,), params, None)
        self.types.append(of)
        self.positions[eq.out] = len(self.equations)
        self.equations.append(eq)
        self.made[eq.out] = eq
        return eq

    def _expanded(self, value: int, batch: Shape) -> int:
        """An operand with the batch axes of its product, unless it has none at all: one matrix for all."""
        of = self.types[value]
        if size(of.shape[:-2]) == 1 or of.shape[:-2] == batch:
            return value
        shape = (*batch, *of.shape[-2:])
        return self._also(BROADCAST, value, Type(shape, of.dtype), shape=shape).out

    def _operand(self, value: int, batch: Index, last: tuple[Expr, Expr]) -> tuple[int, Index]:
        """Where a product reads an operand: a value in memory, and the element by an affine index."""
        shape = self.types[value].shape
        several = len(shape) - 2 if size(shape[:-2]) > 1 else 0
        index = (*(batch if several else (ZERO,) * (len(shape) - 2)), *last)
        root, at = value, index
        while root in self.made and self.made[root].prim.index is not None and root not in self.home:
            eq = self.made[root]
            assert eq.prim.index is not None
            ways = cases(eq.prim.index, at, [self.types[v].shape for v in eq.inputs], eq.params)
            if len(ways) > 1 or ways[0].operand is None:
                break
            root, at = eq.inputs[ways[0].operand], ways[0].at
        if (root in self.home or root not in self.made) and self._flat(root, at).affine:
            self._store(root)
            self._reads(root, at, frozenset().union(*(e.axes for e in index)))
            return root, at
        root = self.whole(value)
        rank = len(self.types[root].shape)  # its elements lie one after the other, so that one axis says it all
        return root, (*(ZERO,) * (rank - 1), ravel(index, shape))[:rank]

    def _reads(self, value: int, at: Index, axes: Iterable[int]) -> None:
        """Note that a product finds elements of a value by even steps along axes, so that they have to lie so."""
        self.read_at.setdefault(value, []).append((at, axes))

    def _flat(self, value: int, index: Index) -> Expr:
        """Where in memory an element of a value is, were there no gaps between rows."""
        while value in self.parts:
            value, at = self.parts[value]
            index = tuple([substituted(e, index) for e in at])
        return ravel(index, self.types[value].shape)

    def whole(self, value: int) -> int:
        """The value in memory that holds all elements of this one in their order: itself, or what it reshapes."""
        root = value
        while root not in self.home and root in self.made and self.made[root].prim.name in ("reshape", "alias"):
            (root,) = self.made[root].inputs
        if root in self.parts:
            if root not in self.copies:
                self.copies[root] = self._copy_of(root)
            root = self.copies[root]
        elif root in self.made and root not in self.home:
            root = value if self.types[value].shape == self.types[root].shape else root
            self._copied(root)
        self._store(root)
        self.plain.add(root)
        return root

    def _in_a_row(self, value: int) -> tuple[int, Index]:
        """Where the first element of a value is, after which all others follow in their order."""
        shape, root = self.types[value].shape, value
        index: Index = axes_of(shape)
        while (eq := self._view_of(root)) is not None:
            assert eq.prim.index is not None, "views have one"
            found = cases(eq.prim.index, index, [self.types[v].shape for v in eq.inputs], eq.params)
            if len(found) != 1 or found[0].operand is None:
                break
            root, index = eq.inputs[found[0].operand], found[0].at
        flat = ravel(index, self.types[root].shape)
        begin = Expr((), flat.constant)
        steps = zip(range(len(shape)), shape, strides_of(shape), strict=True)
        even = flat.affine and all(flat.coefficient(i) == step for i, n, step in steps if n > 1)
        if root in self.parts or not even or self._view_of(root) is not None:
            root, begin = self.whole(value), ZERO
        self._store(root)
        self.plain.add(root)
        return root, unravel(begin, self.types[root].shape)

    def _view_of(self, value: int) -> Equation | None:
        """What computes a value that has no memory of its own, if it is a view."""
        eq = None if value in self.home else self.made.get(value)
        return eq if eq is not None and eq.prim.index is not None else None

    def _in_place(self, eq: Equation, image: Seen) -> tuple[tuple[tuple[int, Index], ...], Windows] | None:
        """How a product reads windows in place; None if they do not lie as that needs."""
        (x, y), types = eq.inputs, self.types
        *batch, m, _ = range(len(types[eq.out].shape))

        def right() -> Found | None:
            found = in_memory(y, image.right, types, self._view_of)
            if found is None or (found.value in self.made and found.value not in self.home):
                return None
            return found if steps_by(found, self._flat(found.value, found.at), batch, image.lane) else None

        found = right()
        if found is None and self._view_of(image.image) is not None:
            self._copied(image.image)
            found = right()
        if found is None or size(types[found.value].shape) * types[found.value].dtype.itemsize >= LARGEST:
            return None
        lane = image.lane if image.lane in image.terms else None
        left = in_memory(x, image.left, types, self._view_of)
        if (
            left is None
            or left.conditions
            or (left.value in self.made and left.value not in self.home)
            or not steps_by(left, self._flat(left.value, left.at), (*batch, m), lane)
        ):
            root = self.whole(x)
            rank = len(types[root].shape)
            left = Found(root, (*(ZERO,) * (rank - 1), ravel(image.left, types[x].shape)), ())
        windows = Windows(image.columns, image.terms, image.lane, image.extents, found.conditions)
        operands = ((left.value, left.at), (found.value, found.at))
        for value, at in operands:
            self._store(value)
            self.images.add(value)
            self._reads(value, at, (*batch, m, image.lane))
        return operands, windows
