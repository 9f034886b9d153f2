"""Loop nests: a kernel as machine code, one function for sweeps, rows and columns, and the last step of products.

A nest is a loop over each kept axis, and inside it one pass over the reduced axes for each level of sums (softmax: the
maximum, then the sum of exponentials, then the result). Sixteen lanes run along the innermost axis: the reduced one in
a row kernel, whose lanes are joined by a tree at the end, or a kept one. What does not change in a loop is written in
front of it. Axes that every access walks as one are merged into one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import numpy as np

from slalom.compiler import deep, gemm, pointwise, windows
from slalom.compiler.arrange import along, arrange
from slalom.compiler.bands import Band
from slalom.compiler.cut import ALL, Part, part_of_row
from slalom.compiler.index import (
    Atom,
    Axis,
    Condition,
    Element,
    Expr,
    Index,
    Quotient,
    Remainder,
    axes_of,
    nested,
)
from slalom.compiler.ir import I64, LANES, STATUS, Builder, Memory, Number, Type, Value, Variable, literal
from slalom.compiler.keeping import CHEAP
from slalom.compiler.nodes import (
    Apply,
    Choose,
    Kernel,
    Local,
    Node,
    Position,
    Read,
    Schedule,
    levels_of,
    locals_of,
    walk,
)
from slalom.compiler.packs import Outer
from slalom.compiler.pointwise import Operand, memory_scalar, scalar_of
from slalom.compiler.reach import Reach
from slalom.compiler.signature import Written
from slalom.compiler.tiles import Tiles
from slalom.core.dtype import DType

WIDE: Final = 4 * LANES
"""Lanes of a column kernel and of a full sum: four chains of additions, which hide one another's latency."""
LONG: Final = 512
"""Elements of a row from which on it has as many."""
DEEP: Final = 64
"""Members of a kernel that may be made of one another without care."""


