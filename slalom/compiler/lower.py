"""Lowering: each kernel of a schedule as calls of generated functions, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from slalom.compiler import gemm, packs, windows
from slalom.compiler.arrange import arrange
from slalom.compiler.bands import Bands
from slalom.compiler.calls import Call, Lowered, Repeat
from slalom.compiler.index import Expr, strides_of, substituted
from slalom.compiler.indexed import EMITTERS
from slalom.compiler.ir import LANES, STATUS, Builder, Memory
from slalom.compiler.keeping import CHEAP
from slalom.compiler.loops import Nest
from slalom.compiler.nodes import Apply, Kernel, Read, Schedule, Windows, walk
from slalom.compiler.pointwise import memory_scalar
from slalom.compiler.schedule import schedule
from slalom.compiler.signature import Signature, Templates, Written
from slalom.core.primitive import Array
from slalom.core.shape import Shape, size
from slalom.core.step import Body

BLOCK: Final = 16
"""Row tiles of a product that are done for one column tile before the next, at most."""
GRAIN: Final = 60_000
"""Multiplications and additions of a product for each of which another thread is worth waking, about 0.25 µs …"""
HEAVIER: Final = 8
"""… and how many of them any other operation takes the time of."""
CROWDED: Final = 512
"""Rows that begin at multiples of so many bytes share few sets of the cache."""
SPREAD: Final = 1024
"""From so many bytes on, the next row begins far away: another set, soon another page."""
WORTH_PACKING: Final = 16_384
"""Elements of a transposed left-hand side from which on a product is slower than with a copy in panels."""
NEAR: Final = 256 << 10
"""Bytes of an operand that the second cache holds, where a copy costs half as much."""
READ_AGAIN: Final = 4
"""Column tiles, for each of which it is read, from which on it is copied: that costs as much as two readings."""
DEEP: Final = 512
"""Terms of a sum from which on a product goes through it in stretches, for all tiles at once (``deep.py``) …"""
FEW: Final = 3
"""… row tiles that it must have, as B is copied for all of them …"""
TALL: Final = 1024
"""… and rows that it may have: a stretch of them has to stay in the second cache."""
SHORT: Final = 4
"""Operations on the sums of a product that may be written once for each register of a tile."""


def lower(
    kernels: Schedule,
    register_bytes: int = 64,
    threads: int = 1,
    written: Callable[[Builder], None] = lambda builder: None,
    *,
    again: bool = False,
) -> Lowered:
    """The calls of a schedule, for so many threads. Those that write state come last where they can.

    written: is told of each function as soon as its text is whole · again: whether it is the step of a loop, which is
    made many times over with the same weights.
    """
    lowering = _Lowering(kernels, register_bytes, threads, written, again)
    for kernel in _ordered(kernels):
        lowering.add(kernel)
    return lowering.lowered


def _ordered(schedule: Schedule) -> list[Kernel]:
    """A topological order in which kernels whose results are written outside come as late as they can."""
    written = {schedule.roots[o.value] for o in schedule.graph.outputs if o.kind == "write"}
    waiting = sorted(schedule.kernels, key=lambda k: not written.isdisjoint(k.stores))
    missing = sum(1 << k.number for k in waiting)
    order = []
    while waiting:
        ready = next(k for k in waiting if not k.before & missing)
        waiting.remove(ready)
        missing &= ~(1 << ready.number)
        order.append(ready)
    return order


class _Lowering:
    def __init__(
        self,
        schedule: Schedule,
        register_bytes: int,
        threads: int,
        written: Callable[[Builder], None],
        again: bool,
    ) -> None:
        self.written, self.again = written, again
        self.schedule, self.graph, self.register_bytes, self.threads = schedule, schedule.graph, register_bytes, threads
        self.types = schedule.graph.types
        self.lowered = Lowered(schedule)
        self.packed: dict[Any, int] = {}
        self.templates = Templates(written)
        self.bands = Bands(schedule.graph)
        self.steps: dict[Body, tuple[Lowered, tuple[Call, ...], int]] = {}

    def add(self, kernel: Kernel) -> None:
        if kernel.windows is not None:
            self._windows(kernel, kernel.windows)
        elif kernel.kind == "product":
            self._product(kernel)
        elif kernel.kind == "index":
            self._index(kernel)
        elif kernel.kind == "loop":
            self._loop(kernel)
        elif kernel.kind == "sweep" and self._turned(kernel):
            pass
        elif kernel.kind != "join":
            signature, bands = Signature(kernel, self.schedule), self.bands.of_rows(kernel)

            def write() -> Written:
                return Nest(kernel, self.schedule, bands).run()

            written = self.templates.get((signature.key, bands), signature.held, write)
            self._call(kernel, written, size(kernel.space) * len(kernel.bodies))

    def _call(
        self,
        kernel: Kernel | None,
        written: Written,
        flops: int = 0,
        writes: Any = None,
        moved: int = 0,
    ) -> None:
        words, tasks = written.words, written.tasks
        touched = {word.value for word in words if isinstance(word, Memory)}
        writes = tuple(kernel.stores) if writes is None and kernel is not None else tuple(writes)
        checks = STATUS in words
        reads = frozenset(touched - {STATUS.value} - set(writes))
        weight = flops if kernel is not None and kernel.kind == "product" else HEAVIER * max(flops, moved)
        ways = max(1, min(tasks, weight // GRAIN + 1))
        call = Call(kernel, written.builder, tasks, tuple(words), writes, reads, checks, flops, written.loops, ways)
        self.lowered.calls.append(call)

    def _scratch(self, bytes: int) -> int:
        number = self._number()
        self.lowered.scratch[number] = bytes
        return number

    def _table(self, array: Array) -> Memory:
        number = self._number()
        self.lowered.tables[number] = array
        return Memory(number)

    def _number(self) -> int:
        return len(self.types) + len(self.lowered.scratch) + len(self.lowered.tables)

    # --- templates ------------------------------------------------------------------------------------------------
    def _index(self, kernel: Kernel) -> None:
        eq = kernel.eq
        assert eq is not None
        types, out = tuple([self.types[v] for v in eq.inputs]), self.types[eq.out]

        def write() -> Written:
            b = Builder()
            plan = EMITTERS[eq.prim.name](b, types, out, eq.params)
            return Written(b, plan.tasks, (), b.bound)

        written = self.templates.get((eq.prim.name, types, out, *sorted(eq.params.items())), (), write)
        writes: tuple[int, ...] = (eq.out,)
        meanings: dict[Any, Any] = {("out", 0): Memory(eq.out), ("status",): STATUS, ("scratch", 0): 0}
        meanings |= {("in", i): Memory(value) for i, (value, _) in enumerate(kernel.operands)}
        for scratch in {word for word in written.words if isinstance(word, tuple)} - meanings.keys():
            writes = (eq.out, self._scratch(scratch[1]))
            meanings[scratch] = Memory(writes[1])
        words = [meanings[word] if isinstance(word, tuple) else word for word in written.words]
        self._call(kernel, written._replace(words=words), size(out.shape), writes)

    # --- loops over time steps ------------------------------------------------------------------------------------
    def _loop(self, kernel: Kernel) -> None:
        eq = kernel.eq
        assert eq is not None
        body: Body = eq.params["body"]
        step, calls, once = self._step(body)
        operands = tuple([self.schedule.address(v, at)[0] for v, at in kernel.operands if at is not None])
        room = self._scratch(0)  # as much as the memory plan of a step says
        self.lowered.calls.append(
            Repeat(kernel, body, step, calls, once, operands, eq.out, room, eq.params["steps"], eq.params["reverse"])
        )

    def _step(self, body: Body) -> tuple[Lowered, tuple[Call, ...], int]:
        """A step, its calls, and how many of them, the first, do the same at all steps."""
        known = self.steps.get(body)
        if known is None:
            step = lower(schedule(body.graph), self.register_bytes, self.threads, self.written, again=True)
            fixed = {place.value for place in body.graph.inputs[body.carries + body.pieces :]}
            calls = [call for call in step.calls if isinstance(call, Call)]
            if len(calls) < len(step.calls):
                raise AssertionError("a loop in a step of a loop")
            same = _same(step, calls, fixed | body.graph.constants.keys() | step.tables.keys())
            pairs = list(zip(calls, same, strict=True))
            calls = [*(call for call, once in pairs if once), *(call for call, once in pairs if not once)]
            step.calls[:] = calls
            known = self.steps[body] = step, tuple(calls), sum(same)
        return known

    # --- sweeps that transpose ------------------------------------------------------------------------------------
    def _turned(self, kernel: Kernel) -> bool:
        """Write a sweep that only transposes a matrix, or several, block by block; False for others."""
        (value, body), *others = kernel.bodies.items()
        if others or not isinstance(body, Read) or self.types[value].dtype != self.types[body.value].dtype:
            return False
        if memory_scalar(self.types[value].dtype) != "float":
            return False
        found = self.schedule.address(*body), self.schedule.address(value, kernel.members[value])
        loops = arrange(kernel.space, frozenset(), [flat for _, flat in found])
        source, target = [substituted(flat, loops.axes) for _, flat in found]
        if len(loops.kept) < 2:
            return False
        *outer, k, n = loops.kept
        if not (source.affine and target.affine) or target.coefficient(n) != 1:
            return False
        if source.coefficient(k) != 1 or source.coefficient(n) < LANES:
            return False
        batch = tuple([loops.extents[i] for i in outer])
        packing = packs.Packing("float", LANES, "columns", batched=len(batch), open=True)
        operands = packs.PackOperands(
            loops.extents[k], loops.extents[n], found[0][0], 1, source.coefficient(n), found[1][0], LANES,
            batch[1:], _steps(source, outer), _steps(target, outer), target.coefficient(k),
        )  # fmt: skip
        self._packed(kernel, packing, operands, size(batch))
        return True

    # --- products -------------------------------------------------------------------------------------------------
    def _product(self, kernel: Kernel) -> None:
        eq = kernel.eq
        assert eq is not None
        shape, dtype = self.types[eq.out].shape, self.types[eq.out].dtype
        *batch, m, n = range(len(shape))
        k, depth = len(shape), self.types[eq.inputs[0]].shape[-1]
        (a, a_index), (right, b_index) = kernel.operands
        assert a_index is not None and b_index is not None, "products read elements"
        a_at, b_at = self.schedule.place(a, a_index), self.schedule.place(right, b_index)
        turned = shape[n] < min(LANES, shape[m]) and a_at.coefficient(m) == 1
        if turned:  # Cᵀ = Bᵀ·Aᵀ, whose rows fill the vectors
            m, n, a, a_at, right, b_at = n, m, right, b_at, a, a_at
        band = self.bands.of(eq, turned=turned)
        scalar = memory_scalar(dtype)
        product = gemm.choose(
            shape[n], scalar, m=shape[m] if turned or self.again else None, batched=len(batch), banded=band is not None,
            logical=dtype.kind == "b", register_bytes=self.register_bytes,
        )  # fmt: skip
        row_tiles, column_tiles = -(-shape[m] // product.rows), -(-shape[n] // product.columns)
        a_place, a_batch = Memory(a, a_at.constant * dtype.itemsize), _steps(a_at, batch)
        a_row, a_k = a_at.coefficient(m), a_at.coefficient(k)
        a_tile = product.rows * a_row
        b_place, b_row = Memory(right, b_at.constant * dtype.itemsize), b_at.coefficient(k)
        if a_row == b_at.coefficient(n) == 1 and not batch and band is None and scalar in gemm.FLOATS:
            extents, place = (shape[m], shape[n], depth), (a_k, a_place, b_row, b_place)
            if depth >= DEEP and row_tiles >= FEW and column_tiles >= max(2, self.threads) and shape[m] <= TALL:
                self._deep(kernel, replace(product, deep=True), extents, place, turned)
                return
        apart = a_k * dtype.itemsize if a_row == 1 else 0
        spread = apart >= SPREAD or (apart and apart % CROWDED == 0)
        if spread and column_tiles >= READ_AGAIN and depth * shape[m] >= WORTH_PACKING:
            packing = packs.Packing(scalar, product.rows, "rows")
            a_place, a_batch = self._pack(a, a_at, packing, (depth, shape[m]), (k, m), shape[:-2])
            a_k, a_tile = packing.width, depth * packing.width
        b_batch, b_panel = _steps(b_at, batch), product.columns
        block = self._block(row_tiles)
        # A transposed right-hand side; the weights of a loop are rather packed, once for all its steps.
        if b_row == 1 and b_at.coefficient(n) > 1 and scalar in gemm.FLOATS and band is None and not self.again:
            product, b_row = replace(product, across=True), b_at.coefficient(n)
            b_panel = product.columns * b_row
            if column_tiles >= self.threads:  # no two threads turn the same
                block = row_tiles
        elif b_at.coefficient(n) != 1 or self._pays(b_row * dtype.itemsize, depth, row_tiles):
            order: Any = "rows" if b_at.coefficient(n) == 1 else "columns" if b_row == 1 else "any"
            packing = packs.Packing(scalar, product.columns, order)
            b_place, b_batch = self._pack(right, b_at, packing, (depth, shape[n]), (k, n), shape[:-2])
            b_row, b_panel = packing.width, depth * packing.width
        operands = gemm.Operands(
            m=shape[m], n=shape[n], k=depth, a=a_place, a_tile=a_tile, a_row=a_row, a_k=a_k,
            b=b_place, b_panel=b_panel, b_row=b_row, block=block,
            batch=shape[1:-2], a_batch=a_batch, b_batch=b_batch, band=band or (),
            chunk=None if band is None else 1 if depth <= product.depth else gemm.CHUNK,
        )  # fmt: skip
        tasks = product.tasks(shape[m], shape[n], size(shape[:-2]))

        def write() -> Written:
            direct = _is_short(kernel)
            return Nest(kernel, self.schedule).product(product, operands, shape, tasks, turned=turned, direct=direct)

        signature = Signature(kernel, self.schedule)
        key = signature.key, product, operands._replace(a=None, b=None), turned
        written = self.templates.get(key, (a_place, b_place, *signature.held), write)
        self._call(kernel, written, 2 * size(shape) * depth)

    def _deep(
        self,
        kernel: Kernel,
        product: gemm.Product,
        extents: Shape,
        place: tuple[int, Memory, int, Memory],
        turned: bool,
    ) -> None:
        """A product over a long sum, with room for copies of both sides and for the sums."""
        assert kernel.eq is not None
        (m, n, depth), (a_k, a, b_row, b) = extents, place
        shape, of = self.types[kernel.eq.out]
        tasks, apart = product.tasks(m, n), -(-m // LANES) * LANES * product.depth
        sizes = apart, product.depth * product.columns, -(-m // product.rows) * product.rows * product.columns
        a_copy, b_copy, kept = [Memory(self._scratch(tasks * size * of.itemsize)) for size in sizes]
        operands = gemm.Operands(
            m=m, n=n, k=depth, a=a, a_tile=product.rows, a_row=1, a_k=a_k, b=b, b_panel=product.columns, b_row=b_row,
            block=0, a_copy=a_copy, a_apart=apart, b_copy=b_copy, kept=kept,
        )  # fmt: skip

        def write() -> Written:
            direct = _is_short(kernel)
            return Nest(kernel, self.schedule).product(product, operands, shape, tasks, turned=turned, direct=direct)

        signature, memory = Signature(kernel, self.schedule), (a, b, a_copy, b_copy, kept)
        key = signature.key, product, operands._replace(a=None, b=None, a_copy=None, b_copy=None, kept=None), turned
        written = self.templates.get(key, (*memory, *signature.held), write)
        writes = (*kernel.stores, a_copy.value, b_copy.value, kept.value)
        self._call(kernel, written, 2 * size(shape) * depth, writes)

    def _windows(self, kernel: Kernel, seen: Windows) -> None:
        eq = kernel.eq
        assert eq is not None
        shape, dtype = self.types[eq.out].shape, self.types[eq.out].dtype
        *batch, m, _ = range(len(shape))
        (a, a_index), (right, b_index) = kernel.operands
        assert a_index is not None and b_index is not None, "products read elements"
        a_at, b_at = self.schedule.place(a, a_index), self.schedule.place(right, b_index)
        outer = [m, *batch, seen.lane]
        found = windows.tables(_without(a_at, outer), _without(b_at, outer), seen, dtype.itemsize)
        lane, many = seen.extents[seen.lane], size(shape[:-2])
        tile = windows.choose(
            shape[m], found, lane, memory_scalar(dtype),
            dot=seen.dot, batched=bool(batch), register_bytes=self.register_bytes,
        )  # fmt: skip
        planned = (windows.dot_plan if seen.dot else windows.spread_plan)(found, lane, tile.width, dtype.itemsize)
        count = len(planned.tiles)
        block = windows.blocks(tile, shape[m], count, many, self.threads) if seen.dot else (1, 1)
        operands = windows.Operands(
            m=shape[m], a=Memory(a, a_at.constant * dtype.itemsize), b=Memory(right), terms=self._table(planned.terms),
            tiles=self._table(planned.tiles), count=count, a_row=a_at.coefficient(m) * dtype.itemsize,
            a_batch=sum(_steps(a_at, batch)) * dtype.itemsize, b_batch=sum(_steps(b_at, batch)) * dtype.itemsize,
            tall=block[0], chunk=block[1], lanes=lane % LANES,
        )  # fmt: skip
        tasks = windows.tasks(tile, shape[m], count, block, many)

        def write() -> Written:
            return Nest(kernel, self.schedule).windows(tile, operands, shape, tasks, direct=_is_short(kernel))

        signature, memory = Signature(kernel, self.schedule), (operands.a, operands.b, operands.terms, operands.tiles)
        key = signature.key, tile, operands._replace(a=None, b=None, terms=None, tiles=None)
        flops = 2 * shape[m] * many * int(found.counts[found.classes].sum()) * lane
        self._call(kernel, self.templates.get(key, (*memory, *signature.held), write), flops)

    def _block(self, tiles: int) -> int:
        """Row tiles that belong together: each thread gets rows of its own, which it has in its cache from before."""
        return max(1, min(BLOCK, -(-tiles // self.threads)))

    @staticmethod
    def _pays(row_bytes: int, depth: int, row_tiles: int) -> bool:
        """Whether a right-hand side that lies in rows is worth packing: those of a column tile are read again for each
        row tile, and lie far apart, or upon one another in the cache."""
        crowded, often = row_bytes % CROWDED == 0, row_tiles >= (16 if depth * row_bytes <= NEAR else 32)
        return (depth >= 64 and crowded) or (depth >= 128 and often)

    def _pack(
        self, value: int, at: Expr, packing: packs.Packing, shape: tuple[int, int], axes: tuple[int, int], batch: Shape
    ) -> tuple[Memory, Shape]:  # fmt: skip
        """Where an operand lies in panels, packed once for all products that read it so, and by how much it moves on
        there along each axis of the batch: a matrix that serves several products is packed once for them, too."""
        (depth, n), outer = shape, _steps(at, range(len(batch)))
        k_step, n_step = at.coefficient(axes[0]), at.coefficient(axes[1])
        panel = depth * packing.width
        whole = packing.tasks(n) * panel
        moving = [i for i, step in enumerate(outer) if step]
        extents = tuple([batch[i] for i in moving])
        made = tuple([whole * n for n in strides_of(extents)])
        key = (value, at.constant, k_step, n_step, shape, outer, packing)
        if key not in self.packed:
            itemsize = self.types[value].dtype.itemsize
            self.packed[key] = self._scratch(size(extents) * whole * itemsize)
            source, panels = Memory(value, at.constant * itemsize), Memory(self.packed[key])
            operands = packs.PackOperands(
                depth, n, source, k_step, n_step, panels, panel, extents[1:], tuple([outer[i] for i in moving]), made
            )
            self._packed(None, replace(packing, batched=len(moving)), operands, size(extents))
        moves = dict(zip(moving, made, strict=True))
        return Memory(self.packed[key]), tuple([moves.get(i, 0) for i in range(len(batch))])

    def _packed(self, kernel: Kernel | None, packing: packs.Packing, operands: packs.PackOperands, batch: int) -> None:
        tasks = packing.tasks(operands.n, batch)

        def write() -> Written:
            b = Builder()
            packs.emit_pack(b, packing, operands)
            return Written(b, tasks, (), b.bound)

        structure = packing, operands._replace(source=None, panels=None), batch
        written = self.templates.get(structure, (operands.source, operands.panels), write)
        writes = None if kernel is not None else (operands.panels.value,)
        self._call(kernel, written, writes=writes, moved=batch * operands.k * operands.n)


def _same(step: Lowered, calls: Iterable[Call], fixed: set[int]) -> list[bool]:
    """Which calls of a step do the same at each of them: they read nothing but what does not change, and write nothing
    that each step hands out."""
    outputs, found = {step.schedule.holder(v) for v in step.schedule.roots.values()}, []
    for call in calls:
        same = fixed.issuperset(call.reads) and outputs.isdisjoint(map(step.schedule.holder, call.writes))
        found.append(same and not call.checks)
        if found[-1]:
            fixed.update(call.writes)
    return found


def _is_short(kernel: Kernel) -> bool:
    """Whether what a product does with its sums is a few cheap operations."""
    nodes = [node for body in kernel.bodies.values() for node in walk(body)]
    names = [node.name for node in nodes if isinstance(node, Apply)]
    return len(names) <= SHORT and CHEAP.issuperset(names) and len(kernel.stores) <= 2


def _without(at: Expr, axes: Sequence[int]) -> Expr:
    for number in axes:
        at = at.without(number)
    return at


def _steps(at: Expr, axes: Iterable[int]) -> Shape:
    """By how much a place in memory moves on along each axis."""
    return tuple([at.coefficient(i) for i in axes])
