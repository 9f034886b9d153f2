"""Products: C[m, n] = Σₖ A[m, k]·B[k, n], from a tile of accumulators that stays in registers over the whole of k.

Each element is one chain in the order of k (fused multiply-adds for floats), whatever the tile, the split of the work
and the width of the machine's registers are: none of them can change a bit. One text serves every size, because
extents and strides are run-time words and tails are masked columns and repeated rows, not copies of the loop.

A is read by single elements at any strides. B is read by vectors along n, from rows ``b_row`` apart in column tiles
``b_panel`` apart, which is one address for two layouts: a plain matrix (``b_panel`` = columns, ``b_row`` = its row
stride), and panels that ``emit_pack`` wrote (``b_panel`` = K·columns, ``b_row`` = columns), where a tile's part of B
is one contiguous run; a transposed B is turned on the way (``across``). In the same way the row tiles of A are
``a_tile`` apart: rows · ``a_row`` in a plain matrix. Rows whose strides are multiples of 256 bytes and more meet in few
sets of the cache, and a transposed A touches a line for every few of its elements: either costs up to half the speed.
One cache line of padding between rows gives back the first, panels give back both.

Source: Goto and van de Geijn, 2008 (panels); Van Zee and van de Geijn, 2015 (BLIS: the micro-kernel).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from slalom.compiler.ir import I64, LANES, PTR, Builder, Type, Value, Variable, literal
from slalom.compiler.packs import Outer, Turn, ceil_div, outer, words_of

_BYTES: Final = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "float": 4, "double": 8}
FLOATS: Final = frozenset({"float", "double"})
"""Those that go through registers of accumulators as they are."""
_ROWS: Final = {1: (8, 10, 12, 6, 4, 2, 1), 2: (8, 10, 12, 6, 4, 2, 1), 3: (8, 6, 4, 2, 1), 4: (6, 5, 4, 2, 1)}
"""By the vectors of a tile its rows, and other numbers of them that a small M may fill better."""
_STAYS: Final = 32 << 10
"""Bytes of a column tile of B that a tile goes through at once: they stay in the nearest cache for all row tiles …"""
CHUNK: Final = 8
"""… of which so many are taken in turn, each with its sums …"""
MANY: Final = 48
"""… or so many, where each turn means that B is turned once more."""


@dataclass(frozen=True)
class Product:
    """The structure of a product kernel; equal structures and epilogues give equal text.

    scalar: of A, B and the accumulators; integers wrap around as NumPy's do.
    rows, vectors: the tile, in rows of A and vectors of 16 columns of B.
    batched: over how many outer indices there is a product for each; A and B have a stride of their own along each.
    banded: whether A, B or C are bands along their diagonals, outside of which there is nothing to do.
    indexed: whether row m of A is row ``a_index[m]`` (i64, the caller keeps it in range; a + row·a_row + k·a_k).
    logical: or of ands, for booleans stored as bytes (scalar i8).
    across: B[k, n] lies with k side by side (a transposed matrix): stretch by stretch a column tile is turned into a
        copy, which never leaves the nearest cache, for as many row tiles as take turns.
    deep: a long sum, in stretches of k that are copied (``deep.py``): A[m, k] with a_row = 1, B in rows; no batch.
    """

    scalar: str = "float"
    rows: int = 8
    vectors: int = 2
    batched: int = 0
    banded: bool = False
    indexed: bool = False
    logical: bool = False
    deep: bool = False
    across: bool = False

    @property
    def columns(self) -> int:
        """Columns of a tile, hence of a panel."""
        return self.vectors * LANES

    @property
    def depth(self) -> int:
        """Rows of B that a tile goes through at once."""
        return _STAYS // (self.columns * _BYTES[self.scalar])

    def tasks(self, m: int, n: int, batch: int = 1) -> int:
        """The extent of the kernel's parallel loop: its tiles, of a deep one the column tiles."""
        if self.deep:
            return -(-n // self.columns)
        return -(-m // self.rows) * -(-n // self.columns) * batch

    @property
    def turns(self) -> int:
        """How many row tiles take turns, at most."""
        return MANY if self.across else CHUNK


class Operands(NamedTuple):
    """What stands in the argument words (any object that the caller can bind later). Strides count elements.

    m, n, k: the extents of C (M, N) and of the sum.
    a, a_tile, a_row, a_k: where A[m, k] is: a + (m ÷ rows)·a_tile + (m mod rows)·a_row + k·a_k.
    b, b_panel, b_row: where B[k, n] is: b + (n ÷ columns)·b_panel + k·b_row + n mod columns; of a product across
        + k + (n mod columns)·b_row.
    block: row tiles that are done for one column tile before the next; tasks are numbered (batch, block of rows,
        column tile, row tile). At least 1; all row tiles keep B's tile in the cache (and turn it once, across), fewer
        give each thread rows.
    batch, a_batch, b_batch: of batched products, the extents of all outer indices but the first, and by how much A and
        B move on along each of them (0 repeats).
    a_index: the rows of A, of indexed products.
    band: of banded products, of A, B and C the least and the greatest column − row where they are not zero; C is 0
        outside where it is left out.
    chunk: the row tiles, at most 8, that are cut to the band as one.
    a_copy, a_apart, b_copy, kept: of deep products, where stretches of both sides are copied to, how far apart the
        copies of A are, and where the sums are.
    """

    m: Any
    n: Any
    k: Any
    a: Any
    a_tile: Any
    a_row: Any
    a_k: Any
    b: Any
    b_panel: Any
    b_row: Any
    block: Any
    batch: tuple[Any, ...] = ()
    a_batch: tuple[Any, ...] = ()
    b_batch: tuple[Any, ...] = ()
    a_index: Any = None
    band: tuple[Any, ...] = ()
    chunk: Any = None
    a_copy: Any = None
    a_apart: Any = None
    b_copy: Any = None
    kept: Any = None


Epilogue = Callable[[Builder, Value, Value, Value, Value, Outer], None]
"""``epilogue(b, m, n, sums, mask, batch)`` emits what is done with C[m, n … n + 15], a vector of which the lanes in
``mask`` exist. It runs once for each row and vector of each tile, in any order."""


def choose(
    n: int,
    scalar: str = "float",
    *,
    m: int | None = None,
    batched: int = 0,
    banded: bool = False,
    indexed: bool = False,
    logical: bool = False,
    register_bytes: int = 64,
) -> Product:
    """The tile for N columns on a machine with registers of so many bytes.

    m: the rows of A where they are not the batch, or a kernel of their own is worth it, so that a small M fills its
    tile; None where they may vary, and one kernel must serve them all.
    """
    wide = LANES * _BYTES[scalar] // register_bytes  # registers of one vector
    if scalar not in ("float", "double"):
        rows, vectors = 4, 1
    elif register_bytes < 64:  # 16 registers hold the sums, one vector of B and one element of A
        rows, vectors = max(1, (15 - wide) // wide), 1
    else:
        # 32 registers, of which at most 24 hold sums. A tile loads rows + vectors for rows · vectors multiplications:
        # 0.42 for each with 6 × 4, 0.63 with 8 × 2, which a processor feels that loads less than twice a cycle.
        columns = -(-n // LANES)
        if scalar == "double" or columns <= 1:
            vectors = 1
        elif columns <= 3:
            vectors = columns
        else:
            vectors = 4 if n >= 512 or columns % 4 in (0, 3) else 2
        rows, *others = _ROWS[vectors]
        if m is not None:
            # By cycles for each k: of multiplications, of loads, and of waiting for sums.
            cycles = {r: -(-m // r) * max(r * vectors / 2, r + vectors, 4) for r in (rows, *others)}
            best = min(cycles, key=cycles.__getitem__)
            rows = best if 1.1 * cycles[best] < cycles[rows] else rows
    return Product(scalar, rows, vectors, batched, banded, indexed, logical)


def emit(b: Builder, product: Product, operands: Operands, epilogue: Epilogue, *, direct: bool = True) -> None:
    """Write the kernel; its range counts ``product.tasks(…)`` and may be split anywhere.

    direct: the epilogue's text stands once for each vector of a tile, which it takes from its register: a short one is
    then faster by some 10 %. A long one (an activation) takes the sums from memory, in a loop over the tile's rows.
    """
    with b.when(b.compare("slt", b.begin, b.end)):
        Emitter(b, product, operands, epilogue, direct).runs()


class Stretch(NamedTuple):
    """So many steps along k after those that are done, and whether more come later."""

    done: Value
    length: Value
    later: Value


class Lines(NamedTuple):
    """A stretch of B: where its first row begins, and how far apart its rows are."""

    first: Value
    step: Value


class Emitter:
    """Writes one kernel, from the outermost loop inwards."""

    def __init__(self, b: Builder, product: Product, operands: Operands, epilogue: Epilogue, direct: bool) -> None:
        self.b, self.product, self.operands, self.epilogue = b, product, operands, epilogue
        self.scalar, self.vector = Type(product.scalar), Type(product.scalar, LANES)
        self.m, self.n, self.k = (self.word(name) for name in ("m", "n", "k"))
        self.a_row, self.a_k, self.b_row = (self.word(name) for name in ("a_row", "a_k", "b_row"))
        self.direct = direct
        self.tile = b.stack(self.vector, product.rows * product.vectors)
        self.kept = b.stack(self.vector, product.turns * product.rows * product.vectors)
        if product.vectors > 1 or product.across:
            self.copy = b.stack(self.vector, product.depth * product.vectors)

    def word(self, name: str, type: Type = I64) -> Value:
        return self.b.word(("gemm", name), getattr(self.operands, name), type)

    def words(self, name: str) -> list[Value]:
        return words_of(self.b, "gemm", name, self.operands)

    def runs(self) -> None:
        """The range, cut into runs of row tiles that share a column tile."""
        b, product = self.b, self.product
        tiles, panels = ceil_div(b, self.m, product.rows), ceil_div(b, self.n, product.columns)
        block = b.intrinsic("smin", self.word("block"), tiles)
        task = b.variable(b.begin)
        with b.repeat_while() as again:
            rest, batch = task.get(), Outer()
            if product.batched:
                each = b.mul(tiles, panels)
                flat = b.binary("udiv", rest, each)
                rest = b.sub(rest, b.mul(flat, each))
                batch = outer(b, flat, self.words("batch"))
            whole = b.mul(block, panels)
            first = b.mul(b.binary("udiv", rest, whole), block)
            size = b.intrinsic("smin", block, b.sub(tiles, first))
            rest = b.sub(rest, b.mul(first, panels))
            panel = b.binary("udiv", rest, size)
            row = b.sub(rest, b.mul(panel, size))
            count = b.intrinsic("smin", b.sub(size, row), b.sub(b.end, task.get()))
            self.run(batch, panel, b.add(first, row), count)
            task.set(b.hidden(b.add(task.get(), count)))
            again.append(b.compare("slt", task.get(), b.end))

    def run(self, batch: Outer, panel: Value, first: Value, count: Value) -> None:
        """``count`` row tiles from ``first`` on, of one column tile."""
        b, product = self.b, self.product
        a, start = self.word("a", PTR), b.mul(panel, self.word("b_panel"))
        for index, a_step, b_step in zip(batch, self.words("a_batch"), self.words("b_batch"), strict=True):
            a = b.offset(a, b.mul(index, a_step), self.scalar)
            start = b.add(start, b.mul(index, b_step))
        right = b.offset(self.word("b", PTR), start, self.scalar)
        n = b.mul(panel, b.number(product.columns))
        end, tile = b.add(first, count), b.variable(first)
        most = self.word("chunk") if product.banded else b.number(product.turns)
        with b.repeat_while() as again:
            here = tile.get()
            stop = b.intrinsic("smin", b.add(here, most), end)
            a_here, b_here = self.cut((here, stop), n, a, right) if product.banded else (a, right)
            self.chunk(batch, n, (here, stop), a_here, b_here)
            tile.set(b.hidden(stop))
            again.append(b.compare("slt", stop, end))

    def cut(self, tiles: tuple[Value, Value], n: Value, a: Value, right: Value) -> tuple[Value, Value]:
        """The sum cut to the k at which neither A nor B is outside of its band for all elements of a few tiles; where
        C is, to nothing. What is left out of a chain is exact zeros, of which ``Nest`` takes the sign."""
        b, product = self.b, self.product
        top, left = b.mul(tiles[0], b.number(product.rows)), n
        bottom = b.intrinsic("smin", b.mul(tiles[1], b.number(product.rows)), self.m)
        edge = b.intrinsic("smin", b.add(n, b.number(product.columns)), self.n)
        bottom, edge = b.sub(bottom, b.number(1)), b.sub(edge, b.number(1))
        a_low, a_high, b_low, b_high, low, high = self.words("band")
        start = b.intrinsic("smax", b.add(top, a_low), b.sub(left, b_high))
        start = b.intrinsic("smax", start, b.number(0))
        stop = b.intrinsic("smin", b.add(bottom, a_high), b.sub(edge, b_low))
        stop = b.intrinsic("smin", b.add(stop, b.number(1)), self.word("k"))
        above = b.compare("sgt", b.sub(left, bottom), high)
        below = b.compare("slt", b.sub(edge, top), low)
        self.k = b.sub(b.select(b.binary("or", above, below), start, stop), start)
        places = b.mul(start, self.a_k), b.mul(start, self.b_row)
        return b.offset(a, places[0], self.scalar), b.offset(right, places[1], self.scalar)

    def chunk(self, batch: Outer, n: Value, tiles: tuple[Value, Value], a: Value, right: Value) -> None:
        """A few row tiles of one column tile, over one stretch of k after the other. Between two stretches the sums
        lie in memory, as they are: a chain that is interrupted is the same chain.

        A masked load costs a place among the multiplications. So what is narrower than a tile of several vectors is
        first copied, with zeros to its right, and goes through the same loop.
        """
        b, product, most = self.b, self.product, self.b.number(self.product.depth)
        left = b.sub(self.n, n)
        depth = b.variable(b.number(0))
        masks = self.masks(left)
        with b.repeat_while() as again:
            done = depth.get()
            rest = b.sub(self.k, done)
            stretch = Stretch(done, b.intrinsic("smin", rest, most), b.compare("sgt", rest, most))
            a_here = b.offset(a, b.mul(done, self.a_k), self.scalar)
            if product.across:
                lines = self.turned(left, b.offset(right, done, self.scalar), stretch.length)
            else:
                lines = Lines(b.offset(right, b.mul(done, self.b_row), self.scalar), self.b_row)
                if product.vectors > 1:
                    lines = self.widened(left, lines, stretch.length, masks)
            with b.loop(*tiles) as i:
                m = b.mul(i, b.number(product.rows))
                kept = b.mul(b.sub(i, tiles[0]), b.number(product.rows * product.vectors))
                rows = self.row_addresses(a_here, i, m)
                self.piece((batch, m, n), rows, lines, stretch, kept, masks)
            depth.set(b.hidden(b.add(done, most)))
            again.append(stretch.later)

    def turned(self, left: Value, right: Value, length: Value) -> Lines:
        """A stretch of B, which lies across, as rows, with zeros to its right."""
        b, columns = self.b, self.b.number(self.product.columns)
        turn = Turn(b, self.scalar, (b.number(1), self.b_row), (columns, columns, columns))
        turn.all(right, self.copy, left, length)
        return Lines(self.copy, columns)

    def widened(self, left: Value, right: Lines, length: Value, masks: list[Value]) -> Lines:
        """A stretch of B where it lies if it is as wide as the tile; else its copy."""
        b, columns = self.b, self.product.columns
        whole = b.compare("sge", left, b.number(columns))
        with b.when(self.opposite(whole)), b.loop(0, length) as k:
            line = b.offset(right.first, b.mul(k, right.step), self.scalar)
            copy = b.offset(self.copy, b.mul(k, b.number(columns)), self.scalar)
            for v, mask in enumerate(masks):
                found = b.load_masked(self.vector, b.offset(line, v * LANES, self.scalar), mask)
                b.store(found, b.offset(copy, v * LANES, self.scalar), 64)
        return Lines(b.select(whole, right.first, self.copy), b.select(whole, right.step, b.number(columns)))

    def masks(self, left: Value) -> list[Value]:
        """For each vector of a tile, the lanes that are columns, of which so many are left."""
        return [self.mask(self.b.sub(left, self.b.number(v * LANES))) for v in range(self.product.vectors)]

    def mask(self, left: Value) -> Value:
        mask = self.b.lanes_below(left)
        # Code generation moves a lone compare down to its use, into the loop over k; it leaves an or alone.
        return self.b.binary("or", mask, literal(0, mask.type))

    def opposite(self, condition: Value) -> Value:
        return self.b.binary("xor", condition, literal(1, condition.type))

    def piece(
        self, at: tuple[Outer, Value, Value], rows: list[Value], right: Lines, stretch: Stretch, kept: Value,
        masks: list[Value],
    ) -> None:  # fmt: skip
        """One stretch of a tile; ``at``: batch, row and column of its first sum, ``masks``: the columns that exist."""
        b = self.b
        place = b.offset(self.kept, kept, self.vector)
        sums = [b.variable(literal(0, self.vector)) for _ in range(self.product.rows * len(masks))]
        with b.when(b.compare("sgt", stretch.done, b.number(0))):
            for i, value in enumerate(sums):
                value.set(b.load(self.vector, b.offset(place, i, self.vector), 64))
        with b.when(b.compare("sgt", stretch.length, b.number(0))):
            self.chain(rows, right, stretch.length, sums, masks)
        with b.when(stretch.later):
            for i, value in enumerate(sums):
                b.store(value.get(), b.offset(place, i, self.vector), 64)
        with b.when(self.opposite(stretch.later)):
            self.finish(at, [value.get() for value in sums], masks)

    def row_addresses(self, a: Value, i: Value, m: Value) -> list[Value]:
        """Where each row of tile i, whose first row is m, begins; rows beyond M repeat the last one."""
        b = self.b
        last = b.sub(b.sub(self.m, b.number(1)), m)
        tile = a if self.product.indexed else b.offset(a, b.mul(i, self.word("a_tile")), self.scalar)
        found = []
        for r in range(self.product.rows):
            row = b.intrinsic("smin", b.number(r), last)
            if self.product.indexed:
                row = b.load(I64, b.offset(self.word("a_index", PTR), b.add(m, row), I64))
            found.append(b.offset(tile, b.mul(row, self.a_row), self.scalar))
        return found

    def chain(self, rows: list[Value], right: Lines, length: Value, sums: list[Variable], masks: list[Value]) -> None:
        """The loop over k: one vector of B after the other times one element of each row."""
        b = self.b
        at, line, left = b.variable(b.number(0)), b.variable(right.first), b.variable(length)
        with b.repeat_while(1000) as again:
            here, column = line.get(), at.get()
            places = [b.offset(here, v * LANES, self.scalar) for v in range(len(masks))]
            if len(masks) > 1:
                found = [b.load(self.vector, place) for place in places]
            else:
                found = [b.load_masked(self.vector, places[0], masks[0])]
            for r, row in enumerate(rows):
                element = b.splat(b.load(self.scalar, b.offset(row, column, self.scalar)))
                for v, vector in enumerate(found):
                    into = sums[r * len(masks) + v]
                    into.set(self.multiply_add(element, vector, into.get()))
            at.set(b.hidden(b.add(column, self.a_k)))
            line.set(b.hidden(b.offset(here, right.step, self.scalar)))
            left.set(b.hidden(b.sub(left.get(), b.number(1))))
            again.append(b.compare("sgt", left.get(), b.number(0)))

    def multiply_add(self, x: Value, y: Value, total: Value) -> Value:
        if self.vector.floating:
            return self.b.fma(x, y, total)
        if self.product.logical:
            return self.b.binary("or", self.b.binary("and", x, y), total)
        return self.b.add(self.b.mul(x, y), total)

    def finish(self, at: tuple[Outer, Value, Value], sums: list[Value], masks: list[Value]) -> None:
        """The epilogue for the rows that exist."""
        b, (batch, m, n), vectors = self.b, at, len(masks)
        columns = [b.add(n, b.number(v * LANES)) for v in range(vectors)]

        def write(row: Value, column: Value, found: Value, mask: Value) -> None:
            self.epilogue(b, row, column, found, mask, batch)

        epilogue = b.copied(write)
        if self.direct:
            for number in range(self.product.rows):
                row = b.add(m, b.number(number))
                with b.when(b.compare("slt", row, self.m)):
                    for v, column in enumerate(columns):
                        epilogue(row, column, sums[number * vectors + v], masks[v])
            return
        for i, value in enumerate(sums):
            b.store(value, b.offset(self.tile, i, self.vector), 64)
        with b.loop(0, b.intrinsic("smin", b.sub(self.m, m), b.number(self.product.rows))) as r:
            row = b.add(m, r)
            for v, column in enumerate(columns):
                place = b.add(b.mul(r, b.number(vectors)), b.number(v))
                found = b.load(self.vector, b.offset(self.tile, place, self.vector), 64)
                epilogue(row, column, found, masks[v])