class Nest:
    """Writes one kernel. ``bands``: for each pass over rows, outside of which there are but zeros to write."""

    def __init__(self, kernel: Kernel, schedule: Schedule, bands: tuple[Band, ...] = ()) -> None:
        graph = schedule.graph
        self.b, self.kernel, self.schedule, self.types = Builder(), kernel, schedule, graph.types
        self.made, self.bands = graph.made, bands
        self.tasks = 1
        self.loops: list[str] = []
        self._reach = Reach(kernel, schedule, list(axes_of(kernel.space)))
        self._place: dict[int, Value] = {}  # where each loop is
        self._depths: dict[int, int] = {}  # in how many loops each axis is known
        self._lane: int | None = None
        self._lanes = LANES
        self._single = False  # whether the lanes run along a loop of one element, which not every index knows
        self._mask: Value | None = None
        self._guards: list[Value] = []
        self._memo: list[dict[Any, Value]] = [{}]
        self._done: set[int] = set()  # reductions and stored members that later passes read
        self._across = kernel.kind == "row"  # whether the lanes run along what is reduced
        self._tiles: Tiles | None = None
        self._bad: Variable | None = None

    # --- products -------------------------------------------------------------------------------------------------
    def product(
        self,
        product: gemm.Product,
        operands: gemm.Operands,
        shape: tuple[int, ...],
        tasks: int,
        *,
        turned: bool,
        direct: bool,
    ) -> Written:
        """A product with the rest of its kernel as the epilogue; ``turned``: its rows are the columns of the result."""
        tile = f"{product.rows} rows × {product.columns} columns"
        self.loops.append(f"for each tile of {tile}, in tasks:\n  for i{len(shape)} in 0 … {operands.k}:")
        finish = self._epilogue(shape, turned, cut=product.banded)
        (deep if product.deep else gemm).emit(self.b, product, operands, finish, direct=direct)
        self.tasks = tasks
        return self._written()

    def windows(
        self, tile: windows.Tile, operands: windows.Operands, shape: tuple[int, ...], tasks: int, *, direct: bool
    ) -> Written:
        """A product over windows with the rest of its kernel as the epilogue."""
        what = "columns" if tile.dot else "vectors of columns"
        self.loops.append(f"for each tile of {tile.rows} rows × {tile.width} {what}, in tasks:\n  for each term:")
        windows.emit(self.b, tile, operands, self._epilogue(shape, turned=False), direct=direct)
        self.tasks = tasks
        return self._written()

    def _epilogue(self, shape: tuple[int, ...], turned: bool, cut: bool = False) -> gemm.Epilogue:
        """What is done with the sums of a product. ``cut``: those without terms of 0, which would have made +0 of −0
        in one tile and none in another."""
        *batch, m, n = range(len(shape))
        if turned:
            m, n = n, m

        def finish(b: Builder, at_m: Value, at_n: Value, sums: Value, mask: Value, at_batch: Outer) -> None:
            self._fit_memo()
            depth = b.depth
            self._memo[1:] = [{} for _ in range(depth)]  # what was written for another vector may be in another branch
            self._lane, self._mask, self._lanes = n, mask, LANES
            self._place |= {m: at_m, n: at_n, **dict(zip(batch, at_batch, strict=True))}
            self._depths |= dict.fromkeys((*batch, m, n), depth)
            eq = self.kernel.eq
            assert eq is not None
            self._memo[depth][Local(eq.out)] = b.add(sums, literal(0, sums.type)) if cut else sums
            self._store_all(self.kernel.stores)

        return finish

    # --- nests ----------------------------------------------------------------------------------------------------
    def run(self) -> Written:
        """The loops of a sweep, row or column kernel."""
        kernel = self.kernel
        kept, reduced, extents, axes = arrange(kernel.space, kernel.reduced, self._exprs())
        self._reach = Reach(kernel, self.schedule, axes)
        if self._across and kept and len(reduced) == 1 and extents[reduced[0]] <= LANES:
            self._across, self._tiles = False, Tiles(self.b, kept[-1], reduced[0], extents)
        elif self._across and kept and extents[reduced[-1]] < min(LANES, extents[kept[-1]]):
            self._across = False  # windows: more of them side by side than elements in a row of one
        if reduced or not kept:
            self._lane = (reduced if self._across else kept)[-1] if kept or reduced else None
        else:
            kept, self._lane = along(kept, extents, map(self._reach.over_loops, self._exprs()))
        if self._lane is not None:
            self._single = extents[self._lane] == 1
            self._lanes = self._lanes_along(extents[self._lane], alone=not kept)
        with ExitStack() as stack:
            for number in kept:
                self._open(stack, number, extents[number], parallel=number == kept[0])
            self._passes(reduced, extents)
        return self._written()

    def _lanes_along(self, extent: int, alone: bool) -> int:
        """16, or more where one chain of additions waits for itself; few enough to leave columns for two threads."""
        if self.kernel.kind == "column":
            return LANES if extent <= LANES else 2 * LANES if extent <= WIDE else WIDE
        return WIDE if self._across and (alone or extent >= LONG) else LANES

    def _exprs(self) -> Iterator[Expr]:
        """Every index expression of the kernel."""
        kernel = self.kernel
        for node in (*kernel.bodies.values(), *kernel.elements.values()):
            for part in walk(node):
                if isinstance(part, Read):
                    yield from nested(self.schedule.place(part.value, part.at))
                elif isinstance(part, Position):
                    yield from nested(part.expr)
                elif isinstance(part, Choose):
                    for condition in (condition for conditions, _ in part.cases for condition in conditions):
                        yield from nested(condition.expr)
        for value in kernel.stores:
            yield from nested(self.schedule.place(value, kernel.members[value]))

    def _open(self, stack: ExitStack, number: int, extent: int, part: Part = ALL, *, parallel: bool = False) -> None:
        """Enter the loop over an axis, or a part of it."""
        b, lane = self.b, number == self._lane
        step = self._lanes if lane else 1
        lanes, tasks = f" by {step} lanes" if lane else "", ", in tasks" if parallel else ""
        self.loops.append(f"{'  ' * b.depth}for i{number} in 0 … {extent}{lanes}{tasks}:")
        stop = b.word(("extent", number), extent)
        if parallel:
            self.tasks = -(-extent // step)
            at = stack.enter_context(b.loop(b.begin, b.end))
            at = b.mul(at, b.number(step)) if lane else at
        else:
            at = stack.enter_context(b.loop(part[0] or 0, part[1] or stop, step))
        self._place[number], self._depths[number] = at, b.depth
        self._fit_memo()
        if lane:
            self._mask = b.lanes_below(b.sub(stop, at), self._lanes)

    def _fit_memo(self) -> None:
        """As many scopes as there are open loops: what was computed in a closed one is gone."""
        del self._memo[self.b.depth + 1 :]
        while len(self._memo) <= self.b.depth:
            self._memo.append({})

    # --- passes ---------------------------------------------------------------------------------------------------
    def _passes(self, reduced: list[int], extents: dict[int, int]) -> None:
        kernel = self.kernel
        levels = levels_of(kernel)
        sums = [v for v in kernel.bodies if v in kernel.sums]
        full = [v for v in kernel.stores if v in levels and self._is_full(v)]
        for level in range(max([levels[v] for v in (*sums, *full)], default=-1) + 1):
            now = [v for v in sums if levels[v] == level]
            stored = [v for v in full if levels[v] == level]
            if not now and not stored:
                continue
            totals, within = {v: self._total(v) for v in now}, self._within(level, reduced, extents)
            with ExitStack() as stack:
                for number in reduced:
                    self._open(stack, number, extents[number], within)
                self._prepare([kernel.bodies[v] for v in now])
                found = {v: self._widened(self._emit(kernel.bodies[v]), v) for v in now}
                for v, term in found.items():
                    totals[v].set(self._join(v, totals[v].get(), term))
                self._store_all(stored)
                if self._tiles is not None:
                    self._keep([v for v in _dear(kernel, levels) if levels[v] == level and v not in stored])
            self._fit_memo()
            self._fill(stored, reduced, extents, within)
            if self._tiles is not None:
                self._tiles.flush([v for v in stored if self._tiles.holds(v)])
            for v, total in totals.items():
                self._memo[self.b.depth][Local(v)] = self._closed(total.get(), v)
            self._done.update(now, stored)
        self._store_all([v for v in kernel.stores if v not in full])

    def _within(self, level: int, reduced: list[int], extents: dict[int, int]) -> Part:
        """The vectors of a row between which a pass has something to do."""
        space, last = self.kernel.space, len(self.kernel.space) - 1
        if not self.bands or not self._across or reduced != [last] or extents[last] != space[last]:
            return None, None
        row, columns = self._number(self._reach.over_loops(axes_of(space)[last - 1])), ("extent", last)
        return part_of_row(self.b, self.bands[level], row, self.b.word(columns, space[last]), space[-2:], self._lanes)

    def _fill(self, values: list[int], axes: list[int], extents: dict[int, int], within: Part) -> None:
        """Write zeros where a row ends before its columns do, or begins after them."""
        for part in ((None, within[0]), (within[1], None)):
            if values and part != ALL:
                with ExitStack() as stack:
                    for number in axes:
                        self._open(stack, number, extents[number], part)
                    for value in values:
                        self._store(value, literal(0, Type(scalar_of(self.types[value].dtype))))
                self._fit_memo()

    def _keep(self, values: list[int]) -> None:
        """Keep what is dear and needed in later passes too."""
        assert self._tiles is not None
        for v in values:
            self._tiles.put(v, self._splat(self._emit(Local(v))), self._place)
            self._done.add(v)

    def _is_full(self, value: int) -> bool:
        """Whether a member has an element for each of the reduced ones too."""
        axes = frozenset[int]().union(*(e.axes for e in self.kernel.members[value]))
        return not self.kernel.reduced or bool(axes & self.kernel.reduced)

    def _total(self, value: int) -> Variable:
        """The accumulator of a reduction, empty."""
        dtype, lanes = self.types[value].dtype, self._lanes if self._lane is not None else 0
        type = Type(scalar_of(dtype), lanes)
        return self.b.variable(literal(0 if self.made[value].prim.name == "sum" else pointwise.least(dtype), type))

    def _widened(self, term: Value, value: int) -> Value:
        """A term in the dtype of the sum, in all lanes, those beyond the end neutral."""
        source, target = self.types[self.made[value].inputs[0]].dtype, self.types[value].dtype
        term = pointwise.cast(self.b, term, source, target)
        if self._lane is None:
            return term
        term = self._splat(term)
        if not self._across:
            return term
        assert self._mask is not None
        neutral = 0 if self.made[value].prim.name == "sum" else pointwise.least(target)
        return self.b.select(self._mask, term, literal(neutral, term.type))

    def _join(self, value: int, x: Value, y: Value) -> Value:
        dtype = self.types[value].dtype
        if self.made[value].prim.name == "sum":
            return self.b.add(x, y)
        return pointwise.maximum(self.b, Operand(x, dtype), Operand(y, dtype))

    def _closed(self, total: Value, value: int) -> Value:
        if not self._across or not total.type.lanes:
            return total
        return self.b.tree(total, lambda x, y: self._join(value, x, y))

    # --- stores ---------------------------------------------------------------------------------------------------
    def _store_all(self, values: list[int]) -> None:
        """Compute members, and then store them: in place of what they were computed from, perhaps."""
        self._prepare([Local(v) for v in values])
        found = [(v, self._emit(Local(v))) for v in values]
        for v, result in found:
            self._store(v, result)

    def _store(self, value: int, result: Value) -> None:
        b, dtype = self.b, self.types[value].dtype
        address, flat = self._address(value, self.kernel.members[value])
        base = b.pointer(address, address)
        if result.type.scalar == "i1":
            result = b.convert("zext", result, "i8")
        if self._tiles is not None and self._tiles.serves(flat):
            self._tiles.store(value, self._splat(result), base, self._line(flat), self._place)
            return
        element = Type(memory_scalar(dtype))
        if self._lane is None or self._lane not in flat.axes:
            if result.type.lanes:
                if not self._single:
                    raise AssertionError(f"%{value}: a vector for one element")
                result = b.extract(result)  # a batch of one is computed as any other, to the same bits
            b.store(result, b.offset(base, self._number(flat), element))
            return
        assert self._mask is not None
        result = self._splat(result)
        if self._in_a_row(flat):
            b.store_masked(result, b.offset(base, self._start_of(flat), element), self._mask)
        else:
            b.scatter(result, self._addresses(base, flat, element), self._mask)

    def _splat(self, x: Value) -> Value:
        return x if x.type.lanes or self._lane is None else self.b.splat(x, self._lanes)

    def _written(self) -> Written:
        """The whole, which ends by storing a nonzero status if an index was out of range."""
        if self._bad is not None:
            with self.b.when(self._bad.get()):
                self.b.store(Value("1", I64), self.b.pointer("status", STATUS))
        return Written(self.b, self.tasks, tuple(self.loops), self.b.bound)

    # --- nodes ----------------------------------------------------------------------------------------------------
    def _depth(self, loops: frozenset[int]) -> int:
        """How many of the open loops enclose all of these."""
        return min(max([self._depths.get(i, 0) for i in loops], default=0), self.b.depth)

    def _emit(self, node: Node) -> Value:
        """The value of a node of a body, or of a member."""
        plain = self._reach.key(node)
        key: Any = (plain, tuple(g.text for g in self._guards)) if self._guards else plain
        for scope in self._memo[: self.b.depth + 1]:
            if plain in scope:  # made without conditions, it holds under all of them
                return scope[plain]
            if key in scope:
                return scope[key]
        depth = self.b.depth if self._guards else self._depth(self._reach.of(node))
        if depth == self.b.depth:
            value = self._made(node)
        else:
            with self.b.at(depth):
                value = self._made(node)
        self._memo[depth][key] = value
        return value

    def _prepare(self, nodes: list[Node]) -> None:
        """Write the members that nodes are made of one after the other, where there are so many that following them
        from the last to the first would go too deep for Python's stack."""
        bodies = self.kernel.bodies
        if len(bodies) <= DEEP:
            return
        needed, stack = set[int](), [v for node in nodes for v in locals_of(node)]
        while stack:
            value = stack.pop()
            if value in bodies and value not in self._done and value not in needed:
                needed.add(value)
                stack.extend(locals_of(bodies[value]))
        for value in bodies:
            if value in needed:
                self._emit(Local(value))

    def _made(self, node: Node) -> Value:
        if isinstance(node, Read):
            return self._read(node)
        if isinstance(node, Position):
            return self._integer(node.expr)
        if isinstance(node, Local):
            if node.value in self._done and self._is_full(node.value):
                if self._tiles is not None and self._tiles.holds(node.value):
                    return self._as_value(self._tiles.get(node.value, self._place), self.types[node.value].dtype)
                return self._read(Read(node.value, self.kernel.members[node.value]))
            return self._emit(self.kernel.bodies[node.value])
        if isinstance(node, Choose):
            return self._chosen(node)
        return self._applied(node)

    def _applied(self, node: Apply) -> Value:
        eq = self.made[node.value]
        prim, types = eq.prim, [self.types[v] for v in eq.inputs]
        args = [self._emit(arg) for arg in node.args]
        lanes = max(a.type.lanes for a in args)
        if lanes:
            args = [a if a.type.lanes else self.b.splat(a, lanes) for a in args]
        if prim.name == "cast":
            return pointwise.cast(self.b, args[0], types[0].dtype, eq.params["dtype"])
        return pointwise.emit(self.b, prim, [Operand(a, t.dtype) for a, t in zip(args, types, strict=True)])

    def _chosen(self, node: Choose) -> Value:
        """The first case that holds; memory is touched under its conditions only."""
        b = self.b
        type = Type(scalar_of(self.types[node.value].dtype))
        result = literal(0, type)
        for conditions, case in reversed(node.cases):
            holds = [self._holds(c) for c in conditions]
            self._guards.extend(holds)
            value = literal(0, type) if case is None else self._emit(case)
            del self._guards[len(self._guards) - len(holds) :]
            for condition in holds:
                lanes = max(condition.type.lanes, value.type.lanes, result.type.lanes)
                parts = [p if p.type.lanes == lanes else self._spread(p, lanes) for p in (condition, value, result)]
                value = b.select(*parts)
            result = value
        return result

    def _spread(self, x: Value, lanes: int) -> Value:
        if x.text == literal(0, x.type).text:
            return literal(0, Type(x.type.scalar, lanes))
        return self.b.splat(x, lanes)

    def _holds(self, condition: Condition) -> Value:
        x = self._integer(condition.expr)
        number = self.b.word(("number", condition), Number(condition.number))
        if x.type.lanes:
            number = self.b.splat(number, x.type.lanes)
        return self.b.compare({"lt": "slt", "ge": "sge"}.get(condition.how, condition.how), x, number)

    # --- memory ---------------------------------------------------------------------------------------------------
    def _read(self, node: Read) -> Value:
        b, of = self.b, self.types[node.value]
        known = self.schedule.literal(node.value)
        if known is not None:
            return literal(known, Type(scalar_of(of.dtype)))
        element, (address, flat) = Type(memory_scalar(of.dtype)), self._address(*node)
        base = b.pointer(address, address)
        if self._lane is None or self._lane not in flat.axes:
            place, nearby = b.offset(base, self._number(flat), element), Memory(node.value)
            for guard in self._guards:  # where it does not hold, there may be nothing
                place = b.select(self._anywhere(guard), place, b.pointer(nearby, nearby))
            found = b.load(element, place)
        elif self._tiles is not None and not self._guards and self._tiles.serves(flat):
            key: Any = (address, flat)
            if not self._tiles.holds(key):
                with b.at(self._depths[self._lane]):
                    self._tiles.load(key, element, base, self._line(flat), self._place)
            found = self._tiles.get(key, self._place)
        else:
            mask = self._guarded()
            type = Type(element.scalar, self._lanes)
            if self._in_a_row(flat):
                found = b.load_masked(type, b.offset(base, self._start_of(flat), element), mask)
            else:
                found = b.gather(type, self._addresses(base, flat, element), mask)
        return self._as_value(found, of.dtype)

    def _address(self, value: int, index: Index) -> tuple[Memory, Expr]:
        """Where an element of a value is, over the merged axes."""
        address, flat = self.schedule.address(value, index)
        return address, self._reach.over_loops(flat)

    def _as_value(self, found: Value, dtype: DType) -> Value:
        return self.b.compare("ne", found, literal(0, found.type)) if dtype.kind == "b" else found

    def _line(self, flat: Expr) -> tuple[Value, Value]:
        """Of a tile in memory: the first element, and how far it is from one lane's elements to the next's."""
        assert self._lane is not None and self._tiles is not None
        with self.b.at(self._depths[self._lane]):
            start = self._number(flat.without(self._lane).without(self._tiles.reduced))
            step = self.b.word(("line", flat), flat.coefficient(self._lane))
            return self.b.add(start, self.b.mul(self._place[self._lane], step)), step

    def _guarded(self) -> Value:
        """The lanes that may be read."""
        mask = self._mask
        assert mask is not None
        for guard in self._guards:
            mask = self.b.binary("and", mask, self._splat(guard))
        return mask

    def _anywhere(self, condition: Value) -> Value:
        """Whether it holds for any of the elements that there are."""
        b, lanes = self.b, condition.type.lanes
        if not lanes:
            return condition
        assert self._mask is not None
        bits = Type(f"i{lanes}")
        found = b.op(f"bitcast {b.binary('and', condition, self._mask)} to {bits}", bits)
        return b.compare("ne", found, literal(0, bits))

    def _in_a_row(self, flat: Expr) -> bool:
        """Whether the lanes are neighbours in memory."""
        assert self._lane is not None
        if self._place[self._lane].type.lanes:  # columns in any order
            return False
        return flat.coefficient(self._lane) == 1 and self._lane not in flat.without(self._lane).axes

    def _start_of(self, flat: Expr) -> Value:
        """The element of the first lane, where the others follow it."""
        assert self._lane is not None
        return self.b.add(self._number(flat.without(self._lane)), self._place[self._lane])

    def _addresses(self, base: Value, flat: Expr, element: Type) -> Value:
        """The address of each lane's element."""
        places = self._integer(flat)
        return self.b.op(f"getelementptr {element}, {base}, {places}", Type("ptr", self._lanes))

    # --- integers -------------------------------------------------------------------------------------------------
    def _integer(self, expr: Expr) -> Value:
        """An index expression as i64: a vector where it changes along the lanes."""
        expr = self._reach.over_loops(expr)
        if self._lane is None or self._lane not in expr.axes:
            return self._number(expr)
        key = ("lanes", expr, self._seen_by(expr))
        for scope in self._memo[: self.b.depth + 1]:
            if key in scope:
                return scope[key]
        fixed = Expr(tuple(t for t in expr.terms if self._lane not in Expr((t,)).axes), expr.constant)
        total = self.b.splat(self._number(fixed), self._lanes)
        for atom, c in expr.terms:
            if self._lane in Expr(((atom, 1),)).axes:
                total = self.b.add(total, self._splat(self._scaled(self._atom(atom), c, expr)))
        self._memo[self.b.depth][key] = total
        return total

    def _number(self, expr: Expr) -> Value:
        """An expression that is the same in all lanes."""
        depth = self.b.depth if self._guards else self._depth(self._reach.of_exprs(expr))
        key = ("number", expr, self._seen_by(expr))
        for scope in self._memo[: depth + 1]:
            if key in scope:
                return scope[key]
        with self.b.at(depth):
            parts = [self._scaled(self._atom(atom), c, expr) for atom, c in expr.terms]
            if expr.constant:
                parts.append(self.b.word(("constant", expr), expr.constant))
            total = parts[0] if parts else self.b.number(0)
            for part in parts[1:]:
                total = self.b.add(total, part)
        self._memo[depth][key] = total
        return total

    def _seen_by(self, expr: Expr) -> tuple[str, ...]:
        """The guards under which an expression was made, if it holds data that was read under them."""
        read = any(isinstance(atom, Element) for part in nested(expr) for atom, _ in part.terms)
        return tuple([guard.text for guard in self._guards]) if read else ()

    def _scaled(self, value: Value, c: int, expr: Expr) -> Value:
        if c == 1:
            return value
        word = self.b.word(("stride", expr, value.text), c)
        return self.b.mul(value, self.b.splat(word, value.type.lanes) if value.type.lanes else word)

    def _atom(self, atom: Atom) -> Value:
        b = self.b
        if isinstance(atom, Axis):
            at = self._place[atom.number]
            if atom.number != self._lane or at.type.lanes:
                return at
            return b.add(b.splat(at, self._lanes), b.iota("i64", self._lanes))
        if isinstance(atom, Element):
            return self._element(atom)
        assert isinstance(atom, Quotient | Remainder), "nodes hold settled expressions"
        divided = b.quotient if isinstance(atom, Quotient) else b.remainder
        return divided(self._integer(atom.of), atom.by, atom.of.range[1])

    def _element(self, atom: Element) -> Value:
        """An integer from data, checked: one out of range is reported, and 0 stands for it."""
        b, dtype = self.b, self.types[atom.value].dtype
        found = pointwise.cast(b, self._emit(self._reach.element(atom)), dtype, np.dtype(np.int64))
        bound = b.word(("bound", atom), atom.bound)
        bound = b.splat(bound, found.type.lanes) if found.type.lanes else bound
        bad = b.compare("uge", found, bound)
        safe = b.select(bad, literal(0, found.type), found)
        if found.type.lanes:
            bad = self._anywhere(b.binary("and", bad, self._guarded()))
        else:
            for guard in self._guards:
                bad = b.binary("and", bad, self._anywhere(guard))
        if self._bad is None:
            self._bad = b.variable(Type("i1"))
            b.set_first(self._bad, literal(0, Type("i1")))
        self._bad.set(b.binary("or", self._bad.get(), bad))
        return safe


def _dear(kernel: Kernel, levels: dict[int, int]) -> list[int]:
    """The members that are worth keeping from one pass to a later one: functions of elements."""
    found = []
    for value, body in kernel.bodies.items():
        dear = isinstance(body, Apply) and body.name not in CHEAP and value not in kernel.sums
        full = frozenset[int]().union(*(e.axes for e in kernel.members[value])) & kernel.reduced
        later = [v for v, b in kernel.bodies.items() if levels[v] > levels[value] and value in locals_of(b)]
        if dear and full and later:
            found.append(value)
    return found
