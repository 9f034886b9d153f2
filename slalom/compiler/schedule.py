"""Schedule: a graph cut into kernels, the pieces that become one loop nest each.

Six kinds: **product** (a matmul with the elementwise work on its result), **row** and **column** (sums and maxima over
the last or over leading axes, with all that is computed over the same elements), **sweep** (elementwise work alone),
**index** (sorting, scatters: templates of their own) and **loop** (over time steps; a step is cut by itself). Views are
never computed: they become index expressions. What is cheap is computed again where it is needed instead of stored. A
concatenation (a **join**) is no work either: its pieces are computed in its memory.

A value joins a kernel when every operand is at hand there: computed at the very same element, or finished before.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, Final

import numpy as np

from slalom.compiler.index import (
    ZERO,
    Condition,
    Element,
    Expr,
    Index,
    axes_of,
    axis,
    cases,
    ravel,
    settled,
    strides_of,
    substituted,
    unravel,
)
from slalom.compiler.ir import LANES
from slalom.compiler.keeping import CHEAP, FREE_COST, JOINED, MASKS, Keeping
from slalom.compiler.nodes import (
    Apply,
    Choose,
    Kernel,
    Local,
    Node,
    Part,
    Position,
    Read,
    Schedule,
    bits,
    elements_in,
    elements_of,
    locals_of,
    matched,
    reads,
    unmoved,
)
from slalom.compiler.seen import is_straight, seen
from slalom.core.graph import Equation, Graph
from slalom.core.ops.structural import ALIAS
from slalom.core.primitive import Array
from slalom.core.shape import Shape, size

OPAQUE: Final = frozenset({"cumsum", "argsort", "argmax", "scatter_add", "fold", "random_bits"})
"""Index kernels: operations with a template of their own."""
PARTS: Final = frozenset({"slice", "windows", "gather"})
"""Views that may leave out elements."""
REDUCTIONS: Final = frozenset({"sum", "amax"})
CASES: Final = 32
"""A view of views that would be written out in more cases than these at each reader reads from memory instead."""
CROWDED: Final = 1024
"""Planes of an image that begin at multiples of so many bytes share few sets of the cache."""
APART: Final = 16
"""Elements between rows that must not begin at the same place of the cache: one line."""


class _Unavailable(Exception):
    """An element that a kernel would need is computed by itself elsewhere."""


def schedule(graph: Graph) -> Schedule:
    """Cut a (simplified) graph into kernels."""
    scheduler = _Scheduler(graph)
    for eq in graph.equations:
        scheduler.add(eq)
    return scheduler.finish()


def is_arange(array: Array) -> bool:
    """Whether a constant counts 0, 1, 2, …"""
    return array.ndim == 1 and array.dtype.kind == "i" and bool((array == np.arange(array.size)).all())


class _Scheduler(Keeping):
    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.graph = graph
        self.kernels: list[Kernel] = []
        self.counts = {value for value, array in graph.constants.items() if is_arange(array)}
        self.costs: dict[int, int] = {}
        self.uses = Counter(v for eq in graph.equations for v in eq.inputs) + Counter(o.value for o in graph.outputs)
        self.readers: dict[int, list[Kernel]] = {}
        self.settling = False
        self.partly = _read_in_part(graph)
        self.cases: dict[int, int] = {}  # of views, in how many cases they are written out

    # --- the walk -------------------------------------------------------------------------------------------------
    def add(self, eq: Equation) -> None:
        """Find a kernel for an equation, or make one."""
        name = eq.prim.name
        if eq.out in self.partly and name == "gather":
            self._copied(eq.out)  # all indices are to be checked, whatever is read of it
        elif name == "concatenate":
            self._concatenate(eq)
        elif eq.prim.index is not None or name == "gather":
            self._look_through(eq)  # a view: part of whoever reads it
        elif name == "matmul":
            self._product(eq)
        elif name in OPAQUE:
            self._opaque(eq)
        elif name == "scan":
            self._loop(eq)
        else:
            self._join(eq)

    def _look_through(self, eq: Equation) -> None:
        """Count the cases of a view; if they are too many, the views that it is made of get memory of their own."""
        if sum(self.cases.get(v, 1) for v in eq.inputs) > CASES:
            for value in eq.inputs:
                if self.cases.pop(value, 1) > 1:
                    self._copied(value)
        self.cases[eq.out] = sum(self.cases.get(v, 1) for v in eq.inputs) + (eq.prim.name == "pad")

    # --- concatenations -------------------------------------------------------------------------------------------
    def _concatenate(self, eq: Equation) -> None:
        """Let the pieces lie in the memory of the whole: those that can be made there are, the others are copied."""
        kernel, begin, axis = self._new("join", self.types[eq.out].shape, eq=eq), 0, eq.params["axis"]
        pieces = []
        for value in eq.inputs:
            shift = Expr((), begin)
            begin += self.types[value].shape[axis]
            source, index = unmoved(value, self.made, self.home, self.types)
            at = (*index[:axis], index[axis].plus(shift), *index[axis + 1 :])
            if not self._may_lie(source, ravel(at, kernel.space)):
                source, own = self._copy_of(value), axes_of(self.types[value].shape)
                at = (*own[:axis], own[axis].plus(shift), *own[axis + 1 :])
            self.parts[source] = Part(eq.out, at)
            self._store(source)
            pieces.append(source)
        kernel.operands = tuple([(piece, None) for piece in pieces])
        self._enter(kernel, eq.out, axes_of(kernel.space), self._ready(pieces), set())

    def _may_lie(self, value: int, flat: Expr) -> bool:
        """Whether a value may be computed inside another's memory, at ``flat``, over its own axes."""
        home, shape = self.home.get(value), self.types[value].shape
        if home is None or home.kind in ("index", "loop") or value in self.plain or value in self.parts:
            return False
        if not all(is_straight(substituted(flat, at), axes) for at, axes in self.read_at.get(value, ())):
            return False
        along = [flat.coefficient(i) for i, n in enumerate(shape) if n > 1]
        # Where its kernel goes over it under another shape, whose rows go on, the lanes would be scattered.
        return substituted(flat, home.members[value]).affine and along[-1:] == [1]

    def _copy_of(self, value: int) -> int:
        """The same under a new number, with memory of its own."""
        made = self._also(ALIAS, value, self.types[value])
        self._join(made)
        self._store(made.out)
        return made.out

    # --- kernels --------------------------------------------------------------------------------------------------
    def _join(self, eq: Equation) -> None:
        reduction = eq.prim.name in REDUCTIONS
        shape = self.types[eq.inputs[0]].shape if reduction else self.types[eq.out].shape
        axes = frozenset(eq.params["axes"]) if reduction else frozenset[int]()
        for kernel in self._candidates(eq):
            over: frozenset[int] | None = axes
            if reduction:
                over = None if kernel.kind != "sweep" else matched(axes, shape, kernel.space)
                if over is None or kernel.reduced not in (frozenset(), over):
                    continue
            if self._try(kernel, eq, over or axes):
                return
        kernel = self._new("sweep", shape, reduced=axes)
        if not self._try(kernel, eq, axes):
            raise AssertionError(f"no kernel for {eq.prim.name}")

    def _try(self, kernel: Kernel, eq: Equation, axes: frozenset[int]) -> bool:
        """Let an equation join a kernel, if all that it needs is at hand there."""
        before = kernel.reduced
        kernel.reduced = kernel.reduced | axes
        index = kernel.place(self.types[eq.out].shape)
        try:
            if index is None:
                raise _Unavailable
            node = self._body(eq, kernel, index)
            needs = self._needs(node, kernel)
        except _Unavailable:
            kernel.reduced = before
            return False
        near = {read.value for read in reads(node)}
        self._enter(kernel, eq.out, index, needs, near)
        for value in near:
            self._merge(self.home.get(value), kernel)
        return True

    def _merge(self, other: Kernel | None, kernel: Kernel) -> None:
        """Let a kernel whose result this one reads become part of it, where both go over the same elements."""
        if other is None or other is kernel or other.kind != "sweep" or other.space != kernel.space:
            return
        if kernel.kind != "sweep" or (other.reduced and other.reduced != kernel.reduced):
            return
        between = kernel.before & ~other.before & ~(1 << other.number)
        if any(self.kernels[number].before >> other.number & 1 for number in bits(between)):
            return
        before, members = kernel.before, dict(kernel.members)
        merged = {**other.members, **members}
        kernel.members = {eq: merged[eq] for eq in sorted(merged)}
        kernel.before = (before | other.before) & ~(1 << other.number)
        moved = list(other.members)
        for v in moved:
            self.home[v] = kernel
        try:
            for v, index in kernel.members.items():
                self._needs(self._body(self.made[v], kernel, index), kernel)
        except _Unavailable:
            kernel.members, kernel.before = members, before
            for v in moved:
                self.home[v] = other
            return
        kernel.near |= other.near
        other.members, other.near = {}, set()
        bit = 1 << other.number
        for k in self.kernels:
            if k.before & bit and k is not kernel:
                k.before |= kernel.before | 1 << kernel.number

    def _body(self, eq: Equation, kernel: Kernel, index: Index) -> Node:
        """What a member of a kernel is computed from."""
        if eq.prim.name in REDUCTIONS:
            shape, space = self.types[eq.inputs[0]].shape, kernel.space
            return self._node(eq.inputs[0], unravel(ravel(axes_of(space), space), shape), kernel)
        if eq.prim.index is not None:
            return self._view(eq, index, kernel)
        return (self._gathered if eq.prim.name == "gather" else self._apply)(eq, index, kernel)

    def _enter(self, kernel: Kernel, value: int, index: Index, needs: int, near: set[int]) -> None:
        kernel.members[value] = index
        self.home[value] = kernel
        kernel.near |= near
        for v in near:
            self.readers.setdefault(v, []).append(kernel)
        self._after(kernel, needs)

    def _after(self, kernel: Kernel, needs: int) -> None:
        """Note that a kernel runs after others, and so does all that runs after it."""
        if not needs & ~kernel.before:
            return
        kernel.before |= needs
        bit = 1 << kernel.number
        for other in self.kernels:
            if other.before & bit:
                other.before |= kernel.before

    def _needs(self, node: Node, kernel: Kernel) -> int:
        """The kernels that must run before. Raises: _Unavailable if one of them needs this one."""
        needs = 0
        bit = 1 << kernel.number
        stack = [read.value for read in reads(node)]
        stack += [e.value for e in elements_in(node)]
        while stack:
            value = stack.pop()
            home = self.home.get(value)
            if home is None:  # an input, or a view inside an index
                eq = self.made.get(value)
                if eq is not None:
                    stack.extend(eq.inputs)
                continue
            if home is kernel or home.before & bit:
                raise _Unavailable
            needs |= home.before | 1 << home.number
        return needs

    def _candidates(self, eq: Equation) -> list[Kernel]:
        """The kernels of its operands, and those that read the same, the latest first."""
        found: dict[int, Kernel] = {}
        stack, seen = list(eq.inputs), set[int]()
        while stack:
            value = stack.pop()
            if value in seen:
                continue
            seen.add(value)
            home = self.home.get(value)
            if home is not None:
                found[home.number] = home
                if self._free(value):
                    stack.extend(self.made[value].inputs)
            elif value in self.made:
                stack.extend(self.made[value].inputs)
            if eq.prim.name in REDUCTIONS or len(self.types[value].shape) > 0:
                for reader in self.readers.get(value, ()):
                    found[reader.number] = reader
        return [found[n] for n in sorted(found, reverse=True) if found[n].kind in ("sweep", "product")]

    def _new(self, kind: str, space: Shape, **fields: Any) -> Kernel:
        kernel = Kernel(len(self.kernels), kind, space, **fields)
        self.kernels.append(kernel)
        return kernel

    # --- products and templates -----------------------------------------------------------------------------------
    def _product(self, eq: Equation) -> None:
        out = self.types[eq.out].shape
        image = seen(eq, self.types, self._view_of)
        if image is not None and (found := self._in_place(eq, image)) is not None:
            kernel = self._new("product", out, eq=eq, operands=found[0], windows=found[1])
            self._enter(kernel, eq.out, axes_of(out), self._ready([v for v, _ in found[0]]), set())
            return
        *batch, m, n = axes_of(out)
        k = axis(len(out), self.types[eq.inputs[0]].shape[-1])
        operands = tuple(
            self._operand(self._expanded(v, out[:-2]), tuple(batch), last)
            for v, last in zip(eq.inputs, ((m, k), (k, n)), strict=True)
        )
        kernel = self._new("product", out, eq=eq, operands=operands)
        self._enter(kernel, eq.out, axes_of(out), self._ready([v for v, _ in operands]), set())

    def _opaque(self, eq: Equation) -> None:
        operands = tuple((self.whole(v), None) for v in eq.inputs)
        out = self.types[eq.out].shape
        kernel = self._new("index", out, eq=eq, operands=operands)
        self.plain.add(eq.out)
        self._enter(kernel, eq.out, axes_of(out), self._ready([v for v, _ in operands]), set())

    def _loop(self, eq: Equation) -> None:
        """A loop reads its operands where they lie in a row."""
        operands = tuple(map(self._in_a_row, eq.inputs))
        kernel = self._new("loop", self.types[eq.out].shape, eq=eq, operands=operands)
        self.plain.add(eq.out)
        self._enter(kernel, eq.out, axes_of(kernel.space), self._ready([v for v, _ in operands]), set())

    def _copied(self, value: int) -> None:
        """Give a view memory of its own. What it is a transpose of, as of the heads of attention, is computed there."""
        shape = self.types[value].shape
        source, at = unmoved(value, self.made, self.home, self.types)
        if self._may_lie(source, ravel(at, shape)) and self.types[source].shape[-1] >= LANES:
            self.parts[source] = Part(value, at)
            self._store(source)
            kernel = self._new("join", shape, eq=self.made[value], operands=((source, None),))
            self._enter(kernel, value, axes_of(shape), self._ready([source]), set())
            return
        kernel = self._new("sweep", shape)
        node = self._node(value, axes_of(kernel.space), kernel)
        self._enter(kernel, value, axes_of(kernel.space), self._needs(node, kernel), {r.value for r in reads(node)})

    # --- bodies ---------------------------------------------------------------------------------------------------
    def _apply(self, eq: Equation, index: Index, kernel: Kernel) -> Apply:
        out = self.types[eq.out].shape
        shapes = [self.types[v].shape for v in eq.inputs]
        pairs = zip(eq.inputs, shapes, strict=True)
        return Apply(
            eq.out, eq.prim.name, tuple([self._node(v, _aligned(index, shape, out), kernel) for v, shape in pairs])
        )

    def _node(self, value: int, index: Index, kernel: Kernel) -> Node:
        """An element of a value, as seen from inside a kernel."""
        plain = tuple(map(settled, index))
        if value in self.counts:
            return Position(plain[0])
        if value not in self.made:
            return Read(value, plain)
        if kernel.members.get(value) == plain:
            return Local(value)
        eq, home = self.made[value], self.home.get(value)
        if home is kernel and not self._free(value):
            raise _Unavailable
        # A view that got memory of its own after this kernel was planned is looked through still.
        late = home is not None and self.settling and not kernel.before >> home.number & 1
        if home is not None and not late and self._is_read(value, kernel, home):
            return Read(value, plain)
        if eq.prim.index is not None:
            return self._view(eq, index, kernel)
        if eq.prim.name == "gather":
            return self._gathered(eq, index, kernel)
        return self._apply(eq, index, kernel)

    def _is_read(self, value: int, kernel: Kernel, home: Kernel) -> bool:
        """Whether a kernel reads a value of another one rather than compute it again."""
        apart = self.settling and home is not kernel
        if apart and (value in self.stored or self._spares(value, kernel)):
            return True  # it goes to memory anyway, or had better
        return not (self._free(value) or (apart and self._at_hand(value, kernel)))

    def _view(self, eq: Equation, index: Index, kernel: Kernel) -> Node:
        assert eq.prim.index is not None
        ways = cases(eq.prim.index, index, [self.types[v].shape for v in eq.inputs], eq.params)
        found = tuple(
            (way.conditions, None if way.operand is None else self._node(eq.inputs[way.operand], way.at, kernel))
            for way in ways
        )
        if len(found) == 1 and found[0][1] is not None:
            return found[0][1]
        return Choose(found, eq.out)

    def _gathered(self, eq: Equation, index: Index, kernel: Kernel) -> Node:
        x, *indices = eq.inputs
        shape = self.types[x].shape
        rank = len(self.types[indices[0]].shape) if indices else 0
        places: list[Expr] = []
        for i, bound in zip(indices, shape, strict=False):
            if i in self.counts and self.types[i].shape[0] <= bound:
                places.append(index[0])
                continue
            element = Element(i, tuple(map(settled, index[:rank])), bound)
            kernel.elements.setdefault(element, self._node(i, index[:rank], kernel))
            places.append(Expr(((element, 1),)))
        node = self._node(x, (*places, *index[rank:]), kernel)
        seen = set(elements_in(node))
        for place in places:  # an integer that makes no difference (of an axis that was broadcast) is checked as well
            if not seen.issuperset(elements_of((place,))):
                known = Condition(place, "ge", 0)
                node = Choose((((known,), node), ((known.negated(),), None)), eq.out)
        return node

    def _free(self, value: int) -> bool:
        """Whether it may be computed again by every reader."""
        return self._cost(value) <= FREE_COST

    def _cost(self, value: int) -> int:
        eq = self.made.get(value)
        if eq is None:
            return 0
        known = self.costs.get(value)
        if known is None:
            name = eq.prim.name
            if name in ("gather", "matmul") or name in OPAQUE or name in REDUCTIONS:
                known = FREE_COST + 1 if value in self.home or name != "gather" else 1
            elif eq.prim.index is not None:
                # A view that has memory of its own is read there.
                known = FREE_COST + 1 if value in self.home else sum(map(self._kept, eq.inputs))
            elif name in JOINED and self.types[value].dtype.kind == "b":
                known = FREE_COST + 1
            elif name in CHEAP and (name in MASKS or not self._carries_sums(value)):
                # A mask of constants, as of causal attention, is known as soon as it is known where one is.
                fixed = name in MASKS and all(v in self.graph.constants for v in eq.inputs)
                known = 0 if fixed else 1 + sum(map(self._kept, eq.inputs))
            else:
                known = FREE_COST + 1
            self.costs[value] = known
        return known

    def _carries_sums(self, value: int) -> bool:
        """Whether storing it replaces storing the sums of a product: they are needed for nothing else."""
        stack = [value]
        while stack:
            value = stack.pop()
            home, eq = self.home.get(value), self.made.get(value)
            if eq is None:
                continue
            if home is not None and eq is home.eq:
                if home.kind == "product":
                    return True
                continue
            view = eq.prim.index is not None and home is None
            if view or (home is not None and home.kind == "product" and eq.prim.name in CHEAP):
                stack.extend(v for v in eq.inputs if self.uses[v] == 1)
        return False

    def _kept(self, value: int) -> int:
        """The cost of an operand: what is too dear is in memory, and costs a read."""
        cost = self._cost(value)
        return cost if cost <= FREE_COST else 1

    # --- the end --------------------------------------------------------------------------------------------------
    def finish(self) -> Schedule:
        """Settle what is stored, write the bodies down, and put the kernels in order."""
        roots = {}
        for output in self.graph.outputs:
            roots[output.value] = self.whole(output.value)
        self.settling = True
        for kernel in reversed(self._ordered()):
            self._settle(kernel)
        graph = replace(self.graph, types=tuple(self.types), equations=tuple(self.equations))
        kernels = tuple(k for k in self._ordered() if k.stores)
        apart = {v: self._apart(v) for k in kernels for v in k.stores if v not in self.plain}
        return Schedule(graph, kernels, roots, {v: strides for v, strides in apart.items() if strides}, self.parts)

    def _apart(self, value: int) -> Shape | None:
        """The strides of a value whose rows would begin at the same place of the cache; None for others.

        Those of a power of two would drive each other out when a product reads a column of them; of an image that is
        seen through windows, that goes for its planes.
        """
        of = self.types[value]
        if value in self.images:
            plane = size(of.shape[1:])
            crowded = len(of.shape) > 1 and of.shape[0] > 1 and plane * of.dtype.itemsize % CROWDED == 0
            return (plane + APART, *strides_of(of.shape)[1:]) if crowded else None
        if len(of.shape) < 2 or of.shape[-2] < 8 or of.shape[-1] * of.dtype.itemsize % 256:
            return None
        if not self.home[value].members[value][-1].affine:  # it is computed under another shape, whose rows go on
            return None
        row = of.shape[-1] + APART
        return (*(row * n for n in strides_of(of.shape[:-1])), 1)

    def _settle(self, kernel: Kernel) -> None:
        kernel.stores = [value for value in kernel.members if value in self.stored]
        kernel.elements.clear()
        pending, needed = list(kernel.stores), set[int]()
        bodies: dict[int, Node] = {}
        while pending:
            value = pending.pop()
            if value in needed:
                continue
            needed.add(value)
            eq = self.made[value]
            if kernel.eq is not None and value == kernel.eq.out:
                continue
            index = kernel.members[value]
            del kernel.members[value]  # it is not made of itself
            body = self._body(eq, kernel, index)
            kernel.members[value] = index
            bodies[value] = body
            pending.extend(locals_of(body))
            for node in kernel.elements.values():
                pending.extend(locals_of(node))
                self._note(node)
            self._note(body)
        order = sorted(needed, key=self.positions.__getitem__)
        kernel.members = {v: kernel.members[v] for v in order}
        kernel.bodies = {v: bodies[v] for v in order if v in bodies}
        names = {v: self.made[v].prim.name for v in kernel.bodies}
        kernel.sums = {v: name for v, name in names.items() if name in REDUCTIONS}
        if not kernel.stores:
            return
        if kernel.kind == "sweep" and kernel.sums:
            last = len(kernel.space) - 1
            kernel.kind = "row" if last in kernel.reduced else "column"
        elif kernel.kind == "sweep":
            kernel.reduced = frozenset()

    def _note(self, node: Node) -> None:
        for read in reads(node):
            self._store(read.value)

    def _ordered(self) -> list[Kernel]:
        return sorted(self.kernels, key=lambda k: (k.before.bit_count(), k.number))


def _read_in_part(graph: Graph) -> set[int]:
    """The values of which a slice, or the like, may leave out elements."""
    found = set[int]()
    if any(eq.prim.name == "gather" for eq in graph.equations):
        for eq in reversed(graph.equations):
            if eq.prim.name in PARTS or (eq.out in found and (eq.prim.index or eq.prim.expr)):
                found.update(eq.inputs)
    return found


def _aligned(index: Index, shape: Shape, out: Shape) -> Index:
    """The index of a broadcast operand for an element of the result."""
    if shape == out:
        return index
    lead = len(out) - len(shape)
    return tuple(ZERO if n == 1 and m != 1 else i for i, n, m in zip(index[lead:], shape, out[lead:], strict=True))
